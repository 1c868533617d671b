-- SPDX-License-Identifier: MIT
--- Scripts that need a process of their own.

local tree <const> = require "support.tree"

--- Run a script in a process of its own: both outputs, and the status.
---@param source string
---@param variables? string  of its environment: "NAME=value ..."
---@return string output
---@return integer status
local function run (source, variables)
  local path <const> = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(source)
  file:flush()
  local pipe = assert(io.popen("env " .. (variables or "")
                               .. " timeout -k 1 200 " .. tree.runspace .. " "
                               .. path .. " 2>&1"))
  local text = pipe:read "a"
  local _, _, status = pipe:close()
  os.remove(path)
  return text, status
end

return run
