-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

local function join (host, port) return host .. ":" .. port end

describe("invoke", function ()
  it("gives results by key, with arguments by name and by position",
     function ()
    local results, errors = parallel.invoke(join, {
      web1 = { host = "a", port = 80 },
      web2 = { "b", 81 },
      web3 = { "c", port = 82 },
      [4] = { "d", 83, n = 2 },
    })
    assert.same({ web1 = "a:80", web2 = "b:81", web3 = "c:82", [4] = "d:83" },
                results)
    assert.same({}, errors)
  end)

  it("gives errors by key, and goes on", function ()
    local results, errors = parallel.invoke(function (x)
      if x == 2 then error({ code = x }) end
      return x
    end, { one = { 1 }, two = { 2 }, three = { 3 } })
    assert.same({ one = 1, three = 3 }, results)
    assert.equal("two", errors.two.key)
    assert.same({ code = 2 }, errors.two.error)
    assert.matches("^'two': ", tostring(errors.two))
    assert.is_nil(errors.one)
  end)

  it("shows what a call sends to its streams by the key", function ()
    assert.equal("WARNING: a: w\nERROR: load, b: e\n", (run [[
      parallel.invoke(function () parallel.task.warning "w" end, {a = {}})
      parallel.invoke(function () parallel.task.error "e" end, {b = {}},
                      {name = "load"})
    ]]))
  end)

  it("takes params for all keys, below their own", function ()
    assert.same({ a = "x:1", b = "y:2" }, (parallel.invoke(join, {
      a = { host = "x" }, b = { host = "y", port = 2 },
    }, { params = { port = 1 } })))
  end)

  it("takes source, whose names are variables", function ()
    assert.same({ a = 3, b = 7 }, (parallel.invoke("return x + y", {
      a = { x = 1, y = 2 }, b = { x = 3, y = 4 },
    })))
  end)

  it("gives jobs by key with async, and does not wait", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local jobs = pool:invoke(function (x) pass() return x end,
                             { a = { 1 }, b = { 2 } }, { async = true })
    assert.equal("a", jobs.a.name)
    gate:open()
    assert.equal(1, jobs.a:get())
    assert.equal(2, jobs.b:get())
  end)

  it("opens a pool for a limit above the default one's", function ()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local n <const> = parallel.cpus() + 3
    local calls = {}
    for i = 1, n do calls[i] = { i } end
    local jobs = parallel.invoke(function (x) pass() return x end, calls,
                                 { async = true, limit = n })
    gate:await(n)
    gate:open()
    collectgarbage()
    for i = 1, n do assert.equal(i, jobs[i]:get()) end
  end)

  it("keeps to its limit with async", function ()
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local jobs = parallel.invoke(function (x) pass() return x end,
                                 { { 1 }, { 2 }, { 3 } },
                                 { async = true, limit = 1 })
    gate:await(1)
    assert.equal("queued", jobs[2].state)
    assert.equal("queued", jobs[3].state)
    gate:open()
    for i = 1, 3 do assert.equal(i, jobs[i]:get()) end
    local pool <close> = parallel.pool { max = 2 }
    for _, row in ipairs {
      { { async = true, limit = 1 }, "bad option 'limit' to 'invoke'" },
      { { async = true, progress = true }, "bad option 'progress'" },
    } do
      assert.error_matches(function ()
        pool:invoke(join, {}, row[1])
      end, row[2])
    end
  end)

  it("has nothing to do for no keys", function ()
    assert.same({}, (parallel.invoke(join, {})))
    assert.same({}, parallel.invoke(join, {}, { async = true }))
  end)

  for _, row in ipairs {
    { "arguments that are no table", { a = 1 }, nil,
      "bad arguments of key 'a' to 'invoke' %(a table expected, got 1%)" },
    { "a missing name", { a = { host = "x" } }, nil,
      "missing parameter 'port' .*invoke %(key 'a'%)" },
    { "an unknown name", { a = { "x", prt = 1 } }, nil,
      "unknown parameter 'prt' .*did you mean 'port'" },
    { "what cannot travel, by position", { a = { 1 }, b = { 2, io.stdout } },
      nil, "invoke_spec.lua:%d+: key 'b': argument 2: cannot transfer a "
           .. "userdata" },
    { "what cannot travel, by name",
      { a = { "x", 1 }, b = { host = { print, io.stdout }, port = 1 } }, nil,
      "key 'b': parameter 'host': field '%[2%]': cannot transfer" },
    { "too many arguments", { [7] = { "x", n = 300 } }, nil,
      "key 7: 0 to 200 arguments expected, got 300" },
    { "no table of calls", 5, nil, "bad argument 'calls' to 'invoke'" },
    { "an option of other verbs", {}, { chunk = 2 },
      "bad option 'chunk' to 'invoke' %(none expected, got 2: each key is a "
      .. "job of its own; leave it out%)" },
    { "arguments for all", {}, { arguments = { 2 } },
      "%(none expected, got a table: each key has its own; give params" },
    { "an unknown option", {}, { asnc = true }, "did you mean 'async'" },
  } do
    it("refuses " .. row[1], function ()
      local ok, message = pcall(parallel.invoke, join, row[2], row[3])
      assert.is_false(ok)
      assert.matches(row[4], message)
    end)
  end
end)
