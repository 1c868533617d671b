-- SPDX-License-Identifier: MIT
--- Texts of results, for the prompt.
--
-- A table becomes a constructor that a person can read: on one line if it
-- fits, else indented.  A table or string that is too long or too deep is cut,
-- with a note of how much is missing.  Only raw access is used, and
-- '__tostring' is the one metamethod that is called.
--
-- Penlight's 'pl.pretty' would do this too, but under Lua 5.4 it shows 2.0 as
-- 2, raises for 1e300, drops holes and has no limits.

local _, core = ...  -- parallel.core
local ipairs, math, next, pairs, pcall, rawget, rawlen, require, table,
      tostring, type =
  ipairs, math, next, pairs, pcall, rawget, rawlen, require, table, tostring,
  type
local failure <const> = require "parallel.failure"
local width_of <const> = require("parallel.width").of

local names <const> = require "parallel.names"

-- The prompt lists and completes names of the module, so load all of them.
for _ in pairs(require "parallel") do end

local limits <const> = {
  entries = 100,  -- entries of one table
  total = 300,    -- entries of all tables of one result
  depth = 5,      -- tables in one another
  string = 200,   -- bytes of a string inside a table
  text = 4000,    -- bytes of a string that is a result itself
  sorted = 10000  -- keys of a table; more are shown in no order
}

local raw_metatable <const> = debug and debug.getmetatable or getmetatable

local keywords <const> = {}
for word in ([[and break do else elseif end false for function goto if in
    local nil not or repeat return then true until while]]):gmatch "%a+" do
  keywords[word] = true
end

local function quote (text)
  local missing = #text - limits.string
  if missing > 0 then
    -- Step back to the first byte of a character, so as not to cut one.
    local last = limits.string
    while last > limits.string - 3 and text:find("^[\128-\191]", last + 1) do
      last = last - 1
    end
    missing = #text - last
    text = text:sub(1, last)
  end
  text = '"' .. core.escape((text:gsub('["\\]', "\\%0"))) .. '"'
  return missing > 0 and ("%s... (%d more)"):format(text, missing) or text
end

--- Return 'tostring(value)', or another text if that raises.
local function to_text (value)
  local ok, text = pcall(tostring, value)
  return ok and text or ("<%s: error in __tostring>"):format(type(value))
end

--- Tell whether a value is shown as its own text: it is no table, or it has a
--- '__tostring' or a '__name'.
local function is_plain (value)
  if type(value) ~= "table" then return true end
  local mt = raw_metatable(value)
  if type(mt) ~= "table" then return false end
  return rawget(mt, "__tostring") ~= nil
    or type(rawget(mt, "__name")) == "string"
end

--- Write a plain value inside of a table: the first line of its text.
local function plain (value)
  if type(value) == "string" then return quote(value) end
  local text <const> = to_text(value)
  local first <const>, rest <const> = text:match "^([^\n]*)\n(.*)$"
  if first == nil then return core.escape(text) end
  local _, more = rest:gsub("[^\n]+", "")
  return ("%s... (%d more line%s)"):format(core.escape(first), more,
                                           more == 1 and "" or "s")
end

local function key_text (key)
  if type(key) == "string" and not keywords[key]
      and key:find "^[%a_][%w_]*$" then
    return key
  end
  return "[" .. plain(key) .. "]"
end

local rank <const> = { number = 1, string = 2 }

local function precedes (a, b)
  local a_rank, b_rank = rank[type(a)] or 3, rank[type(b)] or 3
  if a_rank ~= b_rank then return a_rank < b_rank end
  if a_rank == 3 then return to_text(a) < to_text(b) end
  return a < b
end

--- Divide the entries of the table 'value' into a sequence and fields.
-- A field 'n' that counts the values of the sequence belongs to it, and is
-- hidden when the sequence has no holes.
---@return integer length  entries of the sequence, holes included
---@return any[] keys  of the fields, sorted; where there are many, the first
---       'limits.sorted' that are met, unsorted
---@return integer count  number of all fields
local function survey (value)
  local n <const> = rawget(value, "n")
  local length = rawlen(value)
  if math.type(n) == "integer" and n > length then length = n end
  local function is_inside (key)
    return math.type(key) == "integer" and key >= 1 and key <= length
  end

  local present, keys, count = 0, {}, 0
  for key in next, value do
    if is_inside(key) then present = present + 1 end
  end
  if 2 * present < length then length = 0 end  -- mostly holes: all are fields
  local n_hidden <const> = n == length and present == n
  for key in next, value do
    if not is_inside(key) and not (key == "n" and n_hidden) then
      count = count + 1
      if count <= limits.sorted then keys[count] = key end
    end
  end
  if count <= limits.sorted then table.sort(keys, precedes) end
  return length, keys, count
end

local function more (count)
  return ("... (%d more)"):format(count)
end

--- Put parts on as few lines as they need.
local function fill (parts, indent, width)
  local lines, line = {}, nil
  for i, part in ipairs(parts) do
    if i < #parts then part = part .. "," end
    if line and not part:find("\n", 1, true)
        and width_of(line) + 1 + width_of(part) <= width then
      line = line .. " " .. part
    else
      lines[#lines + 1] = line
      line = indent .. part
      if part:find("\n", 1, true) then
        lines[#lines + 1] = line
        line = nil
      end
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

---@class (private) parallel.Show
---@field width integer  columns
---@field left integer  entries that may still be shown
---@field path table<table, boolean>  the tables around the current value

local show_table

---@param show parallel.Show
---@param indent string  indent of the line that the text starts on
---@param used integer  columns of that line that other text takes
local function show_value (show, value, indent, used)
  if is_plain(value) then return plain(value) end
  value = names.shown(value)
  if show.path[value] then return "<cycle>" end
  show.path[value] = true
  local text = show_table(show, value, indent, used)
  show.path[value] = nil
  return text
end

function show_table (show, value, indent, used)
  local length, keys, count = survey(value)
  local inner <const> = indent .. "  "
  local items, fields = {}, {}
  local entries <const> = #indent < 2 * limits.depth and limits.entries or 0

  --- Tell whether another entry may be shown behind 'n' of its kind, and count
  --- it.
  local function take (n)
    if n >= entries or show.left == 0 then return false end
    show.left = show.left - 1
    return true
  end

  local missing = count
  while #items < length and take(#items) do
    items[#items + 1] = show_value(show, rawget(value, #items + 1), inner, 1)
  end
  if #items == 0 then
    missing = missing + length
  elseif #items < length then
    items[#items + 1] = more(length - #items)
  end
  while #fields < #keys and take(#fields) do
    local key <const> = keys[#fields + 1]
    local name <const> = key_text(key) .. " = "
    fields[#fields + 1] =
      name .. show_value(show, rawget(value, key), inner, #name + 1)
    missing = missing - 1
  end
  if missing > 0 then fields[#fields + 1] = more(missing) end

  local parts <const> = table.move(items, 1, #items, 1, {})
  table.move(fields, 1, #fields, #items + 1, parts)
  local flat <const> = "{" .. table.concat(parts, ", ") .. "}"
  if not flat:find("\n", 1, true)
      and #indent + used + width_of(flat) <= show.width then
    return flat
  end
  local lines = {}
  if #items > 0 then
    local comma <const> = #fields > 0 and "," or ""
    lines[1] = fill(items, inner, show.width - 1) .. comma
  end
  for i, field in ipairs(fields) do
    lines[#lines + 1] = inner .. field .. (i < #fields and "," or "")
  end
  return "{\n" .. table.concat(lines, "\n") .. "\n" .. indent .. "}"
end

--- Write one value as text.
---@param value any
---@param width? integer  columns; default 80
---@return string
local function format (value, width)
  local show <const> = {
    width = math.max(width or 80, 20), left = limits.total, path = {}
  }
  return show_value(show, value, "", 0)
end

--- Return the values that 'print' is to show for results: tables become texts,
-- long strings are cut, failures tell all, other values stay.  If a table
-- takes several lines, all results become one text, in which each has lines of
-- its own.
---@param width integer  columns
---@param ... any
---@return any ...
local function results (width, ...)
  local values <const> = table.pack(...)
  local tall = false
  for i = 1, values.n do
    local value <const> = values[i]
    if type(value) == "string" and #value > limits.text then
      values[i] = ("%s... (%d more bytes)"):format(value:sub(1, limits.text),
                                                   #value - limits.text)
    elseif type(value) == "table" and raw_metatable(value) == failure then
      values[i] = failure.explain(value)
    elseif not is_plain(value) then
      values[i] = format(value, width)
      tall = tall or values[i]:find("\n", 1, true) ~= nil
    end
  end
  if not tall then return table.unpack(values, 1, values.n) end
  for i = 1, values.n do values[i] = to_text(values[i]) end
  return table.concat(values, "\n")
end

return { format = format, results = results }
