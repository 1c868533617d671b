-- SPDX-License-Identifier: MIT
local parallel <const> = require "parallel"

--- What 'code' gives under a sandbox: a message, or "allowed".
local function try (code, sandbox)
  local results <const> = parallel.map({ code }, function (text)
    local results <const> = table.pack(pcall(load(text)))
    if not results[1] then return results[2] end
    if results[2] == nil and results[3] ~= nil then return results[3] end
    return "allowed"
  end, { sandbox = sandbox })
  return results[1]
end

local SCRATCH <const> = os.tmpname()

--- Each row: code; what it needs: "read", "all", "programs", "bytecode",
--- "debug" or "c_modules".
local ROWS <const> = {
  { "return io.open('/etc/passwd')", "read" },
  { "return io.open('/etc/passwd', 'rb')", "read" },
  { "return io.lines('/etc/passwd')", "read" },
  { "return io.input('/etc/passwd')", "read" },
  { "return loadfile('/dev/null')", "read" },
  { "return dofile('/dev/null') or true", "read" },
  { "package.path = '/no/?.lua' local _, m = pcall(require, 'no.such') "
    .. "return m:find 'forbids files' and error(m, 0) or true", "read" },
  { ("return io.open(%q, 'w')"):format(SCRATCH), "all" },
  { ("return io.open(%q, 'r+')"):format(SCRATCH), "all" },
  { ("return io.open(%q, 'a')"):format(SCRATCH), "all" },
  { ("return io.output(%q)"):format(SCRATCH), "all" },
  { "return io.tmpfile()", "all" },
  { "local n = os.tmpname() os.remove(n) return n", "all" },
  { ("return os.rename(%q, %q)"):format(SCRATCH, SCRATCH), "all" },
  { "local ok, m = os.remove '/no/such/file' "
    .. "return m:find 'forbids' and error(m, 0) or true", "all" },
  { "return os.execute 'true'", "programs" },
  { "return io.popen 'true'", "programs" },
  { "return parallel.task.execute 'true'", "programs" },
  { "return load(string.dump(function () end))", "bytecode" },
  { "return load(string.dump(function () end), 'x', 'bt')", "bytecode" },
  { "return load(string.dump(function () end), 'x', 'b')", "bytecode" },
  { "return debug.sethook or true", "debug" },
  { "return require 'debug'", "debug" },
  { "return require 'cjson'", "c_modules" },
  { "local f, m = package.loadlib('/no/such/lib.so', '*') "
    .. "return m:find 'forbids' and error(m, 0) or true", "c_modules" },
  { "return package.searchers[3] 'cjson' and require 'cjson'", "c_modules" },
}

--- A sandbox that allows just that.
local ALLOWING <const> = {
  all = { files = "all" },
  bytecode = { bytecode = true },
  c_modules = { c_modules = true, files = "read" },
  debug = { debug = true },
  programs = { programs = true },
  read = { files = "read" },
}

describe("a sandbox", function ()
  for _, row in ipairs(ROWS) do
    local code <const>, need <const> = row[1], row[2]

    it("refuses " .. code, function ()
      assert.not_equal("allowed", try(code, true))
    end)

    it("allows it with " .. need .. ": " .. code, function ()
      assert.equal("allowed", try(code, ALLOWING[need]))
      assert.equal("allowed", try(code, {
        files = "all", bytecode = true, c_modules = true, debug = true,
        programs = true,
      }))
    end)
  end

  it("refuses changes when files may be read", function ()
    for _, row in ipairs(ROWS) do
      if row[2] == "all" then
        assert.not_equal("allowed", try(row[1], { files = "read" }))
      end
    end
  end)

  it("says what is forbidden and how it is allowed", function ()
    assert.equal("io.open: the sandbox of this runspace forbids files: give "
                 .. "the initial state sandbox = {files = \"read\"}",
                 try("return io.open('x')", true))
    assert.equal("io.open: the sandbox of this runspace forbids changing "
                 .. "files: give the initial state sandbox = "
                 .. "{files = \"all\"}",
                 try("return io.open('x', 'w')", { files = "read" }))
    assert.matches("task.execute: the sandbox of this runspace forbids",
                   try("return parallel.task.execute 'ls'", true))
  end)

  it("allows C modules by name", function ()
    local allowed <const> = { c_modules = { "cjson" }, files = "read" }
    assert.equal("allowed", try("return require 'cjson'", allowed))
    assert.not_equal("allowed", try("return require 'lpeg'", allowed))
  end)

  it("leaves modules and init of the initial state alone", function ()
    local results <const> = parallel.map({ 1 }, function (x)
      return require "cjson".encode { x } .. word  -- luacheck: ignore word
    end, {
      sandbox = true, modules = { "cjson" },
      init = "word = io.open('/etc/passwd') and '!'",
    })
    assert.equal("[1]!", results[1])
  end)

  it("leaves ordinary work alone", function ()
    local pool <close> = parallel.pool {
      max = 1, sandbox = true, preload = { mine = "return { n = 5 }" },
    }
    assert.equal(6, pool:run(function ()
      local seen = {}
      for word in ("a b"):gmatch "%a" do seen[#seen + 1] = word end
      io.write("")
      assert(io.stdout and io.type(io.stdout) == "file")
      assert(load "return 1" () == 1)
      assert(os.time() > 0 and os.getenv "HOME" ~= 5)
      parallel.task.verbose "here"
      assert(#seen == 2)
      return require "mine".n + parallel.run "return 1"
    end))
  end)

  it("is inherited by pools that its jobs open", function ()
    for _, open in ipairs {
      "parallel.pool()", "parallel.pool { sandbox = { files = 'all', "
      .. "programs = true, debug = true } }",
      "parallel.pool { initial_state = parallel.initial_state { libs = "
      .. "{ 'base', 'io', 'os' } } }",
    } do
      assert.matches("forbids", try("local pool <close> = " .. open
        .. " return pool:run \"return select(2, io.open '/etc/passwd')\""
        .. ":find 'forbids' and nil, 'forbids'", true))
      assert.matches("forbids", try("local pool <close> = " .. open
        .. " return pool:run \"return select(2, os.execute 'true')\""
        .. ":find 'forbids' and nil, 'forbids'", true))
    end
    assert.matches("cjson", try([[
      return parallel.map({1}, "return require 'cjson'",
                          { sandbox = { c_modules = true, files = "read" } })
    ]], { c_modules = { "lpeg" }, files = "read" }))
  end)

  --- Each row: what is given, what is said.
  for _, row in ipairs {
    { "yes", "bad option 'sandbox' to 'pool' (true, or a table of what is "
      .. "allowed, expected, got 'yes')" },
    { false, "bad option 'sandbox' to 'pool'" },
    { { file = "read" }, "unknown option 'sandbox.file' to 'pool' (did you "
      .. "mean 'sandbox.files'?)" },
    { { "read" }, "unknown option 'sandbox.1' to 'pool'" },
    { { files = "reed" }, "bad option 'sandbox.files' to 'pool' ('none', "
      .. "'read' or 'all' expected, got 'reed')" },
    { { files = true }, "'none', 'read' or 'all' expected, got true" },
    { { programs = "none" }, "bad option 'sandbox.programs' to 'pool' (true "
      .. "or false expected, got 'none')" },
    { { c_modules = "cjson" }, "bad option 'sandbox.c_modules' to 'pool' "
      .. "(true, false or an array of names expected, got 'cjson')" },
    { { c_modules = { 5 } }, "bad option 'sandbox.c_modules[1]' to 'pool' (a "
      .. "name expected, got 5)" },
  } do
    it("is refused: " .. row[2], function ()
      local ok, message = pcall(parallel.pool, { sandbox = row[1] })
      assert.is_false(ok)
      assert.is_truthy(message:find(row[2], 1, true), message)
    end)
  end

  teardown(function () os.remove(SCRATCH) end)
end)
