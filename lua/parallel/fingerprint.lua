-- SPDX-License-Identifier: MIT
--- What stands for a function from one run of a program to the next: its code,
--- and the code and the values that it refers to.
--
-- Each upvalue and each global that the function refers to, or a function that
-- it refers to, to any depth, is a part, and has its name.  What is found in a
-- table, or is the function itself, belongs to the part in which it was found.
-- A part is a set: the order of a table's keys changes from run to run.

local _, core = ...  -- parallel.core

local getmetatable, ipairs, next, rawget, setmetatable, table, type =
  getmetatable, ipairs, next, rawget, setmetatable, table, type
local loaded <const> = package and package.loaded or {}

--- Names of what the loaded modules have, but for the script's own globals.
---@return table<table|function, string>
local function names_of_modules ()
  local names <const> = {}
  for name, module in next, loaded do
    if type(name) == "string" and type(module) == "table" then
      names[module] = name
      for field, value in next, name ~= "_G" and module or {} do
        if type(value) == "function" and type(field) == "string" then
          names[value] = name .. "." .. field
        end
      end
    elseif type(name) == "string" and type(module) == "function" then
      names[module] = name
    end
  end
  return names
end

---@class parallel.Fingerprint
---@field names table<any, string>     of modules
---@field seen table<any, boolean>     tables and functions
---@field queue table[]                found, and not looked into
---@field parts table<string, string[]>  digests by part
local fingerprint = {}
fingerprint.__index = fingerprint

--- Add a digest to a part.
---@param part string
---@param digest string
function fingerprint:note (part, digest)
  local list <const> = self.parts[part] or {}
  self.parts[part] = list
  list[#list + 1] = digest
end

--- Add a value to a part.
---@param part string
---@param value any
function fingerprint:add (part, value)
  local kind <const> = type(value)
  local name <const> = value ~= nil and self.names[value] or nil
  if name ~= nil then
    self:note(part, core.digest("module", name))
  elseif kind ~= "table" and kind ~= "function" then
    self:note(part, core.digest(value) or core.digest("a", kind))
  elseif not self.seen[value] then
    self.seen[value] = true
    self.queue[#self.queue + 1] = { part = part, value = value }
  end
end

---@param part string
---@param list table
function fingerprint:look_into_table (part, list)
  local digest <const> = core.digest(list)
  if digest ~= nil then  -- nothing but data
    self:note(part, digest)
    return
  end
  for key, value in next, list do
    local of_key <const> = core.digest(key) or core.digest("a", type(key))
    self:note(part, core.digest(of_key, type(value)))
    local of_value <const> = core.digest(of_key, value)
    if of_value ~= nil then
      self:note(part, of_value)
    else
      self:add(part, value)
    end
  end
  local metatable <const> = getmetatable(list)
  if type(metatable) == "table" then self:add(part, metatable) end
end

---@param part string
---@param fn function
function fingerprint:look_into_function (part, fn)
  local code <const>, reads <const>, upvalues <const> = core.code_of(fn)
  if code == nil then
    self:note(part, core.digest "C")
    return
  end
  self:note(part, code)
  for i, name in ipairs(upvalues) do
    local value <const> = core.upvalue(fn, i)
    if name ~= "_ENV" then
      self:add("'" .. name .. "'", value)
    elseif type(value) == "table" then
      for _, global in ipairs(reads) do
        local found <const> = rawget(value, global)
        if found ~= nil then self:add("'" .. global .. "'", found) end
      end
    end
  end
end

--- Return the digests of a value's parts, by name.
---@param name string  of the part that the value itself is
---@param value any
---@return table<string, string>
local function of (name, value)
  local self <const> = setmetatable({
    names = names_of_modules(), seen = {}, queue = {}, parts = {},
  }, fingerprint)
  if type(value) == "function" and core.code_of(value) ~= nil then
    self.names[value] = nil  -- that of a module, too: its code counts
  end
  self:add(name, value)
  local at = 1
  while self.queue[at] ~= nil do
    local found <const> = self.queue[at]
    at = at + 1
    if type(found.value) == "table" then
      self:look_into_table(found.part, found.value)
    else
      self:look_into_function(found.part, found.value)
    end
  end
  local digests <const> = {}
  for part, list in next, self.parts do
    table.sort(list)
    digests[part] = core.digest(table.concat(list))
  end
  return digests
end

return { of = of }
