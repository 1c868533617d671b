-- SPDX-License-Identifier: MIT
std = "lua54"
max_line_length = 79

exclude_files = { "build-*", "runspace-*" }
include_files = {
  ".luacheckrc",
  "bench/**/*.lua",
  "build-aux/*.lua",
  "examples/**/*.lua",
  "lua/**/*.lua",
  "spec/**/*.lua",
}

-- The host program has the module as a global.
files["bench"].read_globals = { "parallel" }
files["examples"].read_globals = { "parallel" }
-- Examples are scripts: their functions may be globals.
files["examples"].allow_defined_top = true
files["spec"].std = "lua54+busted"
files["spec"].read_globals = { "parallel" }
-- So are the variables of those who are new to Lua, wherever they stand.
files["spec/newcomer"].allow_defined = true

-- Annotations declare functions whose bodies and arguments are not used.
files["lua/meta"].ignore = { "212" }

-- luacheck's own configuration is a list of globals.
files[".luacheckrc"].std = "lua54+luacheckrc"
