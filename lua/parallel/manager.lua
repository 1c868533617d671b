-- SPDX-License-Identifier: MIT
--- Named jobs: start them, ask for them, wait for them, remove them.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local params = require "parallel.params"
local wait = require "parallel.wait".wait

local getmetatable, ipairs, math, next, require, setmetatable, string, table,
      type =
  getmetatable, ipairs, math, next, require, setmetatable, string, table, type

--- Seconds that `wait` and `wait_all` wait at most, by default.
local PATIENCE <const> = 300

---@class parallel.JobRecord
---@field name string
---@field state string     the job's
---@field result any       the first result, once the job has completed
---@field results? table   all results, with `n`
---@field error any
---@field reason? string
---@field created number   instants, as the next two
---@field started? number
---@field finished? number
---@field started_at? number  on the clock of the day: seconds since the epoch
---@field finished_at? number
---@field duration number  seconds of running so far
---@field job parallel.Job

---@class parallel.Manager
local manager = { __name = "parallel.manager" }
manager.__index = manager

---@param value any
---@return boolean
local function is_manager (value)
  return getmetatable(value) == manager
end

--- Make a method of managers.
---@param usage string
---@param most integer
---@param act fun(...: any): ...
---@param prepare? fun(...: any): ...
---@return fun(...: any): ...
local function method (usage, most, act, prepare)
  return check.public("manager:" .. usage, most, act, prepare, is_manager)
end

---@param self parallel.Manager
---@param verb string
---@return parallel.Manager
local function is_open (self, verb)
  if self.pool == nil then
    check.misuse("bad call of '" .. verb .. "' (the manager is closed)")
  end
  return self
end

--- Find the job called 'name'; raise if there is none.
---@param self parallel.Manager
---@param verb string
---@param name any
---@return parallel.Job
local function find (self, verb, name)
  is_open(self, verb)
  if type(name) ~= "string" then
    check.bad_argument(verb, "name", "the name of a job", name)
  end
  local job = self.jobs[name]
  if job == nil then
    core.complain("Job '" .. check.clean(name) .. "' not found")
  end
  return job
end

---@param job parallel.Job
---@return parallel.JobRecord
local function record_of (job)
  local info <const> = job:info()
  local record = {
    name = info.name, state = info.state, reason = info.reason,
    created = info.created, started = info.started,
    finished = info.finished, duration = info.duration, job = job,
    started_at = info.started_at, finished_at = info.finished_at,
  }
  if info.finished ~= nil then
    local function take (ok, value, ...)
      if not ok then
        if value ~= nil then record.error = value.error end
        return
      end
      record.results = table.pack(value, ...)
      record.result = value
      record.error = job.error
    end
    take(job:join(0))
  end
  return record
end

local LETTERS <const> = "abcdefghijklmnopqrstuvwxyz0123456789"

--- Make a name that no job of the manager has: "Job_" and eight characters.
---@param self parallel.Manager
---@return string
local function make_name (self)
  local name
  repeat
    name = "Job_"
    for _ = 1, 8 do
      local i = math.random(#LETTERS)
      name = name .. LETTERS:sub(i, i)
    end
  until self.jobs[name] == nil
  return name
end

--- Start a job.
---@param fn function|string
---@param arguments? table  values by position, or by the names of parameters
---@param name? string      default "Job_" and eight characters
---@type fun(self: parallel.Manager, fn: function|string, arguments?: table,
---          name?: string): parallel.Job
manager.start = method("start(fn [, arguments [, name]])", 4,
                       function (self, fn, arguments, name)
  local list, named = params.split(arguments or {})
  local job = self.pool:submit {
    fn, arguments = list, name = name,
    params = next(named) ~= nil and named or nil,
  }
  self.jobs[name] = job
  self.order[#self.order + 1] = name
  return job
end, function (self, fn, arguments, name)
  is_open(self, "start")
  check.is_code("start", "fn", fn, type(arguments) == "function"
                and "the function comes first: start(fn, arguments, name)"
                or nil)
  if arguments ~= nil and type(arguments) ~= "table" then
    check.bad_argument("start", "arguments", "a table or nil", arguments)
  end
  if name ~= nil and (type(name) ~= "string" or name == "") then
    check.bad_argument("start", "name", "a string or nil", name)
  end
  name = name or make_name(self)
  if self.jobs[name] ~= nil then
    core.complain("Job with name '" .. check.clean(name) .. "' already exists")
  end
  return self, fn, arguments, name
end)

--- Return a record of a job as it is now.
---@type fun(self: parallel.Manager, name: string): parallel.JobRecord
manager.get = method("get(name)", 2, record_of, function (self, name)
  return find(self, "get", name)
end)

---@param verb string
---@param timeout any
---@return number
local function seconds (verb, timeout)
  if timeout == nil then return PATIENCE end
  local expected = check.seconds(timeout)
  if expected ~= nil then
    check.bad_argument(verb, "timeout", expected, timeout)
  end
  return timeout
end

--- Wait for a job, and return a record of it.  Raises when `timeout` seconds
--- were not enough.
---@param name string
---@param timeout? number  default 300
---@type fun(self: parallel.Manager, name: string, timeout?: number):
---          parallel.JobRecord
manager.wait = method("wait(name [, timeout])", 3, function (job, most)
  if job:wait(most ~= math.huge and most or nil) == nil then
    core.complain(string.format("Job '%s' timed out after %g seconds",
                                check.clean(job.name), most))
  end
  return record_of(job)
end, function (self, name, timeout)
  return find(self, "wait", name), seconds("wait", timeout)
end)

--- List the jobs that were not removed, in the order of their start.
---@param self parallel.Manager
---@return parallel.Job[]
local function list_of (self)
  local list = {}
  for _, name in ipairs(self.order) do list[#list + 1] = self.jobs[name] end
  return list
end

--- Wait for all jobs, and return their records.  Raises when `timeout` seconds
--- were not enough, and says how many jobs are left.
---@param timeout? number  default 300
---@type fun(self: parallel.Manager, timeout?: number): parallel.JobRecord[]
manager.wait_all = method("wait_all([timeout])", 2, function (self, most)
  local _, pending = wait(list_of(self), { timeout = most })
  if #pending > 0 then
    core.complain(string.format("%d job%s timed out after %g seconds",
                                #pending, #pending == 1 and "" or "s", most))
  end
  return self:all()
end, function (self, timeout)
  return is_open(self, "wait_all"), seconds("wait_all", timeout)
end)

--- Make a method that returns records of the jobs in some states.
---@param verb string
---@param test fun(state: string): boolean
---@return fun(self: parallel.Manager): parallel.JobRecord[]
local function select_jobs (verb, test)
  return method(verb .. "()", 1, function (self)
    local records = {}
    for _, job in ipairs(list_of(self)) do
      local record = record_of(job)
      if test(record.state) then records[#records + 1] = record end
    end
    return records
  end, function (self) return is_open(self, verb) end)
end

local LIVE <const> = { queued = true, running = true, stopping = true }

--- Records of all jobs, in the order of their start.
manager.all = select_jobs("all", function () return true end)

--- Records of the jobs that have ended, however they did.
manager.completed = select_jobs("completed", function (state)
  return not LIVE[state]
end)

--- Records of the jobs that run.
manager.running = select_jobs("running", function (state)
  return state == "running" or state == "stopping"
end)

--- Records of the jobs that wait for a runspace.
manager.queued = select_jobs("queued", function (state)
  return state == "queued"
end)

--- Stop a job if it has not ended, and forget it.
---@type fun(self: parallel.Manager, name: string)
manager.remove = method("remove(name)", 2, function (self, job, name)
  job:remove()
  self.jobs[name] = nil
  for i, known in ipairs(self.order) do
    if known == name then
      table.remove(self.order, i)
      break
    end
  end
end, function (self, name) return self, find(self, "remove", name), name end)

--- Stop and remove all jobs, and end the workers.
---@param self parallel.Manager
local function close (self)
  if self.pool == nil then return end
  local _ <close> = self.pool
  for _, job in ipairs(list_of(self)) do job:remove() end
  self.pool, self.jobs, self.order = nil, {}, {}
end

manager.close, manager.__close = method("close()", 1, close), close

function manager:__tostring ()
  if self.pool == nil then return "parallel.manager: closed" end
  return "parallel.manager: " .. #self.order .. " jobs"
end

--- Open a manager of named jobs, which runs up to `max` of them at once, in a
--- pool of its own with these options.
---
---     local jobs <close> = parallel.manager{max = 4}
---     jobs:start(backup, {path = "/home"}, "home")
---     print(jobs:wait("home").result)
---@type fun(given?: integer|parallel.PoolOptions): parallel.Manager
local new = check.public("parallel.manager{max =, ...}", 1, function (...)
  local pool <const> = require("parallel.pool").open(...)
  return setmetatable({ pool = pool, jobs = {}, order = {} }, manager)
end, function (given)
  if type(given) ~= "table" then
    local expected <const> =
      given ~= nil and core.expected("max", given) or nil
    if expected ~= nil then
      check.bad_argument("manager", "max", expected, given)
    end
    given = { max = given }
  end
  return require("parallel.pool").read("manager", given)
end)

return { functions = { manager = new } }
