-- SPDX-License-Identifier: MIT
--- The end of a script: jobs that it has started and not waited for.

local event = require "parallel.event"
local _, core = ...  -- parallel.core

local ipairs, math, table = ipairs, math, table

--- Seconds after which a terminal is told what the script waits for.
local QUIET <const> = 2

--- Seconds between two looks at the pools.  The end of a job wakes this thread
--- a little before the pool has counted it.
local SHORT <const>, LONG <const> = 0.001, 0.1

--- Count the jobs of all pools of this state.
---@return integer queued
---@return integer running
local function unfinished ()
  local queued, running = core.left()
  for _, pool in ipairs(core.pools()) do
    local info <const> = pool:info()
    queued, running = queued + info.queued, running + info.running
  end
  return queued, running
end

---@param n integer
---@return string
local function jobs (n)
  return n == 1 and "1 job" or ("%d jobs"):format(n)
end

--- Let paused pools go on, since nobody will resume them.
local function resume_all ()
  for _, pool in ipairs(core.pools()) do
    local info <const> = pool:info()
    if info.paused then
      if info.queued > 0 then
        core.write(2, "parallel: the script waits for " .. jobs(info.queued)
                      .. " of a paused pool, which goes on\n")
      end
      pool:resume()
    end
  end
end

--- Wait until all jobs have ended.  Handlers run meanwhile, and may start
--- further jobs; the pool no longer counts a job whose end they are told.
local function finish ()
  resume_all()
  local began <const> = core.now()
  local told, pause = core.terminal_width(2) == nil, SHORT
  local queued, running = unfinished()
  while queued + running > 0 or core.poll(0) + event.report_all() > 0 do
    if not told and queued + running > 0
       and core.now() - began >= QUIET then
      told = true
      core.write(2, "parallel: waiting for " .. jobs(queued + running)
                    .. "; Ctrl-C stops what is left\n")
    end
    local before <const> = core.now()
    core.wait(pause)
    local woken <const> = core.now() - before < pause
    pause = woken and SHORT or math.min(2 * pause, LONG)
    queued, running = unfinished()
  end
end

--- Cancel the jobs that have not ended, and say how many.
local function abandon ()
  local queued <const>, running <const> = unfinished()
  if queued + running == 0 then return end
  for _, pool in ipairs(core.pools()) do pool:stop() end
  local parts <const> = {}
  if running > 0 then parts[1] = jobs(running) .. " stopped" end
  if queued > 0 then parts[#parts + 1] = jobs(queued) .. " not run" end
  core.write(2, "parallel: the script ended early: "
                .. table.concat(parts, ", ") .. "\n")
end

return { abandon = abandon, finish = finish }
