/* SPDX-License-Identifier: MIT */
/*
 * lhandle.h - userdata that hold a reference to an object of the library.
 *
 * A handle is a pointer in a userdata; NULL when it is closed.  What the
 * Lua part adds to 'methods' tables is found by every handle of the type.
 */
#ifndef RS_LHANDLE_H
#define RS_LHANDLE_H

#include <lua.h>
#include <lauxlib.h>

#include "runspace.h"

#define RS_POOL_TYPE "parallel.pool"
#define RS_JOB_TYPE "parallel.job"
#define RS_BATCH_TYPE "parallel.batch"
#define RS_INITIAL_STATE_TYPE "parallel.initial_state"

/*
 * [-0, +1, m]  Push a new, empty handle of 'type'; store the pointer through
 * the result.
 */
void **rs_handle_new (lua_State *L, const char *type);

/* [-0, +0, v]  The pointer in the handle at argument 'arg', NULL if closed. */
void *rs_handle_get (lua_State *L, int arg, const char *type);

/* [-0, +0, v]  The same; raises "<type> is closed" for NULL. */
void *rs_handle_check (lua_State *L, int arg, const char *type);

/*
 * [-0, +1, m]  Make the metatable of 'type' from 'meta', and its table of
 * methods from 'methods', which is pushed.  Without an '__index' in 'meta'
 * the methods are the '__index'.
 */
void rs_handle_type (lua_State *L, const char *type, const luaL_Reg *meta,
                     const luaL_Reg *methods);

/* [-0, +1, e]  Push the method at index 2 of the handle at 1, or nil. */
int rs_handle_method (lua_State *L, const char *type);

/*
 * [-0, +0, v]  Raise a message, behind the position of the code that called
 * into the module, however deep in its Lua part that happened.
 */
int rs_handle_error (lua_State *L, const char *format, ...);

/* [-0, +0, v]  The same with the text of 'err'. */
int rs_handle_raise (lua_State *L, const rs_error *err);

/*
 * [-0, +0, v]  A time in seconds at argument 'arg': a number that is not
 * negative; none, nil and infinity mean RS_FOREVER.
 */
double rs_handle_timeout (lua_State *L, int arg);

/* The types; each pushes its table of methods.  [-0, +1, m] */
void rs_open_pool_type (lua_State *L);
void rs_open_job_type (lua_State *L);
void rs_open_batch_type (lua_State *L);
void rs_open_initial_state_type (lua_State *L);

/* (options) -> pool;  () -> pool;  (spec) -> initial state;
   (pool, function, options, ...) -> batch */
int rs_lua_pool (lua_State *L);
int rs_lua_default_pool (lua_State *L);
int rs_lua_initial_state (lua_State *L);
int rs_lua_batch (lua_State *L);

/* [-0, +1, m]  Push a handle for 'job', whose reference it takes. */
void rs_push_job (lua_State *L, rs_job *job);

/* [-0, +1, m]  Push 'parallel.task': what a job can know of itself. */
void rs_push_task (lua_State *L);

/*
 * [-0, +0, e]  Let runspaces of 'is' have the module 'parallel', as a global
 * and by 'require'.
 */
void rs_add_parallel (lua_State *L, rs_initial_state *is);

#endif
