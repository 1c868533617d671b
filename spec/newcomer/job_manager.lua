-- SPDX-License-Identifier: MIT
--- Jobs by name, two at a time.

greeting = "hello"

function greet (who)
  if who == "" then
    error("whom?", 0)
  end
  return greeting .. " " .. who
end

function grumble (who)
  parallel.task.error(who .. " is late")
  return greet(who)
end

function forever ()
  while true do
    turns = (turns or 0) + 1
  end
end

manager = parallel.manager(2)
manager:start(greet, { "Ann" }, "ann")
manager:start(greet, { "" }, "nobody")
record = manager:wait("ann", 300)
print(record.name, record.state, record.result)

ok, problem = pcall(manager.start, manager, greet, { "Ann" }, "ann")
print(ok, problem)
ok, problem = pcall(manager.wait, manager, "bob")
print(ok, problem)

manager:start(grumble, { "Zoe" })
manager:wait_all(300)
for _, one in ipairs(manager:completed()) do
  print(one.name, one.state,
        one.result or one.error)
end

manager:start(forever, {}, "forever")
ok, problem = pcall(manager.wait, manager, "forever", 0.01)
print(ok, problem)
manager:remove "forever"
print(#manager:all(), #manager:running())
manager:close()
