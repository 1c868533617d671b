/* SPDX-License-Identifier: MIT */
/*
 * level.h - Lua's stack: where the code of a script begins, and its room.
 */
#ifndef RS_LEVEL_H
#define RS_LEVEL_H

#include <stdbool.h>

#include <lua.h>

/* [-0, +0, -]  Is this a function of the module 'parallel', by the 'source'
   that 'lua_getinfo' has filled? */
bool rs_level_is_ours (const lua_Debug *ar);

/*
 * [-0, +0, -]  For a message handler: the level at which a traceback begins.
 * That is 'level', or, when the error was raised by the module 'parallel', the
 * level of the code that called into it.  'message' is the error, if it is a
 * text: one whose position is in the module itself keeps all levels.
 */
int rs_level_user (lua_State *L, int level, const char *message);

/*
 * [-0, +0, v]  'luaL_checkstack', which calls it a stack overflow as well when
 * there is no memory for more slots: this raises "not enough memory" then.
 */
void rs_level_room (lua_State *L, int slots, const char *message);

#endif
