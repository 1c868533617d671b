/* SPDX-License-Identifier: MIT */
/*
 * batch.c - a map in flight: opened, filled, stopped, closed.
 *
 *     add --> open chunk --flush--> queue --> worker --> ended --wait-->
 *             (encoder)             (job)               (list)   current
 *                                                                  |
 *                                            record, record, ... <-next
 *
 * A chunk is a job, so the queue and the workers see nothing but jobs.  The
 * thread that opened the batch fills and empties it (batch_read.c); workers
 * only append to 'ended' (chunk.c).  At most 'window' chunks are between flush
 * and wait, which bounds the memory of an endless input or a slow reader.
 *
 * Chunk size.  A chunk should take about TARGET seconds: enough to make the
 * cost of moving it vanish, short enough to keep all workers busy at the
 * end.  Nothing is known at first, so the first chunks have one item; each
 * chunk that has ended corrects the estimate.  Where the number of items is
 * known no chunk takes more than a share of what is left, so that chunks
 * shrink towards the end.  A chunk that takes longer all the same is cut
 * (chunk.c).
 */
#include "pool/batch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "pool/face.h"
#include "value/code.h"
#include "value/wire.h"

#define TARGET 1e-3     /* seconds of work in a chunk */
#define LEAST 20e-6     /* seconds of work in a chunk below which moving it
                           costs too much */
#define MAX_BYTES (256u << 10)
#define MAX_ITEMS 65536.0
#define MAX_EAGER 256.0

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
  rs_gate_free(batch->gate);
  rs_message_unref(batch->function);
  rs_encoder_fini(&batch->items);
  pthread_mutex_destroy(&batch->lock);
  rs_events_drop(batch->events);
  if (batch->limit != 0 && batch->queue->limits != NULL)
    batch->queue->limits(batch->queue, false);
  batch->queue->drop(batch->queue);
  free(batch->given);
  free(batch);
}

/* rs_job_hooks: the job of a chunk gives back its reference to the batch. */
static void
on_free (rs_job *job)
{
  unref(job->batch);
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

int
rs_batch_check (const rs_batch *batch, rs_error *err)
{
  return batch == NULL ? rs_fail_null(err, "batch")
       : rs_batch_foreign(batch) ? rs_fork_fail(err, "batch") : RS_OK;
}

/* Make a gate, if chunks of the batch may have to wait.  False when out of
   memory. */
static bool
make_gate (rs_batch *batch, const rs_batch_options *o)
{
  if (o->rate == 0 && o->key_limit == 0
      && (o->retries == 0 || !(o->retry_delay > 0)))
    return true;
  batch->gate = rs_gate_new(batch, o->rate, o->per, o->key_limit);
  batch->flags |= RS_CALL_PACED;
  if (o->rate > 0 || o->key_limit > 0)
    batch->chunk = 1;
  return batch->gate != NULL;
}

static void on_deadline (rs_timer *timer);

int
rs_batch_new (rs_queue *queue, lua_State *L, int nargs,
              const rs_batch_options *options, rs_batch **out, rs_error *err)
{
  rs_message *function;
  const char *const *const globals =
    options->globals != NULL ? options->globals : queue->globals;
  int status = rs_job_check_retries(queue, options->retry_on, err);
  if (status != RS_OK) {
    lua_settop(L, -nargs - 2);
    return status;
  }
  status = rs_code_encode(L, nargs, queue->forbidden, globals, &function,
                          err);
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
  batch->hooks = (rs_job_hooks) {
    .on_end = rs_chunk_end,
    .on_free = on_free,
    .on_begin = rs_gate_begin,
    .on_put_off = rs_gate_put_off,
    .on_due = rs_gate_due,
    .pause = { options->retry_delay, options->backoff, options->max_delay },
  };
  atomic_init(&batch->refs, 1);
  rs_mutex_init(&batch->lock);
  rs_list_init(&batch->flying);
  rs_list_init(&batch->ended);
  rs_encoder_init(&batch->items, queue->forbidden);
  batch->queue = queue;
  queue->hold(queue);
  batch->function = function;
  batch->items.common = rs_common_of(L, function);
  batch->items.names.anew = true;
  batch->items.gives = globals != RS_NO_GLOBALS;
  batch->flags = options->flags;
  batch->depth = rs_job_nesting(L);
  batch->chunk = queue->fresh ? 1 : options->chunk;
  batch->total = options->total;
  batch->limit = options->limit;
  if (batch->limit != 0 && queue->limits != NULL)
    queue->limits(queue, true);
  batch->window = choose_window(options->limit, queue->width(queue),
                                options->flags);
  batch->cost = -1;
  batch->id = rs_job_next_id();
  rs_batch_limits_get(options, &batch->options);
  if (options->seed != NULL) {
    batch->seed = *options->seed;
    batch->options.seed = &batch->seed;
  }
  batch->options.name = batch->text;
  if (options->name == NULL)
    rs_job_make_name(batch->text, "batch", batch->id);
  else
    batch->options.name = batch->given = strdup(options->name);
  batch->shared = options->events != NULL;
  atomic_init(&batch->allowed, options->max_failures != 0
                               ? options->max_failures
                               : !(options->flags & RS_BATCH_CONTINUE));
  batch->limited = atomic_load(&batch->allowed) != 0;
  rs_timer_init(&batch->timer, on_deadline);
  batch->events = batch->shared ? rs_events_hold(options->events)
                                : rs_events_new();
  if (batch->options.name == NULL || batch->events == NULL
      || !make_gate(batch, options)) {
    unref(batch);
    return rs_fail_plain(err, RS_ENOMEM);
  }
  batch->options.events = batch->events;
  batch->options.listen = batch->shared ? options->listen : 0;
  if (options->deadline > 0
      && !rs_timer_set(&batch->timer, rs_deadline(options->deadline))) {
    unref(batch);
    return rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                    "see to the deadline");
  }
  if ((options->timeout > 0 || batch->gate != NULL) && !rs_timers_start()) {
    const char *const what = batch->gate != NULL ? "delays" : "time-out";
    unref(batch);
    return rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                    "see to the %s", what);
  }
  *out = batch;
  return RS_OK;
}

uint64_t
rs_batch_id (const rs_batch *batch)
{
  return batch != NULL ? batch->id : 0;
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
  batch->window = choose_window(batch->limit,
                                batch->queue->width(batch->queue),
                                batch->flags);
  const bool full = batch->gate != NULL ? rs_gate_is_full_locked(batch)
                                        : batch->in_flight >= batch->window;
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
  if (batch == NULL || rs_batch_foreign(batch) || batch->finished
      || rs_batch_stopped(batch))
    return 0;
  if (batch->count > 0)  /* is a chunk open? */
    return batch->items.buf.size < MAX_BYTES && batch->want > batch->count
           ? batch->want - batch->count : 0;
  batch->want = choose_size(batch);
  return batch->want;
}

/* Refuse to change the open chunk while an item is added to it: the call comes
   from a '__transfer' of that item. */
static int
fail_busy (rs_error *err)
{
  return rs_fail(err, RS_EBUSY, "the batch is busy: it is called while an "
                                "item is added to it");
}

int
rs_batch_flush (rs_batch *batch, rs_error *err)
{
  if (rs_batch_check(batch, err) != RS_OK)
    return RS_EINVAL;
  if (batch->encoding)
    return fail_busy(err);
  const size_t count = batch->count;
  if (count == 0)
    return RS_OK;
  rs_message *items = NULL;
  rs_job *job = NULL;
  if (batch->range || (items = rs_encoder_message(&batch->items)) != NULL)
    job = rs_chunk_new(batch, items, 0);
  const bool range = batch->range;
  rs_message_unref(items);
  rs_encoder_clear(&batch->items);  /* sent, or lost with the error */
  batch->count = 0;
  batch->range = false;
  if (job == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_chunk *const chunk = job->call.chunk;
  rs_batch_part_of(job)->items = chunk->count = count;
  chunk->arity = batch->arity;
  chunk->index = (lua_Integer) (batch->added - count) + 1;
  if (range) {
    chunk->first = batch->first;
    chunk->step = batch->step;
  }
  if (batch->gate != NULL)
    rs_batch_part_of(job)->gate.key = batch->gate->key;
  const int status = rs_chunk_push(batch, job, 0, err);
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
  if (rs_batch_foreign(batch) || batch->encoding) {
    lua_settop(L, base);
    return batch->encoding ? fail_busy(err) : rs_fork_fail(err, "batch");
  }
  status = open_item(batch, n, err);
  rs_encoder_start(&batch->items);
  const rs_mark mark = rs_encoder_mark(&batch->items);
  batch->encoding = true;
  for (int i = 1; i <= n && status == RS_OK; i++) {
    status = rs_encode_value(&batch->items, L, base + i, "");
    if (status == RS_ENOMEM)
      rs_fail_plain(err, status);
    else if (status != RS_OK && n > 1)
      rs_fail(err, status, "item %zu: value %d: %s", batch->added + 1, i,
              batch->items.error);
    else if (status != RS_OK)
      rs_fail(err, status, "item %zu: %s", batch->added + 1,
              batch->items.error);
  }
  batch->encoding = false;
  lua_settop(L, base);
  if (batch->closing) {
    rs_batch_close(batch, L);
    return rs_fail_plain(err, RS_ECLOSED);
  }
  rs_encoder_forget(&batch->items);
  if (status != RS_OK) {
    rs_encoder_rewind(&batch->items, &mark);
    return status;
  }
  batch->count++;
  batch->added++;
  return RS_OK;
}

/* Check that a value at 'index' has fields 'from', from + 1, ..., 'n' of
   them. */
static int
check_array (lua_State *L, int index, lua_Integer from, size_t n,
             rs_error *err)
{
  const int top = lua_gettop(L);
  if (index == 0 || (index > LUA_REGISTRYINDEX && index < -top)
      || lua_isnone(L, index))
    return rs_fail(err, RS_EINVAL, "index (%d) has no value on the stack, "
                                   "which has %d", index, top);
  if (lua_type(L, index) != LUA_TTABLE) {
    if (luaL_getmetafield(L, index, "__index") == LUA_TNIL)
      return rs_fail(err, RS_EINVAL, "index (%d) has a %s, which has no "
                                     "fields", index, luaL_typename(L, index));
    lua_pop(L, 1);
  }
  if (n > 0 && from > 0
      && n - 1 > (lua_Unsigned) LUA_MAXINTEGER - (lua_Unsigned) from)
    return rs_fail(err, RS_EINVAL, "from (%lld) is too large for %zu fields",
                   (long long) from, n);
  return RS_OK;
}

int
rs_batch_add_array (rs_batch *batch, lua_State *L, int index, lua_Integer from,
                    size_t n, size_t *added, rs_error *err)
{
  if (batch == NULL || L == NULL || added == NULL)
    return rs_fail_null(err, batch == NULL ? "batch" : L == NULL ? "L"
                                                                 : "added");
  if (rs_batch_foreign(batch))
    return rs_fork_fail(err, "batch");
  if (batch->encoding)
    return fail_busy(err);
  const int checked = check_array(L, index, from, n, err);
  if (checked != RS_OK)
    return checked;
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

/* True when the last of 'count' numbers, first, first + step, ..., is an
   integer, too. */
static bool
fits_range (lua_Integer first, lua_Integer step, size_t count)
{
  lua_Integer last;
  return count == 0 || step == 0
      || (count - 1 <= (lua_Unsigned) LUA_MAXINTEGER
          && !__builtin_mul_overflow((lua_Integer) (count - 1), step, &last)
          && !__builtin_add_overflow(first, last, &last));
}

int
rs_batch_add_range (rs_batch *batch, lua_Integer first, lua_Integer step,
                    size_t count, rs_error *err)
{
  if (rs_batch_check(batch, err) != RS_OK)
    return RS_EINVAL;
  if (batch->finished)
    return rs_fail_plain(err, RS_ECLOSED);
  if (!fits_range(first, step, count))
    return rs_fail(err, RS_EINVAL, "the last one of %zu integers from %lld in "
                                   "steps of %lld is none", count,
                   (long long) first, (long long) step);
  const int status = rs_batch_flush(batch, err);  /* or the batch is busy */
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
rs_batch_pass (rs_batch *batch, rs_error *err)
{
  const int status = rs_batch_flush(batch, err);
  if (status == RS_OK)
    batch->added++;
  return status;
}

int
rs_batch_key (rs_batch *batch, const char *key, size_t size, rs_error *err)
{
  if (rs_batch_check(batch, err) != RS_OK)
    return RS_EINVAL;
  if (batch->gate == NULL || !rs_gate_has_keys(batch->gate))
    return rs_fail(err, RS_EINVAL, "the batch has no key_limit: give it when "
                                   "the batch is opened");
  return rs_gate_set_key(batch, key, size) ? RS_OK
                                           : rs_fail_plain(err, RS_ENOMEM);
}

int
rs_batch_finish (rs_batch *batch, rs_error *err)
{
  const int status = rs_batch_flush(batch, err);
  if (batch != NULL && !rs_batch_foreign(batch) && status != RS_EBUSY)
    batch->finished = true;
  return status;
}

/* ---------------------------------------------------------------- stopping */

void
rs_batch_stop (rs_batch *batch)
{
  if (batch != NULL && !rs_batch_foreign(batch))
    rs_batch_stop_for(batch, RS_REASON_NONE, 0);
}

void
rs_batch_cancel (rs_batch *batch, double grace)
{
  if (batch != NULL && !rs_batch_foreign(batch))
    rs_batch_stop_for(batch, RS_REASON_CANCELLED, grace);
}

/* rs_timer: the deadline has passed. */
static void
on_deadline (rs_timer *timer)
{
  rs_batch_stop_for(RS_LIST_ENTRY(timer, rs_batch, timer),
                    RS_REASON_DEADLINE, RS_GRACE);
}

/* ------------------------------------------------------------- information */

static void
get_info (rs_batch *batch, rs_batch_info *out)
{
  if (rs_batch_foreign(batch)) {  /* nothing is known of it here */
    out->stopped = true;
    return;
  }
  pthread_mutex_lock(&batch->lock);
  out->started = out->finished = batch->items_ended;
  out->failed = batch->items_failed;
  pthread_mutex_unlock(&batch->lock);
  const rs_reason reason = (rs_reason) atomic_load(&batch->reason);
  out->stopped = rs_batch_stopped(batch);
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

/* ------------------------------------------------------------------ ending */

void
rs_batch_leave (rs_batch *batch, lua_State *L)
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

void
rs_batch_close (rs_batch *batch, lua_State *L)
{
  if (batch == NULL || rs_batch_foreign(batch))
    return;
  if (batch->encoding || batch->decoding) {  /* in use, up the C stack */
    batch->closing = true;
    rs_batch_stop(batch);
    return;
  }
  rs_timer_clear(&batch->timer);
  rs_batch_stop(batch);
  rs_gate_close(batch->gate);
  rs_batch_leave(batch, L);
  rs_list ended;
  rs_list_init(&ended);
  pthread_mutex_lock(&batch->lock);
  batch->closed = true;
  rs_list *link;
  while ((link = rs_list_shift(&batch->ended)) != NULL)
    rs_list_push(&ended, link);
  pthread_mutex_unlock(&batch->lock);
  while ((link = rs_list_shift(&ended)) != NULL)
    rs_job_unref(rs_batch_job_at(link));
  unref(batch);
}
