-- SPDX-License-Identifier: MIT
local parallel <const> = require "parallel"

describe("params", function ()
  it("are bound to a function's parameters by their names", function ()
    local function join (host, port, path)
      return host .. ":" .. port .. path
    end
    local job = parallel.submit {
      join, params = { port = 80, path = "/", host = "a" },
    }
    assert.equal("a:80/", job:get())
    job = parallel.submit { fn = join, arguments = { "b" },
                            params = { port = 1, path = "/x" } }
    assert.equal("b:1/x", job:get())
  end)

  it("follow the item in the verbs over items", function ()
    local function scale (x, by, plus) return x * by + (plus or 0) end
    local params <const> = { by = 10, plus = 1 }
    assert.same({ 11, 21, n = 2 },
                parallel.map({ 1, 2 }, scale, { params = params }))
    assert.equal(21, parallel.collect(parallel.range(2), scale,
                                      { params = params })[2].result)
    for record in parallel.each({ 3 }, scale, { params = params }) do
      assert.equal(31, record.result)
    end
    assert.same({ 2, n = 1 }, parallel.filter({ 1, 2 },
      function (x, least) return x >= least end, { params = { least = 2 } }))
    assert.equal(7, parallel.reduce({ 1, 2, 3 },
      function (a, b, c) return a + b + c end, nil, { params = { c = 0.5 } }))
  end)

  it("follow all values of an iterator", function ()
    local t <const> = { a = 1 }
    local key
    local function pairs_of ()
      key = next(t, key)
      return key, t[key]
    end
    assert.same({ "a12", n = 1 }, parallel.map(pairs_of, function (k, v, tail)
      return k .. v .. tail
    end, { params = { tail = 2 } }))
  end)

  it("may leave out what is marked by 'opt_'", function ()
    local function probe (host, opt_port, path, opt_tries)
      return table.concat({ host, tostring(opt_port), path,
                            tostring(opt_tries) }, " ")
    end
    for _, row in ipairs {
      { "a nil /x nil", { host = "a", path = "/x" } },
      { "a 80 /x nil", { host = "a", path = "/x", opt_port = 80 } },
      { "a nil /x 3", { host = "a", path = "/x", opt_tries = 3 } },
    } do
      assert.equal(row[1], parallel.submit { probe, params = row[2] }:get())
    end
    assert.equal("a nil /x nil", parallel.submit {
      probe, arguments = { "a" }, params = { path = "/x" } }:get())
    assert.same({ "a nil /x nil", n = 1 },
                parallel.map({ "a" }, probe, { params = { path = "/x" } }))
    assert.same({ "a 1 /x nil", n = 1 },
                parallel.map({ "a" }, probe,
                             { params = { path = "/x", opt_port = 1 } }))
    assert.same({ "k v nil x", n = 1 },
                parallel.map(parallel.iter(pairs { k = "v" }),
                             function (k, v, opt_a, b)
      return table.concat({ k, v, tostring(opt_a), b }, " ")
    end, { params = { b = "x" } }))
    local results, errors = parallel.invoke(probe, {
      one = { host = "a", path = "/" },
      two = { "b", 2, "/", opt_tries = 1 },
    })
    assert.same({ one = "a nil / nil", two = "b 2 / 1" }, results)
    assert.is_nil(next(errors))
  end)

  it("are local variables of a chunk, whose lines stay", function ()
    assert.equal(3, parallel.submit { "return a + b",
                                      params = { a = 1, b = 2 } }:get())
    assert.same({ 12, n = 1 }, parallel.map({ 10 }, "return ... + add",
                                            { params = { add = 2 } }))
    local job = parallel.submit { "\nlocal x = a\nerror 'here'",
                                  params = { a = 1 } }
    assert.equal("failed", job:wait())
    assert.matches(":3: here$", job.error)
  end)

  it("may be tables and false", function ()
    assert.same({ false, { 1 } }, { parallel.submit {
      function (flag, list) return flag, list end,
      params = { flag = false, list = { 1 } },
    }:get() })
  end)

  local function two (first, second) return first, second end
  for _, row in ipairs {
    { "a missing one", { two, params = { first = 1 } },
      "missing parameter 'second' in 'params' to 'submit'; the function has: "
      .. "first, second" },
    { "an unknown one", { two, params = { first = 1, secnd = 2 } },
      "unknown parameter 'secnd' .*did you mean 'second'?.*; the function "
      .. "has: first, second" },
    { "one that only its mark tells from a known one",
      { function (opt_port) return opt_port end, params = { port = 1 } },
      "unknown parameter 'port' .*did you mean 'opt_port'?.*; the function "
      .. "has: opt_port" },
    { "one that is there by position",
      { two, arguments = { 1 }, params = { first = 1 } },
      "parameter 'first' .* is given already, by position; by name there "
      .. "are: second" },
    { "one without a name", { two, params = { 1, 2 } },
      "names of parameters expected as keys, got [12]" },
    { "a C function", { print, params = { x = 1 } }, "got a C function" },
    { "a stripped function",
      { load(string.dump(two, true)), params = { first = 1, second = 2 } },
      "were stripped" },
    { "no name of a variable", { "return 1", params = { ["a b"] = 1 } },
      "bad name 'a b'" },
    { "a keyword", { "return 1", params = { ["end"] = 1 } },
      "bad name 'end'" },
  } do
    it("refuse " .. row[1], function ()
      local ok, message = pcall(parallel.submit, row[2])
      assert.is_false(ok)
      assert.matches(row[3], message)
    end)
  end

  it("refuse the item's own parameter, and arguments beside them", function ()
    assert.error_matches(function ()
      parallel.map({ 1 }, two, { params = { first = 1, second = 2 } })
    end, "parameter 'first' .* is given already")
    assert.error_matches(function ()
      parallel.map({ 1 }, two, { params = { second = 2 }, arguments = { 1 } })
    end, "give params or arguments")
  end)
end)

describe("a value that cannot travel", function ()
  local file <const> = io.stdout
  local function three (a, b, log) return a, b, log end
  local function each (...)
    for _ in parallel.each(...) do error "not reached" end
  end
  local pool
  setup(function () pool = parallel.pool { max = 1 } end)
  teardown(function () pool:close() end)

  for _, row in ipairs {
    { "map", "parameter 'log': ",
      function () parallel.map({ 1 }, function (_, log) return log end,
                               { params = { log = file } }) end },
    { "collect", "parameter 'log': field 'a': ",
      function () parallel.collect({ 1 }, function (_, log) return log end,
                                   { params = { log = { a = file } } }) end },
    { "filter", "parameter 'log': ",
      function () parallel.filter({ 1 }, function (_, log) return log end,
                                  { params = { log = file } }) end },
    { "each", "parameter 'log': ",
      function () each({ 1 }, function (_, log) return log end,
                       { params = { log = file } }) end },
    { "reduce", "parameter 'log': ",
      function () parallel.reduce({ 1, 2 }, three, nil,
                                  { params = { log = file } }) end },
    { "reduce by position", "argument 1: ",
      function () parallel.reduce({ 1, 2 }, three, nil,
                                  { arguments = { file } }) end },
    { "reduce in its function", "upvalue 'file' of function ",
      function () parallel.reduce({ 1, 2 },
                                  function () return file end) end },
    { "submit", "parameter 'log': ",
      function () parallel.submit { three, arguments = { 1 },
                                    params = { b = 2, log = file } } end },
    { "submit by position", "argument 1: ",
      function () parallel.submit { three, arguments = { file },
                                    params = { b = 2, log = 3 } } end },
    { "submit of a chunk", "parameter 'log': ",
      function () parallel.submit { "return log",
                                    params = { a = 1, log = file } } end },
    { "try_submit", "parameter 'b': ",
      function () pool:try_submit { three, params = { a = 1, b = file,
                                                      log = 3 } } end },
    { "invoke", "key 'k': parameter 'log': ",
      function () parallel.invoke(three, { k = { a = 1, b = 2,
                                                 log = file } }) end },
    { "invoke, one value", "key 'k': parameter 'x': ",
      function () parallel.invoke(function (x) return x end,
                                  { k = { x = file } }) end },
    { "invoke, for all keys", "key 'k': parameter 'log': ",
      function () parallel.invoke(three, { k = { 1, 2 } },
                                  { params = { log = file } }) end },
    { "invoke by position", "key 'k': argument 2: field 'b': ",
      function () parallel.invoke(three, { k = { 1, { b = file } } }) end },
    { "invoke without waiting", "parameter 'log': ",
      function () parallel.invoke(three, { k = { 1, b = 2, log = file } },
                                  { async = true }) end },
    { "manager", "parameter 'log': ",
      function () parallel.manager():start(three, { 1, 2, log = file }) end },
    { "map of several values", "item 1: value 2: ",
      function () parallel.map(function (_, i)
        if i == nil then return 1, file end
      end, three) end },
  } do
    it("is named: " .. row[1], function ()
      local ok <const>, message <const> = pcall(row[3])
      assert.is_false(ok)
      local who <const> = message:match "^[^:]+:%d+: (.*)cannot transfer a "
      assert.equal(row[2], ((who or message):gsub("<.*", "", 1)))
    end)
  end

  it("is named where its '__transfer' raises", function ()
    assert.error_matches(function ()
      parallel.submit { three, params = { a = 1, b = 2,
        log = setmetatable({}, { __transfer = function ()
          error("raised", 0)
        end }) } }
    end, "parameter 'log': '__transfer' failed: raised$")
  end)
end)
