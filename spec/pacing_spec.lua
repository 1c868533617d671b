-- SPDX-License-Identifier: MIT
--- When jobs and items may begin: delays between attempts, 'start_after',
--- 'rate', 'limit_by'; and what the first failure stops.
--
-- A delay of FAR is never over: what a test sees then does not depend on the
-- time that anything takes.

local gates <const> = require "support.gate"
local leaks <const> = require "support.leaks"
local parallel <const> = require "parallel"
local rabbitmq <const> = require "support.rabbitmq"
local run <const> = require "support.script"
local serve <const> = require "support.serve"
local tree <const> = require "support.tree"

local FAR <const> = 1e6

local KINDS <const> = { "thread", "process", "command" }
local WHERE <const> = {
  thread = { isolation = "thread" },
  process = { isolation = "process" },
  command = { command = { "sh", "-c", "exec " .. tree.program()
                                      .. " --worker" } },
}

local absent <const> = serve.missing()
if absent then
  print("left out, since " .. absent .. ": workers behind a broker")
else
  local broker <const> = assert(rabbitmq.shared())
  KINDS[#KINDS + 1] = "broker"
  WHERE.broker = { broker = broker.url, queue = "pacing_spec" }
  local worker <const> = serve.start(broker.url, "pacing_spec", "-j 2")
  teardown(function () worker:close() end)
end

local function open (kind, max, more)
  local options <const> = { max = max }
  for name, value in pairs(WHERE[kind]) do options[name] = value end
  for name, value in pairs(more or {}) do options[name] = value end
  return parallel.pool(options)
end

--- Fails in each attempt before the 'good' one, and returns that.
local function nth (good)
  local attempt <const> = parallel.task.attempt
  if attempt < good then error("attempt " .. attempt, 0) end
  return attempt
end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

--- Files in a directory of their own, which goes with the table.
local function folder ()
  local path <const> = os.tmpname()
  os.remove(path)
  assert(os.execute("mkdir " .. path))
  return setmetatable({ path = path }, {
    __close = function () os.execute("rm -r " .. path) end,
  })
end

local function states (records)
  local list <const> = {}
  for i, record in ipairs(records) do list[i] = record.state end
  return table.concat(list, " ")
end

for _, kind in ipairs(KINDS) do
  describe("a pool of kind " .. kind, function ()
    it("goes on while a job waits for its next attempt", function ()
      local pool <close> = open(kind, 1)
      local job <const> = pool:submit { nth, arguments = { 2 }, retries = 1,
                                        retry_delay = FAR }
      assert.equal("next", pool:run("return 'next'"))
      assert.equal("delayed", job.state)
      assert.equal(1, job.attempts)
      assert.equal(1, pool:info().delayed)
      assert.is_true(job:cancel())
      assert.equal("cancelled", job:wait())
      assert.equal(0, pool:info().delayed)
    end)

    it("goes on while items wait for their next attempts", function ()
      local pool <close> = open(kind, 1)
      local seen <const> = {}
      for record in pool:each(parallel.range(6), function (i)
        if i % 3 == 1 then error "again" end
        return i
      end, { retries = 1, retry_delay = FAR, chunk = 6 }) do
        seen[#seen + 1] = record.result
        if #seen == 4 then break end
      end
      table.sort(seen)
      assert.same({ 2, 3, 5, 6 }, seen)
    end)

    it("makes the attempts that it was asked for", function ()
      local pool <close> = open(kind, 2)
      local options <const> = { retries = 3, retry_delay = 0.002,
                                backoff = 1.5, max_delay = 0.003 }
      local job <const> = pool:submit {
        nth, arguments = { 4 }, retries = 3, retry_delay = 0.001,
      }
      assert.equal(4, job:get())
      assert.equal(4, job.attempts)
      local records <const> = pool:collect(parallel.range(12), function (i)
        return nth(1 + i % 6)
      end, options)
      for i, record in ipairs(records) do
        local wanted <const> = 1 + i % 6
        assert.equal(math.min(wanted, 4), record.attempts)
        assert.equal(wanted <= 4 and wanted or nil, record.result)
        assert.equal(i, record.index)
      end
      assert.same({ 1, 3, n = 2 }, pool:map({ 1, 3 }, nth, options))
    end)

    it("lets no more items begin than the rate has", function ()
      local pool <close> = open(kind, 2)
      local seen <const> = {}
      for record in pool:each(parallel.range(9), function (i) return i end,
                              { rate = { 3, per = FAR } }) do
        seen[#seen + 1] = record.result
        if #seen == 3 then
          assert.equal(0, pool:info().running)
          assert.equal("free", pool:run("return 'free'"))
          break
        end
      end
      table.sort(seen)
      assert.same({ 1, 2, 3 }, seen)
    end)

    it("lets the next items begin when the interval is over", function ()
      local pool <close> = open(kind, 2)
      local before <const> = parallel.now()
      assert.equal(10, #pool:map(parallel.range(10), function (i) return i end,
                                 { rate = { 3, per = 0.02 } }))
      assert.is_true(parallel.now() - before >= 3 * 0.02)
    end)

    it("lets items of other keys go on", function ()
      local pool <close> = open(kind, 2)
      local gate <close> = gates.new()
      local pass <const> = gate.pass
      local items <const> = {}
      for i = 1, 300 do items[i] = { host = "slow", i = i } end
      items[301] = { host = "quick", i = 301 }
      local first
      local opened = false
      for record in pool:each(items, function (item)
        if item.host == "slow" and item.i <= 2 then pass() end
        return item.i
      end, { limit_by = { key = "host", limit = 1 } }) do
        if not opened then
          first = record.result
          gate:open()
          opened = true
        end
      end
      assert.equal(301, first)
    end)
  end)
end

describe("a serial pool", function ()
  it("runs what waits when its time has come", function ()
    local late
    do
      local pool <close> = parallel.pool { isolation = "serial" }
      local job <const> = pool:submit { "return 5", start_after = 0.01 }
      assert.equal("delayed", job.state)
      assert.equal(5, job:get())
      assert.equal(3, pool:submit { nth, arguments = { 3 }, retries = 2,
                                    retry_delay = 0.002 }:get())
      assert.same({ 1, 2, 3, n = 3 }, pool:map({ 1, 2, 3 }, nth, {
        retries = 2, retry_delay = 0.002, rate = { 2, per = 0.002 },
        limit_by = { key = function (i) return i end, limit = 1 },
      }))
      late = pool:submit { "return 6", start_after = 0.02 }
    end
    assert.equal(6, late:get())
  end)
end)

describe("retry_delay", function ()
  it("waits half of itself at least", function ()
    local job <const> = parallel.submit { nth, arguments = { 2 }, retries = 1,
                                          retry_delay = 0.02 }
    assert.equal(2, job:get())
    assert.is_true(job.duration >= 0.01)
  end)

  it("grows by 'backoff'", function ()
    local job <const> = parallel.submit { nth, arguments = { 4 }, retries = 3,
                                          retry_delay = 0.004, backoff = 3 }
    assert.equal(4, job:get())
    assert.is_true(job.duration >= 0.5 * 0.004 * (1 + 3 + 9))
  end)

  it("grows to 'max_delay', not beyond", function ()
    assert.equal(9, parallel.submit {
      nth, arguments = { 9 }, retries = 8, retry_delay = 0.001, backoff = 1e50,
      max_delay = 0.001,
    }:get())
  end)

  it("ends with the deadline", function ()
    local job <const> = parallel.submit { nth, arguments = { 2 }, retries = 1,
                                          retry_delay = FAR, deadline = 0.05 }
    assert.equal("timed_out", job:wait())
    assert.equal("deadline", job.reason)
    local records <const> = parallel.collect({ 1, 2, 1 }, nth, {
      retries = 1, retry_delay = FAR, deadline = 0.2,
    })
    assert.equal("completed timed_out completed", states(records))
    assert.equal("deadline", records[2].reason)
  end)

  it("ends when another item stops the call", function ()
    local pool <close> = parallel.pool { max = 1 }
    local records <const> = pool:collect({ 2, 9, 2 }, function (i)
      if i == 9 then
        while true do tostring {} end
      end
      return nth(i)
    end, { retries = 1, retry_delay = FAR, timeout = 0.05, retry_on = "error",
           on_error = "stop", chunk = 1 })
    assert.equal("cancelled timed_out cancelled", states(records))
  end)

  it("ends with the pool", function ()
    local pool <const> = parallel.pool { max = 1 }
    local job <const> = pool:submit { nth, arguments = { 2 }, retries = 1,
                                      retry_delay = FAR }
    pool:run "return 1"
    pool:close(0)
    assert.equal("cancelled", job.state)
  end)

  it("is for what was lost with a process, too", function ()
    local pool <close> = parallel.pool { isolation = "process", max = 1 }
    local job <const> = pool:submit {
      function ()
        if parallel.task.attempt == 1 then os.exit(3, false) end
        return parallel.task.attempt
      end,
      retries = 1, retry_on = "lost", retry_delay = 0.001,
    }
    assert.equal(2, job:get())
    local function fatal (i)
      if i == 2 and parallel.task.attempt == 1 then
        os.execute("kill -9 " .. io.open "/proc/self/stat":read "n")
      end
      return parallel.task.attempt
    end
    local more <const> = { retries = 2, retry_on = "lost", chunk = 3,
                           retry_delay = 0.001 }
    local got <const> = pool:map({ 1, 2, 3 }, fatal, more)
    assert.equal(2, got[2])
    more.chunk, more.rate = nil, { 100, per = 0.001 }
    assert.equal(2, pool:map({ 1, 2, 3 }, fatal, more)[2])
  end)

  it("is for 'reduce' and 'invoke'", function ()
    assert.equal(10, parallel.reduce({ 1, 2, 3, 4 }, function (a, b)
      if parallel.task.attempt == 1 then error "again" end
      return a + b
    end, nil, { retries = 1, retry_delay = 0.001 }))
    assert.same({ a = 2, b = 3 }, (parallel.invoke(nth, {
      a = { 2 }, b = { 3 },
    }, { retries = 2, retry_delay = 0.001 })))
    local jobs <const> = parallel.invoke(nth, { a = { 2 } }, {
      retries = 2, retry_delay = 0.001, async = true,
    })
    assert.equal(2, jobs.a:get())
  end)

  it("is waited for by jobs that help", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(3, pool:run(function ()
      return parallel.submit { function ()
        local n <const> = parallel.task.attempt
        if n < 3 then error "again" end
        return n
      end, retries = 2, retry_delay = 0.002 }:get()
    end))
    assert.same({ 2, 3, n = 2 }, pool:run(function ()
      return parallel.map({ 2, 3 }, function (good)
        local n <const> = parallel.task.attempt
        if n < good then error "again" end
        return n
      end, { retries = 2, retry_delay = 0.002 })
    end))
  end)
end)

describe("start_after", function ()
  it("keeps a job that no worker sees", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job <const> = pool:submit { "return 5", start_after = FAR }
    assert.equal("delayed", job.state)
    assert.equal("now", pool:run "return 'now'")
    assert.equal("delayed", job.state)
    assert.equal(0, job.attempts)
    local info <const> = pool:info()
    assert.equal(1, info.queued)
    assert.equal(1, info.delayed)
    assert.is_nil(job:wait(0))
    pool:cancel()
    assert.equal("cancelled", job:wait())
  end)

  it("lets the job start after that", function ()
    local job <const> = parallel.submit { "return 5", start_after = 0.02 }
    assert.equal(5, job:get())
    assert.is_true(job.queued >= 0.02)
    assert.equal(6, parallel.submit { "return 6", start_after = 0 }:get())
  end)

  it("is waited for by the end of a pool's block", function ()
    local job
    do
      local pool <close> = parallel.pool { max = 3, idle = 0 }
      job = pool:submit { "return 5", start_after = 0.05 }
    end
    assert.equal("completed", job.state)
  end)

  it("is waited for by the end of the script", function ()
    assert.equal("later\n", (run [[
      local parallel = require "parallel"
      parallel.submit { function () print "later" end, start_after = 0.05 }
    ]]))
  end)

  it("does not keep a script that ends early", function ()
    local text <const>, status <const> = run [[
      local parallel = require "parallel"
      parallel.submit { function () print "later" end, start_after = 1e6 }
      error "early"
    ]]
    assert.is_truthy(text:find("1 job not run", 1, true), text)
    assert.equal(1, status)
  end)

  it("ends with the deadline", function ()
    local job <const> = parallel.submit { "return 5", start_after = FAR,
                                          deadline = FAR + 1 }
    assert.equal("delayed", job.state)
    job:cancel()
    local gone <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    gone:spawn(function () pass() end)
    gate:await(1)
    local late <const> = gone:submit { "return 5", start_after = 0.001,
                                       deadline = 0.03 }
    assert.equal("timed_out", late:wait())
    gate:open()
  end)

  it("is waited for by a job that helps, in a pool of one worker", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function of_waits ()
      local a = parallel.submit { "return 1", start_after = 0.003 }
      local b = parallel.submit { "return 2", start_after = 0.001 }
      local done, pending = parallel.wait { a, b }
      return #done, #pending, a:get() + b:get()
    end
    assert.same({ 2, 0, 3 }, { pool:run(of_waits) })
    assert.same({ 7 }, { pool:run(function ()
      return parallel.submit { "return 7", start_after = 0.002 }:get()
    end) })
  end)

  it("counts in a queue that is limited", function ()
    local pool <close> = parallel.pool { max = 1, queue = 2 }
    local first <const> = pool:submit { "return 1", start_after = FAR }
    local second <const> = pool:submit { "return 2", start_after = FAR }
    local third <const>, why <const> =
      pool:try_submit { "return 3", start_after = FAR }
    assert.is_nil(third)
    assert.equal("full", why)
    first:cancel()
    second:cancel()
    assert.equal(3, pool:try_submit { "return 3" }:get())
  end)

  it("is for a thousand jobs at a time", function ()
    local pool <close> = parallel.pool { max = 2 }
    local jobs <const> = {}
    for i = 1, 1000 do
      jobs[i] = pool:submit { "return ...", arguments = { i },
                              start_after = (i * 7919 % 1000) * 1e-5 }
    end
    for i = 1, 1000 do assert.equal(i, jobs[i]:get()) end
  end)

  it("is left alone by other jobs that end", function ()
    local pool <const> = parallel.pool { max = 2 }
    local job <const> = pool:submit { "return 1", start_after = FAR }
    for i = 1, 100 do assert.equal(i, pool:run("return ...", i)) end
    assert.equal("delayed", job.state)
    pool:close(0)
    assert.equal("cancelled", job.state)
  end)
end)

describe("a group", function ()
  it("has jobs that start later", function ()
    local late
    do
      local g <close> = parallel.group { retries = 1, retry_delay = 0.001 }
      late = g:submit { nth, arguments = { 2 }, start_after = 0.01 }
      assert.equal("delayed", late.state)
    end
    assert.equal(2, late:get())
  end)

  it("ends what is delayed with its first failure", function ()
    local late
    assert.matches("at once", raised(function ()
      local g <close> = parallel.group {}
      late = g:submit { "return 1", start_after = FAR }
      g:spawn(function () error "at once" end)
    end))
    assert.equal("cancelled", late.state)
  end)
end)

describe("on_error = 'cancel'", function ()
  --- The item 3 fails when the others stand at the gate, for ever.
  local function items (gate)
    local pass <const>, path <const> = gate.pass, os.tmpname()
    os.remove(path)
    return function (i)
      if i ~= 3 then return pass() end
      while io.open(path) == nil do parallel.task.sleep(0.001) end
      error("third", 0)
    end, path
  end

  for _, kind in ipairs { "thread", "process" } do
    it("stops what runs (" .. kind .. ")", function ()
      local pool <close> = open(kind, 3)
      local gate <close> = gates.new()
      local fn <const>, path <const> = items(gate)
      local job <const> = parallel.spawn(function (bell, at)
        local ring <close> = assert(io.open(bell))
        ring:read(2)
        io.open(at, "w"):close()
      end, gate.bell, path)
      local records <const> = pool:collect(parallel.range(9), fn,
                                           { on_error = "cancel", chunk = 1 })
      assert.equal("cancelled cancelled failed cancelled cancelled cancelled "
                   .. "cancelled cancelled cancelled", states(records))
      assert.equal(1, records[1].attempts)
      job:get()
      os.remove(path)
    end)
  end

  it("raises the failure in 'map', and tells it to 'each'", function ()
    local pool <close> = parallel.pool { max = 2 }
    local function fn (i)
      if i == 2 then error("second", 0) end
      parallel.task.sleep(1e6)
    end
    assert.matches("second", raised(pool.map, pool, { 1, 2 }, fn,
                                    { on_error = "cancel", chunk = 1 }))
    assert.matches("second", raised(pool.filter, pool, { 1, 2 }, fn,
                                    { on_error = "cancel", chunk = 1 }))
    local seen <const> = {}
    for record in pool:each({ 1, 2 }, fn,
                            { on_error = "cancel", chunk = 1 }) do
      seen[record.index] = record.state
    end
    assert.same({ "cancelled", "failed" }, seen)
  end)
end)

describe("rate", function ()
  it("counts the attempts of items", function ()
    local pool <close> = parallel.pool { max = 1 }
    local seen <const> = {}
    for record in pool:each({ 1, 2, 3 }, function (i)
      if i == 1 and parallel.task.attempt == 1 then error "again" end
      return i
    end, { rate = { 3, per = FAR }, retries = 1 }) do
      seen[#seen + 1] = record.result
      if #seen == 2 then break end
    end
    table.sort(seen)
    -- Whether the second attempt or the item 3 was the third to begin.
    assert.is_true(seen[2] == 2 or seen[2] == 3, seen[2])
  end)

  it("is for iterators, which are read on demand", function ()
    local n = 0
    for record in parallel.each(function () n = n + 1 return n end,
                                function (i) return i end,
                                { rate = { 5, per = FAR } }) do
      if record.index == 5 then break end
    end
    assert.is_true(n < 1000)
  end)

  it("is for 'invoke'", function ()
    local results <const> = parallel.invoke(nth, {
      a = { 1 }, b = { 1 }, c = { 2 },
    }, { rate = { 2, per = 0.002 }, retries = 1 })
    assert.same({ a = 1, b = 1, c = 2 }, results)
  end)

  it("ends with the deadline, and with a cancel", function ()
    local records <const> = parallel.collect(parallel.range(4), function (i)
      return i
    end, { rate = { 2, per = FAR }, deadline = 0.1 })
    assert.equal("completed completed timed_out timed_out", states(records))
    local pool <close> = parallel.pool { max = 1 }
    local job <const> = parallel.on("begun", function () pool:cancel() end)
    local list <const> = pool:collect(parallel.range(4), function (i)
      parallel.task.emit "begun"
      parallel.task.sleep(1e6)
      return i
    end, { rate = { 1, per = FAR } })
    parallel.off("begun", job)
    assert.equal("cancelled cancelled cancelled cancelled", states(list))
  end)

  it("holds in a call that a job makes, in a pool of one worker", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(10, #pool:run(function ()
      return parallel.map(parallel.range(10), function (i) return i end,
                          { rate = { 4, per = 0.002 } })
    end))
  end)
end)

describe("limit_by", function ()
  it("has no more items of a key at work", function ()
    local pool <close> = parallel.pool { max = 4 }
    local here <close> = folder()
    local path <const> = here.path
    local found <const> = pool:map(parallel.range(300), function (i)
      local lock <const> = path .. "/" .. i % 3
      local old <const> = io.open(lock)
      if old then old:close() end
      io.open(lock, "w"):close()
      os.remove(lock)
      return old ~= nil
    end, { limit_by = { key = function (i) return i % 3 end, limit = 1 } })
    for i = 1, 300 do assert.is_false(found[i]) end
  end)

  it("has as many at work as it says", function ()
    local pool <close> = parallel.pool { max = 4 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local most = 0
    local records <const> = {}
    for record in pool:each({ "a", "a", "a", "a", "b" }, function (key)
      if key == "a" then pass() end
      return key
    end, { limit_by = { key = function (key) return key end, limit = 2 } }) do
      records[#records + 1] = record.result
      if record.result == "b" then
        gate:await(2)
        most = pool:info().running
        gate:open()
      end
    end
    assert.equal(2, most)
    assert.equal("baaaa", table.concat(records))
  end)

  it("takes items whose key is nil as they are", function ()
    assert.same({ 1, 2, 3, n = 3 }, parallel.map({ 1, 2, 3 }, function (i)
      return i
    end, { limit_by = { key = function () end, limit = 1 } }))
  end)

  it("is for iterators of several values, and for 'invoke'", function ()
    local keys <const> = {}
    local n = 0
    parallel.map(function ()
      n = n + 1
      if n <= 5 then return n, "k" .. n % 2 end
    end, function (a, b) return b .. a end, {
      limit_by = { key = function (_, key)
        keys[#keys + 1] = key
        return key
      end, limit = 1 },
    })
    assert.equal("k1 k0 k1 k0 k1", table.concat(keys, " "))
    assert.same({ x = "h1", y = "h1" }, (parallel.invoke(function (host)
      return host
    end, { x = { host = "h1" }, y = { host = "h1" } },
    { limit_by = { key = "host", limit = 1 } })))
  end)

  it("goes with 'rate', 'retries' and 'retry_delay'", function ()
    local pool <close> = parallel.pool { max = 3 }
    local got <const> = pool:map(parallel.range(60), function (i)
      if parallel.task.attempt <= i % 3 then error "again" end
      return parallel.task.attempt
    end, { retries = 2, retry_delay = 0.001, rate = { 40, per = 0.002 },
           limit_by = { key = function (i) return i % 7 end, limit = 2 } })
    for i = 1, 60 do assert.equal(1 + i % 3, got[i]) end
  end)

  it("is for 'sh'", function ()
    local list <const> = parallel.sh("echo {n}", { { n = 1 }, { n = 2 } },
                                     { limit_by = { key = "n", limit = 1 },
                                       rate = { 1, per = 0.001 } })
    assert.equal("completed completed", states(list))
  end)

  it("goes with a journal", function ()
    local path <const> = os.tmpname()
    os.remove(path)
    local items <const> = {}
    for i = 1, 20 do items[i] = { host = i % 3, n = i } end
    local options <const> = { limit_by = { key = "host", limit = 1 },
                              journal = path, rate = { 50, per = 0.001 } }
    local function work (item)
      if item.n % 4 == 0 and io.open(item.path or "/no such file") == nil then
        error "not yet"
      end
      return item.n
    end
    local first <const> = parallel.collect(items, work, options)
    assert.equal("failed", first[4].state)
    assert.is_nil(first[5].journaled)
    local second <const> = parallel.collect(items, work, options)
    assert.equal("failed", second[4].state)
    assert.equal(5, second[5].result)
    assert.is_true(second[5].journaled)
    local n = 0
    local got <const> = parallel.map(function ()
      n = n + 1
      if n <= 9 then return n end
    end, function (i) return i end, {
      limit_by = { key = function (i) return i % 2 end, limit = 1 },
      journal = path .. ".map",
    })
    assert.equal("1 2 3 4 5 6 7 8 9", table.concat(got, " "))
    os.remove(path)
    os.remove(path .. ".map")
  end)

  it("ends with a loop that its function closes", function ()
    for _, items in ipairs { { 1, 2, 3, 4 }, parallel.range(4),
                             function (_, i) return (i or 0) + 1 end } do
      local handle, n = nil, 0
      local step <const>, state <const>, control <const>, closer <close> =
        parallel.each(items, function (i) return i end, {
          limit_by = { key = function (i)
            if i == 3 then handle:close() end
            return i
          end, limit = 1 },
        })
      handle = closer
      for _ in step, state, control do n = n + 1 end
      assert.is_true(n <= 3)
    end
  end)

  it("says which item has no key", function ()
    local function call (items, key)
      return raised(parallel.map, items, tostring, {
        limit_by = { key = key, limit = 1 },
      })
    end
    assert.matches("item 2 has no field 'host'", call({ { host = 1 }, {} },
                                                      "host"))
    assert.matches("item 1 has no field 'host': it is 'x'",
                   call({ "x" }, "host"))
    assert.matches("a string, a number or a boolean expected as the key of "
                   .. "item 1, got", call({ "x" }, function () return {} end))
  end)
end)

describe("options of pacing", function ()
  for _, row in ipairs {
    { { retry_delay = 1 }, "'retry_delay'.*give retries = 1" },
    { { backoff = 2, retries = 1 }, "'backoff'.*give 'retry_delay', too" },
    { { max_delay = 2, retries = 1 }, "'max_delay'.*give 'retry_delay', too" },
    { { retries = 1, retry_delay = 2, max_delay = 1 },
      "'max_delay'.*1 seconds are less than 'retry_delay', 2" },
    { { retries = 1, retry_delay = -1 }, "a number of seconds from 0 on" },
    { { retries = 1, retry_delay = math.huge }, "a number of seconds from 0" },
    { { retries = 1, retry_delay = 1, backoff = 0.5 }, "a number from 1 on" },
    { { rate = 5 }, "a table such as {10, per = 1} expected, got 5" },
    { { rate = { 0, per = 1 } }, "an integer from 1 to 1000000 in front" },
    { { rate = { 1 } }, "a positive number of seconds for 'per' expected" },
    { { rate = { 1, per = math.huge } }, "a positive number of seconds for" },
    { { rate = { 1, par = 1 } }, "got the key 'par'" },
    { { rate = { 1, per = 1 }, chunk = 2 }, "'chunk'.*with 'rate' each item" },
    { { limit_by = "host" }, "a table such as {key = \"host\", limit = 2}" },
    { { limit_by = { key = "host" } }, "for 'limit' expected, got nil" },
    { { limit_by = { key = 3, limit = 1 } }, "or a function for 'key'" },
    { { limit_by = { key = "a", limit = 1 }, chunk = 2 }, "with 'limit_by'" },
    { { start_after = 1 }, "unknown option 'start_after' to 'map'" },
    { { on_error = "cancel", max_failures = 2 }, "first failure stops" },
  } do
    it("refuse " .. row[2], function ()
      assert.matches(row[2], raised(parallel.map, { 1 }, nth, row[1]))
    end)
  end

  it("are refused where they mean nothing", function ()
    assert.matches("'start_after'.*the job could never start",
                   raised(parallel.submit, { "return 1", start_after = 2,
                                             deadline = 1 }))
    assert.matches("'rate' to 'reduce'.*leave it out",
                   raised(parallel.reduce, { 1 }, nth, nil,
                          { rate = { 1, per = 1 } }))
    assert.matches("'rate' to 'invoke'.*leave one of them out",
                   raised(parallel.invoke, nth, { a = { 1 } },
                          { rate = { 1, per = 1 }, async = true }))
  end)
end)

describe("what waits", function ()
  it("leaves nothing behind when it is dropped", function ()
    assert.matches("nothing is left\n$", leaks.run [[
      local FAR <const> = 1e6
      local function nth (good)
        if parallel.task.attempt < good then error "again" end
        return good
      end
      function round ()
        local pool <close> = parallel.pool { max = 2 }
        for _ = 1, 20 do
          pool:submit { nth, arguments = { 2 }, retries = 1,
                        retry_delay = FAR }:cancel()
          pool:submit { nth, arguments = { 1 }, start_after = FAR }:cancel()
          for _ in pool:each(parallel.range(50), nth, {
            rate = { 2, per = FAR }, retries = 1,
            limit_by = { key = function (i) return i end, limit = 1 },
          }) do break end
          pcall(pool.map, pool, { 2, 2, 5 }, function (i)
            if i == 5 then error "at once" end
            return i
          end, { limit_by = { key = function (i) return i end, limit = 1 },
                 on_error = "cancel" })
        end
        pool:submit { "return 1", start_after = FAR }
        pool:close(0)
      end
    ]])
  end)
end)
