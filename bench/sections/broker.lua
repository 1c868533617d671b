-- SPDX-License-Identifier: MIT
--- Jobs over a broker, beside the same messages in plain C.

local harness = ...
local compare <const> = harness.compare

package.path = harness.beside "../spec/?.lua;" .. package.path
local rabbitmq <const> = require "support.rabbitmq"

local JOBS <const> = 10000
local FLIGHT <const> = 64   -- as in floor_broker.c, like the next one
local WORKERS <const> = 2

local function empty () end

--- Two workers of a queue, which end with the value.
local function serve (url, queue)
  local pipe <const> = assert(io.popen(
    ("'%s' --serve '%s' --queue %s -j %d >/dev/null 2>&1 & echo $!"):format(
      harness.host, url, queue, WORKERS)))
  local pid <const> = pipe:read "l"
  pipe:close()
  return setmetatable({}, { __close = function ()
    os.execute("kill " .. pid)
  end })
end

local sections = {}

function sections.broker ()
  local server <close>, why <const> = rabbitmq.start()
  if server == nil then
    print("left out: " .. why)
    return
  end
  local _ <close> = serve(server.url, "bench")
  local pool <close> = parallel.pool {
    broker = server.url, queue = "bench", max = FLIGHT
  }
  local items = {}
  for i = 1, JOBS do items[i] = i end
  local function map () return pool:map(items, empty, { chunk = 1 }) end
  harness.warm(map)
  local floor <const> = harness.floor(
    "floor in C: publish, consume, reply, acknowledge", "floor_broker",
    ("'%s' 3 %d"):format(server.url, JOBS), "broker")
  floor.most = 1.3
  compare("10,000 empty jobs over a broker, 64 in flight, 2 workers",
          "us a job", {
    { measure = function () return harness.time(map) / JOBS * 1e6 end },
    floor,
  })
end

return sections
