/* SPDX-License-Identifier: MIT */
/*
 * marshal.h - Lua values to messages and back.
 *
 * A message is a header (wire.h) and a sequence of values.  An encoder
 * appends values to its buffer; identities (tables, functions) are kept from
 * one value to the next until 'rs_encoder_forget', so that what two
 * arguments share stays shared, and what two items of a map share does not.
 * A decoder reads values back one at a time.
 *
 * Encoding never raises and allocates nothing in the Lua state while it
 * walks a table, since a finalizer could change the table under 'lua_next';
 * the one exception, '__transfer', is called protected.
 * Decoding raises Lua errors: call it protected.
 */
#ifndef RS_MARSHAL_H
#define RS_MARSHAL_H

#include "base/buf.h"
#include "value/names.h"
#include "runspace.h"
#include "value/shape.h"
#include "value/wire.h"

/* What a message may hold, told by its encoder and asked by runners. */
enum {
  RS_MESSAGE_REFS = 1,   /* back references: the decoder keeps objects */
  RS_MESSAGE_LOCAL = 2,  /* pointers: only inside this process */
  RS_MESSAGE_CODE = 4,   /* bytecode, or calls that rebuild an object */
  RS_MESSAGE_SHAPES = 8, /* definitions of keys: the decoder keeps them */
  RS_MESSAGE_COMMON = 16,  /* tables of its function's message, by number */
  RS_MESSAGE_NAMES = 32,   /* names of what the receiver has, or loads;
                              forbidden: what it would have to load */
  RS_MESSAGE_METHODS = 64  /* forbidden only: what runs by itself, or is the
                              receiver's own and no class (mask.c) */
};

/* What is more than data.  It is forbidden to what comes back from those who
   are not trusted: nothing of theirs runs where it is read. */
#define RS_MESSAGE_LIVE (RS_MESSAGE_LOCAL | RS_MESSAGE_CODE \
                         | RS_MESSAGE_NAMES | RS_MESSAGE_METHODS)

struct rs_message {
  _Atomic unsigned refs;
  unsigned flags;        /* RS_MESSAGE_ */
  bool constant;         /* a function in it has no state of its own, and will
                            come again; set before it is sent */
  uint8_t forbidden;     /* RS_MESSAGE_ that it may not hold, whatever it says;
                            set by who made or received it */
  bool lent;             /* its memory is somebody's; so it has one owner */
  bool common;           /* it has tables that others may name (common.c); set
                            before it is sent */
  uint32_t room;         /* KiB of it, if it is a large block; or 0 */
  size_t size;           /* bytes in 'data' */
  unsigned char data[];  /* header and values */
};

/*
 * New message with a copy of 'size' bytes, with one reference; or NULL.
 */
rs_message *rs_message_new (const void *data, size_t size, unsigned flags);

/* The head of one whose bytes are, or will be, in 'data'. */
void rs_message_init (rs_message *msg, size_t size, unsigned flags);

/* So many references more, and less. */
void rs_message_take (rs_message *msg, unsigned n);
void rs_message_give (rs_message *msg, unsigned n);

/* ---------------------------------------------------------- common tables */

/* Where the tables are found that both sides have (common.c). */
typedef struct rs_common {
  const rs_message *sent;  /* this state has sent them in it; or NULL */
  int ref;                 /* or they came; in the registry, or 0 */
  uint64_t filter;         /* bits of their addresses; 0: there are none */
  bool loads;              /* a decoder loads modules for tables that have a
                              name, but can do without */
} rs_common;

static inline uint64_t
rs_common_bit (const void *table)
{
  const uint64_t hash = (uint64_t) (uintptr_t) table * 0x9e3779b97f4a7c15u;
  return (uint64_t) 1 << (hash >> 58);
}

/* [-0, +0, -]  Those of a message that this state has sent; it must stay. */
rs_common rs_common_of (lua_State *L, const rs_message *message);

/* [-0, +0, m]  A list for a message that will be decoded; in the registry.
   'close' when it is, and 'share' a reference for as long as a call lasts. */
int rs_common_open (lua_State *L);
uint64_t rs_common_close (lua_State *L, int ref);
void rs_common_share (lua_State *L, int ref, rs_common *c);
void rs_common_release (lua_State *L, rs_common *c);

/* --------------------------------------------------------------- encoder */

/* One object already sent, by address.  Private to encode.c. */
typedef struct rs_seen {
  const void *object;       /* or the cell of an upvalue */
  unsigned id;              /* of the object, or of the cell's function */
  unsigned upvalue : 8;     /* of that function; 0 for objects */
  unsigned passing : 1;     /* '__transfer' made it: dies with this value */
  unsigned later : 1;       /* its contents will follow the value */
  unsigned generation : 22; /* of another one: the entry is free */
} rs_seen;

/* The metatable that was met last: many objects in a row have one class. */
typedef struct rs_class {
  const void *object;     /* it has no '__transfer'; NULL: none is known */
  unsigned walk;          /* in which this was found */
  unsigned id;            /* it was sent as this one, */
  bool sent;              /* if so */
  lua_Integer common;     /* or it is this one of 'common'; or 0 */
} rs_class;

/* An object that is being encoded; on the C stack. */
typedef struct rs_open rs_open;
struct rs_open {
  const rs_open *outer;
  unsigned id;
  bool rebuilt;             /* it comes to be when its contents are there */
};

/* Numbers of one kind in a row, which need a tag only once. */
typedef struct rs_packed {
  unsigned tag;           /* RS_TAG_INTEGERS, RS_TAG_FLOATS; 0: none is open */
  uint32_t count;
  size_t at;              /* where it begins in the buffer */
  bool off;               /* they vary too much */
} rs_packed;

typedef struct rs_encoder {
  rs_buf buf;             /* header, then what was encoded */
  rs_packed packed;       /* the last of the values, if they are numbers */
  bool packs;             /* numbers are packed: many values will come */
  unsigned flags;         /* RS_MESSAGE_ of what was encoded so far */
  unsigned forbidden;     /* RS_MESSAGE_ that are refused */
  unsigned next_id;       /* of the next object */

  unsigned walk;          /* counts walks, in which no string is freed */
  rs_shape *shapes;       /* RS_SHAPES of them; NULL until first needed */
  rs_shape *shape;        /* the one of them that was used last */
  rs_class class;
  rs_seen *seen;          /* hash by address; NULL until first needed */
  size_t seen_room;       /* a power of two, or 0 */
  size_t seen_count;      /* of the current generation */
  unsigned generation;
  bool passing;           /* some entries of 'seen' are */

  bool careful;           /* '__transfer' was met: walk protected */
  unsigned transfers;     /* results of '__transfer' around the value */
  rs_names names;         /* where named objects were found */
  rs_common common;       /* what can be named by number */
  bool marking;           /* others may name what is encoded: keep it, */
  unsigned marks;         /*   so many tables so far */

  /* While a value is encoded: */
  const void *globals;    /* the addresses of both environments */
  const void *env;
  int home;               /* stack indices: what names.c keeps; */
  int keep;               /* results of '__transfer'; 0 unless protected */
  size_t later;           /* objects whose contents follow the value: they and
                             their numbers are in the slot behind 'keep' */
  bool quiet;             /* the collector was stopped for that */
  bool class_next;        /* the value that comes is a metatable */
  const rs_open *open;
  int depth;
  int stack;              /* up to this top there is LUA_MINSTACK room */

  int status;             /* of the last value: RS_OK, or why not */
  size_t pending;         /* bytes of 'error' that are a path of fields */
  const char *part;       /* what these lead to, when not to a value */
  char error[512];        /* its path and reason */
} rs_encoder;

/* Ready for values; nothing is allocated yet. */
void rs_encoder_init (rs_encoder *e, unsigned forbidden);
void rs_encoder_fini (rs_encoder *e);

/* Back to the state after init, memory kept. */
void rs_encoder_clear (rs_encoder *e);

/* What comes shares no objects with what came. */
void rs_encoder_forget (rs_encoder *e);

/* Write the header, unless it is written: before the first raw bytes. */
void rs_encoder_start (rs_encoder *e);

/* How far it has come, to return there. */
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

/* Take back what came since; what comes shares no objects with it. */
void rs_encoder_rewind (rs_encoder *e, const rs_mark *mark);

/* Append bytes that are no value; their reader knows what they are. */
void rs_encoder_raw (rs_encoder *e, const void *bytes, size_t n);

/* Append a string that is in no state. */
void rs_encoder_string (rs_encoder *e, const char *text, size_t size);

/*
 * [-0, +0, -]  Append the value at 'index'.  'root' begins the path in a
 * refusal: "argument 2", "upvalue 'log' of function <scan.lua:12>" is added
 * by the encoder itself.  On failure everything appended by this call is
 * taken back and 'e->error' tells the path and the reason.
 * RS_OK, RS_EREFUSED or RS_ENOMEM.
 */
int rs_encode_one (rs_encoder *e, lua_State *L, int index, const char *root);

/* [-0, +0, -]  Append the number at 'index' to the run 'p', if that is open,
   and it is one of its kind. */
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

/* 'rs_encode' without what is 'forbidden'. */
int rs_encode_without (lua_State *L, int n, unsigned forbidden,
                       rs_message **out, rs_error *err);

/* The same as 'rs_encode_one', quicker for one more number of a run. */
static inline int
rs_encode_value (rs_encoder *e, lua_State *L, int index, const char *root)
{
  return rs_encode_packed(e, &e->packed, L, index)
       ? RS_OK : rs_encode_one(e, L, index, root);
}

/*
 * [-0, +0, -]  Append the fields 'from', from + 1, ... of the table at 'index'
 * with raw access: 'n' of them, or those in front of the first that is nil or
 * made of others, or as many as fit into 'bytes'.  Returns how many.
 */
size_t rs_encode_scalars (rs_encoder *e, lua_State *L, int index,
                          lua_Integer from, size_t n, size_t bytes);

/*
 * A message of all that was encoded, as 'rs_message_new'.  The encoder is
 * clear then (a large message takes its memory along); on failure, NULL, it
 * is as it was.
 */
rs_message *rs_encoder_message (rs_encoder *e);

/* The same, for an encoder that is not used any more: its memory goes along,
   if there is little that the message does not need. */
rs_message *rs_encoder_end (rs_encoder *e);

/* The same, in the 'size' bytes at 'room', if it fits there. */
rs_message *rs_encoder_message_at (rs_encoder *e, void *room, size_t size);

/* --------------------------------------------------------------- decoder */

typedef struct rs_decoder {
  const unsigned char *data;
  size_t size;
  size_t at;              /* offset of the next byte */
  unsigned flags;         /* RS_MESSAGE_ from the header */
  unsigned forbidden;     /* RS_MESSAGE_ that are refused */
  unsigned next_id;
  unsigned run;           /* the tag of the run that is read; */
  size_t left;            /* its numbers that were not read */
  size_t claimed;         /* fields of all tables; each takes a byte */
  int depth;
  int stack;              /* up to this top there is LUA_MINSTACK room */
  int objects;            /* stack index of the table of objects, or 0 */
  size_t count;           /* objects in it, at most; then come the keys */
  rs_shape_read shapes[RS_SHAPES];
  bool metatables;        /* some were set */
  bool bad;               /* bytes were met that are no message */
  const char *missing;    /* the name, in the message, of a module that could
                             not be loaded for a table; or NULL */
  size_t missing_size;
  int advance;            /* KiB that the garbage collector does not count */
  rs_common common;       /* what is named by number */
  int marks_ref;          /* the list of tables to be named; or 0 */
  unsigned marks;         /* how many came */
  const void *tame;       /* the last metatable without '__gc' */
  unsigned late;          /* metatables to be set when the value is whole */
  size_t later;           /* objects whose contents follow the value, in the
                             table at 0 of 'objects'; */
  size_t filled;          /* so many of them have theirs */
  size_t promised;        /* bytes of those that have not, at least */
  int function;           /* stack index of the one that gets upvalues */
  int upvalue;            /* which one it gets, or 0 */
} rs_decoder;

/*
 * [-0, +(0|1), m]  Begin to read 'msg', which must outlive the decoder.
 * Pushes the table of objects if the message has back references or shapes,
 * and keeps its index: it must stay where it is until the last value is
 * decoded.
 * Raises an error with the byte offset for a header that is not ours.
 */
void rs_decoder_init (rs_decoder *d, lua_State *L, const rs_message *msg,
                      unsigned forbidden);

/* Where it is, to return there. */
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

/* Go behind the next value, which is not made; false, and it stands anywhere,
   for bytes that are none.  After a value whose decoding has raised, seek to
   where that began first.  [skip.c] */
bool rs_decoder_skip (rs_decoder *d);

/* Go on at a place of the same message; all values before it are gone. */
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

/* [-0, +0, v]  Copy the next 'n' bytes, which are no value, to 'bytes'. */
void rs_decoder_raw (rs_decoder *d, lua_State *L, void *bytes, size_t n);

/* [-0, +1, -]  Push the next number of the run that is read. */
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
 * bytes that are no value, and what 'require' raises.
 */
void rs_decode_one (rs_decoder *d, lua_State *L);

/* The same, quicker for one more number of a run. */
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
 * the table at 'index' with raw access: 'n' of them, or those in front of the
 * first that is made of others.  Returns how many.
 */
size_t rs_decode_scalars (rs_decoder *d, lua_State *L, int index,
                          lua_Integer first, size_t n);

/*
 * [-0, +n, e]  'rs_decode' with tables in 'common', or NULL; 'marks' is a list
 * for those of the message, or 0.  Sets 'metatables' if some value has got
 * one.
 */
int rs_decode_all (lua_State *L, const rs_message *msg,
                   const rs_common *common, int marks, bool *metatables);

/* [-0, +n, e]  The result of a call of 'function', which this state has
   sent. */
int rs_decode_result (lua_State *L, const rs_message *msg,
                      const rs_message *function);

/* --------------------------------------------------------- a few scalars */

enum { RS_SMALL_MAX = 96 };  /* bytes of a message, at most */

/* [-0, +0, -]  A message of the 'n' values from 'first' on in the 'size' bytes
   at 'room', if they are scalars, and fit there; or NULL. */
rs_message *rs_encode_small (lua_State *L, int first, int n, void *room,
                             size_t size);

/* [-0, +n, m]  Push the values of such a message; how many, or -1 for another
   one. */
int rs_decode_small (lua_State *L, const rs_message *msg);

/* -------------- between encode.c, decode.c, function.c and refuse.c only */

enum { RS_ERESTART = -1 };  /* walk again, protected */

/* [-0, +0, -]  Append the value at 'index', which is absolute. */
int rs_encode_any (rs_encoder *e, lua_State *L, int index);

/* The same for the function at 'index', whose number is 'id'. */
int rs_encode_function (rs_encoder *e, lua_State *L, int index, unsigned id);

/* The upvalues of one whose contents follow the value. */
int rs_encode_upvalues (rs_encoder *e, lua_State *L, int index, unsigned id);

/*
 * [-0, +0, m]  The contents of the object at 'index', number 'id', shall
 * follow the value.  RS_OK, or RS_ERESTART: that takes a protected walk.
 */
int rs_encoder_later (rs_encoder *e, lua_State *L, int index, unsigned id);

/* Do the contents of an object that was entered follow the value? */
static inline bool
rs_encoder_is_deep (const rs_encoder *e)
{
  return e->depth > RS_WIRE_INLINE && e->transfers == 0;
}

/* Append a length. */
void rs_encoder_length (rs_encoder *e, size_t n);

/* The entry of 'object', new if it is not '*found'; NULL: no memory. */
rs_seen *rs_encoder_see (rs_encoder *e, const void *object, bool *found);

/* Begin and end an object: depth, stack, order.  RS_OK or why not. */
int rs_encoder_enter (rs_encoder *e, lua_State *L, rs_open *open,
                      unsigned id);
void rs_encoder_leave (rs_encoder *e);

/* Refuse the value, for a reason.  RS_EREFUSED. */
int rs_encoder_refuse (rs_encoder *e, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

/* The refused value is in the 'part' of the value that follows, such as its
   "key"; or it is the field of the key at 'index'; the path that they have
   made is whole.  [-0, +0, -] */
void rs_encoder_inside_part (rs_encoder *e, const char *part);
void rs_encoder_inside_field (rs_encoder *e, lua_State *L, int index);
void rs_encoder_end_path (rs_encoder *e);

/* The refused value is in an object too deep for its path to be known. */
void rs_encoder_inside_deep (rs_encoder *e);

/* The refused value is inside 'where', such as "upvalue 'f' of ...". */
void rs_encoder_inside (rs_encoder *e, const char *where);

/* [-0, +0, m]  Append the mark of the table at 'index', and keep it in the
   list at 'list'; take back marks until so many are left. */
void rs_common_mark (rs_encoder *e, lua_State *L, int list, int index);
void rs_common_unmark (rs_encoder *e, lua_State *L, int list, unsigned marks);

/* [-0, +1, m]  Push the list of the encoder's marks. */
void rs_common_push_marks (rs_encoder *e, lua_State *L);

/* [-0, +0, -]  All was encoded, 'message' is made of it: keep the list for as
   long as somebody has that; or forget it.  RS_OK or RS_ENOMEM. */
int rs_common_keep (rs_encoder *e, lua_State *L, rs_message *message);
void rs_common_drop (rs_encoder *e, lua_State *L);

/* [-0, +0, -]  The number of the table at 'index', or 0: it has none, or it is
   no metatable here, and its contents have changed. */
lua_Integer rs_common_find (const rs_common *c, lua_State *L, int index,
                            bool metatable);

/* [-0, +(0|1), -]  Push the list, if there is one. */
bool rs_common_push (const rs_common *c, lua_State *L);

/* [-0, +0, m]  The table on top is number 'n' of the list. */
void rs_common_add (lua_State *L, int ref, lua_Integer n);

/* [-0, +(0|1), m]  Push table number 'n', or a table with what it had, if it
   is no metatable here and has changed.  False: there is no such table. */
bool rs_common_resolve (const rs_common *c, lua_State *L, lua_Integer n,
                        bool metatable);

/* [-0, +0, -]  The field of the metatable at 'index' in which something runs,
   or that is the metatable's alone; or NULL. */
const char *rs_metatable_runs (lua_State *L, int index);

/* It is one of Lua's libraries, or this module. */
bool rs_name_is_library (const rs_name *name);

/* [-0, +0, v]  Raise unless the name may come from where RS_MESSAGE_NAMES is
   forbidden. */
void rs_name_accept (lua_State *L, const rs_name *name);

/*
 * [-1, +0, m]  The metatable on top becomes that of the table at 'index',
 * which is absolute.  This is a copy, so it is not finalized: the original is.
 */
void rs_set_copy_metatable (lua_State *L, int index);

/* [-0, +1, e] */
void rs_decode_any (rs_decoder *d, lua_State *L);
void rs_decode_function (rs_decoder *d, lua_State *L, unsigned tag);

/* [-0, +0, e]  The upvalues of the function on top. */
void rs_decode_upvalues (rs_decoder *d, lua_State *L);

/* [-0, +0, e]  The contents of the object on top follow the value. */
void rs_decoder_later (rs_decoder *d, lua_State *L);

size_t rs_decoder_length (rs_decoder *d, lua_State *L);
unsigned rs_decoder_byte (rs_decoder *d, lua_State *L);

/* Raise unless 'n' more bytes are there. */
void rs_decoder_need (rs_decoder *d, lua_State *L, size_t n);

/* Begin and end an object; 'enter' returns its number. */
unsigned rs_decoder_enter (rs_decoder *d, lua_State *L);
void rs_decoder_leave (rs_decoder *d);

/* The value on top is the object of this number. */
void rs_decoder_register (rs_decoder *d, lua_State *L, unsigned id);

/* [-0, +1, e]  Push the object of the number that is read. */
void rs_decoder_ref (rs_decoder *d, lua_State *L);

/* Raise "bad message at byte N: what". */
_Noreturn void rs_decoder_bad (rs_decoder *d, lua_State *L, const char *what);

#endif
