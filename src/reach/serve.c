/* SPDX-License-Identifier: MIT */
/*
 * serve.c - the far side of a link: 'runspace --worker'.
 *
 * Standard input and output are moved out of the way of what jobs, and the
 * programs that they start, read and write: 0 becomes /dev/null, and 1 a copy
 * of 2.  What Lua code prints goes to the host as frames.
 *
 * Three threads run here:
 *
 * - The reader, which is the main thread, takes all frames: so it hears of a
 *   stop while a call runs, gives signs of life, and ends the process when the
 *   host is gone.  It never waits to write.
 * - The runner has the state, and runs one call after the other.
 * - The thread of the timers, which stops calls (cancel.h), tells the host of
 *   a call that does not come back, and ends the process then; or when nothing
 *   has come from a host that is to give signs of life.
 *
 * A call belongs to the reader, which makes it, and to the runner; whoever
 * lets go of it last frees it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* F_DUPFD_CLOEXEC */
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/console.h"
#include "base/cpu.h"
#include "base/fork.h"
#include "base/spin.h"
#include "base/status.h"
#include "base/timer.h"
#include "reach/confine.h"
#include "reach/exchange.h"
#include "reach/heart.h"
#include "reach/process.h"
#include "state/initial_state.h"
#include "state/state.h"

enum {
  HIGH = 100,            /* the descriptors of the link, if the system allows
                            so many */
  FUNCTIONS = 64,        /* that are kept, at most; a host keeps few */
  TRIM = 32,             /* plain calls between two trims of the state */
  LINE = 1 << 20         /* bytes of output in one message, at most */
};

/* Bytes of the runner's stack, as those of a worker thread. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_SIZE (4u << 20)
#else
#define STACK_SIZE (1u << 20)
#endif

/* A call, from CALL to RESULT. */
typedef struct served {
  rs_call call;
  rs_chunk chunk;
  _Atomic unsigned refs;   /* of the reader and the runner */
  uint64_t number;
  char *name;              /* owned */
  double ahead;            /* seconds that the host's clock is ahead of ours */
  _Atomic bool stop;       /* STOP came; set by the reader, read by the
                              runner; publishes nothing */
  _Atomic bool failed;     /* no failure is allowed any more */
  _Atomic size_t allowed;
} served;

typedef struct server {
  rs_frames frames;        /* read by the reader alone */
  rs_pool_options options; /* constant once OPEN was read, as 'worker' */
  unsigned worker;
  unsigned born;           /* generation of the process: fork.h; constant */
  rs_state *state;         /* the runner's */
  struct { rs_message *function; uint64_t number; } kept[FUNCTIONS];
  rs_message *values;      /* VALUES that came, or NULL; the reader's */
  served *latest;          /* a reference, or NULL; the reader's */
  double told;             /* instant of the last PONG; the reader's */
  _Atomic double heard;    /* instant at which something came; set by the
                              reader, read by the thread of the timers */
  double patience;         /* seconds that the host may be silent, 0: for ever;
                              constant once 'watch' is set */
  rs_timer watch;          /* ends the process */

  pthread_mutex_t writing; /* held while a message, and what belongs to it, is
                              written; guards what 'frames' writes */
  rs_buf payload;

  pthread_mutex_t lock;    /* guards down to the blank line */
  served *next;            /* for the runner, a reference; or NULL */
  bool opened;             /* OPEN was read */
  bool closing;            /* CLOSE was read */
  rs_cancel *cancel;       /* of the runner; set before READY is sent, and
                              constant then */
  pthread_cond_t changed;  /* next != NULL || opened || closing */

  _Atomic unsigned news;   /* how often one of them changed, for the runner
                              that looks before it sleeps */
} server;

/* The process serves one host. */
static server one = {
  .writing = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER
};

static served *
served_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, served, call);
}

static void
served_unref (served *c)
{
  if (c == NULL
      || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_message_unref(c->call.function);
  rs_message_unref(c->call.arguments);
  rs_message_unref(c->call.result);
  free(c->name);
  free(c);
}

/* The host is gone, or cannot be understood.  Nothing is closed in order: the
   runner may be anywhere. */
static _Noreturn void
leave (int status)
{
  _exit(status);
}

/* ----------------------------------------------------------------- writing */

/* Write a frame, with the payload that was prepared, behind a message of
   values, or NULL.  'writing' is held. */
static void
send_locked (server *s, rs_frame_type type, uint64_t number,
             const rs_message *values)
{
  const struct iovec part = { s->payload.data, s->payload.size };
  int status = s->payload.failed ? RS_ENOMEM : RS_OK;
  if (status == RS_OK && values != NULL)
    status = rs_frames_put_message(&s->frames, RS_FRAME_VALUES, number,
                                   values);
  if (status == RS_OK)
    status = rs_frames_put(&s->frames, type, number, &part, 1);
  if (status == RS_OK)
    status = rs_frames_flush(&s->frames);
  if (status != RS_OK)  /* a half of a frame may have gone */
    leave(1);
}

static rs_buf *
begin (server *s)
{
  pthread_mutex_lock(&s->writing);
  rs_buf_clear(&s->payload);
  return &s->payload;
}

static void
end (server *s, rs_frame_type type, uint64_t number, const rs_message *values)
{
  send_locked(s, type, number, values);
  pthread_mutex_unlock(&s->writing);
}

/* rs_console_redirect: what was printed goes to the host. */
static int
write_output (int fd, const char *text, size_t size)
{
  int status = RS_OK;
  pthread_mutex_lock(&one.writing);
  while (size > 0 && status == RS_OK) {
    const size_t n = size < LINE ? size : LINE;
    const struct iovec part = { (void *) (uintptr_t) text, n };
    status = rs_frames_put(&one.frames, RS_FRAME_OUTPUT, (uint64_t) fd, &part,
                           1);
    if (status == RS_OK)
      status = rs_frames_flush(&one.frames);
    text += n;
    size -= n;
  }
  if (status != RS_OK)
    leave(1);
  pthread_mutex_unlock(&one.writing);
  return 0;
}

/* ---------------------------------------------------------------- the sink */

/* rs_call_sink.record, emit: this thread runs the call.  The host may take its
   time, and this thread waits then. */
static void
on_record (rs_call *call, rs_stream_record *record)
{
  const served *const c = served_of(call);
  if (!rs_fork_is_foreign(one.born)) {
    rs_record_write(begin(&one), &record->info, c->ahead);
    end(&one, RS_FRAME_RECORD, c->number, record->info.values);
  }
  rs_stream_record_unref(record);
}

static bool
is_ready (rs_call *call)
{
  (void) call;
  return !rs_fork_is_foreign(one.born);
}

static const char *
name_of (rs_call *call)
{
  return served_of(call)->name;
}

static void
on_failed (rs_call *call, const char *why)
{
  (void) call;
  (void) why;
}

static const rs_call_sink sink = {
  .record = on_record, .emit = on_record, .ready = is_ready, .name = name_of,
  .failed = on_failed
};

/* ---------------------------------------------------------- a call is lost */

static void
hold_call (void *owner)
{
  (void) owner;  /* it stays, as does its thread */
}

/* rs_cancel_owner: the runner does not come back.  A state that is being
   opened is not stopped from here, so there is a call. */
static void
lost_thread (void *ud)
{
  (void) ud;
}

static void
lost_call (void *owner)
{
  rs_call *const call = owner;
  char text[RS_PLACE] = "";
  if (!rs_cancel_place(one.cancel, text, sizeof text))
    text[0] = '\0';
  rs_lost_write(begin(&one), call, text);
  end(&one, RS_FRAME_LOST, served_of(call)->number, NULL);
  leave(0);
}

static const rs_cancel_owner owner = {
  .lost_thread = lost_thread, .hold_call = hold_call, .lost_call = lost_call
};

/* -------------------------------------------------------------- the runner */

static bool
has_news (const void *seen)
{
  return atomic_load_explicit(&one.news, memory_order_relaxed)
         != *(const unsigned *) seen;
}

/* Wait for the next call; NULL: the state is to be closed. */
static served *
take (server *s)
{
  pthread_mutex_lock(&s->lock);
  if (s->next == NULL && !s->closing) {
    const unsigned seen = atomic_load_explicit(&s->news,
                                               memory_order_relaxed);
    pthread_mutex_unlock(&s->lock);
    rs_spin(has_news, &seen);
    if (!has_news(&seen))
      rs_state_rest(s->state);
    pthread_mutex_lock(&s->lock);
  }
  if (s->next == NULL && !s->closing) {
    rs_spin_leave();
    while (s->next == NULL && !s->closing)
      pthread_cond_wait(&s->changed, &s->lock);
    rs_spin_enter();
  }
  served *const c = s->next;
  s->next = NULL;
  pthread_mutex_unlock(&s->lock);
  return c;
}

/* Open the state, and tell the host; false when it failed. */
static bool
open_state (server *s)
{
  static const rs_wish none;
  const rs_state_options o = {
    .options = &s->options,
    .worker = s->worker,
    .cancel = s->cancel,
    .wish = &none,
    .owner = RS_SEEDING,
    .forbidden = RS_MESSAGE_LIVE | RS_MESSAGE_AWAY,
  };
  rs_error err;
  int status = rs_confine(&s->options, &err);
  if (status == RS_OK)
    status = rs_state_open(&o, &s->state, &err);
  rs_buf *const b = begin(s);
  if (status == RS_OK)
    rs_add_number(b, rs_state_bytes(s->state), 8);
  else {
    rs_add_number(b, (uint64_t) status, 4);
    rs_add_text(b, err.text);
  }
  end(s, status == RS_OK ? RS_FRAME_READY : RS_FRAME_FAILED, 0, NULL);
  return status == RS_OK;
}

static void
serve_call (server *s, served *c)
{
  s->state->ahead = c->ahead;
  if (s->options.cpu_time > 0)
    rs_cpu_limit(s->options.cpu_time);
  rs_call_run(s->state, NULL, &c->call, &sink);
  if (rs_fork_is_foreign(s->born))  /* has the job forked, and is this the
                                       child, with its only thread? */
    pthread_exit(NULL);
  rs_result_write(begin(s), &c->call, rs_state_spent(s->state),
                  rs_state_bytes(s->state));
  end(s, RS_FRAME_RESULT, c->number, c->call.result);
}

static void *
run (void *arg)
{
  server *const s = arg;
  unsigned plain = 0;
  served *c;
  rs_spin_enter();
  pthread_mutex_lock(&s->lock);
  while (!s->opened && !s->closing)
    pthread_cond_wait(&s->changed, &s->lock);
  const bool opened = s->opened;
  pthread_mutex_unlock(&s->lock);
  if (!opened)
    exit(0);
  rs_cancel *const cancel = rs_cancel_new(s->options.signal, &owner, NULL);
  pthread_mutex_lock(&s->lock);
  s->cancel = cancel;
  pthread_mutex_unlock(&s->lock);
  if (cancel == NULL || !open_state(s))
    exit(1);
  while ((c = take(s)) != NULL) {
    const bool chunk = c->call.chunk != NULL;
    serve_call(s, c);
    served_unref(c);
    if (chunk || ++plain % TRIM == 0)
      rs_state_trim(s->state);
  }
  rs_state_close(s->state);
  exit(0);
}

/* ----------------------------------------------------------- signs of life */

/* Give a sign of life.  Where another thread writes, that is one; and what
   does not fit now is not waited for. */
static void
give_sign (server *s)
{
  struct pollfd out = { .fd = s->frames.out, .events = POLLOUT };
  if (pthread_mutex_trylock(&s->writing) != 0)
    return;
  if (poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) != 0) {
    rs_buf_clear(&s->payload);
    send_locked(s, RS_FRAME_PONG, 0, NULL);
  }
  pthread_mutex_unlock(&s->writing);
  s->told = rs_now_coarse();
}

/* Something has come: note it, and give a sign where much comes that is no
   PING. */
static void
note_host (server *s)
{
  if (s->patience == 0)
    return;
  const double now = rs_now_coarse();
  atomic_store_explicit(&s->heard, now, memory_order_relaxed);
  if (now - s->told > s->options.heartbeat / RS_BEATS)
    give_sign(s);
}

/* rs_timer: has the host been silent for too long? */
static void
look_for_host (rs_timer *timer)
{
  server *const s = RS_LIST_ENTRY(timer, server, watch);
  const double late = atomic_load_explicit(&s->heard, memory_order_relaxed)
                    + s->patience;
  if (late <= rs_now())
    leave(0);
  rs_timer_set(timer, late);
}

/* End the process when the host has given no sign of life for some of its
   heartbeats.  False when there is no thread that could do that. */
static bool
watch_host (server *s)
{
  const double heartbeat = s->options.heartbeat;
  if (!(heartbeat > 0))  /* RS_FOREVER? */
    return true;
  s->patience = RS_HEARTBEATS_FAR * heartbeat;
  s->told = rs_now_coarse();
  atomic_store(&s->heard, s->told);
  rs_timer_init(&s->watch, look_for_host);
  return rs_timer_set(&s->watch, s->told + s->patience);
}

/* -------------------------------------------------------------- the reader */

/* Tell the runner. */
static void
change_locked (server *s)
{
  atomic_fetch_add_explicit(&s->news, 1, memory_order_relaxed);
  pthread_cond_signal(&s->changed);
}

/* The place of the function that is kept under 'number'; NULL: none is. */
static rs_message **
find_function (server *s, uint64_t number)
{
  for (int i = 0; i < FUNCTIONS; i++)
    if (s->kept[i].function != NULL && s->kept[i].number == number)
      return &s->kept[i].function;
  return NULL;
}

static bool
keep_function (server *s, const rs_frame *frame)
{
  for (int i = 0; i < FUNCTIONS; i++)
    if (s->kept[i].function == NULL) {
      s->kept[i].function = frame->message;
      s->kept[i].number = frame->number;
      return true;
    }
  return false;
}

/* Make the call, and give it to the runner; false for one that is none. */
static bool
take_call (server *s, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  rs_call_more more;
  served *const c = calloc(1, sizeof *c);
  if (c == NULL)
    return false;
  atomic_init(&c->refs, 2);
  c->number = frame->number;
  const int status = rs_call_read(&cut, &c->call, &c->chunk, &more);
  c->name = more.name;
  rs_message **const f = status == RS_OK ? find_function(s, more.function)
                                         : NULL;
  if (f == NULL || more.arguments != (s->values != NULL)) {
    served_unref(c);
    served_unref(c);
    return false;
  }
  c->call.function = rs_message_ref(*f);
  c->call.arguments = s->values;
  s->values = NULL;
  c->ahead = more.now - rs_now();
  c->chunk.stop = &c->stop;
  if (more.limited) {
    atomic_init(&c->allowed, more.allowed);
    c->chunk.failed = &c->failed;
    c->chunk.allowed = &c->allowed;
  }
  served_unref(s->latest);
  s->latest = c;
  pthread_mutex_lock(&s->lock);
  const bool busy = s->next != NULL;
  if (!busy) {
    s->next = c;
    change_locked(s);
  }
  pthread_mutex_unlock(&s->lock);
  return !busy;
}

static bool
take_open (server *s, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  if (s->opened || rs_open_read(&cut, &s->options, &s->worker) != RS_OK
      || !watch_host(s))
    return false;
  pthread_mutex_lock(&s->lock);
  s->opened = true;
  change_locked(s);
  pthread_mutex_unlock(&s->lock);
  return true;
}

static void
take_cancel (server *s, const rs_frame *frame)
{
  rs_cut cut = { frame->data, frame->size, false };
  const unsigned reason = (unsigned) rs_cut_number(&cut, 1);
  const double grace = rs_cut_double(&cut);
  served *const c = s->latest;
  if (c == NULL || c->number != frame->number || reason == RS_REASON_NONE
      || reason >= RS_REASONS || !(grace >= 0))
    return;  /* the call has ended, and the host will see that */
  rs_wish_make(&c->call.wish, (rs_reason) reason, grace);
  rs_cancel_request(s->cancel, &c->call, (rs_reason) reason, grace);
}

/* Obey a frame; false for what may not come. */
static bool
obey (server *s, const rs_frame *frame)
{
  rs_message **function;
  switch (frame->type) {
    case RS_FRAME_OPEN:
      return take_open(s, frame);
    case RS_FRAME_FUNCTION:
      return keep_function(s, frame);
    case RS_FRAME_FORGET:
      function = find_function(s, frame->number);
      if (function == NULL)
        return false;
      rs_message_unref(*function);
      *function = NULL;
      return true;
    case RS_FRAME_VALUES:
      if (s->values != NULL)
        return false;
      s->values = frame->message;
      return true;
    case RS_FRAME_CALL:
      return s->opened && take_call(s, frame);
    case RS_FRAME_STOP:
      if (s->latest != NULL && s->latest->number == frame->number)
        atomic_store_explicit(&s->latest->stop, true, memory_order_relaxed);
      return true;
    case RS_FRAME_CANCEL:
      take_cancel(s, frame);
      return true;
    case RS_FRAME_PING:
      give_sign(s);
      return true;
    case RS_FRAME_CLOSE:
      pthread_mutex_lock(&s->lock);
      s->closing = true;
      change_locked(s);
      pthread_mutex_unlock(&s->lock);
      return true;
    default:
      return false;
  }
}

static _Noreturn void
read_all (server *s)
{
  rs_frame frame;
  int status;
  for (;;) {
    while ((status = rs_frames_take(&s->frames, &frame)) == RS_EBUSY
           && (status = rs_frames_fill(&s->frames)) == RS_OK)
      note_host(s);
    if (status == RS_EBUSY)
      continue;
    if (status == RS_ECLOSED && s->frames.error[0] == '\0')
      leave(0);  /* the host is gone, or has left */
    if (status == RS_ENOMEM) {
      fprintf(stderr, "runspace --worker: not enough memory for what came\n");
      leave(1);
    }
    if (status != RS_OK) {
      fprintf(stderr, "runspace --worker: what came is no frame: %s\n",
              s->frames.error);
      leave(1);
    }
    if (!obey(s, &frame)) {
      fprintf(stderr, "runspace --worker: %s may not come here\n",
              rs_frame_name(frame.type));
      leave(1);
    }
  }
}

/* --------------------------------------------------------------- the start */

/* Move the descriptor up, and close the old one; -1: not possible. */
static int
move_up (int fd)
{
  int high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
  if (high < 0)
    high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  return high;
}

/* Get the link out of the way of what is run here.  False when it is not
   there. */
static bool
take_link (int *in, int *out)
{
  *in = move_up(STDIN_FILENO);
  *out = move_up(STDOUT_FILENO);
  const int null = open("/dev/null", O_RDWR);
  if (*in < 0 || *out < 0 || null < 0)
    return false;
  dup2(null, STDIN_FILENO);
  if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
  }
  if (null > STDERR_FILENO)
    close(null);
  return true;
}

/* Say who this is. */
static bool
say_hello (server *s)
{
  rs_buf_add(&s->frames.going, rs_frame_greeting, RS_FRAME_GREETING);
  rs_hello_write(&s->payload);
  const struct iovec part = { s->payload.data, s->payload.size };
  return rs_frames_put(&s->frames, RS_FRAME_HELLO, 0, &part, 1) == RS_OK
      && rs_frames_flush(&s->frames) == RS_OK;
}

static int
serve (void)
{
  int in, out;
  pthread_attr_t attr;
  pthread_t thread;
  server *const s = &one;
  if (!take_link(&in, &out)) {
    fprintf(stderr, "runspace --worker: standard input and output have to be "
                    "open: %s\n", strerror(errno));
    return EXIT_FAILURE;
  }
  prctl(PR_SET_NAME, "runspace-worker");  /* it was started as "exe" */
  s->born = rs_fork_now();
  rs_cond_init(&s->changed);
  if (rs_frames_init(&s->frames, RS_FRAME_WORKER, in, out) != RS_OK
      || !say_hello(s))
    return EXIT_FAILURE;
  rs_console_redirect(write_output);
  rs_timers_hold();
  rs_spin_prepare();
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  const int code = pthread_create(&thread, &attr, run, s);
  pthread_attr_destroy(&attr);
  if (code != 0) {
    fprintf(stderr, "runspace --worker: no thread can be started: %s\n",
            strerror(code));
    return EXIT_FAILURE;
  }
  read_all(s);
}

int
rs_worker_main (int argc, char **argv)
{
  rs_process_set_serving();
  if (argc != 2 || strcmp(argv[1], "--worker") != 0)
    return -1;
  return serve();
}
