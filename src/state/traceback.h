/* SPDX-License-Identifier: MIT */
/*
 * traceback.h - where a call stands, as a text.
 */
#ifndef RS_TRACEBACK_H
#define RS_TRACEBACK_H

#include <stddef.h>

#include <lua.h>

enum { RS_TRACEBACK = 4000 };  /* bytes of a text, the zero included */

/* Levels 'from' to 'until' - 1 of the stack of a coroutine. */
typedef struct rs_levels {
  lua_State *L;
  int from, until;
} rs_levels;

/* [-0, +0, -]  The number of levels that the stack of 'L' has. */
int rs_traceback_depth (lua_State *L);

/*
 * [-0, +0, -]  Write the levels of 'n' parts of stacks into 'text', the
 * innermost part first, as 'luaL_traceback' does: but without the frames of
 * the module 'parallel', and without those in C that call the outermost
 * function of the script.  Reads only, and takes no memory: a signal handler
 * may call it while no level changes.
 */
void rs_traceback_write (const rs_levels *parts, int n, char *text,
                         size_t size);

#endif
