/* SPDX-License-Identifier: MIT */
/*
 * lface.h - what the module has in one Lua state: its face.
 *
 * The face has the events at which the state hears of its jobs, and knows the
 * handles of the jobs that the script holds.
 */
#ifndef RS_LFACE_H
#define RS_LFACE_H

#include <lua.h>

#include "pool/face.h"
#include "runspace.h"

typedef struct rs_face {
  const void *proof;      /* an address that no other userdata has here */
  rs_events *events;      /* queue of the state's jobs; a reference */
  unsigned born;          /* 'rs_forks' when 'events' was made */
  unsigned listening;     /* RS_LISTEN_: asked of all jobs of the state */
  rs_outbox *outbox;      /* the state's own; lent */
  unsigned handles;       /* number of the handle of a job made last */
  unsigned dispatching;   /* dispatches in progress; an inner one runs in a
                             handler that an outer one has called */
  bool interrupted;       /* the program has interrupted a handler */
  bool opened;            /* the state has opened a pool */
  bool warns;             /* functions are looked at when they are submitted:
                             'rs_warn_lost' */
  rs_pool **pools;        /* whose handles are gone while their jobs are not
                             over; references */
  unsigned left;          /* number of 'pools' */
  lua_CFunction open;     /* opens the module in a runspace; NULL while this
                             state has no C part of the module */
} rs_face;

/* [-0, +0, m]  Return the face of 'L', made at the first call; its address
   stays while the state lives. */
rs_face *rs_lua_face (lua_State *L);

/* [-0, +0, e]  Return the face in a method of a handle: it is the first
   upvalue, unless a script has changed that. */
static inline rs_face *
rs_lua_own_face (lua_State *L)
{
  rs_face *const face = lua_touserdata(L, lua_upvalueindex(1));
  return face != NULL ? face : rs_lua_face(L);
}

/* [-0, +0, e]  Return the events at which this state hears of its jobs.  They
   are lent, and stay the same while the state lives; a child of fork(2) gets
   its own.  Raise in finalizers that run after the face's own, while the state
   is closed: the events are gone then. */
rs_events *rs_lua_events (lua_State *L);
rs_events *rs_lua_events_of (lua_State *L, rs_face *face);

/* [-0, +0, e]  Let a hook run that was set meanwhile: by a signal handler, or
   by C code that has put off an error (base/defer.h).  For C functions, before
   and after they wait. */
void rs_lua_run_hook (lua_State *L);

/* ----------------------------------------------------- handles of the jobs */

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
   that the script holds; with each handle of a job if 'pool' is NULL.  The
   order is that in which the handles were made. */
void rs_visit_jobs (lua_State *L, const rs_pool *pool);

/* ------------------------------------------------------------ the Lua part */

/* [-0, +1, e]  Push require(name); the library 'package' is not needed. */
void rs_lua_require (lua_State *L, const char *name);

/* [-n, +r, e]  Call the function 'name' in the table 'field' of the file
   'file' of the Lua part with all values on the stack.  Return the number of
   its results, which are then all that is on the stack. */
int rs_lua_call (lua_State *L, const char *file, const char *field,
                 const char *name);

#endif
