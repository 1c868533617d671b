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
