-- SPDX-License-Identifier: MIT
--- A competitor for marshalling: cjson, in stock Lua.
---
---     lua5.4 json.lua PAYLOADS.lua NAME SAMPLES
---
--- Encodes the payload and decodes it again; prints 'json value ms' lines.

local cjson = require "cjson"

local payload = dofile(arg[1])[arg[2]]()

for i = 0, arg[3] do
  collectgarbage()
  local started = os.clock()  -- of one thread that never waits
  cjson.decode(cjson.encode(payload))
  if i > 0 then  -- not the warm-up?
    print(("json %.6g ms"):format((os.clock() - started) * 1e3))
  end
end
