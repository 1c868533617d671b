/* SPDX-License-Identifier: MIT */
/*
 * outbox.h - what a state sends: messages that it has sent lately, and an
 * encoder.
 *
 * A program often sends the same function many times, one job after the other.
 * A function that has no upvalue but its environment is the same each time.
 * Its message is kept, and the function with it, until a few other functions
 * were sent; a runspace keeps the function that it has loaded from
 * the message.  The encoder is for arguments, and keeps its memory.
 */
#ifndef RS_OUTBOX_H
#define RS_OUTBOX_H

#include "runspace.h"

typedef struct rs_outbox rs_outbox;

/*
 * [-0, +0, -]  The outbox of the state.  The outbox lives as long as the
 * state.  NULL when out of memory, or when 'L' is NULL.  Only the thread that
 * owns 'L' may call this.
 */
rs_outbox *rs_outbox_of (lua_State *L);

/* ------------------------------------- between outbox.c and code.c only */

struct rs_encoder;

/* [-0, +0, -]  The message that was made of the value at 'index', a function
   or a source, lent until another one is kept; or NULL.  NULL also when the
   message has 'forbidden' kinds (RS_MESSAGE_). */
rs_message *rs_outbox_find (const rs_outbox *o, lua_State *L, int index,
                            unsigned forbidden);

/* The globals that a function reads, but for those of Lua itself: it reads
   none; the state has none of them; or some were sent with it, or left out. */
typedef enum rs_outbox_globals {
  RS_GLOBALS_NONE, RS_GLOBALS_ABSENT, RS_GLOBALS_SENT
} rs_outbox_globals;

/*
 * [-0, +0, -]  Keep the message that was made of the value at 'index', if that
 * value is the same each time it is sent: the outbox takes the caller's
 * reference over then, and the message is 'constant'.  'absent': the message
 * is good only while the state has none of the globals that the function
 * reads.
 */
void rs_outbox_keep (rs_outbox *o, lua_State *L, int index,
                     rs_message *message, bool absent);

/* Borrow the encoder, which is clear; NULL while it is lent.  And give it
   back. */
struct rs_encoder *rs_outbox_borrow (rs_outbox *o);
void rs_outbox_return (rs_outbox *o);

#endif
