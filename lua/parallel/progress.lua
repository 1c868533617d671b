-- SPDX-License-Identifier: MIT
--- The progress line: one line that tells how far a call is.
--
-- The line is shown while the host waits in this module, and is taken away
-- before other code of the host runs.  Lines that jobs print appear above it
-- (`status` of the C part).

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local text_table = require "parallel.text_table"

local ipairs, math, next, os, pcall, require, setmetatable, string, table,
      tostring, type =
  ipairs, math, next, os, pcall, require, setmetatable, string, table,
  tostring, type

--- Seconds from one drawing of the line to the next: at least, at most.
local OFTEN <const>, SELDOM <const> = 0.1, 0.5

---@class parallel.ProgressState
---@field title string
---@field done integer
---@field failed integer
---@field total? integer  number of items, where it is known
---@field elapsed number  seconds
---@field rate number     items a second
---@field left? number    seconds to the end, where they can be estimated

---@class parallel.Progress
local progress = { __name = "parallel.progress" }
progress.__index = progress

---@alias parallel.ProgressOption
---| boolean
---| string  a title
---| parallel.ProgressOptions
---| fun(state: parallel.ProgressState)

---@class parallel.ProgressOptions
---@field title? string
---@field leave? boolean   the line stays at the end; default true
---@field total? integer   number of items, where an iterator gives them

--- Fields of a table that describes the line.
---@type table<string, fun(value: any): boolean, string>
local FIELDS <const> = {
  leave = function (value)
    return type(value) == "boolean", "true or false"
  end,
  title = function (value)
    return type(value) == "string", "a string"
  end,
  total = function (value)
    local n <const> = math.type(value) and math.tointeger(value)
    return n ~= nil and n >= 0, "a number of items"
  end,
}

---@param value any
---@return string? expected
---@return string? wrong
local function test (value)
  if value == true or value == false or type(value) == "string"
     or type(value) == "function" then
    return nil
  elseif type(value) ~= "table" then
    return "true, a title, a function or a table"
  end
  for name, field in next, value do
    if FIELDS[name] == nil then
      return "a table of title, leave and total",
             "the key " .. check.describe(name)
    end
    local good <const>, expected <const> = FIELDS[name](field)
    if not good then
      return expected .. " for its field '" .. name .. "'",
             check.describe(field)
    end
  end
end

---@param name string
---@return string
local function env (name)
  return os and os.getenv and os.getenv(name) or ""
end

--- Return the codes of lua-term for colours in the line; empty texts without
--- lua-term, and where colours are not wanted.
---@return string good
---@return string bad
---@return string reset
local function colours ()
  if env "NO_COLOR" ~= "" or env "TERM" == "dumb" or env "TERM" == "" then
    return "", "", ""
  end
  local ok, term = pcall(require, "term")
  if not ok or type(term) ~= "table" or term.colors == nil then
    return "", "", ""
  end
  return tostring(term.colors.green), tostring(term.colors.red),
         tostring(term.colors.reset)
end

--- Start the progress of a call; nil when it is not wanted, or there is no
--- terminal to show it on.
---@param wanted any     the option `progress`
---@param total integer?  number of items
---@param name string?   the call's
---@return parallel.Progress?
function progress.start (wanted, total, name)
  if not wanted then return nil end
  local call = type(wanted) == "function" and wanted or nil
  if call == nil and not core.is_terminal(2) then return nil end
  local given <const> = type(wanted) == "table" and wanted
                        or { title = type(wanted) == "string" and wanted }
  local self = setmetatable({
    title = call and (name or "")
            or text_table.plain(given.title or name or ""),
    call = call, total = total or math.tointeger(given.total),
    leave = call == nil and given.leave ~= false,
    started = core.now(), drawn = -math.huge, done = 0, failed = 0,
  }, progress)
  if call == nil then
    self.good, self.bad, self.reset = colours()
  end
  return self
end

---@param self parallel.Progress
---@return parallel.ProgressState
local function state_of (self)
  local elapsed <const> = core.now() - self.started
  local rate = elapsed > 0 and self.done / elapsed or 0
  local state = {
    title = self.title, done = self.done, failed = self.failed,
    total = self.total, elapsed = elapsed, rate = rate,
  }
  if self.total ~= nil and rate > 0 then
    state.left = (self.total - self.done) / rate
  end
  return state
end

--- Write seconds as a time: "1:05", "2:01:40".
---@param seconds number
---@return string
local function clock (seconds)
  local s = math.floor(seconds + 0.5)
  if s >= 3600 then
    return string.format("%d:%02d:%02d", s // 3600, s // 60 % 60, s % 60)
  end
  return string.format("%d:%02d", s // 60, s % 60)
end

--- Write a number of items in a few characters.
---@param n number
---@return string
local function short (n)
  if n >= 1e6 then return string.format("%.1fM", n / 1e6) end
  if n >= 1e4 then return string.format("%.0fk", n / 1e3) end
  return string.format(n >= 10 and "%.0f" or n >= 1 and "%.1f" or "%.2g", n)
end

--- Make the texts that stand behind the bar, the most important first: the
--- count, the rate, the time.
---@param s parallel.ProgressState
---@param over? boolean
---@return string[]
local function details (s, over)
  local list = { s.total and string.format("%d/%d", s.done, s.total)
                 or string.format("%d", s.done) }
  if s.done > 0 then list[2] = short(s.rate) .. "/s" end
  if over then
    list[#list + 1] = require("parallel.rows").duration(s.elapsed)
  elseif s.left ~= nil and s.done < s.total then
    list[#list + 1] = clock(s.left) .. " left"
  elseif s.total == nil then
    list[#list + 1] = clock(s.elapsed)
  end
  return list
end

--- Make the line, of at most 'width' columns.  In a line that is too long the
--- bar is left out, then the time, then the rate; then the title is cut.
---@param self parallel.Progress
---@param width integer
---@return string
local function line (self, width)
  local s <const> = state_of(self)
  local list <const> = details(s, self.over)
  local fault = s.failed > 0 and s.failed .. " failed" or ""
  local title_width <const> = text_table.width_of(s.title)
  local function needed ()
    local n = title_width + (title_width > 0 and 1 or 0)
    for _, detail in ipairs(list) do
      n = n + text_table.width_of(detail) + 2
    end
    return n - 2 + (fault ~= "" and #fault + 2 or 0)
  end
  while #list > 1 and needed() > width do list[#list] = nil end
  local title = s.title
  if needed() > width then
    local room = width - (needed() - title_width)
    title = room > 0 and text_table.cut(title, room) or ""
    if needed() - title_width - 1 > width then fault = "" end
  end
  local bar, room = "", width - needed() - 3
  if s.total ~= nil and title == s.title and room >= 8 then
    local cells = math.min(room, 40)
    local full = s.total > 0 and math.min(cells, cells * s.done // s.total)
                 or cells
    bar = "[" .. self.good .. string.rep("=", full)
          .. self.reset .. string.rep(" ", cells - full) .. "] "
  end
  local text = (title ~= "" and title .. " " or "") .. bar
               .. text_table.cut(table.concat(list, "  "), width)
  if fault ~= "" then
    text = text .. "  " .. self.bad .. fault .. self.reset
  end
  return text
end

--- Draw the line, or call the function of the option, unless that was done a
--- moment ago.
---@param force? boolean
function progress:draw (force)
  local now <const> = core.now()
  if not force and now - self.drawn < OFTEN then return end
  self.drawn = now
  if self.call ~= nil then
    self.calling = true  -- stays true when the function raises
    self.call(state_of(self))
    self.calling = false
  else
    local width = core.terminal_width(2) or 80
    self.text = line(self, width - 1)
    core.status(self.text)
    self.shown = true
  end
end

--- Count an item that has ended.
---@param failed boolean
function progress:add (failed)
  self.done = self.done + 1
  if failed then self.failed = self.failed + 1 end
end

--- Count 'n' items that have ended well.
---@param n integer
function progress:advance (n)
  self.done = self.done + n
end

--- Draw the line, and return the seconds that the host may wait until the line
--- has to be drawn again; no more than 'timeout'.
---@param timeout? number
---@return number
function progress:patience (timeout)
  self:draw()
  local most <const> = (self.shown or self.call) and SELDOM or OFTEN
  return timeout == nil and most or math.min(timeout, most)
end

--- Let the input add items.  The line is taken away while an iterator runs,
--- since that is code of the host, which may print.
---@param source parallel.Input
---@param batch parallel.Batch
---@return boolean more
function progress:feed (source, batch)
  if not self.shown or source.inputs == nil then return source.feed(batch) end
  core.status(nil)
  local more = source.feed(batch)
  core.status(self.text)
  return more
end

--- Take the line away; the next drawing brings it back.
function progress:hide ()
  if self.shown then
    core.status(nil)
    self.shown = false
  end
end

--- Draw a last time, since the call is over.  The line stays, with the time
--- that the call took, unless it shall not.  If the call failed, an error of
--- the function of the option is dropped, so that the error of the call is not
--- hidden.
---@param problem any  the error of the call, or nil
function progress:finish (problem)
  if self.over then return end
  self.over = true
  if self.call ~= nil and not self.calling then
    if problem ~= nil then
      pcall(self.draw, self, true)
    else
      self:draw(true)
    end
  end
  self:hide()
  if self.leave then
    core.write(2, line(self, (core.terminal_width(2) or 80) - 1) .. "\n")
  end
end

progress.__close = progress.finish
progress.test = test

return progress
