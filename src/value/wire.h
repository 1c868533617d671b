/* SPDX-License-Identifier: MIT */
/*
 * wire.h - the bytes of a message: tags, limits, version.
 *
 *     +---+---+---------+-------+------------------+
 *     |'R'|'S'| version | flags | objects, 4 bytes |  header
 *     +---+---+---------+-------+------------------+
 *     | value | value | ...                        |
 *     +-------+-------+----------------------------+
 *
 * A value is a tag byte and the bytes that the tag asks for.  Numbers are
 * little-endian.  A 'length' is a varint: seven bits a byte, low ones first,
 * in as few bytes as possible.
 *
 * Every table, function and userdata is an object.  Objects are numbered from
 * 0 in the order of their tags, and REF names one by its number.  'objects' in
 * the header is how many there are; it is 0 without the flag RS_MESSAGE_REFS:
 * then no tag names an object, and the decoder need not keep them.
 */
#ifndef RS_WIRE_H
#define RS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  RS_WIRE_VERSION = 1,
  RS_WIRE_HEADER = 8,       /* bytes */
  RS_WIRE_AT_VERSION = 2,   /* offsets in the header */
  RS_WIRE_AT_FLAGS = 3,
  RS_WIRE_AT_OBJECTS = 4,

  RS_WIRE_FLAGS = 63,        /* RS_MESSAGE_ kinds that a header may have */
  RS_WIRE_DEPTH = 200,      /* most tables and functions inside each other; the
                               contents of deeper ones follow the value */
  RS_WIRE_INLINE = 100,     /* depth from which on the encoder lets contents
                               follow, but for results of '__transfer' */
  RS_WIRE_BODY = 9,         /* least bytes of the contents of a table that
                               follow */
  RS_WIRE_RESULTS = 250,    /* most values that rebuild one object */
  RS_WIRE_NAME_PARTS = 3,   /* module, field, field */
  RS_WIRE_VARINT = 10,      /* bytes of the longest length */
  RS_WIRE_NUMBER = 9,       /* bytes of the longest number, with its tag */
  RS_WIRE_RUN = 5,          /* bytes before the numbers of a run */
  RS_WIRE_RUN_FROM = 8      /* least numbers of a run; shorter sequences are
                               sent one by one */
};

/*
 *  00-7f  the integer 0 to 127
 *  80-bf  a string of 0 to 63 bytes, which follow
 *  c0-e7  below
 *  e8-ff  free
 */
enum {
  RS_TAG_INTEGER_SMALL = 0x00,
  RS_TAG_STRING_SHORT = 0x80,

  RS_TAG_NIL = 0xc0,
  RS_TAG_FALSE,
  RS_TAG_TRUE,
  RS_TAG_FLOAT,             /* 8 bytes, IEEE 754 */
  RS_TAG_STRING,            /* length, bytes */

  RS_TAG_INTEGER = 0xc8,    /* c8-cf: 1 to 8 bytes, two's complement */

  RS_TAG_TABLE = 0xd0,      /* array, hash: 4 bytes each; 'array' values, of
                               the keys 1, 2, ...; 'hash' keys and values */
  RS_TAG_TABLE_META,        /* TABLE, then the metatable */
  RS_TAG_TABLE_META_OPEN,   /* TABLE_META, but the metatable is a table that is
                               not complete yet: see decode_table.c */
  RS_TAG_REF,               /* varint: number of an earlier object */
  RS_TAG_NAMED,             /* 1 to 3 (one byte), then as many texts (length
                               and bytes): a module, a field of it, a field of
                               that */
  RS_TAG_ENV,               /* the environment; no object */
  RS_TAG_FUNCTION,          /* upvalues (one byte), size (4 bytes), bytecode,
                               then each upvalue: a value, or one of the next
                               two, or UPVALUE_GLOBALS */
  RS_TAG_UPVALUE_ENV,       /* the cell of the environment */
  RS_TAG_UPVALUE_SHARED,    /* varint function, one byte upvalue: the cell of
                               that upvalue of that function */
  RS_TAG_CFUNCTION,         /* pointer, 8 bytes */
  RS_TAG_POINTER,           /* light userdata, 8 bytes; no object */
  RS_TAG_REBUILD,           /* n (one byte), function, n values: a call makes
                               the object */
  RS_TAG_REPLACED,          /* a value that takes the place of the object */
  RS_TAG_LATER,             /* a table whose contents follow; see below */
  RS_TAG_FUNCTION_LATER,    /* upvalues, size, bytecode; the upvalues follow,
                               as below */
  RS_TAG_COMMON,            /* before a table that other messages may name, by
                               its number: COMMON tags are counted from 1 on */

  RS_TAG_COMMON_REF = 0xc5, /* varint: number of a table of another message,
                               which the receiver has; no object */
  RS_TAG_NAMED_TABLE,       /* a name as in NAMED, then a TABLE or RECORD of
                               any kind: if the receiver has a table of that
                               name with the same contents, that table */
  RS_TAG_COMMON_CLASS,      /* varint as for COMMON_REF: that very table,
                               whatever is in it now; no object */

  /* Runs of numbers, where several values follow one another: in the array of
     a table, and among the values of a message, but not across raw bytes.
     Count (4 bytes), then 8 bytes for each number. */
  RS_TAG_INTEGERS = 0xe0,
  RS_TAG_FLOATS,

  /* Definition of a shape, before a value: n (one byte), n keys: length (one
     byte), bytes. */
  RS_TAG_SHAPE,
  RS_TAG_RECORD,            /* offset of a SHAPE in the message (4 bytes), n
                               (one byte), hash (4 bytes); the values of the
                               first n keys; 'hash' keys and values */
  RS_TAG_RECORD_META,       /* RECORD, then the metatable */
  RS_TAG_RECORD_META_OPEN,  /* as RS_TAG_TABLE_META_OPEN */

  RS_TAG_COMMON_FUNCTION,   /* varint as for COMMON_REF, and a scalar: the
                               function that this table had under that key; no
                               object */
  RS_TAG_UPVALUE_GLOBALS    /* UPVALUE_ENV, and what the function reads there:
                               plain (one byte; 0: some function of the message
                               may do more than read), n (4 bytes), n names and
                               values */
};

/*
 * LATER stands for a table that is nested too deep for its contents to be in
 * this place.  The contents follow the value that the table is in, as a TABLE
 * or RECORD of any kind, which is not an object of its own.  The upvalues of a
 * FUNCTION_LATER follow in the same way.  There are as many contents as were
 * announced, in the same order, and they may announce more.
 */
enum {
  RS_WIRE_SMALL_MAX = 127,  /* largest RS_TAG_INTEGER_SMALL */
  RS_WIRE_SHORT_MAX = 63    /* longest RS_TAG_STRING_SHORT */
};

/* ------------------------------------------------------ what a tag is */

/* The bytes behind the tag of a scalar, which is nil, a boolean, a number or a
   string.  -1: the tag is another one, or RS_TAG_STRING, whose length comes
   first. */
static inline int
rs_wire_scalar_size (unsigned tag)
{
  if (tag < RS_TAG_STRING_SHORT)
    return 0;
  if (tag < RS_TAG_NIL)
    return (int) (tag - RS_TAG_STRING_SHORT);
  if ((tag & ~7u) == RS_TAG_INTEGER)
    return (int) (tag - RS_TAG_INTEGER) + 1;
  return tag == RS_TAG_FLOAT ? 8 : tag < RS_TAG_FLOAT ? 0 : -1;
}

static inline bool
rs_wire_is_scalar (unsigned tag)
{
  return tag == RS_TAG_STRING || rs_wire_scalar_size(tag) >= 0;
}

static inline bool
rs_wire_is_run (unsigned tag)
{
  return tag == RS_TAG_INTEGERS || tag == RS_TAG_FLOATS;
}

static inline bool
rs_wire_is_table (unsigned tag)
{
  return tag >= RS_TAG_TABLE && tag <= RS_TAG_TABLE_META_OPEN;
}

static inline bool
rs_wire_is_record (unsigned tag)
{
  return tag >= RS_TAG_RECORD && tag <= RS_TAG_RECORD_META_OPEN;
}

/* True when a metatable follows the fields of this table or record. */
static inline bool
rs_wire_has_metatable (unsigned tag)
{
  return tag != RS_TAG_TABLE && tag != RS_TAG_RECORD;
}

/* True when that metatable has to wait: see decode_table.c. */
static inline bool
rs_wire_is_open (unsigned tag)
{
  return tag == RS_TAG_TABLE_META_OPEN || tag == RS_TAG_RECORD_META_OPEN;
}

/* ------------------------------------------------------------- numbers */

/*
 * Numbers are little-endian, at any address.  Compilers do not see through a
 * loop over bytes inside larger functions: a store takes 4 ns.  So memcpy and
 * these swaps do it.
 */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define RS_WIRE_ORDER64(v) __builtin_bswap64(v)
#define RS_WIRE_ORDER32(v) __builtin_bswap32(v)
#else
#define RS_WIRE_ORDER64(v) (v)
#define RS_WIRE_ORDER32(v) (v)
#endif

static inline void
rs_wire_put64 (unsigned char *to, uint64_t v)
{
  v = RS_WIRE_ORDER64(v);
  memcpy(to, &v, sizeof v);
}

static inline uint64_t
rs_wire_get64 (const unsigned char *from)
{
  uint64_t v;
  memcpy(&v, from, sizeof v);
  return RS_WIRE_ORDER64(v);
}

static inline void
rs_wire_put32 (unsigned char *to, uint32_t v)
{
  v = RS_WIRE_ORDER32(v);
  memcpy(to, &v, sizeof v);
}

static inline uint32_t
rs_wire_get32 (const unsigned char *from)
{
  uint32_t v;
  memcpy(&v, from, sizeof v);
  return RS_WIRE_ORDER32(v);
}

/* The bytes that the integer 'v' takes in two's complement, 1 to 8. */
static inline unsigned
rs_wire_integer_size (int64_t v)
{
  const uint64_t magnitude = (uint64_t) (v ^ (v >> 63));
  const unsigned bits = 64u - (unsigned) __builtin_clzll(magnitude | 1);
  return (bits + 8) / 8;
}

/* Write the integer, with its tag.  Returns how many bytes it takes;
   RS_WIRE_NUMBER bytes may be written. */
static inline unsigned
rs_wire_put_integer (unsigned char *to, int64_t v)
{
  if ((uint64_t) v <= RS_WIRE_SMALL_MAX) {
    to[0] = (unsigned char) v;
    return 1;
  }
  const unsigned size = rs_wire_integer_size(v);
  to[0] = (unsigned char) (RS_TAG_INTEGER + size - 1);
  rs_wire_put64(to + 1, (uint64_t) v);  /* later bytes overwrite the surplus */
  return 1 + size;
}

/* Read an integer of 'size' bytes; 'left' bytes are there, at least 'size'.
   False when there is a shorter way to write it. */
static inline bool
rs_wire_get_integer (const unsigned char *from, size_t left, unsigned size,
                     int64_t *v)
{
  uint64_t bits = 0;
  if (left >= 8)
    bits = rs_wire_get64(from);
  else
    for (unsigned i = 0; i < size; i++)
      bits |= (uint64_t) from[i] << (8 * i);
  const unsigned unused = 64 - 8 * size;
  *v = (int64_t) (bits << unused) >> unused;
  return rs_wire_integer_size(*v) == size && (uint64_t) *v > RS_WIRE_SMALL_MAX;
}

static inline void
rs_wire_put_double (unsigned char *to, double v)
{
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  rs_wire_put64(to, bits);
}

static inline double
rs_wire_get_double (const unsigned char *from)
{
  const uint64_t bits = rs_wire_get64(from);
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

/* ------------------------------------------------------------- header */

/* Write the header of a message without flags and objects. */
static inline void
rs_wire_put_header (unsigned char *to)
{
  const unsigned char header[RS_WIRE_HEADER] = { 'R', 'S', RS_WIRE_VERSION };
  memcpy(to, header, sizeof header);
}

/* True for such a header. */
static inline bool
rs_wire_is_plain_header (const unsigned char *from)
{
  const unsigned char header[RS_WIRE_HEADER] = { 'R', 'S', RS_WIRE_VERSION };
  return memcmp(from, header, sizeof header) == 0;
}

#endif
