#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Many small items in batches of a hundred, four at a time, with a line of
--- progress and a summary.
---
---     runspace examples/batches.lua [ITEMS]

local parallel = require "parallel"

local n <const> = math.tointeger(tonumber(arg and arg[1] or 2000))
                  or error "ITEMS is to be a whole number"

local _, report = parallel.collect(parallel.range(1, n), function (i)
  if i % 500 == 0 then error("item " .. i .. " is a bad one", 0) end
  return i * i
end, {
  chunk = 100,
  limit = 4,
  progress = "Processing",  -- nothing where there is no terminal
})

print("TotalItems", report.total)
print("ProcessedItems", report.processed)
print("SuccessfulItems", report.succeeded)
print("ErrorItems", report.failed)
print("Batches", report.batches)
print("SuccessRate", ("%.2f %%"):format(100 * report.success_rate))
for _, record in ipairs(report:group("state").failed or {}) do
  print("  " .. record.error)
end
