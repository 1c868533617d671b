-- SPDX-License-Identifier: MIT
--- Computing in a runspace and in stock Lua, the same text.

local harness = ...

local sections = {}

function sections.tax ()
  local file <close> = assert(io.open(harness.beside "tax.lua"))
  local text <const> = file:read "a"
  for _, row in ipairs {
    { "fannkuch", 1.01 }, { "nbody", 1.01 }, { "trees", 0.95 },
    { "strings", 0.95 }, { "coroutines", 1.01 },
  } do
    local name <const>, most <const> = row[1], row[2]
    -- A state for each sample, as in stock Lua: where the fields of a table
    -- lie follows from a number that each state draws, and n-body takes up to
    -- an eighth longer with some than with others.
    local function measure ()
      local pool <close> = harness.pool(1)
      return pool:run(function (source, which)
        return load(source)().measure(which)
      end, text, name)
    end
    local stock = harness.stock("stock lua5.4", "tax.lua", "math", name, name)
    stock.most = most
    harness.compare(name .. " in a runspace", "s", {
      { measure = measure },
      stock,
    })
  end
end

return sections
