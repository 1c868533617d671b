/* SPDX-License-Identifier: MIT */
/*
 * ltask.c - 'parallel.task': what a job can know of itself.
 */
#include "lhandle.h"

#include <string.h>

/* parallel.task.index and so on; nil outside a job */
static int
get_field (lua_State *L)
{
  rs_task task;
  const char *const name = luaL_checkstring(L, 2);
  if (!rs_task_get(L, &task))
    lua_pushnil(L);
  else if (strcmp(name, "index") == 0 && task.index > 0)
    lua_pushinteger(L, task.index);
  else if (strcmp(name, "id") == 0)
    lua_pushinteger(L, (lua_Integer) task.id);
  else if (strcmp(name, "name") == 0)
    lua_pushstring(L, task.name);
  else if (strcmp(name, "worker") == 0)
    lua_pushinteger(L, (lua_Integer) task.worker);
  else if (strcmp(name, "attempt") == 0)
    lua_pushinteger(L, (lua_Integer) task.attempt);
  else if (strcmp(name, "stopping") == 0)
    lua_pushboolean(L, task.stopping);
  else
    lua_pushnil(L);
  return 1;
}

static int
new_index (lua_State *L)
{
  return luaL_error(L, "the fields of parallel.task cannot be set");
}

void
rs_push_task (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__index", get_field },
    { "__newindex", new_index },
    { NULL, NULL }
  };
  lua_newtable(L);
  luaL_newlib(L, meta);
  lua_setmetatable(L, -2);
}
