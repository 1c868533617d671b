-- SPDX-License-Identifier: MIT
--- What the machine and the pools do before, while and after jobs run.

rounds = 1000

function spin (n)
  for _ = 1, rounds do
    n = n + 1
  end
  return n
end

function look ()
  stats = parallel.stats()
  machine = stats.machine
  print("machine", machine.cpus >= 1, machine.memory.available > 0,
        machine.processes > 0)
  print("pools", #stats.pools, "running", stats.running,
        "queued", stats.queued, "done", stats.done.completed)
end

look()
jobs = {}
for i = 1, 6 do
  jobs[i] = parallel.spawn(spin, i)
end
sum = 0
for _, job in ipairs(jobs) do
  sum = sum + job:get()
end
look()
-- It is not known when both looks fall into one tick of the clock.
print(sum, machine.cpu == nil or machine.cpu <= 1)
