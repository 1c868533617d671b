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
 *     state       1 byte, rs_job_state
 *     began, took 2 doubles, only with RS_BATCH_RECORDS
 *     count       4 bytes, of values, only with RS_BATCH_RECORDS
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

struct rs_call {
  const rs_call_sink *sink;   /* constant */
  uint64_t id;                /* what is asked: lent, constant */
  const char *name;
  unsigned attempt;
  unsigned flags;             /* RS_BATCH_ */
  rs_message *function;       /* function or source, then what follows the
                                 arguments */
  rs_message *arguments;      /* or NULL: none, or a range */
  size_t count;               /* items; 0: a plain call */
  unsigned arity;             /* values of an item */
  lua_Integer index;          /* of the first item */
  lua_Integer first, step;    /* of a range */
  size_t at;                  /* where the items begin in 'arguments'; 0: at
                                 its beginning */
  unsigned next_id;           /* of the first object there */
  double budget;              /* seconds after which no further item is
                                 started; 0: none */
  const _Atomic bool *stop;   /* set by any thread: start nothing more */
  const _Atomic bool *batch_stop;  /* the same for the whole map; or NULL */
  _Atomic bool *failed;       /* set when an item failed; or NULL */

  rs_job_state state;         /* what is left */
  rs_message *result;         /* owned by the caller, or NULL: no memory */
  size_t started;             /* items; fewer than 'count' when stopped, or
                                 when the budget was spent: then 'at' and
                                 'next_id' tell where the others begin */
  size_t failures;            /* items */
  size_t errors;              /* items that completed with errors */
  double took;                /* seconds spent on items */
};

/*
 * Open a state for worker 'worker' of 'pool' (lent, opaque here).
 * RS_OK, RS_ENOMEM or RS_EFAILED: seeding raised, the error has the text.
 * The thread that will run it.
 */
int rs_state_open (const rs_initial_state *is, int reset, rs_pool *pool,
                   unsigned worker, rs_state **out, rs_error *err);
void rs_state_close (rs_state *s);

/*
 * Run 'call' on 'L', a coroutine of the state that is running, or the main
 * one when L is NULL.  Fills what is left in 'call'.
 */
void rs_state_run (rs_state *s, lua_State *L, rs_call *call);

/* Let go of functions that no batch will send again.  Before idling. */
void rs_state_trim (rs_state *s);

/* [-0, +0, -]  The runspace that 'L' belongs to, or NULL.  Lent. */
rs_state *rs_state_of (lua_State *L);

/* The pool given at opening. */
rs_pool *rs_state_pool (const rs_state *s);
unsigned rs_state_worker (const rs_state *s);

/* Memory that its Lua values take. */
size_t rs_state_bytes (const rs_state *s);

#endif
