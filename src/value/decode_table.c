/* SPDX-License-Identifier: MIT */
/*
 * decode_table.c - bytes to tables: fields, shapes of keys, metatables.
 *
 * The tables of a message cannot announce more fields together than the
 * message has bytes, since each field takes one.  So a table is made with room
 * for all fields that it announces, and a false number cannot ask for much
 * memory.
 *
 * A metatable is set after the fields, and then takes effect with all that it
 * has ('__gc', '__mode').  A metatable waits if it is not complete yet, since
 * the object is inside of it or its contents follow the value, or if it has to
 * be checked first.  Then the object and the metatable are in the table of
 * objects, under negative numbers, until the whole value is complete.
 */
#include "value/decoder.h"

#include "base/level.h"
#include "value/mask.h"
#include "value/scalar.h"
#include "value/wire.h"

/* ----------------------------------------------------------- metatables */

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

/* True for the tag of a value that '__transfer' has made. */
static bool
is_transferred (unsigned tag)
{
  return tag == RS_TAG_REPLACED || tag == RS_TAG_REBUILD;
}

/* [-0, +0, v]  Raise since '__transfer' has made 'what' into the value on
   top. */
static void
raise_transferred (lua_State *L, const char *what)
{
  const bool is_nan = !lua_rawequal(L, -1, -1);
  lua_pushfstring(L, "'__transfer' of %s of a table has made it %s", what,
                  is_nan ? "NaN" : lua_typename(L, lua_type(L, -1)));
  lua_error(L);
}

static void
decode_metatable (rs_decoder *d, lua_State *L, int table, unsigned tag)
{
  rs_decoder_need(d, L, 1);
  const unsigned kind = d->data[d->at];
  const bool own = kind == RS_TAG_NAMED || kind == RS_TAG_COMMON_REF;
  if (kind == RS_TAG_COMMON_REF) {
    d->at++;
    rs_decode_common(d, L, true);
  }
  else if (kind == RS_TAG_REF) {  /* as for most: objects have few classes */
    d->at++;
    rs_decoder_ref(d, L);
  }
  else
    rs_decode_any(d, L);
  if (lua_type(L, -1) != LUA_TTABLE) {
    if (is_transferred(kind))
      raise_transferred(L, "a metatable");
    rs_decoder_bad(d, L, "a metatable that is no table");
  }
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

void
rs_decode_late_metatables (rs_decoder *d, lua_State *L)
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

/* --------------------------------------------------------------- fields */

/* [-0, +0, v]  Count the fields of a table: 'array' values, 'named' fields
   whose keys are in a shape, and 'pairs' of key and value.  Raise if the
   message cannot have so many. */
static inline void
claim_fields (rs_decoder *d, lua_State *L, size_t array, size_t named,
              size_t pairs)
{
  const uint64_t bytes = (uint64_t) array + named + 2 * (uint64_t) pairs;
  if (bytes > d->size - d->at || bytes > d->size - d->claimed)
    rs_decoder_bad(d, L, "a table larger than its message");
  d->claimed += (size_t) bytes;
  if (bytes > INT32_MAX / 2
      && (array > INT32_MAX / 2 || named + pairs > INT32_MAX / 2))
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

/* [-0, +1, e]  Read a key: any value but nil and NaN. */
static void
decode_key (rs_decoder *d, lua_State *L)
{
  const size_t at = d->at;
  rs_decode_next(d, L);
  const int type = lua_type(L, -1);
  if (type == LUA_TNIL
      || (type == LUA_TNUMBER && !lua_rawequal(L, -1, -1))) {
    if (is_transferred(d->data[at]))
      raise_transferred(L, "a key");
    rs_decoder_bad(d, L, "a key that no table can have");
  }
}

/* [-0, +0, e]  Assign 'n' fields that come as key and value. */
static void
decode_pairs (rs_decoder *d, lua_State *L, int table, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    decode_key(d, L);
    rs_decode_next(d, L);
    lua_rawset(L, table);
  }
}

/* ------------------------------------------------------ shapes, records */

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
    rs_decoder_need(d, L, size);
    lua_pushlstring(L, (const char *) d->data + d->at, size);
    d->at += size;
    lua_rawseti(L, d->objects, keys_of(d, s) + (lua_Integer) i);
  }
  s->at = at;
  s->n = n;
  if (back > at)
    d->at = back;
  return s;
}

void
rs_decode_shape (rs_decoder *d, lua_State *L)
{
  read_shape(d, L, d->at);
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

/* [-0, +0, e]  Assign the first 'n' fields of the shape at 'at'. */
static void
decode_named_fields (rs_decoder *d, lua_State *L, int table, size_t at,
                     unsigned n)
{
  for (unsigned i = 0; i < n; i++) {
    /* A value may have put another shape in the place of this one. */
    const rs_shape_read *const s = find_shape(d, L, at);
    lua_rawgeti(L, d->objects, keys_of(d, s) + (lua_Integer) i);
    rs_decode_next(d, L);
    lua_rawset(L, table);
  }
}

/* [-0, +1, e]  Push the record behind the tag.  'k' is given for a record of
   an array; this may push its slots first.  'later': the table was made
   before, and is on top already. */
static inline __attribute__ ((always_inline)) void
read_record (rs_decoder *d, lua_State *L, unsigned tag, record_keys *k,
             bool later)
{
  const unsigned id = later ? 0 : rs_decoder_enter(d, L);
  rs_decoder_need(d, L, 9);
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
    rs_decoder_register(d, L, id);
  }
  const int table = lua_gettop(L);
  d->upvalue = 0;
  if (k != NULL)
    for (int key = k->first; key < k->first + (int) n; key++) {
      lua_pushvalue(L, key);
      rs_decode_next(d, L);
      lua_rawset(L, table);
    }
  else
    decode_named_fields(d, L, table, at, n);
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

/* --------------------------------------------------------------- tables */

static void decode_table (rs_decoder *d, lua_State *L, unsigned tag);

/* [-0, +(0|RS_SHAPE_KEYS), e]  Assign the fields 1 to 'n' of the table at
   'table'. */
static void
decode_array (rs_decoder *d, lua_State *L, int table, size_t n)
{
  record_keys k = { .at = 0 };
  for (size_t i = 1; i <= n; ) {
    rs_decoder_need(d, L, 1);
    const unsigned tag = d->data[d->at];
    if (rs_wire_is_run(tag)) {
      rs_decoder_begin_run(d, L);
      const size_t count = d->left;
      if (count > n - i + 1)
        rs_decoder_bad(d, L, "a run longer than its table");
      rs_decoder_assign_run(d, L, table, (lua_Integer) i, count);
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
      rs_decode_next(d, L);
    lua_rawseti(L, table, (lua_Integer) i++);
  }
}

/* [-0, +1, e]  Push the table behind the tag; 'later': the table was made
   before, and is on top already. */
static inline __attribute__ ((always_inline)) void
read_table (rs_decoder *d, lua_State *L, unsigned tag, bool later)
{
  const unsigned id = later ? 0 : rs_decoder_enter(d, L);
  rs_decoder_need(d, L, 8);
  const size_t array = rs_wire_get32(d->data + d->at);
  const size_t hash = rs_wire_get32(d->data + d->at + 4);
  d->at += 8;
  if (later)
    claim_fields(d, L, array, 0, hash);
  else {
    push_table(d, L, array, 0, hash);
    rs_decoder_register(d, L, id);
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
    rs_decode_shape(d, L);
    tag = rs_decoder_byte(d, L);
  }
  return tag;
}

void
rs_decode_table (rs_decoder *d, lua_State *L, unsigned tag)
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

/* ------------------------------------------------ contents for later */

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

void
rs_decode_later (rs_decoder *d, lua_State *L)
{
  const unsigned id = rs_decoder_enter(d, L);
  d->promised += RS_WIRE_BODY;
  if (d->promised > d->size - d->at)
    rs_decoder_bad(d, L, "more to come than there is");
  lua_newtable(L);
  rs_decoder_register(d, L, id);
  rs_decoder_later(d, L);
  rs_decoder_leave(d);
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

void
rs_decode_rest (rs_decoder *d, lua_State *L)
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
