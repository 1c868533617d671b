/* SPDX-License-Identifier: MIT */
/*
 * defer.h - calls that are whole, whatever a hook raises around them.
 *
 * A hook runs when a function is called and when it returns, also for our own
 * C functions.  An interrupt, or the stop of a job, that comes while such a
 * function works is raised by the hook at the function's return, in the
 * protected call that was only there for want of memory.
 *
 * An interrupt, or a stop, that comes while code of a script runs inside of
 * one of our functions ends that function.  It must not be taken for a failure
 * of that code.  Wherever such a failure becomes a text, the error is
 * therefore raised again, or put off, as it is.
 */
#ifndef RS_DEFER_H
#define RS_DEFER_H

#include <stdbool.h>

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

/* ----------------------------------------- code of a script inside of ours */

/* Note that an interrupt, or the stop of a job, is about to be raised on the
   calling thread; how often that was noted. */
void rs_defer_note (void);
unsigned rs_defer_noted (void);

/* [-(n+1), +(results|1), -]  'lua_pcall' of code of a script, with 'n'
   arguments.  '*stopped' tells whether the call failed and an interrupt or a
   stop was raised meanwhile, or the error was raised by a hook. */
int rs_defer_pcall (lua_State *L, int n, int results, bool *stopped);

/* [-1, +0, -]  Put off the error on top: the next thing that 'L' does raises
   it, as it is, in a hook. */
void rs_defer_put_off (lua_State *L);

/* [-0, +0, v]  Raise the error that was put off in 'L', if there is one. */
void rs_defer_flush (lua_State *L);

/* [-1, +0, v]  Raise the error on top as it is, in a hook. */
_Noreturn void rs_defer_raise (lua_State *L);

#endif
