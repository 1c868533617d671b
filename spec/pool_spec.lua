-- SPDX-License-Identifier: MIT
local run_script <const> = require "support.script"
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

local function square (x) return x * x end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

--- A loop that allocates: ThreadSanitizer holds back signals from others.
local function spin () while true do tostring {} end end

--- The code of an 'init' that does 'code' in each runspace but the first one.
local function but_first (code)
  local token <const> = os.tmpname()
  return ("if not os.remove '%s' then %s end"):format(token, code)
end

--- A pool of two with as many jobs: one has begun and waits at 'held', and
--- the other worker seeds its runspace by 'code'.
local function open_seeding (code, seeded, held)
  local pool <const> = parallel.pool {
    max = 2, functions = { pass = seeded.pass, spin = spin },
    init = but_first("pass() " .. code),
  }
  local pass <const> = held.pass
  for _ = 1, 2 do pool:spawn(function () pass() end) end
  held:await(1)
  seeded:open()
  seeded:await(1)
  return pool
end

--- Threads of this process.
local function threads ()
  for line in io.lines "/proc/self/status" do
    local n <const> = line:match "^Threads:%s*(%d+)"
    if n ~= nil then return math.tointeger(n) end
  end
end

--- Code that arrives at a gate, and waits there where no signal reaches it.
local function pass_deaf (gate)
  return ("os.execute 'printf x > %s; : < %s'"):format(gate.bell, gate.path)
end

describe("pool", function ()
  describe("opening", function ()
    it("starts 'min' workers", function ()
      local pool <close> = parallel.pool { min = 3, max = 5 }
      local info <const> = pool:info()
      assert.equal(3, info.min)
      assert.equal(5, info.max)
      assert.equal(3, info.workers)
      assert.is_false(info.closed)
    end)

    it("numbers its workers from 1, and anew what is free", function ()
      local pool <close> = parallel.pool { min = 1, max = 200, idle = 0.001 }
      local before <const> = threads()
      for _ = 1, 2 do
        local gate <close> = gates.new()
        local pass <const> = gate.pass
        local jobs, seen = {}, {}
        for i = 1, 200 do jobs[i] = pool:spawn(function () pass() end) end
        gate:await(200)
        for _, job in ipairs(jobs) do seen[job.worker] = true end
        assert.equal(200, #seen)
        gate:open()
        parallel.wait(jobs)
        -- A worker that leaves has its number until its thread ends.
        assert.is_truthy(gates.eventually(function ()
          return threads() <= before
        end))
      end
    end)

    it("has one worker at first and one for each CPU at most", function ()
      local pool <close> = parallel.pool()
      assert.equal(1, pool:info().min)
      assert.equal(1, pool:info().workers)
      assert.is_true(pool:info().max >= 1)
    end)

    it("lets workers stay on CPUs of their own with 'pin'", function ()
      local pool <close> = parallel.pool { min = 3, max = 3, pin = true }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local function allowed ()
        pass()
        for line in io.lines "/proc/thread-self/status" do
          local list = line:match "^Cpus_allowed_list:%s*(%S+)"
          if list then return list, parallel.cpus() end
        end
      end
      local jobs = {}
      for i = 1, 3 do jobs[i] = pool:spawn(allowed) end
      gate:await(3)
      gate:open()
      local seen, different = {}, 0
      for _, job in ipairs(jobs) do
        local list, cpus = job:get()
        assert.matches("^%d+$", list)
        assert.equal(parallel.cpus(), cpus)  -- of the process, as ever
        if not seen[list] then different = different + 1 end
        seen[list] = true
      end
      assert.equal(math.min(3, parallel.cpus()), different)
    end)

    it("takes a 'min' above the number of CPUs", function ()
      local pool <close> = parallel.pool { min = parallel.cpus() + 2 }
      assert.equal(parallel.cpus() + 2, pool:info().workers)
    end)

    it("fails with the message of a missing module", function ()
      local message = tostring(raised(parallel.pool,
                                      { modules = { "no_such_module" } }))
      assert.matches("module 'no_such_module' not found", message)
      assert.matches("no field package.preload%['no_such_module'%]", message)
    end)

    it("fails with the message that 'init' raises", function ()
      local message = tostring(raised(parallel.pool, {
        init = function () error("no database") end,
      }))
      assert.matches("pool_spec.lua:%d+: init: [^:]*pool_spec.lua:%d+: no "
                     .. "database$", message)
      message = tostring(raised(parallel.pool, { init = "error('not now')" }))
      assert.matches("init: %(chunk%):1: not now$", message)
      message = tostring(raised(parallel.pool, { init = "error {}" }))
      assert.matches("init: %(error object is a table value%)$", message)
    end)

    it("fails when 'init' raises in one worker of several", function ()
      local name <const> = os.tmpname()
      local message = tostring(raised(parallel.pool, {
        min = 2, max = 2, variables = { name = name },
        init = "assert(os.remove(name), 'somebody else has it')",
      }))
      assert.matches("somebody else has it", message)
    end)

    it("fails with the message of a module that raises", function ()
      local message = tostring(raised(parallel.pool, {
        preload = { broken = "error 'broken module'" },
        modules = { "broken" },
      }))
      assert.matches("broken module", message)
    end)
  end)

  describe("growing", function ()
    it("adds workers up to 'max' while jobs wait", function ()
      local pool <close> = parallel.pool { min = 1, max = 3 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local jobs = {}
      for i = 1, 5 do
        jobs[i] = pool:spawn(function ()
          pass()
          return i
        end)
      end
      gate:await(3)
      assert.equal(3, pool:info().workers)
      assert.equal(2, pool:info().queued)
      assert.equal(3, pool:info().running)
      gate:open()
      for i = 1, 5 do assert.equal(i, jobs[i]:get()) end
      assert.equal(3, pool:info().started_workers)
    end)

    it("wakes all workers, though few are awake", function ()
      local pool <close> = parallel.pool { min = 24, max = 24 }
      for _ = 1, 3 do
        gates.eventually(function () return pool:info().idle == 24 end)
        local gate <close> = gates.new()
        local pass <const> = gate.pass
        local jobs = {}
        for i = 1, 24 do jobs[i] = pool:spawn(function () pass() end) end
        gate:await(24)  -- each of them has begun
        assert.equal(24, pool:info().running)
        assert.equal(0, pool:info().queued)
        gate:open()
        for _, job in ipairs(jobs) do job:get() end
      end
      assert.equal(24, pool:info().started_workers)
    end)

    it("does not add workers for work that one can do", function ()
      local pool <close> = parallel.pool { min = 1, max = 4 }
      for i = 1, 10 do
        assert.equal(i * i, pool:run(square, i))
        gates.eventually(function () return pool:info().idle == 1 end)
      end
      assert.equal(1, pool:info().started_workers)
    end)

    it("ends workers above 'min' that were idle for 'idle' seconds",
       function ()
      local pool <close> = parallel.pool { min = 1, max = 3, idle = 0.01 }
      do
        local gate <close> = gates.new()
        local pass <const> = gate.pass
        for _ = 1, 3 do pool:spawn(function () pass() end) end
        gate:await(3)
        assert.equal(3, pool:info().workers)
      end
      assert.is_true(gates.eventually(function ()
        return pool:info().workers == 1
      end))
      assert.equal(16, pool:run(square, 4))
    end)

    it("keeps them with idle = math.huge", function ()
      local pool <close> = parallel.pool { min = 1, max = 2,
                                           idle = math.huge }
      do
        local gate <close> = gates.new()
        local pass <const> = gate.pass
        for _ = 1, 2 do pool:spawn(function () pass() end) end
        gate:await(2)
      end
      assert.is_true(gates.eventually(function ()
        return pool:info().idle == 2
      end))
      assert.equal(2, pool:info().workers)
    end)
  end)

  describe("close", function ()
    it("lets what is queued and running end", function ()
      local pool = parallel.pool { max = 1 }
      local jobs = {}
      for i = 1, 10 do jobs[i] = pool:spawn(square, i) end
      assert.is_true(pool:close())
      for i = 1, 10 do
        assert.equal("completed", jobs[i].state)
        assert.equal(i * i, jobs[i]:get())
      end
      assert.is_true(pool:info().closed)
      assert.equal(0, pool:info().workers)
    end)

    it("may be called twice", function ()
      local pool = parallel.pool { max = 1 }
      assert.is_true(pool:close())
      assert.is_true(pool:close())
    end)

    it("cancels what is queued after its timeout", function ()
      local pool = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local running = pool:spawn(function () pass() end)
      local queued = pool:spawn(square, 2)
      gate:await(1)
      local ok, reason = pool:close(0.01)
      assert.is_false(ok)
      assert.equal("timeout", reason)
      assert.equal("cancelled", queued.state)
      gate:open()
      running:wait(10)
      assert.not_equal("running", running.state)
    end)

    it("stops what seeds a runspace", function ()
      for _, code in ipairs {
        "spin()", "while true do pcall(spin) end", "coroutine.wrap(spin)()",
        "parallel.task.sleep(100)",
      } do
        local seeded <close> = gates.new()
        local held <close> = gates.new()
        local pool = open_seeding(code, seeded, held)
        held:open()
        pool:close(0)
        assert.equal(0, pool:info().stuck)
        assert.is_nil(pool:info().failure)
      end
    end)

    it("does not wait for a worker that nobody needs", function ()
      local seeded <close> = gates.new()
      local held <close> = gates.new()
      local pool = open_seeding("spin()", seeded, held)
      held:open()
      assert.is_true(pool:close(20))
      assert.equal(2, pool:info().done.completed)
      assert.equal(0, pool:info().stuck)
    end)

    it("does not wait for the renewal of a runspace", function ()
      for _, deadline in ipairs { false, 0.3 } do
        local seeded <close> = gates.new()
        local pool = parallel.pool {
          max = 1, max_tasks = 1,
          functions = { pass = seeded.pass, spin = spin },
          init = but_first "pass() spin()",
        }
        pool:run(square, 1)
        seeded:await(1)
        seeded:open()
        if deadline then
          pool:submit { square, arguments = { 2 }, deadline = deadline }
        end
        assert.is_true(pool:close(20))
        assert.equal(0, pool:info().stuck)
      end
    end)

    it("happens at the end of a block with <close>", function ()
      local kept
      do
        local pool <close> = parallel.pool { max = 1 }
        kept = pool
        assert.equal(4, pool:run(square, 2))
      end
      assert.is_true(kept:info().closed)
    end)
  end)

  it("is of no use to any verb once it is closed, though there are no items",
     function ()
    local pool <const> = parallel.pool { max = 1 }
    pool:close()
    for _, verb in ipairs { "map", "filter", "collect", "each", "reduce" } do
      assert.matches("pool_spec.lua:%d+: the pool is closed$",
                     raised(function () pool[verb](pool, {}, square) end))
    end
    for _, options in ipairs { {}, { async = true } } do
      assert.matches("pool_spec.lua:%d+: the pool is closed$",
                     raised(function () pool:invoke(square, {}, options) end))
    end
    pool:cancel()
    assert.is_true(pool:info().closed)
    assert.is_true(pool:close())
  end)

  it("takes verbs as methods", function ()
    local pool <close> = parallel.pool { max = 2 }
    assert.same({ 1, 4, n = 2 }, pool:map({ 1, 2 }, square))
    assert.equal(4, pool:collect({ 2 }, square)[1].result)
    assert.same({ 2, n = 1 }, pool:filter({ 1, 2 }, "return ... == 2"))
    assert.equal(3, pool:reduce({ 1, 2 }, "local a, b = ... return a + b"))
    assert.equal(9, pool:run(square, 3))
    assert.equal(16, pool:spawn(square, 4):get())
    for record in pool:each({ 5 }, square) do
      assert.equal(25, record.result)
    end
  end)

  it("counts what it finished", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _ = 1, 5 do pool:run(square, 1) end
    assert.equal(5, pool:info().finished)
  end)

  it("counts no job of a worker that is lost while its runspace is renewed",
     function ()
    local gate <close> = gates.new()
    local pool = parallel.pool { max = 1, reset = "fresh",
                                 init = but_first(pass_deaf(gate)) }
    pool:run(square, 1)
    gate:await(1)
    pool:close(0)
    local info <const> = pool:info()
    assert.equal(1, info.lost_workers)
    assert.equal(1, info.finished)
  end)

  for _, max in ipairs { 4, 8 } do
    it("has lost 8 workers when 8 jobs took theirs, " .. max .. " at a time",
       function ()
      assert.equal("8\t8\t8\n8\t8\n8\t8\ntrue\t1\n", (run_script(([[
        local pool = parallel.pool { max = %d }
        -- Only force ends an item that is late to come to its program.
        local records, report = pool:collect(parallel.range(8),
          "while true do pcall(os.execute, 'exec sleep 20') end",
          { timeout = 0.5, chunk = 1 })
        local states = report:count "state"
        local info, stats = pool:info(), parallel.stats()
        print(states.lost, report.failed, #records)
        print(info.lost_workers, info.done.lost)
        print(stats.lost_workers, stats.done.lost)
        local ok, got = pcall(pool.run, pool, "return 1")
        print(ok, (tostring(got):gsub("^[^ ]*: ", "")))
        os.exit(0)
      ]]):format(max))))
    end)
  end

  it("says what it is", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.matches("^parallel.pool", tostring(pool))
  end)

  it("lives beside others", function ()
    local pools = {}
    for i = 1, 5 do
      pools[i] = parallel.pool { max = 1, variables = { offset = i } }
    end
    for i = 1, 5 do
      assert.same({ i + 1, n = 1 }, pools[i]:map({ 1 },
                                                 "return offset + ..."))
    end
    for i = 1, 5 do assert.is_true(pools[i]:close()) end
  end)

  it("may be opened in a job", function ()
    local sum = parallel.run(function ()
      local pool <close> = parallel.pool { max = 2 }
      return pool:reduce(parallel.range(10), "local a, b = ... return a + b")
    end)
    assert.equal(55, sum)
  end)

  it("may be collected while jobs run", function ()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    do
      local pool = parallel.pool { max = 2 }
      for _ = 1, 4 do pool:spawn(function () pass() end) end
      gate:await(2)
    end
    collectgarbage()
    collectgarbage()
    gate:open()
    assert.equal(4, parallel.run(square, 2))
  end)

  it("of a job is the one that runs it", function ()
    local pool <close> = parallel.pool { max = 1,
                                         variables = { mark = "mine" } }
    assert.same({ "mine", n = 1 }, pool:run(function ()
      return parallel.map({ 1 }, "return mark")
    end))
  end)

  it("leaves no thread behind", function ()
    local before <const> = threads()
    for _ = 1, 20 do
      local pool <close> = parallel.pool { min = 2, max = 2 }
      pool:map({ 1, 2, 3 }, square)
    end
    assert.is_true(gates.eventually(function ()
      return threads() <= before
    end))
  end)
end)
