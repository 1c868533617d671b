/* SPDX-License-Identifier: MIT */
/*
 * floor_map - apply a Lua function to a table of integers on several
 * threads, table to table.
 *
 *     floor_map NAME WORKERS ITEMS VALUE CHUNK SAMPLES [FUNCTION]
 *
 * The host copies its table into a flat array of integers; each worker, with
 * a state of its own, takes CHUNK items at a time from a shared counter and
 * calls the function for each; the host builds a table of the results.  Items
 * are 1, 2, 3..., or all VALUE when that is not 0.  FUNCTION is source text
 * that returns the function; without it, x * x.
 *
 * Prints nanoseconds for each item.  'NAME_serial' is a plain loop over the
 * same table with the same function in one state.
 */
#include <stdint.h>
#include <string.h>

#include "floor.h"

typedef struct work {
  const char *source;
  int64_t *in, *out;
  size_t items, chunk;
  atomic_size_t next;     /* item to be taken; both workers */
  atomic_bool over;       /* host to workers: end */
  gate done;
} work;

typedef struct worker {
  pthread_t thread;
  work *work;
  gate go;
} worker;

static void *
serve (void *arg)
{
  worker *me = arg;
  work *w = me->work;
  lua_State *L = open_state();
  push_value(L, w->source);
  for (unsigned round = 1; ; round++) {
    gate_wait(&me->go, round);
    if (atomic_load(&w->over))
      break;
    for (;;) {
      size_t i = atomic_fetch_add(&w->next, w->chunk);
      if (i >= w->items)
        break;
      size_t last = i + w->chunk < w->items ? i + w->chunk : w->items;
      for (; i < last; i++) {
        lua_pushvalue(L, -1);
        lua_pushinteger(L, w->in[i]);
        call(L, 1, 1);
        w->out[i] = lua_tointeger(L, -1);
        lua_pop(L, 1);
      }
    }
    gate_raise(&w->done);
  }
  lua_close(L);
  return NULL;
}

/* [-0, +1, m]  A new table with the results for the table at 'index'. */
static void
map (lua_State *L, int index, work *w, worker *workers, unsigned n)
{
  const unsigned goal = atomic_load(&w->done.count) + n;
  for (size_t i = 0; i < w->items; i++) {
    lua_rawgeti(L, index, (lua_Integer)i + 1);
    w->in[i] = lua_tointeger(L, -1);
    lua_pop(L, 1);
  }
  atomic_store(&w->next, 0);
  for (unsigned i = 0; i < n; i++)
    gate_raise(&workers[i].go);
  gate_wait(&w->done, goal);
  lua_createtable(L, (int)w->items, 0);
  for (size_t i = 0; i < w->items; i++) {
    lua_pushinteger(L, w->out[i]);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

int
main (int argc, char **argv)
{
  if (argc < 7)
    die("usage: floor_map NAME WORKERS ITEMS VALUE CHUNK SAMPLES [FUNCTION]");
  const unsigned n = (unsigned)atoi(argv[2]);
  const long value = atol(argv[4]);
  const unsigned samples = (unsigned)atoi(argv[6]);
  work w = {
    .source = argc > 7 ? argv[7] : "return function (x) return x * x end",
    .items = (size_t)atol(argv[3]),
    .chunk = (size_t)atol(argv[5])
  };
  worker *workers = calloc(n, sizeof *workers);
  w.in = malloc(w.items * sizeof *w.in);
  w.out = malloc(w.items * sizeof *w.out);
  if (workers == NULL || w.in == NULL || w.out == NULL)
    die("not enough memory");
  gate_init(&w.done, 2000);
  for (unsigned i = 0; i < n; i++) {
    workers[i].work = &w;
    gate_init(&workers[i].go, 2000);
    if (pthread_create(&workers[i].thread, NULL, serve, &workers[i]) != 0)
      die("no thread");
  }

  lua_State *L = open_state();
  lua_createtable(L, (int)w.items, 0);
  for (size_t i = 1; i <= w.items; i++) {
    lua_pushinteger(L, value != 0 ? value : (lua_Integer)i);
    lua_rawseti(L, 1, (lua_Integer)i);
  }
  push_value(L, "return function (items, f)"
                "  local results = {}"
                "  for i = 1, #items do results[i] = f(items[i]) end"
                "  return results "
                "end");
  push_value(L, w.source);  /* items, loop, f */

  /* Threads that share a CPU at first are spread after some load. */
  const double warm = now() + 0.6;
  do {
    map(L, 1, &w, workers, n);
    lua_settop(L, 3);
  } while (now() < warm);

  char serial[128];
  snprintf(serial, sizeof serial, "%s_serial", argv[1]);
  for (unsigned s = 0; s < samples; s++) {
    lua_gc(L, LUA_GCCOLLECT);
    double start = now();
    map(L, 1, &w, workers, n);
    report(argv[1], (now() - start) / (double)w.items * 1e9, "ns");
    lua_settop(L, 3);
    lua_gc(L, LUA_GCCOLLECT);
    start = now();
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    call(L, 2, 1);
    report(serial, (now() - start) / (double)w.items * 1e9, "ns");
    lua_settop(L, 3);
  }

  atomic_store(&w.over, true);
  for (unsigned i = 0; i < n; i++) {
    gate_raise(&workers[i].go);
    pthread_join(workers[i].thread, NULL);
  }
  lua_close(L);
  free(workers);
  free(w.in);
  free(w.out);
  return 0;
}
