/* SPDX-License-Identifier: MIT */
/*
 * environment.c - the globals that a job sees.
 *
 * An environment begins as a table that inherits from the runspace's globals:
 *
 *     environment { _G = itself, what the job assigned }
 *       metatable { __index = globals, __newindex = on_assign }
 *
 * '__newindex' is called at the first assignment of each name.  It marks the
 * environment as dirty, and a dirty environment is replaced before the next
 * call or item.  A clean environment is used again, so jobs that assign no
 * globals pay nothing.  Two assignments call no '__newindex', so they are
 * looked for when the call has ended: to the field '_G', which exists from the
 * start, and to the variable '_ENV' that all functions share.
 *
 * A job must not notice that its environment inherits.  So the environment
 * gets all of its fields itself ('own_fields') when the job traverses it by
 * 'next', gives it a metatable, or assigns to a name of the globals: to set
 * that name to nil later would call no '__newindex'.  From then on the
 * environment is dirty and has no metatable of this file, and names that
 * modules give the globals are copied to it ('tell_job').  When the globals
 * have a metatable of a script (strict.lua, say), an environment has all of
 * its fields from the start, and a copy of that metatable.
 *
 * While environments inherit, the globals have no field '_G': a job that sets
 * '_G' of its environment to nil must not inherit the '_G' of the globals.  A
 * metatable of the globals supplies '_G' to others; the field comes back when
 * code looks at the globals raw ('rs_environment_expose').  By the same
 * metatable a module that reads the globals also finds names of the job's
 * environment, and an assignment by a job to the table of globals goes to its
 * environment.
 *
 * 'package.loaded' is a table that stands for the table of modules: in it a
 * job finds its environment as '_G', and a module finds the globals.  The
 * table of modules itself is in the registry, where Lua looks for the names of
 * functions.
 *
 * 'getmetatable' shows none of these metatables: each has its kind under the
 * address of 'key' below, and that address as '__metatable'.
 */
#include "state/environment.h"

#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/level.h"
#include "state/luv.h"
#include "value/names.h"
#include "runspace.h"

/* The key, by address, under which a metatable of this file has its kind. */
static const char key;

/* The kinds: the metatable is not of this file; of an environment that
   inherits; of the globals without '_G'; of the table that stands for the
   table of modules. */
enum { NONE, INHERITS, GLOBALS, MODULES };

/* The environment of the state that this thread runs; a thread runs one state
   at a time.  Kept outside of the state, since a script can remove what is in
   its registry and in upvalues. */
static _Thread_local rs_environment *mine;

/* [-0, +(0|1), -]  Find out the kind of the table at 'index'.  Pushes the
   metatable of the table, if it has one. */
static int
push_kind (lua_State *L, int index)
{
  if (!lua_getmetatable(L, index))
    return NONE;
  lua_rawgetp(L, -1, &key);
  const int kind = (int) lua_tointeger(L, -1);
  lua_pop(L, 1);
  return kind;
}

static int
kind_of (lua_State *L, int index)
{
  const int top = lua_gettop(L);
  const int kind = push_kind(L, index);
  lua_settop(L, top);
  return kind;
}

/* [-0, +1, v]  Push the table of globals. */
static void
push_globals (lua_State *L)
{
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS) != LUA_TTABLE)
    luaL_error(L, "the table of globals is gone from the registry");
}

/* [-1, +1, m]  Replace the key on top by the field of the globals, read
   raw. */
static int
raw_global (lua_State *L)
{
  push_globals(L);
  lua_insert(L, -2);
  const int type = lua_rawget(L, -2);
  lua_remove(L, -2);
  return type;
}

/* ------------------------------------------------------- the two tables */

/* [-0, +0, m]  Mark the metatable on top as being of 'kind'. */
static void
set_kind (lua_State *L, int kind)
{
  lua_pushlightuserdata(L, (void *) &key);
  lua_setfield(L, -2, "__metatable");
  lua_pushinteger(L, kind);
  lua_rawsetp(L, -2, &key);
}

/* [-0, +1, m]  Push a new metatable of 'kind'. */
static void
push_metatable (lua_State *L, lua_CFunction index, lua_CFunction newindex,
                int kind)
{
  lua_createtable(L, 0, 8);
  lua_pushcfunction(L, index);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, newindex);
  lua_setfield(L, -2, "__newindex");
  set_kind(L, kind);
}

/* __index of globals without '_G': (globals, name).  A name that the globals
   do not have may be in the environment of the job.  Modules see it there, as
   they do in Lua. */
static int
supply_global (lua_State *L)
{
  lua_settop(L, 2);
  rs_env_push(L);
  const bool job = lua_istable(L, 3) && !lua_rawequal(L, 3, 1);
  const bool is_G = lua_type(L, 2) == LUA_TSTRING
                 && strcmp(lua_tostring(L, 2), LUA_GNAME) == 0;
  lua_pushvalue(L, 2);
  if (job && lua_rawget(L, 3) == LUA_TNIL)
    return 0;
  if (is_G)
    lua_settop(L, 1);
  return job || is_G;
}

/*
 * [-0, +0, -]  Is the code that calls a function of the job, not of a module?
 * The innermost function with one of the two tables as an upvalue decides: the
 * globals at the index 'globals' (of a module), or the environment at the
 * index 'env' (of the job).
 */
static bool
is_of_job (lua_State *L, int globals, int env)
{
  enum { LEVELS = 8, UPVALUES = 255 };
  const int top = lua_gettop(L);
  lua_Debug ar;
  int answer = -1;
  for (int level = 1; answer < 0 && level <= LEVELS
                      && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "f", &ar);
    for (int i = 1; answer < 0 && i <= UPVALUES
                    && lua_getupvalue(L, top + 1, i) != NULL; i++) {
      if (lua_rawequal(L, -1, globals))
        answer = 0;
      else if (lua_rawequal(L, -1, env))
        answer = 1;
      lua_pop(L, 1);
    }
    lua_settop(L, top);
  }
  return answer == 1;
}

/* [-0, +0, m]  The name and the value at 2 and 3 are assigned to the globals:
   assign them to the environment of the job, too, if that does not inherit and
   does not have the name. */
static void
tell_job (lua_State *L, int env, int globals)
{
  if (!lua_istable(L, env) || lua_rawequal(L, env, globals)
      || kind_of(L, env) == INHERITS)
    return;
  lua_pushvalue(L, 2);
  const bool there = lua_rawget(L, env) != LUA_TNIL;
  lua_pop(L, 1);
  if (there)
    return;
  lua_pushvalue(L, 2);
  lua_pushvalue(L, 3);
  lua_rawset(L, env);
}

/* __newindex of globals without '_G': (globals, name, value).  An assignment
   by the job, which has found the globals in some way, goes to its
   environment. */
static int
assign_global (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  rs_level_room(L, 8, NULL);
  rs_env_push(L);
  if (!lua_rawequal(L, 4, 1) && is_of_job(L, 1, 4)) {
    lua_replace(L, 1);
    lua_settable(L, 1);
  }
  else {
    tell_job(L, 4, 1);
    lua_settop(L, 3);
    lua_rawset(L, 1);
  }
  return 0;
}

/* -------------------------------------------------- the table of modules */

/* [-0, +1, v]  Push the table of modules. */
static void
push_modules (lua_State *L)
{
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) != LUA_TTABLE)
    luaL_error(L, "the table of modules is gone from the registry");
}

/* [-0, +0, -]  The module on top was found by the name at the index 'name'.
   If the name is '_G' and the code that calls is the job's, replace the
   globals by the environment. */
static void
own_module (lua_State *L, int name)
{
  const int top = lua_gettop(L);
  if (lua_type(L, name) != LUA_TSTRING
      || strcmp(lua_tostring(L, name), LUA_GNAME) != 0)
    return;
  push_globals(L);
  rs_env_push(L);
  if (lua_rawequal(L, top, top + 1) && is_of_job(L, top + 1, top + 2))
    lua_copy(L, top + 2, top);
  lua_settop(L, top);
}

/* __index of the table that stands for the table of modules: (table, name) */
static int
get_module (lua_State *L)
{
  enum { NAME = 2 };
  lua_settop(L, NAME);
  push_modules(L);
  lua_pushvalue(L, NAME);
  lua_gettable(L, -2);
  own_module(L, NAME);
  return 1;
}

/* __newindex of the table that stands for the table of modules: (table, name,
   module) */
static int
set_module (lua_State *L)
{
  lua_settop(L, 3);
  push_modules(L);
  lua_replace(L, 1);
  lua_settable(L, 1);
  return 0;
}

/* __eq of the table that stands for the table of modules: the two are equal */
static int
same_modules (lua_State *L)
{
  lua_settop(L, 2);
  push_modules(L);
  for (int i = 1; i <= 2; i++)
    if (kind_of(L, i) == MODULES)
      lua_copy(L, 3, i);
  lua_pushboolean(L, lua_rawequal(L, 1, 2));
  return 1;
}

static int get_len (lua_State *L);

/* [-0, +0, m]  Replace 'loaded' of the library 'package' on top by a table
   that stands for the table of modules. */
static void
hide_modules (lua_State *L)
{
  lua_newtable(L);
  push_metatable(L, get_module, set_module, MODULES);
  lua_pushcfunction(L, same_modules);
  lua_setfield(L, -2, "__eq");
  lua_pushcfunction(L, get_len);
  lua_setfield(L, -2, "__len");
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "loaded");
}

/* ------------------------------------------------------------ the globals */

/* [-0, +0, m]  Take '_G' from the globals, and give them the metatable that
   supplies it.  False, and nothing is done, when the globals have a metatable
   of a script. */
static bool
hide_globals (lua_State *L)
{
  const int top = lua_gettop(L);
  push_globals(L);
  const int kind = push_kind(L, top + 1);
  const bool bare = lua_gettop(L) == top + 1;
  if (bare) {
    push_metatable(L, supply_global, assign_global, GLOBALS);
    mine->hiding = lua_topointer(L, -1);
    lua_setmetatable(L, top + 1);
    lua_pushliteral(L, LUA_GNAME);
    lua_pushvalue(L, -1);
    lua_rawget(L, top + 1);
    if (lua_rawequal(L, -1, top + 1)) {  /* no value of a script? */
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, top + 1);
    }
  }
  lua_settop(L, top);
  return bare || kind == GLOBALS;
}

/* [-0, +0, -]  Do the globals have the metatable that 'hide_globals' gave
   them?  Called for each new environment, so only addresses are compared. */
static bool
is_hidden (lua_State *L, const rs_environment *e)
{
  push_globals(L);
  const bool has = lua_getmetatable(L, -1);
  const bool hidden = has && lua_topointer(L, -1) == e->hiding;
  lua_pop(L, 1 + has);
  return hidden;
}

/* [-0, +0, m]  Undo 'hide_globals': the globals at 'index' get '_G' back, and
   lose the metatable. */
static void
show_globals (lua_State *L, int index)
{
  mine->hiding = NULL;
  lua_pushnil(L);
  lua_setmetatable(L, index);
  lua_pushliteral(L, LUA_GNAME);
  lua_pushvalue(L, -1);
  if (lua_rawget(L, index) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_pushvalue(L, index);
    lua_rawset(L, index);
  }
  else
    lua_pop(L, 2);
}

/* --------------------------------------------------- to have all fields */

/* [-0, +0, m]  Copy all fields of the globals that the environment at 'env'
   does not have to it, take its metatable away, and mark it as dirty. */
static void
own_fields (lua_State *L, int env)
{
  const int top = lua_gettop(L);
  rs_level_room(L, 8, NULL);
  mine->dirty = true;
  push_globals(L);
  lua_pushnil(L);
  while (lua_next(L, top + 1)) {  /* globals, name, value */
    lua_pushvalue(L, -2);
    if (lua_rawget(L, env) == LUA_TNIL) {
      lua_pushvalue(L, -3);
      lua_pushvalue(L, -3);
      lua_rawset(L, env);
    }
    lua_pop(L, 2);
  }
  lua_pushnil(L);
  lua_setmetatable(L, env);
  lua_settop(L, top);
}

void
rs_environment_expose (lua_State *L, int index)
{
  const int kind = kind_of(L, index);
  if (kind == INHERITS)
    own_fields(L, index);
  else if (kind == GLOBALS)
    show_globals(L, index);
  else if (kind == MODULES) {
    push_modules(L);
    lua_replace(L, index);
  }
}

bool
rs_environment_hides (lua_State *L, int index)
{
  return lua_touserdata(L, index) == &key;
}

/* [-0, +1, m]  Push a shallow copy of the table at 'index'. */
static void
push_copy (lua_State *L, int index)
{
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, index)) {  /* copy, key, value */
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -4);
  }
}

/* [-0, +0, m]  Give the environment at 'env' a copy, without '__gc', of the
   metatable that a script gave the globals. */
static void
copy_metatable (lua_State *L, int env)
{
  const int top = lua_gettop(L);
  push_globals(L);
  if (lua_getmetatable(L, top + 1)) {
    push_copy(L, top + 2);
    lua_pushnil(L);
    lua_setfield(L, top + 3, "__gc");
    lua_setmetatable(L, env);
  }
  lua_settop(L, top);
}

/*
 * The metatable of strict.lua and its like notes down which names are
 * declared, in tables that are its fields.  All jobs share these tables, so
 * before each job their contents become again what they were before the first
 * one.
 */

/* The key in the registry, by address, of a table with the metatable of the
   globals at 1, and a shallow copy of each table in a field of the metatable,
   under that table as key. */
static const char fields_key;

/* [-0, +0, m]  Keep copies of the tables in the fields of the metatable at
   'index', except '__index', which is not assigned to. */
static void
keep_fields (lua_State *L, int index)
{
  const int top = lua_gettop(L);
  lua_newtable(L);
  lua_pushvalue(L, index);
  lua_rawseti(L, top + 1, 1);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const bool by_index = lua_type(L, -2) == LUA_TSTRING
                       && strcmp(lua_tostring(L, -2), "__index") == 0;
    if (lua_istable(L, -1) && !by_index) {
      push_copy(L, lua_gettop(L));
      lua_rawset(L, top + 1);
    }
    else
      lua_pop(L, 1);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &fields_key);
  lua_settop(L, top);
}

/* [-0, +0, m]  Give the table at 'index' the contents of the table at
   index + 1. */
static void
restore_table (lua_State *L, int index)
{
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    if (lua_rawget(L, index + 1) == LUA_TNIL) {
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, index);
    }
    lua_pop(L, 1);
  }
  lua_pushnil(L);
  while (lua_next(L, index + 1)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, index);
  }
}

/* [-0, +0, m]  Restore the tables in the fields of the globals' metatable; the
   first time for this metatable, keep copies of them instead. */
static void
restore_fields (lua_State *L)
{
  const int top = lua_gettop(L);
  rs_level_room(L, 10, NULL);
  push_globals(L);
  if (lua_getmetatable(L, top + 1)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &fields_key);
    bool kept = lua_istable(L, top + 3);
    if (kept) {
      lua_rawgeti(L, top + 3, 1);
      kept = lua_rawequal(L, -1, top + 2);
      lua_settop(L, top + 3);
    }
    if (!kept)
      keep_fields(L, top + 2);
    lua_pushnil(L);
    while (kept && lua_next(L, top + 3)) {
      if (lua_istable(L, -2) && lua_istable(L, -1))
        restore_table(L, top + 4);
      lua_settop(L, top + 4);
    }
  }
  lua_settop(L, top);
}

/* ------------------------------------------------------- library functions */

/* __newindex of environments that inherit */
static int
on_assign (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 3);
  mine->dirty = true;
  push_globals(L);
  lua_pushvalue(L, 2);
  const bool shadows = lua_rawget(L, -2) != LUA_TNIL;
  lua_settop(L, 3);
  if (shadows)
    own_fields(L, 1);
  lua_rawset(L, 1);
  return 0;
}

static int
raw_set (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 2);
  luaL_checkany(L, 3);
  lua_settop(L, 3);
  push_globals(L);
  if (lua_rawequal(L, 1, 4)) {  /* the globals, by a job or a module? */
    rs_env_push(L);
    if (!lua_rawequal(L, 5, 4) && is_of_job(L, 4, 5))
      lua_replace(L, 1);
    else {
      rs_environment_expose(L, 1);
      tell_job(L, 5, 4);
    }
  }
  lua_settop(L, 3);
  lua_pushvalue(L, 1);
  lua_insert(L, 1);  /* the table to be returned */
  const int kind = kind_of(L, 2);
  if (kind == INHERITS) {
    lua_remove(L, 1);
    on_assign(L);
  }
  else {
    if (kind == MODULES)
      rs_environment_expose(L, 2);
    lua_rawset(L, 2);
  }
  lua_settop(L, 1);
  return 1;
}

static int
raw_get (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  lua_pushvalue(L, 2);
  if (lua_rawget(L, 1) != LUA_TNIL)
    return 1;
  const int kind = kind_of(L, 1);
  lua_settop(L, 2);
  if (kind == INHERITS)
    raw_global(L);
  else if (kind == GLOBALS || kind == MODULES)
    lua_gettable(L, 1);  /* '__index' is of this file, and reads raw */
  else
    lua_pushnil(L);
  return 1;
}

static int
raw_len (lua_State *L)
{
  const int type = lua_type(L, 1);
  luaL_argexpected(L, type == LUA_TTABLE || type == LUA_TSTRING, 1,
                   "table or string");
  if (type == LUA_TTABLE)
    rs_environment_expose(L, 1);
  lua_pushinteger(L, (lua_Integer) lua_rawlen(L, 1));
  return 1;
}

/* __len of environments that inherit, and of the table that stands for the
   table of modules: '#' is raw where no metatable is known of. */
static int
get_len (lua_State *L)
{
  rs_environment_expose(L, 1);
  lua_pushinteger(L, (lua_Integer) lua_rawlen(L, 1));
  return 1;
}

static int
next (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  int kind = NONE;
  if (lua_getmetatable(L, 1)) {
    kind = kind_of(L, 1);
    lua_settop(L, 2);
    if (lua_isnil(L, 2) || kind == INHERITS || kind == MODULES)
      rs_environment_expose(L, 1);
  }
  if (lua_next(L, 1)) {
    if (kind == MODULES)
      own_module(L, 2);
    return 2;
  }
  lua_pushnil(L);
  return 1;
}

static int
finish_pairs (lua_State *L, int status, lua_KContext context)
{
  (void) L;
  (void) status;
  (void) context;
  return 3;
}

static int
pairs (lua_State *L)
{
  luaL_checkany(L, 1);
  if (luaL_getmetafield(L, 1, "__pairs") == LUA_TNIL) {
    lua_pushcfunction(L, next);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
  }
  else {
    lua_pushvalue(L, 1);
    lua_callk(L, 1, 3, 0, finish_pairs);
  }
  return 3;
}

static int
get_metatable (lua_State *L)
{
  luaL_checkany(L, 1);
  if (!lua_getmetatable(L, 1))
    lua_pushnil(L);
  else if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL
           && rs_environment_hides(L, -1))
    lua_pushnil(L);
  return 1;
}

/* debug.getmetatable */
static int
get_any_metatable (lua_State *L)
{
  luaL_checkany(L, 1);
  if (!lua_getmetatable(L, 1) || kind_of(L, 1) != NONE)
    lua_pushnil(L);
  return 1;
}

/* ----------------------------------------------------------------- require */

/* [-0, +0, -]  Do the globals have a metatable of a script? */
static bool
is_strict (lua_State *L)
{
  const int top = lua_gettop(L);
  push_globals(L);
  const int kind = push_kind(L, top + 1);
  const bool has = lua_gettop(L) > top + 1;
  lua_settop(L, top);
  return has && kind == NONE;
}

/* [-0, +2, e]  Push the loader of the module 'name', and the value that the
   searcher returned with it (or nil), as the original 'require' does. */
static void
find_loader (lua_State *L, const char *name)
{
  luaL_Buffer message;
  if (lua_getfield(L, lua_upvalueindex(1), "searchers") != LUA_TTABLE)
    luaL_error(L, "'package.searchers' must be a table");
  const int searchers = lua_gettop(L);
  luaL_buffinit(L, &message);
  for (lua_Integer i = 1; ; i++) {
    luaL_addstring(&message, "\n\t");
    if (lua_rawgeti(L, searchers, i) == LUA_TNIL) {
      lua_pop(L, 1);
      luaL_buffsub(&message, 2);
      luaL_pushresult(&message);
      luaL_error(L, "module '%s' not found:%s", name, lua_tostring(L, -1));
    }
    lua_pushstring(L, name);
    lua_call(L, 1, 2);
    if (lua_isfunction(L, -2))
      return;
    if (lua_isstring(L, -2)) {
      lua_pop(L, 1);
      luaL_addvalue(&message);
    }
    else {
      lua_pop(L, 2);
      luaL_buffsub(&message, 2);
    }
  }
}

/* [-0, +0, m]  A module has given the globals a metatable: give the
   environment of the job a copy of it, and keep its fields. */
static void
become_strict (lua_State *L)
{
  const int top = lua_gettop(L);
  rs_env_push(L);
  push_globals(L);
  if (!lua_rawequal(L, top + 1, top + 2) && lua_istable(L, top + 1)) {
    rs_environment_expose(L, top + 1);
    if (!lua_getmetatable(L, top + 1))  /* has the job set none? */
      copy_metatable(L, top + 1);
    lua_settop(L, top + 2);
    if (lua_getmetatable(L, top + 2))
      keep_fields(L, top + 3);
  }
  lua_settop(L, top);
}

/* 'require'; the upvalue is the library 'package'.  Does by itself what the
   original does, and does not call it, so that errors have the position of the
   caller. */
static int
require (lua_State *L)
{
  enum { NAME = 1, LOADED };
  const char *const name = luaL_checkstring(L, NAME);
  lua_settop(L, NAME);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_getfield(L, LOADED, name);
  if (lua_toboolean(L, -1)) {
    own_module(L, NAME);
    return 1;
  }
  lua_settop(L, LOADED);
  const bool strict = is_strict(L);
  find_loader(L, name);
  lua_rotate(L, -2, 1);
  const int data = lua_gettop(L) - 1;
  lua_pushvalue(L, NAME);
  lua_pushvalue(L, data);
  lua_call(L, 2, 1);
  if (!lua_isnil(L, -1))
    lua_setfield(L, LOADED, name);
  else
    lua_pop(L, 1);
  if (lua_getfield(L, LOADED, name) == LUA_TNIL) {
    lua_pushboolean(L, 1);
    lua_copy(L, -1, -2);
    lua_setfield(L, LOADED, name);
  }
  lua_settop(L, data + 1);
  rs_luv_adopt(L, data + 1);
  if (!strict && is_strict(L))
    become_strict(L);
  lua_pushvalue(L, data);
  return 2;
}

/* ------------------------------------------------------------------ public */

/* [-0, +0, m]  Replace the field 'name' of the table on top by 'f', if the
   table has the field. */
static void
replace (lua_State *L, const char *name, lua_CFunction f)
{
  if (lua_getfield(L, -1, name) != LUA_TNIL) {
    lua_pushcfunction(L, f);
    lua_setfield(L, -3, name);
  }
  lua_pop(L, 1);
}

static void
replace_functions (lua_State *L)
{
  const int top = lua_gettop(L);
  push_globals(L);
  replace(L, "getmetatable", get_metatable);
  replace(L, "next", next);
  replace(L, "pairs", pairs);
  replace(L, "rawget", raw_get);
  replace(L, "rawlen", raw_len);
  replace(L, "rawset", raw_set);
  if (lua_getfield(L, -1, LUA_LOADLIBNAME) == LUA_TTABLE) {
    hide_modules(L);
    lua_pushcclosure(L, require, 1);
    lua_setfield(L, top + 1, "require");
  }
  lua_settop(L, top + 1);
  if (lua_getfield(L, -1, LUA_DBLIBNAME) == LUA_TTABLE)
    replace(L, "getmetatable", get_any_metatable);
  lua_settop(L, top);
}

void
rs_environment_open (lua_State *L, rs_environment *e, int reset)
{
  e->reset = reset;
  e->dirty = reset == RS_RESET_GLOBALS;
  mine = e;
  rs_home_push(L);
  e->home = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushliteral(L, LUA_GNAME);
  e->name_of_globals = luaL_ref(L, LUA_REGISTRYINDEX);
  if (reset != RS_RESET_GLOBALS)
    return;
  lua_createtable(L, 0, 5);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, on_assign);
  lua_setfield(L, -2, "__newindex");
  lua_pushcfunction(L, get_len);
  lua_setfield(L, -2, "__len");
  set_kind(L, INHERITS);
  e->metatable = luaL_ref(L, LUA_REGISTRYINDEX);
  replace_functions(L);
}

void
rs_environment_set (lua_State *L, const rs_environment *e)
{
  const int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->home);
  lua_insert(L, -2);
  if (rs_home_is(L, top))
    rs_home_set_env(L, top);
  lua_settop(L, top - 1);
}

/* [-0, +0, m]  Let the environment at 'env', a copy of the globals, inherit
   names that a module gives the globals from now on.  Does nothing when the
   environment has a metatable of a script. */
static void
inherit (lua_State *L, int env)
{
  if (lua_getmetatable(L, env)) {
    lua_pop(L, 1);
    return;
  }
  lua_createtable(L, 0, 1);
  push_globals(L);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, env);
}

void
rs_environment_renew (lua_State *L, rs_environment *e, bool nested)
{
  const bool own = e->reset == RS_RESET_GLOBALS;
  const bool bare = own && (is_hidden(L, e) || hide_globals(L));
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->home);
  if (!rs_home_is(L, -1))
    luaL_error(L, "the registry of this runspace has been changed");
  lua_createtable(L, 0, 2);
  const int env = lua_gettop(L);
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, e->name_of_globals) != LUA_TSTRING)
    luaL_error(L, "the registry of this runspace has been changed");
  lua_pushvalue(L, env);
  lua_rawset(L, env);
  if (own) {
    if (lua_rawgeti(L, LUA_REGISTRYINDEX, e->metatable) != LUA_TTABLE)
      luaL_error(L, "the registry of this runspace has been changed");
    lua_setmetatable(L, env);
  }
  if (!bare) {
    if (!nested)
      restore_fields(L);
    own_fields(L, env);
    copy_metatable(L, env);
  }
  if (!own)
    inherit(L, env);
  rs_home_set_env(L, env - 1);
  lua_pop(L, 1);
  e->dirty = !bare;
}

void
rs_environment_lend (lua_State *L, rs_environment *e)
{
  if (e->reset != RS_RESET_GLOBALS)
    return;
  if (!is_hidden(L, e)) {
    /* The fields of the metatable become those that jobs begin with once the
       call has ended. */
    restore_fields(L);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &fields_key);
  }
  push_globals(L);
  rs_environment_set(L, e);
  e->dirty = true;
}

bool
rs_environment_check (lua_State *L, rs_environment *e)
{
  const int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->home);
  bool good = rs_home_is(L, -1);
  if (good) {
    good = rs_home_restore_env(L, top + 1)
        && lua_getiuservalue(L, -1, RS_HOME_ENV) == LUA_TTABLE
        && lua_topointer(L, -1) == rs_home_env(L, top + 1);
    if (good && !e->dirty && e->reset == RS_RESET_GLOBALS) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, e->name_of_globals);
      lua_rawget(L, -2);
      e->dirty = !lua_rawequal(L, -1, -2);
    }
  }
  lua_settop(L, top);
  return good;
}
