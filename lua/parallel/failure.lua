-- SPDX-License-Identifier: MIT
--- Failures: values that say what went wrong in a runspace.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local hint = require "parallel.hint"

local assert, error, getmetatable, ipairs, math, next, pcall, rawget, rawlen,
      select, setmetatable, string, table, tostring, type =
  assert, error, getmetatable, ipairs, math, next, pcall, rawget, rawlen,
  select, setmetatable, string, table, tostring, type

--- Error value that `map`, `run` and `job:get` raise, and `job:join` returns.
---@class parallel.Failure
---@field index? integer  the item's, in a map; the first item's of a part
---@field last? integer   the last item's of a part, in a reduction
---@field input? any      the item
---@field error any       the value that was raised; a table comes as a copy
---@field traceback? string  the runspace's
---@field state string    how it ended: "failed", "cancelled", "lost", ...
---@field reason? string  why: "error", "timeout", "memory_limit", ...
---@field name? string    the job's or the call's
---@field hint? string    a remedy, where one is known
---@field where? string   the line of the host that made the call: "scan.lua:7"
local failure = { __name = "parallel.failure" }

--- Turn 'fields' into a failure.
---@param fields table
---@param call? boolean  the failure is of a call that takes an initial state
---       itself; jobs and methods of pools take none
---@return parallel.Failure
function failure.new (fields, call)
  fields.hint = hint(fields.error, call)
  fields.where = core.position():match "^(.+): $"
  return setmetatable(fields, failure)
end

--- Make the failure of a job from the values that its `fetch` returned.
---@param job parallel.Job
---@param value any
---@param traceback string?
---@param state string
---@return parallel.Failure
function failure.of_job (job, value, traceback, state)
  return failure.new {
    error = value,
    traceback = traceback,
    state = state,
    reason = job.reason,
    name = job.name,
  }
end

--- Cut a text to 'room' bytes.
---@param text string
---@param room integer
---@return string
local function cut (text, room)
  if #text <= room then return text end
  local at = room - 3
  while at > 0 and (text:byte(at + 1) or 0) & 0xC0 == 0x80 do at = at - 1 end
  return text:sub(1, at) .. "..."
end

--- Keys of a table that are sorted, at most; more are shown as they come.
local SORTED <const> = 1000

--- Write a value in a part of a line.
---@param value any
---@param inside? boolean
---@return string
local function brief (value, inside)
  local kind = type(value)
  if kind == "string" then
    return '"' .. core.escape((cut(value, 40):gsub('["\\]', "\\%0"))) .. '"'
  end
  if kind ~= "table" then return core.escape(tostring(value)) end
  local metatable = getmetatable(value)
  if type(metatable) == "table" and metatable.__tostring ~= nil then
    local ok, text = pcall(tostring, value)
    return ok and core.escape(cut(text, 60)) or "a table"
  end
  if inside then return "{...}" end
  local parts, border = {}, rawlen(value)
  for i = 1, math.min(border, 5) do
    parts[i] = brief(rawget(value, i), true)
  end
  local keys = {}
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 or key > border then
      keys[#keys + 1] = key
      if #keys > SORTED then break end
    end
  end
  if #keys <= SORTED then table.sort(keys, check.precedes) end
  for _, key in ipairs(keys) do
    if #parts >= 5 then break end
    local name = type(key) == "string" and key:find("^[%a_][%w_]*$") and key
                 or "[" .. brief(key, true) .. "]"
    parts[#parts + 1] = name .. " = " .. brief(rawget(value, key), true)
  end
  return cut("{" .. table.concat(parts, ", ") .. "}", 60)
end

--- Write an error value as a message.
---@param value any
---@return string
function failure.message_of (value)
  if type(value) == "string" then return value end
  if type(value) ~= "table" then
    return "(error value: " .. brief(value) .. ")"
  end
  local metatable = getmetatable(value)
  if type(metatable) == "table" and metatable.__tostring ~= nil then
    local ok, text = pcall(tostring, value)
    if ok then return text end
  end
  local message = rawget(value, "message")
  if type(message) == "string" then
    return message .. " " .. brief(value)
  end
  return "(error value: " .. brief(value) .. ")"
end

--- Write any value as text, for people.
---@param value any
---@return string
function failure.text (value)
  if type(value) == "string" then return value end
  if type(value) == "table" and rawget(value, "message") ~= nil then
    return failure.message_of(value)
  end
  return brief(value)
end

--- Pattern of a traceback that has no line of the script.
local NOWHERE <const> = "^stack traceback:\n\t%[C%]: in %?$"

local ENDED <const> = {
  cancelled = "was cancelled",
  lost = "was lost: its runspace never came back from it",
  timed_out = "ran out of time",
}

--- Parts of the error of a job whose worker was a process, with its name in
--- front if it has one.  They say how the job was lost.
local PROCESS <const> = {
  "^the worker process ", "^[^:\n]+: the worker process ",
  "^[^\n]+: connection closed$",
}

--- Tell whether an error says how a process was lost.
---@param text any
---@return boolean
local function tells_loss (text)
  if type(text) ~= "string" then return false end
  for _, part in ipairs(PROCESS) do
    if text:find(part) then return true end
  end
  return false
end

--- Reasons that tell no more than the state does.
local PLAIN <const> = { cancelled = true, timeout = true }

--- Write whose failure it is, and how the item or job ended: "item 3
--- ("web1")", "'job-2' ran out of time".  The second result is true if the
--- error has to be told, too.
---@param self parallel.Failure
---@return string
---@return boolean
local function head (self)
  local who
  if self.last ~= nil and self.last ~= self.index then
    who = string.format("items %d to %d", self.index, self.last)
  elseif self.index ~= nil then
    who = string.format("item %d (%s)", self.index, brief(self.input))
  end
  if self.name ~= nil then
    local name <const> = core.escape(self.name)
    who = who and who .. " of '" .. name .. "'" or "'" .. name .. "'"
  end
  who = who or "job"
  local ended = ENDED[self.state]
  if ended == nil then return who, true end
  if self.state == "lost" and tells_loss(self.error) then
    ended = "was lost"
  end
  return who .. " " .. ended, self.error ~= nil and not PLAIN[self.reason]
end

--- The frame of the worker, at the end of a traceback.
local WORKER <const> = "\n\t%[C%]: in %?$"

--- Write the lines of the runspace's traceback, and that of the hint, if there
--- are any.
---@param self parallel.Failure
---@return string traceback
---@return string hint
local function tail (self)
  local text = ""
  local traceback <const> = self.traceback
  if type(traceback) == "string" and not traceback:find(NOWHERE) then
    text = "\n" .. traceback:gsub("^stack traceback:",
                                  "traceback of the runspace:")
                            :gsub(WORKER, "")
  end
  return text, self.hint ~= nil and "\nhint: " .. self.hint or ""
end

--- Lengths of a chain of failures, each the error of the one before.  SHOWN of
--- the first and SHOWN of the last ones are shown; LONGEST are looked at.
local SHOWN <const>, LONGEST <const> = 4, 1000

--- Write the message, "item 3 ("web1"): scan.lua:12: no route", and what
--- `tail` tells.  When a job fails because one that it waited for failed, its
--- error is the failure of that one: "'job-1': 'job-2': no route".
---@param self parallel.Failure
---@return string message
---@return string tracebacks
---@return string hints
local function write (self)
  local chain = { self }
  while #chain < LONGEST and getmetatable(self.error) == failure
        and select(2, head(self)) do
    self = self.error
    chain[#chain + 1] = self
  end
  local heads, tracebacks, hints = {}, "", ""
  for i, one in ipairs(chain) do
    local left <const> = #chain - i
    if i <= SHOWN or left < SHOWN then
      heads[#heads + 1] = head(one)
      local traceback <const>, remedy <const> = tail(one)
      tracebacks, hints = traceback .. tracebacks, remedy .. hints
    elseif i == SHOWN + 1 then
      heads[#heads + 1] = "(" .. left - SHOWN + 1 .. " more)"
    end
  end
  if select(2, head(self)) then
    heads[#heads + 1] = failure.message_of(self.error)
  end
  return table.concat(heads, ": "), tracebacks, hints
end

--- What stands for a failure whose fields are no longer what they were: a job
--- can return any table as a failure, so nothing may raise when one is shown.
local DAMAGED <const> = "parallel.failure (damaged)"

--- Write all that is known of a failure, in several lines, for people; or
--- another error value.
---@param self any
---@return string
function failure.explain (self)
  if getmetatable(self) ~= failure then return failure.message_of(self) end
  local ok, message, tracebacks, hints = pcall(write, self)
  return ok and message .. tracebacks .. hints or DAMAGED
end

--- Write a failure that nobody has caught: with the line that made the call in
--- front, and with the script's own traceback.
---@param self parallel.Failure
---@param stack string  "" for none
---@return string
local function write_uncaught (self, stack)
  local message, tracebacks, hints = write(self)
  if type(self.where) == "string" then
    message = self.where .. ": " .. message
  end
  if stack ~= "" then stack = "\n" .. stack end
  return message .. tracebacks .. stack .. hints
end

--- Write the message and the hints of a failure, on one line.
---@param self parallel.Failure
---@return string
local function write_line (self)
  local ok, message, _, hints = pcall(write, self)
  if not ok then return DAMAGED end
  return core.escape((message:gsub("\n+$", "") .. hints:gsub("\n", "; ")))
end

--- The text of a failure, or another value as it is.
---@param value any
---@return any
local function as_text (value)
  return getmetatable(value) == failure and write_line(value) or value
end

--- Methods of strings, by those of failures that were made of them.
---@type table<function, function>
local methods <const> = setmetatable({}, { __mode = "k" })

--- A failure has the methods of strings, those that a script has added
--- included: `failure:match "no route"`.
---@param key any
---@return function?
function failure.__index (_, key)
  local shared <const> = getmetatable("")
  local index <const> = type(shared) == "table" and rawget(shared, "__index")
  local method <const> = type(index) == "table" and index[key] or nil
  if type(method) ~= "function" then return nil end
  local made = methods[method]
  if made == nil then
    made = function (self, ...) return method(as_text(self), ...) end
    methods[method] = made
  end
  return made
end

---@param a any
---@param b any
---@return string
function failure.__concat (a, b)
  local left <const>, right <const> = as_text(a), as_text(b)
  for _, text in ipairs { type(left), type(right) } do
    if text ~= "string" and text ~= "number" then
      error("attempt to concatenate a " .. text .. " value", 2)
    end
  end
  return left .. right
end

---@param self parallel.Failure
---@return integer
function failure.__len (self)
  return #write_line(self)
end

--- Write the failure: on one line, unless it is about to be shown by who calls
--- because nobody has caught it.
---@param self parallel.Failure
---@param stack? string  the script's traceback: the program 'runspace' shows
---       the failure
---@return string
function failure.__tostring (self, stack)
  stack = stack or core.uncaught(tostring, error, assert)
  if stack == nil then return write_line(self) end
  local ok, text = pcall(write_uncaught, self, stack)
  return ok and text or DAMAGED
end

return failure
