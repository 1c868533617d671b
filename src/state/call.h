/* SPDX-License-Identifier: MIT */
/*
 * call.h - run a call, or a chunk of them, in a state.
 *
 * A call is bytes in, bytes out: a message with the function, one with its
 * arguments (or with the items of a chunk), and afterwards one with what is
 * left.  Each call ends in a final state, whatever its code does; nothing is
 * raised past 'rs_call_run'.
 *
 * Calls nest: a call that waits for another one may run it in the same state.
 */
#ifndef RS_CALL_H
#define RS_CALL_H

#include "state/cancel.h"
#include "value/marshal.h"
#include "runspace.h"
#include "state/state.h"
#include "state/stream.h"

/*
 * One call, or one call for each item of a chunk.
 *
 * The result of a plain call is a message of its values, or of the error
 * value, the traceback, and the text of an error whose value takes more to be
 * rebuilt than memory (or nil).  The result of a chunk is a message in which
 * each item that was started has a record:
 *
 *     state       1 byte: rs_job_state, and rs_reason in the upper half
 *     began, took 2 doubles, only with RS_BATCH_RECORDS
 *     count       4 bytes, of values, only with RS_BATCH_RECORDS
 *     attempts    4 bytes, only with RS_BATCH_RECORDS
 *     values      the first result, or all of them (RS_BATCH_RECORDS),
 *                 or, when it failed, the three of a plain call
 *
 * Without RS_BATCH_RECORDS items in a row that completed share one record, so
 * that their results stand side by side:
 *
 *     RS_RECORD_RUN  1 byte
 *     count          4 bytes, of items
 *     values         the first result of each
 */
enum {
  RS_RECORD_RUN = 0x0f,
  RS_RECORD_MORE = 24   /* bytes that only RS_BATCH_RECORDS has */
};

enum { RS_CALL_ROOM = 96 };  /* bytes of a message that needs no memory of its
                                own */

typedef struct rs_call rs_call;

/* Where a call sends what it has to tell while it runs; each function takes
   over the record. */
typedef struct rs_call_sink {
  void (*record) (rs_call *call, rs_stream_record *record);
  void (*emit) (rs_call *call, rs_stream_record *record);  /* may wait */
  bool (*ready) (rs_call *call);  /* it can take them; false: no memory */
  const char *(*name) (rs_call *call);  /* lent, as long as the call */
} rs_call_sink;

/* Where in its message the items of a chunk begin. */
typedef struct rs_place {
  size_t item;            /* how many stand before it */
  rs_decoder_place in;    /* 'at' is 0: the beginning of the message */
} rs_place;

/* What only a chunk has: the items that it is to run, and what became of
   them. */
typedef struct rs_chunk {
  size_t count;               /* items; constant, as all that is asked */
  unsigned arity;             /* values of an item */
  lua_Integer index;          /* of the first item */
  lua_Integer first, step;    /* of a range */
  rs_place from;              /* 'item' is 0 here */
  double budget;              /* seconds after which no further item is
                                 started; 0: none */
  const _Atomic bool *stop;   /* start nothing more */
  _Atomic bool *failed;       /* the same, set when 'allowed' is used up; or
                                 NULL */
  _Atomic size_t *allowed;    /* failures until then; or NULL */

  rs_place rest;              /* what is left: where the items begin that were
                                 not started; 'attempt' is that of the first
                                 then */
  size_t ended[RS_JOB_LOST + 1];  /* items, by state */
  double took;                /* seconds spent on items */

  _Atomic size_t begun[5];    /* the place behind the item that runs, for who
                                 finds it lost; set with a timeout only */
} rs_chunk;

/* In the order of use: what a host looks at when it takes a small result, and
   frees it, is in front. */
struct rs_call {
  rs_message *result;         /* what is left: owned by the caller, or NULL: no
                                 memory */
  rs_message *function;       /* what is asked, lent, constant: function or
                                 source, then what follows the arguments */
  rs_message *arguments;      /* or NULL: none, or a range */
  rs_chunk *chunk;            /* or NULL: a plain call */
  /* For a small result; for small arguments before that, unless they may be
     needed again. */
  _Alignas(rs_message) unsigned char room[RS_CALL_ROOM];
  rs_job_state state;         /* left, too */
  rs_reason reason;           /* why it was stopped, if it was */

  uint64_t id;                /* what is asked, too, as all that follows */
  double timeout;             /* seconds an item may take; 0: any time */
  unsigned retries;           /* further attempts of an item */
  unsigned attempt;           /* of the first item, or of the call; from 1 */
  uint8_t retry_on;           /* RS_RETRY_ */
  uint8_t flags;              /* RS_BATCH_ */
  bool keep;                  /* 'function' may be kept: 'constant' in it,
                                 where a worker would take it from the host's
                                 CPU */
  rs_wish wish;               /* it shall stop */
  _Atomic uint16_t depth;     /* calls that wait for it, one for another; set
                                 by the thread of the one that does, read by
                                 its runner; it publishes nothing */
};

/* True when it has results. */
static inline bool
rs_job_state_good (rs_job_state state)
{
  return state == RS_JOB_COMPLETED || state == RS_JOB_COMPLETED_WITH_ERRORS;
}

/* True for the states from RS_JOB_COMPLETED on. */
static inline bool
rs_job_state_final (rs_job_state state)
{
  return state >= RS_JOB_COMPLETED;
}

/*
 * Run 'call' on 'L', a coroutine of the state that is running, or the main
 * one when L is NULL.  Fills what is left in 'call'; its state is
 * RS_JOB_QUEUED when it is to be tried again.
 */
void rs_call_run (rs_state *s, lua_State *L, rs_call *call,
                  const rs_call_sink *sink);

/* The innermost call that runs in the state, or NULL. */
rs_call *rs_call_current (const rs_state *s);

#endif
