/* SPDX-License-Identifier: MIT */
/*
 * ljob.c - jobs as Lua sees them.
 */
#include "lhandle.h"

#include <string.h>

static rs_job *
check (lua_State *L)
{
  return rs_handle_check(L, 1, RS_JOB_TYPE);
}

/* Key in the registry, by address: handles by job, weak. */
static const char handles_key;

/* [-0, +1, m] */
static void
push_handles (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &handles_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &handles_key);
}

void
rs_push_empty_job (lua_State *L)
{
  push_handles(L);  /* so that filling raises nothing but no memory */
  lua_pop(L, 1);
  rs_handle_new(L, RS_JOB_TYPE);
}

void
rs_fill_job (lua_State *L, int index, rs_job *job)
{
  index = lua_absindex(L, index);
  *(rs_job **) lua_touserdata(L, index) = job;
  push_handles(L);
  lua_pushvalue(L, index);
  lua_rawsetp(L, -2, job);
  lua_pop(L, 1);
  /* The collector sees a pointer; let it know of the kilobyte behind it, or
     dropped handles would pile up. */
  lua_gc(L, LUA_GCSTEP, 1);
}

void
rs_push_job (lua_State *L, rs_job *job)
{
  push_handles(L);
  /* A handle that was collected may still be there while the state closes. */
  if (lua_rawgetp(L, -1, job) == LUA_TUSERDATA
      && *(rs_job **) lua_touserdata(L, -1) == job)
    rs_job_unref(job);
  else {
    lua_pop(L, 1);
    rs_push_empty_job(L);
    rs_fill_job(L, -1, job);
  }
  lua_remove(L, -2);
}

void
rs_visit_jobs (lua_State *L, const rs_pool *pool)
{
  const int f = lua_gettop(L);
  push_handles(L);
  lua_newtable(L);  /* a copy: the function may collect garbage */
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, f + 1)) {
    rs_job *const *const handle = lua_touserdata(L, -1);
    if (*handle != NULL && (pool == NULL || rs_job_pool(*handle) == pool))
      lua_rawseti(L, f + 2, ++n);
    else
      lua_pop(L, 1);
  }
  for (lua_Integer i = 1; i <= n; i++) {
    lua_pushvalue(L, f);
    lua_rawgeti(L, f + 2, i);
    lua_call(L, 1, 0);
  }
  lua_settop(L, f);
}

/* parallel.jobs(), removed ones not yet taken out */
int
rs_lua_jobs (lua_State *L)
{
  rs_events *const e = rs_lua_events(L);
  lua_newtable(L);  /* 1: jobs by id */
  lua_settop(L, 1);
  size_t room = rs_events_jobs(e, NULL, 0) + 16;
  rs_job **const jobs = lua_newuserdatauv(L, room * sizeof *jobs, 0);
  lua_newtable(L);  /* 3 */
  const size_t n = rs_events_jobs(e, jobs, room);
  for (size_t i = 0; i < n && i < room; i++) {
    rs_job_info info;
    rs_job_info_get(jobs[i], &info);
    if (info.chunk)
      rs_job_unref(jobs[i]);
    else {
      rs_push_job(L, jobs[i]);
      lua_rawseti(L, 1, (lua_Integer) info.id);
    }
  }
  push_handles(L);
  lua_pushnil(L);
  while (lua_next(L, 4)) {
    rs_job *const *const handle = lua_touserdata(L, -1);
    rs_job_info info;
    if (*handle != NULL) {
      rs_job_info_get(*handle, &info);
      if (!info.chunk) {
        lua_pushvalue(L, -1);
        lua_rawseti(L, 1, (lua_Integer) info.id);
      }
    }
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  return 1;
}

/* [-0, +1, -]  An instant, nil when it was not reached. */
static void
push_instant (lua_State *L, double t)
{
  if (t > 0)
    lua_pushnumber(L, t);
  else
    lua_pushnil(L);
}

/* [-0, +1, m]  Push the field 'name' of a job; nil if it has none such. */
static void
push_field (lua_State *L, const rs_job_info *info, const char *name)
{
  if (strcmp(name, "id") == 0)
    lua_pushinteger(L, (lua_Integer) info->id);
  else if (strcmp(name, "name") == 0)
    lua_pushstring(L, info->name);
  else if (strcmp(name, "state") == 0)
    lua_pushstring(L, rs_job_state_name(info->state));
  else if (strcmp(name, "worker") == 0 && info->worker != 0)
    lua_pushinteger(L, (lua_Integer) info->worker);
  else if (strcmp(name, "attempts") == 0)
    lua_pushinteger(L, (lua_Integer) info->attempts);
  else if (strcmp(name, "reason") == 0 && info->reason != NULL)
    lua_pushstring(L, info->reason);
  else if (strcmp(name, "queued") == 0)
    lua_pushnumber(L, (info->started > 0 ? info->started
                       : info->finished > 0 ? info->finished : rs_now())
                      - info->created);
  else if (strcmp(name, "duration") == 0)
    lua_pushnumber(L, info->started == 0 ? 0
                      : (info->finished > 0 ? info->finished : rs_now())
                        - info->started);
  else if (strcmp(name, "created") == 0)
    push_instant(L, info->created);
  else if (strcmp(name, "started") == 0)
    push_instant(L, info->started);
  else if (strcmp(name, "finished") == 0)
    push_instant(L, info->finished);
  else
    lua_pushnil(L);
}

/* [-0, +1, e]  What the job raised, or the first that it sent to its stream
   of errors. */
static void
push_error (lua_State *L, rs_job *job, rs_job_state state)
{
  const int top = lua_gettop(L);
  if (state == RS_JOB_FAILED) {
    int n;
    rs_job_push(job, L, &n);
    lua_settop(L, top + 1);
  }
  else if (state == RS_JOB_COMPLETED_WITH_ERRORS) {
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

/* [-0, +1, e]  job.streams: a table of arrays. */
static void
push_streams (lua_State *L, rs_job *job, const rs_job_info *info)
{
  lua_createtable(L, 0, RS_STREAM_EVENT + 2);
  const int streams = lua_gettop(L);
  lua_newtable(L);  /* dropped */
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

/* job.name, job:method */
static int
get_field (lua_State *L)
{
  rs_job *const job = check(L);
  rs_job_info i;
  rs_job_info_get(job, &i);
  if (lua_type(L, 2) == LUA_TSTRING) {
    const char *const name = lua_tostring(L, 2);
    if (strcmp(name, "error") == 0) {
      push_error(L, job, i.state);
      return 1;
    }
    if (strcmp(name, "streams") == 0) {
      push_streams(L, job, &i);
      return 1;
    }
    if (strcmp(name, "state") == 0 && i.finished > 0)
      rs_job_see(job);
    push_field(L, &i, name);
    if (!lua_isnil(L, -1))
      return 1;
  }
  rs_handle_method(L, RS_JOB_TYPE);
  return 1;
}

/* job:info() -> table of all its fields */
static int
info (lua_State *L)
{
  static const char *const fields[] = {
    "id", "name", "state", "reason", "worker", "attempts", "created",
    "started", "finished", "queued", "duration"
  };
  rs_job_info i;
  rs_job_info_get(check(L), &i);
  lua_newtable(L);
  for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++) {
    push_field(L, &i, fields[k]);
    lua_setfield(L, -2, fields[k]);
  }
  lua_pushinteger(L, i.listen);
  lua_setfield(L, -2, "listen");
  lua_pushboolean(L, i.chunk);
  lua_setfield(L, -2, "chunk");
  lua_pushboolean(L, i.finished > 0);
  lua_setfield(L, -2, "ended");
  lua_pushboolean(L, i.forgotten && i.unseen);
  lua_setfield(L, -2, "unseen");
  return 1;
}

/* job:wait([timeout]) -> state | nil, "timeout" */
static int
wait (lua_State *L)
{
  rs_job *const job = check(L);  /* the handle stays on the stack */
  const double timeout = rs_handle_timeout(L, 2);
  const double deadline = timeout == RS_FOREVER ? 0 : rs_now() + timeout;
  rs_lua_dispatch(L);
  while (!rs_job_settled(job)) {
    double left = timeout;
    rs_job_info i;
    rs_job_info_get(job, &i);
    if (i.finished > 0)  /* it settles at once */
      left = RS_FOREVER;
    else if (timeout != RS_FOREVER)
      left = deadline - rs_now() > 0 ? deadline - rs_now() : 0;
    if (left == 0) {
      rs_job_unblock(L);
      lua_pushnil(L);
      lua_pushliteral(L, "timeout");
      return 2;
    }
    if (!rs_job_help(job, L))
      rs_lua_sleep(L, left);
    rs_lua_dispatch(L);
  }
  rs_job_unblock(L);
  rs_lua_dispatch(L);  /* its handlers have run when this returns */
  rs_job_info i;
  rs_job_info_get(job, &i);
  rs_job_see(job);
  lua_pushstring(L, rs_job_state_name(i.state));
  return 1;
}

/* job:listen(mask) */
static int
listen (lua_State *L)
{
  rs_job_listen(check(L), (unsigned) luaL_checkinteger(L, 2));
  return 0;
}

/* job:deliver() -> the next record or event, or nil */
static int
deliver (lua_State *L)
{
  rs_stream_record *const record = rs_job_deliver(check(L));
  if (record != NULL)
    rs_push_record(L, record);
  else
    lua_pushnil(L);
  return 1;
}

/* job:delivered() -> sequence */
static int
delivered (lua_State *L)
{
  lua_pushinteger(L, (lua_Integer) rs_job_delivered(check(L)));
  return 1;
}

/* job:record(after) -> the next record that is kept, or nil */
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

/* job:help() -> true when it was run here */
static int
help (lua_State *L)
{
  lua_pushboolean(L, rs_job_help(check(L), L));
  return 1;
}

/* job:see() */
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
  lua_settop(L, 1);
  lua_pushboolean(L, 1);
  switch (rs_job_push(job, L, &n)) {
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
      if (i.state != RS_JOB_FAILED) {  /* the state says it all */
        lua_pushnil(L);
        lua_replace(L, 3);
      }
      lua_pushstring(L, rs_job_state_name(i.state));
      return 4;
    }
  }
}

/* job:stop(grace or nil) -> true when it had not ended */
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
  rs_job_info i;
  rs_job_info_get(check(L), &i);
  lua_pushfstring(L, "parallel.job: %s (%s)", i.name,
                  rs_job_state_name(i.state));
  return 1;
}

/* A dropped handle lets its job run on. */
static int
gc (lua_State *L)
{
  rs_job **const handle = luaL_checkudata(L, 1, RS_JOB_TYPE);
  rs_job_forget(*handle);
  *handle = NULL;
  return 0;
}

void
rs_open_job_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__index", get_field },
    { "__tostring", to_string },
    { "__gc", gc },
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = {
    { "info", info },
    { "wait", wait },
    { "fetch", fetch },
    { "deliver", deliver },
    { "delivered", delivered },
    { "help", help },
    { "listen", listen },
    { "record", record },
    { "see", see },
    { "settled", settled },
    { "stop", stop },
    { NULL, NULL }
  };
  rs_handle_type(L, RS_JOB_TYPE, meta, methods);
}
