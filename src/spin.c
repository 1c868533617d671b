/* SPDX-License-Identifier: MIT */
/*
 * spin.c - wait a little before sleeping.
 *
 * The counts are of the process, since its CPUs are.  They order nothing: too
 * many that spin for a moment do no harm.
 */
#include "spin.h"

#include <sched.h>
#include <stdatomic.h>

#include "clock.h"

#define PATIENCE 250e-6  /* seconds */

enum { LOOKS = 32 };     /* in a row, some 1.5 us */

static _Atomic int busy;      /* workers that run a job */
static _Atomic int spinning;  /* workers that spin */
static _Atomic int cpus;

static int
cpus_of_process (void)
{
  int n = atomic_load_explicit(&cpus, memory_order_relaxed);
  if (n == 0) {
    n = (int) rs_cpus();
    atomic_store_explicit(&cpus, n, memory_order_relaxed);
  }
  return n;
}

void
rs_spin_busy (void)
{
  atomic_fetch_add_explicit(&busy, 1, memory_order_relaxed);
}

void
rs_spin_free (void)
{
  atomic_fetch_sub_explicit(&busy, 1, memory_order_relaxed);
}

/* Let the other thread of this core run, where there is one. */
static void
relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile ("yield");
#endif
}

/* CPUs that workers leave, when 'spin' of them spin. */
static int
free_cpus (int spin)
{
  return cpus_of_process() - spin
       - atomic_load_explicit(&busy, memory_order_relaxed);
}

/* The host has one that no worker has; a worker leaves one to the host. */
static bool
has_cpu (bool worker, int before)
{
  return worker ? free_cpus(before) > 1
                : free_cpus(atomic_load_explicit(&spinning,
                                                 memory_order_relaxed)) > 0;
}

void
rs_spin (bool (*ready) (const void *ud), const void *ud, bool worker)
{
  int before = 0;
  if (worker) {
    before = atomic_load_explicit(&spinning, memory_order_relaxed);
    if (!has_cpu(worker, before))
      return;
    atomic_fetch_add_explicit(&spinning, 1, memory_order_relaxed);
  }
  const double began = rs_now();
  double time = 0;
  bool done = ready(ud);
  while (!done && time < PATIENCE && has_cpu(worker, before)) {
    for (int i = 0; i < LOOKS && !done; i++) {
      relax();
      done = ready(ud);
    }
    if (!done)
      sched_yield();  /* who is waited for may be queued for this CPU */
    time = rs_now() - began;
  }
  if (worker)
    atomic_fetch_sub_explicit(&spinning, 1, memory_order_relaxed);
}
