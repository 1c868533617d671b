#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Let another event loop own the waiting.
---
---     runspace examples/event_loop.lua [luv|poll]
---
--- `parallel.fileno()` is a descriptor that becomes readable when there is
--- something to dispatch; `parallel.poll()` dispatches it.

local parallel = require "parallel"

local how <const> = arg and arg[1] or "luv"
local left = 3

parallel.on("finished", function (event)
  print(event.job_name, event.job:get())
  left = left - 1
end)

for i = 1, left do
  parallel.submit {
    function (n)
      for _ = 1, 1e6 do n = n + 1 end
      return n
    end,
    arguments = { i }, name = "job " .. i,
  }
end

if how == "luv" then
  local uv = require "luv"
  local poll <const> = uv.new_poll(parallel.fileno())
  local timer <const> = uv.new_timer()
  timer:start(0, 10, function () end)  -- the loop has other things to do
  poll:start("r", function ()
    parallel.poll()
    if left == 0 then
      poll:close()
      timer:close()
    end
  end)
  uv.run()
elseif how == "poll" then
  -- Whatever waits for descriptors will do: here LuaSocket's select, which
  -- takes anything with a method 'getfd'.
  local socket = require "socket"
  local fd <const> = parallel.fileno()
  local jobs <const> = { getfd = function () return fd end }
  while left > 0 do
    local readable = socket.select({ jobs }, nil, 1)
    if readable[1] == jobs then parallel.poll() end
  end
else
  error("luv or poll expected, got " .. how)
end
print("done by " .. how)
