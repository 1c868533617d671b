/* SPDX-License-Identifier: MIT */
/*
 * waker.c - a descriptor by which other threads wake one that waits in
 * poll(2).
 */
#include "reach/waker.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void
ref (void *object)
{
  atomic_fetch_add_explicit(&((rs_waker *) object)->refs, 1,
                            memory_order_relaxed);
}

static void
unref (void *object)
{
  rs_waker *const w = object;
  if (atomic_fetch_sub_explicit(&w->refs, 1, memory_order_acq_rel) != 1)
    return;
  close(w->fd);
  free(w);
}

/* rs_sleeper: an eventfd keeps the wake-up until the thread looks. */
static void
wake (void *object)
{
  const uint64_t one = 1;
  const ssize_t n = write(((rs_waker *) object)->fd, &one, sizeof one);
  (void) n;  /* one that is full is readable, too */
}

rs_waker *
rs_waker_new (void)
{
  rs_waker *const w = malloc(sizeof *w);
  if (w == NULL)
    return NULL;
  atomic_init(&w->refs, 1);
  w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (w->fd < 0) {
    free(w);
    return NULL;
  }
  return w;
}

void
rs_waker_unref (rs_waker *w)
{
  unref(w);
}

void
rs_waker_take (const rs_waker *w)
{
  uint64_t n;
  const ssize_t got = read(w->fd, &n, sizeof n);
  (void) got;
}

rs_sleeper
rs_waker_sleeper (rs_waker *w)
{
  return (rs_sleeper) {
    .wake = wake, .ref = ref, .unref = unref, .object = w, .returns = true
  };
}
