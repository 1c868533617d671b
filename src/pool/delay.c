/* SPDX-License-Identifier: MIT */
/*
 * delay.c - jobs that may not begin yet.
 *
 * A timer for each of them fires on the timer thread.  It finds the job in the
 * list of the scheduler, or does nothing: then a thread has ended the job
 * before, and is about to free it when this timer has returned.
 */
#include "pool/delay.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"

#define LONGEST 1e9   /* seconds: a pause that has grown beyond all use */

/* A number from 0 to 1 that differs from job to job, and from process to
   process. */
static double
dice (void)
{
  const double now = rs_now();
  uint64_t x;
  memcpy(&x, &now, sizeof x);
  x += rs_job_next_id() * UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return (double) ((x ^ x >> 31) >> 11) * 0x1p-53;
}

double
rs_pause_after (const rs_pause *pause, unsigned failures)
{
  const double factor = pause->backoff > 1 ? pause->backoff : 1;
  double s = pause->delay;
  if (failures > 1)
    s *= pow(factor, (double) (failures - 1));
  if (pause->most > 0 && s > pause->most)
    s = pause->most;
  if (!(s < LONGEST))
    s = LONGEST;
  /* What has failed together is not tried again together. */
  return s * (1 - 0.5 * dice());
}

static const rs_pause *
pause_of (const rs_job *job)
{
  if (job->batch != NULL)
    return &rs_job_hooks_of(job)->pause;
  const rs_job_more *const more = rs_job_more_of(job);
  return more != NULL ? &more->pause : NULL;
}

/* The time of the job has come. */
static void
come (rs_job *job)
{
  if (job->batch != NULL)
    rs_job_hooks_of(job)->on_due(job);
  else
    job->queue->release(job->queue, job);
}

/* rs_timer: the same. */
static void
fire (rs_timer *timer)
{
  come(RS_LIST_ENTRY(timer, rs_job_more, later)->job);
}

void
rs_delay_prepare (rs_job *job)
{
  rs_job_more *const more = rs_job_get_more(job);
  if (more != NULL && more->later.fire == NULL)
    rs_timer_init(&more->later, fire);
}

/* True when the batch of a chunk starts no more items. */
static bool
is_over (const rs_chunk *chunk)
{
  return chunk != NULL
      && (atomic_load(chunk->stop)
          || (chunk->failed != NULL && atomic_load(chunk->failed)));
}

void
rs_delay_until (rs_job *job, double due, bool stopped)
{
  rs_queue *const q = job->queue;
  rs_job_more *const more = rs_job_more_of(job);
  if (due == RS_NEVER)
    due = rs_now() + LONGEST;
  if (more == NULL || !rs_timer_set(&more->later, due))
    come(job);  /* rather now than never */
  /* A request to stop that came before the job was delayed has not found
     it. */
  const rs_reason wish = rs_wish_reason(&job->call.wish);
  const bool over = is_over(job->call.chunk);
  if ((stopped || over || wish != RS_REASON_NONE)
      && q->claim(q, job, RS_CLAIM_TO_END)) {
    rs_job_end_queued(job, wish != RS_REASON_NONE ? wish
                           : stopped ? RS_REASON_CLOSED : RS_REASON_CANCELLED);
    rs_job_unref(job);
  }
}

double
rs_delay_leave (rs_job *job)
{
  job->put_off = false;
  if (job->batch != NULL)
    rs_job_hooks_of(job)->on_put_off(job);
  rs_delay_prepare(job);
  return rs_now() + rs_pause_after(pause_of(job), job->call.attempt - 1);
}

void
rs_delay_again (rs_job *job)
{
  const double due = rs_delay_leave(job);
  rs_job_ref(job);
  if (job->queue->delay(job->queue, job, NULL) == RS_OK)
    rs_delay_until(job, due, false);
  else {
    rs_job_end_queued(job, RS_REASON_CLOSED);
    rs_job_unref(job);
  }
  rs_job_unref(job);
}
