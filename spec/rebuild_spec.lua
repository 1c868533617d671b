-- SPDX-License-Identifier: MIT
-- What comes back and cannot be rebuilt in the host is the end of one item,
-- job, record or event, and of nothing else.

local parallel = require "parallel"

--- A module that the host does not have.
local SHAPES <const> = [[
  local shapes = {}
  shapes.__index = shapes
  function shapes.__tostring (self) return "shape " .. self.n end
  function shapes.new (n) return setmetatable({ n = n }, shapes) end
  return shapes
]]

local WHY <const> = "module 'shapes' is needed by a transferred value"

--- A value whose type rebuilds it by a function that raises outside of a
--- runspace.
local function bomb (text)
  return setmetatable({}, {
    __transfer = function ()
      return function (why)
        if parallel and parallel.task.id == nil then error(why, 0) end
        return "rebuilt"
      end, text
    end,
  })
end

local function open (options)
  options = options or {}
  options.max = options.max or 2
  options.preload = { shapes = SHAPES }
  return parallel.pool(options)
end

--- Item 'r' as a shape, if it is a multiple of three.
local function some_shapes (r)
  return r % 3 == 0 and require "shapes".new(r) or r
end

describe("an item whose result cannot be rebuilt", function ()
  local items <const> = parallel.range(20)

  for _, chunk in ipairs { 1, 7, 20 } do
    it("is failed in collect, and the others stand: chunks of " .. chunk,
       function ()
      local pool <close> = open()
      local records, report = pool:collect(items, some_shapes,
                                           { chunk = chunk })
      for i = 1, 20 do
        local record <const> = records[i]
        assert.equal(i, record.index)
        assert.equal(i, record.input)
        if i % 3 == 0 then
          assert.equal("failed", record.state)
          assert.equal("error", record.reason)
          assert.is_truthy(record.error:find(WHY, 1, true))
          assert.is_nil(record.result)
          assert.equal("string", type(record.traceback))
        else
          assert.equal("completed", record.state)
          assert.equal(i, record.result)
        end
      end
      assert.equal(14, report.succeeded)
      assert.equal(6, report.failed)
    end)

    it("is among the failures of map, and the others stand: chunks of "
       .. chunk, function ()
      local pool <close> = open()
      local results, failures = pool:map(items, some_shapes,
                                         { chunk = chunk,
                                           on_error = "continue" })
      for i = 1, 20 do
        if i % 3 == 0 then
          assert.is_nil(results[i])
          assert.equal(i, failures[i].index)
          assert.equal(i, failures[i].input)
          assert.is_truthy(failures[i].error:find(WHY, 1, true))
          assert.is_truthy(tostring(failures[i]):find(WHY, 1, true))
        else
          assert.equal(i, results[i])
          assert.is_nil(failures[i])
        end
      end
    end)
  end

  it("is what map raises", function ()
    local pool <close> = open()
    local ok, failure = pcall(pool.map, pool, { 1, 2, 3 }, some_shapes)
    assert.is_false(ok)
    assert.equal(3, failure.index)
    assert.equal(3, failure.input)
    assert.equal("failed", failure.state)
    assert.is_truthy(failure.error:find(WHY, 1, true))
  end)

  it("is a record of each", function ()
    local pool <close> = open()
    local states = {}
    for record in pool:each(items, some_shapes, { ordered = true }) do
      states[record.index] = record.state
      assert.equal(record.index, record.input)
    end
    for i = 1, 20 do
      assert.equal(i % 3 == 0 and "failed" or "completed", states[i])
    end
  end)

  it("stops a collect that stops at errors", function ()
    local pool <close> = open { max = 1 }
    local records = pool:collect(parallel.range(2000), some_shapes,
                                 { chunk = 1, on_error = "stop" })
    assert.equal("failed", records[3].state)
    assert.equal("cancelled", records[2000].state)
  end)

  it("counts as a failure for max_failures", function ()
    local pool <close> = open { max = 1 }
    local records = pool:collect(parallel.range(2000), some_shapes,
                                 { chunk = 1, max_failures = 2 })
    assert.equal("failed", records[6].state)
    assert.equal("cancelled", records[2000].state)
  end)

  it("is an error of its key in invoke", function ()
    local pool <close> = open()
    local results, errors = pool:invoke(some_shapes,
                                        { a = { 1 }, b = { 3 }, c = { 4 } })
    assert.same({ a = 1, c = 4 }, results)
    assert.equal("b", errors.b.key)
    assert.is_truthy(errors.b.error:find(WHY, 1, true))
  end)

  it("fails filter and reduce", function ()
    local pool <close> = open()
    local ok, failure = pcall(pool.filter, pool, items, some_shapes)
    assert.is_false(ok)
    assert.is_truthy(failure.error:find(WHY, 1, true))
    local kept, failures = pool:filter(items, some_shapes,
                                       { on_error = "continue" })
    assert.equal(14, kept.n)
    assert.is_truthy(failures[18].error:find(WHY, 1, true))
    ok, failure = pcall(pool.reduce, pool, { 1, 2, 3, 6 }, function (_, b)
      return require "shapes".new(b)
    end)
    assert.is_false(ok)
    assert.is_truthy(failure.error:find(WHY, 1, true))
  end)

  it("is failed when a function that rebuilds raises", function ()
    local records = parallel.collect({ 1, 2, 3 }, function (r)
      return r == 2 and bomb "boom" or { r }
    end)
    assert.same({ 1 }, records[1].result)
    assert.same({ 3 }, records[3].result)
    assert.equal("failed", records[2].state)
    assert.matches("boom", records[2].error)
  end)

  it("is failed when that raises a table, or something odd", function ()
    local function raises (value)
      return setmetatable({}, { __transfer = function ()
        return function (v) error(v) end, value
      end })
    end
    local records = parallel.collect({ 1, 2, 3, 4 }, function (r)
      if r == 1 then return raises { 1 } end
      if r == 2 then return raises(nil) end
      if r == 3 then
        return raises(setmetatable({}, { __tostring = function ()
          error "twice"
        end }))
      end
      return r
    end)
    for i = 1, 3 do
      assert.equal("failed", records[i].state)
      assert.equal("string", type(records[i].error))
    end
    assert.equal(4, records[4].result)
  end)

  it("stands beside results of all kinds", function ()
    local pool <close> = open { max = 1 }
    local function make (r)
      if r % 2 == 0 then
        local s = require "shapes".new(r)
        return { { x = 1, y = 2 }, s, { x = 3, y = 4 }, { s, s }, { 1, 2, 3,
                 4, 5, 6, 7, 8, 9, 10.5, 11.5 }, function () return r end,
                 print, ("long"):rep(100), -1, 2^53, math.mininteger }
      end
      return { { x = r, y = 2 }, { x = 3, y = 4 }, { r, r }, 1.5,
               ("long"):rep(100) }
    end
    local records = pool:collect(parallel.range(40), make, { chunk = 40 })
    local results = pool:map(parallel.range(40), make,
                             { chunk = 40, on_error = "continue" })
    for i = 1, 40 do
      if i % 2 == 0 then
        assert.equal("failed", records[i].state)
        assert.is_nil(results[i])
      else
        assert.same(make(i), records[i].result)
        assert.same(make(i), results[i])
      end
    end
  end)

  it("has the streams that it sent", function ()
    local pool <close> = open()
    local records = pool:collect({ 2, 3 }, function (r)
      parallel.task.verbose("item " .. r)
      return some_shapes(r)
    end)
    assert.equal("item 2", records[1].streams.verbose[1].value)
    assert.equal("failed", records[2].state)
    assert.equal("item 3", records[2].streams.verbose[1].value)
  end)

  it("shows in the counts of progress", function ()
    local pool <close> = open()
    local last
    pool:map(items, some_shapes, {
      on_error = "continue",
      progress = function (state) last = state end,
    })
    assert.equal(20, last.done)
    assert.equal(6, last.failed)
  end)
end)

describe("an item that its runspace cannot rebuild", function ()
  it("is failed, and those behind it stand", function ()
    local own <const> = { n = 1 }
    package.loaded["spec.own"] = own
    local pool <close> = parallel.pool { max = 1 }
    local records = pool:collect({ 1, { own, own }, 3, { x = 1 }, own, 6 },
                                 function (r) return r end, { chunk = 6 })
    package.loaded["spec.own"] = nil
    for _, i in ipairs { 2, 5 } do
      assert.equal("failed", records[i].state)
      assert.matches("module 'spec.own' is needed", records[i].error)
    end
    assert.same({ 1, 3, { x = 1 }, 6 },
                { records[1].result, records[3].result, records[4].result,
                  records[6].result })
  end)
end)

describe("a job whose results cannot be rebuilt", function ()
  local function shape () return 1, require "shapes".new(2) end

  --- Each way to look first, and what all the others say afterwards.
  for name, first in pairs {
    join = function (job)
      local ok, failure = job:join()
      assert.is_false(ok)
      assert.is_truthy(failure.error:find(WHY, 1, true))
    end,
    get = function (job)
      local ok, failure = pcall(job.get, job)
      assert.is_false(ok)
      assert.is_truthy(failure.error:find(WHY, 1, true))
    end,
    wait = function (job) assert.equal("failed", job:wait()) end,
    info = function (job)
      parallel.wait(job)
      assert.equal("failed", job:info().state)
    end,
    ["parallel.wait"] = function (job)
      local done = parallel.wait({ job }, { mode = "first_error" })
      assert.equal(job, done[1])
    end,
    error = function (job)
      while job.finished == nil do parallel.poll(0.01) end
      assert.is_truthy(job.error:find(WHY, 1, true))
    end,
  } do
    it("is failed whoever looks first: " .. name, function ()
      local pool <close> = open()
      local job <const> = pool:spawn(shape)
      first(job)
      for _ = 1, 2 do
        assert.equal("failed", job.state)
        assert.equal("failed", job:wait())
        assert.equal("error", job.reason)
        assert.is_truthy(job.error:find(WHY, 1, true))
        local ok, failure = job:join()
        assert.is_false(ok)
        assert.equal("failed", failure.state)
        assert.equal(job.error, failure.error)
        assert.equal("string", type(failure.traceback))
        assert.is_false((pcall(job.get, job)))
      end
      assert.equal(1, pool:info().done.failed)
      assert.equal(0, pool:info().done.completed)
    end)
  end

  it("stays so when they could be rebuilt later", function ()
    local pool <close> = open()
    local job <const> = pool:spawn(shape)
    assert.is_false((job:join()))
    package.loaded.shapes = load(SHAPES)()
    local ok = job:join()
    package.loaded.shapes = nil
    assert.is_false(ok)
  end)

  it("is raised by run, and told by events", function ()
    local pool <close> = open()
    local ok, failure = pcall(pool.run, pool, shape)
    assert.is_false(ok)
    assert.is_truthy(failure.error:find(WHY, 1, true))
    local job <const> = pool:spawn(shape)
    local heard = {}
    job:on("completed", function () heard[#heard + 1] = "completed" end)
    job:on("failed", function () heard[#heard + 1] = "failed" end)
    parallel.wait(job)
    assert.same({ "failed" }, heard)
  end)

  it("is a record of a manager", function ()
    local manager <close> = parallel.manager(2)
    local function own ()
      package.loaded.shapes = package.loaded.shapes
        or { new = function () return package.loaded.shapes end }
      return { package.loaded.shapes }
    end
    manager:start(own, {}, "bad")
    manager:start(function () return 5 end, {}, "good")
    assert.equal("failed", manager:wait("bad").state)
    assert.is_truthy(manager:get("bad").error:find(WHY, 1, true))
    local all = manager:wait_all()
    assert.equal("failed", all[1].state)
    assert.equal(5, all[2].result)
  end)

  it("gives what can be rebuilt once, and copies after that", function ()
    local count <const> = {}
    local job <const> = parallel.spawn(function ()
      return setmetatable({}, { __transfer = function ()
        return function () return { "rebuilt" } end
      end })
    end)
    assert.equal("completed", job:wait())
    assert.equal("completed", job.state)
    local a, b = job:get(), job:get()
    assert.same({ "rebuilt" }, a)
    assert.same({ "rebuilt" }, b)
    assert.not_equal(a, b)
    assert.same({}, count)
  end)

  it("is seen by the job that waits for it", function ()
    local states = parallel.run(function (source)
      local pool <close> = parallel.pool { preload = { shapes = source } }
      local job <const> = pool:spawn("return require 'shapes'.new(1)")
      local ok = job:join()
      return { tostring(ok), job.state, (job.error:gsub("\n.*", "")) }
    end, SHAPES)
    assert.same({ "false", "failed" }, { states[1], states[2] })
    assert.is_truthy(states[3]:find(WHY, 1, true))
  end)
end)

describe("an error value that cannot be rebuilt", function ()
  local function raise (n) error(require "shapes".new(n)) end

  it("is a text, with the one that it had", function ()
    local pool <close> = open()
    local job <const> = pool:spawn(raise, 7)
    local ok, failure = job:join()
    assert.is_false(ok)
    assert.equal("failed", failure.state)
    assert.is_truthy(failure.error:find(WHY, 1, true))
    assert.is_truthy(failure.error:find("shape 7", 1, true))
    assert.matches("^stack traceback:", failure.traceback)
    assert.matches("rebuild_spec", failure.traceback)
    assert.equal(failure.error, job.error)
    assert.is_truthy(tostring(failure):find("shape 7", 1, true))
  end)

  it("is one in records and failures", function ()
    local pool <close> = open()
    local records = pool:collect({ 1, 2, 3 }, function (r)
      if r == 2 then raise(r) end
      return r
    end, { chunk = 3 })
    assert.equal("failed", records[2].state)
    assert.is_truthy(records[2].error:find(WHY, 1, true))
    assert.is_truthy(records[2].error:find("shape 2", 1, true))
    assert.matches("^stack traceback:", records[2].traceback)
    assert.equal(3, records[3].result)
    local results, failures = pool:map({ 1, 2, 3 }, function (r)
      if r == 2 then raise(r) end
      return { r }
    end, { chunk = 3, on_error = "continue" })
    assert.same({ 3 }, results[3])
    assert.is_truthy(failures[2].error:find("shape 2", 1, true))
  end)

  it("has the text of its field 'message'", function ()
    local pool <close> = open()
    local _, failure = pool:spawn(function ()
      local s = require "shapes".new(1)
      error({ message = "disk full", s = s })
    end):join()
    assert.is_truthy(failure.error:find("disk full", 1, true))
  end)

  --- Each row: an error that cannot travel, and its text.
  for what, row in pairs {
    ["the field 'message'"] = {
      function () error { message = "disk full", file = io.stdout } end,
      "^disk full$" },
    ["__tostring"] = {
      function ()
        error(setmetatable({ message = "disk full", file = io.stdout },
                           { __tostring = function () return "own" end }))
      end, "^own$" },
    ["no text"] = {
      function () error { message = 7, file = io.stdout } end, "^table: " },
    ["a 'message' of '__index'"] = {
      function ()
        error(setmetatable({ file = io.stdout },
                           { __index = function () error "called" end }))
      end, "^table: " },
  } do
    it("cannot travel at all, and has " .. what, function ()
      local pool <close> = open()
      local _, failure <const> = pool:spawn(row[1]):join()
      assert.matches(row[2], failure.error)
      local _, failures <const> = pool:map({ 1 }, row[1],
                                           { on_error = "continue" })
      assert.matches(row[2], failures[1].error)
    end)
  end
end)

describe("a stream record that cannot be rebuilt", function ()
  local function send ()
    parallel.task.verbose("first")
    parallel.task.verbose(require "shapes".new(1))
    parallel.task.verbose("last")
    return 1
  end

  it("is a text, beside the others", function ()
    local pool <close> = open()
    local job <const> = pool:spawn(send)
    assert.equal(1, job:get())
    local verbose <const> = job.streams.verbose
    assert.equal("first", verbose[1].value)
    assert.is_truthy(verbose[2].value:find(WHY, 1, true))
    assert.is_truthy(verbose[2].failure:find(WHY, 1, true))
    assert.equal("last", verbose[3].value)
    assert.is_nil(verbose[3].failure)
    assert.equal("completed", job.state)
  end)

  it("comes to handlers and iterators in its place", function ()
    local pool <close> = open()
    local job <const> = pool:spawn(send)
    local heard = {}
    job:on("verbose", function (event)
      heard[#heard + 1] = event.record.failure and "failure" or event.data
    end)
    parallel.wait(job)
    assert.same({ "first", "failure", "last" }, heard)
    local values = {}
    for record in job:records() do
      values[#values + 1] = record.failure and "failure" or record.value
    end
    assert.same({ "first", "failure", "last" }, values)
  end)

  it("leaves the record of its item whole", function ()
    local pool <close> = open()
    local records = pool:collect({ 1, 2 }, send)
    assert.equal(1, records[1].result)
    assert.is_truthy(records[1].streams.verbose[2].failure)
    assert.equal("last", records[2].streams.verbose[3].value)
  end)
end)

describe("an event that cannot be rebuilt", function ()
  it("is told, and the others come", function ()
    local tree <const> = require "support.tree"
    local script <const> = os.tmpname()
    local file <close> = assert(io.open(script, "w"))
    file:write([[
      local pool <close> = parallel.pool { preload = { shapes = ]]
      .. ("%q"):format(SHAPES) .. [[ } }
      local heard = {}
      parallel.on("shape", function (event)
        heard[#heard + 1] = event.failure and "failure" or event.data
      end)
      pool:run(function ()
        parallel.task.emit("shape", 1)
        parallel.task.emit("shape", require "shapes".new(2))
        parallel.task.emit("shape", 3)
      end)
      parallel.poll()
      print(table.concat(heard, " "))
    ]])
    file:close()
    local pipe <close> = assert(io.popen(tree.runspace .. " " .. script
                                         .. " 2>&1"))
    local text <const> = pipe:read "a"
    os.remove(script)
    assert.matches("1 failure 3", text)
    assert.matches("parallel: event 'shape' of job%-%d+: a value that "
                   .. "cannot be rebuilt here: module 'shapes'", text)
  end)
end)

describe("an interrupt while a result is rebuilt", function ()
  it("is raised, and no end of the item", function ()
    local pool <close> = open()
    local function interrupted ()
      debug.sethook(function ()
        debug.sethook()
        error("stopped", 0)
      end, "", 1)
    end
    local job <const> = pool:spawn(function ()
      return setmetatable({}, { __transfer = function ()
        return function () for _ = 1, 1e5 do end return 1 end
      end })
    end)
    while job.finished == nil do parallel.poll(0.01) end
    local ok, problem = pcall(function ()
      interrupted()
      return job:get()
    end)
    debug.sethook()
    assert.is_false(ok)
    assert.matches("stopped", tostring(problem))
    assert.equal(1, job:get())
  end)

  for _, size in ipairs { 1, 300000 } do
    it("is raised by a hook inside of it, with " .. size .. " bytes more",
       function ()
      local pool <close> = open()
      local job <const> = pool:spawn(function (n)
        return { ("x"):rep(n), setmetatable({}, { __transfer = function ()
          return function ()
            local set <const> = rawget(_G, "REBUILD_HOOK")
            if set then set() end
            return 1
          end
        end }) }
      end, size)
      while job.finished == nil do parallel.poll(0.01) end
      rawset(_G, "REBUILD_HOOK", function ()
        debug.sethook(function ()
          debug.sethook()
          error({ "stopped" })
        end, "", 1)
      end)
      local ok, problem = pcall(job.get, job)
      rawset(_G, "REBUILD_HOOK", nil)
      debug.sethook()
      assert.is_false(ok)
      assert.same({ "stopped" }, problem)
      assert.equal("completed", job.state)
      assert.equal(1, job:get()[2])
    end)
  end

  it("ends the program, and not the job, by SIGINT", function ()
    local tree <const> = require "support.tree"
    local script <const> = os.tmpname()
    local file <close> = assert(io.open(script, "w"))
    file:write [[
      local job = parallel.spawn(function ()
        local t = {}
        for i = 1, 20000 do t[i] = { i, tostring(i) } end
        t.last = setmetatable({}, { __transfer = function ()
          return function ()
            local act = rawget(_G, "ACT")
            if act then act() end
            return 1
          end
        end })
        return t
      end)
      while job.finished == nil do parallel.poll(0.01) end
      local self = io.open("/proc/self/stat"):read "n"
      function ACT () io.popen("kill -INT " .. self):close() end
      local ok, problem = pcall(job.join, job)
      ACT = nil
      print(ok, problem, job.state, #job:get())
    ]]
    file:close()
    local pipe <close> = assert(io.popen(tree.runspace .. " " .. script
                                         .. " 2>&1"))
    local text <const> = pipe:read "a"
    os.remove(script)
    assert.matches("^false\t.*interrupted!\tcompleted\t20000\n$", text)
  end)
end)

describe("a copy", function ()
  --- How often finalizers of `class` ran, after all its garbage is collected.
  local function count (class)
    collectgarbage()
    collectgarbage()
    return class.finalized or 0
  end

  it("is not finalized where it comes to, and the original is", function ()
    local class <const> = {}
    function class.__gc () class.finalized = (class.finalized or 0) + 1 end
    package.loaded["spec.finalized"] = class
    local pool <close> = parallel.pool {
      max = 1,
      preload = { ["spec.finalized"] = "local c = {} c.__gc = function () "
        .. "c.finalized = (c.finalized or 0) + 1 end return c" },
    }
    do
      local object <const> = setmetatable({ 1 }, class)
      local there, back = pool:run(function (o)
        local c <const> = require "spec.finalized"
        assert(getmetatable(o) == c)
        o = nil  -- luacheck: ignore
        collectgarbage()
        return c.finalized or 0, setmetatable({}, c)
      end, object)
      assert.equal(0, there)
      assert.equal(class, getmetatable(back))
      local list = pool:map({ object, object }, function (o) return { o } end)
      assert.equal(class, getmetatable(list[1][1]))
      list, back = nil, nil  -- luacheck: ignore
      assert.equal(0, count(class))
      assert.equal(1, object[1])
    end
    assert.equal(1, count(class))
    package.loaded["spec.finalized"] = nil
  end)

  it("is finalized when its type rebuilds it so", function ()
    local class <const> = {}
    function class.__gc () class.finalized = (class.finalized or 0) + 1 end
    function class:__transfer ()
      return function (n)
        return setmetatable({ n }, package.loaded["spec.finalized"])
      end, self[1]
    end
    package.loaded["spec.finalized"] = class
    local core <const> = require "support.core"
    local object <const> = setmetatable({ 5 }, class)
    local copy = core.copy(object)
    assert.equal(5, copy[1])
    copy = nil  -- luacheck: ignore 311
    assert.equal(1, count(class))
    assert.equal(5, object[1])
    package.loaded["spec.finalized"] = nil
  end)

  it("of an object with a finalizer that a job has made is a result",
     function ()
    local value <const> = parallel.run(function ()
      local class = { name = "made here" }
      class.__index = class
      function class.__gc () class.gone = true end
      return setmetatable({ 5 }, class)
    end)
    assert.equal(5, value[1])
    assert.equal("made here", value.name)
    assert.equal("function", type(getmetatable(value).__gc))
  end)
end)

describe("a stop inside of '__transfer'", function ()
  for where, call in pairs { [""] = "spin()",
                             [" in a coroutine"] =
                               "coroutine.wrap(spin)()" } do
    for verb, use in pairs {
      run = "parallel.run(function () end, value)",
      collect = "parallel.collect({ value }, function () end)",
      output = "parallel.task.output(value)",
    } do
      it("is what '" .. verb .. "' raises" .. where, function ()
        local job
        local handler <const> = parallel.on("spec_spins", function ()
          job:cancel { grace = 60 }
        end)
        job = parallel.spawn([[
          local function spin ()
            parallel.task.emit "spec_spins"
            while true do tostring {} end
          end
          local value = setmetatable({}, { __transfer = function ()
            ]] .. call .. [[
          end })
          local ok, problem = pcall(function () ]] .. use .. [[ end)
          parallel.task.warning(tostring(ok))
          parallel.task.warning(problem)
        ]])
        assert.equal("cancelled", job:wait(60))
        parallel.off("spec_spins", handler)
        local said <const> = job.streams.warning
        assert.equal("false", said[1].message)
        assert.equal("the job was cancelled",
                     (said[2].message:gsub("^%(chunk%):%d+: ", "")))
      end)
    end
  end
end)

describe("what '__transfer' has made of a part of a table", function ()
  local function made (...)
    local values <const> = table.pack(...)
    return setmetatable({}, { __transfer = function ()
      return table.unpack(values, 1, values.n)
    end })
  end

  for _, row in ipairs {
    { "a key, nil", { [made(nil)] = 1 }, "'__transfer' of a key of a table "
      .. "has made it nil" },
    { "a key, NaN", { [made(0 / 0)] = 1 }, "of a key of a table has made it "
      .. "NaN" },
    { "a key, rebuilt as nil", { [made(function () end)] = 1 },
      "of a key of a table has made it nil" },
    { "a metatable", setmetatable({}, made(5)), "'__transfer' of a metatable "
      .. "of a table has made it number" },
  } do
    it("is told where no table can have it: " .. row[1], function ()
      local ok <const>, problem <const> =
        pcall(parallel.run, function (t) return t end, row[2])
      assert.is_false(ok)
      assert.matches(row[3], tostring(problem), 1, true)
      assert.is_nil(tostring(problem):find("bad message", 1, true))
    end)
  end

  it("may be another key", function ()
    assert.equal("x", parallel.run(function (t) return t[1] end,
                                   { [made(1.0)] = "x" }))
  end)
end)
