/* SPDX-License-Identifier: MIT */
/*
 * purse.h - references to an object, taken and given back many at a time.
 *
 * A job has references to the events of its host, to its queue and to its
 * function.  To count each reference up and down by an atomic operation, which
 * has to wait for all earlier writes, is a tenth of what a small job costs its
 * host.  So the host has a purse of references for each of these objects; the
 * object counts references in the purse as any others.  Only one thread uses a
 * purse.
 */
#ifndef RS_PURSE_H
#define RS_PURSE_H

#include <stddef.h>

enum { RS_PURSE = 64 };  /* taken at once; a purse has up to twice as many */

/* Add 'n' references to the object, and give back 'n', which may free it. */
typedef struct rs_purse_kind {
  void (*take) (void *object, unsigned n);
  void (*give) (void *object, unsigned n);
} rs_purse_kind;

typedef struct rs_purse {
  const rs_purse_kind *kind;
  void *object;            /* the object of the references, or NULL */
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

/* Take a reference to 'object'; the caller has another one, so that the object
   exists. */
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
