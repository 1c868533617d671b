/* SPDX-License-Identifier: MIT */
/*
 * sandbox.h - what code in a runspace may not do.
 */
#ifndef RS_SANDBOX_H
#define RS_SANDBOX_H

#include "runspace.h"

/*
 * [-0, +0, m]  Replace what 'sandbox' (lent, constant) forbids, in the tables
 * of the libraries, by functions that say so.
 */
void rs_sandbox_close (lua_State *L, const rs_sandbox *sandbox);

#endif
