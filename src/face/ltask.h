/* SPDX-License-Identifier: MIT */
/*
 * ltask.h - 'parallel.task'.
 */
#ifndef RS_LTASK_H
#define RS_LTASK_H

#include <lua.h>

/* [-0, +1, m]  Push 'parallel.task', by which a job learns of itself, and
   sends. */
void rs_push_task (lua_State *L);

#endif
