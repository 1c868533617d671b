-- SPDX-License-Identifier: MIT
--- Commands for items.
local parallel <const> = require "parallel"

local function outputs (records)
  local list <const> = {}
  for i = 1, records.n do list[i] = records[i].output end
  return list
end

describe("sh", function ()
  it("runs a command for each item, and keeps what became of it", function ()
    local records, report = parallel.sh(
      "echo out {}; echo err {} >&2; exit {}", { 0, 3 })
    assert.equal(2, records.n)
    local good, bad = records[1], records[2]
    assert.same({ "completed", 0, "out 0\n", "err 0\n" },
                { good.state, good.status, good.output, good.errors })
    assert.equal("echo out 0; echo err 0 >&2; exit 0", good.command)
    assert.equal("out 0\n", good.result)
    assert.equal(0, good.input)
    assert.is_nil(good.error)
    assert.same({ "failed", 3, "out 3\n", "err 3\n", "error" },
                { bad.state, bad.status, bad.output, bad.errors, bad.reason })
    assert.equal("exit status 3: err 3", bad.error)
    assert.is_nil(bad.traceback)
    assert.equal(1, report.failed)
    assert.same({ [0] = 1, [3] = 1 }, report:count "status")
  end)

  it("quotes values for the shell", function ()
    local items <const> = {
      "a b", "it's", "$(echo no)", "`no`", "a;b", "*", "", "\\", "a\nb",
      "\"", "~", "-n x", "#", "é", 7, 1.5, "a&b|c>d",
    }
    local got <const> = outputs(parallel.sh("printf '[%s]' {}", items))
    for i, item in ipairs(items) do
      assert.equal("[" .. tostring(item) .. "]", got[i])
    end
  end)

  it("takes values by number and by name", function ()
    assert.same({ "b a, a b", "d c, c d" },
                outputs(parallel.sh("printf '%s %s, %s %s' {2} {1} {}",
                                    { { "a", "b" }, { "c", "d" } })))
    assert.same({ "x y:8" },
                outputs(parallel.sh("printf %s {host}:{port_2}",
                                    { { host = "x y", port_2 = 8 } })))
    assert.same({ "k=v" }, outputs(parallel.sh("printf %s {1}={2}",
                                  parallel.iter(pairs { k = "v" }))))
    assert.same({ "5" }, outputs(parallel.sh("printf %s {1}", { 5 })))
  end)

  it("leaves the rest of the shell alone", function ()
    local records = parallel.sh(
      "# it's {1}\nX=5; echo ${X} {{}} {{name}} {a,b} \\' \"'\" '\"' {} "
      .. "$(echo {}) | tr x y", { "x" })
    assert.equal("5 {} {name} {a,b} ' ' \" y y\n", records[1].output)
  end)

  it("takes an array of words, which needs no shell", function ()
    local records = parallel.sh({ "printf", "%s|", "{}", "a{}b", 5, "$X",
                                  "{{}}", "" }, { "x y", "$(no)" })
    assert.same({ "x y|ax yb|5|$X|{}||", "$(no)|a$(no)b|5|$X|{}||" },
                outputs(records))
    assert.same({ "printf", "%s|", "x y", "ax yb", "5", "$X", "{}", "" },
                records[1].command)
    assert.same({ "1|2|" },
                outputs(parallel.sh({ "printf", "%s|", "{}" }, { { 1, 2 } })))
  end)

  it("tells what is wrong with an item, and goes on", function ()
    local records = parallel.sh("echo {name}", {
      { name = "a" }, {}, { name = {} }, { name = true }, 5, { name = "b\0c" },
    })
    assert.equal("a\n", records[1].output)
    for i, what in ipairs {
      [2] = "^{name}: a string or a number expected, got nil$",
      [3] = "got a table$", [4] = "got a boolean$", [5] = "got nil$",
      [6] = "without zero bytes",
    } do
      assert.matches(what, records[i].error)
      assert.equal("failed", records[i].state)
    end
    assert.matches("the item has no values",
                   parallel.sh("echo {}", { {} })[1].error)
    assert.matches("one value expected inside of a word, got 2",
                   parallel.sh({ "echo", "-{}" }, { { 1, 2 } })[1].error)
    assert.equal("cannot run 'no-such-program': No such file or directory",
                 parallel.sh({ "no-such-program", "{}" }, { 1 })[1].error)
  end)

  it("gives commands a directory, variables and input", function ()
    local record = parallel.sh("pwd; echo $ONE {}; echo ${HOME:-none}; cat",
                               { 2 }, {
      cwd = "/usr", env = { ONE = 1, HOME = false }, stdin = "text",
    })[1]
    assert.equal("/usr\n1 2\nnone\ntext", record.output)
  end)

  it("has the options of 'collect'", function ()
    local records = parallel.sh("exit {}", { 1, 0, 0 },
                                { on_error = "stop", limit = 1, chunk = 1 })
    assert.equal(1, records[1].status)
    assert.equal("cancelled", records[3].state)
    assert.is_nil(records[3].status)
    local path <const> = os.tmpname()
    local again = parallel.sh("echo x >>{}; test $(wc -l <{}) = 3", { path },
                              { retries = 5 })[1]
    os.remove(path)
    assert.same({ 3, 0 }, { again.attempts, again.status })
    assert.equal("timed_out", parallel.sh("sleep {}", { 100 },
                                          { timeout = 0.05 })[1].state)
    assert.equal(0, parallel.sh("echo {}", {}).n)
  end)

  it("takes what a journal has", function ()
    local path <const> = os.tmpname()
    os.remove(path)
    for run = 1, 2 do
      local records = parallel.sh("echo {}; exit {}", { 0, 1 },
                                  { journal = path })
      assert.same({ 0, "0\n", "echo 0; exit 0", "0\n" },
                  { records[1].status, records[1].output, records[1].command,
                    records[1].result })
      assert.equal(run == 2 or nil, records[1].journaled)
      assert.equal(1, records[2].status)
      assert.is_nil(records[2].journaled)
    end
    local ok, message <const> = pcall(parallel.sh, "exit {}", { 0 },
                                      { journal = path })
    os.remove(path)
    assert.is_false(ok)
    assert.matches("bad option 'journal' to 'sh' %(", message)
  end)

  it("works in pools of all kinds", function ()
    for _, options in ipairs {
      { max = 2 }, { max = 1, isolation = "process" },
      { max = 1, reset = "fresh" },
    } do
      local pool <close> = parallel.pool(options)
      assert.same({ "a b\n", "2\n" },
                  outputs(pool:sh("echo {}", { "a b", 2 })))
    end
  end)

  it("is forbidden in a sandbox without programs", function ()
    local pool <close> = parallel.pool { max = 1, sandbox = true }
    assert.matches("the sandbox of this runspace forbids programs",
                   pool:sh("echo {}", { 1 })[1].error)
  end)

  it("refuses what it cannot mean", function ()
    for _, row in ipairs {
      { { "ls", { 1 } }, "no place for the item: write {} where it belongs" },
      { { { "ls" }, { 1 } }, "write {} where it belongs" },
      { { "ls '{}'", { 1 } }, "{} stands in quotes, and its value is quoted "
        .. "already: write it outside of them, or {{}} for the text itself" },
      { { "ls \"a {1} b\"", { 1 } }, "{1} stands in quotes" },
      { { "ls \"$(cat {})\"", { 1 } }, "{} stands in quotes" },
      { { "ls `cat {}`", { 1 } }, "{} stands in backquotes" },
      { { "cat <<E\n{}\nE", { 1 } }, "{} stands behind <<" },
      { { "echo $'it\\'s' {}", { 1 } }, "{} stands behind $'" },
      { { "", { 1 } }, "write {} where it belongs" },
      { { {}, { 1 } }, "a text or an array of words expected" },
      { { 5, { 1 } }, "a text or an array of words expected, got 5" },
      { { { "ls", {} }, { 1 } }, "words expected, got a table" },
      { { { "ls", "{}", x = 1 }, { 1 } }, "got the key 'x'" },
      { { { 1, 2 }, "ls {}" },
        "the template comes first: parallel.sh(template, items)" },
      { { "ls {}", 5 }, "bad argument 'items' to 'sh'" },
      { { "ls {}", { 1 }, { params = {} } },
        "the template names the values of an item" },
      { { "ls {}", { 1 }, { arguments = {} } }, "bad option 'arguments'" },
      { { "ls {}", { 1 }, { globals = false } }, "bad option 'globals'" },
      { { "ls {}", { 1 }, { stdin = 5 } }, "bad option 'stdin' to 'sh'" },
      { { "ls {}", { 1 }, { env = { A = true } } },
        "a string, or false, for the variable 'A'" },
      { { "ls {}", { 1 }, { cwd = "" } }, "the path of a directory" },
      { { "ls {}", { 1 }, { timout = 1 } }, "did you mean 'timeout'?" },
      { { "ls {}", { 1 }, {}, {} }, "argument 4 to 'sh' (none expected" },
    } do
      local ok, message = pcall(function ()
        local records = parallel.sh(table.unpack(row[1], 1, 4))
        return records
      end)
      assert.is_false(ok)
      assert.matches("^[^\n]*sh_spec.lua:%d+: ", message)
      assert.is_truthy(message:find(row[2], 1, true), message)
    end
  end)
end)
