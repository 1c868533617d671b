/* SPDX-License-Identifier: MIT */
/*
 * batch_read.c - what became of the items of a batch.
 *
 * The thread that opened the batch takes a chunk that has ended, and reads the
 * record of each item from the result of that chunk (call.h).  A record that
 * cannot be read, or whose values cannot be rebuilt, fails its item; where
 * nothing tells any more where the next record begins, the rest of the chunk
 * fails.
 */
#include "pool/batch.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/level.h"
#include "base/options.h"
#include "base/status.h"
#include "pool/face.h"
#include "state/rebuild.h"
#include "value/wire.h"

/* The text of 'unreadable' for a message that cannot be read. */
static const char bad_message[] = "bad message";

/* ----------------------------------------------------------------- waiting */

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
  if (link != NULL && batch->gate != NULL)
    rs_gate_look(batch);  /* there is room for one that waits */
  return link != NULL ? rs_batch_job_at(link) : NULL;
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

static int
wait_for_chunk (rs_batch *batch, lua_State *L, double timeout)
{
  const double deadline = rs_deadline(timeout);
  rs_state *const s = rs_job_helper(batch->queue, L);
  rs_batch_leave(batch, L);
  bool over = false;
  rs_job *ended;
  while ((ended = take_ended(batch)) == NULL) {
    if (idle(batch))
      return batch->finished || rs_batch_stopped(batch) ? RS_EDONE : RS_EBUSY;
    if (rs_cancel_pending(rs_cancel_mine())) {
      rs_batch_stop_for(batch, RS_REASON_PARENT,
                        rs_cancel_grace(rs_cancel_mine()));
      return RS_ESTOPPED;
    }
    if (batch->shared && rs_events_pending(batch->events))
      return RS_EEVENT;
    if (over)
      return RS_ETIMEOUT;
    rs_job *job = NULL;
    if (s != NULL && timeout != 0  /* in a runspace: run a chunk here? */
        && rs_job_can_help(batch->queue, s, NULL, batch))
      job = batch->queue->claim_of(batch->queue, batch, RS_CLAIM_TO_RUN);
    if (job != NULL)
      rs_job_run(job, s, L);
    else
      over = rs_events_wait(batch->events, timeout == 0 ? 0
                            : rs_remaining(deadline)) == RS_ETIMEOUT;
    if (job == NULL && !over && batch->shared && !has_ended(batch))
      return RS_EEVENT;  /* woken for something else, which may matter */
  }
  batch->current = ended;
  batch->position = 0;
  batch->good = 0;
  batch->unreadable = NULL;
  batch->careful = false;
  batch->after = 0;
  return RS_OK;
}

int
rs_batch_wait (rs_batch *batch, lua_State *L, double timeout)
{
  if (rs_batch_check(batch, NULL) != RS_OK
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  if (rs_batch_is_reading(batch, L))
    return RS_EBUSY;
  const int status = wait_for_chunk(batch, L, timeout);
  if (L != NULL)
    rs_job_unblock(L);
  return status;
}

/* ---------------------------------------------------- the head of a record */

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
  const size_t left = rs_batch_part_of(batch->current)->items
                    - batch->position;
  return ended >= RS_JOB_COMPLETED && ended <= RS_JOB_LOST
      && state >> 4 < RS_REASONS && h->good <= left
      && (rs_job_state_good(ended) || h->values == 3)
      && h->values < INT_MAX / 2 && h->values <= h->in.size - h->in.at;
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
    rec->queued = rs_wire_get_double(more) - batch->current->created;
    rec->duration = rs_wire_get_double(more + 8);
    h->values = rs_wire_get32(more + 16);
    rec->attempts = rs_wire_get32(more + 20);
  }
  if (!is_possible(batch, h, state))
    return false;
  rec->state = (rs_job_state) (state & 0xf);
  rec->reason = rs_job_end_reason(rec->state, (rs_reason) (state >> 4));
  h->wanted = completed ? h->values : 2;  /* not the text of an error */
  return true;
}

/* -------------------------------------------------- the values of a record */

/* (head) -> the values of its record */
static int
make_values (lua_State *L)
{
  head *const h = lua_touserdata(L, 1);
  lua_settop(L, 0);
  if (h->objects) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, h->batch) != LUA_TTABLE)
      luaL_error(L, "what the registry of this state had was replaced");
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
  rs_batch_count_failure(batch);
  if (rs_batch_foreign(batch))  /* has what makes the values forked? */
    return;
  pthread_mutex_lock(&batch->lock);
  batch->items_failed++;
  pthread_mutex_unlock(&batch->lock);
}

/* [-0, +0, -]  'rs_rebuild_tell', during which a hook may run. */
static void
tell (rs_batch *batch, lua_State *L, int text, const char *what, int was)
{
  batch->decoding = true;
  rs_rebuild_tell(L, text, what, was);
  batch->decoding = false;
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
    tell(batch, L, text, h->values == 1 ? "the result" : "a result", 0);
    fail_record(batch, rec);
    pass_values(batch, &h->in, h->values);
    return;
  }
  int was = 0;
  if (skip(&h->in, 1)) {
    h->wanted = 2;
    if (rs_rebuild_busy(L, make_values, h, &batch->decoding)
        == 2) {  /* traceback, text */
      was = text + 3;
      lua_pushvalue(L, text + 2);
      lua_replace(L, text + 1);
    }
  }
  tell(batch, L, text, "the error", was);
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
  if (!batch->reading
      && rs_rebuild_busy(L, open_reader, batch, &batch->decoding) < 0) {
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
  if (h.wanted == 1 && rs_decoder_is_plain(&h.in)) {
    rs_level_room(L, 1, NULL);
    rs_decode_value(&h.in, L);
  }
  else {
    const rs_decoder_place place = rs_decoder_tell(&h.in);
    if (h.wanted > 0
        && rs_rebuild_busy(L, make_values, &h, &batch->decoding) < 0)
      refuse_record(batch, L, &h, &place, rec);
    else if (h.values > h.wanted)
      pass_values(batch, &h.in, h.values - h.wanted);
  }
  batch->reader = h.in;
  batch->good = h.good > 0 ? h.good - 1 : 0;
  rec->n = lua_gettop(L) - top;
}

/* ------------------------------------------------------------------- items */

/* True when a chunk is being read, and the item at 'position' was run. */
static bool
has_record (const rs_batch *batch)
{
  const rs_job *const job = batch->current;
  return job != NULL && batch->position < rs_batch_part_of(job)->items
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
      || rs_batch_foreign(batch) || rs_batch_is_reading(batch, L)
      || !has_record(batch))
    return 0;
  taking t = { .in = batch->reader, .batch = batch };
  rs_level_room(L, LUA_MINSTACK, NULL);
  index = lua_absindex(L, index);
  lua_pushcfunction(L, take_scalars);
  lua_pushlightuserdata(L, &t);
  lua_pushvalue(L, index);
  batch->decoding = true;
  const int status = lua_pcall(L, 2, 0, 0);
  batch->decoding = false;
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

/* The arguments of 'push_failure_of'. */
typedef struct pushing {
  rs_job *job;
  int n;
} pushing;

/* (pushing) -> the failure of its job */
static int
push_failure_of (lua_State *L)
{
  pushing *const p = lua_touserdata(L, 1);
  lua_settop(L, 0);
  rs_job_push(p->job, L, &p->n);
  return p->n;
}

/* [-0, +rec->n, e]  Push the failure of the job of the current chunk. */
static void
push_job (rs_batch *batch, lua_State *L, rs_record *rec)
{
  pushing p = { .job = batch->current };
  rs_level_room(L, LUA_MINSTACK, NULL);
  lua_pushcfunction(L, push_failure_of);
  lua_pushlightuserdata(L, &p);
  batch->decoding = true;
  const int status = lua_pcall(L, 1, LUA_MULTRET, 0);
  batch->decoding = false;
  if (status != LUA_OK)
    lua_error(L);
  rec->n = p.n;
}

/* [-0, +rec->n, e]  Do 'rs_batch_next' for a record of our own size. */
static int
take_next (rs_batch *batch, lua_State *L, rs_record *rec)
{
  if (batch->current == NULL)
    return RS_EDONE;
  const rs_job *const job = batch->current;
  const rs_job_state state = rs_job_state_now(job);
  const rs_batch_part *const part = rs_batch_part_of(job);
  if (batch->position == part->items) {
    rs_batch_leave(batch, L);
    return RS_EDONE;
  }
  /* A job is not written to after its end, but for the call of a lost one. */
  const bool ran = has_record(batch);
  rec->index = job->call.chunk->index + (lua_Integer) batch->position;
  const rs_job_more *const more = rs_job_more_of(job);
  rec->worker = job->worker;
  rec->host = more != NULL ? more->host : NULL;
  rec->queued = rec->duration = 0;
  rec->n = 0;
  rec->attempts = state == RS_JOB_LOST ? job->call.chunk->losses + 1 : 0;
  if (ran)
    read_record(batch, L, rec);
  else if (batch->unreadable != NULL) {
    push_failure(L, rec, batch->unreadable);
    fail_record(batch, rec);
  }
  else if (batch->position + part->left >= part->items) {
    push_failure(L, rec, rs_status_message(part->why));
    rec->attempts = 0;
  }
  else if (state == RS_JOB_FAILED) {  /* was no item reached? */
    rec->state = RS_JOB_FAILED;
    rec->reason = rs_job_reason(job);
    push_job(batch, L, rec);
  }
  else {
    rs_reason reason = rs_job_stop_reason(job);
    if (reason == RS_REASON_NONE)
      reason = (rs_reason) atomic_load_explicit(&batch->reason,
                                                memory_order_relaxed);
    rec->state = state != RS_JOB_COMPLETED ? state
               : reason != RS_REASON_NONE ? rs_reason_state(reason)
               : RS_JOB_CANCELLED;
    rec->reason = rs_job_end_reason(rec->state, reason != RS_REASON_NONE
                                                ? reason
                                                : RS_REASON_CANCELLED);
    if (rs_job_failure(job) != NULL)
      push_job(batch, L, rec);
  }
  batch->position++;
  return RS_OK;
}

/* [-0, +rec->n, e]  'take_next', which nothing enters a second time. */
static int
next_record (rs_batch *batch, lua_State *L, rs_record *rec)
{
  if (rs_batch_is_reading(batch, L))
    return RS_EBUSY;
  const int top = lua_gettop(L);
  batch->taking = true;
  const int status = batch->closing ? RS_OK : take_next(batch, L, rec);
  batch->taking = false;
  if (!batch->closing)
    return status;
  lua_settop(L, top);
  rs_batch_close(batch, L);
  return RS_ECLOSED;
}

int
rs_batch_next_sized (rs_batch *batch, lua_State *L, rs_record *rec,
                     size_t size)
{
  if (rs_batch_check(batch, NULL) != RS_OK || L == NULL || rec == NULL)
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

rs_stream_record *
rs_batch_record (rs_batch *batch)
{
  if (batch == NULL || rs_batch_foreign(batch) || batch->current == NULL
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
