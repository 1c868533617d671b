/* SPDX-License-Identifier: MIT */
/*
 * process.c - a child process, from its start to its end.
 */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* posix_spawn_file_actions_addclosefrom_np */
#endif
#include "reach/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/inherit.h"

#define NAP 2e-3         /* seconds between two looks for an end, where there
                            is no pidfd */
#define TERM 0.5         /* seconds from SIGTERM to SIGKILL */

enum { TRIES = 20 };     /* starts of a program that is being written */

extern char **environ;

/* Set once, by the program's main function; read by threads that start
   workers. */
static _Atomic bool serving;

void
rs_process_set_serving (void)
{
  atomic_store(&serving, true);
}

/* ---------------------------------------------------------------- starting */

static void
close_fd (int *fd)
{
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

static void
nap (double seconds)
{
  const struct timespec t = { .tv_nsec = (long) (seconds * 1e9) };
  nanosleep(&t, NULL);
}

bool
rs_process_serves (void)
{
  return atomic_load(&serving);
}

int
rs_process_raise (int fd)
{
  if (fd > STDERR_FILENO)
    return fd;
  const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  const int code = errno;
  close(fd);
  errno = code;
  return higher;
}

/* Raise both ends; 0, or an error number, and both are closed. */
static int
raise_both (int fds[2])
{
  for (int i = 0; i < 2; i++) {
    fds[i] = rs_process_raise(fds[i]);
    if (fds[i] < 0) {
      const int code = errno;
      close_fd(&fds[1 - i]);
      return code;
    }
  }
  return 0;
}

int
rs_process_sockets (int fds[2])
{
  int code = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0
           ? raise_both(fds) : errno;
  if (code == 0)
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
  else
    fds[0] = fds[1] = -1;
  return code;
}

int
rs_process_pipe (int fds[2])
{
  const int code = pipe2(fds, O_CLOEXEC) == 0 ? raise_both(fds) : errno;
  if (code != 0)
    fds[0] = fds[1] = -1;
  return code;
}

/* Let the child have 'fds' as its first descriptors, and no other ones.  0, or
   an error number. */
static int
set_files (posix_spawn_file_actions_t *files, const int fds[4])
{
  int code = 0;
  for (int i = 0; i < 4 && code == 0; i++)
    if (fds[i] >= 0)
      code = posix_spawn_file_actions_adddup2(files, fds[i], i);
  const int rest = STDERR_FILENO + (fds[3] >= 0 ? 2 : 1);
#ifdef HAVE_POSIX_SPAWN_FILE_ACTIONS_ADDCLOSEFROM_NP
  if (code == 0)
    code = posix_spawn_file_actions_addclosefrom_np(files, rest);
#else
  const int end = rs_inherit_end();
  for (int other = rest; code == 0 && other < end; other++)
    code = posix_spawn_file_actions_addclose(files, other);
#endif
  return code;
}

int
rs_process_spawn (rs_process *p, const char *path, const char *const *argv,
                  const char *const *env, const int fds[4])
{
  char *const *const variables = env != NULL
                               ? (char *const *) (uintptr_t) env : environ;
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  int code = posix_spawn_file_actions_init(&files);
  if (code != 0)
    return code;
  posix_spawnattr_init(&attributes);
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK
                                        | POSIX_SPAWN_SETSIGDEF
                                        | POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  code = set_files(&files, fds);
  for (int i = 0; code == 0 && i < TRIES; i++) {
    code = posix_spawnp(&p->pid, path, &files, &attributes,
                        (char *const *) (uintptr_t) argv, variables);
    if (code != ETXTBSY)
      break;
    code = i + 1 < TRIES ? 0 : ETXTBSY;
    nap(5e-3);
  }
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (code != 0)
    p->pid = 0;
#ifdef SYS_pidfd_open
  else
    p->end = (int) syscall(SYS_pidfd_open, p->pid, 0);  /* close-on-exec */
#endif
  return code;
}

/* ------------------------------------------------------------------ ending */

/* Look for the end of the child without reaping it, so that nobody else gets
   its number: 1: ended, 'info' is filled; 0: not; -1: somebody has reaped
   it. */
static int
look (const rs_process *p, siginfo_t *info)
{
  int code;
  memset(info, 0, sizeof *info);
  do
    code = waitid(P_PID, (id_t) p->pid, info, WEXITED | WNOHANG | WNOWAIT);
  while (code != 0 && errno == EINTR);
  return code != 0 ? -1 : info->si_pid != 0;
}

bool
rs_process_has_ended (const rs_process *p)
{
  siginfo_t info;
  if (p->pid == 0)
    return true;
  if (p->end >= 0) {
    struct pollfd end = { .fd = p->end, .events = POLLIN };
    return poll(&end, 1, 0) > 0;
  }
  return look(p, &info) != 0;
}

/* Wait for the end of the child until 'deadline'. */
static bool
await_end (const rs_process *p, double deadline)
{
  bool ended;
  while (!(ended = rs_process_has_ended(p)) && rs_now() < deadline) {
    struct pollfd end = { .fd = p->end, .events = POLLIN };
    const double left = rs_remaining(deadline);
    if (p->end >= 0)
      poll(&end, 1, left < 1 ? (int) (left * 1e3) + 1 : 1000);
    else
      nap(NAP);
  }
  return ended;
}

void
rs_process_kill (rs_process *p)
{
  /* The child has made its group before it became our program. */
  if (p->pid != 0 && !rs_process_has_ended(p))
    kill(-p->pid, SIGKILL);
}

/* The name of a signal; "" for one that has none here. */
static const char *
signal_name (int number)
{
  static const struct { int number; const char *name; } names[] = {
    { SIGHUP, "SIGHUP" }, { SIGINT, "SIGINT" }, { SIGQUIT, "SIGQUIT" },
    { SIGILL, "SIGILL" }, { SIGTRAP, "SIGTRAP" }, { SIGABRT, "SIGABRT" },
    { SIGBUS, "SIGBUS" }, { SIGFPE, "SIGFPE" }, { SIGKILL, "SIGKILL" },
    { SIGUSR1, "SIGUSR1" }, { SIGSEGV, "SIGSEGV" }, { SIGUSR2, "SIGUSR2" },
    { SIGPIPE, "SIGPIPE" }, { SIGALRM, "SIGALRM" }, { SIGTERM, "SIGTERM" },
    { SIGXCPU, "SIGXCPU" }, { SIGXFSZ, "SIGXFSZ" }, { SIGSYS, "SIGSYS" },
    { SIGVTALRM, "SIGVTALRM" }, { SIGPROF, "SIGPROF" }, { SIGIO, "SIGIO" },
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (names[i].number == number)
      return names[i].name;
  return "";
}

static void
describe (const rs_process *p, const siginfo_t *info, char *text, size_t size)
{
  enum { SHELL = 128 };
  const int status = info->si_status;
  const bool within = p->inside && info->si_code == CLD_EXITED
                   && status > SHELL && signal_name(status - SHELL)[0] != '\0';
  const int number = within ? status - SHELL : status;
  const char *const name = signal_name(number);
  if (info->si_code == CLD_EXITED && !within)
    snprintf(text, size, "exited with status %d", status);
  else if (number == SIGXCPU && p->cpu_time > 0)
    snprintf(text, size, "used more than %g s of CPU", p->cpu_time);
  else if (name[0] != '\0')
    snprintf(text, size, "was killed by %s", name);
  else
    snprintf(text, size, "was killed by signal %d", number);
}

/* Ask the child to end. */
static bool
obeys (const rs_process *p)
{
  return kill(-p->pid, SIGTERM) == 0 && await_end(p, rs_deadline(TERM));
}

void
rs_process_hang_up (rs_process *p)
{
  if (p->out == p->in)
    p->out = -1;
  close_fd(&p->in);
  close_fd(&p->out);
}

int
rs_process_finish (rs_process *p, double timeout, char *text, size_t size)
{
  siginfo_t info;
  snprintf(text, size, "has ended");
  rs_process_hang_up(p);
  if (p->pid == 0)
    return -1;
  if (!await_end(p, rs_deadline(timeout)) && !(p->gentle && obeys(p))) {
    rs_process_kill(p);
    await_end(p, RS_NEVER);
  }
  const int found = look(p, &info);
  if (found > 0)
    describe(p, &info, text, size);
  /* While the child is not reaped, no other group has its number.  One that
     somebody else has reaped is left alone, for its number may be taken. */
  if (found >= 0)
    kill(-p->pid, SIGKILL);
  int code;
  do
    code = found >= 0 ? waitid(P_PID, (id_t) p->pid, &info, WEXITED) : 0;
  while (code != 0 && errno == EINTR);
  close_fd(&p->end);
  p->pid = 0;
  return found > 0 && info.si_code == CLD_EXITED ? info.si_status : -1;
}
