/* SPDX-License-Identifier: MIT */
/*
 * ljournal.c - journals as the Lua part sees them, and the digests by which
 * they know items and functions.
 */
#include "face/ljournal.h"

#include <lauxlib.h>

#include "face/lface.h"
#include "face/lhandle.h"
#include "pool/face.h"

/* ----------------------------------------------------------------- digests */

/* [-0, +1, m]  Push the digest of all that was appended. */
static void
push_digest (lua_State *L, const rs_digest *d)
{
  const rs_digest end = rs_digest_end(d);
  lua_pushlstring(L, (const char *) &end, RS_DIGEST_SIZE);
}

int
rs_lua_digest (lua_State *L)
{
  rs_digest d = RS_DIGEST_INIT;
  const int n = lua_gettop(L);
  for (int i = 1; i <= n; i++) {
    const char *const why = rs_fingerprint_value(L, i, &d);
    if (why != NULL) {
      lua_pushnil(L);
      lua_pushinteger(L, i);
      lua_pushstring(L, why);
      return 3;
    }
  }
  push_digest(L, &d);
  return 1;
}

int
rs_lua_code_of (lua_State *L)
{
  rs_digest d = RS_DIGEST_INIT;
  const char *name;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  if (!rs_fingerprint_code(L, 1, &d))
    return 0;
  push_digest(L, &d);
  lua_insert(L, 2);
  lua_newtable(L);
  for (int i = 1; (name = lua_getupvalue(L, 1, i)) != NULL; i++) {
    lua_pushstring(L, name);
    lua_rawseti(L, 4, i);
    lua_pop(L, 1);
  }
  return 3;
}

int
rs_lua_upvalue (lua_State *L)
{
  luaL_checktype(L, 1, LUA_TFUNCTION);
  const int n = (int) luaL_checkinteger(L, 2);
  return lua_getupvalue(L, 1, n) != NULL ? 1 : 0;
}

/* ---------------------------------------------------------------- journals */

static const char type[] = "parallel.journal";

static rs_journal *
check (lua_State *L)
{
  return rs_handle_check(L, 1, type);
}

/* [-0, +0, v]  The key at 'arg', a digest. */
static const unsigned char *
check_key (lua_State *L, int arg)
{
  size_t size;
  const char *const key = luaL_checklstring(L, arg, &size);
  luaL_argcheck(L, size == RS_DIGEST_SIZE, arg, "no key");
  return (const unsigned char *) key;
}

/* [-0, +2, m]  Push nil and the text of 'err'. */
static int
push_failure (lua_State *L, const rs_error *err)
{
  lua_pushnil(L);
  lua_pushstring(L, err->text);
  return 2;
}

int
rs_lua_journal (lua_State *L)
{
  const char *const path = luaL_checkstring(L, 1);
  rs_sandbox sandbox;
  rs_error err;
  rs_journal *j;
  if (rs_sandbox_get(L, &sandbox) && sandbox.files != RS_FILES_ALL)
    return rs_handle_error(L, "a journal changes files, which the sandbox of "
                              "this runspace forbids: give the initial state "
                              "sandbox = {files = \"all\"}");
  void **const handle = rs_handle_new(L, type, 0);
  if (rs_journal_open(path, &j, &err) != RS_OK)
    return push_failure(L, &err);
  *handle = j;
  return 1;
}

/* journal:next() -> key, place | false, heading | nothing at the end
     | nil, why */
static int
next (lua_State *L)
{
  rs_journal_entry entry;
  rs_error err;
  const int status = rs_journal_next(check(L), &entry, &err);
  if (status == RS_EDONE)
    return 0;
  if (status != RS_OK)
    return push_failure(L, &err);
  if (entry.heading) {
    lua_pushboolean(L, 0);
    lua_pushlstring(L, entry.text, entry.size);
  }
  else {
    lua_pushlstring(L, (const char *) entry.key, sizeof entry.key);
    lua_pushinteger(L, (lua_Integer) entry.place);
  }
  return 2;
}

/* journal:head(text) */
static int
head (lua_State *L)
{
  size_t size;
  const char *const text = luaL_checklstring(L, 2, &size);
  rs_journal_head(check(L), text, size);
  return 0;
}

/* journal:add(key, attempts, duration, ...) -> true | nil, why */
static int
add (lua_State *L)
{
  rs_error err;
  rs_journal *const j = check(L);
  const unsigned char *const key = check_key(L, 2);
  const unsigned attempts = (unsigned) luaL_checkinteger(L, 3);
  const double duration = luaL_checknumber(L, 4);
  if (rs_journal_add(j, L, lua_gettop(L) - 4, key, attempts, duration, &err)
      != RS_OK)
    return push_failure(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

/* journal:add_failure(key, state, text) */
static int
add_failure (lua_State *L)
{
  size_t size;
  rs_journal *const j = check(L);
  const unsigned char *const key = check_key(L, 2);
  const char *const state = luaL_checkstring(L, 3);
  const char *const text = luaL_checklstring(L, 4, &size);
  rs_journal_add_failure(j, key, state, text, size);
  return 0;
}

/* journal:write([now]) -> true | nil, why */
static int
write_out (lua_State *L)
{
  rs_error err;
  if (rs_journal_write(check(L), lua_toboolean(L, 2), &err) != RS_OK)
    return push_failure(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

/* journal:values(place) -> true, attempts, duration, ... | false: they cannot
   be made here */
static int
values (lua_State *L)
{
  rs_journal *const j = check(L);
  const uint64_t place = (uint64_t) luaL_checkinteger(L, 2);
  unsigned attempts;
  double duration;
  int n;
  lua_settop(L, 1);
  lua_pushboolean(L, 0);
  lua_pushnil(L);
  lua_pushnil(L);
  if (!rs_journal_push(j, L, place, &n, &attempts, &duration)) {
    lua_settop(L, 2);
    return 1;
  }
  lua_pushboolean(L, 1);
  lua_replace(L, 2);
  lua_pushinteger(L, (lua_Integer) attempts);
  lua_replace(L, 3);
  lua_pushnumber(L, duration);
  lua_replace(L, 4);
  return 3 + n;
}

/* journal:close(), __gc */
static int
close (lua_State *L)
{
  void **const handle = rs_handle_test(L, 1, type);
  if (handle == NULL || *handle == NULL)
    return 0;
  rs_journal *const j = *handle;
  *handle = NULL;
  rs_journal_close(j);
  return 0;
}

void
rs_open_journal_type (lua_State *L)
{
  static const luaL_Reg meta[] = { { "__gc", close }, { NULL, NULL } };
  static const luaL_Reg methods[] = {
    { "add", add },
    { "add_failure", add_failure },
    { "close", close },
    { "head", head },
    { "next", next },
    { "values", values },
    { "write", write_out },
    { NULL, NULL }
  };
  rs_handle_type(L, type, rs_lua_face(L), meta, methods);
}
