#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- What a job can tell beside its results.
---
---     runspace examples/streams.lua

local parallel = require "parallel"

local job = parallel.submit {
  function ()
    local task <const> = parallel.task
    task.verbose "opening the list"
    task.output("first", 1)                    -- a value before the results
    task.warning "the list is old"
    task.error { line = 3, what = "unreadable" }  -- the job goes on
    task.progress { activity = "reading", status = "list", percent = 50 }
    task.debug { cache = "cold" }
    task.information "nearly there"
    print "printed by the job"                 -- is information, too
    return "result"
  end,
  name = "reader",
  -- Warnings and errors are shown on the standard error unless told
  -- otherwise; others can be, or be handed to a function.
  streams = {
    warning = false,
    error = false,
    verbose = function (record) print("heard: " .. record.message) end,
  },
}

print("result", job:get())
print("state", job.state, job.reason)
print("error", job.error.what, "line " .. job.error.line)

-- Each stream by its name, and all of them in one order.
print("warnings", #job.streams.warning, job.streams.warning[1].message)
for _, record in ipairs(job.streams.all) do
  print(record.sequence, record.stream, record.message)
end

-- Read while the job runs, and until it ends.
local counter = parallel.spawn(function ()
  for i = 1, 5 do parallel.task.output(i * i) end
end)
for record in counter:records() do io.write(record.value, " ") end
print "end"
