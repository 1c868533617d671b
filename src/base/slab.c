/* SPDX-License-Identifier: MIT */
/*
 * slab.c - small blocks of memory for one thread.
 */
#include "base/slab.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/fork.h"

typedef rs_page page;
typedef rs_region region;

enum { FIRST = (sizeof(region) + RS_SLAB_PAGE - 1) / RS_SLAB_PAGE };

/*
 * Regions that no state uses, kept for the next state.  To get a region from
 * the system, with its page faults, and to give it back takes longer than to
 * open a state.
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
  return r != NULL ? r : aligned_alloc(RS_SLAB_REGION, RS_SLAB_REGION);
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

/* Forget the spare regions in a child. */
static void
begin_child (void)
{
  pthread_mutex_init(&spare.lock, NULL);
  spare.n = 0;
}

RS_IN_CHILD(begin_child)

/* The memory of page 'p'. */
static char *
memory_of (const page *p)
{
  region *const r = rs_slab_region(p);
  return (char *) r + (size_t) (p - r->pages) * RS_SLAB_PAGE;
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

/* Add a region, whose pages are empty. */
static bool
add_region (rs_slab *s)
{
  region *const r = get_region();
  if (r == NULL)
    return false;
  r->used = 0;
  rs_list_push(&s->regions, &r->link);
  for (int i = FIRST; i < RS_SLAB_PAGES; i++)
    rs_list_push(&s->empty, &r->pages[i].link);
  s->count++;
  s->vacant++;
  return true;
}

/* Give back region 'r', whose last page with blocks is empty now, or keep it.
   One empty region may stay, or a quarter of all regions: the memory that a
   collection has freed is needed again soon. */
static void
vacate (rs_slab *s, region *r)
{
  if (s->vacant <= s->count / 4) {
    s->vacant++;
    return;
  }
  s->count--;
  for (int i = FIRST; i < RS_SLAB_PAGES; i++)
    rs_list_remove(&r->pages[i].link);
  rs_list_remove(&r->link);
  put_region(r);
}

/* Add a page to 'pages', the pages of one size.  NULL when out of memory. */
static page *
add_page (rs_slab *s, rs_list *pages)
{
  if (rs_list_empty(&s->empty) && !add_region(s))
    return NULL;
  page *const p = RS_LIST_ENTRY(rs_list_shift(&s->empty), page, link);
  region *const r = rs_slab_region(p);
  p->free = NULL;
  p->fresh = p->used = 0;
  if (r->used++ == 0)
    s->vacant--;
  rs_list_push_front(pages, &p->link);
  return p;
}

/* Put some blocks that were never used into the free list: no more than are
   needed soon, so that the memory of an idle worker's pages stays
   untouched. */
static void
thread (page *p, size_t step)
{
  enum { SOME = 4 };
  char *const memory = memory_of(p);
  void **last = &p->free;
  for (int i = 0; i < SOME && p->fresh + step <= RS_SLAB_PAGE; i++) {
    *last = memory + p->fresh;
    last = *last;
    p->fresh = (uint16_t) (p->fresh + step);
  }
  *last = NULL;
}

void *
rs_slab_took_last (page *p, size_t size, void *block)
{
  const size_t step = ((size - 1) / RS_SLAB_STEP + 1) * RS_SLAB_STEP;
  if (p->fresh + step > RS_SLAB_PAGE)
    rs_list_remove(&p->link);
  else
    thread(p, step);
  return block;
}

void *
rs_slab_take_slowly (rs_slab *s, size_t size)
{
  const size_t i = (size - 1) / RS_SLAB_STEP;
  page *const p = add_page(s, &s->pages[i]);
  if (p == NULL)
    return NULL;
  thread(p, (i + 1) * RS_SLAB_STEP);
  return rs_slab_take(s, size);
}

void *
rs_slab_gave_first (rs_slab *s, page *p, size_t size)
{
  if (p->used == 0) {
    region *const r = rs_slab_region(p);
    rs_list_remove(&p->link);
    rs_list_push_front(&s->empty, &p->link);
    if (--r->used == 0)
      vacate(s, r);
  }
  else  /* the page was full */
    rs_list_push_front(&s->pages[(size - 1) / RS_SLAB_STEP], &p->link);
  return NULL;
}
