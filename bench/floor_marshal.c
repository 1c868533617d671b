/* SPDX-License-Identifier: MIT */
/*
 * floor_marshal - values to a plain flat buffer and back.
 *
 *     floor_marshal PAYLOADS.lua NAME SAMPLES
 *
 * A value is a tag and its bytes as they lie in memory; a table is two
 * counts, its sequence, and its other pairs.  No identities, no limits, no
 * checks: what anything that does more is measured against.
 *
 * 'NAME_copy': encode and decode in one state.  'NAME_echo': to a worker
 * thread that decodes the value, passes it through a Lua function, and sends
 * it back.  Prints milliseconds.
 */
#define _GNU_SOURCE  /* floor.h */
#include <stdint.h>
#include <string.h>

#include "floor.h"

typedef struct bytes {
  unsigned char *data;
  size_t size, room;
} bytes;

static unsigned char *
grow (bytes *b, size_t n)
{
  if (b->room - b->size < n) {
    b->room = (b->size + n) * 2;
    b->data = realloc(b->data, b->room);
    if (b->data == NULL)
      die("not enough memory");
  }
  b->size += n;
  return b->data + b->size - n;
}

static void
encode (bytes *b, lua_State *L, int index)
{
  const int type = lua_type(L, index);
  switch (type) {
    case LUA_TNIL:
      *grow(b, 1) = 'z';
      break;
    case LUA_TBOOLEAN:
      *grow(b, 1) = lua_toboolean(L, index) ? 't' : 'f';
      break;
    case LUA_TNUMBER: {
      unsigned char *p = grow(b, 9);
      if (lua_isinteger(L, index)) {
        const lua_Integer i = lua_tointeger(L, index);
        *p = 'i';
        memcpy(p + 1, &i, 8);
      } else {
        const lua_Number d = lua_tonumber(L, index);
        *p = 'd';
        memcpy(p + 1, &d, 8);
      }
      break;
    }
    case LUA_TSTRING: {
      size_t size;
      const char *s = lua_tolstring(L, index, &size);
      unsigned char *p = grow(b, 9 + size);
      *p = 's';
      memcpy(p + 1, &size, 8);
      memcpy(p + 9, s, size);
      break;
    }
    case LUA_TTABLE: {
      const uint32_t n = (uint32_t)lua_rawlen(L, index);
      uint32_t pairs = 0;
      const size_t at = b->size;
      *grow(b, 9) = 'T';
      luaL_checkstack(L, 4, "nested too deep");
      for (uint32_t i = 1; i <= n; i++) {
        lua_rawgeti(L, index, i);
        encode(b, L, lua_gettop(L));
        lua_pop(L, 1);
      }
      /* The pairs of a plain sequence follow its last element. */
      if (n > 0)
        lua_pushinteger(L, n);
      else
        lua_pushnil(L);
      while (lua_next(L, index)) {
        const int value = lua_gettop(L);
        encode(b, L, value - 1);
        encode(b, L, value);
        lua_pop(L, 1);
        pairs++;
      }
      memcpy(b->data + at + 1, &n, 4);
      memcpy(b->data + at + 5, &pairs, 4);
      break;
    }
    default:
      die("a value that is no data");
  }
}

static const unsigned char *
decode (const unsigned char *p, lua_State *L)
{
  switch (*p++) {
    case 'z':
      lua_pushnil(L);
      return p;
    case 't':
      lua_pushboolean(L, 1);
      return p;
    case 'f':
      lua_pushboolean(L, 0);
      return p;
    case 'i': {
      lua_Integer i;
      memcpy(&i, p, 8);
      lua_pushinteger(L, i);
      return p + 8;
    }
    case 'd': {
      lua_Number d;
      memcpy(&d, p, 8);
      lua_pushnumber(L, d);
      return p + 8;
    }
    case 's': {
      size_t size;
      memcpy(&size, p, 8);
      lua_pushlstring(L, (const char *)p + 8, size);
      return p + 8 + size;
    }
    default: {
      uint32_t n, pairs;
      memcpy(&n, p, 4);
      memcpy(&pairs, p + 4, 4);
      p += 8;
      luaL_checkstack(L, 4, "nested too deep");
      lua_createtable(L, (int)n, (int)pairs);
      for (uint32_t i = 1; i <= n; i++) {
        p = decode(p, L);
        lua_rawseti(L, -2, i);
      }
      while (pairs-- > 0) {
        p = decode(p, L);
        p = decode(p, L);
        lua_rawset(L, -3);
      }
      return p;
    }
  }
}

typedef struct worker {
  gate go, done;
  bytes message;     /* of the side whose turn it is */
  atomic_bool over;
} worker;

static void *
serve (void *arg)
{
  worker *w = arg;
  lua_State *L = open_state();
  push_value(L, "return function (...) return ... end");
  for (unsigned round = 1; ; round++) {
    gate_wait(&w->go, round);
    if (atomic_load(&w->over))
      break;
    lua_pushvalue(L, 1);
    decode(w->message.data, L);
    call(L, 1, 1);
    w->message.size = 0;
    encode(&w->message, L, 2);
    lua_settop(L, 1);
    gate_raise(&w->done);
  }
  lua_close(L);
  return NULL;
}

int
main (int argc, char **argv)
{
  if (argc < 4)
    die("usage: floor_marshal PAYLOADS.lua NAME SAMPLES");
  const unsigned samples = (unsigned)atoi(argv[3]);
  lua_State *L = open_state();
  if (luaL_loadfile(L, argv[1]) != LUA_OK)
    die(lua_tostring(L, -1));
  call(L, 0, 1);
  lua_getfield(L, -1, argv[2]);
  call(L, 0, 1);
  lua_replace(L, 1);  /* payload */

  worker w = { .over = false };
  gate_init(&w.go, 2000);
  gate_init(&w.done, 2000);
  pthread_t thread;
  if (pthread_create(&thread, NULL, serve, &w) != 0)
    die("no thread");

  char copy[128], echo[128];
  snprintf(copy, sizeof copy, "%s_copy", argv[2]);
  snprintf(echo, sizeof echo, "%s_echo", argv[2]);
  bytes b = { NULL, 0, 0 };
  unsigned round = 0;
  for (unsigned s = 0; s <= samples; s++) {
    lua_gc(L, LUA_GCCOLLECT);
    double start = now();
    b.size = 0;
    encode(&b, L, 1);
    decode(b.data, L);
    if (s > 0)  /* not the warm-up? */
      report(copy, (now() - start) * 1e3, "ms");
    lua_settop(L, 1);
    lua_gc(L, LUA_GCCOLLECT);
    start = now();
    w.message.size = 0;
    encode(&w.message, L, 1);
    gate_raise(&w.go);
    gate_wait(&w.done, ++round);
    decode(w.message.data, L);
    if (s > 0)
      report(echo, (now() - start) * 1e3, "ms");
    lua_settop(L, 1);
  }

  atomic_store(&w.over, true);
  gate_raise(&w.go);
  pthread_join(thread, NULL);
  free(w.message.data);
  free(b.data);
  lua_close(L);
  return 0;
}
