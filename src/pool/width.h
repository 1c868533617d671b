/* SPDX-License-Identifier: MIT */
/*
 * width.h - how many workers a pool has.
 *
 * A pool has 'min' workers, and up to 'max' when a job finds all of them busy.
 * 'rs_pool_resize' sets both.  Where the options say 'adapt', 'max' follows
 * what the workers do: while jobs are queued, and workers wait (for the disk,
 * the network, another program) more than they compute, more of them may come;
 * those that compute, or have nothing to do, are taken away.
 *
 *     asleep --a job stays queued--> looking --nothing to do--> asleep
 *
 * The thread of the timers looks.
 */
#ifndef RS_WIDTH_H
#define RS_WIDTH_H

#include "pool/worker.h"

/* Set up the width of a pool, from its options. */
void rs_width_init (rs_pool *pool);

/* Look no more.  Without the lock, once the pool is closed. */
void rs_width_stop (rs_pool *pool);

/* True when a job has just stayed queued, and nobody looks yet: the caller
   calls 'rs_width_begin' without the lock. */
static inline bool
rs_width_is_asleep_locked (rs_pool *pool)
{
  const bool asleep = pool->width.asleep;
  pool->width.asleep = false;
  return asleep;
}

void rs_width_begin (rs_pool *pool);

/* Count a call that says itself how much goes on at a time: no workers are
   added meanwhile. */
void rs_width_hold (rs_pool *pool, bool held);

/* True when more may begin than idle workers are about to take.  A worker that
   was woken for a job counts as one that runs, since it may come late. */
bool rs_pool_is_short_locked (const rs_pool *pool);

/* Start the workers that are missing: up to 'min', and for what is queued. */
void rs_pool_grow (rs_pool *pool);

#endif
