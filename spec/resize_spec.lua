-- SPDX-License-Identifier: MIT
--- Pools that get another size, are paused, and go on.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

--- Wait until the pool has so many workers.
local function has_workers (pool, n)
  return gates.eventually(function () return pool:info().workers == n end)
end

--- Begin 'n' jobs, which stand at the gate when this returns.
local function occupy (pool, gate, n)
  local pass <const> = gate.pass
  local jobs = {}
  for i = 1, n do jobs[i] = pool:spawn(function () pass() end) end
  gate:await(n)
  return jobs
end

describe("pool", function ()
  describe("resize", function ()
    it("starts workers up to 'min'", function ()
      local pool <close> = parallel.pool { max = 1 }
      pool:resize { min = 3, max = 5 }
      local info <const> = pool:info()
      assert.same({ 3, 5, 3 }, { info.min, info.max, info.workers })
    end)

    it("starts workers for what is queued", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local jobs = {}
      for i = 1, 3 do jobs[i] = pool:spawn(function () pass() end) end
      gate:await(1)
      assert.equal(2, pool:info().queued)
      pool:resize { max = 3 }
      gate:await(2)
      gate:open()
      for _, job in ipairs(jobs) do assert.equal("completed", job:wait()) end
    end)

    it("lets workers that are too many end with their jobs", function ()
      local pool <close> = parallel.pool { max = 3 }
      local gate <close> = gates.new()
      local jobs <const> = occupy(pool, gate, 3)
      pool:resize { max = 1 }
      assert.equal(3, pool:info().running)
      gate:open()
      for _, job in ipairs(jobs) do assert.equal("completed", job:wait()) end
      assert.is_truthy(has_workers(pool, 1))
      assert.equal(1, pool:run "return 1")
    end)

    it("ends workers that sleep", function ()
      local pool <close> = parallel.pool { min = 4, max = 4,
                                           idle = math.huge }
      pool:resize { min = 1, max = 2 }
      assert.is_truthy(has_workers(pool, 2))
    end)

    it("lets a map that runs use the workers that come", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local there = 0
      local handler <const> = parallel.on("there", function ()
        there = there + 1
        if there == 1 then pool:resize { max = 2 } else gate:open() end
      end)
      local results <const> = pool:map(parallel.range(1, 8), function (x)
        parallel.task.emit "there"
        pass()
        return x
      end, { chunk = 1 })
      parallel.off("there", handler)
      assert.same({ n = 8, 1, 2, 3, 4, 5, 6, 7, 8 }, results)
    end)

    for _, row in ipairs {
      { {}, "{min =, max =} expected" },
      { { max = 0 }, "bad option 'max' to 'resize'" },
      { { max = 65537 }, "bad option 'max' to 'resize'" },
      { { min = "2" }, "bad option 'min' to 'resize'" },
      { { min = 9 }, "min %(9%) is more than max %(4%): give both" },
      { { limit = 2 }, "unknown option 'limit' to 'resize'" },
      { 3, "bad argument 'options' to 'resize'" },
    } do
      it("refuses " .. row[2], function ()
        local pool <close> = parallel.pool { max = 4 }
        assert.matches(row[2], raised(pool.resize, pool, row[1]))
        assert.equal(4, pool:info().max)
      end)
    end

    it("is not for a pool that is closed", function ()
      local pool <const> = parallel.pool { max = 1 }
      pool:close()
      assert.matches("the pool is closed",
                     raised(pool.resize, pool, { max = 2 }))
    end)

    for _, kind in ipairs { "process", "command" } do
      it("is for workers that are elsewhere: " .. kind, function ()
        local tree <const> = require "support.tree"
        local pool <close> = parallel.pool(kind == "process"
          and { isolation = "process", max = 1 }
          or { command = { tree.program(), "--worker" }, max = 1 })
        pool:resize { min = 2, max = 2 }
        assert.is_truthy(gates.eventually(function ()
          return pool:info().idle == 2
        end))
        pool:resize { min = 1, max = 1 }
        assert.is_truthy(has_workers(pool, 1))
        assert.equal("well", pool:run "return 'well'")
      end)
    end
  end)

  describe("pause", function ()
    it("keeps what is queued, and lets what runs go on", function ()
      local pool <close> = parallel.pool { max = 2 }
      local gate <close> = gates.new()
      local running <const> = occupy(pool, gate, 1)[1]
      pool:pause()
      pool:pause()
      assert.is_true(pool:info().paused)
      local queued <const> = pool:spawn(function () return 7 end)
      gate:open()
      assert.equal("completed", running:wait())
      assert.equal("queued", queued.state)
      assert.equal(1, pool:info().queued)
      pool:resume()
      assert.equal(7, queued:get())
      assert.is_false(pool:info().paused)
    end)

    it("lets what a job waits for run", function ()
      local pool <close> = parallel.pool { max = 2 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job <const> = pool:spawn(function ()
        local function deep (n)
          return n == 0 and 0 or 1 + parallel.run(deep, n - 1)
        end
        pass()
        local sum = 0
        for _, x in ipairs(parallel.map({ 1, 2, 3 }, function (x)
          return x
        end)) do
          sum = sum + x
        end
        return sum, deep(30)
      end)
      gate:await(1)
      pool:pause()
      local queued <const> = pool:spawn(function () end)
      gate:open()
      assert.same({ 6, 30 }, { job:get() })
      assert.equal("queued", queued.state)
    end)

    it("lets a job be cancelled, and run out of time", function ()
      local pool <close> = parallel.pool { max = 1 }
      pool:pause()
      local job <const> = pool:spawn(function () end)
      job:cancel()
      assert.equal("cancelled", job.state)
      local late <const> = pool:submit { "return 1", deadline = 0.02 }
      assert.equal("timed_out", (late:wait()))
    end)

    it("holds a map", function ()
      local pool <close> = parallel.pool { max = 2 }
      pool:pause()
      local finished
      local handler <const> = parallel.on("go", function ()
        finished = pool:info().finished
        pool:resume()
      end)
      parallel.spawn(function () parallel.task.emit "go" end)
      assert.equal(9, #pool:map(parallel.range(1, 9), function (x)
        return x
      end))
      parallel.off("go", handler)
      assert.equal(0, finished)
    end)

    it("ends with a close, which runs what is queued", function ()
      local pool <const> = parallel.pool { max = 1 }
      pool:pause()
      local job <const> = pool:spawn(function () return 5 end)
      assert.is_true(pool:close())
      assert.equal(5, job:get())
      assert.matches("the pool is closed", raised(pool.pause, pool))
      assert.matches("the pool is closed", raised(pool.resume, pool))
    end)

    it("is over at the end of the script, which says so", function ()
      local text <const>, status <const> = run [[
        local parallel = require "parallel"
        pool = parallel.pool { max = 1 }
        pool:pause()
        for i = 1, 2 do pool:spawn(function () print "ran" end) end]]
      assert.equal("parallel: the script waits for 2 jobs of a paused pool, "
                   .. "which goes on\nran\nran\n", text)
      assert.equal(0, status)
    end)

    it("is over when nobody has the pool any more", function ()
      local text <const>, status <const> = run [[
        local parallel = require "parallel"
        do
          local pool = parallel.pool { max = 1 }
          pool:pause()
          pool:spawn(function () print "ran" end)
        end
        collectgarbage() collectgarbage()]]
      assert.equal("ran\n", text)
      assert.equal(0, status)
    end)

    it("warns where it is closed with jobs in the queue", function ()
      local text <const> = run [[
        local parallel = require "parallel"
        warn "@on"
        do
          local pool <close> = parallel.pool { max = 1 }
          pool:pause()
          pool:spawn(function () end)
        end]]
      assert.equal("Lua warning: parallel.pool: a paused pool is closed, so "
                   .. "what waits there runs: 1 in its queue\n", text)
    end)
  end)
end)
