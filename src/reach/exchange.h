/* SPDX-License-Identifier: MIT */
/*
 * exchange.h - what crosses a link, as the payloads of frames: the options of
 * a state and its initial state, calls and what they leave.
 *
 * The host writes OPEN and CALL, and reads RESULT and RECORD; the worker the
 * other way round.  What the host reads is checked against the call that it
 * has sent, since a worker may lie.
 */
#ifndef RS_EXCHANGE_H
#define RS_EXCHANGE_H

#include "reach/frame.h"
#include "state/call.h"
#include "state/stream.h"

/* ------------------------------------------------------------------- HELLO */

/* What both sides have to agree in. */
void rs_hello_write (rs_buf *b);

/* Compare it with that of this program.  RS_OK, or RS_EFAILED with both
   versions in 'err'. */
int rs_hello_check (rs_cut *c, rs_error *err);

/* -------------------------------------------------------------------- OPEN */

/* Check that the initial state can cross: nothing in it is good in this
   process only.  RS_OK, or RS_EREFUSED with the name of what is. */
int rs_initial_state_check (const rs_initial_state *is, rs_error *err);

void rs_open_write (rs_buf *b, const rs_pool_options *o, unsigned worker);

/* Read the options; their initial state is a reference of the caller, who owns
   'cwd', too.  RS_OK, RS_ENOMEM, or RS_EINVAL for bytes that are none. */
int rs_open_read (rs_cut *c, rs_pool_options *o, unsigned *worker);

/* -------------------------------------------------------------------- CALL */

/* 'function' is the number that the worker keeps it under; 'name' that of the
   job. */
void rs_call_write (rs_buf *b, const rs_call *call, uint64_t function,
                    const char *name);

/* What else CALL has, beside the request in the rs_call. */
typedef struct rs_call_more {
  uint64_t function;
  bool arguments;           /* they came before, as VALUES */
  bool limited;             /* 'allowed' counts */
  size_t allowed;           /* failures left */
  double now;               /* instant, on the clock of the host */
  char *name;               /* owned by the caller */
} rs_call_more;

/* Read a call, whose fields are zero; 'chunk' becomes its chunk, if it has
   one.  RS_OK, RS_ENOMEM or RS_EINVAL. */
int rs_call_read (rs_cut *c, rs_call *call, rs_chunk *chunk,
                  rs_call_more *more);

/* ------------------------------------------------------------------ RESULT */

/* 'spent': the state needs to be replaced; 'bytes': memory that it takes. */
void rs_result_write (rs_buf *b, const rs_call *call, bool spent,
                      size_t bytes);

/* Fill in the outcome of 'call', which has sent that request.  'values' is its
   result, or NULL; its reference is the call's on success.  RS_OK, or
   RS_EINVAL for what no such call can leave. */
int rs_result_read (rs_cut *c, rs_call *call, rs_message *values, bool *spent,
                    size_t *bytes);

/* The failures of a chunk that has ended count for its batch. */
void rs_call_count_failures (const rs_call *call);

/* The call has ended, and 'reason' is why it was to stop, if it was: note that
   in a chunk, all of whose items have failed if the call has. */
void rs_call_settle (rs_call *call, rs_reason reason);

/* ------------------------------------------------------------------ RECORD */

/* 'ahead': seconds that the clock of the host is ahead of ours. */
void rs_record_write (rs_buf *b, const rs_stream_record_info *info,
                      double ahead);

/* Make a record of a call; takes the reference 'values' in each case.  NULL in
   '*out' when out of memory.  RS_OK, or RS_EINVAL. */
int rs_record_read (rs_cut *c, const rs_call *call, rs_message *values,
                    rs_stream_record **out);

/* -------------------------------------------------------------------- LOST */

/* 'text' tells where the call stands; "": it is not known. */
void rs_lost_write (rs_buf *b, const rs_call *call, const char *text);

/* Note in the chunk of 'call', if it has one, up to which item it came.  The
   text is owned by the caller; NULL: it is not known. */
int rs_lost_read (rs_cut *c, rs_call *call, char **text);

/* Replace what a terminal would obey. */
void rs_text_clean (char *text);

#endif
