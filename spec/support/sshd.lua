-- SPDX-License-Identifier: MIT
--- A private server of ssh: on loopback, with keys and a configuration of its
--- own, that ends with the spec.
--
--     local server <close> = sshd.start()
--     parallel.pool{hosts = {"web1"}, ssh = server.ssh, ...}
--
-- All names reach this server, but
--
-- - refused  with a key that the server does not know
-- - unknown  whose host key is not known here
-- - closed   where nobody listens
-- - noisy    where the login prints before it runs the command

local gates <const> = require "support.gate"
local servers <const> = require "support.server"

local contents <const>, read <const> = servers.contents, servers.read
local sh <const>, write <const> = servers.sh, servers.write

--- A name that no host has, by the rules of names.
local sshd = { nowhere = "host.invalid" }

local server = {}
server.__index = server

local SERVER <const> = [[
ListenAddress 127.0.0.1
Port %d
HostKey %s/host
PidFile %s/pid
AuthorizedKeysFile %s/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
PrintMotd no
MaxStartups %s
]]

local CLIENT <const> = [[
Host unknown
  UserKnownHostsFile /dev/null
Host refused
  IdentityFile DIR/other
Host noisy
  IdentityFile DIR/noisy
Host closed
  Port 1
Host * !refused !noisy
  IdentityFile DIR/user
Host *
  HostName 127.0.0.1
  Port PORT
  HostKeyAlias private
  User USER
  IdentityAgent none
  IdentitiesOnly yes
  UserKnownHostsFile DIR/known
  GlobalKnownHostsFile /dev/null
  LogLevel ERROR
]]

local NOISE <const> = 'command="echo Welcome; printf \'\\\\033[1mmotd\\\\n\'; '
                      .. 'eval \\"$SSH_ORIGINAL_COMMAND\\"" '

--- Start the server at a port that is free; nil: it is not.
---@param dir string
---@param program string
---@param port integer
---@param startups string
---@return integer? pid
local function try (dir, program, port, startups)
  write(dir .. "/config", SERVER:format(port, dir, dir, dir, startups))
  os.remove(dir .. "/pid")
  os.remove(dir .. "/log")
  if not sh("%s -f %s/config -E %s/log", program, dir, dir) then
    return nil
  end
  -- It listens before it writes its number.
  local pid
  gates.eventually(function ()
    pid = servers.pid(dir .. "/pid")
    return pid or contents(dir .. "/log"):find("Cannot bind", 1, true)
  end)
  return pid
end

--- Start a server.  nil and a reason where that is not possible.
---@param startups? string  as its setting MaxStartups
---@return table?
---@return string? why
function sshd.start (startups)
  local program <const> = read "PATH=$PATH:/usr/sbin command -v sshd"
  if program == "" or read "command -v ssh-keygen" == "" then
    return nil, "sshd is not installed: package openssh-server"
  end
  local dir <const> = servers.folder()
  for _, name in ipairs { "host", "user", "other", "noisy" } do
    assert(sh("ssh-keygen -q -t ed25519 -N '' -f %s/%s", dir, name))
  end
  write(dir .. "/authorized", contents(dir .. "/user.pub") .. NOISE
                              .. contents(dir .. "/noisy.pub"))
  write(dir .. "/known", "private " .. contents(dir .. "/host.pub"))
  if read "id -u" == "0" then sh "mkdir -p /run/sshd" end
  local pid, port
  for _ = 1, 20 do
    port = math.random(20000, 60000)
    pid = try(dir, program, port, startups or "100:30:200")
    if pid ~= nil then break end
  end
  if pid == nil then
    local why <const> = contents(dir .. "/log")
    sh("rm -rf %s", dir)
    return nil, "sshd does not start: " .. why
  end
  local client <const> = CLIENT:gsub("%u%u%u%u?", {
    DIR = dir, PORT = tostring(port), USER = read "id -un"
  })
  write(dir .. "/client", client)
  local new <const> = setmetatable({
    pid = pid, dir = dir, program = program, port = port,
    ssh = { "ssh", "-F", dir .. "/client" },
  }, server)
  -- A user whose account is locked, or has no shell, cannot log in.
  if not sh("ssh -F %s/client -oBatchMode=yes web1 true >%s/first 2>&1", dir,
            dir) then
    local said <const> = contents(dir .. "/first")
    new:close()
    return nil, "this user cannot log in by ssh: " .. said
  end
  return new
end

--- Processes of the server that serve a connection.
---@return string  numbers
function server:connections ()
  return contents(("/proc/%d/task/%d/children"):format(self.pid, self.pid))
end

--- Cut all connections, as a host that loses its power would.
function server:cut ()
  local all <const> = self:connections()
  if all:find "%d" then sh("kill -9 %s", all) end
end

--- Stop listening; connections stay.
function server:stop ()
  if self.pid ~= nil then
    sh("kill %d", self.pid)
    local pid <const> = self.pid
    gates.eventually(function ()
      return contents(("/proc/%d/stat"):format(pid)) == ""
    end)
  end
  self.pid = nil
end

--- Listen again.
function server:restart ()
  self.pid = assert(try(self.dir, self.program, self.port, "100:30:200"))
end

function server:close ()
  self:stop()
  sh("rm -rf %s", self.dir)
end

server.__close = server.close

return sshd
