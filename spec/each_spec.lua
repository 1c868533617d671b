-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"

local function square (x) return x * x end

--- 1, 2, 3, ... without end; second result: how many were pulled.
local function endless ()
  local count = 0
  return function ()
    count = count + 1
    return count
  end, function () return count end
end

-- luacheck: ignore 512 (loops that are left at once)
describe("each", function ()
  it("gives a record of each item", function ()
    local seen = {}
    for record in parallel.each({ 3, 4, "x" }, square) do
      seen[record.index] = record
    end
    assert.equal(9, seen[1].result)
    assert.same({ 16, n = 1 }, seen[2].results)
    assert.equal("failed", seen[3].state)
    assert.equal("x", seen[3].input)
    assert.matches("stack traceback", seen[3].traceback)
    assert.equal(3, #seen)
  end)

  it("takes ranges and iterators", function ()
    for _, input in ipairs { parallel.range(100), ("x"):rep(100):gmatch(".") }
    do
      local count = 0
      for record in parallel.each(input, "return ...") do
        count = count + 1
        assert.equal(record.input, record.result)
      end
      assert.equal(100, count)
    end
  end)

  it("gives nothing for no items", function ()
    for _ in parallel.each({}, square) do error("a record of nothing") end
    for _ in parallel.each(function () end, square) do
      error("a record of nothing")
    end
  end)

  it("gives records as they complete", function ()
    local pool <close> = parallel.pool { min = 2, max = 2 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local order = {}
    for record in pool:each({ "slow", "quick" }, function (item)
      if item == "slow" then pass() end
      return item
    end, { chunk = 1 }) do
      order[#order + 1] = record.result
      gate:open()  -- only after the quick one is here
    end
    assert.same({ "quick", "slow" }, order)
  end)

  it("gives records in the order of the items with 'ordered'", function ()
    local pool <close> = parallel.pool { min = 2, max = 2 }
    local gate <close> = gates.new()
    local pass <const>, path <const> = gate.pass, gate.path
    local order = {}
    for record in pool:each({ "slow", "quick", "last" }, function (item)
      if item == "slow" then
        pass()
      elseif item == "quick" then
        local _ <close> = io.open(path, "w")  -- waits for the slow one
      end
      return item
    end, { chunk = 1, ordered = true }) do
      order[#order + 1] = record.result
    end
    assert.same({ "slow", "quick", "last" }, order)
  end)

  it("keeps the order of many items with 'ordered'", function ()
    local expected = 0
    for record in parallel.each(parallel.range(20000), square,
                                { ordered = true }) do
      expected = expected + 1
      assert.equal(expected, record.input)
    end
    assert.equal(20000, expected)
  end)

  it("goes on behind a failed item", function ()
    local states = {}
    for record in parallel.each({ 1, 2, 3 }, function (x)
      if x == 2 then error("two") end
    end, { ordered = true }) do
      states[#states + 1] = record.state
    end
    assert.same({ "completed", "failed", "completed" }, states)
  end)

  it("starts nothing more after a failure with on_error = 'stop'",
     function ()
    local input <const> = endless()
    local failed, completed = 0, 0
    for record in parallel.each(input, function (x)
      if x == 20 then error("twenty") end
    end, { on_error = "stop", chunk = 1 }) do
      if record.state == "failed" then failed = failed + 1 end
      if record.state == "completed" then completed = completed + 1 end
    end
    assert.equal(1, failed)
    assert.is_true(completed >= 18)
  end)

  it("holds a bounded number of items of an endless iterator", function ()
    local input <const>, pulled <const> = endless()
    local taken, most = 0, 0
    for _ in parallel.each(input, square, { limit = 4, chunk = 10 }) do
      taken = taken + 1
      most = math.max(most, pulled() - taken)
      if taken == 2000 then break end
    end
    assert.is_true(most <= 100, most .. " items were held")
  end)

  it("pulls nothing before it is asked", function ()
    local input <const>, pulled <const> = endless()
    local next_record, _, _, closing = parallel.each(input, square)
    assert.equal(0, pulled())
    assert.equal("completed", next_record().state)
    getmetatable(closing).__close(closing)
  end)

  it("pulls nothing while a finished record waits", function ()
    local pool <close> = parallel.pool { min = 2, max = 2 }
    local input <const>, pulled <const> = endless()
    local taken, before = 0, 0
    for _ in pool:each(input, square, { limit = 1, chunk = 4 }) do
      if pulled() ~= before then assert.equal(before, taken) end
      taken, before = taken + 1, pulled()
      if taken == 100 then break end
    end
  end)

  it("starts early items of a slow iterator early", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    gate:open()
    local count = 0
    local function slow ()
      os.execute("sleep 0.005")
      if count > 0 then gate:await(1) end  -- the item before has been run
      count = count + 1
      if count <= 5 then return count end
    end
    local taken = 0
    for _ in pool:each(slow, function () pass() end) do taken = taken + 1 end
    assert.equal(5, taken)
  end)

  it("gives no records of what it did not take when a failure stops it",
     function ()
    local pool <close> = parallel.pool { max = 1 }
    local states = {}
    for record in pool:each(parallel.range(10000), function (x)
      if x == 3 then error "three" end
    end, { on_error = "stop", chunk = 1 }) do
      states[#states + 1] = record.state
    end
    assert.equal("completed completed failed",
                 table.concat(states, " ", 1, 3))
    for i = 4, #states do assert.equal("cancelled", states[i]) end
    assert.is_true(#states < 1000)
  end)

  it("stops the batch when the loop is left", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _ in pool:each(endless(), square) do break end
    local ok = pcall(function ()
      for _ in pool:each(endless(), square) do error("leave") end
    end)
    assert.is_false(ok)
    assert.equal(16, pool:run(square, 4))
    assert.equal(0, pool:info().queued)
  end)

  it("closes a pool of its own when the loop is left", function ()
    local seen
    for record in parallel.each(endless(), "return offset",
                                { variables = { offset = 5 } }) do
      seen = record.result
      break
    end
    assert.equal(5, seen)
  end)

  it("may be left to the collector in the middle", function ()
    local next_record = parallel.each(endless(), square)
    assert.equal("completed", next_record().state)
    next_record = nil  -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.same({ 1, n = 1 }, parallel.map({ 1 }, square))
  end)

  it("gives nil again and again after its end", function ()
    local next_record = parallel.each({ 1 }, square)
    assert.equal(1, next_record().result)
    assert.is_nil(next_record())
    assert.is_nil(next_record())
  end)

  it("keeps memory flat over many items of an iterator", function ()
    local i, limit = 0, 200000
    local function counter ()
      i = i + 1
      if i <= limit then return i end
    end
    local taken, before, most = 0, nil, 0
    for _ in parallel.each(counter, square) do
      taken = taken + 1
      if taken % 20000 == 0 then
        collectgarbage()
        local used <const> = collectgarbage("count")
        before = before or used
        most = math.max(most, used - before)
      end
    end
    assert.equal(limit, taken)
    assert.is_true(most < 2048, most .. " KiB more than at the start")
  end)

  it("leaves no pool behind when it cannot begin", function ()
    local before <const> = #parallel.stats().pools
    local file <const> = io.stdout
    assert.error_matches(function ()
      parallel.each({ 1 }, function () return file end, { reset = "none" })
    end, "cannot transfer")
    assert.equal(before, #parallel.stats().pools)
  end)

  it("holds the pool that nobody else does", function ()
    local n = 0
    for _ in parallel.pool { max = 1 }:each(parallel.range(3000), square) do
      n = n + 1
      if n % 100 == 0 then collectgarbage() end
    end
    assert.equal(3000, n)
  end)

  it("is a method of pools, several loops at a time", function ()
    local pool <close> = parallel.pool { max = 2 }
    local sum = 0
    for outer in pool:each({ 1, 2, 3 }, square) do
      for inner in pool:each({ 10, 20 }, square) do
        sum = sum + outer.result * inner.result
      end
    end
    assert.equal(14 * 500, sum)
  end)

  describe("called from inside of itself", function ()
    --- A value that calls 'what' where it is rebuilt.
    local function rebuilt_by (x)
      return setmetatable({ x }, { __transfer = function (self)
        return function (v)
          local hook <const> = rawget(_G, "EACH_HOOK")
          if hook then hook(v) end
          return v
        end, self[1]
      end })
    end

    --- Take all records; each index has to come once, and completed.
    local function take_all (take, n, ordered, seen)
      seen = seen or {}
      local last = 0
      for record in take do
        assert.equal("completed", record.state, record.error)
        assert.is_nil(seen[record.index])
        seen[record.index] = true
        if ordered then assert.equal(last + 1, record.index) end
        last = record.index
      end
      assert.equal(n, #seen)
    end

    after_each(function () rawset(_G, "EACH_HOOK", nil) end)

    for _, ordered in ipairs { false, true } do
      local how <const> = ordered and ", ordered" or ""

      it("refuses while a result is rebuilt" .. how, function ()
        local pool <close> = parallel.pool { max = 1 }
        local refused, take = {}, nil
        rawset(_G, "EACH_HOOK", function ()
          for _ = 1, 3 do refused[#refused + 1] = select(2, pcall(take)) end
        end)
        take = pool:each(parallel.range(30), rebuilt_by,
                         { chunk = 3, ordered = ordered })
        take_all(take, 30, ordered)
        assert.equal(90, #refused)
        assert.matches("^[^:]*each_spec.lua:%d+: this loop is busy",
                       refused[1])
      end)

      it("refuses in the iterator, and what encodes an item" .. how,
         function ()
        local pool <close> = parallel.pool { max = 1 }
        local refused, n, take = 0, 0, nil
        local function try ()
          if not pcall(take) then refused = refused + 1 end
        end
        local item <const> = setmetatable({}, { __transfer = function ()
          try()
          return math.type, 1
        end })
        take = pool:each(function ()
          n = n + 1
          try()
          return n <= 20 and item or nil
        end, function () return true end, { ordered = ordered, chunk = 2 })
        take_all(take, 20, ordered)
        assert.equal(41, refused)
      end)

      it("refuses in the function of 'progress'" .. how, function ()
        local pool <close> = parallel.pool { max = 1 }
        local took, refused, take = 0, 0, nil
        take = pool:each(parallel.range(200), square, {
          chunk = 7, ordered = ordered,
          progress = function ()
            if take == nil then return end
            if pcall(take) then took = took + 1
            else refused = refused + 1 end
          end,
        })
        take_all(take, 200, ordered)
        assert.is_true(refused > 0)
        assert.equal(1, took)  -- at the end, where it gives nil
      end)
    end

    it("refuses in a finalizer that runs while a record is made", function ()
      local pool <close> = parallel.pool { max = 2 }
      local seen, on, take = {}, true, nil
      local function arm ()
        setmetatable({}, { __gc = function ()
          local ok, record = pcall(take)
          if ok and record ~= nil then seen[record.index] = true end
          if on then arm() end
        end })
      end
      local mode <const> = collectgarbage("incremental", 100, 400)
      take = pool:each(parallel.range(2000), function (x)
        return { x, { x } }
      end, { chunk = 7 })
      for _ = 1, 50 do arm() end
      for record in take do
        assert.equal("completed", record.state, record.error)
        assert.is_nil(seen[record.index])
        assert.same({ record.index, { record.index } }, record.result)
        seen[record.index] = true
      end
      on = false
      collectgarbage(mode)
      collectgarbage()
      assert.equal(2000, #seen)
    end)

    it("goes on behind an error of a handler", function ()
      local pool <close> = parallel.pool { max = 1 }
      local n = 0
      local take = pool:each(function ()
        n = n + 1
        if n == 3 then error("not now", 0) end
        return n <= 5 and n or nil
      end, square, { chunk = 1 })
      local count, failed = 0, 0
      while true do
        local ok, record = pcall(take)
        if ok and record == nil then break end
        if ok then count = count + 1
        else
          assert.equal("not now", record)
          failed = failed + 1
        end
      end
      assert.equal(1, failed)
      assert.equal(4, count)
    end)
  end)
end)
