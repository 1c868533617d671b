/* SPDX-License-Identifier: MIT */
/*
 * code.h - functions and sources as messages.
 *
 * The same function is often sent many times, one job after the other.  A
 * function that has no upvalue but its environment is the same each time, so
 * its message is kept for as long as the function lives, and a few others
 * were not sent since; a runspace keeps what it has loaded from it.
 */
#ifndef RS_CODE_H
#define RS_CODE_H

#include <lua.h>

#include "marshal.h"
#include "runspace.h"

/*
 * [-(nargs+1), +0, -]  Encode the function, or source, below 'nargs' values
 * on top of the stack; with 'arguments' the values become a message of their
 * own, otherwise they follow the function in its message.
 * RS_OK, RS_EINVAL, RS_EREFUSED, RS_ENOMEM.
 */
int rs_code_encode (lua_State *L, int nargs, rs_message **function,
                    rs_message **arguments, rs_error *err);

#endif
