-- SPDX-License-Identifier: MIT
--- The option `seed`: seeds of parts of a call, made of the call's own.

--- Spread the bits of an integer (the finalizer of splitmix64).
---@param x integer
---@return integer
local function mix (x)
  x = (x ~ x >> 30) * 0xbf58476d1ce4e5b9
  x = (x ~ x >> 27) * 0x94d049bb133111eb
  return x ~ x >> 31
end

--- Make the seed of an item of a call, as `rs_seed_of_item` of the C part
--- does: a job with that seed draws what the item draws.
---@param seed integer
---@param index integer
---@return integer
local function of_item (seed, index)
  return mix(mix(seed) + index * 0x9e3779b97f4a7c15)
end

--- Make the seed of one of several batches of a call.  The first one has the
--- call's own.
---@param seed integer?
---@param number integer  from 1
---@return integer?
local function of_batch (seed, number)
  if seed == nil or number == 1 then return seed end
  return of_item(seed, -number)
end

return { of_batch = of_batch, of_item = of_item }
