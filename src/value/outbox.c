/* SPDX-License-Identifier: MIT */
/*
 * outbox.c - what a state sends: messages that it has sent lately, and an
 * encoder.
 *
 * The outbox is a userdata in the registry.  It keeps the origins of its
 * messages, functions and sources, alive, so that the address of one tells
 * which it is.
 */
#include "value/outbox.h"

#include <string.h>

#include <lauxlib.h>

#include "base/defer.h"
#include "base/finalize.h"
#include "value/bytecode.h"
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
    rs_buf absent;        /* names of globals that the state has to be
                             without: bytecode.h */
  } recent[RECENT];
  unsigned next;          /* message to be replaced next, modulo RECENT */
  int origins;            /* registry reference of a table with the origins */
  rs_encoder encoder;
  bool busy;              /* 'encoder' is lent */
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
    rs_buf_fini(&o->recent[i].absent);
  }
  rs_encoder_fini(&o->encoder);
  o->busy = o->closed = true;  /* finalizers may still send a message */
  return 0;
}

/* (light userdata: progress) */
static int
make (lua_State *L)
{
  rs_progress *const progress = lua_touserdata(L, 1);
  *progress = RS_BEGUN;
  rs_bytecode_learn(L);
  rs_outbox *const o = lua_newuserdatauv(L, sizeof *o, 0);
  memset(o, 0, sizeof *o);
  rs_encoder_init(&o->encoder, 0);
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
  *progress = RS_DONE;
  return 0;
}

rs_outbox *
rs_outbox_of (lua_State *L)
{
  rs_outbox *o = NULL;
  if (L == NULL || !lua_checkstack(L, LUA_MINSTACK))
    return NULL;
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &outbox_key) != LUA_TUSERDATA
      || lua_rawlen(L, -1) != sizeof *o) {  /* a script's? */
    lua_pop(L, 1);
    rs_progress progress = RS_NOT_BEGUN;
    if (rs_defer_call(L, make, &progress, 0, &progress) != LUA_OK)
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

/* [-0, +0, -]  True when the state is still without the globals that the
   function at 'index' reads. */
static bool
is_without (lua_State *L, int index, const rs_buf *names)
{
  if (names->size == 0)
    return true;
  const bool without = lua_getupvalue(L, index, 1) != NULL
                    && rs_globals_absent(L, lua_gettop(L), names);
  lua_pop(L, 1);
  return without;
}

rs_message *
rs_outbox_find (const rs_outbox *o, lua_State *L, int index,
                unsigned forbidden)
{
  const void *const origin = lua_topointer(L, index);
  for (int i = 0; i < RECENT; i++)
    if (o->recent[i].origin == origin && o->recent[i].message != NULL
        && (o->recent[i].message->flags & forbidden) == 0
        && (o->recent[i].bare
            || (is_constant(L, index)
                && is_without(L, index, &o->recent[i].absent))))
      return o->recent[i].message;
  return NULL;
}

void
rs_outbox_keep (rs_outbox *o, lua_State *L, int index, rs_message *message,
                bool absent)
{
  index = lua_absindex(L, index);
  if (o->closed || !is_constant(L, index))
    return;
  if (lua_rawgeti(L, LUA_REGISTRYINDEX, o->origins) != LUA_TTABLE) {
    lua_pop(L, 1);
    return;  /* a script has put something else there */
  }
  const unsigned i = o->next++ % RECENT;
  rs_buf *const names = &o->recent[i].absent;
  rs_message_unref(o->recent[i].message);
  o->recent[i].message = NULL;
  rs_buf_clear(names);
  if (absent && !rs_globals_list(L, index, names)) {
    lua_pop(L, 1);
    return;
  }
  const bool bare = lua_getupvalue(L, index, 1) == NULL;
  if (!bare)
    lua_pop(L, 1);
  message->constant = true;
  o->recent[i].message = message;
  o->recent[i].origin = lua_topointer(L, index);
  o->recent[i].bare = bare;
  lua_pushvalue(L, index);
  lua_rawseti(L, -2, (lua_Integer) i + 1);
  lua_pop(L, 1);
}

rs_encoder *
rs_outbox_borrow (rs_outbox *o)
{
  if (o->busy)
    return NULL;
  o->busy = true;
  return &o->encoder;
}

void
rs_outbox_return (rs_outbox *o)
{
  o->busy = false;
}
