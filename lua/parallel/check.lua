-- SPDX-License-Identifier: MIT
--- Say what is wrong with an argument, at the place that passed it.

local core = require "parallel.core"

local error, getmetatable, load, math, next, string, table, tonumber, tostring,
      type =
  error, getmetatable, load, math, next, string, table, tonumber, tostring,
  type
local getinfo <const> = debug and debug.getinfo

--- Whether a function that runs belongs to this module, by its source.
local OURS <const> = "^@parallel/[%w_]+%.lua$"

--- The methods in C that call the Lua part for what is not plain.
local OURS_IN_C <const> = {
  [core.job_methods.get] = true,
  [core.pool_methods.run] = true,
  [core.pool_methods.spawn] = true,
}

--- Raise 'message' with the position of the code that called into the
--- module, however deep in the module the mistake was seen.
---@param message string
local function misuse (message)
  local level = 2
  if getinfo ~= nil then
    local info = getinfo(level, "Sf")
    while info ~= nil
          and (OURS_IN_C[info.func] or string.find(info.source, OURS)) do
      level = level + 1
      info = getinfo(level, "Sf")
    end
  end
  error(message, level)
end

--- A value in a few words: "nil", "-1", "'abc'", "a table".
---@param value any
---@return string
local function describe (value)
  local kind = type(value)
  if kind == "nil" or kind == "number" or kind == "boolean" then
    return tostring(value)
  end
  if kind == "string" then
    if #value > 40 then value = value:sub(1, 37) .. "..." end
    return "'" .. value .. "'"
  end
  local name
  local metatable = kind ~= "function" and getmetatable(value)
  if type(metatable) == "table" then name = metatable.__name end
  return "a " .. (type(name) == "string" and name or kind)
end

--- Raise for the argument 'name' of 'verb'.
---@param verb string
---@param name string
---@param expected string
---@param got any
local function bad_argument (verb, name, expected, got)
  misuse(string.format("bad argument '%s' to '%s' (%s expected, got %s)",
                       name, verb, expected, describe(got)))
end

--- Raise for the option 'name' of 'verb'.
---@param verb string
---@param name string
---@param expected string
---@param got any
local function bad_option (verb, name, expected, got)
  misuse(string.format("bad option '%s' to '%s' (%s expected, got %s)",
                       name, verb, expected, describe(got)))
end

--- Raise for a method that was called without its object.
---@param noun string  what the object is
---@param verb string
---@param got any
local function bad_self (noun, verb, got)
  misuse(string.format("bad call of '%s' (a %s expected, got %s; it is "
                       .. "written %s:%s(...))", verb, noun, describe(got),
                       noun, verb))
end

--- Edits that turn 'a' into 'b': a character put in, left out or replaced, or
--- two neighbours swapped.
---@param a string
---@param b string
---@return integer
local function distance (a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = {[0] = i}
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local least = math.min(last[j] + 1, row[j - 1] + 1,
                             last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1)
         and a:byte(i - 1) == b:byte(j) then
        least = math.min(least, before[j - 2] + 1)
      end
      row[j] = least
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name among the keys of 'sets' that 'name' was probably meant to be.
---@param name string
---@param ... table<string, any>
---@return string?
local function nearest (name, ...)
  local best, edits = nil, math.max(1, math.min(3, #name // 2)) + 1
  for _, set in next, {...} do
    for known in next, set do
      local d = type(known) == "string" and distance(name:lower(), known)
                or math.huge
      if d < edits or d == edits and best ~= nil and known < best then
        best, edits = known, d
      end
    end
  end
  return best
end

--- "a, b, c": the names among the keys of the sets.
---@param ... table<string, any>
---@return string
local function list_names (...)
  local there <const>, names <const> = {}, {}
  for _, set in next, {...} do
    for name in next, set do
      if type(name) == "string" and not there[name] then
        there[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return table.concat(names, ", ")
end

--- Raise for an option that is not among the keys of any of the sets.
---@param verb string
---@param name any
---@param ... table<string, any>
local function unknown_option (verb, name, ...)
  if type(name) ~= "string" then
    misuse(string.format("bad options to '%s' (named options expected, got "
                         .. "the key %s)", verb, describe(name)))
  end
  local near = nearest(name, ...)
  misuse(string.format(near and "unknown option '%s' to '%s' (did you mean "
                                .. "'%s'?)"
                       or "unknown option '%s' to '%s' (known are %s)",
                       name, verb, near or list_names(...)))
end

---@param options any
---@param verb string
---@param name? string
local function is_options (options, verb, name)
  if options ~= nil and type(options) ~= "table" then
    bad_argument(verb, name or "options", "a table", options)
  end
end

--- The tests below return nil, or what was expected.

---@param value any
---@return string?
local function size (value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or n < 1 then return "a positive integer" end
  if n > 0x7fffffff then return "an integer from 1 to 2147483647" end
end

---@param value any
---@return string?
local function flag (value)
  if type(value) ~= "boolean" then return "true or false" end
end

---@param value any
---@return string?
local function text (value)
  if type(value) ~= "string" then return "a string" end
end

--- An instant's distance: not negative, perhaps without end.
---@param value any
---@return string?
local function seconds (value)
  if type(value) == "number" and value >= 0 then return nil end
  return "a non-negative number of seconds"
end

--- A time in which something has to be done.
---@param value any
---@return string?
local function limit (value)
  if type(value) == "number" and value > 0 then return nil end
  return "a positive number of seconds"
end

---@param value any
---@return string?
local function count (value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or n < 0 or n > 0x7fffffff then return "a non-negative integer" end
end

--- Bytes, from the letter that ends a size.
---@type table<string, integer>
local UNITS <const> = { [""] = 1, K = 1 << 10, M = 1 << 20, G = 1 << 30 }

--- A size in bytes; nil if it is none.
---@param value any  an integer, or a text such as "64M" or "1.5 GiB"
---@return integer?
local function to_bytes (value)
  local n, unit = value, ""
  if type(value) == "string" then
    n, unit = value:upper():match "^%s*(%d*%.?%d*)%s*([KMG]?)I?B?%s*$"
    n = tonumber(n)
  end
  if type(n) ~= "number" or not (n > 0 and n * UNITS[unit] < 2^62) then
    return nil
  end
  local bytes = type(value) == "string" and math.floor(n * UNITS[unit]) or n
  return bytes >= 1 and math.tointeger(bytes) or nil
end

---@param value any
---@return string?
local function bytes (value)
  if to_bytes(value) == nil then
    return "a size in bytes, such as 1048576 or '64M',"
  end
end

---@param value any
---@return string?
local function priority (value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or n < -10 or n > 10 then return "an integer from -10 to 10" end
end

--- A test for one of a few words.
---@param ... string
---@return fun(value: any): string?
local function one_of (...)
  local words = {...}
  local expected = "'" .. table.concat(words, "' or '") .. "'"
  return function (value)
    for i = 1, #words do
      if words[i] == value then return nil end
    end
    return expected
  end
end

--- A list of values: its length is its 'n', or else its border.
---@param value any
---@return string?
local function list (value)
  if type(value) ~= "table" then return "an array" end
end

--- The function of a source text; or nil, and what is wrong with it.  Memory
--- that is short is nothing wrong with the text.
---@param source string
---@return function?
---@return string?
local function compile (source)
  local chunk, message = load(source, "=(chunk)", "t")
  if chunk == nil and message == "not enough memory" then error(message, 0) end
  return chunk, message
end

--- What a runspace can run: a function or the text of a chunk.
---@param value any
---@return string?  what was expected
---@return string?  what is wrong with a text
local function code (value)
  local kind = type(value)
  if kind == "function" then return nil end
  if kind ~= "string" then return "a function or the source of a chunk" end
  if value:byte(1) == 27 then
    return "a function or the source of a chunk", "compiled Lua"
  end
  local chunk, message = compile(value)
  if chunk ~= nil then return nil end
  return "source that compiles", message
end

--- Check the argument 'name' of 'verb' by 'code'.
---@param verb string
---@param name string
---@param value any
local function is_code (verb, name, value)
  if type(value) == "function" then return end
  local expected, wrong = code(value)
  if expected ~= nil then
    misuse(string.format("bad argument '%s' to '%s' (%s expected, got %s)",
                         name, verb, expected, wrong or describe(value)))
  end
end

local check = {
  bad_argument = bad_argument,
  bytes = bytes,
  count = count,
  limit = limit,
  priority = priority,
  to_bytes = to_bytes,
  bad_option = bad_option,
  bad_self = bad_self,
  code = code,
  compile = compile,
  describe = describe,
  flag = flag,
  is_code = is_code,
  is_options = is_options,
  list = list,
  misuse = misuse,
  nearest = nearest,
  one_of = one_of,
  seconds = seconds,
  size = size,
  text = text,
  unknown_option = unknown_option,
}

return check
