-- SPDX-License-Identifier: MIT
--- Computing in a runspace and in stock Lua, the same text.

local harness = ...

local sections = {}

function sections.tax ()
  -- A process for each sample of either: where the fields of a table lie
  -- follows from a number that each state draws, in part from addresses, and
  -- n-body takes up to an eighth longer with some than with others.  So it
  -- gets many short ones in a round, and the median of those counts.
  for _, row in ipairs {
    { "fannkuch", 1.01, 11 }, { "nbody", 1.01, 40 }, { "trees", 0.95, 3 },
    { "strings", 0.95, 5 }, { "coroutines", 1.01, 3 },
  } do
    local name <const>, most <const>, states <const> = table.unpack(row)
    local ours <const> = harness.ours("tax.lua", name, name)
    local stock <const> =
      harness.stock("stock lua5.4", "tax.lua", "math", name, name)
    stock.most = most
    for _, contender in ipairs { ours, stock } do
      local once <const> = contender.command
      contender.command = once .. (" && " .. once):rep(states - 1)
    end
    harness.compare(name .. " in a runspace", "s", { ours, stock })
  end
end

return sections
