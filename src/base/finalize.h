/* SPDX-License-Identifier: MIT */
/*
 * finalize.h - for finalizers of userdata that are not given to scripts.
 *
 * A script finds such userdata all the same, through 'debug', and can call a
 * finalizer by hand, with any argument.  'luaL_checkudata' is no help: it
 * looks into the registry, which the script may have cleared.
 */
#ifndef RS_FINALIZE_H
#define RS_FINALIZE_H

#include <stddef.h>

#include <lua.h>

/* [-0, +0, -]  The block of the userdata at 1, or NULL when 'self' is not the
   finalizer in its metatable.  Needs 2 stack slots. */
static inline void *
rs_finalized (lua_State *L, lua_CFunction self)
{
  void *block = NULL;
  lua_settop(L, 1);
  if (lua_type(L, 1) == LUA_TUSERDATA && lua_getmetatable(L, 1)) {
    lua_pushliteral(L, "__gc");
    lua_rawget(L, 2);
    if (lua_tocfunction(L, 3) == self)
      block = lua_touserdata(L, 1);
    lua_settop(L, 1);
  }
  return block;
}

#endif
