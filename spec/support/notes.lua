-- SPDX-License-Identifier: MIT
--- A file that jobs write lines to, to show what was run.

local notes = {}
notes.__index = notes

function notes:__close ()
  os.remove(self.path)
end

--- The lines so far.
---@return string[]
function notes:lines ()
  local lines = {}
  for line in io.lines(self.path) do lines[#lines + 1] = line end
  return lines
end

function notes.new ()
  local path <const> = os.tmpname()
  -- A function that travels: appends its argument as one line.
  local function write (text)
    local file <close> = assert(io.open(path, "a"))
    assert(file:write(text, "\n"))
  end
  return setmetatable({ path = path, write = write }, notes)
end

return notes
