-- SPDX-License-Identifier: MIT
--- Time-outs, deadlines, limits of memory and instructions, renewal, retries,
--- priorities, bounded queues, nesting.
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

--- How many records have each pair of state and reason.
local function tally (records)
  local result = {}
  for _, record in ipairs(records) do
    local key = record.state .. (record.reason and "/" .. record.reason or "")
    result[key] = (result[key] or 0) + 1
  end
  return result
end

--- A loop that allocates: ThreadSanitizer holds back signals from others.
local function spin () while true do tostring {} end end

--- Threads of this process.
local function threads ()
  local file <close> = assert(io.open "/proc/self/status")
  return tonumber(file:read "a":match "Threads:%s*(%d+)")
end

describe("timeout", function ()
  it("stops one item and leaves the others alone", function ()
    local records
    repeat  -- without a traceback, where the grace was over before it was made
      records = parallel.collect({ 1, 2, 3, 4 }, function (x)
        while x == 2 do tostring {} end
        return x * 10
      end, { timeout = 1 })
    until records[2].traceback ~= nil
    assert.same({ completed = 3, ["timed_out/timeout"] = 1 }, tally(records))
    assert.equal("timed_out", records[2].state)
    assert.equal("the job ran out of time", records[2].error)
    assert.matches("limit_spec", records[2].traceback)
    assert.equal(40, records[4].result)
    assert.is_true(records[2].duration >= 1)
  end)

  it("lets an item clean up", function ()
    local closed = {}
    parallel.on("closed", function (event)
      closed[#closed + 1] = event.data
    end)
    parallel.collect({ 1 }, function ()
      local _ <close> = setmetatable({}, { __close = function ()
        parallel.task.emit("closed", "here")
      end })
      while true do tostring {} end
    end, { timeout = 0.02 })
    parallel.off("closed")
    assert.same({ "here" }, closed)
  end)

  it("makes map raise, and tells which item", function ()
    local ok, failure = pcall(parallel.map, { "a", "b" }, function (x)
      while x == "b" do tostring {} end
      return x
    end, { timeout = 1 })
    assert.is_false(ok)
    assert.equal(2, failure.index)
    assert.equal("timed_out", failure.state)
    assert.equal("timeout", failure.reason)
    assert.matches("^item 2 %(\"b\"%) ran out of time$", tostring(failure))
  end)

  it("holds for a job, from its start", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local first <const> = pool:spawn(function () pass() end)
    local second <const> = pool:submit { "return 'in time'", timeout = 1 }
    local third <const> = pool:submit { spin, timeout = 0.02 }
    gate:await(1)
    while second.queued <= 1 do parallel.poll(0.1) end
    gate:open()
    assert.equal("in time", second:get())
    assert.equal("timed_out", third:wait())
    assert.equal("timeout", third.reason)
    assert.equal("completed", first:wait())
  end)

  it("holds where a failed item is in its way", function ()
    local records <const> = parallel.collect({ 1, 2, 3, 4, 5, 6 }, function (x)
      if x % 2 == 0 then error("no " .. x) end
      while x == 3 do tostring {} end
      return x
    end, { timeout = 1, chunk = 6 })
    assert.same({ completed = 2, ["failed/error"] = 3,
                  ["timed_out/timeout"] = 1 }, tally(records))
  end)

  it("costs no thread unless it is asked for", function ()
    local pool <close> = parallel.pool { min = 1, max = 1 }
    pool:run "return 1"
    local before <const> = threads()
    pool:map({ 1, 2, 3 }, "return ...")
    assert.equal(before, threads())
    pool:map({ 1, 2, 3 }, "return ...", { timeout = 10 })
    assert.is_true(threads() <= before + 1)
    local other <close> = parallel.pool { min = 1, max = 1 }
    other:map({ 1, 2, 3 }, "return ...", { timeout = 10 })
    assert.is_true(threads() <= before + 2)  -- and its worker
  end)

  it("comes to each of 5,000 items, and never early", function ()
    local pool <close> = parallel.pool { max = 32 }
    local records <const> = pool:collect(parallel.range(1, 5000), function ()
      parallel.task.sleep(10000)
    end, { timeout = 0.02, chunk = 1 })
    assert.equal(5000, #records)
    for _, record in ipairs(records) do
      assert.equal("timed_out", record.state)
      assert.is_true(record.duration >= 0.02)
    end
  end)
end)

describe("deadline", function ()
  it("ends a whole map, and says so", function ()
    local items <const> = parallel.range(1, 1000)
    local ok, failure = pcall(parallel.map, items, function ()
      parallel.task.sleep(10000)
    end, { deadline = 0.05 })
    assert.is_false(ok)
    assert.equal("timed_out", failure.state)
    assert.equal("deadline", failure.reason)
  end)

  it("leaves what was done by then", function ()
    local records, report = parallel.collect(parallel.range(1, 100),
      function (x)
        if x > 3 then parallel.task.sleep(100) end
        return x
      end, { deadline = 2, chunk = 1 })
    assert.same({ completed = 3, ["timed_out/deadline"] = 97 }, tally(records))
    assert.equal(100, report.total)
    assert.equal(0, records[100].attempts)
  end)

  it("ends a loop of each", function ()
    local states = {}
    for record in parallel.each(parallel.range(1, 8), function ()
      parallel.task.sleep(100)
    end, { deadline = 0.05 }) do
      states[record.state] = true
    end
    assert.same({ timed_out = true }, states)
  end)

  it("ends what is still queued", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    pool:spawn(function () pass() end)
    gate:await(1)
    local job <const> = pool:submit { "return 1", deadline = 0.02 }
    assert.equal("timed_out", job:wait())
    assert.equal("deadline", job.reason)
    assert.equal(0, job.attempts)
  end)

  it("ends invoke, for the keys that had not begun too", function ()
    local pool <close> = parallel.pool { max = 1 }
    local calls = {}
    for i = 1, 20 do calls["k" .. i] = {} end
    local results, errors = pool:invoke(function ()
      parallel.task.sleep(100)
    end, calls, { deadline = 0.05 })
    assert.is_nil(next(results))
    for i = 1, 20 do assert.equal("timed_out", errors["k" .. i].state) end
  end)

  it("raises when it comes between two items of an iterator", function ()
    local n = 0
    local ok, failure = pcall(parallel.map, function ()
      n = n + 1
      if n > 1 then parallel.task.sleep(0.01) end
      return n
    end, "return ...", { deadline = 0.05 })
    assert.is_false(ok)
    assert.equal("deadline", failure.reason)
  end)
end)

-- luacheck: push ignore 241
describe("memory", function ()
  --- Ways to want more than there is.
  local GREEDY <const> = {
    function ()
      local t = {}
      for i = 1, math.huge do t[i] = i end
    end,
    function ()
      local t = {}
      while true do t[#t + 1] = { {}, {} } end
    end,
    function ()
      local s = "x"
      while true do s = s .. s end
    end,
    function () return ("x"):rep(1 << 26) end,
    function ()
      local t = {}
      for i = 1, math.huge do t["key" .. i] = true end
    end,
    function ()
      local t = {}
      local function add () t[#t + 1] = coroutine.create(add) end
      while true do add() end
    end,
    function () table.concat(setmetatable({}, {
      __index = function (_, i) return ("x"):rep(i) end,
      __len = function () return 1 << 20 end,
    })) end,
    function ()  -- swallows it once
      local t = {}
      pcall(function () for i = 1, math.huge do t[i] = i end end)
      return "survived"
    end,
  }
  local STUBBORN <const> = function ()
    local t = {}
    while true do
      pcall(function () for i = 1, math.huge do t[i] = { i } end end)
    end
  end

  it("is a number of bytes, or a text with a fraction and a unit", function ()
    for _, row in ipairs {
      { 1536, 1536 }, { "1536", 1536 }, { "1.5K", 1536 }, { "1.5k", 1536 },
      { "1.5 KiB", 1536 }, { "1.5kb", 1536 }, { ".5K", 512 },
      { "0.001m", 1048 }, { "0.000001g", 1073 },
    } do
      local ok, message = pcall(parallel.pool, { memory = row[1] })
      assert.is_false(ok)
      assert.matches("memory: " .. row[2] .. " bytes are less", message)
    end
  end)

  it("is bounded, for 500 jobs at 8 MB", function ()
    local pool <close> = parallel.pool { max = 2, memory = "8M" }
    local jobs, innocent = {}, {}
    for i = 1, 500 do
      jobs[i] = pool:spawn(i % 25 == 0 and STUBBORN
                           or GREEDY[i % #GREEDY + 1])
      if i % 10 == 0 then
        innocent[#innocent + 1] = pool:spawn("return ...", i)
      end
    end
    for i, job in ipairs(jobs) do
      assert.equal("failed", job:wait())
      assert.equal("memory_limit", job.reason)
      assert.equal("the runspace has reached its limit of memory", job.error,
                   tostring(i))
    end
    for i, job in ipairs(innocent) do assert.equal(i * 10, job:get()) end
    local info <const> = pool:info()
    assert.equal(0, info.lost_workers)
    while pool:info().renewed < 500 do parallel.poll(0.001) end
    assert.is_true(info.bytes < 2 * (8 << 20))
  end)

  it("lets garbage make room", function ()
    local pool <close> = parallel.pool { max = 1, memory = "4M" }
    assert.equal(2000, pool:run(function ()
      local n = 0
      for _ = 1, 2000 do
        local t = {}
        for i = 1, 1000 do t[i] = i end
        n = n + 1
      end
      return n
    end))
    assert.equal(0, pool:info().renewed)
  end)

  it("lets the others of a map go on", function ()
    local greedy <const> = GREEDY[1]
    local records <const> = parallel.collect(parallel.range(1, 100),
      function (x)
        if x % 10 == 0 then greedy() end
        return x
      end, { memory = "4M" })
    assert.same({ completed = 90, ["failed/memory_limit"] = 10 },
                tally(records))
  end)

  it("must do for the initial state", function ()
    for _, limit in ipairs { "1K", "40K" } do
      local ok, message = pcall(parallel.pool, {
        memory = limit, init = "big = ('x'):rep(1 << 20)",
      })
      assert.is_false(ok)
      assert.matches("memory: %d+ bytes are less than", message)
    end
    local _, message = pcall(parallel.pool, { memory = 10 })
    assert.matches("limit_spec.lua:%d+: memory: 10 bytes are less than a "
                   .. "runspace takes", message)
  end)
end)
-- luacheck: pop

describe("instructions", function ()
  it("end what executes more", function ()
    local pool <close> = parallel.pool { max = 1, instructions = 100000 }
    assert.equal(5050, pool:run(function ()
      local n = 0
      for i = 1, 100 do n = n + i end
      return n
    end))
    for _, f in ipairs {
      spin, function () coroutine.wrap(spin)() end,
      function () while true do pcall(spin) end end,
    } do
      local job <const> = pool:spawn(f)
      assert.equal("failed", job:wait())
      assert.equal("instruction_limit", job.reason)
    end
  end)

  it("are counted for each item", function ()
    local items <const> = parallel.range(1, 20)
    local records <const> = parallel.collect(items, function (x)
      for _ = 1, 3000 do end
      while x == 7 do tostring {} end
      return x
    end, { instructions = 20000 })
    assert.same({ completed = 19, ["failed/instruction_limit"] = 1 },
                tally(records))
  end)

  it("are not counted while a runspace is seeded", function ()
    for _, reset in ipairs { "globals", "fresh" } do
      local pool <close> = parallel.pool {
        max = 1, instructions = 20000, reset = reset,
        init = "for _ = 1, 100000 do n = 1 end n = 2",
      }
      for _ = 1, 3 do
        assert.equal(2, pool:run "return n")
        assert.equal("failed", pool:spawn(spin):wait())
      end
      assert.equal(0, pool:info().failed_workers)
    end
  end)

  it("take the hook of the runspace", function ()
    local ok, failure = pcall(parallel.map, { 1 }, function ()
      debug.sethook()
    end, { instructions = 1000000 })
    assert.is_false(ok)
    assert.matches("counts instructions", failure.error)
  end)
end)

describe("a runspace is renewed", function ()
  it("after max_tasks jobs and items", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none",
                                         max_tasks = 3 }
    local function count () n = (n or 0) + 1 return n end  -- luacheck: ignore
    local list = {}
    for i = 1, 7 do list[i] = pool:run(count) end
    assert.same({ 1, 2, 3, 1, 2, 3, 1 }, list)
    local results <const> = pool:map(parallel.range(1, 8), count,
                                     { chunk = 8 })
    assert.same({ 2, 3, 1, 2, 3, 1, 2, 3, n = 8 }, results)
  end)

  it("or fails what is left, when it cannot be", function ()
    local path <const> = os.tmpname()
    local pool <close> = parallel.pool {
      max = 1, max_tasks = 100,
      init = function () assert(io.open(path)):close() end,
    }
    local function nothing () end
    for _ = 1, 1000 do pool:run(nothing) end
    local jobs = {}
    os.remove(path)
    for _ = 1, 1000 do
      local ok <const>, job <const> = pcall(pool.spawn, pool, nothing)
      if ok then jobs[#jobs + 1] = job end
    end
    for i, job in ipairs(jobs) do
      assert.is_truthy(job:wait(60), i)
      assert.matches("^[cf][oa][mi]", job.state)  -- completed or failed
    end
    assert.equal(0, pool:info().queued)
  end)

  it("when it keeps more than max_bytes", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none",
                                         max_bytes = "1M" }
    pool:run "kept = 'here' local t = {} for i = 1, 1e5 do t[i] = i end"
    assert.equal("here", pool:run "return kept")
    pool:run "big = ('x'):rep(2 << 20)"
    assert.is_nil(pool:run "return kept")
    assert.equal(1, pool:info().renewed)
  end)

  it("after it had to be forced, and not after a soft stop", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none" }
    pool:run "kept = 'here'"
    pool:submit({ spin, timeout = 0.01 }):wait()
    assert.equal("here", pool:run "return kept")
    pool:submit({ function () while true do pcall(spin) end end,
                  timeout = 0.01 }):wait()
    assert.is_nil(pool:run "return kept")
  end)

  it("after a stopped job has left finalizers, which may not end", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none" }
    pool:run "kept = 'here'"
    pool:submit({ function ()
      setmetatable({}, { __gc = spin })
      spin()
    end, timeout = 0.01 }):wait()
    assert.is_nil(pool:run "collectgarbage() return kept")
    assert.equal(1, pool:info().renewed)
  end)
end)

describe("retries", function ()
  --- Fails until it is tried for the nth time.
  local function nth (n)
    local attempt <const> = parallel.task.attempt
    if attempt < n then error("attempt " .. attempt, 0) end
    return attempt
  end

  it("try a job again", function ()
    local job <const> = parallel.submit { nth, arguments = { 3 }, retries = 4 }
    assert.equal(3, job:get())
    assert.equal(3, job.attempts)
  end)

  it("are given up", function ()
    local job <const> = parallel.submit { nth, arguments = { 9 }, retries = 2 }
    assert.equal("failed", job:wait())
    assert.equal("attempt 3", job.error)
    assert.equal(3, job.attempts)
  end)

  it("try items again", function ()
    local records <const> = parallel.collect({ 1, 2, 3, 4, 5 }, nth,
                                             { retries = 3 })
    local attempts = {}
    for i, record in ipairs(records) do attempts[i] = record.attempts end
    assert.same({ 1, 2, 3, 4, 4 }, attempts)
    assert.same({ completed = 4, ["failed/error"] = 1 }, tally(records))
    assert.same({ 1, 2, 3, n = 3 },
                parallel.map({ 1, 2, 3 }, nth, { retries = 2 }))
  end)

  it("give an item a new copy each time", function ()
    local results <const> = parallel.map({ { n = 0 }, { n = 10 } },
      function (t)
        t.n = t.n + 1
        if parallel.task.attempt < 3 then error "again" end
        return t.n
      end, { retries = 2, chunk = 2 })
    assert.same({ 1, 11, n = 2 }, results)
  end)

  it("are for what retry_on names", function ()
    local function attempts (retry_on, fn, more)
      local options <const> = { retries = 2, retry_on = retry_on,
                                timeout = fn == spin and 0.02 or nil }
      for name, value in pairs(more or {}) do options[name] = value end
      return parallel.collect({ 1 }, fn, options)[1].attempts
    end
    local function fail () error "no" end
    assert.equal(3, attempts(nil, fail))
    assert.equal(3, attempts(nil, spin))
    assert.equal(3, attempts("error", fail))
    assert.equal(1, attempts("error", spin))
    assert.equal(1, attempts("timeout", fail))
    assert.equal(3, attempts({ "timed_out" }, spin))
    local function greedy () return #("x"):rep(1 << 24) end
    assert.equal(1, attempts(nil, greedy, { memory = "4M" }))
    assert.equal(3, attempts("failed", greedy, { memory = "4M" }))
    assert.equal(3, attempts("memory_limit", greedy, { memory = "4M" }))
    local job <const> = parallel.submit { fail, retries = 5,
                                          retry_on = "timeout" }
    job:wait()
    assert.equal(1, job.attempts)
  end)

  it("end with a cancel", function ()
    local job <const> = parallel.submit {
      function ()
        parallel.task.emit "tried"
        error "again"
      end, retries = 0x7fffffff,
    }
    local tried = 0
    parallel.on("tried", function () tried = tried + 1 end)
    while tried < 3 do parallel.poll(1) end
    parallel.off "tried"
    job:cancel()
    assert.equal("cancelled", job:wait())
  end)

  --- A pool, and a job of it that waits for its second attempt, while the
  --- runspace for that does 'code'.
  local function between (gate, code, deadline)
    local token <const> = os.tmpname()
    os.remove(token)
    local pool = parallel.pool {
      max = 1, memory = "4M", functions = { pass = gate.pass, spin = spin },
      init = ("if os.remove '%s' then %s end"):format(token, code),
    }
    assert(io.open(token, "w")):close()
    local job <const> = pool:submit {
      function () return #("x"):rep(1 << 24) end, retries = 1,
      retry_on = "memory_limit", deadline = deadline,
    }
    gate:await(1)
    return pool, job
  end

  for _, row in ipairs {
    { "a cancel", function (_, job) job:cancel() end },
    { "a cancel of the pool", function (pool) pool:cancel() end },
  } do
    local how <const>, stop <const> = table.unpack(row)
    it("end with " .. how .. " between two attempts", function ()
      local gate <close> = gates.new()
      local pool <close>, job = between(gate, "pass() spin()")
      gate:open()
      stop(pool, job)  -- at the gate, or behind it
      assert.equal("cancelled", job:wait(100))
      assert.equal(1, job.attempts)
      assert.equal(2, pool:run "return 2")
      assert.equal(0, pool:info().failed_workers)
    end)
  end

  it("end with the deadline between two attempts", function ()
    local gate <close> = gates.new()
    local pool <close>, job = between(gate, "pass() spin()", 2)
    gate:open()
    assert.equal("timed_out", job:wait(100))
    assert.equal("deadline", job.reason)
    assert.equal(2, pool:run "return 2")
  end)

  it("end as lost with their worker between two attempts", function ()
    local gate <close> = gates.new()
    local pool, job = between(gate, ("os.execute 'printf x > %s; : < %s'")
                                    :format(gate.bell, gate.path))
    pool:close(0)
    assert.equal("lost", job:wait(100))
    assert.equal(1, pool:info().finished)
  end)
end)

describe("max_failures", function ()
  local function odd (x) return x % 2 == 0 or error("odd " .. x) end

  it("stops a collect", function ()
    local records <const> = parallel.collect(parallel.range(1, 1000), odd,
                                             { max_failures = 5, chunk = 1 })
    local by_state <const> = tally(records)
    assert.is_true(by_state["failed/error"] >= 5)
    assert.is_true(by_state["failed/error"] < 20)
    assert.is_true(by_state["cancelled/cancelled"] > 900)
  end)

  it("makes map raise", function ()
    local ok, failure = pcall(parallel.map, parallel.range(1, 100), odd,
                              { max_failures = 3, on_error = "continue" })
    assert.is_false(ok)
    assert.matches("odd", failure.error)
    assert.is_true((pcall(parallel.map, { 1, 2, 3, 4 }, odd,
                          { max_failures = 3, on_error = "continue" })))
  end)
end)

describe("priority", function ()
  it("decides what starts first, and the order within it", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    pool:spawn(function () pass() end)
    gate:await(1)
    local order, jobs = {}, {}
    for i, priority in ipairs { 0, -10, 5, 10, 0, 5, -1 } do
      jobs[i] = pool:submit { "return 1", priority = priority,
                              name = priority .. "/" .. i }
    end
    gate:open()
    parallel.wait(jobs)
    table.sort(jobs, function (a, b) return a.started < b.started end)
    for i, job in ipairs(jobs) do order[i] = job.name end
    assert.same({ "10/4", "5/3", "5/6", "0/1", "0/5", "-1/7", "-10/2" }, order)
  end)
end)

describe("the queue of a pool", function ()
  it("takes no more than its limit of jobs", function ()
    local pool <close> = parallel.pool { max = 1, queue = 2 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    pool:spawn(function () pass() end)
    gate:await(1)
    local jobs = { pool:spawn "return 1", pool:spawn "return 2" }
    local job, why = pool:try_submit { "return 3" }
    assert.is_nil(job)
    assert.equal("full", why)
    gate:open()
    jobs[3] = pool:submit { "return 3" }  -- waits
    for i, queued in ipairs(jobs) do assert.equal(i, queued:get()) end
    assert.equal(4, pool:try_submit({ "return 4" }):get())
  end)

  it("takes no more than its limit of bytes, but always one job", function ()
    local pool <close> = parallel.pool { max = 1, queue = { bytes = "1M" } }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    pool:spawn(function () pass() end)
    gate:await(1)
    local big <const> = ("x"):rep(2 << 20)
    local first <const> = pool:try_submit { "return #...",
                                            arguments = { big } }
    assert.is_not_nil(first)
    assert.same({ n = 2, nil, "full" },
                table.pack(pool:try_submit { "return 1" }))
    gate:open()
    assert.equal(2 << 20, first:get())
  end)

  it("lets maps and jobs of its own through", function ()
    local pool <close> = parallel.pool { max = 1, queue = 1 }
    assert.equal(500500, pool:reduce(parallel.range(1, 1000),
                                     "local a, b = ... return a + b"))
    assert.same({ 1, 2, 3 }, pool:run(function ()
      local jobs, results = {}, {}
      for i = 1, 3 do jobs[i] = parallel.spawn("return ...", i) end
      for i = 1, 3 do results[i] = jobs[i]:get() end
      return results
    end))
  end)
end)

describe("signal = 'none'", function ()
  it("leaves it to the job to look", function ()
    local pool <close> = parallel.pool { max = 1, signal = "none" }
    for _, code in ipairs {
      "while true do parallel.task.checkpoint() end",
      "while true do parallel.task.verbose 'here' end",
      "parallel.task.sleep(100)",
      "while true do pcall(parallel.task.checkpoint) end",
    } do
      local job <const> = pool:submit { code, timeout = 0.02 }
      assert.equal("timed_out", job:wait(), code)
    end
    local deaf <const> = pool:submit { "while true do end", timeout = 0.02 }
    assert.equal("lost", deaf:wait())
    assert.equal("next", pool:run "return 'next'")
  end)
end)

describe("a limit is refused:", function ()
  local pool
  setup(function () pool = parallel.pool { max = 1 } end)
  teardown(function () pool:close() end)

  --- Each row: what is opened or called, what is said.
  for _, row in ipairs {
    { function () parallel.pool { queue = 0 } end,
      "bad option 'queue' to 'pool' (a positive integer, or a table of jobs "
      .. "and bytes, expected, got 0)" },
    { function () parallel.pool { queue = { jobs = -1 } } end,
      "(a positive integer for jobs expected, got -1)" },
    { function () parallel.pool { queue = { bytes = "many" } } end,
      "or '64M', for bytes expected, got 'many')" },
    { function () parallel.pool { queue = { items = 3 } } end,
      "expected, got the field 'items')" },
    { function () parallel.pool { signal = "SIGUSR1" } end,
      "bad option 'signal' to 'pool' (the number of a signal, or 'none', "
      .. "expected, got 'SIGUSR1')" },
    { function () parallel.pool { signal = 9 } end,
      "signal (9) cannot be used to stop jobs" },
    { function () parallel.pool { memory = 0 } end, "got 0)" },
    { function () parallel.pool { memory = math.huge } end, "got inf)" },
    { function () pool:submit { "return 1", timeout = -1 } end,
      "bad option 'timeout' to 'submit' (a positive number of seconds "
      .. "expected, got -1)" },
    { function () pool:submit { "return 1", deadline = "soon" } end,
      "bad option 'deadline' to 'submit'" },
    { function () pool:try_submit { "return 1", priority = 99 } end,
      "bad option 'priority' to 'try_submit' (an integer from -10 to 10 "
      .. "expected, got 99)" },
    { function () pool:spawn("return 1"):cancel { grace = -1 } end,
      "bad option 'grace' to 'cancel' (a non-negative number of seconds "
      .. "expected, got -1)" },
    { function () pool:spawn("return 1"):cancel { grace = 0 / 0 } end,
      "bad option 'grace' to 'cancel'" },
    { function () pool:cancel { garce = 1 } end,
      "unknown option 'garce' to 'cancel' (did you mean 'grace'?)" },
    { function () pool:cancel(5) end,
      "bad argument 'options' to 'cancel' (a table expected, got 5)" },
    { function () parallel.task.sleep(-1) end,
      "bad argument 'seconds' to 'sleep' (a non-negative number of seconds "
      .. "expected, got -1" },
    { function () parallel.task.sleep(0 / 0) end,
      "bad argument 'seconds' to 'sleep'" },
  } do
    it(row[2], function ()
      local ok, message = pcall(row[1])
      assert.is_false(ok)
      assert.is_truthy(message:find(row[2], 1, true), message)
    end)
  end
end)

describe("pool:cancel", function ()
  it("stops what runs and what is queued, and leaves the pool", function ()
    local pool <close> = parallel.pool { max = 2 }
    local jobs = {}
    for i = 1, 6 do jobs[i] = pool:spawn(spin) end
    pool:cancel()
    for _, job in ipairs(jobs) do
      assert.equal("cancelled", job:wait())
      assert.equal("cancelled", job.reason)
    end
    assert.equal(7, pool:run "return 7")
  end)
end)

describe("the end of a pool", function ()
  it("by an error stops its jobs, and says why", function ()
    local job
    local good <const>, text <const> = pcall(function ()
      local pool <close> = parallel.pool { max = 1 }
      job = pool:spawn(function () while true do pcall(spin) end end)
      while job.state == "queued" do parallel.poll(0.001) end
      error("left", 0)
    end)
    assert.same({ false, "left" }, { good, text })
    assert.equal("cancelled", job.state)
    assert.equal("closed", job.reason)
  end)

  it("waits for its jobs, and for those that they start", function ()
    local first, nested, queued
    do
      local pool <close> = parallel.pool { max = 1 }
      first = pool:spawn(function ()
        local list <const> = parallel.map({ 1, 2, 3 }, function (x)
          return x * x
        end)
        parallel.spawn "return 'nobody waits for it'"
        return list[3]
      end)
      nested = pool:spawn(function ()
        return parallel.run(function ()
          return parallel.run "return 'nested'"
        end)
      end)
      for _ = 1, 20 do queued = pool:spawn "return 'queued'" end
    end
    assert.equal(9, first:get())
    assert.equal("nested", nested:get())
    assert.equal("queued", queued:get())
  end)
end)

describe("jobs inside jobs", function ()
  it("nest deeper than one runspace can hold, with one worker", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function nest (n)
      return n == 0 and 0 or 1 + parallel.run(nest, n - 1)
    end
    assert.equal(300, pool:run(nest, 300))
    local function tree_of (n)
      if n == 0 then return 1 end
      local parts <const> = parallel.map({ n - 1, n - 1 }, tree_of)
      return parts[1] + parts[2]
    end
    assert.equal(512, pool:run(tree_of, 9))
    local info <const> = pool:info()
    assert.equal(0, info.queued)
    assert.is_true(info.workers <= 2)
  end)

  it("end with the job that waits for them", function ()
    local pool <close> = parallel.pool { max = 2 }
    local job <const> = pool:spawn(function ()
      parallel.map({ 1, 2, 3, 4 }, function ()
        parallel.task.sleep(100)
      end)
    end)
    while pool:info().running < 2 do parallel.poll(0.001) end
    job:cancel()
    assert.equal("cancelled", job:wait())
    assert.equal("free", pool:run "return 'free'")
    while pool:info().running > 0 do parallel.poll(0.001) end
  end)
end)
