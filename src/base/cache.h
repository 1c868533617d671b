/* SPDX-License-Identifier: MIT */
/*
 * cache.h - memory that moves between CPUs.
 *
 * A CPU gets memory that another CPU has written line by line, 0.1 us each,
 * unless it asks for several lines at once and ahead of time.
 */
#ifndef RS_CACHE_H
#define RS_CACHE_H

#include <stddef.h>

enum { RS_LINE = 64 };  /* bytes of a line, which move together */

/* Fetch the line at 'p', which will be written to.  On x86 compilers make a
   prefetch for reading of their builtin, since the oldest CPUs have no other;
   'prefetchw' does nothing on those. */
static inline void
rs_prefetch (const void *p)
{
#if defined(__x86_64__)
  __asm__ volatile ("prefetchw %0" : : "m" (*(const char *) p));
#else
  __builtin_prefetch(p, 1);
#endif
}

/* Fetch the lines of the 'size' bytes from 'p' on; a line begins at 'p'. */
static inline void
rs_prefetch_all (const void *p, size_t size)
{
  for (size_t at = 0; at < size; at += RS_LINE)
    rs_prefetch((const char *) p + at);
}

#endif
