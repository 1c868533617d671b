/* SPDX-License-Identifier: MIT */
/*
 * heart.h - the heart: one thread that keeps watch over all links.
 *
 * A link has a pulse.  At each beat, some times in the seconds after which a
 * silent link is lost, the far side is asked for a sign of life (PING), and
 * what came from there since the last beat is looked at.  Silence is counted
 * in beats: a process that was suspended itself has had none meanwhile, and
 * takes nobody for dead when it goes on.
 *
 * At any time one thread has a link.  Its pulse says which:
 *
 *     OWNED    the thread of the worker.  A beat wakes that thread, which
 *              sends PING, and reads.
 *     LENT     nobody: the thread of the worker waits for others, and does not
 *              read.  The heart sends PING, and counts nothing.
 *     RESTING  nobody: no call runs.  The heart sends PING, and reads what
 *              comes, when it comes.
 *     TAKEN    the heart, for a moment.
 *
 * The thread starts with the first pulse, and ends with the last one.
 */
#ifndef RS_HEART_H
#define RS_HEART_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "runspace.h"

enum {
  RS_BEATS = 4,            /* in a heartbeat: the seconds after which a silent
                              link is lost */
  RS_HEARTBEATS_FAR = 6    /* for which the far side of a command lives on
                              without a sign of the host, which may have been
                              suspended */
};

typedef enum rs_pulse_state {
  RS_PULSE_OWNED, RS_PULSE_LENT, RS_PULSE_RESTING, RS_PULSE_TAKEN
} rs_pulse_state;

typedef struct rs_pulse rs_pulse;

/* Memory of a link. */
struct rs_pulse {
  /* Constant from the start to the stop: */

  /* Wake the thread of the worker.  Never waits. */
  void (*wake) (rs_pulse *p);
  /* The thread of the heart has the link.  'beats': send PING; 'reads': take
     what has come.  Does not wait.  False: there is nothing more to read. */
  bool (*serve) (rs_pulse *p, bool beats, bool reads);
  const int *fds[2];       /* where what comes at rest is; -1: nowhere */
  double interval;         /* seconds from beat to beat; RS_NEVER: none */

  rs_list link;            /* in the list of the heart, whose lock guards this
                              and the next two; alone: stopped */
  uint64_t id;
  double next;             /* instant of the next beat */

  bool given;              /* the thread of the worker has given the link away;
                              that thread's, as the next one */
  bool listens;            /* the heart waits at 'fds' */

  _Atomic int state;       /* rs_pulse_state; release and acquire hand over the
                              link */
  _Atomic unsigned missed; /* beats since something came; set by who reads and
                              by the heart; publishes nothing, as the next
                              one */
  _Atomic bool due;        /* PING is to be sent by the thread of the worker */
};

/* Start the pulse of a link that the caller, the thread of its worker, owns;
   'heartbeat': seconds after which the link is silent, or RS_FOREVER.  The
   functions and 'fds' are set.  RS_OK or RS_EFAILED: there is no thread, or no
   descriptor, and 'err' has the text. */
int rs_pulse_start (rs_pulse *p, double heartbeat, rs_error *err);

/* Stop the pulse; the thread of the worker has the link.  Harmless for one
   that is stopped, whose memory was zero at first. */
void rs_pulse_stop (rs_pulse *p);

/* The thread of the worker gives the link away, to LENT or RESTING; and takes
   it back, after which it reads and writes again.  Each is harmless the second
   time, and for a pulse that is stopped. */
void rs_pulse_give (rs_pulse *p, rs_pulse_state to);
void rs_pulse_take (rs_pulse *p);

/* Something has come.  Whoever has the link. */
static inline void
rs_pulse_note (rs_pulse *p)
{
  atomic_store_explicit(&p->missed, 0, memory_order_relaxed);
}

/* True when nothing has come for so long that the far side is lost. */
static inline bool
rs_pulse_is_silent (const rs_pulse *p)
{
  return atomic_load_explicit(&p->missed, memory_order_relaxed) > RS_BEATS;
}

/* True when PING is to be sent; says so once. */
static inline bool
rs_pulse_is_due (rs_pulse *p)
{
  return atomic_load_explicit(&p->due, memory_order_relaxed)
      && atomic_exchange_explicit(&p->due, false, memory_order_relaxed);
}

#endif
