-- SPDX-License-Identifier: MIT
--- Groups: jobs that end together.
--
-- A group hears of the end of each of its jobs as handlers of events do,
-- whenever its state waits in this module.  The first failure stops the other
-- jobs, and those of the groups that are nested in this one.

local arguments = require "parallel.arguments"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local event = require "parallel.event"
local failure = require "parallel.failure"
local job = require "parallel.job"
local limits = require "parallel.limits"
local options = require "parallel.options"
local wait = require "parallel.wait".wait

local coroutine, error, getmetatable, math, next, pcall, require,
      setmetatable, table =
  coroutine, error, getmetatable, math, next, pcall, require, setmetatable,
  table

--- What the jobs of a group have, unless they say otherwise themselves;
--- `deadline` is for all of them, from the opening of the group.
---@class parallel.GroupOptions: parallel.Limits
---@field streams? table<string, boolean|function>

---@type table<string, fun(value: any): string?, string?>
local OWN <const> = { streams = options.streams }
for name, test in next, limits.CALL do OWN[name] = test end

--- Why a group has failed.
---@class parallel.GroupCause
---@field job parallel.Job
---@field failure? parallel.Failure  made when it is first raised

---@class parallel.Group
---@field pool parallel.Pool
---@field given parallel.GroupOptions
---@field deadline number   instant; math.huge: none
---@field open table<parallel.Job, boolean>  jobs that have not ended
---@field cause? parallel.GroupCause
---@field inner table<parallel.Group, boolean>  groups that are nested in it
---@field task any          id of the task that has opened it; nil in the host
---@field closed boolean
---@field on_end fun(event: parallel.Event)
---@field ending table      ends it when it is closed
local group = { __name = "parallel.group" }
group.__index = group

---@param value any
---@return boolean
local function is_group (value)
  return getmetatable(value) == group
end

--- Groups of each coroutine, from the outermost to the innermost one.  Those
--- that nobody holds go.
---@type table<thread, {n: integer, [integer]: parallel.Group}>
local stacks = setmetatable({}, { __mode = "k" })
local WEAK <const> = { __mode = "v" }

--- The id of the task that runs; nil in the host.
---@return integer?
local function task_id ()
  return core.in_runspace() and require("parallel").task.id or nil
end

--- The groups of the coroutine that runs, and the innermost one that is open
--- and belongs to the task that runs.
---@return table stack
---@return parallel.Group? innermost
local function look_around ()
  local own <const>, own_task <const> = coroutine.running(), task_id()
  local stack = stacks[own]
  if stack == nil then
    stack = setmetatable({ n = 0 }, WEAK)
    stacks[own] = stack
  end
  while stack.n > 0 do
    local top <const> = stack[stack.n]
    if top ~= nil and not top.closed and top.task == own_task then
      return stack, top
    end
    stack[stack.n] = nil
    stack.n = stack.n - 1
  end
  return stack, nil
end

--- Stop all jobs of a group, and of the groups in it, which have failed for
--- the same cause, if there is one.
---@param self parallel.Group
---@param grace? number
local function stop_all (self, grace)
  for one in next, self.open do one:stop(grace) end
  for inner in next, self.inner do
    inner.cause = inner.cause or self.cause
    stop_all(inner, grace)
  end
end

--- Tell whether the end of a job is a failure of its group.  Who cancels a job
--- by itself wants no more of it.
---@param facts parallel.JobFacts
---@return boolean
local function is_failure (facts)
  local state <const> = facts.state
  return state ~= "completed" and state ~= "completed_with_errors"
     and not (state == "cancelled" and facts.reason == "cancelled")
end

--- A job of the group has ended.
---@param self parallel.Group
---@param ended parallel.Job
local function take_end (self, ended)
  if self.open[ended] == nil then return end
  self.open[ended] = nil
  if self.cause == nil and is_failure(ended:facts()) then
    self.cause = { job = ended }
    stop_all(self)
  end
end

--- Raise the failure of a group that has failed.
---@param self parallel.Group
local function raise_failure (self)
  local cause <const> = self.cause
  if cause == nil then return end
  if cause.failure == nil then
    local _, value <const>, traceback <const>, state <const> =
      cause.job:fetch()
    cause.failure = failure.of_job(cause.job, value, traceback, state)
  end
  cause.job:see()
  error(cause.failure, 0)
end

--- Jobs of a group, and of the groups in it, that have not ended.
---@param self parallel.Group
---@param jobs parallel.Job[]
---@param owners table<parallel.Job, parallel.Group>
---@return parallel.Job[] jobs
---@return table<parallel.Job, parallel.Group> owners
local function open_jobs (self, jobs, owners)
  for one in next, self.open do
    jobs[#jobs + 1] = one
    owners[one] = self
  end
  for inner in next, self.inner do open_jobs(inner, jobs, owners) end
  return jobs, owners
end

--- Stops the jobs of a group when an error ends the wait for them.
local WAITING <const> = {
  __close = function (self, problem)
    if problem ~= nil then stop_all(self.group) end
  end,
}

--- Wait until all jobs have ended, those that handlers start meanwhile, too.
---@param self parallel.Group
---@param timeout? number
---@return boolean  false: the time is over
local function drain (self, timeout)
  local _ <close> = setmetatable({ group = self }, WAITING)
  local last <const> = timeout and core.now() + timeout or nil
  local jobs, owners = open_jobs(self, {}, {})
  while jobs[1] ~= nil do
    local left <const> = last and math.max(0, last - core.now()) or nil
    local done <const>, pending <const> = wait(jobs, { timeout = left })
    for i = 1, #done do take_end(owners[done[i]], done[i]) end
    if pending[1] ~= nil then return false end
    jobs, owners = open_jobs(self, {}, {})
  end
  return true
end

--- Close a group that has no jobs left, and those in it.
---@param self parallel.Group
local function shut (self)
  self.closed = true
  for inner in next, self.inner do shut(inner) end
  self.inner = {}
  if self.outer ~= nil then self.outer.inner[self] = nil end
end

--- The end of a group.  An error that leaves its block stops its jobs.
---@param self parallel.Group
---@param problem any
local function finish (self, problem)
  local _ <close> = self.ending  -- first: a stop may come at any instruction
  if self.closed then return end
  if problem ~= nil then
    stop_all(self)
    pcall(drain, self)  -- the stop of a job, or a Ctrl-C, ends this early
    return
  end
  drain(self)
  raise_failure(self)
end

--- Ends a group, whatever ends its wait.
local ENDING <const> = {
  __close = function (self, problem)
    if problem ~= nil then stop_all(self.group) end
    shut(self.group)
  end,
}

--- Make a method of groups.
---@param usage string
---@param most number
---@param act fun(...: any): ...
---@param prepare? fun(...: any): ...
---@return fun(...: any): ...
local function method (usage, most, act, prepare)
  return check.public("group:" .. usage, most, act, prepare, is_group)
end

---@param self parallel.Group
---@param verb string
---@return parallel.Group
local function is_open (self, verb)
  if self.closed then
    check.misuse("bad call of '" .. verb .. "' (the group is closed)")
  end
  return self
end

--- Stops a new job, at 1, when an error comes before its group knows it: the
--- stop of the job that starts it, or a Ctrl-C.
local NEW <const> = {
  __close = function (self, problem)
    if problem ~= nil and self[1] then self[1]:stop() end
  end,
}

--- Start a job of the group.
---@param self parallel.Group
---@param given table  options of the job
---@param fn function|string
---@param list table   its arguments, with `n`
---@return parallel.Job
local function start (self, given, fn, list)
  raise_failure(self)
  local own <const> = limits.copy({}, self.given)
  for name in next, limits.CALL do
    if given[name] ~= nil then own[name] = given[name] end
  end
  if self.deadline < math.huge then
    own.deadline = math.max(1e-6, math.min(self.deadline - core.now(),
                                           given.deadline or math.huge))
  end
  local streams <const> =
    options.streams_of(self.pool, given.streams or self.given.streams)
  local made <close> = setmetatable({ false }, NEW)
  local described <const> = { name = given.name, streams = streams,
                              names = arguments.names_in(list), made = made }
  limits.add("call", described, own)
  limits.add("job", described, given)
  local new <const> = job.start(self.pool, true, streams, fn, described,
                                table.unpack(list, 1, list.n))
  self.open[new] = true
  event.watch(new, self.on_end)
  if self.cause ~= nil or self.closed then  -- while there was no room
    new:stop()
    raise_failure(self)
  end
  return new
end

--- Start a job: `parallel.spawn` in the group.  Raises the failure of a group
--- that has failed.
---@type fun(self: parallel.Group, fn: function|string, ...: any): parallel.Job
group.spawn = method("spawn(fn, ...)", math.huge, function (self, fn, list)
  return start(self, {}, fn, list)
end, function (self, fn, ...)
  check.is_code("spawn", "fn", fn)
  return is_open(self, "spawn"), fn, table.pack(...)
end)

--- Start a job as a table describes it: `parallel.submit` in the group.
---@type fun(self: parallel.Group, given: parallel.SubmitOptions): parallel.Job
group.submit = method("submit{fn, ...}", 2, start, function (self, given)
  return is_open(self, "submit"), job.read("submit", given)
end)

--- Wait until all jobs of the group have ended, `timeout` seconds at most.
--- Raises the first failure, once the others have been stopped.
---@type fun(self: parallel.Group, timeout?: number): boolean?, string?
---       true; nil and "timeout"
group.wait = method("wait([timeout])", 2, function (self, timeout)
  if not drain(self, timeout) then return nil, "timeout" end
  raise_failure(self)
  return true
end, function (self, timeout)
  local expected <const> = timeout ~= nil and check.seconds(timeout) or nil
  if expected ~= nil then
    check.bad_argument("wait", "timeout", expected, timeout)
  end
  return is_open(self, "wait"), timeout ~= math.huge and timeout or nil
end)

--- Stop all jobs of the group, as `job:cancel` does it.  That is no failure,
--- and the group stays open.
---@type fun(self: parallel.Group, opts?: parallel.CancelOptions)
group.cancel = method("cancel([{grace = seconds}])", 2, stop_all,
                      function (self, opts)
  return is_open(self, "cancel"), options.grace("cancel", opts)
end)

--- End the group, as the end of its block does.
---@type fun(self: parallel.Group)
group.close = method("close()", 1, function (self) finish(self) end)

group.__close = finish

function group:__tostring ()
  if self.closed then return "parallel.group: closed" end
  local n <const> = #open_jobs(self, {}, {})
  return ("parallel.group: %d job%s"):format(n, n == 1 and "" or "s")
end

---@param pool parallel.Pool
---@param given parallel.GroupOptions
---@return parallel.Group
local function open (pool, given)
  local stack <const>, outer <const> = look_around()
  if outer ~= nil then raise_failure(outer) end
  local self <const> = setmetatable({
    pool = pool, given = given, open = {}, inner = {}, outer = outer,
    task = task_id(), closed = false,
    deadline = core.now() + (given.deadline or math.huge),
  }, group)
  self.ending = setmetatable({ group = self }, ENDING)
  function self.on_end (ended) take_end(self, ended.job) end
  if outer ~= nil then outer.inner[self] = true end
  stack.n = stack.n + 1
  stack[stack.n] = self
  return self
end

---@param given any
---@return parallel.GroupOptions
local function prepare (given)
  return limits.check("group", check.read("group", given, OWN))
end

local functions, methods = {}, {}

--- Open a group: jobs that end together.  It is a value for `<close>`.  The
--- end of its block waits for its jobs.  The first failure stops the others,
--- and is raised there.  An error that leaves the block stops them all.  A
--- group that is opened in the block of another one is nested in it, and ends
--- with it.
---
---     do
---       local g <close> = parallel.group()
---       for _, host in ipairs(hosts) do g:spawn(probe, host) end
---     end  -- all have ended
---@type fun(given?: parallel.GroupOptions): parallel.Group
functions.group = check.public("parallel.group([options])", 1,
                               function (given)
  return open(core.default_pool(), given)
end, prepare)

--- `parallel.group` with jobs of this pool.
---@type fun(self: parallel.Pool, given?: parallel.GroupOptions):
---          parallel.Group
methods.group = check.public("pool:group([options])", 2, open,
                             function (pool, given)
  return pool, prepare(given)
end, core.is_pool)

return { functions = functions, methods = methods }
