-- SPDX-License-Identifier: MIT
--- Named jobs: start them, ask for them, wait for them, remove them.

local check = require "parallel.check"
local params = require "parallel.params"
local wait = require "parallel.wait".functions.wait

local getmetatable, ipairs, math, next, setmetatable, string, table, type =
  getmetatable, ipairs, math, next, setmetatable, string, table, type

--- Seconds that `wait` and `wait_all` take unless told otherwise.
local PATIENCE <const> = 300

---@class parallel.JobRecord
---@field name string
---@field state string     as of a job
---@field result any       the first value, once there is one
---@field results? table   all of them, with `n`
---@field error any
---@field reason? string
---@field created number   instants
---@field started? number
---@field finished? number
---@field duration number  seconds of running so far
---@field job parallel.Job

---@class parallel.Manager
local manager = { __name = "parallel.manager" }
manager.__index = manager

---@param self any
---@param verb string
---@return parallel.Manager
local function is_open (self, verb)
  if getmetatable(self) ~= manager then
    check.bad_self("manager", verb, self)
  end
  if self.pool == nil then
    check.misuse("bad call of '" .. verb .. "' (the manager is closed)")
  end
  return self
end

--- The job of that name.
---@param self parallel.Manager
---@param verb string
---@param name any
---@return parallel.Job
local function find (self, verb, name)
  is_open(self, verb)
  if type(name) ~= "string" then
    check.bad_argument(verb, "name", "the name of a job", name)
  end
  local job = self.jobs[name]
  if job == nil then check.misuse("Job '" .. name .. "' not found") end
  return job
end

---@param job parallel.Job
---@return parallel.JobRecord
local function record_of (job)
  local info <const> = job:info()
  local record = {
    name = info.name, state = info.state, reason = info.reason,
    created = info.created, started = info.started,
    finished = info.finished, duration = info.duration, job = job,
  }
  if info.finished ~= nil then
    local function take (ok, value, ...)
      if not ok then
        if value ~= nil then record.error = value.error end
        return
      end
      record.results = table.pack(value, ...)
      record.result = value
      record.error = job.error
    end
    take(job:join(0))
  end
  return record
end

local LETTERS <const> = "abcdefghijklmnopqrstuvwxyz0123456789"

--- "Job_" and eight characters.
---@param self parallel.Manager
---@return string
local function make_name (self)
  local name
  repeat
    name = "Job_"
    for _ = 1, 8 do
      local i = math.random(#LETTERS)
      name = name .. LETTERS:sub(i, i)
    end
  until self.jobs[name] == nil
  return name
end

--- Start a job.
---@param fn function|string
---@param arguments? table  values by position, or by the names of parameters
---@param name? string      default "Job_" and eight characters
---@return parallel.Job
function manager:start (fn, arguments, name)
  is_open(self, "start")
  check.is_code("start", "fn", fn)
  if arguments ~= nil and type(arguments) ~= "table" then
    check.bad_argument("start", "arguments", "a table or nil", arguments)
  end
  if name ~= nil and (type(name) ~= "string" or name == "") then
    check.bad_argument("start", "name", "a string or nil", name)
  end
  name = name or make_name(self)
  if self.jobs[name] ~= nil then
    check.misuse("Job with name '" .. name .. "' already exists")
  end
  local list, named = params.split(arguments or {})
  local job = self.pool:submit {
    fn, arguments = list, name = name,
    params = next(named) ~= nil and named or nil,
  }
  self.jobs[name] = job
  self.order[#self.order + 1] = name
  return job
end

--- What became of a job so far.
---@param name string
---@return parallel.JobRecord
function manager:get (name)
  return record_of(find(self, "get", name))
end

---@param verb string
---@param timeout any
---@return number
local function seconds (verb, timeout)
  if timeout == nil then return PATIENCE end
  local expected = check.seconds(timeout)
  if expected ~= nil then
    check.bad_argument(verb, "timeout", expected, timeout)
  end
  return timeout
end

--- Wait for a job; raises when `timeout` seconds were not enough.
---@param name string
---@param timeout? number  default 300
---@return parallel.JobRecord
function manager:wait (name, timeout)
  local job <const> = find(self, "wait", name)
  local most <const> = seconds("wait", timeout)
  if job:wait(most ~= math.huge and most or nil) == nil then
    check.misuse(string.format("Job '%s' timed out after %g seconds", name,
                               most))
  end
  return record_of(job)
end

--- The jobs that were not removed, in the order of their start.
---@param self parallel.Manager
---@return parallel.Job[]
local function list_of (self)
  local list = {}
  for _, name in ipairs(self.order) do list[#list + 1] = self.jobs[name] end
  return list
end

--- Wait for all jobs; raises when `timeout` seconds were not enough, and says
--- how many are left.
---@param timeout? number  default 300
---@return parallel.JobRecord[]
function manager:wait_all (timeout)
  is_open(self, "wait_all")
  local most <const> = seconds("wait_all", timeout)
  local _, pending = wait(list_of(self), { timeout = most })
  if #pending > 0 then
    check.misuse(string.format("%d job%s timed out after %g seconds", #pending,
                               #pending == 1 and "" or "s", most))
  end
  return self:all()
end

--- Records of the jobs in the given states.
---@param self parallel.Manager
---@param verb string
---@param test fun(state: string): boolean
---@return parallel.JobRecord[]
local function select_jobs (self, verb, test)
  is_open(self, verb)
  local records = {}
  for _, job in ipairs(list_of(self)) do
    local record = record_of(job)
    if test(record.state) then records[#records + 1] = record end
  end
  return records
end

local LIVE <const> = { queued = true, running = true, stopping = true }

--- Records of all jobs, in the order of their start.
---@return parallel.JobRecord[]
function manager:all ()
  return select_jobs(self, "all", function () return true end)
end

--- Records of those that have ended, however they did.
---@return parallel.JobRecord[]
function manager:completed ()
  return select_jobs(self, "completed", function (state)
    return not LIVE[state]
  end)
end

--- Records of those that run.
---@return parallel.JobRecord[]
function manager:running ()
  return select_jobs(self, "running", function (state)
    return state == "running" or state == "stopping"
  end)
end

--- Records of those that wait for a runspace.
---@return parallel.JobRecord[]
function manager:queued ()
  return select_jobs(self, "queued", function (state)
    return state == "queued"
  end)
end

--- Stop a job if it has not ended, and forget it.
---@param name string
function manager:remove (name)
  local job <const> = find(self, "remove", name)
  job:remove()
  self.jobs[name] = nil
  for i, known in ipairs(self.order) do
    if known == name then
      table.remove(self.order, i)
      break
    end
  end
end

--- Stop and remove all jobs, and end the workers.
function manager:close ()
  if getmetatable(self) ~= manager then
    check.bad_self("manager", "close", self)
  end
  if self.pool == nil then return end
  local _ <close> = self.pool
  for _, job in ipairs(list_of(self)) do job:remove() end
  self.pool, self.jobs, self.order = nil, {}, {}
end

manager.__close = manager.close

function manager:__tostring ()
  if self.pool == nil then return "parallel.manager: closed" end
  return "parallel.manager: " .. #self.order .. " jobs"
end

--- A manager of named jobs, which runs up to `max` at once.
---
---     local jobs <close> = parallel.manager(4)
---     jobs:start(backup, {path = "/home"}, "home")
---     print(jobs:wait("home").result)
---@param max? integer  default, one for each CPU
---@return parallel.Manager
local function new (max)
  if max ~= nil then
    local expected = check.size(max)
    if expected ~= nil then
      check.bad_argument("manager", "max", expected, max)
    end
  end
  local pool = require("parallel.pool").functions.pool { max = max }
  return setmetatable({ pool = pool, jobs = {}, order = {} }, manager)
end

return { functions = { manager = new } }
