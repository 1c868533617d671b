-- SPDX-License-Identifier: MIT
--- The options of the verbs, and the pool that a call works in.

local check = require "parallel.check"
local core = require "parallel.core"

local next, table, type = next, table, type

--- What every verb over items accepts.
---@class parallel.CallOptions: parallel.InitialStateFields
---@field limit? integer    jobs in flight; default: what keeps the pool busy
---@field chunk? integer    items to a job; default: by their measured cost
---@field arguments? any[]  passed to the function behind each item
---@field name? string      of the call, in messages

---@type table<string, fun(value: any): string?>
local COMMON <const> = {
  arguments = check.list,
  chunk = check.size,
  limit = check.size,
  name = check.text,
}

---@type table<string, fun(value: any): string?>
local PLACE <const> = {
  cpath = check.text,
  functions = check.list,
  init = check.code,
  initial_state = function (value)
    if type(value) ~= "userdata" and type(value) ~= "table" then
      return "an initial state"
    end
  end,
  libs = check.list,
  modules = check.list,
  path = check.text,
  preload = check.list,
  reset = check.one_of("globals", "none", "fresh"),
  variables = check.list,
}

---@type {}
local NONE <const> = {}

--- Check the options given to 'verb', which has 'own' ones beside the common
--- ones.  Second result: whether some of them describe an initial state.
---@param verb string
---@param pool parallel.Pool?  whose method was called
---@param given any
---@param own? table<string, fun(value: any): string?>
---@return table options
---@return boolean placed
local function read (verb, pool, given, own)
  if given == nil then return NONE, false end
  check.is_options(given, verb)
  own = own or NONE
  local placed = false
  for name, value in next, given do
    local test = own[name] or COMMON[name]
    if test == nil then
      test = PLACE[name]
      if test == nil then
        check.unknown_option(verb, name, own, COMMON, pool and NONE or PLACE)
      end
      if pool ~= nil then
        check.misuse("bad option '" .. name .. "' to '" .. verb .. "' (a pool "
                     .. "has its initial state already: give it to "
                     .. "parallel.pool, or call parallel." .. verb .. ")")
      end
      placed = true
    end
    local expected, wrong = test(value)
    if expected ~= nil then
      if wrong ~= nil then
        check.misuse("bad option '" .. name .. "' to '" .. verb .. "' ("
                     .. expected .. " expected, got " .. wrong .. ")")
      end
      check.bad_option(verb, name, expected, value)
    end
  end
  return given, placed
end

--- The pool for a call: the one whose method was called, the default one, or
--- one opened for this call, which is the second result too.
---@param verb string
---@param pool parallel.Pool?
---@param options table
---@param placed boolean
---@return parallel.Pool pool
---@return parallel.Pool? temporary  to be closed when the call ends
local function place (verb, pool, options, placed)
  if pool ~= nil then return pool, nil end
  if not placed then return core.default_pool(), nil end
  local temporary = require("parallel.pool").open_for(verb, options)
  return temporary, temporary
end

--- The values of the option 'arguments'.
---@param verb string
---@param options table
---@return ...
local function arguments (verb, options)
  local list = options.arguments
  if list == nil then return end
  local n = list.n
  if n == nil then
    n = #list
  elseif check.size(n) ~= nil and n ~= 0 then
    check.bad_option(verb, "arguments", "an array", list)
  end
  return table.unpack(list, 1, n)
end

--- Check that a method was called on a pool, with a colon.
---@param self any
---@param verb string
local function is_pool (self, verb)
  if type(self) ~= "userdata" then check.bad_self("pool", verb, self) end
end

local options = {
  PLACE = PLACE,
  arguments = arguments,
  is_pool = is_pool,
  place = place,
  read = read,
}

return options
