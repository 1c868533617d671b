/* SPDX-License-Identifier: MIT */
/*
 * bell.h - where a thread sleeps until another thread, or a signal handler,
 * rings.
 *
 * A bell keeps each ring until a wait takes it, so a thread that looks for
 * what it waits for, finds nothing, and then waits at the bell, misses no
 * ring.  One ring ends one wait.
 */
#ifndef RS_BELL_H
#define RS_BELL_H

#include <semaphore.h>

typedef struct rs_bell {
  sem_t rings;
} rs_bell;

void rs_bell_init (rs_bell *bell);
void rs_bell_fini (rs_bell *bell);

/* Async-signal-safe: sem_post(3). */
void rs_bell_ring (rs_bell *bell);

/* Wait for a ring until the instant 'deadline'.  RS_OK, which may be spurious,
   or RS_ETIMEOUT.  A thread of the program may be cancelled here
   (pthread_cancel(3)). */
int rs_bell_await (rs_bell *bell, double deadline);

#endif
