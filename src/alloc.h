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

typedef struct rs_alloc {
  size_t used;    /* bytes */
  size_t limit;   /* bytes; SIZE_MAX: none */
  const _Atomic bool *refuse;  /* while it is set nothing grows; or NULL */
  void (*exhausted) (void *ud);  /* a request was over the limit, and no
                                    garbage could make room; or NULL */
  void *ud;
  const void *block;  /* what was refused last, over the limit: Lua collects
                         its garbage then, and asks again */
  size_t size;    /* of it; 0: nothing was refused */
} rs_alloc;

#define RS_ALLOC_INIT { .limit = (size_t) -1 }

/* What was refused last was not asked for again: it is wanting. */
void rs_alloc_settle (rs_alloc *a);

/* The allocation function (lua_newstate); 'ud' is the 'rs_alloc'. */
void *rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize);

#endif
