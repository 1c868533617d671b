/* SPDX-License-Identifier: MIT */
/*
 * encode_table.c - tables to bytes: fields, shapes of keys, metatables.
 *
 * A table is a tag, counts, and fields.  The counts are known only when all
 * fields were appended, since only 'lua_next' tells what comes, and are
 * written then.  Fields 1, 2, ... come first, without their keys.  Other
 * fields come as key and value, or as values alone, if the keys begin as those
 * of an earlier table did (shape.h).  The metatable comes last.
 *
 * Some tables are replaced by less: by a number if the receiver has the table,
 * by a name if it is a module or a class, by nothing but a tag if it is nested
 * too deep.  A class may show only at its key '__index': the fields so far are
 * taken back then.
 */
#include "value/encoder.h"

#include "value/mask.h"
#include "value/scalar.h"
#include "value/wire.h"

/* Facts that 'encode_contents' needs about a few tables; most have none. */
enum {
  LATER = 1,   /* only the contents are appended, which follow the value */
  KNOWN = 2,   /* the table is in a field of a module */
  CLASS = 4    /* the table is a metatable */
};

static int encode_contents (rs_encoder *e, lua_State *L, int index,
                            unsigned id, unsigned what);

/* ------------------------------------------------ tables of both sides */

/* Once so many tables of a function's message are marked, only metatables are:
   the list of marked tables takes memory. */
enum { MARKS_MAX = 200 };

/* [-0, +0, -]  Append the number of a table that both sides have, as a
   metatable or behind 'tag'. */
static void
put_common (rs_encoder *e, unsigned tag, lua_Integer n)
{
  unsigned char *const at = rs_buf_room(&e->buf, 1 + RS_WIRE_VARINT);
  if (at == NULL)
    return;
  at[0] = (unsigned char) tag;
  e->buf.size += 1 + rs_put_varint(at + 1, (size_t) n);
  e->flags |= RS_MESSAGE_COMMON;
}

/* [-0, +0, -]  Append the same as a value that may be data.  The receiver may
   make a copy, so the table gets the number of an object, and is named by that
   from then on; but not at a depth where no object fits. */
static void
put_common_value (rs_encoder *e, lua_Integer n)
{
  if (e->depth < RS_WIRE_DEPTH) {
    rs_buf_byte(&e->buf, RS_TAG_REPLACED);
    e->next_id++;
  }
  else
    rs_encoder_drop_from(e, e->next_id);
  put_common(e, RS_TAG_COMMON_REF, n);
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
  rs_encoder_stop_collector(e, L);
  rs_common_mark(&e->marks, L, e->keep + 2, index);
  rs_buf_byte(&e->buf, RS_TAG_COMMON);
  return RS_OK;
}

/* ----------------------------------------------------------- metatables */

/* True when the contents of 'object' will follow the value. */
static bool
is_later (rs_encoder *e, const void *object)
{
  const rs_seen *const seen = rs_identity_slot(&e->seen, object);
  return seen->generation == e->seen.generation && seen->later;
}

static bool
is_open (const rs_encoder *e, unsigned id)
{
  for (const rs_open *o = e->open; o != NULL; o = o->outer)
    if (o->id == id)
      return true;
  return false;
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
                              "'%.40s' %s: return data without it, or a "
                              "class that the host has loaded", field,
                           rs_encoder_away(e));
}

/*
 * [-0, +0, -]  Let the table at 'index', if both sides have it, go by its
 * number '*n' from here on, as a value, too; otherwise '*n' is 0.  If it was
 * sent as a value before, its contents may be those of a copy: then the walk
 * begins again.  When it must not, since '__transfer' was called, or the table
 * came with an earlier value, or is the one whose contents are appended, '*n'
 * is 0: the table is what was sent.  'known' tells that it was noted before.
 * RS_OK, RS_ENOMEM or RS_ERESTART.
 */
static int
note_class (rs_encoder *e, lua_State *L, int index, lua_Integer *n,
            bool *known)
{
  const void *const object = lua_topointer(L, index);
  if (e->seen.room > 0) {
    const rs_seen *const before = rs_identity_slot(&e->seen, object);
    *known = before->generation == e->seen.generation && before->common;
    if (*known) {
      *n = (lua_Integer) before->id;
      return RS_OK;
    }
  }
  *known = false;
  *n = e->common.filter & rs_common_bit(object)
     ? rs_common_find(&e->common, L, index, true) : 0;
  if (*n == 0)
    return RS_OK;
  bool found;
  rs_seen *const seen = rs_encoder_see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  const bool sent = found && !seen->common;
  if (sent && (e->transferred || seen->id < e->first_id
               || is_open(e, seen->id))) {
    *n = 0;
    return RS_OK;
  }
  seen->common = true;
  seen->id = (unsigned) *n;
  return sent ? RS_ERESTART : RS_OK;
}

enum { BASES_MAX = 32 };   /* most classes that a class inherits from */

/* [-0, +0, -]  Do 'note_class' for the classes that the one at 'index'
   inherits from, by its metatable or its '__index': those of the receiver's
   class are the receiver's own.  RS_OK or the status. */
static int
note_bases (rs_encoder *e, lua_State *L, int index)
{
  const int top = lua_gettop(L);
  int status = RS_OK;
  lua_Integer n = 1;
  bool known = false;
  lua_pushvalue(L, index);
  for (int i = 0; i < BASES_MAX && n > 0 && !known && status == RS_OK; i++) {
    const void *const object = lua_topointer(L, top + 1);
    lua_getiuservalue(L, e->home, RS_HOME_INDEX);
    if (lua_rawget(L, top + 1) != LUA_TTABLE
        || lua_topointer(L, -1) == object) {
      lua_settop(L, top + 1);
      if (!lua_getmetatable(L, top + 1) || lua_topointer(L, -1) == object)
        break;
    }
    lua_replace(L, top + 1);
    status = note_class(e, L, top + 1, &n, &known);
  }
  lua_settop(L, top);
  return status;
}

/* [-0, +0, -]  Find the number of the metatable at 'index', whose address is
   'object': see 'note_class'. */
static int
find_class (rs_encoder *e, lua_State *L, int index, const void *object,
            lua_Integer *n)
{
  if (!(e->common.filter & rs_common_bit(object)))
    return RS_OK;
  const bool known = rs_encoder_is_class(e, object);
  *n = known ? e->class.common : 0;
  if (*n > 0 || (known && e->class.sent))
    return RS_OK;
  bool noted;
  const int status = note_class(e, L, index, n, &noted);
  if (status != RS_OK || *n == 0)
    return status;
  if (known)
    e->class.common = *n;
  return noted ? RS_OK : note_bases(e, L, index);
}

/* [-0, +0, -]  Append the metatable at 'index', whose address is 'object' and
   whose number on both sides is 'common', or 0.  The tag of its table is at
   offset 'header'. */
static int
encode_metatable (rs_encoder *e, lua_State *L, int index, const void *object,
                  lua_Integer common, size_t header)
{
  const bool known = rs_encoder_is_class(e, object);
  if (e->forbidden & RS_MESSAGE_METHODS) {
    const int may = check_metatable(e, L, index);
    if (may != RS_OK)
      return may;
  }
  if (known && e->class.sent) {
    if ((e->later > 0 || is_open(e, e->class.id)) && !e->buf.failed)
      e->buf.data[header]++;  /* META_OPEN is the next tag */
    return rs_encode_ref(e, e->class.id);
  }
  if (common > 0) {
    put_common(e, RS_TAG_COMMON_REF, common);
    return RS_OK;
  }
  if (object == e->globals || object == e->env)
    return rs_encode_any(e, L, index);
  bool found;
  rs_seen *const seen = rs_encoder_see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found) {
    if (known) {
      e->class.sent = true;
      e->class.id = seen->id;
    }
    if ((seen->later || is_open(e, seen->id)) && !e->buf.failed)
      e->buf.data[header]++;
    return rs_encode_ref(e, seen->id);
  }
  bool done;
  const unsigned id = e->next_id++;
  int status = rs_encode_name(e, L, index, RS_NAMES_TABLE, &done);
  if (status != RS_OK || done)
    return status;
  status = encode_contents(e, L, index, id, CLASS);
  if (status == RS_EREFUSED)
    rs_encoder_inside_part(e, "metatable");
  else if (status == RS_OK && e->later > 0 && is_later(e, object)
           && !e->buf.failed)
    e->buf.data[header]++;
  return status;
}

/* --------------------------------------------------------------- fields */

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
    return rs_encode_name(e, L, table, RS_NAMES_TABLE, &f->named);
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
  const int status = type == LUA_TTABLE ? rs_encode_table(e, L, key + 1)
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

/* ------------------------------------------------------ shapes, records */

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
  if (!rs_shape_has(shape, 0, e->buf.data, s, size)
      || (shape->defined == 0 && e->buf.size > UINT32_MAX))  /* too late */
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
  if (f->shape.n == 0 || !f->learn || f->array > 0 || e->next_id < 2
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
  rs_wire_put32(at + 1, (uint32_t) (defined - RS_ENCODER_PREFIX));
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

/* --------------------------------------------------------------- tables */

/* [-0, +0, -]  Append the name of the table at 'index'; its contents will
   follow. */
static int
put_table_name (rs_encoder *e, lua_State *L, int index)
{
  rs_name name;
  const int status = rs_names_find(&e->names, L, e->home, index,
                                   RS_NAMES_TABLE, &name);
  if (status == RS_OK && name.parts > 0)  /* '__transfer' may have moved it */
    rs_encoder_name(e, &name, RS_TAG_NAMED_TABLE);
  return status;
}

/* [-0, +0, -]  True when the table at 'index' has a field '__index', as
   classes have. */
static bool
has_index (const rs_encoder *e, lua_State *L, int index)
{
  lua_getiuservalue(L, e->home, RS_HOME_INDEX);
  const bool has = lua_rawget(L, index) != LUA_TNIL;
  lua_pop(L, 1);
  return has;
}

/* [-0, +?, -]  Append a class by name, if it has one, when its fields cannot
   travel: it may be that '__index' was not met yet. */
static int
rescue_class (rs_encoder *e, lua_State *L, int index, bool *named)
{
  if (!has_index(e, L, index))
    return RS_OK;
  return rs_encode_name(e, L, index, RS_NAMES_TABLE, named);
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

/* Where to return to when the fields of a table are taken back. */
typedef struct origin {
  size_t start;       /* the size of the buffer */
  size_t later;
  unsigned flags, marks, transfers;
  int depth;
} origin;

/* [-0, +?, -]  Append the table at 'index', number 'id', by its name, if it is
   a class that has one, and set 'named'.  Its fields were found to be those of
   a class, or cannot travel; they are taken back. */
static int
encode_by_name (rs_encoder *e, lua_State *L, int index, unsigned id,
                const rs_open *open, const origin *o, bool *named)
{
  e->open = open;
  e->depth = o->depth;
  e->transfers = o->transfers;
  e->flags = o->flags;
  e->later = o->later;
  if (e->marks > o->marks)
    rs_common_unmark(&e->marks, L, e->keep + 2, o->marks);
  e->next_id = id + 1;
  rs_encoder_drop_from(e, id + 1);
  rs_encoder_truncate(e, o->start);
  return rs_encode_name(e, L, index, RS_NAMES_TABLE, named);
}

/* [-0, +?, -]  The fields of the table at 'index' cannot travel: find out
   whether it can travel by its name instead.  RS_OK or RS_ENOMEM. */
static int
find_way_out (rs_encoder *e, lua_State *L, int index, bool meta, unsigned what,
              bool *named)
{
  if (!(what & KNOWN))
    return rescue_class(e, L, index, named);
  *named = meta || has_function(L, index);
  return RS_OK;
}

/* [-0, +0, -]  Append what stands in front of a table that is not like most:
   its mark, its name. */
static int
put_front (rs_encoder *e, lua_State *L, int index, unsigned what)
{
  int status = RS_OK;
  if (e->marking && !(what & LATER) && e->transfers == 0)
    status = mark(e, L, index, what & CLASS);
  if (status == RS_OK && (what & KNOWN))
    status = put_table_name(e, L, index);
  return status;
}

/* [-0, +0, -]  Append the table at 'index', number 'id', with its contents. */
static int
encode_contents (rs_encoder *e, lua_State *L, int index, unsigned id,
                 unsigned what)
{
  rs_open open;
  const int top = lua_gettop(L);
  int status = rs_encoder_enter_at(e, L, &open, id, top);
  if (status != RS_OK)
    return status;
  const origin from = { e->buf.size, e->later, e->flags, e->marks,
                        e->transfers, e->depth };
  const void *class = NULL;
  lua_Integer common = 0;
  if (lua_getmetatable(L, index)) {
    class = lua_topointer(L, top + 1);
    bool done = false;
    if (!(what & LATER) && !rs_encoder_is_class(e, class))
      status = rs_encode_transfer(e, L, index, top + 1, &open, &done);
    if (status == RS_OK && !done)
      status = find_class(e, L, top + 1, class, &common);
    if (status != RS_OK)
      return status;
    if (done)
      goto done;
  }
  if (rs_encoder_is_deep(e) && !(what & KNOWN)) {
    status = put_later(e, L, index, id, what & CLASS);
    if (status != RS_OK)
      return status;
    goto done;
  }
  if ((what != 0 || e->marking)
      && (status = put_front(e, L, index, what)) != RS_OK)
    return status;
  fields f;
  status = encode_fields(e, L, index, class != NULL, &f);
  if (status == RS_OK && !f.named && class != NULL)
    status = encode_metatable(e, L, top + 1, class, common, f.header);
  if (status == RS_EREFUSED && !(what & LATER)) {
    lua_settop(L, top);
    const int found = find_way_out(e, L, index, class != NULL, what,
                                   &f.named);
    if (found != RS_OK)
      return found;
  }
  if (f.named) {
    lua_settop(L, top);
    status = encode_by_name(e, L, index, id, &open, &from, &f.named);
  }
  if (status != RS_OK)
    return status;
 done:
  if (class != NULL)
    lua_settop(L, top);
  rs_encoder_leave(e);
  return RS_OK;
}

int
rs_encode_table_later (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  return encode_contents(e, L, index, id, LATER);
}

/* [-0, +0, -]  Append the table at 'index', number 'id', which may have a
   name: a module or a class by its name, any other table with its contents.
   (Not inline, so that most tables take no stack for a name.) */
static __attribute__ ((noinline)) int
encode_suspect (rs_encoder *e, lua_State *L, int index, unsigned id)
{
  rs_name name;
  int status;
  if (!rs_names_suspects(&e->names, L, e->home, lua_topointer(L, index),
                         &status))
    return status == RS_OK ? encode_contents(e, L, index, id, 0) : status;
  status = rs_names_find(&e->names, L, e->home, index, RS_NAMES_TABLE, &name);
  if (status != RS_OK)
    return status;
  if (name.parts == 0)
    return encode_contents(e, L, index, id, 0);
  if (name.parts > 1 && !has_index(e, L, index))
    return encode_contents(e, L, index, id, KNOWN);
  if ((e->forbidden & RS_MESSAGE_METHODS) && rs_name_is_library(&name))
    return rs_encoder_refuse(e, "cannot transfer a library %s",
                             rs_encoder_away(e));
  rs_encoder_name(e, &name, RS_TAG_NAMED);
  return RS_OK;
}

int
rs_encode_table (rs_encoder *e, lua_State *L, int index)
{
  const void *const object = lua_topointer(L, index);
  if (object == e->globals || object == e->env) {
    if (e->forbidden & RS_MESSAGE_METHODS)
      return rs_encoder_refuse(e, "cannot transfer the globals %s",
                               rs_encoder_away(e));
    rs_buf_byte(&e->buf, RS_TAG_ENV);
    return RS_OK;
  }
  bool found;
  rs_seen *const seen = rs_encoder_see(e, object, &found);
  if (seen == NULL)
    return RS_ENOMEM;
  if (found && seen->common) {
    put_common(e, RS_TAG_COMMON_CLASS, (lua_Integer) seen->id);
    return RS_OK;
  }
  if (found)
    return rs_encode_ref(e, seen->id);
  if (e->common.filter != 0 && (e->common.filter & rs_common_bit(object))) {
    const lua_Integer n = rs_common_find(&e->common, L, index, false);
    if (n > 0 && has_index(e, L, index)) {
      seen->common = true;
      seen->id = (unsigned) n;
      put_common(e, RS_TAG_COMMON_CLASS, n);
      return RS_OK;
    }
    if (n > 0) {
      put_common_value(e, n);
      return RS_OK;
    }
  }
  const unsigned id = e->next_id++;
  return rs_names_excludes(&e->names, object)
         ? encode_contents(e, L, index, id, 0)
         : encode_suspect(e, L, index, id);
}
