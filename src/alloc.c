/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - a 'lua_Alloc' with accounting and a limit.
 */
#include "alloc.h"

#include <stdlib.h>

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
  if (nsize > osize && nsize - osize > a->limit - a->used) {
    a->refused = true;
    return NULL;
  }
  void *const block = realloc(ptr, nsize);
  if (block != NULL)
    a->used += nsize - osize;
  return block;
}
