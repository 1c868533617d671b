/* SPDX-License-Identifier: MIT */
/*
 * fork.c - what is left of the library in a child of fork(2).
 *
 * No lock is held across a fork, since the parent shall not wait: a thread may
 * sit in a write to the terminal with the lock of the console.  So the child
 * drops what other threads may have been changing.  (The face has handlers of
 * its own for the keeper of programs, which shares memory with the host.)
 */
#include "fork.h"

#include <pthread.h>

#include "cancel.h"
#include "console.h"
#include "large.h"
#include "names.h"
#include "popen.h"
#include "slab.h"
#include "spin.h"
#include "status.h"
#include "timer.h"

_Atomic unsigned rs_fork_generation;

/* In the child: all that the process has one of. */
static void
begin_child (void)
{
  atomic_fetch_add_explicit(&rs_fork_generation, 1, memory_order_relaxed);
  rs_cancel_begin_child();
  rs_console_begin_child();
  rs_large_begin_child();
  rs_names_begin_child();
  rs_popen_begin_child();
  rs_slab_begin_child();
  rs_spin_begin_child();
  rs_timers_begin_child();
}

/* When the library is loaded, since any thread may fork from then on.  It is
   never unloaded. */
__attribute__ ((constructor)) static void
watch (void)
{
  pthread_atfork(NULL, NULL, begin_child);
}

unsigned
rs_forks (void)
{
  return rs_fork_now();
}

int
rs_fork_fail (rs_error *err, const char *noun)
{
  return rs_fail(err, RS_EINVAL, "this %s belongs to another process", noun);
}
