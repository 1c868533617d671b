/* SPDX-License-Identifier: MIT */
/*
 * link.c - the runner that is a worker process, behind frames.
 *
 *     closed --> opening --> ready <--> running
 *       ^           |          |           |
 *       +-----------+----------+-----------+   the process has ended
 *
 * One thread runs here, that of the worker; others only wake it, by an
 * eventfd.  It waits at three descriptors: the socket, the process (pidfd),
 * and the eventfd.
 *
 * What stops a call crosses as CANCEL, first with the grace that is left, then
 * with none; the far side raises, as in a thread.  It also finds out by itself
 * that a call does not come back from C, and says so (LOST).  Whoever says
 * nothing is killed KILL seconds after force.  The end of the process ends the
 * call as lost, with a text that says how.
 *
 * What the host says to a chunk while it runs is one word: STOP, which stands
 * for 'stop' and 'failed' alike.  The flags are looked at each LOOK seconds,
 * since whoever sets them does not know which workers run such a chunk.
 * 'allowed' crosses as the number of failures that are left when the call is
 * sent, and the far side stops its chunk by that number; here the failures are
 * counted when the result has been read, so that each counts once.
 *
 * A process that has died between two calls is found before the next call is
 * sent, or while that is sent: the call has not begun, so another process is
 * started for it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* POLLRDHUP */
#endif
#include "reach/link.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/spin.h"
#include "base/status.h"
#include "reach/command.h"
#include "reach/exchange.h"
#include "reach/hosts.h"
#include "reach/process.h"

#define GREET 30.0       /* seconds until a program is not one of ours */
#define KILL (RS_KILL + 0.4)  /* seconds from force to SIGKILL: the far side
                            finds a lost call within that, and can tell
                            where */
#define LOOK 0.01        /* seconds between two looks at a chunk's flags */
#define LATE 0.5         /* seconds after its time by which a call that the far
                            side did not stop is stopped from here */
#define FINISH 1.5       /* seconds that a state has to close */
#define DIE 1.0          /* seconds from the end of the file to that of the
                            process */
#define PATIENCE 10.0    /* seconds that a host which was reached before has to
                            come back */
#define AGAIN 0.4        /* seconds until a server of ssh is tried again that
                            refused one more connection; more each time */

enum {
  KEPT = 4,                /* functions that the far side keeps */
  LOOKS = 100,             /* looks for bytes before the thread sleeps */
  TRIES = 8,               /* at a server of ssh that refuses one more */
  NO_SSH = 255             /* status of an ssh without connection */
};

/* Where the thread waits; other threads wake it. */
typedef struct alarm_bell {
  _Atomic unsigned refs;   /* the link, and threads that are about to wake */
  int fd;                  /* eventfd */
} alarm_bell;

/* What a wait is for; NULL in a link: for nothing that could be stopped. */
typedef struct errand {
  rs_token *token;         /* of the call, or of the opening */
  rs_call *call;           /* NULL: the state is being opened */
  const rs_call_sink *sink;
  int asked;               /* the level that CANCEL was sent for */
  double kill_at;          /* instant; RS_NEVER */
  bool stopped;            /* STOP was sent */
} errand;

typedef struct rs_link {
  rs_runner base;
  rs_state_options options;  /* constant */
  rs_process process;
  rs_hosts *hosts;         /* lent; NULL: the process is a child that is
                              started directly */
  const rs_host *host;     /* that was taken, or NULL */
  char name[120];          /* of the worker, in messages; "": none */
  rs_errors errors;        /* of a command; its name is 'name' */
  rs_frames frames;
  bool open;               /* the process runs, and its state is there */
  bool spent;              /* the state, or the process, is to be replaced */
  bool sending;            /* a frame may be cut in two: no other one may be
                              written */
  bool killed;             /* by us, since it did not stop */
  size_t bytes;            /* memory of the state, as it was told last */
  uint64_t calls;          /* number of the last call */
  uint64_t functions;      /* number of the last function */
  struct {
    rs_message *function;  /* a reference, or NULL */
    uint64_t number;
  } kept[KEPT];
  unsigned next;           /* place in 'kept' that is used next, modulo KEPT */
  rs_message *values;      /* VALUES that came, for the next frame; or NULL */
  errand *errand;          /* what the thread waits for, or NULL */
  rs_buf payload;          /* of the frame that is being written */
  alarm_bell *bell;
  rs_sleeper sleeper;      /* at 'bell' */
} rs_link;

static rs_link *
own (const rs_runner *runner)
{
  return (rs_link *) (uintptr_t) runner;
}

/* ---------------------------------------------------------------- the bell */

static void
bell_ref (void *object)
{
  atomic_fetch_add_explicit(&((alarm_bell *) object)->refs, 1,
                            memory_order_relaxed);
}

static void
bell_unref (void *object)
{
  alarm_bell *const b = object;
  if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
    return;
  if (b->fd >= 0)
    close(b->fd);
  free(b);
}

/* rs_sleeper: an eventfd keeps the ring until the thread looks. */
static void
bell_ring (void *object)
{
  const uint64_t one = 1;
  const ssize_t n = write(((alarm_bell *) object)->fd, &one, sizeof one);
  (void) n;  /* one that is full is readable, too */
}

static alarm_bell *
bell_new (void)
{
  alarm_bell *const b = malloc(sizeof *b);
  if (b == NULL)
    return NULL;
  atomic_init(&b->refs, 1);
  b->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (b->fd < 0) {
    free(b);
    return NULL;
  }
  return b;
}

static void
bell_take (const alarm_bell *b)
{
  uint64_t n;
  const ssize_t got = read(b->fd, &n, sizeof n);
  (void) got;
}

/* ----------------------------------------------------------------- waiting */

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* True when the flags of the chunk have to be looked at. */
static bool
has_flags (const errand *e)
{
  return e->call != NULL && e->call->chunk != NULL && !e->stopped
      && (e->call->chunk->stop != NULL || e->call->chunk->failed != NULL);
}

/* Send CANCEL: the reason, and the grace that is left. */
static void
send_cancel (rs_link *k, errand *e, bool force)
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

/* Pass on what the far side has to know, and kill it when it is time.  False
   when a state that is being opened is not wanted any more. */
static bool
attend (rs_link *k, errand *e)
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

/* Wait until 'events' are there at the link, the process ends, somebody wakes
   the thread, or 'deadline'.  Returns what is there at the link; 0: look
   again, or the process has ended. */
static short
await (rs_link *k, short events, double deadline)
{
  const errand *const e = k->errand;
  const bool writes = k->process.in != k->process.out && (events & POLLOUT);
  struct pollfd fds[] = {
    { .fd = k->process.in,
      .events = (short) (writes ? events & ~POLLOUT : events) },
    { .fd = k->bell->fd, .events = POLLIN },
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
    bell_take(k->bell);
  if (fds[3].revents != 0)
    rs_errors_read(&k->errors);
  if (fds[0].revents == 0 && fds[2].revents != 0)
    return POLLHUP;  /* all that it sent was read: it is over */
  return (short) (fds[0].revents | fds[4].revents);
}

/* rs_frames.wait: the link takes no more for now. */
static bool
wait_to_write (void *ud, int fd, short events)
{
  rs_link *const k = ud;
  (void) fd;
  if (k->errand != NULL && !attend(k, k->errand))
    return false;
  const short there = await(k, events, RS_NEVER);
  return (there & (POLLHUP | POLLERR)) == 0 && !k->killed;
}

static bool
has_come (const void *ud)
{
  char byte;
  return recv(((const rs_link *) ud)->process.in, &byte, 1,
              MSG_PEEK | MSG_DONTWAIT) >= 0;
}

/* Take the next message that comes.  RS_OK, RS_ETIMEOUT, RS_ESTOPPED,
   RS_ENOMEM, or RS_ECLOSED: the far side has ended, or has sent what is
   wrong. */
static int
next_frame (rs_link *k, rs_frame *frame, double deadline)
{
  int status;
  while ((status = rs_frames_take(&k->frames, frame)) == RS_EBUSY) {
    if (k->errand != NULL && !attend(k, k->errand))
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
      if (await(k, POLLIN, deadline) == POLLHUP
          && rs_frames_fill(&k->frames) == RS_EBUSY)
        return RS_ECLOSED;
    }
    else if (status != RS_OK)
      return status;
  }
  return status;
}

/* Write what the far side printed.  The reader of standard output may be gone:
   then the process is told as one that writes there itself. */
static void
print (const rs_frame *frame)
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

/* The process is over, or has to be.  Writes into 'text' how it ended; what it
   sent before, and was wrong, comes first.  Returns the status that it exited
   with, or -1. */
static int
end_process (rs_link *k, double timeout, char *text, size_t size)
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
  else if (!k->killed && status == NO_SSH && k->host != NULL && k->host->ssh)
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
  for (int i = 0; i < KEPT; i++) {
    rs_message_unref(k->kept[i].function);
    k->kept[i].function = NULL;
  }
  k->open = k->killed = k->sending = false;
  return status;
}

/* ----------------------------------------------------------------- opening */

static int
send_open (rs_link *k)
{
  rs_buf_clear(&k->payload);
  rs_open_write(&k->payload, k->options.options, k->options.worker);
  if (k->payload.failed)
    return RS_ENOMEM;
  const struct iovec part = { k->payload.data, k->payload.size };
  int status = rs_frames_put(&k->frames, RS_FRAME_OPEN, 0, &part, 1);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  rs_buf_fini(&k->payload);  /* it may be large, and is not needed again */
  return status;
}

/* Fail with the status and the text that FAILED has. */
static int
read_failed (const rs_frame *frame, rs_error *err)
{
  rs_cut c = { frame->data, frame->size, false };
  const uint64_t status = rs_cut_number(&c, 4);
  char *const text = rs_cut_text(&c);
  if (text != NULL)
    rs_text_clean(text);
  const int known = status == RS_ENOMEM ? RS_ENOMEM : RS_EFAILED;
  rs_fail(err, known, "%s", text != NULL ? text : "(no message)");
  free(text);
  return known;
}

/* What comes until the state is there: HELLO, OUTPUT, READY or FAILED.  A
   command gets OPEN when its worker is there, since what else reads its
   standard input would take that. */
static int
greet (rs_link *k, rs_error *err)
{
  rs_frame frame;
  const double deadline = rs_now() + GREET;
  bool hello = false;
  for (;;) {
    const int status = next_frame(k, &frame, hello ? RS_NEVER : deadline);
    if (status != RS_OK)
      return status;
    rs_cut c = { frame.data, frame.size, false };
    if (frame.type == RS_FRAME_VALUES)
      rs_message_unref(frame.message);
    if (frame.type == RS_FRAME_HELLO && !hello) {
      if (rs_hello_check(&c, err) != RS_OK)
        return RS_EFAILED;
      hello = true;
      rs_errors_show(&k->errors);
      if (k->hosts != NULL && send_open(k) == RS_ENOMEM)
        return RS_ENOMEM;
    }
    else if (frame.type == RS_FRAME_OUTPUT && hello)
      print(&frame);
    else if (frame.type == RS_FRAME_FAILED && hello)
      return read_failed(&frame, err);
    else if (frame.type == RS_FRAME_READY && hello) {
      k->bytes = (size_t) rs_cut_number(&c, 8);
      return RS_OK;
    }
    else
      return rs_frames_refuse(&k->frames, "%s before it was ready",
                              rs_frame_name(frame.type));
  }
}

/* Start the process.  RS_OK or RS_EFAILED. */
static int
launch (rs_link *k, rs_error *err)
{
  if (k->hosts == NULL)
    return rs_process_start(&k->process, k->options.options->runspace, err);
  return rs_command_start(&k->process, k->host->words, &k->errors, err);
}

/* What the far side said instead of a greeting, in one line; "": nothing. */
static void
read_noise (rs_link *k, char *text, size_t size)
{
  const size_t n = k->errors.held.size < size - 1 ? k->errors.held.size
                                                  : size - 1;
  rs_frames_noise(&k->frames, text, size);
  if (n > 0) {
    memcpy(text, k->errors.held.data + k->errors.held.size - n, n);
    text[n] = '\0';
    for (size_t i = 0; i < n; i++)
      if (text[i] == '\0')
        text[i] = '?';
  }
  rs_text_last(text, size - 1);
}

/* Fail, since no greeting has come.  'how' tells how the process ended. */
static int
fail_to_greet (const rs_link *k, int reason, int exit, const char *how,
               const char *noise, rs_error *err)
{
  const char *const program = k->options.options->runspace;
  const char *const silent = "it says nothing";
  if (k->hosts == NULL)
    return rs_fail(err, RS_EFAILED, "no runspace came up as a worker process%s"
                                    "%.100s: %.250s",
                   program != NULL ? " from " : "",
                   program != NULL ? program : "",
                   reason == RS_ETIMEOUT ? silent : how);
  how += strlen(k->name) + 2;  /* it begins with the name */
  if (k->host->ssh && exit == NO_SSH)
    return rs_fail(err, RS_EFAILED, "%s: no connection: %.250s", k->name,
                   noise[0] != '\0' ? noise : how);
  if (reason == RS_ETIMEOUT)
    return rs_fail(err, RS_EFAILED, "%s: no runspace there: no greeting in "
                                    "%g s; %.250s", k->name, GREET,
                   noise[0] != '\0' ? noise : silent);
  return rs_fail(err, RS_EFAILED, "%s: no runspace there: %.250s", k->name,
                 noise[0] != '\0' ? noise : how);
}

/* Start a process, and open its state.  The errand says what stops that.
   RS_OK, RS_ENOMEM, RS_EFAILED or RS_ESTOPPED. */
static int
start_one (rs_link *k, errand *e, rs_error *err)
{
  char text[400], noise[256] = "";
  int status = launch(k, err);
  if (status != RS_OK)
    return status;
  status = rs_frames_init(&k->frames, RS_FRAME_HOST, k->process.in,
                          k->process.out);
  k->frames.forbidden = RS_MESSAGE_LIVE;
  k->frames.wait = wait_to_write;
  k->frames.ud = k;
  k->spent = k->killed = false;
  k->functions = 0;
  k->errand = e;
  err->status = RS_OK;
  if (status == RS_OK && k->hosts == NULL)
    status = send_open(k);
  if (status == RS_OK || status == RS_ECLOSED)
    status = greet(k, err);  /* it may have said why it ended */
  k->errand = NULL;
  if (status == RS_OK) {
    k->open = true;
    return RS_OK;
  }
  const bool greeted = k->frames.greeted;
  if (!greeted && k->hosts != NULL && status == RS_ECLOSED) {
    rs_process_hang_up(&k->process);
    rs_errors_drain(&k->errors, &k->process, DIE);
  }
  if (!greeted)
    read_noise(k, noise, sizeof noise);
  const int exit = end_process(k, status == RS_ECLOSED ? DIE : 0, text,
                               sizeof text);
  if (status == RS_ESTOPPED)
    return rs_fail(err, RS_ESTOPPED, "%s",
                   rs_reason_text(RS_REASON_CLOSED));
  if (status == RS_ENOMEM && err->status == RS_OK)
    return rs_fail_plain(err, RS_ENOMEM);
  if (err->status != RS_OK)
    return err->status;
  if (!greeted)
    return fail_to_greet(k, status, exit, text, noise, err);
  return rs_fail(err, RS_EFAILED, "%s before its runspace was there", text);
}

/* Wait.  False when the state that is being opened is not wanted any more. */
static bool
pause_link (rs_link *k, errand *e, double seconds)
{
  const double deadline = rs_deadline(seconds);
  bool wanted;
  while ((wanted = attend(k, e)) && rs_now() < deadline)
    await(k, 0, deadline);
  return wanted;
}

/* True when a server of ssh has refused one more connection for now. */
static bool
is_busy (const rs_link *k, const rs_error *err)
{
  return k->host->ssh && strstr(err->text, ": no connection: ") != NULL
      && (strstr(err->text, "_exchange_identification") != NULL
          || strstr(err->text, "banner exchange") != NULL);
}

/* Put the name of the host in front of a text that has none. */
static void
add_name (const rs_link *k, rs_error *err)
{
  char text[sizeof err->text];
  const size_t n = strlen(k->name);
  if (strncmp(err->text, k->name, n) == 0 && err->text[n] == ':')
    return;
  snprintf(text, sizeof text, "%s", err->text);
  rs_fail(err, err->status, "%s: %.500s", k->name, text);
}

/* Start a process at the host that was taken.  As 'start_one'. */
static int
start_there (rs_link *k, errand *e, rs_error *err)
{
  int status = RS_EFAILED;
  bool busy = true;
  if (k->host->ssh)
    snprintf(k->name, sizeof k->name, "%.100s", k->host->name);
  else
    snprintf(k->name, sizeof k->name, "%.100s %u", k->host->name,
             k->base.worker);
  for (int i = 0; i < TRIES && busy; i++) {
    /* The moment that the refusal came at is chance enough. */
    if (i > 0 && !pause_link(k, e, AGAIN * i * (0.5 + fmod(rs_now() * 1e3,
                                                           1))))
      return rs_fail(err, RS_ESTOPPED, "%s",
                     rs_reason_text(RS_REASON_CLOSED));
    status = start_one(k, e, err);
    busy = status == RS_EFAILED && is_busy(k, err);
  }
  if (status == RS_EFAILED)
    add_name(k, err);
  return status;
}

/* Start a process at one of the hosts.  As 'start_one'. */
static int
start_somewhere (rs_link *k, errand *e, rs_error *err)
{
  const double patience = rs_now() + PATIENCE;
  for (;;) {
    double seconds;
    int status = rs_hosts_take(k->hosts, patience, &k->host, &seconds, err);
    if (status == RS_EFAILED)
      return status;
    if (status == RS_EBUSY && pause_link(k, e, seconds))
      continue;
    if (status == RS_EBUSY)
      return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(RS_REASON_CLOSED));
    status = start_there(k, e, err);
    if (status == RS_OK && k->host->ssh)
      k->base.host = k->host->name;
    const bool failed = status == RS_EFAILED;
    rs_hosts_tell(k->hosts, k->host, status == RS_OK ? NULL : err->text,
                  status != RS_OK && !failed);
    if (status != RS_OK)
      k->host = NULL;
    if (!failed)
      return status;
  }
}

/* Start a process, and open its state.  As 'start_one'. */
static int
start (rs_link *k, errand *e, rs_error *err)
{
  return k->hosts == NULL ? start_one(k, e, err) : start_somewhere(k, e, err);
}

static void close_link (rs_runner *runner);

static int
open_link (const rs_state_options *options, rs_runner **out, rs_error *err)
{
  rs_token token;
  errand e = { .token = &token, .kill_at = RS_NEVER };
  rs_link *const k = calloc(1, sizeof *k);
  if (k == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  k->base = (rs_runner) {
    .kind = options->shared != NULL ? &rs_command_kind : &rs_process_kind,
    .cancel = options->cancel, .worker = options->worker
  };
  k->options = *options;
  k->hosts = options->shared;
  k->process = (rs_process) RS_NO_PROCESS;
  k->errors = (rs_errors) RS_NO_ERRORS;
  k->errors.name = k->name;
  k->payload = (rs_buf) RS_BUF_INIT;
  k->bell = bell_new();
  if (k->bell == NULL) {
    close_link(&k->base);
    return rs_fail(err, RS_EFAILED, "cannot make an eventfd for a worker "
                                    "process: %s", strerror(errno));
  }
  k->sleeper = (rs_sleeper) {
    .wake = bell_ring, .ref = bell_ref, .unref = bell_unref,
    .object = k->bell, .returns = true
  };
  rs_token_enter(options->cancel, &token, NULL, options->owner,
                 options->wish);
  rs_cancel_sleeps(options->cancel, &k->sleeper);
  const int status = start(k, &e, err);
  rs_cancel_wakes(options->cancel);
  rs_token_leave(options->cancel, &token, NULL);
  if (status != RS_OK) {
    close_link(&k->base);
    return status;
  }
  *out = &k->base;
  return RS_OK;
}

/* ----------------------------------------------------------------- sending */

static bool
has_died (const rs_link *k)
{
  struct pollfd fds[] = {
    { .fd = k->process.in, .events = POLLRDHUP },
    { .fd = k->process.end, .events = POLLIN },
  };
  return poll(fds, 2, 0) > 0;
}

/* True when the function will be sent again, as far as is known: it is worth
   keeping. */
static bool
comes_again (const rs_call *call)
{
  return call->keep || call->chunk != NULL;
}

/* Queue the function, unless the far side keeps it.  '*number' becomes what it
   has it under. */
static int
send_function (rs_link *k, const rs_call *call, uint64_t *number)
{
  if (!comes_again(call)) {
    *number = ++k->functions;
    return rs_frames_put_message(&k->frames, RS_FRAME_FUNCTION, *number,
                                 call->function);
  }
  for (int i = 0; i < KEPT; i++)
    if (k->kept[i].function == call->function) {
      *number = k->kept[i].number;
      return RS_OK;
    }
  const unsigned place = k->next++ % KEPT;
  int status = RS_OK;
  if (k->kept[place].function != NULL)
    status = rs_frames_put(&k->frames, RS_FRAME_FORGET, k->kept[place].number,
                           NULL, 0);
  rs_message_unref(k->kept[place].function);
  k->kept[place].function = rs_message_ref(call->function);
  k->kept[place].number = *number = ++k->functions;
  if (status == RS_OK)
    status = rs_frames_put_message(&k->frames, RS_FRAME_FUNCTION, *number,
                                   call->function);
  return status;
}

/* Send the call.  RS_OK; RS_ENOMEM: the far side waits for the rest of a
   frame, perhaps; RS_ECLOSED. */
static int
send_call (rs_link *k, const rs_call *call, const char *name)
{
  uint64_t number = 0;
  k->sending = true;
  k->calls++;
  int status = send_function(k, call, &number);
  if (status == RS_OK && call->arguments != NULL)
    status = rs_frames_put_message(&k->frames, RS_FRAME_VALUES, k->calls,
                                   call->arguments);
  rs_buf_clear(&k->payload);
  rs_call_write(&k->payload, call, number, name);
  const struct iovec part = { k->payload.data, k->payload.size };
  if (status == RS_OK)
    status = k->payload.failed ? RS_ENOMEM
           : rs_frames_put(&k->frames, RS_FRAME_CALL, k->calls, &part, 1);
  if (status == RS_OK && !comes_again(call))
    status = rs_frames_put(&k->frames, RS_FRAME_FORGET, number, NULL, 0);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  k->sending = false;
  return status;
}

/* --------------------------------------------------------------- receiving */

/* Hand the record to the sink, which may wait, as this thread may not while it
   waits at the link. */
static void
hand_over (rs_link *k, const errand *e, rs_stream_record *record)
{
  if (!e->sink->ready(e->call)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_cancel_wakes(k->base.cancel);
  if (record->info.stream == RS_STREAM_EVENT)
    e->sink->emit(e->call, record);
  else
    e->sink->record(e->call, record);
  rs_cancel_sleeps(k->base.cancel, &k->sleeper);
}

/* Take one frame of a call that runs.  RS_OK; RS_EDONE: it was the result;
   RS_ECLOSED; RS_ESTOPPED: the far side says that the call is lost, and
   '*text' where. */
static int
take_frame (rs_link *k, errand *e, const rs_frame *frame, char **text)
{
  rs_cut c = { frame->data, frame->size, false };
  rs_message *const values = k->values;
  rs_stream_record *record;
  int status = RS_OK;
  if (frame->type != RS_FRAME_VALUES && frame->type != RS_FRAME_OUTPUT
      && frame->number != k->calls)
    return rs_frames_refuse(&k->frames, "%s for call %llu, while %llu runs",
                            rs_frame_name(frame->type),
                            (unsigned long long) frame->number,
                            (unsigned long long) k->calls);
  switch (frame->type) {
    case RS_FRAME_VALUES:
      k->values = frame->message;
      if (values == NULL)
        return RS_OK;
      rs_message_unref(values);
      return rs_frames_refuse(&k->frames, "VALUES for nothing");
    case RS_FRAME_OUTPUT:
      print(frame);
      return RS_OK;
    case RS_FRAME_RECORD:
      k->values = NULL;
      status = rs_record_read(&c, e->call, values, &record);
      if (status == RS_OK && record != NULL)
        hand_over(k, e, record);
      break;
    case RS_FRAME_RESULT:
      status = rs_result_read(&c, e->call, values, &k->spent, &k->bytes);
      if (status == RS_OK) {
        k->values = NULL;
        return RS_EDONE;
      }
      break;
    case RS_FRAME_LOST:
      status = rs_lost_read(&c, e->call, text);
      if (status == RS_OK)
        return RS_ESTOPPED;
      break;
    default:
      return rs_frames_refuse(&k->frames, "%s while a call runs",
                              rs_frame_name(frame->type));
  }
  return status == RS_OK ? RS_OK
       : rs_frames_refuse(&k->frames, "%s that cannot be that of this call",
                          rs_frame_name(frame->type));
}

/* Read until the call has ended: RS_EDONE, or as 'take_frame' and
   'next_frame'. */
static int
receive (rs_link *k, errand *e, char **text)
{
  rs_frame frame;
  int status;
  while ((status = next_frame(k, &frame, RS_NEVER)) == RS_OK
         && (status = take_frame(k, e, &frame, text)) == RS_OK)
    ;
  return status;
}

/* ----------------------------------------------------------------- running */

/* Seconds after which this side stops a call whose far side has not: 0:
   never. */
static double
time_of (const rs_call *call)
{
  const double items = call->chunk != NULL ? (double) call->chunk->count : 1;
  const double attempts = call->chunk != NULL ? call->retries + 1.0 : 1;
  return call->timeout > 0 ? call->timeout * items * attempts + LATE : 0;
}

/* The failures of a chunk that has ended count for its batch. */
static void
count_failures (const rs_call *call)
{
  rs_chunk *const k = call->chunk;
  size_t n = k->ended[RS_JOB_FAILED];
  if (call->reason != RS_REASON_DEADLINE)
    n += k->ended[RS_JOB_TIMED_OUT];
  for (size_t i = 0; i < n && k->allowed != NULL; i++)
    rs_chunk_fail(k);
}

/* Send the call, if need be to another process, since the last one has died
   without it.  RS_OK or a failure; the text in 'err' says why. */
static int
deliver (rs_link *k, errand *e, rs_error *err)
{
  int status = RS_ECLOSED;
  char text[400];
  for (int i = 0; i < 2 && status == RS_ECLOSED && !k->killed; i++) {
    if (k->open && has_died(k))
      end_process(k, DIE, text, sizeof text);
    if (!k->open) {
      rs_call *const call = e->call;
      e->call = NULL;
      status = start(k, e, err);
      e->call = call;
      if (status != RS_OK)
        return status;
    }
    k->errand = e;
    status = send_call(k, e->call, e->sink->name(e->call));
    k->errand = NULL;
    if (status == RS_ECLOSED && !k->killed)
      end_process(k, DIE, text, sizeof text);
    else if (status != RS_OK)
      end_process(k, 0, text, sizeof text);
  }
  if (status == RS_ENOMEM)
    return rs_fail_plain(err, RS_ENOMEM);
  return status == RS_OK ? RS_OK : rs_fail(err, status, "%s", text);
}

/* The call has ended without a result. */
static void
lose (const errand *e, const char *text)
{
  e->call->state = RS_JOB_LOST;
  e->sink->failed(e->call, text);
}

static void
run_call (rs_link *k, errand *e)
{
  rs_error err = { .status = RS_OK };
  char how[400], *place = NULL;
  int status = deliver(k, e, &err);
  if (status == RS_ESTOPPED)  /* before it began */
    e->call->state = RS_JOB_CANCELLED;
  else if (status == RS_EFAILED || status == RS_ENOMEM) {
    e->call->state = RS_JOB_FAILED;
    e->sink->failed(e->call, err.text);
  }
  else if (status != RS_OK)
    lose(e, err.text);
  k->spent = status != RS_OK;
  if (status != RS_OK)
    return;
  k->errand = e;
  status = receive(k, e, &place);
  k->errand = NULL;
  if (k->errors.fd >= 0)
    rs_errors_read(&k->errors);
  if (status == RS_EDONE) {
    if (e->call->chunk != NULL && e->call->state != RS_JOB_FAILED)
      count_failures(e->call);
    return;
  }
  end_process(k, status == RS_ECLOSED ? DIE : 0, how, sizeof how);
  k->spent = true;
  if (status == RS_ENOMEM)
    lose(e, rs_status_message(RS_ENOMEM));
  else if (status == RS_ESTOPPED)
    lose(e, place != NULL ? place : "it did not come back, and its process "
                                    "was ended");
  else
    lose(e, how);
  free(place);
}

static void
run (rs_runner *runner, rs_call *call, const rs_call_sink *sink)
{
  rs_link *const k = own(runner);
  rs_cancel *const cancel = runner->cancel;
  rs_token token;
  errand e = {
    .token = &token, .call = call, .sink = sink, .kill_at = RS_NEVER
  };
  rs_message_unref(call->result);  /* of an earlier attempt */
  call->result = NULL;
  call->state = RS_JOB_FAILED;
  call->reason = RS_REASON_NONE;
  rs_token_enter(cancel, &token, NULL, call, &call->wish);
  rs_cancel_sleeps(cancel, &k->sleeper);
  rs_token_begin(cancel, &token, time_of(call));
  run_call(k, &e);
  rs_cancel_wakes(cancel);
  rs_token_end(cancel, &token, NULL);
  const rs_reason reason = rs_token_leave(cancel, &token, NULL);
  if (call->chunk == NULL || call->state == RS_JOB_LOST)
    return;
  if (reason != RS_REASON_NONE) {
    call->reason = reason;
    call->state = rs_reason_state(reason);
  }
  if (call->state == RS_JOB_FAILED) {
    memset(call->chunk->ended, 0, sizeof call->chunk->ended);
    call->chunk->ended[RS_JOB_FAILED] = call->chunk->count;
  }
}

static bool
spent (rs_runner *runner)
{
  return own(runner)->spent;
}

/* Nobody else has the function: it will not be sent again. */
static void
trim (rs_runner *runner, bool chunk)
{
  rs_link *const k = own(runner);
  (void) chunk;
  for (int i = 0; i < KEPT; i++) {
    rs_message *const function = k->kept[i].function;
    if (function == NULL
        || atomic_load_explicit(&function->refs, memory_order_acquire) != 1)
      continue;
    rs_frames_put(&k->frames, RS_FRAME_FORGET, k->kept[i].number, NULL, 0);
    rs_message_unref(function);  /* FORGET goes with the next call */
    k->kept[i].function = NULL;
  }
}

static void
rest (rs_runner *runner)
{
  rs_errors_read(&own(runner)->errors);
}

static size_t
bytes (const rs_runner *runner)
{
  return own(runner)->bytes;
}

/* ----------------------------------------------------------------- closing */

/* Let the state close, whose finalizers may print, and the process end. */
static void
say_goodbye (rs_link *k)
{
  rs_frame frame;
  const double deadline = rs_now() + FINISH;
  int status = rs_frames_put(&k->frames, RS_FRAME_CLOSE, 0, NULL, 0);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  while (status == RS_OK
         && (status = next_frame(k, &frame, deadline)) == RS_OK) {
    if (frame.type == RS_FRAME_OUTPUT)
      print(&frame);
    rs_message_unref(frame.message);
  }
}

static void
close_link (rs_runner *runner)
{
  rs_link *const k = own(runner);
  char text[400];
  if (k->open) {
    say_goodbye(k);
    end_process(k, DIE / 4, text, sizeof text);
  }
  rs_buf_fini(&k->payload);
  rs_errors_close(&k->errors);
  if (k->bell != NULL)
    bell_unref(k->bell);
  free(k);
}

const rs_runner_kind rs_process_kind = {
  .forbidden = RS_MESSAGE_LOCAL,
  .open = open_link,
  .run = run,
  .spent = spent,
  .trim = trim,
  .rest = rest,
  .bytes = bytes,
  .close = close_link,
};

static int
prepare (const rs_pool_options *options, void **shared, rs_error *err)
{
  rs_hosts *hosts = NULL;
  const int status = rs_hosts_new(options, &hosts, err);
  *shared = hosts;
  return status;
}

static void
trouble (void *shared, char *text, size_t size)
{
  rs_hosts_trouble(shared, text, size);
}

static void
dismiss (void *shared)
{
  rs_hosts_free(shared);
}

const rs_runner_kind rs_command_kind = {
  .forbidden = RS_MESSAGE_LOCAL,
  .partial = true,
  .prepare = prepare,
  .trouble = trouble,
  .dismiss = dismiss,
  .open = open_link,
  .run = run,
  .spent = spent,
  .trim = trim,
  .rest = rest,
  .bytes = bytes,
  .close = close_link,
};
