/* SPDX-License-Identifier: MIT */
/*
 * job.c - a job: one call, its state, its result.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/level.h"
#include "base/options.h"
#include "pool/face.h"
#include "state/rebuild.h"
#include "base/status.h"

const char *
rs_job_state_name (rs_job_state state)
{
  static const char *const names[] = {
    [RS_JOB_QUEUED] = "queued",
    [RS_JOB_RUNNING] = "running",
    [RS_JOB_STOPPING] = "stopping",
    [RS_JOB_COMPLETED] = "completed",
    [RS_JOB_COMPLETED_WITH_ERRORS] = "completed_with_errors",
    [RS_JOB_FAILED] = "failed",
    [RS_JOB_TIMED_OUT] = "timed_out",
    [RS_JOB_CANCELLED] = "cancelled",
    [RS_JOB_LOST] = "lost",
  };
  return (size_t) state < sizeof names / sizeof names[0] ? names[state] : "?";
}

/* -------------------------------------------------------------- life cycle */

uint64_t
rs_job_next_id (void)
{
  static _Atomic uint64_t last;
  return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

void
rs_job_make_name (char *text, const char *prefix, uint64_t id)
{
  snprintf(text, RS_JOB_NAME, "%s-%llu", prefix, (unsigned long long) id);
}

static void on_deadline (rs_timer *timer);
static void job_free (rs_job *job);

static rs_job *
of_notice (rs_notice *n)
{
  return RS_LIST_ENTRY(n, rs_job, notice);
}

void
rs_job_locks_init (rs_job_lock locks[RS_JOB_LOCKS])
{
  for (int i = 0; i < RS_JOB_LOCKS; i++) {
    rs_mutex_init(&locks[i].mutex);
    rs_cond_init(&locks[i].changed);
  }
}

void
rs_job_locks_fini (rs_job_lock locks[RS_JOB_LOCKS])
{
  for (int i = 0; i < RS_JOB_LOCKS; i++) {
    pthread_mutex_destroy(&locks[i].mutex);
    pthread_cond_destroy(&locks[i].changed);
  }
}

static rs_job_lock *
lock_of (const rs_job *job)
{
  return &job->queue->locks[(uintptr_t) job / RS_LINE % RS_JOB_LOCKS];
}

/* Lock the job.  From now on its worker takes the lock, too; or the worker was
   quicker, and what it has written is seen.  No thread holds the locks of two
   jobs. */
static void
lock (rs_job *job)
{
  pthread_mutex_lock(&lock_of(job)->mutex);
  if (!(atomic_load_explicit(&job->state, memory_order_relaxed)
        & RS_JOB_WATCHED))
    atomic_fetch_or_explicit(&job->state, RS_JOB_WATCHED,
                             memory_order_acq_rel);
}

static void
unlock (rs_job *job)
{
  pthread_mutex_unlock(&lock_of(job)->mutex);
}

/* The value of 'state', without RS_JOB_WATCHED. */
static int
state_and (rs_job_state state, rs_reason reason)
{
  return (int) state | (int) reason << RS_JOB_REASON;
}

/* Change the state as the job's worker, if no thread has taken the lock. */
static bool
pass (rs_job *job, rs_job_state from, int to)
{
  int was = (int) from;
  return atomic_compare_exchange_strong_explicit(&job->state, &was, to,
                                                 memory_order_acq_rel,
                                                 memory_order_relaxed);
}

static unsigned
listening (const rs_job *job)
{
  return atomic_load_explicit(&job->listen, memory_order_relaxed);
}

/* The parts that most jobs do not have, or NULL; with or without the lock. */
static rs_job_more *
more_of (const rs_job *job)
{
  return atomic_load_explicit(&job->more, memory_order_acquire);
}

/* The parts that most jobs do not have, made if need be; NULL when out of
   memory. */
static rs_job_more *
get_more_locked (rs_job *job)
{
  rs_job_more *more = more_of(job);
  if (more == NULL && (more = calloc(1, sizeof *more)) != NULL) {
    rs_timer_init(&more->timer, on_deadline);
    rs_stream_log_init(&more->log);
    rs_list_init(&more->emitted);
    more->job = job;
    atomic_store_explicit(&job->more, more, memory_order_release);
    job->rich = true;
  }
  return more;
}

static rs_job_more *
get_more (rs_job *job)
{
  lock(job);
  rs_job_more *const more = get_more_locked(job);
  unlock(job);
  return more;
}

/* Name a job that no other thread sees yet.  False when out of memory. */
static bool
set_name (rs_job *job, const char *name)
{
  rs_job_more *const more = get_more_locked(job);
  return more != NULL && (more->name = strdup(name)) != NULL;
}

static bool
set_user (rs_job *job, void *user)
{
  rs_job_more *const more = get_more_locked(job);
  if (more != NULL)
    more->user = user;
  return more != NULL;
}

void *
rs_job_user (const rs_job *job)
{
  const rs_job_more *const more = job != NULL ? more_of(job) : NULL;
  return more != NULL ? more->user : NULL;
}

rs_job *
rs_job_new (rs_queue *queue, rs_message *function,
            const rs_job_options *options, const rs_job_part *part)
{
  static const rs_job_options defaults;
  if (options == NULL)
    options = &defaults;
  /* The id comes first, since atomic operations wait for what was written
     before. */
  const uint64_t id = rs_job_next_id();
  rs_job *const job = rs_job_alloc(queue, options->events, function,
                                   part != NULL ? part->size : 0);
  if (job == NULL)
    return NULL;
  atomic_init(&job->state, RS_JOB_QUEUED);
  rs_list_init(&job->link);
  rs_list_init(&job->notice.queued);
  job->call.id = id;
  job->call.keep = function->constant;
  job->call.attempt = 1;
  job->call.timeout = options->timeout;
  job->call.retries = options->retries;
  job->call.retry_on = (uint8_t) (options->retry_on != RS_RETRY_DEFAULT
                                  ? options->retry_on
                                  : RS_RETRY_ERROR | RS_RETRY_TIMEOUT);
  job->priority = (int8_t) options->priority;
  job->slot = options->slot;
  job->created = part != NULL && part->created > 0 ? part->created : rs_now();
  atomic_init(&job->listen, options->listen);
  if ((options->name != NULL && !set_name(job, options->name))
      || (options->user != NULL && !set_user(job, options->user))) {
    job_free(job);
    return NULL;
  }
  if (part != NULL) {
    job->batch = part->batch;
    job->call.id = part->id;
    job->call.flags = (uint8_t) part->flags;
  }
  /* Release: a thread that finds the job by its events finds all of that. */
  atomic_store_explicit(&job->refs, 2, memory_order_release);
  return job;
}

size_t
rs_job_bytes (const rs_job *job)
{
  return rs_message_size(job->call.function)
       + (job->call.arguments != NULL ? rs_message_size(job->call.arguments)
                                      : 0);
}

static void
more_free (rs_job_more *more)
{
  rs_list *link;
  rs_timer_clear(&more->timer);
  rs_stream_log_fini(&more->log);
  while ((link = rs_list_shift(&more->emitted)) != NULL)
    rs_stream_record_unref(RS_LIST_ENTRY(link, rs_stream_record, link));
  free(more->name);
  free(more->failure);
  rs_message_unref(more->refusal);
  free(more);
}

bool
rs_job_set_deadline (rs_job *job, double deadline)
{
  rs_job_more *const more = get_more(job);
  return more != NULL && rs_timer_set(&more->timer, deadline);
}

rs_job *
rs_job_ref (rs_job *job)
{
  if (job != NULL)
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
  return job;
}

static const rs_job_hooks *
hooks_of (const rs_job *job)
{
  return (const void *) job->batch;
}

static void
job_free (rs_job *job)
{
  if (rs_job_foreign(job))
    return;
  if (job->rich)
    more_free(more_of(job));
  if (job->batch != NULL)
    hooks_of(job)->on_free(job);
  rs_message_unref(job->call.arguments);
  rs_message_unref(job->call.result);
  rs_job_dealloc(job);
}

void
rs_job_unref (rs_job *job)
{
  /* Release our reads and writes to the thread that frees.  A thread that has
     the last reference takes it from nobody, so it does not count: most often
     that thread has the handle. */
  if (job != NULL
      && (atomic_load_explicit(&job->refs, memory_order_acquire)
            == (RS_JOB_SETTLED | 1)
          || (atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel)
              & ~RS_JOB_SETTLED) == 1))
    job_free(job);
}

/* -------------------------------------------------- what it tells its host */

/* Queue the notice of the job at its events: there is something new. */
static void
notify (rs_job *job)
{
  rs_job_ref(job);
  if (!rs_events_post(job->events, &job->notice))
    rs_job_unref(job);
}

static rs_job *
job_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, rs_job, call);
}

static void
tell_locked (rs_job *job)
{
  if (job->waiters > 0)
    pthread_cond_broadcast(&lock_of(job)->changed);
}

/* Wait for a change of the job.  RS_OK may be spurious, or come from another
   job. */
static int
wait_locked (rs_job *job, double deadline)
{
  rs_job_lock *const l = lock_of(job);
  return rs_cond_wait_counted(&l->changed, &l->mutex, deadline,
                              &job->waiters);
}

void
rs_job_stir (rs_job *job)
{
  lock(job);
  tell_locked(job);
  unlock(job);
}

static void
stir_object (void *object)
{
  rs_job_stir(object);
}

static void
ref_object (void *object)
{
  rs_job_ref(object);
}

static void
unref_object (void *object)
{
  rs_job_unref(object);
}

/* A sleeper for a thread that waits at 'job' and may be stopped there. */
static rs_sleeper
sleeper_at (rs_job *job)
{
  return (rs_sleeper) {
    .wake = stir_object, .ref = ref_object, .unref = unref_object,
    .object = job
  };
}

/* True for the final states of which a host should hear, unless it has
   looked. */
static bool
is_bad (rs_job_state state)
{
  return state == RS_JOB_FAILED || state == RS_JOB_TIMED_OUT
      || state == RS_JOB_LOST;
}

/* True when the host wants to hear of 'what'. */
static bool
wanted (const rs_job *job, unsigned listen, unsigned what)
{
  return job->events != NULL
      && ((listen | rs_events_listening(job->events)) & what) != 0;
}

/* rs_call_sink: the job, which runs on this thread, sends a record. */
static void
on_record (rs_call *call, rs_stream_record *record)
{
  rs_job *const job = job_of(call);
  const unsigned what = 1u << record->info.stream;
  if (rs_job_foreign(job)) {
    rs_stream_record_unref(record);
    return;
  }
  lock(job);
  rs_stream_log_add(&more_of(job)->log, record);
  const unsigned listen = listening(job);
  unlock(job);
  if (wanted(job, listen, what))
    notify(job);
  else if (listen & RS_LISTEN_WAKE)
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
  rs_job *const job = job_of(call);
  rs_events *const e = job->events;
  if (e == NULL || (call->flags & RS_JOB_DEAF)  /* does nobody take it? */
      || rs_job_foreign(job)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_job_more *const more = more_of(job);
  const _Atomic bool *const stop = call->chunk != NULL ? call->chunk->stop
                                                       : NULL;
  rs_cancel *const mine = rs_cancel_mine();
  const rs_sleeper sleeper = sleeper_at(job);
  rs_cancel_sleeps(mine, &sleeper);
  lock(job);
  /* A thread that waits for the end of the job takes no events, so the job
     does not wait for that thread to take any. */
  while (more->waiting >= RS_EVENTS_MAX && job->waiters == 0
         && !rs_events_mine(e)
         && !rs_cancel_stopping(mine) && !is_set(stop)
         && !rs_events_closed(e))
    wait_locked(job, RS_NEVER);
  record->info.sequence = rs_stream_log_skip(&more->log);
  rs_list_push(&more->emitted, &record->link);
  more->waiting++;
  unlock(job);
  rs_cancel_wakes(mine);
  notify(job);
}

static bool
is_ready (rs_call *call)
{
  rs_job *const job = job_of(call);
  return !rs_job_foreign(job) && get_more(job) != NULL;
}

const char *
rs_job_name (rs_job *job)
{
  if (job == NULL || rs_job_foreign(job))
    return NULL;
  lock(job);
  rs_job_more *const more = get_more_locked(job);
  if (more != NULL && more->name == NULL) {
    char text[RS_JOB_NAME];
    rs_job_make_name(text, "job", job->call.id);
    more->name = strdup(text);
  }
  const char *const name = more != NULL && more->name != NULL ? more->name
                                                              : "job";
  unlock(job);
  return name;
}

static const char *
on_name (rs_call *call)
{
  return rs_job_name(job_of(call));
}

static const rs_call_sink sink = {
  .record = on_record, .emit = on_emit, .ready = is_ready, .name = on_name
};

rs_stream_record *
rs_job_record (rs_job *job, uint64_t after)
{
  rs_job_more *const more = job != NULL ? more_of(job) : NULL;
  if (more == NULL || rs_job_foreign(job))
    return NULL;
  lock(job);
  rs_stream_record *const record = rs_stream_log_after(&more->log, after);
  if (record != NULL)
    rs_stream_record_ref(record);
  unlock(job);
  return record;
}

/* The next record or event that the host was not told of, a reference; or
   NULL. */
static rs_stream_record *
deliver_locked (rs_job *job, rs_job_more *more)
{
  rs_stream_record *next = rs_stream_log_after(&more->log, more->delivered);
  rs_stream_record *const event = rs_list_empty(&more->emitted) ? NULL
    : RS_LIST_ENTRY(more->emitted.next, rs_stream_record, link);
  if (event != NULL
      && (next == NULL || event->info.sequence < next->info.sequence)) {
    next = event;
    rs_list_remove(&event->link);
    more->waiting--;
    tell_locked(job);
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
  rs_job_more *const more = job != NULL ? more_of(job) : NULL;
  if (more == NULL || rs_job_foreign(job))
    return NULL;
  lock(job);
  rs_stream_record *const next = deliver_locked(job, more);
  unlock(job);
  return next;
}

uint64_t
rs_job_delivered (rs_job *job)
{
  const rs_job_more *const more = job != NULL ? more_of(job) : NULL;
  return more != NULL ? more->delivered : 0;  /* for the host's thread only */
}

bool
rs_job_settled (const rs_job *job)
{
  /* Sequentially consistent: see 'rs_events_stir'. */
  return job != NULL && (atomic_load(&job->refs) & RS_JOB_SETTLED) != 0;
}

unsigned *
rs_job_slot (rs_job *job)
{
  return job != NULL ? &job->slot : NULL;
}

static bool
is_settled (const void *job)
{
  return rs_job_settled(job);
}

/* Prefetch the lines that a host takes a small result from, both at once. */
static void
prefetch_result (const rs_job *job)
{
  const char *const at = (const char *) &job->state;
  __builtin_prefetch(at);
  __builtin_prefetch(at + RS_LINE);
}

int
rs_job_await (rs_job *job, double timeout)
{
  if (job == NULL || job->events == NULL || rs_job_foreign(job)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  const int status = rs_events_wait_for(job->events, timeout, is_settled, job);
  prefetch_result(job);
  return status;
}

bool
rs_job_look (rs_job *job)
{
  if (job == NULL || job->events == NULL)
    return rs_job_settled(job);
  const bool there = rs_events_look_for(job->events, is_settled, job);
  prefetch_result(job);
  return there;
}

static void
set_state_locked (rs_job *job, int state)
{
  atomic_store_explicit(&job->state, state | RS_JOB_WATCHED,
                        memory_order_release);
}

void
rs_job_listen (rs_job *job, unsigned mask)
{
  if (job == NULL || job->events == NULL || rs_job_foreign(job))
    return;
  lock(job);
  atomic_fetch_or_explicit(&job->listen, mask, memory_order_relaxed);
  unlock(job);
  if (mask & ~(unsigned) RS_LISTEN_WAKE)
    notify(job);
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
    lock(job);
    job->forgotten = true;
    report = is_bad(rs_job_state_now(job)) && !is_set(&job->seen);
    unlock(job);
  }
  if (report && job->events != NULL)
    notify(job);
  rs_job_unref(job);
}

rs_job *
rs_events_next (rs_events *events)
{
  rs_notice *const n = events != NULL && !rs_events_foreign(events)
                     ? rs_events_take(events) : NULL;
  return n != NULL ? of_notice(n) : NULL;
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

/* ----------------------------------------------------------------- running */

/* Count the job, or its items, as ended in 'state'; 'n' is 1, or (size_t) -1
   to take the count back. */
static void
count (rs_job *job, rs_job_state state, size_t n)
{
  rs_queue *const q = job->queue;
  const rs_chunk *const chunk = job->call.chunk;
  if (chunk == NULL)
    q->ended(q, state, n);
  else if (state != RS_JOB_LOST) {
    for (int i = RS_JOB_COMPLETED; i <= RS_JOB_LOST; i++)
      q->ended(q, (rs_job_state) i, n * chunk->ended[i]);
  }
}

/* Mark the job as settled. */
static void
settle (rs_notice *n)
{
  atomic_fetch_or(&of_notice(n)->refs, RS_JOB_SETTLED);
}

/* True when the job has ended after its deadline, though the timer has not
   fired yet. */
static bool
is_late (const rs_job *job)
{
  const rs_job_more *const more = more_of(job);
  return more != NULL && job->finished > more->timer.due;
}

/* Set the final state of the job, under its lock; false when it has one.
   '*state' may change to what the job ends as.  '*report': somebody should
   hear of the end. */
static bool
set_watched_end (rs_job *job, rs_job_state *state, rs_reason reason,
                 bool *report)
{
  lock(job);
  const bool first = !rs_job_state_final(rs_job_state_now(job));
  atomic_store_explicit(&job->runner, NULL, memory_order_relaxed);
  if (first) {
    /* The thread that asked the job to stop was told that it had not ended. */
    const rs_reason wish = rs_wish_reason(&job->call.wish);
    if (wish != RS_REASON_NONE && *state != RS_JOB_LOST) {
      *state = rs_reason_state(wish);
      reason = wish;
    }
    job->finished = rs_now();
    if (rs_job_state_good(*state) && is_late(job)) {
      *state = RS_JOB_TIMED_OUT;
      reason = RS_REASON_DEADLINE;
    }
    count(job, *state, 1);  /* before any thread sees the end */
    set_state_locked(job, state_and(*state, reason));
    tell_locked(job);
  }
  *report = job->forgotten && is_bad(*state) && !is_set(&job->seen);
  rs_job_more *const more = more_of(job);
  unlock(job);
  if (more != NULL)
    rs_timer_clear(&more->timer);
  return first;
}

/* Set the final state, without the lock if this worker has run the job
   ('mine') and no thread has looked at it; otherwise as 'set_watched_end'.
   '*post': the host is to be told. */
static bool
set_end (rs_job *job, rs_job_state *state, rs_reason reason, bool mine,
         bool *post)
{
  bool report = false;
  if (mine && atomic_load_explicit(&job->state, memory_order_relaxed)
              == RS_JOB_RUNNING) {
    job->finished = rs_now();
    count(job, *state, 1);
    mine = pass(job, RS_JOB_RUNNING, state_and(*state, reason));
    if (!mine)
      count(job, *state, (size_t) -1);
  }
  else
    mine = false;
  if (!mine && !set_watched_end(job, state, reason, &report))
    return false;
  /* A batch wakes the host itself. */
  *post = job->events != NULL && job->batch == NULL
       && (report || wanted(job, listening(job), RS_LISTEN_FINISHED));
  return true;
}

/*
 * End the job, for 'reason'; only the first end counts.  A job that was asked
 * to stop ends as stopped, whatever it made of the request.  With 'leave' the
 * caller's reference is given up, and the caller keeps the events.
 */
static void
end (rs_job *job, rs_job_state state, rs_reason reason, bool leave)
{
  bool post;
  if (rs_job_foreign(job))  /* has the job forked, and is this the child? */
    return;
  if (!set_end(job, &state, reason, leave, &post)) {
    if (leave)
      rs_job_unref(job);
    return;
  }
  if (job->batch != NULL)
    hooks_of(job)->on_end(job);
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
    job_free(job);
}

void
rs_job_end (rs_job *job, rs_job_state state)
{
  end(job, state, job->call.reason, false);
}

void
rs_job_serve (rs_job *job, rs_events **served)
{
  if (*served == job->events)
    return;
  rs_events_unref(*served);
  *served = rs_events_ref(job->events);
}

void
rs_job_end_served (rs_job *job, rs_job_state state)
{
  end(job, state, job->call.reason, true);
}

/* Say why the job will have no result, unless it has ended, or has a
   failure. */
static void
set_failure_locked (rs_job *job, const char *failure)
{
  if (rs_job_state_final(rs_job_state_now(job)))
    return;
  rs_job_more *const more = get_more_locked(job);
  if (more != NULL && more->failure == NULL)
    more->failure = strdup(failure);
}

static void
set_failure (rs_job *job, const char *failure)
{
  lock(job);
  set_failure_locked(job, failure);
  unlock(job);
}

void
rs_job_end_queued (rs_job *job, rs_reason reason)
{
  rs_queue *const q = job->queue;
  rs_error err;
  if (q->is_deserted != NULL && q->is_deserted(q, &err))
    set_failure(job, err.text);
  end(job, rs_reason_state(reason), reason, false);
}

void
rs_job_fail (rs_job *job, const char *failure)
{
  set_failure(job, failure);
  end(job, RS_JOB_FAILED, RS_REASON_NONE, false);
}

void
rs_job_hold_call (void *call)
{
  rs_job_ref(job_of(call));
}

void
rs_job_lose_call (void *call)
{
  rs_job *const job = job_of(call);
  char place[RS_PLACE];
  lock(job);
  const rs_cancel *const runner = atomic_load_explicit(&job->runner,
                                                       memory_order_relaxed);
  if (runner != NULL && rs_cancel_place(runner, place, sizeof place))
    set_failure_locked(job, place);
  unlock(job);
  end(job, RS_JOB_LOST, RS_REASON_NONE, false);
  rs_job_unref(job);
}

int
rs_job_stop (rs_job *job, rs_reason reason, double grace)
{
  if (!(grace >= 0))
    grace = RS_GRACE;
  lock(job);
  const rs_job_state state = rs_job_state_now(job);
  const bool ended = rs_job_state_final(state);
  if (!ended)
    rs_wish_make(&job->call.wish, reason, grace);
  if (state == RS_JOB_RUNNING)
    set_state_locked(job, RS_JOB_STOPPING);
  const bool runs = state == RS_JOB_RUNNING || state == RS_JOB_STOPPING;
  rs_cancel *const runner = !runs ? NULL
    : rs_cancel_ref(atomic_load_explicit(&job->runner, memory_order_relaxed));
  unlock(job);
  if (ended)
    return RS_EDONE;
  const bool ok = runner == NULL
               || rs_cancel_request(runner, &job->call, reason, grace);
  rs_cancel_unref(runner);
  if (runner == NULL && job->queue->claim(job->queue, job)) {
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
    rs_job_stop(job, RS_REASON_PARENT, RS_GRACE);
}

/* rs_timer: the deadline has passed. */
static void
on_deadline (rs_timer *timer)
{
  rs_job_stop(RS_LIST_ENTRY(timer, rs_job_more, timer)->job,
              RS_REASON_DEADLINE, RS_GRACE);
}

/* Set what is known of a job that begins. */
static void
set_begin (rs_job *job, const rs_runner *r, unsigned attempts)
{
  atomic_store_explicit(&job->runner, r->cancel, memory_order_relaxed);
  if (attempts == 1)
    atomic_store_explicit(&job->started, rs_now(), memory_order_relaxed);
  atomic_store_explicit(&job->worker, r->worker, memory_order_relaxed);
  atomic_store_explicit(&job->attempts, attempts, memory_order_relaxed);
}

/* Undo 'set_begin': the job has not begun after all. */
static void
forget_begin (rs_job *job)
{
  atomic_store_explicit(&job->runner, NULL, memory_order_relaxed);
  atomic_store_explicit(&job->started, 0, memory_order_relaxed);
  atomic_store_explicit(&job->worker, 0, memory_order_relaxed);
  atomic_store_explicit(&job->attempts, 0, memory_order_relaxed);
}

/* Set the job running; false when it was asked to stop before, or was lost
   between two attempts. */
static bool
begin (rs_job *job, const rs_runner *r)
{
  const unsigned attempts = 1 + atomic_load_explicit(&job->attempts,
                                                     memory_order_relaxed);
  bool go = false;
  if (atomic_load_explicit(&job->state, memory_order_relaxed)
      == RS_JOB_QUEUED) {
    set_begin(job, r, attempts);
    go = pass(job, RS_JOB_QUEUED, RS_JOB_RUNNING);
  }
  if (!go) {
    lock(job);
    go = rs_wish_reason(&job->call.wish) == RS_REASON_NONE
      && !rs_job_state_final(rs_job_state_now(job));
    if (go) {
      set_begin(job, r, attempts);
      set_state_locked(job, RS_JOB_RUNNING);
    }
    else if (attempts == 1)
      forget_begin(job);
    unlock(job);
  }
  if (go && attempts == 1 && wanted(job, listening(job), RS_LISTEN_STARTED))
    notify(job);
  return go;
}

rs_job_state
rs_job_execute (rs_job *job, rs_runner *r)
{
  rs_call *const call = &job->call;
  do {
    if (!begin(job, r))
      return rs_reason_state(rs_wish_reason(&call->wish));
    r->kind->run(r, call, &sink);
    if (rs_job_foreign(job))  /* has the job forked, and is this the child? */
      return RS_JOB_FAILED;
    if (job->blocked) {  /* was its wait broken off? */
      job->queue->unblock(job->queue);
      job->blocked = false;
    }
  } while (call->state == RS_JOB_QUEUED && !r->kind->spent(r));
  return call->state;
}

void
rs_job_run (rs_job *job, rs_state *s, lua_State *L)
{
  rs_job_state state;
  rs_state_runner r;
  rs_state_runner_init(&r, s, L);
  /* A state in which other jobs wait cannot be replaced: the job runs in it
     again. */
  while ((state = rs_job_execute(job, &r.base)) == RS_JOB_QUEUED)
    ;
  rs_job_end(job, state);
  rs_job_unref(job);
}

/* ----------------------------------------------------------------- results */

const char *
rs_job_failure (const rs_job *job)
{
  const rs_job_more *const more = more_of(job);
  return more != NULL ? more->failure : NULL;
}

bool
rs_job_rebuilds (const rs_job *job)
{
  if (job == NULL)
    return false;
  return rs_job_state_good(rs_job_state_now(job))
      && (job->call.result->flags & (RS_MESSAGE_NAMES | RS_MESSAGE_CODE)) != 0;
}

/* Make a message of the text and the traceback at 'text'; NULL when out of
   memory. */
static rs_message *
make_refusal (lua_State *L, int text)
{
  rs_encoder e;
  rs_encoder_init(&e, 0);
  rs_message *refusal = NULL;
  if (rs_encode_value(&e, L, text, NULL) == RS_OK
      && rs_encode_value(&e, L, text + 1, NULL) == RS_OK)
    refusal = rs_encoder_message(&e);
  rs_encoder_fini(&e);
  return refusal;
}

/*
 * [-0, +0, -]  Fail a job whose result could not be rebuilt, from now on and
 * for all hosts, with the text and the traceback at 'text'.  Only the first
 * refusal is kept.
 */
static void
refuse (rs_job *job, lua_State *L, int text)
{
  if (rs_job_foreign(job))
    return;
  rs_message *refusal = make_refusal(L, text);
  lock(job);
  const rs_job_state was = rs_job_state_now(job);
  rs_job_more *const more = get_more_locked(job);
  if (!job->refused && more != NULL) {
    more->refusal = refusal;
    refusal = NULL;
  }
  job->refused = true;
  set_state_locked(job, state_and(RS_JOB_FAILED, RS_REASON_NONE));
  unlock(job);
  rs_message_unref(refusal);
  if (job->call.chunk == NULL && rs_job_state_good(was)) {
    job->queue->ended(job->queue, was, (size_t) -1);  /* one less */
    job->queue->ended(job->queue, RS_JOB_FAILED, 1);
  }
}

/* The refusal of the job, a reference, or NULL.  '*refused' is true also where
   there was no memory for the refusal. */
static rs_message *
refusal_of (rs_job *job, bool *refused)
{
  rs_message *refusal = NULL;
  *refused = false;
  if (rs_job_foreign(job))
    return NULL;
  lock(job);
  *refused = job->refused;
  if (job->refused && more_of(job) != NULL)
    refusal = rs_message_ref(more_of(job)->refusal);
  unlock(job);
  return refusal;
}

/* The part of an error that is to be pushed: its value, or its traceback and
   its text. */
typedef struct error_part {
  const rs_call *call;
  bool value;
} error_part;

/* (error_part) -> the error value | the traceback, the text or nil */
static int
push_error_part (lua_State *L)
{
  const error_part *const part = lua_touserdata(L, 1);
  rs_decoder d;
  lua_settop(L, 0);
  rs_decoder_init(&d, L, part->call->result, 0);
  d.common.sent = part->call->function;
  if (part->value) {
    rs_decode_value(&d, L);
    return 1;
  }
  if (rs_decoder_skip(&d))
    rs_decode_value(&d, L);
  else
    lua_pushnil(L);
  if (rs_decoder_at_end(&d))
    lua_pushnil(L);
  else
    rs_decode_value(&d, L);
  return 2;
}

/* [-0, +2, e]  Push the error that is the job's result, and its traceback. */
static void
push_error (rs_job *job, lua_State *L, rs_job_state state)
{
  error_part part = { &job->call, true };
  const int base = lua_gettop(L);
  if (rs_rebuild(L, push_error_part, &part) == 1) {
    part.value = false;
    if (rs_rebuild(L, push_error_part, &part) < 0) {
      lua_pushnil(L);  /* rather no traceback than no error */
      lua_replace(L, base + 2);
    }
    lua_settop(L, base + 2);
    return;
  }
  part.value = false;  /* 'base' + 1 has a text, and the traceback of here */
  const int n = rs_rebuild(L, push_error_part, &part);
  rs_rebuild_tell(L, base + 1, "the error", n == 2 ? base + 4 : 0);
  if (n == 2) {
    lua_pushvalue(L, base + 3);
    lua_replace(L, base + 2);
  }
  lua_settop(L, base + 2);
  if (state == RS_JOB_FAILED)
    refuse(job, L, base + 1);
}

/* [-0, +2, e]  Push the error of a job that did not complete. */
static void
push_end (rs_job *job, lua_State *L, rs_job_state state)
{
  const rs_call *const call = &job->call;
  const int top = lua_gettop(L);
  bool refused;
  rs_message *const refusal = refusal_of(job, &refused);
  int n = 0;
  if (refusal != NULL) {
    rs_decode_try(L, refusal, &n);
    rs_message_unref(refusal);
  }
  else if (refused)
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
  /* The call of a lost job belongs to the thread that runs it. */
  else if (state != RS_JOB_LOST && call->result != NULL
           && (state == RS_JOB_FAILED
               || (call->chunk == NULL && call->reason != RS_REASON_NONE)))
    push_error(job, L, state);
  else if (rs_job_failure(job) != NULL || state == RS_JOB_FAILED)
    lua_pushstring(L, rs_job_failure(job) != NULL
                        ? rs_job_failure(job) : rs_status_message(RS_ENOMEM));
  else
    lua_pushfstring(L, "%s was %s", rs_job_name(job),
                    rs_job_state_name(state));
  lua_settop(L, top + 2);
}

int
rs_job_push (rs_job *job, lua_State *L, int *n)
{
  if (job == NULL || L == NULL || n == NULL || rs_job_foreign(job))
    return RS_EINVAL;
  const rs_job_state state = rs_job_state_now(job);
  if (!rs_job_state_final(state))
    return RS_EBUSY;
  /* Fields that are read here without the lock are not written after the
     end. */
  const int top = lua_gettop(L);
  rs_level_room(L, 8, NULL);
  if (rs_job_state_good(state)) {
    if (rs_rebuild_result(L, job->call.result, job->call.function, n))
      return RS_OK;
    rs_rebuild_tell(L, top + 1, "the result", 0);
    refuse(job, L, top + 1);
    lua_settop(L, top);  /* all hosts are told the same */
  }
  rs_job_see(job);
  push_end(job, L, rs_job_state_now(job));
  *n = 2;
  return RS_EFAILED;
}

bool
rs_job_take (rs_job *job, lua_State *L, int *n)
{
  if (job == NULL || L == NULL || n == NULL || rs_job_foreign(job))
    return false;
  const rs_message *const result = job->call.result;
  if (!rs_job_settled(job) || !rs_job_state_good(rs_job_state_now(job))
      || result != (const void *) job->call.room || rs_job_rebuilds(job)
      || result->flags & RS_MESSAGE_COMMON)  /* does it need the job? */
    return false;
  struct {
    _Alignas(rs_message) unsigned char bytes[RS_CALL_ROOM];
  } copy;
  memcpy(copy.bytes, result, sizeof copy.bytes);
  rs_job_unref(job);
  *n = rs_decode(L, (rs_message *) copy.bytes);
  return true;
}

rs_state *
rs_job_helper (const rs_queue *queue, lua_State *L)
{
  rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL && rs_state_pool(s) == queue->pool ? s : NULL;
}

/* Jobs that wait for one another in one runspace, at most: more would be too
   many calls for Lua, and for the stack of the thread. */
enum { MAX_DEPTH = 16 };

/* Count 'waiting' as blocked, so that another worker runs what it waits for.
   If none will, fail that: 'job', or a chunk of 'batch'. */
static void
block (rs_queue *queue, rs_job *waiting, rs_job *job, const rs_batch *batch)
{
  rs_error err;
  if (waiting->blocked)
    return;
  waiting->blocked = queue->block(queue, &err) == RS_OK;
  if (waiting->blocked)
    return;
  rs_job *const queued = batch != NULL ? queue->claim_of(queue, batch)
                       : job != NULL && queue->claim(queue, job) ? job : NULL;
  if (queued != NULL) {
    rs_job_fail(queued, err.text);
    rs_job_unref(queued);
  }
}

bool
rs_job_can_help (rs_queue *queue, rs_state *s, rs_job *job,
                 const rs_batch *batch)
{
  if (rs_state_depth(s) < MAX_DEPTH)
    return true;
  block(queue, job_of(rs_call_current(s)), job, batch);
  return false;
}

/* The call that runs in the state of 'L', or NULL. */
static rs_call *
call_of (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL ? rs_call_current(s) : NULL;
}

unsigned
rs_job_nesting (lua_State *L)
{
  const rs_call *const call = call_of(L);
  return call != NULL
         ? 1u + atomic_load_explicit(&call->depth, memory_order_relaxed) : 0;
}

int
rs_job_check_nesting (lua_State *L, rs_error *err)
{
  const unsigned n = rs_job_nesting(L);
  if (n < RS_NESTED_MAX)
    return RS_OK;
  return rs_fail(err, RS_EINVAL, "jobs nested too deeply: %u of them wait for "
                                 "one another, and no more may", n);
}

void
rs_job_nest (rs_job *job, lua_State *L, bool waits)
{
  const unsigned nesting = rs_job_nesting(L);
  const unsigned n = waits || nesting == 0 ? nesting : nesting - 1;
  if (n > atomic_load_explicit(&job->call.depth, memory_order_relaxed))
    atomic_store_explicit(&job->call.depth, (uint16_t) n,
                          memory_order_relaxed);
}

void
rs_job_unblock (lua_State *L)
{
  rs_call *const call = call_of(L);
  if (call == NULL || !job_of(call)->blocked || rs_job_foreign(job_of(call)))
    return;
  job_of(call)->blocked = false;
  job_of(call)->queue->unblock(job_of(call)->queue);
}

bool
rs_job_help (rs_job *job, lua_State *L)
{
  if (job == NULL || rs_job_foreign(job))
    return false;
  rs_job_nest(job, L, true);
  rs_state *const s = rs_job_helper(job->queue, L);
  if (s == NULL || !rs_job_can_help(job->queue, s, job, NULL))
    return false;
  const bool claimed = job->queue->claim(job->queue, job);
  if (claimed)
    rs_job_run(job, s, L);
  return claimed;
}

rs_pool *
rs_job_pool (rs_job *job)
{
  return job != NULL ? job->queue->pool : NULL;
}

int
rs_job_wait (rs_job *job, lua_State *L, double timeout)
{
  if (job == NULL || rs_job_foreign(job)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  if (timeout != 0)
    rs_job_help(job, L);
  rs_cancel *const mine = rs_cancel_mine();
  const rs_sleeper sleeper = sleeper_at(job);
  rs_cancel_sleeps(mine, &sleeper);
  int status = RS_OK;
  lock(job);
  tell_locked(job);  /* the job need not wait for this thread to take its
                        events */
  while (!rs_job_state_final(rs_job_state_now(job)) && status == RS_OK) {
    status = timeout == 0 ? RS_ETIMEOUT
           : rs_cancel_pending(mine) ? RS_ESTOPPED
           : wait_locked(job, deadline);
  }
  if (rs_job_state_final(rs_job_state_now(job)))
    status = RS_OK;
  unlock(job);
  rs_cancel_wakes(mine);
  if (L != NULL)
    rs_job_unblock(L);
  if (status == RS_ESTOPPED)
    rs_job_orphan(job);
  return status;
}

/* The reason for which the job ended as it did; NULL when it completed, or has
   not ended. */
static const char *
reason_of (const rs_job *job, rs_job_state state, rs_reason reason)
{
  switch (state) {
    case RS_JOB_COMPLETED_WITH_ERRORS:
      return "error_stream";
    case RS_JOB_LOST:
      return "lost";
    case RS_JOB_FAILED:
      if (rs_job_failure(job) != NULL)
        return "worker";
      return reason == RS_REASON_NONE ? "error" : rs_reason_name(reason);
    case RS_JOB_TIMED_OUT:
    case RS_JOB_CANCELLED:
      return rs_reason_name(reason);
    default:
      return NULL;
  }
}

const char *
rs_job_reason (const rs_job *job)
{
  const rs_job_state state = rs_job_state_now(job);
  return rs_job_state_final(state)
         ? reason_of(job, state, rs_job_reason_now(job)) : NULL;
}

static void
get_info (rs_job *job, rs_job_info *out)
{
  if (rs_job_foreign(job)) {  /* nothing more is known of it here */
    out->id = job->call.id;
    out->state = RS_JOB_LOST;
    out->reason = "lost";
    out->seen = true;
    return;
  }
  lock(job);
  const rs_job_more *const more = more_of(job);
  out->state = rs_job_state_now(job);
  /* A worker may be about to write these fields while the job is queued. */
  const bool begun = out->state != RS_JOB_QUEUED;
  const bool ended = rs_job_state_final(out->state);
  out->worker = begun ? atomic_load_explicit(&job->worker,
                                             memory_order_relaxed) : 0;
  out->attempts = begun ? atomic_load_explicit(&job->attempts,
                                               memory_order_relaxed) : 0;
  out->started = begun ? atomic_load_explicit(&job->started,
                                              memory_order_relaxed) : 0;
  out->finished = ended ? job->finished : 0;
  out->created = job->created;
  out->sent = more != NULL ? more->log.next - 1 : 0;
  if (more != NULL)
    memcpy(out->dropped, more->log.dropped, sizeof more->log.dropped);
  out->listen = listening(job);
  const bool forgotten = job->forgotten;
  const rs_reason reason = rs_job_reason_now(job);
  unlock(job);
  out->id = job->call.id;
  out->reason = reason_of(job, out->state, reason);
  out->failure = ended ? rs_job_failure(job) : NULL;
  out->chunk = job->batch != NULL;
  out->seen = is_set(&job->seen);
  out->forgotten = forgotten;
  out->unseen = is_bad(out->state) && !out->seen;
}

void
rs_job_info_get_sized (rs_job *job, rs_job_info *out, size_t size)
{
  rs_job_info info;
  if (out == NULL)
    return;
  memset(&info, 0, sizeof info);  /* the padding, too */
  if (job != NULL)
    get_info(job, &info);
  rs_give_sized(out, size, &info, sizeof info);
}
