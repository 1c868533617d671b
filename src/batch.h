/* SPDX-License-Identifier: MIT */
/*
 * batch.h - what a job says to the batch that it is a chunk of.
 */
#ifndef RS_BATCH_H
#define RS_BATCH_H

#include "job.h"
#include "runspace.h"

/* 'rs_batch_open' for the pool behind 'queue'. */
int rs_batch_new (rs_queue *queue, lua_State *L, int nargs,
                  const rs_batch_options *options, rs_batch **out,
                  rs_error *err);

/* 'chunk' has ended.  Called by the thread that ended it, once. */
void rs_batch_on_end (rs_batch *batch, rs_job *chunk);

rs_batch *rs_batch_ref (rs_batch *batch);
void rs_batch_unref (rs_batch *batch);

#endif
