-- SPDX-License-Identifier: MIT
--- A function in each runspace of a pool: in those that are there, and in
--- those that come later.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local sshd <const> = require "support.sshd"
local tree <const> = require "support.tree"

--- Options of pools whose runspaces are in threads, in child processes, and
--- behind a command.
local WHERE <const> = {
  thread = { isolation = "thread" },
  process = { isolation = "process" },
  command = { command = { "sh", "-c", "exec " .. tree.program()
                                      .. " --worker" } },
}
local KINDS <const> = { "thread", "process", "command" }

local server <const>, without <const> = sshd.start()
if server ~= nil then
  KINDS[#KINDS + 1] = "ssh"
  WHERE.ssh = { hosts = { "web1:4" }, ssh = server.ssh,
                runspace = tree.program() }
  teardown(function () server:close() end)
else
  print("left out, since " .. without .. ": workers behind ssh")
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

--- ThreadSanitizer holds back signals from loops that call nothing which it
--- knows, such as an allocation.
local SPIN <const> = tree.sanitizers == "thread"
  and "while true do tostring {} end" or "while true do end"

--- Code that arrives at a gate, and waits there where no signal reaches it.
---@param gate table
---@return string
local function deaf (gate)
  return ("os.execute 'printf x > %s; : < %s'"):format(gate.bell, gate.path)
end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

--- The states of failures by key.
local function states (errors)
  local list <const> = {}
  for key, failure in pairs(errors) do list[key] = failure.state end
  return list
end

--- Let 'act' run once while the host waits for something else: an event wakes
--- it, which a job of the pool 'other' emits.
---@param other parallel.Pool
---@param act fun()
---@return parallel.Job
local function meanwhile (other, act)
  local handler
  handler = parallel.on("meanwhile", function ()
    parallel.off("meanwhile", handler)
    act()
  end)
  return other:spawn "parallel.task.emit 'meanwhile'"
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

--- A file that jobs append to, one byte each: counts what leaves no other
--- trace.
local function new_counter ()
  local path <const> = os.tmpname()
  return setmetatable({
    path = path,
    count = function ()
      local file <close> = assert(io.open(path))
      return #file:read "a"
    end,
  }, { __close = function () os.remove(path) end })
end

local function mark (path)
  local file <close> = assert(io.open(path, "a"))
  file:setvbuf "no"
  file:write "x"
end

--- Run a job in each of the 'n' workers at the same time, and gather what they
--- return.
---@param pool parallel.Pool
---@param n integer
---@param fn function  called with a function that stops at a gate
---@return any[]
local function at_once (pool, n, fn)
  local gate <close> = gates.new()
  local pass <const> = gate.pass
  local jobs <const>, got <const> = {}, {}
  for i = 1, n do jobs[i] = pool:spawn(fn, pass) end
  gate:await(n)
  gate:open()
  for i = 1, n do got[i] = jobs[i]:get() end
  return got
end

for _, kind in ipairs(KINDS) do
  describe("everywhere, " .. kind, function ()
    it("runs once in each runspace, and gives results by worker", function ()
      local pool <close> = parallel.pool(on(kind, { min = 3, max = 3 }))
      local results, errors = pool:everywhere(function (a, b)
        return a .. b .. parallel.task.worker, "more"
      end, "x", "y")
      assert.same({ "xy1", "xy2", "xy3" }, results)
      assert.same({}, errors)
    end)

    it("keeps what it assigns, and what it loads", function ()
      local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
      pool:everywhere(function (t)
        kept, _G.by_name = t, 1          -- luacheck: ignore 111
        rawset(_G, "raw", 2)
        print = print                    -- luacheck: ignore 121
        package.loaded.made = { v = 3 }
        function made_here () return kept.x end  -- luacheck: ignore 111 113
      end, { x = 5 })
      -- luacheck: push ignore 113 111
      for _, got in ipairs(at_once(pool, 2, function (pass)
        pass()
        local got <const> = { kept.x, by_name, raw, require "made".v,
                              made_here() }
        kept, by_name = nil, nil
        return got
      end)) do
        assert.same({ 5, 1, 2, 3, 5 }, got)
      end
      assert.same({ 5, 1 }, { pool:run "return kept.x, by_name" })
      -- luacheck: pop
    end)

    it("gives failures by worker, and keeps what has completed somewhere",
       function ()
      local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
      local results, errors = pool:everywhere [[
        if parallel.task.worker == 2 then error({ code = 7 }) end
        x = "there"
        return x
      ]]
      assert.same({ "there" }, results)
      assert.same({ [2] = "failed" }, states(errors))
      assert.same({ code = 7 }, errors[2].error)
      assert.equal(2, errors[2].key)
      assert.matches("^'everywhere, worker 2': ", tostring(errors[2]))
    end)

    it("runs in workers that start later, before their jobs", function ()
      local pool <close> = parallel.pool(on(kind, { min = 1, max = 3 }))
      assert.same({ "n" }, (pool:everywhere "n = (n or 0) + 1 return 'n'"))
      assert.same({ 1, 1, 1 }, at_once(pool, 3, function (pass)
        pass()
        return n  -- luacheck: ignore 113
      end))
      assert.equal(3, pool:info().workers)
    end)

    for _, more in ipairs {
      { reset = "none" }, { reset = "fresh" }, { max_tasks = 1 },
      { max_tasks = 2 }, { max_bytes = 1000 },
    } do
      local name <const>, value <const> = next(more)
      more.min, more.max = 1, 1
      it("runs in runspaces that take the place of others: " .. name .. " = "
         .. value, function ()
        local pool <close> = parallel.pool(on(kind, more))
        pool:everywhere "n = (n or 0) + 1"
        pool:everywhere "m = (m or 0) + n"
        for _ = 1, 4 do
          assert.same({ 1, 1 }, { pool:run "return n, m" })
        end
        assert.same({ n = 4, 1, 1, 1, 1 },
                    pool:map({ 1, 2, 3, 4 }, "return n"))
      end)
    end

    it("comes before the jobs that wait for a busy worker", function ()
      local other <close> = parallel.pool { max = 1 }
      local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local first <const> = pool:spawn(function ()
        pass()
        return x  -- luacheck: ignore 113
      end)
      gate:await(1)
      local second <const> = pool:spawn "return x"
      meanwhile(other, function () gate:open() end)
      assert.same({ 3 }, (pool:everywhere "x = 3 return x"))
      assert.is_nil(first:get())
      assert.equal(3, second:get())
    end)

    it("stops at its time-out", function ()
      local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
      local results, errors = pool:everywhere { SPIN, timeout = 0.05 }
      assert.same({}, results)
      assert.same({ "timed_out", "timed_out" }, states(errors))
      assert.equal("timeout", errors[1].reason)
      assert.same({ "well" }, { pool:run "return 'well'" })
    end)

    it("is not begun after its deadline", function ()
      local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
      local gate <close> = gates.new()
      local job <const> = pool:spawn(gate.pass)
      gate:await(1)
      local _, errors = pool:everywhere { "x = 1", deadline = 0.01 }
      assert.equal("deadline", errors[1].reason)
      gate:open()
      job:get()
      assert.is_nil((pool:run "return x"))  -- it has completed nowhere
    end)

    it("is stopped with all jobs of the pool", function ()
      local other <close> = parallel.pool { max = 1 }
      local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local job <const> = pool:spawn(function () pass() end)
      gate:await(1)
      meanwhile(other, function () pool:cancel() gate:open() end)
      local results, errors = pool:everywhere(SPIN)
      assert.same({}, results)
      assert.same({ "cancelled", "cancelled" }, states(errors))
      job:wait()
      assert.same({ "well" }, { pool:run "return 'well'" })
    end)

    it("shows and hands over what it sends", function ()
      local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
      local seen <const> = {}
      pool:everywhere {
        "parallel.task.warning('w' .. parallel.task.worker)",
        streams = { warning = function (record)
          seen[#seen + 1] = record.value
        end },
      }
      table.sort(seen)
      assert.same({ "w1", "w2" }, seen)
    end)

    it("is gone, and tried again, where a job needs another runspace",
       function ()
      local pool <close> = parallel.pool(on(kind, {
        min = 1, max = 1, memory = "8M" }))
      pool:everywhere "n = (n or 0) + 1"
      local job <const> = pool:submit {
        "if parallel.task.attempt == 1 then return ('x'):rep(1 << 25) end "
        .. "return n, parallel.task.attempt",
        retries = 1, retry_on = "memory_limit",
      }
      assert.same({ 1, 2 }, { job:get() })
      assert.equal(2, job.attempts)
    end)
  end)
end

--- Kinds whose runspaces are processes.
for _, kind in ipairs(KINDS) do
  if kind ~= "thread" then
    describe("everywhere in processes, " .. kind, function ()
      it("runs in the process that follows one which was lost", function ()
        local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
        pool:everywhere "n = (n or 0) + 1"
        assert.equal("lost", (pool:spawn "os.exit(2)":wait()))
        assert.equal(1, (pool:run "return n"))
      end)

      it("runs in the process that follows one which died at rest",
         function ()
        local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
        pool:everywhere "n = (n or 0) + 1"
        for _ = 1, 3 do
          local pid <const> =
            pool:run "return io.open '/proc/self/stat':read 'n'"
          os.execute("kill -9 " .. pid)
          await_death(pid)
          local job = pool:spawn "return n"
          -- The end of a connection comes later than that of the process.
          while kind == "ssh" and job:wait() == "lost" do
            job = pool:spawn "return n"
          end
          assert.equal(1, job:get())
          assert.equal(1, job.attempts)
        end
        assert.same({ n = 2, 1, 1 }, pool:map({ 1, 2 }, "return n"))
      end)

      it("runs before a job that was lost runs again", function ()
        local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
        pool:everywhere "n = (n or 0) + 1"
        if kind ~= "ssh" then  -- there it is over after a while only
          local code <const> =
            "if parallel.task.attempt == 1 then os.exit(2) end return n"
          local job <const> = pool:submit { code, retries = 1,
                                            retry_on = "lost" }
          assert.equal(1, job:get())
          assert.equal(2, job.attempts)
          assert.same({ n = 2, 1, 1 }, pool:map({ 1, 2 }, code, {
            chunk = 1, retries = 1, retry_on = "lost" }))
        end
      end)

      it("is lost with its process, and the pool goes on", function ()
        local pool <close> = parallel.pool(on(kind, { min = 2, max = 2 }))
        local results, errors = pool:everywhere [[
          if parallel.task.worker == 1 then os.exit(3) end
          return true
        ]]
        assert.same({ [2] = true }, results)
        assert.same({ "lost" }, states(errors))
        assert.matches("exited with status 3", errors[1].error)
      end)

      it("is for the pool of the process in a job", function ()
        local pool <close> = parallel.pool(on(kind, { min = 1, max = 1 }))
        assert.same({ 1, 1 }, { pool:run(function ()
          local results <const> = parallel.everywhere "y = 1 return y"
          return results[1], parallel.run "return y"
        end) })
      end)
    end)
  end
end

describe("everywhere", function ()
  it("takes a table, as submit does", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.same({ "a:1:2" }, (pool:everywhere {
      function (a, b, c) return a .. ":" .. b .. ":" .. c end,
      arguments = { "a" }, params = { c = 2, b = 1 },
    }))
    local _, errors = pool:everywhere { "error(x)", params = { x = "no luck" },
                                        name = "load" }
    assert.matches("^'load, worker 1': ", tostring(errors[1]))
  end)

  it("has the default pool", function ()
    assert.equal("1\n", (run [[
      parallel.everywhere "x = 1"
      print(parallel.run "return x")
    ]]))
  end)

  it("keeps the globals that go along", function ()
    assert.equal("6\t12\nfalse\n", (run [[
      function scaled (x) return factor * x end
      factor = 3
      local pool <close> = parallel.pool { max = 1, max_tasks = 1 }
      pool:everywhere(function () made = scaled(2) end)
      scaled, factor = nil, nil
      print(pool:run "return made, scaled(4)")
      function other () end
      local _, errors = pool:everywhere {
        function () other() end, globals = false }
      print(errors[1] == nil)
    ]]))
  end)

  it("is told as a job of its own", function ()
    local pool <close> = parallel.pool { max = 1, max_tasks = 1 }
    local names <const> = {}
    local handler <const> = parallel.on("finished", function (e)
      names[#names + 1] = e.job_name
    end)
    pool:everywhere { "x = 1", name = "prepare" }
    parallel.off("finished", handler)
    assert.same({ "prepare" }, names)
    assert.equal(1, pool:info().done.completed)
  end)

  it("is not kept where it has completed in no runspace", function ()
    local pool <close> = parallel.pool { max = 1, max_tasks = 1 }
    local results, errors = pool:everywhere "x = 1 error 'no luck'"
    assert.same({}, results)
    assert.same({ "failed" }, states(errors))
    pool:run "return 1"
    assert.is_nil((pool:run "return x"))
    assert.equal(0, pool:info().failed_workers)
  end)

  it("lets a runspace that comes later and fails not be used", function ()
    -- What is told comes at any line of the output.
    local output <const> = run [[
      local path = os.tmpname()
      local parallel = require "parallel"
      do
        local pool <close> = parallel.pool{max = 1, max_tasks = 1}
        pool:everywhere(function (path)
          if not io.open(path) then error "no file" end
          x = 1
        end, path)
        os.remove(path)
        print((pool:run "return x"))    -- the runspace behind it fails
        local job = pool:spawn "return x"
        print(job:wait(), job.reason)
        print(job.error)
        print(pool:info().failure == job.error)
        io.open(path, "w"):close()
        print((pool:run "return x"))
        os.remove(path)
      end
    ]]
    local told <const>, n <const> = output:gsub(
      "parallel: nobody looked at the failure of 'everywhere': [^\n]*no file"
      .. "\ntraceback of the runspace:\n[^\n]*\n[^\n]*\n", "")
    assert.is_true(n >= 1)
    assert.matches("^1\nfailed\tworker\n'everywhere' failed in a new "
                   .. "runspace: [^\n]*: no file\ntrue\n1\n$",
                   (told:gsub("hint: [^\n]*\n", "")))
  end)

  it("ends its workers where a runspace that comes later is lost",
     function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1,
                                         max_tasks = 1 }
    local path <const> = os.tmpname()
    os.remove(path)
    local heard <const> = {}
    local handler <const> = parallel.on("unseen_failure", function (e)
      heard[#heard + 1] = e.data.state
    end)
    pool:everywhere("if io.open(...) then os.exit(3) end x = 1", path)
    io.open(path, "w"):close()
    assert.equal(1, (pool:run "return x"))
    local job <const> = pool:spawn "return x"
    assert.equal("failed", job:wait())
    assert.matches("^'everywhere' was lost in a new runspace: the worker "
                   .. "process exited with status 3", job.error)
    os.remove(path)
    assert.equal(1, (pool:run "return x"))
    parallel.off("unseen_failure", handler)
    assert.equal("lost", heard[1])
  end)

  it("runs again where it was stopped in a runspace that comes later",
     function ()
    local pool <close> = parallel.pool { max = 1, max_tasks = 1 }
    local gate <close> = gates.new()
    local path <const> = os.tmpname()
    os.remove(path)
    local pass <const> = gate.pass
    pool:everywhere(function (name)
      if io.open(name) then os.remove(name) pass() parallel.task.sleep(60) end
      x = (x or 0) + 1  -- luacheck: ignore
    end, path)
    io.open(path, "w"):close()
    pool:run "return 1"
    gate:await(1)  -- the next runspace is being prepared
    pool:cancel()
    assert.equal(1, (pool:run "return x"))
  end)

  it("ends with a worker that is lost, and is run by the next one", function ()
    local other <close> = parallel.pool { max = 1 }
    local pool <close> = parallel.pool { min = 1, max = 1 }
    local gate <close> = gates.new()
    pool:everywhere "n = (n or 0) + 1"
    local job <const> = pool:spawn(deaf(gate))
    gate:await(1)
    meanwhile(other, function () job:cancel { grace = 0 } end)
    local results, errors = pool:everywhere "m = n"
    assert.same({}, results)
    assert.same({ "failed" }, states(errors))
    assert.equal("worker", errors[1].reason)
    assert.equal("the worker was lost in another job", errors[1].error)
    assert.equal("lost", job:wait())
    assert.equal(1, (pool:run "return n"))
    gate:open()
  end)

  it("starts a worker where all were lost", function ()
    local pool <close> = parallel.pool { min = 1, max = 1 }
    local gate <close> = gates.new()
    local job <const> = pool:spawn(deaf(gate))
    gate:await(1)
    job:cancel { grace = 0 }
    job:wait()
    local results <const> = pool:everywhere "return 'well'"
    assert.same({ "well" }, results)
    gate:open()
  end)

  it("is refused in a job of its own pool", function ()
    local pool <close> = parallel.pool { max = 2 }
    assert.matches("a job cannot call a function everywhere in its own pool",
                   raised(pool.run, pool, function ()
      return parallel.everywhere "return 1"
    end), 1, true)
  end)

  it("may be called by a job for a pool that it has opened", function ()
    assert.same({ 2, 2 }, { parallel.run(function ()
      local inner <close> = parallel.pool { min = 2, max = 2 }
      local results <const> = inner:everywhere "x = 2 return x"
      return results[2], inner:run "return x"
    end) })
  end)

  it("is withdrawn when the job that waits for it is stopped", function ()
    local pool <close> = parallel.pool { max = 1 }
    local begun = false
    local handler <const> = parallel.on("begun", function () begun = true end)
    local job <const> = pool:spawn(function (spin)
      local inner <close> = parallel.pool { min = 2, max = 2, max_tasks = 1 }
      parallel.task.emit "begun"
      local _, why = pcall(inner.everywhere, inner, spin)
      return why
    end, SPIN)
    while not begun do parallel.poll(1) end
    parallel.off("begun", handler)
    job:cancel()
    assert.equal("cancelled", job:wait())
    assert.equal("well", (pool:run "return 'well'"))
  end)

  it("is stopped where it is withdrawn, in runspaces that came meanwhile, too",
     function ()
    local other <close> = parallel.pool { max = 1 }
    local pool <close> = parallel.pool { min = 1, max = 2 }
    local gate <close> = gates.new()
    local first <const> = pool:spawn(gate.pass)
    gate:await(1)
    -- The worker that a second job adds begins with the call.
    meanwhile(other, function () pool:spawn "return 1" end)
    local _, errors = pool:everywhere { SPIN, deadline = 0.2 }
    assert.equal("deadline", errors[1].reason)
    gate:open()
    first:get()
    assert.equal("well", (pool:run "return 'well'"))
    assert.same({ "well", "well" }, at_once(pool, 2, function (pass)
      pass()
      return "well"
    end))
  end)

  it("may use the verbs", function ()
    local pool <close> = parallel.pool { min = 2, max = 2 }
    assert.same({ 6, 6 }, (pool:everywhere(function ()
      local sum = 0
      for _, v in ipairs(parallel.map({ 1, 2, 3 }, function (x)
        leak = x  -- luacheck: ignore
        return x
      end)) do sum = sum + v end
      total = sum  -- luacheck: ignore
      return sum
    end)))
    assert.same({ 6 }, { pool:run "return total, leak" })
  end)

  it("keeps the names that strict.lua knows of as declared", function ()
    local pool <close> = parallel.pool { max = 1, init = [[
      local declared = {}
      setmetatable(_G, {
        __declared = declared,
        __newindex = function (t, n, v)
          declared[n] = true
          rawset(t, n, v)
        end,
        __index = function (_, n)
          if not declared[n] then error("undeclared " .. n) end
        end,
      })
    ]] }
    pool:run "byjob = 1"
    pool:everywhere "mine = 5; gone = 1; gone = nil"
    assert.equal(5, (pool:run "return mine"))
    assert.is_nil((pool:run "return gone"))
    assert.matches("undeclared byjob", raised(pool.run, pool, "return byjob"))
    assert.equal(7, (pool:run "mine = 7; return mine"))
    assert.equal(5, (pool:run "return mine"))
  end)

  it("is under the sandbox of the pool", function ()
    local pool <close> = parallel.pool { max = 1, sandbox = {} }
    local _, errors = pool:everywhere "assert(os.execute 'true')"
    assert.equal("failed", errors[1].state)
  end)

  it("is done by a pool that closes meanwhile", function ()
    local other <close> = parallel.pool { max = 1 }
    local pool <const> = parallel.pool { min = 2, max = 2 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job <const> = pool:spawn(function () pass() end)
    gate:await(1)
    meanwhile(other, function () gate:open() pool:close() end)
    local results <const> = pool:everywhere "return 'well'"
    assert.same({ "well", "well" }, results)
    job:get()
  end)

  it("ends with a pool that is closed at once", function ()
    local other <close> = parallel.pool { max = 1 }
    local pool <const> = parallel.pool { min = 2, max = 2 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job <const> = pool:spawn(function () pass() end)
    gate:await(1)
    meanwhile(other, function () pool:close(0) end)
    local _, errors = pool:everywhere(SPIN)
    assert.same({ "cancelled", "cancelled" }, states(errors))
    assert.equal("closed", errors[1].reason)
    assert.equal("cancelled", job:wait())
  end)

  for _, row in ipairs {
    { {}, "bad argument 'fn' to 'everywhere' (a function or the source of "
      .. "a chunk expected, got nil" },
    { { { "return 1" }, 2 }, "bad argument 2 to 'everywhere' (none expected "
      .. "behind a table, got 2; arguments are given as arguments = {...})" },
    { { { "return 1", per = "rack" } }, "bad option 'per' to 'everywhere' (" },
    { { { "return 1", retries = 2 } }, "'retries'" },
    { { { "return 1", priority = 2 } }, "'priority'" },
    { { { "return 1", timeout = -1 } }, "bad option 'timeout' to 'everywhere'"
    },
    { { { "return 1", per = "host" } }, "bad option 'per' to 'everywhere' "
      .. "('host' is for pools with hosts, and this one has none)" },
    { { io.write, io.stdout }, "cannot transfer" },
  } do
    it("refuses: " .. row[2], function ()
      local pool <close> = parallel.pool { max = 1 }
      assert.matches(row[2], raised(pool.everywhere, pool,
                                    table.unpack(row[1])), 1, true)
    end)
  end

  it("refuses a closed pool", function ()
    local pool <const> = parallel.pool { max = 1 }
    pool:close()
    assert.matches("the pool is closed", raised(pool.everywhere, pool,
                                                "return 1"), 1, true)
  end)

  it("stands many times in many pools, beside jobs that come and go",
     function ()
    for round = 1, 3 do
      local pool <close> = parallel.pool { min = 2, max = 4, max_tasks = 3,
                                           idle = 1e-4 }
      local jobs <const> = {}
      for i = 1, 40 do
        jobs[#jobs + 1] = pool:spawn "return n or 0"
        if i % 4 == 0 then
          local results, errors = pool:everywhere "n = (n or 0) + 1 return n"
          assert.same({}, errors)
          for _, n in pairs(results) do assert.equal(i // 4, n) end
        end
      end
      for i, job in ipairs(jobs) do
        local n <const> = job:get()
        assert.is_true(n >= (i - 1) // 4 and n <= 10, i .. ": " .. n)
      end
      assert.equal(10, (pool:run "return n"), round)
    end
  end)

  it("is in the manual as it runs", function ()
    local file <close> = assert(io.open(tree.source "doc/manual.md"))
    local text <const> = file:read "a":match "\n## everywhere\n(.-)\n## "
    local code <const> = text:match "\n\n(    local pool <close>.-)\n\n%S"
    local output <const> = run(code .. "\n    print(results[1], next(errors))")
    assert.equal("2\nLua 5.4\n1\tnil\n", output)
  end)
end)

if server ~= nil then
  describe("everywhere, per host", function ()
    local function open (hosts, more)
      local options <const> = { hosts = hosts, ssh = server.ssh,
                                runspace = tree.program() }
      for name, value in pairs(more or {}) do options[name] = value end
      return parallel.pool(options)
    end

    it("runs once for each host, and gives results by its name", function ()
      local pool <close> = open { "web1:2", "web2" }
      local marks <close> = new_counter()
      local results, errors = pool:everywhere {
        function (name)
          mark(name)
          return "there"
        end,
        arguments = { marks.path }, per = "host",
      }
      assert.same({ web1 = "there", web2 = "there" }, results)
      assert.same({}, errors)
      assert.equal(2, marks.count())
      local all <const> = pool:everywhere "return 1"
      assert.same({ 1, 1, 1 }, all)
    end)

    it("gives failures by the name of the host", function ()
      local pool <close> = open { "web1:2", "web2" }
      local results, errors = pool:everywhere { "error 'no luck'",
                                                per = "host" }
      assert.same({}, results)
      assert.matches("^'everywhere, web1': ", tostring(errors.web1))
      assert.equal("web2", errors.web2.key)
    end)

    it("does not run again in later runspaces of the host", function ()
      local pool <close> = open({ "web1" }, { max_tasks = 1 })
      local marks <close> = new_counter()
      pool:everywhere { mark, arguments = { marks.path }, per = "host" }
      for _ = 1, 2 do pool:run "return 1" end
      server:cut()
      assert.equal("well", (pool:run "return 'well'"))
      assert.equal(1, marks.count())
    end)

    it("runs at a host that is reached later", function ()
      local pool <close> = open({ "web1", "web2" }, { min = 1, max = 2 })
      local marks <close> = new_counter()
      local results <const> = pool:everywhere {
        mark, arguments = { marks.path }, per = "host" }
      assert.same({}, results)
      assert.equal(1, marks.count())
      local hosts <const> = {}
      local jobs <const> = {}
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      for i = 1, 2 do jobs[i] = pool:spawn(function () pass() end) end
      gate:await(2)
      gate:open()
      for i = 1, 2 do
        jobs[i]:get()
        hosts[jobs[i].host] = true
      end
      assert.same({ web1 = true, web2 = true }, hosts)
      assert.equal(2, marks.count())
    end)
  end)
end
