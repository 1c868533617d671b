-- SPDX-License-Identifier: MIT
--- A map on machines with more cores than this one.
---
---     runspace bench/simulation.lua [-o FILE] [PARAMETER=VALUE...]
---
--- A simulation of discrete events: one host that adds chunks and takes them,
--- as batch.c does it, workers that run them, a window of chunks in flight.
--- It answers how the speed-up goes with cores and the cost of an item, where
--- the host becomes the limit, and what other designs would gain.
---
--- The parameters are nanoseconds, with defaults from this bench on two cores
--- (README.md has how they were got); -o writes all figures as CSV.  Under
--- runspace the first table sets simulated beside measured speed-ups on the
--- cores that are there.

local ns = {
  encode = 9,       -- an item, by the host
  decode = 7,       -- a result, by the host
  item = 14,        -- an item, by its worker, beyond what it costs in a loop
  chunk = 1500,     -- by its worker
  add = 1000,       -- a chunk, by the host
  take = 1000,      -- the same
  wake = 25000,     -- from somebody that sleeps to its first step
}

--- As in batch.c: seconds of a chunk, and when moving one costs too much.
local TARGET <const>, LEAST <const>, MOST <const> = 1e-3, 20e-6, 32768

--------------------------------------------------------------- the heap

--- Add to a heap of chunks, the one that ends first on top.
local function push (heap, chunk)
  local i = #heap + 1
  while i > 1 and heap[i // 2].ended > chunk.ended do
    heap[i], i = heap[i // 2], i // 2
  end
  heap[i] = chunk
end

local function pop (heap)
  local top, last = heap[1], table.remove(heap)
  local n, i = #heap, 1
  if n == 0 then return top end
  while 2 * i <= n do
    local child = 2 * i
    if child < n and heap[child + 1].ended < heap[child].ended then
      child = child + 1
    end
    if heap[child].ended >= last.ended then break end
    heap[i], i = heap[child], child
  end
  heap[i] = last
  return top
end

--------------------------------------------------------------- the map

--- Items for the next chunk (choose_size in batch.c).
local function choose_size (cost, left, workers)
  if cost == nil then return 1 end
  local share <const> = left / (2 * workers)
  local n = math.min(TARGET / cost, MOST, math.max(share, LEAST / cost))
  return math.max(1, math.min(left, n // 1))
end

--- Seconds that a map of 'count' items of 'cost' seconds takes.  'shared': the
--- host has no core of its own.
local function simulate (workers, count, cost, host, shared)
  local window <const> = 4 * workers
  local idle = {}  -- instants at which workers became free, oldest last
  for i = 1, workers do idle[i] = 0 end
  local queue, first, last = {}, 1, 0  -- added, not begun
  local running = {}  -- a heap
  local time, left, flight, known, spent = 0, count, 0, nil, 0
  local each <const> = cost + ns.item * 1e-9
  local busy = 0  -- of all workers
  local function begin (chunk, at)
    chunk.ended = at + ns.chunk * 1e-9 + chunk.n * each
    busy = busy + chunk.ended - at
    push(running, chunk)
  end
  while left > 0 or flight > 0 do
    if left > 0 and flight < window then
      local n = choose_size(known, left, workers)
      local took = ns.add * 1e-9 + n * host.encode
      time, spent = time + took, spent + took
      left, flight = left - n, flight + 1
      local free = table.remove(idle)
      if free ~= nil then
        begin({ n = n }, math.max(free, time + ns.wake * 1e-9))
      else
        last = last + 1
        queue[last] = { n = n, added = time }
      end
    else
      -- The host waits until half of the window has ended, or all.
      local enough = left > 0 and window // 2 or 1
      local taken = {}
      repeat
        local chunk = pop(running)
        if first <= last then  -- its worker goes on
          begin(queue[first], math.max(chunk.ended, queue[first].added))
          queue[first], first = nil, first + 1
        else
          table.insert(idle, 1, chunk.ended)
        end
        taken[#taken + 1] = chunk
        known = each
      until #taken >= enough or #running == 0
      local ready = taken[#taken].ended
      if ready > time then time = ready + ns.wake * 1e-9 end
      for _, chunk in ipairs(taken) do
        local took = ns.take * 1e-9 + chunk.n * host.decode
        time, spent = time + took, spent + took
        flight = flight - 1
      end
    end
  end
  if shared then time = math.max(time, (busy + spent) / workers) end
  return time
end

--- What the host does for an item, in each design.
local function designs ()
  local read <const> = 4e-9   -- to get at a field of a table
  local today = { name = "as it is", encode = ns.encode * 1e-9,
                  decode = ns.decode * 1e-9 }
  return {
    today,
    { name = "results decoded on demand", encode = today.encode, decode = 0 },
    { name = "items encoded by the workers", encode = read,
      decode = today.decode },
    { name = "both", encode = read, decode = 0 },
    { name = "a range, results on demand", encode = 0, decode = 0 },
  }
end

--------------------------------------------------------------- the tables

local rows = {}

local function note (design, cores, cost, speedup)
  rows[#rows + 1] = ("%s,%d,%g,%.4f"):format(design, cores, cost, speedup)
end

--- As many items as take some time on all cores.
local function items_for (workers, cost)
  return math.max(64 * workers, math.min(2000000, (workers * 0.2 // cost)))
end

local COSTS <const> = { 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2 }
local CORES <const> = { 2, 4, 8, 16, 32, 64, 128, 256 }

local function label (cost)
  if cost < 1e-6 then return ("%g ns"):format(cost * 1e9) end
  if cost < 1e-3 then return ("%g us"):format(cost * 1e6) end
  return ("%g ms"):format(cost * 1e3)
end

local function print_speedups (host)
  print(("\n%s: speed-up by cores and cost of an item"):format(host.name))
  local line = { ("%8s"):format "cores" }
  for _, cost in ipairs(COSTS) do
    line[#line + 1] = ("%8s"):format(label(cost))
  end
  print(table.concat(line))
  for _, cores in ipairs(CORES) do
    line = { ("%8d"):format(cores) }
    for _, cost in ipairs(COSTS) do
      local count = items_for(cores, cost)
      local speedup = count * cost
                      / simulate(cores, count, cost, host, cores == 2)
      note(host.name, cores, cost, speedup)
      line[#line + 1] = ("%8.1f"):format(speedup)
    end
    print(table.concat(line))
  end
end

--- Cores beyond which the host cannot feed any more.
local function print_limits (all)
  print "\ncores that the host can feed, by the cost of an item"
  for _, host in ipairs(all) do
    local each <const> = host.encode + host.decode
    local line = { ("%-32s"):format(host.name) }
    for _, cost in ipairs(COSTS) do
      line[#line + 1] = each > 0 and ("%9.0f"):format(cost / each)
                        or ("%9s"):format "-"
    end
    print(table.concat(line))
  end
end

--- Simulated and measured on the cores that are there.
local function print_check (host)
  local source <const> = [[
    return function (n)
      local x = 1.0
      for _ = 1, n do x = x * 1.0000001 end
      return x > 0 and n or 0
    end]]
  local spin = load(source)()
  local function time (work)
    local least = math.huge
    for _ = 1, 5 do
      collectgarbage()
      local began = parallel.now()
      work()
      least = math.min(least, parallel.now() - began)
    end
    return least
  end
  local cores <const> = math.min(parallel.cpus(), 256)
  local pool <close> = parallel.pool { min = cores, max = cores }
  print(("speed-up on %d cores, simulated and measured"):format(cores))
  for _, cost in ipairs { 1e-6, 1e-5, 1e-4, 1e-3 } do
    local loops = math.ceil(1e6 * cost / time(function () spin(1e6) end))
    local count = (0.2 // cost)
    local items = {}
    for i = 1, count do items[i] = loops end
    local function serially () for i = 1, count do spin(items[i]) end end
    local serial = time(serially)
    pool:map(items, spin)
    local parallel_time = time(function () pool:map(items, spin) end)
    local each <const> = serial / count
    local simulated = serial / simulate(cores, count, each, host, true)
    print(("%8s %8.2f %8.2f"):format(label(cost), simulated,
                                     serial / parallel_time))
    note("measured", cores, cost, serial / parallel_time)
    note("simulated", cores, cost, simulated)
  end
end

local output, i = nil, 1
while arg[i] do
  local name, value = arg[i]:match "^(%w+)=(%S+)$"
  if arg[i] == "-o" then
    output, i = arg[i + 1], i + 1
  elseif name and ns[name] and tonumber(value) then
    ns[name] = tonumber(value)
  else
    local names = {}
    for known in pairs(ns) do names[#names + 1] = known end
    table.sort(names)
    io.stderr:write("simulation.lua: there is no '", arg[i], "'; parameters: ",
                    table.concat(names, " "), "\n")
    os.exit(2)
  end
  i = i + 1
end

local all <const> = designs()
if parallel then print_check(all[1]) end
for _, host in ipairs(all) do print_speedups(host) end
print_limits(all)
if output then
  local file <close> = assert(io.open(output, "w"))
  file:write("design,cores,cost,speedup\n", table.concat(rows, "\n"), "\n")
end
