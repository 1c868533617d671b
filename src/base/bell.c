/* SPDX-License-Identifier: MIT */
/*
 * bell.c - where a thread sleeps until another thread, or a signal handler,
 * rings.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sem_clockwait */
#endif
#include "base/bell.h"

#include <math.h>

#include "base/clock.h"

void
rs_bell_init (rs_bell *bell)
{
  sem_init(&bell->rings, 0, 0);
}

void
rs_bell_fini (rs_bell *bell)
{
  sem_destroy(&bell->rings);
}

void
rs_bell_ring (rs_bell *bell)
{
  sem_post(&bell->rings);  /* fails when there are INT_MAX rings: enough */
}

/* Threads are cancelled in 'await_until', and leave by a jump of which the
   address sanitizer is not told, so the sanitizer marks nothing there. */
#ifdef HAVE_SEM_CLOCKWAIT

__attribute__ ((no_sanitize_address)) static void
await_until (rs_bell *bell, double deadline)
{
  const struct timespec t = rs_timespec(deadline);
  sem_clockwait(&bell->rings, CLOCK_MONOTONIC, &t);
}

#else

#define NAP 0.1  /* seconds of sleep at most, since the time of day, by which
                    sem_timedwait(3) goes, may be set meanwhile */

__attribute__ ((no_sanitize_address)) static void
await_until (rs_bell *bell, double deadline)
{
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const double left = fmin(rs_remaining(deadline), NAP);
  const struct timespec t = rs_timespec((double) now.tv_sec
                                        + (double) now.tv_nsec * 1e-9 + left);
  sem_timedwait(&bell->rings, &t);
}

#endif

int
rs_bell_await (rs_bell *bell, double deadline)
{
  if (deadline == RS_NEVER)
    sem_wait(&bell->rings);
  else
    await_until(bell, deadline);
  return rs_remaining(deadline) == 0 ? RS_ETIMEOUT : RS_OK;
}
