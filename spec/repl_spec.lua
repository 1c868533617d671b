-- SPDX-License-Identifier: MIT
--- The prompt: through a pipe, and at a real terminal, which tmux plays.

local tree <const> = require "support.tree"

local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function shell (command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

--- A new directory, removed when the variable that holds it goes.
local function new_scratch ()
  local path = shell "mktemp -d":gsub("\n", "")
  return setmetatable({ path = path }, {
    __close = function ()
      -- A program that was just killed may still add to it.
      os.execute(("for i in 1 2 3 4 5 6 7 8 9; do rm -rf %s 2>/dev/null "
                  .. "&& break; sleep 0.1; done"):format(quote(path)))
    end,
  })
end

describe("the prompt at a pipe", function ()
  --- Type lines; what was printed, between the version and the last prompt.
  local function dialogue (...)
    local scratch <close> = new_scratch()
    local input = scratch.path .. "/input"
    local file <close> = assert(io.open(input, "wb"))
    file:write(table.concat({ ... }, "\n"), "\n")
    file:close()
    local output = shell(("LUA_INIT= %s -i <%s 2>&1"):format(
      quote(tree.runspace), quote(input)))
    return output:match "^runspace [^\n]*\n(.*)> \n$" or output
  end

  --- What is shown of an expression, behind the echo of it.
  local function shown (expression)
    local output = dialogue("_PROMPT = '> '", "= " .. expression)
    local mark = "> = " .. expression .. "\n"
    local _, last = output:find(mark, 1, true)
    return (output:sub((last or 0) + 1):gsub("\n$", ""))
  end

  describe("shows", function ()
    local rows <const> = {
      -- as lua5.4 does
      { "1", "1" },
      { "2.0", "2.0" },
      { "'text'", "text" },
      { "'two\\nlines', 2", "two\nlines\t2" },
      { "nil, false", "nil\tfalse" },
      { "setmetatable({}, { __tostring = function () return 'T' end })", "T" },
      -- sequences
      { "{}", "{}" },
      { "{ 1, 2.0, 1e300, -0.0 }", "{1, 2.0, 1e+300, -0.0}" },
      { "{ 1, nil, 3 }", "{1, nil, 3}" },
      { "table.pack(1, 2)", "{1, 2}" },
      { "table.pack(1, nil, 3)", "{1, nil, 3, n = 3}" },
      { "table.pack(nil, 2, nil)", "{[2] = 2, n = 3}" },
      { "{ n = 3 }", "{n = 3}" },
      { "table.pack()", "{}" },
      { "{ 1, 2, n = 1 }", "{1, 2, n = 1}" },
      { "{ 1, n = 'x' }", '{1, n = "x"}' },
      { "{ { 1, 2 }, { 3, {} } }", "{{1, 2}, {3, {}}}" },
      { "{ 'a', true, math.huge }", '{"a", true, inf}' },
      -- fields
      { "{ b = 1, a = 2, [1] = 3 }", "{3, a = 2, b = 1}" },
      { "{ [2.5] = 1, [-1] = 2, ['and'] = 3, ['a b'] = 4, [true] = 5 }",
        '{[-1] = 2, [2.5] = 1, ["a b"] = 4, ["and"] = 3, [true] = 5}' },
      { "{ [10] = 1, [9] = 2, x = {} }", "{[9] = 2, [10] = 1, x = {}}" },
      -- strings inside
      { [[{ 'a"b\\', 'x\n\t\0\127' }]], [[{"a\"b\\", "x\n\t\x00\x7F"}]] },
      { [[{ 'na\u{ef}ve', '\xff' }]], "{\"na\u{ef}ve\", \"\\xFF\"}" },
      { "{ ('x'):rep(300) }",
        '{\n  "' .. ("x"):rep(200) .. '"... (100 more)\n}' },
      { "{ ('\\u{ef}'):rep(150), 'a' .. ('\\u{ef}'):rep(150) }",
        '{\n  "' .. ("\u{ef}"):rep(100) .. '"... (100 more),\n  "a'
        .. ("\u{ef}"):rep(99) .. '"... (102 more)\n}' },
      -- things with a say in it
      { "{ setmetatable({}, { __tostring = function () return 'T' end }) }",
        "{T}" },
      { "{ setmetatable({}, { __tostring = function () "
        .. "return 'a\\27\\nb\\n\\nc\\n' end }) }",
        "{a\\x1B... (2 more lines)}" },
      { "{ ['\\27\\n'] = '\\u{9b}' }", '{["\\x1B\\n"] = "\\u{9B}"}' },
      { "select(2, parallel.map({ 1 }, function () error('x', 0) end, "
        .. "{ on_error = 'continue' }))",
        "{item 1 (1): x}" },
      { "{ setmetatable({}, { __tostring = error }) }",
        "{<table: error in __tostring>}" },
      { "setmetatable({ 1 }, { __index = error, __len = error, "
        .. "__pairs = error, __metatable = 1 })", "{1}" },
      -- no end
      { "(function () local t = {}; t[1] = t; t.t = { t } return t end)()",
        "{<cycle>, t = {<cycle>}}" },
      { "(function () local t = { 1 }; return { t, t } end)()", "{{1}, {1}}" },
      { "{ { { { { { { 7 } } } } } } }", "{{{{{{... (1 more)}}}}}}" },
      { "(function () local t = {} for i = 1, 1e5 do t = { t } end "
        .. "return t end)()", "{{{{{{... (1 more)}}}}}}" },
      -- several
      { "{ 1 }, { x = 2 }, nil", "{1}\t{x = 2}\tnil" },
      { "1, { ('x'):rep(99) }, 'y'",
        '1\n{\n  "' .. ("x"):rep(99) .. '"\n}\ny' },
      -- maps
      { "parallel.map({ 1, 2, 3 }, function (x) return x * x end)",
        "{1, 4, 9}" },
      { "parallel.filter({ 1, 2, 3 }, function (x) return x > 1 end)",
        "{2, 3}" },
      { "parallel.map({ 1, false, 3 }, function (x) return x or nil end)",
        "{1, nil, 3, n = 3}" },
    }
    for _, row in ipairs(rows) do
      it(row[1], function () assert.equal(row[2], shown(row[1])) end)
    end

    it("tables with a name by it", function ()
      assert.matches("^{Point: 0x%x+, function: [^ ]+, file %(0x%x+%)}$",
                     shown("{ setmetatable({}, { __name = 'Point' }), "
                           .. "print, io.stdout }"))
    end)

    it("small tables of a long one on a line each", function ()
      assert.equal([[
{
  {name = "alpha", ok = true, ports = {22, 80}},
  {name = "beta", ok = false, ports = {}},
  list = {"one", "two"}
}]], shown("{ { name = 'alpha', ok = true, ports = { 22, 80 } }, "
                 .. "{ name = 'beta', ok = false, ports = {} }, "
                 .. "list = { 'one', 'two' } }"))
    end)

    it("numbers of a long sequence in lines, and how many more", function ()
      local text = shown("(function () local t = {} for i = 1, 197 do "
                         .. "t[i] = i end return t end)()")
      assert.matches("^{\n  1, 2, 3, .*, 99, 100, %.%.%. %(97 more%)\n}$",
                     text)
      for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80) end
    end)

    it("how many fields more there are", function ()
      local text = shown("(function () local t = {} for i = 1, 150 do "
                         .. "t['k' .. i] = i end return t end)()")
      assert.matches("\n  %.%.%. %(50 more%)\n}$", text)
    end)

    it("a bounded text of a wide tree", function ()
      local text = shown("(function () local t = {} for i = 1, 90 do "
                         .. "t[i] = {} for j = 1, 90 do t[i][j] = j end end "
                         .. "return t end)()")
      assert.is_true(#text < 8000)
      assert.matches("%.%.%. %(%d+ more%)\n}$", text)
    end)

    it("nothing itself but what a 'print' of the program makes", function ()
      assert.equal([[
> function print (v) io.write(type(v), "!\n") end
> { 1 }
table!
]], dialogue('function print (v) io.write(type(v), "!\\n") end', "{ 1 }"))
    end)

    it("values even when 'require' is gone or the module breaks", function ()
      assert.matches("\n> {1}\n{1}\n$", dialogue("require = nil", "{1}"))
      assert.matches("\n> {1}\ntable: 0x%x+\n$", dialogue(
        "math.max = error", "{1}"))
    end)
  end)

  describe("reads", function ()
    it("expressions of several lines", function ()
      assert.equal([[
> parallel.map({ 1, 2 },
>>   function (x)
>>     return -x
>>   end)
{-1, -2}
]], dialogue("parallel.map({ 1, 2 },", "  function (x)", "    return -x",
             "  end)"))
    end)

    it("an expression that begins with a table or a sign", function ()
      assert.equal([[
> {
>>   1, 2,
>> }
{1, 2}
> 1 +
>> 2
3
> not
>> nil
true
]], dialogue("{", "  1, 2,", "}", "1 +", "2", "not", "nil"))
      assert.matches("\n> x = = 1\n[^\n]*unexpected symbol near '='\n> 1\n1\n",
                     dialogue("", "x = = 1", "1"))
      assert.matches("unexpected symbol near <eof>\n", dialogue "1 +", 1, true)
    end)

    it("with the prompts that the program chose", function ()
      assert.equal([[
> _PROMPT, _PROMPT2 = "1? ", "more? "
1? (
more? 5)
5
1? _PROMPT = nil
]], dialogue('_PROMPT, _PROMPT2 = "1? ", "more? "', "(", "5)",
             "_PROMPT = nil"))
    end)

    it("what failed unseen above the next prompt, once", function ()
      local output <const> = dialogue(
        "parallel.spawn(function () error('dropped', 0) end) "
        .. "held = parallel.spawn(function () error('held', 0) end) "
        .. "parallel.wait(parallel.jobs())", "'next'", "collectgarbage()",
        "'last'")
      for i, name in ipairs { "dropped", "held" } do
        local told <const> = "parallel: nobody looked at the failure of "
                             .. "'job-" .. i .. "': " .. name .. "\n"
        local first <const>, last <const> = output:find(told, 1, true)
        assert.is_number(first, output)
        assert.is_true(first < output:find("> 'next'", 1, true))
        assert.is_nil(output:find(told, last, true))
      end
      assert.is_true(output:find("'job-1'", 1, true)
                     < output:find("'job-2': held", 1, true))
    end)

    it("nothing of a failure that somebody has seen, or will", function ()
      assert.is_nil(dialogue(
        "held = parallel.spawn(function () error('held', 0) end) held:join()",
        "_ = parallel.spawn(function () error 'told' end)"
        .. ":on('failed', function () end)",
        "_ = parallel.wait(parallel.jobs())", "1"
      ):find("nobody looked", 1, true))
    end)

    it("a failure with the line of its call, and the script's frames",
       function ()
      assert.equal([[
stdin:1: item 1 (1): odd
traceback of the runspace:
    [C]: in function 'error'
    stdin:1: in function <stdin:1>
stack traceback:
    stdin:1: in main chunk]], (shown(
        "parallel.map({ 1 }, function () error('odd', 0) end)")
        :gsub("\t", "    ")))
    end)

    it("a line, and leaves the next to io.read", function ()
      assert.equal("> io.read(), io.read \"n\"\nfirst\t17\n" .. [[
> io.read "l"

> "and on"
and on
]], dialogue('io.read(), io.read "n"', "first", "17", 'io.read "l"',
             '"and on"'))
    end)

    it("what is missing at the end as an error", function ()
      assert.matches("<name> expected near <eof>\n", dialogue "for", 1, true)
    end)
  end)
end)

describe("the prompt at a terminal", function ()
  local socket, home

  --- Run a command of tmux, on a server of our own.
  local function tmux (...)
    local words = { "LC_ALL=C.UTF-8 tmux -S", socket, "-f /dev/null" }
    for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
    return shell(table.concat(words, " ") .. " 2>&1")
  end

  --- What the screen shows, without empty lines at its end.
  local function screen ()
    return (tmux("capture-pane", "-p"):gsub("%s+$", ""))
  end

  --- Wait until 'holds' accepts the screen, some 20 seconds at most.
  local function await (holds)
    local last
    for _ = 1, 400 do
      last = screen()
      if holds(last) then return true, last end
      os.execute "sleep 0.05"
    end
    return false, last
  end

  --- Wait until the screen ends in 'text'.
  local function expect (text)
    local found, last = await(function (shown)
      return shown:sub(-#text) == text
    end)
    if not found then assert.equal(text, last) end
  end

  --- Wait for the prompt, and nothing behind it.
  local function expect_prompt ()
    local found, last = await(function (shown)
      return ("\n" .. shown):find "\n>>?$"
    end)
    if not found then assert.matches("\n>>?$", last) end
  end

  local function type_text (text) tmux("send-keys", "-l", text) end
  local function press (...) tmux("send-keys", ...) end

  --- Type a line that does not return to the prompt by itself.
  local function begin (text)
    type_text(text)
    press "Enter"
  end

  --- Type a line, and wait for the next prompt: what is typed before that
  --- is echoed by the terminal, wherever its cursor is.
  local function enter (text)
    begin(text)
    expect_prompt()
  end

  --- Start the program in a terminal of 80 columns, or so many.
  local function start (columns)
    tmux("new-session", "-d", "-x", tostring(columns or 80), "-y", "30",
         ("env -u LUA_INIT -u XDG_STATE_HOME HOME=%s INPUTRC=/dev/null %s")
         :format(quote(home.path), quote(tree.runspace)))
    expect_prompt()
    press "C-l"
    expect ">"
  end

  --- Leave it by the end of input, and wait until it is gone.
  local function leave ()
    press "C-d"
    assert(await(function ()
      local sessions = tmux "list-sessions"
      return sessions:find("no server running", 1, true)
             or sessions:find("error connecting", 1, true)
    end), "the program does not end")
  end

  local function history ()
    local path = home.path .. "/.local/state/runspace/history"
    local file <close> = io.open(path, "rb")
    return file and (file:read "a":gsub("#%d+\n", ""))
  end

  setup(function ()
    assert(os.execute "command -v tmux >/dev/null", "tmux is not there")
  end)

  before_each(function ()
    home = new_scratch()
    socket = home.path .. "/tmux"
  end)

  after_each(function ()
    tmux "kill-server"
    getmetatable(home).__close()
  end)

  it("begins with the version, asked for nothing", function ()
    tmux("new-session", "-d", "-x", "80", "-y", "30",
         "env HOME=" .. home.path .. " " .. quote(tree.runspace))
    expect_prompt()
    assert.matches("^runspace [%d.]+  %(Lua 5%.4%.%d+  [^\n]*%)\n>$", screen())
  end)

  it("shows results", function ()
    start()
    enter "parallel.map({1,2,3}, function (x) return x*x end)"
    expect [[
> parallel.map({1,2,3}, function (x) return x*x end)
{1, 4, 9}
>]]
  end)

  it("shows them as wide as the terminal is", function ()
    start(36)
    enter "{ ('x'):rep(15), ('y'):rep(15) }"
    expect [[
{
  "xxxxxxxxxxxxxxx",
  "yyyyyyyyyyyyyyy"
}
>]]
  end)

  it("edits a line", function ()
    start()
    type_text "1 + 2"
    press("Left", "BSpace")
    type_text " 40 + "
    press("End", "Enter")
    expect "> 1 + 40 + 2\n43\n>"
    type_text "na\u{ef}\u{ef}ve"
    press("C-a")
    type_text "#'"
    press("C-e", "Left", "Left", "BSpace", "End")
    enter "'"
    expect "> #'na\u{ef}ve'\n6\n>"
  end)

  it("recalls chunks of several lines, and searches them", function ()
    start()
    enter "for i = 1, 2 do"
    enter "print(i)"
    enter "end"
    expect ">> end\n1\n2\n>"
    enter "'other'"
    expect "other\n>"
    press("C-l", "Up", "Up", "Enter")
    expect "> for i = 1, 2 do\nprint(i)\nend\n1\n2\n>"
    press "C-r"
    type_text "oth"
    press "Enter"
    expect "> 'other'\nother\n>"
  end)

  it("keeps its history between sessions", function ()
    start()
    enter "x = (1"
    enter "+ 2)"
    enter "x"
    expect "\n3\n>"
    enter "x"
    enter "  "
    enter "os.exit"
    leave()
    assert.equal("x = (1\n+ 2)\nx\nos.exit\n", history())
    local mode = shell(("stat -c %%a %s/.local/state/runspace "
                        .. "%s/.local/state/runspace/history"):format(
                        quote(home.path), quote(home.path)))
    assert.equal("700\n600\n", mode)
    start()
    press("Up", "Up", "Up", "Enter")
    expect "> x = (1\n+ 2)\n>"
    press("Up", "Up", "Up", "Enter")
    expect "> x = (1\n+ 2)\n> x\n3\n>"
    leave()
  end)

  it("keeps the history of two sessions side by side", function ()
    start()
    local first = socket
    socket = first .. "-b"
    start()
    enter "'b'"
    expect "\nb\n>"
    local second = socket
    socket = first
    enter "'a'"
    expect "\na\n>"
    leave()
    socket = second
    leave()
    assert.equal("'b'\n'a'\n", history())
    socket = first
  end)

  it("keeps a bounded history", function ()
    local path = home.path .. "/.local/state/runspace"
    assert(os.execute("mkdir -p " .. path))
    local file = assert(io.open(path .. "/history", "wb"))
    for i = 1, 3000 do file:write("#", 1600000000 + i, "\nx = ", i, "\n") end
    file:close()
    start()
    press "Up"
    expect "> x = 3000"
    press("C-u")
    leave()
    local kept = history()
    assert.equal(1000, select(2, kept:gsub("\n", "")))
    assert.matches("^x = 2001\n", kept)
  end)

  --- The prompt knows what was typed, whatever becomes of it at the end.
  local function recall_one ()
    start()
    enter "1"
    expect "> 1\n1\n>"
    press("Up", "Enter")
    expect "> 1\n1\n> 1\n1\n>"
    leave()
  end

  it("does without a history that cannot be written", function ()
    assert(os.execute("touch " .. quote(home.path .. "/.local")))
    recall_one()
  end)

  --- What may stand where the history is kept, and is none.
  for what, make in pairs {
    ["a FIFO"] = "mkfifo %s",
    ["a directory"] = "mkdir %s",
    ["a device that is full"] = "ln -s /dev/full %s",
    ["a device without an end"] = "ln -s /dev/zero %s",
  } do
    it("does without a history that is " .. what, function ()
      local path <const> = home.path .. "/.local/state/runspace"
      assert(os.execute("mkdir -p " .. path))
      assert(os.execute(make:format(path .. "/history")))
      recall_one()
    end)
  end

  it("reads the end of a huge history, and leaves no more of it", function ()
    local path <const> = home.path .. "/.local/state/runspace"
    assert(os.execute("mkdir -p " .. path))
    local file <const> = assert(io.open(path .. "/history", "wb"))
    local line <const> = ("x"):rep(1023) .. "\n"
    for i = 1, 20000 do
      file:write("#", 1600000000 + i, "\n-- ", i, line)
    end
    file:write("#1700000000\nx = (1\n+ 2)\n")
    file:close()
    start()
    press("Up", "Enter")
    expect "> x = (1\n+ 2)\n>"
    enter "x"
    expect "\n3\n>"
    leave()
    local kept <const> = history()
    assert.is_true(#kept <= 1 << 20)
    assert.matches("^%-%- %d+x+\n", kept)
    assert.matches("\n%-%- 20000x+\nx = %(1\n%+ 2%)\nx\n$", kept)
  end)

  it("does without a history that has no end at all", function ()
    local path <const> = home.path .. "/.local/state/runspace"
    assert(os.execute("mkdir -p " .. path))
    assert(os.execute("truncate -s 1T " .. path .. "/history"))
    start()
    enter "1"
    expect "> 1\n1\n>"
    leave()
    assert.equal("1\n", history())
  end)

  it("drops what was typed at SIGINT", function ()
    start()
    type_text "nonsense"
    expect "> nonsense"  -- the terminal drops what was not read yet
    press "C-c"
    expect "> nonsense^C\n>"
    enter "for i = 1, 2 do"
    expect ">>"
    press "C-c"
    expect ">> ^C\n>"
    enter "'well'"
    expect "\nwell\n>"
    assert.equal("'well'\n", history())
  end)

  it("stops a chunk at SIGINT, and goes on", function ()
    start()
    -- ThreadSanitizer holds signals back until something like 'write'.
    begin "io.write 'started' while true do io.write '' io.flush() end"
    expect "\nstarted"
    press "C-c"
    expect "\n        stdin:1: in main chunk\n        [C]: in ?\n>"
    assert.matches("\nstarted%^C[^\n]*interrupted!\nstack traceback:\n",
                   screen())
    enter "'well'"
    expect "\nwell\n>"
  end)

  describe("stops at SIGINT, and goes on behind it,", function ()
    local rows <const> = {
      { "a coroutine", "coroutine.wrap(loop)()" },
      { "one that was made before", "f()", "f = coroutine.wrap(loop)" },
      { "one that is resumed", "coroutine.resume(coroutine.create(loop))" },
      { "one inside of another",
        "coroutine.wrap(function () coroutine.wrap(loop)() end)()" },
      { "one that is iterated", "for _ in coroutine.wrap(loop) do end" },
    }
    for _, row in ipairs(rows) do
      it(row[1], function ()
        start()
        enter "function loop () io.write 'started'"
        enter "while true do io.write '' io.flush() end end"
        if row[3] ~= nil then enter(row[3]) end
        begin(row[2])
        expect "\nstarted"
        press "C-c"
        expect_prompt()
        assert.matches("\nstarted%^C[^\n]*interrupted!\nstack traceback:\n",
                       screen())
        press "C-l"
        enter "coroutine.wrap(function () coroutine.yield 'well' end)()"
        expect "\nwell\n>"
      end)
    end
  end)

  it("takes each SIGINT for a first one when the prompt was there again",
     function ()
    start()
    for _ = 1, 3 do
      begin "io.write 'started' while true do io.write '' io.flush() end"
      expect "started"
      press "C-c"
      expect "in main chunk\n        [C]: in ?\n>"
      press "C-l"
    end
    enter "'well'"
    expect "well\n>"
  end)

  it("drops what was typed at SIGINT after handlers have run, too",
     function ()
    start()
    begin "io.write 'started' while true do io.write '' io.flush() end"
    expect "\nstarted"
    press "C-c"
    expect_prompt()
    press "C-l"
    enter "_ = parallel.on('x', function () print 'handled' end)"
    local gate <const> = home.path .. "/go"
    enter("j = parallel.spawn(\"while not io.open '" .. gate
          .. "' do parallel.task.sleep(.01) end parallel.task.emit 'x'\")")
    type_text "nonsense"
    expect "> nonsense"
    assert(io.open(gate, "w")):close()
    expect "handled\n> nonsense"
    press "C-c"
    expect "> nonsense^C\n>"
    enter "'well'"
    expect "\nwell\n>"
  end)

  it("completes the path of a file in a string", function ()
    start()
    local file <const> = home.path .. "/a-file_of mine"
    assert(io.open(file, "w")):close()
    type_text("x = '" .. home.path .. "/a-fi")
    press "Tab"
    expect("> x = '" .. file .. "'")
    press("C-a", "C-k")
    enter "1"
    expect "> 1\n1\n>"
  end)

  it("stops an io.read at SIGINT", function ()
    start()
    begin "io.write 'reading' io.flush() return io.read()"
    expect "\nreading"
    press "C-c"
    -- The read ends early, and the hook raises behind it.
    expect_prompt()
    assert.matches("reading%^C.*interrupted!\n", screen())
  end)

  it("lets io.read have what is typed", function ()
    start()
    begin "io.write '?\\n' return io.read()"
    expect "\n?"  -- the terminal is the line's
    enter "hello"
    expect "\n?\nhello\nhello\n>"
  end)

  it("is back after SIGTSTP and SIGCONT", function ()
    tmux("new-session", "-d", "-x", "80", "-y", "30",
         "env PS1='$ ' HOME=" .. home.path .. " bash --norc --noprofile -i")
    expect "$"
    enter(quote(tree.runspace))
    type_text "1 + "
    expect "> 1 +"
    press "C-z"
    expect "\n$"
    press "C-l"
    begin "fg"
    expect "> 1 +"
    enter "41"
    expect "\n42\n>"
  end)

  it("completes names of globals, fields and methods", function ()
    start()
    type_text "para"
    press "Tab"
    expect "> parallel"
    type_text ".coll"
    press "Tab"
    expect "> parallel.collect"
    press("C-u")
    enter "pool = parallel.pool { max = 1 }"
    type_text "pool:redu"
    press "Tab"
    expect "> pool:reduce"
    press("C-u")
    type_text "#io.stdout:see"
    press "Tab"
    expect "> #io.stdout:seek"
    press("C-u")
    type_text "text = 'x' = text:rev"
    press("Tab")
    expect "> text = 'x' = text:rev"
    press("C-u")
    enter "text = 'xy'"
    type_text "text:rever"
    press "Tab"
    type_text "()"
    press "Enter"
    expect "\nyx\n>"
    type_text "nothing.at.a"
    press("Tab", "Tab")
    press("C-u")
    type_text "string.re"
    press("Tab", "Tab")
    expect "string.rep      string.reverse\n> string.re"
  end)

  describe("lists what the manual has of", function ()
    local file <close> = assert(io.open(tree.source "doc/manual.md"))
    local manual <const> = file:read "a"

    --- All that a pattern captures in a text of the manual, as keys.
    local function gather (names, text, pattern)
      for name in text:gmatch(pattern) do names[name] = true end
      return names
    end

    --- The section with a title, and the fields that its tables name.
    local function fields (names, title)
      local text <const> = assert(manual:match("\n##+ " .. title
                                               .. "\n(.-)\n##"))
      for row in text:gmatch "\n| (`[^|]+)|" do
        gather(names, row, "`([%a_]+)[`(]")
      end
      return names
    end

    local rows <const> = {
      { "job:", gather({}, manual, "job:([%a_]+)") },
      { "job.", gather(fields({}, "Jobs"), manual, "job:([%a_]+)") },
      { "pool:", gather({}, manual, "pool:([%a_]+)") },
      { "parallel.task.", gather(fields({}, "task"), manual,
                                 "parallel%.task%.([%a_]+)") },
    }
    for _, row in ipairs(rows) do
      it(row[1], function ()
        start()
        enter "pool = parallel.pool { max = 1 } job = pool:spawn 'return 1'"
        press "C-l"
        type_text("#" .. row[1])
        press("Tab", "Tab")
        expect("\n> #" .. row[1])
        local expected, listed = {}, {}
        for name in pairs(row[2]) do expected[#expected + 1] = name end
        -- Readline shows what is behind the last dot, or all of a word.
        for name in screen():match "^[^\n]*\n(.*)\n":gmatch "%S+" do
          listed[#listed + 1] = name:match "[^.:]+$"
        end
        table.sort(expected)
        table.sort(listed)
        assert.same(expected, listed)
      end)
    end
  end)

  it("calls no metamethod to complete", function ()
    start()
    enter "t = setmetatable({ abc = 1 }, { __index = error, __pairs = error })"
    type_text "t.a"
    press "Tab"
    expect "> t.abc"
    type_text ".x.y"
    press("Tab", "Tab")
    press "Enter"
    expect [[
stdin:1: attempt to index a number value (field 'abc')
stack traceback:
        stdin:1: in main chunk
        [C]: in ?
>]]
  end)

  it("indents with Tab at the start of a line", function ()
    start()
    enter "do"
    expect ">>"
    press("Tab", "Tab")
    enter "print 'in'"
    expect ">>     print 'in'\n>>"
    enter "end"
    expect "\nin\n>"
  end)

  it("takes a text that is pasted whole", function ()
    start()
    tmux("set-buffer",
         "local x = 1\nfor i = 1, 2 do\n\tx = x + i\nend\nprint(x)")
    tmux("paste-buffer", "-p")
    press "Enter"
    expect "\n4\n>"
  end)

  it("ends at the end of input, with status 0", function ()
    tmux("new-session", "-d", "-x", "80", "-y", "30",
         "env PS1='$ ' HOME=" .. home.path .. " bash --norc --noprofile -i")
    expect "$"
    enter(quote(tree.runspace) .. "; echo status $?")
    press "C-d"
    expect "\nstatus 0\n$"
  end)

  it("runs handlers of events while a line is edited", function ()
    local gate <const> = os.tmpname()
    os.remove(gate)
    shell("mkfifo " .. gate)
    start()
    enter "_ = parallel.on('t', function (e) print('heard ' .. e.data) end)"
    enter "function wait_and_tell (path) io.open(path):close()"
    enter "parallel.task.emit('t', 7) end"
    enter("job = parallel.submit{wait_and_tell, arguments = {'" .. gate
          .. "'}}")
    type_text "half typed"
    expect "> half typed"
    shell("echo > " .. gate)
    expect "\nheard 7\n> half typed"
    press("C-u")
    os.remove(gate)
  end)

  describe("keeps the line that is edited below", function ()
    local rows <const> = {
      { "print", "print('said')" },
      { "io.write", "io.write('sa', 'id\\n')" },
      { "io.stderr:write", "io.stderr:write('said\\n')" },
      { "warn", "warn('@on') warn('said')", "Lua warning: said" },
      { "much that is printed", "for i = 1, 5000 do print(i, ('-'):rep(50)) "
        .. "end print('said')" },
    }
    for _, row in ipairs(rows) do
      it(row[1], function ()
        local gate <const> = home.path .. "/gate"
        shell("mkfifo " .. quote(gate))
        start()
        enter("function speak (path) io.open(path):close() " .. row[2]
              .. " end")
        enter("job = parallel.spawn(speak, '" .. gate .. "')")
        type_text "'half typed"
        expect "> 'half typed"
        shell("echo > " .. quote(gate))
        expect("\n" .. (row[3] or "said") .. "\n> 'half typed")
        enter "'"
        expect "> 'half typed'\nhalf typed\n>"
      end)
    end
  end)

  it("keeps the line that is edited while a job shows its progress",
     function ()
    start()
    enter "function work (path)"
    enter "local function nap () parallel.task.sleep(.05) end"
    enter "while not io.open(path .. '/go') do nap() end"
    enter "parallel.map(parallel.range(10), nap, {limit = 1, progress = true})"
    enter "assert(io.open(path .. '/done', 'w')):close() end"
    enter("job = parallel.spawn(work, '" .. home.path .. "')")
    press "C-l"
    type_text "'half typed"
    expect "> 'half typed"
    assert(io.open(home.path .. "/go", "w")):close()
    assert(await(function ()
      local file <close> = io.open(home.path .. "/done")
      return file ~= nil
    end))
    local found <const>, last <const> = await(function (shown)
      return shown:find "^%[=+%] 10/10[^\n]*\n> 'half typed$"
    end)
    assert.truthy(found, last)
    enter "'"
    expect "> 'half typed'\nhalf typed\n>"
  end)

  it("is back at SIGINT in a handler, each time", function ()
    start()
    enter("_ = parallel.on('x', function () print 'started' "
          .. "while true do io.write '' io.flush() end end)")
    for _ = 1, 3 do
      enter("j = parallel.spawn(\"while not io.open '" .. home.path
            .. "/go' do parallel.task.sleep(.01) end "
            .. "parallel.task.emit 'x'\")")
      press "C-l"
      type_text "'half"
      expect "> 'half"
      assert(io.open(home.path .. "/go", "w")):close()
      expect "started"
      press "C-c"
      expect "\n> 'half"
      assert.matches("\nstack traceback:\n", screen())
      enter " typed'"
      expect "> 'half typed'\nhalf typed\n>"
      assert(os.remove(home.path .. "/go"))
    end
  end)

  it("tells what failed unseen above the next prompt, once", function ()
    start()
    enter("job = parallel.spawn(function () error('lost', 0) end) "
          .. "parallel.wait {job}")
    local told <const> = "\nparallel: nobody looked at the failure of 'job-1':"
                         .. " lost\n"
    local found <const>, last <const> = await(function (shown)
      return shown:find(told, 1, true)
    end)
    assert.is_true(found, last)
    expect_prompt()
    press "C-l"
    expect ">"
    enter "job = nil collectgarbage()"
    enter "'next'"
    expect "> 'next'\nnext\n>"
    assert.is_nil(screen():find(told, 1, true))
  end)

  it("can read while jobs run", function ()
    start()
    enter "job = parallel.spawn(function () local p = io.popen 'echo there'"
    enter "local text = p:read() p:close() return text end)"
    enter "job:get(20)"
    expect "\nthere\n>"
  end)
end)
