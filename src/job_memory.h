/* SPDX-License-Identifier: MIT */
/*
 * job_memory.h - what a job is made of: memory, and references.
 */
#ifndef RS_JOB_MEMORY_H
#define RS_JOB_MEMORY_H

#include "job.h"

/*
 * A job that is zero but for its lock, its condition, 'queue', 'events' and
 * the function, to which it has references; 'events' may be NULL.  With
 * 'chunk' it has so many bytes more, for its chunk.  Nobody sees it before it
 * has a reference itself.  NULL when out of memory.
 */
rs_job *rs_job_alloc (rs_queue *queue, rs_events *events,
                      rs_message *function, size_t chunk);

/* Free a job to which there is no reference, and drop all these. */
void rs_job_dealloc (rs_job *job);

#endif
