/* SPDX-License-Identifier: MIT */
/*
 * server_ahead.c - what a server has ahead: tasks that wait for a worker.
 *
 * A task that waits is worth something where jobs are short, since the way
 * from the queue takes longer than they do.  Where they are long it may keep
 * another server from the job.  So the caller is told that a task begins when
 * a worker is free, or will be at once; and when tasks have waited for a
 * while, no message is left in the queue, and others read it, half of them go
 * back.  What comes back to where it was may stay longer each time.
 */
#include "base/clock.h"
#include "reach/server_book.h"

#define AT_ONCE 3e-3        /* seconds in which what was told is to begin */
#define HOLD 0.05           /* seconds that a task waits, at first */
#define TURN 0.1            /* seconds for which a task that is 'asking' keeps
                               its place before others */
#define MOST_HOLD 1.0
#define STALE 60.0          /* seconds after which a task goes back whoever
                               could take it, so that no broker takes its
                               message for stuck: that counts from when it is
                               delivered */
#define LATE 0.1            /* seconds after which a task that was told, and
                               has not begun, is told back */

enum { AHEAD = 30 };        /* messages beside those that run */

unsigned
rs_server_prefetch (const rs_server *s)
{
  const unsigned most = s->n_workers + AHEAD;
  return s->max_jobs != 0 && s->max_jobs < most ? (unsigned) s->max_jobs
                                                : most;
}

static bool
is_waiting (const rs_server_task *t)
{
  return !t->dropped && (t->state == RS_TASK_READY || t->state == RS_TASK_TOLD
                         || t->state == RS_TASK_DUE);
}

static unsigned
count_locked (const rs_server *s, rs_task_state from, rs_task_state to)
{
  unsigned n = 0;
  for (const rs_list *link = s->tasks.next; link != &s->tasks;
       link = link->next) {
    const rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    n += !t->dropped && t->state >= from && t->state <= to;
  }
  return n;
}

/* How many tasks may be told, or run. */
static unsigned
room_locked (const rs_server *s)
{
  uint64_t most = s->n_workers;
  if (s->took > 0)
    most += s->took * AHEAD <= AT_ONCE * s->n_workers
          ? AHEAD : (uint64_t) (AT_ONCE * s->n_workers / s->took);
  if (s->max_jobs != 0 && s->max_jobs - s->begun + s->running < most)
    most = s->max_jobs - s->begun + s->running;
  return (unsigned) most;
}

void
rs_server_announce_locked (rs_server *s, rs_tray *o)
{
  unsigned n = s->running + count_locked(s, RS_TASK_TOLD, RS_TASK_DUE);
  const unsigned most = s->stopping || !s->up ? 0 : room_locked(s);
  const double now = rs_now();
  for (rs_list *link = s->tasks.next; link != &s->tasks && n < most;
       link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->dropped || t->client->missing != 0)
      continue;
    if (t->state == RS_TASK_ASKING && now - t->since < TURN)
      return;
    if (t->state != RS_TASK_READY)
      continue;
    t->state = RS_TASK_TOLD;
    t->since = now;
    rs_tray_begun_locked(s, o, t);
    n++;
  }
}

static void
leave_locked (rs_server *s, rs_tray *o, rs_server_task *t)
{
  t->state = RS_TASK_LEAVING;
  rs_tray_back_locked(s, o, t);
}

/* Jobs take longer than it seemed: what was told begins later.  What has not
   begun for long goes back. */
static void
tell_back_locked (rs_server *s, rs_tray *o)
{
  const double before = rs_now() - LATE, long_ago = rs_now() - STALE;
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (t->state == RS_TASK_READY && !t->dropped && t->since < long_ago)
      leave_locked(s, o, t);
    if (t->state != RS_TASK_DUE || t->dropped || t->since > before)
      continue;
    t->state = RS_TASK_READY;
    rs_tray_back_locked(s, o, t);
    if (s->took < LATE)
      s->took = LATE;
  }
}

/* The instant since which tasks wait that may go to another server. */
static double
patience_locked (const rs_server *s)
{
  return rs_now() - (s->hold < HOLD ? HOLD : s->hold);
}

/* How many wait since an earlier one. */
static unsigned
count_patient_locked (const rs_server *s, double before)
{
  unsigned n = 0;
  for (const rs_list *link = s->tasks.next; link != &s->tasks;
       link = link->next) {
    const rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    n += is_waiting(t) && t->since < before;
  }
  return n;
}

void
rs_server_share_locked (rs_server *s, rs_tray *o, uint64_t messages,
                        uint64_t consumers)
{
  const double before = patience_locked(s);
  unsigned n = count_patient_locked(s, before);
  if (n == 0 || messages > 0 || consumers < 2 || s->running < s->n_workers
      || !s->up)
    return;
  s->hold = s->hold < HOLD ? HOLD : 2 * s->hold;
  if (s->hold > MOST_HOLD)
    s->hold = MOST_HOLD;
  n -= n / 2;
  for (rs_list *link = s->tasks.prev; n > 0; link = link->prev) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (is_waiting(t) && t->since < before) {
      leave_locked(s, o, t);
      n--;
    }
  }
}

bool
rs_server_sort (rs_server *s)
{
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  tell_back_locked(s, &o);
  rs_server_announce_locked(s, &o);
  const bool asks = s->up && s->running == s->n_workers
                    && count_patient_locked(s, patience_locked(s)) > 0;
  const bool waits = count_locked(s, RS_TASK_READY, RS_TASK_DUE) > 0;
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
  if (asks)
    s->desk.module->look(s->amqp);
  return waits;
}

void
rs_server_hand_back (rs_server *s)
{
  rs_tray o;
  rs_tray_init(&o);
  pthread_mutex_lock(&s->lock);
  for (rs_list *link = s->tasks.next; link != &s->tasks; link = link->next) {
    rs_server_task *const t = RS_LIST_ENTRY(link, rs_server_task, link);
    if (s->up && !t->dropped && t->state < RS_TASK_RUNNING)
      leave_locked(s, &o, t);
  }
  pthread_mutex_unlock(&s->lock);
  rs_tray_send(s, &o);
}
