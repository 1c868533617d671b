/* SPDX-License-Identifier: MIT */
/*
 * worker.c - threads that take jobs and run them; worker.h has their model.
 *
 * A worker opens its runner, has the calls of its jobs run there, and closes
 * it.  With RS_RESET_FRESH each job has a new runner, opened ahead, while
 * nobody waits for it; otherwise a worker renews its runner when that is
 * spent.
 *
 * A worker blocks the signals that are the host's business.  Open are the
 * signals that tell of the worker's own faults, since a blocked SIGSEGV ends
 * the process without a handler or a report, and the signal that stops jobs.
 */
#include "pool/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/large.h"
#include "base/spin.h"
#include "base/status.h"
#include "base/words.h"
#include "pool/delay.h"

enum { LOOKS = 800 };  /* looks for a worker that opens or ends */

/* Workers that may be stuck and are still replaced: so many, or twice as many
   as the pool may have, if that is more. */
enum { MAX_STUCK = 8 };

enum { BITS = 64 };  /* in a word of 'numbers' */

#define PAUSE 0.1    /* seconds until a worker is added after one that failed;
                        doubled with each failure, PAUSES times at most */
enum { PAUSES = 8 };

/* Bytes: nested data and patterns recurse in C, up to 512 KiB, and three times
   that under a sanitizer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_SIZE (4u << 20)
#else
#define STACK_SIZE (1u << 20)
#endif

/* Signals that are open in a worker; all others are blocked. */
static const int open_signals[] = {
  SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF
};

/* ------------------------------------------------------------------ memory */

void
rs_pool_hold (rs_pool *pool)
{
  atomic_fetch_add_explicit(&pool->holds, 1, memory_order_relaxed);
}

void
rs_pool_drop (rs_pool *pool)
{
  /* Release our reads and writes to the thread that frees. */
  if (atomic_fetch_sub_explicit(&pool->holds, 1, memory_order_acq_rel) != 1)
    return;
  rs_list *link;
  while ((link = rs_list_shift(&pool->retired)) != NULL) {
    rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    rs_seat_fini(&w->seat);
    free(w);
  }
  rs_list calls;
  rs_list_init(&calls);
  rs_standings_prune_locked(&pool->standing, true, &calls);
  rs_standings_free(&calls);
  rs_sched_fini(&pool->sched);
  pthread_cond_destroy(&pool->changed);
  rs_job_locks_fini(pool->queue.locks);
  if (pool->shared != NULL)
    pool->kind->dismiss(pool->shared);
  rs_initial_state_unref(pool->options.initial_state);
  free((char *) (uintptr_t) pool->options.runspace);
  free((char *) (uintptr_t) pool->options.cwd);
  rs_words_free(pool->globals);
  rs_events_drop(pool->watcher);
  free(pool->numbers);
  free(pool);
}

void
rs_worker_retire_locked (rs_pool *pool, rs_worker *w)
{
  rs_list_push(&pool->retired, &w->link);
}

/* Take the worker out of 'workers', and free its number. */
static void
unlist_locked (rs_pool *pool, rs_worker *w)
{
  const size_t bit = w->number - 1, i = bit / BITS;
  rs_list_remove(&w->link);
  pool->numbers[i] &= ~(UINT64_C(1) << bit % BITS);
  if (i < pool->vacant)
    pool->vacant = i;
}

/* ------------------------------------------------------ opening and ending */

/* Tell that 'workers' or 'opening' got less. */
static void
change_locked (rs_pool *pool)
{
  atomic_fetch_add_explicit(&pool->changes, 1, memory_order_relaxed);
  if (pool->watching > 0)
    pthread_cond_broadcast(&pool->changed);
}

typedef struct watch {
  rs_pool *pool;
  unsigned changes;
} watch;

static bool
has_changed (const void *ud)
{
  const watch *const w = ud;
  return atomic_load_explicit(&w->pool->changes, memory_order_relaxed)
         != w->changes;
}

/*
 * While this thread spins its CPU is never idle, and the system does not move
 * a worker to it whose thread was started on another CPU, behind another
 * program.  So this thread sleeps after some 40 us of its own, which is as
 * much as a wake-up costs.
 */
int
rs_pool_watch_locked (rs_pool *pool, double deadline)
{
  const watch w = {
    pool, atomic_load_explicit(&pool->changes, memory_order_relaxed)
  };
  rs_pool_unlock(pool);
  rs_spin_few(has_changed, &w, LOOKS);
  rs_pool_lock(pool);
  if (has_changed(&w))
    return RS_OK;
  return rs_cond_wait_counted(&pool->changed, &pool->sched.lock, deadline,
                              &pool->watching);
}

/* ------------------------------------------------- what is left to be done */

bool
rs_pool_is_wanted_locked (const rs_pool *pool)
{
  return pool->sched.queued > 0;
}

enum { CLAIMS = 64 };  /* workers that are told at a time */

/* Ask workers that may be seeding a runspace, and were not asked before, to
   stop; 'out' has references to their rs_cancel.  Returns how many; 0: no
   more. */
static size_t
claim_seeding_locked (rs_pool *pool, rs_cancel *out[CLAIMS])
{
  size_t n = 0;
  for (rs_list *link = pool->workers.next;
       n < CLAIMS && link != &pool->workers; link = link->next) {
    rs_worker *const w = RS_LIST_ENTRY(link, rs_worker, link);
    if (rs_wish_make(&w->wish, RS_REASON_CLOSED, RS_GRACE)
        && w->cancel != NULL)
      out[n++] = rs_cancel_ref(w->cancel);
  }
  return n;
}

/* True when a runner may take long to open, so that its opening is to be
   stopped when nobody needs it. */
static bool
opens_long (const rs_pool *pool)
{
  return !pool->kind->local
      || rs_initial_state_runs_scripts(pool->options.initial_state);
}

void
rs_pool_stop_seeding (rs_pool *pool)
{
  rs_cancel *some[CLAIMS];
  size_t n;
  if (!opens_long(pool))
    return;
  do {
    rs_pool_lock(pool);
    n = claim_seeding_locked(pool, some);
    rs_pool_unlock(pool);
    for (size_t i = 0; i < n; i++) {
      rs_cancel_request(some[i], RS_SEEDING, RS_REASON_CLOSED, RS_GRACE);
      rs_cancel_unref(some[i]);
    }
  } while (n > 0);
}

bool
rs_pool_is_over_locked (const rs_pool *pool)
{
  return rs_sched_is_final_locked(&pool->sched) && pool->sched.queued == 0
      && pool->standing.waiting == 0
      && rs_sched_running_locked(&pool->sched) == 0;
}

/* Stop seeding if the last job or worker may have gone.  A pool that is over
   stays so: the workers that leave after that need not count again. */
void
rs_pool_stop_seeding_if_over (rs_pool *pool)
{
  if (!opens_long(pool))
    return;
  rs_pool_lock(pool);
  const bool over = !pool->over && rs_pool_is_over_locked(pool);
  pool->over |= over;
  rs_pool_unlock(pool);
  if (over)
    rs_pool_stop_seeding(pool);
}

/* -------------------------------------------------------------- the queue */

void
rs_pool_tell_room (rs_pool *pool)
{
  /* A waiter sets the flag under the lock, and looks for room after that. */
  if (!atomic_load_explicit(&pool->full, memory_order_relaxed))
    return;
  rs_list *link;
  do {
    rs_pool_lock(pool);
    link = rs_list_shift(&pool->waiters);
    atomic_store_explicit(&pool->full, !rs_list_empty(&pool->waiters),
                          memory_order_relaxed);
    rs_pool_unlock(pool);
    if (link != NULL) {
      rs_waiter *const w = RS_LIST_ENTRY(link, rs_waiter, link);
      rs_events_wake(w->events);
      rs_events_drop(w->events);
      free(w);
    }
  } while (link != NULL);
}

void
rs_pool_fail_queued (rs_pool *pool, const rs_error *err)
{
  rs_job *job;
  do {
    rs_pool_lock(pool);
    job = pool->alive == 0 ? rs_sched_claim_of_locked(&pool->sched, NULL,
                                                      RS_CLAIM_TO_END)
                           : NULL;
    rs_pool_unlock(pool);
    if (job != NULL) {
      rs_job_fail(job, err->text);
      rs_job_unref(job);
    }
  } while (job != NULL);
  rs_pool_tell_room(pool);
}

/* ------------------------------------------------------ taking and leaving */

/* Note that the thread runs. */
static void
begin (rs_worker *w)
{
  rs_pool *const pool = w->pool;
  rs_spin_enter();
  clockid_t clock;
  const bool timed = pthread_getcpuclockid(pthread_self(), &clock) == 0;
  const pid_t tid = (pid_t) syscall(SYS_gettid);
  rs_pool_lock(pool);
  w->thread = pthread_self();
  w->time = (rs_worker_time) {
    .clock = timed ? clock : CLOCK_MONOTONIC, .tid = tid, .delay = -1
  };
  w->cancel = rs_cancel_mine();
  w->began = true;
  if (w->abandoned)
    pthread_detach(w->thread);
  rs_pool_unlock(pool);
}

/* Wake the events, and drop the reference; NULL: nothing to do. */
static void
wake (rs_events *events)
{
  if (events != NULL)
    rs_events_wake(events);
  rs_events_drop(events);
}

/* Let more and more time pass before the next worker is added beside those
   that are there, while runners fail to open. */
static void
count_failure_locked (rs_pool *pool, bool failed)
{
  if (!pool->kind->partial || (failed && rs_now() < pool->later))
    return;  /* workers that fail together count as one */
  pool->failures = failed ? pool->failures + 1 : 0;
  const unsigned doubled = pool->failures < PAUSES ? pool->failures : PAUSES;
  pool->later = failed ? rs_now() + PAUSE * (double) (1u << doubled) : 0;
}

/* Note where the runner is, before any thread hears that it is there. */
static inline void
note_host_locked (rs_worker *w)
{
  if (w->pool->hosts > 0 && w->runner != NULL)
    w->host = w->runner->host;
}

/* Note that the runner is there, or could not be opened: 'status' and the text
   of 'err'. */
static void
set_opened (rs_worker *w, int status, const rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_pool_lock(pool);
  note_host_locked(w);
  if (!w->opened) {
    w->opened = true;
    pool->opening--;
  }
  if (status != RS_OK && status != RS_ESTOPPED) {
    pool->failed_workers++;
    pool->failure = *err;
  }
  if (status != RS_ESTOPPED)
    count_failure_locked(pool, status != RS_OK);
  pool->reached |= status == RS_OK;
  change_locked(pool);
  rs_events *const watcher = rs_events_hold(pool->watcher);
  rs_pool_unlock(pool);
  wake(watcher);
}

/* Take no more jobs.  'rs_pool_end_stranded' is to be called without the lock
   after that. */
static void
leave_locked (rs_pool *pool, rs_worker *w)
{
  if (w->leaving)
    return;
  w->leaving = true;
  pool->alive--;
  rs_standings_strand_locked(&pool->standing, w->number);
  rs_sched_leave_locked(&pool->sched, &w->seat);
}

/* True when there are more workers than there may be: the job for which the
   last one was added does not wait any more. */
static bool
is_surplus_locked (const rs_pool *pool)
{
  return pool->alive > pool->max + pool->blocked;
}

/* Take a job, or a standing call, or sit down; false when the worker is to
   leave. */
static bool
look_for_job (rs_pool *pool, rs_worker *w, bool *sits)
{
  rs_pool_lock(pool);
  note_host_locked(w);
  bool stay = !w->abandoned;
  bool taken = stay && (w->stood != pool->standing.last || w->returned)
            && rs_worker_take_standing_locked(w);
  if (!taken) {
    stay = stay && !is_surplus_locked(pool) && !pool->stopped;
    taken = stay && rs_sched_take_locked(&pool->sched, &w->seat);
    stay = stay && (taken || !rs_sched_is_final_locked(&pool->sched));
  }
  *sits = stay && !taken;
  if (!stay)
    leave_locked(pool, w);
  rs_pool_unlock(pool);
  return stay;
}

/* Wait for a job in a seat that sits; false when the worker is to leave, after
   the instant '*leave', which is set here if it is 0. */
static bool
wait_for_job (rs_pool *pool, rs_worker *w, double *leave)
{
  if (rs_seat_spin(&w->seat))
    return true;
  /* The host of the last job may go. */
  rs_events_drop(w->served);
  w->served = NULL;
  pool->kind->rest(w->runner);
  const bool kept = rs_large_any();
  rs_pool_lock(pool);
  if (*leave == 0)
    *leave = rs_deadline(pool->options.idle);
  const double idle = pool->alive > pool->min ? *leave : RS_NEVER;
  const double trim = kept ? rs_now() + RS_LARGE_SECONDS : RS_NEVER;
  const bool called = rs_sched_sleep_locked(&pool->sched, &w->seat,
                                            idle < trim ? idle : trim);
  const bool stay = called || w->stood != pool->standing.last
                 || (rs_sched_is_final_locked(&pool->sched)
                     ? rs_pool_is_wanted_locked(pool)
                     : pool->alive <= pool->min
                       || rs_now() < *leave);
  if (!stay)
    leave_locked(pool, w);
  rs_pool_unlock(pool);
  if (!called && kept)
    rs_large_trim();  /* and sleep on */
  return stay;
}

/* Make the job of the standing call that comes next; false, and 'err' filled,
   when there is no memory. */
static bool
make_late (rs_worker *w, rs_error *err)
{
  const int status = rs_worker_make_late(w, err);
  if (status != RS_OK)
    set_opened(w, status, err);
  return status == RS_OK;
}

/* Wait for the next job, whose reference becomes the worker's; NULL: the
   worker ends. */
static rs_job *
take (rs_worker *w, rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_job *job;
  bool stay = true, sits;
  double leave = 0;
  while ((job = rs_seat_job(&w->seat)) == NULL && stay) {
    stay = look_for_job(pool, w, &sits);
    if (stay && w->standing != NULL)
      stay = rs_seat_job(&w->seat) != NULL || make_late(w, err);
    else if (stay && sits)
      stay = wait_for_job(pool, w, &leave);
  }
  rs_pool_tell_room(pool);
  return job;
}

/* True when there may be another job, for which it is worth renewing the
   runner. */
static bool
stays (rs_worker *w)
{
  rs_pool *const pool = w->pool;
  rs_pool_lock(pool);
  const bool stay = !w->abandoned
                 && rs_wish_reason(&w->wish) == RS_REASON_NONE
                 && (!rs_sched_is_final_locked(&pool->sched)
                     || rs_pool_is_wanted_locked(pool)
                     || pool->standing.waiting > 0);
  rs_pool_unlock(pool);
  return stay;
}

/* ----------------------------------------------------------------- growing */

/* Make room for more numbers.  False when out of memory. */
static bool
grow_numbers_locked (rs_pool *pool)
{
  const size_t words = pool->words > 0 ? 2 * pool->words : 1;
  uint64_t *const numbers = realloc(pool->numbers, words * sizeof *numbers);
  if (numbers == NULL)
    return false;
  memset(numbers + pool->words, 0, (words - pool->words) * sizeof *numbers);
  pool->numbers = numbers;
  pool->words = words;
  return true;
}

/* Take the smallest number that no worker has; 0 when out of memory. */
static unsigned
take_number_locked (rs_pool *pool)
{
  size_t i = pool->vacant;
  while (i < pool->words && pool->numbers[i] == UINT64_MAX)
    i++;
  pool->vacant = i;
  if (i == pool->words && !grow_numbers_locked(pool))
    return 0;
  const unsigned bit = (unsigned) __builtin_ctzll(~pool->numbers[i]);
  pool->numbers[i] |= UINT64_C(1) << bit;
  return (unsigned) (i * BITS) + bit + 1;
}

/* Make the memory for one more worker; NULL when there is none. */
static rs_worker *
worker_new (void)
{
  rs_worker *const w = aligned_alloc(_Alignof(rs_worker), sizeof *w);
  if (w != NULL) {
    memset(w, 0, sizeof *w);
    rs_seat_init(&w->seat);
  }
  return w;
}

/* Make the memory of a retired worker that of a new one. */
static rs_worker *
worker_renew (rs_worker *w)
{
  rs_seat_renew(&w->seat);
  w->runner = NULL;
  w->served = NULL;
  w->past = (rs_runner_past) { .opened = false };
  w->cancel = NULL;
  w->host = NULL;
  w->stood = 0;
  w->standing = NULL;
  w->late = NULL;
  w->returned = false;
  atomic_store_explicit(&w->wish.reason, RS_REASON_NONE, memory_order_relaxed);
  atomic_store_explicit(&w->bytes, 0, memory_order_relaxed);
  w->began = w->opened = w->leaving = w->abandoned = w->uncounted = false;
  return w;
}

rs_worker *
rs_worker_reserve_locked (rs_pool *pool)
{
  rs_list *const old = rs_list_shift(&pool->retired);
  rs_worker *const w = old != NULL
                     ? worker_renew(RS_LIST_ENTRY(old, rs_worker, link))
                     : worker_new();
  const unsigned number = w != NULL ? take_number_locked(pool) : 0;
  if (number == 0) {
    if (w != NULL)
      rs_worker_retire_locked(pool, w);
    return NULL;
  }
  w->pool = pool;
  w->number = number;
  rs_list_push(&pool->workers, &w->link);
  rs_sched_enter_locked(&pool->sched, &w->seat);
  pool->alive++;
  pool->opening++;
  pool->started_workers++;
  rs_pool_hold(pool);
  return w;
}

/* ----------------------------------------------------------------- losing */

/* True when so many workers are stuck that no more are replaced: what is
   queued waits for the workers that are left, or for one that comes back. */
static bool
has_lost_too_many_locked (const rs_pool *pool)
{
  return pool->stuck > MAX_STUCK && pool->stuck > 2 * pool->max;
}

bool
rs_pool_may_grow_locked (const rs_pool *pool)
{
  return pool->alive < pool->max + pool->blocked
      && (pool->later == 0 || pool->alive == 0 || rs_now() >= pool->later)
      && !has_lost_too_many_locked(pool);
}

/* Let spin.h count the worker no more. */
static void
uncount_locked (rs_worker *w)
{
  if (!w->uncounted)
    rs_spin_leave();
  w->uncounted = true;
}

void
rs_worker_abandon_locked (rs_pool *pool, rs_worker *w)
{
  unlist_locked(pool, w);
  w->abandoned = true;
  pool->stuck++;
  pool->lost_workers++;
  if (w->began)
    pthread_detach(w->thread);
  uncount_locked(w);
  leave_locked(pool, w);
}

/* True when there is to be a worker in the place of one that was lost, or has
   come back.  '*next' is the new worker, or NULL: no memory. */
static bool
replace_locked (rs_pool *pool, rs_worker **next)
{
  const bool wanted = rs_pool_is_wanted_locked(pool)
                   || (!rs_sched_is_final_locked(&pool->sched)
                       && pool->alive < pool->min);
  const bool again = wanted && rs_pool_may_grow_locked(pool);
  *next = again ? rs_worker_reserve_locked(pool) : NULL;
  return again;
}

/* Start a worker in the place of a lost one.  If that fails, what is queued
   waits for a lost worker that comes back; it fails if there is none. */
static void
start_instead (rs_pool *pool, rs_worker *next)
{
  rs_error err;
  if (rs_worker_start(pool, next, &err) == RS_OK)
    return;
  rs_pool_lock(pool);
  const bool none = pool->stuck == 0;
  rs_pool_unlock(pool);
  if (none)
    rs_pool_fail_queued(pool, &err);
}

/*
 * rs_cancel_owner: the worker does not come back from its job, which is about
 * to end as lost.  A worker that ever comes back ends.  Any thread.
 */
static void
lose (void *ud)
{
  rs_worker *const w = ud;
  rs_pool *const pool = w->pool;
  rs_worker *next;
  rs_pool_lock(pool);
  if (!w->abandoned)
    rs_worker_abandon_locked(pool, w);
  rs_job *const job = rs_seat_ref_job_locked(&w->seat);
  if (job != NULL)  /* NULL: a runspace was being seeded */
    pool->sched.finished++;
  if (!w->opened) {
    w->opened = true;
    pool->opening--;
  }
  const bool again = replace_locked(pool, &next);
  change_locked(pool);
  rs_events *const watcher = rs_events_hold(pool->watcher);
  rs_pool_unlock(pool);
  rs_pool_end_stranded(pool, "the worker was lost in another job");
  if (again)
    start_instead(pool, next);
  rs_pool_stop_seeding_if_over(pool);
  wake(watcher);
  /* A job between two attempts has no token, so it is ended here. */
  if (job != NULL)
    rs_job_lose_call(&job->call);
}

/* Leave the pool, and end. */
static void
leave (rs_worker *w)
{
  rs_pool *const pool = w->pool;
  rs_events_drop(w->served);
  rs_pool_lock(pool);
  uncount_locked(w);
  leave_locked(pool, w);  /* if the runner could not be opened */
  const bool none = !w->abandoned && pool->alive == 0
                 && pool->failed_workers > 0;
  const rs_error failure = pool->failure;
  rs_pool_unlock(pool);
  rs_pool_end_stranded(pool, failure.text[0] != '\0' ? failure.text
                                             : "the worker has ended");
  if (none)
    rs_pool_fail_queued(pool, &failure);
  rs_pool_stop_seeding_if_over(pool);

  rs_worker *next = NULL;
  bool again = false;
  rs_pool_lock(pool);
  const bool joined = pool->closing && !w->abandoned;
  if (w->abandoned) {  /* was it lost, and has come back? */
    pool->stuck--;
    again = replace_locked(pool, &next);
  }
  else
    unlist_locked(pool, w);
  if (joined)
    rs_list_push(&pool->gone, &w->link);
  else {
    if (!w->abandoned)
      pthread_detach(pthread_self());
    rs_worker_retire_locked(pool, w);
  }
  change_locked(pool);
  rs_events *const watcher = rs_events_hold(pool->watcher);
  rs_pool_unlock(pool);
  wake(watcher);
  if (again)
    start_instead(pool, next);
  rs_pool_drop(pool);
}

/* -------------------------------------------------------------- the thread */

/* Functions for the calls of a worker, which are those of jobs. */
static const rs_cancel_owner cancel_owner = {
  .lost_thread = lose,
  .hold_call = rs_job_hold_call,
  .lost_call = rs_job_lose_call,
};

static void
tell_bytes (rs_worker *w)
{
  atomic_store_explicit(&w->bytes, w->pool->kind->bytes(w->runner),
                        memory_order_relaxed);
}

/*
 * End the process if this is a child that a job has forked: there this is the
 * only thread, and the pool is not the child's.  The process ends with its
 * last thread: pthread_exit(3).
 */
static void
end_child (const rs_worker *w)
{
  if (rs_pool_is_foreign(w->pool))
    pthread_exit(NULL);
}

static void
close_runner (rs_worker *w)
{
  rs_runner *const r = w->runner;
  w->runner = NULL;
  if (r == NULL)
    return;
  w->pool->kind->close(r);
  end_child(w);
}

/* Open a runner for 'job', or for any job with NULL, in place of the one that
   the worker may have.  A stop of 'job' stops the opening, too.  False, and
   'err' filled, on failure. */
static bool
open_runner (rs_worker *w, rs_job *job, rs_error *err)
{
  const rs_pool *const pool = w->pool;
  if (pool->kind->renew == NULL)
    close_runner(w);
  const rs_state_options options = {
    .options = &pool->options,
    .pool = w->pool,
    .worker = w->number,
    .cancel = w->cancel,
    .wish = job != NULL ? &job->call.wish : &w->wish,
    .owner = job != NULL ? (void *) &job->call : RS_SEEDING,
    .shared = pool->shared,
    .past = &w->past,
  };
  rs_runner *r = w->runner;
  w->runner = NULL;
  const int status = r != NULL ? pool->kind->renew(&r, &options, err)
                               : pool->kind->open(&options, &r, err);
  end_child(w);
  if (status != RS_OK)
    return false;
  r->prepared = false;
  w->runner = r;
  w->stood = 0;
  tell_bytes(w);
  return true;
}

/* As 'open_runner', and count that. */
static bool
renew (rs_worker *w, rs_job *job, rs_error *err)
{
  if (!open_runner(w, job, err))
    return false;
  rs_pool_lock(w->pool);
  w->pool->renewed++;
  rs_pool_unlock(w->pool);
  return true;
}

/* Give back a job whose next attempt has to wait.  False when it can be made
   at once. */
static bool
put_off (rs_worker *w, rs_job *job)
{
  rs_pool *const pool = w->pool;
  if (!job->put_off || !rs_job_requeue(job))
    return false;
  const double due = rs_delay_leave(job);
  rs_job_ref(job);
  rs_pool_lock(pool);
  rs_seat_leave_locked(&w->seat);
  rs_sched_delay_locked(&pool->sched, job);
  const bool stopped = pool->stopped;
  rs_pool_unlock(pool);
  rs_delay_until(job, due, stopped);
  rs_job_unref(job);
  return true;
}

/* Run the job, and end it.  Returns its state; RS_JOB_QUEUED when it was given
   back.  The worker has no runner afterwards when it could not be renewed on
   the way. */
static rs_job_state
run (rs_worker *w, rs_job *job, rs_error *err)
{
  rs_job_state state = RS_JOB_FAILED;
  rs_job_serve(job, &w->served);
  while (w->runner != NULL
         && (state = rs_job_execute(job, w->runner)) == RS_JOB_QUEUED) {
    const rs_reason reason = rs_wish_reason(&job->call.wish);
    if (reason != RS_REASON_NONE) {
      state = rs_reason_state(reason);
      break;
    }
    if (put_off(w, job) || rs_worker_give_back(w, job))
      return RS_JOB_QUEUED;
    renew(w, job, err);
  }
  end_child(w);
  if (w->runner != NULL)
    tell_bytes(w);
  /* A thread that waits for the end of the job finds the worker free again. */
  rs_seat_end(&w->pool->sched, &w->seat);
  if (w->runner != NULL)
    rs_job_end_served(job, state);
  else {
    if (err->status == RS_ESTOPPED)  /* the job is to stop, or is lost */
      rs_job_end_queued(job, RS_REASON_CLOSED);
    else
      rs_job_fail(job, err->text);
    rs_job_unref(job);
  }
  return state;
}

/* True when the next job needs another runner: the old one has had its time,
   or there is none since its opening was stopped with the job that it was for.
   'standing': the last job was that of a standing call. */
static bool
is_due (const rs_worker *w, bool standing, const rs_error *err)
{
  return w->runner == NULL ? err->status == RS_ESTOPPED
                           : (w->pool->options.reset == RS_RESET_FRESH
                              && !standing)
                             || w->pool->kind->spent(w->runner);
}

/* Run the job, and make the runspace ready for the next one.  False when the
   worker is to leave. */
static bool
serve_job (rs_worker *w, rs_job *job, rs_error *err)
{
  const bool chunk = job->batch != NULL, standing = w->standing != NULL;
  const rs_job_state state = run(w, job, err);
  bool due = is_due(w, standing, err);
  if (standing && !rs_worker_end_standing(w, state, &due, err)) {
    set_opened(w, err->status, err);
    return false;
  }
  if (due) {
    if (!stays(w))
      return false;
    renew(w, NULL, err);
  }
  else if (w->runner != NULL)
    w->pool->kind->trim(w->runner, chunk);
  if (w->runner == NULL)
    set_opened(w, err->status, err);
  return w->runner != NULL;
}

static void
serve (rs_worker *w)
{
  rs_error err = { .status = RS_OK };
  bool open = open_runner(w, NULL, &err);
  set_opened(w, open ? RS_OK : err.status, &err);
  rs_job *job;
  while (open && (job = take(w, &err)) != NULL)
    open = serve_job(w, job, &err);
  close_runner(w);
}

/* ------------------------------------------------- the thread of a host */

/* Nobody takes the place of a host's thread. */
static const rs_cancel_owner host_owner = {
  .hold_call = rs_job_hold_call,
  .lost_call = rs_job_lose_call,
};

int
rs_worker_open_here (rs_worker *w, rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_error failure = { .status = RS_OK };
  rs_cancel *const cancel = rs_cancel_new(pool->options.signal, &host_owner,
                                          w);
  rs_pool_lock(pool);
  w->thread = pthread_self();
  w->cancel = cancel;
  w->began = w->uncounted = true;
  rs_pool_unlock(pool);
  if (cancel == NULL)
    rs_fail_plain(&failure, RS_ENOMEM);
  else {
    open_runner(w, NULL, &failure);
    rs_cancel_end(cancel);
  }
  set_opened(w, failure.status, &failure);
  return failure.status == RS_OK
       ? RS_OK : rs_fail(err, failure.status, "%s", failure.text);
}

/* Take what is to be run next, as 'look_for_job', but never sit down; NULL:
   there is nothing. */
static rs_job *
take_here (rs_worker *w, rs_error *err)
{
  rs_pool *const pool = w->pool;
  rs_pool_lock(pool);
  if (rs_seat_job(&w->seat) != NULL) {  /* does a job wait here? */
    rs_pool_unlock(pool);
    return NULL;
  }
  if (!((w->stood != pool->standing.last || w->returned)
        && rs_worker_take_standing_locked(w)) && !pool->stopped)
    rs_sched_take_here_locked(&pool->sched, &w->seat);
  rs_pool_unlock(pool);
  if (w->standing != NULL && rs_seat_job(&w->seat) == NULL)
    make_late(w, err);
  rs_pool_tell_room(pool);
  return rs_seat_job(&w->seat);
}

bool
rs_worker_serve_here (rs_worker *w)
{
  rs_error err = { .status = RS_OK };
  rs_job *const job = take_here(w, &err);
  if (job == NULL)
    return false;
  rs_cancel_begin(w->cancel);
  if (w->runner == NULL)  /* could it not be opened again? */
    open_runner(w, NULL, &err);
  serve_job(w, job, &err);
  rs_cancel_end(w->cancel);
  return true;
}

void
rs_worker_leave_here (rs_worker *w)
{
  rs_pool *const pool = w->pool;
  rs_cancel *const cancel = w->cancel;
  if (cancel != NULL) {
    rs_cancel_begin(cancel);
    close_runner(w);
    rs_cancel_leave(cancel);
  }
  rs_events_drop(w->served);
  rs_pool_lock(pool);
  w->cancel = NULL;
  leave_locked(pool, w);
  unlist_locked(pool, w);
  rs_worker_retire_locked(pool, w);
  change_locked(pool);
  rs_pool_unlock(pool);
  rs_cancel_unref(cancel);
  rs_pool_end_stranded(pool, "the pool was closed");
  rs_pool_drop(pool);
}

static void *
work (void *arg)
{
  rs_worker *const w = arg;
  if (w->pool->options.pin)
    rs_cpu_pin(w->number - 1);
  rs_cancel *const cancel = rs_cancel_new(w->pool->options.signal,
                                          &cancel_owner, w);
  begin(w);
  if (cancel != NULL) {
    serve(w);
    rs_cancel_leave(cancel);
  }
  else {
    rs_error err;
    rs_fail_plain(&err, RS_ENOMEM);
    set_opened(w, RS_ENOMEM, &err);
  }
  leave(w);
  rs_cancel_unref(cancel);
  return NULL;
}

/* Create the thread, with the signal mask of a worker. */
static int
create (rs_worker *w, rs_error *err)
{
  pthread_attr_t attr;
  sigset_t mask, old;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK_SIZE);
  sigfillset(&mask);
  for (size_t i = 0; i < sizeof open_signals / sizeof open_signals[0]; i++)
    sigdelset(&mask, open_signals[i]);
  if (w->pool->options.signal != 0)
    sigdelset(&mask, w->pool->options.signal);
  pthread_sigmask(SIG_SETMASK, &mask, &old);
  pthread_t thread;  /* 'w' may be gone when this returns */
  const int code = pthread_create(&thread, &attr, work, w);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  pthread_attr_destroy(&attr);
  if (code != 0)
    return rs_fail(err, RS_ETHREAD, "cannot create a worker thread: %s",
                   strerror(code));
  return RS_OK;
}

int
rs_worker_start (rs_pool *pool, rs_worker *w, rs_error *err)
{
  rs_error failure = { .status = RS_OK };
  rs_spin_prepare();
  const int status = w != NULL ? create(w, &failure)
                               : rs_fail_plain(&failure, RS_ENOMEM);
  if (status == RS_OK)
    return RS_OK;
  rs_pool_lock(pool);
  if (w != NULL) {
    unlist_locked(pool, w);
    leave_locked(pool, w);
    rs_worker_retire_locked(pool, w);
    pool->opening--;
    pool->started_workers--;
  }
  pool->failed_workers++;
  pool->failure = failure;
  change_locked(pool);
  rs_pool_unlock(pool);
  rs_pool_end_stranded(pool, failure.text);
  if (w != NULL)
    rs_pool_drop(pool);
  return rs_fail(err, status, "%s", failure.text);
}
