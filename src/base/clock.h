/* SPDX-License-Identifier: MIT */
/*
 * clock.h - monotonic time and deadlines.
 *
 * An instant is a double of seconds on CLOCK_MONOTONIC: 52 bits hold a
 * century of uptime to the microsecond.  A deadline is an instant, or
 * RS_NEVER.
 */
#ifndef RS_CLOCK_H
#define RS_CLOCK_H

#include <math.h>
#include <pthread.h>
#include <time.h>

#include "runspace.h"

/* The time of 'rs_now', some milliseconds late at most, at a fraction of the
   cost (clock_gettime(2), CLOCK_MONOTONIC_COARSE). */
double rs_now_coarse (void);

#define RS_NEVER ((double) INFINITY)

/* The instant 'timeout' seconds from now.  RS_NEVER for RS_FOREVER and for a
   time too long to wait for; now for other times below 0, and for NaN. */
double rs_deadline (double timeout);

/* Seconds until 'deadline', not below 0; RS_FOREVER for RS_NEVER. */
double rs_remaining (double deadline);

static inline struct timespec
rs_timespec (double seconds)
{
  const time_t whole = (time_t) seconds;
  return (struct timespec) {
    .tv_sec = whole, .tv_nsec = (long) ((seconds - (double) whole) * 1e9)
  };
}

/* Initialize a lock that is held for very short times.  A thread that finds it
   taken looks again before it sleeps: with two threads at one queue a sleep
   takes 40 times as long as the rest. */
void rs_mutex_init (pthread_mutex_t *lock);

/* Initialize a condition whose timed waits are on the monotonic clock. */
void rs_cond_init (pthread_cond_t *cond);

/*
 * Wait on 'cond' until it is signalled or 'deadline' passes.  The caller holds
 * 'lock', also afterwards.  Returns RS_OK (which may be spurious) or
 * RS_ETIMEOUT.
 */
int rs_cond_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock,
                        double deadline);

/*
 * Wait as 'rs_cond_wait_until' does, with '*waiting' one higher meanwhile;
 * 'lock' guards '*waiting'.  A thread of the program may be cancelled in this
 * wait (pthread_cancel(3)): then 'lock' is free, and '*waiting' is lowered
 * again.
 */
int rs_cond_wait_counted (pthread_cond_t *cond, pthread_mutex_t *lock,
                          double deadline, unsigned *waiting);

#endif
