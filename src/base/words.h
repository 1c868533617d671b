/* SPDX-License-Identifier: MIT */
/*
 * words.h - lists of words that NULL ends, and the names of hosts among them.
 */
#ifndef RS_WORDS_H
#define RS_WORDS_H

#include <stddef.h>

#include "runspace.h"

/* Number of words; NULL has none. */
size_t rs_words_count (const char *const *words);

/* A copy of the words, which 'rs_words_free' frees; NULL: no memory. */
char **rs_words_copy (const char *const *words);
void rs_words_free (char **words);

/* Where a host is named: "web1", "admin@web1", "web1:8", "[::1]:8". */
typedef struct rs_host_name {
  const char *name;        /* lent, not ended; without brackets and number */
  size_t length;
  unsigned workers;        /* behind the colon; 0: none is there */
} rs_host_name;

/* Read the name.  RS_OK, or RS_EINVAL for one that ssh would take for an
   option, or a shell for more than a word. */
int rs_host_read (const char *text, rs_host_name *out, rs_error *err);

#endif
