/* SPDX-License-Identifier: MIT */
/*
 * sched.h - which job goes to which free worker.
 *
 * A queue of jobs and a stack of seats, of which one at least is empty:
 *
 *     push:  an idle seat?  hand the job to the one that sat down last
 *            none?          queue it
 *     take:  a queued job?  take the oldest of the highest priority
 *            none?          sit down and wait to be handed one
 *
 * The last seat first, since its state is warm, and the others can time out.
 */
#ifndef RS_SCHED_H
#define RS_SCHED_H

#include <pthread.h>

#include "job.h"
#include "list.h"

enum { RS_LANES = 2 * RS_PRIORITY_MAX + 1 };

typedef struct rs_sched {
  pthread_mutex_t lock;  /* guards down to the blank line, and what the pool
                            keeps behind it */
  rs_list lanes[RS_LANES];  /* jobs, references, by priority, the highest one
                               first; oldest first */
  rs_list idle;          /* seats, the last one first */
  size_t queued;         /* jobs in 'lanes' */
  size_t calls;          /* of these, no chunks */
  size_t bytes;          /* of the messages of those */
  size_t running;        /* jobs handed out and not done */
  size_t seated;         /* seats in 'idle' */
  size_t waking;         /* seats that were woken, and are not there yet: only
                            while there are some are jobs queued beside idle
                            seats */
  uint64_t finished;     /* jobs done */
  bool closed;           /* no more jobs come */

} rs_sched;

/* A worker's place in the scheduler; guarded by its lock. */
typedef struct rs_seat {
  rs_list link;          /* in 'idle' */
  rs_job *job;           /* handed or running, the worker's reference */
  bool handed;           /* it was handed and not picked up */
  bool woken;            /* it was asleep then */
  bool asleep;           /* it waits at: */
  pthread_cond_t wake;   /* handed || closed */

  /* Who spins looks at this and at nothing near it, or it would take the lock
     and the job away from the thread that is about to hand it over. */
  char before[64];
  _Atomic bool called;   /* look under the lock */
  char behind[64];
} rs_seat;

void rs_sched_init (rs_sched *s);
void rs_sched_fini (rs_sched *s);

void rs_seat_init (rs_seat *seat);
void rs_seat_fini (rs_seat *seat);

/* Take over a reference to 'job' and let somebody run it.  False when nobody
   was idle, so that it is queued. */
bool rs_sched_push_locked (rs_sched *s, rs_job *job);

/*
 * The next job for 'seat'; waits until 'deadline' for it.  NULL: the time is
 * over, or the scheduler is closed and its queue empty.
 */
rs_job *rs_sched_take_locked (rs_sched *s, rs_seat *seat, double deadline);

/* What 'seat' took is done. */
void rs_sched_done_locked (rs_sched *s, rs_seat *seat);

/* Take 'job' out of the queue; false when it is not there. */
bool rs_sched_claim_locked (rs_sched *s, rs_job *job);

/* Take out the next job of 'batch', of all with NULL; NULL when there is
   none. */
rs_job *rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch);

/* No more jobs come: whoever is idle wakes up, and 'take' ends with the
   queue. */
void rs_sched_close_locked (rs_sched *s);

#endif
