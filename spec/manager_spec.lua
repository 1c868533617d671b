-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

describe("a manager", function ()
  it("starts jobs by name and has their records", function ()
    local m <close> = parallel.manager(2)
    local job = m:start(function (n) return n * 2, "more" end, { n = 21 },
                        "double")
    assert.equal("double", job.name)
    local record = m:wait "double"
    assert.equal("completed", record.state)
    assert.equal(42, record.result)
    assert.same({ 42, "more", n = 2 }, record.results)
    assert.is_true(record.duration >= 0)
    assert.is_true(record.finished >= record.started)
    assert.equal(42, m:get("double").result)
    assert.equal("a1", m:wait(m:start("return ...", { "a1" }).name).result)
  end)

  it("takes what a pool takes", function ()
    local m <close> = parallel.manager {
      max = 1, variables = { base = 40 }, reset = "none",
    }
    m:start("base = base + 2", nil, "first")
    m:start("return base", nil, "second")
    assert.equal(42, m:wait("second").result)
    local record <const> = m:wait "first"
    assert.is_true(record.finished_at >= record.started_at)
    assert.is_true(math.abs(record.finished_at - os.time()) < 60)
    local child <close> = parallel.manager { isolation = "process", max = 1 }
    assert.equal(1, child:wait(child:start("return 1").name).result)
  end)

  it("makes names of 'Job_' and eight characters", function ()
    local m <close> = parallel.manager(1)
    assert.matches("^Job_%w%w%w%w%w%w%w%w$", m:start(function () end).name)
  end)

  it("tells queued jobs from running ones, and what has ended", function ()
    local m <close> = parallel.manager(1)
    local gate <close> = gates.new()
    m:start(gate.pass, nil, "first")
    m:start(function () error "bad" end, nil, "second")
    gate:await(1)
    assert.equal("first", m:running()[1].name)
    assert.equal("second", m:queued()[1].name)
    assert.equal(0, #m:completed())
    gate:open()
    local all = m:wait_all()
    assert.equal(2, #all)
    assert.equal("completed", all[1].state)
    assert.equal("failed", all[2].state)
    assert.matches("bad$", all[2].error)
    assert.equal(2, #m:completed())
    assert.equal(0, #m:running())
  end)

  it("raises in the system's words", function ()
    local m <close> = parallel.manager(1)
    local gate <close> = gates.new()
    m:start(gate.pass, nil, "X")
    gate:await(1)
    for _, row in ipairs {
      { function () m:start(print, nil, "X") end,
        "Job with name 'X' already exists$" },
      { function () m:get "Y" end, "Job 'Y' not found$" },
      { function () m:wait "Y" end, "Job 'Y' not found$" },
      { function () m:remove "Y" end, "Job 'Y' not found$" },
      { function () m:wait("X", 0.01) end,
        "Job 'X' timed out after 0.01 seconds$" },
      { function () m:wait_all(0.01) end,
        "1 job timed out after 0.01 seconds$" },
      { function () m:get(1) end, "bad argument 'name' to 'get'" },
      { function () m:start(1) end, "bad argument 'fn' to 'start'" },
      { function () m:start(print, 5) end, "bad argument 'arguments'" },
      { function () m:start(print, nil, 5) end, "bad argument 'name'" },
      { function () m:wait("X", -1) end, "bad argument 'timeout' to 'wait'" },
      { function () parallel.manager(0) end,
        "bad argument 'max' to 'manager'" },
      { function () parallel.manager { max = 1, min = 2 } end,
        "bad option 'min' to 'manager' %(2 workers are more than 'max', 1" },
      { function () parallel.manager { modules = { "no.such" } } end,
        "module 'no.such' not found" },
      { function () parallel.manager { cwd = "/" } end,
        "bad option 'cwd' to 'manager' %(it is for processes" },
      { function () m.all() end, "bad call of 'all'" },
    } do
      assert.error_matches(row[1], row[2])
    end
    gate:open()
  end)

  it("removes jobs, stopping those that wait", function ()
    local m <close> = parallel.manager(1)
    local gate <close> = gates.new()
    m:start(gate.pass, nil, "runs")
    local queued = m:start(function () end, nil, "waits")
    gate:await(1)
    m:remove "waits"
    assert.equal("cancelled", queued.state)
    assert.equal(1, #m:all())
    m:start(function () return 5 end, nil, "waits")
    gate:open()
    assert.equal(5, m:wait("waits").result)
  end)

  it("stops and removes all at the end of its scope", function ()
    local kept, queued
    local gate <close> = gates.new()
    do
      local m <close> = parallel.manager(1)
      kept = m
      m:start(gate.pass, nil, "runs")
      queued = m:start(function () end, nil, "waits")
      gate:await(1)
      gate:open()
    end
    assert.is_truthy(queued:info().finished)
    assert.error_matches(function () kept:all() end, "the manager is closed")
    kept:close()
  end)
end)
