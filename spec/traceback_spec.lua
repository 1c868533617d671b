-- SPDX-License-Identifier: MIT
-- Where jobs are: 'job:traceback' of what runs, waits, is in C, is elsewhere.
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

--- ThreadSanitizer holds back signals from code that calls nothing which it
--- knows, such as an allocation.
local HELD_BACK <const> = tree.sanitizers == "thread"
local it_in_c <const> = HELD_BACK and pending or it

-- Long in C, in one call: the time of 'find' doubles with each letter.
local function find_long ()
  return (("a"):rep(40) .. "b"):find(("a*"):rep(40) .. "c")
end

local FIND_LINE <const> = debug.getinfo(find_long, "S").linedefined + 1

--- A file that is there until the flag is opened: jobs look for it.
local flag = {}
flag.__index = flag

function flag.new ()
  return setmetatable({ path = os.tmpname() }, flag)
end

function flag:open () os.remove(self.path) end
flag.__close = flag.open

--- Wait until the job runs.
local function await_start (job)
  while job.state == "queued" do parallel.poll(0.001) end
  return job
end

--- Ask until the traceback has 'text': the job is about to get there.
local function ask_until (job, text)
  local told
  repeat told = assert(job:traceback()) until told:find(text, 1, true)
  return told
end

--- The lines of a traceback.
local function lines_of (text)
  local lines <const> = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

describe("job", function ()
  describe("traceback", function ()
    it("tells where a loop is, and lets it run on", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = flag.new()
      local function inner (path)
        local n = 0
        while true do
          n = n + 1
          if n % 1000 == 0 then
            local file <const> = io.open(path)
            if file == nil then return n end
            file:close()
          end
        end
      end
      local job <const> = await_start(pool:spawn(inner, gate.path))
      for _ = 1, 20 do
        local lines <const> = lines_of(ask_until(job, "spec.lua"))
        assert.equal("stack traceback:", lines[1])
        assert.matches("traceback_spec%.lua:%d+: in ", lines[#lines])
      end
      assert.equal("running", job.state)
      gate:open()
      assert.is_true(job:get() > 0)
    end)

    it_in_c("tells the function in C, and where it was called", function ()
      local pool <close> = parallel.pool { max = 1 }
      local job <const> = await_start(pool:spawn(find_long))
      local lines <const> = lines_of(ask_until(job, "'find'"))
      assert.equal("\t[C]: in function 'find'", lines[2])
      assert.matches("traceback_spec%.lua:" .. FIND_LINE .. ": in ",
                     lines[3])
      assert.is_nil(lines[4])
      assert.equal("running", job.state)
      job:cancel { grace = 0 }
      assert.equal("lost", job:wait())
      assert.matches("'find'", tostring(job.error))
    end)

    it_in_c("does not break a read off", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = flag.new()
      local job <const> = await_start(pool:spawn(function (path)
        local pipe <close> = io.popen("while [ -e '" .. path
                                      .. "' ]; do sleep 0.01; done; echo here")
        return pipe:read "l"
      end, gate.path))
      for _ = 1, 20 do ask_until(job, "'read'") end
      gate:open()
      assert.equal("here", job:get())
    end)

    it("does not wake a sleep, nor a wait for another job", function ()
      local pool <close> = parallel.pool { max = 1 }
      local job <const> = await_start(pool:spawn(function ()
        local began <const> = os.time()
        parallel.task.sleep(1.5)
        return os.time() - began
      end))
      for _ = 1, 20 do ask_until(job, "'sleep'") end
      assert.is_true(job:get() >= 1)
    end)

    it("tells of the coroutine, and of what has resumed it", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = flag.new()
      local job <const> = await_start(pool:spawn(function (path)
        local step <const> = coroutine.wrap(function ()
          local file = io.open(path)
          while file ~= nil do
            file:close()
            file = io.open(path)
          end
          return "done"
        end)
        return step()
      end, gate.path))
      local told <const> = ask_until(job, "resumed by")
      assert.matches("traceback_spec%.lua:%d+: in function .*resumed by.*"
                     .. "traceback_spec%.lua:%d+: in function", told)
      gate:open()
      assert.equal("done", job:get())
    end)

    it("tells of a job that waits, and of the one it runs meanwhile",
       function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = flag.new()
      local outer <const> = await_start(pool:spawn(function (path)
        local function inside ()
          local file = io.open(path)
          while file ~= nil do
            file:close()
            file = io.open(path)
          end
          return 7
        end
        return (parallel.task.pool or parallel).run(inside)
      end, gate.path))
      local told <const> = ask_until(outer, "'run'")
      assert.not_matches("inside", told)
      assert.matches("%[C%]: in function 'run'\n\t[^\n]*_spec%.lua:", told)
      gate:open()
      assert.equal(7, outer:get())
    end)

    it("leaves the hooks and limits of a job alone", function ()
      local pool <close> = parallel.pool { max = 1,
                                           instructions = 2000000000 }
      local gate <close> = flag.new()
      local job <const> = await_start(pool:spawn(function (path)
        local count = 0
        local file = io.open(path)
        while file ~= nil do
          file:close()
          file = io.open(path)
          count = count + 1
        end
        return count
      end, gate.path))
      for _ = 1, 10 do assert(job:traceback()) end
      gate:open()
      assert.is_true(job:get() >= 0)
      local other <const> = parallel.pool { max = 1 }
      local again <close> = flag.new()
      local hooked <const> = await_start(other:spawn(function (path)
        local hits = 0
        debug.sethook(function () hits = hits + 1 end, "", 100)
        local file = io.open(path)
        while file ~= nil do
          file:close()
          file = io.open(path)
        end
        local before <const> = hits
        local n = 0
        for i = 1, 10000 do n = n + i end
        return n > 0 and hits > before and debug.gethook() ~= nil
      end, again.path))
      for _ = 1, 10 do assert(hooked:traceback()) end
      again:open()
      assert.is_true(hooked:get())
      other:close()
    end)

    it("says nothing of a job that is queued or has ended", function ()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = flag.new()
      local first <const> = await_start(pool:spawn(function (path)
        local file = io.open(path)
        while file ~= nil do
          file:close()
          file = io.open(path)
        end
      end, gate.path))
      local second <const> = pool:spawn(function () end)
      assert.same({ nil, "the job is queued", n = 2 },
                  table.pack(second:traceback()))
      gate:open()
      first:get()
      second:get()
      assert.same({ nil, "the job has ended (completed)", n = 2 },
                  table.pack(second:traceback()))
    end)

    it("says that a pool without a signal cannot ask", function ()
      local pool <close> = parallel.pool { max = 1, signal = "none" }
      local job <const> = await_start(pool:spawn(function ()
        while true do parallel.task.sleep(0.01) end
      end))
      local told, why = job:traceback()
      assert.is_nil(told)
      assert.matches("no signal", why)
      job:cancel()
      job:wait()
    end)

    it("cuts the middle of a deep stack out", function ()
      local pool <close> = parallel.pool { max = 1 }
      local job <const> = await_start(pool:spawn(function ()
        local function deep (n)
          while n == 0 do tostring {} end
          return (deep(n - 1))
        end
        return deep(10000)
      end))
      local told <const> = ask_until(job, "skipping")
      assert.is_true(#lines_of(told) <= 24)
      job:cancel()
      assert.equal("cancelled", job:wait())
    end)

    it("does not disturb jobs that end while they are asked", function ()
      local pool <close> = parallel.pool { max = 4 }
      for round = 1, 200 do
        local jobs <const> = {}
        for i = 1, 4 do
          jobs[i] = pool:spawn(function (n)
            local sum = 0
            for k = 1, 2000 * (n % 7) do sum = sum + k % 3 end
            local step <const> = coroutine.wrap(function () return n end)
            return step(), sum >= 0
          end, round + i)
        end
        for i = 1, 4 do
          local told, why = jobs[i]:traceback()
          assert.is_true(told ~= nil or why ~= nil)
        end
        for i = 1, 4 do
          assert.same({ round + i, true }, { jobs[i]:get() })
        end
      end
    end)

    it("can be followed by a stop, at once", function ()
      local pool <close> = parallel.pool { max = 2 }
      for _ = 1, 20 do
        local job <const> = await_start(pool:spawn(function ()
          while true do pcall(string.rep, "x", 10) end
        end))
        job:traceback()
        job:cancel()
        job:traceback()
        assert.equal("cancelled", job:wait())
      end
    end)

    it("asks a process", function ()
      local pool <close> = parallel.pool { max = 1, isolation = "process" }
      local gate <close> = flag.new()
      local job <const> = await_start(pool:spawn(function (path)
        local file = io.open(path)
        while file ~= nil do
          file:close()
          file = io.open(path)
        end
        return "over"
      end, gate.path))
      for _ = 1, 10 do ask_until(job, "traceback_spec.lua") end
      gate:open()
      assert.equal("over", job:get())
      for i = 1, 50 do  -- answers that come too late
        local quick <const> = pool:spawn(function (n) return n end, i)
        quick:traceback()
        assert.equal(i, quick:get())
      end
    end)

    it_in_c("asks a process that is in C", function ()
      local pool <close> = parallel.pool { max = 1, isolation = "process" }
      local long <const> = await_start(pool:spawn(find_long))
      assert.matches("%[C%]: in function 'find'\n\t.*_spec%.lua:"
                     .. FIND_LINE .. ":", ask_until(long, "'find'"))
      long:cancel { grace = 0 }
      assert.equal("lost", long:wait())
    end)
  end)
end)
