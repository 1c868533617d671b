/* SPDX-License-Identifier: MIT */
/*
 * tls.h - what librabbitmq leaves to its user: whom to trust, which name the
 * broker has to have, and why a handshake failed.
 */
#ifndef RS_TLS_H
#define RS_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <amqp.h>

#include "broker/url.h"

/* Give 'state' a socket for TLS, which is not open.  'u' is lent as long as
   the state lives.  NULL: a text says why; 'refused': that will not change. */
amqp_socket_t *rs_tls_new (amqp_connection_state_t state, const rs_url *u,
                           char *text, size_t size, bool *refused);

/*
 * Say why the last operation of TLS on this thread failed; true if that will
 * not change by itself: a certificate does not fit.  The text is "" when TLS
 * had no part in it.
 */
bool rs_tls_reason (const rs_url *u, char *text, size_t size);

#endif
