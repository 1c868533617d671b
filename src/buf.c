/* SPDX-License-Identifier: MIT */
/*
 * buf.c - growable bytes with a latched failure.
 *
 * Room at least doubles, so that appending costs a constant amount for each
 * byte; a single large write gets the room that it needs, and an eighth more.
 */
#include "buf.h"

#include <stdint.h>
#include <stdlib.h>

enum { FIRST_ROOM = 112 };

void
rs_buf_fini (rs_buf *b)
{
  free(b->data);
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
  if (n > SIZE_MAX / 4 - b->size)
    goto fail;
  if (room < b->size + n)
    room = b->size + n + (b->size + n) / 8;
  unsigned char *const data = realloc(b->data, room);
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
