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
 * 'rs_job_end', and nothing changes afterwards; but the call of a lost job is
 * its runner's for ever, and nobody else may look at it.
 *
 * The thread that takes a job out of its queue is the one that runs it or
 * ends it: 'claim' decides between a worker, a waiting parent and 'cancel'.
 */
#ifndef RS_JOB_H
#define RS_JOB_H

#include <pthread.h>

#include "call.h"
#include "cancel.h"
#include "event.h"
#include "list.h"
#include "runspace.h"
#include "state.h"
#include "stream.h"
#include "timer.h"

typedef struct rs_queue rs_queue;

/*
 * Where jobs wait for their turn, as jobs and batches see it; a pool stands
 * behind it.  All of them may be called by any thread.
 */
struct rs_queue {
  rs_pool *pool;
  bool fresh;  /* each job gets a new state, so a chunk is one item */

  /* Queue 'job', a reference for the queue.  RS_OK, RS_ECLOSED, RS_ETHREAD. */
  int (*push) (rs_queue *q, rs_job *job, rs_error *err);

  /* Take 'job' out; false when it is not there (any more).  The reference
     is the caller's then, and it must run or end the job. */
  bool (*claim) (rs_queue *q, rs_job *job);

  /* Take out the oldest job of 'batch', or NULL; as 'claim'. */
  rs_job *(*claim_of) (rs_queue *q, const rs_batch *batch);

  /* 'n' jobs or items have ended like this. */
  void (*ended) (rs_queue *q, rs_job_state state, size_t n);

  /* Workers at most. */
  unsigned (*width) (rs_queue *q);

  /* A worker waits for a job that it cannot run itself: there may be one more
     of them, until it does not wait any more. */
  void (*block) (rs_queue *q);
  void (*unblock) (rs_queue *q);

  /* The memory of the queue stays while somebody holds it. */
  void (*hold) (rs_queue *q);
  void (*drop) (rs_queue *q);
};

enum { RS_JOB_NAME = 32 };  /* bytes of "batch-" and a number */

struct rs_job {
  _Atomic unsigned refs;
  rs_call call;            /* constant while queued; then its runner's */
  rs_queue *queue;         /* held */
  rs_batch *batch;         /* whose chunk it is, or NULL; for the next two */
  void (*on_end) (rs_job *job);   /* it has ended; called once; or NULL */
  void (*on_free) (rs_job *job);  /* it will be freed; or NULL */
  const char *name;        /* one of these two: */
  char *given;             /*   owned, or NULL */
  char text[RS_JOB_NAME];
  char *failure;           /* owned: why it failed without a result; or NULL;
                              set before the end */
  rs_events *events;       /* a reference, or NULL; constant */
  rs_notice notice;        /* there; a reference while it is queued */
  rs_timer timer;          /* its deadline */
  bool blocked;            /* its worker waits for another job, and is counted
                              as that; the runner's own */
  size_t items;            /* of a chunk, that end with it; the batch's */
  size_t bytes;            /* of its messages; constant, as the next one */
  int priority;
  _Atomic bool seen;       /* somebody looked at its end */

  rs_list link;            /* in the queue; guarded by the queue's lock */
  rs_list batch_link;      /* in the batch; guarded by the batch's lock */

  pthread_mutex_t lock;    /* guards down to the blank line */
  rs_job_state state;
  rs_reason reason;        /* why it was stopped; set with the final state */
  rs_cancel *runner;       /* a reference while it runs, or NULL */
  unsigned worker, attempts;
  double created, started, finished;
  unsigned listen;         /* what queues the notice */
  bool forgotten;          /* nobody will look any more */
  rs_stream_log log;
  rs_list emitted;         /* events that nobody took, oldest first */
  unsigned waiting;        /* of these */
  uint64_t delivered;      /* sequence; the host's thread only */
  unsigned waiters;        /* at: */
  pthread_cond_t changed;  /* it has ended, or shall stop, or 'waiting' got
                              less */
};

/*
 * New job for a call of 'function' with 'arguments'; takes a reference to
 * each of them.  Without a name it has 'prefix' and its id.  NULL when out of
 * memory.
 */
rs_job *rs_job_new (rs_queue *queue, rs_message *function,
                    rs_message *arguments, const rs_job_options *options,
                    const char *prefix);

/* The job was filled by another CPU, and all of it will be looked at: let its
   memory come at once, not line by line. */
static inline void
rs_job_prefetch (const rs_job *job)
{
  for (size_t at = 0; at < sizeof *job; at += 64)
    __builtin_prefetch((const char *) job + at);
}

/* A number for a job or a batch, unique in the process. */
uint64_t rs_job_next_id (void);

/* 'prefix' and 'id', somewhere in 'text', which has RS_JOB_NAME bytes. */
const char *rs_job_make_name (char *text, const char *prefix, uint64_t id);

/*
 * Run a job that was taken out of its queue, on 's' and its coroutine 'L'
 * (NULL: the main one).  Returns the state that it is to end in;
 * RS_JOB_QUEUED when it is to be run again, in another state.
 */
rs_job_state rs_job_execute (rs_job *job, rs_state *s, lua_State *L);

/* End it.  Harmless when it has ended. */
void rs_job_end (rs_job *job, rs_job_state state);

/* End what was taken out of its queue and not run. */
void rs_job_end_queued (rs_job *job, rs_reason reason);

/* Execute and end it; the caller's reference is given back. */
void rs_job_run (rs_job *job, rs_state *s, lua_State *L);

/* End it as failed, since its code could not be run at all.  The caller has
   taken it out of its queue. */
void rs_job_fail (rs_job *job, const char *reason);

/* Stop it, for 'reason'; 'rs_job_cancel' tells the rest.  Any thread. */
int rs_job_stop (rs_job *job, rs_reason reason, double grace);

/* Those of 'events' that are chunks of 'batch' shall look at its flag; or
   stop, when there is a reason. */
void rs_job_stop_chunks (rs_events *events, const rs_batch *batch,
                         rs_reason reason, double grace);

/* For the owner of an rs_cancel: its calls are those of jobs. */
void rs_job_hold_call (void *call);
void rs_job_lose_call (void *call);

/* Why a job that has ended did so, as 'rs_job_info' has it. */
const char *rs_job_reason (const rs_job *job);

/* The runspace 'L' belongs to if its pool is the one of 'queue', or NULL. */
rs_state *rs_job_helper (const rs_queue *queue, lua_State *L);

/* It can run one more job inside those that wait there; or else it is counted
   as one that waits (rs_job_unblock). */
bool rs_job_can_help (const rs_queue *queue, rs_state *s);

#endif
