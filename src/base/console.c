/* SPDX-License-Identifier: MIT */
/*
 * console.c - whole lines on the terminal, and one status line below them.
 *
 *     a line that a job printed
 *     another one
 *     Scanning [=======>      ] 54%      <- status, without a newline
 *
 * A line is written in one piece: the status is blanked, the line written, the
 * status written again.  The terminal is told not to wrap the status, so that
 * the status takes one row, however wide the terminal shows its characters.  A
 * terminal that has become narrower wraps it though: then the status takes as
 * many rows as its columns fill.  A dumb terminal gets spaces and carriage
 * returns only.
 *
 * While an editor of input lines holds the console, only the editor knows what
 * the terminal shows.  So lines are kept, and the editor is told to clear its
 * own line and release them.  A thread that prints faster than that waits, but
 * not for an editor that does not respond: after PATIENCE its lines are
 * written at once.  A status is only noted meanwhile, so that no other line
 * changes under the editor.
 *
 * This is the one file with state outside of any object: a process has one
 * terminal, shared by all hosts and pools.  All threads call these functions;
 * 'lock' guards the static variables.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include "base/console.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/list.h"
#include "runspace.h"

#define PATIENCE 0.1         /* seconds that a thread waits for an editor */

enum { MAX_KEPT = 65536 };   /* bytes of lines that are kept */

typedef struct kept_line {
  rs_list link;              /* place in 'kept' */
  int fd;
  size_t size;
  char text[];
} kept_line;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char status[1024];  /* "" when none is shown */
static size_t columns;     /* width of the status, about */
static bool paused;        /* the status is not on the terminal for now */
static bool dumb;          /* the terminal has no control sequences */
static bool held;          /* the editor holds the console */
static int holder;         /* descriptor where the editor is told of kept
                              lines */
static rs_list kept = { &kept, &kept };  /* the list owns its lines */
static size_t kept_bytes;
static pthread_cond_t released;  /* kept_bytes == 0; made by the first hold */

/* rs_console_redirect; or NULL. */
static int (*redirected) (int fd, const char *text, size_t size);

void
rs_console_redirect (int (*to) (int fd, const char *text, size_t size))
{
  redirected = to;
}

/* Take the lock.  pthread_cancel(3) could end a thread in a write, with the
   lock held, so cancelling is off until 'leave'.  Returns the old state, for
   'leave'. */
static int
enter (void)
{
  int state;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
  pthread_mutex_lock(&lock);
  return state;
}

static void
leave (int state)
{
  pthread_mutex_unlock(&lock);
  pthread_setcancelstate(state, NULL);
}

/* Is the status on the terminal? */
static bool
shown_locked (void)
{
  return status[0] != '\0' && !paused && !held;
}

/* Take the status away: erase from where it begins (ECMA-48, CUU and ED). */
static void
blank_locked (void)
{
  struct winsize size;
  if (!shown_locked())
    return;
  if (dumb) {
    fprintf(stderr, "\r%*s\r", (int) columns, "");
    return;
  }
  if (ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0
      && columns > size.ws_col)  /* has the terminal become narrower? */
    fprintf(stderr, "\033[%dA", (int) ((columns - 1) / size.ws_col));
  fputs("\r\033[J", stderr);
}

static void
draw_locked (void)
{
  if (shown_locked())
    fprintf(stderr, dumb ? "\r%s" : "\r\033[?7l%s\033[?7h", status);
}

/* The columns of 'text': its characters, counted by their first bytes in
   UTF-8, without the control sequences of colours (ECMA-48, CSI). */
static size_t
count_columns (const char *text)
{
  size_t n = 0;
  while (*text != '\0') {
    if (text[0] == '\033' && text[1] == '[') {
      text += 2 + strcspn(text + 2, "@ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "abcdefghijklmnopqrstuvwxyz");
      text += *text != '\0';
    }
    else
      n += ((unsigned char) *text++ & 0xC0) != 0x80;
  }
  return n;
}

/* Write a line above the status.  Returns 0, or the 'errno' of the failure. */
static int
put_locked (int fd, const char *line, size_t size)
{
  FILE *const file = fd == 2 ? stderr : stdout;
  int error = 0;
  blank_locked();
  if (shown_locked())
    fflush(stderr);
  /* A single fwrite holds the lock of the FILE from the first byte to the
     last. */
  if (fwrite(line, 1, size, file) != size || fflush(file) != 0)
    error = errno;
  draw_locked();
  if (shown_locked())
    fflush(stderr);
  return error;
}

static void
put_kept_locked (void)
{
  rs_list *link;
  while ((link = rs_list_shift(&kept)) != NULL) {
    kept_line *const line = RS_LIST_ENTRY(link, kept_line, link);
    put_locked(line->fd, line->text, line->size);
    free(line);
  }
  kept_bytes = 0;
  if (held)  /* the first hold has made the condition */
    pthread_cond_broadcast(&released);
}

/* Tell the editor of kept lines, by a byte.  A descriptor that has no room for
   the byte has bytes that were not read, which tell the same. */
static void
tell_holder_locked (void)
{
  const ssize_t n = write(holder, "", 1);
  (void) n;
}

/* Keep a line for the editor to release.  False when no editor holds the
   console, or no room comes in time, or memory ran out. */
static bool
keep_locked (int fd, const char *text, size_t size)
{
  const double deadline = rs_deadline(PATIENCE);
  bool late = false;
  while (held && !late && kept_bytes > 0 && kept_bytes + size > MAX_KEPT)
    late = rs_cond_wait_until(&released, &lock, deadline) != RS_OK;
  kept_line *const line = held && !late ? malloc(sizeof *line + size) : NULL;
  if (line == NULL)
    return false;
  line->fd = fd;
  line->size = size;
  memcpy(line->text, text, size);
  if (rs_list_empty(&kept))
    tell_holder_locked();
  rs_list_push(&kept, &line->link);
  kept_bytes += size;
  return true;
}

int
rs_console_write (int fd, const char *line, size_t size)
{
  int error = 0;
  if ((fd != 1 && fd != 2) || (line == NULL && size > 0))
    return EINVAL;
  if (redirected != NULL)
    return redirected(fd, line, size);
  const int state = enter();
  if (!held || !keep_locked(fd, line, size)) {
    put_kept_locked();
    error = put_locked(fd, line, size);
  }
  leave(state);
  return error;
}

void
rs_console_hold (int fd)
{
  static bool ready;  /* the lock guards it */
  const int state = enter();
  if (!ready)
    rs_cond_init(&released);
  ready = true;
  if (shown_locked()) {
    blank_locked();
    fflush(stderr);
  }
  held = true;
  holder = fd;
  leave(state);
}

void
rs_console_release (void)
{
  const int state = enter();
  put_kept_locked();
  paused |= held;  /* a program that runs now may print: the next status ends
                      the pause */
  held = false;
  leave(state);
}

void
rs_console_status (const char *text)
{
  const char *const term = getenv("TERM");
  if (redirected != NULL)
    return;
  const int state = enter();
  blank_locked();
  dumb = term == NULL || term[0] == '\0' || strcmp(term, "dumb") == 0;
  paused = false;
  const size_t size = text != NULL ? strcspn(text, "\r\n") : 0;
  const size_t most = sizeof status - 1;
  memcpy(status, size > 0 ? text : "", size < most ? size : most);
  status[size < most ? size : most] = '\0';
  columns = count_columns(status);
  draw_locked();
  fflush(stderr);
  leave(state);
}

bool
rs_console_pause (void)
{
  const int state = enter();
  const bool shown = shown_locked();
  if (shown) {
    blank_locked();
    fflush(stderr);
    paused = true;
  }
  leave(state);
  return shown;
}

void
rs_console_resume (void)
{
  fflush(stdout);
  const int state = enter();
  if (paused) {
    paused = false;
    draw_locked();
    fflush(stderr);
  }
  leave(state);
}

/* Drop the status and the kept lines in a child: they are the parent's, as is
   the other process that gets its lines. */
static void
begin_child (void)
{
  pthread_mutex_init(&lock, NULL);
  rs_cond_init(&released);
  rs_list_init(&kept);
  kept_bytes = 0;
  status[0] = '\0';
  held = paused = false;
  redirected = NULL;
}

RS_IN_CHILD(begin_child)
