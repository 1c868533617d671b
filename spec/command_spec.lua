-- SPDX-License-Identifier: MIT
--- Workers that a command brings up, and workers on other hosts, by ssh.
--- What all kinds of runners do alike is in process_spec.

local gates <const> = require "support.gate"
local leaks <const> = require "support.leaks"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local sshd <const> = require "support.sshd"
local tree <const> = require "support.tree"

local function read (command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

--- The program, found from any folder.
local RUNSPACE <const> = tree.program()
local WORKER <const> = "exec " .. RUNSPACE .. " --worker"

local PID <const> = "io.open '/proc/self/stat':read 'n'"
local SPIN <const> = tree.sanitizers == "thread"
  and "while true do tostring {} end" or "while true do end"

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

local function begin (pool, code)
  local begun = false
  local handler <const> = parallel.on("begun", function () begun = true end)
  local job <const> = pool:spawn("parallel.task.emit 'begun' " .. code)
  while not begun do parallel.poll(1) end
  parallel.off("begun", handler)
  return job
end

local function await_death (pid)
  return gates.eventually(function ()
    local file <close> = io.open("/proc/" .. pid .. "/stat")
    return file == nil or file:read "a":match "%) (%a)" == "Z"
  end)
end

--- Options of a pool whose workers a shell starts, which runs 'before' first.
local function shell (before, more)
  local options <const> = { command = { "sh", "-c", before .. WORKER },
                            max = 1 }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

describe("a pool behind a command", function ()
  it("runs what other pools run", function ()
    local pool <close> = parallel.pool(shell("", { max = 2 }))
    assert.same({ n = 3, 2, 4, 6 },
                pool:map({ 1, 2, 3 }, function (x) return 2 * x end))
    assert.not_equal(math.tointeger(read "echo $PPID"),
                     pool:run("return " .. PID))
  end)

  it("carries what pipes cannot hold, both ways", function ()
    local pool <close> = parallel.pool(shell "")
    local text <const> = ("0123456789abcdef"):rep(1 << 18)
    assert.equal(text, pool:run(function (s) return s end, text))
  end)

  it("is opened for one call", function ()
    assert.same({ n = 2, 1, 2 }, parallel.map({ 1, 2 }, "return ...", {
      command = shell "".command, limit = 2 }))
  end)

  it("skips what is printed before the greeting", function ()
    local pool <close> = parallel.pool(
      shell "echo Welcome; head -c 60000 /dev/zero; ")
    assert.equal("well", pool:run "return 'well'")
  end)

  it("shows standard error by lines, with the worker's name", function ()
    local output <const> = run(([[
      local parallel = require "parallel"
      do
        local p <close> = parallel.pool{max = 1, command = {
          "sh", "-c", "echo before >&2; exec %s --worker" }}
        p:run "os.execute [=[printf 'one\ntwo \\033[1m\n' >&2; echo three]=]"
        p:run "os.execute 'printf end >&2'"
      end
    ]]):format(RUNSPACE))
    assert.equal("sh 1: before\nsh 1: one\nsh 1: two ?[1m\nsh 1: three\n"
                 .. "sh 1: end\n", output)
  end)

  it("shows what comes at rest when it comes", function ()
    local dir <const> = read "mktemp -d"
    os.execute("mkfifo " .. dir .. "/gate")
    local script <close> = io.open(dir .. "/script", "w")
    -- The gate opens when the worker rests.
    script:write(([[
      local parallel = require "parallel"
      local p <close> = parallel.pool{max = 1, command = {
        "sh", "-c", "exec %s --worker" }}
      p:run "os.execute '(: < %s/gate; echo late >&2) &'"
      io.open("%s/gate", "w"):close()
      local late, told = parallel.now() + 60
      repeat
        local file <close> = io.open "%s/errors"
        told = file:read "a"
      until told ~= "" or parallel.now() > late
      print(told)
    ]]):format(RUNSPACE, dir, dir, dir))
    script:close()
    assert.equal("sh 1: late", read(("%s %s/script 2>%s/errors"):format(
      RUNSPACE, dir, dir)))
    os.execute("rm -r " .. dir)
  end)

  for _, row in ipairs {
    { "echo foo; no-such-program", "^sh 1: no runspace there: .*no%-such%-"
      .. "program: not found$" },
    { "echo one; echo two; exit 3", "^sh 1: no runspace there: one;two$" },
    { "printf 'a \\033[1mb\\n' >&2", "^sh 1: no runspace there: a %?%[1mb$" },
    { "exit 3", "^sh 1: no runspace there: the worker process exited with "
      .. "status 3$" },
    { "kill -9 $$", "^sh 1: no runspace there: the worker process was killed "
      .. "by SIGKILL$" },
    { "yes | head -c 200000; cat", "^sh 1: no runspace there: y;y" },
    { "printf '\\0\\177runspace\\177\\0and more than that'", "^sh 1: the "
      .. "worker process sent what it may not: a frame of type 97" },
  } do
    it("tells what came instead of a worker: " .. row[1], function ()
      local message <const> = raised(parallel.pool, {
        command = { "sh", "-c", row[1] } })
      assert.matches(row[2], (message:gsub("^[^ ]+:%d+: ", "")))
    end)
  end

  it("refuses a worker of another kind, with both versions", function ()
    -- HELLO of protocol 9, of a version "0.1"
    local hello <const> = ("\0\127runspace\127\0\9\3\0\0\15\0\0\0"
                           .. ("\0"):rep(8) .. "\9\9\5\4\8\8\8\1\3\0\0\0"
                           .. "0.1"):gsub(".", function (byte)
      return ("\\%03o"):format(byte:byte())
    end)
    local message <const> = raised(parallel.pool, {
      command = { "sh", "-c", "printf '" .. hello .. "'; cat" } })
    assert.matches("sh 1: the worker is runspace 0.1 (protocol 9", message, 1,
                   true)
    assert.matches("and this is runspace ", message, 1, true)
  end)

  it("is refused where the program does not exist", function ()
    assert.matches("cannot start 'no-such-program': No such file",
                   raised(parallel.pool, { command = { "no-such-program" } }),
                   1, true)
  end)

  it("raises what the initial state raises there", function ()
    assert.matches("sh 1: init: .*no luck", raised(parallel.pool, shell("", {
      init = "error 'no luck'" })))
  end)

  it("opens with the workers that come up, and warns", function ()
    local dir <const> = read "mktemp -d"
    local output <const> = run(([[
      warn "@on"
      local parallel = require "parallel"
      local p <close> = parallel.pool{min = 2, max = 2, command = { "sh", "-c",
        "mkdir %s/first 2>/dev/null || exit 9; exec %s --worker" }}
      print(p:run "return 'well'", p:info().workers)
      print((p:info().failure:gsub("%%d", "N")))
    ]]):format(dir, RUNSPACE))
    assert.matches("^Lua warning: parallel.pool: sh %d: no runspace there: "
                   .. "the worker process exited with status 9\nwell\t1\n"
                   .. "sh N: no runspace there: .* status 9\n$",
                   (output:gsub("status N", "status 9")))
    os.execute("rm -r " .. dir)
  end)

  it("starts a worker again that was there, and does not come up at once",
     function ()
    local dir <const> = read "mktemp -d"
    -- The second and the third start fail.
    local pool <close> = parallel.pool(shell(([[
      cd %s
      if mkdir first 2>/dev/null; then :
      elif mkdir second 2>/dev/null; then exit 1
      elif mkdir third 2>/dev/null; then exit 1
      fi
    ]]):format(dir)))
    assert.equal("lost", (pool:spawn("os.exit(2)"):wait()))
    assert.equal("well", pool:run "return 'well'")
    os.execute("rm -r " .. dir)
  end)

  it("loses a job with its worker, and says how", function ()
    local pool <close> = parallel.pool(shell "")
    local job <const> = pool:spawn "os.exit(3)"
    assert.equal("lost", (job:wait()))
    assert.equal("sh 1: the worker process exited with status 3", job.error)
    assert.matches("was lost: sh 1: the worker process exited",
                   raised(job.get, job))
  end)

  it("leaves nothing behind that does not listen to SIGTERM", function ()
    local pool <const> = parallel.pool {
      max = 1,
      command = { "sh", "-c", "trap '' TERM; " .. RUNSPACE .. " --worker; "
                              .. "sleep 1000" },
    }
    local shell_pid <const> = pool:run(
      "return tonumber(io.open '/proc/self/stat':read 'a':match '%d+', 10), "
      .. "select(2, io.open '/proc/self/stat':read('n', 'l')):match "
      .. "'%) %a (%d+)'")
    pool:close()
    assert.is_truthy(await_death(shell_pid))
  end)

  for _, row in ipairs {
    { { command = "sh" }, "bad option 'command' to 'pool' (an array of words "
      .. "expected, got 'sh')" },
    { { command = {} }, "(an array of words expected, got an empty table)" },
    { { command = { "sh", 5 } }, "(an array of words expected, got one with "
      .. "5)" },
    { { command = { "sh", x = "y" } }, "got a table with the key 'x')" },
    { { hosts = "web1" }, "bad option 'hosts' to 'pool' (an array of names of "
      .. "hosts expected, got 'web1')" },
    { { hosts = { "-oProxyCommand=x" } }, "hosts has '-oProxyCommand=x', "
      .. "which is no host" },
    { { hosts = { "web1:0" } }, "hosts has 'web1:0', which is no host" },
    { { hosts = { "web1 x" } }, "hosts has 'web1 x', which is no host" },
    { { hosts = { "web1:2" }, max = 3 }, "max (3) is more than the 2 workers "
      .. "that hosts has" },
    { { hosts = { "web1" }, command = { "sh" } }, "bad option 'command' to "
      .. "'pool' ('hosts' are reached by ssh" },
    { { hosts = { "web1" }, isolation = "thread" }, "bad option 'hosts' to "
      .. "'pool' (its workers are processes, and isolation = \"thread\"" },
    { { command = { "sh" }, isolation = "thread" }, "bad option 'command' to "
      .. "'pool' (its workers are processes" },
    { { ssh = { "ssh" } }, "bad option 'ssh' to 'pool' (it is what reaches "
      .. "hosts: give 'hosts', too)" },
    { { command = { "sh" }, runspace = "x" }, "bad option 'runspace' to "
      .. "'pool' (the words of 'command' name the program: leave it out)" },
  } do
    it("is refused: " .. row[2], function ()
      assert.matches(row[2], raised(parallel.pool, row[1]), 1, true)
    end)
  end

  it("is not for a sandbox that forbids programs", function ()
    for _, option in ipairs { "command", "hosts" } do
      assert.matches(option .. " starts programs, which the sandbox of this "
                     .. "runspace forbids",
                     parallel.map({ option }, function (name)
        return tostring(select(2, pcall(parallel.pool,
                                        { [name] = { "true" } })))
      end, { sandbox = {} })[1], 1, true)
    end
  end)

  it("leaves no process, descriptor or thread behind", function ()
    local output <const> = leaks.run(([[
      local command = {"sh", "-c", "echo x >&2; exec %s --worker"}
      function round ()
        local p <close> = parallel.pool{command = command, max = 3}
        p:map(parallel.range(1, 30), "return ...", {chunk = 1})
        pcall(p.run, p, "os.exit(1)")
        pcall(parallel.pool, {command = {"false"}})
        pcall(parallel.pool, {command = {"no-such-program"}})
        local job = p:spawn "while true do end"
        job:cancel()
        job:wait()
      end
    ]]):format(RUNSPACE))
    assert.equal("nothing is left\n", output:match "[^\n]*\n$")
  end)
end)

local server <const>, why <const> = sshd.start()

if server == nil then
  print("left out, since " .. why .. ": pools on hosts")
  return
end
teardown(function () server:close() end)

--- Options of a pool on hosts of the private server.
local function on (hosts, more)
  local options <const> = { hosts = hosts, ssh = server.ssh,
                            runspace = RUNSPACE }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

describe("a pool on hosts", function ()
  it("has as many workers as the hosts name", function ()
    local pool <close> = parallel.pool(on { "web1", "web2:2" })
    local info <const> = pool:info()
    assert.same({ 3, 3, 3 }, { info.min, info.max, info.workers })
    assert.equal("well", pool:run "return 'well'")
    assert.is_string(pool:run "return os.getenv 'SSH_CONNECTION'")
    local job <const> = pool:spawn "return 1"
    job:wait()
    assert.matches("^web[12]$", job.host)
    assert.equal(job.host, job:info().host)
    assert.matches("^web[12]$", pool:collect({ 1 }, "return 1")[1].host)
    local _, n <const> = server:connections():gsub("%d+", "")
    assert.equal(3, n)
  end)

  it("spreads workers over hosts", function ()
    local log <const> = os.tmpname()
    local pool <close> = parallel.pool(on({ "web1", "web2", "web3:2" }, {
      max = 6,
      ssh = { "sh", "-c", ("echo \"$@\" >>%s; exec %s \"$@\""):format(
        log, table.concat(server.ssh, " ")), "ssh" },
    }))
    local info <const> = pool:info()
    assert.equal(6, info.workers)
    assert.same({ { name = "web1", workers = 2, max = 6 },
                  { name = "web2", workers = 2, max = 6 },
                  { name = "web3", workers = 2, max = 2 } }, info.hosts)
    local counts <const> = {}
    for line in io.lines(log) do
      local name <const> = line:match "(%S+) '?/"
      counts[name] = (counts[name] or 0) + 1
      assert.matches("-oBatchMode=yes", line, 1, true)
    end
    assert.same({ web1 = 2, web2 = 2, web3 = 2 }, counts)
    os.remove(log)
  end)

  it("skips what the login prints", function ()
    local pool <close> = parallel.pool(on { "noisy" })
    assert.equal("well", pool:run "return 'well'")
  end)

  for _, row in ipairs {
    { "refused", "refused: no connection: .*Permission denied" },
    { "unknown", "unknown: no connection: Host key verification failed" },
    { "closed", "closed: no connection: .*Connection refused" },
  } do
    it("is refused by name: " .. row[1], function ()
      assert.matches(row[2], raised(parallel.pool, on { row[1] }))
    end)
  end

  it("is refused where no such host is known", function ()
    assert.matches("host.invalid: no connection: .*resolve",
                   raised(parallel.pool, { hosts = { sshd.nowhere } }))
  end)

  it("is refused where there is no runspace", function ()
    assert.matches("web1: no runspace there: .*no%-such%-program: .*not found",
                   raised(parallel.pool, on({ "web1" }, {
      runspace = "no-such-program" })))
    assert.matches("web1: no runspace there: .*/no such/it's: No such file",
                   raised(parallel.pool, on({ "web1" }, {
      runspace = "/no such/it's" })))
  end)

  it("tells all hosts where none can be reached", function ()
    local message <const> = raised(parallel.pool, on { "closed", "refused" })
    assert.matches("closed: no connection: ", message, 1, true)
    assert.matches("; refused: no connection: ", message, 1, true)
  end)

  it("opens with the hosts that can be reached, and tells", function ()
    local pool <close> = parallel.pool(on { "closed", "web1" })
    assert.equal("well", pool:run "return 'well'")
    local info <const> = pool:info()
    assert.equal(1, info.workers)
    assert.matches("^closed: no connection: ", info.failure)
    assert.equal(info.failure, info.hosts[1].failure)
    assert.same({ name = "web1", workers = 1, max = 1 }, info.hosts[2])
  end)

  it("loses jobs whose connection is cut, and goes on", function ()
    local pool <close> = parallel.pool(on { "web1" })
    local pid <const> = pool:run("return " .. PID)
    local job <const> = begin(pool, SPIN)
    server:cut()
    assert.equal("lost", (job:wait()))
    assert.equal("web1: connection closed", job.error)
    assert.equal("web1", job.host)
    assert.matches("was lost: web1: connection closed", raised(job.get, job))
    assert.is_truthy(await_death(pid))
    assert.equal("well", pool:run "return 'well'")
  end)

  it("waits for a host that comes back", function ()
    local pool <close> = parallel.pool(on { "web1" })
    local job <const> = begin(pool, SPIN)
    server:stop()
    server:restart()
    job:cancel()
    job:wait()
    assert.equal("well", pool:run "return 'well'")
  end)

  it("stops what only force could end", function ()
    local pool <close> = parallel.pool(on { "web1" })
    local pid <const> = pool:run("return " .. PID)
    local job <const> = begin(pool, SPIN)
    os.execute("kill -STOP " .. pid)
    job:cancel { grace = 0 }
    assert.equal("lost", (job:wait()))
    os.execute("kill -CONT " .. pid)
    assert.is_truthy(await_death(pid))
    assert.equal("well", pool:run "return 'well'")
  end)

  it("comes up where the server takes few at a time", function ()
    local few <close> = assert(sshd.start "3:100:3")
    local pool <close> = parallel.pool {
      hosts = { "web1:6" }, ssh = few.ssh, runspace = RUNSPACE
    }
    assert.equal(6, pool:info().workers)
  end)

  it("is compared with other ways", function ()
    local function look (x)
      assert((os.getenv "SSH_CONNECTION" ~= nil) == x)
    end
    local result <const> = parallel.compare(on({ "web1:2" }, {
      fn = look, items = { true, true }, isolation = { "host" } }))
    assert.equal("host", result.fastest.isolation)
    assert.same({ "none", "runspace", "job", "fresh", "host" }, (function ()
      local words <const> = {}
      for i, row in ipairs(parallel.compare(on({ "web1" }, {
        fn = "return ...", items = { 1 } }))) do
        words[i] = row.isolation
      end
      return words
    end)())
  end)

  it("ends its workers when it is closed", function ()
    local pool <const> = parallel.pool(on { "web1:2" })
    local pid <const> = pool:run("return " .. PID)
    pool:close()
    assert.is_truthy(await_death(pid))
    assert.is_truthy(gates.eventually(function ()
      return not server:connections():find "%d"
    end))
  end)
end)
