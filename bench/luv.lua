-- SPDX-License-Identifier: MIT
--- A competitor: the work queue of luv, in stock Lua.
---
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua map NAME ITEMS VALUE CHUNK SAMPLES
---                                         [FUNCTION]
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua roundtrip SAMPLES
---
--- As one who knows it would write it: values cross as strings or numbers, so
--- integers are packed CHUNK at a time (1 passes them as they are).  Prints
--- 'name value unit' lines, as the floors do.

local uv = require "luv"

local function now ()
  return uv.hrtime() * 1e-9
end

local function report (name, value, unit)
  print(("%s %.6g %s"):format(name, value, unit))
end

--- In the workers: one item.  A function crosses as bytecode, without
--- upvalues; a global of the worker's state keeps what it compiled.
local function one (source, x)
  F = F or load(source)()  -- luacheck: ignore 111 113
  return F(x)  -- luacheck: ignore 113
end

--- In the workers: a packed chunk.
local function many (source, packed)
  F = F or load(source)()  -- luacheck: ignore 111 113
  local f = F  -- luacheck: ignore 113
  local format = ("j"):rep(#packed // 8)
  local values = { string.unpack(format, packed) }
  values[#values] = nil  -- the position behind the last
  for i = 1, #values do values[i] = f(values[i]) end
  return string.pack(format, table.unpack(values))
end

local function map (items, source, chunk)
  local results = {}
  if chunk == 1 then
    for i = 1, #items do
      uv.queue_work(uv.new_work(one, function (value)
        results[i] = value
      end), source, items[i])
    end
  else
    for first = 1, #items, chunk do
      local last = math.min(first + chunk - 1, #items)
      local format = ("j"):rep(last - first + 1)
      uv.queue_work(uv.new_work(many, function (packed)
        local values = { string.unpack(format, packed) }
        table.move(values, 1, last - first + 1, first, results)
      end), source, string.pack(format, table.unpack(items, first, last)))
    end
  end
  uv.run()
  assert(#results == #items)
  return results
end

local verbs = {}

function verbs.map (name, n, value, chunk, samples, source)
  source = source or "return function (x) return x * x end"
  chunk = math.tointeger(chunk)
  local items = {}
  for i = 1, n do
    items[i] = value ~= "0" and math.tointeger(value) or i
  end
  local stop = now() + 0.6
  repeat map(items, source, chunk) until now() >= stop
  for _ = 1, samples do
    collectgarbage()
    local started = now()
    map(items, source, chunk)
    report(name, (now() - started) / n * 1e9, "ns")
  end
end

function verbs.roundtrip (samples)
  local work = uv.new_work(function () end, function () end)
  for _ = 1, samples do
    local started = now()
    for _ = 1, 1000 do
      uv.queue_work(work)
      uv.run()
    end
    report("roundtrip", (now() - started) / 1000 * 1e6, "us")
  end
end

verbs[arg[1]](table.unpack(arg, 2))
