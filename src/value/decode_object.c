/* SPDX-License-Identifier: MIT */
/*
 * decode_object.c - bytes to objects that are not told by their contents
 * alone: named objects, tables of both sides, results of '__transfer',
 * pointers.
 *
 * A name may load a module, and a call runs code of the program: both may make
 * garbage, change classes, and decode messages themselves.
 */
#include "value/decoder.h"

#include <stdio.h>

#include "base/level.h"
#include "base/stack.h"
#include "value/mask.h"
#include "value/wire.h"

/* ---------------------------------------------------------------- names */

static rs_name
get_name (rs_decoder *d, lua_State *L)
{
  rs_name name;
  name.parts = rs_decoder_byte(d, L);
  if (name.parts == 0 || name.parts > RS_WIRE_NAME_PARTS)
    rs_decoder_bad(d, L, "bad name");
  for (unsigned i = 0; i < name.parts; i++) {
    name.size[i] = rs_decoder_size(d, L);
    name.part[i] = (const char *) d->data + d->at;
    d->at += name.size[i];
  }
  return name;
}

void
rs_decode_named (rs_decoder *d, lua_State *L)
{
  const unsigned id = d->next_id++;
  const rs_name name = get_name(d, L);
  rs_level_room(L, LUA_MINSTACK, "message");
  const char *user = "a transferred value";
  char text[160];
  if (d->upvalue != 0) {  /* is an upvalue of a function read? */
    lua_Debug ar;
    lua_pushvalue(L, d->function);
    lua_getinfo(L, ">S", &ar);
    const char *const upvalue = lua_getupvalue(L, d->function, d->upvalue);
    if (upvalue != NULL) {
      snprintf(text, sizeof text, "upvalue '%.40s' of function <%s:%d>",
               upvalue, ar.short_src, ar.linedefined);
      lua_pop(L, 1);
      user = text;
    }
  }
  rs_decoder_end_quiet(d, L);  /* the name may load a module */
  if (d->forbidden & RS_MESSAGE_NAMES)
    rs_name_accept(L, &name);
  rs_name_push(L, &name, user);
  rs_decoder_register(d, L, id);
  if (d->forbidden & RS_MESSAGE_METHODS) {
    if (lua_type(L, -1) != LUA_TTABLE)
      rs_decoder_bad(d, L, "functions are not accepted here");
    if (d->objects != 0) {  /* note it as this state's, should it be a
                               metatable */
      lua_pushvalue(L, -1);
      lua_pushboolean(L, 1);
      lua_rawset(L, d->objects);
    }
  }
}

void
rs_decode_env (rs_decoder *d, lua_State *L)
{
  if (d->forbidden & RS_MESSAGE_METHODS)
    rs_decoder_bad(d, L, "the globals are not accepted here");
  rs_env_push(L);
}

/* ------------------------------------------------ tables of both sides */

/* [-0, +0, v]  Read the number of a table that this state has. */
static lua_Integer
get_number (rs_decoder *d, lua_State *L)
{
  const size_t n = rs_decoder_length(d, L);
  if (!(d->flags & RS_MESSAGE_COMMON) || n > INT32_MAX)
    rs_decoder_bad(d, L, "a table that nobody has sent");
  return (lua_Integer) n;
}

void
rs_decode_common (rs_decoder *d, lua_State *L, bool as_it_is)
{
  const lua_Integer n = get_number(d, L);
  if (!rs_common_resolve(&d->common, L, n, as_it_is))
    rs_decoder_bad(d, L, "a table of a function that is not here");
}

void
rs_decode_common_function (rs_decoder *d, lua_State *L)
{
  const lua_Integer n = get_number(d, L);
  if (d->forbidden & RS_MESSAGE_CODE)
    rs_decoder_bad(d, L, "functions are not accepted here");
  if (!rs_decode_scalar(d, L)) {
    if (rs_decoder_byte(d, L) != RS_TAG_STRING)
      rs_decoder_bad(d, L, "no key of a function");
    d->at--;
    rs_decode_other(d, L);
  }
  if (!rs_common_resolve_function(&d->common, L, n))
    rs_decoder_bad(d, L, "a function of a table that is not here");
}

/* The two tables that 'is_same' compares. */
typedef struct pair {
  int copy, own;     /* stack indices */
  unsigned fields;   /* fields that may still be compared */
} pair;

enum { SAME_DEPTH = 4, SAME_FIELDS = 512 };

static bool is_same (lua_State *L, pair *p, int a, int b, int depth);

/* [-2, +0, -]  True when the two values on top are the same, as values of one
   module that two states have loaded. */
static bool
is_same_value (lua_State *L, pair *p, int depth)
{
  const int b = lua_gettop(L), a = b - 1;
  const int type = lua_type(L, a);
  bool same = lua_rawequal(L, a, b)
           || (lua_rawequal(L, a, p->copy) && lua_rawequal(L, b, p->own));
  if (!same && type == lua_type(L, b))
    same = type == LUA_TFUNCTION
        || (type == LUA_TNUMBER && !lua_rawequal(L, a, a)
            && !lua_rawequal(L, b, b))
        || (type == LUA_TTABLE && depth < SAME_DEPTH
            && is_same(L, p, a, b, depth + 1));
  lua_settop(L, a - 1);
  return same;
}

static bool
is_same (lua_State *L, pair *p, int a, int b, int depth)
{
  const int top = lua_gettop(L);
  size_t n = 0;
  rs_level_room(L, LUA_MINSTACK, "message");
  if (!lua_getmetatable(L, a))
    lua_pushnil(L);
  if (!lua_getmetatable(L, b))
    lua_pushnil(L);
  bool same = is_same_value(L, p, depth);
  lua_pushnil(L);
  while (same && lua_next(L, a)) {
    lua_pushvalue(L, top + 1);
    lua_rawget(L, b);
    same = p->fields > 0 && is_same_value(L, p, depth);
    p->fields -= p->fields > 0;
    n++;
  }
  if (same) {
    lua_settop(L, top);
    lua_pushnil(L);
    while (lua_next(L, b)) {
      lua_pop(L, 1);
      n--;
    }
  }
  lua_settop(L, top);
  return same && n == 0;
}

void
rs_decode_named_table (rs_decoder *d, lua_State *L)
{
  const rs_name name = get_name(d, L);
  const unsigned id = d->next_id;
  rs_decode_table(d, L, rs_decoder_byte(d, L));
  const int copy = lua_gettop(L);
  if (d->missing != NULL && d->missing_size == name.size[0]
      && memcmp(d->missing, name.part[0], name.size[0]) == 0)
    return;
  rs_level_room(L, LUA_MINSTACK, "message");
  rs_decoder_end_quiet(d, L);  /* the name may load a module */
  if ((d->forbidden & RS_MESSAGE_METHODS) && rs_name_is_library(&name))
    return;
  if (!rs_name_try_push(L, &name, d->common.loads
                                  && !(d->forbidden & RS_MESSAGE_NAMES))) {
    d->missing = name.part[0];
    d->missing_size = name.size[0];
  }
  pair p = { copy, copy + 1, SAME_FIELDS };
  if (lua_type(L, copy + 1) == LUA_TTABLE
      && is_same(L, &p, copy, copy + 1, 0)) {
    lua_replace(L, copy);
    rs_decoder_register(d, L, id);
  }
  lua_settop(L, copy);
}

void
rs_decode_marked (rs_decoder *d, lua_State *L)
{
  const unsigned n = ++d->marks;
  const unsigned tag = rs_decoder_byte(d, L);
  if (tag == RS_TAG_LATER)
    rs_decode_later(d, L);
  else if (tag == RS_TAG_NAMED_TABLE)
    rs_decode_named_table(d, L);
  else
    rs_decode_table(d, L, tag);
  if (d->marks_ref != 0)
    rs_common_add(L, d->marks_ref, n);
}

/* ------------------------------------------------ calls and pointers */

void
rs_decode_rebuild (rs_decoder *d, lua_State *L)
{
  if ((d->forbidden & RS_MESSAGE_CODE) || !(d->flags & RS_MESSAGE_CODE))
    rs_decoder_bad(d, L, "calls are not accepted here");
  const unsigned id = rs_decoder_enter(d, L);
  const int n = (int) rs_decoder_byte(d, L);
  if (n > RS_WIRE_RESULTS)
    rs_decoder_bad(d, L, "too many arguments");
  rs_level_room(L, n + LUA_MINSTACK, "message");
  d->upvalue = 0;
  for (int i = 0; i <= n; i++)
    rs_decode_any(d, L);
  rs_decoder_end_quiet(d, L);
  rs_stack_check(L);  /* the function may decode, too */
  lua_call(L, n, 1);
  d->tame = NULL;  /* the function may have changed classes */
  rs_decoder_register(d, L, id);
  rs_decoder_leave(d);
}

void
rs_decode_replaced (rs_decoder *d, lua_State *L)
{
  const unsigned id = rs_decoder_enter(d, L);
  d->upvalue = 0;
  rs_decode_any(d, L);
  rs_decoder_register(d, L, id);
  rs_decoder_leave(d);
}

void
rs_decode_pointer (rs_decoder *d, lua_State *L, unsigned tag)
{
  const bool null = tag == RS_TAG_POINTER && d->size - d->at >= 8
                 && rs_wire_get64(d->data + d->at) == 0;
  if (!null && ((d->forbidden & RS_MESSAGE_LOCAL)
                || !(d->flags & RS_MESSAGE_LOCAL)))
    rs_decoder_bad(d, L, "pointers are not accepted here");
  rs_decoder_need(d, L, 8);
  const uint64_t bits = rs_wire_get64(d->data + d->at);
  d->at += 8;
  if (tag == RS_TAG_POINTER)
    lua_pushlightuserdata(L, (void *) (uintptr_t) bits);
  else {
    lua_CFunction f;
    memcpy(&f, &bits, sizeof f);
    if (f == NULL)
      rs_decoder_bad(d, L, "no C function");
    lua_pushcfunction(L, f);
    rs_decoder_register(d, L, d->next_id++);
  }
}
