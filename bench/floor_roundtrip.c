/* SPDX-License-Identifier: MIT */
/*
 * floor_roundtrip - an empty job to an idle worker and back.
 *
 *     floor_roundtrip [SAMPLES]
 *
 * The worker calls an empty Lua function for each request.  'spin': both
 * sides poll a little before they sleep; 'sleep': both sleep at once.
 */
#include "floor.h"

typedef struct worker {
  gate go, done;
  unsigned rounds;
} worker;

static void *
serve (void *arg)
{
  worker *w = arg;
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

static void
measure (const char *name, unsigned spins, unsigned samples, unsigned each)
{
  worker w = { .rounds = (samples + 1) * each };
  gate_init(&w.go, spins);
  gate_init(&w.done, spins);
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve, &w) != 0)
    die("no thread");
  unsigned n = 0;
  for (unsigned s = 0; s <= samples; s++) {
    const double start = now();
    for (unsigned i = 0; i < each; i++) {
      gate_raise(&w.go);
      gate_wait(&w.done, ++n);
    }
    if (s > 0)  /* not the warm-up? */
      report(name, (now() - start) / each * 1e6, "us");
  }
  pthread_join(thread, NULL);
}

int
main (int argc, char **argv)
{
  const unsigned samples = argc > 1 ? (unsigned)atoi(argv[1]) : 7;
  measure("roundtrip_spin", 20000, samples, 20000);
  measure("roundtrip_sleep", 0, samples, 1000);
  return 0;
}
