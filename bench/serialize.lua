-- SPDX-License-Identifier: MIT
--- Marshalling in one state: ours, in the host program, and competitors,
--- modules of the distribution, in stock Lua.  Each has a new process in each
--- round, as its floor has: what a copy takes hangs on what the process had in
--- its memory before, by up to a tenth.
---
---     runspace serialize.lua parallel PAYLOADS.lua NAME SAMPLES
---     lua5.4 serialize.lua MODULE PAYLOADS.lua NAME SAMPLES
---
--- Encodes the payload and decodes it again; prints 'serialize value ms'
--- lines, or none when the module cannot do it within reason.

local module, file, name, samples = table.unpack(arg)

--- How each of them is called: a function that encodes, one that decodes.
local codecs = {}

--- The C part of ours, which no script can require.
local function core_in (fn, depth)
  for i = 1, 255 do
    local upvalue <const>, value <const> = debug.getupvalue(fn, i)
    if upvalue == nil or upvalue == "core" then return value end
    local found <const> = type(value) == "function" and depth > 0
                          and core_in(value, depth - 1)
    if found then return found end
  end
end

function codecs.parallel (parallel)
  local copy <const> = core_in(parallel.poll, 3).copy
  return copy, function (value) return value end  -- it does both
end

function codecs.cjson (cjson)
  cjson.encode_sparse_array(true)
  return cjson.encode, cjson.decode
end

function codecs.dkjson (dkjson) return dkjson.encode, dkjson.decode end

function codecs.lyaml (lyaml)
  return function (value) return lyaml.dump { value } end, lyaml.load
end

codecs["pl.pretty"] = function (pretty)
  return function (value) return pretty.write(value, "") end, pretty.read
end

--- These take minutes for what others do in milliseconds.
local TOO_LARGE <const> = { lyaml = { block = true },
                            ["pl.pretty"] = { block = true } }

if not (TOO_LARGE[module] and TOO_LARGE[module][name]) then
  local encode, decode = codecs[module](require(module))
  local payload = dofile(file)[name]()
  for i = 0, samples do
    collectgarbage()
    local started = os.clock()  -- of one thread that never waits
    local ok = pcall(function () return decode(encode(payload)) end)
    if not ok then break end
    if i > 0 then  -- not the warm-up?
      print(("serialize %.6g ms"):format((os.clock() - started) * 1e3))
    end
  end
end
