/* SPDX-License-Identifier: MIT */
/*
 * ljob.h - jobs as Lua sees them.
 */
#ifndef RS_LJOB_H
#define RS_LJOB_H

#include <lua.h>

#include "runspace.h"

/* [-0, +1, m]  Make the type of jobs; push its table of methods. */
void rs_open_job_type (lua_State *L);

/* [-0, +0, e]  Wait for 'job', at most 'timeout' seconds; the caller holds a
   reference to it.  Return false when the time is over. */
bool rs_await_job (lua_State *L, rs_events *e, rs_job *job, double timeout);

/* Functions of the C part, for Lua.  The guard, for '<close>', stops the jobs
   of an array when the job that waits for them is stopped.
   () -> table of jobs, by id
   (jobs) -> guard */
int rs_lua_jobs (lua_State *L);
int rs_lua_unseen (lua_State *L);
int rs_lua_wait_guard (lua_State *L);

#endif
