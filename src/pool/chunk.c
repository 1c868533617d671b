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

#include "base/clock.h"
#include "pool/delay.h"

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
fly (rs_batch *batch, rs_job *job, bool waits)
{
  pthread_mutex_lock(&batch->lock);
  batch->in_flight++;
  rs_list_push(&batch->flying, &rs_batch_part_of(job)->link);
  if (batch->gate != NULL)
    rs_gate_enter_locked(batch, rs_batch_part_of(job), waits);
  pthread_mutex_unlock(&batch->lock);
}

static void
land (rs_batch *batch, rs_job *job)
{
  pthread_mutex_lock(&batch->lock);
  batch->in_flight--;
  rs_list_remove(&rs_batch_part_of(job)->link);
  if (batch->gate != NULL)
    rs_gate_leave_locked(batch, rs_batch_part_of(job));
  pthread_mutex_unlock(&batch->lock);
}

int
rs_chunk_push (rs_batch *batch, rs_job *job, double pause, rs_error *err)
{
  rs_queue *const q = batch->queue;
  const bool waits = batch->gate != NULL
                  && (pause > 0 || rs_gate_is_narrow(batch->gate));
  if (pause > 0)
    rs_delay_prepare(job);
  fly(batch, job, waits);
  const int status = waits ? q->delay(q, job, err) : q->push(q, job, err);
  if (status == RS_OK && pause > 0)
    rs_delay_until(job, rs_now() + pause, false);
  else if (status == RS_OK && waits)
    rs_gate_due(job);
  if (status != RS_OK) {
    land(batch, job);
    rs_job_unref(job);  /* the reference of the queue */
  }
  rs_job_unref(job);
  return status;
}

/* ------------------------------------------------------ the end of a chunk */

/*
 * Make another chunk of 'count' items from 'rest' on, which were not started,
 * and queue it like any other, after 'pause' seconds; 'attempt' is that of its
 * first item.  RS_OK; RS_ENOMEM, or a status of the queue.
 */
static int
go_on (rs_batch *batch, rs_job *job, rs_place rest, size_t count,
       unsigned attempt, double pause)
{
  /* The chunk may be lost: only what is constant in it may be read. */
  const rs_chunk *const old = job->call.chunk;
  rs_job *const next = rs_chunk_new(batch, job->call.arguments, job->created);
  if (next == NULL)
    return RS_ENOMEM;
  rs_chunk *const chunk = next->call.chunk;
  next->call.attempt = attempt;
  rs_batch_part_of(next)->items = chunk->count = count;
  rs_batch_part_of(next)->gate.key = rs_batch_part_of(job)->gate.key;
  chunk->arity = old->arity;
  chunk->index = old->index + (lua_Integer) rest.item;
  chunk->first = old->first + (lua_Integer) rest.item * old->step;
  chunk->step = old->step;
  chunk->from = rest;
  chunk->from.item = 0;
  chunk->losses = old->losses;
  return rs_chunk_push(batch, next, pause, NULL);
}

/*
 * Let the items that the chunk has left from 'item' on be those of others.
 * Where these could not be queued, by 'status' (no memory, no worker), the
 * items stay with the old chunk as items that fail, for that reason; in a pool
 * that is closed, as items that were not started.  Returns how many items
 * fail.
 */
static size_t
hand_on (rs_job *job, size_t item, int status)
{
  rs_batch_part *const part = rs_batch_part_of(job);
  if (status == RS_OK)
    part->items = item;
  if (status == RS_OK || status == RS_ECLOSED)
    return 0;
  part->left = part->items - item;
  part->why = status;
  return part->left;
}

void
rs_batch_count_failure (rs_batch *batch)
{
  if (batch->limited && (atomic_load(&batch->allowed) == 0
                         || atomic_fetch_sub(&batch->allowed, 1) <= 1))
    atomic_store_explicit(&batch->failed, true, memory_order_relaxed);
}

/* The place behind the item at 'rest' of a chunk; 'item' is 0 where it is not
   found. */
static rs_place
behind (const rs_job *job, rs_place rest)
{
  const rs_chunk *const chunk = job->call.chunk;
  const rs_message *const items = job->call.arguments;
  rs_place p = { .item = rest.item + 1 };
  if (items == NULL)  /* a range? */
    return p;
  rs_decoder d = { .data = items->data, .size = items->size,
                   .flags = items->data[RS_WIRE_AT_FLAGS],
                   .at = RS_WIRE_HEADER };
  if (rest.in.at != 0)
    rs_decoder_seek(&d, &rest.in);
  for (unsigned i = 0; i < chunk->arity; i++)
    if (!rs_decoder_skip(&d))
      return (rs_place) { .item = 0 };
  p.in = rs_decoder_tell(&d);
  return p;
}

/* True when the first item that the chunk has left has failed, and waits for
   its next attempt: no other one has been started before. */
static bool
waits (const rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  return (job->call.flags & RS_CALL_PACED) != 0
      && (chunk->rest.item == 0 || job->call.attempt > chunk->losses + 1);
}

/* Queue the items that the chunk has left: the first one, which has failed, by
   itself after its pause, and those behind it at once.  Returns how many items
   fail. */
static size_t
split (rs_batch *batch, rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  const rs_place rest = chunk->rest;
  const unsigned attempt = job->call.attempt;
  const double pause = rs_pause_after(&batch->hooks.pause, attempt - 1);
  size_t others = chunk->count - rest.item - 1;
  if (others > 0) {
    const rs_place next = behind(job, rest);
    const int status = next.item == 0 ? RS_EREFUSED
      : go_on(batch, job, next, others, chunk->losses + 1, 0);
    if (status != RS_OK)
      return hand_on(job, rest.item, status);
    hand_on(job, next.item, RS_OK);
  }
  return hand_on(job, rest.item,
                 go_on(batch, job, rest, 1, attempt, pause));
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
    const size_t left = waits(job) ? split(batch, job)
      : hand_on(job, chunk->rest.item,
                go_on(batch, job, chunk->rest, chunk->count - chunk->rest.item,
                      job->call.attempt, 0));
    t.started += left;
    t.failed += left;
    if (left > 0)
      rs_batch_count_failure(batch);
  }
  return t;
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
    rest = behind(job, (rs_place) { .in = chunk->from.in });
  rs_batch_count_failure(batch);
  if (rest.item > 0 && rest.item < chunk->count && !rs_batch_stopped(batch))
    hand_on(job, rest.item, go_on(batch, job, rest, chunk->count - rest.item,
                                  chunk->losses + 1, 0));
  batch->queue->ended(batch->queue, RS_JOB_LOST, p->items);
  return (tally) { .started = p->items, .failed = p->items };
}

/* True when the opener shall hear that a chunk has ended. */
static bool
matters_locked (const rs_batch *batch)
{
  const size_t waiting = batch->gate != NULL ? batch->gate->held : 0;
  const size_t left = batch->in_flight - batch->n_ended - waiting;
  return batch->flags & RS_BATCH_EAGER || batch->items_failed > 0
      || batch->window < 4 || left <= batch->window / 2;
}

/* True when the first failure has stopped the batch, and nothing has stopped
   what runs. */
static bool
has_failed (const rs_batch *batch)
{
  return atomic_load_explicit(&batch->failed, memory_order_relaxed)
      && atomic_load_explicit(&batch->reason, memory_order_relaxed)
         == RS_REASON_NONE;
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
  rs_batch_part *const part = rs_batch_part_of(job);
  rs_list_remove(&part->link);
  if (batch->gate != NULL)
    rs_gate_leave_locked(batch, part);
  const bool empty = part->items == 0;  /* has its only item to wait? */
  if (empty)
    batch->in_flight--;
  else if (!batch->closed) {
    rs_job_ref(job);
    rs_list_push(&batch->ended, &part->link);
    batch->n_ended++;
  }
  const bool wake = empty || matters_locked(batch);
  pthread_mutex_unlock(&batch->lock);
  if (batch->gate != NULL)
    rs_gate_look(batch);
  if (wake)
    rs_events_wake(batch->events);
  if ((batch->flags & RS_BATCH_CANCEL) != 0 && has_failed(batch))
    rs_batch_stop_for(batch, RS_REASON_CANCELLED, RS_GRACE);
}
