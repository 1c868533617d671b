-- SPDX-License-Identifier: MIT
--- Rows as a table of text: records, jobs, or the script's own.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local getmetatable, ipairs, math, next, require, string, table, tostring,
      type =
  getmetatable, ipairs, math, next, require, string, table, tostring, type

--- Fields of a record that the columns of a table can show.
---@type table<string, boolean>
local RECORD <const> = {
  index = true, input = true, state = true, result = true, results = true,
  error = true, streams = true, queued = true, duration = true,
  worker = true, traceback = true, reason = true, attempts = true, host = true,
  journaled = true,
  command = true, status = true, output = true, errors = true,
}

--- The columns that are shown where none are named.
local RECORD_COLUMNS <const> = { "index", "input", "state", "result", "error",
                                 "duration", "worker" }
local JOB_COLUMNS <const> = { "id", "name", "state", "reason", "queued",
                              "duration", "worker" }

--- Multiples of a unit, the smallest first: the factor, and how it is written.
local TIMES <const> = {
  { 1e-9, "ns" }, { 1e-6, "µs" }, { 1e-3, "ms" }, { 1, "s" },
}
local SIZES <const> = {
  { 1, "B" }, { 1e3, "kB" }, { 1e6, "MB" }, { 1e9, "GB" }, { 1e12, "TB" },
}

--- Write a number of at least 0 in the multiple that leaves one to three
--- digits in front of the point.
---@param n number
---@param multiples table
---@return string
local function scale (n, multiples)
  local chosen = multiples[1]
  for _, multiple in ipairs(multiples) do
    if n >= 0.9995 * multiple[1] then chosen = multiple end
  end
  local x <const> = n / chosen[1]
  return string.format(x >= 999.5 and "%.0f %s" or "%.3g %s", x, chosen[2])
end

--- Write seconds: "6.5 µs", "1.24 s", "2:05", "1:02:05".
---@param seconds number
---@return string
local function duration (seconds)
  if seconds < 0 then return "-" .. duration(-seconds) end
  if seconds == 0 then return "0 s" end
  if seconds < 59.95 or seconds ~= seconds or seconds == math.huge then
    return scale(seconds, TIMES)
  end
  local s <const> = math.floor(seconds + 0.5)
  if s >= 3600 then
    return string.format("%d:%02d:%02d", s // 3600, s // 60 % 60, s % 60)
  end
  return string.format("%d:%02d", s // 60, s % 60)
end

--- Write bytes: "512 B", "12 MB".
---@param bytes number
---@return string
local function size (bytes)
  if bytes < 0 then return "-" .. size(-bytes) end
  return scale(bytes, SIZES)
end

--- How the numbers of a column are written, by the name of its unit.
---@type table<string, fun(n: number): string>
local UNITS <const> = { bytes = size, seconds = duration }

--- Units of fields that have one wherever they come from.
---@type table<string, string>
local KNOWN <const> = {
  bytes = "bytes", duration = "seconds", elapsed = "seconds",
  queued = "seconds",
}

--- Make the function that reads a row by 'key': a field, a name with dots for
--- a field in a field ("result.status"), or a function of the row.
---@param verb string
---@param key any
---@param fields? table<string, boolean>  that a row can have; default: any
---@return fun(row: any): any
local function reader (verb, key, fields)
  if type(key) == "function" then return key end
  if type(key) == "number" and fields == nil then
    return function (row) return row[key] end
  end
  if type(key) ~= "string" then
    check.bad_argument(verb, "key", "the name of a field or a function", key)
  end
  local first <const> = key:match "^[^.]+"
  if fields ~= nil and not fields[first] then
    local near = check.nearest(first or key, fields)
    check.misuse("unknown field '" .. check.clean(key) .. "' of records to '"
                 .. verb .. "'"
                 .. (near and " (did you mean '" .. near .. "'?)"
                     or " (known are " .. check.list_names(fields) .. ")"))
  end
  return function (row)
    local value = row[first]
    for name in key:sub(#first + 1):gmatch "[^.]+" do
      if type(value) ~= "table" then return nil end
      value = value[name]
    end
    return value
  end
end

---@param row any
---@return boolean
local function is_record (row)
  if type(row) ~= "table" or row.index == nil or row.state == nil then
    return false
  end
  for key in next, row do
    if not RECORD[key] then return false end
  end
  return true
end

---@param rows any[]
---@param test fun(row: any): boolean
---@return boolean
local function are_all (rows, test)
  for _, row in ipairs(rows) do
    if not test(row) then return false end
  end
  return true
end

--- The columns of rows that name none: the keys of all rows, sorted, so that
--- the same rows make the same table.
---@param rows any[]
---@return any[]
local function columns_of (rows)
  if are_all(rows, is_record) then return RECORD_COLUMNS end
  if are_all(rows, core.is_job) then return JOB_COLUMNS end
  local there <const>, keys <const> = {}, {}
  for _, row in ipairs(rows) do
    for key in next, type(row) == "table" and row or {} do
      local kind <const> = type(key)
      if not there[key] and (kind == "string" or kind == "number") then
        there[key] = true
        keys[#keys + 1] = key
      end
    end
  end
  table.sort(keys, check.precedes)
  return keys
end

--- Raise if no row has a field that a column names.
---@param rows any[]
---@param key any
local function is_there (rows, key)
  local first <const> = type(key) == "string" and key:match "^[^.]+" or key
  local there <const> = {}
  for _, row in ipairs(rows) do
    if is_record(row) then row = RECORD end
    if type(row) ~= "table" or row[first] ~= nil then return end
    for name in next, row do there[name] = true end
  end
  if #rows == 0 or type(key) == "function" then return end
  local near <const> = type(first) == "string"
                       and check.nearest(first, there)
  check.misuse("unknown field '" .. check.clean(tostring(key)) .. "' of rows "
               .. "to 'table'"
               .. (near and " (did you mean '" .. near .. "'?)"
                   or " (no row has it)"))
end

---@class parallel.Column
---@field title string
---@field read fun(row: any): any
---@field write? fun(n: number): string  writes its numbers

--- Check the columns of a call.
---@param verb string
---@param rows any[]
---@param given any
---@param fields? table<string, boolean>
---@return parallel.Column[]
local function columns_for (verb, rows, given, fields)
  if given ~= nil and (type(given) ~= "table" or given[1] == nil
                       or check.beyond(given) ~= nil) then
    local behind <const> = type(given) == "table" and check.beyond(given)
    check.misuse("bad argument 'columns' to '" .. verb .. "' (an array of "
                 .. "fields expected, got "
                 .. (behind and "the key " .. check.describe(behind)
                     or check.describe(given))
                 .. "; a title is given as a pair: {\"Host\", \"input\"})")
  end
  local columns <const> = {}
  for i, column in ipairs(given or columns_of(rows)) do
    local title, key, unit = column, column, nil
    if type(column) == "table" then
      title, key, unit = column[1], column[2], column[3]
    end
    if unit ~= nil and UNITS[unit] == nil then
      check.misuse("bad unit of the column '" .. check.clean(tostring(title))
                   .. "' to '" .. verb .. "' ('seconds' or 'bytes' expected, "
                   .. "got " .. check.describe(unit) .. ")")
    end
    local read <const> = reader(verb, key, fields)
    if fields == nil then is_there(rows, key) end
    local last <const> = type(key) == "string" and key:match "[^.]*$"
    columns[i] = {
      title = type(title) == "function" and "" or tostring(title),
      read = read,
      write = UNITS[unit or KNOWN[last]],
    }
  end
  return columns
end

---@class parallel.TableOptions
---@field width? integer  columns of the table; default: the terminal's, or as
---       many as the cells need where there is none

local TABLE <const> = { width = check.size }

--- Show rows as a table of text.
---@param rows any[]
---@param columns parallel.Column[]
---@param width? integer
---@return string
local function show (rows, columns, width)
  local cells <const> = {}
  for r, row in ipairs(rows) do
    cells[r] = {}
    for c, column in ipairs(columns) do cells[r][c] = column.read(row) end
  end
  return require("parallel.text_table").format(columns, cells, width)
end

--- Show rows as a table of text: records of `collect` and `each`, jobs, or
--- tables of any kind.  A column is a field, or a pair of a title and a field
--- or function, with a unit behind it if that cannot be told from the field's
--- name; default: the most common fields of records and of jobs, and all
--- fields of other rows.
---@type fun(rows: any[], columns?: any[], opts?: parallel.TableOptions):
---          string
local call_table = check.public("parallel.table(rows [, columns "
                                .. "[, {width =}]])", 3, show,
                                function (rows, columns, opts)
  if type(rows) ~= "table" or getmetatable(rows) ~= nil
     and rows.records ~= nil then
    check.bad_argument("table", "rows", "an array of rows", rows)
  end
  for i, row in ipairs(rows) do
    if type(row) ~= "table" and not core.is_job(row) then
      check.misuse("bad argument 'rows' to 'table' (an array of tables or "
                   .. "jobs expected, got " .. check.describe(row)
                   .. " at index " .. i .. ")")
    end
  end
  local width <const> = check.read("table", opts, TABLE).width
  return rows, columns_for("table", rows, columns), width
end)

return {
  RECORD = RECORD,
  TABLE = TABLE,
  columns_for = columns_for,
  duration = duration,
  functions = { table = call_table },
  reader = reader,
  show = show,
  size = size,
}
