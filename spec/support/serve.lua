-- SPDX-License-Identifier: MIT
--- 'runspace --serve', for a queue of a broker, that ends with the spec.
--
--     local worker <close> = serve.start(server.url, "a queue", "-j 2")
--     worker:kill()

local gates <const> = require "support.gate"
local rabbitmq <const> = require "support.rabbitmq"
local tree <const> = require "support.tree"

local serve = {}

local worker = {}
worker.__index = worker

local function sh (...)
  return os.execute((...):format(select(2, ...)))
end

local function contents (path)
  local file <close> = io.open(path)
  return file and file:read "a" or ""
end

--- Why there can be none, or nil.  'make check' says where the module is.
---@return string?
function serve.missing ()
  local path <const> = os.getenv "RUNSPACE_BROKER_MODULE"
  if path == nil then
    return "RUNSPACE_BROKER_MODULE is not " .. tree.build
           ".libs/runspace-broker.so"
  end
  return contents(path) == "" and "the module for brokers is not built"
         or rabbitmq.missing()
end

--- Start it, and wait until it is connected, or has ended.
---@param url string
---@param queue string
---@param more? string  further arguments
---@param quick? boolean  do not wait
---@return table
function serve.start (url, queue, more, quick)
  local self <const> = setmetatable({ log = os.tmpname() }, worker)
  local pid <const> = os.tmpname()
  assert(sh("'%s' --serve '%s' --queue '%s' %s >'%s' 2>&1 & echo $! >'%s'",
            tree.program(), url, queue, more or "-j 2", self.log, pid))
  self.pid = math.tointeger(tonumber(contents(pid)))
  os.remove(pid)
  if not quick then
    assert(gates.eventually(function ()
      return self:says(": connected") or not self:runs()
    end))
  end
  return self
end

--- Does the log have this text?
function worker:says (text)
  return contents(self.log):find(text, 1, true) ~= nil
end

--- All of the log.
function worker:told () return contents(self.log) end

function worker:runs ()
  local state <const> = contents(("/proc/%d/stat"):format(self.pid))
                        :match "%) (%a)"
  return state ~= nil and state ~= "Z"
end

--- Send it a signal.
---@param signal string  "KILL" and so on
function worker:signal (signal)
  sh("kill -%s %d 2>/dev/null", signal, self.pid)
end

function worker:await_end ()
  assert(gates.eventually(function () return not self:runs() end))
end

function worker:close ()
  self:signal "TERM"
  self:signal "TERM"
  self:await_end()
  os.remove(self.log)
end

worker.__close = worker.close

return serve
