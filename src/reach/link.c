/* SPDX-License-Identifier: MIT */
/*
 * link.c - the runner that is a worker process, behind frames.
 *
 *     closed --> opening --> ready <--> running
 *       ^           |          |           |
 *       +-----------+----------+-----------+   the process has ended
 *
 * One thread runs here, that of the worker; others only wake it.  link_start.c
 * starts the process, and link_io.c waits for what it sends.
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
 * started for it.  CALL is what is sent last: whoever has not got all of it
 * has not begun.
 *
 * A call that is lost may run again (RS_RETRY_LOST) when it is over for
 * certain.  A child is over when it was reaped.  What a command has brought up
 * may be out of reach: it ends FAR heartbeats after the last sign of this
 * host, at the latest, and that is waited for.
 */
#include "reach/link.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/exchange.h"
#include "reach/link_io.h"
#include "reach/link_life.h"
#include "reach/link_start.h"

#define LATE 0.5         /* seconds after its time by which a call that the far
                            side did not stop is stopped from here */
#define PATIENCE 10.0    /* seconds in which a call finds a process that does
                            not die before it has got it */
#define FAR (RS_HEARTBEATS_FAR + 1)  /* heartbeats after which what a command
                            has brought up has ended for certain */

static rs_link *
own (const rs_runner *runner)
{
  return (rs_link *) (uintptr_t) runner;
}

/* ----------------------------------------------------------------- sending */

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
  for (int i = 0; i < RS_LINK_KEPT; i++)
    if (k->kept[i].function == call->function) {
      *number = k->kept[i].number;
      return RS_OK;
    }
  const unsigned place = k->next++ % RS_LINK_KEPT;
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
  k->place = rs_frames_place(&k->frames);
  if (status == RS_OK)
    status = k->payload.failed ? RS_ENOMEM
           : rs_frames_put(&k->frames, RS_FRAME_CALL, k->calls, &part, 1);
  if (status == RS_OK)
    status = rs_frames_flush(&k->frames);
  if (status == RS_OK && !comes_again(call))  /* goes with the next frame */
    status = rs_frames_put(&k->frames, RS_FRAME_FORGET, number, NULL, 0);
  k->sending = false;
  return status;
}

/* --------------------------------------------------------------- receiving */

/* Hand the record to the sink, which may wait, as this thread may not while it
   waits at the link. */
static void
hand_over (rs_link *k, const rs_errand *e, rs_stream_record *record)
{
  if (!e->sink->ready(e->call)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_pulse_give(&k->pulse, RS_PULSE_LENT);
  rs_cancel_wakes(k->base.cancel);
  if (record->info.stream == RS_STREAM_EVENT)
    e->sink->emit(e->call, record);
  else
    e->sink->record(e->call, record);
  rs_cancel_sleeps(k->base.cancel, &k->sleeper);
  rs_pulse_take(&k->pulse);
}

/* Take one frame of a call that runs.  RS_OK; RS_EDONE: it was the result;
   RS_ECLOSED; RS_ESTOPPED: the far side says that the call is lost, and
   '*text' where. */
static int
take_frame (rs_link *k, rs_errand *e, const rs_frame *frame, char **text)
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
      rs_link_print(k, frame);
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
   'rs_link_next'. */
static int
receive (rs_link *k, rs_errand *e, char **text)
{
  rs_frame frame;
  int status;
  while ((status = rs_link_next(k, &frame, RS_NEVER)) == RS_OK
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

/* The process has died, which was not asked of it.  Writes into 'text' how.
   RS_ECLOSED; RS_ENOMEM: it had no memory for what it was sent. */
static int
bury (rs_link *k, double timeout, char *text, size_t size)
{
  if (!k->done)
    k->options.past->deaths++;
  return rs_link_end(k, timeout, text, size) == RS_FRAME_NO_MEMORY
         ? RS_ENOMEM : RS_ECLOSED;
}

/* True when the call brings more than the far side may take.  What Lua makes
   of a message takes no less than that. */
static bool
is_too_large (const rs_link *k, const rs_call *call)
{
  const size_t most = k->options.options->memory;
  return most != 0
      && (call->function->size > most
          || (call->arguments != NULL && call->arguments->size > most));
}

/* Send the call, if need be to another process, since the last one has died
   without it.  RS_OK or a failure; the text in 'err' says why.  RS_ESTOPPED:
   the call was to end before all of it was sent, so it has not begun.
   RS_EBUSY: it has died, and what was prepared there has to be so before the
   call. */
static int
deliver (rs_link *k, rs_errand *e, rs_error *err)
{
  int status;
  char text[400];
  double patience = 0;
  do {
    if (k->open && rs_link_has_died(k))
      bury(k, RS_LINK_DIE, text, sizeof text);
    if (!k->open && k->base.prepared)
      return RS_EBUSY;
    if (!k->open) {
      rs_call *const call = e->call;
      e->call = NULL;
      status = rs_link_start(k, e, err);
      e->call = call;
      if (status != RS_OK)
        return status;
    }
    k->errand = e;
    status = send_call(k, e->call, e->sink->name(e->call));
    k->errand = NULL;
    if (status != RS_OK && rs_token_forced(e->token)) {
      rs_link_end(k, 0, text, sizeof text);
      return rs_fail(err, RS_ESTOPPED, "%s", text);
    }
    if (status == RS_ECLOSED)
      status = bury(k, RS_LINK_DIE, text, sizeof text);
    else if (status != RS_OK)
      bury(k, 0, text, sizeof text);
    if (patience == 0 && status != RS_OK)
      patience = rs_now() + PATIENCE;
  } while (status == RS_ECLOSED && rs_now() < patience);
  if (status == RS_ENOMEM)
    return rs_fail_plain(err, RS_ENOMEM);
  return status == RS_OK ? RS_OK : rs_fail(err, RS_EFAILED, "%s", text);
}

/* True when a call that is lost shall run again, and will be over. */
static bool
runs_again (const rs_link *k, const rs_call *call)
{
  return (call->retry_on & RS_RETRY_LOST) != 0
      && call->attempt <= call->retries
      && rs_wish_reason(&call->wish) == RS_REASON_NONE
      && (k->hosts == NULL || k->options.options->heartbeat != RS_FOREVER);
}

/* The call has ended without a result.  It runs again if it shall. */
static void
lose (rs_link *k, const rs_errand *e, const char *text)
{
  rs_call *const call = e->call;
  if (!runs_again(k, call)) {
    call->state = RS_JOB_LOST;
    e->sink->failed(call, text);
    return;
  }
  call->state = RS_JOB_QUEUED;
  if (call->chunk != NULL)
    call->chunk->losses++;
  call->attempt++;
  k->options.past->over = k->hosts == NULL ? 0
    : rs_now() + FAR * k->options.options->heartbeat;
}

/* True when a process that has run so many calls and items is to be
   replaced. */
static bool
is_used_up (const rs_link *k, uint64_t tasks)
{
  const uint64_t most = k->options.options->max_tasks;
  return most != 0 && tasks >= most;
}

/* Calls, or items, that the call was which has ended. */
static uint64_t
count_tasks (const rs_call *call)
{
  return call->chunk != NULL ? call->chunk->rest.item
       : (call->flags & RS_CALL_STANDING) == 0;
}

/* True when the process will be replaced after this call, as far as is
   known. */
static bool
is_last (const rs_link *k, const rs_call *call)
{
  const rs_chunk *const chunk = call->chunk;
  return (call->flags & RS_CALL_STANDING) == 0
      && is_used_up(k, k->tasks + (chunk != NULL ? chunk->count : 1));
}

/* True when the process, which has run others, has ended before it read the
   call: nobody saw that in time, and the call has not begun. */
static bool
is_unread (const rs_link *k, const rs_errand *e, int status)
{
  return status == RS_ECLOSED && k->done && !rs_token_stopped(e->token)
      && !rs_frames_may_be_read(&k->frames, k->place);
}

static void
run_call (rs_link *k, rs_errand *e)
{
  rs_error err = { .status = RS_OK };
  char how[400], *place = NULL;
  int status = is_too_large(k, e->call) ? RS_ENOMEM : deliver(k, e, &err);
  if (status == RS_ESTOPPED)  /* before it began */
    e->call->state = RS_JOB_CANCELLED;
  else if (status == RS_EBUSY)
    e->call->state = RS_JOB_QUEUED;
  else if (status == RS_ENOMEM && k->options.options->memory != 0) {
    e->call->state = RS_JOB_FAILED;
    e->call->reason = RS_REASON_MEMORY;
  }
  else if (status == RS_EFAILED || status == RS_ENOMEM) {
    e->call->state = RS_JOB_FAILED;
    e->sink->failed(e->call, err.text);
  }
  else if (status != RS_OK)
    lose(k, e, err.text);
  k->spent = !k->open;
  if (status != RS_OK)
    return;
  if (is_last(k, e->call))
    rs_link_start_ahead(k);
  k->errand = e;
  status = receive(k, e, &place);
  k->errand = NULL;
  if (k->errors.fd >= 0)
    rs_errors_read(&k->errors);
  if (status == RS_EDONE) {
    if ((e->call->flags & RS_CALL_STANDING) == 0) {
      k->done = true;
      k->options.past->deaths = 0;
    }
    k->tasks += count_tasks(e->call);
    k->spent |= is_used_up(k, k->tasks);
    if (e->call->chunk != NULL && e->call->state != RS_JOB_FAILED)
      rs_call_count_failures(e->call);
    return;
  }
  const bool unread = is_unread(k, e, status);
  bury(k, status == RS_ECLOSED ? RS_LINK_DIE : 0, how, sizeof how);
  k->spent = true;
  if (unread)
    e->call->state = RS_JOB_QUEUED;
  else if (status == RS_ENOMEM)
    lose(k, e, rs_status_message(RS_ENOMEM));
  else if (status == RS_ESTOPPED)
    lose(k, e, place != NULL ? place : "it did not come back, and its process "
                                       "was ended");
  else
    lose(k, e, how);
  free(place);
}

static void
run (rs_runner *runner, rs_call *call, const rs_call_sink *sink)
{
  rs_link *const k = own(runner);
  rs_cancel *const cancel = runner->cancel;
  rs_token token;
  rs_errand e = {
    .token = &token, .call = call, .sink = sink, .kill_at = RS_NEVER
  };
  rs_pulse_take(&k->pulse);
  rs_message_unref(call->result);  /* of an earlier attempt */
  call->result = NULL;
  call->state = RS_JOB_FAILED;
  call->reason = RS_REASON_NONE;
  rs_token_enter(cancel, &token, NULL, call, &call->wish);
  rs_cancel_sleeps(cancel, &k->sleeper);
  rs_token_begin(cancel, &token, time_of(call));
  run_call(k, &e);
  rs_cancel_wakes(cancel);
  const rs_reason late = rs_token_end(cancel, &token, NULL);
  rs_reason reason = rs_token_leave(cancel, &token, NULL);
  if (call->state == RS_JOB_CANCELLED && call->reason == RS_REASON_NONE) {
    reason = reason != RS_REASON_NONE ? reason : late;  /* it has not begun */
    call->reason = reason;
    if (reason != RS_REASON_NONE)
      call->state = rs_reason_state(reason);
  }
  rs_call_settle(call, reason);
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
  for (int i = 0; i < RS_LINK_KEPT; i++) {
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
  rs_link_rest(own(runner));
}

static size_t
bytes (const rs_runner *runner)
{
  return own(runner)->bytes;
}

/* ----------------------------------------------------------------- opening */

/* Start the process of the link, or go on with it, as 'act' does; what the
   options say stops that. */
static int
act_for (rs_link *k, const rs_state_options *options,
         int (*act) (rs_link *, rs_errand *, rs_error *), rs_error *err)
{
  rs_token token;
  rs_errand e = { .token = &token, .kill_at = RS_NEVER };
  k->options = *options;
  rs_token_enter(options->cancel, &token, NULL, options->owner,
                 options->wish);
  rs_cancel_sleeps(options->cancel, &k->sleeper);
  const int status = act(k, &e, err);
  rs_cancel_wakes(options->cancel);
  rs_token_leave(options->cancel, &token, NULL);
  return status;
}

static int
open_link (const rs_runner_kind *kind, const rs_state_options *options,
           rs_runner **out, rs_error *err)
{
  rs_link *k;
  int status = rs_link_new(kind, options, &k, err);
  if (status != RS_OK)
    return status;
  status = act_for(k, options, rs_link_start, err);
  if (status == RS_OK)
    *out = &k->base;
  else
    rs_link_close(k);
  return status;
}

/* A process that is well gets a new state; one that has run all that it may is
   replaced by the one that was started ahead. */
static int
renew (rs_runner **r, const rs_state_options *options, rs_error *err)
{
  rs_link *const k = own(*r);
  const rs_runner_kind *const kind = (*r)->kind;
  rs_pulse_take(&k->pulse);
  int status = RS_ECLOSED;
  if (k->open && !k->spent && !rs_link_has_died(k))
    status = act_for(k, options, rs_link_reopen, err);
  if (status == RS_OK)
    return RS_OK;
  rs_link *const spare = k->spare;
  k->spare = NULL;
  rs_link_close(own(*r));
  *r = NULL;
  if (status == RS_ECLOSED && spare != NULL) {
    status = act_for(spare, options, rs_link_start, err);
    if (status == RS_OK) {
      *r = &spare->base;
      if (is_used_up(spare, 1))  /* now, while nobody waits */
        rs_link_start_ahead(spare);
      return RS_OK;
    }
  }
  if (spare != NULL)
    rs_link_close(spare);
  return status == RS_ECLOSED || status == RS_EFAILED
       ? open_link(kind, options, r, err) : status;
}

static void
close_link (rs_runner *runner)
{
  rs_link_close(own(runner));
}

/* --------------------------------------------------------------- the kinds */

static int
open_child (const rs_state_options *options, rs_runner **out, rs_error *err)
{
  return open_link(&rs_process_kind, options, out, err);
}

static int
prepare_children (const rs_pool_options *options, void **shared, rs_error *err)
{
  rs_launch *launch = NULL;
  const int status = rs_launch_new(options, &launch, err);
  *shared = launch;
  return status;
}

static void
dismiss_children (void *shared)
{
  rs_launch_free(shared);
}

static int
open_command (const rs_state_options *options, rs_runner **out, rs_error *err)
{
  return open_link(&rs_command_kind, options, out, err);
}

static int
prepare_commands (const rs_pool_options *options, void **shared, rs_error *err)
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
dismiss_commands (void *shared)
{
  rs_hosts_free(shared);
}

/* What both kinds have. */
#define LINK \
  .forbidden = RS_MESSAGE_LOCAL, .reruns = true, .renew = renew, .run = run, \
  .spent = spent, .trim = trim, .rest = rest, .bytes = bytes, \
  .close = close_link

const rs_runner_kind rs_process_kind = {
  LINK,
  .prepare = prepare_children,
  .dismiss = dismiss_children,
  .open = open_child,
};

const rs_runner_kind rs_command_kind = {
  LINK,
  .partial = true,
  .prepare = prepare_commands,
  .trouble = trouble,
  .dismiss = dismiss_commands,
  .open = open_command,
};
