-- SPDX-License-Identifier: MIT
local modules <const> = require "support.modules"
local parallel <const> = require "parallel"

local FORBIDS <const> = "the sandbox of this runspace forbids "
local SCRATCH <const> = os.tmpname()
local CJSON <const> = assert(package.searchpath("cjson", package.cpath))

--- Lua files on the path, of source and of bytecode.
local files

setup(function ()
  files = modules.new {
    spec_source = "return { 'source' }",
    spec_bytes = string.dump(load "return { 'bytes' }"),
  }
end)

teardown(function ()
  files:__close()
  os.remove(SCRATCH)
end)

--- What 'code' does in a job: "allowed"; "fails" (nil), a message, a code; or
--- "raises", a message. It finds names of files in 'source', 'bytes',
--- 'scratch' and 'cjson'.
local function try (code, options)
  assert(io.open(SCRATCH, "w")):close()
  options = options or {}
  options.limit = 1
  options.variables = {
    source = files.directory .. "/spec_source.lua",
    bytes = files.directory .. "/spec_bytes.lua",
    scratch = SCRATCH,
    cjson = CJSON,
  }
  local results <const> = parallel.map({ code }, function (text)
    local results <const> = table.pack(pcall(assert(load(text))))
    if not results[1] then return { "raises", tostring(results[2]) } end
    if results[2] == nil then return { "fails", results[3], results[4] } end
    return { "allowed" }
  end, options)
  return table.unpack(results[1], 1, 3)
end

--- Each row: code, how it is refused, what has to be allowed for it.
local ROWS <const> = {
  { "return io.open(source)", "fails", { files = "read" } },
  { "return io.open(source, 'r')", "fails", { files = "read" } },
  { "return io.open(source, 'rb')", "fails", { files = "read" } },
  { "return io.lines(source)", "raises", { files = "read" } },
  { "return io.lines(source, 'a')", "raises", { files = "read" } },
  { "local f = io.input() io.input(source) io.input():close() "
    .. "return io.input(f)", "raises", { files = "read" } },
  { "return loadfile(source)", "fails", { files = "read" } },
  { "return loadfile(source, 't', {})", "fails", { files = "read" } },
  { "return dofile(source)", "raises", { files = "read" } },
  { "return require 'spec_source'", "raises", { files = "read" } },
  { "return package.searchpath('spec_source', package.path)", "fails",
    { files = "read" } },
  { "return io.open(scratch, 'w')", "fails", { files = "all" } },
  { "return io.open(scratch, 'a')", "fails", { files = "all" } },
  { "return io.open(scratch, 'r+')", "fails", { files = "all" } },
  { "return io.open(scratch, 'w+b')", "fails", { files = "all" } },
  { "local f = io.output() io.output(scratch):close() return io.output(f)",
    "raises", { files = "all" } },
  { "return io.tmpfile()", "fails", { files = "all" } },
  { "return os.remove(os.tmpname())", "raises", { files = "all" } },
  { "return os.remove(scratch)", "fails", { files = "all" } },
  { "return os.rename(scratch, scratch)", "fails", { files = "all" } },
  { "return os.execute 'true'", "fails", { programs = true } },
  { "return os.execute()", "fails", { programs = true } },
  { "local p, m, c = io.popen 'true' return p and p:close(), m, c", "fails",
    { programs = true } },
  { "return parallel.task.execute 'true'", "raises", { programs = true } },
  { "return load(string.dump(function () end))", "fails",
    { bytecode = true } },
  { "return load(string.dump(function () end), 'x', 'bt', {})", "fails",
    { bytecode = true } },
  { "return load(string.dump(function () end), 'x', 'b')", "fails",
    { bytecode = true } },
  { "local s = string.dump(function () end) "
    .. "return load(function () local t = s s = nil return t end)", "fails",
    { bytecode = true } },
  { "return loadfile(bytes)", "fails", { bytecode = true, files = "read" } },
  { "return loadfile(bytes, 'b')", "fails",
    { bytecode = true, files = "read" } },
  { "return dofile(bytes)", "raises", { bytecode = true, files = "read" } },
  { "return require 'spec_bytes'", "raises",
    { bytecode = true, files = "read" } },
  { "return require 'cjson'", "raises", { c_modules = "cjson" } },
  { "return require 'lpeg'", "raises", { c_modules = true } },
  { "return require 'socket.core'", "raises", { c_modules = true } },
  { "return package.loadlib(cjson, 'luaopen_cjson')", "fails",
    { c_modules = true } },
  { "return debug.getinfo(1)", "raises", { debug = true } },
  { "return package.loaded.debug.getinfo(1)", "raises", { debug = true } },
  { "return require 'debug'", "raises", { debug = true } },
}

local OPEN <const> = { files = "all", programs = true, bytecode = true,
                       debug = true, c_modules = true }

--- Each row: what it is, the sandbox.
local SANDBOXES <const> = {
  { "no sandbox", nil },
  { "one that allows all", OPEN },
  { "one that allows nothing", true },
  { "an empty one", {} },
  { "files = 'none'", { files = "none" } },
  { "files = 'read'", { files = "read" } },
  { "files = 'all'", { files = "all" } },
  { "programs", { programs = true } },
  { "bytecode", { bytecode = true } },
  { "bytecode, and files = 'read'", { bytecode = true, files = "read" } },
  { "all but bytecode", { files = "all", programs = true, debug = true,
                          c_modules = true } },
  { "all but files", { files = "none", programs = true, bytecode = true,
                       debug = true, c_modules = true } },
  { "debug", { debug = true } },
  { "no debug", { debug = false, programs = true } },
  { "c_modules", { c_modules = true } },
  { "a C module by name", { c_modules = { "cjson" } } },
  { "no C modules by name", { c_modules = {} } },
}

local RANK <const> = { none = 0, read = 1, all = 2 }

local function allows (sandbox, needs)
  if sandbox == nil then return true end
  if sandbox == true then sandbox = {} end
  for name, need in pairs(needs) do
    local given = sandbox[name]
    if name == "files" then
      if RANK[given or "none"] < RANK[need] then return false end
    elseif type(given) == "table" then
      if given[1] ~= need then return false end
    elseif not given then
      return false
    end
  end
  return true
end

describe("a sandbox", function ()
  for _, row in ipairs(ROWS) do
    local code <const>, how <const>, needs <const> = table.unpack(row)

    it("allows or refuses " .. code, function ()
      for _, kind in ipairs(SANDBOXES) do
        local name <const>, sandbox <const> = kind[1], kind[2]
        local result <const>, message <const>, number <const> =
          try(code, { sandbox = sandbox })
        if allows(sandbox, needs) then
          assert.equal("allowed", result, name .. ": " .. tostring(message))
        else
          assert.equal(how, result, name)
          if not needs.debug then
            assert.is_truthy(message:find(FORBIDS, 1, true),
                             name .. ": " .. message)
          end
          if how == "fails" then
            assert.equal(code:find "loadlib" and "absent" or 13, number, name)
          end
        end
      end
    end)
  end

  --- Each row: code, sandbox, what the message begins with.
  for _, row in ipairs {
    { "return io.open('x')", true, "io.open: " .. FORBIDS .. "files: give the "
      .. "initial state sandbox = {files = \"read\"}" },
    { "return io.open('x', 'w')", true, "io.open: " .. FORBIDS .. "files: "
      .. "give the initial state sandbox = {files = \"all\"}" },
    { "return io.open('x', 'w')", { files = "read" }, "io.open: " .. FORBIDS
      .. "changing files: give the initial state sandbox = {files = \"all\"}"
    },
    { "return load(string.dump(load ''))", true, "load: " .. FORBIDS
      .. "bytecode: give the initial state sandbox = {bytecode = true}" },
    { "return load('x = 1', 'x', 'b')", true,
      "attempt to load a text chunk (mode is 'b')" },
    { "return load('x x')", true, "[string \"x x\"]:1: syntax error" },
    { "return load(string.dump(load ''), 'x', 't')", true,
      "attempt to load a binary chunk (mode is 't')" },
    { "return dofile(bytes)", { files = "read" }, "[string \"return "
      .. "dofile(bytes)\"]:1: dofile: " .. FORBIDS .. "bytecode" },
    { "return dofile 'no_such_file'", { files = "read" },
      "cannot open no_such_file" },
    { "return os.execute 'x'", true, "os.execute: " .. FORBIDS .. "programs" },
  } do
    it("says what is forbidden: " .. row[1], function ()
      local _, message <const> = try(row[1], { sandbox = row[2] })
      assert.equal(row[3], message:sub(1, #row[3]))
    end)
  end

  it("says which C module is forbidden, once", function ()
    local _, message <const> = try("return require 'cjson'",
                                   { sandbox = { files = "read" } })
    local text <const> = "require: " .. FORBIDS .. "a C module 'cjson': give "
      .. "the initial state sandbox = {c_modules = {\"cjson\"}}"
    local first <const> = message:find(text, 1, true)
    assert.is_truthy(first, message)
    assert.is_nil(message:find(FORBIDS, first + #text, true))
  end)

  it("lets a chunk that dofile runs yield", function ()
    assert.equal("allowed", try("return coroutine.wrap(dofile)(scratch)",
                                { sandbox = { files = "read" },
                                  init = "assert(io.open(scratch, 'w')):write("
                                         .. "'coroutine.yield(1)'):close()" }))
  end)
end)

describe("what a sandbox forbids", function ()
  local READS <const> = "assert(io.open(source))"

  --- Each row: code that tries to get around it.
  for _, code in ipairs {
    -- the tables of the libraries
    "assert(require 'io'.open(source))",
    "assert(package.loaded.io.open(source))",
    "assert(package.loaded._G.io.open(source))",
    "assert(_G.io.open(source))",
    "assert(rawget(io, 'open')(source))",
    "io.lines(5)",
    "io.input(5)",
    "io.output(5)",
    "io.output(scratch)",
    "assert(os.execute())",
    -- by way of other functions
    "assert(coroutine.wrap(io.open)(source))",
    "assert(coroutine.wrap(function () return os.execute 'true' end)())",
    "assert(coroutine.resume(coroutine.create(dofile), source))",
    "assert(select(2, pcall(io.open, source)))",
    "assert(pcall(dofile, source) or dofile(source))",
    "assert(select(2, xpcall(io.popen, print, 'true')))",
    "assert(table.unpack({ pcall(os.remove, scratch) }, 2))",
    "local c <close> = setmetatable({}, { __close = function () " .. READS
      .. " end })",
    "return setmetatable({}, { __index = function (_, name) return "
      .. "assert(io.open(name)) end })[source]",
    "for line in io.lines(source) do return line end",
    -- bytecode
    "assert(load(('').dump(function () end)))",
    "assert(load(getmetatable('').__index.dump(load ''), 'x', 'b'))",
    "assert(load(coroutine.wrap(function () coroutine.yield("
      .. "string.dump(load '')) end)))",
    "assert(coroutine.wrap(load)(string.dump(load ''), 'x', 'tb'))",
    -- modules
    "package.path = source require 'spec_source'",
    "package.cpath = cjson require 'cjson'",
    "error(package.searchers[2] 'spec_source')",
    "error(package.searchers[3] 'cjson')",
    "error(package.searchers[4] 'socket.core')",
    "package.searchers = { package.searchers[3] } require 'cjson'",
    "table.remove(package.searchers, 1) require 'spec_source'",
    "assert(package.loadlib(cjson, '*'))",
    -- pools, whose jobs may do no more
    "parallel.run " .. ("%q"):format(READS),
    "parallel.run(function () " .. READS .. " end)",
    "parallel.run(io.lines, source)",
    "parallel.run(function (f) return assert(f(source)) end, io.open)",
    "parallel.pool():run(function () " .. READS .. " end)",
    "parallel.pool { reset = 'fresh' }:run(function () " .. READS .. " end)",
    "parallel.pool { sandbox = { files = 'all', programs = true, "
      .. "debug = true, bytecode = true, c_modules = true } }:run("
      .. "function (source) " .. READS .. " end, source)",
    "parallel.pool { libs = { 'base', 'io' } }:run(function (source) "
      .. READS .. " end, source)",
    "parallel.map({ source }, function (source) " .. READS
      .. " end, { reset = 'none' })",
    "parallel.map({ source }, function (source) " .. READS
      .. " end, { sandbox = { files = 'all' } })",
    "parallel.map({ source }, function (source) " .. READS
      .. " end, { initial_state = { sandbox = { files = 'all' } } })",
    "parallel.map({ 1 }, function (source) return parallel.map({ 1 }, "
      .. "function () assert(os.execute 'true') end, { sandbox = { programs "
      .. "= true } }) end, { sandbox = { programs = true } })",
    "parallel.pool { initial_state = parallel.initial_state {} }:run("
      .. "function (source) " .. READS .. " end, source)",
    -- what pools start with is the job's own choice here
    "parallel.pool { variables = { source = source }, init = "
      .. ("%q"):format(READS) .. " }",
    "parallel.pool { init = 'assert(os.execute [[true]])', sandbox = { "
      .. "programs = true } }",
    "parallel.pool { init = 'debug.getinfo(1)' }",
    "parallel.pool { modules = { 'cjson' } }",
    "parallel.pool { modules = { 'spec_source' } }",
    "parallel.pool { modules = { 'x' }, preload = { x = "
      .. "'assert(io.popen [[true]])' } }",
    "parallel.pool { variables = { x = setmetatable({}, { __transfer = "
      .. "function () return function () assert(os.remove '/no/such') end "
      .. "end }) } }",
    "parallel.pool { initial_state = parallel.initial_state { modules = { "
      .. "'cjson' }, sandbox = { c_modules = true } } }",
  } do
    it("stays forbidden: " .. code, function ()
      local how <const>, message <const> = try(code, { sandbox = true })
      assert.equal("raises", how)
      assert.is_truthy(message:find(FORBIDS, 1, true)
                       or message:find("'debug'", 1, true), message)
    end)
  end

  it("is not among what the files have", function ()
    assert.equal("allowed", try([[
      for _, file in ipairs { io.stdin, io.stdout, io.stderr } do
        local metatable <const> = getmetatable(file)
        assert(metatable.__index.open == nil and file.popen == nil)
      end
      return true
    ]], { sandbox = true }))
  end)

  it("is not given back by compiled Lua in the place of source", function ()
    local how <const>, message <const> =
      try("parallel.run(string.dump(load ''))", { sandbox = true })
    assert.equal("raises", how)
    assert.matches("compiled Lua", message)
  end)

  it("is the same after bytecode is forbidden too", function ()
    for _, code in ipairs { "dofile(source)", "assert(loadfile(source))",
                            "require 'spec_source'" } do
      local how <const>, message <const> = try(([[
        parallel.map({ source }, function (source) %s end, {
          path = package.path, sandbox = { bytecode = false } })
      ]]):format(code), { sandbox = { bytecode = true } })
      assert.equal("raises", how)
      assert.is_truthy(message:find(FORBIDS, 1, true), message)
    end
  end)

  it("may be more in a pool that a job opens, and is no less", function ()
    local outer <const> = { files = "read", programs = true,
                            c_modules = { "cjson", "lpeg" } }
    --- Each row: code, the inner sandbox, whether that is allowed.
    for _, row in ipairs {
      { "assert(io.open(...))", {}, false },
      { "assert(io.open(...))", { files = "all" }, true },
      { "assert(io.open(..., 'a'))", { files = "all" }, false },
      { "assert(os.execute 'true')", {}, false },
      { "assert(os.execute 'true')", { programs = true }, true },
      { "require 'cjson'", { c_modules = true }, true },
      { "require 'cjson'", { c_modules = { "cjson" } }, true },
      { "require 'lpeg'", { c_modules = { "cjson" } }, false },
      { "require 'zlib'", { c_modules = { "zlib" } }, false },
      { "require 'zlib'", { c_modules = true }, false },
      { "require 'cjson'", {}, false },
    } do
      local failures <const> = parallel.map({ SCRATCH },
        function (name, code, inner)
          local _, failures <const> = parallel.map({ name }, code,
            { sandbox = inner, on_error = "continue" })
          return failures and tostring(failures[1]) or false
        end, { arguments = { row[1], row[2] }, sandbox = outer })
      if row[3] then
        assert.is_false(failures[1])
      else
        assert.is_truthy(failures[1]
                         and failures[1]:find(FORBIDS, 1, true), row[1])
      end
    end
  end)
end)

describe("an initial state with a sandbox", function ()
  it("may do what it likes while it is seeded", function ()
    assert.equal("allowed", try("return require 'cjson'.encode { word }", {
      sandbox = true,
      modules = { "cjson", "spec_source" },
      init = "word = assert(io.open(source)):read 'a' .. #debug.traceback()",
    }))
  end)

  it("keeps what it loaded and what it preloads", function ()
    assert.equal("allowed", try([[
      assert(require 'cjson' == package.loaded.cjson)
      assert(require 'spec_source'[1] == 'source')
      return require 'mine'.n
    ]], { sandbox = true, modules = { "cjson", "spec_source" },
          preload = { mine = "return { n = 5 }" } }))
  end)

  it("may put searchers before those of Lua", function ()
    local options <const> = {
      sandbox = true, init = "table.insert(package.searchers, 1, function "
        .. "(name) return name == 'own' and function () return 1 end end)",
      preload = { mine = "return { n = 5 }" },
    }
    assert.equal("allowed", try("return require 'own'", options))
    assert.equal("allowed", try("return require 'mine'", options))
    for _, name in ipairs { "spec_source", "cjson", "socket.core" } do
      assert.equal("raises", try("return require '" .. name .. "'", options))
    end
  end)

  it("may put something in the place of a library", function ()
    local options <const> = {
      sandbox = true, init = "io = setmetatable({}, { __index = io }) "
        .. "debug = 'mine' package.loaded.os = nil",
    }
    assert.equal("allowed", try("return debug", options))
    assert.equal("fails", try("return io.open(source)", options))
    assert.equal("fails", try("return os.execute 'true'", options))
  end)

  it("may guard its globals, and have few libraries", function ()
    local init <const> = "setmetatable(_G, { __index = function (_, name) "
      .. "error('undeclared ' .. name) end, __newindex = error })"
    for _, libs in ipairs {
      { "base" }, { "base", "io" }, { "base", "os", "debug" },
      { "base", "package" }, {},
    } do
      local pool <close> = parallel.pool {
        sandbox = true, libs = libs, init = libs[1] and init,
      }
      assert.equal(1, pool:run("return 1"))
    end
  end)

  it("says what a function misses that came with 'debug'", function ()
    local getinfo <const> = debug.getinfo
    local ok, message = pcall(parallel.map, { 1 },
                              function () return getinfo(1) end,
                              { sandbox = true })
    assert.is_false(ok)
    assert.matches("module 'debug' is needed by upvalue 'getinfo'",
                   tostring(message))
  end)

  it("leaves ordinary work alone", function ()
    local seen <const> = {}
    local pool <close> = parallel.pool {
      max = 2, sandbox = true, modules = { "cjson" },
      streams = { verbose = function (record)
        seen[#seen + 1] = record.value
      end },
    }
    assert.same({ 2, 4, 6, n = 3 },
                pool:map({ 1, 2, 3 }, function (x) return 2 * x end))
    assert.equal(6, pool:reduce({ 1, 2, 3 }, function (a, b)
      return a + b
    end))
    assert.equal("[1]", pool:run(function ()
      assert(load "return 1" () == 1)
      assert(load("return x", "c", "t", { x = 2 })() == 2)
      assert(load(coroutine.wrap(function ()
        coroutine.yield "return 3"
      end))() == 3)
      assert(io.type(io.stdout) == "file" and io.output() == io.stdout)
      assert(io.output(io.stdout) == io.stdout)
      assert(io.input() == io.stdin and io.input(io.stdin) == io.stdin)
      assert(os.time() > 0 and os.clock() >= 0 and os.date())
      assert(os.getenv "NO_SUCH_VARIABLE" == nil)
      assert(#string.dump(function () end) > 0)
      io.write ""
      io.stdout:write ""
      parallel.task.verbose "here"
      assert(parallel.run "return 1" == 1)
      assert(#parallel.collect({ 1 }, function (x) return x end) == 1)
      assert(parallel.stats().machine)
      assert(require "parallel.show")
      return require "cjson".encode { 1 }
    end))
    assert.same({ "here" }, seen)
  end)

  it("prints as ever", function ()
    local job <const> = parallel.pool { sandbox = true }:spawn(function ()
      print "printed"
      io.write("written", "\n")
      io.stdout:write "with a method\n"
    end)
    assert.equal("completed", job:wait())
    local lines <const> = {}
    for i, record in ipairs(job.streams.information) do
      lines[i] = record.value
    end
    assert.same({ "printed", "written", "with a method" }, lines)
  end)

  it("reads the standard input, which is the host's", function ()
    local tree <const> = require "support.tree"
    local pipe <close> = assert(io.popen("printf 'one\\ntwo\\nthree\\n' | "
      .. tree.runspace .. [[ -e "print(parallel.map({1}, function ()
        return io.read() .. io.lines()() .. io.stdin:read()
      end, { sandbox = true })[1])"]]))
    assert.equal("onetwothree\n", pipe:read "a")
  end)
end)

describe("the option 'sandbox'", function ()
  --- Each row: what is given, what is said.
  for _, row in ipairs {
    { "yes", "bad option 'sandbox' to 'pool' (true, \"strict\", or a table of "
      .. "what is allowed, expected, got 'yes')" },
    { false, "bad option 'sandbox' to 'pool' (true, \"strict\", or a table of "
      .. "what is allowed, expected, got false)" },
    { { file = "read" }, "bad option 'sandbox' to 'pool' (a table of what is "
      .. "allowed expected, got the field 'file'; did you mean 'files'?; they "
      .. "are bytecode, c_modules, debug, files and programs)" },
    { { network = true }, "got the field 'network'; they are bytecode, "
      .. "c_modules, debug, files and programs)" },
    { { "read" }, "bad option 'sandbox' to 'pool' (a table of what is allowed "
      .. "expected, got the field 1; they are" },
    { { files = "reed" }, "bad option 'sandbox.files' to 'pool' ('none', "
      .. "'read' or 'all' expected, got 'reed'; did you mean 'read'?)" },
    { { files = "write" }, "'none', 'read' or 'all' expected, got 'write')" },
    { { files = true }, "'none', 'read' or 'all' expected, got true)" },
    { { programs = "none" }, "bad option 'sandbox.programs' to 'pool' (true "
      .. "or false expected, got 'none')" },
    { { bytecode = 1 }, "bad option 'sandbox.bytecode' to 'pool' (true or "
      .. "false expected, got 1)" },
    { { debug = {} }, "bad option 'sandbox.debug' to 'pool' (true or false "
      .. "expected, got a table)" },
    { { c_modules = "cjson" }, "bad option 'sandbox.c_modules' to 'pool' "
      .. "(true, false or an array of names expected, got 'cjson')" },
    { { c_modules = { 5 } }, "bad option 'sandbox.c_modules[1]' to 'pool' (a "
      .. "name expected, got 5)" },
    { { c_modules = { cjson = true } }, "bad option 'sandbox.c_modules' to "
      .. "'pool' (an array of names expected, got the key 'cjson')" },
  } do
    it("is refused: " .. row[2], function ()
      local ok, message = pcall(parallel.pool, { sandbox = row[1] })
      assert.is_false(ok)
      assert.is_truthy(message:find(row[2], 1, true), message)
      assert.matches("^[^ ]*sandbox_spec.lua:%d+: ",
                     select(2, pcall(function ()
                       parallel.pool { sandbox = row[1] }
                     end)))
    end)
  end

  it("is taken by initial states, pools and calls", function ()
    local code <const> = "return (select(2, io.open 'x'))"
    local state <const> = parallel.initial_state { sandbox = true }
    for _, options in ipairs {
      { sandbox = true }, { initial_state = { sandbox = true } },
      { initial_state = state },
    } do
      local pool <close> = parallel.pool(options)
      assert.matches(FORBIDS, pool:run(code))
      assert.matches(FORBIDS, parallel.map({ 1 }, code, options)[1])
    end
  end)
end)

describe("what comes out of a sandbox", function ()
  local touched <const> = {}
  rawset(_G, "spec_touched", touched)

  --- What a job in a sandbox leaves, each way: a value, an error, a record, an
  --- event.
  local LEAVE <const> = {
    result = "return value",
    results = "return 1, { { value } }",
    error = "error({ value = value })",
    record = "parallel.task.verbose(value)",
    output = "parallel.task.output(1, value)",
    event = "parallel.task.emit('spec_sandbox', value)",
  }

  --- Each row: code that makes what is more than data, and what is said.
  local LIVE <const> = {
    { "local value = function () spec_touched[1] = 1 end", "a function" },
    { "local value = { { f = load 'spec_touched[1] = 1' } }", "a function" },
    { "local value = coroutine.wrap(function () end)", "a function" },
    { "local value = os.exit", "a function" },
    { "local value = { string.format }", "a function" },
    { "local value = { [print] = 1 }", "a function" },
    { "local value = setmetatable({}, { __gc = function () end })", "'__gc'" },
    { "local value = setmetatable({}, { __gc = true })", "'__gc'" },
    { "local value = setmetatable({}, { __gc = os.exit })", "'__gc'" },
    { "local value = setmetatable({}, { __close = print })", "'__close'" },
    { "local value = setmetatable({}, { __tostring = print })",
      "'__tostring'" },
    { "local value = setmetatable({}, { __index = rawget })", "'__index'" },
    { "local value = setmetatable({}, { __newindex = rawset })",
      "'__newindex'" },
    { "local value = setmetatable({}, { __newindex = {} })", "'__newindex'" },
    { "local value = setmetatable({}, { __call = print })", "'__call'" },
    { "local value = setmetatable({}, { __eq = rawequal })", "'__eq'" },
    { "local value = setmetatable({}, { __lt = rawequal })", "'__lt'" },
    { "local value = setmetatable({}, { __le = rawequal })", "'__le'" },
    { "local value = setmetatable({}, { __concat = print })", "'__concat'" },
    { "local value = setmetatable({}, { __len = rawlen })", "'__len'" },
    { "local value = setmetatable({}, { __pairs = next })", "'__pairs'" },
    { "local value = setmetatable({}, { __unm = print })", "'__unm'" },
    { "local value = setmetatable({}, { __metatable = {} })",
      "'__metatable'" },
    { "local value = setmetatable({}, { __name = {} })", "'__name'" },
    { "local m = { __gc = true } local value = { m, setmetatable({}, m) }",
      "'__gc'" },
    { "local m = {} m.__tostring = m local value = setmetatable(m, m)",
      "'__tostring'" },
    { "local value = setmetatable({}, { __index = setmetatable({}, "
      .. "{ __index = rawget }) })", "'__index'" },
    { "local value = setmetatable({}, { __transfer = function () return "
      .. "function () spec_touched[1] = 1 end end })", "rebuilds" },
    { "local value = setmetatable({}, { __transfer = function () return "
      .. "print, 'here' end })", "rebuilds" },
    { "local value = setmetatable({}, { __transfer = function () return "
      .. "{ print } end })", "a function" },
    { "local value = _G", "the globals" },
    { "local value = { _ENV }", "the globals" },
    { "local value = setmetatable({}, _G)", "'__" },
    { "local value = setmetatable({}, string)", "library" },
    { "local value = io", "library" },
    { "local value = { package.loaded }", "out of a sandbox" },
    { "local value = package", "library" },
    { "local value = parallel", "library" },
    { "package.loaded['spec.own'] = { 1 } package.loaded.io = "
      .. "package.loaded['spec.own'] local value = package.loaded.io",
      "library" },
  }

  for _, row in ipairs(LIVE) do
    it("is refused: " .. row[1], function ()
      local pool <close> = parallel.pool { max = 1, sandbox = true }
      for how, leave in pairs(LEAVE) do
        local heard
        local handler <const> = parallel.on("spec_sandbox", function (event)
          heard = event
        end)
        local job <const> = pool:spawn(row[1] .. " " .. leave)
        local ok, failure = job:join()
        parallel.off("spec_sandbox", handler)
        if row[2] ~= "'__" or ok then
          assert.is_false(ok, how)
        end
        assert.equal("failed", job.state)
        if how ~= "error" then
          assert.equal("string", type(failure.error))
          assert.is_truthy(failure.error:find(row[2], 1, true)
                           or row[2] == "'__", failure.error)
        else
          assert.equal("string", type(failure.error))
        end
        assert.is_nil(heard)
        assert.is_nil(job.streams.verbose[1])
      end
      local records = pool:collect({ 1, 2 }, "local i = ... if i == 2 then "
        .. "return i end " .. row[1] .. " return value", { chunk = 2 })
      assert.equal("failed", records[1].state)
      assert.equal(2, records[2].result)
      collectgarbage()
      assert.is_nil(next(touched))
    end)
  end

  it("names what is wrong, where, and what to do", function ()
    local pool <close> = parallel.pool { sandbox = true }
    local _, failure = pool:spawn("return { a = { b = print } }"):join()
    assert.matches("^[^\n]*result 1: field 'a.b': cannot transfer a function "
                   .. "out of a sandbox: return what it returns",
                   failure.error)
    _, failure = pool:spawn("return { a = setmetatable({}, { __gc = 1 }) }")
      :join()
    assert.matches("field 'a': cannot transfer a table whose metatable has "
                   .. "'__gc' out of a sandbox: return data", failure.error)
  end)

  it("loads no module in the host", function ()
    local loads = 0
    package.preload["spec.loads"] = function ()
      loads = loads + 1
      return {}
    end
    local pool <close> = parallel.pool {
      sandbox = true, preload = { ["spec.loads"] = "return { n = {} }" },
    }
    local records = pool:collect({ 1, 2 }, function (i)
      if i == 2 then return i end
      return { setmetatable({}, require "spec.loads"), require "spec.loads".n }
    end)
    package.preload["spec.loads"] = nil
    assert.equal(0, loads)
    assert.equal("failed", records[1].state)
    assert.matches("module 'spec.loads' is needed .* require it here before",
                   records[1].error)
    assert.equal(2, records[2].result)
    local job <const> = pool:spawn("error({ require 'spec.loads' })")
    local _, failure = job:join()
    assert.matches("the error cannot be rebuilt here: module 'spec.loads'",
                   failure.error)
  end)

  it("has the classes of the host, by name", function ()
    local class <const> = {}
    class.__index = class
    class.__tostring = function () return "own" end
    package.loaded["spec.class"] = class
    local pool <close> = parallel.pool {
      sandbox = true, preload = { ["spec.class"] =
        "local c = {} c.__index = c return c" },
    }
    local value = pool:run(function ()
      local c <const> = require "spec.class"
      local o <const> = setmetatable({ 1 }, c)
      return { o, o, setmetatable({}, c) }
    end)
    package.loaded["spec.class"] = nil
    assert.equal(class, getmetatable(value[1]))
    assert.equal(value[1], value[2])
    assert.equal("own", tostring(value[3]))
  end)

  it("is data of all kinds", function ()
    local pool <close> = parallel.pool {
      sandbox = true, modules = { "cjson" },
    }
    local value, class = pool:run(function ()
      local t <const> = { 1, 2.5, "x", true, { a = { b = {} } },
                          [{ 1 }] = 5, [2^53] = 0 }
      t.self = t
      return { t, t, null = require "cjson".null,
               d = setmetatable({}, { __index = { x = 5 }, __name = "d" }) },
             parallel.collect({ 1 }, "return 5")[1]
    end)
    assert.equal(value[1], value[2])
    assert.equal(value[1], value[1].self)
    assert.equal(require "cjson".null, value.null)
    assert.equal(5, value.d.x)
    assert.equal(5, class.result)
  end)

  it("is an error as text where that says something", function ()
    local pool <close> = parallel.pool { sandbox = true }
    local _, failure = pool:spawn(function ()
      error(setmetatable({ 1 }, {
        __tostring = function () return "told" end,
      }))
    end):join()
    assert.equal("told", failure.error)
    _, failure = pool:spawn("error({ code = 5 })"):join()
    assert.equal(5, failure.error.code)
  end)

  it("is the same from the jobs of its jobs", function ()
    local failure = parallel.pool { sandbox = true }:run(function ()
      local pool <close> = parallel.pool {}
      local _, failure <const> = pool:spawn("return print"):join()
      return failure.error
    end)
    assert.matches("cannot transfer a function out of a sandbox", failure)
  end)
end)

describe("the signal of a pool", function ()
  for _, signal in ipairs { 15, 1, 2, 10, 17 } do
    it("is not for a sandbox to take: " .. signal, function ()
      for _, code in ipairs {
        "parallel.pool { signal = " .. signal .. " }",
        "parallel.map({ 1 }, 'return 1', { signal = " .. signal .. " })",
      } do
        local how <const>, message <const> = try(code, { sandbox = true })
        assert.equal("raises", how)
        assert.is_truthy(message:find("signal", 1, true), message)
      end
    end)
  end

  it("may be none, or the one that its pool has", function ()
    local usr2 <const> = 12
    local pool <close> = parallel.pool { sandbox = true, signal = usr2 }
    assert.equal(3, pool:run(function (n)
      local a <close> = parallel.pool { signal = "none" }
      local b <close> = parallel.pool { signal = n }
      return a:run "return 1" + b:run "return 2"
    end, usr2))
  end)

  for _, signal in ipairs { 9, 19, 11, 7, 8, 4, 5, 6, 31, 32, 33 } do
    it("is none of those that cannot be had: " .. signal, function ()
      local ok, message = pcall(parallel.pool, { signal = signal })
      assert.is_false(ok)
      assert.is_truthy(message:find("signal (" .. signal .. ") cannot be "
        .. "used to stop jobs; SIGURG", 1, true), message)
    end)
  end
end)

describe("what comes out of a sandbox as a class of the library", function ()
  it("makes the host load no file, whatever its name", function ()
    local loads = 0
    package.preload["parallel.spec_strange"] = function ()
      loads = loads + 1
      return {}
    end
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    for _, value in ipairs { "M", "setmetatable({}, M)" } do
      local job <const> = pool:spawn(
        "local M = {} package.loaded['parallel.spec_strange'] = M return "
        .. value)
      local ok, failure = job:join()
      assert.is_false(ok)
      assert.matches("'parallel.spec_strange' has is not accepted from a "
                     .. "sandbox", tostring(failure))
    end
    package.preload["parallel.spec_strange"] = nil
    assert.equal(0, loads)
    assert.is_nil(package.loaded["parallel.spec_strange"])
  end)

  for _, name in ipairs { "pool", "manager", "each", "range", "check" } do
    it("is refused: parallel." .. name, function ()
      local pool <close> = parallel.pool { max = 1, sandbox = true }
      local ok, failure = pool:spawn("local M = {} package.loaded['parallel."
        .. name .. "'] = M return setmetatable({}, M)"):join()
      assert.is_false(ok)
      assert.matches("is not accepted from a sandbox", tostring(failure))
    end)
  end

  it("is a failure, or a report", function ()
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    local job <const> = pool:spawn(function ()
      local _, failure <const> = parallel.spawn("error('inner', 0)"):join()
      error(failure)
    end)
    local _, failure = job:join()
    assert.equal("inner", failure.error.error)
    assert.matches("inner", tostring(failure.error))
    local records <const>, report <const> = pool:run(function ()
      return parallel.collect({ 1, 2 }, "return 5")
    end)
    assert.equal(5, records[2].result)
    assert.matches("2 items: 2 succeeded", tostring(report))
    assert.equal(2, report:count("state").completed)
  end)

  for _, name in ipairs { "failure", "report" } do
    for _, fields in ipairs { "", "state = {}, hint = {}, name = {}, index = "
                              .. "{}, input = 1, total = 'x', succeeded = {}",
                              "error = M, total = 0.5, duration = 'x', "
                              .. "succeeded = 1e300, index = 0.5" } do
      it("is shown even so: " .. name .. " {" .. fields .. "}", function ()
        local pool <close> = parallel.pool { max = 1, sandbox = true }
        local value = pool:run("local M = {} package.loaded['parallel." .. name
          .. "'] = M return setmetatable({" .. fields .. "}, M)")
        assert.equal("string", type(tostring(value)))
      end)
    end
  end
end)
