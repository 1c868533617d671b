/* SPDX-License-Identifier: MIT */
/*
 * cancel.h - how what runs in a runspace is stopped.
 *
 * Each call that a runspace runs has a token; calls nest, and so do tokens:
 *
 *     going --request--> soft --(raised once; grace)--> hard --(kill)--> lost
 *
 * Soft raises an error once, where the code is, so that '<close>' variables
 * and the code behind 'pcall' run.  Hard raises at every instruction until
 * the call's own protected call is reached, and refuses memory.  A call that
 * does not come back even so, though its thread has had a CPU, is lost: the
 * call is in C code that takes long, and the thread is left to itself.
 *
 * While nothing is stopped there is no hook and no signal.  A request sends a
 * signal to the thread that runs the code; the handler plants a hook on the
 * coroutine that runs there.  The signal is sent again until the code has
 * raised, since a hook can be lost, and a blocking call can begin just after
 * a signal.  At the end of a call its thread waits until all signals that were
 * sent have come, so none of them hits the code that follows.
 *
 * A request is for one item of a chunk (the time of the item is over), or for
 * a whole call.  A request for a call also stops the calls inside it.
 */
#ifndef RS_CANCEL_H
#define RS_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "base/clock.h"
#include "runspace.h"

/* Why a call, or an item, is stopped. */
typedef enum rs_reason {
  RS_REASON_NONE,
  RS_REASON_CANCELLED,     /* a host, or a job, has cancelled it */
  RS_REASON_CLOSED,        /* its pool was closed */
  RS_REASON_PARENT,        /* the job that waits for it was stopped */
  RS_REASON_TIMEOUT,       /* its time from its start is over */
  RS_REASON_DEADLINE,      /* the time of the whole call is over */
  RS_REASON_MEMORY,        /* its runspace has reached its memory limit */
  RS_REASON_INSTRUCTIONS,  /* its limit of instructions is reached */
  RS_REASONS
} rs_reason;

/* The name of a reason ("timeout"), and the text that is raised for it; static
   storage. */
const char *rs_reason_name (rs_reason reason);
const char *rs_reason_text (rs_reason reason);

/* The final state of a call, or an item, that was stopped for 'reason'. */
rs_job_state rs_reason_state (rs_reason reason);

/* A request to stop a call, perhaps made before the call began.  Made once, by
   'rs_wish_make'; read by any thread. */
typedef struct rs_wish {
  _Atomic int reason;      /* rs_reason; published last */
  float grace;             /* seconds */
} rs_wish;

/* Make the wish: remember the reason and the grace, in seconds.  False when it
   was made before.  One thread at a time. */
bool rs_wish_make (rs_wish *wish, rs_reason reason, double grace);

static inline rs_reason
rs_wish_reason (const rs_wish *wish)
{
  return (rs_reason) atomic_load_explicit(&wish->reason,
                                          memory_order_acquire);
}

#define RS_GRACE 0.1       /* seconds from soft to hard, by default */
#define RS_KILL 1.0        /* seconds from hard to lost, for a thread that gets
                              a CPU */

/* The means to stop one thread that runs runspaces; reference counted.  Begins
   with an 'rs_running'; only cancel.c looks at the rest. */
typedef struct rs_cancel rs_cancel;

/* The token of one call that runs, in the stack frame of the function that
   runs the call.  Only cancel.c looks inside. */
typedef struct rs_token {
  struct rs_token *outer;  /* of the call around this one, or NULL; constant,
                              as the next one */
  void *owner;             /* the rs_call, also while a state is seeded for
                              it; or RS_SEEDING; NULL: the end of a state */
  _Atomic int level;       /* RS_GOING, RS_SOFT, RS_HARD; set under the lock */
  _Atomic bool raised;     /* the code has raised since the level is soft; set
                              under the lock, or by the thread itself */
  _Atomic double due;      /* instant at which the item, or the call, has run
                              out of time; RS_NEVER: no limit; below 0: the
                              time is over, and a thread has noticed */
  _Atomic bool forced;     /* the level was hard once; set under the lock */
  uint64_t spent;          /* instructions of the item; only the thread that
                              runs the call uses this and the next one */
  bool hooked;             /* the call, or its item, has set a hook */
  lua_State *L;            /* the coroutine that the call began on, or NULL: it
                              runs elsewhere; constant, as the next one */
  int depth;               /* levels that 'L' had then, where there is an outer
                              call; otherwise 0 */

  rs_reason reason;        /* of the call; guarded by the lock of the
                              rs_cancel, as the rest */
  rs_reason item;          /* of the item alone */
  double hard_at;          /* instant; while soft */
  double lost_at;          /* instant; while hard */
} rs_token;

enum { RS_GOING, RS_SOFT, RS_HARD };

/* The owner of the token while a state is seeded for no call. */
extern char rs_seeding;
#define RS_SEEDING ((void *) &rs_seeding)

/* The beginning of an rs_cancel: the part that each switch between coroutines
   uses. */
typedef struct rs_running {
  _Atomic(lua_State *) L;  /* the coroutine that runs, or NULL; written by the
                              thread, read by its signal handler, too */
  _Atomic(rs_token *) top; /* the innermost call; written under the lock */
  /* Called when an error has ended the coroutine 'co' that 'L' had resumed.
     'returns': 'L' gets the error as a result; otherwise the error is raised
     in 'L'.  NULL: nothing is called. */
  void (*on_failure) (lua_State *co, lua_State *L, bool returns);
} rs_running;

/* Functions of the floor above, which knows the calls and the thread. */
typedef struct rs_cancel_owner {
  /* The thread does not come back; 'ud' is the one given to 'rs_cancel_new'.
     Called once, by any thread, before the calls of the thread end as lost.
     NULL: the thread is that of a host, and nobody could take its place: it is
     never lost. */
  void (*lost_thread) (void *ud);

  /* The call 'owner' ends as lost.  'hold_call', under the lock, keeps the
     call alive until 'lost_call', without the lock, has ended it. */
  void (*hold_call) (void *owner);
  void (*lost_call) (void *owner);
} rs_cancel_owner;

/*
 * Make an rs_cancel for the calling thread, which will be sent 'signal'; 0: no
 * signal is sent.  NULL when out of memory.
 */
rs_cancel *rs_cancel_new (int signal, const rs_cancel_owner *owner, void *ud);
rs_cancel *rs_cancel_ref (rs_cancel *c);
void rs_cancel_unref (rs_cancel *c);

/* The thread ends: no signal is sent to it any more.  Called by the thread
   itself. */
void rs_cancel_leave (rs_cancel *c);

/*
 * A host's thread begins, and ends, to run calls by 'c', which it has made
 * ('rs_cancel_new' begins, too).  Meanwhile a stop of the call around these,
 * if there is one, and 'rs_cancel_interrupt', cancel the outermost of them.
 */
void rs_cancel_begin (rs_cancel *c);
void rs_cancel_end (rs_cancel *c);

/* Cancel, within some 50 ms, what the calling thread runs, if it is that of a
   host.  A signal handler may call this. */
void rs_cancel_interrupt (void);

/* Note that code of a script may run when the state is closed, since an object
   in the state has a finalizer, or may have one.  Holds until the next
   'rs_cancel_open'. */
void rs_cancel_set_finalizes (rs_cancel *c);
bool rs_cancel_finalizes (const rs_cancel *c);

/* Count an object that a script has given a finalizer; the number of these
   objects. */
void rs_cancel_count_guard (rs_cancel *c);
unsigned rs_cancel_guards (const rs_cancel *c);

/* The flag that is set while memory is refused; for the allocator. */
const _Atomic bool *rs_cancel_refusal (const rs_cancel *c);

/* ------------------------------------------ the thread that runs the calls */

/* The rs_cancel of the calling thread, or NULL. */
rs_cancel *rs_cancel_mine (void);

/* The rs_running of the calling thread: the beginning of its rs_cancel, or one
   by itself in a thread that has no rs_cancel. */
rs_running *rs_running_mine (void);

/* The latter one, of a thread that may have an rs_cancel now. */
rs_running *rs_running_host (void);

/* Calls begin with this hook from here on; NULL: with none. */
void rs_cancel_keep_hook (rs_cancel *c, lua_Hook hook, int mask, int count);

/* The script has set a hook, which is removed when the item, or the call,
   ends. */
void rs_cancel_note_hook (rs_cancel *c);

/* [-0, +0, m]  The thread runs the state of 'L' from here on, without a limit
   of instructions. */
void rs_cancel_open (rs_cancel *c, lua_State *L);

/* From here on each item, and each call without items, may execute so many
   'instructions'; 0: without limit. */
void rs_cancel_set_limit (rs_cancel *c, uint64_t instructions);

/* A call begins on 'L'.  If 'wish' was made before, the call is stopped at
   once. */
void rs_token_enter (rs_cancel *c, rs_token *t, lua_State *L, void *owner,
                     const rs_wish *wish);

/* Let the item that begins, or the call that has none, take 'timeout' seconds
   at most. */
void rs_token_set_due (rs_cancel *c, rs_token *t, double timeout);

/* An item, or a call that has none, begins.  It may take 'timeout' seconds;
   0: without limit. */
static inline void
rs_token_begin (rs_cancel *c, rs_token *t, double timeout)
{
  t->spent = 0;
  if (timeout > 0)
    rs_token_set_due(c, t, timeout);
}

/* The slow part of 'rs_token_end', for an item or a call that was to be
   stopped, had a time limit, or has set a hook. */
rs_reason rs_token_settle (rs_cancel *c, rs_token *t, lua_State *L);

/*
 * The item, or the call that has none, has ended.  Returns why it was stopped,
 * if it was.  When only the item was stopped, the call goes on.
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

/* Why the item, or else the call, is to be stopped, so far. */
rs_reason rs_token_reason (rs_cancel *c, const rs_token *t);

/* True when the call, or its item, is to be stopped. */
static inline bool
rs_token_stopped (const rs_token *t)
{
  return atomic_load_explicit(&t->level, memory_order_relaxed) != RS_GOING;
}

/* True when the call, or its item, is stopped by force: nothing can be
   allocated. */
static inline bool
rs_token_forced (const rs_token *t)
{
  return atomic_load_explicit(&t->level, memory_order_relaxed) == RS_HARD;
}

/* The call ends.  Waits until all signals have come, and returns why the call
   was stopped, if it was.  'L' is NULL when the state has ended, too. */
rs_reason rs_token_leave (rs_cancel *c, rs_token *t, lua_State *L);

/* [-0, +0, v]  Raise if the innermost call is to be stopped, and its code has
   not raised the soft error yet, or is stopped by force.  NULL for 'c' is
   accepted. */
void rs_cancel_check (rs_cancel *c, lua_State *L);

/* True when 'rs_cancel_check' would raise. */
bool rs_cancel_pending (const rs_cancel *c);

/* True when the innermost call is to be stopped, also after its code has
   raised for that.  NULL for 'c' is accepted. */
bool rs_cancel_stopping (const rs_cancel *c);

/* Seconds that a call has to clean up for which the innermost call waits, when
   both are stopped: as long as the innermost one has, and RS_GRACE at least.
   NULL for 'c' is accepted. */
double rs_cancel_grace (rs_cancel *c);

/* The innermost call, or its item, has reached a limit: stop it. */
void rs_cancel_limit (rs_cancel *c, rs_reason reason);

/* Let the code that runs on 'L' raise, if 'rs_cancel_check' would. */
void rs_cancel_plant (rs_cancel *c, lua_State *L);

/* The coroutine 'L' runs from here on; returns the one that ran before. */
static inline lua_State *
rs_running_switch (rs_running *r, lua_State *L)
{
  lua_State *const from = atomic_load_explicit(&r->L, memory_order_relaxed);
  atomic_store_explicit(&r->L, L, memory_order_relaxed);
  /* A signal that came before the store has planted the hook on 'from'. */
  atomic_signal_fence(memory_order_seq_cst);
  const rs_token *const t = atomic_load_explicit(&r->top,
                                                 memory_order_relaxed);
  if (t != NULL && rs_token_stopped(t))
    rs_cancel_plant((rs_cancel *) r, L);
  return from;
}

/* The state ends: the signal handler must not touch its coroutines any
   more. */
void rs_cancel_forget (rs_cancel *c);

/* Raise the soft error of the innermost call again: no code has seen the first
   one, since Lua drops what a finalizer raises. */
void rs_cancel_again (rs_cancel *c);

/* -------------------------------------------------------------- any thread */

/*
 * Where the thread stood when it was found lost, as a text of RS_PLACE bytes
 * at most: "scan.lua:12: did not come back from 'receive' (C function)".
 * False when the place is not known, or was not in C.  To be called from
 * 'lost_thread' and 'lost_call' only.
 */
enum { RS_PLACE = 200 };

bool rs_cancel_place (const rs_cancel *c, char *text, size_t size);

/*
 * Ask the call 'owner' where it stands, without stopping it, and write a
 * traceback of it, as 'luaL_traceback' does, into 'text'.  If the thread is in
 * C, the first line names the function.  Waits until the instant 'deadline',
 * mostly some milliseconds at most.
 * RS_OK; RS_EDONE: the thread does not run the call, any more or yet;
 * RS_ETIMEOUT: it has not answered; RS_EREFUSED: it cannot be asked, since it
 * gets no signal, or since it runs elsewhere; RS_ENOMEM.
 */
int rs_cancel_trace (rs_cancel *c, const void *owner, double deadline,
                     char *text, size_t size);

/* For a thread whose call 't' runs elsewhere: the number of the request to
   tell where it stands that was not answered yet; 0: there is none. */
unsigned rs_cancel_asks (const rs_cancel *c, const rs_token *t);

/* The answer to that request. */
void rs_cancel_tell (rs_cancel *c, unsigned request, const char *text);

/*
 * Stop the call 'owner', whose wish was made, if the thread of 'c' runs it.
 * The first request gives the reason, and the shortest 'grace', in seconds,
 * counts.  False when the system gives no thread for the timers: then one
 * signal was sent, and neither is it sent again nor does the call become hard.
 */
bool rs_cancel_request (rs_cancel *c, const void *owner, rs_reason reason,
                        double grace);

/* ------------------------------------------------------------------- waits */

/*
 * The object that the thread of an rs_cancel waits at.  Another thread that
 * stops a call there calls 'wake(object)', which may take locks.  'ref' and
 * 'unref', which must not, keep the object alive meanwhile.
 */
typedef struct rs_sleeper {
  void (*wake) (void *object);
  void (*ref) (void *object);
  void (*unref) (void *object);
  void *object;
  bool tells;    /* the thread asks where the call stands ('rs_cancel_asks')
                    when it is woken */
  bool returns;  /* the thread sees to it that it comes back, also when it is
                    stopped by force: it is never lost */
} rs_sleeper;

/* The calling thread begins, and ends, to wait at 'sleeper', which must live
   until then.  Waits do not nest.  NULL for 'c' is accepted. */
void rs_cancel_sleeps (rs_cancel *c, const rs_sleeper *sleeper);
void rs_cancel_wakes (rs_cancel *c);

#endif
