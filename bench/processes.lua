-- SPDX-License-Identifier: MIT
--- Competitors: processes of stock Lua.
---
---     lua5.4 processes.lua popen WORKERS ITEMS LOOPS
---     lua5.4 processes.lua parallel WORKERS ITEMS LOOPS
---     lua5.4 processes.lua parallel-n WORKERS ITEMS LOOPS
---
--- 'popen' cuts the items evenly, one process to a worker, and reads their
--- results; 'parallel' gives each item to a process of its own by GNU
--- parallel, 'parallel-n' as many as there are for a worker.  The time is that
--- of the whole, as a script would see it.  Prints 'coarse value ns'.

local verb, workers, items, loops = arg[1], math.tointeger(arg[2]),
  math.tointeger(arg[3]), math.tointeger(arg[4])

local BODY <const> = [[
for i = 1, %s do
  local x = 1.0
  for _ = 1, %d do x = x * 1.0000001 end
  print(x)
end]]

local function now ()  -- os.clock does not count what others do
  local file <close> = assert(io.open "/proc/uptime")
  return file:read "n"
end

--- Results that a pipe gives.
local function count (pipe)
  local n = 0
  for _ in pipe:lines() do n = n + 1 end
  pipe:close()
  return n
end

local function popen ()
  local pipes, n = {}, 0
  for i = 1, workers do
    local share = items * i // workers - items * (i - 1) // workers
    pipes[i] = io.popen(("lua5.4 -e '%s'"):format(BODY:format(share, loops)))
  end
  for i = 1, workers do n = n + count(pipes[i]) end
  return n
end

local function gnu_parallel (each)
  local command = ("lua5.4 -e '%s' #"):format(BODY:format(each, loops))
  return count(io.popen(("seq %d | parallel -j %d %q 2>/dev/null"):format(
    items // each, workers, command)))
end

local began = now()
local n = verb == "popen" and popen()
          or gnu_parallel(verb == "parallel" and 1 or items // workers)
assert(n == items, n)
print(("coarse %.6g ns"):format((now() - began) / items * 1e9))
