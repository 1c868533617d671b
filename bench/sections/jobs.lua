-- SPDX-License-Identifier: MIT
--- Single jobs: round trips, many of them, events, pools that come and go.

local harness = ...
local compare <const>, median <const> = harness.compare, harness.median

local function empty () end

--- n round trips.
local function round_trips (pool, n)
  return function ()
    for _ = 1, n do pool:run(empty) end
  end
end

local sections = {}

function sections.roundtrip ()
  local pool <close> = harness.pool(1)
  compare("round trip of an empty job that follows the last one closely", "us",
  {
    { most = 1.5, measure = function ()
        harness.warm(round_trips(pool, 100))
        return median(5, round_trips(pool, 2000)) / 2000 * 1e6
      end },
    harness.floor("floor in C that spins a little", "floor_roundtrip", "5",
                  "roundtrip_spin"),
    harness.floor("floor in C that sleeps at once", "floor_roundtrip", "5",
                  "roundtrip_sleep"),
    harness.stock("luv", "luv.lua", "luv", "roundtrip 5", "roundtrip"),
  })
end

--- So many processes that do nothing but run, ten minutes at most; closing
--- what this returns ends them.
local function busy_loops (n)
  local pids = {}
  for i = 1, n do
    local pipe <close> = assert(io.popen(
      "timeout 600 sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"))
    pids[i] = pipe:read "l"
  end
  return setmetatable({}, { __close = function ()
    if n > 0 then os.execute("kill " .. table.concat(pids, " ")) end
  end })
end

--- Round trips beside programs that use the CPUs, and those of a condition
--- variable beside the same ones: means over many slices of time.
function sections.busy ()
  local LONG <const> = 50000  -- as in floor_roundtrip.c
  local floor <const> = harness.floor("", "floor_roundtrip", "3 sleep",
                                      "roundtrip_sleep")
  if floor.missing then return print(floor.missing) end
  local pool <close> = harness.pool(1)
  for _, n in ipairs { 0, 1, 2, 4, 8 } do
    local _ <close> = busy_loops(n)
    local ratios, times, others = {}, {}, {}
    for round = 1, harness.rounds do
      round_trips(pool, 500)()
      times[round] = median(3, round_trips(pool, LONG)) / LONG * 1e6
      local samples = {}
      local pipe <close> = assert(io.popen(floor.command))
      for line in pipe:lines() do
        samples[#samples + 1] =
          tonumber(line:match "^roundtrip_sleep (%S+) us$")
      end
      others[round] = harness.spread(samples)
      ratios[round] = times[round] / others[round]
    end
    local beside <const> = (" beside %d busy loops"):format(n)
    harness.note("round trip" .. beside, (harness.spread(times)), "us")
    harness.note("condition variable" .. beside, (harness.spread(others)),
                 "us")
    harness.note("one to the other" .. beside, (harness.spread(ratios)), "x",
                 { most = 3 })
  end
  print()
end

--- Round trips after a rest, and what the rest costs.
function sections.rest ()
  local pool <close> = harness.pool(1)
  local function sleep (seconds) parallel.task.sleep(seconds) end
  local contender = harness.floor("floor in C that sleeps", "floor_roundtrip",
                                  "3", "roundtrip_rest")
  contender.most = 1.15
  compare("round trip of an empty job after 2 ms of rest", "us", {
    { measure = function ()
        local times = {}
        for i = 1, 100 do
          sleep(2e-3)
          local began <const> = harness.now()
          pool:run(empty)
          times[i] = harness.now() - began
        end
        return (harness.spread(times)) * 1e6
      end },
    contender,
  })
  round_trips(pool, 1000)()
  local others <close> = harness.pool(8)
  others:map(parallel.range(1, 100000), function (x) return x end)
  sleep(0.05)
  local before <const> = harness.ticks()
  sleep(2)
  harness.note("CPU time in 2 s of rest, 9 workers warm",
               (harness.ticks() - before) * 10, "ms", { most = 0 })
  print()
end

function sections.jobs ()
  local count <const> = 1000000
  local pool <close> = harness.pool()
  local function same (x) return x end
  local before <const>, after = harness.resident(), nil
  local function window ()
    local jobs = {}
    for i = 1, count do
      local slot = i % 500
      if jobs[slot] then assert(jobs[slot]:get() == i - 500) end
      jobs[slot] = pool:spawn(same, i)
    end
    for slot = 0, 499 do jobs[slot]:get() end
    after = harness.resident()
  end
  local function all ()
    local jobs = {}
    for i = 1, count // 4 do jobs[i] = pool:spawn(same, i) end
    for i = 1, count // 4 do assert(jobs[i]:get() == i) end
  end
  harness.warm(round_trips(pool, 100))
  compare("1e6 small jobs one by one, 500 in flight", "ns a job", {
    { most = 900, measure = function ()
        return harness.time(window) / count * 1e9
      end },
    harness.stock("luv, 500 in flight", "luv.lua", "luv",
                  ("jobs %d"):format(count), "jobs"),
  })
  harness.note("memory that they have taken", (after - before) / 1024, "MiB")
  compare("250,000 small jobs, all submitted before the first is collected",
          "ns a job", {
    { measure = function ()
        return harness.time(all) / (count // 4) * 1e9
      end },
  })
end

function sections.events ()
  local pool <close> = harness.pool(1)
  -- A thousand events, so far apart that the host waits for each.
  local function emit (n)
    for _ = 1, n do
      parallel.task.emit "tick"
      local till = parallel.now() + 200e-6
      repeat until parallel.now() > till
    end
  end
  local function latency ()
    local times = {}
    local function note (event)
      times[#times + 1] = parallel.now() - event.time
    end
    parallel.on("tick", note)
    pool:run(emit, 1000)
    parallel.off("tick", note)
    table.sort(times)
    return times[#times // 2] * 1e6
  end
  compare("an event from a job to its handler in a waiting host", "us", {
    { measure = latency },
    { name = "round trip of an empty job", most = 3, measure = function ()
        return median(5, round_trips(pool, 1000)) / 1000 * 1e6
      end },
  })
end

function sections.start ()
  local function open (n)
    return function ()
      for _ = 1, 200 do
        local pool <close> = harness.pool(n)
        pool:run "return 1"
      end
    end
  end
  local function contenders (n, sample)
    local floor = harness.floor("floor in C: thread and state", "floor_start",
                                "5", sample)
    floor.most = 1.3
    return {
      { measure = function ()
          open(n)()
          return median(5, open(n)) / 200 * 1e6
        end },
      floor,
    }
  end
  compare("open a pool of one worker, run a job, close it", "us",
          contenders(1, "start"))
  compare("open a pool of two workers, run a job, close it", "us",
          contenders(2, "start2"))
end

function sections.reset ()
  local function jobs (reset, source)
    local pool = parallel.pool { max = 1, reset = reset }
    local fn = load(source)
    local function many ()
      for _ = 1, 2000 do pool:run(fn) end
    end
    harness.warm(many)
    return pool, function () return median(5, many) / 2000 * 1e6 end
  end
  local none, bare = jobs("none", "return 1")
  local pools = {}
  local function against_none (title, source)
    local pool, measure = jobs("globals", source)
    pools[#pools + 1] = pool
    local more = {}
    for i = 1, harness.rounds do more[i] = measure() - bare() end
    harness.note(title, harness.spread(more), "us a job", { most = 0.3 })
  end
  against_none("reset = globals, of a job that assigned none", "return 1")
  against_none("reset = globals, of a job that assigned some",
               "x = 1 return 1")
  print()
  local fresh, measure = jobs("fresh", "return 1")
  local floor = harness.floor("floor in C: a new state", "floor_start", "5",
                              "state")
  floor.most = 1.1
  compare("reset = fresh, beyond an empty job", "us", {
    { measure = function () return measure() - bare() end },
    floor,
  })
  for _, pool in ipairs { none, fresh, table.unpack(pools) } do
    pool:close()
  end
end

return sections
