/* SPDX-License-Identifier: MIT */
/*
 * alloc.h - a 'lua_Alloc' with accounting and a limit.
 *
 * Each Lua state has one 'rs_alloc'.  Only the thread that runs the state
 * touches it.
 */
#ifndef RS_ALLOC_H
#define RS_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "base/slab.h"

typedef struct rs_alloc {
  rs_slab slab;   /* small blocks */
  bool plain;     /* malloc makes all blocks, the slab none */
  volatile unsigned moves;  /* how often a block was moved or made smaller;
                               read by the thread's signal handler */
  size_t used;    /* bytes that the state has */
  size_t limit;   /* bytes; SIZE_MAX: none */
  size_t quick;   /* bytes up to which a small new block needs no further
                     check: 'limit', or 0 for none */
  lua_State *L;   /* the state; NULL: its finalizers are not known */
  const _Atomic bool *refuse;  /* true: no object is made, and no block grows
                                  but in finalizers */
  void (*exhausted) (void *ud);  /* called when a request was over the limit,
                                    and no garbage could make room; or NULL */
  void *ud;
  const void *block;  /* the block of the last request that was over the limit;
                         Lua then collects its garbage and asks again */
  size_t size;    /* bytes of that request; 0: none was refused */
} rs_alloc;

void rs_alloc_init (rs_alloc *a);

/* Give back the memory that the state has left. */
void rs_alloc_fini (rs_alloc *a);

/* Let malloc make all blocks of all states.  Checks that make 'malloc' fail
   set it before they make the first state. */
extern bool rs_alloc_all_plain;

/* Set 'quick' anew, after a change of 'plain', 'size' or 'limit'. */
static inline void
rs_alloc_set_quick (rs_alloc *a)
{
  a->quick = a->plain || a->size != 0 ? 0 : a->limit;
}

/* Limit the state to 'limit' bytes from now on; SIZE_MAX: no limit. */
static inline void
rs_alloc_set_limit (rs_alloc *a, size_t limit)
{
  a->limit = limit;
  rs_alloc_set_quick(a);
}

/* Report the last refusal: Lua has not repeated the request, so the memory is
   missing. */
static inline void
rs_alloc_settle (rs_alloc *a)
{
  if (a->size == 0)
    return;
  a->size = 0;
  rs_alloc_set_quick(a);
  if (a->exhausted != NULL)
    a->exhausted(a->ud);
}

/* True while a finalizer of the state runs. */
bool rs_alloc_finalizes (const rs_alloc *a);

/* The allocation function of the state (lua_newstate); 'ud' is the
   'rs_alloc'. */
void *rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize);

#endif
