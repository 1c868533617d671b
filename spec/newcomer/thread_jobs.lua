-- SPDX-License-Identifier: MIT
--- More jobs than there are workers: the others wait for their turn.

bad = 3

function square (n)
  return n * n
end

function work (n)
  if n == bad then
    error("not " .. n, 0)
  end
  return square(n) + offset
end

-- Each runspace is prepared by a function before its first job.
function prepare ()
  offset = 1000
end

pool = parallel.pool { max = 5, init = prepare }
jobs = {}
for i = 1, 8 do
  jobs[i] = pool:spawn(work, i)
end

good, poor, seconds, workers = 0, 0, 0, {}
for i, job in ipairs(jobs) do
  ok, result = job:join()
  if ok then
    good = good + 1
  else
    poor = poor + 1
  end
  print(i, job.state, ok and result or result.error)
  seconds = seconds + job.duration
  workers[job.worker] = true
end
distinct = 0
for _ in pairs(workers) do
  distinct = distinct + 1
end
print(good .. " good, " .. poor .. " bad", seconds / #jobs >= 0,
      distinct >= 1 and distinct <= 5)
pool:close()
