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
 * Where jobs are short (SHORT), and no CPU is free for one more worker, it is
 * better to leave the jobs to the workers that are awake.  Then one worker
 * that sleeps, the watch, wakes up by itself once a millisecond.  The watch
 * takes what is queued if that has become much, or if no other worker has
 * finished anything: so a job that takes long after many that did not holds up
 * the jobs behind it for a millisecond at most.  When nothing is going on the
 * watch sleeps as all others do.
 */
#include "pool/sched.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/cache.h"
#include "base/clock.h"
#include "base/spin.h"

#define SHORT 20e-6   /* seconds: for a job below this it does not pay to wake
                         a worker */
#define QUICK 5e-6    /* seconds: for a job below this it does not pay to take
                         the lock */
#define MUCH 300e-6   /* seconds of queued work for which it pays to wake a
                         worker */
#define NAP 1e-3      /* seconds between two looks of the watch */

enum { QUIET = 5 };   /* looks in a row that find nothing going on, until the
                         watch sleeps */
enum { LINGER = 100 };  /* looks for the next job: some 5 us */

void
rs_sched_init (rs_sched *s, bool limited)
{
  rs_mutex_init(&s->lock);
  for (int i = 0; i < RS_LANES; i++)
    rs_list_init(&s->lanes[i]);
  rs_list_init(&s->idle);
  rs_list_init(&s->seats);
  s->queued = s->calls = s->bytes = s->sitting = s->all = s->waking = 0;
  s->watch = NULL;
  s->finished = 0;
  s->full_hands = 0;
  s->lowest = RS_PRIORITY_MAX;
  s->pace = 0;
  s->limited = limited;
  s->closed = false;
  atomic_init(&s->last, NULL);
  atomic_init(&s->some, false);
}

void
rs_sched_fini (rs_sched *s)
{
  assert(s->queued == 0 && rs_list_empty(&s->idle));
  pthread_mutex_destroy(&s->lock);
}

void
rs_seat_init (rs_seat *seat)
{
  rs_list_init(&seat->link);
  rs_list_init(&seat->all);
  seat->asleep = seat->woken = seat->full = false;
  seat->since = 0;
  seat->tail = seat->noted = 0;
  seat->current = NULL;
  atomic_init(&seat->at, 0);
  atomic_init(&seat->busy, false);
  atomic_init(&seat->finished, 0);
  atomic_init(&seat->called, RS_SEAT_SITS);
  for (int i = 0; i < RS_HAND; i++)
    atomic_init(&seat->hand[i].state, RS_HOLD_EMPTY);
  rs_cond_init(&seat->wake);
}

void
rs_seat_fini (rs_seat *seat)
{
  pthread_cond_destroy(&seat->wake);
}

void
rs_sched_enter_locked (rs_sched *s, rs_seat *seat)
{
  rs_list_push(&s->seats, &seat->all);
  s->all++;
}

/* ------------------------------------------------------------------- lanes */

static rs_list *
lane_of (rs_sched *s, const rs_job *job)
{
  return &s->lanes[RS_PRIORITY_MAX - job->priority];
}

/* Queue the job in its lane, before the job at 'next'. */
static void
queue_locked (rs_sched *s, rs_job *job, rs_list *next)
{
  rs_list_push(next, &job->link);
  if (s->queued++ == 0)
    atomic_store_explicit(&s->some, true, memory_order_relaxed);
  if (job->batch == NULL) {
    s->calls++;
    if (s->limited)
      s->bytes += rs_job_bytes(job);
  }
}

/* Queue the job where it was: before those that came later. */
static void
put_back_locked (rs_sched *s, rs_job *job)
{
  rs_list *const lane = lane_of(s, job);
  rs_list *next = lane->next;
  while (next != lane
         && RS_LIST_ENTRY(next, rs_job, link)->call.id < job->call.id)
    next = next->next;
  queue_locked(s, job, next);
}

static void
unqueue_locked (rs_sched *s, rs_job *job)
{
  rs_list_remove(&job->link);
  if (--s->queued == 0)
    atomic_store_explicit(&s->some, false, memory_order_relaxed);
  if (job->batch == NULL) {
    s->calls--;
    if (s->limited)
      s->bytes -= rs_job_bytes(job);
  }
}

/* The lane of the highest priority that has jobs. */
static rs_list *
first_lane_locked (rs_sched *s)
{
  rs_list *lane = s->lanes;
  while (rs_list_empty(lane))
    lane++;
  return lane;
}

/* ------------------------------------------------------------------- hands */

static bool
change (rs_hold *hold, int from, int to)
{
  /* Acquire and release: with the job comes all that was done to it before,
     both when it is handed over and when it is taken away. */
  return atomic_compare_exchange_strong_explicit(&hold->state, &from, to,
                                                 memory_order_acq_rel,
                                                 memory_order_acquire);
}

static rs_hold *
hold_at (rs_seat *seat, unsigned place)
{
  return &seat->hand[place % RS_HAND];
}

static int
state_of (const rs_hold *hold)
{
  return atomic_load_explicit(&hold->state, memory_order_acquire);
}

/* The first place of the seat's hand that may have a job. */
static unsigned
head_of (const rs_seat *seat)
{
  return atomic_load_explicit(&seat->at, memory_order_acquire);
}

/* Put 'job', with its reference, into the hand of 'seat', which has room. */
static void
hold_locked (rs_sched *s, rs_seat *seat, rs_job *job)
{
  rs_hold *const hold = hold_at(seat, seat->tail++);
  hold->job = job;
  job->hold = hold;
  atomic_store_explicit(&hold->state, RS_HOLD_READY, memory_order_release);
  if (atomic_load_explicit(&s->last, memory_order_relaxed) != seat)
    atomic_store_explicit(&s->last, seat, memory_order_relaxed);
}

/* Take the job out of the hold.  False when its worker has begun with it. */
static bool
steal_locked (rs_hold *hold)
{
  if (!change(hold, RS_HOLD_READY, RS_HOLD_STOLEN))
    return false;
  hold->job->hold = NULL;  /* the worker may go */
  return true;
}

/* Take a job out of any hand; NULL: there is none. */
static rs_job *
steal_any_locked (rs_sched *s)
{
  for (rs_list *link = s->seats.next; link != &s->seats; link = link->next) {
    rs_seat *const seat = RS_LIST_ENTRY(link, rs_seat, all);
    for (unsigned i = head_of(seat); i != seat->tail; i++)
      if (steal_locked(hold_at(seat, i)))
        return hold_at(seat, i)->job;
  }
  return NULL;
}

/* True when the next hold of the seat is to be looked at: it has a job, or a
   job was stolen from it. */
static bool
has_more (const rs_seat *seat)
{
  const int state = state_of(&seat->hand[head_of(seat) % RS_HAND]);
  return state == RS_HOLD_READY || state == RS_HOLD_STOLEN;
}

rs_job *
rs_seat_begin (rs_seat *seat)
{
  while (has_more(seat)) {
    const unsigned at = head_of(seat);
    rs_hold *const hold = hold_at(seat, at);
    /* At any moment the job is READY, or 'busy' counts it. */
    atomic_store_explicit(&seat->busy, true, memory_order_relaxed);
    if (change(hold, RS_HOLD_READY, RS_HOLD_TAKEN)) {
      seat->current = hold;
      atomic_store_explicit(&seat->at, at + 1, memory_order_release);
      return hold->job;
    }
    atomic_store_explicit(&seat->busy, false, memory_order_relaxed);
    atomic_store_explicit(&seat->at, at + 1, memory_order_relaxed);
    atomic_store_explicit(&hold->state, RS_HOLD_EMPTY, memory_order_release);
  }
  return NULL;
}

void
rs_seat_done (rs_seat *seat)
{
  const uint64_t n = atomic_load_explicit(&seat->finished,
                                          memory_order_relaxed);
  atomic_store_explicit(&seat->finished, n + 1, memory_order_relaxed);
  atomic_store_explicit(&seat->busy, false, memory_order_relaxed);
}

void
rs_seat_end (rs_sched *s, rs_seat *seat)
{
  rs_hold *const hold = seat->current;
  seat->current = NULL;
  if (hold == NULL || change(hold, RS_HOLD_TAKEN, RS_HOLD_EMPTY))
    return;
  /* The hold is PINNED: a thread that has the lock is about to take a
     reference, and until then ours has to stay. */
  pthread_mutex_lock(&s->lock);
  atomic_store_explicit(&hold->state, RS_HOLD_EMPTY, memory_order_relaxed);
  pthread_mutex_unlock(&s->lock);
}

rs_job *
rs_seat_job_locked (rs_seat *seat)
{
  for (unsigned i = 0; i < RS_HAND; i++) {
    rs_hold *const hold = &seat->hand[i];
    if (change(hold, RS_HOLD_TAKEN, RS_HOLD_PINNED)
        || atomic_load_explicit(&hold->state, memory_order_relaxed)
           == RS_HOLD_PINNED)
      return rs_job_ref(hold->job);
  }
  return NULL;
}

/* Queue again the jobs that are in the hand of 'seat' and were not begun. */
static void
return_locked (rs_sched *s, rs_seat *seat)
{
  const unsigned head = head_of(seat);
  for (unsigned i = seat->tail; i != head; i--)
    if (steal_locked(hold_at(seat, i - 1)))
      put_back_locked(s, hold_at(seat, i - 1)->job);
}

/* Note that the hand of 'seat' is not full any more. */
static void
clear_locked (rs_sched *s, rs_seat *seat)
{
  if (seat->full)
    s->full_hands--;
  seat->full = false;
}

/* Queue again the jobs that are in full hands and were not begun. */
static void
recall_locked (rs_sched *s)
{
  for (rs_list *link = s->seats.next; link != &s->seats; link = link->next) {
    rs_seat *const seat = RS_LIST_ENTRY(link, rs_seat, all);
    if (seat->full) {
      return_locked(s, seat);
      clear_locked(s, seat);
    }
  }
}

rs_sched_counts
rs_sched_count_locked (const rs_sched *s)
{
  rs_sched_counts c = { .finished = s->finished };
  for (rs_list *link = s->seats.next; link != &s->seats; link = link->next) {
    rs_seat *const seat = RS_LIST_ENTRY(link, rs_seat, all);
    size_t held = 0;
    for (unsigned i = head_of(seat); i != seat->tail; i++)
      held += state_of(hold_at(seat, i)) == RS_HOLD_READY;
    /* 'busy' comes after the holds: a worker sets it before its hold stops
       being READY. */
    const bool busy = atomic_load_explicit(&seat->busy, memory_order_relaxed);
    c.held += held;
    c.running += busy;
    c.engaged += busy || held > 0;
    c.finished += atomic_load_explicit(&seat->finished, memory_order_relaxed);
  }
  return c;
}

/* ------------------------------------------------------------ handing over */

static void
call_locked (rs_seat *seat, int why)
{
  /* Release: a worker that spins takes what is in its hand without the
     lock. */
  atomic_store_explicit(&seat->called, why, memory_order_release);
  if (seat->asleep)
    pthread_cond_signal(&seat->wake);
}

static bool
is_called (const void *ud)
{
  const rs_seat *const seat = ud;
  return atomic_load_explicit(&seat->called, memory_order_acquire)
         != RS_SEAT_SITS;
}

static void
stand_up_locked (rs_sched *s, rs_seat *seat)
{
  rs_list_remove(&seat->link);
  s->sitting--;
  if (s->watch == seat)
    s->watch = NULL;
}

void
rs_sched_prefetch (rs_sched *s)
{
  const rs_seat *const last = atomic_load_explicit(&s->last,
                                                   memory_order_relaxed);
  rs_prefetch(&s->lock);
  if (last != NULL)
    rs_prefetch(last);
}

/* The seat for the next job, or NULL: the last one that sat down.  The watch
   only if there is no other, since it looks after the jobs while others sleep
   on. */
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

/* Give the job to the idle worker at 'seat'. */
static void
hand_locked (rs_sched *s, rs_seat *seat, rs_job *job)
{
  stand_up_locked(s, seat);
  seat->woken = seat->asleep;
  if (seat->asleep)
    s->waking++;
  hold_locked(s, seat, job);
  call_locked(seat, RS_SEAT_HANDED);
}

/* Note that a woken worker is there, and wake two more if there is work. */
static void
pass_on_locked (rs_sched *s)
{
  s->waking--;
  for (int i = 0; i < 2 && s->queued > 0 && !rs_list_empty(&s->idle); i++)
    hand_locked(s, choose_seat_locked(s), rs_sched_claim_of_locked(s, NULL));
}

/* True when so much is queued that it pays to wake a worker. */
static bool
is_much_locked (const rs_sched *s)
{
  return s->pace * (double) (s->queued + 1) > MUCH;
}

/* True when the job may wait for a worker that is awake. */
static bool
can_wait_locked (const rs_sched *s, const rs_job *job)
{
  return job->batch == NULL && s->watch != NULL && s->all > s->sitting
      && s->pace > 0 && s->pace < SHORT && !is_much_locked(s)
      && !rs_spin_spare();
}

/* Note that the hand of 'seat' has a job behind the one that runs. */
static void
fill_up_locked (rs_sched *s, rs_seat *seat, int priority)
{
  if (!seat->full)
    s->full_hands++;
  if (s->full_hands == 1 || priority < s->lowest)
    s->lowest = priority;
  seat->full = true;
}

/*
 * Put the job into the hand of the worker that was given a job last, if that
 * worker waits for one; or if it is the only worker that is awake, and is
 * quick, and the job would be queued otherwise, since no other worker is to be
 * woken for it.  False when the job was not put there.
 */
static bool
put_locked (rs_sched *s, rs_job *job, bool last)
{
  rs_seat *const seat = atomic_load_explicit(&s->last, memory_order_relaxed);
  if (seat == NULL)
    return false;
  const int state = state_of(hold_at(seat, seat->tail));
  const bool more = state == RS_HOLD_EMPTY && s->queued == 0
                 && job->batch == NULL
                 && rs_list_empty(&seat->link) && s->all - s->sitting == 1
                 && s->pace > 0 && s->pace < QUICK && !s->limited
                 && (s->sitting == 0 ? last : can_wait_locked(s, job));
  if (state != RS_HOLD_AWAITED && !more)
    return false;
  if (s->queued > 0) {  /* jobs that the worker has not seen yet */
    queue_locked(s, job, lane_of(s, job));
    job = rs_sched_claim_of_locked(s, NULL);
  }
  hold_locked(s, seat, job);
  if (more)
    fill_up_locked(s, seat, job->priority);
  return true;
}

bool
rs_sched_push_locked (rs_sched *s, rs_job *job, bool last)
{
  if (s->full_hands > 0 && job->priority > s->lowest)
    recall_locked(s);
  if (put_locked(s, job, last))
    return s->queued == 0;  /* or an older job was put there */
  rs_seat *const seat = choose_seat_locked(s);
  if (seat == NULL
      || (seat->asleep && (s->waking > 0 || can_wait_locked(s, job)))) {
    queue_locked(s, job, lane_of(s, job));
    return false;
  }
  hand_locked(s, seat, job);
  return true;
}

/* Choose how many jobs a worker may take at once: several only if they are
   short, and only the worker's share of what is queued. */
static size_t
choose_hand_locked (const rs_sched *s)
{
  if (s->limited || s->pace == 0 || s->pace > QUICK)
    return 1;
  const size_t share = s->queued / (2 * (s->all - s->sitting)) + 1;
  return share < RS_HAND ? share : RS_HAND;
}

/* Note the pace at which the jobs in the hand of 'seat' were done. */
static void
note_pace_locked (rs_sched *s, rs_seat *seat)
{
  const unsigned at = head_of(seat), n = at - seat->noted;
  seat->noted = at;
  if (seat->since == 0 || n == 0)  /* has the worker waited? */
    return;
  const double now = rs_now();
  const double pace = (now - seat->since) / n;
  s->pace = s->pace == 0 || pace > 4 * SHORT ? pace
          : s->pace + (pace - s->pace) / 8;
  seat->since = now;
}

/* Fill the hand of 'seat'; false when nothing is queued. */
static bool
fill_locked (rs_sched *s, rs_seat *seat)
{
  if (s->queued == 0 && s->full_hands > 0)
    recall_locked(s);
  if (s->queued == 0)
    return false;
  rs_list *const lane = first_lane_locked(s);
  size_t most = choose_hand_locked(s), n = 0;
  do {
    rs_job *const job = RS_LIST_ENTRY(lane->next, rs_job, link);
    if (job->batch != NULL) {  /* other threads look for chunks in lanes */
      if (n > 0)
        break;
      most = 1;
    }
    unqueue_locked(s, job);
    hold_locked(s, seat, job);
  } while (++n < most && !rs_list_empty(lane));
  if (n > 1)
    fill_up_locked(s, seat, (int) (RS_PRIORITY_MAX - (lane - s->lanes)));
  return true;
}

static bool
is_given (const void *hold)
{
  return state_of(hold) != RS_HOLD_AWAITED;
}

bool
rs_seat_linger (rs_sched *s, rs_seat *seat)
{
  rs_hold *const hold = hold_at(seat, head_of(seat));
  if (atomic_load_explicit(&s->last, memory_order_relaxed) != seat
      || atomic_load_explicit(&s->some, memory_order_relaxed))
    return false;
  if (!change(hold, RS_HOLD_EMPTY, RS_HOLD_AWAITED))
    return true;
  const double began = seat->since > 0 ? rs_now() : 0;
  rs_spin_few(is_given, hold, LINGER);
  if (seat->since > 0)  /* the wait does not count for the pace */
    seat->since += rs_now() - began;
  return !change(hold, RS_HOLD_AWAITED, RS_HOLD_EMPTY);
}

/* End the wait in 'rs_seat_linger', since no more jobs come. */
static void
end_linger_locked (rs_sched *s)
{
  rs_seat *const seat = atomic_load_explicit(&s->last, memory_order_relaxed);
  atomic_store_explicit(&s->last, NULL, memory_order_relaxed);
  if (seat != NULL)
    change(hold_at(seat, seat->tail), RS_HOLD_AWAITED, RS_HOLD_EMPTY);
}

bool
rs_sched_take_locked (rs_sched *s, rs_seat *seat)
{
  note_pace_locked(s, seat);
  if (has_more(seat))  /* was it given a job meanwhile? */
    return true;
  clear_locked(s, seat);
  if (fill_locked(s, seat)) {
    if (seat->since == 0)
      seat->since = rs_now();
    return true;
  }
  if (s->closed)
    return false;
  rs_list_push_front(&s->idle, &seat->link);
  s->sitting++;
  seat->since = 0;  /* the worker waits */
  atomic_store_explicit(&seat->called, RS_SEAT_SITS, memory_order_relaxed);
  return false;
}

void
rs_sched_leave_locked (rs_sched *s, rs_seat *seat)
{
  if (rs_list_empty(&seat->all))
    return;
  return_locked(s, seat);
  rs_list_remove(&seat->all);
  s->all--;
  if (atomic_load_explicit(&s->last, memory_order_relaxed) == seat)
    atomic_store_explicit(&s->last, NULL, memory_order_relaxed);
  clear_locked(s, seat);
  s->finished += atomic_load_explicit(&seat->finished, memory_order_relaxed);
  if (s->queued > 0 && s->waking == 0 && !rs_list_empty(&s->idle))
    hand_locked(s, choose_seat_locked(s), rs_sched_claim_of_locked(s, NULL));
}

/* ----------------------------------------------------------------- waiting */

bool
rs_seat_spin (rs_seat *seat)
{
  rs_spin(is_called, seat);
  return atomic_load_explicit(&seat->called, memory_order_acquire)
         == RS_SEAT_HANDED;
}

/* Findings of the watch while it sleeps. */
typedef struct watch {
  uint64_t finished;
  int quiet;             /* looks that found nothing going on */
} watch;

/* True when something was queued, or is in a full hand, that no worker
   takes. */
static bool
look_locked (rs_sched *s, watch *w)
{
  const uint64_t finished = rs_sched_count_locked(s).finished;
  const uint64_t moved = finished - w->finished;
  w->finished = finished;
  w->quiet = moved > 0 ? 0 : w->quiet + 1;
  /* A hand that is filled again and again tells no pace; the jobs in it may
     have become long. */
  return s->queued > 0 ? moved == 0 || is_much_locked(s)
                       : s->full_hands > 0 && (double) moved < NAP / SHORT;
}

/* Sleep until the seat is called, or 'deadline', or it is the watch and has
   found something. */
static void
sleep_locked (rs_sched *s, rs_seat *seat, double deadline)
{
  watch w = { .finished = 0 };
  bool found = false, over = false;
  if (s->watch == NULL && s->pace > 0 && s->pace < SHORT)
    s->watch = seat;
  if (s->watch == seat)  /* only the watch counts: workers may be many */
    w.finished = rs_sched_count_locked(s).finished;
  seat->asleep = true;
  rs_spin_leave();
  while (!is_called(seat) && !found && !over) {
    const bool naps = s->watch == seat;
    const double nap = rs_now() + NAP;
    const bool first = naps && nap < deadline;
    over = rs_cond_wait_until(&seat->wake, &s->lock, first ? nap : deadline)
           != RS_OK;
    if (over && first) {
      over = false;
      found = look_locked(s, &w);
      if (!found && w.quiet >= QUIET)
        s->watch = NULL;
    }
  }
  rs_spin_enter();
  seat->asleep = false;
}

bool
rs_sched_sleep_locked (rs_sched *s, rs_seat *seat, double deadline)
{
  if (!is_called(seat))
    sleep_locked(s, seat, deadline);
  const bool sits = !rs_list_empty(&seat->link);
  if (sits) {  /* was nothing handed to it? */
    stand_up_locked(s, seat);
    fill_locked(s, seat);
    seat->since = rs_now();
  }
  if (seat->woken || (sits && s->queued > 0)) {
    s->waking += !seat->woken;
    pass_on_locked(s);
  }
  seat->woken = false;
  return has_more(seat);
}

/* -------------------------------------------------------------- any thread */

bool
rs_sched_claim_locked (rs_sched *s, rs_job *job)
{
  if (!rs_list_empty(&job->link)) {  /* in a lane? */
    unqueue_locked(s, job);
    return true;
  }
  /* A worker that has a queued job in its hand is still there: to end the job,
     and to leave, it would have had to take the lock. */
  rs_hold *const hold = job->hold;
  return hold != NULL
      && rs_job_state_now(job) == RS_JOB_QUEUED
      && hold->job == job && steal_locked(hold);
}

rs_job *
rs_sched_claim_of_locked (rs_sched *s, const rs_batch *batch)
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
  return batch == NULL ? steal_any_locked(s) : NULL;
}

void
rs_sched_close_locked (rs_sched *s)
{
  s->closed = true;
  end_linger_locked(s);
  for (rs_list *link = s->idle.next; link != &s->idle; link = link->next)
    call_locked(RS_LIST_ENTRY(link, rs_seat, link), RS_SEAT_LOOK);
}
