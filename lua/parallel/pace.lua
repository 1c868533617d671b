-- SPDX-License-Identifier: MIT
--- When the items of a call may begin: at a rate, and how many of one key at a
--- time.

local check = require "parallel.check"

local math, next, setmetatable, type = math, next, setmetatable, type

---@class parallel.Rate
---@field [1] integer  items, each attempt of which counts
---@field per number   seconds within which no more of them begin

---@class parallel.LimitBy
---@field key string|fun(item: any, ...: any): any  the field of an item that
---       is its key; or a function that returns the key: a string, a number, a
---       boolean, or nil for an item that nothing limits
---@field limit integer  items of one key that are at work at a time

--- Find a key of a table that is not one of two.
---@param value table
---@param one any
---@param other any
---@return any
local function beyond (value, one, other)
  for key in next, value do
    if key ~= one and key ~= other then return key end
  end
end

---@param value any
---@return string? expected
---@return string? wrong
local function rate (value)
  local whole <const> = "a table such as {10, per = 1}"
  if type(value) ~= "table" then return whole end
  local key <const> = beyond(value, 1, "per")
  if key ~= nil then return whole, "the key " .. check.describe(key) end
  local expected <const> = check.bounds "rate"(value[1])
  if expected ~= nil then
    return expected .. " in front", check.describe(value[1])
  end
  if check.bounds "per"(value.per) ~= nil or value.per == math.huge then
    return "a positive number of seconds for 'per'",
           check.describe(value.per)
  end
end

---@param value any
---@return string? expected
---@return string? wrong
local function limit_by (value)
  local whole <const> = "a table such as {key = \"host\", limit = 2}"
  if type(value) ~= "table" then return whole end
  local field <const> = beyond(value, "key", "limit")
  if field ~= nil then return whole, "the key " .. check.describe(field) end
  local key <const> = value.key
  if type(key) ~= "function" and (type(key) ~= "string" or key == "") then
    return "the name of a field or a function for 'key'", check.describe(key)
  end
  local expected <const> = check.bounds "key_limit"(value.limit)
  if expected ~= nil then
    return expected .. " for 'limit'", check.describe(value.limit)
  end
end

--- Check that the options of 'verb' go together.
---@param verb string
---@param given table
local function check_options (verb, given)
  local name <const> = given.rate ~= nil and "rate"
                    or given.limit_by ~= nil and "limit_by"
  if name and given.chunk ~= nil and given.chunk ~= 1 then
    check.misuse("bad option 'chunk' to '" .. verb .. "' (with '" .. name
                 .. "' each item waits for itself: leave it out)")
  end
end

--- Add the options to 'target', for `core`.
---@param target table
---@param given table
local function add (target, given)
  local r <const>, by <const> = given.rate, given.limit_by
  if r ~= nil then
    target.rate, target.per = math.tointeger(r[1]), r.per
  end
  if by ~= nil then target.key_limit = math.tointeger(by.limit) end
end

--- Stands between a source and its batch, and tells the batch the key of each
--- item before that is added.
---@class parallel.KeyedFeed
---@field batch parallel.Batch
---@field key string|function
---@field called? fun(index: integer): any, ...  what the key of an item in
---       `feed_packed` is made of
local keyed = {}
keyed.__index = keyed

--- Return the key that stands in the field of an item.
---@param index integer  of the item
---@param item any
---@return any
function keyed:field (index, item)
  local kind <const> = type(item)
  local name <const> = check.clean(self.key)
  if kind ~= "table" and kind ~= "userdata" then
    check.misuse("bad option 'limit_by' (item " .. index .. " has no field '"
                 .. name .. "': it is " .. check.describe(item)
                 .. "; give a function as key)")
  end
  local key <const> = item[self.key]
  if key == nil then
    check.misuse("bad option 'limit_by' (item " .. index .. " has no field '"
                 .. name .. "'; give a function as key, which may return nil)")
  end
  return key
end

--- Tell the key of the next item, whose values these are.
---@param index integer
---@param ... any
---@return boolean  false: the function has closed the batch
function keyed:tell (index, ...)
  local key = self.key
  if type(key) == "function" then
    key = key(...)
  else
    key = self:field(index, (...))
  end
  local kind <const> = type(key)
  if kind == "number" then key = math.tointeger(key) or key end
  if kind ~= "nil" and kind ~= "string" and kind ~= "number"
     and kind ~= "boolean" then
    check.misuse("bad option 'limit_by' (a string, a number or a boolean "
                 .. "expected as the key of item " .. index .. ", got "
                 .. check.describe(key) .. ")")
  end
  return self.batch:set_key(key)
end

--- Add items one by one, each by 'one(index)', while there is room.
---@param at integer
---@param last integer
---@param one fun(index: integer): integer  returns the next index
---@param ... any
---@return integer
function keyed:each (at, last, one)
  while at <= last and self.batch:room() > 0 do
    local behind <const> = one(at)
    if behind == at then break end
    at = behind
  end
  return at
end

function keyed:feed_array (list, from, last)
  return self:each(from, last, function (i)
    if not self:tell(i, list[i]) then return i end
    return self.batch:feed_array(list, i, i)
  end)
end

function keyed:feed_range (first, step, from, last)
  return self:each(from, last, function (i)
    if not self:tell(i, first + (i - 1) * step) then return i end
    return self.batch:feed_range(first, step, i, i)
  end)
end

function keyed:feed_packed (items, from, last, tell)
  return self:each(from, last, function (i)
    if not self:tell(i, self.called(i)) then return i end
    return self.batch:feed_packed(items, i, i, tell)
  end)
end

function keyed:feed_iterator (step, state, control, inputs, added, tell)
  local index = added
  local function pass (...)
    if (...) ~= nil then
      index = index + 1
      self:tell(index, ...)
    end
    return ...
  end
  return self.batch:feed_iterator(function (s, c) return pass(step(s, c)) end,
                                  state, control, inputs, added, tell)
end

--- Make what a source feeds instead of the batch.
---@param batch parallel.Batch
---@param by parallel.LimitBy
---@param called? fun(index: integer): any, ...
---@return parallel.KeyedFeed
local function feed (batch, by, called)
  return setmetatable({ batch = batch, key = by.key, called = called },
                      keyed)
end

return {
  add = add,
  check = check_options,
  feed = feed,
  tests = { limit_by = limit_by, rate = rate },
}
