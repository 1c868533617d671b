/* SPDX-License-Identifier: MIT */
/*
 * small.h - messages of a few scalars.
 */
#ifndef RS_SMALL_H
#define RS_SMALL_H

#include "value/message.h"

enum { RS_SMALL_MAX = 96 };  /* most bytes of a small message */

/* [-0, +0, -]  Make a message of the 'n' values from 'first' on, in the 'size'
   bytes at 'room'.  NULL if some value is not a scalar, or they do not fit. */
rs_message *rs_encode_small (lua_State *L, int first, int n, void *room,
                             size_t size);

/* [-0, +n, m]  Push the values of a message of a few scalars.  Returns how
   many, or -1 for any other message. */
int rs_decode_small (lua_State *L, const rs_message *msg);

#endif
