-- SPDX-License-Identifier: MIT
--- A line for each server as soon as it is done, and a table at the end.

domain = ".example"

function full_name (server)
  return server .. domain
end

function check (server)
  if server == "gamma" then
    error("no answer from " .. full_name(server), 0)
  end
  return full_name(server)
end

servers = { "alpha", "beta", "gamma", "delta" }
rows = {}
total = 0

for record in parallel.each(servers, check, { limit = 5, chunk = 1 }) do
  total = total + 1
  rows[record.index] = record
  print("done: " .. record.input, record.duration >= 0)
end

print(parallel.table(rows, { { "server", "input" }, "state", "result",
                             "error" }))
workers = {}
for _, record in ipairs(rows) do
  workers[record.worker] = true
end
print(total .. " servers", next(workers) ~= nil)
