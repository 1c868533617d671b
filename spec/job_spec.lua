-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local notes <const> = require "support.notes"
local parallel <const> = require "parallel"

local function square (x) return x * x end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

describe("run", function ()
  it("returns all results of a function", function ()
    assert.same({ 3, 1, nil, 3, n = 4 }, table.pack(parallel.run(
      function (...) return select("#", ...), ... end, 1, nil, 3)))
    assert.equal(0, select("#", parallel.run(function () end)))
  end)

  it("runs a chunk of source with its arguments", function ()
    assert.same({ 2, 1, n = 2 },
                table.pack(parallel.run("local a, b = ... return b, a", 1, 2)))
  end)

  it("raises the failure of the function", function ()
    local failure = raised(parallel.run, function () error({ code = 7 }) end)
    assert.same({ code = 7 }, failure.error)
    assert.equal("failed", failure.state)
    assert.matches("stack traceback:", failure.traceback)
    assert.is_nil(failure.index)
  end)

  it("sends the same function again as it is now", function ()
    local pool <close> = parallel.pool { max = 1 }
    local count = 0
    local function counted () return count end
    local plain <const> = load("return X or 'none'")
    for i = 1, 10 do
      count = i
      assert.equal(i, pool:run(counted))
      assert.equal("none", pool:run(plain))
      assert.equal(i, pool:run("local x = ...; return x", i))
    end
    -- An environment of its own is not that of the runspace.
    local env <const> = setmetatable({}, { __index = _G })
    local other = load("return X or 'none'", "=other", "t", env)
    assert.equal("none", pool:run(other))
    debug.setupvalue(plain, 1, { X = "mine" })
    assert.equal("mine", pool:run(plain))
    debug.setupvalue(plain, 1, _G)
    assert.equal("none", pool:run(plain))
  end)

  it("sends functions that were made where others were", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function try (i)
      local made <const> = load("return " .. i)
      assert.equal(i, pool:run(made))
      assert.equal(i, pool:run(made))
    end
    for i = 1, 50 do
      try(i)
      if i % 10 == 0 then collectgarbage() end
    end
  end)

  it("keeps nothing of a job in a function that is sent again", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function assign ()
      local before = Y  -- luacheck: ignore 113
      Y = 1             -- luacheck: ignore 111
      return before
    end
    for _ = 1, 5 do assert.is_nil(pool:run(assign)) end
  end)

  it("keeps what two arguments share", function ()
    local shared <const> = {}
    assert.is_true(parallel.run(function (a, b)
      return a.x == b.x
    end, { x = shared }, { x = shared }))
  end)
end)

describe("job", function ()
  it("is queued, running, then completed", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local first = pool:spawn(function () pass() end)
    local second = pool:spawn(square, 3)
    gate:await(1)
    assert.equal("running", first.state)
    assert.equal("queued", second.state)
    gate:open()
    assert.equal("completed", first:wait())
    assert.equal("completed", second:wait())
    assert.equal("completed", second.state)
  end)

  it("has fields that tell about it", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job = pool:spawn(square, 3)
    job:wait()
    assert.equal("integer", math.type(job.id))
    assert.equal("job-" .. job.id, job.name)
    assert.equal(1, job.worker)
    assert.equal(1, job.attempts)
    assert.is_true(job.created <= job.started)
    assert.is_true(job.started <= job.finished)
    local info <const> = job:info()
    assert.equal(job.id, info.id)
    assert.equal("completed", info.state)
    local names = {}
    for name in pairs(info) do names[#names + 1] = name end
    table.sort(names)
    assert.equal("attempts created duration finished finished_at id name "
                 .. "queued started started_at state worker",
                 table.concat(names, " "))
    assert.is_nil(job.no_such_field)
    assert.matches("^parallel.job", tostring(job))
  end)

  it("tells the time of day of its start and its end", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local before <const> = os.time()
    local pass <const> = gate.pass
    local job = pool:spawn(function () pass() end)
    gate:await(1)
    assert.is_true(job.started_at >= before)
    assert.is_nil(job.finished_at)
    gate:open()
    job:wait()
    assert.is_true(job.started_at >= before)
    assert.is_true(job.finished_at <= os.time() + 1)
    local info <const> = job:info()
    assert.equal(job.started_at, info.started_at)
    assert.equal(job.finished_at, info.finished_at)
    assert.is_true(math.abs(info.finished_at - info.started_at
                            - info.duration) < 1e-5)
    local waits <const> = pool:submit { square, arguments = { 1 } }
    waits:wait()
    assert.is_true(waits.started_at >= job.finished_at)
  end)

  it("has a name when it is given one", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job = pool:submit { square, name = "squaring", arguments = { 3 } }
    assert.equal("squaring", job.name)
    assert.equal(9, job:get())
  end)

  it("is not submitted with arguments by name", function ()
    assert.matches("job_spec.lua:%d+: bad option 'arguments' to 'submit' %(an "
                   .. "array expected, got the key 'host'; values by name are "
                   .. "given as 'params'%)", raised(function ()
      parallel.submit { square, arguments = { host = 3 } }
    end))
  end)

  it("is heard to its end by its handlers once it is removed", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local heard = {}
    local job = pool:spawn(function ()
      parallel.task.verbose "sent before"
      pass()
    end)
    for _, name in ipairs { "verbose", "cancelled" } do
      job:on(name, function (event) heard[#heard + 1] = event.name end)
    end
    gate:await(1)
    job:remove()
    job:wait()
    assert.same({ "verbose", "cancelled" }, heard)
  end)

  describe("wait", function ()
    it("returns the final state", function ()
      local job = parallel.spawn(square, 3)
      assert.equal("completed", job:wait())
      assert.equal("failed", parallel.spawn(error, "x"):wait(100))
    end)

    it("returns nil and 'timeout' once the time is over", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job = pool:spawn(function () pass() end)
      assert.same({ nil, "timeout", n = 2 }, table.pack(job:wait(0)))
      assert.same({ nil, "timeout", n = 2 }, table.pack(job:wait(0.01)))
    end)
  end)

  describe("join", function ()
    it("returns true and the results", function ()
      local job = parallel.spawn(function (...) return ..., nil end, 1)
      assert.same({ true, 1, nil, n = 3 }, table.pack(job:join()))
    end)

    it("returns false and a failure", function ()
      local ok, failure = parallel.spawn(function ()
        error({ code = 7 })
      end):join()
      assert.is_false(ok)
      assert.same({ code = 7 }, failure.error)
      assert.matches("^'job%-%d+': ", tostring(failure))
    end)

    it("returns nil and 'timeout' once the time is over", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job = pool:spawn(function () pass() end)
      assert.same({ nil, "timeout", n = 2 }, table.pack(job:join(0.01)))
    end)

    it("gives new copies each time", function ()
      local job = parallel.spawn(function () return { 1 } end)
      local _, first = job:join()
      local _, second = job:join()
      assert.same(first, second)
      assert.not_equal(first, second)
    end)

    it("says so when it is called with a dot", function ()
      assert.matches("job_spec.lua:%d+: bad call of 'join' %(a job expected, "
                     .. "got 5; it is written job:join%(...%)%)",
                     raised(function ()
        local _ = parallel.spawn(square, 1).join(5)
      end))
    end)

    it("refuses a negative time", function ()
      local job = parallel.spawn(square, 1)
      assert.matches("job_spec.lua:%d+: bad argument 'timeout' to 'join' %(a "
                     .. "non%-negative number of seconds expected, got %-1%)",
                     raised(function () local _ = job:join(-1) end))
    end)
  end)

  describe("get", function ()
    it("returns the results", function ()
      local job = parallel.spawn(function () return 1, nil, 3 end)
      assert.same({ 1, nil, 3, n = 3 }, table.pack(job:get()))
    end)

    it("raises the failure", function ()
      local failure = raised(function ()
        return parallel.spawn(error, "plain"):get()
      end)
      assert.equal("plain", failure.error)
    end)

    it("raises when the time is over", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job = pool:spawn(function () pass() end)
      assert.matches("job_spec.lua:%d+: timeout: job 'job%-%d+' has not ended "
                     .. "within 0.01 s",
                     raised(function () local _ = job:get(0.01) end))
    end)
  end)

  describe("fetch", function ()
    it("returns nil and 'not finished' before the end", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job = pool:spawn(function () pass() end)
      assert.same({ nil, "not finished", n = 2 }, table.pack(job:fetch()))
    end)
  end)

  describe("cancel", function ()
    it("ends a queued job before it starts", function ()
      local note <close> = notes.new()
      local write <const> = note.write
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      pool:spawn(function () pass() end)
      local job = pool:spawn(function () write("ran") end)
      gate:await(1)
      job:cancel()
      assert.equal("cancelled", job.state)
      local ok, failure = job:join()
      assert.is_false(ok)
      assert.equal("cancelled", failure.state)
      assert.matches("was cancelled", tostring(failure))
      gate:open()
      pool:close()
      assert.same({}, note:lines())
    end)
  end)

  it("runs on when nobody holds it", function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool = parallel.pool { max = 1 }
    for i = 1, 3 do pool:spawn(function () write(i) end) end
    collectgarbage()
    collectgarbage()
    assert.is_true(pool:close())
    assert.same({ "1", "2", "3" }, note:lines())
  end)

  it("keeps its results when its pool is closed", function ()
    local pool = parallel.pool { max = 1 }
    local job = pool:spawn(square, 5)
    pool:close()
    pool = nil  -- luacheck: ignore 311
    collectgarbage()
    assert.equal(25, job:get())
  end)

  it("may wait for jobs of its own pool", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(10, pool:run(function ()
      local jobs, sum = {}, 0
      for i = 1, 4 do
        jobs[i] = parallel.spawn(function (x) return x end, i)
      end
      for i = 1, 4 do sum = sum + jobs[i]:get() end
      return sum
    end))
  end)

  it("may be one of many", function ()
    local pool <close> = parallel.pool { max = 2 }
    local jobs = {}
    for i = 1, 1000 do jobs[i] = pool:spawn(square, i) end
    for i = 1000, 1, -1 do assert.equal(i * i, jobs[i]:get()) end
  end)

  it("has one handle, however many others come and go", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job <const> = pool:spawn(function () pass() return "held" end)
    local function find ()
      for _, other in ipairs(parallel.jobs()) do
        if other.id == job.id then return other end
      end
    end
    local few <const> = pool:spawn(square, 2)
    collectgarbage()
    collectgarbage()
    local others <const> = #parallel.jobs()
    for _, n in ipairs { 5000, 100, 20000, 10000 } do
      local jobs = {}
      for i = 1, n do jobs[i] = pool:spawn(square, i) end
      assert.equal(job, find())
      assert.equal(n + others, #parallel.jobs())
      for i = 1, n do jobs[i]:cancel() end
      jobs = nil  -- luacheck: ignore 311
      collectgarbage()
      collectgarbage()
      assert.equal(others, #parallel.jobs())
    end
    for _ = 1, 60000 do pool:spawn(square, 1):cancel() end
    assert.equal(job, find())
    gate:open()
    assert.equal("held", job:get())
    assert.equal(4, few:get())
  end)

  it("is not collected while the collector is stopped", function ()
    local pool <close> = parallel.pool { max = 1 }
    local alive = setmetatable({}, { __mode = "v" })
    collectgarbage()
    collectgarbage "stop"
    for i = 1, 10000 do
      local job = pool:spawn(square, i)
      alive[i] = job
      job:get()
    end
    local n = 0
    for _ in pairs(alive) do n = n + 1 end
    collectgarbage "restart"
    assert.equal(10000, n)
  end)
end)
