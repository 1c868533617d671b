-- SPDX-License-Identifier: MIT
--- Scan two ports of this machine: one is open, one is closed.

socket = require "socket"

timeout = 5

function listen ()
  server = assert(socket.bind("127.0.0.1", 0))
  port = tonumber((select(2, server:getsockname())))
  return server, port
end

function probe (target)
  connection = socket.tcp()
  connection:settimeout(timeout)
  started = parallel.now()
  ok, problem = connection:connect(target.host, target.port)
  milliseconds = (parallel.now() - started) * 1000
  connection:close()
  if ok then
    status = "Open"
  elseif problem == "connection refused" then
    status = "Closed"
  elseif problem == "timeout" then
    status = "Filtered"
  else
    status = "Error"
  end
  return { name = target.name, status = status, ms = milliseconds }
end

open_server, open_port = listen()
closed_server, closed_port = listen()
closed_server:close()

targets = {
  { name = "open port", host = "127.0.0.1", port = open_port },
  { name = "closed port", host = "127.0.0.1", port = closed_port },
  { name = "bad port", host = "127.0.0.1", port = "no such port" },
}

counts = { Open = 0, Closed = 0, Filtered = 0, Error = 0 }
for _, row in ipairs(parallel.map(targets, probe, { limit = 20 })) do
  counts[row.status] = counts[row.status] + 1
  print(row.name, row.status, row.ms >= 0)
end
print("open " .. counts.Open .. ", closed " .. counts.Closed
      .. ", filtered " .. counts.Filtered .. ", errors " .. counts.Error)
open_server:close()
