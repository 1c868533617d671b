/* SPDX-License-Identifier: MIT */
/*
 * lbatch.c - batches as the Lua part sees them.
 *
 * The Lua part feeds items, and takes values or records; each call moves a
 * chunk.  All code here runs on the thread of the state that opened the batch.
 */
#include "face/lbatch.h"

#include <lauxlib.h>

#include "base/finalize.h"
#include "base/level.h"
#include "face/levent.h"
#include "face/lface.h"
#include "face/lhandle.h"
#include "face/loptions.h"
#include "face/lstream.h"
#include "pool/face.h"

/* Seconds after which a slow iterator's items are sent, however few. */
#define PATIENCE 1e-3

/* User values of a handle: a boolean, whether handlers listen to the batch;
   the keeper. */
enum { HANDLERS = 1, KEEPER };

/*
 * The keeper owns the batch.  It is a user value of the handle, where no
 * script reaches it.
 *
 * A method that may run code of a script (an iterator, '__index',
 * '__transfer', a function that rebuilds a result, a finalizer) makes the
 * keeper busy.  If that code calls 'close', the batch is only stopped.  The
 * batch itself, which the method has in a variable, is freed when the keeper
 * is collected: not before the method has returned, since the method has the
 * handle on its stack.  An error that leaves the method leaves the keeper
 * busy, so that 'close' frees nothing and the collector does.
 */
typedef struct keeper {
  const void *proof;       /* 'keeper_type': no other userdata has it here */
  rs_batch *batch;         /* owned; NULL: closed, or not open yet */
  unsigned busy;           /* methods that run, or have raised */
  bool closed;             /* 'close' was called */
  bool reading;            /* stream records of an item are made */
} keeper;

/* Why nothing can be taken now; 'parallel.each' says the same. */
static const char nested[] = "this loop is busy: it is called from inside of "
                             "itself, by code that runs while it takes a "
                             "record";

static const char keeper_type[] = "parallel.batch.keeper";

static int
keeper_gc (lua_State *L)
{
  keeper *const k = rs_finalized(L, keeper_gc);
  if (k == NULL)
    return 0;
  rs_batch *const batch = k->batch;
  k->batch = NULL;
  if (batch != NULL && !k->closed)  /* was the job forced to end? */
    rs_batch_cancel(batch, -1);
  rs_batch_close(batch, L);
  return 0;
}

/* [-0, +1, m]  Push a keeper without a batch. */
static keeper *
push_keeper (lua_State *L)
{
  keeper *const k = lua_newuserdatauv(L, sizeof *k, 0);
  *k = (keeper) { .proof = keeper_type };
  rs_push_kept_table(L, keeper_type);
  lua_setmetatable(L, -2);
  return k;
}

static rs_batch *
check (lua_State *L)
{
  return rs_handle_check(L, 1, RS_BATCH_TYPE);
}

/* [-0, +0, v]  Return the keeper of the handle at 1, which is a batch's. */
static keeper *
keeper_of (lua_State *L)
{
  const int type = lua_getiuservalue(L, 1, KEEPER);
  keeper *const k = lua_touserdata(L, -1);
  if (type != LUA_TUSERDATA || lua_rawlen(L, -1) != sizeof *k
      || k->proof != keeper_type)
    rs_raise_replaced(L);
  lua_pop(L, 1);
  return k;
}

/* [-0, +0, v]  Begin a method that may run code of a script: make the keeper
   busy.  Return the batch. */
static rs_batch *
enter (lua_State *L, keeper **k)
{
  rs_batch *const batch = check(L);
  *k = keeper_of(L);
  (*k)->busy++;
  return batch;
}

/* [-0, +0, -]  Tell whether the script closed the batch at 1 while a method
   of it runs. */
static bool
is_closed (lua_State *L)
{
  return *rs_handle_test(L, 1, RS_BATCH_TYPE) == NULL;
}

/* [-0, +0, -]  End a method that 'enter' began.  Return false if the script
   closed the batch meanwhile. */
static bool
leave (lua_State *L, keeper *k)
{
  k->busy--;
  return !is_closed(L);
}

static void
check_status (lua_State *L, int status, const rs_error *err)
{
  if (status != RS_OK)
    rs_handle_raise(L, err);
}

/* ----------------------------------------------------------------- opening */

/* Return the number of items from 'from' to 'last', both included. */
static size_t
count_items (lua_Integer from, lua_Integer last)
{
  return rs_clip_size((lua_Unsigned) last - (lua_Unsigned) from + 1);
}

/* [-0, +0, e]  Return 'flag' if the field 'name' of the options at 3 is true,
   and else 0. */
static unsigned
flag_field (lua_State *L, const char *name, unsigned flag)
{
  lua_getfield(L, 3, name);
  const bool set = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return set ? flag : 0;
}

/* [-1, +0, e]  Call 'function' of 'parallel.event' with the id of the batch
   and the value on top: a table of handlers, or nil when the batch is over.
   The user value HANDLERS of the handle at 'handle' becomes true or false. */
static void
call_event (lua_State *L, const char *function, rs_batch *batch, int handle)
{
  const int value = lua_gettop(L);
  lua_pushboolean(L, lua_toboolean(L, value));
  lua_setiuservalue(L, handle, HANDLERS);
  rs_lua_require(L, "parallel.event");
  lua_getfield(L, -1, function);
  lua_pushinteger(L, (lua_Integer) rs_batch_id(batch));
  lua_pushvalue(L, value);
  lua_call(L, 2, 0);
  lua_settop(L, value - 1);
}

int
rs_lua_batch (lua_State *L)
{
  enum { POOL = 1, FUNCTION, OPTIONS, HANDLE, GLOBALS, CALLED = GLOBALS + 2 };
  rs_pool *const pool = rs_handle_check(L, POOL, RS_POOL_TYPE);
  rs_error err;
  luaL_checktype(L, OPTIONS, LUA_TTABLE);
  const int nargs = lua_gettop(L) - OPTIONS;
  rs_batch_options o = {
    .flags = flag_field(L, "records", RS_BATCH_RECORDS)
           | flag_field(L, "continue", RS_BATCH_CONTINUE)
           | flag_field(L, "eager", RS_BATCH_EAGER)
           | flag_field(L, "cancel", RS_BATCH_CANCEL),
  };
  rs_read_options(L, OPTIONS, rs_batch_limits, &o);
  rs_read_options(L, OPTIONS, rs_batch_numbers, &o);
  lua_Integer seed;
  o.seed = rs_read_seed(L, OPTIONS, &seed);
  rs_face *const face = rs_lua_face(L);
  o.events = rs_lua_events_of(L, face);
  if (face->warns)
    rs_warn_lost(L, FUNCTION, true);
  lua_getfield(L, OPTIONS, "streams");
  o.listen = rs_check_streams(L, lua_gettop(L));
  lua_pop(L, 1);
  lua_getfield(L, OPTIONS, "name");
  o.name = lua_tostring(L, -1);
  lua_replace(L, POOL);  /* anchors the name; the caller has the pool */
  o.globals = rs_read_globals(L, OPTIONS);
  lua_rotate(L, GLOBALS - 1, 2);  /* anchored until the batch is open */
  keeper *const k = push_keeper(L);  /* made first, finalized last */
  void **const handle = rs_handle_new(L, RS_BATCH_TYPE, KEEPER);
  lua_insert(L, -2);
  lua_setiuservalue(L, -2, KEEPER);
  lua_insert(L, HANDLE);
  lua_pushvalue(L, FUNCTION);
  lua_insert(L, CALLED);
  if (rs_batch_open(pool, L, nargs, &o, &k->batch, &err) != RS_OK)
    return rs_raise_named(L, OPTIONS, &err);
  *handle = k->batch;
  if (lua_getfield(L, OPTIONS, "streams") == LUA_TTABLE)
    call_event(L, "add_streams", k->batch, HANDLE);
  lua_settop(L, HANDLE);
  return 1;
}

/* ----------------------------------------------------------------- feeding */

/* batch:feed_array(items, from, last) -> next index */
static int
feed_array (lua_State *L)
{
  const lua_Integer from = luaL_checkinteger(L, 3);
  const lua_Integer last = luaL_checkinteger(L, 4);
  rs_error err;
  size_t added = 0;
  luaL_checkany(L, 2);
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  const int status = from > last ? RS_OK
    : rs_batch_add_array(batch, L, 2, from, count_items(from, last), &added,
                         &err);
  if (leave(L, k))
    check_status(L, status, &err);
  lua_pushinteger(L, from + (lua_Integer) added);
  return 1;
}

/* [-0, +0, v]  Raise 'text', "item 3: ...", or the text that the function at
   'tell', if there is one, returns for it. */
static int
refuse_item (lua_State *L, const char *text, int tell)
{
  if (lua_isnoneornil(L, tell))
    return rs_handle_error(L, "%s", text);
  lua_pushvalue(L, tell);
  lua_pushstring(L, text);
  lua_call(L, 1, 1);
  return rs_handle_error(L, "%s", lua_tostring(L, -1));
}

/*
 * batch:feed_packed(items, from, last, [tell]) -> next index
 *
 * Each item is a table of values, which become the arguments of the call; its
 * field 'n', or else its length, is their number.
 */
static int
feed_packed (lua_State *L)
{
  enum { BATCH = 1, ITEMS, FROM, LAST, TELL, ITEM };
  lua_Integer i = luaL_checkinteger(L, FROM);
  const lua_Integer last = luaL_checkinteger(L, LAST);
  rs_error err;
  lua_settop(L, TELL);
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  for (; i <= last && rs_batch_room(batch) > 0; i++) {
    lua_geti(L, ITEMS, i);
    luaL_checktype(L, ITEM, LUA_TTABLE);
    lua_getfield(L, ITEM, "n");
    const lua_Integer n = luaL_optinteger(L, -1, luaL_len(L, ITEM));
    lua_pop(L, 1);
    if (n < 0 || n > 200)
      return refuse_item(L, lua_pushfstring(L, "item %I: 0 to 200 arguments "
                                               "expected, got %I",
                                            (LUAI_UACINT) i, (LUAI_UACINT) n),
                         TELL);
    rs_level_room(L, (int) n, "too many arguments");
    for (lua_Integer value = 1; value <= n; value++)
      lua_geti(L, ITEM, value);
    const int status = rs_batch_add(batch, L, (int) n, &err);
    if (is_closed(L))
      break;
    if (status != RS_OK) {
      leave(L, k);
      return refuse_item(L, err.text, TELL);
    }
    lua_settop(L, TELL);
    if (rs_batch_room(batch) == 0)
      check_status(L, rs_batch_flush(batch, &err), &err);
  }
  if (leave(L, k))
    check_status(L, rs_batch_flush(batch, &err), &err);
  lua_pushinteger(L, i);
  return 1;
}

/* batch:feed_range(first, step, from, last) -> next index */
static int
feed_range (lua_State *L)
{
  rs_batch *const batch = check(L);
  const lua_Integer first = luaL_checkinteger(L, 2);
  const lua_Integer step = luaL_checkinteger(L, 3);
  lua_Integer i = luaL_checkinteger(L, 4);
  const lua_Integer last = luaL_checkinteger(L, 5);
  rs_error err;
  size_t room;
  while (i <= last && (room = rs_batch_room(batch)) > 0) {
    const size_t left = count_items(i, last);
    const size_t count = room < left ? room : left;
    check_status(L, rs_batch_add_range(batch, first + (i - 1) * step, step,
                                       count, &err), &err);
    check_status(L, rs_batch_flush(batch, &err), &err);
    i += (lua_Integer) count;
  }
  lua_pushinteger(L, i);
  return 1;
}

/*
 * batch:feed_iterator(f, s, control, inputs, added, [tell])
 *   -> true, control, added | false, nil, added
 *
 * Add one chunk at most, and a smaller one when the iterator is slow.  'added'
 * counts the items of all calls; 'inputs', if it is a table, gets each item by
 * its index.
 */
static int
feed_iterator (lua_State *L)
{
  enum { BATCH = 1, ITERATOR, STATE, CONTROL, INPUTS, ADDED, TELL };
  lua_Integer added = luaL_checkinteger(L, ADDED);
  rs_error err;
  bool more = true;
  lua_settop(L, TELL);
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  const double start = rs_now();
  while (more && rs_batch_room(batch) > 0) {
    lua_pushvalue(L, ITERATOR);
    lua_pushvalue(L, STATE);
    lua_pushvalue(L, CONTROL);
    lua_call(L, 2, LUA_MULTRET);
    const int n = lua_gettop(L) - TELL;
    more = n > 0 && !lua_isnil(L, TELL + 1) && !is_closed(L);
    if (!more)
      break;
    lua_pushvalue(L, TELL + 1);
    lua_replace(L, CONTROL);
    if (lua_istable(L, INPUTS)) {
      lua_pushvalue(L, TELL + 1);
      lua_rawseti(L, INPUTS, added + 1);
    }
    const int status = rs_batch_add(batch, L, n, &err);
    if (is_closed(L)) {
      more = false;
      break;
    }
    if (status != RS_OK) {
      leave(L, k);
      return refuse_item(L, err.text, TELL);
    }
    added++;
    if (rs_now() - start > PATIENCE)
      break;
  }
  lua_settop(L, TELL);
  if (leave(L, k))
    check_status(L, rs_batch_flush(batch, &err), &err);
  lua_pushboolean(L, more);
  if (more)
    lua_pushvalue(L, CONTROL);
  else
    lua_pushnil(L);
  lua_pushinteger(L, added);
  return 3;
}

/* batch:pass()  Leave out the next index. */
static int
pass (lua_State *L)
{
  rs_error err;
  check_status(L, rs_batch_pass(check(L), &err), &err);
  return 0;
}

/* batch:set_key(key) -> boolean  The key of the items that are added from now
   on: a string, a number, a boolean, or nil: none.  False: the batch was
   closed, by the code that made the key. */
static int
set_key (lua_State *L)
{
  const rs_handle *const handle = (rs_handle *) rs_handle_test(L, 1,
                                                               RS_BATCH_TYPE);
  if (handle != NULL && handle->object == NULL) {
    lua_pushboolean(L, 0);
    return 1;
  }
  rs_batch *const batch = check(L);
  rs_error err;
  size_t size = 0;
  lua_settop(L, 2);
  const char *key = NULL;
  if (!lua_isnil(L, 2)) {  /* 1 and "1" are two keys */
    lua_pushstring(L, luaL_typename(L, 2));
    luaL_tolstring(L, 2, NULL);
    lua_concat(L, 2);
    key = lua_tolstring(L, -1, &size);
  }
  check_status(L, rs_batch_key(batch, key, size, &err), &err);
  lua_pushboolean(L, 1);
  return 1;
}

/* batch:finish() */
static int
finish (lua_State *L)
{
  rs_error err;
  rs_batch *const batch = check(L);
  check_status(L, rs_batch_finish(batch, &err), &err);
  return 0;
}

/* batch:room() -> items */
static int
room (lua_State *L)
{
  lua_pushinteger(L, (lua_Integer) rs_batch_room(check(L)));
  return 1;
}

/* ------------------------------------------------------------------ taking */

/* [-0, +0, v]  'rs_batch_wait', in which jobs may run on this thread.  Return
   its status, or RS_EDONE if the batch was closed before or meanwhile. */
static int
wait_once (lua_State *L, double timeout)
{
  if (is_closed(L))  /* did a handler close the batch? */
    return RS_EDONE;
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  const int status = rs_batch_wait(batch, L, timeout);
  return leave(L, k) ? status : RS_EDONE;
}

/* [-0, +0, -]  True when items are wanted: the pool has got wider. */
static bool
has_room (lua_State *L)
{
  if (is_closed(L))
    return false;
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  const bool room = rs_batch_room(batch) > 0;
  return leave(L, k) && room;
}

/* batch:wait([timeout]) -> "ready" | "timeout" | "done" | "idle" */
static int
wait (lua_State *L)
{
  const double timeout = rs_handle_timeout(L, 2, "wait");
  const double deadline = rs_now() + timeout;
  double left = timeout;
  int status;
  rs_events *const e = rs_lua_events(L);
  check(L);
  rs_lua_dispatch(L, e);
  while ((status = wait_once(L, left)) == RS_EEVENT
         || status == RS_ESTOPPED) {
    if (status == RS_ESTOPPED)  /* the job that waits, and the items with it */
      rs_task_checkpoint(L);
    rs_lua_run_hook(L);
    rs_lua_dispatch(L, e);
    if (timeout != RS_FOREVER)
      left = deadline - rs_now() > 0 ? deadline - rs_now() : 0;
    if (status == RS_EEVENT && has_room(L)) {
      status = RS_ETIMEOUT;
      break;
    }
  }
  if (status == RS_OK)
    rs_lua_dispatch(L, e);  /* records of the items come before their end */
  switch (status) {
    case RS_OK:
      lua_pushliteral(L, "ready");
      break;
    case RS_ETIMEOUT:
      lua_pushliteral(L, "timeout");
      break;
    case RS_EDONE:
      lua_pushliteral(L, "done");
      break;
    default:
      lua_pushliteral(L, "idle");
  }
  return 1;
}

/*
 * batch:take_values(results, [inputs])
 *   -> nothing at the end of the chunk
 *      | index, state, error, traceback, reason
 *
 * The value of an item goes to results[index], and inputs[index] becomes nil.
 * The call returns early, with five results, for an item that did not
 * complete.
 */
static int
take_values (lua_State *L)
{
  enum { BATCH = 1, RESULTS, INPUTS };
  rs_record rec;
  luaL_checktype(L, RESULTS, LUA_TTABLE);
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  lua_settop(L, INPUTS);
  const bool forget = lua_istable(L, INPUTS);
  while (rs_batch_next(batch, L, &rec) == RS_OK) {
    if (rec.state != RS_JOB_COMPLETED
        && rec.state != RS_JOB_COMPLETED_WITH_ERRORS) {
      lua_settop(L, INPUTS + 2);  /* error, traceback, or nil */
      lua_pushinteger(L, rec.index);
      lua_pushstring(L, rs_job_state_name(rec.state));
      lua_rotate(L, INPUTS + 1, 2);
      lua_pushstring(L, rec.reason);
      leave(L, k);
      return 5;
    }
    lua_rawseti(L, RESULTS, rec.index);
    if (!forget) {
      rs_batch_take(batch, L, RESULTS);
      continue;
    }
    lua_pushnil(L);
    lua_rawseti(L, INPUTS, rec.index);
    if (is_closed(L))
      break;
  }
  leave(L, k);
  return 0;
}

/*
 * batch:take_value()
 *   -> nothing at the end of the chunk
 *      | index, state, value or error, traceback, reason
 */
static int
take_value (lua_State *L)
{
  enum { BATCH = 1, VALUE, TRACEBACK };
  rs_record rec;
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  lua_settop(L, BATCH);
  const int status = rs_batch_next(batch, L, &rec);
  leave(L, k);
  if (status != RS_OK)
    return 0;
  lua_settop(L, TRACEBACK);
  lua_pushinteger(L, rec.index);
  lua_pushstring(L, rs_job_state_name(rec.state));
  lua_rotate(L, VALUE, 2);
  lua_pushstring(L, rec.reason);
  return 5;
}

/* The arguments of 'make_streams'. */
typedef struct sent {
  rs_batch *batch;
  rs_stream_record *first;  /* a reference, until it is pushed */
  bool errors;              /* the record gets the field 'error', too */
} sent;

/* (sent, record)  Give the record its fields 'streams' and 'error'. */
static int
make_streams (lua_State *L)
{
  enum { SENT = 1, RECORD };
  sent *const s = lua_touserdata(L, SENT);
  rs_stream_record *record = s->first;
  s->first = NULL;
  rs_push_record(L, record);  /* first, since it takes the reference */
  lua_newtable(L);
  lua_insert(L, -2);
  rs_add_to_streams(L);
  while ((record = rs_batch_record(s->batch)) != NULL) {
    rs_push_record(L, record);
    rs_add_to_streams(L);
  }
  if (s->errors) {
    if (lua_getfield(L, -1, "error") == LUA_TTABLE) {
      lua_rawgeti(L, -1, 1);
      lua_getfield(L, -1, "value");
      lua_setfield(L, RECORD, "error");
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  lua_setfield(L, RECORD, "streams");
  return 0;
}

/*
 * [-0, +0, e]  Let the record at 'index' have the field 'streams', if the item
 * that was taken last sent stream records; with 'errors' also the field
 * 'error', the first value that the item sent to its stream of errors.  Code
 * of the script that rebuilds these values must not take another item.
 */
static void
add_streams (lua_State *L, keeper *k, rs_batch *batch, int index, bool errors)
{
  sent s = { batch, rs_batch_record(batch), errors };
  if (s.first == NULL)
    return;
  int status = LUA_ERRMEM;
  if (lua_checkstack(L, 3)) {
    lua_pushcfunction(L, make_streams);
    lua_pushlightuserdata(L, &s);
    lua_pushvalue(L, index);
    k->reading = true;
    status = lua_pcall(L, 2, 0, 0);
    k->reading = false;
  }
  else
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
  rs_stream_record_unref(s.first);
  if (status != LUA_OK)
    lua_error(L);
}

/* batch:id() -> number */
static int
id (lua_State *L)
{
  lua_pushinteger(L, (lua_Integer) rs_batch_id(check(L)));
  return 1;
}

/* batch:take_record() -> record | nothing at the end of the chunk */
static int
take_record (lua_State *L)
{
  enum { BATCH = 1, RECORD, VALUES };
  rs_record rec;
  keeper *k;
  rs_batch *const batch = enter(L, &k);
  lua_settop(L, BATCH);
  lua_createtable(L, 0, 12);
  const int status = k->reading ? RS_EBUSY : rs_batch_next(batch, L, &rec);
  if (status != RS_OK) {
    leave(L, k);
    return status == RS_EBUSY ? rs_handle_error(L, "%s", nested) : 0;
  }
  const bool errors = rec.state == RS_JOB_COMPLETED_WITH_ERRORS;
  add_streams(L, k, batch, RECORD, errors);
  if (rec.state == RS_JOB_COMPLETED || errors) {
    lua_createtable(L, rec.n, 1);
    lua_insert(L, VALUES);
    if (rec.n > 0) {
      lua_pushvalue(L, VALUES + 1);
      lua_setfield(L, RECORD, "result");
    }
    for (int i = rec.n; i > 0; i--)
      lua_rawseti(L, VALUES, i);
  }
  else {
    if (rec.n == 2) {
      lua_setfield(L, RECORD, "traceback");
      lua_setfield(L, RECORD, "error");
    }
    lua_createtable(L, 0, 1);
    rec.n = 0;
  }
  lua_pushinteger(L, rec.n);
  lua_setfield(L, VALUES, "n");
  lua_setfield(L, RECORD, "results");
  lua_pushinteger(L, rec.index);
  lua_setfield(L, RECORD, "index");
  lua_pushstring(L, rs_job_state_name(rec.state));
  lua_setfield(L, RECORD, "state");
  lua_pushstring(L, rec.reason);
  lua_setfield(L, RECORD, "reason");
  lua_pushinteger(L, (lua_Integer) rec.attempts);
  lua_setfield(L, RECORD, "attempts");
  lua_pushnumber(L, rec.queued);
  lua_setfield(L, RECORD, "queued");
  lua_pushnumber(L, rec.duration);
  lua_setfield(L, RECORD, "duration");
  lua_pushinteger(L, (lua_Integer) rec.worker);
  lua_setfield(L, RECORD, "worker");
  if (rec.host != NULL) {
    lua_pushstring(L, rec.host);
    lua_setfield(L, RECORD, "host");
  }
  lua_settop(L, RECORD);
  leave(L, k);
  return 1;
}

/* ------------------------------------------------------------------ ending */

/* batch:stop() */
static int
stop (lua_State *L)
{
  rs_batch_stop(check(L));
  return 0;
}

/* batch:cancel() */
static int
cancel (lua_State *L)
{
  rs_batch_cancel(check(L), -1);
  return 0;
}

/* batch:info() -> table of counts, with the 'reason' for which the batch was
   stopped */
static int
info (lua_State *L)
{
  rs_batch_info i;
  rs_batch_info_get(check(L), &i);
  const struct { const char *name; size_t value; } counts[] = {
    { "added", i.added },
    { "started", i.started },
    { "finished", i.finished },
    { "failed", i.failed },
    { "chunks", i.chunks },
    { "chunk", i.chunk },
  };
  lua_createtable(L, 0, 7);
  for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
    lua_pushinteger(L, (lua_Integer) counts[k].value);
    lua_setfield(L, -2, counts[k].name);
  }
  lua_pushstring(L, i.reason);
  lua_setfield(L, -2, "reason");
  return 1;
}

/* [-0, +0, e]  Let the Lua part drop the handlers of the batch. */
static void
forget (lua_State *L, rs_batch *batch)
{
  lua_getiuservalue(L, 1, HANDLERS);
  if (lua_toboolean(L, -1)) {
    lua_pushnil(L);
    call_event(L, "forget", batch, 1);
  }
}

/* __gc of a handle.  The keeper, which is finalized after it, closes the
   batch. */
static int
gc (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, RS_BATCH_TYPE);
  if (handle == NULL || *handle == NULL)
    return 0;
  rs_batch *const batch = *handle;
  *handle = NULL;
  forget(L, batch);
  return 0;
}

/*
 * batch:close(), __close.  An error that ends the scope of a batch which is
 * not stopped yet is no failure of an item; it is an interrupt, for instance.
 * Then the items that still run are cancelled, since nobody takes their
 * results.
 */
static int
close (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, RS_BATCH_TYPE);
  if (handle == NULL || *handle == NULL)
    return 0;
  rs_batch *const batch = *handle;
  keeper *const k = keeper_of(L);
  rs_batch_info i = { .stopped = true };
  *handle = NULL;
  if (!lua_isnoneornil(L, 2))
    rs_batch_info_get(batch, &i);
  if (!i.stopped)
    rs_batch_cancel(batch, -1);
  forget(L, batch);
  k->closed = true;
  if (k->busy > 0)  /* the keeper's finalizer does the rest */
    rs_batch_stop(batch);
  else if (k->batch != NULL) {
    k->batch = NULL;
    rs_batch_close(batch, L);
  }
  return 0;
}

void
rs_open_batch_type (lua_State *L)
{
  static const luaL_Reg meta[] = {
    { "__close", close },
    { "__gc", gc },
    { NULL, NULL }
  };
  static const luaL_Reg methods[] = {
    { "feed_array", feed_array },
    { "feed_range", feed_range },
    { "feed_iterator", feed_iterator },
    { "feed_packed", feed_packed },
    { "id", id },
    { "pass", pass },
    { "finish", finish },
    { "set_key", set_key },
    { "room", room },
    { "wait", wait },
    { "take_value", take_value },
    { "take_values", take_values },
    { "take_record", take_record },
    { "stop", stop },
    { "info", info },
    { "cancel", cancel },
    { "close", close },
    { NULL, NULL }
  };
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, keeper_gc);
  lua_setfield(L, -2, "__gc");
  lua_rawsetp(L, LUA_REGISTRYINDEX, keeper_type);
  rs_handle_type(L, RS_BATCH_TYPE, rs_lua_face(L), meta, methods);
}
