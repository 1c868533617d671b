-- SPDX-License-Identifier: MIT
--- Jobs tell when they are done: nobody looks for them, handlers are called.

factor = 2
pending = 0

function double (n)
  return n * factor
end

function work (n)
  parallel.task.emit("new value", double(n))
  if n < 0 then
    error("below zero: " .. n, 0)
  end
  return n
end

function start (name, n)
  pending = pending + 1
  parallel.submit { work, arguments = { n }, name = name }
end

function new_value (event)
  print(event.job_name .. " has " .. event.data)
  if event.job_name == "one" then
    start("three", event.data + 1)
  end
end

function finished (event)
  ok, result = event.job:join()
  print(event.job_name .. " is " .. event.job.state,
        ok and result or result.error)
  event.job:remove()
  pending = pending - 1
end

parallel.on("new value", new_value)
parallel.on("finished", finished)

start("one", 1)
start("two", 2)
start("minus", -1)
while pending > 0 do
  parallel.poll(1)
end
print("left: " .. #parallel.jobs())
