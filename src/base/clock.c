/* SPDX-License-Identifier: MIT */
/*
 * clock.c - monotonic time and deadlines.
 */
#define _GNU_SOURCE  /* PTHREAD_MUTEX_ADAPTIVE_NP */
#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

double
rs_now (void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

double
rs_now_coarse (void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

double
rs_deadline (double timeout)
{
  if (timeout == RS_FOREVER || timeout > 1e9)
    return RS_NEVER;
  return rs_now() + (timeout > 0 ? timeout : 0);
}

double
rs_remaining (double deadline)
{
  if (deadline == RS_NEVER)
    return RS_FOREVER;
  const double left = deadline - rs_now();
  return left > 0 ? left : 0;
}

void
rs_mutex_init (pthread_mutex_t *lock)
{
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
  pthread_mutex_init(lock, &attr);
  pthread_mutexattr_destroy(&attr);
}

void
rs_cond_init (pthread_cond_t *cond)
{
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(cond, &attr);
  pthread_condattr_destroy(&attr);
}

/* A thread that is cancelled in here leaves by a jump of which the address
   sanitizer is not told, so the sanitizer marks nothing in this frame. */
__attribute__ ((no_sanitize_address)) int
rs_cond_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock,
                    double deadline)
{
  if (deadline == RS_NEVER) {
    pthread_cond_wait(cond, lock);
    return RS_OK;
  }
  const struct timespec t = rs_timespec(deadline);
  const int err = pthread_cond_timedwait(cond, lock, &t);
  assert(err == 0 || err == ETIMEDOUT);
  return err == 0 ? RS_OK : RS_ETIMEOUT;
}

typedef struct counted {
  pthread_mutex_t *lock;
  unsigned *waiting;
} counted;

/* Restore the count and unlock, for a thread that is cancelled while it holds
   the lock. */
static void
leave (void *ud)
{
  const counted *const c = ud;
  --*c->waiting;
  pthread_mutex_unlock(c->lock);
}

int
rs_cond_wait_counted (pthread_cond_t *cond, pthread_mutex_t *lock,
                      double deadline, unsigned *waiting)
{
  counted c = { lock, waiting };
  int status;
  ++*waiting;
  pthread_cleanup_push(leave, &c);
  status = rs_cond_wait_until(cond, lock, deadline);
  pthread_cleanup_pop(0);
  --*waiting;
  return status;
}
