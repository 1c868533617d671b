/* SPDX-License-Identifier: MIT */
/*
 * ljob.c - jobs as Lua sees them.
 */
#include "face/ljob.h"

#include <math.h>
#include <stdatomic.h>
#include <time.h>

#include <lauxlib.h>

#include "base/finalize.h"
#include "base/level.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lhandle.h"
#include "face/lstream.h"

static rs_job *
check (lua_State *L)
{
  return rs_handle_check(L, 1, RS_JOB_TYPE);
}

/* A userdata with references to jobs; its finalizer gives back those that are
   left. */
typedef struct job_list {
  size_t room, n;
  rs_job *jobs[];
} job_list;

/* Give back the references of the list; NULL is accepted. */
static void
give_back (job_list *list)
{
  while (list != NULL && list->n > 0)
    rs_job_unref(list->jobs[--list->n]);
}

static int
list_gc (lua_State *L)
{
  give_back(rs_finalized(L, list_gc));
  return 0;
}

/* [-0, +1, m]  Push an empty list with room for 'room' references. */
static job_list *
push_list (lua_State *L, size_t room)
{
  job_list *const list =
    lua_newuserdatauv(L, sizeof *list + room * sizeof list->jobs[0], 0);
  list->room = room;
  list->n = 0;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, list_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return list;
}

/* __gc of a list of jobs that a job waits for: the waiting job was forced to
   end, so stop them. */
static int
end_list (lua_State *L)
{
  job_list *const list = rs_finalized(L, end_list);
  for (size_t i = 0; list != NULL && i < list->n; i++)
    rs_job_orphan(list->jobs[i]);
  give_back(list);
  return 0;
}

/* (list, error)  __close of a list of jobs that a job waits for: stop them if
   the waiting job is stopped */
static int
leave_list (lua_State *L)
{
  if (!lua_isnil(L, 2) && rs_lua_is_stopping(L))
    return end_list(L);
  give_back(rs_finalized(L, end_list));
  return 0;
}

/* core.wait_guard(jobs) -> list */
int
rs_lua_wait_guard (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__close", leave_list },
    { "__gc", end_list },  /* a forced end may skip '__close' */
    { NULL, NULL }
  };
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  const size_t n = lua_rawlen(L, 1);
  job_list *const list = push_list(L, n);
  lua_getmetatable(L, 2);
  luaL_setfuncs(L, meta, 0);
  lua_settop(L, 2);
  while (list->n < n) {
    lua_rawgeti(L, 1, (lua_Integer) list->n + 1);
    list->jobs[list->n] = rs_job_ref(rs_handle_check(L, 3, RS_JOB_TYPE));
    list->n++;
    lua_settop(L, 2);
  }
  return 1;
}

/* (job)  Add the job, unless it is a chunk, to the table that is the upvalue,
   by its id. */
static int
add_job (lua_State *L)
{
  rs_job_info info;
  rs_job_info_get(check(L), &info);
  if (info.chunk)
    return 0;
  lua_settop(L, 1);
  lua_rawseti(L, lua_upvalueindex(1), (lua_Integer) info.id);
  return 0;
}

/* core.jobs() -> table of jobs by id: those that have not ended, and those
   whose handle the script holds; removed jobs are included */
int
rs_lua_jobs (lua_State *L)
{
  rs_events *const e = rs_lua_events(L);
  lua_newtable(L);  /* 1: jobs by id */
  lua_settop(L, 1);
  job_list *const list = push_list(L, rs_events_jobs(e, NULL, 0) + 16);
  const size_t n = rs_events_jobs(e, list->jobs, list->room);
  list->n = n < list->room ? n : list->room;
  while (list->n > 0) {
    rs_job *const job = list->jobs[--list->n];
    rs_job_info info;
    rs_job_info_get(job, &info);
    if (info.chunk)
      rs_job_unref(job);
    else {
      rs_push_job(L, job);
      lua_rawseti(L, 1, (lua_Integer) info.id);
    }
  }
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, add_job, 1);
  rs_visit_jobs(L, NULL);
  lua_settop(L, 1);
  return 1;
}

/* (job)  Append the job to the table that is the upvalue if it has failed and
   nobody has looked. */
static int
add_unseen (lua_State *L)
{
  rs_job_info info;
  rs_job_info_get(check(L), &info);
  if (info.chunk || !info.unseen)
    return 0;
  lua_settop(L, 1);
  lua_rawseti(L, lua_upvalueindex(1),
              (lua_Integer) lua_rawlen(L, lua_upvalueindex(1)) + 1);
  return 0;
}

/* core.unseen() -> array of the jobs that have failed, whose handles the
   script holds, or has dropped a while ago, and that nobody has looked at */
int
rs_lua_unseen (lua_State *L)
{
  lua_settop(L, 0);
  lua_newtable(L);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, add_unseen, 1);
  rs_visit_jobs(L, NULL);
  lua_settop(L, 1);
  return 1;
}

/* [-0, +1, -]  Push an instant; nil for 0, when it was not reached. */
static void
push_instant (lua_State *L, double t)
{
  if (t > 0)
    lua_pushnumber(L, t);
  else
    lua_pushnil(L);
}

/*
 * [-0, +1, -]  Push the time of an instant on the clock of the day; nil for 0.
 * The distance of the two clocks is kept, so that a job tells the same time
 * whenever it is asked, until that distance has changed: the clock was set, or
 * the machine has slept.  Any thread may keep it, and each value is good.
 */
static void
push_wall (lua_State *L, double t)
{
  static _Atomic double distance;
  struct timespec now;
  if (t <= 0) {
    lua_pushnil(L);
    return;
  }
  clock_gettime(CLOCK_REALTIME, &now);
  const double d = (double) now.tv_sec + (double) now.tv_nsec * 1e-9
                 - rs_now();
  double kept = atomic_load_explicit(&distance, memory_order_relaxed);
  if (fabs(kept - d) > 1e-2) {
    kept = d;
    atomic_store_explicit(&distance, d, memory_order_relaxed);
  }
  lua_pushnumber(L, t + kept);
}

/* Fields of a job.  Those below INFO_FIELDS are in 'job:info()', too, and
   those below FACTS in 'job:facts()'. */
enum {
  ID, NAME, STATE, REASON, WORKER, HOST, ATTEMPTS, CREATED, STARTED, FINISHED,
  QUEUED, DURATION, FACTS, STARTED_AT = FACTS, FINISHED_AT, INFO_FIELDS,
  ERROR = INFO_FIELDS, STREAMS, FIELDS
};

static const char *const field_names[FIELDS] = {
  "id", "name", "state", "reason", "worker", "host", "attempts", "created",
  "started", "finished", "queued", "duration", "started_at", "finished_at",
  "error", "streams"
};

/* [-0, +1, m]  Push a field below INFO_FIELDS of the job, whose 'info' was
   read; nil where it has no value yet. */
static void
push_field (lua_State *L, rs_job *job, const rs_job_info *info, int field)
{
  switch (field) {
    case ID:
      lua_pushinteger(L, (lua_Integer) info->id);
      return;
    case NAME:
      lua_pushstring(L, rs_job_name(job));
      return;
    case STATE:
      lua_pushstring(L, rs_job_state_name(info->state));
      return;
    case REASON:
      lua_pushstring(L, info->reason);
      return;
    case WORKER:
      if (info->worker != 0)
        lua_pushinteger(L, (lua_Integer) info->worker);
      else
        lua_pushnil(L);
      return;
    case HOST:
      lua_pushstring(L, info->host);
      return;
    case ATTEMPTS:
      lua_pushinteger(L, (lua_Integer) info->attempts);
      return;
    case CREATED:
      push_instant(L, info->created);
      return;
    case STARTED:
      push_instant(L, info->started);
      return;
    case FINISHED:
      push_instant(L, info->finished);
      return;
    case STARTED_AT:
      push_wall(L, info->started);
      return;
    case FINISHED_AT:
      push_wall(L, info->finished);
      return;
    case QUEUED:
      lua_pushnumber(L, (info->started > 0 ? info->started
                         : info->finished > 0 ? info->finished : rs_now())
                        - info->created);
      return;
    default:
      lua_pushnumber(L, info->started == 0 ? 0
                        : (info->finished > 0 ? info->finished : rs_now())
                          - info->started);
  }
}

/* [-0, +0, e]  Take the results that 'look' has kept from the registry. */
static void
drop_kept (lua_State *L, rs_handle *handle)
{
  if (!handle->kept)
    return;
  handle->kept = false;
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, handle);
}

/*
 * [-0, +0, e]  Decode the results of a job that has completed, if they are not
 * only data, before the script is told the state of the job: the job becomes a
 * failed one when they cannot be rebuilt.  The registry keeps the results; the
 * first 'push_results' takes them.
 */
static void
look (lua_State *L, rs_handle *handle)
{
  rs_job *const job = handle->object;
  int n;
  if (handle->kept || handle->got || !rs_job_rebuilds(job))
    return;
  const int top = lua_gettop(L);
  if (rs_job_push(job, L, &n) == RS_OK) {
    rs_level_room(L, 3, NULL);
    lua_createtable(L, n, 1);
    lua_insert(L, top + 1);
    for (int i = n; i > 0; i--)
      lua_rawseti(L, top + 1, i);
    lua_pushinteger(L, n);
    lua_rawseti(L, top + 1, 0);
    lua_rawsetp(L, LUA_REGISTRYINDEX, handle);
    handle->kept = true;
  }
  lua_settop(L, top);
}

/* [-0, +n, e]  'rs_job_push', or the results that 'look' has kept. */
static int
push_results (lua_State *L, rs_handle *handle, int *n)
{
  if (!handle->kept)
    return rs_job_push(handle->object, L, n);
  const int top = lua_gettop(L);
  rs_push_kept_table(L, handle);
  lua_rawgeti(L, top + 1, 0);
  *n = (int) lua_tointeger(L, -1);
  lua_pop(L, 1);
  rs_level_room(L, *n + 1, "too many results");
  for (int i = 1; i <= *n; i++)
    lua_rawgeti(L, top + 1, i);
  lua_remove(L, top + 1);
  drop_kept(L, handle);
  return RS_OK;
}

/* [-0, +1, e]  Push job.error: the value that the job raised; or the text that
   says why it ended without a result; or the first value that it sent to its
   stream of errors; or nil. */
static void
push_error (lua_State *L, rs_job *job, const rs_job_info *info)
{
  const int top = lua_gettop(L);
  if (info->state == RS_JOB_FAILED || info->failure != NULL) {
    int n;
    rs_job_push(job, L, &n);
    lua_settop(L, top + 1);
  }
  else if (info->state == RS_JOB_COMPLETED_WITH_ERRORS) {
    rs_stream_record_info r = { .stream = RS_STREAM_OUTPUT };
    rs_stream_record *record = NULL;
    do {
      rs_stream_record_unref(record);
      record = rs_job_record(job, r.sequence);
      if (record != NULL)
        rs_stream_record_info_get(record, &r);
    } while (record != NULL && r.stream != RS_STREAM_ERROR);
    if (record == NULL)
      lua_pushnil(L);
    else {
      rs_push_record(L, record);
      lua_getfield(L, -1, "value");
      lua_remove(L, -2);
    }
  }
  else
    lua_pushnil(L);
}

/* [-0, +1, e]  Push job.streams: an array of records for each stream, the
   array 'all', and the table 'dropped' of counts. */
static void
push_streams (lua_State *L, rs_job *job, const rs_job_info *info)
{
  lua_createtable(L, 0, RS_STREAM_EVENT + 2);
  const int streams = lua_gettop(L);
  lua_newtable(L);  /* field 'dropped' */
  for (int i = 0; i < RS_STREAM_EVENT; i++) {
    const char *const name = rs_stream_name((rs_stream) i);
    lua_newtable(L);
    lua_setfield(L, streams, name);
    if (info->dropped[i] > 0) {
      lua_pushinteger(L, (lua_Integer) info->dropped[i]);
      lua_setfield(L, -2, name);
    }
  }
  lua_setfield(L, streams, "dropped");
  lua_newtable(L);
  lua_setfield(L, streams, "all");
  uint64_t after = 0;
  rs_stream_record *record;
  while ((record = rs_job_record(job, after)) != NULL) {
    rs_stream_record_info r;
    rs_stream_record_info_get(record, &r);
    after = r.sequence;
    rs_push_record(L, record);
    rs_add_to_streams(L);
  }
}

/* __index of handles of jobs: a method or a field.  Upvalues: a table of the
   numbers of fields, by name; the methods. */
static int
get_field (lua_State *L)
{
  luaL_checktype(L, lua_upvalueindex(1), LUA_TTABLE);
  luaL_checktype(L, lua_upvalueindex(2), LUA_TTABLE);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL)  /* a method? */
    return 1;
  rs_job *const job = check(L);
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL) {
    lua_settop(L, 2);
    lua_gettable(L, lua_upvalueindex(2));  /* may load a file of the module */
    return 1;
  }
  const int field = (int) lua_tointeger(L, -1);
  rs_job_info i;
  rs_job_info_get(job, &i);
  if ((field == STATE || field == REASON || field == ERROR)
      && i.finished > 0) {
    rs_job_see(job);
    look(L, lua_touserdata(L, 1));
    rs_job_info_get(job, &i);
  }
  if (field == ERROR)
    push_error(L, job, &i);
  else if (field == STREAMS)
    push_streams(L, job, &i);
  else
    push_field(L, job, &i, field);
  return 1;
}

/* [-0, +1, m]  Push a table of the fields of a job below 'n', with room for
   'more' fields. */
static void
push_fields (lua_State *L, rs_job *job, const rs_job_info *info, int n,
             int more)
{
  lua_createtable(L, 0, n + more);
  for (int k = 0; k < n; k++) {
    push_field(L, job, info, k);
    lua_setfield(L, -2, field_names[k]);
  }
}

/* job:info() -> table of fields.  A job that has ended counts as looked at. */
static int
info (lua_State *L)
{
  rs_job *const job = check(L);
  look(L, lua_touserdata(L, 1));
  rs_job_info i;
  rs_handle_most(L, 1, 1, "job:info()");
  rs_job_info_get(job, &i);
  if (i.finished > 0)
    rs_job_see(job);
  push_fields(L, job, &i, INFO_FIELDS, 0);
  return 1;
}

/* job:facts() -> table of the fields of 'job:info()', and of 'listen', 'chunk'
   and 'unseen', for the Lua part only.  The job does not count as looked
   at. */
static int
facts (lua_State *L)
{
  rs_job *const job = check(L);
  look(L, lua_touserdata(L, 1));
  rs_job_info i;
  rs_job_info_get(job, &i);
  push_fields(L, job, &i, FACTS, 3);
  lua_pushinteger(L, i.listen);
  lua_setfield(L, -2, "listen");
  lua_pushboolean(L, i.chunk);
  lua_setfield(L, -2, "chunk");
  lua_pushboolean(L, i.forgotten && i.unseen);
  lua_setfield(L, -2, "unseen");
  return 1;
}

/* [-(0|1), +0, e]  If 'status' is not LUA_OK, raise the error on top.  If the
   job that waits is to stop, stop 'job', for which it waits, before that. */
static void
check_wait (lua_State *L, rs_job *job, int status)
{
  if (status == LUA_OK)
    return;
  if (rs_lua_is_stopping(L))
    rs_job_orphan(job);
  lua_error(L);
}

/* [-0, +0, e]  Run the handlers of what has happened, in a wait for 'job'. */
static void
dispatch (lua_State *L, rs_events *e, rs_job *job)
{
  lua_Integer n;
  check_wait(L, job, rs_lua_try_dispatch(L, e, &n));
}

bool
rs_await_job (lua_State *L, rs_events *e, rs_job *job, double timeout)
{
  /* A short job ends in less time than it takes to go to sleep and wake, so
     look for its end first.  Not in a job, which runs queued jobs itself while
     it waits. */
  if (timeout != 0 && rs_pool_current(L) == NULL && !rs_events_pending(e)
      && rs_job_look(job)) {
    rs_job_see(job);
    return true;
  }
  const double deadline = timeout == RS_FOREVER ? 0 : rs_now() + timeout;
  dispatch(L, e, job);
  while (!rs_job_settled(job)) {
    double left = timeout;
    if (timeout != RS_FOREVER) {
      rs_job_info i;
      rs_job_info_get(job, &i);
      if (i.finished > 0)  /* it has ended, and settles in a moment */
        left = RS_FOREVER;
      else
        left = deadline - rs_now() > 0 ? deadline - rs_now() : 0;
    }
    if (left == 0) {
      rs_job_unblock(L);
      return false;
    }
    if (!rs_job_help(job, L)) {
      if (rs_job_await(job, left) == RS_EINVAL)  /* has a handler forked? */
        rs_handle_error(L, "this job belongs to another process");
      check_wait(L, job, rs_lua_try_look(L));
    }
    dispatch(L, e, job);
  }
  rs_job_unblock(L);
  rs_lua_dispatch(L, e);  /* the job's handlers run before this returns */
  rs_job_see(job);
  return true;
}

/* job:wait([timeout]) -> state | nil, "timeout" */
static int
wait (lua_State *L)
{
  rs_job *const job = check(L);  /* the handle stays on the stack */
  rs_handle_most(L, 2, 1, "job:wait([timeout])");
  if (!rs_await_job(L, rs_lua_events(L), job,
                    rs_handle_timeout(L, 2, "wait"))) {
    lua_pushnil(L);
    lua_pushliteral(L, "timeout");
    return 2;
  }
  look(L, lua_touserdata(L, 1));
  rs_job_info i;
  rs_job_info_get(job, &i);
  lua_pushstring(L, rs_job_state_name(i.state));
  return 1;
}

/* job:get([timeout]) -> results...  The Lua part does the rest when there is a
   timeout, a wrong argument, or a job that did not complete. */
static int
get (lua_State *L)
{
  rs_handle *const handle = (rs_handle *) rs_handle_test(L, 1, RS_JOB_TYPE);
  if (handle != NULL && handle->object != NULL && lua_isnoneornil(L, 2)
      && lua_gettop(L) <= 2 && !rs_handle_foreign(handle)) {
    rs_face *const face = rs_lua_own_face(L);
    rs_events *const e = rs_lua_events_of(L, face);
    rs_job *const job = handle->object;
    int n;
    if (!rs_job_settled(job) || rs_events_pending(e))
      rs_await_job(L, e, job, RS_FOREVER);
    handle->got = true;
    lua_settop(L, 1);
    if (push_results(L, handle, &n) == RS_OK)
      return n;
    lua_settop(L, 1);
  }
  return rs_lua_call(L, "parallel.job", "job_methods", "get");
}

/* job:listen(mask) */
static int
listen (lua_State *L)
{
  rs_job_listen(check(L), (unsigned) luaL_checkinteger(L, 2));
  return 0;
}

/* job:news() -> id, is it a chunk, has it started, has it ended */
static int
news (lua_State *L)
{
  rs_job_info i;
  rs_job_info_get(check(L), &i);
  lua_pushinteger(L, (lua_Integer) i.id);
  lua_pushboolean(L, i.chunk);
  lua_pushboolean(L, i.started > 0);
  lua_pushboolean(L, i.finished > 0);
  return 4;
}

/* job:deliver() -> record | nil, event | nil.  The next record or event, by
   sequence, that was not delivered yet. */
static int
deliver (lua_State *L)
{
  rs_stream_record *const record = rs_job_deliver(check(L));
  rs_stream_record_info info = { .stream = RS_STREAM_OUTPUT };
  lua_settop(L, 1);
  if (record != NULL)
    rs_stream_record_info_get(record, &info);
  if (record != NULL && info.stream != RS_STREAM_EVENT) {
    rs_push_record(L, record);
    return 1;
  }
  lua_pushnil(L);
  if (record == NULL)
    return 1;
  rs_push_event(L, record, 1);
  return 2;
}

/* job:delivered() -> sequence of the last record or event delivered */
static int
delivered (lua_State *L)
{
  lua_pushinteger(L, (lua_Integer) rs_job_delivered(check(L)));
  return 1;
}

/* job:record(after) -> the first record kept whose sequence is above 'after',
   or nil */
static int
record (lua_State *L)
{
  rs_job *const job = check(L);
  rs_stream_record *const r =
    rs_job_record(job, (uint64_t) luaL_checkinteger(L, 2));
  if (r != NULL)
    rs_push_record(L, r);
  else
    lua_pushnil(L);
  return 1;
}

/* job:settled() -> boolean */
static int
settled (lua_State *L)
{
  lua_pushboolean(L, rs_job_settled(check(L)));
  return 1;
}

/* job:help() -> boolean.  In a runspace, run the job here if it is still
   queued at the runspace's own pool; true when it was run. */
static int
help (lua_State *L)
{
  lua_pushboolean(L, rs_job_help(check(L), L));
  return 1;
}

/* job:see()  The failure of the job needs no report. */
static int
see (lua_State *L)
{
  rs_job_see(check(L));
  return 0;
}

/* job:fetch() -> true, results... | false, error, traceback, state
                | nil, "not finished" */
static int
fetch (lua_State *L)
{
  rs_job *const job = check(L);
  int n;
  rs_handle_most(L, 1, 1, "job:fetch()");
  lua_settop(L, 1);
  lua_pushboolean(L, 1);
  switch (push_results(L, lua_touserdata(L, 1), &n)) {
    case RS_OK:
      return n + 1;
    case RS_EBUSY:
      lua_pushnil(L);
      lua_pushliteral(L, "not finished");
      return 2;
    default: {
      rs_job_info i;
      rs_job_info_get(job, &i);
      lua_pushboolean(L, 0);
      lua_replace(L, 2);
      if (i.state != RS_JOB_FAILED && i.failure == NULL) {
        /* The state says all: no error value. */
        lua_pushnil(L);
        lua_replace(L, 3);
      }
      lua_pushstring(L, rs_job_state_name(i.state));
      return 4;
    }
  }
}

/* job:place(timeout) -> traceback | nil, why */
static int
place (lua_State *L)
{
  char text[4000];
  rs_error err;
  const int status = rs_job_traceback(check(L), luaL_checknumber(L, 2), text,
                                      sizeof text, &err);
  if (status != RS_OK)
    lua_pushnil(L);
  lua_pushstring(L, status == RS_OK ? text : err.text);
  return status == RS_OK ? 1 : 2;
}

/* job:stop([grace]) -> true when the job had not ended */
static int
stop (lua_State *L)
{
  const int status = rs_job_cancel(check(L), luaL_optnumber(L, 2, -1));
  if (status == RS_ETHREAD)
    return rs_handle_error(L, "the system gives no thread to see to the end "
                              "of the job: it was asked to stop, once");
  lua_pushboolean(L, status == RS_OK);
  return 1;
}

static int
to_string (lua_State *L)
{
  rs_job *const job = check(L);
  rs_job_info i;
  rs_job_info_get(job, &i);
  lua_pushfstring(L, "parallel.job: %s (%s)",
                  rs_handle_escape(L, rs_job_name(job)),
                  rs_job_state_name(i.state));
  return 1;
}

/* __gc of a handle; the job runs on. */
static int
gc (lua_State *L)
{
  rs_handle *const handle = (rs_handle *) rs_handle_test(L, 1, RS_JOB_TYPE);
  if (handle == NULL)
    return 0;
  drop_kept(L, handle);
  rs_job_forget(handle->object);
  handle->object = NULL;
  return 0;
}

void
rs_open_job_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__tostring", to_string },
    { "__gc", gc },
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = {
    { "get", get },
    { "info", info },
    { "wait", wait },
    { "fetch", fetch },
    { "deliver", deliver },
    { "delivered", delivered },
    { "facts", facts },
    { "help", help },
    { "listen", listen },
    { "news", news },
    { "place", place },
    { "record", record },
    { "see", see },
    { "settled", settled },
    { "stop", stop },
    { NULL, NULL }
  };
  rs_handle_type(L, RS_JOB_TYPE, rs_lua_face(L), meta, methods);
  lua_rawgetp(L, LUA_REGISTRYINDEX, RS_JOB_TYPE);
  lua_createtable(L, 0, FIELDS);
  for (int i = 0; i < FIELDS; i++) {
    lua_pushinteger(L, i);
    lua_setfield(L, -2, field_names[i]);
  }
  lua_pushvalue(L, -3);  /* on top: methods, metatable, numbers */
  lua_pushcclosure(L, get_field, 2);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}
