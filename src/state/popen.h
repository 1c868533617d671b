/* SPDX-License-Identifier: MIT */
/*
 * popen.h - 'io.popen' and 'os.execute' that hold up no other thread.
 */
#ifndef RS_POPEN_H
#define RS_POPEN_H

#include <lua.h>

/* [-0, +0, m]  Replace Lua's 'io.popen' and 'os.execute', where the state has
   them: in a runspace both, in a host 'io.popen' only. */
void rs_popen_open (lua_State *L);
void rs_popen_open_host (lua_State *L);

#endif
