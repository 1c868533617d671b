/* SPDX-License-Identifier: MIT */
/*
 * server_run.c - the workers of a server: threads that run tasks.
 *
 * A worker takes a task that is ready, and has its call run by a link to a
 * process (link.h), as a pool does: so a call that crashes takes nothing else
 * with it, and stopping is certain.  The link is kept for the next task if
 * that wants a runspace of the same kind.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* ssize_t of write */
#endif
#include "reach/server.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/console.h"
#include "base/spin.h"
#include "base/status.h"
#include "reach/exchange.h"
#include "reach/link.h"

enum { OPEN = 0, FUNCTION = 1, ARGUMENTS = 2 };  /* in 'have' of a task */

/* The task that this thread runs, and its server. */
static _Thread_local rs_server_task *current;
static _Thread_local rs_server *mine;

static rs_server_task *
task_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, rs_server_task, call);
}

/* ---------------------------------------------------------------- the sink */

static void
on_record (rs_call *call, rs_stream_record *record)
{
  rs_server_task *const t = task_of(call);
  const double ahead = call->chunk != NULL ? 0 : t->client->ahead;
  rs_buf b = RS_BUF_INIT;
  rs_server_begin_news(mine, t, &b, RS_NEWS_RECORD);
  rs_add_message(&b, record->info.values);
  rs_record_write(&b, &record->info, ahead);
  rs_stream_record_unref(record);
  rs_server_tell(mine, t, &b, false);
}

static bool
is_ready (rs_call *call)
{
  (void) call;
  return true;
}

static const char *
name_of (rs_call *call)
{
  return task_of(call)->name;
}

/* The call could not be run, or is lost; 'run' goes on with it a little. */
static void
on_failed (rs_call *call, const char *why)
{
  rs_server_task *const t = task_of(call);
  if (t->why == NULL)
    t->why = strdup(why);
}

static const rs_call_sink sink = {
  .record = on_record, .emit = on_record, .ready = is_ready, .name = name_of,
  .failed = on_failed
};

/* rs_console_redirect: a task has printed, or nobody in particular. */
static int
write_output (int fd, const char *text, size_t size)
{
  while (current == NULL && size > 0) {
    const ssize_t n = write(STDERR_FILENO, text, size);
    if (n < 0 && errno != EINTR)
      return errno;
    text += n > 0 ? n : 0;
    size -= n > 0 ? (size_t) n : 0;
  }
  if (size == 0)
    return 0;
  rs_buf b = RS_BUF_INIT;
  rs_server_begin_news(mine, current, &b, RS_NEWS_OUTPUT);
  rs_add_number(&b, (uint64_t) fd, 1);
  rs_buf_add(&b, text, size);
  rs_server_tell(mine, current, &b, false);
  return 0;
}

void
rs_server_redirect (void)
{
  rs_console_redirect(write_output);
}

/* -------------------------------------------------------------- the runner */

static void
forget_options (rs_server_worker *w)
{
  rs_initial_state_unref(w->options.initial_state);
  free((char *) (uintptr_t) w->options.cwd);
}

static void
close_runner (rs_server_worker *w)
{
  if (w->runner == NULL)
    return;
  w->runner->kind->close(w->runner);
  w->runner = NULL;
  forget_options(w);
}

/* Open a runner from what the task brings.  RS_OK, or a failure. */
static int
open_runner (rs_server_worker *w, rs_server_task *t, rs_error *err)
{
  const rs_message *const open = t->have[OPEN];
  rs_cut c = { open->data, open->size, false };
  rs_error other;
  unsigned number;
  if (rs_hello_check(&c, &other) != RS_OK)
    return rs_fail(err, RS_EFAILED, "%s: the worker of queue '%.60s' is of "
                                    "another kind than its caller (%.300s)",
                   w->server->host, w->server->queue, other.text);
  const int status = rs_open_read(&c, &w->options, &number);
  if (status != RS_OK)
    return rs_fail(err, RS_EFAILED, "%s: the worker of queue '%.60s' does not "
                                    "know these options: %s",
                   w->server->host, w->server->queue,
                   rs_status_message(status));
  w->options.strict = false;  /* no wall was built for it */
  const rs_state_options options = {
    .options = &w->options, .worker = w->number, .cancel = w->cancel,
    .wish = &t->call.wish, .owner = &t->call, .past = &w->past,
    .shared = w->server->launch,
  };
  const int opened = rs_process_kind.open(&options, &w->runner, err);
  if (opened != RS_OK) {
    w->runner = NULL;
    forget_options(w);
    return opened;
  }
  memcpy(w->open, t->need[OPEN], RS_AMQP_HASH);
  return RS_OK;
}

/* Give the worker the runner that the task wants. */
static int
set_runner (rs_server_worker *w, rs_server_task *t, rs_error *err)
{
  if (w->runner != NULL
      && (memcmp(w->open, t->need[OPEN], RS_AMQP_HASH) != 0
          || w->runner->kind->spent(w->runner)))
    close_runner(w);
  return w->runner != NULL ? RS_OK : open_runner(w, t, err);
}

/* --------------------------------------------------------------- the tasks */

static rs_server_task *
find_due_locked (rs_server *s)
{
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->state == RS_TASK_DUE)
      return t;
  }
  return NULL;
}

/* Wait for a task; NULL: there will be none. */
static rs_server_task *
take (rs_server_worker *w)
{
  rs_server *const s = w->server;
  rs_server_task *t = NULL;
  pthread_mutex_lock(&s->lock);
  while (!s->stopping && (t = find_due_locked(s)) == NULL)
    pthread_cond_wait(&s->work, &s->lock);
  if (t != NULL) {
    t->state = RS_TASK_RUNNING;
    t->worker = w;
    s->begun++;
    s->running++;
    if (s->max_jobs != 0 && s->begun >= s->max_jobs)
      rs_server_quit_locked(s);
    if (t->call.chunk != NULL)
      t->chunk.ahead = t->client->ahead;
  }
  pthread_mutex_unlock(&s->lock);
  return t;
}

/* Send what the task leaves.  The task is not this thread's any more. */
static void
send_end (rs_server *s, rs_server_task *t)
{
  const rs_call *const call = &t->call;
  const bool lost = call->state == RS_JOB_LOST;
  rs_buf b = RS_BUF_INIT;
  if (t->why != NULL || lost) {
    const char *const why = t->why != NULL
                          ? t->why : rs_status_message(RS_ENOMEM);
    rs_server_begin_news(s, t, &b, lost ? RS_NEWS_LOST : RS_NEWS_FAILED);
    if (lost)
      rs_lost_write(&b, call, why);
    else
      rs_add_text(&b, why);
  }
  else {
    rs_server_begin_news(s, t, &b, RS_NEWS_RESULT);
    rs_add_number(&b, call->result != NULL, 1);
    if (call->result != NULL)
      rs_add_message(&b, call->result);
    rs_result_write(&b, call, false, 0);
  }
  rs_server_tell(s, t, &b, true);
}

static void
log_end (rs_server *s, const rs_server_task *t, double took)
{
  const char *const what = t->call.chunk != NULL ? "items" : "job";
  rs_server_log(s, "%s %llu%s%.60s of %s: %s after %.3f s%s%.200s", what,
                (unsigned long long) t->call.id, t->name[0] != '\0' ? " " : "",
                t->name, t->client->name, rs_job_state_name(t->call.state),
                took, t->why != NULL ? ": " : "",
                t->why != NULL ? t->why : "");
}

/* A task took so many seconds. */
static void
note_time (rs_server *s, double took)
{
  pthread_mutex_lock(&s->lock);
  s->took = s->took == 0 ? took : s->took + (took - s->took) / 8;
  pthread_mutex_unlock(&s->lock);
}

static void
run_task (rs_server_worker *w, rs_server_task *t)
{
  rs_call *const call = &t->call;
  rs_error err = { .status = RS_OK };
  const double began = rs_now();
  current = t;
  const int status = set_runner(w, t, &err);
  if (status == RS_OK)
    w->runner->kind->run(w->runner, call, &sink);
  else if (status == RS_ESTOPPED)
    call->state = rs_reason_state(rs_wish_reason(&call->wish));
  else {
    call->state = RS_JOB_FAILED;
    on_failed(call, err.text);
  }
  current = NULL;
  const double took = rs_now() - began;
  log_end(w->server, t, took);
  note_time(w->server, took);
  send_end(w->server, t);
}

/* Let go of what the next task does not need. */
static void
prepare_next (rs_server_worker *w, bool chunk)
{
  if (w->runner == NULL)
    return;
  if (w->options.reset == RS_RESET_FRESH
      || w->runner->kind->spent(w->runner))
    close_runner(w);
  else
    w->runner->kind->trim(w->runner, chunk);
}

/* rs_cancel_owner: a worker waits at its link, and comes back. */
static void
lost_thread (void *ud)
{
  (void) ud;
}

static void
hold_call (void *owner)
{
  (void) owner;
}

static const rs_cancel_owner cancel_owner = {
  .lost_thread = lost_thread, .hold_call = hold_call, .lost_call = hold_call
};

void *
rs_server_work (void *worker)
{
  rs_server_worker *const w = worker;
  rs_server *const s = w->server;
  rs_server_task *t;
  mine = s;
  rs_cancel *const cancel = rs_cancel_new(0, &cancel_owner, w);
  pthread_mutex_lock(&s->lock);
  w->cancel = cancel;
  if (cancel == NULL)
    rs_server_quit_locked(s);
  pthread_mutex_unlock(&s->lock);
  while (cancel != NULL && (t = take(w)) != NULL) {
    const bool chunk = t->call.chunk != NULL;
    run_task(w, t);
    prepare_next(w, chunk);
  }
  close_runner(w);
  if (cancel != NULL)
    rs_cancel_leave(cancel);
  return NULL;
}
