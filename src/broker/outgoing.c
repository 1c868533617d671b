/* SPDX-License-Identifier: MIT */
/*
 * outgoing.c - what waits to be written to the broker.
 *
 * librabbitmq writes a whole message before it returns, however slowly the
 * broker reads.  So a body of more than a frame is given to it frame by frame,
 * and the thread reads what has come in between.
 */
#include "broker/outgoing.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <amqp_framing.h>

#include "broker/bundle.h"

enum {
  AROUND = 8,               /* bytes of a frame beside its payload */
  PERSISTENT = 2,
  NEAR = 256                /* items that are looked at for a bundle */
};

#define TAG_BITS 40         /* of those that the broker numbers */

rs_item *
rs_item_new (rs_item_kind kind, uint64_t tag)
{
  rs_item *const item = calloc(1, sizeof *item);
  if (item != NULL) {
    item->kind = kind;
    item->number = tag;
  }
  return item;
}

rs_item *
rs_item_new_message (const rs_amqp_message *message, size_t from, size_t size)
{
  const char *const name = message->target == RS_AMQP_QUEUE ? message->name
                                                            : "";
  const size_t length = strlen(name) + 1;
  rs_item *const item = malloc(sizeof *item + length + size);
  if (item == NULL)
    return NULL;
  memset(item, 0, sizeof *item);
  char *const at = (char *) (item + 1);
  unsigned char *body = (unsigned char *) at + length;
  memcpy(at, name, length);
  item->kind = RS_ITEM_PUBLISH;
  item->target = message->target;
  item->priority = message->priority;
  item->number = message->number;
  item->name = at;
  item->body = body;
  item->size = item->weight = size;
  for (int i = 0; i < message->n && size > 0; i++) {
    const struct iovec *const part = &message->parts[i];
    if (from >= part->iov_len) {
      from -= part->iov_len;
      continue;
    }
    const size_t left = part->iov_len - from;
    const size_t n = left < size ? left : size;
    memcpy(body, (const unsigned char *) part->iov_base + from, n);
    body += n;
    size -= n;
    from = 0;
  }
  return item;
}

void
rs_item_free (rs_item *item)
{
  if (item != NULL) {
    rs_cut_unref(item->cut);
    free(item->numbers);
  }
  free(item);
}

void
rs_items_free (rs_item *first)
{
  while (first != NULL) {
    rs_item *const next = first->next;
    rs_item_free(first);
    first = next;
  }
}

/* ---------------------------------------------------------------- bundles */

/* True if the item is for the queue. */
static bool
is_for (const rs_item *item, const char *queue)
{
  return item->kind == RS_ITEM_PUBLISH && item->target == RS_AMQP_QUEUE
      && strcmp(item->name, queue) == 0;
}

/* What the items that go with the first one come to. */
typedef struct load {
  size_t items, numbers;
  size_t bytes;             /* of the bundle */
} load;

/* Count the item, which is for the queue; false: the bundle ends before it. */
static bool
count (const rs_item *item, load *sum)
{
  const size_t bytes = sum->bytes + RS_BUNDLE_HEAD + item->size;
  if (item->is_part || item->size > RS_BUNDLE_BODY || bytes > RS_BUNDLE_MOST)
    return false;
  sum->items++;
  sum->numbers += item->number != 0;
  sum->bytes = bytes;
  return true;
}

static load
survey (const rs_item *first)
{
  load sum = { 0, 0, 0 };
  int n = 0;
  for (const rs_item *i = first; i != NULL && n < NEAR; i = i->next, n++)
    if (is_for(i, first->name) && !count(i, &sum))
      break;
  return sum;
}

/* An empty bundle for the queue; NULL: no memory. */
static rs_item *
new_bundle (const char *queue, const load *sum)
{
  const size_t length = strlen(queue) + 1;
  rs_item *const b = malloc(sizeof *b + length + sum->bytes);
  if (b == NULL)
    return NULL;
  memset(b, 0, sizeof *b);
  if (sum->numbers > 0) {
    b->numbers = malloc(sizeof *b->numbers
                        + sum->numbers * sizeof b->numbers->each[0]);
    if (b->numbers == NULL) {
      free(b);
      return NULL;
    }
    b->numbers->n = 0;
  }
  memcpy(b + 1, queue, length);
  b->kind = RS_ITEM_PUBLISH;
  b->target = RS_AMQP_QUEUE;
  b->is_bundle = true;
  b->name = (const char *) (b + 1);
  b->body = (const unsigned char *) b->name + length;
  return b;
}

/* Append the item, and free it. */
static void
take_in (rs_item *b, rs_item *item)
{
  unsigned char *const at = (unsigned char *) (uintptr_t) b->body + b->size;
  rs_bundle_write(at, item->size);
  memcpy(at + RS_BUNDLE_HEAD, item->body, item->size);
  b->size += RS_BUNDLE_HEAD + item->size;
  b->weight += item->weight;
  if (item->number != 0)
    b->numbers->each[b->numbers->n++] = item->number;
  rs_item_free(item);
}

void
rs_items_bundle (rs_item **first)
{
  const rs_item *const head = *first;
  if (head->kind != RS_ITEM_PUBLISH || head->target != RS_AMQP_QUEUE)
    return;
  load sum = survey(head);
  rs_item *const b = sum.items > 1 ? new_bundle(head->name, &sum) : NULL;
  if (b == NULL)
    return;
  for (rs_item **at = first; sum.items > 0;) {
    rs_item *const item = *at;
    if (!is_for(item, b->name)) {
      at = &item->next;
      continue;
    }
    *at = item->next;
    take_in(b, item);
    sum.items--;
  }
  b->next = *first;
  *first = b;
}

/* ----------------------------------------------------------------- writing */

static bool
check (rs_outgoing *out, int status)
{
  if (status != AMQP_STATUS_OK)
    rs_session_fail(out->session, status);
  return status == AMQP_STATUS_OK;
}

/* Where a message goes. */
static void
address (const rs_outgoing *out, const rs_item *item, amqp_bytes_t *exchange,
         amqp_bytes_t *key)
{
  *exchange = *key = amqp_empty_bytes;
  switch (item->target) {
  case RS_AMQP_SHARED: *key = amqp_cstring_bytes(out->queue); break;
  case RS_AMQP_QUEUE: *key = amqp_cstring_bytes(item->name); break;
  case RS_AMQP_EXCHANGE: *exchange = amqp_cstring_bytes(out->exchange); break;
  }
}

/* Does anybody ask whether the message was taken? */
static bool
is_asked_for (const rs_item *item)
{
  return item->number != 0 || item->numbers != NULL;
}

/* What the broker, and the other side, is told of a message.  'id' is room for
   its number. */
static void
describe (const rs_item *item, uint64_t sequence, char id[24],
          amqp_basic_properties_t *p)
{
  memset(p, 0, sizeof *p);
  if (item->target == RS_AMQP_SHARED) {
    p->_flags |= AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_PRIORITY_FLAG;
    p->delivery_mode = PERSISTENT;
    p->priority = (uint8_t) (item->priority < RS_AMQP_PRIORITIES
                             ? item->priority : RS_AMQP_PRIORITIES);
  }
  if (is_asked_for(item)) {
    snprintf(id, 24, "%" PRIu64, sequence);
    p->_flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
    p->message_id = amqp_cstring_bytes(id);
  }
  if (item->is_part) {
    p->_flags |= AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_TYPE_FLAG;
    p->correlation_id = amqp_cstring_bytes(item->key);
    p->type = amqp_cstring_bytes(item->place);
  }
  if (item->is_bundle) {
    p->_flags |= AMQP_BASIC_TYPE_FLAG;
    p->type = amqp_cstring_bytes(RS_BUNDLE);
  }
}

/* Write the method and the head of a message whose body follows. */
static int
begin_long (rs_outgoing *out, amqp_bytes_t exchange, amqp_bytes_t key,
            const rs_item *item, bool asked, amqp_basic_properties_t *p)
{
  amqp_basic_publish_t method = { .exchange = exchange, .routing_key = key,
                                  .mandatory = asked };
  amqp_frame_t frame = { .frame_type = AMQP_FRAME_HEADER,
                         .channel = RS_SESSION_PUBLISH };
  const int status = amqp_send_method(out->session->state, RS_SESSION_PUBLISH,
                                      AMQP_BASIC_PUBLISH_METHOD, &method);
  if (status != AMQP_STATUS_OK)
    return status;
  frame.payload.properties.class_id = AMQP_BASIC_CLASS;
  frame.payload.properties.body_size = item->size;
  frame.payload.properties.decoded = p;
  return amqp_send_frame(out->session->state, &frame);
}

static bool
write_piece (rs_outgoing *out, const rs_item *item, size_t most, bool *done)
{
  const size_t left = item->size - out->at;
  amqp_frame_t frame = { .frame_type = AMQP_FRAME_BODY,
                         .channel = RS_SESSION_PUBLISH };
  frame.payload.body_fragment.bytes = (void *) (uintptr_t)
                                      (item->body + out->at);
  frame.payload.body_fragment.len = left < most ? left : most;
  out->at += frame.payload.body_fragment.len;
  *done = out->at == item->size;
  if (*done)
    out->begun = false;
  return check(out, amqp_send_frame(out->session->state, &frame));
}

static bool
publish (rs_outgoing *out, rs_item *item, bool *done)
{
  const amqp_connection_state_t state = out->session->state;
  const size_t most = (size_t) amqp_get_frame_max(state) - AROUND;
  amqp_bytes_t exchange, key;
  amqp_basic_properties_t p;
  char id[24];
  if (out->begun)
    return write_piece(out, item, most, done);
  const uint64_t sequence = rs_confirms_add(out->confirms, item->number,
                                            item->cut, item->numbers);
  if (sequence == 0)
    return check(out, AMQP_STATUS_NO_MEMORY);
  const bool asked = is_asked_for(item);
  item->cut = NULL;
  address(out, item, &exchange, &key);
  describe(item, sequence, id, &p);
  item->numbers = NULL;
  if (item->size > most) {
    out->begun = true;
    out->at = 0;
    return check(out, begin_long(out, exchange, key, item, asked, &p))
           && write_piece(out, item, most, done);
  }
  *done = true;
  return check(out, amqp_basic_publish(
    state, RS_SESSION_PUBLISH, exchange, key, asked, 0, &p,
    (amqp_bytes_t) { item->size, (void *) (uintptr_t) item->body }));
}

static int
look (rs_outgoing *out)
{
  amqp_queue_declare_t method = { .queue = amqp_cstring_bytes(out->queue),
                                  .passive = 1 };
  return amqp_send_method(out->session->state, RS_SESSION_CONSUME,
                          AMQP_QUEUE_DECLARE_METHOD, &method);
}

static int
quit (rs_outgoing *out)
{
  amqp_basic_cancel_t method = {
    .consumer_tag = amqp_cstring_bytes(RS_SESSION_SHARED)
  };
  return amqp_send_method(out->session->state, RS_SESSION_CONSUME,
                          AMQP_BASIC_CANCEL_METHOD, &method);
}

bool
rs_outgoing_write (rs_outgoing *out, rs_item *item, bool *done)
{
  const amqp_connection_state_t state = out->session->state;
  const uint64_t tag = item->number - out->base;
  const bool ours = item->number > out->base && tag >> TAG_BITS == 0;
  *done = true;
  switch (item->kind) {
  case RS_ITEM_PUBLISH:
    *done = false;
    return publish(out, item, done);
  case RS_ITEM_ACKNOWLEDGE:
    return !ours || check(out, amqp_basic_ack(state, RS_SESSION_CONSUME, tag,
                                              0));
  case RS_ITEM_REJECT:
  case RS_ITEM_REQUEUE:
    return !ours || check(out, amqp_basic_reject(
      state, RS_SESSION_CONSUME, tag, item->kind == RS_ITEM_REQUEUE));
  case RS_ITEM_QUIT:
    return check(out, quit(out));
  case RS_ITEM_LOOK:
    return check(out, look(out));
  }
  return true;
}
