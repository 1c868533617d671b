/* SPDX-License-Identifier: MIT */
/*
 * lfinish.h - the end of what a state has started.
 */
#ifndef RS_LFINISH_H
#define RS_LFINISH_H

#include <stdbool.h>

#include <lua.h>

#include "runspace.h"

/* [-0, +0, -]  Take over the reference to a pool whose handle is gone, until
   the jobs of the pool have ended.  False, and the caller keeps the reference:
   the pool has none, the state is being closed or is a runspace, whose jobs
   end with what they started, or there is no memory. */
bool rs_finish_keep (lua_State *L, rs_pool *pool);

/* [-0, +0, m]  Note that the state opens a pool, and drop those pools that
   were kept and whose jobs have ended. */
void rs_finish_look (lua_State *L);

/* Functions of the C part, for Lua:
   core.left() -> jobs that are queued, and that run, in such pools
   core.count_unseen()  A failure was told that nobody had looked at. */
int rs_lua_left (lua_State *L);
int rs_lua_count_unseen (lua_State *L);

#endif
