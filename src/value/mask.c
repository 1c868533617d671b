/* SPDX-License-Identifier: MIT */
/*
 * mask.c - values that are more than data (RS_MESSAGE_LIVE): how they are
 * recognized.
 */
#include "value/mask.h"

#include <lauxlib.h>

#include "base/escape.h"

/* Fields of a metatable that run no code when they have this type. */
static const struct {
  const char *name;
  int type;
} inert[] = {
  { "__index", LUA_TTABLE }, { "__mode", LUA_TSTRING },
  { "__name", LUA_TSTRING }
};

const char *
rs_metatable_runs (lua_State *L, int index)
{
  const char *found = NULL;
  const int top = lua_gettop(L);
  index = lua_absindex(L, index);
  lua_pushnil(L);
  while (found == NULL && lua_next(L, index)) {
    const char *const key = lua_type(L, -2) == LUA_TSTRING
                          ? lua_tostring(L, -2) : "";
    if (key[0] == '_' && key[1] == '_') {
      found = key;
      for (size_t i = 0; i < sizeof inert / sizeof inert[0]; i++)
        if (strcmp(key, inert[i].name) == 0
            && lua_type(L, -1) == inert[i].type)
          found = NULL;
    }
    lua_pop(L, 1);
  }
  lua_settop(L, top);
  return found;
}

bool
rs_name_is_library (const rs_name *name)
{
  static const char *const libraries[] = {
    "_G", "coroutine", "debug", "io", "math", "os", "package", "parallel",
    "parallel.core", "string", "table", "utf8"
  };
  for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++)
    if (strlen(libraries[i]) == name->size[0]
        && memcmp(libraries[i], name->part[0], name->size[0]) == 0)
      return true;
  return false;
}

/* True when the name is "parallel.failure", or that of another class of ours
   that results have and that runs nothing but '__tostring', which does not
   raise.  The receiver has these modules, loaded or not. */
static bool
is_result_class (const rs_name *name)
{
  static const char *const classes[] = {
    "parallel.failure", "parallel.report"
  };
  for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
    if (name->parts == 1 && strlen(classes[i]) == name->size[0]
        && memcmp(classes[i], name->part[0], name->size[0]) == 0)
      return true;
  return false;
}

/* True when the name begins with a file of the module 'parallel', or with a
   name that such a file could have. */
static bool
is_ours (const rs_name *name)
{
  static const char ours[] = "parallel.";
  return name->size[0] >= sizeof ours - 1
      && memcmp(name->part[0], ours, sizeof ours - 1) == 0;
}

void
rs_name_accept (lua_State *L, const rs_name *name)
{
  if (rs_name_is_library(name))
    luaL_error(L, "a library is not accepted from a sandbox");
  if (is_result_class(name))
    return;
  char shown[200];
  rs_escape(name->part[0], name->size[0], shown, sizeof shown);
  if (is_ours(name))
    luaL_error(L, "what '%s' has is not accepted from a sandbox", shown);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushlstring(L, name->part[0], name->size[0]);
  lua_pushvalue(L, -1);
  lua_rawget(L, -3);
  if (!lua_toboolean(L, -1))
    luaL_error(L, "module '%s' is needed by a transferred value, and what "
                  "comes from a sandbox loads none: require it here before",
               shown);
  lua_pop(L, 3);
}

void
rs_set_copy_metatable (lua_State *L, int index)
{
  const int meta = lua_gettop(L);
  lua_pushliteral(L, "__gc");
  lua_pushvalue(L, -1);
  if (lua_rawget(L, meta) == LUA_TNIL) {
    lua_pushvalue(L, meta);
    lua_setmetatable(L, index);
    lua_settop(L, meta - 1);
    return;
  }
  /* Lua looks for '__gc' when the metatable is set, and only then.  So the
     field is nil meanwhile.  Nothing here allocates, so no other code runs in
     between. */
  lua_pushvalue(L, meta + 1);
  lua_pushnil(L);
  lua_rawset(L, meta);
  lua_pushvalue(L, meta);
  lua_setmetatable(L, index);
  lua_rawset(L, meta);
  lua_settop(L, meta - 1);
}
