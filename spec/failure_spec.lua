-- SPDX-License-Identifier: MIT
--- Failures: values that say what went wrong, where strings are expected, too.
local parallel <const> = require "parallel"
local run <const> = require "support.script"

--- The failure of a job that raises 'value'.
local function failure_of (value)
  local _, failure <const> = parallel.submit {
    function (v) error(v, 0) end, arguments = { value }, name = "j",
  }:join()
  return failure
end

describe("a failure", function ()
  it("is one line as text, and has its traceback in a field", function ()
    for _, row in ipairs {
      { "no route", "'j': no route" },
      { "a\nb\tc\n", "'j': a\\nb\\tc" },
      { { message = "m\n" }, "'j': m\\n {message = \"m\\n\"}" },
      { { code = 7 }, "'j': (error value: {code = 7})" },
      { "", "'j': " },
    } do
      local failure <const> = failure_of(row[1])
      assert.equal(row[2], tostring(failure))
      assert.matches("^stack traceback:\n\t", failure.traceback)
    end
    local outer <const> = failure_of(failure_of "inner")
    assert.equal("'j': 'j': inner", tostring(outer))
  end)

  it("has its hint in the line", function ()
    local _, failure <const> = pcall(parallel.run, function ()
      return host_only()  -- luacheck: ignore
    end)
    rawset(_G, "host_only", print)
    local _, hinted <const> = pcall(parallel.run, "return host_only()")
    rawset(_G, "host_only", nil)
    assert.is_nil(tostring(failure):find "hint")
    assert.matches("host_only'%); hint: 'host_only' is a global of the host",
                   tostring(hinted))
    assert.is_nil(tostring(hinted):find "\n")
  end)

  it("is told with its traceback where nobody catches it", function ()
    for _, script in ipairs {
      "parallel.run(function () error 'x' end)",
      "parallel.spawn(function () error 'x' end)",
      [[parallel.on("e", function ()
          parallel.run(function () error "x" end)
        end)
        parallel.run "parallel.task.emit 'e'"]],
    } do
      assert.matches("x\ntraceback of the runspace:\n\t", run(script))
    end
  end)

  it("can be joined with strings", function ()
    local failure <const> = failure_of "no route"
    local text <const> = tostring(failure)
    assert.equal("x: " .. text, "x: " .. failure)
    assert.equal(text .. ".", failure .. ".")
    assert.equal("1" .. text .. "2", 1 .. failure .. 2)
    assert.equal(text .. text, failure .. failure)
    assert.equal(#text, #failure)
    for _, other in ipairs { {}, true, print } do
      local ok, message <const> = pcall(function ()
        return failure .. other
      end)
      assert.is_false(ok)
      assert.matches("^[^\n]*failure_spec.lua:%d+: attempt to concatenate a ",
                     message)
    end
  end)

  it("has the methods of strings", function ()
    local failure <const> = failure_of "no route to a.b"
    assert.equal("route", failure:match "r%a+e")
    assert.equal("'J': NO", failure:upper():sub(1, 7))
    assert.same({ failure:find("a.b", 1, true) },
                { tostring(failure):find("a.b", 1, true) })
    assert.same({ "no", "route" }, { failure:match "(no) (route)" })
    assert.equal(tostring(failure):gsub("o", "0"), (failure:gsub("o", "0")))
    rawset(string, "first_word", function (s) return s:match "%w+" end)
    assert.equal("j", failure:first_word())
    rawset(string, "first_word", nil)
    assert.is_nil(failure.first_word)
    assert.is_nil(failure.no_such_field)
    assert.is_nil(failure[1])
  end)

  it("has them in a job, too", function ()
    local failure <const> = failure_of "no route"
    assert.same({ "route", "j" }, { parallel.run(function (f)
      return f:match "route", (f .. ""):match "j"
    end, failure) })
  end)

  it("keeps its fields apart from them", function ()
    local failure <const> = failure_of { code = 7 }
    assert.equal(7, failure.error.code)
    assert.equal("j", failure.name)
    assert.is_nil(failure.hint)
    assert.is_nil(failure.index)
  end)
end)
