-- SPDX-License-Identifier: MIT
--- Workers that do not come back from C code: what is told of it.

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
