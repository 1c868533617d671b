/* SPDX-License-Identifier: MIT */
/*
 * key.c - the key that callers and workers of a queue share: a file.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* explicit_bzero, O_CLOEXEC */
#endif
#include "reach/key.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

enum { LEAST = 16, MOST = 4096 };  /* bytes */

/* Read up to 'room' bytes; the number of them, or -1. */
static ssize_t
read_some (int fd, unsigned char *bytes, size_t room)
{
  size_t n = 0;
  while (n < room) {
    const ssize_t got = read(fd, bytes + n, room - n);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return -1;
    if (got == 0)
      break;
    n += (size_t) got;
  }
  return (ssize_t) n;
}

int
rs_key_read (const char *path, unsigned char **key, size_t *size,
             rs_error *err)
{
  struct stat st;
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) != 0) {
    const int code = errno;
    if (fd >= 0)
      close(fd);
    return rs_fail(err, RS_EFAILED, "key '%.200s' cannot be read: %s", path,
                   strerror(code));
  }
  if (S_ISREG(st.st_mode) && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    close(fd);
    return rs_fail(err, RS_EFAILED, "key '%.200s' can be used by others than "
                                    "its owner: chmod 600 it", path);
  }
  unsigned char *const bytes = malloc(MOST + 1);
  ssize_t n = bytes != NULL ? read_some(fd, bytes, MOST + 1) : 0;
  const int code = errno;
  close(fd);
  if (bytes == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  if (n > 0 && bytes[n - 1] == '\n')
    n--;
  if (n >= LEAST && n <= MOST) {
    *key = bytes;
    *size = (size_t) n;
    return RS_OK;
  }
  rs_key_free(bytes, MOST + 1);
  return n < 0 ? rs_fail(err, RS_EFAILED, "key '%.200s' cannot be read: %s",
                         path, strerror(code))
               : rs_fail(err, RS_EFAILED, "key '%.200s' has %zd bytes; %d to "
                                          "%d are needed", path, n, LEAST,
                         MOST);
}

void
rs_key_free (unsigned char *key, size_t size)
{
  explicit_bzero(key, size);
  free(key);
}
