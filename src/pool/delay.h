/* SPDX-License-Identifier: MIT */
/*
 * delay.h - jobs that may not begin yet: those with 'start_after', and those
 * that wait between two attempts.
 *
 *     delay --> (list of the scheduler) --timer--> release --> queue
 *                        \--claim, to end it--> ended
 *
 * No worker is held meanwhile.  A delayed job counts as queued: a pool that is
 * closed waits for it.  The job of a chunk asks its batch when its time has
 * come, since the batch may let it wait on (gate.h).
 */
#ifndef RS_DELAY_H
#define RS_DELAY_H

#include "pool/job.h"

/* Seconds to wait after so many failures in a row. */
double rs_pause_after (const rs_pause *pause, unsigned failures);

/* Prepare a job that is about to be delayed until an instant, while no other
   thread can find it. */
void rs_delay_prepare (rs_job *job);

/*
 * Let a prepared job that is delayed in its queue begin at the instant 'due',
 * or a little later.  'stopped': its pool has ended all that was queued.  The
 * caller has a reference of its own.
 */
void rs_delay_until (rs_job *job, double due, bool stopped);

/* Prepare a job for the pause before its next attempt: it is about to be
   delayed, and no thread runs it.  Returns the instant of that attempt. */
double rs_delay_leave (rs_job *job);

/* Delay a job that was run here, and was queued again, until its next attempt;
   takes over the caller's reference. */
void rs_delay_again (rs_job *job);

#endif
