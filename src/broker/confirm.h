/* SPDX-License-Identifier: MIT */
/*
 * confirm.h - what was published and is not confirmed.
 *
 * The broker numbers what is published on a channel from 1 on, and confirms
 * single numbers, or all up to one, in any order.
 */
#ifndef RS_CONFIRM_H
#define RS_CONFIRM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message that was cut: it is confirmed when all of its parts are.  Each
   part has a reference, and who cuts has one. */
typedef struct rs_cut_message {
  _Atomic unsigned refs;    /* thread that cuts and thread of the connection */
  uint64_t number;
  uint64_t left;            /* parts that are not confirmed; like the next one
                               for the thread of the connection alone, once
                               the first part is queued */
  bool routed;              /* all that are */
} rs_cut_message;

void rs_cut_unref (rs_cut_message *c);  /* accepts NULL */

/* The numbers of the messages of a bundle. */
typedef struct rs_numbers {
  size_t n;
  uint64_t each[];          /* the user's, none is 0 */
} rs_numbers;

typedef struct rs_confirm {
  uint64_t number;          /* the user's; 0: nobody asks, or 'numbers' has
                               all of them */
  rs_cut_message *cut;      /* owned reference, or NULL */
  rs_numbers *numbers;      /* owned, or NULL */
  bool returned, done;
} rs_confirm;

typedef struct rs_confirms {
  rs_confirm *ring;         /* owned */
  size_t room;              /* a power of two, or 0 */
  uint64_t first;           /* the broker's number of the oldest one */
  size_t n;
} rs_confirms;

void rs_confirms_init (rs_confirms *c);
void rs_confirms_fini (rs_confirms *c);

/* Forget all; the broker counts from 1 on again. */
void rs_confirms_clear (rs_confirms *c);

/* Note the next message; takes the reference 'cut', and 'numbers', on success.
   Its number of the broker, or 0: no memory. */
uint64_t rs_confirms_add (rs_confirms *c, uint64_t number,
                          rs_cut_message *cut, rs_numbers *numbers);

/* A message came back: no queue has it. */
void rs_confirms_return (rs_confirms *c, uint64_t sequence);

/* The broker confirms 'sequence', or 'all' up to it; 'tell' is called for each
   message of the user that is confirmed by that. */
void rs_confirms_settle (rs_confirms *c, uint64_t sequence, bool all,
                         void (*tell) (void *ud, uint64_t number, bool routed),
                         void *ud);

#endif
