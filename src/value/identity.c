/* SPDX-License-Identifier: MIT */
/*
 * identity.c - which objects an encoder has sent, by their addresses.
 */
#include "value/identity.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/large.h"

/* The 'object' of entries that must not be found any more. */
static const char dropped = 0;

void
rs_identities_fini (rs_identities *o)
{
  rs_buf_free(o->seen, o->room * sizeof *o->seen);
  *o = (rs_identities) RS_IDENTITIES_INIT;
}

void
rs_identities_forget (rs_identities *o)
{
  o->count = 0;
  o->passing = false;
  if (++o->generation > RS_GENERATION_MAX) {  /* too large for an entry? */
    if (o->room > 0)
      memset(o->seen, 0, o->room * sizeof *o->seen);
    o->generation = 1;
  }
}

bool
rs_identities_grow (rs_identities *o)
{
  rs_identities next = *o;
  next.room = o->room == 0 ? 16 : o->room < 8192 ? o->room * 4 : o->room * 2;
  const size_t size = next.room * sizeof *next.seen;
  next.seen = size < RS_LARGE_FROM ? malloc(size) : rs_large_take(size);
  if (next.seen == NULL)
    return false;
  memset(next.seen, 0, size);
  next.count = 0;
  for (size_t i = 0; i < o->room; i++) {
    const rs_seen *const old = &o->seen[i];
    if (old->generation == o->generation && old->object != &dropped) {
      *rs_identity_slot(&next, old->object) = *old;
      next.count++;
    }
  }
  rs_buf_free(o->seen, o->room * sizeof *o->seen);
  *o = next;
  return true;
}

void
rs_identities_drop_from (rs_identities *o, unsigned id)
{
  for (size_t i = 0; i < o->room; i++)
    if (o->seen[i].generation == o->generation && o->seen[i].id >= id
        && !o->seen[i].common)
      o->seen[i].object = &dropped;
}

void
rs_identities_drop_passing (rs_identities *o)
{
  for (size_t i = 0; i < o->room; i++)
    if (o->seen[i].generation == o->generation && o->seen[i].passing)
      o->seen[i].object = &dropped;
  o->passing = false;
}
