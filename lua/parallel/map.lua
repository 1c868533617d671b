-- SPDX-License-Identifier: MIT
--- Apply a function to many items, several at a time.

local call = require "parallel.call"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local loop = require "parallel.loop"

local error, require = error, require

---@class parallel.MapOptions: parallel.CallOptions
---@field on_error? "stop"|"continue"|"cancel"  default "stop": raise the first
---       failure; with "cancel" it stops what runs, too
---@field max_failures? integer  with "continue": raise once so many items have
---       failed

local OWN <const> = {
  max_failures = check.bounds "max_failures",
  on_error = check.one_of("stop", "continue", "cancel"),
}

--- A table with room for 'n' items.
---@param n? integer
---@return table
local function table_for (n)
  return n ~= nil and core.table ~= nil and core.table(n) or {}
end

--- What became of the item 'index', as a value to raise.
---@param source parallel.Input
---@param name string?
---@param index integer
---@param state string
---@param value any  what was raised
---@param traceback string?
---@param reason string?
---@return parallel.Failure
local function fail (source, name, index, state, value, traceback, reason)
  local item, first, last = source.item(index), index, nil
  if source.span ~= nil then first, last = source.span(index) end
  return require("parallel.failure").new({
    index = first,
    last = last,
    input = item,
    error = value,
    traceback = traceback,
    state = state,
    reason = reason,
    name = name,
  }, not source.in_pool)
end

--- The call's progress, if it shall be shown.
---@param opts parallel.CallOptions
---@param total integer?
---@return parallel.Progress?
local function show (opts, total)
  if not opts.progress then return nil end
  return require("parallel.progress").start(opts.progress, total, opts.name)
end

--- Run one batch to its end.  Values in the order of the items; with
--- `on_error = "continue"` failures by index too.  Raises the first failure
--- otherwise.
---@param pool parallel.Pool
---@param source parallel.Input
---@param fn function|string
---@param opts parallel.MapOptions
---@param keep? boolean  the inputs are asked for later
---@param list table  further arguments, with `n`
---@return table results
---@return table<integer, parallel.Failure>? failures
local function run (pool, source, fn, opts, keep, list)
  local go_on <const> = opts.on_error == "continue"
  local batch <close> = call.batch(pool, fn, opts, {
    verb = keep and "filter" or "map",
    total = source.total,
    continue = go_on,
  }, list)
  local _ <close> = source.name
    and require("parallel.streams").name_items(batch:id(), source.name) or nil
  local results = table_for(source.total)
  local forget = not keep and source.inputs or nil
  local shown <close> = show(opts, source.total)
  local round <const> = loop.new {
    batch = batch, source = source, progress = shown, counts = true,
  }
  local failures, cancelled
  local failed = 0
  while round:go_round() do
    round:feed()  -- the workers first
    local index, state, value, traceback, reason =
      batch:take_values(results, forget)
    while index ~= nil do
      local failure = fail(source, opts.name, index, state, value, traceback,
                           reason)
      local stopped <const> = state == "cancelled"
      if stopped or reason == "deadline" then round.more = false end
      if go_on then
        failures = failures or {}
        failures[index] = failure
        if not stopped then failed = failed + 1 end
      end
      if stopped then  -- its chunk overtook the failure that stopped it
        cancelled = cancelled or failure
      elseif not go_on or failed == opts.max_failures then
        round:count()
        error(failure, 0)
      end
      index, state, value, traceback, reason =
        batch:take_values(results, forget)
    end
  end
  if shown ~= nil then
    round:count()
    shown:draw()
  end
  if cancelled ~= nil and not go_on then error(cancelled, 0) end
  results.n = source.count()
  if round.more then  -- the deadline came between two items
    error(fail(source, opts.name, results.n + 1, "timed_out",
               "the deadline of the call has passed", nil, "deadline"), 0)
  end
  if failures == nil then return results end
  return results, failures
end

local function map (pool, source, fn, list, opts, placed)
  local _ <close> = source.closing
  local where, _ <close> = call.place("map", pool, opts, placed)
  return run(where, source, fn, opts, false, list)
end

local function filter (pool, source, predicate, list, opts, placed)
  local _ <close> = source.closing
  local where, _ <close> = call.place("filter", pool, opts, placed)
  local results, failures = run(where, source, predicate, opts, true, list)
  local item <const> = source.item
  local kept, n = {}, 0
  for i = 1, results.n do
    if results[i] then
      n = n + 1
      kept[n] = item(i)
    end
  end
  kept.n = n
  if failures == nil then return kept end
  return kept, failures
end

local call_map, map_in_pool = call.over_items("map", "fn", OWN, "stop", map)
local call_filter, filter_in_pool =
  call.over_items("filter", "predicate", OWN, "stop", filter)

local functions = {}

--- The first value that `fn` returns for each item, in the order of the
--- items.  Items that give nil leave a hole; `results.n` counts them all.
---
--- Raises a `parallel.Failure` as soon as an item is known to have failed,
--- and starts nothing more; with `on_error = "cancel"` what runs is stopped,
--- too.  With `on_error = "continue"` failed items leave
--- holes, and the second result has their failures by index.
---@type fun(items: parallel.AnyItems, fn: function|string,
---          opts?: parallel.MapOptions): table, table?
functions.map = call_map

--- The items for which `predicate` returns a true value, in their order;
--- `kept.n` counts them.  Failures as in `map`.
---@type fun(items: parallel.AnyItems, predicate: function|string,
---          opts?: parallel.MapOptions): table, table?
functions.filter = call_filter

return {
  functions = functions,
  methods = { filter = filter_in_pool, map = map_in_pool },
  run = run,
}
