/* SPDX-License-Identifier: MIT */
/*
 * queue.h - a queue without workers, for checks of what jobs and batches do.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "pool/job.h"

static inline void
hold_nothing (rs_queue *q)
{
  (void) q;
}

static inline void
count_nothing (rs_queue *q, rs_job_state state, size_t n)
{
  (void) q;
  (void) state;
  (void) n;
}

static inline unsigned
one_wide (rs_queue *q)
{
  (void) q;
  return 1;
}

static inline rs_job *
claim_none (rs_queue *q, const rs_batch *batch, rs_claim why)
{
  (void) q;
  (void) batch;
  (void) why;
  return NULL;
}

/* What is queued goes to 'push', or, when that is NULL, nowhere. */
static inline void
idle_queue (rs_queue *q,
            int (*push) (rs_queue *q, rs_job *job, rs_error *err))
{
  *q = (rs_queue) {
    .push = push, .claim_of = claim_none, .ended = count_nothing,
    .width = one_wide, .hold = hold_nothing, .drop = hold_nothing
  };
  rs_job_locks_init(q->locks);
}

#endif
