/* SPDX-License-Identifier: MIT */
/*
 * job.h - a job: one call, its state, its result.
 *
 *     queued --> running --> completed | failed | timed_out | lost | ...
 *        \          \-> stopping -> cancelled | timed_out | lost
 *         \-> cancelled | timed_out | failed
 *
 * Who holds a reference: the handle that 'rs_submit' returned, and the queue
 * or the worker that the job is with.  A final state is set once, by
 * 'rs_job_end', and nothing changes afterwards, but that a completed job whose
 * results a host cannot rebuild becomes a failed one when that is found; and
 * the call of a lost job is its runner's for ever, and nobody else may look at
 * it.
 *
 * The thread that takes a job out of its queue is the one that runs it or
 * ends it: 'claim' decides between a worker, a waiting parent and 'cancel'.
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

/* The lock of some jobs of a queue: few threads look at a job while it runs,
   and a lock and a condition for each would be a quarter of its memory. */
typedef struct rs_job_lock {
  _Alignas(RS_LINE) pthread_mutex_t mutex;
  pthread_cond_t changed;  /* one of them has ended, or shall stop, or
                              'waiting' got less */
} rs_job_lock;

enum { RS_JOB_LOCKS = 16 };

void rs_job_locks_init (rs_job_lock locks[RS_JOB_LOCKS]);
void rs_job_locks_fini (rs_job_lock locks[RS_JOB_LOCKS]);

/*
 * Where jobs wait for their turn, as jobs and batches see it; a pool stands
 * behind it.  All functions may be called by any thread.
 */
struct rs_queue {
  rs_pool *pool;
  bool fresh;  /* each job gets a new state, so a chunk is one item */
  unsigned forbidden;  /* RS_MESSAGE_ that cannot cross to its runners */
  unsigned born;  /* the generation of the pool: fork.h */
  rs_job_lock locks[RS_JOB_LOCKS];  /* of its jobs, by their address */

  /* Queue 'job'; if RS_OK, its reference is taken over.  RS_ECLOSED,
     RS_ETHREAD. */
  int (*push) (rs_queue *q, rs_job *job, rs_error *err);

  /* Take 'job' out; false when it is not there (any more).  The reference
     is the caller's then, and it must run or end the job. */
  bool (*claim) (rs_queue *q, rs_job *job);

  /* Take out the oldest job of 'batch', or NULL; as 'claim'. */
  rs_job *(*claim_of) (rs_queue *q, const rs_batch *batch);

  /* 'n' jobs or items have ended like this; (size_t) -1: one has not after
     all. */
  void (*ended) (rs_queue *q, rs_job_state state, size_t n);

  /* Workers at most. */
  unsigned (*width) (rs_queue *q);

  /* A worker waits for a job that it cannot run itself: there may be one more
     of them, until it does not wait any more.  RS_OK; or why nobody will run
     what is queued, and it is not counted as one that waits then. */
  int (*block) (rs_queue *q, rs_error *err);
  void (*unblock) (rs_queue *q);

  /* All workers are lost, and what is queued waits for one that comes back:
     'err' says so.  NULL: there are none. */
  bool (*is_deserted) (rs_queue *q, rs_error *err);

  /* The memory of the queue stays while somebody holds it, so many times. */
  void (*hold) (rs_queue *q, unsigned n);
  void (*drop) (rs_queue *q, unsigned n);
};

enum { RS_JOB_NAME = 28 };  /* bytes of "batch-" and a number */

/* What most jobs have not: something that they send, a deadline, a name that
   somebody asked for; made for the first of it. */
typedef struct rs_job_more {
  rs_job *job;             /* whose they are */
  char *name;              /* owned, or NULL; guarded by the job's lock */
  void *user;              /* of its options */
  char *failure;           /* owned: why it ended without a result; or NULL;
                              set before the end */
  rs_message *refusal;     /* owned: why its results, or its error value, could
                              not be rebuilt, and a traceback; or NULL.  With
                              'refused', set once, under the job's lock */
  rs_timer timer;          /* its deadline */
  rs_stream_log log;       /* guarded by the job's lock, as the next two */
  rs_list emitted;         /* events that nobody took, oldest first */
  unsigned waiting;        /* of these */
  uint64_t delivered;      /* sequence; the host's thread only */
} rs_job_more;

/* What a job is a part of: a batch begins with it. */
typedef struct rs_job_hooks {
  void (*on_end) (rs_job *job);   /* it has ended; called once */
  void (*on_free) (rs_job *job);  /* it will be freed */
} rs_job_hooks;

/*
 * The order is that of use (cache.h): the first line is the one that a host
 * looks at while it waits, and no worker writes to it while the job runs; what
 * a host takes with a small result is in the next two.  A queue of jobs is as
 * long as they are, and comes from the system page by page: so they are five
 * lines, and have no lock of their own.
 */
struct rs_job {
  _Alignas(RS_LINE)
  _Atomic unsigned refs;   /* and RS_JOB_SETTLED */
  int8_t priority;         /* constant */
  _Atomic bool seen;       /* somebody looked at its end */
  bool rich : 1;           /* it has 'more', which is in a line that who frees
                              it need not look at; guarded by its lock */
  bool forgotten : 1;      /* nobody will look any more; the same */
  bool refused : 1;        /* a host could not rebuild what it left */
  bool blocked;            /* its worker waits for another job, and is counted
                              as that; the runner's own */
  rs_list link;            /* in a lane; guarded by the scheduler's lock */
  struct rs_hold *hold;    /* where it is in a worker's hand while it is
                              queued, or NULL; the same */
  rs_queue *queue;         /* held; constant, as the next three */
  rs_events *events;       /* a reference, or NULL */
  rs_batch *batch;         /* whose chunk it is, or NULL */
  rs_job_block *block;     /* that it is in; stays when the job is freed, so it
                              is the last one before 'state' (job_clear) */

  _Alignas(RS_LINE)
  _Atomic int state;       /* read by rs_job_state_now, rs_job_reason_now */
  _Atomic unsigned listen; /* what queues the notice */
  double finished;         /* instant; set before the final state */
  _Atomic double started;  /* instant; with the next three they tell nothing
                              while it is queued */
  rs_cancel *_Atomic runner;  /* while it runs, and that tells the state: a
                              thread that holds the lock finds it there */
  _Atomic unsigned worker, attempts;
  rs_call call;            /* constant while queued; then its runner's */

  rs_job_more *_Atomic more;  /* owned, or NULL; set once, under the lock */
  double created;          /* instant; constant */
  rs_notice notice;        /* at 'events'; a reference while it is queued */
  unsigned waiters;        /* for a change; guarded by the lock */
  unsigned slot;           /* rs_job_slot */
};

_Static_assert(sizeof(void *) != 8 || sizeof(rs_job) == 5 * RS_LINE,
               "a job is five lines");

/* In 'refs': it has ended, and all there is to be told was told. */
#define RS_JOB_SETTLED (1u << 31)

/*
 * In 'state': somebody has taken the lock.  Until then the worker alone
 * changes the state, by an atomic operation that finds this not set: from
 * queued to running, and to its end.  So a job that nobody looks at meanwhile,
 * as most are, takes no lock, and the line that has it stays with its host.
 */
#define RS_JOB_WATCHED (1 << 8)

/* Also in 'state', with a final one: why it was stopped, from this bit on. */
#define RS_JOB_REASON 16

static inline rs_job_state
rs_job_state_now (const rs_job *job)
{
  /* With a final state come the result, and all else that is left. */
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

/* What a job is that has a chunk. */
typedef struct rs_job_part {
  rs_batch *batch;         /* a reference, which the job takes over */
  size_t size;             /* bytes that it has for its chunk */
  uint64_t id;             /* of the batch */
  unsigned flags;          /* RS_BATCH_, RS_JOB_DEAF */
  double created;          /* instant; 0: now */
} rs_job_part;

/* Beside the flags of a batch: its events are its own, and nobody takes what
   its jobs emit. */
enum { RS_JOB_DEAF = 0x80 };

/*
 * New job for a call of 'function'; 'options' may be NULL.  Its arguments, and
 * its deadline, are set by the caller before it is queued.  'part' is for one
 * that has a chunk; NULL: a plain call.  There are two references: the
 * caller's, and one for the queue.  NULL when out of memory; nothing was taken
 * over then.
 */
rs_job *rs_job_new (rs_queue *queue, rs_message *function,
                    const rs_job_options *options, const rs_job_part *part);

/* It belongs to another process: nothing of it may be locked, or freed. */
static inline bool
rs_job_foreign (const rs_job *job)
{
  return rs_fork_is_foreign(job->queue->born);
}

/* Bytes of its messages, while it is queued. */
size_t rs_job_bytes (const rs_job *job);

/* The job was filled by another CPU, and this will be looked at: let its
   memory come at once, not line by line. */
static inline void
rs_job_prefetch (const rs_job *job)
{
  rs_prefetch_all(job, sizeof *job);
}

/* It has a deadline.  False when nobody could see to it. */
bool rs_job_set_deadline (rs_job *job, double deadline);

/* A number for a job or a batch, unique in the process. */
uint64_t rs_job_next_id (void);

/* 'prefix' and 'id' into 'text', which has RS_JOB_NAME bytes. */
void rs_job_make_name (char *text, const char *prefix, uint64_t id);

/*
 * Run a job that was taken out of its queue.  Returns the state that it is to
 * end in; RS_JOB_QUEUED when it is to be run again, by another runner.
 */
rs_job_state rs_job_execute (rs_job *job, rs_runner *runner);

/* End it.  Harmless when it has ended. */
void rs_job_end (rs_job *job, rs_job_state state);

/*
 * A worker is about to run it, and ends it afterwards, with its reference: so
 * who sees the end has the job for itself, and frees it where it was made.
 * The worker keeps the events, in 'served', a reference.
 */
void rs_job_serve (rs_job *job, rs_events **served);
void rs_job_end_served (rs_job *job, rs_job_state state);

/* End what was taken out of its queue and not run.  If it had waited for
   workers that are lost, its failure says so. */
void rs_job_end_queued (rs_job *job, rs_reason reason);

/* Execute and end it, in a state that waits in its coroutine 'L' (NULL: the
   main one); the caller's reference is given back. */
void rs_job_run (rs_job *job, rs_state *s, lua_State *L);

/* End it as failed, since its code could not be run at all.  The caller has
   taken it out of its queue. */
void rs_job_fail (rs_job *job, const char *reason);

/* Stop it, for 'reason'; 'rs_job_cancel' tells the rest.  Any thread. */
int rs_job_stop (rs_job *job, rs_reason reason, double grace);

/* Who waits in it, or for it, looks again. */
void rs_job_stir (rs_job *job);

/* For the owner of an rs_cancel: its calls are those of jobs. */
void rs_job_hold_call (void *call);
void rs_job_lose_call (void *call);

/* Why a job that has ended did so, and why it has no result, as 'rs_job_info'
   has them. */
const char *rs_job_reason (const rs_job *job);
const char *rs_job_failure (const rs_job *job);

/* The runspace 'L' belongs to if its pool is the one of 'queue', or NULL. */
rs_state *rs_job_helper (const rs_queue *queue, lua_State *L);

/*
 * It can run one more job inside those that wait there; or else it is counted
 * as one that waits (rs_job_unblock).  What it waits for, 'job', or a chunk of
 * 'batch', or neither, fails when there is nobody else to run it.
 */
bool rs_job_can_help (rs_queue *queue, rs_state *s, rs_job *job,
                      const rs_batch *batch);

/* Calls that wait for one another: there may be no more. */
enum { RS_NESTED_MAX = 320 };

/* How many there would be if what runs on 'L' waited for one more; 0: nothing
   runs there. */
unsigned rs_job_nesting (lua_State *L);

/* What runs on 'L' waits for the job. */
void rs_job_nest (rs_job *job, lua_State *L);

/* Those of 'L' are not too many for one more.  RS_OK or RS_EINVAL. */
int rs_job_check_nesting (lua_State *L, rs_error *err);

/* ------------------------------------ between job.c and job_memory.c only */

/*
 * A job that is zero but for its block, 'queue', 'events' and the function, to
 * which it has references; 'events' may be NULL.  With 'chunk' it has so many
 * bytes more, for its chunk.  Nobody sees it before it has a reference itself.
 * NULL when out of memory.
 */
rs_job *rs_job_alloc (rs_queue *queue, rs_events *events,
                      rs_message *function, size_t chunk);

/* Free a job to which there is no reference, and drop all these. */
void rs_job_dealloc (rs_job *job);

/* Call 'f', which may not lock anything, for each job that reports there, and
   for memory that is no job now: its 'refs' are 0. */
void rs_jobs_visit (rs_events *events, void (*f) (rs_job *job, void *ud),
                    void *ud);

#endif
