/* SPDX-License-Identifier: MIT */
/*
 * standing.c - standing calls: what each runspace of a pool is to have run
 * before it runs jobs.
 *
 * Hosts make calls, and workers look for them; the lock of the pool is held
 * where a name says so.
 */
#include "pool/standing.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

void
rs_standings_init (rs_standings *s)
{
  rs_list_init(&s->calls);
  rs_list_init(&s->returned);
  rs_list_init(&s->stranded);
  s->waiting = 0;
  s->last = 0;
}

static rs_standing *
call_at (rs_list *link)
{
  return RS_LIST_ENTRY(link, rs_standing, link);
}

static rs_job *
job_at (rs_list *link)
{
  return RS_LIST_ENTRY(link, rs_job, link);
}

/* -------------------------------------------------------------- life cycle */

void
rs_standing_unref (rs_standing *c)
{
  if (c == NULL
      || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
    return;
  assert(rs_list_empty(&c->waiting) && c->jobs == NULL);
  rs_message_unref(c->function);
  rs_message_unref(c->arguments);
  rs_events_drop(c->options.events);
  free((char *) (uintptr_t) c->options.name);
  free(c->hosts);
  free(c);
}

void
rs_standings_prune_locked (rs_standings *s, bool all, rs_list *gone)
{
  rs_list *next;
  for (rs_list *link = s->calls.next; link != &s->calls; link = next) {
    rs_standing *const c = call_at(link);
    next = link->next;
    if ((all || c->withdrawn) && rs_list_empty(&c->waiting)) {
      rs_list_remove(link);
      rs_list_push(gone, link);
    }
  }
}

void
rs_standings_free (rs_list *gone)
{
  rs_list *link;
  while ((link = rs_list_shift(gone)) != NULL)
    rs_standing_unref(call_at(link));
}

rs_job *
rs_standing_job_new (rs_standing *c, rs_queue *queue, unsigned worker)
{
  rs_job *const job = rs_job_new(queue, c->function, &c->options, NULL);
  if (job == NULL)
    return NULL;
  job->call.flags = RS_CALL_STANDING;
  job->call.arguments = c->arguments != NULL ? rs_message_ref(c->arguments)
                                             : NULL;
  job->worker = worker;
  return job;
}

/* -------------------------------------------------- jobs for their workers */

void
rs_standings_wait_locked (rs_standings *s, rs_standing *c, rs_job *job)
{
  rs_list_push(&c->waiting, &job->link);
  s->waiting++;
}

static void
take_out_locked (rs_standings *s, rs_job *job)
{
  rs_list_remove(&job->link);
  s->waiting--;
}

/* The job in the list that waits for the worker, or NULL. */
static rs_job *
find_locked (const rs_list *waiting, unsigned worker)
{
  for (rs_list *link = waiting->next; link != waiting; link = link->next)
    if (job_at(link)->worker == worker)
      return job_at(link);
  return NULL;
}

bool
rs_standings_claim_locked (rs_standings *s, rs_job *job)
{
  const bool waits = !rs_list_empty(&job->link);
  if (waits)
    take_out_locked(s, job);
  job->returned = false;
  return waits;
}

void
rs_standings_return_locked (rs_standings *s, rs_job *job)
{
  job->returned = true;
  rs_list_push(&s->returned, &job->link);
  s->waiting++;
}

rs_job *
rs_standings_take_back_locked (rs_standings *s, unsigned worker)
{
  rs_job *const job = find_locked(&s->returned, worker);
  if (job != NULL) {
    take_out_locked(s, job);
    job->returned = false;
  }
  return job;
}

rs_job *
rs_standings_claim_any_locked (rs_standings *s)
{
  rs_list *link = !rs_list_empty(&s->stranded) ? s->stranded.next
                : !rs_list_empty(&s->returned) ? s->returned.next : NULL;
  for (rs_list *at = s->calls.next; link == NULL && at != &s->calls;
       at = at->next)
    if (!rs_list_empty(&call_at(at)->waiting))
      link = call_at(at)->waiting.next;
  if (link == NULL)
    return NULL;
  take_out_locked(s, job_at(link));
  return job_at(link);
}

static void
strand_locked (rs_standings *s, const rs_list *waiting, unsigned worker)
{
  rs_job *const job = find_locked(waiting, worker);
  if (job != NULL) {
    rs_list_remove(&job->link);
    rs_list_push(&s->stranded, &job->link);
  }
}

void
rs_standings_strand_locked (rs_standings *s, unsigned worker)
{
  if (s->waiting == 0)
    return;
  strand_locked(s, &s->returned, worker);
  for (rs_list *at = s->calls.next; at != &s->calls; at = at->next)
    strand_locked(s, &call_at(at)->waiting, worker);
}

/* ------------------------------------------------------------------- hosts */

/* The place of the host in 'hosts'; 'known' if it is not there. */
static size_t
place_locked (const rs_standing *c, const char *host)
{
  size_t i = 0;
  while (i < c->known && strcmp(c->hosts[i], host) != 0)
    i++;
  return i;
}

/* True when a runspace at the host that has come later is to run the call:
   none there has done so, or is about to. */
static bool
wants_locked (const rs_standing *c, const char *host)
{
  if (!c->each_host)
    return true;
  if (host == NULL || place_locked(c, host) < c->known)
    return false;
  for (rs_list *link = c->waiting.next; link != &c->waiting;
       link = link->next) {
    const rs_job_more *const more = rs_job_more_of(job_at(link));
    if (more != NULL && more->host != NULL && strcmp(more->host, host) == 0)
      return false;
  }
  return true;
}

static void
note_locked (rs_standing *c, const char *host)
{
  if (c->each_host && host != NULL && place_locked(c, host) == c->known)
    c->hosts[c->known++] = host;
}

void
rs_standing_miss_locked (rs_standing *c, const char *host)
{
  const size_t i = c->each_host && host != NULL ? place_locked(c, host)
                                                : c->known;
  if (i < c->known)
    c->hosts[i] = c->hosts[--c->known];
}

/* ------------------------------------------------------------------- order */

rs_standing *
rs_standings_next_locked (rs_standings *s, unsigned worker, const char *host,
                          bool only, uint64_t *stood, rs_job **job)
{
  *job = NULL;
  for (rs_list *at = s->calls.next; at != &s->calls; at = at->next) {
    rs_standing *const c = call_at(at);
    if (c->number <= *stood)
      continue;
    *job = find_locked(&c->waiting, worker);
    if (*job == NULL && (only || c->withdrawn || !wants_locked(c, host)))
      continue;
    *stood = c->number;
    if (*job != NULL)
      take_out_locked(s, *job);
    note_locked(c, host);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
  }
  if (!only)
    *stood = s->last;
  return NULL;
}
