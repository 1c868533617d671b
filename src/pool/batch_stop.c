/* SPDX-License-Identifier: MIT */
/*
 * batch_stop.c - stop a batch: what is queued, what waits, and what runs.
 *
 * Any thread may do that: the opener, the timer thread at the deadline, and
 * the thread that ends a chunk whose failure stops the others.
 */
#include "pool/batch.h"

#include <stdatomic.h>

void
rs_batch_end_queued (rs_batch *batch, rs_reason reason)
{
  rs_job *job;
  while ((job = batch->queue->claim_of(batch->queue, batch, RS_CLAIM_TO_END))
         != NULL) {
    rs_job_end_queued(job, reason != RS_REASON_NONE ? reason
                                                    : RS_REASON_CANCELLED);
    rs_job_unref(job);
  }
}

/* Wake the jobs of chunks that have not ended, so that they look at 'stop';
   with a reason, stop them. */
static void
stop_flying (rs_batch *batch, rs_reason reason, double grace)
{
  /* Some chunks at a time, each of which goes to the end of the list: no
     memory is needed. */
  rs_job *some[64];
  size_t left = SIZE_MAX, n;
  do {
    n = 0;
    pthread_mutex_lock(&batch->lock);
    if (left > batch->in_flight)
      left = batch->in_flight;
    for (; n < left && n < sizeof some / sizeof some[0]
           && !rs_list_empty(&batch->flying); n++) {
      rs_list *const link = rs_list_shift(&batch->flying);
      rs_list_push(&batch->flying, link);
      some[n] = rs_job_ref(rs_batch_job_at(link));
    }
    pthread_mutex_unlock(&batch->lock);
    left -= n;
    for (size_t i = 0; i < n; i++) {
      if (reason != RS_REASON_NONE)
        rs_job_stop(some[i], reason, grace);
      else
        rs_job_stir(some[i]);
      rs_job_unref(some[i]);
    }
  } while (n > 0 && left > 0);
}

void
rs_batch_stop_for (rs_batch *batch, rs_reason reason, double grace)
{
  int none = RS_REASON_NONE;
  atomic_compare_exchange_strong(&batch->reason, &none, (int) reason);
  atomic_store_explicit(&batch->stop, true, memory_order_relaxed);
  rs_batch_end_queued(batch, reason);
  stop_flying(batch, reason, grace);
  rs_events_wake(batch->events);
}
