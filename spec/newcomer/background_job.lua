-- SPDX-License-Identifier: MIT
--- Jobs in processes of their own: wait for them, receive, remove.

limit = 100

function add_up ()
  sum = 0
  for i = 1, limit do
    sum = sum + i
  end
  return sum
end

function count_lines (path)
  file, problem = io.open(path)
  if not file then
    parallel.task.error(problem)
    return "no lines"
  end
  file:close()
end

function die ()
  os.exit(3)
end

pool = parallel.pool { isolation = "process", max = 2 }
quiet = { error = false, warning = false }
jobs = {
  pool:submit { add_up, name = "sum" },
  pool:submit { count_lines, arguments = { "/no/such/file" },
                name = "lines", streams = quiet },
  pool:submit { die, name = "exit", streams = quiet },
}

for _, job in ipairs(jobs) do
  ok, result = job:join()
  print(job.name, job.state, ok and result or "no result")
  for _, record in ipairs(job.streams.error) do
    print(job.name, record.message)
  end
  job:remove()
end
print("left: " .. #parallel.jobs())
pool:close()
