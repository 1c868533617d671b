-- SPDX-License-Identifier: MIT
--- Programs that do nothing but compute: what they take in a runspace and in
--- stock Lua shall be the same.
---
---     lua5.4 bench/tax.lua NAME    prints 'NAME seconds s'
---     runspace bench/tax.lua NAME  the same, computed in a runspace
--
-- Each function takes its time by itself, so that neither the start of a
-- process nor the way into a runspace counts.

local programs = {}

--- Flips of the permutations of 1 to n (fannkuch-redux).
function programs.fannkuch (n)
  local p, q, s, sign, flips_most, sum = {}, {}, {}, 1, 0, 0
  for i = 1, n do p[i], q[i], s[i] = i, i, i end
  while true do
    local first = p[1]
    if first ~= 1 then
      for i = 2, n do q[i] = p[i] end
      local flips = 1
      while true do
        local second = q[first]
        if second == 1 then
          sum = sum + sign * flips
          if flips > flips_most then flips_most = flips end
          break
        end
        q[first] = first
        if first >= 4 then
          local i, j = 2, first - 1
          repeat
            q[i], q[j] = q[j], q[i]
            i, j = i + 1, j - 1
          until i >= j
        end
        first, flips = second, flips + 1
      end
    end
    if sign == 1 then
      p[1], p[2], sign = p[2], p[1], -1
    else
      p[2], p[3], sign = p[3], p[2], 1
      for i = 3, n do
        local rest = s[i]
        if rest ~= 1 then
          s[i] = rest - 1
          break
        end
        if i == n then return sum, flips_most end
        s[i] = i
        local moved = p[1]
        for j = 1, i do p[j] = p[j + 1] end
        p[i + 1] = moved
      end
    end
  end
end

--- Planets around a sun, for n steps.
function programs.nbody (n)
  local sqrt = math.sqrt
  local bodies = {}
  for i = 1, 5 do
    bodies[i] = { x = i * 1.1, y = 2.3 / i, z = 0.1 * i, vx = 0.01 * i,
                  vy = 0.5 / i, vz = -0.02 * i,
                  mass = i == 1 and 39.5 or 0.01 * i }
  end
  for _ = 1, n do
    for i = 1, 5 do
      local a = bodies[i]
      local ax, ay, az, mass = a.x, a.y, a.z, a.mass
      local vx, vy, vz = a.vx, a.vy, a.vz
      for j = i + 1, 5 do
        local b = bodies[j]
        local dx, dy, dz = ax - b.x, ay - b.y, az - b.z
        local square = dx * dx + dy * dy + dz * dz
        local force = 0.001 / (square * sqrt(square))
        local theirs = b.mass * force
        vx, vy, vz = vx - dx * theirs, vy - dy * theirs, vz - dz * theirs
        local ours = mass * force
        b.vx, b.vy, b.vz = b.vx + dx * ours, b.vy + dy * ours,
                           b.vz + dz * ours
      end
      a.vx, a.vy, a.vz = vx, vy, vz
      a.x, a.y, a.z = ax + 0.001 * vx, ay + 0.001 * vy, az + 0.001 * vz
    end
  end
  return bodies[1].x
end

--- Trees of depth n, made and counted.
function programs.trees (n)
  local function make (depth)
    if depth == 0 then return {} end
    return { make(depth - 1), make(depth - 1) }
  end
  local function count (tree)
    return tree[1] and 1 + count(tree[1]) + count(tree[2]) or 1
  end
  local total = 0
  local long_lived = make(n)
  for depth = 4, n, 2 do
    for _ = 1, 1 << (n - depth + 2) do total = total + count(make(depth)) end
  end
  return total + count(long_lived)
end

--- A coroutine that is resumed n times.
function programs.coroutines (n)
  local resume, yield = coroutine.resume, coroutine.yield
  local co = coroutine.create(function ()
    while true do yield(1) end
  end)
  local sum = 0
  for _ = 1, n do
    local _, x = resume(co)
    sum = sum + x
  end
  return sum
end

--- Words that are made, cut, replaced and joined, n times.
function programs.strings (n)
  local total = 0
  for i = 1, n do
    local words = {}
    for word in ("the quick brown fox jumps over " .. i):gmatch "%w+" do
      words[#words + 1] = word:upper() .. #word
    end
    local text = table.concat(words, " "):gsub("O", "0")
    total = total + #text + (text:find("F0X", 1, true) or 0)
  end
  return total
end

--- How much of each.
programs.sizes = { fannkuch = 9, nbody = 80000, trees = 15,
                   strings = 200000, coroutines = 3000000 }

--- Seconds of CPU that a program takes.
---@param name string
---@return number
function programs.measure (name)
  collectgarbage()
  local started = os.clock()
  programs[name](programs.sizes[name])
  return os.clock() - started
end

if arg and arg[1] and programs.sizes[arg[1]] then
  local seconds
  if parallel then
    local pool <close> = parallel.pool {
      min = 1, max = 1, pin = os.getenv "BENCH_PIN" ~= nil or nil,
    }
    seconds = pool:run(function (file, name)
      return dofile(file).measure(name)
    end, arg[0], arg[1])
  else
    seconds = programs.measure(arg[1])
  end
  print(("%s %.9f s"):format(arg[1], seconds))
end

return programs
