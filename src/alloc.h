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
  bool refused;   /* a request was over the limit */
} rs_alloc;

#define RS_ALLOC_INIT { 0, (size_t) -1, false }

/* The allocation function (lua_newstate); 'ud' is the 'rs_alloc'. */
void *rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize);

#endif
