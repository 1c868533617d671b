/* SPDX-License-Identifier: MIT */
/*
 * stream.c - the records that a job sends while it runs, in their order.
 */
#include "state/stream.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

static const char *const names[] = {
  [RS_STREAM_OUTPUT] = "output",
  [RS_STREAM_ERROR] = "error",
  [RS_STREAM_WARNING] = "warning",
  [RS_STREAM_VERBOSE] = "verbose",
  [RS_STREAM_DEBUG] = "debug",
  [RS_STREAM_INFORMATION] = "information",
  [RS_STREAM_PROGRESS] = "progress",
  [RS_STREAM_EVENT] = "event",
};

const char *
rs_stream_name (rs_stream stream)
{
  return (size_t) stream < sizeof names / sizeof names[0] ? names[stream]
                                                          : "?";
}

bool
rs_stream_find (const char *name, rs_stream *out)
{
  for (int i = 0; name != NULL && out != NULL && i < RS_STREAM_EVENT; i++) {
    if (strcmp(names[i], name) == 0) {
      *out = (rs_stream) i;
      return true;
    }
  }
  return false;
}

/* ----------------------------------------------------------------- records */

rs_stream_record *
rs_stream_record_new (rs_stream stream, const char *name, lua_Integer index,
                      int source, rs_message *values)
{
  const size_t size = name != NULL ? strlen(name) + 1 : 0;
  rs_stream_record *const record = malloc(sizeof *record + size);
  if (record == NULL) {
    rs_message_unref(values);
    return NULL;
  }
  atomic_init(&record->refs, 1);
  rs_list_init(&record->link);
  record->info = (rs_stream_record_info) {
    .stream = stream,
    .time = rs_now(),
    .index = index,
    .source = source,
    .values = values,
  };
  if (name != NULL) {
    memcpy(record->name, name, size);
    record->info.name = record->name;
  }
  return record;
}

rs_stream_record *
rs_stream_record_ref (rs_stream_record *record)
{
  atomic_fetch_add_explicit(&record->refs, 1, memory_order_relaxed);
  return record;
}

void
rs_stream_record_unref (rs_stream_record *record)
{
  /* Release our reads to the thread that frees. */
  if (record == NULL
      || atomic_fetch_sub_explicit(&record->refs, 1, memory_order_acq_rel)
         != 1)
    return;
  rs_message_unref(record->info.values);
  free(record);
}

void
rs_stream_record_info_get_sized (const rs_stream_record *record,
                                 rs_stream_record_info *out, size_t size)
{
  rs_stream_record_info info;
  if (out == NULL)
    return;
  memset(&info, 0, sizeof info);
  if (record != NULL)
    info = record->info;
  rs_give_sized(out, size, &info, sizeof info);
}

static size_t
size_of (const rs_stream_record *record)
{
  return sizeof *record + rs_message_size(record->info.values);
}

/* --------------------------------------------------------------------- log */

void
rs_stream_log_init (rs_stream_log *log)
{
  memset(log, 0, sizeof *log);
  log->first = log->next = 1;
}

/* The place of a sequence in the ring. */
static rs_stream_record **
place (const rs_stream_log *log, uint64_t sequence)
{
  return &log->ring[sequence & (log->capacity - 1)];
}

/* Drop the record at the oldest place, unless that place was skipped. */
static void
shift (rs_stream_log *log)
{
  rs_stream_record **const at = place(log, log->first++);
  if (*at == NULL)
    return;
  log->records--;
  log->bytes -= size_of(*at);
  log->dropped[(*at)->info.stream]++;
  rs_stream_record_unref(*at);
  *at = NULL;
}

void
rs_stream_log_fini (rs_stream_log *log)
{
  for (uint64_t i = log->first; log->capacity > 0 && i < log->next; i++)
    rs_stream_record_unref(*place(log, i));
  free(log->ring);
}

/* Make room for one more place.  False: no memory. */
static bool
grow (rs_stream_log *log)
{
  if (log->capacity > 0 && log->next - log->first < log->capacity)
    return true;
  rs_stream_log larger = *log;
  larger.capacity = log->capacity > 0 ? 2 * log->capacity : 8;
  larger.ring = calloc(larger.capacity, sizeof *larger.ring);
  if (larger.ring == NULL)
    return false;
  for (uint64_t i = log->first; log->capacity > 0 && i < log->next; i++)
    *place(&larger, i) = *place(log, i);
  free(log->ring);
  *log = larger;
  return true;
}

void
rs_stream_log_add (rs_stream_log *log, rs_stream_record *record)
{
  const size_t size = size_of(record);
  const bool fits = size <= RS_STREAM_MAX_BYTES;
  while (fits && log->first < log->next && log->capacity > 0
         && (log->next - log->first >= RS_STREAM_MAX_RECORDS
             || log->bytes + size > RS_STREAM_MAX_BYTES))
    shift(log);
  record->info.sequence = log->next;
  if (!fits || !grow(log)) {
    log->dropped[record->info.stream]++;
    rs_stream_record_unref(record);
    rs_stream_log_skip(log);
    return;
  }
  *place(log, log->next++) = record;
  log->records++;
  log->bytes += size;
}

uint64_t
rs_stream_log_skip (rs_stream_log *log)
{
  if (log->first == log->next)  /* empty? */
    log->first++;
  else if (grow(log))
    *place(log, log->next) = NULL;
  else {  /* no memory to remember a gap: drop the records before it */
    while (log->first < log->next)
      shift(log);
    log->first++;
  }
  return log->next++;
}

rs_stream_record *
rs_stream_log_after (const rs_stream_log *log, uint64_t after)
{
  uint64_t i = after + 1 > log->first ? after + 1 : log->first;
  for (; i < log->next; i++) {
    rs_stream_record *const record = *place(log, i);
    if (record != NULL)
      return record;
  }
  return NULL;
}
