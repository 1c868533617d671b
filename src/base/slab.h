/* SPDX-License-Identifier: MIT */
/*
 * slab.h - small blocks of memory for one thread.
 *
 * The C library's allocator serves all threads, and keeps a word with each
 * block.  A Lua state is touched by one thread at a time, and Lua says how
 * large a block is when it gives it back; so blocks of up to RS_SLAB_MAX bytes
 * come from a slab, which needs neither locks nor such words.
 *
 *     region (64 KiB, aligned)
 *     +--------+------+------+-----+------+
 *     | header | page | page | ... | page |   a page (1 KiB) has blocks of
 *     +--------+------+------+-----+------+   one size
 *
 * The address of a block tells its page, and where the 'rs_page' of that is.
 * An empty page serves any size.  A region whose pages are all empty is given
 * back, unless there are only a few of them.
 */
#ifndef RS_SLAB_H
#define RS_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

enum {
  RS_SLAB_STEP = 16,   /* bytes; block sizes are multiples of it */
  RS_SLAB_MAX = 256,
  RS_SLAB_SIZES = RS_SLAB_MAX / RS_SLAB_STEP
};

typedef struct rs_slab {
  rs_list pages[RS_SLAB_SIZES];  /* pages with free blocks, by size */
  rs_list empty;                 /* pages without blocks */
  rs_list regions;
  size_t count;                  /* number of 'regions' */
  size_t vacant;                 /* number of regions whose pages are all
                                    empty */
} rs_slab;

void rs_slab_init (rs_slab *s);

/* Give back all memory; blocks that are still in use go with it. */
void rs_slab_fini (rs_slab *s);

/* Take a block of 'size' bytes, 1 to RS_SLAB_MAX; NULL when out of memory. */
static inline void *rs_slab_take (rs_slab *s, size_t size);

/* Take a block of 'size' bytes; NULL when no page has one that is free. */
static inline void *rs_slab_try (rs_slab *s, size_t size);

/* Give back a block of 'size' bytes; returns NULL. */
static inline void *rs_slab_give (rs_slab *s, void *block, size_t size);

/* True when blocks for 'a' and for 'b' bytes have the same size. */
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

/* The state of a page; the header of its region has it. */
typedef struct rs_page {
  rs_list link;      /* place in 'pages' or 'empty'; none while it is full */
  void *free;        /* the first free block; each points to the next */
  uint16_t fresh;    /* offset of the memory that was never in 'free' */
  uint16_t used;     /* blocks in use */
} rs_page;

typedef struct rs_region {
  rs_list link;
  unsigned used;     /* pages with blocks */
  rs_page pages[RS_SLAB_PAGES];  /* the first ones stand for the header and are
                                    not used */
} rs_region;

/* Take a block where no page has a free one: add a page first. */
void *rs_slab_take_slowly (rs_slab *s, size_t size);

/* Finish taking 'block', the last free one of page 'p', and return it; finish
   giving back a block to page 'p', which was full or has no blocks any more,
   and return NULL.  (The quick functions end with these calls, and so need no
   frame.) */
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
