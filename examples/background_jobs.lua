#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Background jobs, each in a process of its own: look at their states, take
--- what they have told so far, and go on when one crashes or is stopped.
---
---     runspace examples/background_jobs.lua

local parallel = require "parallel"

local pool <close> = parallel.pool {
  isolation = "process",
  max = 4,  -- further jobs wait for their turn
}

--- Count the lines of a file.
local function count (path)
  local task <const> = parallel.task
  task.verbose("reading " .. path)
  local file <close>, problem = io.open(path)
  if file == nil then
    task.error("cannot read " .. problem)  -- the job goes on
    return 0
  end
  local n = 0
  for _ in file:lines() do n = n + 1 end
  return n
end

--- What the system does to a process when memory runs out.
local function crash ()
  parallel.task.warning "this will not end well"
  os.execute "kill -KILL $PPID"
end

--- Tell how it goes, for ever.
local function watch ()
  for round = 1, math.huge do
    parallel.task.output("round " .. round)
    parallel.task.sleep(0.01)
  end
end

--- Start a job by name.  Its streams are read below, and not shown.
local function start (name, fn, ...)
  return pool:submit {
    fn, arguments = { ... }, name = name,
    streams = { warning = false, error = false },
  }
end

local watcher <const> = start("watch", watch)
local jobs <const> = {
  start("count", count, arg[0]),
  start("missing", count, "no/such/file"),
  start("crash", crash),
}

-- The program does something else, and looks now and then.
print "states:"
local seen <const> = {}
repeat
  local _, pending <const> = parallel.wait(jobs, { timeout = 0.02 })
  for _, job in ipairs(jobs) do
    if job.state ~= seen[job] then
      seen[job] = job.state
      print("  " .. job.name, job.state)
    end
  end
until #pending == 0

-- Who does not want to look waits: for the first words of a job, or its end.
print "stopped:"
local next_record <const> = watcher:records()
print("  " .. watcher.name, next_record().message)
watcher:cancel()
print("  " .. watcher.name, watcher:wait())

-- The process of the crash took its job along, and nothing else.
print "received:"
for _, job in ipairs(jobs) do
  local ok, result = job:join()
  print("  " .. job.name, ok and result or job.error)
  for _, record in ipairs(job.streams.all) do
    print("  " .. job.name, record.stream .. ": " .. record.message)
  end
  job:remove()
end
watcher:remove()
print("jobs left: " .. #parallel.jobs())
