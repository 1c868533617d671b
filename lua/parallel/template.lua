-- SPDX-License-Identifier: MIT
--- Templates of commands: texts with holes for values.
--
-- A hole is written `{}`, `{1}` or `{name}`, and `{{name}}` is the text
-- `{name}`.  Values are quoted for the shell where they stand, which is safe
-- only outside of the shell's own quotes: holes are refused elsewhere.

local check = require "parallel.check"

local ipairs, math, rawlen, string, tostring, type =
  ipairs, math, rawlen, string, tostring, type

--- A plan: for the shell one array of parts, and `shell`; else one for each
--- word.  A part is a text, or a hole: an array of the name in it.
---@class parallel.Plan: table[]
---@field shell boolean
---@field cwd? string
---@field env? table
---@field stdin? string

---@param verb string
---@param text string  what is wrong
local function refuse (verb, text)
  check.misuse("bad argument 'template' to '" .. verb .. "' (" .. text .. ")")
end

--- The key that a hole names: an integer, a name, or "" for the whole item;
--- nil if the text in braces is no hole.
---@param name string
---@return integer|string|nil
local function key_of (name)
  if name:find "^%d+$" then return math.tointeger(name) end
  return (name == "" or name:find "^[%a_]") and name or nil
end

--- Find a hole, or the text of one in double braces, at a place.
---@param text string
---@param at integer
---@return integer|string|nil key
---@return integer behind
---@return string? literal
local function hole_at (text, at)
  local name, behind = text:match("^{{([%w_]*)}}()", at)
  if name ~= nil then return nil, behind, "{" .. name .. "}" end
  name, behind = text:match("^{([%w_]*)}()", at)
  if name == nil or at > 1 and text:byte(at - 1) == 36 then  -- a variable: $
    return nil, at + 1, nil
  end
  return key_of(name), behind, nil
end

--- Parts of a text, as they are collected.
---@param parts table
---@param text string
local function add_text (parts, text)
  local n <const> = #parts
  if type(parts[n]) == "string" then
    parts[n] = parts[n] .. text
  elseif text ~= "" then
    parts[n + 1] = text
  end
end

--- What quotes for the shell, or changes what quotes there.
---@type table<string, string>
local QUOTES <const> = {
  ["'"] = "quotes", ['"'] = "quotes", ["`"] = "backquotes",
}

--- Skip what has no hole: an escaped character, a comment.  Returns the place
--- behind it.
---@param text string
---@param at integer
---@param quote string?
---@return integer
local function skip (text, at, quote)
  local c <const> = text:sub(at, at)
  if c == "\\" and quote ~= "'" then return at + 2 end
  if c == "#" and quote == nil
     and (at == 1 or text:find("^[%s;&|()]", at - 1)) then
    return text:find("\n", at, true) or #text + 1
  end
  return at + 1
end

--- Raise for a hole where a value cannot be quoted.
---@param verb string
---@param text string
---@param from integer
---@param behind integer
---@param quote string?
---@param foreign string?  a construct of the shell that was seen before
local function check_place (verb, text, from, behind, quote, foreign)
  local hole <const> = text:sub(from, behind - 1)
  if foreign ~= nil then
    refuse(verb, hole .. " stands behind " .. foreign .. ", where values "
           .. "cannot be quoted; take the option 'stdin', or several commands")
  elseif quote ~= nil then
    refuse(verb, hole .. " stands in " .. QUOTES[quote] .. ", and its value "
           .. "is quoted already: write it outside of them, or {" .. hole
           .. "} for the text itself")
  end
end

--- Read a text for the shell.
---@param verb string
---@param text string
---@return table parts
---@return boolean any  there is a hole
local function read_shell (verb, text)
  local parts, any, at = {}, false, 1
  local quote, foreign
  while at <= #text do
    local c <const> = text:sub(at, at)
    local behind = skip(text, at, quote)
    local key, literal
    if c == "{" then
      key, behind, literal = hole_at(text, at)
    elseif QUOTES[c] ~= nil and (quote == nil or quote == c) then
      quote = quote == nil and c or nil
    end
    if quote == nil then
      local two <const> = text:sub(at, at + 1)
      if two == "<<" or two == "$'" then foreign = two end
    end
    if key ~= nil then
      check_place(verb, text, at, behind, quote, foreign)
      parts[#parts + 1] = { key }
      any = true
    else
      add_text(parts, literal or text:sub(at, behind - 1))
    end
    at = behind
  end
  return parts, any
end

--- Read a word.
---@param text string
---@return table parts
---@return boolean any  there is a hole
local function read_word (text)
  local parts, any, at = {}, false, 1
  while at <= #text do
    local key, behind, literal = nil, at + 1, nil
    if text:byte(at) == 123 then key, behind, literal = hole_at(text, at) end
    if key ~= nil then
      parts[#parts + 1] = { key }
      any = true
    else
      add_text(parts, literal or text:sub(at, behind - 1))
    end
    at = behind
  end
  if parts[1] == nil then parts[1] = "" end
  return parts, any
end

--- Read a template.
---@param verb string
---@param given any
---@param items any  of the call, for a caller who has swapped them
---@return parallel.Plan
local function read (verb, given, items)
  local kind <const> = type(given)
  local plan, any = { shell = kind == "string" }, false
  if kind ~= "string" and type(items) == "string" then
    refuse(verb, "a text or an array of words expected, got "
           .. check.describe(given) .. "; the template comes first: "
           .. "parallel." .. verb .. "(template, items)")
  elseif kind == "string" then
    plan[1], any = read_shell(verb, given)
  elseif kind ~= "table" or rawlen(given) == 0 or check.is_module(given) then
    check.bad_argument(verb, "template", "a text or an array of words", given)
  else
    for i, word in ipairs(given) do
      if type(word) ~= "string" and math.type(word) == nil then
        refuse(verb, "words expected, got " .. check.describe(word))
      end
      local parts <const>, has <const> = read_word(tostring(word))
      plan[i], any = parts, any or has
    end
    local behind <const> = check.beyond(given)
    if behind ~= nil then
      refuse(verb, "an array of words expected, got the key "
             .. check.describe(behind))
    end
  end
  if not any then
    refuse(verb, string.format("no place for the item: write {} where it "
      .. "belongs, as in %s", kind == "string" and "\"gzip -9 {}\""
                              or "{ \"gzip\", \"-9\", \"{}\" }"))
  end
  return plan
end

return { read = read }
