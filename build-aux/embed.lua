-- SPDX-License-Identifier: MIT
--- Write the C table of the Lua files that the module carries in itself.
--
--     lua5.4 embed.lua ROOT FILE...
--
-- Each FILE is a path below ROOT, such as lua/parallel/map.lua, which is the
-- module "parallel.map".  The C text goes to standard output.  A file that
-- does not compile ends the build here, by its own name, and not at the first
-- 'require'.

local root <const> = arg[1]

local escapes <const> = { ["\\"] = "\\\\", ['"'] = '\\"', ["\t"] = "\\t" }

--- Octal takes at most three digits, so no digit that follows can join it.
local function escape (char)
  return escapes[char] or string.format("\\%03o", char:byte())
end

--- One C string for each line, so that the file can be read and compared.
local function literal (source)
  local lines = {}
  for text, newline in source:gmatch "([^\n]*)(\n?)" do
    if text ~= "" or newline ~= "" then
      -- '?' is escaped since two of them could begin a trigraph.
      text = text:gsub('[%c\\"?\128-\255]', escape)
      if newline ~= "" then text = text .. "\\n" end
      lines[#lines + 1] = '  "' .. text .. '"'
    end
  end
  if #lines == 0 then lines[1] = '  ""' end
  return table.concat(lines, "\n")
end

local function read (path)
  local file <close> = assert(io.open(path, "rb"))
  return assert(file:read "a")
end

local files = table.move(arg, 2, #arg, 1, {})
table.sort(files)

local out = {
  "/* Written by build-aux/embed.lua: do not edit. */",
  '#include "face/lua_files.h"',
}
local function put (format, ...)
  out[#out + 1] = string.format(format, ...)
end

for i, file in ipairs(files) do
  local source = read(root .. "/" .. file)
  assert(load(source, "@" .. root .. "/" .. file, "t"))
  put("\nstatic const char source_%d[] =\n%s;", i, literal(source))
end

put("\nconst rs_lua_file rs_lua_files[] = {")
for i, file in ipairs(files) do
  local name = file:gsub("^lua/", "")
  local module = name:gsub("%.lua$", ""):gsub("/", ".")
  put('  { "%s", "=%s", source_%d, sizeof source_%d - 1 },',
      module, name, i, i)
end
put("  { NULL, NULL, NULL, 0 }\n};")

io.stdout:write(table.concat(out, "\n"), "\n")
