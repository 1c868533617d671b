-- SPDX-License-Identifier: MIT
--- Maps: tiny items, items that take their time, uneven ones, and what other
--- tools take for the coarse ones.

local harness = ...
local compare <const>, median <const> = harness.compare, harness.median

local SPIN <const>, spin <const> = harness.SPIN, harness.spin
local loops_for <const> = harness.loops_for

local function square (x) return x * x end
local function same (x) return x end

--- Items of a kind, and the function for them.
local KINDS <const> = {
  integer = function (i) return i end,
  float = function (i) return i + 0.5 end,
  string = function (i) return "s" .. i end,
}

--- A cheap function over n items, table to table.
local function tiny (kind, n, title, luv)
  local items, results
  if kind == "range" then
    items = parallel.range(1, n)
  else
    items = {}
    for i = 1, n do items[i] = KINDS[kind](i) end
  end
  local fn <const> = kind == "string" and same or square
  local pool <close> = harness.pool()
  local function work ()
    results = pool:map(items, fn)
    return results
  end
  local function loop ()
    local values = {}
    if kind == "range" then
      for i = 1, n do values[i] = fn(i) end
    else
      for i = 1, #items do values[i] = fn(items[i]) end
    end
    return values
  end
  local each = 1e9 / n  -- nanoseconds an item
  local contenders = {
    { measure = function ()
        harness.warm(work)
        return median(5, work) * each
      end },
    harness.floor("floor in C", "floor_map",
                  ("tiny %d %d %s 1000 3"):format(harness.workers, n, kind),
                  "tiny"),
    { name = "a plain loop", measure = function ()
        return median(5, loop) * each
      end },
  }
  contenders[2].most = 1.25
  if luv then
    contenders[4] = harness.stock("luv, 1000 packed by hand", "luv.lua", "luv",
      ("map tiny %d 0 1000 3"):format(n), "tiny")
    contenders[5] = harness.stock("luv, 1000 as JSON", "luv.lua", "luv",
      ("json tiny %d 0 1000 3"):format(n), "tiny")
    contenders[6] = harness.program("Python, chunks of 1000", "python3",
      ("python3 %s map tiny %d %d 1000 1"):format(
        harness.beside "pool.py", harness.workers, n), "tiny")
  end
  compare(title, "ns an item", contenders)
  assert(results.n == n and results[n] == fn(
    kind == "range" and n or items[n]))
end

local sections = {}

function sections.tiny ()
  tiny("integer", 100000, "tiny map: x * x over 1e5 integers", true)
  tiny("integer", 1000000, "tiny map: x * x over 1e6 integers", true)
  tiny("float", 1000000, "tiny map: x * x over 1e6 floats")
  tiny("string", 1000000, "tiny map: x over 1e6 short strings")
  tiny("range", 1000000, "tiny map: x * x over a range of 1e6")
end

--- Items that take so long, chunks found by the module.
local function timed (title, seconds, count, least)
  local loops <const>, items = loops_for(seconds), {}
  for i = 1, count do items[i] = loops end
  local pool <close> = harness.pool()
  local function parallel_map () return pool:map(items, spin) end
  local function serially ()
    local values = {}
    for i = 1, #items do values[i] = spin(items[i]) end
    return values
  end
  local chunk <const> = math.max(1, math.floor(0.5e-3 / seconds))
  compare(title, "us an item", {
    { measure = function ()
        harness.warm(parallel_map)
        return median(3, parallel_map) / count * 1e6
      end },
    { name = "the speed of one core", speed = true, least = least,
      measure = function () return median(3, serially) / count * 1e6 end },
    harness.floor("floor in C", "floor_map",
                  ("items %d %d %d %d 3 '%s'"):format(
                    harness.workers, count, loops, chunk, SPIN),
                  "items", 1e-3),
  })
end

function sections.items ()
  timed("map of items of 1 us", 1e-6, 100000, 1.5)
  timed("map of items of 10 us", 10e-6, 20000, 1.85)
  timed("map of items of 100 us", 100e-6, 4000, 1.95)
  timed("map of items of 5 ms", 5e-3, 200, 1.97)
end

--- One item in a hundred costs a thousand times more.
function sections.uneven ()
  local count <const>, light <const> = 20000, loops_for(1e-6)
  local items = {}
  for i = 1, count do
    items[i] = i % 100 == 37 and light * 1000 or light
  end
  local pool <close> = harness.pool()
  local function map (chunk)
    return function () return pool:map(items, spin, { chunk = chunk }) end
  end
  harness.warm(map(nil))
  local best, quickest
  for _, chunk in ipairs { 10, 30, 100, 300, 1000, 3000, 10000 } do
    local time = median(3, map(chunk))
    if quickest == nil or time < quickest then
      best, quickest = chunk, time
    end
  end
  compare("uneven items: one in a hundred costs a thousand times more",
          "ms", {
    { measure = function () return median(3, map(nil)) * 1e3 end },
    { name = ("the best cut by hand: %d"):format(best), most = 1.1,
      measure = function () return median(3, map(best)) * 1e3 end },
    { name = "the speed of one core", speed = true, measure = function ()
        return median(3, function ()
          for i = 1, #items do spin(items[i]) end
        end) * 1e3
      end },
  })
end

--- What it costs to keep the results in a file.
function sections.journal ()
  local count <const>, loops <const> = 20000, loops_for(100e-6)
  local items <const>, path <const> = {}, os.tmpname()
  for i = 1, count do items[i] = loops end
  local pool <close> = harness.pool()
  local function map (options)
    return function () return pool:map(items, spin, options) end
  end
  harness.warm(map(nil))
  compare("map of items of 100 us, with a journal", "us an item", {
    { measure = function ()
        os.remove(path)
        return harness.time(map { journal = path }) / count * 1e6
      end },
    { name = "the same without", most = 1.05, measure = function ()
        return harness.time(map(nil)) / count * 1e6
      end },
  })
  os.remove(path)
end

function sections.coarse ()
  local count <const> = 200
  local loops <const>, items = loops_for(5e-3), {}
  for i = 1, count do items[i] = loops end
  local pool <close> = harness.pool()
  local function parallel_map () return pool:map(items, spin) end
  local function serially ()
    for i = 1, #items do spin(items[i]) end
  end
  local rest <const> = ("%d %d %d"):format(harness.workers, count, loops)
  compare("coarse map: 200 items of 5 ms", "ms an item", {
    { measure = function ()
        harness.warm(parallel_map)
        return harness.time(parallel_map) / count * 1e3
      end },
    { name = "the speed of one core", speed = true, least = 1.97,
      measure = function () return harness.time(serially) / count * 1e3 end },
    harness.floor("floor in C", "floor_map",
                  ("coarse %d %d %d 1 1 '%s'"):format(
                    harness.workers, count, loops, SPIN), "coarse", 1e-6),
    harness.stock("luv, an item a job", "luv.lua", "luv",
                  ("map coarse %d %d 1 1 '%s'"):format(count, loops, SPIN),
                  "coarse", 1e-6),
    harness.stock("io.popen, a process a worker", "processes.lua", "string",
                  "popen " .. rest, "coarse", 1e-6),
    harness.program("GNU parallel, a process an item", "parallel",
                    ("%s %s parallel %s"):format(
                      harness.lua, harness.beside "processes.lua", rest),
                    "coarse", 1e-6),
    harness.program("GNU parallel, a process a worker", "parallel",
                    ("%s %s parallel-n %s"):format(
                      harness.lua, harness.beside "processes.lua", rest),
                    "coarse", 1e-6),
    harness.program("Python's process pool", "python3",
                    ("python3 %s coarse coarse %d %d"):format(
                      harness.beside "pool.py", harness.workers, count),
                    "coarse", 1e-6),
  })
end

return sections
