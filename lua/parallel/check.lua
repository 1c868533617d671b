-- SPDX-License-Identifier: MIT
--- Say what is wrong with an argument, at the place that passed it.

local _, core = ...  -- parallel.core

local error, getmetatable, load, math, next, rawget, select, string, table,
      tonumber, tostring, type =
  error, getmetatable, load, math, next, rawget, select, string, table,
  tonumber, tostring, type

--- Raise a message with the position of the code that called into the module,
--- however deep in the module the mistake was seen.  The function is in C, so
--- that it works in runspaces without the library 'debug'.
---@type fun(message: string)
local misuse <const> = core.misuse

--- Make a text fit for a message: short, on one line, and without control
--- characters, which a terminal would obey.
---@type fun(text: string): string
local clean <const> = core.clean

--- Describe a value in a few words: "nil", "-1", "'abc'", "a table".
---@param value any
---@return string
local function describe (value)
  local kind = type(value)
  if kind == "nil" or kind == "number" or kind == "boolean" then
    return tostring(value)
  end
  if kind == "string" then return "'" .. clean(value) .. "'" end
  local name
  local metatable = kind ~= "function" and getmetatable(value)
  if type(metatable) == "table" then name = rawget(metatable, "__name") end
  return "a " .. (type(name) == "string" and clean(name) or kind)
end

--- Raise a message about the argument 'name' of 'verb'.
---@param verb string
---@param name string
---@param expected string
---@param got any
local function bad_argument (verb, name, expected, got)
  misuse(string.format("bad argument '%s' to '%s' (%s expected, got %s)",
                       name, verb, expected, describe(got)))
end

--- Raise a message about the option 'name' of 'verb'.
---@param verb string
---@param name string
---@param expected string
---@param got any
local function bad_option (verb, name, expected, got)
  misuse(string.format("bad option '%s' to '%s' (%s expected, got %s)",
                       name, verb, expected, describe(got)))
end

--- Raise a message about a method that was called without its object.
---@param noun string  the kind of object: "job"
---@param verb string
---@param got any
local function bad_self (noun, verb, got)
  misuse(string.format("bad call of '%s' (a %s expected, got %s; it is "
                       .. "written %s:%s(...))", verb, noun, describe(got),
                       noun, verb))
end

--- Tell whether a value is the module itself.
---@param value any
---@return boolean
local function is_module (value)
  return type(value) == "table" and rawget(value, "cpus") == core.cpus
         and value ~= core
end

--- Raise a message about the first value beyond those that a function takes.
---@param usage string
---@param verb string
---@param most integer
---@param own integer  1 for a method, whose object is not counted
---@param ... any
local function refuse_more (usage, verb, most, own, ...)
  for i = most + 1, select("#", ...) do
    local value <const> = select(i, ...)
    if value ~= nil then
      misuse(string.format("bad argument %d to '%s' (none expected, got %s; "
                           .. "it is written %s)", i - own, verb,
                           describe(value), usage))
    end
  end
end

--- Make a public function of the module from two halves: 'prepare' checks the
--- arguments and returns the values that 'act' takes.  The public function is
--- in C.  It raises the errors of 'prepare' again, so that a traceback of them
--- has no frame of the Lua part of the module.
---@param usage string  how a call is written: "pool:map(items, fn [, opts])"
---@param most number   values that a call may pass, with a method's object
---@param act fun(...: any): ...
---@param prepare? fun(...: any): ...  default: returns its arguments
---@param is_self? fun(value: any): boolean  tests the object of a method
---@return fun(...: any): ...
local function public (usage, most, act, prepare, is_self)
  local noun <const>, mark <const>, verb <const> =
    usage:match "^(%a+)([.:])([%a_]+)"
  local own <const> = mark == ":" and 1 or 0
  local function look (...)
    if is_self ~= nil and not is_self((...)) then
      bad_self(noun, verb, (...))
    elseif own == 0 and is_module((...)) then
      misuse("bad call of '" .. verb .. "' (got the module itself, by a "
             .. "colon; it is written " .. usage .. ")")
    end
    if select("#", ...) > most then
      refuse_more(usage, verb, most, own, ...)
    end
    if prepare == nil then return ... end
    return prepare(...)
  end
  return core.public(look, act)
end

--- Count the edits that turn 'a' into 'b'.  An edit puts in, leaves out or
--- replaces a character, or swaps two neighbours.
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

--- Bytes of a name for which a similar one is looked up, at most.
local LONGEST <const> = 64

--- Find the name among the keys of the sets that 'name' was probably meant to
--- be.  It is at most 3 edits away, and fewer if both names are short.
---@param name string
---@param ... table<string, any>
---@return string?
local function nearest (name, ...)
  if #name < 2 or #name > LONGEST then return nil end
  local best, edits = nil, 4
  for _, set in next, {...} do
    for known in next, set do
      if type(known) == "string" and #known > 1 and #known <= LONGEST then
        local d <const> = distance(name:lower(), known:lower())
        if 4 * d < #name + #known
           and (d < edits or d == edits and best ~= nil and known < best) then
          best, edits = known, d
        end
      end
    end
  end
  return best
end

--- List the names among the keys of the sets: "a, b, c".
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

--- Raise a message about an option that is among the keys of none of the sets.
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
                       clean(name), verb, near or list_names(...)))
end

---@param options any
---@param verb string
---@param name? string
local function is_options (options, verb, name)
  if options ~= nil and type(options) ~= "table" then
    bad_argument(verb, name or "options", "a table", options)
  end
end

--- Tests of values: each returns nil, or a text that says what is expected.

---@param value any
---@return string?
local function size (value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n or n < 1 then return "a positive integer" end
  if n > 0x7fffffff then return "an integer from 1 to 2147483647" end
end

--- Make the test of an option that is a number or a flag: the bounds are those
--- of the library.
---@param name string  one of those in `core.options`
---@return fun(value: any): string?
local function bounds (name)
  return function (value) return core.expected(name, value) end
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

--- Test a name: a text that is not empty.
---@param value any
---@return string?
local function name (value)
  if type(value) ~= "string" then return "a string" end
  if value == "" then return "a string that is not empty" end
  if value:find("\0", 1, true) then return "a string without '\\0'" end
end

--- Test a time to wait: 0 or more seconds, and 'math.huge' for no limit.
---@param value any
---@return string?
local function seconds (value)
  if type(value) == "number" and value >= 0 then return nil end
  return "a non-negative number of seconds"
end

--- Bytes by the letter that ends a size.
---@type table<string, integer>
local UNITS <const> = { [""] = 1, K = 1 << 10, M = 1 << 20, G = 1 << 30 }

--- Turn a size into bytes; nil if the value is no size.
---@param value any  an integer, or a text such as "64M" or "1.5 GiB"
---@return integer?
local function to_bytes (value)
  if type(value) == "string" then
    local n <const>, unit <const> =
      value:upper():match "^%s*(%d*%.?%d*)%s*([KMG]?)I?B?%s*$"
    local number <const> = tonumber(n)
    value = number and math.floor(number * (UNITS[unit] + 0.0))
  end
  local n <const> = type(value) == "number" and math.tointeger(value)
  return n and n >= 1 and n or nil
end

---@param value any
---@return string?
local function bytes (value)
  if to_bytes(value) == nil then
    return "a size in bytes, such as 1048576 or '64M',"
  end
end

--- Make a test for a value that is one of a few words.
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

--- Test an array.  Its length is its field 'n', or else its border.
---@param value any
---@return string?
local function list (value)
  if type(value) ~= "table" then return "an array" end
end

--- Compile a source text.  Returns the function; or nil, and what is wrong
--- with the text.  Raises when there is no memory.
---@param source string
---@return function?
---@return string?
local function compile (source)
  local chunk, message = load(source, "=(chunk)", "t")
  if chunk == nil and message == "not enough memory" then error(message, 0) end
  return chunk, message
end

--- Find a key of a table that is no array, with or without a field 'n'.
---@param value table
---@return any key  one that 'ipairs' does not reach; nil if there is none
local function beyond (value)
  local n = 0
  while rawget(value, n + 1) ~= nil do n = n + 1 end
  for key in next, value do
    if key ~= "n" and (math.type(key) ~= "integer" or key < 1 or key > n) then
      return key
    end
  end
end

--- Test code that a runspace can run: a function or the text of a chunk.
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
  message = core.escape(message)
  if value:find "^[%a_][%w_.]*$" then
    message = message .. "; for a function of that name pass it without quotes"
  end
  return "source that compiles", message
end

--- Raise unless the argument of 'verb' is code that a runspace can run.
---@param verb string
---@param argument string
---@param value any
---@param hint? string  what the caller may have meant
local function is_code (verb, argument, value, hint)
  if type(value) == "function" then return end
  local expected, wrong = code(value)
  if expected ~= nil then
    if is_module(value) then
      hint = "the module is called with a dot: parallel." .. verb .. "(...)"
    end
    misuse(string.format("bad argument '%s' to '%s' (%s expected, got %s%s)",
                         argument, verb, expected, wrong or describe(value),
                         hint and "; " .. hint or ""))
  end
end

--- Tell whether a value can be items, and is not the module.
---@param value any
---@return boolean
local function is_list (value)
  return type(value) == "table" and not is_module(value)
end

--- Raise if the items and the function of a call are swapped.
---@param verb string
---@param items any
---@param argument string  name of the function
---@param fn any
local function in_order (verb, items, argument, fn)
  local kind <const> = type(items)
  if (kind == "function" or kind == "string") and is_list(fn) then
    misuse(string.format("bad argument '%s' to '%s' (a function or the source "
                         .. "of a chunk expected, got %s; the items come "
                         .. "first: parallel.%s(items, %s))", argument, verb,
                         describe(fn), verb, argument))
  end
end

---@type table<string, integer>
local RANK <const> = { number = 1, string = 2, boolean = 3 }

--- Compare keys, to sort them: numbers come first, then strings, false, true,
--- and values of other types, in no order among themselves.
---@param a any
---@param b any
---@return boolean
local function precedes (a, b)
  local x <const>, y <const> = RANK[type(a)] or 4, RANK[type(b)] or 4
  if x ~= y then return x < y end
  if x <= 2 then return a < b end
  return x == 3 and not a and b
end

--- Check a table of options, each by its test in 'own'.
---@param verb string
---@param given any
---@param own table<string, fun(value: any): string?, string?>
---@return table options
local function read (verb, given, own)
  if given == nil then return {} end
  if type(given) ~= "table" then
    bad_argument(verb, "options", "a table", given)
  end
  for option, value in next, given do
    local test <const> = own[option]
    if test == nil then unknown_option(verb, option, own) end
    local expected <const>, wrong <const> = test(value)
    if expected ~= nil then
      misuse(string.format("bad option '%s' to '%s' (%s expected, got %s)",
                           option, verb, expected, wrong or describe(value)))
    end
  end
  return given
end

local check = {
  bad_argument = bad_argument,
  beyond = beyond,
  clean = clean,
  in_order = in_order,
  is_list = is_list,
  is_module = is_module,
  name = name,
  precedes = precedes,
  public = public,
  read = read,
  bounds = bounds,
  bytes = bytes,
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
  list_names = list_names,
  misuse = misuse,
  nearest = nearest,
  one_of = one_of,
  seconds = seconds,
  size = size,
  text = text,
  unknown_option = unknown_option,
}

return check
