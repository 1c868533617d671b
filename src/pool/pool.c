/* SPDX-License-Identifier: MIT */
/*
 * pool.c - workers that come and go, and the scheduler between them.
 *
 * Two counts keep a pool.  'refs' are the owners' handles: the last one
 * closes.  'holds' keep the memory: the handles together have one, and so
 * has each worker, job and batch, so that a job's handle and a worker left
 * behind may outlive the pool.
 *
 * A worker is in one of these:
 *
 *     opening --> waiting <--> running --> leaving --> gone
 *        \------------------------------->/
 *
 * 'alive' counts the first three, 'workers' lists the first four.  A worker
 * that ends while the pool is open detaches and frees itself; one that ends
 * while somebody closes is joined there.
 *
 * All threads run here.  'sched.lock' is the pool's only lock.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* NSIG, pthread_tryjoin_np */
#endif
#include <assert.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "pool/batch.h"
#include "base/clock.h"
#include "value/code.h"
#include "base/fork.h"
#include "base/large.h"
#include "base/options.h"
#include "pool/sched.h"
#include "base/spin.h"
#include "base/status.h"
#include "base/timer.h"
#include "pool/transport.h"

#define IDLE 10.0    /* seconds, by default */
#define LATE 0.8     /* seconds that lost workers may be told of late */

enum { LOOKS = 800 };  /* for a worker that opens or ends */

/* Workers that may be stuck, and are replaced, at least; or twice as many as
   the pool has. */
enum { MAX_STUCK = 8 };

enum { BITS = 64 };  /* in a word of 'numbers' */

typedef struct worker {
  rs_slot slot;
  rs_seat seat;
  rs_list link;      /* in 'workers' or 'gone' */
  bool began;        /* guarded by the pool's lock, as the next three */
  bool opened;
  bool leaving;      /* it takes no more jobs */
  bool abandoned;    /* nobody will join it */
} worker;

/* Who waits for room in the queue. */
typedef struct waiter {
  rs_list link;
  rs_events *events; /* a reference */
} waiter;

struct rs_pool {
  rs_queue queue;    /* what jobs and batches see */
  char before[64];   /* what changes with each job is away from what is read
                        by all */
  _Atomic unsigned refs;
  _Atomic unsigned holds;
  char between[64];
  unsigned min, max; /* constant, as the next ones */
  double idle;
  int reset;
  int signal;        /* that stops jobs; 0: none */
  bool pin;
  void *user;
  int begun;         /* status of starting the first workers */
  size_t queue_jobs, queue_bytes;   /* at most; SIZE_MAX */
  rs_limits limits;
  rs_initial_state *initial_state;  /* a reference */
  _Atomic bool full; /* 'waiters' has some; set under the lock */
  char behind[64];
  _Atomic uint64_t ended[RS_JOB_LOST + 1];  /* jobs and items, counted by
                                               who ends them */

  rs_sched sched;    /* its lock guards down to the blank line */
  rs_list workers;   /* threads that were started and have not ended */
  uint64_t *numbers; /* owned; a bit for each number that one of 'workers'
                        has, from 1 */
  size_t words;      /* in 'numbers' */
  size_t vacant;     /* all words before this one are full */
  rs_list gone;      /* ended, to be joined by who closes */
  unsigned alive;    /* of 'workers', not 'leaving' */
  unsigned opening;  /* of 'workers', not 'opened' */
  _Atomic unsigned stuck;  /* abandoned, and not ended; read without the lock
                              to see that there is none */
  unsigned blocked;  /* wait for jobs that they cannot run themselves */
  bool closing;
  bool over;         /* found so by 'stop_seeding_if_over' */
  bool timed;        /* it holds the timers */
  uint64_t started_workers, failed_workers, lost_workers, renewed;
  rs_list waiters;   /* owned */
  rs_error failure;  /* of the last failed worker */
  rs_events *watcher;  /* wakes when a worker opens or ends; a reference, or
                          NULL */
  unsigned watching; /* wait at: */
  pthread_cond_t changed;  /* 'workers' or 'opening' got less */

  char away[64];
  _Atomic unsigned changes;  /* the same, counted, for who spins */
};

static void
lock (rs_pool *pool)
{
  pthread_mutex_lock(&pool->sched.lock);
}

static void
unlock (rs_pool *pool)
{
  pthread_mutex_unlock(&pool->sched.lock);
}

/* It belongs to another process: nothing of it may be locked, or freed. */
static bool
is_foreign (const rs_pool *pool)
{
  return rs_fork_is_foreign(pool->queue.born);
}

/* ------------------------------------------------------------------ memory */

static void
hold (rs_pool *pool, unsigned n)
{
  atomic_fetch_add_explicit(&pool->holds, n, memory_order_relaxed);
}

static void
drop (rs_pool *pool, unsigned n)
{
  /* Release our reads and writes to the thread that frees. */
  if (atomic_fetch_sub_explicit(&pool->holds, n, memory_order_acq_rel) != n)
    return;
  rs_sched_fini(&pool->sched);
  pthread_cond_destroy(&pool->changed);
  rs_job_locks_fini(pool->queue.locks);
  rs_initial_state_unref(pool->initial_state);
  rs_events_unref(pool->watcher);
  free(pool->numbers);
  free(pool);
}

static rs_pool *
pool_of (rs_queue *q)
{
  return RS_LIST_ENTRY(q, rs_pool, queue);
}

static worker *
worker_of (rs_slot *slot)
{
  return RS_LIST_ENTRY(slot, worker, slot);
}

static void
worker_free (worker *w)
{
  rs_seat_fini(&w->seat);
  free(w);
}

/* It is one of 'workers' no more, and its number is free. */
static void
unlist_locked (rs_pool *pool, worker *w)
{
  const size_t bit = w->slot.number - 1, i = bit / BITS;
  rs_list_remove(&w->link);
  pool->numbers[i] &= ~(UINT64_C(1) << bit % BITS);
  if (i < pool->vacant)
    pool->vacant = i;
}

/* ------------------------------------------------------ opening and ending */

/* 'workers' or 'opening' got less. */
static void
change_locked (rs_pool *pool)
{
  atomic_fetch_add_explicit(&pool->changes, 1, memory_order_relaxed);
  if (pool->watching > 0)
    pthread_cond_broadcast(&pool->changed);
}

typedef struct watch {
  rs_pool *pool;
  unsigned changes;
} watch;

static bool
has_changed (const void *ud)
{
  const watch *const w = ud;
  return atomic_load_explicit(&w->pool->changes, memory_order_relaxed)
         != w->changes;
}

/*
 * Wait for that, or 'deadline'.  RS_OK, which may be spurious, or RS_ETIMEOUT.
 * While this thread spins its CPU is never idle, and a worker whose thread was
 * started on another one, where somebody else runs, is not moved over; so it
 * sleeps after some 40 us of its own, which is as much as a wake-up costs.
 */
static int
watch_locked (rs_pool *pool, double deadline)
{
  const watch w = {
    pool, atomic_load_explicit(&pool->changes, memory_order_relaxed)
  };
  unlock(pool);
  rs_spin_few(has_changed, &w, LOOKS);
  lock(pool);
  if (has_changed(&w))
    return RS_OK;
  return rs_cond_wait_counted(&pool->changed, &pool->sched.lock, deadline,
                              &pool->watching);
}

/* ------------------------------------------------- what is left to be done */

/* There is work that nobody has begun. */
static bool
is_wanted_locked (const rs_pool *pool)
{
  return pool->sched.queued > 0
      || rs_sched_count_locked(&pool->sched).held > 0;
}

enum { CLAIMS = 64 };  /* of seeding workers at a time */

/* Some of the workers that may be seeding a runspace, and were not told to
   stop it: references to how that is done.  How many; 0: no more. */
static size_t
claim_seeding_locked (rs_pool *pool, rs_cancel *out[CLAIMS])
{
  size_t n = 0;
  for (rs_list *link = pool->workers.next;
       n < CLAIMS && link != &pool->workers; link = link->next) {
    worker *const w = RS_LIST_ENTRY(link, worker, link);
    if (rs_wish_make(&w->slot.wish, RS_REASON_CLOSED, RS_GRACE)
        && w->slot.cancel != NULL)
      out[n++] = rs_cancel_ref(w->slot.cancel);
  }
  return n;
}

/* No runspace is seeded any more. */
static void
stop_seeding (rs_pool *pool)
{
  rs_cancel *some[CLAIMS];
  size_t n;
  if (!rs_initial_state_runs_scripts(pool->initial_state))
    return;
  do {
    lock(pool);
    n = claim_seeding_locked(pool, some);
    unlock(pool);
    for (size_t i = 0; i < n; i++) {
      rs_cancel_request(some[i], RS_SEEDING, RS_REASON_CLOSED, RS_GRACE);
      rs_cancel_unref(some[i]);
    }
  } while (n > 0);
}

/* No more jobs come, and there is none left: nobody needs a runspace. */
static bool
is_over_locked (const rs_pool *pool)
{
  if (!pool->sched.closed || pool->sched.queued > 0)
    return false;
  const rs_sched_counts counts = rs_sched_count_locked(&pool->sched);
  return counts.held == 0 && counts.running == 0;
}

/* Something that may have been the last of it is not there any more.  Once it
   is over it stays so: all workers that leave then need not count again. */
static void
stop_seeding_if_over (rs_pool *pool)
{
  if (!rs_initial_state_runs_scripts(pool->initial_state))
    return;
  lock(pool);
  const bool over = !pool->over && is_over_locked(pool);
  pool->over |= over;
  unlock(pool);
  if (over)
    stop_seeding(pool);
}

/* ------------------------------------------------- what workers ask (slot) */

/* There may be room in the queue: whoever waits for it looks. */
static void
tell_room (rs_pool *pool)
{
  /* Set by a waiter under the lock, before which it has looked for room. */
  if (!atomic_load_explicit(&pool->full, memory_order_relaxed))
    return;
  rs_list *link;
  do {
    lock(pool);
    link = rs_list_shift(&pool->waiters);
    atomic_store_explicit(&pool->full, !rs_list_empty(&pool->waiters),
                          memory_order_relaxed);
    unlock(pool);
    if (link != NULL) {
      waiter *const w = RS_LIST_ENTRY(link, waiter, link);
      rs_events_wake(w->events);
      rs_events_unref(w->events);
      free(w);
    }
  } while (link != NULL);
}

/* Nobody can run what is queued: it fails, and says why. */
static void
fail_queued (rs_pool *pool, const rs_error *err)
{
  rs_job *job;
  do {
    lock(pool);
    job = pool->alive == 0 ? rs_sched_claim_of_locked(&pool->sched, NULL)
                           : NULL;
    unlock(pool);
    if (job != NULL) {
      rs_job_fail(job, err->text);
      rs_job_unref(job);
    }
  } while (job != NULL);
}

static void
worker_began (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  rs_spin_enter();
  lock(pool);
  slot->thread = pthread_self();
  slot->cancel = rs_cancel_mine();
  w->began = true;
  if (w->abandoned)
    pthread_detach(slot->thread);
  unlock(pool);
}

/* Wake them, and drop the reference; or NULL. */
static void
wake (rs_events *events)
{
  if (events != NULL)
    rs_events_wake(events);
  rs_events_unref(events);
}

static void
worker_opened (rs_slot *slot, int status, const rs_error *err)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  lock(pool);
  if (!w->opened) {
    w->opened = true;
    pool->opening--;
  }
  if (status != RS_OK && status != RS_ESTOPPED) {
    pool->failed_workers++;
    pool->failure = *err;
  }
  change_locked(pool);
  rs_events *const watcher = rs_events_ref(pool->watcher);
  unlock(pool);
  wake(watcher);
}

/* It takes no more jobs. */
static void
leave_locked (rs_pool *pool, worker *w)
{
  if (w->leaving)
    return;
  w->leaving = true;
  pool->alive--;
  rs_sched_leave_locked(&pool->sched, &w->seat);
}

/* More than there may be: the reason for the last one is over. */
static bool
is_surplus_locked (const rs_pool *pool)
{
  return pool->alive > pool->max + pool->blocked;
}

/* Fill the hand of the worker, or sit down; false when it is to leave. */
static bool
look_for_job (rs_pool *pool, worker *w, bool *sits)
{
  lock(pool);
  bool stay = !w->abandoned && !is_surplus_locked(pool);
  const bool taken = stay && rs_sched_take_locked(&pool->sched, &w->seat);
  stay = stay && (taken || !pool->sched.closed);
  *sits = stay && !taken;
  if (!stay)
    leave_locked(pool, w);
  unlock(pool);
  return stay;
}

/* It sits: wait for a job; false when it is to leave, after 'leave' or what
   that is from now on. */
static bool
wait_for_job (rs_pool *pool, worker *w, double *leave)
{
  if (rs_seat_spin(&w->seat))
    return true;
  /* The host whose job it was may go. */
  rs_events_unref(w->slot.served);
  w->slot.served = NULL;
  w->slot.transport->rest(&w->slot);
  const bool kept = rs_large_any();
  lock(pool);
  if (*leave == 0)
    *leave = rs_deadline(pool->idle);
  const double idle = pool->alive > pool->min ? *leave : RS_NEVER;
  const double trim = kept ? rs_now() + RS_LARGE_SECONDS : RS_NEVER;
  const bool called = rs_sched_sleep_locked(&pool->sched, &w->seat,
                                            idle < trim ? idle : trim);
  const bool stay = called
                 || (!pool->sched.closed
                     && (pool->alive <= pool->min || rs_now() < *leave));
  if (!stay)
    leave_locked(pool, w);
  unlock(pool);
  if (!called && kept)
    rs_large_trim();  /* and sleep on */
  return stay;
}

static rs_job *
worker_take (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  rs_job *job;
  bool stay = true, sits;
  double leave = 0;
  while ((job = rs_seat_begin(&w->seat)) == NULL && stay) {
    if (rs_seat_linger(&pool->sched, &w->seat))
      continue;
    stay = look_for_job(pool, w, &sits);
    if (stay && sits)
      stay = wait_for_job(pool, w, &leave);
  }
  tell_room(pool);
  return job;
}

static void
worker_done (rs_slot *slot)
{
  rs_seat_done(&worker_of(slot)->seat);
}

static void
worker_ended (rs_slot *slot)
{
  rs_seat_end(&slot->pool->sched, &worker_of(slot)->seat);
}

static bool
worker_stays (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  lock(pool);
  const bool stays = !worker_of(slot)->abandoned
                  && rs_wish_reason(&slot->wish) == RS_REASON_NONE
                  && (!pool->sched.closed || is_wanted_locked(pool));
  unlock(pool);
  return stays;
}

static void
worker_renewed (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  lock(pool);
  pool->renewed++;
  unlock(pool);
}

static bool replace_locked (rs_pool *pool, worker **next);
static void start_instead (rs_pool *pool, worker *next);

static void
worker_left (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  rs_events_unref(slot->served);
  lock(pool);
  if (!w->abandoned)
    rs_spin_leave();
  leave_locked(pool, w);  /* its runspace could not be made? */
  const bool none = !w->abandoned && pool->alive == 0
                 && pool->failed_workers > 0;
  const rs_error failure = pool->failure;
  unlock(pool);
  if (none)
    fail_queued(pool, &failure);
  stop_seeding_if_over(pool);

  worker *next = NULL;
  bool again = false;
  lock(pool);
  const bool joined = pool->closing && !w->abandoned;
  if (w->abandoned) {  /* it was lost, and has come back? */
    pool->stuck--;
    again = replace_locked(pool, &next);
  }
  else
    unlist_locked(pool, w);
  if (joined)
    rs_list_push(&pool->gone, &w->link);
  else if (!w->abandoned)
    pthread_detach(pthread_self());
  change_locked(pool);
  rs_events *const watcher = rs_events_ref(pool->watcher);
  unlock(pool);
  wake(watcher);
  if (again)
    start_instead(pool, next);
  if (!joined)
    worker_free(w);
  drop(pool, 1);
}

static void worker_lost (rs_slot *slot);

static const rs_slot_owner owner = {
  .began = worker_began,
  .opened = worker_opened,
  .take = worker_take,
  .done = worker_done,
  .ended = worker_ended,
  .stays = worker_stays,
  .renewed = worker_renewed,
  .lost = worker_lost,
  .left = worker_left,
};

/* ----------------------------------------------------------------- growing */

/* Make room for more numbers.  False when out of memory. */
static bool
grow_numbers_locked (rs_pool *pool)
{
  const size_t words = pool->words > 0 ? 2 * pool->words : 1;
  uint64_t *const numbers = realloc(pool->numbers, words * sizeof *numbers);
  if (numbers == NULL)
    return false;
  memset(numbers + pool->words, 0, (words - pool->words) * sizeof *numbers);
  pool->numbers = numbers;
  pool->words = words;
  return true;
}

/* Take the smallest number that no worker has; 0 when out of memory. */
static unsigned
take_number_locked (rs_pool *pool)
{
  size_t i = pool->vacant;
  while (i < pool->words && pool->numbers[i] == UINT64_MAX)
    i++;
  pool->vacant = i;
  if (i == pool->words && !grow_numbers_locked(pool))
    return 0;
  const unsigned bit = (unsigned) __builtin_ctzll(~pool->numbers[i]);
  pool->numbers[i] |= UINT64_C(1) << bit;
  return (unsigned) (i * BITS) + bit + 1;
}

/* A worker that counts as alive already, so that nobody makes another one
   too many.  NULL when out of memory. */
static worker *
reserve_locked (rs_pool *pool)
{
  worker *const w = aligned_alloc(_Alignof(worker), sizeof *w);
  const unsigned number = w != NULL ? take_number_locked(pool) : 0;
  if (number == 0) {
    free(w);
    return NULL;
  }
  memset(w, 0, sizeof *w);
  rs_seat_init(&w->seat);
  w->slot.owner = &owner;
  w->slot.transport = &rs_thread_transport;
  w->slot.pool = pool;
  w->slot.initial_state = pool->initial_state;
  w->slot.limits = &pool->limits;
  w->slot.reset = pool->reset;
  w->slot.signal = pool->signal;
  w->slot.pin = pool->pin;
  w->slot.born = pool->queue.born;
  w->slot.number = number;
  rs_list_push(&pool->workers, &w->link);
  rs_sched_enter_locked(&pool->sched, &w->seat);
  pool->alive++;
  pool->opening++;
  pool->started_workers++;
  hold(pool, 1);
  return w;
}

/* Start a worker that was reserved; NULL stands for no memory. */
static int
start (rs_pool *pool, worker *w, rs_error *err)
{
  rs_error failure = { .status = RS_OK };
  const int status = w != NULL ? w->slot.transport->start(&w->slot, &failure)
                               : rs_fail_plain(&failure, RS_ENOMEM);
  if (status == RS_OK)
    return RS_OK;
  lock(pool);
  if (w != NULL) {
    unlist_locked(pool, w);
    leave_locked(pool, w);
    pool->opening--;
    pool->started_workers--;
  }
  pool->failed_workers++;
  pool->failure = failure;
  change_locked(pool);
  unlock(pool);
  if (w != NULL) {
    worker_free(w);
    drop(pool, 1);
  }
  return rs_fail(err, status, "%s", failure.text);
}

/* ----------------------------------------------------------------- losing */

/* So many are stuck that no more are replaced: what is queued waits for those
   that are left, or for one that comes back. */
static bool
has_lost_too_many_locked (const rs_pool *pool)
{
  return pool->stuck > MAX_STUCK && pool->stuck > 2 * pool->max;
}

static bool
may_grow_locked (const rs_pool *pool)
{
  return pool->alive < pool->max + pool->blocked
      && !has_lost_too_many_locked(pool);
}

/* It is left to itself. */
static void
abandon_one_locked (rs_pool *pool, worker *w)
{
  unlist_locked(pool, w);
  w->abandoned = true;
  pool->stuck++;
  pool->lost_workers++;
  if (w->began)
    pthread_detach(w->slot.thread);
  rs_spin_leave();  /* for it */
  leave_locked(pool, w);
}

/* Is there to be a worker in the place of one that was lost, or has come back?
   It is 'next' then, or that is NULL: no memory. */
static bool
replace_locked (rs_pool *pool, worker **next)
{
  const bool wanted = is_wanted_locked(pool)
                   || (!pool->sched.closed && pool->alive < pool->min);
  const bool again = wanted && may_grow_locked(pool);
  *next = again ? reserve_locked(pool) : NULL;
  return again;
}

/* Start it.  If that cannot be, what is queued waits for a worker that comes
   back; it fails if there is none that could. */
static void
start_instead (rs_pool *pool, worker *next)
{
  rs_error err;
  if (start(pool, next, &err) == RS_OK)
    return;
  lock(pool);
  const bool none = pool->stuck == 0;
  unlock(pool);
  if (none)
    fail_queued(pool, &err);
}

/* rs_slot_owner: any thread */
static void
worker_lost (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  worker *next;
  lock(pool);
  if (!w->abandoned)
    abandon_one_locked(pool, w);
  rs_job *const job = rs_seat_job_locked(&w->seat);
  if (job != NULL)  /* or is a runspace seeded for the next one? */
    pool->sched.finished++;
  if (!w->opened) {
    w->opened = true;
    pool->opening--;
  }
  const bool again = replace_locked(pool, &next);
  change_locked(pool);
  rs_events *const watcher = rs_events_ref(pool->watcher);
  unlock(pool);
  if (again)
    start_instead(pool, next);
  stop_seeding_if_over(pool);
  wake(watcher);
  /* One that was between two attempts has had no token to tell it. */
  if (job != NULL)
    rs_job_lose_call(&job->call);
}

/* ----------------------------------------- what jobs and batches ask of us */

/* The queue takes no more of this. */
static bool
is_full_locked (const rs_pool *pool, size_t bytes)
{
  const rs_sched *const s = &pool->sched;
  /* As many as there are idle workers are as good as taken. */
  return s->calls >= s->sitting
      && (s->calls - s->sitting >= pool->queue_jobs
          || (s->calls > s->sitting
              && (s->bytes >= pool->queue_bytes
                  || bytes > pool->queue_bytes - s->bytes)));
}

/* Is more queued than workers are about to take, since they have nothing?  Who
   is woken counts: it may be late. */
static bool
is_short_locked (const rs_pool *pool)
{
  const size_t engaged = rs_sched_count_locked(&pool->sched).engaged;
  return pool->sched.queued + engaged > pool->alive;
}

/* Queue 'job'; if RS_OK, the reference for the queue is taken over.
   'limited': not if the queue is full. */
static int
push (rs_pool *pool, rs_job *job, bool limited, rs_error *err)
{
  lock(pool);
  if (pool->sched.closed) {
    unlock(pool);
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  }
  if (limited && is_full_locked(pool, pool->sched.limited ? rs_job_bytes(job)
                                                          : 0)) {
    unlock(pool);
    return rs_fail(err, RS_EFULL, "the queue of the pool is full");
  }
  const bool may_grow = may_grow_locked(pool);
  const bool handed = rs_sched_push_locked(&pool->sched, job, !may_grow);
  const bool grow = !handed && may_grow && is_short_locked(pool);
  worker *const w = grow ? reserve_locked(pool) : NULL;
  unlock(pool);
  if (!grow)
    return RS_OK;
  const int status = start(pool, w, err);
  if (status == RS_OK)
    return RS_OK;
  /* Are there others that will run it, and what waits, too; or may one come
     back? */
  lock(pool);
  const bool none = pool->alive == 0 && pool->stuck == 0;
  const bool back = none && rs_sched_claim_locked(&pool->sched, job);
  const rs_error failure = pool->failure;
  unlock(pool);
  if (none)
    fail_queued(pool, &failure);
  return back ? status : RS_OK;
}

static int
queue_push (rs_queue *q, rs_job *job, rs_error *err)
{
  return push(pool_of(q), job, false, err);
}

static bool
queue_claim (rs_queue *q, rs_job *job)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  const bool found = rs_sched_claim_locked(&pool->sched, job);
  const bool over = found && is_over_locked(pool);
  unlock(pool);
  if (found)
    tell_room(pool);
  if (over)
    stop_seeding(pool);
  return found;
}

static rs_job *
queue_claim_of (rs_queue *q, const rs_batch *batch)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  rs_job *const job = rs_sched_claim_of_locked(&pool->sched, batch);
  const bool over = job != NULL && is_over_locked(pool);
  unlock(pool);
  tell_room(pool);
  if (over)
    stop_seeding(pool);
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
  return pool_of(q)->max;
}

static int
queue_block (rs_queue *q, rs_error *err)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  pool->blocked++;
  const bool grow = is_wanted_locked(pool)
                 && rs_list_empty(&pool->sched.idle) && may_grow_locked(pool);
  worker *const w = grow ? reserve_locked(pool) : NULL;
  unlock(pool);
  const int status = grow ? start(pool, w, err) : RS_OK;
  if (status == RS_OK)
    return RS_OK;
  lock(pool);  /* are there others that do not wait, or may come back? */
  const bool none = pool->alive <= pool->blocked && pool->stuck == 0;
  pool->blocked -= none;
  unlock(pool);
  return none ? status : RS_OK;
}

static void
queue_unblock (rs_queue *q)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  pool->blocked--;
  unlock(pool);
}

static bool
queue_is_deserted (rs_queue *q, rs_error *err)
{
  rs_pool *const pool = pool_of(q);
  if (atomic_load_explicit(&pool->stuck, memory_order_relaxed) == 0)
    return false;
  lock(pool);
  const unsigned stuck = pool->alive == 0 ? pool->stuck : 0;
  unlock(pool);
  if (stuck > 0)
    rs_fail(err, RS_ETHREAD, "no worker was left: the pool has lost %u, which "
                             "did not come back from their jobs", stuck);
  return stuck > 0;
}

static void
queue_hold (rs_queue *q, unsigned n)
{
  hold(pool_of(q), n);
}

static void
queue_drop (rs_queue *q, unsigned n)
{
  drop(pool_of(q), n);
}

/* ----------------------------------------------------------------- opening */

static rs_pool *
pool_new (const rs_pool_options *o)
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
    .born = rs_fork_now(),
    .push = queue_push,
    .claim = queue_claim,
    .claim_of = queue_claim_of,
    .ended = queue_ended,
    .width = queue_width,
    .block = queue_block,
    .unblock = queue_unblock,
    .is_deserted = queue_is_deserted,
    .hold = queue_hold,
    .drop = queue_drop,
  };
  rs_job_locks_init(pool->queue.locks);
  pool->min = o->min;
  pool->max = o->max;
  pool->idle = o->idle != 0 ? o->idle : IDLE;
  pool->reset = o->reset;
  pool->signal = o->signal == 0 ? SIGURG
               : o->signal == RS_NO_SIGNAL ? 0 : o->signal;
  pool->user = o->user;
  pool->pin = o->pin;
  pool->queue_jobs = o->queue_jobs != 0 ? o->queue_jobs : SIZE_MAX;
  pool->queue_bytes = o->queue_bytes != 0 ? o->queue_bytes : SIZE_MAX;
  pool->limits = (rs_limits) {
    .memory = o->memory,
    .instructions = o->instructions,
    .max_tasks = o->max_tasks,
    .max_bytes = o->max_bytes,
  };
  rs_list_init(&pool->waiters);
  rs_timers_hold();
  pool->timed = true;
  pool->initial_state = o->initial_state != NULL
                      ? rs_initial_state_ref(o->initial_state)
                      : rs_initial_state_new();
  rs_sched_init(&pool->sched, o->queue_jobs != 0 || o->queue_bytes != 0);
  rs_list_init(&pool->workers);
  rs_list_init(&pool->gone);
  rs_cond_init(&pool->changed);
  if (pool->initial_state == NULL) {
    rs_timers_drop();
    drop(pool, 1);
    return NULL;
  }
  rs_initial_state_seal(pool->initial_state);
  return pool;
}

/* One worker is there, and the others will be: what opens in one state opens
   in each, unless it is a script's own.  Or nothing can go wrong: then the
   first jobs are made while it opens. */
static bool
has_opened_locked (const rs_pool *pool)
{
  return (pool->limits.memory == 0
          && rs_initial_state_is_sure(pool->initial_state))
      || (pool->opening < pool->started_workers
          && !rs_initial_state_runs_scripts(pool->initial_state));
}

int
rs_pool_start (const rs_pool_options *options, rs_pool **out, rs_error *err)
{
  rs_pool_options room;
  const rs_pool_options *const o = rs_check_pool_options(options, &room, err);
  int status = out == NULL ? rs_fail_null(err, "out") : RS_OK;
  if (o == NULL || status != RS_OK)
    return RS_EINVAL;
  rs_pool *const pool = pool_new(o);
  if (pool == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  for (unsigned i = 0; i < o->min && status == RS_OK; i++) {
    lock(pool);
    worker *const w = reserve_locked(pool);
    unlock(pool);
    status = start(pool, w, err);
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
  if (is_foreign(pool))
    return rs_fork_fail(err, "pool");
  if (rs_check_wait(&timeout, err) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  bool busy, late = false;
  lock(pool);
  while ((busy = pool->opening > 0 && !has_opened_locked(pool)) && !late)
    late = watch_locked(pool, deadline) != RS_OK;
  rs_events *const old = pool->watcher;
  pool->watcher = busy ? rs_events_ref(events) : NULL;
  const unsigned alive = pool->alive;
  const rs_error failure = pool->failure;
  unlock(pool);
  rs_events_unref(old);
  if (busy)
    return RS_EBUSY;
  /* Fewer threads than wanted will do; a state that fails will not, since
     it would fail again in each worker to come. */
  const int status = pool->begun == RS_ETHREAD && alive > 0 ? RS_OK
                                                            : failure.status;
  return status == RS_OK ? RS_OK : rs_fail(err, status, "%s", failure.text);
}

/* It is not open, and will not be: that failed, or the thread is cancelled. */
static void
unref_object (void *pool)
{
  rs_pool_unref(pool);
}

int
rs_pool_open (const rs_pool_options *options, rs_pool **out, rs_error *err)
{
  rs_pool *pool;
  int status = out == NULL ? rs_fail_null(err, "out")
                           : rs_pool_start(options, &pool, err);
  if (status != RS_OK)
    return status;
  pthread_cleanup_push(unref_object, pool);
  status = rs_pool_await_open(pool, NULL, RS_FOREVER, err);
  pthread_cleanup_pop(status != RS_OK);
  if (status == RS_OK)
    *out = pool;
  return status;
}

/* ----------------------------------------------------------------- closing */

/* Wait until no worker is left, or 'deadline'.  False when some are. */
static bool
wait_for_workers_locked (rs_pool *pool, double deadline)
{
  int status = RS_OK;
  while (!rs_list_empty(&pool->workers) && status == RS_OK)
    status = watch_locked(pool, deadline);
  return rs_list_empty(&pool->workers);
}

/* What is queued ends as cancelled; what is running is stopped. */
static void
cancel_all (rs_pool *pool, rs_reason reason, double grace)
{
  rs_job *job;
  while ((job = queue_claim_of(&pool->queue, NULL)) != NULL) {
    rs_job_end_queued(job, reason);
    rs_job_unref(job);
  }
  rs_job *some[64];
  size_t n = 0;
  lock(pool);
  const size_t most = pool->sched.all;
  rs_job **const list = most <= sizeof some / sizeof some[0] ? some
                      : malloc(most * sizeof *list);
  for (rs_list *link = pool->workers.next;
       list != NULL && n < most && link != &pool->workers;
       link = link->next) {
    rs_job *const running =
      rs_seat_job_locked(&RS_LIST_ENTRY(link, worker, link)->seat);
    if (running != NULL)
      list[n++] = running;
  }
  unlock(pool);
  for (size_t i = 0; i < n; i++) {
    rs_job_stop(list[i], reason, grace);
    rs_job_unref(list[i]);
  }
  if (list != some)
    free(list);
}

/* Who does not come back from a job is left to itself. */
static void
abandon_locked (rs_pool *pool)
{
  while (!rs_list_empty(&pool->workers))
    abandon_one_locked(pool, RS_LIST_ENTRY(pool->workers.next, worker, link));
}

static bool
is_own_worker_locked (rs_pool *pool)
{
  for (rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next) {
    const worker *const w = RS_LIST_ENTRY(link, worker, link);
    if (w->began && pthread_equal(w->slot.thread, pthread_self()))
      return true;
  }
  return false;
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

/* It has said that it leaves, and is gone sooner than this thread would sleep
   and wake up. */
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
  if (pool == NULL || is_foreign(pool)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  lock(pool);
  if (is_own_worker_locked(pool)) {
    unlock(pool);
    return RS_EINVAL;
  }
  pool->closing = true;
  rs_sched_close_locked(&pool->sched);
  unlock(pool);
  stop_seeding_if_over(pool);
  lock(pool);
  bool ended = wait_for_workers_locked(pool, deadline);
  /* Is it left by all, and something queued?  Nobody waits for that here. */
  if (!ended || is_wanted_locked(pool)) {
    const bool over = is_over_locked(pool);  /* they only have to go */
    unlock(pool);
    stop_seeding(pool);
    cancel_all(pool, RS_REASON_CLOSED, RS_GRACE);
    lock(pool);
    /* Lost ones are abandoned on the way; the others, if there is nobody to
       find them lost, or if they close their state, here. */
    const bool gone = wait_for_workers_locked(pool, rs_deadline(RS_GRACE
                                                                + RS_KILL
                                                                + LATE));
    if (!gone)
      abandon_locked(pool);
    ended = over && gone;
  }
  /* What is left takes no time: the thread is not cancelled before it is done
     (pthread_cancel(3)). */
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  rs_list *link;
  while ((link = rs_list_shift(&pool->gone)) != NULL) {
    worker *const w = RS_LIST_ENTRY(link, worker, link);
    unlock(pool);
    join(w->slot.thread);
    worker_free(w);
    lock(pool);
  }
  const bool timed = pool->timed;
  pool->timed = false;
  unlock(pool);
  tell_room(pool);
  if (timed)
    rs_timers_drop();
  pthread_setcancelstate(state, NULL);
  return ended ? RS_OK : RS_ETIMEOUT;
}

void
rs_pool_cancel (rs_pool *pool, double grace)
{
  if (pool != NULL && !is_foreign(pool))
    cancel_all(pool, RS_REASON_CANCELLED, grace);
}

void *
rs_pool_user (const rs_pool *pool)
{
  return pool != NULL ? pool->user : NULL;
}

bool
rs_pool_is_limited (const rs_pool *pool)
{
  return pool != NULL && (pool->queue_jobs != SIZE_MAX
                          || pool->queue_bytes != SIZE_MAX);
}

int
rs_pool_await_room (rs_pool *pool, rs_events *events)
{
  if (pool == NULL || events == NULL || is_foreign(pool))
    return RS_EINVAL;
  waiter *const w = calloc(1, sizeof *w);
  if (w == NULL)
    return RS_ENOMEM;
  w->events = rs_events_ref(events);
  lock(pool);
  rs_list_push(&pool->waiters, &w->link);
  atomic_store_explicit(&pool->full, true, memory_order_relaxed);
  const bool room = pool->sched.closed || !is_full_locked(pool, 0);
  unlock(pool);
  if (room)
    tell_room(pool);
  return RS_OK;
}

int
rs_pool_shut (rs_pool *pool, rs_events *events)
{
  if (pool == NULL || is_foreign(pool))
    return RS_EINVAL;
  lock(pool);
  if (is_own_worker_locked(pool)) {
    unlock(pool);
    return RS_EINVAL;
  }
  rs_events *const old = pool->watcher;
  pool->watcher = rs_events_ref(events);
  pool->closing = true;
  rs_sched_close_locked(&pool->sched);
  const bool none = rs_list_empty(&pool->workers);
  unlock(pool);
  tell_room(pool);
  stop_seeding_if_over(pool);
  rs_events_unref(old);
  if (events != NULL)  /* the pool is not needed any more */
    rs_events_shut_purses(events);
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
  if (pool == NULL || is_foreign(pool)
      || atomic_fetch_sub_explicit(&pool->refs, 1, memory_order_acq_rel) != 1)
    return;
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  rs_pool_close(pool, 0);
  drop(pool, 1);
  pthread_setcancelstate(state, NULL);
}

/* ------------------------------------------------------------------ public */

static void
get_info (rs_pool *pool, rs_pool_info *out)
{
  if (is_foreign(pool)) {  /* nothing is known of it here */
    out->closed = true;
    return;
  }
  out->min = pool->min;
  out->max = pool->max;
  lock(pool);
  const rs_sched_counts counts = rs_sched_count_locked(&pool->sched);
  out->workers = pool->alive;
  out->idle = (unsigned) pool->sched.sitting;
  out->stuck = pool->stuck;
  out->queued = pool->sched.queued + counts.held;
  out->running = counts.running;
  out->finished = counts.finished;
  out->started_workers = pool->started_workers;
  out->failed_workers = pool->failed_workers;
  out->lost_workers = pool->lost_workers;
  out->renewed = pool->renewed;
  out->signal = pool->signal != 0 ? pool->signal : RS_NO_SIGNAL;
  out->closed = pool->sched.closed;
  for (rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next)
    out->bytes += atomic_load_explicit(&RS_LIST_ENTRY(link, worker,
                                                      link)->slot.bytes,
                                       memory_order_relaxed);
  memcpy(out->failure, pool->failure.text, sizeof out->failure - 1);
  unlock(pool);
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
  memset(&info, 0, sizeof info);  /* what is between its fields, too */
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

/* Queue it, as 'push'; a worker of the pool itself, which cannot wait for room
   that it would have to make, runs it at once. */
static int
submit (rs_pool *pool, rs_job *job, lua_State *L, rs_error *err)
{
  const int status = push(pool, job, true, err);
  rs_state *const s = status == RS_EFULL ? rs_job_helper(&pool->queue, L)
                                         : NULL;
  if (s == NULL)
    return status;
  if (!rs_job_can_help(&pool->queue, s, NULL, NULL))
    return push(pool, job, false, err);
  rs_job_run(job, s, L);
  return RS_OK;
}

/* Drop a new job that was not queued. */
static void
give_up (rs_job *job)
{
  rs_job_unref(job);
  rs_job_unref(job);
}

/* [-0, +0, -]  A job for the function at 'index' and the 'n' values from
   'first' on. */
static int
make_job (rs_pool *pool, rs_outbox *o, lua_State *L, int index, int first,
          int n, const rs_job_options *options, rs_job **out, rs_error *err)
{
  rs_message *function;
  int status = rs_code_encode_function(o, L, index, &function, err);
  if (status != RS_OK)
    return status;
  if (is_foreign(pool))  /* a '__transfer' has forked? */
    return rs_fork_fail(err, "pool");
  rs_job *const job = rs_job_new(&pool->queue, function, options, NULL);
  if (!function->constant)
    rs_message_unref(function);
  if (job == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_sched_prefetch(&pool->sched);
  rs_call *const call = &job->call;
  status = rs_code_encode_arguments(o, L, first, n, call->room,
                                    call->retries == 0 ? sizeof call->room : 0,
                                    call->function, &call->arguments, err);
  if (status == RS_OK && is_foreign(pool))
    status = rs_fork_fail(err, "pool");
  if (status == RS_OK)
    *out = job;
  else
    give_up(job);
  return status;
}

/* The function and 'nargs' values from 'first' on are on the stack. */
static int
check_call (const rs_pool *pool, const rs_outbox *o, lua_State *L,
            int function, int first, int nargs, rs_error *err)
{
  if (pool == NULL || o == NULL || L == NULL)
    return rs_fail_null(err, pool == NULL ? "pool" : L == NULL ? "L"
                                                               : "outbox");
  if (is_foreign(pool))
    return rs_fork_fail(err, "pool");
  const int top = lua_gettop(L);
  if (nargs < 0)
    return rs_fail(err, RS_EINVAL, "nargs (%d) is below 0", nargs);
  if (function < 1 || function > top)
    return rs_fail(err, RS_EINVAL, "function (%d) is no index of the stack, "
                                   "which has %d values", function, top);
  if (nargs > 0 && (first < 1 || first > top || nargs > top - first + 1))
    return rs_fail(err, RS_EINVAL, "%d arguments from %d on are not on the "
                                   "stack, which has %d values", nargs, first,
                   top);
  return RS_OK;
}

/* The same for a function below 'nargs' arguments on top of the stack. */
static int
check_top (const rs_pool *pool, lua_State *L, int nargs, rs_error *err)
{
  if (pool == NULL || L == NULL)
    return rs_fail_null(err, pool == NULL ? "pool" : "L");
  if (nargs < 0)
    return rs_fail(err, RS_EINVAL, "nargs (%d) is below 0", nargs);
  if (nargs >= lua_gettop(L))
    return rs_fail(err, RS_EINVAL, "nargs (%d) and a function are not on the "
                                   "stack, which has %d values: push them "
                                   "first", nargs, lua_gettop(L));
  return RS_OK;
}

int
rs_submit_at (rs_pool *pool, rs_outbox *o, lua_State *L, int function,
              int first, int nargs, const rs_job_options *options,
              rs_job **out, rs_error *err)
{
  rs_job *job = NULL;
  rs_job_options room;
  int status = check_call(pool, o, L, function, first, nargs, err);
  if (status == RS_OK)
    status = rs_job_check_nesting(L, err);
  if (status != RS_OK)
    return status;
  rs_sched_prefetch(&pool->sched);
  options = rs_check_job_options(options, &room, err);
  if (options == NULL)
    return RS_EINVAL;
  if (options->events != NULL && rs_events_foreign(options->events))
    return rs_fork_fail(err, "rs_events");
  status = make_job(pool, o, L, function, first, nargs, options, &job, err);
  if (status != RS_OK)
    return status;
  if (options->awaited)
    rs_job_nest(job, L);
  if (options->timeout > 0 && !rs_timers_start())
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the time-out");
  const double deadline = options->deadline > 0
                        ? rs_deadline(options->deadline) : RS_NEVER;
  if (status == RS_OK && deadline != RS_NEVER
      && !rs_job_set_deadline(job, deadline))
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the deadline");
  if (status == RS_OK)
    status = submit(pool, job, L, err);
  /* The deadline may have passed before it was there. */
  if (status == RS_OK
      && rs_wish_reason(&job->call.wish) != RS_REASON_NONE
      && queue_claim(&pool->queue, job)) {
    rs_job_end_queued(job, rs_wish_reason(&job->call.wish));
    rs_job_unref(job);
  }
  if (status != RS_OK)
    give_up(job);
  else if (out != NULL)
    *out = job;
  else
    rs_job_unref(job);
  return status;
}

int
rs_submit (rs_pool *pool, lua_State *L, int nargs,
           const rs_job_options *options, rs_job **out, rs_error *err)
{
  int status = check_top(pool, L, nargs, err);
  if (status != RS_OK)
    return status;
  const int index = lua_gettop(L) - nargs;
  rs_outbox *const o = rs_outbox_of(L);
  status = o == NULL ? rs_fail_plain(err, RS_ENOMEM)
    : rs_submit_at(pool, o, L, index, index + 1, nargs, options, out, err);
  lua_settop(L, index - 1);
  return status;
}

int
rs_batch_open (rs_pool *pool, lua_State *L, int nargs,
               const rs_batch_options *options, rs_batch **out, rs_error *err)
{
  rs_batch_options room;
  int status = check_top(pool, L, nargs, err);
  if (status != RS_OK)
    return status;
  options = rs_check_batch_options(options, &room, err);
  status = options == NULL ? RS_EINVAL
         : out == NULL ? rs_fail_null(err, "out")
         : is_foreign(pool) ? rs_fork_fail(err, "pool")
         : options->events != NULL && rs_events_foreign(options->events)
         ? rs_fork_fail(err, "rs_events")
         : rs_job_check_nesting(L, err);
  if (status != RS_OK) {
    lua_pop(L, nargs + 1);
    return status;
  }
  lock(pool);
  const bool closed = pool->sched.closed;
  unlock(pool);
  if (closed) {
    lua_pop(L, nargs + 1);
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  }
  return rs_batch_new(&pool->queue, L, nargs, options, out, err);
}
