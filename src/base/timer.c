/* SPDX-License-Identifier: MIT */
/*
 * timer.c - calls at given instants, on one thread for all of them.
 *
 * The timers that are set stand in one list, in the order of their instants.
 * The list is searched from its end, since most timers are set with the same
 * delay, one after another, and belong there.
 */
#include "base/timer.h"

#include <stdatomic.h>

#include <pthread.h>
#include <signal.h>

#include "base/clock.h"
#include "base/fork.h"

enum { STACK_SIZE = 256 << 10 };

static struct {
  pthread_mutex_t lock;   /* guards the fields down to the blank line */
  rs_list set;            /* timers that are set, in the order of 'due' */
  rs_timer *firing;       /* the timer whose 'fire' runs, or NULL */
  unsigned holders;
  bool started;           /* 'thread' runs, and was not told to end */
  pthread_t thread;
  pthread_cond_t earlier; /* the first of 'set' has changed, or !started */
  pthread_cond_t fired;   /* 'firing' has changed */

} timers = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .set = { &timers.set, &timers.set },
  .fired = PTHREAD_COND_INITIALIZER,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
init (void)
{
  rs_cond_init(&timers.earlier);
}

static rs_timer *
first_locked (void)
{
  return rs_list_empty(&timers.set) ? NULL
         : RS_LIST_ENTRY(timers.set.next, rs_timer, link);
}

static void *
run (void *arg)
{
  (void) arg;
  const pthread_t self = pthread_self();
  pthread_mutex_lock(&timers.lock);
  /* A new thread may have been started after this one was told to end. */
  while (timers.started && pthread_equal(timers.thread, self)) {
    rs_timer *const timer = first_locked();
    const double due = timer != NULL ? timer->due : RS_NEVER;
    if (due > rs_now()) {
      rs_cond_wait_until(&timers.earlier, &timers.lock, due);
      continue;
    }
    rs_list_remove(&timer->link);
    timers.firing = timer;
    pthread_mutex_unlock(&timers.lock);
    timer->fire(timer);
    pthread_mutex_lock(&timers.lock);
    timers.firing = NULL;
    pthread_cond_broadcast(&timers.fired);
  }
  pthread_mutex_unlock(&timers.lock);
  return NULL;
}

/* Start the timer thread, with all signals blocked.  False when the system
   gives none. */
static bool
start_locked (void)
{
  pthread_attr_t attr;
  sigset_t all, old;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  timers.started = pthread_create(&timers.thread, &attr, run, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  return timers.started;
}

void
rs_timers_hold (void)
{
  pthread_once(&once, init);
  pthread_mutex_lock(&timers.lock);
  timers.holders++;
  pthread_mutex_unlock(&timers.lock);
}

void
rs_timers_drop (void)
{
  pthread_mutex_lock(&timers.lock);
  const bool end = --timers.holders == 0 && timers.started;
  const pthread_t thread = timers.thread;
  if (end) {
    timers.started = false;
    pthread_cond_broadcast(&timers.earlier);
  }
  pthread_mutex_unlock(&timers.lock);
  if (end)
    pthread_join(thread, NULL);
}

bool
rs_timers_start (void)
{
  pthread_mutex_lock(&timers.lock);
  const bool ok = timers.started || (timers.holders > 0 && start_locked());
  pthread_mutex_unlock(&timers.lock);
  return ok;
}

void
rs_timer_init (rs_timer *timer, void (*fire) (rs_timer *timer))
{
  timer->fire = fire;
  rs_list_init(&timer->link);
  timer->due = RS_NEVER;
  atomic_init(&timer->used, false);
}

bool
rs_timer_set (rs_timer *timer, double due)
{
  atomic_store(&timer->used, true);
  pthread_mutex_lock(&timers.lock);
  /* A thread is started only while there are holders. */
  const bool ok = timers.started || (timers.holders > 0 && start_locked());
  const bool set = !rs_list_empty(&timer->link);
  if (ok && due != RS_NEVER && !(set && timer->due <= due)) {
    rs_list_remove(&timer->link);
    timer->due = due;
    rs_list *after = timers.set.prev;
    while (after != &timers.set
           && RS_LIST_ENTRY(after, rs_timer, link)->due > due)
      after = after->prev;
    rs_list_push_front(after, &timer->link);
    if (first_locked() == timer)
      pthread_cond_broadcast(&timers.earlier);
  }
  pthread_mutex_unlock(&timers.lock);
  return ok;
}

void
rs_timer_clear (rs_timer *timer)
{
  if (!atomic_load(&timer->used))  /* most timers are never set */
    return;
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  pthread_mutex_lock(&timers.lock);
  rs_list_remove(&timer->link);
  while (timers.firing == timer
         && !pthread_equal(timers.thread, pthread_self()))
    pthread_cond_wait(&timers.fired, &timers.lock);
  rs_list_remove(&timer->link);  /* 'fire' may have set it again */
  pthread_mutex_unlock(&timers.lock);
  pthread_setcancelstate(state, NULL);
}

/* Forget the timers, the holders and the thread in a child. */
static void
begin_child (void)
{
  pthread_mutex_init(&timers.lock, NULL);
  rs_list_init(&timers.set);
  timers.firing = NULL;
  timers.holders = 0;
  timers.started = false;
  rs_cond_init(&timers.earlier);
  pthread_cond_init(&timers.fired, NULL);
}

RS_IN_CHILD(begin_child)
