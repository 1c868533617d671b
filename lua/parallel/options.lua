-- SPDX-License-Identifier: MIT
--- Options of the verbs over items.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local limits = require "parallel.limits"
local pace = require "parallel.pace"

local getmetatable, ipairs, math, next, rawget, require, table, type =
  getmetatable, ipairs, math, next, rawget, require, table, type

--- Options that every verb over items accepts.
---@class parallel.CallOptions: parallel.InitialStateFields, parallel.Limits
---@field limit? integer|"auto"  jobs in flight; default: as many as keep the
---       pool busy.  A limit above the workers of the default pool opens a
---       pool with that many workers for the call
---@field chunk? integer    items to a job; default: by their measured cost
---@field arguments? any[]  passed to the function behind each item
---@field params? table<string, any>  further arguments, by the names of the
---       function's parameters; local variables of a chunk of source
---@field journal? string|parallel.JournalOptions  a file that keeps what
---       became of the items, for the next run
---@field name? string      the call's, in messages
---@field progress? parallel.ProgressOption
---       a line on the terminal, with a title; or a function that is called
---@field streams? table<string, boolean|function>  which streams of the items
---       are shown on the standard error, or handed to a function
---@field rate? parallel.Rate  items that begin within some seconds, at most
---@field limit_by? parallel.LimitBy  items of one key at work at a time

--- Names of the streams of a job.
local STREAMS <const> = {}
for _, name in ipairs(core.streams) do STREAMS[name] = true end

---@param value any
---@return string? expected
---@return string? wrong
local function streams (value)
  if type(value) ~= "table" then return "a table of streams" end
  for name, how in next, value do
    if STREAMS[name] == nil then
      local near = type(name) == "string" and check.nearest(name, STREAMS)
      return "a table of streams", "the name " .. check.describe(name)
             .. (near and "; did you mean '" .. near .. "'?" or "")
             .. "; they are "
             .. check.list_names(STREAMS):gsub(", ([^,]*)$", " and %1")
    elseif type(how) ~= "boolean" and type(how) ~= "function" then
      return "true, false or a function for the stream '" .. name .. "'"
    end
  end
end

---@param value any
---@return string? expected
---@return string? wrong
local function progress (value)
  return require("parallel.progress").test(value)
end

---@param value any
---@return string?
local function by_name (value)
  if type(value) ~= "table" then return "a table by name" end
end

--- Test an array, with or without its length in `n`.  Names as keys are
--- refused, since their values would be lost.
---@param value any
---@return string? expected
---@return string? wrong
local function by_position (value)
  if type(value) ~= "table" then return "an array" end
  for key in next, value do
    if key ~= "n" and (math.type(key) ~= "integer" or key < 1) then
      return "an array", "the key " .. check.describe(key)
             .. "; values by name are given as 'params'"
    end
  end
  if rawget(value, "n") ~= nil then return nil end
  local behind <const> = check.beyond(value)
  if behind ~= nil then
    return "an array", "one with a hole before the key "
           .. check.describe(behind) .. "; give its length as 'n'"
  end
end

---@param value any
---@return string? expected
---@return string? wrong
local function journal (value)
  return require("parallel.journal").test(value)
end

---@type table<string, fun(value: any): string?, string?>
local COMMON <const> = {
  arguments = by_position,
  chunk = check.bounds "chunk",
  journal = journal,
  limit = limits.or_auto "limit",
  name = check.name,
  params = by_name,
  progress = progress,
  streams = streams,
}
for name, test in next, limits.CALL do COMMON[name] = test end
for name, test in next, pace.tests do COMMON[name] = test end

--- Test an initial state, or a table of its fields, which are checked later.
---@param value any
---@return string?
local function initial_state (value)
  local kind <const> = type(value)
  if kind == "table" then return nil end
  local metatable <const> = kind == "userdata" and getmetatable(value)
  if type(metatable) ~= "table"
     or metatable.__name ~= "parallel.initial_state" then
    return "an initial state"
  end
end

--- Test a path.
---@param what string
---@return fun(value: any): string?
local function path_of (what)
  return function (value)
    if type(value) ~= "string" or value == ""
       or value:find("\0", 1, true) then
      return what
    end
  end
end

--- Test the seconds after which a silent worker is lost.
---@param value any
---@return string?
local function heartbeat (value)
  if math.type(value) == nil or value ~= value or value < 0.1 then
    return "a number of seconds from 0.1 on"
  end
end

--- Test an array of words.
---@param what string
---@return fun(value: any): string?, string?
local function words (what)
  return function (value)
    if type(value) ~= "table" then return what end
    local n = 0
    for key, word in next, value do
      n = n + 1
      if rawget(value, n) == nil then
        return what, "a table with the key " .. check.describe(key)
      end
      if type(word) ~= "string" or word == "" or word:find("\0", 1, true) then
        return what, "one with " .. check.describe(word)
      end
    end
    if n == 0 then return what, "an empty table" end
  end
end

--- Test a table of variables; one that is false is taken away.
---@param value any
---@return string? expected
---@return string? wrong
local function variables (value)
  local expected <const> = "a table of variables"
  if type(value) ~= "table" then return expected end
  for key, given in next, value do
    if type(key) ~= "string" or key == "" or key:find "[=\0]" then
      return expected, "the name " .. check.describe(key)
    end
    if given ~= false and type(given) ~= "number"
       and (type(given) ~= "string" or given:find("\0", 1, true)) then
      return "a string, or false, for the variable '" .. check.clean(key)
             .. "'", check.describe(given)
    end
  end
end

---@type table<string, fun(value: any): string?, string?>
local PLACE <const> = {
  broker = check.name,
  command = words "an array of words",
  cpath = check.text,
  cwd = path_of "the path of a directory",
  env = variables,
  functions = by_name,
  heartbeat = heartbeat,
  hosts = words "an array of names of hosts",
  init = check.code,
  initial_state = initial_state,
  isolation = check.one_of("thread", "process", "serial"),
  key = check.name,
  libs = check.list,
  modules = check.list,
  path = check.text,
  preload = by_name,
  queue = check.name,
  readable = words "an array of paths",
  reset = check.one_of("globals", "none", "fresh"),
  runspace = path_of "the path of a program",
  sandbox = function () end,  -- checked when the initial state is read
  ssh = words "an array of words",
  variables = by_name,
  writable = words "an array of paths",
}
for name, test in next, limits.RUNSPACE do PLACE[name] = test end

---@type {}
local NONE <const> = {}

--- Raise a message about an option that 'verb' does not know.  Options that
--- 'verb' refuses, by a text in 'own', are not proposed instead.
---@param verb string
---@param pool parallel.Pool?
---@param name any
---@param own table
local function unknown (verb, pool, name, own)
  local known <const> = {}
  for _, set in next, { COMMON, own, pool == nil and PLACE or NONE } do
    for option in next, set do
      if type(own[option]) ~= "string" then known[option] = true end
    end
  end
  check.unknown_option(verb, name, known)
end

--- Check the options given to 'verb': the common options, and its 'own'.  The
--- second result is false, or the initial state, if options give one.
---@param verb string
---@param pool parallel.Pool?  the pool whose method was called
---@param given any
---@param own? table<string, string|fun(value: any): string?>  tests; or a text
---       that refuses a common option, and says what to do instead
---@return table options
---@return false|parallel.InitialState|parallel.InitialStateOptions placed
local function read (verb, pool, given, own)
  if given == nil then return NONE, false end
  check.is_options(given, verb)
  own = own or NONE
  local placed = false
  for name, value in next, given do
    local test = own[name] or COMMON[name]
    if test == nil then
      test = PLACE[name]
      if test == nil then unknown(verb, pool, name, own) end
      if pool ~= nil then
        check.misuse("bad option '" .. name .. "' to '" .. verb .. "' (a pool "
                     .. "has its initial state already: give it to "
                     .. "parallel.pool, or call parallel." .. verb .. ")")
      end
      placed = true
    elseif type(test) == "string" then
      check.misuse("bad option '" .. name .. "' to '" .. verb
                   .. "' (none expected, got " .. check.describe(value) .. ": "
                   .. test .. ")")
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
  given = limits.check(verb, given)
  pace.check(verb, given)
  return given, placed and require("parallel.initial_state").read(verb, given)
end

--- Tell whether 'name' is an option of a verb that has the options 'own'
--- beside the common ones.
---@param name any
---@param own table
---@return boolean
local function is_known (name, own)
  return own[name] ~= nil or COMMON[name] ~= nil or PLACE[name] ~= nil
end

--- Return the option `streams` of a call: its own, or else its pool's.
---@param pool parallel.Pool
---@param given table?
---@return table?
local function streams_of (pool, given)
  return given or pool:streams()
end

--- Values of the option 'arguments', at most: the stack of Lua has room for a
--- million, which are not free.
local ARGUMENTS <const> = 250000

--- Return the values of the option 'arguments'.
---@param verb string
---@param options table
---@return ...
local function arguments (verb, options)
  local list = options.arguments
  if list == nil then return end
  local n = rawget(list, "n")
  if n == nil then
    n = #list
    if math.type(n) ~= "integer" or n < 0 then
      check.bad_option(verb, "arguments", "an array whose __len is a length",
                       n)
    end
  elseif check.size(n) ~= nil and n ~= 0 then
    check.bad_option(verb, "arguments", "an array whose field n is a length",
                     n)
  end
  if n > ARGUMENTS then
    check.bad_option(verb, "arguments",
                     ("an array of at most %d values"):format(ARGUMENTS), list)
  end
  return table.unpack(list, 1, n)
end

---@class parallel.CancelOptions
---@field grace? number  seconds that the job has to clean up, before it is
---       forced to end; default 0.1

local GRACE <const> = { grace = check.seconds }

--- Check the options of 'verb', and return `grace`.
---@param verb string
---@param given any
---@return number?
local function grace (verb, given)
  return check.read(verb, given, GRACE).grace
end

local options = {
  PLACE = PLACE,
  arguments = arguments,
  by_name = by_name,
  by_position = by_position,
  grace = grace,
  is_known = is_known,
  read = read,
  streams = streams,
  streams_of = streams_of,
}

return options
