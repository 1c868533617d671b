/* SPDX-License-Identifier: MIT */
/*
 * library.c - library functions that a runspace has its own versions of.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* newlocale */
#endif
#include "state/library.h"

#include <locale.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/level.h"
#include "value/message.h"
#include "value/names.h"

/* --------------------------------------------------- chunks of source text */

/* [-0, +0, m]  Let '_ENV' of the compiled source on top, its first upvalue, be
   the environment of the job. */
static void
rebind (lua_State *L)
{
  if (lua_type(L, -1) == LUA_TFUNCTION && !lua_iscfunction(L, -1)) {
    rs_env_push(L);
    if (lua_setupvalue(L, -2, 1) == NULL)  /* a chunk without upvalues? */
      lua_pop(L, 1);
  }
}

/* [-1, +(1|2), m]  Leave the values that 'load' and 'loadfile' return for the
   chunk, or the error, on top.  The argument with the environment is at 'env';
   0: there is no such argument. */
static int
return_chunk (lua_State *L, int status, int env)
{
  if (status != LUA_OK) {
    lua_pushnil(L);
    lua_insert(L, -2);
    return 2;
  }
  if (env == 0)
    rebind(L);
  else {
    lua_pushvalue(L, env);
    if (lua_setupvalue(L, -2, 1) == NULL)
      lua_pop(L, 1);
  }
  return 1;
}

/* lua_Reader: the next piece from the function at 1; the piece is kept at 5
   while Lua reads it */
static const char *
read_piece (lua_State *L, void *ud, size_t *size)
{
  enum { PIECE = 5 };
  (void) ud;
  rs_level_room(L, 2, "too many nested functions");
  lua_pushvalue(L, 1);
  lua_call(L, 0, 1);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    *size = 0;
    return NULL;
  }
  if (!lua_isstring(L, -1))
    luaL_error(L, "reader function must return a string");
  lua_replace(L, PIECE);
  return lua_tolstring(L, PIECE, size);
}

/* load(chunk, name, mode, env); checks its arguments as the original does, so
   that the error messages are the same */
static int
load (lua_State *L)
{
  enum { CHUNK = 1, NAME, MODE, ENV, PIECE };
  int status;
  size_t size;
  const char *const text = lua_tolstring(L, CHUNK, &size);
  const char *const mode = luaL_optstring(L, MODE, "bt");
  const int env = lua_isnone(L, ENV) ? 0 : ENV;
  if (text != NULL) {
    const char *const name = luaL_optstring(L, NAME, text);
    status = luaL_loadbufferx(L, text, size, name, mode);
  }
  else {
    const char *const name = luaL_optstring(L, NAME, "=(load)");
    luaL_checktype(L, CHUNK, LUA_TFUNCTION);
    lua_settop(L, PIECE);
    status = lua_load(L, read_piece, NULL, name, mode);
  }
  return return_chunk(L, status, env);
}

/* loadfile(name, mode, env) */
static int
loadfile (lua_State *L)
{
  const char *const name = luaL_optstring(L, 1, NULL);
  const char *const mode = luaL_optstring(L, 2, NULL);
  const int env = lua_isnone(L, 3) ? 0 : 3;
  return return_chunk(L, luaL_loadfilex(L, name, mode), env);
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

/* --------------------------------------------------------------------- os */

/* os.exit in a process that is there for this state: it ends, as C code could
   end it, too.  The state is never closed, since it runs. */
static int
os_exit_process (lua_State *L)
{
  int status = EXIT_SUCCESS;
  if (lua_isboolean(L, 1))
    status = lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
  else
    status = (int) luaL_optinteger(L, 1, EXIT_SUCCESS);
  exit(status);
}

static int
os_exit (lua_State *L)
{
  return luaL_error(L, "os.exit was called in a runspace: a job ends by "
                       "returning or by raising an error; it cannot end "
                       "the host");
}

/* The categories of 'os.setlocale', in the order of its names. */
static const struct { int category, mask; } categories[] = {
  { LC_ALL, LC_ALL_MASK },
  { LC_COLLATE, LC_COLLATE_MASK },
  { LC_CTYPE, LC_CTYPE_MASK },
  { LC_MONETARY, LC_MONETARY_MASK },
  { LC_NUMERIC, LC_NUMERIC_MASK },
  { LC_TIME, LC_TIME_MASK },
};

/* The name of the locale that the environment variables give 'category'. */
static const char *
locale_of_environment (int category)
{
  static const char *const names[] = {
    [LC_COLLATE] = "LC_COLLATE", [LC_CTYPE] = "LC_CTYPE",
    [LC_MONETARY] = "LC_MONETARY", [LC_NUMERIC] = "LC_NUMERIC",
    [LC_TIME] = "LC_TIME", [LC_ALL] = "LC_CTYPE",
  };
  const char *const tried[] = { "LC_ALL", names[category], "LANG" };
  for (int i = 0; i < 3; i++) {
    const char *const value = getenv(tried[i]);
    if (value != NULL && *value != '\0')
      return value;
  }
  return "C";
}

static bool
same_locale (const char *a, const char *b)
{
  if (strcmp(a, "POSIX") == 0)
    a = "C";
  if (strcmp(b, "POSIX") == 0)
    b = "C";
  return strcmp(a, b) == 0;
}

/* os.setlocale(name, category); raises if the locale would change */
static int
os_setlocale (lua_State *L)
{
  static const char *const names[] = {  /* in the order of 'categories' */
    "all", "collate", "ctype", "monetary", "numeric", "time", NULL
  };
  const char *const name = luaL_optstring(L, 1, NULL);
  const int which = luaL_checkoption(L, 2, "all", names);
  const char *const now = setlocale(categories[which].category, NULL);
  if (name == NULL || now == NULL) {
    lua_pushstring(L, now);
    return 1;
  }
  const char *const wanted =
    *name != '\0' ? name : locale_of_environment(categories[which].category);
  if (!same_locale(wanted, now)) {
    const locale_t locale = newlocale(categories[which].mask, wanted, 0);
    if (locale == (locale_t) 0) {  /* no such locale */
      lua_pushnil(L);
      return 1;
    }
    freelocale(locale);
    return luaL_error(L, "os.setlocale(%s) was called in a runspace: the "
                         "locale belongs to the whole process; set it in "
                         "the host", name);
  }
  lua_pushstring(L, now);
  return 1;
}

/* ------------------------------------------------------------------ public */

/* [-1, +0, m]  Put the value on top into the field 'name' of the table at
   'index', if the table has that field. */
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

void
rs_library_open (lua_State *L, bool alone)
{
  const int top = lua_gettop(L);
  lua_pushglobaltable(L);
  const int globals = lua_gettop(L);
  lua_pushcfunction(L, load);
  replace(L, globals, "load");
  lua_pushcfunction(L, loadfile);
  replace(L, globals, "loadfile");
  lua_pushcfunction(L, dofile);
  replace(L, globals, "dofile");
  if (lua_getfield(L, globals, LUA_OSLIBNAME) == LUA_TTABLE) {
    const int os = lua_gettop(L);
    lua_pushcfunction(L, alone ? os_exit_process : os_exit);
    replace(L, os, "exit");
    lua_pushcfunction(L, os_setlocale);
    replace(L, os, "setlocale");
  }
  lua_settop(L, top);
}
