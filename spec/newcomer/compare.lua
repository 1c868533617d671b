-- SPDX-License-Identifier: MIT
--- The same work done in five ways.

start = 7

function step (n)
  return (n * 31 + start) % 65536
end

function work (n)
  for _ = 1, 1000 do
    n = step(n)
  end
  return n
end

ways = { "none", "runspace", "job", "fresh", "process" }
result = parallel.compare { fn = work, items = { 1, 2, 3, 4, 5 },
                            isolation = ways, limit = 2 }

best = result[1]
for i, row in ipairs(result) do
  print(row.isolation, row.isolation == ways[i], row.seconds > 0)
  if row.seconds < best.seconds then
    best = row
  end
end
print(result.fastest.isolation == best.isolation)
