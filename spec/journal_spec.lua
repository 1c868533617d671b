-- SPDX-License-Identifier: MIT
--- The option 'journal': the next run does only the rest.
local lfs <const> = require "lfs"
local parallel <const> = require "parallel"
local run_script <const> = require "support.script"
local tree <const> = require "support.tree"

--- Runs that are killed, of each verb.
local KILLS <const> = (tonumber(os.getenv "JOURNAL_KILLS") or 20) // 5

--- The journal, and a file in which items leave a letter each.
local path, marks

before_each(function ()
  path, marks = os.tmpname(), os.tmpname()
  os.remove(path)
end)

after_each(function ()
  os.remove(path)
  os.remove(marks)
end)

local function read (name)
  local file <close> = assert(io.open(name, "rb"))
  return file:read "a"
end

local function write (name, bytes)
  local file <close> = assert(io.open(name, "wb"))
  file:write(bytes)
end

--- How many items have run since the last call.
local function ran ()
  local n <const> = #read(marks)
  write(marks, "")
  return n
end

--- Leave a letter, and give something of an item.
local function square (x, file)
  local out <close> = assert(io.open(file, "ab"))
  out:write "."
  return x * x, { item = x }
end

--- The options of a call of 'square'.
local function options (more)
  local given <const> = { journal = path, arguments = { marks } }
  for name, value in next, more or {} do given[name] = value end
  return given
end

--- The message of a call that is refused.
local function refusal (fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(message)
end

--- Each verb with a journal: how its results look as a text.
local VERBS <const> = {
  map = function (pool, items, fn, given)
    return table.concat(pool:map(items, fn, given), " ")
  end,
  filter = function (pool, items, fn, given)
    return table.concat(pool:filter(items, fn, given), " ")
  end,
  collect = function (pool, items, fn, given)
    local texts <const> = {}
    for i, r in ipairs((pool:collect(items, fn, given))) do
      texts[i] = ("%d=%d:%s:%d:%d:%d"):format(r.index, r.input, r.state,
                                              r.result, r.results[2].item,
                                              r.results.n)
    end
    return table.concat(texts, " ")
  end,
  each = function (pool, items, fn, given)
    local texts <const> = {}
    given.ordered = true
    for r in pool:each(items, fn, given) do
      texts[#texts + 1] = ("%d=%d:%d"):format(r.index, r.input, r.result)
    end
    return table.concat(texts, " ")
  end,
  invoke = function (pool, items, fn, given)
    local calls <const>, texts <const> = {}, {}
    local file <const> = given.arguments[1]
    for i, x in ipairs(items) do calls["key " .. i] = { x, file } end
    given.arguments = nil
    local results <const>, errors <const> = pool:invoke(fn, calls, given)
    assert.is_nil(next(errors))
    for i = 1, #items do texts[i] = results["key " .. i] end
    return table.concat(texts, " ")
  end,
}

local TEN <const> = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }

for kind, where in next, {
  threads = {}, processes = { isolation = "process" },
  ["a command"] = { command = { tree.program(), "--worker" } },
} do
  describe("journal with a pool of " .. kind, function ()
    for verb, call in next, VERBS do
      it("lets " .. verb .. " take from it what has completed", function ()
        where.max = 2
        local pool <close> = parallel.pool(where)
        local first <const> = call(pool, TEN, square, options())
        assert.equal(10, ran())
        assert.equal(first, call(pool, TEN, square, options()))
        assert.equal(0, ran())
      end)
    end
  end)
end

describe("journal", function ()
  it("gives the same for arrays, ranges and iterators", function ()
    local n = 0
    local function each_one ()
      n = n + 1
      if n <= 10 then return n end
    end
    local first <const> = parallel.map(TEN, square, options())
    assert.same(first, parallel.map(parallel.range(10), square, options()))
    assert.same(first, parallel.map(each_one, square, options()))
    assert.equal(10, ran())
  end)

  it("does what is new among what was done", function ()
    parallel.map({ 2, 4, 6, 8 }, square, options())
    local results <const> = parallel.map(TEN, square, options())
    assert.same({ 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, n = 10 }, results)
    assert.equal(10, ran())
    local n = 0
    results.n = nil
    assert.same(results, VERBS.map(parallel.pool { max = 1 }, TEN, square,
                                   options()) and results)
    for r in parallel.each(function () n = n + 1 return n <= 12 and n or nil
                           end, square, options { journal = path .. "2" }) do
      assert.equal(r.input * r.input, r.result)
    end
    os.remove(path .. "2")
    assert.equal(12, ran())
  end)

  it("keeps the indices of items, and their seeds", function ()
    local function draw (x)
      return { parallel.task.index, x, math.random(0) }
    end
    local items <const> = {}
    for i = 1, 40 do items[i] = i % 3 end
    local expected <const> = parallel.map(items, draw, { seed = 11 })
    local some <const> = table.move(items, 1, 17, 1, {})
    parallel.map(some, draw, { seed = 11, journal = path })
    assert.same(expected, parallel.map(items, draw,
                                       { seed = 11, journal = path }))
    assert.same(expected, parallel.map(items, draw,
                                       { seed = 11, journal = path }))
  end)

  it("does failed items again, and counts attempts", function ()
    local function odd (x, file)
      local _, more <const> = square(x, file)
      if x % 2 == 0 and not io.open(file .. ".good") then error "even" end
      if x == 3 and parallel.task.attempt == 1 then error "again" end
      return more
    end
    local given <const> = options { retries = 1 }
    local _, report = parallel.collect(TEN, odd, given)
    assert.equal(5, report.failed)
    write(marks .. ".good", "")
    ran()
    local records
    records, report = parallel.collect(TEN, odd, given)
    os.remove(marks .. ".good")
    assert.equal(0, report.failed)
    assert.equal(5, ran())
    assert.is_true(records[1].journaled)
    assert.equal(0, records[1].worker)
    assert.equal(2, records[3].attempts)
    assert.is_nil(records[2].journaled)
  end)

  it("goes with delays, rates and limits by a key", function ()
    local function fail_once (x, file)
      if x % 2 == 0 and parallel.task.attempt == 1 then error "again" end
      return (square(x, file))
    end
    local given <const> = options {
      retries = 1, retry_delay = 0.001, rate = { 10000, per = 1 },
      limit_by = { key = function (x) return x % 3 end, limit = 1 },
    }
    local first <const> = parallel.map(TEN, fail_once, given)
    assert.same({ 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, n = 10 }, first)
    assert.equal(10, ran())
    assert.same(first, parallel.map(TEN, fail_once, given))
    assert.equal(0, ran())
  end)

  it("does items with errors again, since their streams are not kept",
     function ()
    local function tell (x, file)
      if x == 2 then parallel.task.error "hm" end
      return (square(x, file))
    end
    local given <const> = options { streams = { error = false } }
    parallel.collect({ 1, 2, 3 }, tell, given)
    ran()
    local records <const> = parallel.collect({ 1, 2, 3 }, tell, given)
    assert.equal(1, ran())
    assert.equal("completed_with_errors", records[2].state)
    assert.equal("hm", records[2].error)
  end)

  it("knows equal items one by one", function ()
    parallel.map({ 5, 5, 5 }, square, options())
    assert.equal(3, ran())
    parallel.map({ 5, 5, 7, 5, 5 }, square, options())
    assert.equal(2, ran())
  end)

  it("knows tables by what they have, in any order", function ()
    local function order (list)
      local t <const> = {}
      for _, name in ipairs(list) do t[name] = { #name, name, { [name] = 1 } }
      end
      return t
    end
    local function count (_, file) return (square(1, file)) end
    parallel.map({ order { "a", "bb", "ccc", "dddd", "x1", "x2", "x3" } },
                 count, options())
    parallel.map({ order { "x3", "dddd", "x2", "ccc", "x1", "bb", "a" } },
                 count, options())
    assert.equal(1, ran())
    parallel.map({ order { "x3", "dddd", "x2", "ccc", "x1", "bb" } }, count,
                 options())
    assert.equal(1, ran())
  end)

  it("tells numbers, texts and booleans apart", function ()
    local function keep (x, file) square(1, file) return x end
    local items <const> = { 1, 1.0, "1", true, false, -1, 2^53, "", -0.0, 0.0,
                            { 1 }, { "1" }, {}, { {} }, { n = 1 } }
    local first <const> = parallel.map(items, keep, options())
    assert.equal(#items, ran())
    local again <const> = parallel.map(items, keep, options())
    assert.equal(0, ran())
    assert.same(first, again)
    for i, x in ipairs(items) do
      assert.equal(math.type(x), math.type(again[i]))
    end
  end)

  it("knows items by the key that a function gives", function ()
    local function time_of (item) return item.name end
    local function act (item, file)
      square(1, file)
      return item.name .. "!"
    end
    local journal <const> = { path, key = time_of }
    local function call (time)
      return parallel.map({ { name = "a", at = time, act = print },
                            { name = "b", at = time, act = print } }, act,
                          options { journal = journal })
    end
    assert.same({ "a!", "b!", n = 2 }, call(1))
    assert.same({ "a!", "b!", n = 2 }, call(2))
    assert.equal(2, ran())
  end)

  it("refuses items that are known by nothing that lasts", function ()
    for _, row in ipairs {
      { print, "a function" }, { setmetatable({}, {}), "a table with a meta" },
      { { { io.stdout } }, "a userdata" },
    } do
      local text <const> = refusal(parallel.map, { 1, row[1] },
                                   function () end, { journal = path })
      assert.matches("^%S+: bad option 'journal' to 'map' %(item 2: "
                     .. row[2], text)
      assert.matches("key = function", text)
      os.remove(path)
    end
    local loop <const> = {}
    loop[1] = loop
    assert.matches("contains itself",
                   refusal(parallel.map, { loop }, function () end,
                           { journal = path }))
    assert.matches("item 1: a key .- got nil",
                   refusal(parallel.map, { 1 }, function () end,
                           { journal = { path, key = function () end } }))
  end)

  it("begins anew where nothing has completed", function ()
    local function fail () error "no" end
    local function keep (x) return x end
    parallel.collect(TEN, fail, { journal = path })
    assert.same({ n = 2, 1, 2 },
                parallel.map({ 1, 2 }, keep, { journal = path }))
    assert.matches("verb changed", refusal(parallel.collect, TEN, fail,
                                           { journal = path }))
  end)

  it("refuses results that are no data", function ()
    local function give () return { f = function () end } end
    local text <const> = refusal(parallel.map, { 1 }, give, { journal = path })
    assert.matches("the result of item 1 cannot be kept: .*'%.?f'.*function",
                   text)
    assert.matches("to a file", text)
  end)

  describe("of another call", function ()
    local limit, helper
    local function compute (x) return helper(x) + limit end
    local function call (given)
      given.journal = given.journal or path
      return parallel.map(TEN, given.fn or compute, {
        journal = given.journal, seed = given.seed,
        arguments = given.arguments,
      })
    end
    before_each(function ()
      limit, helper = 1, function (x) return x end
      call {}
    end)

    --- Each row: what changes, how it is called.
    for name, change in next, {
      ["'limit'"] = function () limit = 2 end,
      ["'helper'"] = function () helper = function (x) return x + 1 end end,
      ["the function"] = function ()
        return { fn = function (x) return limit + helper(x) end }
      end,
      ["the arguments"] = function () return { arguments = { 5 } } end,
      ["the seed"] = function () return { seed = 1 } end,
      ["the key"] = function ()
        return { journal = { path, key = function (x) return x end } }
      end,
      ["id, the function"] = function ()
        limit, helper = nil, nil
        return { journal = { path, id = "one" } }
      end,
    } do
      it("is refused, and says that " .. name .. " changed", function ()
        local before <const> = read(path)
        local given <const> = change() or {}
        local text <const> = refusal(call, given)
        assert.matches("journal_spec.lua:%d+: bad option 'journal' to 'map' "
                       .. "%('.-' was written by another call: .- changed; "
                       .. "remove the file", text)
        assert.is_truthy(text:find(name, 1, true), text)
        assert.equal(before, read(path))
      end)
    end

    it("is refused for another function of a module, or in C", function ()
      package.loaded.journaled_one = {
        act = function (x) return x end, tell = math.floor,
      }
      local one <const> = package.loaded.journaled_one
      os.remove(path)
      call { fn = one.act }
      one.act = function (x) return x, 1 end
      assert.matches("the function changed", refusal(call, { fn = one.act }))
      os.remove(path)
      call { fn = math.floor }
      call { fn = math.floor }
      assert.matches("the function changed", refusal(call, { fn = math.ceil }))
      package.loaded.journaled_one = nil
    end)

    it("is refused for another verb", function ()
      assert.matches("verb changed", refusal(parallel.collect, TEN, compute,
                                             { journal = path }))
    end)

    it("is taken where only the place of the function is another", function ()
      local make <const> = "\n\n\nreturn function (x) return x + 1 end"
      local one <const>, other <const> = load(make:sub(2))(), load(make)()
      local file <const> = { file = path .. "3" }
      parallel.map(TEN, one, { journal = file })
      parallel.map(TEN, other, { journal = file })
      os.remove(path .. "3")
    end)

    it("is taken where an id says so", function ()
      local file <const> = { path .. "4", id = "v1" }
      local first <const> = call { journal = file }
      limit = 7
      assert.same(first, call { journal = file })
      file.id = "v2"
      assert.matches("id changed", refusal(call, { journal = file }))
      os.remove(path .. "4")
    end)
  end)

  it("counts globals that the function reads", function ()
    local text <const> = ([[
      factor, path = tonumber(arg[1]), arg[2]
      function grow (x) return x * factor end
      print(pcall(parallel.map, {1, 2}, function (x) return grow(x) end,
                  {journal = path}))
    ]])
    local script <const> = os.tmpname()
    write(script, text)
    local function run (factor)
      local pipe <close> = io.popen(tree.runspace .. " " .. script .. " "
                                    .. factor .. " " .. path .. " 2>&1")
      return pipe:read "a"
    end
    assert.matches("^true", run(3))
    assert.matches("^true", run(3))
    assert.matches("'factor' changed", run(4))
    os.remove(script)
  end)

  describe("that was cut short", function ()
    it("is read up to its last whole entry", function ()
      local expected <const> = parallel.map({ 1, 2, 3 }, square, options())
      local whole <const> = read(path)
      for n = 0, #whole do
        for _, tail in ipairs { "", ("\0"):rep(50) } do
          write(path, whole:sub(1, n) .. (n > 100 and tail or ""))
          assert.same(expected, parallel.map({ 1, 2, 3 }, square, options()))
          ran()
          assert.same(expected, parallel.map({ 1, 2, 3 }, square, options()))
          assert.equal(0, ran())
        end
      end
    end)
  end)

  it("that is damaged is refused, and never misread", function ()
    local expected <const> = parallel.map({ 1, 2, 3 }, square, options())
    local whole <const> = read(path)
    local told <const> = {}
    for n = 1, #whole do
      local byte <const> = whole:byte(n) ~ (1 << n % 8)
      write(path, whole:sub(1, n - 1) .. string.char(byte)
                  .. whole:sub(n + 1))
      local ok, result = pcall(parallel.map, { 1, 2, 3 }, square, options())
      if ok then
        assert.same(expected, result)
      else
        local why <const> = result:match "is damaged from byte %d+"
                            or result:match "is another kind of file"
                            or result:match "this program writes"
        assert.is_truthy(why, result)
        told[why:match "^%l+ %l+"] = true
      end
    end
    assert.is_true(told["is damaged"])
    assert.is_true(told["is another"])
    assert.is_true(told["this program"])
  end)

  it("is for one run at a time", function ()
    for r in parallel.each({ 1, 2 }, square, options()) do
      local text <const> = refusal(parallel.map, TEN, square, options())
      assert.matches("' is in use by another run%)$", text)
      assert.equal(r.input ^ 2, r.result)
    end
    assert.equal(2, #(parallel.collect({ 1, 2 }, square,
                                       options { journal = path .. "5" })))
    os.remove(path .. "5")
  end)

  it("says what is wrong with the file", function ()
    local function text (name)
      return refusal(parallel.map, { 1 }, square, options { journal = name })
    end
    assert.matches("'/dev/null' is no regular file", text "/dev/null")
    assert.matches("'/tmp' cannot be opened: .*irectory", text "/tmp")
    assert.matches("' cannot be opened: No such", text(path .. "/x/y"))
    write(path, "hello, this is text\n")
    assert.matches("' is another kind of file", text(path))
    assert.equal("hello, this is text\n", read(path))
    write(path, "runspace journal 99, of a later time\n")
    assert.matches("is a 'runspace journal 99, of a later time', and this "
                   .. "program writes 'runspace journal 1,", text(path))
  end)

  it("that cannot grow ends the call, and keeps what it has", function ()
    local source <const> = ([[
      local function long (x) return ("x"):rep(1000) .. x end
      local given = {journal = %q, chunk = 1}
      print(pcall(parallel.map, parallel.range(100), long, given))
    ]]):format(path)
    local script <const> = os.tmpname()
    write(script, source)
    local function run (limits)
      local pipe <close> = io.popen(limits .. "exec " .. tree.runspace .. " "
                                    .. script .. " 2>&1")
      return pipe:read "a"
    end
    assert.matches("^false.* cannot be written: File too large",
                   run "trap '' XFSZ; ulimit -f 40; ")
    assert.is_true(#read(path) > 1000)
    assert.matches("^true", run "")
    os.remove(script)
  end)

  it("is refused in a sandbox that forbids files", function ()
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    assert.matches("which the sandbox of this runspace forbids",
                   refusal(pool.run, pool, function (name)
                     parallel.map({ 1 }, function (x) return x end,
                                  { journal = name })
                   end, path))
    assert.is_nil(lfs.attributes(path))
  end)

  it("works in a job", function ()
    for _ = 1, 2 do
      assert.equal(385, parallel.run(function (items, fn, given)
        local sum = 0
        for _, x in ipairs(parallel.map(items, fn, given)) do sum = sum + x end
        return sum
      end, TEN, square, options()))
    end
    assert.equal(10, ran())
  end)

  it("keeps what was done when the call fails, or the loop is left",
     function ()
    local function until_five (x, file)
      if x == 5 then error "five" end
      return (square(x, file))
    end
    refusal(parallel.map, TEN, until_five, options { chunk = 1, limit = 1 })
    local done <const> = ran()
    refusal(parallel.map, TEN, until_five, options { chunk = 1, limit = 1 })
    assert.is_true(done >= 4)
    os.remove(path)
    ran()
    for r in parallel.each(TEN, square, options { chunk = 1, ordered = true })
    do
      if r.index == 4 then break end
    end
    ran()
    for r in parallel.each(TEN, square, options { chunk = 1, ordered = true })
    do
      if r.index <= 4 then assert.is_true(r.journaled) end
    end
  end)

  it("leaves no descriptor", function ()
    local function count ()
      local n = 0
      for _ in lfs.dir "/proc/self/fd" do n = n + 1 end
      return n
    end
    parallel.map(TEN, square, options())
    local before <const> = count()
    for _ = 1, 5 do
      parallel.map(TEN, square, options())
      refusal(parallel.map, TEN, function () end, options())
      local step <const>, _, _, loop <close> =
        parallel.each(TEN, square, options { journal = path .. "6" })
      step()
      assert.is_not_nil(loop)
      os.remove(path .. "6")
    end
    assert.equal(before, count())
  end)

  it("refuses what it cannot mean", function ()
    local function text (verb, journal, more)
      local given <const> = { journal = journal }
      for name, value in next, more or {} do given[name] = value end
      return refusal(parallel[verb], { 1 }, square, given)
    end
    for _, bad in ipairs { 5, true, "", "a\0b", {}, { 5 }, { file = path, 1 },
                           { path, keys = 1 }, { path, file = path } } do
      assert.matches("bad option 'journal' to 'map' %(the name of a file",
                     text("map", bad))
    end
    assert.matches("a function as key", text("map", { path, key = "x" }))
    assert.matches("a text as id", text("map", { path, id = 5 }))
    assert.matches("bad option 'journal' to 'reduce' %(none expected",
                   refusal(parallel.reduce, { 1 }, square, nil,
                           { journal = path }))
    assert.matches("with async nobody waits",
                   refusal(parallel.invoke, square, { a = { 1 } },
                           { journal = path, async = true }))
    assert.is_nil(lfs.attributes(path))
  end)
end)

--- A program that does its items by one verb, and writes what came of them.
local PROGRAM <const> = [[
local verb, path, log, seed = arg[1], arg[2], arg[3], 5
local function act (x, y)
  local file <close> = assert(io.open(log, "ab"))
  file:write "."
  file:close()
  local k = 0
  for i = 1, 20000 do k = k + i % 7 end
  if x % 10 == 3 and parallel.task.attempt == 1 then error "again" end
  return { x, y, k, at = parallel.task.index, drawn = math.random(0) },
         ("x"):rep(x * 13 % 300)
end
local given = {journal = path, seed = seed, retries = 1, chunk = 1, limit = 2}
local lines = {}
local function note (key, t, text)
  lines[#lines + 1] = ("%s: %d %s %d %d %x %d"):format(key, t[1], t[2], t[3],
    t.at, t.drawn, text and #text or 0)
end
local items = {}
for i = 1, 60 do items[i] = i * i % 47 end
if verb == "map" then
  for i, t in ipairs(parallel.map(items, act, given)) do note(i, t) end
elseif verb == "collect" then
  for i, r in ipairs((parallel.collect(items, act, given))) do
    note(i, r.result, r.results[2])
  end
elseif verb == "each" then
  for r in parallel.each(items, act, given) do
    note(("%03d"):format(r.index), r.result, r.results[2])
  end
elseif verb == "iterator" then
  local n = 0
  for i, t in ipairs(parallel.map(function ()
    n = n + 1
    if items[n] then return items[n], "y" .. n end
  end, act, given)) do note(i, t) end
else
  local calls = {}
  for i, x in ipairs(items) do calls[("k%03d"):format(i)] = {x, i} end
  given.chunk = nil
  for key, t in pairs((parallel.invoke(act, calls, given))) do note(key, t) end
end
table.sort(lines)
print(table.concat(lines, "\n"))
]]

describe("a program that is killed and run again", function ()
  for _, verb in ipairs { "map", "collect", "each", "iterator", "invoke" } do
    it("has the results of one that was not, by " .. verb, function ()
      local script <const> = os.tmpname()
      write(script, PROGRAM)
      --- Run the program; kill it after so many seconds, if they are given.
      local function run (name, seconds)
        local pipe = io.popen((seconds
          and ("timeout -s KILL %.4f "):format(seconds) or "")
          .. ("%s %s %s %s %s 2>&1"):format(tree.runspace, script, verb, name,
                                            marks))
        local text <const> = pipe:read "a"
        return text, (pipe:close())
      end
      local start <const> = parallel.now()
      local expected <const>, good <const> = run(path .. ".whole")
      local took <const> = parallel.now() - start
      os.remove(path .. ".whole")
      assert.is_true(good, expected)
      local once <const> = ran()
      local kills = 0
      for _ = 1, KILLS do
        os.remove(path)
        ran()
        local text, done
        local killed = 0
        repeat
          -- More and more time, so that the end is reached.
          local most <const> = took * (1 + killed / 4)
          text, done = run(path, killed < 20 and math.random() * most or nil)
          if not done then killed = killed + 1 end
        until done
        assert.equal(expected, text)
        kills = kills + killed
        -- 8 chunks of one item are in flight at most, which may be tried
        -- twice; and what was taken last.
        assert.is_true(ran() <= once + killed * 2 * 9)
      end
      io.stdout:write(("%s: %d times killed\n"):format(verb, kills))
      os.remove(script)
    end)
  end
end)

describe("a program with a journal that nobody kills", function ()
  it("ends well, and its journal is whole", function ()
    local source <const> = ([[
      parallel.map(parallel.range(10), function (x) return x end,
                   {journal = %q})
      error "the end"
    ]]):format(path)
    local text <const>, status <const> = run_script(source)
    assert.equal(1, status)
    assert.matches("the end", text)
    assert.same({ 1, 2, 3, n = 3 },
                parallel.map({ 1, 2, 3 }, function (x) return x end,
                             { journal = path }))
  end)
end)
