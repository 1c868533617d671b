/* SPDX-License-Identifier: MIT */
/*
 * loptions.c - options in tables of Lua, by the rows of the library.
 *
 * A row (base/options.h) says all that Lua has to know of an option.  So an
 * option that gets a row can be given in Lua, and is refused there by the
 * bounds that hold in C.
 */
#include "face/loptions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "face/lhandle.h"

static const struct { const char *name; const rs_option *rows; } groups[] = {
  { "call", rs_call_limits },
  { "job", rs_job_numbers },
  { "batch", rs_batch_numbers },
  { "runspace", rs_runspace_limits },
  { "pool", rs_pool_numbers },
  { "queue", rs_queue_limits },
};

enum { GROUPS = sizeof groups / sizeof groups[0] };

static const char *
kind_of (const rs_option *o)
{
  switch (o->type) {
    case RS_OPTION_SECONDS:
    case RS_OPTION_DELAY: return "seconds";
    case RS_OPTION_FACTOR: return "factor";
    case RS_OPTION_BYTES: return "bytes";
    case RS_OPTION_FLAG: return "flag";
    default: return "whole";
  }
}

void
rs_set_options (lua_State *L)
{
  lua_createtable(L, 0, GROUPS);
  for (int i = 0; i < GROUPS; i++) {
    lua_newtable(L);
    for (const rs_option *o = groups[i].rows; o->name != NULL; o++) {
      lua_pushstring(L, kind_of(o));
      lua_setfield(L, -2, o->name);
    }
    lua_setfield(L, -2, groups[i].name);
  }
  lua_setfield(L, -2, "options");
}

/* [-0, +0, -]  Get the value at 'index'.  False when its type is not that of
   the option. */
static bool
get_value (lua_State *L, int index, const rs_option *o, rs_option_value *v)
{
  int is_whole = 1;
  if (o->type == RS_OPTION_FLAG) {
    v->n = lua_toboolean(L, index);
    return lua_isboolean(L, index);
  }
  if (rs_option_is_double(o))
    v->seconds = lua_tonumber(L, index);
  else
    v->n = lua_tointegerx(L, index, &is_whole);
  return is_whole && lua_type(L, index) == LUA_TNUMBER;
}

int
rs_lua_expected (lua_State *L)
{
  const char *const name = luaL_checkstring(L, 1);
  char text[RS_OPTION_TEXT];
  luaL_checkany(L, 2);
  for (int i = 0; i < GROUPS; i++)
    for (const rs_option *o = groups[i].rows; o->name != NULL; o++)
      if (strcmp(o->name, name) == 0) {
        rs_option_value v = { .n = 0 };
        if (get_value(L, 2, o, &v) && rs_option_takes(o, v))
          return 0;
        rs_option_expect(o, v, text);
        lua_pushstring(L, text);
        return 1;
      }
  return luaL_error(L, "no option '%s'", name);
}

void
rs_read_options (lua_State *L, int index, const rs_option *rows, void *out)
{
  for (const rs_option *o = rows; o->name != NULL; o++) {
    rs_option_value v;
    if (lua_getfield(L, index, o->name) != LUA_TNIL
        && get_value(L, -1, o, &v)) {
      if (o->type == RS_OPTION_SECONDS && isinf(v.seconds))
        v.seconds = 0;  /* no limit */
      rs_option_set(o, out, v);
    }
    lua_pop(L, 1);
  }
}

const char *const *
rs_read_words (lua_State *L, int index, const char *name)
{
  if (lua_getfield(L, index, name) == LUA_TNIL) {
    lua_pushnil(L);
    return NULL;
  }
  const int list = lua_gettop(L);
  luaL_checktype(L, list, LUA_TTABLE);
  const size_t n = (size_t) lua_rawlen(L, list);
  const char **const words = lua_newuserdatauv(L, (n + 1) * sizeof *words, 0);
  for (size_t i = 0; i < n; i++) {
    if (lua_rawgeti(L, list, (lua_Integer) i + 1) != LUA_TSTRING)
      rs_handle_error(L, "%s has a word that is no string", name);
    words[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  words[n] = NULL;
  return words;
}

const char *const *
rs_read_globals (lua_State *L, int index)
{
  static const char *const no_others[] = { NULL };
  if (lua_getfield(L, index, "globals") == LUA_TBOOLEAN) {
    const bool travel = lua_toboolean(L, -1);
    lua_pushnil(L);
    return travel ? no_others : RS_NO_GLOBALS;
  }
  lua_pop(L, 1);
  return rs_read_words(L, index, "globals");
}

const lua_Integer *
rs_read_seed (lua_State *L, int index, lua_Integer *room)
{
  int given = 0;
  if (lua_getfield(L, index, "seed") != LUA_TNIL)
    *room = lua_tointegerx(L, -1, &given);
  lua_pop(L, 1);
  return given ? room : NULL;
}

int
rs_raise_named (lua_State *L, int index, const rs_error *err)
{
  static const char start[] = "argument ";
  char *end;
  if (strncmp(err->text, start, sizeof start - 1) != 0
      || lua_getfield(L, index, "names") != LUA_TTABLE)
    return rs_handle_raise(L, err);
  const long place = strtol(err->text + sizeof start - 1, &end, 10);
  if (strncmp(end, ": ", 2) != 0)
    return rs_handle_raise(L, err);
  switch (lua_rawgeti(L, -1, place)) {
    case LUA_TSTRING:
      return rs_handle_error(L, "parameter '%s'%s", lua_tostring(L, -1), end);
    case LUA_TNUMBER:
      return rs_handle_error(L, "%s%I%s", start,
                             (LUAI_UACINT) lua_tointeger(L, -1), end);
    case LUA_TBOOLEAN:
      return rs_handle_error(L, "%s", end + 2);
    default:
      return rs_handle_raise(L, err);
  }
}
