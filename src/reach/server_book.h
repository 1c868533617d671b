/* SPDX-License-Identifier: MIT */
/*
 * server_book.h - the tasks and callers of a server, and its tray.
 *
 * The caller holds the lock of the server for all functions whose names end in
 * 'locked'.
 */
#ifndef RS_SERVER_BOOK_H
#define RS_SERVER_BOOK_H

#include "reach/server.h"

/* Letters to be sent without the lock. */
typedef struct rs_outgoing {
  rs_list link;
  rs_buf letter;           /* sealed, if 'told' is NULL */
  rs_told *told;           /* a reference, or NULL */
  char to[RS_AMQP_NAME];
  uint64_t number;
} rs_outgoing;

/* What is to be done when the lock is free. */
typedef struct rs_tray {
  rs_list letters;
  rs_list stops;           /* of 'stop' */
  uint64_t acks[64];       /* tags; what is more is acknowledged later */
  unsigned n_acks;
} rs_tray;

void rs_tray_init (rs_tray *o);

/* Send what is in the tray.  The lock is free. */
void rs_tray_send (rs_server *s, rs_tray *o);

/* Put an empty letter; NULL: no memory.  'number': see rs_amqp_message. */
rs_outgoing *rs_tray_put (rs_tray *o, const char *to, uint64_t number);

/* Put a letter without content; BEGAN; ASK; all news that was not seen. */
void rs_tray_brief_locked (rs_server *s, rs_tray *o, rs_letter_type type,
                           rs_server_task *t, uint64_t number);
void rs_tray_begun_locked (rs_server *s, rs_tray *o, rs_server_task *t);
void rs_tray_ask_locked (rs_server *s, rs_tray *o, rs_server_task *t);
void rs_tray_news_locked (rs_server *s, rs_tray *o, rs_server_task *t);

/* Put BACK, for a task that has not begun. */
void rs_tray_back_locked (rs_server *s, rs_tray *o, rs_server_task *t);

/* Tell callers which tasks begin now, or very soon (server_ahead.c). */
void rs_server_announce_locked (rs_server *s, rs_tray *o);

/* The broker has 'messages' that no server of 'consumers' has: hand back what
   another one may do sooner (server_ahead.c). */
void rs_server_share_locked (rs_server *s, rs_tray *o, uint64_t messages,
                             uint64_t consumers);

/* Stop a task that runs. */
void rs_tray_stop_locked (rs_tray *o, rs_server_task *t, rs_reason reason,
                          double grace);

void rs_told_unref (rs_told *n);

/* The task of a call, or NULL. */
rs_server_task *rs_server_find_locked (rs_server *s, const char *from,
                                       uint64_t serial);

/* Acknowledge the message of the task, and forget the task, if it is time. */
void rs_server_settle_locked (rs_server *s, rs_tray *o, rs_server_task *t);

/* Nobody waits for the task: stop it, or forget it. */
void rs_server_stop_locked (rs_server *s, rs_tray *o, rs_server_task *t);

/* Find a caller; NULL: it is not known.  Make one if need be; NULL: no
   memory. */
rs_client *rs_client_find_locked (rs_server *s, const char *name);
rs_client *rs_client_get_locked (rs_server *s, const char *name);

/* The call is not to be begun if it still comes; is that so? */
void rs_client_void_locked (rs_client *c, uint64_t serial);
bool rs_client_has_void (const rs_client *c, uint64_t serial);

/* The caller has no queue now. */
void rs_client_miss_locked (rs_client *c);

#endif
