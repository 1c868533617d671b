/* SPDX-License-Identifier: MIT */
/*
 * worker.h - the workers of a pool, and the pool as they see it.
 *
 * Two counts keep a pool.  'refs' are the owners' handles: to drop the last
 * one closes the pool.  'holds' keep the memory: the handles together have
 * one, and so has each worker, job and batch, so that a job's handle and a
 * worker left behind may outlive the pool.
 *
 * A worker is in one of these states:
 *
 *     opening --> waiting <--> running --> leaving --> gone
 *        \------------------------------->/
 *
 * 'alive' counts the workers in the first three, 'workers' lists those in the
 * first four; a worker that is lost is in neither.  A worker that ends before
 * the pool begins to close, or after it was lost, is detached and frees
 * itself; otherwise the thread that closes the pool joins it.
 *
 * 'sched.lock' is the pool's only lock, beside those of its jobs.
 */
#ifndef RS_WORKER_H
#define RS_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

#include "base/fork.h"
#include "base/timer.h"
#include "pool/runner.h"
#include "pool/sched.h"
#include "pool/standing.h"

/* A host that waits for room in the queue. */
typedef struct rs_waiter {
  rs_list link;
  rs_events *events; /* a reference */
} rs_waiter;

/* What is known of the time of a worker's thread (width.c). */
typedef struct rs_worker_time {
  clockid_t clock;   /* of its CPU time; constant once it has begun, as the
                        next one */
  pid_t tid;         /* as the kernel names it */
  bool seen;         /* it had a job at the last look; guarded by the pool's
                        lock, as the rest */
  double cpu;        /* seconds that it has had, at the last look */
  double delay;      /* seconds that it has wanted a CPU; below 0: not known */
} rs_worker_time;

/* How a pool adapts its width (width.c). */
typedef struct rs_width {
  rs_timer timer;
  double looked;     /* instant of the last look; only for the thread that
                        looks, or begins, as the next four */
  double children_seen;  /* seconds of CPU of the programs that have ended */
  double pause;      /* seconds until the next look */
  unsigned quiet;    /* looks in a row that found nothing to do */
  double children;   /* CPUs that programs have used lately; guarded by the
                        pool's lock, as the rest */
  unsigned base;     /* 'max', as it was given */
  unsigned most;     /* workers at most; 0: the pool does not adapt */
  unsigned held;     /* calls that limit themselves */
  unsigned busy;     /* looks in a row that found no waits */
  double later;      /* instant until which there is no growth */
  bool asleep;       /* the next job that stays queued begins a look */
} rs_width;

/* A worker: a thread, its seat, and its runner. */
typedef struct rs_worker {
  rs_pool *pool;     /* constant, as the next one */
  unsigned number;   /* in its pool, from 1 */
  rs_runner *runner; /* NULL while it is renewed; only for the worker's thread,
                        as the next one */
  rs_events *served; /* events of the last job, a reference; or NULL */
  rs_runner_past past;  /* of the runners; for the worker's thread */
  pthread_t thread;  /* set when the thread begins */
  rs_cancel *cancel; /* of the thread, or NULL; lent; set when the thread
                        begins, and there until it leaves */
  rs_wish wish;      /* to open no more runners; made under the lock of the
                        pool */
  _Atomic size_t bytes;  /* memory that the runner takes; set by the worker's
                            thread, read by any */
  rs_worker_time time;
  rs_seat seat;
  uint64_t stood;    /* number of the last standing call that the runspace has
                        come to; only for the worker's thread, as the next
                        one */
  bool returned;     /* the worker has given a job back, and takes it again */
  rs_standing *standing;  /* whose job the worker has, or is to make, a
                        reference; or NULL; set by the worker under the pool's
                        lock, as the next one */
  rs_job *late;      /* that job, a reference, if the worker has made it; or
                        NULL */
  rs_list link;      /* in 'workers' or 'gone' */
  bool began;        /* the thread runs; guarded by the pool's lock, as all
                        that follows */
  bool opened;
  bool leaving;      /* takes no more jobs */
  bool abandoned;    /* no thread will join it */
  bool uncounted;    /* spin.h does not count it any more */
  const char *host;  /* in a pool with hosts: where its runspace is, or NULL */
} rs_worker;

struct rs_pool {
  rs_queue queue;    /* what jobs and batches see */
  char before[64];   /* keeps what changes with each job away from what all
                        threads read */
  _Atomic unsigned refs;
  _Atomic unsigned holds;
  char between[64];
  rs_pool_options options;  /* constant, as the next two; as they come from
                               'rs_check_pool_options', with a reference to
                               'initial_state' */
  const rs_runner_kind *kind;  /* of the runners */
  char **globals;    /* the words of 'options.globals'; or NULL */
  void *shared;      /* by the runners (runner.h); owned, or NULL */
  size_t hosts;      /* names of hosts that the options have; constant */
  int begun;         /* status of starting the first workers */
  bool serial;       /* jobs run on the thread that has opened the pool; see
                        serial.h; constant */
  rs_worker *here;   /* of a serial pool, while it is open; only for that
                        thread, as the next one */
  rs_list serials;   /* link of the serial pools of the thread */
  _Atomic bool full; /* 'waiters' is not empty; set under the lock */
  char behind[64];
  _Atomic uint64_t ended[RS_JOB_LOST + 1];  /* jobs and items by final state,
                                               counted by the threads that end
                                               them */

  rs_sched sched;    /* 'sched.lock' guards down to the blank line */
  rs_list workers;   /* threads that were started and have not ended */
  uint64_t *numbers; /* owned; a bit for each number that one of 'workers'
                        has, from 1 */
  size_t words;      /* of 'numbers' */
  size_t vacant;     /* a word of 'numbers'; all before it are full */
  rs_list gone;      /* workers that have ended, to be joined by the thread
                        that closes */
  rs_list retired;   /* workers whose threads have ended, or never began:
                        memory for new ones, freed with the pool, since a
                        thread may still be about to wake one
                        (rs_sched_unlock) */
  unsigned min;      /* workers that are always there */
  _Atomic unsigned max;  /* workers at most; read without the lock, too */
  unsigned alive;    /* workers in 'workers' that are not 'leaving' */
  unsigned opening;  /* workers in 'workers' that are not 'opened' */
  _Atomic unsigned stuck;  /* workers that are abandoned and have not ended;
                              read without the lock to see that there is
                              none */
  unsigned blocked;  /* workers that wait for jobs that they cannot run
                        themselves */
  rs_width width;
  rs_standings standing;
  bool closing;
  bool stopped;      /* its jobs were cancelled when it was closed */
  unsigned stopping; /* threads that close the pool, whose time is over, and
                        have not asked all running jobs to stop yet */
  bool over;         /* seen by 'rs_pool_stop_seeding_if_over' */
  bool timed;        /* the pool holds the timers */
  uint64_t started_workers, failed_workers, lost_workers, renewed;
  rs_list waiters;   /* rs_waiter; owned */
  rs_error failure;  /* of the last failed worker */
  bool reached;      /* a runner was opened */
  unsigned failures; /* runners that failed to open in a row, if the kind is
                        'partial' */
  double later;      /* instant until which workers that are there do without
                        more of them */
  rs_events *watcher;  /* woken when a worker opens or ends; a reference, or
                          NULL */
  unsigned watching; /* threads that wait at 'changed' */
  pthread_cond_t changed;  /* 'workers', 'opening' or 'stopping' got less */

  char away[64];
  _Atomic unsigned changes;  /* how often 'changed' was told, for threads that
                                spin */
};

static inline void
rs_pool_lock (rs_pool *pool)
{
  pthread_mutex_lock(&pool->sched.lock);
}

static inline void
rs_pool_unlock (rs_pool *pool)
{
  rs_sched_unlock(&pool->sched);
}

/* True when the pool belongs to another process: nothing of it may be locked
   or freed here. */
static inline bool
rs_pool_is_foreign (const rs_pool *pool)
{
  return rs_fork_is_foreign(pool->queue.born);
}

/* Add, or drop, a hold on the pool's memory; the last drop frees it. */
void rs_pool_hold (rs_pool *pool);
void rs_pool_drop (rs_pool *pool);

/* New worker, which counts as alive at once, so that no other thread makes one
   too many.  NULL when out of memory. */
rs_worker *rs_worker_reserve_locked (rs_pool *pool);

/* Start a worker that was reserved; NULL stands for no memory.  RS_OK,
   RS_ENOMEM or RS_ETHREAD. */
int rs_worker_start (rs_pool *pool, rs_worker *w, rs_error *err);

/* Leave a worker to itself that does not come back from its job. */
void rs_worker_abandon_locked (rs_pool *pool, rs_worker *w);

/* Keep a worker that is in no list for the next thread. */
void rs_worker_retire_locked (rs_pool *pool, rs_worker *w);

/* --------------------------------------------------- the thread of a host */

/*
 * Let the calling thread be that of the worker, which was reserved: it opens
 * its runspace, and runs the next job, or standing call, of the pool now and
 * then.  'serve_here' returns false when there is none, and while a job of the
 * worker waits.  'open_here' returns RS_OK, or why there is no runspace;
 * 'leave_here' is called then, too.
 */
int rs_worker_open_here (rs_worker *w, rs_error *err);
bool rs_worker_serve_here (rs_worker *w);
void rs_worker_leave_here (rs_worker *w);

/* ----------------------------------- standing calls [worker_standing.c] */

/* Fail the jobs that waited for workers which take no more, for the reason in
   the text. */
void rs_pool_end_stranded (rs_pool *pool, const char *why);

/* Find the standing call that the runspace of the worker has to run next, if
   there is one, and let the worker have the job that waits for it; behind the
   last one, the job that it has given back.  False when there is nothing. */
bool rs_worker_take_standing_locked (rs_worker *w);

/* Make the job of 'w->standing', for which none waits: the runspace came
   later.  RS_OK, also when the worker has to look again; or RS_ENOMEM. */
int rs_worker_make_late (rs_worker *w, rs_error *err);

/*
 * Give back a job that another runspace is to run, if that has to be prepared
 * by standing calls before: the worker takes it again after them.  False when
 * it can go on at once.
 */
bool rs_worker_give_back (rs_worker *w, rs_job *job);

/* The job of 'w->standing' has ended, in 'state'; in RS_JOB_QUEUED, it was
   given back.  False when the worker is to leave; 'err' has the reason.
   '*due': the runspace is to be replaced. */
bool rs_worker_end_standing (rs_worker *w, rs_job_state state, bool *due,
                             rs_error *err);

/* ------------------------------------------------------------- any thread */

/* True when the pool may have one worker more. */
bool rs_pool_may_grow_locked (const rs_pool *pool);

/*
 * Wait until a worker has opened or ended, or 'deadline'.  RS_OK, which may be
 * spurious, or RS_ETIMEOUT.
 */
int rs_pool_watch_locked (rs_pool *pool, double deadline);

/* True when there is a job that no worker has begun. */
bool rs_pool_is_wanted_locked (const rs_pool *pool);

/* True when no more jobs come and none is left: no worker needs a runner. */
bool rs_pool_is_over_locked (const rs_pool *pool);

/* Tell workers to open no more runners; 'if_over': only if the pool is
   over. */
void rs_pool_stop_seeding (rs_pool *pool);
void rs_pool_stop_seeding_if_over (rs_pool *pool);

/* Wake the hosts that wait for room in the queue: there may be room now. */
void rs_pool_tell_room (rs_pool *pool);

/* Fail all that is queued, for the reason in 'err', while no worker is
   alive. */
void rs_pool_fail_queued (rs_pool *pool, const rs_error *err);

#endif
