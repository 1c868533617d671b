/* SPDX-License-Identifier: MIT */
/*
 * floor_map - apply a Lua function to a table of values on several threads,
 * table to table.
 *
 *     floor_map NAME WORKERS ITEMS VALUE CHUNK SAMPLES [FUNCTION]
 *
 * The host copies its table into a flat array; each worker, with a state of
 * its own, takes CHUNK items at a time from a shared counter and calls the
 * function for each; the host builds a table of the results.  VALUE says what
 * the items are: 'integer' and 'range' 1, 2, 3..., of which a range is not
 * copied; 'float' halves; 'string' short and distinct ones, which stay where
 * they are in the host's state; or a number, which all of them are.  FUNCTION
 * is source text that returns the function; without it, x * x, or what comes
 * in, for strings.
 *
 * With BENCH_PIN in the environment each thread stays on a CPU of its own.
 *
 * Prints nanoseconds for each item.  'NAME_serial' is a plain loop over the
 * same table with the same function in one state.
 */
#define _GNU_SOURCE  /* floor.h */
#include <stdint.h>
#include <string.h>

#include "floor.h"

typedef enum kind { INTEGER, FLOAT, STRING, RANGE } kind;

/* A value outside of any state. */
typedef union value {
  int64_t integer;
  double number;
  struct { const char *text; size_t size; } string;
} value;

typedef struct work {
  kind kind;
  const char *source;
  value *in, *out;
  size_t items, chunk;
  atomic_size_t next;     /* item to be taken; all workers */
  atomic_bool over;       /* host to workers: end */
  gate done;
} work;

typedef struct worker {
  pthread_t thread;
  unsigned number;
  work *work;
  char *text;             /* of its results, one after the other */
  size_t size, room;
  gate go;
} worker;

enum { TEXT = 24 };       /* bytes of a string, at most */

static void
push (lua_State *L, const work *w, size_t i)
{
  switch (w->kind) {
    case INTEGER:
      lua_pushinteger(L, w->in[i].integer);
      break;
    case FLOAT:
      lua_pushnumber(L, w->in[i].number);
      break;
    case STRING:
      lua_pushlstring(L, w->in[i].string.text, w->in[i].string.size);
      break;
    case RANGE:
      lua_pushinteger(L, (lua_Integer)i + 1);
  }
}

/* Take the result on top of the stack. */
static void
take (lua_State *L, worker *me, size_t i)
{
  value *const to = &me->work->out[i];
  switch (me->work->kind) {
    case INTEGER:
    case RANGE:
      to->integer = lua_tointeger(L, -1);
      break;
    case FLOAT:
      to->number = lua_tonumber(L, -1);
      break;
    case STRING: {
      size_t size;
      const char *const text = lua_tolstring(L, -1, &size);
      if (me->room - me->size < size)
        die("results longer than expected");
      to->string.text = memcpy(me->text + me->size, text, size);
      to->string.size = size;
      me->size += size;
    }
  }
  lua_pop(L, 1);
}

static void *
serve (void *arg)
{
  worker *me = arg;
  work *w = me->work;
  pin(me->number);
  lua_State *L = open_state();
  push_value(L, w->source);
  for (unsigned round = 1; ; round++) {
    gate_wait(&me->go, round);
    if (atomic_load(&w->over))
      break;
    me->size = 0;
    for (;;) {
      size_t i = atomic_fetch_add(&w->next, w->chunk);
      if (i >= w->items)
        break;
      size_t last = i + w->chunk < w->items ? i + w->chunk : w->items;
      for (; i < last; i++) {
        lua_pushvalue(L, -1);
        push(L, w, i);
        call(L, 1, 1);
        take(L, me, i);
      }
    }
    gate_raise(&w->done);
  }
  lua_close(L);
  return NULL;
}

/* Copy the table at 'index'. */
static void
fill (lua_State *L, int index, work *w)
{
  if (w->kind == RANGE)
    return;
  for (size_t i = 0; i < w->items; i++) {
    lua_rawgeti(L, index, (lua_Integer)i + 1);
    value *const to = &w->in[i];
    if (w->kind == INTEGER)
      to->integer = lua_tointeger(L, -1);
    else if (w->kind == FLOAT)
      to->number = lua_tonumber(L, -1);
    else
      to->string.text = lua_tolstring(L, -1, &to->string.size);
    lua_pop(L, 1);
  }
}

/* [-0, +1, m]  A new table with the results for the table at 'index'. */
static void
map (lua_State *L, int index, work *w, worker *workers, unsigned n)
{
  const unsigned goal = atomic_load(&w->done.count) + n;
  fill(L, index, w);
  atomic_store(&w->next, 0);
  for (unsigned i = 0; i < n; i++)
    gate_raise(&workers[i].go);
  gate_wait(&w->done, goal);
  lua_createtable(L, (int)w->items, 0);
  for (size_t i = 0; i < w->items; i++) {
    if (w->kind == FLOAT)
      lua_pushnumber(L, w->out[i].number);
    else if (w->kind == STRING)
      lua_pushlstring(L, w->out[i].string.text, w->out[i].string.size);
    else
      lua_pushinteger(L, w->out[i].integer);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
}

/* [-0, +1, m]  The table of items. */
static void
push_items (lua_State *L, const work *w, const char *word)
{
  lua_createtable(L, (int)w->items, 0);
  for (size_t i = 1; i <= w->items; i++) {
    char text[TEXT];
    if (w->kind == FLOAT)
      lua_pushnumber(L, (lua_Number)i + 0.5);
    else if (w->kind == STRING) {
      snprintf(text, sizeof text, "s%zu", i);
      lua_pushstring(L, text);
    }
    else
      lua_pushinteger(L, atol(word) != 0 ? atol(word) : (lua_Integer)i);
    lua_rawseti(L, -2, (lua_Integer)i);
  }
}

int
main (int argc, char **argv)
{
  if (argc < 7)
    die("usage: floor_map NAME WORKERS ITEMS VALUE CHUNK SAMPLES [FUNCTION]");
  const unsigned n = (unsigned)atoi(argv[2]);
  const char *const word = argv[4];
  const unsigned samples = (unsigned)atoi(argv[6]);
  work w = {
    .kind = strcmp(word, "float") == 0 ? FLOAT
          : strcmp(word, "string") == 0 ? STRING
          : strcmp(word, "range") == 0 ? RANGE : INTEGER,
    .items = (size_t)atol(argv[3]),
    .chunk = (size_t)atol(argv[5])
  };
  w.source = argc > 7 ? argv[7]
           : w.kind == STRING ? "return function (x) return x end"
                              : "return function (x) return x * x end";
  worker *workers = calloc(n, sizeof *workers);
  w.in = malloc(w.items * sizeof *w.in);
  w.out = malloc(w.items * sizeof *w.out);
  if (workers == NULL || w.in == NULL || w.out == NULL)
    die("not enough memory");
  gate_init(&w.done, 2000);
  for (unsigned i = 0; i < n; i++) {
    workers[i].number = i;
    workers[i].work = &w;
    if (w.kind == STRING) {
      workers[i].room = w.items * TEXT;
      workers[i].text = malloc(workers[i].room);
      if (workers[i].text == NULL)
        die("not enough memory");
    }
    gate_init(&workers[i].go, 2000);
    if (pthread_create(&workers[i].thread, NULL, serve, &workers[i]) != 0)
      die("no thread");
  }

  lua_State *L = open_state();
  push_items(L, &w, word);
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
    free(workers[i].text);
  }
  lua_close(L);
  free(workers);
  free(w.in);
  free(w.out);
  return 0;
}
