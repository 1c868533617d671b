/* SPDX-License-Identifier: MIT */
/*
 * job_memory.c - the memory of jobs.
 *
 * A host has many jobs, one after the other, or all at once, and any thread
 * may free them.  The memory of jobs is kept with the events that they report
 * to: a job that was freed is vacant, and a new job takes the place that its
 * thread's list got last.  If none is vacant, a block of several jobs is made.
 * A block goes back to the C library when all its jobs are vacant in one list,
 * unless few others are.  To ask the C library for each job takes 0.3 us where
 * thousands are in flight, a third of what a job costs.
 *
 * Most jobs are made and freed by the host's own thread, which keeps vacant
 * jobs for itself, without a lock: with one list for all threads a job takes
 * 0.1 us more.
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

enum { BLOCK = 16 };     /* jobs in a block */
enum { FEW = 4 * BLOCK };  /* vacant jobs that are always kept */

struct rs_job_block {
  _Alignas(rs_job) rs_list link;  /* in 'blocks' of its events */
  unsigned n;                     /* jobs in the block; constant */
  unsigned vacant;                /* of these, for 'trim_locked' only */
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

/* New block of 'n' jobs, with 'chunk' bytes behind them; 'memory' may be NULL.
   NULL when out of memory. */
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
  for (unsigned i = 0; i < n; i++) {
    atomic_init(&b->jobs[i].refs, 0);
    b->jobs[i].block = b;
  }
  if (memory != NULL) {
    pthread_mutex_lock(&memory->lock);
    rs_list_push(&memory->blocks, &b->link);
    pthread_mutex_unlock(&memory->lock);
  }
  return b;
}

/* Free the block of a job that has one of its own. */
static void
drop_block (rs_job_memory *memory, rs_job_block *b)
{
  if (memory != NULL) {
    pthread_mutex_lock(&memory->lock);
    rs_list_remove(&b->link);
    pthread_mutex_unlock(&memory->lock);
  }
  free(b);
}

/* ------------------------------------------------------------- vacant jobs */

static rs_job *
job_at (rs_list *link)
{
  return RS_LIST_ENTRY(link, rs_job, link);
}

static void
put (rs_vacant_jobs *vacant, rs_job *job)
{
  job->link.next = vacant->first;
  vacant->first = &job->link;
  vacant->n++;
}

/* Take the job that was put last; NULL: there is none. */
static rs_job *
get (rs_vacant_jobs *vacant)
{
  rs_list *const link = vacant->first;
  if (link == NULL)
    return NULL;
  vacant->first = link->next;
  vacant->n--;
  return job_at(link);
}

/* Free the blocks all of whose jobs are in 'vacant', but keep a few jobs. */
static void
trim_locked (rs_vacant_jobs *vacant)
{
  rs_list *gone = NULL, *link = vacant->first;
  for (; link != NULL; link = link->next)
    job_at(link)->block->vacant = 0;
  for (link = vacant->first; link != NULL; link = link->next)
    job_at(link)->block->vacant++;
  link = vacant->first;
  vacant->first = NULL;
  vacant->n = 0;
  while (link != NULL) {
    rs_list *const next = link->next;
    rs_job_block *const b = job_at(link)->block;
    if (b->vacant < b->n || vacant->n < FEW / 2) {
      b->vacant = 0;  /* its other jobs stay, too */
      put(vacant, job_at(link));
    }
    else if (job_at(link) == b->jobs) {
      rs_list_remove(&b->link);
      b->link.next = gone;
      gone = &b->link;
    }
    link = next;
  }
  while (gone != NULL) {
    rs_job_block *const b = RS_LIST_ENTRY(gone, rs_job_block, link);
    gone = gone->next;
    free(b);
  }
  vacant->most = 2 * vacant->n > FEW ? 2 * vacant->n : FEW;
}

/* Make a job vacant. */
static void
vacate (rs_events *events, rs_job *job)
{
  rs_job_memory *const memory = rs_events_memory(events);
  const bool mine = rs_events_mine(events);
  rs_vacant_jobs *const vacant = mine ? &memory->own : &memory->others;
  const bool trim = mine && vacant->n >= vacant->most;
  if (!mine || trim)
    pthread_mutex_lock(&memory->lock);
  put(vacant, job);
  if (trim || (!mine && vacant->n > vacant->most))
    trim_locked(vacant);
  if (!mine || trim)
    pthread_mutex_unlock(&memory->lock);
}

/* Take a vacant job, or one of a new block.  NULL when out of memory. */
static rs_job *
occupy (rs_events *events)
{
  rs_job_memory *const memory = rs_events_memory(events);
  const bool mine = rs_events_mine(events);
  rs_job *job = mine ? get(&memory->own) : NULL;
  if (job != NULL)
    return job;
  pthread_mutex_lock(&memory->lock);
  job = get(&memory->others);
  if (mine && job != NULL) {  /* take all of them over */
    memory->own = memory->others;
    memory->others = (rs_vacant_jobs) { .first = NULL };
  }
  pthread_mutex_unlock(&memory->lock);
  if (job != NULL)
    return job;
  rs_job_block *const b = make_block(memory, BLOCK, 0);
  if (b == NULL)
    return NULL;
  if (!mine)
    pthread_mutex_lock(&memory->lock);
  for (unsigned i = BLOCK - 1; i > 0; i--) {
    put(mine ? &memory->own : &memory->others, &b->jobs[i]);
    set_poison(&b->jobs[i], true);
  }
  if (!mine)
    pthread_mutex_unlock(&memory->lock);
  return b->jobs;
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
  rs_job *job;
  if (events != NULL && chunk == 0)
    job = occupy(events);
  else {
    rs_job_block *const b = make_block(events != NULL
                                       ? rs_events_memory(events) : NULL,
                                       1, chunk);
    job = b != NULL ? b->jobs : NULL;
  }
  if (job == NULL)
    return NULL;
  set_poison(job, false);
  /* References come first, since atomic operations wait for what was written
     before. */
  rs_message_ref(function);
  queue->hold(queue);
  rs_events_hold(events);
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
  if (job->block->n > 1)
    vacate(events, job);
  else
    drop_block(events != NULL ? rs_events_memory(events) : NULL, job->block);
  rs_message_unref(function);
  queue->drop(queue);
  rs_events_drop(events);
}
