/* SPDX-License-Identifier: MIT */
/*
 * spin.h - wait a little before sleeping.
 *
 * To sleep and to be woken on another CPU costs tens of microseconds, many
 * times what an empty job does.  Who waits for something that may be there in
 * no time looks for it a little longer before it sleeps, on a CPU that nobody
 * else of ours would use: as many spin as there are CPUs that run no job.  At
 * rest all sleep.  A round trip of an empty job takes 9 us then, and 85 when
 * both sides sleep at once.
 */
#ifndef RS_SPIN_H
#define RS_SPIN_H

#include <stdbool.h>

/* A thread begins to run a job, or has ended it. */
void rs_spin_busy (void);
void rs_spin_free (void);

/*
 * Look at 'ready(ud)', which must not lock, until it is true or the time is
 * over.  A worker leaves a CPU to the host, which may be about to give it
 * something.
 */
void rs_spin (bool (*ready) (const void *ud), const void *ud, bool worker);

#endif
