-- SPDX-License-Identifier: MIT
--- Statistics of the pools, and the state of the machine.

local check = require "parallel.check"
local _, core = ...  -- parallel.core

local io, ipairs, math, next, string, tonumber =
  io, ipairs, math, next, string, tonumber

---@class parallel.Machine
---@field cpus integer     CPUs that this process may use
---@field cpu? number      busy part of all CPUs since the last call, 0 to 1;
---       nil at the first call; unchanged within one tick of the clock
---@field memory? {total: integer, available: integer}  bytes
---@field load? number[]   processes that run or are ready to run: means of the
---       last 1, 5 and 15 minutes
---@field processes? integer

---@class parallel.Stats
---@field pools table[]   `pool:info()` of each open pool
---@field workers integer sum over the pools, as the fields below
---@field idle integer
---@field queued integer
---@field running integer
---@field bytes integer
---@field stuck integer         workers left behind that still run code
---@field lost_workers integer  workers left behind since the pools opened
---@field renewed integer       runspaces replaced by new ones
---@field done table<string, integer>  jobs and items by final state
---@field machine parallel.Machine

--- Read a file of proc(5); nil where there is none.
---@param path string
---@return string?
local function read (path)
  local file <close> = io and io.open(path)
  return file and file:read "a" or nil
end

--- Values of the last call of 'cpu': busy ticks of all CPUs, all ticks, and
--- the result.
local busy_before, all_before, part_before

--- Return the busy part of all CPUs since the last call.
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
  if all == all_before then return part_before end  -- no tick since then
  if all_before ~= nil and all > all_before then
    -- The kernel's count of the time of waiting for devices may decrease.
    part_before = math.max(0, math.min(1, (busy - busy_before)
                                          / (all - all_before)))
  end
  busy_before, all_before = busy, all
  return part_before
end

--- Fields of `pool:info()` that are summed over the pools.
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

--- Return what the pools of this script do, and the state of the machine.
--- Fields of `machine` that the system does not tell are nil.
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
