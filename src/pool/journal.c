/* SPDX-License-Identifier: MIT */
/*
 * journal.c - a file that keeps what became of the items of a call.
 *
 *     line      "runspace journal 1, ..." and a newline; what has to be equal
 *               for the rest to be read
 *     frame     size of the body, 4 bytes; its check, 4 bytes; the check of
 *               the body, 8 bytes; the body: a kind and
 *         'H'   the heading
 *         'C'   key, attempts (4 bytes), duration (8 bytes), message of the
 *               values
 *         'F'   key, text
 *
 * Frames are appended in groups, by one write(2) each, and nothing is written
 * twice.  So a program that was killed leaves a file that ends anywhere in a
 * frame: that one is dropped.  After a failure of the machine, bytes behind
 * the last sync may be zeros, too: a bad frame is also dropped if nothing but
 * zeros follows.  Everything else is damage, and is told.
 *
 * A sync may take as long as it wants to.  The next one comes when PAUSE times
 * as long has passed, so that syncs take a fiftieth of the time.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* O_CLOEXEC, flock */
#endif
#include "pool/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/status.h"
#include "value/encoder.h"
#include "value/message.h"
#include "value/wire.h"

#define PAUSE 50.0       /* times the seconds of a sync until the next one */
#define PAUSE_LEAST 0.5  /* seconds until the next sync, at least */

enum {
  HEAD = 16,                       /* bytes before a body */
  COMPLETED = 1 + RS_DIGEST_SIZE + 4 + 8,  /* bytes before the message */
  LARGEST = 1 << 30,               /* bytes of a body */
  GROUP = 256 << 10,               /* bytes that are read at once */
  NEAR = 4096,                     /* the same, where that is not in order */
  LINE = 100                       /* bytes of the first line, at most */
};

/* The first line of each journal, of any version. */
static const char title[] = "runspace journal ";

struct rs_journal {
  int fd;
  unsigned born;           /* rs_fork_now */
  uint64_t size;           /* of the file, when it was opened */
  uint64_t end;            /* where the next frame is read, then written */
  rs_buf in;               /* bytes of the file from 'in_at' on */
  uint64_t in_at;
  rs_message *values;      /* what 'rs_journal_push' has read last, since to
                              push it may raise; or NULL */
  rs_buf out;              /* frames that were added */
  bool dirty;              /* something is to be synced */
  double sync_at;          /* instant of the next sync */
};

static bool
is_foreign (const rs_journal *j)
{
  return rs_fork_is_foreign(j->born);
}

/* Fail for the reason in 'errno'. */
static int
fail (rs_error *err, const char *what)
{
  char text[128];
  const int number = errno;
  return rs_fail(err, RS_EFAILED, "%s: %s", what,
                 strerror_r(number, text, sizeof text));
}

/* ------------------------------------------------------------------- bytes */

/* Read up to 'n' bytes at 'at'.  Returns how many there are, or -1. */
static ssize_t
read_at (const rs_journal *j, void *bytes, size_t n, uint64_t at)
{
  size_t done = 0;
  while (done < n) {
    const ssize_t got = pread(j->fd, (char *) bytes + done, n - done,
                              (off_t) (at + done));
    if (got == 0)
      break;
    if (got < 0 && errno != EINTR)
      return -1;
    done += got > 0 ? (size_t) got : 0;
  }
  return (ssize_t) done;
}

static int
write_all (const rs_journal *j, const rs_buf *b)
{
  size_t done = 0;
  while (done < b->size) {
    const ssize_t got = pwrite(j->fd, b->data + done, b->size - done,
                               (off_t) (j->end + done));
    if (got < 0 && errno != EINTR)
      return -1;
    done += got > 0 ? (size_t) got : 0;
  }
  return 0;
}

static uint64_t
check_of (const void *bytes, size_t n)
{
  rs_digest d = RS_DIGEST_INIT;
  rs_digest_bytes(&d, bytes, n);
  return rs_digest_end(&d).a;
}

static uint32_t
check_of_size (uint32_t size)
{
  rs_digest d = RS_DIGEST_INIT;
  rs_digest_number(&d, size);
  return (uint32_t) rs_digest_end(&d).a;
}

/* ----------------------------------------------------------------- opening */

/* Write the first line of a journal of this program. */
static size_t
make_line (char line[LINE])
{
  const uint16_t order = 1;
  unsigned char lowest;
  memcpy(&lowest, &order, 1);
  return (size_t) snprintf(line, LINE,
                           "%s1, values %d, Lua %d.%d, %d bits, the %s byte "
                           "first\n", title, RS_WIRE_VERSION,
                           LUA_VERSION_NUM / 100, LUA_VERSION_NUM % 100,
                           8 * (int) sizeof(lua_Integer),
                           lowest ? "lowest" : "highest");
}

/* Read the first line of the file, if it is there. */
static int
read_line (rs_journal *j, rs_error *err)
{
  char own[LINE], line[LINE];
  const size_t size = make_line(own);
  const ssize_t n = read_at(j, line, sizeof line - 1, 0);
  if (n < 0)
    return fail(err, "cannot be read");
  if ((size_t) n < size && memcmp(line, own, (size_t) n) == 0) {  /* torn? */
    j->end = j->size;
    return RS_OK;
  }
  if ((size_t) n >= size && memcmp(line, own, size) == 0) {
    j->end = size;
    return RS_OK;
  }
  if ((size_t) n < sizeof title - 1
      || memcmp(line, title, sizeof title - 1) != 0)
    return rs_fail(err, RS_EINVAL, "is another kind of file");
  line[n] = '\0';
  line[strcspn(line, "\n")] = '\0';
  own[size - 1] = '\0';
  return rs_fail(err, RS_EFORMAT, "is a '%s', and this program writes '%s'",
                 line, own);
}

int
rs_journal_open (const char *path, rs_journal **out, rs_error *err)
{
  struct stat about;
  int status = RS_OK;
  rs_journal *const j = calloc(1, sizeof *j);
  if (j == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  j->born = rs_fork_now();
  do
    j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                 0666);
  while (j->fd < 0 && errno == EINTR);
  if (j->fd < 0)
    status = fail(err, "cannot be opened");
  else if (fstat(j->fd, &about) != 0)
    status = fail(err, "cannot be read");
  else if (!S_ISREG(about.st_mode))
    status = rs_fail(err, RS_EINVAL, "is no regular file");
  else if (flock(j->fd, LOCK_EX | LOCK_NB) != 0)
    status = errno == EWOULDBLOCK
           ? rs_fail(err, RS_EBUSY, "is in use by another run")
           : fail(err, "cannot be locked");
  else if (fstat(j->fd, &about) != 0)  /* again: what it is now is ours */
    status = fail(err, "cannot be read");
  else {
    j->size = (uint64_t) about.st_size;
    status = read_line(j, err);
  }
  if (status == RS_OK)
    *out = j;
  else
    rs_journal_close(j);
  return status;
}

void
rs_journal_close (rs_journal *j)
{
  if (j == NULL)
    return;
  /* A child that another thread has forked has the descriptor until its exec,
     and would keep the lock. */
  if (j->fd >= 0 && !is_foreign(j))
    flock(j->fd, LOCK_UN);
  if (j->fd >= 0)
    close(j->fd);
  rs_message_unref(j->values);
  rs_buf_fini(&j->in);
  rs_buf_fini(&j->out);
  free(j);
}

/* ----------------------------------------------------------------- reading */

/* Let 'in' have 'n' bytes of the file from 'at' on, if there are so many.
   RS_OK, RS_EDONE, RS_ENOMEM or RS_EFAILED. */
static int
fill (rs_journal *j, uint64_t at, size_t n, rs_error *err)
{
  if (n > j->size - at)
    return RS_EDONE;
  if (at >= j->in_at && at + n <= j->in_at + j->in.size)
    return RS_OK;
  const uint64_t left = j->size - at;
  const size_t group = at < j->in_at ? NEAR : GROUP;  /* backwards? */
  const size_t want = n > group ? n : left < group ? (size_t) left : group;
  rs_buf_clear(&j->in);
  if (!rs_buf_reserve(&j->in, want))
    return rs_fail_plain(err, RS_ENOMEM);
  const ssize_t got = read_at(j, j->in.data, want, at);
  if (got < 0)
    return fail(err, "cannot be read");
  j->in_at = at;
  j->in.size = (size_t) got;
  return (size_t) got < n ? RS_EDONE : RS_OK;
}

static const unsigned char *
bytes_at (const rs_journal *j, uint64_t at)
{
  return j->in.data + (at - j->in_at);
}

/* Tell whether the file has nothing but zeros from 'at' on. */
static bool
is_blank (const rs_journal *j, uint64_t at)
{
  unsigned char bytes[4096];
  while (at < j->size) {
    const ssize_t n = read_at(j, bytes, sizeof bytes, at);
    if (n <= 0)
      return false;
    for (ssize_t i = 0; i < n; i++)
      if (bytes[i] != 0)
        return false;
    at += (uint64_t) n;
  }
  return true;
}

static int
fail_damaged (const rs_journal *j, rs_error *err)
{
  return rs_fail(err, RS_EINVAL, "is damaged from byte %llu on, of %llu; what "
                                 "stands before is whole, and is kept if the "
                                 "file is cut there: truncate -s %llu",
                 (unsigned long long) j->end, (unsigned long long) j->size,
                 (unsigned long long) j->end);
}

/* Tell whether a body is of a form that this program writes. */
static bool
is_good (const unsigned char *body, size_t size)
{
  return size > 0
      && (body[0] == 'H'
          || (body[0] == 'C' && size >= COMPLETED + RS_WIRE_HEADER)
          || (body[0] == 'F' && size > RS_DIGEST_SIZE));
}

int
rs_journal_next (rs_journal *j, rs_journal_entry *entry, rs_error *err)
{
  for (;;) {
    int status = fill(j, j->end, HEAD, err);
    if (status != RS_OK)
      return status;
    const unsigned char *head = bytes_at(j, j->end);
    const uint32_t size = rs_wire_get32(head);
    if (rs_wire_get32(head + 4) != check_of_size(size) || size > LARGEST)
      return is_blank(j, j->end + HEAD) ? RS_EDONE : fail_damaged(j, err);
    status = fill(j, j->end, HEAD + size, err);
    if (status != RS_OK)
      return status;
    head = bytes_at(j, j->end);
    const unsigned char *const body = head + HEAD;
    uint64_t check;
    memcpy(&check, head + 8, sizeof check);
    const uint64_t next = j->end + HEAD + size;
    if (check != check_of(body, size) || !is_good(body, size))
      return is_blank(j, next) ? RS_EDONE : fail_damaged(j, err);
    entry->place = j->end;
    j->end = next;
    if (body[0] == 'F')
      continue;
    entry->heading = body[0] == 'H';
    entry->text = (const char *) body + 1;
    entry->size = size - 1;
    if (!entry->heading)
      memcpy(entry->key, body + 1, sizeof entry->key);
    return RS_OK;
  }
}

bool
rs_journal_push (rs_journal *j, lua_State *L, uint64_t place, int *n,
                 unsigned *attempts, double *duration)
{
  if (is_foreign(j) || fill(j, place, HEAD, NULL) != RS_OK)
    return false;
  const uint32_t size = rs_wire_get32(bytes_at(j, place));
  if (size < COMPLETED || fill(j, place, HEAD + size, NULL) != RS_OK)
    return false;
  const unsigned char *const body = bytes_at(j, place) + HEAD;
  const unsigned char *const data = body + COMPLETED;
  *attempts = rs_wire_get32(body + 1 + RS_DIGEST_SIZE);
  *duration = rs_wire_get_double(body + 1 + RS_DIGEST_SIZE + 4);
  rs_message_unref(j->values);
  j->values = rs_message_new(data, size - COMPLETED, data[RS_WIRE_AT_FLAGS]);
  if (j->values == NULL)
    return false;
  j->values->forbidden = RS_MESSAGE_LIVE;
  if (rs_decode_try(L, j->values, n) == RS_OK)
    return true;
  lua_pop(L, *n);
  return false;
}

/* ----------------------------------------------------------------- writing */

/* Begin a frame; returns where. */
static size_t
begin_frame (rs_journal *j, unsigned char kind)
{
  static const unsigned char head[HEAD];
  const size_t at = j->out.size;
  rs_buf_add(&j->out, head, sizeof head);
  rs_buf_byte(&j->out, kind);
  return at;
}

static void
end_frame (rs_journal *j, size_t at)
{
  if (j->out.failed)
    return;
  unsigned char *const head = j->out.data + at;
  const uint32_t size = (uint32_t) (j->out.size - at - HEAD);
  const uint64_t check = check_of(head + HEAD, size);
  rs_wire_put32(head, size);
  rs_wire_put32(head + 4, check_of_size(size));
  memcpy(head + 8, &check, sizeof check);
}

void
rs_journal_head (rs_journal *j, const char *text, size_t size)
{
  char line[LINE];
  rs_buf_clear(&j->out);
  j->end = 0;
  rs_buf_add(&j->out, line, make_line(line));
  const size_t at = begin_frame(j, 'H');
  rs_buf_add(&j->out, text, size);
  end_frame(j, at);
}

int
rs_journal_add (rs_journal *j, lua_State *L, int n,
                const unsigned char key[RS_DIGEST_SIZE], unsigned attempts,
                double duration, rs_error *err)
{
  rs_message *message = NULL;
  unsigned char more[12];
  const int status = rs_encode_without(L, n, RS_MESSAGE_LIVE, &message, err);
  lua_pop(L, n);
  if (status != RS_OK)
    return status;
  if (message->size > LARGEST - COMPLETED) {
    rs_message_unref(message);
    return rs_fail(err, RS_EREFUSED, "more than a gigabyte");
  }
  rs_wire_put32(more, attempts);
  rs_wire_put_double(more + 4, duration);
  const size_t at = begin_frame(j, 'C');
  rs_buf_add(&j->out, key, RS_DIGEST_SIZE);
  rs_buf_add(&j->out, more, sizeof more);
  rs_buf_add(&j->out, message->data, message->size);
  end_frame(j, at);
  rs_message_unref(message);
  return j->out.failed ? rs_fail_plain(err, RS_ENOMEM) : RS_OK;
}

void
rs_journal_add_failure (rs_journal *j, const unsigned char key[RS_DIGEST_SIZE],
                        const char *state, const char *text, size_t size)
{
  const size_t most = 4096;
  const size_t at = begin_frame(j, 'F');
  rs_buf_add(&j->out, key, RS_DIGEST_SIZE);
  rs_buf_add(&j->out, state, strlen(state));
  rs_buf_add(&j->out, ": ", 2);
  rs_buf_add(&j->out, text, size < most ? size : most);
  rs_buf_byte(&j->out, '\n');
  end_frame(j, at);
}

/* Sync the file, if it is time, or 'now'. */
static int
sync_file (rs_journal *j, bool now, rs_error *err)
{
  const double begin = rs_now();
  if (!j->dirty || (!now && begin < j->sync_at))
    return RS_OK;
  int status;
  do
    status = fdatasync(j->fd);
  while (status != 0 && errno == EINTR);
  /* Some file systems have no such thing. */
  if (status != 0 && errno != EINVAL && errno != ENOSYS && errno != ENOTSUP)
    return fail(err, "cannot be written to the disk");
  const double end = rs_now();
  const double pause = PAUSE * (end - begin);
  j->sync_at = end + (pause > PAUSE_LEAST ? pause : PAUSE_LEAST);
  j->dirty = false;
  return RS_OK;
}

int
rs_journal_write (rs_journal *j, bool now, rs_error *err)
{
  if (is_foreign(j))
    return RS_OK;
  if (j->out.failed)
    return rs_fail_plain(err, RS_ENOMEM);
  if (j->out.size == 0)
    return sync_file(j, now, err);
  if (j->size > j->end && ftruncate(j->fd, (off_t) j->end) != 0)
    return fail(err, "cannot be cut");
  j->size = j->end;
  if (write_all(j, &j->out) != 0) {
    const int number = errno;
    if (ftruncate(j->fd, (off_t) j->end) != 0) {
      /* What follows 'end' is no whole frame; the next run drops it. */
    }
    errno = number;
    return fail(err, "cannot be written");
  }
  j->end += j->out.size;
  j->size = j->end;
  rs_buf_clear(&j->out);
  j->dirty = true;
  return sync_file(j, now, err);
}
