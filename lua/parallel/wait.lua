-- SPDX-License-Identifier: MIT
--- Wait for several jobs.

local check = require "parallel.check"
local _, core = ...  -- parallel.core
local event = require "parallel.event"

local ipairs, math, require, type = ipairs, math, require, type

---@class parallel.WaitOptions
---@field timeout? number  seconds; default: without limit
---@field mode? "all"|"any"|"first_error"  wait for the end of all jobs (the
---       default), or of one; or until one fails, or all have ended
---@field progress? parallel.ProgressOption

local OWN <const> = {
  mode = check.one_of("all", "any", "first_error"),
  progress = function (value)
    return require("parallel.progress").test(value)
  end,
  timeout = check.seconds,
}

--- Tell whether 'state', in which a job ended, is a failure.
---@param state string
---@return boolean
local function is_failure (state)
  return state ~= "completed" and state ~= "completed_with_errors"
end

---@param jobs any
---@return parallel.Job[]
local function check_jobs (jobs)
  if core.is_job(jobs) then return { jobs } end
  if type(jobs) ~= "table" then
    check.bad_argument("wait", "jobs", "an array of jobs", jobs)
  end
  for i, job in ipairs(jobs) do
    if not core.is_job(job) then
      check.bad_argument("wait", "jobs[" .. i .. "]", "a job of this state",
                         job)
    end
  end
  local behind <const> = check.beyond(jobs)
  if behind ~= nil then
    check.misuse("bad argument 'jobs' to 'wait' (an array of jobs expected, "
                 .. "got a table with the key " .. check.describe(behind)
                 .. (math.type(behind) == "integer" and behind > 1
                     and " behind a hole" or "") .. ")")
  end
  return jobs
end

---@param jobs any
---@param opts any
---@return parallel.Job[] jobs
---@return parallel.WaitOptions opts
local function prepare (jobs, opts)
  local list <const> = check_jobs(jobs)
  if core.is_job(opts) then
    check.misuse("bad argument 'options' to 'wait' (a table expected, got a "
      .. "parallel.job; several jobs are one array: parallel.wait{job, job})")
  elseif type(opts) == "number" then
    check.misuse("bad argument 'options' to 'wait' (a table expected, got "
                 .. opts .. "; it is written parallel.wait(jobs, {timeout = "
                 .. opts .. "}))")
  end
  return list, check.read("wait", opts, OWN)
end

--- Wait for jobs without polling: all of them, any of them, or the first one
--- that fails.
---@param list parallel.Job[]
---@param read_opts parallel.WaitOptions
---@return parallel.Job[] done     in the order in which they ended
---@return parallel.Job[] pending  in the order of `jobs`
local function wait (list, read_opts)
  local mode <const> = read_opts.mode or "all"
  local deadline <const> = core.now() + (read_opts.timeout or math.huge)
  local done, is_done, listening, enough = {}, {}, {}, #list == 0
  for _, job in ipairs(list) do
    if is_done[job] == nil then  -- not yet in 'listening'
      is_done[job] = false
      listening[#listening + 1] = job
    end
  end
  local progress <close> = read_opts.progress
    and require("parallel.progress").start(read_opts.progress, #listening)
    or nil
  local missed = false  -- 'add' raised: a job that has ended may be missing
  local function add (job)
    if is_done[job] then return end
    done[#done + 1] = job  -- before the rest: this may raise for memory
    is_done[job] = true
    if progress ~= nil then progress:add(is_failure(job:facts().state)) end
    enough = enough or mode == "any" or #done == #listening
             or mode == "first_error" and is_failure(job:facts().state)
  end
  local function on_finished (ended)
    missed = true
    add(ended.job)
    missed = false
  end
  local _ <close> = core.in_runspace() and core.wait_guard(listening) or nil
  for _, job in ipairs(listening) do event.watch(job, on_finished) end
  core.wait(0)
  local at = 1
  while not enough do
    -- Jobs before 'at' have ended.  In a runspace, 'core.help' runs one of the
    -- others here, if the runspace's own pool has not started it.
    while at <= #listening and is_done[listening[at]] do at = at + 1 end
    -- A job that is settled is in the queue of the events, so 'core.wait(0)'
    -- tells of it.  If telling failed, for want of memory, the loop finds the
    -- jobs that are settled.
    if missed or at <= #listening and listening[at]:settled() then
      core.wait(0)
      missed = false
      for i = at, #listening do
        if listening[i]:settled() then add(listening[i]) end
      end
      enough = enough or #done == #listening
      if enough then break end
    end
    local helped <const> = core.help(listening, at)
    local left = deadline - core.now()
    if left <= 0 then
      core.wait(0)
      break
    end
    if progress ~= nil then left = progress:patience(left) end
    core.wait(helped and 0 or left, listening)
  end
  local pending = {}
  for _, job in ipairs(listening) do
    if not is_done[job] then
      job:off("finished", on_finished)
      pending[#pending + 1] = job
    end
  end
  return done, pending
end

return {
  functions = {
    wait = check.public("parallel.wait(jobs [, {timeout =, mode =, ...}])", 2,
                        wait, prepare),
  },
  wait = wait,
}
