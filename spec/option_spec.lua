-- SPDX-License-Identifier: MIT
local parallel <const> = require "parallel"

local function square (x) return x * x end

--- What 'fn' says when it is called, with its position cut off, which must be
--- in this file.
local function misuse (fn)
  local ok, message = pcall(fn)
  assert.is_false(ok, "no error")
  assert.equal("string", type(message))
  local position, text = message:match("^(.-option_spec.lua:%d+): (.*)$")
  assert.is_truthy(position, "no position of the caller: " .. message)
  return text
end

--- With all that 'map' knows.
local UNKNOWN <const> = "unknown option '%s' to 'map' (known are arguments, "
  .. "backoff, broker, chunk, command, cpath, cpu_time, cwd, deadline, env, "
  .. "functions, globals, heartbeat, hosts, init, initial_state, "
  .. "instructions, isolation, journal, key, libs, limit, limit_by, "
  .. "max_bytes, max_delay, max_failures, max_tasks, memory, "
  .. "modules, name, nice, on_error, params, path, preload, priority, "
  .. "progress, queue, rate, readable, reset, retries, retry_delay, "
  .. "retry_on, runspace, sandbox, seed, ssh, "
  .. "streams, timeout, total_timeout, variables, writable)"

--- Each row: what is passed to 'map' as options, what is said.
local BAD_OPTIONS <const> = {
  { { limt = 3 }, "unknown option 'limt' to 'map' (did you mean 'limit'?)" },
  { { chunks = 3 },
    "unknown option 'chunks' to 'map' (did you mean 'chunk'?)" },
  { { onerror = "stop" },
    "unknown option 'onerror' to 'map' (did you mean 'on_error'?)" },
  { { module = {} },
    "unknown option 'module' to 'map' (did you mean 'modules'?)" },
  { { Limit = 3 }, "unknown option 'Limit' to 'map' (did you mean 'limit'?)" },
  { { frobnicate = 3 }, UNKNOWN:format "frobnicate" },
  { { params = 5 },
    "bad option 'params' to 'map' (a table by name expected, got 5)"
  },
  { { ordered = true }, UNKNOWN:format "ordered" },
  { { timeout = 0 }, "bad option 'timeout' to 'map' (a positive number of "
    .. "seconds expected, got 0)" },
  { { timeout = "3" }, "bad option 'timeout' to 'map' (a positive number of "
    .. "seconds expected, got '3')" },
  { { deadline = -1 }, "bad option 'deadline' to 'map' (a positive number of "
    .. "seconds expected, got -1)" },
  { { deadline = 0 / 0 }, "bad option 'deadline' to 'map' (a positive number "
    .. "of seconds expected, got " .. tostring(0 / 0) .. ")" },
  { { total_timeout = 0 }, "bad option 'total_timeout' to 'map' (a positive "
    .. "number of seconds expected, got 0)" },
  { { total_timeout = 1, deadline = 1 }, "bad option 'total_timeout' to 'map' "
    .. "(it is another word for 'deadline': leave one of them out)" },
  { { retries = -1 }, "bad option 'retries' to 'map' (a non-negative integer "
    .. "expected, got -1)" },
  { { retries = 0.5 }, "bad option 'retries' to 'map' (a non-negative integer "
    .. "expected, got 0.5)" },
  { { retry_on = "always" }, "bad option 'retry_on' to 'map' ('error', "
    .. "'failed', 'instruction_limit', 'lost', 'memory_limit', 'timed_out' "
    .. "or 'timeout', or an array of them expected, got 'always')" },
  { { retry_on = { "error", "late" } }, "bad option 'retry_on' to 'map' (an "
    .. "array of 'error', 'failed', 'instruction_limit', 'lost', "
    .. "'memory_limit', 'timed_out' or 'timeout' expected, got 'late')" },
  { { priority = 11 }, "bad option 'priority' to 'map' (an integer from -10 "
    .. "to 10 expected, got 11)" },
  { { max_failures = 0 }, "bad option 'max_failures' to 'map' (a positive "
    .. "integer expected, got 0)" },
  { { max_failures = 2 }, "bad option 'max_failures' to 'map' (the first "
    .. "failure stops the call: give on_error = 'continue', or leave it out)"
  },
  { { memory = "64X" }, "bad option 'memory' to 'map' (a size in bytes, such "
    .. "as 1048576 or '64M', expected, got '64X')" },
  { { memory = "." }, "bad option 'memory' to 'map' (a size in bytes, such "
    .. "as 1048576 or '64M', expected, got '.')" },
  { { memory = "0.5" }, "bad option 'memory' to 'map' (a size in bytes, such "
    .. "as 1048576 or '64M', expected, got '0.5')" },
  { { memory = -1 }, "bad option 'memory' to 'map' (a size in bytes, such as "
    .. "1048576 or '64M', expected, got -1)" },
  { { memory = 0 / 0 }, "bad option 'memory' to 'map' (a size in bytes, such "
    .. "as 1048576 or '64M', expected, got " .. tostring(0 / 0) .. ")" },
  { { max_bytes = "lots" }, "bad option 'max_bytes' to 'map' (a size in "
    .. "bytes, such as 1048576 or '64M', expected, got 'lots')" },
  { { instructions = 0 }, "bad option 'instructions' to 'map' (a positive "
    .. "integer expected, got 0)" },
  { { max_tasks = 1.5 }, "bad option 'max_tasks' to 'map' (a positive integer "
    .. "expected, got 1.5)" },
  { { 3 }, "bad options to 'map' (named options expected, got the key 1)" },
  { { limit = 0 },
    "bad option 'limit' to 'map' (a positive integer or 'auto' expected, "
    .. "got 0)" },
  { { limit = -1 },
    "bad option 'limit' to 'map' (a positive integer or 'auto' expected, "
    .. "got -1)" },
  { { limit = 1.5 },
    "bad option 'limit' to 'map' (a positive integer or 'auto' expected, "
    .. "got 1.5)" },
  { { limit = "2" },
    "bad option 'limit' to 'map' (a positive integer or 'auto' expected, "
    .. "got '2')" },
  { { limit = math.huge },
    "bad option 'limit' to 'map' (a positive integer or 'auto' expected, "
    .. "got inf)" },
  { { chunk = -5 },
    "bad option 'chunk' to 'map' (a positive integer expected, got -5)" },
  { { chunk = 0.5 },
    "bad option 'chunk' to 'map' (a positive integer expected, got 0.5)" },
  { { arguments = "x" },
    "bad option 'arguments' to 'map' (an array expected, got 'x')" },
  { { arguments = { n = -1 } },
    "bad option 'arguments' to 'map' (an array whose field n is a length "
    .. "expected, got -1)" },
  { { arguments = setmetatable({}, { __len = function () return "x" end }) },
    "bad option 'arguments' to 'map' (an array whose __len is a length "
    .. "expected, got 'x')" },
  { { arguments = { "a", host = "b" } },
    "bad option 'arguments' to 'map' (an array expected, got the key 'host'; "
    .. "values by name are given as 'params')" },
  { { arguments = { [0] = "a" } },
    "bad option 'arguments' to 'map' (an array expected, got the key 0; "
    .. "values by name are given as 'params')" },
  { { name = 5 }, "bad option 'name' to 'map' (a string expected, got 5)" },
  { { on_error = "ignore" },
    "bad option 'on_error' to 'map' ('stop' or 'continue' or 'cancel' "
    .. "expected, got 'ignore')" },
  { { reset = "all" },
    "bad option 'reset' to 'map' ('globals' or 'none' or 'fresh' expected, "
    .. "got 'all')" },
  { { modules = "cjson" },
    "bad option 'modules' to 'map' (an array expected, got 'cjson')" },
  { { modules = { 7 } },
    "bad option 'modules[1]' to 'map' (a name expected, got 7)" },
  { { modules = { json = "cjson" } },
    "bad option 'modules' to 'map' (an array of names expected, got the key "
    .. "'json')" },
  { { libs = { "strng" } },
    "bad option 'libs' to 'map' (Lua has no library 'strng'; did you mean "
    .. "'string'?)" },
  { { libs = { "base" }, modules = { "cjson" } },
    "bad option 'modules' to 'map' ('libs' leaves 'package' out)" },
  { { variables = 5 },
    "bad option 'variables' to 'map' (a table by name expected, got 5)" },
  { { functions = 5 },
    "bad option 'functions' to 'map' (a table by name expected, got 5)" },
  { { preload = 5 },
    "bad option 'preload' to 'map' (a table by name expected, got 5)" },
  { { variables = { 5 } },
    "bad option 'variables' to 'map' (a table by name expected, got the key "
    .. "1)" },
  { { functions = { f = "return 1" } },
    "bad option 'functions.f' to 'map' (a function expected, got 'return 1')"
  },
  { { functions = { f = print }, variables = { f = 1 } },
    "bad option 'functions.f' to 'map' ('variables' has that name too)" },
  { { preload = { m = 5 } },
    "bad option 'preload.m' to 'map' (a function or the source of a module "
    .. "expected, got 5)" },
  { { init = "x x" },
    "bad option 'init' to 'map' (source that compiles expected, got "
    .. "(chunk):1: syntax error near 'x')" },
  { { init = 5 },
    "bad option 'init' to 'map' (a function or the source of a chunk "
    .. "expected, got 5)" },
  { { init = string.dump(square) },
    "bad option 'init' to 'map' (a function or the source of a chunk "
    .. "expected, got compiled Lua)" },
  { { path = 5 }, "bad option 'path' to 'map' (a string expected, got 5)" },
  { { initial_state = 5 },
    "bad option 'initial_state' to 'map' (an initial state expected, got 5)" },
  { { initial_state = io.stdout },
    "bad option 'initial_state' to 'map' (an initial state expected, got a "
    .. "FILE*)" },
  { { initial_state = {}, modules = {} },
    "bad option 'modules' to 'map' ('initial_state' is given too)" },
  { { initial_state = { modles = {} } },
    "unknown option 'modles' to 'map' (did you mean 'modules'?)" },
  { 5, "bad argument 'options' to 'map' (a table expected, got 5)" },
  { "x", "bad argument 'options' to 'map' (a table expected, got 'x')" },
}

describe("an option", function ()
  for i, row in ipairs(BAD_OPTIONS) do
    it("is refused: " .. i .. ", " .. row[2], function ()
      assert.equal(row[2], misuse(function ()
        local _ = parallel.map({ 1 }, square, row[1])
      end))
    end)
  end

  it("that is wrong starts no work and no pool", function ()
    assert.is_false(pcall(parallel.map, function () error("pulled") end,
                          square, { variables = {}, limit = 0 }))
  end)

  it("that counts failures is refused where the first one stops", function ()
    for _, verb in ipairs { "filter", "collect", "each" } do
      assert.matches("^bad option 'max_failures' to '" .. verb .. "' ",
                     misuse(function ()
        local _ = parallel[verb]({ 1 }, square,
                                 { max_failures = 2, on_error = "stop" })
      end))
    end
  end)

  it("is expected by name in 'submit', too", function ()
    assert.equal("bad option 'params' to 'submit' (a table by name "
                 .. "expected, got 5)", misuse(function ()
      local _ = parallel.submit { square, params = 5 }
    end))
  end)

  it("cannot be a pool where an initial state belongs", function ()
    local pool <close> = parallel.pool { max = 1 }
    local options <const> = { initial_state = pool }
    for verb, call in pairs {
      pool = function () local _ = parallel.pool(options) end,
      collect = function () parallel.collect({ 1 }, square, options) end,
      invoke = function () parallel.invoke(square, { {} }, options) end,
    } do
      assert.equal("bad option 'initial_state' to '" .. verb .. "' (an "
                   .. "initial state expected, got a parallel.pool)",
                   misuse(call))
    end
  end)

  it("of an initial state is refused by the methods of a pool", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal("bad option 'modules' to 'map' (a pool has its initial state "
                 .. "already: give it to parallel.pool, or call "
                 .. "parallel.map)", misuse(function ()
      local _ = pool:map({ 1 }, square, { modules = {} })
    end))
  end)

  it("is suggested among those of the verb", function ()
    assert.equal("unknown option 'orderd' to 'each' (did you mean 'ordered'?)",
                 misuse(function ()
      local _ = parallel.each({ 1 }, square, { orderd = true })
    end))
    assert.equal("unknown option 'mx' to 'pool' (did you mean 'max'?)",
                 misuse(function () local _ = parallel.pool { mx = 2 } end))
    assert.equal("unknown option 'variable' to 'initial_state' (did you mean "
                 .. "'variables'?)", misuse(function ()
      local _ = parallel.initial_state { variable = {} }
    end))
    assert.matches("'on_error' to 'reduce' %(known are ", misuse(function ()
      local _ = parallel.reduce({ 1 }, square, 0, { on_error = "stop" })
    end))
    assert.matches("'progres' to 'reduce' %(known are ", misuse(function ()
      local _ = parallel.reduce({ 1 }, square, 0, { progres = true })
    end))
    assert.matches("'chunks' to 'invoke' %(known are ", misuse(function ()
      local _ = parallel.invoke(square, {}, { chunks = 2 })
    end))
    assert.equal("unknown option 'tmeout' to 'submit' (did you mean "
                 .. "'timeout'?)", misuse(function ()
      local _ = parallel.submit { square, tmeout = 1 }
    end))
    assert.equal("unknown option 'variables' to 'submit' (known are "
                 .. "arguments, backoff, deadline, fn, globals, max_delay, "
                 .. "name, params, priority, retries, retry_delay, retry_on, "
                 .. "seed, start_after, streams, timeout, "
                 .. "total_timeout)",
                 misuse(function ()
      local _ = parallel.submit { square, variables = {} }
    end))
  end)
end)

describe("the items", function ()
  local EXPECTED <const> = "(an array, a range or an iterator expected, got "

  for _, verb in ipairs { "map", "collect", "each", "filter", "reduce" } do
    it("of " .. verb .. " must be there", function ()
      assert.equal("bad argument 'items' to '" .. verb .. "' " .. EXPECTED
                   .. "nil)", misuse(function ()
        local _ = parallel[verb](nil, square)
      end))
    end)
  end

  it("cannot be a number, a string or a file", function ()
    for _, row in ipairs { { 5, "5" }, { "abc", "'abc'" },
                           { io.stdout, "a FILE*" } } do
      assert.equal("bad argument 'items' to 'map' " .. EXPECTED .. row[2]
                   .. ")", misuse(function ()
        local _ = parallel.map(row[1], square)
      end))
    end
  end)

  it("cannot be a table that is no array", function ()
    assert.equal("bad argument 'items' to 'map' (an array expected, got a "
                 .. "table without an item 1 but with the key 'a')",
                 misuse(function ()
      local _ = parallel.map({ a = 1 }, square)
    end))
  end)

  it("cannot have a length that is negative or a fraction", function ()
    for _, n in ipairs { -1, 1.5 } do
      assert.equal("bad field 'n' of argument 'items' to 'map' (a length "
                   .. "expected, got " .. n .. ")", misuse(function ()
        local _ = parallel.map({ n = n }, square)
      end))
    end
  end)

  for _, verb in ipairs { "map", "collect", "each", "filter", "reduce" } do
    it("cannot have a length that no table has, in " .. verb, function ()
      for _, n in ipairs { 2 ^ 53, 1 << 62, math.maxinteger, 1 << 31 } do
        assert.matches("^bad field 'n' of argument 'items' to '" .. verb
                       .. "' %(a length up to 2147483647 expected, got ",
                       misuse(function ()
          local _ = parallel[verb]({ n = n }, square)
        end))
      end
      assert.matches("a length expected, got %-?nan", misuse(function ()
        local _ = parallel[verb]({ n = 0 / 0 }, square)
      end))
    end)
  end

  it("of 'collect' cannot be more than it can keep records of", function ()
    for _, items in ipairs { { n = 2 ^ 30 }, parallel.range(2 ^ 53 | 0) } do
      assert.matches("a record of each is kept: 100000000 items at most",
                     misuse(function ()
        local _ = parallel.collect(items, square, { on_error = "stop" })
      end))
    end
  end)

  it("cannot be what is left of 'pairs'", function ()
    assert.matches("got 'next' alone", misuse(function ()
      local _ = parallel.map(pairs {}, square)
    end))
  end)
end)

describe("the function", function ()
  local EXPECTED <const> = "(a function or the source of a chunk expected, "
                           .. "got "

  for _, verb in ipairs { "map", "collect", "each", "reduce" } do
    it("of " .. verb .. " must be there", function ()
      assert.equal("bad argument 'fn' to '" .. verb .. "' " .. EXPECTED
                   .. "nil)", misuse(function ()
        local _ = parallel[verb]({ 1 })
      end))
    end)
  end

  for _, verb in ipairs { "run", "spawn" } do
    it("of " .. verb .. " must be there", function ()
      assert.equal("bad argument 'fn' to '" .. verb .. "' " .. EXPECTED
                   .. "a table)", misuse(function ()
        local _ = parallel[verb]({})
      end))
    end)
  end

  it("must compile, and is compiled in the caller", function ()
    assert.equal("bad argument 'fn' to 'map' (source that compiles expected, "
                 .. "got (chunk):1: syntax error near 'x')",
                 misuse(function () local _ = parallel.map({}, "x x") end))
  end)

  it("cannot be a string of compiled Lua", function ()
    assert.equal("bad argument 'fn' to 'run' " .. EXPECTED
                 .. "compiled Lua)", misuse(function ()
      local _ = parallel.run(string.dump(square))
    end))
  end)
end)

describe("a pool's size", function ()
  local ROWS <const> = {
    { { max = 0 },
      "bad option 'max' to 'pool' (an integer from 1 to 65536 or 'auto' "
      .. "expected, got 0)" },
    { { max = 2.5 },
      "bad option 'max' to 'pool' (an integer from 1 to 65536 or 'auto' "
      .. "expected, got 2.5)" },
    { { max = 1e9 },
      "bad option 'max' to 'pool' (an integer from 1 to 65536 or 'auto' "
      .. "expected, got 1000000000.0)" },
    { { min = -1 },
      "bad option 'min' to 'pool' (an integer from 1 to 65536 expected, got "
      .. "-1)" },
    { { min = 4, max = 2 },
      "bad option 'min' to 'pool' (4 workers are more than 'max', 2)" },
    { { idle = -1 },
      "bad option 'idle' to 'pool' (a non-negative number of seconds "
      .. "expected, got -1)" },
    { { idle = "10" },
      "bad option 'idle' to 'pool' (a non-negative number of seconds "
      .. "expected, got '10')" },
  }
  for _, row in ipairs(ROWS) do
    it("is refused: " .. row[2], function ()
      assert.equal(row[2], misuse(function ()
        local _ = parallel.pool(row[1])
      end))
    end)
  end

  it("may be a float without a fraction", function ()
    local pool <close> = parallel.pool { min = 1.0, max = 2.0 }
    assert.equal(2, pool:info().max)
  end)
end)

describe("a range", function ()
  it("is refused with a step of 0, a fraction or no end", function ()
    assert.equal("bad argument 'step' to 'range' (an integer other than 0 "
                 .. "expected, got 0)", misuse(function ()
      local _ = parallel.range(1, 5, 0)
    end))
    assert.equal("bad argument 'first' to 'range' (an integer expected, got "
                 .. "1.5)", misuse(function ()
      local _ = parallel.range(1.5, 5)
    end))
    assert.equal("bad argument 'last' to 'range' (an integer expected, got "
                 .. "nil)", misuse(function () local _ = parallel.range() end))
    assert.matches("more than", misuse(function ()
      local _ = parallel.range(math.mininteger, math.maxinteger)
    end))
  end)
end)

describe("a value that cannot travel", function ()
  it("is refused in the caller, with the path to it", function ()
    local log <const> = io.stdout
    assert.matches("upvalue 'log'.*option_spec.lua:%d+.*cannot transfer",
                   misuse(function ()
      local _ = parallel.map({ 1 }, function () log:write("x") end)
    end))
    assert.matches("item 2.*cannot transfer a thread", misuse(function ()
      local _ = parallel.map({ 1, coroutine.create(square) }, square)
    end))
    assert.matches("item 1.*deep.*log.*cannot transfer", misuse(function ()
      local _ = parallel.map({ { deep = { log = io.stdout } } }, square)
    end))
    assert.matches("argument 2.*cannot transfer", misuse(function ()
      local _ = parallel.run(square, 1, io.stdout)
    end))
    assert.matches("variable 'log'.*cannot transfer", misuse(function ()
      local _ = parallel.pool { variables = { log = io.stdout } }
    end))
  end)

  it("is refused before anything is sent", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.is_false(pcall(pool.run, pool, square, io.stdout))
    assert.equal(0, pool:info().finished)
  end)

  it("from an iterator is refused with its number", function ()
    local i = 0
    assert.matches("item 3.*cannot transfer", misuse(function ()
      local _ = parallel.map(function ()
        i = i + 1
        return i == 3 and io.stdout or i
      end, square)
    end))
  end)
end)

describe("a pool that is closed", function ()
  local VERBS <const> = {
    map = function (pool) return pool:map({ 1 }, square) end,
    collect = function (pool) return pool:collect({ 1 }, square) end,
    each = function (pool) return pool:each({ 1 }, square) end,
    filter = function (pool) return pool:filter({ 1 }, square) end,
    reduce = function (pool) return pool:reduce({ 1, 2 }, square) end,
    run = function (pool) return pool:run(square, 1) end,
    spawn = function (pool) return pool:spawn(square, 1) end,
    submit = function (pool)
      return pool:submit { square, arguments = { 1 } }
    end,
  }
  for verb, call in pairs(VERBS) do
    it("refuses " .. verb, function ()
      local pool = parallel.pool { max = 1 }
      pool:close()
      assert.matches("pool is closed", misuse(function ()
        local _ = call(pool)
      end))
    end)
  end
end)

describe("a method of a pool", function ()
  it("that is called with a dot says so", function ()
    local pool <close> = parallel.pool { max = 1 }
    assert.equal("bad call of 'map' (a pool expected, got a table; it is "
                 .. "written pool:map(...))", misuse(function ()
      local _ = pool.map({ 1 }, square)
    end))
  end)
end)

describe("items whose metamethod __len returns no length", function ()
  for shown, n in pairs { ["'x'"] = "x", ["2.5"] = 2.5, ["-1"] = -1,
                          ["a table"] = {}, ["4294967296"] = 1 << 32 } do
    it("are refused: " .. shown, function ()
      local items <const> = setmetatable({}, { __len = function ()
        return n
      end })
      for _, verb in ipairs { "map", "filter", "collect", "each", "reduce" } do
        local ok, message = pcall(parallel[verb], items, print)
        assert.is_false(ok)
        assert.equal("spec/option_spec.lua: bad argument 'items' to '" .. verb
          .. "' (its metamethod __len returned " .. shown
          .. ": a length up to 2147483647 expected)",
          "spec/option_spec.lua: " .. message:gsub("^.-: ", ""))
        assert.is_nil(message:find "parallel/")
      end
    end)
  end
end)

describe("a job that has taken '_G' away", function ()
  it("gets no hint to pass it", function ()
    local ok, failure = pcall(parallel.run, "_G = nil return _G.x")
    assert.is_false(ok)
    assert.matches("nil value %(global '_G'%)", tostring(failure))
    assert.is_nil(tostring(failure):find("hint", 1, true))
  end)
end)
