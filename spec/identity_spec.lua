-- SPDX-License-Identifier: MIT
--- Tables that stand for something are the same on both sides: classes,
--- sentinels, members of enumerations.
local modules <const> = require "support.modules"
local parallel <const> = require "parallel"
local copy <const> = require "support.core".copy

local Account <const> = {}
Account.__index = Account
function Account.new (name) return setmetatable({ name = name }, Account) end
function Account:title () return "account " .. self.name end

local NONE <const> = {}
local NULL <const> = setmetatable({}, { __tostring = function ()
  return "null"
end })
local Color <const> = {
  RED = { name = "red" },
  BLUE = setmetatable({ name = "blue" }, { __name = "Color" }),
}

describe("class of the script", function ()
  it("is that of items and of results", function ()
    local results <const> = parallel.map(
      { Account.new "a", Account.new "b" }, function (account)
        assert(getmetatable(account) == Account)
        return { account, Account.new(account:title()) }
      end)
    for i, name in ipairs { "a", "b" } do
      assert.equal(Account, getmetatable(results[i][1]))
      assert.equal(Account, getmetatable(results[i][2]))
      assert.equal("account account " .. name, results[i][2]:title())
    end
  end)

  it("need not have '__index'", function ()
    local Tag <const> = { new = function (t) return t end }
    local results <const> = parallel.map({ setmetatable({ 1 }, Tag) },
                                         function (tag)
      return getmetatable(tag) == Tag and setmetatable({ 2 }, Tag)
    end)
    assert.equal(Tag, getmetatable(results[1]))
  end)

  it("is that of arguments, results and errors of jobs", function ()
    local object <const> = Account.new "x"
    local job <const> = parallel.spawn(function (account, n)
      assert(getmetatable(account) == Account)
      if n > 1 then error(Account.new "wrong") end
      return account, { Account.new "y" }
    end, object, 1)
    local back <const>, list <const> = job:get()
    assert.not_equal(object, back)
    assert.equal(Account, getmetatable(back))
    assert.equal(Account, getmetatable(list[1]))
    local failed <const> = parallel.spawn(function ()
      error(Account.new "wrong")
    end)
    failed:wait()
    assert.equal(Account, getmetatable(failed.error))
    assert.equal("account wrong", failed.error:title())
    local records <const> = parallel.collect({ 1, 2 }, function (i)
      if i == 2 then error(Account.new "two") end
      return Account.new "one"
    end)
    assert.equal(Account, getmetatable(records[1].result))
    assert.equal(Account, getmetatable(records[2].error))
  end)

  it("is the same in all verbs", function ()
    local items <const> = { Account.new "a", Account.new "b" }
    local function keep (account) return getmetatable(account) == Account end
    assert.equal(2, parallel.filter(items, keep).n)
    for record in parallel.each(items, function (account)
      return keep(account) and account
    end) do
      assert.equal(Account, getmetatable(record.result))
    end
    local by_key <const> = parallel.invoke(function (account)
      return keep(account) and account
    end, { k = { account = items[1] } })
    assert.equal(Account, getmetatable(by_key.k))
    local sum <const> = parallel.reduce(items, function (a, b)
      return Account.new(a.name .. b.name)
    end)
    assert.equal(Account, getmetatable(sum))
    assert.equal(Account, getmetatable((parallel.run(function (account)
      return keep(account) and account
    end, items[1]))))
  end)

  it("costs objects nothing", function ()
    local Point <const> = { __index = {} }
    for i = 1, 20 do
      Point.__index["method_" .. i] = function () return i end
    end
    local items <const> = {}
    for i = 1, 20000 do items[i] = setmetatable({ x = i }, Point) end
    local results <const> = parallel.map(items, function (point)
      return getmetatable(point) == Point
         and setmetatable({ x = -point.x }, Point)
    end)
    for i = 1, 20000 do
      assert(getmetatable(results[i]) == Point and results[i].x == -i)
    end
  end)

  it("is the same inside of runspaces", function ()
    assert.is_true(parallel.run(function ()
      local inner <const> = require "parallel"
      local results <const> = inner.map({ Account.new "a" }, function (a)
        return getmetatable(a) == Account and Account.new "b"
      end)
      return getmetatable(results[1]) == Account
    end))
  end)

  it("is the same where runspaces are renewed, and items tried again",
     function ()
    for _, reset in ipairs { "none", "globals", "fresh" } do
      local pool <close> = parallel.pool { max = 2, reset = reset,
                                           max_tasks = 3 }
      local items <const> = {}
      for i = 1, 20 do items[i] = Account.new(i) end
      local results <const> = pool:map(items, function (account)
        assert(getmetatable(account) == Account)
        if parallel.task.attempt == 1 and account.name % 3 == 0 then
          error "again"
        end
        return account
      end, { retries = 1 })
      for i = 1, 20 do
        assert.equal(Account, getmetatable(results[i]))
        assert.equal(i, results[i].name)
      end
    end
  end)

  it("is the same for more maps at a time than a runspace keeps", function ()
    local pool <close> = parallel.pool { max = 1 }
    local iterators <const> = {}
    for i = 1, 8 do
      local items <const> = {}
      for k = 1, 6 do items[k] = Account.new(i * 10 + k) end
      iterators[i] = { pool:each(items, function (account)
        return getmetatable(account) == Account and account
      end, { chunk = 1 }) }
    end
    for i, iterator in ipairs(iterators) do
      local n = 0
      for record in table.unpack(iterator) do
        n = n + 1
        assert.equal(Account, getmetatable(record.result))
        assert.equal(i * 10 + record.index, record.result.name)
      end
      assert.equal(6, n)
    end
  end)

  it("stays, as long as somebody has the job", function ()
    local jobs <const> = {}
    for i = 1, 50 do
      local Class <const> = { i }
      jobs[i] = { parallel.spawn(function ()
        return setmetatable({}, Class)
      end), Class }
    end
    collectgarbage()
    for _, pair in ipairs(jobs) do
      assert.equal(pair[2], getmetatable(pair[1]:get()))
      assert.equal(pair[2], getmetatable(pair[1]:get()))
    end
  end)

  it("goes when the jobs have gone", function ()
    local gone <const> = setmetatable({}, { __mode = "k" })
    local function run (n)
      for _ = 1, n do
        local Class <const> = {}
        gone[Class] = true
        parallel.run(function () return setmetatable({}, Class) end)
      end
    end
    run(200)
    collectgarbage()
    collectgarbage()
    collectgarbage()
    local left = 0
    for _ in pairs(gone) do left = left + 1 end
    assert.is_true(left < 3)
  end)

  it("is finalized when its jobs have gone, however few these were",
     function ()
    local finalized = 0
    local function run ()
      local t <const> = setmetatable({}, { __gc = function ()
        finalized = finalized + 1
      end })
      assert.equal(0, parallel.run(function () return #t end))
    end
    for _ = 1, 3 do run() end
    for _ = 1, 4 do collectgarbage() end
    assert.is_true(finalized >= 2)  -- a stack may still have one
    for _ = 1, 3 do run() end
    for _ = 1, 4 do collectgarbage() end
    assert.is_true(finalized >= 5)
  end)
end)

describe("sentinel", function ()
  for name, value in pairs { NONE = NONE, NULL = NULL, RED = Color.RED,
                             BLUE = Color.BLUE } do
    it("is the same in items and results: " .. name, function ()
      local results <const> = parallel.map({ { value }, { {} } },
                                           function (item)
        return { item[1] == value, item[1], value }
      end)
      assert.is_true(results[1][1])
      assert.equal(value, results[1][2])
      assert.is_false(results[2][1])
      assert.not_equal(value, results[2][2])
      assert.equal(value, results[2][3])
    end)

    it("is the same in arguments, and as a result: " .. name, function ()
      local same <const>, back <const> = parallel.run(function (v)
        return v == value, v
      end, value)
      assert.is_true(same)
      assert.equal(value, back)
      local list <const> = parallel.map({ 1, 2 }, function (_, v)
        return v == value and v
      end, { arguments = { value } })
      assert.equal(value, list[1])
      assert.equal(value, list[2])
    end)
  end

  it("is reached through other functions", function ()
    local function is_none (v) return v == NONE end
    local helpers <const> = { check = function (v) return is_none(v) end }
    assert.same({ true, false, n = 2 },
                parallel.map({ NONE, {} }, function (v)
                  return helpers.check(v)
                end))
  end)

  it("is a key", function ()
    local results <const> = parallel.map({ { [NONE] = 1 } }, function (t)
      return { [NONE] = t[NONE] + 1 }
    end)
    assert.equal(2, results[1][NONE])
  end)

  it("is a class as a value, too", function ()
    local results <const> = parallel.map({ { class = Account } },
                                         function (item)
      return item.class == Account and Account
    end)
    assert.equal(Account, results[1])
  end)
end)

describe("data that comes with a function", function ()
  it("returns as the job has left it", function ()
    local count <const> = { n = 0 }
    local results <const> = parallel.map({ 1, 2, 3 }, function ()
      count.n = count.n + 1
      return count
    end, { limit = 1, chunk = 3 })
    for i = 1, 3 do
      assert.not_equal(count, results[i])
      assert.equal(i, results[i].n)
    end
    assert.equal(0, count.n)
  end)

  local function add (t) t.more = true end
  local function drop (t) t.a = nil end
  local function nest (t) t.list[1] = 5 end
  local function class (t) setmetatable(t, { __name = "new" }) end
  for name, change in pairs { add = add, drop = drop, nest = nest,
                              class = class } do
    it("is no longer what it was: " .. name, function ()
      local data <const> = { a = 1, list = { 1, 2 } }
      local back <const> = parallel.run(function ()
        change(data)
        return data
      end)
      assert.not_equal(data, back)
      assert.same({ a = 1, list = { 1, 2 } }, data)
      change(data)
      assert.same(data, back)
    end)
  end

  it("may be state in a closure", function ()
    local n = 0
    local counter <const> = { add = function () n = n + 1 end,
                              get = function () return n end }
    local back <const> = parallel.run(function ()
      counter.add()
      return counter
    end)
    assert.equal(1, back.get())
    assert.equal(0, counter.get())
  end)

  it("is sent as it is when it has changed since", function ()
    local config <const> = { level = 1 }
    local items <const> = coroutine.wrap(function ()
      coroutine.yield(config)
      config.level = 2
      coroutine.yield(config)
    end)
    local levels <const> = parallel.map(items, function (c)
      return { c.level, config.level }
    end, { chunk = 1 })
    assert.same({ { 1, 1 }, { 2, 1 }, n = 2 }, levels)
  end)

  it("comes as it was sent, whatever became of the receiver's", function ()
    local data <const> = { 1 }
    local lengths <const> = parallel.map({ data, data, data }, function (t)
      data[#data + 1] = 0
      return #t
    end, { limit = 1, chunk = 3 })
    -- The first item is the runspace's own table, whose length counts.
    assert.same({ 2, 1, 1, n = 3 }, lengths)
    local job <const> = parallel.spawn(function () return data end)
    job:wait()
    data[1] = "changed"
    assert.same({ 1 }, job:get())
  end)

  it("may be large", function ()
    local data <const> = {}
    for i = 1, 3000 do data[i] = { id = i } end
    local back <const> = parallel.run(function ()
      data[3000].id = -1
      return data
    end)
    assert.equal(-1, back[3000].id)
    assert.equal(3000, data[3000].id)
  end)

  it("may be weak", function ()
    local cache <const> = setmetatable({}, { __mode = "k" })
    local function fill (key)
      cache[{}] = 1
      collectgarbage()
      assert(next(cache) == nil)
      cache[key] = 1
      return cache, cache[key]
    end
    local back <const>, n <const> = parallel.run(fill, "x")
    assert.not_equal(cache, back)
    assert.equal("k", getmetatable(back).__mode)
    assert.same({ x = 1 }, back)
    assert.equal(1, n)
    assert.equal(cache, parallel.run(function ()
      cache[{}] = 1
      collectgarbage()
      return cache
    end))
  end)

  it("may be weak, and have lost some of it on one side", function ()
    local all <const> = setmetatable({}, { __mode = "v" })
    local kept <const> = {}
    all.kept, all.lost, all.n = kept, {}, 1
    local same <const>, back <const> = parallel.run(function (v)
      assert(kept)
      collectgarbage()
      return all.kept == kept and v == all, all
    end, all)
    assert.is_true(same)
    collectgarbage()
    assert.equal(all, back)
    assert.equal(kept, back.kept)
  end)
end)

describe("table in a field of a module", function ()
  local source <const> = [[
    local M = { NONE = {}, config = { level = 1, list = { 1, 2 } } }
    M.null = setmetatable({}, { __tojson = function () return "null" end })
    M.Color = { RED = { name = "red" }, BLUE = { name = "blue" } }
    M.Class = { new = function (t) return setmetatable(t, M.Class) end }
    M.Meta = { __index = {} }
    M.own = { file = io.stdout, f = print }
    M.own.self = M.own
    return M
  ]]
  local dir, M, pool
  setup(function ()
    dir = modules.new { identity_module = source }
    M = require "identity_module"
    pool = parallel.pool { max = 1, path = package.path }
  end)
  teardown(function ()
    pool:close()
    dir:__close()
    package.loaded.identity_module = nil
  end)

  local function find (name)
    local t = require "identity_module"
    for part in name:gmatch "[^.]+" do t = t[part] end
    return t
  end

  for _, name in ipairs { "NONE", "null", "config", "Color", "Color.RED",
                          "Class", "Meta", "own" } do
    it("is the receiver's own: " .. name, function ()
      local value <const> = find(name)
      local results <const> = pool:map({ value, { value }, { [value] = 1 } },
                                       function (v, path)
        local own = require "identity_module"
        for part in path:gmatch "[^.]+" do own = own[part] end
        return { v == own, v[1] == own, next(v) == own, own }
      end, { arguments = { name } })
      assert.is_true(results[1][1])
      assert.is_true(results[2][2])
      assert.is_true(results[3][3])
      for i = 1, 3 do assert.equal(value, results[i][4]) end
      assert.is_true(pool:run(function (v, path)
        return value == v and v == require "identity_module"[path]
            or path:find "%." ~= nil
      end, value, name))
      assert.equal(value, pool:run(function (v) return v end, value))
    end)
  end

  it("is data where it has changed", function ()
    M.config.level = 2
    local same <const>, config <const> = pool:run(function (v)
      return v == require "identity_module".config, v
    end, M.config)
    M.config.level = 1
    assert.is_false(same)
    assert.not_equal(M.config, config)
    assert.same({ level = 2, list = { 1, 2 } }, config)
    local changed <const> = pool:run(function ()
      local own <const> = require "identity_module".config
      own.list[3] = 3
      local result <const> = { level = own.level, own = own }
      return result
    end)
    assert.not_equal(M.config, changed.own)
    assert.same({ 1, 2, 3 }, changed.own.list)
    assert.same({ 1, 2 }, M.config.list)
  end)

  it("is data where the module is not", function ()
    local hidden <const> = { NULL = setmetatable({ 1 }, { __name = "null" }) }
    package.loaded.identity_hidden = hidden
    local t <const>, back <const> = pool:run(function (v)
      return { v[1], getmetatable(v).__name }, v
    end, hidden.NULL)
    package.loaded.identity_hidden = nil
    assert.same({ 1, "null" }, t)
    assert.same({ 1 }, { back[1] })
  end)

  it("gives no module to a host that has not loaded it", function ()
    local other <close> = modules.new { identity_job_only = [[
      return { NONE = {} }
    ]] }
    local jobs <close> = parallel.pool { max = 1, path = package.path }
    local none <const> = jobs:run(function ()
      return require "identity_job_only".NONE
    end)
    assert.same({}, none)
    assert.is_nil(package.loaded.identity_job_only)
    assert.is_not_nil(other)
  end)

  it("is known as soon as its module is loaded", function ()
    for i = 1, 5 do
      local name <const> = "identity_late_" .. i
      package.loaded[name] = { NONE = {} }
      local none <const> = package.loaded[name].NONE
      assert.equal(none, copy(none))
      assert.equal(none, copy { a = { none } }.a[1])
      package.loaded[name] = nil
      assert.not_equal(none, copy(none))
    end
  end)

  it("is no global, and not one of many", function ()
    local many <const> = {}
    for i = 1, 2000 do many["k" .. i] = { i } end
    package.loaded.identity_many = many
    _G.identity_global = {}
    assert.not_equal(many.k7, copy(many.k7))
    assert.not_equal(_G.identity_global, copy(_G.identity_global))
    package.loaded.identity_many, _G.identity_global = nil, nil
  end)

  it("is the null of dkjson", function ()
    local json <const> = require "dkjson"
    local results <const> = parallel.map({ { a = json.null }, {} },
                                         function (t)
      return { t.a == json.null, json.encode(t), json.null }
    end)
    assert.same({ true, '{"a":null}' }, { results[1][1], results[1][2] })
    assert.equal(json.null, results[1][3])
    assert.equal(json.null, results[2][3])
  end)
end)

describe("data of both sides", function ()
  --- Run 'fn' for three items, one after the other, in one runspace.
  local function map (items, fn)
    return parallel.map(items, fn, { limit = 1, chunk = 3 })
  end

  it("comes as it was sent, with the tables in it", function ()
    local data <const> = { list = { 1, 2 }, deep = { { { "x" } } } }
    assert.same({ 2, 2, 2, n = 3 }, map({ data, data, data }, function (t)
      local n <const> = #t.list
      data.list[#data.list + 1] = 0
      return n
    end))
    assert.same({ "x", "x", "x", n = 3 }, map({ data, data, data },
                                              function (t)
      local x <const> = t.deep[1][1][1]
      data.deep[1][1][1] = "changed"
      return x
    end))
    local job <const> = parallel.spawn(function () return data end)
    job:wait()
    data.list[1] = "changed"
    assert.equal(1, job:get().list[1])
    assert.equal("x", job:get().deep[1][1][1])
  end)

  it("comes with its functions as they were sent", function ()
    local n = 0
    local counter <const> = {
      add = function () n = n + 1 return n end,
      get = function () return n end,
      print = function () return _ENV == _G and print ~= nil end,
    }
    assert.same({ 22, 11, 11, n = 3 }, map({ counter, counter, counter },
                                           function (t)
      counter.add()
      assert(t.print())
      local added <const> = t.add()
      return added * 10 + t.get()
    end))
    local job <const> = parallel.spawn(function () return counter end)
    job:wait()
    n = 5
    local back <const> = job:get()
    assert.equal(1, back.add())
    assert.equal(1, back.get())
    assert.equal(5, n)
  end)

  it("may have itself inside", function ()
    local data <const> = { list = {} }
    data.list.up, data.list.n = data, 1
    data.fn = function () return data end
    assert.same({ 1, 1, 1, n = 3 }, map({ data, data, data }, function (t)
      local n <const> = t.list.n
      assert(t.list.up == t and t.fn() == t)
      data.list.n = data.list.n + 1
      return n
    end))
  end)

  it("is one table where a value has it more than once", function ()
    local d <const>, class <const> = { 1 }, { __index = {} }
    local function both (t)
      d[1] = 2
      return t[1] == t[2] and t[1] == t.more[1] and t
    end
    local results <const> = map({ { d, d, more = { d } },
                                  { d, d, more = { d } },
                                  { d, d, more = { d } } }, both)
    for i = 1, 3 do
      assert.equal(results[i][1], results[i][2])
      assert.equal(results[i][1], results[i].more[1])
    end
    assert.not_equal(results[2][1], results[3][1])
    local a <const>, b <const> = parallel.run(function (x, y)
      class.changed = 1
      d[1] = 5
      return setmetatable({ class, class, d }, class), x == y and d
    end, d, d)
    assert.equal(class, getmetatable(a))
    assert.equal(a[1], a[2])
    assert.equal(a[3], b)
  end)

  it("is one table at any depth", function ()
    local d <const> = { 1 }
    local chain = { d, d }
    for _ = 1, 300 do chain = { chain, d } end
    local same <const>, back <const> = parallel.run(function (t)
      local first <const> = t[2]
      for _ = 1, 300 do
        assert(t[2] == first)
        t = t[1]
      end
      return t[1] == first and t[2] == d, t
    end, chain)
    assert.is_true(same)
    assert.equal(d, back[1])
    assert.equal(d, back[2])
  end)

  it("is one table in what '__transfer' returns, at any depth", function ()
    local d <const> = { 1 }
    for _, levels in ipairs { 20, 50, 90, 95, 96, 97, 98, 99, 100, 101 } do
      local deep = { d, d }
      for _ = 1, levels do deep = { deep } end
      local object <const> = setmetatable({}, { __transfer = function ()
        return deep
      end })
      local ok, same = pcall(parallel.run, function (t)
        for _ = 1, levels do t = t[1] end
        return t[1] == d and t[2] == d
      end, object)
      if ok then
        assert.is_true(same)
      else
        assert.matches("nested deeper than", tostring(same))
      end
    end
  end)
end)
