---@meta parallel.core
-- SPDX-License-Identifier: MIT
-- luacheck: ignore 241
--- The C part of the module `parallel`, described for language servers.
--- Scripts use `parallel`; only the files of the module use this one.

--- The final states of a job come from "completed" on.
---@alias parallel.JobState
---| "delayed"                # queued, and does not start before a time
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

--- The error that was caught in a handler is an interrupt, or the end of the
--- job that this is.
---@param over? boolean  a handler has returned: a later error is another one
---@return boolean
function core.interrupted (over) end

--- What stands for the values in the next run, too: 16 bytes.  A value that
--- nothing stands for: nil, its number, and what it is.
---@param ... any
---@return string? digest
---@return integer? number
---@return string? what
function core.digest (...) end

--- What stands for the code of a function, the names that it reads in its
--- upvalue `_ENV`, and the names of its upvalues; nil for one in C.
---@param fn function
---@return string? digest
---@return string[] globals
---@return string[] upvalues
function core.code_of (fn) end

--- The value of an upvalue.
---@param fn function
---@param n integer
---@return any
function core.upvalue (fn, n) end

--- A file that keeps results of items, locked.
---@class parallel.core.Journal: userdata
local file = {}

--- Open the file; nil and what is wrong with it.
---@param path string
---@return parallel.core.Journal?
---@return string? why
function core.journal (path) end

--- The next entry of the file: a key, and where its values are; or false and
--- the heading; nothing at the end; nil and why not.
---@return string|false|nil key
---@return integer|string|nil place
function file:next () end

--- Begin the file anew.
---@param heading string
function file:head (heading) end

--- The values at a place: true, attempts, duration, values; false when they
--- cannot be made.
---@param place integer
---@return boolean
---@return any ...
function file:values (place) end

--- Add values; nil and why they cannot be kept.
---@param key string
---@param attempts integer
---@param duration number
---@param ... any
---@return boolean?
---@return string? why
function file:add (key, attempts, duration, ...) end

---@param key string
---@param state string
---@param text string
function file:add_failure (key, state, text) end

--- Write what was added; nil and why not.
---@param now? boolean  to the disk, too
---@return boolean?
---@return string? why
function file:write (now) end

function file:close () end

--- Copies of the values, as a runspace would get them.
---@param ... any
---@return any ...
function core.copy (...) end

--- What runspaces start with; constant, and good for any number of pools.
---@class parallel.InitialState: userdata

---@class parallel.core.Sandbox
---@field files integer         RS_FILES_ of runspace.h
---@field forbid integer        RS_FORBID_
---@field c_modules? string[]

--- In a runspace with a sandbox, what it describes has at least that one.
---@param spec parallel.InitialStateOptions  checked before; its `sandbox` is a
---       parallel.core.Sandbox
---@return parallel.InitialState
function core.initial_state (spec) end

--- Names of options that are numbers or flags, by group: what bounds a call;
--- what else a batch has; what bounds a runspace; what else a pool has; what
--- its queue has.
---@type table<"call"|"batch"|"runspace"|"pool"|"queue", table<string, kind>>
---@alias kind "seconds"|"bytes"|"flag"|"whole"
core.options = {}

--- What is expected as the value of an option in `core.options`: nil if the
--- value is good.
---@param name string
---@param value any
---@return string? expected
function core.expected (name, value) end

--- Sizes are numbers.
---@class parallel.core.PoolOptions: parallel.RunspaceLimits
---@field min? integer
---@field max? integer
---@field idle? number
---@field reset "globals"|"none"|"fresh"
---@field isolation "thread"|"process"|"serial"
---@field runspace? string      program of the processes
---@field command? string[]
---@field hosts? string[]
---@field ssh? string[]
---@field heartbeat? number     seconds; math.huge: none
---@field cwd? string
---@field env? string[]          "NAME=value", or "NAME"
---@field strict? boolean
---@field readable? string[]
---@field writable? string[]
---@field initial_state? parallel.InitialState
---@field queue? {jobs?: integer, bytes?: integer}
---@field signal? integer       -1: none

---@param options parallel.core.PoolOptions  checked before
---@return parallel.Pool
function core.pool (options) end

--- A value with a table of values: a record, or an event's.
---@class parallel.StreamRecord
---@field stream string    "output", "warning", ...; "event"
---@field sequence integer  over all streams and events of the job, from 1
---@field time number       instant
---@field value any         the first value that was sent
---@field values table      all of them, with `n`
---@field failure? string   why the values cannot be rebuilt here; the value is
---       this text then
---@field message string    the value as text
---@field index? integer    of the item, in a map
---@field source? "stdout"|"stderr"  it was printed there
---@field name? string      of an event

--- Jobs that report to this state and have not ended, and those whose handle
--- is held.
---@return table<integer, parallel.Job>  by id
function core.jobs () end

--- Jobs that have failed and that nobody has looked at, whose handles are
--- still there.
---@return parallel.Job[]
function core.unseen () end

--- Pools of this state that are open.
---@return parallel.Pool[]
function core.pools () end

--- Workers of the default pool, at most.
---@return integer
function core.workers () end

--- Tell whether the default pool, or that of the runspace, may adapt its
--- width.
---@return boolean
function core.adapts () end

--- Tell whether pools are serial that do not say where they are.
---@return boolean
function core.serial () end

---@return boolean
function core.in_runspace () end

---@param value any
---@return boolean
function core.is_job (value) end

---@param value any
---@return boolean
function core.is_pool (value) end

--- `pool:run` and `pool:spawn` of the default pool.
---@param fn function|string
---@param ... any
---@return any ...
function core.run (fn, ...) end

---@param fn function|string
---@param ... any
---@return parallel.Job
function core.spawn (fn, ...) end

--- Where the script has called into the module: "scan.lua:12: ", or "".
---@return string
function core.position () end

--- In a `__tostring` that a message handler in C has called while an error is
--- on its way: the traceback of the script, without the module.
---@param to_string function  `tostring`, which is no such handler
---@param raise function      `error`
---@param check function      `assert`
---@return string?
function core.uncaught (to_string, raise, check) end

--- Raise 'message' behind the position of the code that called into the
--- module, however deep in the module this is.
---@param message string
function core.misuse (message) end

--- The same for what is no misuse, with the position only where `error` with a
--- level would tell it: not through `pcall(method, ...)`.
---@param message string
function core.complain (message) end

--- A text on one line, without what a terminal would obey: "\n", "\x1B".
---@param text string
---@return string
function core.escape (text) end

--- The same, and short, as a text stands in a message.
---@param text string
---@return string
function core.clean (text) end

--- Raise a value as it is.
---@param value any
function core.raise (value) end

--- A function in C that calls 'look' with its arguments, and 'act' with the
--- results of that.
---@param look fun(...: any): ...
---@param act fun(...: any): ...
---@return fun(...: any): ...
function core.public (look, act) end

--- Hand what is queued to `parallel.event`, after waiting for it.
---@param timeout? number
---@return integer calls  of handlers
function core.poll (timeout) end

--- Wait until something happens that somebody may wait for, and hand it out.
---@param timeout? number
---@param jobs? parallel.Job|parallel.Job[]  what a stop of the caller ends
function core.wait (timeout, jobs) end

--- Readable while `core.wait` would not wait.
---@return integer descriptor
function core.fileno () end

--- Be told of these things by all jobs: bits as in `parallel.event`.
---@param mask integer
function core.listen (mask) end

--- Write lines to standard output (1) or error (2), above the status line.
---@param fd 1|2
---@param text string
function core.write (fd, text) end

--- Show a text as the last line of the terminal, nil for none.
---@param text? string
function core.status (text) end

---@param fd integer
---@return boolean
function core.is_terminal (fd) end

---@param fd? integer  default 2
---@return integer? columns
function core.terminal_width (fd) end

--- The pool of calls that name none: made on first use; in a runspace, the
--- pool that the runspace belongs to.
---@return parallel.Pool
function core.default_pool () end

---@class parallel.HostInfo
---@field name string
---@field workers integer   there, or coming up
---@field max integer
---@field failure? string   why it could not be reached when last tried

---@class parallel.BrokerInfo
---@field url string        without a password
---@field queue string
---@field waiting integer   calls of all callers that no worker has taken
---@field servers integer   that take calls: `runspace --serve`

---@class parallel.PoolInfo
---@field min integer
---@field max integer
---@field workers integer   alive
---@field idle integer      of these, waiting for work
---@field stuck integer     left behind, still running
---@field queued integer    jobs and chunks of maps not yet started
---@field delayed integer   of these, those that may not start yet
---@field running integer
---@field finished integer  jobs and chunks of maps, since opening
---@field started_workers integer  threads since opening
---@field failed_workers integer   threads or states that could not be made
---@field lost_workers integer     left behind since opening
---@field renewed integer          runspaces replaced by new ones
---@field closed boolean
---@field paused boolean    by `pause`
---@field adapts boolean    `max` follows what the workers do
---@field failure? string   the last reason for a failed worker
---@field hosts? parallel.HostInfo[]
---@field broker? parallel.BrokerInfo  as the broker has told last
---@field done table<string, integer>  jobs and items by final state
---@field bytes integer     memory of the runspaces, as of their last job

--- Workers, each with a runspace, and the jobs that wait for them.  Collecting
--- or closing a pool ends its workers.
---@class parallel.Pool: userdata
local pool = {}

--- Take no new work, let what is queued and running end, end the workers.
--- After `timeout` seconds what is still queued is cancelled, and what runs is
--- stopped.  A second close is harmless.
---@param timeout? number
---@return boolean ok
---@return "timeout"? reason
function pool:close (timeout) end

---@return parallel.PoolInfo
function pool:info () end

--- Begin nothing that is queued until `resume`.  What runs goes on, and what
--- it waits for is run.  Closing the pool resumes it.
function pool:pause () end

--- Let a paused pool go on.
function pool:resume () end

---@param min? integer
---@param max? integer
function pool:set_size (min, max) end

--- What bounds a call; `retry_on` is RS_RETRY_ bits.
---@class parallel.core.JobOptions: parallel.Limits
---@field name? string
---@field streams? table
---@field guard? table       whose field `job` it becomes at once

--- Queue a call of `fn` with the arguments.  Never waits.
---@param fn function|string
---@param options? parallel.core.JobOptions
---@param ... any
---@return parallel.Job?
---@return "full"? why
function pool:start (fn, options, ...) end

--- Stop all that is queued and runs.
---@param grace? number  seconds
function pool:stop (grace) end

--- Let the next wait of this state end when the queue may have room.
function pool:await_room () end

--- A standing call, for `<close>`: at the end it is withdrawn, unless it was
--- kept, and an error stops its jobs.
---@class parallel.core.Standing: userdata
local standing = {}

--- The call stands until its pool is closed.
function standing:keep () end

---@class parallel.core.StandingOptions: parallel.Limits
---@field name? string
---@field streams? table
---@field each_host? boolean

--- Let each runspace of the pool call `fn`.  Never waits.
---@param owner parallel.Pool
---@param options parallel.core.StandingOptions
---@param fn function|string
---@param ... any
---@return parallel.core.Standing
---@return parallel.Job[] jobs  of the workers that are there
function core.everywhere (owner, options, fn, ...) end

---@class parallel.JobInfo
---@field id integer        unique in the process, from 1
---@field name string
---@field state parallel.JobState
---@field worker? integer   number of the worker in its pool, from 1
---@field host? string      where it ran, in a pool with `hosts`
---@field attempts integer  times that it was started
---@field reason? string    why it ended otherwise than completed
---@field queued number     seconds
---@field duration number
---@field created number    instants on the monotonic clock; nil until reached
---@field started? number
---@field finished? number
---@field started_at? number  the same on the clock of the day: seconds since
---       the epoch, as of 'os.time'
---@field finished_at? number

---@class parallel.JobFacts: parallel.JobInfo
---@field listen integer    bits as in `parallel.event`
---@field chunk boolean     it is a part of a map
---@field unseen boolean    it was dropped, and nobody looked at its end

--- One call in a runspace.  Its fields are looked up when they are asked for.
---@class parallel.Job: parallel.JobInfo, userdata
---@field error any      what it raised, or the first of its stream of errors;
---       or where it was lost, or that no worker was left
---@field streams table  a copy of what it sent, by stream, and in `all`
local job = {}

--- Queue it at this state's events for these things too.
---@param mask integer
function job:listen (mask) end

--- The next record or event that this was not called for yet.
---@return parallel.StreamRecord?
function job:deliver () end

--- The sequence up to which `deliver` came.
---@return integer
function job:delivered () end

--- The first record kept above a sequence.
---@param after integer
---@return parallel.StreamRecord?
function job:record (after) end

--- It has ended, and is queued if somebody listens to that.
---@return boolean
function job:settled () end

--- In a runspace: run it here, if its pool has not started it.
---@return boolean ran
function job:help () end

--- Its end was looked at.
function job:see () end

--- Its fields.  Who asks has looked at its end.
---@return parallel.JobInfo
function job:info () end

--- The same, and what the files of this module have to know.
---@return parallel.JobFacts
function job:facts () end

--- Wait until the job has ended, `timeout` seconds at most.
---@param timeout? number
---@return parallel.JobState? state
---@return "timeout"? reason
function job:wait (timeout) end

--- Stop the job.  A queued one ends at once.
---@param grace? number  seconds
---@return boolean asked  false when it had ended already
function job:stop (grace) end

--- What the job left: true and its results; false, the error value, the
--- runspace's traceback and the final state; nil and "not finished".
---@return boolean? ok
---@return any ...
function job:fetch () end

--- What bounds a call; `retry_on` is RS_RETRY_ bits.
---@class parallel.core.BatchOptions: parallel.Limits
---@field limit? integer    chunks in flight
---@field chunk? integer    items to a chunk
---@field total? integer    items to come, where known
---@field records? boolean  time each item and bring back all its results
---@field continue? boolean a failed item does not stop the others
---@field eager? boolean    chunks stay small: results matter early
---@field name? string
---@field streams? table<string, boolean|function>
---@field max_failures? integer

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

--- The same for tables of arguments, each with `n`.
---@param items table[]
---@param from integer
---@param last integer
---@param tell? fun(text: string): string  what is raised for "item 3: ..."
---@return integer next
function batch:feed_packed (items, from, last, tell) end

---@return integer id
function batch:id () end

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
---@param tell? fun(text: string): string  what is raised for "item 3: ..."
---@return boolean more  false at the iterator's end
---@return any control
---@return integer added
function batch:feed_iterator (iterator, state, control, inputs, added, tell)
end

--- Leave out the next index.
function batch:pass () end

--- Set the key of the items that are added from now on; nil: none.
---@param key string|number|boolean|nil
---@return boolean  false: the batch was closed
function batch:set_key (key) end

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
---@return string? reason
function batch:take_values (results, inputs) end

--- Take the first value of the next item of the current chunk; nil when it is
--- used up.
---@return integer? index
---@return parallel.JobState? state
---@return any value  or error
---@return string? traceback
---@return string? reason
function batch:take_value () end

--- The next record of the current chunk; nil when it is used up.
---@return parallel.Record?
function batch:take_record () end

--- Start nothing more.
function batch:stop () end

--- Start nothing more, and stop what runs.
function batch:cancel () end

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
