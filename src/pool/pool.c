/* SPDX-License-Identifier: MIT */
/*
 * pool.c - pools: what jobs and batches ask of them, opening, closing.
 *
 * All threads run here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pthread_tryjoin_np */
#endif
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "base/clock.h"
#include "pool/face.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/spin.h"
#include "base/status.h"
#include "base/timer.h"
#include "base/words.h"
#include "pool/serial.h"
#include "pool/width.h"

#define LATE 0.8     /* seconds by which the news that a worker is lost may
                        come late */

#define LOOK 0.01    /* seconds between two looks of a host that closes a
                        serial pool at jobs that are delayed there */

enum { LOOKS = 800 };  /* looks for a worker that ends */

static rs_pool *
pool_of (rs_queue *q)
{
  return RS_LIST_ENTRY(q, rs_pool, queue);
}

/* ----------------------------------------- what jobs and batches ask of us */

/* True when the queue has no room for a job whose messages have 'bytes'
   bytes. */
static bool
is_full_locked (const rs_pool *pool, size_t bytes)
{
  const rs_sched *const s = &pool->sched;
  /* Jobs that idle workers are about to take count as taken: no delayed
     ones. */
  const size_t taken = s->n_delayed == 0 || s->sitting < s->queued
                     ? s->sitting : s->queued;
  return s->limited && s->calls >= taken
      && (s->calls - taken >= pool->options.queue_jobs
          || (s->calls > taken
              && (s->bytes >= pool->options.queue_bytes
                  || bytes > pool->options.queue_bytes - s->bytes)));
}

/* True when this thread runs a job of the pool. */
static bool
is_own_worker_locked (const rs_pool *pool)
{
  if (pool->serial && rs_serial_is_mine(pool))
    return pool->here != NULL && rs_seat_job(&pool->here->seat) != NULL;
  for (const rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next) {
    const rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    if (w->began && pthread_equal(w->thread, pthread_self()))
      return true;
  }
  return false;
}

bool
rs_pool_refuses_locked (rs_pool *pool)
{
  while (pool->stopping > 0 && is_own_worker_locked(pool))
    rs_cond_wait_counted(&pool->changed, &pool->sched.lock, RS_NEVER,
                         &pool->watching);
  return pool->sched.closed
      && (pool->stopped || !is_own_worker_locked(pool));
}

/* Check that the pool takes the job.  RS_OK, RS_ECLOSED or RS_EFULL. */
static int
check_push_locked (rs_pool *pool, const rs_job *job, bool limited,
                   rs_error *err)
{
  if (pool->sched.closed && rs_pool_refuses_locked(pool))
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  if (limited && pool->sched.limited
      && is_full_locked(pool, rs_job_bytes(job)))
    return rs_fail(err, RS_EFULL, "the queue of the pool is full");
  return RS_OK;
}

/* Queue the job, or give it to an idle worker, give up the lock, and start a
   worker if one is wanted. */
static int
push_and_unlock (rs_pool *pool, rs_job *job, rs_error *err)
{
  const bool may_grow = !pool->sched.closed && rs_pool_may_grow_locked(pool);
  const bool handed = rs_sched_push_locked(&pool->sched, job);
  const bool grow = !handed && may_grow && rs_pool_is_short_locked(pool);
  const bool look = !handed && !grow && rs_width_is_asleep_locked(pool);
  rs_worker *const w = grow ? rs_worker_reserve_locked(pool) : NULL;
  rs_pool_unlock(pool);
  if (look)
    rs_width_begin(pool);
  if (!grow)
    return RS_OK;
  const int status = rs_worker_start(pool, w, err);
  if (status == RS_OK)
    return RS_OK;
  /* Without a worker that will run the job and what waits, or a lost one that
     may come back, the job is taken back, and what waits fails. */
  rs_pool_lock(pool);
  const bool none = pool->alive == 0 && pool->stuck == 0;
  const bool back = none && rs_sched_claim_locked(&pool->sched, job,
                                                  RS_CLAIM_TO_END);
  const rs_error failure = pool->failure;
  rs_pool_unlock(pool);
  if (none)
    rs_pool_fail_queued(pool, &failure);
  return back ? status : RS_OK;
}

int
rs_pool_push (rs_pool *pool, rs_job *job, bool limited, rs_error *err)
{
  rs_pool_lock(pool);
  const int status = check_push_locked(pool, job, limited, err);
  if (status == RS_OK)
    return push_and_unlock(pool, job, err);
  rs_pool_unlock(pool);
  return status;
}

int
rs_pool_delay (rs_pool *pool, rs_job *job, bool limited, rs_error *err)
{
  rs_pool_lock(pool);
  const int status = check_push_locked(pool, job, limited, err);
  if (status == RS_OK)
    rs_sched_delay_locked(&pool->sched, job);
  rs_pool_unlock(pool);
  return status;
}

static int
queue_push (rs_queue *q, rs_job *job, rs_error *err)
{
  return rs_pool_push(pool_of(q), job, false, err);
}

static int
queue_delay (rs_queue *q, rs_job *job, rs_error *err)
{
  return rs_pool_delay(pool_of(q), job, false, err);
}

static void
queue_release (rs_queue *q, rs_job *job)
{
  rs_pool *const pool = pool_of(q);
  rs_error err;
  rs_pool_lock(pool);
  if (!rs_sched_undelay_locked(&pool->sched, job)) {
    rs_pool_unlock(pool);
    return;
  }
  rs_job_ref(job);  /* the queue's may be gone in a moment */
  if (push_and_unlock(pool, job, &err) != RS_OK) {  /* was it taken back? */
    rs_job_fail(job, err.text);
    rs_job_unref(job);
  }
  /* A job that waits for this one can run it now, and so can the host of a
     serial pool. */
  if (job->events != NULL && (job->batch == NULL || pool->serial))
    rs_events_wake(job->events);
  rs_job_stir(job);
  rs_job_unref(job);
}

static bool
queue_claim (rs_queue *q, rs_job *job, rs_claim why)
{
  rs_pool *const pool = pool_of(q);
  rs_pool_lock(pool);
  const bool found = job->returned
                     || (job->call.flags & RS_CALL_STANDING) != 0
                   ? rs_standings_claim_locked(&pool->standing, job)
                   : rs_sched_claim_locked(&pool->sched, job, why);
  const bool over = found && rs_pool_is_over_locked(pool);
  rs_pool_unlock(pool);
  if (found)
    rs_pool_tell_room(pool);
  if (over)
    rs_pool_stop_seeding(pool);
  return found;
}

static rs_job *
queue_claim_of (rs_queue *q, const rs_batch *batch, rs_claim why)
{
  rs_pool *const pool = pool_of(q);
  rs_pool_lock(pool);
  rs_job *const job = rs_sched_claim_of_locked(&pool->sched, batch, why);
  const bool over = job != NULL && rs_pool_is_over_locked(pool);
  rs_pool_unlock(pool);
  rs_pool_tell_room(pool);
  if (over)
    rs_pool_stop_seeding(pool);
  return job;
}

static void
queue_ended (rs_queue *q, rs_job_state state, size_t n)
{
  if (n > 0)
    atomic_fetch_add_explicit(&pool_of(q)->ended[state],
                              (uint64_t) (intptr_t) n,  /* or one less */
                              memory_order_relaxed);
}

static unsigned
queue_width (rs_queue *q)
{
  return atomic_load_explicit(&pool_of(q)->max, memory_order_relaxed);
}

static void
queue_limits (rs_queue *q, bool limits)
{
  rs_width_hold(pool_of(q), limits);
}

static int
queue_block (rs_queue *q, rs_error *err)
{
  rs_pool *const pool = pool_of(q);
  rs_pool_lock(pool);
  pool->blocked++;
  if (pool->sched.paused)  /* what 'blocked' wait for may begin */
    rs_sched_call_all_locked(&pool->sched);
  const bool grow = rs_pool_is_wanted_locked(pool)
                 && rs_list_empty(&pool->sched.idle)
                 && rs_pool_may_grow_locked(pool);
  rs_worker *const w = grow ? rs_worker_reserve_locked(pool) : NULL;
  rs_pool_unlock(pool);
  const int status = grow ? rs_worker_start(pool, w, err) : RS_OK;
  if (status == RS_OK)
    return RS_OK;
  /* Is there no worker that does not wait, and no lost one that may come
     back? */
  rs_pool_lock(pool);
  const bool none = pool->alive <= pool->blocked && pool->stuck == 0;
  pool->blocked -= none;
  rs_pool_unlock(pool);
  return none ? status : RS_OK;
}

static void
queue_unblock (rs_queue *q)
{
  rs_pool *const pool = pool_of(q);
  rs_pool_lock(pool);
  pool->blocked--;
  if (pool->serial)  /* the thread beside the host's is not needed any more */
    rs_sched_call_all_locked(&pool->sched);
  rs_pool_unlock(pool);
}

static bool
queue_is_deserted (rs_queue *q, rs_error *err)
{
  rs_pool *const pool = pool_of(q);
  if (atomic_load_explicit(&pool->stuck, memory_order_relaxed) == 0)
    return false;
  rs_pool_lock(pool);
  const unsigned stuck = pool->alive == 0 ? pool->stuck : 0;
  rs_pool_unlock(pool);
  if (stuck > 0)
    rs_fail(err, RS_ETHREAD, "no worker was left: the pool has lost %u, which "
                             "did not come back from their jobs", stuck);
  return stuck > 0;
}

static void
queue_hold (rs_queue *q)
{
  rs_pool_hold(pool_of(q));
}

static void
queue_drop (rs_queue *q)
{
  rs_pool_drop(pool_of(q));
}

/* ----------------------------------------------------------------- opening */

static rs_pool *
pool_new (const rs_runner_kind *kind, const rs_pool_options *o, void *shared)
{
  rs_pool *const pool = aligned_alloc(_Alignof(rs_pool), sizeof *pool);
  if (pool == NULL)
    return NULL;
  memset(pool, 0, sizeof *pool);
  atomic_init(&pool->refs, 1);
  atomic_init(&pool->holds, 1);
  pool->queue = (rs_queue) {
    .pool = pool,
    .fresh = o->reset == RS_RESET_FRESH,
    .forbidden = kind->forbidden,
    .reruns = kind->reruns,
    .born = rs_fork_now(),
    .push = queue_push,
    .delay = queue_delay,
    .release = queue_release,
    .claim = queue_claim,
    .claim_of = queue_claim_of,
    .ended = queue_ended,
    .width = queue_width,
    .limits = o->adapt ? queue_limits : NULL,
    .block = queue_block,
    .unblock = queue_unblock,
    .is_deserted = queue_is_deserted,
    .hold = queue_hold,
    .drop = queue_drop,
  };
  rs_job_locks_init(pool->queue.locks);
  pool->kind = kind;
  rs_pool_options *const own = &pool->options;
  *own = *o;
  pool->serial = o->isolation == RS_ISOLATION_SERIAL;
  rs_list_init(&pool->serials);
  rs_width_init(pool);
  pool->hosts = o->hosts != NULL ? rs_words_count(o->hosts) : 0;
  /* 'shared' has these. */
  own->command = own->hosts = own->ssh = NULL;
  own->env = own->readable = own->writable = NULL;
  own->broker = own->broker_queue = own->key = NULL;
  rs_list_init(&pool->waiters);
  rs_timers_hold();
  pool->timed = true;
  own->initial_state = o->initial_state != NULL
                     ? rs_initial_state_ref(o->initial_state)
                     : rs_initial_state_new();
  own->runspace = o->runspace != NULL ? strdup(o->runspace) : NULL;
  own->cwd = o->cwd != NULL ? strdup(o->cwd) : NULL;
  if (o->globals != NULL && o->globals != RS_NO_GLOBALS)
    pool->globals = rs_words_copy(o->globals);
  pool->queue.globals = own->globals = o->globals == RS_NO_GLOBALS
    ? o->globals : (const char *const *) pool->globals;
  rs_sched_init(&pool->sched, rs_pool_is_limited(pool));
  rs_list_init(&pool->workers);
  rs_list_init(&pool->gone);
  rs_list_init(&pool->retired);
  rs_standings_init(&pool->standing);
  rs_cond_init(&pool->changed);
  if (own->initial_state == NULL
      || (own->runspace == NULL) != (o->runspace == NULL)
      || (own->cwd == NULL) != (o->cwd == NULL)
      || (own->globals == NULL) != (o->globals == NULL)) {
    rs_timers_drop();
    rs_pool_drop(pool);
    return NULL;
  }
  pool->shared = shared;
  rs_initial_state_seal(pool->options.initial_state);
  return pool;
}

/*
 * True when the pool counts as open.  One worker has opened, and the others
 * will: what opens in one state opens in each, unless the initial state runs
 * scripts.  Or nothing can go wrong: then the first jobs are made while
 * workers open.
 */
static bool
has_opened_locked (const rs_pool *pool)
{
  return pool->kind->local
      && ((pool->options.memory == 0
           && rs_initial_state_is_sure(pool->options.initial_state))
          || (pool->opening < pool->started_workers
              && !rs_initial_state_runs_scripts(pool->options.initial_state)));
}

int
rs_pool_start_on (const rs_runner_kind *kind, const rs_pool_options *options,
                  rs_pool **out, rs_error *err)
{
  rs_pool_options room;
  const rs_pool_options *const o = rs_check_pool_options(options, &room, err);
  void *shared = NULL;
  int status = out == NULL ? rs_fail_null(err, "out") : RS_OK;
  if (o == NULL || status != RS_OK)
    return RS_EINVAL;
  if (kind->prepare != NULL)
    status = kind->prepare(o, &shared, err);
  if (status != RS_OK)
    return status;
  rs_pool *const pool = pool_new(kind, o, shared);
  if (pool == NULL && shared != NULL)
    kind->dismiss(shared);
  if (pool == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  for (unsigned i = 0; i < o->min && status == RS_OK; i++) {
    rs_pool_lock(pool);
    rs_worker *const w = rs_worker_reserve_locked(pool);
    rs_pool_unlock(pool);
    status = pool->serial && w != NULL ? rs_serial_open(pool, w, err)
                                       : rs_worker_start(pool, w, err);
  }
  pool->begun = status;
  *out = pool;
  return RS_OK;
}

int
rs_pool_await_open (rs_pool *pool, rs_events *events, double timeout,
                    rs_error *err)
{
  if (pool == NULL)
    return rs_fail_null(err, "pool");
  if (rs_pool_is_foreign(pool))
    return rs_fork_fail(err, "pool");
  if (rs_check_wait(&timeout, err) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  bool busy, late = false;
  rs_pool_lock(pool);
  while ((busy = pool->opening > 0 && !has_opened_locked(pool)) && !late)
    late = rs_pool_watch_locked(pool, deadline) != RS_OK;
  rs_events *const old = pool->watcher;
  pool->watcher = busy ? rs_events_hold(events) : NULL;
  const unsigned alive = pool->alive;
  const bool enough = pool->kind->partial && pool->reached;
  const rs_error failure = pool->failure;
  rs_pool_unlock(pool);
  rs_events_drop(old);
  if (busy)
    return RS_EBUSY;
  if (enough)
    return RS_OK;
  /* Fewer threads than wanted will do; a state that fails will not, since
     it would fail again in each worker to come. */
  const int status = pool->begun == RS_ETHREAD && alive > 0 ? RS_OK
                                                            : failure.status;
  return status == RS_OK ? RS_OK : rs_fail(err, status, "%s", failure.text);
}

/* ----------------------------------------------------------------- closing */

/* Wait a moment for delayed jobs; false at the instant 'deadline'. */
static bool
await_delayed_locked (rs_pool *pool, double deadline)
{
  const double now = rs_now();
  if (now >= deadline)
    return false;
  rs_pool_watch_locked(pool, deadline < now + LOOK ? deadline : now + LOOK);
  return true;
}

/* Wait until no worker is left, or 'deadline'.  False when there are still
   workers, or, in a serial pool, jobs. */
static bool
wait_for_workers_locked (rs_pool *pool, double deadline)
{
  int status = RS_OK;
  if (pool->here != NULL) {
    do {
      rs_pool_unlock(pool);
      rs_serial_serve_until(pool, deadline);
      rs_pool_lock(pool);
    } while (pool->sched.n_delayed > 0
             && await_delayed_locked(pool, deadline));
    return rs_pool_is_over_locked(pool);
  }
  while (!rs_list_empty(&pool->workers) && status == RS_OK)
    status = rs_pool_watch_locked(pool, deadline);
  return rs_list_empty(&pool->workers);
}

/* Take out any job that has not begun; NULL: there is none. */
static rs_job *
claim_any (rs_pool *pool)
{
  rs_job *const job = queue_claim_of(&pool->queue, NULL, RS_CLAIM_TO_END);
  if (job != NULL)
    return job;
  rs_pool_lock(pool);
  rs_job *const standing = rs_standings_claim_any_locked(&pool->standing);
  rs_pool_unlock(pool);
  return standing;
}

/* Stop what is running, for 'reason'. */
static void
stop_running (rs_pool *pool, rs_reason reason, double grace)
{
  /* Workers are stopped by their numbers, 64 at a time, without memory. */
  rs_job *some[64];
  const size_t room = sizeof some / sizeof some[0];
  bool more = true;
  for (unsigned first = 1; more; first += (unsigned) room) {
    size_t n = 0;
    more = false;
    rs_pool_lock(pool);
    for (rs_list *link = pool->workers.next; link != &pool->workers;
         link = link->next) {
      rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
      more |= w->number >= first + room;
      if (w->number >= first && w->number < first + room
          && (some[n] = rs_seat_ref_job_locked(&w->seat)) != NULL)
        n++;
    }
    rs_pool_unlock(pool);
    while (n > 0) {
      rs_job_stop(some[--n], reason, grace);
      rs_job_unref(some[n]);
    }
  }
}

/* End what is queued as stopped for 'reason', and stop what is running. */
static void
cancel_all (rs_pool *pool, rs_reason reason, double grace)
{
  rs_job *job;
  while ((job = claim_any(pool)) != NULL) {
    rs_job_end_queued(job, reason);
    rs_job_unref(job);
  }
  stop_running(pool, reason, grace);
}

/* Stop all jobs of a pool whose time is over.  The thread counts in
   'stopping'.  Releases the lock meanwhile. */
static void
stop_jobs_locked (rs_pool *pool)
{
  pool->stopped = true;  /* no worker takes what is queued any more */
  rs_pool_unlock(pool);
  rs_pool_stop_seeding(pool);
  /* A job that waits for a queued one is to end for the same reason. */
  stop_running(pool, RS_REASON_CLOSED, RS_GRACE);
  cancel_all(pool, RS_REASON_CLOSED, RS_GRACE);
  rs_pool_lock(pool);
}

/* Leave the workers to themselves that do not come back from their jobs. */
static void
abandon_locked (rs_pool *pool)
{
  while (!rs_list_empty(&pool->workers))
    rs_worker_abandon_locked(pool, RS_LIST_ENTRY(pool->workers.next,
                                                 rs_worker, link));
}

typedef struct ending {
  pthread_t thread;
  bool *joined;
} ending;

static bool
has_joined (const void *ud)
{
  const ending *const e = ud;
  *e->joined = pthread_tryjoin_np(e->thread, NULL) == 0;
  return *e->joined;
}

/* Join a thread that has said that it leaves: it is gone sooner than this
   thread would sleep and wake up. */
static void
join (pthread_t thread)
{
  bool joined = false;
  const ending e = { thread, &joined };
  rs_spin_few(has_joined, &e, LOOKS);
  if (!joined)
    pthread_join(thread, NULL);
}

int
rs_pool_close (rs_pool *pool, double timeout)
{
  if (pool == NULL || rs_pool_is_foreign(pool)
      || rs_check_wait(&timeout, NULL) != RS_OK
      || (pool->serial && !rs_serial_is_mine(pool)))
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  /* This thread can be cancelled (pthread_cancel(3)) only where it waits, and
     no worker waits for it. */
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  rs_pool_lock(pool);
  if (is_own_worker_locked(pool)) {
    rs_pool_unlock(pool);
    pthread_setcancelstate(state, NULL);
    return RS_EINVAL;
  }
  const bool at_once = rs_remaining(deadline) == 0;
  pool->closing = true;
  pool->stopping += at_once;  /* no job finds the pool closed before */
  rs_sched_close_locked(&pool->sched);
  rs_pool_unlock(pool);
  rs_width_stop(pool);
  rs_pool_stop_seeding_if_over(pool);
  rs_pool_lock(pool);
  if (!at_once)
    pthread_setcancelstate(state, NULL);
  bool ended = wait_for_workers_locked(pool, deadline);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
  pool->stopping += !at_once;
  /* Without workers, nobody would run what is still queued. */
  const bool stops = !ended || rs_pool_is_wanted_locked(pool)
                  || pool->sched.n_delayed > 0;
  const bool over = rs_pool_is_over_locked(pool);  /* only workers left? */
  if (stops)
    stop_jobs_locked(pool);
  pool->stopping--;
  if (pool->watching > 0)
    pthread_cond_broadcast(&pool->changed);
  if (stops) {
    /* Lost workers are abandoned on the way.  Workers that are left are
       abandoned here: no thread could find them lost, they close their runner,
       or they get no CPU. */
    pthread_setcancelstate(state, NULL);
    const bool gone = wait_for_workers_locked(pool, rs_deadline(RS_GRACE
                                                                + RS_KILL
                                                                + LATE));
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    if (!gone)
      abandon_locked(pool);
    ended = over && gone;
  }
  if (pool->here != NULL) {
    rs_pool_unlock(pool);
    rs_serial_close(pool);
    rs_pool_lock(pool);
  }
  rs_list *link;
  while ((link = rs_list_shift(&pool->gone)) != NULL) {
    rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    rs_pool_unlock(pool);
    join(w->thread);
    rs_pool_lock(pool);
    rs_worker_retire_locked(pool, w);
  }
  const bool timed = pool->timed;
  pool->timed = false;
  rs_list calls;
  rs_list_init(&calls);
  rs_standings_prune_locked(&pool->standing, true, &calls);
  rs_pool_unlock(pool);
  rs_standings_free(&calls);
  rs_pool_tell_room(pool);
  if (timed)
    rs_timers_drop();
  pthread_setcancelstate(state, NULL);
  return ended ? RS_OK : RS_ETIMEOUT;
}

void
rs_pool_cancel (rs_pool *pool, double grace)
{
  if (pool != NULL && !rs_pool_is_foreign(pool))
    cancel_all(pool, RS_REASON_CANCELLED, grace);
}

void *
rs_pool_user (const rs_pool *pool)
{
  return pool != NULL ? pool->options.user : NULL;
}

bool
rs_pool_is_limited (const rs_pool *pool)
{
  return pool != NULL && (pool->options.queue_jobs != SIZE_MAX
                          || pool->options.queue_bytes != SIZE_MAX);
}

int
rs_pool_await_room (rs_pool *pool, rs_events *events)
{
  if (pool == NULL || events == NULL || rs_pool_is_foreign(pool))
    return RS_EINVAL;
  rs_waiter *const w = calloc(1, sizeof *w);
  if (w == NULL)
    return RS_ENOMEM;
  w->events = rs_events_hold(events);
  rs_pool_lock(pool);
  rs_list_push(&pool->waiters, &w->link);
  atomic_store_explicit(&pool->full, true, memory_order_relaxed);
  const bool room = pool->sched.closed || !is_full_locked(pool, 0);
  rs_pool_unlock(pool);
  if (room)
    rs_pool_tell_room(pool);
  return RS_OK;
}

int
rs_pool_shut (rs_pool *pool, rs_events *events)
{
  if (pool == NULL || rs_pool_is_foreign(pool))
    return RS_EINVAL;
  rs_pool_lock(pool);
  if (is_own_worker_locked(pool)) {
    rs_pool_unlock(pool);
    return RS_EINVAL;
  }
  rs_events *const old = pool->watcher;
  pool->watcher = rs_events_hold(events);
  pool->closing = true;
  rs_sched_close_locked(&pool->sched);
  const bool none = pool->serial ? rs_pool_is_over_locked(pool)
                                 : rs_list_empty(&pool->workers);
  rs_pool_unlock(pool);
  rs_pool_tell_room(pool);
  rs_pool_stop_seeding_if_over(pool);
  rs_events_drop(old);
  return none ? RS_OK : RS_EBUSY;
}

rs_pool *
rs_pool_ref (rs_pool *pool)
{
  if (pool != NULL)
    atomic_fetch_add_explicit(&pool->refs, 1, memory_order_relaxed);
  return pool;
}

void
rs_pool_unref (rs_pool *pool)
{
  if (pool == NULL || rs_pool_is_foreign(pool)
      || atomic_fetch_sub_explicit(&pool->refs, 1, memory_order_acq_rel) != 1)
    return;
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  rs_pool_close(pool, 0);
  rs_pool_drop(pool);
  pthread_setcancelstate(state, NULL);
}

/* ------------------------------------------------------------------ pauses */

int
rs_pool_pause (rs_pool *pool)
{
  if (pool == NULL || rs_pool_is_foreign(pool))
    return RS_EINVAL;
  rs_pool_lock(pool);
  const bool closed = pool->sched.closed;
  if (!closed)
    rs_sched_pause_locked(&pool->sched);
  rs_pool_unlock(pool);
  return closed ? RS_ECLOSED : RS_OK;
}

int
rs_pool_resume (rs_pool *pool)
{
  if (pool == NULL || rs_pool_is_foreign(pool))
    return RS_EINVAL;
  rs_pool_lock(pool);
  const bool closed = pool->sched.closed;
  rs_sched_resume_locked(&pool->sched);
  rs_pool_unlock(pool);
  if (pool->serial)  /* its thread may wait at events */
    rs_pool_tell_room(pool);
  else
    rs_pool_grow(pool);
  return closed ? RS_ECLOSED : RS_OK;
}

/* ------------------------------------------------------------------ public */

static void
get_info (rs_pool *pool, rs_pool_info *out)
{
  if (rs_pool_is_foreign(pool)) {  /* nothing is known of it here */
    out->closed = true;
    return;
  }
  rs_pool_lock(pool);
  out->min = pool->min;
  out->max = pool->max;
  out->workers = pool->alive;
  out->idle = (unsigned) pool->sched.sitting;
  out->stuck = pool->stuck;
  out->queued = pool->sched.queued + pool->sched.n_delayed;
  out->delayed = pool->sched.n_delayed;
  out->running = rs_sched_running_locked(&pool->sched);
  out->finished = rs_sched_finished_locked(&pool->sched);
  out->started_workers = pool->started_workers;
  out->failed_workers = pool->failed_workers;
  out->lost_workers = pool->lost_workers;
  out->renewed = pool->renewed;
  out->signal = pool->options.signal != 0 ? pool->options.signal
                                          : RS_NO_SIGNAL;
  out->closed = pool->sched.closed;
  out->paused = pool->sched.paused;
  out->adapts = pool->width.most > 0;
  if (pool->serial)
    out->idle = pool->alive - (unsigned) out->running;
  for (rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next)
    out->bytes += atomic_load_explicit(&RS_LIST_ENTRY(link, rs_worker,
                                                      link)->bytes,
                                       memory_order_relaxed);
  memcpy(out->failure, pool->failure.text, sizeof out->failure - 1);
  rs_pool_unlock(pool);
  if (pool->shared != NULL && pool->kind->trouble != NULL) {
    char text[sizeof out->failure];
    pool->kind->trouble(pool->shared, text, sizeof text);
    if (text[0] != '\0')
      memcpy(out->failure, text, sizeof text);
  }
  for (int i = 0; i <= RS_JOB_LOST; i++)
    out->ended[i] = atomic_load_explicit(&pool->ended[i],
                                         memory_order_relaxed);
}

void
rs_pool_info_get_sized (rs_pool *pool, rs_pool_info *out, size_t size)
{
  rs_pool_info info;
  if (out == NULL)
    return;
  memset(&info, 0, sizeof info);  /* the padding, too */
  if (pool != NULL)
    get_info(pool, &info);
  rs_give_sized(out, size, &info, sizeof info);
}

rs_pool *
rs_pool_current (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL ? rs_state_pool(s) : NULL;
}
