-- SPDX-License-Identifier: MIT
--- Pools that have more workers while these wait.

local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

--- Workers that such a pool has at most, and where it begins.
local MOST <const> = math.max(32, 4 * parallel.cpus())
local BASE <const> = parallel.cpus()

local function raised (fn, ...)
  local ok, value = pcall(fn, ...)
  assert.is_false(ok)
  return value
end

--- Run a script in a program of its own, with these options.
local function run (options, source)
  local path <const> = os.tmpname()
  local file <const> = assert(io.open(path, "w"))
  file:write("local MOST = " .. MOST .. "\n" .. source)
  file:close()
  local pipe <close> = io.popen(("timeout -k 1 200 %s %s %s 2>&1")
    :format(tree.runspace, options, path))
  local text <const> = pipe:read "a"
  os.remove(path)
  return text
end

--- Let so many jobs begin, which stand at the gate when this returns.
local function occupy (pool, gate, n)
  local pass <const> = gate.pass
  local jobs = {}
  for i = 1, n do jobs[i] = pool:spawn(function () pass() end) end
  gate:await(n)
  return jobs
end

--- Wait until the pool is as wide as it was.
local function is_narrow (pool)
  return gates.eventually(function ()
    local info <const> = pool:info()
    return info.max == BASE and info.workers <= BASE
  end)
end

--- Items that wait until MOST of them do, on the default pool: prints how many
--- workers that took.
local ITEMS <const> = [[
  local parallel = require "parallel"
  local there, opened = 0, os.tmpname()
  parallel.on("there", function ()
    there = there + 1
    if there == MOST then os.remove(opened) end
  end)
  local results = parallel.map(parallel.range(1, 2 * MOST), function ()
    parallel.task.emit "there"
    repeat
      parallel.task.sleep(0.02)
      local file <close> = io.open(opened)
    until file == nil
    return parallel.task.worker
  end, LIMIT)
  print(#results, math.max(table.unpack(results)))
]]

describe("a pool with max = 'auto'", function ()
  it("begins with a worker for each CPU, or 'min'", function ()
    local pool <close> = parallel.pool { max = "auto" }
    local info <const> = pool:info()
    assert.same({ 1, BASE, true }, { info.min, info.max, info.adapts })
    local wide <close> = parallel.pool { max = "auto", min = BASE + 1 }
    assert.equal(BASE + 1, wide:info().max)
  end)

  it("has more of them while they wait, and takes them away", function ()
    local pool <close> = parallel.pool { max = "auto" }
    local gate <close> = gates.new()
    local jobs <const> = occupy(pool, gate, MOST)
    assert.equal(MOST, pool:info().max)
    local queued <const> = pool:spawn(function () return 1 end)
    assert.equal("queued", queued.state)
    gate:open()
    for _, job in ipairs(jobs) do assert.equal("completed", job:wait()) end
    assert.equal(1, queued:get())
    assert.is_truthy(is_narrow(pool))
  end)

  it("takes those away that compute", function ()
    local pool <close> = parallel.pool { max = "auto" }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    for _ = 1, MOST do
      pool:spawn(function ()
        pass()
        while true do tostring {} end
      end)
    end
    gate:await(MOST)
    gate:open()
    assert.is_truthy(gates.eventually(function ()
      return pool:info().max == BASE
    end))
    pool:cancel()
    assert.is_truthy(is_narrow(pool))
  end)

  it("adds none while a call has a limit", function ()
    local pool <close> = parallel.pool { max = "auto" }
    local gate <close> = gates.new()
    local jobs <const> = occupy(pool, gate, MOST - 1)
    local wide = {}
    local handler <const> = parallel.on("at", function ()
      wide[#wide + 1] = pool:info().max
    end)
    gate:open()
    local results <const> = pool:map({ 1, 2, 3 }, function (x)
      parallel.task.emit "at"
      return x
    end, { limit = 1, chunk = 1 })
    parallel.off("at", handler)
    assert.same({ n = 3, 1, 2, 3 }, results)
    assert.same({ BASE, BASE, BASE }, wide)
    for _, job in ipairs(jobs) do assert.equal("completed", job:wait()) end
  end)

  it("does so no more once it is resized", function ()
    local pool <close> = parallel.pool { max = "auto" }
    pool:resize { min = 2, max = 3 }
    local info <const> = pool:info()
    assert.same({ 2, 3, false }, { info.min, info.max, info.adapts })
    local gate <close> = gates.new()
    local jobs <const> = occupy(pool, gate, 3)
    gate:open()
    for _, job in ipairs(jobs) do assert.equal("completed", job:wait()) end
  end)

  it("is paused with all of its workers", function ()
    local pool <close> = parallel.pool { max = "auto" }
    pool:pause()
    local job <const> = pool:spawn(function () return 1 end)
    assert.equal("queued", job.state)
    pool:resume()
    assert.equal(1, job:get())
  end)

  it("is closed while it looks", function ()
    for _ = 1, 20 do
      local pool <close> = parallel.pool { max = "auto" }
      for _ = 1, 2 * MOST do
        pool:spawn(function () parallel.task.sleep(0.001) end)
      end
    end
  end)

  for _, row in ipairs {
    { { max = "many" }, "an integer from 1 to 65536 or 'auto' expected" },
    { { max = "auto", isolation = "process" }, "these workers are processes" },
    { { max = "auto", command = { "true" } }, "these workers are processes" },
    { { max = "auto", hosts = { "web1" } }, "these workers are processes" },
    { { max = "auto", broker = "amqp://x", queue = "q" },
      "these workers are processes" },
  } do
    it("refuses " .. row[2] .. " " .. (next(row[1])), function ()
      assert.matches("bad option 'max' to 'pool' .*" .. row[2],
                     raised(parallel.pool, row[1]))
    end)
  end
end)

describe("the default pool", function ()
  it("has more workers while items wait", function ()
    assert.equal(("%d\t%d\n"):format(2 * MOST, MOST),
                 run("", (ITEMS:gsub("LIMIT", "nil"))))
  end)

  it("has as many as -j says", function ()
    assert.equal("3\tfalse\n", run("-j 3", [[
      parallel.run "return 1"
      local info = parallel.stats().pools[1]
      print(info.max, info.adapts)]]))
  end)
end)

describe("limit = 'auto'", function ()
  for _, options in ipairs { "", "-j 1" } do
    it("has a call adapt: runspace " .. options, function ()
      assert.equal(("%d\t%d\n"):format(2 * MOST, MOST),
                   run(options, (ITEMS:gsub("LIMIT", "{ limit = 'auto' }"))))
    end)
  end

  it("is the width of a pool that adapts", function ()
    local pool <close> = parallel.pool { max = "auto" }
    assert.same({ n = 2, 1, 4 }, pool:map({ 1, 2 }, function (x)
      return x * x
    end, { limit = "auto" }))
    local auto <const> = { limit = "auto" }
    assert.same({ n = 2, 1, 2 }, pool:filter({ 1, 2 }, "return true", auto))
    assert.equal(2, #pool:collect({ 1, 2 }, "return ...", auto))
    assert.equal(3, pool:reduce({ 1, 2 }, function (x, y)
      return x + y
    end, nil, auto))
    for record in pool:each({ 1 }, "return ...", { limit = "auto" }) do
      assert.equal("completed", record.state)
    end
    pool:invoke(function (x) return x end, { a = { x = 1 } },
                { limit = "auto" })
  end)

  it("is not for a pool with a size", function ()
    local pool <close> = parallel.pool { max = 2 }
    assert.matches("the pool has a size of its own",
                   raised(pool.map, pool, { 1 }, print, { limit = "auto" }))
    assert.matches("bad option 'limit' to 'map' .*these workers are processes",
                   raised(parallel.map, { 1 }, print,
                          { limit = "auto", isolation = "process" }))
    assert.matches("a positive integer or 'auto' expected",
                   raised(parallel.map, { 1 }, print, { limit = "car" }))
  end)

  it("is one at a time in serial mode", function ()
    assert.equal("1\t2\n", run("-j 0", [[
      print(table.unpack(parallel.map({ 1, 2 }, "return ...",
                                      { limit = "auto" })))]]))
  end)
end)
