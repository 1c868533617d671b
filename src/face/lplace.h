/* SPDX-License-Identifier: MIT */
/*
 * lplace.h - where the handles of jobs stand.
 *
 * A job knows the place of its handle, so a job that is met again has the same
 * handle, which is collected all the same.  A table by address would take five
 * times the time for each.
 *
 * The places are in weak tables of equal size, since the collector looks
 * through all of a table that has something young: with a million handles in
 * one table that was a tenth of what a job costs.
 */
#ifndef RS_LPLACE_H
#define RS_LPLACE_H

#include <lua.h>

/* A table of them. */
typedef struct rs_row {
  int ref;                /* registry; or LUA_NOREF: there is none */
  unsigned used;          /* places that have been taken */
} rs_row;

typedef struct rs_places {
  rs_row *rows;           /* owned, as 'vacant' */
  unsigned n_rows, rows_room;
  unsigned *vacant;       /* places to take */
  unsigned n_vacant;
  unsigned room;          /* places, taken or not */
  unsigned taken;         /* a collected handle has its place until it is
                             vacated, by its finalizer */
  unsigned patience;      /* places to be taken before it is looked whether
                             there are far too many */
  int meta;               /* registry: of weak tables; or LUA_NOREF: the state
                             is closing */
} rs_places;

/* All functions are for the thread of the state. */

/* [-0, +0, m]  None is there.  Once for each state. */
void rs_places_open (lua_State *L, rs_places *p);

/* The state is closing: nothing is vacated any more. */
void rs_places_close (rs_places *p);

/* [-0, +0, m]  A place for the value on top, which is no nil; from 1 on.  Not
   while the state is closing. */
unsigned rs_place_take (lua_State *L, rs_places *p);

/* What was there has been collected.  Harmless when the state is closing. */
void rs_place_vacate (rs_places *p, unsigned place);

/* [-0, +1, -]  Push what is at 'place', any number; nil when there is none.
   What is collected and waits for its finalizer is not there.  Its type. */
int rs_place_push (lua_State *L, const rs_places *p, unsigned place);

/* Places are below this. */
unsigned rs_places_end (const rs_places *p);

#endif
