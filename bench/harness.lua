-- SPDX-License-Identifier: MIT
--- Measure by turns and compare.
--
-- A comparison has contenders: ours first, then floors and competitors.  In
-- each round every contender is measured once, one after the other, so that
-- what disturbs the machine disturbs all of them; the figure is the median of
-- the rounds' ratios, with the smallest and the largest behind it.  Nothing
-- is said of absolute times but in the last columns, as a help.

local lfs = require "lfs"

local harness = {
  rounds = 7,
  workers = parallel.cpus(),
  pinned = false,
  now = parallel.now,
}

--- Load before measuring, in seconds: a kernel that starts threads on one CPU
--- has spread them by then.
local WARM <const> = 0.6

--- How often a comparison is made again when others disturbed it.
local AGAIN <const> = 2

--- The host program that runs this.
local host = -1
while arg[host - 1] do host = host - 1 end
harness.host = arg[host]

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

--- A number in three places.
local function short (value)
  if value >= 100 then return ("%.0f"):format(value) end
  return (("%.3g"):format(value))
end

harness.short = short

--- A pool of so many workers, all of them there, as this run wants them.
---@param n? integer
---@param given? table
function harness.pool (n, given)
  local options = { min = n or harness.workers, max = n or harness.workers,
                    pin = harness.pinned or nil }
  for name, value in pairs(given or {}) do options[name] = value end
  return parallel.pool(options)
end

---------------------------------------------------------- the other side

--- A path beside run.lua.
function harness.beside (name)
  return here .. "/" .. name
end

local function exists (path)
  local file <close> = io.open(path, "rb")
  return file ~= nil
end

--- Variables of the environment for a command.
local function environment ()
  return ("UV_THREADPOOL_SIZE=%d %s"):format(
    harness.workers, harness.pinned and "BENCH_PIN=1 " or "")
end

--- A contender that a floor in C is.
---@param name string
---@param program string
---@param arguments string
---@param sample string   the name of the samples that it prints
---@param scale? number   a factor for them
function harness.floor (name, program, arguments, sample, scale)
  local contender = { name = name, sample = sample, scale = scale }
  for _, dir in ipairs { build and build .. "/bench" or here, here } do
    if exists(dir .. "/" .. program) then
      contender.command = environment() .. dir .. "/" .. program .. " "
                          .. arguments
      return contender
    end
  end
  contender.missing = program .. " is not built (make bench builds it)"
  return contender
end

--- What we are in a comparison, when that is a script in the host program.
function harness.ours (script, arguments, sample)
  local command <const> = ("%s'%s' %s %s"):format(
    environment(), harness.host, harness.beside(script), arguments)
  return { command = command, sample = sample }
end

--- A contender that a script in stock Lua is, with a module.
function harness.stock (name, script, module, arguments, sample, scale)
  local contender = { name = name, sample = sample, scale = scale }
  if os.execute(("%s -e 'require [[%s]]' 2>/dev/null"):format(lua, module))
  then
    contender.command = ("%s%s %s %s"):format(
      environment(), lua, harness.beside(script), arguments)
  else
    contender.missing = ("%s is not installed for %s"):format(module, lua)
  end
  return contender
end

--- A contender that another program is.
function harness.program (name, program, command, sample, scale)
  local contender = { name = name, sample = sample, scale = scale }
  if os.execute(("command -v %s >/dev/null 2>&1"):format(program)) then
    contender.command = environment() .. command
  else
    contender.missing = program .. " is not installed"
  end
  return contender
end

harness.lua = lua

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

harness.ticks = function () return (select(3, ticks())) end

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
  return ("The machine was disturbed in %d of %d measurements, which were "
          .. "made again."):format(disturbances, watched)
end

------------------------------------------------------------------- results

local COLUMNS <const> = { "ratio", "least", "most", "ours", "theirs", "unit",
                          "wanted", "met", "disturbed" }

local lines = {}  -- of CSV, one for each figure
local section = ""

function harness.begin_section (name)
  section = name
end

local function quote (value)
  if value == nil then return "" end
  local text = type(value) == "number" and ("%.6g"):format(value)
               or tostring(value)
  if text:find '[,"\n]' then text = '"' .. text:gsub('"', '""') .. '"' end
  return text
end

--- Keep one figure for the file of results.
---@param title string
---@param contender string
---@param values {ratio?: number, least?: number, most?: number,
---       ours?: number, theirs?: number, unit?: string, wanted?: string,
---       met?: boolean, disturbed?: boolean}
local function keep (title, contender, values)
  local line = { quote(section), quote(title), quote(contender) }
  for i, column in ipairs(COLUMNS) do line[3 + i] = quote(values[column]) end
  lines[#lines + 1] = table.concat(line, ",")
end

local function first_line (command)
  local pipe <close> = assert(io.popen(command .. " 2>/dev/null"))
  return pipe:read "l" or "?"
end

--- Write all figures as CSV: a comment with the machine, a head, rows.
function harness.write_results (path)
  local file <close> = assert(io.open(path, "w"))
  file:write(("# %s, %d CPUs, %d workers%s, %d rounds, %s, %s, runspace %s\n")
             :format(os.date "!%Y-%m-%d %H:%M UTC", parallel.cpus(),
                     harness.workers, harness.pinned and " pinned" or "",
                     harness.rounds, first_line "uname -sr",
                     first_line(lua .. " -v"), parallel.version))
  file:write("section,title,contender,", table.concat(COLUMNS, ","), "\n")
  for _, line in ipairs(lines) do file:write(line, "\n") end
end

--- What a process that has measured a part leaves for the one that started it.
function harness.write_part (path)
  local file <close> = assert(io.open(path, "w"))
  file:write(("%d %d\n"):format(disturbances, watched))
  for _, line in ipairs(lines) do file:write(line, "\n") end
end

function harness.read_part (path)
  local file <close> = assert(io.open(path))
  disturbances = disturbances + file:read "n"
  watched = watched + file:read("n", "l")
  for line in file:lines() do lines[#lines + 1] = line end
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

--- A function whose calls take as long as they are told, in loops.
harness.SPIN = [[
return function (n)
  local x = 1.0
  for _ = 1, n do x = x * 1.0000001 end
  return x > 0 and n or 0
end]]

harness.spin = load(harness.SPIN)()

--- Loops of 'spin' that take so many seconds.
---@param seconds number
---@return integer
function harness.loops_for (seconds)
  local n <const> = 1000000
  local each <const> =
    harness.median(9, function () harness.spin(n) end) / n
  return math.max(1, math.ceil(seconds / each))
end

--- One figure of a comparison, in one round.
local function measure (contender, printed)
  if contender.measure then return contender.measure() end
  local command = contender.command
  if not command then return nil end
  printed[command] = printed[command] or samples_of(command)
  local samples = printed[command][contender.sample]
  if not samples then return nil end  -- it could not do that
  return spread(samples) * (contender.scale or 1)
end

--- "at most 1.25" and whether the value is.
local function judge (contender, value)
  if contender.most then
    return "at most " .. contender.most, value <= contender.most
  elseif contender.least then
    return "at least " .. contender.least, value >= contender.least
  end
end

local function verdict_of (wanted, met)
  if not wanted then return "" end
  return ("  [%s: %s]"):format(wanted, met and "ok" or "MISSED")
end

local function measure_all (contenders, ratios, times)
  for i in ipairs(contenders) do ratios[i], times[i] = {}, {} end
  return harness.watch(function ()
    for _ = 1, harness.rounds do
      local printed = {}  -- one run of a command serves all who read it
      for i, contender in ipairs(contenders) do
        local time = measure(contender, printed)
        if time then
          table.insert(times[i], time)
          local ratio = times[1][#times[1]] / time
          table.insert(ratios[i], contender.speed and 1 / ratio or ratio)
        end
      end
    end
  end)
end

--- Compare.  A contender is a table with 'name' and 'measure', a function
--- that returns a time; or with 'command', 'sample', the name of the samples
--- that it prints, and 'scale', a factor for them; or with 'missing', why
--- there is none.  With 'speed' the ratio is that of the speeds.  'most' and
--- 'least' say which ratio is wanted; of ours, which absolute figure.
---@param title string
---@param unit string
---@param contenders table[]
---@return number ours  the median
function harness.compare (title, unit, contenders)
  local ratios, times = {}, {}
  local disturbed
  for _ = 0, AGAIN do
    disturbed = measure_all(contenders, ratios, times)
    if not disturbed then break end
  end
  print(title)
  local ours, least, most = spread(times[1])
  for i, contender in ipairs(contenders) do
    if i > 1 and #ratios[i] == 0 then
      print(("  %8s x %-30s %s"):format("-", contender.name,
            contender.missing or "cannot do it"))
    elseif i > 1 then
      local ratio, low, high = spread(ratios[i])
      local wanted, met = judge(contender, ratio)
      print(("  %8.2f x %-30s (%.2f .. %.2f)   %s to %s %s%s"):format(
        ratio, contender.name, low, high, short(ours),
        short((spread(times[i]))), unit, verdict_of(wanted, met)))
      keep(title, contender.name, {
        ratio = ratio, least = low, most = high, ours = ours,
        theirs = (spread(times[i])), unit = unit, wanted = wanted, met = met,
        disturbed = disturbed ~= nil })
    elseif #contenders == 1 or contender.most or contender.least then
      local wanted, met = judge(contender, ours)
      print(("  %8s   %-30s (%s .. %s)%s"):format(short(ours), unit,
        short(least), short(most), verdict_of(wanted, met)))
      keep(title, "", { least = least, most = most, ours = ours, unit = unit,
                        wanted = wanted, met = met,
                        disturbed = disturbed ~= nil })
    end
  end
  if disturbed then print("  " .. disturbed) end
  print()
  io.stdout:flush()
  return ours
end

--- How a cost goes with a size.  In each round every size is measured once,
--- so that a machine that becomes slower does so for all of them.  What is
--- judged is how much dearer than the 'first' one a larger size is: each costs
--- so many times what the round's median did, by the median of the rounds.
---@param title string
---@param unit string
---@param sizes integer[]
---@param first integer   index; before it what a call costs has not vanished
---@param most number     wanted of the dearest to the first
---@param cost fun(size: integer): number
function harness.series (title, unit, sizes, first, most, cost)
  local times, shares = {}, {}
  local disturbed
  for i in ipairs(sizes) do times[i], shares[i] = {}, {} end
  for _ = 0, AGAIN do
    disturbed = harness.watch(function ()
      for _ = 1, harness.rounds do
        local round = {}
        for i, size in ipairs(sizes) do round[i] = cost(size) end
        local usual <const> = spread(table.move(round, first, #round, 1, {}))
        for i, time in ipairs(round) do
          table.insert(times[i], time)
          table.insert(shares[i], time / usual)
        end
      end
    end)
    if not disturbed then break end
  end
  print(title)
  local high, base = 0, nil
  for i, size in ipairs(sizes) do
    harness.note(("%s: %d"):format(title, size), spread(times[i]), unit)
    if i >= first then
      local share <const> = spread(shares[i])
      base = base or share
      high = math.max(high, share)
    end
  end
  harness.note(("%s: the dearest from %d on, to that"):format(title,
                                                              sizes[first]),
               high / base, "x", { most = most })
  if disturbed then print("  " .. disturbed) end
  print()
end

--- Print, and keep, a figure that was taken otherwise.
---@param title string
---@param value number
---@param unit string
---@param wanted? {most?: number, least?: number}
function harness.note (title, value, unit, wanted)
  local word, met = judge(wanted or {}, value)
  print(("%s: %s %s%s"):format(title, short(value), unit,
                               verdict_of(word, met)))
  keep(title, "", { ours = value, unit = unit, wanted = word, met = met })
  io.stdout:flush()
end

---@return number KiB of this process in memory
function harness.resident ()
  collectgarbage()
  collectgarbage()
  local status <close> = assert(io.open "/proc/self/status")
  return tonumber(status:read("a"):match "VmRSS:%s*(%d+) kB")
end

--- Entries of a directory.
function harness.entries (path)
  local n = 0
  for _ in lfs.dir(path) do n = n + 1 end
  return n - 2  -- '.' and '..'
end

return harness
