/* SPDX-License-Identifier: MIT */
/*
 * frame.h - frames: messages with a head, between a host and a worker that is
 * another process.
 *
 *     +------+-------+----+--------+--------+----------------+
 *     | type | flags | 0  | length | number | payload        |
 *     +------+-------+----+--------+--------+----------------+
 *        1       1     2      4        8      'length' bytes
 *
 * A message that has more than RS_FRAME_BYTES is cut into several frames; the
 * first one has the flag RS_FRAME_FIRST, the last one RS_FRAME_LAST.  A short
 * message, which a table in frame.c bounds, is one frame.  It may come between
 * the frames of a long one, so that no request to stop waits behind a
 * gigabyte.  Numbers are little-endian.
 *
 * The worker begins with a greeting, which no text can be, and HELLO.  Then:
 *
 *     host: OPEN                                worker: READY or FAILED
 *     host: FUNCTION*, VALUES?, CALL            worker: (VALUES, RECORD)*,
 *           STOP?, CANCEL*                              VALUES?, RESULT
 *     host: RENEW                               worker: READY or FAILED
 *     host: FORGET*                             worker: OUTPUT, at any time
 *     host: CLOSE
 *
 * From HELLO on the host asks with PING for a sign of life, and the worker
 * gives it with PONG: it has read PING, or has read for long without it.
 * ASK, while a call runs, is answered by TRACE, which may come when the call
 * has ended.
 *
 * The reader trusts nothing.  Memory is taken for bytes that have come, never
 * for a length that was announced, and what is out of order or too long closes
 * the link, with a text that says what was wrong.
 *
 * The parser works on bytes alone ('feed' and 'take'), so it can be fuzzed.
 *
 * A carrier moves the bytes.  Where that is a ring, urgent messages (STOP,
 * CANCEL, PING, ASK) go through the socket beside it.  Elsewhere they go
 * between the frames of a long message.  They may come before the call that
 * they name.
 */
#ifndef RS_FRAME_H
#define RS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "reach/carrier.h"
#include "reach/payload.h"
#include "value/message.h"

enum {
  RS_FRAME_HEAD = 16,       /* bytes */
  RS_FRAME_BYTES = 65536,   /* most bytes of a payload */
  RS_FRAME_FIRST = 1,       /* flags */
  RS_FRAME_LAST = 2,
  RS_FRAME_GREETING = 12,   /* bytes */
  RS_FRAME_NOISE = 65536,   /* most bytes in front of the greeting */
  RS_FRAME_TRAILER = 8,     /* bytes behind those of a message */
  RS_FRAME_NO_MEMORY = 86,  /* status that a worker exits with which had no
                               memory for what came */
  RS_PROTOCOL = 2
};

/* Most bytes of a message.  A string of 2 GiB goes through. */
#define RS_FRAME_MOST ((size_t) 1 << (sizeof(size_t) > 4 ? 32 : 30))

typedef enum rs_frame_type {
  RS_FRAME_OPEN = 1,        /* to the worker */
  RS_FRAME_FUNCTION,        /* message; the number is what it is kept under */
  RS_FRAME_FORGET,          /* the function with this number */
  RS_FRAME_VALUES,          /* message for the next frame; both ways */
  RS_FRAME_CALL,            /* the number is that of the call */
  RS_FRAME_STOP,            /* begin no further item of the call */
  RS_FRAME_CANCEL,          /* stop the call */
  RS_FRAME_CLOSE,
  RS_FRAME_HELLO,           /* to the host */
  RS_FRAME_READY,
  RS_FRAME_FAILED,          /* the state could not be opened */
  RS_FRAME_RECORD,          /* of a stream, or an event */
  RS_FRAME_RESULT,
  RS_FRAME_OUTPUT,          /* bytes for the terminal; number: 1 or 2 */
  RS_FRAME_LOST,            /* the call does not come back; the worker ends */
  RS_FRAME_PING,            /* to the worker */
  RS_FRAME_PONG,            /* to the host */
  RS_FRAME_RENEW,           /* to the worker: close the state, open another */
  RS_FRAME_ASK,             /* to the worker: where does the call stand? */
  RS_FRAME_TRACE,           /* to the host: there; or "", not known */
  RS_FRAME_TYPES
} rs_frame_type;

extern const unsigned char rs_frame_greeting[RS_FRAME_GREETING];

/* A message that has come. */
typedef struct rs_frame {
  rs_frame_type type;
  uint64_t number;
  const unsigned char *data;  /* lent, until the next frame is taken */
  size_t size;
  rs_message *message;      /* of FUNCTION and VALUES: a reference of the one
                               who takes the frame; 'data' is NULL then */
} rs_frame;

typedef enum rs_frame_side {
  RS_FRAME_HOST, RS_FRAME_WORKER
} rs_frame_side;

/* One side of a link: a carrier, what came, and what is to go.  A side
   is read by one thread, and written to by one at a time. */
typedef struct rs_frames {
  rs_carrier carrier;       /* what the bytes go through */
  rs_frame_side side;       /* who reads here; constant */
  unsigned forbidden;       /* RS_MESSAGE_ kinds of what comes */
  /* Called now and then while a long message is being written, between two of
     its frames: short messages may be put then.  False: give up.  Or
     NULL. */
  bool (*between) (void *ud);  /* 'ud' is the carrier's */

  rs_buf going;             /* frames that wait for 'flush' */

  unsigned char *room;      /* owned: bytes that came and were not taken */
  size_t at, end;           /* of these bytes */
  bool greeted;             /* the greeting is behind us */
  size_t noise;             /* bytes that came in front of it */
  char seen[256];           /* the last of these bytes, in a ring */
  size_t left;              /* bytes of the frame that have not come */
  rs_frame_type type;       /* of the frame, and of the long message */
  rs_frame_type long_type;
  uint64_t number, long_number;
  bool within;              /* the payload of a frame is being read */
  bool is_long;             /* that frame is of a long message */
  bool last;
  bool going_on;            /* more frames of a long message are to come */
  rs_buf brief, body;       /* the payload of a short, a long message */

  bool broken;              /* nothing more is read */
  char error[240];          /* why; "" at the end of the file */
} rs_frames;

/* Make a side ready; RS_OK or RS_ENOMEM.  The host skips what comes in front
   of the greeting; the worker gets none. */
int rs_frames_init (rs_frames *f, rs_frame_side side, int in, int out);
void rs_frames_fini (rs_frames *f);

/* ----------------------------------------------------------------- reading */

/* Read once from 'in', without waiting for more than one byte where the
   descriptor blocks.  RS_OK; RS_EBUSY: nothing has come; RS_ECLOSED: the end
   of the file, or an error. */
int rs_frames_fill (rs_frames *f);

/* Append bytes that came, as many as there is room for; returns how many. */
size_t rs_frames_feed (rs_frames *f, const void *bytes, size_t n);

/* Take the next message, '*out'.  RS_OK; RS_EBUSY: not all of it has come;
   RS_ECLOSED: what came is wrong, and 'error' says how; RS_ENOMEM. */
int rs_frames_take (rs_frames *f, rs_frame *out);

/* Say what is wrong with a message that was taken; nothing more is read.
   Returns RS_ECLOSED. */
int rs_frames_refuse (rs_frames *f, const char *format, ...)
  __attribute__ ((format (printf, 2, 3)));

/* Copy the last bytes that came in front of a greeting, or instead of one, and
   end them by a zero. */
void rs_frames_noise (const rs_frames *f, char *text, size_t size);

/* True for a type that waits behind no other message. */
bool rs_frame_is_urgent (rs_frame_type type);

/* True for a type that a host may get though no call runs, and that says
   nothing then. */
bool rs_frame_is_answer (rs_frame_type type);

/* The name of a type, in capitals; static storage. */
const char *rs_frame_name (unsigned type);

/* ----------------------------------------------------------------- writing */

/*
 * Queue a message of 'n' parts; what is long is written at once, with all that
 * was queued before.  RS_OK, RS_ENOMEM, or RS_ECLOSED: the other side does not
 * read any more.
 */
int rs_frames_put (rs_frames *f, rs_frame_type type, uint64_t number,
                   const struct iovec *parts, int n);

/* The same for a message of values, with its flags. */
int rs_frames_put_message (rs_frames *f, rs_frame_type type, uint64_t number,
                           const rs_message *message);

/* Write all that is queued. */
int rs_frames_flush (rs_frames *f);

/* The place at which the next message will begin.  Whether the far side may
   have read something of the message, once it was written; without a ring that
   is not known, and it may. */
uint32_t rs_frames_place (const rs_frames *f);
bool rs_frames_may_be_read (const rs_frames *f, uint32_t place);

#endif
