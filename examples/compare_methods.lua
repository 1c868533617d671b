#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- How long the same work takes, done in several ways.
---
---     runspace examples/compare_methods.lua

local parallel = require "parallel"

--- A tenth of a second of waiting, as for a server's answer.
local function ask (server)
  local socket = require "socket"
  socket.sleep(0.1)
  return server
end

local result = parallel.compare {
  fn = ask,
  items = { "a", "b", "c", "d", "e" },
  isolation = { "none", "runspace", "job", "fresh", "process" },
  limit = 5,
}
io.write(tostring(result))
