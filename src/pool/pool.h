/* SPDX-License-Identifier: MIT */
/*
 * pool.h - a pool and its workers, between pool.c and worker.c.
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
 * 'sched.lock' is the pool's only lock.
 */
#ifndef RS_POOL_H
#define RS_POOL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/fork.h"
#include "pool/runner.h"
#include "pool/sched.h"

/* Who waits for room in the queue. */
typedef struct rs_waiter {
  rs_list link;
  rs_events *events; /* a reference */
} rs_waiter;

/* A thread, its seat, and what it runs calls on. */
typedef struct rs_worker {
  rs_pool *pool;     /* constant, as the next one */
  unsigned number;   /* in its pool, from 1 */
  rs_runner *runner; /* or NULL: while it is renewed; its thread's own, as the
                        next one */
  rs_events *served; /* a reference, or NULL: where its last job reported */
  pthread_t thread;  /* set when it begins */
  rs_cancel *cancel; /* of the thread, or NULL; lent; set when it begins, and
                        there until it leaves */
  rs_wish wish;      /* runners are not opened any more; made under the lock of
                        the pool */
  _Atomic size_t bytes;  /* that its runner takes; set by its thread, read by
                            any */
  rs_seat seat;
  rs_list link;      /* in 'workers' or 'gone' */
  bool began;        /* guarded by the pool's lock, as the next three */
  bool opened;
  bool leaving;      /* it takes no more jobs */
  bool abandoned;    /* nobody will join it */
} rs_worker;

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
  const rs_runner_kind *kind;  /* what workers run calls on */
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
  rs_list waiters;   /* rs_waiter; owned */
  rs_error failure;  /* of the last failed worker */
  rs_events *watcher;  /* wakes when a worker opens or ends; a reference, or
                          NULL */
  unsigned watching; /* wait at: */
  pthread_cond_t changed;  /* 'workers' or 'opening' got less */

  char away[64];
  _Atomic unsigned changes;  /* the same, counted, for who spins */
};

static inline void
rs_pool_lock (rs_pool *pool)
{
  pthread_mutex_lock(&pool->sched.lock);
}

static inline void
rs_pool_unlock (rs_pool *pool)
{
  pthread_mutex_unlock(&pool->sched.lock);
}

/* It belongs to another process: nothing of it may be locked, or freed. */
static inline bool
rs_pool_is_foreign (const rs_pool *pool)
{
  return rs_fork_is_foreign(pool->queue.born);
}

/* So many more reasons to keep its memory, and less. */
void rs_pool_hold (rs_pool *pool, unsigned n);
void rs_pool_drop (rs_pool *pool, unsigned n);

/* Open a pool whose workers run calls on runners of this kind. */
int rs_pool_start_on (const rs_runner_kind *kind,
                      const rs_pool_options *options, rs_pool **out,
                      rs_error *err);

/* ---------------------------------------------------------------- worker.c */

/* A worker that counts as alive already, so that nobody makes another one
   too many.  NULL when out of memory. */
rs_worker *rs_worker_reserve_locked (rs_pool *pool);

/* Start a worker that was reserved; NULL stands for no memory.  RS_OK,
   RS_ENOMEM or RS_ETHREAD. */
int rs_worker_start (rs_pool *pool, rs_worker *w, rs_error *err);

/* It is left to itself. */
void rs_worker_abandon_locked (rs_pool *pool, rs_worker *w);

/* One of 'gone', which was joined. */
void rs_worker_free (rs_worker *w);

/* There may be one worker more. */
bool rs_pool_may_grow_locked (const rs_pool *pool);

/*
 * Wait until a worker has opened or ended, or 'deadline'.  RS_OK, which may be
 * spurious, or RS_ETIMEOUT.
 */
int rs_pool_watch_locked (rs_pool *pool, double deadline);

/* There is work that nobody has begun. */
bool rs_pool_is_wanted_locked (const rs_pool *pool);

/* No more jobs come, and there is none left: nobody needs a runner. */
bool rs_pool_is_over_locked (const rs_pool *pool);

/* No runner is opened any more; the same if the pool is over. */
void rs_pool_stop_seeding (rs_pool *pool);
void rs_pool_stop_seeding_if_over (rs_pool *pool);

/* There may be room in the queue: whoever waits for it looks. */
void rs_pool_tell_room (rs_pool *pool);

/* Nobody can run what is queued: it fails, and says why. */
void rs_pool_fail_queued (rs_pool *pool, const rs_error *err);

#endif
