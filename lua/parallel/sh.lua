-- SPDX-License-Identifier: MIT
--- Run a command for each item.
--
-- A template is read here, once.  It becomes a plan: texts, and holes for the
-- values of an item.  The runspaces fill it in and run the command.

local call = require "parallel.call"
local check = require "parallel.check"
local collect = require "parallel.collect".collect
local _, core = ...  -- parallel.core
local input = require "parallel.input"
local options = require "parallel.options"
local parallel = require "parallel"
local template = require "parallel.template"

local error, ipairs, math, select, table, tostring, type =
  error, ipairs, math, select, table, tostring, type

---@class parallel.ShOptions: parallel.CollectOptions
---@field cwd? string     directory of the commands
---@field env? table<string, string|number|false>  variables over those of the
---       process; false takes one away
---@field stdin? string   what each command reads; default: nothing

---@class parallel.ShRecord: parallel.Record
---@field command? string|string[]  as it was run
---@field status? integer  of the command; 128 and the number of a signal
---@field output? string   what it wrote to its standard output
---@field errors? string   what it wrote to its standard error

local OWN <const> = {
  arguments = "the template names the values of an item",
  cwd = options.PLACE.cwd,
  env = options.PLACE.env,
  globals = "a command reads none; leave it out",
  max_failures = check.bounds "max_failures",
  on_error = check.one_of("stop", "continue", "cancel"),
  params = "the template names the values of an item",
  stdin = check.text,
}

--- In a runspace: run the command of an item.  Gets the values of the item,
--- then the plan.  Raises a table if its status is not 0.
---@param ... any
---@return string output
---@return integer status
---@return string errors
---@return string|string[] command
local function run (...)
  local n <const> = select("#", ...) - 1
  local plan <const> = select(n + 1, ...)
  local values = { n = n, ... }
  local single <const> = n == 1 and values[1]
  if type(single) == "table" then values = single end

  local function text (value, hole)
    local kind <const> = math.type(value) or type(value)
    if kind == "string" or kind == "integer" or kind == "float" then
      return tostring(value)
    end
    error("{" .. hole .. "}: a string or a number expected, got "
          .. (value == nil and "nil" or "a " .. kind), 0)
  end

  local function all ()
    local texts <const> = {}
    local count <const> = values == single and #values or n
    for i = 1, count do texts[i] = text(values[i], "") end
    if count == 0 then error("{}: the item has no values", 0) end
    return texts
  end

  local function quote (word)
    if word:find "^[%w_%-./=:,@%%+]+$" then return word end
    return "'" .. word:gsub("'", "'\\''") .. "'"
  end

  -- The texts of a part of the plan: one, but for '{}'.
  local function fill (part)
    if type(part) == "string" then return nil, part end
    local hole <const> = part[1]
    if hole == "" then return all() end
    return nil, text(values[hole], hole)
  end

  local command
  if plan.shell then
    local parts <const> = {}
    for i, part in ipairs(plan[1]) do
      local list <const>, one <const> = fill(part)
      if list ~= nil then
        for k = 1, #list do list[k] = quote(list[k]) end
        parts[i] = table.concat(list, " ")
      else
        parts[i] = type(part) == "string" and one or quote(one)
      end
    end
    command = table.concat(parts)
  else
    command = {}
    for _, word in ipairs(plan) do
      local list
      if #word == 1 then list = fill(word[1]) end
      if list == nil then
        local parts <const> = {}
        for i, part in ipairs(word) do
          local several <const>, one <const> = fill(part)
          if several ~= nil and #several > 1 then
            error("{}: one value expected inside of a word, got "
                  .. #several, 0)
          end
          parts[i] = one or several[1]
        end
        list = { table.concat(parts) }
      end
      table.move(list, 1, #list, #command + 1, command)
    end
  end

  local status <const>, output <const>, errors <const> =
    parallel.task.execute {
      command = command, cwd = plan.cwd, env = plan.env, stdin = plan.stdin,
    }
  if status == nil then error(output, 0) end
  if status == 0 then return output, status, errors, command end
  local last <const> = errors:match "([^\n]+)%s*$"
  error({
    command = command, status = status, output = output, errors = errors,
    message = "exit status " .. status .. (last and ": " .. last or ""),
  }, 0)
end

--- Take what became of the command into its record.
---@param record parallel.ShRecord
local function refine (record)
  local told <const> = record.error
  if record.reason == "error" and type(told) == "table" then
    record.command, record.status = told.command, told.status
    record.output, record.errors = told.output, told.errors
    record.error, record.traceback = told.message, nil
  elseif record.reason == "error" then
    record.traceback = nil
  else
    local _
    _, record.status, record.errors, record.command =
      table.unpack(record.results, 1, 4)
    record.output = record.result
    if record.result ~= nil then
      record.results = { record.result, n = 1 }
    end
  end
end

local function sh (pool, source, plan, given, placed, stop)
  local records <const>, report <const> =
    collect(pool, source, run, { n = 1, plan }, given, placed, stop, "sh")
  for i = 1, records.n do refine(records[i]) end
  return records, report
end

--- The arguments of `sh`, read.
local function prepare (pool, given_template, items, opts)
  local plan <const> = template.read("sh", given_template, items)
  local source <const> = input.open("sh", items)
  source.in_pool = pool ~= nil
  local given <const>, placed <const> = options.read("sh", pool, opts, OWN)
  source.limit_by = given.limit_by
  local stop <const> = call.stops("sh", given, "continue")
  plan.cwd, plan.env, plan.stdin = given.cwd, given.env, given.stdin
  return pool, source, plan, given, placed, stop
end

local functions = {}

--- Run a command for each item, and return a record of each, in the order of
--- the items, and a report of them all.  In the template `{}` stands for the
--- item, `{1}` and `{name}` for values in it.  A text is for the shell, and
--- values are quoted in it; an array of words needs no shell.  A command whose
--- status is not 0 has failed; that raises nothing.
---
---     parallel.sh("gzip -9 {}", files)
---     parallel.sh({ "ping", "-c", 1, "{host}" }, hosts, { limit = 20 })
---@type fun(template: string|any[], items: parallel.AnyItems,
---          opts?: parallel.ShOptions): parallel.ShRecord[], parallel.Report
functions.sh = check.public("parallel.sh(template, items [, options])", 3, sh,
                            function (...) return prepare(nil, ...) end)

local method <const> =
  check.public("pool:sh(template, items [, options])", 4, sh, prepare,
               core.is_pool)

return { functions = functions, methods = { sh = method } }
