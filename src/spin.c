/* SPDX-License-Identifier: MIT */
/*
 * spin.c - wait a little before sleeping.
 *
 * The count is of the process, since its CPUs are.  It orders nothing: too
 * many that spin for a moment do no harm.  It changes when a worker wakes or
 * sleeps, and not with each job, since whoever spins reads it again and again:
 * to take it away from there costs as much as the rest of an empty job.
 */
#include "spin.h"

#include <sched.h>
#include <stdatomic.h>

#include "clock.h"

#define PATIENCE 250e-6  /* seconds */

enum { LOOKS = 32 };     /* in a row, some 1.5 us */

static struct {
  char before[64];
  _Atomic int awake;     /* workers that do not sleep */
  char between[64];
  _Atomic int cpus;
} counts;

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

/* Something of which one looks for a while only. */
typedef struct glance {
  bool (*ready) (const void *ud);
  const void *ud;
  unsigned *looks;       /* that are left */
} glance;

static bool
is_there_or_late (const void *ud)
{
  const glance *const g = ud;
  return g->ready(g->ud) || --*g->looks == 0;
}

void
rs_spin_few (bool (*ready) (const void *ud), const void *ud, unsigned looks)
{
  const glance g = { ready, ud, &looks };
  rs_spin(is_there_or_late, &g);
}

void
rs_spin (bool (*ready) (const void *ud), const void *ud)
{
  bool done = ready(ud);
  double began = 0, time = 0;
  /* A worker has its own CPU, and leaves one to the host. */
  while (!done && time < PATIENCE && free_cpus() > 0) {
    for (int i = 0; i < LOOKS && !done; i++) {
      relax();
      done = ready(ud);
    }
    if (done)
      break;
    const double now = rs_now();
    if (began == 0)
      began = now;
    time = now - began;
    sched_yield();  /* who is waited for may be queued for this CPU */
  }
}
