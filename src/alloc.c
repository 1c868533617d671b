/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - a 'lua_Alloc' with accounting and a limit.
 */
#include "alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "large.h"

/* The sanitizers want to see each block. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
bool rs_alloc_all_plain = true;
#else
bool rs_alloc_all_plain = false;
#endif

void
rs_alloc_init (rs_alloc *a)
{
  *a = (rs_alloc) { .limit = SIZE_MAX, .plain = rs_alloc_all_plain };
  rs_slab_init(&a->slab);
}

void
rs_alloc_fini (rs_alloc *a)
{
  rs_slab_fini(&a->slab);
  rs_large_trim();
}

static bool
is_small (const rs_alloc *a, size_t size)
{
  return size <= RS_SLAB_MAX && !a->plain;
}

static bool
is_large (const rs_alloc *a, size_t size)
{
  return size >= RS_LARGE_FROM && !a->plain;
}

static inline void
give (rs_alloc *a, void *ptr, size_t size)
{
  if (ptr != NULL && size > 0 && is_small(a, size))
    rs_slab_give(&a->slab, ptr, size);
  else if (ptr != NULL && is_large(a, size))
    rs_large_give(ptr, size);
  else
    free(ptr);
}

/* 'realloc', for a block of 'osize' bytes; 0: none. */
static void *
resize (rs_alloc *a, void *ptr, size_t osize, size_t nsize)
{
  const bool small = is_small(a, nsize);
  if (osize > 0 && small == is_small(a, osize)) {
    if (!small)
      return is_large(a, nsize) ? rs_large_resize(ptr, osize, nsize)
                                : realloc(ptr, nsize);
    if (rs_slab_same(osize, nsize))
      return ptr;
  }
  void *const block = small ? rs_slab_take(&a->slab, nsize)
                    : is_large(a, nsize) ? rs_large_take(nsize)
                    : malloc(nsize);
  if (block != NULL && osize > 0) {
    memcpy(block, ptr, osize < nsize ? osize : nsize);
    give(a, ptr, osize);
  }
  return block;
}

/*
 * Something was refused before this request.  If it is the same one, Lua has
 * collected its garbage and tries again; if it is not, whoever asked has given
 * up.
 */
static bool
retries (rs_alloc *a, const void *ptr, size_t size)
{
  const bool same = a->size == size && a->block == ptr;
  if (!same)
    rs_alloc_settle(a);
  return same;
}

/* The request is over the limit. */
static void
refuse (rs_alloc *a, const void *ptr, size_t size, bool again)
{
  a->block = ptr;
  a->size = size;
  if (again)
    rs_alloc_settle(a);
}

/* Nothing grows while this is set. */
static bool
is_refused (const rs_alloc *a)
{
  return a->refuse != NULL
      && atomic_load_explicit(a->refuse, memory_order_relaxed);
}

/* What is no small new block, nor freed. */
static __attribute__ ((noinline)) void *
change (rs_alloc *a, void *ptr, size_t osize, size_t nsize)
{
  if (nsize > osize) {
    if (is_refused(a))
      return NULL;
    const bool again = a->size != 0 && retries(a, ptr, nsize);
    if (a->used > a->limit || nsize - osize > a->limit - a->used) {
      refuse(a, ptr, nsize, again);
      return NULL;
    }
    a->size = 0;
  }
  void *const block = resize(a, ptr, osize, nsize);
  if (block != NULL)
    a->used += nsize - osize;
  return block;
}

void *
rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize)
{
  rs_alloc *const a = ud;
  if (ptr == NULL)
    osize = 0;  /* it is a type tag then (lua_Alloc) */
  if (nsize == 0) {
    a->used -= osize;
    give(a, ptr, osize);
    return NULL;
  }
  /* Most blocks are small and new. */
  if (ptr != NULL || !is_small(a, nsize) || a->size != 0 || is_refused(a)
      || a->used > a->limit || nsize > a->limit - a->used)
    return change(a, ptr, osize, nsize);
  void *const block = rs_slab_take(&a->slab, nsize);
  if (block != NULL)
    a->used += nsize;
  return block;
}
