-- SPDX-License-Identifier: MIT
--- Measure by turns and compare.
--
-- A comparison has contenders: ours first, then floors and competitors.  In
-- each round every contender is measured once, one after the other, so that
-- what disturbs the machine disturbs all of them; the figure is the median of
-- the rounds' ratios, with the smallest and the largest behind it.  Nothing
-- is said of absolute times but in the last columns, as a help.

local core = require "parallel.core"

local harness = {
  rounds = 7,
  workers = parallel.cpus(),
  now = core.now,
  copy = core.copy,
}

--- Load before measuring, in seconds: a kernel that starts threads on one CPU
--- has spread them by then.
local WARM <const> = 0.6

local here <const> = arg[0]:match "^(.*)/[^/]*$" or "."
local build <const> = os.getenv "RUNSPACE_BUILDDIR"
local lua <const> = os.getenv "LUA" or "lua5.4"

---@param values number[]
---@return number median
---@return number least
---@return number most
local function spread (values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local n = #sorted
  local middle = (sorted[(n + 1) // 2] + sorted[n // 2 + 1]) / 2
  return middle, sorted[1], sorted[n]
end

harness.spread = spread

--- A number in four places.
local function short (value)
  if value >= 100 then return ("%.0f"):format(value) end
  return (("%.3g"):format(value))
end

harness.short = short

---------------------------------------------------------- the other side

local function exists (path)
  local file <close> = io.open(path, "rb")
  return file ~= nil
end

--- The command that runs a floor, or nil and why not.
---@param name string
function harness.floor (name)
  for _, dir in ipairs { build and build .. "/bench" or here, here } do
    if exists(dir .. "/" .. name) then return dir .. "/" .. name end
  end
  return nil, name .. " is not built (make bench builds it)"
end

--- The command that runs one of our scripts in the distribution's Lua, or nil
--- when that has not got the module that it needs.
---@param script string
---@param module string
function harness.stock (script, module)
  local command = ("%s -e 'require [[%s]]' 2>/dev/null"):format(lua, module)
  if not os.execute(command) then
    return nil, ("%s is not installed for %s"):format(module, lua)
  end
  return ("UV_THREADPOOL_SIZE=%d %s %s/%s"):format(harness.workers, lua, here,
                                                  script)
end

--- A path beside this file.
function harness.beside (name)
  return here .. "/" .. name
end

--- Run a program that prints 'name value unit' lines: samples by name.
local function samples_of (command)
  local samples = {}
  local pipe = assert(io.popen(command))
  for line in pipe:lines() do
    local name, value = line:match "^(%S+) (%S+) %S+$"
    if name then
      samples[name] = samples[name] or {}
      table.insert(samples[name], tonumber(value))
    end
  end
  local ok = pipe:close()
  if not ok then error(command .. " failed", 0) end
  return samples
end

------------------------------------------------------------- disturbances

--- CPU time since boot, in ticks: all that was used, what was stolen from
--- this machine, and what this process and its children used.
local function ticks ()
  local stat <close> = assert(io.open "/proc/stat")
  local used, stolen, i = 0, 0, 0
  for field in stat:read("l"):gmatch "%d+" do
    i = i + 1
    -- user nice system idle iowait irq softirq steal; guests are in user
    if i <= 3 or i == 6 or i == 7 then used = used + tonumber(field) end
    if i == 8 then stolen = tonumber(field) end
  end
  local own <close> = assert(io.open "/proc/self/stat")
  local ours, j = 0, 2
  for field in own:read("a"):match("%)%s+(.*)"):gmatch "%S+" do
    j = j + 1
    if j >= 14 and j <= 17 then ours = ours + tonumber(field) end
  end
  return used, stolen, ours
end

local watched, disturbances = 0, 0

--- Run 'body'; a line that tells what else the machine did meanwhile, or nil
--- when that was next to nothing.
function harness.watch (body)
  local used, stolen, ours = ticks()
  local started = harness.now()
  body()
  local time = (harness.now() - started) * 100  -- ticks of a CPU
  local used2, stolen2, ours2 = ticks()
  local others = 100 * ((used2 - used) - (ours2 - ours)) / time
  local steal = 100 * (stolen2 - stolen) / time
  watched = watched + 1
  if others < 5 and steal < 2 then return nil end
  disturbances = disturbances + 1
  return ("disturbed: others used %.0f %% of a CPU, %.0f %% stolen"):format(
    math.max(others, 0), steal)
end

--- A closing word on how far the figures can be trusted.
---@return string
function harness.verdict ()
  if disturbances == 0 then return "The machine was quiet." end
  return ("The machine was disturbed in %d of %d measurements: repeat them "
          .. "when it is quiet."):format(disturbances, watched)
end

------------------------------------------------------------- comparisons

--- Keep the machine busy with 'work' for a while.
function harness.warm (work)
  local stop = harness.now() + WARM
  repeat work() until harness.now() >= stop
end

--- Seconds that one call of 'work' takes; what came before is collected.
function harness.time (work)
  collectgarbage()
  collectgarbage()
  local started = harness.now()
  local kept = work()
  local time = harness.now() - started
  return time, kept
end

--- The median of a few.
---@param count integer
---@param work fun(): any
---@return number seconds
function harness.median (count, work)
  local times = {}
  for i = 1, count do times[i] = harness.time(work) end
  return (spread(times))
end

--- Compare.  A contender is a table with 'name' and 'measure', a function
--- that returns a time; or with 'command', 'sample', the name of the samples
--- that it prints, and 'scale', a factor for them; or with 'missing', why
--- there is none.  With 'speed' the ratio is that of the speeds.
---@param title string
---@param unit string
---@param contenders table[]
function harness.compare (title, unit, contenders)
  local ratios, times = {}, {}
  for i in ipairs(contenders) do ratios[i], times[i] = {}, {} end
  local disturbed = harness.watch(function ()
    for _ = 1, harness.rounds do
      local printed = {}  -- one run of a command serves all who read it
      for i, contender in ipairs(contenders) do
        local time
        if contender.measure then
          time = contender.measure()
        elseif contender.command then
          local command = contender.command
          printed[command] = printed[command] or samples_of(command)
          time = spread(printed[command][contender.sample])
                 * (contender.scale or 1)
        end
        if time then
          table.insert(times[i], time)
          local ratio = times[1][#times[1]] / time
          table.insert(ratios[i], contender.speed and 1 / ratio or ratio)
        end
      end
    end
  end)
  print(title)
  local ours, least, most = spread(times[1])
  for i = 2, #contenders do
    local contender = contenders[i]
    if contender.missing then
      print(("  %8s x %-30s %s"):format("-", contender.name,
                                        contender.missing))
    else
      local ratio, low, high = spread(ratios[i])
      print(("  %8.2f x %-30s (%.2f .. %.2f)   %s to %s %s"):format(
        ratio, contender.name, low, high, short(ours),
        short((spread(times[i]))), unit))
    end
  end
  if #contenders == 1 then
    print(("  %8s   %-30s (%s .. %s) %s"):format(short(ours), "", short(least),
                                                short(most), unit))
  end
  if disturbed then print("  " .. disturbed) end
  print()
  io.stdout:flush()
end

--- A contender that a floor is.
function harness.against_floor (name, program, arguments, sample, scale)
  local command, missing = harness.floor(program)
  return {
    name = name, sample = sample, scale = scale, missing = missing,
    command = command and command .. " " .. arguments,
  }
end

--- A contender that a script in stock Lua is.
function harness.against_stock (name, script, module, arguments, sample,
                                scale)
  local command, missing = harness.stock(script, module)
  return {
    name = name, sample = sample, scale = scale, missing = missing,
    command = command and command .. " " .. arguments,
  }
end

return harness
