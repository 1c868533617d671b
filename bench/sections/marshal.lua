-- SPDX-License-Identifier: MIT
--- Values to bytes and back, in one state and through a job.

local harness = ...
local compare <const>, median <const> = harness.compare, harness.median

local payloads <const> = dofile(harness.beside "payloads.lua")

--- Names in payloads.lua, titles, and which ratio to a flat buffer is wanted.
local NAMED <const> = {
  { "integers", "1e5 integers", 1.0 },
  { "strings", "1e5 distinct strings", 1.05 },
  { "records", "1e4 records", 0.75 },
  { "block", "one string of 16 MiB", 1.05 },
  { "nested", "nested tables", 1.05 },
  { "matrix", "300 arrays of 300 floats", 1.05 },
  { "keys", "a table with 1e5 string keys", 1.05 },
  { "objects", "1e4 objects of one class", 1.05 },
}

--- What else the distribution has that loads in stock Lua.
local SERIALIZERS <const> = {
  { "cjson", "cjson" }, { "dkjson", "dkjson" }, { "lyaml", "lyaml" },
  { "pl.pretty", "Penlight's pretty" },
}

local function flat (name, most, sample)
  local floor = harness.floor("floor in C: flat buffer", "floor_marshal",
    ("%s %s 7"):format(harness.beside "payloads.lua", name), sample)
  floor.most = most
  return floor
end

local sections = {}

function sections.marshal ()
  for _, entry in ipairs(NAMED) do
    local name, title, most = table.unpack(entry)
    local contenders = {
      harness.ours("serialize.lua",
        ("parallel %s %s 7"):format(harness.beside "payloads.lua", name),
        "serialize"),
      flat(name, most, name .. "_copy"),
    }
    for _, serializer in ipairs(SERIALIZERS) do
      local module, word = table.unpack(serializer)
      local contender = harness.stock(word, "serialize.lua", module,
        ("%s %s %s 2"):format(module, harness.beside "payloads.lua", name),
        "serialize")
      contender.most = 1
      contenders[#contenders + 1] = contender
    end
    compare("encode and decode in one state: " .. title, "ms", contenders)
  end
end

function sections.echo ()
  local pool <close> = harness.pool(1)
  for _, entry in ipairs(NAMED) do
    local name, title, most = table.unpack(entry)
    local payload = payloads[name]()
    local function echo () return pool:run("return ...", payload) end
    compare("through a job and back: " .. title, "ms", {
      { measure = function ()
          echo()
          return 1e3 * median(7, echo)
        end },
      flat(name, most, name .. "_echo"),
    })
  end
end

return sections
