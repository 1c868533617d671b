/* SPDX-License-Identifier: MIT */
/*
 * embed_check.c - what a program may pass to the public interface: wrong
 * arguments are refused with a text, never a crash, a hang or a panic.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pthread_kill, SIGURG */
#endif
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>

#include "base/escape.h"
#include "lparallel.h"
#include "pool/face.h"
#include "support/check.h"
#include "value/outbox.h"

/* RS_EINVAL, and the text has 'word'. */
static bool
says (int status, const rs_error *err, const char *word)
{
  const bool ok = status == RS_EINVAL && err->status == RS_EINVAL
               && strstr(err->text, word) != NULL;
  if (!ok)
    fprintf(stderr, "status %s, '%s' is not in: %s\n", rs_status_name(status),
            word, err->text);
  return ok;
}

/* ------------------------------------------------------------------- NULLs */

/* Functions with a status: each with NULL where something is needed. */
static void
check_null_status (lua_State *L)
{
  rs_error err;
  rs_message *msg, *given = NULL;
  rs_pool *pool;
  rs_job *job;
  rs_batch *batch;
  rs_initial_state *const is = rs_initial_state_new();
  rs_events *const events = rs_events_new();
  rs_record record;
  size_t added;
  int n;
  pool = gated_pool(1, 1);
  job = submit(pool, L, "return 1", 0);
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  lua_settop(L, 0);
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_encode(L, 1, &given, &err) == RS_OK);
  const int results[] = {
    rs_decode_try(NULL, given, &n),
    rs_decode_try(L, NULL, &n),
    rs_decode_try(L, given, NULL),
    rs_encode(NULL, 0, &msg, &err),
    rs_encode(L, 1, NULL, &err),
    rs_encode(L, -1, &msg, &err),
    rs_encode(L, 2, &msg, &err),
    rs_initial_state_set_libs(NULL, RS_LIB_ALL),
    rs_initial_state_set_libs(is, 1u << 20),
    rs_initial_state_set_warnings(NULL, true),
    rs_initial_state_set_sandbox(NULL, &(rs_sandbox) { .files = 0 }),
    rs_initial_state_set_sandbox(is, NULL),
    rs_initial_state_set_sandbox(is, &(rs_sandbox) { .files = 3 }),
    rs_initial_state_set_sandbox(is, &(rs_sandbox) { .files = -1 }),
    rs_initial_state_set_sandbox(is, &(rs_sandbox) { .forbid = 1u << 9 }),
    rs_initial_state_set_sandbox(is, &(rs_sandbox) { .size = 3 }),
    rs_initial_state_inherit(NULL, L),
    rs_initial_state_inherit(is, NULL),
    rs_initial_state_set_path(NULL, "x"),
    rs_initial_state_set_cpath(NULL, "x"),
    rs_initial_state_add_preload(NULL, "x", luaopen_base, 0),
    rs_initial_state_add_preload(is, NULL, luaopen_base, 0),
    rs_initial_state_add_preload(is, "x", NULL, 0),
    rs_initial_state_add_preload(is, "x", luaopen_base, 64),
    rs_initial_state_add_loader(is, "x", NULL, &err),
    rs_initial_state_add_variable(is, "x", NULL, &err),
    rs_initial_state_add_module(NULL, "x"),
    rs_initial_state_add_module(is, NULL),
    rs_initial_state_set_init(is, NULL, &err),
    rs_pool_open(NULL, NULL, &err),
    rs_pool_start(NULL, NULL, NULL),
    rs_pool_await_open(NULL, NULL, 0, &err),
    rs_pool_await_open(pool, NULL, NAN, &err),
    rs_pool_close(NULL, 0),
    rs_pool_close(pool, NAN),
    rs_pool_shut(NULL, NULL),
    rs_pool_await_room(NULL, events),
    rs_pool_await_room(pool, NULL),
    rs_submit(NULL, L, 0, NULL, NULL, &err),
    rs_submit(pool, NULL, 0, NULL, NULL, &err),
    rs_submit(pool, L, -1, NULL, NULL, &err),
    rs_submit(pool, L, 1, NULL, NULL, &err),
    rs_submit(pool, L, 1 << 30, NULL, NULL, NULL),
    rs_pool_everywhere(NULL, L, 0, 0, NULL, NULL, &err),
    rs_pool_everywhere(pool, NULL, 0, 0, NULL, NULL, &err),
    rs_pool_everywhere(pool, L, -1, 0, NULL, NULL, &err),
    rs_pool_everywhere(pool, L, 1, 0, NULL, NULL, &err),
    rs_job_wait(NULL, L, 0),
    rs_job_wait(job, L, NAN),
    rs_job_cancel(NULL, 0),
    rs_job_cancel(job, NAN),
    rs_job_push(NULL, L, &n),
    rs_job_push(job, NULL, &n),
    rs_job_push(job, L, NULL),
    rs_job_await(NULL, 0),
    rs_job_await(job, NAN),
    rs_events_wait(NULL, 0),
    rs_events_wait(events, NAN),
    rs_batch_open(NULL, L, 0, NULL, &batch, &err),
    rs_batch_open(pool, NULL, 0, NULL, &batch, &err),
    rs_batch_open(pool, L, -1, NULL, &batch, &err),
    rs_batch_open(pool, L, 1, NULL, &batch, &err),
    rs_batch_add(NULL, L, 1, &err),
    rs_batch_add(batch, NULL, 1, &err),
    rs_batch_add(batch, L, -1, &err),
    rs_batch_add(batch, L, 2, &err),
    rs_batch_add_array(NULL, L, 1, 1, 1, &added, &err),
    rs_batch_add_array(batch, NULL, 1, 1, 1, &added, &err),
    rs_batch_add_array(batch, L, 1, 1, 1, NULL, &err),
    rs_batch_add_array(batch, L, 9, 1, 1, &added, &err),
    rs_batch_add_array(batch, L, 0, 1, 1, &added, &err),
    rs_batch_add_array(batch, L, -2, 1, 1, &added, &err),
    rs_batch_add_array(batch, L, 1, LUA_MAXINTEGER, 2, &added, &err),
    rs_batch_add_range(NULL, 1, 1, 1, &err),
    rs_batch_add_range(batch, LUA_MAXINTEGER - 1, 1, 4, &err),
    rs_batch_add_range(batch, LUA_MININTEGER, -1, 2, &err),
    rs_batch_add_range(batch, 0, LUA_MAXINTEGER, 3, &err),
    rs_batch_flush(NULL, &err),
    rs_batch_finish(NULL, &err),
    rs_batch_wait(NULL, L, 0),
    rs_batch_wait(batch, L, NAN),
    rs_batch_next(NULL, L, &record),
    rs_batch_next(batch, NULL, &record),
    rs_batch_next(batch, L, NULL),
  };
  for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
    if (results[i] != RS_EINVAL)
      fprintf(stderr, "call %zu: %s\n", i, rs_status_name(results[i]));
    CHECK(results[i] == RS_EINVAL);
  }
  CHECK(lua_gettop(L) == 1);  /* none of them took it */
  rs_message_unref(given);
  rs_batch_close(batch, L);
  rs_job_unref(job);
  rs_events_unref(events);
  rs_initial_state_unref(is);
  rs_pool_unref(pool);
  lua_settop(L, 0);
}

/* What has no fields is no array. */
static void
check_no_arrays (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  rs_batch *batch = NULL;
  rs_error err;
  size_t added = 7;
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  lua_pushinteger(L, 3);
  CHECK(rs_batch_add_array(batch, L, 1, 1, 1, &added, &err) == RS_EINVAL);
  lua_pushnil(L);
  CHECK(rs_batch_add_array(batch, L, -1, 1, 1, &added, &err) == RS_EINVAL);
  CHECK(added == 7 && lua_gettop(L) == 2);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
  lua_settop(L, 0);
}

/* Functions without a status do nothing. */
static void
check_null_others (lua_State *L)
{
  rs_stream_record_info record;
  rs_pool_info pool;
  rs_job_info job;
  rs_batch_info batch;
  rs_sandbox sandbox, *const none = NULL;
  rs_stream stream;
  rs_task task;
  int n;
  CHECK(rs_decode(L, NULL) == 0 && rs_decode(NULL, NULL) == 0);
  CHECK(rs_message_ref(NULL) == NULL && rs_message_size(NULL) == 0);
  rs_message_unref(NULL);
  rs_host_close(NULL);
  rs_host_open_libs(NULL);
  rs_host_track(NULL);
  rs_host_interrupt(NULL, NULL);
  rs_host_set_stack(NULL);
  CHECK(rs_initial_state_ref(NULL) == NULL);
  rs_initial_state_unref(NULL);
  CHECK(!rs_sandbox_forbids(NULL, RS_FORBID_ALL));
  CHECK(!rs_sandbox_get(NULL, &sandbox) && !rs_sandbox_get(L, none));
  CHECK(!rs_stream_find(NULL, &stream) && !rs_stream_find("output", NULL));
  rs_stream_record_info_get(NULL, &record);
  CHECK(record.values == NULL);
  rs_stream_record_unref(NULL);
  char shown[8] = "x";
  CHECK(rs_escape(NULL, 3, shown, sizeof shown) == 0 && shown[0] == '\0');
  CHECK(rs_escape("a\n", 2, NULL, 5) == 3 && rs_escape("a", 1, shown, 0) == 1);
  CHECK(rs_escape("a\033b", 3, shown, 5) == 6 && strcmp(shown, "a") == 0);
  CHECK(rs_escape("a\033b", 3, shown, 6) == 6 && strcmp(shown, "a\\x1B") == 0);
  CHECK(rs_console_write(1, NULL, 3) == EINVAL);
  CHECK(rs_console_write(7, "x\n", 2) == EINVAL);
  CHECK(rs_events_ref(NULL) == NULL);
  rs_events_unref(NULL);
  rs_events_close(NULL);
  rs_events_wake(NULL);
  rs_events_poke(NULL);
  CHECK(!rs_events_pending(NULL) && rs_events_next(NULL) == NULL);
  CHECK(rs_events_fileno(NULL) == -1 && errno == EINVAL);
  rs_events_listen(NULL, 0);
  CHECK(rs_events_jobs(NULL, NULL, 5) == 0);
  CHECK(rs_pool_ref(NULL) == NULL && rs_pool_user(NULL) == NULL);
  rs_pool_unref(NULL);
  rs_pool_cancel(NULL, 0);
  CHECK(rs_standing_job(NULL, 0) == NULL);
  rs_standing_withdraw(NULL);
  rs_standing_close(NULL);
  CHECK(!rs_pool_is_limited(NULL) && rs_pool_current(NULL) == NULL);
  rs_pool_info_get(NULL, &pool);
  CHECK(pool.max == 0);
  CHECK(rs_outbox_of(NULL) == NULL);
  rs_job_info_get(NULL, &job);
  CHECK(job.id == 0);
  CHECK(rs_job_name(NULL) == NULL && rs_job_user(NULL) == NULL);
  CHECK(!rs_job_help(NULL, L));
  rs_job_unblock(NULL);
  CHECK(rs_job_pool(NULL) == NULL && rs_job_record(NULL, 0) == NULL);
  CHECK(rs_job_deliver(NULL) == NULL && rs_job_delivered(NULL) == 0);
  CHECK(!rs_job_settled(NULL) && rs_job_slot(NULL) == NULL);
  CHECK(!rs_job_look(NULL) && !rs_job_take(NULL, L, &n));
  rs_job_listen(NULL, 1);
  rs_job_see(NULL);
  rs_job_forget(NULL);
  CHECK(rs_job_ref(NULL) == NULL);
  rs_job_unref(NULL);
  CHECK(rs_batch_room(NULL) == 0 && rs_batch_take(NULL, L, 1) == 0);
  CHECK(rs_batch_record(NULL) == NULL && rs_batch_id(NULL) == 0);
  rs_batch_stop(NULL);
  rs_batch_cancel(NULL, 0);
  rs_batch_info_get(NULL, &batch);
  CHECK(batch.added == 0);
  rs_batch_close(NULL, L);
  CHECK(!rs_task_get(NULL, &task) && !rs_task_get(L, &task));
  rs_task_checkpoint(NULL);
  CHECK(!rs_task_stops(NULL));
  rs_task_send(NULL, RS_STREAM_OUTPUT, 0);
  rs_task_emit(NULL, "x", 0);
}

/* ----------------------------------------------------------------- options */

static void
check_pool_options (void)
{
#define PROCESS .isolation = RS_ISOLATION_PROCESS
  static const char *const none[] = { NULL }, *const sh[] = { "sh", NULL },
                    *const two[] = { "web1:2", NULL },
                    *const option[] = { "-oProxyCommand=x", NULL },
                    *const shell[] = { "web1;ls", NULL },
                    *const empty[] = { "", NULL },
                    *const nameless[] = { "A=b", "=b", NULL },
                    *const many[] = { "web1:65536", "[::1]:2", NULL };
  static const struct { rs_pool_options o; const char *word; } rows[] = {
    { { .min = 3, .max = 2 }, "min (3)" },
    { { .max = 70000 }, "max (70000)" },
    { { .min = 70000 }, "min (70000)" },
    { { .idle = NAN }, "idle" },
    { { .idle = -2 }, "idle (-2)" },
    { { .reset = 3 }, "reset (3)" },
    { { .reset = -1 }, "reset (-1)" },
    { { .signal = SIGKILL }, "signal (9)" },
    { { .signal = SIGSEGV }, "signal (11)" },
    { { .signal = -2 }, "signal (-2)" },
    { { .signal = 1000 }, "signal (1000)" },
    { { .signal = 32 }, "signal (32)" },
    { { .signal = 33 }, "signal (33)" },
    { { .isolation = 3 }, "isolation (3)" },
    { { .isolation = -1 }, "isolation (-1)" },
    { { .runspace = "x" }, "runspace (x)" },
    { { .isolation = RS_ISOLATION_PROCESS, .runspace = "" }, "runspace is" },
    { { .command = none }, "command has no first word" },
    { { .command = sh, .hosts = two }, "command and hosts" },
    { { .command = sh, .runspace = "x" }, "runspace (x)" },
    { { .ssh = sh }, "ssh is what reaches hosts" },
    { { .broker = "amqp://x/" }, "broker is given without a queue" },
    { { .broker_queue = "q" }, "broker_queue is of a broker" },
    { { .key = "k" }, "key is of a broker" },
    { { .broker = "amqp://x/", .broker_queue = "" }, "broker_queue is no" },
    { { .broker = "amqp://x/", .broker_queue = "a\nb" },
      "broker_queue is no name" },
    { { .broker = "amqp://x/", .broker_queue = "q", .hosts = two },
      "hosts and broker are given" },
    { { .broker = "amqp://x/", .broker_queue = "q", .command = sh },
      "command and broker are given" },
    { { .broker = "amqp://x/", .broker_queue = "q",
        .isolation = RS_ISOLATION_PROCESS },
      "RS_ISOLATION_PROCESS and broker are given" },
    { { .hosts = two, .ssh = none }, "ssh has no first word" },
    { { .hosts = none }, "hosts is empty" },
    { { .hosts = option }, "hosts has '-oProxyCommand=x'" },
    { { .hosts = shell }, "hosts has 'web1;ls'" },
    { { .hosts = many }, "hosts has 65538 workers" },
    { { .hosts = two, .max = 3 }, "max (3)" },
    { { .hosts = two, .min = 3 }, "min (3)" },
    { { .heartbeat = 5 }, "heartbeat (5) is for worker processes" },
    { { .isolation = RS_ISOLATION_PROCESS, .heartbeat = 0.05 },
      "heartbeat (0.05)" },
    { { .command = sh, .heartbeat = NAN }, "heartbeat" },
    { { .command = sh, .heartbeat = INFINITY }, "heartbeat (inf)" },
    { { .cpu_time = 2 }, "cpu_time is for workers that are processes" },
    { { .nice = 2 }, "nice is for workers that are processes" },
    { { .cwd = "/" }, "cwd is for workers that are processes" },
    { { .env = none }, "env is for workers that are processes" },
    { { .strict = true }, "strict is for workers that are processes" },
    { { .readable = none }, "readable is for workers that are processes" },
    { { .writable = none }, "writable is for workers that are processes" },
    { { .command = sh, .env = none }, "env is for children of this process" },
    { { .hosts = two, .strict = true }, "strict is for children of this" },
    { { PROCESS, .readable = sh }, "readable names what passes the wall" },
    { { PROCESS, .writable = sh }, "writable names what passes the wall" },
    { { PROCESS, .strict = true, .readable = empty }, "readable has ''" },
    { { PROCESS, .env = nameless }, "env has '=b'" },
    { { PROCESS, .env = empty }, "env has ''" },
    { { PROCESS, .cwd = "" }, "cwd is empty" },
    { { PROCESS, .nice = 20 }, "nice (20)" },
    { { PROCESS, .nice = -1 }, "nice (-1)" },
    { { PROCESS, .cpu_time = -1 }, "cpu_time (-1)" },
    { { .size = 1 }, "size (1)" },
  };
#undef PROCESS
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    rs_pool *pool = NULL;
    rs_error err = { .status = RS_OK };
    CHECK(says(rs_pool_open(&rows[i].o, &pool, &err), &err, rows[i].word));
    CHECK(pool == NULL);
  }
}

/* What is wrong with the options of a server is told by name, before the
   module is looked for. */
static void
check_server_options (void)
{
  static const struct { rs_server_options o; const char *word; } rows[] = {
    { { .queue = "q" }, "broker is NULL" },
    { { .broker = "amqp://x/" }, "queue is NULL" },
    { { .broker = "amqp://x/", .queue = "" }, "queue is no name" },
    { { .broker = "amqp://x/", .queue = "q", .workers = 5000 },
      "workers (5000)" },
    { { .broker = "amqp://x/", .queue = "q", .idle = -1 }, "idle (-1)" },
    { { .size = 1 }, "size (1)" },
  };
  rs_error err = { .status = RS_OK };
  rs_server *server = NULL;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    CHECK(says(rs_server_open(&rows[i].o, &server, &err), &err,
               rows[i].word));
  CHECK(says(rs_server_open(NULL, &server, &err), &err, "options is NULL"));
  CHECK(says(rs_server_wait(NULL, 0, &err), &err, "server is NULL"));
  CHECK(server == NULL);
  rs_server_stop(NULL);
  rs_server_close(NULL);
}

/* What jobs, or batches, have alone of when they may begin. */
static void
check_pacing_options (lua_State *L, rs_pool *pool)
{
  static const struct { rs_batch_options o; const char *word; } rows[] = {
    { { .rate = 1 }, "rate (1) and per (0) go together" },
    { { .per = 1 }, "rate (0) and per (1) go together" },
    { { .rate = 2000000, .per = 1 }, "rate (2000000)" },
    { { .rate = 1, .per = 1, .chunk = 2 }, "chunk (2) is not 1: with rate" },
    { { .key_limit = 1, .chunk = 2 }, "with key_limit" },
  };
  rs_error err = { .status = RS_OK };
  rs_batch *batch = NULL;
  rs_job *job = NULL;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    lua_pushliteral(L, "return ...");
    CHECK(says(rs_batch_open(pool, L, 0, &rows[i].o, &batch, &err), &err,
               rows[i].word));
  }
  const rs_job_options never = { .start_after = 2, .deadline = 1 };
  lua_pushliteral(L, "return 1");
  CHECK(says(rs_submit(pool, L, 0, &never, &job, &err), &err,
             "the job could never start"));
  lua_pushliteral(L, "return ...");
  CHECK(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  CHECK(says(rs_batch_key(batch, "a", 1, &err), &err, "no key_limit"));
  rs_batch_close(batch, L);
  CHECK(job == NULL && lua_gettop(L) == 0);
}

/* A delayed job tells so, and a thread waits for it.  Of items of two keys, at
   a rate, each has its record. */
static void
check_pacing (lua_State *L)
{
  enum { ITEMS = 40 };
  const rs_pool_options one = { .max = 1 };
  const rs_job_options later = { .start_after = 0.005, .retries = 3,
                                 .retry_delay = 0.001, .backoff = 2 };
  const rs_batch_options o = { .rate = 10, .per = 0.001, .key_limit = 1 };
  rs_pool *pool;
  rs_job *job;
  rs_job_info info;
  rs_pool_info counts;
  rs_error err;
  CHECK(rs_pool_open(&one, &pool, &err) == RS_OK);
  lua_pushliteral(L, "local task = require 'parallel'.task "
                     "if task.attempt < 3 then error 'x' end");
  CHECK(rs_submit(pool, L, 0, &later, &job, &err) == RS_OK);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_DELAYED || info.attempts > 0);
  CHECK(strcmp(rs_job_state_name(RS_JOB_DELAYED), "delayed") == 0);
  CHECK(rs_job_wait(job, NULL, RS_FOREVER) == RS_OK);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_COMPLETED && info.attempts == 3);
  CHECK(info.started - info.created >= 0.005);
  rs_job_unref(job);
  rs_batch *batch;
  lua_pushliteral(L, "return ...");
  CHECK(rs_batch_open(pool, L, 0, &o, &batch, &err) == RS_OK);
  int added = 0, seen = 0;
  rs_record rec;
  while (seen < ITEMS) {
    while (added < ITEMS && rs_batch_room(batch) > 0) {
      lua_pushinteger(L, added);
      CHECK(rs_batch_key(batch, added % 2 == 0 ? "a" : "b", 1, &err) == RS_OK);
      CHECK(rs_batch_add(batch, L, 1, &err) == RS_OK);
      CHECK(rs_batch_flush(batch, &err) == RS_OK);
      added++;
    }
    CHECK(rs_batch_wait(batch, NULL, RS_FOREVER) == RS_OK);
    while (rs_batch_next(batch, L, &rec) == RS_OK) {
      CHECK(rec.state == RS_JOB_COMPLETED
            && lua_tointeger(L, -1) == rec.index - 1);
      lua_pop(L, rec.n);
      seen++;
    }
  }
  rs_batch_close(batch, L);
  const rs_job_options far = { .start_after = 1e6 };
  lua_pushliteral(L, "return 1");
  CHECK(rs_submit(pool, L, 0, &far, &job, &err) == RS_OK);
  rs_pool_info_get(pool, &counts);
  CHECK(counts.delayed == 1 && counts.queued == 1);
  rs_pool_close(pool, 0);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_CANCELLED);
  rs_job_unref(job);
  rs_pool_unref(pool);
}

/* What jobs and batches share is refused for both, with one text. */
static void
check_work_options (lua_State *L)
{
  static const struct { rs_job_options o; const char *word; } rows[] = {
    { { .priority = 11 }, "priority (11)" },
    { { .priority = 100 }, "priority (100)" },
    { { .priority = -11 }, "priority (-11)" },
    { { .priority = -2147483647 }, "priority (-2147483647)" },
    { { .timeout = -1 }, "timeout (-1)" },
    { { .timeout = NAN }, "timeout (" },
    { { .deadline = -0.5 }, "deadline (-0.5)" },
    { { .deadline = NAN }, "deadline (" },
    { { .retry_on = 32 }, "retry_on (32)" },
    { { .retry_delay = -1 }, "retry_delay (-1) is not a number of seconds" },
    { { .retry_delay = INFINITY }, "retry_delay (inf)" },
    { { .backoff = 0.5 }, "backoff (0.5) is not a number from 1 on" },
    { { .max_delay = 1, .retry_delay = 2 }, "max_delay (1) is below" },
    { { .listen = 1u << 11 }, "listen (0x800)" },
    { { .name = "red\33[31m" }, "control character (\\27) at byte 4" },
    { { .name = "two\nlines" }, "control character (\\10) at byte 4" },
    { { .name = "\177" }, "control character (\\127) at byte 1" },
    { { .name = "x\302\233m" }, "control character (\\155) at byte 2" },
  };
  rs_pool *const pool = gated_pool(1, 1);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const rs_job_options *const o = &rows[i].o;
    const rs_batch_options same = {
      .name = o->name, .listen = o->listen, .timeout = o->timeout,
      .deadline = o->deadline, .retry_on = o->retry_on,
      .priority = o->priority, .retry_delay = o->retry_delay,
      .backoff = o->backoff, .max_delay = o->max_delay
    };
    rs_error one = { .status = RS_OK }, other = { .status = RS_OK };
    rs_job *job = NULL;
    rs_batch *batch = NULL;
    lua_pushliteral(L, "return 1");
    CHECK(says(rs_submit(pool, L, 0, o, &job, &one), &one, rows[i].word));
    lua_settop(L, 0);
    lua_pushliteral(L, "return ...");
    lua_pushinteger(L, 1);
    CHECK(says(rs_batch_open(pool, L, 1, &same, &batch, &other), &other,
               rows[i].word));
    CHECK(strcmp(one.text, other.text) == 0);
    CHECK(job == NULL && batch == NULL && lua_gettop(L) == 0);
  }
  const rs_batch_options flags = { .flags = 16 };
  const rs_batch_options good = { .size = sizeof good, .name = "\303\244\t" };
  rs_error err;
  rs_batch *batch = NULL;
  lua_pushliteral(L, "return 1");
  CHECK(says(rs_batch_open(pool, L, 0, &flags, &batch, &err), &err,
             "flags (0x10)"));
  lua_pushliteral(L, "return 1");
  CHECK(says(rs_batch_open(pool, L, 0, &good, &batch, &err), &err, "(\\9)"));
  lua_settop(L, 0);
  check_pacing_options(L, pool);
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------------- sizes */

/* An older program's struct ends earlier; a newer one's later. */
static void
check_sizes (lua_State *L)
{
  rs_error err;
  rs_pool *pool = NULL;
  char text[] = "mine";
  const rs_pool_options older = {
    .size = offsetof(rs_pool_options, user), .max = 1, .user = text
  };
  REQUIRE(rs_pool_open(&older, &pool, &err) == RS_OK);
  CHECK(rs_pool_user(pool) == NULL);

  struct { rs_pool_options o; double more[2]; } newer;
  memset(&newer, 0, sizeof newer);
  newer.o.size = sizeof newer;
  newer.o.max = 1;
  newer.o.user = text;
  rs_pool *second = NULL;
  REQUIRE(rs_pool_open(&newer.o, &second, &err) == RS_OK);
  CHECK(rs_pool_user(second) == text);
  rs_pool_unref(second);
  newer.more[1] = 1;
  CHECK(says(rs_pool_open(&newer.o, &second, &err), &err, "size ("));

  const rs_job_options job_older = {
    .size = offsetof(rs_job_options, user), .name = "alpha", .user = text
  };
  const rs_job_options with_user = { .size = sizeof with_user, .user = text };
  rs_job *a = NULL, *b = NULL;
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_submit(pool, L, 0, &job_older, &a, &err) == RS_OK);
  lua_pushliteral(L, "return 1");
  REQUIRE(rs_submit(pool, L, 0, &with_user, &b, &err) == RS_OK);
  CHECK(rs_job_user(a) == NULL && rs_job_user(b) == text);
  CHECK(strcmp(rs_job_name(a), "alpha") == 0);

  union { rs_job_info info; unsigned char bytes[sizeof(rs_job_info)]; } u;
  const size_t room = offsetof(rs_job_info, worker);
  memset(&u, 0x5a, sizeof u);
  rs_job_info_get_sized(b, &u.info, room);
  bool kept = true;
  for (size_t i = room; i < sizeof u; i++)
    kept &= u.bytes[i] == 0x5a;
  CHECK(kept && u.info.size == room && u.info.id > 0);
  rs_pool_info info;
  rs_pool_info_get(pool, &info);
  CHECK(info.size == sizeof info && info.max == 1);
  CHECK(RS_VERSION_NUM == rs_version_num());
  rs_job_unref(a);
  rs_job_unref(b);
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------------- times */

/* Only RS_FOREVER waits for ever. */
static void
check_times (lua_State *L)
{
  static const double past[] = { -0.001, -0.5, -2, -1e9, -INFINITY };
  rs_events *const events = rs_events_new();
  rs_pool *const pool = gated_pool(1, 1);
  rs_batch *batch = NULL;
  rs_error err;
  gate_close();
  const rs_job_options o = { .events = events };
  rs_job *job = NULL;
  lua_pushliteral(L, "wait_at_gate() return 7");
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  gate_await(1);
  lua_pushliteral(L, "return ...");
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  REQUIRE(rs_batch_room(batch) > 0);
  lua_pushinteger(L, 1);
  REQUIRE(rs_batch_add(batch, L, 1, &err) == RS_OK);
  REQUIRE(rs_batch_finish(batch, &err) == RS_OK);
  for (size_t i = 0; i < sizeof past / sizeof past[0]; i++) {
    CHECK(rs_job_wait(job, L, past[i]) == RS_ETIMEOUT);
    CHECK(rs_job_await(job, past[i]) != RS_EINVAL);
    CHECK(rs_batch_wait(batch, L, past[i]) == RS_ETIMEOUT);
    CHECK(rs_events_wait(events, past[i]) != RS_EINVAL);
  }
  gate_open();
  CHECK(rs_job_wait(job, L, INFINITY) == RS_OK);
  CHECK(rs_job_wait(job, L, -3) == RS_OK);
  rs_batch_close(batch, L);
  rs_job_unref(job);
  rs_events_unref(events);
  CHECK(rs_pool_close(pool, -7) != RS_EINVAL);
  rs_pool_unref(pool);
}

/* ----------------------------------------------- a batch inside of itself */

static rs_batch *inside_of;   /* the batch that 'use_inside' uses */
static int uses;              /* calls of 'use_inside' */

/* adding()  Use the batch that takes an item, or reads a record, now. */
static int
use_inside (lua_State *L)
{
  rs_error err;
  rs_record rec;
  size_t added;
  const bool adding = lua_toboolean(L, 1);
  uses++;
  lua_settop(L, 0);
  if (adding) {
    lua_newtable(L);
    CHECK(rs_batch_add_array(inside_of, L, 1, 1, 1, &added, &err) == RS_EBUSY);
    lua_pushinteger(L, 1);
    CHECK(rs_batch_add(inside_of, L, 1, &err) == RS_EBUSY);
    CHECK(strstr(err.text, "the batch is busy") != NULL);
    CHECK(rs_batch_add_range(inside_of, 1, 1, 1, &err) == RS_EBUSY);
    CHECK(rs_batch_flush(inside_of, &err) == RS_EBUSY);
    CHECK(rs_batch_finish(inside_of, &err) == RS_EBUSY);
  }
  else {
    CHECK(rs_batch_next(inside_of, L, &rec) == RS_EBUSY);
    CHECK(rs_batch_wait(inside_of, L, 0) == RS_EBUSY);
  }
  lua_pushinteger(L, 8);
  return 1;
}

/* Code that an item or a result calls cannot use the batch, which goes on. */
static void
check_inside (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  rs_error err;
  rs_record rec;
  lua_settop(L, 0);
  lua_register(L, "use_inside", use_inside);
  lua_pushliteral(L, "return setmetatable({}, { __transfer = function () "
                     "return function () return rawget(_G, 'use_inside')() "
                     "end end })");
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &inside_of, &err) == RS_OK);
  for (int i = 0; i < 2; i++) {
    REQUIRE(rs_batch_room(inside_of) > 0);
    REQUIRE(luaL_dostring(L, "return setmetatable({}, { __transfer = "
                             "function () return use_inside(true) end })")
            == LUA_OK);
    REQUIRE(rs_batch_add(inside_of, L, 1, &err) == RS_OK);
    REQUIRE(rs_batch_flush(inside_of, &err) == RS_OK);
  }
  REQUIRE(rs_batch_finish(inside_of, &err) == RS_OK);
  lua_Integer index = 0;
  while (rs_batch_wait(inside_of, L, RS_FOREVER) == RS_OK)
    while (rs_batch_next(inside_of, L, &rec) == RS_OK) {
      CHECK(rec.state == RS_JOB_COMPLETED && rec.index == ++index);
      CHECK(rec.n == 1 && lua_tointeger(L, -1) == 8);
      lua_settop(L, 0);
    }
  CHECK(index == 2 && uses == 4);
  rs_batch_close(inside_of, L);
  rs_pool_unref(pool);
}

/* close_inside()  Close the batch that takes an item, or reads a record. */
static int
close_inside (lua_State *L)
{
  rs_batch_close(inside_of, L);
  uses++;
  lua_pushinteger(L, 8);
  return 1;
}

/* Code that an item or a result calls may close the batch. */
static void
check_closed_inside (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  rs_error err;
  rs_record rec;
  lua_settop(L, 0);
  uses = 0;
  lua_register(L, "close_inside", close_inside);
  for (int adding = 0; adding < 2; adding++) {
    lua_pushliteral(L, "return setmetatable({}, { __transfer = function () "
                       "return function () return rawget(_G, 'close_inside')()"
                       " end end })");
    REQUIRE(rs_batch_open(pool, L, 0, NULL, &inside_of, &err) == RS_OK);
    for (int i = 0; i < 3; i++) {
      REQUIRE(rs_batch_room(inside_of) > 0);
      lua_pushinteger(L, i);
      REQUIRE(rs_batch_add(inside_of, L, 1, &err) == RS_OK);
      REQUIRE(rs_batch_flush(inside_of, &err) == RS_OK);
    }
    if (adding) {
      REQUIRE(luaL_dostring(L, "return setmetatable({}, { __transfer = "
                               "function () return close_inside() end })")
              == LUA_OK);
      CHECK(rs_batch_add(inside_of, L, 1, &err) == RS_ECLOSED);
    }
    else {
      REQUIRE(rs_batch_wait(inside_of, L, RS_FOREVER) == RS_OK);
      CHECK(rs_batch_next(inside_of, L, &rec) == RS_ECLOSED);
    }
    CHECK(lua_gettop(L) == 0 && uses == adding + 1);
  }
  rs_pool_unref(pool);
}

/* ------------------------------------------------------------------ events */

static const char emits[] =
  "local parallel = require 'parallel' "
  "for i = 1, 2500 do parallel.task.emit('tick', i) end return 9";

/* More events than are kept for a host do not hold up who waits for the job
   itself, and none of them is lost. */
static void
check_many_events (lua_State *L)
{
  rs_events *const events = rs_events_new();
  rs_pool *const pool = gated_pool(1, 1);
  rs_error err;
  rs_job *job = NULL;
  const rs_job_options o = { .events = events };
  lua_pushstring(L, emits);
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  int n = 0;
  rs_stream_record *record;
  while ((record = rs_job_deliver(job)) != NULL) {
    n++;
    rs_stream_record_unref(record);
  }
  CHECK(n == 2500);
  CHECK(result_of(job, L) == 9);
  rs_events_close(events);  /* the job may be queued there */
  rs_events_unref(events);

  /* Nor a batch that reports to nobody. */
  rs_batch *batch = NULL;
  rs_record rec;
  lua_pushstring(L, emits);
  REQUIRE(rs_batch_open(pool, L, 0, NULL, &batch, &err) == RS_OK);
  REQUIRE(rs_batch_room(batch) > 0);
  lua_pushinteger(L, 1);
  REQUIRE(rs_batch_add(batch, L, 1, &err) == RS_OK);
  REQUIRE(rs_batch_finish(batch, &err) == RS_OK);
  CHECK(rs_batch_wait(batch, L, RS_FOREVER) == RS_OK);
  CHECK(rs_batch_next(batch, L, &rec) == RS_OK);
  CHECK(rec.state == RS_JOB_COMPLETED && lua_tointeger(L, -1) == 9);
  lua_settop(L, 0);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
}

/* -------------------------------------------------------- what a job sends */

static int
send_nonsense (lua_State *L)
{
  lua_pushinteger(L, 1);
  rs_task_send(L, (rs_stream) luaL_checkinteger(L, 1), 1);
  return 0;
}

static int
send_too_many (lua_State *L)
{
  rs_task_send(L, RS_STREAM_OUTPUT, 5);
  return 0;
}

static int
emit_badly (lua_State *L)
{
  rs_task_emit(L, luaL_optstring(L, 1, NULL), 0);
  return 0;
}

static int
open_senders (lua_State *L)
{
  lua_register(L, "send", send_nonsense);
  lua_register(L, "send_too_many", send_too_many);
  lua_register(L, "emit", emit_badly);
  lua_pushboolean(L, 1);
  return 1;
}

static void
check_senders (lua_State *L)
{
  static const struct { const char *source, *word; } rows[] = {
    { "return select(2, pcall(send, 7))", "stream (7)" },
    { "return select(2, pcall(send, 100))", "stream (100)" },
    { "return select(2, pcall(send, -1))", "stream (-1)" },
    { "return select(2, pcall(send_too_many))", "5 values" },
    { "return select(2, pcall(emit))", "name is NULL" },
    { "return select(2, pcall(emit, '\\27[2J'))", "control character (\\27)" },
  };
  rs_initial_state *const is = rs_initial_state_new();
  rs_pool *pool = NULL;
  rs_error err;
  int n;
  REQUIRE(rs_initial_state_add_preload(is, "senders", open_senders,
                                       RS_PRELOAD_GLOBAL) == RS_OK);
  const rs_pool_options o = { .max = 1, .initial_state = is };
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    rs_job *const job = submit(pool, L, rows[i].source, 0);
    CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
    CHECK(rs_job_push(job, L, &n) == RS_OK && n == 1);
    const char *const text = lua_tostring(L, -1);
    CHECK(text != NULL && strstr(text, rows[i].word) != NULL);
    lua_settop(L, 0);
    rs_job_unref(job);
  }
  rs_pool_unref(pool);
  rs_initial_state_unref(is);
}

/* ----------------------------------------------------------------- signals */

static volatile sig_atomic_t heard;
static struct sigaction chained;

static void
hear (int number)
{
  (void) number;
  heard++;
}

/* A handler that calls the one before it, as a good one does. */
static void
hear_and_chain (int number, siginfo_t *info, void *context)
{
  heard++;
  if (chained.sa_flags & SA_SIGINFO)
    chained.sa_sigaction(number, info, context);
}

/* A job that never ends by itself is stopped, whatever the program has done
   with the signal meanwhile.  It allocates: ThreadSanitizer holds back signals
   from loops that call nothing which it knows. */
static void
stop_one (rs_pool *pool, lua_State *L)
{
  rs_job *const job = submit(pool, L, "while true do tostring {} end", 0);
  while (state_of(job) == RS_JOB_QUEUED)
    sched_yield();
  CHECK(rs_job_cancel(job, 0) == RS_OK);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  CHECK(state_of(job) == RS_JOB_CANCELLED);
  rs_job_unref(job);
}

static void
check_signal (lua_State *L)
{
  rs_pool *const pool = gated_pool(1, 1);
  stop_one(pool, L);  /* the library has the signal */
  const struct sigaction plain = { .sa_handler = hear };
  sigaction(SIGURG, &plain, NULL);
  stop_one(pool, L);
  heard = 0;
  raise(SIGURG);  /* the program's own still comes to it */
  CHECK(heard == 1);
  struct sigaction informed = { .sa_flags = SA_SIGINFO };
  informed.sa_sigaction = hear_and_chain;
  sigaction(SIGURG, &informed, &chained);
  stop_one(pool, L);
  heard = 0;
  raise(SIGURG);
  CHECK(heard == 1);
  const struct sigaction ignore = { .sa_handler = SIG_IGN };
  sigaction(SIGURG, &ignore, NULL);
  stop_one(pool, L);
  raise(SIGURG);
  rs_pool_info info;
  rs_pool_info_get(pool, &info);
  CHECK(info.lost_workers == 0);
  rs_pool_unref(pool);
}

/* ---------------------------------------------------------- interruptions */

/* A state whose coroutines are tracked. */
static lua_State *
tracked_state (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  rs_host_open_libs(L);
  rs_host_track(L);
  return L;
}

/* An interruption of one state, which is gone, is none of another state, nor
   an error of a script that has the same words. */
static void
check_interruption (void)
{
  lua_State *L = tracked_state();
  rs_host_interrupt(L, NULL);
  CHECK(luaL_dostring(L, "coroutine.wrap(function () while true do end end)()")
        != LUA_OK && strstr(lua_tostring(L, -1), "interrupted!") != NULL);
  lua_settop(L, 0);
  lua_close(L);
  L = tracked_state();
  CHECK(luaL_dostring(L, "local co = coroutine.create(function () "
                         "error 'the download was interrupted!' end) "
                         "assert(not coroutine.resume(co)) "
                         "for i = 1, 100 do i = i + 1 end") == LUA_OK);
  lua_close(L);
}

/* ------------------------------------------------- events that are dropped */

/* Events whose queue has jobs go with the last reference to them, and the jobs
   and their pool, too: a checker of leaks would tell. */
static void
check_dropped_events (lua_State *L)
{
  for (int named = 0; named < 2; named++) {
    rs_events *const events = rs_events_new();
    rs_pool *const pool = gated_pool(1, 1);
    rs_error err;
    rs_job *job = NULL;
    rs_batch *batch = NULL;
    const rs_job_options o = {
      .events = events, .listen = RS_LISTEN_FINISHED
    };
    const rs_batch_options b = {
      .events = events, .listen = 1u << RS_STREAM_OUTPUT
    };
    lua_pushliteral(L, "return 1");
    REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
    lua_pushliteral(L, "require 'parallel'.task.output(...)");
    REQUIRE(rs_batch_open(pool, L, 0, &b, &batch, &err) == RS_OK);
    lua_pushinteger(L, 7);
    CHECK(rs_batch_add(batch, L, 1, &err) == RS_OK);
    CHECK(rs_batch_finish(batch, &err) == RS_OK);
    CHECK(rs_job_wait(job, NULL, RS_FOREVER) == RS_OK);
    while (rs_batch_wait(batch, L, RS_FOREVER) == RS_EEVENT)
      ;
    CHECK(rs_events_pending(events));
    rs_batch_close(batch, L);
    if (named == 0)
      rs_job_unref(job);
    rs_events_unref(events);
    if (named != 0)  /* the job is there all the same */
      CHECK(result_of(job, L) == 1);
    rs_pool_unref(pool);
  }
}

/* ------------------------------------------------------------- globals */

/* Submit a function that reads 'seen' by its name, and 'named' by a text;
   return 10 times the first and the second, 0 for one that is not there. */
static lua_Integer
read_globals (rs_pool *pool, lua_State *L, const char *const *globals)
{
  const rs_job_options o = { .globals = globals };
  rs_error err;
  rs_job *job = NULL;
  REQUIRE(luaL_dostring(L, "return function () "
                           "  return 10 * (seen or 0) "
                           "         + (load('return named')() or 0) "
                           "end") == LUA_OK);
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  return result_of(job, L);
}

static void
check_globals (lua_State *L)
{
  static const char *const names[] = { "named", NULL };
  static const char *const none[] = { NULL };
  REQUIRE(luaL_dostring(L, "seen, named = 1, 2") == LUA_OK);
  struct { const char *const *pool, *const *job; lua_Integer result; } rows[] =
    { { NULL, NULL, 10 }, { NULL, names, 12 }, { NULL, RS_NO_GLOBALS, 0 },
      { names, NULL, 12 }, { names, none, 10 }, { RS_NO_GLOBALS, NULL, 0 },
      { RS_NO_GLOBALS, none, 10 } };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const rs_pool_options o = { .max = 1, .globals = rows[i].pool };
    rs_pool *pool = NULL;
    rs_error err;
    REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
    CHECK(read_globals(pool, L, rows[i].job) == rows[i].result);
    CHECK(read_globals(pool, L, rows[i].job) == rows[i].result);
    rs_pool_unref(pool);
  }
  REQUIRE(luaL_dostring(L, "seen, named = nil, nil") == LUA_OK);
}

/* ----------------------------------------------------------------- seeds */

/* What a job with this seed, or none, draws. */
static lua_Integer
draw (rs_pool *pool, lua_State *L, const lua_Integer *seed)
{
  const rs_job_options o = { .seed = seed };
  rs_error err;
  rs_job *job = NULL;
  REQUIRE(luaL_dostring(L, "return function () return math.random(0) end")
          == LUA_OK);
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  return result_of(job, L);
}

static void
check_seed (lua_State *L)
{
  const rs_pool_options o = { .max = 1 };
  rs_pool *pool = NULL;
  rs_error err;
  lua_Integer seed = 0;
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  REQUIRE(luaL_dostring(L, "math.randomseed(0) local x = math.random(0) "
                           "math.randomseed() return x") == LUA_OK);
  const lua_Integer first = lua_tointeger(L, -1);
  lua_pop(L, 1);
  CHECK(draw(pool, L, &seed) == first);
  CHECK(draw(pool, L, NULL) != first);
  CHECK(draw(pool, L, &seed) == first);
  seed = -1;
  CHECK(draw(pool, L, &seed) != first);
  rs_pool_unref(pool);
}

/* ------------------------------------------------- the loop of the header */

/* As 'rs_events_fileno' in runspace.h has it. */
static void
check_poll_loop (lua_State *L)
{
  rs_events *const events = rs_events_new();
  rs_pool *const pool = gated_pool(1, 2);
  struct pollfd fds[1] = {
    { .fd = rs_events_fileno(events), .events = POLLIN }
  };
  enum { JOBS = 20 };
  bool over[JOBS + 1] = { false };
  int left = JOBS, sum = 0;
  for (int i = 1; i <= left; i++) {
    const rs_job_options o = {
      .events = events, .listen = RS_LISTEN_FINISHED, .user = &over[i]
    };
    rs_error err;
    lua_pushliteral(L, "local parallel = require 'parallel' "
                       "parallel.task.emit('tick', 1) return ...");
    lua_pushinteger(L, i);
    REQUIRE(rs_submit(pool, L, 1, &o, NULL, &err) == RS_OK);
  }
  while (left > 0 && (poll(fds, 1, -1) > 0 || errno == EINTR)) {
    rs_events_wait(events, 0);
    rs_job *job;
    while ((job = rs_events_next(events)) != NULL) {
      rs_stream_record *record;
      while ((record = rs_job_deliver(job)) != NULL)
        rs_stream_record_unref(record);
      bool *const done = rs_job_user(job);
      if (rs_job_settled(job) && !*done) {
        int n;
        *done = true;
        CHECK(rs_job_push(job, L, &n) == RS_OK && n == 1);
        sum += (int) lua_tointeger(L, -1);
        lua_settop(L, 0);
        left--;
      }
      rs_job_unref(job);
    }
  }
  CHECK(sum == 210);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

/* ---------------------------------------------------------- standing calls */

static rs_standing *
call_everywhere (rs_pool *pool, lua_State *L, const char *source)
{
  rs_standing *call = NULL;
  rs_error err;
  lua_settop(L, 0);
  lua_pushstring(L, source);
  lua_pushinteger(L, 7);
  CHECK(rs_pool_everywhere(pool, L, 1, RS_EACH_RUNSPACE, NULL, &call, &err)
        == RS_OK);
  CHECK(lua_gettop(L) == 0);
  return call;
}

/* A standing call: its jobs, and what later runspaces make of it. */
static void
check_standing (lua_State *L)
{
  rs_error err;
  rs_job_info info;
  rs_pool *const pool = gated_pool(2, 3);
  const struct { int each; rs_job_options o; const char *word; } rows[] = {
    { 7, { .size = 0 }, "each (7)" },
    { RS_EACH_HOST, { .size = 0 }, "hosts" },
    { 0, { .retries = 1 }, "retries" },
    { 0, { .priority = 1 }, "priority" },
    { 0, { .timeout = -1 }, "timeout" },
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    lua_pushliteral(L, "return 1");
    CHECK(says(rs_pool_everywhere(pool, L, 0, rows[i].each, &rows[i].o, NULL,
                                  &err), &err, rows[i].word));
    CHECK(lua_gettop(L) == 0);
  }
  lua_pushliteral(L, "this is no source");
  CHECK(rs_pool_everywhere(pool, L, 0, 0, NULL, NULL, &err) == RS_EINVAL);

  rs_standing *call = call_everywhere(pool, L, "x = (x or 0) + ... return x");
  for (unsigned i = 0; i < 2; i++) {
    rs_job *const job = rs_standing_job(call, i);
    rs_job_info_get(job, &info);
    CHECK(info.worker == i + 1);
    CHECK(result_of(rs_job_ref(job), L) == 7);
  }
  CHECK(rs_standing_job(call, 2) == NULL);
  rs_standing_close(call);

  /* One that is withdrawn is not for the third worker. */
  call = call_everywhere(pool, L, "y = ... return y");
  for (unsigned i = 0; i < 2; i++)
    CHECK(rs_job_wait(rs_standing_job(call, i), NULL, RS_FOREVER) == RS_OK);
  rs_standing_withdraw(call);
  rs_standing_withdraw(call);
  rs_standing_close(call);
  rs_job *jobs[3];
  gate_close();
  for (int i = 0; i < 3; i++)
    jobs[i] = submit(pool, L, "wait_at_gate() return 10 * x + (y or 0)", 0);
  gate_await(3);
  gate_open();
  lua_Integer sum = 0;
  for (int i = 0; i < 3; i++)
    sum += result_of(jobs[i], L);
  CHECK(sum == 77 + 77 + 70);

  /* Nobody takes the results. */
  lua_pushliteral(L, "z = 3");
  CHECK(rs_pool_everywhere(pool, L, 0, 0, NULL, NULL, &err) == RS_OK);
  CHECK(result_of(submit(pool, L, "return z", 0), L) == 3);

  /* Handles outlive the pool. */
  call = call_everywhere(pool, L, "return ...");
  rs_pool_close(pool, RS_FOREVER);
  CHECK(result_of(rs_job_ref(rs_standing_job(call, 2)), L) == 7);
  lua_pushliteral(L, "z = 4");
  CHECK(rs_pool_everywhere(pool, L, 0, 0, NULL, NULL, &err) == RS_ECLOSED);
  rs_pool_unref(pool);
  rs_standing_withdraw(call);
  rs_standing_close(call);
}

/* --------------------------------------------------------- size and pauses */

/* Pools get another size, are paused, and go on. */
static void
check_size (lua_State *L)
{
  rs_error err;
  rs_pool_info info;
  rs_pool *const pool = gated_pool(1, 1);
  CHECK(says(rs_pool_resize(NULL, 1, 1, &err), &err, "pool is NULL"));
  CHECK(says(rs_pool_resize(pool, 3, 0, &err), &err, "min (3) is more"));
  CHECK(says(rs_pool_resize(pool, 0, RS_WORKERS_MAX + 1, &err), &err,
             "max ("));
  CHECK(rs_pool_pause(NULL) == RS_EINVAL);
  CHECK(rs_pool_resume(NULL) == RS_EINVAL);
  CHECK(rs_pool_resize(pool, 2, 3, &err) == RS_OK);
  rs_pool_info_get(pool, &info);
  CHECK(info.min == 2 && info.max == 3 && info.workers == 2
        && !info.adapts);

  gate_close();
  rs_job *jobs[4];
  for (int i = 0; i < 3; i++)
    jobs[i] = submit(pool, L, "wait_at_gate() return 1", 0);
  gate_await(3);
  CHECK(rs_pool_pause(pool) == RS_OK);
  jobs[3] = submit(pool, L, "return 2", 0);
  gate_open();
  for (int i = 0; i < 3; i++)
    CHECK(result_of(jobs[i], L) == 1);
  rs_pool_info_get(pool, &info);
  CHECK(info.paused && info.queued == 1);
  CHECK(rs_pool_resume(pool) == RS_OK);
  CHECK(result_of(jobs[3], L) == 2);
  rs_pool_pause(pool);
  rs_job *const last = submit(pool, L, "return 3", 0);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(result_of(last, L) == 3);
  CHECK(rs_pool_resize(pool, 1, 1, &err) == RS_ECLOSED);
  CHECK(rs_pool_pause(pool) == RS_ECLOSED);
  rs_pool_unref(pool);
}

/* Jobs of a serial pool run while this thread waits, and on no other. */
static void *
close_elsewhere (void *pool)
{
  return rs_pool_close(pool, 0) == RS_EINVAL ? pool : NULL;
}

static void
check_serial (lua_State *L)
{
  rs_error err;
  rs_pool *pool;
  rs_pool_options o = { .isolation = RS_ISOLATION_SERIAL, .max = 4 };
  rs_job_info info;
  REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
  rs_job *const first = submit(pool, L, "return 1", 0);
  rs_job *const second = submit(pool, L, "return 2", 0);
  rs_job *const third = submit(pool, L, "return 3", 0);
  rs_job_info_get(first, &info);
  CHECK(info.state == RS_JOB_QUEUED);
  CHECK(rs_job_wait(second, NULL, RS_FOREVER) == RS_OK);
  rs_job_info_get(third, &info);
  CHECK(info.state == RS_JOB_QUEUED);
  CHECK(says(rs_pool_resize(pool, 1, 2, &err), &err, "a serial pool"));
  pthread_t thread;
  void *refused;
  REQUIRE(pthread_create(&thread, NULL, close_elsewhere, pool) == 0);
  pthread_join(thread, &refused);
  CHECK(refused == pool);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(result_of(first, L) == 1 && result_of(second, L) == 2
        && result_of(third, L) == 3);
  rs_pool_unref(pool);
  o.min = 2;
  CHECK(says(rs_pool_open(&o, &pool, &err), &err, "min"));
  o = (rs_pool_options) { .isolation = RS_ISOLATION_PROCESS, .adapt = true };
  CHECK(says(rs_pool_open(&o, &pool, &err), &err, "adapt"));
}

int
main (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  check_null_status(L);
  check_no_arrays(L);
  check_null_others(L);
  check_pool_options();
  check_server_options();
  check_work_options(L);
  check_pacing(L);
  check_sizes(L);
  check_times(L);
  check_inside(L);
  check_closed_inside(L);
  check_many_events(L);
  check_senders(L);
  check_signal(L);
  check_dropped_events(L);
  check_interruption();
  check_globals(L);
  check_seed(L);
  check_poll_loop(L);
  check_standing(L);
  check_size(L);
  check_serial(L);
  lua_close(L);
  return report();
}
