/* SPDX-License-Identifier: MIT */
/*
 * large.h - large blocks of memory, kept a while for the next request.
 *
 * A message or a string of megabytes costs mostly the page faults of new
 * memory: to copy 16 MiB takes 1.2 ms into memory that was written before, and
 * 6 to 9 ms where the system has to supply the pages first.  The C library
 * keeps freed blocks for its main thread only; the arenas of other threads
 * give them back at once.  So large blocks that are given back stay here for
 * the next request of any thread, RS_LARGE_KEPT bytes of them at most.  Kept
 * blocks are freed when a state is closed, when a worker has slept for
 * RS_LARGE_SECONDS, and, if they are older than RS_LARGE_SECONDS, when another
 * block is given back.
 *
 * Sizes are rounded up, by an eighth at most, so that a block serves a request
 * that is a little larger than the last one; pages that nobody writes to cost
 * nothing.
 */
#ifndef RS_LARGE_H
#define RS_LARGE_H

#include <stdbool.h>
#include <stddef.h>

#define RS_LARGE_FROM ((size_t) 256 << 10)  /* bytes, at least */
#define RS_LARGE_SECONDS 1.0

/* Bytes that are kept in the whole process: a string of 16 MiB on its way
   through a job and back is in memory four times.  The sanitizers have to see
   each block come and go, so nothing is kept for them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RS_LARGE_KEPT ((size_t) 0)
#else
#define RS_LARGE_KEPT ((size_t) 72 << 20)
#endif

/* Bytes of the block that is taken for 'size' bytes, a large size. */
static inline size_t
rs_large_room (size_t size)
{
  const size_t step = (size_t) 1 << (60 - __builtin_clzll(size));
  const size_t room = (size + step - 1) & ~(step - 1);
  return room >= size ? room : size;  /* 'size_t' overflow? */
}

/* Take a block for 'size' bytes, a large size; NULL when out of memory.  The
   block is malloc's, and may be freed as such.  Any thread. */
void *rs_large_take (size_t size);

/* Give back a block that was taken for 'size' bytes.  Any thread. */
void rs_large_give (void *block, size_t size);

/* Resize a block, as 'realloc' does, from 'osize' to 'nsize' bytes.  'nsize'
   is a large size; the block is a large one or malloc's.  Any thread. */
void *rs_large_resize (void *block, size_t osize, size_t nsize);

/* Tell whether blocks are kept, and free those.  Any thread. */
bool rs_large_any (void);
void rs_large_trim (void);

#endif
