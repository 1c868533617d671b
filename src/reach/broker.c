/* SPDX-License-Identifier: MIT */
/*
 * broker.c - the caller's side of a broker: what all runners of a pool share.
 *
 * The functions at the end of 'rs_amqp_user' are called by the connection's
 * thread.  The lock of the broker is not held while the module is called.
 */
#include "reach/broker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/broker_module.h"
#include "reach/exchange.h"
#include "reach/key.h"

#define GOODBYE 1.0         /* seconds to write what is to be written, at the
                               end */

enum { MANY = 32 };         /* remarks that make a letter */

/* What one worker may forget. */
struct rs_remark {
  struct rs_remark *next;
  char to[RS_AMQP_NAME];
  unsigned n;
  rs_buf letter;
};

struct rs_hostname {
  struct rs_hostname *next;
  char text[];
};

/* -------------------------------------------------------------- the orders */

static rs_list *
bucket (rs_broker *b, uint64_t serial)
{
  return &b->orders[serial % (sizeof b->orders / sizeof b->orders[0])];
}

static rs_order *
find_locked (rs_broker *b, uint64_t serial)
{
  rs_list *const head = bucket(b, serial);
  for (rs_list *link = head->next; link != head; link = link->next) {
    rs_order *const o = RS_LIST_ENTRY(link, rs_order, link);
    if (o->serial == serial)
      return o;
  }
  return NULL;
}

static void
wake (rs_waker *waker)
{
  const rs_sleeper s = rs_waker_sleeper(waker);
  s.wake(s.object);
}

static void
wake_all_locked (rs_broker *b)
{
  for (size_t i = 0; i < sizeof b->orders / sizeof b->orders[0]; i++)
    for (rs_list *link = b->orders[i].next; link != &b->orders[i];
         link = link->next)
      wake(RS_LIST_ENTRY(link, rs_order, link)->waker);
}

static void
list_locked (rs_broker *b, rs_order *o)
{
  o->serial = atomic_fetch_add(&b->next, 1);
  rs_list_push(bucket(b, o->serial), &o->link);
}

void
rs_order_enter (rs_broker *b, rs_order *o, rs_waker *waker)
{
  *o = (rs_order) { .waker = waker };
  rs_list_init(&o->inbox);
  pthread_mutex_lock(&b->lock);
  list_locked(b, o);
  pthread_mutex_unlock(&b->lock);
}

void
rs_order_renew (rs_broker *b, rs_order *o)
{
  pthread_mutex_lock(&b->lock);
  rs_list_remove(&o->link);
  o->confirmed = o->homeless = o->absent = false;
  list_locked(b, o);
  pthread_mutex_unlock(&b->lock);
}

void
rs_order_leave (rs_broker *b, rs_order *o)
{
  rs_list *link;
  pthread_mutex_lock(&b->lock);
  rs_list_remove(&o->link);
  pthread_mutex_unlock(&b->lock);
  while ((link = rs_list_shift(&o->inbox)) != NULL)
    free(RS_LIST_ENTRY(link, rs_parcel, link));
}

rs_parcel *
rs_order_take (rs_broker *b, rs_order *o)
{
  pthread_mutex_lock(&b->lock);
  rs_list *const link = rs_list_shift(&o->inbox);
  pthread_mutex_unlock(&b->lock);
  return link != NULL ? RS_LIST_ENTRY(link, rs_parcel, link) : NULL;
}

void
rs_order_look (rs_broker *b, const rs_order *o, rs_order *out,
               rs_broker_state *state)
{
  pthread_mutex_lock(&b->lock);
  *out = *o;
  *state = b->state;
  pthread_mutex_unlock(&b->lock);
}

void
rs_order_forget (rs_broker *b, rs_order *o)
{
  pthread_mutex_lock(&b->lock);
  o->absent = false;
  pthread_mutex_unlock(&b->lock);
}

void
rs_broker_trouble (rs_broker *b, char *text, size_t size)
{
  pthread_mutex_lock(&b->lock);
  snprintf(text, size, "%s", b->state.up ? "" : b->state.text);
  pthread_mutex_unlock(&b->lock);
}

void
rs_broker_get (rs_broker *b, rs_broker_info *out)
{
  memset(out, 0, sizeof *out);
  out->size = sizeof *out;
  snprintf(out->url, sizeof out->url, "%s", b->url);
  snprintf(out->queue, sizeof out->queue, "%s", b->queue);
  pthread_mutex_lock(&b->lock);
  out->waiting = b->state.waiting;
  out->servers = b->state.servers;
  pthread_mutex_unlock(&b->lock);
  b->desk.module->look(b->amqp);
}

/* ------------------------------------------------------- what is forgotten */

static void
free_remark (struct rs_remark *r)
{
  rs_buf_fini(&r->letter);
  free(r);
}

/* Send a letter to one worker. */
static void
send_remark (rs_broker *b, struct rs_remark *r)
{
  rs_letter_send(&b->desk, b->amqp, &r->letter, r->to, 0, 0, false);
  free_remark(r);
}

void
rs_broker_remark (rs_broker *b, const char *to, uint64_t serial,
                  uint64_t seen, bool done)
{
  pthread_mutex_lock(&b->lock);
  struct rs_remark **at = &b->remarks, *full = NULL;
  while (*at != NULL && strcmp((*at)->to, to) != 0)
    at = &(*at)->next;
  if (*at == NULL && (*at = calloc(1, sizeof **at)) != NULL) {
    snprintf((*at)->to, sizeof (*at)->to, "%s", to);
    rs_letter_begin(&b->desk, &(*at)->letter, RS_LETTER_SEEN, 0);
  }
  struct rs_remark *const r = *at;
  if (r != NULL) {
    rs_add_number(&r->letter, serial, 8);
    rs_add_number(&r->letter, seen, 8);
    rs_add_number(&r->letter, done, 1);
    if (++r->n >= MANY || !done) {
      *at = r->next;
      full = r;
    }
  }
  pthread_mutex_unlock(&b->lock);
  if (full != NULL)
    send_remark(b, full);
}

static struct rs_remark *
take_remarks (rs_broker *b)
{
  pthread_mutex_lock(&b->lock);
  struct rs_remark *const r = b->remarks;
  b->remarks = NULL;
  pthread_mutex_unlock(&b->lock);
  return r;
}

void
rs_broker_flush (rs_broker *b)
{
  struct rs_remark *r = take_remarks(b);
  while (r != NULL) {
    struct rs_remark *const next = r->next;
    send_remark(b, r);
    r = next;
  }
}

const char *
rs_broker_name (rs_broker *b, const char *name)
{
  const size_t size = strlen(name) + 1;
  pthread_mutex_lock(&b->lock);
  struct rs_hostname *n = b->names;
  while (n != NULL && strcmp(n->text, name) != 0)
    n = n->next;
  if (n == NULL && (n = malloc(sizeof *n + size)) != NULL) {
    memcpy(n->text, name, size);
    n->next = b->names;
    b->names = n;
  }
  pthread_mutex_unlock(&b->lock);
  return n != NULL ? n->text : NULL;
}

/* ------------------------------------------------- the connection's thread */

/* Send a letter without content. */
static void
send_brief (rs_broker *b, rs_letter_type type, uint64_t serial,
            const char *to)
{
  rs_buf letter = RS_BUF_INIT;
  rs_letter_begin(&b->desk, &letter, type, serial);
  rs_letter_send(&b->desk, b->amqp, &letter, to, 0, 0, false);
  rs_buf_fini(&letter);
}

static void
on_up (void *ud)
{
  rs_broker *const b = ud;
  const double now = rs_now();
  send_brief(b, RS_LETTER_RESUME, atomic_load(&b->next), NULL);
  b->desk.module->look(b->amqp);
  pthread_mutex_lock(&b->lock);
  b->state.away = now - b->state.since;
  b->state.since = now;
  b->state.up = true;
  b->state.ups++;
  wake_all_locked(b);
  pthread_mutex_unlock(&b->lock);
}

static void
on_down (void *ud, const char *text, bool refused)
{
  rs_broker *const b = ud;
  pthread_mutex_lock(&b->lock);
  if (b->state.up || b->state.ups == 0)
    b->state.since = rs_now();
  b->state.up = false;
  b->state.refused = refused;
  snprintf(b->state.text, sizeof b->state.text, "%s", text);
  wake_all_locked(b);
  pthread_mutex_unlock(&b->lock);
}

/* A letter about a call that is not waited for any more: whoever wrote it may
   forget the call. */
static void
dismiss_letter (rs_broker *b, const rs_letter *letter)
{
  rs_buf answer = RS_BUF_INIT;
  if (letter->type == RS_LETTER_ASK) {
    rs_cut c = letter->content;
    const unsigned char *const nonce = rs_cut_bytes(&c, RS_AMQP_HASH);
    if (nonce == NULL)
      return;
    rs_letter_begin(&b->desk, &answer, RS_LETTER_REPLY, letter->serial);
    rs_add_reply(&answer, nonce, RS_DROP, atomic_load(&b->next));
  }
  else if (letter->type != RS_LETTER_ABSENT
           && letter->type != RS_LETTER_BACK) {
    rs_letter_begin(&b->desk, &answer, RS_LETTER_SEEN, 0);
    rs_add_number(&answer, letter->serial, 8);
    rs_add_number(&answer, UINT64_MAX, 8);
    rs_add_number(&answer, 1, 1);
  }
  if (answer.size > 0)
    rs_letter_send(&b->desk, b->amqp, &answer, letter->from, 0, 0, false);
  rs_buf_fini(&answer);
}

/* Hand the letter to its order; false: there is none. */
static bool
hand_over (rs_broker *b, const rs_letter *letter)
{
  rs_parcel *const p = malloc(sizeof *p + letter->content.size);
  if (p == NULL)
    return true;
  p->letter = *letter;
  memcpy(p->bytes, letter->content.data, letter->content.size);
  p->letter.content.data = p->bytes;
  rs_sleeper sleeper = { .wake = NULL };
  pthread_mutex_lock(&b->lock);
  rs_order *const o = find_locked(b, letter->serial);
  if (o != NULL) {
    rs_list_push(&o->inbox, &p->link);
    if (letter->type != RS_LETTER_BEGAN) {  /* that can wait */
      sleeper = rs_waker_sleeper(o->waker);
      sleeper.ref(sleeper.object);
    }
  }
  pthread_mutex_unlock(&b->lock);
  if (o == NULL)
    free(p);
  if (sleeper.wake != NULL) {  /* without the lock, which it takes at once */
    sleeper.wake(sleeper.object);
    sleeper.unref(sleeper.object);
  }
  return o != NULL;
}

/* True for a letter without our seal that says so: whoever can write to the
   queue for answers can tell that lie, and nothing else. */
static bool
tells_refusal (const rs_letter *letter)
{
  rs_cut c = letter->content;
  return letter->type == RS_LETTER_NEWS && rs_cut_number(&c, 8) == 0
      && rs_cut_number(&c, 1) == RS_NEWS_REFUSED;
}

static void
on_deliver (void *ud, const rs_amqp_delivery *d)
{
  rs_broker *const b = ud;
  rs_letter letter;
  const int status = rs_letter_read(&b->desk, d->body, d->size, b->own,
                                    &letter);
  if (status != RS_OK && (status != RS_EREFUSED || !tells_refusal(&letter)))
    return;
  if (letter.type != RS_LETTER_ASK && letter.type != RS_LETTER_BEGAN
      && letter.type != RS_LETTER_NEWS && letter.type != RS_LETTER_ALIVE
      && letter.type != RS_LETTER_ABSENT && letter.type != RS_LETTER_BACK)
    return;
  if (!hand_over(b, &letter) && status == RS_OK)
    dismiss_letter(b, &letter);
}

/* The number of a message is twice the serial; one more for PROBE. */
static void
on_confirm (void *ud, uint64_t number, bool routed)
{
  rs_broker *const b = ud;
  pthread_mutex_lock(&b->lock);
  rs_order *const o = find_locked(b, number / 2);
  if (o != NULL && number % 2 == 0) {
    o->confirmed = routed;
    o->homeless = !routed;
  }
  else if (o != NULL)
    o->absent = !routed;
  if (o != NULL && !routed)
    wake(o->waker);
  pthread_mutex_unlock(&b->lock);
}

static void
on_count (void *ud, uint64_t messages, uint64_t consumers)
{
  rs_broker *const b = ud;
  pthread_mutex_lock(&b->lock);
  b->state.waiting = messages;
  b->state.servers = consumers;
  pthread_mutex_unlock(&b->lock);
}

static const rs_amqp_user user = {
  .up = on_up, .down = on_down, .deliver = on_deliver, .confirm = on_confirm,
  .count = on_count
};

/* ---------------------------------------------------------------- the life */

/* What a runspace is opened from: who we are, and the options. */
static bool
write_open (rs_broker *b, const rs_pool_options *options)
{
  const struct iovec *part;
  rs_hello_write(&b->open);
  rs_open_write(&b->open, options, 0);
  if (b->open.failed)
    return false;
  part = &(struct iovec) { b->open.data, b->open.size };
  b->desk.module->hash(part, 1, b->open_hash);
  return true;
}

static int
set_up (rs_broker *b, const rs_pool_options *options, rs_error *err)
{
  char url[256], exchange[RS_AMQP_NAME];
  const rs_amqp_module *const module = b->desk.module;
  module->show(options->broker, url, sizeof url);
  b->url = strdup(url);
  b->queue = strdup(options->broker_queue);
  if (b->url == NULL || b->queue == NULL || !write_open(b, options))
    return rs_fail_plain(err, RS_ENOMEM);
  if (options->key != NULL) {
    const int status = rs_key_read(options->key, &b->key, &b->desk.key_size,
                                   err);
    if (status != RS_OK)
      return status;
    b->desk.key = b->key;
  }
  b->own = rs_letter_queue(module, "caller");
  if (b->own == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  b->desk.queue = b->queue;
  b->desk.own = b->own;
  snprintf(exchange, sizeof exchange, RS_LETTER_EXCHANGE, b->queue);
  const rs_amqp_options o = {
    .url = options->broker, .title = "runspace: a pool", .queue = b->queue,
    .own = b->own, .exchange = exchange, .user = &user, .ud = b
  };
  return module->open(&o, &b->amqp, err);
}

int
rs_broker_new (const rs_pool_options *options, rs_broker **out, rs_error *err)
{
  const rs_amqp_module *const module = rs_broker_module(err);
  if (module == NULL)
    return RS_EFAILED;
  rs_broker *const b = calloc(1, sizeof *b);
  if (b == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  b->desk.module = module;
  b->open = (rs_buf) RS_BUF_INIT;
  atomic_init(&b->next, 1);
  pthread_mutex_init(&b->lock, NULL);
  b->state.since = rs_now();
  for (size_t i = 0; i < sizeof b->orders / sizeof b->orders[0]; i++)
    rs_list_init(&b->orders[i]);
  const int status = set_up(b, options, err);
  if (status != RS_OK) {
    rs_broker_free(b);
    return status;
  }
  *out = b;
  return RS_OK;
}

void
rs_broker_free (rs_broker *b)
{
  if (b->amqp != NULL) {
    rs_broker_flush(b);
    b->desk.module->close(b->amqp, GOODBYE);
  }
  while (b->names != NULL) {
    struct rs_hostname *const n = b->names;
    b->names = n->next;
    free(n);
  }
  if (b->key != NULL)
    rs_key_free(b->key, b->desk.key_size);
  rs_buf_fini(&b->open);
  pthread_mutex_destroy(&b->lock);
  free(b->url);
  free(b->queue);
  free(b->own);
  free(b);
}
