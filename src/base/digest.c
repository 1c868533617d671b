/* SPDX-License-Identifier: MIT */
/*
 * digest.c - 128 bits that stand for a sequence of bytes and numbers.
 */
#include "base/digest.h"

#include <string.h>

void
rs_digest_bytes (rs_digest *d, const void *bytes, size_t n)
{
  const unsigned char *at = bytes;
  uint64_t word;
  rs_digest_number(d, n);
  for (; n >= sizeof word; n -= sizeof word, at += sizeof word) {
    memcpy(&word, at, sizeof word);
    rs_digest_number(d, word);
  }
  if (n > 0) {
    word = 0;
    memcpy(&word, at, n);
    rs_digest_number(d, word);
  }
}
