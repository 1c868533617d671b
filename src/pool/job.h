/* SPDX-License-Identifier: MIT */
/*
 * job.h - a job: one call, its state, its result.
 *
 *   (delayed -->)
 *     queued --> running --> completed | failed | timed_out | lost | ...
 *        \          \-> stopping -> cancelled | timed_out | lost
 *         \-> cancelled | timed_out | failed
 *
 * References to a job are held by the handle that 'rs_submit' returned, and by
 * the queue or the worker that the job is with.  A final state is set once, by
 * 'set_end' in job_run.c, and nothing changes afterwards, with one exception:
 * a completed job whose results a host cannot rebuild becomes a failed one
 * when the host finds that.  The call of a lost job belongs for ever to the
 * thread that runs it, and no other thread may look at it.
 *
 * The thread that takes a job out of its queue runs it or ends it: 'claim'
 * decides between a worker, a waiting parent and 'cancel'.
 *
 *     job.c         references, the lock, what is known of a job
 *     job_memory.c  the memory of jobs
 *     job_run.c     begin, run, stop, end
 *     job_tell.c    records, events, and what the host hears
 *     job_result.c  results and errors, pushed to a host
 *     job_wait.c    threads and jobs that wait for a job
 *     delay.c       jobs that may not begin yet
 */
#ifndef RS_JOB_H
#define RS_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/cache.h"
#include "state/call.h"
#include "state/cancel.h"
#include "pool/event.h"
#include "base/fork.h"
#include "base/list.h"
#include "pool/queue.h"
#include "pool/runner.h"
#include "runspace.h"
#include "state/state.h"
#include "state/stream.h"
#include "base/timer.h"

typedef struct rs_job_block rs_job_block;  /* job_memory.c */

enum { RS_JOB_NAME = 28 };  /* bytes of "batch-" and a number */

/* How long a job, or an item, waits after a failure; the fields of
   rs_job_options. */
typedef struct rs_pause {
  double delay;            /* 'retry_delay' */
  double backoff;
  double most;             /* 'max_delay' */
} rs_pause;

/* Parts that most jobs do not have: records and events that the job sends, a
   deadline, a name or a pointer from its options, a failure.  Made when the
   first of them is needed. */
typedef struct rs_job_more {
  rs_job *job;             /* the job that has these parts */
  char *name;              /* owned, or NULL; guarded by the job's lock */
  void *user;              /* pointer from the options of the job */
  const char *host;        /* of the last attempt, or NULL: here; lives as long
                              as the queue; guarded by the job's lock */
  char *failure;           /* owned: why the job ended without a result; or
                              NULL; set before the end */
  rs_message *refusal;     /* owned, or NULL: why a host could not rebuild the
                              results or the error value, and a traceback; set
                              once, with 'refused', under the job's lock */
  rs_timer timer;          /* the deadline of the job */
  rs_timer later;          /* the instant at which a delayed job may begin;
                              made when it is needed (delay.c) */
  rs_pause pause;          /* constant */
  rs_stream_log log;       /* guarded by the job's lock, as the next two */
  rs_list emitted;         /* events that the host has not taken, oldest
                              first */
  unsigned waiting;        /* number of events in 'emitted' */
  uint64_t delivered;      /* sequence number of the last record that the host
                              took; the host's thread only */
} rs_job_more;

/* The functions by which a job tells its batch; an rs_batch begins with
   them. */
typedef struct rs_job_hooks {
  void (*on_end) (rs_job *job);   /* the job has ended; called once */
  void (*on_free) (rs_job *job);  /* the job will be freed */

  /* For jobs with RS_CALL_PACED only. */
  void (*on_begin) (rs_job *job);    /* an attempt begins */
  void (*on_put_off) (rs_job *job);  /* the job waits for its next attempt */
  void (*on_due) (rs_job *job);      /* the time of a delayed job has come, or
                                        had when that ended */
  rs_pause pause;                    /* constant */
} rs_job_hooks;

/*
 * Fields stand in the order of use (cache.h).  A host looks at the first line
 * while it waits; a worker writes to that line only at the end, for a notice,
 * or when the job blocks.  A host takes a small result from the next two.  A
 * long queue of jobs needs memory for each of them, which comes from the
 * system page by page: so a job is five lines long, and has no lock of its
 * own.
 */
struct rs_job {
  _Alignas(RS_LINE)
  _Atomic unsigned refs;   /* references, and RS_JOB_SETTLED */
  int8_t priority;         /* constant */
  _Atomic bool seen;       /* a thread has looked at the end of the job */
  bool forgotten : 1;      /* the handle was given up before a good end;
                              guarded by the job's lock */
  bool refused : 1;        /* a host could not rebuild what the job left;
                              guarded by the job's lock */
  bool returned;           /* its worker has given it back, and is to take it
                              again (standing.h); guarded by the lock of the
                              pool */
  bool blocked;            /* the job waits for another one, and its worker is
                              counted as blocked; only for the thread that runs
                              the job, as the next one */
  bool put_off;            /* the next attempt waits: delay.h */
  _Atomic bool delayed;    /* in 'delayed' of the scheduler; set under its
                              lock, read by any thread */
  rs_list link;            /* in a lane of the scheduler; guarded by the
                              scheduler's lock.  Memory that is no job now is
                              linked here, too */
  rs_queue *queue;         /* held; constant, as the next three */
  rs_events *events;       /* a reference, or NULL */
  rs_batch *batch;         /* the batch whose chunk the job is, or NULL */
  rs_job_block *block;     /* the block of memory that the job is in; stays
                              when the job is freed, so it is the last field
                              before 'state' (job_clear) */

  _Alignas(RS_LINE)
  _Atomic int state;       /* rs_job_state; set under the job's lock, read by
                              any thread with rs_job_state_now */
  _Atomic unsigned listen; /* RS_LISTEN_: what queues the notice */
  double finished;         /* instant, or 0; guarded by the job's lock, and
                              constant after the end, as the next four */
  double started;          /* instant of the first attempt, or 0 */
  rs_cancel *runner;       /* of the thread that runs the job; NULL when the
                              job has ended */
  unsigned worker;         /* number of the worker of the last attempt, or of
                              the one that it is for; 0: none */
  unsigned attempts;       /* that have begun */
  rs_call call;            /* constant while the job is queued; then only for
                              the thread that runs it */

  rs_job_more *_Atomic more;  /* owned, or NULL; set once, under the lock */
  double created;          /* instant; constant */
  rs_notice notice;        /* queued at 'events', with a reference to the job
                              while it is there */
  unsigned waiters;        /* threads that wait for a change; guarded by the
                              lock */
  unsigned slot;           /* for the host: rs_job_slot */
};

_Static_assert(sizeof(void *) != 8 || sizeof(rs_job) == 5 * RS_LINE,
               "a job is five lines");

/* In 'refs': the job has ended, and its host was told all there is to tell. */
#define RS_JOB_SETTLED (1u << 31)

static inline rs_job_state
rs_job_state_now (const rs_job *job)
{
  /* Acquire: with a final state come the result and all else that the job
     left. */
  return (rs_job_state) atomic_load_explicit(&job->state,
                                             memory_order_acquire);
}

/* Parameters of a job that runs a chunk. */
typedef struct rs_job_part {
  rs_batch *batch;         /* the caller adds a reference for the job, which
                              'on_free' drops */
  size_t size;             /* bytes for the chunk, behind the job */
  uint64_t id;             /* id of the batch */
  unsigned flags;          /* RS_BATCH_, RS_JOB_DEAF */
  double created;          /* instant; 0: now */
} rs_job_part;

/* A flag beside those of a batch: the batch has made its events itself, and
   nobody takes what its jobs emit. */
enum { RS_JOB_DEAF = 0x80 };

/* Check that what a pool loses can be run again, where 'retry_on' (RS_RETRY_)
   asks for that.  RS_OK or RS_EINVAL. */
int rs_job_check_retries (const rs_queue *queue, unsigned retry_on,
                          rs_error *err);

/*
 * New job for a call of 'function'; 'options' may be NULL.  The caller sets
 * the arguments and the deadline before it queues the job.  'part' describes
 * the chunk that the job runs; NULL: a plain call.  There are two references:
 * the caller's, and one for the queue.  NULL when out of memory; nothing was
 * taken over then.
 */
rs_job *rs_job_new (rs_queue *queue, rs_message *function,
                    const rs_job_options *options, const rs_job_part *part);

/* True when the job belongs to another process: nothing of it may be locked or
   freed here. */
static inline bool
rs_job_foreign (const rs_job *job)
{
  return rs_fork_is_foreign(job->queue->born);
}

/* The size of the job's messages in bytes.  The job must not run yet. */
size_t rs_job_bytes (const rs_job *job);

/* Give a job that is not queued yet a deadline, an instant.  False when out of
   memory, or when there is no thread that could see to the deadline. */
bool rs_job_set_deadline (rs_job *job, double deadline);

/* Return a number for a job or a batch, unique in the process. */
uint64_t rs_job_next_id (void);

/* Write 'prefix' and 'id' into 'text', which has RS_JOB_NAME bytes. */
void rs_job_make_name (char *text, const char *prefix, uint64_t id);

/*
 * Run a job that was taken out of its queue.  Returns the state that the job
 * is to end in; RS_JOB_QUEUED when another runner is to run it, again, or
 * since this one had gone before the job began.
 */
rs_job_state rs_job_execute (rs_job *job, rs_runner *runner);

/* Queue the job again: its worker gives it back between two attempts.  False
   when it has ended. */
bool rs_job_requeue (rs_job *job);

/* The text of the error of a job that did not complete, or "", for a thread
   without a state that could push it.  Lent, as long as the job. */
const char *rs_job_error_text (rs_job *job, size_t *size);

/* End the job in 'state'.  Harmless when it has ended. */
void rs_job_end (rs_job *job, rs_job_state state);

/*
 * Prepare a job that a worker is about to run, and end it afterwards.  Its end
 * takes the worker's reference: so the thread that sees the end has the job
 * for itself, and frees it where it was made.  The worker keeps a reference to
 * the job's events in 'served', since the end uses them when the job may be
 * gone already.
 */
void rs_job_serve (rs_job *job, rs_events **served);
void rs_job_end_served (rs_job *job, rs_job_state state);

/* End a job that was taken out of its queue and not run.  If the job waited
   for workers that are lost, its failure says so. */
void rs_job_end_queued (rs_job *job, rs_reason reason);

/* Execute and end the job, in a state that waits in its coroutine 'L' (NULL:
   the main one).  Gives back the caller's reference. */
void rs_job_run (rs_job *job, rs_state *s, lua_State *L);

/* End the job as failed for 'reason', since its code could not be run at all.
   The caller has taken it out of its queue. */
void rs_job_fail (rs_job *job, const char *reason);

/* Stop the job, for 'reason'; 'rs_job_cancel' describes the rest.  Any
   thread. */
int rs_job_stop (rs_job *job, rs_reason reason, double grace);

/* Wake the threads that wait in the job, or for it: they look again. */
void rs_job_stir (rs_job *job);

/* Functions for an rs_cancel_owner whose calls are those of jobs. */
void rs_job_hold_call (void *call);
void rs_job_lose_call (void *call);

/* Why a job that has ended was stopped: for the reason of its wish; else for
   one that its call has found, such as a time-out.  RS_REASON_NONE for a lost
   job, whose call nobody may look at. */
rs_reason rs_job_stop_reason (const rs_job *job);

/* The text for the reason of an end, of a job or an item, as in 'rs_job_info';
   'reason' is why it was stopped, if it was.  NULL when it has completed, or
   'state' is not final.  Static storage. */
const char *rs_job_end_reason (rs_job_state state, rs_reason reason);

/* The same for a job that has ended, and why it has no result. */
const char *rs_job_reason (const rs_job *job);
const char *rs_job_failure (const rs_job *job);

/* The runspace that 'L' belongs to, if its pool is that of 'queue'; or
   NULL. */
rs_state *rs_job_helper (const rs_queue *queue, lua_State *L);

/*
 * True when the runspace 's' can run one more job inside those that wait
 * there.  Otherwise the job that runs in 's' is counted as one that waits,
 * until 'rs_job_unblock'.  If no worker is left to run what that job waits for
 * ('job', or a chunk of 'batch', or neither), the awaited job fails.
 */
bool rs_job_can_help (rs_queue *queue, rs_state *s, rs_job *job,
                      const rs_batch *batch);

/* Calls that wait for one another, at most. */
enum { RS_NESTED_MAX = 320 };

/* How many calls would wait for one another if what runs on 'L' waited for one
   more; 0: nothing runs there. */
unsigned rs_job_nesting (lua_State *L);

/*
 * Note that what runs on 'L' has submitted the job, and whether it 'waits' for
 * the job.  A job that nobody waits for yet is as deep as the one that has
 * submitted it: that may be about to wait, and the new job may submit others
 * before.
 */
void rs_job_nest (rs_job *job, lua_State *L, bool waits);

/* Check that what runs on 'L' may wait for one more job.  RS_OK or
   RS_EINVAL. */
int rs_job_check_nesting (lua_State *L, rs_error *err);

/* ----------------------------------------- between the files of a job only */

static inline rs_shared_lock *
rs_job_lock_of (const rs_job *job)
{
  return &job->queue->locks[(uintptr_t) job / RS_LINE % RS_JOB_LOCKS];
}

/* Lock the job.  No thread holds the locks of two jobs. */
static inline void
rs_job_lock (rs_job *job)
{
  pthread_mutex_lock(&rs_job_lock_of(job)->mutex);
}

static inline void
rs_job_unlock (rs_job *job)
{
  pthread_mutex_unlock(&rs_job_lock_of(job)->mutex);
}

/* Wake the threads that wait for a change of the job. */
void rs_job_tell_locked (rs_job *job);

/* Give up the lock, and wake the threads that wait for a change of the job. */
void rs_job_unlock_and_tell (rs_job *job);

/* Wait for a change of the job.  RS_OK, which may be spurious, or come from
   another job; or RS_ETIMEOUT, at the instant 'deadline'. */
int rs_job_wait_locked (rs_job *job, double deadline);

/* A sleeper for a thread that waits at 'job' and may be stopped there. */
rs_sleeper rs_job_sleeper (rs_job *job);

static inline rs_job *
rs_job_of (rs_call *call)
{
  return RS_LIST_ENTRY(call, rs_job, call);
}

static inline rs_job *
rs_job_of_notice (rs_notice *n)
{
  return RS_LIST_ENTRY(n, rs_job, notice);
}

static inline const rs_job_hooks *
rs_job_hooks_of (const rs_job *job)
{
  return (const void *) job->batch;
}

/* The parts that most jobs do not have, or NULL; with or without the lock. */
static inline rs_job_more *
rs_job_more_of (const rs_job *job)
{
  return atomic_load_explicit(&job->more, memory_order_acquire);
}

/* True when the job waits before its next attempt. */
static inline bool
rs_job_pauses (const rs_job *job)
{
  const rs_job_more *const more = rs_job_more_of(job);
  return job->batch != NULL ? (job->call.flags & RS_CALL_PACED) != 0
                            : more != NULL && more->pause.delay > 0;
}

/* The parts that most jobs do not have, made if need be; NULL when out of
   memory. */
rs_job_more *rs_job_get_more_locked (rs_job *job);
rs_job_more *rs_job_get_more (rs_job *job);

/* Free a job to which there is no reference. */
void rs_job_free (rs_job *job);

static inline void
rs_job_set_state_locked (rs_job *job, rs_job_state state)
{
  atomic_store_explicit(&job->state, (int) state, memory_order_release);
}

/* True for the final states of which a host should hear, unless it has
   looked. */
static inline bool
rs_job_state_bad (rs_job_state state)
{
  return state == RS_JOB_FAILED || state == RS_JOB_TIMED_OUT
      || state == RS_JOB_LOST;
}

/* True when a host has looked at how the job ended. */
static inline bool
rs_job_seen (const rs_job *job)
{
  return atomic_load_explicit(&job->seen, memory_order_relaxed);
}

static inline unsigned
rs_job_listening (const rs_job *job)
{
  return atomic_load_explicit(&job->listen, memory_order_relaxed);
}

/* True when the host wants to hear of 'what', RS_LISTEN_ or the bit of a
   stream, from this job or from all that report to its events. */
bool rs_job_wants (const rs_job *job, unsigned what);

/* Queue the notice of the job at its events: there is something new. */
void rs_job_notify (rs_job *job);

/* The sink of the calls of jobs. */
extern const rs_call_sink rs_job_sink;

/*
 * New job that is zero but for its block, 'queue', 'events' and 'function', to
 * which it has references; 'events' may be NULL.  With 'chunk' there are so
 * many bytes more behind the job, for its chunk.  No other thread sees the job
 * while its own 'refs' are 0.  NULL when out of memory.
 */
rs_job *rs_job_alloc (rs_queue *queue, rs_events *events,
                      rs_message *function, size_t chunk);

/* Free a job to which there is no reference, and drop the references that it
   has. */
void rs_job_dealloc (rs_job *job);

/* Call 'f', which may not lock anything, for each job that reports to
   'events', and for memory that is no job now: its 'refs' are 0. */
void rs_jobs_visit (rs_events *events, void (*f) (rs_job *job, void *ud),
                    void *ud);

#endif
