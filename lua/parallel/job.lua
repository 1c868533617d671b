-- SPDX-License-Identifier: MIT
--- Call one function in a runspace.

local check = require "parallel.check"
local core = require "parallel.core"
local event = require "parallel.event"
local limits = require "parallel.limits"
local options = require "parallel.options"

local error, math, next, setmetatable, table, type =
  error, math, next, setmetatable, table, type

---@param job parallel.Job
---@param value any
---@param traceback string?
---@param state string
---@return parallel.Failure
local function fail (job, value, traceback, state)
  return require("parallel.failure").new {
    error = value,
    traceback = traceback,
    state = state,
    reason = job.reason,
    name = job.name,
  }
end

--- Check a call of a method that waits: nil waits without limit.
---@param job any
---@param verb string
---@param timeout any
---@return number? timeout
local function limit (job, verb, timeout)
  if type(job) ~= "userdata" then check.bad_self("job", verb, job) end
  if timeout == nil then return nil end
  local expected = check.seconds(timeout)
  if expected ~= nil then
    check.bad_argument(verb, "timeout", expected, timeout)
  end
  return timeout ~= math.huge and timeout or nil
end

---@param job parallel.Job
---@param ok boolean
---@param ... any
---@return boolean
---@return any ...
local function joined (job, ok, ...)
  if ok then return true, ... end
  return false, fail(job, ...)
end

---@param job parallel.Job
---@param ok boolean
---@param ... any
---@return any ...
local function got (job, ok, ...)
  if ok then return ... end
  error(fail(job, ...), 0)
end

--- What `join` returns for a job that has ended.
---@param job parallel.Job
---@return boolean
---@return any ...
local function outcome (job) return joined(job, job:fetch()) end

---@class parallel.Job
local job_methods = {}

--- Wait until the job has ended, `timeout` seconds at most.
---@param timeout? number
---@return boolean? ok  true and the results; false and a `parallel.Failure`;
---                     nil and "timeout"
---@return any ...
function job_methods:join (timeout)
  local most <const> = limit(self, "join", timeout)
  if self:wait(most) == nil then return nil, "timeout" end
  return outcome(self)
end

--- The results, once the job has ended.  Raises its `parallel.Failure`, or an
--- error when `timeout` seconds were not enough.
---@param timeout? number
---@return any ...
function job_methods:get (timeout)
  local most <const> = limit(self, "get", timeout)
  if self:wait(most) == nil then
    check.misuse("timeout: job '" .. self.name .. "' has not ended within "
                 .. timeout .. " s")
  end
  return got(self, self:fetch())
end

--- Stop the job: an error is raised where it is, once, so that it can clean
--- up; `grace` seconds later it is forced to end.  However it takes that, its
--- state will be "cancelled"; or "lost", when it is in C code that does not
--- come back within a second.
---@param opts? parallel.CancelOptions
---@return boolean asked  false when it had ended
function job_methods:cancel (opts)
  if type(self) ~= "userdata" then check.bad_self("job", "cancel", self) end
  return self:stop(options.grace("cancel", opts))
end

job_methods.on, job_methods.off = event.job_methods.on, event.job_methods.off

--- All that the job sends to its streams, in order, for a generic `for`: what
--- is kept so far, then what comes, until the job has ended.
---@return fun(): parallel.StreamRecord?
function job_methods:records ()
  if type(self) ~= "userdata" then check.bad_self("job", "records", self) end
  local after = 0
  self:listen(event.WAKE)
  return function ()
    while true do
      local ended <const> = self:settled()
      local record = self:record(after)
      if record ~= nil then
        after = record.sequence
        return record
      end
      if ended then return nil end
      if not self:help() then core.wait() end
    end
  end
end

--- Removed jobs, until they are collected.
---@type table<parallel.Job, boolean>
local removed = setmetatable({}, { __mode = "k" })

--- Stop the job if it has not ended, and forget it: `parallel.jobs` does not
--- list it any more, and its failure is not reported.
function job_methods:remove ()
  if type(self) ~= "userdata" then check.bad_self("job", "remove", self) end
  self:see()
  removed[self] = true
  self:cancel()
end

--- The jobs of this script that live: those that have not ended, and those
--- that have and whose handle is still held; in the order of their ids.
---@return parallel.Job[]
local function jobs ()
  local list = {}
  for _, job in next, core.jobs() do
    if not removed[job] then list[#list + 1] = job end
  end
  table.sort(list, function (a, b) return a.id < b.id end)
  return list
end

--- Queue a job; wait for room in the queue, if asked to.
---@param pool parallel.Pool
---@param wait boolean
---@param streams table?  the option
---@param fn function|string
---@param described table?  what `pool:start` takes
---@param ... any
---@return parallel.Job?
---@return string? why  "full"
local function start (pool, wait, streams, fn, described, ...)
  local job, why = pool:start(fn, described, ...)
  while job == nil and wait do
    pool:await_room()
    core.wait()
    job, why = pool:start(fn, described, ...)
  end
  if job ~= nil and streams ~= nil then event.add_streams(job.id, streams) end
  return job, why
end

---@param pool parallel.Pool
---@param fn function|string
---@param ... any
---@return parallel.Job
local function spawn (pool, fn, ...)
  check.is_code("spawn", "fn", fn)
  local streams <const> = options.streams_of(pool)
  local described <const> = streams and { streams = streams } or nil
  return (start(pool, true, streams, fn, described, ...))
end

--- Raise the failure of a job that has ended.
---@param job parallel.Job
local function raise (job)
  got(job, job:fetch())
end

--- Stops the job of a call that an error ends, such as an interrupt.
local RUNNING <const> = {
  __close = function (self, problem)
    if problem ~= nil and self.job ~= nil then self.job:stop() end
  end,
}

--- Call a function in a runspace, and wait for it.
---@param pool parallel.Pool
---@param fn function|string
---@param ... any
---@return any ...
local function run (pool, fn, ...)
  check.is_code("run", "fn", fn)
  local streams <const> = options.streams_of(pool)
  local guard <close> = setmetatable({}, RUNNING)
  start(pool, true, streams, fn, { streams = streams, guard = guard }, ...)
  return guard.job:get()
end

---@class parallel.SubmitOptions: parallel.Limits
---@field [1]? function|string  what is to be called
---@field fn? function|string   the same
---@field arguments? any[]      its first arguments
---@field params? table<string, any>  further ones, by the names that its
---       parameters have; a chunk of source has them as local variables
---@field name? string          default "job-" and its id
---@field streams? table<string, boolean|function>  which streams are shown
---       on the standard error (default: warning and error), or handed to a
---       function

---@type table<string, fun(value: any): string?, string?>
local SUBMIT <const> = {
  [1] = check.code,
  fn = check.code,
  arguments = options.by_position,
  name = check.text,
  params = options.by_name,
  streams = options.streams,
}
for name, test in next, limits.CALL do SUBMIT[name] = test end

--- Start a job as a table describes it.
---@param verb string
---@param pool parallel.Pool
---@param given parallel.SubmitOptions
---@param wait boolean  for room in the queue
---@return parallel.Job?
---@return string? why  "full"
local function submit (verb, pool, given, wait)
  if type(given) ~= "table" then
    check.bad_argument(verb, "options", "a table", given)
  end
  for name, value in next, given do
    local test = SUBMIT[name]
    if test == nil then check.unknown_option(verb, name, SUBMIT) end
    local expected, wrong = test(value)
    if expected ~= nil then
      check.misuse("bad option '" .. name .. "' to '" .. verb .. "' ("
                   .. expected .. " expected, got "
                   .. (wrong or check.describe(value)) .. ")")
    end
  end
  local fn = given[1] or given.fn
  check.is_code(verb, "fn", fn)
  if given[1] ~= nil and given.fn ~= nil then
    check.misuse("bad option 'fn' to '" .. verb
                 .. "' (the function is given twice)")
  end
  local arguments = given.arguments
  if given.params ~= nil then
    local list = table.pack(options.arguments(verb, given))
    local bound
    fn, bound = require("parallel.params").bind(verb, fn, given.params,
                                                list.n)
    table.move(bound, 1, bound.n, list.n + 1, list)
    list.n = list.n + bound.n
    arguments = list
  end
  local list = { arguments = arguments }
  local streams <const> = options.streams_of(pool, given.streams)
  local described <const> = { name = given.name, streams = streams }
  limits.add(described, given)
  return start(pool, wait, streams, fn, described,
               options.arguments(verb, list))
end

--- Call `fn` in a runspace of the default pool.  Does not wait for it: the job
--- is asked for its results later, or not at all.
---@param fn function|string
---@param ... any  its arguments
---@return parallel.Job
local function call_spawn (fn, ...)
  return core.default_pool():spawn(fn, ...)
end

--- Call `fn` in a runspace of the default pool and return its results, or
--- raise a `parallel.Failure`.
---@param fn function|string
---@param ... any  its arguments
---@return any ...
local function call_run (fn, ...)
  return core.default_pool():run(fn, ...)
end

--- Start a job as a table describes it, in a runspace of the default pool.
---
---     local job = parallel.submit{probe, params = {host = "a", port = 80}}
---@param given parallel.SubmitOptions
---@return parallel.Job
local function call_submit (given)
  return submit("submit", core.default_pool(), given, true)
end

local methods = {}

--- `parallel.submit` in this pool.  Waits while its queue is full.
---@param given parallel.SubmitOptions
---@return parallel.Job
function methods:submit (given)
  options.is_pool(self, "submit")
  return (submit("submit", self, given, true))
end

--- The same, without waiting.
---@param given parallel.SubmitOptions
---@return parallel.Job?
---@return string? why  "full"
function methods:try_submit (given)
  options.is_pool(self, "try_submit")
  return submit("try_submit", self, given, false)
end

--- Stop all jobs and calls that are queued and run in this pool, as
--- `job:cancel` does it.  The pool stays open.
---@param opts? parallel.CancelOptions
function methods:cancel (opts)
  options.is_pool(self, "cancel")
  self:stop(options.grace("cancel", opts))
end

--- `parallel.spawn` in this pool.
---@param fn function|string
---@param ... any
---@return parallel.Job
function methods:spawn (fn, ...)
  options.is_pool(self, "spawn")
  return spawn(self, fn, ...)
end

--- `parallel.run` in this pool.
---@param fn function|string
---@param ... any
---@return any ...
function methods:run (fn, ...)
  options.is_pool(self, "run")
  return run(self, fn, ...)
end

return {
  fail = raise,
  functions = {
    jobs = jobs,
    run = call_run,
    spawn = call_spawn,
    submit = call_submit,
  },
  job_methods = job_methods,
  methods = methods,
  outcome = outcome,
}
