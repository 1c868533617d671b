-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

describe("parallel.on", function ()
  --- Register for one test.
  local registered = {}
  local function on (name, fn)
    registered[#registered + 1] = { name, fn }
    return parallel.on(name, fn)
  end
  after_each(function ()
    for _, pair in ipairs(registered) do parallel.off(pair[1], pair[2]) end
    registered = {}
  end)

  it("hears what jobs emit, in order, with the job", function ()
    local events = {}
    on("done", function (event) events[#events + 1] = event end)
    local before <const> = parallel.now()
    local job = parallel.submit { function ()
      for i = 1, 50 do parallel.task.emit("done", i, "x") end
    end, name = "emitter" }
    job:wait()
    assert.equal(50, #events)
    for i, event in ipairs(events) do
      assert.equal("done", event.name)
      assert.equal(i, event.data)
      assert.same({ i, "x", n = 2 }, event.values)
      assert.equal(job, event.job)
      assert.equal("emitter", event.job_name)
      assert.is_true(event.time >= before and event.time <= parallel.now())
    end
  end)

  it("hears no start and no end of the items of a map", function ()
    local heard = {}
    local function note (event) heard[#heard + 1] = event.name end
    for _, name in ipairs { "started", "completed", "failed", "finished",
                            "x" } do
      on(name, note)
    end
    parallel.collect({ 1, 2 }, function (x)
      parallel.task.emit "x"
      if x == 2 then error "two" end
    end, { chunk = 1 })
    assert.same({ "x", "x" }, heard)
  end)

  it("hears the items of a map, by their index", function ()
    local got = {}
    on("half", function (event) got[event.index] = event.data end)
    parallel.map({ 2, 4, 6 }, function (x)
      parallel.task.emit("half", x // 2)
    end)
    assert.same({ 1, 2, 3 }, got)
  end)

  it("hears of the end of every job", function ()
    local ended = {}
    on("finished", function (event)
      ended[event.job_name] = event.job.state
    end)
    local failed = {}
    on("failed", function (event) failed[#failed + 1] = event.job_name end)
    parallel.submit { function () end, name = "good" }:wait()
    parallel.submit { function () error "x" end, name = "bad" }:wait()
    assert.same({ good = "completed", bad = "failed" }, ended)
    assert.same({ "bad" }, failed)
  end)

  it("lets handlers start jobs, wait, and remove their job", function ()
    local log = {}
    on("next", function (event)
      local sum = parallel.spawn(function (a) return a + 1 end, event.data)
      log[#log + 1] = sum:get()
      event.job:remove()
    end)
    parallel.spawn(function () parallel.task.emit("next", 1) end):wait()
    assert.same({ 2 }, log)
  end)

  it("goes on with the others when a handler raises, and reports it",
     function ()
    local text = run [[
      parallel.on("x", function () error("first", 0) end)
      parallel.on("x", function () print "second" end)
      parallel.spawn(function () parallel.task.emit "x" end):wait()
    ]]
    assert.equal("parallel: a handler of 'x' raised: first\nsecond\n", text)
  end)

  it("goes on when a handler raises behind one that caught an interrupt",
     function ()
    local text = run [[
      local pid <const> = io.open("/proc/self/stat"):read "n"
      parallel.on("x", function ()
        local ok, problem = pcall(function ()
          io.popen("kill -INT " .. pid):close()
          while true do end
        end)
        print(ok, problem)
      end)
      parallel.on("x", function () error("second", 0) end)
      print(parallel.run(function () parallel.task.emit "x" return 5 end))
    ]]
    assert.matches("^false\t[^\n]*interrupted!\n"
                   .. "parallel: a handler of 'x' raised: second\n5\n$", text)
  end)

  it("shows what a handler raised as other errors are shown", function ()
    local text = run [[
      parallel.on("x", function () error { code = 4 } end)
      parallel.on("x", function () error { code = 4, message = "no" } end)
      parallel.on("x", function () error() end)
      parallel.spawn(function () parallel.task.emit "x" end):wait()
    ]]
    local begin <const> = "parallel: a handler of 'x' raised: "
    assert.matches(begin .. "%(error value: {code = 4}%)\n", text)
    assert.matches(begin .. "no {[^\n]*code = 4", text)
    assert.matches(begin .. "%(error value: nil%)\n", text)
  end)

  it("stops hearing with off", function ()
    local n = 0
    local function count () n = n + 1 end
    on("x", count)
    local function emit () parallel.task.emit "x" end
    parallel.run(emit)
    assert.equal(1, parallel.off("x", count))
    parallel.run(emit)
    assert.equal(1, n)
    assert.equal(0, parallel.off("x"))
  end)

  it("is heard once with once", function ()
    local seen <const> = {}
    local function note (event) seen[#seen + 1] = event.data end
    local function emit ()
      for i = 1, 3 do parallel.task.emit("x", i) end
    end
    assert.equal(note, parallel.once("x", note))
    parallel.run(emit)
    parallel.run(emit)
    assert.same({ 1 }, seen)
    assert.equal(0, parallel.off("x"))
    parallel.once("x", note)
    assert.equal(1, parallel.off("x", note))
    parallel.run(emit)
    assert.same({ 1 }, seen)
  end)

  it("is heard once of a job, also of what was before", function ()
    local pool <close> = parallel.pool { max = 1 }
    local seen <const> = {}
    local function note (event)
      seen[#seen + 1] = event.name .. (event.data or "")
    end
    local job <const> = pool:submit { function ()
      for i = 1, 3 do parallel.task.verbose(i) end
    end }
    assert.equal(job, job:once("verbose", note))
    job:once("finished", note)
    job:once("completed", note):off("completed", note)
    job:wait()
    parallel.poll()
    assert.same({ "verbose1", "finished" }, seen)
    job:once("verbose", note):once("finished", note)
    parallel.poll()
    assert.same({ "verbose1", "finished", "verbose1", "finished" }, seen)
  end)

  it("refuses names and handlers that are none", function ()
    assert.error_matches(function () parallel.on(1, print) end,
                         "bad argument 'event' to 'on'")
    assert.error_matches(function () parallel.on("x", "y") end,
                         "bad argument 'handler' to 'on' %(a function")
    assert.error_matches(function () parallel.off(nil) end,
                         "bad argument 'event' to 'off'")
    assert.error_matches(function () parallel.poll(-1) end,
                         "bad argument 'timeout' to 'poll'")
    assert.error_matches(function () parallel.poll "x" end,
                         "bad argument 'timeout' to 'poll'")
  end)

  it("lets a job wait that emits faster than its host listens", function ()
    local n = 0
    on("flood", function (event)
      n = n + 1
      assert(event.data == n)
    end)
    local pool <close> = parallel.pool { max = 1 }
    local job = pool:spawn(function ()
      for i = 1, 5000 do parallel.task.emit("flood", i) end
    end)
    job:wait()
    assert.equal(5000, n)
  end)

  it("does not keep a pool from closing that floods nobody", function ()
    local pool = parallel.pool { max = 1 }
    local job = pool:spawn(function ()
      for i = 1, 5000 do parallel.task.emit("flood", i) end
    end)
    assert.is_true(pool:close())
    assert.equal("completed", job.state)
  end)

  it("does not keep a host from ending", function ()
    local text, status = run [[
      parallel.spawn(function ()
        for i = 1, 5000 do parallel.task.emit("flood", i) end
      end)
    ]]
    assert.equal("", text)
    assert.equal(0, status)
    text, status = run [[
      local job = parallel.spawn(function ()
        for i = 1, 1e9 do parallel.task.emit("flood", i) end
      end)
      while job.state ~= "running" do end
      os.exit(true)
    ]]
    assert.equal("parallel: the script ended early: 1 job stopped\n", text)
    assert.equal(0, status)
  end)
end)

describe("job:on", function ()
  it("hears when the files of the module were required again", function ()
    local text <const> = run [[
      parallel.spawn "return 1":on("finished", print):wait()
      local items <const> = parallel.range(3)
      for name in pairs(package.loaded) do
        if name:match "^parallel%." then package.loaded[name] = nil end
      end
      local again <const> = require "parallel.init"
      local heard = 0
      local function hear () heard = heard + 1 end
      again.on("finished", hear)
      again.spawn "return 1":on("finished", hear):wait()
      local pool <close> = again.pool { max = 1 }
      print(heard, again.map(items, "return ...").n,
            #pool:collect(again.range(4), "return ..."))
    ]]
    assert.matches("\n2\t3\t4\n$", text)
  end)

  it("tells the start, the records and the end, in order", function ()
    local log = {}
    local function note (event) log[#log + 1] = event.name end
    local job = parallel.submit { function ()
      parallel.task.verbose "v"
      parallel.task.emit "custom"
      parallel.task.debug "d"
    end }
    for _, name in ipairs { "finished", "completed", "failed", "started",
                            "verbose", "debug", "event" } do
      assert.equal(job, job:on(name, note))
    end
    job:wait()
    assert.same({ "started", "verbose", "custom", "debug", "completed",
                  "finished" }, log)
  end)

  it("tells a handler that comes late what was kept", function ()
    local job = parallel.spawn(function ()
      parallel.task.verbose(1)
      parallel.task.verbose(2)
    end)
    job:wait()
    local log = {}
    job:on("verbose", function (event) log[#log + 1] = event.data end)
    job:on("finished", function (event) log[#log + 1] = event.name end)
    parallel.poll()
    assert.same({ 1, 2, "finished" }, log)
  end)

  it("forgets with off", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local n = 0
    local function count () n = n + 1 end
    local job = pool:spawn(gate.pass)
    job:on("finished", count):on("finished", count):off("finished", count)
    gate:open()
    job:wait()
    assert.equal(0, n)
  end)

  it("names the events that there are", function ()
    local job = parallel.spawn(function () end)
    assert.error_matches(function () job:on("finish", print) end,
      "an event of a job expected, got 'finish'; did you mean 'finished'")
    assert.error_matches(function () job:on("finished") end,
                         "bad argument 'handler'")
    assert.error_matches(function () job:off("ended") end,
                         "an event of a job expected")
    job:wait()
  end)
end)

describe("parallel.poll", function ()
  it("returns the number of calls, and 0 when nothing happened", function ()
    assert.equal(0, parallel.poll())
    assert.equal(0, parallel.poll(0.01))
    local function handler () end
    parallel.on("p", handler)
    local job = parallel.spawn(function () parallel.task.emit "p" end)
    assert.equal(1, parallel.poll(10))
    parallel.off("p", handler)
    job:wait()
  end)

  it("has a descriptor that is readable when there is something", function ()
    local text = run [[
      local uv = require "luv"
      local got
      parallel.on("done", function (event) got = event.data end)
      local poll = uv.new_poll(parallel.fileno())
      poll:start("r", function ()
        parallel.poll()
        if got then
          poll:stop()
          poll:close()
        end
      end)
      parallel.spawn(function () parallel.task.emit("done", 42) end)
      uv.run()
      print(got, parallel.fileno() == parallel.fileno())
    ]]
    assert.equal("42\ttrue\n", text)
  end)
end)

describe("a wait", function ()
  local core <const> = require "support.core"

  it("ends with a job whose events were taken without a handler", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job <const> = pool:spawn(function () parallel.task.emit "nobody" end)
    repeat until job.state == "completed"
    core.wait(10000)  -- it ends, or this test hangs
  end)

  it("has let the handlers of the end run", function ()
    local pool <close> = parallel.pool { max = 1 }
    local ended = 0
    local function count () ended = ended + 1 end
    parallel.on("finished", count)
    for i = 1, 5000 do
      local job <const> = pool:spawn(function () end)
      assert(job:wait() == "completed")
      if ended ~= i then break end
    end
    parallel.off("finished", count)
    assert.equal(5000, ended)
  end)

  it("ends with each of many jobs that emit as they end", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function work (n)
      for _ = 1, n do end
      parallel.task.emit "nobody"
    end
    for i = 1, 2000 do
      for _ in pool:spawn(work, i * 7 % 3000):records() do end
    end
  end)
end)

describe("parallel.wait", function ()
  it("returns when all have ended, in the order of their end", function ()
    local pool <close> = parallel.pool { max = 2 }
    local gate <close> = gates.new()
    local first, second = pool:spawn(gate.pass), pool:spawn(function () end)
    gate:await(1)
    second:wait()
    gate:open()
    local done, pending = parallel.wait({ first, second })
    assert.same({}, pending)
    assert.equal(2, #done)
  end)

  it("returns when any has ended", function ()
    local pool <close> = parallel.pool { max = 2 }
    local gate <close> = gates.new()
    local slow, quick = pool:spawn(gate.pass), pool:spawn(function () end)
    local done, pending = parallel.wait({ slow, quick }, { mode = "any" })
    assert.same({ quick }, done)
    assert.same({ slow }, pending)
    gate:open()
  end)

  it("returns at the first error", function ()
    local pool <close> = parallel.pool { max = 2 }
    local gate <close> = gates.new()
    local slow = pool:spawn(gate.pass)
    local bad = pool:spawn(function () error "x" end)
    local done, pending = parallel.wait({ slow, bad },
                                        { mode = "first_error" })
    assert.equal(bad, done[#done])
    assert.same({ slow }, pending)
    assert.is_false((bad:join()))
    gate:open()
  end)

  it("gives up after the timeout", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local job = pool:spawn(gate.pass)
    local done, pending = parallel.wait({ job }, { timeout = 0.01 })
    assert.same({}, done)
    assert.same({ job }, pending)
    gate:open()
    done = parallel.wait(job)
    assert.same({ job }, done)
  end)

  it("takes no jobs, the same job twice, and jobs inside a job", function ()
    local done, pending = parallel.wait({})
    assert.same({}, done)
    assert.same({}, pending)
    local job = parallel.spawn(function () end)
    assert.equal(1, #parallel.wait({ job, job }))
    local pool <close> = parallel.pool { max = 1 }
    assert.equal(3, pool:run(function ()
      local jobs = {}
      for i = 1, 3 do jobs[i] = parallel.spawn(function () return i end) end
      return #parallel.wait(jobs)
    end))
  end)

  it("refuses what is no job, and unknown modes", function ()
    for _, row in ipairs {
      { { 1 }, nil, "bad argument 'jobs%[1%]' to 'wait'" },
      { "x", nil, "bad argument 'jobs' to 'wait'" },
      { { a = 1 }, nil, "got a table with the key 'a'" },
      { {}, { mode = "some" }, "bad option 'mode' to 'wait'" },
      { {}, { timeout = "x" }, "bad option 'timeout' to 'wait'" },
      { {}, { time = 1 }, "unknown option 'time'" },
    } do
      assert.error_matches(function () parallel.wait(row[1], row[2]) end,
                           row[3])
    end
  end)
end)

describe("parallel.jobs", function ()
  it("lists what lives", function ()
    local pool <close> = parallel.pool { max = 1 }
    local gate <close> = gates.new()
    local held = pool:submit { gate.pass, name = "held" }
    pool:submit { function () end, name = "dropped" }
    collectgarbage()
    local names = {}
    for _, job in ipairs(parallel.jobs()) do names[job.name] = job.state end
    assert.is_truthy(names.held)
    assert.equal("queued", names.dropped)
    held:remove()
    gate:open()
    held:wait()
    for _, job in ipairs(parallel.jobs()) do
      assert.not_equal("held", job.name)
    end
  end)
end)

describe("a failure that nobody looked at", function ()
  it("is reported once when its job is collected", function ()
    local text = run [[
      local pool = parallel.pool{max = 1}
      pool:submit{function () error("lost", 0) end, name = "a"}
      collectgarbage()
      pool:submit{function () end}:wait()
      parallel.poll()
    ]]
    local _, n = text:gsub("nobody looked at the failure of 'a': lost", "")
    assert.equal(1, n)
  end)

  it("is reported when its pool closes, though its handle is held",
     function ()
    local text = run [[
      local pool = parallel.pool{max = 1}
      local job = pool:submit{function () error("lost", 0) end, name = "b"}
      pool:close()
      print(job.name)
    ]]
    local _, n = text:gsub("nobody looked at the failure of 'b': lost", "")
    assert.equal(1, n)
  end)

  it("is reported as all others are, however many there are", function ()
    local text = run [[
      local pool = parallel.pool{max = 1}
      for i = 1, 500 do pool:spawn "error('lost', 0)" end
      pool:run "return 1"
      collectgarbage()
      collectgarbage()
      parallel.poll()
    ]]
    local _, n = text:gsub("nobody looked at the failure of 'job%-%d+': lost",
                           "")
    assert.equal(500, n)
  end)

  it("is reported of the jobs of a job, whose memory is given back",
     function ()
    local text = run [[
      local function jobs ()
        for i = 1, 5 do parallel.spawn "error('lost', 0)" end
      end
      local pool = parallel.pool{max = 1}
      for i = 1, 100 do pool:run(jobs) end
      pool:close()
    ]]
    local _, n = text:gsub("nobody looked at the failure of 'job%-%d+': lost",
                           "")
    assert.equal(500, n)
  end)

  it("is reported when the host ends", function ()
    local text = run [[
      local job = parallel.submit{function () error("lost", 0) end,
                                  name = "c"}
      while #parallel.jobs() == 1 and job.finished == nil do end
    ]]
    local _, n = text:gsub("nobody looked at the failure of 'c': lost", "")
    assert.equal(1, n)
  end)

  it("is reported in the order of the jobs", function ()
    local text = run [[
      local jobs = {}
      for i = 1, 20 do
        jobs[i] = parallel.submit{function () error("lost", 0) end,
                                  name = "j" .. i}
      end
      parallel.wait(jobs)
    ]]
    local names, expected = {}, {}
    for name in text:gmatch "failure of '([^']*)'" do
      names[#names + 1] = name
    end
    for i = 1, 20 do expected[i] = "j" .. i end
    assert.same(expected, names)
  end)

  it("is reported in the order of the jobs that are collected", function ()
    assert.equal("j1 j2 j3 j4 j5 ", (run [[
      parallel.on("unseen_failure", function (event)
        io.write(event.job_name, " ")
      end)
      local pool = parallel.pool{max = 1}
      for i = 1, 5 do
        pool:submit{function () error "lost" end, name = "j" .. i}
      end
      pool:run "return 1"
      collectgarbage()
      parallel.poll()
    ]]))
  end)

  it("is told to handlers that a handler of the end adds", function ()
    assert.equal("first\nsecond\n", (run [[
      local job = parallel.spawn(function () return 1 end)
      job:on("finished", function (event)
        print "first"
        event.job:on("finished", function () print "second" end)
      end)
      job:wait()
      parallel.poll(0)
      parallel.poll(0)
    ]]))
  end)

  it("is no chunk of a map, whose caller has the failures", function ()
    assert.equal("deadline\tdeadline\n", (run [[
      local pool = parallel.pool{max = 2}
      local _, errors = pool:map({1, 2}, function (item)
        local _ <close> = setmetatable({}, { __close = function ()
          parallel.task.warning("late " .. item)
        end })
        parallel.task.sleep(60)
      end, { on_error = "continue", deadline = 1,
             streams = { warning = function () end } })
      print(errors[1].reason, errors[2].reason)
    ]]))
  end)

  it("is reported when somebody only waited with others", function ()
    for _, wait in ipairs { "parallel.wait(job)",
                            "parallel.wait({job}, {mode = 'first_error'})",
                            "parallel.wait(job) print(job.finished)" } do
      assert.matches("nobody looked at the failure", (run([[
        local job = parallel.spawn(function () error "unseen" end)
      ]] .. wait)))
    end
  end)

  it("is not reported when somebody did", function ()
    for _, look in ipairs { "job:wait()", "job:join()", "pcall(job.get, job)",
                            "parallel.wait(job) local _ = job.error",
                            "parallel.wait(job) local _ = job.reason",
                            "parallel.wait(job) local _ = job.state",
                            "parallel.wait(job) job:info()",
                            "job:on('failed', function () end) job:wait()",
                            "job:remove() parallel.wait(job)" } do
      assert.equal("", (run([[
        local job = parallel.spawn(function () error "seen" end)
      ]] .. look)))
    end
  end)

  it("is reported when each handler of it raises", function ()
    local failing <const> = [[
      parallel.on("unseen_failure", function () error("no", 0) end)
    ]]
    local rest <const> = [[
      local pool = parallel.pool{max = 1}
      pool:submit{function () error("lost", 0) end, name = "f"}
      pool:close()
      collectgarbage()
      parallel.poll()
    ]]
    local raised <const> = "parallel: a handler of 'unseen_failure' raised: "
                           .. "no\n"
    assert.equal(raised .. "parallel: nobody looked at the failure of 'f': "
                 .. "lost\n", (run(failing .. rest):gsub("traceback.*", "")))
    assert.equal(raised .. "f\n", (run(failing .. [[
      parallel.on("unseen_failure", function (e) print(e.job_name) end)
    ]] .. rest)))
  end)

  it("goes to a handler where there is one", function ()
    assert.equal("d\tlost\n", (run [[
      parallel.on("unseen_failure", function (event)
        print(event.job_name, event.data.error)
      end)
      local pool = parallel.pool{max = 1}
      pool:submit{function () error("lost", 0) end, name = "d"}
      pool:close()
      collectgarbage()
      parallel.poll()
    ]]))
  end)
end)
