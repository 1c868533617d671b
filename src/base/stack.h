/* SPDX-License-Identifier: MIT */
/*
 * stack.h - how much of the C stack is left.
 *
 * Lua counts nested calls of C functions, up to 200, but not those of a
 * coroutine that is closed, nor the bytes that a call takes.  So where ours
 * begin to nest anew, they look at the stack itself: it must have room for
 * what 200 calls can take.
 */
#ifndef RS_STACK_H
#define RS_STACK_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

/* Has the calling thread not much room any more? */
bool rs_stack_low (void);

/* [-0, +0, v]  Raise "C stack overflow" then. */
void rs_stack_check (lua_State *L);

/* The calling thread runs on a stack from 'lowest' on, not on its own; NULL:
   on its own again. */
void rs_stack_set (void *lowest);

#endif
