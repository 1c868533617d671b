/* SPDX-License-Identifier: MIT */
/*
 * server.c - what works for a queue of a broker: its life, and its clerk.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* gethostname */
#endif
#include "reach/server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/spin.h"
#include "base/status.h"
#include "base/timer.h"
#include "reach/broker_module.h"
#include "reach/key.h"

#define TICK 0.25           /* seconds between two looks of the clerk */
#define SOON 0.05           /* the same while tasks wait */
#define LINGER 5.0          /* seconds that callers have to see the last
                               results */
#define GOODBYE 1.0         /* seconds to write what is to be written */

/* --------------------------------------------------------------- the clerk */

/* True when nothing is left of what has begun: all results are with the
   broker, and callers have seen them, or had time for it. */
static bool
is_done_locked (const rs_server *s, double linger)
{
  bool all = true;
  if (s->running > 0)
    return false;
  for (const rs_list *link = s->tasks.next; link != &s->tasks;
       link = link->next)
    if (RS_LIST_ENTRY(link, rs_server_task, link)->state >= RS_TASK_ENDED)
      all = false;
  return all || rs_now() >= linger;
}

/* Has the server had nothing to do for too long? */
static bool
is_idle_locked (const rs_server *s)
{
  return s->idle > 0 && s->up && rs_list_empty(&s->tasks)
      && rs_now() - s->busy >= s->idle;
}

static void *
keep_books (void *server)
{
  rs_server *const s = server;
  bool quit = false, waits = false;
  double linger = RS_NEVER;
  pthread_mutex_lock(&s->lock);
  while (!s->closing && !s->over) {
    rs_cond_wait_until(&s->changed, &s->lock,
                       rs_now() + (waits ? SOON : TICK));
    if (is_idle_locked(s))
      rs_server_quit_locked(s);
    const bool stopping = s->stopping;
    pthread_mutex_unlock(&s->lock);
    if (stopping && !quit) {
      quit = true;
      s->desk.module->quit(s->amqp);
    }
    if (stopping)
      rs_server_hand_back(s);
    rs_server_attend(s);
    waits = rs_server_sort(s);
    pthread_mutex_lock(&s->lock);
    if (stopping && s->running == 0 && linger == RS_NEVER)
      linger = rs_now() + LINGER;
    if (stopping) {
      pthread_cond_broadcast(&s->changed);
      s->over |= is_done_locked(s, linger);
    }
  }
  rs_server_quit_locked(s);
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

/* ---------------------------------------------------------------- the life */

static int
start_workers (rs_server *s, rs_error *err)
{
  for (unsigned i = 0; i < s->n_workers; i++) {
    rs_server_worker *const w = &s->workers[i];
    w->server = s;
    w->number = i + 1;
    const int code = pthread_create(&w->thread, NULL, rs_server_work, w);
    if (code != 0)
      return rs_fail(err, RS_ETHREAD, "cannot create a worker thread: %s",
                     strerror(code));
    w->began = true;
  }
  const int code = pthread_create(&s->clerk, NULL, keep_books, s);
  if (code != 0)
    return rs_fail(err, RS_ETHREAD, "cannot create a thread: %s",
                   strerror(code));
  s->has_clerk = true;
  return RS_OK;
}

static int
set_up (rs_server *s, const rs_server_options *o, rs_error *err)
{
  char url[256], title[200], exchange[RS_AMQP_NAME];
  s->desk.module->show(o->broker, url, sizeof url);
  s->queue = strdup(o->queue);
  s->url = strdup(url);
  s->own = rs_letter_queue(s->desk.module, "worker");
  s->workers = calloc(s->n_workers, sizeof *s->workers);
  if (s->queue == NULL || s->url == NULL || s->own == NULL
      || s->workers == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  s->desk.queue = s->queue;
  s->desk.own = s->own;
  if (o->key != NULL) {
    const int status = rs_key_read(o->key, &s->key, &s->desk.key_size, err);
    if (status != RS_OK)
      return status;
    s->desk.key = s->key;
  }
  snprintf(exchange, sizeof exchange, RS_LETTER_EXCHANGE, s->queue);
  snprintf(title, sizeof title, "runspace --serve on %s, process %d", s->host,
           (int) s->pid);
  const rs_amqp_options a = {
    .url = o->broker, .title = title, .queue = s->queue, .own = s->own,
    .exchange = exchange, .listens = true, .prefetch = rs_server_prefetch(s),
    .user = &rs_server_user, .ud = s
  };
  const int status = s->desk.module->open(&a, &s->amqp, err);
  return status == RS_OK ? start_workers(s, err) : status;
}

int
rs_server_open (const rs_server_options *given, rs_server **out,
                rs_error *err)
{
  rs_server_options room;
  const rs_server_options *const options
    = rs_check_server_options(given, &room, err);
  if (options == NULL || (out == NULL && rs_fail_null(err, "out")))
    return RS_EINVAL;
  const rs_amqp_module *const module = rs_broker_module(err);
  if (module == NULL)
    return RS_EFAILED;
  rs_server *const s = calloc(1, sizeof *s);
  if (s == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  s->desk.module = module;
  s->n_workers = options->workers > 0 ? options->workers : rs_cpus();
  s->max_jobs = options->max_jobs;
  s->idle = options->idle;
  s->log = options->log;
  s->ud = options->user;
  s->pid = getpid();
  s->busy = rs_now();
  if (gethostname(s->host, sizeof s->host - 1) != 0 || s->host[0] == '\0')
    strcpy(s->host, "localhost");
  rs_list_init(&s->clients);
  rs_list_init(&s->tasks);
  rs_list_init(&s->stored);
  pthread_mutex_init(&s->lock, NULL);
  rs_cond_init(&s->changed);
  rs_cond_init(&s->work);
  rs_timers_hold();
  rs_spin_prepare();
  rs_server_redirect();
  const rs_pool_options children = { .size = sizeof children };
  int status = rs_launch_new(&children, &s->launch, err);
  if (status == RS_OK)
    status = set_up(s, options, err);
  if (status != RS_OK) {
    rs_server_close(s);
    return status;
  }
  *out = s;
  return RS_OK;
}

int
rs_server_wait (rs_server *s, double timeout, rs_error *err)
{
  if (s == NULL)
    return rs_fail_null(err, "server");
  if (rs_check_wait(&timeout, err) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  int status = RS_OK;
  pthread_mutex_lock(&s->lock);
  while (!s->over && status == RS_OK)
    status = rs_cond_wait_until(&s->changed, &s->lock, deadline);
  if (s->over)
    status = s->failure.status;
  if (s->over && status != RS_OK && err != NULL)
    *err = s->failure;
  pthread_mutex_unlock(&s->lock);
  return status;
}

void
rs_server_stop (rs_server *s)
{
  if (s == NULL)
    return;
  pthread_mutex_lock(&s->lock);
  rs_server_quit_locked(s);
  pthread_mutex_unlock(&s->lock);
}

/* Stop what runs. */
static void
stop_tasks (rs_server *s)
{
  for (unsigned i = 0; i < s->n_workers; i++) {
    pthread_mutex_lock(&s->lock);
    rs_server_task *t = NULL;
    for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next)
      if (RS_LIST_ENTRY(link, rs_server_task, link)->worker == &s->workers[i])
        t = RS_LIST_ENTRY(link, rs_server_task, link);
    rs_cancel *const cancel = t != NULL
                            ? rs_cancel_ref(s->workers[i].cancel) : NULL;
    if (t != NULL) {
      rs_wish_make(&t->call.wish, RS_REASON_CLOSED, 0);
      t->pins++;  /* for good */
    }
    pthread_mutex_unlock(&s->lock);
    if (t != NULL)
      rs_cancel_request(cancel, &t->call, RS_REASON_CLOSED, 0);
    rs_cancel_unref(cancel);
  }
}

void
rs_server_close (rs_server *s)
{
  rs_list *link;
  if (s == NULL)
    return;
  pthread_mutex_lock(&s->lock);
  s->closing = true;
  rs_server_quit_locked(s);
  pthread_mutex_unlock(&s->lock);
  if (s->has_clerk)
    pthread_join(s->clerk, NULL);
  if (s->workers != NULL)
    stop_tasks(s);
  for (unsigned i = 0; s->workers != NULL && i < s->n_workers; i++) {
    if (s->workers[i].began)
      pthread_join(s->workers[i].thread, NULL);
    rs_cancel_unref(s->workers[i].cancel);
  }
  if (s->amqp != NULL)
    s->desk.module->close(s->amqp, GOODBYE);
  while ((link = s->tasks.next) != &s->tasks)
    rs_server_drop_task_locked(s, RS_LIST_ENTRY(link, rs_server_task, link));
  while ((link = rs_list_shift(&s->clients)) != NULL)
    free(RS_LIST_ENTRY(link, rs_client, link));
  while (!rs_list_empty(&s->stored))
    rs_server_forget_locked(s);
  rs_timers_drop();
  pthread_mutex_destroy(&s->lock);
  pthread_cond_destroy(&s->changed);
  pthread_cond_destroy(&s->work);
  if (s->key != NULL)
    rs_key_free(s->key, s->desk.key_size);
  if (s->launch != NULL)
    rs_launch_free(s->launch);
  free(s->workers);
  free(s->queue);
  free(s->own);
  free(s->url);
  free(s);
}
