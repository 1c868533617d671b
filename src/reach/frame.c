/* SPDX-License-Identifier: MIT */
/*
 * frame.c - frames: cut, written, read and put together.
 */
#include "reach/frame.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/large.h"
#include "base/status.h"
#include "value/wire.h"

enum {
  ROOM = 2 * RS_FRAME_BYTES,  /* bytes that are read ahead */
  DIRECT = 32768,           /* a message from this size on is not queued */
  FRAME_REST = 4096,        /* bytes of a frame that are worth a part of their
                               own in a read */
  AT_ONCE = 16,             /* frames that are written together */
  URGENT = 16,              /* most bytes of the payload of an urgent one */
  SMALL = 16384             /* a message up to this size is copied, so that the
                               memory of the body serves the next one */
};

const unsigned char rs_frame_greeting[RS_FRAME_GREETING] = {
  0, 0x7f, 'r', 'u', 'n', 's', 'p', 'a', 'c', 'e', 0x7f, 0
};

/* What a type may be: who may send it, and how many bytes it may have.  A
   message is short when it is never more than one frame. */
static const struct {
  const char *name;
  bool to_worker, to_host;
  bool urgent;              /* does not queue up behind a ring */
  bool is_long;
  bool is_message;
  size_t least, most;       /* bytes; a long one has RS_FRAME_MOST */
} types[RS_FRAME_TYPES] = {
  [RS_FRAME_OPEN] = { "OPEN", .to_worker = true, .is_long = true,
                      .least = 8 },
  [RS_FRAME_FUNCTION] = { "FUNCTION", .to_worker = true, .is_long = true,
                          .is_message = true,
                          .least = RS_WIRE_HEADER + RS_FRAME_TRAILER },
  [RS_FRAME_FORGET] = { "FORGET", .to_worker = true },
  [RS_FRAME_VALUES] = { "VALUES", .to_worker = true, .to_host = true,
                        .is_long = true, .is_message = true,
                        .least = RS_WIRE_HEADER + RS_FRAME_TRAILER },
  [RS_FRAME_CALL] = { "CALL", .to_worker = true, .is_long = true,
                      .least = 40 },
  [RS_FRAME_STOP] = { "STOP", .to_worker = true, .urgent = true },
  [RS_FRAME_CANCEL] = { "CANCEL", .to_worker = true, .urgent = true,
                        .least = 9, .most = 9 },
  [RS_FRAME_RENEW] = { "RENEW", .to_worker = true },
  [RS_FRAME_CLOSE] = { "CLOSE", .to_worker = true },
  [RS_FRAME_HELLO] = { "HELLO", .to_host = true, .least = 8, .most = 4096 },
  [RS_FRAME_READY] = { "READY", .to_host = true, .least = 8, .most = 8 },
  [RS_FRAME_FAILED] = { "FAILED", .to_host = true, .least = 8,
                        .most = 4096 },
  [RS_FRAME_RECORD] = { "RECORD", .to_host = true, .is_long = true,
                        .least = 22 },
  [RS_FRAME_RESULT] = { "RESULT", .to_host = true, .least = 16,
                        .most = 4096 },
  [RS_FRAME_OUTPUT] = { "OUTPUT", .to_host = true, .is_long = true,
                        .least = 1 },
  [RS_FRAME_LOST] = { "LOST", .to_host = true, .least = 8, .most = 4096 },
  [RS_FRAME_PING] = { "PING", .to_worker = true, .urgent = true },
  [RS_FRAME_PONG] = { "PONG", .to_host = true },
  [RS_FRAME_ASK] = { "ASK", .to_worker = true, .urgent = true },
  [RS_FRAME_TRACE] = { "TRACE", .to_host = true, .least = 4, .most = 4096 },
};

const char *
rs_frame_name (unsigned type)
{
  return type < RS_FRAME_TYPES && types[type].name != NULL ? types[type].name
                                                           : "none";
}

bool
rs_frame_is_urgent (rs_frame_type type)
{
  return types[type].urgent;
}

bool
rs_frame_is_answer (rs_frame_type type)
{
  return type == RS_FRAME_PONG || type == RS_FRAME_TRACE;
}

/* -------------------------------------------------------------- life cycle */

int
rs_frames_init (rs_frames *f, rs_frame_side side, int in, int out)
{
  *f = (rs_frames) {
    .side = side, .greeted = side == RS_FRAME_WORKER,
    .going = RS_BUF_INIT, .brief = RS_BUF_INIT, .body = RS_BUF_INIT,
  };
  rs_carrier_init(&f->carrier, in, out);
  f->room = malloc(ROOM);
  return f->room != NULL ? RS_OK : RS_ENOMEM;
}

void
rs_frames_fini (rs_frames *f)
{
  rs_carrier_fini(&f->carrier);
  free(f->room);
  f->room = NULL;
  rs_buf_fini(&f->going);
  rs_buf_fini(&f->brief);
  rs_buf_fini(&f->body);
}

/* ----------------------------------------------------------------- reading */

int
rs_frames_refuse (rs_frames *f, const char *format, ...)
{
  va_list args;
  if (!f->broken) {
    va_start(args, format);
    vsnprintf(f->error, sizeof f->error, format, args);
    va_end(args);
  }
  f->broken = true;
  return RS_ECLOSED;
}

/* Make room behind the bytes that were not taken; returns how much. */
static size_t
make_room (rs_frames *f)
{
  if (f->at > 0) {
    memmove(f->room, f->room + f->at, f->end - f->at);
    f->end -= f->at;
    f->at = 0;
  }
  return ROOM - f->end;
}

/* Tell where the next bytes go: the rest of a frame of a long message to where
   it belongs, and the head behind it to the room; or all to the room.  Returns
   how many parts there are. */
static int
choose_parts (rs_frames *f, size_t room, struct iovec parts[2])
{
  const bool direct = f->within && f->is_long && f->end == 0
                   && f->left >= FRAME_REST;
  unsigned char *const to = direct ? rs_buf_room(&f->body, f->left) : NULL;
  parts[0] = (struct iovec) { f->room + f->end, room };
  if (to == NULL)
    return 1;
  parts[1] = (struct iovec) { f->room, RS_FRAME_HEAD };
  parts[0] = (struct iovec) { to, f->left };
  return 2;
}

/* Nothing more can be read, or written. */
static int
give_up (rs_frames *f)
{
  if (f->carrier.lie != NULL)
    return rs_frames_refuse(f, "%s", f->carrier.lie);
  f->broken = true;
  return RS_ECLOSED;
}

int
rs_frames_fill (rs_frames *f)
{
  struct iovec parts[2];
  const size_t room = f->broken ? 0 : make_room(f);
  if (f->broken)
    return RS_ECLOSED;
  if (room == 0)
    return RS_OK;
  const int used = choose_parts(f, room, parts);
  const ssize_t n = rs_carrier_read(&f->carrier, parts, used);
  if (n > 0) {
    const size_t got = (size_t) n;
    const size_t direct = used == 1 ? 0 : got < f->left ? got : f->left;
    f->body.size += direct;
    f->left -= direct;
    f->end += got - direct;
    return RS_OK;
  }
  if (n < 0 && errno == EAGAIN)
    return RS_EBUSY;
  return give_up(f);
}

size_t
rs_frames_feed (rs_frames *f, const void *bytes, size_t n)
{
  const size_t room = make_room(f);
  if (n > room)
    n = room;
  if (n > 0)
    memcpy(f->room + f->end, bytes, n);
  f->end += n;
  return n;
}

/* Look for the greeting, and pass it.  RS_OK, RS_EBUSY or RS_ECLOSED. */
static int
pass_greeting (rs_frames *f)
{
  while (f->end - f->at >= RS_FRAME_GREETING) {
    if (memcmp(f->room + f->at, rs_frame_greeting, RS_FRAME_GREETING) == 0) {
      f->at += RS_FRAME_GREETING;
      f->greeted = true;
      return RS_OK;
    }
    if (f->noise == RS_FRAME_NOISE)
      return rs_frames_refuse(f, "no greeting came in the first %d bytes",
                              RS_FRAME_NOISE);
    f->seen[f->noise % sizeof f->seen] = (char) f->room[f->at];
    f->at++;
    f->noise++;
  }
  return RS_EBUSY;
}

void
rs_frames_noise (const rs_frames *f, char *text, size_t size)
{
  size_t n = 0;
  const size_t ring = f->noise < sizeof f->seen ? f->noise : sizeof f->seen;
  const size_t rest = f->greeted ? 0 : f->end - f->at;
  const size_t skip = ring + rest < size ? 0 : ring + rest - (size - 1);
  for (size_t i = skip; i < ring; i++)
    text[n++] = f->seen[(f->noise - ring + i) % sizeof f->seen];
  for (size_t i = skip > ring ? skip - ring : 0; i < rest; i++)
    text[n++] = (char) f->room[f->at + i];
  text[n] = '\0';
}

/* Read the head of the next frame.  RS_OK, RS_EBUSY or RS_ECLOSED. */
static int
read_head (rs_frames *f)
{
  const unsigned char *const h = f->room + f->at;
  if (f->end - f->at < RS_FRAME_HEAD)
    return RS_EBUSY;
  rs_cut c = { h + 4, RS_FRAME_HEAD - 4, false };
  const unsigned type = h[0], flags = h[1];
  const size_t length = (size_t) rs_cut_number(&c, 4);
  const uint64_t number = rs_cut_number(&c, 8);
  if (type >= RS_FRAME_TYPES || types[type].name == NULL)
    return rs_frames_refuse(f, "a frame of type %u, which is none", type);
  if (f->side == RS_FRAME_HOST ? !types[type].to_host
                               : !types[type].to_worker)
    return rs_frames_refuse(f, "%s, which does not come this way",
                            types[type].name);
  if ((flags & ~(unsigned) (RS_FRAME_FIRST | RS_FRAME_LAST)) != 0 || h[2] != 0
      || h[3] != 0)
    return rs_frames_refuse(f, "a frame of %s with flags that are not known",
                            types[type].name);
  if (length > RS_FRAME_BYTES)
    return rs_frames_refuse(f, "a frame of %s with %zu bytes; %d are the most",
                            types[type].name, length, RS_FRAME_BYTES);
  f->is_long = types[type].is_long;
  if (!f->is_long
      && (flags != (RS_FRAME_FIRST | RS_FRAME_LAST)
          || length < types[type].least || length > types[type].most))
    return rs_frames_refuse(f, "%s with %zu bytes, or in several frames",
                            types[type].name, length);
  if (f->is_long) {
    const bool first = (flags & RS_FRAME_FIRST) != 0;
    if (first == f->going_on
        || (!first && (type != f->long_type || number != f->long_number)))
      return rs_frames_refuse(f, "a frame of %s out of order",
                              types[type].name);
    if (length == 0)
      return rs_frames_refuse(f, "a frame of %s without bytes",
                              types[type].name);
    if (first) {
      rs_buf_clear(&f->body);
      if (types[type].is_message)
        rs_buf_add(&f->body, &(rs_message) { .refs = 1 },
                   offsetof(rs_message, data));
    }
    if (f->body.size + length > RS_FRAME_MOST)
      return rs_frames_refuse(f, "%s with more than %zu bytes",
                              types[type].name, RS_FRAME_MOST);
    f->long_type = (rs_frame_type) type;
    f->long_number = number;
  }
  else
    rs_buf_clear(&f->brief);
  f->type = (rs_frame_type) type;
  f->number = number;
  f->last = (flags & RS_FRAME_LAST) != 0;
  f->left = length;
  f->within = true;
  f->at += RS_FRAME_HEAD;
  return RS_OK;
}

/* Make a message of the body, and give the body's memory away if it is
   large.  NULL: no memory. */
static rs_message *
make_message (rs_frames *f, unsigned char kind)
{
  rs_buf *const b = &f->body;
  const size_t size = b->size - offsetof(rs_message, data) - RS_FRAME_TRAILER;
  const unsigned char *const data = b->data + offsetof(rs_message, data);
  const unsigned flags = data[RS_WIRE_AT_FLAGS];
  rs_message *msg;
  if (size <= SMALL) {
    msg = rs_message_new(data, size, flags);
    if (msg == NULL)
      return NULL;
  }
  else {
    msg = (rs_message *) (void *) b->data;
    rs_message_init(msg, size, flags);
    msg->room = b->room >= RS_LARGE_FROM ? (uint32_t) (b->room / 1024) : 0;
    *b = (rs_buf) RS_BUF_INIT;
  }
  msg->constant = (kind & 1) != 0;
  msg->common = (kind & 2) != 0;
  msg->forbidden = (uint8_t) f->forbidden;
  return msg;
}

/* The last byte of a message has come. */
static int
finish (rs_frames *f, rs_frame *out)
{
  const rs_buf *const b = f->is_long ? &f->body : &f->brief;
  *out = (rs_frame) { .type = f->type, .number = f->number };
  if (f->is_long && types[f->type].is_message) {
    const size_t size = b->size - offsetof(rs_message, data);
    if (size < types[f->type].least)
      return rs_frames_refuse(f, "%s with %zu bytes", types[f->type].name,
                              size);
    const unsigned char *const kind = b->data + b->size - RS_FRAME_TRAILER;
    for (int i = 0; i < RS_FRAME_TRAILER; i++)
      if (kind[i] > (i == 0 ? 3 : 0))
        return rs_frames_refuse(f, "%s with an unknown trailer",
                                types[f->type].name);
    out->message = make_message(f, kind[0]);
    return out->message != NULL ? RS_OK : RS_ENOMEM;
  }
  if (b->size < types[f->type].least)
    return rs_frames_refuse(f, "%s with %zu bytes", types[f->type].name,
                            b->size);
  out->data = b->data;
  out->size = b->size;
  return RS_OK;
}

int
rs_frames_take (rs_frames *f, rs_frame *out)
{
  int status = RS_OK;
  if (f->error[0] != '\0')
    return RS_ECLOSED;
  if (!f->greeted && (status = pass_greeting(f)) != RS_OK)
    return status;
  for (;;) {
    if (!f->within && (status = read_head(f)) != RS_OK)
      return status;
    const size_t there = f->end - f->at;
    const size_t n = f->left < there ? f->left : there;
    rs_buf *const b = f->is_long ? &f->body : &f->brief;
    rs_buf_add(b, f->room + f->at, n);
    f->at += n;
    f->left -= n;
    if (b->failed)
      return RS_ENOMEM;
    if (f->left > 0)
      return RS_EBUSY;
    f->within = false;
    if (f->is_long)
      f->going_on = !f->last;
    if (f->last)
      return finish(f, out);
  }
}

/* ----------------------------------------------------------------- writing */

/* Write all bytes of the parts, which are changed.  RS_OK or RS_ECLOSED. */
static int
write_all (rs_frames *f, struct iovec *parts, size_t n)
{
  const int status = rs_carrier_write(&f->carrier, parts, n);
  if (f->carrier.lie != NULL)
    give_up(f);
  return status;
}

int
rs_frames_flush (rs_frames *f)
{
  if (f->going.failed)
    return RS_ENOMEM;
  struct iovec all = { f->going.data, f->going.size };
  const int status = all.iov_len > 0 ? write_all(f, &all, 1) : RS_OK;
  rs_buf_clear(&f->going);
  return status;
}

uint32_t
rs_frames_place (const rs_frames *f)
{
  return f->carrier.ring == NULL ? 0
       : rs_ring_place(f->carrier.ring) + (uint32_t) f->going.size;
}

bool
rs_frames_may_be_read (const rs_frames *f, uint32_t place)
{
  return f->carrier.ring == NULL || rs_ring_has_read(f->carrier.ring, place);
}

static void
make_head (unsigned char h[RS_FRAME_HEAD], rs_frame_type type, unsigned flags,
           size_t length, uint64_t number)
{
  memset(h, 0, RS_FRAME_HEAD);
  h[0] = (unsigned char) type;
  h[1] = (unsigned char) flags;
  for (int i = 0; i < 4; i++)
    h[4 + i] = (unsigned char) (length >> 8 * i);
  for (int i = 0; i < 8; i++)
    h[8 + i] = (unsigned char) (number >> 8 * i);
}

/* Where a long message is read from. */
typedef struct source {
  const struct iovec *parts;
  int n;
  size_t at;                /* in the first of the parts */
} source;

/* Point at the next 'length' bytes, in several pieces; returns how many of
   them were made. */
static int
take_pieces (source *s, size_t length, struct iovec *out)
{
  int made = 0;
  while (length > 0) {
    const size_t there = s->parts->iov_len - s->at;
    const size_t n = there < length ? there : length;
    if (n > 0)
      out[made++] = (struct iovec) { (char *) s->parts->iov_base + s->at, n };
    s->at += n;
    length -= n;
    if (s->at == s->parts->iov_len && s->n > 1) {
      s->parts++;
      s->n--;
      s->at = 0;
    }
  }
  return made;
}

/* Write a long message, without a copy of it. */
static int
write_long (rs_frames *f, rs_frame_type type, uint64_t number,
            const struct iovec *parts, int n, size_t size)
{
  enum { PARTS = 4 };  /* pieces of a frame: no caller has more parts */
  source s = { parts, n, 0 };
  unsigned char heads[AT_ONCE][RS_FRAME_HEAD];
  struct iovec all[AT_ONCE * (PARTS + 1)];
  size_t left = size;
  int status = rs_frames_flush(f);
  while (left > 0 && status == RS_OK) {
    size_t used = 0;
    for (int i = 0; i < AT_ONCE && left > 0; i++) {
      const size_t length = left < RS_FRAME_BYTES ? left : RS_FRAME_BYTES;
      make_head(heads[i], type, (left == size ? RS_FRAME_FIRST : 0u)
                                | (left == length ? RS_FRAME_LAST : 0u),
                length, number);
      all[used++] = (struct iovec) { heads[i], RS_FRAME_HEAD };
      used += (size_t) take_pieces(&s, length, all + used);
      left -= length;
    }
    status = write_all(f, all, used);
    if (status == RS_OK && left > 0 && f->between != NULL
        && !f->between(f->carrier.ud))
      status = RS_ECLOSED;
  }
  return status;
}

/* Write a short message beside the ring. */
static int
write_urgent (const rs_frames *f, const unsigned char *head,
              const struct iovec *parts, int n)
{
  unsigned char bytes[RS_FRAME_HEAD + URGENT];
  rs_buf b = RS_BUF_OVER(bytes, sizeof bytes);
  rs_buf_add(&b, head, RS_FRAME_HEAD);
  for (int i = 0; i < n; i++)
    rs_buf_add(&b, parts[i].iov_base, parts[i].iov_len);
  return b.failed ? RS_ENOMEM
                  : rs_carrier_write_urgent(&f->carrier, b.data, b.size);
}

int
rs_frames_put (rs_frames *f, rs_frame_type type, uint64_t number,
               const struct iovec *parts, int n)
{
  unsigned char head[RS_FRAME_HEAD];
  size_t size = 0;
  for (int i = 0; i < n; i++)
    size += parts[i].iov_len;
  if (size >= DIRECT && types[type].is_long)
    return size <= RS_FRAME_MOST ? write_long(f, type, number, parts, n, size)
                                 : RS_ENOMEM;
  make_head(head, type, RS_FRAME_FIRST | RS_FRAME_LAST, size, number);
  if (f->carrier.ring != NULL && types[type].urgent)
    return write_urgent(f, head, parts, n);
  if (f->going.size + size > RS_FRAME_BYTES) {
    const int status = rs_frames_flush(f);
    if (status != RS_OK)
      return status;
  }
  rs_buf_add(&f->going, head, sizeof head);
  for (int i = 0; i < n; i++)
    rs_buf_add(&f->going, parts[i].iov_base, parts[i].iov_len);
  return f->going.failed ? RS_ENOMEM : RS_OK;
}

int
rs_frames_put_message (rs_frames *f, rs_frame_type type, uint64_t number,
                       const rs_message *message)
{
  unsigned char trailer[RS_FRAME_TRAILER] = {
    (unsigned char) (message->constant | message->common << 1)
  };
  const struct iovec parts[] = {
    { (void *) (uintptr_t) message->data, message->size },
    { trailer, sizeof trailer },
  };
  return rs_frames_put(f, type, number, parts, 2);
}
