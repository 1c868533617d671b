/* SPDX-License-Identifier: MIT */
/*
 * lprogram.c - programs that end with this process, whatever ends it.
 *
 * The keeper is a shell in a session of its own, no child of this process.  It
 * reads a pipe to which this process, and no other one, has the writing end.
 * Nothing is ever written there, so the keeper's read returns when this
 * process has ended, for whatever reason.  Then the keeper ends the process
 * groups in its table, by SIGTERM and a little later by SIGKILL.
 *
 * The table is memory that this process and the keeper share
 * (memfd_create(2)).  It has a line for each program: blanks, and "-1234",
 * which stands for group 1234 in kill(1).  A line of blanks alone is free.
 *
 *   - A child writes its line before it becomes the program, and holds the
 *     pipe open until it is the program.  So no program is left behind,
 *     whenever this process is killed.
 *   - A line is erased before the child is reaped.  So no line names a group
 *     whose number another process got since.
 *   - No message is sent to the keeper, so no thread waits for it.  A keeper
 *     that was killed is followed by a new one, with the same table.
 *
 * posix_spawn(3) cannot write a line in the child, so children are made here,
 * in the way of posix_spawn(3): a child shares the memory of this process, and
 * the thread that makes it waits until the child has become the program.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* clone, memfd_create, pipe2, strchrnul */
#endif
#include "face/lprogram.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/inherit.h"

#define LINE 16            /* bytes of a line of the table */
#define LINES 65535        /* lines of the table, before "end", at most */
#define SIZE (LINE * (LINES + 1))

/* The script of the keeper.  When it starts, its descriptor 1 is the reading
   end of the pipe, and 2 is the table. */
#define SCRIPT \
  "exec 3<&1 4<&2 >/dev/null 2>&1; cd /\n" \
  "(read -r end <&3\n" \
  "while read -r g; do\n" \
  " case $g in end) break ;; -[1-9]*) all=\"$all $g\" ;; esac\n" \
  "done <&4\n" \
  "test \"$all\" || exit\n" \
  "kill -s TERM -- $all\n" \
  "sleep 0.2 || sleep 1\n" \
  "kill -s KILL -- $all) &\n"

static struct {
  pthread_mutex_t lock;    /* guards the rest, but not the bytes of a taken
                              line, which are its program's */
  int pipe;                /* writing end, in this process only; -1: there is
                              no keeper */
  int memory;              /* descriptor of the table; -1: there is none */
  char *table;             /* mapped; kept after a fork, for the next table;
                              or NULL */
  size_t lines;            /* lines of the table; "end" follows */
  bool taken[LINES];       /* lines of programs; after a fork some are true
                              that are beyond 'lines' */
} keeper = { .lock = PTHREAD_MUTEX_INITIALIZER, .pipe = -1, .memory = -1 };

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* --------------------------------------------------------------- the child */

typedef struct child {
  const int *files;
  const char *const *argv, *const *env;
  const char *directory;   /* or NULL */
  const char *search;      /* PATH */
  char *line;              /* its line of the table, or NULL */
  bool session;            /* start a session, not only a process group */
  int limit;               /* descriptors are below this number; 0: the system
                              can close them all at once */
  sigset_t none;           /* no signals: the mask of the program */
  int code;                /* errno: why the child is not the program; or 0 */
  char name[PATH_MAX];     /* room for the name of a file to be tried */
  _Alignas(max_align_t) char stack[16384];
} child;

/* Write "-1234" into a blank line.  The '-' is stored last, so that the keeper
   never sees a part of the number. */
static void
write_line (char *line, pid_t pid)
{
  char *digit = line + LINE - 2;
  for (; pid > 0; pid /= 10)
    *digit-- = (char) ('0' + pid % 10);
  atomic_signal_fence(memory_order_seq_cst);
  *digit = '-';
}

/* Make the line blank.  The '-' is erased first, so that the keeper never sees
   a part of the number. */
static void
erase_line (char *line)
{
  char *const sign = memchr(line, '-', LINE - 1);
  if (sign != NULL)
    *sign = ' ';
  atomic_signal_fence(memory_order_seq_cst);
  memset(line, ' ', LINE - 1);
}

/* Close all descriptors from 'first' on.  Return false when the system
   cannot. */
static bool
close_from (unsigned first)
{
#ifdef HAVE_CLOSE_RANGE
  return syscall(SYS_close_range, first, ~0u, 0u) == 0;
#else
  (void) first;
  return false;
#endif
}

/* Return the value of 'limit' for a child.  Called before the child is made,
   since the search for the largest descriptor takes long.  No descriptor is
   ~0u, so 'close_from' closes nothing here. */
static int
find_limit (void)
{
  return close_from(~0u) ? 0 : rs_inherit_end();
}

/* Close all descriptors but the standard files. */
static void
close_others (int limit)
{
  if (limit == 0)
    close_from(STDERR_FILENO + 1);
  for (int fd = STDERR_FILENO + 1; fd < limit; fd++)
    syscall(SYS_close, fd);
}

/* Attribute of functions that do not return on success.  The thread sanitizer
   would count their calls, and miss the returns. */
#if defined(__GNUC__)
#define UNCOUNTED __attribute__((no_sanitize("address", "thread")))
#else
#define UNCOUNTED
#endif

/* Become the program argv[0]: a path if its name has a '/', and else the first
   one found along PATH.  Returns only on failure, with an error number. */
UNCOUNTED static int
become (child *c)
{
  const char *const program = c->argv[0];
  char *const *const argv = (char *const *) (uintptr_t) c->argv;
  char *const *const env = (char *const *) (uintptr_t) c->env;
  const size_t size = strlen(program) + 1;
  int code = ENOENT;
  if (strchr(program, '/') != NULL) {
    execve(program, argv, env);
    return errno;
  }
  for (const char *at = c->search, *end; size > 1; at = end + 1) {
    end = strchrnul(at, ':');
    const size_t length = (size_t) (end - at);
    if (length + 1 + size <= sizeof c->name) {
      memcpy(c->name, at, length);
      c->name[length] = '/';
      memcpy(c->name + length + (length > 0), program, size);
      execve(c->name, argv, env);
      if (errno == EACCES)
        code = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR && errno != ENODEV
               && errno != ESTALE && errno != ETIMEDOUT)
        return errno;
    }
    if (*end == '\0')
      break;
  }
  return code;
}

/*
 * The child; it begins with all signals blocked.  It shares the memory of this
 * process, so it calls no function that notes something there: sanitizers, for
 * instance, keep tables of signal handlers and of descriptors.  System calls
 * are made directly instead.  A kernel's 'struct sigaction' of zeros means
 * SIG_DFL on each machine.
 */
UNCOUNTED static int
run_child (void *arg)
{
  static const char zeros[256];
  child *const c = arg;
  if (c->session)
    setsid();
  else
    setpgid(0, 0);
  if (c->line != NULL)
    write_line(c->line, getpid());
  for (int i = 1; i < _NSIG; i++)
    syscall(SYS_rt_sigaction, i, zeros, NULL, _NSIG / 8);
  for (int i = 0; i < 3; i++) {
    if (syscall(SYS_dup3, c->files[i], i, 0) < 0) {
      c->code = errno;
      return 127;
    }
  }
  close_others(c->limit);
  if (c->directory != NULL && chdir(c->directory) != 0) {
    c->code = errno;
    return 127;
  }
  sigprocmask(SIG_SETMASK, &c->none, NULL);
  c->code = become(c);
  return 127;
}

static int
wait_for (pid_t pid)
{
  int status = 0;  /* stays 0 if another part of the program has reaped it */
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  return status;
}

/* Call clone(2) by its other name.  ThreadSanitizer takes 'clone' for a fork,
   and forgets threads and locks in the child; here, where the child shares the
   memory, those would be the parent's. */
#ifdef __GLIBC__
int __clone (int (*) (void *), void *, int, void *, ...);
#define clone __clone
#endif

/* Start the child 'c', and wait until it has become the program or failed.
   Return 0, or an error number; '*pid' is above 0 if there is a child to
   reap. */
static int
start_child (child *c, pid_t *pid)
{
  sigset_t all, old;
  sigfillset(&all);
  sigemptyset(&c->none);
  c->code = 0;
  pthread_sigmask(SIG_SETMASK, &all, &old);
  *pid = clone(run_child, c->stack + sizeof c->stack,
               CLONE_VM | CLONE_VFORK | SIGCHLD, c);
  if (*pid < 0)
    c->code = errno;
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  return c->code;
}

/* -------------------------------------------------------------- the keeper */

static void
lock_keeper (void)
{
  pthread_mutex_lock(&keeper.lock);
}

static void
unlock_keeper (void)
{
  pthread_mutex_unlock(&keeper.lock);
}

/* pthread_atfork(3), in the child.  The programs are the parent's, and so are
   the pipe and the table.  Private memory takes the place of the table: if the
   child drops its copy of a program, the line is erased there only.  Until
   then the line stays taken. */
static void
leave_keeper (void)
{
  if (keeper.pipe >= 0)
    close(keeper.pipe);
  if (keeper.memory >= 0) {
    close(keeper.memory);
    mmap(keeper.table, SIZE, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  }
  keeper.pipe = keeper.memory = -1;
  keeper.lines = 0;
  unlock_keeper();
}

static void
prepare (void)
{
  pthread_atfork(lock_keeper, unlock_keeper, leave_keeper);
}

/* Return the descriptor, or, in place of a standard file, a copy that is none,
   and close the original.  -1 stays -1. */
static int
move (int fd)
{
  if (fd < 0 || fd > STDERR_FILENO)
    return fd;
  const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  close(fd);
  return higher;
}

/* Let the table have 'n' lines: one blank line more than before, or none. */
static void
end_table_locked (size_t n)
{
  memcpy(keeper.table + LINE * n, "end\n", 4);
  if (n > 0) {
    char *const line = keeper.table + LINE * (n - 1);
    memset(line, ' ', LINE - 1);
    line[LINE - 1] = '\n';
  }
  keeper.lines = n;
}

/* Make the table, unless there is one, and set its descriptor to the
   beginning, where the keeper starts to read.  Return false when there is no
   table, or other code has closed the descriptor. */
static bool
have_table_locked (void)
{
  if (keeper.memory >= 0)
    return fcntl(keeper.memory, F_GET_SEALS) >= 0
        && lseek(keeper.memory, 0, SEEK_SET) == 0;
  const int fd = move(memfd_create("runspace-keeper", MFD_CLOEXEC));
  if (fd < 0)
    return false;
  const int flags = keeper.table == NULL ? MAP_SHARED  /* else after a fork */
                                         : MAP_SHARED | MAP_FIXED;
  void *const table = ftruncate(fd, SIZE) != 0 ? MAP_FAILED
                    : mmap(keeper.table, SIZE, PROT_READ | PROT_WRITE,
                           flags, fd, 0);
  if (table == MAP_FAILED) {
    close(fd);
    return false;
  }
  keeper.table = table;
  keeper.memory = fd;
  end_table_locked(0);
  return true;
}

/* Start a keeper with the descriptors of the pipe and the table.  Return false
   when it did not start. */
static bool
run_keeper (int pipe, int memory)
{
  static const char *const env[] = { "PATH=/usr/bin:/bin", NULL };
  char self[3 * sizeof(pid_t) + 1];
  snprintf(self, sizeof self, "%d", (int) getpid());
  const char *const argv[] = {
    "/bin/sh", "-c", SCRIPT, "runspace-keeper", self, NULL
  };
  const int null = move(open("/dev/null", O_RDWR | O_CLOEXEC));
  const int files[3] = { null, pipe, memory };
  child *const c = malloc(sizeof *c);
  pid_t pid = -1;
  if (c != NULL && null >= 0) {
    c->files = files;
    c->argv = argv;
    c->env = env;
    c->directory = NULL;
    c->line = NULL;
    c->session = true;
    c->limit = find_limit();
    start_child(c, &pid);
  }
  const bool started = pid > 0 && c->code == 0;
  if (pid > 0)
    wait_for(pid);
  if (null >= 0)
    close(null);
  free(c);
  return started;
}

/* Start a keeper, unless one is there.  Return false when there is none. */
static bool
have_keeper_locked (void)
{
  struct pollfd look = { .fd = keeper.pipe };
  if (keeper.pipe >= 0 && poll(&look, 1, 0) == 0)
    return true;
  if (keeper.pipe >= 0 && (look.revents & POLLNVAL) == 0)
    close(keeper.pipe);  /* the keeper that read it was killed */
  keeper.pipe = -1;
  int fds[2];
  if (!have_table_locked() || pipe2(fds, O_CLOEXEC) != 0)
    return false;
  fds[0] = move(fds[0]);
  fds[1] = move(fds[1]);
  if (fds[0] >= 0 && fds[1] >= 0 && run_keeper(fds[0], keeper.memory)) {
    keeper.pipe = fds[1];
    fds[1] = -1;
  }
  for (int i = 0; i < 2; i++) {
    if (fds[i] >= 0)
      close(fds[i]);
  }
  return keeper.pipe >= 0;
}

/* Take a free line.  Return NULL when there is none. */
static char *
take_line_locked (void)
{
  size_t n = 0;
  while (n < LINES && keeper.taken[n])
    n++;
  if (n == LINES)
    return NULL;
  while (n >= keeper.lines)
    end_table_locked(keeper.lines + 1);
  keeper.taken[n] = true;
  return keeper.table + LINE * n;
}

/* Take a line for a program that is to be started; start a keeper, if there is
   none.  Return NULL when there is no keeper or no line. */
static char *
take_line (void)
{
  pthread_once(&once, prepare);
  lock_keeper();
  char *const line = have_keeper_locked() ? take_line_locked() : NULL;
  unlock_keeper();
  return line;
}

static void
give_line (char *line)
{
  if (line == NULL)
    return;
  erase_line(line);
  lock_keeper();
  keeper.taken[(size_t) (line - keeper.table) / LINE] = false;
  unlock_keeper();
}

/* ---------------------------------------------------------------- programs */

int
rs_program_start (rs_program *p, const int files[3],
                  const char *const *argv, const char *const *env,
                  const char *directory)
{
  child *const c = malloc(sizeof *c);
  if (c == NULL)
    return ENOMEM;
  c->files = files;
  c->argv = argv;
  c->env = env;
  c->directory = directory;
  c->search = getenv("PATH");
  if (c->search == NULL)
    c->search = "/bin:/usr/bin";
  c->line = take_line();
  c->session = false;
  c->limit = find_limit();
  *p = (rs_program) { .line = c->line };
  const int code = start_child(c, &p->pid);
  free(c);
  if (code == 0)
    return 0;
  if (p->pid > 0)
    rs_program_reap(p);
  else
    give_line(p->line);
  *p = (rs_program) { 0 };
  return code;
}

bool
rs_program_ended (const rs_program *p)
{
  siginfo_t info = { 0 };
  return p->pid == 0
      || (waitid(P_PID, (id_t) p->pid, &info,
                 WEXITED | WNOHANG | WNOWAIT) == 0 ? info.si_pid != 0
                                                   : errno != EINTR);
}

void
rs_program_reap (rs_program *p)
{
  siginfo_t info;
  if (p->pid == 0)
    return;
  while (waitid(P_PID, (id_t) p->pid, &info, WEXITED | WNOWAIT) != 0
         && errno == EINTR)
    ;
  give_line(p->line);
  p->status = wait_for(p->pid);
  p->line = NULL;
  p->pid = 0;
}
