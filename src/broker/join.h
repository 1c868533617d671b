/* SPDX-License-Identifier: MIT */
/*
 * join.h - long bodies, which travel as several messages of RS_AMQP_PART.
 *
 * Each message of a body carries a key that names it, as no other body is
 * named, and its place.  Parts of different bodies may come in turn; those of
 * one come in order, since one connection has written them, and one queue had
 * them.  A body whose next part does not come, since its writer has gone, is
 * dropped when others need its room.
 */
#ifndef RS_JOIN_H
#define RS_JOIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  RS_JOIN_BODIES = 16,      /* that may be unfinished at a time */
  RS_JOIN_TEXT = 64         /* bytes of a key, and of a place, with an end */
};

/* The place of a part in its body. */
typedef struct rs_part {
  uint64_t index;           /* from 0 */
  uint64_t total;           /* bytes of the whole */
} rs_part;

typedef struct rs_joint {
  char key[RS_JOIN_TEXT];   /* "": free */
  unsigned char *bytes;     /* owned */
  uint64_t size, room, total, parts;
  uint64_t used;            /* when, as 'rs_join' counts */
} rs_joint;

/* Bodies that are not whole; they belong to one thread. */
typedef struct rs_join {
  rs_joint bodies[RS_JOIN_BODIES];
  rs_joint whole;           /* the last one that was, until the next part */
  uint64_t clock;
} rs_join;

void rs_join_fini (rs_join *j);

/* Drop all bodies. */
void rs_join_clear (rs_join *j);

/*
 * Take a part.  True: the body is whole, and is lent until the next call.
 * What is out of order, or lies about lengths, drops that body.
 */
bool rs_join_add (rs_join *j, const char *key, rs_part part,
                  const unsigned char *bytes, size_t n,
                  const unsigned char **body, size_t *size);

/* Write the place of a part, and read it; false: it is none. */
void rs_part_write (rs_part part, char text[RS_JOIN_TEXT]);
bool rs_part_read (const char *text, rs_part *out);

#endif
