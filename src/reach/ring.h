/* SPDX-License-Identifier: MIT */
/*
 * ring.h - bytes both ways between this process and a child, through memory
 * that both have.
 *
 *     +------+--------+--------+---------------------+---------------------+
 *     | head | host's | worker | host --> worker     | worker --> host     |
 *     |      | counts | 's     | RS_RING_BYTES       | RS_RING_BYTES       |
 *     +------+--------+--------+---------------------+---------------------+
 *
 * The memory is a memfd, which the host makes and the child inherits as
 * descriptor RS_RING_FD.  Its size is sealed: nobody can make it smaller under
 * the other one.  Each direction is a stream of bytes, as a socket is one, and
 * a socket stays beside the ring.  What goes through the ring, and what
 * through the socket, frame.h tells.
 *
 * Each side writes its own counts, and reads those of the other side: how many
 * bytes it has written so far, and how many it has read, modulo 2^32.  Bytes
 * stand in the memory by their number modulo RS_RING_BYTES.  A side copies
 * bytes in, and then its count of written ones; the other side sees the count,
 * copies the bytes out, and then counts them as read.
 *
 * The other side is not trusted.  What a side has to know it keeps in memory
 * of its own, and never reads back from the ring.  A count of the other side
 * is looked at once, and compared with the last one: it may only go on, and
 * only as far as there is room, or as there are bytes.  A lie is told, and
 * nothing more is read then.  Bytes are looked at only after they were copied
 * to memory of our own, so they cannot change between check and use.
 *
 * Both sides look before they sleep, while a CPU is free (spin.h).  Each look
 * is a load from memory.  Before a side sleeps it publishes the number of its
 * wait, looks once more, and sleeps; who publishes a count afterwards looks
 * for such a number, and wakes once for it:
 *
 * - The worker sleeps at the host's count (futex(2)).  A sleeper there is not
 *   woken by the end of the host, but another thread of the worker reads the
 *   socket, and ends the process at its end.
 * - The host sleeps in poll(2), since it also waits for the end of the child
 *   and for other threads.  The worker wakes it by a byte through the socket,
 *   RS_RING_BELL.  A child that sends another byte, or more of them than it
 *   was asked for, has lied.
 *
 * A side may be read by one thread and written to by another one.
 */
#ifndef RS_RING_H
#define RS_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
  RS_RING_FD = 3,           /* where the child inherits the memory */
  RS_RING_BYTES = 1 << 20,  /* of each direction; a power of two */
  RS_RING_BELL = 7          /* the byte that wakes the host: BEL */
};

typedef struct rs_ring rs_ring;

/*
 * Make a ring, as the host.  '*fd' becomes the descriptor that the child is to
 * inherit; it is above the standard files, closed in other programs, and the
 * caller's.  NULL: there is no memory, or the system cannot do this; the
 * socket alone serves then.
 */
rs_ring *rs_ring_new (int *fd);

/*
 * Join the ring that the host has made, as its worker.  RS_RING_FD is closed
 * if it is that of a ring, and nothing else is changed.  'bell' is the socket,
 * lent.  NULL: there is no ring, or no memory.
 */
rs_ring *rs_ring_join (int bell);

void rs_ring_free (rs_ring *r);

/* Copy bytes that came to 'parts', as readv(2) does, without waiting.  Returns
   how many; 0: none have come; -1: the other side has lied. */
ssize_t rs_ring_read (rs_ring *r, const struct iovec *parts, int n);

/* Copy bytes of 'parts' into the ring, as writev(2) does, without waiting.
   Returns how many; 0: there is no room; -1: the other side has lied. */
ssize_t rs_ring_write (rs_ring *r, const struct iovec *parts, int n);

/* The number of the next byte that is written, modulo 2^32; and whether the
   other side says that it has read that byte. */
uint32_t rs_ring_place (const rs_ring *r);
bool rs_ring_has_read (const rs_ring *r, uint32_t place);

/* What was wrong, after a -1; static storage. */
const char *rs_ring_lie (const rs_ring *r);

/* ----------------------------------------------------------------- waiting */

/* True when one of 'events' is there, of POLLIN (bytes) and POLLOUT (room), or
   a lie. */
bool rs_ring_is_ready (const rs_ring *r, short events);

/* True when there is room for a short message (SHORT in ring.c). */
bool rs_ring_has_room (const rs_ring *r);

/* Look for 'events' a while, if a CPU is free.  The same result. */
bool rs_ring_look (const rs_ring *r, short events);

/* The worker: sleep until 'events', one of the two, are there; may return
   earlier. */
void rs_ring_sleep (rs_ring *r, short events);

/* The host: say that it is about to sleep in poll(2) at the socket until
   'events' are there; false: they are, or a lie is. */
bool rs_ring_begin_sleep (rs_ring *r, short events);
void rs_ring_end_sleep (rs_ring *r);

/* The host: take bytes that came through the socket; false: that was a lie. */
bool rs_ring_hear (rs_ring *r, const unsigned char *bytes, size_t n);

/* The host: true when the worker has written to the ring. */
bool rs_ring_is_joined (const rs_ring *r);

/* ------------------------------------------ the memory: ring.c, and checks */

enum {
  RS_RING_HEAD = 4096,      /* bytes in front of the data */
  RS_RING_MAGIC = 16,
  RS_RING_LINE = 128        /* bytes: two lines of a cache, which CPUs fetch
                               together */
};

/* What one side writes, and the other one reads. */
typedef struct rs_ring_counts {
  _Alignas(RS_RING_LINE) _Atomic uint32_t written;
  _Alignas(RS_RING_LINE) _Atomic uint32_t read;
  /* The number of a wait for bytes, and for room; 0: there is none. */
  _Alignas(RS_RING_LINE) _Atomic uint32_t reads;
  _Atomic uint32_t writes;
  _Atomic uint32_t may_look;   /* the host's: a CPU is free for the worker */
} rs_ring_counts;

typedef struct rs_ring_head {
  char magic[RS_RING_MAGIC];
  rs_ring_counts host, worker;
} rs_ring_head;

#endif
