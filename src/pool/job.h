/* SPDX-License-Identifier: MIT */
/*
 * job.h - a job: one call, its state, its result.
 *
 *     queued --> running --> completed | failed | timed_out | lost | ...
 *        \          \-> stopping -> cancelled | timed_out | lost
 *         \-> cancelled | timed_out | failed
 *
 * References to a job are held by the handle that 'rs_submit' returned, and by
 * the queue or the worker that the job is with.  A final state is set once, by
 * 'end' in job.c, and nothing changes afterwards, with one exception: a
 * completed job whose results a host cannot rebuild becomes a failed one when
 * the host finds that.  The call of a lost job belongs for ever to the thread
 * that runs it, and no other thread may look at it.
 *
 * The thread that takes a job out of its queue runs it or ends it: 'claim'
 * decides between a worker, a waiting parent and 'cancel'.
 */
#ifndef RS_JOB_H
#define RS_JOB_H

#include <pthread.h>
#include <stddef.h>

#include "base/cache.h"
#include "state/call.h"
#include "state/cancel.h"
#include "pool/event.h"
#include "base/fork.h"
#include "base/list.h"
#include "pool/runner.h"
#include "runspace.h"
#include "state/state.h"
#include "state/stream.h"
#include "base/timer.h"

typedef struct rs_queue rs_queue;

/* A lock that several jobs of a queue share: few threads look at a job while
   it runs, and a lock and a condition for each job would be a quarter of its
   memory. */
typedef struct rs_job_lock {
  _Alignas(RS_LINE) pthread_mutex_t mutex;
  pthread_cond_t changed;  /* a job of this lock has ended, is to stop, is
                              waited for, or its 'waiting' got less */
} rs_job_lock;

enum { RS_JOB_LOCKS = 16 };

void rs_job_locks_init (rs_job_lock locks[RS_JOB_LOCKS]);
void rs_job_locks_fini (rs_job_lock locks[RS_JOB_LOCKS]);

/*
 * The queue in which jobs wait for their turn, as jobs and batches see it; a
 * pool stands behind it.  Any thread may call its functions.
 */
struct rs_queue {
  rs_pool *pool;
  bool fresh;  /* each job gets a new state, so a chunk has one item */
  unsigned forbidden;  /* RS_MESSAGE_ flags of messages that cannot cross to
                          its runners */
  unsigned born;  /* the generation of the pool: fork.h */
  rs_job_lock locks[RS_JOB_LOCKS];  /* a job uses one of them, by its
                                       address */

  /* Queue 'job', and take over its reference on RS_OK.  Otherwise RS_ECLOSED,
     RS_ETHREAD or RS_ENOMEM, and the caller keeps the reference. */
  int (*push) (rs_queue *q, rs_job *job, rs_error *err);

  /* Take 'job' out; false when it is not, or no longer, in the queue.  The
     caller gets the reference of the queue, and must run or end the job. */
  bool (*claim) (rs_queue *q, rs_job *job);

  /* Take the oldest queued job of 'batch' out, as 'claim' does; with NULL the
     first job of all.  NULL when there is none. */
  rs_job *(*claim_of) (rs_queue *q, const rs_batch *batch);

  /* Count 'n' jobs or items that have ended in 'state'; (size_t) -1 takes one
     back. */
  void (*ended) (rs_queue *q, rs_job_state state, size_t n);

  /* The number of workers at most. */
  unsigned (*width) (rs_queue *q);

  /* Count the calling worker as blocked: it waits for a job that it cannot run
     itself, so the pool may have one more worker until 'unblock'.  RS_OK;
     otherwise 'err' says why no worker will run what is queued, and the caller
     is not counted. */
  int (*block) (rs_queue *q, rs_error *err);
  void (*unblock) (rs_queue *q);

  /* True when all workers are lost, and what is queued waits for one that
     comes back: 'err' says so.  The function is NULL where no worker can be
     lost. */
  bool (*is_deserted) (rs_queue *q, rs_error *err);

  /* Add, or drop, 'n' holds, each of which keeps the memory of the queue. */
  void (*hold) (rs_queue *q, unsigned n);
  void (*drop) (rs_queue *q, unsigned n);
};

enum { RS_JOB_NAME = 28 };  /* bytes of "batch-" and a number */

/* Parts that most jobs do not have: records and events that the job sends, a
   deadline, a name or a pointer from its options, a failure.  Made when the
   first of them is needed. */
typedef struct rs_job_more {
  rs_job *job;             /* the job that has these parts */
  char *name;              /* owned, or NULL; guarded by the job's lock */
  void *user;              /* pointer from the options of the job */
  char *failure;           /* owned: why the job ended without a result; or
                              NULL; set before the end */
  rs_message *refusal;     /* owned, or NULL: why a host could not rebuild the
                              results or the error value, and a traceback; set
                              once, with 'refused', under the job's lock */
  rs_timer timer;          /* the deadline of the job */
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
} rs_job_hooks;

/*
 * Fields stand in the order of use (cache.h).  A host looks at the first line
 * while it waits, and no worker writes to that line while the job runs.  A
 * host takes a small result from the next two.  A long queue of jobs needs
 * memory for each of them, which comes from the system page by page: so a job
 * is five lines long, and has no lock of its own.
 */
struct rs_job {
  _Alignas(RS_LINE)
  _Atomic unsigned refs;   /* references, and RS_JOB_SETTLED */
  int8_t priority;         /* constant */
  _Atomic bool seen;       /* a thread has looked at the end of the job */
  bool rich : 1;           /* 'more' is set; kept here, since the thread that
                              frees the job need not look at the line of 'more'
                              then; guarded by the job's lock */
  bool forgotten : 1;      /* the handle was given up before a good end;
                              guarded by the job's lock */
  bool refused : 1;        /* a host could not rebuild what the job left;
                              guarded by the job's lock */
  bool blocked;            /* the job waits for another one, and its worker is
                              counted as blocked; only for the thread that runs
                              the job */
  rs_list link;            /* in a lane of the scheduler; guarded by the
                              scheduler's lock */
  rs_queue *queue;         /* held; constant, as the next three */
  rs_events *events;       /* a reference, or NULL */
  rs_batch *batch;         /* the batch whose chunk the job is, or NULL */
  rs_job_block *block;     /* the block of memory that the job is in; stays
                              when the job is freed, so it is the last field
                              before 'state' (job_clear) */

  _Alignas(RS_LINE)
  _Atomic int state;       /* rs_job_state, RS_JOB_WATCHED and the reason; read
                              by rs_job_state_now and rs_job_reason_now */
  _Atomic unsigned listen; /* RS_LISTEN_: what queues the notice */
  double finished;         /* instant; set before the final state */
  _Atomic double started;  /* instant; says nothing while the job is queued, as
                              the next three */
  rs_cancel *_Atomic runner;  /* of the thread that runs the job; valid while
                                 'state' says that the job runs, for a thread
                                 that holds the job's lock */
  _Atomic unsigned worker, attempts;
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

/*
 * In 'state': a thread has taken the job's lock.  While this bit is not set
 * the worker alone changes the state, by an atomic operation that fails once
 * the bit is set: from queued to running, and from running to the end.  So a
 * job that no thread looks at meanwhile, as most are, needs no lock, and the
 * cache line of the lock stays with the host.
 */
#define RS_JOB_WATCHED (1 << 8)

/* Also in 'state', with a final one: why the job was stopped, from this bit
   on. */
#define RS_JOB_REASON 16

static inline rs_job_state
rs_job_state_now (const rs_job *job)
{
  /* Acquire: with a final state come the result and all else that the job
     left. */
  return (rs_job_state) (atomic_load_explicit(&job->state,
                                              memory_order_acquire)
                         & (RS_JOB_WATCHED - 1));
}

static inline rs_reason
rs_job_reason_now (const rs_job *job)
{
  return (rs_reason) (atomic_load_explicit(&job->state, memory_order_acquire)
                      >> RS_JOB_REASON);
}

/* Parameters of a job that runs a chunk. */
typedef struct rs_job_part {
  rs_batch *batch;         /* a reference, which the job takes over */
  size_t size;             /* bytes for the chunk, behind the job */
  uint64_t id;             /* id of the batch */
  unsigned flags;          /* RS_BATCH_, RS_JOB_DEAF */
  double created;          /* instant; 0: now */
} rs_job_part;

/* A flag beside those of a batch: the batch has made its events itself, and
   nobody takes what its jobs emit. */
enum { RS_JOB_DEAF = 0x80 };

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

/* Fetch the memory of the job at once, not line by line: another CPU has
   filled the job, and this one will look at it. */
static inline void
rs_job_prefetch (const rs_job *job)
{
  rs_prefetch_all(job, sizeof *job);
}

/* Give the job a deadline, an instant.  False when out of memory, or when
   there is no thread that could see to the deadline. */
bool rs_job_set_deadline (rs_job *job, double deadline);

/* Return a number for a job or a batch, unique in the process. */
uint64_t rs_job_next_id (void);

/* Write 'prefix' and 'id' into 'text', which has RS_JOB_NAME bytes. */
void rs_job_make_name (char *text, const char *prefix, uint64_t id);

/*
 * Run a job that was taken out of its queue.  Returns the state that the job
 * is to end in; RS_JOB_QUEUED when another runner is to run it again.
 */
rs_job_state rs_job_execute (rs_job *job, rs_runner *runner);

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

/* Why a job that has ended ended so, and why it has no result, as in
   'rs_job_info'. */
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

/* ------------------------------------ between job.c and job_memory.c only */

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
