/* SPDX-License-Identifier: MIT */
/*
 * fork_check.c - children of fork(2): what they inherit says whose it is, they
 * have pools of their own, and end in every way there is.
 *
 * Each child is watched by alarm(2): one that hangs is found dead.
 *
 *     FORKS=1000 spec/fork_check     -- more children beside busy workers
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* syscall */
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lparallel.h"
#include "pool/face.h"
#include "support/check.h"

enum { PATIENCE = 100 };  /* seconds until a child counts as hanging */

/* What is the parent's stays, and the leak sanitizer cannot know that. */
int __lsan_is_turned_off (void);

int
__lsan_is_turned_off (void)
{
  return rs_forks() > 0;
}

/* The thread sanitizer lets no child have threads.  The address sanitizer
   holds locks of its own while a thread allocates, and has them for ever in a
   child that is forked just then: so there the others have to sleep. */
#if defined(__SANITIZE_THREAD__)
enum { THREADS = false, BUSY = false, ASLEEP = false };
#elif defined(__SANITIZE_ADDRESS__)
enum { THREADS = true, BUSY = false, ASLEEP = true };
#else
enum { THREADS = true, BUSY = true, ASLEEP = false };
#endif

/* Does the thread of that number sleep, or has it ended?  proc(5) */
static bool
sleeps (const char *number)
{
  char path[64], line[200] = "";
  snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", number);
  FILE *const file = fopen(path, "r");
  if (file == NULL)
    return true;
  const bool read = fgets(line, sizeof line, file) != NULL;
  fclose(file);
  const char *const name = strrchr(line, ')');
  return !read || name == NULL || name[2] == 'S';
}

/* Wait until all other threads sleep. */
static void
await_sleep (void)
{
  const int mine = (int) syscall(SYS_gettid);
  bool all = false;
  while (!all) {
    DIR *const dir = opendir("/proc/self/task");
    const struct dirent *entry;
    REQUIRE(dir != NULL);
    all = true;
    while ((entry = readdir(dir)) != NULL)
      all = (entry->d_name[0] == '.' || atoi(entry->d_name) == mine
             || sleeps(entry->d_name)) && all;
    closedir(dir);
    sched_yield();
  }
}

/* What a child inherits. */
typedef struct estate {
  lua_State *L;
  rs_pool *pool;
  rs_job *job;
  rs_events *events;
  rs_batch *batch;
} estate;

static int
fork_watched (void)
{
  fflush(NULL);
  if (ASLEEP)
    await_sleep();
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    passed = failed = 0;
    pthread_mutex_init(&gate.lock, NULL);  /* threads that are not here may */
    pthread_cond_init(&gate.changed, NULL);  /* wait at it */
    alarm(PATIENCE);
  }
  return (int) pid;
}

/* The child has ended by itself, and well. */
static bool
is_well (int pid)
{
  int status;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fprintf(stderr, "child: %s %d\n", WIFSIGNALED(status) ? "signal"
            : "status", WIFSIGNALED(status) ? WTERMSIG(status)
                                            : WEXITSTATUS(status));
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* RS_EINVAL, and the text tells whose 'noun' it is. */
static bool
is_foreign (int status, rs_error *err, const char *noun)
{
  char text[100];
  snprintf(text, sizeof text, "this %s belongs to another process", noun);
  const bool ok = status == RS_EINVAL && err->status == RS_EINVAL
               && strcmp(err->text, text) == 0;
  if (!ok)
    fprintf(stderr, "%s, not '%s': %s\n", rs_status_name(status), text,
            err->text);
  err->status = RS_OK;
  err->text[0] = '\0';
  return ok;
}

/* In a child: everything that there is of a pool. */
static void
use_pool (lua_State *L, rs_pool *pool)
{
  rs_error err = { .status = RS_OK };
  rs_pool_info info;
  rs_batch *batch = NULL;
  rs_job *job = NULL;
  rs_events *const events = rs_events_new();
  lua_settop(L, 0);
  lua_pushliteral(L, "return 1");
  CHECK(is_foreign(rs_submit(pool, L, 0, NULL, &job, &err), &err, "pool"));
  CHECK(lua_gettop(L) == 0 && job == NULL);
  lua_pushliteral(L, "return 1");
  CHECK(is_foreign(rs_batch_open(pool, L, 0, NULL, &batch, &err), &err,
                   "pool"));
  CHECK(lua_gettop(L) == 0 && batch == NULL);
  CHECK(is_foreign(rs_pool_await_open(pool, NULL, RS_FOREVER, &err), &err,
                   "pool"));
  CHECK(rs_pool_await_room(pool, events) == RS_EINVAL);
  CHECK(rs_pool_shut(pool, events) == RS_EINVAL);
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_EINVAL);
  rs_pool_cancel(pool, 0);
  rs_pool_info_get(pool, &info);
  CHECK(info.closed && info.workers == 0 && info.max == 0);
  CHECK(rs_pool_user(pool) == NULL && !rs_pool_is_limited(pool));
  rs_pool_unref(rs_pool_ref(pool));
  rs_events_unref(events);
}

static void
use_job (lua_State *L, rs_job *job)
{
  rs_job_info info;
  int n = 7;
  CHECK(rs_job_wait(job, L, RS_FOREVER) == RS_EINVAL);
  CHECK(rs_job_wait(job, NULL, 0) == RS_EINVAL);
  CHECK(rs_job_await(job, RS_FOREVER) == RS_EINVAL);
  CHECK(rs_job_cancel(job, 0) == RS_EINVAL);
  CHECK(rs_job_push(job, L, &n) == RS_EINVAL && n == 7);
  CHECK(!rs_job_take(job, L, &n) && !rs_job_help(job, L));
  CHECK(lua_gettop(L) == 0);
  rs_job_info_get(job, &info);
  CHECK(info.state == RS_JOB_LOST && info.id > 0);
  CHECK(strcmp(info.reason, "lost") == 0 && !info.unseen);
  CHECK(rs_job_name(job) == NULL);
  CHECK(rs_job_record(job, 0) == NULL && rs_job_deliver(job) == NULL);
  rs_job_orphan(job);
  rs_job_listen(job, RS_LISTEN_FINISHED);
  rs_job_see(job);
  rs_job_look(job);
  rs_job_forget(rs_job_ref(job));
}

static void
use_events (rs_events *events)
{
  CHECK(rs_events_wait(events, RS_FOREVER) == RS_EINVAL);
  CHECK(rs_events_wait(events, 0) == RS_EINVAL);
  CHECK(!rs_events_pending(events) && rs_events_next(events) == NULL);
  CHECK(rs_events_jobs(events, NULL, 0) == 0);
  CHECK(rs_events_fileno(events) == -1 && errno == EINVAL);
  rs_events_listen(events, RS_LISTEN_STARTED);
  rs_events_wake(events);
  rs_events_poke(events);
  rs_events_close(events);
  rs_events_unref(rs_events_ref(events));
}

static void
use_batch (lua_State *L, rs_batch *batch)
{
  rs_error err = { .status = RS_OK };
  rs_record record = { .state = RS_JOB_QUEUED };
  rs_batch_info info;
  size_t added = 0;
  CHECK(rs_batch_room(batch) == 0);
  lua_pushinteger(L, 1);
  CHECK(is_foreign(rs_batch_add(batch, L, 1, &err), &err, "batch"));
  CHECK(lua_gettop(L) == 0);
  lua_newtable(L);
  CHECK(is_foreign(rs_batch_add_array(batch, L, 1, 1, 1, &added, &err), &err,
                   "batch"));
  lua_newtable(L);
  CHECK(rs_batch_take(batch, L, 2) == 0);
  lua_settop(L, 0);
  CHECK(is_foreign(rs_batch_add_range(batch, 1, 1, 1, &err), &err, "batch"));
  CHECK(is_foreign(rs_batch_flush(batch, &err), &err, "batch"));
  CHECK(is_foreign(rs_batch_finish(batch, &err), &err, "batch"));
  CHECK(rs_batch_wait(batch, L, RS_FOREVER) == RS_EINVAL);
  CHECK(rs_batch_next(batch, L, &record) == RS_EINVAL);
  CHECK(rs_batch_record(batch) == NULL);
  rs_batch_stop(batch);
  rs_batch_cancel(batch, 0);
  rs_batch_info_get(batch, &info);
  CHECK(info.stopped && info.added == 0);
}

/* A pool of the child's own does what pools do. */
static void
use_own (lua_State *L, rs_events *foreign)
{
  rs_error err = { .status = RS_OK };
  if (!THREADS)
    return;
  rs_events *const events = rs_events_new();
  rs_pool *const pool = gated_pool(1, 2);
  const rs_job_options o = { .events = events, .timeout = 1000 };
  rs_job *job = NULL;
  gate_open();
  CHECK(result_of(submit(pool, L, "wait_at_gate() print 'own' return 9", 0), L)
        == 9);
  lua_pushliteral(L, "return 12");
  REQUIRE(rs_submit(pool, L, 0, &o, &job, &err) == RS_OK);
  while (!rs_job_settled(job))
    CHECK(rs_job_await(job, RS_FOREVER) == RS_OK);
  CHECK(result_of(job, L) == 12);
  if (foreign != NULL) {
    const rs_job_options bad = { .events = foreign };
    lua_pushliteral(L, "return 1");
    CHECK(is_foreign(rs_submit(pool, L, 0, &bad, NULL, &err), &err,
                     "rs_events"));
  }
  CHECK(rs_pool_close(pool, RS_FOREVER) == RS_OK);
  rs_pool_unref(pool);
  rs_events_unref(events);
}

/* In a child: what it inherits, then something of its own, and all is given
   back. */
static void
use_all (const estate *e)
{
  if (e->pool != NULL)
    use_pool(e->L, e->pool);
  if (e->job != NULL)
    use_job(e->L, e->job);
  if (e->events != NULL)
    use_events(e->events);
  if (e->batch != NULL)
    use_batch(e->L, e->batch);
  rs_console_write(1, "child\n", 6);
  rs_console_status(NULL);
  use_own(e->L, e->events);
  rs_batch_close(e->batch, e->L);
  rs_job_unref(e->job);
  rs_pool_unref(e->pool);
  rs_events_unref(e->events);
}

/* The end of a child: 'L' may be NULL. */
static _Noreturn void
end_child (lua_State *L)
{
  if (L != NULL)
    lua_close(L);
  exit(failed != 0);
}

/* Fork, and let the child use everything and end: did it go well? */
static bool
child_is_well (const estate *e)
{
  const int pid = fork_watched();
  if (pid == 0) {
    use_all(e);
    end_child(e->L);
  }
  return is_well(pid);
}

static void
try_child (const estate *e)
{
  CHECK(child_is_well(e));
}

static estate
open_estate (lua_State *L, const char *source)
{
  rs_error err = { .status = RS_OK };
  estate e = { .L = L, .events = rs_events_new(), .pool = gated_pool(2, 2) };
  const rs_job_options o = {
    .events = e.events, .listen = RS_LISTEN_FINISHED, .timeout = 1000
  };
  lua_settop(L, 0);
  lua_pushstring(L, source);
  REQUIRE(rs_submit(e.pool, L, 0, &o, &e.job, &err) == RS_OK);
  return e;
}

static void
close_estate (estate *e)
{
  rs_job_unref(e->job);
  rs_batch_close(e->batch, e->L);
  rs_pool_unref(e->pool);
  rs_events_close(e->events);
  rs_events_unref(e->events);
}

/* ---------------------------------------------------------------- moments */

static void
check_idle (lua_State *L)
{
  estate e = open_estate(L, "return 5");
  while (!rs_job_settled(e.job))
    CHECK(rs_job_await(e.job, RS_FOREVER) == RS_OK);
  try_child(&e);
  CHECK(rs_events_fileno(e.events) >= 0);
  try_child(&e);
  /* The parent hears nothing of what its children did. */
  struct pollfd fd = { .fd = rs_events_fileno(e.events), .events = POLLIN };
  CHECK(poll(&fd, 1, 0) == 1);  /* the job has ended */
  rs_job_unref(rs_events_next(e.events));
  rs_events_wait(e.events, 0);
  try_child(&e);
  CHECK(poll(&fd, 1, 0) == 0);
  rs_job_ref(e.job);
  CHECK(result_of(e.job, L) == 5);
  CHECK(result_of(submit(e.pool, L, "return 6", 0), L) == 6);
  close_estate(&e);
}

static void
check_running (lua_State *L)
{
  rs_error err = { .status = RS_OK };
  gate_close();
  estate e = open_estate(L, "wait_at_gate() return 5");
  rs_job *const other = submit(e.pool, L, "wait_at_gate() return 6", 0);
  rs_job *const queued = submit(e.pool, L, "return 7", 0);
  lua_pushliteral(L, "local i = ... wait_at_gate() return i");
  const rs_batch_options o = { .chunk = 1, .limit = 2 };
  REQUIRE(rs_batch_open(e.pool, L, 0, &o, &e.batch, &err) == RS_OK);
  REQUIRE(rs_batch_add_range(e.batch, 1, 1, 1, &err) == RS_OK);
  REQUIRE(rs_batch_flush(e.batch, &err) == RS_OK);
  gate_await(2);
  try_child(&e);
  const int pid = fork_watched();
  if (pid == 0) {  /* nothing is given back */
    use_job(L, queued);
    end_child(NULL);
  }
  CHECK(is_well(pid));
  gate_open();
  CHECK(result_of(other, L) == 6);
  CHECK(result_of(queued, L) == 7);
  rs_job_ref(e.job);
  CHECK(result_of(e.job, L) == 5);
  rs_record record;
  REQUIRE(rs_batch_wait(e.batch, L, RS_FOREVER) == RS_OK);
  CHECK(rs_batch_next(e.batch, L, &record) == RS_OK);
  CHECK(record.state == RS_JOB_COMPLETED && lua_tointeger(L, -1) == 1);
  try_child(&e);  /* with a chunk that is being read */
  lua_settop(L, 0);
  close_estate(&e);
}

/* A thread that waits for the job, and one that waits at the events. */
static void *
wait_for_job (void *job)
{
  return rs_job_wait(job, NULL, RS_FOREVER) == RS_OK ? job : NULL;
}

static void *
wait_at_events (void *events)
{
  return rs_events_wait(events, RS_FOREVER) == RS_OK ? events : NULL;
}

static void
check_waiting (lua_State *L)
{
  pthread_t threads[2];
  void *result;
  gate_close();
  estate e = open_estate(L, "wait_at_gate() return 5");
  gate_await(1);
  REQUIRE(pthread_create(&threads[0], NULL, wait_for_job, e.job) == 0);
  REQUIRE(pthread_create(&threads[1], NULL, wait_at_events, e.events) == 0);
  for (int i = 0; i < 3; i++)
    try_child(&e);
  gate_open();
  for (int i = 0; i < 2; i++) {
    REQUIRE(pthread_join(threads[i], &result) == 0);
    CHECK(result != NULL);
  }
  close_estate(&e);
}

/* Another thread forks than the one that made it all.  Returns what it is
   given when that went well. */
static void *
fork_here (void *ud)
{
  const estate *const e = ud;
  lua_State *const L = luaL_newstate();  /* 'e->L' is the other thread's */
  estate mine = *e;
  bool well = true;
  mine.L = L;
  for (int i = 0; i < 3; i++)
    well = child_is_well(&mine) && well;
  lua_close(L);
  return well ? ud : NULL;
}

static void
check_second_thread (lua_State *L)
{
  pthread_t thread;
  void *result = NULL;
  gate_close();
  estate e = open_estate(L, "wait_at_gate() return 5");
  gate_await(1);
  REQUIRE(pthread_create(&thread, NULL, fork_here, &e) == 0);
  if (ASLEEP)
    CHECK(pthread_join(thread, &result) == 0);
  gate_open();
  rs_job_ref(e.job);
  CHECK(result_of(e.job, L) == 5);
  for (int i = 0; i < 100; i++)
    CHECK(result_of(submit(e.pool, L, "return 6", 0), L) == 6);
  if (!ASLEEP)
    CHECK(pthread_join(thread, &result) == 0);
  CHECK(result == &e);
  close_estate(&e);
}

/* -------------------------------------------------------------- while busy */

static _Atomic bool over;

/* Keep the pool, its timers, the console and the shared memory busy. */
static void *
keep_busy (void *ud)
{
  static const char source[] =
    "local t = {} "
    "for i = 1, 200 do t[i] = ('x'):rep(i * 50) end "
    "local large = ('y'):rep(400000) "
    "print(#large) "
    "return #t, large";
  rs_pool *const pool = ud;
  rs_error err;
  while (!over) {
    lua_State *const L = rs_host_open();
    const rs_job_options o = { .timeout = 1000, .deadline = 1000 };
    rs_job *jobs[8] = { NULL };
    for (int i = 0; i < 8; i++) {
      lua_pushstring(L, source);
      rs_submit(pool, L, 0, &o, &jobs[i], &err);
    }
    for (int i = 0; i < 8; i++)
      CHECK(result_of(jobs[i], L) == 200);
    rs_pool *other = NULL;
    if (rs_pool_open(NULL, &other, &err) == RS_OK)
      rs_pool_unref(other);
    rs_host_close(L);
  }
  return NULL;
}

static void
check_busy (lua_State *L)
{
  pthread_t thread;
  const char *const text = getenv("FORKS");
  const int n = !BUSY ? 0 : text != NULL ? atoi(text) : 30;
  estate e = open_estate(L, "return 5");
  over = false;
  REQUIRE(pthread_create(&thread, NULL, keep_busy, e.pool) == 0);
  for (int i = 0; i < n; i++)
    try_child(&e);
  over = true;
  REQUIRE(pthread_join(thread, NULL) == 0);
  close_estate(&e);
}

/* ------------------------------------------------------------ other worlds */

static void
check_generations (lua_State *L)
{
  estate e = open_estate(L, "return 5");
  rs_initial_state *const is = rs_initial_state_new();
  rs_error err = { .status = RS_OK };
  lua_pushinteger(L, 33);
  REQUIRE(rs_initial_state_add_variable(is, "given", L, &err) == RS_OK);
  CHECK(rs_forks() == 0);
  const int pid = THREADS ? fork_watched() : -1;
  if (pid == 0) {
    const rs_pool_options o = { .initial_state = is };
    rs_pool *pool = NULL;
    CHECK(rs_forks() == 1);
    REQUIRE(rs_pool_open(&o, &pool, &err) == RS_OK);
    CHECK(result_of(submit(pool, L, "return given", 0), L) == 33);
    const int again = fork_watched();
    if (again == 0) {
      CHECK(rs_forks() == 2);
      use_pool(L, pool);
      use_all(&e);
      rs_pool_unref(pool);
      end_child(L);
    }
    CHECK(is_well(again));
    CHECK(result_of(submit(pool, L, "return given", 0), L) == 33);
    rs_pool_unref(pool);
    rs_initial_state_unref(is);
    end_child(L);
  }
  CHECK(pid < 0 || is_well(pid));
  rs_initial_state_unref(is);
  close_estate(&e);
}

static void
check_exec (lua_State *L)
{
  gate_close();
  estate e = open_estate(L, "wait_at_gate() return 5");
  gate_await(1);
  int pid = fork_watched();
  if (pid == 0) {
    execl("/bin/sh", "sh", "-c", "exit 0", (char *) NULL);
    _exit(1);
  }
  CHECK(is_well(pid));
  pid = fork_watched();
  if (pid == 0)
    _exit(0);
  CHECK(is_well(pid));
  gate_open();
  close_estate(&e);
}

/* ------------------------------------------------------------------ in Lua */

/* fork() -> pid | 0 */
static int
fork_in_lua (lua_State *L)
{
  lua_pushinteger(L, fork_watched());
  return 1;
}

/* await(pid) -> has the child ended well */
static int
await_in_lua (lua_State *L)
{
  lua_pushboolean(L, is_well((int) luaL_checkinteger(L, 1)));
  return 1;
}

static int
threads_in_lua (lua_State *L)
{
  lua_pushboolean(L, THREADS);
  return 1;
}

static int
generation_in_lua (lua_State *L)
{
  lua_pushinteger(L, rs_forks());
  return 1;
}

static int
open_fork (lua_State *L)
{
  static const luaL_Reg functions[] = {
    { "fork", fork_in_lua },
    { "await", await_in_lua },
    { "generation", generation_in_lua },
    { "threads", threads_in_lua },
    { NULL, NULL }
  };
  luaL_newlib(L, functions);
  return 1;
}

/*
 * Run it in a state that has 'parallel', and close that.  The chunk may fork,
 * and return in the child as well, which then ends by itself; an error is a
 * failure of who has it.
 */
static void
run_script (const char *source)
{
  lua_State *const L = rs_host_open();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  luaL_requiref(L, "fork", open_fork, 1);
  lua_settop(L, 0);
  const unsigned before = rs_forks();
  lua_getglobal(L, "debug");
  lua_getfield(L, -1, "traceback");
  lua_replace(L, 1);
  lua_settop(L, 1);
  const bool ok = luaL_loadstring(L, source) == LUA_OK
               && lua_pcall(L, 0, 0, 1) == LUA_OK;
  if (!ok)
    fprintf(stderr, "generation %u: %s\n", rs_forks(), lua_tostring(L, -1));
  CHECK(ok);
  rs_host_close(L);
  if (rs_forks() != before)
    exit(failed != 0);
}

/* Helpers of all scripts: 'foreign(noun, f, ...)' */
#define LUA_HELPERS \
  "local function foreign (noun, f, ...) " \
  "  local ok, err = pcall(f, ...) " \
  "  local text = 'this ' .. noun .. ' belongs to another process' " \
  "  assert(not ok and tostring(err):find(text, 1, true), " \
  "         noun .. ': ' .. tostring(err)) " \
  "end " \
  "local function call (object, name, ...) " \
  "  return object[name](object, ...) " \
  "end " \
  "local function use (pool, job) " \
  "  local function one () return 1 end " \
  "  foreign('pool', call, pool, 'run', one) " \
  "  foreign('pool', call, pool, 'run', 'return 1') " \
  "  foreign('pool', call, pool, 'spawn', one) " \
  "  foreign('pool', call, pool, 'spawn', 'return 1') " \
  "  foreign('pool', call, pool, 'map', {1}, one) " \
  "  foreign('pool', call, pool, 'collect', {1}, one) " \
  "  foreign('pool', call, pool, 'invoke', one, {a = {}}) " \
  "  foreign('pool', call, pool, 'close') " \
  "  foreign('pool', call, pool, 'info') " \
  "  foreign('pool', tostring, pool) " \
  "  foreign('job', call, job, 'get') " \
  "  foreign('job', call, job, 'get', 1) " \
  "  foreign('job', call, job, 'wait') " \
  "  foreign('job', call, job, 'wait', 0) " \
  "  foreign('job', call, job, 'cancel') " \
  "  foreign('job', parallel.wait, job) " \
  "  foreign('job', parallel.wait, {job, job}, {mode = 'any'}) " \
  "  foreign('job', function () return job.state end) " \
  "  foreign('job', function () return job.name end) " \
  "  foreign('job', function () return job.streams end) " \
  "  foreign('job', tostring, job) " \
  "  for _, other in pairs(parallel.jobs()) do assert(other ~= job) end " \
  "  parallel.poll(0) " \
  "  if fork.threads() then " \
  "    assert(parallel.run(function () return 8 end) == 8) " \
  "    assert(#parallel.map({1, 2, 3}, function (i) return i end) == 3) " \
  "    local own <close> = parallel.pool{max = 1} " \
  "    local ticks = 0 " \
  "    parallel.on('tock', function () ticks = ticks + 1 end) " \
  "    local j = own:spawn(function () parallel.task.emit('tock') end) " \
  "    j:get() " \
  "    assert(ticks == 1 and j.state == 'completed') " \
  "  end " \
  "end "

static void
check_lua_idle (void)
{
  run_script(LUA_HELPERS
    "local pool <close> = parallel.pool{max = 2} "
    "local job = pool:spawn(function () return 4 end) "
    "assert(job:get() == 4) "
    "assert(parallel.run(function () return 5 end) == 5) "
    "local ended = 0 "  /* of jobs that the parent has not */
    "parallel.on('finished', function () ended = ended + 1 end) "
    "local pid = fork.fork() "
    "if pid == 0 then "
    "  use(pool, job) "
    "  assert(not fork.threads() or ended > 0) "
    "  return "
    "end "
    "assert(fork.await(pid)) "
    "assert(ended == 0) "
    "pid = fork.fork() "
    "if pid == 0 then return end "  /* it uses nothing */
    "assert(fork.await(pid)) "
    "assert(parallel.run(function () return 5 end) == 5) "
    "assert(pool:run(function () return 6 end) == 6)");
}

static void
check_lua_running (void)
{
  run_script(LUA_HELPERS
    "local pool <close> = parallel.pool{max = 1} "
    "local job = pool:spawn(function () "
    "  while true do parallel.task.sleep(1000) end end) "
    "local queued = pool:spawn(function () return 7 end) "
    "local kept = pool:spawn(function () error 'unseen' end) "
    "local pid = fork.fork() "
    "if pid == 0 then use(pool, job) use(pool, queued) return end "
    "assert(fork.await(pid)) "
    "job:cancel() "
    "assert(queued:get() == 7) "
    "assert(kept:wait() == 'failed')");
}

/* A handler forks while the host waits, and returns in the child, too: what
   waits there raises. */
static void
check_lua_handler (const char *wait)
{
  char source[6000];
  snprintf(source, sizeof source, LUA_HELPERS
    "local pool <close> = parallel.pool{max = 2} "
    "local pid, gate "
    "local function on_tick () if not pid then pid = fork.fork() end end "
    "parallel.on('tick', on_tick) "
    "local function tick (i) "
    "  parallel.task.emit('tick') parallel.task.sleep(0.02) return i end "
    "local job = pool:spawn(tick, 3) "
    "local ok, err = pcall(function () %s end) "
    "if pid == 0 then "
    "  assert(not ok and err:find('belongs to another process', 1, true), "
    "         tostring(err)) "
    "  return use(pool, job) "
    "end "
    "assert(ok, err) "
    "assert(fork.await(pid)) "
    "assert(job:get() == 3)", wait);
  run_script(source);
}

/* A job forks, and goes on in both. */
static void
check_lua_job (void)
{
  run_script(
    "local fork_here = fork.fork "
    "package.loaded.fork = nil "  /* so that it travels as a pointer */
    "local pool <close> = parallel.pool{max = 2} "
    "local function child (what) "
    "  local pid = fork_here() "
    "  if pid ~= 0 then return pid end "
    "  print 'a child of a job' "
    "  if what == 'raise' then error 'in the child' end "
    "  local ok, err = pcall(parallel.task.emit, 'tick') "
    "  if ok or not err:find('this job belongs to another process', 1, true) "
    "  then os.exit(3) end "
    "  if what == 'exit' then os.exit(0) end "
    "  local ok, err = pcall(parallel.run, function () return 1 end) "
    "  if ok or not err:find('this pool belongs to another process', 1, true) "
    "  then os.exit(4) end "
    "end "
    "for _, what in ipairs{'return', 'raise', 'exit'} do "
    "  assert(fork.await(pool:run(child, what)), what) "
    "end "
    "local generation = fork.generation "
    "local pids = pool:map({'return', 'next'}, function (what) "
    "  if what == 'next' then "  /* the child has the first item only */
    "    if generation() > 0 then os.exit(5) end "
    "    return false "
    "  end "
    "  return child(what) "
    "end, {chunk = 2}) "
    "assert(fork.await(pids[1])) "
    "assert(pool:run(function () return 6 end) == 6)");
}

/* What encodes an argument forks, and what rebuilds a result. */
static void
check_lua_transfer (void)
{
  run_script(LUA_HELPERS
    "local pool <close> = parallel.pool{max = 2} "
    "local pid "
    "local forks = setmetatable({}, {__transfer = function () "
    "  pid = fork.fork() return 5 end}) "
    "local function same (x) return x end "
    "for _, verb in ipairs{'run', 'spawn'} do "
    "  local ok, err = pcall(pool[verb], pool, same, forks) "
    "  if pid == 0 then "
    "    assert(not ok and err:find('belongs to another process', 1, true), "
    "           err) "
    "    return "
    "  end "
    "  assert(ok, err) "
    "  assert(fork.await(pid)) "
    "end "
    "local ok, err = pcall(pool.map, pool, {forks}, same) "
    "if pid == 0 then "
    "  assert(not ok and err:find('belongs to another process', 1, true), "
    "         err) "
    "  return "
    "end "
    "assert(ok and err[1] == 5, err) "
    "assert(fork.await(pid))");
}

/* A poke of the events that a program has from its parent comes to those at
   which its state waits, in a child and in the child's own. */
static void
check_poke (void)
{
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  luaL_requiref(L, "parallel", luaopen_parallel, 1);
  rs_events *const events = rs_parallel_events(L);
  const int pid = fork_watched();
  if (pid == 0) {
    rs_events_poke(events);  /* nobody waits yet */
    rs_events *own = rs_parallel_events(L);
    CHECK(own != events && rs_events_wait(own, 0) == RS_ETIMEOUT);
    rs_events_poke(events);
    CHECK(rs_events_wait(own, 0) == RS_OK);
    const int second = fork_watched();
    if (second == 0) {
      own = rs_parallel_events(L);
      CHECK(rs_events_wait(own, 0) == RS_ETIMEOUT);
      rs_events_poke(events);
      CHECK(rs_events_wait(own, 0) == RS_OK);
      end_child(L);
    }
    CHECK(is_well(second));
    end_child(L);
  }
  CHECK(is_well(pid));
  lua_close(L);
}

int
main (void)
{
  const int null = open("/dev/null", O_WRONLY);
  const int out = dup(1);
  REQUIRE(null >= 0 && out >= 0 && dup2(null, 1) == 1);  /* jobs print */
  lua_State *const L = luaL_newstate();
  REQUIRE(L != NULL);
  luaL_openlibs(L);
  check_idle(L);
  check_running(L);
  check_waiting(L);
  check_second_thread(L);
  check_busy(L);
  check_generations(L);
  check_exec(L);
  lua_close(L);
  check_lua_idle();
  check_lua_running();
  check_lua_handler("job:get()");
  check_lua_handler("job:wait(1000)");
  check_lua_handler("parallel.wait(job)");
  check_lua_handler("pool:run(function () parallel.task.sleep(0.1) end)");
  check_lua_handler("pool:map({1, 2, 3, 4}, tick)");
  check_lua_handler("pool:collect({1, 2, 3, 4}, tick)");
  check_lua_handler("pool:close()");
  check_lua_job();
  check_lua_transfer();
  check_poke();
  fflush(stdout);
  dup2(out, 1);
  return report();
}
