-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

--- What programs give, as text, with what cannot be told apart left out.
local VALUES <const> = [=[
  local path <const> = os.tmpname()
  local out = {}
  local function note (...)
    local list <const> = table.pack(...)
    for i = 1, list.n do
      list[i] = tostring(list[i]):gsub("0x%x+", "ADDRESS")
                                 :gsub("^.-:%d+: ", "")
    end
    out[#out + 1] = table.concat(list, " | ", 1, list.n)
  end
  local function open (...) return assert(io.popen(...)) end

  local p = open "echo a; echo b; exit 3"
  note("type", io.type(p), tostring(p))
  note("lines", p:read("l", "L", "l"))
  note("status", p:close())
  note("closed", io.type(p), tostring(p))
  note("twice", pcall(p.close, p))
  note("after it", pcall(p.read, p))
  note("signal", open "kill -9 $$":close())
  note("success", open "true":close())
  note("no such program", open "exec /no/such/program 2>/dev/null":close())
  p = open("echo x", "r")
  note("seek", p:seek())
  note("seek to", p:seek("set", 1))
  note("write", p:write "x")
  note("setvbuf", p:setvbuf "no")
  note("all", p:read "a")
  note("at the end", p:read(1))
  p:close()
  p = open("cat > " .. path, "w")
  note("written", p:write("text ", 12, " ", 1.5, "\n") == p)
  note("read", p:read "a")
  note("flush", p:flush() == p)
  note("status of w", p:close())
  for line in io.lines(path) do note("line", line) end
  for line in open "seq 3":lines() do note("line", line) end
  for _, mode in ipairs { "rw", "e", "re", "rb", "", "W" } do
    note("mode " .. mode, pcall(io.popen, "true", mode))
  end
  note("no command", pcall(io.popen))
  note("no string", pcall(io.popen, {}))
  note("number", pcall(function () io.popen("true", 5) end))
  do
    local closed <close> = open("cat >> " .. path, "w")
    closed:write "more\n"
  end
  note("waits at <close>", open("cat " .. path):read "a")
  io.output(open("cat >> " .. path, "w"))
  io.write "by output\n"
  note("flushes", open("true"):close())
  note("output", io.close())
  note("it", open("cat " .. path):read "a")
  io.output(io.stdout)
  io.input(open "echo by input")
  note("input", io.read(), io.close(io.input()))
  io.input(io.stdin)

  note("a shell", os.execute())
  note("execute", os.execute "true")
  note("execute, status", os.execute "exit 2")
  note("execute, signal", os.execute "kill -15 $$")
  note("execute, no string", pcall(os.execute, {}))
  os.remove(path)
  return table.concat(out, "\n")
]=]

--- Children of this process that have ended and were not waited for.
local function zombies ()
  local _, text = parallel.task.execute {
    "ps -o stat= --ppid " .. io.open("/proc/self/stat"):read "n"
  }
  local _, n = text:gsub("Z", "")
  return n
end

describe("io.popen and os.execute", function ()
  local stock
  setup(function ()
    local path <const> = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write("print((function () ", VALUES, " end)())")
    file:flush()
    local pipe <const> = assert(io.popen(tree.lua .. " " .. path .. " 2>&1"))
    stock = pipe:read "a"
    assert(pipe:close())
    os.remove(path)
  end)

  it("give the same values as in lua5.4, in the host", function ()
    assert.equal(stock, (run("print((function () " .. VALUES .. " end)())")))
  end)

  it("give the same values as in lua5.4, in a job", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(stock, pool:run(VALUES) .. "\n")
  end)

  it("are as they were without the libraries", function ()
    local pool <close> = parallel.pool { max = 1, libs = { "base" } }
    assert.equal("nil", pool:run "return tostring(io)")
  end)

  it("keep nobody else from opening files", function ()
    local pool <close> = parallel.pool { max = 2 }
    local gate <close> = gates.new()
    local bell <const>, path <const> = gate.bell, gate.path
    local reader <const> = pool:spawn(function ()
      local p <close> = io.popen(("printf x > %s; : < %s"):format(bell, path))
      return p:read "a"
    end)
    gate:await(1)  -- its stream is being read, or will be
    assert.equal("two\n", pool:run(function ()
      local p <close> = io.popen "echo two"
      local f <close> = assert(io.open "/dev/null")
      return f and p:read "a"
    end))
    local mine <close> = assert(io.popen "echo three")
    assert.equal("three", mine:read())
    gate:open()
    assert.equal("", reader:get())
  end)

  it("start programs that have no files of others in a job", function ()
    local held <close> = assert(io.open("/dev/null"))
    assert.equal("0 1 2 3 ", (parallel.run(function ()
      local mine <close> = assert(io.open("/dev/null"))
      local p <close> = io.popen "echo $(ls /proc/self/fd) ''"
      return p:read(), io.type(mine)
    end)))
    assert.is_truthy(held)
  end)

  it("start programs that block no signals, in a job", function ()
    local read <const> = "grep SigBlk /proc/self/status"
    local blocked <const> = "SigBlk:\t0000000000000000"
    assert.equal(blocked, parallel.run(
      "local p <close> = io.popen '" .. read .. "' return p:read()"))
    local path <const> = os.tmpname()
    parallel.run(("os.execute '%s > %s'"):format(read, path))
    assert.equal(blocked, io.open(path):read())
    os.remove(path)
  end)

  it("leave SIGINT to the host", function ()
    local mask <const> = parallel.run(function ()
      local path <const> = os.tmpname()
      os.execute("grep SigIgn /proc/$PPID/status > " .. path)
      local file <close> = io.open(path)
      os.remove(path)
      return file:read()
    end)
    local sigint <const> = 1 << 1
    assert.equal(0, tonumber(mask:match "%x+$", 16) & sigint)
  end)

  it("do not keep a job that is stopped as it closes", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local bell <const> = gate.bell
    local job <const> = pool:spawn(function ()
      local p <const> = io.popen(("exec 1>&-; printf x > %s; exec sleep 100")
                                 :format(bell))
      p:read "a"
      p:close()
    end)
    gate:await(1)
    job:cancel()
    assert.equal("cancelled", job:wait())
    assert.equal(0, pool:info().stuck)
  end)

  it("leave no zombie of a handle that nobody closed", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local path <const> = gate.path
    pool:run(function ()
      assert(io.popen "true")
      assert(io.popen(": < " .. path))
      assert(io.popen("cat > /dev/null", "w")):write "some"
      collectgarbage()  -- waits for none of them
    end)
    gate:open()
    assert.is_true(gates.eventually(function () return zombies() == 0 end))
  end)

  it("hand over what was written to a handle that nobody closed", function ()
    local path <const> = os.tmpname()
    parallel.run(function ()
      local p <const> = io.popen("sleep 0.05; cat > " .. path, "w")
      p:setvbuf("full", 1 << 20)
      p:write(("x"):rep(200000))
      p:flush()
      p:write(("y"):rep(100000))
    end, { limit = 1 })
    parallel.run "collectgarbage()"
    assert.is_true(gates.eventually(function ()
      local file <close> = io.open(path)
      return #file:read "a" == 300000
    end))
    os.remove(path)
  end)

  --- Each row: bytes that fill the pipe, or nearly, and bytes in the buffer.
  for _, row in ipairs {
    { 1 << 16, 1 }, { 1 << 16, 2000 }, { (1 << 16) - 4096, 4000 },
    { (1 << 16) - 4096, 10 }, { 0, 4000 }, { 0, 0 },
  } do
    local there <const>, kept <const> = table.unpack(row)
    it(("hand over the buffer of such a handle: %d behind %d")
         :format(kept, there), function ()
      local path <const> = os.tmpname()
      local pool <close> = parallel.pool { max = 1 }
      local gate <close> = gates.new()
      local shut <const> = gate.path
      pool:run(function ()
        local p <const> = io.popen(": < " .. shut .. "; cat > " .. path, "w")
        p:write(("x"):rep(there)):flush()
        p:write(("y"):rep(kept))
      end)
      pool:run "collectgarbage() collectgarbage()"
      gate:open()
      assert.is_true(gates.eventually(function ()
        local file <close> = io.open(path)
        return file:read "a" == ("x"):rep(there) .. ("y"):rep(kept)
      end))
      assert.is_true(gates.eventually(function () return zombies() == 0 end))
      os.remove(path)
    end)
  end

  it("let os.exit go while a program reads nothing", function ()
    local text, status = run [[
      local gate = os.tmpname()
      os.remove(gate)
      os.execute("mkfifo " .. gate)
      parallel.spawn(function ()
        local p = io.popen("exec sleep 20 >/dev/null 2>&1", "w")
        local ended = io.popen("exec true", "w")
        p:write(("x"):rep(1 << 16))  -- as much as a pipe holds
        p:write "in its buffer"
        ended:write "to nobody"
        io.popen "":close()
        io.open(gate, "w"):close()
        io.popen("exec sleep 20 2>/dev/null"):close()
      end)
      io.open(gate):close()
      os.remove(gate)
      print "here"
      os.exit(7)
    ]]
    assert.same({ "here\nparallel: the script ended early: 1 job stopped\n",
                  7 }, { text, status })
  end)
end)
