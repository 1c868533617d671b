/* SPDX-License-Identifier: MIT */
/*
 * sched.c - which job goes to which free worker.
 *
 * To wake a worker that sleeps takes some 3 us, for the thread that wakes it,
 * too; many a job takes less.  So a thread that submits wakes one worker at a
 * time: until that worker is there further jobs are queued, where workers that
 * are awake find them, too; and the woken worker wakes two more for what is
 * left, and so on.
 *
 * Where no CPU is free for one more worker, and a worker that is awake has
 * just begun with a job, that worker will most often be there sooner than one
 * that sleeps.  Then the job is queued, and nobody is woken.  (A job takes 0.8
 * us so with two of them in flight on two CPUs, and else 11 us.)  A worker
 * that sleeps, the watch, wakes up by itself once a millisecond meanwhile, and
 * works if something is queued: so a job that takes long holds up those behind
 * it for a millisecond at most.  The watch is a worker that goes to sleep
 * while another one is awake.  The last one sets no timer: on a virtual
 * machine the timer makes a short sleep several times as long, and a round
 * trip beside other programs is two short sleeps.
 */
#include "pool/sched.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/spin.h"

#define SHORT 20e-6   /* seconds: a worker that began with a job so lately may
                         be back before another one has woken up */
#define LAG 5e-6      /* seconds that 'begun' may be behind: to write it with
                         each job would take its line of the cache away from
                         the thread that submits, which costs 0.2 us */
#define NAP 1e-3      /* seconds between two looks of the watch */

void
rs_sched_init (rs_sched *s, bool limited)
{
  rs_mutex_init(&s->lock);
  rs_list_init(&s->idle);
  for (int i = 0; i < RS_LANES; i++)
    rs_list_init(&s->lanes[i]);
  rs_list_init(&s->seats);
  rs_list_init(&s->delayed);
  s->n_delayed = 0;
  s->queued = s->sitting = 0;
  s->calls = s->bytes = s->all = s->waking = 0;
  s->watch = NULL;
  s->wake = NULL;
  s->begun = 0;
  s->finished = 0;
  s->limited = limited;
  s->closed = s->paused = false;
}

void
rs_sched_fini (rs_sched *s)
{
  assert(s->queued == 0 && s->n_delayed == 0 && rs_list_empty(&s->idle));
  pthread_mutex_destroy(&s->lock);
}

void
rs_seat_init (rs_seat *seat)
{
  rs_list_init(&seat->link);
  rs_list_init(&seat->all);
  rs_cond_init(&seat->wake);
  rs_seat_renew(seat);
}

void
rs_seat_renew (rs_seat *seat)
{
  atomic_store_explicit(&seat->called, false, memory_order_relaxed);
  atomic_store_explicit(&seat->has, false, memory_order_relaxed);
  atomic_store_explicit(&seat->finished, 0, memory_order_relaxed);
  seat->asleep = seat->woken = false;
  seat->job = NULL;
}

void
rs_seat_fini (rs_seat *seat)
{
  pthread_cond_destroy(&seat->wake);
}

/* ------------------------------------------------------------------- lanes */

/* Count the job as one that waits. */
static inline void
count_locked (rs_sched *s, const rs_job *job)
{
  if (s->limited && job->batch == NULL) {
    s->calls++;
    s->bytes += rs_job_bytes(job);
  }
}

static inline void
uncount_locked (rs_sched *s, const rs_job *job)
{
  if (s->limited && job->batch == NULL) {
    s->calls--;
    s->bytes -= rs_job_bytes(job);
  }
}

/* Queue the job at the end of its lane. */
static void
queue_locked (rs_sched *s, rs_job *job)
{
  rs_list_push(&s->lanes[RS_PRIORITY_MAX - job->priority], &job->link);
  s->queued++;
  count_locked(s, job);
}

static void
unqueue_locked (rs_sched *s, rs_job *job)
{
  rs_list_remove(&job->link);
  s->queued--;
  uncount_locked(s, job);
}

void
rs_sched_delay_locked (rs_sched *s, rs_job *job)
{
  rs_list_push_front(&s->delayed, &job->link);
  s->n_delayed++;
  count_locked(s, job);
  atomic_store_explicit(&job->delayed, true, memory_order_relaxed);
}

bool
rs_sched_undelay_locked (rs_sched *s, rs_job *job)
{
  if (!atomic_load_explicit(&job->delayed, memory_order_relaxed))
    return false;
  atomic_store_explicit(&job->delayed, false, memory_order_relaxed);
  rs_list_remove(&job->link);
  s->n_delayed--;
  uncount_locked(s, job);
  if (rs_sched_is_final_locked(s))  /* workers have waited for the job alone */
    rs_sched_call_all_locked(s);
  return true;
}

bool
rs_sched_claim_locked (rs_sched *s, rs_job *job, rs_claim why)
{
  if (atomic_load_explicit(&job->delayed, memory_order_relaxed))
    return why == RS_CLAIM_TO_END && rs_sched_undelay_locked(s, job);
  const bool queued = !rs_list_empty(&job->link);
  if (queued)
    unqueue_locked(s, job);
  return queued;
}

/* Take out a delayed job of 'batch', with NULL any; NULL: there is none. */
static rs_job *
claim_delayed_locked (rs_sched *s, const rs_batch *batch)
{
  for (rs_list *link = s->delayed.next; link != &s->delayed;
       link = link->next) {
    rs_job *const job = RS_LIST_ENTRY(link, rs_job, link);
    if (batch == NULL || job->batch == batch) {
      rs_sched_undelay_locked(s, job);
      return job;
    }
  }
  return NULL;
}

rs_job *
rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch, rs_claim why)
{
  for (int i = 0; s->queued > 0 && i < RS_LANES; i++)
    for (rs_list *link = s->lanes[i].next; link != &s->lanes[i];
         link = link->next) {
      rs_job *const job = RS_LIST_ENTRY(link, rs_job, link);
      if (batch == NULL || job->batch == batch) {
        unqueue_locked(s, job);
        return job;
      }
    }
  return why == RS_CLAIM_TO_END ? claim_delayed_locked(s, batch) : NULL;
}

/* True when the job may begin. */
static bool
is_ready_locked (const rs_sched *s, const rs_job *job)
{
  return !s->paused
      || atomic_load_explicit(&job->call.depth, memory_order_relaxed) > 0;
}

/* The next queued job that may begin while the scheduler is paused, or
   NULL. */
static rs_job *
find_ready_locked (const rs_sched *s)
{
  for (int i = 0; s->queued > 0 && i < RS_LANES; i++)
    for (rs_list *link = s->lanes[i].next; link != &s->lanes[i];
         link = link->next) {
      rs_job *const job = RS_LIST_ENTRY(link, rs_job, link);
      if (is_ready_locked(s, job))
        return job;
    }
  return NULL;
}

size_t
rs_sched_ready_locked (const rs_sched *s)
{
  return !s->paused ? s->queued : find_ready_locked(s) != NULL;
}

/* Take out the next queued job that may begin, or NULL. */
static rs_job *
claim_next_locked (rs_sched *s)
{
  if (!s->paused)
    return rs_sched_claim_of_locked(s, NULL, RS_CLAIM_TO_RUN);
  rs_job *const job = find_ready_locked(s);
  if (job != NULL)
    unqueue_locked(s, job);
  return job;
}

/* ------------------------------------------------------------------ giving */

static void
call_locked (rs_sched *s, rs_seat *seat)
{
  /* Release: with the call comes the job. */
  atomic_store_explicit(&seat->called, true, memory_order_release);
  if (!seat->asleep)
    return;
  if (s->wake != NULL)
    pthread_cond_signal(s->wake);
  s->wake = &seat->wake;
}

static bool
is_called (const void *ud)
{
  const rs_seat *const seat = ud;
  return atomic_load_explicit(&seat->called, memory_order_acquire);
}

static void
stand_up_locked (rs_sched *s, rs_seat *seat)
{
  rs_list_remove(&seat->link);
  s->sitting--;
  if (s->watch == seat)
    s->watch = NULL;
}

/* Let the worker of the seat have the job, from 'now' on. */
static void
set_job_locked (rs_sched *s, rs_seat *seat, rs_job *job, double now)
{
  if (now - s->begun > LAG)
    s->begun = now;
  seat->job = job;
  atomic_store_explicit(&seat->has, true, memory_order_relaxed);
}

/* The seat for the next job, or NULL: the seat on which a worker sat down
   last, but the watch only if there is no other. */
static rs_seat *
choose_seat_locked (const rs_sched *s)
{
  if (rs_list_empty(&s->idle))
    return NULL;
  rs_list *link = s->idle.next;
  if (s->watch != NULL && link == &s->watch->link && link->next != &s->idle)
    link = link->next;
  return RS_LIST_ENTRY(link, rs_seat, link);
}

/* Give the job to the worker that waits on the seat. */
static void
give_locked (rs_sched *s, rs_seat *seat, rs_job *job, double now)
{
  stand_up_locked(s, seat);
  seat->woken = seat->asleep;
  s->waking += seat->woken;
  set_job_locked(s, seat, job, now);
  call_locked(s, seat);
}

/* Give queued jobs to idle workers, up to 'most'. */
static void
pass_on_locked (rs_sched *s, int most)
{
  while (most-- > 0 && rs_sched_ready_locked(s) > 0
         && !rs_list_empty(&s->idle))
    give_locked(s, choose_seat_locked(s), claim_next_locked(s), rs_now());
}

/* True when the job may wait for a worker that is awake. */
static bool
can_wait_locked (const rs_sched *s, const rs_job *job)
{
  return job->batch == NULL && s->watch != NULL && s->all > s->sitting
      && !rs_spin_spare() && rs_now() - s->begun < SHORT;
}

bool
rs_sched_push_locked (rs_sched *s, rs_job *job)
{
  rs_seat *const seat = choose_seat_locked(s);
  if (seat == NULL || !is_ready_locked(s, job)
      || (seat->asleep && (s->waking > 0 || can_wait_locked(s, job)))) {
    queue_locked(s, job);
    return false;
  }
  const double now = job->created;
  if (s->queued > 0) {  /* older jobs, for which nobody was woken */
    queue_locked(s, job);
    job = claim_next_locked(s);
  }
  give_locked(s, seat, job, now);
  return rs_sched_ready_locked(s) == 0;
}

void
rs_sched_call_all_locked (rs_sched *s)
{
  while (!rs_list_empty(&s->idle)) {
    rs_seat *const seat = RS_LIST_ENTRY(s->idle.next, rs_seat, link);
    stand_up_locked(s, seat);
    call_locked(s, seat);
  }
}

void
rs_sched_pause_locked (rs_sched *s)
{
  s->paused = true;
}

void
rs_sched_resume_locked (rs_sched *s)
{
  s->paused = false;
  if (s->waking == 0)
    pass_on_locked(s, 1);
}

void
rs_sched_close_locked (rs_sched *s)
{
  s->closed = true;
  s->paused = false;
  rs_sched_call_all_locked(s);  /* they are given nothing any more */
}

/* -------------------------------------------------- the thread of the seat */

void
rs_sched_enter_locked (rs_sched *s, rs_seat *seat)
{
  rs_list_push(&s->seats, &seat->all);
  s->all++;
}

void
rs_sched_leave_locked (rs_sched *s, rs_seat *seat)
{
  if (rs_list_empty(&seat->all))
    return;
  rs_list_remove(&seat->all);
  s->all--;
  s->finished += atomic_load_explicit(&seat->finished, memory_order_relaxed);
  if (s->waking == 0)
    pass_on_locked(s, 1);
}

rs_job *
rs_seat_job (const rs_seat *seat)
{
  return seat->job;
}

void
rs_seat_end (rs_sched *s, rs_seat *seat)
{
  const uint64_t n = atomic_load_explicit(&seat->finished,
                                          memory_order_relaxed);
  atomic_store_explicit(&seat->finished, n + 1, memory_order_relaxed);
  if (!atomic_exchange_explicit(&seat->has, false, memory_order_acq_rel)) {
    /* Another thread, with the lock held, is taking a reference: the worker's
       reference has to stay until then. */
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&seat->has, false, memory_order_relaxed);
    rs_sched_unlock(s);
  }
  seat->job = NULL;
}

void
rs_sched_begin_locked (rs_sched *s, rs_seat *seat, rs_job *job)
{
  set_job_locked(s, seat, job, rs_now());
}

void
rs_seat_leave_locked (rs_seat *seat)
{
  /* Whoever takes a reference meanwhile holds the lock. */
  atomic_store_explicit(&seat->has, false, memory_order_relaxed);
  seat->job = NULL;
}

void
rs_sched_take_here_locked (rs_sched *s, rs_seat *seat)
{
  rs_job *const job = claim_next_locked(s);
  if (job != NULL)
    set_job_locked(s, seat, job, rs_now());
}

bool
rs_sched_take_locked (rs_sched *s, rs_seat *seat)
{
  rs_job *const job = claim_next_locked(s);
  if (job != NULL)
    set_job_locked(s, seat, job, rs_now());
  else if (!rs_sched_is_final_locked(s)) {
    rs_list_push_front(&s->idle, &seat->link);
    s->sitting++;
    atomic_store_explicit(&seat->called, false, memory_order_relaxed);
  }
  return job != NULL;
}

bool
rs_seat_spin (rs_seat *seat)
{
  rs_spin(is_called, seat);
  return is_called(seat) && seat->job != NULL;
}

/* Sleep until the seat is called, or 'deadline', or it is the watch and finds
   a queued job. */
static void
sleep_locked (rs_sched *s, rs_seat *seat, double deadline)
{
  bool over = false;
  assert(s->wake == NULL);  /* the wait gives up the lock as it is */
  seat->asleep = true;
  rs_spin_leave();
  if (s->watch == NULL && s->all > s->sitting && rs_now() - s->begun < NAP)
    s->watch = seat;
  while (!is_called(seat) && !over) {
    const double nap = s->watch == seat ? rs_now() + NAP : RS_NEVER;
    over = rs_cond_wait_until(&seat->wake, &s->lock,
                              nap < deadline ? nap : deadline) != RS_OK;
    if (over && nap < deadline) {
      over = rs_sched_ready_locked(s) > 0;
      if (!over && rs_now() - s->begun >= NAP)  /* does nothing go on? */
        s->watch = NULL;
    }
  }
  rs_spin_enter();
  seat->asleep = false;
}

bool
rs_sched_sleep_locked (rs_sched *s, rs_seat *seat, double deadline)
{
  if (!is_called(seat) && rs_sched_ready_locked(s) == 0)
    sleep_locked(s, seat, deadline);
  if (!rs_list_empty(&seat->link))
    stand_up_locked(s, seat);
  if (!is_called(seat)) {
    rs_job *const job = claim_next_locked(s);
    if (job != NULL)
      set_job_locked(s, seat, job, rs_now());
  }
  if (seat->woken) {
    seat->woken = false;
    s->waking--;
  }
  if (s->waking == 0)
    pass_on_locked(s, 2);
  return seat->job != NULL;
}

/* -------------------------------------------------------------- any thread */

rs_job *
rs_seat_ref_job_locked (rs_seat *seat)
{
  /* A worker that finds 'has' false waits for the lock before it drops its
     reference: 'rs_seat_end'. */
  if (!atomic_exchange_explicit(&seat->has, false, memory_order_acq_rel))
    return NULL;
  rs_job *const job = rs_job_ref(seat->job);
  atomic_store_explicit(&seat->has, true, memory_order_release);
  return job;
}

size_t
rs_sched_running_locked (const rs_sched *s)
{
  size_t n = 0;
  for (rs_list *link = s->seats.next; link != &s->seats; link = link->next)
    n += atomic_load_explicit(&RS_LIST_ENTRY(link, rs_seat, all)->has,
                              memory_order_relaxed);
  return n;
}

uint64_t
rs_sched_finished_locked (const rs_sched *s)
{
  uint64_t n = s->finished;
  for (rs_list *link = s->seats.next; link != &s->seats; link = link->next)
    n += atomic_load_explicit(&RS_LIST_ENTRY(link, rs_seat, all)->finished,
                              memory_order_relaxed);
  return n;
}
