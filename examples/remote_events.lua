#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Jobs on other hosts that raise events: a handler here takes the result and
--- removes the job, and nobody polls.
---
---     runspace examples/remote_events.lua HOST...
---     runspace examples/remote_events.lua web1 admin@web2
---
--- HOST is what ssh knows, with a key that asks nothing, and with a runspace
--- in its PATH; or see --runspace.

local argparse = require "argparse"
local parallel = require "parallel"

local parser = argparse("remote_events.lua", "Hear of jobs on other hosts.")
parser:argument("host", "Name, or user@name"):args "+"
parser:option("-F --config", "A configuration of ssh")
parser:option("-r --runspace", "The program on the hosts")
local args <const> = parser:parse()

-- The sessions: a connection to each host, open for all that comes.
local pool <close> = parallel.pool {
  hosts = args.host,
  ssh = args.config and { "ssh", "-F", args.config } or nil,
  runspace = args.runspace,
}

local box <const> = { text = "" }  -- stands for a text box of a window
local left = #args.host

-- Handlers run here, whenever this thread waits.  An event knows its job, so
-- the job need not be told its own name.
parallel.on("raised", function (event)
  local job <const> = event.job
  local ok, system = job:join()  -- what it returns behind the event
  if not ok then return end      -- which the other handler tells
  box.text = "New value from " .. job.name .. ": " .. event.data
  print(box.text, job.host .. " runs " .. system)
  job:remove()  -- nothing of it is kept
  left = left - 1
end)

-- A connection that is cut takes its job along.
local function tell_failure (event)
  local job <const> = event.job
  print(job.name .. " " .. job.state .. ": " .. tostring(job.error))
  job:remove()
  left = left - 1
end
parallel.on("failed", tell_failure)
parallel.on("lost", tell_failure)

--- Runs on a host: takes its time, and raises an event when it is done.
local function work (n)
  parallel.task.sleep(0.1)
  parallel.task.emit("raised", n * n)
  local pipe <close> = io.popen "uname -s"
  return pipe:read "l"
end

for i = 1, #args.host do
  pool:submit { work, arguments = { i }, name = "EventTestJob" .. i }
end
while left > 0 do parallel.poll(1) end
print("jobs left: " .. #parallel.jobs())
