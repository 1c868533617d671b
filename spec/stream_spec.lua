-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"
local tree <const> = require "support.tree"

--- The field 'name' of each record.
local function column (records, name)
  local values = {}
  for i, record in ipairs(records) do values[i] = record[name] end
  return values
end

local SILENT <const> = { warning = false, error = false }

describe("a job's streams", function ()
  it("hold what it sent, each by its own name, and all in one order",
     function ()
    local job = parallel.submit { function ()
      local task = parallel.task
      task.output(1, nil, 3)
      task.error { code = 7 }
      task.warning "w"
      task.verbose "v"
      task.debug "d"
      task.information "i"
      task.progress { activity = "copy", status = "disk", percent = 40 }
      task.warning "again"
      return "result"
    end, streams = SILENT }
    assert.equal("result", job:get())
    local streams <const> = job.streams
    assert.same({ "output", "error", "warning", "verbose", "debug",
                  "information", "progress", "warning" },
                column(streams.all, "stream"))
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8 }, column(streams.all, "sequence"))
    assert.same({ 1, nil, 3, n = 3 }, streams.output[1].values)
    assert.same({ code = 7 }, streams.error[1].value)
    assert.same({ "w", "again" }, column(streams.warning, "message"))
    assert.same({ "v" }, column(streams.verbose, "value"))
    assert.same({ "d" }, column(streams.debug, "value"))
    assert.same({ "i" }, column(streams.information, "value"))
    assert.equal("copy: disk 40 %", streams.progress[1].message)
    assert.same({}, streams.dropped)
    for _, record in ipairs(streams.all) do
      assert.is_true(record.time >= job.started
                     and record.time <= job.finished)
    end
  end)

  it("make it completed_with_errors, which keeps its results", function ()
    local job = parallel.submit { function ()
      parallel.task.error "first"
      parallel.task.error "second"
      return 1, 2
    end, streams = SILENT }
    assert.same({ 1, 2 }, { job:get() })
    assert.equal("completed_with_errors", job.state)
    assert.equal("error_stream", job.reason)
    assert.equal("first", job.error)
  end)

  it("leave a failure a failure", function ()
    local job = parallel.submit { function ()
      parallel.task.error "first"
      error("raised", 0)
    end, streams = SILENT }
    assert.equal("failed", job:wait())
    assert.equal("raised", job.error)
    assert.equal("error", job.reason)
    assert.equal(1, #job.streams.error)
  end)

  it("can be read while it runs", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job = pool:spawn(function ()
      parallel.task.verbose "before"
      pass()
      parallel.task.verbose "behind"
    end)
    gate:await(1)
    assert.same({ "before" }, column(job.streams.verbose, "value"))
    assert.equal("running", job.state)
    gate:open()
    job:wait()
    assert.same({ "before", "behind" }, column(job.streams.verbose, "value"))
  end)

  it("are followed by records() until it ends", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local pass <const> = gate.pass
    local job = pool:spawn(function ()
      parallel.task.verbose(1)
      pass()
      for i = 2, 500 do parallel.task.debug(i) end
    end)
    local n = 0
    for record in job:records() do
      n = n + 1
      assert.equal(n, record.value)
      assert.equal(n, record.sequence)
      if n == 1 then gate:open() end
    end
    assert.equal(500, n)
    assert.equal("completed", job.state)
  end)

  it("keep the newest records within their bound, and count the others",
     function ()
    local job = parallel.spawn(function ()
      for i = 1, 25000 do parallel.task.verbose(i) end
      parallel.task.warning(string.rep("x", 100))
    end)
    job:on("warning", function () end)
    job:wait()
    local streams <const> = job.streams
    assert.equal(10000, #streams.all)
    assert.equal(15001, streams.dropped.verbose)
    assert.equal(15002, streams.verbose[1].value)
    assert.equal(25000, streams.verbose[#streams.verbose].value)
  end)

  it("are bounded in bytes too", function ()
    local job = parallel.spawn(function ()
      for _ = 1, 100 do parallel.task.verbose(string.rep("x", 100000)) end
      parallel.task.debug(string.rep("y", 5 << 20))
    end)
    job:wait()
    local streams <const> = job.streams
    assert.is_true(#streams.verbose < 42 and #streams.verbose > 38)
    assert.equal(100, #streams.verbose + streams.dropped.verbose)
    assert.equal(1, streams.dropped.debug)
  end)

  it("take what is printed, as whole lines", function ()
    local job = parallel.spawn(function ()
      local out = io.stdout
      local mute = { io.write("") == out, out:write("") == out }
      return mute
    end)
    assert.same({ true, true }, job:get())
    local text = run [[
      local job = parallel.spawn(function ()
        print("a", nil, 2.0)
        io.write("one ", 2, " ", 2.5, " ", 1.0, "\ntw")
        io.stdout:write("o"):write("\n")
        io.stderr:write("fault\n")
        io.write "no newline"
      end)
      job:wait()
      for _, r in ipairs(job.streams.information) do
        io.write("[", r.source, ":", r.message, "]\n")
      end
    ]]
    assert.equal("a\tnil\t2.0\none 2 2.5 1\ntwo\nfault\nno newline\n"
                 .. "[stdout:a\tnil\t2.0]\n[stdout:one 2 2.5 1]\n"
                 .. "[stdout:two]\n[stderr:fault]\n[stdout:no newline]\n",
                 text)
  end)

  it("leave writing to other files as it was", function ()
    local path <const> = os.tmpname()
    local job = parallel.spawn(function (name)
      local file <close> = io.open(name, "w")
      file:write("x", 1, "\n")
      io.output(file)
      io.write("y\n")
      io.output(io.stdout)
    end, path)
    job:get()
    local file <close> = io.open(path)
    assert.equal("x1\ny\n", file:read "a")
    assert.equal(0, #job.streams.all)
    os.remove(path)
    assert.has_error(function ()
      parallel.run(function () io.write({}) end)
    end)
  end)

  it("tell who prints a line that it could not be written", function ()
    local path <const> = os.tmpname()
    do
      local file <close> = assert(io.open(path, "w"))
      file:write [[
        io.stderr:write(parallel.run(function ()
          local texts = {}
          for _, result in ipairs { table.pack(io.write("a line\n")),
                                    table.pack(io.stdout:write("b\n")),
                                    table.pack(io.stderr:write("")) } do
            texts[#texts + 1] = tostring(result[1] and true) .. " "
                                .. tostring(result[2])
          end
          print "is silent, as ever"
          return table.concat(texts, "; ")
        end))]]
    end
    local pipe <close> = assert(io.popen(tree.runspace .. " " .. path
                                         .. " 2>&1 >/dev/full"))
    assert.equal("nil No space left on device; nil No space left on device; "
                 .. "true nil", pipe:read "a")
    os.remove(path)
  end)

  it("reach the terminal untorn", function ()
    local text = run [[
      parallel.map(parallel.range(4), function (x)
        for i = 1, 2000 do
          io.write("line ", x, " ")
          io.write(string.rep(tostring(x), 30), "\n")
        end
      end, {chunk = 1})
    ]]
    local n = 0
    for line in text:gmatch "[^\n]+" do
      n = n + 1
      local x <const> = line:match "^line (%d) "
      assert.equal("line " .. x .. " " .. x:rep(30), line)
    end
    assert.equal(8000, n)
  end)

  it("lose nothing of 1,000 jobs with 100 records each", function ()
    local pool <close> = parallel.pool { max = 2 }
    local function work (id)
      for i = 1, 100 do parallel.task.verbose(id * 1000 + i) end
    end
    local jobs, seen = {}, {}
    for id = 1, 1000 do
      seen[id] = 0
      jobs[id] = pool:submit { work, arguments = { id }, streams = {
        verbose = function (record)
          seen[id] = seen[id] + 1
          assert(record.value == id * 1000 + seen[id])
          assert(record.sequence == seen[id])
        end,
      } }
    end
    local done, pending = parallel.wait(jobs)
    assert.equal(1000, #done)
    assert.equal(0, #pending)
    for id = 1, 1000 do assert.equal(100, seen[id]) end
  end)
end)

describe("the option streams", function ()
  local SCRIPT <const> = [[
    local job = parallel.submit{function ()
      parallel.task.warning "w"
      parallel.task.error "e"
      parallel.task.verbose "v"
      parallel.task.output(5)
    end, name = "talker", streams = %s}
    job:wait()
  ]]

  it("shows warnings and errors unless told otherwise", function ()
    assert.equal("WARNING: talker: w\nERROR: talker: e\n",
                 (run(SCRIPT:format "nil")))
  end)

  it("shows them of jobs without options, too", function ()
    local text = run [[
      local function talk (text) parallel.task.warning(text) end
      local pool <close> = parallel.pool{max = 1}
      parallel.spawn(talk, "a"):wait()
      parallel.run(talk, "b")
      pool:spawn(talk, "c"):wait()
      pool:run(talk, "d")
    ]]
    assert.equal("WARNING: job: a\nWARNING: job: b\nWARNING: job: c\n"
                 .. "WARNING: job: d\n", (text:gsub("job%-%d+", "job")))
  end)

  it("tells of a function that raises by the name of its stream", function ()
    local text <const> = run [[
      local results = parallel.map({ 1, 2 }, function (x)
        parallel.task.warning "w"
        return x
      end, { streams = { warning = function () error("mine", 0) end } })
      print(#results)
    ]]
    assert.equal(("parallel: a handler of 'warning' raised: mine\n"):rep(2)
                 .. "2\n", text)
  end)

  it("shows what it is asked for", function ()
    assert.equal("VERBOSE: talker: v\nOUTPUT: talker: 5\n",
                 (run(SCRIPT:format("{warning = false, error = false, "
                                    .. "verbose = true, output = true}"))))
  end)

  it("hands records to functions, in a map too", function ()
    local got = {}
    parallel.map({ 10, 20 }, function (x)
      parallel.task.information(x + 1)
    end, { streams = {
      information = function (record)
        got[record.index] = record.value
      end,
    } })
    assert.same({ 11, 21 }, got)
  end)

  it("may be a pool's, for all its calls that have none", function ()
    local got = {}
    local pool <close> = parallel.pool { max = 1, streams = {
      verbose = function (record) got[#got + 1] = record.value end,
    } }
    local function talk (x) parallel.task.verbose(x) end
    pool:spawn(talk, 1):wait()
    pool:submit { talk, arguments = { 2 } }:wait()
    pool:map({ 3 }, talk)
    pool:collect({ 4 }, talk)
    for _ in pool:each({ 5 }, talk) do end
    pool:invoke(talk, { a = { 6 } })
    pool:map({ 7 }, talk, { streams = {} })
    assert.same({ 1, 2, 3, 4, 5, 6 }, got)
    assert.error_matches(function ()
      parallel.pool { streams = { loud = true } }
    end, "the name 'loud'")
  end)

  it("refuses unknown streams and what is no way to show one", function ()
    assert.error_matches(function ()
      parallel.map({ 1 }, print, { streams = { warnings = true } })
    end, "the name 'warnings'; did you mean 'warning'")
    assert.error_matches(function ()
      parallel.submit { print, streams = { debug = 1 } }
    end, "true, false or a function for the stream 'debug'")
    assert.error_matches(function ()
      parallel.each({ 1 }, print, { streams = true })
    end, "a table of streams expected, got true")
  end)
end)

describe("a record of collect", function ()
  it("has what its item sent, and no other", function ()
    local records, report = parallel.collect({ 1, 2, 3 }, function (x)
      if x == 2 then return "quiet" end
      parallel.task.verbose("item " .. x)
      if x == 3 then parallel.task.error "faulty" end
      return x
    end, { chunk = 3, streams = SILENT })
    assert.equal("item 1", records[1].streams.verbose[1].value)
    assert.equal(1, #records[1].streams.all)
    assert.is_nil(records[2].streams)
    assert.equal("completed_with_errors", records[3].state)
    assert.equal("faulty", records[3].error)
    assert.equal(3, records[3].result)
    assert.same({ "item 3", "faulty" },
                column(records[3].streams.all, "value"))
    assert.equal(3, report.succeeded)
    assert.equal(1, report.with_errors)
  end)

  it("is no failure for on_error", function ()
    local records = parallel.collect({ 1, 2, 3 }, function ()
      parallel.task.error "soft"
    end, { on_error = "stop", streams = SILENT })
    for i = 1, 3 do
      assert.equal("completed_with_errors", records[i].state)
    end
    assert.same({ 1, 2, n = 2 }, parallel.map({ 1, 2 }, function (x)
      parallel.task.error "soft"
      return x
    end, { streams = SILENT }))
  end)
end)

describe("parallel.task", function ()
  it("refuses what it cannot send, in the job", function ()
    for _, row in ipairs {
      { "parallel.task.output(coroutine.create(print))", "output: .*thread" },
      { "parallel.task.warning()", "value expected" },
      { "parallel.task.progress{status = 1}", "bad field 'status'" },
      { "parallel.task.progress{percents = 1}", "unknown field 'percents'" },
      { "parallel.task.progress(5)", "table expected" },
      { "parallel.task.emit()", "string expected" },
      { "parallel.task.emit''", "a name expected" },
      { "parallel.task.emit('failed')", "'failed' is the module's own" },
      { "parallel.task.emit('warning')", "'warning' is the module's own" },
    } do
      assert.error_matches(function () parallel.run(row[1]) end, row[2])
    end
  end)

  it("says so outside a job", function ()
    assert.error_matches(function () parallel.task.warning "w" end,
                         "no job here")
    assert.error_matches(function () parallel.task.emit "e" end,
                         "no job here")
  end)
end)
