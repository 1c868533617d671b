/* SPDX-License-Identifier: MIT */
/*
 * job_memory.c - what a job is made of: memory, and references.
 *
 * A job is 512 bytes, in lines of the cache that two CPUs write to, and most
 * hosts have many of them, one after the other, or all at once.  So a host's
 * own thread takes the one that it freed last; if there is none, it makes a
 * block of some at once.  To ask the C library for each took 0.3 us where
 * thousands are in flight, a third of what a job cost.  A block is freed when
 * all its jobs are vacant, and those are used before there is another block.
 *
 * Chunks, and jobs that other threads submit, have memory of their own.
 */
#include "job.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = _Alignof(rs_job) };

/* Jobs in a block: twice as many as in the last one. */
enum { FIRST_BLOCK = 4, LARGEST_BLOCK = 64 };

struct rs_job_block {
  _Alignas(rs_job) rs_list link;  /* in the blocks of its events while some are
                                     vacant; guarded by their lock, as the
                                     next two */
  rs_list vacant;                 /* notices of jobs that are neither in use
                                     nor spare */
  unsigned n_vacant;
  unsigned n;                     /* constant */
  rs_job jobs[];
};

static rs_job *
of_notice (rs_notice *n)
{
  return RS_LIST_ENTRY(n, rs_job, notice);
}

/* What a job has for ever.  It is not seen before it has a reference. */
static void
job_init (rs_job *job, rs_job_block *block)
{
  atomic_init(&job->refs, 0);
  rs_mutex_init(&job->lock);
  rs_cond_init(&job->changed);
  rs_list_init(&job->notice.live);
  job->block = block;
}

static void
job_fini (rs_job *job)
{
  pthread_mutex_destroy(&job->lock);
  pthread_cond_destroy(&job->changed);
}

/* One with memory of its own; NULL when out of memory. */
static rs_job *
make_job (rs_events *events, size_t chunk)
{
  rs_job *const job =
    aligned_alloc(ALIGN, (sizeof *job + chunk + ALIGN - 1) / ALIGN * ALIGN);
  if (job == NULL)
    return NULL;
  job_init(job, NULL);
  if (events != NULL) {
    rs_list_push(&rs_events_lock(events)->live, &job->notice.live);
    rs_events_unlock(events);
  }
  return job;
}

/* ------------------------------------------------------------------ blocks */

static rs_job_block *
make_block (unsigned n)
{
  const size_t size = sizeof(rs_job_block) + n * sizeof(rs_job);
  rs_job_block *const b = aligned_alloc(ALIGN, size);
  if (b == NULL)
    return NULL;
  rs_list_init(&b->link);
  rs_list_init(&b->vacant);
  b->n_vacant = b->n = n;
  for (unsigned i = 0; i < n; i++) {
    job_init(&b->jobs[i], b);
    rs_list_push(&b->vacant, &b->jobs[i].notice.queued);
  }
  return b;
}

static void
free_block (rs_job_block *b)
{
  for (unsigned i = 0; i < b->n; i++)
    job_fini(&b->jobs[i]);
  free(b);
}

/* The job is vacant.  Its block, if that is not needed any more; or NULL. */
static rs_job_block *
vacate_locked (rs_job_lists *lists, rs_job *job)
{
  rs_job_block *const b = job->block;
  rs_list_remove(&job->notice.live);
  rs_list_push(&b->vacant, &job->notice.queued);
  if (b->n_vacant++ == 0)
    rs_list_push(&lists->blocks, &b->link);
  if (b->n_vacant < b->n)
    return NULL;
  rs_list_remove(&b->link);
  return b;
}

/* rs_events: a spare job goes with its events, which nobody uses any more. */
static void
free_spare (rs_job_lists *lists, rs_notice *n)
{
  rs_job *const job = of_notice(n);
  rs_job_block *const b = job->block;
  if (b == NULL) {
    job_fini(job);
    free(job);
  }
  else if (vacate_locked(lists, job) != NULL)
    free_block(b);
}

/* All that is vacant in a block becomes spare, if there is room for that. */
static void
make_spares (rs_events *events)
{
  rs_job_lists *lists = rs_events_lock(events);
  const bool some = !rs_list_empty(&lists->blocks);
  unsigned n = lists->next_block != 0 ? lists->next_block : FIRST_BLOCK;
  rs_events_unlock(events);
  if (!rs_events_reserve_spares(events, LARGEST_BLOCK))
    return;
  rs_job_block *b = some ? NULL : make_block(n);
  if (!some && b == NULL)
    return;
  lists = rs_events_lock(events);
  if (b != NULL)
    lists->next_block = 2 * n < LARGEST_BLOCK ? 2 * n : LARGEST_BLOCK;
  else if (!rs_list_empty(&lists->blocks)) {
    b = RS_LIST_ENTRY(lists->blocks.next, rs_job_block, link);
    rs_list_remove(&b->link);
  }
  rs_list *link;
  while (b != NULL && (link = rs_list_shift(&b->vacant)) != NULL) {
    rs_notice *const notice = RS_LIST_ENTRY(link, rs_notice, queued);
    rs_list_push(&lists->live, &notice->live);
    rs_events_put_spare(events, notice, free_spare);
    b->n_vacant--;
  }
  rs_events_unlock(events);
}

static void
prefetch_spare (rs_events *events)
{
  rs_notice *const next = rs_events_expect_spare(events);
  if (next != NULL)
    rs_prefetch_all(of_notice(next), sizeof *of_notice(next));
}

/* A spare job, or NULL. */
static rs_job *
get_spare (rs_events *events)
{
  rs_notice *spare = rs_events_get_spare(events);
  if (spare == NULL && rs_events_mine(events)) {
    make_spares(events);
    spare = rs_events_get_spare(events);
  }
  prefetch_spare(events);
  return spare != NULL ? of_notice(spare) : NULL;
}

/* Set all but these to zero, and but the room for a message. */
static void
job_clear (rs_job *job, size_t chunk)
{
  char *const at = (char *) job;
  const size_t priority = offsetof(rs_job, priority);
  const size_t room = offsetof(rs_job, call) + offsetof(rs_call, room);
  const size_t behind = room + RS_CALL_ROOM;
  const size_t lock = offsetof(rs_job, lock);
  const size_t waiters = offsetof(rs_job, waiters);
  const size_t changed = offsetof(rs_job, changed);
  const size_t seen = offsetof(rs_job, seen);
  const size_t live = offsetof(rs_job, notice) + offsetof(rs_notice, live);
  const size_t block = offsetof(rs_job, block);
  memset(at + priority, 0, room - priority);
  memset(at + behind, 0, lock - behind);
  memset(at + waiters, 0, changed - waiters);
  memset(at + seen, 0, live - seen);
  memset(at + live + sizeof(rs_list), 0,
         block - live - sizeof(rs_list));
  memset(job + 1, 0, chunk);
}

/* ------------------------------------------- what it has references to */

static void
take_queue (void *q, unsigned n)
{
  ((rs_queue *) q)->hold(q, n);
}

static void
give_queue (void *q, unsigned n)
{
  ((rs_queue *) q)->drop(q, n);
}

static void
take_message (void *msg, unsigned n)
{
  rs_message_take(msg, n);
}

static void
give_message (void *msg, unsigned n)
{
  rs_message_give(msg, n);
}

static const rs_purse_kind queue_kind = { take_queue, give_queue };
static const rs_purse_kind message_kind = { take_message, give_message };

/* Those of a new job; 'purses' may be NULL.  A function that is sent once is
   not worth one. */
static void
take_references (rs_purses *purses, rs_queue *queue, rs_events *events,
                 rs_message *function)
{
  if (purses != NULL) {
    rs_purse_take(&purses->events, &rs_events_kind, events);
    rs_purse_take(&purses->queue, &queue_kind, queue);
  }
  else {
    rs_events_ref(events);
    queue->hold(queue, 1);
  }
  if (purses != NULL && function->constant)
    rs_purse_take(&purses->function, &message_kind, function);
  else
    rs_message_ref(function);
}

/* Those of a job that was freed. */
static void
give_references (rs_purses *purses, rs_queue *queue, rs_events *events,
                 rs_message *function)
{
  if (purses != NULL && function->constant)
    rs_purse_give(&purses->function, &message_kind, function);
  else
    rs_message_unref(function);
  if (purses != NULL) {
    rs_purse_give(&purses->queue, &queue_kind, queue);
    rs_purse_give(&purses->events, &rs_events_kind, events);
  }
  else {
    queue->drop(queue, 1);
    if (events != NULL)
      rs_events_kind.give(events, 1);
  }
}

/* --------------------------------------------------------------- all of it */

rs_job *
rs_job_alloc (rs_queue *queue, rs_events *events, rs_message *function,
              size_t chunk)
{
  const bool plain = events != NULL && chunk == 0;
  rs_job *job = plain ? get_spare(events) : NULL;
  if (job == NULL)
    job = make_job(events, chunk);
  if (job == NULL)
    return NULL;
  /* Before the rest, since atomic operations wait for what was written. */
  take_references(plain ? rs_events_open_purses(events) : NULL, queue, events,
                  function);
  job_clear(job, chunk);
  job->queue = queue;
  job->events = events;
  job->call.function = function;
  if (chunk > 0)
    job->call.chunk = (rs_chunk *) (job + 1);
  return job;
}

/* It is not to be spare. */
static void
free_job (rs_job *job, rs_events *events)
{
  rs_job_block *b = job->block;
  if (b != NULL) {
    b = vacate_locked(rs_events_lock(events), job);
    rs_events_unlock(events);
    if (b != NULL)
      free_block(b);
    return;
  }
  if (events != NULL) {
    rs_events_lock(events);
    rs_list_remove(&job->notice.live);
    rs_events_unlock(events);
  }
  job_fini(job);
  free(job);
}

void
rs_job_dealloc (rs_job *job)
{
  rs_queue *const queue = job->queue;
  rs_events *const events = job->events;
  rs_message *const function = job->call.function;
  const bool plain = events != NULL && job->call.chunk == NULL;
  /* Whether it has references is still looked at by who visits its events. */
  atomic_store_explicit(&job->refs, 0, memory_order_relaxed);
  if (plain && rs_events_put_spare(events, &job->notice, free_spare))
    prefetch_spare(events);
  else
    free_job(job, events);
  give_references(plain ? rs_events_purses(events) : NULL, queue, events,
                  function);
}
