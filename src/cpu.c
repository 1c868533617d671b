/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - the CPUs that this process may use.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sched_getaffinity */
#endif
#include "cpu.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

/* The set of the first thread, since others may have been pinned; false when
   there are more CPUs than a static set holds. */
static bool
get_cpus (cpu_set_t *set)
{
  return sched_getaffinity(getpid(), sizeof *set, set) == 0;
}

unsigned
rs_cpus (void)
{
  cpu_set_t set;
  if (get_cpus(&set))
    return (unsigned) CPU_COUNT(&set);
  const long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (unsigned) n : 1;
}

void
rs_cpu_pin (unsigned number)
{
  cpu_set_t all, one;
  if (!get_cpus(&all))
    return;
  number %= (unsigned) CPU_COUNT(&all);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &all) || number-- > 0)
    cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}
