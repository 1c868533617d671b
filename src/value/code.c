/* SPDX-License-Identifier: MIT */
/*
 * code.c - functions and sources as messages.
 *
 * Messages that were made lately are in an outbox, a userdata in the registry,
 * with their origins: functions without a state of their own, and sources.
 * The outbox keeps the origins alive, so that the address of one tells which
 * it is.  It also has an encoder, which keeps its memory.
 */
#include "value/code.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/finalize.h"
#include "base/status.h"
#include "value/encoder.h"

enum {
  RECENT = 4,             /* messages that are kept */
  SOURCE_MAX = 4096       /* most bytes of a source text that is kept */
};

struct rs_outbox {
  struct {
    rs_message *message;  /* a reference, or NULL */
    const void *origin;   /* address of the function or source */
    bool bare;            /* 'origin' is a function without upvalues, or a
                             string */
  } recent[RECENT];
  unsigned next;          /* message to be replaced next, modulo RECENT */
  int origins;            /* registry reference of a table with the origins */
  rs_encoder spare;       /* encoder of arguments; it keeps its memory */
  bool busy;              /* 'spare' is in use */
  bool closed;            /* no message is kept any more */
};

/* Key in the registry, by address. */
static const char outbox_key;

static int
forget (lua_State *L)
{
  rs_outbox *const o = rs_finalized(L, forget);
  if (o == NULL)
    return 0;
  for (int i = 0; i < RECENT; i++) {
    rs_message_unref(o->recent[i].message);
    o->recent[i].message = NULL;
  }
  rs_encoder_fini(&o->spare);
  o->busy = o->closed = true;  /* finalizers may still send a message */
  return 0;
}

static int
make (lua_State *L)
{
  rs_outbox *const o = lua_newuserdatauv(L, sizeof *o, 0);
  memset(o, 0, sizeof *o);
  rs_encoder_init(&o->spare, 0);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, forget);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_createtable(L, RECENT, 0);
  for (int i = 1; i <= RECENT; i++) {
    lua_pushboolean(L, false);
    lua_rawseti(L, -2, i);
  }
  o->origins = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &outbox_key);
  return 0;
}

rs_outbox *
rs_outbox_of (lua_State *L)
{
  rs_outbox *o = NULL;
  if (L == NULL || !lua_checkstack(L, LUA_MINSTACK))
    return NULL;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &outbox_key) != LUA_TUSERDATA) {
    lua_pop(L, 1);
    lua_pushcfunction(L, make);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
      lua_pop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &outbox_key);
  }
  o = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return o;
}

/* [-0, +0, -]  True when the value at 'index' is the same each time it is
   sent. */
static bool
is_constant (lua_State *L, int index)
{
  if (lua_type(L, index) == LUA_TSTRING)
    return lua_rawlen(L, index) <= SOURCE_MAX;
  const char *const name = lua_getupvalue(L, index, 1);
  if (name == NULL)
    return !lua_iscfunction(L, index);
  const int top = lua_gettop(L);
  bool constant = strcmp(name, "_ENV") == 0;
  if (constant && lua_getupvalue(L, index, 2) != NULL)
    constant = false;
  if (constant) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    constant = lua_rawequal(L, top, -1);
    if (!constant) {
      rs_env_push(L);
      constant = lua_rawequal(L, top, -1);
    }
  }
  lua_settop(L, top - 1);
  return constant;
}

/* [-0, +0, -]  Check that the value at 'index' is a function, or source text
   without errors. */
static int
check (lua_State *L, int index, rs_error *err)
{
  if (lua_type(L, index) == LUA_TFUNCTION)
    return RS_OK;
  if (lua_type(L, index) != LUA_TSTRING)
    return rs_fail(err, RS_EINVAL, "function or source text expected, got %s",
                   lua_typename(L, lua_type(L, index)));
  size_t size;
  const char *const source = lua_tolstring(L, index, &size);
  if (size > 0 && source[0] == LUA_SIGNATURE[0])
    return rs_fail(err, RS_EINVAL, "bytecode in a string is refused: pass "
                                   "the function itself, or source text");
  const int code = luaL_loadbufferx(L, source, size, "=(chunk)", "t");
  int status = RS_OK;
  if (code == LUA_ERRMEM)
    status = rs_fail_plain(err, RS_ENOMEM);
  else if (code != LUA_OK)
    status = rs_fail(err, RS_EINVAL, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  return status;
}

/*
 * [-0, +0, -]  Append the 'n' values from 'first' on.  A refusal calls the
 * values after the first 'unnamed' ones "argument 1" and so on.
 */
static int
append (rs_encoder *e, lua_State *L, int first, int n, int unnamed,
        rs_error *err)
{
  int status = RS_OK;
  for (int i = 0; i < n && status == RS_OK; i++) {
    status = rs_encode_value(e, L, first + i, NULL);
    if (status == RS_EREFUSED && i >= unnamed) {
      char root[32];
      snprintf(root, sizeof root, "argument %d", i + 1 - unnamed);
      rs_encoder_inside(e, root);
    }
  }
  if (status == RS_ENOMEM)
    rs_fail_plain(err, status);
  else if (status != RS_OK)
    rs_fail(err, status, "%s", e->error);
  return status;
}

/* [-0, +0, -]  Make a message of the 'n' values from 'first' on.  With a
   function in front ('unnamed' is 1), items and results may name the tables of
   the message. */
static int
encode (lua_State *L, int first, int n, int unnamed, unsigned forbidden,
        const rs_common *common, rs_message **out, rs_error *err)
{
  rs_message *message = NULL;
  rs_encoder e;
  rs_encoder_init(&e, forbidden);
  if (common != NULL)
    e.common = *common;
  e.marking = e.names.anew = unnamed > 0;
  int status = append(&e, L, first, n, unnamed, err);
  if (status == RS_OK && (message = rs_encoder_end(&e)) == NULL)
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && rs_common_keep(&e.marks, L, message) != RS_OK)
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK)
    *out = message;
  else {
    rs_common_drop(&e.marks, L);
    rs_message_unref(message);
  }
  rs_encoder_fini(&e);
  return status;
}

/* [-0, +0, -]  The recent message that was made of the value at 'index', or
   NULL; also NULL when the message has 'forbidden' kinds. */
static rs_message *
find_recent (const rs_outbox *o, lua_State *L, int index, unsigned forbidden)
{
  const void *const origin = lua_topointer(L, index);
  for (int i = 0; i < RECENT; i++)
    if (o->recent[i].origin == origin && o->recent[i].message != NULL
        && (o->recent[i].message->flags & forbidden) == 0
        && (o->recent[i].bare || is_constant(L, index)))
      return o->recent[i].message;
  return NULL;
}

/* [-0, +0, -]  Keep the message that was made of the value at 'index'; it
   takes the caller's reference over. */
static void
keep_recent (rs_outbox *o, lua_State *L, int index, rs_message *message)
{
  const unsigned i = o->next++ % RECENT;
  const bool bare = lua_getupvalue(L, index, 1) == NULL;
  if (!bare)
    lua_pop(L, 1);
  rs_message_unref(o->recent[i].message);
  o->recent[i].message = message;
  o->recent[i].origin = lua_topointer(L, index);
  o->recent[i].bare = bare;
  lua_rawgeti(L, LUA_REGISTRYINDEX, o->origins);
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, (lua_Integer) i + 1);
  lua_pop(L, 1);
}

int
rs_code_encode_function (rs_outbox *o, lua_State *L, int index,
                         unsigned forbidden, rs_message **function,
                         rs_error *err)
{
  rs_message *const known = find_recent(o, L, index, forbidden);
  if (known != NULL) {
    *function = known;
    return RS_OK;
  }
  int status = check(L, index, err);
  if (status == RS_OK)
    status = encode(L, index, 1, 1, forbidden, NULL, function, err);
  if (status == RS_OK && !o->closed && is_constant(L, index)) {
    (*function)->constant = true;
    keep_recent(o, L, index, *function);
  }
  return status;
}

int
rs_code_encode_arguments (rs_outbox *o, lua_State *L, int first, int n,
                          void *room, size_t size, unsigned forbidden,
                          const rs_message *function, rs_message **arguments,
                          rs_error *err)
{
  *arguments = NULL;
  if (n == 0)
    return RS_OK;
  *arguments = rs_encode_small(L, first, n, room, size);
  if (*arguments != NULL)
    return RS_OK;  /* a scalar is of no kind that may be forbidden */
  const rs_common common = rs_common_of(L, function);
  if (o->busy)  /* called by '__transfer' of other arguments? */
    return encode(L, first, n, 0, forbidden, &common, arguments, err);
  o->busy = true;
  o->spare.forbidden = forbidden;
  o->spare.common = common;
  int status = append(&o->spare, L, first, n, 0, err);
  if (status == RS_OK) {
    *arguments = rs_encoder_message_at(&o->spare, room, size);
    if (*arguments == NULL)
      status = rs_fail_plain(err, RS_ENOMEM);
  }
  if (status != RS_OK)
    rs_encoder_clear(&o->spare);
  o->spare.common = (rs_common) { .sent = NULL };
  o->busy = false;
  return status;
}

int
rs_code_encode (lua_State *L, int nargs, unsigned forbidden,
                rs_message **message, rs_error *err)
{
  const int base = lua_gettop(L) - nargs - 1;
  rs_outbox *const o = rs_outbox_of(L);
  int status = o != NULL ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && nargs == 0) {
    status = rs_code_encode_function(o, L, base + 1, forbidden, message, err);
    if (status == RS_OK && (*message)->constant)
      rs_message_ref(*message);
  }
  else if (status == RS_OK) {
    status = check(L, base + 1, err);
    if (status == RS_OK)
      status = encode(L, base + 1, nargs + 1, 1, forbidden, NULL, message,
                      err);
  }
  lua_settop(L, base);
  return status;
}
