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
 *
 * What a worker was handed, or took, is in its hand, a ring of holds: one job,
 * or several where jobs are so short that to take the lock for each of them
 * would be most of the work.  A job in a hand is still queued until its worker
 * begins with it: others can take it away, by an atomic operation on its hold:
 *
 *     EMPTY --> READY --the worker--> TAKEN --> EMPTY
 *      ^ |        | \                   \-> PINNED: somebody looks at the job
 *      | v        |  \--another--> STOLEN --> EMPTY
 *     AWAITED ----/
 *
 * The worker that was given something last waits a little at its next hold,
 * before it takes the lock and sits down; and while it is the only one that is
 * awake, and quick, more is put into its hand.  So where one thread submits
 * and one worker is enough, the lock is the submitter's alone: its line went
 * to and fro with each job, for a fifth of the time that the job took.
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

/* A place in a hand.  With READY and TAKEN it has the job's reference that is
   the worker's. */
typedef struct rs_hold {
  _Alignas(RS_LINE)
  rs_job *job;           /* set under the lock */
  _Atomic int state;     /* RS_HOLD_; to AWAITED, and to EMPTY, by its worker
                            without the lock, unless it is PINNED */
} rs_hold;

typedef struct rs_seat rs_seat;

typedef struct rs_sched {
  _Alignas(RS_LINE)
  pthread_mutex_t lock;  /* guards down to the blank line, and what the pool
                            keeps behind it; with the next three in a line,
                            which is all that handing over changes */
  rs_list idle;          /* seats, the last one first */
  uint32_t queued;       /* jobs in 'lanes' */
  uint32_t sitting;      /* seats in 'idle' */
  rs_list lanes[RS_LANES];  /* jobs, references, by priority, the highest one
                               first; oldest first */
  rs_list seats;         /* all of them */
  size_t calls;          /* of the jobs in 'lanes', no chunks */
  size_t bytes;          /* of the messages of those, if that is limited */
  size_t all;            /* seats in 'seats' */
  size_t waking;         /* seats that were woken, and are not there yet: only
                            while there are some, or 'watch' looks after them,
                            are jobs queued beside seats that sleep */
  rs_seat *watch;        /* the one that wakes by itself, or NULL */
  unsigned full_hands;   /* seats that are 'full' */
  int lowest;            /* priority of a job in one of these, at least */
  double pace;           /* seconds that a worker needs for a job when it need
                            not wait for one, lately; 0: not known */
  uint64_t finished;     /* jobs, of workers that are gone */
  bool limited;          /* 'bytes' are counted, and hands have one job */
  bool closed;           /* no more jobs come */

  _Alignas(RS_LINE)
  rs_seat *_Atomic last; /* that was given something last, or NULL; set under
                            the lock, without which it may be gone, and is
                            compared and prefetched only */
  _Atomic bool some;     /* queued > 0; set under the lock, read by any */
} rs_sched;

/* Why to stand up: there is something in the hand, put there by who has taken
   the seat out of 'idle'; or something to be seen under the lock. */
enum { RS_SEAT_SITS, RS_SEAT_HANDED, RS_SEAT_LOOK };

/* A worker's place in the scheduler; guarded by its lock. */
struct rs_seat {
  /* What the one who hands something over touches is in lines of its own, at
     which its worker looks meanwhile. */
  _Alignas(RS_LINE)
  _Atomic int called;    /* RS_SEAT_ */
  unsigned tail;         /* the next place of its hand to be filled; places
                            are counted on, modulo RS_HAND */
  bool woken;            /* it was asleep when it was called */
  bool asleep;           /* it waits at 'wake' */
  bool full;             /* something was put behind another one in its hand */
  rs_list link;          /* in 'idle' */

  _Alignas(RS_LINE)
  _Atomic unsigned at;   /* the next place that it looks at; set by the worker,
                            read by any */
  unsigned noted;        /* 'at' at 'since'; the worker's own */
  rs_hold *current;      /* what runs, or NULL; the same */
  double since;          /* instant at which it took what is in its hand */
  _Atomic bool busy;     /* it runs a job; set by the worker, read by any */
  _Atomic uint64_t finished;  /* jobs; the same */
  rs_list all;           /* in 'seats' */
  pthread_cond_t wake;   /* called */

  rs_hold hand[RS_HAND];
};

void rs_sched_init (rs_sched *s, bool limited);
void rs_sched_fini (rs_sched *s);

/* A worker comes, and goes: what is in its hand, and was not begun, is for the
   others. */
void rs_seat_init (rs_seat *seat);
void rs_seat_fini (rs_seat *seat);
void rs_sched_enter_locked (rs_sched *s, rs_seat *seat);
void rs_sched_leave_locked (rs_sched *s, rs_seat *seat);

/* Something will be pushed soon: let the memory come that this takes. */
void rs_sched_prefetch (rs_sched *s);

/* Take over a reference to 'job' and let somebody run it.  False when nobody
   was idle, so that it is queued.  'last': there will be no more seats. */
bool rs_sched_push_locked (rs_sched *s, rs_job *job, bool last);

/* ------------------------------------------------- the thread of the seat */

/* Begin with the next job in its hand; NULL: it is empty. */
rs_job *rs_seat_begin (rs_seat *seat);

/* It is done with it, but has not ended it; then: it has. */
void rs_seat_done (rs_seat *seat);
void rs_seat_end (rs_sched *s, rs_seat *seat);

/* Its hand is empty: wait a little whether something is put there, if that is
   likely.  False: it is not. */
bool rs_seat_linger (rs_sched *s, rs_seat *seat);

/* Put into its hand what is queued; or sit down, unless the scheduler is
   closed, and false. */
bool rs_sched_take_locked (rs_sched *s, rs_seat *seat);

/* It sits: look for a while whether something is handed to it.  Without the
   lock. */
bool rs_seat_spin (rs_seat *seat);

/*
 * It sits: sleep until it is called, or 'deadline', or it finds something
 * queued that nobody takes.  True: there is something in its hand; otherwise
 * the time is over, or the scheduler is closed.
 */
bool rs_sched_sleep_locked (rs_sched *s, rs_seat *seat, double deadline);

/* ------------------------------------------------------------- any thread */

/* Take 'job' out of the queue, or out of a hand; false when it is in none. */
bool rs_sched_claim_locked (rs_sched *s, rs_job *job);

/* Take out the next job of 'batch', of all with NULL; NULL when there is
   none. */
rs_job *rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch);

/* A reference to the job that 'seat' runs, or NULL. */
rs_job *rs_seat_job_locked (rs_seat *seat);

/* What there is in hands and was not begun; workers that run a job, or have
   one in their hand; jobs that were done. */
typedef struct rs_sched_counts {
  size_t held;
  size_t running;        /* workers */
  size_t engaged;        /* the same */
  uint64_t finished;
} rs_sched_counts;

rs_sched_counts rs_sched_count_locked (const rs_sched *s);

/* No more jobs come: whoever is idle wakes up. */
void rs_sched_close_locked (rs_sched *s);

#endif
