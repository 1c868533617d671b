/* SPDX-License-Identifier: MIT */
/*
 * message.h - encoded Lua values: bytes with a head, reference counted.
 *
 * A message is a header (wire.h) and a sequence of values.
 */
#ifndef RS_MESSAGE_H
#define RS_MESSAGE_H

#include "runspace.h"

/* The kinds of content that a message may have.  The encoder tells them, and
   runners ask for them. */
enum {
  RS_MESSAGE_REFS = 1,   /* back references: the decoder keeps objects */
  RS_MESSAGE_LOCAL = 2,  /* pointers: good only inside this process */
  RS_MESSAGE_CODE = 4,   /* bytecode, or calls that rebuild an object */
  RS_MESSAGE_SHAPES = 8, /* definitions of keys: the decoder keeps them */
  RS_MESSAGE_COMMON = 16,  /* tables of the message of its function, by
                              number */
  RS_MESSAGE_NAMES = 32,   /* names of modules, fields and classes that the
                              receiver has, or loads; forbidden: names of
                              modules that it would have to load */
  RS_MESSAGE_METHODS = 64, /* only as forbidden: metatables that run code, and
                              objects of the receiver that are no classes
                              (mask.c) */
  RS_MESSAGE_AWAY = 128    /* only as forbidden: no kind, but says in refusals
                              that another process is the receiver */
};

/* The kinds that are more than data.  Messages from states that are not
   trusted may not have these kinds: no code of such a state runs where its
   message is read. */
#define RS_MESSAGE_LIVE (RS_MESSAGE_LOCAL | RS_MESSAGE_CODE \
                         | RS_MESSAGE_NAMES | RS_MESSAGE_METHODS)

struct rs_message {
  _Atomic unsigned refs;
  unsigned flags;        /* RS_MESSAGE_ */
  bool constant;         /* a function in it has no state of its own, and will
                            be sent again; set before the message is sent */
  uint8_t forbidden;     /* RS_MESSAGE_ kinds that it may not hold, whatever
                            'flags' says; the maker or the receiver sets it */
  bool lent;             /* memory of its only owner, so 'refs' does not
                            count */
  bool common;           /* other messages may name tables of it (common.c);
                            set before the message is sent */
  uint32_t room;         /* KiB of its memory, if that is a large block; or
                            0 */
  size_t size;           /* bytes in 'data' */
  unsigned char data[];  /* header and values */
};

/*
 * Make a message with a copy of 'size' bytes, and one reference.  NULL when
 * out of memory.
 */
rs_message *rs_message_new (const void *data, size_t size, unsigned flags);

/* Initialize the head of a message, with one reference; its bytes are in
   'data', or will be. */
void rs_message_init (rs_message *msg, size_t size, unsigned flags);

#endif
