/* SPDX-License-Identifier: MIT */
/*
 * link_life.c - a link: its memory, from the first moment to the last, and the
 * one that is to take its place.
 */
#include "reach/link_life.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/link_start.h"

#define FINISH 1.5       /* seconds that a state has to close */

/* ----------------------------------------------------------------- closing */

/* Let the state close, whose finalizers may print, and the process end. */
static void
say_goodbye (rs_link *k)
{
  rs_frame frame;
  const double deadline = rs_now() + FINISH;
  rs_pulse_take(&k->pulse);
  int status = rs_frames_put(&k->frames, RS_FRAME_CLOSE, 0, NULL, 0);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  while (status == RS_OK
         && (status = rs_link_next(k, &frame, deadline)) == RS_OK) {
    if (frame.type == RS_FRAME_OUTPUT)
      rs_link_print(k, &frame);
    rs_message_unref(frame.message);
  }
}

void
rs_link_close (rs_link *k)
{
  char text[400];
  if (k->spare != NULL)
    rs_link_close(k->spare);
  if (k->open)
    say_goodbye(k);
  if (k->open || k->begun)
    rs_link_end(k, RS_LINK_DIE / 4, text, sizeof text);
  rs_buf_fini(&k->payload);
  rs_errors_close(&k->errors);
  if (k->waker != NULL)
    rs_waker_unref(k->waker);
  free(k);
}

/* ------------------------------------------------------------------- begin */

int
rs_link_new (const rs_runner_kind *kind, const rs_state_options *options,
             rs_link **out, rs_error *err)
{
  rs_link *const k = calloc(1, sizeof *k);
  if (k == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  k->base = (rs_runner) {
    .kind = kind, .cancel = options->cancel, .worker = options->worker
  };
  k->options = *options;
  if (kind->partial)
    k->hosts = options->shared;
  else
    k->launch = options->shared;
  snprintf(k->label, sizeof k->label, "worker %u", options->worker);
  k->process = (rs_process) RS_NO_PROCESS;
  k->errors = (rs_errors) RS_NO_ERRORS;
  k->errors.name = k->launch != NULL ? k->label : k->name;
  k->payload = (rs_buf) RS_BUF_INIT;
  k->waker = rs_waker_new();
  if (k->waker == NULL) {
    rs_link_close(k);
    return rs_fail(err, RS_EFAILED, "cannot make an eventfd for a worker "
                                    "process: %s", strerror(errno));
  }
  k->sleeper = rs_waker_sleeper(k->waker);
  k->sleeper.tells = true;
  *out = k;
  return RS_OK;
}

void
rs_link_start_ahead (rs_link *k)
{
  rs_error err;
  rs_link *spare;
  if (k->launch == NULL || k->spare != NULL
      || rs_link_new(k->base.kind, &k->options, &spare, &err) != RS_OK)
    return;
  if (rs_link_begin(spare, k->frames.carrier.ring != NULL))
    k->spare = spare;
  else
    rs_link_close(spare);
}
