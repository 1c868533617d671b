-- SPDX-License-Identifier: MIT
--- Stopping: every way in which a script can be busy, and in which it can
--- wait.  Each row runs in a process of its own, so that a crash is a failed
--- row.

local run <const> = require "support.script"
local tree <const> = require "support.tree"

--- What the process of a row does.  The job says that it has begun, and is
--- then told to stop.  What has to end at once gets a grace of hours: a job
--- that only force could end would not end while anybody waits.
local HARNESS <const> = [[
local parallel = require "parallel"
local code, grace, attempts, asleep = %q, %s, %d, %s
local prefix <const> = "parallel.task.emit('begun', "
  .. "io.open '/proc/thread-self/stat':read 'n') "
if code:find "BEGUN" then
  code = code:gsub("BEGUN", function () return prefix end)
else
  code = prefix .. code
end
local pool = parallel.pool { max = 1 }
local begun, thread = 0, nil
parallel.on("begun", function (event)
  begun, thread = begun + 1, event.data
end)
-- What waits does so when its thread sleeps.
local function await_sleep ()
  local path = ("/proc/self/task/%%d/stat"):format(thread)
  repeat
    local file <close> = io.open(path)
  until file:read "a":match "%%) (%%a)" == "S"
end
local state, reason
local attempt = 0
repeat
  attempt = attempt + 1
  local job = pool:spawn(code)
  while begun < attempt do parallel.poll(1) end
  if asleep then await_sleep() end
  assert(job:cancel { grace = grace })
  state, reason = job:wait(), job.reason
until state == "lost" or attempt >= attempts
local after = pool:run "collectgarbage() return 'the next one is well'"
print(state, reason, after, pool:info().lost_workers)
]]

--- How a job of a class ends: by the first, soft error; by force, after the
--- usual grace; or not at all.  'grace' is nil where the usual one is meant.
--- What is to be lost is tried again when the stop came before its C code.
local CLASSES <const> = {
  at_once = { grace = 10000, attempts = 3, state = "cancelled" },
  soon = { attempts = 1, state = "cancelled" },
  lost = { attempts = 20, state = "lost" },
}

--- ThreadSanitizer holds back signals from loops that call nothing which it
--- knows, such as an allocation.
local HELD_BACK <const> = tree.sanitizers == "thread"

local SPIN <const> = HELD_BACK
  and "local function spin () while true do tostring {} end end "
  or "local function spin () while true do end end "

--- Each row: what is busy, its class, the code of the job, and whether that
--- calls nothing at all.
local BUSY <const> = {
  { "an empty loop", "at_once", "while true do end", true },
  { "a numeric loop", "at_once",
    "local n = 0 for i = 1, math.huge do n = i end", true },
  { "a loop of repeat", "at_once",
    "local n = 0 repeat n = n + 1 until false", true },
  { "a loop of goto", "at_once", "::again:: goto again", true },
  { "a generic loop", "at_once",
    "for _ in function () return true end do end", true },
  { "tail calls", "at_once",
    "local function f (n) return f(n + 1) end f(1)", true },
  { "recursion that overflows, again and again", "soon",
    "local function f (n) return 1 + f(n + 1) end "
    .. "while true do pcall(f, 1) end" },
  { "strings", "at_once",
    "while true do local s = '' for i = 1, 100 do s = s .. i end end" },
  { "tables", "at_once",
    "while true do local t = {} for i = 1, 1000 do t[i] = {} end end" },
  { "a metamethod", "at_once", SPIN
    .. "return setmetatable({}, { __index = spin }).x" },
  { "a comparison", "at_once", SPIN
    .. "return setmetatable({}, { __lt = spin }) < {}" },
  { "a conversion to text", "at_once", SPIN
    .. "return ('%s'):format(setmetatable({}, { __tostring = spin }))" },
  { "a function under pcall", "at_once", SPIN .. "pcall(spin)" },
  { "a loop that swallows errors", "soon", SPIN
    .. "while true do pcall(spin) end" },
  { "errors that are swallowed ten times over", "soon", SPIN
    .. "local f = spin for _ = 1, 10 do local g = f "
    .. "f = function () while true do pcall(g) end end end f()" },
  { "a loop of pcall(error)", "soon",
    "while true do pcall(error, { {} }) end" },
  { "a function under xpcall, with debug.traceback", "at_once", SPIN
    .. "xpcall(spin, debug.traceback)" },
  { "a busy message handler", "at_once", SPIN .. "xpcall(error, spin)" },
  { "busy handlers in a loop", "soon", SPIN
    .. "while true do xpcall(spin, spin) end" },
  { "a coroutine", "at_once", SPIN .. "coroutine.wrap(spin)()" },
  { "a coroutine that is resumed", "at_once", SPIN
    .. "coroutine.resume(coroutine.create(spin))" },
  { "coroutines in coroutines", "at_once", SPIN
    .. "local f = spin for _ = 1, 20 do local g = f "
    .. "f = function () coroutine.wrap(g)() end end f()" },
  { "coroutines in a loop that swallows errors", "soon", SPIN
    .. "while true do pcall(coroutine.wrap(spin)) end" },
  { "pcall in a coroutine", "soon", SPIN .. "coroutine.wrap(function () "
    .. "while true do pcall(spin) end end)()" },
  { "a coroutine that yields for ever", "at_once",
    "local co = coroutine.wrap(function () "
    .. "while true do coroutine.yield() end end) while true do co() end",
    true },
  { "coroutines without number", "at_once",
    "while true do coroutine.wrap(function () coroutine.yield() end)() end" },
  { "coroutine.close with a busy __close", "at_once", SPIN
    .. "local co = coroutine.create(function () "
    .. "local x <close> = setmetatable({}, { __close = spin }) "
    .. "coroutine.yield() end) coroutine.resume(co) coroutine.close(co)" },
  { "a busy __close", "at_once", SPIN
    .. "local x <close> = setmetatable({}, { __close = spin })" },
  { "a busy __gc", "at_once", SPIN
    .. "setmetatable({}, { __gc = spin }) collectgarbage()" },
  { "busy finalizers without number", "at_once", SPIN
    .. "while true do setmetatable({}, { __gc = spin }) end" },
  { "a loop whose traceback is garbage enough for finalizers", "at_once",
    SPIN .. "collectgarbage 'stop' "
    .. "for _ = 1, 9 do setmetatable({}, { __gc = spin }) end "
    .. "collectgarbage 'restart' spin()" },
  { "a callback of gsub", "at_once", SPIN .. "('x'):gsub('x', spin)" },
  { "many callbacks of gsub", "at_once",
    "local s = ('x'):rep(1e6) "
    .. "while true do s:gsub('x', function () end) end", true },
  { "a comparison of sort", "at_once",
    SPIN .. "table.sort({ 1, 2, 3 }, spin)" },
  { "many comparisons of sort", "at_once",
    "local t = {} for i = 1, 1e5 do t[i] = i * 7919 % 100003 end "
    .. "while true do table.sort(t, function (a, b) return a < b end) "
    .. "table.sort(t, function (a, b) return a > b end) end", true },
  { "the reader of load", "at_once", SPIN .. "load(spin)" },
  { "a chunk that is loaded", "at_once", "load 'while true do end' ()",
    true },
  { "a module that does not end", "at_once", SPIN
    .. "package.preload.spin = spin require 'spin'" },
  { "a handler of an event", "at_once", SPIN
    .. "parallel.on('sent', function () BEGUN spin() end) "
    .. "local pool = parallel.pool { max = 1 } "
    .. "pool:spawn(\"parallel.task.emit 'sent'\") "
    .. "while true do parallel.poll(100) end" },
  { "debug.sethook in a loop", "soon", "while true do debug.sethook() end",
    true },
  { "hooks of the script", "soon",
    "debug.sethook(function () end, 'l') while true do end", true },
  { "a hook that does not end", "lost", SPIN .. "debug.sethook(spin, '', 1)",
    true },
  { "huge strings", "soon",
    "while true do local s = ('x'):rep(1 << 22) end", true },
  { "table.concat", "soon",
    "local t = {} for i = 1, 1e5 do t[i] = 'x' end "
    .. "while true do table.concat(t) end" },
  { "table.sort without a function", "soon",
    "local t = {} while true do "
    .. "for i = 1, 1e4 do t[i] = i * 7919 % 100003 end table.sort(t) end",
    true },
  { "a catastrophic pattern", "lost",
    "return (('a'):rep(40)):find(('.-'):rep(20) .. 'b')" },
  { "a catastrophic pattern under pcall", "lost",
    "while true do pcall(string.find, ('a'):rep(40), ('.-'):rep(20) .. 'b') "
    .. "end" },
}

--- A pipe with a name, where nobody writes: 'path'.
local PIPE <const> = "local path = os.tmpname() os.remove(path) "
  .. "local p = io.popen('mkfifo ' .. path) p:close() "
  .. "local function at_end () os.remove(path) end "
  .. "local _ <close> = setmetatable({}, { __close = at_end }) "

--- Each row: what waits, its class, the code of the job.
local WAITING <const> = {
  { "task.sleep", "at_once", "parallel.task.sleep(100)" },
  { "task.sleep in a coroutine", "at_once",
    "coroutine.wrap(function () parallel.task.sleep(100) end)()" },
  { "io.open of a pipe", "at_once", PIPE .. "io.open(path)" },
  { "file:read", "at_once", PIPE .. "io.open(path, 'r+'):read(1)" },
  { "io.lines", "at_once", PIPE .. "io.open(path, 'r+'):lines()()" },
  { "file:read under pcall, in a loop", "soon", PIPE
    .. "local f = io.open(path, 'r+') while true do pcall(f.read, f, 1) end" },
  { "reading from a program", "at_once",
    "io.popen('exec sleep 2'):read 'a'" },
  { "os.execute", "at_once", "os.execute 'exec sleep 1'" },
  { "task.execute", "at_once", "parallel.task.execute 'exec sleep 100'" },
  { "task.execute of what ignores SIGTERM", "soon",
    "parallel.task.execute \"trap '' TERM; while true; do sleep 1; done\"" },
  { "job:wait", "at_once",
    "local pool = parallel.pool { max = 1 } "
    .. "pool:spawn(function () parallel.task.sleep(100) end):wait()" },
  { "a job of its own pool", "at_once",
    "parallel.run(function () parallel.task.sleep(100) end)" },
  { "parallel.map", "at_once",
    "parallel.map({ 1, 2, 3 }, function () parallel.task.sleep(100) end)" },
  { "parallel.map in a pool of its own", "at_once",
    "parallel.map({ 1, 2 }, function () parallel.task.sleep(100) end, "
    .. "{ limit = 2, reset = 'none' })" },
  { "parallel.wait", "at_once",
    "local pool = parallel.pool { max = 1 } "
    .. "parallel.wait { pool:spawn(function () parallel.task.sleep(100) end) }"
  },
  { "a pool that opens", "at_once",
    "parallel.pool { init = 'parallel.task.sleep(100)' }" },
  { "a pool whose workers spin", "at_once",
    "parallel.pool { min = 2, init = '" .. SPIN .. "spin()' }" },
  { "parallel.poll", "at_once", "parallel.poll(100)" },
  { "the records of a job", "at_once",
    "local pool = parallel.pool { max = 1 } local job = "
    .. "pool:spawn(function () parallel.task.sleep(100) end) "
    .. "for _ in job:records() do end" },
  { "room in a queue", "at_once",
    "local pool = parallel.pool { max = 1, queue = 1 } "
    .. "while true do pool:spawn(function () parallel.task.sleep(100) end) "
    .. "end" },
  { "a socket that accepts", "lost",
    "local server = require 'socket'.bind('127.0.0.1', 0) "
    .. "BEGUN server:accept()" },
  { "C that goes on with its sleep after a signal", "lost",
    "local sleep = require 'socket'.sleep "
    .. "BEGUN sleep(100)" },
  { "os.execute, too long", "lost", "os.execute 'exec sleep 3'",
    true },
}

---@param rows table[]
---@param asleep boolean  they wait
---@param grace number?
local function check (rows, asleep, grace)
  for _, row in ipairs(rows) do
    local what <const>, class <const>, code <const> = table.unpack(row)
    local test = row[4] and HELD_BACK and pending or it
    test(what .. (grace and ", by force" or ""), function ()
      local expected <const> = CLASSES[class]
      local text <const> = run(HARNESS:format(code, grace or expected.grace,
                                              expected.attempts, asleep))
      assert.equal(table.concat({
        expected.state, expected.state, "the next one is well",
        class == "lost" and 1 or 0,
      }, "\t") .. "\n", text)
    end)
  end
end

describe("job:cancel stops", function ()
  check(BUSY, false)
end)

describe("job:cancel ends the wait of", function ()
  check(WAITING, true)
end)

describe("coroutines that close one another", function ()
  it("nest as deep as the stack of a worker allows, and no deeper", function ()
    local text <const> = run [[
      local pool <close> = parallel.pool { max = 1 }
      local job = pool:spawn(function ()
        local function nest ()
          local co = coroutine.create(function ()
            local _ <close> = setmetatable({}, { __close = nest })
            coroutine.yield()
          end)
          coroutine.resume(co)
          assert(coroutine.close(co))
        end
        nest()
      end)
      print(job:wait(), job.error:match "C stack overflow")
      print(pool:run "return 'well'")
    ]]
    assert.equal("failed\tC stack overflow\nwell\n", text)
  end)
end)

describe("job:cancel without grace stops", function ()
  check({ BUSY[1], BUSY[14], BUSY[15], BUSY[19], BUSY[23], BUSY[30] },
        false, 0)
end)

describe("job:cancel with a grace of centuries", function ()
  for _, grace in ipairs { "1e18", "1e19", "1e300", "math.huge" } do
    it("leaves the job its time: " .. grace, function ()
      local text <const>, status <const> = run(([[
        local pool <close> = parallel.pool { max = 1 }
        local begun, caught = false, false
        parallel.on("begun", function () begun = true end)
        parallel.on("caught", function () caught = true end)
        local job = pool:spawn(function ()
          pcall(function ()
            parallel.task.emit "begun"
            while true do tostring {} end
          end)
          parallel.task.emit "caught"
          while true do pcall(tostring, {}) end
        end)
        while not begun do parallel.poll(1) end
        job:cancel { grace = %s }
        while not caught do parallel.poll(1) end
        print(job:wait(0.2))  -- the thread of the timers waits, too
        print(job.state)
        job:cancel { grace = 0 }
        print(job:wait(), job.reason)
      ]]):format(grace))
      assert.equal("nil\ttimeout\nstopping\ncancelled\tcancelled\n", text)
      assert.equal(0, status)
    end)
  end
end)
