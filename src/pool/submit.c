/* SPDX-License-Identifier: MIT */
/*
 * submit.c - from the stack of a Lua state to a job in the queue, or to an
 * open batch.
 *
 * The thread of the host runs here, or that of a worker whose job submits
 * another one.
 */
#include "pool/pool.h"

#include "base/clock.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/status.h"
#include "base/timer.h"
#include "pool/batch.h"
#include "pool/delay.h"
#include "pool/face.h"
#include "value/code.h"

/* Queue the job, as 'rs_pool_push'.  A worker of the pool itself cannot wait
   for room that it would have to make: it runs the job at once. */
static int
submit (rs_pool *pool, rs_job *job, lua_State *L, rs_error *err)
{
  const int status = rs_pool_push(pool, job, true, err);
  rs_state *const s = status == RS_EFULL ? rs_job_helper(&pool->queue, L)
                                         : NULL;
  if (s == NULL)
    return status;
  if (!rs_job_can_help(&pool->queue, s, NULL, NULL)) {
    rs_job_unblock(L);  /* nothing is waited for here */
    return rs_pool_push(pool, job, false, err);
  }
  rs_job_run(job, s, L);
  return RS_OK;
}

/* Let the job begin after 'seconds', not before.  A worker of the pool itself
   does not wait for room. */
static int
submit_later (rs_pool *pool, rs_job *job, double seconds, lua_State *L,
              rs_error *err)
{
  const double due = rs_deadline(seconds);
  rs_delay_prepare(job);
  int status = rs_pool_delay(pool, job, true, err);
  if (status == RS_EFULL && rs_job_helper(&pool->queue, L) != NULL)
    status = rs_pool_delay(pool, job, false, err);
  if (status == RS_OK)
    rs_delay_until(job, due, false);
  return status;
}

/* Drop a new job that was not queued. */
static void
give_up (rs_job *job)
{
  rs_job_unref(job);
  rs_job_unref(job);
}

/* [-0, +0, -]  Make a job for the function at 'index' and the 'n' values from
   'first' on. */
static int
make_job (rs_pool *pool, rs_outbox *o, lua_State *L, int index, int first,
          int n, const rs_job_options *options, rs_job **out, rs_error *err)
{
  rs_message *function;
  const char *const *const globals =
    options->globals != NULL ? options->globals : pool->queue.globals;
  int status = rs_code_encode_function(o, L, index, pool->queue.forbidden,
                                       globals, &function, err);
  if (status != RS_OK)
    return status;
  if (rs_pool_is_foreign(pool))  /* has a '__transfer' forked? */
    return rs_fork_fail(err, "pool");
  rs_job *const job = rs_job_new(&pool->queue, function, options, NULL);
  if (!function->constant)
    rs_message_unref(function);
  if (job == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_call *const call = &job->call;
  status = rs_code_encode_arguments(o, L, first, n, call->room,
                                    call->retries == 0
                                    ? rs_call_room(call) : 0,
                                    pool->queue.forbidden, globals,
                                    call->function, &call->arguments, err);
  if (status == RS_OK && rs_pool_is_foreign(pool))
    status = rs_fork_fail(err, "pool");
  if (status == RS_OK)
    *out = job;
  else
    give_up(job);
  return status;
}

int
rs_submit_check (const rs_pool *pool, lua_State *L, int nargs,
                 rs_error *err)
{
  if (pool == NULL || L == NULL)
    return rs_fail_null(err, pool == NULL ? "pool" : "L");
  if (nargs < 0)
    return rs_fail(err, RS_EINVAL, "nargs (%d) is below 0", nargs);
  if (nargs >= lua_gettop(L))
    return rs_fail(err, RS_EINVAL, "nargs (%d) and a function are not on the "
                                   "stack, which has %d values: push them "
                                   "first", nargs, lua_gettop(L));
  return RS_OK;
}

int
rs_submit_at (rs_pool *pool, rs_outbox *o, lua_State *L, int function,
              int first, int nargs, const rs_job_options *options,
              rs_job **out, rs_error *err)
{
  rs_job *job = NULL;
  if (rs_pool_is_foreign(pool))
    return rs_fork_fail(err, "pool");
  if (options->events != NULL && rs_events_foreign(options->events))
    return rs_fork_fail(err, "rs_events");
  int status = rs_job_check_nesting(L, err);
  if (status == RS_OK)
    status = rs_job_check_retries(&pool->queue, options->retry_on, err);
  if (status != RS_OK)
    return status;
  status = make_job(pool, o, L, function, first, nargs, options, &job, err);
  if (status != RS_OK)
    return status;
  rs_job_nest(job, L, options->awaited);
  if (options->timeout > 0 && !rs_timers_start())
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the time-out");
  else if ((options->start_after > 0 || options->retry_delay > 0)
           && !rs_timers_start())
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the delay");
  const double deadline = options->deadline > 0
                        ? rs_deadline(options->deadline) : RS_NEVER;
  if (status == RS_OK && deadline != RS_NEVER
      && !rs_job_set_deadline(job, deadline))
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the deadline");
  if (status == RS_OK && options->start_after > 0)
    status = submit_later(pool, job, options->start_after, L, err);
  else if (status == RS_OK)
    status = submit(pool, job, L, err);
  /* The deadline may have passed before the job was queued. */
  if (status == RS_OK
      && rs_wish_reason(&job->call.wish) != RS_REASON_NONE
      && pool->queue.claim(&pool->queue, job, RS_CLAIM_TO_END)) {
    rs_job_end_queued(job, rs_wish_reason(&job->call.wish));
    rs_job_unref(job);
  }
  if (status != RS_OK)
    give_up(job);
  else if (out != NULL)
    *out = job;
  else
    rs_job_unref(job);
  return status;
}

int
rs_submit (rs_pool *pool, lua_State *L, int nargs,
           const rs_job_options *options, rs_job **out, rs_error *err)
{
  rs_job_options room;
  int status = rs_submit_check(pool, L, nargs, err);
  if (status != RS_OK)
    return status;
  const int index = lua_gettop(L) - nargs;
  options = rs_check_job_options(options, &room, err);
  rs_outbox *const o = rs_outbox_of(L);
  status = options == NULL ? RS_EINVAL
         : o == NULL ? rs_fail_plain(err, RS_ENOMEM)
         : rs_submit_at(pool, o, L, index, index + 1, nargs, options, out,
                        err);
  lua_settop(L, index - 1);
  return status;
}

int
rs_batch_open (rs_pool *pool, lua_State *L, int nargs,
               const rs_batch_options *options, rs_batch **out, rs_error *err)
{
  rs_batch_options room;
  int status = rs_submit_check(pool, L, nargs, err);
  if (status != RS_OK)
    return status;
  options = rs_check_batch_options(options, &room, err);
  status = options == NULL ? RS_EINVAL
         : out == NULL ? rs_fail_null(err, "out")
         : rs_pool_is_foreign(pool) ? rs_fork_fail(err, "pool")
         : options->events != NULL && rs_events_foreign(options->events)
         ? rs_fork_fail(err, "rs_events")
         : rs_job_check_nesting(L, err);
  if (status != RS_OK) {
    lua_pop(L, nargs + 1);
    return status;
  }
  rs_pool_lock(pool);
  const bool closed = rs_pool_refuses_locked(pool);
  rs_pool_unlock(pool);
  if (closed) {
    lua_pop(L, nargs + 1);
    return rs_fail(err, RS_ECLOSED, "the pool is closed");
  }
  return rs_batch_new(&pool->queue, L, nargs, options, out, err);
}
