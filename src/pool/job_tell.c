/* SPDX-License-Identifier: MIT */
/*
 * job_tell.c - what a job tells, and how its host hears of it.
 *
 * A job that runs sends records to its log, and emits events; both wait at the
 * job until the host takes them, in the order in which they were sent.  The
 * host is told of them, and of the job's beginning and end, by the notice of
 * the job, which is queued at the host's events.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/options.h"
#include "pool/face.h"

void
rs_job_notify (rs_job *job)
{
  rs_job_ref(job);
  if (!rs_events_post(job->events, &job->notice))
    rs_job_unref(job);
}

bool
rs_job_wants (const rs_job *job, unsigned what)
{
  return job->events != NULL
      && ((rs_job_listening(job) | rs_events_listening(job->events))
          & what) != 0;
}

/* ------------------------------------------------------ records and events */

/* rs_call_sink: the job, which runs on this thread, sends a record. */
static void
on_record (rs_call *call, rs_stream_record *record)
{
  rs_job *const job = rs_job_of(call);
  const unsigned stream = 1u << record->info.stream;
  if (rs_job_foreign(job)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_job_lock(job);
  rs_stream_log_add(&rs_job_more_of(job)->log, record);
  rs_job_unlock(job);
  if (rs_job_wants(job, stream))
    rs_job_notify(job);
  else if (rs_job_listening(job) & RS_LISTEN_WAKE)
    rs_events_wake(job->events);
}

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* rs_call_sink: the job, which runs on this thread, emits an event. */
static void
on_emit (rs_call *call, rs_stream_record *record)
{
  rs_job *const job = rs_job_of(call);
  rs_events *const e = job->events;
  if (e == NULL || (call->flags & RS_JOB_DEAF)  /* does nobody take it? */
      || rs_job_foreign(job)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_job_more *const more = rs_job_more_of(job);
  const _Atomic bool *const stop = call->chunk != NULL ? call->chunk->stop
                                                       : NULL;
  rs_cancel *const mine = rs_cancel_mine();
  const rs_sleeper sleeper = rs_job_sleeper(job);
  rs_cancel_sleeps(mine, &sleeper);
  rs_job_lock(job);
  /* A thread that waits for the end of the job takes no events, so the job
     does not wait for that thread to take any. */
  while (more->waiting >= RS_EVENTS_MAX && job->waiters == 0
         && !rs_events_mine(e)
         && !rs_cancel_stopping(mine) && !is_set(stop)
         && !rs_events_closed(e))
    rs_job_wait_locked(job, RS_NEVER);
  record->info.sequence = rs_stream_log_skip(&more->log);
  rs_list_push(&more->emitted, &record->link);
  more->waiting++;
  rs_job_unlock(job);
  rs_cancel_wakes(mine);
  rs_job_notify(job);
}

static bool
is_ready (rs_call *call)
{
  rs_job *const job = rs_job_of(call);
  return !rs_job_foreign(job) && rs_job_get_more(job) != NULL;
}

static const char *
on_name (rs_call *call)
{
  return rs_job_name(rs_job_of(call));
}

static void
on_failed (rs_call *call, const char *why)
{
  rs_job *const job = rs_job_of(call);
  rs_job_lock(job);
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL && more->failure == NULL)
    more->failure = strdup(why);
  rs_job_unlock(job);
}

const rs_call_sink rs_job_sink = {
  .record = on_record, .emit = on_emit, .ready = is_ready, .name = on_name,
  .failed = on_failed
};

rs_stream_record *
rs_job_record (rs_job *job, uint64_t after)
{
  rs_job_more *const more = job != NULL ? rs_job_more_of(job) : NULL;
  if (more == NULL || rs_job_foreign(job))
    return NULL;
  rs_job_lock(job);
  rs_stream_record *const record = rs_stream_log_after(&more->log, after);
  if (record != NULL)
    rs_stream_record_ref(record);
  rs_job_unlock(job);
  return record;
}

/* The next record or event that the host was not told of, a reference; or
   NULL. */
static rs_stream_record *
deliver_locked (rs_job_more *more)
{
  rs_stream_record *next = rs_stream_log_after(&more->log, more->delivered);
  rs_stream_record *const event = rs_list_empty(&more->emitted) ? NULL
    : RS_LIST_ENTRY(more->emitted.next, rs_stream_record, link);
  if (event != NULL
      && (next == NULL || event->info.sequence < next->info.sequence)) {
    next = event;
    rs_list_remove(&event->link);
    more->waiting--;
  }
  else if (next != NULL)
    rs_stream_record_ref(next);
  if (next != NULL)
    more->delivered = next->info.sequence;
  return next;
}

rs_stream_record *
rs_job_deliver (rs_job *job)
{
  rs_job_more *const more = job != NULL ? rs_job_more_of(job) : NULL;
  if (more == NULL || rs_job_foreign(job))
    return NULL;
  rs_job_lock(job);
  rs_stream_record *const next = deliver_locked(more);
  rs_job_unlock_and_tell(job);
  return next;
}

uint64_t
rs_job_delivered (rs_job *job)
{
  const rs_job_more *const more = job != NULL ? rs_job_more_of(job) : NULL;
  return more != NULL ? more->delivered : 0;  /* for the host's thread only */
}

/* ---------------------------------------------------------------- the host */

bool
rs_job_settled (const rs_job *job)
{
  /* Sequentially consistent: see 'rs_events_stir'. */
  return job != NULL && (atomic_load(&job->refs) & RS_JOB_SETTLED) != 0;
}

static bool
is_settled (const void *job)
{
  return rs_job_settled(job);
}

int
rs_job_await (rs_job *job, double timeout)
{
  if (job == NULL || job->events == NULL || rs_job_foreign(job)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  return rs_events_wait_for(job->events, timeout, is_settled, job);
}

bool
rs_job_look (rs_job *job)
{
  if (job == NULL || job->events == NULL)
    return rs_job_settled(job);
  return rs_events_look_for(job->events, is_settled, job);
}

void
rs_job_listen (rs_job *job, unsigned mask)
{
  if (job == NULL || job->events == NULL || rs_job_foreign(job))
    return;
  rs_job_lock(job);
  atomic_fetch_or_explicit(&job->listen, mask, memory_order_relaxed);
  rs_job_unlock(job);
  if (mask & ~(unsigned) RS_LISTEN_WAKE)
    rs_job_notify(job);
}

void
rs_job_see (rs_job *job)
{
  if (job == NULL)
    return;
  /* The thread that ends or forgets the job reads the flag; no other data are
     published with it. */
  atomic_store_explicit(&job->seen, true, memory_order_relaxed);
}

void
rs_job_forget (rs_job *job)
{
  if (job == NULL)
    return;
  bool report = false;
  if (!rs_job_state_good(rs_job_state_now(job)) && !rs_job_foreign(job)) {
    rs_job_lock(job);
    job->forgotten = true;
    report = rs_job_state_bad(rs_job_state_now(job)) && !rs_job_seen(job);
    rs_job_unlock(job);
  }
  if (report && job->events != NULL)
    rs_job_notify(job);
  rs_job_unref(job);
}

/* ---------------------------------------------------- the events of a host */

rs_job *
rs_events_next (rs_events *events)
{
  rs_notice *const n = events != NULL && !rs_events_foreign(events)
                     ? rs_events_take(events) : NULL;
  return n != NULL ? rs_job_of_notice(n) : NULL;
}

/* A list of live jobs. */
typedef struct some_jobs {
  rs_job **jobs;
  size_t room, n;
} some_jobs;

/* Add the job to the list, with a reference, unless it has ended, or is being
   freed. */
static void
collect (rs_job *job, void *ud)
{
  some_jobs *const some = ud;
  unsigned refs = atomic_load_explicit(&job->refs, memory_order_relaxed);
  bool live = refs > 0 && refs < RS_JOB_SETTLED;
  while (live && some->n < some->room
         && !atomic_compare_exchange_weak_explicit(&job->refs, &refs,
                                                   refs + 1,
                                                   memory_order_acquire,
                                                   memory_order_relaxed))
    live = refs > 0 && refs < RS_JOB_SETTLED;
  if (!live)
    return;
  if (some->n < some->room)
    some->jobs[some->n] = job;
  some->n++;
}

size_t
rs_events_jobs (rs_events *events, rs_job **out, size_t room)
{
  some_jobs some = { out, out != NULL ? room : 0, 0 };
  if (events == NULL || rs_events_foreign(events))
    return 0;
  rs_jobs_visit(events, collect, &some);
  return some.n;
}

/* Wake the jobs that wait for the host to take events: they look again. */
static void
stir_all (rs_events *events)
{
  rs_job *some[64];
  size_t n, room = sizeof some / sizeof some[0];
  rs_job **list = some;
  while ((n = rs_events_jobs(events, list, room)) > room) {
    for (size_t i = 0; i < room; i++)
      rs_job_unref(list[i]);
    rs_job **const more = realloc(list != some ? list : NULL,
                                  2 * n * sizeof *list);
    if (more == NULL) {
      n = 0;
      break;
    }
    list = more;
    room = 2 * n;
  }
  for (size_t i = 0; i < n; i++) {
    rs_job_stir(list[i]);
    rs_job_unref(list[i]);
  }
  if (list != some)
    free(list);
}

void
rs_events_close (rs_events *events)
{
  rs_job *job;
  if (events == NULL || rs_events_foreign(events))
    return;
  rs_events_set_closed(events);
  while ((job = rs_events_next(events)) != NULL)
    rs_job_unref(job);
  stir_all(events);
}

void
rs_events_unref (rs_events *events)
{
  if (events == NULL || rs_events_foreign(events)
      || !rs_events_give_back(events))
    return;
  if (!rs_events_closed(events))
    rs_events_close(events);
  rs_events_drop(events);
}
