/* SPDX-License-Identifier: MIT */
/*
 * large.c - large blocks of memory, kept a while for the next request.
 *
 * The newest block stands last, and is taken first: its pages may still be in
 * the cache.
 *
 * The GNU C library does not see how large the kept blocks are.  It keeps
 * freed memory up to twice the largest block that it has mapped and unmapped
 * again (mallopt(3), M_TRIM_THRESHOLD).  If it has seen no such block, it
 * gives back at once what a garbage collection frees, and arrays of floats
 * take a fifth longer for page faults.  So the library is shown one block.
 */
#include "base/large.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fork.h"

enum { BLOCKS = 16 };

typedef struct block {
  void *memory;
  size_t room;
  double since;       /* instant at which it was given back */
} block;

static struct {
  pthread_mutex_t lock;   /* guards the whole struct */
  unsigned n;
  size_t bytes;           /* total room of 'blocks' */
  size_t largest;         /* room of the largest block ever given back */
  block blocks[BLOCKS];   /* oldest first */
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
remove_locked (unsigned i)
{
  kept.bytes -= kept.blocks[i].room;
  kept.n--;
  memmove(&kept.blocks[i], &kept.blocks[i + 1],
          (kept.n - i) * sizeof *kept.blocks);
}

/* Remove the blocks that were given back before 'since', and then the oldest
   ones until there is a place for one more, of 'room' bytes.  Returns how many
   are in 'out' now. */
static unsigned
expire_locked (double since, size_t room, void **out)
{
  unsigned n = 0;
  while (kept.n > 0
         && (kept.blocks[0].since < since || kept.n == BLOCKS
             || kept.bytes + room > RS_LARGE_KEPT)) {
    out[n++] = kept.blocks[0].memory;
    remove_locked(0);
  }
  return n;
}

/* Free blocks; without the lock, since the system may need a while. */
static void
free_all (void **blocks, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    free(blocks[i]);
}

/* Take the newest kept block with exactly this room, or NULL. */
static void *
take_kept (size_t room)
{
  void *memory = NULL;
  pthread_mutex_lock(&kept.lock);
  for (unsigned i = kept.n; i-- > 0; )
    if (kept.blocks[i].room == room) {
      memory = kept.blocks[i].memory;
      remove_locked(i);
      break;
    }
  pthread_mutex_unlock(&kept.lock);
  return memory;
}

void *
rs_large_take (size_t size)
{
  const size_t room = rs_large_room(size);
  void *memory = take_kept(room);
  if (memory == NULL)
    memory = malloc(room);
  if (memory == NULL && rs_large_any()) {  /* what is kept may be in the way */
    rs_large_trim();
    memory = malloc(room);
  }
  return memory;
}

/* Let the C library see that blocks of this size come and go.  The values of a
   message take a few times its room, so a block of up to twice the room is
   shown, as long as that is moderate. */
static void
show_block (size_t room)
{
  enum { MODERATE = 16 << 20 };
  const size_t size = room < MODERATE / 2 ? 2 * room
                    : room < MODERATE ? MODERATE : room;
  void *volatile shown = malloc(size);
  free(shown);
}

void
rs_large_give (void *memory, size_t size)
{
  const size_t room = rs_large_room(size);
  if (room > RS_LARGE_KEPT) {
    free(memory);
    return;
  }
  const double now = rs_now_coarse();
  void *old[BLOCKS];
  pthread_mutex_lock(&kept.lock);
  const unsigned n = expire_locked(now - RS_LARGE_SECONDS, room, old);
  const bool largest = room > kept.largest;
  if (largest)
    kept.largest = room;
  kept.bytes += room;
  kept.blocks[kept.n++] = (block) { memory, room, now };
  pthread_mutex_unlock(&kept.lock);
  if (largest)
    show_block(room);
  free_all(old, n);
}

void *
rs_large_resize (void *memory, size_t osize, size_t nsize)
{
  const bool was_large = osize >= RS_LARGE_FROM;
  const size_t room = rs_large_room(nsize);
  if (was_large && room == rs_large_room(osize))
    return memory;
  void *const other = take_kept(room);
  if (other == NULL)
    return realloc(memory, room);
  if (osize > 0)
    memcpy(other, memory, osize < nsize ? osize : nsize);
  if (was_large)
    rs_large_give(memory, osize);
  else
    free(memory);
  return other;
}

bool
rs_large_any (void)
{
  pthread_mutex_lock(&kept.lock);
  const bool any = kept.n > 0;
  pthread_mutex_unlock(&kept.lock);
  return any;
}

void
rs_large_trim (void)
{
  void *old[BLOCKS];
  pthread_mutex_lock(&kept.lock);
  const unsigned n = expire_locked(RS_NEVER, 0, old);
  pthread_mutex_unlock(&kept.lock);
  free_all(old, n);
}

/* Forget the kept blocks in a child. */
static void
begin_child (void)
{
  pthread_mutex_init(&kept.lock, NULL);
  kept.n = 0;
  kept.bytes = 0;
}

RS_IN_CHILD(begin_child)
