/* SPDX-License-Identifier: MIT */
/*
 * lface.c - what the module has in one Lua state: its face.
 *
 * The state is that of a host, or a runspace's.  All code here runs on its
 * thread.  The face is made before all handles, and so it is finalized after
 * them, when the state closes: that is the last occasion to report failures.
 */
#include "face/lface.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/console.h"
#include "face/lhandle.h"
#include "pool/face.h"

#define FACE_TYPE "parallel.face"

/* Key in the registry, by address: the face. */
static const char face_key;

/* Key in the registry, by address: the table of the handles of jobs, by their
   numbers.  Its values are weak.  A job has the number of its handle as its
   'slot', so that a job that comes again gets the same handle. */
static const char handles_key;

/* ------------------------------------------------------------ the Lua part */

void
rs_lua_require (lua_State *L, const char *name)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, name) == LUA_TNIL) {
    lua_pop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
    lua_pushstring(L, name);
    lua_call(L, 1, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, name);
  }
  lua_remove(L, -2);
}

int
rs_lua_call (lua_State *L, const char *file, const char *field,
             const char *name)
{
  const int n = lua_gettop(L);
  rs_lua_require(L, file);
  lua_getfield(L, -1, field);
  lua_getfield(L, -1, name);
  lua_insert(L, 1);
  lua_pop(L, 2);
  lua_call(L, n, LUA_MULTRET);
  return lua_gettop(L);
}

/* ----------------------------------------------------- handles of the jobs */

/* Handles for which Lua's collector is told of one more kilobyte.  The
   collector sees the size of a handle only, not that of the job behind it, so
   dead handles would pile up.  TOLD counts half of a job's memory: with the
   whole, collecting took more time than all else. */
enum { TOLD = 6 };

void **
rs_push_empty_job (lua_State *L, rs_face *face, unsigned *slot)
{
  if (face->handles % TOLD == 0 && lua_gc(L, LUA_GCISRUNNING) > 0)
    lua_gc(L, LUA_GCSTEP, 1);  /* -1 in a finalizer, 0 before Lua 5.4.4 */
  void **const handle = rs_handle_new(L, RS_JOB_TYPE, 0);
  rs_push_kept_table(L, &handles_key);
  while (lua_rawgeti(L, -1, ++face->handles) != LUA_TNIL)
    lua_pop(L, 1);  /* after 2^32 handles: this one is still alive */
  lua_pushvalue(L, -3);
  lua_rawseti(L, -3, face->handles);
  lua_pop(L, 2);
  *slot = face->handles;
  return handle;
}

/* [-0, +0|1, -]  Push the handle with that number, and return it.  Return
   NULL, and push nothing, if there is none. */
static const rs_handle *
push_numbered (lua_State *L, unsigned number)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &handles_key) == LUA_TTABLE)
    lua_rawgeti(L, -1, number);
  else  /* a script has replaced it */
    lua_pushnil(L);
  lua_remove(L, -2);
  const void *const object = rs_handle_test(L, -1, RS_JOB_TYPE);
  if (object != NULL)
    return lua_touserdata(L, -1);
  lua_pop(L, 1);
  return NULL;
}

/* [-0, +0|1, -]  Push the handle of 'job'.  Return false, and push nothing, if
   it has none that is alive. */
static bool
find_handle (lua_State *L, rs_job *job)
{
  const rs_handle *const handle = push_numbered(L, *rs_job_slot(job));
  if (handle == NULL)
    return false;
  /* A handle that was finalized while the state closes is still in the table,
     and has no job. */
  if (handle->object == job)
    return true;
  lua_pop(L, 1);
  return false;
}

/* (light userdata: job) -> handle, for a job that has none.  The handle is
   empty: the caller gives it the job, since a hook may raise when this
   returns, and the reference must stay the caller's then. */
static int
make_handle (lua_State *L)
{
  rs_job *const job = lua_touserdata(L, 1);
  rs_push_empty_job(L, rs_lua_face(L), rs_job_slot(job));
  return 1;
}

void
rs_push_job (lua_State *L, rs_job *job)
{
  if (find_handle(L, job)) {
    rs_job_unref(job);
    return;
  }
  lua_pushcfunction(L, make_handle);
  lua_pushlightuserdata(L, job);
  if (lua_pcall(L, 1, 1, 0) != LUA_OK) {  /* no memory, or a hook raised? */
    rs_job_unref(job);
    lua_error(L);
  }
  rs_handle *const handle = lua_touserdata(L, -1);
  handle->object = job;
}

static int
by_value (const void *a, const void *b)
{
  const unsigned x = *(const unsigned *) a, y = *(const unsigned *) b;
  return (x > y) - (x < y);
}

/* [-0, +1, m]  Push a userdata with the numbers of the handles that are alive,
   in their order.  Return the numbers, and '*n', how many there are. */
static const unsigned *
push_numbers (lua_State *L, size_t *n)
{
  const int top = lua_gettop(L);
  unsigned *numbers;
  size_t room;
  *n = 0;
  do {  /* again if a finalizer makes handles when the userdata is made */
    lua_settop(L, top);
    room = *n + 16;
    numbers = lua_newuserdatauv(L, room * sizeof *numbers, 0);
    rs_push_kept_table(L, &handles_key);
    lua_pushnil(L);
    for (*n = 0; lua_next(L, top + 2); ++*n) {
      lua_pop(L, 1);
      if (*n < room)
        numbers[*n] = (unsigned) lua_tointeger(L, -1);
    }
  } while (*n > room);
  lua_settop(L, top + 1);
  qsort(numbers, *n, sizeof *numbers, by_value);
  return numbers;
}

/* Tell whether the handle has a job of this process, of 'pool' unless that is
   NULL. */
static bool
is_of (const rs_handle *handle, const rs_pool *pool)
{
  return handle->object != NULL && !rs_handle_foreign(handle)
         && (pool == NULL || rs_job_pool(handle->object) == pool);
}

void
rs_visit_jobs (lua_State *L, const rs_pool *pool)
{
  const int f = lua_gettop(L);
  size_t n;
  const unsigned *const numbers = push_numbers(L, &n);
  for (size_t i = 0; i < n; i++) {
    lua_pushvalue(L, f);
    const rs_handle *const handle = push_numbered(L, numbers[i]);
    if (handle != NULL && is_of(handle, pool))
      lua_call(L, 1, 0);
    lua_settop(L, f + 1);
  }
  lua_settop(L, f);
}

/* ------------------------------------------------------ the end of a state */

/* (job)  Report a failure that nobody looked at. */
static int
report (lua_State *L)
{
  rs_lua_require(L, "parallel.event");
  lua_getfield(L, -1, "report_unseen");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 0);
  return 0;
}

/* (light userdata: job) -> handle, which has a reference of its own */
static int
push_handle (lua_State *L)
{
  rs_push_job(L, rs_job_ref(lua_touserdata(L, 1)));
  return 1;
}

/* [-0, +0, -]  'report' while the state closes, for 'job', whose reference
   this takes. */
static void
report_last (lua_State *L, rs_job *job)
{
  const int top = lua_gettop(L);
  lua_pushcfunction(L, push_handle);
  lua_pushlightuserdata(L, job);
  if (lua_pcall(L, 1, 1, 0) == LUA_OK) {
    rs_job **const object = lua_touserdata(L, -1);
    lua_pushcfunction(L, report);
    lua_pushvalue(L, -2);
    lua_pcall(L, 1, 0, 0);
    rs_job_unref(*object);  /* no finalizer runs for so late a handle */
    *object = NULL;
  }
  rs_job_unref(job);
  lua_settop(L, top);
}

typedef struct numbered {
  uint64_t id;
  rs_job *job;  /* a reference */
} numbered;

static int
by_id (const void *a, const void *b)
{
  const uint64_t x = ((const numbered *) a)->id;
  const uint64_t y = ((const numbered *) b)->id;
  return (x > y) - (x < y);
}

/* [-0, +0, -]  Report the failures that nobody looked at, in the order of the
   jobs.  Jobs were queued in the opposite order, that of the finalizers of
   their handles. */
static void
report_all (lua_State *L, rs_events *e)
{
  numbered *list = NULL;
  size_t n = 0, room = 0;
  rs_job *job;
  while ((job = rs_events_next(e)) != NULL) {
    rs_job_info info;
    rs_job_info_get(job, &info);
    if (info.chunk || !info.forgotten || !info.unseen) {
      rs_job_unref(job);
      continue;
    }
    if (n == room) {
      numbered *const more = realloc(list, (2 * n + 16) * sizeof *more);
      if (more == NULL) {  /* no memory: report it at once, out of order */
        report_last(L, job);
        continue;
      }
      list = more;
      room = 2 * n + 16;
    }
    list[n++] = (numbered) { info.id, job };
  }
  if (n > 0)
    qsort(list, n, sizeof *list, by_id);
  for (size_t i = 0; i < n; i++)
    report_last(L, list[i].job);
  free(list);
}

/* Drop the pools whose jobs are not over, and say how many jobs that ends. */
static void
drop_pools (rs_face *face)
{
  size_t n = 0;
  for (unsigned i = 0; i < face->left; i++) {
    rs_pool_info info;
    rs_pool_info_get(face->pools[i], &info);
    n += info.queued + info.running;
  }
  if (n > 0 && face->opened) {
    char text[128];
    snprintf(text, sizeof text, "parallel: %zu %s cancelled, as the script "
             "has ended: call parallel.wait or job:wait\n", n,
             n == 1 ? "job is" : "jobs are");
    rs_console_write(STDERR_FILENO, text, strlen(text));
  }
  for (unsigned i = 0; i < face->left; i++)
    rs_pool_unref(face->pools[i]);
  free(face->pools);
  face->pools = NULL;
  face->left = 0;
}

/* __gc of the face: the state is being closed. */
static int
gc (lua_State *L)
{
  rs_face *const face = luaL_checkudata(L, 1, FACE_TYPE);
  rs_events *const e = face->events;
  while (e != NULL && rs_events_pending(e))  /* more were queued meanwhile? */
    report_all(L, e);
  if (e != NULL)
    rs_events_close(e);
  rs_events_unref(e);
  face->events = NULL;
  drop_pools(face);
  return 0;
}

/* ---------------------------------------------------------------- the face */

static int
do_nothing (lua_State *L)
{
  (void) L;
  return 0;
}

void
rs_lua_run_hook (lua_State *L)
{
  if (lua_gethook(L) == NULL)
    return;
  lua_pushcfunction(L, do_nothing);
  lua_call(L, 0, 0);
}

rs_face *
rs_lua_face (lua_State *L)
{
  static const luaL_Reg meta[] = { { "__gc", gc }, { NULL, NULL } };
  rs_face *face;
  const int type = lua_rawgetp(L, LUA_REGISTRYINDEX, &face_key);
  face = lua_touserdata(L, -1);
  if (type == LUA_TUSERDATA && lua_rawlen(L, -1) == sizeof *face
      && face->proof == &face_key) {
    lua_pop(L, 1);
    return face;
  }
  if (type != LUA_TNIL)
    rs_raise_replaced(L);
  lua_pop(L, 1);
  face = lua_newuserdatauv(L, sizeof *face, 0);
  *face = (rs_face) { .proof = &face_key };
  rs_push_type(L, FACE_TYPE, meta);
  lua_setmetatable(L, -2);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &handles_key);
  face->events = rs_events_new();
  face->born = rs_forks();
  face->outbox = rs_outbox_of(L);
  if (face->events == NULL || face->outbox == NULL)
    rs_handle_error(L, "%s", rs_status_message(RS_ENOMEM));
  lua_rawsetp(L, LUA_REGISTRYINDEX, &face_key);
  rs_lua_run_hook(L);  /* the caller may wait next, where none is called */
  return face;
}

rs_events *
rs_lua_events_of (lua_State *L, rs_face *face)
{
  if (face->events == NULL)
    rs_handle_error(L, "the Lua state is being closed: it has no more jobs");
  if (face->born != rs_forks()) {  /* the events are those of the parent? */
    rs_events *const events = rs_events_new();
    if (events == NULL)
      rs_handle_error(L, "%s", rs_status_message(RS_ENOMEM));
    rs_events_listen(events, face->listening);
    rs_events_replace(face->events, events);
    face->events = events;
    face->born = rs_forks();
  }
  return face->events;
}

rs_events *
rs_lua_events (lua_State *L)
{
  return rs_lua_events_of(L, rs_lua_face(L));
}
