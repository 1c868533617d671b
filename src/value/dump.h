/* SPDX-License-Identifier: MIT */
/*
 * dump.h - the parts of what 'lua_dump' writes: a header and a function.
 *
 *     source, lines, parameters   a string, two numbers, 3 bytes
 *     code                        4 bytes an instruction
 *     constants                   a type and a value each
 *     upvalues                    3 bytes each: is it a local variable of the
 *                                 function around, its number there, its kind
 *     functions inside            as this one
 *     lines, variables, names     for debugging; without them, counts of 0
 *
 * Lua 5.4.0 to 5.4.8 have this format.  Whether the Lua that runs has it is
 * found out by 'rs_bytecode_learn'.  The bytes are not believed.
 */
#ifndef RS_DUMP_H
#define RS_DUMP_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

enum {
  RS_DUMP_HEADER = 32,      /* bytes before the function: signature, version,
                               format, sizes, two numbers, count of upvalues */
  RS_DUMP_INSTRUCTION = 4,  /* bytes */
  RS_DUMP_UPVALUE = 3       /* bytes */
};

/* Types of constants: lua_Type, and a variant in the bits 4 and 5. */
enum {
  RS_DUMP_NIL = 0x00, RS_DUMP_FALSE = 0x01, RS_DUMP_TRUE = 0x11,
  RS_DUMP_INTEGER = 0x03, RS_DUMP_FLOAT = 0x13, RS_DUMP_SHORT = 0x04,
  RS_DUMP_LONG = 0x14
};

/* A dump that is read. */
typedef struct rs_dump {
  const unsigned char *data;
  size_t size, at;
  bool bad;            /* the bytes are not of the format that is known */
} rs_dump;

static inline void
rs_dump_pass (rs_dump *d, size_t n)
{
  if (n > d->size - d->at)
    d->bad = true;
  else
    d->at += n;
}

static inline unsigned
rs_dump_byte (rs_dump *d)
{
  if (d->at == d->size) {
    d->bad = true;
    return 0;
  }
  return d->data[d->at++];
}

/* A number: seven bits a byte, high ones first; the last byte is marked. */
static inline size_t
rs_dump_size (rs_dump *d)
{
  size_t n = 0;
  unsigned byte;
  do {
    byte = rs_dump_byte(d);
    n = n << 7 | (byte & 0x7f);
  } while (!(byte & 0x80) && !d->bad);
  return n;
}

/* A count of things of 'least' bytes or more each. */
static inline size_t
rs_dump_count (rs_dump *d, size_t least)
{
  const size_t n = rs_dump_size(d);
  if (n > (d->size - d->at) / least)
    d->bad = true;
  return d->bad ? 0 : n;
}

/* A string; NULL: there is none. */
static inline const char *
rs_dump_string (rs_dump *d, size_t *size)
{
  const size_t n = rs_dump_size(d);
  if (n == 0 || d->bad)
    return NULL;
  *size = n - 1;
  const char *const text = (const char *) d->data + d->at;
  rs_dump_pass(d, n - 1);
  return d->bad ? NULL : text;
}

static inline void
rs_dump_pass_string (rs_dump *d)
{
  size_t size;
  (void) rs_dump_string(d, &size);
}

/* A constant; NULL: it is no string. */
static inline const char *
rs_dump_constant (rs_dump *d, size_t *size)
{
  switch (rs_dump_byte(d)) {
    case RS_DUMP_SHORT:
    case RS_DUMP_LONG:
      return rs_dump_string(d, size);
    case RS_DUMP_INTEGER:
      rs_dump_pass(d, sizeof (lua_Integer));
      break;
    case RS_DUMP_FLOAT:
      rs_dump_pass(d, sizeof (lua_Number));
      break;
    case RS_DUMP_NIL:
    case RS_DUMP_FALSE:
    case RS_DUMP_TRUE:
      break;
    default:
      d->bad = true;
  }
  return NULL;
}

#endif
