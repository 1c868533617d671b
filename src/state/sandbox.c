/* SPDX-License-Identifier: MIT */
/*
 * sandbox.c - what code in a runspace may not do.
 *
 * Functions are replaced in the tables of their libraries.  The originals that
 * are still needed are upvalues of their replacements, where code reaches them
 * only through the library 'debug'.  So a sandbox that allows that library
 * stops accidents, but no code that wants to get out.
 *
 * Seeding runs code of the host, which may put other tables in the place of a
 * library, and more searchers before Lua's.  So the libraries and the
 * searchers are remembered before seeding, and these objects are changed
 * afterwards, wherever they stand.  Tables and searchers that the host has put
 * in their places stay as they are.
 *
 * A forbidden function whose original reports failures by nil returns nil and
 * a message; the other ones raise.
 */
#include "state/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/escape.h"
#include "base/level.h"
#include "base/options.h"

/* Keys in the registry, by address. */
static const char sandbox_key;  /* light userdata: the rs_sandbox */
static const char memory_key;   /* what 'open_all' remembers; then nil */

/* Slots of 'close_all'.  From GLOBALS on these are also the indices in the
   table of 'memory_key' of what is remembered. */
enum {
  MEMORY = 1,    /* the table itself */
  GLOBALS,
  IO,
  OS,
  MODULES,       /* the library 'package' */
  DEBUG,
  LUA_FILES,     /* the searchers; those of C modules are two */
  C_FILES,
  C_PARTS,
  LAST = C_PARTS
};

bool
rs_sandbox_get_sized (lua_State *L, rs_sandbox *out, size_t size)
{
  const rs_sandbox *sandbox = NULL;
  if (L == NULL || out == NULL)
    return false;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sandbox_key) == LUA_TLIGHTUSERDATA)
    sandbox = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (sandbox != NULL) {
    rs_sandbox known = *sandbox;
    rs_give_sized(out, size, &known, sizeof known);
  }
  return sandbox != NULL;
}

bool
rs_sandbox_forbids (lua_State *L, unsigned what)
{
  rs_sandbox sandbox;
  return rs_sandbox_get(L, &sandbox) && (sandbox.forbid & what) != 0;
}

/* ---------------------------------------------------------------- refusals */

/* The upvalues of a refusal: the name of the function, what is forbidden, the
   option that allows it; from OWN on the own upvalues of the function. */
enum { NAME = 1, WHAT, REMEDY, OWN };

static const char *
upvalue (lua_State *L, int i)
{
  return lua_tostring(L, lua_upvalueindex(i));
}

/* [-0, +1, m]  Push the text that the sandbox forbids 'what', and that the
   option 'remedy' allows it. */
static void
push_refusal (lua_State *L, const char *what, const char *remedy)
{
  lua_pushfstring(L, "%s: the sandbox of this runspace forbids %s: give the "
                     "initial state sandbox = {%s}",
                  upvalue(L, NAME), what, remedy);
}

/* A forbidden function that raises. */
static int
refuse (lua_State *L)
{
  luaL_where(L, 1);
  push_refusal(L, upvalue(L, WHAT), upvalue(L, REMEDY));
  lua_concat(L, 2);
  return lua_error(L);
}

/* A forbidden function that returns nil, a message and an error number. */
static int
fail (lua_State *L)
{
  lua_pushnil(L);
  push_refusal(L, upvalue(L, WHAT), upvalue(L, REMEDY));
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

/* ------------------------------------------------------------------- files */

/* Does io.open(name, mode), with these arguments at 1 and 2, only read? */
static bool
only_reads (lua_State *L)
{
  const char *const mode = luaL_optstring(L, 2, "r");
  return strcmp(mode, "r") == 0 || strcmp(mode, "rb") == 0;
}

/* io.open where files may only be read */
static int
open_to_read (lua_State *L)
{
  return only_reads(L) ? call_original(L) : fail(L);
}

/* io.open where files are forbidden; the first of its own upvalues is the
   option that allows writing */
static int
open_nothing (lua_State *L)
{
  if (only_reads(L))
    return fail(L);
  lua_pushnil(L);
  push_refusal(L, upvalue(L, WHAT), upvalue(L, OWN));
  lua_pushinteger(L, EACCES);
  return 3;
}

/* io.input, io.output, io.lines: files that are open may be used, and no names
   of files.  A number is a name, too. */
static int
use_open_file (lua_State *L)
{
  return lua_isstring(L, 1) ? refuse(L) : call_original(L);
}

/* ------------------------------------------------------------------ chunks */

/* Is the value at 'index' Lua's message about a chunk of this kind? */
static bool
is_mode_error (lua_State *L, int index, const char *kind)
{
  char text[64];
  const int n = snprintf(text, sizeof text, "attempt to load a %s chunk",
                         kind);
  return lua_type(L, index) == LUA_TSTRING
      && strncmp(lua_tostring(L, index), text, (size_t) n) == 0;
}

/* load(chunk, name, mode, env), loadfile(name, mode, env): source only.  The
   first of the own upvalues is the original, the second is the position of
   'mode'. */
static int
load_text (lua_State *L)
{
  const int at = (int) lua_tointeger(L, lua_upvalueindex(OWN + 1));
  const char *const mode = luaL_optstring(L, at, "bt");
  const bool binary = strchr(mode, 'b') != NULL;
  const bool text = strchr(mode, 't') != NULL;
  if (lua_gettop(L) < at)
    lua_settop(L, at);
  lua_pushstring(L, text ? "t" : "");
  lua_replace(L, at);
  const int n = call_original(L);
  if (n != 2 || !lua_isnil(L, 1) || !binary)
    return n;
  if (is_mode_error(L, 2, "binary"))  /* bytecode that 'mode' allows? */
    return fail(L);
  if (!text && is_mode_error(L, 2, "text")) {
    lua_pushliteral(L, "attempt to load a text chunk (mode is 'b')");
    lua_replace(L, 2);
  }
  return 2;
}

static int
finish_dofile (lua_State *L, int status, lua_KContext context)
{
  (void) status;
  (void) context;
  return lua_gettop(L) - 1;
}

/* dofile(name): source only; the first of the own upvalues is 'loadfile' */
static int
dofile_text (lua_State *L)
{
  luaL_optstring(L, 1, NULL);
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(OWN));
  lua_pushvalue(L, 1);
  lua_pushliteral(L, "t");
  lua_call(L, 2, 2);  /* name, chunk or nil, message */
  if (lua_isnil(L, 2))
    return is_mode_error(L, 3, "binary") ? refuse(L) : lua_error(L);
  lua_pop(L, 1);
  lua_callk(L, 0, LUA_MULTRET, 0, finish_dofile);
  return finish_dofile(L, LUA_OK, 0);
}

/* ----------------------------------------------------------------- modules */

/* A searcher that finds nothing, and returns the refusal as its message. */
static int
search_nowhere (lua_State *L)
{
  push_refusal(L, upvalue(L, WHAT), upvalue(L, REMEDY));
  return 1;
}

/*
 * A searcher of C modules.  Its own upvalues are the original, the set of
 * names that may be loaded, and whether the original is the all-in-one
 * searcher, which finds parts of libraries and returns nothing for a name
 * without a dot.
 */
static int
search_allowed (lua_State *L)
{
  const char *const name = luaL_checkstring(L, 1);
  lua_settop(L, 1);
  if (lua_toboolean(L, lua_upvalueindex(OWN + 2)) && strchr(name, '.') == NULL)
    return 0;
  lua_pushvalue(L, 1);
  lua_rawget(L, lua_upvalueindex(OWN + 1));
  const bool allowed = lua_toboolean(L, -1);
  lua_settop(L, 1);
  if (allowed)
    return call_original(L);
  char shown[200];
  rs_escape(name, strlen(name), shown, sizeof shown);
  const char *const what = lua_pushfstring(L, "a C module '%s'", shown);
  push_refusal(L, what, lua_pushfstring(L, "c_modules = {\"%s\"}", shown));
  return 1;
}

/* The searcher of Lua modules, without bytecode: the file that the original
   finds is loaded again, as source */
static int
search_text (lua_State *L)
{
  lua_settop(L, 1);
  const int n = call_original(L);
  if (n != 2 || lua_type(L, 2) != LUA_TSTRING)
    return n;
  if (luaL_loadfilex(L, lua_tostring(L, 2), "t") != LUA_OK) {
    if (!is_mode_error(L, -1, "binary"))  /* has the file changed? */
      return lua_error(L);
    push_refusal(L, upvalue(L, WHAT), upvalue(L, REMEDY));
    return 1;
  }
  lua_replace(L, 1);
  return 2;
}

/* package.loadlib */
static int
load_no_library (lua_State *L)
{
  fail(L);
  lua_pop(L, 1);
  lua_pushliteral(L, "absent");
  return 3;
}

/* ----------------------------------------------------------------- closing */

/* [-own, +1, m]  Push a closure of 'f'.  Its upvalues are the three of a
   refusal, then the 'own' values on top. */
static void
push_closure (lua_State *L, lua_CFunction f, const char *name,
              const char *what, const char *remedy, int own)
{
  lua_pushstring(L, name);
  lua_pushstring(L, what);
  lua_pushstring(L, remedy);
  lua_rotate(L, -(own + 3), 3);
  lua_pushcclosure(L, f, own + 3);
}

/* [-own, +0, m]  Replace the function 'name' ("io.open") of the library at
   'index', if the library has it, by a closure as 'push_closure' makes. */
static void
put (lua_State *L, int index, const char *name, lua_CFunction f,
     const char *what, const char *remedy, int own)
{
  const char *const dot = strchr(name, '.');
  push_closure(L, f, name, what, remedy, own);
  if (!lua_istable(L, index)) {
    lua_pop(L, 1);
    return;
  }
  lua_pushstring(L, dot != NULL ? dot + 1 : name);
  lua_pushvalue(L, -1);  /* closure, field, field */
  const bool there = lua_rawget(L, index) != LUA_TNIL;
  lua_pop(L, 1);
  lua_rotate(L, -2, 1);  /* field, closure */
  if (there)
    lua_rawset(L, index);
  else
    lua_pop(L, 2);
}

/* [-0, +1, m]  Push the function 'name' ("io.open") of the library at 'index',
   or nil. */
static void
push_original (lua_State *L, int index, const char *name)
{
  const char *const dot = strchr(name, '.');
  lua_pushstring(L, dot != NULL ? dot + 1 : name);
  if (lua_istable(L, index))
    lua_rawget(L, index);
  else {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
}

/* [-0, +0, m]  Do as 'put', with the original as the closure's own upvalue. */
static void
wrap (lua_State *L, int index, const char *name, lua_CFunction f,
      const char *what, const char *remedy)
{
  push_original(L, index, name);
  put(L, index, name, f, what, remedy, 1);
}

/*
 * [-own, +0, m]  Replace the remembered searcher 'which', wherever it stands
 * in 'package.searchers' now, by a closure of 'f'.  The first of the closure's
 * own upvalues is that searcher; the 'own' values on top are the others.
 */
static void
put_searcher (lua_State *L, int which, lua_CFunction f, const char *what,
              const char *remedy, int own)
{
  lua_pushvalue(L, which);
  lua_insert(L, -(own + 1));
  push_closure(L, f, "require", what, remedy, own + 1);
  const int closure = lua_gettop(L);
  push_original(L, MODULES, "searchers");
  if (lua_istable(L, -1)) {
    const lua_Integer n = (lua_Integer) lua_rawlen(L, -1);
    for (lua_Integer i = 1; i <= n; i++) {
      lua_rawgeti(L, closure + 1, i);
      if (lua_rawequal(L, -1, which)) {
        lua_pushvalue(L, closure);
        lua_rawseti(L, closure + 1, i);
      }
      lua_pop(L, 1);
    }
  }
  lua_settop(L, closure);
  lua_pushvalue(L, closure);
  lua_rawseti(L, MEMORY, which);
  lua_replace(L, which);
}

static void
close_programs (lua_State *L)
{
  static const char what[] = "programs", remedy[] = "programs = true";
  put(L, OS, "os.execute", fail, what, remedy, 0);
  put(L, IO, "io.popen", fail, what, remedy, 0);
}

/* Forbid the functions that change files.  'reading': files may still be read;
   otherwise the refusals say that files are forbidden. */
static void
close_writing (lua_State *L, bool reading)
{
  const char *const what = reading ? "changing files" : "files";
  static const char remedy[] = "files = \"all\"";
  put(L, OS, "os.remove", fail, what, remedy, 0);
  put(L, OS, "os.rename", fail, what, remedy, 0);
  put(L, OS, "os.tmpname", refuse, what, remedy, 0);
  put(L, IO, "io.tmpfile", fail, what, remedy, 0);
  wrap(L, IO, "io.output", use_open_file, what, remedy);
  if (reading)
    wrap(L, IO, "io.open", open_to_read, what, remedy);
}

static void
close_reading (lua_State *L)
{
  static const char what[] = "files", remedy[] = "files = \"read\"";
  lua_pushliteral(L, "files = \"all\"");
  put(L, IO, "io.open", open_nothing, what, remedy, 1);
  wrap(L, IO, "io.lines", use_open_file, what, remedy);
  wrap(L, IO, "io.input", use_open_file, what, remedy);
  put(L, GLOBALS, "loadfile", fail, what, remedy, 0);
  put(L, GLOBALS, "dofile", refuse, what, remedy, 0);
  put(L, MODULES, "package.searchpath", fail, what, remedy, 0);
  put_searcher(L, LUA_FILES, search_nowhere, what, remedy, 0);
}

static void
close_bytecode (lua_State *L)
{
  static const char what[] = "bytecode", remedy[] = "bytecode = true";
  static const struct { const char *name; int mode; } loaders[] = {
    { "load", 3 }, { "loadfile", 2 }
  };
  push_original(L, GLOBALS, "loadfile");
  if (lua_isfunction(L, -1))
    put(L, GLOBALS, "dofile", dofile_text, what, remedy, 1);
  else {  /* the host took it away */
    lua_pop(L, 1);
    put(L, GLOBALS, "dofile", refuse, what, remedy, 0);
  }
  for (int i = 0; i < 2; i++) {
    push_original(L, GLOBALS, loaders[i].name);
    lua_pushinteger(L, loaders[i].mode);
    put(L, GLOBALS, loaders[i].name, load_text, what, remedy, 2);
  }
  put_searcher(L, LUA_FILES, search_text, what, remedy, 0);
}

static void
close_c_modules (lua_State *L, const char *const *names)
{
  static const char what[] = "C libraries", remedy[] = "c_modules = true";
  lua_newtable(L);
  const int allowed = lua_gettop(L);
  for (; names != NULL && *names != NULL; names++) {
    lua_pushboolean(L, 1);
    lua_setfield(L, allowed, *names);
  }
  for (int which = C_FILES; which <= C_PARTS; which++) {
    lua_pushvalue(L, allowed);
    lua_pushboolean(L, which == C_PARTS);
    put_searcher(L, which, search_allowed, what, remedy, 2);
  }
  lua_pop(L, 1);
  put(L, MODULES, "package.loadlib", load_no_library, what, remedy, 0);
}

/* [-0, +0, m]  Remove the field 'debug' of the table on top, if its value is
   the library. */
static void
remove_debug (lua_State *L)
{
  lua_pushliteral(L, LUA_DBLIBNAME);
  lua_rawget(L, -2);
  const bool library = lua_rawequal(L, -1, DEBUG);
  lua_pop(L, 1);
  if (library) {
    lua_pushliteral(L, LUA_DBLIBNAME);
    lua_pushnil(L);
    lua_rawset(L, -3);
  }
}

static void
close_debug (lua_State *L)
{
  if (!lua_istable(L, DEBUG))
    return;
  lua_pushvalue(L, GLOBALS);
  remove_debug(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  remove_debug(L);
  lua_pop(L, 2);
}

/* (rs_sandbox)  Forbid what the sandbox forbids and the one before did not. */
static int
close_all (lua_State *L)
{
  const rs_sandbox *const sandbox = lua_touserdata(L, 1);
  rs_sandbox before = { .files = RS_FILES_ALL };
  rs_sandbox_get(L, &before);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &sandbox_key);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &memory_key);
  assert(lua_gettop(L) == MEMORY);
  rs_level_room(L, LAST + LUA_MINSTACK, NULL);
  for (int i = MEMORY + 1; i <= LAST; i++)
    lua_rawgeti(L, MEMORY, i);
  const unsigned forbid = sandbox->forbid & ~before.forbid;
  const bool names = (sandbox->forbid & RS_FORBID_C_MODULES)
                  && before.c_modules != NULL;  /* there may be fewer now */
  if (forbid & RS_FORBID_PROGRAMS)
    close_programs(L);
  if (forbid & RS_FORBID_BYTECODE)
    close_bytecode(L);
  if (sandbox->files > before.files)
    close_writing(L, sandbox->files == RS_FILES_READ);
  if (sandbox->files > before.files && sandbox->files == RS_FILES_NONE)
    close_reading(L);
  if ((forbid & RS_FORBID_C_MODULES) || names)
    close_c_modules(L, sandbox->c_modules);
  if (forbid & RS_FORBID_DEBUG)
    close_debug(L);
  return 0;
}

/* [-0, +0, m]  Call 'close_all', in a frame of its own. */
static void
hold (lua_State *L, const rs_sandbox *sandbox)
{
  lua_pushcfunction(L, close_all);
  lua_pushlightuserdata(L, (void *) (uintptr_t) sandbox);
  lua_call(L, 1, 0);
}

/* ------------------------------------------------------------------ public */

/* [-1, +0, m]  Remember the value on top as 'which'. */
static void
remember (lua_State *L, int which)
{
  lua_rawseti(L, MEMORY, which);
}

static int
open_all (lua_State *L)
{
  static const struct { const char *name; int which; } libraries[] = {
    { LUA_IOLIBNAME, IO }, { LUA_OSLIBNAME, OS },
    { LUA_LOADLIBNAME, MODULES }, { LUA_DBLIBNAME, DEBUG },
  };
  lua_createtable(L, LAST, 0);
  lua_pushglobaltable(L);
  remember(L, GLOBALS);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
    lua_getfield(L, MEMORY + 1, libraries[i].name);
    remember(L, libraries[i].which);
  }
  lua_rawgeti(L, MEMORY, MODULES);
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "searchers");  /* preloads are the first */
    for (int i = 2; i <= 4; i++) {
      lua_rawgeti(L, -1, i);
      remember(L, LUA_FILES + i - 2);
    }
  }
  lua_settop(L, MEMORY);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &memory_key);
  return 0;
}

void
rs_sandbox_open (lua_State *L, const rs_sandbox *sandbox)
{
  lua_pushcfunction(L, open_all);
  lua_call(L, 0, 0);
  if (sandbox != NULL)
    hold(L, sandbox);
}

void
rs_sandbox_close (lua_State *L, const rs_sandbox *sandbox)
{
  hold(L, sandbox);
  lua_pushnil(L);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &memory_key);
}
