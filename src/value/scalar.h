/* SPDX-License-Identifier: MIT */
/*
 * scalar.h - nil, booleans, numbers and strings to bytes and back; runs of
 * numbers.
 *
 * No other file writes or reads the tags of these values, but for the long
 * string, which the decoder reads.  Most values are scalars, so all is inline:
 * a call for each one would cost as much as the value itself.
 */
#ifndef RS_SCALAR_H
#define RS_SCALAR_H

#include <lua.h>

#include "base/buf.h"
#include "value/wire.h"

/* ------------------------------------------------------------- writing */

static inline unsigned
rs_put_varint (unsigned char *to, size_t n)
{
  unsigned size = 0;
  while (n >= 0x80) {
    to[size++] = (unsigned char) (n | 0x80);
    n >>= 7;
  }
  to[size++] = (unsigned char) n;
  return size;
}

/* Append a tag and the 8 bytes of 'bits'. */
static inline void
rs_put_eight (rs_buf *b, unsigned tag, uint64_t bits)
{
  unsigned char *const at = rs_buf_room(b, 9);
  if (at == NULL)
    return;
  at[0] = (unsigned char) tag;
  rs_wire_put64(at + 1, bits);
  b->size += 9;
}

static inline void
rs_put_nil (rs_buf *b)
{
  rs_buf_byte(b, RS_TAG_NIL);
}

static inline void
rs_put_integer (rs_buf *b, lua_Integer v)
{
  unsigned char *const at = rs_buf_room(b, RS_WIRE_NUMBER);
  if (at != NULL)
    b->size += rs_wire_put_integer(at, v);
}

static inline void
rs_put_string (rs_buf *b, const char *s, size_t size)
{
  const bool is_short = size <= RS_WIRE_SHORT_MAX;
  const size_t most = size + (is_short ? 1 : 1 + RS_WIRE_VARINT);
  unsigned char *at = rs_buf_room(b, most);
  if (at == NULL)
    return;
  const unsigned char *const start = at;
  if (is_short)
    *at++ = (unsigned char) (RS_TAG_STRING_SHORT + size);
  else {
    *at++ = RS_TAG_STRING;
    at += rs_put_varint(at, size);
  }
  memcpy(at, s, size);
  b->size += (size_t) (at - start) + size;
}

/* [-0, +0, -]  Append the number at 'index'. */
static inline void
rs_put_number (rs_buf *b, lua_State *L, int index)
{
  if (lua_isinteger(L, index))
    rs_put_integer(b, lua_tointegerx(L, index, NULL));
  else {
    const lua_Number v = lua_tonumberx(L, index, NULL);
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    rs_put_eight(b, RS_TAG_FLOAT, bits);
  }
}

/* [-0, +0, -]  Append the value at 'index', of this type.  False if it is not
   a scalar. */
static inline __attribute__ ((always_inline)) bool
rs_put_scalar (rs_buf *b, lua_State *L, int index, int type)
{
  switch (type) {
    case LUA_TNUMBER:
      rs_put_number(b, L, index);
      return true;
    case LUA_TSTRING: {
      size_t size;
      const char *const s = lua_tolstring(L, index, &size);
      rs_put_string(b, s, size);
      return true;
    }
    case LUA_TBOOLEAN:
      rs_buf_byte(b, lua_toboolean(L, index) ? RS_TAG_TRUE : RS_TAG_FALSE);
      return true;
    case LUA_TNIL:
      rs_put_nil(b);
      return true;
    default:
      return false;
  }
}

/* ------------------------------------------------------ writing of runs */

/* A run of numbers of one kind, which need only one tag. */
typedef struct rs_packed {
  unsigned tag;           /* RS_TAG_INTEGERS, RS_TAG_FLOATS; 0: none is open */
  uint32_t count;
  size_t at;              /* offset of its tag in the buffer */
  bool off;               /* no more runs: one was too short to pay */
} rs_packed;

/* End the run, if there is one. */
static inline void
rs_packed_end (rs_packed *p, rs_buf *b)
{
  if (p->tag == 0)
    return;
  rs_wire_put32(b->data + p->at + 1, p->count);
  p->off = p->count < RS_WIRE_RUN_FROM;
  p->tag = 0;
}

static inline bool
rs_packed_begin (rs_packed *p, rs_buf *b, unsigned tag)
{
  rs_packed_end(p, b);
  unsigned char *const at = p->off ? NULL : rs_buf_room(b, RS_WIRE_RUN);
  if (at == NULL)
    return false;
  at[0] = (unsigned char) tag;
  *p = (rs_packed) { .tag = tag, .at = b->size };
  b->size += RS_WIRE_RUN;
  return true;
}

/* Append a number to a run of its kind.  False when it has to be sent
   alone. */
static inline bool
rs_packed_add (rs_packed *p, rs_buf *b, unsigned tag, uint64_t bits)
{
  if ((p->tag != tag || p->count == UINT32_MAX) && !rs_packed_begin(p, b, tag))
    return false;
  unsigned char *const at = rs_buf_room(b, 8);
  if (at != NULL) {
    rs_wire_put64(at, bits);
    b->size += 8;
    p->count++;
  }
  else if (p->count == 0) {  /* the run has no number: drop its tag */
    b->size = p->at;
    p->tag = 0;
  }
  return true;
}

/* [-0, +0, -]  Append the number at 'index' to the run, to a new one of its
   kind, or alone. */
static inline void
rs_packed_put (rs_packed *p, rs_buf *b, lua_State *L, int index)
{
  bool in_run;
  if (lua_isinteger(L, index))
    in_run = rs_packed_add(p, b, RS_TAG_INTEGERS,
                             (uint64_t) lua_tointegerx(L, index, NULL));
  else {
    const lua_Number v = lua_tonumberx(L, index, NULL);
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    in_run = rs_packed_add(p, b, RS_TAG_FLOATS, bits);
  }
  if (!in_run)
    rs_put_number(b, L, index);
}

/* [-0, +0, -]  Append the value at 'index' to the run.  False if the run is
   not open, or the value is no number of its kind, or there is no room. */
static inline bool
rs_packed_go_on (rs_packed *p, rs_buf *b, lua_State *L, int index)
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
  if (p->count == UINT32_MAX || b->room - b->size < 8)
    return false;
  rs_wire_put64(b->data + b->size, bits);
  b->size += 8;
  p->count++;
  return true;
}

/* ------------------------------------------------------------- reading */

/*
 * [-0, +(0|1), m]  Push the scalar at 'from'; 'left' bytes are there.  Returns
 * how many bytes it takes.  0: it is another value, or a long string, or bytes
 * that no encoder writes.  Without a state the scalar is looked at only.
 */
static inline __attribute__ ((always_inline)) size_t
rs_get_scalar (lua_State *L, const unsigned char *from, size_t left)
{
  if (left == 0)
    return 0;
  const unsigned tag = from[0];
  /* Compilers know 'size', or a bound of it, in each branch. */
  const size_t size = (size_t) rs_wire_scalar_size(tag);
  if (tag < RS_TAG_STRING_SHORT) {
    if (L != NULL)
      lua_pushinteger(L, (lua_Integer) tag);
  }
  else if (tag < RS_TAG_NIL) {
    if (size >= left)
      return 0;
    if (L != NULL)
      lua_pushlstring(L, (const char *) from + 1, size);
  }
  else if (tag == RS_TAG_FLOAT) {
    if (size >= left)
      return 0;
    if (L != NULL)
      lua_pushnumber(L, rs_wire_get_double(from + 1));
  }
  else if ((tag & ~7u) == RS_TAG_INTEGER) {
    int64_t v;
    if (size >= left
        || !rs_wire_get_integer(from + 1, left - 1, (unsigned) size, &v))
      return 0;
    if (L != NULL)
      lua_pushinteger(L, v);
  }
  else if (tag > RS_TAG_TRUE)
    return 0;
  else if (L != NULL && tag == RS_TAG_NIL)
    lua_pushnil(L);
  else if (L != NULL)
    lua_pushboolean(L, tag == RS_TAG_TRUE);
  return 1 + size;
}

/* The numbers of the run whose tag is at 'from'; 'left' bytes are there.  0:
   not so many bytes are there, or the run has no numbers. */
static inline size_t
rs_get_run (const unsigned char *from, size_t left)
{
  if (left < RS_WIRE_RUN)
    return 0;
  const size_t n = rs_wire_get32(from + 1);
  return n <= (left - RS_WIRE_RUN) / 8 ? n : 0;
}

/* [-0, +1, -]  Push the number at 'from' of a run with this tag. */
static inline void
rs_get_packed (lua_State *L, const unsigned char *from, unsigned tag)
{
  if (tag == RS_TAG_INTEGERS)
    lua_pushinteger(L, (lua_Integer) rs_wire_get64(from));
  else
    lua_pushnumber(L, rs_wire_get_double(from));
}

#endif
