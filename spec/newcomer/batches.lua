-- SPDX-License-Identifier: MIT
--- Many small items, in batches of a hundred, four batches at a time.

divisor = 250

function work (number)
  if number % divisor == 0 then
    error(number .. " will not do", 0)
  end
  return number + 1
end

function show (title, amount)
  items = {}
  for i = 1, amount do
    items[i] = i
  end
  records, report = parallel.collect(items, work, { chunk = 100, limit = 4 })
  print(title, report.total, report.processed, report.succeeded,
        report.failed, report.batches, report.batch_size,
        ("%.1f %%"):format(report.success_rate * 100))
  for _, record in ipairs(records) do
    if record.state == "failed" then
      print(record.index, record.error)
    elseif record.result ~= record.input + 1 then
      print(record.index, "is wrong")
    end
  end
end

show("many", 1000)
show("none", 0)
