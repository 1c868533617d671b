#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Watch the machine and the pools while jobs run.
---
---     runspace examples/monitor.lua [TIMES]

local parallel = require "parallel"

local times <const> = math.tointeger(tonumber(arg and arg[1] or 3))
                      or error "TIMES is to be a whole number"

local function size (bytes)
  return ("%.1f MiB"):format(bytes / 2 ^ 20)
end

local function show ()
  local s = parallel.stats()
  local m <const> = s.machine
  print(("cpu %s of %d  memory %s of %s free  load %s  processes %s"):format(
    m.cpu and ("%3.0f %%"):format(100 * m.cpu) or "  ?", m.cpus,
    m.memory and size(m.memory.available) or "?",
    m.memory and size(m.memory.total) or "?",
    m.load and m.load[1] or "?", m.processes or "?"))
  for _, pool in ipairs(s.pools) do
    -- Not 'pool.idle': a worker that has just ended a job waits a moment
    -- later.
    local free <const> = pool.workers - pool.running
    print(("  pool: %d of %d workers, %d running, %d free, %d queued, "
           .. "%d done, %s"):format(pool.workers, pool.max, pool.running, free,
                                    pool.queued, pool.done.completed,
                                    size(pool.bytes)))
  end
end

for _ = 1, times do
  show()
  parallel.map(parallel.range(20), function (x)
    for _ = 1, 2e5 do x = x + 1 end
    return x
  end)
end
show()
