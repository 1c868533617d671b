/* SPDX-License-Identifier: MIT */
/*
 * control.c - library functions that move control about, in versions that
 * can be stopped.
 *
 * They do what the originals do, and have their messages.  Whoever calls them
 * is a thread that runs a runspace, so it has an 'rs_cancel'.
 */
#include "control.h"

#include <stdint.h>

#include <lauxlib.h>
#include <lualib.h>

#include "cancel.h"

/* Coroutines that close one another nest on the C stack, and 'lua_resetthread'
   does not count them. */
enum { MAX_CLOSING = 150 };
static _Thread_local int closing;

/* -------------------------------------------------------------- coroutines */

static lua_State *
check_coroutine (lua_State *L)
{
  lua_State *const co = lua_tothread(L, 1);
  luaL_argexpected(L, co != NULL, 1, "coroutine");
  return co;
}

/*
 * [-narg, +results, e]  Resume 'co' with the arguments on top; 'said' pushes
 * true before what it returned.  How many results, or below 0: the error is on
 * top.
 *
 * It makes fewer calls than the original, to make up for the two switches: the
 * arguments went, so there is room for LUA_MINSTACK results, and what comes
 * first is pushed first.  A pair of resume and yield takes 850 instructions;
 * 925 in lua5.4.
 *
 * It is a function of its own, as in the original: 'yield' is a longjmp, and
 * behind it a CPU still predicts that functions return to where 'yield' would
 * have returned.  With as many calls on this side as on that one the last two
 * are right; one call less takes 6 % longer.
 */
__attribute__ ((noinline)) static int
resume_coroutine (lua_State *L, lua_State *co, int narg, bool said)
{
  rs_cancel *const c = rs_cancel_mine();
  int n;
  if (narg > 0) {
    if (!lua_checkstack(co, narg)) {
      lua_pushliteral(L, "too many arguments to resume");
      return -1;
    }
    lua_xmove(L, co, narg);
  }
  lua_State *const from = rs_cancel_switch(c, co);
  const int status = lua_resume(co, L, narg, &n);
  rs_cancel_switch(c, from);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(co, L, 1);
    return -1;
  }
  if (n >= LUA_MINSTACK && !lua_checkstack(L, n + 1)) {
    lua_pop(co, n);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  if (said)
    lua_pushboolean(L, 1);
  lua_xmove(co, L, n);
  return n + said;
}

static int
resume (lua_State *L)
{
  lua_State *const co = check_coroutine(L);
  const int n = resume_coroutine(L, co, lua_gettop(L) - 1, true);
  if (n >= 0)
    return n;
  lua_pushboolean(L, 0);
  lua_insert(L, -2);
  return 2;
}

/* [-0, +0, v]  Close 'co'.  Its status. */
static int
close_coroutine (lua_State *L, lua_State *co)
{
  rs_cancel *const c = rs_cancel_mine();
  if (closing >= MAX_CLOSING)
    luaL_error(L, "C stack overflow: coroutines that close one another are "
                  "nested too deeply");
  closing++;
  lua_State *const from = rs_cancel_switch(c, co);
  const int status = lua_resetthread(co);
  rs_cancel_switch(c, from);
  closing--;
  return status;
}

/* What 'wrap' returns; the upvalue is its coroutine. */
static int
call_wrapped (lua_State *L)
{
  lua_State *const co = lua_tothread(L, lua_upvalueindex(1));
  const int n = resume_coroutine(L, co, lua_gettop(L), false);
  if (n >= 0)
    return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {  /* it has raised? */
    status = close_coroutine(L, co);
    lua_xmove(co, L, 1);
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

static int
wrap (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *const co = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 1);
  lua_pushcclosure(L, call_wrapped, 1);
  return 1;
}

static int
close (lua_State *L)
{
  lua_State *const co = check_coroutine(L);
  lua_Debug ar;
  const int before = lua_status(co);
  if (co == L)
    return luaL_error(L, "cannot close a running coroutine");
  if (before == LUA_OK && lua_getstack(co, 0, &ar))
    return luaL_error(L, "cannot close a normal coroutine");
  const int status = close_coroutine(L, co);
  lua_pushboolean(L, status == LUA_OK);
  if (status == LUA_OK)
    return 1;
  lua_xmove(co, L, 1);
  return 2;
}

/* ------------------------------------------------------------------ xpcall */

/* A message handler; the upvalue is the script's own. */
static int
handle (lua_State *L)
{
  lua_settop(L, 1);
  if (rs_cancel_stopping(rs_cancel_mine()))
    return 1;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int
finish_xpcall (lua_State *L, int status, lua_KContext extra)
{
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
  }
  return lua_gettop(L) - (int) extra;
}

static int
xpcall (lua_State *L)
{
  const int n = lua_gettop(L);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  if (!lua_iscfunction(L, 2)) {
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, handle, 1);
    lua_replace(L, 2);
  }
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 1);
  lua_rotate(L, 3, 2);
  const int status = lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finish_xpcall);
  return finish_xpcall(L, status, 2);
}

/* -------------------------------------------------------------- finalizers */

/* A finalizer; the upvalue is the script's own. */
static int
finalize (lua_State *L)
{
  rs_cancel *const c = rs_cancel_mine();
  int n;
  lua_settop(L, 1);
  lua_State *const co = lua_newthread(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushvalue(L, 1);
  lua_xmove(L, co, 2);
  lua_State *const from = rs_cancel_switch(c, co);
  const int status = lua_resume(co, L, 1, &n);
  rs_cancel_switch(c, from);
  if (status == LUA_OK)
    return 0;
  if (status == LUA_YIELD)
    return luaL_error(L, "attempt to yield from outside a coroutine");
  if (rs_cancel_stopping(c)) {  /* nobody sees what a finalizer raises */
    rs_cancel_again(c);
    return 0;
  }
  lua_xmove(co, L, 1);
  return lua_error(L);
}

/* The upvalue is the string "__gc". */
static int
set_metatable (lua_State *L)
{
  const int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2,
                   "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
    return luaL_error(L, "cannot change a protected metatable");
  lua_settop(L, 2);
  if (type == LUA_TTABLE) {
    lua_pushvalue(L, lua_upvalueindex(1));
    const int gc = lua_rawget(L, 2);
    if (gc != LUA_TNIL)
      rs_cancel_set_finalizes(rs_cancel_mine());
    if (gc == LUA_TFUNCTION && !lua_iscfunction(L, 3)) {
      lua_pushvalue(L, lua_upvalueindex(1));
      lua_pushvalue(L, 3);
      lua_pushcclosure(L, finalize, 1);
      lua_rawset(L, 2);
    }
    lua_settop(L, 2);
  }
  lua_setmetatable(L, 1);
  return 1;
}

/* debug.setmetatable, whose original is the upvalue */
static int
set_any_metatable (lua_State *L)
{
  rs_cancel_set_finalizes(rs_cancel_mine());
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* ------------------------------------------------------------------- hooks */

/* The first upvalue is the original, the second tells whether instructions
   are counted. */
static int
set_hook (lua_State *L)
{
  rs_cancel_check(rs_cancel_mine(), L);
  if (lua_toboolean(L, lua_upvalueindex(2)))
    return luaL_error(L, "debug.sethook was called in a runspace that counts "
                         "instructions: its hook is in use; open the pool "
                         "without 'instructions'");
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* ------------------------------------------------------------------ public */

/* [-n, +0, m]  Replace the field 'name' of the table at 'index', if it is
   there, by 'f' with the 'n' upvalues on top. */
static void
replace (lua_State *L, int index, const char *name, lua_CFunction f, int n)
{
  lua_pushcclosure(L, f, n);
  if (lua_getfield(L, index, name) != LUA_TNIL) {
    lua_pop(L, 1);
    lua_setfield(L, index, name);
  }
  else
    lua_pop(L, 2);
}

void
rs_control_open (lua_State *L, bool counted)
{
  const int top = lua_gettop(L);
  lua_pushglobaltable(L);
  const int globals = lua_gettop(L);
  replace(L, globals, "xpcall", xpcall, 0);
  lua_pushliteral(L, "__gc");
  replace(L, globals, "setmetatable", set_metatable, 1);
  if (lua_getfield(L, globals, LUA_COLIBNAME) == LUA_TTABLE) {
    const int library = lua_gettop(L);
    replace(L, library, "resume", resume, 0);
    replace(L, library, "wrap", wrap, 0);
    replace(L, library, "close", close, 0);
  }
  if (lua_getfield(L, globals, LUA_DBLIBNAME) == LUA_TTABLE) {
    const int library = lua_gettop(L);
    lua_getfield(L, library, "sethook");
    lua_pushboolean(L, counted);
    replace(L, library, "sethook", set_hook, 2);
    lua_getfield(L, library, "setmetatable");
    replace(L, library, "setmetatable", set_any_metatable, 1);
  }
  lua_settop(L, top);
}
