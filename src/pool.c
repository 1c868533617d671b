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
#include <assert.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "clock.h"
#include "sched.h"
#include "status.h"
#include "transport.h"

#define IDLE 10.0    /* seconds, by default */
#define GRACE 0.25   /* seconds for running jobs when a pool is dropped */

typedef struct worker {
  rs_slot slot;
  rs_seat seat;
  rs_list link;      /* in 'workers' or 'gone' */
  bool began;        /* guarded by the pool's lock, as the next three */
  bool opened;
  bool leaving;      /* it takes no more jobs */
  bool abandoned;    /* nobody will join it */
} worker;

struct rs_pool {
  rs_queue queue;    /* what jobs and batches see */
  _Atomic unsigned refs;
  _Atomic unsigned holds;
  unsigned min, max; /* constant, as the next three */
  double idle;
  int reset;
  rs_initial_state *initial_state;  /* a reference */
  _Atomic uint64_t ended[RS_JOB_LOST + 1];  /* jobs and items, counted by
                                               who ends them */

  rs_sched sched;    /* its lock guards down to the blank line */
  rs_list workers;   /* threads that were started and have not ended */
  rs_list gone;      /* ended, to be joined by who closes */
  unsigned alive;    /* of 'workers', not 'leaving' */
  unsigned opening;  /* of 'workers', not 'opened' */
  unsigned stuck;    /* abandoned, and not ended */
  bool closing;
  uint64_t started_workers, failed_workers;
  rs_error failure;  /* of the last failed worker */
  rs_events *closer; /* wakes when a worker ends; a reference, or NULL */
  pthread_cond_t changed;  /* 'workers' or 'opening' got less */
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

/* ------------------------------------------------------------------ memory */

static void
hold (rs_pool *pool)
{
  atomic_fetch_add_explicit(&pool->holds, 1, memory_order_relaxed);
}

static void
drop (rs_pool *pool)
{
  /* Release our reads and writes to the thread that frees. */
  if (atomic_fetch_sub_explicit(&pool->holds, 1, memory_order_acq_rel) != 1)
    return;
  rs_sched_fini(&pool->sched);
  pthread_cond_destroy(&pool->changed);
  rs_initial_state_unref(pool->initial_state);
  rs_events_unref(pool->closer);
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

/* ------------------------------------------------- what workers ask (slot) */

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
  lock(pool);
  slot->thread = pthread_self();
  w->began = true;
  if (w->abandoned)
    pthread_detach(slot->thread);
  unlock(pool);
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
  if (status != RS_OK) {
    pool->failed_workers++;
    pool->failure = *err;
  }
  pthread_cond_broadcast(&pool->changed);
  unlock(pool);
}

static rs_job *
worker_take (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  rs_job *job;
  bool stay;
  lock(pool);
  do {
    const double deadline = pool->alive > pool->min ? rs_deadline(pool->idle)
                                                    : RS_NEVER;
    job = rs_sched_take_locked(&pool->sched, &w->seat, deadline);
    stay = job == NULL && !pool->sched.closed && pool->alive <= pool->min;
  } while (stay);
  if (job == NULL) {
    w->leaving = true;
    pool->alive--;
  }
  unlock(pool);
  return job;
}

static void
worker_done (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  lock(pool);
  rs_sched_done_locked(&pool->sched, &worker_of(slot)->seat);
  unlock(pool);
}

static void
worker_left (rs_slot *slot)
{
  rs_pool *const pool = slot->pool;
  worker *const w = worker_of(slot);
  lock(pool);
  if (!w->leaving) {  /* its runspace could not be made? */
    w->leaving = true;
    pool->alive--;
  }
  const bool none = pool->alive == 0 && pool->failed_workers > 0;
  const rs_error failure = pool->failure;
  unlock(pool);
  if (none)
    fail_queued(pool, &failure);

  lock(pool);
  const bool joined = pool->closing && !w->abandoned;
  if (w->abandoned)
    pool->stuck--;
  else
    rs_list_remove(&w->link);
  if (joined)
    rs_list_push(&pool->gone, &w->link);
  else if (!w->abandoned)
    pthread_detach(pthread_self());
  pthread_cond_broadcast(&pool->changed);
  rs_events *const closer = rs_events_ref(pool->closer);
  unlock(pool);
  if (closer != NULL)
    rs_events_wake(closer);
  rs_events_unref(closer);
  if (!joined)
    worker_free(w);
  drop(pool);
}

static const rs_slot_owner owner = {
  .began = worker_began,
  .opened = worker_opened,
  .take = worker_take,
  .done = worker_done,
  .left = worker_left,
};

/* ----------------------------------------------------------------- growing */

/* The smallest number that no worker has. */
static unsigned
free_number_locked (rs_pool *pool)
{
  unsigned number = 0;
  bool taken;
  do {
    number++;
    taken = false;
    for (rs_list *link = pool->workers.next; link != &pool->workers;
         link = link->next)
      taken |= RS_LIST_ENTRY(link, worker, link)->slot.number == number;
  } while (taken);
  return number;
}

/* A worker that counts as alive already, so that nobody makes another one
   too many.  NULL when out of memory. */
static worker *
reserve_locked (rs_pool *pool)
{
  worker *const w = calloc(1, sizeof *w);
  if (w == NULL)
    return NULL;
  rs_seat_init(&w->seat);
  w->slot.owner = &owner;
  w->slot.transport = &rs_thread_transport;
  w->slot.pool = pool;
  w->slot.initial_state = pool->initial_state;
  w->slot.reset = pool->reset;
  w->slot.number = free_number_locked(pool);
  rs_list_push(&pool->workers, &w->link);
  pool->alive++;
  pool->opening++;
  pool->started_workers++;
  hold(pool);
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
    rs_list_remove(&w->link);
    pool->alive--;
    pool->opening--;
    pool->started_workers--;
  }
  pool->failed_workers++;
  pool->failure = failure;
  pthread_cond_broadcast(&pool->changed);
  unlock(pool);
  if (w != NULL) {
    worker_free(w);
    drop(pool);
  }
  return rs_fail(err, status, "%s", failure.text);
}

/* ----------------------------------------- what jobs and batches ask of us */

static int
queue_push (rs_queue *q, rs_job *job, rs_error *err)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  if (pool->sched.closed) {
    unlock(pool);
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  }
  const bool handed = rs_sched_push_locked(&pool->sched, rs_job_ref(job));
  /* A worker that is neither running nor seated is about to take one. */
  const bool grow = !handed && pool->alive < pool->max
                 && pool->sched.queued > pool->alive - pool->sched.running;
  worker *const w = grow ? reserve_locked(pool) : NULL;
  unlock(pool);
  if (!grow)
    return RS_OK;
  const int status = start(pool, w, err);
  if (status == RS_OK)
    return RS_OK;
  lock(pool);  /* are there others that will run it? */
  const bool back = pool->alive == 0
                 && rs_sched_claim_locked(&pool->sched, job);
  unlock(pool);
  if (!back)
    return RS_OK;
  rs_job_unref(job);
  return status;
}

static bool
queue_claim (rs_queue *q, rs_job *job)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  const bool found = rs_sched_claim_locked(&pool->sched, job);
  unlock(pool);
  return found;
}

static rs_job *
queue_claim_of (rs_queue *q, const rs_batch *batch)
{
  rs_pool *const pool = pool_of(q);
  lock(pool);
  rs_job *const job = rs_sched_claim_of_locked(&pool->sched, batch);
  unlock(pool);
  return job;
}

static void
queue_ended (rs_queue *q, rs_job_state state, size_t n)
{
  if (n > 0)
    atomic_fetch_add_explicit(&pool_of(q)->ended[state], n,
                              memory_order_relaxed);
}

static unsigned
queue_width (rs_queue *q)
{
  return pool_of(q)->max;
}

static void
queue_hold (rs_queue *q)
{
  hold(pool_of(q));
}

static void
queue_drop (rs_queue *q)
{
  drop(pool_of(q));
}

/* ----------------------------------------------------------------- opening */

/* Workers, seconds and flags that make sense; fills in defaults. */
static int
check_options (const rs_pool_options *given, rs_pool_options *out,
               rs_error *err)
{
  *out = given != NULL ? *given : (rs_pool_options) { 0 };
  if (out->min == 0)
    out->min = 1;
  if (out->max == 0)
    out->max = out->min > rs_cpus() ? out->min : rs_cpus();
  if (out->min > out->max)
    return rs_fail(err, RS_EINVAL, "min (%u) is more than max (%u)", out->min,
                   out->max);
  if (isnan(out->idle))
    return rs_fail(err, RS_EINVAL, "idle is not a number");
  if (out->idle == 0)
    out->idle = IDLE;
  if (out->reset < RS_RESET_GLOBALS || out->reset > RS_RESET_FRESH)
    return rs_fail(err, RS_EINVAL, "reset (%d) is none of RS_RESET_",
                   out->reset);
  return RS_OK;
}

static rs_pool *
pool_new (const rs_pool_options *o)
{
  rs_pool *const pool = calloc(1, sizeof *pool);
  if (pool == NULL)
    return NULL;
  atomic_init(&pool->refs, 1);
  atomic_init(&pool->holds, 1);
  pool->queue = (rs_queue) {
    .pool = pool,
    .fresh = o->reset == RS_RESET_FRESH,
    .push = queue_push,
    .claim = queue_claim,
    .claim_of = queue_claim_of,
    .ended = queue_ended,
    .width = queue_width,
    .hold = queue_hold,
    .drop = queue_drop,
  };
  pool->min = o->min;
  pool->max = o->max;
  pool->idle = o->idle;
  pool->reset = o->reset;
  pool->initial_state = o->initial_state != NULL
                      ? rs_initial_state_ref(o->initial_state)
                      : rs_initial_state_new();
  rs_sched_init(&pool->sched);
  rs_list_init(&pool->workers);
  rs_list_init(&pool->gone);
  rs_cond_init(&pool->changed);
  if (pool->initial_state == NULL) {
    drop(pool);
    return NULL;
  }
  rs_initial_state_seal(pool->initial_state);
  return pool;
}

int
rs_pool_open (const rs_pool_options *options, rs_pool **out, rs_error *err)
{
  rs_pool_options o;
  int status = check_options(options, &o, err);
  if (status != RS_OK)
    return status;
  rs_pool *const pool = pool_new(&o);
  if (pool == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  for (unsigned i = 0; i < o.min && status == RS_OK; i++) {
    lock(pool);
    worker *const w = reserve_locked(pool);
    unlock(pool);
    status = start(pool, w, err);
  }
  lock(pool);
  while (pool->opening > 0)
    pthread_cond_wait(&pool->changed, &pool->sched.lock);
  const unsigned alive = pool->alive;
  const rs_error failure = pool->failure;
  unlock(pool);
  /* Fewer threads than wanted will do; a state that fails will not, since
     it would fail again in each worker to come. */
  if (status != RS_ETHREAD || alive == 0)
    status = failure.status;
  else
    status = RS_OK;
  if (status != RS_OK) {
    rs_fail(err, status, "%s", failure.text);
    rs_pool_unref(pool);
    return status;
  }
  *out = pool;
  return RS_OK;
}

/* ----------------------------------------------------------------- closing */

/* Wait until no worker is left, or 'deadline'.  False when some are. */
static bool
wait_for_workers_locked (rs_pool *pool, double deadline)
{
  int status = RS_OK;
  while (!rs_list_empty(&pool->workers) && status == RS_OK)
    status = rs_cond_wait_until(&pool->changed, &pool->sched.lock, deadline);
  return rs_list_empty(&pool->workers);
}

/* What is queued ends as cancelled; what is running is told. */
static void
cancel_all (rs_pool *pool)
{
  rs_job *job;
  while ((job = queue_claim_of(&pool->queue, NULL)) != NULL) {
    rs_job_end(job, RS_JOB_CANCELLED);
    rs_job_unref(job);
  }
  /* A job that was told is not taken again. */
  do {
    job = NULL;
    lock(pool);
    for (rs_list *link = pool->workers.next;
         job == NULL && link != &pool->workers; link = link->next) {
      rs_job *const running = RS_LIST_ENTRY(link, worker, link)->seat.job;
      if (running != NULL
          && !atomic_load_explicit(&running->stop, memory_order_relaxed))
        job = rs_job_ref(running);
    }
    unlock(pool);
    if (job != NULL)
      rs_job_ask_to_stop(job);
    rs_job_unref(job);
  } while (job != NULL);
}

/* Who does not come back from a job is left to itself. */
static void
abandon_locked (rs_pool *pool)
{
  rs_list *link;
  while ((link = rs_list_shift(&pool->workers)) != NULL) {
    worker *const w = RS_LIST_ENTRY(link, worker, link);
    w->abandoned = true;
    pool->stuck++;
    if (w->began)
      pthread_detach(w->slot.thread);
    if (!w->leaving) {
      w->leaving = true;
      pool->alive--;
    }
  }
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

int
rs_pool_close (rs_pool *pool, double timeout)
{
  const double deadline = rs_deadline(timeout);
  lock(pool);
  if (is_own_worker_locked(pool)) {
    unlock(pool);
    return RS_EINVAL;
  }
  pool->closing = true;
  rs_sched_close_locked(&pool->sched);
  const bool ended = wait_for_workers_locked(pool, deadline);
  if (!ended) {
    unlock(pool);
    cancel_all(pool);
    lock(pool);
    if (!wait_for_workers_locked(pool, rs_deadline(GRACE)))
      abandon_locked(pool);
  }
  rs_list *link;
  while ((link = rs_list_shift(&pool->gone)) != NULL) {
    worker *const w = RS_LIST_ENTRY(link, worker, link);
    unlock(pool);
    pthread_join(w->slot.thread, NULL);
    worker_free(w);
    lock(pool);
  }
  unlock(pool);
  return ended ? RS_OK : RS_ETIMEOUT;
}

int
rs_pool_shut (rs_pool *pool, rs_events *events)
{
  lock(pool);
  if (is_own_worker_locked(pool)) {
    unlock(pool);
    return RS_EINVAL;
  }
  rs_events *const old = pool->closer;
  pool->closer = rs_events_ref(events);
  pool->closing = true;
  rs_sched_close_locked(&pool->sched);
  const bool none = rs_list_empty(&pool->workers);
  unlock(pool);
  rs_events_unref(old);
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
  if (pool == NULL
      || atomic_fetch_sub_explicit(&pool->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_pool_close(pool, 0);
  drop(pool);
}

/* ------------------------------------------------------------------ public */

void
rs_pool_info_get (rs_pool *pool, rs_pool_info *out)
{
  memset(out, 0, sizeof *out);
  out->min = pool->min;
  out->max = pool->max;
  lock(pool);
  out->workers = pool->alive;
  out->idle = (unsigned) pool->sched.seated;
  out->stuck = pool->stuck;
  out->queued = pool->sched.queued;
  out->running = pool->sched.running;
  out->finished = pool->sched.finished;
  out->started_workers = pool->started_workers;
  out->failed_workers = pool->failed_workers;
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

rs_pool *
rs_pool_current (lua_State *L)
{
  const rs_state *const s = rs_state_of(L);
  return s != NULL ? rs_state_pool(s) : NULL;
}

int
rs_submit (rs_pool *pool, lua_State *L, int nargs,
           const rs_job_options *options, rs_job **out, rs_error *err)
{
  rs_message *function, *arguments;
  int status = rs_job_encode(L, nargs, &function, &arguments, err);
  if (status != RS_OK)
    return status;
  rs_job *const job = rs_job_new(&pool->queue, function, arguments, options,
                                 "job");
  rs_message_unref(function);
  rs_message_unref(arguments);
  if (job == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  status = queue_push(&pool->queue, job, err);
  if (status == RS_OK && out != NULL)
    *out = job;
  else
    rs_job_unref(job);
  return status;
}

int
rs_batch_open (rs_pool *pool, lua_State *L, int nargs,
               const rs_batch_options *options, rs_batch **out, rs_error *err)
{
  lock(pool);
  const bool closed = pool->sched.closed;
  unlock(pool);
  if (closed) {
    lua_pop(L, nargs + 1);
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  }
  return rs_batch_new(&pool->queue, L, nargs, options, out, err);
}
