-- SPDX-License-Identifier: MIT
--- Serial pools: jobs run on the thread of the host, in their order, whenever
--- the host waits.  'process_spec' has what they share with other pools.

local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

--- A loop that allocates: ThreadSanitizer holds back signals from others.
local function spin () while true do tostring {} end end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

local function open (more)
  local options <const> = { isolation = "serial" }
  for name, value in pairs(more or {}) do options[name] = value end
  return parallel.pool(options)
end

--- Notes what runs in 'order', a variable of the runspace.
local NOTE <const> = "order[#order + 1] = ... "
                     .. "return table.concat(order, ' ')"

--- The thread that calls this, as the system names it.
local function thread ()
  return io.open "/proc/thread-self/stat":read "n"
end

describe("a serial pool", function ()
  it("has one runspace, on the thread of the host", function ()
    local pool <close> = open { max = 4 }
    local info <const> = pool:info()
    assert.same({ 1, 1, 1, 1 },
                { info.min, info.max, info.workers, info.idle })
    assert.equal(thread(), pool:run(thread))
  end)

  it("begins nothing before the host waits, and then in their order",
     function ()
    local pool <close> = open { variables = { order = {} } }
    local jobs = {}
    for i = 1, 4 do
      jobs[i] = pool:spawn(NOTE, i)
      assert.equal("queued", jobs[i].state)
    end
    assert.equal("1 2 3", jobs[3]:get())
    assert.equal("queued", jobs[4].state)
    assert.equal("1 2 3 4", jobs[4]:get())
  end)

  it("lets higher priorities go first", function ()
    local pool <close> = open { variables = { order = {} } }
    pool:spawn(NOTE, "low")
    pool:submit { NOTE, arguments = { "high" }, priority = 5 }
    assert.equal("high low", pool:spawn(NOTE, ""):get():match "^%w+ %w+")
  end)

  it("begins no job when the time of the wait is over", function ()
    local pool <close> = open()
    local first <const> = pool:spawn(function () parallel.task.sleep(0.02) end)
    local second <const> = pool:spawn(function () end)
    assert.is_nil((second:wait(0.01)))
    assert.equal("completed", first.state)
    assert.equal("queued", second.state)
    assert.equal("completed", (second:wait()))
  end)

  it("runs jobs in 'poll', and hands their events out", function ()
    local pool <close> = open()
    local seen = {}
    local handler <const> = parallel.on("step", function (event)
      seen[#seen + 1] = event.data
    end)
    local job <const> = pool:spawn(function ()
      for i = 1, 3 do parallel.task.emit("step", i) end
    end)
    while job.state == "queued" do parallel.poll(0) end
    parallel.poll(0)
    parallel.off("step", handler)
    assert.equal("1 2 3", table.concat(seen, " "))
  end)

  it("cancels what is queued, and stops what runs out of time", function ()
    local pool <close> = open()
    local queued <const> = pool:spawn(spin)
    queued:cancel()
    assert.equal("cancelled", queued.state)
    local late <const> = pool:submit { spin, timeout = 0.05 }
    assert.equal("timed_out", (late:wait()))
    assert.equal("timeout", late.reason)
    assert.equal("well", pool:run "return 'well'")
  end)

  it("runs jobs inside of jobs, as deep as any pool", function ()
    local pool <close> = open()
    local function deep (n)
      return n == 0 and 0 or 1 + parallel.run(deep, n - 1)
    end
    assert.equal(40, pool:run(deep, 40))
    assert.same({ n = 3, 2, 4, 6 }, pool:run(function ()
      return parallel.map({ 1, 2, 3 }, function (x) return 2 * x end)
    end))
    assert.equal(thread(), pool:run(thread))
  end)

  it("runs on the thread of a job that has opened it", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.is_true(pool:run(function (where)
      local inner <close> = parallel.pool { isolation = "serial" }
      return load(where)() == inner:run(where)
    end, "return io.open '/proc/thread-self/stat':read 'n'"))
    local job <const> = pool:spawn(function ()
      local inner <close> = parallel.pool { isolation = "serial" }
      inner:run(function ()
        parallel.task.emit "deep"
        while true do tostring {} end
      end)
    end)
    parallel.poll(0)
    while job.state == "queued" do parallel.poll(0.01) end
    job:cancel { grace = 10000 }
    assert.equal("cancelled", (job:wait()))
    assert.equal("well", pool:run "return 'well'")
  end)

  it("waits for room in its queue by running what is there", function ()
    local pool <close> = open { queue = 2 }
    local jobs = {}
    for i = 1, 6 do jobs[i] = pool:spawn(function (n) return n end, i) end
    for i = 1, 6 do assert.equal(i, jobs[i]:get()) end
  end)

  it("runs standing calls before its jobs", function ()
    local pool <close> = open { reset = "fresh" }
    assert.same({ 5 }, pool:everywhere "x = 5 return x")
    for _ = 1, 3 do assert.equal(5, pool:run "return x") end
  end)

  it("ends its jobs when it is closed, or cancels them", function ()
    local pool <const> = open()
    local done <const> = pool:spawn(function () end)
    assert.is_true(pool:close())
    assert.equal("completed", done.state)
    local other <const> = open()
    local dropped <const> = other:spawn(function () end)
    assert.is_false((other:close(0)))
    assert.equal("cancelled", dropped.state)
    assert.matches("the pool is closed", raised(pool.run, pool, "return 1"))
  end)

  for _, row in ipairs {
    { { min = 2 }, "bad option 'min'" },
    { { pin = true }, "bad option 'pin'" },
    { { hosts = { "web1" } }, "bad option 'isolation'.*'hosts'" },
    { { command = { "true" } }, "bad option 'isolation'.*'command'" },
    { { broker = "amqp://x", queue = "q" },
      "bad option 'isolation'.*'broker'" },
    { { nice = 5 }, "bad option 'nice'.*isolation = \"process\"" },
    { { heartbeat = 5 }, "bad option 'heartbeat'" },
  } do
    it("refuses what it cannot have: " .. next(row[1]), function ()
      assert.matches(row[2], raised(open, row[1]))
    end)
  end

  it("is not resized", function ()
    local pool <close> = open()
    assert.matches("a serial pool has one runspace",
                   raised(pool.resize, pool, { max = 2 }))
  end)

  it("is paused", function ()
    local pool <close> = open()
    pool:pause()
    local job <const> = pool:spawn(function () return 1 end)
    assert.is_nil((job:wait(0.01)))
    pool:resume()
    assert.equal(1, job:get())
  end)
end)

describe("serial mode", function ()
  --- Prints what runs where, in its order.
  local SCRIPT <const> = [[
    local parallel = require "parallel"
    local function thread ()
      return io.open "/proc/thread-self/stat":read "n"
    end
    local here = thread()
    local job = parallel.spawn(function () print "first" return thread() end)
    print "before"
    print(job:get() == here)
    local ids = parallel.map({1, 2, 3}, function (x)
      print("item", x)
      return thread()
    end, { limit = 3 })
    print(ids[1] == here, ids[3] == here)
    local pool <close> = parallel.pool { max = 4, min = 2 }
    print(pool:run(thread) == here)
    print(parallel.collect({1}, thread, { reset = "fresh" })[1].result == here)
    parallel.spawn(function () print "last" end)
  ]]
  local PRINTED <const> = "before\nfirst\ntrue\nitem\t1\nitem\t2\nitem\t3\n"
                       .. "true\ttrue\ntrue\ntrue\nlast\n"

  for name, set in pairs {
    ["-j 0"] = { "", "-j 0" }, ["RUNSPACE_JOBS"] = { "RUNSPACE_JOBS=0", "" },
    ["-j 00 beside RUNSPACE_JOBS"] = { "RUNSPACE_JOBS=3", "-j 00" },
  } do
    it("is " .. name, function ()
      local path <const> = os.tmpname()
      local file <const> = assert(io.open(path, "w"))
      file:write(SCRIPT)
      file:close()
      local pipe <close> = io.popen(("env %s timeout -k 1 200 %s %s %s 2>&1")
        :format(set[1], tree.runspace, set[2], path))
      local text <const> = pipe:read "a"
      os.remove(path)
      assert.equal(PRINTED, text)
    end)
  end

  it("lets a debugger of the job read the input of the program", function ()
    local pipe <close> = io.popen(("printf 'print(secret)\\ncont\\n' | "
      .. "timeout -k 1 200 %s -j 0 -e '%s' 2>&1"):format(tree.runspace,
      [[parallel.run(function () secret = "found" debug.debug() end)]]))
    assert.matches("found", pipe:read "a")
  end)

  it("is left by SIGINT, with the job that runs", function ()
    local text <const>, status <const> = run([[
      local parallel = require "parallel"
      local pool <close> = parallel.pool { isolation = "serial" }
      local ok, message = pcall(pool.run, pool, function ()
        os.execute "kill -INT $PPID"
        while true do tostring {} end
      end)
      print(ok, message)
      print(pool:run "return 'well'")
    ]])
    assert.equal("false\tinterrupted!\nwell\n", text)
    assert.equal(0, status)
  end)

  it("has RUNSPACE_JOBS stand for -j", function ()
    local source <const> = [[
      local parallel = require "parallel"
      parallel.run "return 1"
      print(parallel.stats().pools[1].max)]]
    assert.equal("3\n", (run(source, "RUNSPACE_JOBS=3")))
    for _, bad in ipairs { "x", "-1", "65537", "2x" } do
      local text <const>, status <const> = run(source, "RUNSPACE_JOBS=" .. bad)
      assert.equal(1, status)
      assert.matches("RUNSPACE_JOBS needs an integer from 0 to 65536, not '"
                     .. bad:gsub("%-", "%%-") .. "'\n", text)
    end
  end)

  it("is not for processes", function ()
    local pipe <close> = io.popen(tree.runspace
      .. " -j 0 --isolation process -e 'print(1)' 2>&1")
    assert.matches("'%-j 0' lets jobs run on the thread of the script",
                   pipe:read "a")
  end)
end)
