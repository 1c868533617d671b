/* SPDX-License-Identifier: MIT */
/*
 * command.c - a command that brings up a worker, and what it says.
 */
#include "reach/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"

enum {
  LINE = 4096,              /* a line that is longer is cut */
  HELD = 16384,             /* bytes that are held back, at most */
  LAST = 3,                 /* lines of an error, at most */
  AT_ONCE = 16              /* reads, so that frames are not held up */
};

#define STEP 0.05           /* seconds between two looks for the end */

/* ---------------------------------------------------------------- starting */

static void
close_all (const int *fds, int n)
{
  for (int i = 0; i < n; i++)
    if (fds[i] >= 0)
      close(fds[i]);
}

int
rs_command_start (rs_process *p, const char *const *words, rs_errors *errors,
                  rs_error *err)
{
  int fds[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
  int code = 0;
  *p = (rs_process) RS_NO_PROCESS;
  for (int i = 0; i < 3 && code == 0; i++)
    code = rs_process_pipe(fds[i]);
  if (code != 0) {
    close_all(fds[0], 6);
    return rs_fail(err, RS_EFAILED, "cannot make a pipe for a worker: %s",
                   strerror(code));
  }
  code = rs_process_spawn(p, words[0], words, NULL,
                          (int [4]) { fds[0][0], fds[1][1], fds[2][1], -1 });
  close_all((int [3]) { fds[0][0], fds[1][1], fds[2][1] }, 3);
  const int ours[3] = { fds[0][1], fds[1][0], fds[2][0] };
  if (code != 0) {
    close_all(ours, 3);
    return rs_fail(err, RS_EFAILED, "cannot start '%.150s': %s", words[0],
                   strerror(code));
  }
  for (int i = 0; i < 2; i++)
    fcntl(ours[i], F_SETFL, O_NONBLOCK);
  p->out = ours[0];
  p->in = ours[1];
  p->gentle = true;
  rs_errors_begin(errors, ours[2]);
  return RS_OK;
}

/* ---------------------------------------------------------- standard error */

void
rs_errors_begin (rs_errors *e, int fd)
{
  fcntl(fd, F_SETFL, O_NONBLOCK);
  e->fd = fd;
  e->shown = false;
  rs_buf_clear(&e->held);
}

/* Show a line, of which 'line' has all but its end. */
static void
show_line (const rs_errors *e, const unsigned char *line, size_t size)
{
  unsigned char room[LINE + 128];
  rs_buf b = RS_BUF_OVER(room, sizeof room);
  while (size > 0 && line[size - 1] == '\r')
    size--;
  rs_buf_add(&b, e->name, strnlen(e->name, 100));
  rs_buf_add(&b, ": ", 2);
  for (size_t i = 0; i < size; i++)
    rs_buf_byte(&b, (line[i] < 0x20 && line[i] != '\t') || line[i] == 0x7f
                    ? '?' : line[i]);
  rs_buf_byte(&b, '\n');
  rs_console_write(2, (const char *) b.data, b.size);
}

/* Show the lines that are held, and with 'all' what has no end, too. */
static void
show_held (rs_errors *e, bool all)
{
  rs_buf *const b = &e->held;
  size_t at = 0;
  while (at < b->size) {
    const unsigned char *const line = b->data + at;
    const size_t left = b->size - at;
    const unsigned char *const end = memchr(line, '\n', left);
    const size_t size = end != NULL ? (size_t) (end - line) : left;
    if (end == NULL && size <= LINE && !all)
      break;
    show_line(e, line, size < LINE ? size : LINE);
    at += size <= LINE ? size + (end != NULL) : LINE;
  }
  if (at > 0)
    memmove(b->data, b->data + at, b->size - at);
  b->size -= at;
}

static void
close_fd (rs_errors *e)
{
  if (e->fd >= 0)
    close(e->fd);
  e->fd = -1;
}

void
rs_errors_read (rs_errors *e)
{
  unsigned char room[LINE];
  rs_buf *const b = &e->held;
  ssize_t n = 1;
  for (int i = 0; i < AT_ONCE && e->fd >= 0
                  && (n = read(e->fd, room, sizeof room)) > 0; i++) {
    if (b->size + (size_t) n > HELD) {  /* only while they are held back */
      memmove(b->data, b->data + b->size / 2, b->size - b->size / 2);
      b->size -= b->size / 2;
    }
    rs_buf_add(b, room, (size_t) n);
    if (b->failed)
      rs_buf_clear(b);
    if (e->shown)
      show_held(e, false);
  }
  const bool later = n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK
                               || errno == EINTR);
  if (n <= 0 && !later)
    close_fd(e);
}

void
rs_errors_show (rs_errors *e)
{
  e->shown = true;
  show_held(e, false);
}

void
rs_errors_drain (rs_errors *e, const rs_process *p, double timeout)
{
  const double deadline = rs_deadline(timeout);
  bool ended;
  do {
    /* What it wrote before its end is in the pipe when the end is seen. */
    ended = rs_process_has_ended(p);
    rs_errors_read(e);
    double left = rs_remaining(deadline);
    if (ended || left <= 0)
      break;
    left = left < STEP ? left : STEP;
    struct pollfd fds[] = {
      { .fd = e->fd, .events = POLLIN }, { .fd = p->end, .events = POLLIN }
    };
    poll(fds, 2, (int) (left * 1e3) + 1);
  } while (true);
}

void
rs_errors_close (rs_errors *e)
{
  if (e->shown)
    show_held(e, true);
  rs_buf_fini(&e->held);
  close_fd(e);
}

/* True for what a terminal would obey; 's' is ended by a zero. */
static bool
is_control (const unsigned char *s)
{
  return *s < 0x20 || *s == 0x7f || (s[0] == 0xc2 && s[1] >= 0x80
                                     && s[1] < 0xa0);
}

void
rs_text_last (char *text, size_t most)
{
  size_t size = strlen(text), at, lines = 0;
  while (size > 0 && (unsigned char) text[size - 1] <= ' ')
    size--;
  text[size] = '\0';
  for (at = size; at > 0 && size - at < most; at--)
    if (text[at - 1] == '\n' && ++lines == LAST)
      break;
  while (at < size && ((unsigned char) text[at] <= ' '
                       || ((unsigned char) text[at] & 0xc0) == 0x80))
    at++;  /* not in the middle of a character */
  memmove(text, text + at, size - at + 1);
  /* The ends of lines become ";" or "; ". */
  for (char *s = text; *s != '\0'; s++)
    if (*s == '\r' && s[1] == '\n')
      *s = ';', *++s = ' ';
    else if (*s == '\n' || *s == '\t')
      *s = *s == '\n' ? ';' : ' ';
    else if (is_control((unsigned char *) s))
      *s = '?';
}
