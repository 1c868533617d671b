-- SPDX-License-Identifier: MIT
--- What a stopped job waits for is stopped with it, wherever it runs.
local lfs <const> = require "lfs"
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

--- Parents: each lets so many children stand at the gate, and waits for them.
--- Called with what a child does (which tells the parent first that it is
--- there, unless its argument is true), what rings at the gate, and what
--- stands there.  Behind it how often the parent itself rings: one that starts
--- its children before it waits is stopped when it was seen to wait, since
--- only then it hears of them.  Last, "force" for one that only force ends,
--- and "own" where the children run in a pool of the parent: that ends with
--- the parent, and may leave the children too little time to ring.
local PARENTS <const> = {
  { "run", 1, function (child) parallel.run(child) end },
  { "run in a coroutine", 1, function (child)
    coroutine.wrap(function () parallel.run(child) end)()
  end },
  { "run in 'pcall' without end", 1, function (child)
    while true do pcall(parallel.run, child) end
  end, 0, "force" },
  { "run with streams", 1, function (child)
    local pool <const> = parallel.pool { max = 1, streams = { output = true } }
    pool:run(child)
  end, 0, "own" },
  { "run in another pool", 1, function (child)
    local pool <const> = parallel.pool { max = 1 }
    pool:run(child)
  end, 0, "own" },
  { "run in a pool of its scope", 1, function (child)
    local pool <close> = parallel.pool { max = 1 }
    pool:run(child)
  end, 0, "own" },
  { "map", 2, function (child)
    parallel.map({ 1, 2 }, child, { chunk = 1 })
  end },
  { "filter", 2, function (child)
    parallel.filter({ 1, 2 }, child, { chunk = 1 })
  end },
  { "reduce", 1, function (child)
    parallel.reduce({ 1, 2, 3, 4 }, function () child() end)
  end },
  { "collect", 2, function (child)
    parallel.collect({ 1, 2 }, child, { chunk = 1 })
  end },
  { "collect of an iterator", 2, function (child)
    local n = 0
    parallel.collect(function () n = n + 1 return n end, child,
                     { chunk = 1, limit = 2 })
  end },
  { "collect in another pool", 2, function (child)
    local pool <const> = parallel.pool { max = 2 }
    pool:collect({ 1, 2 }, child, { chunk = 1 })
  end, 0, "own" },
  { "each", 2, function (child)
    for _ in parallel.each({ 1, 2 }, child, { chunk = 1 }) do end
  end },
  { "each, in order", 2, function (child)
    for _ in parallel.each({ 1, 2 }, child, { chunk = 1, ordered = true }) do
    end
  end },
  { "each in a pool for the call", 2, function (child)
    for _ in parallel.each({ 1, 2 }, child, { limit = 2, chunk = 1,
                                              variables = { x = 1 } }) do end
  end, 0, "own" },
  { "invoke", 2, function (child)
    parallel.invoke(child, { a = {}, b = {} })
  end },
  { "get", 1, function (child, ring)
    local pool <const> = parallel.pool { max = 1 }
    parallel.on("here", ring)
    pool:spawn(child):get()
  end, 1, "own" },
  { "join", 1, function (child, ring)
    local pool <const> = parallel.pool { max = 1 }
    parallel.on("here", ring)
    pool:spawn(child):join(600)
  end, 1, "own" },
  { "records", 1, function (child, ring)
    local pool <const> = parallel.pool { max = 1 }
    parallel.on("here", ring)
    for _ in pool:spawn(child):records() do end
  end, 1, "own" },
  { "get, in a handler", 1, function (child, _, stand)
    local pool <const> = parallel.pool { max = 1 }
    parallel.on("here", stand)
    pool:spawn(child):get()
  end, 1, "own" },
  { "wait, in a handler", 2, function (child, _, stand)
    local pool <const> = parallel.pool { max = 2 }
    parallel.on("here", stand)
    parallel.wait { pool:spawn(child), pool:spawn(child) }
  end, 1, "own" },
  { "wait for all", 2, function (child, ring)
    local pool <const> = parallel.pool { max = 2 }
    parallel.on("here", ring)
    parallel.wait { pool:spawn(child), pool:spawn(child) }
  end, 2, "own" },
  { "wait for any", 2, function (child, ring)
    local pool <const> = parallel.pool { max = 2 }
    parallel.on("here", ring)
    parallel.wait({ pool:spawn(child), pool:spawn(child) }, { mode = "any" })
  end, 2, "own" },
  { "wait with a time-out", 2, function (child, ring)
    local pool <const> = parallel.pool { max = 2 }
    parallel.on("here", ring)
    parallel.wait({ pool:spawn(child), pool:spawn(child) },
                  { timeout = 600 })
  end, 2, "own" },
  { "wait in two pools", 2, function (child, ring)
    local one <const> = parallel.pool { max = 1 }
    local two <const> = parallel.pool { max = 1 }
    parallel.on("here", ring)
    parallel.wait { one:spawn(child), two:spawn(child) }
  end, 2, "own" },
  { "wait, while it runs one itself", 4, function (child)
    local pool <const> = parallel.pool { max = 1 }
    local jobs <const> = { pool:spawn(child, true) }
    -- Its own pool has two workers more.
    for i = 2, 4 do jobs[i] = parallel.spawn(child, true) end
    parallel.wait(jobs)
  end, 0, "own" },
  { "a manager's wait", 1, function (child, ring)
    local manager <const> = parallel.manager(1)
    parallel.on("here", ring)
    manager:start(child, {}, "a")
    manager:wait "a"
  end, 1, "own" },
  { "a manager's wait_all", 2, function (child, ring)
    local manager <close> = parallel.manager(2)
    parallel.on("here", ring)
    manager:start(child)
    manager:start(child)
    manager:wait_all()
  end, 2, "own" },
  { "the end of another pool", 1, function (child, ring)
    local pool <const> = parallel.pool { max = 1 }
    parallel.on("here", ring)
    pool:spawn(child)
    pool:close()
  end, 1, "own" },
  { "jobs of jobs in another pool", 1, function (child)
    local pool <const> = parallel.pool { max = 1 }
    pool:run(function ()
      local inner <const> = parallel.pool { max = 1 }
      inner:run(child)
    end)
  end, 0, "own" },
}

--- Ways to stop 'job' of 'pool'.
local STOPS <const> = {
  { "is cancelled", function (job, _, forced)
    job:cancel { grace = forced and 0.1 or 60 }
  end },
  { "is stopped by force", function (job) job:cancel { grace = 0 } end },
  { "ends with its pool", function (_, pool) pool:close(0) end },
}

--- How many have arrived at the gate by now, since this was called last.
local function arrived (gate)
  local bell <close> = assert(io.open(gate.bell, "w"))
  bell:write "."
  bell:flush()
  local n = 0
  while gate.arrivals:read(1) ~= "." do n = n + 1 end
  return n
end

--- The number of threads of this process.
local function threads ()
  local n = 0
  for task in lfs.dir "/proc/self/task" do
    if task:find "%d" then n = n + 1 end
  end
  return n
end

--- Threads of a process without pools; the thread sanitizer has one of its
--- own.
local ALONE <const> = tree.sanitizers == "thread" and 2 or 1

--- True when no thread is left of pools, those of parents too.
local function are_gone () return threads() <= ALONE end

--- A child that stands at the gate, and rings at the other one when it ends.
local function child_of (gate, ends)
  local pass <const>, bell <const> = gate.pass, ends.bell
  return function (quiet)
    local _ <close> = setmetatable({}, { __close = function ()
      local ring <close> = assert(io.open(bell, "w"))
      ring:write "x"
    end })
    if quiet ~= true then parallel.task.emit "here" end
    pass()
  end
end

--- What a parent does, with all that it needs.
local function parent_of (start, gate, ends)
  local child <const>, stand <const>, bell <const> =
    child_of(gate, ends), gate.pass, gate.bell
  local function ring ()
    local file <close> = assert(io.open(bell, "w"))
    file:write "x"
  end
  return function ()
    start(child, ring, stand)
    parallel.off "here"
  end
end

describe("a child", function ()
  for _, row in ipairs(PARENTS) do
    local name <const>, children <const>, start <const>, rings <const>,
          kind <const> = table.unpack(row, 1, 5)
    local forced <const> = kind == "force"
    local arrivals <const> = children + (rings or 0)

    for _, stop in ipairs(STOPS) do
      it("ends when its parent " .. stop[1] .. " in " .. name, function ()
        local pool <close> = parallel.pool { min = 3, max = 3 }
        local gate <close> = gates.new()
        local ends <close> = gates.new()
        local job <const> = pool:spawn(parent_of(start, gate, ends))
        gate:await(arrivals)
        stop[2](job, pool, forced)
        -- With its pool children may end first, and what the parent made of
        -- that counts.
        assert.is_truthy(job:wait(60))
        -- The gate stays closed: only a stop ends who stands there.  By force
        -- a child that runs inside of its parent has no time to ring.
        assert.is_true(gates.eventually(function ()
          return pool:info().running == 0
        end))
        -- Only with time enough is it certain that children ring.
        if stop[1] == "is cancelled" and kind == nil then
          ends:await(children)
        end
        -- A lost one stands at the gate still.
        if pool:info().lost_workers > 0 then gate:open() end
        pool:close()
        assert.is_true(gates.eventually(are_gone))
      end)
    end

    it("ends when the time of its parent is over in " .. name, function ()
      local pool <close> = parallel.pool { min = 3, max = 3 }
      local timeout, n, state = 0.05
      repeat  -- they may have come too late
        local gate <close> = gates.new()  -- a lost one stands there still
        local ends <close> = gates.new()
        local job <const> = pool:submit { parent_of(start, gate, ends),
                                          timeout = timeout }
        state = job:wait(60)
        -- One that only force ends is lost where the machine stands still for
        -- a second.
        if not (forced and state == "lost") then
          assert.equal("timed_out", state)
        end
        n = arrived(gate)
        -- A parent that was stopped before it waited has stopped no child.
        if n < arrivals then gate:open() end
        assert.is_true(gates.eventually(function ()
          return pool:info().running == 0
        end))
        timeout = 2 * timeout
      until n >= arrivals and state == "timed_out"
      pool:close()
      assert.is_true(gates.eventually(are_gone))
    end)
  end

  it("has as much time to clean up as its parent", function ()
    local pool <close> = parallel.pool { max = 3 }
    local first <close> = gates.new()
    local gate <close> = gates.new()
    local cleaning <close> = gates.new()
    local ends <close> = gates.new()
    local begin <const>, path <const> = first.pass, first.path
    local pass <const>, bell <const>, ring <const> =
      gate.pass, gate.bell, ends.pass
    local clean <const> = cleaning.pass
    ends:open()
    local job <const> = pool:spawn(function ()
      local child <const> = parallel.spawn(function ()
        local _ <close> = setmetatable({}, { __close = function ()
          clean()
          ring()
        end })
        begin()
        parallel.task.emit "here"
        pass()
      end)
      -- One that nobody has begun would run in its parent.
      while child.state == "queued" do parallel.task.sleep(0.001) end
      parallel.on("here", function ()
        local file <close> = assert(io.open(bell, "w"))
        file:write "x"
      end)
      local _ <close> = assert(io.open(path, "r+"))
      child:get()
    end)
    gate:await(2)
    job:cancel { grace = 60 }
    cleaning:await(1)
    -- When this one is forced to end, the usual grace of the child is over.
    local busy <const> = gate.pass
    local other <const> = pool:spawn(function ()
      local _ <close> = setmetatable({}, { __close = function ()
        while true do tostring {} end
      end })
      busy()
    end)
    gate:await(1)
    other:cancel()
    assert.equal("cancelled", other:wait(60))
    cleaning:open()
    assert.equal("cancelled", job:wait(60))
    ends:await(1)
  end)

  it("that nobody waits for goes on", function ()
    local pool <close> = parallel.pool { max = 3 }
    local gate <close> = gates.new()
    local stays <close> = gates.new()
    local pass <const>, stay <const> = gate.pass, stays.pass
    local job <const> = pool:spawn(function ()
      parallel.spawn(function ()
        pass()
        parallel.task.emit "child ends"
        stay()
      end)
      parallel.task.sleep(600)
    end)
    gate:await(1)
    job:cancel()
    assert.equal("cancelled", job:wait(60))
    gate:open()
    stays:await(1)
  end)
end)
