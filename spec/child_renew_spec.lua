-- SPDX-License-Identifier: MIT
--- New runspaces of worker processes: a new state in the same process, or the
--- next process, which was started ahead.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

local function read (command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

local PID <const> = "io.open '/proc/self/stat':read 'n'"
local ME <const> = math.tointeger(io.open "/proc/self/stat":read "n")

--- Kill a process, and wait for its end.
local function kill (pid)
  os.execute(("kill -KILL %d"):format(pid))
  assert.is_true(gates.eventually(function ()
    local file <close> = io.open(("/proc/%d/status"):format(pid))
    local text <const> = file and file:read "a"
    return text == nil
        or (text:find "\nState:%s*Z" and text:find "\nThreads:%s*1\n") ~= nil
  end))
end

--- Numbers of the children of this process that are workers, but those of
--- other pools.
---@param others? table<integer, any>
---@return integer[]
local function workers (others)
  local found <const> = {}
  local list <const> = read(("cat /proc/%d/task/*/children 2>/dev/null")
                            :format(ME))
  for text in list:gmatch "%d+" do
    local pid <const> = math.tointeger(text)
    local file <close> = io.open(("/proc/%d/stat"):format(pid))
    local name <const> = file and file:read "a":match "%((.*)%) [^Z]" or ""
    if name == "runspace-worker" and not (others or {})[pid] then
      found[#found + 1] = pid
    end
  end
  return found
end

--- Options of a pool of one process.
local function process (more)
  local options <const> = { isolation = "process", max = 1 }
  for name, value in pairs(more) do options[name] = value end
  return options
end

for _, kind in ipairs { "process", "command" } do
  describe("reset = 'fresh' of a " .. kind, function ()
    local function on (more)
      return kind == "process" and process(more) or {
        max = 1, init = more.init, reset = "fresh", max_tasks = more.max_tasks,
        command = { "sh", "-c", "exec " .. tree.program() .. " --worker" } }
    end

    it("is a new state in the same process", function ()
      local pool <close> = parallel.pool(on { reset = "fresh",
                                              init = "string.n = 5" })
      local pids <const> = {}
      for i = 1, 5 do
        local n, x
        n, x, pids[i] = pool:run(("string.n = string.n + 1 x = (x or 0) + 1 "
                                  .. "return string.n, x, %s"):format(PID))
        assert.same({ 6, 1 }, { n, x })
        assert.equal(pids[1], pids[i])
      end
      assert.same({ n = 3, 6, 6, 6 }, pool:map({ 1, 2, 3 }, [[
        string.n = string.n + 1
        return string.n]]))
      assert.equal(pids[1], pool:run("return " .. PID))
    end)

    it("keeps functions that it has been sent", function ()
      local pool <close> = parallel.pool(on { reset = "fresh" })
      local t <const> = { 1, 2, 3 }
      local function sum (x) return #t + x end
      for _ = 1, 4 do
        assert.same({ n = 2, 4, 5 }, pool:map({ 1, 2 }, sum))
        assert.equal(13, pool:run(sum, 10))
      end
    end)

    it("goes on in another process when that has died", function ()
      local pool <close> = parallel.pool(on { reset = "fresh" })
      for _ = 1, 3 do
        assert.equal("lost", pool:spawn "os.exit(1)":wait())
        assert.equal(1, pool:run "x = (x or 0) + 1 return x")
        kill(pool:run("return " .. PID))
      end
      assert.equal(1, pool:run "x = (x or 0) + 1 return x")
    end)

    it("lets 'max_tasks' count the jobs of the process", function ()
      local pool <close> = parallel.pool(on { reset = "fresh",
                                              max_tasks = 2 })
      local pids <const> = {}
      for i = 1, 6 do pids[i] = pool:run("return " .. PID) end
      for i = 1, 6, 2 do
        assert.equal(pids[i], pids[i + 1])
        assert.not_equal(pids[i], pids[i + 2])
      end
    end)
  end)
end

describe("a state that cannot be opened again", function ()
  for _, kind in ipairs { "thread", "process" } do
    it("is told to the jobs of a " .. kind, function ()
      local path <const> = os.tmpname()
      local pool <close> = parallel.pool {
        isolation = kind, max = 1, reset = "fresh",
        init = ("assert(io.open %q, 'the file is gone')"):format(path) }
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job <const> = pool:spawn(function () pass() end)
      gate:await(1)
      os.remove(path)
      gate:open()
      assert.equal("completed", job:wait())
      local ok, why = pcall(pool.run, pool, "return 1")
      assert.is_false(ok)
      assert.matches("the file is gone", tostring(why))
    end)
  end
end)

describe("max_tasks = 1", function ()
  it("is a new process for each job, and each item", function ()
    local pool <close> = parallel.pool(process { max_tasks = 1 })
    local seen <const> = {}
    for _ = 1, 4 do
      local pid <const> = pool:run("return " .. PID)
      assert.is_nil(seen[pid])
      seen[pid] = true
    end
    for _, pid in ipairs(pool:map({ 1, 2, 3, 4 }, "return " .. PID)) do
      assert.is_nil(seen[pid])
      seen[pid] = true
    end
    assert.is_true(pool:info().renewed >= 7)
  end)

  it("starts the next process while the last job runs", function ()
    local pool <close> = parallel.pool(process { max_tasks = 1 })
    local last
    for _ = 1, 3 do
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job <const> = pool:spawn(function ()
        parallel.task.emit("pid", io.open "/proc/self/stat":read "n")
        pass()
      end)
      local pid
      local handler <const> = parallel.on("pid", function (event)
        pid = math.tointeger(event.data)
      end)
      while pid == nil do parallel.poll(1) end
      parallel.off("pid", handler)
      gate:await(1)
      assert.is_true(last == nil or last == pid)
      local ahead
      assert.is_truthy(gates.eventually(function ()
        ahead = workers { [pid] = true }
        return #ahead == 1
      end))
      last = ahead[1]
      gate:open()
      assert.equal("completed", job:wait())
    end
    assert.equal(last, math.tointeger(pool:run("return " .. PID)))
  end)

  it("starts another one where that has died", function ()
    local pool <close> = parallel.pool(process { max_tasks = 1 })
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job <const> = pool:spawn(function ()
      pass()
      return io.open "/proc/self/stat":read "n"
    end)
    gate:await(1)
    assert.is_truthy(gates.eventually(function () return #workers() == 2 end))
    local both <const> = workers()
    gate:open()
    local first <const> = math.tointeger(job:get())
    for _, pid in ipairs(both) do
      if pid ~= first then kill(pid) end
    end
    assert.equal("well", pool:run "return 'well'")
  end)

  it("hands an initial state over that is large", function ()
    local pool <close> = parallel.pool(process {
      max_tasks = 1, variables = { text = ("x"):rep(3000000) },
      init = "n = #text" })
    for _ = 1, 3 do assert.equal(3000000, pool:run "return n") end
  end)

  it("goes with a job that is lost, and one that is cancelled", function ()
    local pool <close> = parallel.pool(process { max_tasks = 1 })
    for _ = 1, 3 do
      assert.equal("lost", pool:spawn "os.exit(1)":wait())
      local job <const> = pool:spawn "parallel.task.sleep(10000)"
      job:cancel()
      job:wait()
      assert.equal("cancelled", job.state)
      assert.equal("well", pool:run "return 'well'")
    end
  end)

  it("prints what 'init' prints once for each process", function ()
    local output <const> = run [[
      local parallel = require "parallel"
      local p <close> = parallel.pool { isolation = "process", max = 1,
        max_tasks = 1, init = "print 'begin'" }
      p:run "print 'one'"
      p:run "print 'two'"
    ]]
    local begun <const>, rest <const> = output:gsub("begin\n", "")
    assert.equal("one\ntwo\n", begun)
    assert.is_true(rest >= 2 and rest <= 3)  -- the last one may be unused
    assert.matches("^begin\none\nbegin\ntwo\n", output)
  end)

  it("leaves no process and no descriptor behind", function ()
    local output <const> = run [[
      local parallel = require "parallel"
      local me = math.tointeger(io.open "/proc/self/stat":read "n")
      local function count (command)
        local pipe = io.popen(command)
        local n = 0
        for _ in pipe:read "a":gmatch "%S+" do n = n + 1 end
        pipe:close()
        return n
      end
      local function round ()
        local p <close> = parallel.pool { isolation = "process", max = 2,
                                          max_tasks = 1 }
        p:map(parallel.range(1, 6), "return ...")
        local job = p:spawn "parallel.task.sleep(10000)"
        p:run "return 1"
        p:close(0)
      end
      round()
      local fds = "ls /proc/" .. me .. "/fd"
      local before = count(fds)
      for _ = 1, 3 do round() end
      local late = parallel.now() + 30
      local function good ()
        return count(fds) <= before
               and count("cat /proc/" .. me .. "/task/*/children") <= 2
      end
      local well
      repeat well = good() until well or parallel.now() > late
      print(well)
    ]]
    assert.equal("true\n", output)
  end)
end)
