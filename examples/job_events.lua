#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Jobs that raise events: the host hears of them, and nobody polls.
---
---     runspace examples/job_events.lua

local parallel = require "parallel"

local left = 0

-- The handler runs here, in the host, whenever it waits.  The event knows
-- its job, so neither repeats the other's name.
parallel.on("half way", function (event)
  print(event.job_name .. " is half way, at " .. event.data)
end)
parallel.on("finished", function (event)
  local ok, result = event.job:join()
  print(event.job_name .. " " .. event.job.state .. ": "
        .. tostring(ok and result or result.error))
  event.job:remove()  -- nothing of it is kept
  left = left - 1
end)

local function count (to)
  local sum = 0
  for i = 1, to do
    sum = sum + i
    if i == to // 2 then parallel.task.emit("half way", i) end
  end
  if to < 0 then error("cannot count to " .. to, 0) end
  return sum
end

for name, to in pairs { hundred = 100, million = 1000000, minus = -1 } do
  parallel.submit { count, arguments = { to }, name = name }
  left = left + 1
end
while left > 0 do parallel.poll(1) end  -- waits, and runs the handlers
print("jobs left: " .. #parallel.jobs())
