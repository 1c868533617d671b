/* SPDX-License-Identifier: MIT */
/*
 * spin.c - wait a little before sleeping.
 *
 * The count is of the process, since its CPUs are.  It orders nothing: too
 * many that spin for a moment do no harm.  It changes when a worker wakes or
 * sleeps, and not with each job, since whoever spins reads it again and again:
 * to take it away from there costs as much as the rest of an empty job.
 *
 * Looking is free while a CPU is idle.  The CPU is offered to others between
 * looks, since who is waited for may be queued for it.  Beside a busy program
 * that gives away a whole slice of time, and tells that the CPU is shared: for
 * a while nobody looks then, and all sleep at once.
 */
#include "spin.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

#include "clock.h"

#define PATIENCE 250e-6  /* seconds */
#define SLICE 500e-6     /* away: another program had the CPU */
#define PAUSE 10e-3      /* without looks, at first; then twice that, */
#define LONGEST 0.5      /*   up to this */
#define FORGET 10.0      /* after the last one, the next is the first */

enum { LOOKS = 32 };     /* in a row, some 1.5 us */
static struct {
  char before[64];
  _Atomic int awake;     /* workers that do not sleep */
  char between[64];
  _Atomic int cpus;
} counts;

/* When and how long nobody looks; a lost update does no harm. */
static struct {
  _Atomic double until;  /* instant at which the pause is over */
  _Atomic double pause;  /* what it lasts, or lasted; seconds */
} quiet;

static int
cpus_of_process (void)
{
  int n = atomic_load_explicit(&counts.cpus, memory_order_relaxed);
  if (n == 0) {
    n = (int) rs_cpus();
    atomic_store_explicit(&counts.cpus, n, memory_order_relaxed);
  }
  return n;
}

void
rs_spin_enter (void)
{
  atomic_fetch_add_explicit(&counts.awake, 1, memory_order_relaxed);
}

void
rs_spin_leave (void)
{
  atomic_fetch_sub_explicit(&counts.awake, 1, memory_order_relaxed);
}

void
rs_spin_begin_child (void)
{
  atomic_store_explicit(&counts.awake, 0, memory_order_relaxed);
}

/* CPUs that no worker has. */
static int
free_cpus (void)
{
  return cpus_of_process()
       - atomic_load_explicit(&counts.awake, memory_order_relaxed);
}

bool
rs_spin_spare (void)
{
  return free_cpus() > 1;
}

/* Let the other thread of this core run, where there is one. */
static inline void
relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile ("yield");
#endif
}

/* Another program had the CPU until 'now': nobody looks, for twice as long as
   last time, if that was not long ago. */
static void
begin_pause (double now)
{
  const double until = atomic_load_explicit(&quiet.until,
                                            memory_order_relaxed);
  double pause = atomic_load_explicit(&quiet.pause, memory_order_relaxed);
  pause = pause == 0 || now - until > FORGET ? PAUSE
        : pause < LONGEST ? 2 * pause : pause;
  atomic_store_explicit(&quiet.pause, pause, memory_order_relaxed);
  atomic_store_explicit(&quiet.until, now + pause, memory_order_relaxed);
}

static bool
is_pause (void)
{
  const double until = atomic_load_explicit(&quiet.until,
                                            memory_order_relaxed);
  return until > 0 && rs_now() < until;
}

void
rs_spin_few (bool (*ready) (const void *ud), const void *ud, unsigned looks)
{
  double began = 0;
  if (ready(ud) || is_pause())
    return;
  /* A worker has its own CPU, and leaves one to the host. */
  while (looks > 0 && free_cpus() > 0) {
    for (int i = 0; i < LOOKS && looks > 0; i++, looks--) {
      relax();
      if (ready(ud))
        return;
    }
    const double now = rs_now();
    if (began == 0)
      began = now;
    sched_yield();
    const double back = rs_now();
    if (back - now > SLICE)
      begin_pause(back);
    if (back - now > SLICE || back - began > PATIENCE)
      return;
  }
}

void
rs_spin (bool (*ready) (const void *ud), const void *ud)
{
  rs_spin_few(ready, ud, UINT_MAX);
}
