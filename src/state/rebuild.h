/* SPDX-License-Identifier: MIT */
/*
 * rebuild.h - what came back becomes values; or a text that says why not.
 *
 * To make values of bytes can take a module that is not here, code that
 * raises, more memory than there is.  That is the end of one value, item or
 * job, and of nothing else.
 */
#ifndef RS_REBUILD_H
#define RS_REBUILD_H

#include "runspace.h"

/*
 * [-0, +(n|2), e]  Call 'f' with 'ud', and leave all that it returns; how many
 * values these are.  If it raises, -1: a text that says why, and a traceback,
 * a string or nil, are there instead.  Raises only when the job that runs in
 * 'L' is to stop.
 */
int rs_rebuild (lua_State *L, lua_CFunction f, void *ud);

/* [-0, +(n|2), e]  'rs_decode_try' of the result of a call of 'function',
   which this state has sent. */
bool rs_rebuild_result (lua_State *L, const rs_message *result,
                        const rs_message *function, int *n);

/*
 * [-0, +0, -]  Put in front of such a text, at the index 'text', what it is
 * that is not there; and behind it the text at 'was' (0: none), if that is
 * one, which it had of itself.
 */
void rs_rebuild_tell (lua_State *L, int text, const char *what, int was);

#endif
