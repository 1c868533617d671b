/* SPDX-License-Identifier: MIT */
/*
 * inbox.h - what the host has sent to this worker: options, functions, values,
 * calls, and requests to stop them.
 *
 * The thread that reads a carrier puts messages in.  There may be two: one for
 * what is urgent (rs_frame_is_urgent), and one for the rest.  The runner takes
 * calls out.
 */
#ifndef RS_INBOX_H
#define RS_INBOX_H

#include <pthread.h>
#include <stdatomic.h>

#include "reach/frame.h"
#include "state/call.h"
#include "state/cancel.h"

/* A call, from CALL to RESULT. */
typedef struct rs_served {
  rs_call call;
  rs_chunk chunk;
  _Atomic unsigned refs;   /* of the inbox, the runner, and who stops it */
  uint64_t number;
  char *name;              /* owned */
  double ahead;            /* seconds that the host's clock is ahead of ours */
  _Atomic bool stop;       /* STOP came; read by the runner; publishes
                              nothing */
  _Atomic bool failed;     /* no failure is allowed any more */
  _Atomic size_t allowed;
} rs_served;

enum {
  RS_INBOX_FUNCTIONS = 64  /* that are kept, at most; a host keeps few */
};

typedef struct rs_inbox {
  rs_pool_options options; /* constant once OPEN was read, as 'worker' */
  unsigned worker;

  struct {                 /* of the thread that puts in what is not urgent, as
                              'values' */
    rs_message *function;
    uint64_t number;
  } kept[RS_INBOX_FUNCTIONS];
  rs_message *values;      /* VALUES that came, or NULL */

  pthread_mutex_t lock;    /* guards down to the blank line */
  rs_served *next;         /* for the runner, a reference; or NULL */
  rs_served *latest;       /* a reference, or NULL */
  uint64_t stopped;        /* number of the call that STOP came for last */
  struct {
    uint64_t number;       /* of the call; 0: of none */
    rs_reason reason;
    double grace;
  } cancelled;             /* CANCEL that came last: the call may be to come */
  bool opened;             /* OPEN was read */
  bool renewing;           /* RENEW was read */
  bool closing;            /* CLOSE was read */
  rs_cancel *cancel;       /* of the runner; set before READY is sent, and
                              constant then */
  pthread_cond_t changed;  /* next != NULL || opened || renewing || closing */

  _Atomic unsigned news;   /* how often one of them changed, for a runner that
                              looks before it sleeps */
} rs_inbox;

void rs_inbox_init (rs_inbox *b);

/* Take a message; false for what may not come, or no memory. */
bool rs_inbox_put (rs_inbox *b, const rs_frame *frame);

/* True when there is a call for the runner, or none will come any more to the
   state that is there. */
bool rs_inbox_has_call_locked (const rs_inbox *b);

/* Take the call, with its reference; NULL: none will come, and with '*again'
   another state is to be opened. */
rs_served *rs_inbox_take_locked (rs_inbox *b, bool *again);

/* The call with this number, if it is the last one: a reference, or NULL. */
rs_served *rs_inbox_find (rs_inbox *b, uint64_t number);

static inline rs_served *
rs_served_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, rs_served, call);
}

void rs_served_unref (rs_served *c);

#endif
