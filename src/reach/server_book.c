/* SPDX-License-Identifier: MIT */
/*
 * server_book.c - the tasks and callers of a server, and its tray: what is to
 * be sent, stopped and acknowledged when the lock is free.
 */
#include "reach/server_book.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* ---------------------------------------------------------------- the tray */

typedef struct stop {
  rs_list link;
  rs_cancel *cancel;       /* a reference */
  rs_server_task *task;    /* pinned */
  rs_reason reason;
  double grace;
} stop;

void
rs_told_unref (rs_told *n)
{
  if (atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_buf_fini(&n->letter);
  free(n);
}

void
rs_tray_init (rs_tray *o)
{
  rs_list_init(&o->letters);
  rs_list_init(&o->stops);
  o->n_acks = 0;
}

rs_outgoing *
rs_tray_put (rs_tray *o, const char *to, uint64_t number)
{
  rs_outgoing *const g = calloc(1, sizeof *g);
  if (g == NULL)
    return NULL;
  snprintf(g->to, sizeof g->to, "%s", to);
  g->number = number;
  rs_list_push(&o->letters, &g->link);
  return g;
}

void
rs_tray_send (rs_server *s, rs_tray *o)
{
  rs_tray more;
  rs_tray_init(&more);
  rs_list *link;
  while ((link = rs_list_shift(&o->letters)) != NULL) {
    rs_outgoing *const g = RS_LIST_ENTRY(link, rs_outgoing, link);
    if (g->told == NULL)
      rs_letter_seal(&s->desk, &g->letter, g->to);
    rs_letter_post(&s->desk, s->amqp,
                   g->told != NULL ? &g->told->letter : &g->letter, g->to,
                   g->number, 0, false);
    if (g->told != NULL)
      rs_told_unref(g->told);
    rs_buf_fini(&g->letter);
    free(g);
  }
  while ((link = rs_list_shift(&o->stops)) != NULL) {
    stop *const t = RS_LIST_ENTRY(link, stop, link);
    rs_cancel_request(t->cancel, &t->task->call, t->reason, t->grace);
    rs_cancel_unref(t->cancel);
    pthread_mutex_lock(&s->lock);
    t->task->pins--;
    rs_server_settle_locked(s, &more, t->task);
    pthread_mutex_unlock(&s->lock);
    free(t);
  }
  for (unsigned i = 0; i < o->n_acks; i++)
    s->desk.module->acknowledge(s->amqp, o->acks[i]);
  for (unsigned i = 0; i < more.n_acks; i++)
    s->desk.module->acknowledge(s->amqp, more.acks[i]);
}

/* The message of the task is done with. */
static void
ack_locked (rs_tray *o, rs_server_task *t)
{
  if (t->tag == 0 || o->n_acks == sizeof o->acks / sizeof o->acks[0])
    return;
  o->acks[o->n_acks++] = t->tag;
  t->tag = 0;
}

/* Put a letter without content. */
void
rs_tray_brief_locked (rs_server *s, rs_tray *o, rs_letter_type type,
                  rs_server_task *t, uint64_t number)
{
  rs_outgoing *const g = rs_tray_put(o, t->client->name, number);
  if (g != NULL)
    rs_letter_begin(&s->desk, &g->letter, type, t->serial);
}

void
rs_tray_begun_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  rs_outgoing *const g = rs_tray_put(o, t->client->name, ++s->numbers);
  if (g == NULL)
    return;
  rs_letter_begin(&s->desk, &g->letter, RS_LETTER_BEGAN, t->serial);
  rs_add_text(&g->letter, s->host);
  rs_add_number(&g->letter, (uint64_t) s->pid, 8);
  t->told = rs_now();
  t->pulse = g->number;
}

void
rs_tray_back_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  rs_tray_brief_locked(s, o, RS_LETTER_BACK, t, ++s->numbers);
  t->pulse = s->numbers;
}

void
rs_tray_ask_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  rs_outgoing *const g = rs_tray_put(o, t->client->name, ++s->numbers);
  t->told = rs_now();
  if (g == NULL)
    return;
  t->pulse = g->number;
  rs_letter_begin(&s->desk, &g->letter, RS_LETTER_ASK, t->serial);
  rs_buf_add(&g->letter, t->nonce, sizeof t->nonce);
  rs_add_number(&g->letter, t->redelivered, 1);
  for (int i = 0; i < (t->has_arguments ? 3 : 2); i++)
    if (t->have[i] == NULL)
      rs_buf_add(&g->letter, t->need[i], RS_AMQP_HASH);
}

/* Put all news that the caller has not seen. */
void
rs_tray_news_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  for (rs_list *link = t->news.next; link != &t->news; link = link->next) {
    rs_told *const n = RS_LIST_ENTRY(link, rs_told, link);
    const bool last = t->state == RS_TASK_ENDED && link->next == &t->news;
    rs_outgoing *const g = rs_tray_put(o, t->client->name,
                                       last ? ++s->numbers : 0);
    if (g == NULL)
      return;
    atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
    g->told = n;
    if (last)
      t->number = g->number;
  }
  t->told = rs_now();
}

/* --------------------------------------------------------------- the tasks */

static void
drop_news (rs_server_task *t)
{
  rs_list *link;
  while ((link = rs_list_shift(&t->news)) != NULL)
    rs_told_unref(RS_LIST_ENTRY(link, rs_told, link));
  t->unseen = 0;
}

void
rs_server_drop_task_locked (rs_server *s, rs_server_task *t)
{
  (void) s;
  drop_news(t);
  rs_list_remove(&t->link);
  if (t->client != NULL)
    t->client->tasks--;
  for (int i = 0; i < 3; i++)
    rs_message_unref(t->have[i]);
  rs_message_unref(t->call.result);
  free(t->name);
  free(t->why);
  free(t);
}

/* Forget the task if nothing is to be done for it. */
void
rs_server_settle_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  if (t->state == RS_TASK_RUNNING || t->pins > 0)
    return;
  if (t->dropped || t->over || t->state == RS_TASK_ENDED) {
    if (t->dropped || t->over || t->sent)
      ack_locked(o, t);
    if ((t->dropped || t->over) && t->tag == 0)
      rs_server_drop_task_locked(s, t);
  }
}

/* Stop a task that runs. */
void
rs_tray_stop_locked (rs_tray *o, rs_server_task *t, rs_reason reason,
                     double grace)
{
  stop *const x = calloc(1, sizeof *x);
  rs_wish_make(&t->call.wish, reason, grace);
  if (x == NULL)
    return;
  *x = (stop) { .cancel = rs_cancel_ref(t->worker->cancel), .task = t,
                .reason = reason, .grace = grace };
  t->pins++;
  rs_list_push(&o->stops, &x->link);
}

/* Nobody waits for the task: stop it, or forget it. */
void
rs_server_stop_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  if (!t->dropped && t->state == RS_TASK_RUNNING) {
    rs_tray_stop_locked(o, t, RS_REASON_CANCELLED, RS_GRACE);
    ack_locked(o, t);
  }
  if (t->state == RS_TASK_TOLD || t->state == RS_TASK_DUE)
    rs_tray_back_locked(s, o, t);
  t->dropped = true;
  pthread_cond_broadcast(&s->changed);
  rs_server_settle_locked(s, o, t);
}

rs_server_task *
rs_server_find_locked (rs_server *s, const char *from, uint64_t serial)
{
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->serial == serial && strcmp(t->client->name, from) == 0)
      return t;
  }
  return NULL;
}

void
rs_server_quit_locked (rs_server *s)
{
  s->stopping = true;
  pthread_cond_broadcast(&s->changed);
  pthread_cond_broadcast(&s->work);
}

/* ------------------------------------------------------------- the callers */

rs_client *
rs_client_find_locked (rs_server *s, const char *name)
{
  for (rs_list *link = s->clients.next; link != &s->clients;
       link = link->next) {
    rs_client *const c = RS_LIST_ENTRY(link, rs_client, link);
    if (strcmp(c->name, name) == 0)
      return c;
  }
  return NULL;
}

rs_client *
rs_client_get_locked (rs_server *s, const char *name)
{
  rs_client *c = rs_client_find_locked(s, name);
  if (c == NULL && (c = calloc(1, sizeof *c)) != NULL) {
    snprintf(c->name, sizeof c->name, "%s", name);
    rs_list_push(&s->clients, &c->link);
  }
  if (c != NULL)
    c->used = rs_now();
  return c;
}

bool
rs_client_has_void (const rs_client *c, uint64_t serial)
{
  for (unsigned i = 0; i < c->n_voids; i++)
    if (c->voids[i] == serial)
      return true;
  return false;
}

/* The call is not to be begun if it still comes. */
void
rs_client_void_locked (rs_client *c, uint64_t serial)
{
  if (!c->known || serial < c->from || rs_client_has_void(c, serial))
    return;
  if (c->n_voids == sizeof c->voids / sizeof c->voids[0]) {
    c->known = false;       /* it has to be asked for what comes next */
    c->n_voids = 0;
    return;
  }
  c->voids[c->n_voids++] = serial;
}

/* The caller has no queue now. */
void
rs_client_miss_locked (rs_client *c)
{
  if (c->missing == 0)
    c->missing = rs_now();
  c->known = false;
  c->n_voids = 0;
}
