/* SPDX-License-Identifier: MIT */
/*
 * defer.h - calls that are whole, whatever a hook raises around them.
 *
 * A hook runs when a function is called and when it returns, also for our own
 * C functions.  An interrupt, or the stop of a job, that comes while such a
 * function works is raised by the hook at the function's return, in the
 * protected call that was only there for want of memory.
 */
#ifndef RS_DEFER_H
#define RS_DEFER_H

#include <lua.h>

/* How far a function has come: set by the function itself. */
typedef enum rs_progress { RS_NOT_BEGUN, RS_BEGUN, RS_DONE } rs_progress;

/*
 * [-0, +(0|1), -]  'lua_pcall' of the C function 'f' with the light userdata
 * 'ud' and, if 'index' is not 0, the value there; without results.  'f' sets
 * '*progress' first to RS_BEGUN and last to RS_DONE.  If a hook raises before
 * or after that, 'f' runs all the same, the status is LUA_OK, and the error is
 * raised, as it is, by the next thing that 'L' does: a call, a return or an
 * instruction.  Any other error is left on the stack.
 */
int rs_defer_call (lua_State *L, lua_CFunction f, void *ud, int index,
                   const rs_progress *progress);

#endif
