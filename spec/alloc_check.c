/* SPDX-License-Identifier: MIT */
/*
 * alloc_check.c - memory that cannot be had.
 *
 * A run of everything (an initial state, a pool, a job, a map) is repeated
 * with refused allocations, for each N until a run reaches none: only the
 * Nth, the Nth and the next one, and all from the Nth on.  One refusal alone
 * proves little, since Lua collects garbage and asks again.  Each run ends
 * with a status or the error "not enough memory", leaves nothing behind
 * (the leak checker sees to that), and the next run without refusals works.
 * The same at the end of a state, which has jobs to report.
 *
 * The linker puts '__wrap_' functions in the place of the C library's for
 * our own objects; the host's state has an allocator of its own.
 */
#include <stdatomic.h>

#include "support/check.h"

#include "alloc.h"
#include "lparallel.h"

enum mode { OFF, ONLY, TWO, FROM, MODES };

static _Atomic int mode;        /* set between runs, read by all threads */
static _Atomic long count;      /* allocations of this run */
static _Atomic long first;      /* the first one to refuse */

static bool
refused (void)
{
  const int m = atomic_load(&mode);
  if (m == OFF)
    return false;
  const long n = atomic_fetch_add(&count, 1) + 1;
  const long f = atomic_load(&first);
  return m == ONLY ? n == f : m == TWO ? n == f || n == f + 1 : n >= f;
}

void *__real_malloc (size_t);
void *__real_calloc (size_t, size_t);
void *__real_realloc (void *, size_t);
char *__real_strdup (const char *);
void *__wrap_malloc (size_t);
void *__wrap_calloc (size_t, size_t);
void *__wrap_realloc (void *, size_t);
char *__wrap_strdup (const char *);

void *
__wrap_malloc (size_t n)
{
  return refused() ? NULL : __real_malloc(n);
}

void *
__wrap_calloc (size_t n, size_t size)
{
  return refused() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc (void *ptr, size_t n)
{
  return refused() ? NULL : __real_realloc(ptr, n);
}

char *
__wrap_strdup (const char *text)
{
  return refused() ? NULL : __real_strdup(text);
}

/* lua_Alloc of the host */
static void *
resize (void *ud, void *ptr, size_t osize, size_t nsize)
{
  (void) ud;
  if (nsize == 0) {
    free(ptr);
    return NULL;
  }
  if (ptr != NULL && nsize <= osize)  /* shrinking may not fail */
    return __real_realloc(ptr, nsize);
  return realloc(ptr, nsize);
}

/* ----------------------------------------------------------------- the run */

static struct {
  rs_initial_state *is;
  rs_pool *pool;
  rs_job *job;
  rs_batch *batch;
  rs_job *talker;
  rs_pool *plain;       /* that nobody has waited for, and a job of its */
  rs_job *plain_job;
  rs_events *events;
  lua_Integer sum;      /* what came back */
  unsigned heard;       /* what the talker sent */
  bool hung;
} run;

/* Statuses that a run may meet. */
static bool
allowed (int status)
{
  return status == RS_OK || status == RS_ENOMEM || status == RS_EFAILED;
}

static void
one_job (lua_State *L)
{
  int n;
  lua_pushliteral(L, "local t = ...; shared = t; return { t[1] + value }");
  lua_createtable(L, 1, 0);
  lua_pushinteger(L, 40);
  lua_rawseti(L, -2, 1);
  if (rs_submit(run.pool, L, 1, NULL, &run.job, NULL) != RS_OK)
    return;
  run.hung |= rs_job_wait(run.job, L, 60) != RS_OK;
  if (!run.hung && rs_job_push(run.job, L, &n) == RS_OK) {
    lua_rawgeti(L, -1, 1);
    run.sum += lua_tointeger(L, -1);
  }
}

static void
one_map (lua_State *L)
{
  rs_record rec;
  const rs_batch_options o = { .total = 2, .chunk = 1,
                               .flags = RS_BATCH_CONTINUE };
  lua_pushliteral(L, "return { ... }");
  if (rs_batch_open(run.pool, L, 0, &o, &run.batch, NULL) != RS_OK)
    return;
  for (lua_Integer i = 1; i <= 2 && rs_batch_room(run.batch) > 0; i++) {
    lua_pushinteger(L, i);
    if (rs_batch_add(run.batch, L, 1, NULL) == RS_OK)
      CHECK(allowed(rs_batch_flush(run.batch, NULL)));
  }
  rs_batch_finish(run.batch, NULL);
  for (;;) {
    const int status = rs_batch_wait(run.batch, L, 60);
    run.hung |= status == RS_ETIMEOUT;
    if (status != RS_OK)
      return;
    while (rs_batch_next(run.batch, L, &rec) == RS_OK) {
      if (rec.state == RS_JOB_COMPLETED) {
        lua_rawgeti(L, -1, 1);
        run.sum += lua_tointeger(L, -1);
        lua_pop(L, 1);
      }
      lua_pop(L, rec.n);
    }
  }
}

/* In a runspace: a record, an event, and another record; and an initial state
   that takes over the sandbox. */
static int
talk (lua_State *L)
{
  lua_pushliteral(L, "a record");
  rs_task_send(L, RS_STREAM_VERBOSE, 1);
  lua_pushinteger(L, 1);
  rs_task_emit(L, "event", 1);
  lua_pushliteral(L, "another");
  rs_task_send(L, RS_STREAM_DEBUG, 1);
  rs_initial_state *const is = rs_initial_state_new();
  CHECK(is == NULL || allowed(rs_initial_state_inherit(is, L)));
  rs_initial_state_unref(is);
  return 0;
}

static void
one_talk (lua_State *L)
{
  rs_stream_record *record;
  run.events = rs_events_new();
  if (run.events == NULL)
    return;
  const rs_job_options o = { .events = run.events,
                             .listen = RS_LISTEN_FINISHED };
  lua_pushcfunction(L, talk);
  if (rs_submit(run.pool, L, 0, &o, &run.talker, NULL) != RS_OK)
    return;
  while (!rs_job_settled(run.talker) && !run.hung)
    run.hung |= rs_events_wait(run.events, 60) != RS_OK;
  rs_job_unref(rs_events_next(run.events));
  while ((record = rs_job_deliver(run.talker)) != NULL) {
    run.heard++;
    rs_stream_record_unref(record);
  }
}

/* Its worker may not come about. */
static void
one_plain_job (lua_State *L)
{
  const rs_pool_options o = { .max = 1 };
  const int status = rs_pool_open(&o, &run.plain, NULL);
  CHECK(allowed(status));
  if (status != RS_OK)
    return;
  lua_pushliteral(L, "return 1");
  if (rs_submit(run.plain, L, 0, NULL, &run.plain_job, NULL) == RS_OK)
    run.hung |= rs_job_wait(run.plain_job, L, 60) != RS_OK;
}

static int
everything (lua_State *L)
{
  rs_error err;
  run.is = rs_initial_state_new();
  if (run.is == NULL)
    return 0;
  lua_pushinteger(L, 2);
  if (rs_initial_state_add_variable(run.is, "value", L, &err) != RS_OK)
    return 0;
  static const char *const names[] = { "one", "two", NULL };
  const rs_sandbox sandbox = { .files = RS_FILES_NONE,
                               .forbid = RS_FORBID_ALL, .c_modules = names };
  if (rs_initial_state_set_sandbox(run.is, &sandbox) != RS_OK)
    return 0;
  const rs_pool_options o = { .max = 1, .initial_state = run.is };
  const int status = rs_pool_open(&o, &run.pool, &err);
  CHECK(allowed(status));
  if (status != RS_OK)
    return 0;
  one_job(L);
  one_map(L);
  one_talk(L);
  one_plain_job(L);
  return 0;
}

/* Run with refusals from the Nth on; true when one was met. */
static bool
once (int m, long n)
{
  memset(&run, 0, sizeof run);
  lua_State *const L = lua_newstate(resize, NULL);
  REQUIRE(L != NULL);
  atomic_store(&count, 0);
  atomic_store(&first, n);
  atomic_store(&mode, m);
  lua_pushcfunction(L, everything);
  const int code = lua_pcall(L, 0, 0, 0);
  CHECK(code == LUA_OK || code == LUA_ERRMEM);
  rs_batch_close(run.batch, L);
  rs_job_unref(run.job);
  rs_job_unref(run.talker);
  rs_job_unref(run.plain_job);
  rs_pool_unref(run.plain);
  rs_pool_unref(run.pool);
  rs_initial_state_unref(run.is);
  rs_events_unref(run.events);
  atomic_store(&mode, OFF);
  lua_close(L);
  return m != OFF && atomic_load(&count) >= n;
}

/* --------------------------------------------------- the end of a state */

/* A state that closes reports what nobody looked at; true when a refusal was
   met. */
static bool
close_once (int m, long n)
{
  lua_State *const L = lua_newstate(resize, NULL);
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_setglobal(L, "parallel");
  REQUIRE(luaL_dostring(L,
    "pool = parallel.pool { max = 1 }"
    "parallel.on('unseen_failure', function () end)"
    "for i = 1, 3 do pool:spawn \"error 'x'\" end "
    "pool:run 'return 1'") == LUA_OK);
  atomic_store(&count, 0);
  atomic_store(&first, n);
  atomic_store(&mode, m);
  lua_close(L);
  atomic_store(&mode, OFF);
  return atomic_load(&count) >= n;
}

int
main (void)
{
  rs_alloc_all_plain = true;
  for (int m = ONLY; m < MODES; m++) {
    long n = 1;
    while (once(m, n) && !run.hung)
      n++;
    CHECK(!run.hung);
    CHECK(n > 100);
    printf("%ld places to refuse\n", n);
    once(OFF, 0);
    CHECK(run.sum == 42 + 1 + 2);
    CHECK(run.heard == 3);
    n = 1;
    while (close_once(m, n))
      n++;
    CHECK(n > 10);
    printf("%ld places to refuse at the end\n", n);
  }
  return report();
}
