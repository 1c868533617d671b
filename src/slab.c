/* SPDX-License-Identifier: MIT */
/*
 * slab.c - small blocks of memory for one thread.
 */
#include "slab.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum {
  REGION = 64 << 10,
  PAGE = 1 << 10,
  PAGES = REGION / PAGE
};

/* What is known of a page. */
typedef struct page {
  rs_list link;      /* in 'pages' or 'empty'; in none while it is full */
  void *free;        /* blocks that were given back; each points to the next */
  uint16_t fresh;    /* where the blocks begin that were never taken */
  uint16_t used;     /* blocks */
} page;

typedef struct region {
  rs_list link;
  unsigned used;     /* pages with blocks */
  page pages[PAGES]; /* the first ones are this header, and not used */
} region;

enum { FIRST = (sizeof(region) + PAGE - 1) / PAGE };

/*
 * Regions that nobody has, for the next state: to get one from the system,
 * with its page faults, and to give it back takes longer than to open a state.
 */
enum { SPARE = 16 };

static struct {
  pthread_mutex_t lock;
  int n;
  region *regions[SPARE];
} spare = { .lock = PTHREAD_MUTEX_INITIALIZER };

static region *
get_region (void)
{
  region *r = NULL;
  pthread_mutex_lock(&spare.lock);
  if (spare.n > 0)
    r = spare.regions[--spare.n];
  pthread_mutex_unlock(&spare.lock);
  return r != NULL ? r : aligned_alloc(REGION, REGION);
}

static void
put_region (region *r)
{
  pthread_mutex_lock(&spare.lock);
  const bool room = spare.n < SPARE;
  if (room)
    spare.regions[spare.n++] = r;
  pthread_mutex_unlock(&spare.lock);
  if (!room)
    free(r);
}

static region *
region_of (const void *address)
{
  return (region *) ((uintptr_t) address & ~(uintptr_t) (REGION - 1));
}

static page *
page_of (const void *block)
{
  return &region_of(block)->pages[((uintptr_t) block & (REGION - 1)) / PAGE];
}

/* Where its blocks are. */
static char *
memory_of (const page *p)
{
  region *const r = region_of(p);
  return (char *) r + (size_t) (p - r->pages) * PAGE;
}

void
rs_slab_init (rs_slab *s)
{
  for (int i = 0; i < RS_SLAB_SIZES; i++)
    rs_list_init(&s->pages[i]);
  rs_list_init(&s->empty);
  rs_list_init(&s->regions);
  s->count = s->vacant = 0;
}

void
rs_slab_fini (rs_slab *s)
{
  rs_list *link;
  while ((link = rs_list_shift(&s->regions)) != NULL)
    put_region(RS_LIST_ENTRY(link, region, link));
  rs_slab_init(s);
}

/* One more region, whose pages are empty. */
static bool
add_region (rs_slab *s)
{
  region *const r = get_region();
  if (r == NULL)
    return false;
  r->used = 0;
  rs_list_push(&s->regions, &r->link);
  for (int i = FIRST; i < PAGES; i++)
    rs_list_push(&s->empty, &r->pages[i].link);
  s->count++;
  s->vacant++;
  return true;
}

/* Its last page is empty.  One region may stay like this, or a quarter of
   them: what a collection has freed is needed again soon. */
static void
vacate (rs_slab *s, region *r)
{
  if (s->vacant <= s->count / 4) {
    s->vacant++;
    return;
  }
  s->count--;
  for (int i = FIRST; i < PAGES; i++)
    rs_list_remove(&r->pages[i].link);
  rs_list_remove(&r->link);
  put_region(r);
}

/* A page for blocks of this size, with room. */
static page *
add_page (rs_slab *s, rs_list *pages)
{
  if (rs_list_empty(&s->empty) && !add_region(s))
    return NULL;
  page *const p = RS_LIST_ENTRY(rs_list_shift(&s->empty), page, link);
  region *const r = region_of(p);
  p->free = NULL;
  p->fresh = p->used = 0;
  if (r->used++ == 0)
    s->vacant--;
  rs_list_push_front(pages, &p->link);
  return p;
}

void *
rs_slab_take (rs_slab *s, size_t size)
{
  const size_t i = (size - 1) / RS_SLAB_STEP;
  const size_t step = (i + 1) * RS_SLAB_STEP;
  rs_list *const pages = &s->pages[i];
  page *const p = !rs_list_empty(pages)
                ? RS_LIST_ENTRY(pages->next, page, link)
                : add_page(s, pages);
  if (p == NULL)
    return NULL;
  void *block = p->free;
  if (block != NULL)
    p->free = *(void **) block;
  else {
    block = memory_of(p) + p->fresh;
    p->fresh = (uint16_t) (p->fresh + step);
  }
  p->used++;
  if (p->free == NULL && p->fresh + step > PAGE)  /* full? */
    rs_list_remove(&p->link);
  return block;
}

void
rs_slab_give (rs_slab *s, void *block, size_t size)
{
  page *const p = page_of(block);
  *(void **) block = p->free;
  p->free = block;
  p->used--;
  if (p->used == 0) {
    region *const r = region_of(p);
    rs_list_remove(&p->link);
    rs_list_push_front(&s->empty, &p->link);
    if (--r->used == 0)
      vacate(s, r);
  }
  else if (rs_list_empty(&p->link))  /* was it full? */
    rs_list_push_front(&s->pages[(size - 1) / RS_SLAB_STEP], &p->link);
}
