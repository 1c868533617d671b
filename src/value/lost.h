/* SPDX-License-Identifier: MIT */
/*
 * lost.h - assignments of a function that are lost when it runs as a job.
 *
 * A job has copies of the upvalues of its function, and of the globals that it
 * reads.  What the function assigns to them, or to the inside of them, nobody
 * sees, unless it returns something.
 */
#ifndef RS_LOST_H
#define RS_LOST_H

#include <stdbool.h>

#include <lua.h>

/* What is assigned to. */
typedef struct rs_lost {
  int line;         /* of the assignment; 0: unknown */
  bool global;      /* a global, not an upvalue */
  bool inside;      /* a field of the value, or of one in it */
  char name[64];    /* cut, if need be; "" for an upvalue without a name */
} rs_lost;

/*
 * [-0, +0, m]  Find the first such assignment of the function at 'index', or
 * of a function inside of it.  False if there is none, if the function returns
 * values or is none in Lua, or if the bytecode of this Lua is not known.  An
 * assignment to a global counts with 'globals', and if the global is there.
 * Needs no code of a script.
 */
bool rs_lost_find (lua_State *L, int index, bool globals, rs_lost *found);

#endif
