/* SPDX-License-Identifier: MIT */
/*
 * level.h - Lua's stack: the level where the code of a script begins, and room
 * for more slots.
 */
#ifndef RS_LEVEL_H
#define RS_LEVEL_H

#include <stdbool.h>

#include <lua.h>

/* [-0, +0, -]  True when the function of 'ar' belongs to the module
   'parallel', by the 'source' that 'lua_getinfo' has filled. */
bool rs_level_is_ours (const lua_Debug *ar);

/*
 * [-0, +0, -]  The level at which a message handler begins its traceback:
 * 'level', or, when the module 'parallel' has raised the error, the level of
 * the code that called into the module.  'message' is the error, if it is a
 * text, or NULL.  A text with a position inside the module is an error of the
 * module itself, and keeps all levels.
 */
int rs_level_user (lua_State *L, int level, const char *message);

/*
 * [-0, +1, m]  Push 'message', unless that is NULL, and a traceback from
 * 'level' on, as 'luaL_traceback' makes it.  Frames of the module 'parallel'
 * are left out, and those of the functions in C by which it is called and
 * calls, unless 'message' is an error of the module itself.  With 'bare' the
 * frame at the bottom is left out, too, if it is that of the C program; what
 * is pushed is "" if no frame is left then.
 */
void rs_level_traceback (lua_State *L, const char *message, int level,
                         bool bare);

/* [-0, +0, v]  Raise, since there is no room for 'slots' more slots: a stack
   overflow, or "not enough memory". */
void rs_level_full (lua_State *L, int slots, const char *message);

/*
 * [-0, +0, v]  Make room for 'slots' more slots, as 'luaL_checkstack' does.
 * 'luaL_checkstack' reports a stack overflow also when there is no memory for
 * more slots; 'rs_level_room' raises "not enough memory" then.
 */
static inline void
rs_level_room (lua_State *L, int slots, const char *message)
{
  if (!lua_checkstack(L, slots))
    rs_level_full(L, slots, message);
}

#endif
