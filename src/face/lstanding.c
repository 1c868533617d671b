/* SPDX-License-Identifier: MIT */
/*
 * lstanding.c - standing calls as Lua sees them.
 *
 * The Lua part waits for the jobs.  What becomes of the call is decided when
 * all of them have ended: so an error on the way leaves nothing behind.
 */
#include "face/lstanding.h"

#include <lauxlib.h>

#include "base/options.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lhandle.h"
#include "face/loptions.h"
#include "face/lstream.h"

/* Type of a standing call. */
static const char type[] = "parallel.standing";

int
rs_lua_everywhere (lua_State *L)
{
  enum { POOL = 1, OPTIONS, WORDS, CALL = WORDS + 2, FUNCTION };
  rs_pool *const pool = rs_handle_check(L, POOL, RS_POOL_TYPE);
  rs_face *const face = rs_lua_face(L);
  rs_job_options o = { .events = rs_lua_events_of(L, face) };
  rs_error err;
  rs_standing *call;
  luaL_checktype(L, OPTIONS, LUA_TTABLE);
  rs_read_options(L, OPTIONS, rs_call_limits, &o);
  lua_getfield(L, OPTIONS, "streams");
  o.listen = rs_check_streams(L, lua_gettop(L));
  lua_getfield(L, OPTIONS, "name");
  o.name = luaL_optstring(L, -1, NULL);  /* the options anchor it */
  lua_getfield(L, OPTIONS, "each_host");
  const int each = lua_toboolean(L, -1) ? RS_EACH_HOST : RS_EACH_RUNSPACE;
  lua_pop(L, 3);
  o.globals = rs_read_globals(L, OPTIONS);
  lua_rotate(L, WORDS, 2);
  void **const handle = rs_handle_new(L, type, 0);
  lua_insert(L, CALL);
  if (face->warns)  /* to assign globals is what such calls are for */
    rs_warn_lost(L, FUNCTION, false);
  if (rs_pool_everywhere(pool, L, lua_gettop(L) - FUNCTION, each, &o, &call,
                         &err) != RS_OK)
    return rs_handle_raise(L, &err);
  *handle = call;
  lua_newtable(L);
  rs_job *job;
  for (size_t i = 0; (job = rs_standing_job(call, i)) != NULL; i++) {
    rs_push_job(L, rs_job_ref(job));
    lua_rawseti(L, -2, (lua_Integer) i + 1);
  }
  return 2;
}

/* call:keep()  The call stands from here on, until its pool is closed. */
static int
keep (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, type);
  if (handle != NULL) {
    rs_standing_close(*handle);
    *handle = NULL;
  }
  return 0;
}

/* (call, error)  __close: withdraw a call that is not kept, and stop its jobs
   if there was an error. */
static int
leave (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, type);
  if (handle == NULL || *handle == NULL)
    return 0;
  rs_standing *const call = *handle;
  rs_job *job;
  *handle = NULL;
  rs_standing_withdraw(call);
  if (!lua_isnil(L, 2))
    for (size_t i = 0; (job = rs_standing_job(call, i)) != NULL; i++)
      rs_job_cancel(job, -1);
  rs_standing_close(call);
  return 0;
}

/* (call)  __gc of a call whose '__close' was not called. */
static int
collect (lua_State *L)
{
  lua_settop(L, 1);
  lua_pushboolean(L, 1);
  return leave(L);
}

void
rs_open_standing_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__close", leave },
    { "__gc", collect },  /* a forced end may skip '__close' */
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = { { "keep", keep }, { NULL, NULL } };
  rs_handle_type(L, type, rs_lua_face(L), meta, methods);
}
