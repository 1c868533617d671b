/* SPDX-License-Identifier: MIT */
/*
 * level.c - Lua's stack: the level where the code of a script begins, and room
 * for more slots.
 *
 * The chunks of the module 'parallel' are named "=parallel/map.lua", like no
 * file: a script of that name is "@parallel/map.lua".
 */
#include "base/level.h"

#include <string.h>

#include <lauxlib.h>

#include "base/status.h"

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
    return level;  /* an error of the module itself */
  for (int l = level; lua_getstack(L, l, &ar); l++) {
    lua_getinfo(L, "S", &ar);
    if (rs_level_is_ours(&ar))
      seen = true;
    else if (*ar.what != 'C')
      return seen ? l : level;
  }
  return level;
}

/* A stack is full with a million slots: in one call, in many calls, or both.
   A stack with few slots in this call, and few calls, is not full: then memory
   ran out. */
void
rs_level_full (lua_State *L, int slots, const char *message)
{
  enum { SLOTS = 10000, LEVELS = 2000 };
  lua_Debug ar;
  if (slots < SLOTS && lua_gettop(L) < SLOTS
      && !lua_getstack(L, LEVELS, &ar)) {
    lua_pushstring(L, rs_status_message(RS_ENOMEM));  /* Lua always has this
                                                         string */
    lua_error(L);
  }
  luaL_checkstack(L, slots, message);
}
