/* SPDX-License-Identifier: MIT */
/*
 * incoming.c - frames of the broker, and what they make.
 *
 *     METHOD (deliver or return), HEADER, BODY, BODY, ...    one message
 *
 * Each channel has one message under way.  A body that came in one frame is
 * lent where librabbitmq has it; others are copied as they come, up to
 * RS_AMQP_PART bytes.  The broker is trusted with the order of frames, since
 * it could do worse, but no length is.
 */
#include "broker/incoming.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <amqp_framing.h>

#include "broker/bundle.h"

enum {
  FRAMES = 512,             /* that are taken before something is written */
  KEPT = 256 << 10          /* bytes of a buffer that is kept */
};

void
rs_incoming_init (rs_incoming *in, rs_session *session, rs_confirms *confirms,
                  const rs_amqp_user *user, void *ud)
{
  memset(in, 0, sizeof *in);
  in->session = session;
  in->confirms = confirms;
  in->user = user;
  in->ud = ud;
}

void
rs_incoming_fini (rs_incoming *in)
{
  rs_incoming_end(in);
  rs_join_fini(&in->join);
}

void
rs_incoming_begin (rs_incoming *in, uint64_t base)
{
  in->base = base;
  in->blocked = false;
}

void
rs_incoming_end (rs_incoming *in)
{
  for (int i = 0; i < RS_SESSION_CHANNELS; i++) {
    free(in->contents[i].bytes);
    memset(&in->contents[i], 0, sizeof in->contents[i]);
  }
  rs_join_clear(&in->join);
}

static bool
is (amqp_bytes_t bytes, const char *text)
{
  return bytes.len == strlen(text) && memcmp(bytes.bytes, text, bytes.len)
                                      == 0;
}

/* Copy a text; what is too long is none. */
static void
copy (amqp_bytes_t bytes, bool there, char out[RS_JOIN_TEXT])
{
  const size_t n = there && bytes.len < RS_JOIN_TEXT ? bytes.len : 0;
  if (n > 0)
    memcpy(out, bytes.bytes, n);
  out[n] = '\0';
}

/* ---------------------------------------------------------------- contents */

static void
forget (rs_content *c)
{
  if (c->room > KEPT) {
    free(c->bytes);
    c->bytes = NULL;
    c->room = 0;
  }
  c->kind = RS_CONTENT_NONE;
}

static void
deliver (rs_incoming *in, const rs_content *c, const unsigned char *bytes)
{
  rs_amqp_delivery d = { .body = bytes, .size = (size_t) c->size,
                         .shared = c->shared, .tag = in->base + c->tag,
                         .redelivered = c->redelivered,
                         .priority = c->priority };
  rs_part part;
  if (!c->shared && strcmp(c->place, RS_BUNDLE) == 0) {
    size_t left = d.size;
    while (rs_bundle_take(&bytes, &left, &d.body, &d.size))
      in->user->deliver(in->ud, &d);
    return;
  }
  if (!c->shared && c->place[0] != '\0') {
    if (!rs_part_read(c->place, &part)
        || !rs_join_add(&in->join, c->key, part, bytes, d.size, &d.body,
                        &d.size))
      return;
  }
  in->user->deliver(in->ud, &d);
}

/* All of a message has come; 'bytes' is its body, if that is kept. */
static bool
finish (rs_incoming *in, rs_content *c, const unsigned char *bytes)
{
  int status = AMQP_STATUS_OK;
  if (c->kind == RS_CONTENT_RETURN)
    rs_confirms_return(in->confirms, strtoull(c->id, NULL, 10));
  else if (c->kept)
    deliver(in, c, bytes);
  else if (c->shared)  /* no message of ours; nobody else could read it */
    status = amqp_basic_reject(in->session->state, RS_SESSION_CONSUME, c->tag,
                               0);
  forget(c);
  if (status != AMQP_STATUS_OK)
    rs_session_fail(in->session, status);
  return status == AMQP_STATUS_OK;
}

/* Make room for a body of this size. */
static bool
reserve (rs_content *c)
{
  if (c->room >= c->size)
    return true;
  free(c->bytes);
  c->bytes = malloc((size_t) c->size);
  c->room = c->bytes != NULL ? (size_t) c->size : 0;
  return c->bytes != NULL;
}

static bool
take_header (rs_incoming *in, rs_content *c, const amqp_frame_t *frame)
{
  static const unsigned char none[1];
  const amqp_basic_properties_t *const p = frame->payload.properties.decoded;
  c->size = frame->payload.properties.body_size;
  c->got = 0;
  c->begun = true;
  c->kept = c->kind == RS_CONTENT_DELIVERY && c->size <= RS_AMQP_PART;
  c->priority = p->_flags & AMQP_BASIC_PRIORITY_FLAG ? p->priority : 0;
  copy(p->message_id, p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG, c->id);
  copy(p->correlation_id, p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG, c->key);
  copy(p->type, p->_flags & AMQP_BASIC_TYPE_FLAG, c->place);
  return c->size > 0 || finish(in, c, none);
}

static bool
take_body (rs_incoming *in, rs_content *c, amqp_bytes_t bytes)
{
  if (bytes.len > c->size - c->got) {
    rs_session_fail(in->session, AMQP_STATUS_BAD_AMQP_DATA);
    return false;
  }
  if (bytes.len == c->size)
    return finish(in, c, bytes.bytes);
  if (c->kept && c->got == 0 && !reserve(c)) {
    rs_session_fail(in->session, AMQP_STATUS_NO_MEMORY);
    return false;
  }
  if (c->kept)
    memcpy(c->bytes + c->got, bytes.bytes, bytes.len);
  c->got += bytes.len;
  return c->got < c->size || finish(in, c, c->bytes);
}

/* ----------------------------------------------------------------- methods */

static void
tell (void *ud, uint64_t number, bool routed)
{
  const rs_incoming *const in = ud;
  in->user->confirm(in->ud, number, routed);
}

static bool
end (rs_incoming *in, const char *what, unsigned code, amqp_bytes_t said)
{
  rs_session_fail_as_said(in->session, what, code, said);
  return false;
}

static bool
take_method (rs_incoming *in, const amqp_frame_t *frame)
{
  const void *const decoded = frame->payload.method.decoded;
  const amqp_connection_state_t state = in->session->state;
  rs_content *const c = &in->contents[frame->channel];
  switch (frame->payload.method.id) {
  case AMQP_BASIC_DELIVER_METHOD: {
    const amqp_basic_deliver_t *const m = decoded;
    c->kind = RS_CONTENT_DELIVERY;
    c->begun = false;
    c->shared = is(m->consumer_tag, RS_SESSION_SHARED);
    c->redelivered = m->redelivered;
    c->tag = m->delivery_tag;
    return true;
  }
  case AMQP_BASIC_RETURN_METHOD:
    c->kind = RS_CONTENT_RETURN;
    c->begun = c->shared = false;
    return true;
  case AMQP_BASIC_ACK_METHOD: {
    const amqp_basic_ack_t *const m = decoded;
    rs_confirms_settle(in->confirms, m->delivery_tag, m->multiple, tell, in);
    return true;
  }
  case AMQP_BASIC_NACK_METHOD:
    rs_session_fail_for(in->session, "the broker could not take a message");
    return false;
  case AMQP_QUEUE_DECLARE_OK_METHOD: {
    const amqp_queue_declare_ok_t *const m = decoded;
    in->user->count(in->ud, m->message_count, m->consumer_count);
    return true;
  }
  case AMQP_BASIC_CANCEL_METHOD:
    rs_session_fail_for(in->session, "the broker has deleted a queue that was "
                                     "read");
    return false;
  case AMQP_CONNECTION_BLOCKED_METHOD:
    in->blocked = true;
    return true;
  case AMQP_CONNECTION_UNBLOCKED_METHOD:
    in->blocked = false;
    return true;
  case AMQP_CHANNEL_CLOSE_METHOD: {
    const amqp_channel_close_t *const m = decoded;
    return end(in, "the broker closed a channel: ", m->reply_code,
               m->reply_text);
  }
  case AMQP_CONNECTION_CLOSE_METHOD: {
    const amqp_connection_close_t *const m = decoded;
    amqp_connection_close_ok_t farewell = { 0 };
    amqp_send_method(state, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &farewell);
    return end(in, "the broker closed the connection: ", m->reply_code,
               m->reply_text);
  }
  default:
    return true;
  }
}

static bool
take (rs_incoming *in, const amqp_frame_t *frame)
{
  if (frame->channel >= RS_SESSION_CHANNELS)
    return true;
  rs_content *const c = &in->contents[frame->channel];
  switch (frame->frame_type) {
  case AMQP_FRAME_METHOD:
    return take_method(in, frame);
  case AMQP_FRAME_HEADER:
    return c->kind == RS_CONTENT_NONE || take_header(in, c, frame);
  case AMQP_FRAME_BODY:
    return c->kind == RS_CONTENT_NONE || !c->begun
           || take_body(in, c, frame->payload.body_fragment);
  default:
    return true;
  }
}

/* Bytes that librabbitmq has read, or may have. */
static bool
has_more (const rs_session *s)
{
  return s->url->tls || amqp_frames_enqueued(s->state)
         || amqp_data_in_buffer(s->state);
}

bool
rs_incoming_read (rs_incoming *in, bool *more)
{
  rs_session *const s = in->session;
  struct timeval none = { 0, 0 };
  *more = false;
  for (int i = 0; i < FRAMES; i++) {
    amqp_frame_t frame;
    const int status = amqp_simple_wait_frame_noblock(s->state, &frame, &none);
    if (status == AMQP_STATUS_TIMEOUT)
      return true;
    if (status != AMQP_STATUS_OK) {
      rs_session_fail(s, status);
      return false;
    }
    if (!take(in, &frame))
      return false;
    amqp_maybe_release_buffers_on_channel(s->state, frame.channel);
    if (!has_more(s))
      return true;
  }
  *more = true;
  return true;
}
