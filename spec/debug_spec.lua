-- SPDX-License-Identifier: MIT
--- A job with the library 'debug' takes what is ours to pieces: the registry,
--- upvalues and user values, metatables, finalizers, functions called with
--- anything.  The job may fail, its runspace may be of no use any more, and
--- the process goes on.  What ends stock Lua is left alone.
local run <const> = require "support.script"

--- One program for each way: takes one thing to pieces in each of its pools.
--- The job's source is given what to do, and which thing.
local PROGRAM <const> = [===[
local parallel = require "parallel"
local mode <const> = MODE
local source = [==[
  local mode, n = ...
  local parallel = require "parallel"
  local task = parallel.task

  --- Everything that can be reached, in the order in which it is found.
  local seen, found = {}, {}
  local function walk (value, depth)
    local kind = type(value)
    if depth > 12 or seen[value] or (kind ~= "table" and kind ~= "function"
                                     and kind ~= "userdata") then
      return
    end
    seen[value] = true
    found[#found + 1] = { kind = kind, value = value }
    walk(debug.getmetatable(value), depth + 1)
    if kind == "table" then
      for k, v in next, value do
        walk(k, depth + 1)
        walk(v, depth + 1)
      end
    elseif kind == "function" then
      for i = 1, 255 do
        local name, v = debug.getupvalue(value, i)
        if not name then break end
        found[#found + 1] = { kind = "upvalue", of = value, i = i }
        walk(v, depth + 1)
      end
    else
      for i = 1, 20 do
        local v, there = debug.getuservalue(value, i)
        if not there then break end
        found[#found + 1] = { kind = "user value", of = value, i = i }
        walk(v, depth + 1)
      end
    end
  end
  walk(debug.getregistry(), 0)

  --- What takes its place: also a pointer, and userdata of other types.
  local pointer
  for key in next, debug.getregistry() do
    if type(key) == "userdata" then pointer = key break end
  end
  local VALUES <const> = { n = 7, nil, {}, 42, print, io.stdout, pointer,
                           parallel.spawn "return 1" }

  --- Things of a kind, and which of them is meant; each with so many values.
  local function choose (values, is_meant)
    local left = n - 1
    for _, thing in ipairs(found) do
      if is_meant(thing) then
        if left < values then return thing, VALUES[left + 1] end
        left = left - values
      end
    end
  end

  local function of_kind (kind)
    return function (thing) return thing.kind == kind end
  end

  --- What Lua itself is lost without.
  local STOCK <const> = { [1] = true, [2] = true, ["FILE*"] = true,
                          _IO_input = true, _IO_output = true }

  local ways = {}

  function ways.cleared ()
    local registry = debug.getregistry()
    if n > 1 then return false end
    for key in next, registry do
      if not STOCK[key] then registry[key] = nil end
    end
  end

  function ways.registry ()
    local registry, keys = debug.getregistry(), {}
    for key in next, registry do
      if not STOCK[key] then keys[#keys + 1] = key end
    end
    table.sort(keys, function (a, b) return tostring(a) < tostring(b) end)
    local key = keys[(n - 1) // VALUES.n + 1]
    if key == nil then return false end
    registry[key] = VALUES[(n - 1) % VALUES.n + 1]
  end

  function ways.upvalues ()
    local thing, value = choose(VALUES.n, function (thing)
      return thing.kind == "upvalue"
             and debug.getinfo(thing.of, "S").what == "C"
    end)
    if not thing then return false end
    debug.setupvalue(thing.of, thing.i, value)
  end

  ways["user values"] = function ()
    local thing, value = choose(VALUES.n, of_kind "user value")
    if not thing then return false end
    debug.setuservalue(thing.of, value, thing.i)
  end

  function ways.metatables ()
    local thing, value = choose(2, of_kind "userdata")
    if not thing then return false end
    debug.setmetatable(thing.value, value)
  end

  function ways.finalizers ()
    local thing = choose(1, of_kind "userdata")
    if not thing then return false end
    local meta = debug.getmetatable(thing.value)
    for _ = 1, 2 do
      pcall(rawget(meta or {}, "__gc"), thing.value)
      pcall(rawget(meta or {}, "__close"), thing.value)
    end
  end

  --- Those that end the process, wait for somebody, make files, or are lost in
  --- stock Lua.
  local SPARED <const> = {}
  for _, f in pairs { os.exit, io.read, io.lines, io.popen, io.close,
                      io.open, io.output, os.tmpname, debug.debug,
                      debug.sethook, os.remove, os.rename, task.sleep } do
    SPARED[f] = true
  end
  for _, method in next, debug.getmetatable(io.stdout).__index do
    SPARED[method] = true
  end
  for key, value in next, debug.getregistry() do
    if key == "_CLIBS" then SPARED[debug.getmetatable(value).__gc] = true end
  end

  function ways.calls ()
    local thing = choose(1, function (thing)
      return thing.kind == "function" and not SPARED[thing.value]
             and debug.getinfo(thing.value, "S").what == "C"
    end)
    if not thing then return false end
    local f = thing.value
    for _, other in ipairs(found) do
      if other.kind == "userdata" then
        pcall(f, other.value)
        pcall(f, other.value, other.value)
        pcall(f, other.value, {})
        pcall(f, other.value, 1, 2, 3)
      end
    end
    pcall(f)
    pcall(f, nil)
    pcall(f, {})
    pcall(f, {}, {}, {})
    pcall(f, 1)
    pcall(f, -1, -1)
    pcall(f, "x", "y", "z")
    pcall(f, print, print)
    pcall(f, coroutine.create(print))
  end

  if ways[mode]() == false then return "the end" end

  --- What is left is used.
  for _, use in ipairs {
    function () print "x" end,
    function () io.write "" end,
    function () task.emit("a", 1) end,
    function () task.progress(0.5) end,
    function () task.sleep(0) end,
    function () task.execute "true" end,
    function () io.popen "true":close() end,
    function () parallel.run "return 1" end,
    function () parallel.map({ 1, 2 }, "return ...") end,
    function () parallel.spawn "return 1":get() end,
    function () parallel.pool{ max = 1 }:close() end,
    function () coroutine.wrap(function () return 1 end)() end,
    function () load "return 1"() end,
    function () require "string" end,
    function () rawset(_G, "x", 1) end,
    function () setmetatable({}, { __gc = print }) collectgarbage() end,
  } do
    pcall(use)
  end
  return "done"
]==]

local n, result = 0, nil
repeat
  n = n + 1
  local pool = parallel.pool{ max = 1 }
  local ok, r = pcall(pool.run, pool, source, mode, n)
  result = ok and r or "failed"
  pcall(pool.run, pool, "return 7")
  pcall(pool.run, pool, "setmetatable({}, { __gc = print })")
  pool:close(5)
until result == "the end"
io.stderr:write(("%s: %d ways, and all is well\n"):format(mode, n - 1))
os.exit(0)  -- whatever was left unseen on the way
]===]

describe("A job with the library 'debug'", function ()
  for _, mode in ipairs { "cleared", "registry", "upvalues", "user values",
                          "metatables", "finalizers", "calls" } do
    it("does not end the process: " .. mode, function ()
      -- What a job has made unreachable is never freed.
      local text <const>, status <const> =
        run((PROGRAM:gsub("MODE", ("%q"):format(mode), 1)),
            "ASAN_OPTIONS=detect_leaks=0")
      assert.equal(0, status, text:sub(-2000))
      local ways <const> = tonumber(text:match ": (%d+) ways, and all is")
      assert.is_true((ways or 0) >= 1, text:sub(-2000))
    end)
  end
end)
