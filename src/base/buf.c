/* SPDX-License-Identifier: MIT */
/*
 * buf.c - growable bytes with a latched failure.
 *
 * A buffer that grows at least doubles its room, so that appending costs a
 * constant amount for each byte.  A single large write gets the room that it
 * needs, and a little more.
 */
#include "base/buf.h"

#include <stdint.h>
#include <stdlib.h>

#include "base/large.h"

enum { FIRST_ROOM = 112 };

void
rs_buf_free (void *data, size_t room)
{
  if (room >= RS_LARGE_FROM)
    rs_large_give(data, room);
  else
    free(data);
}

void
rs_buf_fini (rs_buf *b)
{
  rs_buf_free(b->data, b->room);
  *b = (rs_buf) RS_BUF_INIT;
}

void
rs_buf_clear (rs_buf *b)
{
  b->size = 0;
  b->failed = false;
}

bool
rs_buf_reserve (rs_buf *b, size_t n)
{
  if (b->failed)
    return false;
  if (b->room - b->size >= n)
    return true;
  size_t room = b->room < FIRST_ROOM ? FIRST_ROOM : b->room * 2;
  if (b->fixed || n > SIZE_MAX / 4 - b->size)
    goto fail;
  const size_t all = b->size + n;
  if (room < all)
    room = all + all / (all < RS_LARGE_FROM ? 8 : 64);
  void *data;
  if (room < RS_LARGE_FROM)
    data = realloc(b->data, room);
  else {
    room = rs_large_room(room);
    data = rs_large_resize(b->data, b->room, room);
  }
  if (data == NULL)
    goto fail;
  b->data = data;
  b->room = room;
  return true;
 fail:
  b->failed = true;
  return false;
}

void
rs_buf_add (rs_buf *b, const void *bytes, size_t n)
{
  if (n > 0 && rs_buf_reserve(b, n)) {
    memcpy(b->data + b->size, bytes, n);
    b->size += n;
  }
}
