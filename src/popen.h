/* SPDX-License-Identifier: MIT */
/*
 * popen.h - 'io.popen' and 'os.execute' that hold up nobody else.
 */
#ifndef RS_POPEN_H
#define RS_POPEN_H

#include <lua.h>

/* [-0, +0, m]  Put ours in the place of Lua's, where those are: in a runspace,
   and in a host, which keeps its 'os.execute'. */
void rs_popen_open (lua_State *L);
void rs_popen_open_host (lua_State *L);

/* In a child of fork(2): the streams of the parent's jobs are not its own. */
void rs_popen_begin_child (void);

#endif
