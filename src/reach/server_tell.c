/* SPDX-License-Identifier: MIT */
/*
 * server_tell.c - what a server tells by itself: the news of its workers, and
 * what its clerk sends now and then.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "reach/broker.h"
#include "reach/server_book.h"

#define ASK_AGAIN 0.5     /* seconds until a question is asked again */
#define PULSE 2.0         /* seconds between two signs of life of a task */
#define TELL_AGAIN 5.0    /* seconds until news that nobody has seen is told
                             again */
enum { UNSEEN = 16 << 20 };  /* bytes of news of a task that may be on their
                                way */

/* ---------------------------------------------------- the worker's letters */

void
rs_server_begin_news (rs_server *s, rs_server_task *t, rs_buf *b, rs_news kind)
{
  rs_letter_begin(&s->desk, b, RS_LETTER_NEWS, t->serial);
  rs_add_number(b, t->next++, 8);
  rs_add_number(b, kind, 1);
}

/* rs_sleeper: the clerk, and letters, wake all that wait here. */
static void
wake (void *server)
{
  rs_server *const s = server;
  pthread_mutex_lock(&s->lock);
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->lock);
}

static void
keep (void *server)
{
  (void) server;  /* it outlives its workers */
}

/* Wait until the caller has seen enough. */
static void
await_seen (rs_server *s, rs_server_task *t)
{
  const rs_sleeper here = {
    .wake = wake, .ref = keep, .unref = keep, .object = s, .returns = true
  };
  rs_cancel_sleeps(t->worker->cancel, &here);
  pthread_mutex_lock(&s->lock);
  while (t->unseen > UNSEEN && !t->dropped && !s->closing)
    pthread_cond_wait(&s->changed, &s->lock);
  pthread_mutex_unlock(&s->lock);
  rs_cancel_wakes(t->worker->cancel);
}

/* The task has ended. */
static void
end_locked (rs_server *s, rs_tray *o, rs_server_task *t, uint64_t number)
{
  t->state = RS_TASK_ENDED;
  t->worker = NULL;
  t->number = number;
  s->running--;
  s->busy = rs_now();
  rs_message_unref(t->call.result);
  t->call.result = NULL;
  if (s->stopping)
    pthread_cond_broadcast(&s->changed);
  rs_server_settle_locked(s, o, t);
  rs_server_announce_locked(s, o);
}

void
rs_server_tell (rs_server *s, rs_server_task *t, rs_buf *b, bool last)
{
  rs_tray o;
  char to[RS_AMQP_NAME];
  rs_told *const n = calloc(1, sizeof *n);
  rs_tray_init(&o);
  memcpy(to, t->client->name, sizeof to);
  rs_letter_seal(&s->desk, b, to);
  if (n != NULL) {
    atomic_init(&n->refs, 2);
    n->number = t->next - 1;
    n->letter = *b;
  }
  if (!last)
    await_seen(s, t);
  pthread_mutex_lock(&s->lock);
  const uint64_t number = last ? ++s->numbers : 0;
  if (n != NULL) {
    rs_list_push(&t->news, &n->link);
    t->unseen += n->letter.size;
  }
  t->told = rs_now();
  if (last)
    end_locked(s, &o, t, number);
  pthread_mutex_unlock(&s->lock);
  if (n != NULL) {
    rs_letter_post(&s->desk, s->amqp, &n->letter, to, number, 0, false);
    rs_told_unref(n);
  }
  else
    rs_buf_fini(b);
  rs_tray_send(s, &o);
}

/* --------------------------------------------------------------- the clerk */

/* The caller has been away for too long. */
static void
judge_locked (rs_server *s, rs_client *c, double now)
{
  const double from = c->missing > s->since ? c->missing : s->since;
  if (c->missing != 0 && s->up && now - from > RS_BROKER_PATIENCE)
    c->dead = true;
}

static void
attend_locked (rs_server *s, rs_tray *o, rs_server_task *t, double now)
{
  if (t->client->dead && !t->dropped)
    rs_server_stop_locked(s, o, t);
  else if (t->dropped || t->over)
    rs_server_settle_locked(s, o, t);
  else if (t->state == RS_TASK_ASKING && now - t->told > ASK_AGAIN)
    rs_tray_ask_locked(s, o, t);
  else if (t->state == RS_TASK_RUNNING && now - t->told > PULSE) {
    rs_tray_brief_locked(s, o, RS_LETTER_ALIVE, t, ++s->numbers);
    t->pulse = s->numbers;
    t->told = now;
  }
  else if (t->state == RS_TASK_ENDED
           && now - t->told > (t->client->missing != 0 ? PULSE : TELL_AGAIN))
    rs_tray_news_locked(s, o, t);
}

/* Forget callers that have not sent anything for long. */
static void
forget_clients_locked (rs_server *s, double now)
{
  rs_list *link, *next;
  for (link = s->clients.next; link != &s->clients; link = next) {
    rs_client *const c = RS_LIST_ENTRY(link, rs_client, link);
    next = link->next;
    judge_locked(s, c, now);
    if (c->tasks == 0 && now - c->used > 600) {
      rs_list_remove(link);
      free(c);
    }
  }
}

void
rs_server_attend (rs_server *s)
{
  const double now = rs_now();
  rs_list *link, *next;
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  forget_clients_locked(s, now);
  for (link = s->tasks.next; s->up && link != &s->tasks; link = next) {
    next = link->next;
    attend_locked(s, &o, RS_LIST_ENTRY(link, rs_server_task, link), now);
  }
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
}
