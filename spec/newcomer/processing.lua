-- SPDX-License-Identifier: MIT
--- A record for each item: what went in, what came out, what went wrong.

-- luacheck: read globals unit

json = require "cjson"

function parse (text)
  return json.decode(text)
end

function half (text, factor)
  number = parse(text).n
  if number % 2 == 1 then
    parallel.task.error(number .. " is odd")
  end
  return number * factor .. unit
end

inputs = { '{"n":4}', '{"n":7}', 'no json', '{"n":10}' }
records, report = parallel.collect(inputs, half, {
  limit = 5,
  params = { factor = 3 },
  variables = { unit = " m" },
  streams = { error = false },
})

for _, record in ipairs(records) do
  print(record.input, record.state, record.result or "nothing")
  if record.queued < 0 or record.duration < 0 then
    print "time runs backwards"
  end
end
print(report.succeeded .. " of " .. report.total)
