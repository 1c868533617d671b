/* SPDX-License-Identifier: MIT */
/*
 * identity.h - which objects an encoder has sent, by their addresses.
 *
 * A hash finds the number of an object that was sent before, so that the
 * object is sent once.  The encoder forgets all objects by a new generation;
 * the entries of older generations are free.
 */
#ifndef RS_IDENTITY_H
#define RS_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An object that was sent. */
typedef struct rs_seen {
  const void *object;       /* the object, or the cell of an upvalue */
  unsigned id;              /* number of the object, or of the cell's
                               function */
  unsigned upvalue : 8;     /* index of the cell in that function; 0: an
                               object */
  unsigned passing : 1;     /* '__transfer' made it: it dies with this value */
  unsigned later : 1;       /* the contents will follow the value */
  unsigned common : 1;      /* a table that both sides have, and that goes by
                               its number there, which is 'id' */
  unsigned generation : 21; /* when it is another one, the entry is free */
} rs_seen;

/* The largest 'generation' of an rs_seen. */
enum { RS_GENERATION_MAX = 0x1fffff };

typedef struct rs_identities {
  rs_seen *seen;          /* hash by address; NULL until first needed */
  size_t room;            /* a power of two, or 0 */
  size_t count;           /* entries of the current generation */
  unsigned generation;
  bool passing;           /* entries may be 'passing' */
} rs_identities;

#define RS_IDENTITIES_INIT { .seen = NULL }

void rs_identities_fini (rs_identities *o);

/* Forget all objects, keep the memory.  Needed before the first one is
   seen. */
void rs_identities_forget (rs_identities *o);

/* Forget the objects from number 'id' on: their bytes are taken back.  Tables
   that both sides have stay. */
void rs_identities_drop_from (rs_identities *o, unsigned id);

/* Forget the objects that '__transfer' made for an earlier value.  Such
   objects may be freed by now, and others may have their addresses. */
void rs_identities_drop_passing (rs_identities *o);

/* Make room for more objects; false when out of memory. */
bool rs_identities_grow (rs_identities *o);

/* The entry of 'object', or the free entry where it belongs. */
static inline rs_seen *
rs_identity_slot (const rs_identities *o, const void *object)
{
  const uint64_t hash = (uint64_t) (uintptr_t) object * 0x9e3779b97f4a7c15u;
  size_t i = (size_t) (hash >> 32) & (o->room - 1);
  while (o->seen[i].generation == o->generation
         && o->seen[i].object != object)
    i = (i + 1) & (o->room - 1);
  return &o->seen[i];
}

/*
 * Find the entry of 'object', or make it for object number 'id'; 'found' tells
 * which.  'passing': '__transfer' has made the object.  The entry stays until
 * the next one is made.  NULL when out of memory.
 */
static inline rs_seen *
rs_identity_see (rs_identities *o, const void *object, unsigned id,
                 bool passing, bool *found)
{
  if (o->count * 4 >= o->room * 3 && !rs_identities_grow(o))
    return NULL;
  rs_seen *const s = rs_identity_slot(o, object);
  *found = s->generation == o->generation;
  if (!*found) {
    *s = (rs_seen) { .object = object, .id = id, .passing = passing,
                     .generation = o->generation & RS_GENERATION_MAX };
    o->count++;
    o->passing |= passing;
  }
  return s;
}

#endif
