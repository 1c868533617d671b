-- SPDX-License-Identifier: MIT
--- What scripts have made up (names, keys, values) on lines of ours.

local core <const> = require "support.core"
local parallel <const> = require "parallel"
local run <const> = require "support.script"

describe("escape", function ()
  --- Each row: a text, and how it is shown.
  local ROWS <const> = {
    { "", "" },
    { "plain text, 'quotes' and \\", "plain text, 'quotes' and \\" },
    { "na\u{ef}ve \u{65e5}\u{672c} \u{1f600} \u{10ffff}",
      "na\u{ef}ve \u{65e5}\u{672c} \u{1f600} \u{10ffff}" },
    { "a\nb\rc\td", "a\\nb\\rc\\td" },
    { "\0\1\27[31m\127", "\\x00\\x01\\x1B[31m\\x7F" },
    { "\u{80}\u{9b}2J\u{9f}\u{a0}", "\\u{80}\\u{9B}2J\\u{9F}\u{a0}" },
    { "\x9b2J", "\\x9B2J" },
    { "\u{ef}\xff\u{ef}", "\u{ef}\\xFF\u{ef}" },
    { "cut \xe6\x97", "cut \\xE6\\x97" },
    { "cut \xf0\x9f\x98x", "cut \\xF0\\x9F\\x98x" },
    { "long \xc0\xaf \xe0\x80\xaf \xf0\x80\x80\xaf",
      "long \\xC0\\xAF \\xE0\\x80\\xAF \\xF0\\x80\\x80\\xAF" },
    { "surrogate \xed\xa0\x80", "surrogate \\xED\\xA0\\x80" },
    { "beyond \xf4\x90\x80\x80 \xf8", "beyond \\xF4\\x90\\x80\\x80 \\xF8" },
  }
  for _, row in ipairs(ROWS) do
    it("shows " .. row[2], function ()
      assert.equal(row[2], core.escape(row[1]))
      assert.equal(row[2], core.escape(core.escape(row[1])))
    end)
  end

  it("shows all bytes", function ()
    local all <const> = {}
    for i = 0, 255 do all[i + 1] = string.char(i) end
    local shown <const> = core.escape(table.concat(all))
    assert.is_nil(shown:find "[%c\x7f-\xff]")
    assert.equal(33 + 128, select(2, shown:gsub("\\%S", "")) - 1)
  end)

  it("takes long texts", function ()
    local n <const> = 100000
    assert.equal(("\\x1Bx"):rep(n), core.escape(("\27x"):rep(n)))
  end)

  it("is the same, and short, in messages", function ()
    assert.equal(("x"):rep(40), core.clean(("x"):rep(40)))
    assert.equal(("x"):rep(37) .. "...", core.clean(("x"):rep(41)))
    assert.equal(("x"):rep(36) .. "...",
                 core.clean(("x"):rep(36) .. "\u{ef}" .. ("x"):rep(9)))
    assert.equal(("\\xFF"):rep(37) .. "...", core.clean(("\xff"):rep(50)))
    assert.equal(("\\u{9B}"):rep(18) .. "...", core.clean(("\u{9b}"):rep(30)))
    assert.equal("a\\0b", (core.clean "a\0b":gsub("x0", "")))
  end)
end)

describe("what a script made up is on one line, and plain, in", function ()
  local EVIL <const> = "e\27[2J\n\u{9b}\xff"
  local SHOWN <const> = "e\\x1B[2J\\n\\u{9B}\\xFF"
  local NAME <const>, NAMED <const> = "job \xff\x9b", "job \\xFF\\x9B"

  --- What a call raises.
  local function raised (fn, ...)
    local ok, problem = pcall(fn, ...)
    assert.is_false(ok)
    return tostring(problem)
  end

  --- Each row: where, and what gives the text; then how it contains it, where
  --- that is not as usual.
  local ROWS <const> = {
    { "a value in a message", function ()
      return raised(parallel.map, EVIL, print)
    end },
    { "an option in a message", function ()
      return raised(parallel.map, { 1 }, print, { [EVIL] = 1 })
    end },
    { "a source in a message", function ()
      return raised(parallel.map, { 1 }, "x = '" .. EVIL)
    end, "unfinished string near ''e\\x1B[2J" },
    { "a source that has it in a token", function ()
      return raised(parallel.map, { 1 }, "x = 'a\27[2J\xff' y")
    end, "" },
    { "a key of 'invoke' in a message", function ()
      return raised(parallel.invoke, print, { [EVIL] = 1 })
    end },
    { "the name of a key of 'invoke'", function ()
      local _, errors = parallel.invoke("error 'x'", { [EVIL] = {} })
      return tostring(errors[EVIL])
    end },
    { "the name of a job of 'invoke'", function ()
      local jobs <const> = parallel.invoke("return 1", { [EVIL] = {} },
                                           { async = true })
      assert.equal(1, jobs[EVIL]:get())
      return tostring(jobs[EVIL])
    end },
    { "a variable of an initial state", function ()
      return raised(parallel.pool, { variables = { [EVIL] = io.stdout } })
    end },
    { "a function of an initial state", function ()
      return raised(parallel.pool, { functions = { [EVIL] = 1 } })
    end },
    { "a function that is a variable, too", function ()
      return raised(parallel.pool, { functions = { [EVIL] = print },
                                     variables = { [EVIL] = 1 } })
    end },
    { "a path to what cannot travel", function ()
      return raised(parallel.run, print, { [EVIL] = { [EVIL] = io.stdout } })
    end, '["' .. SHOWN .. '"]["' .. SHOWN .. '"]' },
    { "a field of 'progress'", function ()
      return parallel.run(function (name)
        return select(2, pcall(parallel.task.progress, { [name] = 1 }))
      end, EVIL)
    end },
    { "a program that is not there", function ()
      return select(2, parallel.task.execute { { EVIL } })
    end },
    { "a directory that is not there", function ()
      return select(2, parallel.task.execute { "true", cwd = EVIL })
    end },
    { "a C module that a sandbox refuses", function ()
      local pool <close> = parallel.pool { max = 1,
                                           sandbox = { files = "read" } }
      return pool:run(function (name)
        return select(2, pcall(require, name))
      end, EVIL):match "a C module[^\n]*"
    end },
    { "the item of a failure", function ()
      return raised(parallel.map, { EVIL }, "error 'x'")
    end },
    { "the item, a table, of a failure", function ()
      return raised(parallel.map, { { [EVIL] = EVIL } }, "error 'x'")
    end, '["' .. SHOWN .. '"] = "' .. SHOWN .. '"' },
    { "the item that tells its text", function ()
      return raised(parallel.map, { setmetatable({}, {
        __tostring = function () return EVIL end,
        __transfer = function () return 1 end }) }, "error 'x'")
    end },
    { "the name of a failure", function ()
      return raised(parallel.map, { 1 }, "error 'x'", { name = NAME })
    end, NAMED },
    { "a job", function ()
      return tostring(parallel.submit { "return 1", name = NAME })
    end, NAMED },
    { "a job that takes too long", function ()
      local job <const> = parallel.submit { "while true do end", name = NAME }
      local text <const> = raised(job.get, job, 0)
      job:remove()
      return text
    end, NAMED },
    { "a cell of a report", function ()
      local _, report = parallel.collect({ EVIL }, "return ...")
      return report:table { { EVIL, "result" } }
    end },
  }
  for _, row in ipairs(ROWS) do
    it(row[1], function ()
      local text <const> = row[2]()
      assert.is_truthy(text:find(row[3] or SHOWN, 1, true), text)
      assert.is_nil(text:find "[\27\x7f]", text)
      assert.is_nil(text:find "\xc2[\x80-\x9f]", text)
      assert.is_truthy(utf8.len(text), text)
    end)
  end

  it("what jobs send, whose own texts are as they are", function ()
    local text <const> = run [[
      local NAME <const> = "job \xff\x9b"
      parallel.on("e", function () error("as it is", 0) end)
      parallel.submit { function ()
        parallel.task.warning "as\27 it\nis"
        parallel.task.progress { activity = "a\27\nb", status = "c\r",
                                 percent = 5 }
        parallel.task.warning { ["x\27"] = "y\n" }
        parallel.task.emit "e"
      end, name = NAME, streams = { warning = true, progress = true } }:join()
      parallel.submit { "error 'seen'", name = NAME }:wait()
      parallel.map({ 1 }, function () parallel.task.warning "w" end,
                   { name = NAME })
    ]]
    local name <const> = "job \\xFF\\x9B"
    assert.is_truthy(text:find("WARNING: " .. name .. ": as\27 it\nis\n", 1,
                               true), text)
    assert.is_truthy(text:find("PROGRESS: " .. name
                               .. ": a\\x1B\\nb: c\\r 5 %\n", 1, true), text)
    assert.is_truthy(text:find("WARNING: " .. name
                               .. ': {["x\\x1B"] = "y\\n"}\n', 1, true), text)
    assert.is_truthy(text:find("WARNING: " .. name .. ", item 1: w\n", 1,
                               true), text)
    assert.is_truthy(text:find("a handler of 'e' raised: as it is\n", 1,
                               true), text)
  end)
end)
