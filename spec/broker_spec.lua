-- SPDX-License-Identifier: MIT
--- Pools of a broker, and 'runspace --serve': what happens when a worker, a
--- caller, or the broker itself dies, and who may do what.  That verbs give
--- the same answers there is in process_spec.lua.

local gates <const> = require "support.gate"
local leaks <const> = require "support.leaks"
local parallel <const> = require "parallel"
local rabbitmq <const> = require "support.rabbitmq"
local serve <const> = require "support.serve"
local tree <const> = require "support.tree"

local absent <const> = serve.missing()
if absent then
  print("left out, since " .. absent .. ": all")
  return
end

local broker <const> = assert(rabbitmq.shared())
local nowhere <const> = "amqp://guest:hidden@127.0.0.1:1/"

--- A queue that no other test uses.
local count = 0
local function name ()
  count = count + 1
  return ("broker_spec %d %d"):format(count,
    io.open "/proc/self/stat":read "n")
end

local function open (queue, more)
  local options <const> = { broker = broker.url, queue = queue }
  for key, value in pairs(more or {}) do options[key] = value end
  return parallel.pool(options)
end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

local function write (path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

--- Files that are removed with the table.
local function files ()
  local all = {}
  return setmetatable({ new = function ()
    all[#all + 1] = os.tmpname()
    return all[#all]
  end }, { __close = function ()
    for _, path in ipairs(all) do os.remove(path) end
  end })
end

--- A file with a key.
local function key (made, text)
  local path <const> = made.new()
  os.execute("chmod 600 " .. path)
  write(path, text)
  return path
end

--- How often each number was written to the file, one in a line.
local function beginnings (path)
  local times <const> = {}
  for line in io.lines(path) do
    local n <const> = math.tointeger(tonumber(line))
    times[n] = (times[n] or 0) + 1
  end
  return times
end

describe("a call by a broker", function ()
  it("goes to any of the workers of the queue, and tells where it ran",
     function ()
    local queue <const> = name()
    local pool <close> = open(queue)
    local job <const> = pool:spawn(function (x) return x + 1 end, 1)
    local worker <close> = serve.start(broker.url, queue, "-j 1")
    assert.equal(2, job:get())
    assert.equal("string", type(job.host))
    assert.is_true(gates.eventually(function ()
      return pool:info().broker.servers == 1
    end))
    local told <const> = pool:info().broker
    assert.equal(queue, told.queue)
    assert.is_nil(told.url:find("guest:", 1, true))
    assert.is_true(worker:says("completed"))
  end)

  it("takes large functions, arguments and results", function ()
    local queue <const> = name()
    local _ <close> = serve.start(broker.url, queue)
    local pool <close> = open(queue)
    local large <const> = {}
    for i = 1, 3000 do large[i] = "value " .. i end
    local function last (text) return large[#large], text .. "!" end
    for _ = 1, 3 do
      local value, text = pool:run(last, ("x"):rep(300000))
      assert.equal("value 3000", value)
      assert.equal(300001, #text)
    end
    local long <const> = ("0123456789abcdef"):rep(1 << 20)
    assert.is_true(pool:run(function (s) return s end, long) == long)
  end)

  it("draws by its seed, and is kept in a journal", function ()
    local made <close> = files()
    local queue <const>, path <const> = name(), made.new()
    os.remove(path)
    local _ <close> = serve.start(broker.url, queue)
    local pool <close> = open(queue)
    local function draw (x) return x, math.random(0) end
    local function drawn (...)
      local texts <const> = {}
      for i, r in ipairs((...)) do
        texts[i] = ("%d %x %s"):format(r.result, r.results[2], r.journaled)
      end
      return table.concat(texts, ",")
    end
    local given <const> = { seed = 3, journal = path }
    local there <const> = drawn(pool:collect(parallel.range(30), draw, given))
    assert.equal(there, drawn(parallel.collect(parallel.range(30), draw,
                                               { seed = 3 })))
    assert.equal(there:gsub("nil", "true"),
                 drawn(pool:collect(parallel.range(30), draw, given)))
    assert.equal((pool:submit({ function () return math.random(0) end,
                                seed = 8 }):get()),
                 (parallel.submit({ function () return math.random(0) end,
                                    seed = 8 }):get()))
  end)

  it("of a higher priority is taken first", function ()
    local queue <const> = name()
    local pool <close> = open(queue, { max = 8 })
    local jobs <const> = {}
    for i, priority in ipairs { -10, 10, 0 } do
      jobs[i] = pool:submit { "return parallel.now()", priority = priority }
    end
    assert.is_true(gates.eventually(function ()
      return pool:info().broker.waiting == 3
    end))
    local _ <close> = serve.start(broker.url, queue, "-j 1")
    local times <const> = {}
    for i, job in ipairs(jobs) do times[i] = job:get() end
    assert.is_true(times[2] < times[3] and times[3] < times[1])
  end)

  it("is lost with its worker, told so, and does not run twice", function ()
    local made <close> = files()
    local queue <const>, path <const> = name(), made.new()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local pool <close> = open(queue)
    local first <const> = serve.start(broker.url, queue, "-j 1")
    local job <const> = pool:spawn(function ()
      local file <close> = io.open(path, "a")
      file:write("1\n")
      file:flush()
      pass()
    end)
    gate:await(1)
    local second <close> = serve.start(broker.url, queue, "-j 1")
    first:signal "KILL"
    assert.equal("lost", job:wait())
    assert.matches("is gone", job.error)
    gate:open()
    assert.equal("well", pool:run "return 'well'")
    assert.same({ 1 }, beginnings(path))
    assert.is_false(second:says("lost"))
    first:close()
  end)

  --- A queue whose only worker runs the first of five calls, which waits at
  --- the gate, and has all others.
  local function with_calls_ahead (gate, queue, pool)
    local pass <const> = gate.pass
    local jobs <const> = {}
    for i = 1, 5 do
      jobs[i] = pool:submit { function (n)
        if n == 1 then pass() end
        return n
      end, arguments = { i }, priority = i == 1 and 10 or 0 }
    end
    assert.is_true(gates.eventually(function ()
      return pool:info().broker.waiting == 5
    end))
    local worker <const> = serve.start(broker.url, queue, "-j 1")
    gate:await(1)
    assert.is_true(gates.eventually(function ()
      local info <const> = pool:info().broker
      return info.waiting == 0 and info.servers == 1
    end))
    return worker, jobs
  end

  it("that a worker has ahead goes to another one that is free", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pool <close> = open(queue, { max = 8 })
    local first <close>, jobs = with_calls_ahead(gate, queue, pool)
    local second <close> = serve.start(broker.url, queue, "-j 1")
    for i = 2, 5 do assert.equal(i, jobs[i]:get()) end
    gate:open()
    assert.equal(1, jobs[1]:get())
    assert.is_true(first:runs() and second:says("completed"))
  end)

  it("that a worker has ahead is not lost with it", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pool <close> = open(queue, { max = 8 })
    local first <const>, jobs <const> = with_calls_ahead(gate, queue, pool)
    first:signal "KILL"
    local second <close> = serve.start(broker.url, queue, "-j 1")
    assert.equal("lost", jobs[1]:wait())
    for i = 2, 5 do assert.equal(i, jobs[i]:get()) end
    assert.is_true(second:says("completed"))
    first:close()
  end)

  it("that a worker has ahead goes back when it ends", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pool <close> = open(queue, { max = 8 })
    local first <close>, jobs = with_calls_ahead(gate, queue, pool)
    first:signal "TERM"
    assert.is_true(gates.eventually(function ()
      return pool:info().broker.waiting == 4
    end))
    local second <close> = serve.start(broker.url, queue, "-j 1")
    for i = 2, 5 do assert.equal(i, jobs[i]:get()) end
    gate:open()
    assert.equal(1, jobs[1]:get())
    first:await_end()
    assert.is_true(second:says("completed"))
  end)

  it("is told as lost, too, where no worker is left", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local pool <close> = open(queue)
    local worker <const> = serve.start(broker.url, queue, "-j 1")
    local job <const> = pool:spawn(function () pass() end)
    gate:await(1)
    worker:signal "KILL"
    assert.equal("lost", job:wait())
    worker:close()
  end)

  it("runs again elsewhere with retry_on = 'lost'", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local pool <close> = open(queue)
    local first <const> = serve.start(broker.url, queue, "-j 1")
    local job <const> = pool:submit { function ()
      if parallel.task.attempt == 1 then pass() end
      return parallel.task.attempt
    end, retries = 1, retry_on = "lost" }
    gate:await(1)
    local second <close> = serve.start(broker.url, queue, "-j 1")
    first:signal "KILL"
    assert.equal(2, job:get())
    assert.is_true(second:says("completed"))
    first:close()
  end)

  it("is stopped when its caller dies, and what is queued is dropped",
     function ()
    local made <close> = files()
    local queue <const>, path <const> = name(), made.new()
    local gate <close> = gates.new()
    local worker <close> = serve.start(broker.url, queue, "-j 1")
    local script <const>, pid <const> = made.new(), made.new()
    write(script, ([[
      local pool = parallel.pool{broker = %q, queue = %q}
      local function work (bell, path)
        local file <close> = io.open(path, "a")
        file:write("1\n")
        file:flush()
        local ring <close> = io.open(bell, "w")
        ring:write("x")
        ring:flush()
        while true do parallel.task.sleep(1) end
      end
      for i = 1, 4 do pool:spawn(work, %q, %q) end
      parallel.task.sleep(1000)
    ]]):format(broker.url, queue, gate.bell, path))
    os.execute(("'%s' '%s' & echo $! >'%s'"):format(tree.program(), script,
                                                    pid))
    gate:await(1)
    os.execute(("kill -KILL $(cat '%s')"):format(pid))
    local pool <close> = open(queue)
    assert.equal("well", pool:run "return 'well'")
    assert.same({ 1 }, beginnings(path))
    assert.is_true(worker:says("cancelled"))
  end)

  it("survives the end of the broker", function ()
    local made <close> = files()
    local queue <const>, path <const> = name(), made.new()
    local own <close> = assert(rabbitmq.start())
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local first <close> = serve.start(own.url, queue, "-j 1")
    local second <close> = serve.start(own.url, queue, "-j 1")
    local pool <close> = parallel.pool { broker = own.url, queue = queue,
                                         max = 8 }
    local jobs <const> = {}
    local function work (i)
      local file <close> = io.open(path, "a")
      file:write(i, "\n")
      file:flush()
      if i <= 2 then pass() end
      return i
    end
    for i = 1, 8 do jobs[i] = pool:spawn(work, i) end
    gate:await(2)
    own:kill()
    assert.is_true(gates.eventually(function ()
      return pool:info().failure ~= nil
    end))
    own:run()
    gate:open()
    for i, job in ipairs(jobs) do assert.equal(i, job:get()) end
    assert.same({ 1, 1, 1, 1, 1, 1, 1, 1 }, beginnings(path))
    assert.is_nil(pool:info().failure)
    assert.is_true(first:runs() and second:runs())
  end)

  it("leaves no process, descriptor or thread behind", function ()
    local queue <const> = name()
    local worker <close> = serve.start(broker.url, queue)
    leaks.run(([[
      function round ()
        local pool <close> = parallel.pool{broker = %q, queue = %q}
        assert(pool:run(function (x) return x + 1 end, 1) == 2)
        pool:map({1, 2, 3}, function (x) return x end)
        local job = pool:spawn "while true do end"
        job:cancel()
        job:wait()
      end
    ]]):format(broker.url, queue))
    assert.is_true(worker:runs())
  end)
end)

describe("a storm over the workers of a queue", function ()
  --- Run jobs while one worker after the other is killed; and the broker, too,
  --- if it is 'own'.
  ---@param more table  options of the jobs
  ---@param own? table
  ---@return table states  how many jobs ended in which
  ---@return integer most  times that one job began
  local function storm (more, own)
    local url <const> = (own or broker).url
    local made <close> = files()
    local queue <const>, path <const> = name(), made.new()
    local workers <close> = setmetatable({}, { __close = function (all)
      for _, worker in ipairs(all) do worker:close() end
    end })
    for i = 1, 3 do workers[i] = serve.start(url, queue, "-j 2") end
    local jobs <const>, states <const> = {}, {}
    do
      local pool <close> = open(queue, { max = 16, broker = url })
      local n <const> = tree.sanitizers == "" and 300 or 80
      for i = 1, n do
        local options <const> = { function (number, log)
          local file <close> = io.open(log, "a")
          file:write(number, "\n")
          file:flush()
          local x = 0
          for k = 1, 200000 do x = x + k end
          return number
        end, arguments = { i, path } }
        for k, v in pairs(more) do options[k] = v end
        jobs[i] = pool:submit(options)
      end
      for i, job in ipairs(jobs) do
        if i % (n // 6) == 0 then
          local at <const> = i // (n // 6) % 3 + 1
          workers[at]:signal "KILL"
          workers[at]:close()
          workers[at] = serve.start(url, queue, "-j 2", true)
          if own and i // (n // 6) % 2 == 0 and i < n then
            own:kill()
            own:run()
          end
        end
        local state <const> = job:wait()
        states[state] = (states[state] or 0) + 1
        if state == "completed" then assert.equal(i, job:get()) end
      end
      states.all = n
    end
    local most = 0
    for _, times in pairs(beginnings(path)) do most = math.max(most, times) end
    return states, most
  end

  it("ends each job once, and runs none twice", function ()
    local states <const>, most <const> = storm {}
    assert.equal(states.all, (states.completed or 0) + (states.lost or 0))
    assert.equal(1, most)
  end)

  it("loses none that may run again", function ()
    local states <const> = storm { retries = 10, retry_on = "lost" }
    assert.equal(states.all, states.completed)
  end)

  it("ends each job once, though the broker is killed, too", function ()
    local own <close> = assert(rabbitmq.start())
    -- A job may run twice there: see the manual.
    local states <const> = storm({}, own)
    assert.equal(states.all, (states.completed or 0) + (states.lost or 0))
  end)
end)

describe("a key", function ()
  it("is needed on both sides, and the same", function ()
    local made <close> = files()
    local one <const> = key(made, "0123456789abcdef0123456789abcdef\n")
    local other <const> = key(made, "another key of the same length..\n")
    local queue <const>, free <const> = name(), name()
    local worker <close> = serve.start(broker.url, queue, "-j 1 --key " .. one)
    local careless <close> = serve.start(broker.url, free, "-j 1")
    local function try (where, with)
      local pool <close> = open(where, { key = with })
      local ok, value = pcall(pool.run, pool, "return 'ran'")
      return ok and value
          or tostring(value):match "refused the call: ([^\n]*)"
    end
    assert.equal("ran", try(queue, one))
    assert.equal("it is not signed by the worker's key (option 'key')",
                 try(queue, other))
    assert.equal("it is not signed by the worker's key (option 'key')",
                 try(queue, nil))
    assert.equal("it is signed, and the worker has no key (--key)",
                 try(free, one))
    assert.equal("ran", try(free, nil))
    assert.is_false(worker:says("no key is given"))
    assert.is_true(careless:says("no key is given (--key FILE): whoever can "
                                 .. "write to the queue runs code here"))
  end)

  it("has to be long, and nobody else's to read", function ()
    local made <close> = files()
    local short <const> = key(made, "short\n")
    local open_to_all <const> = key(made, "0123456789abcdef0123456789abcdef")
    os.execute("chmod 644 " .. open_to_all)
    for path, what in pairs {
      [short] = "has 5 bytes; 16 to 4096 are needed",
      [open_to_all] = "can be used by others than its owner: chmod 600 it",
      ["/no/such/key"] = "cannot be read: No such file or directory",
    } do
      assert.matches(what, raised(open, name(), { key = path }))
    end
  end)
end)

describe("a pool of a broker is refused", function ()
  local REFUSED <const> = {
    { { broker = nowhere },
      "amqp://guest@127.0.0.1:1/: no broker at 127.0.0.1:1: Connection" },
    { { broker = broker.url:gsub("guest@", "hidden@") },
      "the login failed: ACCESS_REFUSED" },
    { { broker = broker.url .. "nowhere" }, "vhost nowhere not found" },
    { { broker = "http://127.0.0.1/" },
      "a broker's URL begins with amqp:// or amqps://" },
    { { queue = false }, "'queue'" },
    { { queue = 5 }, "a queue is needed: give its name as 'queue'" },
    { { hosts = { "web1" } }, "leave one of them out" },
    { { command = { "true" } }, "leave one of them out" },
    { { runspace = "/bin/true" }, "leave one of them out" },
    { { isolation = "process" }, "leave one of them out" },
    { { isolation = "thread" }, "leave one of them out" },
  }
  for i, row in ipairs(REFUSED) do
    it(i .. ": " .. row[2], function ()
      local message <const> = raised(open, name(), row[1])
      assert.is_truthy(message:find(row[2], 1, true), message)
      assert.is_nil(message:find "hidden")
    end)
  end
end)

describe("runspace --serve", function ()
  local function ends (more, jobs)
    local queue <const> = name()
    local pool <close> = open(queue)
    local worker <close> = serve.start(broker.url, queue, more)
    for i = 1, jobs do assert.equal(i, pool:run("return ...", i)) end
    worker:await_end()
    return worker:told()
  end

  it("ends after one call with --once", function ()
    ends("-j 2 --once", 1)
  end)

  it("ends after so many calls with --max-jobs", function ()
    ends("-j 2 --max-jobs 3", 3)
  end)

  it("ends when no call has come, with --idle", function ()
    ends("-j 2 --idle 0.3", 1)
  end)

  it("ends after the call that runs at the first SIGTERM", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local pool <close> = open(queue)
    local worker <close> = serve.start(broker.url, queue, "-j 1")
    local job <const> = pool:spawn(function () pass() return "done" end)
    gate:await(1)
    worker:signal "TERM"
    assert.is_true(gates.eventually(function ()
      return worker:says("ending after the calls that run")
    end))
    gate:open()
    assert.equal("done", job:get())
    worker:await_end()
  end)

  it("ends at once at the second, and its call is lost", function ()
    local queue <const> = name()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local pool <close> = open(queue)
    local worker <close> = serve.start(broker.url, queue, "-j 1")
    local job <const> = pool:spawn(function () pass() end)
    gate:await(1)
    worker:signal "TERM"
    assert.is_true(gates.eventually(function ()
      return worker:says("ending after the calls that run")
    end))
    worker:signal "TERM"
    worker:await_end()
    assert.equal("lost", job:wait())
  end)

  it("connects when the broker is there at last", function ()
    local own <close> = assert(rabbitmq.start())
    own:stop()
    local worker <close> = serve.start(own.url, "late", "-j 1", true)
    assert.is_true(gates.eventually(function ()
      return worker:says("no broker at")
    end))
    own:run()
    assert.is_true(gates.eventually(function ()
      return worker:says(": connected")
    end))
  end)

  it("ends where the broker does not want it", function ()
    local url <const> = broker.url:gsub("guest@", "hidden@")
    local worker <close> = serve.start(url, name(), "-j 1", true)
    worker:await_end()
    assert.is_true(worker:says("ACCESS_REFUSED"))
    assert.is_false(worker:says("hidden"))
  end)

  for _, row in ipairs {
    { "", "the name of a queue is needed" },
    { "--queue q -j 0", "'-j' needs an integer from 1 to 4096, not '0'" },
    { "--queue q --idle x", "'--idle' needs a positive number of seconds" },
    { "--queue q --max-jobs 0", "'--max-jobs' needs a positive integer" },
    { "--queue q --frob 1", "unrecognized option '--frob'" },
    { "--queue", "an argument is missing behind '--queue'" },
    { "--queue q --key /no/such/key", "cannot be read" },
  } do
    it("refuses '" .. row[1] .. "'", function ()
      local pipe <const> = io.popen(("'%s' --serve %s %s 2>&1"):format(
        tree.program(), nowhere, row[1]))
      local text <const> = pipe:read "a"
      local _, _, status = pipe:close()
      assert.is_truthy(text:find(row[2], 1, true), text)
      assert.equal(1, status)
    end)
  end

  it("has the options that examples/runspace@.service gives it", function ()
    local words
    for line in io.lines(tree.source "examples/runspace@.service") do
      words = words or line:match "^ExecStart=%S+ (%-%-serve .*)$"
    end
    words = words:gsub("%${BROKER}", nowhere):gsub("%%i", "reports")
                 :gsub("%%d/key", "/no/such/key")
    local pipe <const> = io.popen(("'%s' %s 2>&1"):format(tree.program(),
                                                          words))
    assert.matches("^runspace: key '/no/such/key' cannot be read",
                   pipe:read "a")
    pipe:close()
  end)
end)
