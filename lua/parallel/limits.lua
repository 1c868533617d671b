-- SPDX-License-Identifier: MIT
--- Limits of jobs and runspaces: times, attempts, sizes.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local ipairs, math, next, type = ipairs, math, next, type

--- Limits of a job, or of each item of a call.
---@class parallel.Limits
---@field timeout? number    seconds that each attempt may run
---@field deadline? number   seconds from now to the end of the whole call
---@field total_timeout? number  another word for `deadline`
---@field retries? integer   further attempts after a failure; default 0
---@field retry_on? string|string[]  reasons to try again: "error", "timeout",
---       "memory_limit", "instruction_limit", "failed" (these but "timeout"),
---       "timed_out", or "lost" with a process; default {"error", "timeout"}
---@field retry_delay? number  seconds from a failure to the next attempt, of
---       which a random half at most is left out; no worker is held meanwhile
---@field backoff? number    factor by which the delay grows with each further
---       failure; default 1
---@field max_delay? number  seconds that a delay grows to
---@field priority? integer  from -10 to 10; of the jobs queued in a pool,
---       those of the highest priority start first; default 0
---@field globals? boolean|string[]  which globals travel with functions;
---       false: none; an array: these, too; default: those that they read
---@field seed? integer  where `math.random` begins in a job, or, together with
---       its index, in an item, each time that it is tried

--- Limits of each runspace of a pool.
---@class parallel.RunspaceLimits
---@field memory? integer|string  bytes of the runspace: 67108864, or "64M".  A
---       job that wants more fails, and gets no further
---@field instructions? integer   instructions of Lua that a job or item may
---       execute; counting, by thousands, takes up to half of the job's speed
---@field max_tasks? integer  jobs and items after which a runspace is renewed
---@field max_bytes? integer|string  bytes held after a job, from which on the
---       runspace is renewed
---@field cpu_time? number  seconds of CPU that a job or item may use, in a
---       process
---@field nice? integer  added to the niceness of what runs in a process, from
---       0 to 19

--- RS_RETRY_ of runspace.h
local RETRY_ERROR <const>, RETRY_TIMEOUT <const> = 1, 2
local RETRY_MEMORY <const>, RETRY_INSTRUCTIONS <const> = 4, 8
local RETRY_LOST <const> = 16

---@type table<string, integer>
local RETRY <const> = {
  error = RETRY_ERROR,
  failed = RETRY_ERROR | RETRY_MEMORY | RETRY_INSTRUCTIONS,
  instruction_limit = RETRY_INSTRUCTIONS,
  lost = RETRY_LOST,
  memory_limit = RETRY_MEMORY,
  timed_out = RETRY_TIMEOUT,
  timeout = RETRY_TIMEOUT,
}

local WORDS <const> = "'error', 'failed', 'instruction_limit', 'lost', "
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

--- Check that the options of 'verb' go together.  Return them with one word
--- for each: `deadline` for `total_timeout`.
---@param verb string
---@param given parallel.Limits
---@return parallel.Limits
local function check_limits (verb, given)
  if given.retry_on ~= nil and given.retries == nil then
    check.misuse("bad option 'retry_on' to '" .. verb .. "' (without "
                 .. "'retries' nothing is tried again: give retries = 1, or "
                 .. "leave it out)")
  end
  local first <const>, most <const> = given.retry_delay, given.max_delay
  if first ~= nil and given.retries == nil then
    check.misuse("bad option 'retry_delay' to '" .. verb .. "' (without "
                 .. "'retries' nothing is tried again: give retries = 1, or "
                 .. "leave it out)")
  end
  for _, name in ipairs { "backoff", "max_delay" } do
    if given[name] ~= nil and first == nil then
      check.misuse("bad option '" .. name .. "' to '" .. verb .. "' (it is "
                   .. "for a delay that grows: give 'retry_delay', too)")
    end
  end
  if most ~= nil and most < first then
    check.misuse("bad option 'max_delay' to '" .. verb .. "' (" .. most
                 .. " seconds are less than 'retry_delay', " .. first .. ")")
  end
  local start <const> = given.start_after
  local deadline <const> = given.deadline or given.total_timeout
  if start ~= nil and deadline ~= nil and start >= deadline then
    check.misuse("bad option 'start_after' to '" .. verb .. "' (" .. start
                 .. " seconds are not less than 'deadline', " .. deadline
                 .. ": the job could never start)")
  end
  if given.total_timeout == nil then return given end
  if given.deadline ~= nil then
    check.misuse("bad option 'total_timeout' to '" .. verb .. "' (it is "
                 .. "another word for 'deadline': leave one of them out)")
  end
  local read <const> = {}
  for name, value in next, given do read[name] = value end
  read.deadline, read.total_timeout = given.total_timeout, nil
  return read
end

--- Make the tests of a group of options, as `options.read` takes them.
---@param group string  in `core.options`
---@return table<string, fun(value: any): string?, string?>
local function tests (group)
  local made <const> = {}
  for name, kind in next, core.options[group] do
    made[name] = kind == "bytes" and check.bytes or check.bounds(name)
  end
  return made
end

--- Make the test of an option that is a number, or "auto".
---@param name string
---@return fun(value: any): string?
local function or_auto (name)
  local test <const> = check.bounds(name)
  return function (value)
    if value == "auto" then return nil end
    local expected <const> = test(value)
    return expected and expected .. " or 'auto'"
  end
end

local CALL <const>, RUNSPACE <const> = tests "call", tests "runspace"
CALL.retry_on = retry_on
CALL.total_timeout = CALL.deadline

---@param value any
---@return string? expected
---@return string? wrong
function CALL.globals (value)
  local expected <const> = "a boolean or an array of names"
  if type(value) == "boolean" then return nil end
  if type(value) ~= "table" then return expected end
  for _, name in ipairs(value) do
    if type(name) ~= "string" or name:find("\0", 1, true) then
      return expected, "one with " .. check.describe(name)
    end
  end
  local behind <const> = check.beyond(value)
  if behind ~= nil then
    return expected, "the key " .. check.describe(behind)
  end
end

---@param value any
---@return string? expected
function CALL.seed (value)
  if math.type(value) ~= "integer" then return "an integer" end
end

--- Turn the words of `retry_on` into RS_RETRY_ bits.
---@param words string|string[]
---@return integer
local function to_bits (words)
  local bits = 0
  for _, word in ipairs(type(words) == "table" and words or { words }) do
    bits = bits | RETRY[word]
  end
  return bits
end

--- Add the options of a group to 'target', for `core`.
---@param group string  in `core.options`
---@param target table
---@param given table
---@return table target
local function add (group, target, given)
  for name, kind in next, core.options[group] do
    local value <const> = given[name]
    if value ~= nil then
      target[name] = name == "retry_on" and to_bits(value)
                     or kind == "bytes" and check.to_bytes(value) or value
    end
  end
  if group == "call" then
    target.globals, target.seed = given.globals, given.seed
  end
  return target
end

--- Copy what bounds a call, as it was given, for another call.
---@param target table
---@param given table
---@return table target
local function copy (target, given)
  for name in next, CALL do target[name] = given[name] end
  return target
end

return {
  CALL = CALL,
  RUNSPACE = RUNSPACE,
  add = add,
  check = check_limits,
  copy = copy,
  or_auto = or_auto,
  tests = tests,
}
