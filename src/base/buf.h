/* SPDX-License-Identifier: MIT */
/*
 * buf.h - growable bytes with a latched failure.
 *
 * After its first failure the contents of a buffer are of no use; the writer
 * checks 'failed' once, at the end.  A buffer belongs to one thread.
 */
#ifndef RS_BUF_H
#define RS_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct rs_buf {
  unsigned char *data;  /* block of malloc or large.h, or NULL */
  size_t size;          /* bytes written */
  size_t room;          /* bytes allocated */
  bool failed;          /* a write was lost: out of memory */
  bool fixed;           /* 'data' is the caller's: the buffer cannot grow */
} rs_buf;

#define RS_BUF_INIT { NULL, 0, 0, false, false }

/* A buffer in the 'size' bytes at 'bytes'; a write that does not fit fails.
   Nothing is to be freed. */
#define RS_BUF_OVER(bytes, size) { (bytes), 0, (size), false, true }

void rs_buf_fini (rs_buf *b);

/* Free bytes that were taken out of a buffer, as 'rs_buf_fini' does; 'room' is
   the buffer's. */
void rs_buf_free (void *data, size_t room);

/* Forget the contents and the failure, keep the memory. */
void rs_buf_clear (rs_buf *b);

/* Make room for 'n' more bytes; false, and 'failed' set, if there is none. */
bool rs_buf_reserve (rs_buf *b, size_t n);

/* Make room for 'n' more bytes.  Returns where they go, or NULL; the caller
   adds to 'size' what it writes there. */
static inline unsigned char *
rs_buf_room (rs_buf *b, size_t n)
{
  if (b->room - b->size < n && !rs_buf_reserve(b, n))
    return NULL;
  return b->data + b->size;
}

/* Append 'n' bytes. */
void rs_buf_add (rs_buf *b, const void *bytes, size_t n);

/* Append one byte. */
static inline void
rs_buf_byte (rs_buf *b, unsigned char byte)
{
  if (b->size < b->room || rs_buf_reserve(b, 1))
    b->data[b->size++] = byte;
}

#endif
