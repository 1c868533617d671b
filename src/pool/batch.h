/* SPDX-License-Identifier: MIT */
/*
 * batch.h - a map in flight; its interface is the public one.
 */
#ifndef RS_BATCH_H
#define RS_BATCH_H

#include "pool/job.h"
#include "runspace.h"

/* 'rs_batch_open' for the pool behind 'queue'. */
int rs_batch_new (rs_queue *queue, lua_State *L, int nargs,
                  const rs_batch_options *options, rs_batch **out,
                  rs_error *err);

#endif
