-- SPDX-License-Identifier: MIT
local parallel <const> = require "parallel"

local function work (x)
  if x % 5 == 0 then error("five", 0) end
  if x % 3 == 0 then parallel.task.error "three" end
  return { status = x % 2 == 0 and "even" or "odd" }
end

local OPTIONS <const> = { streams = { error = false }, chunk = 4 }

describe("the report of collect", function ()
  it("counts what became of the items", function ()
    local _, report = parallel.collect(parallel.range(10), work, OPTIONS)
    assert.equal(10, report.total)
    assert.equal(10, report.processed)
    assert.equal(8, report.succeeded)
    assert.equal(3, report.with_errors)
    assert.equal(2, report.failed)
    assert.equal(0, report.cancelled)
    assert.equal(0.8, report.success_rate)
    assert.equal(3, report.batches)
    assert.equal(4, report.batch_size)
    assert.is_true(report.duration > 0)
    local busy = 0
    for worker, seconds in pairs(report.busy) do
      assert.is_true(worker >= 1)
      busy = busy + seconds
    end
    assert.is_true(busy > 0)
    assert.matches("^10 items: 8 succeeded %(3 with errors%), 2 failed; 80 %% "
                   .. "in %d+%.%d%d s$", tostring(report))
  end)

  it("is defined for no items", function ()
    local records, report = parallel.collect({}, work)
    assert.equal(0, records.n)
    assert.equal(0, report.total)
    assert.equal(1, report.success_rate)
    assert.equal(0, report.batches)
    assert.same({}, report:count "state")
    assert.matches("^index", report:table())
  end)

  it("counts and groups by fields and functions", function ()
    local _, report = parallel.collect(parallel.range(10), work, OPTIONS)
    assert.same({ completed = 5, completed_with_errors = 3, failed = 2 },
                report:count "state")
    assert.same({ even = 4, odd = 4 }, report:count "result.status")
    assert.same({ error = 2, error_stream = 3 }, report:count "reason")
    assert.same({ [1] = 10 }, report:count "attempts")
    assert.same({ [true] = 2, [false] = 8 }, report:count(function (record)
      return record.state == "failed"
    end))
    local groups = report:group "state"
    assert.equal(5, groups.failed[1].index)
    assert.equal(10, groups.failed[2].index)
  end)

  it("is a table of text that fits", function ()
    local _, report = parallel.collect({ "ä", string.rep("long ", 20), 10 },
      function (x) return x end)
    assert.equal(table.concat({
      "index  what          state",
      "-----  ------------  ---------",
      "    1  ä             completed",
      "    2  long long l…  completed",
      "    3  10            completed",
    }, "\n") .. "\n", report:table({ "index", { "what", "result" }, "state" },
                                   { width = 30 }))
    for _, width in ipairs { 60, 46, 40, 20, 7, 1 } do
      for line in report:table(nil, { width = width }):gmatch "[^\n]+" do
        assert.is_true(utf8.len(line) <= width)
      end
    end
  end)

  it("is aligned by the columns of the terminal", function ()
    local _, report = parallel.collect(
      { "日本語", "e\u{301}e", "ab", "😀한글", "x\u{200d}y" },
      function (x) return x end)
    local columns <const> = { { "what", "result" }, "state" }
    assert.equal(table.concat({
      "what    state",
      "------  ---------",
      "日本語  completed",
      "e\u{301}e      completed",
      "ab      completed",
      "😀한글  completed",
      "x\u{200d}y      completed",
    }, "\n") .. "\n", report:table(columns))
    assert.equal(table.concat({
      "what   state",
      "-----  -----",
      "日本…  comp…",
      "e\u{301}e     comp…",
      "ab     comp…",
      "😀한…  comp…",
      "x\u{200d}y     comp…",
    }, "\n") .. "\n", report:table(columns, { width = 12 }))
    assert.equal("w\n----\n日…\ne\u{301}e\nab\n😀…\nx\u{200d}y\n",
                 report:table({ { "w", "result" } }, { width = 4 }))
  end)

  it("has nothing in its table that a terminal would obey", function ()
    local _, report = parallel.collect({ "a\27[2J", "b\u{9b}2J", "\xffc" },
      function (x) return x end)
    assert.equal(table.concat({
      "what\\nnow",
      "---------",
      "a\\x1B[2J",
      "b\\u{9B}2J",
      "\\xFFc",
    }, "\n") .. "\n", report:table { { "what\nnow", "result" } })
  end)

  it("tells the part that succeeded as it is", function ()
    local _, report = parallel.collect(parallel.range(100), function (i)
      if i > 29 then error "x" end
    end)
    assert.matches("; 29 %% in ", tostring(report))
  end)

  it("reads all results and the streams too", function ()
    local _, report = parallel.collect({ 1, 2 }, function (x)
      if x == 2 then parallel.task.verbose "even" end
      return x, x
    end, { chunk = 2.0 })
    assert.same({ [2] = 2 }, report:count "results.n")
    assert.equal(2, report:group(function (record)
      return record.streams ~= nil
    end)[true][1].index)
    assert.equal(1, #report:group "streams.all"
                 [report.records[2].streams.all])
    assert.equal("integer", math.type(report.batch_size))
  end)

  it("refuses fields that are none", function ()
    local _, report = parallel.collect({ 1 }, tostring)
    for _, row in ipairs {
      { function () report:count "stat" end, "did you mean 'state'" },
      { function () report:count() end, "bad argument 'key' to 'count'" },
      { function () report:group {} end, "bad argument 'key' to 'group'" },
      { function () report:table "state" end, "bad argument 'columns'" },
      { function () report:table({ "x" }) end, "unknown field 'x'" },
      { function () report:table {} end, "bad argument 'columns'" },
      { function () report:table(nil, { width = 0 }) end, "'width'" },
      { function () report:table(nil, { with = 10 }) end,
        "did you mean 'width'" },
      { function () report.count("state") end, "bad call of 'count'" },
    } do
      assert.error_matches(row[1], row[2])
    end
  end)
end)

describe("parallel.table", function ()
  local function lines (...) return table.concat({ ... }, "\n") .. "\n" end

  it("shows rows of the script's own, with sorted columns", function ()
    assert.equal(lines(
      " bytes  elapsed  name  zeta",
      "------  -------  ----  ----",
      "123 MB   6.5 µs  a",
      "                 bb       1"
    ), parallel.table { { name = "a", bytes = 123456789, elapsed = 6.5e-6 },
                        { zeta = 1, name = "bb" } })
    assert.equal(lines("1  2", "-  -", "1  2", "3  4"),
                 parallel.table { { 1, 2 }, { 3, 4 } })
  end)

  it("shows records and jobs by their most common fields", function ()
    local records = {}
    for record in parallel.each({ 1, 2 }, "return ...", { ordered = true }) do
      records[#records + 1] = record
    end
    assert.matches("^index  input  state      result  error +duration  "
                   .. "worker\n", parallel.table(records))
    local job <const> = parallel.submit { "return 1", name = "one" }
    job:wait()
    assert.matches("^id  name  state      reason +queued +duration  worker\n",
                   parallel.table { job })
    assert.equal(lines("what  state", "----  ---------", "one   completed"),
                 parallel.table({ job }, { { "what", "name" }, "state" }))
  end)

  it("writes durations and sizes as people read them", function ()
    local rows <const> = {}
    for i, seconds in ipairs { 0, 3e-9, 9.996e-7, 6.54e-6, 0.0123, 1.239,
                               59.9, 59.96, 125, 3725, 1 / 0 } do
      rows[i] = { duration = seconds }
    end
    assert.equal(lines("duration", "--------", "     0 s", "    3 ns",
                       "    1 µs", " 6.54 µs", " 12.3 ms", "  1.24 s",
                       "  59.9 s", "    1:00", "    2:05", " 1:02:05",
                       "   inf s"),
                 parallel.table(rows))
    for i, bytes in ipairs { 0, 999, 999.6, 1024, 12e6, 5e9, 2e15 } do
      rows[i] = { n = bytes }
    end
    assert.equal(lines("   size", "-------", "    0 B", "  999 B", "   1 kB",
                       "1.02 kB", "  12 MB", "   5 GB", "2000 TB"),
                 parallel.table({ table.unpack(rows, 1, 7) },
                                { { "size", "n", "bytes" } }))
  end)

  it("has its full width where there is no terminal", function ()
    local long <const> = ("x"):rep(300)
    assert.equal(lines("a", ("-"):rep(300), long),
                 parallel.table { { a = long } })
    assert.equal(lines("a", "----", "xxx…"),
                 parallel.table({ { a = long } }, nil, { width = 4 }))
  end)

  it("refuses what it cannot show", function ()
    for _, row in ipairs {
      { { 42 }, "'rows' to 'table' %(an array of rows expected, got 42" },
      { { { {}, 1 } }, "an array of tables or jobs expected, got 1 at index 2"
      },
      { { { { name = 1 } }, { "nam" } },
        "unknown field 'nam' of rows to 'table' %(did you mean 'name'" },
      { { { { a = 1 } }, { "b" } }, "unknown field 'b' .*no row has it" },
      { { { { a = 1 } }, { { "x", "a", "hours" } } },
        "bad unit of the column 'x' .*got 'hours'" },
      { { { {} }, nil, { width = "x" } }, "bad option 'width'" },
    } do
      assert.error_matches(function ()
        parallel.table(table.unpack(row[1], 1, 3))
      end, row[2])
    end
  end)
end)

describe("compare", function ()
  local function square (x) return x * x end

  it("times each way and names the fastest", function ()
    local result = parallel.compare { fn = square, items = { 1, 2, 3 } }
    local words, least = {}, math.huge
    for i, row in ipairs(result) do
      words[i] = row.isolation
      least = math.min(least, row.seconds)
      assert.is_true(row.seconds >= 0)
    end
    assert.same({ "none", "runspace", "job", "fresh" }, words)
    assert.equal(least, result.fastest.seconds)
    assert.matches("fastest: " .. result.fastest.isolation,
                   tostring(result), 1, true)
    assert.is_nil(tostring(result):find("0.00 ", 1, true), tostring(result))
    assert.is_nil(tostring(result):find("0.000 ", 1, true))
  end)

  it("takes some ways, repeats and source", function ()
    local result = parallel.compare {
      fn = "return ...", items = { 1 },
      isolation = { "job", "none", "process" }, repeats = 2, limit = 1,
    }
    assert.equal("job", result[1].isolation)
    assert.equal("none", result[2].isolation)
    assert.equal("process", result[3].isolation)
    assert.equal(1, result[2].speed_up)
    assert.is_number(result[3].speed_up)
  end)

  it("runs in other processes where that is asked for", function ()
    local me <const> = io.open "/proc/self/stat":read "n"
    local function look (other)
      assert((io.open "/proc/self/stat":read "n" ~= me) == other)
    end
    parallel.compare { fn = look, items = { true }, limit = 1,
                       isolation = { "process" } }
    parallel.compare { fn = look, items = { false }, limit = 1,
                       isolation = { "none", "runspace", "job", "fresh" } }
  end)

  it("refuses ways that it does not know", function ()
    for _, row in ipairs {
      { { fn = square, items = {}, isolation = { "thread" } },
        "none, runspace, job, fresh, process, host expected, got the way "
        .. "'thread'" },
      { { fn = square, items = {}, isolation = { "host" } },
        "'isolation' to 'compare' %(the way 'host' needs hosts" },
      { { fn = square, items = {}, isolation = { "none" }, hosts = { "a" } },
        "'hosts' to 'compare' %(it is of the way 'host'" },
      { { fn = square, items = {}, ssh = { "ssh" } },
        "'ssh' to 'compare' %(.*give hosts, too" },
      { { fn = square, items = {}, hosts = {} },
        "'hosts' to 'compare' %(an array of names of hosts" },
      { { fn = square, items = {}, isolation = "none" }, "'isolation'" },
      { { fn = square, items = { a = 1 }, isolation = { "none" } },
        "bad argument 'items' to 'compare'" },
      { { fn = square, items = { n = -1 } }, "to 'compare'" },
      { { fn = square, items = {}, limit = 70000 },
        "bad option 'limit' to 'compare'" },
      { { items = {} }, "bad argument 'fn' to 'compare'" },
      { { fn = square }, "bad option 'items' to 'compare'" },
      { { fn = square, items = {}, repeat_ = 1 }, "did you mean 'repeats'" },
      { 5, "bad argument 'options' to 'compare'" },
    } do
      assert.error_matches(function () parallel.compare(row[1]) end, row[2])
    end
  end)
end)

describe("stats", function ()
  it("have the CPUs' busy part at each call but the first", function ()
    parallel.stats()
    local before <const> = os.clock()
    while os.clock() - before < 0.05 do end
    for _ = 1, 5 do
      local part <const> = parallel.stats().machine.cpu
      assert.is_true(part >= 0 and part <= 1)
    end
  end)

  it("tell of the pools and the machine", function ()
    local pool <close> = parallel.pool { max = 2 }
    pool:map(parallel.range(10), function (x) return x end)
    pool:spawn(function () error "x" end):wait()
    local stats = parallel.stats()
    local mine
    for _, info in ipairs(stats.pools) do
      if info.done.completed == 10 and info.done.failed == 1 then
        mine = info
      end
    end
    assert.equal(2, mine.max)
    assert.is_true(mine.bytes > 1000)
    assert.is_true(stats.workers >= mine.workers)
    assert.is_true(stats.done.completed >= 10)
    local machine <const> = stats.machine
    assert.equal(parallel.cpus(), machine.cpus)
    assert.is_true(machine.memory.available <= machine.memory.total)
    assert.equal(3, #machine.load)
    assert.is_true(machine.processes > 0)
  end)

  it("do not count a pool that did not open", function ()
    local before <const> = #parallel.stats().pools
    collectgarbage "stop"
    local ok <const> = pcall(parallel.pool, { init = "error 'own'" })
    local seen <const>, stats = pcall(parallel.stats)
    collectgarbage "restart"
    assert.is_false(ok)
    assert.is_true(seen, stats)
    assert.equal(before, #stats.pools)
  end)

  it("do not count a pool that is closed", function ()
    local pool = parallel.pool { max = 1 }
    local before <const> = #parallel.stats().pools
    pool:close()
    assert.equal(before - 1, #parallel.stats().pools)
  end)
end)
