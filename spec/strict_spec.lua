-- SPDX-License-Identifier: MIT
--- The wall of sandbox = "strict": what gets through, and attacks that do not.

local attacks <const> = require "support.attack"
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

local function read (command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

local function write (path, text)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

--- Why the wall cannot be built here; nil: it can be.
local WITHOUT <const> = read "command -v bwrap" == ""
  and "bwrap is not installed: package bubblewrap"
  or not os.execute("bwrap --unshare-user --unshare-pid --unshare-net "
                    .. "--ro-bind / / --proc /proc true 2>/dev/null")
  and "this machine lets no user make namespaces" or nil
local HERE <const> = WITHOUT == nil and it or function () end
if WITHOUT ~= nil then
  print("left out, since " .. WITHOUT .. ": what is inside of the wall")
end

local IS_ROOT <const> = read "id -u" == "0"
local SPIN <const> = tree.sanitizers == "thread"
  and "while true do tostring {} end" or "while true do end"

--- Options of a pool of one child, and more.
local function strict (more)
  local options <const> = { isolation = "process", sandbox = "strict",
                            max = 1 }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

--- A directory that the test has for itself.
local function folder ()
  local dir <const> = read "mktemp -d"
  return setmetatable({ path = dir }, {
    __close = function () os.execute("rm -rf " .. dir) end,
  })
end

local attack <const> = attacks.build()
teardown(function () attack:__close() end)

--- Options of a pool that has the module 'attack'.
local function armed (more)
  local options <const> = strict { cpath = attack.cpath,
                                   readable = { attack.dir } }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

--- Errors of calls of the system that would lead out, each in Lua.
local CALLS <const> = {
  { "'clone', 17", "EPERM" },  -- SIGCHLD: as fork(2)
  { "'clone', 0x10000000 | 17", "EPERM" },
  { "'clone', 0x10000000 | 0x10f00", "EPERM" },
  { "'clone3', ('\\0'):rep(64), 64", "ENOSYS" },
  { "'execve', '/usr/bin/true', nil, nil", "EPERM" },
  { "'unshare', 0x10000000", "EPERM" },
  { "'setns', 0, 0", "EPERM" },
  { "'ptrace', 16, 1", "EPERM" },
  { "'process_vm_readv', 1", "EPERM" },
  { "'socket', 1, 1, 0", "EPERM" },   -- AF_UNIX
  { "'socket', 2, 1, 0", "EPERM" },   -- AF_INET
  { "'socket', 16, 3, 0", "EPERM" },  -- AF_NETLINK
  { "'socket', 40, 1, 0", "EPERM" },  -- AF_VSOCK
  { "'io_uring_setup', 1, ('\\0'):rep(256)", "EPERM" },
  { "'mount', 'none', '/tmp', 'tmpfs', 0, nil", "EPERM" },
  { "'chroot', '/usr'", "EPERM" },
  { "'bpf', 0, nil, 0", "EPERM" },
  { "'perf_event_open', nil, 0, -1, -1, 0", "EPERM" },
  { "'userfaultfd', 0", "EPERM" },
  { "'keyctl', 0, -3, 0", "EPERM" },
  { "'add_key', 'user', 'x', 'x', 1, -3", "EPERM" },
  { "'setuid', 12345", "EINVAL" },  -- nobody else is inside
  { "'openat2', -100, '/', nil, 0", "ENOSYS" },
}

--- What Lua code and modules of the distribution try, and what they are told.
local TRIES <const> = {
  { "os.execute 'true'", "Operation not permitted" },
  { "io.popen 'true'", "Operation not permitted" },
  { "require 'parallel'.task.execute { 'true' }", "not permitted" },
  { "require 'socket'.connect('127.0.0.1', PORT)", "not permitted" },
  { "require 'luv'.new_tcp 'inet'", "EPERM" },
  { "io.open '/etc/passwd'", "No such file" },
  { "io.open '/etc/shadow'", "No such file" },
  { "io.open 'HOME/secret'", "No such file" },
  { "io.open '/proc/PID/environ'", "No such file" },
  { "io.open '/proc/1/root/etc/passwd'", "" },
  { "io.open('/proc/sys/kernel/core_pattern', 'w')", "" },
  { "io.open('/proc/self/oom_score_adj', 'w')", "Read%-only" },
  { "io.open('/tmp/out', 'w')", " file" },  -- none, or read-only
  { "io.open('/out', 'w')", "Read%-only" },
  { "io.open('/dev/shm/out', 'w')", "Read%-only" },
  { "io.open('/usr/out', 'w')", "Read%-only" },
  { "io.open '/dev/mem'", "No such file" },
  { "io.open '/dev/sda'", "No such file" },
  { "io.open '/sys/kernel/notes'", "No such file" },
}

describe("sandbox = 'strict'", function ()
  HERE("runs what other processes run", function ()
    local pool <close> = parallel.pool(strict { max = 2 })
    assert.same({ n = 3, 2, 4, 6 },
                pool:map({ 1, 2, 3 }, function (x) return 2 * x end))
    local seen = 0
    for record in pool:each(parallel.range(100), "return ...") do
      seen = seen + record.result
    end
    assert.equal(5050, seen)
    assert.same({ n = 2, 10, 20 }, pool:run(function ()
      return parallel.map({ 1, 2 }, function (x) return x * 10 end)
    end))
    assert.is_true(pool:run "return require 'cjson' ~= nil")
    assert.same({ n = 1, true }, parallel.map({ 1 }, "return true", {
      isolation = "process", sandbox = "strict" }))
  end)

  HERE("lets files through that are named", function ()
    local outside <close> = folder()
    local data <const>, out <const> = outside.path .. "/data",
                                      outside.path .. "/out"
    os.execute(("mkdir %s %s %s/fixed; ln -s data %s/link"):format(
      data, out, out, outside.path))
    write(data .. "/x", "read me")
    write(outside.path .. "/secret", "keep out")
    write(out .. "/fixed/x", "fixed")
    local link <const> = outside.path .. "/link"
    local pool <close> = parallel.pool(strict {
      readable = { data .. "/", link, out .. "/fixed", "spec/support" },
      writable = { out }, cwd = data,
    })
    local function open (path, mode)
      return pool:run(function ()
        local file <close>, why = io.open(path, mode)
        if mode == "w" and file then assert(file:write "written") end
        return why or mode == "w" or file:read "a"
      end)
    end
    assert.equal("read me", open("x", "r"))
    assert.equal("read me", open(data .. "/x", "r"))
    assert.equal("read me", open(link .. "/x", "r"))
    assert.matches("Read%-only", open(data .. "/x", "w"))
    assert.matches("Read%-only", open(data .. "/y", "w"))
    assert.matches("No such file", open(outside.path .. "/secret", "r"))
    assert.matches("No such file", open(data .. "/../secret", "r"))
    assert.is_true(open(out .. "/y", "w"))
    assert.equal("written", read("cat " .. out .. "/y"))
    assert.equal("fixed", open(out .. "/fixed/x", "r"))
    assert.matches("Read%-only", open(out .. "/fixed/x", "w"))
    assert.not_nil(open(read "pwd" .. "/spec/support/tree.lua", "r"))
  end)

  for _, path in ipairs { "/", "/etc", "/usr", "/lib" } do
    HERE("lets through what holds the system, too: " .. path, function ()
      local pool <close> = parallel.pool(strict { readable = { path } })
      assert.equal(path == "/" or path == "/etc",
                   pool:run "return io.open '/etc/passwd' ~= nil")
      assert.is_nil(pool:run("return io.open('/etc/x', 'w')"))
      assert.is_true(pool:run "return io.open '/proc/self/stat' ~= nil")
      assert.is_nil(pool:run(("return io.open '/proc/%d/stat'"):format(
        io.open "/proc/self/stat":read "n")))
    end)
  end

  HERE("lets no device through", function ()
    assert.matches("readable: '/dev/tty' is a device, and devices do not pass",
                   raised(parallel.pool, strict { readable = { "/dev/tty" } }),
                   1, true)
  end)

  HERE("follows no link out of what may be written", function ()
    local outside <close> = folder()
    local home <close> = folder()
    write(home.path .. "/secret", "keep out")
    local pool <close> = parallel.pool(armed { writable = { outside.path } })
    assert.equal("No such file or directory", pool:run(([[
      require "attack".call("symlinkat", "%s/secret", -100, "%s/link")
      return (select(2, io.open "%s/link"):gsub("^.*: ", ""))]]):format(
        home.path, outside.path, outside.path)))
    assert.equal("", read("ls " .. home.path .. " | grep -v secret"))
  end)

  HERE("has the variables of 'env' alone", function ()
    local pool <close> = parallel.pool(strict { env = { A = "b", N = 5 } })
    assert.same({ "b", "5", "nil", "nil" }, { pool:run [[
      return os.getenv "A", os.getenv "N", tostring(os.getenv "HOME"),
             tostring(os.getenv "PATH")]] })
    assert.is_true(pool:run [[
      for _, pid in ipairs { "self", "1" } do
        local file <close> = io.open("/proc/" .. pid .. "/environ")
        local text <const> = file and file:read "a" or ""
        if text:gsub("ASAN_OPTIONS=[^%z]*%z", ""):find "[A-Z]+=" ~= 1
           or text:find "HOME" then
          return text
        end
      end
      return true]])
  end)

  for _, row in ipairs(TRIES) do
    HERE("refuses " .. row[1], function ()
      local home <close> = folder()
      write(home.path .. "/secret", "keep out")
      local socket <const> = require "socket"
      local server <close> = setmetatable({ assert(socket.bind("127.0.0.1",
                                                               0)) },
        { __close = function (self) self[1]:close() end })
      local _, port <const> = server[1]:getsockname()
      local pool <close> = parallel.pool(strict())
      local code <const> = row[1]:gsub("%u%u%u%u?", {
        PORT = tostring(port), HOME = home.path,
        PID = tostring(io.open "/proc/self/stat":read "n"),
      })
      local got <const>, why <const> = pool:run(([[
        local ok, got, why, code = pcall(function () return %s end)
        if not ok then return nil, tostring(got) end
        if got then return type(got) end
        return nil, tostring(why) .. " " .. tostring(code)]]):format(code))
      assert.equal(nil, got)
      assert.matches(row[2], why)
    end)
  end

  HERE("keeps a C module in, which calls the system", function ()
    local pool <close> = parallel.pool(armed())
    for _, row in ipairs(CALLS) do
      local code <const> = ("return require 'attack'.call(%s)"):format(row[1])
      assert.same({ row[1], -1, row[2] }, { row[1], pool:run(code) })
    end
  end)

  HERE("lets nobody change modes of what is not inside", function ()
    local outside <close> = folder()
    local pool <close> = parallel.pool(armed { writable = { outside.path } })
    local function modes (path, mode)
      return select(2, pool:run(([[
        return require "attack".call("fchmodat", -100, "%s", %d)]]):format(
          path, mode)))
    end
    local before <const> = read "stat -c %a /dev/null"
    assert.not_equal("", modes("/dev/null", 0))
    assert.equal(before, read "stat -c %a /dev/null")
    -- A program that runs as its owner would be there for all users.
    assert.same({ -1, "EPERM" }, { pool:run(([[
      return require "attack".call("openat", -100, "%s/x", 65, 2541)]]):format(
        outside.path)) })
    write(outside.path .. "/mine", "")
    assert.equal("EPERM", modes(outside.path .. "/mine", 2541))
    assert.equal(IS_ROOT and "EPERM" or "", modes(outside.path .. "/mine",
                                                  448))
  end)

  HERE("shows no process and no descriptor of others", function ()
    local secret <const> = os.tmpname()
    write(secret, "keep out")
    local path <const> = os.tmpname()
    write(path, ([[
      local parallel = require "parallel"
      local p <close> = parallel.pool { isolation = "process",
        sandbox = "strict", cpath = %q, readable = { %q }, max = 1 }
      print(p:run(function ()
        local attack = require "attack"
        return table.concat(attack.list "/proc", " "), ";",
               table.concat(attack.list "/proc/self/fd", " ")
      end))]]):format(attack.cpath, attack.dir))
    -- Descriptor 9 is not closed by exec, as those of many C libraries.
    local output <const> = read(("%s %s 9<%s"):format(tree.runspace, path,
                                                      secret))
    os.remove(path)
    os.remove(secret)
    local proc <const>, fds <const> = output:match "^(.-)\t;\t(.*)$"
    assert.is_truthy(fds, output)
    local pids <const> = {}
    for name in proc:gmatch "%S+" do
      if name:find "^%d+$" then pids[name] = true end
    end
    assert.same({ ["1"] = true, ["2"] = true }, pids)  -- bwrap, the worker
    assert.is_nil(fds:find(secret, 1, true), fds)
    for target in fds:gmatch "%S+" do
      assert.is_truthy(target:find "^/dev/null$" or target:find "^/proc/"
                       or target:find "^socket:" or target:find "^pipe:"
                       or target:find "^anon_inode:" or target:find "^/memfd:",
                       fds)
    end
  end)

  HERE("shows what is written to standard error, by lines", function ()
    local output <const> = run [[
      local parallel = require "parallel"
      local p <close> = parallel.pool { isolation = "process",
                                        sandbox = "strict", max = 1 }
      p:run "io.open('/proc/self/fd/2', 'a'):write 'from C\\n'"
      print "printed"
      p:run "print 'by the job'"
    ]]
    assert.matches("worker 1: from C\n", output, 1, true)
    assert.matches("\nby the job\n", output, 1, true)
  end)

  HERE("bounds time of CPU, and memory", function ()
    local pool <close> = parallel.pool(armed { memory = "32M",
                                               cpu_time = 0.2 })
    local job <const> = pool:spawn(SPIN)
    assert.equal("lost", job:wait())
    assert.equal("the worker process used more than 0.2 s of CPU", job.error)
    if tree.sanitizers == "" then
      assert.is_false(pool:run "return require 'attack'.take(1 << 30)")
    end
    assert.equal("well", pool:run "return 'well'")
  end)

  for _, row in ipairs {
    { "os.exit(3)", "exited with status 3" },
    { "require 'attack'.crash()", "was killed by SIGSEGV" },
  } do
    HERE("tells how it " .. row[2], function ()
      local pool <close> = parallel.pool(armed())
      local job <const> = pool:spawn(row[1])
      assert.equal("lost", job:wait())
      assert.equal("the worker process " .. row[2], job.error)
      assert.equal("well", pool:run "return 'well'")
    end)
  end

  HERE("ends what digs in: with its job, its pool, its program", function ()
    local output <const> = run(([[
      local parallel = require "parallel"
      local function pids (pid, all)
        local pipe = io.popen("cat /proc/" .. pid .. "/task/*/children")
        for child in pipe:read "a":gmatch "%%d+" do
          all[#all + 1] = child
          pids(child, all)
        end
        pipe:close()
        return all
      end
      local me = io.open "/proc/self/stat":read "n"
      local dir = %q
      local function begin ()
        local p = parallel.pool { isolation = "process", sandbox = "strict",
          cpath = dir .. "/?.so", writable = { dir }, max = 1 }
        local path = dir .. "/dug"
        os.remove(path)
        local job = p:spawn("require 'attack'.dig_in '" .. path .. "'")
        local file
        repeat
          os.execute "sleep 0.01"
          file = io.open(path)
        until file
        file:close()
        for _, pid in ipairs(pids(me, {})) do
          local file = io.open("/proc/" .. pid .. "/cmdline")
          if file and file:read "a":find "worker" then print(pid) end
        end
        return p, job
      end
      local p, job = begin()
      job:cancel { grace = 0 }
      print(job:wait())
      p:close()
      begin():close(0)
      begin()
      io.stdout:flush()
      os.execute("kill -KILL " .. me)
    ]]):format(attack.dir))
    local n = 0
    for pid in output:gmatch "%f[^\n\0]%d+%f[\n]" do
      n = n + 1
      assert.is_true(gates.eventually(function ()
        local file <close> = io.open("/proc/" .. pid .. "/stat")
        return file == nil or file:read "a":match "%) (%a)" == "Z"
      end), output)
    end
    assert.is_true(n >= 9, output)  -- three processes each time
    assert.matches("\nlost\n", output)
  end)

  it("is refused with the package's name where it is missing", function ()
    local path <const> = os.tmpname()
    write(path, [[
      print(pcall(require "parallel".pool, { isolation = "process",
                                             sandbox = "strict" }))]])
    local output <const> = read(("PATH=/nowhere %s %s"):format(
      tree.program(), path))
    os.remove(path)
    assert.matches("'bwrap', which is not in PATH: install the package "
                   .. "bubblewrap", output, 1, true)
  end)

  HERE("is refused where nobody may make namespaces", function ()
    local path <const> = os.tmpname()
    write(path, [[
      print(pcall(require "parallel".pool, { isolation = "process",
                                             sandbox = "strict" }))]])
    local inside <const> = "bwrap --unshare-user --disable-userns --dev-bind "
                           .. "/ / "
    if not os.execute(inside .. "true 2>/dev/null") then
      print "left out: this bwrap is older than 0.8"
      return
    end
    local output <const> = read(inside .. tree.program() .. " " .. path)
    os.remove(path)
    assert.matches("the wall of \"strict\" cannot be built: bwrap: ", output,
                   1, true)
  end)

  for _, row in ipairs {
    { { sandbox = "strict" }, "bad option 'sandbox' to 'pool' (it is for "
      .. "processes: give isolation = \"process\", or leave it out)" },
    { { sandbox = "strict", hosts = { "x" } }, "bad option 'sandbox' to "
      .. "'pool' (it is for children of this process, and 'hosts' starts "
      .. "others: let the words of 'ssh' see to it, or leave it out)" },
    { { isolation = "process", readable = { "/" } }, "bad option 'readable' "
      .. "to 'pool' (it names what passes a wall: give sandbox = \"strict\", "
      .. "too)" },
    { { isolation = "process", writable = { "/" } }, "bad option 'writable'" },
    { { isolation = "process", sandbox = "strikt" }, "bad option 'sandbox' to "
      .. "'pool' (true, \"strict\", or a table of what is allowed, expected, "
      .. "got 'strikt')" },
    { { isolation = "process", initial_state = { sandbox = "strict" } },
      "\"strict\" is no part of an initial state: give it to the pool" },
    { strict { readable = "/" }, "bad option 'readable' to 'pool' (an array "
      .. "of paths expected, got '/')" },
    { strict { writable = { 5 } }, "bad option 'writable' to 'pool' (an array "
      .. "of paths expected, got one with 5)" },
  } do
    it("is refused: " .. row[2], function ()
      assert.matches(row[2], raised(parallel.pool, row[1]), 1, true)
    end)
  end

  HERE("is refused with a path that is not there", function ()
    assert.matches("writable: '/no/such': No such file",
                   raised(parallel.pool, strict { writable = { "/no/such" } }),
                   1, true)
  end)

  HERE("goes with an initial state, and its sandbox", function ()
    local pool <close> = parallel.pool(strict {
      initial_state = parallel.initial_state { sandbox = true,
                                               variables = { x = 5 } } })
    assert.equal(5, pool:run "return x")
    assert.matches("the sandbox of this runspace forbids",
                   pool:run "return select(2, io.open '/usr')", 1, true)
  end)
end)
