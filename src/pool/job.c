/* SPDX-License-Identifier: MIT */
/*
 * job.c - a job: its references, its lock, and what is known of it.
 */
#include "pool/job.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "pool/face.h"

const char *
rs_job_state_name (rs_job_state state)
{
  if (state == RS_JOB_DELAYED)
    return "delayed";
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

void
rs_job_make_name (char *text, const char *prefix, uint64_t id)
{
  snprintf(text, RS_JOB_NAME, "%s-%llu", prefix, (unsigned long long) id);
}

void
rs_job_locks_init (rs_shared_lock locks[RS_JOB_LOCKS])
{
  for (int i = 0; i < RS_JOB_LOCKS; i++) {
    rs_mutex_init(&locks[i].mutex);
    rs_cond_init(&locks[i].changed);
  }
}

void
rs_job_locks_fini (rs_shared_lock locks[RS_JOB_LOCKS])
{
  for (int i = 0; i < RS_JOB_LOCKS; i++) {
    pthread_mutex_destroy(&locks[i].mutex);
    pthread_cond_destroy(&locks[i].changed);
  }
}

rs_job_more *
rs_job_get_more_locked (rs_job *job)
{
  rs_job_more *more = rs_job_more_of(job);
  if (more == NULL && (more = calloc(1, sizeof *more)) != NULL) {
    rs_timer_init(&more->timer, NULL);  /* rs_job_set_deadline */
    rs_stream_log_init(&more->log);
    rs_list_init(&more->emitted);
    more->job = job;
    atomic_store_explicit(&job->more, more, memory_order_release);
  }
  return more;
}

rs_job_more *
rs_job_get_more (rs_job *job)
{
  rs_job_lock(job);
  rs_job_more *const more = rs_job_get_more_locked(job);
  rs_job_unlock(job);
  return more;
}

/* Name a job that no other thread sees yet.  False when out of memory. */
static bool
set_name (rs_job *job, const char *name)
{
  rs_job_more *const more = rs_job_get_more_locked(job);
  return more != NULL && (more->name = strdup(name)) != NULL;
}

static bool
set_user (rs_job *job, void *user)
{
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL)
    more->user = user;
  return more != NULL;
}

/* Note how long the job waits after a failure.  False when out of memory. */
static bool
set_pause (rs_job *job, const rs_job_options *options)
{
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL)
    more->pause = (rs_pause) { options->retry_delay, options->backoff,
                               options->max_delay };
  return more != NULL;
}

int
rs_job_check_retries (const rs_queue *queue, unsigned retry_on, rs_error *err)
{
  if ((retry_on & RS_RETRY_LOST) == 0 || queue->reruns)
    return RS_OK;
  return rs_fail(err, RS_EINVAL, "retry_on has 'lost', and a job that is lost "
                                 "in a thread may still be running: give the "
                                 "pool isolation = \"process\", or leave it "
                                 "out");
}

rs_job *
rs_job_new (rs_queue *queue, rs_message *function,
            const rs_job_options *options, const rs_job_part *part)
{
  static const rs_job_options defaults;
  if (options == NULL)
    options = &defaults;
  /* The id comes first, since atomic operations wait for what was written
     before. */
  const uint64_t id = rs_job_next_id();
  rs_job *const job = rs_job_alloc(queue, options->events, function,
                                   part != NULL ? part->size : 0);
  if (job == NULL)
    return NULL;
  atomic_init(&job->state, RS_JOB_QUEUED);
  rs_list_init(&job->link);
  rs_list_init(&job->notice.queued);
  job->call.id = id;
  job->call.keep = function->constant;
  job->call.attempt = 1;
  job->call.timeout = options->timeout;
  job->call.retries = options->retries;
  job->call.retry_on = (uint8_t) (options->retry_on != RS_RETRY_DEFAULT
                                  ? options->retry_on
                                  : RS_RETRY_ERROR | RS_RETRY_TIMEOUT);
  job->priority = job->call.priority = (int8_t) options->priority;
  job->slot = options->slot;
  job->created = part != NULL && part->created > 0 ? part->created : rs_now();
  atomic_init(&job->listen, options->listen);
  if ((options->name != NULL && !set_name(job, options->name))
      || (options->user != NULL && !set_user(job, options->user))
      || (options->retry_delay > 0 && part == NULL
          && !set_pause(job, options))) {
    rs_job_free(job);
    return NULL;
  }
  if (part != NULL) {
    job->batch = part->batch;
    job->call.id = part->id;
    job->call.flags = (uint8_t) part->flags;
  }
  if (options->seed != NULL)
    rs_call_set_seed(&job->call, *options->seed);
  /* Release: a thread that finds the job by its events finds all of that. */
  atomic_store_explicit(&job->refs, 2, memory_order_release);
  return job;
}

static void
more_free (rs_job_more *more)
{
  rs_list *link;
  if (more == NULL)
    return;
  rs_timer_clear(&more->timer);
  rs_timer_clear(&more->later);
  rs_stream_log_fini(&more->log);
  while ((link = rs_list_shift(&more->emitted)) != NULL)
    rs_stream_record_unref(RS_LIST_ENTRY(link, rs_stream_record, link));
  free(more->name);
  free(more->failure);
  rs_message_unref(more->refusal);
  free(more);
}

void
rs_job_free (rs_job *job)
{
  if (rs_job_foreign(job))
    return;
  more_free(rs_job_more_of(job));
  if (job->batch != NULL)
    rs_job_hooks_of(job)->on_free(job);
  rs_message_unref(job->call.arguments);
  rs_message_unref(job->call.result);
  rs_job_dealloc(job);
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
  /* Release our reads and writes to the thread that frees.  A thread that has
     the last reference takes it from nobody, so it does not count: most often
     that thread has the handle. */
  if (job != NULL
      && (atomic_load_explicit(&job->refs, memory_order_acquire)
            == (RS_JOB_SETTLED | 1)
          || (atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel)
              & ~RS_JOB_SETTLED) == 1))
    rs_job_free(job);
}

/* ----------------------------------------------------------------- waiting */

void
rs_job_tell_locked (rs_job *job)
{
  if (job->waiters > 0)
    pthread_cond_broadcast(&rs_job_lock_of(job)->changed);
}

void
rs_job_unlock_and_tell (rs_job *job)
{
  const bool waited = job->waiters > 0;
  rs_shared_lock *const l = rs_job_lock_of(job);
  pthread_mutex_unlock(&l->mutex);
  if (waited)  /* not under the lock: see 'rs_sched_unlock' */
    pthread_cond_broadcast(&l->changed);
}

int
rs_job_wait_locked (rs_job *job, double deadline)
{
  rs_shared_lock *const l = rs_job_lock_of(job);
  return rs_cond_wait_counted(&l->changed, &l->mutex, deadline,
                              &job->waiters);
}

void
rs_job_stir (rs_job *job)
{
  rs_job_lock(job);
  rs_job_unlock_and_tell(job);
}

static void
stir_object (void *object)
{
  rs_job_stir(object);
}

static void
ref_object (void *object)
{
  rs_job_ref(object);
}

static void
unref_object (void *object)
{
  rs_job_unref(object);
}

rs_sleeper
rs_job_sleeper (rs_job *job)
{
  return (rs_sleeper) {
    .wake = stir_object, .ref = ref_object, .unref = unref_object,
    .object = job
  };
}

/* ----------------------------------------------------- what is known of it */

const char *
rs_job_name (rs_job *job)
{
  if (job == NULL || rs_job_foreign(job))
    return NULL;
  rs_job_lock(job);
  rs_job_more *const more = rs_job_get_more_locked(job);
  if (more != NULL && more->name == NULL) {
    char text[RS_JOB_NAME];
    rs_job_make_name(text, "job", job->call.id);
    more->name = strdup(text);
  }
  const char *const name = more != NULL && more->name != NULL ? more->name
                                                              : "job";
  rs_job_unlock(job);
  return name;
}

void *
rs_job_user (const rs_job *job)
{
  const rs_job_more *const more = job != NULL ? rs_job_more_of(job) : NULL;
  return more != NULL ? more->user : NULL;
}

unsigned *
rs_job_slot (rs_job *job)
{
  return job != NULL ? &job->slot : NULL;
}

rs_pool *
rs_job_pool (rs_job *job)
{
  return job != NULL ? job->queue->pool : NULL;
}

size_t
rs_job_bytes (const rs_job *job)
{
  return rs_message_size(job->call.function)
       + (job->call.arguments != NULL ? rs_message_size(job->call.arguments)
                                      : 0);
}

const char *
rs_job_failure (const rs_job *job)
{
  const rs_job_more *const more = rs_job_more_of(job);
  return more != NULL ? more->failure : NULL;
}

rs_reason
rs_job_stop_reason (const rs_job *job)
{
  const rs_reason wish = rs_wish_reason(&job->call.wish);
  return rs_job_state_now(job) == RS_JOB_LOST ? RS_REASON_NONE
       : wish != RS_REASON_NONE ? wish : job->call.reason;
}

const char *
rs_job_end_reason (rs_job_state state, rs_reason reason)
{
  if (!rs_job_state_final(state) || state == RS_JOB_COMPLETED)
    return NULL;
  if (state == RS_JOB_COMPLETED_WITH_ERRORS)
    return "error_stream";
  if (state == RS_JOB_LOST)
    return "lost";
  return reason == RS_REASON_NONE ? "error" : rs_reason_name(reason);
}

const char *
rs_job_reason (const rs_job *job)
{
  const rs_job_state state = rs_job_state_now(job);
  if (!rs_job_state_final(state))
    return NULL;
  if (state == RS_JOB_FAILED && rs_job_failure(job) != NULL)
    return "worker";
  return rs_job_end_reason(state, rs_job_stop_reason(job));
}

static void
get_info (rs_job *job, rs_job_info *out)
{
  if (rs_job_foreign(job)) {  /* nothing more is known of it here */
    out->id = job->call.id;
    out->state = RS_JOB_LOST;
    out->reason = "lost";
    out->seen = true;
    return;
  }
  rs_job_lock(job);
  const rs_job_more *const more = rs_job_more_of(job);
  out->state = rs_job_state_now(job);
  if (out->state == RS_JOB_QUEUED
      && atomic_load_explicit(&job->delayed, memory_order_relaxed))
    out->state = RS_JOB_DELAYED;
  out->worker = job->worker;
  out->attempts = job->attempts;
  out->started = job->started;
  out->finished = job->finished;
  out->created = job->created;
  out->sent = more != NULL ? more->log.next - 1 : 0;
  if (more != NULL)
    memcpy(out->dropped, more->log.dropped, sizeof more->log.dropped);
  out->host = more != NULL ? more->host : NULL;
  out->listen = rs_job_listening(job);
  const bool forgotten = job->forgotten;
  out->reason = rs_job_reason(job);
  out->failure = rs_job_state_final(out->state) ? rs_job_failure(job)
                                                : NULL;
  rs_job_unlock(job);
  out->id = job->call.id;
  out->chunk = job->batch != NULL;
  out->seen = rs_job_seen(job);
  out->forgotten = forgotten;
  out->unseen = rs_job_state_bad(out->state) && !out->seen;
}

void
rs_job_info_get_sized (rs_job *job, rs_job_info *out, size_t size)
{
  rs_job_info info;
  if (out == NULL)
    return;
  memset(&info, 0, sizeof info);  /* the padding, too */
  if (job != NULL)
    get_info(job, &info);
  rs_give_sized(out, size, &info, sizeof info);
}
