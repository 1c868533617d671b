/* SPDX-License-Identifier: MIT */
/*
 * runspace.h - parallel runspaces for Lua 5.4: the whole public C interface.
 *
 * A pool owns worker threads; each worker owns a runspace, an isolated
 * 'lua_State' seeded from an initial state.  The caller's thread encodes a
 * function and its arguments into a message, a worker decodes and runs it,
 * and its results come back as a message that is decoded when somebody asks.
 * No two threads ever touch one 'lua_State'.
 *
 *     rs_pool *pool;
 *     rs_job *job;
 *     int n;
 *     rs_pool_open(NULL, &pool, NULL);           -- one worker for each CPU
 *     lua_pushliteral(L, "local x = ...; return x * x");
 *     lua_pushinteger(L, 12);
 *     rs_submit(pool, L, 1, NULL, &job, NULL);   -- takes both off the stack
 *     rs_job_wait(job, L, RS_FOREVER);
 *     rs_job_push(job, L, &n);                   -- pushes 144
 *     rs_job_unref(job);
 *     rs_pool_unref(pool);
 *
 * Conventions that hold throughout:
 *
 *   - Functions that can fail return a status; RS_OK is 0.  Out-parameters
 *     come last and stay untouched on failure, but for 'rs_error'.
 *   - An 'rs_error *' may be NULL; otherwise a failure leaves its text there.
 *   - Times are seconds as a double; instants are on the monotonic clock
 *     ('rs_now').  RS_FOREVER, and nothing else, waits without limit: any
 *     other time below 0 is over, as 'deadline - rs_now()' may be, and what is
 *     no number is RS_EINVAL.
 *   - NULL where an object, a state or a place for a result is needed, and a
 *     number out of its range, are RS_EINVAL; functions without a status do
 *     nothing then, and return NULL, 0 or false.
 *   - Objects are reference counted: what '_new', '_open' and 'rs_submit'
 *     return is owned by the caller and given back with '_unref', which
 *     accepts NULL.  Any thread may hold a reference.
 *   - A 'lua_State' passed in is used only during the call and only by the
 *     calling thread.  [-p, +q, e] is the manual's stack indicator.
 *   - Option structs are valid when filled with zero bytes: zero means the
 *     default of each field.  Their 'size' says how many bytes there are,
 *     'sizeof' of the struct; a library that knows more fields takes the
 *     default for these, and one that knows fewer refuses what it does not
 *     know, unless that is zero.  A size of 0 is the library's own, for
 *     programs that are built together with it.
 *   - Structs that are filled never get more bytes than the caller's header
 *     has for them, and their 'size' tells how many that were.  Those who
 *     call without this header pass the size to the functions with '_sized'.
 *   - Names of jobs, batches and events hold no control characters: they are
 *     shown on terminals.
 *
 * What the library does to the process:
 *
 *   - SIGURG, or the signal of 'rs_pool_options', is taken when a job is first
 *     stopped and stays taken.  Signals that the library did not send go to
 *     the handler that was there before, or was set since;
 *     the library looks at that with each stop, and takes the signal again.
 *     No other signal, and nothing else of the process, is changed.
 *   - After fork(2) pools, and their jobs, batches and events, belong to the
 *     parent: their threads are not in the child.  There functions with a
 *     status return RS_EINVAL ("this pool belongs to another process"), others
 *     do nothing, and a job's state is RS_JOB_LOST.  Dropping the last
 *     reference frees nothing there.  The child may open pools of its own,
 *     with an initial state of the parent's, too; it may call exec(2), or end
 *     in any way: by exit(3), with its states closed, or by _exit(2).  A child
 *     that a job has made ends by itself with status 0 when the job's function
 *     returns.  Children that no handlers of pthread_atfork(3) run in, those
 *     of vfork(2) and _Fork(3), may only call exec(2) or _exit(2).
 *   - A thread of the program's that waits here (rs_job_wait, rs_events_wait,
 *     rs_batch_wait, rs_pool_open, rs_pool_close) may be cancelled by
 *     pthread_cancel(3), of the deferred kind: no lock stays taken, and others
 *     go on with the same objects.  A pool that was being opened is closed;
 *     one that was being closed takes no new work, and is to be closed again,
 *     or dropped.  References of the thread stay: give them back in a handler
 *     of its own (pthread_cleanup_push(3)).  'rs_pool_unref'
 *     is not interrupted.  A state whose thread was cancelled inside a call of
 *     Lua is not to be used any more, nor closed, so its memory is lost.
 *   - exit(3), or the return of 'main', ends the threads where they are; close
 *     the pools first if their jobs are to end.
 *   - Programs of 'parallel.task.execute' end with the process, whatever ends
 *     it.  The first one starts a shell, in a session of its own, which ends
 *     them.  The shell is no child of this process; the child that starts it
 *     ends at once, and is waited for.
 *   - A worker's C stack has 1 MiB, and 4 MiB where a sanitizer is built in.
 *   - 'print' and 'io.write' of a job go to the standard output of the process
 *     in whole lines, and line by line into the job's RS_STREAM_INFORMATION;
 *     'rs_console_write' puts lines of the program's own between them.  Where
 *     nobody reads it any more, the process is sent SIGPIPE, as it is when a
 *     thread of the program's writes there.
 */
#ifndef RUNSPACE_H
#define RUNSPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include <lua.h>

#if defined(__GNUC__)
#define RS_API __attribute__ ((visibility ("default")))
#else
#define RS_API
#endif

#define RS_VERSION "0.1.0"
#define RS_VERSION_NUM 100  /* 10000 * major + 100 * minor + patch */

/* Wait without limit.  No other number does. */
#define RS_FOREVER (-1.0)

/* ---------------------------------------------------------------- status */

enum {
  RS_OK = 0,
  RS_ENOMEM,    /* out of memory */
  RS_EINVAL,    /* an argument is outside what is documented for it */
  RS_ECLOSED,   /* the pool or batch is closed */
  RS_ETIMEOUT,  /* the time is over and nothing changed */
  RS_EFULL,     /* no room now */
  RS_EBUSY,     /* not finished yet */
  RS_EREFUSED,  /* a value cannot be transferred; the error names its path */
  RS_EFORMAT,   /* bytes that are no message of this version */
  RS_EFAILED,   /* code that ran in a runspace raised an error */
  RS_ETHREAD,   /* the system gave no thread */
  RS_EDONE,     /* nothing is left to take */
  RS_EEVENT,    /* events are to be dispatched before waiting goes on */
  RS_ESTOPPED   /* the job that waits is to stop */
};

/* Storage for the text of a failure; long texts are cut with "...". */
typedef struct rs_error {
  int status;
  char text[4088];
} rs_error;

/* "RS_ETIMEOUT", or "?" for what is no status.  Static storage. */
RS_API const char *rs_status_name (int status);

/* "the time is over", or "unknown status".  Static storage. */
RS_API const char *rs_status_message (int status);

/* RS_VERSION of the library that is running. */
RS_API const char *rs_version (void);
RS_API int rs_version_num (void);

/*
 * Calls of fork(2) between the process that loaded the library and this one: 0
 * there, 1 in its children.  Pools, jobs, batches and events that were made
 * when this was another number belong to another process.
 */
RS_API unsigned rs_forks (void);

/* Seconds on the monotonic clock, clock_gettime(2) CLOCK_MONOTONIC. */
RS_API double rs_now (void);

/*
 * CPUs that this process may use: those of sched_getaffinity(2), and no more
 * than the quota of its control groups is worth, rounded up; at least 1.
 */
RS_API unsigned rs_cpus (void);

/* ------------------------------------------------------------------ host */

/*
 * A state for a host, as 'luaL_newstate' makes it, and quicker where it
 * allocates: its memory is made for a state that one thread at a time runs.
 * NULL when out of memory.  Any 'lua_State' can be a host; this one has to be
 * closed with 'rs_host_close', which accepts NULL.
 */
RS_API lua_State *rs_host_open (void);
RS_API void rs_host_close (lua_State *L);

/*
 * [-0, +0, m]  Let 'coroutine.resume', 'wrap' and 'close', where they are
 * there, tell which coroutine runs, for 'rs_host_interrupt'.  Any state; after
 * its libraries were opened.
 */
RS_API void rs_host_track (lua_State *L);

/*
 * [-0, +0, -]  Let the code that runs in the state of the main coroutine 'L',
 * or in a coroutine of it, raise "interrupted!", once; a coroutine that ends
 * by it raises it again where it was resumed or closed.  'told' is called
 * before, unless it is NULL.  A signal handler may call this, on the thread
 * that runs 'L'.
 */
RS_API void rs_host_interrupt (lua_State *L, void (*told) (lua_State *L));

/* The calling thread runs on a stack that begins at the address 'lowest', not
   on its own: a coroutine that nests too deeply is an error there, too. */
RS_API void rs_host_set_stack (void *lowest);

/*
 * [-0, +0, e]  Open Lua's libraries, as 'luaL_openlibs' does it, for a state
 * beside which jobs run: 'math.random' is seeded by the kernel, 'io.popen'
 * waits for no stream that another thread reads, and 'print' writes a line at
 * once, so that no line of a job comes into it.
 */
RS_API void rs_host_open_libs (lua_State *L);

/* --------------------------------------------------------------- message */

/*
 * Encoded Lua values: immutable bytes, reference counted.  A message may
 * hold what can cross only inside this process (a C function by pointer,
 * light userdata), so it is no file format.
 */
typedef struct rs_message rs_message;

/*
 * [-0, +0, -]  Encode the 'n' values on top of the stack as one message;
 * tables keep their cycles, and what two values share stays shared.
 * RS_OK, RS_EREFUSED (the error names the path to the value) or RS_ENOMEM.
 * Calls '__transfer' metamethods, and nothing else of the program's: where a
 * metatable has that function it is called with the value, and returns what is
 * sent instead of it; or a function and further values, with which that is
 * called where the value arrives, and returns what it is there.
 * RS_EINVAL when there are no 'n' values.
 */
RS_API int rs_encode (lua_State *L, int n, rs_message **out, rs_error *err);

/*
 * [-0, +n, e]  Push the values of 'msg' and return how many.  Raises what
 * loading a module that a value needs raises, and a memory error.
 */
RS_API int rs_decode (lua_State *L, rs_message *msg);

/*
 * [-0, +n, e]  Push the values as 'rs_decode' does, without raising:
 * RS_EFAILED and two values, a text that says why and a traceback (a string or
 * nil), where the values cannot be made here.  In a job that is to stop, it
 * raises.
 */
RS_API int rs_decode_try (lua_State *L, rs_message *msg, int *n);

RS_API rs_message *rs_message_ref (rs_message *msg);
RS_API void rs_message_unref (rs_message *msg);

/* Bytes that 'msg' takes. */
RS_API size_t rs_message_size (const rs_message *msg);

/* --------------------------------------------------------- initial state */

/*
 * The beginning of a runspace.  Fill an initial state, then pass it to
 * 'rs_pool_open'; from then on it is constant, and setters return RS_EINVAL.
 * Names and texts are copied.  Setters are for one thread at a time.
 *
 * A runspace is seeded in this order: libraries, path and cpath, preloads,
 * variables and functions, modules, init.  All of them are visible to what
 * comes after.
 */
typedef struct rs_initial_state rs_initial_state;

/* Libraries of Lua, for 'rs_initial_state_set_libs'. */
enum {
  RS_LIB_BASE = 1,
  RS_LIB_PACKAGE = 2,
  RS_LIB_COROUTINE = 4,
  RS_LIB_TABLE = 8,
  RS_LIB_IO = 16,
  RS_LIB_OS = 32,
  RS_LIB_STRING = 64,
  RS_LIB_MATH = 128,
  RS_LIB_UTF8 = 256,
  RS_LIB_DEBUG = 512,
  RS_LIB_ALL = 1023
};

/* NULL when out of memory. */
RS_API rs_initial_state *rs_initial_state_new (void);
RS_API rs_initial_state *rs_initial_state_ref (rs_initial_state *is);
RS_API void rs_initial_state_unref (rs_initial_state *is);

/* Open these of Lua's libraries, RS_LIB_ bits; default RS_LIB_ALL. */
RS_API int rs_initial_state_set_libs (rs_initial_state *is, unsigned libs);

/* Let 'warn' speak from the beginning; default false, as in Lua. */
RS_API int rs_initial_state_set_warnings (rs_initial_state *is, bool on);

/*
 * A list of what code in a runspace may not do, against scripts that are not
 * trusted to be right.  The list is no protection against hostile ones: a
 * thread shares its memory with the process, a process does not.  The list
 * holds from the end of seeding on: modules and init run without it.
 * What comes back from such a runspace is data: functions, pointers, the
 * globals, libraries, and tables whose metatable has something that runs are
 * refused there; what is named has to be loaded here already.
 */
enum { RS_FILES_ALL = 0, RS_FILES_READ, RS_FILES_NONE };
enum {
  RS_FORBID_PROGRAMS = 1,   /* os.execute, io.popen, task.execute */
  RS_FORBID_BYTECODE = 2,   /* load and its like take source only */
  RS_FORBID_DEBUG = 4,      /* the library 'debug' is gone */
  RS_FORBID_C_MODULES = 8,  /* 'require' loads no more of them */
  RS_FORBID_ALL = 15
};
typedef struct rs_sandbox {
  size_t size;              /* sizeof (rs_sandbox) */
  int files;                /* RS_FILES_: what io, os, require do with them */
  unsigned forbid;          /* RS_FORBID_ */
  const char *const *c_modules;  /* names that may be loaded all the same,
                               then NULL; or NULL */
} rs_sandbox;

/* Copies 'sandbox', which takes the place of an earlier one. */
RS_API int rs_initial_state_set_sandbox (rs_initial_state *is,
                                         const rs_sandbox *sandbox);

/*
 * [-0, +0, -]  'is' is made for code that runs in 'L'.  If 'L' is a runspace
 * with a sandbox, its runspaces have that from the beginning of seeding on,
 * modules and init included, and one that is set for 'is' can only forbid
 * more.  Otherwise it changes nothing.
 */
RS_API int rs_initial_state_inherit (rs_initial_state *is, lua_State *L);

/* [-0, +0, -]  'L' is a runspace whose sandbox forbids this, RS_FORBID_. */
RS_API bool rs_sandbox_forbids (lua_State *L, unsigned what);

/* [-0, +0, -]  True, and '*out' filled, when 'L' is a runspace with a
   sandbox; its names are lent, for as long as 'L' is there. */
RS_API bool rs_sandbox_get_sized (lua_State *L, rs_sandbox *out, size_t size);
static inline bool
rs_sandbox_get (lua_State *L, rs_sandbox *out)
{
  return rs_sandbox_get_sized(L, out, sizeof *out);
}

/* 'package.path' and 'package.cpath'; NULL leaves Lua's default. */
RS_API int rs_initial_state_set_path (rs_initial_state *is, const char *path);
RS_API int rs_initial_state_set_cpath (rs_initial_state *is,
                                       const char *cpath);

/*
 * 'package.preload[name] = open'.  With RS_PRELOAD_GLOBAL the module is
 * opened at once and stands in the global 'name' too, as 'luaL_requiref'
 * does it.  The code of 'open' must stay loaded while the process lives.
 * With RS_PRELOAD_SURE it raises for want of memory only, so that who opens a
 * pool need not wait for it.
 */
enum { RS_PRELOAD_GLOBAL = 1, RS_PRELOAD_SURE = 2 };
RS_API int rs_initial_state_add_preload (rs_initial_state *is,
                                         const char *name, lua_CFunction open,
                                         unsigned flags);

/*
 * [-1, +0, -]  'package.preload[name]' is the function, or the chunk of
 * source text, on top of the stack: the module is what it returns.  Errors as
 * 'rs_initial_state_add_variable'.
 */
RS_API int rs_initial_state_add_loader (rs_initial_state *is,
                                        const char *name, lua_State *L,
                                        rs_error *err);

/*
 * [-1, +0, -]  The global 'name' starts as a copy of the value on top of
 * the stack; a function is a value like others.  RS_OK, RS_EREFUSED,
 * RS_ENOMEM or RS_EINVAL; the value is popped in each case.
 */
RS_API int rs_initial_state_add_variable (rs_initial_state *is,
                                          const char *name, lua_State *L,
                                          rs_error *err);

/* 'require(name)' before the first job. */
RS_API int rs_initial_state_add_module (rs_initial_state *is,
                                        const char *name);

/*
 * [-1, +0, -]  Run the function, or the source text, on top of the stack at
 * the end of seeding, with the runspace's own globals.
 */
RS_API int rs_initial_state_set_init (rs_initial_state *is, lua_State *L,
                                      rs_error *err);

/* --------------------------------------------------------------- streams */

/* A job sends records to streams while it runs, beside its results. */
typedef enum rs_stream {
  RS_STREAM_OUTPUT,       /* values beyond the results */
  RS_STREAM_ERROR,        /* errors that do not end the job */
  RS_STREAM_WARNING,
  RS_STREAM_VERBOSE,
  RS_STREAM_DEBUG,
  RS_STREAM_INFORMATION,  /* and the lines that the job prints */
  RS_STREAM_PROGRESS,
  RS_STREAM_EVENT         /* no stream: what 'rs_task_emit' sent */
} rs_stream;

/* "warning" and so on; "event" for RS_STREAM_EVENT. */
RS_API const char *rs_stream_name (rs_stream stream);

/* The stream of that name in '*out'; false when there is none. */
RS_API bool rs_stream_find (const char *name, rs_stream *out);

/* A record that a job sent: immutable, reference counted. */
typedef struct rs_stream_record rs_stream_record;

/* Where a line of RS_STREAM_INFORMATION was printed. */
enum { RS_SOURCE_NONE, RS_SOURCE_STDOUT, RS_SOURCE_STDERR };

typedef struct rs_stream_record_info {
  size_t size;          /* bytes that are filled */
  rs_stream stream;
  uint64_t sequence;    /* over all streams of the job, from 1 */
  double time;          /* instant */
  lua_Integer index;    /* of the item in a map, or 0 */
  int source;           /* RS_SOURCE_ */
  const char *name;     /* of an event, or NULL; lent */
  rs_message *values;   /* lent */
} rs_stream_record_info;

RS_API void rs_stream_record_info_get_sized (const rs_stream_record *record,
                                             rs_stream_record_info *out,
                                             size_t size);
static inline void
rs_stream_record_info_get (const rs_stream_record *record,
                           rs_stream_record_info *out)
{
  rs_stream_record_info_get_sized(record, out, sizeof *out);
}
RS_API void rs_stream_record_unref (rs_stream_record *record);

/*
 * The streams of a job keep this much; then the oldest record goes for each
 * new one, and is counted ('rs_job_info').
 */
#define RS_STREAM_MAX_RECORDS 10000
#define RS_STREAM_MAX_BYTES (4u << 20)

/* Events of a job that wait for its host; 'rs_task_emit' waits at this, unless
   somebody waits in 'rs_job_wait' for the job. */
#define RS_EVENTS_MAX 1000

/* --------------------------------------------------------------- console */

/*
 * Write a line, which ends with a newline, to standard output (1) or standard
 * error (2) in one piece, above the status line if one is shown.
 * 0, or the 'errno' of what failed.  Any thread.
 */
RS_API int rs_console_write (int fd, const char *line, size_t size);

/*
 * Show 'text', one line without its end, as the last line of the terminal
 * that is standard error, until it is replaced, or removed with NULL.  The
 * terminal is the process's, and so is this line.  Any thread.
 */
RS_API void rs_console_status (const char *text);

/* ---------------------------------------------------------------- events */

/*
 * Where a host waits, and hears of its jobs: a queue of jobs that have
 * something new, and a wake-up.  Jobs and batches report to the events that
 * their options name.  One thread (the host's) makes them, waits and takes;
 * any thread may do the rest.
 */
typedef struct rs_events rs_events;

/* NULL when out of memory.  The last reference that the program gives back
   closes the events, though jobs may still report there. */
RS_API rs_events *rs_events_new (void);
RS_API rs_events *rs_events_ref (rs_events *events);
RS_API void rs_events_unref (rs_events *events);

/* The host ends: nothing is queued any more, and no job waits for it. */
RS_API void rs_events_close (rs_events *events);

/*
 * Wait until a job is queued, or a job or batch has ended, or somebody poked,
 * since the last call; or until the job that waits is to stop.  RS_OK or
 * RS_ETIMEOUT.
 */
RS_API int rs_events_wait (rs_events *events, double timeout);

/* Let 'rs_events_wait' return. */
RS_API void rs_events_wake (rs_events *events);

/* Let 'rs_events_wait' return, from a signal handler that runs on the host's
   thread. */
RS_API void rs_events_poke (rs_events *events);

/* Jobs are queued. */
RS_API bool rs_events_pending (rs_events *events);

/*
 * The next job that has something new, a reference, or NULL.  What is new
 * is in its info, its records and its events; what it sends from now on
 * queues it again.
 */
RS_API struct rs_job *rs_events_next (rs_events *events);

/*
 * A descriptor that poll(2) finds readable while 'rs_events_wait' would not
 * wait; made at the first call.  -1, and errno, when there is none.  The
 * events own it, and nobody else may read it.  In a loop of the program's own:
 *
 *     struct pollfd fds[2] = {
 *       { .fd = rs_events_fileno(events), .events = POLLIN },
 *       { .fd = other, .events = POLLIN }
 *     };
 *     while (poll(fds, 2, -1) > 0 || errno == EINTR) {
 *       rs_events_wait(events, 0);            -- the wake-up is taken, so that
 *       rs_job *job;                          -- poll waits for the next one
 *       while ((job = rs_events_next(events)) != NULL) {
 *         rs_stream_record *record;
 *         while ((record = rs_job_deliver(job)) != NULL)
 *           use(record), rs_stream_record_unref(record);
 *         bool *done = rs_job_user(job);      -- the program's own
 *         if (rs_job_settled(job) && !*done) {
 *           *done = true;
 *           finish(job);                      -- rs_job_push, and so on
 *         }
 *         rs_job_unref(job);                  -- the queue's reference
 *       }
 *     }
 *
 * A job is queued for what its option 'listen' names, RS_LISTEN_FINISHED for
 * its end.  A job that ends while it is taken off the queue for something else
 * is found settled, and queued once more for its end: hence 'done'.
 */
RS_API int rs_events_fileno (rs_events *events);

/* A job is queued for: 1u << stream, and these. */
enum {
  RS_LISTEN_STARTED = 1 << 8,
  RS_LISTEN_FINISHED = 1 << 9,
  RS_LISTEN_WAKE = 1 << 10, /* its records wake the host, no more */
  RS_LISTEN_OWN = 1 << 16   /* this and higher bits queue nothing: they are
                               the host's, kept for it in 'rs_job_info' */
};

/* Listen to all jobs that report here, beside what each is asked for. */
RS_API void rs_events_listen (rs_events *events, unsigned mask);

/*
 * Take references to the jobs that report here and have not ended: fills
 * 'out' up to 'room' and returns how many there are.
 */
RS_API size_t rs_events_jobs (rs_events *events, struct rs_job **out,
                              size_t room);

/* ------------------------------------------------------------------ pool */

typedef struct rs_pool rs_pool;

/* The globals that a job has assigned, when it ends. */
enum {
  RS_RESET_GLOBALS = 0,  /* they are gone; modules stay loaded */
  RS_RESET_NONE,         /* they stay for the next job */
  RS_RESET_FRESH         /* each job gets a new state */
};

/* How work is taken back; see 'rs_job_cancel'. */
#define RS_GRACE_DEFAULT 0.1  /* seconds */

/* Where the runspaces of a pool are. */
enum {
  RS_ISOLATION_THREAD = 0,  /* in threads of this process */
  RS_ISOLATION_PROCESS,     /* each in a child process of its own */
  RS_ISOLATION_SERIAL       /* one, on the thread that opens the pool, which
                               runs jobs, in their order, whenever it waits:
                               for a job, a batch, events, or the end of the
                               pool.  It begins no job when the time of that
                               wait is over.  What other threads submit begins
                               when that thread waits next, or wakes in a wait.
                               Only that thread may close the pool, and drop
                               its last reference */
};

/* For 'rs_pool_options.signal'. */
#define RS_NO_SIGNAL (-1)

/* Bytes of the name of a broker's queue at most. */
#define RS_QUEUE_NAME_MAX 200

/* Calls that a server runs at a time, at most. */
#define RS_SERVER_WORKERS_MAX 4096

/* Workers of a pool at most. */
#define RS_WORKERS_MAX 65536

typedef struct rs_pool_options {
  size_t size;            /* sizeof (rs_pool_options) */
  unsigned min;           /* workers that are always there; default 1 */
  unsigned max;           /* workers at most; default 'rs_cpus()', or 'min' */
  double idle;            /* seconds before a worker above 'min' that has
                             nothing to do ends; 0 means 10; RS_FOREVER */
  int reset;              /* RS_RESET_ */
  rs_initial_state *initial_state;  /* lent; default: Lua's libraries */
  size_t memory;          /* bytes that a runspace may take; 0: any.  A
                             process of its own is also bounded (setrlimit(2),
                             RLIMIT_AS): to twice that, for messages are there,
                             too, above what the program itself needs */
  uint64_t instructions;  /* of Lua that a job or item may execute; 0: any.
                             Counting them costs up to half of the speed. */
  uint64_t max_tasks;     /* jobs and items after which a runspace is renewed;
                             0: never.  One that is a process is replaced by
                             the next one, which is started ahead */
  size_t max_bytes;       /* the same, when so many bytes are still held
                             after a job; 0: never */
  size_t queue_jobs;      /* jobs that may be queued; 0: any number.  Chunks
                             of maps, which are few, do not count. */
  size_t queue_bytes;     /* bytes of their messages; 0: any.  A job that is
                             alone may have more. */
  bool pin;               /* each worker stays on one CPU, the first on the
                             first that the process may use, and so on */
  int signal;             /* sent to a worker whose job shall stop; default
                             SIGURG; RS_NO_SIGNAL: jobs stop where they look
                             themselves ('rs_task_checkpoint') */
  void *user;             /* the program's own: 'rs_pool_user' */
  int isolation;          /* RS_ISOLATION_ */
  const char *runspace;   /* lent: the program of the child processes; NULL:
                             this one, if it calls 'rs_worker_main', or else
                             the installed 'runspace', or the one in PATH.
                             With 'hosts' the program there; NULL: the
                             'runspace' in PATH */
  /* Words, ended by NULL; lent.  NULL: none. */
  const char *const *command;  /* starts a worker: what it runs, at last, is
                             'runspace --worker' */
  const char *const *hosts;  /* where workers are, reached by ssh: "name",
                             "user@name", or "name:N", for N workers at
                             most */
  const char *const *ssh;    /* the words before the name of a host; default
                             "ssh" */
  double heartbeat;       /* seconds without a sign of life after which a
                             worker process is lost, from 0.1 on; 0 means 10;
                             RS_FOREVER: it is waited for.  What a command has
                             brought up ends by itself when it has not heard of
                             this process for 6 times as long */
  /* What workers that are processes are given; also by 'command' and on
     'hosts', but for 'env' and what belongs to 'strict'. */
  double cpu_time;        /* seconds of CPU that a job or item may use, by all
                             threads of the process; one that uses more is
                             lost, up to a second later; 0: any */
  int nice;               /* added to the niceness of what jobs run, 0 to
                             19 */
  const char *cwd;        /* lent: the working directory; NULL: that of this
                             process */
  const char *const *env; /* lent, ended by NULL: "NAME=value" sets a variable
                             beside those of this process, "NAME" takes one
                             away; NULL: nothing is changed */
  bool strict;            /* a wall around each child: it has no files but
                             those of 'readable' and 'writable', no network, no
                             variables but those of 'env', and starts no
                             programs.  It takes the program 'bwrap', of the
                             package bubblewrap, in PATH */
  const char *const *readable;  /* lent, ended by NULL: files and directories,
                             with all that is in them; NULL: none */
  const char *const *writable;  /* the same, for what may be changed, too */
  const char *const *globals;  /* lent: as in rs_job_options, for what does not
                             say; NULL: what functions read */
  const char *broker;     /* lent, as the next two: calls go to the workers of
                             a broker, amqp[s]://user@host/vhost; NULL: none */
  const char *broker_queue;  /* the queue there whose workers run them
                             ('rs_server_open') */
  const char *key;        /* path of the file with the key that the workers
                             of the queue have; NULL: they have none */
  bool adapt;             /* 'max' is where the pool begins: while jobs are
                             queued, and its workers wait more than they
                             compute, it may have more of them, up to 32, or 4
                             for each CPU.  Only for threads: what happens
                             elsewhere cannot be seen here */
} rs_pool_options;

/*
 * Open a pool.  Its first 'min' workers are started before this returns, and
 * one of them is seeded, or all where that runs code of scripts; so an initial
 * state that cannot be established fails here, with the message that its code
 * raised.  A worker that only needs memory is not waited for; its jobs may
 * fail.  'options' may be NULL.
 * With RS_ISOLATION_PROCESS all of the first workers are waited for.  What
 * only this process has cannot be in the initial state then: C functions that
 * open modules (RS_EREFUSED), and light userdata.
 * With 'command' or 'hosts' each worker is a process behind pipes, wherever it
 * is; the same holds, but that the pool is open when one worker is, and
 * 'failure' of its rs_pool_info tells of the others.  'max' is as many workers
 * as 'hosts' name by default, where a name without a number stands for one,
 * and 'min' is 'max'.  ssh gets options behind the words of 'ssh', so that
 * those count: -T, BatchMode=yes, ConnectTimeout=10, ServerAliveInterval=10,
 * ServerAliveCountMax=3.
 * With 'broker' the workers are elsewhere: each of this pool's, 16 at most by
 * default, waits for one call.  The pool is open when the broker is reached.
 * RS_OK, RS_EINVAL, RS_ENOMEM, RS_EREFUSED, RS_EFAILED (seeding raised, a
 * process could not be started, or the broker not be reached) or RS_ETHREAD.
 * Any thread.
 */
RS_API int rs_pool_open (const rs_pool_options *options, rs_pool **out,
                         rs_error *err);

/*
 * Close: take no new work but that of its own jobs, let what is queued and
 * running end, join the workers.  After 'timeout' seconds what is still queued
 * is cancelled, and what is running is stopped as 'rs_job_cancel' does it;
 * workers whose jobs are lost are left behind (they free themselves if they
 * ever end).  What is queued when all workers are lost is cancelled at once.
 * A second close is harmless.
 * RS_OK, or RS_ETIMEOUT when work was cancelled or a worker left behind.
 * Any thread but the pool's own workers (RS_EINVAL).
 */
RS_API int rs_pool_close (rs_pool *pool, double timeout);

/*
 * Let the pool have at least 'min' and at most 'max' workers from now on; 0
 * keeps what is.  Workers that are missing are started before this returns;
 * those that are too many end with their jobs.  'max' of a pool with 'hosts'
 * can be no more than it was at first; a pool that adapts does so no more once
 * 'max' is given.
 * RS_OK, RS_EINVAL or RS_ECLOSED.  Any thread.
 */
RS_API int rs_pool_resize (rs_pool *pool, unsigned min, unsigned max,
                           rs_error *err);

/*
 * Begin no queued job until 'rs_pool_resume'.  What runs goes on, and what it
 * waits for is run; so are the calls of 'rs_pool_everywhere'.  A close resumes
 * the pool.  RS_OK, RS_EINVAL or RS_ECLOSED.  Any thread.
 */
RS_API int rs_pool_pause (rs_pool *pool);
RS_API int rs_pool_resume (rs_pool *pool);

/* Cancel all its jobs, and stop its maps.  Any thread. */
RS_API void rs_pool_cancel (rs_pool *pool, double grace);

/* The 'user' of the pool's options.  Any thread. */
RS_API void *rs_pool_user (const rs_pool *pool);

/*
 * Let 'events' wake once, when a job leaves the queue or the pool is closed;
 * for who was told RS_EFULL, and looks again now.  Any thread.
 */
RS_API int rs_pool_await_room (rs_pool *pool, rs_events *events);

/* The last reference closes the pool, with a 'timeout' of 0: it cancels what
   is queued, stops what runs, and waits until that has ended, or is lost, some
   two seconds at most. */
RS_API rs_pool *rs_pool_ref (rs_pool *pool);
RS_API void rs_pool_unref (rs_pool *pool);

/*
 * The pool whose worker owns 'L', or NULL when 'L' is no runspace.  Lent.
 */
RS_API rs_pool *rs_pool_current (lua_State *L);

/*
 * To be called first in 'main' by a program whose own C modules the child
 * processes of its pools shall find: then they run this program, with the one
 * argument --worker.  With that argument the function serves a runspace on
 * standard input and output, until the other side closes them, and returns an
 * exit status if it could not begin.  Otherwise it returns -1 at once.
 */
RS_API int rs_worker_main (int argc, char **argv);

/* Arrays by state, or by stream, have room for some that are to come. */
enum { RS_JOB_STATES_ROOM = 16, RS_STREAMS_ROOM = 16 };

typedef struct rs_pool_info {
  size_t size;              /* bytes that are filled */
  unsigned min, max;
  unsigned workers;         /* alive */
  unsigned idle;            /* of these, waiting for work */
  unsigned stuck;           /* left behind, still running C or Lua code */
  size_t queued;            /* jobs and chunks of maps not yet started */
  size_t running;
  uint64_t finished;        /* jobs and chunks of maps, since opening */
  uint64_t ended[RS_JOB_STATES_ROOM];  /* jobs and items, by rs_job_state */
  size_t bytes;             /* memory of the runspaces after their last job */
  uint64_t started_workers; /* threads since opening */
  uint64_t failed_workers;  /* threads or states that could not be made */
  uint64_t lost_workers;    /* that were left behind, since opening */
  uint64_t renewed;         /* states replaced by new ones */
  int signal;               /* that stops its jobs, or RS_NO_SIGNAL */
  bool closed;
  char failure[256];        /* the last reason for a failed worker, or "" */
  bool paused;              /* 'rs_pool_pause' */
  bool adapts;              /* 'adapt' of its options, and no 'rs_pool_resize'
                               since */
  size_t delayed;           /* of 'queued', those that may not start yet */
} rs_pool_info;

RS_API void rs_pool_info_get_sized (rs_pool *pool, rs_pool_info *out,
                                    size_t size);
static inline void
rs_pool_info_get (rs_pool *pool, rs_pool_info *out)
{
  rs_pool_info_get_sized(pool, out, sizeof *out);
}

/* The queue of a pool that has 'broker'. */
typedef struct rs_broker_info {
  size_t size;              /* bytes that are filled */
  char url[256];            /* without a password */
  char queue[RS_QUEUE_NAME_MAX + 1];
  uint64_t waiting;         /* calls of all callers that no worker has taken */
  uint64_t servers;         /* that take calls: 'runspace --serve' */
} rs_broker_info;

/* Fill 'out'; false for a pool without a broker.  The numbers are those that
   the broker has told last, and it is asked anew.  Any thread. */
RS_API bool rs_pool_broker (rs_pool *pool, rs_broker_info *out);

/*
 * What works for a queue of a broker ('broker' of rs_pool_options): it takes
 * calls from there, runs them in child processes, and sends back what they
 * leave.  Servers come and go as they like, on any host.  The child processes
 * run this program, if it calls 'rs_worker_main', or else 'runspace'.
 */
typedef struct rs_server rs_server;

typedef struct rs_server_options {
  size_t size;            /* sizeof (rs_server_options) */
  const char *broker;     /* lent, as the next two: URL of the broker */
  const char *queue;      /* its queue */
  const char *key;        /* path of a file with the key that callers have;
                             nothing is run that is not signed by it.  NULL:
                             whoever can write to the queue runs code here */
  unsigned workers;       /* calls at a time; default 'rs_cpus()' */
  uint64_t max_jobs;      /* calls after which it ends; 0: any number */
  double idle;            /* seconds without a call after which it ends; 0:
                             it does not */
  void (*log) (void *user, const char *line);  /* gets a line for what
                             happens; from any thread; or NULL */
  void *user;
} rs_server_options;

/*
 * Begin to serve.  The connection is made, and made again, meanwhile.  What
 * calls print goes to their callers from here on, and the process has no
 * status line at its terminal.
 * RS_OK, RS_EINVAL, RS_ENOMEM, RS_ETHREAD, or RS_EFAILED: the module for
 * brokers is not installed, or the key cannot be read.  Any thread.
 */
RS_API int rs_server_open (const rs_server_options *options, rs_server **out,
                           rs_error *err);

/* Wait until it has ended, 'timeout' seconds at most.  RS_OK, RS_ETIMEOUT, or
   RS_EFAILED: the broker has refused it.  Any thread. */
RS_API int rs_server_wait (rs_server *server, double timeout, rs_error *err);

/* Take no more calls, and end after those that run.  NULL is accepted.  Any
   thread. */
RS_API void rs_server_stop (rs_server *server);

/* Stop what runs, which its callers are told as lost, and free the server.
   NULL is accepted. */
RS_API void rs_server_close (rs_server *server);

/* A host of a pool that has 'hosts'. */
typedef struct rs_host_info {
  char name[128];           /* cut if it is longer */
  unsigned workers;         /* that are there, or are coming up */
  unsigned max;             /* workers that it may have */
  char failure[256];        /* why it could not be reached when that was tried
                               last; "": it could be */
} rs_host_info;

/* Fill 'out' with the hosts, up to 'room' of them, and return how many there
   are; 0 for a pool without hosts.  Any thread. */
RS_API size_t rs_pool_hosts (rs_pool *pool, rs_host_info *out, size_t room);

/* ------------------------------------------------------------------- job */

/*
 * A job is a call in a runspace, and ends in exactly one final state.
 */
typedef struct rs_job rs_job;

typedef enum rs_job_state {
  RS_JOB_DELAYED = -1,           /* queued, and does not start before its
                                    'start_after' or 'retry_delay' is over */
  RS_JOB_QUEUED,
  RS_JOB_RUNNING,
  RS_JOB_STOPPING,               /* asked to stop, has not ended yet */
  RS_JOB_COMPLETED,              /* the first final state */
  RS_JOB_COMPLETED_WITH_ERRORS,
  RS_JOB_FAILED,                 /* it raised an error */
  RS_JOB_TIMED_OUT,
  RS_JOB_CANCELLED,
  RS_JOB_LOST                    /* its worker never came back from it */
} rs_job_state;

/* "completed_with_errors" and so on: the words of the Lua interface. */
RS_API const char *rs_job_state_name (rs_job_state state);

/* Failures after which a job is tried again, for 'retry_on'. */
enum {
  RS_RETRY_ERROR = 1,        /* it raised */
  RS_RETRY_TIMEOUT = 2,      /* it took too long */
  RS_RETRY_MEMORY = 4,       /* it reached a limit */
  RS_RETRY_INSTRUCTIONS = 8,
  RS_RETRY_DEFAULT = 0,      /* the first two */
  RS_RETRY_ALL = 15,         /* all of the above */
  RS_RETRY_LOST = 16         /* it was lost with its worker, a process: refused
                                by pools of threads, where it may still be
                                running.  It runs again when that process is
                                over for certain: one that a command has
                                brought up ends 7 times 'heartbeat' after it
                                was lost, at the latest.  Items of a chunk that
                                was lost run again one at a time. */
};

/* Jobs of a higher priority start first; of one, in their order. */
#define RS_PRIORITY_MAX 10   /* and its negative */

/* For 'globals' in the options of jobs, batches and pools: no global
   travels. */
RS_API extern const char *const rs_no_globals[];
#define RS_NO_GLOBALS rs_no_globals

typedef struct rs_job_options {
  size_t size;        /* sizeof (rs_job_options) */
  const char *name;   /* copied; default "job-" and the id */
  rs_events *events;  /* where the job reports; a reference is taken */
  unsigned listen;    /* what queues it there, see RS_LISTEN_ */
  double timeout;     /* seconds it may run, each time; 0: any */
  double deadline;    /* seconds from now to its end; 0: any */
  unsigned retries;   /* further attempts when it fails */
  unsigned retry_on;  /* RS_RETRY_ */
  int priority;       /* -RS_PRIORITY_MAX to RS_PRIORITY_MAX */
  unsigned slot;      /* of the module 'parallel'; 0 */
  void *user;         /* the program's own: 'rs_job_user' */
  bool awaited;       /* the job that submits it will wait for it: so it is one
                         level deeper, even if it begins before that waits */
  const char *const *globals;  /* names of globals, ended by NULL, that travel
                         besides those that functions read; NULL: as the pool
                         has it; RS_NO_GLOBALS: none travels */
  const lua_Integer *seed;  /* where 'math.random' begins in each attempt, as
                         after 'math.randomseed' of this number; NULL: where
                         the runspace has it.  Copied */
  double retry_delay; /* seconds from a failure to the next attempt, of which a
                         random half at most is left out; no worker is held
                         meanwhile; 0: none */
  double backoff;     /* factor by which the delay grows with each further
                         failure, from 1 on; 0: 1 */
  double max_delay;   /* seconds that a delay grows to; 0: any */
  double start_after; /* seconds from now before which the job does not
                         start */
} rs_job_options;

typedef struct rs_job_info {
  size_t size;           /* bytes that are filled */
  uint64_t id;           /* unique in the process, from 1 */
  rs_job_state state;
  unsigned worker;       /* number of the worker in its pool, from 1; or 0 */
  unsigned attempts;     /* times that it was started */
  double created;        /* instants; 0 until they are reached */
  double started;
  double finished;
  const char *reason;    /* why it ended as it did; NULL when completed, or
                            before its end; lives as long as the job */
  uint64_t sent;         /* sequence of the last record or event */
  uint64_t dropped[RS_STREAMS_ROOM];  /* records that did not fit, by
                            rs_stream */
  unsigned listen;       /* what queues it */
  bool chunk;            /* no job of its own, but a part of a batch */
  bool seen;             /* somebody looked at its end */
  bool forgotten;        /* nobody will */
  bool unseen;           /* it ended badly, not as cancelled, and nobody has
                            looked yet */
  const char *failure;   /* why it ended without a result: where it was lost,
                            or that no worker could run it; NULL where nothing
                            is known; lives as long as the job */
  const char *host;      /* of 'hosts' of the pool, where an attempt has ended;
                            NULL: none has, or on this host; lives as long as
                            the job */
} rs_job_info;

/*
 * [-(nargs+1), +0, -]  Queue a call of the function (or chunk of source, a
 * string) below 'nargs' arguments on top of the stack, as 'lua_call' takes
 * them.  Never waits.  The reference that is returned may be dropped at
 * once: the job runs all the same.  With 'out' NULL none is returned.
 * RS_OK, RS_EREFUSED, RS_ECLOSED, RS_ENOMEM, RS_EINVAL (no function, bad
 * source, an option, or 320 jobs wait for one another and 'L' runs in the
 * last of them), RS_ETHREAD (the pool has no worker and none can be made),
 * RS_EFULL (its queue is).  In a runspace of the same pool a job runs here and
 * now rather than not: pass the running 'L'.  A pool whose workers are all
 * lost takes the job, which waits until one of them comes back.
 * The stack is popped in each case but one: when it has no 'nargs' + 1 values
 * it stays as it is.  Any thread that owns 'L'.
 */
RS_API int rs_submit (rs_pool *pool, lua_State *L, int nargs,
                      const rs_job_options *options, rs_job **out,
                      rs_error *err);

/* For which runspaces a standing call is. */
enum {
  RS_EACH_RUNSPACE = 0,
  RS_EACH_HOST        /* one at each host of a pool with 'hosts' */
};

/*
 * A standing call: each runspace of a pool runs it once, those that are there
 * and each one that comes later (of a new worker, or in place of one that was
 * lost or renewed), before it runs anything else.
 */
typedef struct rs_standing rs_standing;

/*
 * [-(nargs+1), +0, -]  Let each runspace of the pool call the function (or
 * chunk of source) below 'nargs' arguments once.  What the function assigns to
 * globals stays in the runspace, as with 'init'.  A worker that is busy makes
 * the call when its job has ended, before other jobs.  Never waits.
 *
 * There is a job for each worker that is there, with its number as 'worker'
 * from the start; with RS_EACH_HOST for one worker of each host, with its name
 * as 'host'.  A pool that has lost all its workers starts one.  Runspaces that
 * come later have jobs of their own, which report to the events of 'options';
 * one whose job fails is not used: its worker ends, as one whose 'init' has
 * failed ('failure' of rs_pool_info), and so do jobs for which no worker is
 * left.  A job that is cancelled there runs again in the next runspace.
 *
 * 'options' may be NULL; its 'deadline' is for the jobs of workers that are
 * there, its 'retries' and 'priority' have to be 0.
 *
 * 'out', if it is not NULL, gets the standing call, which
 * 'rs_standing_close' takes back; the call itself ends with the pool, or by
 * 'rs_standing_withdraw'.
 * RS_OK, RS_EINVAL (as 'rs_submit'; 'each' is RS_EACH_HOST and the pool has no
 * hosts; the pool has a broker, so that its jobs run in whatever runspace of
 * the queue is free; or 'L' runs a job of the pool, whose runspace could not
 * run another one), RS_EREFUSED, RS_ECLOSED, RS_ENOMEM, RS_ETHREAD (no worker
 * is left, and none can be started).  The stack is popped as by 'rs_submit'.
 * Any thread that owns 'L'.
 */
RS_API int rs_pool_everywhere (rs_pool *pool, lua_State *L, int nargs,
                               int each, const rs_job_options *options,
                               rs_standing **out, rs_error *err);

/* The job number 'i', from 0 on, of those for workers that were there; lent.
   NULL: there are no more.  The thread that has the call, as below. */
RS_API rs_job *rs_standing_job (rs_standing *call, size_t i);

/* Runspaces that come from now on are not concerned, and those that have come
   since the call was made are stopped in it.  Its jobs in the others go on. */
RS_API void rs_standing_withdraw (rs_standing *call);

/* Give the call and its jobs back; NULL is accepted.  A job that has failed,
   or will, and that nobody has looked at, is told as by 'rs_job_forget'. */
RS_API void rs_standing_close (rs_standing *call);

/*
 * Wait until the job has ended, 'timeout' seconds at most.  In a runspace,
 * pass the running 'L': a job that is still queued at the runspace's own
 * pool is then run here, so that jobs that wait for jobs cannot starve a
 * pool.  Elsewhere 'L' may be NULL and is not used.
 * Nobody takes the job's events meanwhile, so as many as it emits are kept for
 * 'rs_job_deliver', beyond RS_EVENTS_MAX too.
 * RS_OK, RS_ETIMEOUT, RS_EINVAL, or RS_ESTOPPED when the job that waits shall
 * stop.  Any thread.
 */
RS_API int rs_job_wait (rs_job *job, lua_State *L, double timeout);

/*
 * Stop a job.  A queued one ends at once.  In a running one an error is raised
 * where it is, once, so that its '<close>' variables and what stands behind
 * 'pcall' can clean up; 'grace' seconds later (below 0: RS_GRACE_DEFAULT) it
 * is raised at every instruction, until the job has ended.  Blocking system
 * calls are interrupted.  What does not end within a second even so, since it
 * is in C code that takes long, is lost: its worker is left behind and
 * replaced, unless too many are already (twice as many as the pool has, and 8
 * at least).  Whatever the job makes of it, it ends as cancelled (or lost).
 * May be called again, with less grace.
 * RS_OK; RS_EDONE when it has ended already; RS_ETHREAD when the system gives
 * no thread to see to the second half: it was asked to stop, once.
 * Any thread.
 */
RS_API int rs_job_cancel (rs_job *job, double grace);

/*
 * Write where a running job stands into 'text', 'size' bytes with the zero, as
 * 'luaL_traceback' does.  The job is not stopped, and runs on.  It is asked by
 * the signal of its pool, or by a message where it is in another process; it
 * answers at once, in C within some milliseconds: then the first line names
 * the function, and the next one where it was called.  4000 bytes are enough.
 * RS_OK; RS_EBUSY: it is queued; RS_EDONE: it has ended; RS_ETIMEOUT: it has
 * not answered within 'timeout' seconds; RS_EREFUSED: it cannot be asked, in a
 * pool without a signal or with a broker; RS_EINVAL; RS_ENOMEM.
 * Any thread.
 */
RS_API int rs_job_traceback (rs_job *job, double timeout, char *text,
                             size_t size, rs_error *err);

/* Any thread, at any time. */
RS_API void rs_job_info_get_sized (rs_job *job, rs_job_info *out,
                                   size_t size);
static inline void
rs_job_info_get (rs_job *job, rs_job_info *out)
{
  rs_job_info_get_sized(job, out, sizeof *out);
}

/* The 'user' of the job's options.  Any thread. */
RS_API void *rs_job_user (const rs_job *job);

/* The name, which lives as long as the job: that of its options, or one that
   is made now.  Any thread. */
RS_API const char *rs_job_name (rs_job *job);

/*
 * [-0, +n, e]  Push what the job left.  Completed: its results, RS_OK.
 * Ended otherwise: the error value and the runspace's traceback (a string
 * or nil), RS_EFAILED.  RS_EBUSY, and nothing pushed, before its end.
 * May be called again, and pushes new copies.
 * Results that cannot be rebuilt in 'L' (a module is missing, a function that
 * rebuilds raises, memory) make a completed job a failed one from then on, for
 * all who look: RS_EFAILED, and a text that says why.  An error value that
 * cannot be rebuilt is a text.  In a job that is to stop, it raises.
 * A memory error raises, too: call it from a C function of 'L' or by
 * 'lua_pcall'.  Any thread that owns 'L', and several at once with states of
 * their own.
 */
RS_API int rs_job_push (rs_job *job, lua_State *L, int *n);

/* The pool that it was submitted to.  Lent, for as long as that is open. */
RS_API rs_pool *rs_job_pool (rs_job *job);

/*
 * The first record kept whose sequence is above 'after', a reference, or
 * NULL.  Any thread, while the job runs and after it.
 */
RS_API rs_stream_record *rs_job_record (rs_job *job, uint64_t after);

/*
 * The next record or event, by sequence, that this function has not given
 * yet, a reference, or NULL.  Events are kept until then.  The host's thread.
 */
RS_API rs_stream_record *rs_job_deliver (rs_job *job);

/* The job has ended, and is queued at its events if that queues it. */
RS_API bool rs_job_settled (const rs_job *job);

/* Queue the job for 'mask', too, and once now: something may have happened
   already. */
RS_API void rs_job_listen (rs_job *job, unsigned mask);

/* Give the reference back.  A bad end that nobody saw, or will see, queues the
   job at its events. */
RS_API void rs_job_forget (rs_job *job);

RS_API rs_job *rs_job_ref (rs_job *job);
RS_API void rs_job_unref (rs_job *job);

/* ----------------------------------------------------------------- batch */

/*
 * A map in flight: one function, many items.  The function crosses once to
 * each runspace; items travel in chunks whose size follows the measured
 * cost of an item.  One thread (the one that owns 'L') opens, fills and
 * empties a batch:
 *
 *     while there are items and rs_batch_room(b) > 0:
 *       for each of that many items:  push its values; rs_batch_add
 *       rs_batch_flush
 *     when there are no more:  rs_batch_finish
 *     rs_batch_wait               -- the next finished chunk
 *     while rs_batch_next == RS_OK:  take a record
 */
typedef struct rs_batch rs_batch;

/* Flags of a batch. */
enum {
  RS_BATCH_RECORDS = 1,  /* time each item and bring back all its results;
                            otherwise only the first comes back */
  RS_BATCH_CONTINUE = 2, /* a failed item does not stop the others */
  RS_BATCH_EAGER = 4,    /* chunks stay small: results matter early */
  RS_BATCH_CANCEL = 8    /* the failure that stops the batch cancels what runs,
                            too, as 'rs_batch_cancel' does */
};

typedef struct rs_batch_options {
  size_t size;      /* sizeof (rs_batch_options) */
  unsigned limit;   /* chunks in flight; default: what keeps the pool busy */
  size_t chunk;     /* items to a chunk; default: by measured cost */
  size_t total;     /* items to come, where known; 0: not known */
  unsigned flags;   /* RS_BATCH_ */
  const char *name; /* copied; default "batch-" and the id */
  rs_events *events;  /* where its chunks report; a reference is taken */
  unsigned listen;    /* what queues them there; their id is the batch's */
  double timeout;     /* seconds an item may take; 0: any */
  double deadline;    /* seconds from now to the end of the last; 0: any */
  unsigned retries;   /* further attempts of an item that fails */
  unsigned retry_on;  /* RS_RETRY_ */
  size_t max_failures;  /* items that fail until no more start; default: 1, or
                           with RS_BATCH_CONTINUE any number */
  int priority;       /* of its chunks, as of jobs */
  const char *const *globals;  /* as in rs_job_options */
  const lua_Integer *seed;  /* where 'math.random' begins in each attempt of
                         an item: at a number made of this one and the index
                         of the item; NULL: where the runspace has it.
                         Copied */
  double retry_delay; /* of an item, as the next two; as in rs_job_options */
  double backoff;
  double max_delay;
  unsigned rate;      /* attempts of items that begin within 'per' seconds, at
                         most; 0: any number.  With this or 'key_limit' a chunk
                         has one item */
  double per;         /* seconds; needed with 'rate' */
  unsigned key_limit; /* items of one key at work at a time, at most:
                         'rs_batch_key'; 0: any number */
} rs_batch_options;

typedef struct rs_record {
  size_t size;         /* bytes that are filled */
  lua_Integer index;   /* of the item, from 1 in the order of adding */
  rs_job_state state;
  int n;               /* values pushed */
  unsigned worker;
  unsigned attempts;   /* how often it was started */
  const char *reason;  /* why it ended as it did, as in 'rs_job_info' */
  double queued;       /* seconds from adding to start */
  double duration;     /* seconds from start to end */
  const char *host;    /* as in 'rs_job_info'; lives as long as the batch */
} rs_record;

/*
 * [-(nargs+1), +0, -]  Open a batch for the function (or source text) below
 * 'nargs' further arguments on top of the stack; the latter follow each
 * item's values.  The stack is popped in each case.  Errors as 'rs_submit'.
 */
RS_API int rs_batch_open (rs_pool *pool, lua_State *L, int nargs,
                          const rs_batch_options *options, rs_batch **out,
                          rs_error *err);

/* Items that the batch would take now as its next chunk; 0 when it is full,
   finished, or stopped by a failure. */
RS_API size_t rs_batch_room (rs_batch *batch);

/*
 * [-n, +0, -]  Add one item: the 'n' values on top of the stack (1 as a
 * rule) become the first arguments of the call.  RS_OK, RS_EREFUSED,
 * RS_ENOMEM, RS_ECLOSED; the values are popped in each case.  A '__transfer'
 * of an item gets RS_EBUSY from all calls here that would change the items.
 */
RS_API int rs_batch_add (rs_batch *batch, lua_State *L, int n, rs_error *err);

/*
 * Set the key of the items that are added from now on: 'size' bytes, copied;
 * NULL: none, the default.  No more than 'key_limit' items of a key are at
 * work at a time, and items of other keys go on meanwhile: the batch takes
 * RS_BATCH_HELD items that wait.  RS_OK, RS_ENOMEM, RS_EINVAL (the batch was
 * opened without 'key_limit').
 */
#define RS_BATCH_HELD 10000
RS_API int rs_batch_key (rs_batch *batch, const char *key, size_t size,
                         rs_error *err);

/*
 * [-0, +0, e]  Add 't[from]', t[from + 1], ..., at most 'n' of them, as items
 * of one value, and submit them, in as many chunks as the batch takes now.
 * 't' is what is at 'index'; 'added' says how many were added, also when the
 * next one could not be.  Raises only what a metamethod of 't' raises.
 */
RS_API int rs_batch_add_array (rs_batch *batch, lua_State *L, int index,
                               lua_Integer from, size_t n, size_t *added,
                               rs_error *err);

/* Add the 'count' integers first, first + step, ..., of which the last one is
   an integer, too.  Nothing is encoded. */
RS_API int rs_batch_add_range (rs_batch *batch, lua_Integer first,
                               lua_Integer step, size_t count, rs_error *err);

/* Submit what was added since the last flush as a chunk. */
RS_API int rs_batch_flush (rs_batch *batch, rs_error *err);

/* No more items will come.  Flushes. */
RS_API int rs_batch_finish (rs_batch *batch, rs_error *err);

/*
 * Wait for a finished chunk and make it the current one; where many are in
 * flight perhaps for several, unless one of its items failed or the batch is
 * RS_BATCH_EAGER.  'L' as in 'rs_job_wait'.  RS_OK, RS_ETIMEOUT, RS_EDONE (all
 * was taken and no more will come), RS_EBUSY (nothing is in flight, but items
 * could be added), RS_EEVENT (something else woke the events that its options
 * named: jobs may be queued there), RS_ESTOPPED (the job that waits shall
 * stop).
 */
RS_API int rs_batch_wait (rs_batch *batch, lua_State *L, double timeout);

/*
 * [-0, +rec->n, e]  Push what the next item of the current chunk left: its
 * results, or its error value and traceback when 'rec->state' is not
 * completed.  An item whose results cannot be rebuilt in 'L' comes as failed,
 * with a text that says why; those behind it are not concerned.  Items that
 * were never started, since the batch was stopped, come as cancelled, or timed
 * out, with n = 0, or with a text that says that no worker was left.  Lost
 * ones come with a text that says where, if that is known, or n = 0.  RS_OK or
 * RS_EDONE.  In a job that is to stop, it raises.  Code that runs while values
 * are rebuilt gets RS_EBUSY, from 'rs_batch_wait' too; if it has closed the
 * batch, this returns RS_ECLOSED and pushes nothing.
 */
RS_API int rs_batch_next_sized (rs_batch *batch, lua_State *L, rs_record *rec,
                                size_t size);
static inline int
rs_batch_next (rs_batch *batch, lua_State *L, rs_record *rec)
{
  return rs_batch_next_sized(batch, L, rec, sizeof *rec);
}

/*
 * The next record that the item which 'rs_batch_next' gave last has sent, a
 * reference, or NULL.
 */
RS_API rs_stream_record *rs_batch_record (rs_batch *batch);

/* A number that no job or other batch has. */
RS_API uint64_t rs_batch_id (const rs_batch *batch);

/* Start nothing more; what runs goes on to its end, and is dropped. */
RS_API void rs_batch_stop (rs_batch *batch);

/* Start nothing more, and stop what runs as 'rs_job_cancel' does. */
RS_API void rs_batch_cancel (rs_batch *batch, double grace);

/* Chunks, items and time so far. */
typedef struct rs_batch_info {
  size_t size;                               /* bytes that are filled */
  size_t added, started, finished, failed;   /* items */
  size_t chunks;                             /* submitted */
  size_t chunk;                              /* items in the last one */
  bool stopped;        /* nothing more is started */
  const char *reason;  /* why what ran was stopped: "cancelled", "deadline";
                          or NULL */
} rs_batch_info;

RS_API void rs_batch_info_get_sized (rs_batch *batch, rs_batch_info *out,
                                     size_t size);
static inline void
rs_batch_info_get (rs_batch *batch, rs_batch_info *out)
{
  rs_batch_info_get_sized(batch, out, sizeof *out);
}

/*
 * [-0, +0, -]  Stop the batch, if it has not ended, and free it.  'L' is the
 * state that 'rs_batch_next' was called with.  NULL is accepted for 'batch'.
 *
 * Code that runs inside of a call of the batch, such as a function that
 * rebuilds a result or a '__transfer', may close it.  Then it is stopped at
 * once and freed when that call ends, which returns RS_ECLOSED.
 */
RS_API void rs_batch_close (rs_batch *batch, lua_State *L);

/* ------------------------------------------------------------------ task */

/* A C function that runs in a runspace can know this of its job. */
typedef struct rs_task {
  size_t size;          /* bytes that are filled */
  uint64_t id;          /* of the job or batch */
  const char *name;     /* lent, for the duration of the job */
  lua_Integer index;    /* of the item; 0 in a job that is no map */
  unsigned worker;
  unsigned attempt;
  bool stopping;        /* somebody asked this job to stop */
} rs_task;

/* True, and '*out' filled, when 'L' is running a job. */
RS_API bool rs_task_get_sized (lua_State *L, rs_task *out, size_t size);
static inline bool
rs_task_get (lua_State *L, rs_task *out)
{
  return rs_task_get_sized(L, out, sizeof *out);
}

/*
 * [-0, +0, v]  Raise if the job that 'L' runs shall stop.  C code that takes
 * long calls it now and then; so does whatever waits, after each EINTR.
 */
RS_API void rs_task_checkpoint (lua_State *L);

/* [-0, +0, -]  True when 'rs_task_checkpoint' would raise.  End what goes on
   alone first ('rs_job_cancel'). */
RS_API bool rs_task_stops (lua_State *L);

/*
 * [-n, +0, e]  Send the 'n' values on top of the stack as a record of
 * 'stream'.  Raises when they cannot travel, outside a job, and when 'stream'
 * is none.
 */
RS_API void rs_task_send (lua_State *L, rs_stream stream, int n);

/*
 * [-n, +0, e]  Send an event to the host of the job.  Waits while
 * RS_EVENTS_MAX of its events were not taken.
 */
RS_API void rs_task_emit (lua_State *L, const char *name, int n);

#ifdef __cplusplus
}
#endif

#endif
