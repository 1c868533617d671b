#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- A pool of up to five runspaces that start with modules, variables and
--- functions, and ten servers for it.
---
---     runspace examples/server_pool.lua

local parallel = require "parallel"

-- luacheck: read globals prefix started
local function label (server) return prefix .. server:upper() end

local pool <close> = parallel.pool {
  min = 1,
  max = 5,
  modules = { "cjson" },                 -- loaded before the first job
  variables = { prefix = "srv:" },       -- globals of each runspace
  functions = { label = label },
  init = "started = os.time()",          -- runs once in each
}

local servers = {}
for i = 1, 10 do servers[i] = "server" .. i end

-- Results come in the order of the servers, whatever the order of their end.
local records, report = pool:collect(servers, function (server)
  if server == "server7" then
    error { server = server, message = "does not answer" }
  end
  local json = require "cjson"
  return json.encode { name = label(server), up = started > 0 }
end)

for _, record in ipairs(records) do
  if record.state == "failed" then
    print(record.error.server, "ERROR: " .. record.error.message)
  else
    print(record.input, record.result)
  end
end
print(report.succeeded .. " of " .. report.total .. " servers, up to "
      .. pool:info().max .. " at a time")
