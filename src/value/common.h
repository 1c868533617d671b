/* SPDX-License-Identifier: MIT */
/*
 * common.h - tables that two states have in common; common.c has their model.
 */
#ifndef RS_COMMON_H
#define RS_COMMON_H

#include "value/message.h"

/* The place where a state finds the tables that it has in common with another
   state (common.c). */
typedef struct rs_common {
  const rs_message *sent;  /* the message in which this state has sent them; or
                              NULL */
  int ref;                 /* registry reference of the list of tables that
                              this state has received; or 0 */
  uint64_t filter;         /* 'rs_common_bit's of the tables; 0: there are
                              none */
  uint64_t functions;      /* the same of functions in fields of the tables */
  bool loads;              /* the decoder tries to load modules, to find tables
                              that have a name; it can do without */
} rs_common;

static inline uint64_t
rs_common_bit (const void *table)
{
  const uint64_t hash = (uint64_t) (uintptr_t) table * 0x9e3779b97f4a7c15u;
  return (uint64_t) 1 << (hash >> 58);
}

/* [-0, +0, -]  The tables of a message that this state has sent; the message
   must outlive the result. */
rs_common rs_common_of (lua_State *L, const rs_message *message);

/* [-0, +0, m]  Make a list for the tables of a message, in the registry,
   before the message is decoded.  'close' the list that 'c' has afterwards;
   that sets the filters.  'share' gives 'c' a reference to a list, for as long
   as a call lasts. */
int rs_common_open (lua_State *L);
void rs_common_close (lua_State *L, rs_common *c);
void rs_common_share (lua_State *L, int ref, rs_common *c);
void rs_common_release (lua_State *L, rs_common *c);

/* ----------------------------------------- for the encoder and the decoder */

/*
 * An encoder counts the tables that it has marked, in 'marks'; the address of
 * that count is also the key of their list in the registry.
 */

/* [-0, +0, m]  Keep the table at 'index' as the next one of the list at
   'list'; take tables back until 'left' are left. */
void rs_common_mark (unsigned *marks, lua_State *L, int list, int index);
void rs_common_unmark (unsigned *marks, lua_State *L, int list, unsigned left);

/* [-0, +1, m]  Push the list of marked tables. */
void rs_common_push_marks (unsigned *marks, lua_State *L);

/* [-0, +0, -]  Keep the list of marked tables for as long as 'message', which
   was made of all values, has other owners; forget the list.  RS_OK or
   RS_ENOMEM. */
int rs_common_keep (unsigned *marks, lua_State *L, rs_message *message);
void rs_common_drop (unsigned *marks, lua_State *L);

/* [-0, +0, -]  The number of the table at 'index'.  0: it has none, or its
   contents have changed; for a 'metatable' contents do not count. */
lua_Integer rs_common_find (const rs_common *c, lua_State *L, int index,
                            bool metatable);

/* [-0, +(0|1), -]  The number of the table that has the function at 'index' in
   a field, whose key is pushed.  0: no table had it, or that table has
   changed; nothing is pushed. */
lua_Integer rs_common_find_function (const rs_common *c, lua_State *L,
                                     int index);

/* [-0, +(0|1), -]  Push the list of tables, if there is one. */
bool rs_common_push (const rs_common *c, lua_State *L);

/* [-0, +0, m]  Make the table on top number 'n' of the list. */
void rs_common_add (lua_State *L, int ref, lua_Integer n);

/* [-0, +(0|1), m]  Push table number 'n'.  If its contents have changed, push
   a new table with the old contents instead; for a 'metatable' contents do not
   count.  False: there is no such table. */
bool rs_common_resolve (const rs_common *c, lua_State *L, lua_Integer n,
                        bool metatable);

/* [-1, +1, m]  Replace the key on top by the function that table number 'n'
   had there, or by a new one with the old upvalues, if these have changed.
   False, and any number of values is left: there is none. */
bool rs_common_resolve_function (const rs_common *c, lua_State *L,
                                 lua_Integer n);

#endif
