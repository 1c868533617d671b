/* SPDX-License-Identifier: MIT */
/*
 * digest.h - 128 bits that stand for a sequence of bytes and numbers.
 *
 * Equal sequences have equal digests in all programs on machines with one byte
 * order.  Others most probably have other ones, unless somebody is looking for
 * two with the same: a digest is no signature.
 */
#ifndef RS_DIGEST_H
#define RS_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { RS_DIGEST_SIZE = 16 };  /* bytes */

typedef struct rs_digest {
  uint64_t a, b;
} rs_digest;

#define RS_DIGEST_INIT { UINT64_C(0x243f6a8885a308d3), \
                         UINT64_C(0x13198a2e03707344) }

/* Spread the bits of a number; different ones stay different. */
static inline uint64_t
rs_digest_mix (uint64_t x)
{
  x = (x ^ x >> 33) * UINT64_C(0xff51afd7ed558ccd);
  x = (x ^ x >> 29) * UINT64_C(0x9fb21c651e98df25);
  return x ^ x >> 32;
}

static inline void
rs_digest_number (rs_digest *d, uint64_t n)
{
  d->a = (d->a ^ n) * UINT64_C(0x9e3779b97f4a7c15);
  d->a ^= d->a >> 32;
  d->b = ((d->b << 23 | d->b >> 41) + n) * UINT64_C(0xd6e8feb86659fd93);
  d->b ^= d->b >> 29;
}

/* Append how many bytes there are, and the bytes. */
void rs_digest_bytes (rs_digest *d, const void *bytes, size_t n);

/* The digest of all that was appended; 'd' stays as it is. */
static inline rs_digest
rs_digest_end (const rs_digest *d)
{
  const uint64_t a = rs_digest_mix(d->a ^ (d->b << 32 | d->b >> 32));
  return (rs_digest) { a, rs_digest_mix(d->b + a) };
}

#endif
