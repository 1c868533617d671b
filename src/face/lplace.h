/* SPDX-License-Identifier: MIT */
/*
 * lplace.h - where the handles of jobs stand.
 *
 * A job knows the place of its handle (its 'rs_job_slot').  So a job that
 * comes again gets the same handle, although places are weak and let a handle
 * be collected.  A table of handles by the address of the job would take five
 * times the time for each job.
 *
 * The places are in many weak tables ("rows") of equal size, since the
 * collector looks through the whole of a table that holds a young object: with
 * a million handles in one table this was a tenth of what a job costs.
 */
#ifndef RS_LPLACE_H
#define RS_LPLACE_H

#include <lua.h>

/* A weak table of places. */
typedef struct rs_row {
  int ref;                /* registry: the table; LUA_NOREF: it was dropped */
  unsigned used;          /* places of this row that are taken */
} rs_row;

typedef struct rs_places {
  rs_row *rows;           /* owned */
  unsigned n_rows, rows_room;
  unsigned *vacant;       /* owned: the places that are not taken */
  unsigned n_vacant;
  unsigned room;          /* places of all rows, taken or not */
  unsigned taken;         /* places in use; the place of a collected handle
                             counts until its finalizer vacates it */
  unsigned patience;      /* places to be taken until the next look for rows
                             that can be dropped */
  int meta;               /* registry: the metatable of the rows; LUA_NOREF:
                             the state is closing */
} rs_places;

/* Functions below are for the thread of the state only. */

/* [-0, +0, m]  Begin with no places.  Called once for each state. */
void rs_places_open (lua_State *L, rs_places *p);

/* Free the memory, since the state is closing. */
void rs_places_close (rs_places *p);

/* [-0, +0, m]  Store the value on top, which is not nil, at a vacant place.
   Return the place, from 1 on.  Raise while the state is closing. */
unsigned rs_place_take (lua_State *L, rs_places *p);

/* Make 'place' vacant; called when its handle is collected or not needed.
   Does nothing for place 0, and while the state is closing. */
void rs_place_vacate (rs_places *p, unsigned place);

/* [-0, +1, -]  Push the value at 'place', and return its type.  Any number may
   be passed: nil is pushed when it is no place, or the place has no value.  A
   handle that is collected is gone before its finalizer runs. */
int rs_place_push (lua_State *L, const rs_places *p, unsigned place);

/* Return the number that follows the last place. */
unsigned rs_places_end (const rs_places *p);

#endif
