/* SPDX-License-Identifier: MIT */
/*
 * cancel.h - how what runs in a runspace is stopped.
 *
 * Each call that a runspace runs has a token; calls nest, and so do tokens:
 *
 *     going --request--> soft --(raised once; grace)--> hard --(kill)--> lost
 *
 * Soft raises an error once, where the code is, so that '<close>' variables
 * and what stands behind 'pcall' run.  Hard raises at every instruction until
 * the call's own protected call is reached, and refuses memory.  Lost is said
 * of what does not come back even so: it is in C code that takes long, and
 * its thread is left to itself.
 *
 * While nothing is stopped there is no hook and no signal.  A request sends a
 * signal to the thread that runs the code; the handler plants a hook on the
 * coroutine that runs there.  The signal is sent again until the code has
 * raised, since a hook can be lost, and a blocking call can begin just after
 * a signal.  At the end of a call its thread waits until all that was sent has
 * come, so no signal hits what follows.
 *
 * A request may be for one item of a chunk (its time is over), or for the
 * whole call.  A request stops the calls inside the one it is for, too.
 */
#ifndef RS_CANCEL_H
#define RS_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "base/clock.h"
#include "runspace.h"

/* Why something is stopped. */
typedef enum rs_reason {
  RS_REASON_NONE,
  RS_REASON_CANCELLED,     /* somebody asked for it */
  RS_REASON_CLOSED,        /* its pool was closed */
  RS_REASON_PARENT,        /* the job that waits for it was stopped */
  RS_REASON_TIMEOUT,       /* its time from its start is over */
  RS_REASON_DEADLINE,      /* the time of the whole call is over */
  RS_REASON_MEMORY,        /* its runspace may have no more */
  RS_REASON_INSTRUCTIONS,  /* it may execute no more */
  RS_REASONS
} rs_reason;

/* "timeout" and so on, and what is raised; static storage. */
const char *rs_reason_name (rs_reason reason);
const char *rs_reason_text (rs_reason reason);

/* The final state of what was stopped for this reason. */
rs_job_state rs_reason_state (rs_reason reason);

/* What somebody asked of a call, perhaps before it began.  Made once, by
   'rs_wish_make'; read by any thread. */
typedef struct rs_wish {
  _Atomic int reason;      /* rs_reason; published last */
  float grace;             /* seconds */
} rs_wish;

/* Remember what is asked; false when something was asked before.  One thread
   at a time. */
bool rs_wish_make (rs_wish *wish, rs_reason reason, double grace);

static inline rs_reason
rs_wish_reason (const rs_wish *wish)
{
  return (rs_reason) atomic_load_explicit(&wish->reason,
                                          memory_order_acquire);
}

#define RS_GRACE 0.1       /* seconds from soft to hard, by default */
#define RS_KILL 1.0        /* seconds from hard to lost */

/* How a thread that runs a runspace is stopped; reference counted.  Behind its
   'rs_running' only cancel.c looks inside. */
typedef struct rs_cancel rs_cancel;

/* One call that runs, in the stack frame of who runs it.  Only cancel.c
   looks inside. */
typedef struct rs_token {
  struct rs_token *outer;  /* constant, as the next one */
  void *owner;             /* the rs_call, also while a state is seeded for
                              it; or RS_SEEDING; NULL: the end of a state */
  _Atomic int level;       /* RS_GOING, RS_SOFT, RS_HARD; set under the lock */
  _Atomic bool raised;     /* since it is soft; set by the thread itself */
  _Atomic double due;      /* instant at which the item, or the call, has run
                              out of time; RS_NEVER; or below 0: it has */
  _Atomic bool forced;     /* it was hard once; set under the lock */
  uint64_t spent;          /* instructions of the item; the thread's own, as */
  bool hooked;             /*   whether it has set a hook */

  rs_reason reason;        /* of the call; guarded by the lock of the
                              rs_cancel, as the rest */
  rs_reason item;          /* of the item alone */
  double hard_at;          /* instant; while soft */
  double lost_at;          /* instant; while hard */
} rs_token;

enum { RS_GOING, RS_SOFT, RS_HARD };

/* The owner of what scripts do while a state is seeded for no call. */
extern char rs_seeding;
#define RS_SEEDING ((void *) &rs_seeding)

/* What each switch between coroutines looks at: how an rs_cancel begins. */
typedef struct rs_running {
  _Atomic(lua_State *) L;  /* the coroutine that runs, or NULL; the thread's
                              own; its signal handler reads it */
  _Atomic(rs_token *) top; /* the innermost call; written under the lock */
  /* An error has ended the coroutine 'co', which 'L' had resumed: it is raised
     there, or 'returns' as a result; or NULL. */
  void (*on_failure) (lua_State *co, lua_State *L, bool returns);
} rs_running;

/* What knows the calls, and the thread. */
typedef struct rs_cancel_owner {
  /* The thread does not come back; 'ud' is that of 'rs_cancel_new'.  Called
     once, by any thread, before its calls end as lost. */
  void (*lost_thread) (void *ud);

  /* The call of 'owner' has ended as lost.  'hold' keeps it alive until
     then. */
  void (*hold_call) (void *owner);
  void (*lost_call) (void *owner);
} rs_cancel_owner;

/*
 * New, for the calling thread, which will be sent 'signal'; 0: none.  NULL
 * when out of memory.
 */
rs_cancel *rs_cancel_new (int signal, const rs_cancel_owner *owner, void *ud);
rs_cancel *rs_cancel_ref (rs_cancel *c);
void rs_cancel_unref (rs_cancel *c);

/* The thread ends: nothing is sent to it any more.  That thread. */
void rs_cancel_leave (rs_cancel *c);

/* Code of the script may run when the state is closed, since something in it
   has a finalizer, or may have; until the next 'rs_cancel_open'. */
void rs_cancel_set_finalizes (rs_cancel *c);
bool rs_cancel_finalizes (const rs_cancel *c);

/* Set while memory is refused; for the allocator. */
const _Atomic bool *rs_cancel_refusal (const rs_cancel *c);

/* ------------------------------------------ the thread that runs the calls */

/* The calling thread's, or NULL. */
rs_cancel *rs_cancel_mine (void);

/* How it begins; in a thread that runs no runspace, one of that thread's. */
rs_running *rs_running_mine (void);

/* Calls begin with this hook from here on; NULL: with none. */
void rs_cancel_keep_hook (rs_cancel *c, lua_Hook hook, int mask, int count);

/* The script has set a hook, which goes with the item, or the call. */
void rs_cancel_note_hook (rs_cancel *c);

/* [-0, +0, m]  What runs from here on runs in the state of 'L', and without
   limit. */
void rs_cancel_open (rs_cancel *c, lua_State *L);

/* Calls (or each of their items) may execute so many 'instructions' from here
   on; 0: without limit. */
void rs_cancel_set_limit (rs_cancel *c, uint64_t instructions);

/* A call begins on 'L'; what was wished of it before counts. */
void rs_token_enter (rs_cancel *c, rs_token *t, lua_State *L, void *owner,
                     const rs_wish *wish);

/* The item that begins, or the call, may take 'timeout' seconds. */
void rs_token_set_due (rs_cancel *c, rs_token *t, double timeout);

/* An item begins, or the call that has none, which may take 'timeout' seconds;
   0: without limit. */
static inline void
rs_token_begin (rs_cancel *c, rs_token *t, double timeout)
{
  t->spent = 0;
  if (timeout > 0)
    rs_token_set_due(c, t, timeout);
}

/* It has ended, and was to be stopped, or had a time limit, or set a hook. */
rs_reason rs_token_settle (rs_cancel *c, rs_token *t, lua_State *L);

/*
 * It has ended.  Returns why it was stopped, if it was; when only the item
 * was, the call goes on.
 */
static inline rs_reason
rs_token_end (rs_cancel *c, rs_token *t, lua_State *L)
{
  if (atomic_load_explicit(&t->due, memory_order_relaxed) == RS_NEVER
      && atomic_load_explicit(&t->level, memory_order_relaxed) == RS_GOING
      && !t->hooked)
    return RS_REASON_NONE;
  return rs_token_settle(c, t, L);
}

/* Why that is, so far. */
rs_reason rs_token_reason (rs_cancel *c, const rs_token *t);

/* It is to be stopped, or its item. */
static inline bool
rs_token_stopped (const rs_token *t)
{
  return atomic_load_explicit(&t->level, memory_order_relaxed) != RS_GOING;
}

/* It stops by force: nothing can be allocated. */
static inline bool
rs_token_forced (const rs_token *t)
{
  return atomic_load_explicit(&t->level, memory_order_relaxed) == RS_HARD;
}

/* The call ends, and all signals have come.  Returns why it was stopped, if
   it was.  'L' is NULL when the state has ended with it. */
rs_reason rs_token_leave (rs_cancel *c, rs_token *t, lua_State *L);

/* [-0, +0, v]  Raise if the innermost call is to be stopped and has not
   raised for it.  NULL for 'c' is accepted. */
void rs_cancel_check (rs_cancel *c, lua_State *L);

/* That is so. */
bool rs_cancel_pending (const rs_cancel *c);

/* The innermost call is to be stopped, raised for it or not. */
bool rs_cancel_stopping (const rs_cancel *c);

/* A limit was reached by the innermost call, or its item. */
void rs_cancel_limit (rs_cancel *c, rs_reason reason);

/* Let the code that runs on 'L' raise. */
void rs_cancel_plant (rs_cancel *c, lua_State *L);

/* Another coroutine runs from here on; returns the one that did. */
static inline lua_State *
rs_running_switch (rs_running *r, lua_State *L)
{
  lua_State *const from = atomic_load_explicit(&r->L, memory_order_relaxed);
  atomic_store_explicit(&r->L, L, memory_order_relaxed);
  /* The handler may have come before: then it planted on the other one. */
  atomic_signal_fence(memory_order_seq_cst);
  const rs_token *const t = atomic_load_explicit(&r->top,
                                                 memory_order_relaxed);
  if (t != NULL && rs_token_stopped(t))
    rs_cancel_plant((rs_cancel *) r, L);
  return from;
}

/* No coroutine of the state may be touched any more. */
void rs_cancel_forget (rs_cancel *c);

/* What was raised softly has gone where nobody saw it: raise it again. */
void rs_cancel_again (rs_cancel *c);

/* -------------------------------------------------------------- any thread */

/*
 * Where the thread stood when it was found lost, as a text of RS_PLACE bytes
 * at most: "scan.lua:12: did not come back from 'receive' (C function)".
 * False when it is not known, or it was not in C.  While 'lost_thread' and
 * 'lost_call' are called.
 */
enum { RS_PLACE = 200 };

bool rs_cancel_place (const rs_cancel *c, char *text, size_t size);

/*
 * Stop the call of 'owner' if it runs there; its wish was made.  The first
 * request gives the reason, and the shortest time counts.  False when the
 * system gives no thread to see to it: it was asked once, then.
 */
bool rs_cancel_request (rs_cancel *c, const void *owner, rs_reason reason,
                        double grace);

/* ------------------------------------------------------------------- waits */

/*
 * The thread waits for something, and whoever stops it calls 'wake(object)',
 * which may lock; 'ref' and 'unref' keep the object alive, and may not.
 */
typedef struct rs_sleeper {
  void (*wake) (void *object);
  void (*ref) (void *object);
  void (*unref) (void *object);
  void *object;
} rs_sleeper;

/* Waits do not nest.  NULL for 'c' is accepted. */
void rs_cancel_sleeps (rs_cancel *c, const rs_sleeper *sleeper);
void rs_cancel_wakes (rs_cancel *c);

#endif
