-- SPDX-License-Identifier: MIT
--- Call a function once for each key, with that key's arguments.

local arguments = require "parallel.arguments"
local call = require "parallel.call"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local limits = require "parallel.limits"
local loop = require "parallel.loop"
local options = require "parallel.options"
local pace = require "parallel.pace"
local params = require "parallel.params"
local seeds = require "parallel.seed"

local ipairs, math, next, require, setmetatable, table, tostring, type =
  ipairs, math, next, require, setmetatable, table, tostring, type

---@class parallel.InvokeOptions: parallel.InitialStateFields, parallel.Limits
---@field async? boolean  return jobs by key at once
---@field limit? integer  calls at once
---@field name? string    of the call, in messages
---@field params? table<string, any>  for all keys; a key keeps its own
---@field journal? string|parallel.JournalOptions
---@field progress? parallel.ProgressOption
---@field streams? table<string, boolean|function>
---@field rate? parallel.Rate
---@field limit_by? parallel.LimitBy  `key` is a name in the arguments of a
---       call, or a function that gets them

local OWN <const> = {
  async = check.flag,
  arguments = "each key has its own; give params for all keys",
  chunk = "each key is a job of its own; leave it out",
}

--- Pools that were opened for jobs that are still on their way.
---@type table<parallel.Job, parallel.Pool>
local pools = setmetatable({}, { __mode = "k" })

--- The keys, in their order where they have one.
---@param calls table
---@return any[]
local function keys_of (calls)
  local keys = {}
  for key in next, calls do keys[#keys + 1] = key end
  table.sort(keys, check.precedes)
  return keys
end

---@param key any
---@return string
local function brief (key)
  return type(key) == "string" and "'" .. check.clean(key) .. "'"
         or tostring(key)
end

--- What one key's call gets: its values by position, or by name over the
--- common ones.
---@param fn function|string
---@param key any
---@param own any
---@param common table
---@return function|string fn
---@return table list  with `n`
local function arguments_of (fn, key, own, common)
  if type(own) ~= "table" then
    local hint <const> = options.is_known(key, OWN)
      and "; options come behind the calls: invoke(fn, calls, options)" or ""
    check.misuse("bad arguments of key " .. brief(key) .. " to 'invoke' (a "
                 .. "table expected, got " .. check.describe(own) .. hint
                 .. ")")
  end
  local list, named = params.split(own)
  for name, value in next, common do
    if named[name] == nil then named[name] = value end
  end
  if next(named) == nil then return fn, list end
  local bound, values, names = params.bind("invoke", fn, named, list.n,
                                           " (key " .. brief(key) .. ")")
  arguments.append(list, values, names)
  return bound, list
end

--- All calls, checked before the first one starts.  A chunk of source with
--- names differs with them; the keys of one text are called together.
---@param fn function|string
---@param calls table
---@param common table
---@return any[] keys
---@return table<any, table> lists   by key
---@return table<any, function|string> bodies  by key
local function prepare (fn, calls, common)
  local keys <const> = keys_of(calls)
  local lists, bodies = {}, {}
  for _, key in ipairs(keys) do
    bodies[key], lists[key] = arguments_of(fn, key, calls[key], common)
  end
  return keys, lists, bodies
end

---@param key any
---@param read table  the options of the call
---@param list table
---@param state string
---@param value any
---@param traceback string?
---@param reason string?
---@return parallel.Failure
local function fail (key, read, list, state, value, traceback, reason)
  local name <const> = read.name
  local failure = require("parallel.failure").new({
    input = list,
    error = value,
    traceback = traceback,
    state = state,
    reason = reason,
    name = (name and name .. ", " or "") .. tostring(key),
  }, not read.in_pool)
  failure.key = key
  return failure
end

--- Run the keys that share one body; results and failures by key.
---@param where parallel.Pool
---@param body function|string
---@param keys any[]
---@param lists table<any, table>
---@param read table
---@param progress? parallel.Progress
---@param results table
---@param errors table
---@param calls table
local function run (where, body, keys, lists, read, progress, results, errors,
                    calls)
  local items = {}
  for i, key in ipairs(keys) do items[i] = lists[key] end
  local batch <close> = call.batch(where, body, read, {
    chunk = 1,
    total = #items,
    continue = true,
    journal = read.opened_journal,
    keyed = function (index) return keys[index] end,
  })
  local _ <close> = require("parallel.streams").name_items(batch:id(),
    function (index) return tostring(keys[index]) end)
  local function tell (text)
    local item <const>, what <const> = text:match "^item (%d+): (.*)$"
    if item == nil then return text end
    local index <const> = math.tointeger(item)
    local list <const> = items[index]
    local value <const>, why <const> = what:match "^value (%d+): (.*)$"
    local called = ""
    if value ~= nil or list.n == 1 then
      called = arguments.called(arguments.names_in(list),
                                math.tointeger(value or 1))
    end
    return "key " .. brief(keys[index]) .. ": " .. called .. (why or what)
  end
  local values, at = {}, 1
  local source <const> = {
    limit_by = read.limit_by,
    called = function (i) return calls[keys[i]] end,
    feed = function (target)
      at = target:feed_packed(items, at, #items, tell)
      return at <= #items
    end,
  }
  local round <const> = loop.new {
    batch = batch, source = source, progress = progress,
  }
  while round:go_round() do
    local index, state, value, traceback, reason = batch:take_values(values)
    if progress ~= nil then progress:add(index ~= nil) end
    while index ~= nil do
      local key = keys[index]
      errors[key] = fail(key, read, items[index], state, value, traceback,
                         reason)
      index, state, value, traceback, reason = batch:take_values(values)
    end
  end
  if not round.finished then  -- the deadline has passed
    for i = at, #items do
      errors[keys[i]] = fail(keys[i], read, items[i], "timed_out", nil, nil,
                             batch:info().reason)
    end
  end
  for i, key in ipairs(keys) do results[key] = values[i] end
end

--- Keys by body, in order.
---@param keys any[]
---@param bodies table
---@return {body: function|string, keys: any[]}[]
local function by_body (keys, bodies)
  local groups, of = {}, {}
  for _, key in ipairs(keys) do
    local body = bodies[key]
    if of[body] == nil then
      of[body] = { body = body, keys = {} }
      groups[#groups + 1] = of[body]
    end
    table.insert(of[body].keys, key)
  end
  return groups
end

--- The arguments of `invoke`, read.
local function check_call (pool, fn, calls, opts)
  check.is_code("invoke", "fn", fn, type(calls) == "function"
                and "the function comes first: invoke(fn, calls)" or nil)
  if type(calls) ~= "table" then
    check.bad_argument("invoke", "calls", "a table of arguments by key", calls)
  end
  local read <const>, placed <const> = options.read("invoke", pool, opts, OWN)
  if read.async and read.progress then
    check.misuse("bad option 'progress' to 'invoke' (with async nobody waits: "
                 .. "leave it out, or wait for the jobs)")
  elseif read.async and read.journal then
    check.misuse("bad option 'journal' to 'invoke' (with async nobody waits: "
                 .. "leave it out, or wait for the results)")
  elseif read.async and pool ~= nil and read.limit ~= nil then
    check.misuse("bad option 'limit' to 'invoke' (with async the pool's own "
                 .. "workers are the limit: open a pool of " .. read.limit
                 .. ", or call parallel.invoke)")
  end
  for name in next, read.async and pace.tests or {} do
    if read[name] ~= nil then
      check.misuse("bad option '" .. name .. "' to 'invoke' (with async each "
                   .. "key is a job of its own: leave one of them out)")
    end
  end
  local keys <const>, lists <const>, bodies <const> =
    prepare(fn, calls, read.params or {})
  return pool, fn, keys, lists, bodies, read, placed, calls
end

local function invoke (pool, fn, keys, lists, bodies, read, placed, calls)
  if #keys == 0 then call.is_open(pool) end
  -- Jobs that nobody waits for here are limited by their pool.
  local own <const> = placed or read.async and read.limit ~= nil
  local where, temporary = call.place("invoke", pool, read, own)
  if read.async then
    local jobs = {}
    for number, group in ipairs(by_body(keys, bodies)) do
      local seed <const> = seeds.of_batch(read.seed, number)
      for index, key in ipairs(group.keys) do
        local described <const> = limits.copy({
          group.body, arguments = lists[key],
          name = core.escape(tostring(key)), streams = read.streams,
        }, read)
        described.seed = seed and seeds.of_item(seed, index)
        local job = where:submit(described)
        pools[job] = temporary
        jobs[key] = job
      end
    end
    return jobs
  end
  local _ <close> = temporary
  local progress <close> = read.progress
    and require("parallel.progress").start(read.progress, #keys, read.name)
    or nil
  local journal <close> = read.journal
    and require("parallel.journal").open("invoke", fn, read) or nil
  local results, errors = {}, {}
  local deadline <const> = core.now() + (read.deadline or math.huge)
  local groups <const> = by_body(keys, bodies)
  if read.rate ~= nil and #groups > 1 then
    check.misuse("bad option 'rate' to 'invoke' (the keys have different "
                 .. "names of arguments, and the source is another one for "
                 .. "each set of names: pass a function)")
  end
  for number, group in ipairs(groups) do
    local left <const> = math.max(1e-6, deadline - core.now())
    local rest <const> = setmetatable({
      deadline = left, in_pool = pool ~= nil,
      seed = seeds.of_batch(read.seed, number), opened_journal = journal,
    }, { __index = read })
    run(where, group.body, group.keys, lists, rest, progress, results, errors,
        calls)
  end
  return results, errors
end

local functions = {}

--- Call `fn` once for each key of `calls`, with the arguments there: by name
--- (`{host = "a", port = 80}`), by position (`{"a", 80}`), or both.  Never
--- raises for a call.
---
---     local pages, errors = parallel.invoke(fetch, {
---       web1 = {host = "10.0.0.1", port = 80},
---       web2 = {host = "10.0.0.2", port = 80},
---     }, {limit = 10})
---@type fun(fn: function|string, calls: table<any, table>,
---          opts?: parallel.InvokeOptions): table<any, any>,
---          table<any, parallel.Failure>?
functions.invoke =
  check.public("parallel.invoke(fn, calls [, options])", 3, invoke,
               function (...) return check_call(nil, ...) end)

local method <const> =
  check.public("pool:invoke(fn, calls [, options])", 4, invoke, check_call,
               core.is_pool)

return { functions = functions, methods = { invoke = method } }
