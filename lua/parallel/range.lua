-- SPDX-License-Identifier: MIT
--- Ranges: rows of integers, as items that take no memory.

local check = require "parallel.check"

local math, rawget, setmetatable, string, type =
  math, rawget, setmetatable, string, type

--- A range reads like an array that cannot be changed (`#r`, `r[i]`,
--- `ipairs(r)`), and can be called by a generic `for`.
---@class parallel.Range
---@field first integer
---@field last integer  the bound, which need not be in the range
---@field step integer
---@field n integer     number of integers in the range
---@operator len: integer
local range = { __name = "parallel.range" }

---@param name string
---@param value any
---@return integer
local function to_integer (name, value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n then
    check.bad_argument("range", name, "an integer", value)
  end
  return n --[[@as integer]]
end

--- Make a range of the integers `first`, `first + step`, ... up to `last`; or
--- with one argument, of the integers from 1 up to that.
---@param first integer
---@param last? integer
---@param step? integer  default 1; negative counts down
---@return parallel.Range
local function new (first, last, step)
  if last == nil and step == nil then first, last = 1, first end
  local a, z = to_integer("first", first), to_integer("last", last)
  local by = step == nil and 1 or to_integer("step", step)
  if by == 0 then
    check.bad_argument("range", "step", "an integer other than 0", step)
  end
  local n = 0
  if by > 0 and a <= z or by < 0 and a >= z then
    local distance = by > 0 and z - a or a - z
    if distance < 0 or distance == math.maxinteger
       or by == math.mininteger then
      check.misuse("bad range: it has more than 2^63 - 1 integers")
    end
    n = distance // math.abs(by) + 1
  end
  return setmetatable({ first = a, last = z, step = by, n = n }, range)
end

---@param self parallel.Range
---@param index any
---@return integer?
function range.__index (self, index)
  local i = type(index) == "number" and math.tointeger(index)
  if i and i >= 1 and i <= rawget(self, "n") then
    return rawget(self, "first") + (i - 1) * rawget(self, "step")
  end
end

function range.__newindex ()
  check.misuse("a range cannot be changed")
end

---@param self parallel.Range
---@return integer
function range.__len (self)
  return self.n
end

--- Do one step of a generic `for`.
---@param self parallel.Range
---@param previous? integer
---@return integer?
function range.__call (self, _, previous)
  if previous == nil then return self[1] end
  return self[(previous - self.first) // self.step + 2]
end

---@param self parallel.Range
---@return string
function range.__tostring (self)
  return string.format("range(%d, %d, %d)", self.first, self.last, self.step)
end

range.functions = {
  range = check.public("parallel.range(first, last [, step])", 3,
                       function (r) return r end, new),
}

return range
