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

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "runspace.h"

typedef struct rs_notice {
  rs_list queued;     /* guarded by the lock of the events */
} rs_notice;

/*
 * Add, or drop, a hold on the memory of the events; the last drop frees it.
 * The references of the program are another count: jobs hold the events, and
 * the queue has references to jobs, so with one count for both the queue would
 * keep itself alive.
 */
rs_events *rs_events_hold (rs_events *e);
void rs_events_drop (rs_events *e);

/* Give back a reference of the program.  True when it was the last one: then
   the caller closes the events, and drops the hold of the references. */
bool rs_events_give_back (rs_events *e);

/* Queue a notice; false when it is queued already, or the events are
   closed. */
bool rs_events_post (rs_events *e, rs_notice *n);

/* Take the first notice off the queue; NULL: there is none. */
rs_notice *rs_events_take (rs_events *e);

/* Jobs that are not in use, each linked by 'next' of its 'link'. */
typedef struct rs_vacant_jobs {
  rs_list *first;
  unsigned n;
  unsigned most;        /* with more than so many, blocks without a job are
                           freed */
} rs_vacant_jobs;

/* The memory of the jobs that report to the events; job_memory.c is about
   it. */
typedef struct rs_job_memory {
  rs_vacant_jobs own;   /* for the host's thread only */
  pthread_mutex_t lock; /* guards the next two; no other lock is taken under
                           this one */
  rs_vacant_jobs others;  /* those that another thread has made vacant */
  rs_list blocks;       /* blocks of jobs; each is memory of its own, which
                           begins with its link, and is freed with the events
                           if it is still there */
} rs_job_memory;

rs_job_memory *rs_events_memory (rs_events *e);

/*
 * Tell the host that a job has ended: queue its notice and wake the host.
 * 'settle' is called after the notice is queued, so that a host that finds the
 * job settled finds the notice in the queue.  True when the notice was queued.
 */
bool rs_events_finish (rs_events *e, rs_notice *n,
                       void (*settle) (rs_notice *n));

/*
 * Wake the host, which may be waiting for what the caller has stored just
 * before this by a sequentially consistent operation.  A host looks at that by
 * itself when it takes a wake-up, so there is nothing to do while one waits to
 * be taken.
 */
void rs_events_stir (rs_events *e);

/*
 * Let waits of the calling thread call 'help' first, without locks, as long as
 * it returns true and there is nothing else to do: it has run a job of a pool
 * whose jobs wait for this thread (serial.h).
 */
void rs_events_set_help (bool (*help) (void));

/* Call that function, if this thread has one; false when there was no job. */
bool rs_events_help (void);

/* Wait as 'rs_events_wait', but not if 'ready(ud)' is true.  'ready' must not
   lock: it is called again and again before the thread sleeps. */
int rs_events_wait_for (rs_events *e, double timeout,
                        bool (*ready) (const void *ud), const void *ud);

/* Look for some 25 us, and never sleep: true when 'ready(ud)' is true and no
   notice is queued. */
bool rs_events_look_for (rs_events *e, bool (*ready) (const void *ud),
                         const void *ud);

/* True when the events belong to another process. */
bool rs_events_foreign (const rs_events *e);

/* True when the events are closed: nobody takes notices any more. */
bool rs_events_closed (const rs_events *e);

/* Close the events: notices that are posted from now on are refused. */
void rs_events_set_closed (rs_events *e);

/* True when the calling thread has made the events, so that it cannot wait for
   itself to take notices. */
bool rs_events_mine (const rs_events *e);

unsigned rs_events_listening (const rs_events *e);

#endif
