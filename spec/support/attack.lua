-- SPDX-License-Identifier: MIT
--- The C module of attack.c, built for a spec.
--
--     local attack <close> = require "support.attack".build()
--     parallel.pool{cpath = attack.cpath, ...}   -- require "attack" there

local tree <const> = require "support.tree"

local attack = {}
attack.__index = attack

function attack.build ()
  local pipe <close> = assert(io.popen "mktemp -d")
  local dir <const> = pipe:read "l"
  local flags <const> = "$(${PKG_CONFIG-pkg-config} --cflags lua5.4)"
  assert(os.execute(("${CC-cc} -shared -fPIC -o %s/attack.so %s %s"):format(
    dir, flags, tree.source "spec/support/attack.c")))
  return setmetatable({ dir = dir, cpath = dir .. "/?.so" }, attack)
end

function attack:__close ()
  os.execute("rm -rf " .. self.dir)
end

return attack
