/* SPDX-License-Identifier: MIT */
/*
 * spin.c - wait a little before sleeping.
 *
 * The count is of the process, since its CPUs are.  It orders nothing: too
 * many that spin for a moment do no harm.  It changes when a worker wakes or
 * sleeps, and not with each job, since whoever spins reads it again and again:
 * to take it away from there costs as much as the rest of an empty job.
 *
 * Looking is free while a CPU is idle.  What came of it tells whether one is:
 * a thread that loses its CPU while it looks shares it with somebody, so that
 * nobody looks for a while; and where looks were in vain several times in a
 * row, nobody does there.  The CPU is not offered to others between looks:
 * beside a busy program that gives away a whole slice of time.
 */
#include "spin.h"

#include <limits.h>

#include "clock.h"

#define PATIENCE 250e-6  /* seconds */
#define AWAY 200e-6      /* between two looks at the clock: a slice of time */
#define PAUSE 1e-3       /* without looks, at first; then twice that, */
#define LONGEST 0.5      /*   up to this */
#define FORGET 8         /* pauses after which the next one is the first */

enum { LOOKS = 32 };     /* in a row, some 1.5 us */
enum { VAIN = 4 };       /* times all that patience, in a row */

static struct {
  char before[64];
  _Atomic int awake;     /* workers that do not sleep */
  char between[64];
  _Atomic int cpus;
} counts;

/* All sites: others want the CPUs. */
static rs_spin_site everywhere;

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

/* The time in which nobody looks here is over, or there is none. */
static bool
is_open (rs_spin_site *site)
{
  const double until = atomic_load_explicit(&site->until,
                                            memory_order_relaxed);
  if (until == 0)
    return true;
  if (rs_now() < until)
    return false;
  atomic_store_explicit(&site->until, 0, memory_order_relaxed);
  return true;
}

/* From 'now' on nobody looks here: for twice as long as last time, if that was
   not long ago. */
static void
shut (rs_spin_site *site, double now)
{
  const double last = atomic_load_explicit(&site->last, memory_order_relaxed);
  double pause = atomic_load_explicit(&site->pause, memory_order_relaxed);
  pause = pause == 0 || now - last > FORGET * pause ? PAUSE
        : pause < LONGEST ? 2 * pause : pause;
  atomic_store_explicit(&site->pause, pause, memory_order_relaxed);
  atomic_store_explicit(&site->last, now, memory_order_relaxed);
  atomic_store_explicit(&site->until, now + pause, memory_order_relaxed);
}

/* Looks at 'site' found something. */
static void
praise (rs_spin_site *site)
{
  if (atomic_load_explicit(&site->vain, memory_order_relaxed) != 0)
    atomic_store_explicit(&site->vain, 0, memory_order_relaxed);
}

/* They did not. */
static void
blame (rs_spin_site *site, double now)
{
  const unsigned vain = atomic_load_explicit(&site->vain,
                                             memory_order_relaxed) + 1;
  if (vain >= VAIN)
    shut(site, now);
  else
    atomic_store_explicit(&site->vain, vain, memory_order_relaxed);
}

/* What comes of looking. */
typedef enum found { THERE, NOT_YET, IN_VAIN } found;

static found
look (bool (*ready) (const void *ud), const void *ud, unsigned most)
{
  double began = 0, last = 0;
  /* A worker has its own CPU, and leaves one to the host. */
  while (most > 0 && free_cpus() > 0) {
    for (int i = 0; i < LOOKS && most > 0; i++, most--) {
      relax();
      if (ready(ud))
        return THERE;
    }
    const double now = rs_now();
    if (began == 0)
      began = now;
    else if (now - last > AWAY) {
      shut(&everywhere, now);
      return NOT_YET;
    }
    last = now;
    if (now - began >= PATIENCE)
      return IN_VAIN;
  }
  return NOT_YET;
}

void
rs_spin_few (rs_spin_site *site, bool (*ready) (const void *ud),
             const void *ud, unsigned looks)
{
  if (!ready(ud) && is_open(&everywhere) && is_open(site))
    look(ready, ud, looks);
}

void
rs_spin (rs_spin_site *site, bool (*ready) (const void *ud), const void *ud)
{
  if (ready(ud) || !is_open(&everywhere) || !is_open(site))
    return;
  const found f = look(ready, ud, UINT_MAX);
  if (f == THERE)
    praise(site);
  else if (f == IN_VAIN)
    blame(site, rs_now());
}
