/* SPDX-License-Identifier: MIT */
/*
 * cancel.c - how what runs in a runspace is stopped.
 *
 * Three threads meet here: the thread that runs the calls, a thread that
 * requests a stop, and the thread of the timers, which sends signals again,
 * goes from soft to hard, and declares a thread lost.  'lock' is held while a
 * signal is sent, so the thread that gets the signal has not ended.
 *
 * The signal handler runs on the thread of the calls, anywhere in Lua or in C.
 * The handler reads atomics and calls 'lua_sethook', which the manual allows
 * there; it takes no lock and allocates nothing.  The hook that it plants does
 * the rest.  While a call is stopped by force the handler also looks where the
 * thread stands ('look'), so that a lost call can tell which C function it did
 * not come back from.
 *
 * A thread can be asked where a call of it stands ('rs_cancel_trace').  The
 * same signal plants the same hook, which writes that down and goes.  A
 * thread in C does not come to the hook: there the handler writes it down,
 * once 'look' has found that the thread does not move on.
 *
 * A time-out costs two atomic operations an item: 'due' moves on, and the
 * timer stays set to its instant, unless that is later than 'due'.  A timer
 * that fires too early is set again.  The thread that takes 'due' by an
 * exchange decides whether an item has ended in time.
 */
#include "state/cancel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/defer.h"
#include "base/fork.h"
#include "base/timer.h"
#include "state/traceback.h"

#define ASK 1e-3           /* seconds after which a thread is asked again where
                              it stands */
#define AGAIN 5e-3         /* seconds after which a signal is sent again */
#define SLOW 0.4           /* seconds that 'lost_at' may be exceeded while the
                              handler has not looked LOOKS times: a busy
                              machine delivers signals late */
#define FAIR 0.2           /* seconds of CPU time that a thread has had since
                              it was forced, before it can be lost while it
                              wants a CPU */
#define STARVED 10.0       /* seconds that 'lost_at' may be exceeded for
                              that */
#define FIRED (-1.0)       /* 'due' of an item, or a call, that the timer has
                              found to be out of time */
#define TICK 0.02          /* seconds that 'rs_now_coarse' may be behind */
#define GLANCE 0.05        /* seconds between two looks at 'interrupted' */

enum {
  ALL = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT,
  MAX_STEP = 1000,         /* instructions between two looks at a limit */
  MAX_CALLS = 64,          /* nested calls that end as lost with a thread */
  LOOKS = 3,               /* looks that find the same call again, until its
                              function is noted */
  CALLERS = 16,            /* levels of the stack that are searched for a line
                              of a script */
  NAME = 64,               /* bytes of a function's name */
  MAX_DISPLACED = 8,       /* hooks that are remembered */
  PARTS = 2                /* stacks that a call may stand on: that of the
                              coroutine that runs, and that of the call */
};

/* A hook, and the coroutine that has it, or NULL. */
typedef struct hook {
  lua_State *L;
  lua_Hook call;
  int mask;
  int count;
} hook;

/* The place where a thread stands. */
typedef struct place {
  char name[NAME];          /* of the C function; "": it has none */
  char source[LUA_IDSIZE];  /* of the script that calls it; only with a line */
  int line;                 /* of the script; 0: not known */
} place;

struct rs_cancel {
  rs_running running;      /* first: 'rs_running_switch' casts it */
  _Atomic unsigned refs;
  const rs_cancel_owner *owner;  /* constant, as the next three */
  void *ud;
  int signal;              /* 0: none */
  pthread_t thread;
  pid_t tid;               /* of the thread, as the kernel names it; constant,
                              as the next one */
  clockid_t clock;         /* CPU time of the thread */

  uint64_t limit;          /* instructions of an item; 0: none; only the
                              thread itself uses this and the next two */
  bool finalizes;          /* rs_cancel_set_finalizes */
  unsigned guards;         /* rs_cancel_count_guard */
  hook kept;               /* the hook that calls begin with; 'L' is unused */
  hook displaced[MAX_DISPLACED];  /* hooks that 'on_hook' has replaced; the
                              handler writes them, too */
  _Atomic bool planted;    /* 'on_hook' was set since the last 'clean' */
  _Atomic unsigned sent;   /* signals; written under the lock, read by the
                              handler */
  _Atomic unsigned seen;   /* signals that came; read by any thread */
  const void *at;          /* the call that 'look' has found, or NULL; used by
                              the handler and the thread itself, as 'moves'
                              and 'place' */
  unsigned moves;          /* rs_alloc.moves when 'look' found it first */
  _Atomic unsigned looks;  /* that found it again, in a row; the thread of the
                              timers waits for LOOKS of them before it
                              declares the thread lost */
  place place;             /* written by look number LOOKS */
  _Atomic bool found;      /* 'place' tells where the thread stands; set by
                              the handler, read by the thread that declares
                              the thread lost, for 'place' */
  _Atomic bool refuse;     /* the allocator refuses memory */
  rs_cancel *around;       /* what the thread had before 'rs_cancel_begin', or
                              NULL; only for the thread, and its handler */
  _Atomic bool interrupted;  /* of a host's thread: the outermost call is to
                              be cancelled; set by a handler, taken by the
                              thread of the timers */
  _Atomic double armed;    /* instant at which the timer fires, or earlier;
                              used by any thread */
  rs_timer timer;

  _Atomic(const rs_token *) asked;  /* the call that is to tell where it
                              stands, or NULL; set and taken away under the
                              lock by any thread; the handler reads it */
  _Atomic unsigned asks;   /* number of the last request to tell; 0: none yet;
                              set before 'asked', read by the handler */
  _Atomic unsigned told_of;  /* number of the last request that 'trace' is the
                              answer to; published last, by the handler or
                              under the lock */
  char *trace;             /* owned: RS_TRACEBACK bytes, made when it is needed
                              first; or NULL */
  unsigned looks_for;      /* request that 'looks' are for, 0: a loss; for the
                              handler */
  volatile sig_atomic_t writing;  /* the hook writes 'trace' */

  pthread_mutex_t lock;    /* guards down to the blank line */
  bool asking;             /* a thread waits for an answer */
  unsigned taken;          /* 'times_taken' when the last signal was sent */
  bool lost;               /* the thread does not come back */
  bool telling;            /* the owner is being told of the loss */
  bool left;               /* the thread has ended */
  double forced_at;        /* CPU time of the thread when a call of it was
                              stopped by force last */
  const rs_sleeper *sleeper;  /* where the thread waits, or NULL */
  pthread_cond_t told;     /* !telling, !asking, told_of == asks, or asked ==
                              NULL */
};

/* The rs_cancel of the calling thread, for its signal handler and its hook. */
static _Thread_local rs_cancel *mine;

/* The rs_running of a thread that has no rs_cancel: its 'top' is NULL. */
static _Thread_local rs_running other;

/* Have some of the 'sent' signals not come yet? */
static bool
on_its_way (const rs_cancel *c, unsigned sent)
{
  return (int) (sent - atomic_load_explicit(&c->seen, memory_order_acquire))
         > 0;
}

/* Number of the last signal that was sent. */
static unsigned
sent_to (const rs_cancel *c)
{
  return atomic_load_explicit(&c->sent, memory_order_relaxed);
}

/* ----------------------------------------------------------------- reasons */

static const struct {
  const char *name;
  const char *text;
  rs_job_state state;
} reasons[RS_REASONS] = {
  [RS_REASON_NONE] = { "none", "it was not stopped", RS_JOB_COMPLETED },
  [RS_REASON_CANCELLED] = { "cancelled", "the job was cancelled",
                            RS_JOB_CANCELLED },
  [RS_REASON_CLOSED] = { "closed", "the pool of the job was closed",
                         RS_JOB_CANCELLED },
  [RS_REASON_PARENT] = { "parent", "the job that waits for this one was "
                         "stopped", RS_JOB_CANCELLED },
  [RS_REASON_TIMEOUT] = { "timeout", "the job ran out of time",
                          RS_JOB_TIMED_OUT },
  [RS_REASON_DEADLINE] = { "deadline", "the deadline of the call has passed",
                           RS_JOB_TIMED_OUT },
  [RS_REASON_MEMORY] = { "memory_limit", "the runspace has reached its limit "
                         "of memory", RS_JOB_FAILED },
  [RS_REASON_INSTRUCTIONS] = { "instruction_limit", "the job has reached its "
                               "limit of instructions", RS_JOB_FAILED },
};

const char *
rs_reason_name (rs_reason reason)
{
  return reasons[reason].name;
}

const char *
rs_reason_text (rs_reason reason)
{
  return reasons[reason].text;
}

rs_job_state
rs_reason_state (rs_reason reason)
{
  return reasons[reason].state;
}

bool
rs_wish_make (rs_wish *wish, rs_reason reason, double grace)
{
  if (rs_wish_reason(wish) != RS_REASON_NONE)
    return false;
  wish->grace = grace < FLT_MAX ? (float) grace : FLT_MAX;
  atomic_store_explicit(&wish->reason, (int) reason, memory_order_release);
  return true;
}

/* --------------------------------------------------- the hook, the handler */

char rs_seeding;

/* Is 't' the token of a call, whose owner is told of a loss? */
static bool
is_call (const rs_token *t)
{
  return t->owner != NULL && t->owner != RS_SEEDING;
}

static rs_token *
top_of (const rs_cancel *c)
{
  return atomic_load_explicit(&c->running.top, memory_order_relaxed);
}

/* The coroutine that runs, or NULL. */
static lua_State *
coroutine_of (const rs_cancel *c)
{
  return atomic_load_explicit(&c->running.L, memory_order_relaxed);
}

static int
level_of (const rs_token *t)
{
  return atomic_load_explicit(&t->level, memory_order_relaxed);
}

static bool
has_raised (const rs_token *t)
{
  return atomic_load_explicit(&t->raised, memory_order_relaxed);
}

static void
set_raised (rs_token *t, bool raised)
{
  atomic_store_explicit(&t->raised, raised, memory_order_relaxed);
}

/* Is the code of the call 't' to raise? */
static bool
pending (const rs_token *t)
{
  return t != NULL && level_of(t) != RS_GOING
      && (level_of(t) == RS_HARD || !has_raised(t));
}

bool
rs_cancel_pending (const rs_cancel *c)
{
  return c != NULL && pending(top_of(c));
}

bool
rs_cancel_stopping (const rs_cancel *c)
{
  const rs_token *const t = c != NULL ? top_of(c) : NULL;
  return t != NULL && level_of(t) != RS_GOING;
}

double
rs_cancel_grace (rs_cancel *c)
{
  const rs_token *const t = c != NULL ? top_of(c) : NULL;
  double grace = RS_GRACE;
  if (t == NULL)
    return grace;
  pthread_mutex_lock(&c->lock);
  if (level_of(t) == RS_SOFT)
    grace = fmax(grace, t->hard_at - rs_now());
  pthread_mutex_unlock(&c->lock);
  return grace;
}

static void on_hook (lua_State *L, lua_Debug *ar);

/* Instructions between two calls of the hook that counts them. */
static int
step_of (const rs_cancel *c)
{
  return c->limit < MAX_STEP ? (int) c->limit : MAX_STEP;
}

/* Remember the hook that a script, or a module, has set on 'L', so that
   'unplant' can set it again. */
static void
displace (rs_cancel *c, lua_State *L)
{
  const lua_Hook call = lua_gethook(L);
  if (call == NULL || call == on_hook)
    return;
  hook *h = NULL;
  for (int i = 0; i < MAX_DISPLACED; i++)
    if (c->displaced[i].L == L || (h == NULL && c->displaced[i].L == NULL))
      h = &c->displaced[i];
  if (h != NULL)
    *h = (hook) { L, call, lua_gethookmask(L), lua_gethookcount(L) };
}

/* Set 'on_hook' on 'L' for each event.  The thread itself, or its signal
   handler. */
static void
plant (rs_cancel *c, lua_State *L)
{
  atomic_store_explicit(&c->planted, true, memory_order_relaxed);
  displace(c, L);
  lua_sethook(L, on_hook, ALL, 1);
}

/* Take 'on_hook' from 'L', or let it only count, where instructions are
   limited. */
static void
unplant (rs_cancel *c, lua_State *L)
{
  hook h = { .L = NULL };
  if (c->limit > 0) {
    lua_sethook(L, on_hook, LUA_MASKCOUNT, step_of(c));
    return;
  }
  if (lua_gethook(L) != on_hook)
    return;
  for (int i = 0; i < MAX_DISPLACED; i++)
    if (c->displaced[i].L == L) {
      h = c->displaced[i];
      c->displaced[i].L = NULL;
    }
  lua_sethook(L, h.call, h.mask, h.count);
}

/* The key in the registry, by address, of an array of the texts that are
   raised, by reason.  Made when the state is opened, since later memory may be
   refused. */
static const char texts_key;

rs_reason
rs_token_reason (rs_cancel *c, const rs_token *t)
{
  pthread_mutex_lock(&c->lock);
  const rs_reason reason = t->item != RS_REASON_NONE ? t->item : t->reason;
  pthread_mutex_unlock(&c->lock);
  return reason;
}

/* [-0, +0, v]  Raise the reason for which the innermost call, 't', is to be
   stopped. */
static int
stop (rs_cancel *c, lua_State *L, rs_token *t)
{
  if (level_of(t) == RS_SOFT) {
    set_raised(t, true);
    unplant(c, L);
  }
  else
    plant(c, L);
  const rs_reason reason = rs_token_reason(c, t);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &texts_key) == LUA_TTABLE)
    lua_rawgeti(L, -1, (lua_Integer) reason);
  else  /* the script has cleared the registry */
    lua_pushstring(L, rs_reason_text(reason));
  rs_defer_note();
  return lua_error(L);
}

static void answer (rs_cancel *c);

/* The call that is to tell where it stands, or NULL. */
static const rs_token *
asked_of (const rs_cancel *c)
{
  /* Acquire: with it comes 'trace'. */
  return atomic_load_explicit(&c->asked, memory_order_acquire);
}

static void
on_hook (lua_State *L, lua_Debug *ar)
{
  rs_cancel *const c = mine;
  rs_token *const t = c != NULL ? top_of(c) : NULL;
  if (c != NULL && asked_of(c) != NULL)
    answer(c);
  if (pending(t))
    stop(c, L, t);
  else if (c == NULL)
    lua_sethook(L, NULL, 0, 0);
  else if (c->limit == 0 || lua_gethookmask(L) != LUA_MASKCOUNT)
    unplant(c, L);  /* planted for a call that has ended */
  else if (t != NULL && ar->event == LUA_HOOKCOUNT) {
    t->spent += (uint64_t) step_of(c);
    if (t->spent >= c->limit) {
      rs_cancel_limit(c, RS_REASON_INSTRUCTIONS);
      stop(c, L, t);
    }
  }
}

void
rs_cancel_check (rs_cancel *c, lua_State *L)
{
  if (rs_cancel_pending(c))
    stop(c, L, top_of(c));
}

/* ------------------------------------------------------- where it stands */

/* Copy as much of 'text' as there is room for in 'size' bytes, with '?' for
   control characters, which a terminal would obey. */
static void
copy_text (char *to, const char *text, size_t size)
{
  size_t n = 0;
  for (; n + 1 < size && text[n] != '\0'; n++)
    to[n] = (unsigned char) text[n] < ' ' || text[n] == 127 ? '?' : text[n];
  to[n] = '\0';
}

/* Copy as much of a traceback as there is room for in 'size' bytes. */
static void
copy_trace (char *to, const char *text, size_t size)
{
  const size_t n = strlen(text), most = size - 1;
  memcpy(to, text, n < most ? n : most);
  to[n < most ? n : most] = '\0';
}

static void
forget_place (rs_cancel *c)
{
  c->at = NULL;
  atomic_store_explicit(&c->looks, 0, memory_order_relaxed);
  atomic_store_explicit(&c->found, false, memory_order_relaxed);
}

/* Note in 'place' which C function runs at 'ar', and from which line it was
   called.  Runs in the handler, see 'look'. */
static void
note_place (rs_cancel *c, lua_State *L, lua_Debug *ar)
{
  if (!lua_getinfo(L, "Sn", ar) || ar->what[0] != 'C')
    return;
  copy_text(c->place.name, ar->name != NULL ? ar->name : "", NAME);
  c->place.line = 0;
  for (int level = 1; level <= CALLERS && c->place.line == 0
                      && lua_getstack(L, level, ar); level++)
    if (lua_getinfo(L, "Sl", ar) && ar->currentline > 0) {
      copy_text(c->place.source, ar->short_src, LUA_IDSIZE);
      c->place.line = ar->currentline;
    }
  atomic_store_explicit(&c->found, true, memory_order_release);
}

/*
 * Find the parts of stacks that the call 't' stands on, the innermost one
 * first; returns how many.  Coroutines between that of the call and the one
 * that runs are not known.  The thread itself, or its handler.
 */
static int
find_levels (const rs_cancel *c, const rs_token *t, rs_levels *parts)
{
  const rs_token *inner = NULL;
  for (const rs_token *i = top_of(c); i != NULL && i != t; i = i->outer)
    inner = i;
  /* What runs inside of the call begins above the level that it had then. */
  lua_State *const L = inner != NULL ? inner->L : coroutine_of(c);
  int n = 0;
  if (L == NULL || t->L == NULL)
    return 0;
  const int depth = rs_traceback_depth(L);
  parts[n++] = (rs_levels) {
    .L = L, .from = inner != NULL ? depth - inner->depth : 0, .until = depth
  };
  if (L != t->L)
    parts[n++] = (rs_levels) {
      .L = t->L, .until = rs_traceback_depth(t->L)
    };
  parts[n - 1].until -= t->depth;
  return n;
}

/* Write down where the call stands that was asked for.  The thread itself, or
   its handler. */
static void
write_trace (rs_cancel *c, const rs_token *t, unsigned request)
{
  rs_levels parts[PARTS];
  const int n = find_levels(c, t, parts);
  rs_traceback_write(parts, n, c->trace, RS_TRACEBACK);
  /* Publishes 'trace'. */
  atomic_store_explicit(&c->told_of, request, memory_order_release);
}

/* The hook answers. */
static void
answer (rs_cancel *c)
{
  pthread_mutex_lock(&c->lock);
  const rs_token *const t = asked_of(c);
  const unsigned request = atomic_load(&c->asks);
  if (t != NULL && atomic_load(&c->told_of) != request) {
    c->writing = 1;
    write_trace(c, t, request);
    c->writing = 0;
    pthread_cond_broadcast(&c->told);
  }
  pthread_mutex_unlock(&c->lock);
}

/*
 * Look where the thread stands, in its signal handler, while the call is
 * stopped by force (0), or is asked where it stands (the number of the
 * request).  True when LOOKS further looks have found the same call; 'ar' is
 * the innermost level then.  The handler may have interrupted any instruction,
 * so all that it reads must be whole at any time:
 *
 * - 'lua_getstack' for level 0 reads one pointer, to the innermost call of
 *   'L'.  That pointer is compared, not followed, until LOOKS further looks
 *   have found the same one.  By then the call has begun long ago, and Lua has
 *   filled in all of its data and of its callers, which do not run meanwhile:
 *   each look plants the hook before, so code in Lua, and each call from C,
 *   would have come to the hook.
 * - 'lua_getinfo' follows the pointer.  It only reads: the call, its function
 *   on the stack, and the code and the constants of its caller.  None of these
 *   moves, except the stack, when it is made larger (in finalizers, or by the
 *   C function; by force the allocator refuses) or smaller.  So
 *   'lua_getinfo' is called only if no block was moved, nor begun to be moved,
 *   since the first look that found the call.
 *
 * A C function that waits in a system call touches none of this.
 */
static bool
look (rs_cancel *c, lua_State *L, unsigned request, lua_Debug *ar)
{
  void *ud;
  const void *const at = lua_getstack(L, 0, ar) ? ar->i_ci : NULL;
  const bool known = at != NULL && lua_getallocf(L, &ud) == rs_alloc_resize;
  const unsigned moves = known ? ((rs_alloc *) ud)->moves : 0;
  if (!known || at != c->at || moves != c->moves || request != c->looks_for) {
    forget_place(c);
    c->at = known ? at : NULL;
    c->moves = moves;
    c->looks_for = request;
    return false;
  }
  return atomic_fetch_add_explicit(&c->looks, 1, memory_order_relaxed) + 1
         == LOOKS;
}

/* Write down where the call stands that was asked for, if the thread is in C,
   and does not move on.  Runs in the handler. */
static void
look_and_answer (rs_cancel *c, lua_State *L, const rs_token *t)
{
  const unsigned request = atomic_load(&c->asks);
  lua_Debug ar;
  if (!c->writing && atomic_load(&c->told_of) != request
      && look(c, L, request, &ar) && lua_getinfo(L, "S", &ar)
      && ar.what[0] == 'C')
    write_trace(c, t, request);
}

/* Has the handler not yet looked LOOKS times at the same call? */
static bool
is_looking (const rs_cancel *c)
{
  return c->signal != 0
      && atomic_load_explicit(&c->looks, memory_order_relaxed) < LOOKS;
}

bool
rs_cancel_place (const rs_cancel *c, char *text, size_t size)
{
  const place *const p = &c->place;
  char where[LUA_IDSIZE + 16] = "";
  if (!atomic_load_explicit(&c->found, memory_order_acquire))
    return false;
  if (p->line > 0)
    snprintf(where, sizeof where, "%s:%d: ", p->source, p->line);
  if (p->name[0] != '\0')
    snprintf(text, size, "%sdid not come back from '%s' (C function)", where,
             p->name);
  else
    snprintf(text, size, "%sdid not come back from a C function", where);
  return true;
}

/* ------------------------------------------------------------ the handler */

/*
 * The handlers that the program had for each signal before 'take_signal'; at
 * most one of the two is not NULL.  Written under the lock 'signals'; read by
 * 'pass_on' in any thread, one word at a time.
 */
static void (*_Atomic plain_before[NSIG]) (int);
static void (*_Atomic info_before[NSIG]) (int, siginfo_t *, void *);

/* Set while a handler of the program, which may call 'on_signal', runs on this
   thread. */
static _Thread_local volatile sig_atomic_t passing;

/* Call the program's handler for a signal that this file did not send.  Does
   nothing when that handler itself has called 'on_signal'. */
static void
pass_on (int signal, siginfo_t *info, void *context)
{
  void (*const plain) (int) = atomic_load(&plain_before[signal]);
  void (*const with_info) (int, siginfo_t *, void *) =
    atomic_load(&info_before[signal]);
  if (passing)
    return;
  passing = 1;
  if (with_info != NULL)
    with_info(signal, info, context);
  else if (plain != NULL)
    plain(signal);
  passing = 0;
}

static void
on_signal (int signal, siginfo_t *info, void *context)
{
  rs_cancel *c = mine;
  while (c != NULL && c->around != NULL && !on_its_way(c, sent_to(c)))
    c = c->around;
  if (c != NULL && info->si_code == SI_TKILL && info->si_pid == getpid()
      && on_its_way(c, sent_to(c))) {
    if (c != mine) {  /* for the call that waits for those of 'mine'? */
      rs_cancel_interrupt();
      atomic_fetch_add_explicit(&c->seen, 1, memory_order_release);
      return;
    }
    lua_State *const L = coroutine_of(c);
    const rs_token *const asked = asked_of(c);
    lua_Debug ar;
    if (L != NULL && (asked != NULL || pending(top_of(c))))
      plant(c, L);
    if (L != NULL && pending(top_of(c))) {
      if (atomic_load_explicit(&c->refuse, memory_order_relaxed)
          && look(c, L, 0, &ar))
        note_place(c, L, &ar);
    }
    else if (L != NULL && asked != NULL)
      look_and_answer(c, L, asked);
    /* Publishes only that the signal has come. */
    atomic_fetch_add_explicit(&c->seen, 1, memory_order_release);
    return;
  }
  pass_on(signal, info, context);
}

/* Remember the handler that the program had for the signal. */
static void
keep_before (int signal, const struct sigaction *old)
{
  const bool informed = (old->sa_flags & SA_SIGINFO) != 0;
  const bool ignored = !informed && (old->sa_handler == SIG_DFL
                                     || old->sa_handler == SIG_IGN);
  atomic_store(&info_before[signal], informed ? old->sa_sigaction : NULL);
  atomic_store(&plain_before[signal], informed || ignored ? NULL
                                                          : old->sa_handler);
}

/* How often 'take_signal' has set the handler, for each signal.  A signal that
   was sent before the last time may have gone to a handler of the program, so
   another one is sent. */
static _Atomic unsigned times_taken[NSIG];

/* Held while a handler is exchanged. */
static pthread_mutex_t signals = PTHREAD_MUTEX_INITIALIZER;

/*
 * Set 'on_signal' as the handler of the signal, unless it is.  Called for each
 * request, and by the timer, since the program may have set another handler
 * meanwhile.  The handler of the program is never set again, since a signal
 * may be on its way.
 *
 * A system call that blocks returns when a signal comes that is to stop a
 * call; one that only asks where the call stands 'restarts' it.  A stop that
 * meets a request to tell is sent again, with its own kind of handler.
 */
static void
take_signal (int signal, bool restarts)
{
  const int flags = SA_SIGINFO | SA_ONSTACK | (restarts ? SA_RESTART : 0);
  struct sigaction now;
  if (signal == 0)
    return;
  pthread_mutex_lock(&signals);
  struct sigaction action = { .sa_flags = flags };
  action.sa_sigaction = on_signal;
  sigemptyset(&action.sa_mask);
  const bool read = sigaction(signal, NULL, &now) == 0;
  const bool ours = read && (now.sa_flags & SA_SIGINFO)
                 && now.sa_sigaction == on_signal;
  if (read && !ours) {
    keep_before(signal, &now);
    sigaction(signal, &action, NULL);
    atomic_fetch_add(&times_taken[signal], 1);
  }
  else if (ours && (now.sa_flags & SA_RESTART) != (flags & SA_RESTART))
    sigaction(signal, &action, NULL);
  pthread_mutex_unlock(&signals);
}

/* -------------------------------------------------------------- life cycle */

static void fire (rs_timer *timer);

rs_cancel *
rs_cancel_new (int signal, const rs_cancel_owner *owner, void *ud)
{
  rs_cancel *const c = calloc(1, sizeof *c);
  if (c == NULL)
    return NULL;
  atomic_init(&c->refs, 1);
  c->owner = owner;
  c->ud = ud;
  c->signal = signal;
  c->thread = pthread_self();
  c->tid = (pid_t) syscall(SYS_gettid);
  if (pthread_getcpuclockid(c->thread, &c->clock) != 0)
    c->clock = CLOCK_MONOTONIC;  /* as if it had a CPU all the time */
  atomic_init(&c->armed, RS_NEVER);
  rs_timer_init(&c->timer, fire);
  rs_mutex_init(&c->lock);
  rs_cond_init(&c->told);
  rs_cancel_begin(c);
  return c;
}

rs_cancel *
rs_cancel_ref (rs_cancel *c)
{
  if (c != NULL)
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
  return c;
}

void
rs_cancel_unref (rs_cancel *c)
{
  /* Release our reads and writes to the thread that frees. */
  if (c == NULL
      || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_timer_clear(&c->timer);  /* a late request may have set it */
  pthread_mutex_destroy(&c->lock);
  pthread_cond_destroy(&c->told);
  free(c->trace);
  free(c);
}

void
rs_cancel_leave (rs_cancel *c)
{
  pthread_mutex_lock(&c->lock);
  c->left = true;
  pthread_mutex_unlock(&c->lock);
  rs_timer_clear(&c->timer);
  if (mine == c)
    rs_cancel_end(c);
}

void
rs_cancel_begin (rs_cancel *c)
{
  c->around = mine;
  atomic_store(&c->interrupted, false);
  atomic_signal_fence(memory_order_seq_cst);
  mine = c;
}

void
rs_cancel_end (rs_cancel *c)
{
  mine = c->around;
}

/* Is the thread that of a host, which runs calls for a while only? */
static bool
is_host (const rs_cancel *c)
{
  return c->owner->lost_thread == NULL;
}

void
rs_cancel_interrupt (void)
{
  rs_cancel *const c = mine;
  if (c != NULL && is_host(c))
    atomic_store(&c->interrupted, true);
}

/* Set up the locks and the timer anew in a child of fork(2): the threads that
   stop calls, and tell of a loss, are not there. */
static void
begin_child (void)
{
  pthread_mutex_init(&signals, NULL);
  if (mine == NULL)
    return;
  rs_mutex_init(&mine->lock);
  rs_cond_init(&mine->told);
  mine->telling = mine->asking = false;
  atomic_store(&mine->asked, NULL);
  rs_list_init(&mine->timer.link);
}

RS_IN_CHILD(begin_child)

const _Atomic bool *
rs_cancel_refusal (const rs_cancel *c)
{
  return &c->refuse;
}

rs_cancel *
rs_cancel_mine (void)
{
  return mine;
}

rs_running *
rs_running_mine (void)
{
  return mine != NULL ? &mine->running : &other;
}

rs_running *
rs_running_host (void)
{
  return &other;
}

void
rs_cancel_keep_hook (rs_cancel *c, lua_Hook call, int mask, int count)
{
  if (call != on_hook)  /* seeding is being stopped? */
    c->kept = (hook) { NULL, call, mask, count };
}

void
rs_cancel_note_hook (rs_cancel *c)
{
  rs_token *const t = top_of(c);
  if (t != NULL)
    t->hooked = true;
}

/* Has a call that waits for the call 't' set a hook?  'restore_hook' would
   remove that hook, too. */
static bool
waits_hooked (const rs_token *t)
{
  bool hooked = false;
  for (t = t->outer; t != NULL; t = t->outer)
    hooked |= t->hooked;
  return hooked;
}

/* A call or an item ends: set the hook that calls begin with on 'L'. */
static void
restore_hook (rs_cancel *c, lua_State *L)
{
  const hook *const h = &c->kept;
  if (lua_gethook(L) != h->call || lua_gethookmask(L) != h->mask
      || lua_gethookcount(L) != h->count)
    lua_sethook(L, h->call, h->mask, h->count);
  for (int i = 0; i < MAX_DISPLACED; i++)
    c->displaced[i].L = NULL;
}

void
rs_cancel_open (rs_cancel *c, lua_State *L)
{
  lua_createtable(L, RS_REASONS, 0);
  for (int i = RS_REASON_NONE + 1; i < RS_REASONS; i++) {
    lua_pushstring(L, reasons[i].text);
    lua_rawseti(L, -2, i);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, &texts_key);
  c->limit = 0;
  c->finalizes = false;
  c->kept = (hook) { .L = NULL };
}

void
rs_cancel_set_limit (rs_cancel *c, uint64_t instructions)
{
  c->limit = instructions;
}

void
rs_cancel_set_finalizes (rs_cancel *c)
{
  c->finalizes = true;
}

bool
rs_cancel_finalizes (const rs_cancel *c)
{
  return c->finalizes;
}

void
rs_cancel_count_guard (rs_cancel *c)
{
  c->guards++;
}

unsigned
rs_cancel_guards (const rs_cancel *c)
{
  return c->guards;
}

/* -------------------------------------------------------------- stopping */

static void
set_level_locked (rs_cancel *c, rs_token *t, int level)
{
  atomic_store_explicit(&t->level, level, memory_order_relaxed);
  if (level == RS_HARD)
    atomic_store_explicit(&t->forced, true, memory_order_relaxed);
  if (t == top_of(c) && is_call(t))
    atomic_store_explicit(&c->refuse, level == RS_HARD, memory_order_relaxed);
}

/* Request that the call 't' be stopped, or its item only; 'grace' is in
   seconds, and not below 0. */
static void
request_locked (rs_cancel *c, rs_token *t, rs_reason reason, bool item,
                double grace)
{
  const double hard_at = rs_deadline(grace);
  rs_reason *const why = item ? &t->item : &t->reason;
  if (*why == RS_REASON_NONE)
    *why = reason;
  if (level_of(t) == RS_GOING) {
    t->hard_at = hard_at;
    set_raised(t, false);
    set_level_locked(c, t, RS_SOFT);
  }
  else if (level_of(t) == RS_SOFT && hard_at < t->hard_at)
    t->hard_at = hard_at;
}

/* Request that the call 't', or its item, be stopped, and all calls inside
   it. */
static void
request_all_locked (rs_cancel *c, rs_token *t, rs_reason reason, bool item,
                    double grace)
{
  for (rs_token *inner = top_of(c); inner != t; inner = inner->outer)
    request_locked(c, inner, RS_REASON_PARENT, false, grace);
  request_locked(c, t, reason, item, grace);
}

/* The CPU time that the thread has had. */
static double
cpu_time (const rs_cancel *c)
{
  struct timespec t = { 0 };
  clock_gettime(c->clock, &t);
  return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

/* True when the thread runs, or wants to: 'R' in the file stat of proc(5). */
static bool
is_runnable (const rs_cancel *c)
{
  char path[64], text[256];
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int) c->tid);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  if (fd >= 0)
    close(fd);
  pthread_setcancelstate(state, NULL);
  text[n > 0 ? n : 0] = '\0';
  const char *const name_end = strrchr(text, ')');
  return name_end != NULL && strncmp(name_end, ") R", 3) == 0;
}

/* True when the thread has not come back since other programs have the CPUs.
   The thread has not ended. */
static bool
is_starved_locked (const rs_cancel *c)
{
  return !c->left && cpu_time(c) - c->forced_at < FAIR && is_runnable(c);
}

/* Stop the call 't', and all calls inside it, by force. */
static void
force_locked (rs_cancel *c, rs_token *t, double now)
{
  for (rs_token *inner = top_of(c); ; inner = inner->outer) {
    if (inner != t && inner->reason == RS_REASON_NONE)
      inner->reason = RS_REASON_PARENT;
    if (level_of(inner) != RS_HARD) {
      inner->lost_at = now + RS_KILL;
      c->forced_at = cpu_time(c);
      set_level_locked(c, inner, RS_HARD);
    }
    if (inner == t)
      break;
  }
}

/* Send a signal to the thread, unless one is on its way to 'on_signal'. */
static void
send_locked (rs_cancel *c)
{
  if (c->signal == 0 || c->left)
    return;
  const unsigned taken = atomic_load(&times_taken[c->signal]);
  if (taken == c->taken && on_its_way(c, sent_to(c)))
    return;
  c->taken = taken;
  atomic_store_explicit(&c->sent,
                        atomic_load_explicit(&c->seen, memory_order_acquire)
                        + 1, memory_order_relaxed);
  pthread_kill(c->thread, c->signal);
}

/* Cancel the outermost call of a host's thread, if it was interrupted.
   Returns the instant of the next look. */
static double
look_locked (rs_cancel *c, double now)
{
  rs_token *t = top_of(c);
  if (t == NULL)
    return RS_NEVER;
  while (t->outer != NULL)
    t = t->outer;
  if (atomic_exchange(&c->interrupted, false))
    request_all_locked(c, t, RS_REASON_CANCELLED, false, RS_GRACE);
  return now + GLANCE;
}

/* Do for each call of the thread what is due at 'now'.  Returns the instant of
   the next step. */
static double
advance_locked (rs_cancel *c, double now)
{
  double next = is_host(c) ? look_locked(c, now) : RS_NEVER;
  for (rs_token *t = top_of(c); t != NULL; t = t->outer) {
    double due = atomic_load(&t->due);
    /* The exchange decides whether the item has ended in time: see
       'settle'. */
    if (due >= 0 && due <= now && atomic_compare_exchange_strong(&t->due, &due,
                                                                 FIRED))
      request_all_locked(c, t, RS_REASON_TIMEOUT, true, RS_GRACE);
    due = atomic_load(&t->due);
    if (due >= 0 && due < next)
      next = due;
    if (level_of(t) == RS_SOFT && t->hard_at <= now)
      force_locked(c, t, now);
    if (level_of(t) == RS_SOFT && t->hard_at < next)
      next = t->hard_at;
    else if (level_of(t) == RS_HARD && t->lost_at <= now && !is_host(c)
             && (c->sleeper == NULL || !c->sleeper->returns)
             && (!is_looking(c) || t->lost_at + SLOW <= now)
             && (t->lost_at + STARVED <= now || !is_starved_locked(c)))
      c->lost = true;
  }
  if (pending(top_of(c)) && !c->lost) {
    send_locked(c);
    if (now + AGAIN < next)
      next = now + AGAIN;
  }
  return c->lost ? RS_NEVER : next;
}

/* Tell the owner that the thread is lost, and end all calls on it as lost, the
   innermost one first.  Releases the lock meanwhile. */
static void
tell_locked (rs_cancel *c)
{
  void *calls[MAX_CALLS];
  int n = 0;
  c->telling = true;
  for (rs_token *t = top_of(c); t != NULL; t = t->outer) {
    t->lost_at = RS_NEVER;
    if (n < MAX_CALLS && is_call(t)) {
      c->owner->hold_call(t->owner);
      calls[n++] = t->owner;
    }
    if (t->outer == NULL)  /* should the thread come back, its calls end */
      force_locked(c, t, rs_now());
  }
  pthread_mutex_unlock(&c->lock);
  c->owner->lost_thread(c->ud);
  for (int i = 0; i < n; i++)
    c->owner->lost_call(calls[i]);
  pthread_mutex_lock(&c->lock);
  c->telling = false;
  pthread_cond_broadcast(&c->told);
}

/* Let the timer fire at 'due' at the latest.  False when there is no thread
   for it. */
static bool
arm (rs_cancel *c, double due)
{
  double armed = atomic_load(&c->armed);
  while (armed > due) {
    if (!atomic_compare_exchange_weak(&c->armed, &armed, due))
      continue;
    const bool ok = rs_timer_set(&c->timer, due);
    if (!ok)
      atomic_store(&c->armed, RS_NEVER);
    return ok;
  }
  return true;
}

/* Do what is due for the thread of 'c': signals, loss, and a wake-up, where
   the thread waits.  Releases the lock.  False when the timer cannot be
   set. */
static bool
step_locked (rs_cancel *c)
{
  const bool lost = c->lost;
  const double next = advance_locked(c, rs_now());
  rs_sleeper sleeper = { .object = NULL };
  if (c->sleeper != NULL && pending(top_of(c))) {
    sleeper = *c->sleeper;
    sleeper.ref(sleeper.object);
  }
  if (c->lost && !lost)
    tell_locked(c);
  pthread_mutex_unlock(&c->lock);
  if (sleeper.wake != NULL) {
    sleeper.wake(sleeper.object);
    sleeper.unref(sleeper.object);
  }
  return arm(c, next);
}

static void
fire (rs_timer *timer)
{
  rs_cancel *const c = RS_LIST_ENTRY(timer, rs_cancel, timer);
  /* The thread of the calls stores 'due' and then loads 'armed'; this thread
     stores 'armed' and then loads 'due'.  So one of the two sees what the
     other has stored. */
  atomic_store(&c->armed, RS_NEVER);
  take_signal(c->signal, false);
  pthread_mutex_lock(&c->lock);
  step_locked(c);
}

/* The token of 'owner', or NULL. */
static rs_token *
find_locked (const rs_cancel *c, const void *owner)
{
  rs_token *t = top_of(c);
  while (t != NULL && t->owner != owner)
    t = t->outer;
  return t;
}

bool
rs_cancel_request (rs_cancel *c, const void *owner, rs_reason reason,
                   double grace)
{
  pthread_mutex_lock(&c->lock);
  rs_token *t = find_locked(c, owner);
  if (t != NULL) {
    pthread_mutex_unlock(&c->lock);
    take_signal(c->signal, false);
    pthread_mutex_lock(&c->lock);
    t = find_locked(c, owner);
  }
  if (t == NULL) {  /* not begun, and will see the wish; or ended */
    pthread_mutex_unlock(&c->lock);
    return true;
  }
  request_all_locked(c, t, reason, false, grace);
  return step_locked(c);
}

/* ------------------------------------------------------- where a call is */

/* The call that was asked where it stands has ended, or has answered, or
   nobody waits for the answer any more. */
static void
stop_asking_locked (rs_cancel *c)
{
  atomic_store_explicit(&c->asked, NULL, memory_order_release);
  atomic_store_explicit(&c->looks, 0, memory_order_relaxed);
  atomic_store_explicit(&c->found, false, memory_order_relaxed);
  pthread_cond_broadcast(&c->told);
}

/* Has the last request to tell been answered? */
static bool
has_answered (const rs_cancel *c)
{
  return atomic_load_explicit(&c->told_of, memory_order_acquire)
         == atomic_load_explicit(&c->asks, memory_order_relaxed);
}

/* Begin to ask the call of 'owner' where it stands.  RS_OK, RS_EDONE,
   RS_EREFUSED, RS_ENOMEM, or RS_ETIMEOUT: others ask until 'deadline'. */
static int
begin_asking_locked (rs_cancel *c, const void *owner, double deadline)
{
  while (c->asking)
    if (rs_cond_wait_until(&c->told, &c->lock, deadline) == RS_ETIMEOUT)
      return RS_ETIMEOUT;
  const rs_token *const t = find_locked(c, owner);
  if (t == NULL || c->left || c->lost)
    return RS_EDONE;
  if (t->L != NULL ? c->signal == 0 && c != mine
                   : c->sleeper != NULL && !c->sleeper->tells)
    return RS_EREFUSED;
  if (c->trace == NULL && (c->trace = malloc(RS_TRACEBACK)) == NULL)
    return RS_ENOMEM;
  c->asking = true;
  atomic_fetch_add(&c->asks, 1);
  if (c == mine) {  /* the call asks for itself, or for one around it */
    write_trace(c, t, atomic_load(&c->asks));
    return RS_OK;
  }
  atomic_store_explicit(&c->asked, t, memory_order_release);
  return RS_OK;
}

/* Ask once more: by a signal, or where the thread waits.  Releases the lock
   meanwhile. */
static void
ask_locked (rs_cancel *c, const rs_token *t)
{
  rs_sleeper sleeper = { .object = NULL };
  if (t->L == NULL && c->sleeper != NULL) {
    sleeper = *c->sleeper;
    sleeper.ref(sleeper.object);
    pthread_mutex_unlock(&c->lock);
    sleeper.wake(sleeper.object);
    sleeper.unref(sleeper.object);
    pthread_mutex_lock(&c->lock);
  }
  else if (t->L != NULL) {
    pthread_mutex_unlock(&c->lock);
    take_signal(c->signal, true);
    pthread_mutex_lock(&c->lock);
    if (asked_of(c) == t)
      send_locked(c);
  }
}

int
rs_cancel_trace (rs_cancel *c, const void *owner, double deadline, char *text,
                 size_t size)
{
  const rs_token *t;
  pthread_mutex_lock(&c->lock);
  int status = begin_asking_locked(c, owner, deadline);
  if (status != RS_OK) {
    pthread_mutex_unlock(&c->lock);
    return status;
  }
  while (!has_answered(c) && (t = asked_of(c)) != NULL
         && rs_now() < deadline) {
    ask_locked(c, t);
    if (!has_answered(c) && asked_of(c) != NULL)
      rs_cond_wait_until(&c->told, &c->lock, fmin(rs_now() + ASK, deadline));
  }
  if (has_answered(c))
    copy_trace(text, c->trace, size);
  else
    status = asked_of(c) == NULL ? RS_EDONE : RS_ETIMEOUT;
  c->asking = false;
  stop_asking_locked(c);
  pthread_mutex_unlock(&c->lock);
  return status;
}

unsigned
rs_cancel_asks (const rs_cancel *c, const rs_token *t)
{
  return asked_of(c) == t && !has_answered(c) ? atomic_load(&c->asks) : 0;
}

void
rs_cancel_tell (rs_cancel *c, unsigned request, const char *text)
{
  pthread_mutex_lock(&c->lock);
  if (asked_of(c) != NULL && atomic_load(&c->asks) == request) {
    copy_trace(c->trace, text, RS_TRACEBACK);
    for (char *p = c->trace; *p != '\0'; p++)  /* nothing a terminal obeys */
      if (((unsigned char) *p < ' ' && *p != '\n' && *p != '\t') || *p == 127)
        *p = '?';
    atomic_store_explicit(&c->told_of, request, memory_order_release);
    pthread_cond_broadcast(&c->told);
  }
  pthread_mutex_unlock(&c->lock);
}

void
rs_cancel_limit (rs_cancel *c, rs_reason reason)
{
  rs_token *const t = top_of(c);
  if (t == NULL || level_of(t) != RS_GOING)
    return;
  pthread_mutex_lock(&c->lock);
  request_locked(c, t, reason, true, RS_GRACE);
  set_raised(t, true);  /* the hook, or Lua for want of memory, raises */
  const double hard_at = t->hard_at;
  pthread_mutex_unlock(&c->lock);
  if (arm(c, hard_at))
    return;
  pthread_mutex_lock(&c->lock);
  force_locked(c, t, rs_now());  /* there is no timer to do it later */
  pthread_mutex_unlock(&c->lock);
}

/* ------------------------------------------ the thread that runs the calls */

/* Wait until all of the 'sent' signals have come, but not for ever, since C
   code may have blocked them.  A signal that comes later finds nothing to
   do. */
static void
drain (const rs_cancel *c, unsigned sent)
{
  const struct timespec moment = { .tv_nsec = 1000 };
  for (int i = 0; i < 1000 && on_its_way(c, sent); i++)
    nanosleep(&moment, NULL);
}

/* Take the hook 'on_hook' from 'L', if it was planted. */
static void
clean (rs_cancel *c, lua_State *L)
{
  if (atomic_exchange_explicit(&c->planted, false, memory_order_relaxed))
    unplant(c, L);
}

void
rs_token_enter (rs_cancel *c, rs_token *t, lua_State *L, void *owner,
                const rs_wish *wish)
{
  rs_token *const outer = top_of(c);
  *t = (rs_token) {
    .outer = outer, .owner = owner, .L = L,
    .depth = outer != NULL && L != NULL ? rs_traceback_depth(L) : 0
  };
  atomic_init(&t->due, RS_NEVER);
  if (outer == NULL) {
    atomic_store_explicit(&c->running.L, L, memory_order_relaxed);
    if (c->limit > 0)
      unplant(c, L);
    if (is_host(c))
      arm(c, rs_now() + GLANCE);
  }
  pthread_mutex_lock(&c->lock);
  atomic_store_explicit(&c->running.top, t, memory_order_relaxed);
  if (outer != NULL && pending(outer))
    request_locked(c, t, RS_REASON_PARENT, false,
                   fmax(0, outer->hard_at - rs_now()));
  pthread_mutex_unlock(&c->lock);
  if (rs_wish_reason(wish) != RS_REASON_NONE)
    rs_cancel_request(c, owner, rs_wish_reason(wish), wish->grace);
}

void
rs_token_set_due (rs_cancel *c, rs_token *t, double timeout)
{
  const double due = rs_deadline(timeout);
  atomic_store(&t->due, due);
  arm(c, due);
}

/* Is it later than 'due'?  Looks at the cheap clock first, which is up to TICK
   behind: mostly it tells that it is not. */
static bool
has_passed (double due)
{
  return rs_now_coarse() + TICK >= due && rs_now() >= due;
}

/* The part of 'rs_token_settle' for requests and time-outs. */
static rs_reason
settle (rs_cancel *c, rs_token *t, lua_State *L)
{
  bool fired = false, late = false;
  if (atomic_load_explicit(&t->due, memory_order_relaxed) != RS_NEVER) {
    const double due = atomic_exchange(&t->due, RS_NEVER);
    fired = due < 0;
    late = !fired && has_passed(due);  /* the timer has not come yet */
  }
  if (!fired && level_of(t) == RS_GOING)
    return late ? RS_REASON_TIMEOUT : RS_REASON_NONE;
  pthread_mutex_lock(&c->lock);
  const rs_reason reason = t->item != RS_REASON_NONE ? t->item : t->reason;
  t->item = RS_REASON_NONE;
  if (t->reason == RS_REASON_NONE)
    set_level_locked(c, t, RS_GOING);
  const unsigned sent = sent_to(c);
  pthread_mutex_unlock(&c->lock);
  drain(c, sent);
  forget_place(c);
  clean(c, L);
  return reason;
}

rs_reason
rs_token_settle (rs_cancel *c, rs_token *t, lua_State *L)
{
  const rs_reason reason = settle(c, t, L);
  if (t->hooked && !waits_hooked(t))
    restore_hook(c, L);
  t->hooked = false;
  return reason;
}

rs_reason
rs_token_leave (rs_cancel *c, rs_token *t, lua_State *L)
{
  assert(top_of(c) == t);
  rs_token *const outer = t->outer;
  pthread_mutex_lock(&c->lock);
  while (c->telling)
    pthread_cond_wait(&c->told, &c->lock);
  atomic_store_explicit(&c->running.top, outer, memory_order_relaxed);
  atomic_store_explicit(&c->refuse, outer != NULL
                                    && level_of(outer) == RS_HARD,
                        memory_order_relaxed);
  if (asked_of(c) == t)
    stop_asking_locked(c);
  const rs_reason reason = t->reason;
  const unsigned sent = sent_to(c);
  pthread_mutex_unlock(&c->lock);
  drain(c, sent);
  forget_place(c);
  if (L != NULL)
    clean(c, L);
  if (outer == NULL) {
    atomic_store_explicit(&c->running.L, NULL, memory_order_relaxed);
    if (L != NULL && lua_gethook(L) != c->kept.call)  /* one of a script? */
      restore_hook(c, L);
  }
  else if (pending(outer))
    plant(c, L);
  return reason;
}

void
rs_cancel_plant (rs_cancel *c, lua_State *L)
{
  if (pending(top_of(c)))
    plant(c, L);
}

void
rs_cancel_forget (rs_cancel *c)
{
  atomic_store_explicit(&c->running.L, NULL, memory_order_relaxed);
  atomic_signal_fence(memory_order_seq_cst);
}

void
rs_cancel_again (rs_cancel *c)
{
  rs_token *const t = top_of(c);
  if (t == NULL || level_of(t) != RS_SOFT)
    return;
  set_raised(t, false);
  lua_State *const L = coroutine_of(c);
  if (L != NULL)
    plant(c, L);
}

/* ------------------------------------------------------------------- waits */

void
rs_cancel_sleeps (rs_cancel *c, const rs_sleeper *sleeper)
{
  if (c == NULL)
    return;
  pthread_mutex_lock(&c->lock);
  c->sleeper = sleeper;
  pthread_mutex_unlock(&c->lock);
}

void
rs_cancel_wakes (rs_cancel *c)
{
  rs_cancel_sleeps(c, NULL);
}
