-- SPDX-License-Identifier: MIT
--- Install a package on some servers: a job for each, and a summary.

package_name = "editor"
full = { south = true }

function copy (server)
  if full[server] then
    error("no space on " .. server, 0)
  end
  return package_name .. " copied to " .. server
end

function install (server)
  parallel.task.progress { activity = "Installing", status = server }
  if server == "west" then
    parallel.task.warning "restart needed"
  end
  return { server = server, message = copy(server), at = os.time() }
end

done, warnings = 0, 0

function count (event)
  done = done + 1
  if event.job.state == "failed" then
    print "(one has failed)"
  end
end

function warned (record)
  warnings = warnings + 1
  print("(" .. record.message .. ")")
end

parallel.on("finished", count)

jobs = {}
for i, server in ipairs { "north", "south", "east", "west" } do
  jobs[i] = parallel.submit { install, arguments = { server },
                              name = "Install-" .. server,
                              streams = { warning = warned } }
end

by_status = { completed = {}, failed = {} }
for _, job in ipairs(jobs) do
  ok, result = job:join()
  list = by_status[job.state]
  list[#list + 1] = job.name .. ": " .. (ok and result.message or result.error)
end
while done < #jobs do
  parallel.poll(1)
end

for _, status in ipairs { "completed", "failed" } do
  for _, line in ipairs(by_status[status]) do
    print(status, line)
  end
end
print(done .. " done, " .. warnings .. " warning")
