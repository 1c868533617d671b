-- SPDX-License-Identifier: MIT
--- Call a function once in each runspace of a pool.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local event = require "parallel.event"
local limits = require "parallel.limits"
local options = require "parallel.options"

local error, ipairs, math, require, select, table, tostring, type =
  error, ipairs, math, require, select, table, tostring, type

---@class parallel.EverywhereOptions
---@field [1]? function|string  the function to be called, or a chunk of source
---@field fn? function|string   another place for the function
---@field arguments? any[]      its first arguments
---@field params? table<string, any>  its further arguments, by the names of
---       its parameters; local variables of a chunk of source
---@field globals? boolean|string[]  which globals travel with it
---@field name? string          of its jobs; default "everywhere"
---@field streams? table<string, boolean|function>
---@field timeout? number       seconds that it may take in a runspace
---@field deadline? number      seconds from now to its end in the runspaces
---       that are there
---@field total_timeout? number  another word for `deadline`
---@field per? "worker"|"host"  once for each runspace, or in one of each host

local OWN <const> = {
  [1] = check.code,
  fn = check.code,
  globals = limits.CALL.globals,
  arguments = options.by_position,
  deadline = limits.CALL.deadline,
  name = check.name,
  params = options.by_name,
  per = check.one_of("worker", "host"),
  streams = options.streams,
  timeout = limits.CALL.timeout,
  total_timeout = limits.CALL.deadline,
}

--- Read the arguments of a call: a function and its arguments, or a table that
--- describes them.
---@param fn any
---@param ... any
---@return table given
---@return function|string fn
---@return table list  the arguments of the function, with `n`
local function read (fn, ...)
  if type(fn) ~= "table" then
    check.is_code("everywhere", "fn", fn)
    return {}, fn, table.pack(...)
  end
  for i = 1, select("#", ...) do
    local value <const> = select(i, ...)
    if value ~= nil then
      check.misuse("bad argument " .. i + 1 .. " to 'everywhere' (none "
                   .. "expected behind a table, got " .. check.describe(value)
                   .. "; arguments are given as arguments = {...})")
    end
  end
  return require("parallel.job").read("everywhere", fn, OWN)
end

--- Add what became of a job to the results, or to the failures.  True if it
--- has completed.
---@param job parallel.Job
---@param per string?
---@param results table
---@param errors table
---@return boolean
local function take (job, per, results, errors)
  local ok, value = job:join()
  local key = job.worker
  if per == "host" then key = job.host end
  if ok then
    results[key] = value
    return true
  end
  if key == nil then error(value, 0) end  -- no host could be reached
  value.key = key
  value.name = value.name .. ", "
               .. (per == "host" and key or "worker " .. tostring(key))
  errors[key] = value
  return false
end

---@param pool parallel.Pool
---@param given table
---@param fn function|string
---@param list table
---@return table<integer|string, any> results
---@return table<integer|string, parallel.Failure> errors
local function everywhere (pool, given, fn, list)
  if given.per == "host" and pool:info().hosts == nil then
    check.misuse("bad option 'per' to 'everywhere' ('host' is for pools with "
                 .. "hosts, and this one has none)")
  end
  local streams <const> = options.streams_of(pool, given.streams)
  local described <const> = limits.add("call", {
    name = given.name or "everywhere",
    streams = streams,
    each_host = given.per == "host",
  }, given)
  local standing <close>, jobs <const> =
    core.everywhere(pool, described, fn, table.unpack(list, 1, list.n))
  for _, job in ipairs(jobs) do event.add_streams(job.id, streams) end
  local results, errors, good = {}, {}, false
  for _, job in ipairs(jobs) do
    good = take(job, given.per, results, errors) or good
  end
  -- What has failed everywhere would fail in each runspace to come.
  if good then standing:keep() end
  return results, errors
end

local functions = {}

--- `pool:everywhere` in the default pool.
---@type fun(fn: function|string|parallel.EverywhereOptions, ...: any):
---          table<integer, any>, table<integer, parallel.Failure>
functions.everywhere =
  check.public("parallel.everywhere(fn, ...)", math.huge, function (...)
    return everywhere(core.default_pool(), ...)
  end, read)

--- Call `fn` once in each runspace of the pool: in those that are there, and
--- in each one that comes later, before it runs anything else.  What `fn`
--- assigns to globals stays there.  Gives the first results, and the failures,
--- by the numbers of the workers, or by the names of hosts.
---
---     pool:everywhere(function (url)
---       db = require "driver".connect(url)
---     end, "db://main")
---     pool:map(ids, "return db:find(...)")
---@type fun(self: parallel.Pool,
---          fn: function|string|parallel.EverywhereOptions, ...: any):
---          table<integer|string, any>,
---          table<integer|string, parallel.Failure>
local method <const> =
  check.public("pool:everywhere(fn, ...)", math.huge, everywhere,
               function (pool, ...) return pool, read(...) end, core.is_pool)

return { functions = functions, methods = { everywhere = method } }
