/* SPDX-License-Identifier: MIT */
/*
 * decoder.c - bytes to Lua values.
 *
 * Scalars but long strings are read by scalar.h.  For any other value
 * 'rs_decode_other' reads the tag, and calls the function for that kind of
 * value: decode_table.c has those for tables, function.c for functions,
 * decode_object.c for other objects.
 *
 * The decoder trusts nothing in a message but bytecode, calls and pointers,
 * which can be forbidden.  Each length is compared with the bytes that are
 * left before it is used.
 *
 * All memory belongs to Lua or is on the C stack: any call may raise.
 */
#include "value/decoder.h"

#include <limits.h>
#include <stdlib.h>

#include "base/level.h"
#include "value/wire.h"

/* ---------------------------------------------------------------- reading */

void
rs_decoder_bad (rs_decoder *d, lua_State *L, const char *what)
{
  d->bad = true;
  lua_pushfstring(L, "bad message at byte %I: %s", (LUAI_UACINT) d->at, what);
  lua_error(L);
  abort();  /* not reached */
}

size_t
rs_decoder_length (rs_decoder *d, lua_State *L)
{
  uint64_t n = 0;
  for (unsigned shift = 0; shift < 63; shift += 7) {
    const unsigned byte = rs_decoder_byte(d, L);
    n |= (uint64_t) (byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift > 0)
        break;  /* fewer bytes would do */
      return n <= SIZE_MAX ? (size_t) n : SIZE_MAX;  /* more than is left */
    }
  }
  rs_decoder_bad(d, L, "bad length");
}

size_t
rs_decoder_size (rs_decoder *d, lua_State *L)
{
  const size_t n = rs_decoder_length(d, L);
  rs_decoder_need(d, L, n);
  return n;
}

void
rs_decoder_grow_stack (rs_decoder *d, lua_State *L)
{
  enum { AHEAD = 40 };
  if (!lua_checkstack(L, LUA_MINSTACK + AHEAD))
    rs_level_room(L, LUA_MINSTACK, "message");
  else
    d->stack = lua_gettop(L) + AHEAD;
}

void
rs_decoder_ref (rs_decoder *d, lua_State *L)
{
  const size_t id = rs_decoder_length(d, L);
  if (!(d->flags & RS_MESSAGE_REFS) || id >= d->next_id
      || lua_rawgeti(L, d->objects, (lua_Integer) id + 1) == LUA_TNIL)
    rs_decoder_bad(d, L, "a reference to nothing");
}

/* ------------------------------------------------------------------- runs */

void
rs_decoder_begin_run (rs_decoder *d, lua_State *L)
{
  const size_t left = d->size - d->at;
  const size_t n = rs_get_run(d->data + d->at, left);
  if (n == 0) {
    const bool none = left >= RS_WIRE_RUN
                   && rs_wire_get32(d->data + d->at + 1) == 0;
    d->at += left < RS_WIRE_RUN ? 1 : RS_WIRE_RUN;
    rs_decoder_bad(d, L, none ? "a run of no numbers" : "cut short");
  }
  d->run = d->data[d->at];
  d->left = n;
  d->at += RS_WIRE_RUN;
}

void
rs_decoder_assign_run (rs_decoder *d, lua_State *L, int index,
                       lua_Integer first, size_t n)
{
  const unsigned char *from = d->data + d->at;
  for (size_t i = 0; i < n; i++, from += 8) {
    rs_get_packed(L, from, d->run);
    lua_rawseti(L, index, first + (lua_Integer) i);
  }
  d->at += 8 * n;
  d->left -= n;
}

/* ---------------------------------------------------------- the collector */

/*
 * While a large message is read, all new values are alive, so there is no
 * garbage.  But a state that grows from next to nothing would mark all of them
 * each time it has doubled, and the young ones in between.  So the collector
 * gets an advance: it does not count so many bytes for now.  The advance is
 * taken back at the end of the message, or before code of the program runs,
 * which may make garbage; then the collector runs if it is due.  Its count is
 * then as without the advance, so a state whose jobs only receive messages is
 * collected, too.
 */
enum {
  QUIET_FROM = 64 << 10,  /* least bytes of a large message */
  QUIET_TIMES = 16        /* Lua's memory for a table, as a multiple of its
                             bytes here, at most */
};

static void
begin_quiet (rs_decoder *d, lua_State *L)
{
  const size_t most = INT_MAX / QUIET_TIMES;
  const size_t kib = d->size / 1024 < most ? d->size / 1024 : most;
  d->advance = QUIET_TIMES * (int) kib;
  lua_gc(L, LUA_GCSTEP, -d->advance);
}

void
rs_decoder_end_quiet (rs_decoder *d, lua_State *L)
{
  const int advance = d->advance;
  d->advance = 0;
  if (advance > 0)
    lua_gc(L, LUA_GCSTEP, advance);
}

/* ----------------------------------------------------------------- values */

/* [-0, +1, m]  Push a string too long for its size to be in the tag. */
static void
decode_string (rs_decoder *d, lua_State *L)
{
  const size_t size = rs_decoder_size(d, L);
  if (size <= RS_WIRE_SHORT_MAX)
    rs_decoder_bad(d, L, "a string longer than it has to be");
  if (size >= QUIET_FROM)
    rs_decoder_end_quiet(d, L);  /* room may come from garbage strings */
  lua_pushlstring(L, (const char *) d->data + d->at, size);
  d->at += size;
}

/* Refuse the tag behind which the decoder is: a scalar that could not be read,
   or no tag of a value. */
static _Noreturn void
refuse_tag (rs_decoder *d, lua_State *L, unsigned tag)
{
  const int size = rs_wire_scalar_size(tag);
  if (size < 0) {
    d->at--;
    rs_decoder_bad(d, L, "no such kind of value");
  }
  rs_decoder_need(d, L, (size_t) size);
  rs_decoder_bad(d, L, "an integer longer than it has to be");
}

void
rs_decode_other (rs_decoder *d, lua_State *L)
{
  unsigned tag = rs_decoder_byte(d, L);
  while (tag == RS_TAG_SHAPE) {
    rs_decode_shape(d, L);
    if (rs_decode_scalar(d, L))
      return;
    tag = rs_decoder_byte(d, L);
  }
  switch (tag) {
    case RS_TAG_STRING:
      decode_string(d, L);
      break;
    case RS_TAG_TABLE:
    case RS_TAG_TABLE_META:
    case RS_TAG_TABLE_META_OPEN:
    case RS_TAG_RECORD:
    case RS_TAG_RECORD_META:
    case RS_TAG_RECORD_META_OPEN:
      rs_decode_table(d, L, tag);
      break;
    case RS_TAG_REF:
      rs_decoder_ref(d, L);
      break;
    case RS_TAG_NAMED:
      rs_decode_named(d, L);
      break;
    case RS_TAG_ENV:
      rs_decode_env(d, L);
      break;
    case RS_TAG_FUNCTION:
    case RS_TAG_FUNCTION_LATER:
      rs_decode_function(d, L, tag);
      break;
    case RS_TAG_LATER:
      rs_decode_later(d, L);
      break;
    case RS_TAG_NAMED_TABLE:
      rs_decode_named_table(d, L);
      break;
    case RS_TAG_COMMON:
      rs_decode_marked(d, L);
      break;
    case RS_TAG_COMMON_REF:
      rs_decode_common(d, L, false);
      break;
    case RS_TAG_COMMON_CLASS:
      rs_decode_common(d, L, true);
      break;
    case RS_TAG_COMMON_FUNCTION:
      rs_decode_common_function(d, L);
      break;
    case RS_TAG_CFUNCTION:
    case RS_TAG_POINTER:
      rs_decode_pointer(d, L, tag);
      break;
    case RS_TAG_REBUILD:
      rs_decode_rebuild(d, L);
      break;
    case RS_TAG_REPLACED:
      rs_decode_replaced(d, L);
      break;
    default:
      refuse_tag(d, L, tag);
  }
}

void
rs_decode_any (rs_decoder *d, lua_State *L)
{
  rs_decode_next(d, L);
}

/* ------------------------------------------------------------ the decoder */

void
rs_decoder_init (rs_decoder *d, lua_State *L, const rs_message *msg,
                 unsigned forbidden)
{
  *d = (rs_decoder) { .data = msg->data, .size = msg->size,
                      .forbidden = forbidden | msg->forbidden };
  forbidden = d->forbidden & (RS_MESSAGE_CODE | RS_MESSAGE_LOCAL);
  rs_decoder_need(d, L, RS_WIRE_HEADER);
  if (d->data[0] != 'R' || d->data[1] != 'S')
    rs_decoder_bad(d, L, "no message");
  d->at = RS_WIRE_AT_VERSION;
  if (d->data[d->at] != RS_WIRE_VERSION)
    rs_decoder_bad(d, L, "a version that is not known here");
  d->at = RS_WIRE_AT_FLAGS;
  d->flags = d->data[d->at];
  if (d->flags & ~(unsigned) RS_WIRE_FLAGS)
    rs_decoder_bad(d, L, "flags that are not known here");
  if (d->flags & forbidden)
    rs_decoder_bad(d, L, forbidden & d->flags & RS_MESSAGE_CODE
                         ? "bytecode is not accepted here"
                         : "pointers are not accepted here");
  d->at = RS_WIRE_AT_OBJECTS;
  const size_t objects = d->flags & RS_MESSAGE_REFS
                       ? rs_wire_get32(d->data + d->at) : 0;
  if (objects > d->size)
    rs_decoder_bad(d, L, "more objects than bytes");
  d->at = RS_WIRE_HEADER;
  if (d->flags & (RS_MESSAGE_REFS | RS_MESSAGE_SHAPES)) {
    const size_t keys = d->flags & RS_MESSAGE_SHAPES
                      ? RS_SHAPES * RS_SHAPE_KEYS : 0;
    rs_level_room(L, LUA_MINSTACK, "message");
    lua_createtable(L, objects > INT32_MAX / 2 ? 0 : (int) (objects + keys),
                    0);
    d->objects = lua_gettop(L);
    d->count = objects;
  }
}

bool
rs_decoder_at_end (const rs_decoder *d)
{
  return d->at == d->size;  /* all numbers of a run are read then, too */
}

void
rs_decoder_raw (rs_decoder *d, lua_State *L, void *bytes, size_t n)
{
  if (d->left > 0)
    rs_decoder_bad(d, L, "a run that does not end");
  rs_decoder_need(d, L, n);
  memcpy(bytes, d->data + d->at, n);
  d->at += n;
}

/* True when the next value is a number of a run. */
static inline bool
in_run (rs_decoder *d, lua_State *L)
{
  if (d->left > 0)
    return true;
  rs_decoder_need(d, L, 1);
  if (!rs_wire_is_run(d->data[d->at]))
    return false;
  rs_decoder_begin_run(d, L);
  return true;
}

void
rs_decode_one (rs_decoder *d, lua_State *L)
{
  if (in_run(d, L)) {
    rs_decode_packed(d, L);
    return;
  }
  d->upvalue = 0;
  d->stack = 0;
  rs_decode_any(d, L);
  if (d->later > 0)
    rs_decode_rest(d, L);
  if (d->late > 0)
    rs_decode_late_metatables(d, L);
}

size_t
rs_decode_scalars (rs_decoder *d, lua_State *L, int index, lua_Integer first,
                   size_t n)
{
  size_t i = 0;
  while (i < n) {
    const lua_Integer field = first + (lua_Integer) i;
    if (in_run(d, L)) {
      const size_t count = d->left < n - i ? d->left : n - i;
      rs_decoder_assign_run(d, L, index, field, count);
      i += count;
    }
    else if (rs_wire_is_scalar(d->data[d->at])) {
      rs_decode_any(d, L);
      lua_rawseti(L, index, field);
      i++;
    }
    else
      break;
  }
  return i;
}

int
rs_decode_small (lua_State *L, const rs_message *msg)
{
  if (msg->size < RS_WIRE_HEADER || msg->size > RS_SMALL_MAX
      || !rs_wire_is_plain_header(msg->data))
    return -1;
  size_t at = RS_WIRE_HEADER;
  int n = 0;
  if (at == msg->size)
    return 0;
  rs_level_room(L, (int) (msg->size - at) + LUA_MINSTACK, "too many values");
  for (; at < msg->size; n++) {
    const size_t size = rs_get_scalar(L, msg->data + at, msg->size - at);
    if (size == 0) {
      lua_pop(L, n);
      return -1;
    }
    at += size;
  }
  return n;
}

int
rs_decode (lua_State *L, rs_message *msg)
{
  bool metatables;
  return L == NULL || msg == NULL
         ? 0 : rs_decode_all(L, msg, NULL, 0, &metatables);
}

int
rs_decode_result (lua_State *L, const rs_message *msg,
                  const rs_message *function)
{
  bool metatables;
  const rs_common common = { .sent = function };
  return rs_decode_all(L, msg, &common, 0, &metatables);
}

/* [-(0|1), +n, e]  Push all values in the place of the table of objects.
   Returns how many. */
static int
push_values (rs_decoder *d, lua_State *L)
{
  const int base = lua_gettop(L);
  while (!rs_decoder_at_end(d)) {
    rs_level_room(L, LUA_MINSTACK, "too many values");
    rs_decode_value(d, L);
  }
  const int n = lua_gettop(L) - base;
  if (d->objects != 0)
    lua_remove(L, d->objects);
  return n;
}

/* Begin to read a message all of whose values are wanted. */
static void
begin_all (rs_decoder *d, lua_State *L, const rs_message *msg,
           const rs_common *common, int marks)
{
  rs_decoder_init(d, L, msg, 0);
  if (common != NULL)
    d->common = *common;
  d->marks_ref = marks;
}

/* The arguments of 'push_quietly', and what it finds. */
typedef struct whole {
  const rs_message *msg;
  const rs_common *common;
  int marks;
  bool metatables;
} whole;

/* (decoder)  __close: take back its advance. */
static int
close_quiet (lua_State *L)
{
  rs_decoder_end_quiet(lua_touserdata(L, 1), L);
  return 0;
}

/*
 * (whole)  Return all values, with an advance for the collector.  The decoder
 * is a value to be closed.  A protected call would do as well but for errors,
 * which it would raise again: a message handler could not tell any more where
 * they come from.
 */
static int
push_quietly (lua_State *L)
{
  whole *const w = lua_touserdata(L, 1);
  lua_settop(L, 0);
  rs_decoder *const d = lua_newuserdatauv(L, sizeof *d, 0);
  d->advance = 0;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_quiet);
  lua_setfield(L, -2, "__close");
  lua_setmetatable(L, 1);
  lua_toclose(L, 1);
  begin_all(d, L, w->msg, w->common, w->marks);
  begin_quiet(d, L);
  const int n = push_values(d, L);
  rs_decoder_end_quiet(d, L);
  w->metatables = d->metatables;
  return n;
}

int
rs_decode_all (lua_State *L, const rs_message *msg, const rs_common *common,
               int marks, bool *metatables)
{
  int n = rs_decode_small(L, msg);
  if (n >= 0)
    return n;
  whole w = { msg, common, marks, false };
  if (msg->size < QUIET_FROM || !lua_gc(L, LUA_GCISRUNNING)) {
    rs_decoder d;
    begin_all(&d, L, msg, common, marks);
    n = push_values(&d, L);
    w.metatables = d.metatables;
  }
  else {
    const int base = lua_gettop(L);
    rs_level_room(L, LUA_MINSTACK, "message");
    lua_pushcfunction(L, push_quietly);
    lua_pushlightuserdata(L, &w);
    lua_call(L, 1, LUA_MULTRET);
    n = lua_gettop(L) - base;
  }
  if (w.metatables)
    *metatables = true;
  return n;
}
