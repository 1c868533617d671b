/* SPDX-License-Identifier: MIT */
/*
 * event.h - where a host waits: a queue of notices, a wake-up, and a
 * descriptor for other event loops.
 *
 * A job embeds a notice, which is in 'queue' while the job has something that
 * the host has not been told; being queued once is enough, however much is
 * new.
 */
#ifndef RS_EVENT_H
#define RS_EVENT_H

#include <stdatomic.h>

#include "base/list.h"
#include "runspace.h"

typedef struct rs_notice {
  rs_list queued;     /* guarded by the lock of the events */
} rs_notice;

/* Queue a notice; false when it is queued already, or the events are
   closed. */
bool rs_events_post (rs_events *e, rs_notice *n);

/* Take the first notice off the queue; NULL: there is none. */
rs_notice *rs_events_take (rs_events *e);

/* Memory of jobs, kept with the events that they report to (job_memory.c). */
typedef struct rs_job_block rs_job_block;

typedef struct rs_job_lists {
  rs_list blocks;       /* all blocks */
  rs_list vacant;       /* blocks that have vacant jobs */
  unsigned next_block;  /* jobs in the next block; 0: not chosen yet */
} rs_job_lists;

rs_job_lists *rs_events_lock (rs_events *e);
void rs_events_unlock (rs_events *e);

/*
 * Tell the host that a job has ended: queue its notice and wake the host.
 * 'settle' is called after the notice is queued, so that a host that finds the
 * job settled finds the notice in the queue.  True when the notice was queued.
 */
bool rs_events_finish (rs_events *e, rs_notice *n,
                       void (*settle) (rs_notice *n));

/*
 * Wake the host, which may be waiting for what the caller has stored just
 * before this by an atomic operation.  A host looks at that by itself whenever
 * it begins to wait, so most often there is nothing to do.
 */
void rs_events_stir (rs_events *e);

/* Wait as 'rs_events_wait', but not if 'ready(ud)' is true.  'ready' must not
   lock: it is called again and again before the thread sleeps. */
int rs_events_wait_for (rs_events *e, double timeout,
                        bool (*ready) (const void *ud), const void *ud);

/* Look for some 25 us, and never sleep: true when 'ready(ud)' is true and no
   notice is queued. */
bool rs_events_look_for (rs_events *e, bool (*ready) (const void *ud),
                         const void *ud);

/*
 * Spare jobs, for jobs that will report here; only the host's own thread has
 * any.  'get' takes the one that was put last, or NULL.  'put' is false when
 * it does not keep the job; 'free' is called for those that are left when the
 * events are freed.
 */
rs_notice *rs_events_get_spare (rs_events *e);
unsigned rs_events_spares (const rs_events *e);  /* number of spare jobs */
bool rs_events_reserve_spares (rs_events *e, unsigned n);  /* for 'n' more */
bool rs_events_put_spare (rs_events *e, rs_notice *n,
                          void (*free) (rs_events *e, rs_notice *n));

/* True when the events belong to another process. */
bool rs_events_foreign (const rs_events *e);

/* True when the events are closed: nobody takes notices any more.  And close
   them. */
bool rs_events_closed (const rs_events *e);
void rs_events_set_closed (rs_events *e);

/* True when the calling thread has made the events, so that it cannot wait for
   itself to take notices. */
bool rs_events_mine (const rs_events *e);

unsigned rs_events_listening (const rs_events *e);

#endif
