/* SPDX-License-Identifier: MIT */
/*
 * pool.h - pools: opening on runners of any kind, and the way into the queue.
 */
#ifndef RS_POOL_H
#define RS_POOL_H

#include "pool/worker.h"

/* Start a pool, as 'rs_pool_start', whose workers run calls on runners of
   'kind'. */
int rs_pool_start_on (const rs_runner_kind *kind,
                      const rs_pool_options *options, rs_pool **out,
                      rs_error *err);

/*
 * Queue the job, or give it to an idle worker, and start a worker if one is
 * wanted.  On RS_OK one reference of the caller's two is the queue's.  With
 * 'limited' RS_EFULL when the queue is full; RS_ECLOSED; or RS_ENOMEM or
 * RS_ETHREAD when no worker is left that could run the job.
 */
int rs_pool_push (rs_pool *pool, rs_job *job, bool limited, rs_error *err);

/* Queue the job, as 'rs_pool_push', but let nobody run it before it is
   released ('release' of rs_queue). */
int rs_pool_delay (rs_pool *pool, rs_job *job, bool limited, rs_error *err);

/* Check that there is a pool, and a function below 'nargs' arguments on top of
   the stack.  RS_OK or RS_EINVAL. */
int rs_submit_check (const rs_pool *pool, lua_State *L, int nargs,
                     rs_error *err);

/*
 * True when the pool takes no job of this thread: it is closed.  The jobs that
 * still run may submit others, until they are stopped.  A worker of a pool
 * that is about to stop its jobs waits until they are asked to: a job that
 * finds the pool closed is then stopped for that, and does not fail by itself.
 * Releases the lock meanwhile.
 */
bool rs_pool_refuses_locked (rs_pool *pool);

#endif
