/* SPDX-License-Identifier: MIT */
/*
 * code.h - functions and sources as messages.
 *
 * The same function is often sent many times, one job after the other.  A
 * function that has no upvalue but its environment is the same each time, so
 * its message is kept, and with it the function, until a few others were
 * sent; a runspace keeps what it has loaded from it.
 */
#ifndef RS_CODE_H
#define RS_CODE_H

#include <lua.h>

#include "value/marshal.h"
#include "runspace.h"
#include "value/outbox.h"

/*
 * [-0, +0, -]  Encode the function, or source, at 'index'.  What is
 * 'forbidden' (RS_MESSAGE_) is refused, here and below.  If the message is
 * 'constant' it is lent, until the next one is encoded; else it is a reference
 * of the caller.  RS_OK, RS_EINVAL, RS_EREFUSED, RS_ENOMEM.
 */
int rs_code_encode_function (rs_outbox *o, lua_State *L, int index,
                             unsigned forbidden, rs_message **function,
                             rs_error *err);

/*
 * [-0, +0, -]  Encode the 'n' values from 'first' on, for a call of
 * 'function', which this state has sent: in the 'size' bytes at 'room', if
 * they fit there.  NULL when there are none.
 */
int rs_code_encode_arguments (rs_outbox *o, lua_State *L, int first, int n,
                              void *room, size_t size, unsigned forbidden,
                              const rs_message *function,
                              rs_message **arguments, rs_error *err);

/*
 * [-(nargs+1), +0, -]  Encode the function, or source, below 'nargs' values on
 * top of the stack, and these values behind it.
 */
int rs_code_encode (lua_State *L, int nargs, unsigned forbidden,
                    rs_message **message, rs_error *err);

#endif
