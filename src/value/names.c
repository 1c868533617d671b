/* SPDX-License-Identifier: MIT */
/*
 * names.c - what the marshaller knows of a state.
 *
 * A name is looked up while a table is walked, so the search allocates nothing
 * in the Lua state, and calls none of its code.  Therefore no table of names
 * is kept: the search goes through the loaded modules themselves, and the
 * encoder remembers by address where an object was found.  An address alone
 * proves nothing, since the object may be gone and another one in its place;
 * the search that yields the name is the proof.
 */
#include "value/names.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/defer.h"
#include "base/escape.h"
#include "base/finalize.h"
#include "base/fork.h"
#include "runspace.h"
#include "base/level.h"

/* ------------------------------------------------------- kept in a state */

/* Key in the registry, by address. */
static const char home_key = 0;

typedef struct in_state {
  const void *proof;   /* the address of 'home_key'; see 'rs_home_is' */
  const void *holder;  /* address of user value RS_HOME_HOLDER */
  const void *env;     /* address of user value RS_HOME_ENV, or NULL */
  rs_names fields;     /* modules, and tables in their fields; see 'look' */
  uint64_t modules;    /* the number of 'name_modules' for 'fields' */
  bool closed;         /* the state is being closed: no tables are kept any
                          more */
} in_state;

/* [-0, +0, -]  __gc of the userdata. */
static int
forget_fields (lua_State *L)
{
  in_state *const h = rs_finalized(L, forget_fields);
  if (h != NULL) {
    rs_names_fini(&h->fields);
    h->closed = true;
  }
  return 0;
}

/* [-0, +1, m]  Push the 'require' of the globals, or what is no function. */
static void
push_require (lua_State *L)
{
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS) != LUA_TTABLE)
    return;
  lua_pushliteral(L, "require");
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (lua_type(L, -1) != LUA_TFUNCTION) {  /* no package library yet? */
    lua_pop(L, 1);
    lua_pushnil(L);
  }
}

/*
 * The environment is a local variable of a coroutine that never goes on; all
 * functions share that variable as their upvalue.  A variable of a function
 * that has returned would do, too, but is costly: Lua takes a value for old at
 * once when it is assigned to such a variable that is old itself
 * (luaC_barrier_).  So no environment, nor any value in it, was freed before
 * the next major collection, and a job that assigned a global took a quarter
 * longer.
 */
static const char variable[] =
  "local yield, _ENV = ...  yield(function () return _ENV end)";

/* The number of '_ENV' among the local variables of the chunk. */
enum { VARIABLE = 2 };

/* The bytecode of the chunk, without debug information, compiled once for the
   process: to open a state takes a tenth less. */
static struct {
  pthread_mutex_t lock;  /* held by the thread that compiles */
  _Atomic size_t size;   /* bytes of 'code'; 0: not compiled yet; the release
                            store publishes 'code' to threads that load
                            states */
  char code[512];
} compiled = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Free the lock in a child: the thread that held it is not there. */
static void
begin_child (void)
{
  pthread_mutex_init(&compiled.lock, NULL);
}

RS_IN_CHILD(begin_child)

/* Append a part of the bytecode (lua_Writer); fails when there is no room. */
static int
append (lua_State *L, const void *data, size_t size, void *ud)
{
  size_t *const used = ud;
  (void) L;
  if (size > sizeof compiled.code - *used)
    return 1;
  memcpy(compiled.code + *used, data, size);
  *used += size;
  return 0;
}

/* [-0, +0, -]  Keep the bytecode of the chunk on top, unless it is kept
   already. */
static void
keep_compiled (lua_State *L)
{
  size_t size = 0;
  pthread_mutex_lock(&compiled.lock);
  if (atomic_load_explicit(&compiled.size, memory_order_relaxed) == 0
      && lua_dump(L, append, &size, 1) == 0)
    atomic_store_explicit(&compiled.size, size, memory_order_release);
  pthread_mutex_unlock(&compiled.lock);
}

/* [-0, +1, -]  Push the chunk, or an error.  Returns Lua's status. */
static int
load_variable (lua_State *L)
{
  const size_t size = atomic_load_explicit(&compiled.size,
                                           memory_order_acquire);
  if (size > 0)
    return luaL_loadbufferx(L, compiled.code, size, "=environment", "b");
  const int status = luaL_loadbufferx(L, variable, sizeof variable - 1,
                                      "=environment", "t");
  if (status == LUA_OK)
    keep_compiled(L);
  return status;
}

static int
yield_all (lua_State *L)
{
  return lua_yield(L, lua_gettop(L));
}

/* [-0, +2, e]  Push a function whose upvalue is the variable, and the
   coroutine that has the variable. */
static void
push_variable (lua_State *L)
{
  int n;
  lua_State *const co = lua_newthread(L);
  lua_sethook(co, NULL, 0, 0);  /* drop an inherited hook, which might yield */
  int status = load_variable(co);
  if (status == LUA_OK) {
    lua_pushcfunction(co, yield_all);
    status = lua_resume(co, L, 1, &n);
  }
  lua_xmove(co, L, 1);
  if (status != LUA_YIELD)
    lua_error(L);
  lua_insert(L, -2);
}

bool
rs_home_is (lua_State *L, int index)
{
  if (lua_type(L, index) != LUA_TUSERDATA
      || lua_rawlen(L, index) != sizeof(in_state))
    return false;
  const in_state *const h = lua_touserdata(L, index);
  return h->proof == &home_key;
}

/* [-1, +0, -]  Assign the value on top to the variable, unless a script has
   taken the coroutine out of the userdata at 'home'. */
static void
set_variable (lua_State *L, int home)
{
  lua_Debug ar;
  const bool there = lua_getiuservalue(L, home, RS_HOME_HOLDER) == LUA_TTHREAD;
  lua_State *const co = lua_tothread(L, -1);
  const in_state *const h = lua_touserdata(L, home);
  lua_pop(L, 1);
  if (!there || co != h->holder || !lua_checkstack(co, 1)
      || !lua_getstack(co, 1, &ar)) {
    lua_pop(L, 1);
    return;
  }
  lua_xmove(L, co, 1);
  if (lua_setlocal(co, &ar, VARIABLE) == NULL)
    lua_pop(co, 1);
}

/* [-0, +1, m]  Make the userdata, and push it. */
static int
make_home (lua_State *L)
{
  in_state *const h = lua_newuserdatauv(L, sizeof *h, RS_HOME_VALUES);
  *h = (in_state) { .proof = &home_key };
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, forget_fields);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_pushliteral(L, "__transfer");
  lua_setiuservalue(L, -2, RS_HOME_TRANSFER);
  lua_pushliteral(L, "__name");
  lua_setiuservalue(L, -2, RS_HOME_NAME);
  lua_pushliteral(L, "__index");
  lua_setiuservalue(L, -2, RS_HOME_INDEX);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_setiuservalue(L, -2, RS_HOME_LOADED);
  push_variable(L);
  h->holder = lua_topointer(L, -1);
  lua_setiuservalue(L, -3, RS_HOME_HOLDER);
  lua_setiuservalue(L, -2, RS_HOME_ANCHOR);
  lua_pushglobaltable(L);
  set_variable(L, lua_gettop(L) - 1);
  push_require(L);
  lua_setiuservalue(L, -2, RS_HOME_REQUIRE);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &home_key);
  return 1;
}

void
rs_home_push (lua_State *L)
{
  rs_level_room(L, 6, "message");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &home_key);
  if (!rs_home_is(L, -1)) {
    lua_pop(L, 1);
    make_home(L);
  }
}

/* (light userdata: progress)  Make the home. */
static int
prepare_home (lua_State *L)
{
  rs_progress *const progress = lua_touserdata(L, 1);
  *progress = RS_BEGUN;
  make_home(L);
  *progress = RS_DONE;
  return 0;
}

bool
rs_home_try_push (lua_State *L)
{
  rs_progress progress = RS_NOT_BEGUN;
  lua_rawgetp(L, LUA_REGISTRYINDEX, &home_key);
  if (rs_home_is(L, -1))
    return true;
  lua_pop(L, 1);
  if (rs_defer_call(L, prepare_home, &progress, 0, &progress) == LUA_OK)
    return lua_rawgetp(L, LUA_REGISTRYINDEX, &home_key) == LUA_TUSERDATA;
  lua_pop(L, 1);
  return false;
}

const void *
rs_home_env (lua_State *L, int index)
{
  const in_state *const h = lua_touserdata(L, index);
  return h->env;
}

void
rs_home_set_env (lua_State *L, int home)
{
  in_state *const h = lua_touserdata(L, home);
  h->env = lua_topointer(L, -1);
  lua_pushvalue(L, -1);
  set_variable(L, home);
  lua_setiuservalue(L, home, RS_HOME_ENV);
}

bool
rs_home_restore_env (lua_State *L, int home)
{
  const in_state *const h = lua_touserdata(L, home);
  const int top = lua_gettop(L);
  lua_getiuservalue(L, home, RS_HOME_ANCHOR);
  lua_getupvalue(L, top + 1, 1);
  bool good = lua_topointer(L, -1) == h->env;
  if (!good) {
    good = lua_getiuservalue(L, home, RS_HOME_ENV) == LUA_TTABLE
        && lua_topointer(L, -1) == h->env;
    set_variable(L, home);
    good = good && lua_getupvalue(L, top + 1, 1) != NULL
        && lua_topointer(L, -1) == h->env;
  }
  lua_settop(L, top);
  return good;
}

void
rs_env_set (lua_State *L)
{
  rs_home_push(L);
  lua_insert(L, -2);
  rs_home_set_env(L, lua_gettop(L) - 1);
  lua_pop(L, 1);
}

void
rs_env_push (lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, &home_key);
  if (rs_home_is(L, -1)) {
    const int type = lua_getiuservalue(L, -1, RS_HOME_ENV);
    lua_remove(L, -2);
    if (type == LUA_TTABLE)
      return;
  }
  lua_pop(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

void
rs_env_join_upvalue (lua_State *L, int i)
{
  rs_home_push(L);
  if (lua_getiuservalue(L, -1, RS_HOME_ANCHOR) != LUA_TFUNCTION
      || lua_iscfunction(L, -1) || lua_getupvalue(L, -1, 1) == NULL)
    luaL_error(L, "what the registry of this state had was replaced");
  lua_pop(L, 1);
  lua_upvaluejoin(L, -3, i, -1, 1);   /* stack: function, userdata, anchor */
  lua_pop(L, 2);
}

/* The key in the registry, by address, of the table of what was collected. */
static const char given_key;

/* A thread runs one state at a time. */
static _Thread_local struct {
  bool collects;
  bool any;      /* something was given */
} given;

void
rs_env_collect (bool collect)
{
  given.collects = collect;
  given.any = false;
}

/* [-2, +0, m]  Collect the value on top under the name below it. */
static void
collect (lua_State *L, bool plain)
{
  const int name = lua_gettop(L) - 1;
  if (!given.any) {
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &given_key);
  }
  given.any = true;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &given_key) == LUA_TTABLE) {
    if (!plain) {
      lua_pushboolean(L, false);
      lua_rawseti(L, name + 2, 1);
    }
    lua_pushvalue(L, name);
    if (lua_rawget(L, name + 2) == LUA_TNIL) {
      lua_pushvalue(L, name);
      lua_pushvalue(L, name + 1);
      lua_rawset(L, name + 2);
    }
  }
  lua_settop(L, name - 1);
}

void
rs_env_give (lua_State *L, bool plain)
{
  if (given.collects) {
    collect(L, plain);
    return;
  }
  const int name = lua_gettop(L) - 1;
  given.any = true;
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  rs_env_push(L);
  bool free = lua_istable(L, name + 2);
  for (int i = name + 2; free && i <= name + 3; i++) {
    lua_pushvalue(L, name);
    free = lua_rawget(L, i) == LUA_TNIL;
    lua_settop(L, name + 3);
  }
  if (free) {
    lua_pushvalue(L, name);
    lua_pushvalue(L, name + 1);
    lua_rawset(L, name + 3);
  }
  lua_settop(L, name - 1);
}

bool
rs_env_is_given (void)
{
  return given.any;
}

void
rs_env_push_given (lua_State *L)
{
  if (!given.any || !given.collects)
    lua_pushnil(L);
  else if (lua_rawgetp(L, LUA_REGISTRYINDEX, &given_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
  given.any = false;
}

void
rs_env_give_all (lua_State *L)
{
  lua_rawsetp(L, LUA_REGISTRYINDEX, &given_key);
  given.any = true;
}

void
rs_env_join (lua_State *L)
{
  rs_env_join_upvalue(L, 1);
}

/* ------------------------------------------------- remembered by address */

void
rs_names_fini (rs_names *n)
{
  free(n->known);
  *n = (rs_names) { .known = NULL };
}

void
rs_names_clear (rs_names *n)
{
  if (n->count > 0)
    memset(n->known, 0, n->room * sizeof *n->known);
  n->count = 0;
  n->checked = false;
}

static bool
remember (rs_names *n, const void *object, const void *module)
{
  if ((n->count + 1) * 2 > n->room) {
    const size_t room = n->room == 0 ? 128 : n->room * 2;
    rs_known *const known = calloc(room, sizeof *known);
    if (known == NULL)
      return false;
    for (size_t i = 0; i < n->room; i++)
      if (n->known[i].object != NULL)
        *rs_known_slot(known, room, n->known[i].object) = n->known[i];
    free(n->known);
    n->known = known;
    n->room = room;
  }
  rs_known *const slot = rs_known_slot(n->known, n->room, object);
  n->count += slot->object == NULL;
  slot->object = object;
  slot->module = module;
  return true;
}

/* A table with more fields than these has data: tables in its fields have no
   names. */
enum { FIELDS_MAX = 1024, SUB_FIELDS_NAMED = 256 };

/* [-0, +0, -]  Remember the tables in the fields of the table on top, 'levels'
   deep, unless it has too many fields.  False when out of memory. */
static bool
remember_fields (rs_names *n, lua_State *L, const void *module, int levels)
{
  const int table = lua_gettop(L);
  const int most = levels == 2 ? FIELDS_MAX : SUB_FIELDS_NAMED;
  int fields = 0;
  bool ok = true;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    lua_pop(L, 1);
    if (++fields > most) {
      lua_settop(L, table);
      return true;
    }
  }
  lua_pushnil(L);
  while (ok && lua_next(L, table)) {
    const void *const object = lua_topointer(L, -1);
    if (lua_type(L, -1) == LUA_TTABLE && lua_type(L, -2) == LUA_TSTRING
        && (n->count == 0
            || rs_known_slot(n->known, n->room, object)->object == NULL)) {
      ok = remember(n, object, module)
        && (levels == 1 || remember_fields(n, L, module, levels - 1));
    }
    lua_pop(L, 1);
  }
  lua_settop(L, table);
  return ok;
}

/* [-0, +0, -]  A number that tells which modules are loaded; the table of
   modules is at 'loaded'. */
static uint64_t
name_modules (lua_State *L, int loaded)
{
  uint64_t sum = 1;  /* a sum does not depend on the order */
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    const uint64_t key = (uint64_t) (uintptr_t) lua_topointer(L, -2);
    const uint64_t value = (uint64_t) (uintptr_t) lua_topointer(L, -1);
    const uint64_t mixed =
      (key * 0x9e3779b97f4a7c15u ^ value) * 0xff51afd7ed558ccdu;
    sum += mixed ^ mixed >> 32;
    lua_pop(L, 1);
  }
  return sum;
}

/*
 * [-0, +0, -]  Note the addresses of all loaded modules, and of the tables in
 * their fields and in the fields of these, as they are now; not of globals,
 * which are the program's own.  Nothing is done if the same modules are loaded
 * as the last time, unless 'anew'.  False when out of memory.
 */
static bool
look (in_state *h, lua_State *L, int home, bool anew)
{
  const int top = lua_gettop(L);
  bool ok = !h->closed;
  if (ok && lua_getiuservalue(L, home, RS_HOME_LOADED) == LUA_TTABLE) {
    const int loaded = top + 1;
    const uint64_t modules = name_modules(L, loaded);
    anew = anew || modules != h->modules;
    if (anew)
      rs_names_clear(&h->fields);
    lua_pushnil(L);
    while (anew && ok && lua_next(L, loaded)) {
      if (lua_type(L, -1) == LUA_TTABLE) {
        const void *const module = lua_topointer(L, -1);
        ok = remember(&h->fields, module, module);
      }
      lua_pop(L, 1);
    }
    lua_settop(L, loaded);
    lua_pushnil(L);
    while (anew && ok && lua_next(L, loaded)) {
      if (lua_type(L, -1) == LUA_TTABLE && lua_type(L, -2) == LUA_TSTRING
          && strcmp(lua_tostring(L, -2), "_G") != 0)
        ok = remember_fields(&h->fields, L, lua_topointer(L, -1), 2);
      lua_pop(L, 1);
    }
    h->modules = ok ? modules : 0;
  }
  lua_settop(L, top);
  return ok || h->closed;
}

bool
rs_names_suspects (rs_names *n, lua_State *L, int home, const void *object,
                   int *status)
{
  *status = RS_OK;
  if (!n->checked) {
    in_state *const h = lua_touserdata(L, home);
    if (!look(h, L, home, n->anew)) {
      *status = RS_ENOMEM;
      return false;
    }
    n->fields = &h->fields;
    n->checked = true;
    n->anew = false;
  }
  return !rs_names_excludes(n, object);
}

/* ------------------------------------------------------------- searching */

enum { SUB_FIELDS_MAX = 4096 };  /* most fields searched in one field of a
                                    module */

typedef struct search {
  lua_State *L;
  int object;          /* stack index of the object */
  int kind;            /* RS_NAMES_ */
  const void *module;  /* search only this module; NULL: all modules */
  rs_name name;        /* name of the field searched now */
  rs_name best;
  const void *found;   /* module of 'best' */
} search;

static size_t
total (const rs_name *name)
{
  size_t size = 0;
  for (unsigned i = 0; i < name->parts; i++)
    size += name->size[i];
  return size;
}

/* True when 'a' is a better name than 'b'. */
static bool
better (const rs_name *a, const rs_name *b)
{
  if (b->parts == 0)
    return true;
  if (a->parts != b->parts)
    return a->parts < b->parts;
  if (total(a) != total(b))
    return total(a) < total(b);
  for (unsigned i = 0; i < a->parts; i++) {
    const size_t least =
      a->size[i] < b->size[i] ? a->size[i] : b->size[i];
    const int order = memcmp(a->part[i], b->part[i], least);
    if (order != 0)
      return order < 0;
    if (a->size[i] != b->size[i])
      return a->size[i] < b->size[i];
  }
  return false;
}

/* True for a function that Lua's base library, or 'package', puts in the
   globals.  Other globals are the program's own, and the receiver has none of
   them. */
static bool
is_base (const char *name)
{
  static const char *const base[] = {
    "assert", "collectgarbage", "dofile", "error", "getmetatable", "ipairs",
    "load", "loadfile", "next", "pairs", "pcall", "print", "rawequal",
    "rawget", "rawlen", "rawset", "require", "select", "setmetatable",
    "tonumber", "tostring", "type", "warn", "xpcall", NULL
  };
  for (const char *const *b = base; *b != NULL; b++)
    if (strcmp(*b, name) == 0)
      return true;
  return false;
}

/* Make the string key at 'index' part 'at' of the current name.  False when
   the key is not a string. */
static bool
take_key (search *s, unsigned at, int index)
{
  if (lua_type(s->L, index) != LUA_TSTRING)
    return false;
  s->name.part[at] = lua_tolstring(s->L, index, &s->name.size[at]);
  s->name.parts = at + 1;
  return true;
}

static void
compare (search *s, const void *module)
{
  if (lua_rawequal(s->L, -1, s->object) && better(&s->name, &s->best)) {
    s->best = s->name;
    s->found = module;
  }
}

/* [-0, +0, -]  Search the fields of the table on top; with 'deep', only the
   fields of the tables in its fields. */
static void
search_fields (search *s, const void *module, bool globals, bool deep)
{
  lua_State *const L = s->L;
  const int table = lua_gettop(L);
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (take_key(s, 1, -2) && (!globals || is_base(s->name.part[1]))) {
      if (!deep)
        compare(s, module);
      else if (lua_type(L, -1) == LUA_TTABLE) {
        const int field = lua_gettop(L);
        int n = 0;
        lua_pushnil(L);
        while (lua_next(L, field)) {
          if (take_key(s, 2, -2))
            compare(s, module);
          lua_pop(L, 1);
          if (++n == SUB_FIELDS_MAX) {
            lua_pop(L, 1);
            break;
          }
        }
      }
    }
    lua_pop(L, 1);
  }
}

/* [-0, +0, -]  Search one level of the modules: 0, the modules; 1, their
   fields; 2, the fields of these. */
static void
search_level (search *s, int loaded, unsigned level)
{
  lua_State *const L = s->L;
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    const void *const module = lua_topointer(L, -1);
    if ((s->module == NULL || s->module == module) && take_key(s, 0, -2)) {
      const bool globals = strcmp(s->name.part[0], "_G") == 0;
      if (level == 0)
        compare(s, module);
      else if (lua_type(L, -1) == LUA_TTABLE
               && (!globals || (s->kind == RS_NAMES_CFUNCTION && level == 1)))
        search_fields(s, module, globals, level == 2);
    }
    lua_pop(L, 1);
  }
}

int
rs_names_find (rs_names *n, lua_State *L, int home, int index, int kind,
               rs_name *out)
{
  const void *const object = lua_topointer(L, index);
  out->parts = 0;
  search s = { .L = L, .object = index, .kind = kind };
  const rs_names *const fields =
    &((const in_state *) lua_touserdata(L, home))->fields;
  if (n->count > 0) {
    const rs_known *const slot = rs_known_slot(n->known, n->room, object);
    if (slot->object != NULL && slot->module == NULL)
      return RS_OK;
    s.module = slot->module;
  }
  if (s.module == NULL && fields->count > 0)
    s.module = rs_known_slot(fields->known, fields->room, object)->module;
  const int top = lua_gettop(L);
  lua_getiuservalue(L, home, RS_HOME_LOADED);
  if (lua_type(L, -1) == LUA_TTABLE) {
    for (;;) {
      for (unsigned level = 0; level < 3 && s.best.parts == 0; level++)
        search_level(&s, top + 1, level);
      if (s.best.parts > 0 || s.module == NULL)
        break;
      s.module = NULL;   /* the object has moved since */
    }
  }
  lua_settop(L, top);
  if (!remember(n, object, s.found))
    return RS_ENOMEM;
  *out = s.best;
  return RS_OK;
}

/* ------------------------------------------------------------- resolving */

/* [-0, +1, m]  Push the name at 'index', escaped for an error text. */
static const char *
push_shown (lua_State *L, int index)
{
  char shown[200];
  size_t size;
  const char *const name = lua_tolstring(L, index, &size);
  rs_escape(name, size, shown, sizeof shown);
  return lua_pushstring(L, shown);
}

/* [-0, +1, e]  Push the module 'name'; require it if it is not loaded. */
static void
push_module (lua_State *L, const char *name, size_t size, const char *user)
{
  if (size == 2 && memcmp(name, "_G", 2) == 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    return;
  }
  const int base = lua_gettop(L);
  rs_home_push(L);
  if (lua_getiuservalue(L, base + 1, RS_HOME_LOADED) != LUA_TTABLE)
    luaL_error(L, "what the registry of this state had was replaced");
  lua_pushlstring(L, name, size);
  lua_pushvalue(L, -1);
  lua_rawget(L, base + 2);   /* stack: home, loaded, name, module */
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    if (lua_getiuservalue(L, base + 1, RS_HOME_REQUIRE) != LUA_TFUNCTION) {
      lua_pop(L, 1);
      push_require(L);
      lua_pushvalue(L, -1);
      lua_setiuservalue(L, base + 1, RS_HOME_REQUIRE);
    }
    if (!lua_isfunction(L, -1))
      luaL_error(L, "module '%s' is needed by %s, but there is no 'require'"
                    " here", push_shown(L, base + 3), user);
    lua_pushvalue(L, base + 3);
    bool stopped;
    const int status = rs_defer_pcall(L, 1, 1, &stopped);
    if (stopped)
      rs_defer_raise(L);
    if (status != LUA_OK) {
      if (status == LUA_ERRRUN && lua_type(L, -1) == LUA_TSTRING) {
        const char *const shown = push_shown(L, base + 3);
        lua_pushfstring(L, "module '%s' is needed by %s: %s", shown, user,
                        lua_tostring(L, -2));
      }
      lua_error(L);
    }
  }
  lua_replace(L, base + 1);
  lua_settop(L, base + 1);
}

/* (name)  Return the object of the name. */
static int
push_name (lua_State *L)
{
  const rs_name *const name = lua_touserdata(L, 1);
  rs_name_push(L, name, "a table");
  return 1;
}

/* [-0, +0, m]  True when the module of the name is loaded. */
static bool
is_loaded (lua_State *L, const rs_name *name)
{
  const int top = lua_gettop(L);
  rs_home_push(L);
  bool loaded = lua_getiuservalue(L, top + 1, RS_HOME_LOADED) == LUA_TTABLE;
  if (loaded) {
    lua_pushlstring(L, name->part[0], name->size[0]);
    loaded = lua_rawget(L, top + 2) == LUA_TTABLE;
  }
  lua_settop(L, top);
  return loaded;
}

bool
rs_name_try_push (lua_State *L, const rs_name *name, bool load)
{
  const int top = lua_gettop(L);
  rs_level_room(L, LUA_MINSTACK, "message");
  bool loaded = is_loaded(L, name);
  if (loaded || load) {
    lua_pushcfunction(L, push_name);
    lua_pushlightuserdata(L, (void *) (uintptr_t) name);
    bool stopped;
    const int status = rs_defer_pcall(L, 1, 1, &stopped);
    if (stopped)
      rs_defer_raise(L);
    if (status == LUA_ERRMEM)
      lua_error(L);
    loaded = status == LUA_OK || is_loaded(L, name);
    if (status == LUA_OK && lua_type(L, -1) == LUA_TTABLE)
      return true;
  }
  lua_settop(L, top);
  lua_pushnil(L);
  return loaded;
}

void
rs_name_push (lua_State *L, const rs_name *name, const char *user)
{
  rs_level_room(L, 8, "message");
  push_module(L, name->part[0], name->size[0], user);
  for (unsigned i = 1; i < name->parts; i++) {
    if (lua_type(L, -1) == LUA_TTABLE) {
      lua_pushlstring(L, name->part[i], name->size[i]);
      lua_rawget(L, -2);
    }
    else
      lua_pushnil(L);
    lua_remove(L, -2);
  }
  if (lua_isnil(L, -1)) {
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (unsigned i = 0; i < name->parts; i++) {
      if (i > 0)
        luaL_addchar(&b, '.');
      luaL_addlstring(&b, name->part[i], name->size[i]);
    }
    luaL_pushresult(&b);
    luaL_error(L, "'%s' is needed by %s, but is not here",
               push_shown(L, -1), user);
  }
}
