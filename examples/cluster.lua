#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Jobs by a broker: two workers, of which one dies, and nothing is lost.
---
---     runspace examples/cluster.lua amqp://guest:guest@localhost/
---
--- The workers would be on other machines, started there by
--- 'runspace --serve URL --queue NAME'.

local argparse = require "argparse"
local parallel = require "parallel"

local parser = argparse("cluster.lua", "Count primes on a cluster.")
parser:argument("url", "The broker: amqp[s]://user@host/vhost")
parser:option("-q --queue", "The queue", "primes")
parser:option("-r --runspace", "The program of the workers", "runspace")
local args <const> = parser:parse()

--- Start a worker, and return the number of its process.
local function start ()
  local pipe <close> = assert(io.popen(
    ("'%s' --serve '%s' --queue '%s' -j 1 2>/dev/null >/dev/null & echo $!")
    :format(args.runspace, args.url, args.queue)))
  return pipe:read "n"
end

local function count_primes (first, last)
  local n = 0
  for i = math.max(first, 2), last do
    local k = 2
    while k * k <= i and i % k ~= 0 do k = k + 1 end
    if k * k > i then n = n + 1 end
  end
  return n, parallel.task.attempt
end

local pool <close> = parallel.pool { broker = args.url, queue = args.queue }
local workers <const> = { start(), start() }

local jobs <const> = {}
for i = 0, 19 do
  jobs[i + 1] = pool:submit {
    count_primes, arguments = { i * 10000, i * 10000 + 9999 },
    retries = 3, retry_on = "lost",  -- whoever dies, another one does it
  }
end

local total = 0
for i, job in ipairs(jobs) do
  total = total + job:get()
  if i == 3 then
    os.execute("kill -KILL " .. workers[1])
    print "a worker was killed"
  end
end
print(total .. " primes below 200000")

os.execute("kill " .. workers[2])
