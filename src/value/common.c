/* SPDX-License-Identifier: MIT */
/*
 * common.c - tables that two states have in common.
 *
 * The message of a function brings tables along: the classes, sentinels and
 * enumerations that the function uses.  The sender knows which tables it has
 * sent, and the receiver has its own copy of each.  So items and results name
 * these tables by number, and each side takes its own.  Each side has a list:
 *
 *     { tables by number, what was in them, their metatables,
 *       numbers by table, upvalues by function, filter }
 *
 * A table that is the metatable of an object stands for a class, and is always
 * named.  Any other table may be data, which a job changes and returns.  So it
 * is named only while it has the contents that it had when the function was
 * sent or received; the same is asked of the tables in it, and of the upvalues
 * of its functions.  The old contents are kept for small tables only.  The
 * receiver checks its own table, too, and makes a copy with the old contents
 * if that has changed.
 *
 * The sender's lists are in its registry, by message.  Each list has a
 * reference to its message, and is dropped when that is the last one: then no
 * job can have results that name the tables.
 */
#include "value/common.h"

#include <stdatomic.h>

#include <lauxlib.h>

#include "base/defer.h"
#include "base/finalize.h"
#include "base/level.h"
#include "value/mask.h"

enum { TABLES = 1, CONTENTS, METATABLES, NUMBERS, FUNCTIONS, FILTER, HOLDER };

enum {
  FIELDS_MAX = 64,    /* most fields of a table whose contents are kept */
  LOOKS_MAX = 512,    /* most fields compared, to see that a table is
                         unchanged */
  NESTED_MAX = 8,     /* most tables and functions inside each other that are
                         compared */
  LOOK_SLOTS = 6 * NESTED_MAX + LUA_MINSTACK
};

/* Key in the registry, by address, of a table: lists by message (light
   userdata); at 1 the number of lists, at 2 the number from which on unused
   ones are looked for. */
static const char sent_key = 0;

/* ------------------------------------------------------------------- lists */

/* [-0, +1, m]  Push a new list. */
static void
push_list (lua_State *L)
{
  lua_createtable(L, HOLDER, 0);
  for (int i = TABLES; i <= FUNCTIONS; i++) {
    lua_newtable(L);
    lua_rawseti(L, -2, i);
  }
}

/* [-0, +0, m]  Make the table at 'index' number 'n' of the list at 'list'. */
static void
set_table (lua_State *L, int list, int index, lua_Integer n)
{
  lua_rawgeti(L, list, TABLES);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, n);
  lua_rawgeti(L, list, NUMBERS);
  lua_pushvalue(L, index);
  lua_pushinteger(L, n);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

/* [-0, +0, -]  True when the table at 'index' has weak entries, which
   vanish. */
static bool
is_weak (lua_State *L, int index)
{
  bool weak = false;
  if (lua_getmetatable(L, index)) {
    lua_pushnil(L);
    while (!weak && lua_next(L, -2)) {
      weak = lua_type(L, -2) == LUA_TSTRING
          && strcmp(lua_tostring(L, -2), "__mode") == 0;
      lua_pop(L, 1);
    }
    lua_pop(L, weak ? 2 : 1);
  }
  return weak;
}

/* [-1, +0, m]  Keep the upvalues of the function on top, and of the functions
   among them, in the table at 'functions'. */
static void
keep_upvalues (lua_State *L, int functions, unsigned depth)
{
  const int f = lua_gettop(L);
  lua_pushvalue(L, f);
  if (lua_iscfunction(L, f) || depth == NESTED_MAX
      || lua_rawget(L, functions) != LUA_TNIL) {
    lua_settop(L, f - 1);
    return;
  }
  rs_level_room(L, LUA_MINSTACK, NULL);
  lua_settop(L, f);
  lua_newtable(L);
  lua_pushvalue(L, f);
  lua_pushvalue(L, f + 1);
  lua_rawset(L, functions);
  for (int i = 1; lua_getupvalue(L, f, i) != NULL; i++) {
    lua_pushvalue(L, -1);
    lua_rawseti(L, f + 1, i);
    if (lua_type(L, -1) == LUA_TFUNCTION)
      keep_upvalues(L, functions, depth + 1);
    else
      lua_pop(L, 1);
  }
  lua_settop(L, f - 1);
}

/* [-0, +1, m]  Push a copy of the table at 'index', or false if the table is
   too large, or weak. */
static void
push_contents (lua_State *L, int index, int functions)
{
  int n = 0;
  lua_newtable(L);
  const int copy = lua_gettop(L);
  bool keep = !is_weak(L, index);
  lua_pushnil(L);
  while (keep && lua_next(L, index)) {
    keep = ++n <= FIELDS_MAX;
    if (keep && lua_type(L, -1) == LUA_TFUNCTION) {
      lua_pushvalue(L, -1);
      keep_upvalues(L, functions, 0);
    }
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, copy);
  }
  lua_settop(L, copy);
  if (!keep) {
    lua_pushboolean(L, 0);
    lua_replace(L, copy);
  }
}

/* [-0, +0, m]  Keep the contents and metatables of the tables in the list at
   'list', all of which are complete now; compute the filter. */
static void
close_list (lua_State *L, int list)
{
  const int top = lua_gettop(L);
  uint64_t filter = 0;
  rs_level_room(L, LUA_MINSTACK, NULL);
  lua_rawgeti(L, list, TABLES);
  lua_rawgeti(L, list, CONTENTS);
  lua_rawgeti(L, list, METATABLES);
  lua_rawgeti(L, list, FUNCTIONS);
  const lua_Integer n = (lua_Integer) lua_rawlen(L, top + 1);
  for (lua_Integer i = 1; i <= n; i++) {
    lua_rawgeti(L, top + 1, i);
    filter |= rs_common_bit(lua_topointer(L, -1));
    push_contents(L, top + 5, top + 4);
    lua_rawseti(L, top + 2, i);
    if (!lua_getmetatable(L, top + 5))
      lua_pushboolean(L, 0);
    lua_rawseti(L, top + 3, i);
    lua_settop(L, top + 4);
  }
  lua_pushinteger(L, (lua_Integer) filter);
  lua_rawseti(L, list, FILTER);
  lua_settop(L, top);
}

/* [-0, +0, -]  The filter of the list on top. */
static uint64_t
get_filter (lua_State *L)
{
  lua_rawgeti(L, -1, FILTER);
  const uint64_t filter = (uint64_t) lua_tointegerx(L, -1, NULL);
  lua_pop(L, 1);
  return filter;
}

/* --------------------------------------------------------------- comparing */

/* The tables and functions that are being compared, the outermost one last. */
typedef struct look {
  const struct look *outer;
  const void *object;
} look;

static bool is_as_it_was (lua_State *L, int list, int index, lua_Integer n,
                          const look *outer, unsigned depth, unsigned *looks);
static bool is_settled (lua_State *L, int list, const look *outer,
                        unsigned depth, unsigned *looks);

/* [-0, +0, -]  True when the upvalues of the function on top have not
   changed. */
static bool
has_same_upvalues (lua_State *L, int list, const look *outer, unsigned depth,
                   unsigned *looks)
{
  const int f = lua_gettop(L);
  const look own = { outer, lua_topointer(L, f) };
  if (lua_iscfunction(L, f))
    return true;
  lua_rawgeti(L, list, FUNCTIONS);
  lua_pushvalue(L, f);
  if (lua_rawget(L, f + 1) != LUA_TTABLE) {
    lua_settop(L, f);
    return false;
  }
  lua_replace(L, f + 1);
  bool same = true;
  const char *name;
  for (int i = 1; same && (name = lua_getupvalue(L, f, i)) != NULL; i++) {
    lua_rawgeti(L, f + 1, i);
    same = *looks > 0 && lua_rawequal(L, -1, -2);
    *looks -= *looks > 0;
    lua_pop(L, 1);
    if (strcmp(name, "_ENV") == 0)  /* each side has its own environment */
      same = true;
    else if (same)
      same = is_settled(L, list, &own, depth, looks);
    lua_settop(L, f + 1);
  }
  lua_settop(L, f);
  return same;
}

/* [-0, +0, -]  True when the value on top has not changed inside, or cannot;
   it is known to be the same value as before. */
static bool
is_settled (lua_State *L, int list, const look *outer, unsigned depth,
            unsigned *looks)
{
  const int index = lua_gettop(L);
  const int type = lua_type(L, index);
  if (type < LUA_TTABLE)
    return true;
  if (type > LUA_TFUNCTION)
    return false;
  for (const look *l = outer; l != NULL; l = l->outer)
    if (l->object == lua_topointer(L, index))
      return true;
  if (depth >= NESTED_MAX)
    return false;
  if (type == LUA_TFUNCTION)
    return has_same_upvalues(L, list, outer, depth + 1, looks);
  lua_rawgeti(L, list, NUMBERS);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  const lua_Integer n = lua_tointegerx(L, -1, NULL);
  lua_settop(L, index);
  return n > 0
      && is_as_it_was(L, list, index, n, outer, depth + 1, looks);
}

static bool
is_as_it_was (lua_State *L, int list, int index, lua_Integer n,
              const look *outer, unsigned depth, unsigned *looks)
{
  const int top = lua_gettop(L);
  const look own = { outer, lua_topointer(L, index) };
  lua_rawgeti(L, list, METATABLES);
  lua_rawgeti(L, -1, n);
  lua_replace(L, top + 1);
  bool same = lua_getmetatable(L, index) ? lua_rawequal(L, -1, top + 1)
                                         : !lua_toboolean(L, top + 1);
  lua_settop(L, top);
  lua_rawgeti(L, list, CONTENTS);
  lua_rawgeti(L, -1, n);
  lua_replace(L, top + 1);
  if (!same || lua_type(L, top + 1) != LUA_TTABLE) {
    lua_settop(L, top);
    return false;
  }
  size_t fields = 0;
  lua_pushnil(L);
  while (same && lua_next(L, index)) {  /* stack: contents, key, value */
    lua_pushvalue(L, top + 2);
    lua_rawget(L, top + 1);
    same = *looks > 0 && lua_rawequal(L, -1, top + 3)
        && lua_type(L, top + 2) != LUA_TTABLE;
    *looks -= *looks > 0;
    lua_pop(L, 1);
    if (same)
      same = is_settled(L, list, &own, depth, looks);
    lua_settop(L, top + 2);
    fields++;
  }
  if (same) {  /* is no old field missing now? */
    lua_settop(L, top + 1);
    lua_pushnil(L);
    while (lua_next(L, top + 1)) {
      lua_pop(L, 1);
      fields--;
    }
  }
  lua_settop(L, top);
  return same && fields == 0;
}

/* ---------------------------------------------------------- while encoding */

void
rs_common_mark (unsigned *marks, lua_State *L, int list, int index)
{
  set_table(L, list, index, (lua_Integer) ++*marks);
}

void
rs_common_unmark (unsigned *marks, lua_State *L, int list, unsigned left)
{
  const int top = lua_gettop(L);
  lua_rawgeti(L, list, TABLES);
  lua_rawgeti(L, list, NUMBERS);
  for (; *marks > left; --*marks) {
    lua_rawgeti(L, top + 1, (lua_Integer) *marks);
    lua_pushnil(L);
    lua_rawset(L, top + 2);
    lua_pushnil(L);
    lua_rawseti(L, top + 1, (lua_Integer) *marks);
  }
  lua_settop(L, top);
}

void
rs_common_push_marks (unsigned *marks, lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, marks) == LUA_TTABLE)
    return;
  lua_pop(L, 1);
  push_list(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, marks);
}

void
rs_common_drop (unsigned *marks, lua_State *L)
{
  if (*marks > 0 && lua_checkstack(L, LUA_MINSTACK)) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, marks);
  }
  *marks = 0;
}

lua_Integer
rs_common_find (const rs_common *c, lua_State *L, int index, bool metatable)
{
  const int top = lua_gettop(L);
  lua_Integer n = 0;
  if (!lua_checkstack(L, LOOK_SLOTS) || !rs_common_push(c, L))
    return 0;
  lua_rawgeti(L, top + 1, NUMBERS);
  lua_pushvalue(L, index);
  if (lua_rawget(L, top + 2) == LUA_TNUMBER)
    n = lua_tointegerx(L, -1, NULL);
  lua_settop(L, top + 1);
  unsigned looks = LOOKS_MAX;
  if (n > 0 && !metatable
      && !is_as_it_was(L, top + 1, index, n, NULL, 0, &looks))
    n = 0;
  lua_settop(L, top);
  return n;
}

/* ------------------------------------------------------------- the sender */

typedef struct holder {
  rs_message *message;   /* a reference of the list */
} holder;

/* [-0, +0, -]  __gc of a holder. */
static int
let_go (lua_State *L)
{
  holder *const h = rs_finalized(L, let_go);
  if (h != NULL) {
    rs_message_unref(h->message);
    h->message = NULL;
  }
  return 0;
}

/* [-0, +0, m]  Drop the lists, in the table at 'index', whose messages have no
   other owner; count the others. */
static void
sweep (lua_State *L, int index)
{
  lua_Integer n = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    if (lua_type(L, -2) == LUA_TLIGHTUSERDATA) {
      const rs_message *const message = lua_touserdata(L, -2);
      if (atomic_load_explicit(&message->refs, memory_order_acquire) == 1) {
        lua_pushvalue(L, -2);
        lua_pushnil(L);
        lua_rawset(L, index);
      }
      else
        n++;
    }
    lua_pop(L, 1);
  }
  enum { LEAST = 8 };
  lua_pushinteger(L, n);
  lua_rawseti(L, index, 1);
  lua_pushinteger(L, n > LEAST ? 2 * n : 2 * LEAST);
  lua_rawseti(L, index, 2);
}

typedef struct keeping {
  unsigned *marks;
  rs_message *message;
  rs_progress progress;
} keeping;

/* (keeping)  Put the list of marked tables into the table of lists. */
static int
keep (lua_State *L)
{
  keeping *const k = lua_touserdata(L, 1);
  rs_message *const message = k->message;
  k->progress = RS_BEGUN;
  lua_settop(L, 2);
  lua_rawgetp(L, LUA_REGISTRYINDEX, k->marks);
  close_list(L, 3);
  holder *const h = lua_newuserdatauv(L, sizeof *h, 0);
  h->message = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, let_go);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, 4);
  h->message = rs_message_ref(message);
  lua_rawseti(L, 3, HOLDER);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sent_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &sent_key);
  }
  lua_rawgeti(L, 4, 1);
  lua_rawgeti(L, 4, 2);
  if (lua_tointeger(L, 5) >= lua_tointeger(L, 6))
    sweep(L, 4);
  lua_rawgeti(L, 4, 1);
  lua_pushinteger(L, lua_tointeger(L, -1) + 1);
  lua_rawseti(L, 4, 1);
  lua_pushvalue(L, 3);
  lua_rawsetp(L, 4, message);
  message->common = true;
  k->progress = RS_DONE;
  return 0;
}

int
rs_common_keep (unsigned *marks, lua_State *L, rs_message *message)
{
  int status = RS_OK;
  if (*marks == 0)
    return RS_OK;
  keeping k = { marks, message, RS_NOT_BEGUN };
  if (rs_defer_call(L, keep, &k, 0, &k.progress) != LUA_OK) {
    lua_pop(L, 1);
    status = RS_ENOMEM;
  }
  rs_common_drop(marks, L);
  return status;
}

rs_common
rs_common_of (lua_State *L, const rs_message *message)
{
  rs_common c = { .sent = NULL };
  if (message == NULL || !message->common
      || !lua_checkstack(L, LUA_MINSTACK))
    return c;
  const rs_common own = { .sent = message };
  if (rs_common_push(&own, L)) {
    c.sent = message;
    c.filter = get_filter(L);
    lua_pop(L, 1);
  }
  return c;
}

bool
rs_common_push (const rs_common *c, lua_State *L)
{
  if (c->ref > 0) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
    return true;
  }
  const int top = lua_gettop(L);
  if (c->sent == NULL)
    return false;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sent_key) == LUA_TTABLE
      && lua_rawgetp(L, -1, c->sent) == LUA_TTABLE) {
    lua_remove(L, -2);
    return true;
  }
  lua_settop(L, top);
  return false;
}

/* ----------------------------------------------------------- the receiver */

int
rs_common_open (lua_State *L)
{
  push_list(L);
  return luaL_ref(L, LUA_REGISTRYINDEX);
}

void
rs_common_add (lua_State *L, int ref, lua_Integer n)
{
  const int index = lua_gettop(L);
  rs_level_room(L, LUA_MINSTACK, "message");
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  set_table(L, index + 1, index, n);
  lua_settop(L, index);
}

uint64_t
rs_common_close (lua_State *L, int ref)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  close_list(L, lua_gettop(L));
  const uint64_t filter = get_filter(L);
  lua_pop(L, 1);
  return filter;
}

void
rs_common_share (lua_State *L, int ref, rs_common *c)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  c->filter = get_filter(L);
  c->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

void
rs_common_release (lua_State *L, rs_common *c)
{
  if (c->ref > 0)
    luaL_unref(L, LUA_REGISTRYINDEX, c->ref);
  *c = (rs_common) { .sent = NULL };
}

/* [-0, +1, m]  Push a new table with the old contents of table number 'n'. */
static void
push_original (lua_State *L, int list, lua_Integer n)
{
  lua_rawgeti(L, list, CONTENTS);
  lua_rawgeti(L, -1, n);
  const int contents = lua_gettop(L);
  lua_newtable(L);
  lua_pushnil(L);
  while (lua_next(L, contents)) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, contents + 1);
  }
  lua_rawgeti(L, list, METATABLES);
  if (lua_rawgeti(L, -1, n) == LUA_TTABLE)
    rs_set_copy_metatable(L, contents + 1);
  lua_settop(L, contents + 1);
}

bool
rs_common_resolve (const rs_common *c, lua_State *L, lua_Integer n,
                   bool metatable)
{
  const int top = lua_gettop(L);
  rs_level_room(L, LOOK_SLOTS, "message");
  if (!rs_common_push(c, L))
    return false;
  lua_rawgeti(L, top + 1, TABLES);
  if (n <= 0 || lua_rawgeti(L, top + 2, n) != LUA_TTABLE) {
    lua_settop(L, top);
    return false;
  }
  lua_replace(L, top + 2);
  lua_rawgeti(L, top + 1, CONTENTS);
  const bool kept = lua_rawgeti(L, -1, n) == LUA_TTABLE;
  lua_settop(L, top + 2);
  unsigned looks = LOOKS_MAX;
  if (!metatable && kept
      && !is_as_it_was(L, top + 1, top + 2, n, NULL, 0, &looks)) {
    push_original(L, top + 1, n);
    lua_replace(L, top + 2);
  }
  lua_settop(L, top + 2);
  lua_replace(L, top + 1);
  return true;
}
