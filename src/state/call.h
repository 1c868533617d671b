/* SPDX-License-Identifier: MIT */
/*
 * call.h - run a call, or a chunk of them, in a state.
 *
 * A call is bytes in, bytes out: a message with the function and a message
 * with its arguments (or with the items of a chunk) go in, and a message with
 * the result comes out.  Each call ends in a final state, whatever its code
 * does; nothing is raised past 'rs_call_run'.
 *
 * Calls nest: a call that waits for another one may run it in the same state.
 */
#ifndef RS_CALL_H
#define RS_CALL_H

#include <string.h>

#include "state/cancel.h"
#include "value/decoder.h"
#include "runspace.h"
#include "state/state.h"
#include "state/stream.h"

/*
 * The forms of a result.
 *
 * The result of a plain call is a message of its values.  When the call has
 * failed, the message has three values: the error value, the traceback, and a
 * text of the error (nil, unless the receiver needs modules or code to rebuild
 * the error value).  The result of a chunk is a message in which each item
 * that was started has a record:
 *
 *     state       1 byte: rs_job_state, and rs_reason in the upper half
 *     began, took 2 doubles, only with RS_BATCH_RECORDS
 *     count       4 bytes, of values, only with RS_BATCH_RECORDS
 *     attempts    4 bytes, only with RS_BATCH_RECORDS
 *     values      the first result, or all of them (RS_BATCH_RECORDS),
 *                 or, when the item failed, the three of a plain call
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

enum { RS_CALL_ROOM = 96 };  /* bytes of a message that stands in the rs_call
                                and needs no memory of its own */

/* A flag of a call, beside those of a batch: it prepares the runspace, as
   'init' does.  What it assigns stays, and it counts as no task. */
enum { RS_CALL_STANDING = 0x40 };

/* Another one: the call has a seed, behind what messages may take of its
   room. */
enum { RS_CALL_SEEDED = 0x20 };

/* A flag of a chunk: an item that has failed and is to be tried again waits
   before that.  The chunk ends before the item; 'attempt' is then the one that
   comes. */
enum { RS_CALL_PACED = 0x10 };

typedef struct rs_call rs_call;

/* Where a call sends its records and events while it runs.  'record' and
   'emit' take over the record. */
typedef struct rs_call_sink {
  void (*record) (rs_call *call, rs_stream_record *record);
  void (*emit) (rs_call *call, rs_stream_record *record);  /* may wait */
  bool (*ready) (rs_call *call);  /* can it take records?  false: no memory */
  const char *(*name) (rs_call *call);  /* lent, as long as the call */
  /* The call ends without a result, for the reason in the text: it could not
     be run, or is lost.  A call that is run in a state of this process never
     ends so. */
  void (*failed) (rs_call *call, const char *why);
} rs_call_sink;

/* A place between the items in the message of a chunk. */
typedef struct rs_place {
  size_t item;            /* how many items stand before it */
  rs_decoder_place in;    /* 'at' is 0: the beginning of the message */
} rs_place;

/* The part of a call that only a chunk has: first the request, constant down
   to 'allowed', then the outcome. */
typedef struct rs_chunk {
  size_t count;               /* items */
  unsigned arity;             /* values of an item */
  lua_Integer index;          /* of the first item */
  lua_Integer first, step;    /* of a range */
  rs_place from;              /* where the items begin; 'item' is 0 here */
  double budget;              /* seconds after which no further item is
                                 started; 0: none */
  unsigned losses;            /* times that items of this chunk were lost with
                                 a worker, which are attempts of each */
  const _Atomic bool *stop;   /* no further item is started while set; or
                                 NULL */
  _Atomic bool *failed;       /* as 'stop'; set when 'allowed' is used up; or
                                 NULL */
  _Atomic size_t *allowed;    /* failures left until 'failed' is set; or
                                 NULL */
  double ahead;               /* seconds that the clock by which records are
                                 told is ahead of ours: that of a caller on
                                 another host; 0: ours */

  rs_place rest;              /* where the items begin that were not started;
                                 'attempt' of the call is that of the first
                                 of them */
  size_t ended[RS_JOB_LOST + 1];  /* number of items, by state */
  double took;                /* seconds spent on items */

  _Atomic size_t begun[5];    /* the place behind the item that runs, for the
                                 thread that finds the call lost; set with a
                                 timeout only */
} rs_chunk;

/* A call: request and outcome, in the order of use.  The fields that a host
   needs when it takes a small result and frees the call are in front. */
struct rs_call {
  rs_message *result;         /* outcome: owned by the caller; NULL: no
                                 memory */
  rs_message *function;       /* request, lent, constant: function or source;
                                 for a chunk also the extra arguments, which
                                 follow the values of each item */
  rs_message *arguments;      /* request; NULL: none, or a range */
  rs_chunk *chunk;            /* NULL: a plain call */
  /* Memory for a small result.  Before that, for small arguments, unless
     another attempt may need the arguments again. */
  _Alignas(rs_message) unsigned char room[RS_CALL_ROOM];
  rs_job_state state;         /* outcome */
  rs_reason reason;           /* outcome: why it was stopped, if it was */

  uint64_t id;                /* request, as all that follows */
  double timeout;             /* seconds an item may take; 0: any time */
  unsigned retries;           /* further attempts of an item, or the call */
  unsigned attempt;           /* of the first item, or of the call; from 1;
                                 outcome, too.  Of other items: one more than
                                 'losses' */
  uint8_t retry_on;           /* RS_RETRY_ */
  uint8_t flags;              /* RS_BATCH_, RS_CALL_ */
  int8_t priority;            /* among those of other callers */
  bool keep;                  /* a state may keep 'function'; a copy of
                                 'function->constant', so that a worker need
                                 not read a cache line of the host's CPU */
  rs_wish wish;               /* made: the call is to be stopped */
  _Atomic uint16_t depth;     /* length of the chain of calls that wait for
                                 this one; set by the thread of a call that
                                 waits, read by the thread that runs this
                                 one; publishes nothing */
};

static inline bool
rs_call_is_seeded (const rs_call *call)
{
  return (call->flags & RS_CALL_SEEDED) != 0;
}

/* Bytes of the room that a message may take. */
static inline size_t
rs_call_room (const rs_call *call)
{
  return RS_CALL_ROOM - (rs_call_is_seeded(call) ? sizeof(lua_Integer) : 0);
}

/* Give a call whose room is still empty a seed (seed.h). */
static inline void
rs_call_set_seed (rs_call *call, lua_Integer seed)
{
  call->flags |= RS_CALL_SEEDED;
  memcpy(call->room + rs_call_room(call), &seed, sizeof seed);
}

/* The seed of a call that has one. */
static inline lua_Integer
rs_call_seed (const rs_call *call)
{
  lua_Integer seed;
  memcpy(&seed, call->room + rs_call_room(call), sizeof seed);
  return seed;
}

/* True when a call or an item in this state has results. */
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
 * one when L is NULL.  Fills the outcome in 'call'; its state is RS_JOB_QUEUED
 * when the call is to be tried again.
 */
void rs_call_run (rs_state *s, lua_State *L, rs_call *call,
                  const rs_call_sink *sink);

/* Count a failure that 'allowed' of the chunk, which is not NULL, allows, and
   set 'failed' if it was the last one.  Any thread. */
void rs_chunk_fail (rs_chunk *chunk);

/* The innermost call that runs in the state, or NULL. */
rs_call *rs_call_current (const rs_state *s);

#endif
