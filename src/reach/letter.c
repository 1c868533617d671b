/* SPDX-License-Identifier: MIT */
/*
 * letter.c - letters: what callers and workers send each other by a broker.
 */
#include "reach/letter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/options.h"
#include "base/status.h"
#include "value/wire.h"

enum { SEAL = 1 + RS_AMQP_HASH };  /* bytes */

static const char everybody[] = "*";  /* no queue has this name */

void
rs_letter_begin (const rs_desk *d, rs_buf *b, rs_letter_type type,
                 uint64_t serial)
{
  static const unsigned char room[SEAL];
  rs_buf_add(b, room, SEAL);
  rs_add_number(b, type, 2);
  rs_add_text(b, d->own);
  rs_add_number(b, serial, 8);
}

/* The HMAC of a letter for 'to'. */
static void
sign (const rs_desk *d, const char *to, const unsigned char *bytes,
      size_t size, unsigned char out[RS_AMQP_HASH])
{
  if (to == NULL)
    to = everybody;
  const struct iovec parts[] = {
    { (void *) (uintptr_t) d->queue, strlen(d->queue) + 1 },
    { (void *) (uintptr_t) to, strlen(to) + 1 },
    { (void *) (uintptr_t) bytes, size },
  };
  d->module->sign(d->key, d->key_size, parts, 3, out);
}

void
rs_letter_seal (const rs_desk *d, rs_buf *b, const char *to)
{
  if (b->failed || d->key == NULL)
    return;
  b->data[0] = 1;
  sign(d, to, b->data + SEAL, b->size - SEAL, b->data + 1);
}

int
rs_letter_post (const rs_desk *d, rs_amqp *a, const rs_buf *b,
                const char *to, uint64_t number, unsigned priority,
                bool waits)
{
  if (b->failed)
    return RS_ENOMEM;
  const struct iovec part = { b->data, b->size };
  const rs_amqp_message m = {
    .target = to == NULL ? RS_AMQP_EXCHANGE
            : to == d->queue ? RS_AMQP_SHARED : RS_AMQP_QUEUE,
    .name = to, .number = number, .priority = priority,
    .parts = &part, .n = 1, .waits = waits,
  };
  return d->module->publish(a, &m);
}

int
rs_letter_send (const rs_desk *d, rs_amqp *a, rs_buf *b, const char *to,
                uint64_t number, unsigned priority, bool waits)
{
  rs_letter_seal(d, b, to);
  return rs_letter_post(d, a, b, to, number, priority, waits);
}

bool
rs_letter_peek (const void *body, size_t size, rs_letter *out)
{
  rs_cut c = { body, size, false };
  rs_cut_bytes(&c, SEAL);
  const uint64_t type = rs_cut_number(&c, 2);
  char *const from = rs_cut_text(&c);
  const bool good = from != NULL && from[0] != '\0'
                 && strlen(from) < RS_AMQP_NAME
                 && rs_check_name(from, NULL) == RS_OK
                 && type >= 1 && type < RS_LETTER_TYPES;
  if (good)
    strcpy(out->from, from);
  free(from);
  out->type = (rs_letter_type) type;
  out->serial = rs_cut_number(&c, 8);
  out->content = c;
  return good && !c.bad;
}

int
rs_letter_read (const rs_desk *d, const void *body, size_t size,
                const char *to, rs_letter *out)
{
  const unsigned char *const bytes = body;
  unsigned char seal[RS_AMQP_HASH];
  if (!rs_letter_peek(body, size, out) || bytes[0] > 1)
    return RS_EFORMAT;
  if ((bytes[0] == 1) != (d->key != NULL))
    return RS_EREFUSED;
  if (d->key == NULL)
    return RS_OK;
  sign(d, to, bytes + SEAL, size - SEAL, seal);
  return d->module->equal(seal, bytes + 1) ? RS_OK : RS_EREFUSED;
}

char *
rs_letter_queue (const rs_amqp_module *module, const char *whose)
{
  unsigned char bytes[16];
  char *const name = malloc(64);
  if (name == NULL || !module->random(bytes, sizeof bytes)) {
    free(name);
    return NULL;
  }
  int n = snprintf(name, 64, "runspace.%.12s.", whose);
  for (size_t i = 0; i < sizeof bytes; i++)
    n += snprintf(name + n, 64 - (size_t) n, "%02x", bytes[i]);
  return name;
}

void
rs_add_reply (rs_buf *b, const unsigned char nonce[RS_AMQP_HASH],
              rs_verdict verdict, uint64_t next)
{
  rs_buf_add(b, nonce, RS_AMQP_HASH);
  rs_add_number(b, verdict, 1);
  rs_add_number(b, next, 8);
  rs_add_double(b, rs_now());
}

void
rs_add_message (rs_buf *b, const rs_message *message)
{
  rs_add_number(b, message->constant | message->common << 1, 1);
  rs_add_number(b, message->size, 8);
  rs_buf_add(b, message->data, message->size);
}

int
rs_cut_message (rs_cut *c, unsigned forbidden, rs_message **out)
{
  const unsigned kind = (unsigned) rs_cut_number(c, 1);
  const uint64_t size = rs_cut_number(c, 8);
  const unsigned char *const data = rs_cut_bytes(c, size);
  if (data == NULL || size < RS_WIRE_HEADER || kind > 3)
    return RS_EFORMAT;
  rs_message *const m = rs_message_new(data, (size_t) size,
                                       data[RS_WIRE_AT_FLAGS]);
  if (m == NULL)
    return RS_ENOMEM;
  m->constant = (kind & 1) != 0;
  m->common = (kind & 2) != 0;
  m->forbidden = (uint8_t) forbidden;
  *out = m;
  return RS_OK;
}
