-- SPDX-License-Identifier: MIT
--- Every example, run as a person would run it.

local tree <const> = require "support.tree"

---@param text string
---@return string
local function quote (text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Run a shell command: what it printed on both streams, and its status.
---@param command string
---@return string output
---@return integer status
local function shell (command)
  local pipe <close> = assert(io.popen("{ " .. command .. "; } 2>&1"))
  local output = pipe:read "a"
  local _, _, status = pipe:close()
  return output, status
end

--- Run an example on 'workers' workers.
---@param workers integer
---@param name string
---@param ... string  its arguments
---@return string output
---@return integer status
local function example (workers, name, ...)
  local words = { quote(tree.runspace), "-j", workers,
                  quote(tree.source("examples/" .. name)) }
  for _, argument in ipairs { ... } do
    words[#words + 1] = quote(argument)
  end
  return shell(table.concat(words, " "))
end

---@param path string
---@param contents string
local function write (path, contents)
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(contents))
end

--- A new directory, removed when the variable that holds it goes.
---@return table scratch  with the field 'path'
local function new_scratch ()
  local path = shell("mktemp -d"):gsub("\n", "")
  return setmetatable({ path = path }, {
    __close = function () shell("rm -rf " .. quote(path)) end,
  })
end

describe("quickstart.lua", function ()
  it("prints what its comments promise", function ()
    local output, status = example(2, "quickstart.lua")
    local lines = {}
    for line in output:gmatch "[^\n]+" do
      lines[#lines + 1] = line:gsub("\t", " ")
    end
    local refused = table.remove(lines, 11)
    assert.same({
      "map 1 4 9",
      "range 8 15 22 29 36",
      "iterator TO BE OR NOT",
      "globals plum costs 5, apple costs 3",
      "recursion 55 6765",
      "filter 2 4 6 8 10",
      "reduce 5050",
    }, table.move(lines, 1, 7, 1, {}))
    assert.matches("^failure false 2 pear .*quickstart.lua:%d+: no pear$",
                   lines[8])
    assert.equal("collect 1 plum completed 5", lines[9])
    assert.matches("^collect 2 pear failed .*quickstart.lua:%d+: no pear$",
                   lines[10])
    assert.matches("^refused .*upvalue 'log' of function <.*quickstart.lua:"
                   .. "%d+>: cannot transfer a userdata %(FILE%*%)", refused)
    assert.same({
      "each 1 1",
      "each 2 4",
      "each 3 9",
      "run 9",
      "spawn completed 610",
      "event mover a to b",
      "submit moved",
      "streams completed this may take a while",
      "timeout 1 completed",
      "timeout 2 timed_out",
      "timeout 3 completed",
      "memory failed memory_limit",
      "cancel true",
      "pool 1 2 3",
      "isolation nil",
      "initial state HELLO! dear polite",
    }, table.move(lines, 11, #lines, 1, {}))
    assert.equal(0, status)
  end)
end)

describe("mandelbrot.lua", function ()
  for workers = 1, 3 do
    it("draws the same picture with -j " .. workers, function ()
      local scratch <close> = new_scratch()
      local file = scratch.path .. "/m.pgm"
      local output, status = example(workers, "mandelbrot.lua", "120", file)
      assert.equal(file .. ": 120 x 80\n", output)
      assert.equal(0, status)
      assert.equal("1867701170 9614\n", (shell("cksum < " .. quote(file))))
    end)
  end

  it("writes to the standard output, too", function ()
    local output = example(2, "mandelbrot.lua", "30", "-")
    assert.equal("P5\n30 20\n255\n", output:sub(1, 13))
    assert.equal(13 + 30 * 20, #output)
  end)

  it("refuses a width that is none", function ()
    local output, status = example(2, "mandelbrot.lua", "wide")
    assert.equal("usage: mandelbrot.lua [WIDTH [FILE]]\n", output)
    assert.equal(2, status)
  end)
end)

describe("tree_report.lua", function ()
  --- The cells of the row of 'kind': files, lines, words, bytes, words.
  local function row (output, kind)
    for line in output:gmatch "[^\n]+" do
      if line:sub(1, #kind + 1) == kind .. " " then
        return line:sub(#kind + 1)
                   :match "^%s+(%d+)%s+(%d+)%s+(%d+)%s+(%d+)%s+(.*)$"
      end
    end
  end

  --- The same of wc: lines, words, bytes of the files that 'find' prints.
  local function wc (find)
    return shell(find .. " -type f -exec cat {} \\; -exec printf '\\n' \\; "
                 .. "| LC_ALL=C wc")
  end

  local odd <const> = "an odd\nname.txt"

  --- A tree with what trees have in them.
  local function plant (dir)
    local _, status = shell("cd " .. quote(dir) .. " && mkdir -p sub/deeper"
      .. " none && mkfifo fifo && ln -s nowhere dangling && ln -s . loop"
      .. " && touch a.h && ln -s a.h link.h && ln a.h sub/hard.h")
    assert.equal(0, status)
    write(dir .. "/a.h", "int one; int two;\nthree")
    write(dir .. "/empty.h", "")
    write(dir .. "/sub/b.H", "One  INT\t\v\f\r\nlast line\n\n")
    write(dir .. "/utf8.txt", "na\u{ef}ve caf\u{e9}"
                              .. " \u{3a9}\u{3a9}\n \u{3a9} x")
    write(dir .. "/" .. odd, "x y z\n")
    write(dir .. "/README", "read me or not\n")
    write(dir .. "/.hidden", "hidden\n")
    write(dir .. "/sub/deeper/archive.tar.GZ",
          "\31\139\0\0a b\n\255\254 \1 \127")
    -- All bytes in an order that makes all kinds of neighbours.
    local bytes, state = {}, 1
    for i = 1, 100000 do
      state = (state * 1103515245 + 12345) & 0x7fffffff
      bytes[i] = string.char(state >> 16 & 255)
    end
    write(dir .. "/sub/noise.bin", table.concat(bytes))
    -- Words, and a line, across the borders of the blocks that are read.
    write(dir .. "/sub/long.txt", ("border "):rep(300000))
    write(dir .. "/sub/wide.txt", ("w"):rep(1 << 20) .. "w\nz")
  end

  local scratch, dir
  setup(function ()
    scratch = new_scratch()
    dir = scratch.path
    plant(dir)
  end)
  teardown(function () local _ <close> = scratch end)

  --- A report without its last line, which tells the time.
  local function report (workers, ...)
    local output, status = example(workers, "tree_report.lua", ...)
    local body, tail = output:match "^(.*\n)\n([^\n]*)\n$"
    return body or output, status, tail
  end

  it("counts what wc counts", function ()
    local output, status = report(2, dir)
    assert.equal(0, status)
    local files, lines, words, bytes = row(output, "total")
    local found = shell("find " .. quote(dir) .. " -type f -print0 | "
                        .. "LC_ALL=C wc --files0-from=- | tail -n 1")
    assert.equal(found, ("%s %s %s total\n"):format(lines, words, bytes))
    assert.equal("12", files)
  end)

  it("counts each kind of file", function ()
    local output = report(2, dir)
    local function kind (name, pattern)
      local files, lines, words, bytes = row(output, name)
      -- What ends each file here is a newline more than it has.
      local l, w, b = wc("find " .. quote(dir) .. " -iname " .. quote(pattern))
                      :match "(%d+)%s+(%d+)%s+(%d+)"
      assert.same({ tonumber(l) - files, tonumber(w), tonumber(b) - files },
                  { tonumber(lines), tonumber(words), tonumber(bytes) })
      return tonumber(files)
    end
    assert.equal(4, kind("h", "*.h"))
    assert.equal(4, kind("txt", "*.txt"))
    assert.equal(1, kind("gz", "*.gz"))
    assert.equal(1, kind("bin", "*.bin"))
    assert.equal("2", (row(output, "(none)")))
  end)

  it("ranks words, in lower case, by how often they occur", function ()
    local output = report(2, dir)
    local function words (kind) return (select(5, row(output, kind))) end
    assert.equal("int 5, one 3, three 2, two 2", words "h")
    assert.equal("hidden 1, me 1, not 1, or 1", words "(none)")
    assert.matches("^border 300000, café 1, naïve 1, w+ 1$", words "txt")
    assert.equal("-", words "bin")
  end)

  it("lists the largest files, without what breaks a line", function ()
    local output = report(2, dir)
    local list = output:match "The largest files\n(.-)\n\n"
    local sizes = {}
    for size, path in list:gmatch " *(%d+)  ([^\n]+)" do
      sizes[#sizes + 1] = path:sub(#dir + 2) .. " " .. size
    end
    assert.equal(10, #sizes)
    assert.same({ "sub/long.txt 2100000", "sub/wide.txt 1048579",
                  "sub/noise.bin 100000" }, table.move(sizes, 1, 3, 1, {}))
    assert.is_nil(output:find(odd, 1, true))
  end)

  it("reports the same for every number of workers", function ()
    local one, _, tail = report(1, dir)
    assert.matches("^[%d.]+ s: walked in [%d.]+ s, "
                   .. "read in [%d.]+ s by 1 worker%.$", tail)
    assert.equal(one, (report(2, dir)))
    assert.equal(one, (report(3, dir)))
  end)

  it("adds up several trees", function ()
    local one = table.pack(row(report(2, dir .. "/sub"), "total"))
    local two = table.pack(row(report(2, dir .. "/sub", dir .. "/none",
                                      dir .. "/sub/"), "total"))
    for i = 1, 4 do
      assert.equal(2 * tonumber(one[i]), tonumber(two[i]))
    end
  end)

  it("reports nothing for a tree without files", function ()
    local output, status, tail = report(2, dir .. "/none")
    assert.same({ "0", "0", "0", "0", "-" }, { row(output, "total") })
    assert.matches("by 0 workers%.$", tail)
    assert.equal(0, status)
  end)

  it("lists what cannot be read, and counts the rest", function ()
    -- There is a file here that not even root may read.
    local place = "/proc/sys/net/ipv4/route"
    local _, status = shell("test -f " .. place .. "/flush && ! head -c 1 "
                            .. place .. "/flush")
    if status ~= 0 then
      pending("nothing is unreadable on this machine")
      return
    end
    local output, code = report(2, place)
    local reads = shell("cat " .. place .. "/* 2>/dev/null | wc -c")
    assert.equal(tonumber(reads), tonumber((select(4, row(output, "total")))))
    local count, list = output:match "Could not be read: (%d+)\n(.*)$"
    assert.matches("  " .. place .. "/flush: Permission denied\n", list)
    assert.equal(tonumber(count), select(2, list:gsub("\n", "")))
    assert.equal(1, code)
  end)

  it("lists directories that cannot be read", function ()
    local root <close> = new_scratch()
    write(root.path .. "/fine.txt", "fine\n")
    -- Nobody may use a path as long as this one.
    shell("cd " .. quote(root.path) .. " && n=" .. ("d"):rep(200)
          .. " && for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
          .. " 21 22; do mkdir $n && cd $n || exit; done")
    local output, status = report(2, root.path)
    assert.matches("\nCould not be read: 1\n  /[^\n]+: File name too long\n$",
                   output)
    assert.equal("1", (row(output, "total")))
    assert.equal(1, status)
  end)

  it("refuses a directory that is none", function ()
    local output, status = report(2, dir, "no/such/place")
    assert.equal("tree_report: no/such/place: No such file or directory\n",
                 output)
    assert.equal(2, status)
    output, status = report(2, dir .. "/a.h")
    assert.equal("tree_report: " .. dir .. "/a.h: Not a directory\n", output)
    assert.equal(2, status)
  end)
end)
