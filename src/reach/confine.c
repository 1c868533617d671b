/* SPDX-License-Identifier: MIT */
/*
 * confine.c - what a worker process does to itself.
 *
 * The niceness is that of the thread that runs the jobs, and of all that it
 * starts: the thread that reads what the host says stays quick.
 *
 * RLIMIT_AS counts addresses, so what the program has taken by now, and what
 * its threads take at once, is added.
 */
#include "reach/confine.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/status.h"
#include "reach/wall.h"

/* Bytes of addresses that the C library sets apart for a thread, at most, when
   that takes memory for the first time. */
#define APART ((rlim_t) 64 << 20)

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/* Addresses that the process takes, in bytes; 0: not known. */
static rlim_t
taken (void)
{
  unsigned long pages = 0;
  FILE *const f = fopen("/proc/self/statm", "re");
  if (f == NULL)
    return 0;
  if (fscanf(f, "%lu", &pages) != 1)
    pages = 0;
  fclose(f);
  return (rlim_t) pages * (rlim_t) sysconf(_SC_PAGESIZE);
}
#endif

/* Bound what the process may take.  A sanitizer takes terabytes of addresses,
   so that there is no bound beside it. */
static int
bound_memory (size_t memory, rs_error *err)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  (void) memory;
  (void) err;
  return RS_OK;
#else
  struct rlimit limit;
  const rlim_t own = taken();
  if (own == 0 || memory > SIZE_MAX / 4)
    return RS_OK;
  const rlim_t most = own + APART + 2 * (rlim_t) memory;
  if (getrlimit(RLIMIT_AS, &limit) != 0)
    return RS_OK;
  if (limit.rlim_max <= most)
    return RS_OK;
  limit.rlim_cur = limit.rlim_max = most;
  return setrlimit(RLIMIT_AS, &limit) == 0 ? RS_OK
       : rs_fail(err, RS_EFAILED, "memory: %s", strerror(errno));
#endif
}

int
rs_confine (const rs_pool_options *o, rs_error *err)
{
  if (o->cwd != NULL && chdir(o->cwd) != 0)
    return rs_fail(err, RS_EFAILED, "cwd: cannot change to '%.1000s': %s",
                   o->cwd, strerror(errno));
  /* Niceness is that of a thread here, by the number 0 that of this one. */
  if (o->nice != 0
      && setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + o->nice)
         != 0)
    return rs_fail(err, RS_EFAILED, "nice: %s", strerror(errno));
  const int status = o->memory > 0 ? bound_memory(o->memory, err) : RS_OK;
  return status == RS_OK && o->strict ? rs_wall_close(err) : status;
}
