/* SPDX-License-Identifier: MIT */
/*
 * serial.h - pools without threads: RS_ISOLATION_SERIAL.
 *
 * The jobs of such a pool wait in its queue, as everywhere.  The thread that
 * has opened the pool runs them, in the pool's only runspace, one after
 * another, whenever it waits: for a job, a batch, its events, or the end of
 * the pool.  It begins no job when the time of its wait is over; a job that
 * runs is not cut off by that.  Other threads may submit, and wait; their jobs
 * begin when that thread waits next, or wakes in a wait.
 *
 * All functions are for the thread that has opened the pool.
 */
#ifndef RS_SERIAL_H
#define RS_SERIAL_H

#include "pool/worker.h"

/* Open the pool's runspace in the worker, which was reserved.  RS_OK, or why
   there is none; 'rs_serial_close' is called then, too. */
int rs_serial_open (rs_pool *pool, rs_worker *w, rs_error *err);

/* True when the calling thread has opened the pool, which is serial. */
bool rs_serial_is_mine (const rs_pool *pool);

/* Run what is queued, until nothing is left, or 'deadline'. */
void rs_serial_serve_until (rs_pool *pool, double deadline);

/* Close the runspace; harmless when it is closed. */
void rs_serial_close (rs_pool *pool);

#endif
