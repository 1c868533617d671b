/* SPDX-License-Identifier: MIT */
/*
 * server_mail.c - the letters that come to a server.
 *
 * The connection's thread takes them, in the functions of 'rs_server_user'.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "reach/exchange.h"
#include "reach/server_book.h"

/* --------------------------------------------------------------- the calls */

/* Read a hash, and what has it if that comes with it: 'how' is 1 for a
   message, and else the number of bytes. */
static int
cut_part (rs_cut *c, rs_server_task *t, int i, rs_message **out)
{
  const unsigned char *const hash = rs_cut_bytes(c, RS_AMQP_HASH);
  if (hash == NULL)
    return RS_EFORMAT;
  memcpy(t->need[i], hash, RS_AMQP_HASH);
  if (i == 1)
    return rs_cut_number(c, 1) != 0 ? rs_cut_message(c, 0, out) : RS_OK;
  const uint64_t size = rs_cut_number(c, 4);
  const unsigned char *const data = rs_cut_bytes(c, size);
  if (data == NULL)
    return RS_EFORMAT;
  if (size > 0 && (*out = rs_message_new(data, (size_t) size, 0)) == NULL)
    return RS_ENOMEM;
  return RS_OK;
}

/* Read a call into a task; 'parts' are its open and its function, if they came
   with it. */
static int
read_call (rs_cut *c, rs_server_task *t, rs_message *parts[2])
{
  rs_call_more more = { .name = NULL };
  int status = cut_part(c, t, 0, &parts[0]);
  if (status == RS_OK)
    status = cut_part(c, t, 1, &parts[1]);
  const unsigned how = (unsigned) rs_cut_number(c, 1);
  t->has_arguments = how != 0;
  if (status == RS_OK && how == 1)
    status = rs_cut_message(c, 0, &t->have[2]);
  else if (status == RS_OK && how == 2) {
    const unsigned char *const hash = rs_cut_bytes(c, RS_AMQP_HASH);
    if (hash != NULL)
      memcpy(t->need[2], hash, RS_AMQP_HASH);
  }
  if (status == RS_OK)
    status = rs_call_read(c, &t->call, &t->chunk, &more);
  t->name = more.name;
  t->call.retry_on &= (uint8_t) ~RS_RETRY_LOST;  /* the caller's to decide */
  if (status == RS_OK && more.arguments != t->has_arguments)
    status = RS_EFORMAT;
  t->chunk.stop = &t->stop;
  if (more.limited) {
    atomic_init(&t->allowed, more.allowed);
    t->chunk.failed = &t->failed;
    t->chunk.allowed = &t->allowed;
  }
  return status;
}

/* The task may run when all of it is here. */
static void
set_ready_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  t->call.function = t->have[1];
  t->call.arguments = t->have[2];
  t->state = RS_TASK_READY;
  rs_server_announce_locked(s, o);
}

static bool
is_whole (const rs_server_task *t)
{
  return t->have[0] != NULL && t->have[1] != NULL
      && (t->have[2] != NULL || !t->has_arguments);
}

/* A message for a task that is here came again. */
static void
take_again_locked (rs_server *s, rs_tray *o, rs_server_task *t, uint64_t tag)
{
  if (t->tag == 0)
    t->tag = tag;
  else if (o->n_acks < sizeof o->acks / sizeof o->acks[0])
    o->acks[o->n_acks++] = tag;  /* a copy */
  rs_server_settle_locked(s, o, t);
}

/* Let the task run, or ask whether it may. */
static void
place_locked (rs_server *s, rs_tray *o, rs_server_task *t,
              rs_message *parts[2])
{
  rs_client *const c = t->client;
  for (int i = 0; i < 2; i++) {
    if (parts[i] != NULL)
      rs_server_store_locked(s, t->need[i], parts[i], i == 1);
    t->have[i] = rs_server_stored_locked(s, t->need[i]);
  }
  if (t->has_arguments && t->have[2] == NULL)
    t->have[2] = rs_server_stored_locked(s, t->need[2]);
  if (c->dead || (c->known && rs_client_has_void(c, t->serial)))
    rs_server_stop_locked(s, o, t);
  else if (t->redelivered || !c->known || t->serial < c->from
           || s->desk.key != NULL || !is_whole(t))
    rs_tray_ask_locked(s, o, t);
  else
    set_ready_locked(s, o, t);
}

/* Put the task behind those that are as urgent. */
static void
put_locked (rs_server *s, rs_server_task *t)
{
  rs_list *at = s->tasks.prev;
  while (at != &s->tasks
         && RS_LIST_ENTRY(at, rs_server_task, link)->priority < t->priority)
    at = at->prev;
  rs_list_push_front(at, &t->link);
}

static void
take_call (rs_server *s, rs_letter *letter, const rs_amqp_delivery *d)
{
  rs_message *parts[2] = { NULL, NULL };
  rs_tray o;
  rs_server_task *const t = calloc(1, sizeof *t);
  rs_tray_init(&o);
  if (t == NULL) {
    s->desk.module->reject(s->amqp, d->tag, true);
    return;
  }
  rs_list_init(&t->news);
  rs_list_init(&t->link);
  t->serial = letter->serial;
  t->tag = d->tag;
  t->redelivered = d->redelivered;
  t->priority = d->priority;
  t->since = rs_now();
  s->desk.module->random(t->nonce, sizeof t->nonce);
  const int status = read_call(&letter->content, t, parts);
  pthread_mutex_lock(&s->lock);
  rs_server_task *const old = rs_server_find_locked(s, letter->from,
                                                    letter->serial);
  rs_client *const c = old == NULL && status == RS_OK
                     ? rs_client_get_locked(s, letter->from) : NULL;
  const bool stopping = s->stopping;
  if (c != NULL && !stopping) {
    t->client = c;
    c->tasks++;
    put_locked(s, t);
    if (!t->redelivered)
      s->hold = 0;
    place_locked(s, &o, t, parts);
  }
  else {
    if (old != NULL)
      take_again_locked(s, &o, old, d->tag);
    rs_server_drop_task_locked(s, t);
  }
  pthread_mutex_unlock(&s->lock);
  rs_message_unref(parts[0]);
  rs_message_unref(parts[1]);
  if (c == NULL && old == NULL)
    s->desk.module->reject(s->amqp, d->tag, status == RS_ENOMEM);
  else if (old == NULL && stopping)
    s->desk.module->reject(s->amqp, d->tag, true);
  rs_tray_send(s, &o);
}

/* The letter has not our seal.  Its caller is told, by a letter without
   one. */
static void
refuse_letter (rs_server *s, const void *body, size_t size, uint64_t tag)
{
  rs_letter letter;
  static const char prefix[] = "runspace.caller.";
  if (rs_letter_peek(body, size, &letter)
      && strncmp(letter.from, prefix, sizeof prefix - 1) == 0) {
    char text[320];
    rs_desk open = s->desk;
    rs_buf b = RS_BUF_INIT;
    open.key = NULL;
    snprintf(text, sizeof text, "%.100s: the worker of queue '%.60s' refused "
                                "the call: %s", s->host, s->queue,
             s->desk.key != NULL ? "it is not signed by the worker's key "
                                   "(option 'key')"
                                 : "it is signed, and the worker has no key "
                                   "(--key)");
    rs_letter_begin(&open, &b, RS_LETTER_NEWS, letter.serial);
    rs_add_number(&b, 0, 8);
    rs_add_number(&b, RS_NEWS_REFUSED, 1);
    rs_add_text(&b, text);
    rs_letter_send(&open, s->amqp, &b, letter.from, 0, 0, false);
    rs_buf_fini(&b);
    rs_server_log(s, "refused a call of %s: it is%s signed%s", letter.from,
                  s->desk.key != NULL ? " not" : "",
                  s->desk.key != NULL ? " by this key"
                                      : ", and there is no key here");
  }
  else
    rs_server_log(s, "dropped a message that is no letter of runspace %s",
                  RS_VERSION);
  s->desk.module->reject(s->amqp, tag, false);
}

/* ----------------------------------------------------------- other letters */

/* Store what a reply brings. */
static void
take_parts_locked (rs_server *s, rs_server_task *t, rs_cut *c)
{
  while (!c->bad && c->size > 0) {
    rs_message *what = NULL;
    const unsigned char *const hash = rs_cut_bytes(c, RS_AMQP_HASH);
    const bool is_message = rs_cut_number(c, 1) != 0;
    if (hash == NULL)
      return;
    if (is_message) {
      if (rs_cut_message(c, 0, &what) != RS_OK)
        return;
    }
    else {
      const uint64_t size = rs_cut_number(c, 8);
      const unsigned char *const data = rs_cut_bytes(c, size);
      if (data == NULL || (what = rs_message_new(data, (size_t) size, 0))
                          == NULL)
        return;
    }
    for (int i = 0; i < 3; i++)
      if (t->have[i] == NULL && memcmp(t->need[i], hash, RS_AMQP_HASH) == 0
          && rs_server_store_locked(s, hash, what, is_message))
        t->have[i] = rs_message_ref(what);
    rs_message_unref(what);
  }
}

static void
take_reply_locked (rs_server *s, rs_tray *o, rs_letter *letter)
{
  rs_cut *const c = &letter->content;
  rs_server_task *const t = rs_server_find_locked(s, letter->from,
                                                   letter->serial);
  const unsigned char *const nonce = rs_cut_bytes(c, RS_AMQP_HASH);
  const rs_verdict verdict = (rs_verdict) rs_cut_number(c, 1);
  const uint64_t next = rs_cut_number(c, 8);
  const double now = rs_cut_double(c);
  if (t == NULL || nonce == NULL || c->bad || t->state != RS_TASK_ASKING
      || memcmp(nonce, t->nonce, sizeof t->nonce) != 0)
    return;
  if (!t->client->known) {
    t->client->known = true;
    t->client->from = next;
    t->client->ahead = now - rs_now();
  }
  if (verdict == RS_DROP)
    rs_server_stop_locked(s, o, t);
  else if (verdict == RS_GO) {
    take_parts_locked(s, t, c);
    if (is_whole(t))
      set_ready_locked(s, o, t);
    else  /* no memory, or what came was not that */
      t->told = rs_now();
  }
}

/* The caller has seen the news below 'seen'. */
static void
see_locked (rs_server *s, rs_tray *o, rs_server_task *t, uint64_t seen,
            bool done)
{
  while (!rs_list_empty(&t->news)) {
    rs_told *const n = RS_LIST_ENTRY(t->news.next, rs_told, link);
    if (n->number >= seen)
      break;
    rs_list_remove(&n->link);
    t->unseen -= n->letter.size;
    rs_told_unref(n);
  }
  pthread_cond_broadcast(&s->changed);
  if (!done)
    return;
  if (t->state == RS_TASK_ENDED) {
    t->over = true;
    rs_server_settle_locked(s, o, t);
  }
  else
    rs_server_stop_locked(s, o, t);
}

static void
take_seen_locked (rs_server *s, rs_tray *o, rs_letter *letter)
{
  rs_cut *const c = &letter->content;
  while (c->size >= 17) {
    const uint64_t serial = rs_cut_number(c, 8);
    const uint64_t seen = rs_cut_number(c, 8);
    const bool done = rs_cut_number(c, 1) != 0;
    rs_server_task *const t = rs_server_find_locked(s, letter->from, serial);
    if (t != NULL)
      see_locked(s, o, t, seen, done);
  }
}

static void
take_cancel_locked (rs_server *s, rs_tray *o, rs_letter *letter)
{
  const unsigned reason = (unsigned) rs_cut_number(&letter->content, 1);
  const double grace = rs_cut_double(&letter->content);
  rs_client *const client = rs_client_find_locked(s, letter->from);
  rs_server_task *const t = rs_server_find_locked(s, letter->from,
                                                   letter->serial);
  if (client == NULL || reason == RS_REASON_NONE || reason >= RS_REASONS
      || !(grace >= 0))
    return;
  if (t == NULL)
    rs_client_void_locked(client, letter->serial);
  else if (t->state == RS_TASK_RUNNING)
    rs_tray_stop_locked(o, t, (rs_reason) reason, grace);
  else if (t->state != RS_TASK_ENDED)
    rs_server_stop_locked(s, o, t);
}

/* Does the caller know that the task begins? */
static bool
has_been_told (const rs_server_task *t)
{
  return t->state == RS_TASK_TOLD || t->state == RS_TASK_DUE
      || t->state == RS_TASK_RUNNING;
}

/* The caller is connected again: tell what it has not seen. */
static void
take_resume_locked (rs_server *s, rs_tray *o, const rs_letter *letter)
{
  rs_client *const c = rs_client_find_locked(s, letter->from);
  if (c == NULL)
    return;
  c->missing = 0;
  c->dead = false;
  if (letter->serial > c->from)  /* what was sent before that may have been
                                    sent again */
    c->from = letter->serial;
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->client != c || t->dropped)
      continue;
    if (has_been_told(t))
      rs_tray_begun_locked(s, o, t);
    if (t->state == RS_TASK_ASKING)
      rs_tray_ask_locked(s, o, t);
    rs_tray_news_locked(s, o, t);
  }
}

static void
take_probe_locked (rs_server *s, rs_tray *o, const rs_letter *letter)
{
  rs_server_task *const t = rs_server_find_locked(s, letter->from,
                                                   letter->serial);
  if (t != NULL && !t->dropped) {
    if (has_been_told(t))
      rs_tray_begun_locked(s, o, t);
    rs_tray_news_locked(s, o, t);
    return;
  }
  rs_outgoing *const g = rs_tray_put(o, letter->from, 0);
  if (g != NULL)
    rs_letter_begin(&s->desk, &g->letter, RS_LETTER_ABSENT, letter->serial);
}

static void
take_letter (rs_server *s, rs_letter *letter)
{
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  rs_client *const c = rs_client_find_locked(s, letter->from);
  if (c != NULL)
    c->missing = 0;
  rs_server_task *t;
  switch (letter->type) {
    case RS_LETTER_REPLY:
      take_reply_locked(s, &o, letter);
      break;
    case RS_LETTER_SEEN:
      take_seen_locked(s, &o, letter);
      break;
    case RS_LETTER_STOP:
      t = rs_server_find_locked(s, letter->from,
                                                   letter->serial);
      if (t != NULL)
        atomic_store_explicit(&t->stop, true, memory_order_relaxed);
      break;
    case RS_LETTER_CANCEL:
      take_cancel_locked(s, &o, letter);
      break;
    case RS_LETTER_RESUME:
      take_resume_locked(s, &o, letter);
      break;
    case RS_LETTER_PROBE:
      take_probe_locked(s, &o, letter);
      break;
    default:
      break;
  }
  rs_server_announce_locked(s, &o);
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
}

/* ---------------------------------------------------------- the connection */

static void
on_up (void *ud)
{
  rs_server *const s = ud;
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  s->up = s->reached = true;
  s->down[0] = '\0';
  s->since = s->busy = rs_now();
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->state == RS_TASK_RUNNING)
      rs_tray_begun_locked(s, &o, t);
    if (t->state == RS_TASK_LEAVING)
      rs_tray_back_locked(s, &o, t);
    rs_tray_news_locked(s, &o, t);
  }
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
  rs_server_log(s, "queue '%s' of %s: connected, %u worker%s", s->queue,
                s->url, s->n_workers, s->n_workers == 1 ? "" : "s");
}

static void
on_down (void *ud, const char *text, bool refused)
{
  rs_server *const s = ud;
  rs_list *link, *next;
  pthread_mutex_lock(&s->lock);
  s->up = false;
  if (refused && !s->reached) {
    s->over = true;
    rs_fail(&s->failure, RS_EFAILED, "%s", text);
    rs_server_quit_locked(s);
  }
  for (rs_list *at = s->clients.next; at != &s->clients; at = at->next)
    RS_LIST_ENTRY(at, rs_client, link)->known = false;
  for (link = s->tasks.next; link != &s->tasks; link = next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    next = link->next;
    t->tag = 0;
    t->sent = false;
    if (t->state == RS_TASK_TOLD || t->state == RS_TASK_DUE)
      t->state = RS_TASK_LEAVING;  /* its caller does not know better */
    else if (t->state < RS_TASK_TOLD)
      rs_server_drop_task_locked(s, t);
  }
  const bool again = strncmp(s->down, text, sizeof s->down - 1) == 0;
  snprintf(s->down, sizeof s->down, "%s", text);
  pthread_mutex_unlock(&s->lock);
  if (!again)  /* once is enough for an attempt after the other */
    rs_server_log(s, "%s", text);
}

static void
on_deliver (void *ud, const rs_amqp_delivery *d)
{
  rs_server *const s = ud;
  rs_letter letter;
  const int status = rs_letter_read(&s->desk, d->body, d->size,
                                    d->shared ? s->queue : s->own, &letter);
  if (d->shared && status == RS_OK && letter.type == RS_LETTER_CALL)
    take_call(s, &letter, d);
  else if (d->shared)
    refuse_letter(s, d->body, d->size, d->tag);
  else if (status == RS_OK)
    take_letter(s, &letter);
  /* What is for all that listen has another seal. */
  else if (rs_letter_read(&s->desk, d->body, d->size, NULL, &letter) == RS_OK)
    take_letter(s, &letter);
}

/* The broker has put a letter about the task into its caller's queue. */
static void
take_confirmation_locked (rs_server *s, rs_tray *o, rs_server_task *t,
                          uint64_t number)
{
  if (t->state == RS_TASK_TOLD) {
    t->state = RS_TASK_DUE;
    pthread_cond_signal(&s->work);
  }
  else if (t->number == number) {
    t->sent = true;
    rs_server_settle_locked(s, o, t);
  }
}

static void
on_confirm (void *ud, uint64_t number, bool routed)
{
  rs_server *const s = ud;
  uint64_t back = 0;
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->number != number && t->pulse != number)
      continue;
    if (t->state == RS_TASK_LEAVING) {
      back = t->tag;
      rs_server_drop_task_locked(s, t);
    }
    else if (!routed) {
      rs_client_miss_locked(t->client);
      if (t->state == RS_TASK_TOLD)
        t->state = RS_TASK_READY;
    }
    else {
      t->client->missing = 0;
      take_confirmation_locked(s, &o, t, number);
    }
    break;
  }
  pthread_mutex_unlock(&s->lock);
  if (back != 0)
    s->desk.module->reject(s->amqp, back, true);
  rs_tray_send(s, &o);
}

static void
on_count (void *ud, uint64_t messages, uint64_t consumers)
{
  rs_server *const s = ud;
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  rs_server_share_locked(s, &o, messages, consumers);
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
}

const rs_amqp_user rs_server_user = {
  .up = on_up, .down = on_down, .deliver = on_deliver, .confirm = on_confirm,
  .count = on_count
};
