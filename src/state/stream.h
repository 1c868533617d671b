/* SPDX-License-Identifier: MIT */
/*
 * stream.h - the records that a job sends while it runs, in their order.
 *
 *     dropped <- [ oldest, ..., newest ] <- add
 *                 first         next - 1
 *
 * Sequences count from 1 over all streams of a job; the events that the job
 * emits draw theirs from the same count.  At RS_STREAM_MAX_RECORDS, or at
 * RS_STREAM_MAX_BYTES, the oldest record goes for the new one.  A job that
 * sends nothing has an empty log, which takes no memory of its own.
 */
#ifndef RS_STREAM_H
#define RS_STREAM_H

#include "base/list.h"
#include "runspace.h"

struct rs_stream_record {
  _Atomic unsigned refs;
  rs_stream_record_info info;  /* constant once the record is in a log */
  rs_list link;                /* of an event, in its job */
  char name[];                 /* of an event */
};

/* Make a record of 'values', whose reference the function takes in each case;
   NULL when out of memory. */
rs_stream_record *rs_stream_record_new (rs_stream stream, const char *name,
                                        lua_Integer index, int source,
                                        rs_message *values);
rs_stream_record *rs_stream_record_ref (rs_stream_record *record);

/* A log of records; its owner guards it. */
typedef struct rs_stream_log {
  rs_stream_record **ring;  /* owned; sequence s is at s % capacity */
  size_t capacity;          /* a power of two, or 0 */
  uint64_t first;           /* sequence of the oldest place in use */
  uint64_t next;            /* sequence that comes next, from 1 */
  size_t records, bytes;    /* that the log keeps */
  uint64_t dropped[RS_STREAM_EVENT];  /* records that are gone, by rs_stream */
} rs_stream_log;

void rs_stream_log_init (rs_stream_log *log);
void rs_stream_log_fini (rs_stream_log *log);

/* Append the record; takes over the reference.  When memory runs out, or the
   record is larger than RS_STREAM_MAX_BYTES, it counts as dropped. */
void rs_stream_log_add (rs_stream_log *log, rs_stream_record *record);

/* Draw a sequence for a record that the log does not keep, such as an
   event. */
uint64_t rs_stream_log_skip (rs_stream_log *log);

/* The first record whose sequence is above 'after', lent, or NULL. */
rs_stream_record *rs_stream_log_after (const rs_stream_log *log,
                                       uint64_t after);

#endif
