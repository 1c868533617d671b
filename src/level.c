/* SPDX-License-Identifier: MIT */
/*
 * level.c - where on the stack the code of a script begins.
 *
 * The chunks of the module 'parallel' are named "=parallel/map.lua", which no
 * file is: a script of that name is "@parallel/map.lua".
 */
#include "runspace.h"

#include <string.h>

#include <lua.h>

static const char ours[] = "=parallel/";

bool
rs_level_is_ours (const lua_Debug *ar)
{
  return strncmp(ar->source, ours, sizeof ours - 1) == 0;
}

int
rs_level_user (lua_State *L, int level, const char *message)
{
  lua_Debug ar;
  bool seen = false;
  if (message != NULL && strncmp(message, ours + 1, sizeof ours - 2) == 0)
    return level;  /* a fault of the module's own */
  for (int l = level; lua_getstack(L, l, &ar); l++) {
    lua_getinfo(L, "S", &ar);
    if (rs_level_is_ours(&ar))
      seen = true;
    else if (*ar.what != 'C')
      return seen ? l : level;
  }
  return level;
}
