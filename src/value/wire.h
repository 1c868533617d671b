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
 * A value is a tag byte and what the tag says.  Numbers are little-endian.
 * A 'length' is a varint: seven bits a byte, low ones first, in as few bytes
 * as it takes.
 *
 * Every table, function and userdata is an object; objects are numbered from
 * 0 in the order of their tags, and REF names one by its number.  'objects'
 * in the header is how many there are, or 0 if no REF follows: then nobody
 * needs to keep them.
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

  RS_WIRE_FLAGS = 63,        /* RS_MESSAGE_ that a header may have */
  RS_WIRE_DEPTH = 200,      /* tables and functions inside each other; those
                               that lie deeper follow the value */
  RS_WIRE_INLINE = 100,     /* from here on the encoder lets them follow, but
                               for what '__transfer' gives */
  RS_WIRE_BODY = 9,         /* bytes of a table that follows, at least */
  RS_WIRE_RESULTS = 250,    /* values that rebuild one object */
  RS_WIRE_NAME_PARTS = 3,   /* module, field, field */
  RS_WIRE_VARINT = 10,      /* bytes of the longest length */
  RS_WIRE_NUMBER = 9,       /* bytes of the longest number, with its tag */
  RS_WIRE_RUN = 5,          /* bytes in front of the numbers of a run */
  RS_WIRE_RUN_FROM = 8      /* shorter sequences are sent one by one */
};

/*
 *  00-7f  the integer 0 to 127
 *  80-bf  a string of 0 to 63 bytes, which follow
 *  c0-e5  below; c7 is free
 *  e6-ff  free
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

  RS_TAG_TABLE = 0xd0,      /* array, hash: 4 bytes each; 'array' values of
                               the keys 1, 2, ...; 'hash' keys and values */
  RS_TAG_TABLE_META,        /* the same, then the metatable */
  RS_TAG_TABLE_META_OPEN,   /* the same, but the metatable is a table that
                               is not complete yet: see decode.c */
  RS_TAG_REF,               /* varint: an object that came before */
  RS_TAG_NAMED,             /* 1 to 3 (one byte), so many times length and
                               bytes: a module, a field of it, of that */
  RS_TAG_ENV,               /* the environment; no object */
  RS_TAG_FUNCTION,          /* upvalues (one byte), size (4 bytes), bytecode,
                               then each upvalue: a value or one of these */
  RS_TAG_UPVALUE_ENV,       /*   the environment's own cell */
  RS_TAG_UPVALUE_SHARED,    /*   varint function, one byte upvalue: the cell
                                 that is there */
  RS_TAG_CFUNCTION,         /* pointer, 8 bytes */
  RS_TAG_POINTER,           /* light userdata, 8 bytes; no object */
  RS_TAG_REBUILD,           /* n (one byte), function, n values: call it */
  RS_TAG_REPLACED,          /* a value that stands for the object */
  RS_TAG_LATER,             /* a table; see below */
  RS_TAG_FUNCTION_LATER,    /* upvalues, size, bytecode as above */
  RS_TAG_COMMON,            /* before a table: others may name it, by the
                               number of such tables before it, from 1 on */

  RS_TAG_COMMON_REF = 0xc5, /* varint: a table of another message, which the
                               receiver has; no object */
  RS_TAG_NAMED_TABLE,       /* name as NAMED, then a TABLE or RECORD of any
                               kind: the table of that name, if it has the
                               same in it */

  /* Where several values follow one another (the first of a table, those
     between two that are none): count (4 bytes), then so many of 8 bytes. */
  RS_TAG_INTEGERS = 0xe0,
  RS_TAG_FLOATS,

  /* A definition, then the value it stands before: n (one byte), n keys:
     length (one byte), bytes. */
  RS_TAG_SHAPE,
  RS_TAG_RECORD,            /* offset of a SHAPE in the message (4 bytes), n
                               (one byte), hash (4 bytes); the values of the
                               first n keys; 'hash' keys and values */
  RS_TAG_RECORD_META,       /* the same, then the metatable; */
  RS_TAG_RECORD_META_OPEN   /* as RS_TAG_TABLE_META_OPEN */
};

/*
 * LATER stands for a table that is too deep to be where it is.  Its contents,
 * a TABLE or RECORD of any kind, which is no object of its own, follow the
 * value in which it is; so do the upvalues of a FUNCTION_LATER.  There are as
 * many of these as were announced, in the same order, and they may announce
 * more.
 */
enum {
  RS_WIRE_SMALL_MAX = 127,  /* largest RS_TAG_INTEGER_SMALL */
  RS_WIRE_SHORT_MAX = 63    /* longest RS_TAG_STRING_SHORT */
};

/*
 * Numbers are little-endian, and lie anywhere.  The loops over bytes that
 * would say so are not seen through by compilers inside larger functions: a
 * store took 4 ns.
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

/* Bytes that the integer 'v' takes in two's complement, 1 to 8. */
static inline unsigned
rs_wire_integer_size (int64_t v)
{
  const uint64_t magnitude = (uint64_t) (v ^ (v >> 63));
  const unsigned bits = 64u - (unsigned) __builtin_clzll(magnitude | 1);
  return (bits + 8) / 8;
}

/* The integer, with its tag; how many bytes of RS_WIRE_NUMBER it takes. */
static inline unsigned
rs_wire_put_integer (unsigned char *to, int64_t v)
{
  if ((uint64_t) v <= RS_WIRE_SMALL_MAX) {
    to[0] = (unsigned char) v;
    return 1;
  }
  const unsigned size = rs_wire_integer_size(v);
  to[0] = (unsigned char) (RS_TAG_INTEGER + size - 1);
  rs_wire_put64(to + 1, (uint64_t) v);  /* what is too much is overwritten */
  return 1 + size;
}

/* The 'size' bytes of an integer, of 'left' that are there.  False when there
   were a shorter way to write it. */
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

/* The float, with its tag; how many bytes. */
static inline unsigned
rs_wire_put_float (unsigned char *to, double v)
{
  to[0] = RS_TAG_FLOAT;
  rs_wire_put_double(to + 1, v);
  return 1 + sizeof v;
}

static inline double
rs_wire_get_double (const unsigned char *from)
{
  const uint64_t bits = rs_wire_get64(from);
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

#endif
