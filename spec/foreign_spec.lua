-- SPDX-License-Identifier: MIT
--- C modules of others in jobs that are stopped.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

describe("luv in a job", function ()
  --- Calls back once, in a loop that does not end by itself.
  local function loop (callback)
    local uv <const> = require "luv"
    local once <const>, often <const> = uv.new_timer(), uv.new_timer()
    once:start(0, 0, callback)
    often:start(0, 1, function () end)
    uv.run()
    return "the loop has returned"
  end

  --- Each row: what the callback does, how the job ends and why, options of
  --- the job and of the pool, a part of the error.
  for _, row in ipairs {
    { "computes for ever", "timed_out", "timeout",
      function () while true do tostring {} end end,
      job = { timeout = 0.05 } },
    { "computes for ever and catches errors", "timed_out", "timeout",
      function ()
        while true do pcall(function () while true do tostring {} end end) end
      end,
      job = { timeout = 0.05 } },
    { "waits", "timed_out", "timeout",
      function () require "parallel".task.sleep(1000) end,
      job = { timeout = 0.05 } },
    { "takes too much memory", "failed", "memory_limit",
      function () string.rep("x", 1 << 25) end,
      pool = { memory = "8M" } },
    { "does too much", "failed", "instruction_limit",
      function () while true do tostring {} end end,
      pool = { instructions = 100000 } },
    { "raises", "failed", "error", function () error "mine" end,
      message = "mine" },
    { "raises nil", "failed", "error", function () error() end,
      message = "nil" },
  } do
    it("has a callback that " .. row[1] .. ", and the process goes on",
       function ()
      local options <const> = { max = 1 }
      for k, v in pairs(row.pool or {}) do options[k] = v end
      local pool <close> = parallel.pool(options)
      local record = pool:collect({ row[4] }, loop, row.job)[1]
      assert.same({ row[2], row[3] }, { record.state, record.reason })
      if row.message then
        assert.is_truthy(tostring(record.error):find(row.message, 1, true))
      end
      -- Another loop in the same runspace, or in the one after it.
      record = pool:collect({ function () error "again" end }, loop)[1]
      assert.is_truthy(tostring(record.error):find("again", 1, true))
      assert.equal(0, pool:info().stuck)
    end)
  end

  --- Each row: where the loop runs.
  for _, row in ipairs {
    { "a loop", function (run) run() end },
    { "a loop in a coroutine", function (run) coroutine.wrap(run)() end },
  } do
    it("is stopped at once in a callback of " .. row[1], function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local pass <const>, call <const> = gate.pass, row[2]
      local job <const> = pool:spawn(function ()
        local uv <const> = require "luv"  -- its callbacks run in this one
        local timer <const> = uv.new_timer()
        timer:start(0, 1, function () pass() while true do tostring {} end end)
        call(uv.run)
      end)
      gate:await(1)
      gate:open()
      job:cancel { grace = 1000 }
      assert.equal("cancelled", job:wait())
      assert.equal(0, pool:info().stuck)
    end)
  end

  it("runs loops in coroutines, with arguments and results", function ()
    assert.same({ "done", false, n = 2 }, table.pack(parallel.run(function ()
      local uv <const> = require "luv"
      local got
      local more <const> = coroutine.wrap(function ()
        local timer <const> = uv.new_timer()
        timer:start(0, 0, function () got = "done" timer:close() end)
        return uv.run "default"
      end)()
      return got, more
    end)))
  end)

  it("raises what a callback of 'walk' has raised", function ()
    local ok, message = parallel.run(function ()
      local uv <const> = require "luv"
      local timer <const> = uv.new_timer()
      return pcall(uv.walk, function () error("seen " .. type(timer)) end)
    end)
    assert.is_false(ok)
    assert.matches("seen userdata", message)
  end)

  it("is the same when the initial state has it", function ()
    local pool <close> = parallel.pool { max = 1, modules = { "luv" } }
    local record <const> = pool:collect({ 1 }, function ()
      local uv <const> = require "luv"
      uv.new_timer():start(0, 0, function () error "mine" end)
      uv.run()
    end)[1]
    assert.equal("failed", record.state)
    assert.matches("mine", tostring(record.error))
  end)

  it("stops while no callback runs, by a timer of its own", function ()
    local pool <close> = parallel.pool { max = 1 }
    local record <const> = pool:collect({ 1 }, function ()
      local uv <const> = require "luv"
      local long <const>, look <const> = uv.new_timer(), uv.new_timer()
      long:start(1000000, 0, function () end)
      look:start(10, 10, function () end)
      look:unref()
      uv.run()
    end, { timeout = 0.05 })[1]
    assert.equal("timed_out", record.state)
    assert.equal(0, pool:info().stuck)
  end)

  it("does not wait for a timer that keeps no loop alive", function ()
    parallel.run(function ()
      local uv <const> = require "luv"
      local look <const> = uv.new_timer()
      look:start(10, 10, function () end)
      look:unref()
      uv.run()
    end)
  end)
end)

describe("LuaSocket in a job", function ()
  it("is stopped where it receives and accepts in steps", function ()
    local pool <close> = parallel.pool { max = 2 }
    local records <const> = pool:collect({ "receive", "accept" },
                                         function (what)
      local socket <const> = require "socket"
      local server <const> = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      if what == "accept" then
        server:settimeout(0.01)
        repeat local _, why = server:accept() until why ~= "timeout"
      else
        local client <const> = assert(socket.connect("127.0.0.1", port))
        client:settimeout(0.01)
        local line, why, part
        repeat
          line, why, part = client:receive("*l", part)
        until why ~= "timeout"
        return line
      end
    end, { timeout = 0.05, chunk = 1 })
    for i = 1, 2 do assert.equal("timed_out", records[i].state) end
    assert.equal(0, pool:info().stuck)
  end)

  it("keeps what has come in each step", function ()
    assert.equal("one two three", parallel.run(function ()
      local socket <const> = require "socket"
      local server <const> = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      local client <const> = assert(socket.connect("127.0.0.1", port))
      local peer <const> = assert(server:accept())
      client:settimeout(0.01)
      local line, why, part
      local words = { "one ", "two ", "three", "\n" }
      repeat
        local word <const> = table.remove(words, 1)
        if word then peer:send(word) end
        line, why, part = client:receive("*l", part)
      until why ~= "timeout"
      return line
    end))
  end)
end)
