/* SPDX-License-Identifier: MIT */
/*
 * encoder.h - Lua values to bytes.
 *
 * An encoder appends values to its buffer.  It knows objects (tables,
 * functions) again from one value to the next until 'rs_encoder_forget'.  So
 * an object that two arguments share stays shared, and one that two items of a
 * map share does not.
 *
 * Encoding never raises, and allocates nothing in the Lua state while it walks
 * a table, since a finalizer could change the table under 'lua_next'.  Three
 * cases allocate, in a protected call: '__transfer', objects that are nested
 * too deep, and marks.
 */
#ifndef RS_ENCODER_H
#define RS_ENCODER_H

#include "base/buf.h"
#include "value/common.h"
#include "value/identity.h"
#include "value/message.h"
#include "value/names.h"
#include "value/scalar.h"
#include "value/shape.h"
#include "value/wire.h"

/* The metatable that was met last: objects in a row often have one class. */
typedef struct rs_class {
  const void *object;     /* a metatable without '__transfer'; NULL: none is
                             known */
  unsigned walk;          /* the walk in which it was found */
  unsigned id;            /* number of the object that it was sent as */
  bool sent;              /* 'id' is known */
  lua_Integer common;     /* number in the encoder's 'common'; or 0 */
} rs_class;

/* An object that is being encoded; on the C stack. */
typedef struct rs_open rs_open;
struct rs_open {
  const rs_open *outer;
  unsigned id;
  bool rebuilt;             /* made only when its contents are there */
};

typedef struct rs_encoder {
  rs_buf buf;             /* the 'rs_message', its header, the values */
  rs_packed packed;       /* the run at the end of the values, if any */
  bool packs;             /* runs are made: many values will come */
  unsigned flags;         /* RS_MESSAGE_ kinds encoded so far */
  unsigned forbidden;     /* RS_MESSAGE_ kinds that are refused */
  unsigned next_id;       /* number of the next object */

  unsigned walk;          /* number of the walk; no string is freed during
                             one */
  rs_shape *shapes;       /* RS_SHAPES places; NULL until first needed */
  rs_shape *shape;        /* the shape that was used last */
  rs_class class;
  rs_identities seen;     /* objects that were sent */

  bool careful;           /* a case that allocates was met: walk protected */
  unsigned transfers;     /* results of '__transfer' around this value */
  bool transferred;       /* '__transfer' was called for this value */
  rs_names names;         /* modules in which named objects were found */
  rs_common common;       /* tables that can be named by number */
  bool marking;           /* tables of this message may be named: list them */
  unsigned marks;         /* tables in that list */
  bool gives;             /* the globals that functions read travel */
  const char *const *names_given;  /* names of globals that travel besides,
                             ended by NULL; or NULL */
  bool reads;             /* a function reads a global that is not Lua's own */
  bool moved;             /* a global was sent, or left out */
  bool tampers;           /* a function may do more than read globals */
  size_t plain_at;        /* the byte in the buffer that tells so; or 0 */

  /* Only while a value is encoded: */
  const void *globals;    /* addresses of both environments */
  const void *env;
  int home;               /* stack index of the userdata of names.c */
  int keep;               /* stack index of the table that keeps results of
                             '__transfer'; 0 unless the walk is protected */
  size_t later;           /* number of objects whose contents follow the value;
                             they and their numbers are in the slot behind
                             'keep' */
  bool quiet;             /* the walk has stopped the collector */
  bool advanced;          /* the collector has an advance until its end */
  rs_buf read;            /* names of globals, see bytecode.h */
  const rs_open *open;
  unsigned first_id;      /* number of the first object of this value */
  int depth;
  int stack;              /* up to this top the stack has LUA_MINSTACK room */

  int status;             /* RS_OK, or why the last value failed */
  size_t pending;         /* bytes at the start of 'error' that are a path */
  const char *part;       /* the part of a value that the path begins in, if
                             not the value itself: "key" */
  char error[512];        /* path and reason of the refusal */
} rs_encoder;

/* Make the encoder ready for values; nothing is allocated yet. */
void rs_encoder_init (rs_encoder *e, unsigned forbidden);
void rs_encoder_fini (rs_encoder *e);

/* Forget all values and failures, keep the memory. */
void rs_encoder_clear (rs_encoder *e);

/* Forget the objects: values that come share none with earlier values. */
void rs_encoder_forget (rs_encoder *e);

/* Write the header, unless that was done: before the first raw bytes. */
void rs_encoder_start (rs_encoder *e);

/* A place in the encoder's message, to return to. */
typedef struct rs_mark {
  size_t size;
  unsigned next_id;
  rs_packed packed;
} rs_mark;

static inline rs_mark
rs_encoder_mark (const rs_encoder *e)
{
  return (rs_mark) { e->buf.size, e->next_id, e->packed };
}

/* Take back the values since 'mark'.  Values that come share no objects with
   earlier ones. */
void rs_encoder_rewind (rs_encoder *e, const rs_mark *mark);

/* Append bytes that are not a value; the reader knows what they are. */
void rs_encoder_raw (rs_encoder *e, const void *bytes, size_t n);

/* Append nil, or a string that is in no Lua state. */
void rs_encoder_nil (rs_encoder *e);
void rs_encoder_string (rs_encoder *e, const char *text, size_t size);

/*
 * [-0, +0, -]  Append the value at 'index'.  'root' begins the path in a
 * refusal: "argument 2".  Inner parts of the path, such as "upvalue 'log' of
 * function <scan.lua:12>", are added by the encoder itself.  On failure all
 * bytes of this call are taken back, and 'e->error' tells the path and the
 * reason.  RS_OK, RS_EREFUSED or RS_ENOMEM.
 */
int rs_encode_one (rs_encoder *e, lua_State *L, int index, const char *root);

/* Encode as 'rs_encode' does, but refuse the 'forbidden' kinds. */
int rs_encode_without (lua_State *L, int n, unsigned forbidden,
                       rs_message **out, rs_error *err);

/* Append a value as 'rs_encode_one' does, quicker for one more number of a
   run. */
static inline int
rs_encode_value (rs_encoder *e, lua_State *L, int index, const char *root)
{
  return rs_packed_go_on(&e->packed, &e->buf, L, index)
       ? RS_OK : rs_encode_one(e, L, index, root);
}

/*
 * [-0, +0, -]  Append the fields 'from', from + 1, ... of the table at 'index'
 * with raw access.  Stop after 'n' fields, or before the first one that is nil
 * or not a scalar, or when the message has 'bytes' bytes.  Returns how many
 * fields were appended.
 */
size_t rs_encode_scalars (rs_encoder *e, lua_State *L, int index,
                          lua_Integer from, size_t n, size_t bytes);

/*
 * Make a message of the encoded values, with one reference.  The encoder is
 * clear then; the memory of a large message goes along.  NULL when out of
 * memory: the encoder stays as it was.
 */
rs_message *rs_encoder_message (rs_encoder *e);

/* Make the message of an encoder that will not be used any more.  The
   encoder's memory goes along, unless much of it is not needed. */
rs_message *rs_encoder_end (rs_encoder *e);

/* Make the message in the 'size' bytes at 'room', if it fits there; else as
   'rs_encoder_message' does. */
rs_message *rs_encoder_message_at (rs_encoder *e, void *room, size_t size);

/* [-0, +0, -]  Make a message of the 'n' values from 'first' on, in the 'size'
   bytes at 'room', without an encoder: most arguments and results of single
   jobs are a few scalars, and an encoder takes four times as long to get
   ready.  NULL if some value is not a scalar, or they do not fit. */
rs_message *rs_encode_small (lua_State *L, int first, int n, void *room,
                             size_t size);

/* ------------------------------------------- between the encoder's files */

/*
 * encoder.c has the encoder, its walks and its messages; encode_table.c has
 * tables, function.c functions, encode_globals.c what these read,
 * encode_object.c all other objects; refuse.c tells the path to a value that
 * is refused.
 */

enum {
  RS_ERESTART = -1,       /* the walk has to begin again: protected, or since a
                             table proved to be a class that both sides
                             have */

  RS_ENCODER_PREFIX = offsetof(rs_message, data)  /* bytes in the buffer before
                             the header: the 'rs_message' itself */
};

/* [-0, +0, -]  Append the value at 'index', which is absolute.  encoder.c */
int rs_encode_any (rs_encoder *e, lua_State *L, int index);

/* Append the table at 'index'.  encode_table.c */
int rs_encode_table (rs_encoder *e, lua_State *L, int index);

/* [-0, +0, -]  Append the contents of the table at 'index', number 'id', which
   follow the value. */
int rs_encode_table_later (rs_encoder *e, lua_State *L, int index,
                           unsigned id);

/* Append the function at 'index', whose number is 'id'.  function.c */
int rs_encode_function (rs_encoder *e, lua_State *L, int index, unsigned id);

/* Append the upvalues of function 'id' at 'index', which follow the value. */
int rs_encode_upvalues (rs_encoder *e, lua_State *L, int index, unsigned id);

/* Append the object at 'index'.  encode_object.c */
int rs_encode_cfunction (rs_encoder *e, lua_State *L, int index);
int rs_encode_userdata (rs_encoder *e, lua_State *L, int index, unsigned id);
int rs_encode_pointer (rs_encoder *e, lua_State *L, int index);

/*
 * [-0, +0, -]  Append the cell of the environment, the table at 'env', which
 * is upvalue number 'upvalue', from 0 on, of the function at 'function', whose
 * bytecode is 'dump'; and the globals that the function reads there.
 * encode_globals.c
 */
int rs_encode_environment (rs_encoder *e, lua_State *L, int function, int env,
                           const unsigned char *dump, size_t size,
                           unsigned upvalue);

/* [-0, +0, -]  Set 'names' to those of the globals that the function at
   'index' reads; the environment is its only upvalue.  False when out of
   memory, or when to look for a name could take memory. */
bool rs_globals_list (lua_State *L, int index, rs_buf *names);

/* [-0, +0, -]  True when the environment at 'env' has none of the globals. */
bool rs_globals_absent (lua_State *L, int env, const rs_buf *names);

/* lua_Writer: append to an rs_buf.  function.c */
int rs_on_bytecode (lua_State *L, const void *bytes, size_t n, void *user);

/* [-0, +0, -]  Take back the collector's advance: the walk has ended. */
void rs_encoder_end_advance (rs_encoder *e, lua_State *L);

/* Append the number of an object that was sent before. */
int rs_encode_ref (rs_encoder *e, unsigned id);

/* [-0, +0, -]  Append the name of the object at 'index', of the RS_NAMES_
   'kind', if it has one, and set 'done'. */
int rs_encode_name (rs_encoder *e, lua_State *L, int index, int kind,
                    bool *done);

/* Append a name, with the tag of what it is for. */
void rs_encoder_name (rs_encoder *e, const rs_name *name, unsigned tag);

/* Where the value may not go: the end of a refusal. */
static inline const char *
rs_encoder_away (const rs_encoder *e)
{
  return !(e->forbidden & RS_MESSAGE_METHODS)
         || (e->forbidden & RS_MESSAGE_AWAY) ? "to another process"
                                             : "out of a sandbox";
}

/* True when this metatable is the last one that was found to be without
   '__transfer'. */
static inline bool
rs_encoder_is_class (const rs_encoder *e, const void *metatable)
{
  return metatable == e->class.object && e->class.walk == e->walk;
}

/*
 * [-0, +0, m]  Append the results of '__transfer' instead of the object at
 * 'index', and set 'done', if its metatable, at 'meta', has that field.
 */
int rs_encode_transfer (rs_encoder *e, lua_State *L, int index, int meta,
                        rs_open *open, bool *done);

/*
 * [-0, +0, m]  Let the contents of the object at 'index', number 'id', follow
 * the value.  RS_OK, RS_ENOMEM, or RS_ERESTART: the walk has to be protected.
 */
int rs_encoder_later (rs_encoder *e, lua_State *L, int index, unsigned id);

/* True when the contents of the object that was entered have to follow the
   value: it is nested too deep. */
static inline bool
rs_encoder_is_deep (const rs_encoder *e)
{
  return e->depth > RS_WIRE_INLINE && e->transfers == 0;
}

/* Append a length. */
void rs_encoder_length (rs_encoder *e, size_t n);

/* Take back the bytes from 'size' on, and the objects from number 'id' on. */
void rs_encoder_truncate (rs_encoder *e, size_t size);
void rs_encoder_drop_from (rs_encoder *e, unsigned id);

/* [-0, +0, -]  Stop the collector until the end of the walk: a finalizer could
   change the tables that are walked. */
void rs_encoder_stop_collector (rs_encoder *e, lua_State *L);

/* Find the entry of 'object', or make it, and set '*found'.  NULL when out of
   memory. */
static inline rs_seen *
rs_encoder_see (rs_encoder *e, const void *object, bool *found)
{
  return rs_identity_see(&e->seen, object, e->next_id, e->transfers > 0,
                         found);
}

/* Refuse the value, for the formatted reason, or with the error on top of the
   stack, which is popped.  Returns RS_EREFUSED. */
int rs_encoder_refuse (rs_encoder *e, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));
int rs_encoder_refuse_error (rs_encoder *e, lua_State *L, const char *what);

/* [-0, +0, -]  Make room on the stack for this level, and for some inner
   ones. */
bool rs_encoder_grow_stack (rs_encoder *e, lua_State *L);

/* Begin and end an object: depth, stack, list of open objects; 'top' is that
   of the stack.  RS_OK or the failure. */
static inline int
rs_encoder_enter_at (rs_encoder *e, lua_State *L, rs_open *open, unsigned id,
                     int top)
{
  if (e->depth == RS_WIRE_DEPTH)
    return rs_encoder_refuse(e, "cannot transfer what '__transfer' returned:"
                                " it is nested deeper than %d levels",
                             RS_WIRE_DEPTH - RS_WIRE_INLINE);
  if (e->buf.failed || (top > e->stack && !rs_encoder_grow_stack(e, L)))
    return RS_ENOMEM;
  open->outer = e->open;
  open->id = id;
  open->rebuilt = false;
  e->open = open;
  e->depth++;
  return RS_OK;
}

static inline int
rs_encoder_enter (rs_encoder *e, lua_State *L, rs_open *open, unsigned id)
{
  return rs_encoder_enter_at(e, L, open, id, lua_gettop(L));
}

static inline void
rs_encoder_leave (rs_encoder *e)
{
  e->open = e->open->outer;
  e->depth--;
}

/* [-0, +0, -]  Add to the path of a refusal.  The refused value is in the
   'part' of a value, such as its "key"; it is the field whose key is at
   'index'; the path of fields is complete. */
void rs_encoder_inside_part (rs_encoder *e, const char *part);
void rs_encoder_inside_field (rs_encoder *e, lua_State *L, int index);
void rs_encoder_end_path (rs_encoder *e);

/* Mark the path as incomplete: the refused value is in an object that is
   nested too deep for its path to be known. */
void rs_encoder_inside_deep (rs_encoder *e);

/* Put 'where' in front of the path, such as "upvalue 'f' of ...". */
void rs_encoder_inside (rs_encoder *e, const char *where);

#endif
