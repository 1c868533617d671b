-- SPDX-License-Identifier: MIT
--- A private RabbitMQ: on loopback, with ports, a folder and users of its own
--- (rabbitmq.sh says which).
--
--     local server <const> = assert(rabbitmq.shared())
--     parallel.pool{broker = server.url, queue = "a queue of this spec"}
--
-- A run of 'make check' has one server, which the first spec starts and all
-- share; it ends with that run.  A spec that stops its server has one of its
-- own, by 'start', which ends with the spec at the latest.

local tree <const> = require "support.tree"

local rabbitmq = {}

local server = {}
server.__index = server

local SCRIPT <const> = tree.source "spec/support/rabbitmq.sh"

local function quote (text)
  return "'" .. text:gsub("'", [['\'']]) .. "'"
end

---@param path string
---@return string
local function contents (path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

--- This process, or the one that runs all specs.
local function owner ()
  return contents "/proc/self/stat":match "^%d+"
end

--- Start a server, or find one.
---@param of string  process that it ends with
---@param kind string
---@return table?
---@return string? why
local function open (of, kind)
  local errors <const> = os.tmpname()
  local pipe <const> = assert(io.popen(("sh %s open %s %s 2>%s"):format(
    quote(SCRIPT), of, kind, errors)))
  local dir <const> = pipe:read "l"
  local done <const> = pipe:close()
  local why <const> = contents(errors)
  os.remove(errors)
  if not done then return nil, why end
  local new <const> = { dir = dir, shared = kind == "shared" }
  new.port = math.tointeger(tonumber(contents(dir .. "/port")))
  new.tls_port = math.tointeger(tonumber(contents(dir .. "/tls_port")))
  new.url = ("amqp://guest:guest@127.0.0.1:%d/"):format(new.port)
  new.tls_url = ("amqps://guest:guest@localhost:%d/?cacertfile=%s/ca.pem")
                :format(new.tls_port, dir)
  return setmetatable(new, server)
end

--- Why there can be no server here, or nil.
---@return string?
function rabbitmq.missing ()
  local there <close> = io.open "/usr/lib/rabbitmq/bin/rabbitmq-server"
  return not there and "package rabbitmq-server is missing" or nil
end

--- The server of this run of the specs; in a spec that is run alone, one of
--- its own.
---@return table?
---@return string? why
function rabbitmq.shared ()
  local run <const> = os.getenv "RUNSPACE_RUN"
  return open(run or owner(), "shared")
end

--- A server that no other spec uses.
---@param kind? "strict"  TLS with a certificate of the client only
---@return table?
---@return string? why
function rabbitmq.start (kind)
  return open(owner(), kind or "")
end

local function call (self, command)
  assert(not self.shared, "other specs use this server")
  assert(os.execute(("sh %s %s %s"):format(quote(SCRIPT), command,
                                           self.dir)))
end

--- End the server: it closes its connections.
function server:stop () call(self, "stop") end

--- The same by SIGKILL.
function server:kill () call(self, "kill") end

--- Start it again, at the same ports, with what it had.
function server:run () call(self, "run") end

function server:close ()
  if not self.shared then call(self, "close") end
end

server.__close = server.close

return rabbitmq
