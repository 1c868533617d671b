-- SPDX-License-Identifier: MIT
--- Costs over size: they shall not grow.

local harness = ...
local median <const> = harness.median

local function square (x) return x * x end
local function same (x) return x end

--- No size shall be so many times dearer than the first one that counts.
local FLAT <const> = 1.2

local sections = {}

function sections.scale ()
  harness.series("cost of an item by the workers of the pool", "ns",
                 { 1, 2, 8, 64, 256 }, 2, FLAT, function (workers)
    local items = {}
    for i = 1, 1000000 do items[i] = i end
    local pool <close> = harness.pool(workers)
    local function map () return pool:map(items, square) end
    harness.warm(map)
    return median(3, map) * 1e3
  end)
  harness.series("cost of a job by the workers of the pool", "ns",
                 { 1, 2, 8, 64, 256 }, 2, FLAT, function (workers)
    local pool <close> = harness.pool(workers)
    local function jobs ()
      local list = {}
      for i = 1, 50000 do
        local slot = i % 500
        if list[slot] then list[slot]:get() end
        list[slot] = pool:spawn(same, i)
      end
      for _, job in pairs(list) do job:get() end
    end
    harness.warm(jobs)
    return median(3, jobs) * 1e9 / 50000
  end)
  harness.series("cost of a job by the length of the queue", "ns",
                 { 1, 10, 100, 1000, 10000, 100000, 1000000 }, 3, 1.3,
                 function (length)
    local pool <close> = harness.pool()
    local times = math.max(1, 100000 // length)
    local function jobs ()
      for _ = 1, times do
        local list = {}
        for i = 1, length do list[i] = pool:spawn(same, i) end
        for i = 1, length do list[i]:get() end
      end
    end
    if length < 1000000 then harness.warm(jobs) end
    return median(length < 1000000 and 3 or 1, jobs) * 1e9
           / (length * times)
  end)
  harness.series("cost of an item by their number", "ns",
                 { 1, 10, 100, 1000, 10000, 100000, 1000000, 10000000 }, 6,
                 FLAT, function (n)
    local items = {}
    for i = 1, n do items[i] = i end
    local pool <close> = harness.pool()
    local times = math.max(1, 100000 // n // 10)
    local function maps ()
      for _ = 1, times do pool:map(items, square) end
    end
    harness.warm(maps)
    return median(n < 10000000 and 3 or 1, maps) * 1e9 / (n * times)
  end)
end

return sections
