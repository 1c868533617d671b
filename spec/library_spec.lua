-- SPDX-License-Identifier: MIT
--- Functions of Lua's libraries that a runspace has versions of: each does
--- what it does in `lua5.4`.

local modules <const> = require "support.modules"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

--- What a host of its own says to the code: it has Lua's functions.
local function here (code)
  local results <const> = os.tmpname()
  run(([[
    local found = table.pack(load(%q, "=(chunk)")())
    local file <close> = assert(io.open(%q, "w"))
    file:write "return {"
    for i = 1, found.n do
      file:write(type(found[i]) == "string" and ("%%q"):format(found[i])
                 or tostring(found[i]), ",")
    end
    file:write("n = ", found.n, "}")
  ]]):format(code, results))
  local found <const> = dofile(results)
  os.remove(results)
  return found
end

--- Code that returns the same in a job as here.
local SAME <const> = {
  { "a hook that hears of everything", [[
    local seen = {}
    local function f () return 1 end
    debug.sethook(function (event, line)
      local what = debug.getinfo(2, "S").what
      seen[#seen + 1] = event .. ":" .. tostring(line) .. ":" .. what
    end, "crl")
    f()
    local t = setmetatable({}, { __index = function () return 2 end })
    t.x = t.y
    pcall(f)
    xpcall(f, f)
    debug.sethook()
    return table.concat(seen, " ")
  ]] },
  { "a hook that counts", [[
    local n = 0
    debug.sethook(function () n = n + 1 end, "", 100)
    for _ = 1, 10000 do end
    debug.sethook()
    return n
  ]] },
  { "a hook of a coroutine", [[
    local seen = {}
    local co = coroutine.create(function ()
      local x = 1
      coroutine.yield(x)
      x = 2
      return x
    end)
    debug.sethook(co, function (event, line)
      seen[#seen + 1] = event .. ":" .. tostring(line)
    end, "crl")
    coroutine.resume(co)
    seen[#seen + 1] = "yielded"
    coroutine.resume(co)
    return table.concat(seen, " "), debug.gethook()
  ]] },
  { "coroutines that inherit a hook, and do not call it", [[
    local seen = {}
    debug.sethook(function (_, line) seen[#seen + 1] = line end, "l")
    local co = coroutine.wrap(function ()
      local x = 1
      return x
    end)
    co()
    debug.sethook()
    return table.concat(seen, " ")
  ]] },
  { "the hook that is set", [[
    local function f () end
    debug.sethook(f, "cr", 5)
    local hook, mask, count = debug.gethook()
    debug.sethook()
    return hook == f, mask, count, debug.gethook()
  ]] },
  { "the hook that a coroutine inherits", [[
    debug.sethook(function () end, "cr", 5)
    local co = coroutine.create(function ()
      local hook, mask, count = debug.gethook()
      coroutine.yield(hook, mask, count)
    end)
    local found = { coroutine.resume(co) }
    local hook, mask, count = debug.gethook(co)
    debug.sethook()
    return tostring(found[2]), found[3], found[4], hook, mask, count
  ]] },
  { "misuse of hooks", [[
    local r = {}
    for _, a in ipairs { { 1 }, { print }, { print, "c", "x" } } do
      r[#r + 1] = select(2, pcall(function ()
        debug.sethook(table.unpack(a))
      end))
    end
    return table.concat(r, "\n")
  ]] },
  { "a finalizer of one's own", [[
    local function f () end
    local x = setmetatable({}, { __gc = f })
    return getmetatable(x).__gc == f
  ]] },
  { "finalizers that share a metatable, in their order", [[
    local order = {}
    local m = { __gc = function (t) order[#order + 1] = t.name end }
    for i = 1, 5 do setmetatable({ name = i }, m) end
    m.__gc = m.__gc
    collectgarbage()
    return table.concat(order, " ")
  ]] },
  { "a finalizer that is changed later", [[
    local log = ""
    local m = { __gc = true }
    local x = setmetatable({}, m)
    m.__gc = function () log = log .. "late" end
    x = nil
    collectgarbage()
    return log
  ]] },
  { "a finalizer that comes too late", [[
    local log = "none"
    local m = {}
    local x = setmetatable({}, m)
    m.__gc = function () log = "called" end
    x = nil
    collectgarbage()
    return log
  ]] },
  { "an object that is kept by its finalizer, and has it again", [[
    local n, kept = 0, nil
    local m = {}
    m.__gc = function (t) n = n + 1 kept = t end
    setmetatable({ value = 5 }, m)
    collectgarbage()
    local first, value = n, kept.value
    collectgarbage()
    kept = nil
    collectgarbage()
    local second = n
    kept = setmetatable({}, m)
    setmetatable(kept, m)
    setmetatable(kept, m)
    kept = nil
    collectgarbage()
    m.__gc = nil
    return first, value, second, n
  ]] },
  { "a metatable that goes, and its finalizer", [[
    local n = 0
    local x = setmetatable({}, { __gc = function () n = n + 1 end })
    setmetatable(x, nil)
    x = nil
    collectgarbage()
    return n
  ]] },
  { "a finalizer by debug.setmetatable", [[
    local n = 0
    local function f () n = n + 1 end
    local x = debug.setmetatable({}, { __gc = f })
    local same = debug.getmetatable(x).__gc == f
    x = nil
    collectgarbage()
    return n, same
  ]] },
  { "a finalizer in C, and one that is none", [[
    local x = setmetatable({}, { __gc = print and type })
    local y = setmetatable({}, { __gc = 5 })
    x, y = nil, nil
    collectgarbage()
    return "no more"
  ]] },
  { "a finalizer that is called by its own metatable", [[
    local seen = {}
    local callable = setmetatable({}, { __call = function (self, t)
      seen[#seen + 1] = tostring(self.name) .. t.name
      setmetatable({}, self)  -- the hook of a stop can come here
    end })
    callable.name = "callable "
    setmetatable({ name = 1 }, { __gc = callable })
    setmetatable({ name = 2 }, { __gc = setmetatable({ name = "outer " }, {
      __call = callable }) })
    collectgarbage()
    local m = { __gc = setmetatable({}, {
      __call = function () error "raised" end }) }
    setmetatable({}, m)
    collectgarbage()
    return table.concat(seen, ", ")
  ]] },
  { "weak tables of objects with finalizers", [[
    local seen
    local values = setmetatable({}, { __mode = "v" })
    local keys = setmetatable({}, { __mode = "k" })
    do
      local x = setmetatable({}, { __gc = function (t)
        seen = tostring(values[1] ~= nil) .. tostring(keys[t])
      end })
      values[1] = x
      keys[x] = "value"
    end
    collectgarbage()
    collectgarbage()
    return seen, next(keys), next(values)
  ]] },
  { "the locale", [[
    return os.setlocale(), os.setlocale(nil, "numeric"),
           os.setlocale("C"), os.setlocale("C", "time"),
           os.setlocale("POSIX"), os.setlocale("no such locale"),
           select("#", os.setlocale("no such locale"))
  ]] },
  { "a locale that is misused", [[
    return select(2, pcall(function () os.setlocale("C", "x") end))
        .. select(2, pcall(function () os.setlocale({}) end))
  ]] },
  { "the collector", [[
    local r = {}
    local function add (...) r[#r + 1] = tostring((...)) end
    add(collectgarbage "isrunning")
    add(collectgarbage "stop")
    add(collectgarbage "isrunning")
    add(collectgarbage "restart")
    add(math.type(collectgarbage "count"))
    add(collectgarbage())
    add(collectgarbage "generational")
    add(collectgarbage "incremental")
    add(collectgarbage "incremental")
    add(collectgarbage "generational")
    add(collectgarbage("generational", 20, 100))
    add(collectgarbage("step"))
    add(pcall(collectgarbage, "nothing"))
    return table.concat(r, " ")
  ]] },
  { "a generational collector, which is how it begins", [[
    local mode = collectgarbage "incremental"
    collectgarbage(mode)
    return mode
  ]] },
  { "the registry", [[
    local r = debug.getregistry()
    return type(r), type(r[1]), type(r[2]), type(r._LOADED),
           r._LOADED == package.loaded
  ]] },
  { "warnings", [[
    return select("#", warn "@off"), pcall(warn), pcall(warn, {})
  ]] },
  { "source that is loaded", [[
    local parts = { "return ", "1", " + 1" }
    local i = 0
    local function reader () i = i + 1 return parts[i] end
    local _ENV = { load = load, pcall = pcall, select = select,
                   tostring = tostring }
    local function second (_, x) return x end
    return load(reader)(), second(load "x ="), second(load("x", "=n")),
           load("return x", "n", "t", { x = 3 })(),
           second(pcall(load("return x", "=n", "t", nil))),
           second(load("x", "n", "b")), second(pcall(load)),
           second(pcall(load, {})),
           second(load(function () return {} end)):match "^%C*"
  ]] },
  { "files that are not there", [[
    return select(2, loadfile "/nowhere/x.lua"),
           select(2, pcall(function () dofile "/nowhere/x.lua" end)),
           select(2, pcall(function () loadfile({}) end)),
           select(2, pcall(function () dofile({}) end))
  ]] },
  { "functions called by others, and misused", [[
    local r = {}
    for _, f in ipairs { rawget, rawset, next, pairs, setmetatable,
                         getmetatable, load, loadfile, xpcall, require,
                         coroutine.wrap, coroutine.resume, coroutine.close,
                         debug.sethook, debug.setmetatable, os.setlocale } do
      local _, text = pcall(f, false)
      r[#r + 1] = tostring(text):gsub("0x%x+", "address")
    end
    return table.concat(r, "\n")
  ]] },
}

for _, reset in ipairs { "globals", "none", "fresh" } do
  describe(("with reset = '%s' a job finds"):format(reset), function ()
    for _, row in ipairs(SAME) do
      it(row[1] .. " as in lua5.4", function ()
        local pool <close> = parallel.pool { max = 1, reset = reset }
        assert.same(here(row[2]), table.pack(pool:run(row[2])))
      end)
    end
  end)
end

describe("the locale", function ()
  it("is not changed by a job, which hears why", function ()
    local ok, failure = parallel.spawn("os.setlocale 'C.UTF-8'"):join()
    assert.is_false(ok)
    assert.matches("os.setlocale%(C.UTF%-8%) was called in a runspace",
                   tostring(failure))
    assert.equal("C", os.setlocale())
  end)
end)

describe("a reader of 'load' that raises", function ()
  local CODE <const> = [[
    local text = select(2, load(function () error({ "raised" }) end))
    return "result", type(text)
  ]]
  it("leaves nothing among the results", function ()
    assert.same({ "result", "table", n = 2 },
                table.pack(parallel.run(CODE)))
    assert.same({ "result", "result", "result", n = 3 },
                parallel.map({ 1, 2, 3 }, CODE, { chunk = 3 }))
    local records <const> = parallel.collect({ 1, 2 }, CODE)
    for i = 1, 2 do
      assert.equal("completed", records[i].state)
      assert.same({ "result", "table", n = 2 }, records[i].results)
    end
  end)
end)

describe("a hook", function ()
  it("that 'init' sets is that of each job, and of each item", function ()
    local _ <close> = modules.new { spec_coverage = [[
      local lines = {}
      local hook = function (_, line)
        local source = debug.getinfo(2, "S").source
        if source == "=(chunk)" then lines[line] = (lines[line] or 0) + 1 end
      end
      debug.sethook(hook, "l")
      return { lines = lines, hook = hook }
    ]] }
    local pool <close> = parallel.pool { max = 1,
                                         init = "require 'spec_coverage'" }
    for _ = 1, 3 do
      pool:run(("\n"):rep(10) .. "local x = 1\n"
               .. "debug.sethook()\n x = 2\n")
      pool:map({ 1, 2 }, ("\n"):rep(20) .. "return ...", { chunk = 2 })
    end
    assert.same({ 3, 3, "nil", 6, n = 4 }, table.pack(pool:run [[
      local lines = require "spec_coverage".lines
      return lines[11], lines[12], tostring(lines[13]), lines[21]
    ]]))
    assert.same({ true, "l", 0, n = 3 }, table.pack(pool:run [[
      local hook, mask, count = debug.gethook()
      return hook == require "spec_coverage".hook, mask, count
    ]]))
  end)

  it("that 'init' sets is seen in coroutines as one of the job is",
     function ()
    local SEEN <const> = [[
      local function look (...)
        local hook, mask, count = debug.gethook(...)
        return type(hook), mask, count
      end
      local co = coroutine.create(look)
      local a, b, c = look(co)
      local main = coroutine.running()
      return a, b, c, look(), coroutine.wrap(function ()
        return look(main)
      end)(), select(2, coroutine.resume(co))
    ]]
    local SET <const> = "debug.sethook(function () end, 'r', 7) "
    local pool <close> = parallel.pool { max = 1, init = SET }
    assert.same(here(SET .. SEEN), table.pack(pool:run(SEEN)))
    assert.same(here(SET .. SEEN), table.pack(parallel.run(SET .. SEEN)))
  end)

  it("that counts, from 'init', samples each job", function ()
    local pool <close> = parallel.pool { max = 1, init = [[
      samples = {}
      debug.sethook(function ()
        local at = debug.getinfo(2, "Sl")
        samples[#samples + 1] = at.source .. ":" .. at.currentline
      end, "", 1000)
    ]] }
    for _ = 1, 3 do
      local before <const> = pool:run "return #samples"
      pool:run "for i = 1, 1e5 do end"
      assert.truthy(pool:run "return #samples" >= before + 90)
    end
  end)

  it("of a job ends with it", function ()
    local pool <close> = parallel.pool { max = 1 }
    pool:run [[
      string.calls = 0
      debug.sethook(function () string.calls = string.calls + 1 end, "c")
    ]]
    local before <const> = pool:run "return string.calls"
    assert.is_nil(pool:run "return debug.gethook()")
    assert.equal(before, pool:run "return string.calls")
  end)

  it("comes back when a stopped job goes on cleaning up", function ()
    local parts <close> = parallel.pool { max = 1, init = [[
      lines = 0
      debug.sethook(function () lines = lines + 1 end, "l")
    ]] }
    local job <const> = parts:spawn [[
      pcall(function ()
        parallel.task.emit "begun"
        while true do end
      end)
      local before = lines
      local x = 1
      x = 2
      string.heard = lines - before
      string.hook = select(2, debug.gethook())
    ]]
    local begun = false
    parallel.on("begun", function () begun = true end)
    while not begun do parallel.poll(1) end
    job:cancel { grace = 60 }
    assert.equal("cancelled", job:wait())
    local heard, mask = parts:run "return string.heard, string.hook"
    assert.truthy(heard >= 3)
    assert.equal("l", mask)
  end)
end)

describe("a finalizer", function ()
  it("runs at the end of the state", function ()
    local name <const> = os.tmpname()
    do
      local pool <close> = parallel.pool { max = 1 }
      pool:run([[
        local name = ...
        string.kept = setmetatable({}, { __gc = function ()
          local file = io.open(name, "w")
          file:write "finalized"
          file:close()
        end })
      ]], name)
    end
    local file <close> = io.open(name)
    assert.equal("finalized", file:read "a")
    os.remove(name)
  end)

  it("costs no more for many objects than for few", function ()
    assert.equal(2e5, parallel.run [[
      local n = 0
      local m = { __gc = function () n = n + 1 end }
      for _ = 1, 2e5 do setmetatable({}, m) end
      collectgarbage()
      return n
    ]])
  end)
end)

describe("the C stack", function ()
  local CLOSERS <const> = [[
    local function nest (n, f)
      if n == 0 then return f() end
      return (("x"):gsub("x", function () nest(n - 1, f) end))
    end
    local function make (depth)
      return coroutine.create(function ()
        local _ <close> = setmetatable({}, { __close = function ()
          if depth == 0 then return end
          nest(180, function ()
            local co = make(depth - 1)
            coroutine.resume(co)
            assert(coroutine.close(co))
          end)
        end })
        coroutine.yield()
      end)
    end
    local co = make(40)
    coroutine.resume(co)
    return select(2, coroutine.close(co))
  ]]

  --- Ways to nest calls without end.
  local NESTED <const> = {
    "(('x'):gsub('x', f))", "coroutine.wrap(f)()",
    "('%s'):format(setmetatable({}, { __tostring = f }))",
    "table.sort({ 3, 2, 1, 5, 4 }, f)",
    "table.concat(setmetatable({}, { __index = f, "
    .. "__len = function () return 1 end }))",
    "setmetatable({}, { __index = function (t, k) return t[k] end }).x",
  }

  it("is not overflown by coroutines that are closed at any depth",
     function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.matches("C stack overflow", tostring(pool:run(CLOSERS)))
    assert.equal("well", pool:run "return 'well'")
  end)

  for _, call in ipairs(NESTED) do
    it("is not overflown by " .. call, function ()
      local pool <close> = parallel.pool { max = 1 }
      local text <const> = pool:run(("local function f () return %s end "
        .. "return tostring(select(2, pcall(f)))"):format(call))
      assert.matches("C stack overflow", text)
      assert.equal("well", pool:run "return 'well'")
    end)
  end

  it("of the host may be small", function ()
    local tree <const> = require "support.tree"
    if tree.sanitizers ~= "" then return end  -- they need more themselves
    local script <const> = os.tmpname()
    local file <close> = assert(io.open(script, "w"))
    file:write("local function closers () " .. CLOSERS .. " end\n",
               "print(select(2, pcall(closers)))\n",
               "local function f () return (('x'):gsub('x', f)) end\n",
               "print(select(2, pcall(f)))\n",
               "print(parallel.run 'return 5')\n")
    file:flush()
    -- The environment is on the stack, too: 16 KiB are not enough for that of
    -- 'make check', and for what the system leaves out there at random.
    for _, size in ipairs { 16, 64, 256, 8192 } do
      local pipe <close> = assert(io.popen(
        ("env -i sh -c 'ulimit -s %d && exec %s %s 2>&1'")
          :format(size, tree.runspace, script)))
      assert.matches("^[^\n]*C stack overflow[^\n]*\n"
                     .. "[^\n]*C stack overflow[^\n]*\n5\n$",
                     pipe:read "a")
    end
    os.remove(script)
  end)
end)
