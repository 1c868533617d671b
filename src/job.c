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

rs_job *
rs_job_new (rs_queue *queue, rs_message *function, rs_message *arguments,
            const char *name, const char *prefix)
{
  rs_job *const job = calloc(1, sizeof *job);
  if (job == NULL)
    return NULL;
  atomic_init(&job->refs, 1);
  pthread_mutex_init(&job->lock, NULL);
  rs_cond_init(&job->ended);
  rs_list_init(&job->link);
  rs_list_init(&job->batch_link);
  job->queue = queue;
  queue->hold(queue);
  job->call.id = rs_job_next_id();
  job->call.function = rs_message_ref(function);
  job->call.arguments = rs_message_ref(arguments);
  job->call.stop = &job->stop;
  job->created = rs_now();
  job->name = rs_job_make_name(name, prefix, job->call.id);
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
  if (job->on_free != NULL)
    job->on_free(job);
  rs_message_unref(job->call.function);
  rs_message_unref(job->call.arguments);
  rs_message_unref(job->call.result);
  pthread_mutex_destroy(&job->lock);
  pthread_cond_destroy(&job->ended);
  job->queue->drop(job->queue);
  free(job->name);
  free(job->reason);
  free(job);
}

/* ----------------------------------------------------------------- running */

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
  pthread_mutex_unlock(&job->lock);
  if (first && job->on_end != NULL)
    job->on_end(job);
}

void
rs_job_fail (rs_job *job, const char *reason)
{
  job->reason = strdup(reason);
  rs_job_end(job, RS_JOB_FAILED);
}

void
rs_job_ask_to_stop (rs_job *job)
{
  /* Read by the runner between items; it publishes nothing else. */
  atomic_store_explicit(&job->stop, true, memory_order_relaxed);
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
  pthread_mutex_unlock(&job->lock);
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
  if (state == RS_JOB_COMPLETED || state == RS_JOB_COMPLETED_WITH_ERRORS) {
    *n = rs_decode(L, job->call.result);
    return RS_OK;
  }
  luaL_checkstack(L, 2, NULL);
  if (state == RS_JOB_FAILED && job->call.result != NULL)
    rs_decode(L, job->call.result);
  else if (state == RS_JOB_FAILED)
    lua_pushstring(L, job->reason != NULL ? job->reason
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

int
rs_job_wait (rs_job *job, lua_State *L, double timeout)
{
  const double deadline = rs_deadline(timeout);
  rs_state *const s = rs_job_helper(job->queue, L);
  if (s != NULL && timeout != 0 && job->queue->claim(job->queue, job)) {
    rs_job_run(job, s, L);
  }
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
  pthread_mutex_unlock(&job->lock);
  out->id = job->call.id;
  out->name = job->name;
}
