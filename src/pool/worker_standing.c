/* SPDX-License-Identifier: MIT */
/*
 * worker_standing.c - how a worker runs standing calls.
 *
 * The thread of the worker runs here.  The job of such a call is in the
 * worker's seat like any other, and 'w->standing' says that it is one.
 */
#include "pool/worker.h"

#include "base/status.h"

void
rs_pool_end_stranded (rs_pool *pool, const char *why)
{
  rs_list *link;
  do {
    rs_pool_lock(pool);
    link = rs_list_shift(&pool->standing.stranded);
    pool->standing.waiting -= link != NULL;
    rs_pool_unlock(pool);
    if (link != NULL) {
      rs_job *const job = RS_LIST_ENTRY(link, rs_job, link);
      rs_job_fail(job, why);
      rs_job_unref(job);
    }
  } while (link != NULL);
}

/* True when no job will come for whose sake the runspace would have to be
   prepared. */
static bool
is_over_locked (const rs_worker *w)
{
  const rs_sched *const s = &w->pool->sched;
  return s->closed && s->queued == 0 && !w->returned;
}

bool
rs_worker_take_standing_locked (rs_worker *w)
{
  rs_pool *const pool = w->pool;
  const bool over = is_over_locked(w);
  rs_job *job;
  w->standing = rs_standings_next_locked(&pool->standing, w->number, w->host,
                                         over, &w->stood, &job);
  if (w->standing == NULL && w->returned) {
    job = rs_standings_take_back_locked(&pool->standing, w->number);
    w->returned = false;
  }
  if (job != NULL)
    rs_sched_begin_locked(&pool->sched, &w->seat, job);
  return w->standing != NULL || job != NULL;
}

int
rs_worker_make_late (rs_worker *w, rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_standing *const c = w->standing;
  rs_job *const job = rs_standing_job_new(c, &pool->queue, w->number);
  rs_pool_lock(pool);
  const bool over = job == NULL || c->withdrawn || is_over_locked(w);
  if (over)
    w->standing = NULL;
  else {
    w->late = job;
    rs_sched_begin_locked(&pool->sched, &w->seat, job);
  }
  rs_pool_unlock(pool);
  if (over)
    rs_standing_unref(c);
  if (over && job != NULL) {
    rs_job_unref(job);
    rs_job_unref(job);
  }
  return job != NULL ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
}

bool
rs_worker_give_back (rs_worker *w, rs_job *job)
{
  rs_pool *const pool = w->pool;
  bool given = true;
  rs_pool_lock(pool);
  const bool plain = pool->standing.last == 0;
  rs_pool_unlock(pool);
  if (plain || !rs_job_requeue(job))
    return false;
  rs_pool_lock(pool);
  rs_seat_leave_locked(&w->seat);
  if (w->standing == NULL) {
    rs_standings_return_locked(&pool->standing, job);
    w->returned = true;
  }
  else if (w->late == NULL && !w->standing->withdrawn)
    rs_standings_wait_locked(&pool->standing, w->standing, job);
  else
    given = false;
  rs_pool_unlock(pool);
  if (!given) {  /* the next runspace makes one of its own, or none */
    rs_job_end(job, RS_JOB_CANCELLED);
    rs_job_unref(job);
  }
  return true;
}

/* The runspace came after a standing call, whose job has ended there and was
   to prepare it.  False when that failed: nobody waits for it, so the runspace
   is not used, as one whose 'init' has failed; 'err' has the text.  '*due': it
   was broken off, so the runspace is to be replaced. */
static bool
is_prepared (rs_job *late, bool *due, rs_error *err)
{
  const rs_job_state state = rs_job_state_now(late);
  size_t size;
  if (rs_job_state_good(state))
    return true;
  if (!rs_job_state_bad(state)) {
    *due = true;
    return true;
  }
  const char *const text = rs_job_error_text(late, &size);
  rs_fail(err, RS_EFAILED, "'%.100s' %s in a new runspace%s%.*s",
          rs_job_name(late), state == RS_JOB_TIMED_OUT ? "ran out of time"
                             : state == RS_JOB_LOST ? "was lost" : "failed",
          size > 0 ? ": " : "", size < 1000 ? (int) size : 1000, text);
  return false;
}

bool
rs_worker_end_standing (rs_worker *w, rs_job_state state, bool *due,
                        rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_standing *const c = w->standing;
  rs_job *const late = w->late;
  const bool good = rs_job_state_good(state);
  rs_pool_lock(pool);
  w->standing = NULL;
  w->late = NULL;
  if (!good)
    rs_standing_miss_locked(c, w->host);
  rs_pool_unlock(pool);
  if (w->runner != NULL && good)
    w->runner->prepared = true;
  const bool stay = late == NULL || is_prepared(late, due, err);
  rs_job_forget(late);
  rs_standing_unref(c);
  return stay;
}
