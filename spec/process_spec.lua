-- SPDX-License-Identifier: MIT
--- Runspaces in threads, on the thread of the host, in child processes, behind
--- a command, behind ssh, and behind srun: the same verbs, the same answers.
--- What only processes do, and what they cannot do, comes after that.

local gates <const> = require "support.gate"
local leaks <const> = require "support.leaks"
local parallel <const> = require "parallel"
local rabbitmq <const> = require "support.rabbitmq"
local run <const> = require "support.script"
local serve <const> = require "support.serve"
local slurm <const> = require "support.slurm"
local sshd <const> = require "support.sshd"
local tree <const> = require "support.tree"

--- The kinds of runners.  What differs between them by nature:
--
-- - 'os.exit' ends a process, and raises in a thread.
-- - What comes out of a process is data.
-- - A crash ends a job of a process, and the whole program with a thread.
-- - A pool of a broker is open when the broker is reached: what opens no
--   runspace fails its jobs.  The connection has the heartbeat.
-- - A job on the thread of the host runs while that waits, and not beside it.
local KINDS <const> = { "thread", "serial", "process", "command" }

--- Options of pools of each kind.
local WHERE <const> = {
  thread = { isolation = "thread" },
  serial = { isolation = "serial" },
  process = { isolation = "process" },
  command = { command = { "sh", "-c", "exec " .. tree.program()
                                      .. " --worker" } },
}

-- What is instrumented takes long, and is the same behind 'command'.
local server, without = nil, "the thread sanitizer looks"
if tree.sanitizers ~= "thread" then server, without = sshd.start() end
if server ~= nil then
  KINDS[#KINDS + 1] = "ssh"
  WHERE.ssh = { hosts = { "web1" }, ssh = server.ssh,
                runspace = tree.program() }
  teardown(function () server:close() end)
else
  print("left out, since " .. without .. ": workers behind ssh")
end

local cluster, why = nil, "sanitizers look"
if tree.sanitizers == "" then cluster, why = slurm.start() end
if cluster ~= nil then
  KINDS[#KINDS + 1] = "srun"
  WHERE.srun = { command = cluster:worker(tree.program()) }
  teardown(function () cluster:close() end)
else
  print("left out, since " .. why .. ": workers behind srun")
end

local absent <const> = serve.missing()
if not absent then
  local broker <const> = assert(rabbitmq.shared())
  KINDS[#KINDS + 1] = "broker"
  WHERE.broker = { broker = broker.url, queue = "process_spec" }
  local worker <const> = serve.start(broker.url, "process_spec", "-j 1")
  teardown(function ()
    worker:close()
    broker:close()
  end)
else
  print("left out, since " .. absent .. ": workers of a broker")
end

--- Options of a pool of this kind, and others.
---@param kind string
---@param more? table
---@return table
local function on (kind, more)
  local options <const> = {}
  for _, set in ipairs { WHERE[kind], more } do
    for name, value in pairs(set) do options[name] = value end
  end
  return options
end

--- Code that tells that it has begun, and code of its process.
local BEGIN <const> = "parallel.task.emit 'begun' "
local PID <const> = "io.open '/proc/self/stat':read 'n'"

--- ThreadSanitizer holds back signals from loops that call nothing which it
--- knows, such as an allocation.
local SPIN <const> = tree.sanitizers == "thread"
  and "while true do tostring {} end" or "while true do end"

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

--- Start a job of 'code' that has begun when this returns: it is where the
--- code says BEGUN, or at its first statement.
---@param pool parallel.Pool
---@param code string
---@return parallel.Job
local function begin (pool, code)
  local begun = false
  local handler <const> = parallel.on("begun", function () begun = true end)
  local text <const>, n <const> = code:gsub("BEGUN", BEGIN)
  local job <const> = pool:spawn(n > 0 and text or BEGIN .. code)
  while not begun do parallel.poll(1) end
  parallel.off("begun", handler)
  return job
end

--- Code that arrives at a gate, and waits there where no signal reaches it.
---@param gate table
---@return string
local function deaf (gate)
  return ("os.execute 'printf x > %s; : < %s'"):format(gate.bell, gate.path)
end

--- Fields of the records of 'collect', in one line each.
local function tell (records)
  local lines = {}
  for i, record in ipairs(records) do
    lines[i] = ("%d %s %s %s"):format(record.index, record.state,
                                      tostring(record.reason),
                                      tostring(record.result))
  end
  return lines
end

--- Wait until the process has ended, with all of its threads.
local function await_death (pid)
  assert.is_true(gates.eventually(function ()
    local file <close> = io.open("/proc/" .. pid .. "/status")
    local text <const> = file and file:read "a"
    return text == nil
        or (text:find "\nState:%s*Z" and text:find "\nThreads:%s*1\n") ~= nil
  end))
end

--- What it does, a function of a pool that returns what is told, and that;
--- true, if the job has to run beside the host.
local ROWS <const> = {
  { "runs a function with its arguments", function (pool)
      return { pool:run(function (a, b) return a + b, a .. b end, 3, 4) }
    end, { 7, "34" } },
  { "runs source", function (pool) return pool:run "return 1 + 1" end, 2 },
  { "copies upvalues", function (pool)
      local t <const> = { x = { 5 } }
      t.self = t
      return pool:run(function () return t.x[1], t.self == t end)
    end, 5 },
  { "carries tables, metatables by name, and nan", function (pool)
      local back <const> = pool:run(function (t)
        t.b.x = t.a.x + 1
        return t
      end, { a = { x = 1 }, b = { x = 0 }, n = 0 / 0, [2.5] = "\0\255" })
      return { back.b.x, back.n ~= back.n, back[2.5] }
    end, { 2, true, "\0\255" } },
  { "carries long strings", function (pool)
      local text <const> = ("0123456789abcdef"):rep(1 << 17)
      return pool:run(function (s) return s end, text) == text
    end, true },
  { "maps in order", function (pool)
      return pool:map({ 1, 2, 3, 4, 5 }, function (x) return x * x end)
    end, { n = 5, 1, 4, 9, 16, 25 } },
  { "maps a range in chunks", function (pool)
      local sum = 0
      for _, x in ipairs(pool:map(parallel.range(1, 20000),
                                  function (x) return 2 * x end)) do
        sum = sum + x
      end
      return sum
    end, 20000 * 20001 },
  { "hands extra arguments to a map", function (pool)
      return pool:map({ 1, 2 }, function (x, y, z) return x + y + z end,
                      { arguments = { 10, 100 } })
    end, { n = 2, 111, 112 } },
  { "stops a map at the first failure", function (pool)
      return tostring(raised(pool.map, pool, parallel.range(1, 40),
                             function (x)
                               if x == 17 then error("no 17", 0) end
                               return x
                             end, { chunk = 10 })):match "^[^\n]*"
    end, "item 17 (17): no 17" },
  { "collects what became of each item", function (pool)
      return tell(pool:collect({ 1, 2, 3, 4 }, function (x)
        if x % 2 == 0 then error({ code = x }) end
        return x
      end, { on_error = "continue", chunk = 4 }))
    end, { "1 completed nil 1", "2 failed error nil", "3 completed nil 3",
           "4 failed error nil" } },
  { "brings error values back", function (pool)
      return pool:collect({ 1 }, function () error({ code = 42 }) end,
                          { on_error = "continue" })[1].error.code
    end, 42 },
  { "counts failures against max_failures", function (pool)
      local records <const> = pool:collect(parallel.range(1, 30), function (x)
        error("no " .. x)
      end, { on_error = "continue", max_failures = 3, chunk = 30 })
      local failed = 0
      for _, record in ipairs(records) do
        if record.state == "failed" then failed = failed + 1 end
      end
      return failed
    end, 3 },
  { "streams each", function (pool)
      local got, next_item = {}, 0
      for record in pool:each(function ()
        next_item = next_item + 1
        return next_item <= 10 and next_item or nil
      end, function (x) return x * 3 end) do
        got[#got + 1] = record.result
      end
      table.sort(got)
      return got
    end, { 3, 6, 9, 12, 15, 18, 21, 24, 27, 30 } },
  { "leaves an each in its middle", function (pool)
      for record in pool:each(parallel.range(1, 1000), "return ...") do
        if record.index == 5 then break end
      end
      return pool:run "return 'well'"
    end, "well" },
  { "invokes by name", function (pool)
      local results <const>, errors <const> = pool:invoke(function (x)
        return x > 1 and error "too much" or x
      end, { one = { x = 1 }, two = { x = 2 } })
      return { results.one, errors.two ~= nil }
    end, { 1, true } },
  { "reduces", function (pool)
      return pool:reduce({ 1, 2, 3, 4, 5 }, function (a, b) return a + b end)
    end, 15 },
  { "tells a job of itself", function (pool)
      local job <const> = pool:submit { function ()
        return parallel.task.name, parallel.task.attempt
      end, name = "a name" }
      return { job:get() }
    end, { "a name", 1 } },
  { "keeps records in their order, with times", function (pool)
      local job <const> = pool:submit { function ()
        parallel.task.verbose "one"
        parallel.task.debug { "two" }
        parallel.task.verbose "three"
      end, streams = { verbose = false, debug = false } }
      job:wait()
      local told, last = {}, job.started
      for record in job:records() do
        local value <const> = record.value
        told[#told + 1] = type(value) == "table" and value[1] or value
        assert.is_true(record.time >= last)
        assert.is_true(record.time <= parallel.now())
        last = record.time
      end
      return told
    end, { "one", "two", "three" } },
  { "raises events while a job runs", function (pool)
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local seen = {}
      local handler <const> = parallel.on("step", function (event)
        seen[#seen + 1] = event.data
      end)
      local job <const> = pool:spawn(function ()
        for i = 1, 3 do parallel.task.emit("step", i) end
        pass()
      end)
      while #seen < 3 do parallel.poll(1) end
      local state <const> = job.state
      gate:open()
      job:wait()
      parallel.off("step", handler)
      return { state, table.concat(seen) }
    end, { "running", "123" }, true },
  { "waits where events flood", function (pool)
      local n = 0
      local handler <const> = parallel.on("flood", function (event)
        n = n + 1
        assert.equal(n, event.data)
      end)
      local job <const> = pool:spawn(function ()
        for i = 1, 3000 do parallel.task.emit("flood", i) end
      end)
      while not job:wait(0) do parallel.poll(1) end
      parallel.poll(0)
      parallel.off("flood", handler)
      return n
    end, 3000 },
  { "tries again what fails", function (pool)
      local job <const> = pool:submit { function ()
        return parallel.task.attempt == 3 and 3 or error "again"
      end, retries = 4 }
      return { job:get(), job.attempts }
    end, { 3, 3 } },
  { "tries items again", function (pool)
      local records <const> = pool:collect({ 1, 2, 3 }, function (x)
        return parallel.task.attempt == x and x or error "again"
      end, { retries = 4, chunk = 3 })
      local told = {}
      for i, record in ipairs(records) do
        told[i] = record.state .. record.attempts
      end
      return told
    end, { "completed1", "completed2", "completed3" } },
  { "ends what runs out of time", function (pool)
      return tell(pool:collect({ 1, 2, 3 }, function (x)
        if x == 2 then parallel.task.sleep(10000) end
        return x
      end, { timeout = 0.2, on_error = "continue", chunk = 3 }))
    end, { "1 completed nil 1", "2 timed_out timeout nil",
           "3 completed nil 3" } },
  { "ends a call at its deadline", function (pool)
      local job <const> = pool:submit { SPIN, deadline = 0.1 }
      return { (job:wait()), job.reason }
    end, { "timed_out", "deadline" } },
  { "goes on behind an item that is lost", function (pool)
      local gate <close> = gates.new()
      local code <const> = deaf(gate)
      return tell(pool:collect({ 1, 2, 3 }, function (x)
        if x == 1 then load(code)() end
        return x
      end, { timeout = 0.1, on_error = "continue", chunk = 3 }))
    end, { "1 lost lost nil", "2 completed nil 2", "3 completed nil 3" },
    true },
  { "stops a busy loop", function (pool)
      local job <const> = begin(pool, SPIN)
      job:cancel { grace = 10000 }
      return { (job:wait()), job.reason }
    end, { "cancelled", "cancelled" }, true },
  { "stops a loop that swallows errors", function (pool)
      local job <const> = begin(pool, "while true do pcall(function () "
                                      .. SPIN .. " end) end")
      job:cancel()
      return (job:wait())
    end, "cancelled", true },
  { "stops one that sleeps in C", function (pool)
      local job <const> = begin(pool, "parallel.task.sleep(10000)")
      job:cancel { grace = 10000 }
      return (job:wait())
    end, "cancelled", true },
  { "closes variables of what it stops", function (pool)
      local job <const> = begin(pool, "local x <close> = setmetatable({}, "
        .. "{ __close = function () parallel.task.verbose 'closed' end }) "
        .. "BEGUN parallel.task.sleep(10000)")
      job:cancel { grace = 10000 }
      job:wait()
      return job:records()().value
    end, "closed", true },
  { "loses what only force could end", function (pool)
      local gate <close> = gates.new()
      local job <const> = pool:spawn(deaf(gate))
      gate:await(1)
      job:cancel { grace = 0 }
      return { (job:wait()), pool:run "return 'well'" }
    end, { "lost", "well" }, true },
  { "stops all when it is closed", function (pool)
      local job <const> = begin(pool, SPIN)
      pool:close(0)
      return { (job:wait()), job.reason }
    end, { "cancelled", "closed" }, true },
  { "runs maps inside of jobs", function (pool)
      return pool:run(function ()
        return parallel.map({ 1, 2, 3 }, function (x) return x * 10 end)
      end)
    end, { n = 3, 10, 20, 30 } },
  { "forgets globals of a job", function (pool)
      pool:run "x = 1"
      return pool:run "return x == nil"
    end, true },
}

for _, kind in ipairs(KINDS) do
  describe("a pool of one " .. kind, function ()
    for _, row in ipairs(ROWS) do
      if row[4] and kind == "serial" then goto next end
      it(row[1], function ()
        local pool <close> = parallel.pool(on(kind, { max = 1 }))
        assert.same(row[3], row[2](pool))
      end)
      ::next::
    end

    it("starts from an initial state", function ()
      local pool <close> = parallel.pool(on(kind, {
        max = 1, variables = { t = { 1, { x = 2 } } },
        functions = { double = function (x) return 2 * x end },
        preload = { ["spec.twice"] = "return { of = double }" },
        modules = { "spec.twice" }, init = "y = require 'spec.twice'.of(t[1])",
        path = "nowhere/?.lua", cpath = "none/?.so",
      }))
      assert.same({ 2, 2, "nowhere/?.lua", "none/?.so" }, {
        pool:run "return y, t[2].x, package.path, package.cpath" })
    end)

    it("has the libraries, and the sandbox, that it was given", function ()
      local pool <close> = parallel.pool(on(kind, {
        max = 1, libs = { "base", "string", "os" }, sandbox = true,
      }))
      assert.is_true(pool:run "return io == nil and string ~= nil")
      assert.matches("the sandbox of this runspace forbids",
                     pool:run "return select(2, os.execute 'true')")
    end)

    if kind == "broker" then
      it("fails where 'init' raises", function ()
        local pool <close> = parallel.pool(on(kind, {
          init = "error 'no luck'" }))
        assert.matches("init: .*no luck", raised(pool.run, pool, "return 1"))
      end)
      goto opened
    end

    it("does not open where 'init' raises", function ()
      assert.matches("init: .*no luck", raised(parallel.pool, on(kind, {
        init = "error 'no luck'" })))
    end)

    ::opened::

    it("keeps to a limit of memory, and of instructions", function ()
      local pool <close> = parallel.pool(on(kind, {
        max = 1, memory = "32M", instructions = 1e7,
      }))
      local job <const> = pool:spawn(
        "local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end")
      assert.equal("failed", job:wait())
      assert.equal("memory_limit", job.reason)
      local busy <const> = pool:spawn "while true do end"
      assert.equal("failed", busy:wait())
      assert.equal("instruction_limit", busy.reason)
      assert.equal("well", pool:run "return 'well'")
    end)

    it("renews runspaces after max_tasks, and with reset", function ()
      local pool <close> = parallel.pool(on(kind, {
        max = 1, max_tasks = 2, reset = "none",
      }))
      local seen = {}
      for i = 1, 5 do seen[i] = pool:run "n = (n or 0) + 1 return n" end
      assert.same({ 1, 2, 1, 2, 1 }, seen)
      local fresh <close> = parallel.pool(on(kind, {
        max = 1, reset = "fresh",
      }))
      for _ = 1, 3 do
        assert.equal(1, fresh:run [[string.n = (string.n or 0) + 1
                                    return string.n]])
      end
    end)

    -- The first wait of a runspace makes what it waits at; the runspaces of a
    -- broker have waited before.
    local is_new <const> = kind ~= "broker" and kind ~= "serial" and it
                        or pending
    is_new("stops a job on its way to its first wait", function ()
      local pool <close> = parallel.pool(on(kind, { max = 1 }))
      local gate <close> = gates.new()
      local code <const> = deaf(gate)
      local job <const> = pool:spawn(function ()
        debug.sethook(function ()
          if debug.getinfo(2, "n").name == nil then  -- called from C
            debug.sethook()
            load(code)()
          end
        end, "c")
        parallel.task.sleep(10000)
      end)
      gate:await(1)
      job:cancel { grace = 10000 }
      gate:open()
      assert.equal("cancelled", (job:wait()))
      assert.equal("cancelled", job.reason)
    end)

    it("is opened for one call", function ()
      local here <const> = io.open "/proc/self/stat":read "n"
      local pids <const> = parallel.map({ 1, 2 }, "return " .. PID, on(kind, {
        limit = 2 }))
      assert.equal(kind == "thread" or kind == "serial", pids[1] == here)
      for _, verb in ipairs { "collect", "filter" } do
        assert.equal(2, #parallel[verb]({ 1, 2 }, "return true",
                                        on(kind)))
      end
    end)
  end)
end

--- Seconds after which a silent worker is lost here.  What is instrumented is
--- slow, beside other programs above all.
local HEARTBEAT <const> = tree.sanitizers == "" and 0.5 or 2

--- Let so many heartbeats pass.
local function pass (heartbeats)
  os.execute("sleep " .. heartbeats * HEARTBEAT)
end

for _, kind in ipairs(KINDS) do
  if kind == "thread" or kind == "serial" or kind == "broker" then
    goto next
  end
  describe("the heartbeat of a pool of one " .. kind, function ()
    local function open ()
      return parallel.pool(on(kind, { max = 1, heartbeat = HEARTBEAT }))
    end

    --- Heartbeats for which the far side does not live on without its host,
    --- where that is not the same for all commands.
    local long <const> = kind == "command" and 8 or 2

    it("loses a job whose process is stopped, and the pool goes on",
       function ()
      local pool <close> = open()
      local pid <const> = pool:run("return " .. PID)
      local job <const> = begin(pool, SPIN)
      os.execute("kill -STOP " .. pid)
      assert.equal("lost", job:wait())
      assert.matches(("no heartbeat for %g s$"):format(HEARTBEAT), job.error)
      assert.equal("well", pool:run "return 'well'")
      -- Behind ssh it is out of reach; it ends when it goes on.
      os.execute("kill -CONT " .. pid .. " 2>/dev/null")
      await_death(pid)
    end)

    it("replaces a process that was stopped at rest", function ()
      local pool <close> = open()
      local pid <const> = pool:run("return " .. PID)
      os.execute("kill -STOP " .. pid)
      pass(2)
      assert.not_equal(pid, pool:run("return " .. PID))
      os.execute("kill -CONT " .. pid .. " 2>/dev/null")
      await_death(pid)
    end)

    it("goes on while a job computes", function ()
      local pool <close> = open()
      local pid <const> = pool:run("return " .. PID)
      assert.equal(pid, pool:run(([[
        local late = parallel.now() + %g
        while parallel.now() < late do end
        return ]] .. PID):format(3 * HEARTBEAT)))
    end)

    it("goes on while nobody takes what a job sends", function ()
      local pool <close> = open()
      local n = 0
      local handler <const> = parallel.on("flood", function () n = n + 1 end)
      local job <const> = pool:spawn(function ()
        for i = 1, 3000 do parallel.task.emit("flood", i) end
      end)
      pass(long)
      while not job:wait(0) do parallel.poll(1) end
      parallel.poll(0)
      parallel.off("flood", handler)
      assert.same({ "completed", 3000 }, { job.state, n })
    end)

    it("goes on at rest", function ()
      local pool <close> = open()
      local pid <const> = pool:run("return " .. PID)
      pass(long)
      assert.equal(pid, pool:run("return " .. PID))
    end)

    it("lets a lost job run again, if it shall", function ()
      local pool <close> = parallel.pool(on(kind, {
        max = 1, heartbeat = kind ~= "process" and HEARTBEAT / 2 or nil
      }))
      local path <const> = os.tmpname()
      local function leave (stay)
        local file <close> = io.open(path, "a+")
        file:write "x"
        file:flush()
        file:seek "set"
        if #file:read "a" <= stay then os.exit(3) end
        return parallel.task.attempt
      end
      local job <const> = pool:submit { leave, arguments = { 1 },
                                        retries = 2,
                                        retry_on = { "error", "lost" } }
      assert.equal(2, job:get())
      assert.equal(2, job.attempts)
      assert.equal("lost", (pool:spawn(leave, 9):wait()))
      os.remove(path)
    end)
  end)
  ::next::
end

--- Run a script in the background, which prints words by lines.
---@param source string
---@return file* pipe
---@return integer pid
local function background (source)
  local path <const> = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write("io.stdout:setvbuf 'line' print(", PID, ")\n", source)
  file:close()
  local pipe <const> = io.popen("exec " .. tree.runspace .. " " .. path
                                .. " 2>&1")
  local pid <const> = pipe:read "n"
  pipe:read "l"
  os.remove(path)
  return pipe, pid
end

describe("a program that is suspended", function ()
  for _, kind in ipairs { "process", "command" } do
    it("keeps its workers: " .. kind, function ()
      local gate <close> = gates.new()
      local pipe <close>, pid <const> = background(([[
        local parallel = require "parallel"
        local p <close> = parallel.pool{max = 2, heartbeat = %g, %s}
        local jobs = {}
        for i = 1, 2 do jobs[i] = p:spawn "%s" end
        for i = 1, 2 do print((jobs[i]:wait()), jobs[i].error) end
      ]]):format(HEARTBEAT, kind == "process" and "isolation = 'process'"
                            or ("command = {'sh', '-c', 'exec %s --worker'}")
                               :format(tree.program()), deaf(gate)))
      gate:await(2)
      os.execute("kill -STOP " .. math.tointeger(pid))
      pass(3)
      os.execute("kill -CONT " .. math.tointeger(pid))
      pass(3)
      gate:open()
      assert.equal("completed\tnil\ncompleted\tnil\n", pipe:read "a")
    end)
  end

  it("is not waited for by what a command has brought up", function ()
    local pipe <close>, pid <const> = background(([[
      local parallel = require "parallel"
      local p <close> = parallel.pool{max = 1, heartbeat = 0.2,
        command = {"sh", "-c", "exec %s --worker"}}
      local begun
      parallel.on("begun", function () begun = true end)
      print(p:run "return %s")
      local job = p:spawn "parallel.task.emit 'begun' %s"
      while not begun do parallel.poll(1) end
      print "begun"
      print((job:wait()), job.error)
    ]]):format(tree.program(), PID, SPIN))
    local worker <const> = pipe:read "n"
    pipe:read "l"
    assert.equal("begun", pipe:read "l")
    os.execute("kill -STOP " .. math.tointeger(pid))
    await_death(worker)
    os.execute("kill -CONT " .. math.tointeger(pid))
    assert.equal("lost\tsh 1: the worker process exited with status 0\n",
                 pipe:read "a")
  end)
end)

--- What ends a process, and the words for it.  A sanitizer handles SIGSEGV,
--- and exits.
local SEGV <const> = tree.sanitizers == "" and "was killed by SIGSEGV"
  or tree.sanitizers == "thread" and "exited with status 66"
  or "exited with status 1"
local ENDS <const> = {
  { "os.execute('kill -SEGV ' .. " .. PID .. ") " .. SPIN,
    "the worker process " .. SEGV },
  { "os.execute('kill -KILL ' .. " .. PID .. ") " .. SPIN,
    "the worker process was killed by SIGKILL" },
  { "os.exit(3)", "the worker process exited with status 3" },
  { "os.exit(true)", "the worker process exited with status 0" },
  { "os.exit(255)", "the worker process exited with status 255" },
}

describe("a job in a process", function ()
  for _, row in ipairs(ENDS) do
    it("is lost: " .. row[2], function ()
      local pool <close> = parallel.pool { isolation = "process", max = 1 }
      local job <const> = pool:spawn(row[1])
      assert.equal("lost", job:wait())
      assert.equal("lost", job.reason)
      assert.equal(row[2], job.error)
      assert.matches("was lost: " .. row[2],
                     tostring(raised(job.get, job)):match "^[^\n]*")
      assert.equal("well", pool:run "return 'well'")
      assert.equal(1, pool:info().workers)
    end)
  end

  it("is lost alone", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 2 }
    local records <const> = pool:collect(parallel.range(1, 12), function (x)
      if x % 4 == 0 then os.exit(x) end
      return x
    end, { chunk = 1, on_error = "continue" })
    for i, record in ipairs(records) do
      assert.equal(i % 4 == 0 and "lost" or "completed", record.state)
      assert.equal(i % 4 == 0 and "the worker process exited with status " .. i
                   or nil, record.error)
    end
  end)

  it("is killed when it was stopped by a signal, and is to end", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    local pid <const> = pool:run("return " .. PID)
    local job <const> = begin(pool, SPIN)
    os.execute("kill -STOP " .. pid)
    job:cancel { grace = 0 }
    assert.equal("lost", job:wait())
    assert.equal("the worker process did not stop, and was killed", job.error)
    assert.equal("well", pool:run "return 'well'")
  end)

  it("goes to another process where the first has died at rest", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    for _ = 1, 3 do
      local pid <const> = pool:run("return " .. PID)
      os.execute("kill -KILL " .. pid)
      await_death(pid)
      assert.equal("well", pool:run "return 'well'")
    end
  end)

  it("runs again with the other items of its chunk, one at a time", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 2 }
    for _, items in ipairs { { 1, 2, 3, 4, 5, 6 }, parallel.range(1, 6),
                             { "1", "2", "3", "4", "5", "6" } } do
      local records <const> = pool:collect(items, function (x)
        if tonumber(x) == 3 then os.exit(9) end
        return { x }
      end, { chunk = 6, retries = 1, retry_on = "lost",
             on_error = "continue" })
      for i, record in ipairs(records) do
        assert.equal(i == 3 and "lost" or "completed", record.state)
        assert.equal(i ~= 3 and i or nil, record.result
                                          and tonumber(record.result[1]))
        assert.equal(2, record.attempts)
      end
      assert.equal(6, #records)
    end
  end)

  it("is refused to run again where it may still be running", function ()
    for _, verb in ipairs { "map", "collect", "filter" } do
      assert.matches("retry_on has 'lost', and a job that is lost in a thread "
                     .. "may still be running: give the pool isolation = "
                     .. "\"process\"", tostring(raised(parallel[verb], { 1 },
                                                       "return 1", {
        retries = 1, retry_on = "lost" })), 1, true)
    end
    assert.matches("retry_on has 'lost'", tostring(raised(parallel.submit, {
      "return 1", retries = 1, retry_on = { "lost", "error" }
    })))
  end)

  it("has a process that comes up again after some failures", function ()
    local pipe <close> = io.popen "mktemp -d"
    local dir <const> = pipe:read "l"
    local script <close> = assert(io.open(dir .. "/worker", "w"))
    -- The second and the third start fail.
    script:write(([[#!/bin/sh
      cd %s
      if mkdir first 2>/dev/null; then :
      elif mkdir second 2>/dev/null; then exit 1
      elif mkdir third 2>/dev/null; then exit 1
      fi
      exec %s --worker
    ]]):format(dir, tree.program()))
    script:close()
    os.execute("chmod +x " .. dir .. "/worker")
    local pool <close> = parallel.pool { isolation = "process", max = 1,
                                         runspace = dir .. "/worker" }
    assert.equal("lost", (pool:spawn "os.exit(2)":wait()))
    assert.equal("well", pool:run "return 'well'")
    os.execute("rm -r " .. dir)
  end)

  it("is lost again and again where processes die at once", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    local jobs <const> = {}
    for i = 1, 5 do jobs[i] = pool:spawn "os.exit(2)" end
    for i = 1, 5 do assert.equal("lost", (jobs[i]:wait())) end
    assert.equal("well", pool:run "return 'well'")
  end)

  it("returns data alone", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    for _, row in ipairs {
      { "return print", "result 1: cannot transfer a function to another "
        .. "process" },
      { "return 1, { a = { function () end } }", "result 2: field 'a[1]': "
        .. "cannot transfer a function to another process" },
      { "return string", "result 1: cannot transfer a library to another "
        .. "process" },
      { "return _G", "result 1: cannot transfer the globals to another" },
      { "return setmetatable({}, { __gc = type })", "metatable has '__gc' to "
        .. "another process" },
      { "parallel.task.emit('x', print)", "x: cannot transfer a function" },
    } do
      assert.matches(row[2], tostring(raised(pool.run, pool, row[1])), 1, true)
    end
    local records <const> = pool:collect({ 1, 2, 3 }, function (x)
      return x == 2 and print or x
    end, { on_error = "continue", chunk = 3 })
    assert.same({ "completed", "failed", "completed" },
                { records[1].state, records[2].state, records[3].state })
  end)

  it("takes what can cross, and refuses the rest with its path", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    local file <const> = io.stdout
    assert.matches("upvalue 'file'.*cannot transfer a userdata",
                   raised(pool.spawn, pool, function () return file end))
    assert.matches("argument 1: .*cannot transfer a userdata",
                   raised(pool.spawn, pool, "return ...", file))
  end)

  it("prints to the output of the program, in whole lines", function ()
    local path <const> = os.tmpname()
    local script <close> = assert(io.open(path, "w"))
    script:write [[
      local parallel = require "parallel"
      local p <close> = parallel.pool { isolation = "process", max = 1 }
      p:run(function ()
        print("one", 1)
        io.write "two "
        io.write "2\n"
        io.stderr:write "three\n"
        os.execute "echo four"
      end)
    ]]
    script:flush()
    local pipe <const> = io.popen(tree.runspace .. " " .. path
                                  .. " 2>/dev/null")
    assert.equal("one\t1\ntwo 2\n", pipe:read "a")
    pipe:close()
    os.remove(path)
  end)

  it("has programs that end with its process", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    local path <const> = os.tmpname()
    local job <const> = begin(pool, "os.execute 'sleep 1000 & echo $! > "
                                    .. path .. "' os.exit(1)")
    assert.equal("lost", job:wait())
    local pid
    gates.eventually(function ()
      local file <close> = io.open(path)
      pid = file:read "n"
      return pid
    end)
    await_death(math.tointeger(pid))
    os.remove(path)
  end)
end)

describe("a pool of processes", function ()
  for _, row in ipairs {
    { { isolation = "fibre" }, "bad option 'isolation' to 'pool' ('thread' or "
      .. "'process' or 'serial' expected, got 'fibre')" },
    { { runspace = "x" }, "bad option 'runspace' to 'pool' (it is the program "
      .. "of processes: give isolation = \"process\", too)" },
    { { heartbeat = 5 }, "bad option 'heartbeat' to 'pool' (it is for "
      .. "processes: give isolation = \"process\", too)" },
    { { isolation = "process", heartbeat = 0 }, "bad option 'heartbeat' to "
      .. "'pool' (a number of seconds from 0.1 on expected, got 0)" },
    { { isolation = "process", heartbeat = 0 / 0 }, "from 0.1 on expected" },
    { { isolation = "process", runspace = 5 }, "bad option 'runspace' to "
      .. "'pool' (the path of a program expected, got 5)" },
    { { isolation = "process", runspace = "/no/such/program" }, "cannot start "
      .. "'/no/such/program' as a worker process: No such file" },
    { { isolation = "process", runspace = "/bin/true" }, "no runspace came up "
      .. "as a worker process from /bin/true: the worker process exited with "
      .. "status 0" },
  } do
    it("is refused: " .. row[2], function ()
      assert.matches(row[2], raised(parallel.pool, row[1]), 1, true)
    end)
  end

  it("is not for a sandbox that forbids programs", function ()
    assert.matches("starts programs, which the sandbox of this runspace "
                   .. "forbids", raised(parallel.map, { 1 }, function ()
      return parallel.map({ 1 }, "return 1", { isolation = "process" })
    end, { sandbox = true }).error, 1, true)
  end)

  it("leaves no process, descriptor or thread behind", function ()
    local output <const>, status <const> = leaks.run [[
      function round ()
        local p <close> = parallel.pool { isolation = "process", max = 3 }
        p:map(parallel.range(1, 30), "return ...", { chunk = 1 })
        pcall(p.run, p, "os.exit(1)")
        p:spawn("os.execute('kill -KILL ' .. io.open '/proc/self/stat':read "
               .. "'n') while true do end"):wait()
        pcall(parallel.pool, { isolation = "process", init = "error 'x'" })
        local job = p:spawn "while true do end"
        job:cancel()
        job:wait()
      end
    ]]
    assert.equal("nothing is left\n", output)
    assert.equal(0, status)
  end)

  it("leaves SIGCHLD and other children to the program", function ()
    local output <const> = run([[
      local parallel = require "parallel"
      local p <close> = parallel.pool { isolation = "process", max = 1 }
      p:run "return 1"
      local pipe = io.popen "exit 7"
      pcall(p.run, p, "os.exit(1)")
      print(pipe:close())
      print(os.execute "exit 5")
    ]])
    assert.equal("nil\texit\t7\nnil\texit\t5\n", output)
  end)

  it("ends with its program, however that ends", function ()
    local path <const> = os.tmpname()
    run([[
      local parallel = require "parallel"
      local p = parallel.pool { isolation = "process", max = 1 }
      local job = p:spawn("local f <close> = io.open(']] .. path .. [[', 'w') "
        .. "f:write(]] .. PID:gsub("'", "\\'") .. [[) f:close() "
        .. "parallel.task.emit 'begun' while true do end")
      local begun
      parallel.on("begun", function () begun = true end)
      while not begun do parallel.poll(1) end
      os.execute("kill -KILL " .. ]] .. PID .. [[)
    ]])
    local file <close> = io.open(path)
    local pid <const> = file:read "n"
    await_death(math.tointeger(pid))
    os.remove(path)
  end)

  it("is the default one with --isolation process", function ()
    local path <const> = os.tmpname()
    local script <close> = assert(io.open(path, "w"))
    script:write("local here = " .. PID .. " print(parallel.run('return "
                 .. PID:gsub("'", "\"") .. "') ~= here, ...)")
    script:flush()
    for _, row in ipairs {
      { "-j 2 --isolation process", "true\targument\n" },
      { "--isolation thread", "false\targument\n" },
      { "--isolation fibre", "needs 'thread' or 'process', not 'fibre'" },
      { "--isolation", "" },
    } do
      local pipe <const> = io.popen(("%s %s %s argument 2>&1"):format(
        tree.runspace, row[1], path))
      assert.matches(row[2], pipe:read "a", 1, true)
      pipe:close()
    end
    os.remove(path)
  end)
end)
