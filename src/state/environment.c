/* SPDX-License-Identifier: MIT */
/*
 * environment.c - the globals that a job sees.
 *
 * An environment begins as a table that inherits from the runspace's globals:
 *
 *     environment { _G = itself, what the job assigned }
 *       metatable { __index = globals, __newindex = on_assign }
 *
 * '__newindex' is called at the first assignment of each name; it marks the
 * environment as dirty, and a dirty one is replaced before the next call or
 * item.  A clean one serves again, so jobs that assign no globals pay
 * nothing.  The one name that is there before, '_G', is looked at when the
 * call has ended, and so is the variable '_ENV' that all functions share.
 *
 * Where that would show, the environment becomes a table that has all of its
 * fields itself ('own_fields'): when a job looks at it by 'next', gives it a
 * metatable, or assigns to a name of the globals, which could be set to nil
 * later, behind '__newindex'.  From then on it is dirty, has no metatable of
 * ours, and is told of names that modules give the globals.  Where the globals
 * have got a metatable (strict.lua, say), an environment is such a table from
 * the start, with a copy of that.
 *
 * The globals have no field '_G' meanwhile, but a metatable that supplies it:
 * a job that sets its own to nil must not find that one.  They get it back
 * where somebody looks.  By that metatable modules find the globals of the
 * job, too, and what a job assigns to the globals themselves goes to it.
 *
 * 'package.loaded' is not the table of modules, where Lua looks for the names
 * of functions, but one that stands for it: there a job finds its environment
 * as '_G', and a module the globals.
 *
 * 'getmetatable' shows none of these metatables: each has its kind under the
 * key below, and that key as '__metatable'.
 */
#include "state/environment.h"

#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/level.h"
#include "state/luv.h"
#include "value/names.h"
#include "runspace.h"

/* In a metatable, by address: its kind. */
static const char key;

enum { NONE, INHERITS, GLOBALS, MODULES };

/* Of the state that this thread runs: it runs one at a time.  (A script can
   take what is in its registry, and upvalues.) */
static _Thread_local rs_environment *mine;

/* [-0, +(0|1), -]  What kind of environment is the table at 'index'?  Its
   metatable is pushed, if it has one. */
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

static void
push_globals (lua_State *L)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

/* [-1, +1, m]  Replace the key on top by the field of the globals. */
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

/* [-0, +0, m]  The metatable on top is of that kind. */
static void
set_kind (lua_State *L, int kind)
{
  lua_pushlightuserdata(L, (void *) &key);
  lua_setfield(L, -2, "__metatable");
  lua_pushinteger(L, kind);
  lua_rawsetp(L, -2, &key);
}

/* [-0, +1, m]  Push a metatable of that kind. */
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

/* __index of globals without '_G': (globals, name).  A name that they have
   not may be one of the job's, which modules see, as they do in Lua. */
static int
supply_global (lua_State *L)
{
  lua_settop(L, 2);
  rs_env_push(L);
  const bool job = !lua_rawequal(L, 3, 1);
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
 * [-0, +0, -]  Is it a function of the job that assigns to the globals, and
 * none of a module?  The innermost one that has either environment tells; the
 * two are at these indices.
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

/* [-0, +0, m]  The globals have got the name and value at 2 and 3: so does the
   environment of the job, if it does not inherit. */
static void
tell_job (lua_State *L, int env, int globals)
{
  if (lua_rawequal(L, env, globals) || kind_of(L, env) == INHERITS)
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

/* __newindex of globals without '_G': (globals, name, value).  What a job
   assigns by 'package.loaded._G' or its like is its own. */
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

/* [-0, +1, v] */
static void
push_modules (lua_State *L)
{
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) != LUA_TTABLE)
    luaL_error(L, "the table of modules is gone from the registry");
}

/* [-0, +0, -]  On top is the module whose name is at 'name': '_G' of a job is
   its own. */
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

/* __index of what stands for the table: (table, name) */
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

/* __newindex of the same: (table, name, module) */
static int
set_module (lua_State *L)
{
  lua_settop(L, 3);
  push_modules(L);
  lua_replace(L, 1);
  lua_settable(L, 1);
  return 0;
}

/* __eq of the same, which is the table */
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

/* [-0, +0, m]  Let the library 'package' on top have what stands for it. */
static void
hide_modules (lua_State *L)
{
  lua_newtable(L);
  push_metatable(L, get_module, set_module, MODULES);
  lua_pushcfunction(L, same_modules);
  lua_setfield(L, -2, "__eq");
  lua_setmetatable(L, -2);
  lua_setfield(L, -2, "loaded");
}

/* ------------------------------------------------------------ the globals */

/* [-0, +0, m]  The globals lose '_G', unless they have a metatable of the
   script's: then false. */
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
    if (lua_rawequal(L, -1, top + 1)) {  /* not another value? */
      lua_pushvalue(L, -2);
      lua_pushnil(L);
      lua_rawset(L, top + 1);
    }
  }
  lua_settop(L, top);
  return bare || kind == GLOBALS;
}

/* [-0, +0, -]  They have lost it, and have the metatable that they got then;
   which is asked for each environment. */
static bool
is_hidden (lua_State *L, const rs_environment *e)
{
  push_globals(L);
  const bool has = lua_getmetatable(L, -1);
  const bool hidden = has && lua_topointer(L, -1) == e->hiding;
  lua_pop(L, 1 + has);
  return hidden;
}

/* [-0, +0, m]  The globals at 'index' get it back. */
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

/* [-0, +0, m]  The table at 'env', an environment that inherits, gets all
   fields. */
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

/* [-0, +1, m]  Push a copy of the table at 'index', of one level. */
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

/* [-0, +0, m]  The table at 'env' gets a copy of the metatable that the
   script gave the globals. */
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
 * What the functions of a strict metatable note down, such as which names are
 * declared, stands in tables that are its fields.  These are one for all jobs,
 * so they are made again what they were before the first one.
 */

/* In the registry, by address: the metatable, at 1, and copies of the tables
   in its fields, by table. */
static const char fields_key;

/* [-0, +0, m]  Keep the fields of the metatable at 'index', but for '__index',
   which nothing is assigned to. */
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

/* [-0, +0, m]  Let the table at 'index' be like the one behind it. */
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

/* [-0, +0, m]  The fields of the globals' metatable are as they were, or are
   kept from now on. */
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
  if (lua_rawequal(L, 1, 4)) {  /* a module, or a job behind its back? */
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
  lua_insert(L, 1);  /* what is returned */
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
    lua_gettable(L, 1);  /* its '__index' is ours, and raw */
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

/* [-0, +0, -]  Have the globals a metatable of the script's? */
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

/* [-0, +2, e]  Push the loader of the module 'name', and what goes with it,
   as the original does. */
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

/* [-0, +0, m]  A module has given the globals a metatable: the environment of
   the job gets it, too. */
static void
become_strict (lua_State *L)
{
  const int top = lua_gettop(L);
  rs_env_push(L);
  push_globals(L);
  if (!lua_rawequal(L, top + 1, top + 2) && lua_istable(L, top + 1)) {
    rs_environment_expose(L, top + 1);
    if (!lua_getmetatable(L, top + 1))  /* none of the job's? */
      copy_metatable(L, top + 1);
    lua_settop(L, top + 2);
    if (lua_getmetatable(L, top + 2))
      keep_fields(L, top + 3);
  }
  lua_settop(L, top);
}

/* 'require'; the upvalue is the library 'package'.  It does what the original
   does, so that its errors have the position of the caller. */
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

/* [-0, +0, m]  Replace the field 'name' of the table on top, if that has
   it. */
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
  lua_createtable(L, 0, 4);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, on_assign);
  lua_setfield(L, -2, "__newindex");
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
  if (lua_isuserdata(L, top))
    rs_home_set_env(L, top);
  lua_settop(L, top - 1);
}

/* [-0, +0, m]  Names that the globals get from now on, by a module, are found
   in the copy at 'env', too, unless it has a metatable of the script's. */
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
  if (!lua_isuserdata(L, -1))
    luaL_error(L, "the registry of this runspace has been changed");
  lua_createtable(L, 0, 2);
  const int env = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->name_of_globals);
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

bool
rs_environment_check (lua_State *L, rs_environment *e)
{
  const int top = lua_gettop(L);
  lua_rawgeti(L, LUA_REGISTRYINDEX, e->home);
  const bool good = lua_isuserdata(L, -1);
  if (good) {
    rs_home_restore_env(L, top + 1);
    if (!e->dirty && e->reset == RS_RESET_GLOBALS) {
      lua_getiuservalue(L, -1, RS_HOME_ENV);
      lua_rawgeti(L, LUA_REGISTRYINDEX, e->name_of_globals);
      lua_rawget(L, -2);
      e->dirty = !lua_rawequal(L, -1, -2);
    }
  }
  lua_settop(L, top);
  return good;
}
