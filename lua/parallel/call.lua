-- SPDX-License-Identifier: MIT
--- A call over items: what it was given, the pool that it works in, and its
--- batch.

local arguments = require "parallel.arguments"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local input = require "parallel.input"
local limits = require "parallel.limits"
local options = require "parallel.options"
local pace = require "parallel.pace"

local require, setmetatable, table = require, setmetatable, table

--- Does the first failure stop a call?  Then there are none to be counted.
---@param verb string
---@param given table
---@param default "stop"|"continue"
---@return boolean
local function stops (verb, given, default)
  local stop <const> = (given.on_error or default) ~= "continue"
  if stop and given.max_failures ~= nil then
    check.misuse("bad option 'max_failures' to '" .. verb .. "' (the first "
                 .. "failure stops the call: give on_error = 'continue', or "
                 .. "leave it out)")
  end
  return stop
end

--- The pool for a call: the one whose method was called, the default one, or
--- one opened for this call, which is the second result too.
---@param verb string
---@param pool parallel.Pool?
---@param given table
---@param placed boolean|parallel.InitialState|parallel.InitialStateOptions
---       what 'read' gave; true: a pool of its own, whatever is said
---@return parallel.Pool pool
---@return parallel.Pool? temporary  to be closed when the call ends
local function place (verb, pool, given, placed)
  local limit <const> = given.limit
  if pool ~= nil then
    if limit == "auto" and not pool:info().adapts then
      check.misuse("bad option 'limit' to '" .. verb .. "' (the pool has a "
                   .. "size of its own: open it with max = 'auto', or give a "
                   .. "number)")
    end
    return pool, nil
  end
  local fits
  if limit == "auto" then
    fits = core.adapts()
  else
    fits = limit == nil or limit <= core.workers()
  end
  if not placed and (fits or core.serial()) then
    return core.default_pool(), nil
  end
  local said <const> = placed ~= true and placed or nil
  local temporary = require("parallel.pool").open_for(verb, given, said)
  return temporary, temporary
end

--- The function of a call over items, and what follows each item's values:
--- the `arguments`, or the `params` in the order of its parameters.
---@param verb string
---@param fn function|string
---@param given table
---@param leading integer?  values of an item, where that is known
---@return function|string fn
---@return table list  with `n`
local function bind (verb, fn, given, leading)
  if given.params == nil then
    return fn, table.pack(options.arguments(verb, given))
  end
  if given.arguments ~= nil then
    check.misuse("bad option 'params' to '" .. verb .. "' (values come by "
                 .. "name or by position: give params or arguments)")
  end
  local bound <const>, values <const>, names <const> =
    require("parallel.params").bind(verb, fn, given.params, leading)
  local list <const> = { n = 0 }
  arguments.append(list, values, names)
  return bound, list
end

--- The two public forms of a verb over items: a function, and a method of
--- pools.  'act' gets the pool or nil, the source of the items, the function,
--- its further arguments, the options, what some of them say of an initial
--- state, and whether the first failure stops the call.
---@param verb string
---@param argument string  name of the function
---@param own table        as in 'read'
---@param default "stop"|"continue"
---@param act fun(...: any): ...
---@return fun(...: any): ... call
---@return fun(...: any): ... method
local function over_items (verb, argument, own, default, act)
  local function prepare (pool, items, fn, opts)
    check.in_order(verb, items, argument, fn)
    local source <const> = input.open(verb, items)
    source.in_pool = pool ~= nil
    check.is_code(verb, argument, fn)
    local given <const>, placed <const> =
      options.read(verb, pool, opts, own)
    source.limit_by = given.limit_by
    local stop <const> = stops(verb, given, default)
    local bound <const>, list <const> = bind(verb, fn, given, source.values)
    return pool, source, bound, list, given, placed, stop
  end
  local usage <const> = verb .. "(items, " .. argument .. " [, options])"
  return check.public("parallel." .. usage, 3, act,
                      function (...) return prepare(nil, ...) end),
         check.public("pool:" .. usage, 4, act, prepare, core.is_pool)
end

--- The batch of a call over items, with its options.
---@param pool parallel.Pool
---@param fn function|string
---@param given table      the options of the call
---@param own table        what the verb has to say itself
---@param list? table      further arguments, with `n`
---@return parallel.Batch
local function plain_batch (pool, fn, given, own, list)
  own.limit = given.limit ~= "auto" and given.limit or nil
  own.chunk = own.chunk or given.chunk
  own.name = given.name
  own.streams = options.streams_of(pool, given.streams)
  own.max_failures = own.max_failures or given.max_failures
  own.cancel = given.on_error == "cancel"
  limits.add("call", own, given)
  pace.add(own, given)
  if list == nil then return core.batch(pool, fn, own) end
  own.names = arguments.names_in(list)
  return core.batch(pool, fn, own, table.unpack(list, 1, list.n))
end

--- The batch of a call over items, with its options; with a journal, if the
--- call has one.
---@param pool parallel.Pool
---@param fn function|string
---@param given table      the options of the call
---@param own table        what the verb has to say itself; for a journal, its
---       `verb`, or the `journal` that it has opened, and `keyed`
---@param list? table      further arguments, with `n`
---@return parallel.Batch
local function batch (pool, fn, given, own, list)
  if given.journal == nil then
    return plain_batch(pool, fn, given, own, list)
  end
  local journal <const> = own.journal
    or require("parallel.journal").open(own.verb, fn, given, list)
  local _ <close> = setmetatable({}, { __close = function (_, problem)
    if problem ~= nil then journal:close() end
  end })
  local made <const> = plain_batch(pool, fn, given, own, list)
  return require("parallel.journaled").wrap(made, journal, own,
                                            own.journal == nil)
end

--- For a call that has nothing to do, and so asks the pool for nothing.
---@param pool parallel.Pool?  whose method was called
local function is_open (pool)
  if pool ~= nil and pool:info().closed then
    check.misuse "the pool is closed"
  end
end

return {
  batch = batch,
  bind = bind,
  is_open = is_open,
  over_items = over_items,
  place = place,
  stops = stops,
}
