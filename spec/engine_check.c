/* SPDX-License-Identifier: MIT */
/*
 * engine_check.c - the C interface: what Lua cannot reach.
 */
#include "support/check.h"
#include "pool/face.h"
#include "support/queue.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "pool/batch.h"
#include "base/clock.h"
#include "base/large.h"
#include "lparallel.h"
#include "pool/sched.h"
#include "base/slab.h"
#include "base/spin.h"
#include "base/timer.h"

/* ---------------------------------------------- threads that cannot be had */

/* Creations that succeed before the system gives no more; the linker puts
   '__wrap_pthread_create' in the place of the real one. */
static _Atomic int threads_left = -1;  /* below 0: no limit; the thread of the
                                          timers looks, too */

/* Threads that are created while this is set begin at the open gate. */
static bool threads_wait;

typedef struct {
  void *(*start) (void *);
  void *arg;
} waiting_thread;

static void *
wait_and_start (void *ptr)
{
  const waiting_thread thread = *(waiting_thread *) ptr;
  free(ptr);
  wait_at_gate(NULL);
  return thread.start(thread.arg);
}

/* Set: before the next thread fails its only worker does, that stands at the
   gate, and is gone. */
static rs_pool *last_pool;

static void
let_worker_fail (rs_pool *pool)
{
  rs_pool_info info;
  gate_open();
  do
    rs_pool_info_get(pool, &info);
  while (info.workers > 1);  /* the one that has no thread counts */
}

int __real_pthread_create (pthread_t *, const pthread_attr_t *,
                           void *(*) (void *), void *);
int __wrap_pthread_create (pthread_t *, const pthread_attr_t *,
                           void *(*) (void *), void *);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr,
                       void *(*start) (void *), void *arg)
{
  if (threads_left == 0) {
    if (last_pool != NULL)
      let_worker_fail(last_pool);
    return EAGAIN;
  }
  if (threads_left > 0)
    threads_left--;
  if (threads_wait) {
    waiting_thread *const waiting = malloc(sizeof *waiting);
    *waiting = (waiting_thread) { start, arg };
    return __real_pthread_create(thread, attr, wait_and_start, waiting);
  }
  return __real_pthread_create(thread, attr, start, arg);
}

static void
check_thread_failure (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_error err;
  rs_pool_info info;
  const rs_pool_options o = { .min = 3, .max = 4 };
  threads_left = 0;
  CHECK(rs_pool_open(&o, &pool, &err) == RS_ETHREAD);
  CHECK(strstr(err.text, "cannot create a worker thread") != NULL);
  CHECK(pool == NULL);

  threads_left = 1;
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  rs_pool_info_get(pool, &info);
  CHECK(info.workers == 1);
  CHECK(info.failed_workers == 1);
  CHECK(strstr(info.failure, "cannot create a worker thread") != NULL);
  CHECK(result_of(submit(pool, L, "return 7", 0), L) == 7);
  rs_pool_unref(pool);
  threads_left = -1;
}

/* Jobs that wait for one another need a further worker when they are too deep
   for one: where there is none the innermost job fails, and not the rest of
   what is queued. */
static void
check_nesting_without_threads (lua_State *L)
{
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  int n = 0;
  REQUIRE(rs_initial_state_add_preload(is, "parallel", luaopen_parallel,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  const rs_pool_options o = { .max = 1, .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, NULL) == RS_OK);
  rs_initial_state_unref(is);
  threads_left = 0;
  rs_job *const job = submit(pool, L,
    "local function f (n) "
    "  return n > 0 and parallel.run(f, n - 1) + 1 or 0 "
    "end "
    "local other = parallel.spawn 'return 7' "
    "local good, why = pcall(f, 40) "
    "return tostring(why), f(5) + other:get()", 0);
  CHECK(rs_job_wait(job, L, 60) == RS_OK);
  CHECK(rs_job_push(job, L, &n) == RS_OK && n == 2);
  CHECK(strstr(lua_tostring(L, -2), "cannot create a worker thread") != NULL);
  CHECK(lua_tointeger(L, -1) == 12);
  lua_pop(L, n);
  rs_job_unref(job);
  threads_left = -1;
  CHECK(result_of(submit(pool, L,
    "local function f (n) "
    "  return n > 0 and parallel.run(f, n - 1) + 1 or 0 "
    "end "
    "return f(40)", 0), L) == 40);
  rs_pool_unref(pool);
}

/* What needs the thread of the timers is refused while there is none: it would
   run without its limit.  Then the same pool takes it. */
static void
check_timer_failure (lua_State *L)
{
  const rs_job_options jobs[] = { { .timeout = 9 }, { .deadline = 9 },
                                  { .timeout = 9, .retries = 1 } };
  const rs_batch_options batches[] = { { .timeout = 9 }, { .deadline = 9 } };
  const rs_pool_options o = { .max = 1 };
  rs_pool *pool = NULL;
  rs_job *job;
  rs_batch *batch;
  rs_error err;
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  for (threads_left = 0; threads_left >= -1; threads_left--) {
    const int expected = threads_left == 0 ? RS_ETHREAD : RS_OK;
    for (size_t i = 0; i < sizeof jobs / sizeof jobs[0]; i++) {
      lua_pushliteral(L, "return 1");
      err.text[0] = '\0';
      const int status = rs_submit(pool, L, 0, &jobs[i], &job, &err);
      CHECK(status == expected);
      CHECK(status == RS_OK || strstr(err.text, jobs[i].timeout > 0
                                                ? "the time-out"
                                                : "the deadline") != NULL);
      if (status == RS_OK)
        CHECK(result_of(job, L) == 1);
    }
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
      lua_pushliteral(L, "return 1");
      const int status = rs_batch_open(pool, L, 0, &batches[i], &batch, &err);
      CHECK(status == expected);
      if (status == RS_OK)
        rs_batch_close(batch, L);
    }
    CHECK(result_of(submit(pool, L, "return 2", 0), L) == 2);
  }
  threads_left = -1;
  rs_pool_unref(pool);
}

/* What has reached a limit is stopped by force at once, where there is no
   thread that would do so after the grace time. */
static void
check_limit_without_timer (lua_State *L)
{
  const rs_pool_options o = { .max = 1, .instructions = 100000 };
  rs_pool *pool = NULL;
  rs_job_info info;
  REQUIRE(rs_pool_open(&o, &pool, NULL) == RS_OK);
  threads_left = 0;
  rs_job *const job = submit(pool, L, "while true do "
                                      "pcall(function () while true do end "
                                      "end) end", 0);
  CHECK(rs_job_wait(job, L, 60) == RS_OK);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_FAILED);
  CHECK(info.reason != NULL && strcmp(info.reason, "instruction_limit") == 0);
  rs_job_unref(job);
  threads_left = -1;
  CHECK(result_of(submit(pool, L, "return 2", 0), L) == 2);
  rs_pool_unref(pool);
}

/* A pool whose first worker, in 'open', stands at the gate. */
static rs_pool *
opening_pool (lua_CFunction open, unsigned max)
{
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  gate_close();
  REQUIRE(is != NULL);
  REQUIRE(rs_initial_state_add_preload(is, "gate", open, RS_PRELOAD_GLOBAL
                                                         | RS_PRELOAD_SURE)
          == RS_OK);
  const rs_pool_options o = { .max = max, .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, NULL) == RS_OK);
  gate_await(1);
  rs_initial_state_unref(is);
  return pool;
}

static int
fail_at_gate (lua_State *L)
{
  wait_at_gate(L);
  return luaL_error(L, "no");
}

/* A job that waits for a worker which fails, while no thread is given for
   another one, fails, too. */
static void
check_no_worker_left (lua_State *L)
{
  rs_pool *const pool = opening_pool(fail_at_gate, 2);
  rs_job *first, *second;
  rs_error err;
  first = submit(pool, L, "return 1", 0);
  REQUIRE(first != NULL);
  threads_left = 0;
  last_pool = pool;
  lua_pushliteral(L, "return 2");
  CHECK(rs_submit(pool, L, 0, NULL, &second, &err) == RS_ETHREAD);
  last_pool = NULL;
  threads_left = -1;
  CHECK(rs_job_wait(first, NULL, 60) == RS_OK);
  CHECK(state_of(first) == RS_JOB_FAILED);
  rs_job_unref(first);
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------ jobs, errors */

static void
check_jobs (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_error err;
  rs_job *job = NULL;
  int n = 0;
  REQUIRE(rs_pool_open(NULL, &pool, NULL) == RS_OK);

  lua_pushinteger(L, 12);
  CHECK(result_of(submit(pool, L, "local x = ...; return x * x", 1), L)
        == 144);

  job = submit(pool, L, "error { code = 3 }", 0);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  CHECK(state_of(job) == RS_JOB_FAILED);
  CHECK(rs_job_push(job, L, &n) == RS_EFAILED && n == 2);
  CHECK(lua_getfield(L, -2, "code") == LUA_TNUMBER);
  CHECK(strstr(lua_tostring(L, -2), "stack traceback") != NULL);
  lua_settop(L, 0);
  CHECK(rs_job_push(job, L, &n) == RS_EFAILED && n == 2);  /* once more */
  lua_settop(L, 0);
  rs_job_unref(job);

  lua_pushliteral(L, "return 1 +");
  CHECK(rs_submit(pool, L, 0, NULL, &job, &err) == RS_EINVAL);
  CHECK(lua_gettop(L) == 0);
  lua_pushliteral(L, "\033Lua");
  CHECK(rs_submit(pool, L, 0, NULL, &job, &err) == RS_EINVAL);
  CHECK(strstr(err.text, "bytecode") != NULL);
  lua_pushboolean(L, 1);
  CHECK(rs_submit(pool, L, 0, NULL, &job, &err) == RS_EINVAL);
  lua_pushliteral(L, "return ...");
  lua_newuserdatauv(L, 1, 0);
  CHECK(rs_submit(pool, L, 1, NULL, &job, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "argument 1: cannot transfer a userdata") != NULL);
  CHECK(lua_gettop(L) == 0);

  rs_pool *other = rs_pool_ref(pool);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  lua_pushliteral(L, "return 1");
  CHECK(rs_submit(other, L, 0, NULL, &job, &err) == RS_ECLOSED);
  rs_pool_unref(other);
}

static void
check_cancel (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  int n = 0;
  gate_close();
  rs_job *const first = submit(pool, L, "wait_at_gate(); return 1", 0);
  rs_job *const second = submit(pool, L, "return 2", 0);
  gate_await(1);
  CHECK(rs_job_push(first, L, &n) == RS_EBUSY);
  CHECK(rs_job_wait(first, L, 0) == RS_ETIMEOUT);
  CHECK(rs_job_wait(first, L, 0.001) == RS_ETIMEOUT);
  CHECK(rs_job_cancel(second, -1) == RS_OK);
  CHECK(state_of(second) == RS_JOB_CANCELLED);
  CHECK(rs_job_cancel(second, -1) == RS_EDONE);
  CHECK(rs_job_push(second, L, &n) == RS_EFAILED && n == 2);
  lua_settop(L, 0);
  CHECK(rs_job_cancel(first, -1) == RS_OK);
  CHECK(state_of(first) == RS_JOB_STOPPING);
  gate_open();
  CHECK(rs_job_wait(first, L, RS_FOREVER) == RS_OK);
  CHECK(state_of(first) == RS_JOB_CANCELLED);
  rs_job_unref(first);
  rs_job_unref(second);
  rs_pool_unref(pool);
}

/* A worker that does not come back is left behind, ends later, and frees
   what it has; a job's handle outlives the pool. */
static void
check_left_behind (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  rs_pool_info info;
  gate_close();
  rs_job *const first = submit(pool, L, "wait_at_gate(); return 1", 0);
  rs_job *const second = submit(pool, L, "return 2", 0);
  gate_await(1);
  CHECK(rs_pool_close(pool, 0) == RS_ETIMEOUT);
  rs_pool_info_get(pool, &info);
  CHECK(info.stuck == 1 && info.lost_workers == 1);
  CHECK(info.queued == 0);
  CHECK(state_of(second) == RS_JOB_CANCELLED);
  CHECK(state_of(first) == RS_JOB_LOST);
  CHECK(rs_job_cancel(first, -1) == RS_EDONE);
  rs_events *const events = rs_events_new();
  CHECK(rs_pool_shut(pool, events) == RS_OK);
  gate_open();
  do {
    CHECK(rs_events_wait(events, 60) == RS_OK);
    rs_pool_info_get(pool, &info);
  } while (info.stuck > 0 && failed == 0);
  rs_events_unref(events);
  rs_pool_unref(pool);
  rs_job_unref(first);
  rs_job_unref(second);
}

/* All that are left behind are counted, once. */
static void
check_count_of_lost (lua_State *L)
{
  enum { N = 8 };
  rs_pool *const pool = gated_pool(1, N);
  rs_pool_info info;
  rs_job *jobs[N];
  gate_close();
  for (int i = 0; i < N; i++)
    jobs[i] = submit(pool, L, "wait_at_gate()", 0);
  gate_await(N);
  CHECK(rs_pool_close(pool, 0) == RS_ETIMEOUT);
  rs_pool_info_get(pool, &info);
  CHECK(info.lost_workers == N && info.stuck == N);
  CHECK(info.ended[RS_JOB_LOST] == N);
  for (int i = 0; i < N; i++)
    rs_job_unref(jobs[i]);
  gate_open();
  do
    rs_pool_info_get(pool, &info);
  while (info.stuck > 0);
  CHECK(info.lost_workers == N);
  rs_pool_unref(pool);
}

/* The only worker of a pool is lost, and the system gives no other one: what
   is queued waits for it to come back.  'again': there is one then. */
static void
check_lost_without_threads (lua_State *L, bool again)
{
  const rs_job_options limited = { .timeout = 1000 };
  rs_pool *const pool = gated_pool(1, 1);
  rs_pool_info info;
  rs_job_info lost;
  rs_job *first = NULL;
  rs_error err;
  int n = 0;
  gate_close();
  lua_pushliteral(L, "wait_at_gate()");  /* the thread of the timers begins */
  REQUIRE(rs_submit(pool, L, 0, &limited, &first, &err) == RS_OK);
  rs_job *const second = submit(pool, L, "return 2", 0);
  gate_await(1);
  threads_left = 0;
  CHECK(rs_job_cancel(first, 0) == RS_OK);
  CHECK(rs_job_wait(first, L, RS_FOREVER) == RS_OK);
  rs_job_info_get(first, &lost);
  CHECK(lost.state == RS_JOB_LOST && lost.failure != NULL);
  CHECK(lost.failure != NULL
        && strcmp(lost.failure, "(chunk):1: did not come back from "
                                "'wait_at_gate' (C function)") == 0);
  rs_job *const third = submit(pool, L, "return 3", 0);
  REQUIRE(third != NULL);
  do
    rs_pool_info_get(pool, &info);
  while (info.workers > 0);  /* the one that has no thread counts */
  CHECK(info.lost_workers == 1 && info.stuck == 1);
  CHECK(state_of(second) == RS_JOB_QUEUED && state_of(third) == RS_JOB_QUEUED);
  if (again)
    threads_left = -1;
  gate_open();
  CHECK(rs_job_wait(second, L, RS_FOREVER) == RS_OK);
  CHECK(rs_job_wait(third, L, RS_FOREVER) == RS_OK);
  threads_left = -1;
  CHECK(state_of(second) == (again ? RS_JOB_COMPLETED : RS_JOB_FAILED));
  CHECK(state_of(third) == (again ? RS_JOB_COMPLETED : RS_JOB_FAILED));
  rs_job_push(third, L, &n);
  CHECK(again ? lua_tointeger(L, 1) == 3
              : strstr(lua_tostring(L, 1), "cannot create a worker thread")
                != NULL);
  lua_settop(L, 0);
  rs_job_unref(first);
  rs_job_unref(second);
  rs_job_unref(third);
  rs_pool_unref(pool);
}

/* ---------------------------------------------------------------- stopping */

static volatile sig_atomic_t heard;

static void
hear (int signal)
{
  (void) signal;
  heard++;
}

static bool
refuses (lua_State *L, const rs_job_options *o, rs_pool *pool, int expected,
        const char *text)
{
  rs_error err = { .text = "" };
  rs_job *job = NULL;
  lua_pushliteral(L, "return 1");
  const int status = rs_submit(pool, L, 0, o, &job, &err);
  return status == expected && job == NULL && lua_gettop(L) == 0
      && strstr(err.text, text) != NULL;
}

/* Options that make no sense, a full queue, a signal that the program has a
   handler for, batches that are cancelled. */
static void
check_stopping (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_error err;
  const struct sigaction action = { .sa_handler = hear };
  sigaction(SIGUSR1, &action, NULL);
  const rs_pool_options bad = { .signal = SIGKILL };
  CHECK(rs_pool_open(&bad, &pool, &err) == RS_EINVAL);
  CHECK(strstr(err.text, "signal (9)") != NULL);
  const rs_pool_options o = {
    .max = 1, .signal = SIGUSR1, .queue_jobs = 1
  };
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);

  const rs_job_options times[] = {
    { .timeout = -1 }, { .deadline = -1 }, { .priority = 11 },
    { .retry_on = 32 }
  };
  const char *const texts[] = {
    "timeout", "deadline", "priority", "retry_on"
  };
  for (int i = 0; i < 4; i++)
    CHECK(refuses(L, &times[i], pool, RS_EINVAL, texts[i]));

  rs_job *const busy = submit(pool, L, "while true do tostring {} end", 0);
  while (state_of(busy) == RS_JOB_QUEUED)
    sched_yield();
  rs_job *const next = submit(pool, L, "return 7", 0);
  CHECK(refuses(L, NULL, pool, RS_EFULL, "full"));
  rs_events *const events = rs_events_new();
  CHECK(rs_pool_await_room(pool, events) == RS_OK);
  CHECK(rs_events_wait(events, 0) == RS_ETIMEOUT);
  CHECK(rs_job_cancel(busy, -1) == RS_OK);
  CHECK(rs_events_wait(events, RS_FOREVER) == RS_OK);
  rs_job_wait(busy, NULL, RS_FOREVER);
  CHECK(state_of(busy) == RS_JOB_CANCELLED);
  CHECK(result_of(next, L) == 7);
  CHECK(heard == 0);
  raise(SIGUSR1);
  CHECK(heard == 1);
  rs_job_unref(busy);

  rs_batch *batch = NULL;
  rs_record record;
  const rs_batch_options many = { .flags = RS_BATCH_CONTINUE, .chunk = 1 };
  lua_pushliteral(L, "while true do tostring {} end");
  REQUIRE(rs_batch_open(pool, L, 0, &many, &batch, &err) == RS_OK);
  for (int i = 0; i < 2; i++) {
    lua_pushinteger(L, i);
    CHECK(rs_batch_add(batch, L, 1, &err) == RS_OK);
    CHECK(rs_batch_flush(batch, &err) == RS_OK);
  }
  rs_batch_cancel(batch, 0);
  CHECK(rs_batch_room(batch) == 0);
  CHECK(rs_batch_finish(batch, &err) == RS_OK);
  int cancelled = 0;
  while (rs_batch_wait(batch, L, RS_FOREVER) == RS_OK) {
    while (rs_batch_next(batch, L, &record) == RS_OK)
      cancelled += record.state == RS_JOB_CANCELLED
                && strcmp(record.reason, "cancelled") == 0;
  }
  CHECK(cancelled == 2);
  lua_settop(L, 0);
  rs_batch_close(batch, L);
  rs_pool_cancel(pool, 0);
  rs_pool_unref(pool);
  rs_events_unref(events);
  signal(SIGUSR1, SIG_DFL);
}

/* resume(f): as a C module does it that knows nothing of us */
static int
resume_alone (lua_State *L)
{
  int n;
  lua_State *const co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushinteger(L, lua_resume(co, L, 0, &n));
  return 1;
}

static int
open_resume (lua_State *L)
{
  lua_register(L, "resume_alone", resume_alone);
  lua_pushboolean(L, 1);
  return 1;
}

/* Coroutines that C code resumes by itself are stopped by the allocator. */
static void
check_foreign_coroutine (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_pool_info info;
  rs_initial_state *const is = rs_initial_state_new();
  REQUIRE(rs_initial_state_add_preload(is, "alone", open_resume,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  const rs_pool_options o = { .max = 1, .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, NULL) == RS_OK);
  rs_initial_state_unref(is);
  rs_job *const job = submit(pool, L, "resume_alone(function () while true do "
                             "tostring {} end end) return 1", 0);
  while (state_of(job) == RS_JOB_QUEUED)
    sched_yield();
  CHECK(rs_job_cancel(job, 0.01) == RS_OK);
  rs_job_wait(job, NULL, RS_FOREVER);
  CHECK(state_of(job) == RS_JOB_CANCELLED);
  rs_pool_info_get(pool, &info);
  CHECK(info.lost_workers == 0);
  rs_job_unref(job);
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------ small blocks */

/* Blocks of random sizes, taken and given back in any order, keep what is
   written to them, and leave one region at most. */
static void
check_slab (void)
{
  enum { BLOCKS = 4000, TURNS = 200000 };
  static struct {
    unsigned char *at, mark;
    size_t size;
  } b[BLOCKS];
  unsigned seed = 7;
  size_t wrong = 0;
  rs_slab slab;
  rs_slab_init(&slab);
  for (int turn = 0; turn < TURNS; turn++) {
    seed = seed * 1664525 + 1013904223;
    const unsigned i = (seed >> 8) % BLOCKS;
    if (b[i].at != NULL) {
      for (size_t k = 0; k < b[i].size; k++)
        wrong += b[i].at[k] != b[i].mark;
      rs_slab_give(&slab, b[i].at, b[i].size);
      b[i].at = NULL;
    }
    else {
      b[i].size = 1 + (seed >> 20) % RS_SLAB_MAX;
      b[i].mark = (unsigned char) turn;
      b[i].at = rs_slab_take(&slab, b[i].size);
      REQUIRE(b[i].at != NULL);
      wrong += ((size_t) b[i].at & (RS_SLAB_STEP - 1)) != 0;
      memset(b[i].at, b[i].mark, b[i].size);
    }
  }
  CHECK(wrong == 0);
  CHECK(slab.count > 4);
  for (int i = 0; i < BLOCKS; i++) {
    if (b[i].at != NULL)
      rs_slab_give(&slab, b[i].at, b[i].size);
  }
  CHECK(slab.vacant == slab.count && slab.count <= 2);
  rs_slab_fini(&slab);
}

/* ------------------------------------------------------- many host threads */

static void *
host_thread (void *arg)
{
  rs_pool *const pool = arg;
  lua_State *const L = luaL_newstate();
  intptr_t wrong = 0;
  for (int i = 1; i <= 200; i++) {
    lua_pushinteger(L, i);
    wrong += result_of(submit(pool, L, "local x = ...; return x + 1", 1), L)
          != i + 1;
  }
  rs_pool_unref(pool);
  lua_close(L);
  return (void *) wrong;
}

static void
check_host_threads (void)
{
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  rs_pool *pool = NULL;
  const rs_pool_options o = { .max = 3 };
  REQUIRE(rs_pool_open(&o, &pool, NULL) == RS_OK);
  for (int i = 0; i < THREADS; i++)
    REQUIRE(pthread_create(&threads[i], NULL, host_thread, rs_pool_ref(pool))
            == 0);
  rs_pool_unref(pool);
  for (int i = 0; i < THREADS; i++) {
    void *wrong = NULL;
    pthread_join(threads[i], &wrong);
    CHECK(wrong == NULL);
  }
}

/* ----------------------------------------------------------------- batches */

static rs_batch *
open_batch (rs_pool *pool, lua_State *L, const char *source,
            const rs_batch_options *o)
{
  rs_batch *batch = NULL;
  rs_error err;
  lua_pushstring(L, source);
  REQUIRE(rs_batch_open(pool, L, 0, o, &batch, &err) == RS_OK);
  return batch;
}

static void
check_batches (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_record rec;
  rs_batch_info info;
  REQUIRE(rs_pool_open(NULL, &pool, NULL) == RS_OK);

  /* All of a range comes back, each item once, with its own index. */
  const rs_batch_options o = { .total = 10000, .flags = RS_BATCH_RECORDS };
  rs_batch *batch = open_batch(pool, L, "return (...) * 2, 'x'", &o);
  lua_Integer next = 1, sum = 0;
  size_t count = 0;
  bool right = true;
  for (;;) {
    size_t room;
    while (next <= 10000 && (room = rs_batch_room(batch)) > 0) {
      const size_t left = (size_t) (10000 - next) + 1;
      const size_t n = room < left ? room : left;
      rs_batch_add_range(batch, next, 1, n, NULL);
      rs_batch_flush(batch, NULL);
      next += (lua_Integer) n;
    }
    if (next > 10000)
      rs_batch_finish(batch, NULL);
    if (rs_batch_wait(batch, NULL, RS_FOREVER) == RS_EDONE)
      break;
    while (rs_batch_next(batch, L, &rec) == RS_OK) {
      right &= rec.state == RS_JOB_COMPLETED && rec.n == 2
            && rec.duration >= 0 && rec.queued >= 0 && rec.worker > 0
            && lua_tointeger(L, -2) == 2 * rec.index;
      sum += lua_tointeger(L, -2);
      count++;
      lua_settop(L, 0);
    }
  }
  CHECK(right);
  CHECK(count == 10000);
  CHECK(sum == 10000 * (lua_Integer) 10001);
  rs_batch_info_get(batch, &info);
  CHECK(info.added == 10000 && info.finished == 10000 && info.failed == 0);
  rs_batch_close(batch, L);

  /* Nothing in flight, nothing to wait for. */
  batch = open_batch(pool, L, "return 1", NULL);
  CHECK(rs_batch_wait(batch, NULL, 0) == RS_EBUSY);
  CHECK(rs_batch_finish(batch, NULL) == RS_OK);
  CHECK(rs_batch_wait(batch, NULL, 0) == RS_EDONE);
  CHECK(rs_batch_room(batch) == 0);
  lua_pushinteger(L, 1);
  CHECK(rs_batch_add(batch, L, 1, NULL) == RS_ECLOSED);
  CHECK(lua_gettop(L) == 0);
  rs_batch_close(batch, L);

  /* A refused item takes nothing with it. */
  rs_error err;
  batch = open_batch(pool, L, "local a, b = ...; return a", NULL);
  lua_pushinteger(L, 5);
  CHECK(rs_batch_add(batch, L, 1, &err) == RS_OK);
  lua_pushinteger(L, 6);
  lua_newthread(L);
  CHECK(rs_batch_add(batch, L, 2, &err) == RS_EREFUSED);
  CHECK(strstr(err.text, "item 2: value 2: cannot transfer a thread") != NULL);
  CHECK(rs_batch_finish(batch, &err) == RS_OK);
  CHECK(rs_batch_wait(batch, NULL, RS_FOREVER) == RS_OK);
  CHECK(rs_batch_next(batch, L, &rec) == RS_OK && rec.index == 1
        && lua_tointeger(L, -1) == 5);
  CHECK(rs_batch_next(batch, L, &rec) == RS_EDONE);
  lua_settop(L, 0);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
}

/* Arrays go in, and results come out, many at a call. */
static void
check_arrays (lua_State *L)
{
  enum { N = 5000 };
  rs_pool *pool = NULL;
  rs_record rec;
  rs_error err;
  const rs_pool_options limited = { .queue_jobs = 1 };
  REQUIRE(rs_pool_open(&limited, &pool, NULL) == RS_OK);
  CHECK(rs_pool_is_limited(pool));
  rs_pool_unref(pool);
  REQUIRE(rs_pool_open(NULL, &pool, NULL) == RS_OK);
  CHECK(!rs_pool_is_limited(pool));
  const rs_batch_options o = { .total = N, .flags = RS_BATCH_CONTINUE };
  rs_batch *batch = open_batch(pool, L, "local x = ... "
    "if type(x) == 'number' and x % 100 == 0 then error('hundred') end "
    "return x", &o);
  lua_newtable(L);                     /* 1: items */
  for (int i = 1; i <= N; i++) {
    if (i % 7 == 0)
      lua_pushnumber(L, i + 0.5);
    else if (i % 1000 == 1)
      lua_newtable(L);
    else
      lua_pushinteger(L, i);
    lua_rawseti(L, 1, i);
  }
  lua_newtable(L);                     /* 2: results */
  lua_Integer next = 1;
  size_t added, taken = 0, single = 0, bad = 0;
  bool right = true;
  for (;;) {
    if (next <= N) {
      CHECK(rs_batch_add_array(batch, L, 1, next, (size_t) (N + 1 - next),
                               &added, &err) == RS_OK);
      next += (lua_Integer) added;
    }
    if (next > N)
      rs_batch_finish(batch, NULL);
    if (rs_batch_wait(batch, NULL, RS_FOREVER) == RS_EDONE)
      break;
    while (rs_batch_next(batch, L, &rec) == RS_OK) {
      if (rec.state == RS_JOB_COMPLETED) {
        lua_rawseti(L, 2, rec.index);
        single++;
      }
      else {
        right &= rec.state == RS_JOB_FAILED && rec.index % 100 == 0;
        bad++;
      }
      lua_settop(L, 2);
      taken += rs_batch_take(batch, L, 2);
      right &= lua_gettop(L) == 2;
    }
    CHECK(rs_batch_take(batch, L, 2) == 0);
  }
  /* Those of 100 that are multiples of 7 as well are floats. */
  CHECK(right && bad == N / 100 - N / 700);
  CHECK(taken > 0 && taken + single + bad == N);
  for (int i = 1; i <= N; i++) {
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, 2, i);
    if (i % 100 == 0 && i % 7 != 0)
      right &= lua_isnil(L, -1);
    else if (lua_istable(L, -2))
      right &= lua_istable(L, -1);
    else
      right &= lua_rawequal(L, -1, -2)
            && lua_isinteger(L, -1) == lua_isinteger(L, -2);
    lua_settop(L, 2);
  }
  CHECK(right);
  rs_batch_close(batch, L);
  lua_settop(L, 0);

  /* What is refused says which item it was; those before it were added. */
  batch = open_batch(pool, L, "return ...", NULL);
  lua_newtable(L);
  lua_pushinteger(L, 1);
  lua_rawseti(L, 1, 1);
  lua_newthread(L);
  lua_rawseti(L, 1, 2);
  size_t before = 0;
  int status = RS_OK;
  while (status == RS_OK && before < 2) {
    status = rs_batch_add_array(batch, L, 1, (lua_Integer) before + 1,
                                2 - before, &added, &err);
    before += added;
    if (status == RS_OK)
      CHECK(rs_batch_wait(batch, NULL, RS_FOREVER) == RS_OK);
  }
  CHECK(status == RS_EREFUSED && before == 1);
  CHECK(strstr(err.text, "item 2: cannot transfer a thread") != NULL);
  CHECK(lua_gettop(L) == 1);
  rs_batch_close(batch, L);
  lua_settop(L, 0);
  rs_pool_unref(pool);
}

/* A state for a host: warnings, and memory that goes with it. */
static void
check_host_state (void)
{
  lua_State *const L = rs_host_open();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  lua_warning(L, "@on", 0);
  lua_warning(L, "@off", 0);
  CHECK(luaL_dostring(L, "local t = {} for i = 1, 10000 do t[i] = { i } end"
                         " t = nil collectgarbage()"
                         " return collectgarbage 'count'") == LUA_OK);
  CHECK(lua_tonumber(L, -1) < 1000);
  CHECK(luaL_dostring(L, "error { 1 }") != LUA_OK && lua_istable(L, -1));
  rs_host_close(L);
  rs_host_close(NULL);
}

/* Closed in the midst: what runs ends, what is queued never starts. */
static void
check_closed_batch (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  const rs_batch_options o = { .chunk = 1 };
  rs_pool_info info;
  gate_close();
  rs_batch *const batch = open_batch(pool, L, "wait_at_gate(); return ...",
                                     &o);
  for (lua_Integer i = 1; rs_batch_room(batch) > 0; i++) {
    rs_batch_add_range(batch, i, 1, 1, NULL);
    rs_batch_flush(batch, NULL);
  }
  gate_await(1);
  rs_batch_close(batch, L);
  rs_pool_info_get(pool, &info);
  CHECK(info.queued == 0);
  gate_open();
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_info_get(pool, &info);
  CHECK(info.finished == 1);
  rs_pool_unref(pool);
}

/* ---------------------------------------------------------- initial states */

static void
check_initial_state (lua_State *L)
{
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  rs_error err;
  REQUIRE(is != NULL);
  CHECK(rs_initial_state_set_libs(is, 4096) == RS_EINVAL);
  CHECK(rs_initial_state_set_libs(is, RS_LIB_BASE | RS_LIB_PACKAGE)
        == RS_OK);
  lua_pushinteger(L, 41);
  CHECK(rs_initial_state_add_variable(is, "answer", L, &err) == RS_OK);
  lua_newthread(L);
  CHECK(rs_initial_state_add_variable(is, "bad", L, &err) == RS_EREFUSED);
  lua_pushliteral(L, "return { one = 1 }");
  CHECK(rs_initial_state_add_loader(is, "numbers", L, &err) == RS_OK);
  lua_pushliteral(L, "answer = answer + require 'numbers'.one");
  CHECK(rs_initial_state_set_init(is, L, &err) == RS_OK);
  CHECK(lua_gettop(L) == 0);
  const rs_pool_options o = { .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  CHECK(rs_initial_state_add_module(is, "late") == RS_EINVAL);
  CHECK(result_of(submit(pool, L, "return answer", 0), L) == 42);
  CHECK(result_of(submit(pool, L, "return string == nil and 1 or 0", 0), L)
        == 1);
  CHECK(rs_pool_current(L) == NULL);
  rs_pool_unref(pool);
  rs_initial_state_unref(is);

  rs_initial_state *const broken = rs_initial_state_new();
  rs_initial_state_add_module(broken, "no_such_module");
  const rs_pool_options bad = { .min = 2, .max = 2, .initial_state = broken };
  CHECK(rs_pool_open(&bad, &pool, &err) == RS_EFAILED);
  CHECK(strstr(err.text, "module 'no_such_module' not found") != NULL);
  rs_initial_state_unref(broken);

  const rs_pool_options odd[] = {
    { .min = 3, .max = 2 }, { .reset = 9 }, { .reset = -1 },
  };
  for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
    CHECK(rs_pool_open(&odd[i], &pool, &err) == RS_EINVAL);
}

static int
open_at_gate (lua_State *L)
{
  wait_at_gate(L);
  lua_pushboolean(L, 1);
  return 1;
}

/* Who opens a pool waits for a worker, unless nothing can go wrong there; jobs
   wait for it in any case. */
static void
check_sure (lua_State *L)
{
  static const struct {
    unsigned flags;
    size_t memory;
    int status;          /* while the worker opens */
  } cases[] = {
    { RS_PRELOAD_GLOBAL | RS_PRELOAD_SURE, 0, RS_OK },
    { RS_PRELOAD_GLOBAL | RS_PRELOAD_SURE, 1 << 26, RS_EBUSY },
    { RS_PRELOAD_GLOBAL, 0, RS_EBUSY },
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    rs_initial_state *const is = rs_initial_state_new();
    rs_pool *pool = NULL;
    rs_job *job = NULL;
    rs_error err;
    gate_close();
    REQUIRE(is != NULL);
    REQUIRE(rs_initial_state_add_preload(is, "gate", open_at_gate,
                                         cases[i].flags) == RS_OK);
    const rs_pool_options o = { .max = 1, .memory = cases[i].memory,
                                .initial_state = is };
    REQUIRE(rs_pool_start(&o, &pool, &err) == RS_OK);
    gate_await(1);
    CHECK(rs_pool_await_open(pool, NULL, 0, &err) == cases[i].status);
    if (cases[i].status == RS_OK) {
      job = submit(pool, L, "return 1", 0);
      REQUIRE(job != NULL);
      CHECK(state_of(job) == RS_JOB_QUEUED);
    }
    gate_open();
    CHECK(rs_pool_await_open(pool, NULL, RS_FOREVER, &err) == RS_OK);
    CHECK(job == NULL || result_of(job, L) == 1);
    CHECK(result_of(submit(pool, L, "return 2", 0), L) == 2);
    rs_pool_unref(pool);
    rs_initial_state_unref(is);
  }
}

/* The worker takes longer than 'close' has to wait for it. */
static void *
open_gate_of_closed (void *pool)
{
  const struct timespec longer = { .tv_nsec = 5000000 };
  rs_pool_info info;
  do
    rs_pool_info_get(pool, &info);
  while (!info.closed);
  nanosleep(&longer, NULL);
  gate_open();
  return NULL;
}

/* Nothing is cut off where a worker that still opens has no job. */
static void
check_close_while_opening (void)
{
  rs_pool *const pool = opening_pool(open_at_gate, 1);
  pthread_t thread;
  REQUIRE(pthread_create(&thread, NULL, open_gate_of_closed, pool) == 0);
  CHECK(rs_pool_close(pool, 0) == RS_OK);
  pthread_join(thread, NULL);
  rs_pool_unref(pool);
}

/* --------------------------------------------------------------- sandboxes */

/* In a runspace: the sandbox there, as numbers. */
static int
tell_sandbox (lua_State *L)
{
  rs_sandbox s = { .files = -1 };
  lua_pushboolean(L, rs_sandbox_get(L, &s));
  lua_pushinteger(L, s.files);
  lua_pushinteger(L, s.forbid);
  lua_pushboolean(L, rs_sandbox_forbids(L, RS_FORBID_PROGRAMS));
  lua_pushstring(L, s.c_modules != NULL ? s.c_modules[0] : NULL);
  return 5;
}

/* In a runspace: a pool for the code there, whose init tries to read and whose
   own sandbox forbids something else. */
static int
open_inner_pool (lua_State *L)
{
  static const char *const names[] = { "more", "lpeg", NULL };
  const rs_sandbox inner = {
    .forbid = RS_FORBID_DEBUG | RS_FORBID_C_MODULES, .c_modules = names,
  };
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  rs_job *job = NULL;
  rs_error err;
  REQUIRE(is != NULL);
  CHECK(rs_initial_state_inherit(is, L) == RS_OK);
  CHECK(rs_initial_state_set_sandbox(is, &inner) == RS_OK);
  CHECK(rs_initial_state_inherit(is, L) == RS_OK);  /* in any order */
  lua_pushliteral(L, "code = select(3, io.open '/dev/null')\n"
                     "assert(debug, 'debug is gone already')");
  CHECK(rs_initial_state_set_init(is, L, &err) == RS_OK);
  const rs_pool_options o = { .initial_state = is };
  if (rs_pool_open(&o, &pool, &err) != RS_OK)
    fprintf(stderr, "%s\n", err.text);
  REQUIRE(pool != NULL);
  rs_initial_state_unref(is);
  CHECK(result_of(submit(pool, L, "return code", 0), L) == EACCES);
  CHECK(result_of(submit(pool, L, "return debug and 1 or 2", 0), L) == 2);
  lua_pushcfunction(L, tell_sandbox);
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  int n = 0;
  CHECK(rs_job_wait(job, NULL, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  CHECK(rs_job_push(job, L, &n) == RS_OK && n == 5);
  rs_job_unref(job);
  return n;
}

/* The five results of 'tell_sandbox', which are popped. */
static void
check_told (rs_job *job, lua_State *L, int files, unsigned forbid,
            const char *name)
{
  int n = 0;
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  REQUIRE(rs_job_push(job, L, &n) == RS_OK && n == 5);
  CHECK(lua_toboolean(L, 1) == (forbid != 0));
  CHECK(lua_tointeger(L, 2) == files);
  CHECK(lua_tointeger(L, 3) == (lua_Integer) forbid);
  CHECK(lua_toboolean(L, 4) == ((forbid & RS_FORBID_PROGRAMS) != 0));
  CHECK(name == NULL ? lua_isnil(L, 5)
                     : strcmp(luaL_optstring(L, 5, ""), name) == 0);
  lua_settop(L, 0);
  rs_job_unref(job);
}

static void
check_sandbox (lua_State *L)
{
  char name[] = "cjson";
  const char *names[] = { name, "lpeg", NULL };
  rs_sandbox s = { .files = RS_FILES_READ, .forbid = 16 };
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  rs_job *job = NULL;
  rs_error err;
  REQUIRE(is != NULL);
  CHECK(rs_initial_state_set_sandbox(is, NULL) == RS_EINVAL);
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_EINVAL);
  s.forbid = RS_FORBID_ALL;
  s.files = 3;
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_EINVAL);
  s.files = -1;
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_EINVAL);
  s.files = RS_FILES_READ;
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_OK);

  /* The last one counts, and is copied. */
  s.files = RS_FILES_NONE;
  s.forbid = RS_FORBID_PROGRAMS | RS_FORBID_C_MODULES;
  s.c_modules = names;
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_OK);
  CHECK(rs_initial_state_inherit(is, L) == RS_OK);  /* nothing, in a host */
  names[1] = NULL;
  name[0] = 'X';
  const rs_pool_options o = { .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  CHECK(rs_initial_state_set_sandbox(is, &s) == RS_EINVAL);
  CHECK(rs_initial_state_inherit(is, L) == RS_EINVAL);
  rs_initial_state_unref(is);
  CHECK(result_of(submit(pool, L, "return (select(3, io.open 'x'))", 0), L)
        == EACCES);
  CHECK(result_of(submit(pool, L, "return debug and 1 or 2", 0), L) == 1);
  lua_pushcfunction(L, tell_sandbox);
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  check_told(job, L, RS_FILES_NONE, RS_FORBID_PROGRAMS | RS_FORBID_C_MODULES,
             "cjson");
  lua_pushcfunction(L, open_inner_pool);
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  check_told(job, L, RS_FILES_NONE,
             RS_FORBID_PROGRAMS | RS_FORBID_C_MODULES | RS_FORBID_DEBUG,
             "lpeg");
  rs_pool_unref(pool);

  REQUIRE(rs_pool_open(NULL, &pool, &err) == RS_OK);
  lua_pushcfunction(L, tell_sandbox);
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  check_told(job, L, -1, 0, NULL);
  rs_pool_unref(pool);
  CHECK(!rs_sandbox_get(L, &s) && s.files == RS_FILES_NONE);
  CHECK(!rs_sandbox_forbids(L, RS_FORBID_ALL));
}

static void
check_names (void)
{
  for (int status = RS_OK; status <= RS_EDONE; status++)
    CHECK(strncmp(rs_status_name(status), "RS_", 3) == 0);
  CHECK(strcmp(rs_status_name(99), "?") == 0);
  CHECK(strcmp(rs_status_message(-1), "unknown status") == 0);
  CHECK(strcmp(rs_job_state_name(RS_JOB_LOST), "lost") == 0);
  CHECK(rs_cpus() >= 1);
}

/* --------------------------------------------------------- streams, events */

/* A C function that tells while it runs; it travels as a pointer. */
static int
talk (lua_State *L)
{
  lua_pushinteger(L, 1);
  rs_task_send(L, RS_STREAM_WARNING, 1);
  lua_pushinteger(L, 2);
  lua_pushliteral(L, "two");
  rs_task_emit(L, "tick", 2);
  lua_pushinteger(L, 3);
  rs_task_send(L, RS_STREAM_ERROR, 1);
  return 0;
}

static bool
readable (int fd)
{
  struct pollfd p = { .fd = fd, .events = POLLIN };
  return poll(&p, 1, 0) == 1;
}

/* The host of a map is not woken by each chunk that ends: half of those that
   are in flight have to. */
static void
check_batch_wakes (lua_State *L)
{
  enum { ITEMS = 4 };    /* as many chunks as are in flight, of one worker */
  rs_events *const events = rs_events_new();
  rs_record rec;
  int hold[2];
  gate_close();
  REQUIRE(events != NULL && pipe(hold) == 0);
  rs_pool *const pool = gated_pool(1, 1);
  /* The worker begins when all chunks are in flight. */
  lua_pushinteger(L, hold[0]);
  rs_job *const first =
    submit(pool, L, "return #io.open('/proc/self/fd/' .. ...):read(1)", 1);
  const rs_batch_options o = { .total = ITEMS, .chunk = 1, .events = events };
  rs_batch *const batch =
    open_batch(pool, L, "if ... > 1 then wait_at_gate() end", &o);
  for (int i = 1; i <= ITEMS; i++) {
    lua_pushinteger(L, i);
    CHECK(rs_batch_add(batch, L, 1, NULL) == RS_OK);
    CHECK(rs_batch_flush(batch, NULL) == RS_OK);
  }
  rs_batch_finish(batch, NULL);
  const int fd = rs_events_fileno(events);
  CHECK(write(hold[1], "x", 1) == 1);
  gate_await(1);
  CHECK(result_of(first, L) == 1);
  CHECK(!readable(fd));  /* the first one has ended */
  gate_open();
  struct pollfd p = { .fd = fd, .events = POLLIN };
  CHECK(poll(&p, 1, 60000) == 1);
  int n = 0;
  while (rs_batch_wait(batch, NULL, RS_FOREVER) != RS_EDONE)
    while (rs_batch_next(batch, L, &rec) == RS_OK) {
      lua_settop(L, 0);
      n++;
    }
  CHECK(n == ITEMS);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
  rs_events_unref(events);
  close(hold[0]);
  close(hold[1]);
}

/* The next thing to be delivered is this one, with 'value' first. */
static void
check_delivery (rs_job *job, lua_State *L, rs_stream stream,
                uint64_t sequence, const char *name, lua_Integer value)
{
  rs_stream_record *const record = rs_job_deliver(job);
  rs_stream_record_info i;
  REQUIRE(record != NULL);
  rs_stream_record_info_get(record, &i);
  CHECK(i.stream == stream);
  CHECK(i.sequence == sequence);
  CHECK(i.source == RS_SOURCE_NONE && i.index == 0 && i.time > 0);
  CHECK(name == NULL ? i.name == NULL : strcmp(i.name, name) == 0);
  const int n = rs_decode(L, i.values);
  CHECK(n >= 1 && lua_tointeger(L, -n) == value);
  lua_pop(L, n);
  CHECK(rs_job_delivered(job) == sequence);
  rs_stream_record_unref(record);
}

static void
check_events (lua_State *L)
{
  rs_pool *pool = NULL;
  rs_job *job = NULL;
  rs_error err;
  rs_job_info info;
  rs_stream stream;
  rs_events *const events = rs_events_new();
  REQUIRE(events != NULL && rs_pool_open(NULL, &pool, &err) == RS_OK);
  CHECK(rs_stream_find("debug", &stream) && stream == RS_STREAM_DEBUG);
  CHECK(!rs_stream_find("event", &stream));
  CHECK(strcmp(rs_stream_name(RS_STREAM_EVENT), "event") == 0);
  const int fd = rs_events_fileno(events);
  CHECK(fd >= 0 && rs_events_fileno(events) == fd && !readable(fd));
  CHECK(rs_events_wait(events, 0) == RS_ETIMEOUT);
  rs_events_wake(events);
  CHECK(readable(fd));
  CHECK(rs_events_wait(events, RS_FOREVER) == RS_OK && !readable(fd));

  const rs_job_options o = {
    .name = "talker",
    .events = events,
    .listen = RS_LISTEN_FINISHED | RS_LISTEN_OWN << 3,
  };
  lua_pushcfunction(L, talk);
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  while (!rs_job_settled(job))
    CHECK(rs_events_wait(events, 60) == RS_OK);
  CHECK(rs_events_pending(events) && readable(fd));
  rs_job *const queued = rs_events_next(events);
  CHECK(queued == job && !rs_events_pending(events));
  rs_job_unref(queued);
  CHECK(rs_events_next(events) == NULL);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_COMPLETED_WITH_ERRORS);
  CHECK(strcmp(info.reason, "error_stream") == 0);
  CHECK(info.sent == 3 && !info.chunk && !info.seen);
  CHECK((info.listen & RS_LISTEN_OWN << 3) != 0);
  check_delivery(job, L, RS_STREAM_WARNING, 1, NULL, 1);
  check_delivery(job, L, RS_STREAM_EVENT, 2, "tick", 2);
  check_delivery(job, L, RS_STREAM_ERROR, 3, NULL, 3);
  CHECK(rs_job_deliver(job) == NULL);
  rs_stream_record *const kept = rs_job_record(job, 1);
  rs_stream_record_info i;
  REQUIRE(kept != NULL);
  rs_stream_record_info_get(kept, &i);
  CHECK(i.sequence == 3);  /* events are not kept */
  rs_stream_record_unref(kept);
  CHECK(rs_job_record(job, 3) == NULL);
  CHECK(rs_events_jobs(events, NULL, 0) == 0);

  rs_job_listen(job, 1u << RS_STREAM_WARNING);  /* some may have happened */
  CHECK(rs_events_pending(events));
  rs_events_close(events);
  CHECK(!rs_events_pending(events));
  rs_job_listen(job, 1u << RS_STREAM_DEBUG);
  CHECK(!rs_events_pending(events));
  rs_job_forget(job);
  CHECK(rs_pool_shut(pool, NULL) != RS_EINVAL);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(rs_pool_shut(pool, NULL) == RS_OK);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

enum { POKES = 2000 };

/* A host that is poked. */
static struct {
  rs_events *events;
  int fd;                /* the host sleeps at the descriptor; or -1 */
  _Atomic bool ready;
  _Atomic unsigned waits;  /* that have ended */
} poked;

static void
poke (int signal)
{
  (void) signal;
  rs_events_poke(poked.events);
}

static void *
wait_for_pokes (void *ud)
{
  (void) ud;
  poked.events = rs_events_new();
  REQUIRE(poked.events != NULL);
  if (poked.fd >= 0)
    poked.fd = rs_events_fileno(poked.events);
  struct pollfd p = { .fd = poked.fd, .events = POLLIN };
  poked.ready = true;
  while (poked.waits < POKES) {
    while (poked.fd >= 0 && poll(&p, 1, -1) < 0)
      CHECK(errno == EINTR);
    if (rs_events_wait(poked.events, poked.fd >= 0 ? 0 : RS_FOREVER) == RS_OK)
      poked.waits++;
  }
  CHECK(rs_events_wait(poked.events, 0) == RS_ETIMEOUT);
  rs_events_unref(poked.events);
  return NULL;
}

/* A poke by a signal handler ends exactly one wait, and so does a wake-up by
   another thread, whatever the host is doing just then. */
static void
check_pokes (bool watched)
{
  const struct sigaction action = { .sa_handler = poke };
  struct sigaction before;
  pthread_t host;
  sigaction(SIGUSR1, &action, &before);
  poked.fd = watched ? 0 : -1;
  poked.ready = false;
  poked.waits = 0;
  REQUIRE(pthread_create(&host, NULL, wait_for_pokes, NULL) == 0);
  while (!poked.ready)
    sched_yield();
  for (unsigned i = 0; i < POKES; i++) {
    const double deadline = rs_deadline(60);
    if (i % 3 > 0)
      pthread_kill(host, SIGUSR1);
    else
      rs_events_wake(poked.events);
    while (poked.waits <= i && rs_remaining(deadline) > 0)
      sched_yield();
    REQUIRE(poked.waits == i + 1);
  }
  pthread_join(host, NULL);
  sigaction(SIGUSR1, &before, NULL);
}

/* ------------------------------------------------------------- scheduler */

/* A job for a scheduler without workers. */
static rs_job *
loose_job (rs_queue *q, rs_message *function, int priority)
{
  const rs_job_options o = { .priority = priority };
  rs_job *const job = rs_job_new(q, function, &o, NULL);
  REQUIRE(job != NULL);
  rs_job_unref(job);  /* the one for the queue is left */
  return job;
}

/* End the job of the worker at 'seat', which is 'job'. */
static void
end_is (rs_sched *s, rs_seat *seat, rs_job *job)
{
  CHECK(rs_seat_job(seat) == job);
  rs_seat_end(s, seat);
  CHECK(rs_seat_job(seat) == NULL);
  rs_job_end_queued(job, 1);
  rs_job_unref(job);
}

/* Free the job at 'ud', which nobody runs. */
static void *
drop_job (void *ud)
{
  rs_job_unref(ud);
  rs_job_unref(ud);
  return NULL;
}

/* What jobs need that nobody runs. */
typedef struct loose {
  rs_queue queue;
  rs_message *function;
  rs_events *events;
} loose;

static void
open_loose (loose *l)
{
  idle_queue(&l->queue, NULL);
  l->function = rs_message_new("", 0, 0);
  l->events = rs_events_new();
  REQUIRE(l->function != NULL && l->events != NULL);
}

static rs_job *
make_loose (loose *l)
{
  const rs_job_options o = { .events = l->events };
  rs_job *const job = rs_job_new(&l->queue, l->function, &o, NULL);
  REQUIRE(job != NULL);
  return job;
}

static void
close_loose (loose *l)
{
  rs_events_unref(l->events);
  CHECK(atomic_load(&l->function->refs) == 1);  /* no job has any */
  rs_message_unref(l->function);
  rs_job_locks_fini(l->queue.locks);
}

/* Jobs have places of their own, whoever frees them, and these are used
   again. */
static void
check_job_memory (void)
{
  enum { JOBS = 5000, ROUNDS = 3 };
  static rs_job *jobs[JOBS];
  loose l;
  open_loose(&l);
  for (int round = 0; round < ROUNDS; round++) {
    bool alone = true;
    for (int i = 0; i < JOBS; i++) {
      jobs[i] = make_loose(&l);
      *rs_job_slot(jobs[i]) = (unsigned) i;
    }
    for (int i = 0; i < JOBS; i++)
      alone &= *rs_job_slot(jobs[i]) == (unsigned) i
               && (uintptr_t) jobs[i] % RS_LINE == 0;
    CHECK(alone);
    CHECK(rs_events_jobs(l.events, NULL, 0) == JOBS);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, drop_job, jobs[0]) == 0);
    pthread_join(thread, NULL);
    for (int i = 1; i < JOBS; i += 2)
      drop_job(jobs[i]);
    CHECK(rs_events_jobs(l.events, NULL, 0) == JOBS / 2 - 1);
    for (int i = 2; i < JOBS; i += 2)
      drop_job(jobs[i]);
    CHECK(rs_events_jobs(l.events, NULL, 0) == 0);
  }
  CHECK(rs_events_memory(l.events)->own.n
        + rs_events_memory(l.events)->others.n < JOBS);
  close_loose(&l);
}

enum { DROPPERS = 3, DROPPED = 3000 };

/* What a thread drops of them: one of so many. */
typedef struct dropper {
  pthread_barrier_t *gate;
  rs_job **jobs;
  int first;
} dropper;

static void *
drop_some (void *ud)
{
  const dropper *const d = ud;
  pthread_barrier_wait(d->gate);
  for (int i = d->first; i < DROPPED; i += DROPPERS)
    drop_job(d->jobs[i]);
  return NULL;
}

/* The same, while several threads free jobs of the same blocks, and their host
   makes others there. */
static void
check_shared_memory (void)
{
  enum { ROUNDS = 10 };
  static rs_job *jobs[DROPPED];
  loose l;
  open_loose(&l);
  for (int round = 0; round < ROUNDS; round++) {
    pthread_barrier_t start;
    pthread_t threads[DROPPERS];
    dropper droppers[DROPPERS];
    for (int i = 0; i < DROPPED; i++) {
      jobs[i] = make_loose(&l);
    }
    pthread_barrier_init(&start, NULL, DROPPERS + 1);
    for (int i = 0; i < DROPPERS; i++) {
      droppers[i] = (dropper) { &start, jobs, i };
      REQUIRE(pthread_create(&threads[i], NULL, drop_some, &droppers[i])
              == 0);
    }
    rs_job *mine[100];
    pthread_barrier_wait(&start);
    for (unsigned i = 0; i < DROPPED; i++) {
      rs_job **const job = &mine[i % 100];
      if (i >= 100)
        drop_job(*job);
      *job = make_loose(&l);
      *rs_job_slot(*job) = i;
    }
    CHECK(rs_events_jobs(l.events, NULL, 0) >= 100);
    for (int i = 0; i < DROPPERS; i++)
      pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    CHECK(rs_events_jobs(l.events, NULL, 0) == 100);
    bool alone = true;
    for (unsigned i = DROPPED - 100; i < DROPPED; i++) {
      alone &= *rs_job_slot(mine[i % 100]) == i;
      drop_job(mine[i % 100]);
    }
    CHECK(alone);
    CHECK(rs_events_jobs(l.events, NULL, 0) == 0);
  }
  close_loose(&l);
}

/* What stands in the queue can be taken away, comes by priority and then by
   age, and what a worker has can be had by reference only. */
static void
check_queue (void)
{
  enum { JOBS = 6 };
  rs_queue q;
  idle_queue(&q, NULL);
  rs_message *const function = rs_message_new("", 0, 0);
  rs_sched s;
  rs_seat seat;
  rs_job *jobs[JOBS];
  rs_sched_init(&s, true);
  rs_seat_init(&seat);
  pthread_mutex_lock(&s.lock);
  rs_sched_enter_locked(&s, &seat);
  CHECK(rs_seat_ref_job_locked(&seat) == NULL);
  for (int i = 0; i < JOBS; i++) {
    jobs[i] = loose_job(&q, function, i == JOBS - 1);
    CHECK(!rs_sched_push_locked(&s, jobs[i]));
  }
  CHECK(s.queued == JOBS && s.calls == JOBS);
  CHECK(rs_sched_claim_locked(&s, jobs[2], RS_CLAIM_TO_RUN));
  CHECK(!rs_sched_claim_locked(&s, jobs[2], RS_CLAIM_TO_RUN));
  rs_job_unref(jobs[2]);
  CHECK(rs_sched_take_locked(&s, &seat));      /* of a higher priority */
  CHECK(rs_seat_job(&seat) == jobs[JOBS - 1]);
  CHECK(rs_sched_running_locked(&s) == 1);
  CHECK(!rs_sched_claim_locked(&s, jobs[JOBS - 1], RS_CLAIM_TO_RUN));
  rs_job *const running = rs_seat_ref_job_locked(&seat);
  CHECK(running == jobs[JOBS - 1] && rs_sched_running_locked(&s) == 1);
  rs_job_unref(running);
  rs_sched_unlock(&s);
  end_is(&s, &seat, jobs[JOBS - 1]);

  pthread_mutex_lock(&s.lock);
  CHECK(rs_sched_running_locked(&s) == 0);
  CHECK(rs_seat_ref_job_locked(&seat) == NULL);
  CHECK(rs_sched_claim_of_locked(&s, (const rs_batch *) &q, RS_CLAIM_TO_RUN)
        == NULL);
  rs_job *const first = rs_sched_claim_of_locked(&s, NULL, RS_CLAIM_TO_RUN);
  CHECK(first == jobs[0]);
  rs_job_unref(first);
  CHECK(rs_sched_take_locked(&s, &seat));
  rs_sched_unlock(&s);
  end_is(&s, &seat, jobs[1]);
  pthread_mutex_lock(&s.lock);
  rs_sched_close_locked(&s);
  for (int i = 3; i < JOBS - 1; i++) {         /* what is queued still runs */
    CHECK(rs_sched_take_locked(&s, &seat));
    rs_sched_unlock(&s);
    end_is(&s, &seat, jobs[i]);
    pthread_mutex_lock(&s.lock);
  }
  CHECK(!rs_sched_take_locked(&s, &seat) && rs_list_empty(&seat.link));
  CHECK(s.queued == 0 && s.calls == 0);
  CHECK(rs_sched_finished_locked(&s) == 4);
  rs_sched_leave_locked(&s, &seat);
  CHECK(s.all == 0 && rs_sched_finished_locked(&s) == 4);
  rs_sched_unlock(&s);
  rs_sched_fini(&s);
  rs_seat_fini(&seat);
  rs_message_unref(function);
  rs_job_locks_fini(q.locks);
}

/* One sleeping worker is woken at a time, the one that sat down last.  When it
   is there it wakes two more for what was queued meanwhile. */
static void
check_waking (void)
{
  enum { SEATS = 4, JOBS = 5 };
  rs_queue q;
  idle_queue(&q, NULL);
  rs_message *const function = rs_message_new("", 0, 0);
  rs_sched s;
  rs_seat seats[SEATS];
  rs_job *jobs[JOBS];
  rs_sched_init(&s, false);
  pthread_mutex_lock(&s.lock);
  for (int i = 0; i < SEATS; i++) {
    rs_seat_init(&seats[i]);
    rs_sched_enter_locked(&s, &seats[i]);
    CHECK(!rs_sched_take_locked(&s, &seats[i]));  /* it sits */
    seats[i].asleep = true;
  }
  for (int i = 0; i < JOBS; i++) {
    jobs[i] = loose_job(&q, function, 0);
    CHECK(rs_sched_push_locked(&s, jobs[i]) == (i == 0));
  }
  CHECK(rs_seat_job(&seats[SEATS - 1]) == jobs[0] && s.sitting == SEATS - 1);
  CHECK(s.waking == 1 && s.queued == JOBS - 1);
  /* A seat that was called does not sleep. */
  CHECK(rs_sched_sleep_locked(&s, &seats[SEATS - 1], RS_NEVER));
  CHECK(s.waking == 2 && s.queued == JOBS - 3 && s.sitting == SEATS - 3);
  CHECK(rs_seat_job(&seats[SEATS - 2]) == jobs[1]);
  CHECK(rs_seat_job(&seats[SEATS - 3]) == jobs[2]);
  CHECK(rs_seat_spin(&seats[SEATS - 2]) && !rs_seat_spin(&seats[0]));
  seats[SEATS - 2].asleep = seats[SEATS - 3].asleep = false;
  CHECK(rs_sched_sleep_locked(&s, &seats[SEATS - 2], RS_NEVER));
  CHECK(rs_sched_sleep_locked(&s, &seats[SEATS - 3], RS_NEVER));
  CHECK(rs_seat_job(&seats[0]) == jobs[3] && s.queued == 1);
  CHECK(s.waking == 1 && s.sitting == 0);
  seats[0].asleep = false;
  CHECK(rs_sched_sleep_locked(&s, &seats[0], RS_NEVER) && s.waking == 0);
  rs_sched_unlock(&s);
  for (int i = 0; i < SEATS; i++)
    end_is(&s, &seats[SEATS - 1 - i], jobs[i]);

  /* A worker that waits awake is given a job at once; a worker whose time is
     over stands up. */
  pthread_mutex_lock(&s.lock);
  CHECK(rs_sched_take_locked(&s, &seats[0]));
  rs_sched_unlock(&s);
  end_is(&s, &seats[0], jobs[JOBS - 1]);
  pthread_mutex_lock(&s.lock);
  for (int i = 0; i < 2; i++)
    CHECK(!rs_sched_take_locked(&s, &seats[i]));
  s.waking = 1;
  rs_job *const job = loose_job(&q, function, 0);
  CHECK(rs_sched_push_locked(&s, job) && rs_seat_job(&seats[1]) == job);
  s.waking = 0;
  CHECK(!rs_sched_sleep_locked(&s, &seats[0], 1) && s.sitting == 0);
  rs_sched_unlock(&s);
  end_is(&s, &seats[1], job);
  pthread_mutex_lock(&s.lock);
  for (int i = 0; i < SEATS; i++)
    rs_sched_leave_locked(&s, &seats[i]);
  rs_sched_unlock(&s);
  rs_sched_fini(&s);
  for (int i = 0; i < SEATS; i++)
    rs_seat_fini(&seats[i]);
  rs_message_unref(function);
  rs_job_locks_fini(q.locks);
}

/* Where no CPU is free, a worker that has just begun gets the next job, too,
   while the watch looks after the queue; the watch itself is woken last. */
static void
check_watch (void)
{
  enum { SEATS = 3 };
  rs_queue q;
  idle_queue(&q, NULL);
  rs_message *const function = rs_message_new("", 0, 0);
  rs_sched s;
  rs_seat seats[SEATS];
  rs_job *jobs[4];
  unsigned busy = 0;
  for (; rs_spin_spare(); busy++)
    rs_spin_enter();
  rs_sched_init(&s, false);
  pthread_mutex_lock(&s.lock);
  for (int i = 0; i < SEATS; i++) {
    rs_seat_init(&seats[i]);
    rs_sched_enter_locked(&s, &seats[i]);
    CHECK(!rs_sched_take_locked(&s, &seats[i]));  /* it sits */
    seats[i].asleep = true;
  }
  seats[2].asleep = false;
  for (int i = 0; i < 4; i++)
    jobs[i] = loose_job(&q, function, 0);
  CHECK(rs_sched_push_locked(&s, jobs[0]));
  CHECK(rs_seat_job(&seats[2]) == jobs[0]);
  s.watch = &seats[1];
  s.begun = rs_now() + 100;                    /* just now, for ever */
  CHECK(!rs_sched_push_locked(&s, jobs[1]) && s.queued == 1);
  s.begun = 0;                                 /* long ago; the older first */
  CHECK(!rs_sched_push_locked(&s, jobs[2]) && s.queued == 1);
  CHECK(rs_seat_job(&seats[0]) == jobs[1]);
  CHECK(s.watch == &seats[1] && s.waking == 1);
  s.waking = 0;
  /* A look of the watch finds what nobody has taken. */
  s.begun = 0;
  CHECK(rs_sched_sleep_locked(&s, &seats[1], RS_NEVER));
  CHECK(rs_seat_job(&seats[1]) == jobs[2] && s.watch == NULL);
  rs_sched_unlock(&s);
  end_is(&s, &seats[2], jobs[0]);
  end_is(&s, &seats[0], jobs[1]);
  end_is(&s, &seats[1], jobs[2]);

  /* The watch is called when there is no other. */
  pthread_mutex_lock(&s.lock);
  CHECK(!rs_sched_take_locked(&s, &seats[0]));
  seats[0].asleep = true;
  s.watch = &seats[0];
  s.begun = 0;
  CHECK(rs_sched_push_locked(&s, jobs[3]));
  CHECK(rs_seat_job(&seats[0]) == jobs[3]);
  CHECK(s.watch == NULL);
  rs_sched_unlock(&s);
  end_is(&s, &seats[0], jobs[3]);
  pthread_mutex_lock(&s.lock);
  for (int i = 0; i < SEATS; i++)
    rs_sched_leave_locked(&s, &seats[i]);
  rs_sched_unlock(&s);
  while (busy-- > 0)
    rs_spin_leave();
  rs_sched_fini(&s);
  for (int i = 0; i < SEATS; i++)
    rs_seat_fini(&seats[i]);
  rs_message_unref(function);
  rs_job_locks_fini(q.locks);
}

/* A worker that has nothing to do for long gives back what large values left
   behind. */
static void
check_rest (lua_State *L)
{
  const rs_pool_options o = { .max = 1 };
  const struct timespec moment = { .tv_nsec = 10000000 };
  rs_pool *pool = NULL;
  rs_error err;
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  rs_job *const job = submit(pool, L, "return #('x'):rep(1 << 20)", 0);
  CHECK(result_of(job, L) == 1 << 20);
  rs_large_give(malloc(rs_large_room(1 << 20)), 1 << 20);
  rs_job *const next = submit(pool, L, "return 1", 0);  /* and rests then */
  CHECK(result_of(next, L) == 1);
  const double late = rs_now() + 60;
  while (rs_large_any() && rs_now() < late)
    nanosleep(&moment, NULL);
  CHECK(!rs_large_any());
  rs_pool_unref(pool);
}

/* (): threads begin */
static int
let_threads_begin (lua_State *L)
{
  (void) L;
  gate_open();
  return 0;
}

/* A handler that runs while the default pool opens, and asks for it: there is
   one default pool, that of the handler. */
static void
check_default_pool (void)
{
  lua_State *const L = luaL_newstate();
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  lua_setglobal(L, "parallel");
  lua_register(L, "let_threads_begin", let_threads_begin);
  REQUIRE(luaL_dostring(L,
    "pool = parallel.pool { max = 1 }"
    /* the C part, out of the functions of the Lua part */
    "local function find (fn, depth)"
    "  for i = 1, 255 do"
    "    local name, value = debug.getupvalue(fn, i)"
    "    if name == nil or name == 'core' then return value end"
    "    local found = depth > 0 and type(value) == 'function'"
    "                  and find(value, depth - 1)"
    "    if found then return found end"
    "  end "
    "end "
    "core = assert(find(parallel.poll, 3))"
    "parallel.on('go', function ()"
    "  let_threads_begin() inner = core.default_pool() end)"
    "pool:spawn \"require 'parallel'.task.emit 'go'\"") == LUA_OK);
  REQUIRE(rs_events_wait(rs_parallel_events(L), 60) == RS_OK);
  gate_close();
  threads_wait = true;
  CHECK(luaL_dostring(L, "assert(parallel.run 'return 2' == 2)"
                         "assert(inner == core.default_pool())"
                         "assert(#core.pools() == 2)") == LUA_OK);
  threads_wait = false;
  if (lua_gettop(L) > 0 && lua_isstring(L, -1))
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
  lua_close(L);
}

/* rs_timer: the thread of the timers stays here. */
static void
stay_at_gate (rs_timer *timer)
{
  (void) timer;
  wait_at_gate(NULL);
}

/* What ends behind its time-out, or its deadline, while nobody looks at the
   clock for it, has not completed. */
static void
check_late (lua_State *L)
{
  static const char source[] =
    "local now = require 'parallel'.now "
    "local began = now() "
    "repeat until now() > began + 0.002 "
    "return 1";
  rs_timer timer;
  rs_error err;
  rs_job *job;
  rs_batch *batch;
  rs_record record;
  rs_job_info info;
  gate_close();
  rs_pool *const pool = gated_pool(1, 1);
  rs_timer_init(&timer, stay_at_gate);
  REQUIRE(rs_timer_set(&timer, rs_now()));
  gate_await(1);
  const rs_job_options options[] = {
    { .timeout = 0.001 }, { .deadline = 0.001 }, { .timeout = 100 },
    { .deadline = 100 }
  };
  static const char *const reasons[] = { "timeout", "deadline", NULL, NULL };
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
    lua_pushstring(L, source);
    REQUIRE(rs_submit(pool, L, 0, &options[i], &job, &err) == RS_OK);
    CHECK(rs_job_wait(job, NULL, RS_FOREVER) == RS_OK);
    rs_job_info_get(job, &info);
    CHECK(info.state == (reasons[i] != NULL ? RS_JOB_TIMED_OUT
                                            : RS_JOB_COMPLETED));
    CHECK(reasons[i] == NULL || info.reason == NULL
          ? reasons[i] == info.reason : strcmp(info.reason, reasons[i]) == 0);
    rs_job_unref(job);
  }
  lua_pushstring(L, source);
  const rs_batch_options o = { .timeout = 0.001, .flags = RS_BATCH_CONTINUE };
  REQUIRE(rs_batch_open(pool, L, 0, &o, &batch, &err) == RS_OK);
  REQUIRE(rs_batch_add_range(batch, 1, 1, 3, &err) == RS_OK);
  REQUIRE(rs_batch_finish(batch, &err) == RS_OK);
  int n = 0;
  while (rs_batch_wait(batch, L, RS_FOREVER) == RS_OK)
    while (rs_batch_next(batch, L, &record) == RS_OK) {
      CHECK(record.state == RS_JOB_TIMED_OUT);
      n++;
    }
  CHECK(n == 3);
  lua_settop(L, 0);
  rs_batch_close(batch, L);
  gate_open();
  rs_timer_clear(&timer);
  rs_pool_unref(pool);
}

/* --------------------------------------------------- results that are none */

static rs_message *bad_result;   /* of all jobs */

static int
end_with_bad_result (rs_queue *q, rs_job *job, rs_error *err)
{
  (void) q;
  (void) err;
  job->call.result = rs_message_ref(bad_result);
  if (job->call.chunk != NULL)
    job->call.chunk->rest.item = job->call.chunk->count;
  rs_job_end(job, RS_JOB_COMPLETED);
  rs_job_unref(job);
  return RS_OK;
}

/* Each of three items has its record, and fails from the one on that cannot
   be read: 'good' stand before it. */
static void
check_bad_records (lua_State *L, rs_queue *q, unsigned flags, unsigned good,
                   bool take)
{
  enum { ITEMS = 3 };
  rs_batch *batch = NULL;
  const rs_batch_options o = { .chunk = ITEMS,
                               .flags = RS_BATCH_CONTINUE | flags };
  lua_newtable(L);
  const int base = lua_gettop(L);
  lua_pushliteral(L, "return 1");
  CHECK(rs_batch_new(q, L, 0, &o, &batch, NULL) == RS_OK);
  CHECK(rs_batch_add_range(batch, 1, 1, ITEMS, NULL) == RS_OK);
  CHECK(rs_batch_finish(batch, NULL) == RS_OK);
  CHECK(rs_batch_wait(batch, L, 0) == RS_OK);
  rs_record rec;
  unsigned n = 0;
  while (n < ITEMS && rs_batch_next(batch, L, &rec) == RS_OK) {
    CHECK(rec.index == (lua_Integer) ++n);
    if (n <= good)
      CHECK(rec.state == RS_JOB_COMPLETED && rec.n == 1);
    else {
      CHECK(rec.state == RS_JOB_FAILED && rec.n == 2);
      CHECK(strcmp(rec.reason, "error") == 0);
      CHECK(strstr(lua_tostring(L, base + 1), "bad message") != NULL);
    }
    lua_settop(L, base);
    if (take)
      n += (unsigned) rs_batch_take(batch, L, base);
  }
  CHECK(n == ITEMS);
  CHECK(rs_batch_next(batch, L, &rec) == RS_EDONE);
  CHECK(rs_batch_wait(batch, L, 0) == RS_EDONE);
  rs_batch_info info;
  rs_batch_info_get(batch, &info);
  CHECK(info.failed == ITEMS - good);
  rs_batch_close(batch, L);
  lua_settop(L, base - 1);
}

/* A head without flags, and the numbers in it. */
#define MESSAGE 'R', 'S', RS_WIRE_VERSION, 0, 0, 0, 0, 0
#define FOUR(n) n, 0, 0, 0
#define EIGHT 0, 0, 0, 0, 0, 0, 0, 0

/* What is no result, or none of a chunk, is refused item by item. */
static void
check_bad_results (lua_State *L)
{
  static const struct {
    size_t size;
    unsigned char bytes[48];
    unsigned flags, good;  /* RS_BATCH_RECORDS; items before the bad one */
  } rows[] = {
    { 0, { 0 }, 0, 0 },
    { 9, { 'R', 'X', 1, 0, 0, 0, 0, 0, 1 }, 0, 0 },
    { 8, { MESSAGE }, 0, 0 },
    { 9, { MESSAGE, RS_JOB_RUNNING }, 0, 0 },
    { 10, { MESSAGE, RS_JOB_COMPLETED | 0xf0, 1 }, 0, 0 },
    { 9, { MESSAGE, RS_JOB_COMPLETED }, 0, 0 },
    { 12, { MESSAGE, RS_JOB_COMPLETED, 1, RS_JOB_COMPLETED, 0xff }, 0, 1 },
    { 13, { MESSAGE, 0x0f, FOUR(0) }, 0, 0 },
    { 17, { MESSAGE, 0x0f, FOUR(4), 1, 2, 3, 4 }, 0, 0 },
    { 15, { MESSAGE, 0x0f, FOUR(3), 1, 2 }, 0, 2 },
    { 16, { MESSAGE, 0x0f, FOUR(3), 1, RS_TAG_FLOAT, 3 }, 0, 1 },
    { 18, { MESSAGE, 0x0f, FOUR(3), 1, 9, RS_TAG_INTEGER + 1, 5, 0 }, 0,
      2 },
    { 34, { MESSAGE, 0x0f, FOUR(3), RS_TAG_INTEGERS, FOUR(3), EIGHT, EIGHT },
      0, 0 },
    { 42, { MESSAGE, 0x0f, FOUR(1), RS_TAG_INTEGERS, FOUR(3), EIGHT, EIGHT,
            EIGHT }, 0, 1 },
    { 24, { MESSAGE, RS_JOB_COMPLETED, EIGHT }, RS_BATCH_RECORDS, 0 },
    { 34, { MESSAGE, RS_JOB_COMPLETED, EIGHT, EIGHT, 0xff, 0xff, 0xff, 0xff,
            FOUR(1), 1 }, RS_BATCH_RECORDS, 0 },
    { 36, { MESSAGE, RS_JOB_FAILED, EIGHT, EIGHT, FOUR(2), FOUR(1), 1, 1 },
      RS_BATCH_RECORDS, 0 },
    { 36, { MESSAGE, 0x0f, FOUR(3), EIGHT, EIGHT, FOUR(1), FOUR(1), 1, 1 },
      RS_BATCH_RECORDS, 0 },
  };
  rs_queue q;
  idle_queue(&q, end_with_bad_result);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const unsigned before = failed;
    bad_result = rs_message_new(rows[i].bytes, rows[i].size, 0);
    for (int take = 0; take < 2; take++)
      check_bad_records(L, &q, rows[i].flags, rows[i].good, take);
    rs_message_unref(bad_result);
    if (failed != before)
      fprintf(stderr, "row %zu\n", i);
  }
  /* A plain job, which has failed from then on. */
  rs_message *const function = rs_message_new("", 0, 0);
  bad_result = rs_message_new("RS\1\0\0\0\0\0\xff", 9, 0);
  rs_job *const job = rs_job_new(&q, function, NULL, NULL);
  CHECK(end_with_bad_result(&q, job, NULL) == RS_OK);
  for (int i = 0; i < 2; i++) {
    int n = 0;
    CHECK(rs_job_push(job, L, &n) == RS_EFAILED && n == 2);
    CHECK(strstr(lua_tostring(L, -2), "the result cannot be rebuilt here: bad "
                                      "message at byte 8") != NULL);
    CHECK(state_of(job) == RS_JOB_FAILED);
    lua_pop(L, n);
  }
  rs_job_unref(job);
  rs_message_unref(bad_result);
  rs_message_unref(function);
  rs_job_locks_fini(q.locks);
}

int
main (void)
{
  lua_State *const L = luaL_newstate();
  check_slab();
  check_job_memory();
  check_shared_memory();
  check_queue();
  check_waking();
  check_watch();
  check_stopping(L);
  check_foreign_coroutine(L);
  check_names();
  check_jobs(L);
  check_cancel(L);
  check_left_behind(L);
  check_count_of_lost(L);
  check_lost_without_threads(L, true);
  check_lost_without_threads(L, false);
  check_host_threads();
  check_batches(L);
  check_arrays(L);
  check_host_state();
  check_closed_batch(L);
  check_initial_state(L);
  check_sure(L);
  check_close_while_opening();
  check_sandbox(L);
  check_thread_failure(L);
  check_nesting_without_threads(L);
  check_timer_failure(L);
  check_limit_without_timer(L);
  check_no_worker_left(L);
  check_batch_wakes(L);
  check_events(L);
  check_pokes(false);
  check_pokes(true);
  check_late(L);
  check_default_pool();
  check_rest(L);
  check_bad_results(L);
  lua_close(L);
  return report();
}
