-- SPDX-License-Identifier: MIT
--- A directory of Lua modules that a spec writes, on 'package.path' of this
--- state until it is closed.

local modules = {}
modules.__index = modules

function modules:__close ()
  package.path = self.saved
  for name in pairs(self.files) do
    package.loaded[name] = nil
    os.remove(self.directory .. "/" .. name .. ".lua")
  end
  os.remove(self.directory)
end

---@param files table<string, string>  source by name
function modules.new (files)
  local directory <const> = os.tmpname()
  os.remove(directory)
  assert(os.execute("mkdir " .. directory))
  for name, source in pairs(files) do
    local file <close> = assert(io.open(directory .. "/" .. name .. ".lua",
                                        "w"))
    assert(file:write(source))
  end
  local saved <const> = package.path
  package.path = directory .. "/?.lua;" .. saved
  return setmetatable({ directory = directory, files = files, saved = saved },
                      modules)
end

return modules
