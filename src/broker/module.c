/* SPDX-License-Identifier: MIT */
/*
 * module.c - the table of the module, and what it has of libcrypto.
 *
 * A hash or a signature that cannot be made, for want of memory, is random
 * bytes: it equals no other.
 */
#include "broker/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "broker/url.h"

/* A connection may still run when the process ends: nothing is taken down
   under it. */
__attribute__ ((constructor)) static void
keep_crypto (void)
{
  OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

static bool
make_random (void *out, size_t size)
{
  unsigned char *at = out;
  while (size > 0) {
    const ssize_t n = getrandom(at, size, 0);
    if (n < 0 && errno != EINTR)
      return false;
    at += n > 0 ? n : 0;
    size -= n > 0 ? (size_t) n : 0;
  }
  return true;
}

static void
hash (const struct iovec *parts, int n, unsigned char out[RS_AMQP_HASH])
{
  EVP_MD_CTX *const c = EVP_MD_CTX_new();
  bool good = c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1;
  for (int i = 0; good && i < n; i++)
    good = EVP_DigestUpdate(c, parts[i].iov_base, parts[i].iov_len) == 1;
  if (!good || EVP_DigestFinal_ex(c, out, NULL) != 1)
    make_random(out, RS_AMQP_HASH);
  EVP_MD_CTX_free(c);
}

static void
sign (const void *key, size_t size, const struct iovec *parts, int n,
      unsigned char out[RS_AMQP_HASH])
{
  size_t length = RS_AMQP_HASH;
  EVP_MD_CTX *const c = EVP_MD_CTX_new();
  EVP_PKEY *const k = EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, key,
                                                   size);
  bool good = c != NULL && k != NULL
              && EVP_DigestSignInit(c, NULL, EVP_sha256(), NULL, k) == 1;
  for (int i = 0; good && i < n; i++)
    good = EVP_DigestSignUpdate(c, parts[i].iov_base, parts[i].iov_len) == 1;
  if (!good || EVP_DigestSignFinal(c, out, &length) != 1)
    make_random(out, RS_AMQP_HASH);
  EVP_PKEY_free(k);
  EVP_MD_CTX_free(c);
}

static bool
equal (const unsigned char a[RS_AMQP_HASH],
       const unsigned char b[RS_AMQP_HASH])
{
  return CRYPTO_memcmp(a, b, RS_AMQP_HASH) == 0;
}

extern const rs_amqp_module rs_amqp_module_table;

RS_API const rs_amqp_module rs_amqp_module_table = {
  .version = RS_AMQP_VERSION,
  .open = rs_amqp_open,
  .publish = rs_amqp_publish,
  .acknowledge = rs_amqp_acknowledge,
  .reject = rs_amqp_reject,
  .quit = rs_amqp_quit,
  .look = rs_amqp_look,
  .close = rs_amqp_close,
  .show = rs_url_show,
  .hash = hash,
  .sign = sign,
  .random = make_random,
  .equal = equal,
};
