/* SPDX-License-Identifier: MIT */
/*
 * lexecute.h - programs that a job runs: 'parallel.task.execute'.
 */
#ifndef RS_LEXECUTE_H
#define RS_LEXECUTE_H

#include <lua.h>

/* (options) -> status, output, errors | nil, "timeout", output, errors
   | nil, message */
int rs_lua_execute (lua_State *L);

#endif
