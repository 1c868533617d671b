-- SPDX-License-Identifier: MIT
--- Time the ways in which the same work can be done.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local input = require "parallel.input"
local place <const> = require("parallel.options").PLACE

local error, ipairs, next, require, setmetatable, table, type =
  error, ipairs, next, require, setmetatable, table, type

---@class parallel.CompareOptions
---@field fn function|string  called with each item
---@field items any[]
---@field isolation? string[] which ways, default the first four: "none" (in
---       the host, one after another), "runspace" (in runspaces of a pool),
---       "job" (a job for each item), "fresh" (a new state for each item),
---       "process" (in child processes of a pool), "host" (on `hosts`, and
---       a default where they are given)
---@field limit? integer      runspaces at once; default: the default pool's;
---       on hosts, as many as they name
---@field hosts? string[]     of the way "host", as the next two
---@field ssh? string[]
---@field runspace? string
---@field repeats? integer    times each way; the fastest counts; default 1

---@class parallel.Comparison
---@field isolation string
---@field seconds number
---@field speed_up? number  seconds of "none" / seconds, if "none" was measured
local comparison = { __name = "parallel.comparison" }
comparison.__index = comparison

--- Open a pool whose 'limit' workers are all started.
---@param limit? integer  default: as many as the options say
---@param given? parallel.PoolOptions  further options
---@return parallel.Pool
local function open (limit, given)
  local options <const> = { min = limit, max = limit }
  for name, value in next, given or {} do options[name] = value end
  return require("parallel.pool").functions.pool(options)
end

--- Make the way that is a map in a pool.
---@param given? parallel.PoolOptions  further options of the pool
---@return fun(fn: any, items: table, limit: integer): number
local function map_in (given)
  return function (fn, items, limit)
    local pool <close> = open(limit, given)
    local started <const> = core.now()
    pool:map(items, fn)
    return core.now() - started
  end
end

--- Functions that do the work of 'n' items in one way, by the name of the way;
--- each returns seconds, without those in which a pool opens.
---@type table<string, fun(fn: any, items: table, limit: integer,
---                         n: integer, given: parallel.CompareOptions):
---                         number>
local WAYS <const> = {
  none = function (fn, items, _, n)
    if type(fn) == "string" then fn = check.compile(fn) end
    local started <const> = core.now()
    for i = 1, n do fn(items[i]) end
    return core.now() - started
  end,
  runspace = map_in(),
  job = function (fn, items, limit, n)
    local pool <close> = open(limit)
    local started <const> = core.now()
    local jobs, failure = {}, nil
    for i = 1, n do jobs[i] = pool:spawn(fn, items[i]) end
    for _, job in ipairs(jobs) do  -- join all, so that no failure is reported
      local ok, problem = job:join()
      if not ok then failure = failure or problem end
    end
    if failure ~= nil then error(failure, 0) end
    return core.now() - started
  end,
  fresh = map_in { reset = "fresh" },
  process = map_in { isolation = "process" },
  host = function (fn, items, _, _, given)
    return map_in { hosts = given.hosts, ssh = given.ssh,
                    runspace = given.runspace }(fn, items, given.limit)
  end,
}

--- The ways that are taken without a word: all that start no program.
local ORDER <const> = { "none", "runspace", "job", "fresh" }

---@param value any
---@return string? expected
---@return string? wrong
local function isolation (value)
  local expected <const> =
    "an array of the words none, runspace, job, fresh, process, host"
  if type(value) ~= "table" or #value == 0 then return expected end
  local behind <const> = check.beyond(value)
  if behind ~= nil then
    return expected, "the key " .. check.describe(behind)
  end
  for _, word in ipairs(value) do
    if WAYS[word] == nil then
      return expected, "the way " .. check.describe(word)
    end
  end
end

local OWN <const> = {
  fn = check.code,
  hosts = place.hosts,
  isolation = isolation,
  items = check.list,
  limit = check.bounds "max",
  repeats = check.size,
  runspace = place.runspace,
  ssh = place.ssh,
}

--- The ways to take.
---@param given parallel.CompareOptions
---@return string[]
local function ways_of (given)
  if given.isolation ~= nil then return given.isolation end
  local ways <const> = table.move(ORDER, 1, #ORDER, 1, {})
  if given.hosts ~= nil then ways[#ways + 1] = "host" end
  return ways
end

--- Raise if the options of the way "host" are there without it, or it is there
--- without hosts.
---@param given parallel.CompareOptions
local function check_hosts (given)
  local asked = false
  for _, word in ipairs(ways_of(given)) do
    asked = asked or word == "host"
  end
  if asked and given.hosts == nil then
    check.misuse("bad option 'isolation' to 'compare' (the way 'host' needs "
                 .. "hosts: give hosts = {...})")
  end
  for _, name in ipairs { "hosts", "ssh", "runspace" } do
    if given[name] ~= nil and not asked then
      check.misuse("bad option '" .. name .. "' to 'compare' (it is of the "
                   .. "way 'host', which is not asked for: "
                   .. (name == "hosts" and "add it to isolation)"
                       or "give hosts, too)"))
    end
  end
end

--- Show the ways as a table of text, and name the fastest.
function comparison:__tostring ()
  local rows <const> = require "parallel.rows"
  return rows.show(self, rows.columns_for("compare", self, {
    "isolation", { "time", "seconds", "seconds" }, { "speed-up", "speed_up" },
  })) .. "fastest: " .. self.fastest.isolation .. "\n"
end

---@param given any
---@return parallel.CompareOptions given
---@return integer n  items
local function prepare (given)
  if type(given) ~= "table" then
    check.bad_argument("compare", "options", "a table", given)
  end
  check.read("compare", given, OWN)
  check.is_code("compare", "fn", given.fn)
  if given.items == nil then
    check.bad_option("compare", "items", "an array", nil)
  end
  check_hosts(given)
  return given, input.length("compare", given.items)
end

--- Do the same work in several ways and tell how long each took.
---
---     print(parallel.compare{fn = work, items = {1, 2, 3, 4}})
---@type fun(given: parallel.CompareOptions): parallel.Comparison[]
---       in the order asked for, with `fastest`
local compare = check.public("parallel.compare{fn =, items =, ...}", 1,
                             function (given, n)
  local limit <const> = given.limit or core.workers()
  local result, plain = setmetatable({}, comparison), nil
  for i, word in ipairs(ways_of(given)) do
    local best
    for _ = 1, given.repeats or 1 do
      local seconds = WAYS[word](given.fn, given.items, limit, n, given)
      if best == nil or seconds < best then best = seconds end
    end
    result[i] = { isolation = word, seconds = best }
    if word == "none" then plain = best end
    if result.fastest == nil or best < result.fastest.seconds then
      result.fastest = result[i]
    end
  end
  for _, row in ipairs(result) do
    if plain ~= nil and row.seconds > 0 then
      row.speed_up = plain / row.seconds
    end
  end
  return result
end, prepare)

return { functions = { compare = compare } }
