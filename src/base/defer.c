/* SPDX-License-Identifier: MIT */
/*
 * defer.c - calls that are whole, whatever a hook raises around them.
 *
 * An error that is put off is in the registry, and a hook of ours takes the
 * place of the one that is there until the error is raised.  A thread has one
 * such error at a time: what puts it off returns soon.
 */
#include "base/defer.h"

#include <stdlib.h>
#include <string.h>

#include "base/level.h"
#include "base/status.h"

enum { ALL = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT };

/* The key in the registry, by address, of the error that is put off. */
static const char error_key;

/* The hook whose place 'raise_it' has taken in 'L'. */
static _Thread_local struct {
  lua_State *L;             /* compared only */
  lua_Hook call;
  int mask, count;
} displaced;

/* The hook: raise what was put off. */
static void
raise_it (lua_State *L, lua_Debug *ar)
{
  (void) ar;
  if (displaced.L == L)
    lua_sethook(L, displaced.call, displaced.mask, displaced.count);
  else
    lua_sethook(L, NULL, 0, 0);
  displaced.L = NULL;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &error_key) == LUA_TNIL) {
    lua_pop(L, 1);  /* no memory to put it off; Lua always has this string */
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
  }
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  lua_error(L);
}

/* (error) */
static int
keep (lua_State *L)
{
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
  return 0;
}

void
rs_defer_put_off (lua_State *L)
{
  if (lua_gethook(L) != raise_it) {
    displaced.call = lua_gethook(L);
    displaced.mask = lua_gethookmask(L);
    displaced.count = lua_gethookcount(L);
    displaced.L = L;
  }
  lua_sethook(L, NULL, 0, 0);
  lua_pushcfunction(L, keep);
  lua_insert(L, -2);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK)
    lua_pop(L, 1);
  lua_sethook(L, raise_it, ALL, 1);
}

static int
call (lua_State *L, lua_CFunction f, void *ud, int index)
{
  lua_pushcfunction(L, f);
  lua_pushlightuserdata(L, ud);
  if (index != 0)
    lua_pushvalue(L, index);
  return lua_pcall(L, index != 0 ? 2 : 1, 0, 0);
}

int
rs_defer_call (lua_State *L, lua_CFunction f, void *ud, int index,
               const rs_progress *progress)
{
  int code = call(L, f, ud, index);
  if (code == LUA_OK)
    return code;
  if (*progress == RS_NOT_BEGUN && code != LUA_ERRMEM) {
    code = call(L, f, ud, index);  /* the hook has had its say */
    if (code == LUA_OK)
      rs_defer_put_off(L);
    else {
      lua_remove(L, -2);
      if (*progress != RS_DONE)
        return code;
      rs_defer_put_off(L);
    }
    return LUA_OK;
  }
  if (*progress != RS_DONE)
    return code;
  rs_defer_put_off(L);
  return LUA_OK;
}

/* ----------------------------------------- code of a script inside of ours */

static _Thread_local unsigned noted;

void
rs_defer_note (void)
{
  noted++;
}

unsigned
rs_defer_noted (void)
{
  return noted;
}

/* The innermost 'rs_defer_pcall' of this thread. */
static _Thread_local struct {
  const void *caller;       /* the call that has called it; compared only */
  bool by_hook;             /* a hook has raised the error */
} guarded;

/* [-0, +0, -]  The call of the function at 'level', which is compared only. */
static const void *
call_at (lua_State *L, int level, lua_Debug *ar)
{
  return lua_getstack(L, level, ar) ? (const void *) ar->i_ci : NULL;
}

/* The message handler: find out whether a hook has raised the error. */
static int
look (lua_State *L)
{
  lua_Debug ar;
  const void *call;
  for (int level = 0; (call = call_at(L, level, &ar)) != NULL
                      && call != guarded.caller; level++)
    if (lua_getinfo(L, "n", &ar) && strcmp(ar.namewhat, "hook") == 0)
      guarded.by_hook = true;
  return 1;
}

int
rs_defer_pcall (lua_State *L, int n, int results, bool *stopped)
{
  lua_Debug ar;
  const void *const caller = guarded.caller;
  const unsigned before = noted;
  const int handler = lua_gettop(L) - n;
  lua_pushcfunction(L, look);
  lua_insert(L, handler);
  guarded.caller = call_at(L, 0, &ar);
  guarded.by_hook = false;
  const int code = lua_pcall(L, n, results, handler);
  *stopped = code != LUA_OK && (noted != before || guarded.by_hook);
  guarded.caller = caller;
  lua_remove(L, handler);
  return code;
}

static int
nothing (lua_State *L)
{
  (void) L;
  return 0;
}

void
rs_defer_flush (lua_State *L)
{
  if (lua_gethook(L) != raise_it)
    return;
  rs_level_room(L, 1, NULL);
  lua_pushcfunction(L, nothing);
  lua_call(L, 0, 0);
}

void
rs_defer_raise (lua_State *L)
{
  rs_defer_put_off(L);
  rs_defer_flush(L);
  abort();  /* not reached: the hook has raised */
}
