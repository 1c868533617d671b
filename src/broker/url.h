/* SPDX-License-Identifier: MIT */
/*
 * url.h - where a broker is, and who asks: the URL of 'rs_amqp_options'.
 */
#ifndef RS_URL_H
#define RS_URL_H

#include <stdbool.h>
#include <stddef.h>

#include "runspace.h"

enum { RS_URL_SHOWN = 200, RS_URL_PASSWORD = 1024 };

typedef struct rs_url {
  bool tls;
  bool verify;              /* the certificate of the broker has to fit */
  unsigned port;
  unsigned heartbeat;       /* seconds; 0: none */
  double timeout;           /* seconds that connecting may take */
  char shown[RS_URL_SHOWN]; /* as texts show it */
  char *user, *host, *vhost;  /* owned, as all that follow */
  char *password;           /* NULL: it is in the file */
  char *password_file;      /* or NULL, as all that follow */
  char *ca, *certificate, *key;  /* files */
  char *name;               /* of the broker, in its certificate; NULL: the
                               host */
} rs_url;

/* Read a URL; what it says is checked, and what it leaves out is taken from
   the environment.  RS_OK, RS_ENOMEM or RS_EINVAL. */
int rs_url_init (rs_url *u, const char *text, rs_error *err);
void rs_url_fini (rs_url *u);  /* may be called again */

/* The password, as it is now: a copy in the RS_URL_PASSWORD bytes at 'out',
   which the caller wipes.  RS_OK, or RS_EINVAL: the file cannot be read, or
   has none. */
int rs_url_password (const rs_url *u, char *out, rs_error *err);

/* Write a URL as texts may show it, whatever else it is: without a password,
   and without what follows '?'. */
void rs_url_show (const char *text, char *out, size_t size);

#endif
