-- SPDX-License-Identifier: MIT
--- Scripts that may leave nothing behind: no process, descriptor or thread.
--
--     leaks.run [[
--       function round ()
--         local p <close> = parallel.pool{isolation = "process"}
--         ...
--       end
--     ]]

local run <const> = require "support.script"

local leaks = {}

local BEFORE <const> = [[
local parallel = require "parallel"
local me <const> = io.open "/proc/self/stat":read "n"

local function list (path)
  local pipe <close> = io.popen("ls " .. path)
  local names <const> = {}
  for name in pipe:lines() do names[#names + 1] = name end
  return names
end

local function count (path)
  return #list(path)
end

--- How many child processes there are, those that nobody has waited for too.
local function children ()
  local n = 0
  for _, thread in ipairs(list("/proc/" .. me .. "/task")) do
    local file <close> = io.open(("/proc/%d/task/%s/children"):format(me,
                                                                      thread))
    for _ in (file and file:read "a" or ""):gmatch "%d+" do n = n + 1 end
  end
  return n
end
]]

local AFTER <const> = [[
round(0)
local fds = count("/proc/" .. me .. "/fd")
for i = 1, ROUNDS do round(i) end
local late = parallel.now() + 30
local seen
local function settled ()
  seen = ("%d children, %d threads, %d descriptors more"):format(
    children(), count("/proc/" .. me .. "/task"),
    count("/proc/" .. me .. "/fd") - fds)
  return children() == 0 and count("/proc/" .. me .. "/task") <= 2
         and count("/proc/" .. me .. "/fd") <= fds
end
-- A look starts programs and a thread of its own: one good look counts.
local good
repeat good = settled() until good or parallel.now() > late
print(good and "nothing is left" or seen)
]]

--- Run a script that defines a global function 'round', which is called with 0
--- first, and then with 1 up to 'rounds', after which nothing may be left that
--- was not there after the first one.
---@param source string
---@param rounds? integer  default 3
---@return string output  ends with "nothing is left\n" if so
---@return integer status
function leaks.run (source, rounds)
  return run(BEFORE .. source .. AFTER:gsub("ROUNDS", rounds or 3))
end

return leaks
