/* SPDX-License-Identifier: MIT */
/*
 * link_io.c - a link: how its thread waits, and how its process ends.
 *
 * The thread waits at three descriptors: the socket, the process (pidfd), and
 * the waker.  What stops a call crosses meanwhile: link.c tells how.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* POLLRDHUP */
#endif
#include "reach/link_io.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
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
#define ASK_AGAIN 0.2    /* seconds without an answer to ASK; the far side
                            looks for half of that */
#define LOOK 0.01        /* seconds between two looks at a chunk's flags */

enum { FILLS = 16 };     /* reads at rest, before others have their turn */

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

/* Send a message that is urgent.  Beside a ring, this may be while another one
   is being written to it. */
static void
send_urgent (rs_link *k, rs_frame_type type, uint64_t number,
             const struct iovec *parts, int n)
{
  rs_frames_put(&k->frames, type, number, parts, n);
  if (k->frames.carrier.ring == NULL)
    rs_frames_flush(&k->frames);
}

/* Send PING, unless the link takes no more now: then the far side has other
   bytes to read. */
static void
send_ping (rs_link *k)
{
  if (k->frames.carrier.ring == NULL
      && (k->sending || !rs_carrier_has_room(&k->frames.carrier)))
    return;
  const bool sending = k->sending;
  k->sending = true;
  send_urgent(k, RS_FRAME_PING, 0, NULL, 0);
  k->sending = sending;
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
  send_urgent(k, RS_FRAME_CANCEL, k->calls, &part, 1);
}

/* Send ASK, if the host wants to know where the call stands; again, if the far
   side did not know, or has not said for a while: the far side does not wait
   to write, so it may leave ASK without an answer. */
static void
send_ask (rs_link *k, rs_errand *e)
{
  const unsigned request = rs_cancel_asks(k->base.cancel, e->token);
  if (request == 0
      || (e->ask == request && !e->told && rs_now() < e->ask_again))
    return;
  e->ask = request;
  e->ask_again = rs_now() + ASK_AGAIN;
  e->told = false;
  send_urgent(k, RS_FRAME_ASK, k->calls, NULL, 0);
}

/* TRACE has come, perhaps for a call that has ended. */
static void
take_trace (rs_link *k, const rs_frame *frame)
{
  rs_errand *const e = k->errand;
  rs_cut c = { frame->data, frame->size, false };
  if (e == NULL || e->call == NULL || frame->number != k->calls)
    return;
  char *const text = rs_cut_text(&c);
  e->told = true;
  if (text != NULL && text[0] != '\0')
    rs_cancel_tell(k->base.cancel, e->ask, text);
  free(text);
}

bool
rs_link_attend (rs_link *k, rs_errand *e)
{
  const bool forced = rs_token_forced(e->token);
  const int level = forced ? RS_HARD : rs_token_stopped(e->token) ? RS_SOFT
                                                                  : RS_GOING;
  if (e->call == NULL)
    return level == RS_GOING;
  const bool may_write = !k->sending || k->frames.carrier.ring != NULL;
  if (level > e->asked && may_write) {
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
  if (has_flags(e) && may_write
      && (is_set(e->call->chunk->stop) || is_set(e->call->chunk->failed))) {
    send_urgent(k, RS_FRAME_STOP, k->calls, NULL, 0);
    e->stopped = true;
  }
  if (may_write)
    send_ask(k, e);
  return true;
}

short
rs_link_await (rs_link *k, short events, double deadline)
{
  const rs_errand *const e = k->errand;
  const bool writes = k->process.in != k->process.out && (events & POLLOUT);
  short at_link = (short) (writes ? events & ~POLLOUT : events);
  if (!rs_carrier_begin_wait(&k->frames.carrier, &at_link))
    return events;
  struct pollfd fds[] = {
    { .fd = k->process.in, .events = at_link },
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
  const bool failed = poll(fds, sizeof fds / sizeof fds[0], ms) < 0;
  rs_carrier_end_wait(&k->frames.carrier, failed ? 0 : fds[0].revents);
  if (failed)
    return 0;
  if (fds[1].revents != 0)
    rs_waker_take(k->waker);
  if (fds[3].revents != 0)
    rs_errors_read(&k->errors);
  if (fds[0].revents == 0 && fds[2].revents != 0)
    return POLLHUP;  /* all that it sent was read: it is over */
  return (short) (fds[0].revents | fds[4].revents);
}

/* True when the call that is being sent is to end by force: what is left of it
   is not worth the time. */
static bool
is_given_up (const rs_link *k)
{
  return k->errand != NULL && rs_token_forced(k->errand->token);
}

/* Read what the far side says while this side writes, so that they do not wait
   for each other.  A worker that is not running a call only prints. */
static bool
read_prints (rs_link *k)
{
  rs_frame frame;
  int status;
  do {
    status = rs_frames_take(&k->frames, &frame);
    if (status == RS_EBUSY)
      status = rs_frames_fill(&k->frames);
    else if (status == RS_OK && frame.type == RS_FRAME_OUTPUT)
      rs_link_print(k, &frame);
    else if (status == RS_OK && !rs_frame_is_answer(frame.type)) {
      rs_message_unref(frame.message);
      status = rs_frames_refuse(&k->frames, "%s while no call runs",
                                rs_frame_name(frame.type));
    }
  } while (status == RS_OK);
  return status == RS_EBUSY;
}

bool
rs_link_wait_to_write (void *ud, short events)
{
  rs_link *const k = ud;
  if ((k->errand != NULL && !rs_link_attend(k, k->errand)) || is_given_up(k))
    return false;
  k->silent = rs_pulse_is_silent(&k->pulse);
  if (k->silent)
    return false;
  const bool listens = k->frames.carrier.ring != NULL;
  if (listens && !read_prints(k))
    return false;
  const short there = rs_link_await(k, listens ? events | POLLIN : events,
                                    RS_NEVER);
  if ((there & POLLOUT) || rs_carrier_has_room(&k->frames.carrier))
    rs_pulse_note(&k->pulse);  /* somebody has read */
  return (there & (POLLHUP | POLLERR)) == 0 && !k->killed;
}

bool
rs_link_between (void *ud)
{
  rs_link *const k = ud;
  const bool sending = k->sending;
  k->sending = false;
  if (k->errand != NULL)
    rs_link_attend(k, k->errand);
  k->sending = sending;
  rs_pulse_note(&k->pulse);  /* the far side has read what came before */
  return !is_given_up(k);
}

/* As 'rs_link_next', PONG and TRACE too. */
static int
next_of_all (rs_link *k, rs_frame *frame, double deadline)
{
  int status;
  while ((status = rs_frames_take(&k->frames, frame)) == RS_EBUSY) {
    if (k->errand != NULL && !rs_link_attend(k, k->errand))
      return RS_ESTOPPED;
    if (rs_pulse_is_due(&k->pulse))
      send_ping(k);
    if (k->killed && k->process.gentle)
      return RS_ECLOSED;
    status = rs_frames_fill(&k->frames);
    if (status == RS_EBUSY && k->errand != NULL && k->errand->call != NULL) {
      rs_carrier_look(&k->frames.carrier);
      status = rs_frames_fill(&k->frames);
    }
    if (status == RS_EBUSY) {
      if (rs_now() >= deadline)
        return RS_ETIMEOUT;
      k->silent = rs_pulse_is_silent(&k->pulse);
      if (k->silent)
        return RS_ECLOSED;
      if (rs_link_await(k, POLLIN, deadline) == POLLHUP
          && rs_frames_fill(&k->frames) == RS_EBUSY)
        return RS_ECLOSED;
    }
    else if (status != RS_OK)
      return status;
    else
      rs_pulse_note(&k->pulse);
  }
  return status;
}

int
rs_link_next (rs_link *k, rs_frame *frame, double deadline)
{
  int status;
  while ((status = next_of_all(k, frame, deadline)) == RS_OK
         && rs_frame_is_answer(frame->type))
    if (frame->type == RS_FRAME_TRACE)
      take_trace(k, frame);
  return status;
}

/* The reader of standard output may be gone: then the process is told as one
   that writes there itself. */
void
rs_output_print (const rs_frame *frame)
{
  if (rs_console_write(frame->number == 2 ? 2 : 1, (const char *) frame->data,
                       frame->size) == EPIPE)
    kill(getpid(), SIGPIPE);
}

void
rs_link_print (rs_link *k, const rs_frame *frame)
{
  rs_pulse_give(&k->pulse, RS_PULSE_LENT);
  rs_output_print(frame);
  rs_pulse_take(&k->pulse);
}

/* ----------------------------------------------------- what the heart does */

/* True when what is written to standard output and standard error is taken:
   one that is not read may not hold up the heart. */
static bool
can_print (void)
{
  struct pollfd fds[] = {
    { .fd = STDOUT_FILENO, .events = POLLOUT },
    { .fd = STDERR_FILENO, .events = POLLOUT }
  };
  return poll(fds, 2, 0) == 2;
}

/* Take what a far side says at rest, until there is nothing; what comes then
   can be waited for at its descriptor.  Of a flood, some is left for the next
   beat.  False: nothing more comes. */
static bool
read_at_rest (rs_link *k)
{
  rs_frame frame;
  short events;
  int status;
  int left = FILLS;
  do {
    while ((status = rs_frames_take(&k->frames, &frame)) == RS_OK) {
      rs_message_unref(frame.message);
      if (frame.type == RS_FRAME_OUTPUT)
        rs_output_print(&frame);
      else if (!rs_frame_is_answer(frame.type))
        rs_frames_refuse(&k->frames, "%s while no call runs",
                         rs_frame_name(frame.type));
    }
    if (status == RS_EBUSY && (status = rs_frames_fill(&k->frames)) == RS_OK)
      rs_pulse_note(&k->pulse);
    events = POLLIN;
  } while (--left > 0
           && (status == RS_OK
               || (status == RS_EBUSY
                   && !rs_carrier_begin_wait(&k->frames.carrier, &events))));
  return status == RS_OK || status == RS_EBUSY;
}

/* rs_pulse.wake */
static void
wake_link (rs_pulse *p)
{
  RS_LIST_ENTRY(p, rs_link, pulse)->sleeper.wake(
    RS_LIST_ENTRY(p, rs_link, pulse)->sleeper.object);
}

/* rs_pulse.serve */
static bool
serve_link (rs_pulse *p, bool beats, bool reads)
{
  rs_link *const k = RS_LIST_ENTRY(p, rs_link, pulse);
  if (beats)
    send_ping(k);
  if (!reads)
    return false;
  if (!can_print()) {  /* then the next beat looks again */
    rs_pulse_note(p);
    return false;
  }
  rs_carrier_end_wait(&k->frames.carrier, POLLIN);
  rs_errors_read(&k->errors);
  return read_at_rest(k);
}

void
rs_link_rest (rs_link *k)
{
  if (k->pulse.given)  /* the heart has it already */
    return;
  if (k->frames.carrier.ring != NULL)
    read_at_rest(k);
  rs_pulse_give(&k->pulse, RS_PULSE_RESTING);
}

int
rs_link_watch (rs_link *k, rs_error *err)
{
  k->pulse.wake = wake_link;
  k->pulse.serve = serve_link;
  k->pulse.fds[0] = &k->process.in;
  k->pulse.fds[1] = &k->errors.fd;
  return rs_pulse_start(&k->pulse, k->options.options->heartbeat, err);
}

/* ----------------------------------------------------------------- the end */

static void
drop_values (rs_link *k)
{
  rs_message_unref(k->values);
  k->values = NULL;
}

bool
rs_link_has_died (rs_link *k)
{
  struct pollfd fds[] = {
    { .fd = k->process.in, .events = POLLRDHUP },
    { .fd = k->process.end, .events = POLLIN },
  };
  k->silent = rs_pulse_is_silent(&k->pulse);
  return k->silent || k->frames.broken || poll(fds, 2, 0) > 0;
}

int
rs_link_end (rs_link *k, double timeout, char *text, size_t size)
{
  char how[120];
  const char *const colon = k->name[0] != '\0' ? ": " : "";
  rs_pulse_stop(&k->pulse);
  if (k->frames.error[0] != '\0' || k->silent
      || (k->killed && k->process.gentle))
    timeout = 0;
  rs_process_hang_up(&k->process);
  if (k->errors.fd >= 0) {
    const double deadline = rs_deadline(timeout);
    rs_errors_drain(&k->errors, &k->process, timeout);
    timeout = rs_remaining(deadline);
  }
  const int status = rs_process_finish(&k->process, timeout, how, sizeof how);
  if (k->frames.error[0] != '\0')
    snprintf(text, size, "%s%sthe worker process sent what it may not: %.200s",
             k->name, colon, k->frames.error);
  else if (k->silent && !k->killed)
    snprintf(text, size, "%s%sno heartbeat for %g s", k->name, colon,
             k->options.options->heartbeat);
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
  k->open = k->begun = k->killed = k->sending = k->silent = false;
  return status;
}
