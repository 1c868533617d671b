/* SPDX-License-Identifier: MIT */
/*
 * job_wait.c - threads that wait for a job, and jobs that do.
 *
 * A job that waits for a job of its own pool would hold a worker that does
 * nothing.  So it helps: it runs what it waits for itself, in its own
 * runspace, if no worker has taken that yet.  Jobs that wait inside one
 * another use up the stack of the thread, so they help only down to a depth;
 * from there on the waiting job counts as blocked, and the pool may have one
 * more worker meanwhile.  The whole chain of calls that wait for one another,
 * on whatever workers, is limited, too.
 */
#include "pool/job.h"

#include <stdatomic.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "pool/delay.h"
#include "pool/face.h"

/* ----------------------------------------------------------------- nesting */

/* The call that runs in the state of 'L', or NULL. */
static rs_call *
call_of (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL ? rs_call_current(s) : NULL;
}

unsigned
rs_job_nesting (lua_State *L)
{
  const rs_call *const call = call_of(L);
  return call != NULL
         ? 1u + atomic_load_explicit(&call->depth, memory_order_relaxed) : 0;
}

int
rs_job_check_nesting (lua_State *L, rs_error *err)
{
  const unsigned n = rs_job_nesting(L);
  if (n < RS_NESTED_MAX)
    return RS_OK;
  return rs_fail(err, RS_EINVAL, "jobs nested too deeply: %u of them wait for "
                                 "one another, and no more may", n);
}

void
rs_job_nest (rs_job *job, lua_State *L, bool waits)
{
  const unsigned nesting = rs_job_nesting(L);
  const unsigned n = waits || nesting == 0 ? nesting : nesting - 1;
  if (n > atomic_load_explicit(&job->call.depth, memory_order_relaxed))
    atomic_store_explicit(&job->call.depth, (uint16_t) n,
                          memory_order_relaxed);
}

/* ----------------------------------------------------------------- helping */

rs_state *
rs_job_helper (const rs_queue *queue, lua_State *L)
{
  rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL && rs_state_pool(s) == queue->pool ? s : NULL;
}

/* Jobs that wait for one another in one runspace, at most: more would be too
   many calls for Lua, and for the stack of the thread. */
enum { MAX_DEPTH = 16 };

/* Count 'waiting' as blocked, so that another worker runs what it waits for.
   If none will, fail that: 'job', or a chunk of 'batch'. */
static void
block (rs_queue *queue, rs_job *waiting, rs_job *job, const rs_batch *batch)
{
  rs_error err;
  if (waiting->blocked)
    return;
  waiting->blocked = queue->block(queue, &err) == RS_OK;
  if (waiting->blocked)
    return;
  rs_job *const queued =
    batch != NULL ? queue->claim_of(queue, batch, RS_CLAIM_TO_RUN)
    : job != NULL && queue->claim(queue, job, RS_CLAIM_TO_RUN) ? job : NULL;
  if (queued != NULL) {
    rs_job_fail(queued, err.text);
    rs_job_unref(queued);
  }
}

bool
rs_job_can_help (rs_queue *queue, rs_state *s, rs_job *job,
                 const rs_batch *batch)
{
  if (rs_state_depth(s) < MAX_DEPTH)
    return true;
  block(queue, rs_job_of(rs_call_current(s)), job, batch);
  return false;
}

void
rs_job_run (rs_job *job, rs_state *s, lua_State *L)
{
  rs_job_state state;
  rs_state_runner r;
  rs_state_runner_init(&r, s, L);
  /* A state in which other jobs wait cannot be replaced: the job runs in it
     again. */
  while ((state = rs_job_execute(job, &r.base)) == RS_JOB_QUEUED)
    if (job->put_off && rs_job_requeue(job)) {
      rs_delay_again(job);
      return;
    }
  rs_job_end(job, state);
  rs_job_unref(job);
}

void
rs_job_unblock (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  /* A call that another process has sent is no job here. */
  rs_call *const call = s != NULL && rs_state_pool(s) != NULL ? call_of(L)
                                                              : NULL;
  rs_job *const job = call != NULL ? rs_job_of(call) : NULL;
  if (job == NULL || !job->blocked || rs_job_foreign(job))
    return;
  job->blocked = false;
  job->queue->unblock(job->queue);
}

bool
rs_job_help (rs_job *job, lua_State *L)
{
  if (job == NULL || rs_job_foreign(job))
    return false;
  rs_job_nest(job, L, true);
  rs_state *const s = rs_job_helper(job->queue, L);
  if (s == NULL || (job->call.flags & RS_CALL_STANDING) != 0  /* of another? */
      || !rs_job_can_help(job->queue, s, job, NULL))
    return false;
  const bool claimed = job->queue->claim(job->queue, job, RS_CLAIM_TO_RUN);
  if (claimed)
    rs_job_run(job, s, L);
  return claimed;
}

/* ----------------------------------------------------------------- waiting */

int
rs_job_wait (rs_job *job, lua_State *L, double timeout)
{
  if (job == NULL || rs_job_foreign(job)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  const double deadline = rs_deadline(timeout);
  if (timeout != 0)
    rs_job_help(job, L);
  while (!rs_job_settled(job) && !rs_cancel_pending(rs_cancel_mine())
         && rs_events_help())
    if (timeout != RS_FOREVER && rs_now() >= deadline)
      break;
  rs_cancel *const mine = rs_cancel_mine();
  const rs_sleeper sleeper = rs_job_sleeper(job);
  rs_cancel_sleeps(mine, &sleeper);
  int status = RS_OK;
  rs_job_lock(job);
  rs_job_tell_locked(job);  /* the job need not wait for this thread to take
                               its events */
  while (!rs_job_state_final(rs_job_state_now(job)) && status == RS_OK) {
    status = timeout == 0 ? RS_ETIMEOUT
           : rs_cancel_pending(mine) ? RS_ESTOPPED
           : rs_job_wait_locked(job, deadline);
    if (status == RS_OK && L != NULL) {  /* was it delayed, and is no more? */
      rs_job_unlock(job);
      rs_job_help(job, L);
      rs_job_lock(job);
    }
  }
  if (rs_job_state_final(rs_job_state_now(job)))
    status = RS_OK;
  rs_job_unlock(job);
  rs_cancel_wakes(mine);
  if (L != NULL)
    rs_job_unblock(L);
  if (status == RS_ESTOPPED)
    rs_job_orphan(job);
  return status;
}
