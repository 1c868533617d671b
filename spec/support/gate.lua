-- SPDX-License-Identifier: MIT
--- Gates: jobs stop at one until it is opened, and tell that they arrived.
--
-- A gate is two pipes with names.  Opening one for reading waits until
-- somebody has it open for writing: that is the gate.  The other one carries
-- a byte for each job that arrives.
--
--     local pool <close> = parallel.pool{max = 2}
--     local gate <close> = gates.new()   -- behind the pool: opened first
--     local pass <const> = gate.pass     -- a function that travels
--     pool:spawn(function () pass() end)
--     gate:await(1)                      -- a job stands at the gate
--     gate:open()

local gates = {}

local function make_pipe ()
  local path <const> = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  return path
end

local gate = {}
gate.__index = gate

--- Wait until 'n' more jobs have arrived.
---@param n integer
function gate:await (n)
  for _ = 1, n do assert(self.arrivals:read(1)) end
end

--- Let all jobs pass, those that come later too.
function gate:open ()
  self.opened = self.opened or assert(io.open(self.path, "r+"))
end

function gate:__close ()
  self:open()
  os.remove(self.path)
  os.remove(self.bell)
  self.arrivals:close()
  self.opened:close()
end

function gates.new ()
  local path <const>, bell <const> = make_pipe(), make_pipe()
  local arrivals <const> = assert(io.open(bell, "r+"))
  arrivals:setvbuf("no")
  local function pass ()
    local ring <close> = assert(io.open(bell, "w"))
    assert(ring:write("x"))
    ring:flush()
    local _ <close> = assert(io.open(path, "r"))
  end
  return setmetatable({ path = path, bell = bell, arrivals = arrivals,
                        pass = pass }, gate)
end

--- Ask 'test' again and again until it is true, or a minute is over.
---@param test fun(): any
---@return any
function gates.eventually (test)
  local now <const> = require "parallel".now
  local late <const> = now() + 60
  local value = test()
  while not value and now() < late do
    os.execute("sleep 0.01")
    value = test()
  end
  return value
end

return gates
