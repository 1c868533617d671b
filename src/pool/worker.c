/* SPDX-License-Identifier: MIT */
/*
 * worker.c - the first transport: a thread that owns a runspace.
 *
 * The thread opens its state, runs what it is given, and closes the state.
 * With RS_RESET_FRESH it has a new state for each job, opened ahead, while
 * nobody waits for it; otherwise it has a new one when the old one is spent.
 *
 * A worker blocks the signals that are the host's business; those that tell
 * of its own faults stay open, since a blocked SIGSEGV ends the process
 * without a handler or a report.  So does the one that stops its job.
 */
#include "pool/transport.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cpu.h"
#include "base/fork.h"
#include "state/state.h"
#include "base/status.h"

/* Nested data and patterns recurse in C: up to 512 KiB, and three times that
   under a sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_SIZE (4u << 20)
#else
#define STACK_SIZE (1u << 20)
#endif

/* All signals but these are blocked in a worker. */
static const int open_signals[] = {
  SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF
};

/* How the thread is stopped: its calls are those of jobs. */
static void
on_lost (void *ud)
{
  rs_slot *const slot = ud;
  slot->owner->lost(slot);
}

static const rs_cancel_owner cancel_owner = {
  .lost_thread = on_lost,
  .hold_call = rs_job_hold_call,
  .lost_call = rs_job_lose_call,
};

static void
tell_bytes (rs_slot *slot, const rs_state *s)
{
  atomic_store_explicit(&slot->bytes, rs_state_bytes(s),
                        memory_order_relaxed);
}

/*
 * What it runs may fork, and go on in the child: there this is the only
 * thread, and its pool is not.  So it ends, and the process with it, as with
 * each last thread: pthread_exit(3).
 */
static void
end_child (const rs_slot *slot)
{
  if (rs_fork_is_foreign(slot->born))
    pthread_exit(NULL);
}

static void
close_state (const rs_slot *slot, rs_state *s)
{
  rs_state_close(s);
  end_child(slot);
}

/* A state, which is seeded for 'job', or NULL, and stopped with it.  NULL, and
   'err' filled, on failure. */
static rs_state *
open_state (rs_slot *slot, rs_cancel *cancel, rs_job *job, rs_error *err)
{
  const rs_state_options options = {
    .initial_state = slot->initial_state,
    .limits = slot->limits,
    .reset = slot->reset,
    .pool = slot->pool,
    .worker = slot->number,
    .cancel = cancel,
    .wish = job != NULL ? &job->call.wish : &slot->wish,
    .owner = job != NULL ? (void *) &job->call : RS_SEEDING,
  };
  rs_state *s = NULL;
  const int status = rs_state_open(&options, &s, err);
  end_child(slot);
  if (status != RS_OK)
    return NULL;
  tell_bytes(slot, s);
  return slot->state = s;
}

/* The same in place of 'old', which may be NULL. */
static rs_state *
renew (rs_slot *slot, rs_cancel *cancel, rs_state *old, rs_job *job,
       rs_error *err)
{
  slot->state = NULL;
  close_state(slot, old);
  rs_state *const s = open_state(slot, cancel, job, err);
  if (s != NULL)
    slot->owner->renewed(slot);
  return s;
}

/* rs_transport */
static void
rest (rs_slot *slot)
{
  if (slot->state != NULL)
    rs_state_rest(slot->state);
}

/* Run the job, and end it.  Returns the state, NULL when it could not be
   renewed on the way. */
static rs_state *
run (rs_slot *slot, rs_cancel *cancel, rs_state *s, rs_job *job,
     rs_error *err)
{
  rs_job_state state = RS_JOB_FAILED;
  rs_job_prefetch(job);
  rs_job_serve(job, &slot->served);
  while (s != NULL
         && (state = rs_job_execute(job, s, NULL)) == RS_JOB_QUEUED) {
    const rs_reason reason = rs_wish_reason(&job->call.wish);
    if (reason != RS_REASON_NONE) {
      state = rs_reason_state(reason);
      break;
    }
    s = renew(slot, cancel, s, job, err);
  }
  end_child(slot);
  if (s != NULL)
    tell_bytes(slot, s);
  slot->owner->done(slot);
  slot->owner->ended(slot);
  if (s != NULL)
    rs_job_end_served(job, state);
  else {
    if (err->status == RS_ESTOPPED)  /* its own wish, or it is lost */
      rs_job_end_queued(job, RS_REASON_CLOSED);
    else
      rs_job_fail(job, err->text);
    rs_job_unref(job);
  }
  return s;
}

/* The next job needs another state: 's' has had its time, or there is none
   since its seeding ended with the job that it was for. */
static bool
is_due (const rs_slot *slot, rs_state *s, const rs_error *err)
{
  return s == NULL ? err->status == RS_ESTOPPED
                   : slot->reset == RS_RESET_FRESH || rs_state_spent(s);
}

/* Plain calls between two looks at what can be let go of. */
enum { TRIM = 32 };

static void
serve (rs_slot *slot, rs_cancel *cancel)
{
  rs_error err = { .status = RS_OK };
  rs_state *s = open_state(slot, cancel, NULL, &err);
  slot->owner->opened(slot, s != NULL ? RS_OK : err.status, &err);
  rs_job *job;
  unsigned calls = 0;
  while (s != NULL && (job = slot->owner->take(slot)) != NULL) {
    const bool chunk = job->batch != NULL;
    s = run(slot, cancel, s, job, &err);
    if (is_due(slot, s, &err)) {
      if (!slot->owner->stays(slot))
        break;
      s = renew(slot, cancel, s, NULL, &err);
    }
    else if (s != NULL && (chunk || ++calls % TRIM == 0))
      rs_state_trim(s);
    if (s == NULL)
      slot->owner->opened(slot, err.status, &err);
  }
  slot->state = NULL;
  close_state(slot, s);
}

static void *
work (void *arg)
{
  rs_slot *const slot = arg;
  if (slot->pin)
    rs_cpu_pin(slot->number - 1);
  rs_cancel *const cancel = rs_cancel_new(slot->signal, &cancel_owner, slot);
  slot->owner->began(slot);
  if (cancel != NULL) {
    serve(slot, cancel);
    rs_cancel_leave(cancel);
  }
  else {
    rs_error err;
    rs_fail_plain(&err, RS_ENOMEM);
    slot->owner->opened(slot, RS_ENOMEM, &err);
  }
  slot->owner->left(slot);
  rs_cancel_unref(cancel);
  return NULL;
}

/* Create the thread with the signal mask of a worker. */
static int
start (rs_slot *slot, rs_error *err)
{
  pthread_attr_t attr;
  sigset_t mask, old;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  sigfillset(&mask);
  for (size_t i = 0; i < sizeof open_signals / sizeof open_signals[0]; i++)
    sigdelset(&mask, open_signals[i]);
  if (slot->signal != 0)
    sigdelset(&mask, slot->signal);
  pthread_sigmask(SIG_SETMASK, &mask, &old);
  pthread_t thread;  /* 'slot' may be gone when this returns */
  const int code = pthread_create(&thread, &attr, work, slot);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  if (code != 0)
    return rs_fail(err, RS_ETHREAD, "cannot create a worker thread: %s",
                   strerror(code));
  return RS_OK;
}

const rs_transport rs_thread_transport = {
  .name = "thread",
  .forbidden = 0,
  .start = start,
  .rest = rest,
};
