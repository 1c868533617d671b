#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Jobs by name: start them, wait for them, ask for them, remove them.
---
---     runspace examples/job_manager.lua

local parallel = require "parallel"

local manager <close> = parallel.manager(2)  -- two at a time

local function backup (path, files)
  for i = 1, files do
    parallel.task.progress { activity = path, percent = 100 * i / files }
  end
  if path == "/root" then error("permission denied: " .. path, 0) end
  return files .. " files of " .. path
end

manager:start(backup, { path = "/home", files = 300 }, "home")
manager:start(backup, { path = "/srv", files = 20 }, "srv")
manager:start(backup, { path = "/root", files = 5 }, "root")
print("taken", pcall(manager.start, manager, backup, { "/", 1 }, "home"))

print("home", manager:wait("home", 60).result)
manager:wait_all(60)
for _, record in ipairs(manager:completed()) do
  print(record.name, record.state, record.result or record.error)
end

manager:remove "root"
print("left", #manager:all())
print("gone", pcall(manager.get, manager, "root"))
