/* SPDX-License-Identifier: MIT */
/*
 * fingerprint.h - what stands for a Lua value, and for the code of a function,
 * from one run of a program to the next.
 */
#ifndef RS_FINGERPRINT_H
#define RS_FINGERPRINT_H

#include <stdbool.h>

#include <lua.h>

#include "base/digest.h"

/*
 * [-0, +0, -]  Append the value at 'index' to the digest: a number, a string,
 * a boolean, nil, or a table of such values, in whatever order the table has
 * its keys.  NULL; or, for a value that has no digest, why: lent, constant.
 */
const char *rs_fingerprint_value (lua_State *L, int index, rs_digest *d);

/*
 * [-0, +(0|1), m]  Append the code of the Lua function at 'index':
 * instructions, constants, and the functions inside.  Where the code stands in
 * its file, and the names of its local variables, do not count.  Pushes an
 * array of the names that the function reads in its upvalue '_ENV', but for
 * those of Lua itself.  False, and nothing is pushed, for a C function.
 */
bool rs_fingerprint_code (lua_State *L, int index, rs_digest *d);

#endif
