/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - the CPUs that this process may use.
 *
 * Two things limit them: the set of CPUs that the threads of the process may
 * run on, and the time that the control groups above the process give it in
 * each period, which is worth a number of CPUs (cgroups(7)).  The set is asked
 * for each time.  The quota is read from files, and kept for a second.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sched_getaffinity */
#endif
#include "base/cpu.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { PATH = 4096, LINE = 3 * PATH };

/* Get the set of the first thread, since other threads may have been pinned.
   False when there are more CPUs than a static set holds. */
static bool
get_cpus (cpu_set_t *set)
{
  return sched_getaffinity(getpid(), sizeof *set, set) == 0;
}

/* ---------------------------------------------------------- control groups */

/* A hierarchy of control groups that limits CPU time. */
typedef struct hierarchy {
  bool unified;       /* cgroups version 2 */
  char group[PATH];   /* group of the process; "" when it is in none */
  char root[PATH];    /* the group that is mounted */
  char point[PATH];   /* directory of the mount; "" when it is not mounted */
} hierarchy;

/* Is 'word' in 'list', whose words have commas between them? */
static bool
has_word (const char *list, const char *word)
{
  const size_t length = strlen(word);
  for (const char *p = list; (p = strstr(p, word)) != NULL; p += length) {
    if ((p == list || p[-1] == ',')
        && (p[length] == ',' || p[length] == '\0' || p[length] == '\n'))
      return true;
  }
  return false;
}

/* Copy 'from', up to its end or a newline; false when it is too long. */
static bool
copy (char to[PATH], const char *from)
{
  const size_t length = strcspn(from, "\n");
  if (length >= PATH)
    return false;
  memcpy(to, from, length);
  to[length] = '\0';
  return true;
}

/* Replace the octal escapes that mountinfo has for spaces and the like. */
static void
unescape (char *text)
{
  char *to = text;
  for (const char *p = text; *p != '\0'; to++) {
    unsigned c;
    if (p[0] == '\\' && sscanf(p + 1, "%3o", &c) == 1) {
      *to = (char) c;
      p += 4;
    }
    else
      *to = *p++;
  }
  *to = '\0';
}

static FILE *
open_below (const char *root, const char *directory, const char *name)
{
  char path[3 * PATH];
  const int n = snprintf(path, sizeof path, "%s%s/%s", root, directory, name);
  return n > 0 && (size_t) n < sizeof path ? fopen(path, "re") : NULL;
}

/* Find the group in /proc/self/cgroup: "number:controllers:group". */
static void
find_group (const char *root, hierarchy *h)
{
  char line[LINE];
  FILE *const f = open_below(root, "/proc/self", "cgroup");
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    char *const controllers = strchr(line, ':');
    char *const group = controllers != NULL ? strchr(controllers + 1, ':')
                                            : NULL;
    if (group == NULL)
      continue;
    *group = '\0';
    if (h->unified ? controllers[1] == '\0'
                   : has_word(controllers + 1, "cpu"))
      copy(h->group, group + 1);
  }
  if (f != NULL)
    fclose(f);
}

/* Find the mount in /proc/self/mountinfo: "id parent device root point
   options... - type source options". */
static void
find_mount (const char *root, hierarchy *h)
{
  char line[LINE], type[64], options[PATH], mounted[PATH], point[PATH];
  FILE *const f = open_below(root, "/proc/self", "mountinfo");
  while (f != NULL && fgets(line, sizeof line, f) != NULL) {
    const char *const rest = strstr(line, " - ");
    if (rest == NULL
        || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, point) != 2
        || sscanf(rest + 3, "%63s %*s %4095s", type, options) != 2)
      continue;
    if (h->unified ? strcmp(type, "cgroup2") == 0
                   : strcmp(type, "cgroup") == 0 && has_word(options, "cpu")) {
      unescape(mounted);
      unescape(point);
      copy(h->root, mounted);
      copy(h->point, point);
      break;
    }
  }
  if (f != NULL)
    fclose(f);
}

/* The CPUs that a group may use; INFINITY when it has no limit. */
static double
read_quota (const char *root, const char *directory, bool unified)
{
  double quota = -1, period = -1;
  FILE *f = open_below(root, directory, unified ? "cpu.max"
                                                : "cpu.cfs_quota_us");
  if (f == NULL)
    return INFINITY;
  const int n = unified ? fscanf(f, "%lf %lf", &quota, &period)
                        : fscanf(f, "%lf", &quota);
  fclose(f);
  if (!unified && n == 1
      && (f = open_below(root, directory, "cpu.cfs_period_us")) != NULL) {
    if (fscanf(f, "%lf", &period) != 1)
      period = -1;
    fclose(f);
  }
  return quota > 0 && period > 0 ? quota / period : INFINITY;
}

/* The smallest quota of the group of the process and of the visible groups
   above it, in CPUs. */
static double
read_hierarchy (const char *root, bool unified)
{
  hierarchy h = { .unified = unified };
  char directory[2 * PATH];
  double least = INFINITY;
  find_group(root, &h);
  find_mount(root, &h);
  if (h.group[0] == '\0' || h.point[0] == '\0')
    return INFINITY;
  /* The directory of the group lies below the mounted group.  A container that
     does not see its own group by its name has that group mounted. */
  const size_t length = strcmp(h.root, "/") == 0 ? 0 : strlen(h.root);
  const bool below = strncmp(h.group, h.root, length) == 0
                  && (h.group[length] == '/' || h.group[length] == '\0')
                  && strstr(h.group, "/..") == NULL;
  const size_t top = strlen(h.point);
  snprintf(directory, sizeof directory, "%s%s", h.point,
           below ? h.group + length : "");
  for (;;) {
    const double quota = read_quota(root, directory, unified);
    least = quota < least ? quota : least;
    char *const last = strrchr(directory, '/');
    if (strlen(directory) <= top || last == NULL)
      break;
    *last = '\0';
  }
  return least;
}

unsigned
rs_cpu_quota (const char *root)
{
  const double second = read_hierarchy(root, true);
  const double first = read_hierarchy(root, false);
  const double cpus = ceil(first < second ? first : second);
  return cpus < 1 ? 1 : cpus < (double) RS_CPU_ANY ? (unsigned) cpus
                                                   : RS_CPU_ANY;
}

/* The quota of this process, as it was a second ago at most. */
static unsigned
quota_of_process (void)
{
  static _Atomic unsigned known;   /* 0: none was read yet */
  static _Atomic double since;     /* instant of the last read; two threads
                                      that find it too old read the same */
  const double now = rs_now_coarse();
  unsigned n = atomic_load_explicit(&known, memory_order_relaxed);
  if (n == 0 || now - atomic_load_explicit(&since, memory_order_relaxed) > 1) {
    int state;  /* reading opens files: no pthread_cancel(3) there */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    n = rs_cpu_quota("");
    pthread_setcancelstate(state, NULL);
    atomic_store_explicit(&since, now, memory_order_relaxed);
    atomic_store_explicit(&known, n, memory_order_relaxed);
  }
  return n;
}

/* ------------------------------------------------------------------ public */

unsigned
rs_cpus (void)
{
  cpu_set_t set;
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  const unsigned n = get_cpus(&set) ? (unsigned) CPU_COUNT(&set)
                   : online > 0 ? (unsigned) online : 1;
  const unsigned quota = quota_of_process();
  return n < quota ? n : quota;
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

void
rs_cpu_limit (double seconds)
{
  struct timespec used;
  struct rlimit limit;
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0
      || getrlimit(RLIMIT_CPU, &limit) != 0)
    return;
  const double until = ceil((double) used.tv_sec + used.tv_nsec * 1e-9
                            + seconds);
  limit.rlim_cur = until < (double) limit.rlim_max ? (rlim_t) until
                                                   : limit.rlim_max;
  setrlimit(RLIMIT_CPU, &limit);
}
