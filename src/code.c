/* SPDX-License-Identifier: MIT */
/*
 * code.c - functions and sources as messages.
 *
 * What was sent lately is in a userdata in the registry: messages, and beside
 * them a table with weak references to what they were made of, so that it can
 * be told from another function at the same address.
 */
#include "code.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "status.h"

enum {
  RECENT = 4,             /* messages that are kept */
  SOURCE_MAX = 4096       /* bytes of a source text that is */
};

typedef struct recent {
  rs_message *messages[RECENT];  /* references, or NULL */
  unsigned next;          /* the one to be replaced next */
} recent;

/* Key in the registry, by address. */
static const char recent_key;

static int
forget (lua_State *L)
{
  recent *const r = lua_touserdata(L, 1);
  for (int i = 0; i < RECENT; i++) {
    rs_message_unref(r->messages[i]);
    r->messages[i] = NULL;
  }
  return 0;
}

static int
make (lua_State *L)
{
  recent *const r = lua_newuserdatauv(L, sizeof *r, 1);
  memset(r, 0, sizeof *r);
  lua_createtable(L, RECENT, 0);
  for (int i = 1; i <= RECENT; i++) {
    lua_pushboolean(L, false);
    lua_rawseti(L, -2, i);
  }
  lua_createtable(L, 0, 1);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  lua_setiuservalue(L, -2, 1);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, forget);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &recent_key);
  return 0;
}

/* [-0, +1, -]  What was sent lately, and push the table of its origins; NULL,
   and push nil, when there is no memory for that. */
static recent *
push_recent (lua_State *L)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &recent_key) != LUA_TUSERDATA) {
    lua_pop(L, 1);
    lua_pushcfunction(L, make);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
      lua_pop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &recent_key);
  }
  recent *const r = lua_touserdata(L, -1);
  if (r != NULL) {
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
  }
  return r;
}

/* [-0, +0, -]  Is the value at 'index' the same each time it is sent? */
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

/* [-0, +0, -]  Is the value at 'index' something to call? */
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
 * [-0, +0, -]  A message of the 'n' values from 'first' on; the first
 * 'unnamed' of them say themselves what they are, the others are arguments.
 */
static int
encode (lua_State *L, int first, int n, int unnamed, rs_message **out,
        rs_error *err)
{
  rs_encoder e;
  int status = RS_OK;
  rs_encoder_init(&e, 0);
  for (int i = 0; i < n && status == RS_OK; i++) {
    status = rs_encode_value(&e, L, first + i, NULL);
    if (status == RS_EREFUSED && i >= unnamed) {
      char root[32];
      snprintf(root, sizeof root, "argument %d", i + 1 - unnamed);
      rs_encoder_inside(&e, root);
    }
  }
  if (status == RS_OK && (*out = rs_encoder_end(&e)) == NULL)
    status = RS_ENOMEM;
  if (status == RS_ENOMEM)
    rs_fail_plain(err, status);
  else if (status != RS_OK)
    rs_fail(err, status, "%s", e.error);
  rs_encoder_fini(&e);
  return status;
}

/* [-0, +0, -]  A message of the function at 'index', or of the source. */
static int
encode_function (lua_State *L, int index, rs_message **out, rs_error *err)
{
  const int top = lua_gettop(L);
  const int type = lua_type(L, index);
  const bool constant = (type == LUA_TFUNCTION || type == LUA_TSTRING)
                     && is_constant(L, index);
  recent *const r = constant ? push_recent(L) : NULL;
  for (int i = 0; r != NULL && i < RECENT; i++) {
    lua_rawgeti(L, top + 1, i + 1);
    const bool same = lua_rawequal(L, index, -1);
    lua_pop(L, 1);
    if (same && r->messages[i] != NULL) {
      *out = rs_message_ref(r->messages[i]);
      lua_settop(L, top);
      return RS_OK;
    }
  }
  int status = check(L, index, err);
  if (status == RS_OK)
    status = encode(L, index, 1, 1, out, err);
  if (status == RS_OK && r != NULL) {
    const unsigned i = r->next++ % RECENT;
    (*out)->constant = true;
    rs_message_unref(r->messages[i]);
    r->messages[i] = rs_message_ref(*out);
    lua_pushvalue(L, index);
    lua_rawseti(L, top + 1, (lua_Integer) i + 1);
  }
  lua_settop(L, top);
  return status;
}

int
rs_code_encode (lua_State *L, int nargs, rs_message **function,
                rs_message **arguments, rs_error *err)
{
  const int base = lua_gettop(L) - nargs - 1;
  rs_message *first = NULL, *rest = NULL;
  int status = lua_checkstack(L, LUA_MINSTACK)
             ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && (arguments != NULL || nargs == 0))
    status = encode_function(L, base + 1, &first, err);
  else if (status == RS_OK) {
    status = check(L, base + 1, err);
    if (status == RS_OK)
      status = encode(L, base + 1, nargs + 1, 1, &first, err);
  }
  if (status == RS_OK && arguments != NULL && nargs > 0)
    status = encode(L, base + 2, nargs, 0, &rest, err);
  if (status == RS_OK) {
    *function = first;
    if (arguments != NULL)
      *arguments = rest;
  }
  else
    rs_message_unref(first);
  lua_settop(L, base);
  return status;
}
