/* SPDX-License-Identifier: MIT */
/*
 * ltask.c - 'parallel.task': the functions by which a job sends values while
 * it runs, and the fields by which it learns of itself.
 */
#include "face/ltask.h"

#include <string.h>

#include <lauxlib.h>

#include "face/levent.h"
#include "face/lexecute.h"
#include "face/lface.h"
#include "face/lhandle.h"

/* ----------------------------------------------------------------- sending */

static int get_field (lua_State *L);

/* [-0, +0, v]  Raise if the first argument is 'parallel.task' itself: the
   function was called with a colon. */
static void
is_called_by_colon (lua_State *L, const char *name)
{
  if (!lua_getmetatable(L, 1))
    return;
  lua_pushliteral(L, "__index");
  lua_rawget(L, -2);
  if (lua_tocfunction(L, -1) == get_field)
    rs_handle_error(L, "bad call of '%s' (got parallel.task itself, by a "
                       "colon; it is written parallel.task.%s(...))", name,
                    name);
  lua_pop(L, 2);
}

/* task.warning(value), and the functions of the other streams that take one
   value */
static int
send_one (lua_State *L, rs_stream stream)
{
  const char *const name = rs_stream_name(stream);
  if (lua_isnone(L, 1))
    rs_handle_error(L, "bad argument 'value' to '%s' (a value expected, got "
                       "none)", name);
  if (lua_istable(L, 1) && lua_gettop(L) > 1 && !lua_isnil(L, 2))
    is_called_by_colon(L, name);
  if (lua_gettop(L) > 1)
    rs_handle_most(L, 1, 0, lua_pushfstring(L, "parallel.task.%s(value); to "
                                               "send several, make a table of "
                                               "them, or call it for each",
                                            name));
  lua_settop(L, 1);
  rs_task_send(L, stream, 1);
  return 0;
}

static int
send_output (lua_State *L)
{
  is_called_by_colon(L, "output");
  rs_task_send(L, RS_STREAM_OUTPUT, lua_gettop(L));
  return 0;
}

static int
send_error (lua_State *L)
{
  return send_one(L, RS_STREAM_ERROR);
}

static int
send_warning (lua_State *L)
{
  return send_one(L, RS_STREAM_WARNING);
}

static int
send_verbose (lua_State *L)
{
  return send_one(L, RS_STREAM_VERBOSE);
}

static int
send_debug (lua_State *L)
{
  return send_one(L, RS_STREAM_DEBUG);
}

static int
send_information (lua_State *L)
{
  return send_one(L, RS_STREAM_INFORMATION);
}

/* task.progress{activity =, status =, percent =}, task.progress(text) */
static int
send_progress (lua_State *L)
{
  if (lua_type(L, 1) != LUA_TSTRING) {
    if (!lua_istable(L, 1))
      return rs_handle_error(L, "bad argument 'value' to 'progress' (a text "
                                "or a table expected, got %s; the fields are "
                                "activity, status and percent)",
                             rs_handle_describe(L, 1));
    is_called_by_colon(L, "progress");
    lua_pushnil(L);
    while (lua_next(L, 1)) {
      const char *const name = lua_type(L, -2) == LUA_TSTRING
                             ? lua_tostring(L, -2) : "?";
      const bool percent = strcmp(name, "percent") == 0;
      if (!percent && strcmp(name, "activity") != 0
          && strcmp(name, "status") != 0)
        return rs_handle_error(L, "unknown field '%s' to 'progress' (known "
                                  "are activity, status and percent)",
                               rs_handle_clean(L, name, strlen(name)));
      if (percent ? lua_type(L, -1) != LUA_TNUMBER
                  : lua_type(L, -1) != LUA_TSTRING)
        return rs_handle_error(L, "bad field '%s' to 'progress' (%s expected, "
                                  "got %s)", name,
                               percent ? "a number" : "a string",
                               rs_handle_describe(L, lua_gettop(L)));
      lua_pop(L, 1);
    }
  }
  return send_one(L, RS_STREAM_PROGRESS);
}

/* task.emit(name, ...) */
static int
emit (lua_State *L)
{
  static const char *const own[] = {
    "started", "finished", "event", "unseen_failure"
  };
  is_called_by_colon(L, "emit");
  if (lua_type(L, 1) != LUA_TSTRING)
    return rs_handle_error(L, "bad argument 'name' to 'emit' (a string "
                              "expected, got %s)", rs_handle_describe(L, 1));
  if (lua_rawlen(L, 1) == 0)
    return rs_handle_error(L, "bad argument 'name' to 'emit' (a name "
                              "expected, got '')");
  const char *const name = lua_tostring(L, 1);
  rs_stream stream;
  bool reserved = rs_stream_find(name, &stream);
  for (int i = 0; i <= RS_JOB_LOST; i++)
    reserved |= strcmp(name, rs_job_state_name((rs_job_state) i)) == 0;
  for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
    reserved |= strcmp(name, own[i]) == 0;
  if (reserved)
    return rs_handle_error(L, "bad argument 'name' to 'emit' (the event '%s' "
                              "is the module's own; emit one of another "
                              "name)", name);
  rs_task_emit(L, name, lua_gettop(L) - 1);
  return 0;
}

/* task.sleep(seconds) */
static int
sleep_for (lua_State *L)
{
  is_called_by_colon(L, "sleep");
  const double seconds = lua_type(L, 1) == LUA_TNUMBER ? lua_tonumber(L, 1)
                                                       : -1;
  if (!(seconds >= 0))
    return rs_handle_error(L, "bad argument 'seconds' to 'sleep' (a "
                              "non-negative number of seconds expected, got "
                              "%s)", rs_handle_describe(L, 1));
  rs_handle_most(L, 1, 0, "parallel.task.sleep(seconds)");
  const double until = rs_now() + seconds;
  double left = seconds;
  rs_task_checkpoint(L);
  while (left > 0) {
    rs_events *const e = rs_lua_events(L);
    rs_lua_sleep(L, e, left < 1e9 ? left : RS_FOREVER);
    rs_lua_dispatch(L, e);
    left = until - rs_now();
  }
  return 0;
}

/* task.checkpoint() */
static int
checkpoint (lua_State *L)
{
  is_called_by_colon(L, "checkpoint");
  rs_handle_most(L, 0, 0, "parallel.task.checkpoint()");
  rs_task_checkpoint(L);
  return 0;
}

/* Functions of 'parallel.task'.  Each is pushed as a light C function when it
   is asked for, so a runspace that uses none of them pays for none. */
static const luaL_Reg functions[] = {
  { "output", send_output },
  { "error", send_error },
  { "warning", send_warning },
  { "verbose", send_verbose },
  { "debug", send_debug },
  { "information", send_information },
  { "progress", send_progress },
  { "emit", emit },
  { "sleep", sleep_for },
  { "checkpoint", checkpoint },
  { "execute", rs_lua_execute },
  { NULL, NULL }
};

/* ------------------------------------------------------------------ fields */

/* [-0, +0|1, -]  Push the function 'name'.  Return false, and push nothing, if
   there is none of that name. */
static bool
push_function (lua_State *L, const char *name)
{
  for (const luaL_Reg *f = functions; f->name != NULL; f++) {
    if (strcmp(f->name, name) == 0) {
      lua_pushcfunction(L, f->func);
      return true;
    }
  }
  return false;
}

/* __index of 'parallel.task': a function, or a field such as 'index', which is
   nil outside a job */
static int
get_field (lua_State *L)
{
  rs_task task;
  if (lua_type(L, 2) != LUA_TSTRING)
    return 0;
  const char *const name = lua_tostring(L, 2);
  if (push_function(L, name))
    return 1;
  if (!rs_task_get(L, &task))
    lua_pushnil(L);
  else if (strcmp(name, "index") == 0 && task.index > 0)
    lua_pushinteger(L, task.index);
  else if (strcmp(name, "id") == 0)
    lua_pushinteger(L, (lua_Integer) task.id);
  else if (strcmp(name, "name") == 0)
    lua_pushstring(L, task.name);
  else if (strcmp(name, "worker") == 0)
    lua_pushinteger(L, (lua_Integer) task.worker);
  else if (strcmp(name, "attempt") == 0)
    lua_pushinteger(L, (lua_Integer) task.attempt);
  else if (strcmp(name, "stopping") == 0)
    lua_pushboolean(L, task.stopping);
  else
    lua_pushnil(L);
  return 1;
}

static int
new_index (lua_State *L)
{
  return rs_handle_error(L, "the field %s of parallel.task cannot be set: its "
                            "fields tell what the job is",
                         rs_handle_describe(L, 2));
}

/* Fields of 'parallel.task' that are no functions. */
static const char *const fields[] = {
  "index", "id", "name", "worker", "attempt", "stopping"
};

/* (table, key) -> the next key, its value */
static int
next (lua_State *L)
{
  lua_settop(L, 2);
  return lua_next(L, 1) ? 2 : 0;
}

/* __pairs of 'parallel.task': returns 'next', a table of the functions and of
   the fields as they are now, nil */
static int
list (lua_State *L)
{
  lua_settop(L, 1);
  lua_pushcfunction(L, next);
  lua_newtable(L);
  for (const luaL_Reg *f = functions; f->name != NULL; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, 3, f->name);
  }
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    lua_getfield(L, 1, fields[i]);
    lua_setfield(L, 3, fields[i]);
  }
  lua_pushnil(L);
  return 3;
}

void
rs_push_task (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__index", get_field },
    { "__newindex", new_index },
    { "__pairs", list },
    { NULL, NULL }
  };
  lua_newtable(L);
  luaL_newlib(L, meta);
  lua_setmetatable(L, -2);
}
