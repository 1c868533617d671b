/* SPDX-License-Identifier: MIT */
/*
 * timer.h - something to be done at an instant, by a thread for all of it.
 *
 * The thread is started by the first timer that is set, and ends when nobody
 * holds it any more: one for the whole process, since a thread for each pool
 * would be a thread for each of a thousand pools.
 *
 * A timer is storage of its user.  'fire' runs on that thread, without a lock,
 * and may set its own timer again.
 */
#ifndef RS_TIMER_H
#define RS_TIMER_H

#include <stdbool.h>

#include "base/list.h"

typedef struct rs_timer rs_timer;

struct rs_timer {
  void (*fire) (rs_timer *timer);  /* constant */
  rs_list link;                    /* guarded by the lock in timer.c, with
                                      the next one */
  double due;                      /* instant */
  _Atomic bool used;               /* it was set once */
};

/* Whoever sets timers holds the thread; the last one to let go of it ends
   it.  Any thread but that one. */
void rs_timers_hold (void);
void rs_timers_drop (void);

/*
 * Timers will be set that nobody could report about then: let the thread be
 * there.  Once it is, it stays until nobody holds it.  False when none can be
 * had.  Who holds it.
 */
bool rs_timers_start (void);

void rs_timer_init (rs_timer *timer, void (*fire) (rs_timer *timer));

/*
 * Let it fire at 'due', once, or when it was set to before, whichever comes
 * first.  False when there is no thread and none can be had.  Any thread.
 */
bool rs_timer_set (rs_timer *timer, double due);

/*
 * It will not fire any more; waits until it has, if it does so now, unless
 * this is called by 'fire'.  Harmless when it is not set.  Any thread.
 */
void rs_timer_clear (rs_timer *timer);

#endif
