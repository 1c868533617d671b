-- SPDX-License-Identifier: MIT
--- Call one function in a runspace.

local check = require "parallel.check"
local core = require "parallel.core"
local options = require "parallel.options"

local error, math, type = error, math, type

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
  return joined(self, self:fetch())
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

---@param verb string
---@param pool parallel.Pool
---@param fn function|string
---@param ... any
---@return parallel.Job
local function spawn (verb, pool, fn, ...)
  check.is_code(verb, "fn", fn)
  return pool:submit(fn, nil, ...)
end

--- Call `fn` in a runspace of the default pool.  Never waits: the job is
--- asked for its results later, or not at all.
---@param fn function|string
---@param ... any  its arguments
---@return parallel.Job
local function call_spawn (fn, ...)
  return spawn("spawn", core.default_pool(), fn, ...)
end

--- Call `fn` in a runspace of the default pool and return its results, or
--- raise a `parallel.Failure`.
---@param fn function|string
---@param ... any  its arguments
---@return any ...
local function call_run (fn, ...)
  return spawn("run", core.default_pool(), fn, ...):get()
end

local methods = {}

--- `parallel.spawn` in this pool.
---@param fn function|string
---@param ... any
---@return parallel.Job
function methods:spawn (fn, ...)
  options.is_pool(self, "spawn")
  return spawn("spawn", self, fn, ...)
end

--- `parallel.run` in this pool.
---@param fn function|string
---@param ... any
---@return any ...
function methods:run (fn, ...)
  options.is_pool(self, "run")
  return spawn("run", self, fn, ...):get()
end

return {
  functions = { spawn = call_spawn, run = call_run },
  job_methods = job_methods,
  methods = methods,
}
