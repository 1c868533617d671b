-- SPDX-License-Identifier: MIT
local tree <const> = require "support.tree"

local CPATH <const> = os.getenv "RUNSPACE_CPATH" or tree.build ".libs/?.so"

--- What the interpreter of the distribution prints when it runs 'script'.
local function stock (script)
  local path <const> = os.tmpname()
  do
    local file <close> = assert(io.open(path, "w"))
    assert(file:write(script))
  end
  local pipe = assert(io.popen("LUA_CPATH='" .. CPATH .. ";;' "
                               .. tree.lua .. " " .. path .. " 2>&1"))
  local text = pipe:read("a")
  local _, how, status = pipe:close()
  os.remove(path)
  return text, how == "exit" and status or how
end

local function prints (expected, script)
  local text, status = stock(script)
  assert.equal(expected, text)
  assert.equal(0, status)
end

describe("the module in a stock lua5.4", function ()
  it("is found by require", function ()
    prints("table\n", "print(type(require 'parallel'))")
  end)

  it("has no jobs for finalizers that run when the state has closed it",
     function ()
    local text, status = stock [[
      late = setmetatable({}, { __gc = function ()
        local parallel = require "parallel"
        print(pcall(parallel.spawn, "return 1"))
        print(pcall(parallel.run, "return 1"))
        print(pcall(parallel.map, { 1 }, "return ..."))
      end })
      require "parallel".jobs()
    ]]
    assert.equal(0, status)
    local n = select(2, text:gsub("false%s[^\n]*the Lua state is being closed",
                                  ""))
    assert.equal(3, n, text)
  end)

  it("sets no global", function ()
    prints("nil\n", "require 'parallel' print(parallel)")
  end)

  it("maps", function ()
    prints("1 4 9\n", [[
      local parallel = require "parallel"
      local r = parallel.map({1, 2, 3}, function (x) return x * x end)
      print(table.concat(r, " "))
    ]])
  end)

  it("does not mind that the script sets functions of Lua to nil", function ()
    prints("2\t1\ttrue\n", [[
      local parallel = require "parallel"
      local print, tostring = print, tostring
      setmetatable, getmetatable, pairs, ipairs, next, type = nil
      error, pcall, select, rawget, rawset, tostring, string = nil
      local r = parallel.map({1, 2}, function (x) return x + 1 end)
      local records = parallel.collect({1, 2}, function (x)
        if x == 1 then error "odd" end
        return x
      end)
      print(r[1], #records == 2 and 1, records[1].state == "failed")
    ]])
  end)

  it("is found again when the script has cleared 'package.loaded'", function ()
    prints("true\n", [[
      local parallel = require "parallel"
      package.loaded.parallel = nil
      print(parallel == require "parallel")
    ]])
  end)

  it("runs jobs that use the module", function ()
    prints("30\n", [[
      local parallel = require "parallel"
      local pool <close> = parallel.pool {max = 1}
      print(pool:run(function ()
        local r = parallel.map({1, 2}, function (x) return x * 10 end)
        return r[1] + r[2]
      end))
    ]])
  end)

  it("shows a failure that nobody catches as 'runspace' does", function ()
    local text, status = stock [[
      local parallel = require "parallel"
      local function outer ()
        local _ = parallel.map({7}, function () error "no route" end)
      end
      outer()
    ]]
    assert.equal(1, status)
    assert.equal([[
script:3: item 1 (7): script:3: no route
traceback of the runspace:
    [C]: in function 'error'
    script:3: in function <script:3>
stack traceback:
    script:3: in local 'outer'
    script:5: in main chunk
]], (text:gsub("\t", "    ")
            :gsub("^%S*lua[%d.]*: ", ""):gsub("/tmp/lua_%w+", "script")))
  end)

  it("brings C modules of the distribution", function ()
    prints("[1,2]\n", [[
      local parallel = require "parallel"
      local json = require "cjson"
      print(parallel.run(function () return json.encode {1, 2} end))
    ]])
  end)

  it("brings no second Lua library into the process", function ()
    prints("0\n", [[
      local parallel = require "parallel"
      parallel.map({1}, "return ...")
      local n = 0
      for line in io.lines("/proc/self/maps") do
        if line:find("liblua", 1, true) then n = n + 1 end
      end
      print(n)
    ]])
  end)

  it("may be loaded again, as test runners do, while its jobs are held",
     function ()
    prints("2100\n", [[
      local held = {}
      for round = 1, 3 do
        for name in pairs(package.loaded) do
          if name:match "^parallel" then package.loaded[name] = nil end
        end
        local parallel <const> = require "parallel"
        local pool <close> = parallel.pool { max = 1 }
        for i = 1, 700 do
          held[#held + 1] = pool:spawn(function (x) return 2 * x end, i)
        end
        for i = 1, #held do
          assert(held[i]:get() == 2 * ((i - 1) % 700 + 1))
        end
        assert(#parallel.jobs() == #held)
      end
      print(#held)
      held = nil
      collectgarbage()
      collectgarbage()
      assert(#require "parallel".jobs() == 0)
    ]])
  end)

  it("raises failures that read well when nobody catches them", function ()
    local text, status = stock([[
      local parallel = require "parallel"
      parallel.map({"a"}, function (x) error("no " .. x) end)
    ]])
    assert.equal(1, status)
    assert.matches(": item 1 %(\"a\"%): [^\n]*: no a\n", text)
  end)

  it("lets the state be closed while jobs run", function ()
    local _, status = stock([[
      local parallel = require "parallel"
      for i = 1, 10 do
        parallel.spawn(function () for _ = 1, 1e6 do end end)
      end
    ]])
    assert.equal(0, status)
  end)

  it("lets the process end by os.exit while jobs run", function ()
    for _, close in ipairs { "true", "false" } do
      local _, status = stock([[
        local parallel = require "parallel"
        for i = 1, 10 do
          parallel.spawn(function () for _ = 1, 1e6 do end end)
        end
        os.exit(7, ]] .. close .. ")")
      assert.equal(7, status)
    end
  end)
end)
