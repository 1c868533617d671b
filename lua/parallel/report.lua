-- SPDX-License-Identifier: MIT
--- Reports: sums over the items of a `collect`.

local check = require "parallel.check"
local rows = require "parallel.rows"

local getmetatable, ipairs, pcall, setmetatable, string, table =
  getmetatable, ipairs, pcall, setmetatable, string, table

---@class parallel.Report
---@field total integer        items
---@field processed integer    items that were started and ended
---@field succeeded integer    completed, with or without errors
---@field with_errors integer  succeeded, and sent to their stream of errors
---@field failed integer       raised, ran out of time, or were lost
---@field cancelled integer    were never started, or were stopped
---@field success_rate number  succeeded / total; 1 when there were no items
---@field batches integer      chunks in which the items travelled
---@field batch_size? integer  items in each chunk, where the call said so
---@field duration number      seconds that the call took
---@field busy table<integer, number>  seconds of work by worker
---@field records parallel.Record[]
local report = { __name = "parallel.report" }
report.__index = report

--- Make a report of the records of a call.
---@param records parallel.Record[]
---@param total integer
---@param started number   instant
---@param ended number     instant
---@param batches integer
---@param batch_size integer?
---@return parallel.Report
function report.new (records, total, started, ended, batches, batch_size)
  local self = setmetatable({
    total = total, processed = 0, succeeded = 0, with_errors = 0, failed = 0,
    cancelled = 0, success_rate = 1, batches = batches,
    batch_size = batch_size, duration = ended - started, busy = {},
    records = records,
  }, report)
  for i = 1, total do
    local record <const> = records[i]
    local state <const> = record.state
    if state == "completed" or state == "completed_with_errors" then
      self.succeeded = self.succeeded + 1
      if state ~= "completed" then self.with_errors = self.with_errors + 1 end
    elseif state == "cancelled" then
      self.cancelled = self.cancelled + 1
    else
      self.failed = self.failed + 1
    end
    if record.worker ~= 0 then
      self.busy[record.worker] = (self.busy[record.worker] or 0)
                                 + record.duration
    end
  end
  self.processed = self.succeeded + self.failed
  if total > 0 then self.success_rate = self.succeeded / total end
  return self
end

---@param value any
---@return boolean
local function is_report (value)
  return getmetatable(value) == report
end

--- Make the function that reads a record by 'key', a field or a function.
---@param verb string
---@param key any
---@return fun(record: parallel.Record): any
local function reader (verb, key)
  return rows.reader(verb, key, rows.RECORD)
end

--- Count the records by the value of a field: `report:count "state"`.
---@type fun(self: parallel.Report,
---          key: string|fun(record: parallel.Record): any):
---          table<any, integer>
report.count = check.public("report:count(key)", 2, function (self, read)
  local counts = {}
  for _, record in ipairs(self.records) do
    local value = read(record)
    if value ~= nil and value == value then
      counts[value] = (counts[value] or 0) + 1
    end
  end
  return counts
end, function (self, key) return self, reader("count", key) end, is_report)

--- Group the records by the value of a field.
---@type fun(self: parallel.Report,
---          key: string|fun(record: parallel.Record): any):
---          table<any, parallel.Record[]>
report.group = check.public("report:group(key)", 2, function (self, read)
  local groups = {}
  for _, record in ipairs(self.records) do
    local value = read(record)
    if value ~= nil and value == value then
      groups[value] = groups[value] or {}
      table.insert(groups[value], record)
    end
  end
  return groups
end, function (self, key) return self, reader("group", key) end, is_report)

--- Show the records as `parallel.table` does it.
---@type fun(self: parallel.Report,
---          columns?: (string|{[1]: string, [2]: string|function})[],
---          opts?: parallel.TableOptions): string
report.table = check.public("report:table([columns [, {width =}]])", 3,
                            rows.show, function (self, columns, opts)
  local width <const> = check.read("table", opts, rows.TABLE).width
  return self.records, rows.columns_for("table", self.records, columns,
                                        rows.RECORD), width
end, is_report)

--- Write the sums.
---@param self parallel.Report
---@return string
local function write (self)
  local parts = { self.succeeded .. " succeeded" }
  if self.with_errors > 0 then
    parts[1] = parts[1] .. " (" .. self.with_errors .. " with errors)"
  end
  parts[2] = self.failed .. " failed"
  if self.cancelled > 0 then parts[3] = self.cancelled .. " cancelled" end
  return string.format("%d item%s: %s; %d %% in %.2f s", self.total,
                       self.total == 1 and "" or "s",
                       table.concat(parts, ", "),
                       self.total == 0 and 100
                       or 100 * self.succeeded // self.total, self.duration)
end

--- Show the sums: "12 items: 10 succeeded (1 with errors), 2 failed; 83 % in
--- 1.24 s".  A job can return any table as a report, so nothing raises here.
function report:__tostring ()
  local ok, text = pcall(write, self)
  return ok and text or "parallel.report (damaged)"
end

return report
