/* SPDX-License-Identifier: MIT */
/*
 * floor.h - what the floors share: a clock, a gate that spins a little
 * before it sleeps, and one line of output for each sample.
 *
 * A floor is a small, straightforward C program against liblua that does
 * the least that a job needs.  It prints one line for each sample it took,
 *
 *     name value unit
 *
 * and run.lua divides what it measures of the module by what the floor of
 * that name took in the same round.
 */
#ifndef FLOOR_H
#define FLOOR_H

#include <sched.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

/* Seconds on the monotonic clock. */
static inline double
now (void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void
report (const char *name, double value, const char *unit)
{
  printf("%s %.6g %s\n", name, value, unit);
}

/* Stay on the CPU of this number, of those that the program may use, if
   BENCH_PIN is in the environment.  The first thread calls it first, since
   others begin with the CPUs that it has then. */
static inline void
pin (unsigned number)
{
  static cpu_set_t all;
  cpu_set_t one;
  if (getenv("BENCH_PIN") == NULL
      || (CPU_COUNT(&all) == 0
          && sched_getaffinity(0, sizeof all, &all) != 0))
    return;
  number %= (unsigned)CPU_COUNT(&all);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &all) && number-- == 0) {
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pthread_setaffinity_np(pthread_self(), sizeof one, &one);
      return;
    }
}

/* End the program: a floor has nobody to hand an error to. */
static inline void
die (const char *what)
{
  fprintf(stderr, "floor: %s\n", what);
  exit(EXIT_FAILURE);
}

/* [-0, +0, -]  A state with the standard libraries. */
static inline lua_State *
open_state (void)
{
  lua_State *L = luaL_newstate();
  if (L == NULL)
    die("not enough memory");
  luaL_openlibs(L);
  return L;
}

/* [-0, +1, -]  Push the first value that the source text returns. */
static inline void
push_value (lua_State *L, const char *source)
{
  if (luaL_loadstring(L, source) != LUA_OK
      || lua_pcall(L, 0, 1, 0) != LUA_OK)
    die(lua_tostring(L, -1));
}

/* [-(nargs+1), +nresults, -]  'lua_pcall', or the end. */
static inline void
call (lua_State *L, int nargs, int nresults)
{
  if (lua_pcall(L, nargs, nresults, 0) != LUA_OK)
    die(lua_tostring(L, -1));
}

/* ------------------------------------------------------------------ gate */

/*
 * A counter that one thread raises and another waits for.  The waiter polls
 * it 'spins' times before it sleeps; 0 sleeps at once.
 */
typedef struct gate {
  _Alignas(128) pthread_mutex_t lock;  /* no gate shares a cache line */
  pthread_cond_t raised;   /* count changed */
  atomic_uint count;       /* raised under 'lock', polled without it */
  atomic_bool asleep;      /* the waiter holds, or is about to take, 'lock' */
  unsigned spins;
} gate;

static inline void
gate_init (gate *g, unsigned spins)
{
  pthread_mutex_init(&g->lock, NULL);
  pthread_cond_init(&g->raised, NULL);
  atomic_init(&g->count, 0);
  atomic_init(&g->asleep, false);
  g->spins = spins;
}

/* The sequentially consistent order of 'count' and 'asleep' here and in
   'gate_wait' is what keeps a wake-up from being lost. */
static inline void
gate_raise (gate *g)
{
  atomic_fetch_add(&g->count, 1);
  if (atomic_load(&g->asleep)) {
    pthread_mutex_lock(&g->lock);
    pthread_cond_signal(&g->raised);
    pthread_mutex_unlock(&g->lock);
  }
}

/* Wait until the count has reached 'goal'. */
static inline void
gate_wait (gate *g, unsigned goal)
{
  for (unsigned i = 0; i < g->spins; i++) {
    if (atomic_load_explicit(&g->count, memory_order_acquire) >= goal)
      return;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }
  pthread_mutex_lock(&g->lock);
  atomic_store(&g->asleep, true);
  while (atomic_load(&g->count) < goal)
    pthread_cond_wait(&g->raised, &g->lock);
  atomic_store(&g->asleep, false);
  pthread_mutex_unlock(&g->lock);
}

#endif
