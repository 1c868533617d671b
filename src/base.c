/* SPDX-License-Identifier: MIT */
/*
 * base.c - library functions that a runspace has its own versions of.
 */
#include "base.h"

#include <stdbool.h>

#include <lauxlib.h>
#include <lualib.h>

#include "marshal.h"

/* --------------------------------------------------- chunks of source text */

/* [-0, +0, m]  Rebind the chunk on top, whose first upvalue is '_ENV'. */
static void
rebind (lua_State *L)
{
  if (lua_type(L, -1) == LUA_TFUNCTION && !lua_iscfunction(L, -1)) {
    rs_env_push(L);
    if (lua_setupvalue(L, -2, 1) == NULL)  /* a chunk without upvalues? */
      lua_pop(L, 1);
  }
}

/* 'load' and 'loadfile', whose originals are the first upvalue; the second
   is the position of the environment among the arguments. */
static int
load_chunk (lua_State *L)
{
  const int env = (int) lua_tointeger(L, lua_upvalueindex(2));
  const bool given = lua_gettop(L) >= env;
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  if (!given && lua_gettop(L) == 1)
    rebind(L);
  return lua_gettop(L);
}

static int
finish_dofile (lua_State *L, int status, lua_KContext context)
{
  (void) status;
  (void) context;
  return lua_gettop(L) - 1;
}

static int
dofile (lua_State *L)
{
  const char *const name = luaL_optstring(L, 1, NULL);
  lua_settop(L, 1);
  if (luaL_loadfile(L, name) != LUA_OK)
    return lua_error(L);
  rebind(L);
  lua_callk(L, 0, LUA_MULTRET, 0, finish_dofile);
  return finish_dofile(L, LUA_OK, 0);
}

/* ------------------------------------------------------------ environments */

/* A first assignment to the environment goes its normal way, so that it is
   noticed (state.c). */
static int
raw_set (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 2);
  luaL_checkany(L, 3);
  lua_settop(L, 3);
  rs_env_push(L);
  const bool environment = lua_rawequal(L, 1, 4);
  lua_pushvalue(L, 2);
  const bool first = environment && lua_rawget(L, 1) == LUA_TNIL;
  lua_settop(L, 3);
  if (first)
    lua_settable(L, 1);
  else
    lua_rawset(L, 1);
  return 1;
}

/* --------------------------------------------------------------------- os */

static int
os_exit (lua_State *L)
{
  return luaL_error(L, "os.exit was called in a runspace: a job ends by "
                       "returning or by raising an error; it cannot end "
                       "the host");
}

/* 'os.setlocale', whose original is the upvalue. */
static int
os_setlocale (lua_State *L)
{
  if (!lua_isnoneornil(L, 1))
    return luaL_error(L, "os.setlocale(%s) was called in a runspace: the "
                         "locale belongs to the whole process; set it in "
                         "the host", luaL_tolstring(L, 1, NULL));
  lua_settop(L, 2);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, 2, 1);
  return 1;
}

/* ------------------------------------------------------------------ public */

/* [-1, +0, m]  Put the value on top into the field 'name' of the table at
   'index', if that field is there. */
static void
replace (lua_State *L, int index, const char *name)
{
  if (lua_getfield(L, index, name) == LUA_TNIL) {
    lua_pop(L, 2);
    return;
  }
  lua_pop(L, 1);
  lua_setfield(L, index, name);
}

/* [-0, +0, m]  Replace 'name' by a loader around its original. */
static void
replace_loader (lua_State *L, int globals, const char *name, int env)
{
  lua_getfield(L, globals, name);
  lua_pushinteger(L, env);
  lua_pushcclosure(L, load_chunk, 2);
  replace(L, globals, name);
}

void
rs_base_open (lua_State *L)
{
  const int top = lua_gettop(L);
  lua_pushglobaltable(L);
  const int globals = lua_gettop(L);
  replace_loader(L, globals, "load", 4);
  replace_loader(L, globals, "loadfile", 3);
  lua_pushcfunction(L, dofile);
  replace(L, globals, "dofile");
  lua_pushcfunction(L, raw_set);
  replace(L, globals, "rawset");
  if (lua_getfield(L, globals, LUA_OSLIBNAME) == LUA_TTABLE) {
    const int os = lua_gettop(L);
    lua_pushcfunction(L, os_exit);
    replace(L, os, "exit");
    lua_getfield(L, os, "setlocale");
    lua_pushcclosure(L, os_setlocale, 1);
    replace(L, os, "setlocale");
  }
  lua_settop(L, top);
}
