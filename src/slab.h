/* SPDX-License-Identifier: MIT */
/*
 * slab.h - small blocks of memory for one thread.
 *
 * The C library's allocator is for all threads, and keeps a word with each
 * block.  A state is touched by one thread at a time, and Lua says how large
 * a block is when it gives it back; so blocks of up to RS_SLAB_MAX bytes come
 * from here.
 *
 *     region (64 KiB, aligned)
 *     +--------+------+------+-----+------+
 *     | header | page | page | ... | page |   a page (1 KiB) has blocks of
 *     +--------+------+------+-----+------+   one size
 *
 * Where a block's page is, and what is known of it, follows from its address.
 * A page without blocks serves any size; a region without pages is given
 * back, unless these are few.
 */
#ifndef RS_SLAB_H
#define RS_SLAB_H

#include <stddef.h>

#include "list.h"

enum {
  RS_SLAB_STEP = 16,   /* sizes are multiples of it */
  RS_SLAB_MAX = 256,
  RS_SLAB_SIZES = RS_SLAB_MAX / RS_SLAB_STEP
};

typedef struct rs_slab {
  rs_list pages[RS_SLAB_SIZES];  /* of each size, those with room */
  rs_list empty;                 /* pages without blocks */
  rs_list regions;
  size_t count;                  /* of 'regions' */
  size_t vacant;                 /* regions without pages in use */
} rs_slab;

void rs_slab_init (rs_slab *s);

/* Give back all memory, blocks or not. */
void rs_slab_fini (rs_slab *s);

/* A block of 'size' bytes, 1 to RS_SLAB_MAX; NULL when out of memory. */
void *rs_slab_take (rs_slab *s, size_t size);

/* Give back a block of that size. */
void rs_slab_give (rs_slab *s, void *block, size_t size);

/* Blocks of these sizes are the same. */
static inline bool
rs_slab_same (size_t a, size_t b)
{
  return (a - 1) / RS_SLAB_STEP == (b - 1) / RS_SLAB_STEP;
}

#endif
