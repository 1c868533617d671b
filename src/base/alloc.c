/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - a 'lua_Alloc' with accounting and a limit.
 *
 * Most requests are for a small new block, or give one back.  They take 28 and
 * 22 instructions, for two reasons: one comparison, with 'quick', rules out
 * all special cases, and the work that only some blocks need is a call at the
 * end, so that the quick functions have no frame on the stack.  Binary trees
 * of bench/tax.lua take 0.80 of lua5.4's time; with 37 and 31 instructions
 * they took 0.86.
 */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/large.h"

/* The sanitizers have to see each block, so malloc makes all for them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
bool rs_alloc_all_plain = true;
#else
bool rs_alloc_all_plain = false;
#endif

void
rs_alloc_init (rs_alloc *a)
{
  static const _Atomic bool never = false;
  *a = (rs_alloc) { .plain = rs_alloc_all_plain, .refuse = &never };
  rs_alloc_set_limit(a, SIZE_MAX);
  rs_slab_init(&a->slab);
}

void
rs_alloc_fini (rs_alloc *a)
{
  rs_slab_fini(&a->slab);
  rs_large_trim();
}

static bool
is_small (const rs_alloc *a, size_t size)
{
  return size <= RS_SLAB_MAX && !a->plain;
}

static bool
is_large (const rs_alloc *a, size_t size)
{
  return size >= RS_LARGE_FROM && !a->plain;
}

/* Give back a block that is not a small one; returns NULL. */
static __attribute__ ((noinline)) void *
give_large (const rs_alloc *a, void *ptr, size_t size)
{
  if (is_large(a, size))
    rs_large_give(ptr, size);
  else
    free(ptr);
  return NULL;
}

/* Give back a block of 'size' bytes, 0 for none; returns NULL. */
static inline void *
give (rs_alloc *a, void *ptr, size_t size)
{
  if (size == 0)
    return NULL;
  return is_small(a, size) ? rs_slab_give(&a->slab, ptr, size)
                           : give_large(a, ptr, size);
}

/* Copy a small block, in whole steps, which it has room for.  (For a size that
   is known to be small, a compiler may take an instruction that is slow to
   begin.) */
static inline void
copy_small (void *to, const void *from, size_t size)
{
  for (size_t i = 0; i < size; i += RS_SLAB_STEP)
    memcpy((char *) to + i, (const char *) from + i, RS_SLAB_STEP);
}

/* Resize a block of 'osize' bytes, 0 for none, as 'realloc' does. */
static void *
resize (rs_alloc *a, void *ptr, size_t osize, size_t nsize)
{
  const bool small = is_small(a, nsize);
  const bool both = osize > 0 && small == is_small(a, osize);
  if (both && small && rs_slab_same(osize, nsize))
    return ptr;
  if (both && !small)
    return is_large(a, nsize) ? rs_large_resize(ptr, osize, nsize)
                              : realloc(ptr, nsize);
  void *const block = small ? rs_slab_take(&a->slab, nsize)
                    : is_large(a, nsize) ? rs_large_take(nsize)
                    : malloc(nsize);
  if (block != NULL && osize > 0) {
    const size_t size = osize < nsize ? osize : nsize;
    if (both)
      copy_small(block, ptr, size);
    else
      memcpy(block, ptr, size);
    give(a, ptr, osize);
  }
  return block;
}

/*
 * True when this request repeats the one that was refused last: Lua has
 * collected its garbage and tries again.  Any other request means that Lua has
 * given up the refused one, which is reported then.
 */
static bool
retries (rs_alloc *a, const void *ptr, size_t size)
{
  const bool same = a->size == size && a->block == ptr;
  if (!same)
    rs_alloc_settle(a);
  return same;
}

/*
 * True while a finalizer of the state runs.  Lua calls no finalizer a second
 * time: if there is no memory for its call, it never gives back what it holds.
 * So finalizers get memory that is refused to other code, but not for new
 * objects, which a finalizer of a script could make without end.
 */
bool
rs_alloc_finalizes (const rs_alloc *a)
{
#if LUA_VERSION_RELEASE_NUM >= 50404
  return a->L != NULL && lua_gc(a->L, LUA_GCISRUNNING) < 0;
#else  /* true also when the script has stopped the collector */
  return a->L != NULL && lua_gc(a->L, LUA_GCISRUNNING) == 0;
#endif
}

/* Refuse a request, since it is over the limit; report it if this is the
   second time, 'again'. */
static void
refuse (rs_alloc *a, const void *ptr, size_t size, bool again)
{
  a->block = ptr;
  a->size = size;
  rs_alloc_set_quick(a);
  if (again)
    rs_alloc_settle(a);
}

/* True while 'refuse' is set: no object is made, and no block grows but in
   finalizers. */
static bool
is_refused (const rs_alloc *a)
{
  return atomic_load_explicit(a->refuse, memory_order_relaxed);
}

/* Make or resize a block that the quick way does not serve; the arguments are
   those of 'rs_alloc_resize'. */
static __attribute__ ((noinline)) void *
change (rs_alloc *a, void *ptr, size_t osize, size_t nsize)
{
  /* True for a new Lua object, not for memory that belongs to one or to the
     state. */
  const bool object = ptr == NULL && osize != 0;
  if (ptr == NULL)
    osize = 0;
  if (nsize > osize) {
    if (is_refused(a) && (object || !rs_alloc_finalizes(a)))
      return NULL;
    const bool again = a->size != 0 && retries(a, ptr, nsize);
    if (a->used > a->limit || nsize - osize > a->limit - a->used) {
      refuse(a, ptr, nsize, again);
      return NULL;
    }
    if (a->size != 0) {
      a->size = 0;
      rs_alloc_set_quick(a);
    }
  }
  if (ptr != NULL)
    a->moves++;
  void *const block = resize(a, ptr, osize, nsize);
  if (block != NULL)
    a->used += nsize - osize;
  return block;
}

void *
rs_alloc_resize (void *ud, void *ptr, size_t osize, size_t nsize)
{
  rs_alloc *const a = ud;
  if (nsize == 0) {
    if (ptr == NULL)
      return NULL;
    a->used -= osize;
    return give(a, ptr, osize);
  }
  /* Most blocks are small and new. */
  if (ptr == NULL && nsize <= RS_SLAB_MAX && a->used + nsize <= a->quick
      && !is_refused(a)) {
    a->used += nsize;
    void *const block = rs_slab_try(&a->slab, nsize);
    if (block != NULL)
      return block;
    a->used -= nsize;
  }
  return change(a, ptr, osize, nsize);
}
