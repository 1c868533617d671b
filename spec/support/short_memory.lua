-- SPDX-License-Identifier: MIT
--- What a script does while memory is short; for spec/alloc_check.c.
--
-- Each row is run with memory refused, and looked at when there is enough
-- again: `check` gets what `run` has returned, and returns what is wrong with
-- it, or nil.  Where `run` raises, or something has failed, it has to say that
-- there was not enough memory, and nothing else; or what `fails` accepts.

local parallel = ...

local SHORT <const> = "not enough memory"

--- Texts that would mislead.
local WRONG <const> = {
  "expected", "bad message", "too many", "not found", "attempt to",
  "a nil value", "invalid", "internal",
}

--- What is wrong with an error, or nil.
---@param value any
---@return string?
local function look (value)
  local text <const> = tostring(value)
  if not text:find(SHORT, 1, true) then return "it says: " .. text end
  for _, words in ipairs(WRONG) do
    if text:find(words, 1, true) then return "it misleads: " .. text end
  end
end

local function equals (want)
  return function (got)
    if got ~= want then return "got " .. tostring(got) end
  end
end

--- Did a job end in this state, with an error that `is_right` knows?
local function failed (is_right)
  return function (state, problem)
    if state ~= "failed" then return "its state is " .. tostring(state) end
    if not is_right(problem) then return look(problem) end
  end
end

--- Has each item its record, completed as `value` has it, or failed?
local function each_record (n, value, is_right)
  return function (records)
    for i = 1, n do
      local r <const> = records[i]
      if r == nil then return "item " .. i .. " is lost" end
      if r.index ~= i or r.input ~= i then
        return "item " .. i .. " has the index " .. tostring(r.index)
      end
      if r.state == "completed" or r.state == "completed_with_errors" then
        if r.result ~= value(i) then
          return "item " .. i .. " is " .. tostring(r.result)
        end
      elseif r.state ~= "failed" then
        return "item " .. i .. " is " .. r.state
      elseif not (is_right and is_right(i, r.error)) then
        local wrong <const> = look(r.error)
        if wrong then return "item " .. i .. ": " .. wrong end
      end
    end
  end
end

local function double (i) return 2 * i end

local function is_two (i, problem)
  return i == 2 and tostring(problem):find "two$"
end

--- Nothing is shown.
local SILENT <const> = { warning = false, error = false }

local pool <const> = parallel.pool {
  max = 1,
  streams = SILENT,
  preload = {
    own = "local C = {} C.__index = C"
       .. " return { C = C, new = function () return setmetatable({}, C) end }"
  },
}

parallel.on("unseen_failure", function () end)

local rows <const> = {}

local function row (name, run, check, more)
  local r <const> = more or {}
  r.name, r.run, r.check = name, run, check
  rows[#rows + 1] = r
end

--- It takes long: not each refusal is tried.
local function sampled () return { sampled = true } end

row("run", function ()
  return pool:run(function (x) return x + 1 end, 41)
end, equals(42))

row("run source", function () return pool:run "return 40 + 2" end, equals(42))

row("spawn, get", function ()
  local job = pool:spawn(function (t) return { t[1] + 1 } end, { 41 })
  return job:get()[1]
end, equals(42))

row("a job that fails", function ()
  local job <const> = pool:spawn(function () error { code = 7 } end)
  job:wait()
  return job.state, job.error
end, failed(function (e) return type(e) == "table" and e.code == 7 end))

row("a long traceback", function ()
  local function dive (n)
    if n == 0 then error "at the bottom" end
    return 1 + dive(n - 1)
  end
  local job <const> = pool:spawn(dive, 40)
  job:wait()
  return job.state, job.error
end, failed(function (e) return tostring(e):find "at the bottom$" end))

row("an error that cannot travel", function ()
  local job <const> = pool:spawn "error(coroutine.create(print))"
  job:wait()
  return job.state, job.error
end, failed(function (e) return tostring(e):find "^thread" end))

row("errors that are large tables", function ()
  return (pool:collect({ 1, 2, 3 }, function (x)
    error { code = x, text = ("x"):rep(70000) }
  end, { chunk = 3 }))
end, each_record(3, tostring, function (i, e)
  return type(e) == "table" and e.code == i
end))

row("a result that cannot be rebuilt", function ()
  local job <const> = pool:spawn(function () return require("own").new() end)
  job:wait()
  return job.state, job.error
end, failed(function (e)
  return tostring(e):find "module 'own' is needed"
end))

row("a function that cannot travel", function ()
  local thread <const> = coroutine.create(print)
  return pool:run(function () return thread end)
end, function () return "it has travelled" end, {
  fails = "cannot transfer a thread",
})

row("join", function ()
  local ok, problem = pool:spawn("error 'two'"):join()
  return ok, problem
end, function (ok, problem)
  if ok ~= false then return "it returns " .. tostring(ok) end
  if not tostring(problem.error):find "two$" then return look(problem) end
end)

row("map", function ()
  return pool:map({ 1, 2, 3 }, function (i) return { i } end)
end, function (results)
  for i = 1, 3 do
    if results[i][1] ~= i then return "result " .. i end
  end
end)

row("map an iterator", function ()
  local n = 0
  return pool:map(function ()
    n = n + 1
    return n <= 3 and n or nil
  end, double)
end, function (results)
  for i = 1, 3 do
    if results[i] ~= 2 * i then return "result " .. i end
  end
end)

row("map that fails", function ()
  return pool:map({ 1, 2, 3 }, function (i)
    return i == 2 and error "two" or i
  end)
end, function () return "it has not failed" end, { fails = "two" })

row("map with params", function ()
  return pool:map({ 1, 2 }, function (x, y) return x + y end,
                  { params = { y = 2 } })
end, function (results)
  if results[1] ~= 3 or results[2] ~= 4 then return "the results" end
end)

row("collect", function ()
  return pool:collect({ 1, 2, 3 }, double)
end, each_record(3, double))

row("collect what fails", function ()
  return pool:collect({ 1, 2, 3 }, function (i)
    if i == 2 then error("two", 0) end
    return 2 * i
  end, { chunk = 3 })
end, each_record(3, double, is_two))

row("collect what cannot be rebuilt", function ()
  return pool:collect({ 1, 2, 3 }, function (i)
    return i == 2 and require("own").new() or 2 * i
  end, { chunk = 3 })
end, each_record(3, double, function (i, e)
  return i == 2 and tostring(e):find "module 'own' is needed"
end))

row("collect with tries", function ()
  return pool:collect({ 1, 2, 3 }, function (i)
    if i == 2 and parallel.task.attempt == 1 then error "again" end
    return 2 * i
  end, { retries = 1 })
end, each_record(3, double, function (i, e)
  return i == 2 and tostring(e):find "again$"
end))

--- The chunk with the slow item is cut, and its rest queued again.
row("collect in a chunk that is cut", function ()
  return pool:collect(parallel.range(40), function (i)
    if i == 10 then
      local start <const> = os.clock()
      repeat until os.clock() - start > 0.006
    end
    return 2 * i
  end)
end, each_record(40, double), sampled())

row("collect with a function that hears of it", function ()
  local heard = 0
  return pool:collect({ 1, 2, 3 }, double,
                      { progress = function () heard = heard + 1 end })
end, each_record(3, double))

row("streams of items", function ()
  return pool:collect({ 1, 2, 3 }, function (i)
    local task <const> = parallel.task
    print("line", i)
    task.warning { i }
    task.progress { percent = i }
    task.emit("mark", i)
    task.error("two")
    return 2 * i
  end, { streams = SILENT })
end, each_record(3, double))

row("streams of a job", function ()
  local job <const> = pool:spawn(function ()
    for i = 1, 10 do parallel.task.verbose(i) end
    print "line"
    return 42
  end)
  return job:get(), #job.streams.all
end, function (got, n)
  if got ~= 42 then return "got " .. tostring(got) end
  if n > 11 then return n .. " records" end
end)

row("events", function ()
  local heard <const> = {}
  local job <const> = pool:spawn(function ()
    for i = 1, 3 do parallel.task.emit("mark", i) end
    return 42
  end)
  job:on("event", function (e) heard[#heard + 1] = e.data end)
  job:on("finished", function () heard.ended = true end)
  return job:get(), heard
end, function (got, heard)
  if got ~= 42 then return "got " .. tostring(got) end
  for i = 2, #heard do
    if heard[i] <= heard[i - 1] then return "the order of the events" end
  end
end)

row("each", function ()
  local sum = 0
  for record in pool:each({ 1, 2, 3 }, double) do
    if record.state ~= "completed" then error(record.error, 0) end
    sum = sum + record.result
  end
  return sum
end, equals(12))

row("each in order", function ()
  local list <const> = {}
  for record in pool:each({ 1, 2, 3 }, double, { ordered = true }) do
    list[#list + 1] = record
  end
  return list
end, each_record(3, double))

row("invoke", function ()
  return pool:invoke(function (x) return 2 * x end, { a = { 1 }, b = { 2 } })
end, function (results, errors)
  for key, want in pairs { a = 2, b = 4 } do
    if results[key] ~= want then
      if errors[key] == nil then return "key " .. key .. " is lost" end
      return look(errors[key])
    end
  end
end)

row("reduce", function ()
  return pool:reduce({ 1, 2, 3, 4, 5, 6, 7, 8 }, function (a, b)
    return a + b
  end)
end, equals(36))

row("wait", function ()
  local jobs <const>, heard = {}, 0
  for i = 1, 3 do
    jobs[i] = pool:spawn(double, i)
    jobs[i]:on("finished", function () heard = heard + 1 end)
  end
  local done <const>, pending <const> = parallel.wait(jobs)
  return #done, #pending
end, function (done, pending)
  if done ~= 3 or pending ~= 0 then
    return done .. " are done, " .. pending .. " pending"
  end
end)

row("wait for any", function ()
  local jobs <const> = { pool:spawn(double, 1), pool:spawn(double, 2) }
  local done <const> = parallel.wait(jobs, { mode = "any" })
  return #done > 0
end, equals(true))

row("an initial state", function ()
  local p <close> = parallel.pool {
    max = 1, variables = { v = 40 }, functions = { double = double },
    init = "w = 2",
  }
  return p:run "return v + double(w) - w"
end, equals(42), sampled())

row("a call with a pool of its own", function ()
  return parallel.map({ 1, 2 }, "return (...) + v",
                      { limit = 1, variables = { v = 40 } })
end, function (results)
  if results[1] ~= 41 or results[2] ~= 42 then return "the results" end
end, sampled())

row("large values", function ()
  local text <const> = ("x"):rep(300000)
  return pool:run(function (s)
    local t <const> = {}
    for i = 1, 4000 do t[i] = { i } end
    return #t == 4000 and s .. "y" or nil
  end, text) == text .. "y"
end, equals(true), sampled())

--- The next job of the pool is as any.
local function after ()
  local job <const> = pool:spawn(function (t) return { t[1] + 1 } end, { 41 })
  local ok <const>, got <const> = job:join()
  if ok and got[1] == 42 then return nil end
  return "the next job: " .. tostring(got)
end

--- What is wrong with what `run` of row `i` has left, or nil.
local function check (i, ok, ...)
  local r <const> = rows[i]
  local wrong
  if ok then
    wrong = r.check(...)
  else
    local text <const> = tostring((...))
    if not (r.fails and text:find(r.fails, 1, true)) then
      wrong = look(text)
    end
  end
  return wrong or after()
end

return rows, check
