-- SPDX-License-Identifier: MIT
--- Child processes: what they cost beside threads.

local harness = ...
local compare <const>, median <const> = harness.compare, harness.median
local spin <const> = harness.spin

local payloads <const> = dofile(harness.beside "payloads.lua")

local function empty () end
local function square (x) return x * x end

--- A pool of so many children, all of them there.
local function children (n)
  return harness.pool(n, { isolation = "process" })
end

--- Both figures of the same work, in children and in threads.
---@param title string
---@param unit string
---@param most number?  wanted of the ratio
---@param n integer?  workers of each pool
---@param figure fun(pool: parallel.Pool): number
---@param more? table[]  further contenders
local function beside_threads (title, unit, most, n, figure, more)
  local ours <close> = children(n)
  local theirs <close> = harness.pool(n)
  compare(title, unit, {
    { measure = function () return figure(ours) end },
    { name = "the same in threads", most = most,
      measure = function () return figure(theirs) end },
    table.unpack(more or {}),
  })
end

--- Microseconds of a round trip that follows the last one closely.
local function round_trip (pool)
  local function many ()
    for _ = 1, 2000 do pool:run(empty) end
  end
  harness.warm(many)
  return median(5, many) / 2000 * 1e6
end

--- Microseconds of a round trip after 2 ms of rest.
local function late_trip (pool)
  local times = {}
  for i = 1, 100 do
    parallel.task.sleep(2e-3)
    local began <const> = harness.now()
    pool:run(empty)
    times[i] = harness.now() - began
  end
  return (harness.spread(times)) * 1e6
end

--- Milliseconds from nothing to the first result of a child; its end is not
--- counted.
local function first_result ()
  local times = {}
  for i = 1, 20 do
    local began <const> = harness.now()
    local pool <close> = children(1)
    pool:run "return 1"
    times[i] = harness.now() - began
  end
  return (harness.spread(times)) * 1e3
end

--- A field of /proc/PID/status, in MiB.
local function memory_of (pid, field)
  local file <close> = assert(io.open("/proc/" .. pid .. "/status"))
  return tonumber(file:read "a":match(field .. ":%s*(%d+)")) / 1024
end

--- MiB that the larger of two processes takes at most while a string of 1 GiB
--- goes to a child, and another one comes back.
local function gigabyte ()
  local pool <close> = children(1)
  local child <const> = pool:run "return io.open '/proc/self/stat':read 'n'"
  collectgarbage()
  local before <const> = memory_of("self", "VmRSS")
  do  -- the peak of this process is that of what follows
    local file <close> = assert(io.open("/proc/self/clear_refs", "w"))
    file:write "5"
  end
  local size <const> = 1 << 30
  assert(pool:run("return #(...)", ("x"):rep(size)) == size)
  collectgarbage()
  assert(#pool:run("return ('y'):rep(...)", size) == size)
  collectgarbage()
  return math.max(memory_of("self", "VmHWM") - before,
                  memory_of(child, "VmHWM"))
end

--- A contender that the floor in C measures.
local function floor (name, sample, scale, most)
  local contender <const> = harness.floor(name, "floor_process",
    harness.lua .. " 5", sample, scale)
  contender.most = most
  return contender
end

local sections = {}

function sections.reach ()
  beside_threads("round trip to a child that follows the last one closely",
                 "us", 2.5, 1, round_trip)
  beside_threads("round trip to a child after 2 ms of rest", "us", nil, 1,
                 late_trip,
                 { floor("floor in C: a byte and back", "rest", 1, 1.5) })

  local n <const>, items = 1000000, {}
  for i = 1, n do items[i] = i end
  beside_threads("tiny map in children: x * x over 1e6 integers",
                 "ns an item", 1.5, nil, function (pool)
    local function map () return pool:map(items, square) end
    harness.warm(map)
    return median(3, map) / n * 1e9
  end)

  local count <const>, loops <const> = 200, harness.loops_for(5e-3)
  local coarse <const> = {}
  for i = 1, count do coarse[i] = loops end
  beside_threads("coarse map in children: 200 items of 5 ms", "ms an item",
                 nil, nil, function (pool)
    local function map () return pool:map(coarse, spin) end
    harness.warm(map)
    return harness.time(map) / count * 1e3
  end, {
    { name = "the speed of one core", speed = true, least = 1.95,
      measure = function ()
        return harness.time(function ()
          for i = 1, count do spin(coarse[i]) end
        end) / count * 1e3
      end },
  })

  local block <const> = payloads.block()
  beside_threads("a string of 16 MiB to a child and back", "ms", 2.5, 1,
                 function (pool)
    local function echo () return pool:run("return ...", block) end
    echo()
    return median(7, echo) * 1e3
  end)

  local rounds <const> = harness.rounds
  harness.rounds = 1
  compare("1 GiB to a child, and 1 GiB back", "MiB at most", {
    { measure = gigabyte },
    { name = "three copies", most = 1.05,
      measure = function () return 3 << 10 end },
  })
  harness.rounds = rounds

  compare("a child from its start to its first result", "ms", {
    { measure = first_result },
    floor("lua5.4 -e '' by posix_spawn", "start", 1e-3, 3),
  })
end

return sections
