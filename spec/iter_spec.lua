-- SPDX-License-Identifier: MIT
--- Iterators that need their state, as items.
local lfs <const> = require "lfs"
local parallel <const> = require "parallel"

local iter <const> = parallel.iter

local function copy (...) return ... end
local function join (...) return table.concat({ ... }, "=") end

--- An iterator over 1 to 'n' whose closing value tells 'log' of its end.
local function counted (n, log)
  return iter(function (state, i)
    assert(state == n)
    if i < n then return i + 1 end
  end, n, 0, setmetatable({}, { __close = function ()
    log.closed = (log.closed or 0) + 1
  end }))
end

--- Names in a directory, sorted.
local function names_in (path)
  local names <const> = {}
  for name in lfs.dir(path) do names[#names + 1] = name end
  table.sort(names)
  return names
end

describe("iter", function ()
  it("packs what stands behind 'in'", function ()
    local names <const> = parallel.map(iter(lfs.dir "/usr"), copy)
    table.sort(names)
    names.n = nil
    assert.same(names_in "/usr", names)
    assert.same({ 97, 233, n = 2 },
                parallel.map(iter(utf8.codes "a\u{e9}"), function (_, code)
      return code
    end))
    assert.same({ "a=1", n = 1 }, parallel.map(iter(pairs { a = 1 }), join))
    assert.same({ "1=x", "2=y", n = 2 },
                parallel.map(iter(ipairs { "x", "y" }), join))
    assert.same({ "a", "b", n = 2 },
                parallel.map(iter(("ab"):gmatch "."), copy))
  end)

  it("can be called as any iterator, to its end and beyond", function ()
    local log <const> = {}
    local it <const> = counted(2, log)
    local seen <const> = {}
    for i in it do seen[#seen + 1] = i end
    assert.same({ 1, 2 }, seen)
    assert.is_nil(it())
    assert.equal(1, log.closed)
  end)

  it("is taken by all verbs, and closed once when they end", function ()
    local pool <close> = parallel.pool { max = 2 }
    for name, row in pairs {
      map = { function (items) return pool:map(items, copy).n end, 3 },
      filter = { function (items) return pool:filter(items, copy).n end, 3 },
      reduce = { function (items) return pool:reduce(items, math.max) end, 3 },
      collect = { function (items) return pool:collect(items, copy).n end, 3 },
      sh = { function (items) return pool:sh("echo {}", items).n end, 3 },
      each = { function (items)
        local n = 0
        for _ in pool:each(items, copy) do n = n + 1 end
        return n
      end, 3 },
    } do
      local log <const> = {}
      assert.equal(row[2], row[1](counted(3, log)), name)
      assert.equal(1, log.closed, name)
    end
  end)

  it("is closed when a verb ends early", function ()
    local pool <close> = parallel.pool { max = 1 }
    for _, act in ipairs {
      function (items) pool:map(items, "error 'x'", { chunk = 1 }) end,
      function (items) pool:reduce(items, "error 'x'") end,
      function (items)
        for record in pool:each(items, copy, { chunk = 1 }) do
          if record.index > 0 then break end
        end
      end,
      function (items)
        pool:collect(items, "error 'x'", { on_error = "stop", chunk = 1 })
      end,
    } do
      local log <const> = {}
      pcall(act, counted(1000000, log))
      assert.equal(1, log.closed)
    end
  end)

  it("is what is proposed where a state is missing", function ()
    for _, row in ipairs {
      { (lfs.dir "/usr"), "parallel.iter%(lfs.dir%(path%)%)" },
      { (utf8.codes "x"), "parallel.iter packs all of it" },
      { next, "pass parallel.iter%(pairs%(t%)%)" },
      { (ipairs {}), "pass the array itself, or parallel.iter%(ipairs" },
      { function (t, i) return t[i] end, "parallel.iter packs" },
    } do
      local ok, message = pcall(parallel.map, row[1], copy)
      assert.is_false(ok)
      assert.matches(row[2], message)
    end
  end)

  it("refuses what it cannot mean", function ()
    for _, row in ipairs {
      { {}, "bad argument 'f' to 'iter' %(an iterator, as it stands" },
      { { { 1 } }, "got a table" },
      { { copy, nil, nil, {} }, "bad argument 'closing' to 'iter' %(a value "
        .. "with __close expected, got a table" },
      { { copy, nil, nil, 5 }, "got 5" },
      { { copy, 1, 2, nil, 5 }, "argument 5 to 'iter' %(none expected" },
    } do
      local ok, message = pcall(function ()
        local it = iter(table.unpack(row[1], 1, 5))
        return it
      end)
      assert.is_false(ok)
      assert.matches("^[^\n]*iter_spec.lua:%d+: .*" .. row[2], message)
    end
  end)
end)
