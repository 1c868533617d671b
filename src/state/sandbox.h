/* SPDX-License-Identifier: MIT */
/*
 * sandbox.h - what code in a runspace may not do.
 *
 * Open, when the libraries are there and nothing else has run; then seed;
 * then close.
 */
#ifndef RS_SANDBOX_H
#define RS_SANDBOX_H

#include "runspace.h"

/*
 * [-0, +0, m]  Remember the libraries as they are, so that seeding cannot hide
 * them.  With 'sandbox' (lent, constant) that holds from now on.
 */
void rs_sandbox_open (lua_State *L, const rs_sandbox *sandbox);

/*
 * [-0, +0, m]  From now on 'sandbox' (lent, constant) holds, which is not less
 * strict than the one that does.
 */
void rs_sandbox_close (lua_State *L, const rs_sandbox *sandbox);

#endif
