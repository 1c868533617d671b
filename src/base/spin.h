/* SPDX-License-Identifier: MIT */
/*
 * spin.h - wait a little before sleeping.
 *
 * To sleep and to be woken on another CPU costs tens of microseconds, many
 * times what an empty job does.  Who waits for something that may be there in
 * no time looks for it a little longer before it sleeps, on a CPU that nobody
 * else of ours would use.  At rest all sleep.  A round trip of an empty job
 * takes 1 us then, and 85 when both sides sleep at once.
 */
#ifndef RS_SPIN_H
#define RS_SPIN_H

#include <stdbool.h>

/* A worker sleeps no more (it runs jobs, or spins), or goes to sleep. */
void rs_spin_enter (void);
void rs_spin_leave (void);

/* There is a CPU that neither a worker that is awake nor the host has. */
bool rs_spin_spare (void);

/*
 * Look at 'ready(ud)', which must not lock, until it is true or the time is
 * over, or workers have all CPUs; not at all while other programs want them.
 */
void rs_spin (bool (*ready) (const void *ud), const void *ud);

/* The same, so many looks at most, 50 ns each. */
void rs_spin_few (bool (*ready) (const void *ud), const void *ud,
                  unsigned looks);

#endif
