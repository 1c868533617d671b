/* SPDX-License-Identifier: MIT */
/*
 * sched.h - which job goes to which free worker.
 *
 * The scheduler has a queue of jobs and a stack of seats, one for each idle
 * worker.  Jobs wait in the queue while seats sleep only if a worker wakes up,
 * or a watch looks (sched.c):
 *
 *     push:  a seat whose worker is awake?  give it the job
 *            one whose worker sleeps?       wake it, or queue the job
 *            none?                          queue the job
 *     take:  a queued job?  take the oldest of the highest priority
 *            none?          sit down and wait to be given one
 *
 * A job that may not begin yet is beside the queue, in 'delayed', until its
 * time has come (delay.h); nobody but a thread that ends it finds it there.
 *
 * The last seat comes first, since the state of its worker is warm, and the
 * other workers can time out.
 *
 * A worker has one job at a time.  From the moment at which it was given a
 * job, or took one, the job is the worker's, and no other thread can take it
 * out again.
 */
#ifndef RS_SCHED_H
#define RS_SCHED_H

#include <pthread.h>

#include "pool/job.h"
#include "base/list.h"

enum { RS_LANES = 2 * RS_PRIORITY_MAX + 1 };

typedef struct rs_seat rs_seat;

typedef struct rs_sched {
  _Alignas(RS_LINE)
  pthread_mutex_t lock;  /* guards all of this, and what the pool keeps behind
                            it; in one line of the cache with the next three,
                            which change with each job */
  rs_list idle;          /* seats of idle workers, the last one first */
  uint32_t queued;       /* jobs in 'lanes' */
  uint32_t sitting;      /* seats in 'idle' */
  rs_list lanes[RS_LANES];  /* references to jobs, a list for each priority,
                               the highest first; oldest first in each */
  size_t calls;          /* plain calls in 'lanes' and 'delayed', if
                            'limited' */
  size_t bytes;          /* of the messages of these calls */
  rs_list seats;         /* all seats */
  size_t all;            /* seats in 'seats' */
  size_t waking;         /* seats that were given a job while asleep, and whose
                            worker has not woken up yet; jobs are in 'lanes'
                            while seats sleep only if there are such seats, or
                            a 'watch' */
  rs_seat *watch;        /* the sleeping seat that looks at 'lanes' now and
                            then (sched.c), or NULL */
  pthread_cond_t *wake;  /* of the sleeping seat that was called last, to be
                            signalled by 'rs_sched_unlock'; or NULL */
  double begun;          /* instant at which a worker was given a job, or took
                            one, last; up to LAG seconds behind */
  rs_list delayed;       /* references to jobs that may not begin yet, the last
                            one first */
  size_t n_delayed;      /* jobs in 'delayed' */
  uint64_t finished;     /* jobs done by workers that are gone */
  bool limited;          /* 'calls' and 'bytes' are counted */
  bool closed;           /* no more jobs come */
  bool paused;           /* only jobs that others wait for leave 'lanes' */
} rs_sched;

/* A worker's place in the scheduler; guarded by the scheduler's lock, unless a
   field says otherwise.  What changes with each job is in one line of the
   cache. */
struct rs_seat {
  _Alignas(RS_LINE)
  _Atomic bool called;   /* the worker is to stand up: it was given a job, or
                            is to look again (rs_sched_call_all_locked); set
                            under the lock, read by the worker without it */
  _Atomic bool has;      /* the worker has a job, and has not ended it; set
                            under the lock; cleared by the worker, and for a
                            moment by a thread that takes a reference */
  bool asleep;           /* the worker waits at 'wake' */
  bool woken;            /* the seat counts in 'waking' */
  rs_job *job;           /* the worker's job, with its reference, or NULL; set
                            under the lock, cleared by the worker; another
                            thread reads it after it has exchanged 'has' from
                            true to false, under the lock */
  _Atomic uint64_t finished;  /* jobs that the worker has done; set by the
                                 worker, read by any thread */
  rs_list link;          /* in 'idle' */

  rs_list all;           /* in 'seats' */
  pthread_cond_t wake;   /* 'called' has changed */
};

void rs_sched_init (rs_sched *s, bool limited);
void rs_sched_fini (rs_sched *s);

/*
 * Give up the lock, and wake the worker that was called meanwhile.  A worker
 * that is woken under the lock runs at once in place of the thread that wakes
 * it, if both have one CPU, and then waits for the lock: two switches more.
 * The worker may be gone by then, so the memory of a seat has to last as long
 * as the threads that use the scheduler.
 */
static inline void
rs_sched_unlock (rs_sched *s)
{
  pthread_cond_t *const wake = s->wake;
  s->wake = NULL;
  pthread_mutex_unlock(&s->lock);
  if (wake != NULL)
    pthread_cond_signal(wake);
}

/* Init and fini of a seat; enter and leave of its worker. */
void rs_seat_init (rs_seat *seat);
void rs_seat_fini (rs_seat *seat);
void rs_seat_renew (rs_seat *seat);  /* for another worker */
void rs_sched_enter_locked (rs_sched *s, rs_seat *seat);
void rs_sched_leave_locked (rs_sched *s, rs_seat *seat);

/* Take over a reference to 'job' and let a worker run it.  False when the job
   is queued. */
bool rs_sched_push_locked (rs_sched *s, rs_job *job);

/* ------------------------------------------------- the thread of the seat */

/* The job that the worker has, whose reference is the worker's; or NULL.  Not
   for a seat that sits and was not called. */
rs_job *rs_seat_job (const rs_seat *seat);

/* Note that the worker is done with its job.  The worker calls this before it
   ends the job and gives up the reference. */
void rs_seat_end (rs_sched *s, rs_seat *seat);

/* Let the worker, which does not sit, have a job that is in no queue. */
void rs_sched_begin_locked (rs_sched *s, rs_seat *seat, rs_job *job);

/* Take the job that the worker has, and has not done, from its seat; the
   reference is the caller's. */
void rs_seat_leave_locked (rs_seat *seat);

/* Take a queued job.  Without one, sit down, unless no more come, and return
   false. */
bool rs_sched_take_locked (rs_sched *s, rs_seat *seat);

/* Take a queued job, if there is one; the worker does not sit down. */
void rs_sched_take_here_locked (rs_sched *s, rs_seat *seat);

/* Look for a while, without the lock, whether the seat, which sits, is given a
   job.  True: the worker has one. */
bool rs_seat_spin (rs_seat *seat);

/* Sleep on a seat that sits, until it is called, or 'deadline', and stand up.
   True: the worker has a job; otherwise the time is over, or the worker was
   called to look again. */
bool rs_sched_sleep_locked (rs_sched *s, rs_seat *seat, double deadline);

/* ------------------------------------------------------------- any thread */

/* Let all workers that sit stand up, and look for something to do. */
void rs_sched_call_all_locked (rs_sched *s);

/*
 * Let what is queued, and will be, stay in the queue, or go on.  A job that
 * runs goes on, and with it what it waits for: jobs inside of others leave the
 * queue all the same.
 */
void rs_sched_pause_locked (rs_sched *s);
void rs_sched_resume_locked (rs_sched *s);

/* The queued jobs that may begin; for a scheduler that is paused, 0 or 1. */
size_t rs_sched_ready_locked (const rs_sched *s);

/* Take 'job' out of the queue; false when it is not there any more, or, to
   run it, when it is delayed. */
bool rs_sched_claim_locked (rs_sched *s, rs_job *job, rs_claim why);

/* Take out the next queued job of 'batch', with NULL the next job of all, also
   while the scheduler is paused; to end it, a delayed one, too.  NULL when
   there is none. */
rs_job *rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch,
                                  rs_claim why);

/* Take over a reference to 'job', which may not begin yet. */
void rs_sched_delay_locked (rs_sched *s, rs_job *job);

/* Take 'job' out of those that may not begin yet; false when it is none of
   them. */
bool rs_sched_undelay_locked (rs_sched *s, rs_job *job);

/* True when no more jobs come, and none is delayed that would. */
static inline bool
rs_sched_is_final_locked (const rs_sched *s)
{
  return s->closed && s->n_delayed == 0;
}

/* Return a reference to the job that the worker of 'seat' has, or NULL. */
rs_job *rs_seat_ref_job_locked (rs_seat *seat);

/* The number of workers that have a job. */
size_t rs_sched_running_locked (const rs_sched *s);

/* The number of jobs that workers have done. */
uint64_t rs_sched_finished_locked (const rs_sched *s);

/* Close: no more jobs come, and each idle worker wakes up. */
void rs_sched_close_locked (rs_sched *s);

#endif
