/* SPDX-License-Identifier: MIT */
/*
 * decoder.c - bytes to Lua values.
 *
 * The decoder trusts nothing in a message but bytecode, which can be
 * forbidden.  Each length is compared with the bytes that are left before it
 * is used.  The tables of a message cannot announce more fields together than
 * the message has bytes, since each field takes one.  So a table is made with
 * room for all fields that it announces, and a false number cannot ask for
 * much memory.
 *
 * All memory belongs to Lua or is on the C stack: any call may raise.
 *
 * A metatable is set after the fields, and then takes effect with all that it
 * has ('__gc', '__mode').  A metatable waits if it is not complete yet, since
 * the object is inside of it or its contents follow the value, or if it has to
 * be checked first.  Then the object and the metatable are in the table of
 * objects, under negative numbers, until the whole value is complete.
 */
#include "value/decoder.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "base/level.h"
#include "base/stack.h"
#include "value/mask.h"
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

static inline void
need (rs_decoder *d, lua_State *L, size_t n)
{
  if (n > d->size - d->at)
    rs_decoder_bad(d, L, "cut short");
}

void
rs_decoder_need (rs_decoder *d, lua_State *L, size_t n)
{
  need(d, L, n);
}

unsigned
rs_decoder_byte (rs_decoder *d, lua_State *L)
{
  need(d, L, 1);
  return d->data[d->at++];
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

/* Read a length of bytes that follow. */
static size_t
get_size (rs_decoder *d, lua_State *L)
{
  const size_t n = rs_decoder_length(d, L);
  need(d, L, n);
  return n;
}

static uint64_t
get_eight (rs_decoder *d, lua_State *L)
{
  need(d, L, 8);
  const uint64_t bits = rs_wire_get64(d->data + d->at);
  d->at += 8;
  return bits;
}

static inline void
push_bytes (rs_decoder *d, lua_State *L, size_t n)
{
  lua_pushlstring(L, (const char *) d->data + d->at, n);
  d->at += n;
}

/* ---------------------------------------------------------------- objects */

/* Make room on the stack for this level, and for some inner ones. */
static void
grow_stack (rs_decoder *d, lua_State *L)
{
  enum { AHEAD = 40 };
  if (!lua_checkstack(L, LUA_MINSTACK + AHEAD))
    rs_level_room(L, LUA_MINSTACK, "message");
  else
    d->stack = lua_gettop(L) + AHEAD;
}

static inline unsigned
enter (rs_decoder *d, lua_State *L)
{
  if (d->depth == RS_WIRE_DEPTH)
    rs_decoder_bad(d, L, "nested too deep");
  if (lua_gettop(L) > d->stack)
    grow_stack(d, L);
  d->depth++;
  return d->next_id++;
}

unsigned
rs_decoder_enter (rs_decoder *d, lua_State *L)
{
  return enter(d, L);
}

void
rs_decoder_leave (rs_decoder *d)
{
  d->depth--;
}

static inline void
set_object (rs_decoder *d, lua_State *L, unsigned id)
{
  if (d->flags & RS_MESSAGE_REFS) {
    if (id >= d->count)  /* the keys of shapes are behind the objects */
      rs_decoder_bad(d, L, "more objects than announced");
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->objects, (lua_Integer) id + 1);
  }
}

void
rs_decoder_register (rs_decoder *d, lua_State *L, unsigned id)
{
  set_object(d, L, id);
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

/* Begin to read the run whose tag is next. */
static void
begin_run (rs_decoder *d, lua_State *L)
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

/* [-0, +0, m]  Assign the next 'n' numbers of the run to the fields from
   'first' on of the table at 'index'. */
static void
assign_run (rs_decoder *d, lua_State *L, int index, lua_Integer first,
            size_t n)
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

static void
end_quiet (rs_decoder *d, lua_State *L)
{
  const int advance = d->advance;
  d->advance = 0;
  if (advance > 0)
    lua_gc(L, LUA_GCSTEP, advance);
}

/* ----------------------------------------------------------------- values */

/* [-0, +(0|1), m]  Push the next value if it is a scalar. */
static inline __attribute__ ((always_inline)) bool
push_scalar (rs_decoder *d, lua_State *L)
{
  const size_t n = rs_get_scalar(L, d->data + d->at, d->size - d->at);
  d->at += n;
  return n > 0;
}

/* [-0, +1, e]  Push the next value. */
static inline __attribute__ ((always_inline)) void
decode_next (rs_decoder *d, lua_State *L)
{
  if (!push_scalar(d, L))
    rs_decode_any(d, L);
}

static rs_name
get_name (rs_decoder *d, lua_State *L)
{
  rs_name name;
  name.parts = rs_decoder_byte(d, L);
  if (name.parts == 0 || name.parts > RS_WIRE_NAME_PARTS)
    rs_decoder_bad(d, L, "bad name");
  for (unsigned i = 0; i < name.parts; i++) {
    name.size[i] = get_size(d, L);
    name.part[i] = (const char *) d->data + d->at;
    d->at += name.size[i];
  }
  return name;
}

static void
decode_named (rs_decoder *d, lua_State *L)
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
  end_quiet(d, L);  /* the name may load a module */
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

/* [-0, +1, e]  Read a key: any value but nil and NaN. */
static void
decode_key (rs_decoder *d, lua_State *L)
{
  decode_next(d, L);
  const int type = lua_type(L, -1);
  if (type == LUA_TNIL
      || (type == LUA_TNUMBER && !lua_rawequal(L, -1, -1)))
    rs_decoder_bad(d, L, "a key that no table can have");
}

/* [-0, +1, e]  Push a table that this state has already, by its number. */
static void
decode_common (rs_decoder *d, lua_State *L, bool metatable)
{
  const size_t n = rs_decoder_length(d, L);
  if (!(d->flags & RS_MESSAGE_COMMON) || n > INT32_MAX)
    rs_decoder_bad(d, L, "a table that nobody has sent");
  if (!rs_common_resolve(&d->common, L, (lua_Integer) n, metatable))
    rs_decoder_bad(d, L, "a table of a function that is not here");
}

/* [-1, +0, e]  Set the metatable on top; 'own' when it belongs to this
   state. */
static void
set_metatable (rs_decoder *d, lua_State *L, int table, bool own)
{
  if ((d->forbidden & RS_MESSAGE_METHODS) && !own) {
    if (d->objects != 0) {
      lua_pushvalue(L, -1);
      own = lua_rawget(L, d->objects) != LUA_TNIL;
      lua_pop(L, 1);
    }
    if (!own && rs_metatable_runs(L, -1) != NULL)
      rs_decoder_bad(d, L, "a metatable that runs code is not accepted here");
  }
  const void *const meta = lua_topointer(L, -1);
  if (meta != d->tame) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, -2) == LUA_TNIL)
      d->tame = meta;
    lua_pop(L, 1);
  }
  if (meta == d->tame)
    lua_setmetatable(L, table);
  else
    rs_set_copy_metatable(L, table);
}

static void
decode_metatable (rs_decoder *d, lua_State *L, int table, unsigned tag)
{
  need(d, L, 1);
  const bool own = d->data[d->at] == RS_TAG_NAMED
                || d->data[d->at] == RS_TAG_COMMON_REF;
  if (d->data[d->at] == RS_TAG_COMMON_REF) {
    d->at++;
    decode_common(d, L, true);
  }
  else
    rs_decode_any(d, L);
  if (lua_type(L, -1) != LUA_TTABLE)
    rs_decoder_bad(d, L, "a metatable that is no table");
  d->metatables = true;
  /* A metatable has to be complete when 'set_metatable' looks into it. */
  if (own || d->objects == 0
      || !(rs_wire_is_open(tag) || (d->forbidden & RS_MESSAGE_METHODS))) {
    set_metatable(d, L, table, own);
    return;
  }
  d->late++;
  lua_rawseti(L, d->objects, -2 * (lua_Integer) d->late);
  lua_pushvalue(L, table);
  lua_rawseti(L, d->objects, -2 * (lua_Integer) d->late + 1);
}

/* [-0, +0, m]  Set the metatables that waited: the value is complete. */
static void
set_late_metatables (rs_decoder *d, lua_State *L)
{
  while (d->late > 0) {
    const lua_Integer at = -2 * (lua_Integer) d->late;
    lua_rawgeti(L, d->objects, at + 1);
    lua_rawgeti(L, d->objects, at);
    set_metatable(d, L, lua_gettop(L) - 1, false);
    lua_pop(L, 1);
    d->late--;
  }
}

/* [-0, +0, v]  Count the fields of a table: 'array' values, 'named' fields
   whose keys are in a shape, and 'pairs' of key and value.  Raise if the
   message cannot have so many. */
static inline void
claim_fields (rs_decoder *d, lua_State *L, size_t array, size_t named,
              size_t pairs)
{
  const size_t left = d->size - d->at;
  const size_t single = array + named;
  if (single > left || pairs > (left - single) / 2
      || single + 2 * pairs > d->size - d->claimed)
    rs_decoder_bad(d, L, "a table larger than its message");
  d->claimed += single + 2 * pairs;
  if (array > INT32_MAX / 2 || named + pairs > INT32_MAX / 2)
    rs_decoder_bad(d, L, "a table too large for Lua");
}

/* [-0, +1, e]  Push a table with room for so many fields. */
static inline void
push_table (rs_decoder *d, lua_State *L, size_t array, size_t named,
            size_t pairs)
{
  claim_fields(d, L, array, named, pairs);
  lua_createtable(L, (int) array, (int) (named + pairs));
}

void
rs_decoder_later (rs_decoder *d, lua_State *L)
{
  if (!(d->flags & RS_MESSAGE_REFS))
    rs_decoder_bad(d, L, "an object for later where none is announced");
  if (lua_rawgeti(L, d->objects, 0) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->objects, 0);
  }
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (lua_Integer) ++d->later);
  lua_pop(L, 1);
}

/* [-0, +1, e]  Push an empty table, whose contents follow the value. */
static void
decode_later (rs_decoder *d, lua_State *L)
{
  const unsigned id = rs_decoder_enter(d, L);
  d->promised += RS_WIRE_BODY;
  if (d->promised > d->size - d->at)
    rs_decoder_bad(d, L, "more to come than there is");
  lua_newtable(L);
  set_object(d, L, id);
  rs_decoder_later(d, L);
  rs_decoder_leave(d);
}

/* [-0, +0, e]  Assign 'n' fields that come as key and value. */
static void
decode_pairs (rs_decoder *d, lua_State *L, int table, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    decode_key(d, L);
    decode_next(d, L);
    lua_rawset(L, table);
  }
}

/* The index in the table of objects at which the keys of a shape begin. */
static lua_Integer
keys_of (const rs_decoder *d, const rs_shape_read *s)
{
  return (lua_Integer) d->count + 1 + (s - d->shapes) * RS_SHAPE_KEYS;
}

/* [-0, +0, e]  Read the definition at offset 'at', which is behind its tag. */
static rs_shape_read *
read_shape (rs_decoder *d, lua_State *L, size_t at)
{
  rs_shape_read *const s = &d->shapes[at / 2 % RS_SHAPES];
  const size_t back = d->at;
  if (!(d->flags & RS_MESSAGE_SHAPES))
    rs_decoder_bad(d, L, "a shape where none is announced");
  d->at = at;
  const unsigned n = rs_decoder_byte(d, L);
  if (n == 0 || n > RS_SHAPE_KEYS)
    rs_decoder_bad(d, L, "a shape with too many keys, or none");
  s->at = 0;
  for (unsigned i = 0; i < n; i++) {
    const size_t size = rs_decoder_byte(d, L);
    if (size > RS_SHAPE_KEY_MAX)
      rs_decoder_bad(d, L, "a shape with a key too long");
    need(d, L, size);
    push_bytes(d, L, size);
    lua_rawseti(L, d->objects, keys_of(d, s) + (lua_Integer) i);
  }
  s->at = at;
  s->n = n;
  if (back > at)
    d->at = back;
  return s;
}

/* [-0, +0, e]  Find the shape that is defined at 'at', or read it again. */
static inline rs_shape_read *
find_shape (rs_decoder *d, lua_State *L, size_t at)
{
  rs_shape_read *const s = &d->shapes[at / 2 % RS_SHAPES];
  return s->at == at ? s : read_shape(d, L, at);
}

/* The keys of a shape, in stack slots while the records of an array are read:
   'lua_pushvalue' takes 15 instructions, 'lua_rawgeti' 45. */
typedef struct record_keys {
  size_t at;     /* offset of the definition in the message; 0: no keys yet */
  int first;     /* first of RS_SHAPE_KEYS slots; 0: none yet */
  unsigned n;
  size_t records, loads;  /* records of the array so far; how often keys were
                             loaded */
} record_keys;

/* [-0, +(0|RS_SHAPE_KEYS), e]  Load the keys of the shape at 'at' into the
   slots.  False when shapes change too often for that to pay. */
static bool
load_keys (rs_decoder *d, lua_State *L, record_keys *k, size_t at)
{
  if (k->loads * 4 > k->records)
    return false;
  k->loads++;
  const rs_shape_read *const s = find_shape(d, L, at);
  if (k->first == 0) {
    rs_level_room(L, RS_SHAPE_KEYS + LUA_MINSTACK, "message");
    k->first = lua_gettop(L) + 1;
    lua_settop(L, lua_gettop(L) + RS_SHAPE_KEYS);
  }
  for (unsigned i = 0; i < s->n; i++) {
    lua_rawgeti(L, d->objects, keys_of(d, s) + (lua_Integer) i);
    lua_replace(L, k->first + (int) i);
  }
  k->at = at;
  k->n = s->n;
  return true;
}

/* [-0, +1, e]  Push the record behind the tag.  'k' is given for a record of
   an array; this may push its slots first.  'later': the table was made
   before, and is on top already. */
static inline __attribute__ ((always_inline)) void
read_record (rs_decoder *d, lua_State *L, unsigned tag, record_keys *k,
             bool later)
{
  const unsigned id = later ? 0 : enter(d, L);
  need(d, L, 9);
  const size_t at = rs_wire_get32(d->data + d->at) + (size_t) 1;
  const unsigned n = d->data[d->at + 4];
  const size_t hash = rs_wire_get32(d->data + d->at + 5);
  if (k == NULL || k->at != at) {
    if (at <= RS_WIRE_HEADER || at > d->at || d->data[at - 1] != RS_TAG_SHAPE)
      rs_decoder_bad(d, L, "no shape where one should be");
    if (k != NULL && !load_keys(d, L, k, at))
      k = NULL;
  }
  d->at += 9;
  if (n > (k != NULL ? k->n : find_shape(d, L, at)->n))
    rs_decoder_bad(d, L, "more fields than its shape has");
  if (later)
    claim_fields(d, L, 0, n, hash);
  else {
    push_table(d, L, 0, n, hash);
    set_object(d, L, id);
  }
  const int table = lua_gettop(L);
  d->upvalue = 0;
  for (unsigned i = 0; i < n; i++) {
    if (k != NULL)
      lua_pushvalue(L, k->first + (int) i);
    else {
      /* A value may have put another shape in the place of this one. */
      const rs_shape_read *const s = find_shape(d, L, at);
      lua_rawgeti(L, d->objects, keys_of(d, s) + (lua_Integer) i);
    }
    decode_next(d, L);
    lua_rawset(L, table);
  }
  decode_pairs(d, L, table, hash);
  if (rs_wire_has_metatable(tag))
    decode_metatable(d, L, table, tag);
  d->depth--;
}

static void
decode_record (rs_decoder *d, lua_State *L, unsigned tag, record_keys *k)
{
  read_record(d, L, tag, k, false);
}

static void decode_table (rs_decoder *d, lua_State *L, unsigned tag);

/* [-0, +(0|RS_SHAPE_KEYS), e]  Assign the fields 1 to 'n' of the table at
   'table'. */
static void
decode_array (rs_decoder *d, lua_State *L, int table, size_t n)
{
  record_keys k = { .at = 0 };
  for (size_t i = 1; i <= n; ) {
    need(d, L, 1);
    const unsigned tag = d->data[d->at];
    if (rs_wire_is_run(tag)) {
      begin_run(d, L);
      const size_t count = d->left;
      if (count > n - i + 1)
        rs_decoder_bad(d, L, "a run longer than its table");
      assign_run(d, L, table, (lua_Integer) i, count);
      i += count;
      continue;
    }
    if (rs_wire_is_record(tag)) {
      d->at++;
      decode_record(d, L, tag, &k);
      k.records++;
    }
    else if (tag == RS_TAG_TABLE) {
      d->at++;
      decode_table(d, L, tag);
    }
    else
      decode_next(d, L);
    lua_rawseti(L, table, (lua_Integer) i++);
  }
}

/* [-0, +1, e]  Push the table behind the tag; 'later': the table was made
   before, and is on top already. */
static inline __attribute__ ((always_inline)) void
read_table (rs_decoder *d, lua_State *L, unsigned tag, bool later)
{
  const unsigned id = later ? 0 : enter(d, L);
  need(d, L, 8);
  const size_t array = rs_wire_get32(d->data + d->at);
  const size_t hash = rs_wire_get32(d->data + d->at + 4);
  d->at += 8;
  if (later)
    claim_fields(d, L, array, 0, hash);
  else {
    push_table(d, L, array, 0, hash);
    set_object(d, L, id);
  }
  const int table = lua_gettop(L);
  d->upvalue = 0;
  if (array > 0) {
    decode_array(d, L, table, array);
    lua_settop(L, table);
  }
  decode_pairs(d, L, table, hash);
  if (rs_wire_has_metatable(tag))
    decode_metatable(d, L, table, tag);
  d->depth--;
}

static void
decode_table (rs_decoder *d, lua_State *L, unsigned tag)
{
  read_table(d, L, tag, false);
}

/* Read the shapes that are defined behind 'tag', if that is the tag of one.
   Returns the tag of the value. */
static unsigned
pass_shapes (rs_decoder *d, lua_State *L, unsigned tag)
{
  while (tag == RS_TAG_SHAPE) {
    read_shape(d, L, d->at);
    tag = rs_decoder_byte(d, L);
  }
  return tag;
}

/* [-0, +1, e]  Push a table that is sent with its contents. */
static void
decode_plain_table (rs_decoder *d, lua_State *L, unsigned tag)
{
  tag = pass_shapes(d, L, tag);
  if (rs_wire_is_record(tag))
    decode_record(d, L, tag, NULL);
  else if (rs_wire_is_table(tag))
    decode_table(d, L, tag);
  else {
    d->at--;
    rs_decoder_bad(d, L, "no table where one should be");
  }
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

/* [-0, +1, e]  Push a table that is in a field of a module: the one in that
   field here if it has the same contents, else the one of the message. */
static void
decode_named_table (rs_decoder *d, lua_State *L)
{
  const rs_name name = get_name(d, L);
  const unsigned id = d->next_id;
  decode_plain_table(d, L, rs_decoder_byte(d, L));
  const int copy = lua_gettop(L);
  if (d->missing != NULL && d->missing_size == name.size[0]
      && memcmp(d->missing, name.part[0], name.size[0]) == 0)
    return;
  rs_level_room(L, LUA_MINSTACK, "message");
  end_quiet(d, L);  /* the name may load a module */
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
    set_object(d, L, id);
  }
  lua_settop(L, copy);
}

/* [-0, +1, e]  Push a table that other messages may name. */
static void
decode_marked (rs_decoder *d, lua_State *L)
{
  const unsigned n = ++d->marks;
  const unsigned tag = rs_decoder_byte(d, L);
  if (tag == RS_TAG_LATER)
    decode_later(d, L);
  else if (tag == RS_TAG_NAMED_TABLE)
    decode_named_table(d, L);
  else
    decode_plain_table(d, L, tag);
  if (d->marks_ref != 0)
    rs_common_add(L, d->marks_ref, n);
}

/* [-0, +0, e]  Read the contents of the table on top. */
static void
fill_table (rs_decoder *d, lua_State *L)
{
  const unsigned tag = pass_shapes(d, L, rs_decoder_byte(d, L));
  d->promised -= RS_WIRE_BODY;
  d->depth++;
  if (rs_wire_is_record(tag))
    read_record(d, L, tag, NULL, true);
  else if (rs_wire_is_table(tag))
    read_table(d, L, tag, true);
  else {
    d->at--;
    rs_decoder_bad(d, L, "no contents of a table where they should be");
  }
}

/* [-0, +0, e]  Read the contents that were announced for later; they follow
   the value. */
static void
decode_rest (rs_decoder *d, lua_State *L)
{
  const int top = lua_gettop(L);
  rs_level_room(L, LUA_MINSTACK, "message");
  lua_rawgeti(L, d->objects, 0);
  while (d->filled < d->later) {
    d->stack = 0;
    lua_rawgeti(L, top + 1, (lua_Integer) ++d->filled);
    if (lua_type(L, -1) == LUA_TTABLE)
      fill_table(d, L);
    else {
      d->depth++;
      rs_decode_upvalues(d, L);
      d->depth--;
    }
    lua_settop(L, top + 1);
  }
  lua_pushnil(L);
  lua_rawseti(L, d->objects, 0);
  lua_settop(L, top);
  d->later = d->filled = 0;
}

/* [-0, +1, e]  Push an object that a call makes, as its '__transfer' asked. */
static void
decode_rebuild (rs_decoder *d, lua_State *L)
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
  end_quiet(d, L);
  rs_stack_check(L);  /* the function may decode, too */
  lua_call(L, n, 1);
  d->tame = NULL;  /* the function may have changed classes */
  rs_decoder_register(d, L, id);
  rs_decoder_leave(d);
}

static void
decode_replaced (rs_decoder *d, lua_State *L)
{
  const unsigned id = rs_decoder_enter(d, L);
  d->upvalue = 0;
  rs_decode_any(d, L);
  rs_decoder_register(d, L, id);
  rs_decoder_leave(d);
}

/* [-0, +1, e]  Push a light userdata or a C function: a pointer that is good
   in this process. */
static void
decode_pointer (rs_decoder *d, lua_State *L, unsigned tag)
{
  const bool null = tag == RS_TAG_POINTER && d->size - d->at >= 8
                 && rs_wire_get64(d->data + d->at) == 0;
  if (!null && ((d->forbidden & RS_MESSAGE_LOCAL)
                || !(d->flags & RS_MESSAGE_LOCAL)))
    rs_decoder_bad(d, L, "pointers are not accepted here");
  const uint64_t bits = get_eight(d, L);
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

/* [-0, +1, m]  Push a string too long for its size to be in the tag. */
static void
decode_string (rs_decoder *d, lua_State *L)
{
  const size_t size = get_size(d, L);
  if (size <= RS_WIRE_SHORT_MAX)
    rs_decoder_bad(d, L, "a string longer than it has to be");
  if (size >= QUIET_FROM)
    end_quiet(d, L);  /* room may come from garbage strings */
  push_bytes(d, L, size);
}

/* [-0, +1, -]  Push the environment. */
static void
decode_env (rs_decoder *d, lua_State *L)
{
  if (d->forbidden & RS_MESSAGE_METHODS)
    rs_decoder_bad(d, L, "the globals are not accepted here");
  rs_env_push(L);
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
  need(d, L, (size_t) size);
  rs_decoder_bad(d, L, "an integer longer than it has to be");
}

/* [-0, +1, e]  Push the value behind the tag, which is not a scalar. */
static void
decode_other (rs_decoder *d, lua_State *L, unsigned tag)
{
  switch (tag) {
    case RS_TAG_STRING:
      decode_string(d, L);
      break;
    case RS_TAG_TABLE:
    case RS_TAG_TABLE_META:
    case RS_TAG_TABLE_META_OPEN:
      decode_table(d, L, tag);
      break;
    case RS_TAG_RECORD:
    case RS_TAG_RECORD_META:
    case RS_TAG_RECORD_META_OPEN:
      decode_record(d, L, tag, NULL);
      break;
    case RS_TAG_REF:
      rs_decoder_ref(d, L);
      break;
    case RS_TAG_NAMED:
      decode_named(d, L);
      break;
    case RS_TAG_ENV:
      decode_env(d, L);
      break;
    case RS_TAG_FUNCTION:
    case RS_TAG_FUNCTION_LATER:
      rs_decode_function(d, L, tag);
      break;
    case RS_TAG_LATER:
      decode_later(d, L);
      break;
    case RS_TAG_NAMED_TABLE:
      decode_named_table(d, L);
      break;
    case RS_TAG_COMMON:
      decode_marked(d, L);
      break;
    case RS_TAG_COMMON_REF:
      decode_common(d, L, false);
      break;
    case RS_TAG_CFUNCTION:
    case RS_TAG_POINTER:
      decode_pointer(d, L, tag);
      break;
    case RS_TAG_REBUILD:
      decode_rebuild(d, L);
      break;
    case RS_TAG_REPLACED:
      decode_replaced(d, L);
      break;
    default:
      refuse_tag(d, L, tag);
  }
}

void
rs_decode_any (rs_decoder *d, lua_State *L)
{
  while (!push_scalar(d, L)) {
    const unsigned tag = rs_decoder_byte(d, L);
    if (tag != RS_TAG_SHAPE) {
      decode_other(d, L, tag);
      return;
    }
    read_shape(d, L, d->at);
  }
}

/* ------------------------------------------------------------ the decoder */

void
rs_decoder_init (rs_decoder *d, lua_State *L, const rs_message *msg,
                 unsigned forbidden)
{
  *d = (rs_decoder) { .data = msg->data, .size = msg->size,
                      .forbidden = forbidden | msg->forbidden };
  forbidden = d->forbidden & (RS_MESSAGE_CODE | RS_MESSAGE_LOCAL);
  need(d, L, RS_WIRE_HEADER);
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
  need(d, L, n);
  memcpy(bytes, d->data + d->at, n);
  d->at += n;
}

/* True when the next value is a number of a run. */
static inline bool
in_run (rs_decoder *d, lua_State *L)
{
  if (d->left > 0)
    return true;
  need(d, L, 1);
  if (!rs_wire_is_run(d->data[d->at]))
    return false;
  begin_run(d, L);
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
    decode_rest(d, L);
  if (d->late > 0)
    set_late_metatables(d, L);
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
      assign_run(d, L, index, field, count);
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

/* The arguments of 'push_quietly'. */
typedef struct whole {
  rs_decoder *d;
  const rs_message *msg;
  const rs_common *common;
  int marks;
} whole;

/* (whole)  Return all values, with an advance for the collector. */
static int
push_quietly (lua_State *L)
{
  const whole w = *(const whole *) lua_touserdata(L, 1);
  rs_decoder *const d = w.d;
  lua_settop(L, 0);
  begin_all(d, L, w.msg, w.common, w.marks);
  begin_quiet(d, L);
  return push_values(d, L);
}

int
rs_decode_all (lua_State *L, const rs_message *msg, const rs_common *common,
               int marks, bool *metatables)
{
  rs_decoder d;
  int n = rs_decode_small(L, msg);
  if (n >= 0)
    return n;
  if (msg->size < QUIET_FROM || !lua_gc(L, LUA_GCISRUNNING)) {
    begin_all(&d, L, msg, common, marks);
    n = push_values(&d, L);
  }
  else {
    const int base = lua_gettop(L);
    rs_level_room(L, LUA_MINSTACK, "message");
    lua_pushcfunction(L, push_quietly);
    whole w = { &d, msg, common, marks };
    lua_pushlightuserdata(L, &w);
    d.advance = 0;
    const int code = lua_pcall(L, 1, LUA_MULTRET, 0);
    end_quiet(&d, L);
    if (code != LUA_OK)
      lua_error(L);
    n = lua_gettop(L) - base;
  }
  if (d.metatables)
    *metatables = true;
  return n;
}
