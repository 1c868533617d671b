/* SPDX-License-Identifier: MIT */
/*
 * cache.h - memory that moves between CPUs.
 *
 * What one CPU has written another one gets line by line, 0.1 us each, unless
 * it asks for several at once, and ahead of time.
 */
#ifndef RS_CACHE_H
#define RS_CACHE_H

#include <stddef.h>

enum { RS_LINE = 64 };  /* bytes that move together */

/* What is at 'p' will be written to.  Compilers make a prefetch for reading of
   their builtin for x86, since the oldest CPUs had no other; there this one
   does nothing. */
static inline void
rs_prefetch (const void *p)
{
#if defined(__x86_64__)
  __asm__ volatile ("prefetchw %0" : : "m" (*(const char *) p));
#else
  __builtin_prefetch(p, 1);
#endif
}

/* All of 'size' bytes from 'p', which begins a line, on. */
static inline void
rs_prefetch_all (const void *p, size_t size)
{
  for (size_t at = 0; at < size; at += RS_LINE)
    rs_prefetch((const char *) p + at);
}

#endif
