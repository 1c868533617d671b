-- SPDX-License-Identifier: MIT
--- One function with named arguments for each key, ten at a time.

protocol = "http"

function address (host, port)
  return protocol .. "://" .. host .. ":" .. port
end

function visit (host, port)
  if port == 0 then
    error("nothing listens on " .. host, 0)
  end
  return "visited " .. address(host, port)
end

calls = {
  web1 = { host = "first.example", port = 80 },
  web2 = { host = "second.example", port = 8080 },
  web3 = { host = "third.example", port = 0 },
}

results, errors = parallel.invoke(visit, calls, { limit = 10 })

names = {}
for key in pairs(calls) do
  names[#names + 1] = key
end
table.sort(names)

for _, key in ipairs(names) do
  if errors[key] then
    print("warning: " .. key .. ": " .. errors[key].error)
  else
    print(key .. ": " .. results[key])
  end
end

-- The same without waiting: the jobs come at once.
protocol = "https"
jobs = parallel.invoke(visit, calls, { limit = 10, async = true })
for _, key in ipairs(names) do
  ok, value = jobs[key]:join()
  print("later " .. key .. ": " .. (ok and value or value.error))
end
