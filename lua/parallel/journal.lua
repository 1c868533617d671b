-- SPDX-License-Identifier: MIT
--- The option `journal`: a file that keeps what became of the items of a call,
--- so that the next run of the program does only the rest.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local ipairs, math, next, require, setmetatable, table, type =
  ipairs, math, next, require, setmetatable, table, type

---@class parallel.JournalOptions
---@field file string  made if it is not there; also at [1]
---@field key? fun(item: any, ...: any): any  what an item is known by;
---       default: its values
---@field id? string   what the function is known by; default: its code, and
---       what it refers to

local KNOWN <const> = { file = true, key = true, id = true }

--- Test the option.
---@param value any
---@return string? expected
---@return string? wrong
local function test (value)
  local expected <const> = "the name of a file, or {file =, key =, id =}"
  local file = value
  if type(value) == "table" then
    file = value[1]
    if file == nil then file = value.file end
    for name in next, value do
      if name ~= 1 and not KNOWN[name] then
        return expected, "the key " .. check.describe(name)
      end
    end
    if value[1] ~= nil and value.file ~= nil then
      return expected, "the file twice"
    elseif value.key ~= nil and type(value.key) ~= "function" then
      return "a function as key", check.describe(value.key)
    elseif value.id ~= nil and (type(value.id) ~= "string"
                                or value.id == "") then
      return "a text as id", check.describe(value.id)
    end
  end
  if type(file) ~= "string" or file == "" or file:find("\0", 1, true) then
    return expected, type(value) == "table" and check.describe(file) or nil
  end
end

--- A journal that is open.
---@class parallel.Journal
---@field verb string
---@field file string
---@field name string  of the file, for messages
---@field handle table  of the C part
---@field key? fun(...: any): any
---@field indexed boolean  an item is known by its index, too
---@field places table<string, integer|integer[]>  where the values of items
---       are that have completed, by key
---@field broken? boolean  nothing can be written any more
local journal = { __name = "parallel.journal" }
journal.__index = journal

--- Raise an error about the option.
---@param why string
function journal:fail (why)
  self.broken = true
  check.misuse("bad option 'journal' to '" .. self.verb .. "' (" .. why .. ")")
end

--- Raise an error about the file.
---@param why string
function journal:fail_file (why)
  self:fail("'" .. self.name .. "' " .. why)
end

--- What has to be equal for results to be good again, as digests by name.
---@param verb string
---@param fn function|string
---@param given table
---@param list? table  further arguments, with `n`
---@param options parallel.JournalOptions
---@return table<string, string>
local function describe (verb, fn, given, list, options)
  local fingerprint <const> = require "parallel.fingerprint"
  local parts <const> = options.id ~= nil
    and { id = core.digest(options.id) }
    or fingerprint.of("the function", fn)
  parts.verb = core.digest(verb)
  local function add (name, value)
    if value == nil then return end
    local all <const> = {}
    for part, digest in next, fingerprint.of(name, value) do
      all[#all + 1] = core.digest(part, digest)
    end
    table.sort(all)
    parts[name] = core.digest(table.concat(all))
  end
  add("the seed", given.seed)
  add("the key", options.key)
  if list ~= nil and list.n > 0 then
    add("the arguments", table.move(list, 1, list.n, 1, {}))
  end
  add("the globals", given.globals)
  for _, name in ipairs { "init", "variables", "functions", "preload" } do
    add("'" .. name .. "'", given[name])
  end
  return parts
end

--- Write parts as a heading, a line for each.
---@param parts table<string, string>
---@return string
local function to_text (parts)
  local lines <const> = {}
  for name, digest in next, parts do
    lines[#lines + 1] = digest:gsub(".", function (c)
      return ("%02x"):format(c:byte())
    end) .. " " .. core.escape(name) .. "\n"
  end
  table.sort(lines, function (a, b) return a:sub(34) < b:sub(34) end)
  return table.concat(lines)
end

--- The names of the parts in which two headings differ.
---@param one string
---@param other string
---@return string
local function differences (one, other)
  local names <const>, list <const> = {}, {}
  local function read (text)
    local parts <const> = {}
    for digest, name in text:gmatch "(%x+) ([^\n]*)\n" do
      parts[name] = digest
    end
    return parts
  end
  local a <const>, b <const> = read(one), read(other)
  for name, digest in next, a do names[name] = b[name] ~= digest end
  for name, digest in next, b do names[name] = a[name] ~= digest end
  for name, differs in next, names do
    if differs then list[#list + 1] = name end
  end
  table.sort(list)
  if #list > 5 then list[6], list[7] = "others", nil end
  return table.concat(list, ", ", 1, math.min(#list, 6))
end

--- Remember where an item's values are.
---@param key string
---@param place integer
function journal:keep (key, place)
  local places <const> = self.places
  local known <const> = places[key]
  if known == nil then
    places[key] = place
  elseif type(known) == "table" then
    known[#known + 1] = place
  else
    places[key] = { known, place }
  end
end

--- Read what earlier runs have left.
---@param heading string  what this one would write
function journal:read (heading)
  local handle <const> = self.handle
  local there
  while true do
    local key <const>, what <const> = handle:next()
    if key == nil then
      if what ~= nil then self:fail_file(what) end
      break
    elseif key then
      self:keep(key, what)
    else
      there = what
    end
  end
  if there == heading then return end
  if there ~= nil and next(self.places) ~= nil then
    self:fail_file("was written by another call: "
                   .. differences(there, heading) .. " changed; remove the "
                   .. "file to do everything again, or take another one")
  end
  handle:head(heading)
end

--- Open the journal of a call.
---@param verb string
---@param fn function|string
---@param given table  the options of the call
---@param list? table  further arguments, with `n`
---@return parallel.Journal
local function open (verb, fn, given, list)
  local options = given.journal
  if type(options) == "string" then options = { file = options } end
  local file <const> = options.file or options[1]
  local self <const> = setmetatable({
    verb = verb, file = file, name = check.clean(file), key = options.key,
    indexed = given.seed ~= nil, places = {},
  }, journal)
  local handle <const>, why <const> = core.journal(file)
  if handle == nil then self:fail_file(why) end
  self.handle = handle
  local _ <close> = setmetatable({}, { __close = function (_, problem)
    if problem ~= nil then handle:close() end
  end })
  self:read(to_text(describe(verb, fn, given, list, options)))
  self:write()
  return self
end

--- What an item is known by.
---@param index integer
---@param ... any  its values
---@return string
function journal:key_of (index, ...)
  local place <const> = self.indexed and index or false
  if self.key ~= nil then
    local key <const> = self.key(...)
    local digest <const>, _, what <const> = core.digest(place, key)
    if key == nil or digest == nil then
      self:fail("item " .. index .. ": a key of numbers, texts or tables of "
                .. "these expected from the function, got " .. (what or "nil"))
    end
    return digest
  end
  local digest <const>, _, what <const> = core.digest(place, ...)
  if digest == nil then
    self:fail("item " .. index .. ": " .. what .. " is known by nothing that "
              .. "lasts: say by journal = {file =, key = function (item) ... "
              .. "end} what the item is known by")
  end
  return digest
end

--- Take what is known of an item that has completed: true, attempts, duration,
--- values.  False: it is to be done.
---@param key string
---@return boolean
---@return any ...
function journal:take (key)
  local place = self.places[key]
  if place == nil then return false end
  if type(place) == "table" then
    local list <const> = place
    place = table.remove(list, 1)
    if #list == 0 then self.places[key] = nil end
  else
    self.places[key] = nil
  end
  return self.handle:values(place)
end

--- Tell whether an item has completed.
---@param key string
---@return boolean
function journal:has (key)
  return self.places[key] ~= nil
end

--- Note that an item has completed with these values.
---@param index integer  of the item
---@param key string
---@param attempts integer
---@param duration number
---@param ... any
function journal:add (index, key, attempts, duration, ...)
  local ok <const>, why <const> = self.handle:add(key, attempts, duration, ...)
  if not ok then
    self:fail("the result of item " .. index .. " cannot be kept: "
              .. why:gsub(" out of a sandbox", " to a file")
              .. "; return data, or leave the journal out")
  end
end

--- Note that an item has ended in another state.
---@param key string
---@param state string
---@param problem any
function journal:add_failure (key, state, problem)
  local text <const> = type(problem) == "string" and problem
                       or check.describe(problem)
  self.handle:add_failure(key, state, text)
end

--- Hand to the system what was noted, and to the disk from time to time.
---@param now? boolean
function journal:write (now)
  if self.broken or self.handle == nil then return end
  local ok <const>, why <const> = self.handle:write(now)
  if not ok then self:fail_file(why) end
end

--- Write what was noted, and close the file.
function journal:close ()
  local handle <const> = self.handle
  self.handle = nil
  if handle == nil then return end
  local _ <close> = setmetatable({}, {
    __close = function () handle:close() end
  })
  if self.broken then return end
  local ok <const>, why <const> = handle:write(true)
  if not ok then self:fail_file(why) end
end

journal.__close = journal.close

return { open = open, test = test }
