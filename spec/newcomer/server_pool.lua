-- SPDX-License-Identifier: MIT
--- A pool of one to five runspaces, which start with a variable and a
--- function, looks for services that should run on ten servers.

-- luacheck: read globals unreachable shout

services = { "mail", "web", "clock" }

function is_running (server, service)
  number = tonumber(server:match "%d+")
  return (number + #service) % 3 ~= 0
end

function check (server)
  if server == unreachable then
    error(server .. " cannot be reached", 0)
  end
  stopped = {}
  for _, service in ipairs(services) do
    if not is_running(server, service) then
      stopped[#stopped + 1] = shout(service)
    end
  end
  return table.concat(stopped, " ")
end

function safe_check (server)
  ok, result = pcall(check, server)
  if ok then
    return { server = server, stopped = result }
  end
  return { server = server, problem = result }
end

function upper (text)
  return text:upper()
end

state = parallel.initial_state {
  variables = { unreachable = "server8" },
  functions = { shout = upper },
}
pool = parallel.pool { min = 1, max = 5, initial_state = state }

servers = {}
for i = 1, 10 do
  servers[i] = "server" .. i
end

for _, row in ipairs(pool:map(servers, safe_check)) do
  print(row.server, row.problem or row.stopped)
end
pool:close()
