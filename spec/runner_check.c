/* SPDX-License-Identifier: MIT */
/*
 * runner_check.c - pools whose workers run calls on something else than a
 * state: what a scheduler does holds for them, too.
 *
 * The same rows run twice.  First on runners that have a state, and write down
 * what each call was and what it left; then on runners that have none, and
 * give that back.  Other kinds wait, fail, or let little cross.
 */
#include <stdatomic.h>

#include "support/check.h"

#include "pool/face.h"
#include "pool/pool.h"
#include "state/call.h"
#include "value/code.h"

/* ------------------------------------------------------------------ a tape */

/* A call, and what was left of it. */
typedef struct entry {
  rs_list link;
  rs_message *function, *arguments, *result;  /* owned; or NULL */
  unsigned attempt;
  lua_Integer index;         /* of a chunk, as the next one */
  size_t count;
  rs_job_state state;
  unsigned attempts;         /* what 'attempt' of the call became */
  size_t ended[RS_JOB_LOST + 1];
} entry;

static struct {
  pthread_mutex_t lock;      /* guards what follows */
  rs_list entries;
  uint64_t order[2000];      /* ids of calls, as they were begun */
  size_t begun;
  unsigned open, opened;     /* runners, now and altogether */
  unsigned missing;          /* calls that were not on the tape */
} tape = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Atomic bool gated;        /* calls wait at the gate */
static _Atomic unsigned spent_after;  /* calls of a runner; 0: any number */

static rs_message *
copy (const rs_message *m)
{
  return m == NULL ? NULL : rs_message_new(m->data, m->size, m->flags);
}

static bool
equal (const rs_message *a, const rs_message *b)
{
  if (a == NULL || b == NULL)
    return a == b;
  return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static bool
is_of (const entry *e, const rs_call *call)
{
  const rs_chunk *const c = call->chunk;
  return equal(e->function, call->function)
      && equal(e->arguments, call->arguments)
      && e->attempt == call->attempt
      && e->index == (c != NULL ? c->index : 0)
      && e->count == (c != NULL ? c->count : 0);
}

static entry *
find_locked (const rs_call *call)
{
  for (rs_list *link = tape.entries.next; link != &tape.entries;
       link = link->next) {
    entry *const e = RS_LIST_ENTRY(link, entry, link);
    if (is_of(e, call))
      return e;
  }
  return NULL;
}

static void
erase (void)
{
  rs_list *link;
  while ((link = rs_list_shift(&tape.entries)) != NULL) {
    entry *const e = RS_LIST_ENTRY(link, entry, link);
    rs_message_unref(e->function);
    rs_message_unref(e->arguments);
    rs_message_unref(e->result);
    free(e);
  }
}

/* ----------------------------------------------------------------- runners */

typedef struct runner {
  rs_runner base;
  rs_runner *inner;   /* has a state; NULL: it plays the tape */
  unsigned calls;
} runner;

static int
open_on (const rs_runner_kind *kind, const rs_state_options *o,
         const rs_runner_kind *inner, rs_runner **out, rs_error *err)
{
  runner *const r = calloc(1, sizeof *r);
  REQUIRE(r != NULL);
  r->base = (rs_runner) {
    .kind = kind, .cancel = o->cancel, .worker = o->worker
  };
  const int status = inner != NULL ? inner->open(o, &r->inner, err) : RS_OK;
  if (status != RS_OK) {
    free(r);
    return status;
  }
  pthread_mutex_lock(&tape.lock);
  tape.open++;
  tape.opened++;
  pthread_mutex_unlock(&tape.lock);
  *out = &r->base;
  return RS_OK;
}

static void
close_any (rs_runner *base)
{
  runner *const r = (runner *) base;
  if (r->inner != NULL)
    r->inner->kind->close(r->inner);
  free(r);
  pthread_mutex_lock(&tape.lock);
  tape.open--;
  pthread_mutex_unlock(&tape.lock);
}

static bool
spent_any (rs_runner *base)
{
  const unsigned n = atomic_load(&spent_after);
  return n != 0 && ((runner *) base)->calls >= n;
}

static void
trim_any (rs_runner *base, bool chunk)
{
  (void) base;
  (void) chunk;
}

static void
rest_any (rs_runner *base)
{
  (void) base;
}

static size_t
bytes_any (const rs_runner *base)
{
  (void) base;
  return sizeof (runner);
}

/* A call begins. */
static void
note (rs_runner *base, const rs_call *call)
{
  ((runner *) base)->calls++;
  pthread_mutex_lock(&tape.lock);
  REQUIRE(tape.begun < sizeof tape.order / sizeof tape.order[0]);
  tape.order[tape.begun++] = call->id;
  pthread_mutex_unlock(&tape.lock);
  if (atomic_load(&gated))
    wait_at_gate(NULL);
}

/* ---- with a state, and a tape that runs along */

static const rs_runner_kind recording;

static int
open_recording (const rs_state_options *o, rs_runner **out, rs_error *err)
{
  return open_on(&recording, o, &rs_state_kind, out, err);
}

static void
record (rs_runner *base, rs_call *call, const rs_call_sink *sink)
{
  rs_runner *const inner = ((runner *) base)->inner;
  entry *const e = calloc(1, sizeof *e);
  REQUIRE(e != NULL);
  note(base, call);
  e->function = copy(call->function);
  e->arguments = copy(call->arguments);
  e->attempt = call->attempt;
  if (call->chunk != NULL) {
    e->index = call->chunk->index;
    e->count = call->chunk->count;
  }
  inner->kind->run(inner, call, sink);
  e->result = copy(call->result);
  e->state = call->state;
  e->attempts = call->attempt;
  if (call->chunk != NULL)
    memcpy(e->ended, call->chunk->ended, sizeof e->ended);
  pthread_mutex_lock(&tape.lock);
  rs_list_push(&tape.entries, &e->link);
  pthread_mutex_unlock(&tape.lock);
}

static const rs_runner_kind recording = {
  .open = open_recording, .run = record, .spent = spent_any, .trim = trim_any,
  .rest = rest_any, .bytes = bytes_any, .close = close_any
};

/* ---- without one */

static const rs_runner_kind playing;

static int
open_playing (const rs_state_options *o, rs_runner **out, rs_error *err)
{
  return open_on(&playing, o, NULL, out, err);
}

static void
play (rs_runner *base, rs_call *call, const rs_call_sink *sink)
{
  (void) sink;
  note(base, call);
  rs_message_unref(call->result);  /* of an earlier attempt */
  call->result = NULL;
  pthread_mutex_lock(&tape.lock);
  const entry *const e = find_locked(call);
  if (e == NULL) {
    tape.missing++;
    call->state = RS_JOB_FAILED;
  }
  else {
    call->result = copy(e->result);
    call->state = e->state;
    call->attempt = e->attempts;
    if (call->chunk != NULL) {
      memcpy(call->chunk->ended, e->ended, sizeof e->ended);
      call->chunk->rest.item = call->chunk->count;
    }
  }
  pthread_mutex_unlock(&tape.lock);
}

static const rs_runner_kind playing = {
  .open = open_playing, .run = play, .spent = spent_any, .trim = trim_any,
  .rest = rest_any, .bytes = bytes_any, .close = close_any
};

/* ---- one that waits until it is stopped, twice */

static struct {
  pthread_mutex_t lock;   /* guards what follows */
  pthread_cond_t changed;
  bool waits, asked, forced;
  unsigned woken;
} other = { .lock = PTHREAD_MUTEX_INITIALIZER,
            .changed = PTHREAD_COND_INITIALIZER };

static const rs_runner_kind waiting;

static int
open_waiting (const rs_state_options *o, rs_runner **out, rs_error *err)
{
  return open_on(&waiting, o, NULL, out, err);
}

static void
wake (void *object)
{
  (void) object;
  pthread_mutex_lock(&other.lock);
  other.woken++;
  pthread_cond_broadcast(&other.changed);
  pthread_mutex_unlock(&other.lock);
}

static void
keep (void *object)
{
  (void) object;
}

static void
wait_long (rs_runner *base, rs_call *call, const rs_call_sink *sink)
{
  (void) sink;
  const rs_sleeper sleeper = {
    .wake = wake, .ref = keep, .unref = keep, .object = &other
  };
  rs_token token;
  rs_token_enter(base->cancel, &token, NULL, call, &call->wish);
  rs_cancel_sleeps(base->cancel, &sleeper);
  pthread_mutex_lock(&other.lock);
  other.waits = true;
  pthread_cond_broadcast(&other.changed);
  while (!rs_token_forced(&token)) {
    other.asked |= rs_token_stopped(&token);
    pthread_cond_wait(&other.changed, &other.lock);
  }
  other.forced = true;
  pthread_mutex_unlock(&other.lock);
  rs_cancel_wakes(base->cancel);
  call->reason = rs_token_leave(base->cancel, &token, NULL);
  call->state = rs_reason_state(call->reason);
}

static const rs_runner_kind waiting = {
  .open = open_waiting, .run = wait_long, .spent = spent_any,
  .trim = trim_any, .rest = rest_any, .bytes = bytes_any, .close = close_any
};

/* ---- one that cannot be opened; one to which nothing local can cross */

static int
open_never (const rs_state_options *o, rs_runner **out, rs_error *err)
{
  (void) o;
  (void) out;
  err->status = RS_EFAILED;
  snprintf(err->text, sizeof err->text, "web1: no runspace there");
  return RS_EFAILED;
}

static const rs_runner_kind never = { .open = open_never };

static const rs_runner_kind remote = {
  .forbidden = RS_MESSAGE_LOCAL,
  .open = open_recording, .run = record, .spent = spent_any, .trim = trim_any,
  .rest = rest_any, .bytes = bytes_any, .close = close_any
};

/* -------------------------------------------------------------------- rows */

static rs_pool *
open_pool (const rs_runner_kind *kind, const rs_pool_options *o)
{
  rs_pool *pool = NULL;
  rs_error err;
  REQUIRE(rs_pool_start_on(kind, o, &pool, &err) == RS_OK);
  REQUIRE(rs_pool_await_open(pool, NULL, RS_FOREVER, &err) == RS_OK);
  return pool;
}

static rs_job *
send_job (rs_pool *pool, lua_State *L, const char *source, lua_Integer x,
          const rs_job_options *o)
{
  rs_job *job = NULL;
  rs_error err;
  lua_pushstring(L, source);
  lua_pushinteger(L, x);
  if (rs_submit(pool, L, 1, o, &job, &err) != RS_OK) {
    fprintf(stderr, "%s\n", err.text);
    REQUIRE(false);
  }
  return job;
}

/* Wait, and let go of it: its result, or -1. */
static lua_Integer
take (rs_job *job, lua_State *L)
{
  int n;
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  const int status = rs_job_push(job, L, &n);
  const lua_Integer x = status == RS_OK && n > 0 ? lua_tointeger(L, -1) : -1;
  lua_settop(L, 0);
  rs_job_unref(job);
  return x;
}

static void
check_jobs (const rs_runner_kind *kind, lua_State *L)
{
  enum { JOBS = 200 };
  rs_job *jobs[JOBS];
  rs_pool_info info;
  const rs_pool_options o = { .min = 2, .max = 2 };
  rs_pool *const pool = open_pool(kind, &o);
  for (int i = 0; i < JOBS; i++)
    jobs[i] = send_job(pool, L, "local x = ... return x * x", i, NULL);
  bool right = true;
  for (int i = 0; i < JOBS; i++)
    right &= take(jobs[i], L) == (lua_Integer) i * i;
  CHECK(right);
  rs_pool_info_get(pool, &info);
  CHECK(info.finished == JOBS);
  CHECK(info.ended[RS_JOB_COMPLETED] == JOBS);
  CHECK(info.workers == 2 && info.bytes > 0);
  rs_pool_unref(pool);
}

/* The highest priority first, and of these the oldest; what was cancelled, or
   has waited for too long, is never begun. */
static void
check_order (const rs_runner_kind *kind, lua_State *L)
{
  static const int priorities[] = { 0, 5, -5, 5, 10 };
  static const int order[] = { 4, 1, 3, 0, 2 };
  enum { N = 5 };
  rs_job *jobs[N];
  uint64_t ids[N];
  const rs_pool_options o = { .min = 1, .max = 1 };
  rs_pool *const pool = open_pool(kind, &o);
  atomic_store(&gated, true);
  gate_close();
  rs_job *const first = send_job(pool, L, "return ...", -7, NULL);
  gate_await(1);
  atomic_store(&gated, false);
  const size_t from = tape.begun;
  for (int i = 0; i < N; i++) {
    rs_job_info info;
    const rs_job_options options = { .priority = priorities[i] };
    jobs[i] = send_job(pool, L, "return ...", i, &options);
    rs_job_info_get(jobs[i], &info);
    ids[i] = info.id;
  }
  rs_job *const cancelled = send_job(pool, L, "return ...", 20, NULL);
  const rs_job_options late = { .deadline = 1e-3 };
  rs_job *const expired = send_job(pool, L, "return ...", 21, &late);
  CHECK(rs_job_cancel(cancelled, -1) == RS_OK);
  CHECK(rs_job_wait(expired, L, RS_FOREVER) == RS_OK);
  gate_open();
  CHECK(take(first, L) == -7);
  for (int i = 0; i < N; i++)
    CHECK(take(jobs[i], L) == i);
  CHECK(state_of(cancelled) == RS_JOB_CANCELLED);
  CHECK(state_of(expired) == RS_JOB_TIMED_OUT);
  rs_job_unref(cancelled);
  rs_job_unref(expired);
  rs_pool_close(pool, RS_FOREVER);
  CHECK(tape.begun == from + N);
  for (int i = 0; i < N; i++)
    CHECK(tape.order[from + (size_t) i] == ids[order[i]]);
  rs_pool_unref(pool);
}

/* What fails is tried again; the third attempt is the last one. */
static void
check_retries (const rs_runner_kind *kind, lua_State *L)
{
  const rs_pool_options o = { .min = 1, .max = 1 };
  const rs_job_options options = { .retries = 2, .retry_on = RS_RETRY_ERROR };
  rs_pool *const pool = open_pool(kind, &o);
  rs_job_info info;
  int n;
  rs_job *const job = send_job(pool, L, "error 'no'", 0, &options);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_FAILED && info.attempts == 3);
  CHECK(rs_job_push(job, L, &n) == RS_EFAILED
        && strstr(lua_tostring(L, -2), "no") != NULL);
  lua_settop(L, 0);
  rs_job_unref(job);
  rs_pool_unref(pool);
}

static void
check_batch (const rs_runner_kind *kind, lua_State *L)
{
  enum { ITEMS = 1000 };
  const rs_pool_options po = { .min = 2, .max = 2 };
  const rs_batch_options o = { .total = ITEMS, .chunk = 10 };
  rs_pool *const pool = open_pool(kind, &po);
  rs_batch *batch = NULL;
  rs_record rec;
  lua_Integer sum = 0;
  bool right = true;
  int added = 0;
  lua_pushstring(L, "return ... * 3");
  REQUIRE(rs_batch_open(pool, L, 0, &o, &batch, NULL) == RS_OK);
  do {
    while (added < ITEMS && rs_batch_room(batch) > 0) {
      lua_pushinteger(L, ++added);
      REQUIRE(rs_batch_add(batch, L, 1, NULL) == RS_OK);
    }
    rs_batch_flush(batch, NULL);
    if (added == ITEMS)
      rs_batch_finish(batch, NULL);
    while (rs_batch_next(batch, L, &rec) == RS_OK) {
      right &= rec.state == RS_JOB_COMPLETED
            && lua_tointeger(L, -1) == 3 * rec.index;
      sum += lua_tointeger(L, -1);
      lua_settop(L, 0);
    }
  } while (rs_batch_wait(batch, NULL, RS_FOREVER) != RS_EDONE);
  CHECK(right && sum == 3 * (lua_Integer) ITEMS * (ITEMS + 1) / 2);
  rs_batch_close(batch, L);
  rs_pool_unref(pool);
}

/* A runner for each job; and one for three of them. */
static void
check_renewal (const rs_runner_kind *kind, lua_State *L)
{
  for (int fresh = 0; fresh <= 1; fresh++) {
    const rs_pool_options o = {
      .min = 1, .max = 1, .reset = fresh ? RS_RESET_FRESH : RS_RESET_GLOBALS
    };
    rs_pool_info info;
    const unsigned before = tape.opened;
    atomic_store(&spent_after, fresh ? 0 : 3);
    rs_pool *const pool = open_pool(kind, &o);
    for (int i = 0; i < 7; i++)
      CHECK(take(send_job(pool, L, "return ...", i, NULL), L) == i);
    CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
    rs_pool_info_get(pool, &info);
    /* The last one was renewed, unless the pool was closed by then. */
    const unsigned least = fresh ? 6 : 2;
    CHECK(info.renewed >= least && info.renewed <= least + 1);
    CHECK(tape.opened == before + 1 + info.renewed);
    CHECK(tape.open == 0);
    rs_pool_unref(pool);
    atomic_store(&spent_after, 0);
  }
}

/* What is queued when the pool is closed without time ends as cancelled. */
static void
check_closing (const rs_runner_kind *kind, lua_State *L)
{
  const rs_pool_options o = { .min = 1, .max = 1 };
  rs_pool *const pool = open_pool(kind, &o);
  atomic_store(&gated, true);
  gate_close();
  rs_job *const first = send_job(pool, L, "return ...", 40, NULL);
  rs_job *const second = send_job(pool, L, "return ...", 41, NULL);
  gate_await(1);
  atomic_store(&gated, false);
  rs_pool_cancel(pool, 10);
  CHECK(state_of(first) == RS_JOB_STOPPING);
  CHECK(state_of(second) == RS_JOB_CANCELLED);
  gate_open();
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  CHECK(rs_job_state_final(state_of(first)));
  rs_job_unref(first);
  rs_job_unref(second);
  rs_pool_unref(pool);
}

/* Soft, and after the grace hard: the runner hears of both. */
static void
check_stop (lua_State *L)
{
  const rs_pool_options o = { .min = 1, .max = 1 };
  rs_pool *const pool = open_pool(&waiting, &o);
  rs_job *const job = send_job(pool, L, "return ...", 50, NULL);
  pthread_mutex_lock(&other.lock);
  while (!other.waits)
    pthread_cond_wait(&other.changed, &other.lock);
  pthread_mutex_unlock(&other.lock);
  CHECK(rs_job_cancel(job, 0.01) == RS_OK);
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_OK);
  CHECK(state_of(job) == RS_JOB_CANCELLED);
  CHECK(other.asked && other.forced && other.woken >= 2);
  rs_job_unref(job);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
}

static void
check_failure (void)
{
  const rs_pool_options o = { .min = 1, .max = 1 };
  rs_pool *pool = NULL;
  rs_error err;
  REQUIRE(rs_pool_start_on(&never, &o, &pool, &err) == RS_OK);
  CHECK(rs_pool_await_open(pool, NULL, RS_FOREVER, &err) == RS_EFAILED);
  CHECK(strstr(err.text, "web1: no runspace there") != NULL);
  rs_pool_unref(pool);
}

static int
c_function (lua_State *L)
{
  return lua_gettop(L);
}

/* A pointer means nothing elsewhere: it is refused before it is sent. */
static void
check_forbidden (lua_State *L)
{
  static const char text[] = "local f = ... return function () return f end";
  const rs_pool_options o = { .min = 1, .max = 1 };
  rs_pool *const near = open_pool(&recording, &o);
  rs_pool *const far = open_pool(&remote, &o);
  rs_pool *const pools[] = { near, far };
  rs_error err;
  for (int i = 0; i < 2; i++) {
    const int want = i == 0 ? RS_OK : RS_EREFUSED;
    lua_pushliteral(L, "return 1");
    lua_createtable(L, 0, 1);
    lua_pushlightuserdata(L, &tape);
    lua_setfield(L, -2, "p");
    CHECK(rs_submit(pools[i], L, 1, NULL, NULL, &err) == want);
    CHECK(want == RS_OK
          || strcmp(err.text, "argument 1: field 'p': cannot transfer a light "
                              "userdata to another process") == 0);

    REQUIRE(luaL_loadstring(L, text) == LUA_OK);
    lua_pushcfunction(L, c_function);
    lua_call(L, 1, 1);
    CHECK(rs_submit(pools[i], L, 0, NULL, NULL, &err) == want);
    CHECK(want == RS_OK
          || strstr(err.text, "that no loaded module has to another process"));

    rs_batch *batch = NULL;
    lua_pushliteral(L, "return 1");
    REQUIRE(rs_batch_open(pools[i], L, 0, NULL, &batch, &err) == RS_OK);
    lua_pushlightuserdata(L, &tape);
    CHECK(rs_batch_add(batch, L, 1, &err) == want);
    rs_batch_cancel(batch, 0);
    rs_batch_close(batch, L);
    lua_settop(L, 0);
  }
  rs_pool_close(near, RS_FOREVER);
  rs_pool_close(far, RS_FOREVER);
  rs_pool_unref(near);
  rs_pool_unref(far);
}

int
main (void)
{
  static const rs_runner_kind *const kinds[] = { &recording, &playing };
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  rs_list_init(&tape.entries);
  for (int i = 0; i < 2; i++) {
    check_jobs(kinds[i], L);
    check_order(kinds[i], L);
    check_retries(kinds[i], L);
    check_batch(kinds[i], L);
    check_renewal(kinds[i], L);
    check_closing(kinds[i], L);
    CHECK(tape.missing == 0);
    CHECK(tape.open == 0);
    tape.begun = 0;
  }
  check_stop(L);
  check_failure();
  check_forbidden(L);
  erase();
  lua_close(L);
  return report();
}
