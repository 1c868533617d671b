-- SPDX-License-Identifier: MIT
--- The width of a text: the columns of a terminal that it takes.
--
-- The C library has 'wcwidth' for this, but it works only in the locale that
-- the program has chosen, and the module leaves the locale to the program.

local table, tonumber, utf8 = table, tonumber, utf8

--- Characters that take two columns: East Asian Wide and Fullwidth, emoji.
local WIDE <const> = [[
  1100-115F 231A-231B 2329-232A 23E9-23EC 23F0 23F3 25FD-25FE 2614-2615
  2648-2653 267F 2693 26A1 26AA-26AB 26BD-26BE 26C4-26C5 26CE 26D4 26EA
  26F2-26F3 26F5 26FA 26FD 2705 270A-270B 2728 274C 274E 2753-2755 2757
  2795-2797 27B0 27BF 2B1B-2B1C 2B50 2B55 2E80-3029 302E-303E 3041-3096
  309B-3247 3250-4DBF 4E00-A4C6 A960-A97C AC00-D7A3 F900-FAD9 FE10-FE19
  FE30-FE6B FF01-FF60 FFE0-FFE6 16FE0-16FE3 16FF0-1B2FB 1F004 1F0CF 1F18E
  1F191-1F19A 1F200-1F320 1F32D-1F335 1F337-1F37C 1F37E-1F393 1F3A0-1F3CA
  1F3CF-1F3D3 1F3E0-1F3F0 1F3F4 1F3F8-1F43E 1F440 1F442-1F4FC 1F4FF-1F53D
  1F54B-1F54E 1F550-1F567 1F57A 1F595-1F596 1F5A4 1F5FB-1F64F 1F680-1F6C5
  1F6CC 1F6D0-1F6D2 1F6D5-1F6DF 1F6EB-1F6EC 1F6F4-1F6FC 1F7E0-1F7F0
  1F90C-1F93A 1F93C-1F945 1F947-1F9FF 1FA70-1FAFF 20000-3FFFD
]]

--- Characters that take no column: combining marks of the most common scripts,
--- and characters of layout.
local NONE <const> = [[
  300-36F 483-489 591-5BD 5BF 5C1-5C2 5C4-5C5 5C7 610-61A 61C 64B-65F 670
  6D6-6DC 6DF-6E4 6E7-6E8 6EA-6ED 711 730-74A 7A6-7B0 7EB-7F3 816-819 81B-823
  825-827 829-82D 859-85B 8CA-8E1 8E3-902 93A 93C 941-948 94D 951-957 962-963
  981 9BC 9C1-9C4 9CD 9E2-9E3 A01-A02 A3C A41-A51 A70-A71 A75 A81-A82 ABC
  AC1-AC8 ACD AE2-AE3 B01 B3C B3F B41-B44 B4D-B56 B62-B63 B82 BC0 BCD C00 C04
  C3E-C40 C46-C56 C62-C63 CBC CCC-CCD CE2-CE3 D00-D01 D41-D44 D4D D62-D63 DCA
  DD2-DD6 E31 E34-E3A E47-E4E EB1 EB4-EBC EC8-ECD F18-F19 F35 F37 F39 F71-F7E
  F80-F84 F86-F87 F8D-FBC 102D-1030 1032-1037 1039-103A 103D-103E 1160-11FF
  135D-135F 17B4-17B5 17B7-17BD 17C6 17C9-17D3 17DD 180B-180F 1AB0-1AFF
  1DC0-1DFF 200B-200F 202A-202E 2060-206F 20D0-20F0 302A-302D 3099-309A
  FE00-FE0F FE20-FE2F FEFF FFF9-FFFB E0001-E01EF
]]

--- The first character that does not take one column.
local FIRST <const> = 0x300

---@class parallel.CharacterRange
---@field first integer
---@field last integer
---@field columns integer

--- Ranges of WIDE and NONE, sorted; made when they are first needed.
---@type parallel.CharacterRange[]?
local ranges

---@param list parallel.CharacterRange[]
---@param text string
---@param columns integer
local function add (list, text, columns)
  for range in text:gmatch "%S+" do
    local first, last = range:match "^(%x+)-(%x+)$"
    first = tonumber(first or range, 16)
    list[#list + 1] = {
      first = first, last = last and tonumber(last, 16) or first,
      columns = columns,
    }
  end
end

---@return parallel.CharacterRange[]
local function make_ranges ()
  local list <const> = {}
  add(list, WIDE, 2)
  add(list, NONE, 0)
  table.sort(list, function (a, b) return a.first < b.first end)
  return list
end

---@param code integer
---@return integer columns
local function of_character (code)
  if code < FIRST then return 1 end
  ranges = ranges or make_ranges()
  local low, high = 1, #ranges
  while low <= high do
    local middle <const> = (low + high) // 2
    local range <const> = ranges[middle]
    if code < range.first then
      high = middle - 1
    elseif code > range.last then
      low = middle + 1
    else
      return range.columns
    end
  end
  return 1
end

--- Tell whether each byte of a text takes one column: the text is ASCII, or no
--- UTF-8.
---@param text string
---@return boolean
local function is_plain (text)
  local n <const> = utf8 and utf8.len(text)
  return not n or n == #text
end

--- Return the columns that a text takes; its bytes, if it is no UTF-8.
---@param text string
---@return integer
local function of (text)
  if is_plain(text) then return #text end
  local columns = 0
  for _, code in utf8.codes(text) do
    columns = columns + of_character(code)
  end
  return columns
end

--- Return the number of bytes of a text that fit into 'columns'.
---@param text string
---@param columns integer
---@return integer
local function bytes_in (text, columns)
  if is_plain(text) then return columns < #text and columns or #text end
  for at, code in utf8.codes(text) do
    columns = columns - of_character(code)
    if columns < 0 then return at - 1 end
  end
  return #text
end

return { bytes_in = bytes_in, is_plain = is_plain, of = of }
