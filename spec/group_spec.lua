-- SPDX-License-Identifier: MIT
--- Groups: jobs that end together.
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

local function copy (...) return ... end
local function fail (text) error(text or "bad", 0) end

--- Run 'fn' as the block of a group.
---@param group parallel.Group
---@param fn fun(group: parallel.Group): any
local function block (group, fn)
  local g <close> = group
  return fn(g)
end

--- What the block of a group raises.
local function problem_of (group, fn)
  local ok, problem = pcall(block, group, fn)
  assert.is_false(ok, "no error")
  return problem
end

--- A job of 'owner' that stays where it is until it is stopped.
local function stay (owner, gate)
  local pass <const> = gate.pass
  return owner:spawn(function () pass() end)
end

describe("a group", function ()
  local pool
  before_each(function () pool = parallel.pool { max = 3 } end)
  after_each(function () pool:close(0) end)

  it("waits for its jobs at the end of its block", function ()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local jobs
    block(pool:group(), function (g)
      jobs = { g:spawn(copy, 1), g:submit { copy, arguments = { 2 } },
               g:spawn(function () pass() return 3 end) }
      assert.equal("parallel.group: 3 jobs", tostring(g))
      gate:await(1)
      gate:open()
    end)
    for i = 1, 3 do
      assert.equal("completed", jobs[i].state)
      assert.equal(i, jobs[i]:get(0))
    end
  end)

  it("uses the default pool without one", function ()
    local job
    block(parallel.group(), function (g) job = g:spawn(copy, "x") end)
    assert.equal("x", job:get(0))
  end)

  it("stops the rest at the first failure, and raises it", function ()
    local gate <close> = gates.new()
    local runs, queued
    local problem <const> = problem_of(pool:group(), function (g)
      runs = { stay(g, gate), stay(g, gate) }
      gate:await(2)
      g:submit { fail, arguments = { "first" }, name = "f", priority = 1 }
      queued = g:spawn(copy, 1)
      for _ = 1, 20 do stay(g, gate) end
    end)
    assert.equal("first", problem.error)
    assert.equal("f", problem.name)
    assert.equal("failed", problem.state)
    assert.equal("cancelled", runs[1].state)
    assert.equal("cancelled", runs[2].state)
    assert.is_truthy(queued.finished)
  end)

  it("raises its failure in 'wait', 'spawn' and 'submit', too", function ()
    local g <const> = pool:group()
    g:spawn(fail, "x")
    local _, problem <const> = pcall(g.wait, g)
    assert.equal("x", problem.error)
    for _, name in ipairs { "spawn", "submit" } do
      local _, again <const> =
        pcall(g[name], g, name == "spawn" and copy or { copy })
      assert.equal(problem, again)
    end
    local _, last <const> = pcall(g.close, g)
    assert.equal(problem, last)
    assert.equal("parallel.group: closed", tostring(g))
    g:close()
  end)

  it("waits as long as it is told to", function ()
    local gate <close> = gates.new()
    block(pool:group(), function (g)
      assert.is_true(g:wait())
      local job <const> = stay(g, gate)
      gate:await(1)
      assert.same({ nil, "timeout", n = 2 }, table.pack(g:wait(0)))
      assert.equal("running", job.state)
      gate:open()
      assert.is_true(g:wait(math.huge))
      assert.equal("completed", job.state)
    end)
  end)

  it("is cancelled by an error that leaves its block", function ()
    local gate <close> = gates.new()
    local jobs = {}
    local own <const> = {}
    local problem <const> = problem_of(pool:group(), function (g)
      for i = 1, 9 do jobs[i] = stay(g, gate) end
      gate:await(3)
      error(own)
    end)
    assert.equal(own, problem)
    for i = 1, 9 do assert.equal("cancelled", jobs[i].state) end
  end)

  it("goes on after 'cancel', which is no failure", function ()
    local gate <close> = gates.new()
    local job
    block(pool:group(), function (g)
      job = stay(g, gate)
      gate:await(1)
      g:cancel { grace = 1 }
      g:wait()
      stay(g, gate):cancel()
      g:spawn(copy)
    end)
    assert.equal("cancelled", job.state)
  end)

  it("counts what was lost by other hands as a failure", function ()
    local other <const> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local problem <const> = problem_of(other:group(), function (g)
      stay(g, gate)
      gate:await(1)
      other:close(0)
    end)
    assert.equal("cancelled", problem.state)
    assert.equal("closed", problem.reason)
  end)

  it("ends with the group that it is opened in", function ()
    local gate <close> = gates.new()
    local inner
    local problem <const> = problem_of(pool:group(), function (outer)
      outer:spawn(fail, "outer")
      return block(pool:group(), function (g)
        inner = stay(g, gate)
      end)
    end)
    assert.equal("outer", problem.error)
    assert.equal("cancelled", inner.state)
  end)

  it("ends with an outer one that is stopped or left open", function ()
    local gate <close> = gates.new()
    local inner, job
    block(pool:group(), function (outer)
      inner = pool:group()
      job = stay(inner, gate)
      gate:await(1)
      outer:cancel()
    end)
    assert.equal("cancelled", job.state)
    assert.equal("parallel.group: closed", tostring(inner))
    block(pool:group(), function () inner = pool:group() end)
    assert.equal("parallel.group: closed", tostring(inner))
  end)

  it("has nothing to do with groups of other coroutines", function ()
    local gate <close> = gates.new()
    local other, job
    local step <const> = coroutine.wrap(function ()
      block(pool:group(), function (g)
        other = g
        job = stay(g, gate)
        coroutine.yield()
      end)
    end)
    step()
    problem_of(pool:group(), function (g) g:spawn(fail) end)
    assert.equal("parallel.group: 1 job", tostring(other))
    gate:open()
    step()
    assert.equal("completed", job.state)
  end)

  it("stops a job that has a group of its own, and that", function ()
    -- A worker for each job: the outer one may run an inner one itself.
    local own <close> = parallel.pool { max = 4 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local outer
    local problem <const> = problem_of(own:group(), function (g)
      outer = g:spawn(function ()
        local inner <close> = parallel.group()
        for _ = 1, 2 do inner:spawn(function () pass() end) end
      end)
      gate:await(2)
      g:spawn(fail)
    end)
    assert.equal("bad", problem.error)
    assert.equal("cancelled", outer.state)
    assert.is_true(gates.eventually(function ()
      local info <const> = own:info()
      return info.running == 0 and info.queued == 0
    end))
  end)

  it("works in a job, and leaves nothing to the next one", function ()
    local single <close> = parallel.pool { max = 1, reset = "none" }
    local function leave (text)
      local g <const> = parallel.group()
      kept = { g }  -- luacheck: ignore
      g:spawn(function () error(text, 0) end)
      return pcall(g.wait, g)
    end
    local ok, problem <const> = single:run(leave, "x")
    assert.is_false(ok)
    assert.equal("x", problem.error)
    assert.equal(7, single:run(function ()
      local g <close> = parallel.group()
      return g:spawn(function () return 7 end):get()
    end))
  end)

  it("gives its options to its jobs", function ()
    local problem <const> = problem_of(pool:group { retries = 2 },
                                       function (g)
      g:spawn(function () error(parallel.task.attempt, 0) end)
    end)
    assert.equal(3, problem.error)
    for _, word in ipairs { "deadline", "total_timeout" } do
      problem_of(pool:group { [word] = 1e-3 }, function (g)
        local job <const> = g:spawn "while true do end"
        job:wait()
        assert.equal("timed_out", job.state)
        assert.equal("deadline", job.reason)
      end)
    end
    local seen = {}
    block(pool:group { streams = { warning = function (record)
      seen[#seen + 1] = record.value
    end } }, function (g)
      g:spawn "parallel.task.warning 'w'"
    end)
    assert.same({ "w" }, seen)
  end)

  it("reports failures that came after the first one", function ()
    local unseen = {}
    local handler <const> = parallel.on("unseen_failure", function (event)
      unseen[#unseen + 1] = event.data.error
    end)
    local problem <const> = problem_of(pool:group(), function (g)
      local a <const>, b <const> = g:spawn(fail, "a"), g:spawn(fail, "b")
      a:wait()
      b:wait()
    end)
    for _ = 1, 2 do
      collectgarbage()
      parallel.poll()
    end
    parallel.off("unseen_failure", handler)
    assert.is_truthy(problem.error == "a" or problem.error == "b")
    assert.is_true(#unseen <= 1 and unseen[1] ~= problem.error)
  end)

  it("works in processes", function ()
    local child <close> = parallel.pool { max = 2, isolation = "process" }
    local gate <close> = gates.new()
    local job
    local problem <const> = problem_of(child:group(), function (g)
      job = stay(g, gate)
      gate:await(1)
      g:spawn(fail, "there")
    end)
    assert.equal("there", problem.error)
    assert.equal("cancelled", job.state)
  end)

  it("refuses what it cannot mean", function ()
    local g <const> = pool:group()
    g:close()
    for _, row in ipairs {
      { function () parallel.group { limit = 2 } end,
        "unknown option 'limit' to 'group'" },
      { function () parallel.group { deadline = 1, total_timeout = 1 } end,
        "another word for 'deadline': leave one of them out" },
      { function () parallel.group { timeout = 0 } end,
        "bad option 'timeout' to 'group' %(a positive number" },
      { function () parallel.group({}, 1) end, "argument 2 to 'group'" },
      { function () parallel.group(4) end, "bad argument 'options' to" },
      { function () parallel:group() end, "got the module itself" },
      { function () g:spawn(copy) end,
        "bad call of 'spawn' %(the group is closed%)" },
      { function () g:submit { copy } end, "the group is closed" },
      { function () g:wait() end, "the group is closed" },
      { function () g:cancel() end, "the group is closed" },
      { function () g.spawn(copy) end, "a group expected, got a function" },
      { function () g:wait(-1) end, "bad argument 'timeout' to 'wait'" },
      { function () g:spawn(5) end, "bad argument 'fn' to 'spawn'" },
      { function () g:close(1) end, "argument 1 to 'close'" },
    } do
      local ok, message = pcall(row[1])
      assert.is_false(ok)
      assert.matches("^[^\n]*group_spec.lua:%d+: .*" .. row[2], message)
    end
  end)
end)
