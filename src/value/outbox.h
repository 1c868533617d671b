/* SPDX-License-Identifier: MIT */
/*
 * outbox.h - the outbox of a state: messages that it has sent lately.
 */
#ifndef RS_OUTBOX_H
#define RS_OUTBOX_H

#include "runspace.h"

/*
 * [-0, +0, -]  The outbox of the state, with messages that the state has sent
 * lately, and memory for arguments.  The outbox lives as long as the state.
 * NULL when out of memory, or when 'L' is NULL.  Only the thread that owns 'L'
 * may call this.
 */
typedef struct rs_outbox rs_outbox;
rs_outbox *rs_outbox_of (lua_State *L);

#endif
