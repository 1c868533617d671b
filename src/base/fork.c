/* SPDX-License-Identifier: MIT */
/*
 * fork.c - what is left of the library in a child of fork(2).
 */
#include "base/fork.h"

#include "base/status.h"

_Atomic unsigned rs_fork_generation;

static void
begin_child (void)
{
  atomic_fetch_add_explicit(&rs_fork_generation, 1, memory_order_relaxed);
}

RS_IN_CHILD(begin_child)

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
