/* SPDX-License-Identifier: MIT */
/*
 * call.c - run a call, or a chunk of them, in a state.
 *
 * Everything that can raise happens inside 'lua_pcall'.  Its message handler,
 * which runs where the error was raised, encodes the error value and the
 * traceback at once.
 *
 * A chunk is run by one protected call that loops over its items.  When an
 * item raises, the loop has ended.  The record of the item is written, and the
 * loop is entered again at the next item; or at the same item, without a
 * record, if the item is to be tried again.
 */
#include "state/call.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/defer.h"
#include "base/fork.h"
#include "base/level.h"
#include "base/options.h"
#include "base/status.h"
#include "state/given.h"
#include "state/seed.h"
#include "value/wire.h"

enum { STRIDE = 16 };     /* items between two looks at the clock, at most */
enum { ERROR_VALUES = 3 };  /* values in the record of a failed item */

/* Bytes that are enough for the record of an item that was stopped, or for
   whose error there is no memory.  Room for them is made before the item
   begins. */
enum { RECORD_LEAST = 192 };

/* A call that runs: one entry into 'rs_call_run'; entries nest. */
struct rs_run {
  rs_run *outer;          /* the call that waits for this one, or NULL */
  rs_state *state;
  rs_call *call;
  const rs_call_sink *sink;  /* constant */
  rs_chunk *chunk;        /* of the call; NULL: a plain call */
  rs_token token;
  lua_Integer index;      /* of the item that runs now; 0: none */
  unsigned attempt;       /* of the item, or the call */
  rs_encoder *out;        /* the result; lent */
  rs_message *small;      /* the result, in the call's room; NULL: in 'out' */
  rs_decoder in;          /* the items, at the next one */
  size_t item;            /* number of the next item; from 0 */
  rs_decoder_place again; /* where the item that runs begins in 'in' */
  rs_mark mark;           /* where its record begins in 'out' */
  size_t good;            /* where the record begins in 'out' that completed
                             items share (RS_RECORD_RUN); 0: none is open */
  uint32_t good_count;    /* items in that record */
  bool decoding;          /* an item is being taken from 'in' */
  bool open;              /* the record of the item is begun, not ended */
  bool reported;          /* 'out' has the error of the item, or the call */
  bool waits;             /* the next item has failed, and waits until it is
                             tried again: RS_CALL_PACED */
  bool gives;             /* globals came with the function of the chunk */
  bool dressed;           /* the environment has them */
  int worn;               /* registry reference: the globals that came with
                             the call or the item and have to be taken off
                             again; or 0 */
  unsigned guards;        /* rs_cancel_guards, when the call began */
  bool quiet;             /* the collector stands still: on_error */
  rs_reason told;         /* the reason in that error */
  rs_reason ended;        /* why the item was stopped, found at its end */
  rs_common common;       /* tables that came with the function */
  bool errors;            /* the item, or the call, has sent a record of the
                             stream 'error' */
  double began;           /* instant at which the item started */
  double late;            /* instant at which the budget is spent */
  unsigned unwatched;     /* items that begin before the clock is read again */
  unsigned stride;        /* the clock is read once in so many items */
  double watched;         /* instant that was read last */
};

typedef rs_run run;       /* the short name in this file */

/* ---------------------------------------------------- what a call sends */

/* Send a line that was printed, as a record; drop it for want of memory. */
static void
send_line (const run *r, int source, const char *text, size_t size)
{
  if (!r->sink->ready(r->call))
    return;
  rs_encoder e;
  rs_encoder_init(&e, 0);
  rs_encoder_string(&e, text, size);
  rs_message *const message = rs_encoder_message(&e);
  rs_encoder_fini(&e);
  if (message == NULL)
    return;
  rs_stream_record *const record =
    rs_stream_record_new(RS_STREAM_INFORMATION, NULL, r->index, source,
                         message);
  if (record != NULL)
    r->sink->record(r->call, record);
}

/* rs_state.on_line: send the line to the sink of the innermost call. */
static void
on_line (rs_state *s, int fd, const char *text, size_t size)
{
  send_line(s->run, fd, text, size);
}

/* [-n, +0, e]  Make a record of the 'n' values on top, for the innermost call,
   '*out'. */
static rs_stream_record *
make_record (lua_State *L, run **out, rs_stream stream, const char *name,
             int n)
{
  const rs_state *const s = rs_state_of(L);
  run *const r = s != NULL ? s->run : NULL;
  if (r == NULL)
    luaL_error(L, "there is no job here that could send anything");
  if (rs_fork_is_foreign(s->born))
    luaL_error(L, "this job belongs to another process");
  if (!r->sink->ready(r->call))
    luaL_error(L, "%s", rs_status_message(RS_ENOMEM));
  rs_cancel_check(s->cancel, L);
  rs_error err;
  rs_message *message = NULL;
  if (rs_encode_without(L, n, s->spare.forbidden, &message, &err) != RS_OK) {
    rs_defer_flush(L);
    luaL_error(L, "%s: %s", name != NULL ? name : rs_stream_name(stream),
               err.text);
  }
  rs_stream_record *const record =
    rs_stream_record_new(stream, name, r->index, RS_SOURCE_NONE, message);
  if (record == NULL)
    luaL_error(L, "%s", rs_status_message(RS_ENOMEM));
  lua_pop(L, n);
  *out = r;
  return record;
}

void
rs_task_send (lua_State *L, rs_stream stream, int n)
{
  run *r;
  if (L == NULL)
    return;
  if ((unsigned) stream >= RS_STREAM_EVENT)
    luaL_error(L, "stream (%d) is none: they are numbered from 0 to %d, and "
                  "events are sent by 'rs_task_emit'", (int) stream,
               RS_STREAM_EVENT - 1);
  rs_stream_record *const record = make_record(L, &r, stream, NULL, n);
  if (stream == RS_STREAM_ERROR)
    r->errors = true;
  r->sink->record(r->call, record);
}

void
rs_task_emit (lua_State *L, const char *name, int n)
{
  run *r;
  rs_error err;
  if (L == NULL)
    return;
  if (name == NULL)
    luaL_error(L, "name is NULL: an event needs one");
  if (rs_check_name(name, &err) != RS_OK)
    luaL_error(L, "event: %s", err.text);
  rs_stream_record *const record = make_record(L, &r, RS_STREAM_EVENT, name,
                                               n);
  r->sink->emit(r->call, record);
}

/* ----------------------------------------------------------- functions */

/* [-0, +n, e]  Push the function of the call, and the extra arguments that
   follow it in its message.  Returns how many values. */
static int
push_function (lua_State *L, run *r)
{
  rs_message *const message = r->call->function;
  if (!message->common)
    return rs_state_push_function(L, message, 0);
  r->common.ref = rs_common_open(L);
  const int n = rs_state_push_function(L, message, r->common.ref);
  rs_common_close(L, &r->common);
  return n;
}

/* [-0, +n, e]  Push the function of the call, and its extra arguments, from
   the values that the state keeps; decode and keep them the first time. */
static void
push_kept (lua_State *L, run *r)
{
  rs_state *const s = r->state;
  rs_message *const message = r->call->function;
  for (int i = 0; i < RS_STATE_KEPT; i++) {
    if (s->kept[i].function != message)
      continue;
    const int n = s->kept[i].values;
    if (s->kept[i].given > 0) {
      lua_rawgeti(L, LUA_REGISTRYINDEX, s->kept[i].given);
      rs_env_give_all(L);
    }
    if (s->kept[i].common > 0)
      rs_common_share(L, s->kept[i].common, &r->common);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->kept[i].ref);
    if (n == 1)  /* the function alone? */
      return;
    const int list = lua_gettop(L);
    rs_level_room(L, n + 1, "too many arguments");
    for (int k = 1; k <= n; k++)
      lua_rawgeti(L, list, k);
    lua_remove(L, list);
    return;
  }
  const int base = lua_gettop(L);
  const int n = push_function(L, r);
  rs_level_room(L, n + 2, "too many arguments");
  int given = 0;
  if (rs_env_is_given()) {
    rs_env_push_given(L);
    lua_pushvalue(L, -1);
    given = luaL_ref(L, LUA_REGISTRYINDEX);
    rs_env_give_all(L);
  }
  if (n == 1)
    lua_pushvalue(L, -1);
  else {
    lua_createtable(L, n, 0);
    for (int k = 1; k <= n; k++) {
      lua_pushvalue(L, base + k);
      lua_rawseti(L, -2, k);
    }
  }
  const int ref = luaL_ref(L, LUA_REGISTRYINDEX);
  rs_common common = { .sent = NULL };
  if (r->common.ref > 0)
    rs_common_share(L, r->common.ref, &common);
  const unsigned slot = s->next_kept++ % RS_STATE_KEPT;
  if (s->kept[slot].function != NULL) {
    luaL_unref(L, LUA_REGISTRYINDEX, s->kept[slot].ref);
    if (s->kept[slot].common > 0)
      luaL_unref(L, LUA_REGISTRYINDEX, s->kept[slot].common);
    if (s->kept[slot].given > 0)
      luaL_unref(L, LUA_REGISTRYINDEX, s->kept[slot].given);
    rs_message_unref(s->kept[slot].function);
  }
  s->kept[slot].values = n;
  s->kept[slot].function = rs_message_ref(message);
  s->kept[slot].ref = ref;
  s->kept[slot].common = common.ref;
  s->kept[slot].given = given;
}

/* ----------------------------------------------------------- environments */

/* True when what jobs assign stays, so that globals which came with a call
   have to be taken off again. */
static bool
keeps_globals (const run *r)
{
  return r->state->options->reset == RS_RESET_NONE;
}

/* [-0, +0, e]  The values of the call, or of the item, are there; if globals
   came with them, no other one gets its environment. */
static void
end_giving (lua_State *L, run *r)
{
  if (!rs_env_is_given())
    return;
  r->state->environment.dirty = true;
  if (!keeps_globals(r))
    return;
  rs_env_push_given(L);
  if (lua_istable(L, -1))
    rs_given_put_on(L, lua_gettop(L));
  if (r->worn == 0 && lua_istable(L, -1))
    r->worn = luaL_ref(L, LUA_REGISTRYINDEX);
  else
    lua_pop(L, 1);
}

/* [-0, +0, -]  The call, or the item, has ended. */
static void
take_off_given (lua_State *L, run *r)
{
  if (r->worn == 0)
    return;
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, r->worn) == LUA_TTABLE)
    rs_given_take_off(L, lua_gettop(L));
  lua_pop(L, 1);
  luaL_unref(L, LUA_REGISTRYINDEX, r->worn);
  r->worn = 0;
}

/* ------------------------------------------------------------------ errors */

/* Make room for the shortest record of an error.  False: no memory.  No item
   begins without the room, so the end of each item that begins can be
   reported. */
static inline bool
has_room (const run *r)
{
  rs_buf *const b = &r->out->buf;
  return b->room - b->size >= RECORD_LEAST || rs_buf_reserve(b, RECORD_LEAST);
}

/* Begin the record of the item that begins. */
static void
open_record (run *r)
{
  r->errors = false;
  r->open = true;
  r->mark = rs_encoder_mark(r->out);
  if (r->call->flags & RS_BATCH_RECORDS)
    r->began = rs_now();
}

/* Take back all of the item's record that was written. */
static void
rewind_record (run *r)
{
  rs_encoder_rewind(r->out, &r->mark);
  if (r->good >= r->mark.size)
    r->good = 0;
  r->open = false;
}

/* End the record that items share. */
static void
close_good (run *r)
{
  if (r->good != 0)
    rs_wire_put32(r->out->buf.data + r->good + 1, r->good_count);
  r->good = 0;
}

/* Write the empty head of a record for this item alone; 'close_record' fills
   the head. */
static void
begin_record (run *r)
{
  static const unsigned char head[1 + RS_RECORD_MORE];
  close_good(r);
  rs_encoder_raw(r->out, head,
                 r->call->flags & RS_BATCH_RECORDS ? sizeof head : 1);
}

/* Write the head of a record that this item shares with the items behind
   it. */
static void
begin_good (run *r)
{
  static const unsigned char head[5] = { RS_RECORD_RUN };
  rs_encoder_raw(r->out, head, 0);  /* ends a run of numbers */
  r->good = r->out->buf.size;
  r->good_count = 0;
  rs_encoder_raw(r->out, head, sizeof head);
}

/* End the record of the item alone, in which 'count' values were encoded. */
static void
close_record (run *r, rs_job_state state, rs_reason reason, uint32_t count)
{
  r->chunk->ended[state]++;
  r->open = false;
  assert(!r->out->buf.failed);
  unsigned char *at = r->out->buf.data + r->mark.size;
  *at++ = (unsigned char) ((unsigned) state | (unsigned) reason << 4);
  if (r->call->flags & RS_BATCH_RECORDS) {
    rs_wire_put_double(at, r->began + r->state->ahead);
    rs_wire_put_double(at + 8, rs_now() - r->began);
    rs_wire_put32(at + 16, count);
    rs_wire_put32(at + 20, r->attempt);
  }
}

/* Empty the result, or the record of the item that runs, to write an error
   there. */
static void
restart (run *r)
{
  if (r->index == 0)
    rs_encoder_clear(r->out);
  else {
    rewind_record(r);
    r->open = true;
    begin_record(r);
  }
}

/* (error) -> the text of the error: '__tostring', or the field 'message'; or
   nothing */
static int
describe (lua_State *L)
{
  lua_settop(L, 1);
  if (luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL) {
    luaL_tolstring(L, 1, NULL);
    return 1;
  }
  lua_pushliteral(L, "message");
  return lua_type(L, 1) == LUA_TTABLE && lua_rawget(L, 1) == LUA_TSTRING;
}

/* [-0, +0, -]  Append the text of the error at 'index', for a host that cannot
   rebuild the error value.  Appends nil when the error has no text, or its
   value takes no modules or code to be rebuilt. */
static void
encode_text (lua_State *L, run *r, int index)
{
  const int top = lua_gettop(L);
  const bool rebuilds =
    (r->out->flags & (RS_MESSAGE_NAMES | RS_MESSAGE_CODE)) != 0
    && (lua_istable(L, index) || lua_isuserdata(L, index));
  bool there = false;
  if (rebuilds && lua_checkstack(L, LUA_MINSTACK)) {
    lua_pushcfunction(L, describe);
    lua_pushvalue(L, index);
    there = lua_pcall(L, 1, 1, 0) == LUA_OK && lua_type(L, -1) == LUA_TSTRING
         && rs_encode_value(r->out, L, -1, "text") == RS_OK;
  }
  lua_settop(L, top);
  if (!there)
    rs_encoder_nil(r->out);
}

/* Note that the result, or the record, has an error; 'reason' is why the item,
   or the call, was stopped, if it was. */
static void
set_told (run *r, rs_reason reason)
{
  r->reported = true;
  r->told = reason;
}

/*
 * [-0, +0, -]  Replace the result, or the record of the item that runs, by the
 * error value and the traceback at the indices 'error' and 'traceback', and
 * the text of the error.  RS_OK; or nothing of the error is left: RS_EREFUSED,
 * its value cannot travel, or RS_ENOMEM.
 */
static int
report (lua_State *L, run *r, int error, int traceback)
{
  restart(r);
  const int status = rs_encode_value(r->out, L, error, "error");
  if (status != RS_OK)
    return status;
  if (rs_encode_value(r->out, L, traceback, "traceback") != RS_OK)
    rs_encoder_nil(r->out);
  encode_text(L, r, error);
  if (r->out->buf.failed)
    return RS_ENOMEM;
  set_told(r, RS_REASON_NONE);
  return RS_OK;
}

/* Replace the result, or the record of the item that runs, by a text as error,
   without a traceback.  For a short text there is always room. */
static void
report_text (run *r, const char *text)
{
  restart(r);
  rs_encoder_string(r->out, text, strlen(text));
  rs_encoder_nil(r->out);
  rs_encoder_nil(r->out);
  set_told(r, RS_REASON_NONE);
}

/* [-0, +0, -]  Replace the result, or the record of the item that runs, by the
   error of a stop for 'reason', with the traceback (or NULL) if there is
   room. */
static void
report_stop (run *r, rs_reason reason, const char *traceback)
{
  const char *const text = rs_reason_text(reason);
  restart(r);
  rs_encoder_string(r->out, text, strlen(text));
  if (traceback != NULL)
    rs_encoder_string(r->out, traceback, strlen(traceback));
  else
    rs_encoder_nil(r->out);
  rs_encoder_nil(r->out);
  if (r->out->buf.failed)
    report_text(r, text);
  set_told(r, reason);
}

/* Let the collector run again, if 'on_error' has stopped it. */
static void
end_quiet (lua_State *L, run *r)
{
  if (r->quiet)
    lua_gc(L, LUA_GCRESTART);
  r->quiet = false;
}

/* [-0, +1, e]  Push the text of the error at 1, whose value cannot travel: the
   one of 'describe', as the host shows it, or else what 'tostring' makes. */
static void
push_text (lua_State *L)
{
  lua_pushcfunction(L, describe);
  lua_pushvalue(L, 1);
  lua_call(L, 1, 1);
  if (lua_type(L, -1) == LUA_TSTRING)
    return;
  lua_pop(L, 1);
  luaL_tolstring(L, 1, NULL);
}

/*
 * The message handler.  When the handler itself raises (no memory for the
 * traceback, or '__tostring' raises), 'settle' reports the error that Lua then
 * makes; or the value again, for which there was no memory here.
 *
 * The collector stands still in the handler of a stop: a finalizer of the
 * script that ran here would be stopped by force only, since the stop was
 * raised already.
 */
static int
on_error (lua_State *L)
{
  run *const r = rs_state_of(L)->run;
  lua_settop(L, 1);
  if (rs_token_forced(&r->token))
    return 1;
  if (rs_token_stopped(&r->token) && lua_gc(L, LUA_GCISRUNNING) > 0) {
    lua_gc(L, LUA_GCSTOP);
    r->quiet = true;
  }
  rs_level_room(L, LUA_MINSTACK, NULL);
  rs_level_traceback(L, NULL,
                     rs_level_user(L, 1, lua_type(L, 1) == LUA_TSTRING
                                         ? lua_tostring(L, 1) : NULL), false);
  if (rs_token_stopped(&r->token))
    report_stop(r, rs_token_reason(r->state->cancel, &r->token),
                lua_tostring(L, 2));
  else if (report(L, r, 1, 2) == RS_EREFUSED) {
    push_text(L);
    report(L, r, 3, 2);
  }
  lua_pop(L, lua_gettop(L) - 1);
  end_quiet(L, r);
  return 1;
}

/*
 * [-1, +0, -]  A protected call has failed with the error on top: report it,
 * unless the handler has.  'reason' is why the item, or the call, was stopped,
 * if it was.
 */
static void
settle (lua_State *L, run *r, rs_reason reason)
{
  const int error = lua_gettop(L);
  const bool told = r->reported && r->told == reason;
  end_quiet(L, r);
  if (reason != RS_REASON_NONE && !told)
    report_stop(r, reason, NULL);
  else if (!told) {
    lua_pushnil(L);
    const int status = report(L, r, error, error + 1);
    if (status == RS_EREFUSED)
      report_text(r, r->out->error);  /* why it cannot travel */
    if (status == RS_ENOMEM || r->out->buf.failed)
      report_text(r, rs_status_message(RS_ENOMEM));
    lua_pop(L, 1);
  }
  r->reported = false;
  lua_pop(L, 1);
}

/* [-0, +0, e]  Append the value at 'index', result 'number' of the item, or
   the call. */
static inline void
encode_result (lua_State *L, run *r, int index, int number)
{
  const int status = rs_encode_value(r->out, L, index, NULL);
  if (status == RS_OK)
    return;
  rs_defer_flush(L);
  char root[32];
  snprintf(root, sizeof root, "result %d", number);
  if (status == RS_EREFUSED)
    rs_encoder_inside(r->out, root);
  luaL_error(L, "%s", status == RS_ENOMEM ? rs_status_message(status)
                                          : r->out->error);
}

/*
 * Drop an error that the handler has reported, though the code then did not
 * raise: 'load' runs the handler when its reader raises, and returns the
 * error.
 */
static void
forget_report (run *r)
{
  if (r->index == 0)
    rs_encoder_clear(r->out);
  else {
    rewind_record(r);
    r->open = true;
  }
  r->reported = false;
}

/* [-0, +0, e]  Write the 'n' results of an item, from 'index' on, into its
   record. */
static void
encode_record (lua_State *L, run *r, int index, int n)
{
  if (r->reported)
    forget_report(r);
  if (!(r->call->flags & RS_BATCH_RECORDS) && !r->errors) {
    if (r->good == 0)
      begin_good(r);
    encode_result(L, r, index, 1);
    if (!r->errors)  /* '__transfer' may have sent an error */
      return;
    rewind_record(r);
    r->open = true;
  }
  begin_record(r);
  for (int i = 0; i < n; i++)
    encode_result(L, r, index + i, i + 1);
}

/* The state of an item, or a call, that has ended without raising. */
static rs_job_state
good_state (const run *r)
{
  return r->errors ? RS_JOB_COMPLETED_WITH_ERRORS : RS_JOB_COMPLETED;
}

/* The item has completed: end its record. */
static void
close_good_record (run *r, int n)
{
  if (r->good == 0) {
    close_record(r, good_state(r), RS_REASON_NONE, (uint32_t) n);
    return;
  }
  r->chunk->ended[RS_JOB_COMPLETED]++;
  r->good_count++;
  r->open = false;
}

/* ---------------------------------------------------------------- stopping */

/* An item, or a call that has none, ends.  Returns why it was stopped, if it
   was. */
static rs_reason
end_task (lua_State *L, run *r)
{
  rs_state *const s = r->state;
  s->tasks++;
  rs_alloc_settle(&s->alloc);
  const rs_reason reason = rs_token_end(s->cancel, &r->token, L);
  s->forced |= atomic_load_explicit(&r->token.forced, memory_order_relaxed);
  s->haunted |= reason != RS_REASON_NONE
             && rs_cancel_guards(s->cancel) != r->guards;
  return reason;
}

/* Is the item, or the call, to be tried again?  It has failed, or was stopped
   for 'reason'. */
static bool
tries_again (const run *r, rs_reason reason)
{
  static const unsigned bits[RS_REASONS] = {
    [RS_REASON_NONE] = RS_RETRY_ERROR,
    [RS_REASON_TIMEOUT] = RS_RETRY_TIMEOUT,
    [RS_REASON_MEMORY] = RS_RETRY_MEMORY,
    [RS_REASON_INSTRUCTIONS] = RS_RETRY_INSTRUCTIONS,
  };
  const rs_call *const call = r->call;
  return r->attempt <= call->retries && (call->retry_on & bits[reason]) != 0
      && !rs_token_stopped(&r->token);
}

static rs_job_state
bad_state (rs_reason reason)
{
  return reason == RS_REASON_NONE ? RS_JOB_FAILED : rs_reason_state(reason);
}

/* ------------------------------------------------------------ a plain call */

/* (run)  The body of a plain call. */
static int
call_body (lua_State *L)
{
  run *const r = lua_touserdata(L, 1);
  lua_settop(L, 0);
  const bool standing = (r->call->flags & RS_CALL_STANDING) != 0;
  if (standing)
    rs_environment_lend(L, &r->state->environment);
  else
    rs_state_renew_environment(L, r->state);
  rs_env_collect(keeps_globals(r) && !standing);
  if (r->call->keep)
    push_kept(L, r);
  else
    push_function(L, r);
  r->out->common = r->common;
  if (r->call->arguments != NULL)
    rs_state_decode(L, r->call->arguments, &r->common, 0);
  end_giving(L, r);
  if (rs_call_is_seeded(r->call))
    rs_seed_begin(L, rs_call_seed(r->call));
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  const int n = lua_gettop(L);
  if (r->reported)
    forget_report(r);
  r->small = rs_encode_small(L, 1, n, r->call->room, rs_call_room(r->call));
  if (r->small == NULL)
    for (int i = 1; i <= n; i++)
      encode_result(L, r, i, i);
  return 0;
}

static void
run_plain (lua_State *L, run *r)
{
  rs_call *const call = r->call;
  if (!has_room(r))  /* the call fails, without a result */
    return;
  rs_token_begin(r->state->cancel, &r->token, call->timeout);
  lua_pushcfunction(L, on_error);
  lua_pushcfunction(L, call_body);
  lua_pushlightuserdata(L, r);
  const int status = lua_pcall(L, 1, 0, -3);
  call->reason = end_task(L, r);
  take_off_given(L, r);
  if (call->flags & RS_CALL_STANDING)
    r->state->tasks--;
  if (status != LUA_OK)
    settle(L, r, call->reason);
  else if (call->reason != RS_REASON_NONE)
    report_stop(r, call->reason, NULL);
  if (status != LUA_OK || call->reason != RS_REASON_NONE) {
    call->state = bad_state(call->reason);
    r->small = NULL;
  }
  else
    call->state = good_state(r);
  if (!rs_job_state_good(call->state) && tries_again(r, call->reason)) {
    call->attempt++;
    call->state = RS_JOB_QUEUED;
  }
}

/* ----------------------------------------------------------------- a chunk */

/* Slots of 'chunk_prepare' and 'chunk_body'. */
enum { RUN = 1, FUNCTION = 1, OBJECTS, GIVEN, EXTRAS };

/* (run) -> function, table of the decoder's objects or nil, table of the
   globals that came with the function or nil, extra arguments... */
static int
chunk_prepare (lua_State *L)
{
  run *const r = lua_touserdata(L, RUN);
  lua_settop(L, 0);
  rs_state_renew_environment(L, r->state);
  rs_env_collect(true);
  push_kept(L, r);
  rs_env_push_given(L);
  r->gives = lua_istable(L, -1);
  lua_insert(L, GIVEN - 1);
  r->out->common = r->common;
  r->in = (rs_decoder) { .at = 0 };
  if (r->call->arguments != NULL)
    rs_decoder_init(&r->in, L, r->call->arguments, 0);
  r->in.common = r->common;
  if (r->in.objects == 0)
    lua_pushnil(L);
  lua_insert(L, OBJECTS);
  r->in.objects = r->in.objects == 0 ? 0 : OBJECTS;
  if (r->chunk->from.in.at != 0)  /* the rest of another chunk? */
    rs_decoder_seek(&r->in, &r->chunk->from.in);
  return lua_gettop(L);
}

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* Shall no further item begin? */
static inline bool
stopped (const run *r)
{
  return rs_token_stopped(&r->token)
      || (r->chunk != NULL && (is_set(r->chunk->stop)
                               || is_set(r->chunk->failed)));
}

/*
 * Is some of the budget left?  To read the clock takes a fifth of the time of
 * a tiny item.  So while the clock stands still (it ticks some hundred times a
 * second) it is read less and less often, down to once in STRIDE items.
 */
static inline bool
in_time (run *r)
{
  if (r->late == RS_NEVER)
    return true;
  if (r->unwatched > 0) {
    r->unwatched--;
    return true;
  }
  const double now = rs_now_coarse();
  if (now != r->watched)
    r->stride = 1;
  else if (r->stride < STRIDE)
    r->stride *= 2;
  r->watched = now;
  r->unwatched = r->stride - 1;
  return now < r->late;
}

/* Shall the loop over the items go on?  At least one item is run, unless the
   call is stopped or there is no memory. */
static inline bool
goes_on (run *r)
{
  return r->item < r->chunk->count && !stopped(r) && has_room(r)
      && (r->item == 0 || (in_time(r) && !rs_state_spent(r->state)));
}

/* [-0, +0, e]  Give the next item its environment. */
static inline void
dress (lua_State *L, run *r)
{
  rs_environment *const env = &r->state->environment;
  r->dressed &= !env->dirty;
  rs_state_renew_environment(L, r->state);
  if (r->gives && !r->dressed) {
    r->dressed = true;
    env->dirty = !rs_given_put_on(L, GIVEN)
              || (r->in.flags & RS_MESSAGE_CODE) != 0;
  }
}

/* [-0, +arity, e]  Push the values of the next item. */
static void
push_item (lua_State *L, run *r)
{
  const rs_chunk *const chunk = r->chunk;
  const size_t item = r->item++;
  if (r->call->arguments == NULL) {  /* a range? */
    lua_pushinteger(L, chunk->first + (lua_Integer) item * chunk->step);
    return;
  }
  r->again = rs_decoder_tell(&r->in);
  r->decoding = true;
  if (r->in.flags & RS_MESSAGE_CODE)
    rs_env_collect(keeps_globals(r));
  for (unsigned i = 0; i < chunk->arity; i++)
    rs_decode_value(&r->in, L);
  r->decoding = false;
  if (r->in.flags & RS_MESSAGE_CODE)
    end_giving(L, r);
  if (r->in.metatables)
    rs_cancel_set_finalizes(r->state->cancel);
}

/* Publish where the items behind this one begin, for the thread that finds the
   call lost. */
static void
publish (run *r)
{
  const rs_decoder *const d = &r->in;
  const size_t values[] = { r->item, d->at, d->next_id, d->run, d->left };
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    atomic_store_explicit(&r->chunk->begun[i], values[i],
                          memory_order_relaxed);
}

/* The item that begins is bounded in time. */
static void
begin_watch (run *r, double cpu_time)
{
  if (r->call->timeout > 0)
    publish(r);
  if (cpu_time > 0)
    rs_cpu_limit(cpu_time);
}

/* (function, objects, given, extra arguments..., run)  Loop over the items. */
static int
chunk_body (lua_State *L)
{
  const int top = lua_gettop(L) - 1;
  run *const r = lua_touserdata(L, top + 1);
  const rs_call *const call = r->call;
  const bool records = (call->flags & RS_BATCH_RECORDS) != 0;
  const double cpu_time = r->state->options->cpu_time;
  const bool watched = call->timeout > 0 || cpu_time > 0;
  const bool seeded = rs_call_is_seeded(call);
  const int extras = top - GIVEN;
  const int arity = (int) r->chunk->arity;
  rs_level_room(L, arity + extras + 4, "too many arguments");
  lua_settop(L, top);
  while (goes_on(r)) {
    r->index = r->chunk->index + (lua_Integer) r->item;
    open_record(r);
    dress(L, r);
    lua_pushvalue(L, FUNCTION);
    push_item(L, r);
    for (int i = 0; i < extras; i++)
      lua_pushvalue(L, EXTRAS + i);
    if (seeded)
      rs_seed_begin(L, rs_seed_of_item(rs_call_seed(call), r->index));
    if (watched)
      begin_watch(r, cpu_time);
    rs_token_begin(r->state->cancel, &r->token, call->timeout);
    lua_call(L, arity + extras, records ? LUA_MULTRET : 1);
    const int n = records ? lua_gettop(L) - top : 1;
    encode_record(L, r, top + 1, n);
    r->ended = end_task(L, r);
    take_off_given(L, r);
    if (r->ended != RS_REASON_NONE)
      return luaL_error(L, "%s", rs_reason_text(r->ended));
    rs_state_end_lines(r->state);
    close_good_record(r, n);
    r->attempt = r->chunk->losses + 1;
    rs_encoder_forget(r->out);
    lua_settop(L, top);
  }
  return 0;
}

/* [-0, +0, -]  The places of the remaining items cannot be found: let each of
   them fail with the error on top of the stack. */
static void
fail_rest (lua_State *L, run *r)
{
  while (r->item < r->chunk->count && has_room(r)) {
    r->item++;
    r->index++;
    open_record(r);
    lua_pushvalue(L, -1);
    settle(L, r, RS_REASON_NONE);
    close_record(r, RS_JOB_FAILED, RS_REASON_NONE, ERROR_VALUES);
  }
}

/* Go to the item behind one whose values could not be decoded.  False when its
   place cannot be found. */
static bool
pass_item (run *r)
{
  bool good = true;
  rs_decoder_seek(&r->in, &r->again);
  for (unsigned i = 0; good && i < r->chunk->arity; i++)
    good = rs_decoder_skip(&r->in);
  return good;
}

void
rs_chunk_fail (rs_chunk *chunk)
{
  /* The thread that counts the last failure stops the other chunks; nothing
     else is published. */
  const size_t left = atomic_load_explicit(chunk->allowed,
                                           memory_order_relaxed);
  if (left == 0 || atomic_fetch_sub_explicit(chunk->allowed, 1,
                                             memory_order_relaxed) == 1)
    atomic_store_explicit(chunk->failed, true, memory_order_relaxed);
}

/* Count the failure of an item.  An item that was stopped together with its
   call has not failed. */
static void
count_failure (rs_chunk *chunk, rs_reason reason)
{
  if (chunk->allowed != NULL && reason != RS_REASON_DEADLINE
      && rs_reason_state(reason) != RS_JOB_CANCELLED)
    rs_chunk_fail(chunk);
}

/* [-1, +0, -]  An item has raised the error on top: write its record, or
   return to its beginning if it is to be tried again. */
static void
end_item (lua_State *L, run *r)
{
  const rs_reason reason = r->ended != RS_REASON_NONE ? r->ended
                                                      : end_task(L, r);
  const bool unmade = r->decoding;
  take_off_given(L, r);
  r->ended = RS_REASON_NONE;
  r->decoding = false;
  rs_state_end_lines(r->state);
  if (!unmade && tries_again(r, reason)) {
    rewind_record(r);
    r->reported = false;
    r->item--;
    if (r->call->arguments != NULL)
      rs_decoder_seek(&r->in, &r->again);
    r->attempt++;
    r->waits = (r->call->flags & RS_CALL_PACED) != 0;
    lua_pop(L, 1);
    return;
  }
  lua_pushvalue(L, -1);
  settle(L, r, reason);
  close_record(r, bad_state(reason), reason, ERROR_VALUES);
  r->attempt = r->chunk->losses + 1;
  count_failure(r->chunk, reason);
  if (unmade && !pass_item(r))
    fail_rest(L, r);
  lua_pop(L, 1);
}

/*
 * [-(0|1), +0, -]  An error was raised before the next item was taken.  False,
 * and the error is popped, when the call is stopped: the item has not begun.
 * Otherwise take the item as one whose values could not be decoded, so that
 * 'end_item' can end it.
 */
static bool
skip_item (lua_State *L, run *r)
{
  if (r->open)
    rewind_record(r);
  r->reported = false;
  if (rs_token_stopped(&r->token)) {
    lua_pop(L, 1);
    return false;
  }
  r->index = r->chunk->index + (lua_Integer) r->item++;
  r->again = rs_decoder_tell(&r->in);
  r->decoding = r->call->arguments != NULL;
  open_record(r);
  return true;
}

/* [-0, +0, -]  Run the items.  The message handler is at 'handler'; the values
   of 'chunk_prepare' are above it. */
static void
run_items (lua_State *L, run *r, int handler)
{
  rs_call *const call = r->call;
  const int n = lua_gettop(L) - handler;  /* function, objects, extras */
  const double began = rs_now();
  const double budget = r->chunk->budget;
  r->watched = budget > 0 ? rs_now_coarse() : 0;
  r->late = budget > 0 ? r->watched + budget : RS_NEVER;
  r->unwatched = 0;
  r->stride = 1;
  r->out->packs = !(call->flags & RS_BATCH_RECORDS)
              && r->chunk->count >= RS_WIRE_RUN_FROM;
  while (goes_on(r) && !r->waits) {
    const size_t items = r->item;
    r->open = false;
    lua_pushcfunction(L, chunk_body);
    for (int i = 1; i <= n; i++)
      lua_pushvalue(L, handler + i);
    lua_pushlightuserdata(L, r);
    if (lua_pcall(L, n + 1, 0, handler) == LUA_OK)
      break;
    if (r->item == items && !skip_item(L, r))
      continue;
    end_item(L, r);
  }
  if (r->dressed) {
    r->state->environment.dirty = true;
    if (keeps_globals(r))
      rs_given_take_off(L, handler + GIVEN);
  }
  r->chunk->took = rs_now() - began;
  close_good(r);
  r->chunk->rest = (rs_place) { r->item, rs_decoder_tell(&r->in) };
  call->attempt = r->attempt;
  /* The chunk fails when there was no room for the record of an item. */
  call->state = r->item == 0 && !stopped(r) && !r->waits ? RS_JOB_FAILED
                                                         : RS_JOB_COMPLETED;
  if (call->state == RS_JOB_FAILED)
    r->out->buf.failed = true;
}

static void
run_chunk (lua_State *L, run *r)
{
  rs_call *const call = r->call;
  lua_pushcfunction(L, on_error);
  const int handler = lua_gettop(L);
  lua_pushcfunction(L, chunk_prepare);
  lua_pushlightuserdata(L, r);
  int status = lua_pcall(L, 1, LUA_MULTRET, handler);
  if (status == LUA_OK
      && !lua_checkstack(L, lua_gettop(L) - handler + LUA_MINSTACK)) {
    lua_pushliteral(L, "not enough memory");
    status = LUA_ERRMEM;
  }
  if (status == LUA_OK)
    run_items(L, r, handler);
  else {
    call->reason = end_task(L, r);
    settle(L, r, call->reason);
    call->state = bad_state(call->reason);
  }
}

/* --------------------------------------------------------------------- run */

/* Run the call, inside its token. */
static void
run_call (rs_state *s, lua_State *L, run *r)
{
  rs_call *const call = r->call;
  /* A call that waits for this one, or the code of an initial state, gets its
     own environment back afterwards. */
  const bool nested = r->outer != NULL || s->seeding;
  const bool dirty = s->environment.dirty;
  if (nested) {
    rs_env_push(L);
    s->environment.dirty = true;
  }
  const int base = lua_gettop(L);
  rs_encoder_start(r->out);
  if (r->chunk == NULL)
    run_plain(L, r);
  else
    run_chunk(L, r);
  rs_state_end_lines(s);
  s->forced |= !rs_environment_check(L, &s->environment);
  if (call->arguments == (const void *) call->room)
    call->arguments = NULL;  /* the result may take the room */
  call->result = r->small != NULL ? r->small
               : rs_encoder_message_at(r->out, call->room, rs_call_room(call));
  lua_settop(L, base);
  if (r->common.ref > 0) {
    rs_common_release(L, &r->common);
    r->out->common = r->common;
  }
  s->run = r->outer;
  s->on_line = s->run != NULL ? on_line : NULL;
  if (nested) {
    rs_environment_set(L, &s->environment);
    s->environment.dirty = dirty;
  }
}

/*
 * Run 'call'; the result is encoded in 'out', which is clear before and after.
 * A call with a seed leaves no trace in 'math.random' of the runspace, and a
 * call that runs inside of one none in that of the outer call.
 */
static void
enter (rs_state *s, lua_State *L, rs_call *call, const rs_call_sink *sink,
       rs_encoder *out)
{
  /* Large: the fields that only chunks use are set in 'run_items' and
     'chunk_prepare'. */
  run r;
  r.outer = s->run;
  r.state = s;
  r.call = call;
  r.sink = sink;
  r.chunk = call->chunk;
  r.index = 0;
  r.attempt = call->attempt;
  r.out = out;
  r.small = NULL;
  r.item = 0;
  r.good = 0;
  r.guards = rs_cancel_guards(s->cancel);
  r.common = (rs_common) { .loads = true };
  r.decoding = r.open = r.reported = r.errors = r.quiet = false;
  r.gives = r.dressed = r.waits = false;
  r.worn = 0;
  r.told = r.ended = RS_REASON_NONE;
  rs_message_unref(call->result);  /* of an earlier attempt */
  call->result = NULL;
  call->state = RS_JOB_FAILED;
  call->reason = RS_REASON_NONE;
  const int top = lua_gettop(L);
  rs_random random;
  const bool keeps_random = rs_call_is_seeded(call)
    || (r.outer != NULL && rs_call_is_seeded(r.outer->call));
  if (keeps_random)
    rs_random_save(L, &random);
  if (lua_checkstack(L, LUA_MINSTACK)) {
    if (r.outer != NULL)
      rs_state_end_lines(s);
    s->run = &r;
    s->on_line = on_line;
    s->depth++;
    rs_token_enter(s->cancel, &r.token, L, call, &call->wish);
    run_call(s, L, &r);
    const rs_reason reason = rs_token_leave(s->cancel, &r.token, L);
    s->depth--;
    if (call->chunk != NULL && reason != RS_REASON_NONE) {
      call->reason = reason;
      call->state = rs_reason_state(reason);
    }
  }
  if (call->result == NULL && rs_job_state_good(call->state))
    call->state = RS_JOB_FAILED;
  if (call->chunk != NULL && call->state == RS_JOB_FAILED) {
    memset(call->chunk->ended, 0, sizeof call->chunk->ended);
    call->chunk->ended[RS_JOB_FAILED] = call->chunk->count;
  }
  lua_settop(L, top);
  if (keeps_random)
    rs_random_restore(L, &random);
  rs_encoder_clear(out);
}

void
rs_call_run (rs_state *s, lua_State *L, rs_call *call,
             const rs_call_sink *sink)
{
  if (L == NULL)
    L = s->L;
  if (s->run == NULL)
    enter(s, L, call, sink, &s->spare);
  else {
    rs_encoder out;
    rs_encoder_init(&out, s->spare.forbidden);
    enter(s, L, call, sink, &out);
    rs_encoder_fini(&out);
  }
}

rs_call *
rs_call_current (const rs_state *s)
{
  return s->run != NULL ? s->run->call : NULL;
}

bool
rs_task_get_sized (lua_State *L, rs_task *out, size_t size)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  if (s == NULL || s->run == NULL || out == NULL)
    return false;
  rs_call *const call = s->run->call;
  rs_task task;
  memset(&task, 0, sizeof task);
  task.id = call->id;
  task.name = s->run->sink->name(call);
  task.index = s->run->index;
  task.worker = s->worker;
  task.attempt = s->run->attempt;
  task.stopping = stopped(s->run);
  rs_give_sized(out, size, &task, sizeof task);
  return true;
}

bool
rs_task_stops (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  return s != NULL && rs_cancel_pending(s->cancel);
}

void
rs_task_checkpoint (lua_State *L)
{
  const rs_state *const s = L != NULL ? rs_state_of(L) : NULL;
  if (s != NULL)
    rs_cancel_check(s->cancel, L);
}
