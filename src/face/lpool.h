/* SPDX-License-Identifier: MIT */
/*
 * lpool.h - pools and initial states as Lua sees them.
 */
#ifndef RS_LPOOL_H
#define RS_LPOOL_H

#include <lua.h>

/* [-0, +1, m]  Make the type; push its table of methods. */
void rs_open_pool_type (lua_State *L);
void rs_open_initial_state_type (lua_State *L);

/* Functions of the C part, for Lua, in this order.  The guard, for '<close>',
   holds one job, which 'pool:start' puts in, and stops it when any error ends
   the wait for it.
   (spec) -> initial state
   (options) -> pool
   () -> default pool
   () -> array of pools
   () -> guard */
int rs_lua_initial_state (lua_State *L);
int rs_lua_pool (lua_State *L);
int rs_lua_default_pool (lua_State *L);
int rs_lua_pools (lua_State *L);
int rs_lua_run_guard (lua_State *L);
int rs_lua_serial (lua_State *L);
int rs_lua_adapts (lua_State *L);

/* Methods of the default pool, called without it; their first upvalue is the
   face, as that of a method:
   (function or source, ...) -> job
   (function or source, ...) -> results... */
int rs_lua_spawn (lua_State *L);
int rs_lua_run (lua_State *L);

#endif
