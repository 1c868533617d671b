-- SPDX-License-Identifier: MIT
--- Initial states: with what a runspace starts.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local math, next, package, type = math, next, package, type

--- Fields of an initial state.  A runspace is seeded in this order: libraries,
--- path and cpath, preloads, variables and functions, modules, init.
---@class parallel.InitialStateOptions
---@field libs? string[]     names of Lua's libraries; default, all of them
---@field path? string       `package.path`; default, the caller's
---@field cpath? string      `package.cpath`; default, the caller's
---@field preload? table<string, function|string>
---       loaders, or the source of modules, by the name that `require` takes
---@field variables? table<string, any>  globals
---@field functions? table<string, function>  globals that are functions
---@field modules? string[]  required before the first job
---@field init? function|string  runs last, with the runspace's own globals
---@field sandbox? true|parallel.Sandbox  limits of jobs; modules and init run
---       without them

--- Permissions of jobs; `sandbox = true` gives none.  A sandbox guards against
--- mistakes: a thread is no security boundary.
---@class parallel.Sandbox
---@field files? "none"|"read"|"all"  use of files; default "none"
---@field programs? boolean   os.execute, io.popen, task.execute
---@field bytecode? boolean   compiled chunks
---@field debug? boolean      the library 'debug'
---@field c_modules? boolean|string[]  C modules that `require` may load beside
---       those that are loaded

--- Fields of an initial state, and further options for it that a verb accepts.
---@class parallel.InitialStateFields: parallel.InitialStateOptions
---@field initial_state? parallel.InitialState|parallel.InitialStateOptions
---@field reset? "globals"|"none"|"fresh"  what becomes of a job's globals
---@field isolation? "thread"|"process"|"serial"  where the runspaces are;
---       "serial": one, on the thread of the host; default "thread"
---@field heartbeat? number  seconds without a sign of life after which a
---       process is lost, from 0.1 on; default 10.  math.huge: never
---@field runspace? string  the program of the processes; default, the one that
---       runs, or the installed `runspace`; or that on `hosts`
---@field command? string[]  the words of a command that starts a worker, in
---       the place of a thread: what it runs, at last, is `runspace --worker`
---@field hosts? string[]  where the workers are, reached by ssh: "web1",
---       "admin@web1", or "web1:8", for 8 workers
---@field ssh? string[]  the words before a host's name; default {"ssh"}
---@field sandbox? true|"strict"|parallel.Sandbox  limits of jobs; "strict": a
---       wall around each process
---@field readable? string[]  files and directories that pass the wall
---@field writable? string[]  the same, to be changed, too
---@field cwd? string       the working directory of the processes
---@field env? table<string, string|number|false>  variables of the processes,
---       beside those of this one; false takes one away

---@type table<string, true>
local LIBRARIES <const> = {
  base = true, package = true, coroutine = true, table = true, io = true,
  os = true, string = true, math = true, utf8 = true, debug = true,
}

--- Raise a message about a field; 'what' is a path such as "variables.x".
---@param verb string
---@param what string
---@param expected string
---@param got string  in words
local function bad (verb, what, expected, got)
  check.misuse("bad option '" .. what .. "' to '" .. verb .. "' (" .. expected
               .. " expected, got " .. got .. ")")
end

---@param verb string
---@param what string
---@param list any
---@return string[] copy
local function names (verb, what, list)
  if type(list) ~= "table" then
    bad(verb, what, "an array of names", check.describe(list))
  end
  local copy <const> = {}
  for i = 1, #list do
    if type(list[i]) ~= "string" then
      bad(verb, what .. "[" .. i .. "]", "a name", check.describe(list[i]))
    end
    copy[i] = list[i]
  end
  for key in next, list do
    if math.type(key) ~= "integer" or key < 1 or key > #copy then
      bad(verb, what, "an array of names", "the key " .. check.describe(key))
    end
  end
  return copy
end

---@param verb string
---@param what string
---@param map any
---@param test? fun(value: any): string?, string?
---@return table<string, any> copy
local function named (verb, what, map, test)
  if type(map) ~= "table" then
    bad(verb, what, "a table by name", check.describe(map))
  end
  local copy <const> = {}
  for name, value in next, map do
    if type(name) ~= "string" then
      bad(verb, what, "a table by name", "the key " .. check.describe(name))
    end
    if test ~= nil then
      local expected, wrong = test(value)
      if expected ~= nil then
        bad(verb, what .. "." .. check.clean(name), expected,
            wrong or check.describe(value))
      end
    end
    copy[name] = value
  end
  return copy
end

--- Name the word that was probably meant, for the end of a message; "" if no
--- word is near.
---@param given any
---@param ... table<string, any>
---@return string
local function hint (given, ...)
  local near <const> = type(given) == "string" and check.nearest(given, ...)
  return near and "; did you mean '" .. near .. "'?" or ""
end

---@param verb string
---@param list any
---@return string[]
local function libraries (verb, list)
  local copy <const> = names(verb, "libs", list)
  for i = 1, #copy do
    if not LIBRARIES[copy[i]] then
      check.misuse("bad option 'libs' to '" .. verb
                   .. "' (Lua has no library '" .. copy[i] .. "'"
                   .. hint(copy[i], LIBRARIES) .. ")")
    end
  end
  return copy
end

---@param value any
---@return string?
local function a_function (value)
  if type(value) ~= "function" then return "a function" end
end

--- Test a module's loader: a function, or source text.
---@param value any
---@return string?, string?
local function a_loader (value)
  local expected, wrong = check.code(value)
  if expected ~= nil and wrong == nil then
    expected = "a function or the source of a module"
  end
  return expected, wrong
end

--- RS_FILES_ of runspace.h
---@type table<string, integer>
local FILES <const> = { all = 0, read = 1, none = 2 }

--- RS_FORBID_ of runspace.h, by the name of the permission that lifts it.
---@type table<string, integer>
local FORBID <const> = { programs = 1, bytecode = 2, debug = 4,
                         c_modules = 8 }

--- Expected values of fields of a sandbox that take more than true or false.
---@type table<string, string>
local SANDBOX <const> = {
  files = "'none', 'read' or 'all'",
  c_modules = "true, false or an array of names",
}

--- Read the option `sandbox`, for `core`.
---@param verb string
---@param what string
---@param value any
---@return parallel.core.Sandbox
local function sandbox (verb, what, value)
  if value == true then value = {} end
  if value == "strict" then
    check.misuse("bad option '" .. what .. "' to '" .. verb .. "' (\"strict\" "
                 .. "is no part of an initial state: give it to the pool, or "
                 .. "to the verb, with isolation = \"process\")")
  elseif type(value) ~= "table" then
    bad(verb, what, "true, \"strict\", or a table of what is allowed,",
        check.describe(value))
  end
  local result <const> = { files = FILES.none, forbid = 0 }
  for name, given in next, value do
    if name ~= "files" and FORBID[name] == nil then
      bad(verb, what, "a table of what is allowed", "the field "
          .. check.describe(name) .. hint(name, FORBID, SANDBOX)
          .. "; they are bytecode, c_modules, debug, files and programs")
    end
    local field <const> = what .. "." .. name
    if name == "files" then
      result.files = FILES[given]
        or bad(verb, field, SANDBOX.files,
               check.describe(given) .. hint(given, FILES))
    elseif name == "c_modules" and type(given) == "table" then
      result.c_modules = names(verb, field, given)
    elseif type(given) ~= "boolean" then
      bad(verb, field, SANDBOX[name] or "true or false", check.describe(given))
    end
  end
  for name, bit in next, FORBID do
    if value[name] ~= true then result.forbid = result.forbid | bit end
  end
  return result
end

---@type table<string, fun(verb: string, what: string, value: any): any>
local FIELDS <const> = {
  sandbox = sandbox,
  libs = function (verb, _, value) return libraries(verb, value) end,
  modules = names,
  variables = named,
  functions = function (verb, what, value)
    return named(verb, what, value, a_function)
  end,
  preload = function (verb, what, value)
    return named(verb, what, value, a_loader)
  end,
  path = function (verb, what, value)
    if type(value) == "string" then return value end
    bad(verb, what, "a string", check.describe(value))
  end,
  init = function (verb, what, value)
    local expected, wrong = check.code(value)
    if expected ~= nil then
      bad(verb, what, expected, wrong or check.describe(value))
    end
    return value
  end,
}
FIELDS.cpath = FIELDS.path

--- Tell whether runspaces have the library 'package': 'libs' names it, or is
--- nil.
---@param libs string[]?
---@return boolean
local function has_package (libs)
  if libs == nil then return true end
  for i = 1, #libs do
    if libs[i] == "package" then return true end
  end
  return false
end

--- Check the fields in 'given', and copy them for `core`.
---@param verb string
---@param given table
---@return parallel.InitialStateOptions
local function fields_of (verb, given)
  local spec <const> = {}
  for name, read in next, FIELDS do
    if given[name] ~= nil then spec[name] = read(verb, name, given[name]) end
  end
  for name in next, spec.functions or {} do
    if spec.variables ~= nil and spec.variables[name] ~= nil then
      check.misuse("bad option 'functions." .. check.clean(name) .. "' to '"
                   .. verb .. "' ('variables' has that name too)")
    end
  end
  if package ~= nil and has_package(spec.libs) then
    spec.path = spec.path or package.path
    spec.cpath = spec.cpath or package.cpath
  elseif spec.modules ~= nil and #spec.modules > 0 then
    check.misuse("bad option 'modules' to '" .. verb
                 .. "' ('libs' leaves 'package' out)")
  end
  return spec
end

--- Tell whether a field is given.  sandbox = "strict" is none: the pool's.
---@param given table
---@param name string
---@return boolean
local function has_field (given, name)
  return given[name] ~= nil
     and not (name == "sandbox" and given[name] == "strict")
end

--- Read the initial state that the options of 'verb' give: the option
--- `initial_state`, or the fields of one.
---@param verb string
---@param given table
---@return parallel.InitialState|parallel.InitialStateOptions
local function read (verb, given)
  local state = given.initial_state
  if state == nil then
    local own <const> = {}
    for name in next, FIELDS do
      if has_field(given, name) then own[name] = given[name] end
    end
    return fields_of(verb, own)
  end
  for name in next, FIELDS do
    if has_field(given, name) then
      check.misuse("bad option '" .. name .. "' to '" .. verb
                   .. "' ('initial_state' is given too)")
    end
  end
  if type(state) == "userdata" then return state end
  for name in next, state do
    if FIELDS[name] == nil then check.unknown_option(verb, name, FIELDS) end
  end
  return fields_of(verb, state)
end

--- Make an initial state of what 'read' returned, if it is none yet.
---@param said parallel.InitialState|parallel.InitialStateOptions
---@return parallel.InitialState
local function make (said)
  return type(said) == "userdata" and said or core.initial_state(said)
end

---@param spec any
---@return parallel.InitialStateOptions
local function prepare (spec)
  if type(spec) ~= "table" then
    check.bad_argument("initial_state", "spec", "a table", spec)
  end
  for name in next, spec do
    if FIELDS[name] == nil then
      check.unknown_option("initial_state", name, FIELDS)
    end
  end
  return fields_of("initial_state", spec)
end

--- Make an initial state, with which any number of pools can be opened.
--- Values are copied now, so that later changes do not reach the runspaces.  A
--- value that cannot travel is refused now.
---@type fun(spec: parallel.InitialStateOptions): parallel.InitialState
local initial_state =
  check.public("parallel.initial_state{modules =, ...}", 1,
               core.initial_state, prepare)

return {
  functions = { initial_state = initial_state },
  make = make,
  read = read,
}
