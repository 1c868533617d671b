/* SPDX-License-Identifier: MIT */
/*
 * heart.c - the heart: one thread that keeps watch over all links.
 *
 * The thread sleeps at an epoll(7) descriptor until the next beat, or until
 * something comes at a link that rests.  Descriptors are there while their
 * link rests, and tell one time, so that what is not read yet does not keep
 * the thread awake.  An event names the pulse by its number, since the pulse
 * may be gone when the event is looked at.
 */
#include "reach/heart.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fork.h"
#include "base/status.h"

enum {
  STACK_SIZE = 256 << 10,
  EVENTS = 16              /* that are taken at a time */
};

/* What the thread has, and frees as its last deed but for the join. */
typedef struct engine {
  pthread_t thread;
  int epoll;
  int bell;                /* eventfd, with the number 0 in 'epoll': look
                              again */
  bool over;               /* guarded by the lock of the heart */
} engine;

static struct {
  pthread_mutex_t lock;    /* guards the fields down to the blank line */
  rs_list pulses;
  engine *engine;          /* NULL while there is no pulse */
  uint64_t ids;
  double awake;            /* instant until which the thread sleeps */
  pthread_cond_t given;    /* a pulse is not TAKEN any more */

} heart = {
  .lock = PTHREAD_MUTEX_INITIALIZER,
  .pulses = { &heart.pulses, &heart.pulses },
  .given = PTHREAD_COND_INITIALIZER,
};

/* -------------------------------------------------------------- the thread */

static void
ring (const engine *g)
{
  const uint64_t one = 1;
  const ssize_t n = write(g->bell, &one, sizeof one);
  (void) n;  /* one that is full is readable, too */
}

/* Let the descriptors of a pulse tell one time. */
static void
arm (const engine *g, const rs_pulse *p, int operation)
{
  for (int i = 0; i < 2; i++) {
    struct epoll_event e = {
      .events = EPOLLIN | EPOLLONESHOT, .data = { .u64 = p->id }
    };
    if (*p->fds[i] >= 0)
      epoll_ctl(g->epoll, operation, *p->fds[i], &e);
  }
}

/* Attend to a pulse: at its beat, or since something has come.  Releases the
   lock meanwhile. */
static void
attend_locked (engine *g, rs_pulse *p, bool beats)
{
  int state = atomic_load_explicit(&p->state, memory_order_relaxed);
  if (beats && state != RS_PULSE_LENT)
    atomic_fetch_add_explicit(&p->missed, 1, memory_order_relaxed);
  if (beats && state == RS_PULSE_OWNED) {
    atomic_store_explicit(&p->due, true, memory_order_relaxed);
    p->wake(p);
  }
  const bool reads = state == RS_PULSE_RESTING;
  if ((!reads && (state != RS_PULSE_LENT || !beats))
      || !atomic_compare_exchange_strong_explicit(&p->state, &state,
                                                  RS_PULSE_TAKEN,
                                                  memory_order_acquire,
                                                  memory_order_relaxed))
    return;
  pthread_mutex_unlock(&heart.lock);
  if (p->serve(p, beats, reads) && reads)
    arm(g, p, EPOLL_CTL_MOD);
  pthread_mutex_lock(&heart.lock);
  atomic_store_explicit(&p->state, state, memory_order_release);
  pthread_cond_broadcast(&heart.given);
}

/* The first pulse whose beat is due; NULL: none is, and '*next' is the instant
   of the next beat of all. */
static rs_pulse *
find_due_locked (double now, double *next)
{
  *next = RS_NEVER;
  for (rs_list *link = heart.pulses.next; link != &heart.pulses;
       link = link->next) {
    rs_pulse *const p = RS_LIST_ENTRY(link, rs_pulse, link);
    if (p->next <= now)
      return p;
    if (p->next < *next)
      *next = p->next;
  }
  return NULL;
}

/* Beat where it is time.  Returns the instant of the next beat. */
static double
beat_locked (engine *g)
{
  double next;
  const double now = rs_now();
  rs_pulse *p;
  while ((p = find_due_locked(now, &next)) != NULL) {
    p->next = now + p->interval;  /* what was missed is not made up for */
    rs_list_remove(&p->link);
    rs_list_push(&heart.pulses, &p->link);
    attend_locked(g, p, true);
  }
  return next;
}

static rs_pulse *
find_locked (uint64_t id)
{
  for (rs_list *link = heart.pulses.next; link != &heart.pulses;
       link = link->next) {
    rs_pulse *const p = RS_LIST_ENTRY(link, rs_pulse, link);
    if (p->id == id)
      return p;
  }
  return NULL;
}

/* Sleep until 'next', or something comes, and attend to that. */
static void
sleep_locked (engine *g, double next)
{
  struct epoll_event events[EVENTS];
  uint64_t rung;
  const double left = rs_remaining(next);
  heart.awake = next;
  pthread_mutex_unlock(&heart.lock);
  const int n = epoll_wait(g->epoll, events, EVENTS,
                           left == RS_FOREVER ? -1
                           : left < 1e6 ? (int) (left * 1e3) + 1
                                        : 1000000000);
  for (int i = 0; i < n; i++)
    if (events[i].data.u64 == 0) {
      const ssize_t got = read(g->bell, &rung, sizeof rung);
      (void) got;
    }
  pthread_mutex_lock(&heart.lock);
  for (int i = 0; i < n; i++) {
    rs_pulse *const p = events[i].data.u64 != 0
                      ? find_locked(events[i].data.u64) : NULL;
    if (p != NULL)
      attend_locked(g, p, false);
  }
}

static void *
run (void *arg)
{
  engine *const g = arg;
  pthread_mutex_lock(&heart.lock);
  while (!g->over)
    sleep_locked(g, beat_locked(g));
  pthread_mutex_unlock(&heart.lock);
  return NULL;
}

/* ------------------------------------------------------ starting, stopping */

static void
engine_free (engine *g)
{
  if (g->epoll >= 0)
    close(g->epoll);
  if (g->bell >= 0)
    close(g->bell);
  free(g);
}

/* Make the thread, with all signals blocked.  NULL, and an error number. */
static engine *
engine_new (int *code)
{
  pthread_attr_t attr;
  sigset_t all, old;
  struct epoll_event e = { .events = EPOLLIN, .data = { .u64 = 0 } };
  engine *const g = calloc(1, sizeof *g);
  *code = ENOMEM;
  if (g == NULL)
    return NULL;
  g->epoll = epoll_create1(EPOLL_CLOEXEC);
  g->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (g->epoll < 0 || g->bell < 0
      || epoll_ctl(g->epoll, EPOLL_CTL_ADD, g->bell, &e) != 0) {
    *code = errno;
    engine_free(g);
    return NULL;
  }
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  *code = pthread_create(&g->thread, &attr, run, g);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  if (*code == 0)
    return g;
  engine_free(g);
  return NULL;
}

int
rs_pulse_start (rs_pulse *p, double heartbeat, rs_error *err)
{
  int code = 0;
  p->interval = heartbeat == RS_FOREVER ? RS_NEVER : heartbeat / RS_BEATS;
  p->next = rs_now() + p->interval;
  p->given = p->listens = false;
  atomic_init(&p->state, RS_PULSE_OWNED);
  atomic_init(&p->missed, 0);
  atomic_init(&p->due, false);
  rs_list_init(&p->link);
  pthread_mutex_lock(&heart.lock);
  if (heart.engine == NULL)
    heart.engine = engine_new(&code);
  if (heart.engine != NULL) {
    p->id = ++heart.ids;
    rs_list_push(&heart.pulses, &p->link);
    if (p->next < heart.awake)
      ring(heart.engine);
  }
  pthread_mutex_unlock(&heart.lock);
  return code == 0 ? RS_OK
       : rs_fail(err, RS_EFAILED, "cannot start the thread that listens for "
                                  "workers: %s", strerror(code));
}

void
rs_pulse_stop (rs_pulse *p)
{
  engine *g = NULL;
  if (p->id == 0)
    return;
  rs_pulse_take(p);
  pthread_mutex_lock(&heart.lock);
  rs_list_remove(&p->link);
  if (rs_list_empty(&heart.pulses)) {
    g = heart.engine;
    heart.engine = NULL;
    g->over = true;
    ring(g);
  }
  pthread_mutex_unlock(&heart.lock);
  p->id = 0;
  atomic_store_explicit(&p->missed, 0, memory_order_relaxed);
  if (g == NULL)
    return;
  pthread_join(g->thread, NULL);
  engine_free(g);
}

/* --------------------------------------------------------- whose a link is */

void
rs_pulse_give (rs_pulse *p, rs_pulse_state to)
{
  if (p->id == 0 || p->given)
    return;
  p->given = true;
  atomic_store_explicit(&p->state, to, memory_order_release);
  if (to != RS_PULSE_RESTING)
    return;
  /* While there is a pulse there is the engine. */
  p->listens = true;
  arm(heart.engine, p, EPOLL_CTL_ADD);
}

void
rs_pulse_take (rs_pulse *p)
{
  if (p->id == 0 || !p->given)
    return;
  int state = atomic_load_explicit(&p->state, memory_order_relaxed);
  if (state == RS_PULSE_TAKEN
      || !atomic_compare_exchange_strong_explicit(&p->state, &state,
                                                  RS_PULSE_OWNED,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
    pthread_mutex_lock(&heart.lock);
    while ((state = atomic_load(&p->state)) == RS_PULSE_TAKEN)
      pthread_cond_wait(&heart.given, &heart.lock);
    atomic_store_explicit(&p->state, RS_PULSE_OWNED, memory_order_relaxed);
    pthread_mutex_unlock(&heart.lock);
  }
  p->given = false;
  if (state == RS_PULSE_LENT)  /* nobody has read */
    rs_pulse_note(p);
  if (p->listens)
    arm(heart.engine, p, EPOLL_CTL_DEL);
  p->listens = false;
}

/* Forget the pulses and the thread in a child. */
static void
begin_child (void)
{
  engine *const g = heart.engine;
  pthread_mutex_init(&heart.lock, NULL);
  pthread_cond_init(&heart.given, NULL);
  rs_list_init(&heart.pulses);
  heart.engine = NULL;
  if (g != NULL) {
    close(g->epoll);
    close(g->bell);
  }
}

RS_IN_CHILD(begin_child)
