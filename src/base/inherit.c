/* SPDX-License-Identifier: MIT */
/*
 * inherit.c - files that a program must not inherit from the process that
 * starts it, where the system cannot close them all at once.
 */
#include "base/inherit.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

enum { MORE = 64, MOST = 65536 };

/* The largest number of an open file; -1 when /proc does not tell. */
static int
largest (void)
{
  int most = -1;
  DIR *const directory = opendir("/proc/self/fd");
  const struct dirent *entry;
  if (directory == NULL)
    return -1;
  while ((entry = readdir(directory)) != NULL) {
    const int fd = atoi(entry->d_name);
    most = fd > most ? fd : most;
  }
  closedir(directory);
  return most;
}

int
rs_inherit_end (void)
{
  const int most = largest();
  const long limit = sysconf(_SC_OPEN_MAX);
  const int end = most >= 0 ? most + 1 + MORE : MOST;
  return limit >= 0 && limit < end ? (int) limit : end;
}
