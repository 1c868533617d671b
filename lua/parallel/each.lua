-- SPDX-License-Identifier: MIT
--- Apply a function to many items and hand out records as they complete.
--
-- Both sides are lazy.  Nothing is pulled from the input while a finished
-- record waits to be taken, and the batch holds a bounded number of items;
-- so an endless input, a slow consumer, or both, take constant memory.

local call = require "parallel.call"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local loop = require "parallel.loop"

local misuse <const> = core.misuse
local require, setmetatable = require, setmetatable

---@class parallel.EachOptions: parallel.CallOptions
---@field ordered? boolean  in the order of the items; default, of completion
---@field on_error? "stop"|"continue"|"cancel"  default "continue"
---@field max_failures? integer  start nothing more once so many items failed

local OWN <const> = {
  max_failures = check.bounds "max_failures",
  on_error = check.one_of("stop", "continue", "cancel"),
  ordered = check.flag,
}

--- Records that wait for an earlier one before the input is held back, at
--- least; or this many chunks.
local HELD_RECORDS <const>, HELD_CHUNKS <const> = 256, 8

--- A loop in flight: what `each` gives to `for`, to be closed with it.
---@class parallel.EachLoop: parallel.Loop
---@field pool? parallel.Pool  opened for this loop
---@field stop boolean         at the first failure
---@field busy boolean         feeds, waits, or shows the progress, which may
---       run code of the script
---@field idle table           ends 'busy' when it is closed
local each_loop = setmetatable({ __name = "parallel.loop" }, loop)
each_loop.__index = each_loop

--- End the loop: start nothing more, give everything back.  When an error
--- ends it, what still runs is stopped.
---@param problem any
function each_loop:close (problem)
  if self.ended then return end
  self.ended, self.more = true, false
  local _ <close> = self.source.closing
  local _ <close> = self.pool
  local _ <close> = self.progress
  if self.batch ~= nil then
    if problem ~= nil then self.batch:cancel() end
    self.batch:close()
  end
end

each_loop.__close = each_loop.close

--- Ends a loop whose batch could not be opened.
local OPENING <const> = {
  __close = function (self, problem)
    if problem ~= nil then self.loop:close() end
  end,
}

--- Ends 'busy' of a loop, also when an error leaves it.
local IDLE <const> = {
  __close = function (self) self.loop.busy = false end,
}

--- The next record of the chunk that is read; nil at its end.
---@return parallel.Record?
function each_loop:read ()
  local record = self.batch:take_record()
  if record == nil or self.ended then return nil end
  local progress <const> = self.progress
  record.input = self.source.take(record.index)
  local state <const> = record.state
  local good <const> = state == "completed"
                       or state == "completed_with_errors"
  if state == "cancelled" or record.reason == "deadline"
     or self.stop and not good then
    self.more = false
  end
  if progress ~= nil then
    progress:add(not good)
    progress:hide()
  end
  return record
end

--- The next finished record, in the order of completion.  What runs meanwhile
--- (the input, a handler, what rebuilds a result) may close the loop, which
--- ends it then, but it may not take a record itself.
---@param held integer  records that wait for an earlier one
---@return parallel.Record?
function each_loop:take (held)
  if self.ended then return nil end
  if self.busy then
    misuse("this loop is busy: it is called from inside of itself, by code "
           .. "that runs while it takes a record")
  end
  local record = self:read()
  if record ~= nil or self.ended then return record end
  local _ <close> = self.idle
  self.busy = true
  local batch <const> = self.batch
  while true do
    local event = batch:wait(0)
    if event ~= "ready" and not self.ended then
      local full = held >= HELD_RECORDS
        and held >= HELD_CHUNKS * batch:info().chunk
      if not (full and self.more) then self:feed() end
      if self.ended then return nil end
      event = self:wait(full)
    end
    if event == "done" or self.ended then
      self:close()
      return nil
    end
    record = self:read()
    if record ~= nil or self.ended then return record end
  end
end

--- An iterator in the order of completion.
---@param self parallel.EachLoop
---@return fun(): parallel.Record?
local function as_completed (self)
  return function () return self:take(0) end
end

--- An iterator in the order of the items.
---@param self parallel.EachLoop
---@return fun(): parallel.Record?
local function in_order (self)
  local waiting, held, index = {}, 0, 1
  return function ()
    local record = waiting[index]
    if record ~= nil then
      waiting[index] = nil
      held = held - 1
    else
      record = self:take(held)
      while record ~= nil and record.index ~= index do
        waiting[record.index] = record
        held = held + 1
        record = self:take(held)
      end
    end
    if record ~= nil then index = record.index + 1 end
    return record
  end
end

local function each (pool, source, fn, list, opts, placed, stop)
  local where, temporary = call.place("each", pool, opts, placed)
  local self = setmetatable(loop.new {
    source = source,
    pool = temporary,
    where = where,  -- a pool that nobody else holds stays open
    stop = stop,
    busy = false,
    progress = opts.progress
      and require("parallel.progress").start(opts.progress, source.total,
                                             opts.name) or nil,
  }, each_loop)
  self.idle = setmetatable({ loop = self }, IDLE)
  local _ <close> = setmetatable({ loop = self }, OPENING)
  self.batch = call.batch(where, fn, opts, {
    verb = "each",
    total = source.total,
    records = true,
    continue = not self.stop,
    eager = true,
  }, list)
  return (opts.ordered and in_order or as_completed)(self), nil, nil, self
end

local call_each, each_in_pool =
  call.over_items("each", "fn", OWN, "continue", each)

local functions = {}

--- Apply `fn` to each item, for a generic `for` that gets a record of each as
--- it completes, or in the order of the items with `ordered`.  A failed item
--- is a record too.  Leaving the loop starts nothing more.
---
---     for record in parallel.each(hosts, probe, {limit = 5}) do
---       print(record.input, record.state, record.result or record.error)
---     end
---@type fun(items: parallel.AnyItems, fn: function|string,
---          opts?: parallel.EachOptions): (fun(): parallel.Record?), nil, nil,
---          parallel.EachLoop
functions.each = call_each

return { functions = functions, methods = { each = each_in_pool } }
