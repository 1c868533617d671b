/* SPDX-License-Identifier: MIT */
/*
 * shape.h - keys that many tables of a message have in common.
 *
 * Records that the same code has made have the same keys, and 'lua_next' gives
 * the keys in the same order.  So their keys are sent once, in a definition,
 * and the decoder pushes strings that it has already: to make a string from
 * bytes costs as much as everything else that a field needs.
 *
 * The encoder remembers the keys of some tables that it has sent.  It finds
 * them by the first key.  When another table begins with that key, the encoder
 * expects the other keys, too; from the first key that differs on, it sends
 * the rest of the table without a definition.
 */
#ifndef RS_SHAPE_H
#define RS_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
  RS_SHAPES = 8,           /* shapes remembered at a time */
  RS_SHAPE_KEYS = 16,      /* most keys of one shape */
  RS_SHAPE_KEY_MAX = 63    /* most bytes of a key */
};

/* A key: its place in the buffer, and the address of its string
   (lua_topointer). */
typedef struct rs_shape_key {
  size_t at;
  size_t size;
  const void *string;
} rs_shape_key;

/* The keys of a table that was sent. */
typedef struct rs_shape {
  unsigned n;              /* 0: the place is free */
  unsigned walk;           /* walk in which the strings of its keys are alive:
                              no other string has their addresses */
  size_t end;              /* offset behind the last key */
  size_t defined;          /* offset of its definition in the buffer; 0: not
                              defined yet */
  rs_shape_key keys[RS_SHAPE_KEYS];
} rs_shape;

/* Make RS_SHAPES free places, with malloc; NULL when out of memory.  The keys
   are not cleared: that takes 3,400 instructions, as much as a small
   message. */
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

/* The place for a shape with this first key. */
static inline rs_shape *
rs_shape_slot (rs_shape *shapes, const char *key, size_t size)
{
  const unsigned char first = size > 0 ? (unsigned char) key[0] : 0;
  const unsigned char last = size > 0 ? (unsigned char) key[size - 1] : 0;
  return &shapes[(first + 3u * last + 5u * size) % RS_SHAPES];
}

/* True when key number 'i' of the shape is this text. */
static inline bool
rs_shape_has (const rs_shape *s, unsigned i, const unsigned char *buffer,
              const char *key, size_t size)
{
  return i < s->n && s->keys[i].size == size
      && memcmp(buffer + s->keys[i].at, key, size) == 0;
}

/* Forget the shapes and definitions that use bytes from offset 'size' on,
   which were taken back. */
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
  size_t at;               /* offset of the definition in the message; 0:
                              none */
  unsigned n;              /* number of its keys; they are in the decoder's
                              table of objects, behind the objects,
                              RS_SHAPE_KEYS slots for each shape */
} rs_shape_read;

#endif
