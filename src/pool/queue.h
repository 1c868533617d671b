/* SPDX-License-Identifier: MIT */
/*
 * queue.h - the queue in which jobs wait for their turn, as jobs and batches
 * see it.  A pool stands behind it (pool.c).  Any thread may call its
 * functions.
 */
#ifndef RS_QUEUE_H
#define RS_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/cache.h"
#include "runspace.h"

typedef struct rs_queue rs_queue;

/* A lock that several jobs of a queue share: few of them begin, end, or are
   looked at, at the same time, and a lock and a condition for each job would
   be a quarter of its memory. */
typedef struct rs_shared_lock {
  _Alignas(RS_LINE) pthread_mutex_t mutex;
  pthread_cond_t changed;  /* a job of this lock has ended, is to stop, is
                              waited for, or its 'waiting' got less */
} rs_shared_lock;

enum { RS_JOB_LOCKS = 16 };

/* Why a job is taken out of a queue.  One that is delayed can only be
   ended. */
typedef enum rs_claim {
  RS_CLAIM_TO_RUN,
  RS_CLAIM_TO_END
} rs_claim;

/* Init and fini of the locks of a queue (job.c). */
void rs_job_locks_init (rs_shared_lock locks[RS_JOB_LOCKS]);
void rs_job_locks_fini (rs_shared_lock locks[RS_JOB_LOCKS]);

struct rs_queue {
  rs_pool *pool;
  bool fresh;  /* each job gets a new state, so a chunk has one item */
  unsigned forbidden;  /* RS_MESSAGE_ flags of messages that cannot cross to
                          its runners */
  bool reruns;  /* what is lost can be run again: runner.h */
  const char *const *globals;  /* which travel, by default: value/code.h */
  unsigned born;  /* the generation of the pool: fork.h */
  rs_shared_lock locks[RS_JOB_LOCKS];  /* a job uses one of them, by its
                                          address */

  /* Queue 'job', and take over its reference on RS_OK.  Otherwise RS_ECLOSED,
     RS_ETHREAD or RS_ENOMEM, and the caller keeps the reference. */
  int (*push) (rs_queue *q, rs_job *job, rs_error *err);

  /* As 'push', but that nobody runs the job before 'release'. */
  int (*delay) (rs_queue *q, rs_job *job, rs_error *err);

  /* Queue a job that is delayed.  Nothing happens if it is not, or no
     longer. */
  void (*release) (rs_queue *q, rs_job *job);

  /* Take 'job' out; false when it is not, or no longer, in the queue.  The
     caller gets the reference of the queue, and must run or end the job, as it
     has said. */
  bool (*claim) (rs_queue *q, rs_job *job, rs_claim why);

  /* Take the oldest queued job of 'batch' out, as 'claim' does; with NULL the
     first job of all.  NULL when there is none. */
  rs_job *(*claim_of) (rs_queue *q, const rs_batch *batch, rs_claim why);

  /* Count 'n' jobs or items that have ended in 'state'; (size_t) -1 takes one
     back. */
  void (*ended) (rs_queue *q, rs_job_state state, size_t n);

  /* The number of workers at most, which may change. */
  unsigned (*width) (rs_queue *q);

  /* A batch begins, or ends, that says itself how much goes on at a time.
     NULL where 'width' changes only when the program says so. */
  void (*limits) (rs_queue *q, bool limits);

  /* Count the calling worker as blocked: it waits for a job that it cannot run
     itself, so the pool may have one more worker until 'unblock'.  RS_OK;
     otherwise 'err' says why no worker will run what is queued, and the caller
     is not counted. */
  int (*block) (rs_queue *q, rs_error *err);
  void (*unblock) (rs_queue *q);

  /* True when all workers are lost, and what is queued waits for one that
     comes back: 'err' says so.  The function is NULL where no worker can be
     lost. */
  bool (*is_deserted) (rs_queue *q, rs_error *err);

  /* Add, or drop, a hold, which keeps the memory of the queue. */
  void (*hold) (rs_queue *q);
  void (*drop) (rs_queue *q);
};

#endif
