/* SPDX-License-Identifier: MIT */
/*
 * runner.h - the seam: what a worker runs calls on.
 *
 * A worker is a thread that takes jobs and has their calls run by its runner:
 * a state of this process (runner.c), or whatever else takes bytes and leaves
 * bytes.  Scheduler, batches, events, time-outs and cancellation know nothing
 * of what is behind it.
 *
 *     open --> run, trim, ... --> rest --> run, trim, ... --> close
 *
 * All functions are called by the thread of the worker, without locks.  How a
 * call is stopped is not among them: that goes to the thread, by its
 * 'rs_cancel' (cancel.h).  A runner enters a token for each call; one that
 * waits for others meanwhile says so by 'rs_cancel_sleeps', is woken, and
 * finds in the token whether to ask or to force them.
 */
#ifndef RS_RUNNER_H
#define RS_RUNNER_H

#include "state/call.h"
#include "state/state.h"

typedef struct rs_runner rs_runner;

typedef struct rs_runner_kind {
  unsigned forbidden;  /* RS_MESSAGE_ that cannot cross: who submits it is
                          told where it is */
  bool local;          /* if one opens, the others do, since nothing outside of
                          this process has a say */

  /* RS_OK, RS_ENOMEM, RS_ESTOPPED: as was wished; or RS_EFAILED. */
  int (*open) (const rs_state_options *options, rs_runner **out,
               rs_error *err);

  /* Run it, and fill what is left in it, as 'rs_call_run' does. */
  void (*run) (rs_runner *runner, rs_call *call, const rs_call_sink *sink);

  /* The next call needs another runner. */
  bool (*spent) (rs_runner *runner);

  /* A call has ended: let go, now and then, of what nobody needs. */
  void (*trim) (rs_runner *runner, bool chunk);

  /* The thread will sleep, for long perhaps. */
  void (*rest) (rs_runner *runner);

  /* Memory that it takes. */
  size_t (*bytes) (const rs_runner *runner);

  void (*close) (rs_runner *runner);
} rs_runner_kind;

/* How each of them begins; constant. */
struct rs_runner {
  const rs_runner_kind *kind;
  rs_cancel *cancel;   /* of the thread; lent */
  unsigned worker;     /* its number in the pool */
};

/* A state of this process. */
extern const rs_runner_kind rs_state_kind;

/* The same for a job that runs inside those that wait in the state 's'. */
typedef struct rs_state_runner {
  rs_runner base;
  rs_state *s;         /* NULL: none was opened */
  lua_State *L;        /* its coroutine that waits; NULL: the main one */
  unsigned calls;      /* plain ones, since it was opened */
} rs_state_runner;

void rs_state_runner_init (rs_state_runner *r, rs_state *s, lua_State *L);

#endif
