-- SPDX-License-Identifier: MIT
--- Stream records, which jobs send while they run, as text.

local _, core = ...  -- parallel.core
local failure = require "parallel.failure"

local setmetatable, string, type = setmetatable, string, type

---@param value table
---@return string
local function progress_text (value)
  local text = core.escape(value.activity or "")
  if value.status ~= nil then
    text = text .. (text ~= "" and ": " or "") .. core.escape(value.status)
  end
  if value.percent ~= nil then
    text = string.format("%s%s%.0f %%", text, text ~= "" and " " or "",
                         value.percent)
  end
  return text
end

--- Write the value of a record as one text.
---@param record parallel.StreamRecord
---@return string
local function message (record)
  local value <const> = record.value
  if record.stream == "progress" and type(value) == "table" then
    return progress_text(value)
  end
  return failure.text(value)
end

--- Functions that name the items of a call, by the id of the call; calls whose
--- items are called "item 3" have none.
---@type table<integer, fun(index: integer): string>
local names = {}

local NAMED <const> = {
  __close = function (self) names[self.id] = nil end,
}

--- Let the function 'name' name the items of the call 'id'.
---@param id integer
---@param name fun(index: integer): string
---@return table guard  a value to be closed at the end of the call
local function name_items (id, name)
  names[id] = name
  return setmetatable({ id = id }, NAMED)
end

--- Name the sender of a record: the job, or the item of a map.
---@param job parallel.Job
---@param record parallel.StreamRecord
---@return string
local function sender (job, record)
  local name = core.escape(job.name)
  if record.index == nil then return name end
  local tell <const> = names[job.id]
  local item <const> = tell and tell(record.index) or "item " .. record.index
  if name:find("^batch%-%d+$") then return item end
  return name .. ", " .. item
end

--- Write a record as a line: "WARNING: job-3: disk is nearly full".
---@param job parallel.Job
---@param record parallel.StreamRecord
---@return string
local function line (job, record)
  return string.format("%s: %s: %s\n", core.stream_labels[record.stream],
                       sender(job, record), message(record))
end

return {
  line = line,
  message = message,
  name_items = name_items,
}
