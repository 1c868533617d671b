-- SPDX-License-Identifier: MIT
--- What the private servers of specs need: commands, files, and an end with
--- the spec, whichever way that ends.

local server = {}

--- Run a command.
---@param format string
---@return boolean? done
function server.sh (format, ...)
  return (os.execute(format:format(...)))
end

--- What a command prints, without the last line's end.
---@param command string
---@return string
function server.read (command)
  local pipe <close> = assert(io.popen(command))
  return (pipe:read "a":gsub("%s+$", ""))
end

---@param path string
---@param text string
function server.write (path, text)
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
end

--- What is in a file; nothing, where there is none.
---@param path string
---@return string
function server.contents (path)
  local file <close> = io.open(path)
  return file and file:read "a" or ""
end

--- The number of a daemon that has written it to a file; nil: it has not.
---@param path string
---@return integer?
function server.pid (path)
  return math.tointeger(tonumber(server.contents(path):match "%d+"))
end

-- The spec is $1, the folder $2.
local KEEPER <const> = [[
  while kill -0 $1 && test -d $2; do sleep 0.5; done
  for file in $2/*pid; do test -f $file && kill $(cat $file); done
  rm -rf $2]]

--- Make a folder.  When this process has ended, so do the daemons that have
--- written their numbers to files '*pid' there, and the folder is removed.
---@return string
function server.folder ()
  local dir <const> = server.read "mktemp -d"
  local owner <const> = server.contents "/proc/self/stat":match "^%d+"
  assert(server.sh("setsid sh -c '%s' keeper %s %s </dev/null >/dev/null 2>&1 "
                   .. "3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &", KEEPER, owner,
                   dir))
  return dir
end

return server
