/* SPDX-License-Identifier: MIT */
/*
 * given.h - the globals that came with the functions of a call.
 *
 * A table of them ('rs_env_push_given') is put on the environment of the call.
 * A name that the runspace has by itself keeps the runspace's value.
 */
#ifndef RS_GIVEN_H
#define RS_GIVEN_H

#include <stdbool.h>

#include <lua.h>

/* [-0, +0, m]  Give the environment the globals of the table at 'given'.
   Names that the runspace has leave that table.  False when the functions may
   do more than read them: then they may have other values after the call. */
bool rs_given_put_on (lua_State *L, int given);

/* [-0, +0, -]  Take those away again that still have these values. */
void rs_given_take_off (lua_State *L, int given);

#endif
