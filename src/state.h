/* SPDX-License-Identifier: MIT */
/*
 * state.h - one runspace: a 'lua_State' that is opened from an initial
 * state, runs calls, and is closed.
 *
 * A call is bytes in, bytes out: a message with the function, one with its
 * arguments (or with the items of a chunk), and afterwards one with what is
 * left.  Each call ends in a final state, whatever its code does; nothing is
 * raised past 'rs_state_run'.
 *
 * A state is touched only by the thread that runs it.  Calls nest: a call
 * that waits for another one may run it in the same state.
 */
#ifndef RS_STATE_H
#define RS_STATE_H

#include "alloc.h"
#include "cancel.h"
#include "initial_state.h"
#include "marshal.h"
#include "runspace.h"
#include "stream.h"

typedef struct rs_state rs_state;

/*
 * One call, or one call for each item of a chunk.
 *
 * The result of a plain call is a message of its values, or of the error
 * value and the traceback.  The result of a chunk is a message in which each
 * item that was started has a record:
 *
 *     state       1 byte: rs_job_state, and rs_reason in the upper half
 *     began, took 2 doubles, only with RS_BATCH_RECORDS
 *     count       4 bytes, of values, only with RS_BATCH_RECORDS
 *     attempts    4 bytes, only with RS_BATCH_RECORDS
 *     values      the first result, or all of them (RS_BATCH_RECORDS),
 *                 or, when it failed, the error value and the traceback
 */
typedef struct rs_call rs_call;

/* Where a call sends what it has to tell while it runs; each function takes
   over the record. */
typedef struct rs_call_sink {
  void (*record) (rs_call *call, rs_stream_record *record);
  void (*emit) (rs_call *call, rs_stream_record *record);  /* may wait */
} rs_call_sink;

/* Where in its message the items of a chunk begin. */
typedef struct rs_place {
  size_t item;       /* how many stand before it */
  size_t at;         /* its bytes; 0: the beginning of the message */
  unsigned next_id;  /* of the first object there */
} rs_place;

struct rs_call {
  const rs_call_sink *sink;   /* constant */
  uint64_t id;                /* what is asked: lent, constant */
  const char *name;
  unsigned flags;             /* RS_BATCH_ */
  rs_message *function;       /* function or source, then what follows the
                                 arguments */
  rs_message *arguments;      /* or NULL: none, or a range */
  size_t count;               /* items; 0: a plain call */
  unsigned arity;             /* values of an item */
  lua_Integer index;          /* of the first item */
  lua_Integer first, step;    /* of a range */
  rs_place from;              /* 'item' is 0 here */
  double budget;              /* seconds after which no further item is
                                 started; 0: none */
  double timeout;             /* seconds an item may take; 0: any time */
  unsigned retries;           /* further attempts of an item */
  unsigned retry_on;          /* RS_RETRY_ */
  unsigned attempt;           /* of the first item, or of the call; from 1 */
  rs_wish wish;               /* it shall stop */
  const _Atomic bool *batch_stop;  /* start nothing more; or NULL */
  _Atomic bool *failed;       /* the same, set when 'allowed' is used up; or
                                 NULL */
  _Atomic size_t *allowed;    /* failures until then; or NULL */

  rs_job_state state;         /* what is left */
  rs_reason reason;           /* why it was stopped, if it was */
  rs_message *result;         /* owned by the caller, or NULL: no memory */
  rs_place rest;              /* where the items begin that were not started;
                                 'attempt' is that of the first then */
  size_t ended[RS_JOB_LOST + 1];  /* items, by state */
  double took;                /* seconds spent on items */

  _Atomic size_t begun[3];    /* the place behind the item that runs, for who
                                 finds it lost; set with a timeout only */
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

/* What a runspace may use. */
typedef struct rs_limits {
  size_t memory;              /* bytes; 0: any */
  uint64_t instructions;      /* of an item or a plain call; 0: any */
  uint64_t max_tasks;         /* items and plain calls of one state; 0: any */
  size_t max_bytes;           /* that a state may keep between calls; 0: any */
} rs_limits;

typedef struct rs_state_options {
  const rs_initial_state *initial_state;  /* lent */
  const rs_limits *limits;                /* lent */
  int reset;                              /* RS_RESET_ */
  rs_pool *pool;                          /* lent; opaque here */
  unsigned worker;
  rs_cancel *cancel;                      /* lent; of the thread */
} rs_state_options;

/*
 * Open a state.  RS_OK, RS_ENOMEM or RS_EFAILED: seeding raised, the error has
 * the text.  The thread that will run it.
 */
int rs_state_open (const rs_state_options *options, rs_state **out,
                   rs_error *err);
void rs_state_close (rs_state *s);

/*
 * Run 'call' on 'L', a coroutine of the state that is running, or the main
 * one when L is NULL.  Fills what is left in 'call'.
 */
void rs_state_run (rs_state *s, lua_State *L, rs_call *call);

/* It is to be replaced: something was forced to stop in it, it had too little
   memory, or it has reached a limit. */
bool rs_state_spent (rs_state *s);

/* Calls that wait for one another in it, and the innermost of them, or
   NULL. */
unsigned rs_state_depth (const rs_state *s);
rs_call *rs_state_call (const rs_state *s);

/* Let go of functions that no batch will send again.  Before idling. */
void rs_state_trim (rs_state *s);

/* [-0, +0, -]  The runspace that 'L' belongs to, or NULL.  Lent. */
rs_state *rs_state_of (lua_State *L);

/* What was given at opening. */
rs_pool *rs_state_pool (const rs_state *s);
unsigned rs_state_worker (const rs_state *s);
rs_cancel *rs_state_cancel (const rs_state *s);

/* Memory that its Lua values take. */
size_t rs_state_bytes (const rs_state *s);

#endif
