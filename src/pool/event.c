/* SPDX-License-Identifier: MIT */
/*
 * event.c - where a host waits: a queue of notices, a wake-up, and a
 * descriptor for other event loops.
 *
 * Two flags say what a host has to do.  'some' is true while a notice is
 * queued.  'woken' tells the host to look again at all that it waits for: a
 * wait that finds only 'woken' set clears it and ends.  So a wake-up is kept
 * until the next wait, and a host that looks, finds nothing, and then waits,
 * misses none.
 *
 * Why no wake-up is missed:
 *
 * - 'some', and 'woken' but for signal handlers, are set under the lock, and
 *   the thread that sets one of them rings the bell if a thread waits for it.
 *   A host counts itself as waiting, and looks at both flags, under the lock
 *   before it sleeps at the bell, which keeps each ring.
 * - A thread that ends a job marks it as settled without the lock, then loads
 *   'woken', and takes the lock only if it is not set: 'rs_events_stir'.  A
 *   host clears 'woken' as a wait ends, and loads the mark after that: in its
 *   caller, or in the next wait before it sleeps.  These two stores and two
 *   loads are sequentially consistent, so one of the threads sees what the
 *   other has stored: the host finds the job settled, or the thread finds
 *   'woken' cleared and wakes the host.
 * - A signal handler may not lock: it sets 'woken' and then rings the bell.
 *
 * The bell is rung after the lock was given up, so that the host, which may
 * run at once in place of the thread that rings, need not wait for the lock.
 *
 * The descriptor is that of a lamp (lamp.h), which is lit as long as one of
 * the flags is set.
 */
#include "pool/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bell.h"
#include "base/cache.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/lamp.h"
#include "base/options.h"
#include "base/spin.h"
#include "pool/face.h"
#include "state/cancel.h"

enum { LOOKS = 500 };  /* for a job that ends: some 25 us, half of what
                          sleeping costs */

/* Fields are grouped by cache line: what workers read with each job, and a
   spinning thread looks at; what is done under the lock; the memory of
   jobs. */
struct rs_events {
  _Alignas(RS_LINE)
  _Atomic unsigned listening;  /* RS_LISTEN_; set by the host, read by
                                  workers */
  _Atomic bool closed;         /* set by the host, read by workers */
  _Atomic bool woken;          /* the host is to look again */
  _Atomic bool some;           /* 'queue' is not empty; written under the
                                  lock */
  pthread_t owner;             /* the thread of the host; constant, as the next
                                  one */
  unsigned born;               /* generation: fork.h */
  _Atomic(rs_events *) heir;   /* in a child of fork(2): where the host waits
                                  instead, a hold; set by the host's thread,
                                  read by its signal handlers; or NULL */

  _Alignas(RS_LINE)
  pthread_mutex_t lock;        /* guards down to the blank line */
  rs_list queue;               /* notices, oldest first */
  rs_lamp lamp;                /* open once the caller has the descriptor */
  unsigned waiting;            /* threads that wait at the bell */
  rs_bell bell;                /* rung without the lock */

  _Alignas(RS_LINE)
  _Atomic unsigned refs;       /* of the program; together they are a hold */
  _Atomic unsigned holds;      /* who needs the memory: these, jobs, threads */
  rs_job_memory memory;
};

rs_events *
rs_events_new (void)
{
  rs_events *const e = aligned_alloc(RS_LINE, sizeof *e);
  if (e == NULL)
    return NULL;
  memset(e, 0, sizeof *e);
  atomic_init(&e->refs, 1);
  atomic_init(&e->holds, 1);
  e->owner = pthread_self();
  e->born = rs_fork_now();
  rs_mutex_init(&e->lock);
  rs_lamp_init(&e->lamp);
  rs_bell_init(&e->bell);
  rs_list_init(&e->queue);
  rs_mutex_init(&e->memory.lock);
  rs_list_init(&e->memory.blocks);
  return e;
}

rs_events *
rs_events_ref (rs_events *e)
{
  if (e != NULL)
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
  return e;
}

bool
rs_events_give_back (rs_events *e)
{
  return atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) == 1;
}

rs_events *
rs_events_hold (rs_events *e)
{
  if (e != NULL)
    atomic_fetch_add_explicit(&e->holds, 1, memory_order_relaxed);
  return e;
}

void
rs_events_drop (rs_events *e)
{
  /* Release our reads and writes to the thread that frees. */
  if (e == NULL || rs_events_foreign(e)
      || atomic_fetch_sub_explicit(&e->holds, 1, memory_order_acq_rel) != 1)
    return;
  rs_list *block;
  while ((block = rs_list_shift(&e->memory.blocks)) != NULL)
    free(block);
  rs_lamp_fini(&e->lamp);
  pthread_mutex_destroy(&e->memory.lock);
  pthread_mutex_destroy(&e->lock);
  rs_bell_fini(&e->bell);
  free(e);
}

/* True when the lamp is to be lit. */
static bool
is_bright_locked (const rs_events *e)
{
  return rs_lamp_is_open(&e->lamp)
      && (atomic_load(&e->woken) || atomic_load(&e->some));
}

/* Let the lamp follow what there is to do.  In a loop, since a signal handler
   may come between any two steps. */
static void
light_locked (rs_events *e)
{
  while (rs_lamp_is_lit(&e->lamp) != is_bright_locked(e))
    rs_lamp_set(&e->lamp, !rs_lamp_is_lit(&e->lamp));
}

/* Give up the lock, and wake the host, whose flags have changed.  The caller
   has a reference to the events. */
static void
unlock_and_tell (rs_events *e)
{
  const bool waits = e->waiting > 0;
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
  if (waits)
    rs_bell_ring(&e->bell);
}

void
rs_events_poke (rs_events *e)
{
  while (e != NULL && rs_events_foreign(e))  /* the lamp is the parent's */
    e = atomic_load(&e->heir);
  if (e == NULL)
    return;
  atomic_store(&e->woken, true);
  rs_lamp_flash(&e->lamp);
  rs_bell_ring(&e->bell);
}

void
rs_events_replace (rs_events *e, rs_events *heir)
{
  atomic_store(&e->heir, rs_events_hold(heir));
}

int
rs_events_fileno (rs_events *e)
{
  if (e == NULL || rs_events_foreign(e)) {
    errno = EINVAL;
    return -1;
  }
  pthread_mutex_lock(&e->lock);
  if (rs_lamp_open(&e->lamp))
    light_locked(e);
  const int fd = e->lamp.out;
  pthread_mutex_unlock(&e->lock);
  return fd;
}

/* ----------------------------------------------------------------- waiting */

/* What this thread does before it waits; or NULL. */
static _Thread_local bool (*help_of_thread) (void);

void
rs_events_set_help (bool (*help) (void))
{
  help_of_thread = help;
}

bool
rs_events_help (void)
{
  return help_of_thread != NULL && help_of_thread();
}

void
rs_events_wake (rs_events *e)
{
  if (e == NULL || rs_events_foreign(e))
    return;
  pthread_mutex_lock(&e->lock);
  if (!atomic_exchange(&e->woken, true))
    unlock_and_tell(e);
  else
    pthread_mutex_unlock(&e->lock);
}

/* Count a thread that is cancelled at the bell no more. */
static void
stop_waiting (void *object)
{
  rs_events *const e = object;
  pthread_mutex_lock(&e->lock);
  e->waiting--;
  pthread_mutex_unlock(&e->lock);
}

/* Sleep at the bell; the lock is free meanwhile.  RS_OK, which may be
   spurious, or RS_ETIMEOUT. */
static int
sleep_locked (rs_events *e, double deadline)
{
  int status;
  e->waiting++;
  pthread_mutex_unlock(&e->lock);
  pthread_cleanup_push(stop_waiting, e);
  status = rs_bell_await(&e->bell, deadline);
  pthread_cleanup_pop(0);
  pthread_mutex_lock(&e->lock);
  e->waiting--;
  return status;
}

/* The wait of a host. */
typedef struct wish {
  rs_events *e;
  bool (*ready) (const void *ud);  /* what the host waits for; or NULL: for any
                                      wake-up */
  const void *ud;
} wish;

static bool
is_ready (const wish *w)
{
  return w->ready != NULL && w->ready(w->ud);
}

/* True when what the host waits for is there, or a notice; a wake-up may be
   for something that is over. */
static bool
is_there (const void *ud)
{
  const wish *const w = ud;
  return is_ready(w) || atomic_load(&w->e->some);
}

/* True when there is nothing to wait for. */
static bool
is_over (const void *ud)
{
  const wish *const w = ud;
  return is_there(w) || atomic_load(&w->e->woken);
}

static int
wait_here (const wish *w, double timeout)
{
  rs_events *const e = w->e;
  const double deadline = rs_deadline(timeout);
  int status = RS_OK;
  while (help_of_thread != NULL && !is_over(w)
         && !rs_cancel_pending(rs_cancel_mine()) && help_of_thread())
    if (timeout != RS_FOREVER && rs_now() >= deadline) {
      timeout = 0;
      break;
    }
  if (timeout != 0)
    rs_spin(is_over, w);
  if (is_ready(w))
    return RS_OK;
  pthread_mutex_lock(&e->lock);
  while (!is_over(w) && status == RS_OK)
    status = timeout == 0 ? RS_ETIMEOUT : sleep_locked(e, deadline);
  if (atomic_exchange(&e->woken, false) || is_there(w))
    status = RS_OK;
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
  rs_events_hold(object);
}

static void
unref_object (void *object)
{
  rs_events_drop(object);
}

int
rs_events_wait_for (rs_events *e, double timeout,
                    bool (*ready) (const void *ud), const void *ud)
{
  rs_cancel *const mine = timeout != 0 ? rs_cancel_mine() : NULL;
  const wish w = { e, ready, ud };
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
  const wish w = { e, ready, ud };
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

/* Queue the notice; false when it is queued already, or the events are
   closed. */
static bool
queue_locked (rs_events *e, rs_notice *n)
{
  if (rs_events_closed(e) || !rs_list_empty(&n->queued))
    return false;
  rs_list_push(&e->queue, &n->queued);
  atomic_store(&e->some, true);
  return true;
}

bool
rs_events_post (rs_events *e, rs_notice *n)
{
  pthread_mutex_lock(&e->lock);
  const bool queued = queue_locked(e, n);
  unlock_and_tell(e);
  return queued;
}

rs_notice *
rs_events_take (rs_events *e)
{
  pthread_mutex_lock(&e->lock);
  rs_list *const link = rs_list_shift(&e->queue);
  atomic_store(&e->some, !rs_list_empty(&e->queue));
  light_locked(e);
  pthread_mutex_unlock(&e->lock);
  return link != NULL ? RS_LIST_ENTRY(link, rs_notice, queued) : NULL;
}

rs_job_memory *
rs_events_memory (rs_events *e)
{
  return &e->memory;
}

bool
rs_events_finish (rs_events *e, rs_notice *n, void (*settle) (rs_notice *n))
{
  pthread_mutex_lock(&e->lock);
  const bool queued = queue_locked(e, n);
  atomic_store(&e->woken, true);
  settle(n);  /* a host that finds the job settled finds its notice queued */
  unlock_and_tell(e);
  return queued;
}

void
rs_events_stir (rs_events *e)
{
  if (!atomic_load(&e->woken))
    rs_events_wake(e);
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
