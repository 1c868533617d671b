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
    local pool <close> = parallel.pool { max = 1 }
    -- A global, so that the next job has an environment that is young.
    pool:run("package.loaded._G.gone = {}  first = 1  collectgarbage()")
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
