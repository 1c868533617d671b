/* SPDX-License-Identifier: MIT */
/*
 * timer.h - calls at given instants, on one thread for all of them.
 *
 * The whole process has one timer thread, since one for each pool would be a
 * thousand threads for a thousand pools.  The first timer that is set starts
 * it, and it ends when no holder is left.
 *
 * A timer is memory of its user.  Its 'fire' runs on the timer thread, without
 * a lock, and may set the timer again.
 */
#ifndef RS_TIMER_H
#define RS_TIMER_H

#include <stdbool.h>

#include "base/list.h"

typedef struct rs_timer rs_timer;

struct rs_timer {
  void (*fire) (rs_timer *timer);  /* constant after 'rs_timer_init' */
  rs_list link;                    /* the lock in timer.c guards it, and
                                      'due' */
  double due;                      /* instant at which it fires */
  _Atomic bool used;               /* set at least once */
};

/* Become a holder of the timer thread, before setting timers; stop being one.
   The last holder that drops it ends the thread, and waits for that.  Any
   thread but the timer thread. */
void rs_timers_hold (void);
void rs_timers_drop (void);

/*
 * Start the timer thread before a timer is set where a failure could not be
 * reported.  Once it runs, it stays until the last holder drops it.  The
 * caller is a holder.  False when the system gives no thread.
 */
bool rs_timers_start (void);

void rs_timer_init (rs_timer *timer, void (*fire) (rs_timer *timer));

/*
 * Let the timer fire once, at 'due'; if it is set already, at the earlier
 * instant.  False when there is no timer thread and none can be started.  Any
 * thread.
 */
bool rs_timer_set (rs_timer *timer, double due);

/*
 * Let the timer not fire any more.  If 'fire' runs now, wait until it returns,
 * unless the caller is 'fire' itself.  Harmless for a timer that is not set.
 * Any thread.
 */
void rs_timer_clear (rs_timer *timer);

#endif
