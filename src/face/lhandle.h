/* SPDX-License-Identifier: MIT */
/*
 * lhandle.h - userdata that hold a reference to an object of the library.
 *
 * A handle is a userdata that holds an 'rs_handle'.  Its first field points to
 * the object, and is NULL when the handle is closed.  The second field is the
 * address of the type's name, which no userdata of another library holds
 * there.  To compare that address takes a tenth of the time that a look into
 * the metatable takes.
 *
 * Functions that the Lua part adds to the table of methods of a type are
 * methods of every handle of that type.
 */
#ifndef RS_LHANDLE_H
#define RS_LHANDLE_H

#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>

#include "runspace.h"
#include "pool/face.h"

/* Names of the types of handles.  The registry has the metatable of a type
   under its name, and under the address of its name; to find it by address
   takes a fifth of the time. */
extern const char rs_type_pool[], rs_type_job[], rs_type_batch[],
                  rs_type_initial_state[];

#define RS_POOL_TYPE rs_type_pool
#define RS_JOB_TYPE rs_type_job
#define RS_BATCH_TYPE rs_type_batch
#define RS_INITIAL_STATE_TYPE rs_type_initial_state

typedef struct rs_handle {
  void *object;           /* NULL: the handle is closed, or has none yet */
  const char *type;       /* RS_..._TYPE, compared by address */
  unsigned born : 29;     /* 'rs_forks' when the handle was made; constant */
  bool got : 1;           /* job: its results were taken */
  bool kept : 1;          /* job: its results were decoded and not taken yet;
                             the registry has them under the address of this
                             handle */
  bool special : 1;       /* pool: it has limits, or streams of its own */
} rs_handle;

/* The module's own data for one Lua state. */
typedef struct rs_face {
  rs_events *events;      /* queue of the state's jobs; a reference */
  unsigned born;          /* 'rs_forks' when 'events' was made */
  unsigned listening;     /* RS_LISTEN_: asked of all jobs of the state */
  rs_outbox *outbox;      /* the state's own; lent */
  unsigned handles;       /* number of the handle of a job made last */
  unsigned dispatching;   /* dispatches in progress; an inner one runs in a
                             handler that an outer one has called */
  bool interrupted;       /* the program has interrupted a handler */
} rs_face;

/* [-0, +0, m]  Return the face of 'L', made at the first call; its address
   stays while the state lives. */
rs_face *rs_lua_face (lua_State *L);

/* Return the face in a method of a handle: it is the first upvalue. */
static inline rs_face *
rs_lua_own_face (lua_State *L)
{
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* Return 'n', or SIZE_MAX where a 'size_t' has too few bits for 'n'. */
static inline size_t
rs_clip_size (uint64_t n)
{
  return n < SIZE_MAX ? (size_t) n : SIZE_MAX;
}

/* Return the value of 'born' for a handle that is made now. */
static inline unsigned
rs_handle_born (void)
{
  return rs_forks() & 0x1fffffff;
}

/* Tell whether the handle was made before a fork(2), so that its object
   belongs to the parent process. */
static inline bool
rs_handle_foreign (const rs_handle *handle)
{
  return handle->born != rs_handle_born();
}

/*
 * [-0, +1, m]  Push a new handle of 'type', without an object, and with
 * 'values' user values.  Return the address at which the caller stores the
 * pointer to the object.
 */
void **rs_handle_new (lua_State *L, const char *type, int values);

/* [-0, +0, -]  Return the address of the pointer to the object in the handle
   at 'index'; NULL if the value there is no handle of 'type'. */
void **rs_handle_test (lua_State *L, int index, const char *type);

/* [-0, +0, v]  Return the object of the handle at argument 'arg', NULL if the
   handle is closed.  Raise if the argument is no handle of 'type', or if the
   object belongs to another process. */
void *rs_handle_get (lua_State *L, int arg, const char *type);

/* [-0, +0, v]  'rs_handle_get'; raise "<type> is closed" for NULL. */
void *rs_handle_check (lua_State *L, int arg, const char *type);

/*
 * [-0, +1, m]  Make the metatable of 'type' from 'meta', make its table of
 * methods from 'methods', and push the table of methods.  That table is the
 * '__index' too, unless 'meta' has one.  Each call makes new tables, so that a
 * call that failed for want of memory can be repeated.
 */
void rs_handle_type (lua_State *L, const char *type, const luaL_Reg *meta,
                     const luaL_Reg *methods);

/*
 * [-0, +1, m]  Push the metatable named 'type'; make it from 'meta' at the
 * first call.  The registry gets the metatable when it is filled.  With
 * 'luaL_newmetatable' the registry would get an empty one first, which would
 * stay empty when there is no memory for the functions.
 */
void rs_push_type (lua_State *L, const char *type, const luaL_Reg *meta);

/* [-n, +r, e]  Call the function 'name' in the table 'field' of the file
   'file' of the Lua part with all values on the stack.  Return the number of
   its results, which are then all that is on the stack. */
int rs_handle_call (lua_State *L, const char *file, const char *field,
                    const char *name);

/*
 * [-0, +0, v]  Raise a message that begins with the position of the code that
 * called into the module, however many functions of the module are between
 * that code and this call.
 */
int rs_handle_error (lua_State *L, const char *format, ...);

/* [-0, +0, v]  Raise 'text', behind the caller's position only where Lua's
   'error' with a level would find it: not if 'pcall(method, ...)' made the
   call. */
int rs_handle_error_near (lua_State *L, const char *text);

/* [-0, +0, v]  'rs_handle_error' with the text of 'err'. */
int rs_handle_raise (lua_State *L, const rs_error *err);

/* [-0, +1, m]  Push 'text' as 'rs_escape' has it, and return that; it is on
   the stack. */
const char *rs_handle_escape (lua_State *L, const char *text);

/* [-0, +1, m]  Push 'text' as it is quoted in a message: as 'rs_escape' has
   it, and cut to 40 bytes before that.  Return it. */
const char *rs_handle_clean (lua_State *L, const char *text, size_t size);

/* [-0, +?, m]  Return a value in a few words, on one line: "nil", "'abc'", "a
   table".  The strings that this makes stay on the stack. */
const char *rs_handle_describe (lua_State *L, int arg);

/*
 * [-0, +0, v]  Raise if there are more than 'most' arguments; further ones
 * that are nil are ignored.  'most' includes the object of a method; 'own' is
 * 1 for a method, so that the message does not count the object, and else 0.
 * 'usage' tells how the function is written: "job:wait([timeout])".
 */
void rs_handle_most (lua_State *L, int most, int own, const char *usage);

/*
 * [-0, +0, v]  Return the time at argument 'arg', in seconds.  A number that
 * is not negative is expected; no argument, nil and infinity mean RS_FOREVER.
 * 'verb' is the name of the calling function, for the message.
 */
double rs_handle_timeout (lua_State *L, int arg, const char *verb);

/* [-0, +1, m]  Make the type; push its table of methods. */
void rs_open_pool_type (lua_State *L);
void rs_open_job_type (lua_State *L);
void rs_open_batch_type (lua_State *L);
void rs_open_initial_state_type (lua_State *L);

/* Functions of the C part, for Lua:
   (options) -> pool
   () -> default pool */
int rs_lua_pool (lua_State *L);
int rs_lua_default_pool (lua_State *L);

/* Methods of the default pool, called without it; their first upvalue is the
   face, as that of a method:
   (function or source, ...) -> job
   (function or source, ...) -> results... */
int rs_lua_spawn (lua_State *L);
int rs_lua_run (lua_State *L);

/* Guards, for '<close>'.  The first kind holds one job, which 'pool:start'
   puts in, and stops it when any error ends the wait for it.  The second kind
   stops the jobs of an array when the job that waits for them is stopped.
   () -> guard
   (jobs) -> guard */
int rs_lua_run_guard (lua_State *L);
int rs_lua_wait_guard (lua_State *L);

/* Functions of the C part, for Lua:
   (spec) -> initial state
   (pool, function, options, ...) -> batch */
int rs_lua_initial_state (lua_State *L);
int rs_lua_batch (lua_State *L);

/* [-0, +0, e]  Wait for 'job', at most 'timeout' seconds; the caller holds a
   reference to it.  Return false when the time is over. */
bool rs_await_job (lua_State *L, rs_events *e, rs_job *job, double timeout);

/* [-0, +1, m]  Push the handle of 'job', whose reference this takes: the one
   that the job has, if the script still holds that, and else a new one. */
void rs_push_job (lua_State *L, rs_job *job);

/* [-0, +1, m]  Push a handle that has no job yet.  Return the address at which
   the caller stores a job, with a reference.  '*slot' gets the number of the
   handle, which the caller gives to the job as its 'slot' before a worker has
   the job: to write it later would take the cache line away from the worker's
   CPU. */
void **rs_push_empty_job (lua_State *L, rs_face *face, unsigned *slot);

/* [-0, +0, e]  Call the function on top with each handle of a job of 'pool'
   that the script holds, in the order in which the handles were made. */
void rs_visit_jobs (lua_State *L, const rs_pool *pool);

/* [-0, +1, m]  Push a record, whose reference this takes, as a table. */
void rs_push_record (lua_State *L, rs_stream_record *record);

/* [-0, +1, e]  Push 'record', an emitted event whose reference this takes, as
   an event of the job whose handle is at the index 'job'. */
void rs_push_event (lua_State *L, rs_stream_record *record, int job);

/* [-1, +0, m]  Append the record on top to two arrays in the table below it:
   to 'all', and to the array of the record's stream.  Pop the record. */
void rs_add_to_streams (lua_State *L);

/* Bits of a stream that is shown: the stream's own, so that its records queue
   the job, and the host's, so that the Lua part writes them. */
#define RS_STREAM_SHOWN(stream) \
  ((1u << (stream)) | ((unsigned) RS_LISTEN_OWN << (stream)))

/* Streams that are shown by default. */
#define RS_STREAMS_SHOWN \
  (RS_STREAM_SHOWN(RS_STREAM_WARNING) | RS_STREAM_SHOWN(RS_STREAM_ERROR))

/* [-0, +0, e]  Return the RS_LISTEN_ mask for the option 'streams' at 'index',
   which is a table, or nil for RS_STREAMS_SHOWN. */
unsigned rs_check_streams (lua_State *L, int index);

/* [-0, +0, e]  Return the events at which this state hears of its jobs.  They
   are lent, and stay the same while the state lives; a child of fork(2) gets
   its own.  Raise in finalizers that run after the face's own, while the state
   is closed: the events are gone then. */
rs_events *rs_lua_events (lua_State *L);
rs_events *rs_lua_events_of (lua_State *L, rs_face *face);

/* [-0, +0, e]  Wait at the events, at most 'timeout' seconds.  Then raise if
   the job that runs here is to stop, and let a hook run that a signal handler
   has set meanwhile.  Return the status of 'rs_events_wait'. */
int rs_lua_sleep (lua_State *L, rs_events *e, double timeout);

/* [-0, +(0|1), -]  After a wait, let the stop of the job that runs here, or a
   hook that a signal handler has set, raise.  Return LUA_OK, or the status of
   the error, which is on top. */
int rs_lua_try_look (lua_State *L);

/* [-0, +0, -]  Tell whether the job that runs here is to stop. */
bool rs_lua_is_stopping (lua_State *L);

/* [-0, +0, e]  Let a hook run that a signal handler has set; for code that has
   waited otherwise than by 'rs_lua_sleep'. */
void rs_lua_run_hook (lua_State *L);

/* [-0, +0, e]  Hand all jobs that are queued at 'e' to the Lua part.  Return
   the number of calls of handlers. */
lua_Integer rs_lua_dispatch (lua_State *L, rs_events *e);

/* [-0, +(0|1), m]  'rs_lua_dispatch', with the number in '*n'.  Return LUA_OK,
   or the status of an error that no handler may keep, which is on top: an
   interrupt, or the stop of the job that runs here. */
int rs_lua_try_dispatch (lua_State *L, rs_events *e, lua_Integer *n);

/* [-0, +1, e]  Push require(name); the library 'package' is not needed. */
void rs_lua_require (lua_State *L, const char *name);

/* Functions of the C part, for Lua, in this order:
   ([timeout]) -> calls of handlers
   () -> descriptor
   (mask)
   ([timeout], [jobs])
   ([over]) -> boolean
   (jobs, from) -> boolean */
int rs_lua_poll (lua_State *L);
int rs_lua_fileno (lua_State *L);
int rs_lua_listen (lua_State *L);
int rs_lua_wait (lua_State *L);
int rs_lua_interrupted (lua_State *L);
int rs_lua_help (lua_State *L);

/* () -> table of jobs, by id */
int rs_lua_jobs (lua_State *L);

/* () -> array of pools */
int rs_lua_pools (lua_State *L);

/* (options) -> status, output, errors | nil, "timeout", output, errors
   | nil, message */
int rs_lua_execute (lua_State *L);

/* [-0, +1, m]  Push 'parallel.task', by which a job learns of itself, and
   sends. */
void rs_push_task (lua_State *L);

/*
 * [-0, +0, e]  Let runspaces that start from 'is' have the module 'parallel',
 * as a global and by 'require'.
 */
void rs_add_parallel (lua_State *L, rs_initial_state *is);

#endif
