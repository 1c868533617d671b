-- SPDX-License-Identifier: MIT
--- A competitor: the work queue of luv, in stock Lua.
---
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua map NAME ITEMS VALUE CHUNK SAMPLES
---                                         [FUNCTION]
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua json NAME ITEMS VALUE CHUNK SAMPLES
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua roundtrip SAMPLES
---     UV_THREADPOOL_SIZE=N lua5.4 luv.lua jobs COUNT
---
--- As one who knows it would write it: values cross as strings or numbers, so
--- integers are packed CHUNK at a time (1 passes them as they are); 'json'
--- lets cjson do that, for values of any kind.  Prints 'name value unit'
--- lines, as the floors do.

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

--- The same, as JSON.
local function many_in_json (source, text)
  F = F or load(source)()  -- luacheck: ignore 111 113
  local cjson = require "cjson"
  local f, values = F, cjson.decode(text)  -- luacheck: ignore 113
  for i = 1, #values do values[i] = f(values[i]) end
  return cjson.encode(values)
end

local function map_in_json (items, source, chunk)
  local cjson = require "cjson"
  local results = {}
  for first = 1, #items, chunk do
    local last = math.min(first + chunk - 1, #items)
    uv.queue_work(uv.new_work(many_in_json, function (text)
      local values = cjson.decode(text)
      table.move(values, 1, last - first + 1, first, results)
    end), source, cjson.encode(table.move(items, first, last, 1, {})))
  end
  uv.run()
  assert(#results == #items)
  return results
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

local function measure (run, name, n, value, chunk, samples, source)
  source = source or "return function (x) return x * x end"
  chunk = math.tointeger(chunk)
  local items = {}
  for i = 1, n do
    items[i] = value ~= "0" and math.tointeger(value) or i
  end
  local stop = now() + 0.6
  repeat run(items, source, chunk) until now() >= stop
  for _ = 1, samples do
    collectgarbage()
    local started = now()
    run(items, source, chunk)
    report(name, (now() - started) / n * 1e9, "ns")
  end
end

function verbs.map (...) measure(map, ...) end
function verbs.json (...) measure(map_in_json, ...) end

--- Small jobs, one by one, some hundred in flight.
function verbs.jobs (count)
  count = math.tointeger(count)
  local started, sum, queued, done = now(), 0, 0, 0
  local work
  local function feed ()
    while queued < count and queued - done < 500 do
      queued = queued + 1
      uv.queue_work(work, queued)
    end
  end
  work = uv.new_work(function (x) return x end, function (x)
    sum, done = sum + x, done + 1
    feed()
  end)
  feed()
  uv.run()
  assert(sum == count * (count + 1) // 2)
  report("jobs", (now() - started) / count * 1e9, "ns")
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
