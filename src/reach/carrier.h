/* SPDX-License-Identifier: MIT */
/*
 * carrier.h - how the bytes of frames move: through two descriptors (pipes),
 * through a socket, or through a ring in memory with a socket beside it.
 *
 * Through the socket beside a ring go bells, to the host, and urgent bytes, to
 * the worker, where another thread reads them: so they wait behind nothing
 * that is in the ring.  The worker chooses whether the ring is used.  It says
 * nothing through the socket before it has written to the ring; if its first
 * bytes come through the socket, it has not joined, and the ring is given up.
 *
 * One thread reads from a carrier, and one at a time writes to it.
 */
#ifndef RS_CARRIER_H
#define RS_CARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "reach/ring.h"

typedef struct rs_carrier {
  int in, out;              /* lent; the same for a socket */
  rs_ring *ring;            /* owned, or NULL */
  /* Wait until 'events' (poll(2)) are there at the carrier, whose descriptors
     do not block; false: give up.  NULL: they block. */
  bool (*wait) (void *ud, short events);
  void *ud;

  bool pipe;                /* 'out' is no socket */
  bool ended;               /* the socket beside the ring has been closed */
  const char *lie;          /* what the far side did wrong, or NULL */
} rs_carrier;

void rs_carrier_init (rs_carrier *c, int in, int out);
void rs_carrier_fini (rs_carrier *c);

/* Use the ring, which is the carrier's from now on; NULL: none. */
void rs_carrier_use (rs_carrier *c, rs_ring *ring);

/* Read what has come, as readv(2) does.  -1, and 'errno': EAGAIN: nothing has
   come; EPROTO: the far side has lied. */
ssize_t rs_carrier_read (rs_carrier *c, const struct iovec *parts, int n);

/* Write all bytes of the parts, which are changed.  RS_OK or RS_ECLOSED: the
   far side does not read any more, or has lied, or 'wait' gave up. */
int rs_carrier_write (rs_carrier *c, struct iovec *parts, size_t n);

/* Write a few bytes to the socket beside the ring, without waiting: a far side
   that does not even take these has been stopped.  RS_OK or RS_ECLOSED.  Any
   thread. */
int rs_carrier_write_urgent (const rs_carrier *c, const void *bytes,
                             size_t n);

/* ----------------------------------------------------------------- waiting */

/* True when a short message can be written without waiting, for now. */
bool rs_carrier_has_room (const rs_carrier *c);

/* Look for bytes a while, if a CPU is free.  True: some are there. */
bool rs_carrier_look (const rs_carrier *c);

/*
 * The host, in front of a poll(2) for '*events' at 'in' and 'out', and behind
 * it.  With a ring '*events' becomes what to poll 'in' for, and 'out' is that;
 * false: what was wanted is there, or nothing more will be.  'there' is what
 * poll(2) has found at 'in'.
 */
bool rs_carrier_begin_wait (rs_carrier *c, short *events);
void rs_carrier_end_wait (rs_carrier *c, short there);

/* The worker, with a ring: sleep until bytes have come; may return earlier. */
void rs_carrier_sleep (rs_carrier *c);

#endif
