/* SPDX-License-Identifier: MIT */
/*
 * alloc_check.c - memory that cannot be had.
 *
 * What is looked at is repeated with refused allocations, for each N until a
 * run reaches none: only the Nth, the Nth and the next one, and all from the
 * Nth on; anywhere, in workers only, in the host only.  One refusal alone
 * proves little, since Lua collects garbage and asks again.  Each run ends
 * with a status or the error "not enough memory", leaves nothing behind
 * (the leak checker sees to that), and what comes next, on the same pool,
 * works.  The runs:
 *
 *     everything once, from C, with small and large blocks from 'malloc', and
 *       from slabs and kept ones as usual
 *     a state's first use of the module, and then its second
 *     the end of a state, which has jobs to report
 *     what scripts do: spec/support/short_memory.lua
 *
 * The linker puts '__wrap_' functions in the place of the C library's for
 * our own objects; the host's state has an allocator of its own.  Finalizers
 * in runspaces get what they ask for: Lua runs none a second time, so what one
 * would give back that could not be called is lost, in Lua itself as well (the
 * long buffers of lauxlib.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/check.h"

#include "base/alloc.h"
#include "base/large.h"
#include "lparallel.h"
#include "base/slab.h"

enum mode { OFF, ONLY, TWO, FROM, MODES };
enum place { ANYWHERE, WORKERS, HOST, PLACES };

static const char *const mode_names[] = { "off", "only", "two", "from" };
static const char *const place_names[] = { "anywhere", "workers", "host" };

static _Atomic int mode;        /* set between runs, read by all threads */
static _Atomic int place;       /* the same */
static _Atomic long count;      /* allocations of this run */
static _Atomic long first;      /* the first one to refuse */
static _Thread_local bool is_host;
static _Thread_local bool spared;  /* a finalizer runs */

static bool
refused (void)
{
  const int m = atomic_load(&mode);
  const int p = atomic_load(&place);
  if (m == OFF || spared || (p != ANYWHERE && (p == HOST) != is_host))
    return false;
  const long n = atomic_fetch_add(&count, 1) + 1;
  const long f = atomic_load(&first);
  return m == ONLY ? n == f : m == TWO ? n == f || n == f + 1 : n >= f;
}

static void
start (int m, long n)
{
  atomic_store(&count, 0);
  atomic_store(&first, n);
  atomic_store(&mode, m);
}

/* True when a refusal was met. */
static bool
stop (long n)
{
  return atomic_exchange(&mode, OFF) != OFF && atomic_load(&count) >= n;
}

void *__real_malloc (size_t);
void *__real_calloc (size_t, size_t);
void *__real_realloc (void *, size_t);
void *__real_aligned_alloc (size_t, size_t);
int __real_posix_memalign (void **, size_t, size_t);
void *__real_mmap (void *, size_t, int, int, int, off_t);
char *__real_strdup (const char *);
void *__wrap_malloc (size_t);
void *__wrap_calloc (size_t, size_t);
void *__wrap_realloc (void *, size_t);
void *__wrap_aligned_alloc (size_t, size_t);
int __wrap_posix_memalign (void **, size_t, size_t);
void *__wrap_mmap (void *, size_t, int, int, int, off_t);
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

static _Atomic unsigned aligned;  /* blocks, refused or not */

void *
__wrap_aligned_alloc (size_t alignment, size_t n)
{
  atomic_fetch_add(&aligned, 1);
  return refused() ? NULL : __real_aligned_alloc(alignment, n);
}

int
__wrap_posix_memalign (void **ptr, size_t alignment, size_t n)
{
  return refused() ? ENOMEM : __real_posix_memalign(ptr, alignment, n);
}

void *
__wrap_mmap (void *at, size_t n, int access, int flags, int fd, off_t from)
{
  return refused() ? MAP_FAILED : __real_mmap(at, n, access, flags, fd, from);
}

char *
__wrap_strdup (const char *text)
{
  return refused() ? NULL : __real_strdup(text);
}

void *__real_rs_alloc_resize (void *, void *, size_t, size_t);
void *__wrap_rs_alloc_resize (void *, void *, size_t, size_t);

void *
__wrap_rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize)
{
  spared = atomic_load(&mode) != OFF && rs_alloc_finalizes(ud);
  void *const block = __real_rs_alloc_resize(ud, ptr, osize, nsize);
  spared = false;
  return block;
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

/* The next N after this one: all are tried up to DENSE, then some. */
static long
next_sample (long n)
{
  enum { DENSE = 40 };
  return n + 1 + n / DENSE;
}

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
  if (rs_alloc_all_plain)
    lua_pushliteral(L, "local t = ...; shared = t; return { t[1] + value }");
  else  /* many small blocks, and a large one */
    lua_pushliteral(L, "local t, s = ..., {} "
                       "for i = 1, 2000 do s[i] = { i } end "
                       "shared = ('x'):rep(300000) .. #s "
                       "return { t[1] + value }");
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

/* Slabs and large blocks that are kept for the next one are given back, so
   that this has to ask. */
static void
drop_kept (void)
{
  rs_slab slab;
  rs_list *link;
  rs_large_trim();
  rs_slab_init(&slab);
  const unsigned before = atomic_load(&aligned);
  while (atomic_load(&aligned) == before)
    REQUIRE(rs_slab_take(&slab, RS_SLAB_MAX) != NULL);
  while ((link = rs_list_shift(&slab.regions)) != NULL)
    free(RS_LIST_ENTRY(link, rs_region, link));
}

/* Run with refusals from the Nth on; true when one was met. */
static bool
once (int m, long n)
{
  memset(&run, 0, sizeof run);
  if (!rs_alloc_all_plain)
    drop_kept();
  lua_State *const L = lua_newstate(resize, NULL);
  REQUIRE(L != NULL);
  start(m, n);
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
  const bool met = stop(n);
  lua_close(L);
  return met;
}

/* --------------------------------------------------- the end of a state */

/* A state with the module. */
static lua_State *
open_host (void)
{
  lua_State *const L = lua_newstate(resize, NULL);
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_setglobal(L, "parallel");
  return L;
}

/* A state that closes reports what nobody looked at; true when a refusal was
   met. */
static bool
close_once (int m, long n)
{
  lua_State *const L = open_host();
  REQUIRE(luaL_dostring(L,
    "pool = parallel.pool { max = 1 }"
    "parallel.on('unseen_failure', function () end)"
    "for i = 1, 3 do pool:spawn \"error 'x'\" end "
    "pool:run 'return 1'") == LUA_OK);
  start(m, n);
  lua_close(L);
  return stop(n);
}

/* ---------------------------------------------------------- the first use */

/* What is made when it is first needed. */
static int
use_first (lua_State *L)
{
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_setglobal(L, "parallel");
  if (luaL_dostring(L,
        "local p <close> = parallel.pool { max = 1 }"
        "local C = {}"
        "local function send (i)"
        "  parallel.task.warning 'w' return setmetatable({ i }, C) "
        "end "
        "local r = p:collect({ 7 }, send,"
        "                    { streams = { warning = false } })[1]"
        "if r.state ~= 'completed' then error(r.error, 0) end "
        "return r.result[1] == 7 and getmetatable(r.result) == C"
        "   and r.streams and r.streams.warning[1].message == 'w'") != LUA_OK)
    return lua_error(L);
  return 1;
}

/* A state whose first use met refusals is as good as any for the second. */
static bool
first_once (int m, long n)
{
  lua_State *const L = lua_newstate(resize, NULL);
  REQUIRE(L != NULL);
  lua_pushcfunction(L, use_first);
  start(m, n);
  lua_pcall(L, 0, 1, 0);
  const bool met = stop(n);
  lua_settop(L, 0);
  lua_pushcfunction(L, use_first);
  const int code = lua_pcall(L, 0, 1, 0);
  if (code != LUA_OK)
    fprintf(stderr, "%s %ld: %s\n", mode_names[m], n,
            luaL_tolstring(L, -1, NULL));
  CHECK(code == LUA_OK && lua_toboolean(L, -1));
  lua_close(L);
  return met;
}

/* ------------------------------------------------------------- of scripts */

static struct {
  const char *name;   /* what runs, for who finds that it hangs */
  int m;
  long n;
} now;

static void
on_alarm (int signal)
{
  char text[200];
  const int size =
    snprintf(text, sizeof text, "'%s' hangs: %s, %s %ld\n", now.name,
             place_names[atomic_load(&place)], mode_names[now.m], now.n);
  (void) signal;
  if (size > 0 && write(STDERR_FILENO, text, (size_t) size) < 0)
    _exit(2);
  abort();
}

/* What jobs print, and what is reported of handlers, goes nowhere: 'quiet'
   puts the standard files away, 'loud' back. */
static int files[3] = { -1, -1, -1 };

static void
quiet (void)
{
  fflush(stdout);
  if (files[0] < 0) {
    files[0] = open("/dev/null", O_RDWR);
    files[1] = dup(STDOUT_FILENO);
    files[2] = dup(STDERR_FILENO);
    REQUIRE(files[0] >= 0 && files[1] >= 0 && files[2] >= 0);
  }
  dup2(files[0], STDOUT_FILENO);
  dup2(files[0], STDERR_FILENO);
}

static void
loud (void)
{
  fflush(stdout);
  dup2(files[1], STDOUT_FILENO);
  dup2(files[2], STDERR_FILENO);
}

enum { ROWS = 1, LOOK, ROW };

/* [-0, +0, -]  The row on top, with a refusal.  True when it was met. */
static bool
script_once (lua_State *L, int row, int m, long n)
{
  lua_getfield(L, ROW, "run");
  alarm(60);
  quiet();
  start(m, n);
  const int code = lua_pcall(L, 0, LUA_MULTRET, 0);
  const bool met = stop(n);
  const int results = lua_gettop(L) - ROW;
  luaL_checkstack(L, LUA_MINSTACK, NULL);
  lua_pushvalue(L, LOOK);
  lua_pushinteger(L, row);
  lua_pushboolean(L, code == LUA_OK);
  lua_rotate(L, ROW + 1, 3);
  const int looked = lua_pcall(L, results + 2, 1, 0);
  loud();
  if (looked != LUA_OK || !lua_isnil(L, -1))
    fprintf(stderr, "%s: %s, %s %ld: %s\n", now.name,
            place_names[atomic_load(&place)], mode_names[m], n,
            luaL_tolstring(L, -1, NULL));
  CHECK(looked == LUA_OK && lua_isnil(L, ROW + 1));
  lua_settop(L, ROW);
  /* A collection for want of memory calls no finalizers, and puts off the one
     that would. */
  if (n % 8 == 0)
    lua_gc(L, LUA_GCCOLLECT);
  return met;
}

/* One row, with refusals there. */
static long
sweep_row (lua_State *L, int row)
{
  long tried = 0;
  lua_rawgeti(L, ROWS, row);
  lua_getfield(L, ROW, "name");
  now.name = lua_tostring(L, -1);  /* the row has it */
  const bool sampled = lua_getfield(L, ROW, "sampled") != LUA_TNIL;
  lua_pop(L, 2);
  script_once(L, row, OFF, 0);  /* it works */
  for (int m = ONLY; m < MODES; m++) {
    now.m = m;
    for (long n = 1; ; n = sampled ? next_sample(n) : n + 1) {
      now.n = n;
      tried++;
      if (!script_once(L, row, m, n))
        break;
    }
  }
  lua_settop(L, LOOK);
  return tried;
}

static void
sweep_script (int p)
{
  const char *const directory = getenv("RUNSPACE_SRCDIR");
  char path[4096];
  snprintf(path, sizeof path, "%s/spec/support/short_memory.lua",
           directory != NULL ? directory : ".");
  lua_State *const L = open_host();
  atomic_store(&place, p);
  if (luaL_loadfile(L, path) == LUA_OK) {
    lua_getglobal(L, "parallel");
    lua_call(L, 1, 2);
  }
  else
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  REQUIRE(lua_gettop(L) == LOOK);
  const int rows = (int) lua_rawlen(L, ROWS);
  long tried = 0;
  for (int row = 1; row <= rows; row++)
    tried += sweep_row(L, row);
  alarm(0);
  printf("%s: %d rows, %ld runs\n", place_names[p], rows, tried);
  lua_close(L);
}

/* ------------------------------------------------------------------- all */

static void
sweep_all (int m)
{
  long n = 1;
  while (once(m, n) && !run.hung)
    n = next_sample(n);
  CHECK(!run.hung);
  CHECK(n > 30);
  printf("%s, %s%s: up to %ld\n", place_names[atomic_load(&place)],
         mode_names[m], rs_alloc_all_plain ? "" : ", slabs", n);
  once(OFF, 0);
  CHECK(run.sum == 42 + 1 + 2);
  CHECK(run.heard == 3);
}

int
main (void)
{
  const bool slabs = !rs_alloc_all_plain;
  is_host = true;
  signal(SIGALRM, on_alarm);
  now.name = "everything";
  for (int p = ANYWHERE; p < PLACES; p++) {
    atomic_store(&place, p);
    for (int plain = slabs ? 0 : 1; plain < 2; plain++) {
      rs_alloc_all_plain = plain;
      for (int m = ONLY; m < MODES; m++)
        sweep_all(m);
    }
  }
  rs_alloc_all_plain = true;
  atomic_store(&place, ANYWHERE);
  for (int m = ONLY; m < MODES; m++) {
    enum { STEPS = 12 };
    long n = 1;
    while (first_once(m, n))
      n += 1 + n / STEPS;
    CHECK(n > 1000);
    printf("first use, %s: up to %ld\n", mode_names[m], n);
  }
  for (int m = ONLY; m < MODES; m++) {
    long n = 1;
    while (close_once(m, n))
      n = next_sample(n);
    CHECK(n > 10);
    printf("%ld places to refuse at the end\n", n);
  }
  for (int p = ANYWHERE; p < PLACES; p++)
    sweep_script(p);
  return report();
}
