/* SPDX-License-Identifier: MIT */
/*
 * seed.h - what each state draws its random numbers from.
 */
#ifndef RS_SEED_H
#define RS_SEED_H

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

#endif
