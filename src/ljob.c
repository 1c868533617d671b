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

void
rs_push_job (lua_State *L, rs_job *job)
{
  *rs_handle_new(L, RS_JOB_TYPE) = job;
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
  else if (strcmp(name, "created") == 0)
    push_instant(L, info->created);
  else if (strcmp(name, "started") == 0)
    push_instant(L, info->started);
  else if (strcmp(name, "finished") == 0)
    push_instant(L, info->finished);
  else
    lua_pushnil(L);
}

/* job.name, job:method */
static int
get_field (lua_State *L)
{
  rs_job_info i;
  rs_job_info_get(check(L), &i);
  if (lua_type(L, 2) == LUA_TSTRING) {
    push_field(L, &i, lua_tostring(L, 2));
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
    "id", "name", "state", "worker", "attempts", "created", "started",
    "finished"
  };
  rs_job_info i;
  rs_job_info_get(check(L), &i);
  lua_newtable(L);
  for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++) {
    push_field(L, &i, fields[k]);
    lua_setfield(L, -2, fields[k]);
  }
  return 1;
}

/* job:wait([timeout]) -> state | nil, "timeout" */
static int
wait (lua_State *L)
{
  rs_job *const job = check(L);
  if (rs_job_wait(job, L, rs_handle_timeout(L, 2)) != RS_OK) {
    lua_pushnil(L);
    lua_pushliteral(L, "timeout");
    return 2;
  }
  rs_job_info i;
  rs_job_info_get(job, &i);
  lua_pushstring(L, rs_job_state_name(i.state));
  return 1;
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
      lua_pushstring(L, rs_job_state_name(i.state));
      return 4;
    }
  }
}

/* job:cancel() -> true when it had not ended */
static int
cancel (lua_State *L)
{
  lua_pushboolean(L, rs_job_cancel(check(L)) == RS_OK);
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
  rs_job_unref(*handle);
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
    { "cancel", cancel },
    { NULL, NULL }
  };
  rs_handle_type(L, RS_JOB_TYPE, meta, methods);
}
