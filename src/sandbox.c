/* SPDX-License-Identifier: MIT */
/*
 * sandbox.c - what code in a runspace may not do.
 *
 * Functions are replaced in the tables where they stand.  The originals that
 * are still needed are upvalues of their replacements, where nobody reaches
 * them without the library 'debug'; so who may use that library is not
 * contained at all, but for accidents.
 *
 * What reports failure by nil does so here; the others raise.
 */
#include "sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

/* Key in the registry, by address: light userdata, the rs_sandbox. */
static const char sandbox_key;

bool
rs_sandbox_get (lua_State *L, rs_sandbox *out)
{
  const rs_sandbox *sandbox = NULL;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sandbox_key) == LUA_TLIGHTUSERDATA)
    sandbox = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (sandbox != NULL)
    *out = *sandbox;
  return sandbox != NULL;
}

bool
rs_sandbox_forbids (lua_State *L, unsigned what)
{
  rs_sandbox sandbox;
  return rs_sandbox_get(L, &sandbox) && (sandbox.forbid & what) != 0;
}

/* ---------------------------------------------------------------- refusals */

/* The upvalues of a refusal: what was called, what is forbidden, what allows
   it; the others belong to the function. */
enum { NAME = 1, WHAT, REMEDY, OWN };

/* [-0, +1, m]  Say so. */
static void
push_refusal (lua_State *L)
{
  lua_pushfstring(L, "%s: the sandbox of this runspace forbids %s: give the "
                     "initial state sandbox = {%s}",
                  lua_tostring(L, lua_upvalueindex(NAME)),
                  lua_tostring(L, lua_upvalueindex(WHAT)),
                  lua_tostring(L, lua_upvalueindex(REMEDY)));
}

/* A function that is not to be had, and raises. */
static int
refuse (lua_State *L)
{
  luaL_where(L, 1);
  push_refusal(L);
  lua_concat(L, 2);
  return lua_error(L);
}

/* The same, for one that reports failure. */
static int
fail (lua_State *L)
{
  lua_pushnil(L);
  push_refusal(L);
  lua_pushinteger(L, EACCES);
  return 3;
}

/* [-?, +?, e]  Call the original, the first of the function's own upvalues. */
static int
call_original (lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(OWN));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* io.open, for reading only */
static int
open_to_read (lua_State *L)
{
  const char *const mode = luaL_optstring(L, 2, "r");
  const bool reads = strcmp(mode, "r") == 0 || strcmp(mode, "rb") == 0;
  return reads ? call_original(L) : fail(L);
}

/* io.input, io.output, io.lines: what is open already may be used */
static int
use_open_file (lua_State *L)
{
  return lua_type(L, 1) == LUA_TSTRING ? refuse(L) : call_original(L);
}

/* ------------------------------------------------------------------ chunks */

/* load(chunk, name, mode, env), loadfile(name, mode, env): source only; the
   position of 'mode' is the second of the function's own upvalues */
static int
load_text (lua_State *L)
{
  const int at = (int) lua_tointeger(L, lua_upvalueindex(OWN + 1));
  const char *const mode = luaL_optstring(L, at, "bt");
  if (lua_gettop(L) < at)
    lua_settop(L, at);
  lua_pushstring(L, strchr(mode, 't') != NULL ? "t" : "");
  lua_replace(L, at);
  return call_original(L);
}

/* dofile(name): source only */
static int
dofile_text (lua_State *L)
{
  const char *const name = luaL_optstring(L, 1, NULL);
  if (luaL_loadfilex(L, name, "t") != LUA_OK)
    return lua_error(L);
  lua_pop(L, 1);
  return call_original(L);
}

/* ----------------------------------------------------------------- modules */

/* A searcher that finds nothing, and says why. */
static int
search_nowhere (lua_State *L)
{
  push_refusal(L);
  return 1;
}

/* The searcher of C modules; the second of its own upvalues is the set of
   names that may be loaded */
static int
search_allowed (lua_State *L)
{
  luaL_checkstring(L, 1);
  lua_pushvalue(L, 1);
  lua_rawget(L, lua_upvalueindex(OWN + 1));
  const bool allowed = lua_toboolean(L, -1);
  lua_settop(L, 1);
  return allowed ? call_original(L) : search_nowhere(L);
}

/* The searcher of Lua modules, without bytecode: what it would load must be
   source */
static int
search_text (lua_State *L)
{
  const int n = call_original(L);
  if (n < 2 || lua_type(L, 1) != LUA_TFUNCTION
      || lua_type(L, 2) != LUA_TSTRING)
    return n;
  if (luaL_loadfilex(L, lua_tostring(L, 2), "t") != LUA_OK)
    return 1;
  lua_settop(L, 2);
  return 2;
}

/* package.loadlib */
static int
load_no_library (lua_State *L)
{
  lua_pushnil(L);
  push_refusal(L);
  lua_pushliteral(L, "absent");
  return 3;
}

/* ----------------------------------------------------------------- closing */

/*
 * [-own, +0, m]  Put 'f' into the field 'name' of the library at 'index'
 * (NULL: the globals), where that has one.  Its upvalues are the three of a
 * refusal, and the 'own' values on top.
 */
static void
put (lua_State *L, int index, const char *library, const char *name,
     lua_CFunction f, const char *what, const char *remedy, int own)
{
  const bool there = lua_istable(L, index)
                  && lua_getfield(L, index, name) != LUA_TNIL;
  if (lua_istable(L, index))
    lua_pop(L, 1);
  if (there) {
    lua_pushfstring(L, library != NULL ? "%s.%s" : "%s%s",
                    library != NULL ? library : "", name);
    lua_pushstring(L, what);
    lua_pushstring(L, remedy);
    lua_rotate(L, -(own + 3), 3);
    lua_pushcclosure(L, f, own + 3);
    lua_setfield(L, index, name);
  }
  else
    lua_pop(L, own);
}

/* [-0, +0, m]  The same for a function that needs its original. */
static void
wrap (lua_State *L, int index, const char *library, const char *name,
      lua_CFunction f, const char *what, const char *remedy)
{
  if (lua_istable(L, index))
    lua_getfield(L, index, name);
  else
    lua_pushnil(L);
  put(L, index, library, name, f, what, remedy, 1);
}

/* What the libraries are, on the stack. */
enum { GLOBALS = 1, IO, OS, MODULES, LIBRARIES = MODULES };

static void
close_programs (lua_State *L)
{
  static const char what[] = "programs", remedy[] = "programs = true";
  put(L, OS, "os", "execute", fail, what, remedy, 0);
  put(L, IO, "io", "popen", fail, what, remedy, 0);
}

static void
close_writing (lua_State *L, bool reading)
{
  const char *const what = reading ? "files" : "changing files";
  static const char remedy[] = "files = \"all\"";
  static const char *const changes[] = { "remove", "rename", "tmpname", NULL };
  for (int i = 0; changes[i] != NULL; i++)
    put(L, OS, "os", changes[i], i == 2 ? refuse : fail, what, remedy, 0);
  put(L, IO, "io", "tmpfile", fail, what, remedy, 0);
  wrap(L, IO, "io", "output", use_open_file, what, remedy);
  if (!reading)
    wrap(L, IO, "io", "open", open_to_read, what, remedy);
}

static void
close_reading (lua_State *L)
{
  static const char what[] = "files", remedy[] = "files = \"read\"";
  put(L, IO, "io", "open", fail, what, remedy, 0);
  wrap(L, IO, "io", "lines", use_open_file, what, remedy);
  wrap(L, IO, "io", "input", use_open_file, what, remedy);
  put(L, GLOBALS, NULL, "loadfile", fail, what, remedy, 0);
  put(L, GLOBALS, NULL, "dofile", refuse, what, remedy, 0);
}

static void
close_bytecode (lua_State *L)
{
  static const char what[] = "bytecode", remedy[] = "bytecode = true";
  static const struct { const char *name; int mode; } loaders[] = {
    { "load", 3 }, { "loadfile", 2 }
  };
  for (int i = 0; i < 2; i++) {
    lua_getfield(L, GLOBALS, loaders[i].name);
    lua_pushinteger(L, loaders[i].mode);
    put(L, GLOBALS, NULL, loaders[i].name, load_text, what, remedy, 2);
  }
  wrap(L, GLOBALS, NULL, "dofile", dofile_text, what, remedy);
}

/* [-own, +0, m]  The searcher number 'i' becomes 'f'; the first of its own
   upvalues is the original. */
static void
put_searcher (lua_State *L, int i, lua_CFunction f, const char *what,
              const char *remedy, int own)
{
  lua_getfield(L, MODULES, "searchers");
  lua_insert(L, -(own + 1));
  lua_pushliteral(L, "require");
  lua_pushstring(L, what);
  lua_pushstring(L, remedy);
  lua_rawgeti(L, -(own + 4), i);
  lua_rotate(L, -(own + 4), 4);
  lua_pushcclosure(L, f, own + 4);
  lua_rawseti(L, -2, i);
  lua_pop(L, 1);
}

/* Searchers of a state: preloads, Lua files, and two kinds of C modules. */
enum { LUA_FILES = 2, C_FILES, C_PARTS };

static void
close_modules (lua_State *L, const rs_sandbox *sandbox)
{
  static const char files[] = "files", no_files[] = "files = \"read\"";
  static const char more[] = "this C module";
  if (!lua_istable(L, MODULES))
    return;
  if (sandbox->files == RS_FILES_NONE)
    put_searcher(L, LUA_FILES, search_nowhere, files, no_files, 0);
  else if (sandbox->forbid & RS_FORBID_BYTECODE)
    put_searcher(L, LUA_FILES, search_text, "bytecode", "bytecode = true", 0);
  if (!(sandbox->forbid & RS_FORBID_C_MODULES))
    return;
  lua_newtable(L);
  for (int i = 0; sandbox->c_modules != NULL && sandbox->c_modules[i] != NULL;
       i++) {
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, sandbox->c_modules[i]);
  }
  for (int i = C_FILES; i <= C_PARTS; i++) {
    lua_pushvalue(L, -1);
    put_searcher(L, i, search_allowed, more, "c_modules = {\"...\"}", 1);
  }
  lua_pop(L, 1);
  put(L, MODULES, "package", "loadlib", load_no_library, "C libraries",
      "c_modules = true", 0);
}

/* The library is gone. */
static void
close_debug (lua_State *L)
{
  lua_pushnil(L);
  lua_setfield(L, GLOBALS, LUA_DBLIBNAME);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushnil(L);
  lua_setfield(L, -2, LUA_DBLIBNAME);
  lua_pop(L, 1);
}

/* (rs_sandbox) */
static int
close_all (lua_State *L)
{
  static const char *const names[] = {
    LUA_IOLIBNAME, LUA_OSLIBNAME, LUA_LOADLIBNAME
  };
  const rs_sandbox *const sandbox = lua_touserdata(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sandbox_key);
  lua_pushglobaltable(L);
  for (int i = 0; i < LIBRARIES - GLOBALS; i++)
    lua_getfield(L, GLOBALS, names[i]);
  if (sandbox->forbid & RS_FORBID_PROGRAMS)
    close_programs(L);
  if (sandbox->forbid & RS_FORBID_BYTECODE)
    close_bytecode(L);
  if (sandbox->files != RS_FILES_ALL)
    close_writing(L, sandbox->files == RS_FILES_NONE);
  if (sandbox->files == RS_FILES_NONE)
    close_reading(L);
  close_modules(L, sandbox);
  if (sandbox->forbid & RS_FORBID_DEBUG)
    close_debug(L);
  return 0;
}

void
rs_sandbox_close (lua_State *L, const rs_sandbox *sandbox)
{
  lua_pushcfunction(L, close_all);
  lua_pushlightuserdata(L, (void *) (uintptr_t) sandbox);
  lua_call(L, 1, 0);
}
