/* SPDX-License-Identifier: MIT */
/*
 * letter.h - letters: what callers and workers send each other by a broker.
 *
 *     +------+------+------+------+--------+---------+
 *     | seal | type | 0    | from | serial | content |
 *     +------+------+------+------+--------+---------+
 *      1 + 32   1      1    text      8
 *
 * The seal is a byte that says whether there is one, and the HMAC of all that
 * follows, with the names of the shared queue and of where the letter goes in
 * front: so no letter is good in another queue.  'from' is the queue of the
 * one who writes, where answers go; 'serial' is the number of a call there.
 *
 *     caller                                   worker
 *       CALL ------ the shared queue ------->
 *       <----------------------------- ASK      may I run it?  if it is not
 *       REPLY ------------------------------>   sure, or lacks something
 *       <--------------------------- BEGAN
 *       <---------------------------- NEWS *    numbered: records, output, the
 *       <--------------------------- ALIVE *    result
 *       SEEN ------------------------------->   forget that news
 *       STOP, CANCEL ---- the exchange ----->
 *       RESUME ---------- the exchange ----->   I am connected again: send
 *                                               what I have not seen
 *       PROBE ------------------------------>   do you have it?
 *       <------------------ BEGAN, or ABSENT
 *       <---------------------------- BACK      I have not begun it, and hand
 *                                               it back to the queue
 *
 * A worker runs a call without a question if the broker delivers it for the
 * first time, and if its serial is not below the next one that the caller has
 * told in its last reply: such a letter was sent to a caller that lives, after
 * this worker listens to what is cancelled.  With a key it asks for each call,
 * since whoever can write to the queue could send a letter again.  The caller
 * says yes once for each serial.
 */
#ifndef RS_LETTER_H
#define RS_LETTER_H

#include "broker/amqp.h"
#include "reach/frame.h"

typedef enum rs_letter_type {
  RS_LETTER_CALL = 1,
  RS_LETTER_ASK,
  RS_LETTER_REPLY,
  RS_LETTER_BEGAN,
  RS_LETTER_NEWS,
  RS_LETTER_ALIVE,
  RS_LETTER_SEEN,
  RS_LETTER_STOP,
  RS_LETTER_CANCEL,
  RS_LETTER_RESUME,
  RS_LETTER_PROBE,
  RS_LETTER_ABSENT,
  RS_LETTER_BACK,
  RS_LETTER_TYPES
} rs_letter_type;

/* What a reply says. */
typedef enum rs_verdict { RS_GO = 1, RS_DROP } rs_verdict;

/* What news is. */
typedef enum rs_news {
  RS_NEWS_RECORD = 1,       /* message, and what 'rs_record_write' writes */
  RS_NEWS_OUTPUT,           /* 1 or 2, and bytes */
  RS_NEWS_RESULT,           /* message or none, and 'rs_result_write' */
  RS_NEWS_LOST,             /* 'rs_lost_write' */
  RS_NEWS_FAILED,           /* text: it could not be run */
  RS_NEWS_REFUSED           /* text: the letter is not good for this worker */
} rs_news;

/* Both sides of a connection have one. */
typedef struct rs_desk {
  const rs_amqp_module *module;
  const char *queue;        /* the shared one; lent, as 'own' */
  const char *own;          /* the one for answers */
  const void *key;          /* lent; NULL: letters have no seal */
  size_t key_size;
} rs_desk;

/* A letter that was read. */
typedef struct rs_letter {
  rs_letter_type type;
  char from[RS_AMQP_NAME];
  uint64_t serial;
  rs_cut content;           /* lent */
} rs_letter;

/* Begin a letter in an empty buffer, behind room for the seal. */
void rs_letter_begin (const rs_desk *d, rs_buf *b, rs_letter_type type,
                      uint64_t serial);

/* Seal the letter for 'to'; NULL: for all that listen.  'to' is the shared
   queue for CALL. */
void rs_letter_seal (const rs_desk *d, rs_buf *b, const char *to);

/* Publish a letter that was sealed for 'to'.  'number' and 'waits' are those
   of an rs_amqp_message.  As its 'publish'. */
int rs_letter_post (const rs_desk *d, rs_amqp *a, const rs_buf *b,
                    const char *to, uint64_t number, unsigned priority,
                    bool waits);

/* Do both. */
int rs_letter_send (const rs_desk *d, rs_amqp *a, rs_buf *b, const char *to,
                    uint64_t number, unsigned priority, bool waits);

/* Read a letter that came to 'to', as above.  RS_OK; RS_EREFUSED: it has not
   the seal of our key; RS_EFORMAT: it is none. */
int rs_letter_read (const rs_desk *d, const void *body, size_t size,
                    const char *to, rs_letter *out);

/* Read who wrote it, whatever its seal. */
bool rs_letter_peek (const void *body, size_t size, rs_letter *out);

/* The name of a queue for answers: nobody else has it.  Owned by the caller;
   NULL: no memory, or no random bytes. */
char *rs_letter_queue (const rs_amqp_module *module, const char *whose);

/* The name of the exchange of a shared queue, for printf(3). */
#define RS_LETTER_EXCHANGE "runspace.%.200s"

/* The front of a reply; what a worker has asked for follows.  'next': the
   serial that comes next. */
void rs_add_reply (rs_buf *b, const unsigned char nonce[RS_AMQP_HASH],
                   rs_verdict verdict, uint64_t next);

/* A message with its flags; and a copy of one, with a reference of the
   caller.  RS_OK, RS_EFORMAT or RS_ENOMEM. */
void rs_add_message (rs_buf *b, const rs_message *message);
int rs_cut_message (rs_cut *c, unsigned forbidden, rs_message **out);

#endif
