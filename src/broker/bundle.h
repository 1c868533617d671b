/* SPDX-License-Identifier: MIT */
/*
 * bundle.h - short bodies for one queue, which travel as one message.
 *
 *     +------+-------+------+-------+ ...
 *     | size | bytes | size | bytes |
 *     +------+-------+------+-------+ ...
 *      4, big-endian
 *
 * A message costs the broker the same, whatever it has in it; so what waits to
 * be written to a queue goes together.  The type of the AMQP message is
 * RS_BUNDLE.
 */
#ifndef RS_BUNDLE_H
#define RS_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>

#define RS_BUNDLE "bundle"

enum {
  RS_BUNDLE_HEAD = 4,       /* bytes before each body */
  RS_BUNDLE_BODY = 16 << 10,  /* bytes of a body that goes with others */
  RS_BUNDLE_MOST = 96 << 10   /* bytes of a bundle: less than a frame */
};

/* Write the head of a body of 'size' bytes. */
void rs_bundle_write (unsigned char head[RS_BUNDLE_HEAD], size_t size);

/* Take the next body off the bundle '*at' of '*left' bytes.  False: there is
   none, or its size is a lie. */
bool rs_bundle_take (const unsigned char **at, size_t *left,
                     const unsigned char **body, size_t *size);

#endif
