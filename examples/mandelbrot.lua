#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Draw the Mandelbrot set, its rows in parallel.
---
---     runspace [-j N] examples/mandelbrot.lua [WIDTH [FILE]]
---
--- Writes a PGM picture (P5, 256 greys) WIDTH pixels wide (default 600) to
--- FILE (default mandelbrot.pgm; '-' is the standard output).  The bytes are
--- the same for every number of workers.

local parallel = require "parallel"

local LIMIT <const> = 255  -- iterations; points that last so long are black

local width = math.tointeger(tonumber(arg[1] or 600))
if not width or width < 1 then
  io.stderr:write "usage: mandelbrot.lua [WIDTH [FILE]]\n"
  os.exit(2)
end
local name = arg[2] or "mandelbrot.pgm"
local height = (2 * width + 2) // 3
local step = 3 / width  -- the picture shows -2..1 and -1..1

--- One row as a string of bytes.  'width', 'height' and 'step' travel with
--- the function.
local function row (y)
  local bytes = {}
  local ci = (y + 0.5 - height / 2) * step
  for x = 1, width do
    local cr = (x - 0.5) * step - 2
    local zr, zi, n = 0.0, 0.0, 0
    while n < LIMIT do
      local rr, ii = zr * zr, zi * zi
      if rr + ii > 4 then break end
      zr, zi = rr - ii + cr, 2 * zr * zi + ci
      n = n + 1
    end
    bytes[x] = string.char(LIMIT - n)
  end
  return table.concat(bytes)
end

local rows = parallel.map(parallel.range(0, height - 1), row)

local out <close> = name == "-" and io.output() or assert(io.open(name, "wb"))
assert(out:write("P5\n", width, " ", height, "\n255\n", table.concat(rows)))
assert(out:flush())
if name ~= "-" then
  print(("%s: %d x %d"):format(name, width, height))
end
