/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - a 'lua_Alloc' with accounting and a limit.
 */
#include "alloc.h"

#include <stdatomic.h>
#include <stdlib.h>

void
rs_alloc_settle (rs_alloc *a)
{
  if (a->size == 0)
    return;
  a->size = 0;
  if (a->exhausted != NULL)
    a->exhausted(a->ud);
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

void *
rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize)
{
  rs_alloc *const a = ud;
  if (ptr == NULL)
    osize = 0;  /* it is a type tag then (lua_Alloc) */
  if (nsize == 0) {
    free(ptr);
    a->used -= osize;
    return NULL;
  }
  if (nsize > osize) {
    if (a->refuse != NULL
        && atomic_load_explicit(a->refuse, memory_order_relaxed))
      return NULL;
    const bool again = a->size != 0 && retries(a, ptr, nsize);
    if (a->used > a->limit || nsize - osize > a->limit - a->used) {
      refuse(a, ptr, nsize, again);
      return NULL;
    }
    a->size = 0;
  }
  void *const block = realloc(ptr, nsize);
  if (block != NULL)
    a->used += nsize - osize;
  return block;
}
