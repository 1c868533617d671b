/* SPDX-License-Identifier: MIT */
/*
 * spin.h - wait a little before sleeping.
 *
 * To sleep and to be woken on another CPU costs tens of microseconds, many
 * times what an empty job does.  A thread that waits for something that may be
 * there very soon looks for it a little longer before it sleeps, on a CPU that
 * no other thread of ours would use.  At rest all threads sleep.  A round trip
 * of an empty job takes 1 us with looking, and 85 us when both sides sleep at
 * once.
 */
#ifndef RS_SPIN_H
#define RS_SPIN_H

#include <stdbool.h>

/* Count the CPUs, once for the process; a thread calls this before it starts
   the first worker.  No thread spins before.  (Counting reads files: a worker
   that did so while it spins would be slow when its speed matters most.) */
void rs_spin_prepare (void);

/* Count a worker that sleeps no more (it runs jobs, or spins), and one that
   goes to sleep. */
void rs_spin_enter (void);
void rs_spin_leave (void);

/* True when some CPU is left over: neither a worker that is awake nor the host
   has it. */
bool rs_spin_spare (void);

/* True when a thread that waits would spin: a CPU is left over, and no other
   program wants it. */
bool rs_spin_is_free (void);

/*
 * Call 'ready(ud)', which must not lock, until it returns true, or the time is
 * over, or workers have all CPUs.  Return at once while other programs want
 * the CPUs.
 */
void rs_spin (bool (*ready) (const void *ud), const void *ud);

/* Spin as 'rs_spin' does, after the work was handed to another process, whose
   thread may wait for this very CPU: offer it at once. */
void rs_spin_handed (bool (*ready) (const void *ud), const void *ud);

/* Spin as 'rs_spin' does, but look 'looks' times at most, 50 ns each. */
void rs_spin_few (bool (*ready) (const void *ud), const void *ud,
                  unsigned looks);

#endif
