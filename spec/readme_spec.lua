-- SPDX-License-Identifier: MIT
--- What README.md shows, run as a reader would run it.
--
-- A fenced block of Lua or C is followed by a block of text: all that it
-- prints, to the byte.  A block of the console is a session at the prompt:
-- lines behind "> " and ">> " are typed, the others are the answers.

local tree <const> = require "support.tree"

local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- What a command prints on both streams, and its exit status.
local function shell (command)
  local pipe <close> = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return output, status
end

--- The path of a file, from any directory.
local function absolute (path)
  if path:sub(1, 1) == "/" then return path end
  return shell "pwd":gsub("\n", "") .. "/" .. path
end

local runspace <const> = absolute(tree.runspace)

local function write (path, contents)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(contents))
end

--- A new directory, removed when the variable that holds it goes.
local function new_scratch ()
  local path = shell "mktemp -d":gsub("\n", "")
  return setmetatable({ path = path }, {
    __close = function () shell("rm -rf " .. quote(path)) end,
  })
end

---@class readme.Block
---@field kind string  what stands behind the fence: "lua", "text", ...
---@field line integer  of its first line
---@field text string

--- The fenced blocks of README.md, in their order.
---@return readme.Block[]
local function read_blocks ()
  local blocks, lines, block, number = {}, {}, nil, 0
  for line in io.lines(tree.source "README.md") do
    number = number + 1
    local kind = line:match "^```(.*)$"
    if kind == nil then
      lines[#lines + 1] = line .. "\n"
    elseif block == nil then
      block = { kind = kind, line = number + 1 }
      lines = {}
    else
      block.text = table.concat(lines)
      blocks[#blocks + 1] = block
      block = nil
    end
  end
  assert(block == nil, "README.md ends inside a block")
  return blocks
end

local blocks <const> = read_blocks()

--- Call 'visit' with each block of 'kind' and the block after it.
local function each_block (kind, visit)
  for i, block in ipairs(blocks) do
    if block.kind == kind then visit(block, blocks[i + 1]) end
  end
end

--- What the block after 'block' says that it prints.
local function printed (block, after)
  if after == nil or after.kind ~= "text" then
    error("the block at line " .. block.line .. " of README.md does not say "
          .. "what it prints")
  end
  return after.text
end

describe("README.md", function ()
  it("has blocks of each kind", function ()
    local found = {}
    for _, block in ipairs(blocks) do found[block.kind] = true end
    assert.same({ lua = true, text = true, console = true, c = true,
                  sh = true }, found)
  end)

  each_block("lua", function (block, after)
    it("shows a script at line " .. block.line, function ()
      local scratch <close> = new_scratch()
      write(scratch.path .. "/tour.lua", block.text)
      local output, status = shell("cd " .. quote(scratch.path) .. " && "
                                   .. quote(runspace) .. " tour.lua")
      assert.equal(printed(block, after), output)
      assert.equal(0, status)
    end)
  end)

  it("shows a part of examples/quickstart.lua", function ()
    local file <close> = assert(io.open(tree.source "examples/quickstart.lua"))
    local example <const> = {}
    for line in file:lines() do example[line:match "^%s*(.-)%s*$"] = true end
    each_block("lua", function (block)
      for line in block.text:gmatch "[^\n]+" do
        line = line:match "^%s*(.-)%s*$"
        assert(example[line], "not in quickstart.lua: " .. line)
      end
    end)
  end)

  each_block("console", function (block)
    it("shows a session at line " .. block.line, function ()
      local command, session = block.text:match "^%$ (runspace[^\n]*)\n(.*)$"
      assert(command, "a session begins with its command")
      local typed = {}
      for line in session:gmatch "[^\n]+" do
        typed[#typed + 1] = line:match "^>>? (.*)$"
      end
      local scratch <close> = new_scratch()
      write(scratch.path .. "/typed", table.concat(typed, "\n") .. "\n")
      local output, status = shell(
        quote(runspace) .. command:match "^runspace(.*)$" .. " < "
        .. quote(scratch.path .. "/typed"))
      -- Before it comes the line with the versions, behind it the prompt
      -- that met the end.
      assert.equal(session, output:match "^runspace [^\n]*\n(.*)> \n$"
                            or output)
      assert.equal(0, status)
    end)
  end)

  each_block("c", function (block, after)
    it("shows a C program at line " .. block.line, function ()
      local cc <const> = os.getenv "CC" or "cc"
      local pkg_config <const> = os.getenv "PKG_CONFIG" or "pkg-config"
      if select(2, shell("command -v " .. cc:match "^%S+")) ~= 0
         or select(2, shell(pkg_config .. " --exists lua5.4")) ~= 0 then
        pending("no C compiler, or no Lua to compile for")
        return
      end
      local scratch <close> = new_scratch()
      local source <const> = scratch.path .. "/product.c"
      local program <const> = scratch.path .. "/product"
      write(source, block.text)
      -- The build tree has the library, but not where its readers have it.
      shell("cp " .. quote(tree.source "src/runspace.h") .. " "
            .. quote(scratch.path))
      local words = { cc, "-std=c11 -Wall -Wextra -Werror",
                      "-I" .. quote(scratch.path), quote(source) }
      if tree.sanitizers ~= "" then
        words[#words + 1] = "-fsanitize=" .. tree.sanitizers
      end
      if tree.sanitizers:find("thread", 1, true) then
        words[#words + 1] = quote(tree.source "spec/support/tsan_longjmp.c")
      end
      words[#words + 1] = "$(" .. pkg_config .. " --cflags lua5.4)"
      words[#words + 1] = "-L" .. quote(tree.build ".libs") .. " -lrunspace"
      words[#words + 1] = "$(" .. pkg_config .. " --libs lua5.4)"
      words[#words + 1] = "-o " .. quote(program)
      assert.same({ "", 0 }, { shell(table.concat(words, " ")) })
      assert.same({ printed(block, after), 0 },
                  { shell("LD_LIBRARY_PATH=" .. quote(tree.build ".libs")
                          .. " " .. quote(program)) })
    end)
  end)

  it("names files that are there", function ()
    local file <close> = assert(io.open(tree.source "README.md"))
    local text = file:read "a"
    for path in text:gmatch "[%w_]+/[%w_/]+%.[%a]+" do
      if path:find "^examples/" or path:find "^doc/" then
        assert(io.open(tree.source(path)), path):close()
      end
    end
  end)
end)
