/* SPDX-License-Identifier: MIT */
/*
 * ljournal.h - journals as the Lua part sees them.
 */
#ifndef RS_LJOURNAL_H
#define RS_LJOURNAL_H

#include <lua.h>

/* [-0, +1, m]  Make the type of journals; push its table of methods. */
void rs_open_journal_type (lua_State *L);

/* Functions of the C part, for Lua. */

/* (path) -> journal | nil, why */
int rs_lua_journal (lua_State *L);

/* (...) -> the digest of the values, a string | nil, number of the value that
   has none, what that is */
int rs_lua_digest (lua_State *L);

/* (function) -> digest of its code, array of the names that it reads in its
   upvalue '_ENV', array of the names of its upvalues | nil: it is in C */
int rs_lua_code_of (lua_State *L);

/* (function, n) -> value of its upvalue 'n' */
int rs_lua_upvalue (lua_State *L);

#endif
