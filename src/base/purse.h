/* SPDX-License-Identifier: MIT */
/*
 * purse.h - references to an object, taken and given back many at a time.
 *
 * A job has references to its host's events, to its queue and to its function.
 * To count each of them up and down by an atomic operation, which has to wait
 * for all that was written before, is a tenth of what a small job costs its
 * host.  So the host has a purse of references for each: what is in it is
 * counted in the object as any other reference.  One thread only.
 */
#ifndef RS_PURSE_H
#define RS_PURSE_H

#include <stddef.h>

enum { RS_PURSE = 64 };  /* taken at once; it has twice as many at most */

/* Count so many more, and so many less, which may free it. */
typedef struct rs_purse_kind {
  void (*take) (void *object, unsigned n);
  void (*give) (void *object, unsigned n);
} rs_purse_kind;

typedef struct rs_purse {
  const rs_purse_kind *kind;
  void *object;            /* of which it has references; or NULL */
  unsigned n;
} rs_purse;

static inline void
rs_purse_empty (rs_purse *p)
{
  void *const object = p->object;
  const unsigned n = p->n;
  p->object = NULL;
  p->n = 0;
  if (n > 0)
    p->kind->give(object, n);
}

/* A reference to 'object', of which the caller has one. */
static inline void
rs_purse_take (rs_purse *p, const rs_purse_kind *kind, void *object)
{
  if (p->object != object) {
    rs_purse_empty(p);
    p->kind = kind;
    p->object = object;
  }
  if (p->n == 0) {
    kind->take(object, RS_PURSE);
    p->n = RS_PURSE;
  }
  p->n--;
}

/* Give back the caller's reference to 'object'. */
static inline void
rs_purse_give (rs_purse *p, const rs_purse_kind *kind, void *object)
{
  if (p->object != object) {
    kind->give(object, 1);
    return;
  }
  if (p->n == 2 * RS_PURSE) {
    p->n = RS_PURSE;
    kind->give(object, RS_PURSE);
  }
  p->n++;
}

#endif
