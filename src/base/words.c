/* SPDX-License-Identifier: MIT */
/*
 * words.c - lists of words, and the names of hosts.
 */
#include "base/words.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

size_t
rs_words_count (const char *const *words)
{
  size_t n = 0;
  while (words != NULL && words[n] != NULL)
    n++;
  return n;
}

char **
rs_words_copy (const char *const *words)
{
  const size_t n = rs_words_count(words);
  char **const copy = calloc(n + 1, sizeof *copy);
  for (size_t i = 0; copy != NULL && i < n; i++)
    if ((copy[i] = strdup(words[i])) == NULL) {
      rs_words_free(copy);
      return NULL;
    }
  return copy;
}

void
rs_words_free (char **words)
{
  for (size_t i = 0; words != NULL && words[i] != NULL; i++)
    free(words[i]);
  free(words);
}

/* Read the number of workers, which is all of the text; 0: it is none. */
static unsigned
read_workers (const char *text)
{
  unsigned n = 0;
  for (; *text >= '0' && *text <= '9' && n <= RS_WORKERS_MAX; text++)
    n = 10 * n + (unsigned) (*text - '0');
  return *text == '\0' && n <= RS_WORKERS_MAX ? n : 0;
}

/* True when the text has what names of users and hosts have. */
static bool
is_plain (const char *text, size_t length)
{
  static const char plain[] = "abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+@:%";
  return length > 0 && text[0] != '-' && text[0] != '@'
      && text[length - 1] != '@' && strspn(text, plain) >= length;
}

int
rs_host_read (const char *text, rs_host_name *out, rs_error *err)
{
  const char *const bracket = text[0] == '[' ? strchr(text, ']') : NULL;
  const char *const colon = bracket != NULL ? bracket + 1
                                            : strchr(text, ':');
  rs_host_name h = { .name = text, .length = strlen(text) };
  bool good = bracket == NULL || *colon == ':' || *colon == '\0';
  if (bracket != NULL) {
    h.name = text + 1;
    h.length = (size_t) (bracket - h.name);
  }
  else if (colon != NULL && strchr(colon + 1, ':') == NULL)
    h.length = (size_t) (colon - text);
  /* Two colons without brackets are an address of IPv6, and no number. */
  if (good && colon != NULL && *colon == ':'
      && (bracket != NULL || h.length == (size_t) (colon - text))) {
    h.workers = read_workers(colon + 1);
    good = h.workers > 0;
  }
  if (!good || !is_plain(h.name, h.length))
    return rs_fail(err, RS_EINVAL, "hosts has '%.100s', which is no host: "
                                   "\"name\", \"user@name\" or \"name:N\", "
                                   "for N workers, are", text);
  *out = h;
  return RS_OK;
}
