/* SPDX-License-Identifier: MIT */
/*
 * bundle.c - short bodies for one queue, which travel as one message.
 */
#include "broker/bundle.h"

void
rs_bundle_write (unsigned char head[RS_BUNDLE_HEAD], size_t size)
{
  for (int i = 0; i < RS_BUNDLE_HEAD; i++)
    head[i] = (unsigned char) (size >> 8 * (RS_BUNDLE_HEAD - 1 - i));
}

bool
rs_bundle_take (const unsigned char **at, size_t *left,
                const unsigned char **body, size_t *size)
{
  size_t n = 0;
  if (*left < RS_BUNDLE_HEAD)
    return false;
  for (int i = 0; i < RS_BUNDLE_HEAD; i++)
    n = n << 8 | (*at)[i];
  if (n > *left - RS_BUNDLE_HEAD)
    return false;
  *body = *at + RS_BUNDLE_HEAD;
  *size = n;
  *at += RS_BUNDLE_HEAD + n;
  *left -= RS_BUNDLE_HEAD + n;
  return true;
}
