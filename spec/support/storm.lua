-- SPDX-License-Identifier: MIT
--- Ways to be busy with the module, for 'storm_check': each is a function that
--- a job calls again and again until it is stopped.
local parallel <const> = require "parallel"

--- A type whose objects say themselves how they travel, to and fro.
local function made_of (x)
  return setmetatable({ x = x, list = { 1, 2, 3 } }, {
    __transfer = function (self)
      return function (value) return { x = value } end, self.x
    end,
  })
end

local function copy (x) return x end

--- A file for journals, for as long as this is loaded.
local journal <const> = os.tmpname()

local ways <const> = {
  files = setmetatable({}, { __gc = function () os.remove(journal) end }),
}
local function way (name, act) ways[#ways + 1] = { name = name, act = act } end

way("run", function () parallel.run(copy, 1) end)
way("run a source", function () parallel.run("return { ... }", "x") end)
way("run what raises", function ()
  pcall(parallel.run, function () error { code = 7 } end)
end)
way("xpcall of run", function ()
  xpcall(parallel.run, debug.traceback, "return 1")
end)
way("xpcall of run, with a handler", function ()
  xpcall(parallel.run, function (e) return { e } end, "error 'x'")
end)
way("run in 'pcall' without end", function ()
  pcall(function ()
    while true do pcall(parallel.run, copy, { 1, { 2 } }) end
  end)
end)
way("spawn and get", function () parallel.spawn(copy, {}):get() end)
way("spawn and forget", function () parallel.spawn(copy, "x") end)
way("spawn many", function ()
  local jobs <const> = {}
  for i = 1, 40 do jobs[i] = parallel.spawn(copy, i) end
  for i = 1, 40 do jobs[i]:join() end
end)
way("submit", function ()
  parallel.submit { function (a, b) return a + b end, params = { b = 2 },
                    arguments = { 1 }, name = "sum", retries = 1,
                    timeout = 5 }:get()
end)
way("cancel", function ()
  local job <const> = parallel.spawn "for _ = 1, 1e6 do end"
  job:cancel { grace = 0 }
  job:wait()
end)
way("remove", function () parallel.spawn "return 1":remove() end)
way("wait for all", function ()
  parallel.wait { parallel.spawn(copy, 1), parallel.spawn(copy, 2) }
end)
way("a group", function ()
  local g <close> = parallel.group()
  for i = 1, 5 do g:spawn(copy, i) end
  g:submit { copy, arguments = { 1 } }
  g:wait()
  g:spawn(copy, "x")
end)
way("a group that fails", function ()
  pcall(function ()
    local g <close> = parallel.group()
    for i = 1, 5 do g:spawn(copy, i) end
    g:spawn "error 'x'"
  end)
end)
way("groups in one another", function ()
  local outer <close> = parallel.group()
  outer:spawn(function ()
    local g <close> = parallel.group { timeout = 5 }
    for i = 1, 3 do g:spawn("return ...", i) end
  end)
  local inner <close> = parallel.group()
  inner:spawn(copy, 2)
end)
way("wait for any", function ()
  parallel.wait({ parallel.spawn(copy, 1), parallel.spawn(copy, 2) },
                { mode = "any", timeout = 1 })
end)
way("records of a job", function ()
  local job <const> = parallel.spawn(function ()
    parallel.task.verbose "a"
    parallel.task.information { "b" }
  end)
  for _ in job:records() do end
end)
way("map", function () parallel.map({ 1, 2, 3, 4 }, copy) end)
way("map of an iterator", function ()
  parallel.map(("a b c d"):gmatch "%a", function (x) return { x } end)
end)
way("map of a range", function ()
  parallel.map(parallel.range(1000), copy)
end)
way("map that fails", function ()
  pcall(parallel.map, { 1, 2, 3 }, function () error "x" end, { chunk = 1 })
end)
way("map with progress", function ()
  parallel.map({ 1, 2, 3 }, copy, { progress = function () end, chunk = 1 })
end)
way("map in a place of its own", function ()
  parallel.map({ 1, 2 }, function (x) return x + y end,  -- luacheck: ignore
               { variables = { y = 1 } })
end)
way("map with a journal and a seed", function ()
  pcall(parallel.map, { 1, 2, { 3 } }, copy, { journal = journal, seed = 1 })
end)
way("each with a journal, left early", function ()
  pcall(function ()
    for r in parallel.each(parallel.range(9), copy, { journal = journal }) do
      if r.index > 2 then break end
    end
    os.remove(journal)
  end)
end)
way("a map at a rate, by keys, with pauses between attempts", function ()
  pcall(parallel.map, { 1, 2, 3, 4, 5, 6 }, function (x)
    if parallel.task.attempt <= x % 3 then error "again" end
    return x
  end, { rate = { 4, per = 0.001 }, retries = 2, retry_delay = 0.001,
         limit_by = { key = function (x) return x % 2 end, limit = 1 } })
end)
way("a map whose first failure cancels the rest", function ()
  pcall(parallel.map, { 1, 2, 3 }, function (x)
    if x == 2 then error "x" end
    parallel.task.sleep(1)
  end, { on_error = "cancel", chunk = 1 })
end)
way("jobs that start later", function ()
  local jobs <const> = {}
  for i = 1, 5 do
    jobs[i] = parallel.submit { copy, arguments = { i },
                                start_after = i * 1e-4 }
  end
  parallel.submit { copy, start_after = 1e6 }:cancel()
  parallel.wait(jobs)
end)
way("a job with a seed", function ()
  parallel.submit { function () return math.random() end, seed = 1 }:get()
end)
way("filter", function ()
  parallel.filter({ 1, 2, 3 }, function (x) return x > 1 end)
end)
way("reduce", function ()
  parallel.reduce(parallel.range(50), function (a, b) return a + b end)
end)
way("collect", function ()
  parallel.collect({ 1, 2, 3 }, function (x)
    parallel.task.warning "w"
    if x == 2 then error { x } end
    return x, { x }
  end, { streams = { warning = false }, chunk = 1 })
end)
way("each", function ()
  for _ in parallel.each({ 1, 2, 3 }, copy) do end
end)
way("each, left early", function ()
  for record in parallel.each(parallel.range(30), copy, { ordered = true }) do
    if record.index == 3 then break end
  end
end)
way("each without its end", function ()
  local step <const> = parallel.each({ 1, 2, 3 }, copy)
  step()
end)
way("invoke", function ()
  parallel.invoke(copy, { a = { 1 }, b = { { 2 } } })
end)
way("invoke, later", function ()
  for _, job in pairs(parallel.invoke(copy, { a = { 1 } }, { async = true }))
  do job:join() end
end)
way("streams", function ()
  parallel.task.verbose "v"
  parallel.task.information { 1 }
  parallel.task.progress { percent = 50 }
end)
way("streams of a child", function ()
  parallel.submit { function ()
    for i = 1, 5 do parallel.task.verbose(i) end
  end, streams = { verbose = function () end } }:wait()
end)
way("emit", function () parallel.task.emit("storm", { 1, 2 }) end)
way("events of a child", function ()
  local heard <const> = parallel.on("child", function () end)
  parallel.spawn(function () parallel.task.emit("child", {}) end)
    :on("finished", function () end):wait()
  parallel.off("child", heard)
  parallel.poll(0)
end)
way("execute", function () parallel.task.execute { { "true" } } end)
way("execute that talks", function ()
  parallel.task.execute { "cat; sleep 0.01", stdin = ("x"):rep(100000),
                          env = { X = "1" }, timeout = 5 }
end)
way("popen to read", function ()
  local pipe <close> = io.popen "echo x"
  pipe:read "a"
end)
way("popen to write", function ()
  local pipe <const> = io.popen("cat >/dev/null", "w")
  pipe:write(("x"):rep(10000))
  pipe:close()
end)
way("popen that is left", function () io.popen "true" end)
way("files", function ()
  local file <close> = io.open("/dev/null", "w")
  file:write "x"
  for _ in io.lines "/proc/self/stat" do end
end)
way("sleep", function () parallel.task.sleep(0.001) end)
way("a pool", function () parallel.pool { max = 1 }:close() end)
way("a pool in a scope", function ()
  local pool <close> = parallel.pool { min = 2, max = 2 }
  pool:run(copy, 1)
end)
way("a pool that is left", function ()
  parallel.pool { max = 1 }:spawn(copy, 1)
  collectgarbage()
end)
way("a call everywhere", function ()
  local pool <close> = parallel.pool { min = 2, max = 2, max_tasks = 1 }
  pool:everywhere("x = ...", { 1 })
  pool:everywhere { "error 'x'" }
  pool:run "return x"
end)
way("a pool that is seeded", function ()
  local pool <close> = parallel.pool { max = 1, variables = { x = { 1 } },
                                       functions = { f = copy },
                                       init = "y = f(x[1])" }
  pool:map({ 1, 2 }, "return x")
end)
way("a pool that cannot be seeded", function ()
  pcall(parallel.pool, { init = "error 'x'" })
end)
way("a pool of a sandbox", function ()
  local pool <close> = parallel.pool { max = 1, sandbox = true }
  pool:run(copy, {})
end)
way("a pool of fresh states", function ()
  local pool <close> = parallel.pool { max = 1, reset = "fresh" }
  pool:map({ 1, 2 }, copy)
end)
way("a full queue", function ()
  local pool <close> = parallel.pool { max = 1, queue = 1 }
  for _ = 1, 5 do pool:spawn(copy, 1) end
  pool:try_submit { copy }
end)
way("a manager", function ()
  local manager <close> = parallel.manager(1)
  manager:start(copy, { 1 }, "a")
  manager:wait "a"
  manager:wait_all()
end)
way("an initial state", function ()
  parallel.initial_state { variables = { a = { 1 }, b = "x" },
                           init = function () return 1 end,
                           preload = { m = function () return {} end } }
end)
way("'__transfer' of arguments", function ()
  parallel.run(function (o) return o.x end, made_of(1))
end)
way("'__transfer' of results", function ()
  parallel.run(function () return made_of(2) end)
end)
way("'__transfer' of items", function ()
  parallel.map({ made_of(1), made_of(2) }, function () return made_of(3) end)
end)
way("large values", function ()
  parallel.run(copy, ("x"):rep(300000))
  local list = {}
  for i = 1, 1000 do list[i] = { tostring(i) } end
  parallel.run(copy, list)
end)
way("coroutines", function ()
  local step <const> = coroutine.wrap(function ()
    coroutine.yield(parallel.run(copy, 1))
    local _ <close> = setmetatable({}, { __close = function ()
      parallel.run(copy, 2)
    end })
    coroutine.yield()
  end)
  step()
  step()
  local co <const> = coroutine.create(function ()
    coroutine.yield(parallel.map({ 1 }, copy))
  end)
  coroutine.resume(co)
  coroutine.close(co)
end)
way("finalizers", function ()
  setmetatable({}, { __gc = function () parallel.run(copy, 1) end })
  collectgarbage()
end)
way("what is closed", function ()
  local _ <close> = setmetatable({}, { __close = function ()
    parallel.run(copy, 1)
    parallel.map({ 1 }, copy)
  end })
end)
way("callbacks", function ()
  string.gsub("abc", "%a", function (c) return parallel.run(copy, c) end)
  table.sort({ 3, 2, 1 }, function (a, b)
    return parallel.run(function (x, y) return x < y end, a, b)
  end)
end)
way("jobs of jobs", function ()
  local function nest (n)
    return n == 0 and 0 or parallel.run(nest, n - 1) + 1
  end
  nest(20)
end)
way("statistics", function ()
  parallel.spawn(copy, 1)
  parallel.jobs()
  parallel.stats()
end)

--- Ways to stop a job of 'pool', some time after it was started.
local STOPS <const> = {
  function (job) job:cancel() end,
  function (job) job:cancel { grace = 0 } end,
  function (job) job:cancel { grace = 0.001 } end,
  function (job) job:cancel { grace = 0.02 } end,
  function (_, pool) pool:cancel() end,
  function (_, pool) pool:close(0) end,
  function () end,  -- its time is over by itself
}

--- Those that stop all jobs of a pool.
local ALL <const> = { [5] = true, [6] = true }

--- Did it end by that?  Where all jobs of its pool are stopped its children
--- may be stopped first, and it fails with that.
---@param state string
---@param stop integer
---@return boolean
local function is_stopped (state, stop)
  return state == "cancelled" or state == "timed_out"
         or state == "failed" and ALL[stop]
end

--- Run a way in a job, and stop that, 'rounds' times.
---@param given {name: string, act: function}
---@param rounds integer
---@param seed integer
local function run (given, rounds, seed)
  math.randomseed(seed)
  parallel.run(function ()  -- the keeper of programs stays
    parallel.task.execute { "true" }
  end)
  local act <const> = given.act
  local pool = nil
  for round = 1, rounds do
    pool = pool or parallel.pool { max = 3 }
    local moment <const> = math.random() ^ 2 * 0.006
    local stop <const> = math.random(#STOPS)
    local job <const> = pool:submit {
      function ()
        parallel.on("unseen_failure", function () end)
        while true do act() end
      end,
      timeout = stop == #STOPS and moment + 1e-4 or nil,
      streams = { output = false, warning = false, error = false },
    }
    parallel.task.sleep(moment)
    STOPS[stop](job, pool)
    if not is_stopped(job:wait(60), stop) then
      error(("round %d, stop %d: %s, %s"):format(round, stop, job.state,
                                                 job.error), 0)
    end
    if pool:info().closed then
      pool:close()
      pool = nil
    end
  end
  if pool ~= nil then pool:close() end
end

ways.run = run
return ways
