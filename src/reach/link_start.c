/* SPDX-License-Identifier: MIT */
/*
 * link_start.c - a link: how its process is started, and its state opened.
 */
#include "reach/link_start.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/exchange.h"

#define GREET 30.0       /* seconds until a program is not one of ours */
#define PATIENCE 10.0    /* seconds that a host which was reached before has to
                            come back */
#define AGAIN 0.4        /* seconds until a server of ssh is tried again that
                            refused one more connection; more each time */
#define PAUSE 0.05       /* seconds until a process is started in the place of
                            the second one in a row that has died at once;
                            doubled each time */
#define LONGEST 2.0      /* of such pauses */

enum {
  TRIES = 8,               /* at a server of ssh that refuses one more */
  AT_ONCE = 32768          /* bytes that go into an empty ring */
};

/* ----------------------------------------------------------------- opening */

/* Send OPEN, if it has no more than 'most' bytes. */
static int
send_open (rs_link *k, size_t most)
{
  rs_pool_options o = *k->options.options;
  if (k->hosts == NULL)  /* the end of its socket tells a child enough */
    o.heartbeat = RS_FOREVER;
  rs_buf_clear(&k->payload);
  rs_open_write(&k->payload, &o, k->options.worker);
  if (k->payload.failed)
    return RS_ENOMEM;
  const struct iovec part = { k->payload.data, k->payload.size };
  k->sent = k->payload.size <= most;
  int status = k->sent ? rs_frames_put(&k->frames, RS_FRAME_OPEN, 0, &part, 1)
                       : RS_OK;
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

/* What comes until the state is there: HELLO, OUTPUT, READY or FAILED.  OPEN
   goes when the worker is there: what else reads the standard input of a
   command would take it, and a child has chosen by then whether its ring is
   used. */
static int
greet (rs_link *k, bool hello, rs_error *err)
{
  rs_frame frame;
  const double deadline = rs_now() + GREET;
  for (;;) {
    const int status = rs_link_next(k, &frame, hello ? RS_NEVER : deadline);
    if (status != RS_OK)
      return status;
    rs_cut c = { frame.data, frame.size, false };
    if (frame.type == RS_FRAME_VALUES)
      rs_message_unref(frame.message);
    if (frame.type == RS_FRAME_HELLO && !hello) {
      if (rs_hello_check(&c, err) != RS_OK || rs_link_watch(k, err) != RS_OK)
        return RS_EFAILED;
      hello = true;
      rs_errors_show(&k->errors);
      if (!k->sent && send_open(k, SIZE_MAX) == RS_ENOMEM)
        return RS_ENOMEM;
    }
    else if (frame.type == RS_FRAME_OUTPUT && hello)
      rs_link_print(k, &frame);
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

/* Start the process, and make its frames.  RS_OK, RS_ENOMEM or RS_EFAILED. */
static int
launch (rs_link *k, rs_error *err)
{
  int fd = -1;
  rs_ring *ring = NULL;
  int status;
  if (k->launch != NULL) {
    ring = rs_ring_new(&fd);
    status = rs_launch_start(k->launch, &k->process, &k->errors, fd, err);
  }
  else {
    status = rs_command_start(&k->process, k->host->words, &k->errors, err);
    k->process.cpu_time = k->options.options->cpu_time;
  }
  if (fd >= 0)
    close(fd);
  if (status != RS_OK) {
    rs_ring_free(ring);
    return status;
  }
  status = rs_frames_init(&k->frames, RS_FRAME_HOST, k->process.in,
                          k->process.out);
  rs_carrier_use(&k->frames.carrier, ring);
  k->frames.carrier.wait = rs_link_wait_to_write;
  k->frames.carrier.ud = k;
  k->frames.between = rs_link_between;
  k->frames.forbidden = RS_MESSAGE_LIVE;
  return status;
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
  if (k->hosts == NULL && strncmp(noise, "bwrap: ", 7) == 0)
    return rs_fail(err, RS_EFAILED, "the wall of \"strict\" cannot be built: "
                                    "%.250s", noise);
  if (k->hosts == NULL && noise[0] != '\0')
    how = noise;
  if (k->hosts == NULL)
    return rs_fail(err, RS_EFAILED, "no runspace came up as a worker process%s"
                                    "%.100s: %.250s",
                   program != NULL ? " from " : "",
                   program != NULL ? program : "",
                   reason == RS_ETIMEOUT ? silent : how);
  how += strlen(k->name) + 2;  /* it begins with the name */
  if (k->host->ssh && exit == RS_LINK_NO_SSH)
    return rs_fail(err, RS_EFAILED, "%s: no connection: %.250s", k->name,
                   noise[0] != '\0' ? noise : how);
  if (reason == RS_ETIMEOUT)
    return rs_fail(err, RS_EFAILED, "%s: no runspace there: no greeting in "
                                    "%g s; %.250s", k->name, GREET,
                   noise[0] != '\0' ? noise : silent);
  return rs_fail(err, RS_EFAILED, "%s: no runspace there: %.250s", k->name,
                 noise[0] != '\0' ? noise : how);
}

/* Start a process, without a wait for it.  When it runs the link has begun,
   whatever the status is.  As 'launch'. */
static int
begin (rs_link *k, rs_error *err)
{
  const int status = launch(k, err);
  k->begun = status != RS_EFAILED;
  k->spent = k->killed = k->done = k->sent = false;
  k->functions = k->tasks = 0;
  return status;
}

/* Start a process, unless the link has begun, and open its state.  The errand
   says what stops that.  RS_OK, RS_ENOMEM, RS_EFAILED or RS_ESTOPPED. */
static int
start_one (rs_link *k, rs_errand *e, rs_error *err)
{
  char text[400], noise[256] = "";
  int status = k->begun ? RS_OK : begin(k, err);
  if (!k->begun)
    return status;
  k->begun = false;
  k->errand = e;
  err->status = RS_OK;
  if (status == RS_OK)
    status = greet(k, false, err);
  k->errand = NULL;
  if (status == RS_OK) {
    k->open = true;
    return RS_OK;
  }
  const bool greeted = k->frames.greeted;
  if (!greeted && k->errors.fd >= 0 && status == RS_ECLOSED) {
    rs_process_hang_up(&k->process);
    rs_errors_drain(&k->errors, &k->process, RS_LINK_DIE);
  }
  if (!greeted)
    read_noise(k, noise, sizeof noise);
  const int exit = rs_link_end(k, status == RS_ECLOSED ? RS_LINK_DIE : 0, text,
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
pause_link (rs_link *k, rs_errand *e, double seconds)
{
  const double deadline = rs_deadline(seconds);
  bool wanted;
  while ((wanted = rs_link_attend(k, e)) && rs_now() < deadline)
    rs_link_await(k, 0, deadline);
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
start_there (rs_link *k, rs_errand *e, rs_error *err)
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
start_somewhere (rs_link *k, rs_errand *e, rs_error *err)
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

/* Start a child; one that was there before has some seconds to come up again.
   As 'start_one'. */
static int
start_child (rs_link *k, rs_errand *e, rs_error *err)
{
  rs_runner_past *const past = k->options.past;
  const double patience = past->opened ? rs_now() + PATIENCE : 0;
  int status;
  while ((status = start_one(k, e, err)) == RS_EFAILED
         && rs_now() < patience) {
    past->deaths++;
    if (!rs_link_pause(k, e))
      return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(RS_REASON_CLOSED));
  }
  return status;
}

bool
rs_link_pause (rs_link *k, rs_errand *e)
{
  const unsigned n = k->options.past->deaths;
  const double seconds = fmin(ldexp(PAUSE, n < 32 ? (int) n - 2 : 30),
                              LONGEST);
  /* The moment is chance enough. */
  return n < 2 || pause_link(k, e, seconds * (0.5 + fmod(rs_now() * 1e3, 1)));
}

bool
rs_link_begin (rs_link *k, bool joined)
{
  rs_error err;
  char text[400];
  int status = begin(k, &err);
  if (status == RS_OK && joined && k->frames.carrier.ring != NULL)
    status = send_open(k, AT_ONCE);
  if (status != RS_OK && k->begun)
    rs_link_end(k, 0, text, sizeof text);
  return status == RS_OK;
}

int
rs_link_reopen (rs_link *k, rs_errand *e, rs_error *err)
{
  char text[400];
  err->status = RS_OK;
  k->errand = e;
  int status = rs_frames_put(&k->frames, RS_FRAME_RENEW, 0, NULL, 0);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  if (status == RS_OK)
    status = greet(k, true, err);
  k->errand = NULL;
  if (status == RS_OK)
    return RS_OK;
  rs_link_end(k, status == RS_ECLOSED ? RS_LINK_DIE : 0, text, sizeof text);
  if (status == RS_ESTOPPED)
    return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(RS_REASON_CLOSED));
  return err->status != RS_OK ? err->status : rs_fail(err, status, "%s", text);
}

int
rs_link_start (rs_link *k, rs_errand *e, rs_error *err)
{
  if (k->begun)
    return start_one(k, e, err);
  rs_runner_past *const past = k->options.past;
  const bool again = k->options.owner != RS_SEEDING;  /* for a call? */
  if (!rs_link_pause(k, e)
      || (again && past->over > rs_now()
          && !pause_link(k, e, past->over - rs_now())))
    return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(RS_REASON_CLOSED));
  past->over = again ? 0 : past->over;
  const int status = k->hosts == NULL ? start_child(k, e, err)
                                      : start_somewhere(k, e, err);
  past->opened |= status == RS_OK;
  return status;
}
