/* SPDX-License-Identifier: MIT */
/*
 * stream.h - the records that a job sends while it runs, in their order.
 *
 *     dropped <- [ oldest, ..., newest ] <- add
 *                 first         next - 1
 *
 * Sequences count from 1 over all streams of a job; those of the events that
 * it emits are drawn from the same count.  At RS_STREAM_MAX_RECORDS, or at
 * RS_STREAM_MAX_BYTES, the oldest record goes for the new one.  A job that
 * sends nothing has an empty log, which takes no memory of its own.
 */
#ifndef RS_STREAM_H
#define RS_STREAM_H

#include "base/list.h"
#include "runspace.h"

struct rs_stream_record {
  _Atomic unsigned refs;
  rs_stream_record_info info;  /* constant once it is in a log */
  rs_list link;                /* of an event, in its job */
  char name[];                 /* of an event */
};

/* A record of 'values', whose reference it takes in each case; NULL when out
   of memory. */
rs_stream_record *rs_stream_record_new (rs_stream stream, const char *name,
                                        lua_Integer index, int source,
                                        rs_message *values);
rs_stream_record *rs_stream_record_ref (rs_stream_record *record);

/* A log; its owner guards it. */
typedef struct rs_stream_log {
  rs_stream_record **ring;  /* owned; sequence s is at s % capacity */
  size_t capacity;          /* a power of two, or 0 */
  uint64_t first;           /* sequence of the oldest place in use */
  uint64_t next;            /* sequence that comes next, from 1 */
  size_t records, bytes;    /* kept */
  uint64_t dropped[8];      /* by rs_stream */
} rs_stream_log;

void rs_stream_log_init (rs_stream_log *log);
void rs_stream_log_fini (rs_stream_log *log);

/* Append; takes over the reference.  Out of memory the record counts as
   dropped. */
void rs_stream_log_add (rs_stream_log *log, rs_stream_record *record);

/* A sequence for something that is kept elsewhere. */
uint64_t rs_stream_log_skip (rs_stream_log *log);

/* The first record above 'after', lent, or NULL. */
rs_stream_record *rs_stream_log_after (const rs_stream_log *log,
                                       uint64_t after);

#endif
