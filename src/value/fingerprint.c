/* SPDX-License-Identifier: MIT */
/*
 * fingerprint.c - what stands for a Lua value, and for the code of a function.
 *
 * The entries of a table are added up, each with a digest of its own, since
 * the next run has them in another order.
 */
#include "value/fingerprint.h"

#include <string.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "runspace.h"
#include "value/bytecode.h"

enum { DEEPEST = 100 };  /* tables inside each other */

/* What the digest of a value begins with. */
enum { NIL, FALSE, TRUE, INTEGER, FLOAT, STRING, TABLE };

static const char *append (lua_State *L, int index, rs_digest *d, int depth);

/* [-0, +0, -]  Append the table at 'index', an absolute one. */
static const char *
append_table (lua_State *L, int index, rs_digest *d, int depth)
{
  rs_digest sum = { 0, 0 };
  uint64_t n = 0;
  if (depth == DEEPEST || !lua_checkstack(L, 4))
    return "a table that is nested too deep, or contains itself,";
  if (lua_getmetatable(L, index)) {
    lua_pop(L, 1);
    return "a table with a metatable";
  }
  lua_pushnil(L);
  while (lua_next(L, index)) {
    rs_digest entry = RS_DIGEST_INIT;
    const char *why = append(L, lua_gettop(L) - 1, &entry, depth + 1);
    if (why == NULL)
      why = append(L, lua_gettop(L), &entry, depth + 1);
    if (why != NULL) {
      lua_pop(L, 2);
      return why;
    }
    entry = rs_digest_end(&entry);
    sum.a += entry.a;
    sum.b += entry.b;
    n++;
    lua_pop(L, 1);
  }
  rs_digest_number(d, TABLE);
  rs_digest_number(d, n);
  rs_digest_number(d, sum.a);
  rs_digest_number(d, sum.b);
  return NULL;
}

/* [-0, +0, -]  Append the value at 'index', an absolute one. */
static const char *
append (lua_State *L, int index, rs_digest *d, int depth)
{
  switch (lua_type(L, index)) {
    case LUA_TNIL:
      rs_digest_number(d, NIL);
      return NULL;
    case LUA_TBOOLEAN:
      rs_digest_number(d, lua_toboolean(L, index) ? TRUE : FALSE);
      return NULL;
    case LUA_TNUMBER:
      if (lua_isinteger(L, index)) {
        rs_digest_number(d, INTEGER);
        rs_digest_number(d, (uint64_t) lua_tointeger(L, index));
      }
      else {
        const lua_Number x = lua_tonumber(L, index);
        rs_digest_number(d, FLOAT);
        rs_digest_bytes(d, &x, sizeof x);
      }
      return NULL;
    case LUA_TSTRING: {
      size_t size;
      const char *const text = lua_tolstring(L, index, &size);
      rs_digest_number(d, STRING);
      rs_digest_bytes(d, text, size);
      return NULL;
    }
    case LUA_TTABLE:
      return append_table(L, index, d, depth);
    case LUA_TFUNCTION:
      return "a function";
    case LUA_TTHREAD:
      return "a coroutine";
    default:
      return "a userdata";
  }
}

const char *
rs_fingerprint_value (lua_State *L, int index, rs_digest *d)
{
  return append(L, lua_absindex(L, index), d, 0);
}

/* -------------------------------------------------------------------- code */

static int
on_bytecode (lua_State *L, const void *bytes, size_t n, void *user)
{
  (void) L;
  rs_buf *const buf = user;
  rs_buf_add(buf, bytes, n);
  return buf->failed;
}

/* [-0, +0, -]  The number of the upvalue '_ENV' of the function at 'index',
   from 0 on. */
static unsigned
find_env (lua_State *L, int index)
{
  const char *name;
  for (int i = 1; (name = lua_getupvalue(L, index, i)) != NULL; i++) {
    lua_pop(L, 1);
    if (strcmp(name, "_ENV") == 0)
      return (unsigned) i - 1;
  }
  return RS_BYTECODE_NO_ENV;
}

/* (names) -> array of them */
static int
push_names (lua_State *L)
{
  const rs_buf *const names = lua_touserdata(L, 1);
  size_t at = 0, size;
  lua_newtable(L);
  for (lua_Integer i = 1; at < names->size; i++) {
    const char *const name = rs_bytecode_next(names, &at, &size);
    lua_pushlstring(L, name, size);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

bool
rs_fingerprint_code (lua_State *L, int index, rs_digest *d)
{
  rs_buf dump = RS_BUF_INIT, names = RS_BUF_INIT;
  if (lua_iscfunction(L, index))
    return false;
  rs_bytecode_learn(L);
  luaL_checkstack(L, 4, NULL);
  const unsigned env = find_env(L, index);
  lua_pushvalue(L, index);
  lua_dump(L, on_bytecode, &dump, 1);
  lua_pop(L, 1);
  if (!dump.failed) {
    rs_bytecode_globals(dump.data, dump.size, env, &names);
    rs_bytecode_digest(dump.data, dump.size, d);
  }
  int status = LUA_ERRMEM;
  if (!dump.failed && !names.failed) {
    lua_pushcfunction(L, push_names);
    lua_pushlightuserdata(L, &names);
    status = lua_pcall(L, 1, 1, 0);
  }
  else
    lua_pushstring(L, rs_status_message(RS_ENOMEM));
  rs_buf_fini(&dump);
  rs_buf_fini(&names);
  if (status != LUA_OK)
    lua_error(L);
  return true;
}
