-- SPDX-License-Identifier: MIT
--- A batch with a journal.  It has the methods of a batch, so that a verb does
--- not know of the journal: items that have completed in an earlier run are
--- left out of the batch, and taken from the journal in their place; and what
--- becomes of the others is noted before it is handed out.

local _, core = ...  -- parallel.core

local math, setmetatable, table = math, setmetatable, table

--- Items that are taken from the journal before some of them are handed out,
--- at most.
local HELD <const> = 1000

--- Seconds after which a wait looks what has ended: the batch alone wakes its
--- opener later, where chunks are long.
local LOOK <const> = 0.05

--- Seconds after which a slow iterator's items are sent, however few.
local PATIENCE <const> = 1e-3

---@class parallel.JournaledBatch: parallel.Batch
---@field batch parallel.Batch
---@field journal parallel.Journal
---@field owns boolean         the journal is closed with the batch
---@field eager boolean        records are handed out one by one
---@field keyed? fun(index: integer): any  a further value of an item's key
---@field keys table<integer, string>  of items that are on their way
---@field found table[]        what the journal had, and is not handed out
---@field first integer        the next one of 'found'
---@field last integer         the last one
---@field passed integer       items that the journal had
---@field waiting table<integer, table>  the values of items that were pulled
---       from an iterator, and are not in the batch
---@field at integer           the first one of 'waiting'
---@field over boolean         the iterator has ended
local journaled = { __name = "parallel.batch" }
journaled.__index = journaled

--- Give a batch a journal.
---@param batch parallel.Batch
---@param journal parallel.Journal
---@param own {eager?: boolean, keyed?: fun(index: integer): any}
---@param owns boolean
---@return parallel.Batch
local function wrap (batch, journal, own, owns)
  return setmetatable({
    batch = batch, journal = journal, owns = owns, eager = own.eager or false,
    keyed = own.keyed, keys = {}, found = {}, first = 1, last = 0, passed = 0,
    waiting = {}, at = 1, over = false,
  }, journaled)
end

--- Know an item by its values, until it has ended.
---@param index integer
---@param ... any
---@return string key
function journaled:know (index, ...)
  local keyed <const> = self.keyed
  local key
  if keyed ~= nil then
    key = self.journal:key_of(index, keyed(index), ...)
  else
    key = self.journal:key_of(index, ...)
  end
  self.keys[index] = key
  return key
end

--- Take an item from the journal; false: it has to be done.
---@param index integer
---@param key string
---@return boolean
function journaled:recall (index, key)
  local known <const> = table.pack(self.journal:take(key))
  if not known[1] then return false end
  self.keys[index] = nil
  self.batch:pass()
  self.last = self.last + 1
  self.found[self.last] = {
    index = index, attempts = known[2], duration = known[3],
    results = table.move(known, 4, known.n, 1, { n = known.n - 3 }),
  }
  self.passed = self.passed + 1
  return true
end

--- Tell whether enough was taken from the journal for now.
---@return boolean
function journaled:is_full ()
  return self.last - self.first >= HELD
end

--- Go over items: those that are in the journal are taken from it, and runs of
--- others are added to the batch.
---@param from integer
---@param last integer
---@param know fun(index: integer): string  return the key of an item
---@param add fun(from: integer, last: integer): integer
---       add items, as many as there is room for; return the next one
---@return integer  the next one
function journaled:feed (from, last, know, add)
  local batch <const>, journal <const> = self.batch, self.journal
  local run, room = from, batch:room()
  local i = from
  while i <= last and not self:is_full() do
    local key <const> = know(i)
    if journal:has(key) then
      if run < i then
        local done <const> = add(run, i - 1)
        if done < i then return done end
      end
      if self:recall(i, key) then
        run = i + 1
        room = batch:room()
        goto next
      end
      run, room = i, batch:room()
    end
    if i - run >= room then
      if run == i then return i end
      local done <const> = add(run, i - 1)
      if done < i then return done end
      run, room = i, batch:room()
      if room == 0 then return i end
    end
    ::next::
    i = i + 1
  end
  if run < i then return add(run, i - 1) end
  return i
end

function journaled:feed_array (items, from, last)
  return self:feed(from, last, function (index)
    return self:know(index, items[index])
  end, function (first, final)
    return self.batch:feed_array(items, first, final)
  end)
end

function journaled:feed_range (first, step, from, last)
  return self:feed(from, last, function (index)
    return self:know(index, first + (index - 1) * step)
  end, function (one, final)
    return self.batch:feed_range(first, step, one, final)
  end)
end

function journaled:feed_packed (items, from, last, tell)
  return self:feed(from, last, function (index)
    local item <const> = items[index]
    return self:know(index, table.unpack(item, 1, item.n or #item))
  end, function (first, final)
    return self.batch:feed_packed(items, first, final, tell)
  end)
end

--- Add what was pulled from an iterator to the batch, as far as there is room.
---@param last integer  index of the last item that was pulled
---@param tell? fun(text: string): string
---@return boolean  all of it
function journaled:send (last, tell)
  local waiting <const>, from <const> = self.waiting, self.at
  if from > last then return true end
  local at <const> = self:feed(from, last, function (index)
    return self.keys[index]
  end, function (first, final)
    return self.batch:feed_packed(waiting, first, final, tell)
  end)
  for i = from, at - 1 do waiting[i] = nil end
  self.at = at
  return at > last
end

function journaled:feed_iterator (step, state, control, inputs, added, tell)
  local start <const> = core.now()
  if not self:send(added, tell) then return true, control, added end
  local function pull (...)
    local value <const> = ...
    if value == nil then
      self.over = true
      return
    end
    control, added = value, added + 1
    if inputs ~= nil then inputs[added] = value end
    local key <const> = self:know(added, ...)
    if self.at == added and self.journal:has(key)
       and self:recall(added, key) then
      self.at = added + 1
    else
      self.waiting[added] = table.pack(...)
    end
  end
  local room <const> = self.batch:room()
  while not self.over and added - self.at + 1 < room and not self:is_full() do
    pull(step(state, control))
    if core.now() - start > PATIENCE then break end
  end
  if self:send(added, tell) and self.over then return false, nil, added end
  return true, control, added
end

--- The next one that the journal had.
---@return table?
function journaled:next_found ()
  local first <const> = self.first
  local found <const> = self.found[first]
  if found == nil then return nil end
  self.found[first] = nil
  self.first = first + 1
  return found
end

function journaled:wait (patience)
  local journal <const> = self.journal
  if self.first <= self.last then
    journal:write()
    return "ready"
  end
  local deadline <const> = core.now() + (patience or math.huge)
  while true do
    journal:write()
    local left <const> = math.max(0, deadline - core.now())
    local event <const> = self.batch:wait(math.min(left, LOOK))
    if event ~= "timeout" or left <= LOOK then return event end
  end
end

--- Note what became of an item that was done.
---@param index integer
---@param state string
---@param attempts integer
---@param duration number
---@param problem any
---@param ... any
function journaled:note (index, state, attempts, duration, problem, ...)
  local key <const> = self.keys[index]
  self.keys[index] = nil
  if key == nil or attempts == 0 then return end
  if state == "completed" then
    self.journal:add(index, key, attempts, duration, ...)
  elseif state ~= "cancelled" then
    self.journal:add_failure(key, state, problem)
  end
  if self.eager then self.journal:write() end
end

function journaled:take_record ()
  local found <const> = self:next_found()
  if found ~= nil then
    found.state, found.result = "completed", found.results[1]
    found.queued, found.worker, found.journaled = 0.0, 0, true
    return found
  end
  local record <const> = self.batch:take_record()
  if record ~= nil then
    local results <const> = record.results
    self:note(record.index, record.state, record.attempts, record.duration,
              record.error, table.unpack(results, 1, results.n))
  end
  return record
end

function journaled:take_values (results, inputs)
  local found = self:next_found()
  while found ~= nil do
    results[found.index] = found.results[1]
    if inputs ~= nil then inputs[found.index] = nil end
    found = self:next_found()
  end
  while true do
    local index <const>, state <const>, value <const>, traceback <const>,
          reason <const> = self.batch:take_value()
    if index == nil then return nil end
    if state == "completed" then
      self:note(index, state, 1, 0, nil, value)
    else
      self:note(index, state, 1, 0, value)
    end
    if state ~= "completed" and state ~= "completed_with_errors" then
      return index, state, value, traceback, reason
    end
    results[index] = value
    if inputs ~= nil then inputs[index] = nil end
  end
end

function journaled:info ()
  local info <const> = self.batch:info()
  info.started = info.started + self.passed
  info.finished = info.finished + self.passed
  return info
end

function journaled:id () return self.batch:id() end

function journaled:set_key (key) return self.batch:set_key(key) end

function journaled:finish () return self.batch:finish() end

function journaled:room () return self.batch:room() end

function journaled:stop () return self.batch:stop() end

function journaled:cancel () return self.batch:cancel() end

--- End the batch, and write what was noted; the file is closed with it, unless
--- other batches follow.
---@param problem any
function journaled:close (problem)
  local _ <close> = self.owns and self.journal or nil
  self.first, self.last, self.found = 1, 0, {}
  self.batch:close(problem)
  if not self.owns then self.journal:write() end
end

journaled.__close = journaled.close

return { wrap = wrap }
