-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local lfs <const> = require "lfs"
local tree <const> = require "support.tree"

local sanitized <const> = tree.sanitizers ~= ""

--- Entries of a directory of this process.
local function count (path)
  local n = 0
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then n = n + 1 end
  end
  return n
end

local function threads () return count "/proc/self/task" end
local function descriptors () return count "/proc/self/fd" end

--- Resident memory of this process, in KiB.
local function memory ()
  for line in io.lines "/proc/self/status" do
    local size = line:match "^VmRSS:%s*(%d+)"
    if size ~= nil then return math.tointeger(size) end
  end
end

--- Run a script in a process of its own.
---@return string output
---@return integer|string status
local function child (script)
  local path <const> = os.tmpname()
  do
    local file <close> = assert(io.open(path, "w"))
    assert(file:write(script))
  end
  local pipe = assert(io.popen(tree.runspace .. " " .. path .. " 2>&1"))
  local text = pipe:read("a")
  local _, how, status = pipe:close()
  os.remove(path)
  return text, how == "exit" and status or how
end

describe("pools", function ()
  it("leave no thread, descriptor or memory behind, a thousand times",
     function ()
    local function round (n)
      for i = 1, n do
        local pool = parallel.pool { max = 2 }
        assert.equal(i, pool:run("return ...", i))
        assert.is_true(pool:close())
      end
      collectgarbage()
    end
    round(100)
    local had_threads, had_descriptors, had = threads(), descriptors(),
                                              memory()
    round(sanitized and 50 or 1000)
    assert.equal(had_threads, threads())
    assert.equal(had_descriptors, descriptors())
    if not sanitized then assert.is_true(memory() - had < 4096) end
  end)

  -- ThreadSanitizer has a thread of its own, which never rests.
  local unless_watched <const> = tree.sanitizers == "thread" and pending or it
  unless_watched("have threads that all sleep on, at rest", function ()
    local pool <close> = parallel.pool { min = 4, max = 4 }
    local stat <close> = assert(io.open "/proc/self/stat")
    local own <const> = stat:read "a":match "^%d+"
    -- How often the threads but this one were given a CPU.
    local function turns ()
      local sum = 0
      for task in lfs.dir "/proc/self/task" do
        if task:match "%d" and task ~= own then
          local file <close> = assert(io.open("/proc/self/task/" .. task
                                              .. "/status"))
          for n in file:read "a":gmatch "_ctxt_switches:%s*(%d+)" do
            sum = sum + n
          end
        end
      end
      return sum
    end
    pool:map(parallel.range(1, 10000), function (x) return x end)
    for i = 1, 1000 do assert.equal(i, pool:run("return ...", i)) end
    -- Those that look a little before they sleep may still do so.
    assert.is_true(gates.eventually(function ()
      local before <const> = turns()
      parallel.task.sleep(0.2)
      return turns() == before
    end))
  end)

  it("keep nothing of a hundred thousand jobs", function ()
    local pool <close> = parallel.pool { max = 2 }
    local function round (n)
      local jobs = {}
      for i = 1, n do
        jobs[#jobs + 1] = pool:spawn("return ...", i)
        if #jobs == 100 then
          for k, job in ipairs(jobs) do
            assert(job:get() == i - 100 + k)
          end
          jobs = {}
        end
      end
      collectgarbage()
    end
    round(2000)
    local had_descriptors, had = descriptors(), memory()
    round(sanitized and 2000 or 100000)
    assert.equal(had_descriptors, descriptors())
    if not sanitized then assert.is_true(memory() - had < 4096) end
    assert.is_true(pool:info().workers <= 2)
  end)

  it("collect what their jobs leave, whatever these are sent", function ()
    local pool <close> = parallel.pool { max = 1 }
    local had
    for i = 1, sanitized and 3000 or 60000 do
      pool:run(string.len, "x")  -- the host allocates nothing but handles
      pool:run(function () end)  -- the runspace nothing but functions
      if i == 2000 then had = memory() end
    end
    assert.is_true(pool:info().bytes < 1 << 20)
    if not sanitized then assert.is_true(memory() - had < 4096) end
  end)

  it("run jobs whose handles were dropped, and free their results",
     function ()
    local pool <close> = parallel.pool { max = 1 }
    for i = 1, 100 do pool:spawn("return ...", i) end
    collectgarbage()
    assert.equal(1, pool:run("return 1"))
    assert.equal(101, pool:info().finished)
  end)

  it("are several, and know nothing of each other", function ()
    local one <close> = parallel.pool { max = 1, variables = { name = 1 } }
    local two <close> = parallel.pool { max = 1, variables = { name = 2 } }
    assert.equal(1, one:run("return name"))
    assert.equal(2, two:run("return name"))
    one:close()
    assert.equal(2, two:run("return name"))
  end)

  it("may be collected while their jobs run", function ()
    local before <const> = threads()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job
    do
      local pool = parallel.pool { max = 1 }
      job = pool:spawn(function () pass() return 1 end)
      pool:spawn("return 2")
      gate:await(1)
    end
    collectgarbage()
    collectgarbage()
    gate:open()
    assert.equal("completed", job:wait())
    assert.is_true(gates.eventually(function ()
      parallel.pool { max = 1 }:close()  -- pools without jobs go now, too
      return threads() == before
    end))
  end)
end)

describe("a host state that is closed", function ()
  it("waits for the jobs of all pools, and for those that they start",
     function ()
    local text, status = child [[
      parallel.on("finished", function (event)
        if event.job_name == "first" then parallel.spawn "print 'third'" end
      end)
      parallel.submit { function ()
        parallel.run "print 'first'"
      end, name = "first" }
      do
        local pool = parallel.pool { max = 1 }
        pool:spawn "print 'second'"
      end
      collectgarbage()
      print "end"
    ]]
    for _, word in ipairs { "first", "second", "third", "end" } do
      assert.matches(word .. "\n", text, 1, true)
    end
    assert.equal(0, status)
  end)

  it("has the exit status 1 for a failure that nobody looked at", function ()
    local text, status = child "parallel.spawn 'error \"lost\"'"
    assert.matches("^parallel: nobody looked at the failure of 'job%-1'", text)
    assert.equal(1, status)
    text, status = child "print(parallel.spawn('error \"seen\"'):join())"
    assert.matches("^false\t", text)
    assert.equal(0, status)
    text, status = child [[
      parallel.on("unseen_failure", function () print "handled" end)
      parallel.spawn "error 'told'"
    ]]
    assert.equal("handled\n", text)
    assert.equal(0, status)
  end)

  it("does not wait behind an error, and says what it ends", function ()
    local text, status = child [[
      local pool = parallel.pool { max = 1 }
      local job = pool:spawn("while true do tostring {} end")
      while job.state ~= "running" do end
      for _ = 1, 3 do pool:spawn "print 'never'" end
      error "end"
    ]]
    assert.matches("end\nstack traceback:.*\nparallel: the script ended "
                   .. "early: 1 job stopped, 3 jobs not run\n$", text)
    assert.equal(1, status)
  end)

  it("ends what was queued, and says so", function ()
    local text, status = child [[
      local busy = parallel.pool { max = 1 }
      busy:spawn "while true do tostring {} end"
      for i = 1, 1000 do parallel.spawn("return ...", i) end
      local t = {}
      for i = 1, 1000 do t[i] = i end
      for record in parallel.each(t, "return ...") do
        if record.index > 10 then os.exit(3, true) end
      end
    ]]
    assert.matches("^parallel: the script ended early: [^\n]*\n$", text)
    assert.equal(3, status)
  end)

  --- Where 'os.exit' is called, as 'leave', beside a job that runs for ever
  --- and others that are queued.
  for place, call in pairs {
    ["the script"] = "leave()",
    ["a coroutine"] = "coroutine.wrap(leave)()",
    ["a handler of an event"] = "parallel.on('go', leave) parallel.run("
      .. "\"parallel.task.emit 'go' while true do tostring {} end\")",
    ["a handler of a job"] = "local job = parallel.spawn 'return 1' "
      .. "job:on('finished', leave) job:get()",
    ["a handler of a stream"] = "parallel.run(function () "
      .. "parallel.task.output(1) while true do tostring {} end end)",
    ["a loop over records"] = "for _ in pool:each({1, 2}, tostring) do "
      .. "leave() end",
    ["an iterator of a map"] = "pool:map(leave, tostring)",
    ["'__index' of items"] = "pool:map(setmetatable({}, { __len = function () "
      .. "return 9 end, __index = leave }), tostring)",
    ["a '__transfer'"] = "pool:run(tostring, setmetatable({}, "
      .. "{ __transfer = leave }))",
    ["a function that shows progress"] = "pool:map({1, 2}, tostring, "
      .. "{ progress = leave })",
    ["a '__close'"] = "do local _ <close> = setmetatable({}, "
      .. "{ __close = leave }) end",
    ["a '__gc'"] = "setmetatable({}, { __gc = leave }) collectgarbage()",
    ["behind an error that was caught"] = "pcall(pool.run, pool, error) "
      .. "leave()",
  } do
    for _, close in ipairs { false, true } do
      it("by os.exit(7, " .. tostring(close) .. ") ends with 7 from " .. place,
         function ()
        local text <const>, status <const> = child(([[
          local function leave () os.exit(7, %s) end
          local pool = parallel.pool { max = 2 }
          local job = pool:spawn "while true do tostring {} end"
          while job.state ~= "running" do end
          for _ = 1, 100 do parallel.spawn "local x = {} return x" end
          parallel.on("output", leave)
          %s
        ]]):format(close, call))
        assert.matches("^parallel: the script ended early: [^\n]*\n$", text)
        assert.equal(7, status)
      end)
    end
  end

  it("is no job's affair: there, os.exit raises", function ()
    local text <const>, status <const> = child [[
      print(pcall(parallel.run, "os.exit(3)"))
      print(parallel.collect({1}, "os.exit(3)")[1].state)
      local job = parallel.spawn "pcall(os.exit, 3) return 'well'"
      print(job:get())
      parallel.run "os.exit(3)"
    ]]
    assert.matches("^false\t.*os%.exit.*\nfailed\nwell\n.*os%.exit", text)
    assert.equal(1, status)
  end)

  it("may be one of several in a process", function ()
    -- A runspace is a host, too: of the pools that it opens itself.
    local pool <close> = parallel.pool { max = 2 }
    local results <const> = pool:map({ 1, 2, 3 }, function (x)
      local inner <close> = require("parallel").pool { max = 2 }
      return inner:run("return 10 * ...", x)
    end)
    assert.same({ 10, 20, 30, n = 3 }, results)
  end)
end)

describe("nested parallelism", function ()
  for _, max in ipairs { 1, 2, 3 } do
    it("does not deadlock with " .. max .. " workers", function ()
      local pool <close> = parallel.pool { max = max }
      local results <const> = pool:map(parallel.range(1, 4), function (x)
        local inner <const> = parallel.map(parallel.range(1, 5), function (y)
          return parallel.run("return ...", y) + x
        end)
        local sum = 0
        for i = 1, inner.n do sum = sum + inner[i] end
        return sum
      end)
      assert.same({ 20, 25, 30, 35, n = 4 }, results)
    end)
  end

  it("goes some levels deep on one worker", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function depth (n)
      if n == 0 then return 0 end
      return 1 + parallel.run(depth, n - 1)
    end
    assert.equal(20, pool:run(depth, 20))
  end)

  it("keeps the globals of the outer job from the inner one", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.same({ nil, 1, n = 2 }, table.pack(pool:run([[
      x = 1
      local inner = parallel.run("local had = x; x = 2; return had")
      return inner, x
    ]])))
  end)
end)
