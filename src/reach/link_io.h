/* SPDX-License-Identifier: MIT */
/*
 * link_io.h - a link: what it is, how its thread waits, and how its process
 * ends.
 *
 * Only the thread of the worker calls these functions; other threads only wake
 * it.  While no call runs, or that thread waits for others than the far side,
 * the heart (heart.h) has the link.
 */
#ifndef RS_LINK_IO_H
#define RS_LINK_IO_H

#include "pool/runner.h"
#include "reach/command.h"
#include "reach/frame.h"
#include "reach/heart.h"
#include "reach/hosts.h"
#include "reach/launch.h"
#include "reach/process.h"
#include "reach/waker.h"

#define RS_LINK_DIE 1.0     /* seconds from the end of the file to that of the
                               process */

enum {
  RS_LINK_KEPT = 4,         /* functions that the far side keeps */
  RS_LINK_NO_SSH = 255      /* status of an ssh without connection */
};

/* What a wait is for; NULL in a link: for nothing that could be stopped. */
typedef struct rs_errand {
  rs_token *token;         /* of the call, or of the opening */
  rs_call *call;           /* NULL: the state is being opened */
  const rs_call_sink *sink;
  int asked;               /* the level that CANCEL was sent for */
  double kill_at;          /* instant; RS_NEVER */
  bool stopped;            /* STOP was sent */
  unsigned ask;            /* request that ASK was sent for last, 0: none */
  double ask_again;        /* instant at which ASK may be sent once more */
  bool told;               /* TRACE has come for it */
} rs_errand;

typedef struct rs_link {
  rs_runner base;
  rs_state_options options;  /* constant */
  rs_process process;
  rs_hosts *hosts;         /* lent; NULL: the process is a child that is
                              started directly */
  const rs_launch *launch; /* lent: how the child is started; NULL: it is
                              none */
  const rs_host *host;     /* that was taken, or NULL */
  char name[120];          /* of the worker, in messages; "": none */
  char label[24];          /* of a child, in front of its standard error */
  rs_errors errors;        /* of a command, by 'name', or of a child with a
                              wall around it */
  rs_frames frames;
  bool open;               /* the process runs, and its state is there */
  bool spent;              /* the state, or the process, is to be replaced */
  bool sending;            /* a frame may be cut in two: no other one may be
                              written */
  bool killed;             /* by us, since it did not stop */
  bool silent;             /* no sign of life has come for too long */
  bool done;               /* the process has run a call to its end */
  bool begun;              /* the process was started, and nothing of it was
                              read */
  bool sent;               /* OPEN was sent then */
  uint64_t tasks;          /* calls and items that the process has run */
  struct rs_link *spare;   /* owned: begun, for the time when this process has
                              run all that it may; or NULL */
  rs_pulse pulse;          /* from HELLO to the end of the process */
  size_t bytes;            /* memory of the state, as it was told last */
  uint64_t calls;          /* number of the last call */
  uint32_t place;          /* in 'frames': where its CALL begins */
  uint64_t functions;      /* number of the last function */
  struct {
    rs_message *function;  /* a reference, or NULL */
    uint64_t number;
  } kept[RS_LINK_KEPT];
  unsigned next;           /* place in 'kept' that is used next, modulo their
                              number */
  rs_message *values;      /* VALUES that came, for the next frame; or NULL */
  rs_errand *errand;       /* what the thread waits for, or NULL */
  rs_buf payload;          /* of the frame that is being written */
  rs_waker *waker;
  rs_sleeper sleeper;      /* at 'waker' */
} rs_link;

/* Pass on what the far side has to know, and kill it when it is time.  False
   when a state that is being opened is not wanted any more. */
bool rs_link_attend (rs_link *k, rs_errand *e);

/* Wait until 'events' are there at the link, the process ends, somebody wakes
   the thread, or 'deadline'.  Returns what is there at the link; 0: look
   again; POLLHUP: the process has ended. */
short rs_link_await (rs_link *k, short events, double deadline);

/* rs_carrier.wait: the link takes no more for now. */
bool rs_link_wait_to_write (void *ud, short events);

/* rs_frames.between: what stops a call need not wait for the end of a long
   message. */
bool rs_link_between (void *ud);

/* Take the next message that comes.  RS_OK, RS_ETIMEOUT, RS_ESTOPPED,
   RS_ENOMEM, or RS_ECLOSED: the far side has ended, or has sent what is
   wrong. */
int rs_link_next (rs_link *k, rs_frame *frame, double deadline);

/* Write what a far side printed (OUTPUT); the same for a link, which may take
   its time. */
void rs_output_print (const rs_frame *frame);
void rs_link_print (rs_link *k, const rs_frame *frame);

/* The thread of the worker sleeps until the next call: the heart has the link
   until then. */
void rs_link_rest (rs_link *k);

/* The far side has said HELLO: keep watch over it.  RS_OK or RS_EFAILED. */
int rs_link_watch (rs_link *k, rs_error *err);

/* True when the process has died, or is not to be spoken to any more, though
   no call runs. */
bool rs_link_has_died (rs_link *k);

/* The process is over, or has to be: it has 'timeout' seconds.  Writes into
   'text' how it ended; what it sent before, and was wrong, comes first.
   Returns the status that it exited with, or -1. */
int rs_link_end (rs_link *k, double timeout, char *text, size_t size);

#endif
