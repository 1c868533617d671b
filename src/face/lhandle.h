/* SPDX-License-Identifier: MIT */
/*
 * lhandle.h - userdata that hold a reference to an object of the library.
 *
 * A handle is a userdata that begins with the pointer, NULL when it is closed;
 * what it is says the address behind that, which no other library's userdata
 * has: to look there takes a tenth of the time that the metatable does.  What
 * the Lua part adds to 'methods' tables is found by every handle of the type.
 */
#ifndef RS_LHANDLE_H
#define RS_LHANDLE_H

#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>

#include "face/lplace.h"
#include "runspace.h"

/* Their names; the metatable of a type is in the registry by its name, and by
   the address of that, where it is found in a fifth of the time. */
extern const char rs_type_pool[], rs_type_job[], rs_type_batch[],
                  rs_type_initial_state[];

#define RS_POOL_TYPE rs_type_pool
#define RS_JOB_TYPE rs_type_job
#define RS_BATCH_TYPE rs_type_batch
#define RS_INITIAL_STATE_TYPE rs_type_initial_state

typedef struct rs_handle {
  void *object;
  const char *type;
  unsigned place;         /* of a job: in 'places'; 0: none yet */
  unsigned born : 29;     /* what 'rs_forks' was; constant */
  bool got : 1;           /* of a job: its results were taken */
  bool kept : 1;          /* of a job: they were made, and nobody has taken
                             them: they are in the registry, by its address */
  bool special : 1;       /* of a pool: it has limits, or streams of its own */
  const rs_job *near;     /* of a job: what will be looked at next but one, to
                             be prefetched only, since it may be gone: the one
                             that was submitted after it; or, when its results
                             were taken, whose were before: handles are
                             collected in that order */
} rs_handle;

/* What the module keeps for a Lua state. */
typedef struct rs_face {
  rs_events *events;      /* where it hears of its jobs; a reference */
  unsigned born;          /* what 'rs_forks' was when these were made */
  unsigned listening;     /* to all jobs that report there; RS_LISTEN_ */
  rs_outbox *outbox;      /* of this state; lent */
  int job_type;           /* registry: the metatable of handles of jobs */
  rs_places places;       /* of handles of jobs */
  unsigned open;          /* of these, whose results nobody has taken */
  unsigned filled;        /* handles that were given a job so far */
  unsigned left;          /* handles when the collector had been through, or
                             fewer since */
  unsigned dispatching;   /* dispatches that run, each in a handler of one */
  bool interrupted;       /* by the program, while a job is handed out */
  rs_handle *last;        /* of the job that was submitted last, if alive */
  rs_handle *before;      /* of the one before it */
  const rs_job *got, *got_before;  /* whose results were taken last; may be
                                      gone */
} rs_face;

/* [-0, +0, m]  That of 'L', the same as long as the state lives. */
rs_face *rs_lua_face (lua_State *L);

/* The same in a method of a handle, whose first upvalue it is. */
static inline rs_face *
rs_lua_own_face (lua_State *L)
{
  return lua_touserdata(L, lua_upvalueindex(1));
}

/* As much of 'n' as a 'size_t' can be, which may have fewer bits. */
static inline size_t
rs_clip_size (uint64_t n)
{
  return n < SIZE_MAX ? (size_t) n : SIZE_MAX;
}

/* 'born' of a handle that is made now. */
static inline unsigned
rs_handle_born (void)
{
  return rs_forks() & 0x1fffffff;
}

/* What it is a handle of belongs to another process: fork(2). */
static inline bool
rs_handle_foreign (const rs_handle *handle)
{
  return handle->born != rs_handle_born();
}

/*
 * [-0, +1, m]  Push a new, empty handle of 'type' with so many user values;
 * store the pointer through the result.
 */
void **rs_handle_new (lua_State *L, const char *type, int values);

/* [-0, +0, -]  Where the pointer is in the handle at 'index'; NULL for what is
   no handle of the type. */
void **rs_handle_test (lua_State *L, int index, const char *type);

/* [-0, +0, v]  The pointer in the handle at argument 'arg', NULL if closed;
   raises when what it was made for belongs to another process. */
void *rs_handle_get (lua_State *L, int arg, const char *type);

/* [-0, +0, v]  The same; raises "<type> is closed" for NULL. */
void *rs_handle_check (lua_State *L, int arg, const char *type);

/*
 * [-0, +1, m]  Make the metatable of 'type' from 'meta', and its table of
 * methods from 'methods', which is pushed.  Without an '__index' in 'meta'
 * the methods are the '__index'.  It is a new one each time: what ended for
 * want of memory is begun again.
 */
void rs_handle_type (lua_State *L, const char *type, const luaL_Reg *meta,
                     const luaL_Reg *methods);

/*
 * [-0, +1, m]  Push the metatable named 'type', made from 'meta' when it is
 * first asked for.  It is found when it is whole: 'luaL_newmetatable' notes
 * one that is empty, which stays so when there is no memory for the rest.
 */
void rs_push_type (lua_State *L, const char *type, const luaL_Reg *meta);

/* [-n, +r, e]  Call the function 'name' in the table 'field' of a file of the
   Lua part with all that is on the stack; how many results are there. */
int rs_handle_call (lua_State *L, const char *file, const char *field,
                    const char *name);

/*
 * [-0, +0, v]  Raise a message, behind the position of the code that called
 * into the module, however deep in its Lua part that happened.
 */
int rs_handle_error (lua_State *L, const char *format, ...);

/* [-0, +0, v]  The same, with the position only where 'error' with a level
   would tell it: not through 'pcall(method, ...)'. */
int rs_handle_error_near (lua_State *L, const char *text);

/* [-0, +0, v]  The same with the text of 'err'. */
int rs_handle_raise (lua_State *L, const rs_error *err);

/* [-0, +1, m]  A text as 'rs_escape' has it. */
const char *rs_handle_escape (lua_State *L, const char *text);

/* [-0, +1, m]  The same in a message: short. */
const char *rs_handle_clean (lua_State *L, const char *text, size_t size);

/* [-0, +?, m]  A value in a few words, on one line: "nil", "'abc'", "a table".
   What it needs stays on the stack. */
const char *rs_handle_describe (lua_State *L, int arg);

/*
 * [-0, +0, v]  Raise unless there are at most so many arguments, nils beyond
 * them left aside.  'own' is 1 for a method, whose object is not counted;
 * 'usage' tells how the function is written: "job:wait([timeout])".
 */
void rs_handle_most (lua_State *L, int most, int own, const char *usage);

/*
 * [-0, +0, v]  A time in seconds at argument 'arg': a number that is not
 * negative; none, nil and infinity mean RS_FOREVER.  'verb' is who asks.
 */
double rs_handle_timeout (lua_State *L, int arg, const char *verb);

/* The types; each pushes its table of methods.  [-0, +1, m] */
void rs_open_pool_type (lua_State *L);
void rs_open_job_type (lua_State *L);
void rs_open_batch_type (lua_State *L);
void rs_open_initial_state_type (lua_State *L);

/* (options) -> pool;  () -> pool;  (spec) -> initial state;
   (pool, function, options, ...) -> batch */
int rs_lua_pool (lua_State *L);
int rs_lua_default_pool (lua_State *L);

/* (function or source, ...) -> job; -> results: as methods of the default
   pool.  Their upvalue is that of a method. */
int rs_lua_spawn (lua_State *L);
int rs_lua_run (lua_State *L);

/* () -> guard, (jobs) -> guard: what ends a job that is waited for, and
   several of them */
int rs_lua_run_guard (lua_State *L);
int rs_lua_wait_guard (lua_State *L);

int rs_lua_initial_state (lua_State *L);
int rs_lua_batch (lua_State *L);

/* [-0, +0, e]  Wait for the job, of which somebody holds a reference.  False:
   the time is over. */
bool rs_await_job (lua_State *L, rs_events *e, rs_job *job, double timeout);

/* [-0, +1, m]  Push the handle for 'job', whose reference it takes; the same
   one while somebody holds it. */
void rs_push_job (lua_State *L, rs_job *job);

/* [-0, +1, m]  Push an empty handle; its place, for 'rs_job_slot', which is
   told before a worker has the job: afterwards it would take the memory away
   from it.  [-0, +0, m] fill the one on top; [-1, +0, -] it is not needed. */
unsigned rs_push_empty_job (lua_State *L, rs_face *face);
void rs_fill_job (lua_State *L, rs_face *face, rs_job *job);
void rs_pop_empty_job (lua_State *L, rs_face *face);

/* [-0, +0, e]  Call the function on top with each handle of a job of 'pool'
   that somebody holds; of all with NULL. */
void rs_visit_jobs (lua_State *L, const rs_pool *pool);

/* [-0, +1, m]  Push a record, whose reference it takes, as a table. */
void rs_push_record (lua_State *L, rs_stream_record *record);

/* [-0, +1, e]  Push what was emitted, a reference that it takes, as an event
   of the job at 'job'. */
void rs_push_event (lua_State *L, rs_stream_record *record, int job);

/* [-1, +0, m]  Append the record on top to the streams in the table below
   it: to 'all' and to the array of its stream. */
void rs_add_to_streams (lua_State *L);

/* A stream that is shown: whose records are queued, and then written. */
#define RS_STREAM_SHOWN(stream) \
  ((1u << (stream)) | ((unsigned) RS_LISTEN_OWN << (stream)))

/* Those that are unless told otherwise. */
#define RS_STREAMS_SHOWN \
  (RS_STREAM_SHOWN(RS_STREAM_WARNING) | RS_STREAM_SHOWN(RS_STREAM_ERROR))

/* [-0, +0, e]  A mask of RS_LISTEN_ for the option 'streams' at 'index': a
   table, or nil: RS_STREAMS_SHOWN. */
unsigned rs_check_streams (lua_State *L, int index);

/* [-0, +0, e]  Where this state hears of its jobs; lent, and the same as long
   as the state lives, but for a child of fork(2), which has its own.  While it
   is closed, in finalizers, there is nothing any more, and this raises. */
rs_events *rs_lua_events (lua_State *L);
rs_events *rs_lua_events_of (lua_State *L, rs_face *face);

/* [-0, +0, e]  Wait there.  A hook that a signal handler has set meanwhile
   runs before this returns; and in a job that is to stop it raises. */
int rs_lua_sleep (lua_State *L, rs_events *e, double timeout);

/* [-0, +(0|1), -]  What follows a wait: a job that is to stop, and a hook that
   a signal handler has set, raise.  LUA_OK; or the error is on top. */
int rs_lua_try_look (lua_State *L);

/* [-0, +0, -]  Is the job that runs here to stop? */
bool rs_lua_is_stopping (lua_State *L);

/* [-0, +0, e]  The last part of it, for who has waited otherwise. */
void rs_lua_run_hook (lua_State *L);

/* [-0, +0, e]  Hand what is queued there to the Lua part.  How much. */
lua_Integer rs_lua_dispatch (lua_State *L, rs_events *e);

/* [-0, +(0|1), m]  The same.  LUA_OK; or what a handler could not keep is on
   top: an interrupt, or the end of the job. */
int rs_lua_try_dispatch (lua_State *L, rs_events *e, lua_Integer *n);

/* [-0, +1, e]  require(name), also without the library 'package'. */
void rs_lua_require (lua_State *L, const char *name);

/* (timeout) -> count;  () -> descriptor;  (mask);  (timeout);
   () -> boolean;  (jobs, from) -> boolean */
int rs_lua_poll (lua_State *L);
int rs_lua_fileno (lua_State *L);
int rs_lua_listen (lua_State *L);
int rs_lua_wait (lua_State *L);
int rs_lua_interrupted (lua_State *L);
int rs_lua_help (lua_State *L);

/* () -> array of jobs */
int rs_lua_jobs (lua_State *L);

/* () -> array of pools */
int rs_lua_pools (lua_State *L);

/* (options) -> status, output, errors | nil, message, ... */
int rs_lua_execute (lua_State *L);

/* [-0, +1, m]  Push 'parallel.task': what a job can know of itself. */
void rs_push_task (lua_State *L);

/*
 * [-0, +0, e]  Let runspaces of 'is' have the module 'parallel', as a global
 * and by 'require'.
 */
void rs_add_parallel (lua_State *L, rs_initial_state *is);

#endif
