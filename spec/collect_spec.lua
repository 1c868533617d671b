-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local notes <const> = require "support.notes"
local parallel <const> = require "parallel"

describe("collect", function ()
  it("gives a record of each item, in the order of the items", function ()
    local records = parallel.collect({ "a", "b" }, function (x)
      return x .. x, #x
    end)
    assert.equal(2, records.n)
    for i, text in ipairs { "a", "b" } do
      local record <const> = records[i]
      assert.equal(i, record.index)
      assert.equal(text, record.input)
      assert.equal("completed", record.state)
      assert.equal(text .. text, record.result)
      assert.same({ text .. text, 1, n = 2 }, record.results)
      assert.is_nil(record.error)
      assert.is_true(record.queued >= 0)
      assert.is_true(record.duration >= 0)
      assert.is_true(record.worker >= 1)
    end
  end)

  it("keeps all results, nil included", function ()
    local records = parallel.collect({ 1, 2, 3 }, function (x)
      if x == 1 then return nil, nil end
      if x == 2 then return nil, "second", nil end
    end)
    assert.same({ n = 2 }, records[1].results)
    assert.same({ nil, "second", nil, n = 3 }, records[2].results)
    assert.same({ n = 0 }, records[3].results)
    assert.is_nil(records[2].result)
  end)

  it("never raises for an item", function ()
    local records, report = parallel.collect({ 1, 0, {}, 4 }, function (x)
      if x == 0 then error({ code = 7 }) end
      return x * 2
    end)
    assert.equal("completed", records[1].state)
    assert.equal("failed", records[2].state)
    assert.same({ code = 7 }, records[2].error)
    assert.matches("stack traceback:", records[2].traceback)
    assert.equal(0, records[2].input)
    assert.equal("failed", records[3].state)
    assert.matches("arithmetic", records[3].error)
    assert.equal(8, records[4].result)
    assert.equal(2, report.failed)
    assert.equal(2, report.succeeded)
  end)

  it("reports totals and the time taken", function ()
    local _, report = parallel.collect(parallel.range(10), function (x)
      if x > 7 then error("high") end
    end)
    assert.equal(10, report.total)
    assert.equal(10, report.processed)
    assert.equal(7, report.succeeded)
    assert.equal(3, report.failed)
    assert.is_true(report.duration > 0)
  end)

  it("reports nothing for no items", function ()
    local records, report = parallel.collect({}, function () end)
    assert.same({ n = 0 }, records)
    assert.equal(0, report.total)
    assert.equal(0, report.processed)
  end)

  it("measures the time of an item apart from its time in the queue",
     function ()
    local pool <close> = parallel.pool { max = 1 }
    -- The host may be slow to send the third item: then it waits less long.
    assert.is_true(gates.eventually(function ()
      local records = pool:collect({ 1, 2, 3 }, function ()
        local late <const> = parallel.now() + 0.02
        while parallel.now() < late do end
      end, { chunk = 1 })
      assert.is_true(records[3].duration >= 0.02)
      return records[3].queued >= 0.015
             and records[1].queued < records[3].queued
    end))
  end)

  it("takes iterators, and keeps their first values as inputs", function ()
    local records = parallel.collect(("k=1,l=2"):gmatch("(%a)=(%d)"),
                                     function (key, value)
      return key .. value
    end)
    assert.equal(2, records.n)
    assert.equal("l", records[2].input)
    assert.equal("l2", records[2].result)
  end)

  it("gives the inputs of ranges and of holes", function ()
    local records = parallel.collect(parallel.range(10, 30, 10), "return ...")
    assert.equal(30, records[3].input)
    records = parallel.collect({ nil, 2, n = 2 }, "return ...")
    assert.is_nil(records[1].input)
    assert.equal(2, records[2].input)
  end)

  it("starts nothing more after a failure with on_error = 'stop'",
     function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool <close> = parallel.pool { max = 1 }
    local records, report = pool:collect(parallel.range(50), function (i)
      write(i)
      if i == 3 then error("three") end
      return i
    end, { chunk = 1, on_error = "stop" })
    assert.same({ "1", "2", "3" }, note:lines())
    assert.equal(50, records.n)
    assert.equal("completed", records[2].state)
    assert.equal("failed", records[3].state)
    for i = 4, 50 do
      assert.equal("cancelled", records[i].state)
      assert.equal(i, records[i].input)
      assert.equal(i, records[i].index)
    end
    assert.equal(50, report.total)
    assert.equal(3, report.processed)
    assert.equal(1, report.failed)
  end)

  it("ends an endless iterator with on_error = 'stop'", function ()
    local count = 0
    local records = parallel.collect(function ()
      count = count + 1
      return count
    end, function (x) if x == 10 then error("ten") end end,
      { on_error = "stop" })
    assert.equal("failed", records[10].state)
    assert.equal(records.n, #records)
  end)

  it("is a method of pools", function ()
    local pool <close> = parallel.pool { max = 2 }
    local records = pool:collect({ 1 }, "return ... + 1")
    assert.equal(2, records[1].result)
  end)
end)
