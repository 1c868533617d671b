/* SPDX-License-Identifier: MIT */
/*
 * payload.c - the bytes of a payload, read from the front and written behind.
 */
#include "reach/payload.h"

#include <stdlib.h>
#include <string.h>

uint64_t
rs_cut_number (rs_cut *c, int bytes)
{
  const unsigned char *const p = rs_cut_bytes(c, (uint64_t) bytes);
  uint64_t n = 0;
  for (int i = 0; p != NULL && i < bytes; i++)
    n |= (uint64_t) p[i] << 8 * i;
  return n;
}

double
rs_cut_double (rs_cut *c)
{
  const uint64_t bits = rs_cut_number(c, 8);
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

const unsigned char *
rs_cut_bytes (rs_cut *c, uint64_t size)
{
  const unsigned char *const at = c->data;
  if (c->bad || size > c->size) {
    c->bad = true;
    return NULL;
  }
  c->data += size;
  c->size -= (size_t) size;
  return at;
}

char *
rs_cut_text (rs_cut *c)
{
  const uint64_t size = rs_cut_number(c, 4);
  const unsigned char *const at = rs_cut_bytes(c, size);
  if (at == NULL)
    return NULL;
  if (memchr(at, 0, (size_t) size) != NULL) {
    c->bad = true;
    return NULL;
  }
  char *const text = malloc((size_t) size + 1);
  if (text == NULL)
    return NULL;
  memcpy(text, at, (size_t) size);
  text[size] = '\0';
  return text;
}

void
rs_add_number (rs_buf *b, uint64_t n, int bytes)
{
  for (int i = 0; i < bytes; i++)
    rs_buf_byte(b, (unsigned char) (n >> 8 * i));
}

void
rs_add_double (rs_buf *b, double x)
{
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  rs_add_number(b, bits, 8);
}

void
rs_add_text (rs_buf *b, const char *text)
{
  const size_t size = strlen(text);
  rs_add_number(b, size, 4);
  rs_buf_add(b, text, size);
}
