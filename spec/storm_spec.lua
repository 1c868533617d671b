-- SPDX-License-Identifier: MIT
--- A storm over worker processes: jobs run, and again and again a worker is
--- killed, stopped, or cut off, by the progress of the jobs.  Each job ends
--- once, what is lost is told, nothing runs twice that was not asked to, and
--- nothing is left behind.

local leaks <const> = require "support.leaks"
local sshd <const> = require "support.sshd"
local tree <const> = require "support.tree"

--- Jobs, or items.  What is instrumented starts slowly.
local N <const> = math.tointeger(os.getenv "STORM_JOBS")
                  or tree.sanitizers == "" and 2000 or 400
local HEARTBEAT <const> = tree.sanitizers == "" and 0.5 or 2

local server <const>, without <const> = sshd.start()
if server ~= nil then
  teardown(function () server:close() end)
end

--- A string, or a table of them, as source.
local function quote (value)
  if type(value) == "string" then return ("%q"):format(value) end
  local words <const> = {}
  for i, word in ipairs(value) do words[i] = quote(word) end
  return "{" .. table.concat(words, ", ") .. "}"
end

--- Each kind: options of its pools, jobs between two attacks, and what is done
--- to workers.  A worker behind a shell that does not become it can be cut off
--- by the end of the shell; one behind ssh, by the end of its connection.
local KINDS <const> = {
  { name = "process", options = 'isolation = "process"', every = 20,
    attacks = { "kill", "stop" } },
  { name = "command", every = 20, attacks = { "kill", "stop", "cut" },
    options = "command = " .. quote { "sh", "-c", tree.program()
                                      .. " --worker; exit $?" } },
}
if server ~= nil then
  KINDS[3] = {
    name = "ssh", every = 60, attacks = { "kill", "stop", "cut" },
    options = "hosts = {'web1:4'}, ssh = " .. quote(server.ssh)
              .. ", runspace = " .. quote(tree.program()),
  }
else
  print("left out, since " .. without .. ": workers behind ssh")
end

--- What all storms have.  A job appends its number to a file when it begins,
--- and returns it, with the number of its process, and that of its parent.
local STORM <const> = [[
local path <const> = os.tmpname()

local function work (n, path)
  local file <close> = assert(io.open(path, "a"))
  file:write(n, "\n")
  file:close()
  local stat <close> = io.open "/proc/self/stat"
  local pid, parent = stat:read "a":match "^(%d+) .*%) %a (%d+)"
  local x = 0
  for i = 1, 20000 do x = x + i end
  return n, pid, parent
end

--- How often each job began.
local function beginnings ()
  local times <const> = {}
  for line in io.lines(path) do
    local n <const> = assert(math.tointeger(tonumber(line)))
    times[n] = (times[n] or 0) + 1
  end
  return times
end

local function sh (...)
  os.execute((...):format(select(2, ...)) .. " 2>/dev/null")
end

--- Processes that were seen, by their numbers.
local seen <const> = {}
local stopped <const> = {}
local attacks, turn = 0, 0

--- Attack the process that has just returned something.
local function attack (pid, parent)
  turn = turn + 1
  local how <const> = ATTACKS[turn % #ATTACKS + 1]
  attacks = attacks + 1
  if how == "kill" then
    sh("kill -KILL %s", pid)
  elseif how == "stop" then
    stopped[#stopped + 1] = pid
    sh("kill -STOP %s", pid)
  elseif CUT == nil then
    sh("kill -KILL %s", parent)
  else
    local file <close> = io.open(("/proc/%d/task/%d/children"):format(CUT,
                                                                      CUT))
    local some <const> = {}
    for number in file:read "a":gmatch "%d+" do some[#some + 1] = number end
    if #some > 0 then sh("kill -KILL %s", some[math.random(#some)]) end
  end
end

local function is_there (pid)
  local file <close> = io.open("/proc/" .. pid .. "/stat")
  local state <const> = file and file:read "a":match "%) (%a)"
  return state ~= nil and state ~= "Z"
end

--- Wait until all workers have ended.  What is out of reach and was stopped
--- ends when it goes on.
local function calm ()
  for _, pid in ipairs(stopped) do sh("kill -CONT %s", pid) end
  local late <const> = parallel.now() + 60
  for pid in pairs(seen) do
    while is_there(pid) do
      assert(parallel.now() < late, "a worker is left")
      sh "sleep 0.01"
    end
  end
  os.remove(path)
end

local REASONS <const> = {
  "was killed by SIGKILL$", "was killed by SIGTERM$", "was killed by SIGHUP$",
  "exited with status 137$", "no heartbeat for [%d.]+ s$", "connection closed$"
}

local function check_reason (text)
  for _, pattern in ipairs(REASONS) do
    if text:find(pattern) then return end
  end
  error("lost: " .. text)
end
]]

--- Jobs, which are lost or completed.
local JOBS <const> = [[
function round (i)
  local jobs <const> = i == 0 and 20 or N
  local p = parallel.pool(OPTIONS)
  local numbers <const>, ends <const> = {}, {}
  local ended, next_attack = 0, i == 0 and math.huge or EVERY
  local last
  local handler <const> = parallel.on("finished", function (event)
    ended = ended + 1
    ends[event.id] = (ends[event.id] or 0) + 1
    if event.job.state == "completed" then
      last = event.job
      local _, pid, parent = last:get()
      seen[pid] = true
      if ended >= next_attack then
        next_attack = ended + EVERY
        attack(pid, parent)
      end
    end
  end)
  local all <const> = {}
  for n = 1, jobs do
    all[n] = p:spawn(work, n, path)  -- waits for room, so that attacks keep up
    numbers[all[n].id] = n
  end
  while ended < jobs do parallel.poll(60) end
  p:close()
  parallel.poll(0)
  parallel.off("finished", handler)
  local began <const> = beginnings()
  local lost, completed = 0, 0
  for n, job in ipairs(all) do
    assert(ends[job.id] == 1, "a job has ended twice")
    if job.state == "completed" then
      completed = completed + 1
      assert(job:get() == n and began[n] == 1)
    else
      assert(job.state == "lost", job.state .. ": " .. tostring(job.error))
      lost = lost + 1
      check_reason(job.error)
      assert((began[n] or 0) <= 1)
    end
  end
  assert(lost <= attacks, "more is lost than was attacked")
  assert(lost + completed == jobs and ended == jobs)
  if i > 0 then
    assert(attacks > 0)
    io.stderr:write(lost, " of ", jobs, " lost, ", attacks, " attacks\n")
  end
  os.remove(path)
  if i > 0 then calm() end
end
]]

--- Items of a map, which run again until they have not been lost.
local ITEMS <const> = [[
function round (i)
  local items <const> = i == 0 and 20 or N
  local p <close> = parallel.pool(OPTIONS)
  local got, next_attack = {}, i == 0 and math.huge or EVERY
  local n, again = 0, 0
  local function run (x, path) return { work(x, path) } end
  for record in p:each(parallel.range(1, items), run, {
    arguments = { path }, retries = 100, retry_on = "lost",
  }) do
    assert(record.state == "completed", record.error)
    local x, pid, parent = table.unpack(record.result)
    assert(x == record.index and got[x] == nil, "an item has ended twice")
    got[x] = true
    n = n + 1
    again = again + record.attempts - 1
    seen[pid] = true
    if n >= next_attack then
      next_attack = n + EVERY
      attack(pid, parent)
    end
  end
  assert(n == items)
  for x, times in pairs(beginnings()) do
    assert(got[x] and times >= 1)
  end
  if i > 0 then
    assert(attacks > 0)
    io.stderr:write(again, " attempts more, ", attacks, " attacks\n")
  end
  os.remove(path)
  if i > 0 then p:close() calm() end
end
]]

--- Run a storm; true if all went well, or what the script said.
local function storm (kind, source)
  local settings <const> = ([[
    local ATTACKS <const>, EVERY <const>, N <const> = %s, %d, %d
    local OPTIONS <const> = { max = 4, queue = 8, heartbeat = %g, %s }
    local CUT <const> = %s  -- the server whose connections are cut
  ]]):format(quote(kind.attacks), kind.every, N, HEARTBEAT,
             kind.options, kind.name == "ssh" and server.pid or "nil")
  local output <const>, status <const> = leaks.run(settings .. STORM .. source,
                                                   1)
  if os.getenv "STORM_SHOWS" then print(output) end
  return status == 0 and output:find "nothing is left\n$" ~= nil or output
end

for _, kind in ipairs(KINDS) do
  describe("a storm over workers: " .. kind.name, function ()
    it("ends each job once, and loses none without a word", function ()
      assert.is_true(storm(kind, JOBS))
    end)
  end)
end

describe("a storm over workers that were reaped", function ()
  it("loses no item that may run again", function ()
    assert.is_true(storm(KINDS[1], ITEMS))
  end)
end)
