-- SPDX-License-Identifier: MIT
--- Limits of jobs and runspaces: times, attempts, sizes.

local check = require "parallel.check"

local ipairs, math, next, type = ipairs, math, next, type

--- Limits of a job, or of each item of a call.
---@class parallel.Limits
---@field timeout? number    seconds that each attempt may run
---@field deadline? number   seconds from now to the end of the whole call
---@field retries? integer   further attempts after a failure; default 0
---@field retry_on? string|string[]  reasons to try again: "error", "timeout",
---       "memory_limit", "instruction_limit", "failed" (all but "timeout") or
---       "timed_out"; default {"error", "timeout"}
---@field priority? integer  from -10 to 10; of the jobs queued in a pool,
---       those of the highest priority start first; default 0

--- Limits of each runspace of a pool.
---@class parallel.RunspaceLimits
---@field memory? integer|string  bytes of the runspace: 67108864, or "64M".  A
---       job that wants more fails, and gets no further
---@field instructions? integer   instructions of Lua that a job or item may
---       execute; counting, by thousands, takes up to half of the job's speed
---@field max_tasks? integer  jobs and items after which a runspace is renewed
---@field max_bytes? integer|string  bytes held after a job, from which on the
---       runspace is renewed

--- RS_RETRY_ of runspace.h
local RETRY_ERROR <const>, RETRY_TIMEOUT <const> = 1, 2
local RETRY_MEMORY <const>, RETRY_INSTRUCTIONS <const> = 4, 8

---@type table<string, integer>
local RETRY <const> = {
  error = RETRY_ERROR,
  failed = RETRY_ERROR | RETRY_MEMORY | RETRY_INSTRUCTIONS,
  instruction_limit = RETRY_INSTRUCTIONS,
  memory_limit = RETRY_MEMORY,
  timed_out = RETRY_TIMEOUT,
  timeout = RETRY_TIMEOUT,
}

local WORDS <const> = "'error', 'failed', 'instruction_limit', "
                      .. "'memory_limit', 'timed_out' or 'timeout'"

---@param value any
---@return string? expected
---@return string? wrong
local function retry_on (value)
  if RETRY[value] ~= nil then return nil end
  if type(value) ~= "table" then return WORDS .. ", or an array of them" end
  for _, word in ipairs(value) do
    if RETRY[word] == nil then
      return "an array of " .. WORDS, check.describe(word)
    end
  end
  local behind <const> = check.beyond(value)
  if behind ~= nil then
    return "an array of " .. WORDS, "the key " .. check.describe(behind)
  end
  if value[1] == nil then return "an array of " .. WORDS, "none" end
end

--- Check that the options of 'verb' go together.
---@param verb string
---@param given parallel.Limits
local function check_limits (verb, given)
  if given.retry_on ~= nil and given.retries == nil then
    check.misuse("bad option 'retry_on' to '" .. verb .. "' (without "
                 .. "'retries' nothing is tried again: give retries = 1, or "
                 .. "leave it out)")
  end
end

--- Tests of the options of a call, as `options.read` takes them.
---@type table<string, fun(value: any): string?, string?>
local CALL <const> = {
  deadline = check.limit,
  priority = check.priority,
  retries = check.count,
  retry_on = retry_on,
  timeout = check.limit,
}

--- Tests of the options of a pool.
---@type table<string, fun(value: any): string?>
local RUNSPACE <const> = {
  instructions = check.size,
  max_bytes = check.bytes,
  max_tasks = check.size,
  memory = check.bytes,
}

---@param seconds number?
---@return number?
local function finite (seconds)
  return seconds ~= math.huge and seconds or nil
end

--- Add the limits of a call to 'target', for `core`.
---@param target table
---@param given parallel.Limits
---@return table target
local function add (target, given)
  target.timeout = finite(given.timeout)
  target.deadline = finite(given.deadline)
  target.priority = given.priority
  target.retries = given.retries
  local words <const> = given.retry_on
  if words ~= nil then
    local mask = 0
    for _, word in ipairs(type(words) == "table" and words or { words }) do
      mask = mask | RETRY[word]
    end
    target.retry_on = mask
  end
  return target
end

--- Add the limits of the runspaces of a pool to 'target', for `core`.
---@param target table
---@param given parallel.RunspaceLimits
---@return table target
local function add_runspace (target, given)
  for name in next, RUNSPACE do
    local value <const> = given[name]
    if value ~= nil then target[name] = check.to_bytes(value) end
  end
  return target
end

return {
  CALL = CALL,
  RUNSPACE = RUNSPACE,
  add = add,
  add_runspace = add_runspace,
  check = check_limits,
}
