/* SPDX-License-Identifier: MIT */
/*
 * width.c - how many workers a pool has.
 *
 * A look compares the CPU time that each worker with a job has had since the
 * last one with the time that has passed.  What is neither that nor time for
 * which the worker wanted a CPU that others had (schedstat of proc(5)) was a
 * wait.  Programs that jobs have started, and that have ended, count as well:
 * a worker that waits for one which computes would not get more done beside
 * further workers.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pthread_getcpuclockid */
#endif
#include "pool/width.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"

enum {
  MOST = 32,          /* workers at most, or FOR_EACH for each CPU, or 'max' */
  FOR_EACH = 4,
  SEEN = 64,          /* workers that are looked at, at most */
  QUIET = 20,         /* looks in a row that find nothing to do */
  SURE = 3            /* looks in a row after which workers are taken away:
                         where other programs have the CPUs, one tells
                         little */
};

#define LOOK 0.01     /* seconds between two looks, */
#define LATEST 0.16   /*   at most, if nothing is to be changed */
#define PAUSE 0.5     /* seconds without growth after workers were taken
                         away */
#define WAITING 0.4   /* share of their time that workers wait, from which on
                         there may be more of them */
#define BUSY 0.2      /* share below which there are to be fewer */
#define ENOUGH 0.8    /* CPUs in use, of one: no more workers */
#define FULL 0.95     /* the same: programs that jobs have started take all */

/* -------------------------------------------------------------------- size */

bool
rs_pool_is_short_locked (const rs_pool *pool)
{
  return rs_sched_ready_locked(&pool->sched)
         + rs_sched_running_locked(&pool->sched)
         > pool->alive;
}

void
rs_pool_grow (rs_pool *pool)
{
  rs_error err;
  bool more = true;
  while (more) {
    rs_pool_lock(pool);
    more = !pool->sched.closed
        && (pool->alive < pool->min || rs_pool_is_short_locked(pool))
        && rs_pool_may_grow_locked(pool);
    rs_worker *const w = more ? rs_worker_reserve_locked(pool) : NULL;
    rs_pool_unlock(pool);
    more = more && rs_worker_start(pool, w, &err) == RS_OK;
  }
}

/* Wake the hosts of the maps that run: they may feed more workers. */
static void
wake_hosts (rs_pool *pool)
{
  rs_job *some[SEEN];
  size_t n = 0;
  rs_pool_lock(pool);
  for (rs_list *link = pool->workers.next;
       link != &pool->workers && n < SEEN; link = link->next) {
    rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    if ((some[n] = rs_seat_ref_job_locked(&w->seat)) != NULL)
      n++;
  }
  rs_pool_unlock(pool);
  while (n-- > 0) {
    if (some[n]->batch != NULL)
      rs_events_wake(some[n]->events);
    rs_job_unref(some[n]);
  }
}

/* Check a new size, with the lock; 0 keeps what is. */
static int
check_size_locked (const rs_pool *pool, unsigned *min, unsigned *max,
                   rs_error *err)
{
  if (pool->sched.closed)
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  if (pool->serial)
    return rs_fail(err, RS_EINVAL, "a serial pool has one runspace, on the "
                                   "thread of its host: open another pool");
  if (*min > RS_WORKERS_MAX || *max > RS_WORKERS_MAX)
    return rs_fail(err, RS_EINVAL, "%s (%u) is more than %d",
                   *min > RS_WORKERS_MAX ? "min" : "max",
                   *min > RS_WORKERS_MAX ? *min : *max, RS_WORKERS_MAX);
  if (pool->hosts > 0 && *max > pool->options.max)
    return rs_fail(err, RS_EINVAL, "max (%u) is more than the %u workers that "
                                   "the pool was opened with, which its hosts "
                                   "have", *max, pool->options.max);
  const unsigned new_min = *min != 0 ? *min : pool->min;
  const unsigned new_max = *max != 0 ? *max : pool->max;
  if (new_min > new_max)
    return rs_fail(err, RS_EINVAL, "min (%u) is more than max (%u): give both",
                   new_min, new_max);
  *min = new_min;
  *max = new_max;
  return RS_OK;
}

int
rs_pool_resize (rs_pool *pool, unsigned min, unsigned max, rs_error *err)
{
  if (pool == NULL)
    return rs_fail_null(err, "pool");
  if (rs_pool_is_foreign(pool))
    return rs_fork_fail(err, "pool");
  rs_pool_lock(pool);
  const bool fixed = max != 0;
  const int status = check_size_locked(pool, &min, &max, err);
  if (status == RS_OK) {
    if (fixed)
      pool->width.most = 0;  /* it adapts no more */
    pool->min = min;
    pool->max = max;
    if (pool->width.base < min)
      pool->width.base = min;
    rs_sched_call_all_locked(&pool->sched);  /* some may be too many now */
  }
  rs_pool_unlock(pool);
  if (status == RS_OK) {
    rs_pool_grow(pool);
    wake_hosts(pool);
  }
  return status;
}

/* ----------------------------------------------------------------- looking */

/* What a look finds. */
typedef struct sight {
  unsigned n;          /* workers with a job */
  struct {
    pid_t tid;         /* of the thread, as the kernel names it */
    bool known;        /* it had a job at the last look, too */
    double cpu;        /* seconds of CPU since then */
    double delay;      /* seconds that it has wanted a CPU, at all */
  } workers[SEEN];
  unsigned known;      /* workers of which the last look knew as much */
  double cpu;          /* seconds of CPU that these have had since then */
  double wanted;       /* seconds that they have wanted one */
  double children;     /* seconds of CPU of programs that have ended */
  double elapsed;      /* seconds since the last look */
} sight;

/* Seconds that a thread has wanted a CPU so far; below 0: not known. */
static double
delay_of (pid_t tid)
{
  char path[64], text[96];
  unsigned long long delay;
  snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", (int) tid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  if (fd >= 0)
    close(fd);
  text[n > 0 ? n : 0] = '\0';
  return sscanf(text, "%*u %llu", &delay) == 1 ? (double) delay * 1e-9 : -1;
}

/* Seconds of CPU of the programs of this process that have ended. */
static double
children_time (void)
{
  struct rusage u;
  if (getrusage(RUSAGE_CHILDREN, &u) != 0)
    return 0;
  return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec)
         + (double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* Note the CPU time of the workers that have a job. */
static void
see_locked (rs_pool *pool, sight *s)
{
  for (rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next) {
    rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    rs_worker_time *const t = &w->time;
    struct timespec now;
    if (!w->began || !atomic_load_explicit(&w->seat.has, memory_order_relaxed)
        || clock_gettime(t->clock, &now) != 0) {
      t->seen = false;
      continue;
    }
    const double cpu = (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
    if (s->n < SEEN) {
      s->workers[s->n].tid = t->tid;
      s->workers[s->n].known = t->seen;
      s->workers[s->n++].cpu = cpu - t->cpu;
    }
    t->cpu = cpu;
    t->seen = true;
  }
}

/* Find out how long these workers have wanted a CPU, and add up what is known
   of all of them. */
static void
see_delays (rs_pool *pool, sight *s)
{
  for (unsigned i = 0; i < s->n; i++)
    s->workers[i].delay = delay_of(s->workers[i].tid);
  rs_pool_lock(pool);
  for (rs_list *link = pool->workers.next; link != &pool->workers;
       link = link->next) {
    rs_worker_time *const t = &RS_LIST_ENTRY(link, rs_worker, link)->time;
    for (unsigned i = 0; i < s->n; i++)
      if (t->tid == s->workers[i].tid) {
        const double delay = s->workers[i].delay;
        if (s->workers[i].known && delay >= 0 && t->delay >= 0) {
          s->known++;
          s->cpu += s->workers[i].cpu;
          s->wanted += delay - t->delay;
        }
        t->delay = delay;
      }
  }
  rs_pool_unlock(pool);
}

/* The width for what was seen: the same one, a larger or a smaller one. */
static unsigned
choose_locked (rs_pool *pool, const sight *s, double now)
{
  rs_width *const width = &pool->width;
  const unsigned max = pool->max;
  const double cpus = rs_cpus(), time = s->known * s->elapsed;
  if (s->known == 0 || time <= 0)
    return max;
  const double waits = 1 - (s->cpu + s->wanted) / time;
  const double children = s->children / s->elapsed;
  width->children = 0.8 * width->children + 0.2 * children;
  const double used = s->cpu / s->elapsed * s->n / s->known + width->children;
  const bool busy = waits < BUSY || (used > FULL * cpus
                                     && width->children > 0.5 * used);
  width->busy = busy ? width->busy + 1 : 0;
  if (max > width->base && width->busy >= SURE) {
    width->later = now + PAUSE;
    return max / 2 > width->base ? max / 2 : width->base;
  }
  const size_t ready = rs_sched_ready_locked(&pool->sched);
  if (ready == 0 || max >= width->most || waits < WAITING || width->held > 0
      || used > ENOUGH * cpus || now < width->later || pool->alive < max)
    return max;
  const double fair = used > 0 ? cpus * max / used : width->most;
  double more = 2.0 * max;
  more = more < max + (double) ready ? more : max + (double) ready;
  more = more < fair ? more : fair;
  more = more < width->most ? more : width->most;
  return more > max ? (unsigned) more : max;
}

/* Have the pool that many workers, at most. */
static void
set_locked (rs_pool *pool, unsigned max)
{
  const bool fewer = max < pool->max;
  pool->max = max;
  if (fewer)
    rs_sched_call_all_locked(&pool->sched);
}

/* rs_timer: look, and look again later, unless there is nothing to do. */
static void
look (rs_timer *timer)
{
  rs_width *const width = RS_LIST_ENTRY(timer, rs_width, timer);
  rs_pool *const pool = RS_LIST_ENTRY(width, rs_pool, width);
  const double now = rs_now(), children = children_time();
  sight s = { .elapsed = now - width->looked,
              .children = children - width->children_seen };
  width->looked = now;
  width->children_seen = children;
  rs_pool_lock(pool);
  see_locked(pool, &s);
  rs_pool_unlock(pool);
  see_delays(pool, &s);

  rs_pool_lock(pool);
  const unsigned max = pool->max;
  const bool nothing = rs_sched_ready_locked(&pool->sched) == 0
                    && rs_sched_running_locked(&pool->sched) == 0;
  width->quiet = nothing ? width->quiet + 1 : 0;
  const bool over = pool->sched.closed || width->most == 0;
  const bool quiet = width->quiet >= QUIET;
  if (!over)
    set_locked(pool, quiet || width->held > 0 ? width->base
                     : choose_locked(pool, &s, now));
  const bool changed = pool->max != max, grown = pool->max > max;
  width->asleep = quiet && !over;
  width->pause = changed || nothing || pool->max > width->base ? LOOK
               : width->pause < LATEST / 2 ? 2 * width->pause : LATEST;
  rs_pool_unlock(pool);
  if (grown) {
    rs_pool_grow(pool);
    wake_hosts(pool);
  }
  if (!over && !quiet)
    rs_timer_set(timer, now + width->pause);
}

void
rs_width_init (rs_pool *pool)
{
  const rs_pool_options *const o = &pool->options;
  const unsigned cpus = rs_cpus();
  rs_width *const width = &pool->width;
  rs_timer_init(&width->timer, look);
  pool->min = o->min;
  atomic_init(&pool->max, o->max);
  width->base = o->max;
  if (!o->adapt)
    return;
  width->most = FOR_EACH * cpus > MOST ? FOR_EACH * cpus : MOST;
  width->asleep = width->most > width->base;
}

void
rs_width_stop (rs_pool *pool)
{
  rs_timer_clear(&pool->width.timer);
}

void
rs_width_begin (rs_pool *pool)
{
  rs_width *const width = &pool->width;
  width->looked = rs_now();
  width->children_seen = children_time();
  width->children = 0;
  width->pause = LOOK;
  width->quiet = 0;
  rs_timer_set(&width->timer, width->looked + LOOK);
}

void
rs_width_hold (rs_pool *pool, bool held)
{
  rs_pool_lock(pool);
  pool->width.held += held ? 1 : -1u;
  if (held && pool->width.most > 0 && pool->max > pool->width.base)
    set_locked(pool, pool->width.base);
  rs_pool_unlock(pool);
}
