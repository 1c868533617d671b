-- SPDX-License-Identifier: MIT
--- Jobs that wait for jobs that wait for jobs: as deep as anybody needs, and
--- an error where there is no end.
local gates <const> = require "support.gate"
local notes <const> = require "support.notes"
local parallel <const> = require "parallel"

--- Ways to let a job of the same function end before oneself: 'run(f, n)'
--- returns what f(n) returned there.
local WAYS <const> = {
  { "run", function (f, n) return parallel.run(f, n) end },
  { "spawn and get", function (f, n) return parallel.spawn(f, n):get() end },
  { "submit and join", function (f, n)
    local job <const> = parallel.submit { f, arguments = { n } }
    local ok <const>, value <const> = job:join()
    if not ok then error(value, 0) end
    return value
  end },
  { "wait", function (f, n)
    local job <const> = parallel.spawn(f, n)
    parallel.wait { job }
    return job:get()
  end },
  { "map", function (f, n) return parallel.map({ n }, f)[1] end },
  { "collect", function (f, n)
    local record <const> = parallel.collect({ n }, f)[1]
    if record.error ~= nil then error(record.error, 0) end
    return record.result
  end },
  { "each", function (f, n)
    local value
    for record in parallel.each({ n }, f) do
      if record.error ~= nil then error(record.error, 0) end
      value = record.result
    end
    return value
  end },
  { "invoke", function (f, n)
    local results <const>, errors <const> = parallel.invoke(f, { a = { n } })
    if errors.a ~= nil then error(errors.a, 0) end
    return results.a
  end },
  { "reduce", function (f, n)
    return parallel.reduce({ n, 0 }, function (a) return f(a) end)
  end },
  { "a pool of its own", function (f, n)
    local pool <close> = parallel.pool { max = 1 }
    return pool:run(f, n)
  end },
  { "a manager", function (f, n)
    local manager <close> = parallel.manager(1)
    manager:start(f, { n }, "a")
    local record <const> = manager:wait "a"
    if record.error ~= nil then error(record.error, 0) end
    return record.result
  end },
}

describe("jobs that wait for one another", function ()
  for _, way in ipairs(WAYS) do
    local run <const> = way[2]

    it("by " .. way[1] .. " nest a hundred times", function ()
      local pool <close> = parallel.pool { max = 2 }
      local function f (n)
        if n == 0 then return 0 end
        return 1 + run(f, n - 1)
      end
      assert.equal(100, pool:run(f, 100))
    end)

    it("by " .. way[1] .. " end where they nest without end", function ()
      local pool <close> = parallel.pool { max = 2 }
      local function f (n) return run(f, n + 1) end
      local ok <const>, why <const> = pcall(pool.run, pool, f, 1)
      assert.is_false(ok)
      assert.matches("jobs nested too deeply: 320 of them wait for one "
                     .. "another", tostring(why))
      assert.equal("well", pool:run "return 'well'")
    end)
  end

  it("by source that runs a function end as well", function ()
    local ok <const>, why <const> = pcall(parallel.run, [[
      local function f () return parallel.run(f) end
      return f()
    ]])
    assert.is_false(ok)
    assert.matches("jobs nested too deeply", tostring(why))
  end)

  it("are no jobs that start the next one and return", function ()
    local note <close> = notes.new()
    local write <const> = note.write
    local pool <close> = parallel.pool { max = 2 }
    pool:run(function ()
      local function step (n)
        if n == 0 then return write "ended" end
        parallel.spawn(step, n - 1)
      end
      step(1000)
    end)
    assert.is_true(gates.eventually(function () return #note:lines() > 0 end))
    assert.same({ "ended" }, note:lines())
  end)

  it("count those that their parent does not wait for yet", function ()
    local pool <close> = parallel.pool { max = 2 }
    local function deepest () return pcall(parallel.run, "return 1") end
    local function next_one () return parallel.run(deepest) end
    local function f (n)
      if n > 1 then return parallel.run(f, n - 1) end
      local own <const> = parallel.pool { max = 1 }
      local job <const> = own:spawn(next_one)
      -- Not by waiting, which would count it.
      while job.state == "queued" or job.state == "running" do end
      return job:get()
    end
    local ok <const>, why <const> = pool:run(f, 319)
    assert.is_false(ok)
    assert.matches("jobs nested too deeply", tostring(why))
    assert.is_true(pool:run(f, 317))
  end)
end)

--- Ways to call what calls oneself again, through the verbs.
local CALLS <const> = {
  "parallel.run('return 1', setmetatable({}, { __transfer = f }))",
  "parallel.spawn('return 1', setmetatable({}, { __transfer = f }))",
  "parallel.task.emit('x', setmetatable({}, { __transfer = f }))",
  "parallel.task.verbose(setmetatable({}, { __transfer = f }))",
  "parallel.map({ setmetatable({}, { __transfer = f }) }, 'return 1')",
  "parallel.map(function () return f() end, 'return 1')",
  "parallel.map(setmetatable({ n = 3 }, { __index = f }), 'return 1')",
  "parallel.collect({ 1 }, 'return 1', "
  .. "{ arguments = { setmetatable({}, { __transfer = f }) } })",
  "parallel.each(function () return f() end, 'return 1')()",
  "parallel.pool { variables = "
  .. "{ x = setmetatable({}, { __transfer = f }) } }",
  "parallel.map({ 1 }, 'return 1', { progress = f })",
}

describe("the C stack of a worker", function ()
  for _, call in ipairs(CALLS) do
    it("is not overflown by " .. call, function ()
      local pool <close> = parallel.pool { max = 1 }
      local text <const> = pool:run(("local function f () return %s end "
        .. "return tostring(select(2, pcall(f)))"):format(call))
      assert.is_truthy(text:find "overflow"
                       or text:find("'__transfer' failed", 1, true))
      assert.equal("well", pool:run "return 'well'")
    end)
  end

  it("is not overflown by what rebuilds results", function ()
    local pool <close> = parallel.pool { max = 1 }
    local text <const> = pool:run(function ()
      local function made ()
        return setmetatable({}, { __transfer = function ()
          return function () return rawget(_G, "again")() end
        end })
      end
      rawset(_G, "again", function () return parallel.run(made) end)
      return tostring(select(2, pcall(rawget(_G, "again"))))
    end)
    assert.matches("cannot be rebuilt here", text)
    assert.equal("well", pool:run "return 'well'")
  end)
end)
