/* SPDX-License-Identifier: MIT */
/*
 * floor_start - threads and states from nothing to nothing.
 *
 *     floor_start [SAMPLES]
 *
 * 'start': start a thread that opens a state with the standard libraries, runs
 * an empty function and closes it; join the thread.  'start2': two at a time.
 * 'state': the state alone, in this thread.  Prints microseconds.
 */
#define _GNU_SOURCE  /* floor.h */
#include "floor.h"

enum { EACH = 200 };

static void *
serve (void *arg)
{
  lua_State *L = open_state();
  (void)arg;
  push_value(L, "return 1");
  lua_close(L);
  return NULL;
}

static void
threads (unsigned n)
{
  pthread_t thread[2];
  for (unsigned i = 0; i < n; i++)
    if (pthread_create(&thread[i], NULL, serve, NULL) != 0)
      die("no thread");
  for (unsigned i = 0; i < n; i++)
    pthread_join(thread[i], NULL);
}

static void
measure (const char *name, unsigned n, unsigned samples)
{
  for (unsigned s = 0; s <= samples; s++) {
    const double start = now();
    for (int i = 0; i < EACH; i++)
      if (n == 0)
        serve(NULL);
      else
        threads(n);
    if (s > 0)  /* not the warm-up? */
      report(name, (now() - start) / EACH * 1e6, "us");
  }
}

int
main (int argc, char **argv)
{
  const unsigned samples = argc > 1 ? (unsigned)atoi(argv[1]) : 7;
  measure("start", 1, samples);
  measure("start2", 2, samples);
  measure("state", 0, samples);
  return 0;
}
