/* SPDX-License-Identifier: MIT */
/*
 * join.c - long bodies, put together.
 *
 * Memory is taken for bytes that have come, at most twice as much, and never
 * for a length that was announced.
 */
#include "broker/join.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/amqp.h"

static void
drop (rs_joint *b)
{
  free(b->bytes);
  memset(b, 0, sizeof *b);
}

void
rs_join_clear (rs_join *j)
{
  for (int i = 0; i < RS_JOIN_BODIES; i++)
    drop(&j->bodies[i]);
  drop(&j->whole);
}

void
rs_join_fini (rs_join *j)
{
  rs_join_clear(j);
}

static rs_joint *
find (rs_join *j, const char *key)
{
  for (int i = 0; i < RS_JOIN_BODIES; i++)
    if (strcmp(j->bodies[i].key, key) == 0)
      return &j->bodies[i];
  return NULL;
}

/* Room for one more body: a free one, or that of the body which has waited
   longest for its next part. */
static rs_joint *
make_room (rs_join *j)
{
  rs_joint *b = &j->bodies[0];
  for (int i = 1; i < RS_JOIN_BODIES; i++)
    if (j->bodies[i].used < b->used)
      b = &j->bodies[i];
  drop(b);
  return b;
}

/* Keep all bodies together below the bound, by dropping others than 'b'. */
static void
bound (rs_join *j, const rs_joint *b, size_t more)
{
  for (;;) {
    uint64_t sum = more;
    rs_joint *oldest = NULL;
    for (int i = 0; i < RS_JOIN_BODIES; i++) {
      rs_joint *const other = &j->bodies[i];
      sum += other->size;
      if (other != b && other->bytes != NULL
          && (oldest == NULL || other->used < oldest->used))
        oldest = other;
    }
    if (sum <= RS_AMQP_MOST || oldest == NULL)
      return;
    drop(oldest);
  }
}

static bool
grow (rs_joint *b, size_t n)
{
  if (b->room - b->size >= n)
    return true;
  uint64_t room = 2 * b->room > b->size + n ? 2 * b->room : b->size + n;
  if (room > b->total)
    room = b->total;
  unsigned char *const bytes = realloc(b->bytes, (size_t) room);
  if (bytes == NULL)
    return false;
  b->bytes = bytes;
  b->room = room;
  return true;
}

bool
rs_join_add (rs_join *j, const char *key, rs_part part,
             const unsigned char *bytes, size_t n,
             const unsigned char **body, size_t *size)
{
  rs_joint *b = key[0] != '\0' ? find(j, key) : NULL;
  drop(&j->whole);
  if (key[0] == '\0' || strlen(key) >= RS_JOIN_TEXT)
    return false;
  if (b == NULL && part.index == 0 && part.total <= RS_AMQP_MOST) {
    b = make_room(j);
    strcpy(b->key, key);
    b->total = part.total;
  }
  if (b == NULL)
    return false;
  b->used = ++j->clock;
  if (part.index != b->parts || part.total != b->total || n == 0
      || n > b->total - b->size || !grow(b, n)) {
    drop(b);
    return false;
  }
  bound(j, b, n);
  memcpy(b->bytes + b->size, bytes, n);
  b->size += n;
  b->parts++;
  if (b->size < b->total)
    return false;
  j->whole = *b;
  memset(b, 0, sizeof *b);
  *body = j->whole.bytes;
  *size = (size_t) j->whole.size;
  return true;
}

void
rs_part_write (rs_part part, char text[RS_JOIN_TEXT])
{
  snprintf(text, RS_JOIN_TEXT, "%" PRIu64 "/%" PRIu64, part.index,
           part.total);
}

bool
rs_part_read (const char *text, rs_part *out)
{
  rs_part part;
  int n = 0;
  if (text[0] < '0' || text[0] > '9'
      || sscanf(text, "%19" SCNu64 "/%19" SCNu64 "%n", &part.index,
                &part.total, &n) != 2
      || n == 0 || text[n] != '\0')
    return false;
  *out = part;
  return true;
}
