-- SPDX-License-Identifier: MIT
--- Code of the script that runs inside of a verb closes what the verb is in
--- the middle of.  Nothing is used after it is gone: a sanitizer would tell.
local parallel <const> = require "parallel"
local script <const> = require "support.script"

--- What is to be closed, once: 'act' is the way from the verb's inside.
local act = function () end
local function strike ()
  local f <const> = act
  act = function () end
  f()
end
rawset(_G, "closing_spec_strike", strike)

local function copy_of (x) return x end

--- A job's function whose result strikes where the host rebuilds it.
local function rebuilt (x)
  return setmetatable({ value = x }, {
    __transfer = function (self)
      return function (v)
        local f <const> = rawget(_G, "closing_spec_strike")
        if f ~= nil then f() end
        return v
      end, self.value
    end,
  })
end

local function emitting (x)
  parallel.task.emit("closing", x)
  parallel.task.progress { percent = 50 }
  parallel.task.verbose(x)
  return x
end

local function iterator ()
  local n = 0
  return function ()
    n = n + 1
    if n == 3 then strike() end
    return n <= 20 and n or nil
  end
end

--- Garbage whose finalizer strikes: a collection comes in the middle of what
--- the verb makes, or at its next step.
local function garbage ()
  setmetatable({}, { __gc = strike })
end

--- Ways into the script: items, a function, options, or what to do before.
local WAYS <const> = {
  { "the iterator", function () return iterator(), copy_of end },
  { "'__index' of the items", function ()
    return setmetatable({ n = 8 }, { __index = function (_, i)
      if i == 3 then strike() end
      return i
    end }), copy_of
  end },
  { "'__transfer' of an item", function ()
    return { 1, 2, setmetatable({}, { __transfer = function ()
      strike()
      return 3
    end }), 4, 5 }, copy_of
  end },
  { "'__transfer' of an argument", function ()
    return { 1, 2, 3 }, copy_of, { arguments = {
      setmetatable({}, { __transfer = function ()
        strike()
        return 3
      end }) } }
  end },
  { "what rebuilds a result", function ()
    return { 1, 2, 3, 4, 5, 6 }, rebuilt
  end },
  { "a finalizer while items are taken", function ()
    local n = 0
    return function ()
      n = n + 1
      if n == 4 then
        garbage()
        collectgarbage()
      end
      return n <= 20 and n or nil
    end, copy_of
  end },
  { "a finalizer at any step", function ()
    garbage()
    return iterator(), function (x) return { x, { x }, tostring(x) } end
  end },
  { "a function of progress", function ()
    return parallel.range(50), copy_of, { progress = function () strike() end }
  end },
  { "a handler of an event", function ()
    return parallel.range(20), emitting
  end },
  { "a function of a stream", function ()
    return { 1, 2, 3 }, emitting, { streams = { verbose = function ()
      strike()
    end } }
  end },
}

--- Verbs: what goes through the items, in 'pool'.
local VERBS <const> = {
  each = function (pool, items, fn, opts)
    local next_record <const>, state <const>, control <const>, loop <const> =
      pool:each(items, fn, opts)
    for _ in next_record, state, control, loop do end
  end,
  ["each, in order"] = function (pool, items, fn, opts)
    opts = opts or {}
    opts.ordered = true
    for _ in pool:each(items, fn, opts) do end
  end,
  map = function (pool, items, fn, opts) pool:map(items, fn, opts) end,
  collect = function (pool, items, fn, opts)
    pool:collect(items, fn, opts)
  end,
  filter = function (pool, items, fn, opts) pool:filter(items, fn, opts) end,
}

--- What is closed, and how.
local CLOSINGS <const> = {
  { "the pool", function (pool) pool:close(0) end },
  { "the pool's jobs", function (pool) pool:cancel() end },
  { "the pool, and what is garbage", function (pool)
    pool:close(0)
    collectgarbage()
    collectgarbage()
  end },
}

local function check_well ()
  assert.same({ 1, 4, 9, n = 3 },
              parallel.map({ 1, 2, 3 }, function (x) return x * x end))
end

describe("closing", function ()
  for _, way in ipairs(WAYS) do
    for verb, run in pairs(VERBS) do
      for _, closing in ipairs(CLOSINGS) do
        it(closing[1] .. " from " .. way[1] .. " of " .. verb, function ()
          local pool = parallel.pool { max = 2 }
          local struck
          act = function ()
            struck = true
            closing[2](pool)
          end
          local handler <const> = parallel.on("closing", strike)
          pcall(function () run(pool, way[2]()) end)
          parallel.off("closing", handler)
          act = function () end
          assert.is_true(struck or way[1]:find "finalizer" ~= nil
                         or way[1]:find "stream" ~= nil)
          pool:close(0)
          check_well()
        end)
      end
    end
    it("a loop from " .. way[1], function ()
      for _, close in ipairs { "close", "batch" } do
        local pool <close> = parallel.pool { max = 2 }
        local loop, closed
        act = function ()
          if loop == nil then return end  -- it is being made
          closed = true
          if close == "batch" then
            loop.batch:close()
          else
            loop:close()
          end
          collectgarbage()
        end
        local handler <const> = parallel.on("closing", strike)
        local ok <const>, why <const> = pcall(function ()
          local step, state, control
          local items <const>, fn <const>, opts <const> = way[2]()
          step, state, control, loop = pool:each(items, fn, opts)
          for _ in step, state, control, loop do end
        end)
        parallel.off("closing", handler)
        act = function () end
        -- Closing the loop ends it; its batch is not the script's to close.
        if close == "close" then assert.is_true(ok, why) end
        if not ok then assert.matches("batch is closed", why) end
        assert.is_true(closed or way[1]:find "argument" ~= nil
                       or way[1]:find "finalizer" ~= nil
                       or way[1]:find "stream" ~= nil)
        loop:close()
      end
      check_well()
    end)
  end

  it("loops that raised in their iterator, and are garbage", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _ = 1, 3 do
      local ok <const>, why <const> = pcall(function ()
        pool:each(function () error "no more" end, copy_of)()
      end)
      assert.is_false(ok)
      assert.matches("no more", why)
      collectgarbage()
    end
    check_well()
  end)

  it("a loop with handlers by dropping it", function ()
    local pool <close> = parallel.pool { max = 1 }
    local function noisy (i)
      parallel.task.verbose(i)
      return i
    end
    for _ = 1, 20 do
      local heard = 0
      local take = pool:each({ 1, 2, 3 }, noisy, {
        streams = { verbose = function () heard = heard + 1 end },
      })
      assert.equal("completed", take().state)
      assert.is_true(heard >= 1)
      take = nil  -- luacheck: ignore
      collectgarbage()
      collectgarbage()
    end
    assert.same({ 1, 2, 3, n = 3 }, pool:map({ 1, 2, 3 }, noisy))
  end)

  it("a manager from '__transfer' of what it starts", function ()
    local manager = parallel.manager(2)
    act = function () manager:close() end
    assert.is_false(pcall(manager.start, manager, copy_of,
                          { setmetatable({}, { __transfer = function ()
      strike()
      return 1
    end }) }, "a"))
    manager:close()
    check_well()
  end)

  for _, how in ipairs { "cancel", "remove" } do
    it("a job by '" .. how .. "' where its result is rebuilt", function ()
      local pool <close> = parallel.pool { max = 1 }
      local job = pool:spawn(rebuilt, 7)
      act = function ()
        job[how](job)
        collectgarbage()
      end
      assert.equal(7, job:get())
      check_well()
    end)

    it("a job by '" .. how .. "' in its own handler", function ()
      local pool <close> = parallel.pool { max = 1 }
      local job = pool:spawn(emitting, 7)
      job:on("event", function () job[how](job) end)
      job:on("finished", function () job[how](job) end)
      job:wait()
      check_well()
    end)
  end

  it("a job's handle that is dropped where its result is rebuilt", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job = pool:spawn(rebuilt, 7)
    act = function ()
      job = nil
      collectgarbage()
      collectgarbage()
    end
    assert.equal(7, (function () return job:get() end)())
  end)

  it("a pool from '__transfer' of what it is to run", function ()
    for _, verb in ipairs { "run", "spawn" } do
      local pool = parallel.pool { max = 1 }
      act = function () pool:close() end
      local ok <const>, why <const> = pcall(pool[verb], pool, copy_of,
        setmetatable({}, { __transfer = function ()
          strike()
          return 1
        end }))
      assert.is_false(ok)
      assert.matches("the pool is closed", tostring(why))
    end
  end)
end)

describe("the end of the program", function ()
  for _, case in ipairs {
    { "the iterator of a map", [[
      local n = 0
      parallel.map(function () n = n + 1
        if n == 5 then os.exit(7, true) end return n end, "return ...")]] },
    { "'__transfer' of an item", [[
      parallel.map({1, setmetatable({}, {__transfer = function ()
        os.exit(7, true) end})}, "return ...")]] },
    { "'__transfer' of an argument", [[
      parallel.run("return ...", setmetatable({}, {__transfer = function ()
        os.exit(7, true) end}))]] },
    { "'__index' of the items", [[
      parallel.collect(setmetatable({n = 3}, {__index = function ()
        os.exit(7, true) end}), "return ...")]] },
    { "what rebuilds a result", [[
      rebuild = function () os.exit(7, true) end
      parallel.map({1, 2, 3}, function (x)
        return setmetatable({}, {__transfer = function ()
          return function () return rawget(_G, "rebuild")() end
        end})
      end)]] },
    { "a handler of an event", [[
      parallel.on("x", function () os.exit(7, true) end)
      parallel.map({1, 2, 3}, function () parallel.task.emit("x") end)
      parallel.poll(10)]] },
    { "a function of progress", [[
      parallel.map(parallel.range(1000), "return ...",
                   {progress = function () os.exit(7, true) end})]] },
    { "the body of a loop", [[
      for _ in parallel.each(parallel.range(100), "return ...") do
        os.exit(7, true) end]] },
    { "a finalizer", [[
      setmetatable({}, {__gc = function () os.exit(7, true) end})
      parallel.map(parallel.range(1e5), function (x) return {x} end)
      collectgarbage()]] },
    { "the end of a scope", [[
      do
        local pool <close> = parallel.pool{}
        local _ <close> = setmetatable({}, {__close = function ()
          os.exit(7, true) end})
        pool:map({1, 2, 3}, "return ...")
      end]] },
  } do
    it("comes from " .. case[1], function ()
      local text <const>, status <const> = script(case[2])
      assert.equal(7, status, text)
    end)
  end
end)

describe("parallel.core", function ()
  it("is not within reach of a script", function ()
    assert.is_false((pcall(require, "parallel.core")))
    assert.is_nil(package.loaded["parallel.core"])
    assert.is_nil(package.preload["parallel.core"])
  end)

  it("is not within reach of a job", function ()
    local function look ()
      local found <const> = { pcall(require, "parallel.core") }
      parallel.map({ 1 }, function (x) return x end)  -- all is loaded
      return found[1], package.loaded["parallel.core"] == nil,
             package.preload["parallel.core"] == nil,
             (pcall(require, "parallel.core"))
    end
    assert.same({ false, true, true, false }, { parallel.run(look) })
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    assert.same({ false, true, true, false }, { pool:run(look) })
  end)

  it("has no finalizers that a script could call", function ()
    local pool <close> = parallel.pool { max = 1 }
    local job <const> = pool:spawn "return 1"
    local _, _, _, loop <close> = pool:each({ 1 }, copy_of)
    for _, handle in ipairs { pool, job, loop.batch } do
      local metatable <const> = getmetatable(handle)
      assert.matches("^parallel%.", metatable.__name)
      assert.is_nil(metatable.__gc)
      assert.is_nil(metatable.__close)
      assert.is_false(pcall(setmetatable, handle, {}))
    end
    job:wait()
  end)
end)

describe("a pool that closes at once", function ()
  --- Each row: what jobs do that ask the pool for something all the time.
  for what, ask in pairs {
    ["spawn"] = function () parallel.spawn "return 1" end,
    ["spawn and wait"] = function () parallel.spawn "return 1":wait() end,
    ["map"] = function () parallel.map({ 1, 2 }, copy_of) end,
    ["a job that asks"] = function ()
      parallel.run(function () parallel.spawn "return 1":wait() end)
    end,
  } do
    it("stops jobs before they find it closed: " .. what, function ()
      for _ = 1, 40 do
        local pool <close> = parallel.pool { max = 2 }
        local job <const> = pool:spawn(function ()
          while true do ask() end
        end)
        repeat until job.state == "running"
        pool:close(0)
        assert.equal("cancelled closed",
                     job:wait() .. " " .. tostring(job.reason))
      end
    end)
  end
end)
