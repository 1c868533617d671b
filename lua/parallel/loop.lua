-- SPDX-License-Identifier: MIT
--- The loop of a call over items: feed the workers, and wait for what they
--- have.

local pace = require "parallel.pace"

local setmetatable = setmetatable

--- What `map`, `collect`, `each` and `invoke` go round in.  `feed` and `wait`
--- run code of the script (an iterator, a function that is told of progress),
--- which may end the loop.
---@class parallel.Loop
---@field batch parallel.Batch
---@field source parallel.Input   what gives the items
---@field progress? parallel.Progress
---@field counts? boolean   the progress shows the counts of the batch
---@field more boolean      the source has items left
---@field finished boolean  the batch was told that no more items come
---@field ended? boolean    nothing is fed or waited for any more
---@field target? parallel.Batch|parallel.KeyedFeed  what the source feeds
local loop = {}
loop.__index = loop

--- Make 'fields' a loop.
---@param fields table  'batch' may follow
---@return parallel.Loop
function loop.new (fields)
  fields.more, fields.finished = true, false
  return setmetatable(fields, loop)
end

--- Let the source add items while there is room for them, and tell the batch
--- when no more come.
function loop:feed ()
  local batch <const>, progress <const> = self.batch, self.progress
  if self.more then
    local source <const> = self.source
    local target = self.target
    if target == nil then
      local by <const> = source.limit_by
      target = by ~= nil and pace.feed(batch, by, source.called) or batch
      self.target = target
    end
    self.more = progress ~= nil and progress:feed(source, target)
                or progress == nil and source.feed(target)
  end
  if not self.more and not self.finished and not self.ended then
    batch:finish()
    self.finished = true
  end
end

--- Bring the counts of the progress up to date.
function loop:count ()
  local progress <const> = self.progress
  if progress == nil then return end
  local info <const> = self.batch:info()
  progress.done, progress.failed = info.finished, info.failed
end

--- Wait until there is something to take, or nothing more will come.
---@param full? boolean  nothing may be fed now, though there is room
---@return "ready"|"done"|nil event
function loop:wait (full)
  -- An iterator may have been cut short though there is room: look only.
  local look <const> = self.more and not full and self.batch:room() > 0
  local patience = look and 0 or nil
  if self.progress ~= nil then
    if self.counts then self:count() end
    patience = self.progress:patience(patience)
    if self.ended then return nil end
  end
  return self.batch:wait(patience)
end

--- Feed the workers until there is something to take.
---@return boolean  false: everything was taken, and no more will come
function loop:go_round ()
  while true do
    self:feed()
    local event <const> = self:wait()
    if event == "ready" then return true end
    if event == "done" then return false end
  end
end

return loop
