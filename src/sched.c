/* SPDX-License-Identifier: MIT */
/*
 * sched.c - which job goes to which free worker.
 *
 * To wake a worker that sleeps takes longer than many a job.  So whoever
 * submits wakes one at a time: until that one is there the jobs that come are
 * queued, where workers that are awake find them, too; and it wakes two more
 * for what is left, and so on.
 */
#include "sched.h"

#include <assert.h>
#include <stdatomic.h>

#include "clock.h"
#include "spin.h"

void
rs_sched_init (rs_sched *s)
{
  rs_mutex_init(&s->lock);
  for (int i = 0; i < RS_LANES; i++)
    rs_list_init(&s->lanes[i]);
  rs_list_init(&s->idle);
  s->queued = s->calls = s->bytes = s->running = s->seated = s->waking = 0;
  s->finished = 0;
  s->closed = false;
}

void
rs_sched_fini (rs_sched *s)
{
  assert(s->queued == 0 && rs_list_empty(&s->idle));
  pthread_mutex_destroy(&s->lock);
}

void
rs_seat_init (rs_seat *seat)
{
  rs_list_init(&seat->link);
  seat->job = NULL;
  seat->handed = seat->asleep = seat->woken = false;
  atomic_init(&seat->called, false);
  rs_cond_init(&seat->wake);
}

void
rs_seat_fini (rs_seat *seat)
{
  pthread_cond_destroy(&seat->wake);
}

static bool
is_called (const void *ud)
{
  const rs_seat *const seat = ud;
  return atomic_load_explicit(&seat->called, memory_order_relaxed);
}

static void
call_locked (rs_seat *seat)
{
  atomic_store_explicit(&seat->called, true, memory_order_relaxed);
  if (seat->asleep)
    pthread_cond_signal(&seat->wake);
}

/* Give the job to the idle worker at 'seat'. */
static void
hand_locked (rs_sched *s, rs_seat *seat, rs_job *job)
{
  rs_list_remove(&seat->link);
  s->seated--;
  s->running++;
  s->waking += seat->asleep;
  seat->woken = seat->asleep;
  seat->job = job;
  seat->handed = true;
  call_locked(seat);
}

/* A worker that was woken is there: it wakes two more, if there is work. */
static void
pass_on_locked (rs_sched *s)
{
  s->waking--;
  for (int i = 0; i < 2 && s->queued > 0 && !rs_list_empty(&s->idle); i++)
    hand_locked(s, RS_LIST_ENTRY(s->idle.next, rs_seat, link),
                rs_sched_claim_of_locked(s, NULL));
}

bool
rs_sched_push_locked (rs_sched *s, rs_job *job)
{
  rs_seat *const seat = rs_list_empty(&s->idle) ? NULL
                      : RS_LIST_ENTRY(s->idle.next, rs_seat, link);
  if (seat == NULL || (seat->asleep && s->waking > 0)) {
    rs_list_push(&s->lanes[RS_PRIORITY_MAX - job->priority], &job->link);
    s->queued++;
    if (job->batch == NULL) {
      s->calls++;
      s->bytes += job->bytes;
    }
    return false;
  }
  hand_locked(s, seat, job);
  return true;
}

static rs_job *
take_queued_locked (rs_sched *s, rs_seat *seat)
{
  rs_job *const job = rs_sched_claim_of_locked(s, NULL);
  if (job != NULL) {
    s->running++;
    seat->job = job;
  }
  return job;
}

rs_job *
rs_sched_take_locked (rs_sched *s, rs_seat *seat, double deadline)
{
  assert(seat->job == NULL);
  rs_job *const job = take_queued_locked(s, seat);
  if (job != NULL)
    return job;
  if (s->closed)
    return NULL;
  rs_list_push_front(&s->idle, &seat->link);
  s->seated++;
  atomic_store_explicit(&seat->called, false, memory_order_relaxed);
  pthread_mutex_unlock(&s->lock);
  rs_spin(is_called, seat, true);
  pthread_mutex_lock(&s->lock);
  int status = RS_OK;
  seat->asleep = true;
  while (!seat->handed && !s->closed && status == RS_OK)
    status = rs_cond_wait_until(&seat->wake, &s->lock, deadline);
  seat->asleep = false;
  if (!seat->handed) {  /* time over, or closed? */
    rs_list_remove(&seat->link);
    s->seated--;
    return take_queued_locked(s, seat);
  }
  if (seat->woken)
    pass_on_locked(s);
  seat->handed = seat->woken = false;
  return seat->job;
}

void
rs_sched_done_locked (rs_sched *s, rs_seat *seat)
{
  seat->job = NULL;
  s->running--;
  s->finished++;
}

bool
rs_sched_claim_locked (rs_sched *s, rs_job *job)
{
  if (rs_list_empty(&job->link))  /* in no queue? */
    return false;
  rs_list_remove(&job->link);
  s->queued--;
  if (job->batch == NULL) {
    s->calls--;
    s->bytes -= job->bytes;
  }
  return true;
}

/* The oldest job of 'batch', of any with NULL, in this lane; or NULL. */
static rs_job *
find (rs_list *lane, const rs_batch *batch)
{
  for (rs_list *link = lane->next; link != lane; link = link->next) {
    rs_job *const job = RS_LIST_ENTRY(link, rs_job, link);
    if (batch == NULL || job->batch == batch)
      return job;
  }
  return NULL;
}

rs_job *
rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch)
{
  rs_job *job = NULL;
  for (int i = 0; s->queued > 0 && job == NULL && i < RS_LANES; i++)
    job = find(&s->lanes[i], batch);
  if (job != NULL)
    rs_sched_claim_locked(s, job);
  return job;
}

void
rs_sched_close_locked (rs_sched *s)
{
  s->closed = true;
  for (rs_list *link = s->idle.next; link != &s->idle; link = link->next)
    call_locked(RS_LIST_ENTRY(link, rs_seat, link));
}
