/* SPDX-License-Identifier: MIT */
/*
 * gate.c - which chunks of a batch wait, and when they may begin.
 *
 * The opener brings chunks here, and workers end them; the timer thread lets
 * them go when time has passed.
 */
#include "pool/batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Items of the same key. */
struct rs_gate_key {
  rs_list link;       /* in 'keys' of the gate */
  rs_list waiting;    /* parts that are KEYED, oldest first */
  unsigned at_work;   /* chunks that are READY or GONE */
  size_t refs;        /* the opener's, and one for each chunk in flight */
  size_t size;
  char text[];
};

enum { KEYS = sizeof ((rs_gate *) 0)->keys / sizeof(rs_list) };

static rs_job *
job_of (rs_batch_part *part)
{
  return rs_batch_job_at(&part->link);
}

static rs_batch_part *
part_at (rs_list *link)
{
  return RS_LIST_ENTRY(link, rs_batch_part, gate.link);
}

/* -------------------------------------------------------------- life cycle */

/* rs_timer: a permit has come back. */
static void
on_back (rs_timer *timer)
{
  rs_batch *const batch = RS_LIST_ENTRY(timer, rs_gate, timer)->batch;
  /* The opener of a batch that was not stopped has a reference, which it drops
     after 'rs_gate_close' alone. */
  if (!atomic_load(&batch->stop))
    rs_gate_look(batch);
}

rs_gate *
rs_gate_new (rs_batch *batch, unsigned rate, double per, unsigned key_limit)
{
  rs_gate *const gate = calloc(1, sizeof *gate);
  if (gate == NULL)
    return NULL;
  gate->batch = batch;
  gate->rate = gate->permits = rate;
  gate->per = per;
  gate->key_limit = key_limit;
  rs_list_init(&gate->ready);
  for (size_t i = 0; i < KEYS; i++)
    rs_list_init(&gate->keys[i]);
  rs_timer_init(&gate->timer, on_back);
  if (rate > 0 && (gate->back = calloc(rate, sizeof *gate->back)) == NULL) {
    free(gate);
    return NULL;
  }
  return gate;
}

void
rs_gate_free (rs_gate *gate)
{
  if (gate == NULL)
    return;
  rs_timer_clear(&gate->timer);
  free(gate->key);  /* no chunk is left that has it */
  free(gate->back);
  free(gate);
}

void
rs_gate_close (rs_gate *gate)
{
  if (gate != NULL)
    rs_timer_clear(&gate->timer);
}

/* -------------------------------------------------------------------- keys */

static rs_list *
bucket (rs_gate *gate, const char *key, size_t size)
{
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < size; i++)
    h = (h ^ (unsigned char) key[i]) * 16777619u;
  return &gate->keys[(h ^ h >> 16) % KEYS];
}

static rs_gate_key *
find_locked (rs_list *keys, const char *key, size_t size)
{
  for (rs_list *link = keys->next; link != keys; link = link->next) {
    rs_gate_key *const k = RS_LIST_ENTRY(link, rs_gate_key, link);
    if (k->size == size && memcmp(k->text, key, size) == 0)
      return k;
  }
  return NULL;
}

/* Find the key, or make it; the reference is the caller's.  NULL when out of
   memory. */
static rs_gate_key *
get_locked (rs_gate *gate, const char *key, size_t size)
{
  rs_list *const keys = bucket(gate, key, size);
  rs_gate_key *k = find_locked(keys, key, size);
  if (k == NULL && (k = calloc(1, sizeof *k + size)) != NULL) {
    rs_list_init(&k->waiting);
    k->size = size;
    memcpy(k->text, key, size);
    rs_list_push(keys, &k->link);
  }
  if (k != NULL)
    k->refs++;
  return k;
}

static void
drop_locked (rs_gate_key *k)
{
  if (k == NULL || --k->refs > 0)
    return;
  rs_list_remove(&k->link);
  free(k);
}

bool
rs_gate_set_key (rs_batch *batch, const char *key, size_t size)
{
  rs_gate *const gate = batch->gate;
  pthread_mutex_lock(&batch->lock);
  rs_gate_key *const k = key != NULL ? get_locked(gate, key, size) : NULL;
  const bool ok = key == NULL || k != NULL;
  if (ok) {
    drop_locked(gate->key);
    gate->key = k;
  }
  pthread_mutex_unlock(&batch->lock);
  return ok;
}

/* ----------------------------------------------------- from stage to stage */

/* The place of the part among those of its key is there. */
static void
make_ready_locked (rs_gate *gate, rs_batch_part *part)
{
  part->gate.stage = RS_GATE_READY;
  rs_list_push(&gate->ready, &part->gate.link);
  gate->n_ready++;
  if (part->gate.key != NULL)
    part->gate.key->at_work++;
}

/* Give up the place of a part among those of its key. */
static void
give_place_locked (rs_gate *gate, rs_gate_key *key)
{
  rs_list *link;
  if (key == NULL)
    return;
  key->at_work--;
  if ((link = rs_list_shift(&key->waiting)) != NULL)
    make_ready_locked(gate, part_at(link));
}

/* Take a part that does not wait for time back to its beginning. */
static void
take_back_locked (rs_gate *gate, rs_batch_part *part)
{
  const rs_gate_stage stage = part->gate.stage;
  rs_list_remove(&part->gate.link);
  gate->n_ready -= stage == RS_GATE_READY;
  if (stage == RS_GATE_READY || stage == RS_GATE_GONE)
    give_place_locked(gate, part->gate.key);
  if (stage == RS_GATE_GONE && gate->rate > 0 && !part->gate.begun)
    gate->permits++;
  part->gate.begun = false;
}

bool
rs_gate_is_full_locked (const rs_batch *batch)
{
  const rs_gate *const gate = batch->gate;
  return batch->in_flight - gate->held >= batch->window
      || gate->n_ready >= batch->window || gate->held >= RS_BATCH_HELD;
}

void
rs_gate_enter_locked (rs_batch *batch, rs_batch_part *part, bool waits)
{
  rs_gate *const gate = batch->gate;
  rs_list_init(&part->gate.link);
  if (part->gate.key != NULL)
    part->gate.key->refs++;
  part->gate.stage = waits ? RS_GATE_PAUSED : RS_GATE_GONE;
  gate->held += waits;
}

void
rs_gate_leave_locked (rs_batch *batch, rs_batch_part *part)
{
  rs_gate *const gate = batch->gate;
  gate->held -= part->gate.stage != RS_GATE_GONE;
  take_back_locked(gate, part);
  part->gate.stage = RS_GATE_ENDED;
  drop_locked(part->gate.key);
  part->gate.key = NULL;
}

/* Take the next chunk that may go, a reference; NULL: there is none now.
   '*due': when the next permit comes back that one waits for. */
static rs_job *
next_locked (rs_batch *batch, double *due)
{
  rs_gate *const gate = batch->gate;
  if (rs_list_empty(&gate->ready)
      || batch->in_flight - gate->held >= batch->window)
    return NULL;
  const double now = gate->n > 0 ? rs_now() : 0;
  while (gate->n > 0 && gate->back[gate->first] <= now) {
    gate->first = (gate->first + 1) % gate->rate;
    gate->n--;
    gate->permits++;
  }
  if (gate->rate > 0 && gate->permits == 0) {
    *due = gate->n > 0 ? gate->back[gate->first] : RS_NEVER;
    return NULL;
  }
  rs_batch_part *const part = part_at(rs_list_shift(&gate->ready));
  gate->n_ready--;
  gate->held--;
  gate->permits -= gate->rate > 0;
  part->gate.stage = RS_GATE_GONE;
  return rs_job_ref(job_of(part));
}

/* End the chunks that wait, since the batch was stopped.  The end of one comes
   back here. */
static void
end_waiting (rs_batch *batch)
{
  rs_gate *const gate = batch->gate;
  if (atomic_fetch_add(&gate->ends, 1) > 0)
    return;  /* the thread that is there looks once more */
  unsigned seen;
  do {
    seen = atomic_load(&gate->ends);
    rs_batch_end_queued(batch, (rs_reason) atomic_load(&batch->reason));
  } while (atomic_fetch_sub(&gate->ends, seen) != seen);
}

void
rs_gate_look (rs_batch *batch)
{
  rs_gate *const gate = batch->gate;
  if (rs_batch_stopped(batch)) {
    end_waiting(batch);
    return;
  }
  double due = RS_NEVER;
  rs_job *job;
  size_t n = 0;
  do {
    pthread_mutex_lock(&batch->lock);
    job = next_locked(batch, &due);
    pthread_mutex_unlock(&batch->lock);
    if (job != NULL) {
      batch->queue->release(batch->queue, job);
      rs_job_unref(job);
      n++;
    }
  } while (job != NULL);
  if (due != RS_NEVER)
    rs_timer_set(&gate->timer, due);
  if (n > 0 && batch->depth > 0)  /* can the opener run them itself? */
    rs_events_wake(batch->events);
}

/* ------------------------------------------------------------------- hooks */

void
rs_gate_begin (rs_job *job)
{
  rs_batch *const batch = job->batch;
  rs_gate *const gate = batch->gate;
  rs_gate_part *const part = &rs_batch_part_of(job)->gate;
  if (gate->rate == 0)
    return;
  pthread_mutex_lock(&batch->lock);
  if (part->stage == RS_GATE_GONE && !part->begun) {
    part->begun = true;
    gate->back[(gate->first + gate->n++) % gate->rate] = rs_now() + gate->per;
  }
  const bool wanted = gate->n_ready > 0;
  pthread_mutex_unlock(&batch->lock);
  if (wanted)
    rs_gate_look(batch);
}

void
rs_gate_put_off (rs_job *job)
{
  rs_batch *const batch = job->batch;
  rs_batch_part *const part = rs_batch_part_of(job);
  pthread_mutex_lock(&batch->lock);
  if (part->gate.stage == RS_GATE_GONE) {
    take_back_locked(batch->gate, part);
    part->gate.stage = RS_GATE_PAUSED;
    batch->gate->held++;
  }
  pthread_mutex_unlock(&batch->lock);
  rs_gate_look(batch);
}

void
rs_gate_due (rs_job *job)
{
  rs_batch *const batch = job->batch;
  rs_batch_part *const part = rs_batch_part_of(job);
  rs_gate *const gate = batch->gate;
  pthread_mutex_lock(&batch->lock);
  if (part->gate.stage != RS_GATE_PAUSED) {
    pthread_mutex_unlock(&batch->lock);
    return;  /* it has ended, and may have no references any more */
  }
  rs_job_ref(job);
  rs_gate_key *const key = part->gate.key;
  if (key != NULL && key->at_work >= gate->key_limit) {
    part->gate.stage = RS_GATE_KEYED;
    rs_list_push(&key->waiting, &part->gate.link);
  }
  else
    make_ready_locked(gate, part);
  pthread_mutex_unlock(&batch->lock);
  rs_gate_look(batch);
  rs_job_unref(job);
}
