/* SPDX-License-Identifier: MIT */
/*
 * lpool.c - pools and initial states as Lua sees them.
 *
 * The Lua part has checked the options before it calls a function here; for
 * methods, which scripts may call, too, the library checks them again.
 */
#include "face/lpool.h"

#include <math.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/level.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lfinish.h"
#include "face/lhandle.h"
#include "face/ljob.h"
#include "face/loptions.h"
#include "face/lstream.h"
#include "lparallel.h"

/* Keys in the registry, by address. */
static const char workers_key;  /* most workers of the default pool; or nil */
static const char warnings_key; /* true: 'warn' speaks in runspaces; or nil */
static const char default_key;  /* handle of the default pool */
static const char isolation_key;  /* RS_ISOLATION_ of the default pool; or
                                   nil */
static const char pools_key;    /* table: handles of pools are weak keys */

/* Type of a run guard: it holds the job of a 'pool:run' during the wait. */
static const char run_type[] = "parallel.run";

/* User values of a pool: true if the handle has no reference to the pool; the
   option 'streams', a table or nil. */
enum { LENT = 1, STREAMS };

static rs_pool *
check (lua_State *L)
{
  return rs_handle_check(L, 1, RS_POOL_TYPE);
}

/* ---------------------------------------------------------- initial states */

/* Names of Lua's libraries, in the order of RS_LIB_ bits. */
static const char *const libraries[] = {
  "base", "package", "coroutine", "table", "io", "os", "string", "math",
  "utf8", "debug", NULL
};

/* [-0, +0, v]  Raise if 'status', of a setter that gives no text, is not
   RS_OK. */
static void
check_status (lua_State *L, int status)
{
  if (status != RS_OK)
    rs_handle_error(L, "%s", rs_status_message(status));
}

/* [-0, +0, v]  Raise the text of 'err' behind 'kind' and the name of the
   variable or module. */
static int
refuse (lua_State *L, const char *kind, const char *name, const rs_error *err)
{
  return rs_handle_error(L, "%s '%s': %s", kind,
                         rs_handle_clean(L, name, strlen(name)), err->text);
}

/* [-0, +0, e]  Add the globals in the table on top, which is spec.variables or
   spec.functions. */
static void
add_variables (lua_State *L, rs_initial_state *is, const char *kind)
{
  rs_error err;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    const char *const name = luaL_checkstring(L, -2);
    if (rs_initial_state_add_variable(is, name, L, &err) != RS_OK)
      refuse(L, kind, name, &err);
  }
}

/* [-0, +0, e]  Add the loaders in the table on top, spec.preload. */
static void
add_preloads (lua_State *L, rs_initial_state *is)
{
  rs_error err;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    const char *const name = luaL_checkstring(L, -2);
    if (rs_initial_state_add_loader(is, name, L, &err) != RS_OK)
      refuse(L, "preload", name, &err);
  }
}

/* [-0, +0, e]  Add the modules in the array on top, spec.modules. */
static void
add_modules (lua_State *L, rs_initial_state *is)
{
  const lua_Integer n = luaL_len(L, -1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, -1, i);
    check_status(L, rs_initial_state_add_module(is, luaL_checkstring(L, -1)));
    lua_pop(L, 1);
  }
}

/* [-0, +0, e]  Set the libraries to those in the array on top, spec.libs. */
static void
set_libs (lua_State *L, rs_initial_state *is)
{
  unsigned libs = 0;
  const lua_Integer n = luaL_len(L, -1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_geti(L, -1, i);
    libs |= 1u << luaL_checkoption(L, lua_gettop(L), NULL, libraries);
    lua_pop(L, 1);
  }
  check_status(L, rs_initial_state_set_libs(is, libs));
}

/* [-0, +0, e]  Set the sandbox from the table on top, spec.sandbox. */
static void
set_sandbox (lua_State *L, rs_initial_state *is)
{
  const int spec = lua_gettop(L);
  rs_sandbox sandbox = { .files = RS_FILES_ALL };
  lua_getfield(L, spec, "files");
  sandbox.files = (int) luaL_checkinteger(L, -1);
  lua_getfield(L, spec, "forbid");
  sandbox.forbid = (unsigned) luaL_checkinteger(L, -1);
  if (lua_getfield(L, spec, "c_modules") == LUA_TTABLE) {  /* anchors names */
    const lua_Integer n = luaL_len(L, -1);
    const char **const names =
      lua_newuserdatauv(L, ((size_t) n + 1) * sizeof *names, 0);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_rawgeti(L, -2, i);
      names[i - 1] = luaL_checkstring(L, -1);
      lua_pop(L, 1);
    }
    names[n] = NULL;
    sandbox.c_modules = names;
  }
  check_status(L, rs_initial_state_set_sandbox(is, &sandbox));
  lua_settop(L, spec);
}

/* [-0, +1, m]  Push the handle of a new initial state, which has the module
   'parallel' and what this state hands on: warnings, a sandbox.  Return the
   initial state. */
static rs_initial_state *
push_initial_state (lua_State *L)
{
  void **const handle = rs_handle_new(L, RS_INITIAL_STATE_TYPE, 0);
  *handle = rs_initial_state_new();
  if (*handle == NULL)
    rs_handle_error(L, "%s", rs_status_message(RS_ENOMEM));
  lua_rawgetp(L, LUA_REGISTRYINDEX, &warnings_key);
  check_status(L, rs_initial_state_set_warnings(*handle,
                                                lua_toboolean(L, -1)));
  lua_pop(L, 1);
  check_status(L, rs_initial_state_inherit(*handle, L));
  check_status(L, rs_initial_state_add_preload(*handle, "parallel",
                                               rs_lua_face(L)->open,
                                               RS_PRELOAD_GLOBAL
                                               | RS_PRELOAD_SURE));
  return *handle;
}

int
rs_lua_initial_state (lua_State *L)
{
  rs_error err;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  rs_initial_state *const is = push_initial_state(L);
  if (lua_getfield(L, 1, "libs") == LUA_TTABLE)
    set_libs(L, is);
  if (lua_getfield(L, 1, "sandbox") == LUA_TTABLE)
    set_sandbox(L, is);
  lua_getfield(L, 1, "path");
  check_status(L, rs_initial_state_set_path(is, lua_tostring(L, -1)));
  lua_getfield(L, 1, "cpath");
  check_status(L, rs_initial_state_set_cpath(is, lua_tostring(L, -1)));
  if (lua_getfield(L, 1, "preload") == LUA_TTABLE)
    add_preloads(L, is);
  if (lua_getfield(L, 1, "variables") == LUA_TTABLE)
    add_variables(L, is, "variable");
  if (lua_getfield(L, 1, "functions") == LUA_TTABLE)
    add_variables(L, is, "function");
  if (lua_getfield(L, 1, "modules") == LUA_TTABLE)
    add_modules(L, is);
  if (lua_getfield(L, 1, "init") != LUA_TNIL
      && rs_initial_state_set_init(is, L, &err) != RS_OK)
    return rs_handle_error(L, "init: %s", err.text);
  lua_settop(L, 2);
  return 1;
}

static int
initial_state_gc (lua_State *L)
{
  rs_initial_state **const handle = luaL_checkudata(L, 1,
                                                    RS_INITIAL_STATE_TYPE);
  rs_initial_state_unref(*handle);
  *handle = NULL;
  return 0;
}

void
rs_open_initial_state_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__gc", initial_state_gc },
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = { { NULL, NULL } };
  rs_handle_type(L, RS_INITIAL_STATE_TYPE, rs_lua_face(L), meta, methods);
}

/* ------------------------------------------------------------------- pools */

/* [-0, +1, m]  Push the table whose weak keys are the handles of pools. */
static void
push_pools (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &pools_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &pools_key);
}

/* core.pools() -> array of the pools that are open */
int
rs_lua_pools (lua_State *L)
{
  lua_settop(L, 0);
  lua_newtable(L);
  push_pools(L);
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, 2)) {
    void *const *const handle = rs_handle_test(L, 3, RS_POOL_TYPE);
    rs_pool_info info = { .closed = true };
    if (handle != NULL && *handle != NULL  /* NULL: failed to open */
        && !rs_handle_foreign((const rs_handle *) handle))
      rs_pool_info_get(*handle, &info);
    if (!info.closed) {
      lua_pushvalue(L, 3);
      lua_rawseti(L, 1, ++n);
    }
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  return 1;
}

/* [-0, +0, -]  Set 'special' of the handle of a pool at 'index'. */
static void
set_special (lua_State *L, int index)
{
  rs_handle *const handle = lua_touserdata(L, index);
  handle->special = lua_getiuservalue(L, index, STREAMS) != LUA_TNIL
                 || rs_pool_is_limited(handle->object);
  lua_pop(L, 1);
}

/* Seconds in which most pools open.  For a pool that takes longer the host
   waits at its events, so that handlers run, and an interrupt or a stop ends
   the wait. */
#define QUICK 0.01

/* (light userdata: pool, rs_error) -> status.  Wait until the pool is open. */
static int
await_open (lua_State *L)
{
  rs_pool *const pool = lua_touserdata(L, 1);
  rs_error *const err = lua_touserdata(L, 2);
  rs_events *const e = rs_lua_events(L);
  int status;
  while ((status = rs_pool_await_open(pool, e, 0, err)) == RS_EBUSY) {
    rs_lua_sleep(L, e, RS_FOREVER);
    rs_lua_dispatch(L, e);
  }
  lua_pushinteger(L, status);
  return 1;
}

/* [-0, +1, e]  Open a pool, and push its handle. */
static int
open (lua_State *L, const rs_pool_options *options)
{
  rs_error err;
  rs_pool *pool = NULL;
  rs_lua_events(L);  /* raises while the state closes: the pool would stay */
  rs_finish_look(L);
  push_pools(L);
  void **const handle = rs_handle_new(L, RS_POOL_TYPE, STREAMS);
  lua_pushvalue(L, -1);
  lua_pushboolean(L, 1);
  lua_rawset(L, -4);
  lua_remove(L, -2);
  if (rs_pool_start(options, &pool, &err) != RS_OK)
    return rs_handle_raise(L, &err);
  *handle = pool;
  int raised = LUA_OK;
  int status = rs_pool_await_open(pool, NULL, QUICK, &err);
  if (status == RS_EBUSY) {
    lua_pushcfunction(L, await_open);
    lua_pushlightuserdata(L, pool);
    lua_pushlightuserdata(L, &err);
    raised = lua_pcall(L, 2, 1, 0);
    if (raised == LUA_OK) {
      status = (int) lua_tointeger(L, -1);
      lua_pop(L, 1);
    }
  }
  if (status != RS_OK) {
    *handle = NULL;
    rs_pool_unref(pool);
    return raised == LUA_OK ? rs_handle_raise(L, &err) : lua_error(L);
  }
  set_special(L, -1);
  return 1;
}

/* [-0, +0, -]  Tell whether code in 'L' may open a pool that stops its jobs by
   'signal': a signal that is taken no longer does what it did in the process.
   Code in a sandbox may name only the default (0), RS_NO_SIGNAL, and the
   signal of the pool that it runs in. */
static bool
may_take_signal (lua_State *L, int signal)
{
  rs_sandbox sandbox;
  rs_pool_info info;
  rs_pool *const own = rs_pool_current(L);
  if (signal == 0 || signal == RS_NO_SIGNAL || own == NULL
      || !rs_sandbox_get(L, &sandbox))
    return true;
  rs_pool_info_get(own, &info);
  return signal == info.signal;
}

/* [-0, +0, v]  Raise if code in 'L' may not open a pool of child processes:
   a sandbox that forbids programs forbids these, too. */
static void
check_isolation (lua_State *L, const rs_pool_options *o)
{
  rs_sandbox sandbox;
  const char *const what = o->command != NULL ? "command"
                         : o->hosts != NULL ? "hosts"
                         : o->broker != NULL ? "broker"
                         : o->isolation == RS_ISOLATION_PROCESS
                         ? "isolation = \"process\"" : NULL;
  if (what != NULL && rs_sandbox_get(L, &sandbox)
      && (sandbox.forbid & RS_FORBID_PROGRAMS) != 0)
    rs_handle_error(L, "%s starts programs, which the "
                       "sandbox of this runspace forbids: give the initial "
                       "state sandbox = {programs = true}", what);
}

int
rs_lua_pool (lua_State *L)
{
  static const char *const resets[] = { "globals", "none", "fresh", NULL };
  static const char *const isolations[] = { "thread", "process", "serial",
                                            NULL };
  rs_pool_options o = { 0 };
  luaL_checktype(L, 1, LUA_TTABLE);
  rs_level_room(L, 2 * LUA_MINSTACK, NULL);
  rs_read_options(L, 1, rs_pool_numbers, &o);
  rs_read_options(L, 1, rs_runspace_limits, &o);
  if (lua_getfield(L, 1, "queue") == LUA_TTABLE)
    rs_read_options(L, lua_gettop(L), rs_queue_limits, &o);
  lua_getfield(L, 1, "idle");
  o.idle = luaL_optnumber(L, -1, 0);
  lua_getfield(L, 1, "heartbeat");
  o.heartbeat = luaL_optnumber(L, -1, 0);
  if (isinf(o.heartbeat))
    o.heartbeat = RS_FOREVER;
  lua_getfield(L, 1, "signal");
  o.signal = (int) luaL_optinteger(L, -1, 0);
  if (!may_take_signal(L, o.signal))
    return rs_handle_error(L, "signal (%d) cannot be taken: the sandbox of "
                              "this runspace forbids to take one from the "
                              "process: leave it out", o.signal);
  lua_getfield(L, 1, "isolation");
  o.isolation = luaL_checkoption(L, lua_gettop(L), "thread", isolations);
  lua_getfield(L, 1, "runspace");  /* the options anchor it */
  o.runspace = luaL_optstring(L, -1, NULL);
  o.command = rs_read_words(L, 1, "command");
  o.hosts = rs_read_words(L, 1, "hosts");
  o.ssh = rs_read_words(L, 1, "ssh");
  lua_getfield(L, 1, "cwd");
  o.cwd = luaL_optstring(L, -1, NULL);
  o.env = rs_read_words(L, 1, "env");
  lua_getfield(L, 1, "strict");
  o.strict = lua_toboolean(L, -1);
  o.readable = rs_read_words(L, 1, "readable");
  o.writable = rs_read_words(L, 1, "writable");
  o.globals = rs_read_globals(L, 1);
  lua_getfield(L, 1, "adapt");
  o.adapt = lua_toboolean(L, -1);
  lua_getfield(L, 1, "broker");  /* the options anchor it, as the next two */
  o.broker = luaL_optstring(L, -1, NULL);
  lua_getfield(L, 1, "broker_queue");
  o.broker_queue = luaL_optstring(L, -1, NULL);
  lua_getfield(L, 1, "key");
  o.key = luaL_optstring(L, -1, NULL);
  check_isolation(L, &o);
  lua_getfield(L, 1, "reset");
  o.reset = luaL_checkoption(L, lua_gettop(L), "globals", resets);
  if (lua_getfield(L, 1, "initial_state") != LUA_TNIL)
    o.initial_state = rs_handle_check(L, lua_gettop(L),
                                      RS_INITIAL_STATE_TYPE);
  else
    o.initial_state = push_initial_state(L);
  return open(L, &o);
}

void
rs_parallel_set_workers (lua_State *L, unsigned workers)
{
  lua_pushinteger(L, (lua_Integer) workers);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &workers_key);
}

void
rs_parallel_set_warnings (lua_State *L, bool on)
{
  lua_pushboolean(L, on);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &warnings_key);
  rs_lua_face(L)->warns = on;
}

void
rs_parallel_set_isolation (lua_State *L, int isolation)
{
  lua_pushinteger(L, isolation);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &isolation_key);
}

/* [-0, +0, -]  True when the default pool of this state adapts its width: no
   size of it was given, and its workers are threads. */
static bool
default_adapts (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &workers_key);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &isolation_key);
  const bool adapts = lua_tointeger(L, -2) == 0
                   && lua_tointeger(L, -1) == RS_ISOLATION_THREAD;
  lua_pop(L, 2);
  return adapts;
}

/* core.adapts() -> boolean: the default pool, or that of the runspace, may
   adapt its width */
int
rs_lua_adapts (lua_State *L)
{
  lua_pushboolean(L, rs_pool_current(L) != NULL || default_adapts(L));
  return 1;
}

/* core.serial() -> boolean: pools are serial that do not say where they are */
int
rs_lua_serial (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &isolation_key);
  lua_pushboolean(L, lua_tointeger(L, -1) == RS_ISOLATION_SERIAL);
  return 1;
}

unsigned
rs_parallel_workers (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &workers_key);
  const lua_Integer n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return n > 0 ? (unsigned) n : rs_cpus();
}

/* [-0, +0, e]  Let runspaces find modules where this state finds them: copy
   'package.path' and 'package.cpath'. */
static void
copy_paths (lua_State *L, rs_initial_state *is)
{
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_LOADLIBNAME) == LUA_TTABLE) {
    lua_getfield(L, -1, "path");
    check_status(L, rs_initial_state_set_path(is, lua_tostring(L, -1)));
    lua_getfield(L, -2, "cpath");
    check_status(L, rs_initial_state_set_cpath(is, lua_tostring(L, -1)));
    lua_pop(L, 2);
  }
  lua_pop(L, 2);
}

/* [-0, +1, -]  Push the default pool of this state, or what stands in its
   place.  Return its handle, or NULL. */
static const rs_handle *
push_default (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &default_key);
  return (const rs_handle *) rs_handle_test(L, -1, RS_POOL_TYPE);
}

int
rs_lua_default_pool (lua_State *L)
{
  rs_pool *const own = rs_pool_current(L);
  const rs_handle *const known = push_default(L);
  if (known != NULL && (own != NULL || !rs_handle_foreign(known)))
    return 1;
  if (own != NULL) {  /* a runspace: its own pool, which outlives it, lent */
    *rs_handle_new(L, RS_POOL_TYPE, STREAMS) = own;
    lua_pushboolean(L, 1);
    lua_setiuservalue(L, -2, LENT);
    set_special(L, -1);
  }
  else {
    rs_pool_options o = {
      .max = rs_parallel_workers(L), .adapt = default_adapts(L)
    };
    lua_rawgetp(L, LUA_REGISTRYINDEX, &isolation_key);
    o.isolation = (int) lua_tointeger(L, -1);
    lua_pop(L, 1);
    check_isolation(L, &o);
    o.initial_state = push_initial_state(L);
    copy_paths(L, o.initial_state);
    open(L, &o);
    const rs_handle *const other = push_default(L);
    if (other != NULL && !rs_handle_foreign(other)) {
      rs_handle *const late = lua_touserdata(L, -2);
      rs_pool_unref(late->object);
      late->object = NULL;
      return 1;  /* a handler that ran meanwhile has opened this one */
    }
    lua_pop(L, 1);
  }
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &default_key);
  return 1;
}

/* [-0, +1, e]  Insert the default pool below the arguments of a call. */
static void
insert_default_pool (lua_State *L)
{
  const int n = lua_gettop(L);
  rs_level_room(L, LUA_MINSTACK, NULL);
  rs_lua_default_pool(L);
  lua_insert(L, 1);
  lua_settop(L, n + 1);
}

/* (job)  Report the failure of a job whose pool is closed, if nobody looked at
   it: the last occasion. */
static int
last_look (lua_State *L)
{
  rs_job *const job = rs_handle_check(L, 1, RS_JOB_TYPE);
  rs_job_info info;
  rs_job_info_get(job, &info);
  if (!info.unseen)
    return 0;
  rs_lua_require(L, "parallel.event");
  lua_getfield(L, -1, "report_unseen");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* [-0, +0, e]  Close the pool at 1; its jobs have 'timeout' seconds to end.
   Handlers run meanwhile, since the pool's jobs may wait for them.  Return the
   status of 'rs_pool_close'. */
static int
close (lua_State *L, double timeout)
{
  rs_pool *const pool = check(L);
  const double deadline = rs_now() + timeout;
  rs_events *const e = rs_lua_events(L);
  int status = RS_EBUSY;
  double left = timeout;
  while (status == RS_EBUSY && left != 0) {
    status = rs_pool_shut(pool, e);
    if (status != RS_EBUSY)
      break;
    lua_Integer n;
    rs_events_wait(e, left);
    int raised = rs_lua_try_look(L);
    if (raised == LUA_OK)
      raised = rs_lua_try_dispatch(L, e, &n);
    if (raised != LUA_OK) {
      if (rs_lua_is_stopping(L))
        rs_pool_cancel(pool, -1);
      return lua_error(L);
    }
    if (timeout != RS_FOREVER)
      left = deadline - rs_now() > 0 ? deadline - rs_now() : 0;
  }
  if (status != RS_EINVAL)
    status = rs_pool_close(pool, 0);
  if (status == RS_EINVAL) {
    check(L);  /* raise, if a handler has forked */
    return status;
  }
  rs_lua_dispatch(L, e);
  rs_pool_info info;
  rs_pool_info_get(pool, &info);
  if (info.ended[RS_JOB_FAILED] + info.ended[RS_JOB_TIMED_OUT]
      + info.ended[RS_JOB_LOST] > 0) {  /* else skip the look at all jobs */
    lua_pushcfunction(L, last_look);
    rs_visit_jobs(L, pool);
    lua_pop(L, 1);
  }
  return status;
}

/* [-0, +0, m]  Warn if the pool at 1 is paused, and has jobs: to close it lets
   them run. */
static void
warn_of_pause (lua_State *L)
{
  rs_pool_info info;
  rs_pool_info_get(check(L), &info);
  if (!info.paused || info.queued == 0)
    return;
  lua_pushfstring(L, "parallel.pool: a paused pool is closed, so what waits "
                     "there runs: %d in its queue", (int) info.queued);
  lua_warning(L, lua_tostring(L, -1), 0);
  lua_pop(L, 1);
}

/* pool:close([timeout]) -> true | false, "timeout" */
static int
pool_close (lua_State *L)
{
  check(L);
  rs_handle_most(L, 2, 1, "pool:close([timeout])");
  const double timeout = rs_handle_timeout(L, 2, "close");
  if (timeout != 0)
    warn_of_pause(L);
  switch (close(L, timeout)) {
    case RS_OK:
      lua_pushboolean(L, 1);
      return 1;
    case RS_EINVAL:
      return rs_handle_error(L, "a pool cannot be closed by a job of its own");
    default:
      lua_pushboolean(L, 0);
      lua_pushliteral(L, "timeout");
      return 2;
  }
}

/* (pool, error)  __close of a pool: wait for its jobs.  If an error ends the
   block, cancel those that are queued, and stop those that run. */
static int
pool_scope_end (lua_State *L)
{
  const rs_handle *const handle = (rs_handle *) rs_handle_test(L, 1,
                                                               RS_POOL_TYPE);
  if (handle != NULL && rs_handle_foreign(handle))
    return 0;
  const bool good = lua_isnoneornil(L, 2);
  if (good)
    warn_of_pause(L);
  close(L, good ? RS_FOREVER : 0);
  return 0;
}

/* [-0, +0, m]  Set 'hosts' in the table on top, if the pool has some. */
static void
set_hosts (lua_State *L, rs_pool *pool)
{
  const size_t n = rs_pool_hosts(pool, NULL, 0);
  if (n == 0)
    return;
  rs_host_info *const hosts = lua_newuserdatauv(L, n * sizeof *hosts, 0);
  rs_pool_hosts(pool, hosts, n);
  lua_createtable(L, (int) n, 0);
  for (size_t k = 0; k < n; k++) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, hosts[k].name);
    lua_setfield(L, -2, "name");
    lua_pushinteger(L, (lua_Integer) hosts[k].workers);
    lua_setfield(L, -2, "workers");
    lua_pushinteger(L, (lua_Integer) hosts[k].max);
    lua_setfield(L, -2, "max");
    if (hosts[k].failure[0] != '\0') {
      lua_pushstring(L, hosts[k].failure);
      lua_setfield(L, -2, "failure");
    }
    lua_rawseti(L, -2, (lua_Integer) k + 1);
  }
  lua_setfield(L, -3, "hosts");
  lua_pop(L, 1);
}

/* [-0, +0, m]  Set 'broker' in the table on top, if the pool has one. */
static void
set_broker (lua_State *L, rs_pool *pool)
{
  rs_broker_info i;
  if (!rs_pool_broker(pool, &i))
    return;
  lua_createtable(L, 0, 4);
  lua_pushstring(L, i.url);
  lua_setfield(L, -2, "url");
  lua_pushstring(L, i.queue);
  lua_setfield(L, -2, "queue");
  lua_pushinteger(L, (lua_Integer) i.waiting);
  lua_setfield(L, -2, "waiting");
  lua_pushinteger(L, (lua_Integer) i.servers);
  lua_setfield(L, -2, "servers");
  lua_setfield(L, -2, "broker");
}

/* pool:info() -> table */
static int
pool_info (lua_State *L)
{
  rs_pool *const pool = check(L);
  rs_pool_info i;
  rs_pool_info_get(pool, &i);
  rs_handle_most(L, 1, 1, "pool:info()");
  const struct { const char *name; uint64_t value; } counts[] = {
    { "min", i.min },
    { "max", i.max },
    { "workers", i.workers },
    { "idle", i.idle },
    { "stuck", i.stuck },
    { "queued", i.queued },
    { "delayed", i.delayed },
    { "running", i.running },
    { "finished", i.finished },
    { "started_workers", i.started_workers },
    { "failed_workers", i.failed_workers },
    { "lost_workers", i.lost_workers },
    { "renewed", i.renewed },
  };
  lua_createtable(L, 0, 17);
  for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
    lua_pushinteger(L, (lua_Integer) counts[k].value);
    lua_setfield(L, -2, counts[k].name);
  }
  lua_pushboolean(L, i.closed);
  lua_setfield(L, -2, "closed");
  lua_pushboolean(L, i.paused);
  lua_setfield(L, -2, "paused");
  lua_pushboolean(L, i.adapts);
  lua_setfield(L, -2, "adapts");
  if (i.failure[0] != '\0') {
    lua_pushstring(L, i.failure);
    lua_setfield(L, -2, "failure");
  }
  set_hosts(L, pool);
  set_broker(L, pool);
  lua_pushinteger(L, (lua_Integer) i.bytes);
  lua_setfield(L, -2, "bytes");
  lua_createtable(L, 0, 4);
  for (int state = RS_JOB_COMPLETED; state <= RS_JOB_LOST; state++) {
    lua_pushinteger(L, (lua_Integer) i.ended[state]);
    lua_setfield(L, -2, rs_job_state_name((rs_job_state) state));
  }
  lua_setfield(L, -2, "done");
  return 1;
}

/* pool:set_streams([table])  Set the option 'streams' of the pool. */
static int
pool_set_streams (lua_State *L)
{
  check(L);
  lua_settop(L, 2);
  lua_setiuservalue(L, 1, STREAMS);
  set_special(L, 1);
  return 0;
}

/* pool:streams() -> the option 'streams' of the pool, a table or nil */
static int
pool_streams (lua_State *L)
{
  rs_handle_get(L, 1, RS_POOL_TYPE);
  lua_getiuservalue(L, 1, STREAMS);
  return 1;
}

/* pool:stop([grace])  Cancel all jobs of the pool, and stop its maps. */
static int
pool_stop (lua_State *L)
{
  rs_pool_cancel(check(L), luaL_optnumber(L, 2, -1));
  return 0;
}

/* pool:set_size(min or nil, max or nil)  Resize the pool; nil: as it is. */
static int
pool_set_size (lua_State *L)
{
  rs_error err;
  rs_pool *const pool = check(L);
  if (rs_pool_resize(pool, (unsigned) luaL_optinteger(L, 2, 0),
                     (unsigned) luaL_optinteger(L, 3, 0), &err) != RS_OK)
    return rs_handle_raise(L, &err);
  return 0;
}

/* pool:pause()  Begin nothing that is queued. */
static int
pool_pause (lua_State *L)
{
  rs_pool *const pool = check(L);
  rs_handle_most(L, 1, 1, "pool:pause()");
  if (rs_pool_pause(pool) == RS_ECLOSED)
    return rs_handle_error(L, "the pool is closed");
  return 0;
}

/* pool:resume()  Go on. */
static int
pool_resume (lua_State *L)
{
  rs_pool *const pool = check(L);
  rs_handle_most(L, 1, 1, "pool:resume()");
  if (rs_pool_resume(pool) == RS_ECLOSED)
    return rs_handle_error(L, "the pool is closed");
  return 0;
}

/* pool:await_room()  Let the next wait of this state end when the queue of the
   pool has room. */
static int
pool_await_room (lua_State *L)
{
  check_status(L, rs_pool_await_room(check(L), rs_lua_events(L)));
  return 0;
}

/* pool:start(function or source, options or nil, ...)
     -> job | nil, "full"
   options: name, streams, what bounds a call (rs_call_limits), what else a job
     has (rs_job_numbers);
     names: what refusals call the arguments (rs_raise_named);
     guard: a run guard (core.run_guard), which gets a reference to the job, so
       that an interrupt or a stop finds the job there at once;
     made: a table whose value 1 becomes the job, for the same reason; it has
       one before */
static int
pool_start (lua_State *L)
{
  enum { POOL = 1, FUNCTION, OPTIONS, FIRST };
  rs_pool *const pool = check(L);
  rs_error err;
  rs_job *job;
  rs_face *const face = rs_lua_own_face(L);
  rs_job_options o = { .events = rs_lua_events_of(L, face) };
  rs_job **guard = NULL;
  lua_Integer seed;
  luaL_checkany(L, FUNCTION);
  if (lua_gettop(L) < OPTIONS)
    lua_settop(L, OPTIONS);
  const int nargs = lua_gettop(L) - OPTIONS;
  if (lua_istable(L, OPTIONS)) {
    rs_read_options(L, OPTIONS, rs_call_limits, &o);
    o.seed = rs_read_seed(L, OPTIONS, &seed);
    rs_read_options(L, OPTIONS, rs_job_numbers, &o);
    lua_getfield(L, OPTIONS, "streams");
    o.listen = rs_check_streams(L, lua_gettop(L));
    lua_getfield(L, OPTIONS, "name");
    o.name = luaL_optstring(L, -1, NULL);
    lua_getfield(L, OPTIONS, "guard");
    guard = (rs_job **) rs_handle_test(L, lua_gettop(L), run_type);
    o.awaited = guard != NULL;
    lua_pop(L, 3);  /* the options anchor name and guard */
    o.globals = rs_read_globals(L, OPTIONS);
    /* A script may call this method, too, with options that nobody has
       checked. */
    rs_job_options room;
    if (rs_check_job_options(&o, &room, &err) == NULL)
      return rs_handle_raise(L, &err);
  }
  else
    o.listen = rs_check_streams(L, OPTIONS);
  if (face->warns)
    rs_warn_lost(L, FUNCTION, true);
  void **const handle = rs_push_empty_job(L, face, &o.slot);
  const int status = rs_submit_at(pool, face->outbox, L, FUNCTION, FIRST,
                                  nargs, &o, &job, &err);
  if (status == RS_EFULL) {
    lua_pushnil(L);
    lua_pushliteral(L, "full");
    return 2;
  }
  if (status != RS_OK)
    return lua_istable(L, OPTIONS) ? rs_raise_named(L, OPTIONS, &err)
                                   : rs_handle_raise(L, &err);
  *handle = job;
  if (guard != NULL)
    *guard = rs_job_ref(job);
  if (lua_istable(L, OPTIONS)) {
    if (lua_getfield(L, OPTIONS, "made") == LUA_TTABLE) {
      lua_pushvalue(L, -2);
      lua_rawseti(L, -2, 1);
    }
    lua_pop(L, 1);
  }
  return 1;
}

/*
 * [-0, +0, -]  Return the pool of a call such as pool:spawn(function or
 * source, ...), if the arguments are right and the pool is not special.
 * Return NULL if the Lua part has to take the call; the stack may hold
 * anything.
 */
static rs_pool *
plain_pool (lua_State *L)
{
  const rs_handle *const handle = (rs_handle *) rs_handle_test(L, 1,
                                                               RS_POOL_TYPE);
  const int type = lua_type(L, 2);
  if (handle == NULL || handle->special
      || (type != LUA_TFUNCTION && type != LUA_TSTRING)
      || (type == LUA_TSTRING
          && lua_tostring(L, 2)[0] == LUA_SIGNATURE[0]))
    return NULL;
  return handle->object;
}

/* [-n, +r, e]  Call the method 'name' of the Lua part with all values on the
   stack.  If pool and function are seen to be right, the function that acts is
   called, without the check of the arguments. */
static int
call_lua (lua_State *L, const char *name)
{
  const bool right = lua_isfunction(L, 2)
                     && rs_handle_test(L, 1, RS_POOL_TYPE) != NULL;
  return rs_lua_call(L, "parallel.job", right ? "acts" : "methods", name);
}

/* pool:spawn(function or source, ...) -> job */
static int
pool_spawn (lua_State *L)
{
  enum { FUNCTION = 2, FIRST };
  rs_pool *const pool = plain_pool(L);
  if (pool != NULL) {
    rs_error err;
    rs_job *job;
    rs_face *const face = rs_lua_own_face(L);
    rs_job_options o = {
      .events = rs_lua_events_of(L, face),
      .listen = RS_STREAMS_SHOWN,
    };
    const int nargs = lua_gettop(L) - FUNCTION;
    if (face->warns)
      rs_warn_lost(L, FUNCTION, true);
    void **const handle = rs_push_empty_job(L, face, &o.slot);
    if (rs_submit_at(pool, face->outbox, L, FUNCTION, FIRST, nargs, &o, &job,
                     &err) != RS_OK)
      return rs_handle_raise(L, &err);
    *handle = job;
    return 1;
  }
  return call_lua(L, "spawn");
}

int
rs_lua_spawn (lua_State *L)
{
  insert_default_pool(L);
  return pool_spawn(L);
}

/* (run, error)  __close of a run guard: give up its job, and stop the job if
   an error, such as an interrupt, ended the wait. */
static int
run_close (lua_State *L)
{
  rs_job **const run = (rs_job **) rs_handle_test(L, 1, run_type);
  if (run == NULL || *run == NULL)
    return 0;
  if (!lua_isnil(L, 2))
    rs_job_cancel(*run, -1);
  rs_job_forget(*run);
  *run = NULL;
  return 0;
}

/* (run)  __gc of a run guard whose '__close' was not called: stop its job. */
static int
run_gc (lua_State *L)
{
  lua_settop(L, 1);
  lua_pushboolean(L, 1);
  return run_close(L);
}

/* core.run_guard() -> a run guard without a job */
int
rs_lua_run_guard (lua_State *L)
{
  rs_handle_new(L, run_type, 0);
  return 1;
}

/* [-n, +results, e]  Wait for the job, whose reference this takes; return the
   number of its results, which are on top, or raise its failure.  An error
   that ends the wait stops the job.  The stack is cut to its first value. */
static int
guarded_wait (lua_State *L, rs_events *e, rs_job *job)
{
  enum { RUN = 2 };
  int n;
  lua_settop(L, 1);
  lua_pushcfunction(L, rs_lua_run_guard);
  if (lua_pcall(L, 0, 1, 0) != LUA_OK) {  /* no memory, or an interrupt? */
    rs_job_cancel(job, -1);
    rs_job_forget(job);
    return lua_error(L);
  }
  *(rs_job **) lua_touserdata(L, RUN) = job;
  lua_toclose(L, RUN);
  rs_await_job(L, e, job, RS_FOREVER);
  if (rs_job_push(job, L, &n) == RS_OK)
    return n;
  lua_settop(L, RUN);
  rs_push_job(L, rs_job_ref(job));
  lua_replace(L, 1);  /* slot RUN stays the guard's, which is to be closed */
  rs_lua_require(L, "parallel.job");
  lua_getfield(L, -1, "fail");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* pool:run(function or source, ...) -> results... */
static int
pool_run (lua_State *L)
{
  rs_pool *const pool = plain_pool(L);
  if (pool == NULL)
    return call_lua(L, "run");
  enum { FUNCTION = 2, FIRST };
  rs_face *const face = rs_lua_own_face(L);
  rs_events *const e = rs_lua_events_of(L, face);
  const rs_job_options o = {
    .events = e, .listen = RS_STREAMS_SHOWN, .awaited = true
  };
  rs_error err;
  rs_job *job;
  int n;
  if (face->warns)
    rs_warn_lost(L, FUNCTION, true);
  if (rs_submit_at(pool, face->outbox, L, FUNCTION, FIRST,
                   lua_gettop(L) - FUNCTION, &o, &job, &err) != RS_OK)
    return rs_handle_raise(L, &err);
  /* The guard is most of what the wait for a short job costs.  No guard is
     needed if the job ends before this thread sleeps, no other job is queued
     at the events, and no hook is pending. */
  if (rs_pool_current(L) == NULL && !rs_events_pending(e)
      && rs_job_look(job) && lua_gethook(L) == NULL
      && rs_job_take(job, L, &n))
    return n;
  return guarded_wait(L, e, job);
}

int
rs_lua_run (lua_State *L)
{
  insert_default_pool(L);
  return pool_run(L);
}

static int
pool_to_string (lua_State *L)
{
  rs_pool_info i;
  rs_pool_info_get(check(L), &i);
  lua_pushfstring(L, "parallel.pool: %s, %d of %d workers",
                  i.closed ? "closed" : "open", (int) i.workers, (int) i.max);
  return 1;
}

static int
pool_gc (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, RS_POOL_TYPE);
  if (handle == NULL)
    return 0;
  lua_getiuservalue(L, 1, LENT);
  if (!lua_toboolean(L, -1)  /* does the handle have a reference? */
      && (*handle == NULL || !rs_finish_keep(L, *handle)))
    rs_pool_unref(*handle);
  *handle = NULL;
  return 0;
}

void
rs_open_pool_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__tostring", pool_to_string },
    { "__close", pool_scope_end },
    { "__gc", pool_gc },
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = {
    { "close", pool_close },
    { "info", pool_info },
    { "await_room", pool_await_room },
    { "pause", pool_pause },
    { "resume", pool_resume },
    { "run", pool_run },
    { "set_size", pool_set_size },
    { "set_streams", pool_set_streams },
    { "spawn", pool_spawn },
    { "start", pool_start },
    { "stop", pool_stop },
    { "streams", pool_streams },
    { NULL, NULL }
  };
  static const luaL_Reg run_meta[] = {
    { "__close", run_close },
    { "__gc", run_gc },  /* a forced end may skip '__close' */
    { NULL, NULL }
  };
  static const luaL_Reg none[] = { { NULL, NULL } };
  rs_face *const face = rs_lua_face(L);
  rs_handle_type(L, run_type, face, run_meta, none);
  lua_pop(L, 1);
  rs_handle_type(L, RS_POOL_TYPE, face, meta, methods);
}
