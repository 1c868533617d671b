/* SPDX-License-Identifier: MIT */
/*
 * payloads.h - what fuzz targets share: a call that the bytes may answer, and
 * what has to be so of each answer that is believed.
 */
#ifndef PAYLOADS_H
#define PAYLOADS_H

#include "check.h"

#include "state/call.h"
#include "state/stream.h"

#define MUST(condition) \
  do { \
    if (!(condition)) { \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, \
              #condition); \
      abort(); \
    } \
  } while (0)

enum { COUNT = 10 };        /* items of the chunk of 'make_call' */

/* A call that the bytes may answer: plain, or of a chunk. */
static rs_call *
make_call (rs_call *call, rs_chunk *chunk, bool plain)
{
  memset(call, 0, sizeof *call);
  memset(chunk, 0, sizeof *chunk);
  chunk->count = COUNT;
  chunk->index = 1;
  call->chunk = plain ? NULL : chunk;
  call->attempt = 1;
  call->retries = 2;
  return call;
}

/* An outcome is one that the call of 'make_call' can have. */
static void
judge_outcome (const rs_call *call, const rs_chunk *chunk)
{
  size_t sum = 0;
  MUST(call->state <= RS_JOB_LOST && call->state != RS_JOB_RUNNING
       && call->state != RS_JOB_STOPPING && call->reason < RS_REASONS);
  MUST(!rs_job_state_good(call->state) || call->result != NULL);
  MUST(call->attempt >= 1 && call->attempt <= 3);
  for (int i = 0; i <= RS_JOB_LOST; i++)
    sum += chunk->ended[i];
  MUST(sum <= COUNT && chunk->rest.item <= COUNT && chunk->took >= 0);
}

/* So is a record. */
static void
judge_record (const rs_stream_record *record)
{
  MUST(record->info.stream <= RS_STREAM_EVENT);
  MUST(record->info.index >= 0 && record->info.index <= COUNT);
  MUST(record->info.time >= 0 && record->info.time <= rs_now());
  MUST((record->info.name != NULL)
       == (record->info.stream == RS_STREAM_EVENT));
}

#endif
