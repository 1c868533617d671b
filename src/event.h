/* SPDX-License-Identifier: MIT */
/*
 * event.h - where a host waits: a queue of notices, a wake-up, and a
 * descriptor for other event loops.
 *
 * A job embeds a notice.  It is in 'live' from its birth to its end, and in
 * 'queue' while it has something that the host has not been told; being
 * queued once is enough, however much is new.
 */
#ifndef RS_EVENT_H
#define RS_EVENT_H

#include <stdatomic.h>

#include "list.h"
#include "runspace.h"

typedef struct rs_notice {
  rs_list queued;     /* both guarded by the lock of the events */
  rs_list live;
  _Atomic bool gone;  /* it is not in 'live' any more; set under the lock,
                         after all that its job has to show */
} rs_notice;

static inline void
rs_notice_init (rs_notice *n)
{
  rs_list_init(&n->queued);
  rs_list_init(&n->live);
  atomic_init(&n->gone, false);
}

/* Queue it; false when it is queued already, or the events are closed. */
bool rs_events_post (rs_events *e, rs_notice *n);

/* Take the first one off the queue, or NULL. */
rs_notice *rs_events_take (rs_events *e);

/* Into 'live' and out of it; the latter is harmless when it is not there. */
void rs_events_enter (rs_events *e, rs_notice *n);
void rs_events_leave (rs_events *e, rs_notice *n);

/* Its job has ended, all at once: out of 'live', into the queue if 'post', and
   wake the host.  True when it was queued. */
bool rs_events_finish (rs_events *e, rs_notice *n, bool post);

/* Call 'f', which may not lock anything, for each notice in 'live'. */
void rs_events_visit (rs_events *e, void (*f) (rs_notice *n, void *ud),
                      void *ud);

/* Nobody takes notices any more. */
bool rs_events_closed (const rs_events *e);
void rs_events_set_closed (rs_events *e);

/* Is the calling thread the one that made them, so that it cannot wait for
   itself to take notices? */
bool rs_events_mine (const rs_events *e);

unsigned rs_events_listening (const rs_events *e);

#endif
