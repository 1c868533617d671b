-- SPDX-License-Identifier: MIT
--- What jobs send while they run, as text.

local failure = require "parallel.failure"

local string, type = string, type

--- Before a shown record.
---@type table<string, string>
local LABELS <const> = {
  output = "OUTPUT",
  error = "ERROR",
  warning = "WARNING",
  verbose = "VERBOSE",
  debug = "DEBUG",
  information = "INFORMATION",
  progress = "PROGRESS",
}

---@param value table
---@return string
local function progress_text (value)
  local text = value.activity or ""
  if value.status ~= nil then
    text = text .. (text ~= "" and ": " or "") .. value.status
  end
  if value.percent ~= nil then
    text = string.format("%s%s%.0f %%", text, text ~= "" and " " or "",
                         value.percent)
  end
  return text
end

--- The value of a record in one text.
---@param record parallel.StreamRecord
---@return string
local function message (record)
  local value <const> = record.value
  if record.stream == "progress" and type(value) == "table" then
    return progress_text(value)
  end
  return failure.text(value)
end

--- Who sent it: the job's name, or the item of a map.
---@param job parallel.Job
---@param record parallel.StreamRecord
---@return string
local function sender (job, record)
  local name = job.name
  if record.index == nil then return name end
  if name:find("^batch%-%d+$") then return "item " .. record.index end
  return name .. ", item " .. record.index
end

--- "WARNING: job-3: disk is nearly full"
---@param job parallel.Job
---@param record parallel.StreamRecord
---@return string
local function line (job, record)
  return string.format("%s: %s: %s\n", LABELS[record.stream],
                       sender(job, record), message(record))
end

return { LABELS = LABELS, line = line, message = message }
