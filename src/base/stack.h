/* SPDX-License-Identifier: MIT */
/*
 * stack.h - how much of the C stack is left.
 *
 * Lua counts nested calls of C functions, up to 200, but not those of a
 * coroutine that is closed, nor the bytes that a call takes.  So a function of
 * ours that begins a new nesting looks at the stack itself, which must have
 * room for what 200 calls can take; five eighths must be left of a stack that
 * is too small for that.
 */
#ifndef RS_STACK_H
#define RS_STACK_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

/* True when the calling thread has not much room on its stack any more. */
bool rs_stack_low (void);

/* [-0, +0, v]  Raise "C stack overflow" when 'rs_stack_low' is true. */
void rs_stack_check (lua_State *L);

/* Tell that the calling thread runs on another stack, whose lowest address is
   'lowest'; NULL: on its own again. */
void rs_stack_set (void *lowest);

#endif
