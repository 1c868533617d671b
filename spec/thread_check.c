/* SPDX-License-Identifier: MIT */
/*
 * thread_check.c - threads of a program that are cancelled, by
 * pthread_cancel(3), while they wait in the library: no lock stays taken, and
 * others go on with the same objects.
 *
 * Whether a thread waits already or is about to makes no difference: each call
 * that waits is where it is cancelled.  Every case is done some times, since
 * that may differ.  What hangs is ended by alarm(2).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* F_SETPIPE_SZ */
#endif
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "pool/face.h"
#include "support/check.h"

enum { PATIENCE = 250 };  /* seconds until all of it counts as hanging */
enum { TIMES = 20 };

/* Bytes of the smallest C stack that a host's thread is given here.  The
   thread sanitizer takes a part of each stack for itself. */
#if defined(__SANITIZE_THREAD__)
#define SMALLEST_STACK ((size_t) 2 << 20)
#elif defined(__SANITIZE_ADDRESS__)
#define SMALLEST_STACK ((size_t) 512 << 10)
#else
#define SMALLEST_STACK ((size_t) 128 << 10)
#endif

/* A call that waits, and what it waits for. */
typedef struct call {
  void *(*wait) (void *ud);
  void *ud;
  pthread_t thread;
  _Atomic bool begun;
} call;

static void *
begin (void *ud)
{
  call *const c = ud;
  c->begun = true;
  return c->wait(c->ud);
}

static void
start (call *c, void *(*wait) (void *ud), void *ud)
{
  c->wait = wait;
  c->ud = ud;
  c->begun = false;
  REQUIRE(pthread_create(&c->thread, NULL, begin, c) == 0);
  while (!c->begun)
    sched_yield();
}

/* Cancel it in the time that 'i' says, and see that it ends by that. */
static void
cancel (call *c, int i)
{
  void *result;
  for (int k = 0; k < i; k++)
    sched_yield();
  CHECK(pthread_cancel(c->thread) == 0);
  CHECK(pthread_join(c->thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED);
}

static void *
wait_for_job (void *job)
{
  return rs_job_wait(job, NULL, RS_FOREVER) == RS_OK ? job : NULL;
}

static void *
wait_long_for_job (void *job)
{
  return rs_job_wait(job, NULL, 1e5) == RS_OK ? job : NULL;
}

static void *
await_job (void *job)
{
  while (!rs_job_settled(job))
    if (rs_job_await(job, RS_FOREVER) != RS_OK)
      return NULL;
  return job;
}

static void *
wait_at_events (void *events)
{
  return rs_events_wait(events, RS_FOREVER) == RS_OK ? events : NULL;
}

static void *
wait_long_at_events (void *events)
{
  return rs_events_wait(events, 1e5) == RS_OK ? events : NULL;
}

static void *
close_pool (void *pool)
{
  return rs_pool_close(pool, RS_FOREVER) == RS_OK ? pool : NULL;
}

static void *
wait_for_chunk (void *batch)
{
  return rs_batch_wait(batch, NULL, RS_FOREVER) == RS_OK ? batch : NULL;
}

/* ------------------------------------------------------------------- jobs */

static void
check_job (lua_State *L, void *(*wait) (void *ud), int i)
{
  call one, other;
  void *result = NULL;
  rs_error err;
  gate_close();
  rs_pool *const pool = gated_pool(1, 2);
  rs_events *const events = rs_events_new();
  const rs_job_options o = { .events = events };
  rs_job *job;
  lua_pushliteral(L, "wait_at_gate() return 5");
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  gate_await(1);
  start(&other, wait_for_job, job);
  start(&one, wait, job);
  cancel(&one, i);
  CHECK(rs_job_wait(job, NULL, 0) == RS_ETIMEOUT);
  CHECK(result_of(submit(pool, L, "return 6", 0), L) == 6);
  gate_open();
  CHECK(pthread_join(other.thread, &result) == 0 && result == job);
  CHECK(result_of(job, L) == 5);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

/* ----------------------------------------------------------------- events */

/* 'watched': another loop may watch their descriptor. */
static void
check_events (lua_State *L, void *(*wait) (void *ud), bool watched, int i)
{
  call one, other;
  void *result = NULL;
  rs_error err;
  gate_close();
  rs_pool *const pool = gated_pool(1, 1);
  rs_events *const events = rs_events_new();
  const rs_job_options o = {
    .events = events, .listen = RS_LISTEN_FINISHED
  };
  CHECK(!watched || rs_events_fileno(events) >= 0);
  lua_pushliteral(L, "wait_at_gate() return 5");
  REQUIRE(rs_submit(pool, L, 0, &o, NULL, &err) == RS_OK);
  gate_await(1);
  start(&one, wait, events);
  cancel(&one, i);
  start(&other, wait, events);
  gate_open();
  CHECK(pthread_join(other.thread, &result) == 0 && result == events);
  rs_job *const job = rs_events_next(events);
  CHECK(result_of(job, L) == 5);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

/* A thread that is cancelled already wakes a host with a descriptor: it
   does that, and ends later. */
static _Atomic bool cancelled;

static void *
wake_when_cancelled (void *events)
{
  while (!cancelled)
    sched_yield();
  rs_events_wake(events);
  rs_events_wait(events, 0);
  rs_events_wake(events);
  pthread_testcancel();
  return NULL;
}

static void
check_wake (void)
{
  call one;
  rs_events *const events = rs_events_new();
  CHECK(rs_events_fileno(events) >= 0);
  cancelled = false;
  start(&one, wake_when_cancelled, events);
  void *result;
  CHECK(pthread_cancel(one.thread) == 0);
  cancelled = true;
  CHECK(pthread_join(one.thread, &result) == 0);
  CHECK(result == PTHREAD_CANCELED);
  CHECK(rs_events_wait(events, RS_FOREVER) == RS_OK);
  CHECK(rs_events_wait(events, 0) == RS_ETIMEOUT);
  rs_events_unref(events);
}

/* ---------------------------------------------------------------- batches */

static void
check_batch (lua_State *L, int i)
{
  call one;
  rs_error err;
  rs_batch *batch;
  rs_record record;
  gate_close();
  rs_pool *const pool = gated_pool(1, 1);
  lua_pushliteral(L, "wait_at_gate() return ...");
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  REQUIRE(rs_batch_add_range(batch, 7, 1, 1, &err) == RS_OK);
  REQUIRE(rs_batch_finish(batch, &err) == RS_OK);
  gate_await(1);
  start(&one, wait_for_chunk, batch);
  cancel(&one, i);
  gate_open();
  CHECK(rs_batch_wait(batch, L, RS_FOREVER) == RS_OK);
  CHECK(rs_batch_next(batch, L, &record) == RS_OK);
  CHECK(lua_tointeger(L, -1) == 7);
  lua_settop(L, 0);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------------ pools */

static void
check_close (lua_State *L, int i)
{
  call one;
  rs_error err;
  gate_close();
  rs_pool *const pool = gated_pool(2, 2);
  rs_job *const job = submit(pool, L, "wait_at_gate() return 5", 0);
  gate_await(1);
  start(&one, close_pool, pool);
  cancel(&one, i);
  if (rs_pool_shut(pool, NULL) == RS_EBUSY) {  /* or it never began */
    lua_pushliteral(L, "return 1");
    CHECK(rs_submit(pool, L, 0, NULL, NULL, &err) == RS_ECLOSED);
  }
  gate_open();
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(result_of(job, L) == 5);
  rs_pool_unref(pool);
}

/* Threads of the process. */
static int
count_threads (void)
{
  DIR *const dir = opendir("/proc/self/task");
  int n = 0;
  REQUIRE(dir != NULL);
  while (readdir(dir) != NULL)
    n++;
  closedir(dir);
  return n;
}

/* A pool whose runspace is never seeded.  The thread that opens it is
   cancelled: then there is none. */
static void *
open_pool (void *is)
{
  const rs_pool_options o = { .initial_state = is };
  rs_pool *pool = NULL;
  rs_pool_open(&o, &pool, NULL);
  return pool;
}

static void
check_open (lua_State *L, int i)
{
  call one;
  rs_error err;
  const int threads = count_threads();
  rs_initial_state *const is = rs_initial_state_new();
  gate_close();
  REQUIRE(rs_initial_state_add_preload(is, "gate", open_gate_module,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  lua_pushliteral(L, "wait_at_gate() while true do tostring {} end");
  REQUIRE(rs_initial_state_set_init(is, L, &err) == RS_OK);
  start(&one, open_pool, is);
  gate_await(1);
  gate_open();
  cancel(&one, i);
  while (count_threads() > threads)
    sched_yield();
  rs_initial_state_unref(is);
}

/* ---------------------------------------------------------------- console */

/* It is cancelled while the terminal takes nothing: the line goes out, and
   then it ends. */
static void *
write_line (void *line)
{
  rs_console_write(1, line, strlen(line));
  pthread_testcancel();
  return NULL;
}

static void *
drain (void *fd)
{
  char bytes[4096];
  ssize_t n, all = 0;
  while ((n = read(*(int *) fd, bytes, sizeof bytes)) > 0)
    all += n;
  return (void *) (intptr_t) all;
}

static void
check_console (int i)
{
  enum { LINE = 100000 };
  static char line[LINE + 1];
  call one;
  pthread_t reader;
  int fds[2];
  void *all = NULL, *result = NULL;
  fflush(stdout);
  const int out = dup(1);
  REQUIRE(out >= 0 && pipe(fds) == 0 && dup2(fds[1], 1) == 1);
  close(fds[1]);
  fcntl(fds[0], F_SETPIPE_SZ, 4096);
  memset(line, 'x', LINE);
  line[LINE - 1] = '\n';
  start(&one, write_line, line);
  for (int k = 0; k < i; k++)
    sched_yield();
  CHECK(pthread_cancel(one.thread) == 0);
  REQUIRE(pthread_create(&reader, NULL, drain, &fds[0]) == 0);
  CHECK(pthread_join(one.thread, &result) == 0 && result == PTHREAD_CANCELED);
  CHECK(rs_console_write(1, "y\n", 2) == 0);
  dup2(out, 1);
  close(out);
  CHECK(pthread_join(reader, &all) == 0 && (intptr_t) all == LINE + 2);
  close(fds[0]);
}

/* ------------------------------------------------------------ small stacks */

/* What a thread with a small stack does; returns NULL. */
static void *
use_small_stack (void *ud)
{
  static const char closes[] =
    "local co = coroutine.create(coroutine.yield) "
    "coroutine.resume(co) assert(coroutine.close(co))";
  static const char object[] =
    "return setmetatable({}, { __transfer = function () "
    "return function () return 5 end end })";
  rs_pool *const pool = ud;
  lua_State *const L = luaL_newstate();
  rs_job *job = NULL;
  rs_error err;
  int n;
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  rs_host_track(L);
  CHECK(luaL_dostring(L, closes) == LUA_OK);
  lua_settop(L, 0);
  lua_pushliteral(L, "return ...");
  CHECK(luaL_dostring(L, object) == LUA_OK);
  REQUIRE(rs_submit(pool, L, 1, NULL, &job, &err) == RS_OK);
  CHECK(result_of(job, L) == 5);
  lua_pushstring(L, object);
  REQUIRE(rs_submit(pool, L, 0, NULL, &job, &err) == RS_OK);
  CHECK(rs_job_wait(job, NULL, RS_FOREVER) == RS_OK);
  CHECK(rs_job_push(job, L, &n) == RS_OK && lua_tointeger(L, -1) == 5);
  rs_job_unref(job);
  lua_close(L);
  return NULL;
}

/* Host threads whose C stack is smaller than what is kept free elsewhere. */
static void
check_small_stacks (void)
{
  rs_pool *const pool = gated_pool(1, 1);
  for (size_t size = SMALLEST_STACK; size <= (size_t) 2 << 20; size *= 2) {
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    REQUIRE(pthread_attr_setstacksize(&attr, size) == 0);
    REQUIRE(pthread_create(&thread, &attr, use_small_stack, pool) == 0);
    pthread_attr_destroy(&attr);
    pthread_join(thread, NULL);
  }
  rs_pool_unref(pool);
}

int
main (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  alarm(PATIENCE);
  for (int i = 0; i < TIMES; i++) {
    check_job(L, wait_for_job, i);
    check_job(L, wait_long_for_job, i);
    check_job(L, await_job, i);
    for (int pipe = 0; pipe < 2; pipe++) {
      check_events(L, wait_at_events, pipe, i);
      check_events(L, wait_long_at_events, pipe, i);
    }
    check_wake();
    check_batch(L, i);
    check_close(L, i);
    check_open(L, i);
    check_console(i);
  }
  check_small_stacks();
  lua_close(L);
  return report();
}
