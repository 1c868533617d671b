-- SPDX-License-Identifier: MIT
--- Measure the module against what the machine allows and what else there is.
---
---     make bench [BENCH_FLAGS='...']
---     runspace bench/run.lua [-r ROUNDS] [-w WORKERS] [NAME...]
---
--- Without a NAME, everything.  README.md tells how to read it.

local beside <const> = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/"
local harness = dofile(beside .. "harness.lua")
local memory = dofile(beside .. "memory.lua")
local payloads = dofile(beside .. "payloads.lua")

local compare <const>, median <const> = harness.compare, harness.median
local floor <const>, stock <const> =
  harness.against_floor, harness.against_stock

local function open_pool ()
  return parallel.pool { min = harness.workers, max = harness.workers }
end

-- What is left behind comes first: memory that others used and freed would
-- hide it.
local benchmarks = {
  { "each", memory.each },
  { "lifecycle", memory.lifecycle },
}

--- Add a benchmark.
local function add (name, run)
  table.insert(benchmarks, { name, run })
end

--- x * x over n integers, table to table.
local function tiny (title, n)
  local items, results = {}, nil
  for i = 1, n do items[i] = i end
  local function square (x) return x * x end
  local pool <close> = open_pool()
  local function work ()
    results = pool:map(items, square)
    return results
  end
  local function loop ()
    local values = {}
    for i = 1, #items do values[i] = square(items[i]) end
    return values
  end
  local each = 1e9 / n  -- nanoseconds an item
  local arguments = ("%%s %d %d 0 1000 3"):format(harness.workers, n)
  local in_c = arguments:format "tiny"
  compare(title, "ns an item", {
    { measure = function ()
        harness.warm(work)
        return median(5, work) * each
      end },
    floor("floor in C", "floor_map", in_c, "tiny"),
    { name = "a plain loop", measure = function ()
        return median(5, loop) * each
      end },
    stock("luv, 1000 packed by hand", "luv.lua", "luv",
          ("map tiny %d 0 1000 3"):format(n), "tiny"),
  })
  assert(results.n == n and results[n] == n * n)
end

add("tiny", function ()
  tiny("tiny map: x * x over 1e5 integers", 100000)
  tiny("tiny map: x * x over 1e6 integers", 1000000)
end)

local SPIN <const> = [[
return function (n)
  local x = 1.0
  for _ = 1, n do x = x * 1.0000001 end
  return x > 0 and n or 0
end]]

add("coarse", function ()
  local spin = load(SPIN)()
  local loops, items = 1000000, {}
  loops = math.ceil(loops * 0.005 / median(9, function () spin(loops) end))
  for i = 1, 200 do items[i] = loops end
  local pool <close> = open_pool()
  local arguments = ("coarse %d 200 %d 1 1 '%s'"):format(harness.workers,
                                                        loops, SPIN)
  local function parallel_map () return pool:map(items, spin) end
  local function serially ()
    for i = 1, #items do spin(items[i]) end
  end
  compare("coarse map: 200 items of 5 ms", "ms an item", {
    { measure = function ()
        harness.warm(parallel_map)
        return harness.time(parallel_map) / #items * 1e3
      end },
    { name = "the speed of one core", speed = true, measure = function ()
        return harness.time(serially) / #items * 1e3
      end },
    floor("floor in C", "floor_map", arguments, "coarse", 1e-6),
    stock("luv, an item a job", "luv.lua", "luv",
          ("map coarse 200 %d 1 1 '%s'"):format(loops, SPIN), "coarse", 1e-6),
  })
end)

add("roundtrip", function ()
  local pool <close> = parallel.pool { max = 1 }
  local function empty () end
  local function batch (n)
    return function ()
      for _ = 1, n do pool:run(empty) end
    end
  end
  compare("round trip of an empty job to an idle worker", "us", {
    { measure = function ()
        harness.warm(batch(100))
        return median(5, batch(1000)) / 1000 * 1e6
      end },
    floor("floor in C that spins a little", "floor_roundtrip", "5",
          "roundtrip_spin"),
    floor("floor in C that sleeps at once", "floor_roundtrip", "5",
          "roundtrip_sleep"),
    stock("luv", "luv.lua", "luv", "roundtrip 5", "roundtrip"),
  })
end)

add("events", function ()
  local pool <close> = parallel.pool { max = 1 }
  local function empty () end
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
    { name = "round trip of an empty job", measure = function ()
        return median(5, function ()
          for _ = 1, 1000 do pool:run(empty) end
        end) / 1000 * 1e6
      end },
  })
end)

add("start", function ()
  local function one ()
    local pool <close> = parallel.pool { max = 1 }
    pool:run "return 1"
  end
  local function many ()
    for _ = 1, 200 do one() end
  end
  compare("open a pool of one worker, run a job, close it", "us", {
    { measure = function ()
        many()
        return median(5, many) / 200 * 1e6
      end },
    floor("floor in C: thread and state", "floor_start", "5", "start"),
  })
end)

local NAMED <const> = {
  { "integers", "1e5 integers" },
  { "strings", "1e5 distinct strings" },
  { "records", "1e4 records" },
  { "block", "one string of 16 MiB" },
}

add("marshal", function ()
  for _, entry in ipairs(NAMED) do
    local name, title = table.unpack(entry)
    local payload = payloads[name]()
    local file = harness.beside "payloads.lua"
    compare("encode and decode in one state: " .. title, "ms", {
      { measure = function ()
          return 1e3 * median(7, function () return harness.copy(payload) end)
        end },
      floor("floor in C: flat buffer", "floor_marshal",
            ("%s %s 7"):format(file, name), name .. "_copy"),
      stock("cjson", "json.lua", "cjson", ("%s %s 7"):format(file, name),
            "json"),
    })
  end
end)

add("echo", function ()
  local pool <close> = parallel.pool { max = 1 }
  for _, entry in ipairs(NAMED) do
    local name, title = table.unpack(entry)
    local payload = payloads[name]()
    local function echo () return pool:run("return ...", payload) end
    compare("through a job and back: " .. title, "ms", {
      { measure = function ()
          echo()
          return 1e3 * median(7, echo)
        end },
      floor("floor in C: flat buffer", "floor_marshal",
            ("%s %s 7"):format(harness.beside "payloads.lua", name),
            name .. "_echo"),
    })
  end
end)


-- Computing in a runspace and in stock Lua, the same text.
add("tax", function ()
  local file <close> = assert(io.open(beside .. "tax.lua"))
  local text <const> = file:read "a"
  for _, row in ipairs {
    { "fannkuch", "1.02" }, { "nbody", "1.02" }, { "trees", "1.02" },
    { "coroutines", "1.2" },
  } do
    local name, most = row[1], row[2]
    local pool <close> = parallel.pool { max = 1 }
    local function measure ()
      return pool:run(function (source, which)
        return load(source)().measure(which)
      end, text, name)
    end
    compare(("%s in a runspace: at most %s"):format(name, most), "s", {
      { measure = measure },
      stock("stock lua5.4", "tax.lua", "math", name, name),
    })
  end
end)


local function usage (message)
  local names = {}
  for i, entry in ipairs(benchmarks) do names[i] = entry[1] end
  io.stderr:write("run.lua: ", message, "\nusage: run.lua [-r ROUNDS] ",
                  "[-w WORKERS] [NAME...]\nnames: ",
                  table.concat(names, " "), "\n")
  os.exit(2)
end

local function positive (option, text)
  local n = math.tointeger(tonumber(text))
  if not n or n < 1 then
    usage(option .. " needs a number, got " .. tostring(text))
  end
  return n
end

local wanted, i = {}, 1
while arg[i] do
  if arg[i] == "-r" then
    harness.rounds, i = positive("-r", arg[i + 1]), i + 2
  elseif arg[i] == "-w" then
    harness.workers, i = positive("-w", arg[i + 1]), i + 2
  else
    local known = false
    for _, entry in ipairs(benchmarks) do
      known = known or entry[1] == arg[i]
    end
    if not known then usage("there is no '" .. arg[i] .. "'") end
    wanted[arg[i]], i = true, i + 1
  end
end

print(("%d workers on %d CPUs, %d rounds; a ratio is ours to theirs"):format(
  harness.workers, parallel.cpus(), harness.rounds))
print "(median, least .. most), then both as absolute medians\n"
for _, entry in ipairs(benchmarks) do
  local name, run = table.unpack(entry)
  if not next(wanted) or wanted[name] then
    run(harness)
    io.stdout:flush()
  end
end
print(harness.verdict())
