/* SPDX-License-Identifier: MIT */
/*
 * event.c - where a host waits: a queue of notices, a wake-up, and a
 * descriptor for other event loops.
 *
 * 'woken' remembers a wake-up until the next wait, so a host that looks at
 * what it waits for, finds nothing, and then waits, misses none.  While
 * 'woken' is set the host will look anyway, so the end of most jobs takes no
 * lock: 'rs_events_stir'.
 *
 * The descriptor is the reading end of a pipe.  While another event loop may
 * watch it, or the host sleeps at it, the pipe holds one byte as long as
 * 'woken' is set or the queue is not empty.  Once there is a pipe the host
 * sleeps at the pipe, not at the condition: signal handlers can wake it only
 * there.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pipe2 */
#endif
#include "pool/event.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cache.h"
#include "state/cancel.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/options.h"
#include "base/spin.h"

enum { LOOKS = 500 };  /* for a job that ends: some 25 us, half of what
                          sleeping costs */

enum { SPARES = 2048 };  /* spare jobs at most: as many as the collector frees
                            in a row */

/* Fields are grouped by cache line: what workers read with each job, and a
   spinning thread looks at; what is done under the lock; what the host changes
   with each job. */
struct rs_events {
  _Alignas(RS_LINE)
  _Atomic unsigned listening;  /* RS_LISTEN_; set by the host, read by
                                  workers */
  _Atomic bool closed;         /* set by the host, read by workers */
  _Atomic bool awoken;         /* 'woken', read without the lock */
  _Atomic bool stirred;        /* woken || some, and set with 'poked'; read
                                  without the lock */
  _Atomic bool some;           /* 'queue' is not empty; read without the
                                  lock */
  _Atomic bool poked;          /* set by a signal handler */
  pthread_t owner;             /* the thread of the host; constant, as the next
                                  one */
  unsigned born;               /* generation: fork.h */

  _Alignas(RS_LINE)
  pthread_mutex_t lock;        /* guards down to the blank line */
  rs_job_lists jobs;
  rs_list queue;               /* notices, oldest first */
  bool woken;
  bool pokable;                /* a host that waits makes the pipe, and sleeps
                                  there */
  bool watched;                /* the descriptor was given to the caller */
  bool sleeping;               /* the host waits at the pipe */
  unsigned waiting;            /* threads that wait at 'ready' */
  bool lit;                    /* our byte is in the pipe */
  int fds[2];                  /* of the pipe; -1 until it is asked for */
  pthread_cond_t ready;        /* woken || !empty(queue) */

  _Alignas(RS_LINE)
  _Atomic unsigned refs;
  rs_notice **spares;          /* of spare jobs, the last one last; an array,
                                  since nothing may be written to the jobs;
                                  owned; for the host's thread only, as the
                                  next ones */
  unsigned n_spares, spares_room;
  void (*free_spare) (rs_events *e, rs_notice *n);
};

rs_events *
rs_events_new (void)
{
  rs_events *const e = aligned_alloc(RS_LINE, sizeof *e);
  if (e == NULL)
    return NULL;
  memset(e, 0, sizeof *e);
  atomic_init(&e->refs, 1);
  e->owner = pthread_self();
  e->born = rs_fork_now();
  rs_mutex_init(&e->lock);
  rs_cond_init(&e->ready);
  rs_list_init(&e->queue);
  rs_list_init(&e->jobs.blocks);
  rs_list_init(&e->jobs.vacant);
  e->fds[0] = e->fds[1] = -1;
  return e;
}

rs_events *
rs_events_ref (rs_events *e)
{
  if (e != NULL)
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
  return e;
}

void
rs_events_unref (rs_events *e)
{
  /* Release our reads and writes to the thread that frees. */
  if (e == NULL || rs_events_foreign(e)
      || atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
    return;
  int state;
  for (unsigned i = 0; i < e->n_spares; i++)
    e->free_spare(e, e->spares[i]);
  free(e->spares);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  if (e->fds[0] >= 0) {
    close(e->fds[0]);
    close(e->fds[1]);
  }
  pthread_setcancelstate(state, NULL);
  pthread_mutex_destroy(&e->lock);
  pthread_cond_destroy(&e->ready);
  free(e);
}

/* Set the flag only if that changes it, so that a thread that looks at it
   keeps the cache line.  Sequentially consistent, for 'rs_events_stir'. */
static void
set (_Atomic bool *flag, bool value)
{
  if (atomic_load_explicit(flag, memory_order_relaxed) != value)
    atomic_store(flag, value);
}

/* Let 'some', 'awoken', 'stirred' and our byte in the pipe follow what there
   is to do. */
static void
light_locked (rs_events *e)
{
  const bool some = !rs_list_empty(&e->queue);
  const bool want = (e->woken || some) && (e->watched || e->sleeping);
  char bytes[64] = { 1 };
  int state;
  set(&e->some, some);
  set(&e->awoken, e->woken);
  set(&e->stirred, e->woken || some);
  if (e->fds[0] < 0 || want == e->lit)
    return;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);  /* uncancelled */
  if (want)
    e->lit = write(e->fds[1], bytes, 1) == 1;
  else {  /* with the bytes of signal handlers */
    while (read(e->fds[0], bytes, sizeof bytes) == sizeof bytes)
      ;
    e->lit = false;
  }
  pthread_setcancelstate(state, NULL);
}

/* Move 'fd' above the descriptors of the standard files, which may be
   closed. */
static int
move_up (int fd)
{
  if (fd > STDERR_FILENO)
    return fd;
  const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(fd);
  return higher;
}

/* Make the pipe, unless there is one, or none can be had. */
static void
make_pipe_locked (rs_events *e)
{
  int fds[2];
  if (e->fds[0] >= 0 || pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
    return;
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  const int out = move_up(fds[0]), in = move_up(fds[1]);
  if (out >= 0 && in >= 0) {
    e->fds[1] = in;
    e->fds[0] = out;
  }
  else {
    if (out >= 0)
      close(out);
    if (in >= 0)
      close(in);
  }
  pthread_setcancelstate(state, NULL);
}

void
rs_events_set_pokable (rs_events *e)
{
  if (e == NULL || rs_events_foreign(e))
    return;
  pthread_mutex_lock(&e->lock);
  e->pokable = true;
  pthread_mutex_unlock(&e->lock);
}

void
rs_events_poke (rs_events *e)
{
  /* The byte comes second: a host that finds the byte finds the flag.  Without
     a pipe no host sleeps there, and the flag is looked at before it
     sleeps. */
  static const char byte = 1;
  int state;
  if (e == NULL || rs_events_foreign(e))  /* the pipe is the parent's */
    return;
  atomic_store(&e->poked, true);
  atomic_store_explicit(&e->stirred, true, memory_order_relaxed);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  const ssize_t n = e->fds[1] >= 0 ? write(e->fds[1], &byte, 1) : 0;
  (void) n;  /* a full pipe wakes as well */
  pthread_setcancelstate(state, NULL);
}

int
rs_events_fileno (rs_events *e)
{
  if (e == NULL || rs_events_foreign(e)) {
    errno = EINVAL;
    return -1;
  }
  pthread_mutex_lock(&e->lock);
  make_pipe_locked(e);
  e->watched = true;
  light_locked(e);
  const int fd = e->fds[0];
  pthread_mutex_unlock(&e->lock);
  return fd;
}

/* ----------------------------------------------------------------- waiting */

static void
tell_locked (rs_events *e)
{
  if (e->waiting > 0)
    pthread_cond_signal(&e->ready);
}

void
rs_events_wake (rs_events *e)
{
  if (e == NULL || rs_events_foreign(e))
    return;
  pthread_mutex_lock(&e->lock);
  if (!e->woken) {
    e->woken = true;
    tell_locked(e);
    light_locked(e);
  }
  pthread_mutex_unlock(&e->lock);
}

/* Cleanup: the thread is cancelled while it sleeps at the pipe. */
static void
stop_sleeping (void *object)
{
  rs_events *const e = object;
  pthread_mutex_lock(&e->lock);
  e->sleeping = false;
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
}

/* Sleep at the pipe; the lock is free meanwhile.  RS_OK, which may be
   spurious, or RS_ETIMEOUT. */
static int
sleep_locked (rs_events *e, double deadline)
{
  struct pollfd end = { .fd = e->fds[0], .events = POLLIN };
  const double left = rs_remaining(deadline);
  /* Rounded up: a thread that wakes up early goes round in a circle. */
  const int ms = left < 0 ? -1 : left > 1e6 ? 1000000000
               : (int) ceil(left * 1e3);
  int n;
  e->sleeping = true;
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
  pthread_cleanup_push(stop_sleeping, e);
  n = poll(&end, 1, ms);
  pthread_cleanup_pop(0);
  pthread_mutex_lock(&e->lock);
  e->sleeping = false;
  return n == 0 && rs_remaining(deadline) == 0 ? RS_ETIMEOUT : RS_OK;
}

/* Sleep at 'ready'; the lock is free meanwhile.  RS_OK, which may be spurious,
   or RS_ETIMEOUT. */
static int
doze_locked (rs_events *e, double deadline)
{
  return rs_cond_wait_counted(&e->ready, &e->lock, deadline, &e->waiting);
}

static bool
is_stirred (const void *ud)
{
  const rs_events *const e = ud;
  return atomic_load_explicit(&e->stirred, memory_order_relaxed);
}

/* The wait of a host. */
typedef struct wish {
  rs_events *e;
  bool (*ready) (const void *ud);  /* what the host waits for; or NULL: for any
                                      wake-up */
  const void *ud;
  rs_cancel *mine;                 /* of the calling thread, or NULL */
} wish;

/* True when what a host waits for is there, or there is something else for the
   host: a notice or a poke.  'woken' does not count, since it may be old. */
static bool
is_there (const void *ud)
{
  const wish *const w = ud;
  return w->ready(w->ud)
      || atomic_load_explicit(&w->e->some, memory_order_relaxed)
      || atomic_load_explicit(&w->e->poked, memory_order_relaxed);
}

/* Forget that the host was woken, which may be for something that is over:
   whatever comes from now on wakes the host again.  True when there is nothing
   to wait for. */
static bool
is_over_locked (const wish *w)
{
  rs_events *const e = w->e;
  if (w->ready == NULL)
    return false;
  e->woken = false;
  light_locked(e);
  return w->ready(w->ud) || rs_cancel_pending(w->mine);
}

static int
wait_here (const wish *w, double timeout)
{
  rs_events *const e = w->e;
  const double deadline = rs_deadline(timeout);
  int status = RS_OK;
  if (timeout != 0 && w->ready == NULL)
    rs_spin(is_stirred, e);
  else if (timeout != 0)
    rs_spin(is_there, w);
  if (w->ready != NULL && w->ready(w->ud))
    return RS_OK;
  pthread_mutex_lock(&e->lock);
  if (is_over_locked(w)) {
    pthread_mutex_unlock(&e->lock);
    return RS_OK;
  }
  if (e->pokable && timeout != 0)
    make_pipe_locked(e);
  while (!e->woken && rs_list_empty(&e->queue) && status == RS_OK
         && !atomic_load(&e->poked))
    status = timeout == 0 ? RS_ETIMEOUT
           : e->fds[0] >= 0 ? sleep_locked(e, deadline)
           : doze_locked(e, deadline);
  if (e->woken || !rs_list_empty(&e->queue))
    status = RS_OK;
  e->woken = false;
  if (atomic_exchange(&e->poked, false)) {
    status = RS_OK;
    e->lit = true;  /* the handler's byte is taken out with ours */
  }
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
  return status;
}

static void
wake_object (void *object)
{
  rs_events_wake(object);
}

static void
ref_object (void *object)
{
  rs_events_ref(object);
}

static void
unref_object (void *object)
{
  rs_events_unref(object);
}

int
rs_events_wait_for (rs_events *e, double timeout,
                    bool (*ready) (const void *ud), const void *ud)
{
  rs_cancel *const mine = timeout != 0 ? rs_cancel_mine() : NULL;
  const wish w = { e, ready, ud, mine };
  const rs_sleeper sleeper = {
    .wake = wake_object, .ref = ref_object, .unref = unref_object, .object = e
  };
  rs_cancel_sleeps(mine, &sleeper);
  const int status = rs_cancel_pending(mine) ? RS_OK : wait_here(&w, timeout);
  rs_cancel_wakes(mine);
  return status;
}

bool
rs_events_look_for (rs_events *e, bool (*ready) (const void *ud),
                    const void *ud)
{
  const wish w = { e, ready, ud, NULL };
  rs_spin_few(is_there, &w, LOOKS);
  return ready(ud) && !rs_events_pending(e);
}

int
rs_events_wait (rs_events *e, double timeout)
{
  if (e == NULL || rs_events_foreign(e)
      || rs_check_wait(&timeout, NULL) != RS_OK)
    return RS_EINVAL;
  return rs_events_wait_for(e, timeout, NULL, NULL);
}

bool
rs_events_pending (rs_events *e)
{
  /* A thread that has to see a notice was told of it under the lock. */
  return e != NULL && atomic_load_explicit(&e->some, memory_order_acquire)
      && !rs_events_foreign(e);
}

void
rs_events_listen (rs_events *e, unsigned mask)
{
  if (e == NULL)
    return;
  atomic_store_explicit(&e->listening, mask, memory_order_relaxed);
}

unsigned
rs_events_listening (const rs_events *e)
{
  return atomic_load_explicit(&e->listening, memory_order_relaxed);
}

bool
rs_events_mine (const rs_events *e)
{
  return pthread_equal(e->owner, pthread_self());
}

bool
rs_events_foreign (const rs_events *e)
{
  return rs_fork_is_foreign(e->born);
}

/* ----------------------------------------------------------------- notices */

bool
rs_events_post (rs_events *e, rs_notice *n)
{
  pthread_mutex_lock(&e->lock);
  const bool post = !rs_events_closed(e) && rs_list_empty(&n->queued);
  if (post) {
    rs_list_push(&e->queue, &n->queued);
    tell_locked(e);
    light_locked(e);
  }
  pthread_mutex_unlock(&e->lock);
  return post;
}

rs_notice *
rs_events_take (rs_events *e)
{
  pthread_mutex_lock(&e->lock);
  rs_list *const link = rs_list_shift(&e->queue);
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
  return link != NULL ? RS_LIST_ENTRY(link, rs_notice, queued) : NULL;
}

rs_job_lists *
rs_events_lock (rs_events *e)
{
  pthread_mutex_lock(&e->lock);
  return &e->jobs;
}

void
rs_events_unlock (rs_events *e)
{
  pthread_mutex_unlock(&e->lock);
}

bool
rs_events_finish (rs_events *e, rs_notice *n, void (*settle) (rs_notice *n))
{
  pthread_mutex_lock(&e->lock);
  const bool queue = !rs_events_closed(e) && rs_list_empty(&n->queued);
  if (queue)
    rs_list_push(&e->queue, &n->queued);
  e->woken = true;
  light_locked(e);
  settle(n);  /* a host that finds it settled without the lock finds it in the
                 queue */
  tell_locked(e);
  pthread_mutex_unlock(&e->lock);
  return queue;
}

void
rs_events_stir (rs_events *e)
{
  /* Sequentially consistent: a host that waits clears 'awoken', and then looks
     at what was stored; here something was stored, and then 'awoken' is looked
     at.  So one of the two threads sees what the other has done.  'stirred'
     would not do: what else stirs the host may be over before the host
     looks. */
  if (!atomic_load(&e->awoken))
    rs_events_wake(e);
}

rs_notice *
rs_events_get_spare (rs_events *e)
{
  if (!rs_events_mine(e) || e->n_spares == 0)
    return NULL;
  return e->spares[--e->n_spares];
}

unsigned
rs_events_spares (const rs_events *e)
{
  return rs_events_mine(e) ? e->n_spares : 0;
}

bool
rs_events_reserve_spares (rs_events *e, unsigned n)
{
  unsigned room = e->spares_room > 0 ? e->spares_room : 16;
  while (room < e->n_spares + n)
    room *= 2;
  if (room == e->spares_room)
    return true;
  rs_notice **const spares = room > SPARES ? NULL
                           : realloc(e->spares, room * sizeof *spares);
  if (spares == NULL)
    return false;
  e->spares = spares;
  e->spares_room = room;
  return true;
}

bool
rs_events_put_spare (rs_events *e, rs_notice *n,
                     void (*free) (rs_events *e, rs_notice *n))
{
  if (!rs_events_mine(e)
      || (e->n_spares == e->spares_room && !rs_events_reserve_spares(e, 1)))
    return false;
  e->free_spare = free;
  e->spares[e->n_spares++] = n;
  return true;
}

bool
rs_events_closed (const rs_events *e)
{
  return atomic_load_explicit(&e->closed, memory_order_relaxed);
}

void
rs_events_set_closed (rs_events *e)
{
  pthread_mutex_lock(&e->lock);  /* a thread that posts now is done, or will
                                    see it closed */
  atomic_store_explicit(&e->closed, true, memory_order_relaxed);
  pthread_mutex_unlock(&e->lock);
}
