/* SPDX-License-Identifier: MIT */
/*
 * fork.h - what is left of the library in a child of fork(2).
 *
 * The child has the thread that forked, and a copy of all memory: of locks
 * whose threads are not there, and of lists that these were changing.  What a
 * process has one of is set up anew in the child, by each file for itself:
 * RS_IN_CHILD.  What there are many of (pools, jobs, batches, events) stays
 * the parent's: each knows in which generation it was made, and the public
 * functions look at that first.  What is foreign is neither used nor freed;
 * its memory stays as it is.
 *
 * No lock is held across a fork, since the parent shall not wait: a thread may
 * sit in a write to the terminal with the lock of the console.  So the child
 * drops what other threads may have been changing.
 */
#ifndef RS_FORK_H
#define RS_FORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runspace.h"

/* What 'rs_forks' returns.  Written in a child that has no other thread. */
extern _Atomic unsigned rs_fork_generation;

/* The generation of what is made now. */
static inline unsigned
rs_fork_now (void)
{
  return atomic_load_explicit(&rs_fork_generation, memory_order_relaxed);
}

/* What was made in generation 'born' belongs to another process. */
static inline bool
rs_fork_is_foreign (unsigned born)
{
  return born != rs_fork_now();
}

/*
 * In each child 'function' is called, on its only thread.  This stands once in
 * a file, outside of functions, and takes effect when the library is loaded,
 * since any thread may fork from then on; it is never unloaded.
 */
#define RS_IN_CHILD(function) \
  __attribute__ ((constructor)) static void \
  watch_forks (void) \
  { \
    pthread_atfork(NULL, NULL, function); \
  }

/* RS_EINVAL, "this pool belongs to another process"; 'noun' is the "pool". */
int rs_fork_fail (rs_error *err, const char *noun);

#endif
