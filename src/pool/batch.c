/* SPDX-License-Identifier: MIT */
/*
 * batch.c - a map in flight.
 *
 *     add --> open chunk --flush--> queue --> worker --> ended --wait-->
 *             (encoder)             (job)               (list)   current
 *                                                                  |
 *                                            record, record, ... <-next
 *
 * A chunk is a job, so the queue and the workers see nothing but jobs.  The
 * thread that opened the batch fills and empties it; workers only append to
 * 'ended'.  At most 'window' chunks are between flush and wait, which bounds
 * the memory of an endless input or a slow reader.
 *
 * Chunk size.  A chunk should take about TARGET seconds: enough to make the
 * cost of moving it vanish, short enough to keep all workers busy at the
 * end.  Nothing is known at first, so the first chunks have one item; each
 * chunk that has ended corrects the estimate.  Where the number of items is
 * known no chunk takes more than a share of what is left, so that chunks
 * shrink towards the end.  And where the estimate proves wrong, since later
 * items cost more, a worker ends its chunk when BUDGET seconds are spent.  The
 * results of that chunk are ready to be taken; the rest of its items, in the
 * message where they are, become another chunk.
 */
#include "pool/batch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/level.h"
#include "pool/face.h"
#include "value/code.h"
#include "base/fork.h"
#include "pool/job.h"
#include "value/decoder.h"
#include "value/encoder.h"
#include "base/options.h"
#include "state/rebuild.h"
#include "base/status.h"
#include "base/timer.h"
#include "value/wire.h"

#define TARGET 1e-3     /* seconds of work in a chunk */
#define BUDGET 4e-3     /* seconds before a chunk is cut */
#define LEAST 20e-6     /* seconds of work in a chunk below which moving it
                           costs too much */
#define MAX_BYTES (256u << 10)
#define MAX_ITEMS 65536.0
#define MAX_EAGER 256.0

struct rs_batch {
  rs_job_hooks hooks;       /* first field: how jobs tell the batch;
                               constant */
  _Atomic unsigned refs;    /* the opener's, and one for each chunk's job */
  rs_queue *queue;          /* held; constant from here to 'listen' */
  rs_message *function;     /* a reference */
  uint64_t id;
  const char *name;         /* 'given' or 'text' */
  char *given;              /* owned; or NULL */
  char text[RS_JOB_NAME];
  unsigned flags;           /* RS_BATCH_ */
  unsigned depth;           /* of the calls of its chunks: rs_call */
  size_t chunk;             /* items; 0: by cost */
  size_t total;             /* items; 0: not known */
  size_t window;            /* chunks in flight at most */
  bool limited;             /* failures are counted in 'allowed' */
  rs_events *events;        /* a reference */
  bool shared;              /* 'events' are the caller's */
  unsigned listen;
  rs_job_options options;   /* of its chunks: timeout, retries, priority */
  rs_timer timer;           /* the deadline of the batch */

  /* Flags that workers look at for each item stay away from what the opener
     writes for each item: otherwise a look takes 8 ns. */
  char before[64];
  _Atomic bool stop;        /* start no more items */
  _Atomic bool failed;      /* start no more items; set by a worker */
  _Atomic size_t allowed;   /* failures until 'failed' is set, if 'limited' */
  _Atomic int reason;       /* rs_reason; set before 'stop' */
  char behind[64];

  rs_encoder items;         /* of the open chunk; for the opener only, from
                               here on */
  size_t want;              /* items that the open chunk shall have */
  size_t count;             /* items that the open chunk has */
  unsigned arity;           /* values of an item */
  bool range;               /* the open chunk is a range: */
  lua_Integer first, step;
  size_t added;             /* items of all chunks */
  size_t chunks;            /* chunks that were submitted */
  size_t last_size;         /* items in the last chunk */
  bool finished;            /* no more items will come */

  rs_job *current;          /* the chunk being read, a reference, or NULL */
  rs_decoder reader;        /* of the result of 'current' */
  bool reading;             /* 'reader' is ready */
  const char *unreadable;   /* why the rest of 'current' cannot be read; or
                               NULL */
  bool careful;             /* read one item at a time: memory is short, or an
                               item cannot be made */
  size_t position;          /* items of 'current' that were read */
  size_t good;              /* items from 'position' on that share a record
                               that was begun */
  uint64_t after;           /* sequence number of the last stream record that
                               was read */
  double created;           /* instant at which 'current' was submitted */
  unsigned worker;

  pthread_mutex_t lock;     /* guards down to the blank line */
  rs_list flying;           /* parts of jobs that were queued and have not
                               ended; no references: a job leaves the list
                               before its end is over */
  rs_list ended;            /* parts of jobs that have ended, with references,
                               in order of their end */
  size_t n_ended;           /* parts in 'ended' */
  bool closed;              /* nobody will take from 'ended' */
  size_t in_flight;         /* chunks that were submitted and not taken */
  double cost;              /* seconds for an item; below 0: not known */
  size_t items_started, items_finished, items_failed;
};

_Static_assert(offsetof(struct rs_batch, hooks) == 0,
               "jobs find the hooks in front");

/* -------------------------------------------------------------- life cycle */

static void
unref (rs_batch *batch)
{
  /* Release our reads and writes to the thread that frees. */
  if (batch == NULL
      || atomic_fetch_sub_explicit(&batch->refs, 1, memory_order_acq_rel)
         != 1)
    return;
  rs_timer_clear(&batch->timer);
  rs_message_unref(batch->function);
  rs_encoder_fini(&batch->items);
  pthread_mutex_destroy(&batch->lock);
  rs_events_unref(batch->events);
  batch->queue->drop(batch->queue, 1);
  free(batch->given);
  free(batch);
}

/*
 * Choose how many chunks may be in flight: four for each worker, two when
 * results are wanted early; or the limit of the caller, if that is less than
 * there are workers.  The opener is not woken before half of them have ended:
 * to wake a thread takes as long as a tenth of a chunk, and a worker has to
 * give that thread a CPU.
 */
static size_t
choose_window (unsigned limit, unsigned width, unsigned flags)
{
  if (limit != 0 && limit < width)
    return limit;
  return (flags & RS_BATCH_EAGER ? 2 : 4) * (size_t) width;
}

/* True when the opener shall hear that a chunk has ended. */
static bool
matters_locked (const rs_batch *batch)
{
  const size_t left = batch->in_flight - batch->n_ended;
  return batch->flags & RS_BATCH_EAGER || batch->items_failed > 0
      || batch->window < 4 || left <= batch->window / 2;
}

/* True when the batch belongs to another process: nothing of it may be locked
   or freed here. */
static bool
is_foreign (const rs_batch *batch)
{
  return rs_fork_is_foreign(batch->queue->born);
}

/* Check that the batch can be used here.  RS_OK or RS_EINVAL. */
static int
check (const rs_batch *batch, rs_error *err)
{
  return batch == NULL ? rs_fail_null(err, "batch")
       : is_foreign(batch) ? rs_fork_fail(err, "batch") : RS_OK;
}

static void on_deadline (rs_timer *timer);
static void on_end (rs_job *job);
static void on_free (rs_job *job);

int
rs_batch_new (rs_queue *queue, lua_State *L, int nargs,
                 const rs_batch_options *options, rs_batch **out,
                 rs_error *err)
{
  static const rs_batch_options defaults;
  if (options == NULL)
    options = &defaults;
  rs_message *function;
  int status = rs_code_encode(L, nargs, queue->forbidden, &function, err);
  if (status != RS_OK)
    return status;
  if (rs_fork_is_foreign(queue->born)) {  /* has a '__transfer' forked? */
    rs_message_unref(function);
    return rs_fork_fail(err, "pool");
  }
  rs_batch *const batch = calloc(1, sizeof *batch);
  if (batch == NULL) {
    rs_message_unref(function);
    return rs_fail_plain(err, RS_ENOMEM);
  }
  batch->hooks = (rs_job_hooks) { .on_end = on_end, .on_free = on_free };
  atomic_init(&batch->refs, 1);
  rs_mutex_init(&batch->lock);
  rs_list_init(&batch->flying);
  rs_list_init(&batch->ended);
  rs_encoder_init(&batch->items, queue->forbidden);
  batch->queue = queue;
  queue->hold(queue, 1);
  batch->function = function;
  batch->items.common = rs_common_of(L, function);
  batch->items.names.anew = true;
  batch->flags = options->flags;
  batch->depth = rs_job_nesting(L);
  batch->chunk = queue->fresh ? 1 : options->chunk;
  batch->total = options->total;
  batch->window = choose_window(options->limit, queue->width(queue),
                                options->flags);
  batch->cost = -1;
  batch->id = rs_job_next_id();
  batch->name = batch->text;
  if (options->name == NULL)
    rs_job_make_name(batch->text, "batch", batch->id);
  else
    batch->name = batch->given = strdup(options->name);
  batch->shared = options->events != NULL;
  batch->listen = options->listen;
  batch->options = (rs_job_options) {
    .timeout = options->timeout,
    .retries = options->retries,
    .retry_on = options->retry_on,
    .priority = options->priority,
  };
  atomic_init(&batch->allowed, options->max_failures != 0
                               ? options->max_failures
                               : !(options->flags & RS_BATCH_CONTINUE));
  batch->limited = atomic_load(&batch->allowed) != 0;
  rs_timer_init(&batch->timer, on_deadline);
  batch->events = batch->shared ? rs_events_ref(options->events)
                                : rs_events_new();
  if (batch->name == NULL || batch->events == NULL) {
    unref(batch);
    return rs_fail_plain(err, RS_ENOMEM);
  }
  if (options->deadline > 0
      && !rs_timer_set(&batch->timer, rs_deadline(options->deadline))) {
    unref(batch);
    return rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                    "see to the deadline");
  }
  if (options->timeout > 0 && !rs_timers_start()) {
    unref(batch);
    return rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                    "see to the time-out");
  }
  *out = batch;
  return RS_OK;
}

/* -------------------------------------------------------------- the worker */

static bool
stopped (const rs_batch *batch)
{
  return atomic_load_explicit(&batch->stop, memory_order_relaxed)
      || atomic_load_explicit(&batch->failed, memory_order_relaxed);
}

/* The memory behind a job that runs a chunk. */
typedef struct part {
  rs_chunk chunk;           /* first field: of the call */
  rs_list link;             /* in 'flying' or 'ended' */
  size_t items;             /* items that end with the chunk */
  size_t left;              /* of 'items': left at its end, and tried by no
                               worker, */
  int why;                  /* for this status */
} part;

static part *
part_of (const rs_job *job)
{
  return (part *) job->call.chunk;
}

/* New job for items of the batch, which the caller describes in the call of
   the job.  The job has a reference to the batch.  'created' is an instant, or
   0: now.  NULL when out of memory. */
static rs_job *
new_chunk (rs_batch *batch, rs_message *items, double created)
{
  rs_job_options options = batch->options;
  options.name = batch->name;
  options.events = batch->events;
  options.listen = batch->shared ? batch->listen : 0;
  const rs_job_part p = {
    .batch = batch,
    .size = sizeof(part),
    .id = batch->id,
    .flags = batch->flags | (batch->shared ? 0 : RS_JOB_DEAF),
    .created = created,
  };
  atomic_fetch_add_explicit(&batch->refs, 1, memory_order_relaxed);
  rs_job *const job = rs_job_new(batch->queue, batch->function, &options, &p);
  if (job == NULL) {
    unref(batch);
    return NULL;
  }
  rs_list_init(&part_of(job)->link);
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
  rs_list_push(&batch->flying, &part_of(job)->link);
  pthread_mutex_unlock(&batch->lock);
}

static void
land (rs_batch *batch, rs_job *job)
{
  pthread_mutex_lock(&batch->lock);
  batch->in_flight--;
  rs_list_remove(&part_of(job)->link);
  pthread_mutex_unlock(&batch->lock);
}

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
  rs_job *const next = new_chunk(batch, job->call.arguments, job->created);
  if (next != NULL) {
    rs_chunk *const chunk = next->call.chunk;
    next->call.attempt = attempt;
    part_of(next)->items = chunk->count = left;
    chunk->arity = old->arity;
    chunk->index = old->index + (lua_Integer) rest.item;
    chunk->first = old->first + (lua_Integer) rest.item * old->step;
    chunk->step = old->step;
    chunk->from = rest;
    chunk->from.item = 0;
    fly(batch, next);
    status = batch->queue->push(batch->queue, next, NULL);
    if (status == RS_OK)
      part_of(job)->items = rest.item;
    else {
      land(batch, next);
      rs_job_unref(next);  /* the reference of the queue */
    }
    rs_job_unref(next);
  }
  if (status == RS_OK || status == RS_ECLOSED)
    return 0;
  part_of(job)->left = left;
  part_of(job)->why = status;
  return left;
}

/* Count the failure of an item that no worker counts. */
static void
count_failure (rs_batch *batch)
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
      && chunk->rest.item < chunk->count && !stopped(batch)) {
    const size_t left = go_on(batch, job, chunk->rest, job->call.attempt);
    t.started += left;
    t.failed += left;
    if (left > 0)
      count_failure(batch);
  }
  return t;
}

/* Count a lost chunk: its items up to the one that ran are lost, and the rest
   are queued again.  Where the chunk does not tell which one ran, all its
   items are lost. */
static tally
tally_lost (rs_batch *batch, rs_job *job)
{
  const rs_chunk *const chunk = job->call.chunk;
  const part *const p = part_of(job);
  size_t begun[5];
  for (int i = 0; i < 5; i++)
    begun[i] = atomic_load_explicit(&chunk->begun[i], memory_order_relaxed);
  const rs_place rest = {
    .item = begun[0],
    .in = { .at = begun[1], .next_id = (unsigned) begun[2],
            .run = (unsigned) begun[3], .left = begun[4] },
  };
  count_failure(batch);
  if (rest.item > 0 && rest.item < chunk->count && !stopped(batch))
    go_on(batch, job, rest, 1);
  batch->queue->ended(batch->queue, RS_JOB_LOST, p->items);
  return (tally) { .started = p->items, .failed = p->items };
}

/* rs_job_hooks: a chunk has ended.  The thread that ended it puts it into
   'ended', with a reference. */
static void
on_end (rs_job *job)
{
  rs_batch *const batch = job->batch;
  const tally t = rs_job_state_now(job) == RS_JOB_LOST ? tally_lost(batch, job)
                                            : tally_run(batch, job);
  pthread_mutex_lock(&batch->lock);
  batch->items_started += t.started;
  batch->items_finished += t.started;
  batch->items_failed += t.failed;
  if (t.started > 0 && t.took > 0) {
    const double cost = t.took / (double) t.started;
    batch->cost = batch->cost < 0 ? cost : 0.5 * (batch->cost + cost);
  }
  rs_list_remove(&part_of(job)->link);
  if (!batch->closed) {
    rs_job_ref(job);
    rs_list_push(&batch->ended, &part_of(job)->link);
    batch->n_ended++;
  }
  const bool wake = matters_locked(batch);
  pthread_mutex_unlock(&batch->lock);
  if (wake)
    rs_events_wake(batch->events);
}

/* rs_job_hooks: the job of a chunk gives back its reference to the batch. */
static void
on_free (rs_job *job)
{
  unref(job->batch);
}

/* ----------------------------------------------------------------- filling */

static double
least (double a, double b)
{
  return a < b ? a : b;
}

static double
most (double a, double b)
{
  return a > b ? a : b;
}

/* Choose how many items the next chunk has; 0: enough chunks are in flight. */
static size_t
choose_size (rs_batch *batch)
{
  pthread_mutex_lock(&batch->lock);
  const double cost = batch->cost;
  const bool full = batch->in_flight >= batch->window;
  pthread_mutex_unlock(&batch->lock);
  if (full)
    return 0;
  if (batch->chunk != 0)
    return batch->chunk;
  if (cost < 0)
    return 1;
  const double limit = batch->flags & RS_BATCH_EAGER ? MAX_EAGER : MAX_ITEMS;
  double n = least(TARGET / most(cost, 1e-9), limit);
  if (batch->total > batch->added) {  /* a share for every worker? */
    const double left = (double) (batch->total - batch->added);
    const unsigned width = batch->queue->width(batch->queue);
    const double share = left / (2.0 * width);
    n = least(n, most(share, LEAST / most(cost, 1e-9)));
  }
  return n < 1 ? 1 : (size_t) n;
}

size_t
rs_batch_room (rs_batch *batch)
{
  if (batch == NULL || is_foreign(batch) || batch->finished || stopped(batch))
    return 0;
  if (batch->count > 0)  /* is a chunk open? */
    return batch->items.buf.size < MAX_BYTES ? batch->want - batch->count : 0;
  batch->want = choose_size(batch);
  return batch->want;
}

int
rs_batch_flush (rs_batch *batch, rs_error *err)
{
  if (check(batch, err) != RS_OK)
    return RS_EINVAL;
  const size_t count = batch->count;
  if (count == 0)
    return RS_OK;
  rs_message *items = NULL;
  rs_job *job = NULL;
  if (batch->range || (items = rs_encoder_message(&batch->items)) != NULL)
    job = new_chunk(batch, items, 0);
  const bool range = batch->range;
  rs_message_unref(items);
  rs_encoder_clear(&batch->items);  /* sent, or lost with the error */
  batch->count = 0;
  batch->range = false;
  if (job == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_chunk *const chunk = job->call.chunk;
  part_of(job)->items = chunk->count = count;
  chunk->arity = batch->arity;
  chunk->index = (lua_Integer) (batch->added - count) + 1;
  if (range) {
    chunk->first = batch->first;
    chunk->step = batch->step;
  }
  fly(batch, job);
  const int status = batch->queue->push(batch->queue, job, err);
  if (status != RS_OK) {
    land(batch, job);
    rs_job_unref(job);  /* the reference of the queue */
  }
  rs_job_unref(job);
  if (status != RS_OK)
    return status;
  batch->chunks++;
  batch->last_size = count;
  return RS_OK;
}

/* Prepare the open chunk for an item of 'n' values; a chunk that cannot take
   the item is queued first. */
static int
open_item (rs_batch *batch, int n, rs_error *err)
{
  if (batch->finished)
    return rs_fail_plain(err, RS_ECLOSED);
  int status = RS_OK;
  if (batch->count > 0 && (batch->range || batch->arity != (unsigned) n))
    status = rs_batch_flush(batch, err);
  if (batch->count == 0)
    batch->items.packs = batch->want >= RS_WIRE_RUN_FROM;
  batch->arity = (unsigned) n;
  return status;
}

int
rs_batch_add (rs_batch *batch, lua_State *L, int n, rs_error *err)
{
  if (batch == NULL)
    return rs_fail_null(err, "batch");
  int status = rs_check_values(L, n, err);
  if (status != RS_OK)
    return status;
  const int base = lua_gettop(L) - n;
  if (is_foreign(batch)) {
    lua_settop(L, base);
    return rs_fork_fail(err, "batch");
  }
  status = open_item(batch, n, err);
  rs_encoder_start(&batch->items);
  const rs_mark mark = rs_encoder_mark(&batch->items);
  for (int i = 1; i <= n && status == RS_OK; i++) {
    status = rs_encode_value(&batch->items, L, base + i, "");
    if (status == RS_ENOMEM)
      rs_fail_plain(err, status);
    else if (status != RS_OK)
      rs_fail(err, status, "item %zu: %s", batch->added + 1,
              batch->items.error);
  }
  lua_settop(L, base);
  rs_encoder_forget(&batch->items);
  if (status != RS_OK) {
    rs_encoder_rewind(&batch->items, &mark);
    return status;
  }
  batch->count++;
  batch->added++;
  return RS_OK;
}

int
rs_batch_add_array (rs_batch *batch, lua_State *L, int index, lua_Integer from,
                    size_t n, size_t *added, rs_error *err)
{
  if (batch == NULL || L == NULL || added == NULL)
    return rs_fail_null(err, batch == NULL ? "batch" : L == NULL ? "L"
                                                                 : "added");
  if (is_foreign(batch))
    return rs_fork_fail(err, "batch");
  if (lua_isnone(L, index))
    return rs_fail(err, RS_EINVAL, "index (%d) has no value on the stack, "
                                   "which has %d", index, lua_gettop(L));
  index = lua_absindex(L, index);
  const bool plain = lua_type(L, index) == LUA_TTABLE;
  *added = 0;
  size_t room;
  while (*added < n && (room = rs_batch_room(batch)) > 0) {
    if (room > n - *added)
      room = n - *added;
    int status = open_item(batch, 1, err);
    size_t done = 0;
    if (status == RS_OK && plain)
      done = rs_encode_scalars(&batch->items, L, index,
                               from + (lua_Integer) *added, room, MAX_BYTES);
    batch->count += done;
    batch->added += done;
    if (status == RS_OK && done < room && batch->items.buf.size < MAX_BYTES) {
      lua_geti(L, index, from + (lua_Integer) (*added + done));
      status = rs_batch_add(batch, L, 1, err);
      done += status == RS_OK;
    }
    *added += done;
    if (status == RS_OK && rs_batch_room(batch) == 0)
      status = rs_batch_flush(batch, err);
    if (status != RS_OK)
      return status;
  }
  return rs_batch_flush(batch, err);
}

int
rs_batch_add_range (rs_batch *batch, lua_Integer first, lua_Integer step,
                    size_t count, rs_error *err)
{
  if (check(batch, err) != RS_OK)
    return RS_EINVAL;
  if (batch->finished)
    return rs_fail_plain(err, RS_ECLOSED);
  const int status = rs_batch_flush(batch, err);
  if (status != RS_OK || count == 0)
    return status;
  batch->range = true;
  batch->arity = 1;
  batch->first = first;
  batch->step = step;
  batch->count = count;
  batch->added += count;
  return RS_OK;
}

int
rs_batch_finish (rs_batch *batch, rs_error *err)
{
  const int status = rs_batch_flush(batch, err);
  if (batch != NULL && !is_foreign(batch))
    batch->finished = true;
  return status;
}

/* ---------------------------------------------------------------- emptying */

/* Let go of the chunk that was read. */
static void
leave (rs_batch *batch, lua_State *L)
{
  if (batch->current == NULL)
    return;
  if (L != NULL && batch->reading
      && batch->reader.objects != 0) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, batch);
  }
  rs_job_unref(batch->current);
  batch->current = NULL;
  batch->reading = false;
}

/* The job of the part at 'link'. */
static rs_job *
job_at (rs_list *link)
{
  return (rs_job *) RS_LIST_ENTRY(link, part, link) - 1;
}

/* Take a chunk that has ended; NULL: there is none. */
static rs_job *
take_ended (rs_batch *batch)
{
  pthread_mutex_lock(&batch->lock);
  rs_list *const link = rs_list_shift(&batch->ended);
  if (link != NULL) {
    batch->in_flight--;
    batch->n_ended--;
  }
  pthread_mutex_unlock(&batch->lock);
  return link != NULL ? job_at(link) : NULL;
}

static bool
has_ended (rs_batch *batch)
{
  pthread_mutex_lock(&batch->lock);
  const bool any = !rs_list_empty(&batch->ended);
  pthread_mutex_unlock(&batch->lock);
  return any;
}

/* True when no chunk is in flight. */
static bool
idle (rs_batch *batch)
{
  pthread_mutex_lock(&batch->lock);
  const bool none = batch->in_flight == 0;
  pthread_mutex_unlock(&batch->lock);
  return none;
}

static void stop (rs_batch *batch, rs_reason reason, double grace);

static int
wait_for_chunk (rs_batch *batch, lua_State *L, double timeout)
{
  const double deadline = rs_deadline(timeout);
  rs_state *const s = rs_job_helper(batch->queue, L);
  leave(batch, L);
  bool over = false;
  rs_job *ended;
  while ((ended = take_ended(batch)) == NULL) {
    if (idle(batch))
      return batch->finished || stopped(batch) ? RS_EDONE : RS_EBUSY;
    if (rs_cancel_pending(rs_cancel_mine())) {
      stop(batch, RS_REASON_PARENT, RS_GRACE);
      return RS_ESTOPPED;
    }
    if (batch->shared && rs_events_pending(batch->events))
      return RS_EEVENT;
    if (over)
      return RS_ETIMEOUT;
    rs_job *job = NULL;
    if (s != NULL && timeout != 0  /* in a runspace: run a chunk here? */
        && rs_job_can_help(batch->queue, s, NULL, batch))
      job = batch->queue->claim_of(batch->queue, batch);
    if (job != NULL)
      rs_job_run(job, s, L);
    else
      over = rs_events_wait(batch->events, timeout == 0 ? 0
                            : rs_remaining(deadline)) == RS_ETIMEOUT;
    if (job == NULL && !over && batch->shared && !has_ended(batch))
      return RS_EEVENT;  /* woken for something else, which may matter */
  }
  rs_job_info info;
  batch->current = ended;
  batch->position = 0;
  batch->good = 0;
  batch->unreadable = NULL;
  batch->careful = false;
  batch->after = 0;
  rs_job_info_get(batch->current, &info);
  batch->created = info.created;
  batch->worker = info.worker;
  return RS_OK;
}

int
rs_batch_wait (rs_batch *batch, lua_State *L, double timeout)
{
  if (check(batch, NULL) != RS_OK || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  const int status = wait_for_chunk(batch, L, timeout);
  if (L != NULL)
    rs_job_unblock(L);
  return status;
}

/* The text of 'unreadable' for a message that cannot be read. */
static const char bad_message[] = "bad message";

/* (batch)  Make 'reader' ready. */
static int
open_reader (lua_State *L)
{
  rs_batch *const batch = lua_touserdata(L, 1);
  rs_decoder *const d = &batch->reader;
  lua_settop(L, 0);
  rs_decoder_init(d, L, batch->current->call.result, 0);
  d->common.sent = batch->function;
  if (d->objects != 0)
    lua_rawsetp(L, LUA_REGISTRYINDEX, batch);
  batch->reading = true;
  return 0;
}

/* The reason of a record, as in 'rs_job_info'. */
static const char *
reason_of (rs_job_state state, rs_reason reason)
{
  if (state == RS_JOB_COMPLETED)
    return NULL;
  if (state == RS_JOB_COMPLETED_WITH_ERRORS)
    return "error_stream";
  if (state == RS_JOB_LOST)
    return "lost";
  return reason == RS_REASON_NONE ? "error" : rs_reason_name(reason);
}

/* The head of a record: what is known before its values are made. */
typedef struct head {
  rs_batch *batch;
  rs_decoder in;        /* at its next value; becomes 'reader' when all are
                           read */
  uint32_t values;      /* values of the record */
  uint32_t wanted;      /* how many of 'values' are pushed */
  size_t good;          /* items from this one on that share the record */
  bool objects;         /* 'in' needs the table of objects */
} head;

/* Copy the next 'n' bytes, which are no value; false if there are not so
   many. */
static bool
read_raw (rs_decoder *d, void *bytes, size_t n)
{
  if (d->left > 0 || n > d->size - d->at)  /* inside a run? */
    return false;
  memcpy(bytes, d->data + d->at, n);
  d->at += n;
  return true;
}

/* True when the numbers of a head are possible: the state and reason of its
   item, the number of its values, and how many items share the record. */
static bool
is_possible (const rs_batch *batch, const head *h, unsigned state)
{
  const rs_job_state ended = (rs_job_state) (state & 0xf);
  const size_t left = part_of(batch->current)->items - batch->position;
  return ended >= RS_JOB_COMPLETED && ended <= RS_JOB_LOST
      && state >> 4 < RS_REASONS && h->good <= left
      && (rs_job_state_good(ended) || h->values == 3)
      && h->values <= h->in.size - h->in.at;
}

/* Read the head of the next record (call.h); false if there is none, or a bad
   one. */
static bool
read_head (rs_batch *batch, head *h, rs_record *rec)
{
  rs_decoder *const d = &h->in;
  const bool records = (batch->flags & RS_BATCH_RECORDS) != 0;
  unsigned char state = RS_JOB_COMPLETED;
  h->good = batch->good;
  if (h->good == 0 && !read_raw(d, &state, 1))
    return false;
  if (state == RS_RECORD_RUN && !records) {
    unsigned char count[4];
    state = RS_JOB_COMPLETED;
    if (!read_raw(d, count, sizeof count))
      return false;
    h->good = rs_wire_get32(count);
    if (h->good == 0)
      return false;
  }
  const bool completed = rs_job_state_good((rs_job_state) (state & 0xf));
  h->values = completed ? 1 : 3;
  if (records) {
    unsigned char more[RS_RECORD_MORE];
    if (!read_raw(d, more, sizeof more))
      return false;
    rec->queued = rs_wire_get_double(more) - batch->created;
    rec->duration = rs_wire_get_double(more + 8);
    h->values = rs_wire_get32(more + 16);
    rec->attempts = rs_wire_get32(more + 20);
  }
  if (!is_possible(batch, h, state))
    return false;
  rec->state = (rs_job_state) (state & 0xf);
  rec->reason = reason_of(rec->state, (rs_reason) (state >> 4));
  h->wanted = completed ? h->values : 2;  /* not the text of an error */
  return true;
}

/* (head) -> the values of its record */
static int
make_values (lua_State *L)
{
  head *const h = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (h->objects) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, h->batch);
    h->in.objects = lua_gettop(L);
  }
  const int base = lua_gettop(L);
  rs_level_room(L, (int) h->wanted + 2, "too many results");
  for (uint32_t i = 0; i < h->wanted; i++)
    rs_decode_value(&h->in, L);
  return lua_gettop(L) - base;
}

/* Skip the next 'n' values; false when they are bad. */
static bool
skip (rs_decoder *d, uint32_t n)
{
  bool good = true;
  while (good && n-- > 0)
    good = rs_decoder_skip(d);
  return good;
}

/* Skip the last 'n' values of the record.  When they are bad, the rest of the
   chunk cannot be read. */
static void
pass_values (rs_batch *batch, rs_decoder *d, uint32_t n)
{
  if (!skip(d, n))
    batch->unreadable = bad_message;
}

/* Fail the item of the record, in the state that reads it. */
static void
fail_record (rs_batch *batch, rs_record *rec)
{
  rec->state = RS_JOB_FAILED;
  rec->reason = "error";
  count_failure(batch);
  if (is_foreign(batch))  /* has what makes the values forked? */
    return;
  pthread_mutex_lock(&batch->lock);
  batch->items_failed++;
  pthread_mutex_unlock(&batch->lock);
}

/*
 * [-2, +2, e]  Replace the text and the traceback on top, which say why the
 * values of the record, from 'place' on, could not be made.  A result that
 * could not be made fails its item; an error becomes a text, with the
 * traceback of the runspace that raised it.
 */
static void
refuse_record (rs_batch *batch, lua_State *L, head *h,
               const rs_decoder_place *place, rs_record *rec)
{
  const int text = lua_gettop(L) - 1;
  rs_decoder_seek(&h->in, place);
  if (rs_job_state_good(rec->state)) {
    rs_rebuild_tell(L, text, h->values == 1 ? "the result" : "a result", 0);
    fail_record(batch, rec);
    pass_values(batch, &h->in, h->values);
    return;
  }
  int was = 0;
  if (skip(&h->in, 1)) {
    h->wanted = 2;
    if (rs_rebuild(L, make_values, h) == 2) {  /* traceback, text */
      was = text + 3;
      lua_pushvalue(L, text + 2);
      lua_replace(L, text + 1);
    }
  }
  rs_rebuild_tell(L, text, "the error", was);
  lua_settop(L, text + 1);
  rs_decoder_seek(&h->in, place);
  pass_values(batch, &h->in, h->values);
}

/* [-0, +rec->n, e]  Push the failure of an item for a reason that is not its
   own. */
static void
push_failure (lua_State *L, rs_record *rec, const char *why)
{
  rs_level_room(L, 2, NULL);
  lua_pushstring(L, why);
  lua_pushnil(L);
  rec->n = 2;
  rec->state = RS_JOB_FAILED;
  rec->reason = "error";
}

/* [-0, +rec->n, e]  Read the record of an item. */
static void
read_record (rs_batch *batch, lua_State *L, rs_record *rec)
{
  const int top = lua_gettop(L);
  if (!batch->reading && rs_rebuild(L, open_reader, batch) < 0) {
    const char *const nomem = rs_status_message(RS_ENOMEM);
    batch->unreadable = strcmp(lua_tostring(L, top + 1), nomem) == 0
                      ? nomem : bad_message;
    fail_record(batch, rec);
    rec->n = 2;
    return;
  }
  head h = { .batch = batch };
  h.in = batch->reader;
  h.objects = h.in.objects != 0;
  if (!read_head(batch, &h, rec)) {
    batch->unreadable = bad_message;
    push_failure(L, rec, bad_message);
    fail_record(batch, rec);
    return;
  }
  if (h.wanted == 1 && rs_decoder_is_plain(&h.in))
    rs_decode_value(&h.in, L);
  else {
    const rs_decoder_place place = rs_decoder_tell(&h.in);
    if (h.wanted > 0 && rs_rebuild(L, make_values, &h) < 0)
      refuse_record(batch, L, &h, &place, rec);
    else if (h.values > h.wanted)
      pass_values(batch, &h.in, h.values - h.wanted);
  }
  batch->reader = h.in;
  batch->good = h.good > 0 ? h.good - 1 : 0;
  rec->n = lua_gettop(L) - top;
}

/* True when a chunk is being read, and the item at 'position' was run. */
static bool
has_record (const rs_batch *batch)
{
  const rs_job *const job = batch->current;
  return job != NULL && batch->position < part_of(job)->items
      && rs_job_state_now(job) != RS_JOB_LOST && job->call.result != NULL
      && batch->unreadable == NULL
      && batch->position < job->call.chunk->rest.item;
}

/* Scalars on their way into a table. */
typedef struct taking {
  rs_decoder in;
  const rs_batch *batch;
  size_t taken;
} taking;

/* (taking, table) */
static int
take_scalars (lua_State *L)
{
  taking *const t = lua_touserdata(L, 1);
  const rs_batch *const batch = t->batch;
  t->taken = rs_decode_scalars(&t->in, L, 2, batch->current->call.chunk->index
                               + (lua_Integer) batch->position, batch->good);
  return 0;
}

size_t
rs_batch_take (rs_batch *batch, lua_State *L, int index)
{
  if (batch == NULL || L == NULL || batch->good == 0 || batch->careful
      || is_foreign(batch) || !has_record(batch))
    return 0;
  taking t = { .in = batch->reader, .batch = batch };
  rs_level_room(L, LUA_MINSTACK, NULL);
  index = lua_absindex(L, index);
  lua_pushcfunction(L, take_scalars);
  lua_pushlightuserdata(L, &t);
  lua_pushvalue(L, index);
  const int status = lua_pcall(L, 2, 0, 0);
  if (status != LUA_OK && status != LUA_ERRMEM && !t.in.bad)
    lua_error(L);  /* an error of a hook */
  if (status != LUA_OK) {  /* one by one: only the bad item fails */
    lua_pop(L, 1);
    batch->careful = true;
    return 0;
  }
  batch->reader = t.in;
  batch->position += t.taken;
  batch->good -= t.taken;
  return t.taken;
}

/* [-0, +rec->n, e]  Do 'rs_batch_next' for a record of our own size. */
static int
next_record (rs_batch *batch, lua_State *L, rs_record *rec)
{
  if (batch->current == NULL)
    return RS_EDONE;
  const rs_job *const job = batch->current;
  const rs_job_state state = rs_job_state_now(job);
  if (batch->position == part_of(job)->items) {
    leave(batch, L);
    return RS_EDONE;
  }
  /* A job is not written to after its end, unless it is lost. */
  const bool ran = has_record(batch);
  rec->index = job->call.chunk->index + (lua_Integer) batch->position;
  rec->worker = batch->worker;
  rec->queued = rec->duration = 0;
  rec->n = 0;
  rec->attempts = state == RS_JOB_LOST;
  if (ran)
    read_record(batch, L, rec);
  else if (batch->unreadable != NULL) {
    push_failure(L, rec, batch->unreadable);
    fail_record(batch, rec);
  }
  else if (batch->position + part_of(job)->left >= part_of(job)->items) {
    push_failure(L, rec, rs_status_message(part_of(job)->why));
    rec->attempts = 0;
  }
  else if (state == RS_JOB_FAILED) {  /* was no item reached? */
    rec->state = RS_JOB_FAILED;
    rec->reason = rs_job_reason(job);
    rs_job_push(batch->current, L, &rec->n);
  }
  else {
    rs_reason reason = rs_job_reason_now(job);
    if (reason == RS_REASON_NONE)
      reason = (rs_reason) atomic_load_explicit(&batch->reason,
                                                memory_order_relaxed);
    rec->state = state != RS_JOB_COMPLETED ? state
               : reason != RS_REASON_NONE ? rs_reason_state(reason)
               : RS_JOB_CANCELLED;
    rec->reason = reason_of(rec->state, reason != RS_REASON_NONE ? reason
                                        : RS_REASON_CANCELLED);
    if (rs_job_failure(job) != NULL)
      rs_job_push(batch->current, L, &rec->n);
  }
  batch->position++;
  return RS_OK;
}

int
rs_batch_next_sized (rs_batch *batch, lua_State *L, rs_record *rec,
                     size_t size)
{
  if (check(batch, NULL) != RS_OK || L == NULL || rec == NULL)
    return RS_EINVAL;
  if (size == sizeof *rec) {
    rec->size = size;
    return next_record(batch, L, rec);
  }
  rs_record known;
  memset(&known, 0, sizeof known);
  const int status = next_record(batch, L, &known);
  if (status == RS_OK)
    rs_give_sized(rec, size, &known, sizeof known);
  return status;
}

/* ------------------------------------------------------------------ ending */

rs_stream_record *
rs_batch_record (rs_batch *batch)
{
  if (batch == NULL || is_foreign(batch) || batch->current == NULL
      || batch->position == 0)
    return NULL;
  const lua_Integer index = batch->current->call.chunk->index
                          + (lua_Integer) batch->position - 1;
  rs_stream_record *record = rs_job_record(batch->current, batch->after);
  while (record != NULL && record->info.index < index) {
    batch->after = record->info.sequence;
    rs_stream_record_unref(record);
    record = rs_job_record(batch->current, batch->after);
  }
  if (record != NULL && record->info.index > index) {
    rs_stream_record_unref(record);
    return NULL;
  }
  if (record != NULL)
    batch->after = record->info.sequence;
  return record;
}

uint64_t
rs_batch_id (const rs_batch *batch)
{
  return batch != NULL ? batch->id : 0;
}

/* Wake the jobs of chunks that have not ended, so that they look at 'stop';
   with a reason, stop them. */
static void
stop_flying (rs_batch *batch, rs_reason reason, double grace)
{
  rs_job *some[64];
  size_t n = 0;
  pthread_mutex_lock(&batch->lock);
  const size_t most = batch->in_flight;
  rs_job **const list = most <= sizeof some / sizeof some[0] ? some
                      : malloc(most * sizeof *list);
  for (rs_list *link = batch->flying.next;
       list != NULL && n < most && link != &batch->flying; link = link->next)
    list[n++] = rs_job_ref(job_at(link));
  pthread_mutex_unlock(&batch->lock);
  for (size_t i = 0; i < n; i++) {
    if (reason != RS_REASON_NONE)
      rs_job_stop(list[i], reason, grace);
    else
      rs_job_stir(list[i]);
    rs_job_unref(list[i]);
  }
  if (list != some)
    free(list);
}

/* Start no more items; with a reason, stop the chunks that run, too. */
static void
stop (rs_batch *batch, rs_reason reason, double grace)
{
  int none = RS_REASON_NONE;
  atomic_compare_exchange_strong(&batch->reason, &none, (int) reason);
  atomic_store_explicit(&batch->stop, true, memory_order_relaxed);
  rs_job *job;
  while ((job = batch->queue->claim_of(batch->queue, batch)) != NULL) {
    rs_job_end_queued(job, reason != RS_REASON_NONE ? reason
                                                    : RS_REASON_CANCELLED);
    rs_job_unref(job);
  }
  stop_flying(batch, reason, grace);
  rs_events_wake(batch->events);
}

void
rs_batch_stop (rs_batch *batch)
{
  if (batch != NULL && !is_foreign(batch))
    stop(batch, RS_REASON_NONE, 0);
}

void
rs_batch_cancel (rs_batch *batch, double grace)
{
  if (batch != NULL && !is_foreign(batch))
    stop(batch, RS_REASON_CANCELLED, grace);
}

/* rs_timer: the deadline has passed. */
static void
on_deadline (rs_timer *timer)
{
  stop(RS_LIST_ENTRY(timer, rs_batch, timer), RS_REASON_DEADLINE, RS_GRACE);
}

static void
get_info (rs_batch *batch, rs_batch_info *out)
{
  if (is_foreign(batch)) {  /* nothing is known of it here */
    out->stopped = true;
    return;
  }
  pthread_mutex_lock(&batch->lock);
  out->started = batch->items_started;
  out->finished = batch->items_finished;
  out->failed = batch->items_failed;
  pthread_mutex_unlock(&batch->lock);
  const rs_reason reason = (rs_reason) atomic_load(&batch->reason);
  out->stopped = stopped(batch);
  out->reason = reason != RS_REASON_NONE ? rs_reason_name(reason) : NULL;
  out->added = batch->added;
  out->chunks = batch->chunks;
  out->chunk = batch->last_size;
}

void
rs_batch_info_get_sized (rs_batch *batch, rs_batch_info *out, size_t size)
{
  rs_batch_info info;
  if (out == NULL)
    return;
  memset(&info, 0, sizeof info);  /* the padding, too */
  if (batch != NULL)
    get_info(batch, &info);
  rs_give_sized(out, size, &info, sizeof info);
}

void
rs_batch_close (rs_batch *batch, lua_State *L)
{
  if (batch == NULL || is_foreign(batch))
    return;
  rs_timer_clear(&batch->timer);
  rs_batch_stop(batch);
  leave(batch, L);
  rs_list ended;
  rs_list_init(&ended);
  pthread_mutex_lock(&batch->lock);
  batch->closed = true;
  rs_list *link;
  while ((link = rs_list_shift(&batch->ended)) != NULL)
    rs_list_push(&ended, link);
  pthread_mutex_unlock(&batch->lock);
  while ((link = rs_list_shift(&ended)) != NULL)
    rs_job_unref(job_at(link));
  unref(batch);
}
