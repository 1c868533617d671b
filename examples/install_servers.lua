#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Install a package on many servers (simulated), in three ways that suit
--- three needs.
---
---     runspace examples/install_servers.lua

local parallel = require "parallel"

local servers <const> = { "alpha", "beta", "gamma", "delta", "epsilon" }

--- What would be done on a server: takes its time, and may fail.
local function install (server, package)
  local socket = require "socket"
  parallel.task.verbose("connecting to " .. server)
  socket.sleep(0.02)
  if server == "gamma" then error("disk full on " .. server, 0) end
  if server == "delta" then
    parallel.task.warning(server .. " wants a restart")
  end
  return { server = server, message = package .. " installed" }
end

-- 1. A job for each server, by name: when each has a life of its own.
print "jobs:"
local jobs = {}
for i, server in ipairs(servers) do
  jobs[i] = parallel.submit {
    install,
    params = { server = server, package = "nginx" },
    name = "Install-" .. server,
    streams = { warning = function (record)
      print("  warning: " .. record.message)
    end },
  }
end
parallel.wait(jobs)
for _, job in ipairs(jobs) do
  local ok, result = job:join()
  print(("  %-16s %-10s %s"):format(job.name, job.state,
                                    ok and result.message or result.error))
end

-- 2. All at once: when only the summary matters.
print "collect:"
local _, report = parallel.collect(servers, install, {
  limit = 5,
  params = { package = "nginx" },
  streams = { warning = false },
  progress = "Installing",
})
for state, n in pairs(report:count "state") do print("  " .. state, n) end

-- 3. As they complete: when each result is wanted at once.
print "each:"
local done = 0
for record in parallel.each(servers, install, {
  limit = 5,
  params = { package = "nginx" },
  streams = { warning = false },
}) do
  done = done + 1
  print(("  %d of %d: %s %s"):format(done, #servers, record.input,
                                     record.state))
end
