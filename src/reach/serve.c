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
 * - The runner has the state, and runs one call after the other.  Where frames
 *   come through a ring, the runner takes them itself, since to wake it would
 *   cost more than the rest of a small call; the reader has the socket, and so
 *   what is urgent.
 * - The thread of the timers, which stops calls (cancel.h), tells the host of
 *   a call that does not come back, and ends the process then; or when nothing
 *   has come from a host that is to give signs of life.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* F_DUPFD_CLOEXEC */
#endif
#include <errno.h>
#include <fcntl.h>
#include <math.h>
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
#include "reach/inbox.h"
#include "reach/process.h"
#include "state/initial_state.h"
#include "state/state.h"
#include "state/traceback.h"

enum {
  HIGH = 100,            /* the descriptors of the link, if the system allows
                            so many */
  TRIM = 32,             /* plain calls between two trims of the state */
  LINE = 1 << 20         /* bytes of output in one message, at most */
};

#define PATIENCE 0.1     /* seconds in which a call tells where it stands, or
                            is not waited for: a stop may be to come */

/* Bytes of the runner's stack, as those of a worker thread. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_SIZE (4u << 20)
#else
#define STACK_SIZE (1u << 20)
#endif

typedef struct server {
  rs_frames frames;        /* read by one thread: the reader; with a ring, the
                              runner */
  rs_frames urgent;        /* with a ring: the socket; the reader's */
  rs_inbox inbox;
  unsigned born;           /* generation of the process: fork.h; constant */
  rs_state *state;         /* the runner's, as the next one; or NULL */
  bool confined;           /* 'rs_confine' was called */
  double told;             /* instant of the last PONG; the reader's */
  _Atomic double heard;    /* instant at which something came; set by the
                              reader, read by the thread of the timers */
  double patience;         /* seconds that the host may be silent, 0: for ever;
                              constant once 'watch' is set */
  rs_timer watch;          /* ends the process */

  pthread_mutex_t writing; /* held while a message, and what belongs to it, is
                              written; guards what 'frames' writes */
  rs_buf payload;
} server;

/* The process serves one host. */
static server one = { .writing = PTHREAD_MUTEX_INITIALIZER };

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
  const rs_served *const c = rs_served_of(call);
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
  return rs_served_of(call)->name;
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
  if (!rs_cancel_place(one.inbox.cancel, text, sizeof text))
    text[0] = '\0';
  rs_lost_write(begin(&one), call, text);
  end(&one, RS_FRAME_LOST, rs_served_of(call)->number, NULL);
  leave(0);
}

static const rs_cancel_owner owner = {
  .lost_thread = lost_thread, .hold_call = hold_call, .lost_call = lost_call
};

/* -------------------------------------------------------------- the runner */

static bool
has_news (const void *seen)
{
  return atomic_load_explicit(&one.inbox.news, memory_order_relaxed)
         != *(const unsigned *) seen;
}

static void read_frames (server *s, rs_frames *frames);

/* Read the ring until the next call, or CLOSE, has come; 'opening': or OPEN.
   The runner alone puts these in, and takes them out. */
static void
read_ring (server *s, bool opening)
{
  const rs_inbox *const b = &s->inbox;
  read_frames(s, &s->frames);
  while (!rs_inbox_has_call_locked(b) && !(opening && b->opened)) {
    if (!rs_carrier_look(&s->frames.carrier)) {
      if (s->state != NULL)
        rs_state_rest(s->state);
      rs_spin_leave();
      rs_carrier_sleep(&s->frames.carrier);
      rs_spin_enter();
    }
    read_frames(s, &s->frames);
  }
}

/* Wait for the next call; NULL: the state is to be closed, and with '*again'
   another one to be opened. */
static rs_served *
take (server *s, bool *again)
{
  rs_inbox *const b = &s->inbox;
  if (s->frames.carrier.ring != NULL)
    read_ring(s, false);
  pthread_mutex_lock(&b->lock);
  if (!rs_inbox_has_call_locked(b)) {
    const unsigned seen = atomic_load_explicit(&b->news,
                                               memory_order_relaxed);
    pthread_mutex_unlock(&b->lock);
    rs_spin(has_news, &seen);
    if (!has_news(&seen))
      rs_state_rest(s->state);
    pthread_mutex_lock(&b->lock);
  }
  if (!rs_inbox_has_call_locked(b)) {
    rs_spin_leave();
    while (!rs_inbox_has_call_locked(b))
      pthread_cond_wait(&b->changed, &b->lock);
    rs_spin_enter();
  }
  rs_served *const c = rs_inbox_take_locked(b, again);
  pthread_mutex_unlock(&b->lock);
  return c;
}

/* Open the state, and tell the host; false when it failed. */
static bool
open_state (server *s)
{
  static const rs_wish none;
  const rs_state_options o = {
    .options = &s->inbox.options,
    .worker = s->inbox.worker,
    .cancel = s->inbox.cancel,
    .wish = &none,
    .owner = RS_SEEDING,
    .forbidden = RS_MESSAGE_LIVE | RS_MESSAGE_AWAY,
  };
  rs_error err;
  int status = s->confined ? RS_OK : rs_confine(&s->inbox.options, &err);
  s->confined = true;
  if (s->inbox.options.cpu_time > 0)  /* which is that of jobs */
    rs_cpu_limit(INFINITY);
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
serve_call (server *s, rs_served *c)
{
  s->state->ahead = c->ahead;
  if (s->inbox.options.cpu_time > 0)
    rs_cpu_limit(s->inbox.options.cpu_time);
  rs_call_run(s->state, NULL, &c->call, &sink);
  if (rs_fork_is_foreign(s->born))  /* has the job forked, and is this the
                                       child, with its only thread? */
    pthread_exit(NULL);
  rs_result_write(begin(s), &c->call, rs_state_spent(s->state),
                  rs_state_bytes(s->state));
  end(s, RS_FRAME_RESULT, c->number, c->call.result);
}

/* Serve calls until the state is to be closed, and close it.  True when
   another one is to be opened. */
static bool
serve_calls (server *s)
{
  unsigned plain = 0;
  bool again;
  rs_served *c;
  while ((c = take(s, &again)) != NULL) {
    const bool chunk = c->call.chunk != NULL;
    serve_call(s, c);
    rs_served_unref(c);
    if (chunk || ++plain % TRIM == 0)
      rs_state_trim(s->state);
  }
  rs_state *const state = s->state;
  s->state = NULL;
  rs_state_close(state);
  return again;
}

static void *
run (void *arg)
{
  server *const s = arg;
  rs_inbox *const b = &s->inbox;
  rs_spin_enter();
  if (s->frames.carrier.ring != NULL)
    read_ring(s, true);
  pthread_mutex_lock(&b->lock);
  while (!b->opened && !b->closing)
    pthread_cond_wait(&b->changed, &b->lock);
  const bool opened = b->opened;
  pthread_mutex_unlock(&b->lock);
  if (!opened)
    exit(0);
  rs_cancel *const cancel = rs_cancel_new(b->options.signal, &owner, NULL);
  pthread_mutex_lock(&b->lock);
  b->cancel = cancel;
  pthread_mutex_unlock(&b->lock);
  if (cancel == NULL)
    exit(1);
  do {
    if (!open_state(s))
      exit(1);
  } while (serve_calls(s));
  exit(0);
}

/* ----------------------------------------------------------- signs of life */

/* Give a sign of life.  Where another thread writes, that is one; and what
   does not fit now is not waited for. */
static void
give_sign (server *s)
{
  if (pthread_mutex_trylock(&s->writing) != 0)
    return;
  if (rs_carrier_has_room(&s->frames.carrier)) {
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
  if (now - s->told > s->inbox.options.heartbeat / RS_BEATS)
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
  const double heartbeat = s->inbox.options.heartbeat;
  if (!(heartbeat > 0))  /* RS_FOREVER? */
    return true;
  s->patience = RS_HEARTBEATS_FAR * heartbeat;
  s->told = rs_now_coarse();
  atomic_store(&s->heard, s->told);
  rs_timer_init(&s->watch, look_for_host);
  return rs_timer_set(&s->watch, s->told + s->patience);
}

/*
 * ASK: tell where the call stands.  The reader waits some milliseconds for
 * that, mostly, and not at all to write.  Without an answer, or without a
 * call, nothing is known: the host may ask again.
 */
static void
tell_place (server *s, uint64_t number)
{
  char text[RS_TRACEBACK] = "";
  rs_served *const c = rs_inbox_find(&s->inbox, number);
  if (c == NULL || rs_cancel_trace(s->inbox.cancel, &c->call,
                                   rs_now() + PATIENCE, text, sizeof text)
                   != RS_OK)
    text[0] = '\0';
  if (c != NULL)
    rs_served_unref(c);
  if (pthread_mutex_trylock(&s->writing) != 0)
    return;
  if (rs_carrier_has_room(&s->frames.carrier)) {
    rs_buf_clear(&s->payload);
    rs_add_text(&s->payload, text);
    send_locked(s, RS_FRAME_TRACE, number, NULL);
  }
  pthread_mutex_unlock(&s->writing);
}

/* ------------------------------------------------------------ what is read */

/* Obey a frame; false for what may not come. */
static bool
obey (server *s, const rs_frame *frame)
{
  if (frame->type == RS_FRAME_ASK) {
    tell_place(s, frame->number);
    return true;
  }
  if (frame->type != RS_FRAME_PING)
    return rs_inbox_put(&s->inbox, frame)
        && (frame->type != RS_FRAME_OPEN || watch_host(s));
  give_sign(s);
  return true;
}

/* Read what has come; without a ring, wait for some bytes first.  The process
   ends if that cannot go on. */
static void
read_frames (server *s, rs_frames *frames)
{
  rs_frame frame;
  int status = rs_frames_fill(frames);
  if (status == RS_OK)
    note_host(s);
  while (status == RS_OK
         && (status = rs_frames_take(frames, &frame)) == RS_OK) {
    if ((frames == &s->urgent && !rs_frame_is_urgent(frame.type))
        || !obey(s, &frame)) {
      fprintf(stderr, "runspace --worker: %s may not come here\n",
              rs_frame_name(frame.type));
      leave(1);
    }
  }
  if (status == RS_EBUSY)
    return;
  if (status == RS_ECLOSED && frames->error[0] == '\0')
    leave(0);  /* the host is gone, or has left */
  if (status == RS_ENOMEM)
    leave(RS_FRAME_NO_MEMORY);
  fprintf(stderr, "runspace --worker: what came is no frame: %s\n",
          frames->error);
  leave(1);
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
  rs_inbox_init(&s->inbox);
  if (rs_frames_init(&s->frames, RS_FRAME_WORKER, in, out) != RS_OK
      || rs_frames_init(&s->urgent, RS_FRAME_WORKER, in, out) != RS_OK)
    return EXIT_FAILURE;
  rs_carrier_use(&s->frames.carrier, rs_ring_join(in));
  if (!say_hello(s))
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
  for (;;)
    read_frames(s, s->frames.carrier.ring != NULL ? &s->urgent : &s->frames);
}

int
rs_worker_main (int argc, char **argv)
{
  rs_process_set_serving();
  if (argc != 2 || strcmp(argv[1], "--worker") != 0)
    return -1;
  return serve();
}
