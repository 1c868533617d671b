-- SPDX-License-Identifier: MIT
--- Open pools of runspaces.

local check = require "parallel.check"
local core = require "parallel.core"
local initial_state = require "parallel.initial_state"
local options = require "parallel.options"

local math, next = math, next

---@class parallel.PoolOptions: parallel.InitialStateFields
---@field min? integer  workers that are always there; default 1
---@field max? integer  workers at most; default, one for each CPU
---@field idle? number  seconds before a worker above `min` that has nothing to
---                     do ends; default 10; math.huge: never
---@field streams? table<string, boolean|function>  which streams of its jobs
---       are shown or handed to functions, unless a call says otherwise

--- More threads than any machine gives.
local MOST <const> = 65536

---@param value any
---@return string?
local function workers (value)
  if check.size(value) ~= nil or value > MOST then
    return "an integer from 1 to " .. MOST
  end
end

local OWN <const> = {
  idle = check.seconds,
  max = workers,
  min = workers,
  streams = options.streams,
}

--- Workers of a pool unless told otherwise.
---@return integer
local function default_max ()
  return core.workers ~= nil and core.workers() or core.cpus()
end

---@param verb string
---@param min integer?
---@param max integer?
---@param given table
---@return parallel.Pool
local function open (verb, min, max, given)
  local idle = given.idle
  if idle == 0 then idle = 1e-9 end  -- at once, where 0 means the default
  local pool = core.pool {
    min = min or 1,
    max = max or math.max(min or 1, default_max()),
    idle = idle,
    reset = given.reset or "globals",
    initial_state = initial_state.of(verb, given),
  }
  options.set_streams(pool, given.streams)
  return pool
end

--- A pool for one call of 'verb', as its options describe it.
---@param verb string
---@param given table
---@return parallel.Pool
local function open_for (verb, given)
  return open(verb, nil, given.limit and math.min(given.limit, MOST), given)
end

--- Open a pool.  Its first `min` workers are started and seeded before this
--- returns; what fails while they are seeded (a missing module, an error in
--- `init`) is raised here.  Close it with `<close>` or `pool:close`.
---
---     local pool <close> = parallel.pool{max = 4, modules = {"cjson"}}
---@param given? parallel.PoolOptions
---@return parallel.Pool
local function pool (given)
  given = given or {}
  check.is_options(given, "pool")
  for name, value in next, given do
    local test = OWN[name] or options.PLACE[name]
    if test == nil then
      check.unknown_option("pool", name, OWN, options.PLACE)
    end
    local expected, wrong = test(value)
    if expected ~= nil then
      check.misuse("bad option '" .. name .. "' to 'pool' (" .. expected
                   .. " expected, got " .. (wrong or check.describe(value))
                   .. ")")
    end
  end
  local min, max = given.min, given.max
  if min ~= nil and max ~= nil and min > max then
    check.misuse("bad option 'min' to 'pool' (" .. min
                 .. " workers are more than 'max', " .. max .. ")")
  end
  return open("pool", min and math.tointeger(min), max and math.tointeger(max),
              given)
end

return {
  functions = { pool = pool },
  open_for = open_for,
}
