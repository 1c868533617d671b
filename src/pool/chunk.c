/* SPDX-License-Identifier: MIT */
/*
 * chunk.c - some items of a batch, which one job runs.
 *
 * The thread that ends the job of a chunk, most often its worker, counts what
 * became of the items, and appends the chunk to those that the opener of the
 * batch takes.
 *
 * A worker ends its chunk when BUDGET seconds are spent, since later items may
 * cost more than the estimate.  The results of that chunk are ready to be
 * taken; the rest of its items, in the message where they are, become another
 * chunk.  So do the items behind one with which a worker was lost.
 */
#include "pool/batch.h"

#include <stdatomic.h>

#define BUDGET 4e-3     /* seconds before a chunk is cut */

/* ---------------------------------------------------------------- queueing */

rs_job *
rs_chunk_new (rs_batch *batch, rs_message *items, double created)
{
  const rs_job_part p = {
    .batch = batch,
    .size = sizeof(rs_batch_part),
    .id = batch->id,
    .flags = batch->flags | (batch->shared ? 0 : RS_JOB_DEAF),
    .created = created,
  };
  rs_job *const job = rs_job_new(batch->queue, batch->function,
                                 &batch->options, &p);
  if (job == NULL)
    return NULL;
  atomic_fetch_add_explicit(&batch->refs, 1, memory_order_relaxed);
  rs_list_init(&rs_batch_part_of(job)->link);
  rs_chunk *const chunk = job->call.chunk;
  job->call.arguments = rs_message_ref(items);
  atomic_init(&job->call.depth, (uint16_t) batch->depth);
  chunk->stop = &batch->stop;
  if (batch->limited) {
    chunk->failed = &batch->failed;
    chunk->allowed = &batch->allowed;
  }
  if (batch->chunk == 0)
    chunk->budget = BUDGET;
  return job;
}

/* Count a chunk that is about to be queued, and take the count back when it
   could not be queued. */
static void
fly (rs_batch *batch, rs_job *job)
{
  pthread_mutex_lock(&batch->lock);
  batch->in_flight++;
  rs_list_push(&batch->flying, &rs_batch_part_of(job)->link);
  pthread_mutex_unlock(&batch->lock);
}

static void
land (rs_batch *batch, rs_job *job)
{
  pthread_mutex_lock(&batch->lock);
  batch->in_flight--;
  rs_list_remove(&rs_batch_part_of(job)->link);
  pthread_mutex_unlock(&batch->lock);
}

int
rs_chunk_push (rs_batch *batch, rs_job *job, rs_error *err)
{
  fly(batch, job);
  const int status = batch->queue->push(batch->queue, job, err);
  if (status != RS_OK) {
    land(batch, job);
    rs_job_unref(job);  /* the reference of the queue */
  }
  rs_job_unref(job);
  return status;
}

/* ------------------------------------------------------ the end of a chunk */

/*
 * Make another chunk of the items from 'rest' on, which were not started, and
 * queue it like any other; 'attempt' is that of its first item.  Where that
 * fails (no memory, no worker) the items stay with the old chunk as items that
 * fail, for that reason; in a pool that is closed, as items that were not
 * started.  Returns how many items fail.
 */
static size_t
go_on (rs_batch *batch, rs_job *job, rs_place rest, unsigned attempt)
{
  /* The chunk may be lost: only what is constant in it may be read. */
  const rs_chunk *const old = job->call.chunk;
  const size_t left = old->count - rest.item;
  int status = RS_ENOMEM;
  rs_job *const next = rs_chunk_new(batch, job->call.arguments, job->created);
  if (next != NULL) {
    rs_chunk *const chunk = next->call.chunk;
    next->call.attempt = attempt;
    rs_batch_part_of(next)->items = chunk->count = left;
    chunk->arity = old->arity;
    chunk->index = old->index + (lua_Integer) rest.item;
    chunk->first = old->first + (lua_Integer) rest.item * old->step;
    chunk->step = old->step;
    chunk->from = rest;
    chunk->from.item = 0;
    chunk->losses = old->losses;
    status = rs_chunk_push(batch, next, NULL);
  }
  if (status == RS_OK)
    rs_batch_part_of(job)->items = rest.item;
  if (status == RS_OK || status == RS_ECLOSED)
    return 0;
  rs_batch_part_of(job)->left = left;
  rs_batch_part_of(job)->why = status;
  return left;
}

void
rs_batch_count_failure (rs_batch *batch)
{
  if (batch->limited && (atomic_load(&batch->allowed) == 0
                         || atomic_fetch_sub(&batch->allowed, 1) <= 1))
    atomic_store_explicit(&batch->failed, true, memory_order_relaxed);
}

/* The items of a chunk that has ended, for the counts of the batch. */
typedef struct tally {
  size_t started, failed;
  double took;
} tally;

/* Count what became of the items of a chunk that ran, and queue the rest of
   them. */
static tally
tally_run (rs_batch *batch, rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  tally t = { .took = chunk->took };
  for (int i = RS_JOB_COMPLETED; i <= RS_JOB_LOST; i++)
    t.started += chunk->ended[i];
  t.failed = t.started - chunk->ended[RS_JOB_COMPLETED]
           - chunk->ended[RS_JOB_COMPLETED_WITH_ERRORS];
  if (rs_job_state_now(job) == RS_JOB_COMPLETED
      && chunk->rest.item < chunk->count && !rs_batch_stopped(batch)) {
    const size_t left = go_on(batch, job, chunk->rest, job->call.attempt);
    t.started += left;
    t.failed += left;
    if (left > 0)
      rs_batch_count_failure(batch);
  }
  return t;
}

/* The place behind the first item of a chunk; 'item' is 0 where it is not
   found. */
static rs_place
behind_first (const rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  const rs_message *const items = job->call.arguments;
  rs_place p = { .item = 1 };
  if (items == NULL)  /* a range? */
    return p;
  rs_decoder d = { .data = items->data, .size = items->size,
                   .flags = items->data[RS_WIRE_AT_FLAGS],
                   .at = RS_WIRE_HEADER };
  if (chunk->from.in.at != 0)
    rs_decoder_seek(&d, &chunk->from.in);
  for (unsigned i = 0; i < chunk->arity; i++)
    if (!rs_decoder_skip(&d))
      return (rs_place) { .item = 0 };
  p.in = rs_decoder_tell(&d);
  return p;
}

/* Count a lost chunk: its items up to the one that ran are lost, and the rest
   are queued again.  Where the chunk does not tell which one ran, all its
   items are lost, but for one that was lost before: then the first one has run
   alone. */
static tally
tally_lost (rs_batch *batch, rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  const rs_batch_part *const p = rs_batch_part_of(job);
  size_t begun[5];
  for (int i = 0; i < 5; i++)
    begun[i] = atomic_load_explicit(&chunk->begun[i], memory_order_relaxed);
  rs_place rest = {
    .item = begun[0],
    .in = { .at = begun[1], .next_id = (unsigned) begun[2],
            .run = (unsigned) begun[3], .left = begun[4] },
  };
  if (chunk->losses > 0)
    rest = behind_first(job);
  rs_batch_count_failure(batch);
  if (rest.item > 0 && rest.item < chunk->count && !rs_batch_stopped(batch))
    go_on(batch, job, rest, chunk->losses + 1);
  batch->queue->ended(batch->queue, RS_JOB_LOST, p->items);
  return (tally) { .started = p->items, .failed = p->items };
}

/* True when the opener shall hear that a chunk has ended. */
static bool
matters_locked (const rs_batch *batch)
{
  const size_t left = batch->in_flight - batch->n_ended;
  return batch->flags & RS_BATCH_EAGER || batch->items_failed > 0
      || batch->window < 4 || left <= batch->window / 2;
}

void
rs_chunk_end (rs_job *job)
{
  rs_batch *const batch = job->batch;
  const tally t = rs_job_state_now(job) == RS_JOB_LOST ? tally_lost(batch, job)
                                            : tally_run(batch, job);
  pthread_mutex_lock(&batch->lock);
  batch->items_ended += t.started;
  batch->items_failed += t.failed;
  if (t.started > 0 && t.took > 0) {
    const double cost = t.took / (double) t.started;
    batch->cost = batch->cost < 0 ? cost : 0.5 * (batch->cost + cost);
  }
  rs_list_remove(&rs_batch_part_of(job)->link);
  if (!batch->closed) {
    rs_job_ref(job);
    rs_list_push(&batch->ended, &rs_batch_part_of(job)->link);
    batch->n_ended++;
  }
  const bool wake = matters_locked(batch);
  pthread_mutex_unlock(&batch->lock);
  if (wake)
    rs_events_wake(batch->events);
}
