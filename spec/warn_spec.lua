-- SPDX-License-Identifier: MIT
--- 'runspace -W' tells of functions whose assignments are lost in a job.

local tree <const> = require "support.tree"

--- Run a script with -W: its warnings, one to a line, and what else it has
--- written.  The name of its file is 'script'.
---@param source string
---@param options? string  default "-W"
---@return string[] warnings
---@return string rest
local function run (source, options)
  local path <const> = os.tmpname()
  do
    local file <close> = assert(io.open(path, "w"))
    assert(file:write(source))
  end
  local pipe <close> = assert(io.popen(("LUA_INIT= timeout 200 %s %s %s 2>&1")
                                       :format(tree.runspace, options or "-W",
                                               path)))
  local text <const> = pipe:read "a":gsub(path:gsub("%p", "%%%0"), "script")
  os.remove(path)
  local warnings <const> = {}
  local rest <const> = text:gsub("Lua warning: ([^\n]*)\n", function (line)
    warnings[#warnings + 1] = line
    return ""
  end)
  return warnings, rest
end

--- The warning for a line of a function that begins there, too.
local function lost (what, name, noun, line)
  return ("script:%d: what is %s '%s' is lost, since a job works on a copy of "
          .. "that %s: let function <script:%d> return the value instead")
         :format(line or 3, what, name, noun or "upvalue", line or 3)
end

--- Run one script that submits functions of these bodies, each on a line of
--- its own: the warnings by body, and by body the number of its line.
---@param head string  lines before them
---@param bodies string[]
---@return table<string, string[]> warnings
---@return table<string, integer> lines
local function run_all (head, bodies)
  local source <const>, lines <const>, by_line <const> = { head }, {}, {}
  local n = select(2, head:gsub("\n", ""))
  for _, body in ipairs(bodies) do
    n = n + 1
    lines[body], by_line[n] = n, {}
    source[#source + 1] = "parallel.collect({ 1, 2 }, function (x) " .. body
                          .. " end, { streams = { error = false } })\n"
  end
  source[#source + 1] = "print 'done'"
  local warnings <const>, rest <const> = run(table.concat(source))
  assert(rest:find "done\n$", rest)
  for _, warning in ipairs(warnings) do
    local list <const> = by_line[tonumber(warning:match "^script:(%d+):")]
    list[#list + 1] = warning
  end
  local result <const> = {}
  for body, line in pairs(lines) do result[body] = by_line[line] end
  return result, lines
end

local HEAD <const> = "local log, t, n, same = {}, { list = {} }, 0\n"
                     .. "total, results, set = 0, {}, { inner = {} }\n"

describe("runspace -W warns of a function that returns nothing and",
         function ()
  local rows <const> = {
    -- Upvalues.
    ["n = n + x"] = { "assigned to", "n" },
    ["n = x"] = { "assigned to", "n" },
    ["if x > 1 then n = x return end"] = { "assigned to", "n" },
    ["for i = 1, x do while n < i do n = i end end"] =
      { "assigned to", "n" },
    ["same = same or {}"] = { "assigned to", "same" },
    -- The inside of one.
    ["log[#log + 1] = x"] = { "put into", "log" },
    ["log[#log + 1] = x > 1 and x or n"] = { "put into", "log" },
    ["log[x] = { x, x }"] = { "put into", "log" },
    ["log[1] = x"] = { "put into", "log" },
    ["t.n = x"] = { "put into", "t" },
    ["t.list[x] = x"] = { "put into", "t" },
    ["t.list.last = x"] = { "put into", "t" },
    ["t['a key'] = x"] = { "put into", "t" },
    ["local u = t u.n = x"] = { "put into", "t" },
    ["local u = t.list u[#u + 1] = x"] = { "put into", "t" },
    ["for i = 1, x do local u = t.list u[i] = i end"] = { "put into", "t" },
    ["for k, v in pairs { x } do log[k] = v end"] = { "put into", "log" },
    ["table.insert(log, x)"] = { "put into", "log" },
    ["table.insert(t.list, 1, x)"] = { "put into", "t" },
    ["rawset(log, x, x)"] = { "put into", "log" },
    ["table.sort(log)"] = { "put into", "log" },
    -- In a function inside.
    ["pcall(function () log[x] = x end)"] = { "put into", "log" },
    ["local function add () return function () n = x end end add()()"] =
      { "assigned to", "n" },
    -- Globals of the script.
    ["total = total + x"] = { "assigned to", "total", "global" },
    ["results[#results + 1] = x"] = { "put into", "results", "global" },
    ["set.inner[x] = true"] = { "put into", "set", "global" },
    ["table.insert(results, x)"] = { "put into", "results", "global" },
  }
  local warnings, lines
  setup(function ()
    local bodies <const> = {}
    for body in pairs(rows) do bodies[#bodies + 1] = body end
    warnings, lines = run_all(HEAD, bodies)
  end)
  for body, row in pairs(rows) do
    it("does " .. body, function ()
      assert.same({ lost(row[1], row[2], row[3], lines[body]) },
                  warnings[body])
    end)
  end

  for verb, call in pairs {
    run = "parallel.run(%s)",
    spawn = "parallel.spawn(%s)",
    submit = "parallel.submit { %s }",
    ["submit by name"] = "parallel.submit { fn = %s, name = 'x' }",
    map = "parallel.map({ 1 }, %s)",
    filter = "parallel.filter({ 1 }, %s)",
    collect = "parallel.collect({ 1 }, %s)",
    each = "for _ in parallel.each({ 1 }, %s) do end",
    invoke = "parallel.invoke(%s, { a = { 1 } })",
    ["a pool's run"] = "parallel.pool { max = 1 }:run(%s)",
    ["a pool's map"] = "parallel.pool { max = 1 }:map({ 1 }, %s)",
    ["a pool's everywhere"] = "parallel.pool { max = 1 }:everywhere(%s)",
    processes = "parallel.map({ 1 }, %s, { isolation = 'process' })",
  } do
    it("is given to " .. verb, function ()
      assert.same({ lost("assigned to", "n") }, (run(
        HEAD .. call:format "function (x) n = x end")))
    end)
  end

  it("is sent again and again, once", function ()
    assert.same({ lost("assigned to", "n") }, (run(HEAD
      .. "local function make () return function (x) n = x end end\n"
      .. "for i = 1, 3 do parallel.run(make(), i) end\n"
      .. "parallel.map({ 1, 2 }, make())\n"
      .. "local f = make() for i = 1, 3 do parallel.spawn(f, i) end")))
  end)

  it("has its first line, and each function its own", function ()
    local found <const> = run [[
local n, log = 0, {}
parallel.map({ 1 }, function (x)
  local y = x

  log[y] = 1
  n = x
end)
parallel.map({ 1 }, function (x) n = 1 end)]]
    assert.same({
      "script:5: what is put into 'log' is lost, since a job works on a copy "
      .. "of that upvalue: let function <script:2> return the value instead",
      "script:8: what is assigned to 'n' is lost, since a job works on a copy "
      .. "of that upvalue: let function <script:8> return the value instead",
    }, found)
  end)

  it("has no names or lines left", function ()
    local found <const> = run(HEAD .. [[
      local f = load(string.dump(function (x) n = x end, true))
      parallel.run(f, 1)]])
    assert.same({ "what is assigned to an upvalue is lost, since a job works "
                  .. "on a copy of that upvalue: let function <?:3> return "
                  .. "the value instead" }, found)
  end)

  it("begins far behind, in a long function", function ()
    local code <const> = {}
    for i = 1, 3000 do code[i] = ("x = x + %d -- %d"):format(i, i) end
    local found <const> = run(HEAD .. "parallel.run(function (x)\n"
      .. table.concat(code, "\n") .. "\nn = x end, 1)")
    assert.matches("^script:3004: what is assigned to 'n' is lost",
                   found[1])
  end)

  it("has more constants than an instruction can name", function ()
    local parts <const> = {}
    for i = 1, 400 do parts[i] = ("x = 'k%d'"):format(i) end
    local found <const> = run(HEAD .. "parallel.run(function (x) "
      .. table.concat(parts, " ") .. " t.late = x end)")
    assert.same({ lost("put into", "t") }, found)
  end)
end)

describe("runspace -W is silent where a function", function ()
  local bodies <const> = {
    -- It returns something.
    "n = n + x return n",
    "log[x] = x return log",
    "n = x return print",
    "if x > 5 then return x end n = x",
    "n = x return tostring(x)",
    -- It only reads.
    "local y = n + #log + t.list[1]",
    "local y = log[x] for k, v in pairs(log) do y = k end",
    "local y = total + #results",
    "if t.list[x] then error 'no' end",
    -- It assigns to what is its own.
    "x = x + 1",
    "local log = {} log[1] = x",
    "local u = {} u.n, u[1], u[x] = n, log, t",
    "local u = { t, log } u[1] = x",
    "local u = x > 1 and t or {} u.n = x",
    "local u = t u = {} u.n = x",
    "local u = t for i = 1, 2 do u.n, u = x, {} end x = u",
    "local u = t if x > 1 then u = {} end u.n = x",
    "local u repeat u = x > 5 and t or {} u.n = x until true",
    "local u = t local function f () u = {} end f() u.n = x",
    "local u = t while x < 5 do x = x + 1 u = { u } u.n = x end",
    "local u = t goto b ::a:: u.n = x do return end ::b:: u = {} goto a",
    "local list = { log } table.insert(list, x)",
    "local function f () local u = x u = 2 end f()",
    "scratch = x",
    "scratch = { x } scratch.n = x",
    "local u = table.pack(table.unpack(log)) u[1] = x",
    "local u = select(1, log) u = x",
    "local insert = function (_, v) x = v end insert(log, x)",
    "print = tostring",
    -- It is not known what a function does.
    "local f = type f(log, x)",
    "local a, b = next(log) a = b",
    -- It changes what is the runspace's own.
    "package.path = ''",
    "string.trim = x",
    "json.x = x",
    -- The table knows what is done to it.
    "proxy.x = x",
    "rebuilt.x = x",
  }
  local warnings
  setup(function ()
    warnings = run_all(
      "local json = require 'cjson'\n"
      .. "local proxy = setmetatable({}, { __newindex = rawlen })\n"
      .. "local rebuilt = setmetatable({}, { __transfer = "
      .. "function () return {} end })\n" .. HEAD, bodies)
  end)
  for _, body in ipairs(bodies) do
    it("does " .. body, function () assert.same({}, warnings[body]) end)
  end

  it("assigns globals in each runspace, as 'everywhere' is for", function ()
    assert.same({}, (run(HEAD .. "parallel.pool { max = 1 }"
                         .. ":everywhere(function () total = 1 end)")))
  end)

  it("is one in C, or source", function ()
    assert.same({}, (run "parallel.run(print) parallel.run 'x = 1'"))
  end)

  it("was submitted without it, or by who has turned it off", function ()
    local source <const> = HEAD .. "parallel.run(function () n = 1 end)"
    assert.same({}, (run(source, "-j 2")))
    assert.same({}, (run("warn '@off' " .. source)))
  end)
end)
