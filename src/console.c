/* SPDX-License-Identifier: MIT */
/*
 * console.c - whole lines on the terminal, and one status line below them.
 *
 *     a line that a job printed
 *     another one
 *     Scanning [=======>      ] 54%      <- status, without a newline
 *
 * A line goes out in one piece: the status is blanked, the line written, the
 * status written again.  Blanking takes spaces and carriage returns alone,
 * which every terminal knows.
 *
 * This is the one place with state outside of any object: a process has one
 * terminal, whatever number of hosts and pools share it.  All threads run
 * here; 'lock' guards what is static.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "runspace.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char status[1024];  /* "" when none is shown */
static size_t columns;     /* that it takes, at most */

/* Cover the status with spaces. */
static void
blank_locked (void)
{
  if (status[0] != '\0')
    fprintf(stderr, "\r%*s\r", (int) columns, "");
}

static void
draw_locked (void)
{
  if (status[0] != '\0')
    fprintf(stderr, "\r%s", status);
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

void
rs_console_write (int fd, const char *line, size_t size)
{
  FILE *const file = fd == 2 ? stderr : stdout;
  pthread_mutex_lock(&lock);
  blank_locked();
  if (status[0] != '\0')
    fflush(stderr);
  /* One fwrite holds the lock of the FILE from the first byte to the last. */
  fwrite(line, 1, size, file);
  fflush(file);
  draw_locked();
  if (status[0] != '\0')
    fflush(stderr);
  pthread_mutex_unlock(&lock);
}

void
rs_console_status (const char *text)
{
  pthread_mutex_lock(&lock);
  blank_locked();
  const size_t size = text != NULL ? strcspn(text, "\r\n") : 0;
  const size_t most = sizeof status - 1;
  memcpy(status, size > 0 ? text : "", size < most ? size : most);
  status[size < most ? size : most] = '\0';
  columns = count_columns(status);
  draw_locked();
  fflush(stderr);
  pthread_mutex_unlock(&lock);
}
