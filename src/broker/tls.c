/* SPDX-License-Identifier: MIT */
/*
 * tls.c - whom to trust, which name the broker has to have, and why a
 * handshake failed.
 *
 * librabbitmq compares names only, not addresses, and tells little of what
 * went wrong.  So OpenSSL itself is asked to verify, with the name or address,
 * in the handshake; what it found is noted for the thread, which does one
 * thing at a time.
 */
#include "broker/tls.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include <amqp_ssl_socket.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

enum { ALERTS = 1000, MORE_ALERTS = 1256 };  /* what the other side said:
                                                reasons of OpenSSL */

/* What is wrong with the broker's certificate; X509_V_OK: nothing. */
static __thread int found;

/* A key wanted a password. */
static __thread bool asked;

static int
note (int good, X509_STORE_CTX *store)
{
  if (!good)
    found = X509_STORE_CTX_get_error(store);
  return good;
}

/* The terminal is not asked. */
static int
refuse_password (char *out, int size, int writes, void *ud)
{
  (void) out, (void) size, (void) writes, (void) ud;
  asked = true;
  return 0;
}

static bool
is_address (const char *host)
{
  unsigned char bytes[16];
  return inet_pton(AF_INET, host, bytes) == 1
         || inet_pton(AF_INET6, host, bytes) == 1;
}

/* The name that the broker has to have. */
static const char *
name_of (const rs_url *u)
{
  return u->name != NULL && strcmp(u->name, "disable") != 0 ? u->name
                                                            : u->host;
}

/* The name that is sent in the handshake; NULL: none. */
static const char *
indicated (const rs_url *u)
{
  if (u->name != NULL && strcmp(u->name, "disable") == 0)
    return NULL;
  return is_address(name_of(u)) ? NULL : name_of(u);
}

/* librabbitmq has set the host as the name that is sent. */
static void
begin_handshake (const SSL *ssl, int where, int value)
{
  (void) value;
  if (where & SSL_CB_HANDSHAKE_START) {
    const rs_url *const u = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_set_tlsext_host_name((SSL *) (uintptr_t) ssl, indicated(u));
  }
}

static bool
set_name (SSL_CTX *context, const char *name)
{
  X509_VERIFY_PARAM *const param = SSL_CTX_get0_param(context);
  if (is_address(name))
    return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1;
  X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1;
}

/* The last reason in OpenSSL's queue. */
static const char *
last_reason (void)
{
  const unsigned long code = ERR_peek_last_error();
  const char *const reason = code != 0 ? ERR_reason_error_string(code) : NULL;
  return reason != NULL ? reason : "no reason is known";
}

/* Let the context trust, and have a certificate of its own. */
static bool
fill (SSL_CTX *context, const rs_url *u, char *text, size_t size)
{
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_default_passwd_cb(context, refuse_password);
  SSL_CTX_set_app_data(context, (void *) (uintptr_t) u);
  SSL_CTX_set_info_callback(context, begin_handshake);
  if (u->verify) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, note);
    const int trusts = u->ca != NULL
                     ? SSL_CTX_load_verify_locations(context, u->ca, NULL)
                     : SSL_CTX_set_default_verify_paths(context);
    if (trusts != 1 || !set_name(context, name_of(u))) {
      snprintf(text, size, "no certificates of authorities in '%.200s': %s",
               u->ca != NULL ? u->ca : "the system's files", last_reason());
      return false;
    }
  }
  asked = false;
  if (u->certificate == NULL)
    return true;
  if (SSL_CTX_use_certificate_chain_file(context, u->certificate) != 1)
    snprintf(text, size, "no certificate in '%.200s': %s", u->certificate,
             last_reason());
  else if (SSL_CTX_use_PrivateKey_file(context, u->key, SSL_FILETYPE_PEM) == 1)
    return true;
  else if (asked)
    snprintf(text, size, "the key in '%.200s' has a password; without one it "
                         "can be used", u->key);
  else
    snprintf(text, size, "no key in '%.200s' for that certificate: %s", u->key,
             last_reason());
  return false;
}

amqp_socket_t *
rs_tls_new (amqp_connection_state_t state, const rs_url *u, char *text,
            size_t size, bool *refused)
{
  OPENSSL_init_ssl(0, NULL);
  ERR_clear_error();
  found = X509_V_OK;
  *refused = false;
  amqp_socket_t *const socket = amqp_ssl_socket_new(state);
  if (socket == NULL) {
    snprintf(text, size, "not enough memory");
    return NULL;
  }
  amqp_ssl_socket_set_verify_peer(socket, u->verify);
  amqp_ssl_socket_set_verify_hostname(socket, 0);  /* 'set_name' has */
  if (!fill(amqp_ssl_socket_get_context(socket), u, text, size)) {
    *refused = true;
    return NULL;
  }
  return socket;
}

bool
rs_tls_reason (const rs_url *u, char *text, size_t size)
{
  const unsigned long code = ERR_peek_last_error();
  const int reason = ERR_GET_REASON(code);
  text[0] = '\0';
  if (found == X509_V_ERR_HOSTNAME_MISMATCH
      || found == X509_V_ERR_IP_ADDRESS_MISMATCH)
    snprintf(text, size, "the broker's certificate is not for '%.200s'; "
                         "'?server_name_indication=NAME' gives the name that "
                         "it is for", name_of(u));
  else if (found != X509_V_OK)
    snprintf(text, size, "the broker's certificate is not trusted: %s; "
                         "'?cacertfile=FILE' names who has signed it",
             X509_verify_cert_error_string(found));
  else if (code == 0 || ERR_GET_LIB(code) != ERR_LIB_SSL)
    return false;
  else if (reason == SSL_R_WRONG_VERSION_NUMBER)
    snprintf(text, size, "what answers there does not speak TLS; amqp:// is "
                         "without it");
  else if (reason >= ALERTS && reason < MORE_ALERTS)
    snprintf(text, size, "the broker refuses: %s%s",
             ERR_reason_error_string(code),
             u->certificate == NULL ? "; '?certfile=FILE&keyfile=FILE' gives "
                                      "a certificate" : "");
  else {
    snprintf(text, size, "TLS: %s", last_reason());
    return false;
  }
  return true;
}
