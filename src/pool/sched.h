/* SPDX-License-Identifier: MIT */
/*
 * sched.h - which job goes to which free worker.
 *
 * The scheduler has a queue of jobs and a stack of seats, one for each idle
 * worker.  One of the two is empty, except while workers wake up ('waking') or
 * one of them looks after the queue ('watch'):
 *
 *     push:  an idle seat?  hand the job to the one that sat down last
 *            none?          queue it
 *     take:  a queued job?  take the oldest of the highest priority
 *            none?          sit down and wait to be handed one
 *
 * The last seat comes first, since the state of its worker is warm, and the
 * other workers can time out.
 *
 * Each worker has a hand, a ring of holds, with the jobs that it was handed or
 * took: one job, or several where jobs are so short that to take the lock for
 * each of them would be most of the work.  A job in a hand is still queued
 * until its worker begins with it.  Until then another thread, which has the
 * lock, can take the job away, by an atomic operation on its hold:
 *
 *     EMPTY --> READY --the worker--> TAKEN --> EMPTY
 *      ^ |        | \                   \-> PINNED: a thread looks at the job
 *      | v        |  \--another--> STOLEN --> EMPTY
 *     AWAITED ----/
 *
 * The worker that was given a job last waits a little at its next hold, before
 * it takes the lock and sits down.  While that worker is the only one that is
 * awake, and is quick, more jobs are put into its hand.  So where one thread
 * submits and one worker is enough, only the submitting thread takes the lock:
 * otherwise the cache line of the lock goes to and fro with each job, for a
 * fifth of the time that the job takes.
 */
#ifndef RS_SCHED_H
#define RS_SCHED_H

#include <pthread.h>

#include "pool/job.h"
#include "base/list.h"
#include "base/spin.h"

enum { RS_LANES = 2 * RS_PRIORITY_MAX + 1 };
enum { RS_HAND = 16 };   /* jobs that a worker takes at once, at most */

enum {
  RS_HOLD_EMPTY, RS_HOLD_AWAITED, RS_HOLD_READY, RS_HOLD_TAKEN, RS_HOLD_PINNED,
  RS_HOLD_STOLEN
};

/* A place in a hand.  While READY, TAKEN or PINNED it has the worker's
   reference to the job. */
typedef struct rs_hold {
  _Alignas(RS_LINE)
  rs_job *job;           /* set under the lock */
  _Atomic int state;     /* RS_HOLD_; the worker changes it without the lock,
                            unless it is PINNED; other threads change it under
                            the lock */
} rs_hold;

typedef struct rs_seat rs_seat;

typedef struct rs_sched {
  _Alignas(RS_LINE)
  pthread_mutex_t lock;  /* guards down to the blank line, and what the pool
                            keeps behind it; in one cache line with the next
                            three, so that to hand over a job changes one
                            line */
  rs_list idle;          /* seats of idle workers, the last one first */
  uint32_t queued;       /* jobs in 'lanes' */
  uint32_t sitting;      /* seats in 'idle' */
  rs_list lanes[RS_LANES];  /* references to jobs, a list for each priority,
                               the highest first; oldest first in each */
  rs_list seats;         /* all seats */
  size_t calls;          /* plain calls among the jobs in 'lanes' */
  size_t bytes;          /* of the messages of these calls, if 'limited' */
  size_t all;            /* seats in 'seats' */
  size_t waking;         /* seats that were called while asleep, and whose
                            worker has not woken up yet; jobs are in 'lanes'
                            while seats sleep only if there are such seats, or
                            a 'watch' */
  rs_seat *watch;        /* the sleeping seat that wakes up by itself
                            (sched.c), or NULL */
  unsigned full_hands;   /* seats that are 'full' */
  int lowest;            /* a lower bound of the priorities of the jobs in full
                            hands */
  double pace;           /* seconds that a worker needed for a job lately,
                            without the time it waited; 0: not known */
  uint64_t finished;     /* jobs done by workers that are gone */
  bool limited;          /* 'bytes' are counted, and a hand has one job */
  bool closed;           /* no more jobs come */

  _Alignas(RS_LINE)
  rs_seat *_Atomic last; /* the seat that was given a job last, or NULL; set
                            under the lock; without the lock the seat may be
                            gone, so it is only compared and prefetched */
  _Atomic bool some;     /* queued > 0; set under the lock, read by any
                            thread */
} rs_sched;

/* Why a worker is to stand up.  SITS: for no reason.  HANDED: the thread that
   took the seat out of 'idle' has put a job into the hand.  LOOK: there is
   something to be seen under the lock. */
enum { RS_SEAT_SITS, RS_SEAT_HANDED, RS_SEAT_LOOK };

/* A worker's place in the scheduler; guarded by the scheduler's lock, unless a
   field says otherwise. */
struct rs_seat {
  /* Fields that a thread writes when it hands over a job, and that the worker
     looks at meanwhile, are in cache lines of their own. */
  _Alignas(RS_LINE)
  _Atomic int called;    /* RS_SEAT_ */
  unsigned tail;         /* the next place of the hand to be filled; places are
                            counted on, modulo RS_HAND */
  bool woken;            /* the worker was asleep when it was called */
  bool asleep;           /* the worker waits at 'wake' */
  bool full;             /* a job was put behind another one in the hand */
  rs_list link;          /* in 'idle' */

  _Alignas(RS_LINE)
  _Atomic unsigned at;   /* the next place that the worker looks at; set by the
                            worker, read by any thread */
  unsigned noted;        /* 'at' when the pace was noted last; the worker's
                            own */
  rs_hold *current;      /* the hold of the job that runs, or NULL; the
                            worker's own */
  double since;          /* instant from which the pace is measured; 0: the
                            worker has waited */
  _Atomic bool busy;     /* the worker runs a job; set by the worker, read by
                            any thread */
  _Atomic uint64_t finished;  /* jobs that the worker has done; set and read as
                                 'busy' */
  rs_list all;           /* in 'seats' */
  pthread_cond_t wake;   /* 'called' has changed */

  rs_hold hand[RS_HAND];
};

void rs_sched_init (rs_sched *s, bool limited);
void rs_sched_fini (rs_sched *s);

/* Init and fini of a seat; enter and leave of its worker.  Jobs that are in
   the hand of a worker that leaves, and were not begun, go to other
   workers. */
void rs_seat_init (rs_seat *seat);
void rs_seat_fini (rs_seat *seat);
void rs_sched_enter_locked (rs_sched *s, rs_seat *seat);
void rs_sched_leave_locked (rs_sched *s, rs_seat *seat);

/* Prefetch the memory that 'rs_sched_push_locked' will need soon. */
void rs_sched_prefetch (rs_sched *s);

/* Take over a reference to 'job' and let a worker run it.  False when the job
   is queued, or another one in its place.  'last': the pool cannot have more
   workers. */
bool rs_sched_push_locked (rs_sched *s, rs_job *job, bool last);

/* ------------------------------------------------- the thread of the seat */

/* Begin with the next job in the hand of 'seat'; NULL: the hand is empty. */
rs_job *rs_seat_begin (rs_seat *seat);

/* Note that the worker is done with its job, and then that its hold is free.
   The worker calls both before it ends the job and gives up the reference. */
void rs_seat_done (rs_seat *seat);
void rs_seat_end (rs_sched *s, rs_seat *seat);

/* Wait a little, with an empty hand, until a job is put there, if that is
   likely.  False: no job has come. */
bool rs_seat_linger (rs_sched *s, rs_seat *seat);

/* Put queued jobs into the hand of 'seat'.  Without any, sit down, unless the
   scheduler is closed, and return false. */
bool rs_sched_take_locked (rs_sched *s, rs_seat *seat);

/* Look for a while, without the lock, whether a job is handed to a seat that
   sits.  True: there is one. */
bool rs_seat_spin (rs_seat *seat);

/*
 * Sleep on a seat that sits, until it is called, or 'deadline', or it finds a
 * queued job that no worker takes.  True: there is something in the hand;
 * otherwise the time is over, or the scheduler is closed.
 */
bool rs_sched_sleep_locked (rs_sched *s, rs_seat *seat, double deadline);

/* ------------------------------------------------------------- any thread */

/* Take 'job' out of the queue, or out of a hand; false when it is in none, or
   its worker has begun with it. */
bool rs_sched_claim_locked (rs_sched *s, rs_job *job);

/* Take out the next queued job of 'batch'; with NULL the next job of all, also
   out of a hand.  NULL when there is none. */
rs_job *rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch);

/* Return a reference to the job that 'seat' runs, or NULL. */
rs_job *rs_seat_job_locked (rs_seat *seat);

/* Jobs in hands that were not begun (held), workers that have something to do,
   and jobs that were done (finished). */
typedef struct rs_sched_counts {
  size_t held;
  size_t running;        /* workers that run a job */
  size_t engaged;        /* workers that run a job, or have one in their
                            hand */
  uint64_t finished;
} rs_sched_counts;

rs_sched_counts rs_sched_count_locked (const rs_sched *s);

/* Close: no more jobs come, and each idle worker wakes up. */
void rs_sched_close_locked (rs_sched *s);

#endif
