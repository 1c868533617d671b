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
#include "value/marshal.h"
#include "runspace.h"

typedef struct rs_state rs_state;

/* What a runspace may use. */
typedef struct rs_limits {
  size_t memory;              /* bytes; 0: any */
  uint64_t instructions;      /* of an item or a plain call; 0: any */
  uint64_t max_tasks;         /* items and plain calls of one state; 0: any */
  size_t max_bytes;           /* that a state may keep between calls; 0: any */
} rs_limits;

typedef struct rs_state_options {
  const rs_initial_state *initial_state;  /* lent */
  const rs_limits *limits;                /* lent */
  int reset;                              /* RS_RESET_ */
  rs_pool *pool;                          /* lent; opaque here */
  unsigned worker;
  rs_cancel *cancel;                      /* lent; of the thread */
  const rs_wish *wish;                    /* that stops seeding; lent */
  void *owner;                            /* of that: the rs_call that waits
                                             for it, or RS_SEEDING */
} rs_state_options;

/*
 * Open a state.  RS_OK, RS_ENOMEM, RS_ESTOPPED or RS_EFAILED: seeding raised,
 * the error has the text.  The thread that will run it.
 */
int rs_state_open (const rs_state_options *options, rs_state **out,
                   rs_error *err);
void rs_state_close (rs_state *s);

/* Calls that wait for one another in it. */
unsigned rs_state_depth (const rs_state *s);

/* Let go of functions that no batch will send again.  Now and then. */
void rs_state_trim (rs_state *s);

/* Let go of what the last job has assigned, which the next one would see to.
   Before its thread sleeps. */
void rs_state_rest (rs_state *s);

/* [-0, +0, -]  The runspace that 'L' belongs to, or NULL.  Lent. */
rs_state *rs_state_of (lua_State *L);

/* What was given at opening. */
rs_pool *rs_state_pool (const rs_state *s);
unsigned rs_state_worker (const rs_state *s);
rs_cancel *rs_state_cancel (const rs_state *s);

/* Memory that its Lua values take. */
size_t rs_state_bytes (const rs_state *s);

/* ------------------------------------------------------------- for call.c */


/* [-0, +n, e]  Push the values of 'message', as 'rs_decode_all' does.  How
   many. */
int rs_state_decode (lua_State *L, const rs_message *message,
                     const rs_common *common, int marks);

/* [-0, +n, e]  The same, when the first is a function or a source text that
   becomes one. */
int rs_state_push_function (lua_State *L, rs_message *message, int marks);

enum { RS_STATE_KEPT = 4 };  /* functions of batches kept in a runspace */

/* One call that runs (call.c). */
typedef struct rs_run rs_run;

struct rs_state {
  lua_State *L;           /* the main coroutine */
  rs_alloc alloc;
  rs_limits limits;       /* constant, as the next five */
  rs_pool *pool;          /* lent */
  rs_cancel *cancel;      /* lent */
  unsigned worker;
  unsigned born;          /* generation: fork.h */
  int reset;              /* RS_RESET_ */
  rs_environment environment;
  bool exhausted;         /* it wanted more memory than its limit */
  bool forced;            /* something was stopped by force */
  bool seeding;           /* entries of the initial state run */
  bool initializing;      /* 'init' runs while it is seeded, or has failed */
  uint64_t tasks;         /* items and plain calls that it ran */
  rs_run *run;            /* the innermost call, or NULL */
  /* It has printed this line; or NULL. */
  void (*on_line) (rs_state *s, int fd, const char *text, size_t size);
  unsigned depth;         /* how many there are */
  rs_buf lines[2];        /* begun and not ended, on standard output, error */
  rs_encoder spare;       /* memory for the next result; 'forbidden' in it is
                             what may not leave the state */
  struct {
    rs_message *function; /* a reference, or NULL */
    int values;           /* in it: the function, and extra arguments */
    int ref;              /* registry: the function, or an array of all */
    int common;           /* registry: tables that came with it; or 0 */
  } kept[RS_STATE_KEPT];
  unsigned next_kept;     /* the slot to be used next */
};

/* These have parts that are asked for each item, and are quick then. */

/* [-0, +0, m]  An environment that nobody has assigned to. */
static inline void
rs_state_renew_environment (lua_State *L, rs_state *s)
{
  if (s->environment.dirty && s->reset != RS_RESET_NONE)
    rs_environment_renew(L, &s->environment, s->depth > 1 || s->seeding);
}

/* Write the lines that it has begun. */
void rs_state_write_lines (rs_state *s);

/* A call or an item has ended: so have its lines. */
static inline void
rs_state_end_lines (rs_state *s)
{
  if (s->lines[0].size > 0 || s->lines[1].size > 0)
    rs_state_write_lines(s);
}

/* It has reached a limit of what a state may be used for. */
bool rs_state_used_up (rs_state *s);

/* It is to be replaced: something was forced to stop in it, it had too little
   memory, or it has reached a limit. */
static inline bool
rs_state_spent (rs_state *s)
{
  return s->forced || s->exhausted || rs_fork_is_foreign(s->born)
      || ((s->limits.max_tasks != 0 || s->limits.max_bytes != 0)
          && rs_state_used_up(s));
}

#endif
