-- SPDX-License-Identifier: MIT
--- Combine many items into one value, several at a time.
--
-- The items are cut into parts; a runspace folds each part from the left, and
-- what the parts gave is folded in the same way, until one value is left.
-- Neighbours stay neighbours, so the function must be associative, but need
-- not be commutative: strings are joined in the order of the items.

local arguments = require "parallel.arguments"
local call = require "parallel.call"
local check = require "parallel.check"
local _, core = ...  -- parallel.core
local input = require "parallel.input"
local limits = require "parallel.limits"
local map = require "parallel.map"
local options = require "parallel.options"
local range = require "parallel.range"

local getmetatable, math, next, table, type =
  getmetatable, math, next, table, type

---@class parallel.ReduceOptions: parallel.InitialStateFields, parallel.Limits
---@field limit? integer    jobs in flight; default: what keeps the pool busy
---@field chunk? integer    items to a job; default: a share of them
---@field arguments? any[]  passed to the function behind both values
---@field params? table<string, any>  the same by the names of parameters
---@field name? string      of the call, in messages
---@field streams? table<string, boolean|function>  as of a map

local OWN <const> = {
  journal = "the items are combined in parts, whose number depends on the "
    .. "workers; give a map before it a journal",
  limit_by = "its parts have many items; leave it out",
  rate = "its parts have many items; leave it out",
  progress = "how many parts there will be is not known; leave it out",
  seed = "the items are combined in parts, whose number depends on the "
    .. "workers; draw the numbers in a map with seed first",
}

--- Parts for each worker when the number of items is known: enough to even
--- out unequal ones, few enough to combine.
local PARTS <const> = 8

--- Items in a part at most, unless 'chunk' says otherwise.
local LARGEST <const> = 8192

--- Items in the first parts of an iterator; later ones grow.
local SMALLEST <const> = 8

--- Neighbouring items, on their way to a runspace.
---@class parallel.Part
---@field n integer       how many; the items are at 1 to 'n'
---@field first? integer  in a part of a range: its first item instead,
---@field step? integer   and the distance to the next one
---@field init? any       stands in front of the first item

--- In a runspace: fold a part from the left.
---@param part parallel.Part
---@param fn function
---@param ... any
---@return any
local function fold (part, fn, ...)
  local value, from = part.init, 1
  local first <const>, step <const> = part.first, part.step
  if first ~= nil then
    if value == nil then value, from = first, 2 end
    for i = from - 1, part.n - 1 do
      value = fn(value, first + i * step, ...)
    end
  else
    if value == nil then value, from = part[1], 2 end
    for i = from, part.n do value = fn(value, part[i], ...) end
  end
  return value
end

--- Cut an array into parts of 'size'.
---@param list table
---@param n integer
---@param size integer
---@return fun(): parallel.Part?
local function cut_array (list, n, size)
  local at = 1
  return function ()
    if at > n then return nil end
    local count <const> = math.min(size, n - at + 1)
    local part = table.move(list, at, at + count - 1, 1, { n = count })
    at = at + count
    return part
  end
end

--- Cut a range into parts of 'size'.
---@param r parallel.Range
---@param size integer
---@return fun(): parallel.Part?
local function cut_range (r, size)
  local done = 0
  return function ()
    if done >= r.n then return nil end
    local part = { first = r.first + done * r.step, step = r.step,
                   n = math.min(size, r.n - done) }
    done = done + part.n
    return part
  end
end

--- Cut what an iterator gives into parts that grow from 'size' to 'largest'.
---@param iterator fun(state: any, control: any): any
---@param size integer
---@param largest integer
---@param grow integer  parts of one size before it doubles
---@return fun(): parallel.Part?
local function cut_iterator (iterator, size, largest, grow)
  local control, made, ended = nil, 0, false
  return function ()
    if ended then return nil end
    local part, n = {}, 0
    while n < size do
      control = iterator(nil, control)
      if control == nil then
        ended = true
        break
      end
      n = n + 1
      part[n] = control
    end
    if n == 0 then return nil end
    part.n = n
    made = made + 1
    if made % grow == 0 then size = math.min(largest, size * 2) end
    return part
  end
end

--- Put 'init' in front of what 'parts' gives.
---@param init any
---@param parts fun(): parallel.Part?
---@return fun(): parallel.Part?
local function begin_with (init, parts)
  return function ()
    local part = parts()
    if part ~= nil then
      part.init = init
      init = nil
    end
    return part
  end
end

--- What cannot travel, by the item or 'init' that has it, where the path to
--- it in its part tells which that is.
---@param first integer|false  the item at 1 in the part, where that is one
---@param what string
---@return string?
local function of_item (first, what)
  local path <const>, why <const> = what:match "^field '(.-)': (.*)$"
  if path == nil then return nil end
  local index <const>, inside <const> = path:match "^%[(%d+)%](.*)$"
  local who, rest
  if index ~= nil and first then
    who, rest = "item " .. first + math.tointeger(index) - 1, inside
  elseif path:find "^init%f[^%w_]" then
    who, rest = "init", path:sub(5)
  else
    return nil
  end
  if rest ~= "" then rest = "field '" .. rest:gsub("^%.", "") .. "': " end
  return who .. ": " .. rest .. why
end

--- Fold parts, several at a time: what each gave, in order, and the index of
--- the last item in each.
---@param pool parallel.Pool
---@param parts fun(): parallel.Part?
---@param ends? integer[]  index of the last item behind each value in a part
---@param opts table
---@param in_pool boolean  a pool's own method was called
---@param list table  the function, and its further arguments
---@return table values
---@return integer[] ends
local function pass (pool, parts, ends, opts, in_pool, list)
  local marks, values = {}, 0
  local function span (index)
    return index == 1 and 1 or marks[index - 1] + 1, marks[index]
  end
  local function name (index)
    local first <const>, last <const> = span(index)
    return first == last and "item " .. first
           or "items " .. first .. " to " .. last
  end
  local source = input.of_iterator(function ()
    local part = parts()
    if part == nil then return nil end
    values = values + part.n
    marks[#marks + 1] = ends == nil and values or ends[values]
    return part
  end, function (text)
    local part <const>, what <const> = text:match "^item (%d+): (.*)$"
    if part == nil then return text end
    local index <const> = math.tointeger(part)
    return of_item(ends == nil and span(index), what)
           or name(index) .. ": " .. what
  end)
  source.span, source.name = span, name
  source.in_pool = in_pool
  local results = map.run(pool, source, fold, opts, false, list)
  return results, marks
end

--- The first parts of the items.
---@param source parallel.Input
---@param items any
---@param size? integer
---@param workers integer
---@return fun(): parallel.Part?
local function cut (source, items, size, workers)
  local n <const> = source.total
  if n == nil then
    return cut_iterator(source.iterator, size or SMALLEST, size or LARGEST,
                        workers * PARTS)
  end
  local share <const> = -(-n // (workers * PARTS))
  if getmetatable(items) == range then
    return cut_range(items, size or math.max(2, share))
  end
  return cut_array(items, n, size or math.min(LARGEST, math.max(2, share)))
end

--- Raise for an initial value that must have been meant as the options, which
--- stand behind it.
---@param init any
---@param opts any
local function check_init (init, opts)
  if opts ~= nil or type(init) ~= "table" or getmetatable(init) ~= nil
     or next(init) == nil then
    return
  end
  for name in next, init do
    if not options.is_known(name, OWN) then return end
  end
  local name <const> = next(init)
  check.misuse("bad argument 'init' to 'reduce' (a table with the option '"
               .. name .. "' stands where the initial value belongs: options "
               .. "come behind it, as in reduce(items, fn, nil, {" .. name
               .. " = ...}); for a table that is the initial value pass {} as "
               .. "options)")
end

--- The arguments of a fold: the function, and its own further arguments.  In
--- refusals these go by what they are for the caller.
---@param fn function
---@param list table  with `n`
---@return table
local function with_function (fn, list)
  local all <const> = table.move(list, 1, list.n, 2, { n = list.n + 1, fn })
  local own <const> = arguments.names_in(list) or {}
  local names <const> = { false }
  for i = 1, list.n do names[i + 1] = own[i] or i end
  arguments.set_names(all, names)
  return all
end

--- The arguments of `reduce`, read.
local function prepare (pool, items, fn, init, opts)
  check.in_order("reduce", items, "fn", fn)
  local source <const> = input.open("reduce", items)
  check.is_code("reduce", "fn", fn,
                type(init) == "function" and "the function comes before the "
                .. "initial value: reduce(items, fn, init)" or nil)
  check_init(init, opts)
  local given <const>, placed <const> = options.read("reduce", pool, opts, OWN)
  local bound <const>, list <const> = call.bind("reduce", fn, given, 2)
  return pool, source, items, bound, list, init, given, placed
end

local function reduce (pool, source, items, bound, list, init, opts, placed)
  local _ <close> = source.closing
  if source.total == 0 then
    call.is_open(pool)
    return init
  end
  local where, _ <close> = call.place("reduce", pool, opts, placed)
  if type(bound) == "string" then bound = check.compile(bound) end
  local workers <const> = where:info().max
  local parts = cut(source, items, opts.chunk, workers)
  if init ~= nil then parts = begin_with(init, parts) end
  local all <const> = with_function(bound, list)
  local values, ends
  local left <const> = opts.deadline and core.now() + opts.deadline
  local parts_opts <const> = limits.copy({
    chunk = 1, limit = opts.limit, name = opts.name, streams = opts.streams,
  }, opts)
  repeat
    values, ends = pass(where, parts, ends, parts_opts, pool ~= nil, all)
    if values.n == 0 then return init end
    parts = cut_array(values, values.n, math.max(2, -(-values.n // workers)))
    if left ~= nil then
      parts_opts.deadline = math.max(1e-6, left - core.now())
    end
  until values.n == 1
  return values[1]
end

local functions = {}

--- Combine the items into one value: `fn(fn(fn(a, b), c), d)`, cut into parts
--- that are combined in runspaces, several at a time.  So `fn` must be
--- associative (it may get two results of its own), and it may rely on the
--- order: its first value always comes from items before those of its second.
--- `init`, unless nil, stands in front of the first item.  No items at all
--- give `init`.
---
---     parallel.reduce(parallel.range(1000), math.max)
---@type fun(items: parallel.AnyItems, fn: function|string, init?: any,
---          opts?: parallel.ReduceOptions): any
functions.reduce =
  check.public("parallel.reduce(items, fn [, init [, options]])", 4, reduce,
               function (...) return prepare(nil, ...) end)

local method <const> =
  check.public("pool:reduce(items, fn [, init [, options]])", 5, reduce,
               prepare, core.is_pool)

return { functions = functions, methods = { reduce = method } }
