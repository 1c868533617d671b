-- SPDX-License-Identifier: MIT
--- Apply a function to many items and keep what became of each.

local call = require "parallel.call"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local loop = require "parallel.loop"
local report = require "parallel.report"

local math, require = math, require

---@class parallel.Record
---@field index integer     of the item, from 1
---@field input any         the item
---@field state string     "completed", "completed_with_errors", "failed",
---       "cancelled", "lost", ...
---@field result any        the first value that the function returned
---@field results table     all of them, with `n`
---@field error any        what was raised; a table comes as a copy; where the
---       item completed with errors, the first one of its stream; where it was
---       lost, or that no worker was left
---@field streams? table<string, parallel.StreamRecord[]>  what it sent while
---       it ran, by stream, and `all` of it in order; nil when it sent nothing
---@field traceback? string of the runspace
---@field queued number     seconds from adding the item to its start
---@field duration number   seconds from its start to its end
---@field worker integer    which worker of the pool ran it; 0 for none
---@field host? string      where it ran, in a pool with `hosts`
---@field attempts integer  how often it was started
---@field reason? string     why it ended as it did, where it did not complete
---@field journaled? boolean it is from the journal, and was not done now

---@class parallel.CollectOptions: parallel.CallOptions
---@field on_error? "stop"|"continue"|"cancel"  default "continue"
---@field max_failures? integer  start nothing more once so many items failed

local OWN <const> = {
  max_failures = check.bounds "max_failures",
  on_error = check.one_of("stop", "continue", "cancel"),
}

--- Run a batch to its end, or to its first failure.
---@param batch parallel.Batch
---@param source parallel.Input
---@param stop boolean  at the first failure
---@param progress? parallel.Progress
---@return table records
---@return table info
---@return any why  what is told of items that the deadline has kept from
---        starting
local function run (batch, source, stop, progress)
  local records, why = {}, nil
  local round <const> = loop.new {
    batch = batch, source = source, progress = progress,
  }
  while round:go_round() do
    local record = batch:take_record()
    while record ~= nil do
      local index <const> = record.index
      record.input = source.take(index)
      records[index] = record
      local state <const> = record.state
      local good <const> = state == "completed"
                           or state == "completed_with_errors"
      if record.reason == "deadline" and record.attempts == 0 then
        why = record.error
      end
      if state == "cancelled" or record.reason == "deadline"
         or stop and not good then
        round.more = false
      end
      if progress ~= nil then progress:add(not good) end
      record = batch:take_record()
    end
  end
  return records, batch:info(), why
end

--- Add records for the items that were never added.
---@param records table
---@param source parallel.Input
---@param total integer
---@param reason string?  why the batch was stopped
---@param why any  their error
local function complete (records, source, total, reason, why)
  local late <const> = reason == "deadline"
  for i = 1, total do
    if records[i] == nil then
      records[i] = { index = i, input = source.take(i),
                     state = late and "timed_out" or "cancelled",
                     reason = reason or "cancelled", attempts = 0,
                     error = late and why or nil,
                     results = { n = 0 }, queued = 0.0, duration = 0.0,
                     worker = 0 }
    end
  end
  records.n = total
end

--- Items that 'collect' keeps records of, also of those that were not started.
local MOST <const> = 100000000

--- Collect for 'verb', which stands in messages; default "collect".
---@return parallel.Record[] records
---@return parallel.Report report
local function collect (pool, source, fn, list, opts, placed, stop, verb)
  verb = verb or "collect"
  local _ <close> = source.closing
  local started <const> = core.now()
  if (source.total or 0) > MOST then
    check.misuse("bad argument 'items' to '" .. verb .. "' (a record of each "
                 .. "is kept: " .. MOST .. " items at most, got "
                 .. source.total .. "; 'each' keeps none)")
  end
  local where, _ <close> = call.place(verb, pool, opts, placed)
  local progress <close> = opts.progress
    and require("parallel.progress").start(opts.progress, source.total,
                                           opts.name) or nil
  local batch <close> = call.batch(where, fn, opts, {
    verb = verb,
    total = source.total,
    records = true,
    continue = not stop,
  }, list)
  local records, info, why = run(batch, source, stop, progress)
  local total <const> = source.total or source.count()
  complete(records, source, total, info.reason, why)
  return records, report.new(records, total, started, core.now(),
                             info.chunks,
                             opts.chunk and math.tointeger(opts.chunk))
end

local call_collect, collect_in_pool =
  call.over_items("collect", "fn", OWN, "continue", collect)

local functions = {}

--- Apply `fn` to each item and return a record of each, in the order of the
--- items, and a report of them all.  A failed item never raises.  With
--- `on_error = "stop"` what was not started when the first item failed has
--- the state "cancelled"; with `on_error = "cancel"` so has what ran then.
---@type fun(items: parallel.AnyItems, fn: function|string,
---          opts?: parallel.CollectOptions): parallel.Record[],
---          parallel.Report
functions.collect = call_collect

return {
  collect = collect,
  functions = functions,
  methods = { collect = collect_in_pool },
}
