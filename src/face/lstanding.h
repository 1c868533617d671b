/* SPDX-License-Identifier: MIT */
/*
 * lstanding.h - standing calls as Lua sees them.
 */
#ifndef RS_LSTANDING_H
#define RS_LSTANDING_H

#include <lua.h>

/* [-0, +1, m]  Make the type of standing calls; push its table of methods. */
void rs_open_standing_type (lua_State *L);

/* (pool, options, function or source, ...) -> standing call, array of jobs
   A function of the C part, for Lua.  A call is for '<close>': it is withdrawn
   at the end, and an error stops its jobs, unless 'keep' was called. */
int rs_lua_everywhere (lua_State *L);

#endif
