-- SPDX-License-Identifier: MIT
local modules <const> = require "support.modules"
local parallel <const> = require "parallel"

describe("warn", function ()
  local tree <const> = require "support.tree"
  local function run (options)
    local pipe = assert(io.popen(tree.runspace .. options .. " 2>&1"))
    local text = pipe:read "a"
    pipe:close()
    return text
  end

  it("speaks in runspaces where it is switched on", function ()
    local job <const> = "parallel.run(function () warn 'w' end)"
    assert.equal("", run((' -e "%s"'):format(job)))
    assert.equal("Lua warning: w\n", run((' -W -e "%s"'):format(job)))
    assert.equal("Lua warning: w\n", run(
      [[ -e "parallel.run(function () warn '@on' warn 'w' end)"]]))
  end)
end)

describe("a job", function ()
  it("does not see the globals of the host", function ()
    rawset(_G, "host_only", "here")
    local seen = parallel.run("return host_only")
    rawset(_G, "host_only", nil)
    assert.is_nil(seen)
  end)

  it("does not change the upvalues of the host", function ()
    local count, list = 0, {}
    parallel.map({ 1, 2 }, function (x)
      count = count + 1
      list[x] = x
    end)
    assert.equal(0, count)
    assert.same({}, list)
  end)

  it("does not leave its globals to the next job", function ()
    local pool <close> = parallel.pool { max = 1 }
    pool:run("leaked = 1; function helper () end")
    assert.same({ "nil", "nil", n = 2 }, table.pack(
      pool:run("return type(leaked), type(helper)")))
    pool:run(function () leaked = 1 end)  -- luacheck: ignore 111
    assert.equal("nil", pool:run(function ()
      return type(leaked)  -- luacheck: ignore 113
    end))
  end)

  it("does not leave them by '_G' or by 'load' either", function ()
    local pool <close> = parallel.pool { max = 1 }
    pool:run("_G.leaked = 1; load('also_leaked = 2')()")
    assert.same({ "nil", "nil", n = 2 }, table.pack(
      pool:run("return type(leaked), type(also_leaked)")))
  end)

  it("finds its own globals by '_G' and in a chunk that it loads", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.same({ 1, 1, 2, n = 3 }, table.pack(pool:run([[
      mine = 1
      load("loaded = 2")()
      return _G.mine, load("return mine")(), loaded
    ]])))
  end)

  it("sees its globals in all functions that came with it", function ()
    local function get () return shared end  -- luacheck: ignore 113
    assert.equal(5, parallel.run(function ()
      shared = 5  -- luacheck: ignore 111
      return get()
    end))
  end)

  it("may assign to '_ENV', for itself", function ()
    for _, reset in ipairs { "globals", "none" } do
      local pool <close> = parallel.pool { max = 1, reset = reset }
      assert.same({ 3, "nil", n = 2 }, table.pack(pool:run [[
        local type = type
        _ENV = { x = 3 }
        return x, type(tostring)
      ]]))
      assert.equal("42", pool:run "return tostring(42)")
      assert.equal(9, pool:run [[
        local function f () return x end
        debug.setupvalue(f, 1, { x = 9 })
        return f()
      ]])
      assert.is_nil(pool:run(function ()
        return x  -- luacheck: ignore 113
      end))
      assert.same({ "1", "2", n = 2 }, pool:map({ 1, 2 }, function (v)
        return tostring(v)
      end))
    end
  end)

  it("may overwrite a global, for itself", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(1, pool:run("print = 1; return print"))
    assert.equal("function", pool:run("return type(print)"))
  end)

  it("lists the globals that it has", function ()
    local pool <close> = parallel.pool { max = 1,
                                         variables = { given = 1 } }
    assert.same({ true, true, true, n = 3 }, table.pack(pool:run([[
      own = 1
      local seen = {}
      for name in pairs(_G) do seen[name] = true end
      return seen.own, seen.given, seen.print
    ]])))
  end)

  it("that ends the process ends itself only", function ()
    local pool <close> = parallel.pool { max = 1 }
    local ok, failure = pool:spawn("os.exit(3)"):join()
    assert.is_false(ok)
    assert.equal("failed", failure.state)
    assert.equal(4, pool:run("return 4"))
  end)

  it("cannot change the locale of the process", function ()
    local before <const> = os.setlocale()
    parallel.spawn("os.setlocale('C.UTF-8')"):join()
    assert.equal(before, os.setlocale())
  end)
end)

describe("an item of a map", function ()
  it("does not leave its globals to another item", function ()
    local results = parallel.map(parallel.range(100), [[
      local before = leaked
      leaked = ...
      return before
    ]], { limit = 1, chunk = 100 })
    for i = 1, 100 do assert.is_nil(results[i]) end
  end)

  it("does not share tables with another item", function ()
    local shared <const> = { hits = 0 }
    local results = parallel.map({ shared, shared }, function (t)
      t.hits = t.hits + 1
      return t.hits
    end, { chunk = 2 })
    assert.same({ 1, 1, n = 2 }, results)
  end)
end)

describe("modules", function ()
  it("stay loaded from job to job", function ()
    local _ <close> = modules.new { spec_counter = [[
      local counter = { loads = 0 }
      return counter
    ]] }
    local pool <close> = parallel.pool { max = 1 }
    local bump <const> = [[
      local counter = require "spec_counter"
      counter.loads = counter.loads + 1
      return counter.loads
    ]]
    assert.equal(1, pool:run(bump))
    assert.equal(2, pool:run(bump))
  end)

  it("keep the globals that they need", function ()
    local _ <close> = modules.new { spec_global = [[
      spec_global_state = "kept"
      return { get = function () return spec_global_state end }
    ]] }
    local pool <close> = parallel.pool { max = 1 }
    assert.equal("kept", pool:run("return require 'spec_global'.get()"))
    assert.equal("kept", pool:run("return require 'spec_global'.get()"))
  end)
end)

describe("reset", function ()
  it("'globals' forgets the globals of a job", function ()
    local pool <close> = parallel.pool { max = 1, reset = "globals" }
    pool:run("kept = 1")
    assert.is_nil(pool:run("return kept"))
  end)

  it("'globals' leaves them to the next minor collection", function ()
    local pool <close> = parallel.pool { max = 1, init = "gone = {}" }
    -- A global, so that the next job has an environment that is young.
    pool:run("first = 1  collectgarbage()")
    pool:run([[
      local gone = gone
      large = setmetatable({}, { __gc = function () gone.gone = true end })
    ]])
    pool:run "other = 1"
    assert.is_true(pool:run("collectgarbage 'step' return gone.gone"))
  end)

  it("'none' keeps them", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none" }
    pool:run("kept = 1")
    assert.equal(1, pool:run("return kept"))
    assert.equal(1, pool:run(function ()
      return kept  -- luacheck: ignore 113
    end))
  end)

  it("'none' counts through the items of a map", function ()
    local pool <close> = parallel.pool { max = 1, reset = "none" }
    assert.same({ 1, 2, 3, n = 3 }, pool:map({ 1, 1, 1 },
      "total = (total or 0) + ... return total"))
  end)

  it("'fresh' gives each job a new state", function ()
    local pool <close> = parallel.pool { max = 1, reset = "fresh",
                                         variables = { given = { 1 } } }
    pool:run("kept = 1; string.kept = 2; given[1] = 3")
    assert.same({ "nil", "nil", 1, n = 3 }, table.pack(pool:run(
      "return type(kept), type(string.kept), given[1]")))
  end)

  it("is an option of a call too", function ()
    assert.same({ 1, 2, n = 2 }, parallel.map({ 1, 1 },
      "total = (total or 0) + ... return total",
      { reset = "none", limit = 1 }))
  end)
end)

describe("what a job leaves to the next one is what the manual tells:",
         function ()
  local BOTH <const> = { globals = true, none = true }
  local NONE <const>, NEVER <const> = { none = true }, {}

  --- Each row: what the first job does, whether the second one finds it, and
  --- where it does.
  local rows <const> = {
    { "x = 1", "x ~= nil", NONE },
    { "_G.x = 1", "x ~= nil", NONE },
    { "rawset(_G, 'x', 1)", "x ~= nil", NONE },
    { "load 'x = 1' ()", "x ~= nil", NONE },
    { "package.loaded._G.x = 1", "x ~= nil", NONE },
    { "package.loaded._G.print = nil", "print == nil", NONE },
    { "setmetatable(_G, { __index = function () return 7 end })", "x == 7",
      NONE },
    { "debug.sethook(function () end, 'l')", "debug.gethook() ~= nil", NEVER },
    { "_ENV = {}", "print == nil", NEVER },
    { "package.loaded.some = 1", "package.loaded.some ~= nil", BOTH },
    { "rawset(package.loaded, 'some', 1)",
      "select(2, pcall(require, 'some')) == 1", BOTH },
    { "package.loaded.utf8 = nil", "rawget(package.loaded, 'utf8') == nil",
      BOTH },
    { "string.trim = 1", "string.trim ~= nil", BOTH },
    { "package.path = '?'", "package.path == '?'", BOTH },
    { "package.preload.some = print", "package.preload.some ~= nil", BOTH },
    { "package.searchers[5] = print", "#package.searchers == 5", BOTH },
    { "given.x = 1", "given.x ~= nil", BOTH },
    { "given = { x = 1 }", "given.x ~= nil", NONE },
    { "getmetatable('').__index = function () return 7 end",
      "('').x == 7", BOTH },
    { "debug.setmetatable(1, { __index = function () return 7 end })",
      "FIELD(1) == 7", BOTH },
    { "debug.setmetatable(nil, { __index = function () return 7 end })",
      "FIELD(nil) == 7", BOTH },
    { "debug.setmetatable(print, { __index = function () return 7 end })",
      "FIELD(print) == 7", BOTH },
    { "io.output(io.stderr)", "io.output() == io.stderr", BOTH },
    { "collectgarbage 'stop'", "not collectgarbage 'isrunning'", BOTH },
    { "collectgarbage 'incremental'",
      "collectgarbage 'incremental' == 'incremental'", BOTH },
    { "math.randomseed(7)",
      "math.random(0) == (math.randomseed(7) and math.random(0))", BOTH },
    { "debug.getregistry()[2].print = nil", "print == nil", BOTH },
  }
  for _, row in ipairs(rows) do
    it(row[1], function ()
      for _, reset in ipairs { "globals", "none", "fresh" } do
        local pool <close> = parallel.pool { max = 1, reset = reset,
                                             variables = { given = {} } }
        pool:run(row[1])
        assert.equal(row[3][reset] or false, pool:run(
          "local function FIELD (v) "
          .. "return select(2, pcall(function () return v.x end)) end "
          .. "return " .. row[2]), reset)
      end
    end)
  end
end)

--- What the results of a chunk are, as text.
local SHOW <const> = [[
local chunk = ...
local load, pack, concat, tostring = load, table.pack, table.concat, tostring
local found = pack(load(chunk, "=(chunk)")())
for i = 1, found.n do found[i] = tostring(found[i]) end
return concat(found, " ")
]]

--- Each row: what a job does, its code, what that returns in `lua5.4`.
local LOOKS <const> = {
  { "sets '_G' to nil", "_G = nil  return _G, type(print)", "nil function" },
  { "clears its globals by pairs",
    "local G = _G  for k in pairs(G) do G[k] = nil end "
    .. "return print, _G, type, next", "nil nil nil nil" },
  { "clears them by next",
    "for k in next, _G do _ENV[k] = nil end  return print, _G", "nil nil" },
  { "clears them by rawset",
    "local G, set = _G, rawset  for k in next, G do set(G, k, nil) end "
    .. "return print, _G", "nil nil" },
  { "counts them", "local n, m = 0, 0  for _ in next, _G do n = n + 1 end "
    .. "for _ in pairs(_G) do m = m + 1 end  return n == m and n > 20",
    "true" },
  { "takes one away", "print = nil  return print, rawget(_G, 'print')",
    "nil nil" },
  { "changes one, and takes it away",
    "print = 1  local old = print  print = nil  return old, print",
    "1 nil" },
  { "takes one away by rawset",
    "rawset(_G, 'print', nil)  return print, rawget(_G, 'print')",
    "nil nil" },
  { "uses raw access",
    "rawset(_G, 'x', 1)  return x, rawget(_G, 'x'), rawlen(_G), "
    .. "rawget(_G, 'print') == print, rawequal(_G, _ENV), _ENV == _G, "
    .. "_G._G == _G, rawget(_G, '_G') == _G",
    "1 1 0 true true true true true" },
  { "looks for the metatable",
    "return getmetatable(_G), debug.getmetatable(_G)", "nil nil" },
  { "gives them a metatable",
    "local m = { __index = function (_, k) return k .. '!' end } "
    .. "local t = setmetatable(_G, m) "
    .. "return foo, t == _G, getmetatable(_G) == m, type(print)",
    "foo! true true function" },
  { "gives them a metatable that hears of assignments",
    "setmetatable(_G, { __newindex = function (t, k, v) "
    .. "rawset(t, k, v * 2) end })  y = 2  return y, rawget(_G, 'y')",
    "4 4" },
  { "takes their metatable away again",
    "setmetatable(_G, { __index = function () return 1 end }) "
    .. "local a = foo  setmetatable(_G, nil)  return a, foo, getmetatable(_G)",
    "1 nil nil" },
  { "gives them a protected metatable",
    "setmetatable(_G, { __metatable = 'mine' }) "
    .. "return getmetatable(_G), pcall(setmetatable, _G, nil)",
    "mine false cannot change a protected metatable" },
  { "gives them a metatable by 'debug'",
    "debug.setmetatable(_G, { __index = function () return 7 end }) "
    .. "return zzz", "7" },
  { "loads a chunk with them",
    "local f = load('x = 5  return x', 'n', 't', _G)  return f(), x",
    "5 5" },
  { "inherits from them",
    "local t = setmetatable({}, { __index = _G }) "
    .. "return t.print == print, next(t)", "true nil" },
  { "takes them for a list",
    "table.insert(_G, 5)  return _G[1], #_G, rawlen(_G), table.unpack(_G)",
    "5 1 1 5" },
  { "asks for 'next' and 'pairs' themselves",
    "return pairs({}) == next, next({}), select('#', next({}))",
    "true nil 1" },
  { "misuses them", "local function f (...) "
    .. "return select(2, pcall(...)):gsub('%d', '%%') end "
    .. "return f(rawget, 1, 2), f(pairs), f(next, {}, 1), f(rawset, {})",
    "bad argument #% to 'rawget' (table expected, got number) "
    .. "bad argument #% to 'pairs' (value expected) "
    .. "invalid key to 'next' bad argument #% to 'rawset' (value expected) "
    .. "1" },
  { "assigns to them behind its back",
    "package.loaded._G.leaked = 1  debug.getregistry()[2].leaked_too = 2 "
    .. "return leaked, leaked_too", "1 2" },
  { "finds them among the modules",
    "return package.loaded._G == _G, require '_G' == _G, "
    .. "package.loaded._G._G == _ENV", "true true true" },
  { "takes one away from the module",
    "package.loaded._G.print = nil  return print, package.loaded._G.print",
    "nil nil" },
  { "changes those of the module",
    "x = 0  require('_G').print = 1  rawset(package.loaded._G, 'y', 2) "
    .. "return print, y, x", "1 2 0" },
  { "lists the modules",
    "local loaded, seen, n = package.loaded, {}, 0 "
    .. "for k, v in pairs(loaded) do seen[k], n = v, n + 1 end "
    .. "local k, v = next(loaded, '_G')  while k do k = next(loaded, k) end "
    .. "return seen._G == _G, seen.string == string, n > 8, "
    .. "n == #(function () local t = {} "
    .. "for k in next, loaded do t[#t + 1] = k end return t end)(), "
    .. "rawget(loaded, '_G') == _G, rawlen(loaded), type(loaded), "
    .. "getmetatable(loaded), debug.getmetatable(loaded)",
    "true true true true true 0 table nil nil" },
  { "gives the modules a metatable",
    "setmetatable(package.loaded, { __index = function () return 7 end }) "
    .. "local found = package.loaded.none  setmetatable(package.loaded, nil) "
    .. "return found, package.loaded.none, package.loaded.string == string",
    "7 nil true" },
  { "does not find a module", "local _, m = pcall(function () "
    .. "return (require 'no such') end)  return m:match '^%C*'",
    "(chunk):1: module 'no such' not found:" },
}

for _, reset in ipairs { "globals", "fresh", "none" } do
  describe(("with reset = '%s' a job that"):format(reset), function ()
    for _, row in ipairs(LOOKS) do
      it(row[1] .. " sees what Lua shows, and nobody else does", function ()
        local pool <close> = parallel.pool { max = 1, reset = reset }
        assert.equal(row[3], pool:run(SHOW, row[2]))
        if reset == "none" then return end
        assert.equal("table function true true nil nil nil nil",
                     pool:run(SHOW, "return type(_G), type(print), "
                       .. "_G == _ENV, _G._G == _G, x, getmetatable(_G), "
                       .. "leaked, leaked_too"))
      end)
    end
  end)
end

for _, reset in ipairs { "globals", "fresh", "none" } do
  it("globals of 'init' count as those of the job: " .. reset, function ()
    local pool <close> = parallel.pool { max = 1, reset = reset, init = [[
      for i = 1, 5 do _G[i] = i end ]] }
    for _ = 1, 2 do
      assert.same({ 5, 6, 5, 5, 6, n = 5 }, table.pack(pool:run [[
        local before = #_G
        _G[6] = 6
        local after = #_ENV
        table.remove(_G)
        local removed = #_G
        table.remove(_G, 1)
        table.insert(_G, 1, "x")
        return before, after, removed, rawlen(_G), #_G + 1 ]]))
      if reset == "none" then pool:run "_G[6] = nil" end
    end
    assert.equal(0, pool:run "return #package.loaded")
  end)
end

describe("strictness", function ()
  --- As the strict.lua that comes with Lua.
  local LUAS <const> = [[
    local mt = getmetatable(_G)
    if mt == nil then mt = {} setmetatable(_G, mt) end
    mt.__declared = {}
    local function what ()
      local d = debug.getinfo(3, "S")
      return d and d.what or "C"
    end
    mt.__newindex = function (t, n, v)
      if not mt.__declared[n] then
        local w = what()
        if w ~= "main" and w ~= "C" then
          error("assign to undeclared variable '" .. n .. "'", 2)
        end
        mt.__declared[n] = true
      end
      rawset(t, n, v)
    end
    mt.__index = function (t, n)
      if not mt.__declared[n] and what() ~= "C" then
        error("variable '" .. n .. "' is not declared", 2)
      end
      return rawget(t, n)
    end ]]

  --- As the one of Penlight.
  local PENLIGHTS <const> = [[
    local function what ()
      local d = debug.getinfo(3, "S")
      return d and d.what or "C"
    end
    local mt = getmetatable(_G)
    if type(mt) ~= "table" then mt = {} setmetatable(_G, mt) end
    local old_index, old_newindex = mt.__index, mt.__newindex
    local declared = {}
    mt.__newindex = function (t, n, v)
      if old_newindex then
        old_newindex(t, n, v)
        if rawget(t, n) ~= nil then return end
      end
      if not declared[n] then
        local w = what()
        if w ~= "main" and w ~= "C" then
          error("assign to undeclared variable '" .. n .. "'", 2)
        end
        declared[n] = true
      end
      rawset(t, n, v)
    end
    mt.__index = function (t, n)
      if not declared[n] and what() ~= "C" then
        if old_index then return old_index(t, n) end
        error("variable '" .. n .. "' is not declared", 2)
      end
      return rawget(t, n)
    end ]]

  local USE <const> = [[
    local _, unread = pcall(function () return unknown end)
    local _, unset = pcall(function () unknown = 1 end)
    declared = 1
    rawset(_G, "raw", 2)
    print = print
    return unread, unset, declared, raw, rawget(_G, "unknown")
  ]]

  local function check (pool, code)
    for _ = 1, 2 do
      local unread, unset, declared, raw, unknown = pool:run(code)
      assert.matches("variable 'unknown' is not declared$", unread)
      assert.matches("assign to undeclared variable 'unknown'$", unset)
      assert.same({ 1, 2 }, { declared, raw })
      assert.is_nil(unknown)
    end
    assert.same({ 1, 2, n = 2 }, pool:map({ 1, 2 },
                                          "item = ...  return item"))
  end

  for name, source in pairs { ["Lua's"] = LUAS, ["Penlight's"] = PENLIGHTS } do
    for _, reset in ipairs { "globals", "fresh", "none" } do
      it(("of %s strict.lua holds with reset = '%s'"):format(name, reset),
         function ()
        local _ <close> = modules.new { spec_strict = source }
        local by_init <close> = parallel.pool { max = 1, reset = reset,
                                                init = source }
        check(by_init, USE)
        local by_module <close> = parallel.pool { max = 1, reset = reset,
          modules = { "spec_strict" } }
        check(by_module, USE)
        local by_job <close> = parallel.pool { max = 1, reset = reset }
        check(by_job, "require 'spec_strict' " .. USE)
        if reset ~= "none" then  -- there Penlight's calls itself, as in Lua
          local inline <close> = parallel.pool { max = 1, reset = reset }
          check(inline, source .. USE)
          assert.is_nil(inline:run "return unknown")
        end
      end)
    end
  end
end)

describe("what a strict metatable has noted", function ()
  it("is what it was for each job, and each item", function ()
    local LUAS <const> = [[
      local mt = getmetatable(_G) or {}
      setmetatable(_G, mt)
      mt.__declared = {}
      mt.__newindex = function (t, n, v)
        mt.__declared[n] = true
        rawset(t, n, v)
      end
      mt.__index = function (t, n)
        if not mt.__declared[n] then
          error("variable '" .. n .. "' is not declared", 2)
        end
      end ]]
    local _ <close> = modules.new { spec_declares = LUAS }
    local by_init <const> = LUAS .. "of_init = nil"
    for _, options in ipairs {
      { max = 1, init = by_init },
      { max = 1, init = by_init, reset = "fresh" },
      { max = 1, init = by_init .. [[
          parallel.run "of_inner = nil"
          of_init_too = nil ]] },
      { max = 1, modules = { "spec_declares" }, init = "of_init = nil" },
    } do
      local pool <close> = parallel.pool(options)
      for _ = 1, 2 do
        local ok, message = pool:run [[
          local ok, message = pcall(function () return of_job end)
          of_job = nil
          assert(of_job == nil and of_init == nil)
          return ok, message
        ]]
        assert.is_false(ok)
        assert.matches("variable 'of_job' is not declared$", message)
      end
      assert.same({ false, false, n = 2 }, pool:map({ 1, 2 }, [[
        local ok = pcall(function () return of_item end)
        of_item = nil
        return ok ]]))
    end
    local late <close> = parallel.pool { max = 1 }
    late:run "require 'spec_declares'  of_job = nil"
    assert.is_false(late:run "return (pcall(function () return of_job end))")
  end)

  it("does not keep what a job assigns through it", function ()
    local pool <close> = parallel.pool { max = 1, init = [[
      local store = { of_init = 1 }
      setmetatable(_G, { __index = store, __newindex = store }) ]] }
    for _ = 1, 2 do
      assert.same({ 1, "nil", 2, n = 3 }, table.pack(pool:run [[
        local before = type(of_job)
        of_job, of_init = 2, of_init
        return of_init, before, of_job
      ]]))
      pool:run "of_init = 5"
    end
  end)
end)

describe("a hook of an item", function ()
  it("goes with it", function ()
    local ITEM <const> = [[
      local before = debug.gethook()
      debug.sethook(function () end, "l")
      return before == nil, debug.gethook() ~= nil ]]
    assert.same({ { true, true, n = 2 }, { true, true, n = 2 } }, (function ()
      local records <const> = parallel.collect({ 1, 2 }, ITEM, { chunk = 2 })
      return { records[1].results, records[2].results }
    end)())
    -- One that fails, and one that ran out of time, leave none either.
    local pool <close> = parallel.pool { max = 1, init = [[
      function hook () end
      debug.sethook(hook, "", 1000) ]] }
    local records <const> = pool:collect({ 1, 2, 3, 4 }, [[
      local before = debug.gethook()
      debug.sethook(function () end, "l")
      if ... == 1 then error "failed" end
      while ... == 2 do end
      return before == hook ]], { chunk = 4, timeout = 1 })
    assert.equal("failed", records[1].state)
    assert.equal("timed_out", records[2].state)
    assert.is_true(records[3].result)
    assert.is_true(records[4].result)
  end)
end)

describe("a hook of a job that another one waits for", function ()
  it("goes with it, in 'init', too", function ()
    local INNER <const> =
      "parallel.run 'debug.sethook(function () end, [[l]])' "
    local pool <close> = parallel.pool { max = 1, init = INNER }
    assert.is_nil(pool:run(INNER .. "return (debug.gethook())"))
    assert.is_nil(pool:run "return (debug.gethook())")
    local hooked <close> = parallel.pool { max = 1, init = [[
      function hook () end
      debug.sethook(hook, "", 1000) ]] }
    assert.is_true(hooked:run(INNER .. "return debug.gethook() == hook"))
  end)
end)

describe("globals of a module", function ()
  it("are seen by jobs that have looked at theirs", function ()
    local _ <close> = modules.new { spec_globals = [[
      of_module = 1
      function set_later () later = 2 end
      return function (name) return rawget(_G, name) or _G[name] end
    ]] }
    for _, look in ipairs { "", "next(_G) ", "print = nil ",
                            "setmetatable(_G, {}) " } do
      local pool <close> = parallel.pool { max = 1 }
      assert.same({ 1, 3 }, { pool:run(look .. [[
        local get = require "spec_globals"
        mine = 3
        return of_module, get "mine"
      ]]) })
      assert.equal(2, pool:run(look .. [[
        set_later()
        return later, rawget(_G, "later"), _G.later
      ]]))
      assert.is_nil(pool:run "return mine")
    end
  end)
end)

describe("'_G' among the modules", function ()
  it("is that of the runspace for a module that is being loaded", function ()
    local _ <close> = modules.new {
      spec_keeps = [[
        local G <const>, same <const> = require "_G", package.loaded._G == _G
        return { same = same, set = function (x) G.of_module = x end,
                 get = function () return type(G.print), G.of_module end }
      ]],
      spec_breaks = "error(tostring(package.loaded._G == _G), 0)",
    }
    local pool <close> = parallel.pool { max = 1 }
    assert.same({ true, true, "true", n = 3 }, table.pack(pool:run [[
      print = nil
      local _, message = pcall(require, "spec_breaks")
      local keeps = require "spec_keeps"
      keeps.set(7)
      return keeps.same, package.loaded._G == _G, message
    ]]))
    assert.same({ "function", 7, true, n = 3 }, table.pack(pool:run [[
      local kind, x = require "spec_keeps".get()
      return kind, x, package.loaded._G == _G
    ]]))
    assert.equal(7, pool:run "return of_module")
  end)

  it("is missed by an error where a job has taken the table away", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _, code in ipairs {
      "next(loaded)", "pairs(loaded)(loaded)", "rawset(loaded, 'x', 1)",
      "rawget(loaded, 'x')", "loaded.x = 1", "return loaded.x",
      "setmetatable(loaded, {})", "return loaded == {}",
    } do
      assert.matches("the table of modules is gone", pool:run([[
        local code = ...
        local registry <const>, load, pcall = debug.getregistry(), load, pcall
        loaded = package.loaded
        local kept = registry._LOADED
        registry._LOADED = nil
        local ok, message = pcall(load(code))
        registry._LOADED = kept
        return message ]], code), code)
    end
  end)

  it("has the names of the functions that travel", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _ = 1, 2 do
      assert.same({ print, next, string.rep }, { pool:run [[
        x = 1
        return print, next, string.rep
      ]] })
    end
  end)
end)

describe("an initial state that waits for jobs of its own", function ()
  it("has nothing of them, whatever becomes of globals", function ()
    for _, reset in ipairs { "globals", "fresh" } do
      local pool <close> = parallel.pool { max = 1, reset = reset, init = [[
        local parallel = require "parallel"
        before = 1
        seen = parallel.run [=[
          inner, print = before, nil
          return inner, type(print)
        ]=]
        mine = inner == nil and type(print) == "function"
      ]] }
      for _ = 1, 2 do
        assert.same({ 1, true, "nil", "function", n = 4 }, table.pack(
          pool:run "return seen, mine, type(inner), type(print)"), reset)
        assert.same({ 2, 1, "nil", "function", n = 4 }, table.pack(pool:run [[
          z = 1
          local inner_x = parallel.run [=[
            x, z, print = 2, 3, nil
            return x
          ]=]
          return inner_x, z, type(x), type(print)
        ]]), reset)
      end
    end
  end)

  it("assigns where it should, before and after", function ()
    local _ <close> = modules.new { spec_waits = [[
      local parallel = require "parallel"
      m_before = 1
      m_found = parallel.run("inside = 1  return 2")
      m_after = 3
      return true
    ]] }
    local pool <close> = parallel.pool { max = 1, modules = { "spec_waits" },
                                         init = [[
      before = 1
      found = parallel.run("inside = 1  return 2")
      _G.after = 3
      local function last () after_that = found end
      last()
      named = _G == _ENV and _G._G == _G
    ]] }
    for _ = 1, 2 do
      assert.same({ 1, 2, 3, 2, true, "nil", n = 6 }, table.pack(pool:run(
        "return before, found, after, after_that, named, type(inside)")))
      assert.same({ 1, 2, 3, n = 3 }, table.pack(pool:run(
        "return m_before, m_found, m_after")))
    end
  end)
end)

describe("math.random", function ()
  local run <const> = require "support.script"

  --- As many different values as there are states, in all of them.
  local function different (n, draw)
    local seen, count = {}, 0
    for i = 1, n do
      local x <const> = draw(i)
      if not seen[x] then count = count + 1 end
      seen[x] = true
    end
    return count
  end

  it("differs in each fresh runspace", function ()
    local values <const> = parallel.map(parallel.range(200), function ()
      return math.random(0)
    end, { reset = "fresh" })
    assert.equal(200, different(200, function (i) return values[i] end))
  end)

  it("differs in pools one after another, and in the host", function ()
    local own <const> = tonumber((run "print(math.random(0))"))
    assert.not_equal(own, tonumber((run "print(math.random(0))")))
    assert.equal(50, different(50, function ()
      local pool <close> = parallel.pool { max = 1 }
      return pool:run "return math.random(0)"
    end))
  end)

  it("differs in runspaces that are renewed", function ()
    local pool <close> = parallel.pool { max = 1, max_tasks = 1 }
    assert.equal(50, different(50, function ()
      return pool:run "return math.random(0)"
    end))
    local spent <close> = parallel.pool { max = 1, memory = 4 << 20 }
    assert.equal(5, different(5, function ()
      assert.is_false((pcall(spent.run, spent, "return #('x'):rep(1 << 23)")))
      return spent:run "return math.random(0)"
    end))
  end)

  it("differs in pools for one call", function ()
    assert.equal(20, different(20, function ()
      return parallel.map({ 1 }, function () return math.random(0) end,
                          { reset = "none" })[1]
    end))
  end)

  it("differs after 'math.randomseed()'", function ()
    local values <const> = parallel.map(parallel.range(50), function ()
      math.randomseed()
      return math.random(0)
    end, { reset = "fresh" })
    assert.equal(50, different(50, function (i) return values[i] end))
  end)

  it("differs where 'init' and modules draw", function ()
    assert.equal(20, different(20, function ()
      local pool <close> = parallel.pool {
        max = 1, init = "drawn = require 'dice'",
        preload = { dice = function () return math.random(0) end },
      }
      return pool:run "return drawn"
    end))
  end)

  it("is what 'init' or the job seeds it by", function ()
    math.randomseed(7, 8)
    local first <const>, second <const> = math.random(0), math.random(0)
    math.randomseed()
    local pool <close> = parallel.pool { max = 1,
                                         init = "math.randomseed(7, 8)" }
    assert.equal(first, pool:run "return math.random(0)")
    assert.equal(second, pool:run "return math.random(0)")
    assert.equal(first, parallel.run(
      "math.randomseed(7, 8) return math.random(0)"))
    assert.same({ 7, 8, n = 2 }, table.pack(parallel.run(
      "return math.randomseed(7, 8)")))
  end)

  it("has the errors of lua5.4 where it is seeded", function ()
    assert.match("bad argument #1 to 'randomseed' %(number expected, got "
                 .. "table%)$", parallel.run(
      "return select(2, pcall(function () math.randomseed {} end))"))
  end)

  it("is as it was without the library", function ()
    local pool <close> = parallel.pool { max = 1, libs = { "base" } }
    assert.equal("nil", pool:run "return type(math)")
  end)
end)

describe("a job that damages the registry", function ()
  --- Each row: what the job does to each userdata, or to the registry.
  local DAMAGE <const> = {
    "for i = 1, 8 do pcall(debug.setuservalue, v, nil, i) end",
    "for _, i in ipairs { 5, 6, 7 } do "
      .. "pcall(debug.setuservalue, v, nil, i) end",
    "for i = 1, 8 do pcall(debug.setuservalue, v, {}, i) end",
    "for i = 1, 8 do pcall(debug.setuservalue, v, io.stdout, i) end",
    "local co = coroutine.create(function () coroutine.yield() end) "
      .. "coroutine.resume(co) "
      .. "pcall(debug.setuservalue, v, co, 7)",
    "pcall(debug.setuservalue, v, coroutine.running(), 7)",
    "pcall(debug.setuservalue, v, load 'return 1', 6) ",
    "pcall(debug.setuservalue, v, string.format, 6)",
    "r[k] = io.stdout",
    "r[k] = 1",
    "r[k] = {}",
    "r[k] = nil",
  }
  for _, what in ipairs(DAMAGE) do
    for _, own in ipairs { "", " shared[1] = shared[1]" } do
      it("harms itself alone: " .. what .. own, function ()
        local shared <const>, other <const> = { {} }, { __index = {} }
        local pool <close> = parallel.pool { max = 1 }
        for _ = 1, 3 do
          local job <const> = pool:spawn(load(
            "local shared, other, what = ... return function () "
            .. "local r, found = debug.getregistry(), {} "
            .. "for k, v in pairs(r) do "
            .. "if type(v) == 'userdata' then found[k] = v end end "
            .. "for k, v in pairs(found) do " .. what .. " end " .. own
            .. " x = 1 return setmetatable({ shared, string.format, "
            .. "load 'return y' }, other), package.loaded end")(shared, other))
          job:wait()
          job:join()
          local records = pool:collect({ 1, 2, 3 }, function (i)
            return setmetatable({ i, shared }, other)
          end)
          assert.equal("completed", records[3].state)
          assert.equal(3, records[3].result[1])
          assert.equal(1, pool:run("x = 1 return {1}")[1])
        end
      end)
    end
  end

  it("harms itself alone, whatever becomes of its tables", function ()
    local shared <const>, class <const> = { {}, n = 1 }, { __index = {} }
    local pool <close> = parallel.pool { max = 1 }
    for _, with in ipairs { "nil", "1", "{}", "io.stdout" } do
      pool:spawn(load("local shared, class = ... return function () "
        .. "local r = debug.getregistry() "
        .. "for k, list in pairs(r) do "
        .. "if type(k) == 'number' and k > 3 and type(list) == 'table' then "
        .. "for i = 1, 7 do list[i] = " .. with .. " end end end "
        .. "return shared, setmetatable({ shared }, class) end")
        (shared, class)):join()
      pool:spawn(load("local shared, class = ... return function () "
        .. "local r = debug.getregistry() "
        .. "for k, list in pairs(r) do "
        .. "if type(k) == 'number' and k > 3 then r[k] = " .. with
        .. " end end "
        .. "return shared, setmetatable({ shared }, class) end")
        (shared, class)):join()
      local records = pool:collect({ 1, 2, 3 }, function (i)
        return setmetatable({ i, shared }, class)
      end)
      assert.equal(3, #records)
    end
  end)

  it("harms itself alone, even if it runs jobs after that", function ()
    local pool <close> = parallel.pool { max = 1 }
    pool:spawn([[
      parallel.run(function () return {} end)
      local registry = debug.getregistry()
      for key in pairs(registry) do
        if type(key) == "number" and key > 3 then registry[key] = 1 end
      end
      return parallel.run("return 7")
    ]]):join()
    assert.equal(8, pool:run "x = 1 return 8")
  end)
end)
