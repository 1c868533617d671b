-- SPDX-License-Identifier: MIT
--- Tables of text that fit the terminal.

local _, core = ...  -- parallel.core
local display = require "parallel.width"

local ipairs, math, os, require, string, table, tonumber, type =
  ipairs, math, os, require, string, table, tonumber, type
local width_of <const> = display.of

--- Text between two columns.
local GAP <const> = "  "
--- Width below which no column is cut, as long as there is room.
local NARROWEST <const> = 5

--- Cut a text to 'width' columns, with an ellipsis.
---@param text string
---@param width integer
---@return string
local function cut (text, width)
  if width_of(text) <= width then return text end
  if width < 1 then return "" end
  return text:sub(1, display.bytes_in(text, width - 1)) .. "…"
end

---@param text string
---@param width integer
---@param right boolean
---@return string
local function pad (text, width, right)
  local blanks = string.rep(" ", width - width_of(text))
  return right and blanks .. text or text .. blanks
end

--- Return the width of the terminal, or else COLUMNS; without either there is
--- no end of a line: a pipe or a file gets all.
---@return number
local function terminal_width ()
  local width = core.terminal_width(1)
  if width ~= nil then return width end
  local columns = math.tointeger(tonumber(os and os.getenv
                                          and os.getenv "COLUMNS"))
  return columns ~= nil and columns > 0 and columns or math.huge
end

--- Write a text on one line, without control characters, which a terminal
--- would obey.
---@type fun(text: string): string
local plain <const> = core.escape

--- Write a cell as one line of text.
---@param value any
---@param write? fun(n: number): string  writes numbers
---@return string
local function cell (value, write)
  if value == nil then return "" end
  if write ~= nil and type(value) == "number" then return write(value) end
  if math.type(value) == "float" then
    if value == math.floor(value) and math.abs(value) < 1e15 then
      return string.format("%.0f", value)
    end
    return string.format("%.4g", value)
  end
  return plain(type(value) == "string" and value
               or require("parallel.failure").text(value))
end

--- Shrink the widest columns until a row fits into 'room', or all have the
--- width 'narrowest'.
---@param widths integer[]
---@param room number
---@param narrowest integer
local function fit (widths, room, narrowest)
  local sum = (#widths - 1) * #GAP
  for i = 1, #widths do
    widths[i] = math.min(widths[i], math.max(room, narrowest))
    sum = sum + widths[i]
  end
  while sum > room do
    local widest = 1
    for i = 2, #widths do
      if widths[i] > widths[widest] then widest = i end
    end
    if widths[widest] <= narrowest then return end
    widths[widest] = widths[widest] - 1
    sum = sum - 1
  end
end

--- Write rows under the titles of their columns, as lines that fit.
---@param columns parallel.Column[]
---@param rows table[]    arrays of cells
---@param width? number   default: the terminal's
---@return string
local function format (columns, rows, width)
  local texts, heads, widths, right = {}, {}, {}, {}
  width = width or terminal_width()
  for c, column in ipairs(columns) do
    heads[c] = plain(column.title)
    widths[c], right[c] = width_of(heads[c]), #rows > 0
  end
  for r, row in ipairs(rows) do
    texts[r] = {}
    for c = 1, #columns do
      local text = cell(row[c], columns[c].write)
      texts[r][c] = text
      widths[c] = math.max(widths[c], width_of(text))
      if row[c] ~= nil and type(row[c]) ~= "number" then right[c] = false end
    end
  end
  fit(widths, width, NARROWEST)
  fit(widths, width, 1)
  local lines = {}
  local function add (cells)
    local parts = {}
    for c = 1, #columns do
      parts[c] = pad(cut(cells[c], widths[c]), widths[c], right[c])
    end
    lines[#lines + 1] = cut(table.concat(parts, GAP):gsub("%s+$", ""), width)
  end
  local rules = {}
  for c = 1, #columns do rules[c] = string.rep("-", widths[c]) end
  add(heads)
  add(rules)
  for _, row in ipairs(texts) do add(row) end
  return table.concat(lines, "\n") .. "\n"
end

return {
  cut = cut,
  format = format,
  plain = plain,
  terminal_width = terminal_width,
  width_of = width_of,
}
