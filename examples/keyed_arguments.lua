#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Call one function with named arguments for each key.
---
---     runspace examples/keyed_arguments.lua

local parallel = require "parallel"

local function fetch (host, port, path)
  if port == 0 then error("port 0 cannot be reached", 0) end
  return ("http://%s:%d%s"):format(host, port, path)
end

local servers <const> = {
  web1 = { host = "10.0.0.1", port = 80 },
  web2 = { host = "10.0.0.2", port = 8080 },
  broken = { host = "10.0.0.3", port = 0 },
}

-- All at once, up to ten at a time: results and errors, both by key.
local pages, errors = parallel.invoke(fetch, servers, {
  limit = 10,
  params = { path = "/index.html" },  -- the same for all keys
})
for _, key in ipairs { "broken", "web1", "web2" } do
  print(key, pages[key] or "failed: " .. errors[key].error)
end

-- Or jobs by key, to be asked later.
local jobs = parallel.invoke(fetch, servers, {
  async = true,
  params = { path = "/" },
})
print("async", jobs.web1.name, jobs.web1:get())
local ok, failure = jobs.broken:join()
print("async", jobs.broken.name, ok, failure.error)
