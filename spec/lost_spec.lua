-- SPDX-License-Identifier: MIT
--- Workers that do not come back from C code: what is told of it, and what
--- becomes of the jobs that wait behind them.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

--- Code that arrives at a gate, and waits there where no signal reaches it.
---@param gate table
---@return string
local function deaf (gate)
  return ("os.execute 'printf x > %s; : < %s'"):format(gate.bell, gate.path)
end

--- Let a pool of four lose 'n' workers, all that it has each time.
---@param pool parallel.Pool
---@param gate table
---@param n integer
local function lose (pool, gate, n)
  local jobs = {}
  for i = 1, n do jobs[i] = pool:spawn(deaf(gate)) end
  for first = 1, n, 4 do
    gate:await(4)  -- the oldest ones that are not lost
    for i = first, first + 3 do jobs[i]:cancel { grace = 0 } end
    for i = first, first + 3 do assert.equal("lost", jobs[i]:wait()) end
  end
  local info <const> = pool:info()
  assert.equal(n, info.stuck)
  assert.equal(n, info.lost_workers)
end

--- The same, until it replaces no more of them.
---@param pool parallel.Pool
---@param gate table
local function desert (pool, gate)
  lose(pool, gate, 12)
  assert.equal(0, pool:info().workers)
end

local NO_WORKER <const> = "no worker was left: the pool has lost 12, which "
                          .. "did not come back from their jobs"

--- What a process of its own tells of a job that is lost.  It is tried again
--- when the stop came before its C code.
local HARNESS <const> = [[
local parallel = require "parallel"
local begun = false
parallel.on("begun", function () begun = true end)
local pool = parallel.pool { max = 1 }
local job
for _ = 1, 20 do
  begun = false
  job = pool:spawn(%q)
  while not begun do parallel.poll(1) end
  job:cancel()
  if job:wait() == "lost" then break end
end
print(job.state, job.error)
print(select(2, job:join()))
os.exit(0, false)
]]

local BEGUN <const> = "parallel.task.emit 'begun' "
local SLEEP <const> = "local sleep = require 'socket'.sleep " .. BEGUN

--- ThreadSanitizer holds back signals from loops that call nothing which it
--- knows.
local unless_held_back <const> = tree.sanitizers == "thread" and pending or it

describe("what is lost", function ()
  --- Each row: what does not come back, what its error says, its code, and
  --- whether that calls nothing at all.
  for _, row in ipairs {
    { "a socket that receives", "'receive' (C function)",
      "local socket = require 'socket' "
      .. "local server = assert(socket.bind('127.0.0.1', 0)) "
      .. "local _, port = server:getsockname() "
      .. "local client = assert(socket.connect('127.0.0.1', port)) "
      .. BEGUN .. "client:receive()" },
    { "a sleep", "'sleep' (C function)", SLEEP .. "sleep(100)" },
    { "a sleep in a coroutine", "'sleep' (C function)",
      SLEEP .. "coroutine.wrap(function () sleep(100) end)()" },
    { "a sleep in a comparison", "'sleep' (C function)",
      SLEEP .. "table.sort({ 1, 2 }, function () sleep(100) end)" },
    { "a function that pcall calls", "a C function",
      SLEEP .. "while true do pcall(sleep, 100) end" },
    { "a sleep in a finalizer", "'sleep' (C function)", SLEEP
      .. "setmetatable({}, { __gc = function () sleep(100) end }) "
      .. "collectgarbage()" },
    { "os.execute", "'execute' (C function)",
      BEGUN .. "os.execute 'exec sleep 3'" },
    { "a catastrophic pattern", "'find' (C function)",
      BEGUN .. "string.find(('a'):rep(40), ('.-'):rep(20) .. 'b')", true },
  } do
    local what <const>, place <const>, code <const>, busy <const> =
      table.unpack(row)
    local test <const> = busy and unless_held_back or it
    test("says where: " .. what, function ()
      local text <const> = run(HARNESS:format(code))
      local told <const> = "(chunk):1: did not come back from " .. place
      assert.equal("lost\t" .. told .. "\n'job' was lost: its runspace never "
                   .. "came back from it: " .. told .. "\n",
                   (text:gsub("job%-%d+", "job")))
    end)
  end

  unless_held_back("says nothing where it is in Lua code", function ()
    assert.matches("^lost\tnil\n'job%-%d+' was lost: its runspace never came "
                   .. "back from it\n$",
                   run(HARNESS:format("debug.sethook(function () " .. BEGUN
                                      .. "while true do end end, '', 1)")))
  end)
end)

describe("a lost item", function ()
  it("says where it is, and all others complete", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 2 }
    local code <const> = "if ... == 3 then " .. deaf(gate) .. " end return ..."
    local records, report = pool:collect(parallel.range(100), code,
                                         { timeout = 2, chunk = 1 })
    local lost <const> = table.remove(records, 3)
    assert.equal("lost", lost.state)
    assert.equal("(chunk):1: did not come back from 'execute' (C function)",
                 lost.error)
    assert.equal(99, report.succeeded)
    for _, record in ipairs(records) do
      assert.equal(record.input, record.result)
    end
    assert.equal(1, pool:info().lost_workers)
    assert.equal(1, pool:info().done.lost)
  end)

  it("says where it is when 'map' raises it", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 1 }
    local _, failure = pcall(pool.map, pool, { "a" }, deaf(gate),
                             { timeout = 2 })
    assert.equal("lost", failure.state)
    assert.equal("item 1 (\"a\") was lost: its runspace never came back from "
                 .. "it: (chunk):1: did not come back from 'execute' (C "
                 .. "function)", tostring(failure))
  end)
end)

describe("a pool that has lost 8 workers", function ()
  it("has replaced as many", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 4 }
    lose(pool, gate, 8)
    assert.equal("ran", pool:run "return 'ran'")
    assert.equal(8, parallel.stats().lost_workers)
  end)
end)

describe("a pool that has lost all its workers", function ()
  it("runs what is queued when they come back", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 4 }
    desert(pool, gate)
    local job <const> = pool:spawn "return 'ran'"
    local jobs <const> = pool:invoke("return ...", { a = { 1 }, b = { 2 } },
                                     { async = true })
    assert.equal("queued", job.state)
    assert.equal("queued", jobs.a.state)
    assert.equal(3, pool:info().queued)
    gate:open()
    assert.equal("ran", job:get())
    assert.equal(1, jobs.a:get())
    assert.equal(2, jobs.b:get())
    assert.same({ 1, 2, 3, n = 3 }, pool:map({ 1, 2, 3 }, "return ..."))
    assert.equal(12, pool:info().lost_workers)
  end)

  it("does so for the items behind those that are lost", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 4 }
    local code <const> = "if ... <= 12 then " .. deaf(gate) .. " end "
                         .. "return ..."
    local lost, good = 0, 0
    for record in pool:each(parallel.range(40), code,
                            { timeout = 2, chunk = 1 }) do
      if record.state == "lost" then
        lost = lost + 1
        assert.is_true(record.index <= 12)
      else
        good = good + 1
        assert.equal(record.index, record.result)
        assert.is_true(record.index > 12)
      end
      if lost == 12 and good == 0 then
        assert.equal(0, pool:info().workers)
        gate:open()
      end
    end
    assert.same({ 12, 28 }, { lost, good })
  end)

  it("keeps it until the deadline, and says so", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 4 }
    desert(pool, gate)
    local job <const> = pool:submit { "return 1", deadline = 0.05 }
    assert.equal("timed_out", job:wait())
    assert.equal("deadline", job.reason)
    assert.equal(NO_WORKER, job.error)
    assert.matches("' ran out of time: " .. NO_WORKER .. "$",
                   tostring(select(2, job:join())))
    local records = pool:collect(parallel.range(1000), "return ...",
                                 { deadline = 0.05 })
    for _, record in ipairs(records) do
      assert.equal("timed_out", record.state)
      assert.equal("deadline", record.reason)
      assert.equal(NO_WORKER, record.error)
      assert.equal(0, record.attempts)
    end
    assert.equal(1000, #records)
    local _, failure = pcall(pool.map, pool, { 1, 2 }, "return ...",
                             { deadline = 0.05 })
    assert.equal("item 1 (1) ran out of time: " .. NO_WORKER,
                 tostring(failure))
  end)

  it("is closed at once", function ()
    local gate <close> = gates.new()
    local pool = parallel.pool { max = 4 }
    desert(pool, gate)
    local jobs = {}
    for i = 1, 5 do jobs[i] = pool:spawn "return 1" end
    assert.same({ n = 2, false, "timeout" }, table.pack(pool:close()))
    for _, job in ipairs(jobs) do
      assert.equal("cancelled", job.state)
      assert.equal("closed", job.reason)
      assert.equal(NO_WORKER, job.error)
    end
    local info <const> = pool:info()
    assert.equal(12, info.lost_workers)
    assert.equal(12, info.done.lost)
    assert.equal(5, info.done.cancelled)
    assert.equal(0, info.queued)
  end)

  it("ends what is cancelled there", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 4 }
    desert(pool, gate)
    local job <const> = pool:spawn "return 1"
    assert.is_true(job:cancel())
    assert.equal("cancelled", job:wait())
    assert.matches("' was cancelled$", tostring(select(2, job:join())))
  end)
end)

describe("a lost job that its parent runs itself", function ()
  it("takes the parent along, and the manual says so", function ()
    local gate <close> = gates.new()
    local pool <close> = parallel.pool { max = 1 }
    local wait <const> = deaf(gate)
    local job <const> = pool:spawn(function ()
      local child <const> = parallel.submit { wait, timeout = 0.01 }
      return child:join()
    end)
    assert.equal("lost", job:wait())
    assert.equal(1, pool:info().lost_workers)
    assert.equal(1, pool:run "return 1")
  end)
end)
