-- SPDX-License-Identifier: MIT
--- The option 'seed': random numbers that do not depend on who draws them.
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

--- Points in a quarter of a circle; an item is tried twice if 'fails' says so.
---@param n integer
---@param fails? boolean
local function throw (n, fails)
  local hits = 0
  for _ = 1, n do
    local x, y = math.random(), math.random()
    if x * x + y * y < 1 then hits = hits + 1 end
  end
  if fails and n % 2 == 0 and parallel.task.attempt == 1 then
    error "try again"
  end
  return hits, math.random(0)
end

local SIZES <const> = {}
for i = 1, 60 do SIZES[i] = 10 + i % 7 end

--- What each item gave, as a text.
local function collected (pool, options)
  local given <const> = { seed = 42 }
  for name, value in next, options or {} do given[name] = value end
  local records <const> = pool:collect(SIZES, throw, given)
  local texts <const> = {}
  for i, record in ipairs(records) do
    texts[i] = ("%s %d %x"):format(record.state, record.results[1] or -1,
                                   record.results[2] or -1)
  end
  return table.concat(texts, "\n")
end

describe("seed", function ()
  local expected
  setup(function ()
    local pool <close> = parallel.pool { max = 1 }
    expected = collected(pool)
  end)

  for _, way in ipairs {
    { "two workers", { max = 2 } },
    { "seven workers", { max = 7 } },
    { "chunks of 9", { max = 2 }, { chunk = 9 } },
    { "chunks of one item", { max = 3 }, { chunk = 1 } },
    { "items that are tried again", { max = 2 },
      { retries = 1, arguments = { true } } },
    { "items that are tried again later", { max = 2 },
      { retries = 1, retry_delay = 0.001, arguments = { true } } },
    { "a rate and a limit by key", { max = 2 },
      { rate = { 10000, per = 1 }, limit_by = { key = math.floor,
                                                limit = 1 } } },
    { "a new state for each item", { max = 2, reset = "fresh" } },
    { "environments that stay", { max = 2, reset = "none" } },
    { "processes", { max = 2, isolation = "process" } },
    { "workers behind a command",
      { max = 2, command = { tree.program(), "--worker" } } },
    { "processes that try items again", { max = 2, isolation = "process" },
      { retries = 1, arguments = { true } } },
  } do
    it("draws the same numbers with " .. way[1], function ()
      local pool <close> = parallel.pool(way[2])
      assert.equal(expected, collected(pool, way[3]))
    end)
  end

  it("draws the same numbers for an array, a range and an iterator",
     function ()
    local function draw () return math.random(0) end
    local array, n = {}, 0
    for i = 1, 30 do array[i] = i end
    local first <const> = parallel.map(array, draw, { seed = 7 })
    assert.same(first, parallel.map(parallel.range(30), draw, { seed = 7 }))
    local function next_one ()
      n = n + 1
      return n <= 30 and n or nil
    end
    assert.same(first, parallel.map(next_one, draw, { seed = 7 }))
  end)

  it("gives each item, and each seed, numbers of its own", function ()
    local seen, n = {}, 0
    for seed = -3, 3 do
      for _, x in ipairs(parallel.map(parallel.range(300), function ()
        return math.random(0)
      end, { seed = seed })) do
        assert.is_nil(seen[x])
        seen[x] = true
        n = n + 1
      end
    end
    assert.equal(2100, n)
  end)

  it("spreads the first numbers of items evenly", function ()
    local counts <const> = {}
    for i = 1, 64 do counts[i] = 0 end
    for _, x in ipairs(parallel.map(parallel.range(64000), function ()
      return math.random(64)
    end, { seed = 1 })) do
      counts[x] = counts[x] + 1
    end
    local chi = 0
    for i = 1, 64 do chi = chi + (counts[i] - 1000) ^ 2 / 1000 end
    assert.is_true(chi < 130 and chi > 20, "chi-square is " .. chi)
  end)

  it("lets a job draw what a script draws with that seed", function ()
    math.randomseed(99)
    local own <const> = { math.random(), math.random(6), math.random(0) }
    math.randomseed()
    local function draw () return math.random(), math.random(6),
                                  math.random(0) end
    for _, options in ipairs { {}, { isolation = "process" } } do
      options.max = 1
      local pool <close> = parallel.pool(options)
      assert.same(own, { pool:submit({ draw, seed = 99 }):get() })
    end
  end)

  it("lets a job draw the same numbers when it is tried again", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function draw (tries)
      local x <const> = math.random(0)
      if parallel.task.attempt < tries then error("no: " .. x) end
      return x, ("x"):rep(200)  -- beside small results, large ones, too
    end
    local first <const> = pool:submit({ draw, arguments = { 1 }, seed = -5 })
    local third <const> =
      pool:submit({ draw, arguments = { 3 }, seed = -5, retries = 2 })
    assert.equal((first:get()), (third:get()))
    assert.equal(3, third.attempts)
  end)

  it("gives the runspace back the numbers that it had", function ()
    local pool <close> = parallel.pool {
      max = 1, init = function () math.randomseed(5) end,
    }
    local function draw () return math.random(0) end
    math.randomseed(5)
    local own <const> = { math.random(0), math.random(0), math.random(0) }
    math.randomseed()
    local got <const> = { pool:run(draw) }
    pool:map(parallel.range(20), draw, { seed = 1 })
    got[2] = pool:run(draw)
    pool:submit({ draw, seed = 1 }):get()
    got[3] = pool:run(draw)
    assert.same(own, got)
  end)

  it("is not disturbed by jobs that run inside of one", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function draw (inner)
      local a <const> = math.random(0)
      if inner then
        parallel.map({ 1, 2 }, function () return math.random(0) end)
        parallel.map({ 1, 2 }, function () return math.random(0) end,
                     { seed = 3 })
      end
      return a, math.random(0)
    end
    local function drawn (inner)
      return { pool:submit({ draw, arguments = { inner }, seed = 8 }):get() }
    end
    assert.same(drawn(false), drawn(true))
  end)

  it("gives the keys of 'invoke' the same numbers as jobs", function ()
    local function draw (name) return name, math.random(0) end
    local function pick (_, n) return n end
    local calls <const> = {}
    for i = 1, 20 do calls["key" .. i] = { i } end
    local function both (name) return ("%s %d"):format(draw(name)) end
    local now <const> = parallel.invoke(both, calls, { seed = 4, limit = 2 })
    local jobs <const> = parallel.invoke(both, calls,
                                         { seed = 4, async = true })
    local seen <const> = {}
    for key, job in pairs(jobs) do
      assert.equal(now[key], (job:get()))
      local number <const> = pick(now[key]:match "^(%S+) (%S+)$")
      assert.is_nil(seen[number])
      seen[number] = true
    end
  end)

  it("is an integer", function ()
    for _, bad in ipairs { 1.5, "1", {}, true } do
      assert.error_matches(function ()
        parallel.map({ 1 }, throw, { seed = bad })
      end, "bad option 'seed' to 'map' %(an integer expected, got ")
      assert.error_matches(function ()
        parallel.submit { throw, seed = bad }
      end, "bad option 'seed' to 'submit' %(an integer expected, got ")
    end
  end)

  it("is refused by 'reduce', whose parts depend on the workers", function ()
    assert.error_matches(function ()
      parallel.reduce({ 1, 2 }, math.max, nil, { seed = 1 })
    end, "bad option 'seed' to 'reduce' %(none expected, got 1: ")
  end)
end)
