/* SPDX-License-Identifier: MIT */
/*
 * encoder.c - Lua values to bytes.
 *
 * An encoder walks over the value, depth first, with raw access only.  The
 * walk allocates nothing in the Lua state, so no finalizer runs and no table
 * changes under 'lua_next'.  Therefore no call can raise either, and the walk
 * needs no protected call.
 *
 * The exception is '__transfer', which is code of the program.  The first one
 * that is met ends the walk.  The walk then begins again inside a protected
 * call, as do the walks of all later values of this encoder.
 */
#include "value/encoder.h"

#include <stdio.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "base/large.h"
#include "base/level.h"
#include "base/options.h"
#include "base/stack.h"
#include "base/status.h"
#include "value/mask.h"
#include "value/scalar.h"
#include "value/wire.h"

/* A message of so many bytes, or more, takes the buffer over without a
   copy. */
enum { HAND_OVER_FROM = 16384 };

/* A message in the encoder's memory may have so many bytes too many. */
enum { SPARE_MAX = 96 };

/* The largest 'generation' of an rs_seen. */
enum { GENERATION_MAX = 0x3fffff };

/* Bytes in the buffer before the header: the 'rs_message' itself. */
#define PREFIX offsetof(rs_message, data)

/* ----------------------------------------------------------- appending */

/* Take back the bytes from 'size' on. */
static void
truncate (rs_encoder *e, size_t size)
{
  e->buf.size = size;
  rs_shapes_truncate(e->shapes, size);
}

void
rs_encoder_length (rs_encoder *e, size_t n)
{
  unsigned char *const at = rs_buf_room(&e->buf, RS_WIRE_VARINT);
  if (at != NULL)
    e->buf.size += rs_put_varint(at, n);
}

static void
put_name_as (rs_encoder *e, const rs_name *name, unsigned tag)
{
  if (tag == RS_TAG_NAMED)  /* can the receiver not do without it? */
    e->flags |= RS_MESSAGE_NAMES;
  rs_buf_byte(&e->buf, (unsigned char) tag);
  rs_buf_byte(&e->buf, (unsigned char) name->parts);
  for (unsigned i = 0; i < name->parts; i++) {
    rs_encoder_length(e, name->size[i]);
    rs_buf_add(&e->buf, name->part[i], name->size[i]);
  }
}

static void
put_name (rs_encoder *e, const rs_name *name)
{
  put_name_as(e, name, RS_TAG_NAMED);
}

/* ----------------------------------------------------------- identities */

/* The 'object' of entries in 'seen' that must not be found any more. */
static const char dropped = 0;

/* The entry of 'object', or the free entry where it belongs. */
static inline rs_seen *
seen_slot (rs_seen *seen, size_t room, unsigned generation,
           const void *object)
{
  const uint64_t hash = (uint64_t) (uintptr_t) object * 0x9e3779b97f4a7c15u;
  size_t i = (size_t) (hash >> 32) & (room - 1);
  while (seen[i].generation == generation && seen[i].object != object)
    i = (i + 1) & (room - 1);
  return &seen[i];
}

static bool
grow_seen (rs_encoder *e)
{
  const size_t room = e->seen_room == 0 ? 16
                    : e->seen_room < 8192 ? e->seen_room * 4
                    : e->seen_room * 2;
  const size_t size = room * sizeof(rs_seen);
  rs_seen *const seen = size < RS_LARGE_FROM ? malloc(size)
                                             : rs_large_take(size);
  if (seen == NULL)
    return false;
  memset(seen, 0, size);
  size_t count = 0;
  for (size_t i = 0; i < e->seen_room; i++) {
    const rs_seen *const old = &e->seen[i];
    if (old->generation == e->generation && old->object != &dropped) {
      *seen_slot(seen, room, e->generation, old->object) = *old;
      count++;
    }
  }
  rs_buf_free(e->seen, e->seen_room * sizeof *seen);
  e->seen = seen;
  e->seen_room = room;
  e->seen_count = count;
  return true;
}

static inline rs_seen *
see (rs_encoder *e, const void *object, bool *found)
{
  if (e->seen_count * 4 >= e->seen_room * 3 && !grow_seen(e))
    return NULL;
  rs_seen *const s =
    seen_slot(e->seen, e->seen_room, e->generation, object);
  *found = s->generation == e->generation;
  if (!*found) {
    const bool passing = e->transfers > 0;
    *s = (rs_seen) { .object = object, .id = e->next_id, .passing = passing,
                     .generation = e->generation & GENERATION_MAX };
    e->seen_count++;
    e->passing |= passing;
  }
  return s;
}

rs_seen *
rs_encoder_see (rs_encoder *e, const void *object, bool *found)
{
  return see(e, object, found);
}

/* Forget the objects from number 'id' on: their bytes are taken back. */
static void
drop_from (rs_encoder *e, unsigned id)
{
  e->class.object = NULL;
  for (size_t i = 0; i < e->seen_room; i++)
    if (e->seen[i].generation == e->generation && e->seen[i].id >= id)
      e->seen[i].object = &dropped;
}

/* Forget the objects that '__transfer' made for an earlier value.  They may be
   freed by now, and other objects may have their addresses. */
static void
drop_passing (rs_encoder *e)
{
  for (size_t i = 0; i < e->seen_room; i++)
    if (e->seen[i].generation == e->generation && e->seen[i].passing)
      e->seen[i].object = &dropped;
  e->passing = false;
}

/* True when the contents of 'object' will follow the value. */
static bool
is_later (rs_encoder *e, const void *object)
{
  const rs_seen *const seen =
    seen_slot(e->seen, e->seen_room, e->generation, object);
  return seen->generation == e->generation && seen->later;
}

static bool
is_open (const rs_encoder *e, unsigned id)
{
  for (const rs_open *o = e->open; o != NULL; o = o->outer)
    if (o->id == id)
      return true;
  return false;
}

static int
encode_ref (rs_encoder *e, unsigned id)
{
  if (e->transfers > 0)  /* in results of '__transfer'? */
    for (const rs_open *o = e->open; o != NULL; o = o->outer)
      if (o->id == id && o->rebuilt)
        return rs_encoder_refuse(e, "cannot transfer a value whose"
                                    " '__transfer' leads back to it");
  unsigned char *const at = rs_buf_room(&e->buf, 1 + RS_WIRE_VARINT);
  if (at != NULL) {
    at[0] = RS_TAG_REF;
    e->buf.size += 1 + rs_put_varint(at + 1, id);
  }
  e->flags |= RS_MESSAGE_REFS;
  return RS_OK;
}

/* Make room on the stack for this level, and for some inner ones. */
static bool
grow_stack (rs_encoder *e, lua_State *L)
{
  enum { AHEAD = 40 };
  if (!lua_checkstack(L, LUA_MINSTACK + AHEAD))
    return lua_checkstack(L, LUA_MINSTACK);
  e->stack = lua_gettop(L) + AHEAD;
  return true;
}

/* Begin an object, as 'rs_encoder_enter' does; 'top' is that of the stack. */
static inline int
enter (rs_encoder *e, lua_State *L, rs_open *open, unsigned id, int top)
{
  if (e->depth == RS_WIRE_DEPTH)
    return rs_encoder_refuse(e, "cannot transfer what '__transfer' returned:"
                                " it is nested deeper than %d levels",
                             RS_WIRE_DEPTH - RS_WIRE_INLINE);
  if (e->buf.failed || (top > e->stack && !grow_stack(e, L)))
    return RS_ENOMEM;
  open->outer = e->open;
  open->id = id;
  open->rebuilt = false;
  e->open = open;
  e->depth++;
  return RS_OK;
}

int
rs_encoder_enter (rs_encoder *e, lua_State *L, rs_open *open, unsigned id)
{
  return enter(e, L, open, id, lua_gettop(L));
}

void
rs_encoder_leave (rs_encoder *e)
{
  e->open = e->open->outer;
  e->depth--;
}

/* [-0, +0, -]  Stop the collector until the end of the walk: a finalizer could
   change the tables that are walked. */
static void
stop_collector (rs_encoder *e, lua_State *L)
{
  if (!e->quiet && lua_gc(L, LUA_GCISRUNNING)) {
    lua_gc(L, LUA_GCSTOP);
    e->quiet = true;
  }
}

int
rs_encoder_later (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  if (e->keep == 0) {  /* is the walk not protected yet? */
    e->careful = true;
    return RS_ERESTART;
  }
  stop_collector(e, L);
  bool found;
  rs_seen *const seen = see(e, lua_topointer(L, index), &found);
  if (seen == NULL)
    return RS_ENOMEM;
  seen->later = true;
  const lua_Integer at = 2 * (lua_Integer) e->later++;
  lua_pushvalue(L, index);
  lua_rawseti(L, e->keep + 1, at + 1);
  lua_pushinteger(L, (lua_Integer) id);
  lua_rawseti(L, e->keep + 1, at + 2);
  e->flags |= RS_MESSAGE_REFS;
  return RS_OK;
}

/* ----------------------------------------------------------- __transfer */

/* [-1, +0, -]  Refuse the value, with the error on top of the stack. */
static int
refuse_error (rs_encoder *e, lua_State *L, const char *what)
{
  const char *const text = lua_type(L, -1) == LUA_TSTRING
                         ? lua_tostring(L, -1) : "(no text)";
  rs_encoder_refuse(e, "%s: %s", what, text);
  lua_pop(L, 1);
  return RS_EREFUSED;
}

/*
 * [-0, +0, m]  Append the results of '__transfer' instead of the object at
 * 'index', and set 'done', if its metatable, at 'meta', has that field.
 */
static int
encode_transfer (rs_encoder *e, lua_State *L, int index, int meta,
                 rs_open *open, bool *done)
{
  *done = false;
  const void *const class = lua_topointer(L, meta);
  if (class == e->class.object && e->class.walk == e->walk)
    return RS_OK;
  lua_getiuservalue(L, e->home, RS_HOME_TRANSFER);
  if (lua_rawget(L, meta) == LUA_TNIL) {
    lua_pop(L, 1);
    e->class = (rs_class) { .object = class, .walk = e->walk };
    return RS_OK;
  }
  if (e->keep == 0) {  /* is the walk not protected yet? */
    e->careful = true;
    return RS_ERESTART;
  }
  /* '__transfer' may encode, too, and that takes more of the C stack than
     Lua's own functions. */
  if (rs_stack_low())
    return rs_encoder_refuse(e, "C stack overflow");
  const int base = lua_gettop(L) - 1;
  lua_pushvalue(L, index);
  if (e->quiet)  /* '__transfer' may make garbage */
    lua_gc(L, LUA_GCRESTART);
  const int code = lua_pcall(L, 1, LUA_MULTRET, 0);
  if (e->quiet)
    lua_gc(L, LUA_GCSTOP);
  e->walk++;  /* strings may have been freed */
  if (code == LUA_ERRMEM)
    return RS_ENOMEM;
  if (code != LUA_OK)
    return refuse_error(e, L, "'__transfer' failed");
  rs_level_room(L, LUA_MINSTACK, "message");
  if (lua_gettop(L) == base)
    lua_pushnil(L);
  if (lua_rawequal(L, base + 1, index)) {  /* shall it travel as it is? */
    lua_settop(L, base);
    return RS_OK;
  }
  if (lua_type(L, base + 1) != LUA_TFUNCTION) {
    lua_settop(L, base + 1);
    rs_buf_byte(&e->buf, RS_TAG_REPLACED);
  }
  else {
    const int n = lua_gettop(L) - base - 1;
    if (n > RS_WIRE_RESULTS)
      return rs_encoder_refuse(e, "'__transfer' returned more than %d values",
                               RS_WIRE_RESULTS);
    if (e->forbidden & RS_MESSAGE_CODE)
      return rs_encoder_refuse(e, "cannot transfer a call that rebuilds a"
                                  " value from here");
    e->flags |= RS_MESSAGE_CODE;
    rs_buf_byte(&e->buf, RS_TAG_REBUILD);
    rs_buf_byte(&e->buf, (unsigned char) n);
  }
  const int top = lua_gettop(L);
  for (int i = base + 1; i <= top; i++) {  /* alive, they keep their
                                              addresses */
    lua_pushvalue(L, i);
    lua_rawseti(L, e->keep, (lua_Integer) lua_rawlen(L, e->keep) + 1);
  }
  open->rebuilt = true;
  e->transfers++;
  for (int i = base + 1; i <= top; i++) {
    const int status = rs_encode_any(e, L, i);
    if (status == RS_EREFUSED)
      rs_encoder_inside_part(e, "result of '__transfer'");
    if (status != RS_OK)
      return status;
  }
  e->transfers--;
  lua_settop(L, base);
  *done = true;
  return RS_OK;
}

/* --------------------------------------------------------------- tables */

static int encode_table (rs_encoder *e, lua_State *L, int index);

/* Once so many tables of a function's message are marked, only metatables are:
   the list of marked tables takes memory. */
enum { MARKS_MAX = 200 };

/* [-0, +0, -]  Append the number of a table that both sides have. */
static void
put_common (rs_encoder *e, lua_Integer n)
{
  unsigned char *const at = rs_buf_room(&e->buf, 1 + RS_WIRE_VARINT);
  if (at == NULL)
    return;
  at[0] = RS_TAG_COMMON_REF;
  e->buf.size += 1 + rs_put_varint(at + 1, (size_t) n);
  e->flags |= RS_MESSAGE_COMMON;
}

/* [-0, +0, m]  Mark the table at 'index', so that other messages may name it.
   'class' when it is a metatable.  RS_OK, or RS_ERESTART: the walk has to be
   protected. */
static int
mark (rs_encoder *e, lua_State *L, int index, bool class)
{
  if (e->marks >= MARKS_MAX && !class)
    return RS_OK;
  if (e->keep == 0) {
    e->careful = true;
    return RS_ERESTART;
  }
  stop_collector(e, L);
  rs_common_mark(&e->marks, L, e->keep + 2, index);
  rs_buf_byte(&e->buf, RS_TAG_COMMON);
  return RS_OK;
}

/* [-0, +0, -]  Append the name of the object at 'index', if it has one, and
   set 'done'. */
static int
encode_name (rs_encoder *e, lua_State *L, int index, int kind, bool *done)
{
  rs_name name;
  const int status = rs_names_find(&e->names, L, e->home, index, kind, &name);
  *done = status == RS_OK && name.parts > 0;
  if (*done && (e->forbidden & RS_MESSAGE_METHODS)
      && rs_name_is_library(&name))
    return rs_encoder_refuse(e, "cannot transfer a library out of a sandbox");
  if (*done)
    put_name(e, &name);
  return status;
}

/* [-0, +0, -]  Check whether the metatable at 'index' may leave a sandbox.
   RS_OK or the failure. */
static int
check_metatable (rs_encoder *e, lua_State *L, int index)
{
  rs_name name;
  const char *const field = rs_metatable_runs(L, index);
  if (field == NULL || rs_common_find(&e->common, L, index, true) > 0)
    return RS_OK;
  const int status = rs_names_find(&e->names, L, e->home, index,
                                   RS_NAMES_TABLE, &name);
  if (status != RS_OK || name.parts > 0)
    return status;
  return rs_encoder_refuse(e, "cannot transfer a table whose metatable has "
                              "'%.40s' out of a sandbox: return data without "
                              "it, or a class that the host has loaded",
                           field);
}

/* [-0, +0, -]  Append the metatable at 'index'.  The tag of its table is at
   offset 'header'. */
static int
encode_metatable (rs_encoder *e, lua_State *L, int index, size_t header)
{
  const void *const object = lua_topointer(L, index);
  const bool known = object == e->class.object && e->class.walk == e->walk;
  if (e->forbidden & RS_MESSAGE_METHODS) {
    const int may = check_metatable(e, L, index);
    if (may != RS_OK)
      return may;
  }
  if (known && e->class.sent) {
    if ((e->later > 0 || is_open(e, e->class.id)) && !e->buf.failed)
      e->buf.data[header]++;  /* META_OPEN is the next tag */
    return encode_ref(e, e->class.id);
  }
  if (known && e->class.common > 0) {
    put_common(e, e->class.common);
    return RS_OK;
  }
  if (object == e->globals || object == e->env)
    return rs_encode_any(e, L, index);
  if (e->common.filter & rs_common_bit(object)) {
    const lua_Integer n = rs_common_find(&e->common, L, index, true);
    if (n > 0) {
      if (known)
        e->class.common = n;
      put_common(e, n);
      return RS_OK;
    }
  }
  bool found;
  rs_seen *const seen = see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found) {
    if (known) {
      e->class.sent = true;
      e->class.id = seen->id;
    }
    if ((seen->later || is_open(e, seen->id)) && !e->buf.failed)
      e->buf.data[header]++;
    return encode_ref(e, seen->id);
  }
  bool done;
  int status = encode_name(e, L, index, RS_NAMES_TABLE, &done);
  if (status != RS_OK)
    return status;
  if (done) {
    e->next_id++;
    return RS_OK;
  }
  seen->object = &dropped;  /* 'rs_encode_any' has to find it new */
  e->class_next = true;
  status = rs_encode_any(e, L, index);
  if (status == RS_EREFUSED)
    rs_encoder_inside_part(e, "metatable");
  else if (status == RS_OK && e->later > 0 && is_later(e, object)
           && !e->buf.failed)
    e->buf.data[header]++;
  return status;
}

/* The fields of a table, while they are appended. */
typedef struct fields {
  uint32_t array, hash;   /* numbers of fields 1, 2, ... and of other fields */
  size_t header;          /* offset of its tag in the buffer */
  bool named;             /* the table is a class that has a name */
  rs_shape shape;         /* keys so far, if they can be a shape */
  bool learn;             /* the keys can be a shape so far */
} fields;

/* Note the key at 'index', a string whose 'size' bytes end the buffer. */
static inline void
learn_key (rs_encoder *e, lua_State *L, int index, fields *f, size_t size)
{
  rs_shape *const s = &f->shape;
  f->learn = f->learn && s->n < RS_SHAPE_KEYS && size <= RS_SHAPE_KEY_MAX;
  if (f->learn)
    s->keys[s->n++] = (rs_shape_key) { e->buf.size - size, size,
                                       lua_topointer(L, index) };
}

/* [-0, +0, -]  Append the key at 'index' of the table at 'table'.  Sets
   'named' when that is a class that has a name. */
static int
encode_key (rs_encoder *e, lua_State *L, int table, int index, fields *f)
{
  static const char mark[] = "__index";
  const int type = lua_type(L, index);
  if (type == LUA_TSTRING) {
    size_t size;
    const char *const s = lua_tolstring(L, index, &size);
    rs_put_string(&e->buf, s, size);
    learn_key(e, L, index, f, size);
    if (size != sizeof mark - 1 || memcmp(s, mark, size) != 0)
      return RS_OK;
    f->learn = false;  /* classes have this key, not records */
    return encode_name(e, L, table, RS_NAMES_TABLE, &f->named);
  }
  f->learn = false;
  if (rs_put_scalar(&e->buf, L, index, type))
    return RS_OK;
  const int status = rs_encode_any(e, L, index);
  if (status == RS_EREFUSED)
    rs_encoder_inside_part(e, "key");
  return status;
}

/* [-0, +?, -]  Append the value at 'key' + 1, of this type; its key is at
   'key'. */
static inline __attribute__ ((always_inline)) int
encode_field (rs_encoder *e, lua_State *L, int key, int type)
{
  if (rs_put_scalar(&e->buf, L, key + 1, type))
    return RS_OK;
  const int status = type == LUA_TTABLE ? encode_table(e, L, key + 1)
                                        : rs_encode_any(e, L, key + 1);
  if (status == RS_EREFUSED)
    rs_encoder_inside_field(e, L, key);
  return status;
}

/* [-2, +(0|2), -]  Append the fields 1, 2, ... of the table at 'index'.  The
   first key and value are on top of the stack; those of the first other field
   are left there. */
static int
encode_array (rs_encoder *e, lua_State *L, int index, fields *f)
{
  const int key = lua_gettop(L) - 1;
  const int value = key + 1;
  rs_packed packed = { .off = lua_rawlen(L, index) < RS_WIRE_RUN_FROM };
  size_t n = 0;
  do {
    if (!lua_isinteger(L, key)
        || (lua_Unsigned) lua_tointegerx(L, key, NULL) != (lua_Unsigned) n + 1)
      break;
    n++;
    if (!rs_packed_go_on(&packed, &e->buf, L, value)) {
      const int type = lua_type(L, value);
      if (type == LUA_TNUMBER && !packed.off)
        rs_packed_put(&packed, &e->buf, L, value);
      else {
        rs_packed_end(&packed, &e->buf);
        const int status = encode_field(e, L, key, type);
        if (status != RS_OK)
          return status;
      }
    }
    lua_settop(L, key);
  } while (lua_next(L, index));
  rs_packed_end(&packed, &e->buf);
  if (n > UINT32_MAX)
    return RS_ENOMEM;
  f->array = (uint32_t) n;
  return RS_OK;
}

/* [-2, +0, -]  Append the keys and values of the table at 'index', from the
   ones on top of the stack on.  Stop when the table proves to be a class that
   has a name. */
static int
encode_pairs (rs_encoder *e, lua_State *L, int index, fields *f)
{
  const int key = lua_gettop(L) - 1;
  size_t n = 0;
  do {
    n++;
    int status = encode_key(e, L, index, key, f);
    if (status == RS_OK && !f->named)
      status = encode_field(e, L, key, lua_type(L, key + 1));
    if (status != RS_OK || f->named)
      return status;
    lua_settop(L, key);
  } while (lua_next(L, index));
  if (n > UINT32_MAX)
    return RS_ENOMEM;
  f->hash = (uint32_t) n;
  return RS_OK;
}

/* The shape whose first key is the one at 'key', so that the table may have
   it; or NULL. */
static rs_shape *
find_shape (rs_encoder *e, lua_State *L, int key)
{
  size_t size;
  if (e->shapes == NULL)
    return NULL;
  rs_shape *const last = e->shape;
  if (last->n > 0 && last->walk == e->walk
      && last->keys[0].string == lua_topointer(L, key))
    return last;
  if (lua_type(L, key) != LUA_TSTRING)
    return NULL;
  const char *const s = lua_tolstring(L, key, &size);
  rs_shape *const shape = rs_shape_slot(e->shapes, s, size);
  if (!rs_shape_has(shape, 0, e->buf.data, s, size))
    return NULL;
  return e->shape = shape;
}

/* True when the key at 'key' is number 'i' of the shape. */
static inline bool
has_key (const rs_encoder *e, lua_State *L, rs_shape *shape, unsigned i,
         int key)
{
  const void *const string = lua_topointer(L, key);
  if (i < shape->n && shape->walk == e->walk
      && shape->keys[i].string == string)
    return true;
  size_t size;
  if (lua_type(L, key) != LUA_TSTRING)
    return false;
  const char *const text = lua_tolstring(L, key, &size);
  if (!rs_shape_has(shape, i, e->buf.data, text, size))
    return false;
  shape->keys[i].string = string;
  return true;
}

/* Remember the keys that the table had as a shape. */
static void
learn_shape (rs_encoder *e, const fields *f)
{
  if (!f->learn || f->shape.n == 0 || f->array > 0 || e->next_id < 2
      || e->buf.failed || e->buf.size > UINT32_MAX)
    return;
  if (e->shapes == NULL) {
    e->shapes = e->shape = rs_shapes_new();
    if (e->shapes == NULL)
      return;  /* shapes only save time */
  }
  const rs_shape_key *const first = &f->shape.keys[0];
  rs_shape *const s =
    rs_shape_slot(e->shapes, (const char *) e->buf.data + first->at,
                  first->size);
  *s = f->shape;
  s->end = e->buf.size;
  s->walk = e->walk;
}

/* Append the definition of the shape, unless that was done. */
static bool
define_shape (rs_encoder *e, rs_shape *s)
{
  if (s->defined != 0)
    return true;
  unsigned char *at = rs_buf_room(&e->buf, 2 + s->n * (1u + RS_SHAPE_KEY_MAX));
  if (at == NULL)
    return false;
  s->defined = e->buf.size;
  *at++ = RS_TAG_SHAPE;
  *at++ = (unsigned char) s->n;
  for (unsigned i = 0; i < s->n; i++) {
    *at++ = (unsigned char) s->keys[i].size;
    memcpy(at, e->buf.data + s->keys[i].at, s->keys[i].size);
    at += s->keys[i].size;
  }
  e->buf.size = (size_t) (at - e->buf.data);
  e->flags |= RS_MESSAGE_SHAPES;
  return true;
}

/* [-2, +0, -]  Append the table at 'index', which begins with the keys of
   'shape'.  The first key and value are on top of the stack. */
static int
encode_record (rs_encoder *e, lua_State *L, int index, rs_shape *shape,
               bool meta, fields *f)
{
  enum { SIZE = 10 };
  const int key = lua_gettop(L) - 1;
  unsigned char *at;
  if (!define_shape(e, shape) || (at = rs_buf_room(&e->buf, SIZE)) == NULL)
    return RS_ENOMEM;
  const size_t defined = shape->defined;
  f->header = e->buf.size;
  at[0] = meta ? RS_TAG_RECORD_META : RS_TAG_RECORD;
  rs_wire_put32(at + 1, (uint32_t) (defined - PREFIX));
  e->buf.size += SIZE;
  unsigned n = 0;
  bool more;
  do {
    if (shape->defined != defined  /* did a value take the shape's place? */
        || !has_key(e, L, shape, n, key))
      break;
    n++;
    const int status = encode_field(e, L, key, lua_type(L, key + 1));
    if (status != RS_OK)
      return status;
    lua_settop(L, key);
    more = lua_next(L, index);
  } while (more);
  if (shape->defined == defined && (more || n < shape->n)) {
    memcpy(f->shape.keys, shape->keys, n * sizeof *shape->keys);
    f->shape.n = n;  /* the keys differ from the shape's */
  }
  else if (shape->defined == defined)
    shape->walk = e->walk;
  else
    f->learn = false;
  if (more) {
    const int status = encode_pairs(e, L, index, f);
    if (status != RS_OK || f->named)
      return status;
  }
  if (e->buf.failed)
    return RS_ENOMEM;
  at = e->buf.data + f->header;
  at[5] = (unsigned char) n;
  rs_wire_put32(at + 6, f->hash);
  learn_shape(e, f);
  return RS_OK;
}

/* [-0, +?, -]  Append the fields of the table at 'index'; 'meta' when a
   metatable will follow. */
static int
encode_fields (rs_encoder *e, lua_State *L, int index, bool meta, fields *f)
{
  enum { SIZE = 9 };
  const int key = lua_gettop(L) + 1;
  f->array = f->hash = 0;
  f->named = false;
  f->shape.n = 0;
  f->shape.defined = 0;
  f->learn = true;
  lua_pushnil(L);
  const bool any = lua_next(L, index);
  rs_shape *const shape = any ? find_shape(e, L, key) : NULL;
  if (shape != NULL)
    return encode_record(e, L, index, shape, meta, f);
  unsigned char *at = rs_buf_room(&e->buf, SIZE);
  if (at == NULL)
    return RS_ENOMEM;
  at[0] = meta ? RS_TAG_TABLE_META : RS_TAG_TABLE;
  f->header = e->buf.size;
  e->buf.size += SIZE;
  int status = any && lua_isinteger(L, key) ? encode_array(e, L, index, f)
                                            : RS_OK;
  if (status == RS_OK && lua_gettop(L) > key)
    status = encode_pairs(e, L, index, f);
  if (status != RS_OK || f->named)
    return status;
  if (e->buf.failed)
    return RS_ENOMEM;
  at = e->buf.data + f->header;
  rs_wire_put32(at + 1, f->array);
  rs_wire_put32(at + 5, f->hash);
  learn_shape(e, f);
  return RS_OK;
}

/* [-0, +0, -]  Append the name of the table at 'index'; its contents will
   follow. */
static int
put_table_name (rs_encoder *e, lua_State *L, int index)
{
  rs_name name;
  const int status = rs_names_find(&e->names, L, e->home, index,
                                   RS_NAMES_TABLE, &name);
  if (status == RS_OK && name.parts > 0)  /* '__transfer' may have moved it */
    put_name_as(e, &name, RS_TAG_NAMED_TABLE);
  return status;
}

/* [-0, +?, -]  Append a class by name, if it has one, when its fields cannot
   travel: it may be that '__index' was not met yet. */
static int
rescue_class (rs_encoder *e, lua_State *L, int index, bool *named)
{
  lua_getiuservalue(L, e->home, RS_HOME_INDEX);
  if (lua_rawget(L, index) == LUA_TNIL)
    return RS_OK;
  return encode_name(e, L, index, RS_NAMES_TABLE, named);
}

/* [-0, +0, -]  True when a field of the table at 'index' is a function. */
static bool
has_function (lua_State *L, int index)
{
  const int top = lua_gettop(L);
  bool found = false;
  lua_pushnil(L);
  while (!found && lua_next(L, index)) {
    found = lua_type(L, -1) == LUA_TFUNCTION;
    lua_pop(L, 1);
  }
  lua_settop(L, top);
  return found;
}

/* [-0, +0, -]  Append the table at 'index', which is nested too deep: its
   contents follow the value, unless it is a class that has a name. */
static int
put_later (rs_encoder *e, lua_State *L, int index, unsigned id, bool class)
{
  const int top = lua_gettop(L);
  bool named = false;
  int status = rescue_class(e, L, index, &named);
  lua_settop(L, top);
  if (status != RS_OK || named)
    return status;
  if (e->marking && (status = mark(e, L, index, class)) != RS_OK)
    return status;
  status = rs_encoder_later(e, L, index, id);
  if (status == RS_OK)
    rs_buf_byte(&e->buf, RS_TAG_LATER);
  return status;
}

/* [-0, +0, -]  Append the table at 'index', number 'id', with its contents.
   'later': only the contents, which follow the value.  'known': the table is
   in a field of a module. */
static int
encode_contents (rs_encoder *e, lua_State *L, int index, unsigned id,
                 bool later, bool known)
{
  rs_open open;
  const int top = lua_gettop(L);
  int status = enter(e, L, &open, id, top);
  if (status != RS_OK)
    return status;
  const int depth = e->depth;
  const unsigned transfers = e->transfers;
  const bool class = e->class_next;
  e->class_next = false;
  const bool meta = lua_getmetatable(L, index);
  if (meta && !later) {
    bool done;
    status = encode_transfer(e, L, index, top + 1, &open, &done);
    if (status != RS_OK)
      return status;
    if (done)
      goto done;
  }
  if (rs_encoder_is_deep(e) && !known) {
    status = put_later(e, L, index, id, class);
    if (status != RS_OK)
      return status;
    goto done;
  }
  const unsigned flags = e->flags;
  const size_t start = e->buf.size;
  const size_t followers = e->later;
  const unsigned marks = e->marks;
  if (e->marking && !later && transfers == 0
      && (status = mark(e, L, index, class)) != RS_OK)
    return status;
  if (known) {
    status = put_table_name(e, L, index);
    if (status != RS_OK)
      return status;
  }
  fields f;
  status = encode_fields(e, L, index, meta, &f);
  if (status == RS_OK && !f.named && meta)
    status = encode_metatable(e, L, top + 1, f.header);
  if (status == RS_EREFUSED && !later) {
    lua_settop(L, top);
    f.named = known && (meta || has_function(L, index));
    const int found = known ? RS_OK
                            : rescue_class(e, L, index, &f.named);
    if (found != RS_OK)
      return found;
  }
  if (f.named) {  /* put the name in the place of the fields */
    lua_settop(L, top);
    e->open = &open;
    e->depth = depth;
    e->transfers = transfers;
    e->flags = flags;
    e->later = followers;
    if (e->marks > marks)
      rs_common_unmark(&e->marks, L, e->keep + 2, marks);
    e->next_id = id + 1;
    drop_from(e, id + 1);
    truncate(e, start);
    status = encode_name(e, L, index, RS_NAMES_TABLE, &f.named);
  }
  if (status != RS_OK)
    return status;
 done:
  if (meta)
    lua_settop(L, top);
  rs_encoder_leave(e);
  return RS_OK;
}

/*
 * [-0, +0, -]  Find out whether the table at 'index' has a name.  A module or
 * a class is appended by its name, and 'done' set; for any other table with a
 * name 'known' is set.
 */
static int
encode_known (rs_encoder *e, lua_State *L, int index, bool *done, bool *known)
{
  rs_name name;
  const int top = lua_gettop(L);
  const int status = rs_names_find(&e->names, L, e->home, index,
                                   RS_NAMES_TABLE, &name);
  if (status != RS_OK || name.parts == 0)
    return status;
  lua_getiuservalue(L, e->home, RS_HOME_INDEX);
  *done = name.parts == 1 || lua_rawget(L, index) != LUA_TNIL;
  lua_settop(L, top);
  if (*done && (e->forbidden & RS_MESSAGE_METHODS)
      && rs_name_is_library(&name))
    return rs_encoder_refuse(e, "cannot transfer a library out of a sandbox");
  if (*done)
    put_name(e, &name);
  *known = !*done;
  return RS_OK;
}

static int
encode_table (rs_encoder *e, lua_State *L, int index)
{
  const void *const object = lua_topointer(L, index);
  if (object == e->globals || object == e->env) {
    if (e->forbidden & RS_MESSAGE_METHODS)
      return rs_encoder_refuse(e, "cannot transfer the globals out of a "
                                  "sandbox");
    rs_buf_byte(&e->buf, RS_TAG_ENV);
    return RS_OK;
  }
  if (e->common.filter & rs_common_bit(object)) {
    const lua_Integer n = rs_common_find(&e->common, L, index, false);
    if (n > 0) {
      put_common(e, n);
      return RS_OK;
    }
  }
  bool found;
  const rs_seen *const seen = see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found)
    return encode_ref(e, seen->id);
  const unsigned id = e->next_id++;
  int status = RS_OK;
  bool done = false, known = false;
  if (rs_names_suspects(&e->names, L, e->home, object, &status))
    status = encode_known(e, L, index, &done, &known);
  if (status != RS_OK || done)
    return status;
  return encode_contents(e, L, index, id, false, known);
}

/* ------------------------------------------------- functions, userdata */

static int
encode_cfunction (rs_encoder *e, lua_State *L, int index)
{
  bool done;
  if (e->forbidden & RS_MESSAGE_METHODS)
    return rs_encoder_refuse(e, "cannot transfer a function out of a sandbox:"
                                " return what it returns");
  const int status = encode_name(e, L, index, RS_NAMES_CFUNCTION, &done);
  if (status != RS_OK || done)
    return status;
  if (lua_getupvalue(L, index, 1) != NULL) {
    lua_pop(L, 1);
    return rs_encoder_refuse(e, "cannot transfer a C function with upvalues"
                                " that no loaded module has");
  }
  if (e->forbidden & RS_MESSAGE_LOCAL)
    return rs_encoder_refuse(e, "cannot transfer a C function that no loaded"
                                " module has to another process");
  e->flags |= RS_MESSAGE_LOCAL;
  const lua_CFunction f = lua_tocfunction(L, index);
  uint64_t bits = 0;
  memcpy(&bits, &f, sizeof f);
  rs_put_eight(&e->buf, RS_TAG_CFUNCTION, bits);
  return RS_OK;
}

static int
encode_userdata (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  rs_open open;
  int status = rs_encoder_enter(e, L, &open, id);
  if (status != RS_OK)
    return status;
  const int top = lua_gettop(L);
  bool done = false;
  const char *name = NULL;
  if (lua_getmetatable(L, index)) {
    status = encode_transfer(e, L, index, top + 1, &open, &done);
    if (status != RS_OK)
      return status;
    if (!done) {
      lua_getiuservalue(L, e->home, RS_HOME_NAME);
      if (lua_rawget(L, top + 1) == LUA_TSTRING)
        name = lua_tostring(L, -1);
    }
  }
  if (!done)
    return name == NULL
         ? rs_encoder_refuse(e, "cannot transfer a userdata")
         : rs_encoder_refuse(e, "cannot transfer a userdata (%s)", name);
  lua_settop(L, top);
  rs_encoder_leave(e);
  return RS_OK;
}

static int
encode_pointer (rs_encoder *e, lua_State *L, int index)
{
  const bool null = lua_touserdata(L, index) == NULL;  /* as 'cjson' has it */
  if ((e->forbidden & RS_MESSAGE_LOCAL) && !null)
    return rs_encoder_refuse(e, e->forbidden & RS_MESSAGE_METHODS
                             ? "cannot transfer a light userdata out of a"
                               " sandbox"
                             : "cannot transfer a light userdata to another"
                               " process");
  if (!null)
    e->flags |= RS_MESSAGE_LOCAL;
  rs_put_eight(&e->buf, RS_TAG_POINTER, (uintptr_t) lua_touserdata(L, index));
  return RS_OK;
}

int
rs_encode_any (rs_encoder *e, lua_State *L, int index)
{
  const int type = lua_type(L, index);
  if (rs_put_scalar(&e->buf, L, index, type))
    return RS_OK;
  if (type == LUA_TTABLE)
    return encode_table(e, L, index);
  if (type == LUA_TLIGHTUSERDATA)
    return encode_pointer(e, L, index);
  if (type != LUA_TFUNCTION && type != LUA_TUSERDATA)
    return rs_encoder_refuse(e, "cannot transfer a %s",
                             lua_typename(L, type));
  bool found;
  const rs_seen *const seen =
    rs_encoder_see(e, lua_topointer(L, index), &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found)
    return encode_ref(e, seen->id);
  const unsigned id = e->next_id++;
  return type == LUA_TUSERDATA ? encode_userdata(e, L, index, id)
       : lua_iscfunction(L, index) ? encode_cfunction(e, L, index)
       : rs_encode_function(e, L, index, id);
}

/* ------------------------------------------------------------- protected */

/* (encoder, value)  The stack slots of a protected walk, which may call
   '__transfer', and keeps objects that are nested too deep. */
enum { ENCODER = 1, VALUE, HOME, KEEP, LATER, MARKS };

_Static_assert(MARKS == KEEP + 2, "the others count from KEEP");

/* [-0, +0, m]  Append the contents of objects that were nested too deep, in
   the order in which these were met. */
static int
encode_rest (rs_encoder *e, lua_State *L)
{
  const int top = lua_gettop(L);
  for (size_t i = 0; i < e->later; i++) {
    const lua_Integer at = 2 * (lua_Integer) i;
    lua_rawgeti(L, LATER, at + 2);
    const unsigned id = (unsigned) lua_tointegerx(L, -1, NULL);
    const int type = lua_rawgeti(L, LATER, at + 1);
    const int status = type == LUA_TTABLE
                     ? encode_contents(e, L, top + 2, id, true, false)
                     : rs_encode_upvalues(e, L, top + 2, id);
    if (status == RS_EREFUSED)
      rs_encoder_inside_deep(e);
    if (status != RS_OK)
      return status;
    bool found;
    rs_seen *const seen = see(e, lua_topointer(L, top + 2), &found);
    if (seen == NULL)
      return RS_ENOMEM;
    seen->later = false;
    lua_settop(L, top);
  }
  return RS_OK;
}

static int
walk_body (lua_State *L)
{
  rs_encoder *const e = lua_touserdata(L, ENCODER);
  rs_home_push(L);
  lua_newtable(L);
  lua_newtable(L);
  if (e->marking)
    rs_common_push_marks(&e->marks, L);
  e->home = HOME;
  e->keep = KEEP;
  e->stack = 0;
  e->status = rs_encode_any(e, L, VALUE);
  if (e->status == RS_OK && e->later > 0)
    e->status = encode_rest(e, L);
  return 0;
}

/* [-0, +0, -]  Walk over the value at 'index' in a protected call. */
static int
walk_protected (rs_encoder *e, lua_State *L, int index)
{
  lua_pushcfunction(L, walk_body);
  lua_pushlightuserdata(L, e);
  lua_pushvalue(L, index);
  const int code = lua_pcall(L, 2, 0, 0);
  if (e->quiet)
    lua_gc(L, LUA_GCRESTART);
  e->quiet = false;
  if (code == LUA_OK)
    return e->status;
  if (code == LUA_ERRMEM)
    return RS_ENOMEM;
  return refuse_error(e, L, "cannot transfer a value that changes while"
                            " '__transfer' runs");
}

/* ------------------------------------------------------------ the encoder */

void
rs_encoder_init (rs_encoder *e, unsigned forbidden)
{
  e->buf = (rs_buf) RS_BUF_INIT;
  e->forbidden = forbidden;
  e->walk = 0;
  e->class = (rs_class) { .object = NULL };
  e->shapes = e->shape = NULL;
  e->seen = NULL;
  e->seen_room = e->seen_count = 0;
  e->generation = 0;
  e->names = (rs_names) { .known = NULL };
  e->common = (rs_common) { .sent = NULL };
  e->marking = false;
  e->marks = 0;
  e->home = 0;
  e->quiet = e->class_next = false;
  rs_encoder_clear(e);
}

void
rs_encoder_fini (rs_encoder *e)
{
  rs_buf_fini(&e->buf);
  free(e->shapes);
  rs_buf_free(e->seen, e->seen_room * sizeof *e->seen);
  rs_names_fini(&e->names);
  rs_encoder_init(e, e->forbidden);
}

void
rs_encoder_clear (rs_encoder *e)
{
  rs_buf_clear(&e->buf);
  rs_shapes_truncate(e->shapes, 0);
  e->packed = (rs_packed) { .tag = 0 };
  e->packs = false;
  e->flags = 0;
  e->next_id = 0;
  e->careful = false;
  rs_names_clear(&e->names);
  e->status = RS_OK;
  e->pending = 0;
  e->part = NULL;
  e->error[0] = '\0';
  rs_encoder_forget(e);
}

void
rs_encoder_forget (rs_encoder *e)
{
  e->seen_count = 0;
  e->passing = false;
  if (++e->generation > GENERATION_MAX) {  /* too large for an entry? */
    if (e->seen_room > 0)
      memset(e->seen, 0, e->seen_room * sizeof *e->seen);
    e->generation = 1;
  }
}

void
rs_encoder_start (rs_encoder *e)
{
  if (e->buf.size > 0 || !rs_buf_reserve(&e->buf, PREFIX + RS_WIRE_HEADER))
    return;
  memset(e->buf.data, 0, PREFIX);
  rs_wire_put_header(e->buf.data + PREFIX);
  e->buf.size = PREFIX + RS_WIRE_HEADER;
}

void
rs_encoder_rewind (rs_encoder *e, const rs_mark *mark)
{
  truncate(e, mark->size);
  e->buf.failed = false;  /* only bytes after the mark were lost */
  e->next_id = mark->next_id;
  e->packed = mark->packed;
  rs_encoder_forget(e);
}

void
rs_encoder_raw (rs_encoder *e, const void *bytes, size_t n)
{
  rs_packed_end(&e->packed, &e->buf);
  rs_buf_add(&e->buf, bytes, n);
}

void
rs_encoder_nil (rs_encoder *e)
{
  rs_packed_end(&e->packed, &e->buf);
  rs_put_nil(&e->buf);
}

void
rs_encoder_string (rs_encoder *e, const char *text, size_t size)
{
  rs_encoder_start(e);
  rs_packed_end(&e->packed, &e->buf);
  rs_put_string(&e->buf, text, size);
}

/* [-0, +0, -]  Append the value at 'index', which is not a scalar. */
static int
encode_composite (rs_encoder *e, lua_State *L, int index)
{
  const int top = lua_gettop(L);
  index = lua_absindex(L, index);
  if (!lua_checkstack(L, LUA_MINSTACK) || !rs_home_try_push(L))
    return RS_ENOMEM;
  if (e->passing)
    drop_passing(e);
  const size_t size = e->buf.size;
  const unsigned flags = e->flags;
  const unsigned id = e->next_id;
  e->walk++;
  e->home = top + 1;
  e->keep = 0;
  e->env = rs_home_env(L, e->home);
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
  e->globals = lua_topointer(L, -1);
  lua_pop(L, 1);
  int status = RS_ERESTART;
  for (int attempt = e->careful; attempt < 2; attempt++) {
    e->open = NULL;
    e->depth = 0;
    e->transfers = 0;
    e->stack = 0;
    e->later = 0;
    status = attempt == 0 ? rs_encode_any(e, L, index)
                          : walk_protected(e, L, index);
    if (e->buf.failed)
      status = RS_ENOMEM;
    lua_settop(L, top + 1);
    if (status == RS_OK)
      break;
    truncate(e, size);
    e->buf.failed = false;
    e->flags = flags;
    e->next_id = id;
    drop_from(e, id);
    if (status != RS_ERESTART)
      break;
  }
  e->transfers = 0;
  e->open = NULL;
  e->home = 0;
  lua_settop(L, top);
  return status;
}

int
rs_encode_one (rs_encoder *e, lua_State *L, int index, const char *root)
{
  if (e->home != 0) {  /* called by '__transfer' of a value of this encoder? */
    snprintf(e->error, sizeof e->error, "cannot transfer a value inside the"
             " transfer of another one");
    return e->status = RS_EREFUSED;
  }
  rs_encoder_start(e);
  e->status = RS_ENOMEM;
  if (!e->buf.failed) {
    const rs_mark mark = rs_encoder_mark(e);
    const int type = lua_type(L, index);
    bool scalar = true;
    if (type == LUA_TNUMBER && e->packs)
      rs_packed_put(&e->packed, &e->buf, L, index);
    else {
      rs_packed_end(&e->packed, &e->buf);
      scalar = rs_put_scalar(&e->buf, L, index, type);
    }
    if (!scalar)
      e->status = encode_composite(e, L, index);
    else if (!e->buf.failed)
      e->status = RS_OK;
    else {
      truncate(e, mark.size);
      e->packed = mark.packed;
      e->buf.failed = false;
    }
  }
  if (e->status == RS_ENOMEM)
    snprintf(e->error, sizeof e->error, "not enough memory");
  else if (e->status == RS_EREFUSED) {
    if (root != NULL && root[0] != '\0')
      rs_encoder_inside(e, root);
    else
      rs_encoder_end_path(e);
  }
  return e->status;
}

size_t
rs_encode_scalars (rs_encoder *e, lua_State *L, int index, lua_Integer from,
                   size_t n, size_t bytes)
{
  const int top = lua_gettop(L);
  size_t i = 0;
  rs_encoder_start(e);
  for (; i < n && e->buf.size < bytes; i++) {
    const int type = lua_rawgeti(L, index, from + (lua_Integer) i);
    if (type == LUA_TNUMBER && e->packs)
      rs_packed_put(&e->packed, &e->buf, L, -1);
    else {
      rs_packed_end(&e->packed, &e->buf);
      if (type == LUA_TNIL || !rs_put_scalar(&e->buf, L, -1, type))
        break;
    }
    if (e->buf.failed)
      break;
    lua_settop(L, top);
  }
  lua_settop(L, top);
  return i;
}

/* Fit the memory of the buffer to its bytes; NULL when that fails.  A little
   too much stays, and so do large blocks, which are kept for others by their
   room. */
static void *
fit (rs_buf *b)
{
  if (b->room - b->size < SPARE_MAX || b->room >= RS_LARGE_FROM)
    return b->data;
  return realloc(b->data, b->size);
}

/* Complete the header, and return it.  NULL when bytes were lost on the
   way. */
static unsigned char *
finish (rs_encoder *e)
{
  rs_encoder_start(e);
  rs_packed_end(&e->packed, &e->buf);
  if (e->buf.failed)
    return NULL;
  unsigned char *const header = e->buf.data + PREFIX;
  header[RS_WIRE_AT_FLAGS] = (unsigned char) e->flags;
  if (e->flags & RS_MESSAGE_REFS)
    rs_wire_put32(header + RS_WIRE_AT_OBJECTS, e->next_id);
  return header;
}

static rs_message *
make_message (rs_encoder *e, bool hand_over)
{
  const unsigned char *const header = finish(e);
  if (header == NULL)
    return NULL;
  const size_t size = e->buf.size - PREFIX;
  rs_message *msg;
  if (!hand_over) {
    msg = rs_message_new(header, size, e->flags);
    if (msg == NULL)
      return NULL;
    msg->forbidden = (uint8_t) e->forbidden;
  }
  else {
    void *const fitting = fit(&e->buf);
    msg = fitting != NULL ? fitting : (void *) e->buf.data;
    rs_message_init(msg, size, e->flags);
    msg->forbidden = (uint8_t) e->forbidden;
    if (e->buf.room >= RS_LARGE_FROM)
      msg->room = (uint32_t) (e->buf.room / 1024);
    e->buf = (rs_buf) RS_BUF_INIT;
  }
  rs_encoder_clear(e);
  return msg;
}

rs_message *
rs_encoder_message (rs_encoder *e)
{
  return make_message(e, e->buf.size >= HAND_OVER_FROM);
}

rs_message *
rs_encoder_end (rs_encoder *e)
{
  return make_message(e, e->buf.size >= HAND_OVER_FROM
                         || e->buf.room - e->buf.size < SPARE_MAX);
}

rs_message *
rs_encoder_message_at (rs_encoder *e, void *room, size_t size)
{
  if (e->buf.failed || e->buf.size > size || e->buf.size < PREFIX)
    return rs_encoder_message(e);
  const unsigned char *const header = finish(e);
  rs_message *const msg = room;
  rs_message_init(msg, e->buf.size - PREFIX, e->flags);
  msg->forbidden = (uint8_t) e->forbidden;
  msg->lent = true;
  memcpy(msg->data, header, msg->size);
  rs_encoder_clear(e);
  return msg;
}

rs_message *
rs_encode_small (lua_State *L, int first, int n, void *room, size_t size)
{
  rs_message *const msg = room;
  if (size < PREFIX + RS_WIRE_HEADER)
    return NULL;
  rs_buf buf = RS_BUF_OVER(room, size);
  buf.size = PREFIX + RS_WIRE_HEADER;
  for (int i = first; i < first + n; i++)
    if (!rs_put_scalar(&buf, L, i, lua_type(L, i)))
      return NULL;
  if (buf.failed)
    return NULL;
  rs_message_init(msg, buf.size - PREFIX, 0);
  rs_wire_put_header(msg->data);
  msg->lent = true;
  return msg;
}

int
rs_encode (lua_State *L, int n, rs_message **out, rs_error *err)
{
  return rs_encode_without(L, n, 0, out, err);
}

int
rs_encode_without (lua_State *L, int n, unsigned forbidden, rs_message **out,
                   rs_error *err)
{
  int status = out == NULL ? rs_fail_null(err, "out")
                           : rs_check_values(L, n, err);
  if (status != RS_OK)
    return status;
  const int base = lua_gettop(L) - n;
  rs_encoder e;
  rs_encoder_init(&e, forbidden);
  for (int i = 1; i <= n && status == RS_OK; i++) {
    char root[32];
    snprintf(root, sizeof root, "value %d", i);
    status = rs_encode_value(&e, L, base + i, n > 1 ? root : NULL);
  }
  rs_message *msg = NULL;
  if (status == RS_OK && (msg = rs_encoder_message(&e)) == NULL) {
    status = RS_ENOMEM;
    snprintf(e.error, sizeof e.error, "not enough memory");
  }
  if (status == RS_OK)
    *out = msg;
  else if (err != NULL) {
    err->status = status;
    snprintf(err->text, sizeof err->text, "%s", e.error);
  }
  rs_encoder_fini(&e);
  return status;
}
