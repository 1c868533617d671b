/* SPDX-License-Identifier: MIT */
/*
 * shape.h - keys that many tables of a message have in common.
 *
 * Records that the same code has made have the same keys, and 'lua_next' gives
 * them in the same order.  So their keys are sent once, in a definition, and
 * the decoder pushes strings that it has already: to make a string of bytes
 * costs as much as all else that a field needs.
 *
 * The encoder remembers the keys of some tables that it has sent, by their
 * first key.  The next table that begins with that key is taken to have the
 * others, too; as soon as one differs the rest is sent as it is.
 */
#ifndef RS_SHAPE_H
#define RS_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
  RS_SHAPES = 8,           /* remembered at a time */
  RS_SHAPE_KEYS = 16,      /* of one, at most */
  RS_SHAPE_KEY_MAX = 63    /* bytes of a key */
};

/* A key: where it stands in the buffer, and the string that it came from
   (lua_topointer). */
typedef struct rs_shape_key {
  size_t at;
  size_t size;
  const void *string;
} rs_shape_key;

/* The keys of a table that was sent. */
typedef struct rs_shape {
  unsigned n;              /* 0: the place is free */
  unsigned walk;           /* in which the strings of its keys are there: no
                              other string is where they are */
  size_t end;              /* behind the last of them */
  size_t defined;          /* where its definition stands in the buffer; 0:
                              none was needed so far */
  rs_shape_key keys[RS_SHAPE_KEYS];
} rs_shape;

/* RS_SHAPES free places (free); NULL when out of memory.  To clear their keys
   as well took 3,400 instructions, as much as a small message. */
static inline rs_shape *
rs_shapes_new (void)
{
  rs_shape *const shapes = malloc(RS_SHAPES * sizeof *shapes);
  for (int i = 0; shapes != NULL && i < RS_SHAPES; i++) {
    shapes[i].n = shapes[i].walk = 0;
    shapes[i].end = shapes[i].defined = 0;
  }
  return shapes;
}

/* Where a shape belongs whose first key is this. */
static inline rs_shape *
rs_shape_slot (rs_shape *shapes, const char *key, size_t size)
{
  const unsigned char first = size > 0 ? (unsigned char) key[0] : 0;
  const unsigned char last = size > 0 ? (unsigned char) key[size - 1] : 0;
  return &shapes[(first + 3u * last + 5u * size) % RS_SHAPES];
}

/* Is this its key number 'i'? */
static inline bool
rs_shape_has (const rs_shape *s, unsigned i, const unsigned char *buffer,
              const char *key, size_t size)
{
  return i < s->n && s->keys[i].size == size
      && memcmp(buffer + s->keys[i].at, key, size) == 0;
}

/* The bytes from 'size' on were taken back. */
static inline void
rs_shapes_truncate (rs_shape *shapes, size_t size)
{
  for (int i = 0; shapes != NULL && i < RS_SHAPES; i++) {
    if (shapes[i].end > size)
      shapes[i].n = 0;
    if (shapes[i].defined >= size)
      shapes[i].defined = 0;
  }
}

/* A definition as the decoder knows it. */
typedef struct rs_shape_read {
  size_t at;               /* where it stands in the message; 0: none */
  unsigned n;              /* its keys are RS_SHAPE_KEYS to a shape, in the
                              decoder's table of objects, behind these */
} rs_shape_read;

#endif
