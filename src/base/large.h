/* SPDX-License-Identifier: MIT */
/*
 * large.h - large blocks of memory, kept a while for the next who needs one.
 *
 * What a message or a string of megabytes costs is the page faults of new
 * memory: to copy 16 MiB takes 1.2 ms where it was written before, and 6 to 9
 * where the system has to give its pages first.  The C library keeps freed
 * blocks for its main thread only; the arenas of other threads give them back
 * at once.  So large blocks that are given back stay here for any thread's
 * next request, RS_LARGE_KEPT bytes of them at most.  They are freed when a
 * state is closed, when a worker has slept for RS_LARGE_SECONDS, and the next
 * time that one is given back so long after they were.
 *
 * Sizes are rounded up, by an eighth at most, so that what is a little larger
 * than the last one fits where that was; pages that nobody writes to cost
 * nothing.
 */
#ifndef RS_LARGE_H
#define RS_LARGE_H

#include <stdbool.h>
#include <stddef.h>

#define RS_LARGE_FROM ((size_t) 256 << 10)  /* bytes; from here on */
#define RS_LARGE_SECONDS 1.0

/* Bytes in the whole process: a string of 16 MiB on its way through a job and
   back is there four times.  The sanitizers want to see each block. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RS_LARGE_KEPT ((size_t) 0)
#else
#define RS_LARGE_KEPT ((size_t) 72 << 20)
#endif

/* Bytes that a block for 'size' bytes, a large one, has. */
static inline size_t
rs_large_room (size_t size)
{
  const size_t step = (size_t) 1 << (60 - __builtin_clzll(size));
  const size_t room = (size + step - 1) & ~(step - 1);
  return room >= size ? room : size;  /* more than a 'size_t' counts? */
}

/* A block for 'size' bytes, a large one; NULL when out of memory.  It is
   malloc's, and may be freed as such.  Any thread. */
void *rs_large_take (size_t size);

/* Give back a block for 'size' bytes.  Any thread. */
void rs_large_give (void *block, size_t size);

/* 'realloc' for a block of 'osize' bytes, a large one or one of malloc's, to
   'nsize', a large one.  Any thread. */
void *rs_large_resize (void *block, size_t osize, size_t nsize);

/* Something is kept; free it.  Any thread. */
bool rs_large_any (void);
void rs_large_trim (void);

#endif
