-- SPDX-License-Identifier: MIT
--- What workers that are processes are given: time of CPU, memory, niceness,
--- directory, variables.

local attacks <const> = require "support.attack"
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

local function read (command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(value)
end

local SPIN <const> = tree.sanitizers == "thread"
  and "while true do tostring {} end" or "while true do end"

--- Niceness of the thread that runs.
local NICE <const> = [[io.open "/proc/thread-self/stat":read "a"
                       :match "^.*%) %a (.*)$":match(("%S+ "):rep(15)
                       .. "(%S+)")]]

--- Options of pools whose workers are processes.
local WHERE <const> = {
  process = { isolation = "process" },
  command = { command = { "sh", "-c", "exec " .. tree.program()
                                      .. " --worker" } },
}

local function on (kind, more)
  local options <const> = { max = 1 }
  for _, set in ipairs { WHERE[kind], more } do
    for name, value in pairs(set) do options[name] = value end
  end
  return options
end

for kind in pairs(WHERE) do
  describe("a worker that is a " .. kind, function ()
    it("uses no more CPU for a job than 'cpu_time'", function ()
      local pool <close> = parallel.pool(on(kind, { cpu_time = 0.1 }))
      for _ = 1, 2 do
        local job <const> = pool:spawn(SPIN)
        assert.equal("lost", job:wait())
        assert.equal("lost", job.reason)
        assert.matches("the worker process used more than 0.1 s of CPU$",
                       job.error)
        assert.equal("well", pool:run "return 'well'")
      end
      assert.equal(1, pool:info().workers)
    end)

    it("gives each job, and each item, its time of CPU", function ()
      -- Together they use more than one has, and the system counts seconds.
      local pool <close> = parallel.pool(on(kind, { cpu_time = 1 }))
      local function use ()
        local late <const> = os.clock() + 0.5
        while os.clock() < late do end
        return os.clock()
      end
      local used = 0
      for _ = 1, 3 do used = pool:run(use) end
      assert.is_true(used > 1.5)
      local all <const> = pool:map({ 1, 2, 3, 4, 5 }, use, { chunk = 5 })
      assert.is_true(all[5] > 4)
    end)

    it("does not count what opens a runspace", function ()
      local pool <close> = parallel.pool(on(kind, {
        cpu_time = 0.1, reset = "fresh", init = [[
          local late = os.clock() + 1.5
          while os.clock() < late do end]] }))
      local pids <const> = {}
      for i = 1, 3 do
        pids[i] = pool:run "return io.open '/proc/self/stat':read 'n'"
      end
      assert.same({ pids[1], pids[1], pids[1] }, pids)
    end)

    it("adds 'nice' to the niceness of its jobs", function ()
      local here <const> = math.tointeger(load("return " .. NICE)())
      local pool <close> = parallel.pool(on(kind, { nice = 5 }))
      local want <const> = tostring(math.min(here + 5, 19))
      assert.equal(want, pool:run("return " .. NICE))
      assert.equal(want, pool:run "return io.popen 'nice':read 'l'")
    end)

    it("works in the directory 'cwd'", function ()
      local pool <close> = parallel.pool(on(kind, { cwd = "/usr" }))
      assert.equal("/usr", pool:run "return io.popen 'pwd':read 'l'")
      assert.is_true(pool:run "return io.open 'share' ~= nil")
      assert.matches("cwd: cannot change to '/no/such': No such file",
                     raised(parallel.pool, on(kind, { cwd = "/no/such" })), 1,
                     true)
    end)

    it("leaves the niceness and the directory of others alone", function ()
      local there <const> = read "pwd"
      local pool <close> = parallel.pool(on(kind, { cwd = "/", nice = 3 }))
      pool:run "return 1"
      assert.equal(there, read "pwd")
      local plain <close> = parallel.pool(on(kind))
      assert.equal(read "nice", plain:run "return io.popen 'nice':read 'l'")
    end)
  end)
end

describe("a child", function ()
  it("has variables of its own by 'env'", function ()
    local pool <close> = parallel.pool(on("process", {
      env = { RUNSPACE_SPEC = "a b=c", N = 5, HOME = false, PATH = false } }))
    local job <const> = [[return os.getenv "RUNSPACE_SPEC", os.getenv "N",
                          tostring(os.getenv "HOME"), os.getenv "PATH" ~= nil,
                          os.getenv "LANG"]]
    assert.same({ "a b=c", "5", "nil", false, os.getenv "LANG" },
                { pool:run(job) })
    assert.is_nil(os.getenv "RUNSPACE_SPEC")
    -- A process that comes later has them, too.
    assert.equal("lost", pool:spawn "os.exit(1)":wait())
    assert.equal("a b=c", (pool:run(job)))
  end)

  it("has options that a verb was given", function ()
    assert.same({ n = 1, "/usr" }, parallel.map({ 1 }, [[
      return os.getenv "A" == "b" and io.popen "pwd":read "l"]], {
        isolation = "process", cwd = "/usr", env = { A = "b" }, nice = 1,
        cpu_time = 100, memory = "100M" }))
  end)

  -- A sanitizer takes more addresses than any bound leaves.
  if tree.sanitizers == "" then
    it("gives C code no more memory than 'memory' allows", function ()
      local attack <close> = attacks.build()
      local pool <close> = parallel.pool(on("process", {
        memory = "64M", cpath = attack.cpath }))
      assert.is_true(pool:run "return require 'attack'.take(32 << 20)")
      assert.is_false(pool:run "return require 'attack'.take(1 << 30)")
      local text <const> = ("x"):rep(40 << 20)
      assert.equal(#text, #pool:run("return ...", text))
      -- What cannot be there is told without a try, or by the far side.
      for _, size in ipairs { 65, 100, 300 } do
        local large <const> = pool:spawn("return #...", ("x"):rep(size << 20))
        assert.equal("failed", large:wait())
        assert.equal("memory_limit", large.reason)
        local one <const> = pool:collect({ 1 }, "return #select(2, ...)", {
          arguments = { ("x"):rep(size << 20) }, on_error = "continue" })[1]
        assert.equal("failed", one.state)
      end
      local job <const> = pool:spawn [[
        local t = {} for i = 1, math.huge do t[i] = ("x"):rep(1000) .. i end]]
      assert.equal("failed", job:wait())
      assert.equal("memory_limit", job.reason)
      assert.equal("well", pool:run "return 'well'")
      assert.same({ n = 2, 2, 4 }, pool:run(function ()
        return parallel.map({ 1, 2 }, function (x) return 2 * x end)
      end))
    end)
  else
    print "left out: a bound of memory beside a sanitizer"
  end

  for _, row in ipairs {
    { { cpu_time = 1 }, "bad option 'cpu_time' to 'pool' (it is for processes:"
      .. " give isolation = \"process\", or leave it out)" },
    { { nice = 1 }, "bad option 'nice' to 'pool' (it is for processes" },
    { { cwd = "/", isolation = "thread" }, "bad option 'cwd' to 'pool' (it is "
      .. "for processes" },
    { { env = {} }, "bad option 'env' to 'pool' (it is for processes" },
    { on("command", { env = {} }), "bad option 'env' to 'pool' (it is for "
      .. "children of this process, and 'command' starts others: let the "
      .. "words of 'command' see to it, or leave it out)" },
    { { hosts = { "x" }, env = {} }, "let the words of 'ssh' see to it" },
    { on("process", { cpu_time = 0 }), "bad option 'cpu_time' to 'pool' (a "
      .. "positive number of seconds expected, got 0)" },
    { on("process", { nice = 20 }), "bad option 'nice' to 'pool' (an integer "
      .. "from 0 to 19 expected, got 20)" },
    { on("process", { nice = -1 }), "from 0 to 19 expected, got -1)" },
    { on("process", { cwd = "" }), "bad option 'cwd' to 'pool' (the path of a "
      .. "directory expected, got '')" },
    { on("process", { cwd = "a\0b" }), "the path of a directory expected" },
    { on("process", { env = 5 }), "bad option 'env' to 'pool' (a table of "
      .. "variables expected, got 5)" },
    { on("process", { env = { "A=b" } }), "(a table of variables expected, "
      .. "got the name 1)" },
    { on("process", { env = { ["A=b"] = "c" } }), "got the name 'A=b')" },
    { on("process", { env = { A = true } }), "(a string, or false, for the "
      .. "variable 'A' expected, got true)" },
    { on("process", { env = { A = "b\0c" } }), "for the variable 'A'" },
  } do
    it("is refused: " .. row[2], function ()
      assert.matches(row[2], raised(parallel.pool, row[1]), 1, true)
    end)
  end

  it("is refused by verbs, too", function ()
    assert.matches("bad option 'cpu_time' to 'map' (it is for processes",
                   raised(parallel.map, { 1 }, "return 1", { cpu_time = 1 }),
                   1, true)
    assert.matches("bad option 'env' to 'map' (a pool has its initial state "
                   .. "already", raised(function ()
      local pool <close> = parallel.pool()
      return pool:map({ 1 }, "return 1", { env = {} })
    end), 1, true)
  end)
end)
