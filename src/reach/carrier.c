/* SPDX-License-Identifier: MIT */
/*
 * carrier.c - how the bytes of frames move.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* MSG_NOSIGNAL */
#endif
#include "reach/carrier.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/spin.h"
#include "base/status.h"

enum { LOOKS = 100 };      /* at a socket, before the thread sleeps */

void
rs_carrier_init (rs_carrier *c, int in, int out)
{
  *c = (rs_carrier) { .in = in, .out = out };
}

void
rs_carrier_use (rs_carrier *c, rs_ring *ring)
{
  rs_ring_free(c->ring);
  c->ring = ring;
}

void
rs_carrier_fini (rs_carrier *c)
{
  rs_carrier_use(c, NULL);
}

/* The far side has lied. */
static void
note_lie (rs_carrier *c)
{
  c->lie = rs_ring_lie(c->ring);
  errno = EPROTO;
}

static bool
is_later (int code)
{
  return code == EAGAIN || code == EWOULDBLOCK || code == EINTR;
}

/* ----------------------------------------------------------------- reading */

ssize_t
rs_carrier_read (rs_carrier *c, const struct iovec *parts, int n)
{
  ssize_t got;
  if (c->ring == NULL) {
    do
      got = readv(c->in, parts, n);
    while (got < 0 && errno == EINTR && c->wait == NULL);
    if (got < 0 && is_later(errno))
      errno = EAGAIN;
    return got;
  }
  got = c->lie == NULL ? rs_ring_read(c->ring, parts, n) : -1;
  if (got < 0)
    note_lie(c);
  if (got != 0 || c->ended)
    return got;
  errno = EAGAIN;
  return -1;
}

/* ----------------------------------------------------------------- waiting */

static bool
has_come (const void *ud)
{
  char byte;
  return recv(((const rs_carrier *) ud)->in, &byte, 1,
              MSG_PEEK | MSG_DONTWAIT) >= 0;
}

bool
rs_carrier_look (const rs_carrier *c)
{
  if (c->ring != NULL)
    return rs_ring_look(c->ring, POLLIN);
  if (c->pipe || c->in != c->out)
    return false;
  rs_spin_few(has_come, c, LOOKS);
  return has_come(c);
}

bool
rs_carrier_has_room (const rs_carrier *c)
{
  struct pollfd out = { .fd = c->out, .events = POLLOUT };
  if (c->ring != NULL)
    return rs_ring_has_room(c->ring);
  return poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) != 0;
}

void
rs_carrier_sleep (rs_carrier *c)
{
  rs_ring_sleep(c->ring, POLLIN);
}

bool
rs_carrier_begin_wait (rs_carrier *c, short *events)
{
  const short wanted = *events;
  if (c->ring == NULL)
    return true;
  *events = POLLIN;
  return rs_ring_begin_sleep(c->ring, wanted);
}

void
rs_carrier_end_wait (rs_carrier *c, short there)
{
  unsigned char bytes[256];
  ssize_t n;
  if (c->ring == NULL)
    return;
  rs_ring_end_sleep(c->ring);
  if (there == 0)
    return;
  if (!rs_ring_is_joined(c->ring)
      && recv(c->in, bytes, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
    rs_carrier_use(c, NULL);
    return;
  }
  n = recv(c->in, bytes, sizeof bytes, MSG_DONTWAIT);
  if (n > 0 && !rs_ring_hear(c->ring, bytes, (size_t) n))
    note_lie(c);
  c->ended = c->ended || n == 0;
}

/* ----------------------------------------------------------------- writing */

/* Write some bytes of the parts, as writev(2) does, without a signal if nobody
   reads. */
static ssize_t
write_some (rs_carrier *c, struct iovec *parts, size_t n)
{
  struct msghdr m = { .msg_iov = parts, .msg_iovlen = n };
  ssize_t done;
  if (c->ring != NULL) {
    done = rs_ring_write(c->ring, parts, (int) n);
    if (done < 0)
      note_lie(c);
    if (done != 0)
      return done;
    errno = EAGAIN;
    return -1;
  }
  if (!c->pipe) {
    done = sendmsg(c->out, &m, MSG_NOSIGNAL);
    if (done >= 0 || errno != ENOTSOCK)
      return done;
    c->pipe = true;
  }
  return writev(c->out, parts, (int) n);
}

/* Wait until more can be written; false: give up. */
static bool
wait_for_room (rs_carrier *c)
{
  if (c->ring != NULL && rs_ring_look(c->ring, POLLOUT))
    return true;
  if (c->wait != NULL)
    return c->wait(c->ud, POLLOUT);
  if (c->ring == NULL)
    return errno == EINTR;
  rs_ring_sleep(c->ring, POLLOUT);
  return true;
}

int
rs_carrier_write (rs_carrier *c, struct iovec *parts, size_t n)
{
  while (n > 0) {
    ssize_t done = write_some(c, parts, n);
    if (done < 0) {
      if (!is_later(errno) || !wait_for_room(c))
        return RS_ECLOSED;
      continue;
    }
    while (n > 0 && (size_t) done >= parts->iov_len) {
      done -= (ssize_t) parts->iov_len;
      parts++;
      n--;
    }
    if (n > 0) {
      parts->iov_base = (char *) parts->iov_base + done;
      parts->iov_len -= (size_t) done;
    }
  }
  return RS_OK;
}

int
rs_carrier_write_urgent (const rs_carrier *c, const void *bytes, size_t n)
{
  return send(c->out, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0
         || is_later(errno) ? RS_OK : RS_ECLOSED;
}
