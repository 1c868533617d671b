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

#include <stdatomic.h>
#include <stdbool.h>

/* A worker sleeps no more (it runs jobs, or spins), or goes to sleep. */
void rs_spin_enter (void);
void rs_spin_leave (void);

/* In a child of fork(2): there are no workers. */
void rs_spin_begin_child (void);

/* There is a CPU that neither a worker that is awake nor the host has. */
bool rs_spin_spare (void);

/* Where somebody waits: what looking there was worth lately.  All 0 at first.
   Threads meet here that wait for the same; a lost update does no harm. */
typedef struct rs_spin_site {
  _Atomic double until;   /* instant before which nobody looks, or 0 */
  _Atomic double pause;   /* that this is, or was, the end of; seconds */
  _Atomic double last;    /* instant at which that began */
  _Atomic unsigned vain;  /* looks in a row that found nothing */
} rs_spin_site;

/*
 * Look at 'ready(ud)', which must not lock, until it is true or the time is
 * over, or workers have all CPUs; not at all while it is not worth it.
 */
void rs_spin (rs_spin_site *site, bool (*ready) (const void *ud),
              const void *ud);

/* The same, so many looks at most, 50 ns each; that they find nothing says
   nothing of the site. */
void rs_spin_few (rs_spin_site *site, bool (*ready) (const void *ud),
                  const void *ud, unsigned looks);

#endif
