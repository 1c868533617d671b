-- SPDX-License-Identifier: MIT
--- What stands behind `in` of a generic `for`, packed into one value.

local check = require "parallel.check"

local getmetatable, rawget, setmetatable, type =
  getmetatable, rawget, setmetatable, type

--- An iterator that knows its state.  A call gives the next values.
---@class parallel.Iterator
---@field step function|table|userdata
---@field state any
---@field control any
---@field closing any
---@field ended? boolean
local iterator = { __name = "parallel.iterator" }

--- Give up the closing value; the iterator has ended.
---@param self parallel.Iterator
local function finish (self)
  local _ <close> = self.closing
  self.ended, self.closing = true, nil
end

---@param self parallel.Iterator
---@param control any
---@param ... any
---@return any ...
local function advance (self, control, ...)
  self.control = control
  if control == nil then finish(self) end
  return control, ...
end

---@return any ...
function iterator:__call ()
  if self.ended then return nil end
  return advance(self, self.step(self.state, self.control))
end

iterator.__close = finish

--- Tell whether a value is an iterator that knows its state.
---@param value any
---@return boolean
local function is_iterator (value)
  return getmetatable(value) == iterator
end

---@param value any
---@return boolean
local function is_callable (value)
  if type(value) == "function" then return true end
  local metatable <const> = getmetatable(value)
  return type(metatable) == "table" and rawget(metatable, "__call") ~= nil
end

--- Pack what stands behind `in` of a generic `for` into one value, which the
--- verbs take as items: an iterator, its state, its first control value, and
--- a value that is closed when the verb ends.
---
---     parallel.map(parallel.iter(lfs.dir(path)), measure)
---@type fun(step: function, state?: any, control?: any, closing?: any):
---          parallel.Iterator
local iter = check.public("parallel.iter(f [, state [, control [, closing]]])",
                          4, function (step, state, control, closing)
  return setmetatable({
    step = step, state = state, control = control, closing = closing,
  }, iterator)
end, function (step, state, control, closing)
  if not is_callable(step) then
    check.bad_argument("iter", "f", "an iterator, as it stands behind 'in',",
                       step)
  end
  local metatable <const> = getmetatable(closing)
  if closing and (metatable == nil or type(metatable) == "table"
                  and rawget(metatable, "__close") == nil) then
    check.bad_argument("iter", "closing", "a value with __close", closing)
  end
  return step, state, control, closing
end)

return { functions = { iter = iter }, is_iterator = is_iterator }
