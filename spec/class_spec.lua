-- SPDX-License-Identifier: MIT
--- Classes as libraries make them: each style has tables of its own beside
--- the objects, and comparisons that must hold in a job and with what comes
--- back.
local parallel <const> = require "parallel"

--- Classes with a dictionary for their objects, and weak lists of subclasses;
--- the class is a field of each object, not its metatable.
local function dictionaries ()
  local create, propagate
  function propagate (class, name, f)
    class.dict[name] = f
    for sub in pairs(class.subclasses) do
      if rawget(sub.declared, name) == nil then propagate(sub, name, f) end
    end
  end
  local methods <const> = {}
  function methods:is (class)
    return self.class == class or self.class:descends(class)
  end
  local static <const> = {}
  function static:new (...)
    local object <const> = setmetatable({ class = self }, self.dict)
    object:init(...)
    return object
  end
  function static:descends (class)
    return self.super ~= nil
       and (self.super == class or self.super:descends(class))
  end
  function static:extend (name)
    local sub <const> = create(name, self)
    for key, f in pairs(self.dict) do
      if key ~= "__index" then propagate(sub, key, f) end
    end
    self.subclasses[sub] = true
    return sub
  end
  function create (name, super)
    local dict <const> = {}
    dict.__index = dict
    local class <const> = {
      name = name, super = super, dict = dict, declared = {}, static = {},
      subclasses = setmetatable({}, { __mode = "k" }),
    }
    setmetatable(class.static, { __index = function (_, key)
      local value <const> = rawget(dict, key)
      if value == nil and super then return super.static[key] end
      return value
    end })
    return setmetatable(class, {
      __index = class.static,
      __tostring = function () return "class " .. name end,
      __call = function (self, ...) return self:new(...) end,
      __newindex = function (self, key, f)
        self.declared[key] = f
        propagate(self, key, f)
      end,
    })
  end
  local root <const> = create "root"
  for key, f in pairs(methods) do root[key] = f end
  for key, f in pairs(static) do root.static[key] = f end
  return root:extend "Base", function (class) return class:extend "Sub" end
end

--- Classes that know their objects and subclasses by weak tables, and have a
--- metatable of their own each.
local function registries ()
  local function make (super)
    local class <const> = { super = super,
                            objects = setmetatable({}, { __mode = "k" }),
                            subclasses = setmetatable({}, { __mode = "v" }) }
    class.__index = class
    function class.extend (self)
      local sub <const> = make(self)
      self.subclasses[#self.subclasses + 1] = sub
      return sub
    end
    function class:is (other)
      local at = self.class
      while at and at ~= other do at = at.super end
      return at == other
    end
    return setmetatable(class, {
      __index = super,
      __call = function (self, ...)
        local object <const> = setmetatable({ class = self }, self)
        object:init(...)
        return object
      end,
    })
  end
  return make(), function (class) return class:extend() end
end

--- The class is the metatable of its subclasses, too.
local function chains ()
  local Object <const> = {}
  Object.__index = Object
  function Object.__call (class, ...)
    local object <const> = setmetatable({}, class)
    object:init(...)
    return object
  end
  function Object:extend ()
    local sub <const> = {}
    for key, value in pairs(self) do
      if key:find "^__" then sub[key] = value end
    end
    sub.__index, sub.super = sub, self
    return setmetatable(sub, self)
  end
  function Object:is (class)
    local mt = getmetatable(self)
    while mt and mt ~= class do mt = getmetatable(mt) end
    return mt == class
  end
  return Object:extend(), function (class) return class:extend() end
end

--- Subclasses have copies of all that their base has; a class refers to
--- itself, and its metatable to the base.
local function copies ()
  local function make (base)
    local class <const> = {}
    for key, value in pairs(base or {}) do class[key] = value end
    class.__index, class._class, class._base = class, class, base
    function class:is (other)
      local at = self._class
      while at and at ~= other do at = at._base end
      return at == other
    end
    return setmetatable(class, { base = base, __call = function (self, ...)
      local object <const> = setmetatable({}, self)
      object:init(...)
      return object
    end })
  end
  return make(), make
end

--- Functions alone: an object is made by a closure, and knows its class as an
--- upvalue.
local function closures ()
  local function make (super)
    local class <const> = {}
    local meta <const> = { __index = class, super = super }
    class.meta = meta
    function class.is (_, other)
      local at = class
      while at and at ~= other do at = at.meta.super end
      return at == other
    end
    return setmetatable(class, { __index = super, __call = function (_, ...)
      local object <const> = setmetatable({}, meta)
      object:init(...)
      return object
    end })
  end
  return make(), make
end

for name, style in pairs { dictionaries = dictionaries,
                           registries = registries, chains = chains,
                           copies = copies, closures = closures } do
  describe("class of the style '" .. name .. "'", function ()
    local Base <const>, extend <const> = style()
    function Base:init (n) self.n = n end
    function Base:double () return 2 * self.n end
    local Sub <const> = extend(Base)
    function Sub:init (n) self.n = n + 1 end
    local Last <const> = extend(extend(Sub))
    local Other <const> = extend(Base)
    local meta <const> = getmetatable(Last(0))

    --- What must hold for an object of the class Last.
    local function check (object, n)
      assert(getmetatable(object) == meta and object.n == n)
      assert(object:is(Last) and object:is(Sub) and object:is(Base))
      assert(not object:is(Other) and object:double() == 2 * n)
    end

    it("is the same for items and results", function ()
      local items <const> = {}
      for i = 1, 20 do items[i] = Last(i) end
      local results <const> = parallel.map(items, function (object, ...)
        check(object, object.n)
        return { object, Last(object.n), ... }
      end, { arguments = { Last, Sub } })
      for i = 1, 20 do
        check(results[i][1], i + 1)
        check(results[i][2], i + 2)
        assert.equal(Last, results[i][3])
        assert.equal(Sub, results[i][4])
      end
    end)

    it("is the same for a job", function ()
      local job <const> = parallel.spawn(function (object, class, double)
        check(object, object.n)
        assert(class == Last and double == Base.double)
        assert(double(object) == object:double())
        return class(1), class, Base, double
      end, Last(1), Last, Base.double)
      local object <const>, class <const>, base <const>, f <const> = job:get()
      check(object, 2)
      assert.equal(Last, class)
      assert.equal(Base, base)
      assert.equal(Base.double, f)
    end)

    it("is the same after a collection on both sides", function ()
      local function keep (object)
        collectgarbage()
        check(object, object.n)
        return { object, Last, Sub, Other }
      end
      collectgarbage()
      for _ = 1, 2 do
        local back <const> = parallel.map({ Last(1) }, keep)[1]
        collectgarbage()
        check(back[1], 2)
        assert.equal(Last, back[2])
        assert.equal(Sub, back[3])
        assert.equal(Other, back[4])
      end
    end)
  end)
end

describe("function of a class", function ()
  local Point <const> = {}
  Point.__index = Point
  function Point.new (x) return setmetatable({ x = x }, Point) end
  function Point.origin () return Point.new(0) end
  local codes <const> = { [1] = function () return 1 end,
                          [2.5] = function () return 2 end,
                          [("k"):rep(100)] = function () return 3 end }

  it("is that of the class, as an item and as a result", function ()
    local results <const> = parallel.map(
      { Point.new, Point.origin, codes[1], codes[2.5] }, function (f)
        local known <const> = {
          [Point.new] = "new", [Point.origin] = "origin", [codes[1]] = "1",
          [codes[2.5]] = "2.5",
        }
        return { f, known[f], codes[("k"):rep(100)] }
      end)
    for i, row in ipairs { { Point.new, "new" }, { Point.origin, "origin" },
                           { codes[1], "1" }, { codes[2.5], "2.5" } } do
      assert.equal(row[1], results[i][1])
      assert.equal(row[2], results[i][2])
      assert.equal(codes[("k"):rep(100)], results[i][3])
    end
  end)

  it("is the same beside the class, and in an object", function ()
    local back <const> = parallel.map(
      { { Point, Point.new, Point.new(1), make = Point.new } }, function (v)
        assert(v[1] == Point and v[2] == Point.new and v.make == v[2])
        assert(getmetatable(v[3]) == Point and v[3].new == v[2])
        return { Point.new, Point, Point.origin(), new = Point.new }
      end)[1]
    assert.equal(Point.new, back[1])
    assert.equal(Point, back[2])
    assert.equal(Point, getmetatable(back[3]))
    assert.equal(Point.new, back.new)
  end)

  it("is a key, and an upvalue", function ()
    local back <const> = parallel.map({ { [Point.new] = 1 } }, function (t)
      assert(t[Point.new] == 1)
      local new <const> = Point.new
      return { [new] = 2, f = function () return new end }
    end)[1]
    assert.equal(2, back[Point.new])
    assert.equal(Point.new, back.f())
  end)

  it("is a copy with what a job has left in its upvalues", function ()
    local n = 0
    local counter <const> = { add = function () n = n + 1 return n end }
    local back <const> = parallel.map({ 1 }, function ()
      counter.add()
      return { counter.add }
    end)[1]
    assert.not_equal(counter.add, back[1])
    assert.equal(2, back[1]())
    assert.equal(1, counter.add())
  end)

  it("shares its upvalues with the others, whichever have changed",
     function ()
    local n, m = 0, 0
    local counter <const> = {
      add = function () n = n + 1 return n end,
      set = function (v) m = v end,
      sum = function () return n + m end,
      get = function () return m end,
    }
    local back <const> = parallel.map({ 1 }, function ()
      counter.add()
      return { counter.set, counter.sum, counter.get, counter }
    end)[1]
    back[1](5)
    assert.equal(6, back[2]())
    assert.equal(5, back[3]())
    assert.equal(6, back[4].sum())
    assert.equal(0, m)
  end)

  it("is a copy if the field has another one now", function ()
    local first <const> = function () return 1 end
    local t <const> = { f = first }
    local back <const> = parallel.map({ 1 }, function ()
      local old <const> = t.f
      t.f = function () return 2 end
      return { old, t.f, t }
    end)[1]
    assert.equal(1, back[1]())
    assert.equal(2, back[2]())
    assert.equal(back[2], back[3].f)
    assert.equal(first, t.f)
  end)

  it("is not accepted from a sandbox", function ()
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    local record <const> = pool:collect({ 1 }, function ()
      return { Point.new }
    end)[1]
    assert.equal("failed", record.state)
    assert.matches("cannot transfer a function out of a sandbox",
                   record.error, 1, true)
  end)
end)

describe("class as a value beside its objects", function ()
  --- Both orders, in the job and in the result.
  local function check (Class, change)
    local items <const> = { { Class, setmetatable({}, Class) },
                            { setmetatable({}, Class), Class },
                            { setmetatable({ class = Class }, Class) } }
    local function same (v)
      local object <const> = getmetatable(v[1]) == Class and v[1] or v[2]
      local class <const> = v[1].class or v[1] == object and v[2] or v[1]
      return getmetatable(object or v[1]) == class and class == Class
    end
    local results <const> = parallel.map(items, function (v)
      if not v[2] then v = { v[1], v[1].class } end
      assert(same(v))
      change(Class)
      return { v, { Class, setmetatable({}, Class) },
               { setmetatable({}, Class), Class },
               { setmetatable({ class = Class }, Class) } }
    end)
    for i = 1, 3 do
      for k = 1, 3 do assert.is_true(same(results[i][k]), i .. " " .. k) end
      assert.equal(Class, results[i][4][1].class)
    end
  end
  local function nothing () end
  local function count (Class) Class.count = (Class.count or 0) + 1 end

  for _, n in ipairs { 1, 64, 65, 500 } do
    for kind, index in pairs { ["with '__index'"] = true,
                               ["without '__index'"] = false } do
      local function new ()
        local Class <const> = {}
        if index then Class.__index = Class end
        for i = 1, n do Class["method_" .. i] = function () return i end end
        return Class
      end
      it("is the same: " .. n .. " methods, " .. kind, function ()
        check(new(), nothing)
      end)
      it("is the same though a job has changed it: " .. n .. " methods, "
         .. kind, function ()
        check(new(), count)
      end)
    end
  end

  it("is the same at the end of many others", function ()
    local classes <const> = {}
    for i = 1, 25 do
      local super <const> = classes[i - 1]
      classes[i] = { super = super, base = function () return super end }
    end
    local last <const> = classes[25]
    local back <const> = parallel.map({ { last, last.base } }, function (v)
      assert(v[1] == last and v[2] == last.base)
      return { classes[1], classes[12], last, last.base }
    end)[1]
    assert.equal(classes[1], back[1])
    assert.equal(classes[12], back[2])
    assert.equal(last, back[3])
    assert.equal(last.base, back[4])
  end)

  it("is the same though it has changed since it was sent", function ()
    local Class <const> = {}
    Class.__index = Class
    local job <const> = parallel.spawn(function ()
      return { Class, setmetatable({}, Class) }, Class
    end)
    job:wait()
    Class.count = 1
    local list <const>, class <const> = job:get()
    assert.equal(Class, list[1])
    assert.equal(Class, getmetatable(list[2]))
    assert.equal(Class, class)
  end)

  it("has its own bases in what comes back, whichever a job has changed",
     function ()
    local Base <const> = {}
    Base.__index = Base
    local Middle <const> = setmetatable({}, Base)
    Middle.__index = Middle
    local Other <const> = { __index = Middle }
    local Leaf <const> = setmetatable({}, Middle)
    Leaf.__index = Leaf
    local back <const> = parallel.map({ setmetatable({}, Leaf) },
                                      function (object)
      Middle.count, Base.count = 1, 2
      return { Base, Middle, object, Leaf, Base, Middle,
               setmetatable({}, Other) }
    end)[1]
    assert.equal(Base, back[1])
    assert.equal(Middle, back[2])
    assert.equal(Leaf, getmetatable(back[3]))
    assert.equal(Leaf, back[4])
    assert.equal(Base, back[5])
    assert.equal(Middle, getmetatable(back[4]))
    assert.equal(Other, getmetatable(back[7]))
  end)

  it("is one table where its change came first", function ()
    local Class <const> = {}
    Class.__index = Class
    local class <const>, object <const> = parallel.run(function ()
      Class.count = 1
      return Class, setmetatable({}, Class)
    end)
    assert.equal(1, class.count)
    assert.equal(class, getmetatable(object))
  end)

  it("keeps what a job has changed in it, where it is alone", function ()
    local Class <const> = { count = 0 }
    Class.__index = Class
    local back <const> = parallel.run(function ()
      Class.count = 1
      Class.default = setmetatable({}, Class)
      return Class
    end)
    assert.not_equal(Class, back)
    assert.equal(1, back.count)
    assert.equal(back, getmetatable(back.default))
    assert.equal(back, back.__index)
  end)

  it("is the same beside objects that '__transfer' makes", function ()
    local Class <const> = {}
    local back <const> = parallel.run(function ()
      local n = 0
      local Handle <const> = { __transfer = function (h)
        n = n + 1
        return { h.number, n }
      end }
      Class.count = 1
      return { setmetatable({ number = 7 }, Handle), Class,
               setmetatable({}, Class) }
    end)
    assert.same({ 7, 1 }, back[1])
    assert.equal(back[2], getmetatable(back[3]))
    assert.equal(1, back[2].count)
  end)
end)
