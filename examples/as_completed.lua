#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- A line for each server as soon as it is done, then a table of them all.
---
---     runspace examples/as_completed.lua

local parallel = require "parallel"

local servers <const> = { { "slow", 0.2 }, { "quick", 0.01 },
                          { "middling", 0.08 } }

local rows, workers = {}, {}
for record in parallel.each(servers, function (server)
  local socket = require "socket"
  socket.sleep(server[2])
  return "checked " .. server[1]
end, { limit = 5, chunk = 1, progress = "Servers" }) do
  print(("%-10s %s after %.2f s"):format(record.input[1], record.result,
                                         record.duration))
  rows[#rows + 1] = record
  workers[record.worker] = true
end

table.sort(rows, function (a, b) return a.index < b.index end)
print "\nserver     state      worker"
for _, record in ipairs(rows) do
  print(("%-10s %-10s %d"):format(record.input[1], record.state,
                                  record.worker))
end
local n = 0
for _ in pairs(workers) do n = n + 1 end
print(#rows .. " servers, " .. n .. " workers")
