#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Process items with parameters that are the same for all, and tell apart
--- what succeeded, what complained and what raised.
---
---     runspace examples/processing.lua

local parallel = require "parallel"

local function process (item, factor, most)
  if item < 0 then error("negative: " .. item, 0) end
  local value <const> = item * factor
  if value > most then
    -- Not the end of the item: it goes on, and is marked.
    parallel.task.error("above " .. most .. ": " .. value)
  end
  return value
end

local records, report = parallel.collect({ 1, 20, -3, 4 }, process, {
  limit = 5,
  params = { factor = 10, most = 100 },  -- by the names of its parameters
  streams = { error = false },           -- they are in the records
})

local WORDS <const> = {
  completed = "Success",
  completed_with_errors = "Error",
  failed = "Exception",
}
io.write(report:table({
  { "Input", "input" },
  { "Status", function (record) return WORDS[record.state] end },
  { "Result", "result" },  -- kept, also beside errors
  { "Error", "error" },
}, { width = 60 }))

-- The time in the queue and the time of the work are different things.
for _, record in ipairs(records) do
  assert(record.queued >= 0 and record.duration >= 0)
end
print(("%d of %d succeeded, %d of them with errors"):format(
  report.succeeded, report.total, report.with_errors))
