-- SPDX-License-Identifier: MIT
--- The host program beside the distribution's lua5.4: each row is run by
--- both, under the same name, and what they print and how they end is the
--- same but for what runspace adds.

local run_script <const> = require "support.script"
local tree <const> = require "support.tree"

local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function read (path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function write (path, contents)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(contents))
end

local function absolute (path)
  local pipe <close> = assert(io.popen("command -v " .. quote(path)))
  local found = pipe:read "l"
  assert(found, path .. ": not found")
  if found:sub(1, 1) == "/" then return found end
  local cwd <close> = assert(io.popen "pwd")
  return cwd:read "l" .. "/" .. found
end

--- The files that rows use.
local files <const> = {
  ["arg.lua"] = [[
    print(...)
    for i = -9, 9 do if arg[i] then io.write(i, "=", arg[i], " ") end end
    print(#arg)]],
  ["bang.lua"] = "#!/usr/bin/env lua\nprint 'bang' error 'line 2'",
  ["bang"] = "#!/usr/bin/env lua\nprint('executed', arg[0], ...)",
  ["bom.lua"] = "\u{feff}# comment\nprint(debug.getinfo(1).currentline)",
  ["hash.lua"] = "# only",
  ["empty.lua"] = "",
  ["noend.lua"] = "while true do",
  ["zero.lua"] = "print 'one\0two' print(#'\0')",
  ["exit.lua"] = "os.exit(...)",
  ["init.lua"] = "print('init', ...) X = 1",
  ["deep.lua"] = [[
    local function a () error "deep" end
    local function b () a() end
    function c () b() return 1 end
    local t = { m = function () c() return 1 end }
    t.m()]],
  ["mod.lua"] = "print('loading', ...) return { name = 'mod' }",
  ["object.lua"] = [[
    return function (tostring)
      return setmetatable({}, { __tostring = tostring, __name = "My" })
    end]],
  ["-dash.lua"] = "print 'dash'",
  ["lines.txt"] = "one\n2\nthree\n",
  ["gc.lua"] = [[
    local mt = { __gc = function (o) print("gc", o.name) end }
    A = setmetatable({ name = "a" }, mt)
    B = setmetatable({ name = "b" }, mt)
    local c <close> = setmetatable({}, { __close = function () print "x" end })
    if arg[1] then os.exit(tonumber(arg[1]), arg[2] == "close") end]],
  ["cjson.lua"] = [[
    local cjson = require "cjson"
    print(cjson.encode { 1, "two", { three = cjson.null } })
    print(cjson.decode('{"a": [1, 2.5, null]}').a[2])
    print(pcall(cjson.decode, "{"))]],
  ["lpeg.lua"] = [[
    local lpeg = require "lpeg"
    local number = lpeg.C(lpeg.R "09" ^ 1) / math.tointeger
    local list = lpeg.Ct(number * ("," * number) ^ 0)
    print(table.unpack(list:match "1,22,333"))
    print(lpeg.match(lpeg.P "a" * lpeg.Cmt("b", print), "ab"))]],
  ["lfs.lua"] = [[
    local lfs = require "lfs"
    local names = {}
    for name in lfs.dir "." do names[#names + 1] = name end
    table.sort(names)
    print(#names, lfs.attributes("lines.txt", "size"))
    print(lfs.attributes "nowhere")]],
  ["socket.lua"] = [[
    local socket = require "socket"
    local server = assert(socket.bind("127.0.0.1", 0))
    local _, port = server:getsockname()
    local client = assert(socket.connect("127.0.0.1", port))
    local peer = assert(server:accept())
    client:send "hello\nworld\n"
    print(peer:receive(), peer:receive "*l")
    client:close()
    print(peer:receive())
    local url = require "socket.url".parse "x://y"
    print(require "mime".b64 "runspace", url.host)]],
  ["term.lua"] = [[
    local term = require "term"
    print(term.isatty(io.stdout))
    io.write(term.colors.red "red", term.colors.reset "", "\n")]],
  ["system.lua"] = [[
    local system = require "system"
    print(math.type(system.gettime()), system.monotime() > 0)
    system.sleep(0.001)]],
  ["zlib.lua"] = [[
    local zlib = require "zlib"
    local packed = zlib.deflate()(("z"):rep(1000), "finish")
    print(#packed, #zlib.inflate()(packed), zlib.crc32()("abc"))]],
  ["luv.lua"] = [[
    local uv = require "luv"
    local timer = uv.new_timer()
    timer:start(1, 0, function () print "timer" timer:close() end)
    uv.new_work(function (x) return x * 2 end,
                function (y) print("work", y) end):queue(21)
    uv.run()
    uv.spawn("/bin/echo", { args = { "child" }, stdio = { nil, 1, 2 } },
             function (code) print("exit", code) end)
    uv.run()]],
  ["penlight.lua"] = [[
    local List, path = require "pl.List", require "pl.path"
    print(List { 3, 1, 2 }:sort(), path.basename "a/b")]],
  ["argparse.lua"] = [[
    local parser = require "argparse" ("prog", "what it does")
    parser:argument "file"
    parser:flag "-q --quiet"
    print(parser:parse { "-q", "x" }.file)
    parser:parse { "--nope" }]],
  ["co.lua"] = [[
    local co = coroutine.wrap(function () coroutine.yield(1) error "in co" end)
    print(co())
    print(coroutine.running())
    co()]],
  ["env.lua"] = "print(os.getenv 'HELLO', X, package.path, package.cpath)",
}

--- What both run, in a shell, as 'lua'.
local rows <const> = {
  -- statements and options
  [[lua -e 'print(1)']],
  [[lua -e'print(1)']],
  [[lua -e '']],
  [[lua -e 'x = 1' -e 'print(x)' -e 'print(x + 1)']],
  [[lua -e 'print(1)' -e 'x =' -e 'print(2)']],
  [[lua -e 'print(...)' arg.lua a]],
  [[lua -e]],
  [[lua -e -v]],
  [[lua -l]],
  [[lua -l -e]],
  [[lua -l mod -e 'print(mod.name)']],
  [[lua -lmod -e 'print(mod.name)']],
  [[lua -l m=mod -e 'print(m.name, mod)']],
  [[lua -l =mod -e 'print(_G[""].name)']],
  [[lua -l mod= ]],
  [[lua -l nowhere]],
  [[lua -l nowhere -e 'print "not reached"']],
  [[lua -l string -l s=string -e 'print(s == string)']],
  [[lua -l mod </dev/null]],
  [[lua -v]],
  [[lua -v -e 'print(1)']],
  [[lua -v arg.lua]],
  [[lua -v - <arg.lua]],
  [[lua -v -v]],
  [[lua -h]],
  [[lua -vi]],
  [[lua -Wx]],
  [[lua -E-]],
  [[lua --help]],
  [[lua -x arg.lua]],
  [[lua -e 'print(1)' -z]],
  [[lua -W -e 'warn("a", "b")']],
  [[lua -e 'warn "off"' -W -e 'warn "on"']],
  [[lua -e 'warn "@on" warn "x" warn "@off" warn "y"']],
  [[lua -W -e 'setmetatable({}, { __gc = function () error "g" end })']],
  [[lua -E -e 'print(debug.getregistry().LUA_NOENV)']],
  [[lua -e 'print(debug.getregistry().LUA_NOENV)']],
  [[lua -e 'print(collectgarbage "incremental")']],
  -- the script and its arguments
  [[lua arg.lua]],
  [[lua arg.lua a 'b c' '' -e]],
  [[lua -W -e 'x = 1' -- arg.lua -v]],
  [[lua -e 'x=1' -lmod arg.lua 1 2]],
  [[lua - a b <arg.lua]],
  [[lua -- - a]],
  [[lua -- -dash.lua]],
  [[lua -]],
  [[lua ./arg.lua]],
  [[lua "$PWD/arg.lua" | sed "s,$PWD,.,"]],
  [[lua nowhere.lua]],
  [[lua '']],
  [[lua .]],
  [[lua bang.lua]],
  [[./bang 1 2]],
  [[lua bom.lua]],
  [[lua hash.lua]],
  [[lua empty.lua]],
  [[lua noend.lua]],
  [[lua zero.lua]],
  [[lua -e 'arg = nil' arg.lua]],
  [[lua -e 'arg = { "x", "y" }' arg.lua a]],
  [[lua -e 'arg = setmetatable({}, { __len = function () return 3 end })' ]]
    .. [[-e 'print(1)' bang]],
  [[lua -e 'string.dump = nil' -e 'print(arg[0], arg[-1], #arg)']],
  [[lua -e 'io.open("b.luac", "wb"):write(string.dump(loadfile "arg.lua"))' ]]
    .. [[&& lua b.luac x && rm b.luac]],
  -- programs from a pipe
  [[echo 'print(1, ...)' | lua]],
  [[echo 'print(1' | lua]],
  [[echo 'error "x"' | lua]],
  [[printf '# first\nerror "x"' | lua -]],
  [[printf 'print(io.read())\nleft' | lua]],
  [[lua -W <arg.lua]],
  [[echo 'print(1)' | lua -e 'print(2)']],
  [[echo 'print(1)' | lua -l mod]],
  [[lua <&-]],
  [[lua -e 'for l in io.lines() do print(#l) end' <lines.txt]],
  [[lua -e 'print(io.read("l", "n", "L", "a"))' <lines.txt]],
  [[lua -e 'print(io.read "a")' <&-]],
  [[lua -e 'print(io.stdout:seek())' | cat]],
  [[lua -e 'print(1)' >&-]],
  -- errors
  [[lua deep.lua]],
  [[lua -e 'error()']],
  [[lua -e 'error(nil)']],
  [[lua -e 'error {}']],
  [[lua -e 'error(12)']],
  [[lua -e 'error "text"']],
  [[lua -e 'error("text", 0)']],
  [[lua -e 'error("text", 2)']],
  [[lua -e 'error(print)' 2>&1 | sed 's/0x[0-9a-f]*//']],
  [[lua -l o=object -e 'error(o(function () return "text" end))']],
  [[lua -l o=object -e 'error(o(function () return 1 end))']],
  [[lua -l o=object -e 'error(o(function () error "again" end))']],
  [[lua -l o=object -e 'error(o(nil))']],
  [[lua -e 'local t = nil; t.x = 1']],
  [[lua -e 'print(#5)']],
  [[lua -e 'local function f () return 1 + f() end f()' 2>&1 ]]
    .. [[| sed 's/skipping [0-9]*/skipping/']],
  [[lua -e 'string.rep()']],
  [[lua -e '("x"):bad()']],
  [[lua -e 'x = }']],
  [[lua -e 'goto nowhere']],
  [[lua -e 'local x <const> = 1; x = 2']],
  [[lua co.lua 2>&1 | sed 's/0x[0-9a-f]*//']],
  [[lua -e 'coroutine.wrap(function () error {} end)()']],
  [[lua -e 'local t <close> = setmetatable({}, { __close = print }) ]]
    .. [[error "c"' 2>&1 | sed 's/0x[0-9a-f]*//']],
  [[lua -e 'print(debug.traceback "here")']],
  [[lua -e 'require "nowhere"']],
  [[lua -e 'io.stderr:write "to stderr\n" io.write "to stdout"']],
  [[exec 2>&1; lua -e 'io.write "first, " error "second"']],
  -- ends
  [[lua -e 'os.exit(3)']],
  [[lua -e 'os.exit(true)']],
  [[lua -e 'os.exit(false)']],
  [[lua -e 'os.exit(false, true)']],
  [[lua -e 'os.exit(256)']],
  [[lua -e 'os.exit(-1)']],
  [[lua -e 'io.write "unflushed" os.exit(2)']],
  [[lua gc.lua]],
  [[lua gc.lua 4]],
  [[lua gc.lua 5 close]],
  [[lua -e 'io.popen("kill -TERM $PPID"):close() while true do end']],
  [[lua -e 'print(os.execute "exit 7")']],
  [[lua -e 'print(io.popen "exit 7":close())']],
  -- the environment
  [[LUA_INIT='print "init"' lua -e 'print(1)']],
  [[LUA_INIT='print(arg[0], ...)' lua arg.lua x]],
  [[LUA_INIT=@init.lua lua -e 'print(X)']],
  [[LUA_INIT=@nowhere lua -e 'print(1)']],
  [[LUA_INIT='x =' lua -e 'print(1)']],
  [[LUA_INIT='error {}' lua -v]],
  [[LUA_INIT='error "i"' lua arg.lua]],
  [[LUA_INIT= lua -e 'print(1)']],
  [[LUA_INIT=@ lua -e 'print(1)' <init.lua]],
  [[LUA_INIT_5_4='print "5.4"' LUA_INIT='print "any"' lua -e 'print(1)']],
  [[LUA_INIT_5_4= LUA_INIT='print "any"' lua -e 'print(1)']],
  [[LUA_INIT='print "init"' lua -E -e 'print(1)']],
  [[LUA_INIT='print "init"' lua -z]],
  [[LUA_INIT='os.exit(9)' lua -e 'print(1)']],
  [[HELLO=there lua env.lua]],
  [[LUA_PATH='a/?.lua;;b' lua env.lua]],
  [[LUA_PATH_5_4=x LUA_PATH=y lua env.lua]],
  [[LUA_CPATH=';;c/?.so' lua env.lua]],
  [[LUA_CPATH_5_4=x LUA_CPATH=y lua env.lua]],
  [[LUA_PATH=x LUA_CPATH=y LUA_INIT=z lua -E env.lua]],
  -- -i through a pipe
  [[lua -i </dev/null]],
  [[lua -i arg.lua x </dev/null]],
  [[lua -i bang.lua </dev/null]],
  [[lua -i nowhere.lua </dev/null]],
  [[lua -i -e 'x = 5' </dev/null]],
  [[LUA_INIT='error "i"' lua -i </dev/null]],
  [[echo 'x' | lua -e 'x = 5' -i]],
  [[printf '1 + 1' | lua -i]],
  [[printf '%s\n' 'x = 3' '=x' 'x, nil, "s"' 'return x' '' '  ' | lua -i]],
  [[printf '%s\n' 'for i = 1, 2 do' 'print(i)' 'end' '"done"' | lua -i]],
  [[printf '%s\n' 'x = (' '' '1 + 1)' 'x' '=(' '4)' | lua -i]],
  [[printf '%s\n' 'local a = 1' 'a' 'a = a or 2' 'a' | lua -i]],
  [[printf '%s\n' 'x y' 'error "e"' 'error {}' 'local t = nil; t()' | lua -i]],
  [[printf '%s\n' '_PROMPT = "a> "' '1' '2' | lua -i]],
  [[printf '%s\n' '_PROMPT = 12' '1' '_PROMPT = nil' '2' | lua -i]],
  [[printf '%s\n' 'print = nil' '1' 'x = 2' 'print(x)' | lua -i]],
  [[printf '%s\n' 'function print (...) io.write(type(...), "\n") end' ]]
    .. [['{}, nil' | lua -i]],
  [[echo 'o(function () return "text" end)' | lua -l o=object -i]],
  [[echo 'o(function () error "again" end)' | lua -l o=object -i]],
  [[printf '%s\n' 'os.exit(6)' 'print "not reached"' | lua -i]],
  [[printf '%s\n' 'io.write "no newline" and 1' '"\0zero"' | lua -i]],
  [[printf '%s\n' 'io.stdout' 'io.read()' | lua -i | sed 's/0x[0-9a-f]*//']],
  [[printf '%s\n' 'coroutine.wrap(function () error "co" end)()' | lua -i]],
  -- the libraries
  [[lua -e 'for _, m in ipairs { "math", "string", "table", "os", "io", "utf8",
      "debug", "coroutine", "package" } do
      local names = {}
      for name in pairs(_G[m]) do names[#names + 1] = name end
      table.sort(names)
      print(m, table.concat(names, " "))
    end']],
  [[lua -e 'print(_VERSION, math.pi, 1e300, 2.0, 1 // 0.0, -(0/0) ~= 0)']],
  [[lua -e 'print(os.setlocale(), os.setlocale(nil, "ctype"))']],
}

--- Scripts that load modules of the distribution.
local modules <const> = {
  "argparse", "cjson", "lfs", "lpeg", "luv", "penlight", "socket", "system",
  "term", "zlib",
}

describe("SIGINT", function ()

  --- A job that interrupts its host, and runs until a pipe is opened; and
  --- each way to wait for it.
  for _, wait in ipairs {
    "parallel.run(job, path)", "parallel.map({path}, job)",
    "parallel.collect({path}, job)", "parallel.spawn(job, path):wait()",
    "for _ in parallel.each({path}, job) do end",
    "parallel.spawn(job, path) parallel.poll(100)",
    "parallel.wait(parallel.spawn(job, path))",
    "for _ in parallel.spawn(job, path):records() do end",
  } do
    it("ends the wait of " .. wait, function ()
      local script <const> = ([[
        local path = os.tmpname()
        os.remove(path)
        os.execute("mkfifo " .. path)
        local pid = io.open "/proc/self/stat":read "n"
        local function job (path)
          io.popen("kill -INT " .. pid):close()
          local file <close> = io.open(path)  -- nil: it is over already
        end
        print(pcall(function () %s end))
        local gate = io.open(path, "r+")
        os.remove(path)  -- a job that comes now passes, or finds nothing
        gate:close()
        print(parallel.run "return 'alive'")
      ]]):format(wait)
      local pipe = assert(io.popen(("%s - 2>&1 <<'END'\n%s\nEND"):format(
        tree.runspace, script)))
      local text = pipe:read "a"
      pipe:close()
      assert.matches("^false\t[^\n]*interrupted!\nalive\n$", text)
    end)
  end

  for _, init in ipairs {
    "while true do end", "parallel.task.sleep(100)",
    "while true do pcall(error) end",
  } do
    it("ends the opening of a pool with init: " .. init, function ()
      local text <const> = run_script(([[
        local pid = io.open "/proc/self/stat":read "n"
        local function init ()
          io.popen("kill -INT " .. pid):close()
          %s
        end
        print(pcall(parallel.pool, { init = init }))
        print(pcall(parallel.map, { 1 }, print, { init = "error 'own'" }))
        print(#parallel.stats().pools, parallel.run "return 'alive'")
      ]]):format(init))
      assert.matches("^false\t[^\n]*interrupted!\n"
                     .. "false\t[^\n]*own\n0\talive\n$", text)
    end)
  end

  --- What a job does to interrupt its host.
  local INTERRUPT <const> = [[
    local pid = io.open "/proc/self/stat":read "n"
    local function interrupt () io.popen("kill -INT " .. pid):close() end
    local function spin () while true do pcall(function () end) end end
  ]]

  for _, call in ipairs {
    "parallel.run(function () interrupt() spin() end)",
    "parallel.map({1, 2}, function (x) if x == 1 then interrupt() end spin() "
    .. "end, {chunk = 1})",
    "parallel.collect({1}, function () interrupt() spin() end)",
    "for _ in parallel.each({1}, function () interrupt() spin() end) do end",
    "parallel.reduce({1, 2}, function () interrupt() spin() end)",
    "parallel.invoke(function () interrupt() spin() end, {a = {}})",
  } do
    it("stops the jobs of " .. call:match "[%w.]+%(", function ()
      local text <const> = run_script(INTERRUPT
        .. "print(pcall(function () " .. call
        .. " end)) while parallel.stats().done.cancelled == 0 do "
        .. "parallel.poll(0.01) end print(parallel.stats().done.cancelled)")
      assert.matches("^false\t[^\n]*interrupted!\n[12]\n$", text)
    end)
  end

  it("leaves jobs alone that nobody waits for", function ()
    local text <const> = run_script(INTERRUPT .. [[
      local inside = os.tmpname()
      os.remove(inside)
      local job = parallel.spawn(function ()
        while io.open(inside) == nil do end
        interrupt()
        parallel.task.emit "sent"
        return "well"
      end)
      print(pcall(function ()
        io.open(inside, "w"):close()
        while true do tostring {} end
      end))
      os.remove(inside)
      print(job:get())
    ]])
    assert.matches("^false\t[^\n]*interrupted!\nwell\n$", text)
  end)

  for _, row in ipairs {
    { "parallel.on('sent', handler)", "job:wait()" },
    { "parallel.on('sent', handler)", "parallel.poll(100)" },
    { "job:on('finished', handler)", "job:wait()" },
    { "job:on('output', handler)", "parallel.map({1}, tostring)" },
    { "parallel.on('sent', function () parallel.spawn(interrupt) "
      .. "parallel.run(spin) end)", "parallel.poll(100)" },
  } do
    local listen <const>, wait <const> = row[1], row[2]
    it("in a handler ends " .. wait .. ": " .. listen, function ()
      local text <const> = run_script(INTERRUPT .. ([[
        local function handler () interrupt() spin() end
        local job = parallel.spawn(function ()
          parallel.task.output "something"
          parallel.task.emit "sent"
        end)
        %s
        print(pcall(function () while true do %s end end))
      ]]):format(listen, wait))
      assert.matches("^false\t[^\n]*interrupted!\n$", text)
    end)
  end

  it("in a handler leaves the others what they are to hear", function ()
    local text <const> = run_script(INTERRUPT .. [[
      local job = parallel.spawn "parallel.task.emit 'sent'"
      parallel.on("sent", function () interrupt() spin() end)
      parallel.on("finished", function () print "finished" end)
      print(pcall(job.wait, job))
      parallel.poll(100)
    ]])
    assert.matches("^false\t[^\n]*interrupted!\nfinished\n$", text)
  end)

  it("that a handler has caught leaves errors of others what they are",
     function ()
    local text <const> = run_script(INTERRUPT .. [[
      parallel.on("sent", function () pcall(function () interrupt() spin() end)
      end)
      print(parallel.spawn("parallel.task.emit 'sent'"):wait())
      parallel.on("finished", function () error "own" end)
      print(parallel.spawn("return"):wait())
    ]])
    assert.matches("^completed\nparallel: a handler of 'finished' raised: "
                   .. "[^\n]* own\ncompleted\n$", text)
  end)

  -- Code that runs inside of the library: what is told is the interruption.
  for what, code in pairs {
    ["'__transfer' of an argument"] =
      "parallel.run(function () end, inside(BODY))",
    ["'__transfer' of an item"] =
      "parallel.collect({ inside(BODY) }, function () end)",
    ["'__transfer' of a value of a loop"] =
      "for _ in parallel.each({ inside(BODY) }, function () end) do end",
    ["'__transfer' of an upvalue"] =
      "local v = inside(BODY) parallel.run(function () return v end)",
    ["'__transfer' of a variable"] =
      "parallel.initial_state { variables = { v = inside(BODY) } }",
    ["a receiver of a result"] = "parallel.run(function () "
      .. "return rebuilt(BODY) end)",
    ["a receiver of a record"] = "parallel.collect({ 1 }, function () "
      .. "return rebuilt(BODY) end)",
    ["a receiver in a loop"] = "for _ in parallel.each({ 1 }, function () "
      .. "return rebuilt(BODY) end) do end",
    ["a receiver of an error"] = "print(parallel.spawn(function () "
      .. "error(rebuilt(BODY)) end):join())",
    ["a module that a result needs"] = "package.preload.spec_spins = BODY "
      .. "parallel.run(function () package.preload.spec_spins = function () "
      .. "local M = {} M.__index = M return M end "
      .. "return setmetatable({}, (require 'spec_spins')) end)",
  } do
    for where, body in pairs { [""] = "function () interrupt() spin() end",
                               [", in a coroutine"] = "function () "
                                 .. "coroutine.wrap(function () interrupt() "
                                 .. "spin() end)() end" } do
      it("is not told as a failure of " .. what .. where, function ()
        local text <const>, status <const> = run_script(INTERRUPT .. [[
          local function inside (f)
            return setmetatable({}, { __transfer = function () f() end })
          end
          local function rebuilt (f)
            return setmetatable({}, { __transfer = function () return f end })
          end
        ]] .. code:gsub("BODY", body))
        assert.matches("^[^\n]*:%d+: interrupted!\nstack traceback:\n", text)
        assert.is_nil(text:find("'__transfer' failed", 1, true))
        assert.is_nil(text:find("rebuilt here", 1, true))
        assert.is_nil(text:find("needed by", 1, true))
        assert.equal(130, status)
      end)
    end
  end

  --- Each row: what is interrupted, and what is printed but for the error,
  --- which ends the program or not.
  for what, row in pairs {
    ["a coroutine that is the program"] = {
      "coroutine.wrap(function () interrupt() spin() end)()", "" },
    ["a coroutine in one in one"] = {
      "local f = spin for _ = 1, 3 do local g = f "
      .. "f = function () coroutine.wrap(g)() end end interrupt() f()", "" },
    ["a loop that resumes, and looks at nothing"] = {
      "interrupt() while true do "
      .. "coroutine.resume(coroutine.create(spin)) end", "" },
    ["one that resumes what yields"] = {
      "local co = coroutine.wrap(function () interrupt() while true do "
      .. "coroutine.yield() end end) while true do co() end", "" },
    ["a coroutine whose error is caught"] = {
      "print(pcall(coroutine.wrap(function () interrupt() spin() end))) "
      .. "print 'goes on'", "^false\t[^\n]*interrupted!\ngoes on\n$", 0 },
    ["a coroutine that catches it"] = {
      "print(coroutine.wrap(function () return pcall(function () "
      .. "interrupt() spin() end) end)()) for i = 1, 1e5 do i = i + 1 end "
      .. "print 'goes on'", "^false\t[^\n]*interrupted!\ngoes on\n$", 0 },
    ["a coroutine that is closed"] = {
      "local co = coroutine.create(function () local x <close> = "
      .. "setmetatable({}, { __close = function () interrupt() spin() end }) "
      .. "coroutine.yield() end) coroutine.resume(co) "
      .. "print(coroutine.close(co)) print 'goes on'", "" },
    ["a coroutine whose closing is caught"] = {
      "local co = coroutine.create(function () local x <close> = "
      .. "setmetatable({}, { __close = function () interrupt() spin() end }) "
      .. "coroutine.yield() end) coroutine.resume(co) "
      .. "print(pcall(coroutine.close, co)) print(coroutine.close(co)) "
      .. "print 'goes on'",
      "^false\t[^\n]*interrupted!\ntrue\ngoes on\n$", 0 },
    ["coroutines that 'wrap' made, from the innermost to 'resume'"] = {
      "local f = coroutine.wrap(function () coroutine.wrap(function () "
      .. "interrupt() spin() end)() end) local co = coroutine.create(f) "
      .. "print(coroutine.resume(co)) print 'goes on'", "" },
    ["a reader of 'load', which ends alone"] = {
      "print(load(function () interrupt() spin() end)) print 'goes on'",
      "^nil\t[^\n]*interrupted!.*\ngoes on\n$", 0 },
    ["no error of another coroutine that has its words"] = {
      "print(pcall(function () interrupt() spin() end)) "
      .. "local co = coroutine.create(function () "
      .. "error 'the download was interrupted!' end) "
      .. "print(coroutine.resume(co)) spin = nil "
      .. "for i = 1, 100 do i = i + 1 end print 'goes on'",
      "^false\t[^\n]*interrupted!\n"
      .. "false\t[^\n]*the download was interrupted!\ngoes on\n$", 0 },
    ["no error of its own coroutine that has its words"] = {
      "local co = coroutine.create(function () "
      .. "print(pcall(function () interrupt() spin() end)) "
      .. "error 'the download was interrupted!' end) "
      .. "print(coroutine.resume(co)) "
      .. "for i = 1, 100 do i = i + 1 end print 'goes on'",
      "^false\t[^\n]*interrupted!\n"
      .. "false\t[^\n]*the download was interrupted!\ngoes on\n$", 0 },
    ["a program that fails with its words then"] = {
      "pcall(function () interrupt() spin() end) "
      .. "error('upload interrupted! try again', 0)",
      "upload interrupted! try again\n", 1 },
    ["a program that fails for another reason then"] = {
      "pcall(function () interrupt() spin() end) error('another', 0)",
      "another\n", 1 },
    ["a job that a coroutine waits for"] = {
      "coroutine.wrap(function () parallel.run(function () interrupt() "
      .. "spin() end) end)()", "" },
  } do
    it("reaches " .. what, function ()
      local text, status = run_script(INTERRUPT .. row[1])
      if row[3] == nil then
        assert.matches("interrupted!\nstack traceback:\n", text)
      else
        assert.matches(row[2], text)
      end
      assert.equal(row[3] or 130, status)
    end)
  end

  -- ThreadSanitizer holds back signals from C code that calls nothing.
  local unless_held <const> = tree.sanitizers == "thread" and pending or it
  unless_held("ends a pattern that goes back and forth, whenever it comes",
              function ()
    local text, status = run_script([[
      local pid = io.open "/proc/self/stat":read "n"
      os.execute(("(while kill -INT %d 2>/dev/null; do sleep 0.1; done) &")
                 :format(pid))
      local pattern = ("a?"):rep(60) .. ("a"):rep(60) .. "b"
      print("found", ("a"):rep(60):find(pattern))
    ]])
    assert.is_nil(text:find("found", 1, true))
    assert.equal(130, status)
  end)

  it("ends the program as the signal does", function ()
    local pipe = assert(io.popen("exec " .. tree.runspace .. " -e \""
      .. "io.popen('kill -INT ' .. io.open '/proc/self/stat':read 'n'):close()"
      .. " while true do end\" 2>&1"))
    assert.matches("interrupted!", pipe:read "a")
    assert.same({ nil, "signal", 2, n = 3 }, table.pack(pipe:close()))
  end)

  it("ends a loop of a shell, too", function ()
    local script <const> = os.tmpname()
    write(script, [[
      local stat = io.open "/proc/self/stat":read "a"
      local group = stat:match "%) %a %d+ (%d+)"
      io.popen("kill -INT -" .. group):close()
      while true do end
    ]])
    local pipe <close> = assert(io.popen(
      ("setsid -w bash -c 'for i in 1 2 3; do echo turn; %s %s; done' 2>&1")
      :format(tree.runspace, script)))
    local text <const> = pipe:read "a"
    os.remove(script)
    assert.matches("^turn\n[^\n]*interrupted!\n", text)
    assert.is_nil(text:find("turn", 6, true))
  end)

  it("ends a program whose state closes, though one was caught before",
     function ()
    -- By the clock that the program looks at, this one is no second one.
    local text, status = run_script(INTERRUPT .. [[
      local caught
      setmetatable({}, { __gc = function ()
        repeat until parallel.now() > caught + 1
        interrupt()
        print "ignored"
      end })
      print(pcall(function () interrupt() spin() end))
      caught = parallel.now()
    ]])
    assert.matches("^false\t[^\n]*interrupted!\n$", text)
    assert.equal(130, status)
  end)

  it("ends the program when it comes again within a second", function ()
    local text, status = run_script(INTERRUPT .. [[
      parallel.spawn(spin)
      print(pcall(function () interrupt() spin() end))
      interrupt()
      spin()
    ]])
    assert.matches("^false\t[^\n]*interrupted!\n$", text)
    assert.equal(130, status)
  end)
end)

describe("the command line", function ()
  local dir

  setup(function ()
    local pipe <close> = assert(io.popen "mktemp -d")
    dir = pipe:read "l"
    for name, contents in pairs(files) do
      write(dir .. "/" .. name, contents)
    end
    -- Both interpreters go by the name 'lua'; its directory tells which.
    assert(os.execute(([[
      cd %s && chmod +x bang && mkdir ../$(basename $PWD).bin &&
      cd ../$(basename $PWD).bin && mkdir lua runspace &&
      ln -s %s lua/lua && ln -s %s runspace/lua]]):format(
      quote(dir), quote(absolute(tree.lua)), quote(absolute(tree.runspace)))))
  end)

  teardown(function ()
    os.execute(("rm -rf %s %s"):format(quote(dir), quote(dir .. ".bin")))
  end)

  --- Run a shell command with 'lua' being one of the two.
  ---@param which "lua"|"runspace"
  ---@param command string
  ---@return table  stdout, stderr, status
  local function run (which, command)
    local bin <const> = dir .. ".bin"
    write(bin .. "/command", command)
    local _, how, status = os.execute(([[
      cd %s || exit
      unset LUA_INIT LUA_INIT_5_4 LUA_PATH LUA_PATH_5_4 LUA_CPATH LUA_CPATH_5_4
      PATH=%s/%s:$PATH LC_ALL=C exec timeout 60 sh %s/command \
        </dev/null >%s/stdout 2>%s/stderr]]):format(
      quote(dir), quote(bin), which, quote(bin), quote(bin), quote(bin)))
    return {
      stdout = read(bin .. "/stdout"),
      stderr = read(bin .. "/stderr"),
      status = how .. " " .. status,
    }
  end

  --- Take away what runspace adds.
  local function without_additions (result)
    return {
      stdout = result.stdout:gsub("^runspace [%d.]+  %((Lua [^\n]*)%)\n",
                                  "%1\n"),
      stderr = result.stderr:gsub("\n  %-j N [^\n]*\n[^\n]*", "")
                            :gsub("\n  %-%-isolation [^\n]*", "")
                            :gsub("\n  %-%-serve [^\n]*", ""),
      status = result.status,
    }
  end

  for _, row in ipairs(rows) do
    it("does what that of lua5.4 does: " .. row:gsub("%s+", " "), function ()
      assert.same(run("lua", row), without_additions(run("runspace", row)))
    end)
  end

  for _, name in ipairs(modules) do
    it("loads modules as lua5.4 does: " .. name, function ()
      local command <const> = "lua " .. name .. ".lua"
      local expected <const> = run("lua", command)
      assert.is_nil(expected.stderr:find("module '[^']*' not found"))
      assert.same(expected, run("runspace", command))
    end)
  end

  it("shows its version before that of Lua", function ()
    assert.matches("^runspace %d+%.%d+%.%d+  %(Lua 5%.4%.%d+  .+%)\n$",
                   run("runspace", "lua -v").stdout)
  end)

  it("goes by 'runspace' if it was given no name", function ()
    local result = run("runspace", [[bash -c 'exec -a "" lua -e "error()"']])
    assert.matches("^runspace: %(error object is a nil value%)\n",
                   result.stderr)
  end)

  it("has the module 'parallel' as a global", function ()
    local result = run("runspace", [[lua -e '
      print(type(parallel), package.loaded.parallel == parallel,
            require "parallel" == parallel)']])
    assert.equal("table\ttrue\ttrue\n", result.stdout)
    assert.equal("exit 0", result.status)
  end)

  describe("SIGINT", function ()
    it("raises an error in the chunk, with where it was", function ()
      local command <const> = [[lua -e '
        local function spin () while true do end end
        io.popen("kill -INT $PPID"):close() spin()']]
      for which, status in pairs { lua = "exit 1", runspace = "exit 130" } do
        local result = run(which, command)
        assert.matches("^lua: [^\n]*interrupted!\nstack traceback:\n",
                       result.stderr)
        assert.equal(status, result.status)
      end
    end)

    it("ends the process the second time", function ()
      local result = run("runspace", [[lua -e '
        local function swallow () while true do end end
        pcall(function ()
          io.popen("kill -INT $PPID"):close()
          swallow()
        end)
        print "once"
        io.stdout:flush()
        io.popen("kill -INT $PPID"):close()
        swallow()'; echo $?]])
      assert.equal("once\n130\n", result.stdout)
    end)
  end)

  describe("-j", function ()
    local probe <const> = [[ -e '
      local records = parallel.collect(parallel.range(1, 200), function (i)
        for _ = 1, 1e4 do i = i + 1 end
        return i
      end)
      local most = 0
      for _, record in ipairs(records) do
        most = math.max(most, record.worker)
      end
      print(#records, most)']]

    for _, option in ipairs { "-j 1", "-j1", "-j 3 -j 1", "-j 01" } do
      it("sets the number of workers: " .. option, function ()
        local result = run("runspace", "lua " .. option .. probe)
        assert.equal("", result.stderr)
        assert.equal("200\t1\n", result.stdout)
      end)
    end

    it("is not an argument of the script", function ()
      local result = run("runspace", "lua -j 2 -j3 arg.lua a")
      assert.equal("a\n-4=lua -3=-j -2=2 -1=-j3 0=arg.lua 1=a 1\n",
                   result.stdout)
    end)

    for _, bad in ipairs {
      "-1", "1.5", "two", "2x", "''", "' 2'", "+2", "-e", "65537",
      "4294967296", "99999999999999999999",
    } do
      it("refuses " .. bad, function ()
        local result = run("runspace", "lua -j " .. bad .. " -e 'print(1)'")
        local text = bad:gsub("'", "")
        assert.equal("lua: '-j' needs an integer from 0 to 65536, not '"
                     .. text .. "'\n", result.stderr:match "^[^\n]*\n")
        assert.matches("\nusage: lua %[options%] %[script %[args%]%]\n",
                       result.stderr)
        assert.equal("", result.stdout)
        assert.equal("exit 1", result.status)
      end)
    end

    it("shows what a terminal would obey as numbers", function ()
      local result = run("runspace", "lua -j \"$(printf '\\033[31m2')\"")
      assert.equal("lua: '-j' needs an integer from 0 to 65536, not "
                   .. "'\\x1B[31m2'\n", result.stderr:match "^[^\n]*\n")
    end)

    it("takes the largest there is", function ()
      assert.equal("1\n", run("runspace", "lua -j 65536 -e 'print(1)'").stdout)
    end)

    it("needs an argument", function ()
      assert.matches("^lua: '%-j' needs argument\nusage: ",
                     run("runspace", "lua -j").stderr)
    end)
  end)
end)

describe("print", function ()
  it("writes a line at once, whatever its values wait for", function ()
    assert.equal("from a job\nfirst\tsecond\tnil\n", (run_script [[
      local slow <const> = setmetatable({}, { __tostring = function ()
        parallel.run "print 'from a job'"
        return "second"
      end })
      print("first", slow, nil)
    ]]))
  end)

  it("writes whole lines beside jobs that print", function ()
    local text <const> = run_script [[
      local long <const> = ("x"):rep(100)
      local pool <close> = parallel.pool { max = 4 }
      local jobs <const> = {}
      for i = 1, 4 do
        jobs[i] = pool:spawn(function (long)
          for _ = 1, 2000 do print("job", long, 1) end
        end, long)
      end
      repeat
        for _ = 1, 100 do print("host", long, 2) end
        local _, pending = parallel.wait(jobs, { timeout = 0 })
      until #pending == 0
    ]]
    local job <const> = "job\t" .. ("x"):rep(100) .. "\t1"
    local host <const> = "host\t" .. ("x"):rep(100) .. "\t2"
    local jobs, hosts = 0, 0
    for line in text:gmatch "[^\n]*\n" do
      line = line:sub(1, -2)
      if line == job then
        jobs = jobs + 1
      else
        assert.equal(host, line)
        hosts = hosts + 1
      end
    end
    assert.equal(8000, jobs)
    assert.equal(0, hosts % 100)
  end)
end)
