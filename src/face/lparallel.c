/* SPDX-License-Identifier: MIT */
/*
 * lparallel.c - the module 'parallel': its C part ("core"), which only the Lua
 * part can reach, and the loader of the Lua part.
 *
 * In the host the module is what 'parallel/init.lua' returns.  In a runspace,
 * where most jobs use nothing but 'parallel.task', the module is a table with
 * 'task' alone; it is filled when another name is first looked up.  So opening
 * a runspace stays as cheap as opening a state.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* isatty, RTLD_DEFAULT */
#endif
#include "lparallel.h"

#include <string.h>

#include <dlfcn.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/escape.h"
#include "base/level.h"
#include "face/lbatch.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lfinish.h"
#include "face/lhandle.h"
#include "face/ljob.h"
#include "face/ljournal.h"
#include "face/loptions.h"
#include "face/lpool.h"
#include "face/lremedy.h"
#include "face/lstanding.h"
#include "face/ltask.h"
#include "face/lua_files.h"

/* -------------------------------------------------------------- the C part */

/* core.cpus() -> number of CPUs that the process may use */
static int
cpus (lua_State *L)
{
  rs_handle_most(L, 0, 0, "parallel.cpus()");
  lua_pushinteger(L, (lua_Integer) rs_cpus());
  return 1;
}

/* core.workers() -> most workers that the default pool has */
static int
workers (lua_State *L)
{
  lua_pushinteger(L, (lua_Integer) rs_parallel_workers(L));
  return 1;
}

/* core.now() -> seconds on the monotonic clock */
static int
now (lua_State *L)
{
  rs_handle_most(L, 0, 0, "parallel.now()");
  lua_pushnumber(L, rs_now());
  return 1;
}

/* core.table(n) -> a table with room for n items */
static int
table (lua_State *L)
{
  const lua_Integer n = luaL_checkinteger(L, 1);
  lua_createtable(L, n > 0 && n < 1 << 26 ? (int) n : 0, 1);
  return 1;
}

/* core.in_runspace() -> boolean */
static int
in_runspace (lua_State *L)
{
  lua_pushboolean(L, rs_pool_current(L) != NULL);
  return 1;
}

/* core.is_job(value) -> boolean */
static int
is_job (lua_State *L)
{
  lua_pushboolean(L, rs_handle_test(L, 1, RS_JOB_TYPE) != NULL);
  return 1;
}

/* core.is_pool(value) -> boolean */
static int
is_pool (lua_State *L)
{
  lua_pushboolean(L, rs_handle_test(L, 1, RS_POOL_TYPE) != NULL);
  return 1;
}

/* core.misuse(message)  Raise the message behind the position of the code that
   called into the module. */
static int
misuse (lua_State *L)
{
  return rs_handle_error(L, "%s", luaL_checkstring(L, 1));
}

/* core.complain(message)  Raise a message about no misuse, such as a name that
   is taken or a time that is over: with the position only where Lua's 'error'
   with a level would find it. */
static int
complain (lua_State *L)
{
  return rs_handle_error_near(L, luaL_checkstring(L, 1));
}

/* core.position() -> "scan.lua:12: ", where the script has called into the
   module, or "" */
static int
position (lua_State *L)
{
  rs_handle_position(L);
  return 1;
}

/* [-0, +0, -]  Tell whether the function at 'level' is one in C, and the value
   at 'index'. */
static bool
stands_at (lua_State *L, int level, int index)
{
  lua_Debug ar;
  if (!lua_getstack(L, level, &ar))
    return false;
  lua_getinfo(L, "f", &ar);
  const bool same = lua_iscfunction(L, -1) && lua_rawequal(L, -1, index);
  lua_pop(L, 1);
  return same;
}

/*
 * core.uncaught(tostring, error, assert) -> traceback | nil
 *
 * In a '__tostring' that a message handler in C has called, as that of 'lua'
 * is: the traceback of the script, without this module.  The error on its way
 * is raised by 'error' or 'assert' then, which call nothing else.
 */
static int
uncaught (lua_State *L)
{
  enum { TOSTRING = 1, ERROR, ASSERT };
  enum { HANDLER = 2, RAISED };  /* levels; 0 is this function */
  lua_Debug ar;
  lua_settop(L, ASSERT);
  if (rs_pool_current(L) != NULL || !lua_getstack(L, HANDLER, &ar))
    return 0;
  lua_getinfo(L, "S", &ar);
  if (*ar.what != 'C' || stands_at(L, HANDLER, TOSTRING)
      || (!stands_at(L, RAISED, ERROR) && !stands_at(L, RAISED, ASSERT)))
    return 0;
  rs_level_traceback(L, NULL, RAISED, true);
  return 1;
}

/* core.refusal(value) -> why the value cannot travel, and what to do instead,
   where that is known; nil, if it can */
static int
refusal (lua_State *L)
{
  rs_error err;
  rs_message *message;
  luaL_checkany(L, 1);
  lua_settop(L, 1);
  if (rs_encode(L, 1, &message, &err) != RS_OK) {
    lua_pushstring(L, err.text);
    lua_pushstring(L, rs_remedy(err.text));
    return 2;
  }
  rs_message_unref(message);
  return 0;
}

/* core.escape(text) -> the text, on one line, as 'rs_escape' has it */
static int
escape (lua_State *L)
{
  size_t size;
  const char *const text = luaL_checklstring(L, 1, &size);
  const size_t room = rs_escape(text, size, NULL, 0) + 1;
  lua_settop(L, 1);
  if (room == size + 1)
    return 1;
  luaL_Buffer b;
  rs_escape(text, size, luaL_buffinitsize(L, &b, room), room);
  luaL_pushresultsize(&b, room - 1);
  return 1;
}

/* core.clean(text) -> the text as it is quoted in a message: as 'rs_escape'
   has it, and short */
static int
clean (lua_State *L)
{
  size_t size;
  const char *const text = luaL_checklstring(L, 1, &size);
  rs_handle_clean(L, text, size);
  return 1;
}

/* core.raise(value)  Raise the value as it is. */
static int
raise (lua_State *L)
{
  lua_settop(L, 1);
  return lua_error(L);
}

/* A public function of the module.  Upvalues: the function that checks the
   arguments; the function that acts, which gets the results of the first.  An
   error of the first is raised again here, in C, so that a traceback of it has
   no frame of the module's Lua part. */
static int
call_public (lua_State *L)
{
  const int n = lua_gettop(L);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  if (lua_pcall(L, n, LUA_MULTRET, 0) != LUA_OK)
    return lua_error(L);
  rs_level_room(L, 1, NULL);
  lua_pushvalue(L, lua_upvalueindex(2));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* core.public(look, act) -> function: 'call_public' with these upvalues */
static int
public (lua_State *L)
{
  lua_settop(L, 2);
  lua_pushcclosure(L, call_public, 2);
  return 1;
}

/* core.write(1 or 2, text)  Write the text to standard output or error in one
   piece, above the status line. */
static int
write_line (lua_State *L)
{
  size_t size;
  const char *const text = luaL_checklstring(L, 2, &size);
  rs_console_write((int) luaL_checkinteger(L, 1), text, size);
  return 0;
}

/* core.status([text])  Show the text as the last line of the terminal, or
   remove that line. */
static int
status (lua_State *L)
{
  rs_console_status(luaL_optstring(L, 1, NULL));
  return 0;
}

/* core.is_terminal(descriptor) -> boolean */
static int
is_terminal (lua_State *L)
{
  lua_pushboolean(L, isatty((int) luaL_checkinteger(L, 1)));
  return 1;
}

/* core.terminal_width([descriptor]) -> columns of the terminal, or nil */
static int
terminal_width (lua_State *L)
{
  struct winsize size;
  const int fd = (int) luaL_optinteger(L, 1, 2);
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    lua_pushinteger(L, size.ws_col);
  else
    lua_pushnil(L);
  return 1;
}

static int
free_message (lua_State *L)
{
  rs_message **const box = luaL_checkudata(L, 1, "parallel.message");
  rs_message_unref(*box);
  *box = NULL;
  return 0;
}

/* core.copy(...) -> copies of the values, encoded and decoded */
static int
copy (lua_State *L)
{
  static const luaL_Reg meta[] = { { "__gc", free_message }, { NULL, NULL } };
  const int n = lua_gettop(L);
  rs_error err;
  rs_message **const box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  rs_push_type(L, "parallel.message", meta);
  lua_setmetatable(L, -2);
  lua_insert(L, 1);
  if (rs_encode(L, n, box, &err) != RS_OK)
    return rs_handle_raise(L, &err);
  lua_settop(L, 1);
  const int results = rs_decode(L, *box);
  rs_message_unref(*box);
  *box = NULL;
  return results;
}

/* [-0, +1, m]  Push 'name' in capitals, whatever the locale is. */
static void
push_capitals (lua_State *L, const char *name)
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (const char *p = name; *p != '\0'; p++)
    luaL_addchar(&b, *p >= 'a' && *p <= 'z' ? (char) (*p - 'a' + 'A') : *p);
  luaL_pushresult(&b);
}

/* [-0, +0, m]  Set in the table on top what runspace.h has names and numbers
   of: the streams, by number from 1, and their names in capitals; and the bits
   of RS_LISTEN_. */
static void
set_names (lua_State *L)
{
  lua_createtable(L, RS_STREAM_EVENT, 0);
  lua_createtable(L, 0, RS_STREAM_EVENT);
  for (int i = 0; i < RS_STREAM_EVENT; i++) {
    const char *const name = rs_stream_name((rs_stream) i);
    lua_pushstring(L, name);
    lua_rawseti(L, -3, i + 1);
    push_capitals(L, name);
    lua_setfield(L, -2, name);
  }
  lua_setfield(L, -3, "stream_labels");
  lua_setfield(L, -2, "streams");
  lua_createtable(L, 0, 4);
  lua_pushinteger(L, RS_LISTEN_STARTED);
  lua_setfield(L, -2, "started");
  lua_pushinteger(L, RS_LISTEN_FINISHED);
  lua_setfield(L, -2, "finished");
  lua_pushinteger(L, RS_LISTEN_WAKE);
  lua_setfield(L, -2, "wake");
  lua_pushinteger(L, RS_LISTEN_OWN);
  lua_setfield(L, -2, "own");
  lua_setfield(L, -2, "listen_bits");
}

static int open_lazily (lua_State *L);

static int
open_core (lua_State *L)
{
  static const luaL_Reg functions[] = {
    { "adapts", rs_lua_adapts },
    { "batch", rs_lua_batch },
    { "clean", clean },
    { "complain", complain },
    { "code_of", rs_lua_code_of },
    { "copy", copy },
    { "cpus", cpus },
    { "default_pool", rs_lua_default_pool },
    { "digest", rs_lua_digest },
    { "escape", escape },
    { "everywhere", rs_lua_everywhere },
    { "expected", rs_lua_expected },
    { "refusal", refusal },
    { "left", rs_lua_left },
    { "count_unseen", rs_lua_count_unseen },
    { "fileno", rs_lua_fileno },
    { "help", rs_lua_help },
    { "in_runspace", in_runspace },
    { "initial_state", rs_lua_initial_state },
    { "interrupted", rs_lua_interrupted },
    { "is_job", is_job },
    { "is_pool", is_pool },
    { "is_terminal", is_terminal },
    { "jobs", rs_lua_jobs },
    { "journal", rs_lua_journal },
    { "listen", rs_lua_listen },
    { "misuse", misuse },
    { "now", now },
    { "poll", rs_lua_poll },
    { "position", position },
    { "pool", rs_lua_pool },
    { "pools", rs_lua_pools },
    { "public", public },
    { "raise", raise },
    { "run_guard", rs_lua_run_guard },
    { "serial", rs_lua_serial },
    { "status", status },
    { "table", table },
    { "terminal_width", terminal_width },
    { "uncaught", uncaught },
    { "unseen", rs_lua_unseen },
    { "upvalue", rs_lua_upvalue },
    { "wait", rs_lua_wait },
    { "wait_guard", rs_lua_wait_guard },
    { "workers", workers },
    { "write", write_line },
    { NULL, NULL }
  };
  static const luaL_Reg of_pools[] = {
    { "run", rs_lua_run },
    { "spawn", rs_lua_spawn },
    { NULL, NULL }
  };
  rs_face *const face = rs_lua_face(L);  /* made first, so finalized last */
  rs_lua_events_of(L, face);
  face->open = open_lazily;
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, face);
  luaL_setfuncs(L, of_pools, 1);
  lua_pushstring(L, rs_version());
  lua_setfield(L, -2, "version");
  set_names(L);
  rs_set_options(L);
  rs_open_pool_type(L);
  lua_setfield(L, -2, "pool_methods");
  rs_open_job_type(L);
  lua_setfield(L, -2, "job_methods");
  rs_open_batch_type(L);
  lua_pop(L, 1);
  rs_open_initial_state_type(L);
  lua_pop(L, 1);
  rs_open_standing_type(L);
  lua_pop(L, 1);
  rs_open_journal_type(L);
  lua_pop(L, 1);
  return 1;
}

/* ------------------------------------------------------------ the Lua part */

/* Key in the registry, by address: the C part, made when it is first needed.
   The Lua part alone gets the C part, since the functions of the C part do not
   check all of their arguments.  Scripts reach the methods of handles, which
   have to. */
static const char core_key;

/* [-0, +1, m]  Push the C part. */
static void
push_core (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &core_key) != LUA_TNIL)
    return;
  lua_pop(L, 1);
  lua_pushcfunction(L, open_core);
  lua_call(L, 0, 1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &core_key);
}

/* Key in the registry, by address: the functions and libraries of Lua as they
   were when the host opened the module. */
static const char globals_key;

/* [-0, +0, m]  Keep the functions and libraries of Lua that are globals now.
   Files are loaded when they are first needed; a script that has set 'pairs'
   or 'setmetatable' to nil by then does no harm. */
static void
keep_globals (lua_State *L)
{
  const int top = lua_gettop(L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &globals_key) == LUA_TTABLE) {
    lua_settop(L, top);
    return;
  }
  lua_createtable(L, 0, 40);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushglobaltable(L);
  const int kept = top + 2, loaded = kept + 1, globals = kept + 2;
  lua_pushnil(L);
  while (lua_next(L, globals)) {
    lua_pushvalue(L, -2);
    lua_rawget(L, loaded);
    const bool library = lua_istable(L, -1) && lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (library || lua_iscfunction(L, -1)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, kept);
    }
    else
      lua_pop(L, 1);
  }
  lua_settop(L, kept);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &globals_key);
  lua_settop(L, top);
}

/*
 * Loader of an embedded file, which is the upvalue: (name, ...) -> module.
 * The file gets its name and the C part as arguments.  A file runs once in a
 * state, and the registry keeps its result under the address of the file.  So
 * a test runner that clears 'package.loaded' and requires the module again
 * gets the same one.  Otherwise it would have a new module beside the old one,
 * whose methods the handles keep.
 */
static int
load_file (lua_State *L)
{
  luaL_checktype(L, lua_upvalueindex(1), LUA_TLIGHTUSERDATA);
  const rs_lua_file *const file = lua_touserdata(L, lua_upvalueindex(1));
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, file) != LUA_TNIL)
    return 1;
  if (luaL_loadbufferx(L, file->source, file->size, file->chunkname, "t")
      != LUA_OK)
    return lua_error(L);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &globals_key) != LUA_TTABLE
      || lua_setupvalue(L, -2, 1) == NULL)  /* its environment */
    lua_pop(L, 1);
  lua_pushstring(L, file->module);
  push_core(L);
  lua_call(L, 2, 1);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, file);
  return 1;
}

/* [-0, +1, m]  Push the loader of an embedded file. */
static void
push_loader (lua_State *L, const rs_lua_file *file)
{
  lua_pushlightuserdata(L, (void *) (uintptr_t) file);
  lua_pushcclosure(L, load_file, 1);
}

/* [-0, +0, m]  Let 'require' find the embedded files. */
static void
preload (lua_State *L)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  for (const rs_lua_file *file = rs_lua_files; file->module != NULL; file++) {
    push_loader(L, file);
    lua_setfield(L, -2, file->module);
  }
  lua_pop(L, 1);
}

/* [-0, +0, m]  Let 'require' find the module again when a script has cleared
   'package.loaded'. */
static void
preload_module (lua_State *L)
{
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, luaopen_parallel);
  lua_setfield(L, -2, "parallel");
  lua_pop(L, 1);
}

/* Key in the registry, by address: the module, once it is loaded whole. */
static const char module_key;

/* [-0, +1, m]  Push the module.  'parallel.init', the name of its file, is
   removed from 'package.loaded', so that messages and tracebacks call each
   function by one name, "parallel.map". */
static void
push_module (lua_State *L)
{
  static const char file[] = "parallel.init";
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &module_key) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  rs_lua_require(L, file);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &module_key);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_pushnil(L);
  lua_setfield(L, -2, file);
  lua_pop(L, 1);
}

/* ----------------------------------------------- the engine of the process */

/*
 * Two engines in a process do not know of each other: one cannot stop the jobs
 * of the other, nor give them 'parallel.task'.  So a 'parallel.so' that is
 * loaded into a process with an engine (that of the program, of librunspace,
 * or of the module that opened this state) opens the module of that engine.
 * Engines of all versions find each other by the symbol ENGINE_NAME.  Its
 * number changes when the struct does.
 */
typedef struct rs_engine {
  size_t size;          /* bytes of this struct */
  const char *version;  /* RS_VERSION */
  lua_CFunction open;   /* luaopen_parallel */
} rs_engine;

#define ENGINE_NAME "rs_engine_1"
#define ENGINE_KEY "runspace.engine_1"  /* registry key: the engine */

extern RS_API const rs_engine rs_engine_1;

const rs_engine rs_engine_1 = {
  sizeof(rs_engine), RS_VERSION, luaopen_parallel
};

/* [-0, +0, -]  Return the engine that was in the process before this one, or
   NULL. */
static const rs_engine *
find_engine (lua_State *L)
{
  const rs_engine *engine = NULL;
  if (lua_getfield(L, LUA_REGISTRYINDEX, ENGINE_KEY) == LUA_TLIGHTUSERDATA)
    engine = lua_touserdata(L, -1);
  lua_pop(L, 1);
  if (engine == NULL)
    engine = dlsym(RTLD_DEFAULT, ENGINE_NAME);
  if (engine == NULL) {  /* not global: loaded by another library, locally? */
    void *const library = dlopen("librunspace.so.0", RTLD_LAZY | RTLD_NOLOAD);
    if (library != NULL) {
      engine = dlsym(library, ENGINE_NAME);
      dlclose(library);  /* the library is linked to stay (nodelete) */
    }
  }
  return engine != &rs_engine_1 ? engine : NULL;
}

/* [-0, +0, m]  Note that 'L' has its module from this engine. */
static void
note_engine (lua_State *L)
{
  lua_pushlightuserdata(L, (void *) (uintptr_t) &rs_engine_1);
  lua_setfield(L, LUA_REGISTRYINDEX, ENGINE_KEY);
}

int
luaopen_parallel (lua_State *L)
{
  const rs_engine *const other = find_engine(L);
  if (other != NULL)
    return other->open(L);
  note_engine(L);
  keep_globals(L);
  preload(L);
  preload_module(L);
  push_module(L);
  rs_push_task(L);
  lua_setfield(L, -2, "task");
  return 1;
}

/* ----------------------------------------------------------- in a runspace */

/* __index of a module that is not loaded yet: (module, name).  The module gets
   its contents after all of it is loaded, since the job may be stopped while
   it loads. */
static int
load_lazily (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  static const char *const needed[] = { "package", "table", "string", "math" };
  lua_settop(L, 2);
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
    if (lua_getfield(L, 3, needed[i]) == LUA_TNIL)
      return rs_handle_error(L, "the module 'parallel' needs the library '%s':"
                                " name it in 'libs'", needed[i]);
  }
  lua_settop(L, 2);
  push_module(L);
  lua_pushnil(L);
  while (lua_next(L, 3)) {  /* copy the loaded module into this table */
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, 1);
  }
  if (lua_getmetatable(L, 3))
    lua_setmetatable(L, 1);
  lua_settop(L, 2);
  lua_gettable(L, 1);
  return 1;
}

/* __pairs of a module that is not loaded yet: (module) */
static int
pairs_lazily (lua_State *L)
{
  lua_settop(L, 1);
  lua_getfield(L, 1, "version");  /* loads the module */
  lua_settop(L, 1);
  if (luaL_getmetafield(L, 1, "__pairs") == LUA_TNIL)
    return luaL_error(L, "the module 'parallel' is not whole");
  lua_insert(L, 1);
  lua_call(L, 1, 3);
  return 3;
}

/* __index of 'package.preload': (table, name) */
static int
find_loader (lua_State *L)
{
  const char *const name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2)
                                                         : "";
  const rs_lua_file *file = rs_lua_files;
  while (file->module != NULL && strcmp(file->module, name) != 0)
    file++;
  if (file->module != NULL)
    push_loader(L, file);
  else
    lua_pushnil(L);
  return 1;
}

/* [-1, +1, m]  Give the table on top a new metatable, whose '__index' is
   'index'. */
static void
set_index (lua_State *L, lua_CFunction index)
{
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, index);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
}

/* Open the module in a runspace.  Loaders of embedded files are made when
   'package.preload' is asked for them: most runspaces never ask, and to store
   all loaders would take a tenth of the time in which a runspace opens. */
static int
open_lazily (lua_State *L)
{
  note_engine(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  set_index(L, find_loader);
  lua_createtable(L, 0, 4);
  rs_push_task(L);
  lua_setfield(L, -2, "task");
  set_index(L, load_lazily);
  lua_getmetatable(L, -1);
  lua_pushcfunction(L, pairs_lazily);
  lua_setfield(L, -2, "__pairs");
  lua_pop(L, 1);
  return 1;
}

/* Function with which the engine opens the module in each runspace
   (initial_state.h). */
extern const lua_CFunction rs_own_module;

const lua_CFunction rs_own_module = open_lazily;
