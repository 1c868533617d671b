-- SPDX-License-Identifier: MIT
--- Values nested in each other more often than a C stack has room for.
local parallel <const> = require "parallel"
local copy <const> = require "support.core".copy

local LEVELS <const> = 100000

-- 'n' levels, from the outermost one on.
local function list (n)
  local t = {}
  for i = n, 1, -1 do t = { level = i, next = t } end
  return t
end

-- How many levels there are; they have to be in order.
local function count (t)
  local n = 0
  while t.next do
    n = n + 1
    if t.level ~= n then return "level " .. n .. " is " .. t.level end
    t = t.next
  end
  return n
end

local function refusal (...)
  local ok, message = pcall(copy, ...)
  assert.is_false(ok)
  return (tostring(message):gsub("^[^:]*:%d+: ", ""))
end

describe("deep value", function ()
  for _, n in ipairs { 98, 99, 100, 101, 198, 199, 200, 201, 202, 5000 } do
    it("travels with " .. n .. " levels", function ()
      assert.equal(n, count(copy(list(n))))
    end)
  end

  it("travels with a million levels", function ()
    assert.equal(1000000, count(copy(list(1000000))))
  end)

  it("is a ring whose members know both neighbours", function ()
    local first <const> = { 1 }
    local last = first
    for i = 2, LEVELS do
      local member <const> = { i, back = last }
      last.on, last = member, member
    end
    last.on, first.back = first, last
    local start <const> = copy(first)
    local member, n = start, 0
    repeat
      n = n + 1
      assert(member[1] == n and member.on.back == member)
      member = member.on
    until member == start
    assert.equal(LEVELS, n)
  end)

  it("is nested in keys", function ()
    local t = { "innermost" }
    for _ = 1, LEVELS do t = { [t] = true } end
    local u, n = copy(t), 0
    while u[1] == nil do u, n = next(u), n + 1 end
    assert.equal(LEVELS, n)
  end)

  it("is nested in metatables", function ()
    local t = { 0 }
    for i = 1, LEVELS do t = setmetatable({ i }, t) end
    local u, n = copy(t), LEVELS
    while n > 0 do
      assert(u[1] == n)
      u, n = getmetatable(u), n - 1
    end
    assert.is_nil(getmetatable(u))
  end)

  it("has objects of one class, at all depths", function ()
    local class <const> = { __index = { kind = "node" } }
    local t
    for i = 1, 1000 do
      t = setmetatable({ i = i, t = t, class = class }, class)
    end
    local u = copy(t)
    local own <const> = getmetatable(u)
    local n = 0
    repeat
      n = n + 1
      assert(getmetatable(u) == own and u.kind == "node")
      assert(u.class == own)
      u = u.t
    until u == nil
    assert.equal(1000, n)
  end)

  it("is shared by other parts of its value", function ()
    local t <const> = list(1000)
    local deepest, all <const> = t, {}
    for i = 1, 1000 do all[i], deepest = deepest, deepest.next end
    local a <const>, b <const>, c <const> = copy(t, all, deepest)
    local member = a
    for i = 1, 1000 do
      assert(b[i] == member)
      member = member.next
    end
    assert.equal(c, member)
  end)

  it("is wide where it is deep", function ()
    local t = {}
    for i = 1, 3000 do t[i] = { id = i, at = { x = i, y = { -i } } } end
    for _ = 1, 99 do t = { t } end
    local u = copy(t)
    for _ = 1, 99 do u = u[1] end
    assert.equal(3000, #u)
    for i = 1, 3000 do
      assert(u[i].id == i and u[i].at.x == i and u[i].at.y[1] == -i)
    end
  end)

  it("is a chain of closures", function ()
    local f = function () return nil end
    for i = 1, LEVELS do
      local g <const> = f
      f = function () return g, i end
    end
    local g, n = copy(f), LEVELS
    while g do
      local inner <const>, i <const> = g()
      assert(i == nil and n == 0 or i == n)
      g, n = inner, n - 1
    end
    assert.equal(-1, n)
  end)

  it("shares upvalues at all depths", function ()
    local total = 0
    local function add () total = total + 1 end
    local t = { add = add, get = function () return total end }
    for _ = 1, 500 do t = { add = function () total = total + 1 end, t } end
    local u = copy(t)
    local adds = 0
    while u[1] do
      u.add()
      u, adds = u[1], adds + 1
    end
    u.add()
    assert.equal(adds + 1, u.get())
    assert.equal(0, total)
  end)

  it("has what '__transfer' gives, at all depths", function ()
    local kind <const> = { __transfer = function (self)
      return function (n, t) return { twice = n + n, t = t } end,
             self.n, self.t
    end }
    local t = {}
    for i = 1, 1000 do
      t = { t, setmetatable({ n = i, t = { { i } } }, kind) }
    end
    local u = copy(t)
    for i = 1000, 1, -1 do
      assert(u[2].twice == 2 * i and u[2].t[1][1] == i)
      u = u[1]
    end
  end)

  it("is what a '__transfer' wants to have as it is", function ()
    local calls = 0
    local class <const> = { __transfer = function (self)
      calls = calls + 1
      return self
    end }
    local t
    for i = 1, 1000 do t = setmetatable({ i, t }, class) end
    local u, n = copy(t), 0
    while u do
      n = n + 1
      assert(getmetatable(u).__transfer)
      u = u[2]
    end
    assert.equal(1000, n)
    assert.equal(1000, calls)
  end)

  it("lets the collector run again", function ()
    copy(list(1000))
    assert.is_true(collectgarbage "isrunning")
    refusal(list(150), io.stdout)
    local t = { io.stdout }
    for _ = 1, 1000 do t = { t } end
    refusal(t)
    assert.is_true(collectgarbage "isrunning")
    collectgarbage "stop"
    copy(list(1000))
    local running <const> = collectgarbage "isrunning"
    collectgarbage "restart"
    assert.is_false(running)
  end)

  it("is refused by the end of its path", function ()
    local t = { file = io.stdout }
    for _ = 1, LEVELS + 10 do t = { next = t } end
    assert.matches("^field '%.%.%.next%.next.*%.next%.file':"
                   .. " cannot transfer a userdata %(FILE%*%); ", refusal(t))
    local log <const> = io.stdout
    local f = function () return log end
    for _ = 1, 1000 do
      local g <const> = f
      f = function () return g end
    end
    assert.matches("^upvalue 'log' of function <.*deep_spec.lua:%d+>: cannot",
                   refusal(f))
    local plain <const> = list(1000)
    assert.equal(1000, count(copy(plain)))
  end)

  it("does not lie in what '__transfer' returned", function ()
    local t = setmetatable({}, { __transfer = function ()
      return { list(300) }
    end })
    assert.matches("what '__transfer' returned: it is nested deeper than 100"
                   .. " levels", refusal(t))
  end)
end)

describe("deep value of a job", function ()
  local N <const> = 20000

  it("is an item, an argument, a parameter and a result", function ()
    local results <const> = parallel.map({ list(N), list(N + 1), list(3) },
                                         function (t, extra)
      return { n = count(t), extra = count(extra), back = t }
    end, { arguments = { list(N + 2) } })
    for i, n in ipairs { N, N + 1, 3 } do
      assert.equal(n, results[i].n)
      assert.equal(N + 2, results[i].extra)
      assert.equal(n, count(results[i].back))
    end
    assert.equal(N, count(parallel.spawn(function (t) return t end,
                                         list(N)):get()))
    assert.equal(N, parallel.invoke(function (t) return count(t) end,
                                    { a = { t = list(N) } }).a)
  end)

  it("is an upvalue", function ()
    local t <const> = list(N)
    assert.same({ N, N, n = 2 },
                parallel.map({ 1, 2 }, function () return count(t) end))
  end)

  it("is an error", function ()
    local job <const> = parallel.spawn(function () error(list(N)) end)
    job:wait()
    assert.equal(N, count(job.error))
    local records <const> = parallel.collect({ N }, function (n)
      error(list(n))
    end)
    assert.equal(N, count(records[1].error))
  end)

  it("is in a stream, and an event", function ()
    local seen
    local function heard (event) seen = count(event.data) end
    parallel.on("deep", heard)
    local job <const> = parallel.spawn(function ()
      parallel.task.warning(list(N))
      parallel.task.emit("deep", list(N))
    end)
    job:join()
    parallel.off("deep", heard)
    assert.equal(N, seen)
    assert.equal(N, count(job.streams.warning[1].value))
  end)

  it("is a variable of an initial state", function ()
    local pool <close> = parallel.pool { max = 1, variables = { t = list(N) } }
    assert.equal(N, pool:run(function () return count(_G.t) end))
  end)

  it("is found by a worker that begins behind it", function ()
    local records <const> = parallel.collect(
      { list(500), list(500), list(501), list(502) }, function (t)
        if parallel.task.attempt < 2 then error "again" end
        local till <const> = parallel.now() + 5e-3
        repeat until parallel.now() > till
        return count(t)
      end, { chunk = 2, retries = 1 })
    for i, n in ipairs { 500, 500, 501, 502 } do
      assert.equal(n, records[i].result)
    end
  end)

  it("ends with the memory that its runspace may have", function ()
    local pool <close> = parallel.pool { max = 1, memory = 16 << 20 }
    local job <const> = pool:spawn(function (t) return count(t) end,
                                   list(400000))
    job:wait()
    assert.equal("failed", job.state)
    assert.equal("memory_limit", job.reason)
    assert.equal(100, pool:run(function (t) return count(t) end, list(100)))
  end)
end)
