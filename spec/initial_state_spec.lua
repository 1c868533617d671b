-- SPDX-License-Identifier: MIT
local modules <const> = require "support.modules"
local parallel <const> = require "parallel"

--- What a chunk returns in a pool with such an initial state.
local function in_pool (spec, chunk, ...)
  local pool <close> = parallel.pool { max = 1,
                                       initial_state =
                                         parallel.initial_state(spec) }
  return pool:run(chunk, ...)
end

describe("initial_state", function ()
  it("has all libraries of Lua, and the module itself", function ()
    for _, name in ipairs { "coroutine", "table", "io", "os", "string", "math",
                            "utf8", "debug", "package", "parallel" } do
      assert.equal("table", in_pool({}, "return type(" .. name .. ")"), name)
    end
    assert.is_true(in_pool({}, "return require 'parallel' == parallel"))
  end)

  it("has the libraries in 'libs' only", function ()
    assert.same({ "table", "nil", "nil", "function", n = 4 },
                table.pack(in_pool({ libs = { "base", "string" } },
                "return type(string), type(io), type(require), type(print)")))
  end)

  it("has variables, with what they share", function ()
    local shared <const> = { 1 }
    assert.same({ 5, "x", true, n = 3 }, table.pack(in_pool({
      variables = { number = 5, text = "x", pair = { shared, shared } },
    }, "return number, text, pair[1] == pair[2]")))
  end)

  it("has copies of variables as they were then", function ()
    local list <const> = { 1 }
    local state <const> = parallel.initial_state {
      variables = { list = list },
    }
    list[1] = 2
    local pool <close> = parallel.pool { initial_state = state }
    assert.equal(1, pool:run("return list[1]"))
  end)

  it("has functions, with their upvalues", function ()
    local factor <const> = 3
    local function times (x) return x * factor end
    assert.equal(12, in_pool({ functions = { times = times } },
                             "return times(4)"))
  end)

  it("lets functions see variables and one another", function ()
    local function inner () return given end  -- luacheck: ignore 113
    local function outer () return call_me() end  -- luacheck: ignore 113
    assert.equal(7, in_pool({
      functions = { call_me = inner, outer = outer },
      variables = { given = 7 },
    }, "return outer()"))
  end)

  it("has modules loaded", function ()
    assert.equal("table", in_pool({ modules = { "cjson" } },
                                  "return type(package.loaded.cjson)"))
  end)

  it("finds modules on the path of the host", function ()
    local _ <close> = modules.new { spec_here = "return { 'here' }" }
    assert.equal("here", in_pool({ modules = { "spec_here" } },
                                 "return require 'spec_here'[1]"))
    local pool <close> = parallel.pool { modules = { "spec_here" } }
    assert.equal("here", pool:run("return require 'spec_here'[1]"))
  end)

  it("has a path and a cpath of its own", function ()
    assert.same({ "/nowhere/?.lua", "/nowhere/?.so", n = 2 },
                table.pack(in_pool({ path = "/nowhere/?.lua",
                                     cpath = "/nowhere/?.so" },
                                   "return package.path, package.cpath")))
  end)

  it("has preloaded modules from functions and from source", function ()
    assert.same({ "made", "read", n = 2 }, table.pack(in_pool({
      preload = {
        spec_made = function () return { "made" } end,
        spec_read = "return { 'read' }",
      },
    }, "return require 'spec_made'[1], require 'spec_read'[1]")))
  end)

  it("runs 'init' last, with the globals of the runspace", function ()
    assert.equal("given json", in_pool({
      variables = { given = "given" },
      modules = { "cjson" },
      init = function ()
        -- luacheck: ignore 111 113
        ready = given .. " " .. (package.loaded.cjson and "json" or "")
      end,
    }, "return ready"))
    assert.equal(2, in_pool({ init = "two = 2" }, "return two"))
  end)

  it("keeps what 'init' made from job to job", function ()
    local pool <close> = parallel.pool { max = 1, init = "made = { 1 }" }
    assert.equal(1, pool:run("return made[1]"))
    assert.equal(1, pool:run("return made[1]"))
  end)

  it("seeds each worker", function ()
    local results = parallel.map(parallel.range(50), "return mark",
                                 { init = "mark = 'seeded'", limit = 3,
                                   chunk = 1 })
    for i = 1, 50 do assert.equal("seeded", results[i]) end
  end)

  it("is good for several pools", function ()
    local state <const> = parallel.initial_state { variables = { x = 1 } }
    for _ = 1, 3 do
      local pool <close> = parallel.pool { initial_state = state }
      assert.equal(1, pool:run("return x"))
    end
    assert.same({ 1, n = 1 }, parallel.map({ 0 }, "return x",
                                           { initial_state = state }))
  end)

  it("may be a table where a pool asks for it", function ()
    local pool <close> = parallel.pool {
      initial_state = { variables = { x = 2 } },
    }
    assert.equal(2, pool:run("return x"))
  end)

  it("refuses what cannot travel at once, by name", function ()
    local ok, message = pcall(parallel.initial_state,
                              { variables = { log = io.stdout } })
    assert.is_false(ok)
    assert.matches("variable 'log'", message)
    assert.matches("cannot transfer", message)
    ok, message = pcall(parallel.initial_state, {
      functions = { show = function () return io.stdout end,
                    log = (function (file)
                      return function () return file end
                    end)(io.stdout) },
    })
    assert.is_false(ok)
    assert.matches("upvalue 'file'", message)
  end)
end)
