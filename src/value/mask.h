/* SPDX-License-Identifier: MIT */
/*
 * mask.h - what is more than data (RS_MESSAGE_LIVE), found in values.
 */
#ifndef RS_MASK_H
#define RS_MASK_H

#include "value/names.h"

/* [-0, +0, -]  The name of a field of the metatable at 'index' that may run
   code, or whose meaning is not known; or NULL. */
const char *rs_metatable_runs (lua_State *L, int index);

/* True when the name begins with one of Lua's libraries, or with this
   module. */
bool rs_name_is_library (const rs_name *name);

/* [-0, +0, v]  Raise unless the name may come from a sender to whom
   RS_MESSAGE_NAMES is forbidden. */
void rs_name_accept (lua_State *L, const rs_name *name);

/*
 * [-1, +0, m]  Set the metatable on top for the table at 'index', which is
 * absolute.  The table is a copy, so its '__gc' is never called: that of the
 * original is.
 */
void rs_set_copy_metatable (lua_State *L, int index);

#endif
