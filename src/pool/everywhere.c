/* SPDX-License-Identifier: MIT */
/*
 * everywhere.c - standing calls, as hosts make them.
 *
 * The thread of the host runs here.  How many workers there are is known under
 * the lock of the pool, and jobs are made without it: so jobs are made until
 * there are enough, and those that are too many are dropped.
 */
#include "pool/pool.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "base/timer.h"
#include "pool/face.h"
#include "value/code.h"

/* ---------------------------------------------------------------- checking */

static int
check (const rs_pool *pool, lua_State *L, int each, const rs_job_options *o,
       rs_error *err)
{
  if (each != RS_EACH_RUNSPACE && each != RS_EACH_HOST)
    return rs_fail(err, RS_EINVAL, "each (%d) is none of RS_EACH_RUNSPACE and "
                                   "RS_EACH_HOST", each);
  if (each == RS_EACH_HOST && pool->hosts == 0)
    return rs_fail(err, RS_EINVAL, "each (RS_EACH_HOST) is for pools with "
                                   "hosts, and this one has none");
  if (pool->kind->anywhere)
    return rs_fail(err, RS_EINVAL, "a pool with a broker has no runspaces of "
                                   "its own to be prepared: give its initial "
                                   "state 'init'");
  if (o->retries != 0 || o->priority != 0 || o->start_after != 0)
    return rs_fail(err, RS_EINVAL, "%s is not 0: a standing call is run once, "
                                   "and before all jobs",
                   o->retries != 0 ? "retries"
                   : o->priority != 0 ? "priority" : "start_after");
  if (rs_pool_is_foreign(pool))
    return rs_fork_fail(err, "pool");
  if (o->events != NULL && rs_events_foreign(o->events))
    return rs_fork_fail(err, "rs_events");
  if (rs_pool_current(L) == pool)
    return rs_fail(err, RS_EINVAL, "a job cannot call a function everywhere "
                                   "in its own pool: its runspace could not "
                                   "run it, as long as the job waits");
  return rs_job_check_nesting(L, err);
}

/* ------------------------------------------------------------------ making */

/* Drop jobs that no other thread has seen, down to the first 'n'. */
static void
drop_jobs (rs_standing *c, size_t n)
{
  while (c->n > n) {
    rs_job *const job = c->jobs[--c->n];
    rs_job_unref(job);
    rs_job_unref(job);
  }
}

/* Drop a call that no other thread has seen. */
static void
give_up (rs_standing *c)
{
  drop_jobs(c, 0);
  free(c->jobs);
  c->jobs = NULL;
  rs_pool_drop(c->pool);
  rs_standing_unref(c);
}

/* Copy the options that jobs are made with.  False when out of memory. */
static bool
copy_options (rs_standing *c, const rs_job_options *o)
{
  c->options = *o;
  c->options.globals = NULL;  /* they went along with the function */
  c->options.events = rs_events_hold(o->events);
  c->options.name = o->name != NULL ? strdup(o->name) : NULL;
  return (c->options.name == NULL) == (o->name == NULL);
}

/* [-0, +0, -]  Make the call of the function at 'index' and the values behind
   it. */
static int
make (rs_pool *pool, lua_State *L, int index, int nargs, int each,
      const rs_job_options *o, rs_standing **out, rs_error *err)
{
  rs_outbox *const outbox = rs_outbox_of(L);
  rs_standing *const c = calloc(1, sizeof *c);
  if (c == NULL || outbox == NULL) {
    free(c);
    return rs_fail_plain(err, RS_ENOMEM);
  }
  atomic_init(&c->refs, 1);
  rs_list_init(&c->link);
  rs_list_init(&c->waiting);
  c->each_host = each == RS_EACH_HOST;
  c->pool = pool;
  rs_pool_hold(pool);
  const char *const *const globals =
    o->globals != NULL ? o->globals : pool->queue.globals;
  const bool copied = copy_options(c, o);
  c->hosts = c->each_host ? calloc(pool->hosts, sizeof *c->hosts) : NULL;
  int status = copied && (c->hosts != NULL || !c->each_host)
             ? rs_code_encode_function(outbox, L, index,
                                       pool->queue.forbidden, globals,
                                       &c->function, err)
             : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK && c->function->constant)
    rs_message_ref(c->function);
  if (status == RS_OK)
    status = rs_code_encode_arguments(outbox, L, index + 1, nargs, NULL, 0,
                                      pool->queue.forbidden, globals,
                                      c->function, &c->arguments, err);
  if (status == RS_OK && rs_pool_is_foreign(pool))  /* by '__transfer'? */
    status = rs_fork_fail(err, "pool");
  if (status == RS_OK)
    *out = c;
  else
    give_up(c);
  return status;
}

/* Make jobs, up to 'n'.  They all have the same deadline, an instant. */
static int
make_jobs (rs_standing *c, lua_State *L, size_t n, double deadline,
           rs_error *err)
{
  rs_job **const jobs = realloc(c->jobs, n * sizeof *jobs);
  if (jobs == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  c->jobs = jobs;
  while (c->n < n) {
    rs_job *const job = rs_standing_job_new(c, &c->pool->queue, 0);
    if (job == NULL)
      return rs_fail_plain(err, RS_ENOMEM);
    jobs[c->n++] = job;
    if (c->each_host && rs_job_get_more(job) == NULL)
      return rs_fail_plain(err, RS_ENOMEM);
    rs_job_nest(job, L, true);
    if (deadline != RS_NEVER && !rs_job_set_deadline(job, deadline))
      return rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the deadline");
  }
  return RS_OK;
}

/* ------------------------------------------------------------- the workers */

static bool
sits (const rs_worker *w)
{
  return !rs_list_empty(&w->seat.link);
}

/* True when the call has no worker at the host of this one yet.  Until the
   call is in the list of the pool, 'hosts' has the names of those where it
   has. */
static bool
is_new_locked (rs_standing *c, const rs_worker *w)
{
  if (w->host == NULL)
    return false;
  for (size_t i = 0; i < c->known; i++)
    if (strcmp(c->hosts[i], w->host) == 0)
      return false;
  c->hosts[c->known++] = w->host;
  return true;
}

/* Let job number 'i' of the call be that of the worker. */
static void
assign_locked (rs_pool *pool, rs_standing *c, const rs_worker *w, size_t i)
{
  rs_job *const job = c->jobs[i];
  job->worker = w->number;
  if (c->each_host)
    rs_job_more_of(job)->host = w->host;
  rs_standings_wait_locked(&pool->standing, c, job);
}

/* Go through the workers that are to run the call now, and count them; with
   'assign' each gets a job.  Of a host, a worker that sits comes first. */
static size_t
visit_locked (rs_pool *pool, rs_standing *c, bool assign)
{
  size_t n = 0;
  rs_worker *any = NULL;
  for (int pass = 0; pass < (c->each_host ? 2 : 1); pass++)
    for (rs_list *link = pool->workers.next; link != &pool->workers;
         link = link->next) {
      rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
      if (w->leaving)
        continue;
      any = any != NULL ? any : w;
      if (c->each_host && (sits(w) != (pass == 0) || !is_new_locked(c, w)))
        continue;
      if (assign)
        assign_locked(pool, c, w, n);
      n++;
    }
  c->known = 0;
  if (n > 0 || any == NULL)
    return n;
  /* It is not known yet at which host a worker is. */
  if (assign)
    assign_locked(pool, c, any, 0);
  return 1;
}

/* The call is in the list of the pool from here on, if it returns RS_OK. */
static int
begin (rs_pool *pool, rs_standing *c, lua_State *L, double deadline,
       rs_error *err)
{
  int status = RS_OK;
  size_t n = 1;
  bool closed;
  rs_list gone;
  rs_list_init(&gone);
  rs_pool_lock(pool);
  while (!(closed = rs_pool_refuses_locked(pool))
         && ((n = visit_locked(pool, c, false)) > c->n || c->n == 0)
         && status == RS_OK) {
    rs_pool_unlock(pool);
    status = make_jobs(c, L, n > 0 ? n : 1, deadline, err);
    rs_pool_lock(pool);
  }
  rs_worker *w = NULL;
  const bool start = !closed && status == RS_OK && n == 0;
  if (closed)
    status = rs_fail(err, RS_ECLOSED, "the pool is closed");
  else if (start && !rs_pool_may_grow_locked(pool))
    status = rs_fail(err, RS_ETHREAD, "no worker is left that could run it: "
                                      "the pool has lost too many");
  else if (start && (w = rs_worker_reserve_locked(pool)) == NULL)
    status = rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK) {
    rs_standings_prune_locked(&pool->standing, false, &gone);
    c->number = ++pool->standing.last;
    rs_list_push(&pool->standing.calls, &c->link);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    n = visit_locked(pool, c, true);
    rs_sched_call_all_locked(&pool->sched);
  }
  rs_pool_unlock(pool);
  rs_standings_free(&gone);
  if (status != RS_OK)
    return status;
  drop_jobs(c, n);
  if (w != NULL)
    rs_worker_start(pool, w, err);  /* its job tells if that fails */
  return RS_OK;
}

/* The deadline may have passed before the jobs were there to be found. */
static void
end_late (rs_standing *c)
{
  for (size_t i = 0; i < c->n; i++) {
    rs_job *const job = c->jobs[i];
    const rs_reason reason = rs_wish_reason(&job->call.wish);
    if (reason != RS_REASON_NONE
        && job->queue->claim(job->queue, job, RS_CLAIM_TO_END)) {
      rs_job_end_queued(job, reason);
      rs_job_unref(job);
    }
  }
}

/* ------------------------------------------------------------------ public */

int
rs_pool_everywhere (rs_pool *pool, lua_State *L, int nargs, int each,
                    const rs_job_options *options, rs_standing **out,
                    rs_error *err)
{
  rs_job_options room;
  rs_standing *c = NULL;
  int status = rs_submit_check(pool, L, nargs, err);
  if (status != RS_OK)
    return status;
  const int index = lua_gettop(L) - nargs;
  const rs_job_options *const o = rs_check_job_options(options, &room, err);
  status = o == NULL ? RS_EINVAL : check(pool, L, each, o, err);
  if (status == RS_OK)
    status = make(pool, L, index, nargs, each, o, &c, err);
  lua_settop(L, index - 1);
  if (status == RS_OK && o->timeout > 0 && !rs_timers_start())
    status = rs_fail(err, RS_ETHREAD, "the system gives no thread that could "
                                      "see to the time-out");
  if (status == RS_OK)
    status = begin(pool, c, L, o->deadline > 0 ? rs_deadline(o->deadline)
                                               : RS_NEVER, err);
  if (status != RS_OK) {
    if (c != NULL)
      give_up(c);
    return status;
  }
  end_late(c);
  if (out != NULL)
    *out = c;
  else
    rs_standing_close(c);
  return RS_OK;
}

rs_job *
rs_standing_job (rs_standing *call, size_t i)
{
  return call != NULL && i < call->n ? call->jobs[i] : NULL;
}

/* A job of the call that a worker has made, whose runspace came later, and
   that was not asked to stop; a reference, or NULL. */
static rs_job *
find_late (const rs_standing *call)
{
  rs_pool *const pool = call->pool;
  rs_job *job = NULL;
  rs_pool_lock(pool);
  for (rs_list *link = pool->workers.next;
       job == NULL && link != &pool->workers; link = link->next) {
    const rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    if (w->standing == call && w->late != NULL
        && rs_wish_reason(&w->late->call.wish) == RS_REASON_NONE
        && !rs_job_state_final(rs_job_state_now(w->late)))
      job = rs_job_ref(w->late);
  }
  rs_pool_unlock(pool);
  return job;
}

void
rs_standing_withdraw (rs_standing *call)
{
  rs_job *job;
  rs_list gone;
  if (call == NULL || rs_pool_is_foreign(call->pool))
    return;
  rs_list_init(&gone);
  rs_pool_lock(call->pool);
  call->withdrawn = true;
  rs_standings_prune_locked(&call->pool->standing, false, &gone);
  rs_pool_unlock(call->pool);
  rs_standings_free(&gone);
  while ((job = find_late(call)) != NULL) {
    rs_job_stop(job, RS_REASON_CANCELLED, RS_GRACE);
    rs_job_unref(job);
  }
}

void
rs_standing_close (rs_standing *call)
{
  if (call == NULL || rs_pool_is_foreign(call->pool))
    return;
  rs_pool *const pool = call->pool;
  for (size_t i = 0; i < call->n; i++)
    rs_job_forget(call->jobs[i]);
  free(call->jobs);
  call->jobs = NULL;
  call->n = 0;
  rs_standing_unref(call);
  rs_pool_drop(pool);
}
