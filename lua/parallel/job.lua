-- SPDX-License-Identifier: MIT
--- Jobs: calls of one function in a runspace.

local arguments = require "parallel.arguments"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local event = require "parallel.event"
local failure = require "parallel.failure"
local limits = require "parallel.limits"
local options = require "parallel.options"

local error, math, next, require, setmetatable, table, type =
  error, math, next, require, setmetatable, table, type

--- Make a method of jobs.
---@param usage string
---@param most integer
---@param act fun(...: any): ...
---@param prepare? fun(...: any): ...
---@return fun(...: any): ...
local function method (usage, most, act, prepare)
  return check.public("job:" .. usage, most, act, prepare, core.is_job)
end

--- Make the check of the arguments of a method that waits.  It turns
--- 'math.huge' into nil, which waits without limit.
---@param verb string
---@return fun(job: parallel.Job, timeout: any): parallel.Job, number?
local function limit (verb)
  return function (job, timeout)
    local expected <const> = timeout ~= nil and check.seconds(timeout) or nil
    if expected ~= nil then
      check.bad_argument(verb, "timeout", expected, timeout)
    end
    return job, timeout ~= math.huge and timeout or nil
  end
end

---@param job parallel.Job
---@param ok boolean
---@param ... any
---@return boolean
---@return any ...
local function joined (job, ok, ...)
  if ok then return true, ... end
  return false, failure.of_job(job, ...)
end

---@param job parallel.Job
---@param ok boolean
---@param ... any
---@return any ...
local function got (job, ok, ...)
  if ok then return ... end
  error(failure.of_job(job, ...), 0)
end

---@class parallel.Job
local job_methods = {}

--- Wait until the job has ended, `timeout` seconds at most, and return its
--- results.
---@type fun(self: parallel.Job, timeout?: number): boolean?, ...
---       true and the results; false and a `parallel.Failure`; nil and
---       "timeout"
job_methods.join = method("join([timeout])", 2, function (job, most)
  if job:wait(most) == nil then return nil, "timeout" end
  return joined(job, job:fetch())
end, limit "join")

--- Wait until the job has ended, and return its results.  Raises the job's
--- `parallel.Failure`, or an error when `timeout` seconds were not enough.
---@type fun(self: parallel.Job, timeout?: number): ...
job_methods.get = method("get([timeout])", 2, function (job, most)
  if job:wait(most) == nil then
    check.misuse("timeout: job '" .. check.clean(job.name) .. "' has "
                 .. "not ended within " .. most .. " s")
  end
  return got(job, job:fetch())
end, limit "get")

--- Stop the job.  An error is raised once in its code, so that the job can
--- clean up; `grace` seconds later the job is forced to end.  Whatever the job
--- does with the error, its state becomes "cancelled"; or "lost", when C code
--- does not return within a second.
---@type fun(self: parallel.Job, opts?: parallel.CancelOptions): boolean
---       false when the job had ended before
job_methods.cancel = method("cancel([{grace = seconds}])", 2,
                            function (job, grace) return job:stop(grace) end,
                            function (job, opts)
  return job, options.grace("cancel", opts)
end)

--- Seconds in which a job tells where it is: a busy machine needs some.
local PATIENCE <const> = 2

--- Tell where the job is now, as `debug.traceback` does, without stopping it.
--- A job in C has the function as the first line, and below it where it was
--- called.  A job that is queued, or has ended, is nowhere.
---@type fun(self: parallel.Job): string?, string?
---       the traceback; or nil, and why there is none
job_methods.traceback = method("traceback()", 1, function (job)
  return job:place(PATIENCE)
end)

job_methods.on, job_methods.off = event.job_methods.on, event.job_methods.off
job_methods.once = event.job_methods.once

--- Iterate over the records of the job's streams, in order: first the records
--- kept so far, then the ones that come, until the job has ended.
---@type fun(self: parallel.Job): fun(): parallel.StreamRecord?
job_methods.records = method("records()", 1, function (job)
  local after = 0
  job:listen(event.WAKE)
  return function ()
    while true do
      local ended <const> = job:settled()
      local record = job:record(after)
      if record ~= nil then
        after = record.sequence
        return record
      end
      if ended then return nil end
      if not job:help() then core.wait(nil, job) end
    end
  end
end)

--- Removed jobs whose handles were not collected yet.
---@type table<parallel.Job, boolean>
local removed = setmetatable({}, { __mode = "k" })

--- Stop the job if it has not ended, and forget it: `parallel.jobs` no longer
--- lists the job, and its failure is not reported.
---@type fun(self: parallel.Job)
job_methods.remove = method("remove()", 1, function (job)
  job:see()
  removed[job] = true
  job:stop()
end)

--- List the jobs of this script that have not ended, and the ended ones whose
--- handles the script holds, in the order of their ids.
---@return parallel.Job[]
local function jobs ()
  local list = {}
  for _, job in next, core.jobs() do
    if not removed[job] then list[#list + 1] = job end
  end
  table.sort(list, function (a, b) return a.id < b.id end)
  return list
end

--- Start a job.
---@param pool parallel.Pool
---@param wait boolean  wait for room in the queue, if that is full
---@param streams table?  the option `streams`
---@param fn function|string
---@param described table?  options of `pool:start`
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
  local streams <const> = options.streams_of(pool)
  local described <const> = streams and { streams = streams } or nil
  return (start(pool, true, streams, fn, described, ...))
end

--- Raise the failure of a job that has ended.
---@param job parallel.Job
local function raise (job)
  got(job, job:fetch())
end

--- Call a function in a runspace, wait for it, and return its results.
---@param pool parallel.Pool
---@param fn function|string
---@param ... any
---@return any ...
local function run (pool, fn, ...)
  local streams <const> = options.streams_of(pool)
  local guard <close> = core.run_guard()  -- an error stops the job
  local job <const> = start(pool, true, streams, fn,
                            { streams = streams, guard = guard }, ...)
  return job:get()
end

---@class parallel.SubmitOptions: parallel.Limits
---@field start_after? number   seconds from now before which the job does not
---       start; until then its state is "delayed"
---@field [1]? function|string  the function to be called, or a chunk of source
---@field fn? function|string   another place for the function
---@field arguments? any[]      the first arguments of the function
---@field params? table<string, any>  further arguments, by the names of the
---       function's parameters; local variables of a chunk of source
---@field name? string          the job's; default "job-" and its id
---@field streams? table<string, boolean|function>  which streams are shown
---       on the standard error (default: warning and error), or handed to a
---       function

---@type table<string, fun(value: any): string?, string?>
local SUBMIT <const> = {
  [1] = check.code,
  fn = check.code,
  arguments = options.by_position,
  name = check.name,
  params = options.by_name,
  streams = options.streams,
}
for name, test in next, limits.CALL do SUBMIT[name] = test end
for name, test in next, limits.tests "job" do SUBMIT[name] = test end

--- Check a table that describes a job, and read the call from it.
---@param verb string
---@param given parallel.SubmitOptions
---@param known? table<string, fun(value: any): string?, string?>  tests of the
---       options that the verb has
---@return parallel.SubmitOptions given
---@return function|string fn
---@return table list  the arguments of the function, with `n`
local function read (verb, given, known)
  known = known or SUBMIT
  if type(given) ~= "table" then
    check.misuse("bad argument 'options' to '" .. verb .. "' (a table "
                 .. "expected, got " .. check.describe(given) .. "; it is "
                 .. "written " .. verb .. "{fn, arguments = {...}})")
  end
  for name, value in next, given do
    local test = known[name]
    if math.type(name) == "integer" and name > 1 then
      check.misuse("bad options to '" .. verb .. "' (named options expected, "
                   .. "got the key " .. name .. "; arguments are given as "
                   .. "arguments = {...})")
    elseif test == nil then
      check.unknown_option(verb, name, known)
    end
    local expected, wrong = test(value)
    if expected ~= nil then
      check.misuse("bad option '" .. (name == 1 and "fn" or name) .. "' to '"
                   .. verb .. "' (" .. expected .. " expected, got "
                   .. (wrong or check.describe(value)) .. ")")
    end
  end
  given = limits.check(verb, given)
  local fn = given[1] or given.fn
  check.is_code(verb, "fn", fn)
  if given[1] ~= nil and given.fn ~= nil then
    check.misuse("bad option 'fn' to '" .. verb
                 .. "' (the function is given twice)")
  end
  local list = table.pack(options.arguments(verb, given))
  if given.arguments ~= nil then
    arguments.set_names(list, arguments.names_in(given.arguments))
  end
  if given.params ~= nil then
    local bound, names
    fn, bound, names = require("parallel.params").bind(verb, fn, given.params,
                                                       list.n)
    arguments.append(list, bound, names)
  end
  return given, fn, list
end

--- Start a job as a table describes it.
---@param pool parallel.Pool
---@param wait boolean  wait for room in the queue, if that is full
---@param given parallel.SubmitOptions
---@param fn function|string
---@param list table
---@return parallel.Job?
---@return string? why  "full"
local function submit (pool, wait, given, fn, list)
  local streams <const> = options.streams_of(pool, given.streams)
  local described <const> = { name = given.name, streams = streams,
                              names = arguments.names_in(list) }
  limits.add("call", described, given)
  limits.add("job", described, given)
  return start(pool, wait, streams, fn, described,
               table.unpack(list, 1, list.n))
end

--- Start a job as a table describes it, in a runspace of the default pool.
---
---     local job = parallel.submit{probe, params = {host = "a", port = 80}}
---@type fun(given: parallel.SubmitOptions): parallel.Job
local call_submit = check.public("parallel.submit{fn, ...}", 1, function (...)
  return submit(core.default_pool(), true, ...)
end, function (given) return read("submit", given) end)

local methods = {}

--- `parallel.submit` in this pool.  Waits while the pool's queue is full.
---@type fun(self: parallel.Pool, given: parallel.SubmitOptions): parallel.Job
methods.submit = check.public("pool:submit{fn, ...}", 2, function (pool, ...)
  return (submit(pool, true, ...))
end, function (pool, given) return pool, read("submit", given) end,
  core.is_pool)

--- `pool:submit` that does not wait: nil and "full" while the queue is full.
---@type fun(self: parallel.Pool, given: parallel.SubmitOptions):
---          parallel.Job?, string?
methods.try_submit = check.public("pool:try_submit{fn, ...}", 2,
                                  function (pool, ...)
  return submit(pool, false, ...)
end, function (pool, given) return pool, read("try_submit", given) end,
  core.is_pool)

--- Stop all jobs and calls in this pool, queued or running, as `job:cancel`
--- does it.  The pool stays open.
---@type fun(self: parallel.Pool, opts?: parallel.CancelOptions)
methods.cancel = check.public("pool:cancel([{grace = seconds}])", 2,
                              function (pool, grace) pool:stop(grace) end,
                              function (pool, opts)
  return pool, options.grace("cancel", opts)
end, core.is_pool)

--- Make a method of pools that takes a function and all its arguments.
---@param verb string
---@param act fun(pool: parallel.Pool, fn: function|string, ...: any): ...
---@return fun(self: parallel.Pool, fn: function|string, ...: any): ...
local function of_function (verb, act)
  return check.public("pool:" .. verb .. "(fn, ...)", math.huge, act,
                      function (pool, fn, ...)
    check.is_code(verb, "fn", fn)
    return pool, fn, ...
  end, core.is_pool)
end

--- `parallel.spawn` in this pool.
---@type fun(self: parallel.Pool, fn: function|string, ...: any): parallel.Job
methods.spawn = of_function("spawn", spawn)

--- `parallel.run` in this pool.
---@type fun(self: parallel.Pool, fn: function|string, ...: any): ...
methods.run = of_function("run", run)

local functions = {}

--- Call `fn` in a runspace of the default pool, without waiting: the job is
--- asked for its results later, or not at all.
---@type fun(fn: function|string, ...: any): parallel.Job
functions.spawn = core.spawn

--- Call `fn` in a runspace of the default pool and return its results, or
--- raise a `parallel.Failure`.
---@type fun(fn: function|string, ...: any): ...
functions.run = core.run

functions.jobs = check.public("parallel.jobs()", 0, jobs)
functions.submit = call_submit

return {
  acts = { run = run, spawn = spawn },
  fail = raise,
  functions = functions,
  job_methods = job_methods,
  methods = methods,
  read = read,
  start = start,
}
