/* SPDX-License-Identifier: MIT */
/*
 * decoder.h - bytes to Lua values.
 *
 * A decoder reads the values of a message one at a time.  Decoding raises Lua
 * errors: call it protected.
 */
#ifndef RS_DECODER_H
#define RS_DECODER_H

#include "value/common.h"
#include "value/message.h"
#include "value/names.h"
#include "value/scalar.h"
#include "value/shape.h"
#include "value/wire.h"

typedef struct rs_decoder {
  const unsigned char *data;
  size_t size;
  size_t at;              /* offset of the next byte */
  unsigned flags;         /* RS_MESSAGE_ kinds from the header */
  unsigned forbidden;     /* RS_MESSAGE_ kinds that are refused */
  unsigned next_id;
  unsigned run;           /* tag of the run that is being read */
  size_t left;            /* numbers of that run that were not read yet */
  size_t claimed;         /* fields announced so far; each takes a byte at
                             least */
  int depth;
  int stack;              /* up to this top the stack has LUA_MINSTACK room */
  int objects;            /* stack index of the table of objects, or 0 */
  size_t count;           /* most objects that the table has; the keys of
                             shapes stand behind them */
  rs_shape_read shapes[RS_SHAPES];
  bool metatables;        /* a value has got a metatable */
  bool bad;               /* bytes were met that are not a message */
  const char *missing;    /* name, in the message, of the last module that
                             could not be loaded for a table; or NULL */
  size_t missing_size;
  int advance;            /* KiB that the garbage collector does not count
                             yet */
  rs_common common;       /* tables that can be named by number */
  int marks_ref;          /* registry reference of the list for tables that
                             other messages may name; or 0 */
  unsigned marks;         /* tables marked for that so far */
  const void *tame;       /* the last metatable seen without '__gc' */
  unsigned late;          /* metatables to be set when the value is complete */
  size_t later;           /* number of objects whose contents follow the value;
                             they are in the table at 0 of 'objects' */
  size_t filled;          /* objects of these that have their contents */
  size_t promised;        /* least bytes of the contents that are still
                             missing */
  int function;           /* stack index of the function that gets upvalues */
  int upvalue;            /* the upvalue that is being read, or 0 */
} rs_decoder;

/*
 * [-0, +(0|1), m]  Begin to read 'msg', which must outlive the decoder.
 * Pushes the table of objects if the message has back references or shapes.
 * The decoder keeps the index of that table, which must stay there until the
 * last value is decoded.  Raises an error with the byte offset for a header
 * that is not ours.
 */
void rs_decoder_init (rs_decoder *d, lua_State *L, const rs_message *msg,
                      unsigned forbidden);

/* A place in the decoder's message, to return to. */
typedef struct rs_decoder_place {
  size_t at;
  unsigned next_id;
  unsigned run;
  size_t left;
  size_t claimed;
} rs_decoder_place;

static inline rs_decoder_place
rs_decoder_tell (const rs_decoder *d)
{
  return (rs_decoder_place) { d->at, d->next_id, d->run, d->left, d->claimed };
}

/* Go behind the next value without making it.  False for bytes that are not a
   value; then the decoder stands anywhere.  After a value whose decoding has
   raised, seek to the start of that value first.  [skip.c] */
bool rs_decoder_skip (rs_decoder *d);

/* [-0, +0, -]  Find the value number 'n', from 1, of the message, if that is a
   string: its bytes are lent.  False when there is none.  [skip.c] */
bool rs_message_string (const rs_message *msg, int n, const char **text,
                        size_t *size);

/* Go to a place of the same message, and give up the value that is being read.
   Values from there on must not refer to objects of the value given up. */
static inline void
rs_decoder_seek (rs_decoder *d, const rs_decoder_place *place)
{
  d->at = place->at;
  d->next_id = place->next_id;
  d->run = place->run;
  d->left = place->left;
  d->claimed = place->claimed;
  d->late = 0;
  d->later = d->filled = d->promised = 0;
  d->depth = 0;
}

/* True when all values were read. */
bool rs_decoder_at_end (const rs_decoder *d);

/* [-0, +0, v]  Copy the next 'n' bytes, which are not a value, to 'bytes'. */
void rs_decoder_raw (rs_decoder *d, lua_State *L, void *bytes, size_t n);

/* [-0, +1, -]  Push the next number of the run. */
static inline void
rs_decode_packed (rs_decoder *d, lua_State *L)
{
  rs_get_packed(L, d->data + d->at, d->run);
  d->at += 8;
  d->left--;
}

/* True when the next value is there, and to make it takes little memory, and
   nothing else. */
static inline bool
rs_decoder_is_plain (const rs_decoder *d)
{
  const unsigned char *const from = d->data + d->at;
  const size_t left = d->size - d->at;
  if (d->left > 0 || left == 0)
    return d->left > 0;
  return rs_wire_is_run(from[0]) ? rs_get_run(from, left) > 0
                                 : rs_get_scalar(NULL, from, left) > 0;
}

/*
 * [-0, +1, e]  Push the next value.  Raises "bad message at byte N: ..." for
 * bytes that are not a value, and errors of 'require'.
 */
void rs_decode_one (rs_decoder *d, lua_State *L);

/* Push the next value as 'rs_decode_one' does, quicker for one more number of
   a run. */
static inline void
rs_decode_value (rs_decoder *d, lua_State *L)
{
  if (d->left > 0)
    rs_decode_packed(d, L);
  else
    rs_decode_one(d, L);
}

/*
 * [-0, +0, e]  Assign the next values to the fields 'first', first + 1, ... of
 * the table at 'index' with raw access.  Stop after 'n' values, or before the
 * first one that is not a scalar.  Returns how many were assigned.
 */
size_t rs_decode_scalars (rs_decoder *d, lua_State *L, int index,
                          lua_Integer first, size_t n);

/*
 * [-0, +n, e]  Decode as 'rs_decode' does.  'common' has the tables that the
 * message may name, or is NULL; 'marks' is the list for tables of the message
 * that other messages may name, or 0.  Sets 'metatables' if some value has got
 * a metatable.
 */
int rs_decode_all (lua_State *L, const rs_message *msg,
                   const rs_common *common, int marks, bool *metatables);

/* [-0, +n, e]  Decode the result of a call of 'function', which this state has
   sent. */
int rs_decode_result (lua_State *L, const rs_message *msg,
                      const rs_message *function);

enum { RS_SMALL_MAX = 96 };  /* most bytes of a small message */

/* [-0, +n, m]  Push the values of a message of a few scalars, without a
   decoder, which takes four times as long to get ready.  Returns how many, or
   -1 for any other message. */
int rs_decode_small (lua_State *L, const rs_message *msg);

/* ------------------------------------------- between the decoder's files */

/* Raise "bad message at byte N: what". */
_Noreturn void rs_decoder_bad (rs_decoder *d, lua_State *L, const char *what);

/* Raise unless 'n' more bytes are there. */
static inline void
rs_decoder_need (rs_decoder *d, lua_State *L, size_t n)
{
  if (n > d->size - d->at)
    rs_decoder_bad(d, L, "cut short");
}

static inline unsigned
rs_decoder_byte (rs_decoder *d, lua_State *L)
{
  rs_decoder_need(d, L, 1);
  return d->data[d->at++];
}

/* Read a length; read the length of bytes that follow. */
size_t rs_decoder_length (rs_decoder *d, lua_State *L);
size_t rs_decoder_size (rs_decoder *d, lua_State *L);

/* [-0, +0, v]  Make room on the stack for this level, and for some inner
   ones. */
void rs_decoder_grow_stack (rs_decoder *d, lua_State *L);

/* Begin and end an object; 'enter' returns its number. */
static inline unsigned
rs_decoder_enter (rs_decoder *d, lua_State *L)
{
  if (d->depth == RS_WIRE_DEPTH)
    rs_decoder_bad(d, L, "nested too deep");
  if (lua_gettop(L) > d->stack)
    rs_decoder_grow_stack(d, L);
  d->depth++;
  return d->next_id++;
}

static inline void
rs_decoder_leave (rs_decoder *d)
{
  d->depth--;
}

/* Note that the value on top is object number 'id'. */
static inline void
rs_decoder_register (rs_decoder *d, lua_State *L, unsigned id)
{
  if (d->flags & RS_MESSAGE_REFS) {
    if (id >= d->count)  /* the keys of shapes are behind the objects */
      rs_decoder_bad(d, L, "more objects than announced");
    lua_pushvalue(L, -1);
    lua_rawseti(L, d->objects, (lua_Integer) id + 1);
  }
}

/* [-0, +1, e]  Read the number of an object, and push the object. */
void rs_decoder_ref (rs_decoder *d, lua_State *L);

/* Take back the advance of the collector: code of the program may run. */
void rs_decoder_end_quiet (rs_decoder *d, lua_State *L);

/* Begin to read the run whose tag is next. */
void rs_decoder_begin_run (rs_decoder *d, lua_State *L);

/* [-0, +0, m]  Assign the next 'n' numbers of the run to the fields from
   'first' on of the table at 'index'. */
void rs_decoder_assign_run (rs_decoder *d, lua_State *L, int index,
                            lua_Integer first, size_t n);

/* [-0, +(0|1), m]  Push the next value if it is a scalar, and no long
   string. */
static inline __attribute__ ((always_inline)) bool
rs_decode_scalar (rs_decoder *d, lua_State *L)
{
  const size_t n = rs_get_scalar(L, d->data + d->at, d->size - d->at);
  d->at += n;
  return n > 0;
}

/* [-0, +1, e]  Push the next value, which 'rs_decode_scalar' could not
   push. */
void rs_decode_other (rs_decoder *d, lua_State *L);

/* [-0, +1, e]  Push the next value; 'next' is for those that are scalars most
   often. */
static inline __attribute__ ((always_inline)) void
rs_decode_next (rs_decoder *d, lua_State *L)
{
  if (!rs_decode_scalar(d, L))
    rs_decode_other(d, L);
}

void rs_decode_any (rs_decoder *d, lua_State *L);

/*
 * [-0, +1, e]  Push the value behind its tag.
 */

/* A table that comes with its contents; 'tag' may be that of a shape in front
   of it.  decode_table.c */
void rs_decode_table (rs_decoder *d, lua_State *L, unsigned tag);

/* An empty table, whose contents follow the value. */
void rs_decode_later (rs_decoder *d, lua_State *L);

/* decode_object.c: an object that has a name; the environment. */
void rs_decode_named (rs_decoder *d, lua_State *L);
void rs_decode_env (rs_decoder *d, lua_State *L);

/* A table that this state has already, by its number; 'as_it_is' when it need
   not have its old contents.  A function in a field of such a table. */
void rs_decode_common (rs_decoder *d, lua_State *L, bool as_it_is);
void rs_decode_common_function (rs_decoder *d, lua_State *L);

/* A table that is in a field of a module: the one in that field here if it has
   the same contents, else the one of the message. */
void rs_decode_named_table (rs_decoder *d, lua_State *L);

/* A table that other messages may name. */
void rs_decode_marked (rs_decoder *d, lua_State *L);

/* An object that a call makes, as its '__transfer' asked; a value that takes
   the place of an object. */
void rs_decode_rebuild (rs_decoder *d, lua_State *L);
void rs_decode_replaced (rs_decoder *d, lua_State *L);

/* A light userdata or a C function: a pointer that is good in this process. */
void rs_decode_pointer (rs_decoder *d, lua_State *L, unsigned tag);

/* A function.  function.c */
void rs_decode_function (rs_decoder *d, lua_State *L, unsigned tag);

/*
 * [-0, +0, e]  Read what is no value.
 */

/* The definition of a shape, behind its tag.  decode_table.c */
void rs_decode_shape (rs_decoder *d, lua_State *L);

/* Note that the contents of the object on top follow the value. */
void rs_decoder_later (rs_decoder *d, lua_State *L);

/* The contents that were announced for later; they follow the value. */
void rs_decode_rest (rs_decoder *d, lua_State *L);

/* Set the metatables that waited: the value is complete. */
void rs_decode_late_metatables (rs_decoder *d, lua_State *L);

/* The upvalues of the function on top.  function.c */
void rs_decode_upvalues (rs_decoder *d, lua_State *L);

#endif
