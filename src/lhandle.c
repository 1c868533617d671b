/* SPDX-License-Identifier: MIT */
/*
 * lhandle.c - userdata that hold a reference to an object of the library.
 */
#include "lhandle.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

const char rs_type_pool[] = "parallel.pool";
const char rs_type_job[] = "parallel.job";
const char rs_type_batch[] = "parallel.batch";
const char rs_type_initial_state[] = "parallel.initial_state";

void **
rs_handle_new (lua_State *L, const char *type, int values)
{
  rs_handle *const handle = lua_newuserdatauv(L, sizeof *handle, values);
  *handle = (rs_handle) { .type = type };
  lua_rawgetp(L, LUA_REGISTRYINDEX, type);
  lua_setmetatable(L, -2);
  return &handle->object;
}

void **
rs_handle_test (lua_State *L, int index, const char *type)
{
  rs_handle *const handle = lua_touserdata(L, index);
  return handle != NULL && lua_rawlen(L, index) == sizeof *handle
         && handle->type == type ? &handle->object : NULL;
}

void *
rs_handle_get (lua_State *L, int arg, const char *type)
{
  void **const handle = rs_handle_test(L, arg, type);
  if (handle == NULL) {
    luaL_typeerror(L, arg, type);
    return NULL;  /* not reached */
  }
  return *handle;
}

void *
rs_handle_check (lua_State *L, int arg, const char *type)
{
  void *const object = rs_handle_get(L, arg, type);
  if (object == NULL)
    rs_handle_error(L, "%s is closed", strchr(type, '.') + 1);
  return object;
}

void
rs_handle_type (lua_State *L, const char *type, const luaL_Reg *meta,
                const luaL_Reg *methods)
{
  luaL_newmetatable(L, type);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, type);
  lua_pushlightuserdata(L, rs_lua_face(L));
  luaL_setfuncs(L, meta, 1);
  lua_newtable(L);
  lua_pushlightuserdata(L, rs_lua_face(L));
  luaL_setfuncs(L, methods, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "methods");
  if (lua_getfield(L, -2, "__index") == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_setfield(L, -4, "__index");
  }
  lua_pop(L, 1);
  lua_remove(L, -2);
}

int
rs_handle_call (lua_State *L, const char *file, const char *field,
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

/* [-0, +1, m]  Push "file:line: " of the caller of the module, or "". */
static void
push_position (lua_State *L)
{
  static const char ours[] = "@parallel/";
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline > 0 && strncmp(ar.source, ours, strlen(ours)) != 0) {
      lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
      return;
    }
  }
  lua_pushliteral(L, "");
}

int
rs_handle_error (lua_State *L, const char *format, ...)
{
  va_list args;
  push_position(L);
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  lua_concat(L, 2);
  return lua_error(L);
}

int
rs_handle_raise (lua_State *L, const rs_error *err)
{
  return rs_handle_error(L, "%s", err->text);
}

double
rs_handle_timeout (lua_State *L, int arg)
{
  if (lua_isnoneornil(L, arg))
    return RS_FOREVER;
  const double t = luaL_checknumber(L, arg);
  if (!(t >= 0))
    luaL_argerror(L, arg, lua_pushfstring(L, "seconds from 0 on expected, got "
                                             "%s", luaL_tolstring(L, arg,
                                                                  NULL)));
  return isinf(t) ? RS_FOREVER : t;
}
