/* SPDX-License-Identifier: MIT */
/*
 * alloc.h - a 'lua_Alloc' with accounting and a limit.
 *
 * One for each state, touched only by the thread that runs the state.
 */
#ifndef RS_ALLOC_H
#define RS_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "base/slab.h"

typedef struct rs_alloc {
  rs_slab slab;   /* small blocks */
  bool plain;     /* all blocks are malloc's */
  volatile unsigned moves;  /* how often a block was moved, or made smaller;
                               read by the thread's signal handler */
  size_t used;    /* bytes */
  size_t limit;   /* bytes; SIZE_MAX: none */
  size_t quick;   /* bytes up to which a small new block needs no second look:
                     the limit, or 0 */
  lua_State *L;   /* that it is for, or NULL: finalizers are not known then */
  const _Atomic bool *refuse;  /* while it is set nothing grows, but in
                                  finalizers */
  void (*exhausted) (void *ud);  /* a request was over the limit, and no
                                    garbage could make room; or NULL */
  void *ud;
  const void *block;  /* what was refused last, over the limit: Lua collects
                         its garbage then, and asks again */
  size_t size;    /* of it; 0: nothing was refused */
} rs_alloc;

void rs_alloc_init (rs_alloc *a);

/* Give back what the state has left. */
void rs_alloc_fini (rs_alloc *a);

/* Set by checks that let 'malloc' fail, before the first state: all blocks are
   its then. */
extern bool rs_alloc_all_plain;

/* Something that 'quick' follows from has changed. */
static inline void
rs_alloc_set_quick (rs_alloc *a)
{
  a->quick = a->plain || a->size != 0 ? 0 : a->limit;
}

/* From now on so many bytes; SIZE_MAX: any. */
static inline void
rs_alloc_set_limit (rs_alloc *a, size_t limit)
{
  a->limit = limit;
  rs_alloc_set_quick(a);
}

/* What was refused last was not asked for again: it is wanting. */
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

/* A finalizer of the state runs. */
bool rs_alloc_finalizes (const rs_alloc *a);

/* The allocation function (lua_newstate); 'ud' is the 'rs_alloc'. */
void *rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize);

#endif
