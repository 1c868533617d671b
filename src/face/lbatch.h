/* SPDX-License-Identifier: MIT */
/*
 * lbatch.h - batches as the Lua part sees them.
 */
#ifndef RS_LBATCH_H
#define RS_LBATCH_H

#include <lua.h>

/* [-0, +1, m]  Make the type of batches; push its table of methods. */
void rs_open_batch_type (lua_State *L);

/* Function of the C part, for Lua: (pool, function, options, ...) -> batch */
int rs_lua_batch (lua_State *L);

#endif
