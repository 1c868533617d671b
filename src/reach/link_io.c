/* SPDX-License-Identifier: MIT */
/*
 * link_io.c - a link: how its thread waits, and how its process ends.
 *
 * The thread waits at three descriptors: the socket, the process (pidfd), and
 * the waker.  What stops a call crosses meanwhile: link.c tells how.
 */
#include "reach/link_io.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/console.h"
#include "base/spin.h"
#include "base/status.h"
#include "reach/exchange.h"

#define KILL (RS_KILL + 0.4)  /* seconds from force to SIGKILL: the far side
                                 finds a lost call within that, and can tell
                                 where */
#define LOOK 0.01        /* seconds between two looks at a chunk's flags */

enum { LOOKS = 100 };    /* looks for bytes before the thread sleeps */

/* ----------------------------------------------------------------- waiting */

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* True when the flags of the chunk have to be looked at. */
static bool
has_flags (const rs_errand *e)
{
  return e->call != NULL && e->call->chunk != NULL && !e->stopped
      && (e->call->chunk->stop != NULL || e->call->chunk->failed != NULL);
}

/* Send CANCEL: the reason, and the grace that is left. */
static void
send_cancel (rs_link *k, rs_errand *e, bool force)
{
  const rs_reason wish = rs_wish_reason(&e->call->wish);
  rs_reason reason = wish != RS_REASON_NONE
                   ? wish : rs_token_reason(k->base.cancel, e->token);
  if (reason == RS_REASON_NONE)  /* it has ended meanwhile? */
    reason = RS_REASON_CANCELLED;
  rs_buf_clear(&k->payload);
  rs_add_number(&k->payload, reason, 1);
  rs_add_double(&k->payload, force ? 0 : wish != RS_REASON_NONE
                                   ? (double) e->call->wish.grace : RS_GRACE);
  const struct iovec part = { k->payload.data, k->payload.size };
  rs_frames_put(&k->frames, RS_FRAME_CANCEL, k->calls, &part, 1);
  rs_frames_flush(&k->frames);
}

bool
rs_link_attend (rs_link *k, rs_errand *e)
{
  const bool forced = rs_token_forced(e->token);
  const int level = forced ? RS_HARD : rs_token_stopped(e->token) ? RS_SOFT
                                                                  : RS_GOING;
  if (e->call == NULL)
    return level == RS_GOING;
  if (level > e->asked && !k->sending) {
    send_cancel(k, e, forced);
    e->asked = level;
  }
  if (forced && e->kill_at == RS_NEVER)
    e->kill_at = rs_now() + KILL;
  if (rs_now() >= e->kill_at && !k->killed) {
    k->killed = true;
    if (!k->process.gentle)
      rs_process_kill(&k->process);
  }
  if (has_flags(e) && !k->sending
      && (is_set(e->call->chunk->stop) || is_set(e->call->chunk->failed))) {
    rs_frames_put(&k->frames, RS_FRAME_STOP, k->calls, NULL, 0);
    rs_frames_flush(&k->frames);
    e->stopped = true;
  }
  return true;
}

short
rs_link_await (rs_link *k, short events, double deadline)
{
  const rs_errand *const e = k->errand;
  const bool writes = k->process.in != k->process.out && (events & POLLOUT);
  struct pollfd fds[] = {
    { .fd = k->process.in,
      .events = (short) (writes ? events & ~POLLOUT : events) },
    { .fd = k->waker->fd, .events = POLLIN },
    { .fd = k->process.end, .events = POLLIN },  /* -1: left out */
    { .fd = k->errors.fd, .events = POLLIN },
    { .fd = writes ? k->process.out : -1, .events = POLLOUT },
  };
  if (e != NULL && e->kill_at < deadline)
    deadline = e->kill_at;
  if (e != NULL && has_flags(e) && rs_now() + LOOK < deadline)
    deadline = rs_now() + LOOK;
  const double left = rs_remaining(deadline);
  const int ms = left == RS_FOREVER ? -1 : left < 1e6 ? (int) (left * 1e3) + 1
                                                      : 1000000000;
  if (poll(fds, sizeof fds / sizeof fds[0], ms) < 0)
    return 0;
  if (fds[1].revents != 0)
    rs_waker_take(k->waker);
  if (fds[3].revents != 0)
    rs_errors_read(&k->errors);
  if (fds[0].revents == 0 && fds[2].revents != 0)
    return POLLHUP;  /* all that it sent was read: it is over */
  return (short) (fds[0].revents | fds[4].revents);
}

bool
rs_link_wait_to_write (void *ud, int fd, short events)
{
  rs_link *const k = ud;
  (void) fd;
  if (k->errand != NULL && !rs_link_attend(k, k->errand))
    return false;
  const short there = rs_link_await(k, events, RS_NEVER);
  return (there & (POLLHUP | POLLERR)) == 0 && !k->killed;
}

static bool
has_come (const void *ud)
{
  char byte;
  return recv(((const rs_link *) ud)->process.in, &byte, 1,
              MSG_PEEK | MSG_DONTWAIT) >= 0;
}

int
rs_link_next (rs_link *k, rs_frame *frame, double deadline)
{
  int status;
  while ((status = rs_frames_take(&k->frames, frame)) == RS_EBUSY) {
    if (k->errand != NULL && !rs_link_attend(k, k->errand))
      return RS_ESTOPPED;
    if (k->killed && k->process.gentle)
      return RS_ECLOSED;
    status = rs_frames_fill(&k->frames);
    if (status == RS_EBUSY && k->errand != NULL && k->errand->call != NULL
        && k->hosts == NULL) {
      rs_spin_few(has_come, k, LOOKS);
      status = rs_frames_fill(&k->frames);
    }
    if (status == RS_EBUSY) {
      if (rs_now() >= deadline)
        return RS_ETIMEOUT;
      if (rs_link_await(k, POLLIN, deadline) == POLLHUP
          && rs_frames_fill(&k->frames) == RS_EBUSY)
        return RS_ECLOSED;
    }
    else if (status != RS_OK)
      return status;
  }
  return status;
}

/* The reader of standard output may be gone: then the process is told as one
   that writes there itself. */
void
rs_link_print (const rs_frame *frame)
{
  if (rs_console_write(frame->number == 2 ? 2 : 1, (const char *) frame->data,
                       frame->size) == EPIPE)
    kill(getpid(), SIGPIPE);
}

/* ----------------------------------------------------------------- the end */

static void
drop_values (rs_link *k)
{
  rs_message_unref(k->values);
  k->values = NULL;
}

int
rs_link_end (rs_link *k, double timeout, char *text, size_t size)
{
  char how[120];
  const char *const colon = k->name[0] != '\0' ? ": " : "";
  if (k->frames.error[0] != '\0' || (k->killed && k->process.gentle))
    timeout = 0;
  rs_process_hang_up(&k->process);
  if (k->hosts != NULL) {
    const double deadline = rs_deadline(timeout);
    rs_errors_drain(&k->errors, &k->process, timeout);
    timeout = rs_remaining(deadline);
  }
  const int status = rs_process_finish(&k->process, timeout, how, sizeof how);
  if (k->frames.error[0] != '\0')
    snprintf(text, size, "%s%sthe worker process sent what it may not: %.200s",
             k->name, colon, k->frames.error);
  else if (!k->killed && status == RS_LINK_NO_SSH && k->host != NULL
           && k->host->ssh)
    snprintf(text, size, "%s: connection closed", k->name);
  else
    snprintf(text, size, "%s%sthe worker process %s", k->name, colon,
             k->killed ? "did not stop, and was killed" : how);
  rs_errors_close(&k->errors);
  if (k->open && k->hosts != NULL) {
    rs_hosts_leave(k->hosts, k->host);
    k->host = NULL;
  }
  rs_frames_fini(&k->frames);
  drop_values(k);
  for (int i = 0; i < RS_LINK_KEPT; i++) {
    rs_message_unref(k->kept[i].function);
    k->kept[i].function = NULL;
  }
  k->open = k->killed = k->sending = false;
  return status;
}
