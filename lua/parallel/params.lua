-- SPDX-License-Identifier: MIT
--- Bind values to a function's parameters by their names.

local check = require "parallel.check"

local ipairs, math, next, string, table, type =
  ipairs, math, next, string, table, type
local debug <const> = debug

--- Words that cannot name a variable.
local KEYWORDS <const> = {}
for word in ([[and break do else elseif end false for function goto if in
               local nil not or repeat return then true until while]])
            :gmatch "%a+" do
  KEYWORDS[word] = true
end

--- Return the names of a function's parameters.
---@param verb string
---@param fn function
---@return string[]
local function names_of (verb, fn)
  local info = debug and debug.getinfo and debug.getinfo(fn, "uS")
  if info == nil or info.what == "C" then
    check.misuse("bad option 'params' to " .. verb .. " (a function with "
                 .. "named parameters expected, got "
                 .. (info and "a C function" or "no library 'debug'")
                 .. "; pass arguments instead)")
  end
  local names = {}
  for i = 1, info.nparams do
    names[i] = debug.getlocal(fn, i)
    if names[i] == nil or names[i]:sub(1, 1) == "(" then
      check.misuse("bad option 'params' to " .. verb .. " (the names of the "
                   .. "parameters were stripped from the function; pass "
                   .. "arguments instead)")
    end
  end
  return names
end

--- Tell whether a parameter can be left out: its name says so.
---@param name string
---@return boolean
local function is_optional (name)
  return name:find "^opt_." ~= nil
end

---@param names string[]
---@param first? integer
---@return string
local function listed (names, first)
  local list = table.concat(names, ", ", first or 1)
  return list ~= "" and list or "none"
end

---@param verb string
---@param params table
local function check_names (verb, params)
  for name in next, params do
    if type(name) ~= "string" then
      check.misuse("bad option 'params' to " .. verb .. " (names of "
                   .. "parameters expected as keys, got "
                   .. check.describe(name) .. ")")
    end
  end
end

--- Put the values of 'params' in the order of the function's parameters.  The
--- first 'leading' parameters are left out: they are given by position.  Those
--- whose names begin with "opt_" are nil where 'params' has none.
---@param verb string
---@param fn function
---@param params table<string, any>
---@param leading integer?  nil: all before the first one that 'params' names
---@return table list
---@return string[] names  of the values in the list
local function bind_function (verb, fn, params, leading)
  local names = names_of(verb, fn)
  local places = {}
  for i = 1, #names do places[names[i]] = i end
  if leading == nil then
    leading = #names
    for i = #names, 1, -1 do
      if params[names[i]] ~= nil then leading = i - 1 end
    end
    if next(params) == nil then leading = #names end
    -- What can be left out in front of the first named one is no item's.
    while leading > 1 and leading < #names and is_optional(names[leading]) do
      leading = leading - 1
    end
    if leading < 1 and #names > 0 then leading = 1 end
  end
  for name in next, params do
    local place = places[name]
    if place == nil then
      local near = places["opt_" .. name] and "opt_" .. name
                   or check.nearest(name, places)
      check.misuse("unknown parameter '" .. check.clean(name)
                   .. "' in 'params' to " .. verb
                   .. (near and " (did you mean '" .. near .. "'?)" or "")
                   .. "; the function has: " .. listed(names))
    elseif place <= leading then
      check.misuse("parameter '" .. name .. "' in 'params' to " .. verb
                   .. " is given already, by position; by name there are: "
                   .. listed(names, leading + 1))
    end
  end
  local list, bound = { n = 0 }, {}
  for i = leading + 1, #names do
    local value = params[names[i]]
    if value == nil and not is_optional(names[i]) then
      check.misuse("missing parameter '" .. names[i] .. "' in 'params' to "
                   .. verb .. "; the function has: " .. listed(names))
    end
    list.n = list.n + 1
    list[list.n], bound[list.n] = value, names[i]
  end
  return list, bound
end

--- Put a declaration of local variables with the names of 'params' in front of
--- a source text, on its first line.
---@param verb string
---@param source string
---@param params table<string, any>
---@param leading integer?
---@return string source
---@return table list
---@return string[] names  of the values in the list
local function bind_source (verb, source, params, leading)
  local names = {}
  for name in next, params do
    if not name:find "^[%a_][%w_]*$" or KEYWORDS[name] then
      check.misuse("bad name '" .. check.clean(name) .. "' in 'params' to "
                   .. verb .. " (the name of a variable expected)")
    end
    names[#names + 1] = name
  end
  table.sort(names)
  if #names > 150 then
    check.misuse("bad option 'params' to " .. verb .. " (at most 150 names "
                 .. "for a chunk, got " .. #names .. ")")
  end
  local list = { n = #names }
  for i, name in ipairs(names) do list[i] = params[name] end
  if #names == 0 then return source, list, names end
  -- The values follow the positional arguments in '...', so blanks stand for
  -- those in the list of names.
  local blanks = string.rep("_, ", leading or 1)
  return "local " .. blanks .. table.concat(names, ", ") .. " = ...; "
         .. source, list, names
end

--- Bind 'params' to the parameters of 'fn' by name.
---@param verb string
---@param fn function|string
---@param params table<string, any>
---@param leading? integer  number of parameters that are given by position
---@param whose? string  text behind the verb in messages: " (key 'db1')"
---@return function|string fn  the function, or the changed source
---@return table list          the values to call it with, in order, with `n`
---@return string[] names      of these values
local function bind (verb, fn, params, leading, whose)
  verb = whose and verb .. whose or "'" .. verb .. "'"
  check_names(verb, params)
  if type(fn) == "string" then
    return bind_source(verb, fn, params, leading)
  end
  return fn, bind_function(verb, fn, params, leading)
end

--- Divide a table of arguments into the arguments by position, whose keys are
--- integers, and the arguments by name.  A field `n` that is no less than the
--- largest integer key is the number of the first.
---@param given table
---@return table list   with `n`
---@return table named
local function split (given)
  local list, named = { n = 0 }, {}
  for key, value in next, given do
    if math.type(key) == "integer" and key > 0 then
      list[key] = value
      if key > list.n then list.n = key end
    else
      named[key] = value
    end
  end
  if list.n > 0 and math.type(named.n) == "integer"
     and named.n >= list.n then
    list.n, named.n = named.n, nil
  end
  return list, named
end

return { bind = bind, split = split }
