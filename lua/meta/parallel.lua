---@meta parallel.core
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 241
--- The C part of the module `parallel`, described for language servers.
--- Scripts use `parallel`; only the files of the module use this one.

--- The final states of a job come from "completed" on.
---@alias parallel.JobState
---| "queued"
---| "running"
---| "stopping"               # asked to stop, has not ended yet
---| "completed"
---| "completed_with_errors"
---| "failed"                 # it raised an error
---| "timed_out"
---| "cancelled"
---| "lost"                   # its worker never came back from it

---@class parallel.core
---@field version string
---@field pool_methods table  what `pool:name` finds
---@field job_methods table   what `job:name` finds
local core = {}

--- CPUs that this process may use; at least 1.
---@return integer
function core.cpus () end

--- Seconds on the monotonic clock.
---@return number
function core.now () end

--- Copies of the values, as a runspace would get them.
---@param ... any
---@return any ...
function core.copy (...) end

--- What runspaces start with; constant, and good for any number of pools.
---@class parallel.InitialState: userdata

---@param spec parallel.InitialStateOptions  checked before
---@return parallel.InitialState
function core.initial_state (spec) end

---@class parallel.core.PoolOptions
---@field min integer
---@field max integer
---@field idle? number
---@field reset "globals"|"none"|"fresh"
---@field initial_state? parallel.InitialState

---@param options parallel.core.PoolOptions  checked before
---@return parallel.Pool
function core.pool (options) end

--- The pool of calls that name none: made on first use; in a runspace, the
--- pool that the runspace belongs to.
---@return parallel.Pool
function core.default_pool () end

---@class parallel.PoolInfo
---@field min integer
---@field max integer
---@field workers integer   alive
---@field idle integer      of these, waiting for work
---@field stuck integer     left behind, still running
---@field queued integer    jobs and chunks of maps not yet started
---@field running integer
---@field finished integer  jobs and chunks of maps, since opening
---@field started_workers integer  threads since opening
---@field failed_workers integer   threads or states that could not be made
---@field closed boolean
---@field failure? string   the last reason for a failed worker

--- Workers, each with a runspace, and the jobs that wait for them.  Collecting
--- or closing a pool ends its workers.
---@class parallel.Pool: userdata
local pool = {}

--- Take no new work, let what is queued and running end, end the workers.
--- After `timeout` seconds what is still queued is cancelled, and what runs is
--- asked to stop.  A second close is harmless.
---@param timeout? number
---@return boolean ok
---@return "timeout"? reason
function pool:close (timeout) end

---@return parallel.PoolInfo
function pool:info () end

--- Queue a call of `fn` with the arguments.  Never waits.
---@param fn function|string
---@param name? string
---@param ... any
---@return parallel.Job
function pool:submit (fn, name, ...) end

---@class parallel.JobInfo
---@field id integer        unique in the process, from 1
---@field name string
---@field state parallel.JobState
---@field worker integer    number of the worker in its pool, from 1; or 0
---@field attempts integer  times that it was started
---@field created number    instants on the monotonic clock; 0 until reached
---@field started number
---@field finished number

--- One call in a runspace.  Its fields are looked up when they are asked for.
---@class parallel.Job: parallel.JobInfo, userdata
local job = {}

---@return parallel.JobInfo
function job:info () end

--- Wait until the job has ended, `timeout` seconds at most.
---@param timeout? number
---@return parallel.JobState? state
---@return "timeout"? reason
function job:wait (timeout) end

--- Ask the job to stop.  A queued one ends as cancelled at once.
---@return boolean asked  false when it had ended already
function job:cancel () end

--- What the job left: true and its results; false, the error value, the
--- runspace's traceback and the final state; nil and "not finished".
---@return boolean? ok
---@return any ...
function job:fetch () end

---@class parallel.core.BatchOptions
---@field limit? integer    chunks in flight
---@field chunk? integer    items to a chunk
---@field total? integer    items to come, where known
---@field records? boolean  time each item and bring back all its results
---@field continue? boolean a failed item does not stop the others
---@field eager? boolean    chunks stay small: results matter early
---@field name? string

--- A map in flight.
---@class parallel.Batch: userdata
local batch = {}

---@param owner parallel.Pool
---@param fn function|string
---@param options parallel.core.BatchOptions
---@param ... any  arguments behind each item
---@return parallel.Batch
function core.batch (owner, fn, options, ...) end

--- Add the items `from` to `last`, as far as there is room.
---@param items table
---@param from integer
---@param last integer
---@return integer next  the first that was not added
function batch:feed_array (items, from, last) end

--- The same for the integers `first + (k - 1) * step`, k from `from`.
---@param first integer
---@param step integer
---@param from integer
---@param last integer
---@return integer next
function batch:feed_range (first, step, from, last) end

--- Call an iterator as a generic `for` does and add what it gives, as far as
--- there is room and for a short time; the first value of each is kept in
--- `inputs`, when that is a table, at its index.
---@param iterator function
---@param state any
---@param control any
---@param inputs? table
---@param added integer  items so far
---@return boolean more  false at the iterator's end
---@return any control
---@return integer added
function batch:feed_iterator (iterator, state, control, inputs, added) end

--- No more items will come.
function batch:finish () end

--- Items that the batch would take now.
---@return integer
function batch:room () end

--- Wait for a finished chunk and make it the current one.  "done": all was
--- taken; "idle": nothing is in flight, but items could be added.
---@param timeout? number
---@return "ready"|"timeout"|"done"|"idle"
function batch:wait (timeout) end

--- Take the values of the current chunk into `results`, and their items out
--- of `inputs`.  Returns at an item that did not complete, and goes on behind
--- it when called again; nil when the chunk is used up.
---@param results table
---@param inputs? table
---@return integer? index
---@return parallel.JobState? state
---@return any error
---@return string? traceback
function batch:take_values (results, inputs) end

--- The next record of the current chunk; nil when it is used up.
---@return parallel.Record?
function batch:take_record () end

--- Start nothing more.
function batch:stop () end

---@class parallel.BatchInfo
---@field added integer     items
---@field started integer
---@field finished integer
---@field failed integer
---@field chunks integer    submitted
---@field chunk integer     items in the last one

---@return parallel.BatchInfo
function batch:info () end

function batch:close () end

return core
