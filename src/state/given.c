/* SPDX-License-Identifier: MIT */
/*
 * given.c - the globals that came with the functions of a call.
 *
 * The environment has them as fields of its own, so that to read one costs
 * what a global costs in Lua.  A job that assigns to one calls no metamethod.
 * So an environment is used for a further item only if the functions of the
 * call can do nothing but read globals; the sender has looked (bytecode.h).
 */
#include "state/given.h"

#include "base/level.h"
#include "value/names.h"

bool
rs_given_put_on (lua_State *L, int given)
{
  const int top = lua_gettop(L);
  bool plain = true;
  rs_level_room(L, LUA_MINSTACK, NULL);
  given = lua_absindex(L, given);
  rs_env_push(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  lua_pushnil(L);
  /* A script may have taken the table of globals from the registry. */
  while (lua_istable(L, top + 2) && lua_next(L, given)) {
    const int name = top + 3;
    if (lua_type(L, name) != LUA_TSTRING)
      plain = false;
    else {
      lua_pushvalue(L, name);
      const bool has = lua_rawget(L, top + 2) != LUA_TNIL;
      lua_pop(L, 1);
      lua_pushvalue(L, name);
      if (has)
        lua_pushnil(L);
      else
        lua_pushvalue(L, name + 1);
      lua_rawset(L, has ? given : top + 1);
    }
    lua_settop(L, name);
  }
  lua_settop(L, top);
  return plain;
}

void
rs_given_take_off (lua_State *L, int given)
{
  const int top = lua_gettop(L);
  if (!lua_checkstack(L, LUA_MINSTACK))
    return;
  given = lua_absindex(L, given);
  rs_env_push(L);
  lua_pushnil(L);
  while (lua_next(L, given)) {
    lua_pushvalue(L, top + 2);
    lua_rawget(L, top + 1);
    if (lua_rawequal(L, -1, top + 3)) {
      lua_pushvalue(L, top + 2);
      lua_pushnil(L);
      lua_rawset(L, top + 1);
    }
    lua_settop(L, top + 2);
  }
  lua_settop(L, top);
}
