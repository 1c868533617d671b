/* SPDX-License-Identifier: MIT */
/*
 * payload.h - the bytes of a payload, read from the front and written behind.
 *
 * Numbers are little-endian.  A reader trusts nothing: what is too short is
 * 'bad', and reads as zero.
 */
#ifndef RS_PAYLOAD_H
#define RS_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* Bytes that are read from the front; 'bad' once they were too few. */
typedef struct rs_cut {
  const unsigned char *data;
  size_t size;
  bool bad;
} rs_cut;

uint64_t rs_cut_number (rs_cut *c, int bytes);
double rs_cut_double (rs_cut *c);
/* 'size' bytes, or NULL. */
const unsigned char *rs_cut_bytes (rs_cut *c, uint64_t size);
/* A text with its length in front, as 'rs_add_text' writes it: a copy, owned
   by the caller; NULL: there is none, or it has a zero byte, or no memory. */
char *rs_cut_text (rs_cut *c);

void rs_add_number (rs_buf *b, uint64_t n, int bytes);
void rs_add_double (rs_buf *b, double x);
void rs_add_text (rs_buf *b, const char *text);

#endif
