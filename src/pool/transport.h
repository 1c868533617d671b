/* SPDX-License-Identifier: MIT */
/*
 * transport.h - the seam: how messages reach a runspace.
 *
 * A transport makes slots; a slot is room for one job at a time.  The pool
 * says through 'rs_slot_owner' what a slot shall do next; the transport does
 * it: on a thread of this process (worker.c), and wherever else bytes go in
 * and bytes come out.
 *
 *     start --> began --> opened --> take --> (run) --> take --> ... --> left
 *                           \--> failed: left
 *
 * 'began', 'opened', 'take' and 'left' are called by the slot's own thread,
 * in this order; 'left' is its last word, after which the slot may be freed.
 * 'lost' may come from outside while a job runs.
 */
#ifndef RS_TRANSPORT_H
#define RS_TRANSPORT_H

#include <pthread.h>

#include "state/initial_state.h"
#include "pool/job.h"
#include "runspace.h"

typedef struct rs_slot rs_slot;

/* What a slot asks of the pool. */
typedef struct rs_slot_owner {
  /* The slot's thread runs: it is 'slot->thread'. */
  void (*began) (rs_slot *slot);

  /* The runspace is there, or it could not be made: 'status' and text. */
  void (*opened) (rs_slot *slot, int status, const rs_error *err);

  /*
   * Wait for the next job, whose reference becomes the slot's; NULL: end.
   * Called without locks; may wait long.
   */
  rs_job *(*take) (rs_slot *slot);

  /*
   * What 'take' gave was run.  Called before the job ends, so that who waits
   * for its end finds the slot free again.
   */
  void (*done) (rs_slot *slot);

  /* It is about to end, and with that the slot's reference. */
  void (*ended) (rs_slot *slot);

  /* There may be another job, for which the runspace is worth renewing. */
  bool (*stays) (rs_slot *slot);

  /* The runspace was replaced by a new one. */
  void (*renewed) (rs_slot *slot);

  /*
   * The slot does not come back from its job, which is about to end as lost.
   * Called by any thread; if the slot ever comes back, 'done', 'take' (which
   * gives nothing) and 'left' follow.
   */
  void (*lost) (rs_slot *slot);

  /* The slot's thread ends. */
  void (*left) (rs_slot *slot);
} rs_slot_owner;

struct rs_slot {
  const rs_slot_owner *owner;     /* constant, as are the next eight */
  const struct rs_transport *transport;
  rs_pool *pool;
  rs_initial_state *initial_state;
  const rs_limits *limits;
  int reset;                      /* RS_RESET_ */
  int signal;                     /* that stops a job; 0: none */
  bool pin;                       /* it stays on one CPU */
  unsigned born;                  /* generation: fork.h */
  unsigned number;                /* of the worker in its pool, from 1 */
  pthread_t thread;               /* set by 'began' */
  rs_cancel *cancel;              /* of the thread, or NULL; lent; set by
                                     'began', and there until 'left' */
  rs_wish wish;                   /* runspaces are not seeded any more; made
                                     under the lock of the pool */
  rs_events *served;              /* a reference, or NULL: where its last job
                                     reported; its thread's own, as the next */
  rs_state *state;                /* or NULL: while it is renewed */
  _Atomic size_t bytes;           /* that its runspace takes; set by its
                                     thread, read by any */
};

typedef struct rs_transport {
  const char *name;
  unsigned forbidden;             /* RS_MESSAGE_ that cannot cross */

  /* Start the slot; RS_OK, or RS_ETHREAD and nothing was started. */
  int (*start) (rs_slot *slot, rs_error *err);

  /* It will sleep inside 'take', for long perhaps.  The slot's thread. */
  void (*rest) (rs_slot *slot);
} rs_transport;

/* A thread of this process that owns a state. */
extern const rs_transport rs_thread_transport;

#endif
