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

#endif
