/* SPDX-License-Identifier: MIT */
/*
 * runner.h - the seam: what a worker runs calls on.
 *
 * A worker is a thread that takes jobs and has their calls run by its runner:
 * a state of this process (runner.c), or whatever else takes bytes and leaves
 * bytes.  Scheduler, batches, events, time-outs and cancellation know nothing
 * of what is behind a runner.
 *
 *     open --> run, trim, ... --> rest --> run, trim, ... --> close
 *
 * The thread of the worker calls all functions, without locks.  None of them
 * stops a call: a request to stop goes to the thread, by its 'rs_cancel'
 * (cancel.h).  A runner enters a token for each call.  A runner that waits for
 * another thread or process to run the call says so by 'rs_cancel_sleeps', is
 * woken by a request, and finds in the token whether to ask the other side to
 * stop or to force it.
 */
#ifndef RS_RUNNER_H
#define RS_RUNNER_H

#include "state/call.h"
#include "state/state.h"

typedef struct rs_runner rs_runner;

typedef struct rs_runner_kind {
  unsigned forbidden;  /* RS_MESSAGE_ flags of messages that cannot cross: the
                          thread that submits one is told where in the message
                          that is */
  bool local;          /* if one runner opens, the others do, since nothing
                          outside of this process has a say */
  bool reruns;         /* RS_RETRY_LOST is obeyed: a call that is lost is over,
                          or 'open' waits until it is, before it runs again */
  bool anywhere;       /* a call runs in whatever runspace is free: a runner
                          has none of its own */
  bool partial;        /* a pool is open when one runner is; other runners that
                          cannot be opened are told, and tried again later */

  /* Make what all runners of a pool share, from its options, before the first
     one is opened.  RS_OK, RS_ENOMEM, RS_EINVAL or RS_EFAILED.  NULL: they
     share nothing. */
  int (*prepare) (const rs_pool_options *options, void **shared,
                  rs_error *err);

  /* Write what does not work now, though the pool does; "": all does.  Any
     thread. */
  void (*trouble) (void *shared, char *text, size_t size);

  /* Free what 'prepare' has made.  No runner is left. */
  void (*dismiss) (void *shared);

  /* Open a runner.  RS_OK, RS_ENOMEM or RS_EFAILED; RS_ESTOPPED when the wish
     in 'options' asked for that. */
  int (*open) (const rs_state_options *options, rs_runner **out,
               rs_error *err);

  /* Renew the runner '*r': then it, or another one in its place, is as one
     that was just opened.  As 'open', but that on failure the runner is
     closed, and '*r' NULL.  NULL: a runner is closed, and another one
     opened. */
  int (*renew) (rs_runner **r, const rs_state_options *options,
                rs_error *err);

  /* Run the call, and fill in what it leaves, as 'rs_call_run' does, in the
     place of what an earlier attempt has left.  RS_JOB_QUEUED of a runner that
     is spent: the call is to be run by the next one, again, or since this one
     is 'prepared', and has lost its runspace before the call. */
  void (*run) (rs_runner *runner, rs_call *call, const rs_call_sink *sink);

  /* True when the next call needs another runner. */
  bool (*spent) (rs_runner *runner);

  /* Let go, now and then, of what is not needed any more.  Called when a call
     has ended; 'chunk': it was that of a chunk. */
  void (*trim) (rs_runner *runner, bool chunk);

  /* Prepare for a sleep of the thread, which may be long. */
  void (*rest) (rs_runner *runner);

  /* Memory that the runner takes, in bytes. */
  size_t (*bytes) (const rs_runner *runner);

  void (*close) (rs_runner *runner);
} rs_runner_kind;

/* The beginning of each runner; constant, but for the last two. */
struct rs_runner {
  const rs_runner_kind *kind;
  rs_cancel *cancel;   /* of the thread; lent */
  unsigned worker;     /* number of the worker in the pool */
  const char *host;    /* where it is: a name that lives as long as the pool;
                          NULL: on this host.  'run' may change it */
  bool prepared;       /* standing calls have completed there, which a runspace
                          in its place would have to run, too */
};

/* The kind of a runner that is a state of this process. */
extern const rs_runner_kind rs_state_kind;

/* A runner that is a state of this process; also on the stack, for a job that
   runs inside those that wait in the state 's'. */
typedef struct rs_state_runner {
  rs_runner base;
  rs_state *s;         /* the state; never NULL */
  lua_State *L;        /* the coroutine of 's' that waits; NULL: the main
                          one */
  unsigned calls;      /* plain calls since the runner was opened */
} rs_state_runner;

void rs_state_runner_init (rs_state_runner *r, rs_state *s, lua_State *L);

#endif
