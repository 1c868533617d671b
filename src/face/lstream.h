/* SPDX-License-Identifier: MIT */
/*
 * lstream.h - stream records and the option 'streams' as Lua sees them.
 */
#ifndef RS_LSTREAM_H
#define RS_LSTREAM_H

#include <lua.h>

#include "runspace.h"

/* [-0, +1, m]  Push a record, whose reference this takes, as a table. */
void rs_push_record (lua_State *L, rs_stream_record *record);

/* [-0, +1, e]  Push 'record', an emitted event whose reference this takes, as
   an event of the job whose handle is at the index 'job'. */
void rs_push_event (lua_State *L, rs_stream_record *record, int job);

/* [-1, +0, m]  Append the record on top to two arrays in the table below it:
   to 'all', and to the array of the record's stream.  Pop the record. */
void rs_add_to_streams (lua_State *L);

/* Bits of a stream that is shown: the stream's own, so that its records queue
   the job, and the host's, so that the Lua part writes them. */
#define RS_STREAM_SHOWN(stream) \
  ((1u << (stream)) | ((unsigned) RS_LISTEN_OWN << (stream)))

/* Streams that are shown by default. */
#define RS_STREAMS_SHOWN \
  (RS_STREAM_SHOWN(RS_STREAM_WARNING) | RS_STREAM_SHOWN(RS_STREAM_ERROR))

/* [-0, +0, e]  Return the RS_LISTEN_ mask for the option 'streams' at 'index',
   which is a table, or nil for RS_STREAMS_SHOWN. */
unsigned rs_check_streams (lua_State *L, int index);

#endif
