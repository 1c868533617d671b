/* SPDX-License-Identifier: MIT */
/*
 * batch.h - a map in flight; its interface is the public one.
 *
 *     batch.c       open, fill, stop, close
 *     chunk.c       the job of some items: made, queued, ended
 *     batch_read.c  chunks that have ended, and their records
 *     gate.c        chunks that wait: for a delay, a rate, others of a key
 *     batch_stop.c  stop what is queued, waits and runs
 */
#ifndef RS_BATCH_H
#define RS_BATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

#include "base/fork.h"
#include "base/timer.h"
#include "pool/job.h"
#include "runspace.h"
#include "value/decoder.h"
#include "value/encoder.h"

/* 'rs_batch_open' for the pool behind 'queue'. */
int rs_batch_new (rs_queue *queue, lua_State *L, int nargs,
                  const rs_batch_options *options, rs_batch **out,
                  rs_error *err);

/* --------------------------------------- between the files of a batch only */

/*
 * A gate says which chunks of a batch wait, and when they may begin.
 *
 * A batch has a gate if its items wait after a failure, begin at a rate, or
 * share a limit with others of their key.  A chunk that waits is delayed in
 * the queue of the pool (delay.h), and holds no worker:
 *
 *     PAUSED --time--> KEYED --others of the key end--> READY --> GONE
 *
 * READY chunks go, in their order, while the batch has room for more chunks in
 * flight, and there is a permit of the rate.  A permit comes back 'per'
 * seconds after the item has begun: so no more items than there are permits
 * begin within that time, however long they stand in the queue before.  A
 * chunk that ends frees its place among those of its key.
 *
 * The lock of the batch guards the gate.
 */
typedef struct rs_gate rs_gate;
typedef struct rs_gate_key rs_gate_key;
typedef struct rs_batch_part rs_batch_part;

typedef enum rs_gate_stage {
  RS_GATE_PAUSED,
  RS_GATE_KEYED,
  RS_GATE_READY,
  RS_GATE_GONE,      /* through the gate: queued, or runs */
  RS_GATE_ENDED
} rs_gate_stage;

/* What a gate has of each chunk. */
typedef struct rs_gate_part {
  rs_list link;      /* in 'waiting' of its key, or in 'ready' */
  rs_gate_key *key;  /* or NULL; set before the chunk enters, a reference from
                        then on */
  rs_gate_stage stage;
  bool begun;        /* the item has begun: its permit will come back */
} rs_gate_part;

struct rs_gate {
  rs_batch *batch;      /* constant, as the next three */
  unsigned rate;        /* items within 'per' seconds; 0: any number */
  double per;
  unsigned key_limit;   /* items of a key at work; 0: any number */
  rs_gate_key *key;     /* of the items to come, a reference, or NULL; for the
                           opener only */

  rs_list ready;        /* parts; guarded by the batch's lock, as all down to
                           the blank line */
  size_t n_ready;
  size_t held;          /* chunks in flight that are not GONE */
  unsigned permits;     /* items that may begin now */
  double *back;         /* owned: a ring of 'rate' instants at which permits
                           come back */
  size_t first, n;      /* those in use */
  rs_list keys[256];    /* by hash */

  rs_timer timer;       /* the next permit comes back */
  _Atomic unsigned ends;  /* threads that want the chunks ended that wait */
};

struct rs_batch {
  rs_job_hooks hooks;       /* first field: how jobs tell the batch;
                               constant */
  _Atomic unsigned refs;    /* the opener's, and one for each chunk's job */
  rs_queue *queue;          /* held; constant from here to 'timer' */
  rs_message *function;     /* a reference */
  uint64_t id;
  char *given;              /* name: owned; or NULL, and 'text' is it */
  char text[RS_JOB_NAME];
  unsigned flags;           /* RS_BATCH_ */
  unsigned depth;           /* of the calls of its chunks: rs_call */
  size_t chunk;             /* items; 0: by cost */
  size_t total;             /* items; 0: not known */
  unsigned limit;           /* chunks in flight that the caller has allowed;
                               0: what keeps the pool busy */
  bool limited;             /* failures are counted in 'allowed' */
  rs_events *events;        /* a reference */
  bool shared;              /* 'events' are the caller's */
  rs_gate *gate;            /* owned; NULL: no chunk waits */
  rs_job_options options;   /* of the jobs of its chunks; lent by the batch */
  lua_Integer seed;         /* what 'options' lends, if it has one */
  rs_timer timer;           /* the deadline of the batch */

  /* Flags that workers look at for each item stay away from what the opener
     writes for each item: otherwise a look takes 8 ns. */
  char before[64];
  _Atomic bool stop;        /* start no more items */
  _Atomic bool failed;      /* start no more items; set by a worker */
  _Atomic size_t allowed;   /* failures until 'failed' is set, if 'limited' */
  _Atomic int reason;       /* rs_reason; set before 'stop' */
  char behind[64];

  rs_encoder items;         /* of the open chunk; for the opener only, from
                               here on */
  size_t want;              /* items that the open chunk shall have */
  size_t count;             /* items that the open chunk has */
  unsigned arity;           /* values of an item */
  bool range;               /* the open chunk is a range: */
  lua_Integer first, step;
  size_t added;             /* items of all chunks, and those left out */
  size_t chunks;            /* chunks that were submitted */
  size_t last_size;         /* items in the last chunk */
  bool finished;            /* no more items will come */
  bool encoding;            /* an item is being added, which may run code of
                               the program */

  rs_job *current;          /* the chunk being read, a reference, or NULL */
  rs_decoder reader;        /* of the result of 'current' */
  bool reading;             /* 'reader' is ready */
  const char *unreadable;   /* why the rest of 'current' cannot be read; or
                               NULL */
  bool careful;             /* read one item at a time: memory is short, or an
                               item cannot be made */
  size_t position;          /* items of 'current' that were read */
  size_t good;              /* items from 'position' on that share a record
                               that was begun */
  uint64_t after;           /* sequence number of the last stream record that
                               was read */
  bool decoding;            /* code of the program may run, in a protected
                               call, that rebuilds a value of 'current' */
  bool taking;              /* 'rs_batch_next' runs, or has raised */
  bool closing;             /* 'rs_batch_close' was called by code that ran
                               while 'encoding' or 'decoding' */

  pthread_mutex_t lock;     /* guards down to the blank line */
  rs_list flying;           /* parts of jobs that were queued and have not
                               ended; no references: a job leaves the list
                               before its end is over */
  rs_list ended;            /* parts of jobs that have ended, with references,
                               in order of their end */
  size_t n_ended;           /* parts in 'ended' */
  bool closed;              /* nobody will take from 'ended' */
  size_t in_flight;         /* chunks that were submitted and not taken, those
                               that wait at the gate, too */
  size_t window;            /* chunks in flight at most */
  double cost;              /* seconds for an item; below 0: not known */
  size_t items_ended;       /* of chunks that have ended, and were started */
  size_t items_failed;      /* of 'items_ended' */
};

_Static_assert(offsetof(struct rs_batch, hooks) == 0,
               "jobs find the hooks in front");

/* The memory behind a job that runs a chunk. */
struct rs_batch_part {
  rs_chunk chunk;           /* first field: of the call */
  rs_list link;             /* in 'flying' or 'ended' */
  size_t items;             /* items that end with the chunk */
  size_t left;              /* of 'items': left at its end, and tried by no
                               worker, */
  int why;                  /* for this status */
  rs_gate_part gate;        /* used if the batch has a gate */
};

static inline rs_batch_part *
rs_batch_part_of (const rs_job *job)
{
  return (rs_batch_part *) job->call.chunk;
}

/* The job of the part at 'link'. */
static inline rs_job *
rs_batch_job_at (rs_list *link)
{
  return (rs_job *) RS_LIST_ENTRY(link, rs_batch_part, link) - 1;
}

/* True when the batch belongs to another process: nothing of it may be locked
   or freed here. */
static inline bool
rs_batch_foreign (const rs_batch *batch)
{
  return rs_fork_is_foreign(batch->queue->born);
}

/*
 * [-0, +0, -]  True when this call comes from code that runs while a record is
 * read: from what rebuilds a value, or from a finalizer.  'taking' alone does
 * not tell, since an error leaves it set; but a finalizer runs while the
 * collector cannot be asked.
 */
static inline bool
rs_batch_is_reading (const rs_batch *batch, lua_State *L)
{
  return batch->decoding
      || (batch->taking && L != NULL && lua_gc(L, LUA_GCISRUNNING) < 0);
}

/* True when no more items are to be started. */
static inline bool
rs_batch_stopped (const rs_batch *batch)
{
  return atomic_load_explicit(&batch->stop, memory_order_relaxed)
      || atomic_load_explicit(&batch->failed, memory_order_relaxed);
}

/* Check that the batch can be used here.  RS_OK or RS_EINVAL. */
int rs_batch_check (const rs_batch *batch, rs_error *err);

/* Start no more items; with a reason, stop the chunks that run, too, within
   'grace' seconds.  Any thread. */
void rs_batch_stop_for (rs_batch *batch, rs_reason reason, double grace);

/* End the chunks that are queued, or wait, for 'reason'; RS_REASON_NONE: as
   cancelled.  Any thread. */
void rs_batch_end_queued (rs_batch *batch, rs_reason reason);

/* Let go of the chunk that was read.  The opener. */
void rs_batch_leave (rs_batch *batch, lua_State *L);

/*
 * New job for items of the batch, which the caller describes in the call of
 * the job.  The job has a reference to the batch.  'created' is an instant, or
 * 0: now.  NULL when out of memory.
 */
rs_job *rs_chunk_new (rs_batch *batch, rs_message *items, double created);

/* Queue the job of a chunk; with 'pause' not before so many seconds.  Takes
   over both references to the job, and returns the status of the queue. */
int rs_chunk_push (rs_batch *batch, rs_job *job, double pause, rs_error *err);

/* rs_job_hooks.on_end: append a chunk that has ended to 'ended'. */
void rs_chunk_end (rs_job *job);

/* New gate; NULL when out of memory.  Free of one that no thread uses; NULL is
   accepted. */
rs_gate *rs_gate_new (rs_batch *batch, unsigned rate, double per,
                      unsigned key_limit);
void rs_gate_free (rs_gate *g);

/* The batch was stopped, and its opener leaves; NULL is accepted. */
void rs_gate_close (rs_gate *g);

/* True when new chunks have to wait, too. */
static inline bool
rs_gate_is_narrow (const rs_gate *g)
{
  return g->rate > 0 || g->key_limit > 0;
}

static inline bool
rs_gate_has_keys (const rs_gate *g)
{
  return g->key_limit > 0;
}

/* Set the key of items to come; NULL: none.  False when out of memory.  The
   opener. */
bool rs_gate_set_key (rs_batch *batch, const char *key, size_t size);

/* True when the batch takes no more chunks now. */
bool rs_gate_is_full_locked (const rs_batch *batch);

/* A chunk is about to be queued ('waits': to be delayed); a chunk has ended,
   or was not queued after all. */
void rs_gate_enter_locked (rs_batch *batch, rs_batch_part *part,
                           bool waits);
void rs_gate_leave_locked (rs_batch *batch, rs_batch_part *part);

/* Let those go that may.  Of a batch that was stopped, end those that wait.
   Any thread, without locks. */
void rs_gate_look (rs_batch *batch);

/* rs_job_hooks. */
void rs_gate_begin (rs_job *job);
void rs_gate_put_off (rs_job *job);
void rs_gate_due (rs_job *job);

/* Count the failure of an item that no worker counts. */
void rs_batch_count_failure (rs_batch *batch);

#endif
