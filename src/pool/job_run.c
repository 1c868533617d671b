/* SPDX-License-Identifier: MIT */
/*
 * job_run.c - the way of a job through its states: begin, run, stop, end.
 *
 * The thread that has taken a job out of its queue executes the job, perhaps
 * several times, and ends it; or it ends the job at once.  Other threads ask
 * the job to stop: that makes the wish of its call, and wakes the thread that
 * runs it.  The thread that finds a worker lost ends the job in the worker's
 * place.  So two threads may end a job; the first one counts.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "pool/face.h"

/* ----------------------------------------------------------------- the end */

/* Count the job, or its items, as ended in 'state'. */
static void
count (rs_job *job, rs_job_state state)
{
  rs_queue *const q = job->queue;
  const rs_chunk *const chunk = job->call.chunk;
  if (chunk == NULL)
    q->ended(q, state, 1);
  else if (state != RS_JOB_LOST) {
    for (int i = RS_JOB_COMPLETED; i <= RS_JOB_LOST; i++)
      q->ended(q, (rs_job_state) i, chunk->ended[i]);
  }
}

/* Mark the job as settled. */
static void
settle (rs_notice *n)
{
  atomic_fetch_or(&rs_job_of_notice(n)->refs, RS_JOB_SETTLED);
}

/* True when the job has ended after its deadline, though the timer has not
   fired yet. */
static bool
is_late (const rs_job *job)
{
  const rs_job_more *const more = rs_job_more_of(job);
  return more != NULL && job->finished > more->timer.due;
}

/*
 * Set the final state of the job; false when it has one.  The job ends in
 * 'state', unless it was asked to stop, or is late.  '*post': the host is to
 * be told.
 */
static bool
set_end (rs_job *job, rs_job_state state, bool *post)
{
  rs_job_lock(job);
  if (rs_job_state_final(rs_job_state_now(job))) {
    rs_job_unlock(job);
    return false;
  }
  job->finished = rs_now();
  job->runner = NULL;
  if (rs_job_state_good(state) && is_late(job))
    rs_wish_make(&job->call.wish, RS_REASON_DEADLINE, 0);
  /* The thread that asked the job to stop was told that it had not ended. */
  const rs_reason wish = rs_wish_reason(&job->call.wish);
  if (wish != RS_REASON_NONE && state != RS_JOB_LOST)
    state = rs_reason_state(wish);
  count(job, state);  /* before any thread sees the end */
  rs_job_set_state_locked(job, state);
  const bool report = job->forgotten && rs_job_state_bad(state)
                   && !rs_job_seen(job);
  rs_job_more *const more = rs_job_more_of(job);
  rs_job_unlock_and_tell(job);
  if (more != NULL) {
    rs_timer_clear(&more->timer);
    rs_timer_clear(&more->later);
  }
  /* A batch wakes the host itself. */
  *post = job->events != NULL && job->batch == NULL
       && (report || rs_job_wants(job, RS_LISTEN_FINISHED));
  return true;
}

/* End the job; only the first end counts.  A job that was asked to stop ends
   as stopped, whatever it made of the request.  With 'leave' the caller's
   reference is given up, and the caller keeps the events. */
static void
end (rs_job *job, rs_job_state state, bool leave)
{
  bool post;
  if (rs_job_foreign(job))  /* has the job forked, and is this the child? */
    return;
  if (!set_end(job, state, &post)) {
    if (leave)
      rs_job_unref(job);
    return;
  }
  if (job->batch != NULL)
    rs_job_hooks_of(job)->on_end(job);
  if (post) {
    rs_job_ref(job);
    if (!rs_events_finish(job->events, &job->notice, settle))
      rs_job_unref(job);
    if (leave)
      rs_job_unref(job);
    return;
  }
  rs_events *const events = job->batch == NULL ? job->events : NULL;
  const unsigned refs = atomic_fetch_add(&job->refs,
                                         RS_JOB_SETTLED - (leave ? 1 : 0));
  if (events != NULL)  /* a batch has woken the host if that matters */
    rs_events_stir(events);
  if (leave && refs == 1)  /* is no reference left? */
    rs_job_free(job);
}

void
rs_job_end (rs_job *job, rs_job_state state)
{
  end(job, state, false);
}

void
rs_job_serve (rs_job *job, rs_events **served)
{
  if (*served == job->events)
    return;
  rs_events_drop(*served);
  *served = rs_events_hold(job->events);
}

void
rs_job_end_served (rs_job *job, rs_job_state state)
{
  end(job, state, true);
}

/* Say why the job will have no result, unless it has ended, or has a
   failure. */
static void
set_failure_locked (rs_job *job, const char *failure)
{
  if (rs_job_state_final(rs_job_state_now(job)))
    return;
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL && more->failure == NULL)
    more->failure = strdup(failure);
}

void
rs_job_end_queued (rs_job *job, rs_reason reason)
{
  rs_queue *const q = job->queue;
  rs_error err;
  const bool deserted = q->is_deserted != NULL && q->is_deserted(q, &err);
  rs_job_lock(job);
  if (deserted)
    set_failure_locked(job, err.text);
  if (!rs_job_state_final(rs_job_state_now(job)))
    rs_wish_make(&job->call.wish, reason, 0);
  rs_job_unlock(job);
  end(job, rs_reason_state(reason), false);
}

void
rs_job_fail (rs_job *job, const char *failure)
{
  rs_job_lock(job);
  set_failure_locked(job, failure);
  rs_job_unlock(job);
  end(job, RS_JOB_FAILED, false);
}

void
rs_job_hold_call (void *call)
{
  rs_job_ref(rs_job_of(call));
}

void
rs_job_lose_call (void *call)
{
  rs_job *const job = rs_job_of(call);
  char place[RS_PLACE];
  rs_job_lock(job);
  if (job->runner != NULL
      && rs_cancel_place(job->runner, place, sizeof place))
    set_failure_locked(job, place);
  rs_job_unlock(job);
  end(job, RS_JOB_LOST, false);
  rs_job_unref(job);
}

/* ---------------------------------------------------------------- stopping */

int
rs_job_stop (rs_job *job, rs_reason reason, double grace)
{
  if (!(grace >= 0))
    grace = RS_GRACE;
  rs_job_lock(job);
  const rs_job_state state = rs_job_state_now(job);
  const bool ended = rs_job_state_final(state);
  if (!ended)
    rs_wish_make(&job->call.wish, reason, grace);
  if (state == RS_JOB_RUNNING)
    rs_job_set_state_locked(job, RS_JOB_STOPPING);
  const bool runs = state == RS_JOB_RUNNING || state == RS_JOB_STOPPING;
  rs_cancel *const runner = runs ? rs_cancel_ref(job->runner) : NULL;
  rs_job_unlock(job);
  if (ended)
    return RS_EDONE;
  const bool ok = runner == NULL
               || rs_cancel_request(runner, &job->call, reason, grace);
  rs_cancel_unref(runner);
  if (runner == NULL
      && job->queue->claim(job->queue, job, RS_CLAIM_TO_END)) {
    rs_job_end_queued(job, reason);
    rs_job_unref(job);
  }
  return ok ? RS_OK : RS_ETHREAD;
}

int
rs_job_cancel (rs_job *job, double grace)
{
  /* A grace below 0 is the default; NaN is neither that nor a time. */
  if (job == NULL || grace != grace || rs_job_foreign(job))
    return RS_EINVAL;
  return rs_job_stop(job, RS_REASON_CANCELLED, grace);
}

void
rs_job_orphan (rs_job *job)
{
  if (job != NULL && !rs_job_foreign(job))
    rs_job_stop(job, RS_REASON_PARENT, rs_cancel_grace(rs_cancel_mine()));
}

/* Why the job has no place: it is in 'state', or did not say for 'status'. */
static int
fail_traceback (rs_job_state state, int status, double timeout, rs_error *err)
{
  if (rs_job_state_final(state))
    return rs_fail(err, RS_EDONE, "the job has ended (%s)",
                   rs_job_state_name(state));
  switch (status) {
    case RS_EBUSY:
      return rs_fail(err, status, "the job is queued");
    case RS_EREFUSED:
      return rs_fail(err, status, "the job cannot be asked where it is: its "
                                  "pool has no signal, or its workers are "
                                  "behind a broker");
    case RS_ETIMEOUT:
      return rs_fail(err, status, "the job has not told where it is within "
                                  "%g s", timeout);
    default:
      return rs_fail_plain(err, status);
  }
}

int
rs_job_traceback (rs_job *job, double timeout, char *text, size_t size,
                  rs_error *err)
{
  if (job == NULL || text == NULL)
    return rs_fail_null(err, job == NULL ? "job" : "text");
  if (size == 0 || !(timeout > 0))
    return rs_fail(err, RS_EINVAL, "%s has to be positive",
                   size == 0 ? "size" : "timeout");
  if (rs_job_foreign(job))
    return rs_fork_fail(err, "job");
  const double deadline = rs_deadline(timeout);
  rs_job_state state;
  int status;
  do {  /* while the job is between two attempts */
    rs_job_lock(job);
    state = rs_job_state_now(job);
    const bool runs = state == RS_JOB_RUNNING || state == RS_JOB_STOPPING;
    rs_cancel *const runner = runs ? rs_cancel_ref(job->runner) : NULL;
    rs_job_unlock(job);
    status = runner == NULL ? RS_EBUSY
           : rs_cancel_trace(runner, &job->call, deadline, text, size);
    rs_cancel_unref(runner);
    if (status == RS_EDONE) {
      const struct timespec moment = { .tv_nsec = 100000 };
      nanosleep(&moment, NULL);
      status = RS_ETIMEOUT;
    }
    else if (status != RS_ETIMEOUT)
      break;
  } while (rs_now() < deadline);
  return status == RS_OK ? RS_OK
       : fail_traceback(rs_job_state_now(job), status, timeout, err);
}

/* rs_timer: the deadline has passed. */
static void
on_deadline (rs_timer *timer)
{
  rs_job_stop(RS_LIST_ENTRY(timer, rs_job_more, timer)->job,
              RS_REASON_DEADLINE, RS_GRACE);
}

bool
rs_job_set_deadline (rs_job *job, double deadline)
{
  rs_job_more *const more = rs_job_get_more(job);
  if (more == NULL)
    return false;
  rs_timer_init(&more->timer, on_deadline);
  return rs_timer_set(&more->timer, deadline);
}

/* ----------------------------------------------------------------- running */

/* Set the job running; false when it was asked to stop before, or was lost
   between two attempts. */
static bool
begin (rs_job *job, const rs_runner *r)
{
  rs_job_lock(job);
  const bool go = rs_wish_reason(&job->call.wish) == RS_REASON_NONE
               && !rs_job_state_final(rs_job_state_now(job));
  const bool first = job->attempts == 0;
  if (go) {
    if (first)
      job->started = rs_now();
    job->attempts++;
    job->worker = r->worker;
    job->runner = r->cancel;
    rs_job_set_state_locked(job, RS_JOB_RUNNING);
  }
  rs_job_unlock(job);
  if (go && first && rs_job_wants(job, RS_LISTEN_STARTED))
    rs_job_notify(job);
  if (go && (job->call.flags & RS_CALL_PACED) != 0)
    rs_job_hooks_of(job)->on_begin(job);
  return go;
}

/* The job has not begun there after all. */
static void
unbegin (rs_job *job)
{
  rs_job_lock(job);
  job->attempts--;
  rs_job_unlock(job);
}

bool
rs_job_requeue (rs_job *job)
{
  rs_job_lock(job);
  const bool live = !rs_job_state_final(rs_job_state_now(job));
  if (live) {
    job->runner = NULL;
    rs_job_set_state_locked(job, RS_JOB_QUEUED);
  }
  rs_job_unlock(job);
  return live;
}

/* Note where the job ran, which is known when it has begun there. */
static void
set_host (rs_job *job, const rs_runner *r)
{
  rs_job_lock(job);
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL)
    more->host = r->host;
  rs_job_unlock(job);
}

rs_job_state
rs_job_execute (rs_job *job, rs_runner *r)
{
  rs_call *const call = &job->call;
  unsigned attempt;
  do {
    if (!begin(job, r))
      return rs_reason_state(rs_wish_reason(&call->wish));
    attempt = call->attempt;
    r->kind->run(r, call, &rs_job_sink);
    if (r->host != NULL)
      set_host(job, r);
    if (rs_job_foreign(job))  /* has the job forked, and is this the child? */
      return RS_JOB_FAILED;
    if (job->blocked) {  /* was its wait broken off? */
      job->queue->unblock(job->queue);
      job->blocked = false;
    }
    job->put_off = call->state == RS_JOB_QUEUED && call->attempt != attempt
               && rs_job_pauses(job);
  } while (call->state == RS_JOB_QUEUED && !job->put_off
           && !r->kind->spent(r));
  if (call->state == RS_JOB_QUEUED && call->attempt == attempt)
    unbegin(job);
  return call->state;
}
