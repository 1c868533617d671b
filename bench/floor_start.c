/* SPDX-License-Identifier: MIT */
/*
 * floor_start - start a thread that opens a state with the standard
 * libraries, runs an empty function and closes it; join the thread.
 *
 *     floor_start [SAMPLES]
 */
#include "floor.h"

static void *
serve (void *arg)
{
  lua_State *L = open_state();
  (void)arg;
  push_value(L, "return 1");
  lua_close(L);
  return NULL;
}

int
main (int argc, char **argv)
{
  enum { EACH = 200 };
  const unsigned samples = argc > 1 ? (unsigned)atoi(argv[1]) : 7;
  for (unsigned s = 0; s <= samples; s++) {
    const double start = now();
    for (int i = 0; i < EACH; i++) {
      pthread_t thread;
      if (pthread_create(&thread, NULL, serve, NULL) != 0)
        die("no thread");
      pthread_join(thread, NULL);
    }
    if (s > 0)  /* not the warm-up? */
      report("start", (now() - start) / EACH * 1e6, "us");
  }
  return 0;
}
