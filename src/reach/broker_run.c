/* SPDX-License-Identifier: MIT */
/*
 * broker_run.c - the runner that hands calls to a broker.
 *
 *     published --> begun --> news, in their order --> ended
 *         \-----------------------------------------> stopped, lost
 *
 * The thread of a worker publishes the call, and waits for letters that are
 * for it.  The worker elsewhere that has begun the call is its holder.  A
 * message is at a worker more than once only if the broker delivers it again,
 * since a connection has ended; and then the other worker asks first:
 *
 *   - It may run what nobody has begun, since a worker begins nothing before
 *     the news of that is here.
 *   - The holder is probed.  If it is there, the other one waits.  If it is
 *     not connected any more, the call is lost, and the message dropped.
 *
 * After this side was away, workers have PATIENCE to tell that they are there
 * ('sure').  Then a call with a holder is lost, and one that may have got lost
 * on its way to the broker is published again, under a new serial, so that the
 * old letter is good for nothing.
 */
#include "reach/broker_run.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/broker.h"
#include "reach/exchange.h"
#include "reach/link_io.h"

#define HEARSAY 0.5      /* seconds in which the news that a call has begun is
                            here */
#define LOOK 0.05        /* seconds between two looks at a chunk's flags */
#define SILENCE (RS_KILL + 3.0)  /* seconds from force until a worker that does
                            not tell the end of a call is taken for lost */

#define SILENT 3.0       /* seconds without a letter of the holder until it is
                            probed: more than it lets pass */

enum {
  KEPT = 4,              /* functions whose hashes are known */
  SMALL = 4096,          /* bytes of a function, or of what opens a runspace,
                            that may go with a call */
  TIMES = 2,             /* calls of a runner that it goes with, at first, and
                            again when a worker has asked for it */
  LARGE = 65536,         /* the same of arguments; of a result, after which
                            the worker shall forget soon */
  EARLY = 4096,          /* news that may wait for news before it */
  GLANCE = 16            /* news after which the worker is told */
};

typedef struct broker_runner {
  rs_runner base;
  rs_broker *broker;     /* lent */
  rs_waker *waker;
  rs_sleeper sleeper;    /* at 'waker' */
  rs_buf letter;         /* that is being written */
  struct {
    rs_message *function;  /* a reference, or NULL */
    unsigned char hash[RS_AMQP_HASH];
    unsigned times;      /* that it has gone with a call */
  } kept[KEPT];
  unsigned opens;        /* the same of what opens a runspace */
  unsigned at;           /* place in 'kept' that is used next, modulo KEPT */
} broker_runner;

/* A call on its way. */
typedef struct trip {
  broker_runner *r;
  rs_token *token;
  rs_call *call;
  const rs_call_sink *sink;
  rs_order order;
  unsigned char function[RS_AMQP_HASH], arguments[RS_AMQP_HASH];
  unsigned *times;       /* of the function; in 'kept', or the next one */
  unsigned first;
  unsigned published;    /* the connection that it was published by: 'ups' of
                            the rs_broker_state; 0: it was not */
  unsigned ups;          /* the connection that is known */
  bool sure;             /* since then somebody has told of it, or will */
  bool begun;
  double heard;          /* instant of the last letter of the holder, or of the
                            last probe */
  bool probed;           /* nothing has come since */
  char holder[RS_AMQP_NAME];
  char granted[RS_AMQP_NAME];  /* whom it was given to by a reply; "" */
  bool back;             /* it was handed back, or is still to be given */
  bool asked;            /* somebody else has it, and waits */
  char asker[RS_AMQP_NAME];
  unsigned char nonce[RS_AMQP_HASH];
  rs_cut wanted;         /* hashes that the asker lacks; in 'want' */
  unsigned char want[3 * RS_AMQP_HASH];
  char worker[200];      /* who the holder is, in messages */
  uint64_t seen;         /* number of the news that comes next */
  rs_list early;         /* parcels that came before their turn */
  unsigned n_early;
  int level;             /* that CANCEL was sent for */
  double kill_at;        /* instant; RS_NEVER, as the next one */
  double drop_at;        /* until which a worker that has begun a call that is
                            stopped may say so */
  bool stopped;          /* STOP was sent */
  bool ended;
} trip;

static broker_runner *
own (const rs_runner *runner)
{
  return (broker_runner *) (uintptr_t) runner;
}

/* ----------------------------------------------------------------- sending */

static rs_buf *
begin (trip *t, rs_letter_type type)
{
  rs_buf *const b = &t->r->letter;
  rs_buf_clear(b);
  rs_letter_begin(&t->r->broker->desk, b, type, t->order.serial);
  return b;
}

/* As 'rs_letter_send'. */
static int
send (trip *t, const char *to, uint64_t number, unsigned priority)
{
  const int status = rs_letter_send(&t->r->broker->desk, t->r->broker->amqp,
                                    &t->r->letter, to, number, priority,
                                    true);
  if (t->r->letter.room > 4 * LARGE)
    rs_buf_fini(&t->r->letter);
  return status;
}

static void
hash_message (const rs_amqp_module *module, const rs_message *m,
              unsigned char out[RS_AMQP_HASH])
{
  unsigned char kind = (unsigned char) (m->constant | m->common << 1);
  const struct iovec parts[] = {
    { &kind, 1 }, { (void *) (uintptr_t) m->data, m->size }
  };
  module->hash(parts, 2, out);
}

/* The hash of the call's function, which may be known. */
static void
hash_function (trip *t)
{
  broker_runner *const r = t->r;
  rs_message *const f = t->call->function;
  t->times = &t->first;
  for (int i = 0; i < KEPT; i++)
    if (r->kept[i].function == f) {
      memcpy(t->function, r->kept[i].hash, RS_AMQP_HASH);
      t->times = &r->kept[i].times;
      return;
    }
  hash_message(r->broker->desk.module, f, t->function);
  if (!t->call->keep && t->call->chunk == NULL)
    return;
  const unsigned i = r->at++ % KEPT;
  r->kept[i].times = 0;
  t->times = &r->kept[i].times;
  rs_message_unref(r->kept[i].function);
  r->kept[i].function = rs_message_ref(f);
  memcpy(r->kept[i].hash, t->function, RS_AMQP_HASH);
}

/* Does this go with the call, which has gone 'times' times? */
static bool
goes_along (size_t size, unsigned *times)
{
  if (size > SMALL || *times >= TIMES)
    return false;
  ++*times;
  return true;
}

/* Publish the call.  As 'rs_letter_send'. */
static int
publish (trip *t)
{
  const rs_broker *const br = t->r->broker;
  const rs_call *const call = t->call;
  const rs_message *const a = call->arguments;
  rs_buf *const b = begin(t, RS_LETTER_CALL);
  const bool open = goes_along(br->open.size, &t->r->opens);
  const bool function = goes_along(call->function->size, t->times);
  rs_buf_add(b, br->open_hash, RS_AMQP_HASH);
  rs_add_number(b, open ? br->open.size : 0, 4);
  if (open)
    rs_buf_add(b, br->open.data, br->open.size);
  rs_buf_add(b, t->function, RS_AMQP_HASH);
  rs_add_number(b, function, 1);
  if (function)
    rs_add_message(b, call->function);
  rs_add_number(b, a == NULL ? 0 : a->size <= LARGE ? 1 : 2, 1);
  if (a != NULL && a->size <= LARGE)
    rs_add_message(b, a);
  else if (a != NULL) {
    hash_message(br->desk.module, a, t->arguments);
    rs_buf_add(b, t->arguments, RS_AMQP_HASH);
  }
  rs_call_write(b, call, 0, t->sink->name(t->call));
  return send(t, br->queue, 2 * t->order.serial,
              (unsigned) (call->priority + RS_PRIORITY_MAX) / 2);
}

/* Send a letter without content; true if it is on its way. */
static bool
send_brief (trip *t, rs_letter_type type, const char *to, uint64_t number)
{
  begin(t, type);
  return send(t, to, number, 0) == RS_OK;
}

/* Add what the asker lacks, if this call has it. */
static void
add_wanted (trip *t, rs_buf *b)
{
  const rs_broker *const br = t->r->broker;
  rs_cut c = t->wanted;
  while (c.size >= RS_AMQP_HASH) {
    const unsigned char *const hash = rs_cut_bytes(&c, RS_AMQP_HASH);
    const rs_message *const m
      = memcmp(hash, t->function, RS_AMQP_HASH) == 0 ? t->call->function
      : memcmp(hash, t->arguments, RS_AMQP_HASH) == 0 ? t->call->arguments
      : NULL;
    if (m == NULL && memcmp(hash, br->open_hash, RS_AMQP_HASH) != 0)
      continue;
    if (m == NULL)
      t->r->opens = 0;
    else if (m == t->call->function)
      *t->times = 0;
    rs_buf_add(b, hash, RS_AMQP_HASH);
    rs_add_number(b, m != NULL, 1);
    if (m != NULL)
      rs_add_message(b, m);
    else {
      rs_add_number(b, br->open.size, 8);
      rs_buf_add(b, br->open.data, br->open.size);
    }
  }
}

/* Answer the worker that has asked. */
static void
answer (trip *t, rs_verdict verdict)
{
  rs_buf *const b = begin(t, RS_LETTER_REPLY);
  rs_add_reply(b, t->nonce, verdict, atomic_load(&t->r->broker->next));
  if (verdict == RS_GO) {
    add_wanted(t, b);
    memcpy(t->granted, t->asker, sizeof t->granted);
    t->back = false;
    t->sure = true;
  }
  send(t, t->asker, 0, 0);
  t->asked = false;
}

/* ----------------------------------------------------------------- the end */

/* True when a call that is lost shall run again.  It is not at the worker that
   had it, or that worker will be told to stop it. */
static bool
runs_again (const rs_call *call)
{
  return (call->retry_on & RS_RETRY_LOST) != 0
      && call->attempt <= call->retries
      && rs_wish_reason(&call->wish) == RS_REASON_NONE;
}

/* The call has ended without a result.  It runs again if it shall. */
static void
give_up (trip *t, rs_job_state state, const char *text)
{
  rs_call *const call = t->call;
  t->ended = true;
  if (state == RS_JOB_LOST && runs_again(call)) {
    call->state = RS_JOB_QUEUED;
    if (call->chunk != NULL)
      call->chunk->losses++;
    call->attempt++;
    return;
  }
  call->state = state;
  t->sink->failed(call, text);
}

static void
lose (trip *t, const char *why)
{
  char text[400];
  snprintf(text, sizeof text, "%.199s %.199s", t->worker, why);
  give_up(t, RS_JOB_LOST, text);
}

/* What comes cannot be that of this call. */
static void
refuse (trip *t, const char *what)
{
  char text[200];
  snprintf(text, sizeof text, "sent what it may not: %.100s", what);
  lose(t, text);
}

/* ---------------------------------------------------------------- the news */

static void
hand_over (trip *t, rs_stream_record *record)
{
  broker_runner *const r = t->r;
  if (!t->sink->ready(t->call)) {
    rs_stream_record_unref(record);
    return;
  }
  rs_cancel_wakes(r->base.cancel);
  if (record->info.stream == RS_STREAM_EVENT)
    t->sink->emit(t->call, record);
  else
    t->sink->record(t->call, record);
  rs_cancel_sleeps(r->base.cancel, &r->sleeper);
}

static int
take_record (trip *t, rs_cut *c)
{
  rs_message *values = NULL;
  rs_stream_record *record = NULL;
  int status = rs_cut_message(c, RS_MESSAGE_LIVE, &values);
  if (status == RS_OK)
    status = rs_record_read(c, t->call, values, &record);
  if (status == RS_OK && record != NULL)
    hand_over(t, record);
  return status;
}

static int
take_output (trip *t, rs_cut *c)
{
  const unsigned fd = (unsigned) rs_cut_number(c, 1);
  const rs_frame frame = {
    .type = RS_FRAME_OUTPUT, .number = fd, .data = c->data, .size = c->size
  };
  (void) t;
  if (c->bad || fd < 1 || fd > 2)
    return RS_EFORMAT;
  rs_output_print(&frame);
  return RS_OK;
}

static int
take_result (trip *t, rs_cut *c)
{
  rs_message *values = NULL;
  bool spent;
  size_t bytes;
  int status = RS_OK;
  if (rs_cut_number(c, 1) != 0)
    status = rs_cut_message(c, RS_MESSAGE_LIVE, &values);
  if (status == RS_OK)
    status = rs_result_read(c, t->call, values, &spent, &bytes);
  if (status != RS_OK) {
    rs_message_unref(values);
    return status;
  }
  t->ended = true;
  if (t->call->chunk != NULL && t->call->state != RS_JOB_FAILED)
    rs_call_count_failures(t->call);
  return RS_OK;
}

/* The call has ended without a result, and the worker says why. */
static int
take_end (trip *t, rs_cut *c, rs_news kind)
{
  char *text = NULL;
  if (kind == RS_NEWS_LOST && rs_lost_read(c, t->call, &text) != RS_OK)
    return RS_EINVAL;
  if (kind != RS_NEWS_LOST && (text = rs_cut_text(c)) == NULL)
    return RS_EINVAL;
  if (text != NULL)
    rs_text_clean(text);
  give_up(t, kind == RS_NEWS_LOST ? RS_JOB_LOST : RS_JOB_FAILED,
          text != NULL && text[0] != '\0' ? text
          : kind == RS_NEWS_LOST ? "it did not come back, and its process was "
                                   "ended"
          : "the worker could not run it, and does not say why");
  free(text);
  return RS_OK;
}

/* Obey the news whose turn it is. */
static void
take_news (trip *t, rs_cut *c)
{
  const rs_news kind = (rs_news) rs_cut_number(c, 1);
  int status = RS_EFORMAT;
  t->seen++;
  switch (kind) {
    case RS_NEWS_RECORD:
      status = take_record(t, c);
      break;
    case RS_NEWS_OUTPUT:
      status = take_output(t, c);
      break;
    case RS_NEWS_RESULT:
      status = take_result(t, c);
      break;
    case RS_NEWS_LOST:
    case RS_NEWS_FAILED:
    case RS_NEWS_REFUSED:
      status = take_end(t, c, kind);
      break;
  }
  if (status == RS_ENOMEM)
    give_up(t, RS_JOB_FAILED, rs_status_message(RS_ENOMEM));
  else if (status != RS_OK)
    refuse(t, "news that cannot be that of this call");
  else if (!t->ended && t->seen % GLANCE == 0)
    rs_broker_remark(t->r->broker, t->holder, t->order.serial, t->seen,
                     false);
}

/* The number of news, which is read. */
static uint64_t
number_of (rs_parcel *p)
{
  rs_cut c = p->letter.content;
  return rs_cut_number(&c, 8);
}

/* Put the parcel among those that wait for their turn; false if it is there,
   or there are too many. */
static bool
put_early (trip *t, rs_parcel *p)
{
  const uint64_t number = number_of(p);
  rs_list *at = t->early.prev;
  while (at != &t->early
         && number_of(RS_LIST_ENTRY(at, rs_parcel, link)) > number)
    at = at->prev;
  if ((at != &t->early
       && number_of(RS_LIST_ENTRY(at, rs_parcel, link)) == number)
      || t->n_early == EARLY)
    return false;
  t->n_early++;
  rs_list_push_front(at, &p->link);
  return true;
}

/* Take all news whose turn it is. */
static void
take_turns (trip *t)
{
  while (!t->ended && !rs_list_empty(&t->early)) {
    rs_parcel *const p = RS_LIST_ENTRY(t->early.next, rs_parcel, link);
    if (number_of(p) > t->seen)
      return;
    rs_list_remove(&p->link);
    t->n_early--;
    rs_cut_number(&p->letter.content, 8);
    take_news(t, &p->letter.content);
    free(p);
  }
}

/* ------------------------------------------------------------- the letters */

/* The worker 'from' has the call; false: another one has it. */
static bool
is_holder (trip *t, const char *from)
{
  if (!t->begun) {
    memcpy(t->holder, from, sizeof t->holder);
    t->begun = true;
  }
  if (strcmp(t->holder, from) != 0)
    return false;
  t->sure = true;
  t->heard = rs_now();
  if (t->probed) {
    rs_order_forget(t->r->broker, &t->order);
    t->probed = false;
  }
  return true;
}

/* The holder has not begun the call after all. */
static void
let_go (trip *t)
{
  if (t->probed)
    rs_order_forget(t->r->broker, &t->order);
  t->begun = t->probed = false;
  t->holder[0] = '\0';
}

/* Find out whether the holder is there. */
static void
probe (trip *t)
{
  t->heard = rs_now();
  t->probed |= send_brief(t, RS_LETTER_PROBE, t->holder,
                          2 * t->order.serial + 1);
}

static void
take_began (trip *t, rs_cut *c)
{
  char *const host = rs_cut_text(c);
  const unsigned long long pid = rs_cut_number(c, 8);
  if (host == NULL)
    return;
  rs_text_clean(host);
  snprintf(t->worker, sizeof t->worker, "%.100s: the worker (process %llu) of "
                                        "queue '%.60s'", host, pid,
           t->r->broker->queue);
  const char *const kept = rs_broker_name(t->r->broker, host);
  if (kept != NULL)
    t->r->base.host = kept;
  free(host);
}

/* Remember who asks, and what it lacks. */
static bool
note_ask (trip *t, const rs_letter *letter, bool *again)
{
  rs_cut c = letter->content;
  const unsigned char *const nonce = rs_cut_bytes(&c, RS_AMQP_HASH);
  *again = rs_cut_number(&c, 1) != 0;
  if (c.bad || c.size > sizeof t->want || c.size % RS_AMQP_HASH != 0)
    return false;
  memcpy(t->asker, letter->from, sizeof t->asker);
  memcpy(t->nonce, nonce, RS_AMQP_HASH);
  memcpy(t->want, c.data, c.size);
  t->wanted = (rs_cut) { t->want, c.size, false };
  return t->asked = true;
}

static void
take_ask (trip *t, const rs_letter *letter, const rs_broker_state *state)
{
  bool again;
  if (!note_ask(t, letter, &again))
    return;
  if (t->begun && strcmp(t->holder, t->asker) == 0 && again)
    lose(t, "does not know any more that it has begun the call");
  else if (t->begun && again && !t->probed)
    probe(t);  /* 'review' hears of it */
  else if (t->begun && again)
    t->asked = true;
  else if (t->begun || (!again && t->granted[0] != '\0'
                        && strcmp(t->granted, t->asker) != 0))
    answer(t, RS_DROP);
  else if (!again || t->back || (t->sure && t->ups == state->ups))
    answer(t, RS_GO);
  else  /* 'doubt' finds out */
    t->back = true;
}

static void
take_letter (trip *t, rs_parcel *p, const rs_broker_state *state)
{
  rs_letter *const letter = &p->letter;
  bool kept = false;
  switch (letter->type) {
    case RS_LETTER_ASK:
      take_ask(t, letter, state);
      break;
    case RS_LETTER_BEGAN:
      if (is_holder(t, letter->from))
        take_began(t, &letter->content);
      else  /* it is told to stop */
        rs_broker_remark(t->r->broker, letter->from, t->order.serial,
                         UINT64_MAX, true);
      break;
    case RS_LETTER_ALIVE:
      is_holder(t, letter->from);
      break;
    case RS_LETTER_BACK:
      if (strcmp(t->holder, letter->from) == 0)
        let_go(t);
      t->back = !t->begun;
      break;
    case RS_LETTER_ABSENT:
      if (t->begun && strcmp(t->holder, letter->from) == 0)
        lose(t, "does not have the call any more");
      break;
    default:
      if (is_holder(t, letter->from) && letter->content.size >= 9
          && number_of(p) >= t->seen)
        kept = put_early(t, p);
      break;
  }
  if (!kept)
    free(p);
  take_turns(t);
}

/* ---------------------------------------------------------------- stopping */

static bool
is_set (const _Atomic bool *flag)
{
  return flag != NULL && atomic_load_explicit(flag, memory_order_relaxed);
}

/* True when the flags of the chunk have to be looked at. */
static bool
has_flags (const trip *t)
{
  const rs_chunk *const k = t->call->chunk;
  return k != NULL && !t->stopped && (k->stop != NULL || k->failed != NULL);
}

static bool
send_cancel (trip *t, bool force)
{
  const rs_wish *const w = &t->call->wish;
  const rs_reason wish = rs_wish_reason(w);
  rs_reason reason = wish != RS_REASON_NONE
                   ? wish : rs_token_reason(t->r->base.cancel, t->token);
  if (reason == RS_REASON_NONE)
    reason = RS_REASON_CANCELLED;
  rs_buf *const b = begin(t, RS_LETTER_CANCEL);
  rs_add_number(b, reason, 1);
  rs_add_double(b, force ? 0 : wish != RS_REASON_NONE ? (double) w->grace
                                                      : RS_GRACE);
  return send(t, NULL, 0, 0) == RS_OK;
}

/* Pass on what stops the call.  A call that nobody has begun, as far as is
   known soon after that, has ended then; a worker that begins it none the less
   is told so. */
static void
attend (trip *t, const rs_broker_state *state)
{
  const bool forced = rs_token_forced(t->token);
  const int level = forced ? RS_HARD : rs_token_stopped(t->token) ? RS_SOFT
                                                                  : RS_GOING;
  if (level > t->level && t->published != 0 && state->up
      && send_cancel(t, forced))
    t->level = level;
  if (level > RS_GOING && t->drop_at == RS_NEVER)
    t->drop_at = t->published != 0 ? rs_now() + HEARSAY : 0;
  if (!t->begun && rs_now() >= t->drop_at) {
    t->call->state = RS_JOB_CANCELLED;
    t->ended = true;
    return;
  }
  if (forced && t->kill_at == RS_NEVER)
    t->kill_at = rs_now() + SILENCE;
  if (rs_now() >= t->kill_at)
    lose(t, "was told to stop the call, and did not answer");
  else if (has_flags(t) && t->begun && state->up
           && (is_set(t->call->chunk->stop)
               || is_set(t->call->chunk->failed)))
    t->stopped = send_brief(t, RS_LETTER_STOP, t->holder, 0);
}

/* ----------------------------------------------------------------- running */

/* Publish, again under another serial.  'ups' is the connection. */
static void
send_off (trip *t, const rs_broker_state *state)
{
  if (t->published != 0)
    rs_order_renew(t->r->broker, &t->order);
  t->asked = false;
  t->granted[0] = '\0';
  const int status = publish(t);
  if (status == RS_OK) {
    t->published = t->ups = state->ups;
    t->sure = true;
  }
  else if (status != RS_ECLOSED)  /* else 'down' will wake this thread */
    give_up(t, RS_JOB_FAILED, rs_status_message(status));
}

/* The instant from which on workers are connected again that were with a
   broker which has been away. */
static double
all_back (const rs_broker_state *state)
{
  return state->ups > 1 ? state->since + RS_BROKER_PATIENCE : 0;
}

/* After the connection was away: is the call somewhere?  Returns the instant
   at which that is known. */
static double
doubt (trip *t, const rs_order *o, const rs_broker_state *state)
{
  const double until = all_back(state);
  if (rs_now() < until)
    return until;
  if (t->begun)
    lose(t, "did not come back after the broker, or the way to it, was gone");
  else if (t->asked)
    answer(t, RS_GO);
  else if (!o->confirmed || state->away >= RS_BROKER_PATIENCE / 2)
    send_off(t, state);
  else
    t->sure = true;
  return RS_NEVER;
}

/* Do what the state of the connection, and the time, ask for.  Returns the
   instant of the next look. */
static double
review (trip *t)
{
  rs_order o;
  rs_broker_state state;
  double next = RS_NEVER;
  rs_order_look(t->r->broker, &t->order, &o, &state);
  attend(t, &state);
  if (t->ended)
    return next;
  if (o.homeless) {
    char text[320];
    snprintf(text, sizeof text, "%.200s has no queue '%.60s' any more",
             t->r->broker->url, t->r->broker->queue);
    give_up(t, RS_JOB_FAILED, text);
  }
  else if (!state.up)
    next = RS_NEVER;
  else if (t->published == 0)
    send_off(t, &state);
  else if (t->ups != state.ups) {
    t->ups = state.ups;
    t->sure = t->probed = false;
    t->level = RS_GOING;   /* CANCEL goes again */
    t->stopped = false;
    rs_order_forget(t->r->broker, &t->order);
    next = 0;
  }
  else if (!t->sure)
    next = doubt(t, &o, &state);
  else if (o.absent && rs_now() >= all_back(&state))
    lose(t, "is gone: its connection to the broker has ended");
  else if (o.absent)
    next = all_back(&state);
  else if (t->begun && rs_now() >= t->heard + SILENT)
    probe(t);
  if (t->begun && state.up && !o.absent && t->heard + SILENT < next)
    next = t->heard + SILENT;
  if (!t->begun && rs_now() + SILENT < next)  /* BEGAN wakes nobody */
    next = rs_now() + SILENT;
  if (t->kill_at < next)
    next = t->kill_at;
  if (!t->begun && t->drop_at < next)
    next = t->drop_at;
  if (has_flags(t) && rs_now() + LOOK < next)
    next = rs_now() + LOOK;
  return next;
}

/* Wait until something has come, or the instant. */
static void
await (const broker_runner *r, double until)
{
  struct pollfd fd = { .fd = r->waker->fd, .events = POLLIN };
  const double left = rs_remaining(until);
  const int ms = left == RS_FOREVER ? -1 : left < 1e6 ? (int) (left * 1e3) + 1
                                                      : 1000000000;
  if (poll(&fd, 1, ms) > 0)
    rs_waker_take(r->waker);
}

static void
run_call (trip *t)
{
  rs_broker *const br = t->r->broker;
  rs_order o;
  rs_broker_state state;
  rs_parcel *p;
  hash_function(t);
  rs_order_enter(br, &t->order, t->r->waker);
  while (!t->ended) {
    const double next = review(t);
    rs_order_look(br, &t->order, &o, &state);
    bool came = false;
    while (!t->ended && (p = rs_order_take(br, &t->order)) != NULL) {
      take_letter(t, p, &state);
      came = true;
    }
    if (!t->ended && !came)
      await(t->r, next);
  }
  if (t->asked)
    answer(t, RS_DROP);
  rs_order_leave(br, &t->order);
  if (t->begun)
    rs_broker_remark(br, t->holder, t->order.serial, UINT64_MAX, true);
  if (t->call->result != NULL && t->call->result->size > LARGE)
    rs_broker_flush(br);
  rs_list *link;
  while ((link = rs_list_shift(&t->early)) != NULL)
    free(RS_LIST_ENTRY(link, rs_parcel, link));
}

static void
run (rs_runner *runner, rs_call *call, const rs_call_sink *sink)
{
  broker_runner *const r = own(runner);
  rs_token token;
  trip t = {
    .r = r, .token = &token, .call = call, .sink = sink, .kill_at = RS_NEVER,
    .drop_at = RS_NEVER
  };
  rs_list_init(&t.early);
  snprintf(t.worker, sizeof t.worker, "the worker of queue '%.60s'",
           r->broker->queue);
  rs_message_unref(call->result);  /* of an earlier attempt */
  call->result = NULL;
  call->state = RS_JOB_FAILED;
  call->reason = RS_REASON_NONE;
  rs_token_enter(runner->cancel, &token, NULL, call, &call->wish);
  rs_cancel_sleeps(runner->cancel, &r->sleeper);
  run_call(&t);
  rs_cancel_wakes(runner->cancel);
  rs_token_end(runner->cancel, &token, NULL);
  rs_call_settle(call, rs_token_leave(runner->cancel, &token, NULL));
}

/* ----------------------------------------------------------------- opening */

/* Wait until the connection has come up, once.  RS_OK, RS_EFAILED or
   RS_ESTOPPED. */
static int
await_up (broker_runner *r, rs_order *o, const rs_token *token, rs_error *err)
{
  rs_order seen;
  rs_broker_state state;
  for (;;) {
    rs_order_look(r->broker, o, &seen, &state);
    if (state.ups > 0)
      return RS_OK;
    if (state.text[0] != '\0')
      return rs_fail(err, RS_EFAILED, "%s", state.text);
    if (rs_token_stopped(token))
      return rs_fail(err, RS_ESTOPPED, "%s", rs_reason_text(RS_REASON_CLOSED));
    await(r, RS_NEVER);
  }
}

static void
close_one (rs_runner *runner)
{
  broker_runner *const r = own(runner);
  for (int i = 0; i < KEPT; i++)
    rs_message_unref(r->kept[i].function);
  rs_buf_fini(&r->letter);
  if (r->waker != NULL)
    rs_waker_unref(r->waker);
  free(r);
}

static int
open_one (const rs_state_options *options, rs_runner **out, rs_error *err)
{
  rs_order o;
  rs_token token;
  broker_runner *const r = calloc(1, sizeof *r);
  if (r == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  r->base = (rs_runner) {
    .kind = &rs_broker_kind, .cancel = options->cancel,
    .worker = options->worker
  };
  r->broker = options->shared;
  r->letter = (rs_buf) RS_BUF_INIT;
  r->waker = rs_waker_new();
  if (r->waker == NULL) {
    rs_fail(err, RS_EFAILED, "cannot make an eventfd for a worker of queue "
                             "'%.100s'", r->broker->queue);
    close_one(&r->base);
    return RS_EFAILED;
  }
  r->sleeper = rs_waker_sleeper(r->waker);
  rs_token_enter(options->cancel, &token, NULL, options->owner,
                 options->wish);
  rs_cancel_sleeps(options->cancel, &r->sleeper);
  rs_order_enter(r->broker, &o, r->waker);
  const int status = await_up(r, &o, &token, err);
  rs_order_leave(r->broker, &o);
  rs_cancel_wakes(options->cancel);
  rs_token_leave(options->cancel, &token, NULL);
  if (status != RS_OK) {
    close_one(&r->base);
    return status;
  }
  *out = &r->base;
  return RS_OK;
}

static bool
spent (rs_runner *runner)
{
  (void) runner;
  return false;
}

static void
trim (rs_runner *runner, bool chunk)
{
  broker_runner *const r = own(runner);
  (void) chunk;
  for (int i = 0; i < KEPT; i++)
    if (r->kept[i].function != NULL
        && atomic_load_explicit(&r->kept[i].function->refs,
                                memory_order_acquire) == 1) {
      rs_message_unref(r->kept[i].function);
      r->kept[i].function = NULL;
    }
}

static void
rest (rs_runner *runner)
{
  rs_broker_flush(own(runner)->broker);
}

static size_t
bytes (const rs_runner *runner)
{
  (void) runner;
  return 0;
}

static int
prepare (const rs_pool_options *options, void **shared, rs_error *err)
{
  rs_broker *b = NULL;
  const int status = rs_broker_new(options, &b, err);
  *shared = b;
  return status;
}

static void
trouble (void *shared, char *text, size_t size)
{
  rs_broker_trouble(shared, text, size);
}

static void
dismiss (void *shared)
{
  rs_broker_free(shared);
}

const rs_runner_kind rs_broker_kind = {
  .forbidden = RS_MESSAGE_LOCAL,
  .reruns = true,
  .anywhere = true,
  .prepare = prepare,
  .trouble = trouble,
  .dismiss = dismiss,
  .open = open_one,
  .run = run,
  .spent = spent,
  .trim = trim,
  .rest = rest,
  .bytes = bytes,
  .close = close_one,
};
