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
#include <stdint.h>

#include "base/list.h"

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
static inline void *rs_slab_take (rs_slab *s, size_t size);

/* The same, but NULL, too, when no page has a free block. */
static inline void *rs_slab_try (rs_slab *s, size_t size);

/* Give back a block of that size; returns NULL. */
static inline void *rs_slab_give (rs_slab *s, void *block, size_t size);

/* Blocks of these sizes are the same. */
static inline bool
rs_slab_same (size_t a, size_t b)
{
  return (a - 1) / RS_SLAB_STEP == (b - 1) / RS_SLAB_STEP;
}

/* ------------------------------------------------ private: the quick part */

enum {
  RS_SLAB_REGION = 64 << 10,
  RS_SLAB_PAGE = 1 << 10,
  RS_SLAB_PAGES = RS_SLAB_REGION / RS_SLAB_PAGE
};

/* What is known of a page. */
typedef struct rs_page {
  rs_list link;      /* in 'pages' or 'empty'; in none while it is full */
  void *free;        /* blocks that can be taken; each points to the next */
  uint16_t fresh;    /* where the blocks begin that are not among these yet */
  uint16_t used;     /* blocks */
} rs_page;

typedef struct rs_region {
  rs_list link;
  unsigned used;     /* pages with blocks */
  rs_page pages[RS_SLAB_PAGES];  /* the first ones are this header, and not
                                    used */
} rs_region;

/* The same where no page has a free block. */
void *rs_slab_take_slowly (rs_slab *s, size_t size);

/* What is left to do where a page may be full, now that 'block' is taken: this
   it returns; and where the page of a block that was given back was full, or
   has no blocks any more: returns NULL.  (Quick ways end with these, and so
   need no frame.) */
void *rs_slab_took_last (rs_page *p, size_t size, void *block)
  __attribute__ ((returns_nonnull));
void *rs_slab_gave_first (rs_slab *s, rs_page *p, size_t size);

static inline rs_region *
rs_slab_region (const void *address)
{
  return (rs_region *) ((uintptr_t) address
                        & ~(uintptr_t) (RS_SLAB_REGION - 1));
}

static inline void *
rs_slab_try (rs_slab *s, size_t size)
{
  const rs_list *const pages = &s->pages[(size - 1) / RS_SLAB_STEP];
  rs_page *const p = RS_LIST_ENTRY(pages->next, rs_page, link);
  void *const block = pages->next != pages ? p->free : NULL;
  if (block == NULL)
    return NULL;
  p->free = *(void **) block;
  p->used++;
  return p->free != NULL ? block : rs_slab_took_last(p, size, block);
}

static inline void *
rs_slab_take (rs_slab *s, size_t size)
{
  void *const block = rs_slab_try(s, size);
  return block != NULL ? block : rs_slab_take_slowly(s, size);
}

static inline void *
rs_slab_give (rs_slab *s, void *block, size_t size)
{
  const size_t offset = (uintptr_t) block & (RS_SLAB_REGION - 1);
  rs_page *const p =
    &rs_slab_region(block)->pages[offset / RS_SLAB_PAGE];
  *(void **) block = p->free;
  p->free = block;
  p->used--;
  return p->used != 0 && !rs_list_empty(&p->link)
         ? NULL : rs_slab_gave_first(s, p, size);
}

#endif
