/* SPDX-License-Identifier: MIT */
/*
 * code.h - functions and sources as messages.
 */
#ifndef RS_CODE_H
#define RS_CODE_H

#include <lua.h>

#include "value/message.h"
#include "runspace.h"
#include "value/outbox.h"

/*
 * 'globals' tells which globals travel with functions, as in rs_job_options:
 * those that a function reads, and those in the list, which NULL ends; NULL:
 * no others; RS_NO_GLOBALS: none.
 */

/*
 * [-0, +0, -]  Encode the function, or source text, at 'index'.  Values of the
 * 'forbidden' kinds (RS_MESSAGE_) are refused, in it and below it.  A message
 * that is 'constant' is lent to the caller until the next function is encoded;
 * any other message is a reference of the caller.  RS_OK, RS_EINVAL,
 * RS_EREFUSED or RS_ENOMEM.
 */
int rs_code_encode_function (rs_outbox *o, lua_State *L, int index,
                             unsigned forbidden, const char *const *globals,
                             rs_message **function, rs_error *err);

/*
 * [-0, +0, -]  Encode the 'n' values from 'first' on as arguments for a call
 * of 'function', which this state has sent.  The message is put in the 'size'
 * bytes at 'room' if it fits there.  '*arguments' is NULL when 'n' is 0.
 */
int rs_code_encode_arguments (rs_outbox *o, lua_State *L, int first, int n,
                              void *room, size_t size, unsigned forbidden,
                              const char *const *globals,
                              const rs_message *function,
                              rs_message **arguments, rs_error *err);

/*
 * [-(nargs+1), +0, -]  Encode the function, or source text, that is below
 * 'nargs' values on top of the stack, and these values behind it, as one
 * message.  The caller gets a reference.
 */
int rs_code_encode (lua_State *L, int nargs, unsigned forbidden,
                    const char *const *globals, rs_message **message,
                    rs_error *err);

#endif
