/* SPDX-License-Identifier: MIT */
/*
 * console.c - whole lines on the terminal, and one status line below them.
 *
 *     a line that a job printed
 *     another one
 *     Scanning [=======>      ] 54%      <- status, without a newline
 *
 * A line goes out in one piece: the status is blanked, the line written, the
 * status written again.  The terminal is told not to wrap the status, so that
 * it takes one row whatever the terminal makes of its characters.  A terminal
 * that became narrower has wrapped it though: then it takes the rows that its
 * columns fill.  A dumb terminal gets spaces and carriage returns alone.
 *
 * This is the one place with state outside of any object: a process has one
 * terminal, whatever number of hosts and pools share it.  All threads run
 * here; 'lock' guards what is static.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/ioctl.h>
#include <unistd.h>

#include "runspace.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char status[1024];  /* "" when none is shown */
static size_t columns;     /* that it takes, about */
static bool paused;        /* it is not on the terminal for now */
static bool dumb;          /* the terminal has no control sequences */

/* Is the status on the terminal? */
static bool
shown_locked (void)
{
  return status[0] != '\0' && !paused;
}

/* Take the status away: erase from where it began (ECMA-48, CUU and ED). */
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
      && columns > size.ws_col)  /* narrower since? */
    fprintf(stderr, "\033[%dA", (int) ((columns - 1) / size.ws_col));
  fputs("\r\033[J", stderr);
}

static void
draw_locked (void)
{
  if (shown_locked())
    fprintf(stderr, dumb ? "\r%s" : "\r\033[?7l%s\033[?7h", status);
}

/* Columns of 'text': its characters, by their first bytes in UTF-8, without
   the control sequences of colours (ECMA-48, CSI). */
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

int
rs_console_write (int fd, const char *line, size_t size)
{
  FILE *const file = fd == 2 ? stderr : stdout;
  int error = 0;
  pthread_mutex_lock(&lock);
  blank_locked();
  if (shown_locked())
    fflush(stderr);
  /* One fwrite holds the lock of the FILE from the first byte to the last. */
  if (fwrite(line, 1, size, file) != size || fflush(file) != 0)
    error = errno;
  draw_locked();
  if (shown_locked())
    fflush(stderr);
  pthread_mutex_unlock(&lock);
  return error;
}

void
rs_console_status (const char *text)
{
  const char *const term = getenv("TERM");
  pthread_mutex_lock(&lock);
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
  pthread_mutex_unlock(&lock);
}

bool
rs_console_pause (void)
{
  pthread_mutex_lock(&lock);
  const bool shown = shown_locked();
  if (shown) {
    blank_locked();
    fflush(stderr);
    paused = true;
  }
  pthread_mutex_unlock(&lock);
  return shown;
}

void
rs_console_resume (void)
{
  fflush(stdout);
  pthread_mutex_lock(&lock);
  if (paused) {
    paused = false;
    draw_locked();
    fflush(stderr);
  }
  pthread_mutex_unlock(&lock);
}
