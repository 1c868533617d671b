/* SPDX-License-Identifier: MIT */
/*
 * face.h - pools, jobs and batches, as the face needs them beyond runspace.h:
 * waits in parts, short ways for many small jobs, and its own notes at a job.
 */
#ifndef RS_FACE_H
#define RS_FACE_H

#include "pool/journal.h"
#include "runspace.h"
#include "value/fingerprint.h"
#include "value/outbox.h"

/* ------------------------------------------------------------------ pool */

/*
 * The halves of 'rs_pool_open', for a host that looks at other things
 * meanwhile.  'start' starts the workers, and never waits.  'await_open' waits
 * 'timeout' seconds for them; when that was not enough it lets 'events' (or
 * NULL) wake each time when a worker is there, and returns RS_EBUSY.  Until it
 * has returned RS_OK the pool may not be used, but its reference may be
 * dropped: that stops the seeding of runspaces, too.
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

/* True when the queue of the pool is limited: RS_EFULL may come.  Constant. */
bool rs_pool_is_limited (const rs_pool *pool);

/* ---------------------------------------------------------------- events */

/* The host waits at 'heir' from here on, in a child of fork(2), since 'events'
   are the parent's: 'rs_events_poke' of these pokes the heir. */
void rs_events_replace (rs_events *events, rs_events *heir);

/* ------------------------------------------------------------------- job */

/*
 * [-0, +0, -]  Do 'rs_submit' for the function, or source, at 'function' and
 * the 'nargs' values from 'first' on, wherever they stand.  For a host that
 * submits many small jobs: the outbox of 'L' is looked up once, nothing is
 * moved, and the options are those that 'rs_check_job_options' has returned,
 * or are known to be good.  The stack has LUA_MINSTACK free slots.  Results,
 * errors and threads are those of 'rs_submit'.
 */
int rs_submit_at (rs_pool *pool, rs_outbox *outbox, lua_State *L, int function,
                  int first, int nargs, const rs_job_options *options,
                  rs_job **out, rs_error *err);

/*
 * [-0, +0, m]  Warn, by 'lua_warning', if the function at 'index' assigns to
 * its upvalues, or to the inside of one, and returns nothing: a job works on
 * copies.  With 'globals', the same for globals of the host.  Once for each
 * function of a script.  Other values are ignored.
 */
void rs_warn_lost (lua_State *L, int index, bool globals);

/* Do 'rs_job_cancel' with the reason "parent", for a job whose parent does not
   wait for it any more, since the parent is stopped, on the thread that runs
   the parent: the job gets as much grace as the parent has left. */
void rs_job_orphan (rs_job *job);

/*
 * True when the results are not only data, so that 'rs_job_push' may find that
 * they cannot be rebuilt: a host that tells of the job's end pushes them
 * before.
 */
bool rs_job_rebuilds (const rs_job *job);

/*
 * Run the job here, in a runspace, if it is still queued at the runspace's own
 * pool.  True when it was run.  Where many jobs wait for one another in this
 * runspace already, the pool may have one more worker instead, until
 * 'rs_job_unblock'.
 */
bool rs_job_help (rs_job *job, lua_State *L);

/* End the wait for which 'rs_job_help' was called. */
void rs_job_unblock (lua_State *L);

/* The sequence number up to which 'rs_job_deliver' came.  The host's
   thread. */
uint64_t rs_job_delivered (rs_job *job);

/* A number for the host's own use, which the options have set at first.  The
   host's thread. */
unsigned *rs_job_slot (rs_job *job);

/*
 * Wait at the job's events until the job is settled, or another job is queued
 * there, or the events were poked, or the job that waits is to stop: the
 * quickest way to wait for one job.  May return too early.  RS_OK,
 * RS_ETIMEOUT, or RS_EINVAL for a job that has no events.  The host's thread.
 */
int rs_job_await (rs_job *job, double timeout);

/*
 * Look for the end of the job for some 25 us, if there is a CPU for that, and
 * never sleep.  True when the job is settled and no notice is queued.  The
 * host's thread.
 */
bool rs_job_look (rs_job *job);

/*
 * [-0, +n, e]  Push the results of a job that is settled, has completed, and
 * has only small results, and take over the reference: it is given up before
 * anything can be raised.  False, and nothing happens, for other jobs:
 * 'rs_job_push'.
 */
bool rs_job_take (rs_job *job, lua_State *L, int *n);

/* Note that a host looks at how the job ended, so that the end needs no
   report. */
void rs_job_see (rs_job *job);

/* ----------------------------------------------------------------- batch */

/*
 * [-0, +0, m]  Store the results of next items of the current chunk at their
 * indices in the table at 'index', with raw access: a short way for numbers,
 * strings and booleans.  Returns how many; 0 says that 'rs_batch_next' has to
 * be asked, for whatever reason.
 */
size_t rs_batch_take (rs_batch *batch, lua_State *L, int index);

/* Submit the open chunk, and leave out the next index: the item that has it is
   not run.  RS_OK, or what 'rs_batch_flush' returns. */
int rs_batch_pass (rs_batch *batch, rs_error *err);

#endif
