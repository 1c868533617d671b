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
#include "base/purse.h"
#include "runspace.h"

typedef struct rs_notice {
  rs_list queued;     /* guarded by the lock of the events */
} rs_notice;

/* Queue it; false when it is queued already, or the events are closed. */
bool rs_events_post (rs_events *e, rs_notice *n);

/* Take the first one off the queue, or NULL. */
rs_notice *rs_events_take (rs_events *e);

/* For the memory of jobs (job_memory.c). */
typedef struct rs_job_block rs_job_block;

typedef struct rs_job_lists {
  rs_list blocks;       /* all of them */
  rs_list vacant;       /* those that have vacant memory */
  unsigned next_block;  /* jobs in the next one; or 0 */
} rs_job_lists;

rs_job_lists *rs_events_lock (rs_events *e);
void rs_events_unlock (rs_events *e);

/*
 * Its job has ended, and the host is to be told: queue it and wake the host.
 * 'settle' is called when it is queued, so that a host that finds it settled
 * finds it there.  True when it was queued.
 */
bool rs_events_finish (rs_events *e, rs_notice *n,
                       void (*settle) (rs_notice *n));

/*
 * The host may be waiting for what was stored just before this by an atomic
 * operation.  The host was told to look at that by itself whenever it begins
 * to wait, so most often there is nothing to do.
 */
void rs_events_stir (rs_events *e);

/* Wait as 'rs_events_wait', but not if 'ready(ud)', which must not lock; it is
   looked at without end before anybody sleeps. */
int rs_events_wait_for (rs_events *e, double timeout,
                        bool (*ready) (const void *ud), const void *ud);

/* Look for some 25 us, and never sleep: true when it is ready and nothing is
   queued. */
bool rs_events_look_for (rs_events *e, bool (*ready) (const void *ud),
                         const void *ud);

/*
 * What a host has of what its plain jobs need references to.  Chunks have
 * none: their batch may be freed by any thread, and there are few.
 */
typedef struct rs_purses {
  rs_purse events;   /* these */
  rs_purse queue;
  rs_purse function; /* of the job that was made last */
} rs_purses;

/* Those of the calling thread's own events, to take from, or NULL; then to
   give to, NULL as well when they are shut. */
rs_purses *rs_events_open_purses (rs_events *e);
rs_purses *rs_events_purses (rs_events *e);

/* Give back what is in them, and take nothing until they are opened again. */
void rs_events_shut_purses (rs_events *e);

/* For a purse: so many references to an rs_events. */
extern const rs_purse_kind rs_events_kind;

/*
 * Jobs for others that will report here: the host's own thread takes the one
 * that it gave last, or NULL.  'put' is false when it is not kept; 'free' is
 * for those that are left when the events are freed.
 */
rs_notice *rs_events_get_spare (rs_events *e);
unsigned rs_events_spares (const rs_events *e);  /* how many there are */
bool rs_events_reserve_spares (rs_events *e, unsigned n);  /* for 'put' */
bool rs_events_put_spare (rs_events *e, rs_notice *n,
                          void (*free) (rs_events *e, rs_notice *n));

/* The one that will be taken soon, if it was not said before: the next one
   where several are taken in a row, and the one that was given just now, the
   first since one was taken.  It stays there.  Or NULL. */
rs_notice *rs_events_expect_spare (rs_events *e);

/* They belong to another process. */
bool rs_events_foreign (const rs_events *e);

/* Nobody takes notices any more. */
bool rs_events_closed (const rs_events *e);
void rs_events_set_closed (rs_events *e);

/* Is the calling thread the one that made them, so that it cannot wait for
   itself to take notices? */
bool rs_events_mine (const rs_events *e);

unsigned rs_events_listening (const rs_events *e);

#endif
