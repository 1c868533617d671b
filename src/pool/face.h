/* SPDX-License-Identifier: MIT */
/*
 * face.h - pools, jobs and batches, as the face needs them beyond runspace.h:
 * waits in parts, short ways for many small jobs, and its own notes at a job.
 */
#ifndef RS_FACE_H
#define RS_FACE_H

#include "runspace.h"
#include "value/outbox.h"

/* ------------------------------------------------------------------ pool */

/*
 * The halves of 'rs_pool_open', for a host that looks at other things
 * meanwhile.  'start'
 * starts the workers, and never waits.  'await_open' waits 'timeout' seconds
 * for them; when that was not enough it lets 'events' (or NULL) wake each time
 * when a worker is there, and returns RS_EBUSY.  Nothing else is done with the
 * pool before it has returned RS_OK, but to drop the reference: that stops
 * what seeds, too.
 */
int rs_pool_start (const rs_pool_options *options, rs_pool **out,
                   rs_error *err);
int rs_pool_await_open (rs_pool *pool, rs_events *events, double timeout,
                        rs_error *err);

/*
 * The first half of 'rs_pool_close': take no new work, and let 'events' (or
 * NULL) wake when a worker ends.  Never waits.  RS_OK when no worker is left,
 * RS_EBUSY, or RS_EINVAL as 'rs_pool_close'.
 */
int rs_pool_shut (rs_pool *pool, rs_events *events);

/* The queue of the pool is limited: RS_EFULL may come.  Constant. */
bool rs_pool_is_limited (const rs_pool *pool);

/* ------------------------------------------------------------------- job */

/*
 * [-0, +0, -]  'rs_submit' of the function, or source, at 'function' with the
 * 'nargs' values from 'first' on, wherever they stand, for who submits many
 * small jobs: the outbox of 'L' is looked up once, and nothing is moved.  The
 * stack has LUA_MINSTACK free slots.  Results, errors and threads as there.
 */
int rs_submit_at (rs_pool *pool, rs_outbox *outbox, lua_State *L, int function,
                  int first, int nargs, const rs_job_options *options,
                  rs_job **out, rs_error *err);

/* 'rs_job_cancel' for a job that another one has started and does not wait
   for any more, since that is stopped: the reason is "parent".  Any thread. */
void rs_job_orphan (rs_job *job);

/*
 * The results are not only data, so 'rs_job_push' may find that they cannot be
 * rebuilt: who tells of a job's end pushes them before.
 */
bool rs_job_rebuilds (const rs_job *job);

/*
 * In a runspace: run the job here if it is still queued at the runspace's own
 * pool.  True when it was run.  Where many jobs wait for one another in this
 * runspace already, the pool may have one more worker instead, until
 * 'rs_job_unblock'.
 */
bool rs_job_help (rs_job *job, lua_State *L);

/* The wait for which 'rs_job_help' was called is over. */
void rs_job_unblock (lua_State *L);

/* The sequence up to which 'rs_job_deliver' came.  The host's thread. */
uint64_t rs_job_delivered (rs_job *job);

/* A number for the host's own use, of the options at first.  The host's
   thread. */
unsigned *rs_job_slot (rs_job *job);

/*
 * Wait at the job's events until it is settled, or another job is queued
 * there, or somebody poked, or the job that waits is to stop: the quickest way
 * to wait for one job.  May return too early.  RS_OK, RS_ETIMEOUT, or
 * RS_EINVAL for a job that has no events.  The host's thread.
 */
int rs_job_await (rs_job *job, double timeout);

/*
 * Look for its end for some 25 us, if there is a CPU for that, and never
 * sleep.  True when it is settled and nothing is queued.  The host's thread.
 */
bool rs_job_look (rs_job *job);

/*
 * [-0, +n, e]  Push the results of a job that is settled, completed, and has
 * but small ones, and take over the reference: it is given up before anything
 * can be raised.  False, and nothing happens, for other jobs: 'rs_job_push'.
 */
bool rs_job_take (rs_job *job, lua_State *L, int *n);

/* The results of 'job' will be taken soon, if it is there at all: let the
   memory come from the CPU of its worker.  It may be gone, or NULL. */
void rs_job_expect (const rs_job *job);

/* Somebody looks at how the job ended, so that needs no report. */
void rs_job_see (rs_job *job);

/* ----------------------------------------------------------------- batch */

/*
 * [-0, +0, m]  A short way for numbers, strings and booleans: store those that
 * the next items of the current chunk have left at their indices in the table
 * at 'index', with raw access.  Returns how many; 0 says that 'rs_batch_next'
 * has to be asked, for whatever reason.
 */
size_t rs_batch_take (rs_batch *batch, lua_State *L, int index);

#endif
