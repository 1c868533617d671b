/* SPDX-License-Identifier: MIT */
/*
 * lhandle.c - userdata that hold a reference to an object of the library.
 */
#include "face/lhandle.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "base/level.h"
#include "face/lremedy.h"

const char rs_type_pool[] = "parallel.pool";
const char rs_type_job[] = "parallel.job";
const char rs_type_batch[] = "parallel.batch";
const char rs_type_initial_state[] = "parallel.initial_state";

void **
rs_handle_new (lua_State *L, const char *type, int values)
{
  rs_handle *const handle = lua_newuserdatauv(L, sizeof *handle, values);
  *handle = (rs_handle) { .type = type, .born = rs_handle_born() };
  rs_push_kept_table(L, type);
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

void
rs_raise_replaced (lua_State *L)
{
  rs_handle_error(L, "what the module had in the registry of this state, or "
                     "in a handle, was replaced");
  abort();  /* not reached */
}

void
rs_push_kept_table (lua_State *L, const void *key)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, key) != LUA_TTABLE)
    rs_raise_replaced(L);
}

void *
rs_handle_get (lua_State *L, int arg, const char *type)
{
  void **const handle = rs_handle_test(L, arg, type);
  if (handle == NULL) {
    lua_Debug ar;
    const char *const noun = strchr(type, '.') + 1;
    const char *verb = NULL;
    if (lua_getstack(L, 0, &ar) && lua_getinfo(L, "n", &ar) != 0)
      verb = ar.name;
    if (verb == NULL)
      verb = "method";
    rs_handle_error(L, "bad call of '%s' (a %s expected, got %s; it is "
                       "written %s:%s(...))", verb, noun,
                    rs_handle_describe(L, arg), noun, verb);
    return NULL;  /* not reached */
  }
  if (rs_handle_foreign((const rs_handle *) handle)
      && type != RS_INITIAL_STATE_TYPE)  /* valid here: it has no thread */
    rs_handle_error(L, "this %s belongs to another process",
                    strchr(type, '.') + 1);
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

/*
 * [-0, +0, m]  Hide the metatable that is below the table of methods on top:
 * 'getmetatable' gives a table with the name of the type and the methods
 * instead.  Otherwise a script could call the finalizer, and free the object
 * while a method is using it.
 */
static void
hide (lua_State *L, const char *type)
{
  lua_createtable(L, 0, 2);
  lua_pushstring(L, type);
  lua_setfield(L, -2, "__name");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "methods");
  lua_setfield(L, -3, "__metatable");
}

void
rs_handle_type (lua_State *L, const char *type, void *own,
                const luaL_Reg *meta, const luaL_Reg *methods)
{
  lua_newtable(L);
  lua_pushstring(L, type);
  lua_setfield(L, -2, "__name");
  lua_pushlightuserdata(L, own);
  luaL_setfuncs(L, meta, 1);
  lua_newtable(L);
  lua_pushlightuserdata(L, own);
  luaL_setfuncs(L, methods, 1);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "methods");
  hide(L, type);
  if (lua_getfield(L, -2, "__index") == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_setfield(L, -4, "__index");
  }
  lua_pop(L, 1);
  lua_pushvalue(L, -2);
  lua_setfield(L, LUA_REGISTRYINDEX, type);
  lua_pushvalue(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, type);
  lua_remove(L, -2);
}

void
rs_push_type (lua_State *L, const char *type, const luaL_Reg *meta)
{
  if (luaL_getmetatable(L, type) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_pushstring(L, type);
  lua_setfield(L, -2, "__name");
  luaL_setfuncs(L, meta, 0);
  lua_pushvalue(L, -1);
  lua_setfield(L, LUA_REGISTRYINDEX, type);
}

/* [-0, +1, m]  Push "file:line: " of the code that called into the module, or
   "" if that is unknown; with 'near', also "" if another function in C, such
   as 'pcall', stands between that code and the module. */
static void
push_position (lua_State *L, bool near)
{
  lua_Debug ar;
  int in_c = 0;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (rs_level_is_ours(&ar))
      in_c = 0;
    else if (*ar.what == 'C' && ++in_c > 1 && near)  /* one is ours */
      break;
    if (ar.currentline > 0 && !rs_level_is_ours(&ar)) {
      lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
      return;
    }
  }
  lua_pushliteral(L, "");
}

void
rs_handle_position (lua_State *L)
{
  push_position(L, false);
}

static int
nothing (lua_State *L)
{
  (void) L;
  return 0;
}

/* [-0, +0, v]  Let a hook that waits for the next event raise now.  An
   interrupt that has ended what the error would tell of is raised like that,
   and the error is not. */
static void
run_hooks (lua_State *L)
{
  if (lua_gethook(L) == NULL || !lua_checkstack(L, 1))
    return;
  lua_pushcfunction(L, nothing);
  lua_call(L, 0, 0);
}

int
rs_handle_error (lua_State *L, const char *format, ...)
{
  va_list args;
  run_hooks(L);
  push_position(L, false);
  va_start(args, format);
  const char *const text = lua_pushvfstring(L, format, args);
  va_end(args);
  const char *const remedy = rs_remedy(text);
  lua_pushstring(L, remedy != NULL ? "; " : "");
  lua_pushstring(L, remedy != NULL ? remedy : "");
  lua_concat(L, 4);
  return lua_error(L);
}

int
rs_handle_error_near (lua_State *L, const char *text)
{
  run_hooks(L);
  push_position(L, true);
  lua_pushstring(L, text);
  lua_concat(L, 2);
  return lua_error(L);
}

int
rs_handle_raise (lua_State *L, const rs_error *err)
{
  return rs_handle_error(L, "%s", err->text);
}

const char *
rs_handle_escape (lua_State *L, const char *text)
{
  const size_t size = strlen(text), room = rs_escape(text, size, NULL, 0) + 1;
  luaL_Buffer b;
  rs_escape(text, size, luaL_buffinitsize(L, &b, room), room);
  luaL_pushresultsize(&b, room - 1);
  return lua_tostring(L, -1);
}

const char *
rs_handle_clean (lua_State *L, const char *text, size_t size)
{
  enum { MOST = 40 };
  static const char dots[] = "...";
  char start[MOST], shown[4 * MOST + 1];
  if (size > MOST) {
    size_t n = MOST - strlen(dots);
    for (int i = 0; i < 3 && ((unsigned char) text[n] & 0xc0) == 0x80; i++)
      n--;  /* cut between characters */
    memcpy(start, text, n);
    memcpy(start + n, dots, strlen(dots));
    text = start;
    size = n + strlen(dots);
  }
  rs_escape(text, size, shown, sizeof shown);
  return lua_pushstring(L, shown);
}

const char *
rs_handle_describe (lua_State *L, int arg)
{
  size_t size;
  switch (lua_type(L, arg)) {
    case LUA_TNONE:
    case LUA_TNIL:
      return "nil";
    case LUA_TBOOLEAN:
    case LUA_TNUMBER:
      return luaL_tolstring(L, arg, NULL);
    case LUA_TSTRING: {
      const char *const text = lua_tolstring(L, arg, &size);
      return lua_pushfstring(L, "'%s'", rs_handle_clean(L, text, size));
    }
    default: {
      const char *name = luaL_typename(L, arg);
      if (luaL_getmetafield(L, arg, "__name") == LUA_TSTRING) {
        const char *const text = lua_tolstring(L, -1, &size);
        name = rs_handle_clean(L, text, size);
      }
      return lua_pushfstring(L, "a %s", name);
    }
  }
}

void
rs_handle_most (lua_State *L, int most, int own, const char *usage)
{
  for (int i = most + 1; i <= lua_gettop(L); i++) {
    if (!lua_isnil(L, i)) {
      const char *const name = usage + strcspn(usage, ".:") + 1;
      const char *verb = name;
      while (strcspn(verb, ".:") < strcspn(verb, "({"))
        verb += strcspn(verb, ".:") + 1;
      const char *const function =
        lua_pushlstring(L, verb, strcspn(verb, "({"));
      rs_handle_error(L, "bad argument %d to '%s' (none expected, got %s; it "
                         "is written %s)", i - own, function,
                      rs_handle_describe(L, i), usage);
    }
  }
}

double
rs_handle_timeout (lua_State *L, int arg, const char *verb)
{
  if (lua_isnoneornil(L, arg))
    return RS_FOREVER;
  const double t = lua_type(L, arg) == LUA_TNUMBER ? lua_tonumber(L, arg) : -1;
  if (!(t >= 0))
    rs_handle_error(L, "bad argument 'timeout' to '%s' (a non-negative number "
                       "of seconds expected, got %s)", verb,
                    rs_handle_describe(L, arg));
  return isinf(t) ? RS_FOREVER : t;
}
