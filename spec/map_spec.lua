-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local modules <const> = require "support.modules"
local notes <const> = require "support.notes"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

local function square (x) return x * x end

--- What 'fn' raises.
local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

describe("map's items", function ()
  it("are not what ipairs returns", function ()
    assert.error_matches(function ()
      parallel.map(ipairs { 1 }, print)
    end, "bad argument 'items' to 'map' %(of what 'ipairs' returns")
  end)
end)

describe("map", function ()
  it("gives the values of an array in its order", function ()
    assert.same({ 1, 4, 9, 16, n = 4 }, parallel.map({ 1, 2, 3, 4 }, square))
  end)

  it("keeps the order when a later item ends first", function ()
    local pool <close> = parallel.pool { min = 2, max = 2 }
    local gate <close> = gates.new()
    local pass <const>, path <const> = gate.pass, gate.path
    local results = pool:map({ "slow", "quick" }, function (item)
      if item == "slow" then
        pass()
      else
        local _ <close> = io.open(path, "w")  -- waits for the slow one
      end
      return item
    end, { chunk = 1 })
    assert.same({ "slow", "quick", n = 2 }, results)
  end)

  it("keeps holes, and counts them in 'n'", function ()
    local results = parallel.map({ 1, 2, 3, 4 }, function (x)
      if x % 2 == 1 then return x end
    end)
    assert.same({ 1, nil, 3, nil, n = 4 }, results)
  end)

  it("takes holes of an array that has 'n'", function ()
    local results = parallel.map({ nil, 2, nil, n = 3 }, function (x)
      return x == nil and "hole" or x
    end)
    assert.same({ "hole", 2, "hole", n = 3 }, results)
  end)

  it("returns one table and nothing else", function ()
    assert.equal(1, select("#", parallel.map({ 1 }, square)))
  end)

  it("keeps the first of several values", function ()
    assert.same({ 1, n = 1 }, parallel.map({ 1 }, function (x)
      return x, "second"
    end))
  end)

  it("gives an empty table for no items", function ()
    assert.same({ n = 0 }, parallel.map({}, square))
    assert.same({ n = 0 }, parallel.map(parallel.range(0), square))
    assert.same({ n = 0 }, parallel.map(function () end, square))
  end)

  it("takes a range", function ()
    assert.same({ 9, 4, 1, n = 3 },
                parallel.map(parallel.range(3, 1, -1), square))
  end)

  it("takes an iterator", function ()
    assert.same({ "A", "B", "C", n = 3 },
                parallel.map(("a b c"):gmatch("%a"), string.upper))
  end)

  it("passes all values of an iterator", function ()
    local results = parallel.map(("k=1,l=2"):gmatch("(%a)=(%d)"),
                                 function (key, value)
      return value .. key
    end)
    assert.same({ "1k", "2l", n = 2 }, results)
  end)

  it("takes a callable table as an iterator", function ()
    local count = 0
    local counter = setmetatable({}, { __call = function ()
      count = count + 1
      if count <= 3 then return count end
    end })
    assert.same({ 1, 4, 9, n = 3 }, parallel.map(counter, square))
  end)

  it("passes what an iterator raises on to the caller", function ()
    local count = 0
    local value = raised(parallel.map, function ()
      count = count + 1
      if count == 3 then error({ "no more" }) end
      return count
    end, square)
    assert.same({ "no more" }, value)
  end)

  it("passes 'arguments' behind each item, nil included", function ()
    local results = parallel.map({ 1, 2 }, function (...)
      local x, a, b, c = ...
      return select("#", ...) .. tostring(x) .. tostring(a) .. tostring(b)
             .. tostring(c)
    end, { arguments = { nil, "b", nil, n = 3 } })
    assert.same({ "41nilbnil", "42nilbnil", n = 2 }, results)
  end)

  it("runs a chunk of source", function ()
    assert.same({ 2, 4, n = 2 }, parallel.map({ 1, 2 }, "return ... * 2"))
  end)

  it("runs a C function", function ()
    assert.same({ 2.0, 3.0, n = 2 }, parallel.map({ 4, 9 }, math.sqrt))
  end)

  it("gives the same for every size of chunk and limit", function ()
    local expected = { n = 1000 }
    for i = 1, 1000 do expected[i] = i * i end
    for _, chunk in ipairs { 1, 7, 999, 1000, 5000 } do
      for _, limit in ipairs { 1, 2, 50 } do
        assert.same(expected, parallel.map(parallel.range(1000), square,
                                           { chunk = chunk, limit = limit }))
      end
    end
  end)

  it("carries many items of each kind of input", function ()
    local list = {}
    for i = 1, 100000 do list[i] = i end
    local function counter ()
      local i = 0
      return function ()
        i = i + 1
        if i <= 100000 then return i end
      end
    end
    for _, input in ipairs { list, parallel.range(100000), counter() } do
      local results = parallel.map(input, square)
      assert.equal(100000, results.n)
      local sum = 0
      for i = 1, results.n do sum = sum + results[i] end
      assert.equal(333338333350000, sum)
    end
  end)

  it("works in a job, on the pool that runs the job", function ()
    local pool <close> = parallel.pool { max = 1 }
    local results = pool:map({ 1, 2, 3 }, function (x)
      local inner = parallel.map({ x, x + 1 }, function (y) return y * 10 end)
      return inner[1] + inner[2]
    end)
    assert.same({ 30, 50, 70, n = 3 }, results)
  end)

  it("nests four deep in a pool of one worker", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function deep (level)
      if level == 0 then return 1 end
      local parts = parallel.map({ level - 1, level - 1 }, deep)
      return parts[1] + parts[2]
    end
    assert.equal(16, pool:run(deep, 4))
  end)

  it("works in several coroutines, one within the other", function ()
    local outer = coroutine.wrap(function ()
      for i = 1, 3 do coroutine.yield(parallel.map({ i }, square)[1]) end
    end)
    local inner = parallel.map(outer, square)
    assert.same({ 1, 16, 81, n = 3 }, inner)
  end)
end)

describe("the function of a map", function ()
  it("brings its upvalues", function ()
    local factor, add = 3, { 100 }
    assert.same({ 103, 106, n = 2 }, parallel.map({ 1, 2 }, function (x)
      return x * factor + add[1]
    end))
  end)

  it("brings tables with cycles and sharing", function ()
    local node = { name = "node" }
    node.self = node
    local pair = { node, node }
    assert.same({ true, n = 1 }, parallel.map({ 1 }, function ()
      return pair[1] == pair[2] and pair[1].self == pair[1]
             and pair[1].name == "node"
    end))
  end)

  it("brings other functions, and calls itself", function ()
    local function increment (x) return x + 1 end
    local function factorial (n)
      return n < 2 and 1 or n * factorial(n - 1)
    end
    assert.same({ 3, 7, n = 2 }, parallel.map({ 2, 3 }, function (n)
      return increment(factorial(n))
    end))
  end)

  it("shares an upvalue between two of its functions", function ()
    local count = 0
    local function up () count = count + 1 end
    local function get () return count end
    assert.same({ 2, n = 1 }, parallel.map({ 1 }, function ()
      up()
      up()
      return get()
    end))
    assert.equal(0, count)
  end)

  it("brings modules by name", function ()
    local lpeg <const> = require "lpeg"
    local digits = parallel.map({ "12ab" }, function (text)
      return lpeg.match(lpeg.C(lpeg.R("09") ^ 1), text)
    end)
    assert.same({ "12", n = 1 }, digits)
  end)

  it("brings the classes of modules", function ()
    local _ <close> = modules.new { spec_point = [[
      local point = {}
      point.__index = point
      function point.new (x, y)
        return setmetatable({ x = x, y = y }, point)
      end
      function point:sum () return self.x + self.y end
      return point
    ]] }
    local point <const> = require "spec_point"
    local pool <close> = parallel.pool {}
    local results = pool:map({ point.new(1, 2) }, function (p)
      return point.new(p:sum(), 0)
    end)
    assert.equal(point, getmetatable(results[1]))
    assert.equal(3, results[1]:sum())
  end)

  it("brings a value as its '__transfer' tells", function ()
    local function reborn (seed) return { "reborn", seed } end
    local value = setmetatable({}, {
      __transfer = function () return reborn, 42 end,
    })
    local ok, results = pcall(parallel.map, { value }, function (v)
      return v[1] .. v[2]
    end)
    assert(ok, tostring(results))
    assert.same({ "reborn42", n = 1 }, results)
  end)
end)

describe("a failure of a map", function ()
  it("has the index, the input, the error and the state", function ()
    local failure = raised(parallel.map, { 10, 20, 30 }, function (x)
      if x == 20 then error({ code = 7, list = { 1, 2 } }) end
    end)
    assert.equal(2, failure.index)
    assert.equal(20, failure.input)
    assert.same({ code = 7, list = { 1, 2 } }, failure.error)
    assert.equal("failed", failure.state)
  end)

  it("has whatever was raised, as it was", function ()
    for _, value in ipairs { "text", 42, 1.5, false, true } do
      local failure = raised(parallel.map, { 1 }, function ()
        error(value, 0)
      end)
      assert.equal(value, failure.error)
    end
    local failure = raised(parallel.map, { 1 }, function () error(nil) end)
    assert.is_nil(failure.error)
    assert.equal(1, failure.index)
  end)

  it("has the traceback of the runspace", function ()
    local function deep () error("deep down") end
    local failure = raised(parallel.map, { 1 }, function () deep() end)
    assert.matches("deep down", failure.error)
    assert.matches("stack traceback:", failure.traceback)
    assert.matches("map_spec.lua:%d+: in upvalue 'deep'", failure.traceback)
  end)

  it("has the input that an iterator gave", function ()
    local failure = raised(parallel.map, ("a b c d"):gmatch("%a"),
                           function (x)
      if x == "c" then error("bad letter") end
    end)
    assert.equal(3, failure.index)
    assert.equal("c", failure.input)
  end)

  it("reads as one line with item, input and error", function ()
    local failure = raised(parallel.map, { "web1", "web2" }, function (host)
      if host == "web2" then error("no route to " .. host) end
    end, { name = "scan" })
    local text = tostring(failure)
    assert.matches("^item 2 %(\"web2\"%) of 'scan': [^\n]*map_spec.lua:%d+: "
                   .. "no route to web2$", text)
    assert.matches("^stack traceback:\n\t", failure.traceback)
  end)

  it("cuts a long input in its message", function ()
    local failure = raised(parallel.map, { ("x\n"):rep(5000) }, error)
    local line = tostring(failure):match("^[^(]*%(([^)]*)%)")
    assert.is_true(#line < 80)
  end)

  it("hints at a global of the host that did not travel", function ()
    rawset(_G, "host_helper", function () end)
    local failure = raised(parallel.map, { 1 },
                           "host_helper(...)")  -- not in the runspace
    rawset(_G, "host_helper", nil)
    assert.matches("global 'host_helper'", failure.error)
    assert.matches("hint: 'host_helper' is a global of the host and did not "
                   .. "travel, .*functions = {host_helper = host_helper}",
                   tostring(failure))
  end)

  it("hints at the pool where the call takes no variables", function ()
    local pool <close> = parallel.pool { max = 1 }
    local want <const> = "pass variables = {host_value = host_value}"
    rawset(_G, "host_value", 1)
    local _, of_job = parallel.spawn("return host_value + 1"):join()
    local of_run = raised(parallel.run, "return host_value + 1")
    local of_map = raised(pool.map, pool, { 1 }, "return host_value + ...")
    -- What reduces is compiled here, so its globals would travel.
    local still <const> = { globals = false }
    local of_fold = raised(pool.reduce, pool, { 1, 2 },
                           "return host_value + ...", nil, still)
    local _, of_keys = pool:invoke("return host_value + ...", { a = { 1 } })
    local here = raised(parallel.map, { 1 }, "return host_value + ...")
    local fold_here = raised(parallel.reduce, { 1, 2 },
                             "return host_value + ...", nil, still)
    rawset(_G, "host_value", nil)
    for _, failure in ipairs { of_job, of_run, of_map, of_fold, of_keys.a } do
      assert.equal(want .. " to parallel.pool", failure.hint:match "pass .*")
    end
    assert.equal(want, here.hint:match "pass .*")
    assert.equal(want, fold_here.hint:match "pass .*")
  end)

  it("hints at the module that a global of the host is", function ()
    rawset(_G, "host_json", require "cjson")
    local failure = raised(parallel.map, { 1 }, "host_json.encode(...)")
    rawset(_G, "host_json", nil)
    assert.matches("hint: 'host_json' .*require \"cjson\"", tostring(failure))
  end)

  it("gives no hint for a global that nobody has", function ()
    local failure = raised(parallel.map, { 1 }, "nobody_has_this(...)")
    assert.is_nil(failure.hint)
  end)

  it("keeps what comes after it from starting", function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool <close> = parallel.pool { max = 1 }
    raised(pool.map, pool, parallel.range(100), function (i)
      write(i)
      if i == 3 then error("three") end
    end, { chunk = 1 })
    assert.same({ "1", "2", "3" }, note:lines())
  end)

  it("keeps the rest of its chunk from starting", function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool <close> = parallel.pool { max = 1 }
    raised(pool.map, pool, parallel.range(100), function (i)
      write(i)
      if i == 3 then error("three") end
    end, { chunk = 50 })
    assert.same({ "1", "2", "3" }, note:lines())
  end)

  it("ends an endless iterator", function ()
    local count = 0
    local failure = raised(parallel.map, function ()
      count = count + 1
      return count
    end, function (x) if x == 100 then error("enough") end end)
    assert.equal(100, failure.index)
  end)

  it("leaves a hole and goes on with on_error = 'continue'", function ()
    local results, failures = parallel.map({ 1, 2, 3 }, function (x)
      if x == 2 then error("two", 0) end
      return x
    end, { on_error = "continue" })
    assert.same({ 1, nil, 3, n = 3 }, results)
    assert.equal("two", failures[2].error)
    assert.equal(2, failures[2].input)
  end)

  it("comes through a nested map whole", function ()
    local failure = raised(parallel.map, { "outer" }, function ()
      parallel.map({ "inner" }, function () error("bottom", 0) end)
    end)
    assert.equal("outer", failure.input)
    assert.equal("inner", failure.error.input)
    assert.equal("bottom", failure.error.error)
    assert.matches("item 1 %(\"outer\"%): item 1 %(\"inner\"%): bottom",
                   tostring(failure))
  end)

  it("tells which value of a result cannot come back", function ()
    local failure = raised(parallel.map, { 1 }, function ()
      return { log = io.stdout }
    end)
    assert.equal(1, failure.index)
    assert.matches("cannot transfer", tostring(failure.error))
    assert.matches("log", tostring(failure.error))
  end)

  it("leaves the pool ready for the next call", function ()
    local pool <close> = parallel.pool { max = 2 }
    for _ = 1, 20 do
      raised(pool.map, pool, parallel.range(50), function (i)
        if i == 25 then error("again") end
      end)
      assert.same({ 1, 4, n = 2 }, pool:map({ 1, 2 }, square))
    end
  end)
end)

describe("a call of a map", function ()
  it("opens a pool of its own for an initial state", function ()
    local results = parallel.map({ 1, 2 }, "return offset + ...",
                                 { variables = { offset = 40 } })
    assert.same({ 41, 42, n = 2 }, results)
  end)

  it("has at most 'limit' workers in a pool of its own", function ()
    local records = parallel.collect(parallel.range(50), square,
                                     { modules = {}, limit = 1, chunk = 1 })
    for i = 1, records.n do assert.equal(1, records[i].worker) end
  end)

  it("has one job at a time with limit = 1", function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool <close> = parallel.pool { min = 2, max = 2 }
    pool:map(parallel.range(20), function (i)
      write("begin " .. i)
      write("end " .. i)
    end, { limit = 1, chunk = 1 })
    local lines <const> = note:lines()
    assert.equal(40, #lines)
    for i = 1, 20 do
      assert.equal("begin " .. i, lines[2 * i - 1])
      assert.equal("end " .. i, lines[2 * i])
    end
  end)
end)

describe("filter", function ()
  local function is_even (x) return x % 2 == 0 end

  it("keeps the items of each kind of input, in their order", function ()
    local expected <const> = { 2, 4, 6, n = 3 }
    assert.same(expected, parallel.filter({ 1, 2, 3, 4, 5, 6 }, is_even))
    assert.same(expected, parallel.filter(parallel.range(7), is_even))
    local i = 0
    assert.same(expected, parallel.filter(function ()
      i = i + 1
      if i <= 7 then return i end
    end, is_even))
  end)

  it("keeps the very items of an array", function ()
    local item <const> = { 1 }
    local kept = parallel.filter({ item }, function () return true end)
    assert.equal(item, kept[1])
  end)

  it("raises the failure of an item", function ()
    local failure = raised(parallel.filter, { 1, "x" }, is_even)
    assert.equal(2, failure.index)
  end)

  it("is a method of pools", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.same({ 2, n = 1 }, pool:filter({ 1, 2 }, is_even))
  end)
end)

describe("reduce", function ()
  local function add (a, b) return a + b end
  local function join (a, b) return a .. b end

  it("combines the items of each kind of input", function ()
    local list = {}
    for i = 1, 1000 do list[i] = i end
    local i = 0
    assert.equal(500500, parallel.reduce(list, add))
    assert.equal(500500, parallel.reduce(parallel.range(1000), add))
    assert.equal(500500, parallel.reduce(function ()
      i = i + 1
      if i <= 1000 then return i end
    end, add))
  end)

  it("keeps the order of the items", function ()
    local letters = "the quick brown fox jumps over the lazy dog"
    for _, chunk in ipairs { 1, 2, 3, 5, 100 } do
      assert.equal(letters, parallel.reduce(letters:gmatch("."), join, nil,
                                            { chunk = chunk }))
    end
    assert.equal(letters, parallel.reduce(letters:gmatch("."), join))
  end)

  it("begins with 'init'", function ()
    assert.equal("<abc", parallel.reduce({ "a", "b", "c" }, join, "<"))
    assert.equal("<a", parallel.reduce({ "a" }, join, "<"))
  end)

  it("combines the items of ranges that count down or in steps", function ()
    assert.equal("9630", parallel.reduce(parallel.range(9, 0, -3), join))
    assert.equal("<9630", parallel.reduce(parallel.range(9, 0, -3), join, "<",
                                          { chunk = 1 }))
  end)

  it("gives 'init', or nil, for no items", function ()
    assert.equal(7, parallel.reduce({}, add, 7))
    assert.is_nil(parallel.reduce({}, add))
    assert.equal(7, parallel.reduce(function () end, add, 7))
  end)

  it("gives the only item as it is", function ()
    assert.equal(5, parallel.reduce({ 5 }, add))
  end)

  it("runs C functions and chunks of source", function ()
    assert.equal(9, parallel.reduce({ 3, 9, 2 }, math.max))
    assert.equal(14, parallel.reduce({ 3, 9, 2 },
                                     "local a, b = ... return a + b"))
  end)

  it("tells between which items it failed", function ()
    local failure = raised(parallel.reduce, parallel.range(100),
                           function (_, b)
      if b == 50 then error("fifty", 0) end
      return b
    end, nil, { chunk = 20 })
    assert.equal("fifty", failure.error)
    assert.equal(41, failure.index)
    assert.equal(60, failure.last)
    assert.matches("^items 41 to 60: fifty", tostring(failure))
    failure = raised(parallel.reduce, parallel.range(100), function (_, b)
      if b == 50 then error("fifty", 0) end
      return b
    end, 0, { chunk = 20 })
    assert.equal(41, failure.index)
  end)

  it("names the item that cannot travel, or init", function ()
    local file <const> = io.stdout
    for _, row in ipairs {
      { file, 0, "item 37: cannot transfer a userdata" },
      { { x = { file } }, nil, "item 37: field 'x%[1%]': cannot transfer" },
      { function () return file end, nil,
        "item 37: upvalue 'file' of function" },
      { 37, file, "init: cannot transfer a userdata" },
      { 37, { x = file }, "init: field 'x': cannot transfer a userdata" },
    } do
      local list = {}
      for i = 1, 100 do list[i] = i end
      list[37] = row[1]
      for _, options in ipairs { {}, { chunk = 10 } } do
        assert.matches("map_spec.lua:%d+: " .. row[3],
                       raised(parallel.reduce, list, math.max, row[2],
                              options))
      end
      local i = 0
      assert.matches(row[3], raised(parallel.reduce, function ()
        i = i + 1
        return list[i]
      end, math.max, row[2]))
    end
  end)

  it("shows what a part sends to its streams by its items", function ()
    assert.equal("WARNING: items 41 to 60: w\nWARNING: sum, item 1: w\n",
                 (run [[
      local function fold (_, b)
        if b == 50 then parallel.task.warning "w" end
        return b
      end
      parallel.reduce(parallel.range(100), fold, 0, {chunk = 20})
      parallel.reduce({50, 2}, fold, 0, {chunk = 1, name = "sum"})
    ]]))
  end)

  it("is a method of pools", function ()
    local pool <close> = parallel.pool { max = 2 }
    assert.equal(55, pool:reduce(parallel.range(10), add))
  end)
end)

describe("range", function ()
  it("reads like an array", function ()
    local range = parallel.range(3, 9, 3)
    local seen = {}
    for i, value in ipairs(range) do seen[i] = value end
    assert.same({ 3, 6, 9 }, seen)
    assert.equal(3, #range)
    assert.is_nil(range[4])
  end)

  it("counts from 1 when it has one bound", function ()
    assert.same({ 1, 2, 3, n = 3 }, parallel.map(parallel.range(3),
                                                "return ..."))
  end)

  it("travels", function ()
    assert.equal(3, parallel.run(function (r) return #r end,
                                 parallel.range(3)))
  end)
end)

describe("cpus", function ()
  it("is the number of CPUs that this process may use", function ()
    local pipe <close> = assert(io.popen("env -u OMP_NUM_THREADS nproc"))
    assert.equal(pipe:read("n"), parallel.cpus())
  end)
end)
