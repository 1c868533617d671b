/* SPDX-License-Identifier: MIT */
/*
 * rebuild.c - rebuild the values of a message, or tell why they cannot be.
 */
#include "state/rebuild.h"

#include <string.h>

#include <lauxlib.h>

#include "base/defer.h"
#include "base/level.h"
#include "state/cancel.h"
#include "value/decoder.h"
#include "base/status.h"

/* Fields of the table that the message handler leaves. */
enum { TEXT = 1, TRACEBACK, RAISED };

/* The function that the innermost 'rs_rebuild' of this thread calls, and
   'rs_defer_noted' when that began. */
static _Thread_local lua_CFunction rebuilding;
static _Thread_local unsigned noted;

/* [-0, +0, -]  True when the error that is handled was raised by a hook, or by
   what the hook has called, while 'rebuilding' ran. */
static bool
is_of_hook (lua_State *L)
{
  lua_Debug ar;
  bool inside = true;
  for (int level = 0; inside && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "nf", &ar);
    inside = lua_tocfunction(L, -1) != rebuilding;
    lua_pop(L, 1);
    if (inside && strcmp(ar.namewhat, "hook") == 0)
      return true;
  }
  return false;
}

/*
 * The message handler: make a text and a traceback of the error.  An error
 * that a hook has raised, for an interrupt or the end of the job, is kept in
 * RAISED as it is, to be raised again; so is one that a coroutine has passed
 * on.
 */
static int
explain (lua_State *L)
{
  lua_settop(L, 1);
  rs_level_room(L, LUA_MINSTACK, NULL);
  lua_createtable(L, RAISED, 0);
  if (noted != rs_defer_noted() || is_of_hook(L)) {
    lua_pushvalue(L, 1);
    lua_rawseti(L, 2, RAISED);
    return 1;
  }
  if (lua_type(L, 1) == LUA_TSTRING
      || luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL)
    luaL_tolstring(L, 1, NULL);
  else
    lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
  lua_rawseti(L, 2, TEXT);
  luaL_traceback(L, L, "while it was rebuilt:", 1);
  lua_rawseti(L, 2, TRACEBACK);
  lua_settop(L, 2);
  return 1;
}

/* [-1, +2, e]  Replace what the failed call left by a text and a traceback
   (or nil).  'status' tells whether that is the table of the handler
   (LUA_ERRRUN) or a message of Lua. */
static void
push_reason (lua_State *L, int status)
{
  const int top = lua_gettop(L);
  if (status == LUA_ERRRUN) {
    if (lua_rawgeti(L, top, RAISED) != LUA_TNIL)
      lua_error(L);
    lua_rawgeti(L, top, TEXT);
    lua_rawgeti(L, top, TRACEBACK);
    lua_replace(L, top + 1);
    lua_replace(L, top);
    return;
  }
  /* The text "not enough memory" is always in the state, so to push it takes
     no memory. */
  if (lua_type(L, top) != LUA_TSTRING || status == LUA_ERRMEM) {
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
    lua_replace(L, top);
  }
  lua_pushnil(L);
}

int
rs_rebuild (lua_State *L, lua_CFunction f, void *ud)
{
  bool busy;
  return rs_rebuild_busy(L, f, ud, &busy);
}

int
rs_rebuild_busy (lua_State *L, lua_CFunction f, void *ud, bool *busy)
{
  rs_level_room(L, 6, "values");
  const int base = lua_gettop(L);
  lua_pushcfunction(L, explain);
  lua_pushcfunction(L, f);
  lua_pushlightuserdata(L, ud);
  const lua_CFunction outer = rebuilding;
  const unsigned outer_noted = noted;
  rebuilding = f;
  noted = rs_defer_noted();
  *busy = true;
  const int status = lua_pcall(L, 1, LUA_MULTRET, base + 1);
  *busy = false;
  rebuilding = outer;
  noted = outer_noted;
  lua_remove(L, base + 1);
  if (status == LUA_OK)
    return lua_gettop(L) - base;
  push_reason(L, status);
  rs_cancel *const c = rs_cancel_mine();
  if (rs_cancel_stopping(c)) {  /* has 'f' failed because of the stop? */
    rs_cancel_check(c, L);
    lua_pop(L, 1);
    lua_error(L);
  }
  return -1;
}

/* (text, what, was or nil) -> text */
static int
tell (lua_State *L)
{
  lua_pushfstring(L, "%s cannot be rebuilt here: %s",
                  (const char *) lua_touserdata(L, 2), lua_tostring(L, 1));
  if (lua_type(L, 3) == LUA_TSTRING)
    lua_pushfstring(L, "%s; it was: %s", lua_tostring(L, -1),
                    lua_tostring(L, 3));
  return 1;
}

void
rs_rebuild_tell (lua_State *L, int text, const char *what, int was)
{
  lua_pushcfunction(L, tell);
  lua_pushvalue(L, text);
  lua_pushlightuserdata(L, (void *) (uintptr_t) what);
  if (was != 0)
    lua_pushvalue(L, was);
  else
    lua_pushnil(L);
  if (lua_pcall(L, 3, 1, 0) == LUA_OK)
    lua_replace(L, text);
  else
    lua_pop(L, 1);  /* no memory: the text stays as it is */
}

typedef struct result {
  const rs_message *message;
  const rs_message *function;  /* NULL: 'message' is no result of a call */
} result;

/* (result) -> the values of the message */
static int
push_all (lua_State *L)
{
  const result *const r = lua_touserdata(L, 1);
  lua_settop(L, 0);
  return rs_decode_result(L, r->message, r->function);
}

bool
rs_rebuild_result (lua_State *L, const rs_message *message,
                   const rs_message *function, int *n)
{
  result r = { message, function };
  int count = rs_decode_small(L, message);
  if (count < 0)
    count = rs_rebuild(L, push_all, &r);
  *n = count < 0 ? 2 : count;
  return count >= 0;
}

int
rs_decode_try (lua_State *L, rs_message *message, int *n)
{
  if (L == NULL || message == NULL || n == NULL)
    return RS_EINVAL;
  result r = { message, NULL };
  const int count = rs_rebuild(L, push_all, &r);
  *n = count < 0 ? 2 : count;
  return count < 0 ? RS_EFAILED : RS_OK;
}
