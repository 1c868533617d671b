/* SPDX-License-Identifier: MIT */
/*
 * lamp.c - a descriptor that poll(2) finds readable while it is lit.
 *
 * Threads that are cancelled use lamps, too, so nothing here is a cancellation
 * point.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pipe2 */
#endif
#include "base/lamp.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

void
rs_lamp_init (rs_lamp *lamp)
{
  lamp->out = lamp->in = -1;
  atomic_init(&lamp->lit, false);
}

static void
close_if_open (int fd)
{
  if (fd >= 0)
    close(fd);
}

void
rs_lamp_fini (rs_lamp *lamp)
{
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  close_if_open(lamp->out);
  close_if_open(lamp->in);
  pthread_setcancelstate(state, NULL);
}

/* Move 'fd' above the descriptors of the standard files, which may be
   closed. */
static int
move_up (int fd)
{
  if (fd > STDERR_FILENO)
    return fd;
  const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(fd);
  return higher;
}

bool
rs_lamp_open (rs_lamp *lamp)
{
  int fds[2], state;
  if (rs_lamp_is_open(lamp))
    return true;
  if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
    return false;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  const int out = move_up(fds[0]), in = move_up(fds[1]);
  const bool open = out >= 0 && in >= 0;
  if (open) {
    lamp->in = in;
    lamp->out = out;
  }
  else {
    close_if_open(out);
    close_if_open(in);
  }
  pthread_setcancelstate(state, NULL);
  return open;
}

static void
put_byte (const rs_lamp *lamp)
{
  static const char byte = 1;
  const ssize_t n = write(lamp->in, &byte, 1);
  (void) n;  /* a full pipe is readable as well */
}

void
rs_lamp_set (rs_lamp *lamp, bool lit)
{
  char bytes[64];
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  atomic_store(&lamp->lit, lit);
  while (!lit && read(lamp->out, bytes, sizeof bytes) == sizeof bytes)
    ;
  if (rs_lamp_is_lit(lamp))  /* a handler's byte may have been read, too */
    put_byte(lamp);
  pthread_setcancelstate(state, NULL);
}

void
rs_lamp_flash (rs_lamp *lamp)
{
  int state;
  if (lamp->in < 0)
    return;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  atomic_store(&lamp->lit, true);
  put_byte(lamp);
  pthread_setcancelstate(state, NULL);
}
