/* SPDX-License-Identifier: MIT */
/*
 * lstream.c - stream records and the option 'streams' as Lua sees them.
 */
#include "face/lstream.h"

#include <string.h>

#include <lauxlib.h>

#include "face/lface.h"
#include "face/lhandle.h"

#define RECORD_TYPE "parallel.stream_record"

/* __index of records: make the field 'message' when it is read. */
static int
get_field (lua_State *L)
{
  if (lua_type(L, 2) != LUA_TSTRING
      || strcmp(lua_tostring(L, 2), "message") != 0)
    return 0;
  rs_lua_require(L, "parallel.streams");
  lua_getfield(L, -1, "message");
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  return 1;
}

static int
to_string (lua_State *L)
{
  lua_settop(L, 1);
  lua_getfield(L, 1, "stream");
  lua_getfield(L, 1, "message");
  lua_pushfstring(L, "%s: %s", lua_tostring(L, 2), lua_tostring(L, 3));
  return 1;
}

/* [-0, +1, m] */
static void
push_metatable (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__index", get_field },
    { "__tostring", to_string },
    { NULL, NULL }
  };
  rs_push_type(L, RECORD_TYPE, meta);
}

/* [-0, +0, e]  Decode the values that a job sent into the table on top: the
   first value becomes the field named 'first', and all values become the array
   'values'.  If they cannot be rebuilt, the field 'failure' has a text that
   says why; with 'tells' that text stands for the values, too. */
static void
set_values (lua_State *L, rs_message *values, const char *first, bool tells)
{
  const int table = lua_gettop(L);
  int n;
  if (rs_decode_try(L, values, &n) != RS_OK) {
    lua_settop(L, table + 1);
    lua_pushfstring(L, "a value that cannot be rebuilt here: %s",
                    lua_tostring(L, table + 1));
    lua_replace(L, table + 1);
    lua_pushvalue(L, table + 1);
    lua_setfield(L, table, "failure");
    n = tells;
    lua_settop(L, table + n);
  }
  if (n > 0) {
    lua_pushvalue(L, table + 1);
    lua_setfield(L, table, first);
  }
  lua_createtable(L, n, 1);
  lua_insert(L, table + 1);
  for (int i = n; i > 0; i--)
    lua_rawseti(L, table + 1, i);
  lua_pushinteger(L, n);
  lua_setfield(L, table + 1, "n");
  lua_setfield(L, table, "values");
}

/* (light userdata: record) -> table */
static int
make_table (lua_State *L)
{
  static const char *const sources[] = { NULL, "stdout", "stderr" };
  enum { RECORD = 1, TABLE };
  rs_stream_record_info r;
  rs_stream_record_info_get(lua_touserdata(L, RECORD), &r);
  lua_createtable(L, 0, 6);
  lua_pushstring(L, rs_stream_name(r.stream));
  lua_setfield(L, TABLE, "stream");
  lua_pushinteger(L, (lua_Integer) r.sequence);
  lua_setfield(L, TABLE, "sequence");
  lua_pushnumber(L, r.time);
  lua_setfield(L, TABLE, "time");
  if (r.index != 0) {
    lua_pushinteger(L, r.index);
    lua_setfield(L, TABLE, "index");
  }
  if (r.source != RS_SOURCE_NONE) {
    lua_pushstring(L, sources[r.source]);
    lua_setfield(L, TABLE, "source");
  }
  if (r.name != NULL) {
    lua_pushstring(L, r.name);
    lua_setfield(L, TABLE, "name");
  }
  set_values(L, r.values, "value", true);
  push_metatable(L);
  lua_setmetatable(L, TABLE);
  return 1;
}

/* (light userdata: record, job) -> event */
static int
make_event (lua_State *L)
{
  enum { RECORD = 1, JOB, TABLE };
  rs_job *const from = rs_handle_check(L, JOB, RS_JOB_TYPE);
  rs_stream_record_info r;
  rs_job_info job;
  rs_stream_record_info_get(lua_touserdata(L, RECORD), &r);
  rs_job_info_get(from, &job);
  lua_createtable(L, 0, 10);
  lua_pushstring(L, r.name);
  lua_setfield(L, TABLE, "name");
  lua_pushinteger(L, (lua_Integer) job.id);
  lua_setfield(L, TABLE, "id");
  lua_pushstring(L, rs_job_name(from));
  lua_setfield(L, TABLE, "job_name");
  if (job.worker != 0) {
    lua_pushinteger(L, (lua_Integer) job.worker);
    lua_setfield(L, TABLE, "worker");
  }
  if (!job.chunk) {
    lua_pushvalue(L, JOB);
    lua_setfield(L, TABLE, "job");
  }
  if (r.index != 0) {
    lua_pushinteger(L, r.index);
    lua_setfield(L, TABLE, "index");
  }
  lua_pushnumber(L, r.time);
  lua_setfield(L, TABLE, "time");
  set_values(L, r.values, "data", false);
  return 1;
}

/* [-n, +1, e]  Call 'function' with the record and the 'n' values on top, and
   leave its result.  Gives up the reference to the record, also when this
   raises. */
static void
make (lua_State *L, lua_CFunction function, rs_stream_record *record, int n)
{
  lua_pushcfunction(L, function);
  lua_pushlightuserdata(L, record);
  lua_rotate(L, -n - 2, 2);
  const int code = lua_pcall(L, n + 1, 1, 0);
  rs_stream_record_unref(record);
  if (code != LUA_OK)
    lua_error(L);
}

void
rs_push_record (lua_State *L, rs_stream_record *record)
{
  make(L, make_table, record, 0);
}

void
rs_push_event (lua_State *L, rs_stream_record *record, int job)
{
  lua_pushvalue(L, job);
  make(L, make_event, record, 1);
}

void
rs_add_to_streams (lua_State *L)
{
  const int record = lua_gettop(L);
  const int streams = record - 1;
  lua_getfield(L, record, "stream");
  const char *const arrays[] = { "all", lua_tostring(L, -1) };
  for (int i = 0; i < 2; i++) {
    if (lua_getfield(L, streams, arrays[i]) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_newtable(L);
      lua_pushvalue(L, -1);
      lua_setfield(L, streams, arrays[i]);
    }
    lua_pushvalue(L, record);
    lua_rawseti(L, -2, (lua_Integer) lua_rawlen(L, -2) + 1);
    lua_pop(L, 1);
  }
  lua_settop(L, streams);
}

unsigned
rs_check_streams (lua_State *L, int index)
{
  const bool given = lua_istable(L, index);
  unsigned mask = 0;
  for (int i = 0; i < RS_STREAM_EVENT; i++) {
    const unsigned shown = RS_STREAM_SHOWN(i);
    const int type = given
                   ? lua_getfield(L, index, rs_stream_name((rs_stream) i))
                   : LUA_TNIL;
    if (type == LUA_TNIL)
      mask |= RS_STREAMS_SHOWN & shown;
    else if (type == LUA_TBOOLEAN)
      mask |= lua_toboolean(L, -1) ? shown : 0;
    else
      mask |= 1u << i | RS_LISTEN_FINISHED;  /* the end drops the function */
    if (given)
      lua_pop(L, 1);
  }
  return mask;
}
