-- SPDX-License-Identifier: MIT
local gates <const> = require "support.gate"
local parallel <const> = require "parallel"
local tree <const> = require "support.tree"

---@param text string
---@return string
local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---@param command string
---@return string output
local function shell (command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  return (pipe:read "a")
end

---@param source string
---@return string path
local function script (source)
  local path <const> = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(source)
  return path
end

describe("progress", function ()
  it("tells a function how far the call is", function ()
    local states = {}
    parallel.collect({ 1, 2, 0 }, function (x)
      if x == 0 then error "zero" end
    end, { name = "work", progress = function (state)
      states[#states + 1] = state
    end })
    local last <const> = states[#states]
    assert.equal("work", last.title)
    assert.equal(3, last.done)
    assert.equal(3, last.total)
    assert.equal(1, last.failed)
    assert.equal(0, last.left)
    assert.is_true(last.elapsed > 0 and last.rate > 0)
    for i = 2, #states do
      assert.is_true(states[i].done >= states[i - 1].done)
    end
  end)

  it("is there for map, filter, each and invoke too", function ()
    local last
    local function note (state) last = state end
    local function id (x) return x end
    parallel.map({ 1, 2 }, id, { progress = note })
    assert.equal(2, last.done)
    parallel.filter({ 1, 2, 3 }, id, { progress = note })
    assert.equal(3, last.done)
    for _ in parallel.each(("a b"):gmatch "%a", id, { progress = note }) do
      assert.is_nil(last.total)  -- an iterator does not tell
    end
    assert.equal(2, last.done)
    parallel.invoke(id, { a = { 1 } }, { progress = note })
    assert.equal(1, last.done)
  end)

  it("tells of the failure that ends a map, and hides it not", function ()
    local last
    assert.error_matches(function ()
      parallel.map({ 1 }, function () error "bad" end, {
        progress = function (state)
          last = state
        end
      })
    end, "item 1")
    assert.equal(1, last.failed)
  end)

  it("calls a function that raised no more", function ()
    local calls = 0
    assert.error_matches(function ()
      parallel.collect({ 1, 2 }, tostring, { progress = function ()
        calls = calls + 1
        error("call " .. calls, 0)
      end })
    end, "^call 1$")
    assert.equal(1, calls)
  end)

  it("shows nothing where the standard error is no terminal", function ()
    local path <const> = script [[
      parallel.map(parallel.range(10), function (x) return x end,
                   {progress = "Title"})
      print "end"
    ]]
    assert.equal("end\n", shell(tree.runspace .. " " .. path))
    os.remove(path)
  end)

  it("refuses what is no progress", function ()
    for _, row in ipairs {
      { { titel = "x" }, "a table of title, leave and total expected, got the "
                         .. "key 'titel'" },
      { { total = -1 }, "a number of items for its field 'total' expected, "
                        .. "got %-1" },
      { { leave = 1 }, "true or false for its field 'leave' expected, got 1" },
      { { title = {} }, "a string for its field 'title' expected" },
    } do
      assert.error_matches(function ()
        parallel.map({ 1 }, print, { progress = row[1] })
      end, row[2])
    end
    assert.error_matches(function ()
      parallel.wait({}, { progress = 5 })
    end, "bad option 'progress' to 'wait'")
    assert.error_matches(function ()
      parallel.map({ 1 }, print, { progress = 5 })
    end, "true, a title, a function or a table expected, got 5")
    assert.error_matches(function ()
      parallel.reduce({ 1 }, print, nil, { progress = true })
    end, "bad option 'progress' to 'reduce' %(none expected, got true: how "
         .. "many parts there will be is not known; leave it out%)")
  end)

  describe("on a terminal", function ()
    local socket

    local function tmux (...)
      local words = { "LC_ALL=C.UTF-8 tmux -S", socket, "-f /dev/null" }
      for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
      return shell(table.concat(words, " "))
    end

    --- Wait until the screen has 'pattern', 20 seconds at most.
    local function expect (pattern)
      local last
      local found = gates.eventually(function ()
        last = tmux("capture-pane", "-p"):gsub("%s+$", "")
        return last:find(pattern) ~= nil
      end)
      if not found then assert.matches(pattern, last) end
      return last
    end

    --- Run a script in a terminal of 'width' columns, and stay in it.
    local function start (width, environment, source)
      socket = os.tmpname()
      os.remove(socket)
      local path <const> = script(source)
      tmux("new-session", "-d", "-x", tostring(width), "-y", "20",
           environment .. " " .. tree.runspace .. " " .. path
           .. "; echo status $?; exec cat")
      return path
    end

    after_each(function ()
      if socket then
        tmux("kill-server")
        os.remove(socket)
        socket = nil
      end
    end)

    --- A map of five items, of which the last waits at a gate and the
    --- second fails.
    local SOURCE <const> = [[
      local path = %q
      parallel.collect({1, 2, 3, 4, 5}, function (x)
        print("item " .. x)
        if x == 2 then error "bad" end
        if x == 5 then
          local file <close> = io.open(path)
          file:read(0)
        end
      end, {progress = "Scanning", chunk = 1})
      print "after"
    ]]

    local function fifo ()
      local path <const> = os.tmpname()
      os.remove(path)
      shell("mkfifo " .. path)
      return path
    end

    it("is one line under what jobs print, and stays at the end", function ()
      local gate <const> = fifo()
      local path = start(70, "NO_COLOR=1", SOURCE:format(gate))
      local shown = expect "Scanning %[=+ +%] 4/5 .* 1 failed$"
      for i = 1, 5 do
        assert.matches("\nitem " .. i .. "\n", "\n" .. shown, 1, true)
      end
      io.open(gate, "w"):close()
      shown = expect "status 0$"
      assert.matches("item %d\nScanning %[=+%] 5/5  [%d.k]+/s  [%d.:]+ ?%a*  "
                     .. "1 failed\nafter\nstatus 0$", shown)
      assert.equal(1, select(2, shown:gsub("Scanning", "")))
      os.remove(gate)
      os.remove(path)
    end)

    it("fits a narrow terminal", function ()
      local gate <const> = fifo()
      local path = start(24, "NO_COLOR=1", SOURCE:format(gate))
      local shown = expect "4/5[^\n]*$"
      local last <const> = shown:match "[^\n]*$"
      assert.is_true(#last <= 23)
      io.open(gate, "w"):close()
      shown = expect "status 0$"
      for line in shown:gmatch "[^\n]+" do assert.is_true(#line <= 23) end
      assert.equal(1, select(2, shown:gsub("5/5", "")))
      os.remove(gate)
      os.remove(path)
    end)

    --- What a terminal shows while all but one of 's' items have ended.
    local function screen (width, options, prologue)
      local gate <const> = fifo()
      local path = start(width, "NO_COLOR=1", ([[
        local path = %q
        %s
        parallel.collect(items or {1, 2, 3}, function (x)
          parallel.task.warning("w" .. x)
          if x == 3 then
            local file <close> = io.open(path)
            file:read(0)
          end
        end, {chunk = 1, %s})
      ]]):format(gate, prologue or "", options))
      local shown = expect "2/?[3…]?[^\n]*$"
      io.open(gate, "w"):close()
      local rest <const> = expect "status 0$"
      os.remove(gate)
      os.remove(path)
      return shown, rest
    end

    it("is out of the way of handlers that print", function ()
      local _, rest = screen(70, [[progress = "Scanning", streams = {
        warning = function (record) print("got " .. record.message) end}]])
      assert.matches("^got w%d\ngot w%d\ngot w%d\nScanning [^\n]+\nstatus 0$",
                     rest)
    end)

    it("is out of the way of iterators that print", function ()
      local _, rest = screen(70, [[progress = "Scanning",
                                   streams = {warning = false}]], [[
        local i = 0
        local function items ()
          i = i + 1
          if i > 3 then return nil end
          print("pulled " .. i)
          return i
        end
      ]])
      assert.matches("^pulled 1\npulled 2\npulled 3\nScanning [^\n]+\n"
                     .. "status 0$", rest)
    end)

    it("takes one row, whatever the title has", function ()
      local _, rest = screen(30, [[progress = "日本語のタイトルを表示",
                                   streams = {warning = false}]])
      assert.matches("^日本語[^\n]* 3/3[^\n]*\nstatus 0$", rest)
      tmux("kill-server")
      local shown
      shown, rest = screen(60, [[progress = {title = "a\tb\nc\27[2Jd",
                                             leave = false},
                                 streams = {warning = false}]])
      assert.matches("^a\\tb\\nc\\x1B%[2Jd", shown)
      assert.equal("status 0", rest)
    end)

    it("leaves nothing when the terminal becomes narrower", function ()
      local gate <const> = fifo()
      local path = start(70, "NO_COLOR=1", SOURCE:format(gate))
      expect "4/5"
      tmux("resize-window", "-x", "30")
      local shown = expect "\nScann[^\n]*4/5[^\n]*$"
      assert.equal(1, select(2, shown:gsub("Scann", "")))
      io.open(gate, "w"):close()
      shown = expect "status 0$"
      assert.equal(1, select(2, shown:gsub("Scann", "")))
      os.remove(gate)
      os.remove(path)
    end)

    it("has colours, but for NO_COLOR", function ()
      local gate <const> = fifo()
      local path = start(70, "", SOURCE:format(gate))
      expect "4/5"
      assert.matches("\27%[3[12]m", tmux("capture-pane", "-p", "-e"))
      io.open(gate, "w"):close()
      expect "status 0$"
      tmux("kill-server")
      os.remove(path)
      path = start(70, "NO_COLOR=1", SOURCE:format(gate))
      expect "4/5"
      assert.is_nil(tmux("capture-pane", "-p", "-e"):find "\27%[3[12]m")
      io.open(gate, "w"):close()
      expect "status 0$"
      os.remove(gate)
      os.remove(path)
    end)

    it("has the total that an iterator does not tell", function ()
      local _, rest = screen(60, [[progress = {title = "T", total = 3},
                                   streams = {warning = false}]],
                             [[
        local items = coroutine.wrap(function ()
          for i = 1, 3 do coroutine.yield(i) end
        end)
      ]])
      assert.matches("^T %[=+%] 3/3 ", rest)
    end)

    it("is there for jobs, too", function ()
      local gate <const> = fifo()
      local path = start(60, "NO_COLOR=1", ([[
        local path = %q
        local jobs = {
          parallel.spawn "error 'x'", parallel.spawn "return 1",
          parallel.spawn(function ()
            local file <close> = io.open(path)
            file:read(0)
          end),
        }
        jobs[4] = jobs[1]
        parallel.wait(jobs, {progress = "Jobs"})
        for i = 1, 3 do jobs[i]:join() end
      ]]):format(gate))
      expect "^Jobs %[=+ +%] 2/3 .* 1 failed$"
      io.open(gate, "w"):close()
      assert.matches("^Jobs %[=+%] 3/3 [^\n]* 1 failed\nstatus 0$",
                     (expect "status 0$"))
      os.remove(gate)
      os.remove(path)
    end)

    it("is out of the way of a loop over each", function ()
      local gate <const> = fifo()
      local path = start(70, "NO_COLOR=1", ([[
        local path = %q
        for record in parallel.each({1, 2, 3}, function (x)
          if x == 3 then
            local file <close> = io.open(path)
            file:read(0)
          end
          return x
        end, {progress = true, chunk = 1}) do
          print("got " .. record.result)
        end
      ]]):format(gate))
      local shown = expect "2/3"
      assert.matches("got %d\ngot %d\n", shown)
      io.open(gate, "w"):close()
      shown = expect "status 0$"
      assert.matches("^got 3\n[^\n]* 3/3 [^\n]*\nstatus 0$",
                     shown:match "got 3\n.*$")
      os.remove(gate)
      os.remove(path)
    end)
  end)
end)
