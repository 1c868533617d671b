/* SPDX-License-Identifier: MIT */
/*
 * levent.c - the events of a Lua state, and waits at them.
 *
 * Each state that loads the module has one 'rs_events', in its face.  Jobs
 * that have something new are queued there.  Whenever the state waits in this
 * module, or polls, each queued job is handed to 'deliver' of the Lua part,
 * which calls the handlers.  All code here runs on the thread of the state.
 */
#include "face/levent.h"

#include <errno.h>
#include <string.h>

#include <lauxlib.h>

#include "base/console.h"
#include "base/level.h"
#include "face/lface.h"
#include "face/lhandle.h"
#include "lparallel.h"

/* () -> calls of handlers.  Hand all queued jobs to the Lua part. */
static int
deliver_all (lua_State *L)
{
  enum { EVENT = 1, DELIVER, REPORT_ALL };
  rs_face *const face = rs_lua_face(L);
  rs_events *const e = rs_lua_events_of(L, face);
  lua_Integer n = 0;
  bool late = false;
  rs_job *job;
  rs_level_room(L, LUA_MINSTACK, NULL);
  rs_lua_require(L, "parallel.event");
  lua_getfield(L, EVENT, "deliver");
  lua_getfield(L, EVENT, "report_all");
  while ((job = rs_events_next(e)) != NULL) {
    if (face->dispatching == 1)
      face->interrupted = false;
    lua_pushvalue(L, DELIVER);
    rs_push_job(L, job);
    lua_call(L, 1, 2);
    n += lua_tointeger(L, -2);
    late = lua_toboolean(L, -1);
    lua_pop(L, 2);
  }
  if (late) {
    lua_pushvalue(L, REPORT_ALL);
    lua_call(L, 0, 0);
  }
  lua_pushinteger(L, n);
  return 1;
}

/* Dispatches in one another at most, where a handler waits, so that further
   handlers run inside it: deeper, Lua would refuse the C calls. */
enum { MAX_DEPTH = 16 };

int
rs_lua_try_dispatch (lua_State *L, rs_events *e, lua_Integer *n)
{
  rs_face *const face = rs_lua_face(L);
  *n = 0;
  if (face->dispatching == 0)  /* else the interrupt's error may pass here */
    face->interrupted = false;
  if (!rs_events_pending(e) || face->dispatching == MAX_DEPTH)
    return LUA_OK;
  rs_level_room(L, LUA_MINSTACK, NULL);
  const bool aside = rs_console_pause();  /* handlers may print */
  face->dispatching++;
  lua_pushcfunction(L, deliver_all);
  const int status = lua_pcall(L, 0, 1, 0);
  face->dispatching--;
  if (aside)
    rs_console_resume();
  if (status != LUA_OK)
    return status;  /* a hook raised: an interrupt, or the job is stopped */
  *n = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return LUA_OK;
}

lua_Integer
rs_lua_dispatch (lua_State *L, rs_events *e)
{
  lua_Integer n;
  if (rs_lua_try_dispatch(L, e, &n) != LUA_OK)
    lua_error(L);
  return n;
}

int
rs_lua_sleep (lua_State *L, rs_events *e, double timeout)
{
  const int status = rs_events_wait(e, timeout);
  rs_task_checkpoint(L);
  rs_lua_run_hook(L);
  return status;
}

/* Raise if the job that runs here is to stop.  The call of this function lets
   a pending hook run. */
static int
look (lua_State *L)
{
  rs_task_checkpoint(L);
  return 0;
}

int
rs_lua_try_look (lua_State *L)
{
  if (!rs_task_stops(L) && lua_gethook(L) == NULL)
    return LUA_OK;
  lua_pushcfunction(L, look);
  return lua_pcall(L, 0, 0, 0);
}

bool
rs_lua_is_stopping (lua_State *L)
{
  rs_task task;
  return rs_task_get(L, &task) && task.stopping;
}

rs_events *
rs_parallel_events (lua_State *L)
{
  return rs_lua_events(L);
}

bool
rs_parallel_pending (lua_State *L)
{
  rs_events *const e = rs_lua_events(L);
  rs_events_wait(e, 0);
  return rs_events_pending(e);
}

void
rs_parallel_dispatch (lua_State *L)
{
  rs_lua_dispatch(L, rs_lua_events(L));
}

void
rs_parallel_interrupt (lua_State *L)
{
  rs_lua_face(L)->interrupted = true;
}

/* core.interrupted([over]) -> boolean.  True if the error that was caught from
   a handler has to end more than the handler: the program has interrupted it,
   or the job that runs here is to stop.  'over' is true after a handler has
   returned: an interrupt that it caught is forgotten, so that a later error is
   an ordinary one. */
int
rs_lua_interrupted (lua_State *L)
{
  rs_face *const face = rs_lua_face(L);
  if (lua_toboolean(L, 1) && face->dispatching == 1)  /* the outermost one? */
    face->interrupted = false;
  lua_pushboolean(L, face->interrupted || rs_lua_is_stopping(L));
  return 1;
}

/* [-0, +0, -]  Stop the job at 'index', or each job in the array there, since
   the job that waited for it is stopped ('rs_job_orphan'). */
static void
orphan (lua_State *L, int index)
{
  rs_job **const job = (rs_job **) rs_handle_test(L, index, RS_JOB_TYPE);
  if (job != NULL && *job != NULL)
    rs_job_orphan(*job);
  if (lua_istable(L, index))
    for (lua_Integer i = 1; lua_rawgeti(L, index, i) != LUA_TNIL; i++) {
      orphan(L, lua_gettop(L));
      lua_pop(L, 1);
    }
}

/* core.wait([timeout], [jobs])  Run the handlers of what has happened.  If
   none was called, wait until the events wake, at most 'timeout' seconds, and
   run handlers again.  If the job that runs here is stopped meanwhile, 'jobs',
   one job or an array, are stopped too. */
int
rs_lua_wait (lua_State *L)
{
  const double timeout = rs_handle_timeout(L, 1, "wait");
  rs_events *const e = rs_lua_events(L);
  lua_settop(L, 2);
  lua_Integer n;
  int status = rs_lua_try_dispatch(L, e, &n);
  if (status == LUA_OK && n == 0) {
    rs_events_wait(e, timeout);
    status = rs_lua_try_look(L);
    if (status == LUA_OK)
      status = rs_lua_try_dispatch(L, e, &n);
  }
  if (status == LUA_OK)
    return 0;
  if (rs_lua_is_stopping(L))
    orphan(L, 2);
  return lua_error(L);
}

/* core.help(jobs, from) -> boolean.  In a runspace, run one job of the array,
   the first from index 'from' on that is still queued at the runspace's own
   pool; true if there was one.  If the job that runs here is stopped
   meanwhile, all of 'jobs' are stopped too. */
int
rs_lua_help (lua_State *L)
{
  enum { JOBS = 1, FROM };
  bool helped = false;
  luaL_checktype(L, JOBS, LUA_TTABLE);
  lua_Integer i = luaL_checkinteger(L, FROM);
  const bool within = rs_pool_current(L) != NULL;
  lua_settop(L, FROM);
  while (within && !helped && lua_rawgeti(L, JOBS, i++) != LUA_TNIL) {
    helped = rs_job_help(rs_handle_check(L, FROM + 1, RS_JOB_TYPE), L);
    lua_settop(L, FROM);
  }
  if (helped && rs_lua_try_look(L) != LUA_OK) {
    if (rs_lua_is_stopping(L))
      orphan(L, JOBS);
    return lua_error(L);
  }
  lua_pushboolean(L, helped);
  return 1;
}

/* core.poll([timeout]) -> calls of handlers */
int
rs_lua_poll (lua_State *L)
{
  const double timeout = rs_handle_timeout(L, 1, "poll");
  const double deadline = rs_now() + timeout;
  rs_events *const e = rs_lua_events(L);
  lua_Integer n = rs_lua_dispatch(L, e);
  double left = timeout;
  while (n == 0 && rs_lua_sleep(L, e, left) == RS_OK) {
    n = rs_lua_dispatch(L, e);
    if (timeout != RS_FOREVER)
      left = deadline - rs_now() > 0 ? deadline - rs_now() : 0;
  }
  lua_pushinteger(L, n);
  return 1;
}

/* core.fileno() -> descriptor */
int
rs_lua_fileno (lua_State *L)
{
  const int fd = rs_events_fileno(rs_lua_events(L));
  if (fd < 0)
    return rs_handle_error(L, "no descriptor: %s", strerror(errno));
  lua_pushinteger(L, fd);
  return 1;
}

/* core.listen(mask)  Listen to all jobs of this state; RS_LISTEN_ and bits of
   streams. */
int
rs_lua_listen (lua_State *L)
{
  rs_face *const face = rs_lua_face(L);
  face->listening = (unsigned) luaL_checkinteger(L, 1);
  rs_events_listen(rs_lua_events_of(L, face), face->listening);
  return 0;
}
