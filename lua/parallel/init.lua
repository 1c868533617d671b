-- SPDX-License-Identifier: MIT
--- Parallel runspaces: run Lua functions in isolated states, several at a
--- time.
--
-- Each file of the module is loaded when one of its names is first used, so
-- that a script that runs nothing in parallel does not pay for it.

local _, core = ...  -- parallel.core

local next, rawget, rawset, require, setmetatable =
  next, rawget, rawset, require, setmetatable

--- Files of the functions, by name.  The tables below are the same for
--- methods.
---@type table<string, string>
local FUNCTIONS <const> = {
  collect = "parallel.collect",
  compare = "parallel.compare",
  each = "parallel.each",
  everywhere = "parallel.everywhere",
  fileno = "parallel.event",
  filter = "parallel.map",
  group = "parallel.group",
  initial_state = "parallel.initial_state",
  invoke = "parallel.invoke",
  iter = "parallel.iter",
  jobs = "parallel.job",
  manager = "parallel.manager",
  map = "parallel.map",
  off = "parallel.event",
  on = "parallel.event",
  once = "parallel.event",
  poll = "parallel.event",
  pool = "parallel.pool",
  range = "parallel.range",
  reduce = "parallel.reduce",
  run = "parallel.job",
  sh = "parallel.sh",
  spawn = "parallel.job",
  stats = "parallel.stats",
  submit = "parallel.job",
  table = "parallel.rows",
  wait = "parallel.wait",
}

---@type table<string, string>
local POOL_METHODS <const> = {
  cancel = "parallel.job",
  collect = "parallel.collect",
  each = "parallel.each",
  everywhere = "parallel.everywhere",
  filter = "parallel.map",
  group = "parallel.group",
  invoke = "parallel.invoke",
  map = "parallel.map",
  reduce = "parallel.reduce",
  resize = "parallel.pool",
  run = "parallel.job",
  sh = "parallel.sh",
  spawn = "parallel.job",
  submit = "parallel.job",
  try_submit = "parallel.job",
}

---@type table<string, string>
local JOB_METHODS <const> = {
  cancel = "parallel.job",
  get = "parallel.job",
  join = "parallel.job",
  off = "parallel.job",
  on = "parallel.job",
  once = "parallel.job",
  records = "parallel.job",
  remove = "parallel.job",
  traceback = "parallel.job",
}

--- Let 'target' have the names in 'files'.  The value of a name is taken from
--- the table 'field' of its file when the name is first asked for.
---@param target table
---@param files table<string, string>
---@param field string
---@return table target
local function lend (target, files, field)
  local function load_name (self, name)
    local file = files[name]
    if file == nil then return nil end
    local value = require(file)[field][name]
    rawset(self, name, value)
    return value
  end
  return setmetatable(target, {
    __index = load_name,
    __pairs = function (self)
      for name in next, files do
        if rawget(self, name) == nil then load_name(self, name) end
      end
      return next, self, nil
    end,
  })
end

lend(core.pool_methods, POOL_METHODS, "methods")
lend(core.job_methods, JOB_METHODS, "job_methods")

-- luacheck: no max comment line length
---@alias parallel.AnyItems any[]|parallel.Range|fun(): ...
---@alias parallel.Code function|string

---@class parallel
---@field version string
---@field cpus fun(): integer  CPUs that this process may use
---@field now fun(): number    seconds on the monotonic clock
---@field map fun(items: parallel.AnyItems, fn: parallel.Code, opts?: parallel.MapOptions): table, table?
---@field filter fun(items: parallel.AnyItems, predicate: parallel.Code, opts?: parallel.MapOptions): table, table?
---@field reduce fun(items: parallel.AnyItems, fn: parallel.Code, init?: any, opts?: parallel.ReduceOptions): any
---@field collect fun(items: parallel.AnyItems, fn: parallel.Code, opts?: parallel.CollectOptions): parallel.Record[], parallel.Report
---@field each fun(items: parallel.AnyItems, fn: parallel.Code, opts?: parallel.EachOptions): fun(): parallel.Record?
---@field sh fun(template: string|any[], items: parallel.AnyItems, opts?: parallel.ShOptions): parallel.ShRecord[], parallel.Report
---@field iter fun(step: function, state?: any, control?: any, closing?: any): parallel.Iterator
---@field run fun(fn: parallel.Code, ...: any): ...
---@field spawn fun(fn: parallel.Code, ...: any): parallel.Job
---@field group fun(given?: parallel.GroupOptions): parallel.Group
---@field pool fun(given?: parallel.PoolOptions): parallel.Pool
---@field initial_state fun(spec: parallel.InitialStateOptions): parallel.InitialState
---@field range fun(first: integer, last?: integer, step?: integer): parallel.Range
local parallel = {
  cpus = core.cpus,
  now = core.now,
  version = core.version,
}

return lend(parallel, FUNCTIONS, "functions")
