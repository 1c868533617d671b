/* SPDX-License-Identifier: MIT */
/*
 * floor_roundtrip - an empty job to an idle worker and back.
 *
 *     floor_roundtrip [SAMPLES [sleep]]
 *
 * The worker calls an empty Lua function for each request.  'spin': both
 * sides poll a little before they sleep; 'sleep': both sleep at once; 'rest':
 * the same, with 2 ms of rest in front of each request, the median of 100.
 * With 'sleep' in the arguments that one only, for half a second or so.
 *
 * With BENCH_PIN in the environment each thread stays on a CPU of its own.
 */
#define _GNU_SOURCE  /* floor.h */
#include "floor.h"

enum { LONG = 50000 };  /* trips: many slices of time, beside other programs */

typedef struct worker {
  gate go, done;
  unsigned rounds;
} worker;

static void *
serve (void *arg)
{
  worker *w = arg;
  pin(1);
  lua_State *L = open_state();
  push_value(L, "return function () end");
  for (unsigned i = 1; i <= w->rounds; i++) {
    gate_wait(&w->go, i);
    lua_pushvalue(L, -1);
    call(L, 0, 0);
    gate_raise(&w->done);
  }
  lua_close(L);
  return NULL;
}

static int
compare (const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Microseconds of a round trip: the mean of 'each', one right after the other,
   or the median of as many with a rest in front of each. */
static double
sample (worker *w, unsigned *n, unsigned each, bool rest)
{
  static double times[100];
  const struct timespec pause = { .tv_nsec = 2000000 };
  const double start = now();
  for (unsigned i = 0; i < each; i++) {
    if (rest)
      nanosleep(&pause, NULL);
    const double begin = now();
    gate_raise(&w->go);
    gate_wait(&w->done, ++*n);
    if (rest)
      times[i] = now() - begin;
  }
  if (!rest)
    return (now() - start) / each * 1e6;
  qsort(times, each, sizeof *times, compare);
  return times[each / 2] * 1e6;
}

static void
measure (const char *name, unsigned spins, unsigned samples, unsigned each,
         bool rest)
{
  worker w = { .rounds = (samples + 1) * each };
  gate_init(&w.go, spins);
  gate_init(&w.done, spins);
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve, &w) != 0)
    die("no thread");
  unsigned n = 0;
  for (unsigned s = 0; s <= samples; s++) {
    const double time = sample(&w, &n, each, rest);
    if (s > 0)  /* not the warm-up? */
      report(name, time, "us");
  }
  pthread_join(thread, NULL);
}

int
main (int argc, char **argv)
{
  const unsigned samples = argc > 1 ? (unsigned)atoi(argv[1]) : 7;
  const bool sleep_only = argc > 2;
  pin(0);
  if (!sleep_only)
    measure("roundtrip_spin", 20000, samples, 20000, false);
  measure("roundtrip_sleep", 0, samples, sleep_only ? LONG : 1000, false);
  if (!sleep_only)
    measure("roundtrip_rest", 0, samples, 100, true);
  return 0;
}
