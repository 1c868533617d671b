-- SPDX-License-Identifier: MIT
--- Programs whose output is a pipe that nobody reads any more end as
--- 'lua5.4' ends, those that print in jobs as if they had printed themselves.

local tree <const> = require "support.tree"

local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Run a script with a closed pipe as its output, 'fd' (1 or 2), and with
--- the signal SIGPIPE as 'signal' has it, "default" or "ignored".  The exit
--- status, as a shell has it.
---@param program string
---@param source string
---@param fd integer
---@param signal string
---@return string status
local function run (program, source, fd, signal)
  local directory <const> = os.tmpname()
  os.remove(directory)
  local file = assert(os.execute("mkdir " .. directory)
                      and io.open(directory .. "/script.lua", "w"))
  file:write(source)
  file:close()
  -- Descriptor 3 is the end of a pipe whose only reader, 4, is gone before the
  -- program begins.
  local command <const> = ([[
    cd %s && mkfifo out && exec 4<>out 3>out 4>&- &&
    ( %s exec %s timeout -s KILL 100 %s script.lua %s 3>&- )
    echo $? >status ]]):format(directory,
      signal == "ignored" and "trap '' PIPE;" or "",
      signal == "ignored" and "" or "env --default-signal=PIPE",
      quote(program), fd == 1 and ">&3 2>/dev/null" or "2>&3 >/dev/null")
  assert(os.execute(command))
  file = assert(io.open(directory .. "/status"))
  local status <const> = file:read "l"
  file:close()
  os.execute("rm -r " .. directory)
  return status
end

--- Where the program is, from another directory.
local function absolute (path)
  local pipe <close> = assert(io.popen("command -v " .. quote(path)))
  local found <const> = assert(pipe:read "l", path .. ": not found")
  if found:sub(1, 1) == "/" then return found end
  local cwd <close> = assert(io.popen "pwd")
  return cwd:read "l" .. "/" .. found
end

--- What the program does, what 'lua5.4' does for it if that is another text,
--- and the statuses where SIGPIPE has its default and where it is ignored.
local rows <const> = {
  { "print 'x'", nil, "141", "0" },
  { "for i = 1, 100000 do print(i) end", nil, "141", "0" },
  { "io.write(('x'):rep(1000000))", nil, "141", "0" },
  { "assert(io.write(('x'):rep(1000000)))", nil, "141", "1" },
  { "print 'x' os.exit(3)", nil, "141", "3" },
  { "print 'x' os.exit(3, true)", nil, "141", "3" },
  { "print 'x' error 'raised'", nil, "141", "1" },
  { "io.stdout:setvbuf 'no' print 'x' os.exit(3)", nil, "141", "3" },
  { "parallel.run(print, 'x')", "print 'x'", "141", "0" },
  { "parallel.run(print, 'x') os.exit(3)",
    "print 'x' io.stdout:flush() os.exit(3)", "141", "3" },
  { "parallel.map(parallel.range(1000), print) os.exit(4)",
    "for i = 1, 1000 do print(i) end io.stdout:flush() os.exit(4)",
    "141", "4" },
  { "parallel.run(function () io.write 'x\\n' end)", "io.write 'x\\n'",
    "141", "0" },
  { "os.exit(parallel.run(function () return io.write 'x\\n' end) or 5)",
    "io.stdout:setvbuf 'no' os.exit(io.write 'x\\n' or 5)", "141", "5" },
  { "parallel.run(function () io.write 'not a line' end)",
    "io.write 'not a line'", "141", "0" },
  { "print 'x' parallel.run(print, 'y')", "print 'x' print 'y'", "141", "0" },
  { "parallel.spawn(function () while true do print 'x' end end):wait()",
    "while true do print 'x' end", "141" },
  { "for _ in parallel.each(parallel.range(1 << 40), print) do end",
    "while true do print 'x' end", "141" },
  { "local pool <close> = parallel.pool{max = 2} "
    .. "pool:spawn(function () while true do print 'x' end end) "
    .. "while true do parallel.poll(1) end", "while true do print 'x' end",
    "141" },
  -- the standard error
  { "io.stderr:write 'x\\n'", nil, "141", "0", fd = 2 },
  { "parallel.run(function () io.stderr:write 'x\\n' end)",
    "io.stderr:write 'x\\n'", "141", "0", fd = 2 },
  { "parallel.run(function () error 'raised' end)", "error 'raised'",
    "141", "1", fd = 2 },
}

describe("an output that nobody reads", function ()
  for _, row in ipairs(rows) do
    local source <const>, stock <const> = row[1], row[2] or row[1]
    for i, signal in ipairs { "default", "ignored" } do
      local status <const> = row[i + 2]
      if status ~= nil then
        it("ends with " .. status .. " with SIGPIPE " .. signal
           .. ": " .. source, function ()
          local fd <const> = row.fd or 1
          assert.equal(status, run(absolute(tree.lua), stock, fd, signal))
          assert.equal(status, run(absolute(tree.runspace), source, fd,
                                   signal))
        end)
      end
    end
  end
end)
