/* SPDX-License-Identifier: MIT */
/*
 * warn.c - what a program that wants warnings is told of a function that it
 * submits.
 *
 * A table in the registry has the functions that were looked at, as weak keys,
 * and the warnings that were given: two closures of one function give one.
 */
#include "pool/face.h"

#include <lauxlib.h>

#include "base/level.h"
#include "value/lost.h"

/* Key in the registry, by address: the table. */
static const char known_key;

/* [-0, +1, m]  Push the table. */
static void
push_known (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &known_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  lua_newtable(L);
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "k");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &known_key);
}

/* [-1, +0, m]  Add the value on top to the table at 'known'.  True if it was
   not there. */
static bool
add (lua_State *L, int known)
{
  lua_pushvalue(L, -1);
  const bool new = lua_rawget(L, known) == LUA_TNIL;
  lua_pop(L, 1);
  lua_pushboolean(L, true);
  lua_rawset(L, known);
  return new;
}

/* [-0, +1, m]  Push the warning. */
static void
push_warning (lua_State *L, int index, const rs_lost *lost)
{
  lua_Debug ar;
  lua_pushvalue(L, index);
  lua_getinfo(L, ">S", &ar);
  if (lost->line > 0)
    lua_pushfstring(L, "%s:%d: ", ar.short_src, lost->line);
  else
    lua_pushliteral(L, "");
  lua_pushfstring(L, "what is %s %s%s%s is lost, since a job works on a copy "
                     "of that %s: let function <%s:%d> return the value "
                     "instead", lost->inside ? "put into" : "assigned to",
                  lost->name[0] != '\0' ? "'" : "",
                  lost->name[0] != '\0' ? lost->name : "an upvalue",
                  lost->name[0] != '\0' ? "'" : "",
                  lost->global ? "global" : "upvalue", ar.short_src,
                  ar.linedefined);
  lua_concat(L, 2);
}

void
rs_warn_lost (lua_State *L, int index, bool globals)
{
  rs_lost lost;
  const int top = lua_gettop(L);
  rs_level_room(L, LUA_MINSTACK, NULL);
  index = lua_absindex(L, index);
  push_known(L);
  lua_pushvalue(L, index);
  if (lua_isfunction(L, -1) && add(L, top + 1)
      && rs_lost_find(L, index, globals, &lost)) {
    push_warning(L, index, &lost);
    lua_pushvalue(L, -1);
    if (add(L, top + 1))
      lua_warning(L, lua_tostring(L, -1), 0);
  }
  lua_settop(L, top);
}
