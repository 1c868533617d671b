-- SPDX-License-Identifier: MIT
--- Open pools of runspaces.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local initial_state = require "parallel.initial_state"
local limits = require "parallel.limits"
local options = require "parallel.options"

local ipairs, math, next, type, warn = ipairs, math, next, type, warn

--- RS_NO_SIGNAL of runspace.h
local NO_SIGNAL <const> = -1

-- luacheck: no max comment line length
---@class parallel.PoolOptions: parallel.InitialStateFields, parallel.RunspaceLimits
---@field min? integer  workers that are always there; default 1
---@field max? integer|"auto"  workers at most; default, one for each CPU;
---       "auto": as many, and more while they wait
---@field globals? boolean|string[]  which globals travel with functions, unless
---       a call has the option, too
---@field idle? number  seconds before a worker above `min` that has nothing to
---                     do ends; default 10; math.huge: never
---@field streams? table<string, boolean|function>  which streams of its jobs
---       are shown or handed to functions, unless a call has the option, too
---@field queue? integer|string|{jobs?: integer, bytes?: integer|string,
---       name?: string}  jobs that may be queued, and bytes of their functions
---       and arguments; `submit` and `spawn` wait while the queue is full.
---       With `broker`, the name of the queue there
---@field pin? boolean  each worker stays on one CPU, worker 1 on the first CPU
---       that the process may use, and so on
---@field signal? integer|"none"  signal that stops a job; default SIGURG; with
---       "none" a job stops where it looks whether it is to stop

--- RS_WORKERS_MAX of runspace.h
local MOST_WORKERS <const> = 65536

local QUEUE <const> = limits.tests "queue"
QUEUE.name = check.name

--- Test the option `queue`: a number of jobs, or a table of jobs and bytes.
---@param value any
---@return string? expected
---@return string? wrong
local function queue (value)
  if QUEUE.jobs(value) == nil or type(value) == "string" then return nil end
  local expected <const> = "a positive integer, or a table of jobs and bytes,"
  if type(value) ~= "table" then return expected end
  for name, limit in next, value do
    if QUEUE[name] == nil then
      return expected, "the field " .. check.describe(name)
    end
    local wanted <const> = QUEUE[name](limit)
    if wanted ~= nil then
      return wanted .. " for " .. name, check.describe(limit)
    end
  end
end

---@param value any
---@return string?
local function signal (value)
  local n = math.type(value) == "integer" and value
  if value ~= "none" and not (n and n >= 1 and n <= 64) then
    return "the number of a signal, or 'none',"
  end
end

local OWN <const> = limits.tests "pool"
OWN.globals = limits.CALL.globals
OWN.idle = check.seconds
OWN.max = limits.or_auto "max"
OWN.queue = queue
OWN.signal = signal
OWN.streams = options.streams

--- Return the default of the option `max`.
---@return integer
local function default_max ()
  return core.workers ~= nil and core.workers() or core.cpus()
end

--- Raise, since the options of 'verb' do not go together.
---@param verb string
---@param name string
---@param why string
local function refuse_option (verb, name, why)
  check.misuse("bad option '" .. name .. "' to '" .. verb .. "' (" .. why
               .. ")")
end

--- Options that only processes have, in the order in which they are looked
--- at; true: those that are started elsewhere, too.
local OF_PROCESSES <const> = {
  { "cpu_time", true }, { "nice", true }, { "cwd", true }, { "env", false },
  { "sandbox", false }, { "readable", false }, { "writable", false },
}

--- Raise if an option has no meaning where the workers are.
---@param verb string
---@param given table
---@param away string|false  the option that says that they are elsewhere
local function check_process (verb, given, away)
  local strict <const> = given.sandbox == "strict"
  for _, row in ipairs(OF_PROCESSES) do
    local name <const>, far <const> = row[1], row[2]
    local is_given <const> = given[name] ~= nil
                         and (name ~= "sandbox" or strict)
    if is_given and not away and given.isolation ~= "process" then
      refuse_option(verb, name, "it is for processes: give isolation = "
                                .. "\"process\", or leave it out")
    elseif is_given and away and not far then
      refuse_option(verb, name, "it is for children of this process, and '"
                    .. away .. "' starts others: let the words of '"
                    .. (away == "hosts" and "ssh" or away)
                    .. "' see to it, or leave it out")
    end
  end
  for _, name in ipairs { "readable", "writable" } do
    if given[name] ~= nil and not strict then
      refuse_option(verb, name, "it names what passes a wall: give sandbox = "
                                .. "\"strict\", too")
    end
  end
end

--- Raise if options say in two ways where the workers are.
---@param verb string
---@param given table
local function check_reach (verb, given)
  local function refuse (name, why) refuse_option(verb, name, why) end
  local queued <const> = given.queue
  local named <const> = type(queued) == "string"
                     or type(queued) == "table" and queued.name ~= nil
  local away <const> = given.hosts ~= nil and "hosts"
                    or given.command ~= nil and "command"
                    or given.broker ~= nil and "broker"
  for _, name in ipairs { "hosts", "command", "runspace" } do
    if given.broker ~= nil and given[name] ~= nil then
      refuse(name, "the workers of 'broker' are started where they are, by "
                   .. "'runspace --serve': leave one of them out")
    end
  end
  if given.broker ~= nil and given.isolation == "process" then
    refuse("isolation", "the workers of 'broker' are processes where they "
                        .. "are: leave one of them out")
  elseif given.broker ~= nil and not named then
    refuse("broker", "a queue is needed: give its name as 'queue'")
  elseif given.broker == nil and named then
    refuse("queue", "it is the name of a queue of a broker: give 'broker', "
                    .. "too")
  elseif given.broker == nil and given.key ~= nil then
    refuse("key", "it is for a broker: give 'broker', too")
  end
  if given.hosts ~= nil and given.command ~= nil then
    refuse("command", "'hosts' are reached by ssh, whose words the option "
                      .. "'ssh' has: leave one of them out")
  elseif (away or given.broker ~= nil) and given.isolation == "serial" then
    refuse("isolation", "\"serial\" is on the thread of the host, and '"
                        .. (away or "broker") .. "' elsewhere: leave one of "
                        .. "them out")
  elseif away and given.isolation == "thread" then
    refuse(away, "its workers are processes, and isolation = \"thread\" asks "
                 .. "for threads: leave one of them out")
  elseif given.ssh ~= nil and given.hosts == nil then
    refuse("ssh", "it is what reaches hosts: give 'hosts', too")
  elseif given.runspace ~= nil and given.command ~= nil then
    refuse("runspace", "the words of 'command' name the program: leave it out")
  elseif given.runspace ~= nil and given.hosts == nil
         and given.isolation ~= "process" then
    refuse("runspace", "it is the program of processes: give isolation = "
                       .. "\"process\", too")
  elseif given.heartbeat ~= nil and not away
         and given.isolation ~= "process" then
    refuse("heartbeat", "it is for processes: give isolation = \"process\", "
                        .. "too")
  end
  check_process(verb, given, away or false)
end

--- Return where the runspaces are.  A serial pool has one, whatever 'max' it
--- may have.
---@param verb string
---@param given table
---@return "thread"|"process"|"serial"
local function isolation_of (verb, given)
  if given.isolation == "serial" then
    for _, name in ipairs { "min", "pin" } do
      if given[name] and given[name] ~= 1 then
        refuse_option(verb, name, "isolation = \"serial\" has no workers but "
                                  .. "the host: leave it out")
      end
    end
  end
  local away <const> = given.hosts or given.command or given.broker
  return given.isolation or not away and core.serial() and "serial"
         or "thread"
end

--- Turn a table of variables into the words that `core` takes.
---@param env table<string, string|number|false>?
---@return string[]?
local function to_words (env)
  if env == nil then return nil end
  local words <const> = {}
  for name, value in next, env do
    words[#words + 1] = value and name .. "=" .. value or name
  end
  return words
end

--- Warn of hosts that could not be reached, while others could.
---@param pool parallel.Pool
local function warn_of_failures (pool)
  local failure <const> = pool:info().failure
  if failure ~= nil then warn("parallel.pool: ", failure) end
end

--- Tell whether a pool adapts its width, and raise if it cannot.
---@param max integer|"auto"|nil
---@param given table
---@param verb string
---@param isolation "thread"|"process"|"serial"
---@return boolean
local function adapts (max, given, verb, isolation)
  if max ~= "auto" or isolation == "serial" then return false end
  if isolation ~= "thread" or given.hosts or given.command or given.broker then
    refuse_option(verb, given.max == max and "max" or "limit",
                  "'auto' looks at the time that threads take, and these "
                  .. "workers are processes: give a number")
  end
  return true
end

---@param max integer|"auto"|nil
---@param given table
---@param said parallel.InitialState|parallel.InitialStateOptions
---@param verb string
---@return parallel.Pool
local function open (max, given, said, verb)
  check_reach(verb, given)
  local min <const> = given.min or 1
  local isolation <const> = isolation_of(verb, given)
  local adapt <const> = adapts(max, given, verb, isolation)
  if max == "auto" then max = nil end
  local idle = given.idle
  if idle == 0 then idle = 1e-9 end  -- for `core`, 0 means the default
  local queued <const> = given.queue
  local limited <const> = type(queued) == "table"
  local own <const> = {
    idle = idle,
    reset = given.reset or "globals",
    isolation = isolation,
    adapt = adapt,
    runspace = given.runspace,
    command = given.command,
    hosts = given.hosts,
    ssh = given.ssh,
    heartbeat = given.heartbeat,
    cwd = given.cwd,
    env = to_words(given.env),
    strict = given.sandbox == "strict",
    readable = given.readable,
    writable = given.writable,
    globals = given.globals,
    initial_state = initial_state.make(said),
    broker = given.broker,
    broker_queue = limited and queued.name
                   or type(queued) == "string" and queued or nil,
    key = given.key,
    queue = limited and limits.add("queue", {}, queued)
            or { jobs = math.type(queued) and queued },
    signal = given.signal == "none" and NO_SIGNAL or given.signal,
  }
  limits.add("pool", own, {
    min = given.min, max = max, pin = given.pin,
  })
  limits.add("runspace", own, given)
  if isolation == "serial" then
    own.min, own.max, own.pin = nil, nil, nil
  elseif given.hosts == nil and given.broker == nil then
    own.min, own.max = min, max or math.max(min, default_max())
  else  -- they say how many
    own.min, own.max = given.min, max
  end
  local pool <const> = core.pool(own)
  pool:set_streams(given.streams)
  if given.hosts ~= nil or given.command ~= nil then warn_of_failures(pool) end
  return pool
end

--- Open a pool for one call of 'verb', as the options of the call describe it.
---@param verb string
---@param given table
---@param said? parallel.InitialState|parallel.InitialStateOptions
---@return parallel.Pool
local function open_for (verb, given, said)
  local limit <const> = given.limit
  return open(limit == "auto" and limit
              or limit and math.min(limit, MOST_WORKERS), given,
              said or initial_state.read(verb, given), verb)
end

--- Check the options of a pool.
---@param verb string
---@param given any
---@return integer|"auto"|nil max
---@return table given
---@return parallel.InitialState|parallel.InitialStateOptions said
---@return string verb
local function read (verb, given)
  given = given or {}
  if type(given) == "number" then
    check.misuse("bad argument 'options' to '" .. verb .. "' (a table "
                 .. "expected, got "
                 .. given .. "; it is written parallel.pool{max = " .. given
                 .. "})")
  end
  check.is_options(given, verb)
  for name, value in next, given do
    local test = OWN[name] or options.PLACE[name]
    if test == nil then
      check.unknown_option(verb, name, OWN, options.PLACE)
    end
    local expected, wrong = test(value)
    if expected ~= nil then
      check.misuse("bad option '" .. name .. "' to '" .. verb .. "' ("
                   .. expected .. " expected, got "
                   .. (wrong or check.describe(value)) .. ")")
    end
  end
  local min, max = given.min, given.max
  if min ~= nil and max ~= nil and max ~= "auto" and min > max then
    check.misuse("bad option 'min' to '" .. verb .. "' (" .. min
                 .. " workers are more than 'max', " .. max .. ")")
  end
  return max, given, initial_state.read(verb, given), verb
end

--- Open a pool.  Its first `min` workers are started before this returns.  If
--- the seeding runs code of scripts (modules, `init`), all these workers are
--- seeded before this returns.  An error of the seeding (a missing module, an
--- error in `init`) is raised here.  Close the pool with `<close>` or
--- `pool:close`.
---
---     local pool <close> = parallel.pool{max = 4, modules = {"cjson"}}
---@type fun(given?: parallel.PoolOptions): parallel.Pool
local pool = check.public("parallel.pool{max =, ...}", 1, open,
                                  function (given)
  return read("pool", given)
end)

---@class parallel.PoolSize
---@field min? integer  workers that are always there
---@field max? integer  workers at most

local SIZE <const> = limits.tests "pool"
SIZE.pin = nil

---@param self parallel.Pool
---@param given any
---@return parallel.Pool
---@return parallel.PoolSize
local function prepare_size (self, given)
  check.is_options(given, "resize")
  local size <const> = check.read("resize", given, SIZE)
  if size.min == nil and size.max == nil then
    check.misuse "bad argument 'size' to 'resize' ({min =, max =} expected)"
  end
  return self, size
end

--- Let the pool have other numbers of workers from now on.  Workers that are
--- missing are started; those that are too many end with their jobs.
---@type fun(self: parallel.Pool, size: parallel.PoolSize)
local resize <const> =
  check.public("pool:resize{min =, max =}", 2, function (self, size)
    self:set_size(size.min, size.max)
  end, prepare_size, core.is_pool)

return {
  functions = { pool = pool },
  open = open,
  methods = { resize = resize },
  open_for = open_for,
  read = read,
}
