/* SPDX-License-Identifier: MIT */
/*
 * sandbox.h - what code in a runspace may not do.
 *
 * The order is: 'rs_sandbox_open' when the libraries are there and nothing
 * else has run, then the entries of the initial state, then
 * 'rs_sandbox_close'.
 */
#ifndef RS_SANDBOX_H
#define RS_SANDBOX_H

#include "runspace.h"

/*
 * [-0, +0, m]  Remember the libraries as they are, so that seeding cannot hide
 * them.  'sandbox' (lent, constant) holds from now on; NULL: none does.
 */
void rs_sandbox_open (lua_State *L, const rs_sandbox *sandbox);

/*
 * [-0, +0, m]  Let 'sandbox' (lent, constant), which is not less strict than
 * the one that holds, hold from now on.
 */
void rs_sandbox_close (lua_State *L, const rs_sandbox *sandbox);

#endif
