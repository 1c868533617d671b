/* SPDX-License-Identifier: MIT */
/*
 * worker.c - the first transport: a thread that owns a runspace.
 *
 * The thread opens its state, runs what it is given, and closes the state.
 * With RS_RESET_FRESH it has a new state for each job, opened ahead, while
 * nobody waits for it.
 *
 * A worker blocks the signals that are the host's business; those that tell
 * of its own faults stay open, since a blocked SIGSEGV ends the process
 * without a handler or a report.
 */
#include "transport.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "state.h"
#include "status.h"

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

/* Replace the state after a job.  NULL, and 'err' filled, on failure. */
static rs_state *
renew (const rs_slot *slot, rs_state *old, rs_error *err)
{
  rs_state_close(old);
  rs_state *s = NULL;
  rs_state_open(slot->initial_state, slot->reset, slot->pool, slot->number,
                &s, err);
  return s;
}

static void
tell_bytes (rs_slot *slot, const rs_state *s)
{
  atomic_store_explicit(&slot->bytes, rs_state_bytes(s),
                        memory_order_relaxed);
}

static void *
work (void *arg)
{
  rs_slot *const slot = arg;
  rs_error err = { .status = RS_OK };
  slot->owner->began(slot);
  rs_state *s = renew(slot, NULL, &err);
  if (s != NULL)
    tell_bytes(slot, s);
  slot->owner->opened(slot, s != NULL ? RS_OK : err.status, &err);
  rs_job *job;
  while (s != NULL && (job = slot->owner->take(slot)) != NULL) {
    const rs_job_state state = rs_job_execute(job, s, NULL);
    tell_bytes(slot, s);
    slot->owner->done(slot);
    rs_job_end(job, state);
    rs_job_unref(job);
    if (slot->reset == RS_RESET_FRESH) {
      s = renew(slot, s, &err);
      if (s == NULL)
        slot->owner->opened(slot, err.status, &err);
    }
    else
      rs_state_trim(s);
  }
  rs_state_close(s);
  slot->owner->left(slot);
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
};
