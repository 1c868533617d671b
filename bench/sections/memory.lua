-- SPDX-License-Identifier: MIT
--- What is left behind: memory, descriptors and threads over many items, jobs
--- and pools.  A figure is what there is at the end to what there was after
--- the first tenth, when everything had been used once.

local harness = ...

local memory = {}

local function take_stock ()
  return {
    memory = harness.resident(),
    descriptors = harness.entries "/proc/self/fd",
    threads = harness.entries "/proc/self/task",
  }
end

local function print_change (before, after)
  for _, what in ipairs { "memory", "descriptors", "threads" } do
    print(("  %8.3f x %-30s %+d%s on %d"):format(
      after[what] / before[what], what, after[what] - before[what],
      what == "memory" and " KiB" or "", before[what]))
  end
end

--- Do something 'count' times and print what that left.
---@param work fun(i: integer)
local function repeated (title, count, work)
  local before, after, time
  local disturbed = harness.watch(function ()
    for i = 1, count // 10 do work(i) end
    before = take_stock()
    local started = harness.now()
    for i = count // 10 + 1, count do work(i) end
    time = harness.now() - started
    after = take_stock()
  end)
  print(title)
  print_change(before, after)
  print(("  %.3g us each"):format(time / (count * 0.9) * 1e6))
  if disturbed then print("  " .. disturbed) end
  print()
end

function memory.each ()
  local count <const> = 1000000
  local function naturals ()
    local n = 0
    return function ()
      if n < count then
        n = n + 1
        return n
      end
    end
  end
  local pool <close> = parallel.pool { max = harness.workers }
  local next_record = pool:each(naturals(), function (x) return x + 1 end)
  local sum = 0
  repeated("1e6 items through each, from an iterator", count,
           function () sum = sum + next_record().result end)
  assert(next_record() == nil)
  assert(sum == count * (count + 1) // 2 + count)
end

function memory.lifecycle ()
  repeated("1,000 pools opened, used and closed", 1000, function (i)
    local pool <close> = parallel.pool { max = harness.workers }
    assert(pool:run("return ...", i) == i)
  end)
  local pool <close> = parallel.pool { max = harness.workers }
  local jobs = {}
  repeated("100,000 jobs, 100 in flight", 100000, function (i)
    local slot = i % 100
    if jobs[slot] then assert(jobs[slot]:get() == i - 100) end
    jobs[slot] = pool:spawn("return ...", i)
    if i == 10000 or i == 100000 then  -- stock is taken of nothing in flight
      for _, job in pairs(jobs) do job:wait() end
      jobs = {}
    end
  end)
  local last
  repeated("1e6 finished jobs whose handles were dropped", 1000000,
           function (i)
    last = pool:spawn("parallel.task.verbose(...)", i)
    if i % 500 == 0 then last:wait() end  -- bounds what is in flight
  end)
end

--- Memory of workers that have nothing to do.
function memory.idle ()
  local function grow (n)
    local _ <close> = harness.pool(n)
    return harness.resident()
  end
  grow(66)  -- what is kept for later is there now
  local few, many = {}, {}
  for i = 1, harness.rounds do
    local _ <close> = harness.pool(2)
    few[i] = harness.resident()
    many[i] = grow(64)
  end
  harness.note("one more idle worker",
               ((harness.spread(many)) - (harness.spread(few))) / 64,
               "KiB of resident memory", { most = 40 })
  print()
end

return memory
