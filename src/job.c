/* SPDX-License-Identifier: MIT */
/*
 * job.c - a job: one call, its state, its result.
 */
#include "job.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "clock.h"
#include "status.h"

const char *
rs_job_state_name (rs_job_state state)
{
  static const char *const names[] = {
    [RS_JOB_QUEUED] = "queued",
    [RS_JOB_RUNNING] = "running",
    [RS_JOB_STOPPING] = "stopping",
    [RS_JOB_COMPLETED] = "completed",
    [RS_JOB_COMPLETED_WITH_ERRORS] = "completed_with_errors",
    [RS_JOB_FAILED] = "failed",
    [RS_JOB_TIMED_OUT] = "timed_out",
    [RS_JOB_CANCELLED] = "cancelled",
    [RS_JOB_LOST] = "lost",
  };
  return (size_t) state < sizeof names / sizeof names[0] ? names[state] : "?";
}

/* -------------------------------------------------------------- life cycle */

uint64_t
rs_job_next_id (void)
{
  static _Atomic uint64_t last;
  return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

char *
rs_job_make_name (const char *name, const char *prefix, uint64_t id)
{
  if (name != NULL)
    return strdup(name);
  char text[48];
  snprintf(text, sizeof text, "%s-%" PRIu64, prefix, id);
  return strdup(text);
}

static const rs_call_sink sink;

rs_job *
rs_job_new (rs_queue *queue, rs_message *function, rs_message *arguments,
            const rs_job_options *options, const char *prefix)
{
  static const rs_job_options defaults;
  rs_job *const job = calloc(1, sizeof *job);
  if (job == NULL)
    return NULL;
  if (options == NULL)
    options = &defaults;
  atomic_init(&job->refs, 1);
  pthread_mutex_init(&job->lock, NULL);
  rs_cond_init(&job->ended);
  rs_cond_init(&job->room);
  rs_list_init(&job->link);
  rs_list_init(&job->batch_link);
  rs_list_init(&job->emitted);
  rs_stream_log_init(&job->log);
  rs_notice_init(&job->notice);
  job->queue = queue;
  queue->hold(queue);
  job->call.id = rs_job_next_id();
  job->call.function = rs_message_ref(function);
  job->call.arguments = rs_message_ref(arguments);
  job->call.stop = &job->stop;
  job->call.sink = &sink;
  job->created = rs_now();
  job->listen = options->listen;
  job->events = rs_events_ref(options->events);
  if (job->events != NULL)
    rs_events_enter(job->events, &job->notice);
  job->name = rs_job_make_name(options->name, prefix, job->call.id);
  job->call.name = job->name;
  if (job->name == NULL) {
    rs_job_unref(job);
    return NULL;
  }
  return job;
}

rs_job *
rs_job_ref (rs_job *job)
{
  if (job != NULL)
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
  return job;
}

void
rs_job_unref (rs_job *job)
{
  /* Release our reads and writes to the thread that frees. */
  if (job == NULL
      || atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel) != 1)
    return;
  if (job->events != NULL)
    rs_events_leave(job->events, &job->notice);
  if (job->on_free != NULL)
    job->on_free(job);
  rs_message_unref(job->call.function);
  rs_message_unref(job->call.arguments);
  rs_message_unref(job->call.result);
  pthread_mutex_destroy(&job->lock);
  pthread_cond_destroy(&job->ended);
  pthread_cond_destroy(&job->room);
  rs_stream_log_fini(&job->log);
  rs_list *link;
  while ((link = rs_list_shift(&job->emitted)) != NULL)
    rs_stream_record_unref(RS_LIST_ENTRY(link, rs_stream_record, link));
  rs_events_unref(job->events);
  job->queue->drop(job->queue);
  free(job->name);
  free(job->failure);
  free(job);
}

/* -------------------------------------------------- what it tells its host */

/* There is something new: queue it at its events. */
static void
notify (rs_job *job)
{
  rs_job_ref(job);
  if (!rs_events_post(job->events, &job->notice))
    rs_job_unref(job);
}

static rs_job *
job_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, rs_job, call);
}

/* Does the host want to hear of 'what'? */
static bool
wanted (const rs_job *job, unsigned listen, unsigned what)
{
  return job->events != NULL
      && ((listen | rs_events_listening(job->events)) & what) != 0;
}

/* The job sends a record: it runs on this thread. */
static void
on_record (rs_call *call, rs_stream_record *record)
{
  rs_job *const job = job_of(call);
  const unsigned what = 1u << record->info.stream;
  pthread_mutex_lock(&job->lock);
  rs_stream_log_add(&job->log, record);
  const unsigned listen = job->listen;
  pthread_mutex_unlock(&job->lock);
  if (wanted(job, listen, what))
    notify(job);
  else if (listen & RS_LISTEN_WAKE)
    rs_events_wake(job->events);
}

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* The job emits an event: it runs on this thread. */
static void
on_emit (rs_call *call, rs_stream_record *record)
{
  rs_job *const job = job_of(call);
  rs_events *const e = job->events;
  if (e == NULL) {  /* nobody to hear of it? */
    rs_stream_record_unref(record);
    return;
  }
  pthread_mutex_lock(&job->lock);
  while (job->waiting >= RS_EVENTS_MAX && !rs_events_mine(e)
         && !is_set(call->stop) && !is_set(call->batch_stop)
         && !rs_events_closed(e))
    pthread_cond_wait(&job->room, &job->lock);
  record->info.sequence = rs_stream_log_skip(&job->log);
  rs_list_push(&job->emitted, &record->link);
  job->waiting++;
  pthread_mutex_unlock(&job->lock);
  notify(job);
}

static const rs_call_sink sink = { .record = on_record, .emit = on_emit };

rs_stream_record *
rs_job_record (rs_job *job, uint64_t after)
{
  pthread_mutex_lock(&job->lock);
  rs_stream_record *const record = rs_stream_log_after(&job->log, after);
  if (record != NULL)
    rs_stream_record_ref(record);
  pthread_mutex_unlock(&job->lock);
  return record;
}

rs_stream_record *
rs_job_deliver (rs_job *job)
{
  pthread_mutex_lock(&job->lock);
  rs_stream_record *next = rs_stream_log_after(&job->log, job->delivered);
  rs_stream_record *const event = rs_list_empty(&job->emitted) ? NULL
    : RS_LIST_ENTRY(job->emitted.next, rs_stream_record, link);
  if (event != NULL
      && (next == NULL || event->info.sequence < next->info.sequence)) {
    next = event;
    rs_list_remove(&event->link);
    job->waiting--;
    pthread_cond_signal(&job->room);
  }
  else if (next != NULL)
    rs_stream_record_ref(next);
  if (next != NULL)
    job->delivered = next->info.sequence;
  pthread_mutex_unlock(&job->lock);
  return next;
}

uint64_t
rs_job_delivered (const rs_job *job)
{
  return job->delivered;
}

bool
rs_job_settled (rs_job *job)
{
  pthread_mutex_lock(&job->lock);
  const bool ended = rs_job_state_final(job->state);
  pthread_mutex_unlock(&job->lock);
  return ended && (job->events == NULL
                   || !rs_events_has(job->events, &job->notice));
}

void
rs_job_listen (rs_job *job, unsigned mask)
{
  if (job->events == NULL)
    return;
  pthread_mutex_lock(&job->lock);
  job->listen |= mask;
  pthread_mutex_unlock(&job->lock);
  if (mask & ~(unsigned) RS_LISTEN_WAKE)
    notify(job);
}

void
rs_job_see (rs_job *job)
{
  /* Read by the thread that ends or forgets it; it publishes nothing. */
  atomic_store_explicit(&job->seen, true, memory_order_relaxed);
}

void
rs_job_forget (rs_job *job)
{
  if (job == NULL)
    return;
  pthread_mutex_lock(&job->lock);
  job->forgotten = true;
  const bool report = job->state == RS_JOB_FAILED && !is_set(&job->seen);
  pthread_mutex_unlock(&job->lock);
  if (report && job->events != NULL)
    notify(job);
  rs_job_unref(job);
}

static rs_job *
of_notice (rs_notice *n)
{
  return RS_LIST_ENTRY(n, rs_job, notice);
}

rs_job *
rs_events_next (rs_events *events)
{
  rs_notice *const n = rs_events_take(events);
  return n != NULL ? of_notice(n) : NULL;
}

/* Jobs that are collected from the live ones. */
typedef struct some_jobs {
  rs_job **jobs;
  size_t room, n;
} some_jobs;

/* Add a reference, unless the job is being freed. */
static void
collect (rs_notice *n, void *ud)
{
  some_jobs *const some = ud;
  rs_job *const job = of_notice(n);
  unsigned refs = atomic_load_explicit(&job->refs, memory_order_relaxed);
  while (some->n < some->room && refs > 0
         && !atomic_compare_exchange_weak_explicit(&job->refs, &refs,
                                                   refs + 1,
                                                   memory_order_relaxed,
                                                   memory_order_relaxed))
    ;
  if (refs == 0)
    return;
  if (some->n < some->room)
    some->jobs[some->n] = job;
  some->n++;
}

size_t
rs_events_jobs (rs_events *events, rs_job **out, size_t room)
{
  some_jobs some = { out, room, 0 };
  rs_events_visit(events, collect, &some);
  return some.n;
}

/* Wake the job if it waits for room. */
static void
stir (rs_job *job)
{
  pthread_mutex_lock(&job->lock);
  pthread_cond_broadcast(&job->room);
  pthread_mutex_unlock(&job->lock);
}

void
rs_job_stir (rs_events *events, const rs_batch *batch)
{
  rs_job *jobs[64];
  size_t n, room = sizeof jobs / sizeof jobs[0];
  rs_job **list = jobs;
  while ((n = rs_events_jobs(events, list, room)) > room) {
    for (size_t i = 0; i < room; i++)
      rs_job_unref(list[i]);
    rs_job **const more = realloc(list != jobs ? list : NULL,
                                  2 * n * sizeof *list);
    if (more == NULL) {
      n = 0;
      break;
    }
    list = more;
    room = 2 * n;
  }
  for (size_t i = 0; i < n; i++) {
    if (batch == NULL || list[i]->batch == batch)
      stir(list[i]);
    rs_job_unref(list[i]);
  }
  if (list != jobs)
    free(list);
}

void
rs_events_close (rs_events *events)
{
  rs_job *job;
  rs_events_set_closed(events);
  while ((job = rs_events_next(events)) != NULL)
    rs_job_unref(job);
  rs_job_stir(events, NULL);
}

/* ----------------------------------------------------------------- running */

/* Count it, or its items. */
static void
count (rs_job *job, rs_job_state state)
{
  rs_queue *const q = job->queue;
  const rs_call *const call = &job->call;
  if (job->batch == NULL)
    q->ended(q, state, 1);
  else if (call->started > 0) {
    q->ended(q, RS_JOB_FAILED, call->failures);
    q->ended(q, RS_JOB_COMPLETED_WITH_ERRORS, call->errors);
    q->ended(q, RS_JOB_COMPLETED,
             call->started - call->failures - call->errors);
  }
}

void
rs_job_end (rs_job *job, rs_job_state state)
{
  pthread_mutex_lock(&job->lock);
  const bool first = !rs_job_state_final(job->state);
  if (first) {
    job->state = state;
    job->finished = rs_now();
    pthread_cond_broadcast(&job->ended);
  }
  const unsigned listen = job->listen;
  const bool report = job->forgotten && state == RS_JOB_FAILED
                   && !is_set(&job->seen);
  pthread_mutex_unlock(&job->lock);
  if (!first)
    return;
  count(job, state);
  if (job->on_end != NULL)  /* a batch wakes the host itself */
    job->on_end(job);
  if (job->events != NULL && job->batch != NULL)
    rs_events_leave(job->events, &job->notice);
  else if (job->events != NULL) {
    rs_job_ref(job);
    if (!rs_events_finish(job->events, &job->notice, report
                          || wanted(job, listen, RS_LISTEN_FINISHED)))
      rs_job_unref(job);
  }
}

void
rs_job_fail (rs_job *job, const char *failure)
{
  job->failure = strdup(failure);
  rs_job_end(job, RS_JOB_FAILED);
}

void
rs_job_ask_to_stop (rs_job *job)
{
  /* Read by the runner between items; it publishes nothing else. */
  atomic_store_explicit(&job->stop, true, memory_order_relaxed);
  stir(job);
}

/* queued -> running; false when it was asked to stop before. */
static bool
begin (rs_job *job, unsigned worker)
{
  pthread_mutex_lock(&job->lock);
  const bool go = !atomic_load_explicit(&job->stop, memory_order_relaxed);
  if (go) {
    job->state = RS_JOB_RUNNING;
    job->started = rs_now();
    job->worker = worker;
    job->attempts++;
    job->call.attempt = job->attempts;
  }
  const unsigned listen = job->listen;
  pthread_mutex_unlock(&job->lock);
  if (go && wanted(job, listen, RS_LISTEN_STARTED))
    notify(job);
  return go;
}

rs_job_state
rs_job_execute (rs_job *job, rs_state *s, lua_State *L)
{
  if (!begin(job, rs_state_worker(s)))
    return RS_JOB_CANCELLED;
  rs_state_run(s, L, &job->call);
  /* What was asked to stop is cancelled, whatever it made of that. */
  const bool stop = job->batch == NULL
                 && atomic_load_explicit(&job->stop, memory_order_relaxed);
  return stop ? RS_JOB_CANCELLED : job->call.state;
}

void
rs_job_run (rs_job *job, rs_state *s, lua_State *L)
{
  rs_job_end(job, rs_job_execute(job, s, L));
  rs_job_unref(job);
}

/* ----------------------------------------------------------------- calling */

/* [-0, +0, -]  Is the value at 'index' something to call? */
static int
check_function (lua_State *L, int index, rs_error *err)
{
  if (lua_type(L, index) == LUA_TFUNCTION)
    return RS_OK;
  if (lua_type(L, index) != LUA_TSTRING)
    return rs_fail(err, RS_EINVAL, "function or source text expected, got %s",
                   lua_typename(L, lua_type(L, index)));
  size_t size;
  const char *const source = lua_tolstring(L, index, &size);
  if (size > 0 && source[0] == LUA_SIGNATURE[0])
    return rs_fail(err, RS_EINVAL, "bytecode in a string is refused: pass "
                                   "the function itself, or source text");
  const int code = luaL_loadbufferx(L, source, size, "=(chunk)", "t");
  int status = RS_OK;
  if (code == LUA_ERRMEM)
    status = rs_fail_plain(err, RS_ENOMEM);
  else if (code != LUA_OK)
    status = rs_fail(err, RS_EINVAL, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return status;
}

/*
 * [-0, +0, -]  A message of the 'n' values from 'first' on; the first
 * 'unnamed' of them say themselves what they are, the others are arguments.
 */
static int
encode (lua_State *L, int first, int n, int unnamed, rs_message **out,
        rs_error *err)
{
  rs_encoder e;
  int status = RS_OK;
  rs_encoder_init(&e, 0);
  for (int i = 0; i < n && status == RS_OK; i++) {
    char root[32];
    snprintf(root, sizeof root, "argument %d", i + 1 - unnamed);
    status = rs_encode_value(&e, L, first + i, i < unnamed ? NULL : root);
  }
  if (status == RS_OK && (*out = rs_encoder_message(&e)) == NULL)
    status = RS_ENOMEM;
  if (status == RS_ENOMEM)
    rs_fail_plain(err, status);
  else if (status != RS_OK)
    rs_fail(err, status, "%s", e.error);
  rs_encoder_fini(&e);
  return status;
}

int
rs_job_encode (lua_State *L, int nargs, rs_message **function,
               rs_message **arguments, rs_error *err)
{
  const int base = lua_gettop(L) - nargs - 1;
  rs_message *first = NULL, *rest = NULL;
  int status = lua_checkstack(L, LUA_MINSTACK)
             ? check_function(L, base + 1, err)
             : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && arguments != NULL && nargs > 0)
    status = encode(L, base + 2, nargs, 0, &rest, err);
  if (status == RS_OK)
    status = encode(L, base + 1, arguments == NULL ? nargs + 1 : 1, 1,
                    &first, err);
  if (status == RS_OK) {
    *function = first;
    if (arguments != NULL)
      *arguments = rest;
  }
  else
    rs_message_unref(rest);
  lua_settop(L, base);
  return status;
}

int
rs_job_push (rs_job *job, lua_State *L, int *n)
{
  pthread_mutex_lock(&job->lock);
  const rs_job_state state = job->state;
  pthread_mutex_unlock(&job->lock);
  if (!rs_job_state_final(state))
    return RS_EBUSY;
  /* After the end nobody writes to the job. */
  const int top = lua_gettop(L);
  rs_job_see(job);
  if (rs_job_state_good(state)) {
    *n = rs_decode(L, job->call.result);
    return RS_OK;
  }
  luaL_checkstack(L, 2, NULL);
  if (state == RS_JOB_FAILED && job->call.result != NULL)
    rs_decode(L, job->call.result);
  else if (state == RS_JOB_FAILED)
    lua_pushstring(L, job->failure != NULL ? job->failure
                                           : rs_status_message(RS_ENOMEM));
  else
    lua_pushfstring(L, "%s was %s", job->name, rs_job_state_name(state));
  lua_settop(L, top + 2);
  *n = 2;
  return RS_EFAILED;
}

rs_state *
rs_job_helper (const rs_queue *queue, lua_State *L)
{
  rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL && rs_state_pool(s) == queue->pool ? s : NULL;
}

bool
rs_job_help (rs_job *job, lua_State *L)
{
  rs_state *const s = rs_job_helper(job->queue, L);
  const bool claimed = s != NULL && job->queue->claim(job->queue, job);
  if (claimed)
    rs_job_run(job, s, L);
  return claimed;
}

rs_pool *
rs_job_pool (rs_job *job)
{
  return job->queue->pool;
}

int
rs_job_wait (rs_job *job, lua_State *L, double timeout)
{
  const double deadline = rs_deadline(timeout);
  if (timeout != 0)
    rs_job_help(job, L);
  int status = RS_OK;
  pthread_mutex_lock(&job->lock);
  while (!rs_job_state_final(job->state) && status == RS_OK) {
    status = timeout == 0 ? RS_ETIMEOUT
           : rs_cond_wait_until(&job->ended, &job->lock, deadline);
  }
  if (rs_job_state_final(job->state))
    status = RS_OK;
  pthread_mutex_unlock(&job->lock);
  return status;
}

int
rs_job_cancel (rs_job *job)
{
  rs_job_ask_to_stop(job);
  if (job->queue->claim(job->queue, job)) {
    rs_job_end(job, RS_JOB_CANCELLED);
    rs_job_unref(job);
    return RS_OK;
  }
  pthread_mutex_lock(&job->lock);
  const bool ended = rs_job_state_final(job->state);
  if (job->state == RS_JOB_RUNNING)
    job->state = RS_JOB_STOPPING;
  pthread_mutex_unlock(&job->lock);
  return ended ? RS_EDONE : RS_OK;
}

/* Why it ended as it did; NULL when it completed, or did not end. */
static const char *
reason_of (const rs_job *job, rs_job_state state)
{
  switch (state) {
    case RS_JOB_COMPLETED_WITH_ERRORS:
      return "error_stream";
    case RS_JOB_FAILED:
      return job->failure != NULL ? "worker" : "error";
    case RS_JOB_TIMED_OUT:
      return "timeout";
    case RS_JOB_CANCELLED:
      return "cancelled";
    case RS_JOB_LOST:
      return "lost";
    default:
      return NULL;
  }
}

void
rs_job_info_get (rs_job *job, rs_job_info *out)
{
  pthread_mutex_lock(&job->lock);
  out->state = job->state;
  out->worker = job->worker;
  out->attempts = job->attempts;
  out->created = job->created;
  out->started = job->started;
  out->finished = job->finished;
  out->sent = job->log.next - 1;
  memcpy(out->dropped, job->log.dropped, sizeof out->dropped);
  out->listen = job->listen;
  const bool forgotten = job->forgotten;
  pthread_mutex_unlock(&job->lock);
  out->id = job->call.id;
  out->name = job->name;
  out->reason = reason_of(job, out->state);
  out->chunk = job->batch != NULL;
  out->seen = is_set(&job->seen);
  out->forgotten = forgotten;
}
