/* SPDX-License-Identifier: MIT */
/*
 * seed.h - what each state draws its random numbers from.
 */
#ifndef RS_SEED_H
#define RS_SEED_H

#include <stdbool.h>

#include <lua.h>

/*
 * [-0, +0, m]  Seed 'math.random' of this state by bytes of the kernel, if the
 * state has the library.  Lua itself seeds by the time and an address, and
 * both recur in states that are made one after another.
 */
void rs_seed_random (lua_State *L);

/* [-0, +0, m]  Do as 'rs_seed_random', and let 'math.randomseed()' without
   arguments seed by bytes of the kernel, too, in place of the time and an
   address. */
void rs_seed_open (lua_State *L);

/* What 'math.random' draws from: as many bytes as Lua has for it. */
typedef struct rs_random {
  unsigned char bytes[32];
  bool known;             /* false: nothing could be saved */
} rs_random;

/*
 * [-0, +0, -]  Save and restore what 'math.random' of a state draws from,
 * whatever the script has put in place of the library.  A state that Lua's own
 * 'randomseed' is not known of, or keeps elsewhere, gets new bytes of the
 * kernel instead of the old ones.
 */
void rs_random_save (lua_State *L, rs_random *r);
void rs_random_restore (lua_State *L, const rs_random *r);

/* The seed of item 'index', from 1, of a call with this seed.  Different items
   of a call have different ones. */
lua_Integer rs_seed_of_item (lua_Integer seed, lua_Integer index);

/* [-0, +0, e]  Let 'math.random' begin where 'math.randomseed(seed)' of Lua
   lets it begin.  Nothing happens in a state without that library. */
void rs_seed_begin (lua_State *L, lua_Integer seed);

#endif
