/* SPDX-License-Identifier: MIT */
/*
 * job_memory.c - what a job is made of: memory, and references.
 *
 * Most hosts have many jobs, one after the other, or all at once.  So a host's
 * own thread takes the job that it freed last; if there is none, it makes a
 * block of several at once.  To ask the C library for each job takes 0.3 us
 * where thousands are in flight, a third of what a job costs.  A block has a
 * bit for each of its jobs that is vacant, which any thread may set.  Vacant
 * jobs are used before another block is made; a block whose jobs are all
 * vacant is freed.
 *
 * A chunk has a block of its own, and so has a job without events, or one that
 * another thread than the host's submits.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

enum { ALIGN = _Alignof(rs_job) };

/* Jobs in the first block, and in the largest; each block has twice as many as
   the last one. */
enum { FIRST_BLOCK = 4, LARGEST_BLOCK = 64 };

struct rs_job_block {
  _Alignas(rs_job) rs_list link;  /* in 'blocks' of its events; guarded by
                                     their lock, as the next one */
  rs_list some;                   /* in 'vacant' of its events, while it has
                                     vacant jobs */
  _Atomic uint64_t vacant;        /* a bit for each job that is neither in use
                                     nor spare */
  unsigned n;                     /* jobs in the block; constant */
  rs_job jobs[];
};

static rs_job *
of_notice (rs_notice *n)
{
  return RS_LIST_ENTRY(n, rs_job, notice);
}

/* ------------------------------------------------------------------ blocks */

/* New block of 'n' jobs, none of them vacant, with 'chunk' bytes behind them.
   NULL when out of memory. */
static rs_job_block *
make_block (rs_events *events, unsigned n, size_t chunk)
{
  const size_t size = sizeof(rs_job_block) + n * sizeof(rs_job) + chunk;
  rs_job_block *const b = aligned_alloc(ALIGN,
                                        (size + ALIGN - 1) / ALIGN * ALIGN);
  if (b == NULL)
    return NULL;
  rs_list_init(&b->link);
  rs_list_init(&b->some);
  atomic_init(&b->vacant, 0);
  b->n = n;
  for (unsigned i = 0; i < n; i++) {
    atomic_init(&b->jobs[i].refs, 0);
    b->jobs[i].block = b;
  }
  if (events != NULL) {
    rs_list_push(&rs_events_lock(events)->blocks, &b->link);
    rs_events_unlock(events);
  }
  return b;
}

static uint64_t
all_of (const rs_job_block *b)
{
  return UINT64_MAX >> (64 - b->n);
}

static uint64_t
bit_of (const rs_job *job)
{
  return UINT64_C(1) << (job - job->block->jobs);
}

/*
 * Make the job vacant, and free its block if all its jobs are; any thread.  A
 * block is among those that have vacant jobs exactly while it has some.  So
 * the bit that is set first, and the bit that makes all jobs vacant, are set
 * under the lock, where they are cleared, too; most others need no lock.
 */
static void
vacate (rs_events *events, rs_job *job)
{
  rs_job_block *const b = job->block;
  const uint64_t bit = bit_of(job);
  uint64_t was = atomic_load_explicit(&b->vacant, memory_order_relaxed);
  while (was != 0 && (was | bit) != all_of(b))
    if (atomic_compare_exchange_weak_explicit(&b->vacant, &was, was | bit,
                                              memory_order_release,
                                              memory_order_relaxed))
      return;
  rs_job_lists *const lists = events != NULL ? rs_events_lock(events) : NULL;
  was = atomic_fetch_or_explicit(&b->vacant, bit, memory_order_acq_rel);
  const bool over = (was | bit) == all_of(b);
  if (over) {
    rs_list_remove(&b->link);
    rs_list_remove(&b->some);
  }
  else if (was == 0)
    rs_list_push(&lists->vacant, &b->some);
  if (events != NULL)
    rs_events_unlock(events);
  if (over)
    free(b);
}

void
rs_jobs_visit (rs_events *events, void (*f) (rs_job *job, void *ud), void *ud)
{
  const rs_list *const blocks = &rs_events_lock(events)->blocks;
  for (rs_list *link = blocks->next; link != blocks; link = link->next) {
    rs_job_block *const b = RS_LIST_ENTRY(link, rs_job_block, link);
    for (unsigned i = 0; i < b->n; i++)
      f(&b->jobs[i], ud);
  }
  rs_events_unlock(events);
}

/* Free a spare job with its events, which nobody uses any more. */
static void
free_spare (rs_events *events, rs_notice *n)
{
  vacate(events, of_notice(n));
}

/* Take all vacant jobs of a block, or of a new one; '*jobs' has their bits.
   NULL when out of memory. */
static rs_job_block *
take_vacant (rs_events *events, uint64_t *jobs)
{
  rs_job_block *b = NULL;
  rs_job_lists *const lists = rs_events_lock(events);
  rs_list *const link = rs_list_shift(&lists->vacant);
  const unsigned n = lists->next_block != 0 ? lists->next_block : FIRST_BLOCK;
  if (link != NULL) {
    b = RS_LIST_ENTRY(link, rs_job_block, some);
    *jobs = atomic_exchange_explicit(&b->vacant, 0, memory_order_acquire);
  }
  else
    lists->next_block = 2 * n < LARGEST_BLOCK ? 2 * n : LARGEST_BLOCK;
  rs_events_unlock(events);
  if (b == NULL && (b = make_block(events, n, 0)) != NULL)
    *jobs = all_of(b);
  return b;
}

/* Make spare jobs, if there is room for them; the first one in the block is
   put last, and so will be taken first. */
static void
make_spares (rs_events *events)
{
  uint64_t jobs;
  if (!rs_events_reserve_spares(events, LARGEST_BLOCK))
    return;
  rs_job_block *const b = take_vacant(events, &jobs);
  for (unsigned i = b != NULL ? b->n : 0; i-- > 0; )
    if (jobs & UINT64_C(1) << i)
      rs_events_put_spare(events, &b->jobs[i].notice, free_spare);
}

/* Take a spare job; NULL: there is none. */
static rs_job *
get_spare (rs_events *events)
{
  rs_notice *spare = rs_events_get_spare(events);
  if (spare == NULL && rs_events_mine(events)) {
    make_spares(events);
    spare = rs_events_get_spare(events);
  }
  return spare != NULL ? of_notice(spare) : NULL;
}

/* Let the sanitizer find uses of a job that was freed.  The first line may
   still be looked at, since its 'refs' tell that there is no job. */
static void
set_poison (rs_job *job, bool poison)
{
#ifdef __SANITIZE_ADDRESS__
  char *const from = (char *) job + RS_LINE;
  const size_t size = sizeof *job - RS_LINE;
  if (poison)
    ASAN_POISON_MEMORY_REGION(from, size);
  else
    ASAN_UNPOISON_MEMORY_REGION(from, size);
#else
  (void) job;
  (void) poison;
#endif
}

/* Set all of a new job to zero but its references, its block, and the room for
   a message. */
static void
job_clear (rs_job *job, size_t chunk)
{
  char *const at = (char *) job;
  const size_t begin = sizeof job->refs;
  const size_t block = offsetof(rs_job, block);
  const size_t state = offsetof(rs_job, state);
  const size_t room = offsetof(rs_job, call) + offsetof(rs_call, room);
  const size_t behind = room + RS_CALL_ROOM;
  memset(at + begin, 0, block - begin);
  memset(at + state, 0, room - state);
  memset(at + behind, 0, sizeof *job - behind + chunk);
}

/* --------------------------------------------------------------- all of it */

rs_job *
rs_job_alloc (rs_queue *queue, rs_events *events, rs_message *function,
              size_t chunk)
{
  const bool plain = events != NULL && chunk == 0;
  rs_job *job = plain ? get_spare(events) : NULL;
  if (job == NULL) {
    rs_job_block *const b = make_block(events, 1, chunk);
    if (b == NULL)
      return NULL;
    job = b->jobs;
  }
  set_poison(job, false);
  /* References come first, since atomic operations wait for what was written
     before. */
  rs_message_ref(function);
  queue->hold(queue);
  rs_events_ref(events);
  job_clear(job, chunk);
  job->queue = queue;
  job->events = events;
  job->call.function = function;
  if (chunk > 0)
    job->call.chunk = (rs_chunk *) (job + 1);
  return job;
}

void
rs_job_dealloc (rs_job *job)
{
  rs_queue *const queue = job->queue;
  rs_events *const events = job->events;
  rs_message *const function = job->call.function;
  const bool plain = events != NULL && job->call.chunk == NULL;
  /* A thread that visits the jobs of the events still looks at 'refs'. */
  atomic_store_explicit(&job->refs, 0, memory_order_relaxed);
  set_poison(job, true);
  if (!plain || !rs_events_put_spare(events, &job->notice, free_spare))
    vacate(events, job);
  rs_message_unref(function);
  queue->drop(queue);
  rs_events_unref(events);
}
