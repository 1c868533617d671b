-- SPDX-License-Identifier: MIT
--- A failure that nobody catches: what the user of a script is shown.

local run_script <const> = require "support.script"

--- The text, with a tab for each indentation by four blanks.
local function tabbed (text)
  return (text:gsub("\n    ", "\n\t"))
end

--- Run a script that fails: what it has written, with the name 'script' for
--- its file, and without the name of the program.
local function fail (source)
  local text, status = run_script(source)
  assert.equal(1, status, text)
  return (text:gsub("/tmp/lua_%w+", "script"):gsub("^[^\n]-runspace: ", ""))
end

describe("a failure that nobody catches", function ()
  -- Line 3 of each makes the call.
  for what, row in pairs {
    ["map"] = { [[parallel.map({ 7 }, work)]],
                "item 1 (7): script:1: no route" },
    ["filter"] = { [[parallel.filter({ 7 }, work)]],
                   "item 1 (7): script:1: no route" },
    ["reduce"] = { [[parallel.reduce({ 7, 8 }, work)]],
                   "items 1 to 2: script:1: no route" },
    ["run"] = { [[parallel.run(work)]],
                "'job-1': script:1: no route" },
    ["run in a pool"] = { [[parallel.pool{max = 1}:run(work)]],
                          "'job-1': script:1: no route" },
    ["job:get"] = { [[parallel.spawn(work):get()]],
                    "'job-1': script:1: no route" },
    ["job:join and assert"] = { [[assert(parallel.spawn(work):join())]],
                                "'job-1': script:1: no route",
                                "[C]: in function 'assert'\n\t" },
    ["a map with a pool of its own"] = {
      [[parallel.map({ 7 }, work, { limit = 100 })]],
      "item 1 (7): script:1: no route" },
    ["a map in processes"] = {
      [[parallel.map({ 7 }, work, { isolation = "process" })]],
      "item 1 (7): script:1: no route" },
  } do
    it("names the line of the call, and has the script's frames only: "
       .. what, function ()
      local text <const> = fail(
        "local function work () error 'no route' end\n"
        .. "local function outer ()\n  local _ = " .. row[1] .. "\nend\n"
        .. "outer()\n")
      assert.equal(tabbed [[
script:3: %s
traceback of the runspace:
    [C]: in function 'error'
    script:1: in function <script:1>
stack traceback:
    %sscript:3: in local 'outer'
    script:5: in main chunk
]]:format(row[2], row[3] or ""), text)
    end)
  end

  it("has the hint last", function ()
    assert.matches("^script:1: item 1 %(1%): script:1: attempt to call a nil "
                   .. "value %(global 'cry'%)\ntraceback of the runspace:\n"
                   .. ".*\nstack traceback:\n\tscript:1: in main chunk\n"
                   .. "hint: 'cry' is a global of the host[^\n]*\n$", fail(
      "cry = print parallel.map({ 1 }, function () cry() end, "
      .. "{ globals = false })"))
  end)

  it("keeps the line of the call when it is raised again", function ()
    local text <const> = fail [[
      local ok, failure = pcall(parallel.map, { 1 }, "error 'odd'")
      local function again ()
        error(failure)
      end
      if not ok then again() end
    ]]
    assert.matches("^script:1: item 1 %(1%): ", text)
    assert.matches("\nstack traceback:\n\t%[C%]: in function 'error'\n"
                   .. "\tscript:3: in local 'again'\n"
                   .. "\tscript:5: in main chunk\n$", text)
  end)

  it("has the functions in C that the script itself has called", function ()
    assert.equal(tabbed [[
script:4: item 1 (1): odd
stack traceback:
    script:4: in function <script:3>
    [C]: in function 'xpcall'
    script:3: in function <script:2>
    [C]: in function 'pcall'
    script:2: in local 'outer'
    script:8: in main chunk
]], (run_script [[
local function outer ()
  pcall(function ()
    xpcall(function ()
      parallel.map({ 1 }, function () error("odd", 0) end)
    end, print)
  end)
end
outer()]]:gsub("/tmp/lua_%w+", "script")
         :gsub("traceback of.-\nstack", "stack")))
  end)

  it("names the line in a coroutine, too", function ()
    assert.equal(tabbed [[
script:1: 'job-1': script:1: odd
traceback of the runspace:
    [C]: in function 'error'
    script:1: in function <script:1>
stack traceback:
    [C]: in upvalue 'resume'
    script:3: in local 'outer'
    script:4: in main chunk
]], fail [[
local f = function () local x = parallel.run(function () error "odd" end) end
local resume = coroutine.wrap(f)
local function outer () resume() end
outer()]])
  end)

  it("tells of calls that are not known", function ()
    assert.matches("\nstack traceback:\n\tscript:1: in function "
                   .. "<script:1>\n\t%(%.%.%.tail calls%.%.%.%)\n"
                   .. "\tscript:3: in main chunk\n$", fail [[
local function f () local t = parallel.map({ 1 }, "error('odd', 0)") end
local function g () return f() end
g()]])
  end)

  it("is one of a job's, where only that has failed", function ()
    assert.matches("^script:4: 'job%-%d+': item 1 %(1%): script:2: odd\n",
                   fail [[
local function work ()
  return parallel.map({ 1 }, function () error "odd" end)[1]
end
local x = parallel.run(work)]])
  end)

  it("is as it was to whoever catches it", function ()
    local text <const> = run_script [[
local ok, failure = pcall(parallel.map, { 1 }, "error('odd', 0)")
print(failure.where, failure.error)
local text = tostring(failure)
print(text == select(2, xpcall(error, tostring, failure, 0)),
      text == ("%s"):format(failure),
      text == select(2, xpcall(error, function (e) return tostring(e) end,
                               failure)), text:find("stack traceback"))
local ok, failure = parallel.spawn("error('odd', 0)"):join()
print(failure.where)]]
    assert.equal("/tmp/lua:1\todd\ntrue\ttrue\ttrue\tnil\n/tmp/lua:8\n",
                 (text:gsub("/tmp/lua_%w+", "/tmp/lua")))
  end)
end)

describe("an error in what the script gave to a call", function ()
  it("has the script's frames only", function ()
    assert.equal(tabbed [[
script:2: odd
stack traceback:
    [C]: in function 'error'
    script:2: in function <script:1>
    script:4: in main chunk
    [C]: in ?
]], (fail [[
local function show ()
  error "odd"
end
local _ = parallel.map({ 1 }, "return 1", { progress = show })]]
      :gsub("parallel: the script ended early[^\n]*\n", "")))
  end)
end)
