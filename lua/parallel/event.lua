-- SPDX-License-Identifier: MIT
--- Handlers of events and stream records, and the delivery to them.
--
-- A job that has something new is queued at the events of the Lua state that
-- started it.  Whenever that state waits in this module, `deliver` is called
-- for each queued job.  So handlers run on the host's thread, one at a time.
-- Events and records of one job come in the order of their sequence numbers,
-- before the job's end.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local failure = require "parallel.failure"
local streams = require "parallel.streams"

local error, ipairs, next, pcall, setmetatable, table, type =
  error, ipairs, next, pcall, setmetatable, table, type

--- Bits of the mask for which a job is queued: RS_LISTEN_ of runspace.h.
local BITS <const> = core.listen_bits
local STARTED <const>, FINISHED <const>, WAKE <const> =
  BITS.started, BITS.finished, BITS.wake
local SHOWN <const> = BITS.own  -- a stream's bit * SHOWN: the stream is shown

--- The bit of each stream.
---@type table<string, integer>
local STREAMS <const> = {}
for i, name in ipairs(core.streams) do STREAMS[name] = 1 << i - 1 end

--- Events of a job, and the bit of the mask that queues the job for each.  No
--- bit is needed for events that the job emits: each of them queues it.
---@type table<string, integer>
local EVENTS <const> = {
  started = STARTED,
  finished = FINISHED,
  completed = FINISHED,
  completed_with_errors = FINISHED,
  failed = FINISHED,
  timed_out = FINISHED,
  cancelled = FINISHED,
  lost = FINISHED,
  event = 0,
}
for name, bit in next, STREAMS do EVENTS[name] = bit end

---@class parallel.Event
---@field name string    "finished", "warning", or the name that was emitted
---@field data any       the first value that was sent
---@field failure? string  why the values cannot be rebuilt here; then there is
---       no data
---@field values? table  all values that were sent, with `n`
---@field record? parallel.StreamRecord  for the event of a stream
---@field job? parallel.Job   nil for an item of a map
---@field id integer     the job's, or the map's
---@field job_name string
---@field index? integer the item's
---@field worker? integer
---@field time number    instant at which the job sent it, or started, or ended

--- A handler of one job.
---@class parallel.Listener
---@field event string
---@field fn fun(event: parallel.Event)
---@field takes_record? boolean  `fn` is of an option `streams`
---@field waits? boolean  the handler only waits for the end; a failure still
---       counts as not looked at
---@field late? boolean  records from before the handler are still to be told
---@field fired? boolean  the event, which happens once, was told

--- Handlers of one job by the job's id; handlers of the option `streams` of a
--- map by the map's id.  Handlers are dropped when the job's end was
--- delivered, or when the map is closed.
---@type table<integer, parallel.Listener[]>
local listeners = {}

--- Handlers of all jobs, by event.
---@type table<string, function[]>
local handlers = {}

--- The functions that were given to `once`, by the handlers that were made of
--- them.
---@type table<function, function>
local originals = setmetatable({}, { __mode = "k" })

--- Make a handler that takes itself away before it calls 'fn'.
---@param fn fun(event: parallel.Event)
---@param remove fun(handler: function)
---@return fun(event: parallel.Event) handler
local function once_only (fn, remove)
  local called = false
  local function handler (event)
    if called then return end
    called = true
    remove(handler)
    return fn(event)
  end
  originals[handler] = fn
  return handler
end

--- Write the error of a handler; other handlers go on.  An interrupt, or the
--- stop of the job that runs here, is raised again instead, for the code that
--- waits.  `job` is queued again before that: the next wait delivers the rest.
---@param job parallel.Job
---@param name string
---@param problem any
local function report (job, name, problem)
  if core.interrupted() then
    job:listen(FINISHED)
    error(problem, 0)
  end
  core.write(2, "parallel: a handler of '" .. core.escape(name)
             .. "' raised: "
             .. failure.explain(problem) .. "\n")
end

---@param job parallel.Job
---@param fn function
---@param event parallel.Event|parallel.StreamRecord
---@return boolean ok
local function call (job, fn, event)
  local ok, problem = pcall(fn, event)
  if ok then
    core.interrupted(true)  -- an interrupt that `fn` has caught is over
  else
    report(job, event.name or event.stream, problem)
  end
  return ok
end

--- Call the handlers of all jobs for the event `name`.
---@param job parallel.Job
---@param name string
---@param event parallel.Event
---@return integer calls
---@return boolean ok  at least one of them has not raised
local function call_all (job, name, event)
  local list <const> = handlers[name]
  if list == nil then return 0, false end
  if #list == 1 then return 1, call(job, list[1], event) end
  local copy <const> = table.move(list, 1, #list, 1, {})
  local any = false
  for _, fn in ipairs(copy) do any = call(job, fn, event) or any end
  return #copy, any
end

---@param job parallel.Job
---@param info table
---@param name string
---@param record? parallel.StreamRecord
---@return parallel.Event
local function make_event (job, info, name, record)
  -- Constructors have all fields, so that the table does not grow later.
  local its_job = nil
  if not info.chunk then its_job = job end
  if record == nil then
    return {
      name = name, id = info.id, job_name = info.name, worker = info.worker,
      job = its_job,
      time = name == "started" and info.started or info.finished,
    }
  end
  local its_record = nil
  if STREAMS[name] ~= nil then its_record = record end
  return {
    name = name, id = info.id, job_name = info.name, worker = info.worker,
    job = its_job, record = its_record,
    data = record.value, values = record.values,
    index = record.index, time = record.time,
  }
end

--- Deliver a record or an emitted event to a job's listeners.
---@param job parallel.Job
---@param list parallel.Listener[]
---@param key string  the listeners' event
---@param event parallel.Event
---@param late boolean  only to listeners that came late
---@return integer calls
local function tell (job, list, key, event, late)
  local calls = 0
  local copy <const> = table.move(list, 1, #list, 1, {})
  for _, listener in ipairs(copy) do
    if listener.event == key and (not late or listener.late) then
      calls = calls + 1
      -- A function in the option `streams` takes the record itself.
      call(job, listener.fn, listener.takes_record and event.record or event)
    end
  end
  return calls
end

--- Show a record, if its stream is to be shown.
---@param job parallel.Job
---@param info table
---@param record parallel.StreamRecord
local function show (job, info, record)
  if info.listen & STREAMS[record.stream] * SHOWN == 0 then return end
  if record.source ~= nil then return end  -- a line that the job has printed
  core.write(2, streams.line(job, record))
end

--- Deliver the records that were kept to the listeners that came after them.
---@param job parallel.Job
---@param info table
---@param list parallel.Listener[]
---@return integer calls
local function catch_up (job, info, list)
  local any, calls = false, 0
  for _, listener in ipairs(list) do any = any or listener.late end
  if not any then return 0 end
  local last <const> = job:delivered()
  local record = job:record(0)
  while record ~= nil and record.sequence <= last do
    calls = calls + tell(job, list, record.stream,
                         make_event(job, info, record.stream, record), true)
    record = job:record(record.sequence)
  end
  for _, listener in ipairs(list) do listener.late = nil end
  return calls
end

--- Deliver an event that happens once, the start or the end, to a job's
--- listeners.
---@param job parallel.Job
---@param info table
---@param list? parallel.Listener[]
---@param name string
---@return integer calls
local function tell_once (job, info, list, name)
  local calls = 0
  if list == nil then return 0 end
  local copy <const> = table.move(list, 1, #list, 1, {})
  for _, listener in ipairs(copy) do
    if listener.event == name and not listener.fired then
      listener.fired = true
      if not listener.waits then calls = calls + 1 end
      call(job, listener.fn, make_event(job, info, name))
    end
  end
  return calls
end

--- Jobs whose start, and jobs whose end, was told to the handlers of all jobs.
local started, finished = setmetatable({}, { __mode = "k" }),
                          setmetatable({}, { __mode = "k" })

--- Deliver the start of a job.
---@param job parallel.Job
---@param info table
---@param list? parallel.Listener[]
---@return integer calls
local function tell_start (job, info, list)
  local calls = tell_once(job, info, list, "started")
  if not started[job] and handlers.started ~= nil then
    started[job] = true
    calls = calls + call_all(job, "started", make_event(job, info, "started"))
  end
  return calls
end

--- The way out was told: once is enough.
local advised = false

--- Say what is to be done about failures that nobody looks at.
---@return string
local function way_out ()
  if advised then return "" end
  advised = true
  return "hint: job:get() raises the failure of a job, job:join() returns it\n"
end

--- Report the failure of a job that nobody looked at.
---@param job parallel.Job
local function report_unseen (job)
  job:see()
  -- `join` would deliver what else is queued, and a thousand failures would be
  -- reported inside one another.
  local ok, value, traceback, state = job:fetch()
  if ok ~= false then return end
  local problem <const> = failure.of_job(job, value, traceback, state)
  problem.where = nil  -- here it is told of only
  local event = make_event(job, job:facts(), "unseen_failure")
  event.data = problem
  local _, told = call_all(job, "unseen_failure", event)
  if told then return end
  local words <const> = problem.state == "failed"
    and "parallel: nobody looked at the failure of "
    or "parallel: nobody has seen that "
  core.count_unseen()
  core.write(2, words .. failure.explain(problem) .. "\n" .. way_out())
end

--- Jobs whose failure nobody looked at.  They are reported when the queue is
--- empty, in their order: the collector finds the newest first.
---@type parallel.Job[]
local unseen = {}

---@param a parallel.Job
---@param b parallel.Job
---@return boolean
local function newer (a, b) return a.id > b.id end

--- Report the jobs in `unseen`, the oldest first.  Each is removed before the
--- report, since its handler may wait, which calls this again, or may raise.
---@return integer reports
local function report_all ()
  local reports = 0
  table.sort(unseen, newer)
  while unseen[1] ~= nil do
    local job <const> = table.remove(unseen)
    if job:facts().unseen then
      report_unseen(job)
      reports = reports + 1
    end
  end
  return reports
end

--- Tell whether a handler will hear, or has heard, of the end of a job.
---@param job parallel.Job
---@return boolean
local function is_heard (job)
  local info <const> = job:facts()
  local state <const> = info.state
  if handlers.finished ~= nil or handlers[state] ~= nil then return true end
  for _, listener in ipairs(listeners[info.id] or {}) do
    if not listener.waits
       and (listener.event == "finished" or listener.event == state) then
      return true
    end
  end
  return false
end

--- Report the jobs that have failed and nobody has looked at, the oldest
--- first, also those whose handles the script holds.
local function report_ended ()
  local jobs <const> = core.unseen()
  table.sort(jobs, newer)
  for i = #jobs, 1, -1 do
    if not is_heard(jobs[i]) then report_unseen(jobs[i]) end
  end
end

---@param job parallel.Job
---@param info table
---@param list? parallel.Listener[]
---@return integer calls
local function tell_end (job, info, list)
  local known <const> = {}
  for _, listener in ipairs(list or {}) do known[listener] = true end
  local calls = tell_once(job, info, list, info.state)
              + tell_once(job, info, list, "finished")
  if not finished[job] then
    finished[job] = true
    calls = calls
          + call_all(job, info.state, make_event(job, info, info.state))
          + call_all(job, "finished", make_event(job, info, "finished"))
  end
  -- Listeners that a handler of the end has added are told next.
  local rest
  for _, listener in ipairs(listeners[info.id] or {}) do
    if not known[listener] then
      rest = rest or {}
      rest[#rest + 1] = listener
    end
  end
  listeners[info.id] = rest
  if calls > 0 then job:see() end
  return calls
end

--- Deliver what is new of a job.  Most often that is one event for one
--- handler, so the table of the job's facts is made only where it is needed:
--- it would double the time until the handler is called.
---@param job parallel.Job
---@return integer calls  of handlers
---@return boolean late   true when there are jobs for `report_all`
local function deliver (job)
  local id <const>, chunk <const>, begun, ended <const> = job:news()
  local list <const> = listeners[id]
  local calls, info = 0, nil
  if list ~= nil or begun and not chunk and handlers.started ~= nil then
    info = job:facts()
    if begun and not chunk then calls = tell_start(job, info, list) end
    if list ~= nil then calls = calls + catch_up(job, info, list) end
  end
  local ok, record, event = pcall(job.deliver, job)
  while not ok or record ~= nil or event ~= nil do
    if ok and not begun and not chunk then  -- the job has begun meanwhile
      begun = true
      if list ~= nil or handlers.started ~= nil then
        info = job:facts()
        calls = calls + tell_start(job, info, list)
      end
    end
    if not ok then
      report(job, "records of " .. job.name, record)
    elseif event ~= nil then
      if event.failure ~= nil then  -- handlers may not look at it
        core.write(2, "parallel: event '" .. core.escape(event.name)
                   .. "' of " .. core.escape(event.job_name) .. ": "
                   .. event.failure .. "\n")
      end
      if list ~= nil then
        calls = calls + tell(job, list, "event", event, false)
      end
      calls = calls + call_all(job, event.name, event)
            + call_all(job, "event", event)
    else
      info = info or job:facts()
      show(job, info, record)
      event = make_event(job, info, record.stream, record)
      if list ~= nil then
        calls = calls + tell(job, list, record.stream, event, false)
      end
      calls = calls + call_all(job, record.stream, event)
    end
    ok, record, event = pcall(job.deliver, job)
  end
  if ended and not chunk then
    calls = calls + tell_end(job, job:facts(), list)
    if job:facts().unseen then unseen[#unseen + 1] = job end
  end
  return calls, unseen[1] ~= nil
end

---@param verb string
---@param name any
---@param fn any
---@return string name
---@return function fn
local function check_handler (verb, name, fn)
  if type(name) ~= "string" or name == "" then
    check.bad_argument(verb, "event", "the name of an event", name)
  end
  if type(fn) ~= "function" then
    check.bad_argument(verb, "handler", "a function", fn)
  end
  return name, fn
end

---@param verb string
---@param name any
local function is_job_event (verb, name)
  if EVENTS[name] ~= nil then return end
  local names = {}
  for known in next, EVENTS do names[#names + 1] = known end
  table.sort(names)
  local near = type(name) == "string" and check.nearest(name, EVENTS)
  check.misuse("bad argument 'event' to '" .. verb .. "' (an event of a job "
               .. "expected, got " .. check.describe(name)
               .. (near and "; did you mean '" .. near .. "'?" or "")
               .. "; they are " .. table.concat(names, ", ")
               .. "; what jobs emit is heard by parallel.on)")
end

---@param name any
---@param fn any
---@return string name
---@return function? fn
local function check_off (name, fn)
  if type(name) ~= "string" then
    check.bad_argument("off", "event", "the name of an event", name)
  end
  if fn ~= nil and type(fn) ~= "function" then
    check.bad_argument("off", "handler", "a function or nil", fn)
  end
  return name, fn
end

--- Listen, at all jobs, to the events that have handlers.
local function listen ()
  local mask = 0
  for name in next, handlers do mask = mask | (EVENTS[name] or 0) end
  core.listen(mask)
end

--- Call `fn` for each event `name` of the jobs that this script started: an
--- event that they emit, or one of a job's own (`finished`, `failed`,
--- `warning`).
---@param name string
---@param fn fun(event: parallel.Event)
---@return function fn
local function on (name, fn)
  local list = handlers[name] or {}
  handlers[name] = list
  list[#list + 1] = fn
  listen()
  return fn
end

--- Remove the handler `fn` of the event `name`, or all its handlers.
---@param name string
---@param fn? function
---@return integer removed
local function off (name, fn)
  local list, rest, removed = handlers[name] or {}, {}, 0
  for _, known in ipairs(list) do
    if fn == nil or known == fn or originals[known] == fn then
      removed = removed + 1
    else
      rest[#rest + 1] = known
    end
  end
  handlers[name] = rest[1] ~= nil and rest or nil
  listen()
  return removed
end

--- Call `fn` for the next event `name` only.
---@param name string
---@param fn fun(event: parallel.Event)
---@return function fn
local function once (name, fn)
  on(name, once_only(fn, function (handler) off(name, handler) end))
  return fn
end

--- Run the handlers of what has happened.  If there is nothing, wait `timeout`
--- seconds for it.
---@param timeout? number  seconds; default 0; math.huge: without limit
---@return integer count  calls of handlers
local function poll (timeout)
  return core.poll(timeout or 0)
end

---@param timeout any
---@return number? timeout
local function check_poll (timeout)
  local expected <const> = timeout ~= nil and check.seconds(timeout) or nil
  if expected ~= nil then
    check.bad_argument("poll", "timeout", expected, timeout)
  end
  return timeout
end

--- Return a descriptor that is readable while `poll` has something to do, for
--- event loops.  Do not read it: `poll` does.
---@return integer
local function fileno ()
  return core.fileno()
end

---@class parallel.Job
local methods = {}

--- Call `fn` when something happens to this job: it started, it finished (or
--- with one state only: completed, completed_with_errors, failed, timed_out,
--- cancelled, lost), it sent a record to a stream (output, error, warning,
--- verbose, debug, information, progress), or it emitted an "event".  `fn` is
--- also told what happened before, if that is kept.
---@param event string
---@param fn fun(event: parallel.Event)
---@return parallel.Job
function methods:on (event, fn)
  local id <const> = self.id
  local list = listeners[id] or {}
  listeners[id] = list
  list[#list + 1] = { event = event, fn = fn, late = STREAMS[event] ~= nil }
  self:listen(EVENTS[event] | FINISHED)
  return self
end

--- Call `fn` when the job has finished, for code that waits for jobs.
---@param job parallel.Job
---@param fn fun(event: parallel.Event)
local function watch (job, fn)
  local id <const> = job.id
  local list = listeners[id] or {}
  listeners[id] = list
  list[#list + 1] = { event = "finished", fn = fn, waits = true }
  job:listen(FINISHED)
end

--- Remove the handler `fn` of the event, or all its handlers.
---@param event string
---@param fn? function
---@return parallel.Job
function methods:off (event, fn)
  local rest = {}
  for _, listener in ipairs(listeners[self.id] or {}) do
    local own <const> = listener.fn
    if listener.event ~= event
       or fn ~= nil and own ~= fn and originals[own] ~= fn then
      rest[#rest + 1] = listener
    end
  end
  if listeners[self.id] ~= nil then listeners[self.id] = rest end
  return self
end

--- Call `fn` for the first of these events only.
---@param event string
---@param fn fun(event: parallel.Event)
---@return parallel.Job
function methods:once (event, fn)
  return self:on(event, once_only(fn, function (handler)
    self:off(event, handler)
  end))
end

--- Let the functions in an option `streams` get the records of the job or map
--- 'id'.
---@param id integer
---@param given? table
local function add_streams (id, given)
  if given == nil then return end
  local list
  for name, fn in next, given do
    if type(fn) ~= "boolean" then
      list = list or listeners[id] or {}
      list[#list + 1] = { event = name, fn = fn, takes_record = true }
    end
  end
  if list ~= nil then listeners[id] = list end
end

--- Drop the handlers of the map 'id', which is closed.
---@param id integer
local function forget (id)
  listeners[id] = nil
end

return {
  FINISHED = FINISHED,
  STREAMS = STREAMS,
  WAKE = WAKE,
  add_streams = add_streams,
  deliver = deliver,
  forget = forget,
  functions = {
    fileno = check.public("parallel.fileno()", 0, fileno),
    off = check.public("parallel.off(name [, fn])", 2, off, check_off),
    on = check.public("parallel.on(name, fn)", 2, on, function (name, fn)
      return check_handler("on", name, fn)
    end),
    once = check.public("parallel.once(name, fn)", 2, once,
                        function (name, fn)
      return check_handler("once", name, fn)
    end),
    poll = check.public("parallel.poll([timeout])", 1, poll, check_poll),
  },
  job_methods = {
    off = check.public("job:off(event [, fn])", 3, methods.off,
                       function (job, name, fn)
      is_job_event("off", name)
      return job, check_off(name, fn)
    end, core.is_job),
    on = check.public("job:on(event, fn)", 3, methods.on,
                      function (job, name, fn)
      is_job_event("on", name)
      return job, check_handler("on", name, fn)
    end, core.is_job),
    once = check.public("job:once(event, fn)", 3, methods.once,
                        function (job, name, fn)
      is_job_event("once", name)
      return job, check_handler("once", name, fn)
    end, core.is_job),
  },
  report_all = report_all,
  report_ended = report_ended,
  report_unseen = report_unseen,
  watch = watch,
}
