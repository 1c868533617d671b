/* SPDX-License-Identifier: MIT */
/*
 * bytecode.h - the names that a function reads in its environment.
 */
#ifndef RS_BYTECODE_H
#define RS_BYTECODE_H

#include <lua.h>

#include "base/buf.h"
#include "base/digest.h"

/* What 'rs_bytecode_globals' finds. */
typedef struct rs_globals_read {
  bool known;   /* a name was met that Lua itself does not give a value */
  bool plain;   /* the function only reads its environment, by names of its
                   own, and cannot get hold of it as a table */
} rs_globals_read;

/*
 * [-0, +0, m]  Find out whether the bytecode of this Lua is the one that
 * bytecode.c knows.  Call it before the first 'rs_bytecode_globals'.
 */
void rs_bytecode_learn (lua_State *L);

/* True when format and instructions are those that bytecode.c knows.  Any
   thread. */
bool rs_bytecode_is_known (void);

/*
 * Append to 'names' the names that the function reads in the table that is its
 * upvalue number 'env', from 0 on, and those that the functions inside of it
 * read there.  'dump' is what 'lua_dump' wrote.  Names of Lua's own libraries
 * and functions are left out.  Where a function gets hold of the table itself,
 * all its constant strings count as names.
 */
rs_globals_read rs_bytecode_globals (const unsigned char *dump, size_t size,
                                     unsigned env, rs_buf *names);

/* No upvalue has this number: as 'env', for a function without one. */
enum { RS_BYTECODE_NO_ENV = 256 };

/*
 * Append to the digest what the function and those inside of it do, without
 * their names and lines; all of the dump, if its format is not known.
 */
void rs_bytecode_digest (const unsigned char *dump, size_t size,
                         rs_digest *digest);

/* The name at '*at', which has '*size' bytes; '*at' goes to the next one.
   Names are copies, since the bytecode may move. */
const char *rs_bytecode_next (const rs_buf *names, size_t *at, size_t *size);

#endif
