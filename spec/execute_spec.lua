-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local lfs <const> = require "lfs"
local parallel <const> = require "parallel"

local execute <const> = parallel.task.execute
local own <const> = io.open("/proc/self/stat"):read "n"

--- Descriptors of this process.
local function descriptors ()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
  return n
end

--- Children of this process that have ended and were not waited for.
local function zombies ()
  local _, text = execute {
    "ps -o stat= --ppid " .. own
  }
  local _, n = text:gsub("Z", "")
  return n
end

--- The keepers of this process.
local function keepers ()
  local found = {}
  for name in lfs.dir "/proc" do
    local file <close> = name:match "^%d" and io.open("/proc/" .. name
                                                      .. "/cmdline")
    local words <const> = file and file:read "a" or ""
    if words:find("\0runspace-keeper\0" .. own .. "\0", 1, true) then
      found[#found + 1] = name
    end
  end
  return found
end

describe("task.execute", function ()
  it("gives the status and both outputs", function ()
    assert.same({ 3, "out\n", "bad\n", n = 3 },
                table.pack(execute "echo out; echo bad >&2; exit 3"))
    assert.same({ 0, "", "", n = 3 }, table.pack(execute { "true" }))
    assert.same({ 0, "x\n", "", n = 3 },
                table.pack(execute { command = "echo x" }))
  end)

  it("runs words without a shell", function ()
    local words <const> = { "printf", "%s|", "a b", "$HOME", "*" }
    assert.same({ 0, "a b|$HOME|*|", "", n = 3 },
                table.pack(execute { words }))
  end)

  it("tells a signal as shells do", function ()
    assert.equal(128 + 9, (execute "kill -9 $$"))
    assert.equal(128 + 15, (execute "kill -15 $$"))
  end)

  it("says what cannot be run", function ()
    local status <const>, message <const> = execute { { "no-such-program" } }
    assert.is_nil(status)
    assert.equal("cannot run 'no-such-program': No such file or directory",
                 message)
  end)

  it("says which directory it cannot enter", function ()
    local status <const>, message <const> =
      execute { "true", cwd = "/no/such/place" }
    assert.is_nil(status)
    assert.equal("cannot run '/bin/sh' in '/no/such/place': No such file or "
                 .. "directory", message)
  end)

  it("feeds the standard input, however much", function ()
    local text <const> = ("0123456789abcde\n"):rep(640 * 1024)
    local status, out = execute { "cat", stdin = text }
    assert.equal(0, status)
    assert.is_true(out == text)
    assert.same({ 0, "0\n", "", n = 3 }, table.pack(execute "wc -c"))
    assert.same({ 0, "0\n", "", n = 3 },
                table.pack(execute { "wc -c", stdin = "" }))
  end)

  it("survives a program that does not read", function ()
    assert.equal(7, (execute { "exit 7", stdin = ("x"):rep(1 << 20) }))
  end)

  it("takes both outputs at once", function ()
    local status, out, err = execute "head -c 1000000 /dev/zero >&2; \z
                                      head -c 1000000 /dev/zero"
    assert.same({ 0, 1000000, 1000000 }, { status, #out, #err })
  end)

  it("sets the directory and variables", function ()
    local status, out = execute {
      "pwd; echo \"$ONE $TWO ${HOME:+home}\"", cwd = "/usr",
      env = { ONE = "1", TWO = "a=b" },
    }
    assert.same({ 0, "/usr\n1 a=b home\n" }, { status, out })
  end)

  it("runs what jobs have just written, beside others that do so", function ()
    local pool <close> = parallel.pool { max = 4 }
    local results <const> = pool:map(parallel.range(1, 480), function (i)
      local path <const> = os.tmpname()
      local file <const> = assert(io.open(path, "w"))
      file:write("#!/bin/sh\necho ", i, "\n")
      file:close()
      os.execute("chmod +x " .. path)
      local status, out, err = parallel.task.execute { { path } }
      os.remove(path)
      return status == 0 and out or tostring(out) .. tostring(err)
    end, { chunk = 1 })
    for i = 1, 480 do assert.equal(i .. "\n", results[i]) end
  end)

  it("tells what goes on being written", function ()
    local path <const> = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write "#!/bin/sh\n"
    file:flush()
    os.execute("chmod +x " .. path)
    local status, why = execute { { path } }
    os.remove(path)
    assert.is_nil(status)
    assert.matches("[Tt]ext file busy", why)
  end)

  it("ends all of its group when its time is over", function ()
    local path <const> = os.tmpname()
    local seconds = 0.1
    local status, why, out
    repeat  -- until it has begun before
      seconds = 2 * seconds
      status, why, out = execute {
        "sleep 10000 & echo $! > " .. path .. "; echo begun; wait",
        timeout = seconds,
      }
    until out ~= ""
    assert.same({ nil, "timeout", "begun\n" }, { status, why, out })
    local file <close> = io.open(path)
    local pid <const> = file:read "n"
    -- It may be there for a moment yet, until somebody has waited for it.
    assert.is_true(gates.eventually(function ()
      local _, state = execute("ps -o stat= -p " .. pid)
      return state == "" or state:find "^Z" ~= nil
    end))
    os.remove(path)
  end)

  it("gives it no descriptors but three", function ()
    local held = {}
    for i = 1, 20 do held[i] = io.open "/dev/null" end
    local _, out = execute { { "ls", "/proc/self/fd" } }
    local _, n = out:gsub("\n", "")
    assert.is_true(n <= 4, out)  -- with that of the directory
    for _, file in ipairs(held) do file:close() end
  end)

  it("leaves nothing behind", function ()
    parallel.run(execute, "true")
    parallel.fileno()  -- the host's own, made when it first sleeps
    local before <const> = descriptors()
    for i = 1, 100 do
      execute { i % 2 == 0 and "true" or "cat", stdin = "x" }
      execute { { "no-such-program" } }
    end
    execute { "sleep 100", timeout = 0.01 }
    pcall(parallel.run, execute, { "true", timeout = -1 })
    assert.equal(before, descriptors())
    assert.equal(0, zombies())
  end)

  it("has one keeper, which is no child and holds nothing", function ()
    local held <close> = assert(io.open "/dev/null")
    local pool <close> = parallel.pool { max = 4 }
    pool:map(parallel.range(1, 1000), function ()
      assert(parallel.task.execute { { "true" } } == 0)
    end)
    local list <const> = keepers()
    assert.equal(1, #list)
    local _, parent = execute("ps -o ppid= -p " .. list[1])
    assert.not_equal(own, tonumber(parent))
    local _, text = execute("ls -l /proc/" .. list[1] .. "/fd")
    local targets = {}
    for target in text:gmatch "-> ([%w/]+)" do targets[target] = true end
    assert.same({ ["/dev/null"] = true, ["/memfd"] = true, pipe = true },
                targets)
    assert.is_truthy(held)
  end)

  it("has another keeper when that was killed", function ()
    execute "true"
    local first <const> = keepers()[1]
    execute("kill -9 " .. first)
    assert.is_true(gates.eventually(function ()
      return #keepers() == 0
    end))
    execute "true"
    assert.equal(1, #keepers())
    assert.not_equal(first, keepers()[1])
  end)

  it("runs many at once in jobs", function ()
    local results <const> = parallel.map(parallel.range(1, 20), function (i)
      return select(2, parallel.task.execute("echo " .. i))
    end, { limit = 5 })
    for i = 1, 20 do assert.equal(i .. "\n", results[i]) end
  end)

  it("ends with its job", function ()
    local pool <close> = parallel.pool { max = 1 }
    local path <const> = os.tmpname()
    os.remove(path)
    execute { { "mkfifo", path } }
    local job <const> = pool:spawn(function ()
      parallel.task.execute("echo $$ > " .. path .. "; exec sleep 100")
    end)
    local file <close> = io.open(path)  -- until it writes there
    local pid <const> = file:read "n"
    job:cancel()
    assert.equal("cancelled", job:wait())
    assert.equal(1, (execute("kill -0 " .. pid .. " 2> /dev/null")))
    os.remove(path)
  end)

  it("takes numbers among the words", function ()
    assert.same({ 0, "1 2.5 -3|", "", n = 3 },
                table.pack(execute { { "printf", "%s %s %s|", 1, 2.5, -3 } }))
    local words <const> = { "printf", "%s", 7 }
    execute { words }
    assert.equal("integer", math.type(words[3]))
  end)

  it("sets variables to numbers, and takes away those that are false",
     function ()
    assert.same({ 0, "5 none /\n", "" }, { execute {
      "echo $FIVE ${HOME-none} ${PATH:+/}",
      env = { FIVE = 5, HOME = false, NO_SUCH_VARIABLE = false },
    } })
    assert.same({ 0, "x\n", "" }, { execute {
      { "/bin/sh", "-c", "echo ${HOM-x}" }, env = { HOM = false } } })
  end)

  describe("with on_output", function ()
    it("calls it with each line, while the program runs", function ()
      local lines <const> = {}
      local path <const> = os.tmpname()
      os.remove(path)
      execute { { "mkfifo", path } }
      local status, out, err = execute {
        "echo one; read x <" .. path .. "; printf 'two %s\n\nlast' $x; "
        .. "echo no >&2",
        on_output = function (...)
          assert.equal(1, select("#", ...))
          lines[#lines + 1] = ...
          if #lines == 1 then  -- the program waits for this
            local file <close> = assert(io.open(path, "w"))
            file:write "it\n"
          end
        end,
      }
      os.remove(path)
      assert.same({ 0, "one\ntwo it\n\nlast", "no\n" },
                  { status, out, err })
      assert.same({ "one", "two it", "", "last" }, lines)
    end)

    it("gives all lines of much output, however it is cut", function ()
      local n, bytes = 0, 0
      local _, out = execute { "yes 0123456789abcdef | head -n 200000",
                               on_output = function (line)
        n, bytes = n + 1, bytes + #line
      end }
      assert.same({ 200000, 3200000, 3400000 }, { n, bytes, #out })
      local long
      execute { "head -c 3000000 /dev/zero", on_output = function (line)
        long = #line
      end }
      assert.equal(3000000, long)
    end)

    it("ends the program when it raises", function ()
      local before <const> = descriptors()
      local own_error <const> = {}
      local pid
      local ok, problem = pcall(execute, {
        "echo $$; exec sleep 100", on_output = function (line)
          pid = line
          error(own_error)
        end,
      })
      assert.is_false(ok)
      assert.equal(own_error, problem)
      assert.equal(1, (execute("kill -0 " .. pid .. " 2> /dev/null")))
      assert.equal(before, descriptors())
    end)

    it("may run programs itself, and be stopped", function ()
      local seen
      execute { "echo a", on_output = function (line)
        seen = select(2, execute { { "echo", line, "b" } })
      end }
      assert.equal("a b\n", seen)
      local pool <close> = parallel.pool { max = 1 }
      local job <const> = pool:submit { function ()
        parallel.task.execute { "echo x; exec sleep 100",
                                on_output = function ()
          while true do tostring {} end  -- seen by the thread sanitizer
        end }
      end, timeout = 0.05 }
      assert.equal("timed_out", job:wait())
    end)
  end)

  --- Each row: what is passed, what is said.
  for _, row in ipairs {
    { { "x", timeout = -1 }, "bad option 'timeout' to 'execute' (a positive "
      .. "number of seconds expected, got -1)" },
    { { "x", timeout = 0 / 0 }, "(a positive number of seconds expected" },
    { { "x", timeout = "1" },
      "(a positive number of seconds expected, got '1')" },
    { { "x", timout = 1 }, "unknown option 'timout' to 'execute'" },
    { { "x", stdin = 5 }, "bad option 'stdin' to 'execute' (a string "
      .. "expected, got number)" },
    { { "x", cwd = true }, "bad option 'cwd' to 'execute'" },
    { { "x", env = "A=1" }, "bad option 'env' to 'execute' (a table of "
      .. "variables expected, got string)" },
    { { "x", env = { ["A=B"] = "1" } }, "the name of a variable expected, got "
      .. "'A=B'" },
    { { "x", env = { A = true } }, "bad option 'env' to 'execute' (a string, "
      .. "a number or false expected, got boolean)" },
    { { "x", env = { 1 } }, "bad option 'env' to 'execute' (a string "
      .. "expected, got number)" },
    { { "x", on_output = "print" }, "bad option 'on_output' to 'execute' (a "
      .. "function expected, got 'print')" },
    { { "a\0b" }, "a string without zero bytes expected" },
    { { { "a", "b\0" } }, "a string without zero bytes expected" },
    { { {} }, "the name of a program expected, got an empty array" },
    { { setmetatable({ "a", "b" }, { __len = function ()
          return (1 << 61) - 1
        end }) }, "at most 1048576 words expected, got 2305843009213693951" },
    { { { 1, true } }, "bad option 'command' to 'execute' (a string or a "
      .. "number expected, got boolean)" },
    { {}, "bad option 'command' to 'execute' (a string expected, got nil)" },
    { 5, "table expected, got number" },
  } do
    it("refuses " .. row[2], function ()
      local ok, message = pcall(execute, row[1])
      assert.is_false(ok)
      assert.is_truthy(message:find(row[2], 1, true), message)
    end)
  end
end)
