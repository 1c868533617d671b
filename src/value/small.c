/* SPDX-License-Identifier: MIT */
/*
 * small.c - messages of a few scalars.
 *
 * Most arguments and results of single jobs are a few scalars.  An encoder and
 * a decoder that are ready for any value take 390 and 320 instructions for an
 * integer, of the 5,800 that a job costs its host; here they are 90 and 70.
 * The bytes are the same.  Any other value is left to encoder.c and decoder.c,
 * and so is a message with bad bytes, to be refused there.
 */
#include "value/small.h"

#include <lauxlib.h>

#include "base/level.h"
#include "value/message.h"
#include "value/wire.h"

static const unsigned char header[RS_WIRE_HEADER] = {
  'R', 'S', RS_WIRE_VERSION
};

rs_message *
rs_encode_small (lua_State *L, int first, int n, void *room, size_t size)
{
  rs_message *const msg = room;
  if (size < sizeof *msg + sizeof header)
    return NULL;
  const unsigned char *const end = (const unsigned char *) room + size;
  unsigned char *at = msg->data + sizeof header;
  for (int i = first; i < first + n; i++) {
    const int type = lua_type(L, i);
    if ((size_t) (end - at) < RS_WIRE_NUMBER)
      return NULL;
    if (type == LUA_TNUMBER && lua_isinteger(L, i))
      at += rs_wire_put_integer(at, lua_tointegerx(L, i, NULL));
    else if (type == LUA_TNUMBER)
      at += rs_wire_put_float(at, lua_tonumberx(L, i, NULL));
    else if (type == LUA_TSTRING) {
      size_t length;
      const char *const s = lua_tolstring(L, i, &length);
      if (length > RS_WIRE_SHORT_MAX || (size_t) (end - at) < 1 + length)
        return NULL;
      *at++ = (unsigned char) (RS_TAG_STRING_SHORT + length);
      memcpy(at, s, length);
      at += length;
    }
    else if (type == LUA_TBOOLEAN)
      *at++ = lua_toboolean(L, i) ? RS_TAG_TRUE : RS_TAG_FALSE;
    else if (type == LUA_TNIL)
      *at++ = RS_TAG_NIL;
    else
      return NULL;
  }
  rs_message_init(msg, (size_t) (at - msg->data), 0);
  memcpy(msg->data, header, sizeof header);
  msg->lent = true;
  return msg;
}

/* [-0, +0|1, m]  Push the scalar at '*at', and go behind it.  False for bytes
   that are not a scalar. */
static bool
push_scalar (lua_State *L, const unsigned char **at, const unsigned char *end)
{
  const unsigned tag = *(*at)++;
  const size_t left = (size_t) (end - *at);
  size_t size = 0;
  if (tag <= RS_WIRE_SMALL_MAX)
    lua_pushinteger(L, (lua_Integer) tag);
  else if (tag <= RS_TAG_STRING_SHORT + RS_WIRE_SHORT_MAX) {
    size = tag - RS_TAG_STRING_SHORT;
    if (left < size)
      return false;
    lua_pushlstring(L, (const char *) *at, size);
  }
  else if (tag >= RS_TAG_INTEGER && tag < RS_TAG_INTEGER + 8) {
    int64_t v;
    size = tag - RS_TAG_INTEGER + 1;
    if (left < size || !rs_wire_get_integer(*at, left, (unsigned) size, &v))
      return false;
    lua_pushinteger(L, v);
  }
  else if (tag == RS_TAG_FLOAT) {
    size = 8;
    if (left < size)
      return false;
    lua_pushnumber(L, rs_wire_get_double(*at));
  }
  else if (tag == RS_TAG_NIL)
    lua_pushnil(L);
  else if (tag == RS_TAG_FALSE || tag == RS_TAG_TRUE)
    lua_pushboolean(L, tag == RS_TAG_TRUE);
  else
    return false;
  *at += size;
  return true;
}

int
rs_decode_small (lua_State *L, const rs_message *msg)
{
  if (msg->size < sizeof header || msg->size > RS_SMALL_MAX
      || memcmp(msg->data, header, sizeof header) != 0)
    return -1;
  const unsigned char *at = msg->data + sizeof header;
  const unsigned char *const end = msg->data + msg->size;
  int n = 0;
  rs_level_room(L, (int) (end - at) + LUA_MINSTACK, "too many values");
  for (; at < end; n++)
    if (!push_scalar(L, &at, end)) {
      lua_pop(L, n);
      return -1;
    }
  return n;
}
