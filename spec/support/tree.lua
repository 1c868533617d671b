-- SPDX-License-Identifier: MIT
--- Where things are, for specs: they run from the build tree, which need
--- not be the source tree.

local here <const> = debug.getinfo(1, "S").source:sub(2)
local source <const> = os.getenv "RUNSPACE_SRCDIR"
                       or here:match "^(.*)/spec/support/[^/]*$" or "."
local build <const> = os.getenv "RUNSPACE_BUILDDIR" or "."

local tree = {}

--- Path of a file of the sources, such as "examples/quickstart.lua".
---@param path string
---@return string
function tree.source (path)
  return source .. "/" .. path
end

--- Path of a file that the build makes, such as ".libs/parallel.so".
---@param path string
---@return string
function tree.build (path)
  return build .. "/" .. path
end

--- The program that was built, found from any folder.
---@return string
function tree.program ()
  local pipe <close> = assert(io.popen("realpath " .. tree.runspace))
  return pipe:read "l"
end

--- The host program that was built.
tree.runspace = os.getenv "RUNSPACE" or build .. "/runspace"

--- The interpreter of the distribution.
tree.lua = os.getenv "LUA" or "lua5.4"

--- "address,undefined", "thread", or "" in a plain build.
tree.sanitizers = os.getenv "RUNSPACE_SANITIZERS" or ""

return tree
