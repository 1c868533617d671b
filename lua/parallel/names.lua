-- SPDX-License-Identifier: MIT
--- Names of fields and methods of this module's values, for completion at the
--- prompt: the names that are in the manual.
--
-- The '__index' of a value is no source of them: it is a function, or a table
-- that also has the methods which only the module itself uses.

local _, core = ...  -- parallel.core
local parallel = require "parallel"

local raw_metatable = debug and debug.getmetatable or getmetatable
local next, rawequal, rawget, table, type =
  next, rawequal, rawget, table, type

--- Make a table of names: true for functions, false for fields.
---@param functions string
---@param fields? string
---@return table<string, boolean>
local function list (functions, fields)
  local known = {}
  for name in functions:gmatch "%S+" do known[name] = true end
  for name in (fields or ""):gmatch "%S+" do known[name] = false end
  return known
end

local TASK <const> = list("checkpoint emit execute sleep "
                          .. table.concat(core.streams, " "),
                          "attempt id index name stopping worker")

--- Names of the fields and methods of userdata, by the name of their type.
---@type table<string, table<string, boolean>>
local TYPES <const> = {
  ["parallel.job"] = list([[
    cancel fetch get info join off on once records remove traceback
    wait]], [[
    attempts created duration error finished finished_at host id name queued
    reason started started_at state streams worker]]),
  ["parallel.pool"] = list [[
    cancel close collect each everywhere filter group info invoke map pause
    reduce resize resume run sh spawn submit try_submit]],
}

--- Return the names of a value's fields and methods, without calling a
--- metamethod; nil for values that are not of this module.
---@param value any
---@return table<string, boolean>?
local function names (value)
  if rawequal(value, parallel.task) then return TASK end
  if type(value) ~= "userdata" then return nil end
  local metatable <const> = raw_metatable(value)
  return metatable and TYPES[rawget(metatable, "__name")]
end

--- Return the table that the prompt shows for a table.  For 'parallel.task',
--- whose fields are made when they are asked for, that is a copy with all of
--- them; for others it is the table itself.
---@param value table
---@return table
local function shown (value)
  if not rawequal(value, parallel.task) then return value end
  local copy <const> = {}
  for name in next, TASK do copy[name] = value[name] end
  return copy
end

return { of = names, shown = shown }
