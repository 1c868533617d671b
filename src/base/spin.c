/* SPDX-License-Identifier: MIT */
/*
 * spin.c - wait a little before sleeping.
 *
 * The count of workers that are awake is one for the process, since its CPUs
 * are.  The count orders nothing: a few threads too many that spin a while do
 * no harm.  The count changes when a worker wakes or sleeps, and not with each
 * job, since spinning threads read it again and again: to write it then,
 * and so take the line away from their caches, costs as much as the rest of an
 * empty job.
 *
 * Looking is free while a CPU is idle.  Between looks the CPU is offered to
 * other threads, since the thread that is waited for may be queued for it.
 * Beside a busy program the offer gives away a whole slice of time, and so
 * tells that the CPU is shared: for a while no thread begins to look then, and
 * all sleep at once.
 */
#include "base/spin.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/fork.h"

#define PATIENCE 250e-6  /* seconds that a thread spins at most */
#define SLICE 2e-3       /* seconds; away longer: another program had the
                            CPU */
#define PAUSE 1e-3       /* seconds of the first pause; later ones are four
                            times as long */
#define LONGEST 1.0      /* seconds of the longest pause */

enum { LOOKS = 32 };     /* looks in a row, some 1.5 us */
enum { ENOUGH = 200 };   /* offers of the CPU in a row that no program took;
                            the next pause is short again then */

static struct {
  char before[64];
  _Atomic int awake;     /* workers that do not sleep */
  char between[64];
  _Atomic int cpus;      /* 0: not counted yet */
} counts;

/* The pause in which no thread looks; a lost update does no harm. */
static struct {
  _Atomic double until;  /* instant at which the pause ends or ended */
  _Atomic double pause;  /* length of the pause in seconds; 0: none lately */
  _Atomic unsigned free; /* offers since then that no program took */
} quiet;

void
rs_spin_prepare (void)
{
  if (atomic_load_explicit(&counts.cpus, memory_order_relaxed) == 0)
    atomic_store_explicit(&counts.cpus, (int) rs_cpus(), memory_order_relaxed);
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

/* Count no workers in a child: it has none. */
static void
begin_child (void)
{
  atomic_store_explicit(&counts.awake, 0, memory_order_relaxed);
}

RS_IN_CHILD(begin_child)

/* The number of CPUs that no awake worker has; may be below 0. */
static int
free_cpus (void)
{
  return atomic_load_explicit(&counts.cpus, memory_order_relaxed)
       - atomic_load_explicit(&counts.awake, memory_order_relaxed);
}

bool
rs_spin_spare (void)
{
  return free_cpus() > 1;
}

/* Let the other hardware thread of this core run, where there is one. */
static inline void
relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile ("yield");
#endif
}

/* Begin a pause, four times as long as the last one: another program had the
   CPU until 'now'. */
static void
begin_pause (double now)
{
  double pause = atomic_load_explicit(&quiet.pause, memory_order_relaxed);
  pause = pause == 0 ? PAUSE : fmin(4 * pause, LONGEST);
  atomic_store_explicit(&quiet.free, 0, memory_order_relaxed);
  atomic_store_explicit(&quiet.pause, pause, memory_order_relaxed);
  atomic_store_explicit(&quiet.until, now + pause, memory_order_relaxed);
}

/* Note that no program took the CPU when it was offered, 'offers' times. */
static void
note_free (unsigned offers)
{
  if (offers == 0
      || atomic_load_explicit(&quiet.pause, memory_order_relaxed) == 0)
    return;
  if (atomic_fetch_add_explicit(&quiet.free, offers, memory_order_relaxed)
      + offers >= ENOUGH)
    atomic_store_explicit(&quiet.pause, 0, memory_order_relaxed);
}

static bool
is_pause (void)
{
  const double until = atomic_load_explicit(&quiet.until,
                                            memory_order_relaxed);
  return until > 0 && rs_now() < until;
}

bool
rs_spin_is_free (void)
{
  return free_cpus() > 0 && !is_pause();
}

/* As 'rs_spin_few', with 'row' looks in a row at first, and twice as many each
   time, up to LOOKS. */
static void
spin (bool (*ready) (const void *ud), const void *ud, unsigned looks,
      unsigned row)
{
  double began = 0, now = 0;
  unsigned offers = 0;
  bool done = ready(ud) || is_pause();
  /* Each awake worker has a CPU; the loop needs one more, for the host. */
  while (!done && looks > 0 && now - began <= PATIENCE && free_cpus() > 0) {
    for (unsigned i = 0; i < row && looks > 0 && !done; i++, looks--) {
      relax();
      done = ready(ud);
    }
    if (done)
      break;
    const double before = rs_now();
    if (began == 0)
      began = before;
    sched_yield();
    now = rs_now();
    if (now - before > SLICE) {
      begin_pause(now);
      return;
    }
    offers++;
    row = row < LOOKS / 2 ? 2 * row : LOOKS;
  }
  note_free(offers);
}

void
rs_spin_few (bool (*ready) (const void *ud), const void *ud, unsigned looks)
{
  spin(ready, ud, looks, LOOKS);
}

void
rs_spin (bool (*ready) (const void *ud), const void *ud)
{
  spin(ready, ud, UINT_MAX, LOOKS);
}

void
rs_spin_handed (bool (*ready) (const void *ud), const void *ud)
{
  spin(ready, ud, UINT_MAX, 1);
}
