-- SPDX-License-Identifier: MIT
--- What can be written behind a value of this module, for completion at the
--- prompt: the names that the manual has.
--
-- Their '__index' does not tell: it is a function, or a table that has what
-- the parts of the module use among themselves, too.

local parallel = require "parallel"

local raw_metatable = debug and debug.getmetatable or getmetatable
local next, rawequal, rawget, type = next, rawequal, rawget, type

--- Names and whether each is a function.
---@param functions string
---@param fields? string
---@return table<string, boolean>
local function list (functions, fields)
  local known = {}
  for name in functions:gmatch "%S+" do known[name] = true end
  for name in (fields or ""):gmatch "%S+" do known[name] = false end
  return known
end

local TASK <const> = list([[
  checkpoint debug emit error execute information output progress sleep verbose
  warning]], "attempt id index name stopping worker")

--- Of userdata, by the name of their type.
---@type table<string, table<string, boolean>>
local TYPES <const> = {
  ["parallel.job"] = list([[
    cancel fetch get info join off on records remove wait]], [[
    attempts created duration error finished id name queued reason started
    state streams worker]]),
  ["parallel.pool"] = list [[
    cancel close collect each filter info invoke map reduce run spawn submit
    try_submit]],
}

--- Of a value, without calling anything of it; nil for what is not ours.
---@param value any
---@return table<string, boolean>?
local function names (value)
  if rawequal(value, parallel.task) then return TASK end
  if type(value) ~= "userdata" then return nil end
  local metatable <const> = raw_metatable(value)
  return metatable and TYPES[rawget(metatable, "__name")]
end

--- What a table looks like at the prompt: one of ours, whose fields are made
--- when they are asked for, as a table that has them.
---@param value table
---@return table
local function shown (value)
  if not rawequal(value, parallel.task) then return value end
  local copy <const> = {}
  for name in next, TASK do copy[name] = value[name] end
  return copy
end

return { of = names, shown = shown }
