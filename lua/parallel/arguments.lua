-- SPDX-License-Identifier: MIT
--- Lists of arguments, and what refusals call the values in them.

local setmetatable, table, type = setmetatable, table, type

--- What refusals call the values of a list, by place: the name of a parameter;
--- another number than the place; nothing (false).  A value of a list that is
--- not here, or of a place that has none, goes by its number.
---@alias parallel.Names table<integer, string|integer|false>
---@type table<table, parallel.Names>
local given <const> = setmetatable({}, { __mode = "k" })

--- Put the values of `more`, whose names are in `names`, behind those of
--- `list`.
---@param list table    with `n`
---@param more table    with `n`
---@param names string[]
local function append (list, more, names)
  local all <const> = given[list] or {}
  table.move(names, 1, more.n, list.n + 1, all)
  table.move(more, 1, more.n, list.n + 1, list)
  list.n = list.n + more.n
  given[list] = all
end

---@param list table
---@return parallel.Names?
local function names_in (list) return given[list] end

--- Let the values of `list` have these names.
---@param list table
---@param names parallel.Names?
local function set_names (list, names) given[list] = names end

--- What a refusal says of the value at a place.
---@param names parallel.Names?
---@param place integer
---@return string  "parameter 'log': ", "argument 2: ", ""
local function called (names, place)
  local name <const> = names and names[place]
  if name == false then return "" end
  return type(name) == "string" and "parameter '" .. name .. "': "
         or "argument " .. (name or place) .. ": "
end

return {
  append = append,
  called = called,
  names_in = names_in,
  set_names = set_names,
}
