#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- A tour of the module, one thing after the other.
---
---     runspace examples/quickstart.lua

local parallel = require "parallel"  -- 'runspace' has it as a global, too

------------------------------------------------------------------- map

-- Apply a function to each item; the results keep the order of the items.
function square (x) return x * x end
print("map", table.concat(parallel.map({ 1, 2, 3 }, square), " "))

-- Items can be a range or an iterator; a function can be source text.
local sevens = parallel.map(parallel.range(7, 35, 7), "return ... + 1")
print("range", table.concat(sevens, " "))
local words = parallel.map(("to be or not"):gmatch "%a+", string.upper)
print("iterator", table.concat(words, " "))

-- What a function refers to travels with it, by global names and as upvalues:
-- tables, other functions, modules, and itself.
prices = { apple = 3, plum = 5 }
function price (name) return prices[name] or error("no " .. name) end
local function fib (n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
local costs = parallel.map({ "plum", "apple" }, function (name)
  return string.format("%s costs %d", name, price(name))
end)
print("globals", table.concat(costs, ", "))
print("recursion", table.concat(parallel.map({ 10, 20 }, fib), " "))

-- filter keeps items, reduce combines them.
local even = parallel.filter(parallel.range(1, 10), "return ... % 2 == 0")
print("filter", table.concat(even, " "))
print("reduce", parallel.reduce(parallel.range(1, 100), function (a, b)
  return a + b
end))

---------------------------------------------------------------- errors

-- map raises the first failure: which item it was, and what was raised.
local ok, failure = pcall(parallel.map, { "plum", "pear" }, price)
print("failure", ok, failure.index, failure.input, failure.error)

-- collect never raises for an item: a record tells what became of it.
for _, record in ipairs(parallel.collect({ "plum", "pear" }, price)) do
  print("collect", record.index, record.input, record.state,
        record.result or record.error)
end

-- What cannot travel is refused before anything is sent, by its path.
local log = io.stdout
print("refused", select(2, pcall(parallel.map, { 1 }, function (x)
  log:write(x)
end)))

------------------------------------------------------------------ each

-- Records as they complete, or in order; items are taken from an endless
-- iterator only as fast as records are taken from the loop.
local function naturals ()
  local n = 0
  return function ()
    n = n + 1
    return n
  end
end
for record in parallel.each(naturals(), "local n = ... return n * n",
                            { ordered = true }) do
  if record.index > 3 then break end
  print("each", record.input, record.result)
end

-------------------------------------------------------------- one job

-- run waits for the results of one call; spawn gives a job to wait for.
print("run", parallel.run(math.max, 3, 9, 4))
local job = parallel.spawn(fib, 15)
job:wait()
print("spawn", job.state, job:get())

--------------------------------------------------------------- events

-- Arguments can go by name; a job can tell while it runs.
local mover = parallel.submit {
  function (from, to)
    parallel.task.emit("moving", from .. " to " .. to)
    parallel.task.verbose "this may take a while"
    return "moved"
  end,
  params = { from = "a", to = "b" },
  name = "mover",
}
parallel.on("moving", function (event)
  print("event", event.job_name, event.data)
end)
print("submit", mover:get())
print("streams", mover.state, mover.streams.verbose[1].message)

-------------------------------------------------------------- stopping

-- Whatever a job does can be stopped, timed and limited.
local function busy (x)
  while x == 2 do pcall(error) end
  return x
end
for _, record in ipairs(parallel.collect({ 1, 2, 3 }, busy,
                                         { timeout = 0.05 })) do
  print("timeout", record.input, record.state)
end
do
  local pool <close> = parallel.pool { max = 1, memory = "8M" }
  local greedy = pool:spawn "local t = {} for i = 1, 1e9 do t[i] = i end"
  print("memory", greedy:wait(), greedy.reason)
end
print("cancel", parallel.spawn("while true do local t = {} end"):cancel())

----------------------------------------------------------------- pools

-- A pool has runspaces of its own; leaving the block closes it.
do
  local pool <close> = parallel.pool { max = 2 }
  local lengths = pool:map({ "a", "bb", "ccc" }, string.len)
  print("pool", table.concat(lengths, " "))

  -- Globals of a job are gone when it ends.
  pool:run "leak = 42"
  print("isolation", pool:run "return leak")
end

-- An initial state is what each runspace of a pool starts with.
local state = parallel.initial_state {
  variables = { greeting = "hello" },
  functions = { shout = function (s) return s:upper() .. "!" end },
  preload = { polite = "return { name = 'dear ' .. ... }" },
  init = "ready = shout(greeting)",
}
do
  local pool <close> = parallel.pool { initial_state = state, max = 1 }
  print("initial state", pool:run "return ready, require('polite').name")
end
