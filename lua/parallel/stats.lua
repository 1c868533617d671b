-- SPDX-License-Identifier: MIT
--- What the pools do, and what the machine has left.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local io, ipairs, math, next, string, tonumber =
  io, ipairs, math, next, string, tonumber

---@class parallel.Machine
---@field cpus integer     that this process may use
---@field cpu? number      busy part of all CPUs since the last call, 0 to 1;
---       nil at the first one; the same again within a tick of the clock
---@field memory? {total: integer, available: integer}  bytes
---@field load? number[]   processes that run or want to, mean of the last 1, 5
---       and 15 minutes
---@field processes? integer

---@class parallel.Stats
---@field pools table[]   what `pool:info` tells of each open pool
---@field workers integer sums over the pools
---@field idle integer
---@field queued integer
---@field running integer
---@field bytes integer
---@field stuck integer         workers left behind, still running
---@field lost_workers integer  those that ever were
---@field renewed integer       runspaces replaced by new ones
---@field done table<string, integer>  jobs and items by final state
---@field machine parallel.Machine

--- A file of proc(5), or nil where there is none.
---@param path string
---@return string?
local function read (path)
  local file <close> = io and io.open(path)
  return file and file:read "a" or nil
end

--- Ticks of all CPUs at the last call: busy ones, and all; what it gave.
local busy_before, all_before, part_before

---@return number?
local function cpu ()
  local text = read "/proc/stat"
  local line = text and text:match "^cpu +([^\n]*)"
  if line == nil then return nil end
  local ticks = {}
  for n in line:gmatch "%d+" do ticks[#ticks + 1] = tonumber(n) end
  local all = 0
  for i = 1, math.min(#ticks, 8) do all = all + ticks[i] end
  local busy = all - (ticks[4] or 0) - (ticks[5] or 0)  -- idle, iowait
  if all == all_before then return part_before end  -- within one tick
  if all_before ~= nil and all > all_before then
    -- The kernel may take back some of the time of waiting for devices.
    part_before = math.max(0, math.min(1, (busy - busy_before)
                                          / (all - all_before)))
  end
  busy_before, all_before = busy, all
  return part_before
end

--- What is summed up over the pools.
local SUMS <const> = {
  "workers", "idle", "stuck", "queued", "running", "bytes", "lost_workers",
  "renewed",
}

---@return parallel.Machine
local function machine ()
  local result = { cpus = core.cpus(), cpu = cpu() }
  local text = read "/proc/meminfo"
  local total = text and text:match "MemTotal: *(%d+)"
  local available = text and text:match "MemAvailable: *(%d+)"
  if total and available then
    result.memory = { total = math.tointeger(tonumber(total)) * 1024,
                      available = math.tointeger(tonumber(available)) * 1024 }
  end
  text = read "/proc/loadavg"
  local a, b, c, processes
  if text then
    a, b, c, processes = string.match(text, "(%S+) (%S+) (%S+) %d+/(%d+)")
  end
  if processes then
    result.load = { tonumber(a), tonumber(b), tonumber(c) }
    result.processes = math.tointeger(tonumber(processes))
  end
  return result
end

--- What the pools of this script do, and the state of the machine.  Fields of
--- `machine` that the system does not tell are nil.
---@return parallel.Stats
local function stats ()
  local result = { pools = {}, done = {} }
  for _, name in ipairs(SUMS) do result[name] = 0 end
  for i, pool in ipairs(core.pools()) do
    local info = pool:info()
    result.pools[i] = info
    for _, name in ipairs(SUMS) do
      result[name] = result[name] + info[name]
    end
    for state, n in next, info.done do
      result.done[state] = (result.done[state] or 0) + n
    end
  end
  result.machine = machine()
  return result
end

return {
  functions = { stats = check.public("parallel.stats()", 0, stats) },
}
