-- SPDX-License-Identifier: MIT
--- Hints: what may help a job that has not found what its host has.

local _, core = ...  -- parallel.core

local debug, next, package, rawget, type =
  debug, next, package, rawget, type
local globals <const> = _G

--- Say where an option belongs: the call takes it, or a pool.
---@param call boolean?  the call takes an initial state itself
---@return string
local function place (call)
  return call and "" or " to parallel.pool"
end

--- Make the hint for a global of the host that a function did not find.
---@param name string
---@param call boolean?
---@return string?
local function of_global (name, call)
  local value = globals[name]
  -- Every runspace has '_G', so the job has taken it away itself.
  if value == nil or value == globals then return nil end
  local why <const>, remedy_of <const> = core.refusal(value)
  if why ~= nil then
    return "'" .. name .. "' is a global of the host that did not travel: "
           .. why .. "; "
           .. (remedy_of or "make it in the job, or in 'init' of a pool")
  end
  local option <const> = type(value) == "function" and "functions"
                         or "variables"
  local remedy = "pass " .. option .. " = {" .. name .. " = " .. name .. "}"
                 .. place(call)
  for module, loaded in next, package and package.loaded or {} do
    if loaded == value and module ~= "_G" then
      remedy = "write local " .. name .. " = require \"" .. module .. "\""
    end
  end
  return "'" .. name .. "' is a global of the host and did not travel, since "
         .. "no function but one of a module reads it by this name, or "
         .. "'globals' is false; " .. remedy
end

--- Libraries of Lua.  Their own functions are in C.
local LIBRARIES <const> = { "string", "table", "math", "os", "io", "utf8",
                            "coroutine" }

--- Make the hint for a function that the script has added to a library.
---@param name string
---@param method boolean  of a string
---@param call boolean?
---@return string?
local function of_member (name, method, call)
  if debug == nil then return nil end
  for i = 1, method and 1 or #LIBRARIES do
    local library <const> = LIBRARIES[i]
    local known <const> = package and package.loaded[library]
    local value <const> = type(known) == "table" and rawget(known, name)
    if type(value) == "function"
       and debug.getinfo(value, "S").what ~= "C" then
      return ("'%s.%s' was made by the script, and a runspace has a '%s' of "
              .. "its own; write local %s = %s.%s and call %s(...), which "
              .. "travels, or pass init = function () %s.%s = %s end%s")
             :format(library, name, library, name, library, name, name,
                     library, name, name, place(call))
    end
  end
end

--- What is known of a module that a job did not find, by its name and the
--- paths of the host, since many items may ask.
local asked, answer

--- Make the hint for a module that a job did not find.
---@param name string
---@param call boolean?
---@return string?
local function of_module (name, call)
  if package == nil then return nil end
  local preload <const> = package.preload
  if type(preload) == "table" and rawget(preload, name) ~= nil then
    return ("'%s' is in 'package.preload' of the host, which does not travel; "
            .. "pass preload = {[\"%s\"] = package.preload[\"%s\"]}%s")
           :format(name, name, name, place(call))
  end
  local path <const>, cpath <const> = package.path, package.cpath
  if type(path) ~= "string" or type(cpath) ~= "string"
     or type(package.searchpath) ~= "function" then
    return nil
  end
  local question <const> = name .. "\n" .. path .. "\n" .. cpath
  if question ~= asked then
    asked = question
    local file, field = package.searchpath(name, path), "path"
    if file == nil then
      file, field = package.searchpath(name, cpath), "cpath"
    end
    answer = file and ("the host finds '%s' in %s; runspaces look where "
                       .. "'package.%s' pointed when their pool was opened: "
                       .. "set it before the first call, or pass %s = "
                       .. "package.%s"):format(name, core.escape(file), field,
                                               field, field)
  end
  return answer and answer .. place(call)
end

--- Find what may help.
---@param message any  the error of the job
---@param call boolean?  the call takes an initial state itself
---@return string? hint
local function hint (message, call)
  if type(message) ~= "string" then return nil end
  local kind <const>, name <const> =
    message:match "a nil value %((%l+) '([%a_][%w_]*)'%)"
  if kind == "global" then return of_global(name, call) end
  if kind == "method" or kind == "field" then
    return of_member(name, kind == "method", call)
  end
  local module <const> = message:match "module '([^'\n]+)' not found:"
  return module and of_module(module, call)
end

return hint
