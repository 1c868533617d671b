/* SPDX-License-Identifier: MIT */
/*
 * job_memory.c - the memory of jobs.
 *
 * A host has many jobs, one after the other, or all at once, and any thread
 * may free them.  Their memory is kept with the events that they report to: a
 * job that was freed is vacant, and the next job takes the place of the one
 * that was freed last.  If none is vacant, a block of several jobs is made.  A
 * block goes back to the C library when all its jobs are vacant, unless few
 * others are.  To ask the C library for each job takes 0.3 us where thousands
 * are in flight, a third of what a job costs.
 *
 * The blocks also are the list of the live jobs: 'rs_jobs_visit'.
 *
 * A chunk has a block of its own, and so has a job without events.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

enum { ALIGN = _Alignof(rs_job) };

enum { BLOCK = 16 };  /* jobs in a block; and vacant jobs that are kept at
                         least, once there are so many */

struct rs_job_block {
  _Alignas(rs_job) rs_list link;  /* in 'blocks' of its events */
  unsigned n;                     /* jobs in the block; constant */
  unsigned used;                  /* jobs that are not vacant; guarded by the
                                     lock of the memory */
  rs_job jobs[];
};

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

/* New block of 'n' jobs, of which the first is in use, with 'chunk' bytes
   behind them; 'memory' may be NULL.  NULL when out of memory. */
static rs_job_block *
make_block (rs_job_memory *memory, unsigned n, size_t chunk)
{
  const size_t size = sizeof(rs_job_block) + n * sizeof(rs_job) + chunk;
  rs_job_block *const b = aligned_alloc(ALIGN,
                                        (size + ALIGN - 1) / ALIGN * ALIGN);
  if (b == NULL)
    return NULL;
  rs_list_init(&b->link);
  b->n = n;
  b->used = 1;
  for (unsigned i = 0; i < n; i++) {
    atomic_init(&b->jobs[i].refs, 0);
    b->jobs[i].block = b;
  }
  if (memory == NULL)
    return b;
  pthread_mutex_lock(&memory->lock);
  rs_list_push(&memory->blocks, &b->link);
  for (unsigned i = 1; i < n; i++) {
    rs_list_push(&memory->vacant, &b->jobs[i].link);
    set_poison(&b->jobs[i], true);
  }
  memory->n_vacant += n - 1;
  pthread_mutex_unlock(&memory->lock);
  return b;
}

/* Take a vacant job; NULL: there is none. */
static rs_job *
take_vacant (rs_job_memory *memory)
{
  rs_job *job = NULL;
  pthread_mutex_lock(&memory->lock);
  rs_list *const link = rs_list_shift(&memory->vacant);
  if (link != NULL) {
    job = RS_LIST_ENTRY(link, rs_job, link);
    job->block->used++;
    memory->n_vacant--;
  }
  pthread_mutex_unlock(&memory->lock);
  return job;
}

/* Make the job vacant.  True when its block, which is in no list any more, is
   to be freed. */
static bool
vacate_locked (rs_job_memory *memory, rs_job *job)
{
  rs_job_block *const b = job->block;
  rs_list_push_front(&memory->vacant, &job->link);
  memory->n_vacant++;
  b->used--;
  if (b->used > 0 || (b->n == BLOCK && memory->n_vacant < 2 * BLOCK))
    return false;
  rs_list_remove(&b->link);
  for (unsigned i = 0; i < b->n; i++)
    rs_list_remove(&b->jobs[i].link);
  memory->n_vacant -= b->n;
  return true;
}

/* Give back the memory of a job; 'memory' is NULL for a job without events.
   Any thread. */
static void
vacate (rs_job_memory *memory, rs_job *job)
{
  rs_job_block *const b = job->block;
  bool over = true;
  if (memory != NULL) {
    pthread_mutex_lock(&memory->lock);
    over = vacate_locked(memory, job);
    pthread_mutex_unlock(&memory->lock);
  }
  if (over)
    free(b);
}

void
rs_jobs_visit (rs_events *events, void (*f) (rs_job *job, void *ud), void *ud)
{
  rs_job_memory *const memory = rs_events_memory(events);
  const rs_list *const blocks = &memory->blocks;
  pthread_mutex_lock(&memory->lock);
  for (rs_list *link = blocks->next; link != blocks; link = link->next) {
    rs_job_block *const b = RS_LIST_ENTRY(link, rs_job_block, link);
    for (unsigned i = 0; i < b->n; i++)
      f(&b->jobs[i], ud);
  }
  pthread_mutex_unlock(&memory->lock);
}

/* -------------------------------------------------------------------- jobs */

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

rs_job *
rs_job_alloc (rs_queue *queue, rs_events *events, rs_message *function,
              size_t chunk)
{
  rs_job_memory *const memory = events != NULL ? rs_events_memory(events)
                                               : NULL;
  const bool plain = memory != NULL && chunk == 0;
  rs_job *job = plain ? take_vacant(memory) : NULL;
  if (job == NULL) {
    rs_job_block *const b = make_block(memory, plain ? BLOCK : 1, chunk);
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
  /* A thread that visits the jobs of the events still looks at 'refs'. */
  atomic_store_explicit(&job->refs, 0, memory_order_relaxed);
  set_poison(job, true);
  vacate(events != NULL ? rs_events_memory(events) : NULL, job);
  rs_message_unref(function);
  queue->drop(queue);
  rs_events_unref(events);
}
