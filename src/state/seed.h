/* SPDX-License-Identifier: MIT */
/*
 * seed.h - what each state draws its random numbers from.
 */
#ifndef RS_SEED_H
#define RS_SEED_H

#include <lua.h>

/*
 * [-0, +0, m]  Seed 'math.random' of this state, where it has the library, by
 * bytes of the kernel.  Lua itself seeds by the time and an address, and both
 * recur in states that are made one after another.
 */
void rs_seed_random (lua_State *L);

/* [-0, +0, m]  The same, and let 'math.randomseed()' do it again: that is the
   time and an address, too. */
void rs_seed_open (lua_State *L);

#endif
