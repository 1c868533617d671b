-- SPDX-License-Identifier: MIT
--- What functions read by global names travels with them.
---
--- The globals of this file are those of a script: the functions under test
--- read them by name.  They are taken away after each test.

local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

--- Run a body of source as a script does, with globals of its own kind: `_ENV`
--- is the table of globals.
---@param text string
---@param ... any
---@return any ...
local function script (text, ...)
  return assert(load(text, "=script", "t", _G))(...)
end

--- Names that a script has made.
local before <const> = {}
local function forget ()
  for name in pairs(_G) do
    if not before[name] then rawset(_G, name, nil) end
  end
end

local KINDS <const> = {
  thread = {},
  ["without reset"] = { reset = "none" },
  fresh = { reset = "fresh" },
  process = { isolation = "process" },
}

describe("what a function reads by a global name", function ()
  before_each(function ()
    for name in pairs(_G) do before[name] = true end
  end)
  after_each(forget)

  for kind, options in pairs(KINDS) do
    local function open (more)
      local given <const> = { max = 2, runspace = options.isolation
                              and tree.program() or nil }
      for name, value in pairs(options) do given[name] = value end
      for name, value in pairs(more or {}) do given[name] = value end
      return parallel.pool(given)
    end

    it("is there in the job: " .. kind, function ()
      local p <close> = open()
      local list, n, text = script([[
        local p = ...
        function double (x) return x * 2 end
        offset = 10
        words = { greeting = "hello" }
        local list = p:map({ 1, 2, 3 }, function (x)
          return double(x) + offset
        end)
        local n = p:run(function () return double(offset) end)
        local text = p:spawn(function () return words.greeting end):get()
        return list, n, text
      ]], p)
      assert.same({ 12, 14, 16, n = 3 }, list)
      assert.equal(20, n)
      assert.equal("hello", text)
    end)

    it("is looked up when the call is made: " .. kind, function ()
      local p <close> = open()
      assert.same({ "none", "none", 1, "two", "none" }, { script([[
        local p = ...
        local function f ()
          if late == nil then return "none" end
          return type(late) == "function" and late() or late
        end
        local a, b = p:run(f), p:run(f)
        late = 1
        local c = p:run(f)
        function late () return "two" end
        local d = p:run(f)
        late = nil
        return a, b, c, d, p:run(f)
      ]], p) })
    end)

    it("is what its functions read, to any depth: " .. kind, function ()
      local p <close> = open()
      assert.same({ true, false, 5050 }, { script([[
        local p = ...
        function even (n) if n == 0 then return true end return odd(n - 1) end
        function odd (n) if n == 0 then return false end return even(n - 1) end
        function first (n) return second(n) end
        function second (n) return third(n) end
        do
          local step = 1
          function third (n)
            local sum = 0
            for i = step, n do sum = sum + i end
            return sum
          end
        end
        return p:run(function () return even(10), even(7), first(100) end)
      ]], p) })
    end)

    it("does not outlive the job: " .. kind, function ()
      local p <close> = open { max = 1 }
      assert.same({ 1, false, 2 }, { script([[
        local p = ...
        passing = 1
        local a = p:run(function () return passing end)
        local b = p:run "return rawget(_G, 'passing') ~= nil"
        passing = 2
        return a, b, p:run(function () return passing end)
      ]], p) })
    end)

    it("may be assigned to by the job alone: " .. kind, function ()
      local p <close> = open { max = 1 }
      local list, seen, here = script([[
        local p = ...
        counter = 0
        local function count (x)
          counter = counter + x
          return counter
        end
        return p:map({ 1, 2, 3, 4 }, count, { chunk = 4 }), p:run(count, 5),
               counter
      ]], p)
      if options.reset == "none" then  -- what jobs assign stays, as ever
        assert.same({ 1, 3, 6, 10, n = 4 }, list)
      else
        assert.same({ 1, 2, 3, 4, n = 4 }, list)
        assert.equal(5, seen)
      end
      assert.equal(0, here)
    end)

    it("is the runspace's where that has the name: " .. kind, function ()
      local p <close> = open { variables = { mine = "the runspace's" },
                               init = "made = 'by init'" }
      assert.same({ "the runspace's", "by init", "function" }, { script([[
        local p = ...
        mine, made, print = "the host's", "here", print
        return p:run(function () return mine, made, type(print) end)
      ]], p) })
    end)

    it("keeps its identity: " .. kind, function ()
      local p <close> = open()
      assert.same({ true, true, true, "hi" }, { script([[
        local p = ...
        Class = {}
        Class.__index = Class
        NONE = {}
        function Class.new () return setmetatable({}, Class) end
        function Class:hi () return "hi" end
        local object, none, text = p:run(function ()
          return Class.new(), NONE, Class.new():hi()
        end)
        local same = p:map({ Class.new(), NONE }, function (v)
          return v == NONE or getmetatable(v) == Class
        end)
        return getmetatable(object) == Class, none == NONE,
               same[1] and same[2], text
      ]], p) })
    end)

    it("comes with functions among the items: " .. kind, function ()
      local p <close> = open { max = 1 }
      assert.same({ 8, 7, false, n = 3 }, (script([[
        local p = ...
        function twice (x) return 2 * x end
        seven = 7
        return p:map({
          function () return twice(4) end, function () return seven end,
          function () return rawget(_G, "seven") ~= nil end,
        }, function (f) return f() end, { chunk = 3 })
      ]], p)))
    end)

    it("comes with functions among the arguments: " .. kind, function ()
      local p <close> = open()
      assert.same({ 9, { 10, 11, n = 2 }, 6 }, { script([[
        local p = ...
        add = 4
        local function plus (x) return x + add end
        local function apply (x, f) return f(x) end
        local function back (f, x) return f(x) end
        return p:run(back, plus, 5), p:map({ 6, 7 }, apply,
                                           { arguments = { plus } }),
               p:invoke(back, { a = { plus, 2 } }).a
      ]], p) })
    end)
  end

  it("shares tables and functions with the upvalues", function ()
    assert.is_true((script([[
      local parallel = require "parallel"
      shared = {}
      local same = shared
      ring = { list = shared }
      ring.ring = ring
      return parallel.run(function ()
        return shared == same and ring.list == same and ring.ring == ring
      end)
    ]])))
  end)

  it("is left out if it cannot travel, and the hint says why", function ()
    local good, failure, other = script([[
      local parallel = require "parallel"
      log = io.stderr
      config = { out = io.stderr }
      local unused <const> = parallel.run(function ()
        return log == nil and config == nil
      end)
      local good, failure = pcall(parallel.run, function ()
        return log:write "x"
      end)
      local _, other = pcall(parallel.map, { 1 }, function ()
        return config.out
      end)
      return unused and not good, failure, other
    ]])
    assert.is_true(good)
    assert.equal("'log' is a global of the host that did not travel: cannot "
                 .. "transfer a userdata (FILE*); open the file in the job, "
                 .. "by its name, or in 'init' of a pool", failure.hint)
    assert.matches("'config' is a global of the host that did not travel: "
                   .. "field 'out': cannot transfer a userdata (FILE*)",
                   other.hint, 1, true)
  end)

  it("is left out without what came with it", function ()
    assert.same({ "nil", "table", 3 }, { script([[
      local parallel = require "parallel"
      local list = { 1, 2, 3 }
      broken = { list, helper, io.stderr }
      whole = list
      return parallel.run(function ()
        return type(broken), type(whole), #whole
      end)
    ]]) })
  end)

  it("is read from the sandbox that a function has as _ENV", function ()
    local base <const> = { answer = 42 }
    local sandbox <const> = setmetatable({}, { __index = base })
    local f <const> = assert(load("return function () return answer end",
                                  "=script", "t", sandbox))()
    assert.equal(42, parallel.run(f))
    sandbox.answer = 43
    assert.equal(43, parallel.run(f))
  end)

  it("is asked for without code of the script", function ()
    local asked = 0
    local strict <const> = setmetatable({}, {
      __index = function (_, name) asked = asked + 1; return name end,
    })
    local f <const> = assert(load("return function () return missing end",
                                  "=script", "t", strict))()
    assert.is_nil((parallel.run(f)))
    assert.equal(0, asked)
  end)

  it("has names of any length, behind any number of constants", function ()
    local lines <const> = { "local t = {}" }
    for i = 1, 300 do lines[#lines + 1] = ("t[%d] = 'c%d'"):format(i, i) end
    local long <const> = ("long_"):rep(30)
    lines[#lines + 1] = "return function () local s = 'x'"
    for i = 1, 300 do lines[#lines + 1] = ("s = s .. 'k%d'"):format(i) end
    lines[#lines + 1] = "return #s, far_away, " .. long .. " end"
    script(long .. " = 'long'; far_away = 'far'")
    local _, far, text = parallel.run(script(table.concat(lines, "\n")))
    assert.equal("far", far)
    assert.equal("long", text)
  end)

  it("is found through _ENV and in functions inside", function ()
    assert.same({ 1, 2, 3 }, { script([[
      local parallel = require "parallel"
      by_env, by_alias, inside = 1, 2, 3
      return parallel.run(function ()
        local env = _ENV
        local function inner () return (function () return inside end)() end
        return _ENV.by_env, env.by_alias, inner()
      end)
    ]]) })
  end)

  it("is nothing that only looks like a name", function ()
    -- The string stands in the function, but names no global there.
    assert.same({ 4, true }, { script([[
      local parallel = require "parallel"
      field = io.stderr
      local t = { field = 4 }
      return parallel.run(function ()
        return t.field, rawget(_G, "field") == nil
      end)
    ]]) })
  end)

  it("goes with nested calls", function ()
    assert.same({ 3, 6, n = 2 }, (script([[
      local parallel = require "parallel"
      function triple (x) return 3 * x end
      return parallel.run(function ()
        return parallel.map({ 1, 2 }, function (x) return triple(x) end)
      end)
    ]])))
  end)

  it("goes with the functions of an initial state", function ()
    local p <close> = script([[
      local parallel = require "parallel"
      factor = 3
      function scale (x) return factor * x end
      return parallel.pool {
        init = function () base = scale(2) end,
        functions = { scaled = function (x) return scale(scale(x)) end },
      }
    ]])
    assert.equal(6, p:run("return base"))
    assert.equal(9, p:run("return scaled(1)"))
  end)

  it("survives a strict.lua in the runspace", function ()
    local p <close> = parallel.pool {
      init = [[
        setmetatable(_G, {
          __newindex = function (_, name) error("undeclared " .. name, 2) end,
          __index = function (_, name) error("undeclared " .. name, 2) end,
        })
      ]],
    }
    assert.same({ 5, 6, n = 2 }, (script([[
      local p = ...
      more = 4
      return p:map({ 1, 2 }, function (x) return x + more end)
    ]], p)))
  end)
end)

describe("a module of a file", function ()
  local dir, path

  --- Write a file that 'require' finds.
  local function write (name, text)
    local file <close> = assert(io.open(dir .. "/" .. name, "w"))
    assert(file:write(text))
  end

  setup(function ()
    local pipe <close> = assert(io.popen "mktemp -d")
    dir, path = pipe:read "l", package.path
    package.path = dir .. "/?.lua;" .. dir .. "/?/init.lua;" .. path
    assert(os.execute("mkdir " .. dir .. "/gtest"))
    write("gtest_util.lua", [[
      local M = { inner = {} }
      function M.f () return gtest_aid and gtest_aid() end
      M.inner.g = M.f
      function gtest_stray () return gtest_aid() end
      return M]])
    write("gtest/init.lua", "return function () return gtest_aid end")
    write("gtest/deep.lua", "return { f = function () return gtest_aid end }")
    write("gtest_file.lua", "function gtest_file () return gtest_aid() end")
  end)
  before_each(function ()
    for name in pairs(_G) do before[name] = true end
    script "function gtest_aid () return 'found' end"
  end)
  after_each(forget)
  teardown(function ()
    package.path = path
    for _, name in ipairs { "gtest", "gtest.deep", "gtest_util" } do
      package.loaded[name] = nil
    end
    os.execute("rm -rf " .. dir)
  end)

  it("has functions whose globals do not travel", function ()
    local util <const> = require "gtest_util"
    assert.is_nil((parallel.run(util.f)))
    assert.is_nil((parallel.run(util.inner.g)))
    assert.is_nil((parallel.run(require "gtest")))
    assert.is_nil((parallel.run(require "gtest.deep".f)))
    assert.same({ n = 1 }, parallel.map({ 1 }, util.f))
  end)

  it("does not keep the script's globals from travelling", function ()
    assert.same({ "found", "found" }, { parallel.run((script([[
      local f = ...
      return function () return f(), gtest_aid() end
    ]], require "gtest_util".f))) })
  end)

  it("has them brought by 'globals'", function ()
    assert.equal("found", parallel.submit {
      require "gtest_util".f, globals = { "gtest_aid" } }:get())
  end)

  it("may make globals, which are like the script's", function ()
    package.loaded.gtest_util = nil
    require "gtest_util"
    assert.equal("found", parallel.run(script "return gtest_stray"))
    assert.equal("found", parallel.run(
      script "return function () return gtest_stray() end"))
  end)

  it("is not one that 'dofile' runs, nor what the script adds", function ()
    dofile(dir .. "/gtest_file.lua")
    assert.equal("found", parallel.run(script "return gtest_file"))
    local util <const> = require "gtest_util"
    util.own = script "return function () return gtest_aid() end"
    assert.equal("found", parallel.run(util.own))
    util.own = nil
  end)
end)

describe("the hint of a failure", function ()
  local function hint_of (...)
    local good, failure = pcall(...)
    assert.is_false(good)
    return failure.hint
  end

  local added <const> = "'string.gtest' was made by the script, and a "
    .. "runspace has a 'string' of its own; write local gtest = string.gtest "
    .. "and call gtest(...), which travels, or pass init = function () "
    .. "string.gtest = gtest end"

  it("tells of what the script has added to a library", function ()
    local gtest <const> = script "return function (s) return #s end"
    rawset(string, "gtest", gtest)
    local by_method <const> = script "return function (s) return s:gtest() end"
    local by_field <const> =
      script "return function (s) return string.gtest(s) end"
    assert.equal(added, hint_of(parallel.map, { "a" }, by_method))
    assert.equal(added, hint_of(parallel.map, { "a" }, by_field))
    assert.equal(added .. " to parallel.pool",
                 hint_of(parallel.run, by_method, "a"))
    -- The two ways out.
    assert.same({ 3, n = 1 }, parallel.map({ "abc" }, by_method, {
      init = function () rawset(string, "gtest", gtest) end }))
    assert.equal(3, parallel.run(function (s) return gtest(s) end, "abc"))
    rawset(string, "gtest", nil)
    assert.is_nil(hint_of(parallel.map, { "a" }, by_method))
  end)

  it("tells nothing of what a library has by itself", function ()
    assert.is_nil(hint_of(parallel.run, script [[
      return function () local t = {} return t.format("x") end]]))
    assert.is_nil(hint_of(parallel.run, script [[
      return function () local t = {} return t:rep("x") end]]))
  end)

  it("tells of a changed package.path", function ()
    local pipe <close> = assert(io.popen "mktemp -d")
    local dir <const> = pipe:read "l"
    do
      local file <close> = assert(io.open(dir .. "/gtest_far.lua", "w"))
      file:write "return { answer = 42 }"
    end
    local before_it <const> = package.path
    local needs <const> =
      script "return function () return require 'gtest_far'.answer end"
    parallel.run "return 1"  -- the default pool has the path of now
    package.path = dir .. "/?.lua"
    local told <const> = hint_of(parallel.run, needs)
    assert.equal(42, parallel.map({ 1 }, needs, { path = package.path })[1])
    package.path = before_it
    assert.is_nil(hint_of(parallel.run, needs))
    os.execute("rm -r " .. dir)
    assert.equal("the host finds 'gtest_far' in " .. dir .. "/gtest_far.lua; "
                 .. "runspaces look where 'package.path' pointed when their "
                 .. "pool was opened: set it before the first call, or pass "
                 .. "path = package.path to parallel.pool", told)
  end)

  it("tells of package.preload", function ()
    package.preload.gtest_made = script "return function () return 7 end"
    local told <const> = hint_of(parallel.map, { 1 }, script [[
      return function () return require "gtest_made" end]])
    assert.same({ 7, n = 1 }, parallel.map({ 1 }, script [[
      return function () return require "gtest_made" end]], {
        preload = { ["gtest_made"] = package.preload["gtest_made"] } }))
    package.preload.gtest_made = nil
    assert.equal("'gtest_made' is in 'package.preload' of the host, which "
                 .. "does not travel; pass preload = {[\"gtest_made\"] = "
                 .. "package.preload[\"gtest_made\"]}", told)
  end)
end)

describe("the option 'globals'", function ()
  before_each(function ()
    for name in pairs(_G) do before[name] = true end
    script "seen = 5; hidden = 6"
  end)
  after_each(forget)

  local reads <const> = script "return function () return seen end"
  local loads <const> =
    script "return function () return load 'return hidden' () end"

  it("turns it off", function ()
    local still <const> = { globals = false }
    assert.same({ n = 1 }, parallel.map({ 1 }, reads, still))
    assert.is_nil((parallel.submit { reads, globals = false }:get()))
    assert.same({}, (parallel.invoke(reads, { a = {} }, still)))
    assert.is_nil(parallel.reduce({ 1, 2 }, reads, nil, still))
    local p <close> = parallel.pool { globals = false }
    assert.is_nil((p:run(reads)))
    assert.equal(5, p:submit { reads, globals = true }:get())
  end)

  it("adds names", function ()
    assert.is_nil((parallel.run(loads)))
    assert.equal(6, parallel.submit { loads, globals = { "hidden" } }:get())
    local p <close> = parallel.pool { globals = { "hidden", "nobody" } }
    assert.equal(6, p:run(loads))
    assert.same({ 6, 6, n = 2 }, p:map({ 1, 2 }, loads))
    assert.equal(5, p:run(reads))
  end)

  for _, row in ipairs {
    { 3, "a boolean or an array of names expected, got 3" },
    { { 3 }, "a boolean or an array of names expected, got one with 3" },
    { { x = 1 }, "a boolean or an array of names expected, got the key 'x'" },
  } do
    it("refuses " .. row[2], function ()
      for _, call in ipairs {
        function ()
          return parallel.map({ 1 }, reads, { globals = row[1] })
        end,
        function () return parallel.pool { globals = row[1] } end,
        function () return parallel.submit { reads, globals = row[1] } end,
      } do
        local good, text = pcall(call)
        assert.is_false(good)
        assert.matches(row[2], text, 1, true)
      end
    end)
  end
end)
