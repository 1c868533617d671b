/* SPDX-License-Identifier: MIT */
/*
 * seed.c - what each state draws its random numbers from.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* getrandom */
#endif
#include "state/seed.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/clock.h"

/* Spread the bits (the finalizer of splitmix64). */
static uint64_t
mix (uint64_t x)
{
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

/* Make a seed without the kernel.  No two states of a process have the same
   count, and no two processes have the same number, clock and address. */
static void
make_up (uint64_t out[2], const void *address)
{
  static _Atomic uint64_t count;
  const uint64_t n = atomic_fetch_add_explicit(&count, 1,
                                               memory_order_relaxed);
  out[0] = mix((uint64_t) (rs_now() * 1e9) ^ (uint64_t) getpid() << 40);
  out[1] = mix(n * UINT64_C(0x9e3779b97f4a7c15) + (uintptr_t) address);
}

/* [-0, +2, -]  Push the two integers of a new seed. */
static void
push_seed (lua_State *L)
{
  uint64_t seed[2];
  if (getrandom(seed, sizeof seed, GRND_NONBLOCK) != (ssize_t) sizeof seed)
    make_up(seed, L);
  lua_pushinteger(L, (lua_Integer) seed[0]);
  lua_pushinteger(L, (lua_Integer) seed[1]);
}

/* [-0, +(0|2), m]  Push the library 'math' and its 'randomseed'.  False, and
   nothing is pushed, when the state has no such function. */
static bool
push_function (lua_State *L)
{
  const int top = lua_gettop(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_getfield(L, -1, LUA_MATHLIBNAME) == LUA_TTABLE
      && lua_getfield(L, -1, "randomseed") == LUA_TFUNCTION) {
    lua_remove(L, top + 1);
    return true;
  }
  lua_settop(L, top);
  return false;
}

void
rs_seed_random (lua_State *L)
{
  if (!push_function(L))
    return;
  push_seed(L);
  lua_call(L, 2, 0);
  lua_pop(L, 1);
}

/* math.randomseed, whose original is the upvalue */
static int
randomseed (lua_State *L)
{
  if (lua_gettop(L) == 0)
    push_seed(L);
  else {  /* here, so that an error names the function and its caller */
    luaL_checknumber(L, 1);
    luaL_optinteger(L, 2, 0);
  }
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* Key in the registry of Lua's own 'randomseed'. */
static const char own_key;

void
rs_seed_open (lua_State *L)
{
  if (!push_function(L))
    return;
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &own_key);
  lua_pushvalue(L, -1);
  push_seed(L);
  lua_call(L, 2, 0);
  lua_pushcclosure(L, randomseed, 1);
  lua_setfield(L, -2, "randomseed");
  lua_pop(L, 1);
}

/* ------------------------------------------------------------ seeded calls */

lua_Integer
rs_seed_of_item (lua_Integer seed, lua_Integer index)
{
  return (lua_Integer) mix(mix((uint64_t) seed)
                           + (uint64_t) index * UINT64_C(0x9e3779b97f4a7c15));
}

/* [-0, +0, -]  What 'math.random' of this state draws from: the userdata that
   Lua's functions share as their upvalue.  NULL: there is none, or another
   one. */
static void *
find_random (lua_State *L)
{
  const int top = lua_gettop(L);
  void *random = NULL;
  if (lua_checkstack(L, 2)
      && lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key) == LUA_TFUNCTION
      && lua_getupvalue(L, -1, 1) != NULL
      && lua_type(L, -1) == LUA_TUSERDATA
      && lua_rawlen(L, -1) == sizeof ((rs_random *) NULL)->bytes)
    random = lua_touserdata(L, -1);
  lua_settop(L, top);
  return random;
}

void
rs_random_save (lua_State *L, rs_random *r)
{
  const void *const random = find_random(L);
  r->known = random != NULL;
  if (r->known)
    memcpy(r->bytes, random, sizeof r->bytes);
}

/* Seed anew, in a protected call. */
static int
seed_anew (lua_State *L)
{
  rs_seed_random(L);
  return 0;
}

void
rs_random_restore (lua_State *L, const rs_random *r)
{
  void *const random = find_random(L);
  if (r->known && random != NULL)
    memcpy(random, r->bytes, sizeof r->bytes);
  else if (lua_checkstack(L, LUA_MINSTACK)) {
    lua_pushcfunction(L, seed_anew);
    if (lua_pcall(L, 0, 0, 0) != LUA_OK)
      lua_pop(L, 1);
  }
}

void
rs_seed_begin (lua_State *L, lua_Integer seed)
{
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &own_key) == LUA_TFUNCTION) {
    lua_pushinteger(L, seed);
    lua_call(L, 1, 0);
  }
  else
    lua_pop(L, 1);
}
