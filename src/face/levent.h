/* SPDX-License-Identifier: MIT */
/*
 * levent.h - waits at the events of a Lua state, and handlers.
 */
#ifndef RS_LEVENT_H
#define RS_LEVENT_H

#include <lua.h>

#include "runspace.h"

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

/* [-0, +0, e]  Hand all jobs that are queued at 'e' to the Lua part.  Return
   the number of calls of handlers. */
lua_Integer rs_lua_dispatch (lua_State *L, rs_events *e);

/* [-0, +(0|1), m]  'rs_lua_dispatch', with the number in '*n'.  Return LUA_OK,
   or the status of an error that no handler may keep, which is on top: an
   interrupt, or the stop of the job that runs here. */
int rs_lua_try_dispatch (lua_State *L, rs_events *e, lua_Integer *n);

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

#endif
