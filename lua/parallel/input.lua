-- SPDX-License-Identifier: MIT
--- Inputs: the items of a map, from an array, a range or an iterator.  All
--- kinds are fed to a batch in the same way.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local iter = require "parallel.iter"
local range = require "parallel.range"

local getmetatable, ipairs, math, next, pcall, rawget, rawlen, type =
  getmetatable, ipairs, math, next, pcall, rawget, rawlen, type
local getinfo <const> = debug and debug.getinfo
local raise <const> = core.raise

--- The iterator that `ipairs` returns.
local INEXT <const> = ipairs {}

---@class parallel.Input
---@field total? integer  number of items, where it is known
---@field inputs? table<integer, any>  first values of an iterator, by index
---@field feed fun(batch: parallel.Batch): boolean
---       add as many items as there is room for; false once all were added
---@field item fun(index: integer): any  return the item 'index'
---@field take fun(index: integer): any  return the item 'index', and forget it
---@field count fun(): integer          return the number of items added so far
---@field values? integer  values of each item, where the number is known
---@field span? fun(index: integer): integer, integer
---       return the first and the last of the user's items in the part 'index'
---@field name? fun(index: integer): string
---       return the name of an item, where that is not "item 3"
---@field limit_by? parallel.LimitBy  the option of the call
---@field called? fun(index: integer): any, ...  what the key of an item is
---       made of, where the item is several arguments
---@field in_pool? boolean  the caller has called a method of a pool
---@field iterator? fun(state: any, control: any): ...  the user's
---@field closing? parallel.Iterator  to be closed at the end of the call

---@param list any[]
---@param n integer
---@return parallel.Input
local function of_array (list, n)
  local at = 1
  local function item (index) return list[index] end
  return {
    total = n,
    values = 1,
    feed = function (batch)
      if at <= n then at = batch:feed_array(list, at, n) end
      return at <= n
    end,
    item = item,
    take = item,
    count = function () return at - 1 end,
  }
end

---@param r parallel.Range
---@return parallel.Input
local function of_range (r)
  local first <const>, step <const>, n <const> = r.first, r.step, r.n
  local at = 1
  local function item (index) return first + (index - 1) * step end
  return {
    total = n,
    values = 1,
    feed = function (batch)
      if at <= n then at = batch:feed_range(first, step, at, n) end
      return at <= n
    end,
    item = item,
    take = item,
    count = function () return at - 1 end,
  }
end

---@param iterator fun(state: any, control: any): ...
---@param tell? fun(text: string): string  makes the message for an item that
---       cannot travel from the text "item 3: ..."
---@param first? fun(state: any, control: any): ...  called instead of the
---       iterator in the first feed
---@return parallel.Input
local function of_iterator (iterator, tell, first)
  local inputs = {}
  local more, control, added = true, nil, 0
  return {
    inputs = inputs,
    iterator = first or iterator,
    feed = function (batch)
      if more then
        local step <const> = first or iterator
        first = nil
        more, control, added =
          batch:feed_iterator(step, nil, control, inputs, added, tell)
      end
      return more
    end,
    item = function (index) return inputs[index] end,
    take = function (index)
      local value = inputs[index]
      inputs[index] = nil
      return value
    end,
    count = function () return added end,
  }
end

--- Advice for a caller whose iterator needs its state.
local REMEDY <const> = "of what stands behind 'in' only the first value "
  .. "arrives; parallel.iter packs all of it: parallel.iter(lfs.dir(path))"

--- Raise the error of the first call of an iterator; with an advice, if the
--- iterator has probably failed since its state is nil.
---@param verb string
---@param iterator function
---@param problem any
local function explain (verb, iterator, problem)
  local about <const> = type(problem) == "string"
    and getinfo ~= nil and getinfo(iterator, "Su") or nil
  if about == nil then raise(problem) end
  if about.what == "C" then
    if problem:find "^bad argument #1 to " or problem:find "bad self" then
      check.misuse("bad argument 'items' to '" .. verb .. "' (the iterator "
                   .. "needs its state, which is nil: " .. problem .. "; "
                   .. REMEDY .. ")")
    end
  elseif about.nparams > 0 and problem:find " nil value" then
    problem = problem .. " (the first argument, its state, is nil here: "
              .. REMEDY .. ")"
  end
  raise(problem)
end

--- Wrap an iterator so that an error of its first call is explained.
---@param verb string
---@param iterator function
---@return fun(state: any, control: any): ...
local function careful (verb, iterator)
  local function done (ok, ...)
    if ok then return ... end
    return explain(verb, iterator, (...))
  end
  local called = false
  return function (state, control)
    if called then return iterator(state, control) end
    called = true
    return done(pcall(iterator, state, control))
  end
end

--- Items of an array, at most: more do not fit into a table.
local MOST <const> = 0x7fffffff

--- Return the length of an array: its own 'n', or else its border.  An 'n'
--- that the array's metatable gives is ignored: it need not be a length.
---@param verb string
---@param list table
---@return integer
local function length (verb, list)
  local n = rawget(list, "n")
  if type(n) == "number" then
    local size = math.tointeger(n)
    if not size or size < 0 then
      check.misuse("bad field 'n' of argument 'items' to '" .. verb
                   .. "' (a length expected, got " .. check.describe(n) .. ")")
    end
    if size > MOST then
      check.misuse("bad field 'n' of argument 'items' to '" .. verb
                   .. "' (a length up to " .. MOST .. " expected, got "
                   .. check.describe(n) .. ")")
    end
    return size --[[@as integer]]
  end
  local size = #list
  if math.type(size) ~= "integer" or size < 0 or size > MOST then
    check.misuse("bad argument 'items' to '" .. verb .. "' (its metamethod "
                 .. "__len returned " .. check.describe(size)
                 .. ": a length up to " .. MOST .. " expected)")
  elseif size ~= 0 then
    return size
  elseif getmetatable(list) == nil then
    if next(list) ~= nil then
      check.misuse("bad argument 'items' to '" .. verb .. "' (an array "
                   .. "expected, got a table without an item 1 but with the "
                   .. "key " .. check.describe(next(list)) .. ")")
    end
  elseif list[1] ~= nil then
    check.misuse("bad argument 'items' to '" .. verb .. "' (a length "
                 .. "expected, got 0 for a table that has an item 1: give its "
                 .. "metatable __len, or the table a field n)")
  end
  return size
end

---@param value any
---@return boolean
local function is_callable (value)
  local kind = type(value)
  if kind == "function" then return true end
  if kind ~= "table" and kind ~= "userdata" then return false end
  local metatable = getmetatable(value)
  if type(metatable) ~= "table" or rawget(metatable, "__call") == nil then
    return false
  end
  return kind == "userdata" or rawlen(value) == 0
end

--- Make the input for the argument 'items' of 'verb'.
---@param verb string
---@param value any
---@return parallel.Input
local function open (verb, value)
  if getmetatable(value) == range then return of_range(value) end
  if value == next then
    check.misuse("bad argument 'items' to '" .. verb .. "' (got 'next' alone: "
                 .. "of what 'pairs' returns only the first value arrives; "
                 .. "pass parallel.iter(pairs(t)))")
  end
  if value == INEXT then
    check.misuse("bad argument 'items' to '" .. verb .. "' (of what 'ipairs' "
                 .. "returns only the first value arrives; pass the array "
                 .. "itself, or parallel.iter(ipairs(t)))")
  end
  if type(value) == "function" then
    return of_iterator(value, nil, careful(verb, value))
  end
  if is_callable(value) then
    local source <const> = of_iterator(value)
    if iter.is_iterator(value) then source.closing = value end
    return source
  end
  if type(value) ~= "table" then
    check.bad_argument(verb, "items", "an array, a range or an iterator",
                       value)
  end
  return of_array(value, length(verb, value))
end

local input = {
  length = length,
  of_iterator = of_iterator,
  open = open,
}

return input
