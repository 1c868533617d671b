/* SPDX-License-Identifier: MIT */
/*
 * connection.c - a connection: its thread, and what others ask of it.
 *
 *     any thread:   publish, acknowledge, ...  --> list of items --+
 *                                                    (lock)        |
 *     the thread:   connect --> read, write, sleep --> read, ...  <+
 *                      ^                         |
 *                      +---- pause <--- down <---+
 *
 * The thread sleeps in poll(2) at two descriptors, the socket and an eventfd.
 * Whoever adds the first item to the list while the thread sleeps wakes it.
 * It wakes up by itself often enough that librabbitmq can send heartbeats, and
 * finds that none has come.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* pthread_setname_np */
#endif
#include "broker/connection.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"
#include "broker/incoming.h"
#include "broker/outgoing.h"
#include "broker/session.h"

#define LEAST_PAUSE 0.1     /* seconds until the next try, at first */
#define MOST_PAUSE 4.0
#define LASTED 1.0          /* seconds of a connection that was a good one */
#define ALOOF 1.0           /* seconds that a thread may take to end when its
                               time is over, until its socket is cut */

enum {
  BURST = 256 << 10,        /* bytes that are written between two looks at what
                               has come; items, */
  ITEMS = 64,
  HIGH = 4 << 20,           /* bytes on the list, from which publishers wait */
  BEATS = 4,                /* times in a heartbeat that the thread looks */
  TAG_BITS = 40             /* of a tag, for one session */
};

/* Sessions that there were in this process, each of which has tags of its
   own. */
static _Atomic uint64_t sessions;

struct rs_amqp {
  rs_url url;               /* constant, as all down to the blank line */
  rs_session_plan plan;     /* its texts are owned */
  const rs_amqp_user *user;
  void *ud;
  char id[17];              /* of this connection: 16 digits, random */
  int wake;                 /* eventfd */
  pthread_t thread;

  pthread_mutex_t lock;     /* guards down to the blank line */
  bool up;                  /* items are taken */
  bool asleep;              /* the thread wants to be woken */
  bool quits;               /* the shared queue is not consumed any more */
  bool stopping;            /* 'close' was called */
  double deadline;          /* instant until which is written then */
  bool ended;               /* the thread is about to */
  uint64_t generation;      /* times that the connection came up */
  uint64_t cuts;            /* messages that were cut */
  size_t bytes;             /* of the items, written ones deducted */
  unsigned waiting;         /* threads at 'roomy' */
  rs_item *first, **last;   /* owned */
  pthread_cond_t roomy;     /* bytes < HIGH || !up */
  pthread_cond_t changed;   /* ended */

  rs_session session;       /* of the thread, as all that follow */
  rs_confirms confirms;
  rs_incoming in;
  rs_outgoing out;
  rs_item *todo;            /* owned: items that were taken off the list */
  size_t written;           /* bytes to be deducted */
  unsigned short seed[3];
};

/* ----------------------------------------------------------- other threads */

static void
ring (const rs_amqp *a)
{
  const uint64_t one = 1;
  const ssize_t n = write(a->wake, &one, sizeof one);
  (void) n;  /* a full counter is readable as well */
}

/* Add an item, which is the list's on RS_OK; otherwise it is freed.  'when' is
   the generation that it is for, or 0. */
static int
push (rs_amqp *a, rs_item *item, bool waits, uint64_t when)
{
  if (item == NULL)
    return RS_ENOMEM;
  item->next = NULL;
  pthread_mutex_lock(&a->lock);
  while (waits && a->up && a->bytes >= HIGH)
    rs_cond_wait_counted(&a->roomy, &a->lock, RS_NEVER, &a->waiting);
  if (!a->up || (when != 0 && when != a->generation)) {
    pthread_mutex_unlock(&a->lock);
    rs_item_free(item);
    return RS_ECLOSED;
  }
  *a->last = item;
  a->last = &item->next;
  a->bytes += item->weight;
  const bool wakes = a->asleep;
  a->asleep = false;
  pthread_mutex_unlock(&a->lock);
  if (wakes)
    ring(a);
  return RS_OK;
}

static size_t
size_of (const rs_amqp_message *m)
{
  size_t size = 0;
  for (int i = 0; i < m->n; i++)
    size = m->parts[i].iov_len > SIZE_MAX - size
         ? SIZE_MAX : size + m->parts[i].iov_len;
  return size;
}

/* Publish what is longer than a part. */
static int
publish_cut (rs_amqp *a, const rs_amqp_message *m, size_t size)
{
  const uint64_t parts = (size + RS_AMQP_PART - 1) / RS_AMQP_PART;
  rs_cut_message *cut = NULL;
  int status = RS_OK;
  if (m->number != 0) {
    cut = malloc(sizeof *cut);
    if (cut == NULL)
      return RS_ENOMEM;
    *cut = (rs_cut_message) { .refs = 1, .number = m->number, .left = parts,
                              .routed = true };
  }
  pthread_mutex_lock(&a->lock);
  const uint64_t serial = ++a->cuts, when = a->generation;
  pthread_mutex_unlock(&a->lock);
  for (uint64_t i = 0; i < parts && status == RS_OK; i++) {
    const size_t from = (size_t) i * RS_AMQP_PART, left = size - from;
    rs_item *const item = rs_item_new_message(
      m, from, left < RS_AMQP_PART ? left : RS_AMQP_PART);
    if (item != NULL) {
      item->is_part = true;
      snprintf(item->key, sizeof item->key, "%s-%llu", a->id,
               (unsigned long long) serial);
      rs_part_write((rs_part) { i, size }, item->place);
      item->cut = cut;
      if (cut != NULL)
        atomic_fetch_add(&cut->refs, 1);
    }
    status = push(a, item, m->waits, when);
  }
  rs_cut_unref(cut);
  return status;
}

int
rs_amqp_publish (rs_amqp *a, const rs_amqp_message *m)
{
  const size_t size = size_of(m);
  if (size > RS_AMQP_MOST
      || (size > RS_AMQP_PART && m->target == RS_AMQP_SHARED))
    return RS_EFULL;
  return size > RS_AMQP_PART
       ? publish_cut(a, m, size)
       : push(a, rs_item_new_message(m, 0, size), m->waits, 0);
}

void
rs_amqp_acknowledge (rs_amqp *a, uint64_t tag)
{
  push(a, rs_item_new(RS_ITEM_ACKNOWLEDGE, tag), false, 0);
}

void
rs_amqp_reject (rs_amqp *a, uint64_t tag, bool requeue)
{
  push(a, rs_item_new(requeue ? RS_ITEM_REQUEUE : RS_ITEM_REJECT, tag), false,
       0);
}

void
rs_amqp_quit (rs_amqp *a)
{
  pthread_mutex_lock(&a->lock);
  const bool consumes = a->plan.prefetch > 0 && !a->quits;
  a->quits = true;
  pthread_mutex_unlock(&a->lock);
  if (consumes)
    push(a, rs_item_new(RS_ITEM_QUIT, 0), false, 0);
}

void
rs_amqp_look (rs_amqp *a)
{
  if (a->plan.queue != NULL)
    push(a, rs_item_new(RS_ITEM_LOOK, 0), false, 0);
}

/* -------------------------------------------------------------- the thread */

/* Take what is on the list, and deduct what was written.  True: the thread
   ends now. */
static bool
gather (rs_amqp *a)
{
  rs_item **end = &a->todo;
  pthread_mutex_lock(&a->lock);
  const bool was_high = a->bytes >= HIGH;
  a->bytes -= a->written;
  a->written = 0;
  const bool roomy = was_high && a->bytes < HIGH && a->waiting > 0;
  if (a->first != NULL) {
    while (*end != NULL)
      end = &(*end)->next;
    *end = a->first;
    a->first = NULL;
    a->last = &a->first;
  }
  const bool stopping = a->stopping;
  const double deadline = a->deadline;
  pthread_mutex_unlock(&a->lock);
  if (roomy)
    pthread_cond_broadcast(&a->roomy);
  return stopping && ((a->todo == NULL && a->confirms.n == 0)
                      || rs_now() >= deadline);
}

/* Sleep until something comes or can be written, but only if the list is
   empty; 'busy': do not.  True: the time for a look at heartbeats has come. */
static bool
wait (rs_amqp *a, bool busy, bool *readable, bool *writable)
{
  const unsigned beat = a->session.url->heartbeat;
  const bool writes = a->todo != NULL && !a->in.blocked;
  struct pollfd fds[2] = {
    { .fd = a->session.fd, .events = writes ? POLLIN | POLLOUT : POLLIN },
    { .fd = a->wake, .events = POLLIN },
  };
  double left = beat > 0 ? (double) beat / BEATS : 60;
  pthread_mutex_lock(&a->lock);
  if (a->first != NULL && !a->in.blocked)
    busy = true;
  a->asleep = !busy && a->todo == NULL;
  if (a->stopping && a->deadline != RS_NEVER
      && rs_remaining(a->deadline) < left)
    left = rs_remaining(a->deadline);
  pthread_mutex_unlock(&a->lock);
  const int n = poll(fds, 2, busy ? 0 : (int) (left * 1e3) + 1);
  pthread_mutex_lock(&a->lock);
  a->asleep = false;
  pthread_mutex_unlock(&a->lock);
  if (n > 0 && fds[1].revents != 0) {
    uint64_t times;
    const ssize_t got = read(a->wake, &times, sizeof times);
    (void) got;
  }
  *readable = n > 0 && (fds[0].revents & ~POLLOUT) != 0;
  *writable = n > 0 && (fds[0].revents & POLLOUT) != 0;
  return n == 0 && !busy;
}

/* Write some of what is to be written. */
static bool
write_some (rs_amqp *a)
{
  size_t bytes = 0;
  for (int i = 0; i < ITEMS && bytes < BURST && a->todo != NULL; i++) {
    bool done;
    if (!a->out.begun)
      rs_items_bundle(&a->todo);
    rs_item *const item = a->todo;
    const size_t before = a->out.begun ? a->out.at : 0;
    if (!rs_outgoing_write(&a->out, item, &done))
      return false;
    bytes += item->kind != RS_ITEM_PUBLISH ? 0
           : (done ? item->size : a->out.at) - before;
    if (done) {
      a->todo = item->next;
      a->written += item->weight;
      rs_item_free(item);
    }
  }
  return true;
}

/* Read and write until the session fails, or the connection is closed. */
static void
serve (rs_amqp *a)
{
  const unsigned beat = a->session.url->heartbeat;
  bool readable = true, writable = false, more = false;
  double looked = 0;
  for (;;) {
    const double now = rs_now_coarse();
    if (beat > 0 && now - looked > (double) beat / BEATS)
      readable = true;
    if (readable || more || amqp_frames_enqueued(a->session.state)) {
      looked = now;
      if (!rs_incoming_read(&a->in, &more))
        return;
    }
    if (writable && !write_some(a))
      return;
    if (gather(a))
      return;
    const bool busy = more || amqp_frames_enqueued(a->session.state);
    if (wait(a, busy, &readable, &writable))
      readable = true;
  }
}

/* Take no more items, and forget those that there are. */
static void
forget (rs_amqp *a)
{
  pthread_mutex_lock(&a->lock);
  rs_item *const first = a->first;
  a->up = false;
  a->first = NULL;
  a->last = &a->first;
  a->bytes = a->written = 0;
  pthread_mutex_unlock(&a->lock);
  pthread_cond_broadcast(&a->roomy);
  rs_items_free(first);
  rs_items_free(a->todo);
  a->todo = NULL;
  rs_confirms_clear(&a->confirms);
  rs_incoming_end(&a->in);
}

/* A session is open: take items.  'consumes': the shared queue, which was to
   be read when it was opened. */
static void
begin (rs_amqp *a, bool consumes)
{
  const uint64_t base = (atomic_fetch_add(&sessions, 1) + 1) << TAG_BITS;
  rs_incoming_begin(&a->in, base);
  a->out.base = base;
  a->out.begun = false;
  pthread_mutex_lock(&a->lock);
  a->generation++;
  a->up = true;
  const bool quits = consumes && a->quits;
  pthread_mutex_unlock(&a->lock);
  if (quits)
    push(a, rs_item_new(RS_ITEM_QUIT, 0), false, 0);
  a->user->up(a->ud);
}

static bool
is_stopping (rs_amqp *a)
{
  pthread_mutex_lock(&a->lock);
  const bool stopping = a->stopping;
  pthread_mutex_unlock(&a->lock);
  return stopping;
}

/* Sleep for at most 'seconds', or until 'close' is called. */
static void
rest (rs_amqp *a, double seconds)
{
  struct pollfd fd = { .fd = a->wake, .events = POLLIN };
  const double deadline = seconds < 0 ? RS_NEVER : rs_deadline(seconds);
  while (!is_stopping(a)) {
    const double left = deadline == RS_NEVER ? 60 : rs_remaining(deadline);
    if (left <= 0)
      return;
    if (poll(&fd, 1, (int) (left * 1e3) + 1) > 0) {
      uint64_t times;
      const ssize_t got = read(a->wake, &times, sizeof times);
      (void) got;
    }
  }
}

static void
run (rs_amqp *a)
{
  double pause = LEAST_PAUSE;
  bool was_up = false;
  while (!is_stopping(a)) {
    rs_session_plan plan = a->plan;
    pthread_mutex_lock(&a->lock);
    if (a->quits)
      plan.prefetch = 0;
    pthread_mutex_unlock(&a->lock);
    const bool open = rs_session_open(&a->session, &plan, a->wake);
    if (open) {
      const double since = rs_now();
      was_up = true;
      begin(a, plan.prefetch > 0);
      serve(a);
      forget(a);
      rs_session_close(&a->session);
      if (rs_now() - since > LASTED)
        pause = LEAST_PAUSE;
    }
    if (is_stopping(a))
      return;
    a->user->down(a->ud, a->session.text, !open && a->session.refused);
    rest(a, !open && a->session.refused && !was_up
            ? RS_FOREVER : pause * (0.5 + 0.5 * erand48(a->seed)));
    pause = 2 * pause < MOST_PAUSE ? 2 * pause : MOST_PAUSE;
  }
}

static void *
run_thread (void *arg)
{
  rs_amqp *const a = arg;
  run(a);
  pthread_mutex_lock(&a->lock);
  a->ended = true;
  pthread_cond_broadcast(&a->changed);
  pthread_mutex_unlock(&a->lock);
  return NULL;
}

/* ------------------------------------------------------------ opening, end */

static void
free_connection (rs_amqp *a)
{
  rs_items_free(a->first);
  rs_incoming_fini(&a->in);
  rs_confirms_fini(&a->confirms);
  rs_session_fini(&a->session);
  if (a->wake >= 0)
    close(a->wake);
  pthread_cond_destroy(&a->changed);
  pthread_cond_destroy(&a->roomy);
  pthread_mutex_destroy(&a->lock);
  free((char *) (uintptr_t) a->plan.title);
  free((char *) (uintptr_t) a->plan.queue);
  free((char *) (uintptr_t) a->plan.own);
  free((char *) (uintptr_t) a->plan.exchange);
  rs_url_fini(&a->url);
  free(a);
}

/* Copy a text that may be NULL; false: no memory. */
static bool
copy (const char *text, const char **out)
{
  if (text != NULL)
    *out = strdup(text);
  return text == NULL || *out != NULL;
}

static bool
copy_plan (rs_amqp *a, const rs_amqp_options *o)
{
  a->plan.listens = o->listens;
  a->plan.prefetch = o->prefetch;
  return copy(o->title != NULL ? o->title : "runspace", &a->plan.title)
         && copy(o->queue, &a->plan.queue) && copy(o->own, &a->plan.own)
         && copy(o->exchange, &a->plan.exchange);
}

/* Start the thread, which handles no signals of the program. */
static int
start (rs_amqp *a)
{
  sigset_t all, before;
  sigfillset(&all);
  for (size_t i = 0; i < 6; i++)
    sigdelset(&all, (int [6]) { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT,
                                SIGTRAP }[i]);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int code = pthread_create(&a->thread, NULL, run_thread, a);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code == 0)
    pthread_setname_np(a->thread, "rs-broker");
  return code;
}

int
rs_amqp_open (const rs_amqp_options *o, rs_amqp **out, rs_error *err)
{
  uint64_t id;
  rs_amqp *const a = calloc(1, sizeof *a);
  if (a == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  pthread_mutex_init(&a->lock, NULL);
  rs_cond_init(&a->roomy);
  rs_cond_init(&a->changed);
  a->last = &a->first;
  a->user = o->user;
  a->ud = o->ud;
  rs_session_init(&a->session, &a->url);
  rs_confirms_init(&a->confirms);
  rs_incoming_init(&a->in, &a->session, &a->confirms, a->user, a->ud);
  a->wake = -1;
  int status = rs_url_init(&a->url, o->url, err);
  if (status == RS_OK && !copy_plan(a, o))
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK) {
    a->out.session = &a->session;
    a->out.confirms = &a->confirms;
    a->out.queue = a->plan.queue;
    a->out.exchange = a->plan.exchange;
    a->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->wake < 0 || getrandom(&id, sizeof id, 0) != sizeof id
        || getrandom(a->seed, sizeof a->seed, 0) != sizeof a->seed)
      status = rs_fail(err, RS_ENOMEM, "no broker: %s", strerror(errno));
  }
  if (status == RS_OK) {
    snprintf(a->id, sizeof a->id, "%016llx", (unsigned long long) id);
    rs_amqp *const before = *out;
    *out = a;  /* the user's functions find it there */
    const int code = start(a);
    if (code != 0) {
      *out = before;
      status = rs_fail(err, RS_ETHREAD, "no thread for the broker: %s",
                       strerror(code));
    }
  }
  if (status != RS_OK)
    free_connection(a);
  return status;
}

void
rs_amqp_close (rs_amqp *a, double seconds)
{
  if (a == NULL)
    return;
  pthread_mutex_lock(&a->lock);
  a->stopping = true;
  a->deadline = rs_deadline(seconds);
  pthread_mutex_unlock(&a->lock);
  ring(a);
  const double late = a->deadline + ALOOF;  /* or RS_NEVER */
  pthread_mutex_lock(&a->lock);
  while (!a->ended
         && rs_cond_wait_until(&a->changed, &a->lock, late) == RS_OK)
    ;
  const bool ended = a->ended;
  pthread_mutex_unlock(&a->lock);
  if (!ended)
    rs_session_cut(&a->session);
  pthread_join(a->thread, NULL);
  free_connection(a);
}
