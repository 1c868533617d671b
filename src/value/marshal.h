/* SPDX-License-Identifier: MIT */
/*
 * marshal.h - Lua values to messages and back.
 *
 * A message is a header (wire.h) and a sequence of values.  An encoder appends
 * values to its buffer.  It knows objects (tables, functions) again from one
 * value to the next until 'rs_encoder_forget'.  So an object that two
 * arguments share stays shared, and one that two items of a map share does
 * not.  A decoder reads the values back one at a time.
 *
 * Encoding never raises, and allocates nothing in the Lua state while it walks
 * a table, since a finalizer could change the table under 'lua_next'.  The one
 * exception, '__transfer', is called protected.  Decoding raises Lua errors:
 * call it protected.
 */
#ifndef RS_MARSHAL_H
#define RS_MARSHAL_H

#include "base/buf.h"
#include "value/names.h"
#include "runspace.h"
#include "value/shape.h"
#include "value/wire.h"

/* The kinds of content that a message may have.  The encoder tells them, and
   runners ask for them. */
enum {
  RS_MESSAGE_REFS = 1,   /* back references: the decoder keeps objects */
  RS_MESSAGE_LOCAL = 2,  /* pointers: good only inside this process */
  RS_MESSAGE_CODE = 4,   /* bytecode, or calls that rebuild an object */
  RS_MESSAGE_SHAPES = 8, /* definitions of keys: the decoder keeps them */
  RS_MESSAGE_COMMON = 16,  /* tables of the message of its function, by
                              number */
  RS_MESSAGE_NAMES = 32,   /* names of modules, fields and classes that the
                              receiver has, or loads; forbidden: names of
                              modules that it would have to load */
  RS_MESSAGE_METHODS = 64  /* only as forbidden: metatables that run code, and
                              objects of the receiver that are no classes
                              (mask.c) */
};

/* The kinds that are more than data.  They are forbidden in messages from
   states that are not trusted: no code of such a state runs where its message
   is read. */
#define RS_MESSAGE_LIVE (RS_MESSAGE_LOCAL | RS_MESSAGE_CODE \
                         | RS_MESSAGE_NAMES | RS_MESSAGE_METHODS)

struct rs_message {
  _Atomic unsigned refs;
  unsigned flags;        /* RS_MESSAGE_ */
  bool constant;         /* a function in it has no state of its own, and will
                            be sent again; set before the message is sent */
  uint8_t forbidden;     /* RS_MESSAGE_ kinds that it may not hold, whatever
                            'flags' says; the maker or the receiver sets it */
  bool lent;             /* memory of its only owner, so 'refs' does not
                            count */
  bool common;           /* other messages may name tables of it (common.c);
                            set before the message is sent */
  uint32_t room;         /* KiB of its memory, if that is a large block; or
                            0 */
  size_t size;           /* bytes in 'data' */
  unsigned char data[];  /* header and values */
};

/*
 * Make a message with a copy of 'size' bytes, and one reference.  NULL when
 * out of memory.
 */
rs_message *rs_message_new (const void *data, size_t size, unsigned flags);

/* Initialize the head of a message, with one reference; its bytes are in
   'data', or will be. */
void rs_message_init (rs_message *msg, size_t size, unsigned flags);

/* Add 'n' references, and give back 'n'; the last one frees the message. */
void rs_message_take (rs_message *msg, unsigned n);
void rs_message_give (rs_message *msg, unsigned n);

/* ---------------------------------------------------------- common tables */

/* The place where a state finds the tables that it has in common with another
   state (common.c). */
typedef struct rs_common {
  const rs_message *sent;  /* the message in which this state has sent them; or
                              NULL */
  int ref;                 /* registry reference of the list of tables that
                              this state has received; or 0 */
  uint64_t filter;         /* 'rs_common_bit's of the tables; 0: there are
                              none */
  bool loads;              /* the decoder tries to load modules, to find tables
                              that have a name; it can do without */
} rs_common;

static inline uint64_t
rs_common_bit (const void *table)
{
  const uint64_t hash = (uint64_t) (uintptr_t) table * 0x9e3779b97f4a7c15u;
  return (uint64_t) 1 << (hash >> 58);
}

/* [-0, +0, -]  The tables of a message that this state has sent; the message
   must outlive the result. */
rs_common rs_common_of (lua_State *L, const rs_message *message);

/* [-0, +0, m]  Make a list for the tables of a message, in the registry,
   before the message is decoded.  'close' the list afterwards; it returns the
   filter.  'share' gives 'c' a reference to it, for as long as a call
   lasts. */
int rs_common_open (lua_State *L);
uint64_t rs_common_close (lua_State *L, int ref);
void rs_common_share (lua_State *L, int ref, rs_common *c);
void rs_common_release (lua_State *L, rs_common *c);

/* --------------------------------------------------------------- encoder */

/* An object that was sent, by its address.  Private to encode.c. */
typedef struct rs_seen {
  const void *object;       /* the object, or the cell of an upvalue */
  unsigned id;              /* number of the object, or of the cell's
                               function */
  unsigned upvalue : 8;     /* index of the cell in that function; 0: an
                               object */
  unsigned passing : 1;     /* '__transfer' made it: it dies with this value */
  unsigned later : 1;       /* the contents will follow the value */
  unsigned generation : 22; /* when it is another one, the entry is free */
} rs_seen;

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

/* A run of numbers of one kind, which need only one tag. */
typedef struct rs_packed {
  unsigned tag;           /* RS_TAG_INTEGERS, RS_TAG_FLOATS; 0: none is open */
  uint32_t count;
  size_t at;              /* offset of its tag in the buffer */
  bool off;               /* no more runs: one was too short to pay */
} rs_packed;

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
  rs_seen *seen;          /* hash by address; NULL until first needed */
  size_t seen_room;       /* a power of two, or 0 */
  size_t seen_count;      /* entries of the current generation */
  unsigned generation;
  bool passing;           /* entries of 'seen' may be 'passing' */

  bool careful;           /* '__transfer' was met: walk protected */
  unsigned transfers;     /* results of '__transfer' around this value */
  rs_names names;         /* modules in which named objects were found */
  rs_common common;       /* tables that can be named by number */
  bool marking;           /* tables of this message may be named: list them */
  unsigned marks;         /* tables in that list */

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
  bool class_next;        /* the next value is a metatable */
  const rs_open *open;
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

/* Append a string that is in no Lua state. */
void rs_encoder_string (rs_encoder *e, const char *text, size_t size);

/*
 * [-0, +0, -]  Append the value at 'index'.  'root' begins the path in a
 * refusal: "argument 2".  Inner parts of the path, such as "upvalue 'log' of
 * function <scan.lua:12>", are added by the encoder itself.  On failure all
 * bytes of this call are taken back, and 'e->error' tells the path and the
 * reason.  RS_OK, RS_EREFUSED or RS_ENOMEM.
 */
int rs_encode_one (rs_encoder *e, lua_State *L, int index, const char *root);

/* [-0, +0, -]  Append the number at 'index' to the run 'p'.  False if the run
   is not open, or is of another kind, or has no room. */
static inline bool
rs_encode_packed (rs_encoder *e, rs_packed *p, lua_State *L, int index)
{
  uint64_t bits;
  if (p->tag == RS_TAG_INTEGERS) {
    if (!lua_isinteger(L, index))
      return false;
    bits = (uint64_t) lua_tointegerx(L, index, NULL);
  }
  else {
    if (p->tag == 0 || lua_type(L, index) != LUA_TNUMBER
        || lua_isinteger(L, index))
      return false;
    const lua_Number v = lua_tonumberx(L, index, NULL);
    memcpy(&bits, &v, sizeof bits);
  }
  if (p->count == UINT32_MAX || e->buf.room - e->buf.size < 8)
    return false;
  rs_wire_put64(e->buf.data + e->buf.size, bits);
  e->buf.size += 8;
  p->count++;
  return true;
}

/* Encode as 'rs_encode' does, but refuse the 'forbidden' kinds. */
int rs_encode_without (lua_State *L, int n, unsigned forbidden,
                       rs_message **out, rs_error *err);

/* Append a value as 'rs_encode_one' does, quicker for one more number of a
   run. */
static inline int
rs_encode_value (rs_encoder *e, lua_State *L, int index, const char *root)
{
  return rs_encode_packed(e, &e->packed, L, index)
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

/* --------------------------------------------------------------- decoder */

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

/* Go to a place of the same message, and give up the value that is being read.
   Values from there on cannot refer to objects of earlier values. */
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
  const uint64_t bits = rs_wire_get64(d->data + d->at);
  if (d->run == RS_TAG_INTEGERS)
    lua_pushinteger(L, (lua_Integer) bits);
  else {
    lua_Number v;
    memcpy(&v, &bits, sizeof v);
    lua_pushnumber(L, v);
  }
  d->at += 8;
  d->left--;
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

/* --------------------------------------------------------- a few scalars */

enum { RS_SMALL_MAX = 96 };  /* most bytes of a small message */

/* [-0, +0, -]  Make a message of the 'n' values from 'first' on, in the 'size'
   bytes at 'room'.  NULL if some value is not a scalar, or they do not fit. */
rs_message *rs_encode_small (lua_State *L, int first, int n, void *room,
                             size_t size);

/* [-0, +n, m]  Push the values of a message of a few scalars.  Returns how
   many, or -1 for any other message. */
int rs_decode_small (lua_State *L, const rs_message *msg);

/* -------------- between encode.c, decode.c, function.c and refuse.c only */

enum { RS_ERESTART = -1 };  /* the walk has to begin again, protected */

/* [-0, +0, -]  Append the value at 'index', which is absolute. */
int rs_encode_any (rs_encoder *e, lua_State *L, int index);

/* Append the function at 'index', whose number is 'id'. */
int rs_encode_function (rs_encoder *e, lua_State *L, int index, unsigned id);

/* Append the upvalues of function 'id' at 'index', which follow the value. */
int rs_encode_upvalues (rs_encoder *e, lua_State *L, int index, unsigned id);

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

/* Find the entry of 'object', or make it, and set '*found'.  NULL when out of
   memory. */
rs_seen *rs_encoder_see (rs_encoder *e, const void *object, bool *found);

/* Begin and end an object: depth, stack, list of open objects.  RS_OK or the
   failure. */
int rs_encoder_enter (rs_encoder *e, lua_State *L, rs_open *open,
                      unsigned id);
void rs_encoder_leave (rs_encoder *e);

/* Refuse the value, for the formatted reason.  Returns RS_EREFUSED. */
int rs_encoder_refuse (rs_encoder *e, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

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

/* [-0, +0, m]  Append the mark of the table at 'index', and keep the table in
   the list at 'list'; take back marks until 'marks' are left. */
void rs_common_mark (rs_encoder *e, lua_State *L, int list, int index);
void rs_common_unmark (rs_encoder *e, lua_State *L, int list, unsigned marks);

/* [-0, +1, m]  Push the list of tables that the encoder has marked. */
void rs_common_push_marks (rs_encoder *e, lua_State *L);

/* [-0, +0, -]  Keep the list of marked tables for as long as 'message', which
   was made of all values, has other owners; forget the list.  RS_OK or
   RS_ENOMEM. */
int rs_common_keep (rs_encoder *e, lua_State *L, rs_message *message);
void rs_common_drop (rs_encoder *e, lua_State *L);

/* [-0, +0, -]  The number of the table at 'index'.  0: it has none, or its
   contents have changed; for a 'metatable' contents do not count. */
lua_Integer rs_common_find (const rs_common *c, lua_State *L, int index,
                            bool metatable);

/* [-0, +(0|1), -]  Push the list of tables, if there is one. */
bool rs_common_push (const rs_common *c, lua_State *L);

/* [-0, +0, m]  Make the table on top number 'n' of the list. */
void rs_common_add (lua_State *L, int ref, lua_Integer n);

/* [-0, +(0|1), m]  Push table number 'n'.  If its contents have changed, push
   a new table with the old contents instead; for a 'metatable' contents do not
   count.  False: there is no such table. */
bool rs_common_resolve (const rs_common *c, lua_State *L, lua_Integer n,
                        bool metatable);

/* [-0, +0, -]  The name of a field of the metatable at 'index' that may run
   code, or whose meaning is not known; or NULL. */
const char *rs_metatable_runs (lua_State *L, int index);

/* True when the name begins with one of Lua's libraries, or with this
   module. */
bool rs_name_is_library (const rs_name *name);

/* [-0, +0, v]  Raise unless the name may come from a sender to whom
   RS_MESSAGE_NAMES is forbidden. */
void rs_name_accept (lua_State *L, const rs_name *name);

/*
 * [-1, +0, m]  Set the metatable on top for the table at 'index', which is
 * absolute.  The table is a copy, so its '__gc' is never called: that of the
 * original is.
 */
void rs_set_copy_metatable (lua_State *L, int index);

/* [-0, +1, e]  Push the next value; push the function behind 'tag'. */
void rs_decode_any (rs_decoder *d, lua_State *L);
void rs_decode_function (rs_decoder *d, lua_State *L, unsigned tag);

/* [-0, +0, e]  Read the upvalues of the function on top. */
void rs_decode_upvalues (rs_decoder *d, lua_State *L);

/* [-0, +0, e]  Note that the contents of the object on top follow the
   value. */
void rs_decoder_later (rs_decoder *d, lua_State *L);

size_t rs_decoder_length (rs_decoder *d, lua_State *L);
unsigned rs_decoder_byte (rs_decoder *d, lua_State *L);

/* Raise unless 'n' more bytes are there. */
void rs_decoder_need (rs_decoder *d, lua_State *L, size_t n);

/* Begin and end an object; 'enter' returns its number. */
unsigned rs_decoder_enter (rs_decoder *d, lua_State *L);
void rs_decoder_leave (rs_decoder *d);

/* Note that the value on top is object number 'id'. */
void rs_decoder_register (rs_decoder *d, lua_State *L, unsigned id);

/* [-0, +1, e]  Read the number of an object, and push the object. */
void rs_decoder_ref (rs_decoder *d, lua_State *L);

/* Raise "bad message at byte N: what". */
_Noreturn void rs_decoder_bad (rs_decoder *d, lua_State *L, const char *what);

#endif
