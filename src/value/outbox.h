/* SPDX-License-Identifier: MIT */
/*
 * outbox.h - what a state keeps of what it sends.
 */
#ifndef RS_OUTBOX_H
#define RS_OUTBOX_H

#include "runspace.h"

/*
 * What a state keeps of what it has sent lately, and memory for arguments; it
 * lives as long as the state.  NULL when out of memory.  [-0, +0, -]  Any
 * thread that owns 'L'.
 */
typedef struct rs_outbox rs_outbox;
rs_outbox *rs_outbox_of (lua_State *L);

#endif
