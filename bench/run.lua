-- SPDX-License-Identifier: MIT
--- Measure the module against what the machine allows and what else there is.
---
---     make bench [BENCH_FLAGS='...']
---     runspace bench/run.lua [-r ROUNDS] [-w WORKERS] [-p] [-o FILE]
---                            [NAME...]
---
--- Without a NAME, everything.  README.md tells how to read it.

local beside <const> = (arg[0]:match "^(.*)/[^/]*$" or ".") .. "/"
local harness = dofile(beside .. "harness.lua")

--- Files in sections/ and the benchmarks that each of them has.
local FILES <const> = {
  { "memory", "each", "lifecycle", "idle" },
  { "map", "tiny", "items", "uneven", "coarse", "journal" },
  { "jobs", "roundtrip", "busy", "rest", "jobs", "events", "start",
    "reset" },
  { "marshal", "marshal", "echo" },
  { "tax", "tax" },
  { "scale", "scale" },
  { "reach", "reach" },
  { "broker", "broker" },
}

local function names ()
  local list = {}
  for _, file in ipairs(FILES) do
    table.move(file, 2, #file, #list + 1, list)
  end
  return list
end

local function usage (message)
  io.stderr:write("run.lua: ", message, "\nusage: run.lua [-r ROUNDS] ",
                  "[-w WORKERS] [-p] [-o FILE] [NAME...]\nnames: ",
                  table.concat(names(), " "), "\n")
  os.exit(2)
end

local function positive (option, text)
  local n = math.tointeger(tonumber(text))
  if not n or n < 1 then
    usage(option .. " needs a number, got " .. tostring(text))
  end
  return n
end

local known, wanted, output, part, i = {}, {}, nil, false, 1
for _, name in ipairs(names()) do known[name] = true end
while arg[i] do
  if arg[i] == "-r" then
    harness.rounds, i = positive("-r", arg[i + 1]), i + 2
  elseif arg[i] == "-w" then
    harness.workers, i = positive("-w", arg[i + 1]), i + 2
  elseif arg[i] == "-p" then
    harness.pinned, i = true, i + 1
  elseif arg[i] == "-o" then
    output, i = arg[i + 1] or usage "-o needs the name of a file", i + 2
  elseif arg[i] == "--part" then  -- of a run: no head, no closing word
    part, i = true, i + 1
  else
    if not known[arg[i]] then usage("there is no '" .. arg[i] .. "'") end
    wanted[arg[i]], i = true, i + 1
  end
end

--- Measure one, in this process.
local function measure (name)
  for _, file in ipairs(FILES) do
    for k = 2, #file do
      if file[k] == name then
        local path <const> = beside .. "sections/" .. file[1] .. ".lua"
        local section <const> = assert(loadfile(path))(harness)
        harness.begin_section(name)
        section[name]()
      end
    end
  end
end

--- The same in a process of its own, as its floors have one: in memory that
--- others have used, strings and records take a tenth longer.
local function measure_apart (name)
  local results <const> = os.tmpname()
  local ok <const> = os.execute(
    ("'%s' '%s' --part -r %d -w %d %s -o '%s' %s"):format(
      harness.host, arg[0], harness.rounds, harness.workers,
      harness.pinned and "-p" or "", results, name))
  if ok then harness.read_part(results) end
  os.remove(results)
  if not ok then os.exit(1) end
end

if part then
  for name in pairs(wanted) do measure(name) end
  harness.write_part(output)
  return
end
print(("%d workers%s on %d CPUs, %d rounds; a ratio is ours to theirs"):format(
  harness.workers, harness.pinned and ", each on one of its own," or "",
  parallel.cpus(), harness.rounds))
print "(median, least .. most), then both as absolute medians\n"
for _, name in ipairs(names()) do
  if not next(wanted) or wanted[name] then measure_apart(name) end
end
print(harness.verdict())
if output then harness.write_results(output) end
