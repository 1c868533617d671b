#!/usr/bin/env runspace
-- SPDX-License-Identifier: MIT
--- Count what is in trees of files, by kind of file.
---
---     runspace [-j N] examples/tree_report.lua [DIR...]
---
--- Walks each DIR (default: /usr/include and /usr/share/doc), reads every
--- regular file in a runspace, and prints a report:
---
---   * by kind of file (the extension, in lower case): files, lines, words,
---     bytes and the most frequent words;
---   * the ten largest files;
---   * what could not be read, and why.
---
--- Links inside a tree are not followed; a DIR that is a link is.  Lines,
--- words and bytes are those of `LC_ALL=C wc`: newline bytes, and runs of
--- bytes between white space that have a printable ASCII character.  The
--- frequent words are runs of letters, digits and '_' (and of bytes from 128,
--- so UTF-8 stays whole) that begin with a letter, two bytes or longer, in
--- lower case; they are not taken from binary files (with a zero byte).
---
--- The report is the same for every number of workers, but for its last line.
--- Exit status: 0; 1 when something could not be read; 2 for wrong arguments.

local lfs = require "lfs"
local parallel = require "parallel"

local KINDS <const> = 15       -- in the table, before 'others'
local FREQUENT <const> = 4     -- words for each kind
local LARGEST <const> = 10     -- files
local GROUP_BYTES <const> = 4 << 20
local GROUP_FILES <const> = 256

--- Keep 'list' sorted by 'before' and at most 'limit' long.
local function insert (list, item, limit, before)
  if #list == limit then
    if not before(item, list[limit]) then return end
    list[limit] = nil
  end
  local i = #list
  while i > 0 and before(item, list[i]) do
    list[i + 1] = list[i]
    i = i - 1
  end
  list[i + 1] = item
end

local function larger (a, b)
  if a.bytes ~= b.bytes then return a.bytes > b.bytes end
  return a.path < b.path
end

--------------------------------------------------------- in the runspaces

--- Newlines in a text.  Several times quicker than a pattern, and linear in
--- a line of any length.
local function count_lines (text)
  local find <const> = string.find
  local n, at = 0, find(text, "\n", 1, true)
  while at do
    n = n + 1
    at = find(text, "\n", at + 1, true)
  end
  return n
end

--- Read one file, a block at a time, and add to 'total' and its 'frequency'.
--- Blocks end with a line, so that no word is cut in two.
local function read (path, total)
  local file <close>, reason = io.open(path, "rb")
  if not file then return nil, reason end
  local frequency = total.frequency
  local bytes, binary = 0, false
  while true do
    local block, rest = file:read(1 << 20, "L")
    if not block then
      if rest then return nil, rest end  -- a failure, and no end of file
      return bytes
    end
    if rest then block = block .. rest end
    bytes = bytes + #block
    total.bytes = total.bytes + #block
    total.lines = total.lines + count_lines(block)
    total.words = total.words + select(2, block:gsub("[!-~]%S*", ""))
    binary = binary or block:find("\0", 1, true) ~= nil
    if not binary then
      for word in block:lower():gmatch "[%a\128-\255][%w_\128-\255]+" do
        frequency[word] = (frequency[word] or 0) + 1
      end
    end
  end
end

--- Count a group of files.  Counts of words go back whole: the most frequent
--- words of a part are not those of the whole.
local function count (group)
  local total = {
    files = 0, lines = 0, words = 0, bytes = 0,
    frequency = {}, largest = {}, failures = {},
  }
  for _, path in ipairs(group) do
    local bytes, reason = read(path, total)
    if bytes then
      total.files = total.files + 1
      insert(total.largest, { path = path, bytes = bytes }, LARGEST, larger)
    else
      table.insert(total.failures, { path = path, reason = reason })
    end
  end
  return total
end

-------------------------------------------------------------- in the host

--- The kind of a file: its extension, where what follows the last dot looks
--- like one.
local function kind_of (path)
  local extension = path:match "[^/]%.([%w_+~-]+)$"
  return extension and extension:lower() or "(none)"
end

--- Collect the regular files under 'root' in 'files', what cannot be listed
--- in 'failures'.
local function walk (root, files, failures)
  local pending = { root }
  while #pending > 0 do
    local dir = table.remove(pending)
    local ok, reason = pcall(function ()
      for name in lfs.dir(dir) do
        if name ~= "." and name ~= ".." then
          local path = dir:gsub("/$", "") .. "/" .. name
          local found, why = lfs.symlinkattributes(path)
          if not found then
            table.insert(failures, { path = path, reason = why })
          elseif found.mode == "directory" then
            table.insert(pending, path)
          elseif found.mode == "file" then
            table.insert(files, { path = path, bytes = found.size })
          end
        end
      end
    end)
    if not ok then
      table.insert(failures, { path = dir, reason = reason })
    end
  end
end

--- Groups of files of one kind that are worth a trip to a runspace; the
--- heavy ones first, so that no worker is left with one at the end.
local function group (files)
  local groups, open = {}, {}
  for _, file in ipairs(files) do
    local kind = kind_of(file.path)
    local current = open[kind]
    if not current or current.bytes >= GROUP_BYTES
       or #current >= GROUP_FILES then
      current = { kind = kind, bytes = 0 }
      open[kind] = current
      table.insert(groups, current)
    end
    table.insert(current, file.path)
    current.bytes = current.bytes + file.bytes
  end
  table.sort(groups, function (a, b)
    if a.bytes ~= b.bytes then return a.bytes > b.bytes end
    return a[1] < b[1]
  end)
  return groups
end

local function new_total (kind)
  return {
    kind = kind, files = 0, lines = 0, words = 0, bytes = 0, frequency = {},
  }
end

local function add (total, part)
  for _, field in ipairs { "files", "lines", "words", "bytes" } do
    total[field] = total[field] + part[field]
  end
  local frequency = total.frequency
  for word, n in pairs(part.frequency) do
    frequency[word] = (frequency[word] or 0) + n
  end
end

--- "the 120, of 31": ties in the order of the alphabet.
local function most_frequent (frequency)
  local top = {}
  for word, n in pairs(frequency) do
    insert(top, { word = word, n = n }, FREQUENT, function (a, b)
      if a.n ~= b.n then return a.n > b.n end
      return a.word < b.word
    end)
  end
  for i, entry in ipairs(top) do
    top[i] = entry.word .. " " .. entry.n
  end
  return #top > 0 and table.concat(top, ", ") or "-"
end

--- A name of a file as text for a terminal.
local function printable (text)
  return (text:gsub("%c", "?"))
end

--- Why something could not be read, without the path that stands in front.
local function explain (failure)
  local reason = tostring(failure.reason)
  local _, last = reason:find(failure.path, 1, true)
  return last and reason:sub(last + 1):match "^'?: (.*)$" or reason
end

--- Print rows of cells in columns; 'align' has "<" or ">" for each column.
local function print_table (align, rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do
      row[i] = tostring(cell)
      widths[i] = math.max(widths[i] or 0, utf8.len(row[i]) or #row[i])
    end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local blank = (" "):rep(widths[i] - (utf8.len(cell) or #cell))
      cells[i] = align[i] == ">" and blank .. cell or cell .. blank
    end
    print((table.concat(cells, "  "):gsub(" +$", "")))
  end
end

local function print_kinds (kinds)
  local order = {}
  for _, total in pairs(kinds) do table.insert(order, total) end
  table.sort(order, function (a, b)
    if a.bytes ~= b.bytes then return a.bytes > b.bytes end
    return a.kind < b.kind
  end)

  local rows = {
    { "kind", "files", "lines", "words", "bytes", "most frequent words" },
  }
  local function row (total)
    table.insert(rows, {
      total.kind, total.files, total.lines, total.words, total.bytes,
      most_frequent(total.frequency),
    })
  end
  local all = new_total "total"
  local others = new_total(("others (%d)"):format(#order - KINDS))
  for i, total in ipairs(order) do
    if i <= KINDS then row(total) else add(others, total) end
    add(all, total)
  end
  if #order > KINDS then row(others) end
  row(all)
  print_table({ "<", ">", ">", ">", ">", "<" }, rows)
end

local function print_largest (largest)
  print("\nThe largest files")
  local rows = {}
  for i, file in ipairs(largest) do
    rows[i] = { file.bytes, printable(file.path) }
  end
  print_table({ ">", "<" }, rows)
end

local function print_failures (failures)
  table.sort(failures, function (a, b) return a.path < b.path end)
  print(("\nCould not be read: %d"):format(#failures))
  for _, failure in ipairs(failures) do
    print(("  %s: %s"):format(printable(failure.path), explain(failure)))
  end
end

local function main (...)
  local dirs = { ... }
  if #dirs == 0 then dirs = { "/usr/include", "/usr/share/doc" } end
  for _, dir in ipairs(dirs) do
    local mode, reason = lfs.attributes(dir, "mode")
    if mode ~= "directory" then
      reason = mode and "Not a directory"
        or explain { path = dir, reason = reason }
      io.stderr:write("tree_report: ", dir, ": ", reason, "\n")
      return 2
    end
  end

  local now <const> = parallel.now
  local started = now()
  local files, failures = {}, {}
  for _, dir in ipairs(dirs) do walk(dir, files, failures) end
  table.sort(files, function (a, b) return a.path < b.path end)
  local walked = now()

  local kinds, largest, workers, shared = {}, {}, {}, 0
  for record in parallel.each(group(files), count) do
    local paths, part = record.input, record.result
    if part then
      kinds[paths.kind] = kinds[paths.kind] or new_total(paths.kind)
      add(kinds[paths.kind], part)
      for _, file in ipairs(part.largest) do
        insert(largest, file, LARGEST, larger)
      end
      table.move(part.failures, 1, #part.failures, #failures + 1, failures)
    else  -- the job failed: none of its files may get lost
      for _, path in ipairs(paths) do
        table.insert(failures, { path = path, reason = record.error })
      end
    end
    if not workers[record.worker] then
      workers[record.worker] = true
      shared = shared + 1
    end
  end
  local counted = now()

  print_kinds(kinds)
  print_largest(largest)
  print_failures(failures)
  print(("\n%.2f s: walked in %.2f s, read in %.2f s by %d %s."):format(
    now() - started, walked - started, counted - walked, shared,
    shared == 1 and "worker" or "workers"))
  return #failures == 0 and 0 or 1
end

os.exit(main(...), true)
