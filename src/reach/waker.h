/* SPDX-License-Identifier: MIT */
/*
 * waker.h - a descriptor by which other threads wake one that waits in
 * poll(2): an eventfd.
 *
 * A waker keeps a wake-up until its thread takes it.  Whoever is about to wake
 * has a reference, so a waker may outlive the thread that made it.
 */
#ifndef RS_WAKER_H
#define RS_WAKER_H

#include <stdatomic.h>

#include "state/cancel.h"

typedef struct rs_waker {
  _Atomic unsigned refs;   /* the owner, and threads that are about to wake */
  int fd;                  /* readable when somebody has woken the thread */
} rs_waker;

/* NULL, and 'errno', when there is no descriptor or no memory. */
rs_waker *rs_waker_new (void);
void rs_waker_unref (rs_waker *w);

/* Let the next poll(2) wait again. */
void rs_waker_take (const rs_waker *w);

/* A sleeper that is woken by the waker, which it does not keep. */
rs_sleeper rs_waker_sleeper (rs_waker *w);

#endif
