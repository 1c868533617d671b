/* SPDX-License-Identifier: MIT */
/*
 * rebuild.h - rebuild the values of a message, or tell why they cannot be.
 *
 * Rebuilding values from bytes can need a module that is not there, code that
 * raises, or more memory than there is.  Such a failure ends one value, item
 * or job, and nothing else.
 */
#ifndef RS_REBUILD_H
#define RS_REBUILD_H

#include "runspace.h"

/*
 * [-0, +(n|2), e]  Call 'f' with the light userdata 'ud', and leave all that
 * it returns.  Returns how many values these are.  If 'f' raises, returns -1
 * and leaves two values: a text that says why, and a traceback (a string or
 * nil).  Raises only when a hook has raised in 'f', for an interrupt or
 * because the job is to stop, or when the job that runs in 'L' is to stop.
 */
int rs_rebuild (lua_State *L, lua_CFunction f, void *ud);

/* [-0, +(n|2), e]  Do 'rs_rebuild'.  '*busy' is true while 'f' runs, however
   'f' ends. */
int rs_rebuild_busy (lua_State *L, lua_CFunction f, void *ud, bool *busy);

/* [-0, +(n|2), e]  Rebuild the result of a call of 'function', which this
   state has sent, or of any message when 'function' is NULL; '*n' is how many
   values are left.  False: the two values of a failed 'rs_rebuild' are. */
bool rs_rebuild_result (lua_State *L, const rs_message *result,
                        const rs_message *function, int *n);

/*
 * [-0, +0, -]  Complete the text of a failed 'rs_rebuild' at the index 'text':
 * put in front of it that 'what' ("the result") cannot be rebuilt, and behind
 * it the string at the index 'was', the text that the sender made of the value
 * (0, or no string: nothing is put behind).
 */
void rs_rebuild_tell (lua_State *L, int text, const char *what, int was);

#endif
