/* SPDX-License-Identifier: MIT */
/*
 * control.c - library functions that move control about, in versions that
 * can be stopped.
 *
 * The functions do what the originals do, with the same error messages.  The
 * thread that calls them runs a runspace, so it has an 'rs_cancel'.  Only the
 * functions for coroutines are called in a host's state, too, by a thread that
 * may have none.
 */
#include "state/control.h"

#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "state/cancel.h"
#include "state/environment.h"
#include "base/stack.h"

/* -------------------------------------------------------------- coroutines */

static lua_State *
check_coroutine (lua_State *L)
{
  const char *const expected =  /* the word of the original */
    LUA_VERSION_RELEASE_NUM <= 50404 ? "thread" : "coroutine";
  lua_State *const co = lua_tothread(L, 1);
  luaL_argexpected(L, co != NULL, 1, expected);
  return co;
}

/*
 * [-narg, +results, e]  Resume 'co' with the 'narg' arguments on top.  With
 * 'said' the boolean true is pushed before the results of 'co'.  Returns how
 * many values are pushed, or a number below 0: the error is on top.
 *
 * This function makes fewer calls than the original, to make up for the two
 * switches: the arguments are gone from the stack, so there is room for
 * LUA_MINSTACK results without a check, and the boolean is pushed in its
 * place, not inserted.  A pair of resume and yield takes 850 instructions; 925
 * in lua5.4.
 *
 * It stands alone and is not inlined, as in the original.  'yield' is a
 * longjmp, behind which the CPU still predicts the returns of the functions
 * that the jump has left.  With as many calls on the side of 'resume' as on
 * the side of 'yield' the last two predictions are right; one call less takes
 * 6 % longer.
 */
__attribute__ ((noinline)) static int
resume_coroutine (lua_State *L, lua_State *co, int narg, bool said)
{
  rs_running *const r = rs_running_mine();
  int n;
  if (narg > 0) {
    if (!lua_checkstack(co, narg)) {
      lua_pushliteral(L, "too many arguments to resume");
      return -1;
    }
    lua_xmove(L, co, narg);
  }
  lua_State *const from = rs_running_switch(r, co);
  const int status = lua_resume(co, L, narg, &n);
  rs_running_switch(r, from);
  if (status != LUA_OK && status != LUA_YIELD) {
    if (r->on_failure != NULL)
      r->on_failure(co, L, said);
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

/* [-0, +0, v]  Close 'co'; returns its status.  Coroutines that close one
   another nest on the C stack, and 'lua_resetthread' does not count them, so
   the stack is checked here. */
static int
close_coroutine (lua_State *L, lua_State *co)
{
  rs_running *const r = rs_running_mine();
  rs_stack_check(L);
  lua_State *const from = rs_running_switch(r, co);
  const int status = lua_resetthread(co);
  rs_running_switch(r, from);
  return status;
}

/* The function that 'wrap' returns; the upvalue is the coroutine. */
static int
call_wrapped (lua_State *L)
{
  lua_State *const co = lua_tothread(L, lua_upvalueindex(1));
  if (co == NULL)
    return luaL_error(L, "the coroutine of this function was replaced");
  const int n = resume_coroutine(L, co, lua_gettop(L), false);
  if (n >= 0)
    return n;
  int status = lua_status(co);
  if (status != LUA_OK && status != LUA_YIELD) {  /* has 'co' raised? */
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
  const rs_running *const r = rs_running_mine();
  if (r->on_failure != NULL)
    r->on_failure(co, L, true);
  lua_xmove(co, L, 1);
  return 2;
}

/* ------------------------------------------------------------------ xpcall */

/* The message handler of 'xpcall'; the upvalue is the handler of the script,
   which is not called once the call is to be stopped. */
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

/*
 * Lua runs finalizers without hooks, so a finalizer in Lua could not be
 * stopped.  Therefore Lua does not learn that an object has a finalizer.  The
 * object gets a guard: a userdata with a finalizer in C, which has the object
 * as its user value.  Only a table with weak keys refers to the guard, under
 * the object as key, so both die together.  Then the finalizer of the guard
 * calls the finalizer of the object in a coroutine of its own, where hooks
 * run.
 */

/* Keys in the registry, by address. */
static const char guards_key;  /* the table: object -> guard */
static const char guard_key;   /* the metatable of guards */

/* [-0, +1, m]  Push the table of guards. */
static void
push_guards (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &guards_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &guards_key);
}

/* [-2, +0, e]  Call the finalizer, which is below the object on top and is no
   C function, in a coroutine of its own. */
static void
call_finalizer (lua_State *L)
{
  rs_cancel *const c = rs_cancel_mine();
  rs_running *const r = rs_running_mine();
  int n;
  lua_State *const co = lua_newthread(L);
  lua_insert(L, -3);  /* coroutine, function, object */
  lua_xmove(L, co, 2);
  lua_State *const from = rs_running_switch(r, co);
  const int status = lua_resume(co, L, 1, &n);
  rs_running_switch(r, from);
  if (status == LUA_YIELD)
    luaL_error(L, "attempt to yield from outside a coroutine");
  else if (status == LUA_OK)
    lua_pop(L, 1);
  else if (rs_cancel_stopping(c))  /* Lua drops what a finalizer raises */
    rs_cancel_again(c);
  else {
    lua_xmove(co, L, 1);
    lua_error(L);
  }
}

/* __gc of guards */
static int
finalize (lua_State *L)
{
  enum { GUARD = 1, OBJECT, GUARDS };
  lua_settop(L, GUARD);
  if (lua_type(L, GUARD) != LUA_TUSERDATA)
    return 0;
  if (lua_getiuservalue(L, GUARD, 1) == LUA_TNONE || lua_isnil(L, OBJECT))
    return 0;
  lua_pushnil(L);
  lua_setiuservalue(L, GUARD, 1);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &guards_key) == LUA_TTABLE) {
    lua_pushvalue(L, OBJECT);
    lua_rawget(L, GUARDS);
    if (lua_rawequal(L, -1, GUARD)) {  /* the object may get a new guard */
      lua_pushvalue(L, OBJECT);
      lua_pushnil(L);
      lua_rawset(L, GUARDS);
    }
  }
  lua_settop(L, OBJECT);
  if (!lua_getmetatable(L, OBJECT))
    return 0;
  lua_pushliteral(L, "__gc");
  if (lua_rawget(L, -2) == LUA_TNIL)
    return 0;
  lua_pushvalue(L, OBJECT);
  if (lua_iscfunction(L, -2))
    lua_call(L, 1, 0);
  else
    call_finalizer(L);
  return 0;
}

/* [-0, +0, m]  Give the object at 1 a guard, unless it has one.  False when
   Lua itself will finalize the object, since it has a metatable with '__gc'
   that code in C gave it. */
static bool
guard (lua_State *L)
{
  const int top = lua_gettop(L);
  push_guards(L);
  lua_pushvalue(L, 1);
  if (lua_rawget(L, top + 1) == LUA_TNIL) {
    if (luaL_getmetafield(L, 1, "__gc") != LUA_TNIL) {
      lua_settop(L, top);
      return false;
    }
    lua_newuserdatauv(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &guard_key) != LUA_TTABLE) {
      lua_pop(L, 1);
      lua_createtable(L, 0, 1);
      lua_pushcfunction(L, finalize);
      lua_setfield(L, -2, "__gc");
      lua_pushvalue(L, -1);
      lua_rawsetp(L, LUA_REGISTRYINDEX, &guard_key);
    }
    lua_setmetatable(L, -2);
    lua_pushvalue(L, 1);
    lua_insert(L, -2);
    lua_rawset(L, top + 1);
    rs_cancel_count_guard(rs_cancel_mine());
  }
  lua_settop(L, top);
  return true;
}

/* [-1, +0, m]  Give the value at 1 the metatable (or nil) at 2, which is on
   top. */
static void
give_metatable (lua_State *L)
{
  enum { METATABLE = 2, NAME, FINALIZER };
  const bool can = lua_istable(L, 1) || lua_type(L, 1) == LUA_TUSERDATA;
  if (lua_isnil(L, METATABLE) || !can) {
    lua_setmetatable(L, 1);
    return;
  }
  lua_pushliteral(L, "__gc");
  lua_pushvalue(L, NAME);
  if (lua_rawget(L, METATABLE) != LUA_TNIL) {
    rs_cancel_set_finalizes(rs_cancel_mine());
    if (guard(L)) {
      lua_pushvalue(L, NAME);
      lua_pushnil(L);
      lua_rawset(L, METATABLE);  /* so that Lua sees no '__gc' */
      lua_pushvalue(L, METATABLE);
      lua_setmetatable(L, 1);
      lua_rawset(L, METATABLE);  /* allocates nothing: the key is there */
      lua_settop(L, 1);
      return;
    }
  }
  lua_settop(L, METATABLE);
  lua_setmetatable(L, 1);
}

static int
set_metatable (lua_State *L)
{
  const int type = lua_type(L, 2);
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2,
                   "nil or table");
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) {
    if (!rs_environment_hides(L, -1))
      return luaL_error(L, "cannot change a protected metatable");
    rs_environment_expose(L, 1);
  }
  lua_settop(L, 2);
  give_metatable(L);
  return 1;
}

/* debug.setmetatable */
static int
set_any_metatable (lua_State *L)
{
  const int type = lua_type(L, 2);
  luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2,
                   "nil or table");
  lua_settop(L, 2);
  if (lua_istable(L, 1))
    rs_environment_expose(L, 1);
  give_metatable(L);
  return 1;
}

/* ------------------------------------------------------------------- hooks */

/*
 * debug.sethook and debug.gethook.  Each call begins with the hook that 'init'
 * has set.  The function of that hook is kept under a key of its own, so a
 * later hook of the main coroutine does not replace it.
 */

/* Keys in the registry, by address. */
static const char hooks_key;  /* a table with weak keys: coroutine ->
                                 function */
static const char kept_key;   /* the function that 'init' has set */

/* [-1, +0, e]  Call the function of a hook, which is on top, for the event. */
static void
tell (lua_State *L, const lua_Debug *ar)
{
  static const char *const names[] = {
    "call", "return", "line", "count", "tail call"
  };
  lua_pushstring(L, names[ar->event]);
  if (ar->currentline >= 0)
    lua_pushinteger(L, ar->currentline);
  else
    lua_pushnil(L);
  lua_call(L, 2, 0);
}

/* The hook that 'set_hook' sets. */
static void
call_hook (lua_State *L, lua_Debug *ar)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &hooks_key) != LUA_TTABLE)
    return;
  lua_pushthread(L);
  if (lua_rawget(L, -2) == LUA_TFUNCTION)
    tell(L, ar);
}

/* The hook of 'init', with which each call begins. */
static void
call_kept_hook (lua_State *L, lua_Debug *ar)
{
  const bool is_main = lua_pushthread(L);
  lua_pop(L, 1);
  if (is_main
      && lua_rawgetp(L, LUA_REGISTRYINDEX, &kept_key) == LUA_TFUNCTION)
    tell(L, ar);
}

/* The coroutine that is the first argument, or else 'L'; '*arg' is 1 if it was
   an argument, or 0. */
static lua_State *
optional_thread (lua_State *L, int *arg)
{
  *arg = lua_isthread(L, 1) ? 1 : 0;
  return *arg == 1 ? lua_tothread(L, 1) : L;
}

/* [-0, +1, m]  Push the table of hooks. */
static void
push_hooks (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &hooks_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_createtable(L, 0, 2);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &hooks_key);
}

/* [-0, +1, e]  Push the coroutine 'of' itself. */
static void
push_thread (lua_State *L, lua_State *of)
{
  if (L != of && !lua_checkstack(of, 1))
    luaL_error(L, "stack overflow");
  lua_pushthread(of);
  lua_xmove(of, L, 1);
}

/* debug.sethook; the upvalue tells whether instructions are counted. */
static int
set_hook (lua_State *L)
{
  int arg, mask = 0, count = 0;
  lua_Hook hook = NULL;
  lua_State *const of = optional_thread(L, &arg);
  rs_cancel_check(rs_cancel_mine(), L);
  if (lua_toboolean(L, lua_upvalueindex(1)))
    return luaL_error(L, "debug.sethook was called in a runspace that counts "
                         "instructions: its hook is in use; open the pool "
                         "without 'instructions'");
  if (lua_isnoneornil(L, arg + 1))
    lua_settop(L, arg + 1);
  else {
    const char *const events = luaL_checkstring(L, arg + 2);
    luaL_checktype(L, arg + 1, LUA_TFUNCTION);
    count = (int) luaL_optinteger(L, arg + 3, 0);
    hook = call_hook;
    mask = (strchr(events, 'c') != NULL ? LUA_MASKCALL : 0)
         | (strchr(events, 'r') != NULL ? LUA_MASKRET : 0)
         | (strchr(events, 'l') != NULL ? LUA_MASKLINE : 0)
         | (count > 0 ? LUA_MASKCOUNT : 0);
  }
  push_hooks(L);
  push_thread(L, of);
  lua_pushvalue(L, arg + 1);
  lua_rawset(L, -3);
  lua_sethook(of, hook, mask, count);
  rs_cancel_note_hook(rs_cancel_mine());
  return 0;
}

static int
get_hook (lua_State *L)
{
  int arg;
  lua_State *const of = optional_thread(L, &arg);
  const lua_Hook hook = lua_gethook(of);
  const int mask = lua_gethookmask(of);
  char events[4], *at = events;
  if (hook == NULL) {
    lua_pushnil(L);
    return 1;
  }
  if (hook == call_kept_hook) {
    /* A coroutine inherits the hook and has no function for it, as in the
       original. */
    push_thread(L, of);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    if (lua_rawequal(L, -1, -2))
      lua_rawgetp(L, LUA_REGISTRYINDEX, &kept_key);
    else
      lua_pushnil(L);
  }
  else if (hook == call_hook) {
    push_hooks(L);
    push_thread(L, of);
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  else
    lua_pushliteral(L, "external hook");
  if (mask & LUA_MASKCALL)
    *at++ = 'c';
  if (mask & LUA_MASKRET)
    *at++ = 'r';
  if (mask & LUA_MASKLINE)
    *at++ = 'l';
  *at = '\0';
  lua_pushstring(L, events);
  lua_pushinteger(L, lua_gethookcount(of));
  return 3;
}

void
rs_control_keep_hook (lua_State *L)
{
  lua_Hook hook = lua_gethook(L);
  const int mask = lua_gethookmask(L), count = lua_gethookcount(L);
  if (hook == call_hook) {
    push_hooks(L);
    lua_pushthread(L);
    lua_rawget(L, -2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &kept_key);
    lua_pop(L, 1);
    hook = call_kept_hook;
  }
  rs_cancel_keep_hook(rs_cancel_mine(), hook, mask, count);
}

/* debug.setupvalue: functions in C, of ours, find what they work on by
   pointers, which stay as they are. */
static int
set_upvalue (lua_State *L)
{
  luaL_checkany(L, 3);
  const int n = (int) luaL_checkinteger(L, 2);
  luaL_checktype(L, 1, LUA_TFUNCTION);
  if (lua_iscfunction(L, 1) && lua_getupvalue(L, 1, n) != NULL) {
    if (lua_islightuserdata(L, -1))
      return luaL_error(L, "debug.setupvalue was called for a pointer of a "
                           "C function, which cannot be another one");
    lua_pop(L, 1);
  }
  lua_settop(L, 3);
  const char *const name = lua_setupvalue(L, 1, n);
  if (name == NULL)
    return 0;
  lua_pushstring(L, name);
  return 1;
}

/* ------------------------------------------------------------------ public */

/* [-n, +0, m]  Replace the field 'name' of the table at 'index', if the table
   has it, by 'f' with the 'n' upvalues on top. */
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

/* [-0, +0, m]  Replace the functions of the library on top, at 'index'. */
static void
replace_coroutines (lua_State *L, int index)
{
  replace(L, index, "resume", resume, 0);
  replace(L, index, "wrap", wrap, 0);
  replace(L, index, "close", close, 0);
}

void
rs_control_open_coroutines (lua_State *L)
{
  lua_pushglobaltable(L);
  if (lua_getfield(L, -1, LUA_COLIBNAME) == LUA_TTABLE)
    replace_coroutines(L, lua_gettop(L));
  lua_pop(L, 2);
}

void
rs_control_open (lua_State *L, bool counted)
{
  const int top = lua_gettop(L);
  lua_pushglobaltable(L);
  const int globals = lua_gettop(L);
  replace(L, globals, "xpcall", xpcall, 0);
  replace(L, globals, "setmetatable", set_metatable, 0);
  rs_control_open_coroutines(L);
  if (lua_getfield(L, globals, LUA_DBLIBNAME) == LUA_TTABLE) {
    const int library = lua_gettop(L);
    lua_pushboolean(L, counted);
    replace(L, library, "sethook", set_hook, 1);
    replace(L, library, "gethook", get_hook, 0);
    replace(L, library, "setmetatable", set_any_metatable, 0);
    replace(L, library, "setupvalue", set_upvalue, 0);
  }
  lua_settop(L, top);
}
