-- SPDX-License-Identifier: MIT
--- What comes out of a message is what went in, or a refusal that says where.
local modules <const> = require "support.modules"
local parallel <const> = require "parallel"
local copy <const> = require "support.core".copy

-- Encoded here, decoded and given back by a runspace.
local function cross (...)
  return parallel.run(function (...) return ... end, ...)
end

local function same_scalar (a, b)
  if a ~= a then return b ~= b end
  return a == b and math.type(a) == math.type(b)
     and (a ~= 0 or math.type(a) == "integer" or 1 / a == 1 / b)
end

local same

-- The key of 'b' that is what 'k' is in the other table; at most one of its
-- keys may be a table that was not seen before.
local function partner (k, b, seen)
  if type(k) ~= "table" or seen[k] then return seen[k] or k end
  for other in next, b do
    if type(other) == "table" and same(k, other, seen) then return other end
  end
end

-- Whether two values have the same shape: cycles, sharing and metatables too.
function same (a, b, seen)
  if type(a) ~= "table" or type(b) ~= "table" then return same_scalar(a, b) end
  seen = seen or {}
  if seen[a] then return seen[a] == b end
  seen[a] = b
  local more = 0
  for k, v in next, a do
    if not same(v, rawget(b, partner(k, b, seen)), seen) then return false end
    more = more + 1
  end
  for _ in next, b do more = more - 1 end
  return more == 0 and same(getmetatable(a) or false,
                            getmetatable(b) or false, seen)
end

local function refusal (...)
  local ok, message = pcall(copy, ...)
  assert.is_false(ok)
  return (tostring(message):gsub("^[^:]*:%d+: ", ""))
end

local scalars <const> = {
  { "false", false }, { "true", true },
  { "zero", 0 }, { "minus one", -1 },
  { "the largest of one byte", 127 }, { "more than one byte", 128 },
  { "minus 128", -128 }, { "minus 129", -129 },
  { "two bytes", 32767 }, { "more than two bytes", 32768 },
  { "minus two bytes", -32768 }, { "less than minus two bytes", -32769 },
  { "four bytes", 1 << 31 }, { "seven bytes", (1 << 55) - 1 },
  { "more than seven bytes", 1 << 55 },
  { "2^53 + 1", (1 << 53) + 1 },
  { "the largest integer", math.maxinteger },
  { "the smallest integer", math.mininteger },
  { "a float", 0.1 }, { "an integral float", 3.0 },
  { "zero as a float", 0.0 }, { "minus zero", -0.0 },
  { "infinity", math.huge }, { "minus infinity", -math.huge },
  { "no number", 0 / 0 }, { "a subnormal", 4.9e-324 },
  { "2^63 as a float", 2.0 ^ 63 },
  { "no text", "" }, { "a zero in a text", "a\0b\0" },
  { "bytes that are no UTF-8", "\xff\xfe\x80" },
  { "a text of 63 bytes", ("x"):rep(63) },
  { "a text of 64 bytes", ("x"):rep(64) },
  { "a text of 64 KiB", ("x\0"):rep(32768) },
  { "a text of 17 MiB", ("0123456789abcdef\n"):rep(1 << 20) },
}

describe("scalar", function ()
  for _, row in ipairs(scalars) do
    it("travels: " .. row[1], function ()
      assert.is_true(same_scalar(row[2], copy(row[2])))
      assert.is_true(same_scalar(row[2], (cross(row[2]))))
      assert.is_true(same({ row[2] }, copy { row[2] }))
      if row[2] == row[2] then
        assert.is_true(same({ [row[2]] = row[2] }, copy { [row[2]] = row[2] }))
      end
    end)
  end

  it("travels beside nil, also at the end", function ()
    assert.same({ nil, 1, nil, n = 3 }, table.pack(copy(nil, 1, nil)))
    assert.same({ n = 0 }, table.pack(copy()))
    assert.same({ nil, n = 1 }, table.pack(cross(nil)))
  end)
end)

-- Sequences around the places where a run of numbers begins and ends.
local function sequence (n, value)
  local t = {}
  for i = 1, n do t[i] = value(i) end
  return t
end

local sequences <const> = {
  { "too few for a run", sequence(7, function (i) return i end) },
  { "just enough for a run", sequence(8, function (i) return -i end) },
  { "integers of all sizes",
    sequence(64, function (i) return 1 << i - 1 end) },
  { "floats", sequence(100, function (i) return i / 3 end) },
  { "integers, then floats",
    sequence(40, function (i) return i <= 20 and i or i + 0.5 end) },
  { "integers and floats by turns",
    sequence(40, function (i) return i % 2 == 0 and i or i + 0.5 end) },
  { "numbers between words",
    sequence(60, function (i) return i % 20 == 0 and "word" or i end) },
  { "numbers with tables among them",
    sequence(60, function (i) return i % 25 == 0 and { i } or i end) },
  { "numbers, false and true",
    sequence(30, function (i) return i > 10 and i % 2 == 0 or i end) },
  { "numbers that are no number",
    sequence(20, function (i) return i % 3 == 0 and 0 / 0 or i / 2 end) },
}

describe("sequence", function ()
  for _, row in ipairs(sequences) do
    it("travels: " .. row[1], function ()
      assert.is_true(same(row[2], copy(row[2])))
      assert.is_true(same(row[2], (cross(row[2]))))
      assert.is_true(same({ row[2], row[2] }, copy { row[2], row[2] }))
      local mixed <const> = table.move(row[2], 1, #row[2], 1,
                                       { x = 1, [-1] = 2 })
      assert.is_true(same(mixed, copy(mixed)))
      local values <const> = parallel.map(row[2], function (x) return x end)
      assert.equal(#row[2], values.n)
      values.n = nil
      assert.is_true(same(row[2], values))
    end)
  end

  it("travels with a hole", function ()
    local t <const> = sequence(40, function (i) return i end)
    t[20] = nil
    assert.is_true(same(t, copy(t)))
    t[40], t[39] = nil, nil
    assert.is_true(same(t, copy(t)))
  end)
end)

-- Tables that have keys in common, or seem to.
local records <const> = {
  { "the same keys", function (i) return { id = i, name = "n" .. i } end },
  { "one key more now and then", function (i)
      return { id = i, name = "n", extra = i % 3 == 0 and i or nil }
    end },
  { "one key less now and then", function (i)
      return { id = i, name = i % 3 ~= 0 and "n" or nil }
    end },
  { "other keys behind the first", function (i)
      return { id = i, ["key " .. i] = i }
    end },
  { "keys by turns", function (i)
      return i % 2 == 0 and { a = 1, b = 2 } or { a = 1, c = 2 }
    end },
  { "more keys than a shape has", function (i)
      local t = {}
      for k = 1, 20 do t["k" .. k] = i end
      return t
    end },
  { "keys longer than those of a shape", function (i)
      return { [("k"):rep(70)] = i, [("l"):rep(70)] = i }
    end },
  { "keys that are no strings", function (i)
      return { a = 1, b = 2, [i + 0.5] = 3, [true] = 4 }
    end },
  { "a sequence beside the keys",
    function (i) return { i, a = 1, b = 2 } end },
  { "records in records", function (i)
      return { id = i, at = { x = i, y = -i }, to = { x = 0, y = i } }
    end },
  { "a record in one that begins alike", function (i)
      return { a = 1, b = { a = 2, b = { a = 3, b = i } } }
    end },
  { "lists of records in them", function (i)
      return { id = i, list = { { x = i, y = 1 }, { y = 2, x = i, { z = i } },
                                { { z = 1 }, { z = i } } } }
    end },
  { "now and then a record of another kind", function (i)
      return i % 10 == 0 and { a = i, b = 2 } or { c = i, d = 2, e = 3 }
    end },
  { "more shapes than are remembered", function (i)
      local t = {}
      for k = 1, 20 do
        t["s" .. k] = { [("%da"):format(k)] = i, x = 1, y = 2 }
      end
      return t
    end },
  { "keys with a zero in them", function (i)
      return { ["a\0b"] = i, ["a\0c"] = i }
    end },
  { "no keys", function () return {} end },
}

describe("record", function ()
  for _, row in ipairs(records) do
    it("travels with " .. row[1], function ()
      local list <const> = sequence(100, row[2])
      assert.is_true(same(list, copy(list)))
      assert.is_true(same(list, (cross(list))))
      local values <const> = parallel.map(list, function (x) return x end)
      values.n = nil
      assert.is_true(same(list, values))
    end)
  end

  it("leaves the garbage collector as it was", function ()
    local function rebuilt (by)
      local list <const> = sequence(10000, records[1][2])
      list[#list + 1] = setmetatable({}, { __transfer = function ()
        return by
      end })
      return list
    end
    local u <const> = copy(rebuilt(function ()
      return { running = collectgarbage "isrunning" }
    end))
    assert.is_true(u[#u].running)
    assert.is_true(collectgarbage "isrunning")
    local ok, message = pcall(copy, rebuilt(function () error("no", 0) end))
    assert.is_false(ok)
    assert.equal("no", message)
    assert.is_true(collectgarbage "isrunning")
    copy(sequence(10000, records[1][2]))
    assert.is_true(collectgarbage "isrunning")
    collectgarbage "stop"
    copy(sequence(10000, records[1][2]))
    local running <const> = collectgarbage "isrunning"
    collectgarbage "restart"
    assert.is_false(running)
  end)

  it("keeps its class, and what is shared", function ()
    local class <const> = { __index = { kind = "point" } }
    local origin <const> = { x = 0, y = 0 }
    local list <const> = sequence(50, function (i)
      return setmetatable({ x = i, y = -i, from = origin }, class)
    end)
    list[51] = list[1]
    assert.is_true(same(list, copy(list)))
    assert.is_true(same(list, (cross(list))))
  end)

  it("travels in a metatable that is not complete yet", function ()
    local class <const> = { name = "c", all = {} }
    for i = 1, 20 do
      class.all[i] = setmetatable({ a = i, b = class }, class)
    end
    assert.is_true(same(class, copy(class)))
  end)

  it("is refused by its path behind others of its shape", function ()
    local list <const> = sequence(20, function (i)
      return { id = i, file = i == 20 and io.stdout or "none" }
    end)
    assert.matches("field '%[20%]%.file': cannot transfer a userdata",
                   refusal(list))
    list[20].file = "none"
    assert.is_true(same(list, copy(list)))
  end)

  it("is found by a worker that begins in the middle of a chunk", function ()
    local items <const> = sequence(60, function (i)
      return { id = i, wait = 1, name = "n" .. i }
    end)
    -- Each item takes as long as a worker may spend on a chunk.
    local results <const> = parallel.map(items, function (record)
      local till = parallel.now() + 5e-3
      repeat until parallel.now() > till
      return { id = record.id, name = record.name, wait = record.wait }
    end)
    results.n = nil
    assert.is_true(same(items, results))
  end)

  it("is the same when its item is tried again", function ()
    local items <const> = sequence(40, function (i)
      return { id = i, list = sequence(20, function (k) return k end) }
    end)
    local sums <const> = parallel.map(items, function (record)
      if parallel.task.attempt < 3 then error "again" end
      local sum = record.id
      for _, value in ipairs(record.list) do sum = sum + value end
      return sum
    end, { retries = 2 })
    for i = 1, 40 do assert.equal(i + 210, sums[i]) end
  end)
end)

local function cycle ()
  local t <const> = { {}, x = {} }
  t.self, t[1].up, t.x[t] = t, t, t.x
  return t
end

local function shared_key ()
  local key <const> = { 1 }
  return { [key] = key, { [key] = true } }
end

local function with_metatable ()
  local mt <const> = { __index = { inherited = 1 } }
  mt.__index.mt = mt
  return { setmetatable({ 1 }, mt), setmetatable({ 2 }, mt) }
end

-- The metatable is reached first, and the object inside of it.
local function inside_its_metatable ()
  local mt <const> = { __name = "own" }
  mt.all = { setmetatable({ 1 }, mt), setmetatable({ 2 }, mt) }
  return mt
end

local function own_metatable ()
  local t <const> = {}
  return setmetatable(t, t)
end

local function long_array ()
  local t <const> = {}
  for i = 1, 1e5 do t[i] = i * 7919 % 65537 end
  return t
end

local function many_keys ()
  local t <const> = {}
  for i = 1, 1e4 do t["key " .. i], t[-i], t[i + 0.5] = i, i / 2, { i } end
  return t
end

local tables <const> = {
  { "empty", {} },
  { "a list", { 1, "two", 3.0, false } },
  { "holes", { 1, nil, 3, nil, nil, 6 } },
  { "a hole in front", { nil, 2 } },
  { "keys of all kinds", { [1] = 1, [0] = 0, [-1] = -1, [2.5] = 2.5,
                           [true] = true, [false] = false, ["1"] = "1",
                           [""] = "", [1 << 53] = 1, [math.huge] = 2 } },
  { "lists in records in lists", { { a = { { b = { 1, 2 } } } }, {} } },
  { "cycles", cycle() },
  { "a table that is a key", shared_key() },
  { "a metatable that two share", with_metatable() },
  { "objects inside their metatable", inside_its_metatable() },
  { "its own metatable", own_metatable() },
  { "n of table.pack", table.pack(nil, nil, 3, nil) },
  { "a long array", long_array() },
  { "many keys", many_keys() },
}

describe("table", function ()
  for _, row in ipairs(tables) do
    it("travels: " .. row[1], function ()
      assert.is_true(same(row[2], copy(row[2])))
      assert.is_true(same(row[2], (cross(row[2]))))
    end)
  end

  it("stays shared by two values", function ()
    local t <const> = {}
    local a <const>, b <const>, c <const> = copy(t, { t }, t)
    assert.equal(a, b[1])
    assert.equal(a, c)
    assert.not_equal(t, a)
  end)

  it("is read raw", function ()
    local function trap () error("called") end
    local t <const> = setmetatable({ 1 }, {
      __index = trap, __newindex = trap, __len = trap, __pairs = trap,
      __eq = trap, __metatable = "locked",
    })
    local u <const> = copy(t)
    assert.equal(1, rawget(u, 1))
    assert.equal("locked", getmetatable(u))
  end)

  it("keeps weak references, and is not finalized", function ()
    local weak <const> = copy(setmetatable({ {}, {} }, { __mode = "v" }))
    collectgarbage()
    assert.is_nil(next(weak))
    local count <const> = { n = 0 }
    local object, counter = copy(setmetatable({ count = count }, {
      __gc = function (self) self.count.n = self.count.n + 1 end,
    }), count)
    assert.is_function(getmetatable(object).__gc)
    object = nil  -- luacheck: ignore 311
    collectgarbage()
    assert.equal(0, counter.n)  -- the original does what is to be done
  end)

  it("has nothing of the sender's in it", function ()
    local t <const> = { {} }
    local u <const> = copy(t)
    u[1].x, u[2] = 1, 2
    assert.same({ {} }, t)
  end)
end)

describe("function", function ()
  it("brings its upvalues by value", function ()
    local n = 1
    local t <const> = { 10 }
    local function f () n, t[1] = n + 1, t[1] + 1 return n, t[1] end
    local g <const> = copy(f)
    assert.same({ 2, 11 }, { g() })
    assert.same({ 3, 12 }, { g() })
    assert.same({ 1, { 10 } }, { n, t })
  end)

  it("shares upvalues with other functions", function ()
    local n = 0
    local function add () n = n + 1 end
    local function get () return n end
    local function both () add() return get() end
    local t <const> = copy { add = add, get = get, both = both }
    t.add()
    assert.equal(1, t.get())
    assert.equal(2, t.both())
    local a <const>, b <const> = copy(add, get)
    a()
    assert.equal(1, b())
    assert.equal(0, n)
  end)

  it("does not share upvalues that are only equal", function ()
    local a, b = 0, 0
    local f <const>, g <const> = copy(function () a = a + 1 return a end,
                                      function () b = b + 1 return b end)
    f()
    assert.equal(1, g())
  end)

  it("calls itself", function ()
    local function factorial (n)
      return n <= 1 and 1 or n * factorial(n - 1)
    end
    assert.equal(120, copy(factorial)(5))
    assert.equal(120, parallel.run(factorial, 5))
  end)

  it("calls another one that calls it", function ()
    local odd
    local function even (n) return n == 0 or odd(n - 1) end
    function odd (n) return n ~= 0 and even(n - 1) end
    assert.is_true(copy(even)(10))
    assert.is_false(copy(odd)(10))
    assert.is_true(parallel.run(even, 10))
  end)

  it("is part of cycles", function ()
    local object <const> = {}
    function object.get () return object end
    local u <const> = copy(object)
    assert.equal(u, u.get())
    local f <const> = copy(object.get)
    assert.equal(f, f().get)
  end)

  it("is one object wherever it is", function ()
    local function f () end
    local a <const>, t <const> = copy(f, { f, [f] = f })
    assert.equal(a, t[1])
    assert.equal(a, t[a])
  end)

  it("keeps its debug information", function ()
    local function f (alpha, beta) return alpha, beta end
    local g <const> = copy(f)
    assert.equal("alpha", debug.getlocal(g, 1))
    assert.equal("beta", debug.getlocal(g, 2))
    local here <const>, there <const> =
      debug.getinfo(f, "S"), debug.getinfo(g, "S")
    assert.equal(here.source, there.source)
    assert.equal(here.linedefined, there.linedefined)
  end)

  it("travels without debug information", function ()
    local n = 5
    local f <const> = load(string.dump(function () return n, print end, true))
    debug.upvaluejoin(f, 1, function () return n end, 1)
    debug.setupvalue(f, 2, _G)
    assert.same({ 5, print }, { copy(f)() })
  end)

  it("has many upvalues", function ()
    local source <const> = {}
    for i = 1, 60 do
      source[#source + 1] = ("local a%d, b%d, c%d, d%d = %d, 0, 0, 1")
                            :format(i % 45, i % 45, i % 45, i % 45, i)
    end
    local names <const> = {}
    for i = 0, 44 do
      names[#names + 1] = ("a%d + b%d + c%d + d%d"):format(i, i, i, i)
    end
    -- Fewer locals than Lua's 200, and as many upvalues.
    local chunk <const> = "local a0, b0, c0, d0 = 0, 0, 0, 0\n"
      .. table.concat(source, "\n", 1, 44)
      .. "\nreturn function () return " .. table.concat(names, " + ") .. " end"
    local f <const> = assert(load(chunk))()
    assert.equal(f(), copy(f)())
  end)

  it("finds the globals of the place where it runs", function ()
    local function assign () _ENV.marshal_spec_global = 1 end
    assert.equal(1, parallel.run(function ()
      assign()
      return _ENV.marshal_spec_global
    end))
    assert.is_nil(rawget(_G, "marshal_spec_global"))
    local function globals () return _G, _ENV end
    assert.equal(_G, copy(globals)())
  end)

  it("takes an environment of its own along", function ()
    local own <const> = { answer = 42 }
    local f <const> = load("return answer, _ENV", "own", "t", own)
    local answer <const>, env <const> = copy(f)()
    assert.equal(42, answer)
    assert.not_equal(own, env)
    assert.equal(42, parallel.run(function () return (f()) end))
  end)

  it("may have the globals as an upvalue of another name", function ()
    local G = _G
    local function f () local g <const> = G G = nil return g end
    local g <const> = copy(f)
    assert.equal(_G, g())
    assert.is_nil(g())
    assert.equal(_G, copy(function () return _ENV end)())
  end)
end)

describe("C function", function ()
  local found <const> = {
    print = print, ["string.format"] = string.format, pcall = pcall,
    ["table.concat"] = table.concat, require = require,
    ["package.searchpath"] = package.searchpath, ["io.write"] = io.write,
  }
  for name, f in pairs(found) do
    it("travels by its name: " .. name, function ()
      assert.equal(f, copy(f))
      assert.equal(f, copy { f = f }.f)
      assert.equal("function", parallel.run(function () return type(f) end))
    end)
  end

  it("is the receiver's own", function ()
    local upper <const>, format <const> = string.upper, string.format
    assert.same({ "A", "1" }, parallel.run(function ()
      assert(upper == string.upper)
      return { upper "a", format("%d", 1) }
    end))
  end)

  it("comes back as the same one", function ()
    assert.equal(print, (cross(print)))
    assert.equal(string.rep, (cross(string.rep)))
  end)

  it("is refused with upvalues that nobody knows", function ()
    assert.matches("^field 'next': cannot transfer a C function",
                   refusal { next = coroutine.wrap(print) })
  end)
end)

describe("module", function ()
  local saved <const> = package.loaded["spec.shapes"]
  local shapes <const> = { Point = {}, deep = { Line = {} }, config = { 1 },
                           file = io.stdout }
  setup(function ()
    for _, class in ipairs { shapes.Point, shapes.deep.Line } do
      class.__index = class
      class.log = io.stdout  -- cannot travel, and need not
    end
    package.loaded["spec.shapes"] = shapes
  end)
  teardown(function () package.loaded["spec.shapes"] = saved end)

  it("travels by its name, wherever it is", function ()
    assert.equal(string, copy(string))
    assert.equal(shapes, copy { a = { shapes } }.a[1])
    assert.equal(shapes, copy(function () return shapes end)())
    assert.is_true(parallel.run(function () return string == _G.string end))
  end)

  it("is loaded by the receiver", function ()
    local dir <const> = modules.new {
      marshal_needed = "return { answer = 42, path = package.path }"
    }
    local needed <const> = require "marshal_needed"
    local pool <close> = parallel.pool { path = package.path }
    assert.equal(42, pool:run(function () return needed.answer end))
    assert.equal(42, pool:run(function (t) return t.m.answer end,
                              { m = needed }))
    dir:__close()
  end)

  it("that the receiver lacks is named, and who needs it", function ()
    local absent <const> = {}
    package.loaded.marshal_absent = absent
    local ok, failure = pcall(parallel.run, function () return absent end)
    package.loaded.marshal_absent = nil
    assert.is_false(ok)
    failure = tostring(failure)
    assert.matches("module 'marshal_absent' is needed by upvalue 'absent' of"
                   .. " function <.*marshal_spec.lua:%d+>: ", failure)
    assert.matches("no field package.preload%['marshal_absent'%]", failure)
  end)

  it("that was unloaded is a table like others", function ()
    local gone <const> = { 1 }
    package.loaded.marshal_gone = gone
    assert.equal(gone, copy(gone))
    package.loaded.marshal_gone = nil
    local u <const> = copy(gone)
    assert.not_equal(gone, u)
    assert.same(gone, u)
  end)

  it("gives its class to objects", function ()
    for _, class in ipairs { shapes.Point, shapes.deep.Line } do
      local object <const> = setmetatable({ x = 1 }, class)
      local a <const>, t <const> = copy(object, { object, { class } })
      assert.equal(class, getmetatable(a))
      assert.equal(a, t[1])
      assert.equal(class, t[2][1])
      assert.equal(1, a.x)
    end
  end)

  it("gives its class to objects also after others of them", function ()
    local list <const> = {}
    for i = 1, 100 do list[i] = setmetatable({ i }, shapes.Point) end
    for i, object in ipairs(copy(list)) do
      assert.equal(i, object[1])
      assert.equal(shapes.Point, getmetatable(object))
    end
  end)

  it("has its other tables where the same is in them", function ()
    assert.equal(shapes.config, copy(shapes.config))
    assert.equal(shapes.config, copy { shapes.config }[1])
  end)

  it("can be a class", function ()
    local object <const> = setmetatable({}, shapes)
    assert.equal(shapes, getmetatable(copy(object)))
  end)

  it("gives no class of the program's own globals", function ()
    local class <const> = { text = "mine" }
    class.__index = class
    _G.marshal_class = class
    local ok, text = pcall(parallel.run, function (o) return o.text end,
                           setmetatable({}, class))
    _G.marshal_class = nil
    assert.is_true(ok)
    assert.equal("mine", text)
  end)
end)

describe("__transfer", function ()
  local function by (transfer)
    return setmetatable({ 7 }, { __transfer = transfer })
  end

  it("gives a value that travels instead", function ()
    assert.equal(7, copy(by(function (self) return self[1] end)))
    assert.is_nil((copy(by(function () end))))
    assert.same({ { 7 } }, copy { by(function () return { 7 } end) })
  end)

  it("gives a function that rebuilds the object, and what for", function ()
    local function build (a, b, c) return { built = { a, b, c } } end
    local object <const> = by(function (self)
      return build, self[1], nil, "three"
    end)
    assert.same({ built = { 7, nil, "three" } }, copy(object))
    assert.equal("three", parallel.run(function (o) return o.built[3] end,
                                       object))
  end)

  it("is called once for each object", function ()
    local calls = 0
    local object <const> = by(function ()
      calls = calls + 1
      return function () return {} end
    end)
    local a <const>, b <const>, t <const> = copy(object, object, { object })
    assert.equal(1, calls)
    assert.equal(a, b)
    assert.equal(a, t[1])
  end)

  it("may say that the object travels as it is", function ()
    local object <const> = by(function (self) return self end)
    local u <const> = copy(object)
    assert.equal(7, u[1])
    assert.is_function(getmetatable(u).__transfer)
  end)

  it("may share what else travels", function ()
    local shared <const> = {}
    local t <const> = copy { by(function () return { shared } end), shared }
    assert.equal(t[1][1], t[2])
  end)

  it("may be nested", function ()
    local inner <const> = by(function () return { "inner" } end)
    assert.same({ { "inner" } }, copy(by(function () return { inner } end)))
  end)

  it("may change the table that is being sent, and be told so", function ()
    local t <const> = {}
    for i = 1, 100 do
      t["key" .. i] = by(function ()
        for k in pairs(t) do t[k] = nil end
        for j = 1, 1000 do t[j + 0.5] = j end
        collectgarbage()
        return true
      end)
    end
    local ok, message = pcall(copy, t)
    assert.is_true(ok or tostring(message):match "changes while" ~= nil)
  end)

  it("that raises refuses the value", function ()
    assert.matches("^field 'a': '__transfer' failed: .*: no way$",
                   refusal { a = by(function () error "no way" end) })
    assert.matches("^field 'a': '__transfer' failed: %(error object is a "
                   .. "table value%)",
                   refusal { a = by(function () error {} end) })
    assert.matches("'__transfer' failed: .*attempt to call",
                   refusal(by(1)))
  end)

  it("whose result cannot travel refuses the value", function ()
    assert.matches("^result of '__transfer' of field 'a': field 'b': cannot",
                   refusal { a = by(function ()
                     return { b = io.stdout }
                   end) })
  end)

  it("that leads back to the object refuses it", function ()
    assert.matches("leads back", refusal(by(function (self)
      return { self }
    end)))
  end)

  it("may use the marshaller", function ()
    assert.same({ 1 }, copy(by(function () return copy { 1 } end)))
  end)
end)

describe("refusal", function ()
  local log <const> = io.stdout
  local thread <const> = coroutine.create(print)

  local rows <const> = {
    { "of a userdata", log, "^cannot transfer a userdata %(FILE%*%); " },
    { "of a thread", thread, "^cannot transfer a thread; " },
    { "with the path of fields", { a = { b = { 1, 2, { c = thread } } } },
      "^field 'a%.b%[3%]%.c': cannot transfer a thread; " },
    { "with keys that are no names",
      { ["a b"] = { [1.5] = { [true] = log } } },
      "^field '%[\"a b\"%]%[1%.5%]%[true%]': " },
    { "of a key", { a = { [thread] = 1 } },
      "^key of field 'a': cannot transfer a thread; " },
    { "inside of a key", { a = { [{ b = log }] = 1 } },
      "^key of field 'a': field 'b': " },
    { "behind a key that is a table", { [{}] = log },
      "^field '%[a table%]': " },
    { "of a metatable", { a = setmetatable({}, { x = log }) },
      "^metatable of field 'a': field 'x': cannot" },
    { "of an upvalue", function () return log end,
      "^upvalue 'log' of function <.*marshal_spec%.lua:%d+>: cannot"
      .. " transfer a userdata %(FILE%*%); " },
    { "of an upvalue in a table", { on = { function () return log end } },
      "^field 'on%[1%]': upvalue 'log' of function <" },
  }
  for _, row in ipairs(rows) do
    it("tells the path " .. row[1], function ()
      assert.matches(row[3], refusal(row[2]))
    end)
  end

  it("says which value", function ()
    assert.matches("^value 2: field 'x': ", refusal(1, { x = thread }))
  end)

  it("cuts a path that is very long", function ()
    local t = { thread }
    for i = 1, 150 do t = { ["a_rather_long_name_" .. i] = t } end
    assert.matches("^field '%.%.%..*name_1%[1%]': cannot transfer a thread; ",
                   refusal(t))
  end)

  it("leaves nothing behind", function ()
    local t <const> = {}
    refusal(t, { t, thread })
    assert.is_true(same({ t, t }, copy { t, t }))
  end)
end)

describe("an error of a hook", function ()
  --- Call 'verb' again and again; a hook raises at its first event of the
  --- kinds in 'mask', then at the second one, and so on, until it has fewer.
  --- Return how often that was, and what else was raised.
  local function storm (verb, mask)
    local at, others = 0, {}
    while true do
      at = at + 1
      local n, raised = 0, false
      local problem <const> = { "stopped" }
      local _, got = pcall(function ()
        debug.sethook(function ()
          n = n + 1
          if n == at then
            raised = true
            debug.sethook()
            error(problem)
          end
        end, mask)
        verb()
        debug.sethook()
      end)
      debug.sethook()
      if not raised then return at - 1, others end
      if got ~= problem then others[#others + 1] = tostring(got) end
    end
  end

  local big <const> = {}
  for i = 1, 50 do big[i] = { i, tostring(i) } end
  local function count (t) return #t + #big end

  for _, row in ipairs {
    { "run", function (pool) pool:run(count, big) end },
    { "run, with upvalues",
      function (pool) pool:run(function () return #big end) end },
    { "spawn", function (pool) pool:spawn(count, big):get() end },
    { "map", function (pool) pool:map({ big, big }, count) end },
    { "each",
      function (pool)
        for record in pool:each({ big, big }, count) do
          assert(record.result == 100)
        end
      end },
  } do
    local name <const>, verb <const> = row[1], row[2]
    for mask, kind in pairs { c = "call", r = "return" } do
      it("leaves '" .. name .. "' as it is, at each " .. kind, function ()
        local pool <close> = parallel.pool { max = 1 }
        verb(pool)
        local times, others = storm(function () verb(pool) end, mask)
        assert.is_true(times > 4)
        assert.same({}, others)
        verb(pool)
      end)
    end
  end
end)
