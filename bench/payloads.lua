-- SPDX-License-Identifier: MIT
--- What is marshalled: one constructor for each payload.  Shared by run.lua,
--- the floor and the competitors, so that all of them carry the same values.
return {
  integers = function ()
    local t = {}
    for i = 1, 100000 do t[i] = i * 7919 end
    return t
  end,

  strings = function ()
    local t = {}
    for i = 1, 100000 do t[i] = "string number " .. i end
    return t
  end,

  records = function ()
    local t = {}
    for i = 1, 10000 do
      t[i] = {
        id = i, name = "name " .. i, size = i * 1.5, ok = i % 2 == 0,
      }
    end
    return t
  end,

  block = function ()  -- 16 MiB
    return ("0123456789abcdef"):rep(2 ^ 20)
  end,

  nested = function ()  -- 21,844 tables, eight levels
    local function make (depth)
      if depth == 0 then return { leaf = true } end
      return { make(depth - 1), make(depth - 1), make(depth - 1),
               make(depth - 1), depth = depth }
    end
    return make(7)
  end,

  matrix = function ()
    local t = {}
    for i = 1, 300 do
      t[i] = {}
      for j = 1, 300 do t[i][j] = i / j + 0.5 end
    end
    return t
  end,

  keys = function ()
    local t = {}
    for i = 1, 100000 do t["key " .. i] = i end
    return t
  end,

  objects = function ()  -- their class goes with them
    local class = { kind = "point" }
    class.__index = class
    local t = {}
    for i = 1, 10000 do
      t[i] = setmetatable({ x = i + 0.5, y = i / 3, label = "p" .. i }, class)
    end
    return t
  end,
}
