/* SPDX-License-Identifier: MIT */
/*
 * floor_process - another process, and a byte to it and back.
 *
 *     floor_process LUA [SAMPLES]
 *
 * 'start': 'LUA -e ""' by posix_spawn, until it has ended.  'rest': a byte
 * through a socket pair to a process that sends it back, with 2 ms of rest in
 * front of each, the median of 100.  Prints microseconds.
 */
#define _GNU_SOURCE  /* floor.h */
#include "floor.h"

#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { EACH = 20, TRIPS = 100 };

static const char ECHO[] = "--echo";  /* argument of the process that echoes */

/* Start a program whose standard input is 'input'. */
static pid_t
start (const char *program, const char *const argv[], int input)
{
  posix_spawn_file_actions_t actions;
  pid_t pid;
  if (posix_spawn_file_actions_init(&actions) != 0
      || posix_spawn_file_actions_adddup2(&actions, input, 0) != 0
      || posix_spawnp(&pid, program, &actions, NULL, (char *const *) argv,
                      environ) != 0)
    die("no process");
  posix_spawn_file_actions_destroy(&actions);
  return pid;
}

static void
join (pid_t pid)
{
  int status;
  if (waitpid(pid, &status, 0) != pid || status != 0)
    die("a process failed");
}

static void
measure_start (const char *lua, unsigned samples)
{
  const char *const argv[] = { lua, "-e", "", NULL };
  for (unsigned s = 0; s <= samples; s++) {
    const double begin = now();
    for (int i = 0; i < EACH; i++)
      join(start(lua, argv, 0));
    if (s > 0)  /* not the warm-up? */
      report("start", (now() - begin) / EACH * 1e6, "us");
  }
}

static int
echo (void)
{
  char byte;
  while (read(0, &byte, 1) == 1)
    if (write(0, &byte, 1) != 1)
      return EXIT_FAILURE;
  return 0;
}

static int
compare (const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void
measure_rest (unsigned samples)
{
  static double times[TRIPS];
  const struct timespec pause = { .tv_nsec = 2000000 };
  const char *const argv[] = { "floor_process", ECHO, NULL };
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    die("no socket pair");
  const pid_t pid = start("/proc/self/exe", argv, ends[1]);
  close(ends[1]);
  for (unsigned s = 0; s <= samples; s++) {
    for (int i = 0; i < TRIPS; i++) {
      char byte = 'x';
      nanosleep(&pause, NULL);
      const double begin = now();
      if (write(ends[0], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
        die("no echo");
      times[i] = now() - begin;
    }
    qsort(times, TRIPS, sizeof *times, compare);
    if (s > 0)  /* not the warm-up? */
      report("rest", times[TRIPS / 2] * 1e6, "us");
  }
  close(ends[0]);
  join(pid);
}

int
main (int argc, char **argv)
{
  if (argc < 2)
    die("usage: floor_process LUA [SAMPLES]");
  if (strcmp(argv[1], ECHO) == 0)
    return echo();
  const unsigned samples = argc > 2 ? (unsigned)atoi(argv[2]) : 7;
  measure_start(argv[1], samples);
  measure_rest(samples);
  return 0;
}
