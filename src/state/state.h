/* SPDX-License-Identifier: MIT */
/*
 * state.h - one runspace: a 'lua_State' that is opened from an initial
 * state, has calls run in it (call.h), and is closed.
 *
 * A state is touched only by the thread that runs it.
 */
#ifndef RS_STATE_H
#define RS_STATE_H

#include "base/alloc.h"
#include "state/cancel.h"
#include "state/environment.h"
#include "base/fork.h"
#include "state/initial_state.h"
#include "base/buf.h"
#include "value/encoder.h"
#include "runspace.h"

typedef struct rs_state rs_state;

/* What happened to the runners of a worker before this one.  Of its thread;
   zero at first; the runners write it. */
typedef struct rs_runner_past {
  bool opened;            /* one of them was there */
  unsigned deaths;        /* that ended by themselves, in a row, before they
                             had run a call to its end */
  double over;            /* instant at which the last call that was lost is
                             over for certain */
} rs_runner_past;

typedef struct rs_state_options {
  const rs_pool_options *options;         /* lent, while the state is there;
                                             'initial_state' is not NULL */
  rs_pool *pool;                          /* lent; opaque here; NULL: the
                                             process is there for this state
                                             alone */
  unsigned worker;
  rs_cancel *cancel;                      /* lent; of the thread */
  const rs_wish *wish;                    /* stops seeding; lent */
  void *owner;                            /* of the token of seeding: the
                                             rs_call that waits for the state,
                                             or RS_SEEDING */
  unsigned forbidden;                     /* RS_MESSAGE_ kinds of values that
                                             may not leave the state */
  void *shared;                           /* lent: what all runners of the pool
                                             share (pool/runner.h), or NULL */
  rs_runner_past *past;                   /* of the worker, lent; or NULL */
} rs_state_options;

/*
 * Open a state.  RS_OK, RS_ENOMEM, RS_ESTOPPED or RS_EFAILED: seeding raised,
 * and 'err' has the text.  Called by the thread that will run the state.
 */
int rs_state_open (const rs_state_options *options, rs_state **out,
                   rs_error *err);
void rs_state_close (rs_state *s);

/* Number of calls that are nested in the state: all but the innermost one
   wait. */
unsigned rs_state_depth (const rs_state *s);

/* Release the kept functions whose messages only the state refers to: no batch
   and no host will send them again.  To be called now and then. */
void rs_state_trim (rs_state *s);

/* Release the environment of the last job now, instead of when the next job
   begins.  To be called before the thread sleeps. */
void rs_state_rest (rs_state *s);

/* [-0, +0, -]  The runspace that 'L' belongs to, or NULL.  Lent. */
rs_state *rs_state_of (lua_State *L);

/* The options that were given to 'rs_state_open'. */
rs_pool *rs_state_pool (const rs_state *s);
unsigned rs_state_worker (const rs_state *s);
rs_cancel *rs_state_cancel (const rs_state *s);

/* Bytes of memory that the Lua values of the state take. */
size_t rs_state_bytes (const rs_state *s);

/* ------------------------------------------------------------- for call.c */


/* [-0, +n, e]  Push the values of 'message', as 'rs_decode_all' does.  Returns
   how many. */
int rs_state_decode (lua_State *L, const rs_message *message,
                     const rs_common *common, int marks);

/* [-0, +n, e]  Push the values of 'message', whose first one is a function, or
   a source text that is compiled.  Returns how many. */
int rs_state_push_function (lua_State *L, rs_message *message, int marks);

enum { RS_STATE_KEPT = 4 };  /* functions that a runspace keeps, at most */

/* A call that runs; defined in call.c. */
typedef struct rs_run rs_run;

struct rs_state {
  lua_State *L;           /* the main coroutine */
  rs_alloc alloc;
  const rs_pool_options *options;  /* of the pool, lent; constant, as the next
                             four */
  rs_pool *pool;          /* lent; NULL: that of another process */
  rs_cancel *cancel;      /* lent */
  unsigned worker;
  unsigned born;          /* generation: fork.h */
  rs_environment environment;
  bool exhausted;         /* more memory was wanted than the limit */
  bool forced;            /* an item or a call was stopped by force, or the
                             state is damaged: it must be replaced */
  bool haunted;           /* a call that was stopped has left objects with
                             finalizers, which could run, and not end, in later
                             calls: the state must be replaced */
  bool seeding;           /* entries of the initial state run */
  bool initializing;      /* 'init' runs in seeding, or has failed there */
  uint64_t tasks;         /* items and plain calls that have ended */
  rs_run *run;            /* the innermost call, or NULL */
  /* Called for each line that was printed, without its end; or NULL. */
  void (*on_line) (rs_state *s, int fd, const char *text, size_t size);
  unsigned depth;         /* number of nested calls; 'run' is the innermost */
  double ahead;           /* seconds that the clock by which records are told
                             is ahead of ours: that of another host */
  rs_buf lines[2];        /* begun and not ended, on standard output, error */
  rs_encoder spare;       /* memory for the next result; its 'forbidden' are
                             the kinds of values that may not leave the
                             state */
  struct {
    rs_message *function; /* a reference, or NULL: the slot is free */
    int values;           /* in the message: the function, extra arguments */
    int ref;              /* registry: the function, or an array of all
                             values */
    int common;           /* registry: tables that came with it; or 0 */
    int given;            /* registry: globals that came with it; or 0 */
  } kept[RS_STATE_KEPT];
  unsigned next_kept;     /* slot that is used next, modulo RS_STATE_KEPT */
};

/* Inline functions, which are called for each item: the usual case is a quick
   look, and calls nothing. */

/* [-0, +0, m]  Replace the environment, if code has assigned to it. */
static inline void
rs_state_renew_environment (lua_State *L, rs_state *s)
{
  if (s->environment.dirty && s->options->reset != RS_RESET_NONE)
    rs_environment_renew(L, &s->environment, s->depth > 1 || s->seeding);
}

/* End the lines that are begun, and write them. */
void rs_state_write_lines (rs_state *s);

/* A call or an item has ended: end and write the lines that it has begun. */
static inline void
rs_state_end_lines (rs_state *s)
{
  if (s->lines[0].size > 0 || s->lines[1].size > 0)
    rs_state_write_lines(s);
}

/* True when the state has reached 'max_tasks' or 'max_bytes'. */
bool rs_state_used_up (rs_state *s);

/* True when the state is to be replaced: an item or a call was stopped by
   force, or was stopped and has left finalizers; memory was too little; the
   process has forked; or the state has reached a limit. */
static inline bool
rs_state_spent (rs_state *s)
{
  return s->forced || s->haunted || s->exhausted || rs_fork_is_foreign(s->born)
      || ((s->options->max_tasks != 0 || s->options->max_bytes != 0)
          && rs_state_used_up(s));
}

#endif
