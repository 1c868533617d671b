#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Jobs in the background: more than there are workers wait for their turn.
---
---     runspace examples/thread_jobs.lua

local parallel = require "parallel"

-- luacheck: read globals unit

local pool <close> = parallel.pool {
  max = 5,
  init = "unit = 1000",  -- once in each runspace
}

local function work (n)
  local sum = 0
  for i = 1, n * unit do sum = sum + i end
  if n == 4 then error("four is refused", 0) end
  return sum
end

local jobs = {}
for i = 1, 8 do jobs[i] = pool:spawn(work, i) end

local succeeded, failed, seconds, workers = 0, 0, 0, {}
for i, job in ipairs(jobs) do
  local ok, value = job:join()
  print(i, job.state, ok and value or value.error)
  if ok then succeeded = succeeded + 1 else failed = failed + 1 end
  seconds = seconds + job.duration
  workers[job.worker] = true
end
local distinct = 0
for _ in pairs(workers) do distinct = distinct + 1 end
print(("%d succeeded, %d failed, %.6f s each, workers: %s"):format(
  succeeded, failed, seconds / #jobs, distinct <= 5 and "up to 5" or "?"))
