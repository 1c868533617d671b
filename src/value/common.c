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
 *       numbers by table, upvalues by function, filter of the tables,
 *       filter of the functions that may be named }
 *
 * A table that is the metatable of an object stands for a class, and is always
 * named.  Any other table may be data, which a job changes and returns.  So it
 * is named only while it has the contents that it had when the function was
 * sent or received; the same is asked of the tables in it, and of the upvalues
 * of its functions.  The old contents are kept for small tables only, and for
 * larger ones with methods.  A weak table has its old contents in a table as
 * weak, so that they go when its own do.  The receiver checks its own table,
 * too, and makes a copy with the old contents if that has changed; so it does
 * with the tables and functions in it.
 *
 * A function in a field of such a table is named by the number of the table
 * and the key of the field, as long as the table is as it was: functions of a
 * table may share upvalues, so all of them are named, or none.
 *
 * The sender's lists are in its registry, by message.  Each list has a
 * reference to its message, and is dropped when that is the last one: then no
 * job can have results that name the tables.  The sender looks for such lists
 * when there are many, when their messages are large, and in each cycle of its
 * collector.
 */
#include "value/common.h"

#include <stdatomic.h>

#include <lauxlib.h>

#include "base/defer.h"
#include "base/finalize.h"
#include "base/level.h"
#include "base/stack.h"
#include "value/mask.h"

enum { TABLES = 1, CONTENTS, METATABLES, NUMBERS, FUNCTIONS, FILTER,
       FUNCTION_FILTER, HOLDER };

enum {
  FIELDS_MAX = 64,    /* most fields of a table whose contents are kept */
  METHODS_MAX = 1024, /* the same for a table that has functions, or
                         '__index' */
  LOOKS_MAX = 4096,   /* most fields compared, to see that a table is
                         unchanged */
  NESTED_MAX = 64,    /* most tables and functions inside each other that are
                         compared */
  LOOK_SLOTS = 6 * NESTED_MAX + LUA_MINSTACK
};

/* Key in the registry, by address, of a table: lists by message (light
   userdata), and these numbers: how many lists there are, and how many bytes
   their messages have; the numbers from which on unused lists are looked for;
   whether the collector looks for them, too. */
static const char sent_key = 0;

enum { COUNT = 1, COUNT_MAX, BYTES, BYTES_MAX, SWEEPS };

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

/* [-0, +0, -]  True when the value at 'index' is a list.  A script that has
   the registry can put anything in the place of a list, and into one. */
static bool
is_list (lua_State *L, int index)
{
  bool is = lua_type(L, index) == LUA_TTABLE;
  index = lua_absindex(L, index);
  for (int i = TABLES; is && i <= FUNCTIONS; i++) {
    is = lua_rawgeti(L, index, i) == LUA_TTABLE;
    lua_pop(L, 1);
  }
  return is;
}

/* [-0, +0, v]  Raise unless the value at 'index' is a list. */
static void
check_list (lua_State *L, int index)
{
  if (!is_list(L, index))
    luaL_error(L, "what the registry of this state had was replaced");
}

/* [-0, +0, v]  Make the table at 'index' number 'n' of the list at 'list'. */
static void
set_table (lua_State *L, int list, int index, lua_Integer n)
{
  check_list(L, list);
  lua_rawgeti(L, list, TABLES);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, n);
  lua_rawgeti(L, list, NUMBERS);
  lua_pushvalue(L, index);
  lua_pushinteger(L, n);
  lua_rawset(L, -3);
  lua_pop(L, 2);
}

/* [-0, +(0|1), -]  Push '__mode' of the metatable of the table at 'index', if
   that is a string: entries of the table may vanish. */
static bool
push_mode (lua_State *L, int index)
{
  const int top = lua_gettop(L);
  bool weak = false;
  if (lua_getmetatable(L, index)) {
    lua_pushnil(L);
    while (!weak && lua_next(L, top + 1)) {
      weak = lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING
          && strcmp(lua_tostring(L, -2), "__mode") == 0;
      if (!weak)
        lua_pop(L, 1);
    }
  }
  if (weak)
    lua_replace(L, top + 1);
  lua_settop(L, weak ? top + 1 : top);
  return weak;
}

/* [-0, +0, -]  True when the table at 'index' is a class, or looks like
   one. */
static bool
has_index (lua_State *L, int index)
{
  lua_pushliteral(L, "__index");
  const bool has = lua_rawget(L, index) != LUA_TNIL;
  lua_pop(L, 1);
  return has;
}

/* [-0, +0, -]  True when the function on top has upvalues in Lua. */
static bool
has_upvalues (lua_State *L)
{
  if (lua_iscfunction(L, -1) || lua_getupvalue(L, -1, 1) == NULL)
    return false;
  lua_pop(L, 1);
  return true;
}

/* [-1, +0, m]  Keep the upvalues of the function on top, and of the functions
   among them, in the table at 'functions'. */
static void
keep_upvalues (lua_State *L, int functions, unsigned depth)
{
  const int f = lua_gettop(L);
  if (!has_upvalues(L) || depth == NESTED_MAX) {
    lua_settop(L, f - 1);
    return;
  }
  lua_pushvalue(L, f);
  if (lua_rawget(L, functions) != LUA_TNIL) {
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
   too large.  The copy is as weak as the table.  Functions that may be named
   are added to the filter. */
static void
push_contents (lua_State *L, int index, int functions, uint64_t *filter)
{
  const int copy = lua_gettop(L) + 1;
  int fields = 0, most = has_index(L, index) ? METHODS_MAX : FIELDS_MAX;
  bool keep = true;
  lua_newtable(L);
  const bool weak = push_mode(L, index);
  if (weak) {
    lua_createtable(L, 0, 1);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, copy);
  }
  lua_pushnil(L);
  while (keep && lua_next(L, index)) {
    if (lua_type(L, -1) == LUA_TFUNCTION)
      most = METHODS_MAX;
    keep = ++fields <= most;
    if (keep && lua_type(L, -1) == LUA_TFUNCTION) {
      if (!weak && !lua_iscfunction(L, -1))
        *filter |= rs_common_bit(lua_topointer(L, -1));
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

/* [-0, +0, v]  Keep the contents and metatables of the tables in the list at
   'list', all of which are complete now; compute the filter. */
static void
close_list (lua_State *L, int list)
{
  const int top = lua_gettop(L);
  uint64_t filter = 0, functions = 0;
  rs_level_room(L, LUA_MINSTACK, NULL);
  check_list(L, list);
  lua_rawgeti(L, list, TABLES);
  lua_rawgeti(L, list, CONTENTS);
  lua_rawgeti(L, list, METATABLES);
  lua_rawgeti(L, list, FUNCTIONS);
  const lua_Integer n = (lua_Integer) lua_rawlen(L, top + 1);
  for (lua_Integer i = 1; i <= n; i++) {
    if (lua_rawgeti(L, top + 1, i) != LUA_TTABLE) {
      lua_settop(L, top + 4);
      continue;  /* a script has taken the table out */
    }
    filter |= rs_common_bit(lua_topointer(L, -1));
    push_contents(L, top + 5, top + 4, &functions);
    lua_rawseti(L, top + 2, i);
    if (!lua_getmetatable(L, top + 5))
      lua_pushboolean(L, 0);
    lua_rawseti(L, top + 3, i);
    lua_settop(L, top + 4);
  }
  lua_pushinteger(L, (lua_Integer) filter);
  lua_rawseti(L, list, FILTER);
  lua_pushinteger(L, (lua_Integer) functions);
  lua_rawseti(L, list, FUNCTION_FILTER);
  lua_settop(L, top);
}

/* [-0, +0, -]  The filter of the list on top. */
static uint64_t
get_filter (lua_State *L, int which)
{
  lua_rawgeti(L, -1, which);
  const uint64_t filter = (uint64_t) lua_tointegerx(L, -1, NULL);
  lua_pop(L, 1);
  return filter;
}

/* [-0, +0, -]  Let 'c' have the filters of the list on top. */
static void
set_filters (lua_State *L, rs_common *c)
{
  c->filter = get_filter(L, FILTER);
  c->functions = get_filter(L, FUNCTION_FILTER);
}

/* --------------------------------------------------------------- comparing */

/*
 * One comparison, of a table or function and all that is in it.  It ends at
 * the first difference, so what was met before needs no second look: it is the
 * same, or is being compared.
 */
enum { MET = 128 };  /* a power of two */

typedef struct look {
  int list;              /* stack index of the list */
  unsigned left;         /* fields and upvalues that may still be compared */
  unsigned met_count;
  const void *met[MET];  /* tables and functions, a hash; no more are noted
                            when it is nearly full */
} look;

static void
begin_look (look *k, int list)
{
  k->list = list;
  k->left = LOOKS_MAX;
  k->met_count = 0;
  memset(k->met, 0, sizeof k->met);
}

/* Was 'object' met before?  It is from here on. */
static bool
meets (look *k, const void *object)
{
  size_t i = (size_t) (((uint64_t) (uintptr_t) object * 0x9e3779b97f4a7c15u)
                       >> 32) & (MET - 1);
  while (k->met[i] != NULL && k->met[i] != object)
    i = (i + 1) & (MET - 1);
  if (k->met[i] != NULL)
    return true;
  if (k->met_count < MET / 4 * 3) {
    k->met[i] = object;
    k->met_count++;
  }
  return false;
}

static bool is_as_it_was (lua_State *L, look *k, int index, lua_Integer n,
                          unsigned depth);
static bool is_settled (lua_State *L, look *k, unsigned depth);

/* [-0, +0, -]  True when the upvalues of the function on top have not
   changed. */
static bool
has_same_upvalues (lua_State *L, look *k, unsigned depth)
{
  const int f = lua_gettop(L);
  if (!has_upvalues(L))
    return true;
  lua_rawgeti(L, k->list, FUNCTIONS);
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
    same = k->left > 0 && lua_rawequal(L, -1, -2);
    k->left -= k->left > 0;
    lua_pop(L, 1);
    if (strcmp(name, "_ENV") == 0)  /* each side has its own environment */
      same = true;
    else if (same)
      same = is_settled(L, k, depth);
    lua_settop(L, f + 1);
  }
  lua_settop(L, f);
  return same;
}

/* [-0, +0, -]  True when the value on top has not changed inside, or cannot;
   it is known to be the same value as before. */
static bool
is_settled (lua_State *L, look *k, unsigned depth)
{
  const int index = lua_gettop(L);
  const int type = lua_type(L, index);
  if (type < LUA_TTABLE)
    return true;
  if (type > LUA_TFUNCTION)
    return false;
  if (meets(k, lua_topointer(L, index)))
    return true;
  if (depth >= NESTED_MAX || rs_stack_low())
    return false;
  if (type == LUA_TFUNCTION)
    return has_same_upvalues(L, k, depth + 1);
  lua_rawgeti(L, k->list, NUMBERS);
  lua_pushvalue(L, index);
  lua_rawget(L, -2);
  const lua_Integer n = lua_tointegerx(L, -1, NULL);
  lua_settop(L, index);
  return n > 0 && is_as_it_was(L, k, index, n, depth + 1);
}

/* [-0, +0, -]  True when the table at 'index', number 'n', has not changed,
   nor what is in it. */
static bool
is_as_it_was (lua_State *L, look *k, int index, lua_Integer n, unsigned depth)
{
  const int top = lua_gettop(L);
  lua_rawgeti(L, k->list, METATABLES);
  lua_rawgeti(L, -1, n);
  lua_replace(L, top + 1);
  bool same = lua_getmetatable(L, index) ? lua_rawequal(L, -1, top + 1)
                                         : !lua_toboolean(L, top + 1);
  lua_settop(L, top);
  lua_rawgeti(L, k->list, CONTENTS);
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
    same = k->left > 0 && lua_rawequal(L, -1, top + 3);
    k->left -= k->left > 0;
    lua_pop(L, 1);
    if (same)
      same = is_settled(L, k, depth);
    lua_settop(L, top + 2);
    if (same && (lua_type(L, top + 2) == LUA_TTABLE
                 || lua_type(L, top + 2) == LUA_TFUNCTION)) {
      lua_pushvalue(L, top + 2);
      same = is_settled(L, k, depth);
      lua_settop(L, top + 2);
    }
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

/* [-0, +0, -]  Do 'is_as_it_was', and nothing else. */
static bool
is_unchanged (lua_State *L, int list, int index, lua_Integer n)
{
  look k;
  begin_look(&k, list);
  meets(&k, lua_topointer(L, index));
  return is_as_it_was(L, &k, index, n, 0);
}

/* [-0, +0, -]  Do 'has_same_upvalues', and nothing else. */
static bool
is_unchanged_function (lua_State *L, int list)
{
  look k;
  begin_look(&k, list);
  meets(&k, lua_topointer(L, -1));
  return has_same_upvalues(L, &k, 0);
}

static bool push_part (const rs_common *c, lua_State *L, int which);

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
  check_list(L, list);
  lua_rawgeti(L, list, TABLES);
  lua_rawgeti(L, list, NUMBERS);
  for (; *marks > left; --*marks) {
    if (lua_rawgeti(L, top + 1, (lua_Integer) *marks) == LUA_TTABLE) {
      lua_pushnil(L);
      lua_rawset(L, top + 2);
    }
    lua_settop(L, top + 2);
    lua_pushnil(L);
    lua_rawseti(L, top + 1, (lua_Integer) *marks);
  }
  lua_settop(L, top);
}

void
rs_common_push_marks (unsigned *marks, lua_State *L)
{
  lua_rawgetp(L, LUA_REGISTRYINDEX, marks);
  if (is_list(L, -1))
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
  if (!lua_checkstack(L, LOOK_SLOTS))
    return 0;
  if (push_part(c, L, NUMBERS)) {
    lua_pushvalue(L, index);
    if (lua_rawget(L, top + 1) == LUA_TNUMBER)
      n = lua_tointegerx(L, -1, NULL);
  }
  lua_settop(L, top);
  if (n > 0 && !metatable) {
    if (!rs_common_push(c, L) || !is_unchanged(L, top + 1, index, n))
      n = 0;
    lua_settop(L, top);
  }
  return n;
}

/* [-0, +(0|1), -]  Push the key, a string or a number, under which the table
   at 'table' has the function at 'index'.  False: there is none. */
static bool
push_key (lua_State *L, int table, int index)
{
  lua_pushnil(L);
  while (lua_next(L, table)) {
    const int type = lua_type(L, -2);
    const bool found = (type == LUA_TSTRING || type == LUA_TNUMBER)
                    && lua_rawequal(L, -1, index);
    lua_pop(L, 1);
    if (found)
      return true;
  }
  return false;
}

lua_Integer
rs_common_find_function (const rs_common *c, lua_State *L, int index)
{
  const int top = lua_gettop(L);
  if (!lua_checkstack(L, LOOK_SLOTS) || !rs_common_push(c, L))
    return 0;
  lua_rawgeti(L, top + 1, CONTENTS);
  lua_rawgeti(L, top + 1, TABLES);
  const lua_Integer tables = (lua_Integer) lua_rawlen(L, top + 3);
  for (lua_Integer n = 1; n <= tables; n++) {
    if (lua_rawgeti(L, top + 2, n) == LUA_TTABLE
        && lua_rawgeti(L, top + 3, n) == LUA_TTABLE
        && push_key(L, top + 4, index) && !push_mode(L, top + 5)
        && is_unchanged(L, top + 1, top + 5, n)) {
      lua_replace(L, top + 1);
      lua_settop(L, top + 1);
      return n;
    }
    lua_settop(L, top + 3);
  }
  lua_settop(L, top);
  return 0;
}

/* ------------------------------------------------------------- the sender */

typedef struct holder {
  const void *proof;     /* the address of 'sent_key': a script has put no
                            other userdata here */
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

/* [-0, +0, -]  The holder of the list on top, whose key is below; or NULL, if
   a script has changed the list. */
static holder *
get_holder (lua_State *L)
{
  holder *found = NULL;
  if (!is_list(L, -1))
    return NULL;
  if (lua_rawgeti(L, -1, HOLDER) == LUA_TUSERDATA
      && lua_rawlen(L, -1) == sizeof(holder)) {
    holder *const h = lua_touserdata(L, -1);
    if (h->proof == &sent_key && h->message != NULL
        && h->message == lua_touserdata(L, -3))
      found = h;
  }
  lua_pop(L, 1);
  return found;
}

/* [-0, +0, -]  Set the integer at field 'i' of the table at 'index'. */
static void
set_number (lua_State *L, int index, int i, size_t n)
{
  lua_pushinteger(L, (lua_Integer) n);
  lua_rawseti(L, index, i);
}

static size_t
get_number (lua_State *L, int index, int i)
{
  lua_rawgeti(L, index, i);
  const lua_Integer n = lua_tointegerx(L, -1, NULL);
  lua_pop(L, 1);
  return (size_t) n;
}

/* [-0, +0, -]  Drop the lists, in the table at 'index', whose messages have no
   other owner; count the others, and their bytes.  Returns how many are
   left. */
static size_t
sweep (lua_State *L, int index)
{
  size_t n = 0, bytes = 0;
  lua_pushnil(L);
  while (lua_next(L, index)) {
    if (lua_type(L, -2) == LUA_TLIGHTUSERDATA) {
      holder *const h = get_holder(L);
      if (h != NULL && atomic_load_explicit(&h->message->refs,
                                            memory_order_acquire) > 1) {
        n++;
        bytes += h->message->size;
      }
      else {
        if (h != NULL) {  /* the collector may find the holder much later */
          rs_message_unref(h->message);
          h->message = NULL;
        }
        lua_pushvalue(L, -2);
        lua_pushnil(L);
        lua_rawset(L, index);
      }
    }
    lua_pop(L, 1);
  }
  enum { LEAST = 8, LEAST_BYTES = 1 << 20 };
  set_number(L, index, COUNT, n);
  set_number(L, index, COUNT_MAX, n > LEAST ? 2 * n : 2 * LEAST);
  set_number(L, index, BYTES, bytes);
  set_number(L, index, BYTES_MAX,
             bytes > LEAST_BYTES ? 2 * bytes : 2 * LEAST_BYTES);
  return n;
}

/* [-0, +0, -]  __gc of a userdata that nothing refers to, so it is called in
   each cycle of the collector: drop the lists that nobody needs any more, and
   the tables in them.  Setting the metatable again lets it be called again. */
static int
sweep_later (lua_State *L)
{
  if (rs_finalized(L, sweep_later) == NULL)
    return 0;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sent_key) == LUA_TTABLE) {
    if (sweep(L, 2) > 0) {
      lua_getmetatable(L, 1);
      lua_setmetatable(L, 1);
    }
    else {
      lua_pushnil(L);
      lua_rawseti(L, 2, SWEEPS);
    }
  }
  return 0;
}

/* [-0, +0, m]  Push a new userdata with this finalizer, of 'size' bytes that
   are 0. */
static void *
push_finalized (lua_State *L, size_t size, lua_CFunction finalizer)
{
  void *const block = lua_newuserdatauv(L, size, 0);
  memset(block, 0, size);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, finalizer);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  return block;
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
  holder *const h = push_finalized(L, sizeof *h, let_go);
  h->proof = &sent_key;
  h->message = rs_message_ref(message);
  lua_rawseti(L, 3, HOLDER);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &sent_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &sent_key);
  }
  if (lua_rawgeti(L, 4, SWEEPS) == LUA_TNIL) {
    push_finalized(L, 1, sweep_later);
    lua_pushboolean(L, 1);
    lua_rawseti(L, 4, SWEEPS);
    lua_settop(L, 4);
    sweep(L, 4);
  }
  const size_t bytes = message->size;
  if (get_number(L, 4, COUNT) >= get_number(L, 4, COUNT_MAX)
      || get_number(L, 4, BYTES) + bytes > get_number(L, 4, BYTES_MAX))
    sweep(L, 4);
  set_number(L, 4, COUNT, get_number(L, 4, COUNT) + 1);
  set_number(L, 4, BYTES, get_number(L, 4, BYTES) + bytes);
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
    set_filters(L, &c);
    lua_pop(L, 1);
  }
  return c;
}

/* [-0, +1, -]  Push the list of tables; what may stand in its place is any
   other value. */
static void
push_any_list (const rs_common *c, lua_State *L)
{
  if (c->ref > 0)
    lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
  else if (c->sent != NULL
           && lua_rawgetp(L, LUA_REGISTRYINDEX, &sent_key) == LUA_TTABLE) {
    lua_rawgetp(L, -1, c->sent);
    lua_remove(L, -2);
  }
  else if (c->sent == NULL)
    lua_pushnil(L);
}

bool
rs_common_push (const rs_common *c, lua_State *L)
{
  push_any_list(c, L);
  if (is_list(L, -1))
    return true;
  lua_pop(L, 1);
  return false;
}

/* [-0, +1, -]  Push field 'which' of the list of tables.  False: a script has
   put something else in its place. */
static bool
push_part (const rs_common *c, lua_State *L, int which)
{
  push_any_list(c, L);
  if (lua_type(L, -1) != LUA_TTABLE)
    return false;
  lua_rawgeti(L, -1, which);
  lua_remove(L, -2);
  return lua_type(L, -1) == LUA_TTABLE;
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

void
rs_common_close (lua_State *L, rs_common *c)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->ref);
  close_list(L, lua_gettop(L));
  set_filters(L, c);
  lua_pop(L, 1);
}

void
rs_common_share (lua_State *L, int ref, rs_common *c)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
  check_list(L, -1);
  set_filters(L, c);
  c->ref = luaL_ref(L, LUA_REGISTRYINDEX);
}

void
rs_common_release (lua_State *L, rs_common *c)
{
  if (c->ref > 0)
    luaL_unref(L, LUA_REGISTRYINDEX, c->ref);
  *c = (rs_common) { .sent = NULL };
}

/* What is made anew when a table is not as it was. */
typedef struct originals {
  int list;   /* stack index of the list */
  int made;   /* of a table: new tables and functions by the receiver's, and
                 for cells of upvalues { function, index } by address */
} originals;

static void restore (lua_State *L, const originals *o, unsigned depth);

/* [-0, +0, -]  Make the value on top the one that is made for the value at
   'index'. */
static void
note_made (lua_State *L, const originals *o, int index)
{
  lua_pushvalue(L, index);
  lua_pushvalue(L, -2);
  lua_rawset(L, o->made);
}

/* [-0, +1, v]  Push a new table with the old contents of the table at 'index',
   number 'n'; its old contents are known. */
static void
push_original (lua_State *L, const originals *o, int index, lua_Integer n,
               unsigned depth)
{
  const int top = lua_gettop(L);
  lua_newtable(L);
  note_made(L, o, index);
  lua_rawgeti(L, o->list, METATABLES);
  lua_rawgeti(L, -1, n);
  lua_replace(L, top + 2);
  lua_rawgeti(L, o->list, CONTENTS);
  lua_rawgeti(L, -1, n);
  lua_replace(L, top + 3);
  lua_pushnil(L);
  while (lua_next(L, top + 3)) {
    lua_pushvalue(L, -2);
    restore(L, o, depth + 1);
    lua_insert(L, -2);
    restore(L, o, depth + 1);
    lua_rawset(L, top + 1);
  }
  lua_settop(L, top + 2);
  if (lua_type(L, top + 2) == LUA_TTABLE)
    rs_set_copy_metatable(L, top + 1);
  lua_settop(L, top + 1);
}

/* Append a part of a function's code to a buffer (lua_Writer). */
static int
append (lua_State *L, const void *data, size_t size, void *ud)
{
  luaL_Buffer *const b = ud;
  if (b->L == NULL)
    luaL_buffinit(L, b);
  luaL_addlstring(b, data, size);
  return 0;
}

/* [-0, +0, v]  Let upvalue 'i' of the function on top, made for the one at
   'index', be what it was; the old upvalues are at 'old'. */
static void
restore_upvalue (lua_State *L, const originals *o, int index, int old, int i,
                 unsigned depth)
{
  const int made = lua_gettop(L);
  const char *const name = lua_getupvalue(L, index, i);
  const bool env = strcmp(name, "_ENV") == 0;
  lua_settop(L, made);
  if (env) {
    lua_upvaluejoin(L, made, i, index, i);
    return;
  }
  void *const cell = lua_upvalueid(L, index, i);
  if (lua_rawgetp(L, o->made, cell) == LUA_TTABLE) {
    lua_rawgeti(L, made + 1, 1);
    lua_rawgeti(L, made + 1, 2);
    lua_upvaluejoin(L, made, i, made + 2, (int) lua_tointeger(L, made + 3));
    lua_settop(L, made);
    return;
  }
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, made);
  lua_rawseti(L, -2, 1);
  lua_pushinteger(L, i);
  lua_rawseti(L, -2, 2);
  lua_rawsetp(L, o->made, cell);
  lua_rawgeti(L, old, i);
  restore(L, o, depth + 1);
  lua_setupvalue(L, made, i);
  lua_settop(L, made);
}

/* [-0, +1, v]  Push a function like the one at 'index' with its old upvalues,
   which are in the table at 'old'. */
static void
push_original_function (lua_State *L, const originals *o, int index, int old,
                        unsigned depth)
{
  const int top = lua_gettop(L);
  luaL_Buffer b;
  b.L = NULL;
  lua_pushvalue(L, index);
  lua_dump(L, append, &b, 0);
  luaL_pushresult(&b);
  size_t size;
  const char *const code = lua_tolstring(L, -1, &size);
  if (luaL_loadbufferx(L, code, size, "=message", "b") != LUA_OK)
    lua_error(L);
  lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  note_made(L, o, index);
  lua_pushnil(L);
  for (int i = 1; lua_getupvalue(L, index, i) != NULL; i++) {
    lua_settop(L, top + 1);
    restore_upvalue(L, o, index, old, i, depth);
  }
  lua_settop(L, top + 1);
}

/* [-1, +1, v]  Replace the value on top, if it is not as it was, by a new one
   that is. */
static void
restore (lua_State *L, const originals *o, unsigned depth)
{
  const int index = lua_gettop(L);
  const int type = lua_type(L, index);
  if ((type != LUA_TTABLE && type != LUA_TFUNCTION) || depth > 2 * NESTED_MAX)
    return;
  rs_stack_check(L);
  rs_level_room(L, LOOK_SLOTS, "message");
  lua_pushvalue(L, index);
  if (lua_rawget(L, o->made) == LUA_TNIL) {
    lua_rawgeti(L, o->list, type == LUA_TTABLE ? NUMBERS : FUNCTIONS);
    lua_pushvalue(L, index);
    lua_rawget(L, -2);
    lua_replace(L, index + 1);
    lua_settop(L, index + 1);  /* stack: value, number or old upvalues */
    const lua_Integer n = lua_tointegerx(L, index + 1, NULL);
    bool kept = lua_type(L, index + 1) == LUA_TTABLE;
    if (type == LUA_TTABLE) {
      lua_rawgeti(L, o->list, CONTENTS);
      kept = n > 0 && lua_rawgeti(L, -1, n) == LUA_TTABLE;
      lua_settop(L, index + 1);
      if (!kept || is_unchanged(L, o->list, index, n)) {
        lua_settop(L, index);
        return;
      }
      push_original(L, o, index, n, depth);
    }
    else {
      lua_pushvalue(L, index);
      const bool same = is_unchanged_function(L, o->list);
      lua_settop(L, index + 1);
      if (!kept || same) {
        lua_settop(L, index);
        return;
      }
      push_original_function(L, o, index, index + 1, depth);
    }
  }
  lua_replace(L, index);
  lua_settop(L, index);
}

/* [-1, +1, v]  Replace the table or function on top by a new one with the old
   contents or upvalues, if it is not as it was; the list is at 'list'. */
static void
restore_alone (lua_State *L, int list)
{
  const int index = lua_gettop(L);
  const originals o = { list, index };
  lua_newtable(L);
  lua_insert(L, index);
  restore(L, &o, 0);
  lua_remove(L, index);
}

bool
rs_common_resolve (const rs_common *c, lua_State *L, lua_Integer n,
                   bool metatable)
{
  const int top = lua_gettop(L);
  rs_level_room(L, LOOK_SLOTS, "message");
  if (!push_part(c, L, TABLES) || n <= 0
      || lua_rawgeti(L, top + 1, n) != LUA_TTABLE) {
    lua_settop(L, top);
    return false;
  }
  lua_replace(L, top + 1);
  if (!metatable) {
    if (!rs_common_push(c, L)) {
      lua_settop(L, top);
      return false;
    }
    lua_insert(L, top + 1);
    if (!is_unchanged(L, top + 1, top + 2, n))
      restore_alone(L, top + 1);
    lua_replace(L, top + 1);
  }
  return true;
}

bool
rs_common_resolve_function (const rs_common *c, lua_State *L, lua_Integer n)
{
  const int top = lua_gettop(L);
  rs_level_room(L, LOOK_SLOTS, "message");
  if (!rs_common_push(c, L))
    return false;
  lua_rawgeti(L, top + 1, CONTENTS);
  if (n <= 0 || lua_rawgeti(L, top + 2, n) != LUA_TTABLE)
    return false;
  lua_pushvalue(L, top);
  if (lua_rawget(L, top + 3) != LUA_TFUNCTION)
    return false;
  lua_replace(L, top);
  lua_settop(L, top + 1);
  lua_pushvalue(L, top);
  restore_alone(L, top + 1);
  lua_replace(L, top);
  lua_settop(L, top);
  return true;
}
