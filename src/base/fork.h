/* SPDX-License-Identifier: MIT */
/*
 * fork.h - what is left of the library in a child of fork(2).
 *
 * The child has only the thread that forked, and a copy of all memory: also of
 * locks that other threads held, and of lists that they were changing.  An
 * object that exists once in a process is set up anew in the child, by each
 * file for itself: RS_IN_CHILD.  Objects of which there are many (pools, jobs,
 * batches, events) stay the parent's: each knows in which generation it was
 * made, and the public functions check that first.  A foreign object is
 * neither used nor freed; its memory stays as it is.
 *
 * No lock is held across a fork, since the parent must not wait: a thread may
 * sit in a write to the terminal with the lock of the console.  So the child
 * drops the data that other threads may have been changing.
 */
#ifndef RS_FORK_H
#define RS_FORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runspace.h"

/* The generation of this process, as 'rs_forks' returns it.  Only a child
   writes it, while it has a single thread. */
extern _Atomic unsigned rs_fork_generation;

/* The generation of an object that is made now. */
static inline unsigned
rs_fork_now (void)
{
  return atomic_load_explicit(&rs_fork_generation, memory_order_relaxed);
}

/* True when an object of generation 'born' belongs to another process. */
static inline bool
rs_fork_is_foreign (unsigned born)
{
  return born != rs_fork_now();
}

/*
 * Call 'function' in each child, on its only thread.  RS_IN_CHILD stands once
 * in a file, outside of functions.  It takes effect when the library is
 * loaded, since any thread may fork from then on; the library is never
 * unloaded.
 */
#define RS_IN_CHILD(function) \
  __attribute__ ((constructor)) static void \
  watch_forks (void) \
  { \
    pthread_atfork(NULL, NULL, function); \
  }

/* Fail with RS_EINVAL, "this pool belongs to another process"; 'noun' is the
   "pool". */
int rs_fork_fail (rs_error *err, const char *noun);

#endif
