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
}
