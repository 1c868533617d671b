-- SPDX-License-Identifier: MIT
--- Draw the figures of a bench, and those of the simulation, as SVG.
---
---     lua5.4 bench/plot.lua RESULTS.csv SIMULATION.csv DIRECTORY
---
--- Needs gnuplot.  RESULTS is what 'run.lua -o' writes, SIMULATION what
--- 'simulation.lua -o' does.  The charts have a ground of their own, so that
--- they can be read on a dark page, too.

local results, simulation, directory = arg[1], arg[2], arg[3]
if directory == nil then
  io.stderr:write "usage: plot.lua RESULTS.csv SIMULATION.csv DIRECTORY\n"
  os.exit(2)
end

--- The fields of a line of CSV.
local function fields_of (line)
  local fields, at = {}, 1
  while at <= #line + 1 do
    local text, after
    if line:sub(at, at) == '"' then
      text, after = line:match('^"(.-)"(),?', at)
      after = after and after + 1
    else
      text, after = line:match("^([^,]*)(),?", at)
      after = after and after + 1
    end
    fields[#fields + 1], at = text, after
  end
  return fields
end

--- The rows of a file, as tables by the names in its head.
local function read (path)
  local rows, head = {}, nil
  for line in io.lines(path) do
    if line:sub(1, 1) ~= "#" then
      local fields = fields_of(line)
      if head == nil then
        head = fields
      else
        local row = {}
        for i, name in ipairs(head) do row[name] = fields[i] end
        rows[#rows + 1] = row
      end
    end
  end
  return rows
end

local STYLE <const> = [[
set terminal svg size 720,420 font "sans-serif,13" background rgb "white"
set output "%s/%s.svg"
set border 3 lc rgb "#555555"
set tics nomirror
set grid ytics lc rgb "#dddddd"
set key top left reverse Left samplen 2
set linetype 1 lc rgb "#0b6e4f" lw 3 pt 7 ps 0.7
set linetype 2 lc rgb "#c8553d" lw 2 pt 5 ps 0.7
set linetype 3 lc rgb "#3d5a80" lw 2 pt 9 ps 0.8
set linetype 4 lc rgb "#e09f3e" lw 2 pt 13 ps 0.8
set linetype 5 lc rgb "#7d5ba6" lw 2 pt 11 ps 0.8
set linetype 6 lc rgb "#888888" lw 2 pt 4 ps 0.7
set style fill solid 0.9
]]

--- Let gnuplot draw.  'data' are blocks of lines by name.
local function draw (name, data, commands)
  local pipe <close> = assert(io.popen("gnuplot", "w"))
  pipe:write(STYLE:format(directory, name))
  for block, lines in pairs(data) do
    pipe:write("$", block, " << EOD\n", table.concat(lines, "\n"), "\nEOD\n")
  end
  pipe:write(commands, "\n")
end

local rows <const> = read(results)

local function find (section, title, contender)
  for _, row in ipairs(rows) do
    if row.section == section and row.title == title
       and (contender == nil or row.contender == contender) then
      return row
    end
  end
end

--------------------------------------------- what a tiny item costs

local function draw_tiny ()
  local bars = {}
  for _, row in ipairs(rows) do
    if row.section == "tiny" and row.title:find "1e6 integers" then
      if #bars == 0 then bars[1] = ('"parallel.map" %s'):format(row.ours) end
      bars[#bars + 1] = ('"%s" %s'):format(
        row.contender:gsub(", ", "\\n"):gsub(" of 1000", "")
                     :gsub("1000 ", ""), row.theirs)
    end
  end
  draw("tiny", { bars = bars }, [[
set title "x * x over 1e6 integers, table to table, 2 workers"
set ylabel "ns an item"
set logscale y
set yrange [10:1000]
set boxwidth 0.6
set bmargin 4
unset key
plot $bars using 0:2:xtic(1) with boxes lt 1, \
     '' using 0:2:(sprintf("%.0f", $2)) with labels offset 0,0.8]])
end

--------------------------------------------- speed-up over the cost of an item

local function draw_speedup ()
  local ours, floor = {}, {}
  for _, row in ipairs(rows) do
    local n, unit = row.title:match "^map of items of (%d+) (%a+)$"
    if row.section == "items" and n then
      local cost = tonumber(n) * (unit == "ms" and 1000 or 1)
      local serial = find("items", row.title, "the speed of one core").theirs
      if row.contender == "the speed of one core" then
        ours[#ours + 1] = ("%g %g"):format(cost, serial / row.ours)
      else
        floor[#floor + 1] = ("%g %g"):format(cost, serial / row.theirs)
      end
    end
  end
  draw("speedup", { ours = ours, floor = floor }, [[
set title "speed-up on 2 cores by the cost of an item"
set xlabel "cost of an item, us"
set ylabel "times one core"
set logscale x
set xrange [0.7:8000]
set yrange [1:2.1]
set key bottom right
plot $ours using 1:2 with linespoints lt 1 title "parallel.map", \
     $floor using 1:2 with linespoints lt 6 title "floor in C"]])
end

--------------------------------------------- costs over size

local function draw_scale ()
  local series = {
    { "items", "cost of an item by their number", "an item, by their number" },
    { "pool", "cost of an item by the workers of the pool",
      "an item, by the workers of the pool" },
    { "queue", "cost of a job by the length of the queue",
      "a job, by the length of the queue" },
    { "workers", "cost of a job by the workers of the pool",
      "a job, by the workers of the pool" },
  }
  local data, plots = {}, {}
  for i, entry in ipairs(series) do
    local name, title, label = table.unpack(entry)
    data[name] = {}
    for _, row in ipairs(rows) do
      local size = row.title:sub(1, #title + 2) == title .. ": "
                   and row.title:match ": (%d+)$"
      if size then
        table.insert(data[name], size .. " " .. row.ours)
      end
    end
    plots[#plots + 1] = ("$%s using 1:2 with linespoints lt %d title '%s'")
                        :format(name, i, label)
  end
  draw("scale", data, [[
set title "cost by size"
set xlabel "size"
set ylabel "ns"
set logscale xy
set yrange [10:100000]
set key top right
plot ]] .. table.concat(plots, ", \\\n"))
end

--------------------------------------------- marshalling

local LABELS <const> = {
  ["1e5 integers"] = "integers",
  ["1e5 distinct strings"] = "strings",
  ["1e4 records"] = "records",
  ["one string of 16 MiB"] = "16 MiB",
  ["nested tables"] = "nested\\ntables",
  ["300 arrays of 300 floats"] = "arrays\\nof floats",
  ["a table with 1e5 string keys"] = "string\\nkeys",
  ["1e4 objects of one class"] = "objects",
}

local function draw_marshal ()
  local lines = {}
  for _, row in ipairs(rows) do
    local what = row.section == "marshal"
                 and row.title:match "^encode and decode in one state: (.*)$"
    if what and row.contender:find "^floor" then
      local json = find("marshal", row.title, "cjson")
      lines[#lines + 1] = ('"%s" %s %s'):format(
        LABELS[what] or what, row.ratio,
        json and json.theirs / row.theirs or "NaN")
    end
  end
  draw("marshal", { bars = lines }, [[
set title "encode and decode, in times of a plain flat buffer"
set ylabel "times the flat buffer"
set style data histogram
set style histogram clustered gap 1
set logscale y
set yrange [0.3:40]
set bmargin 4
set key top right
plot $bars using 2:xtic(1) lt 1 title "runspace", \
     '' using 3 lt 6 title "cjson", \
     1 lt 2 dt 2 title "the flat buffer"]])
end

--------------------------------------------- the simulation

local function draw_simulation ()
  local data, plots, labels = {}, {}, {
    ["1e-07"] = "100 ns", ["1e-06"] = "1 us", ["1e-05"] = "10 us",
    ["0.0001"] = "100 us",
  }
  local order <const> = { "0.0001", "1e-05", "1e-06", "1e-07" }
  for i, cost in ipairs(order) do
    for j, design in ipairs { "as it is", "both" } do
      local name = ("d%d%d"):format(i, j)
      data[name] = {}
      for _, row in ipairs(read(simulation)) do
        if row.design == design and row.cost == cost then
          table.insert(data[name], row.cores .. " " .. row.speedup)
        end
      end
      plots[#plots + 1] =
        ("$%s using 1:2 with linespoints lt %d%s title '%s'"):format(
          name, i, j == 2 and " dt 3 pt 0" or "",
          labels[cost] .. (j == 2 and ", lazy both ways" or ""))
    end
  end
  draw("simulation", data, [[
set title "simulated speed-up by cores and the cost of an item"
set xlabel "cores"
set ylabel "times one core"
set logscale xy 2
set xrange [2:256]
plot ]] .. table.concat(plots, ", \\\n"))
end

draw_tiny()
draw_speedup()
draw_scale()
draw_marshal()
draw_simulation()
