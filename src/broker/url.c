/* SPDX-License-Identifier: MIT */
/*
 * url.c - where a broker is, and who asks.
 *
 *     amqps :// user : password @ host : port / vhost ? name=value & ...
 *     scheme    \_______ authority __________/   path   options
 *
 * A password that has '/', '?' or '@' in it, and not as %2F, %3F and %40,
 * makes the parts fall elsewhere.  Such a URL is refused, and shown without
 * anything that may be a piece of the password.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* explicit_bzero, strndup */
#endif
#include "broker/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/status.h"

#define PASSWORD "RUNSPACE_BROKER_PASSWORD"  /* in the environment */

enum {
  PLAIN_PORT = 5672, TLS_PORT = 5671,
  HEARTBEAT = 10,           /* seconds */
  TIMEOUT = 10000           /* milliseconds */
};

/* A piece of the text of a URL. */
typedef struct piece {
  const char *at;
  size_t size;
} piece;

/* Where the parts of a URL are; those that are not there are empty. */
typedef struct parts {
  piece scheme, user, password, host, port, path, options;
  bool has_user, has_password, has_port;
  bool clear;               /* nothing else can be meant */
} parts;

static const char *
find (piece p, char c)
{
  return p.size > 0 ? memchr(p.at, c, p.size) : NULL;
}

static const char *
find_last (piece p, char c)
{
  return p.size > 0 ? memrchr(p.at, c, p.size) : NULL;
}

/* The piece from its byte 'from' on. */
static piece
rest (piece p, const char *from)
{
  return (piece) { from, (size_t) (p.at + p.size - from) };
}

static piece
until (piece p, const char *to)
{
  return (piece) { p.at, (size_t) (to - p.at) };
}

static bool
is_number (piece p)
{
  for (size_t i = 0; i < p.size; i++)
    if (!isdigit((unsigned char) p.at[i]))
      return false;
  return p.size > 0 && p.size <= 9;
}

/* Find host and port.  An address of IPv6 stands in brackets. */
static void
cut_host (piece p, parts *out)
{
  const char *colon;
  out->host = p;
  if (p.size > 0 && p.at[0] == '[') {
    const char *const end = find(p, ']');
    if (end == NULL) {
      out->clear = false;
      return;
    }
    out->host = rest(until(p, end), p.at + 1);
    p = rest(p, end + 1);
    if (p.size == 0)
      return;
    colon = p.at;
    out->clear = out->clear && *colon == ':';
  }
  else {
    colon = find(p, ':');
    if (colon == NULL)
      return;
    out->host = until(p, colon);
  }
  out->has_port = true;
  out->port = rest(p, colon + 1);
  out->clear = out->clear && is_number(out->port);
}

static void
cut (const char *text, parts *out)
{
  memset(out, 0, sizeof *out);
  const char *const mark = strstr(text, "://");
  if (mark == NULL)
    return;
  out->clear = true;
  out->scheme = (piece) { text, (size_t) (mark - text) };
  const char *const begin = mark + 3;
  const size_t size = strcspn(begin, "/?#");
  piece authority = { begin, size };
  const char *at = begin + size;
  if (*at == '/') {
    at++;
    out->path = (piece) { at, strcspn(at, "?#") };
    at += out->path.size;
  }
  if (*at == '?') {
    at++;
    out->options = (piece) { at, strlen(at) };
    at += out->options.size;
  }
  out->clear = *at == '\0';
  const char *const host = find_last(authority, '@');
  if (host != NULL) {
    const piece who = until(authority, host);
    const char *const colon = find(who, ':');
    out->has_user = true;
    out->user = colon != NULL ? until(who, colon) : who;
    out->has_password = colon != NULL;
    if (colon != NULL)
      out->password = rest(who, colon + 1);
    authority = rest(authority, host + 1);
  }
  out->clear = out->clear && find(out->path, '@') == NULL
               && find(out->password, '@') == NULL
               && (host != NULL || find(out->options, '@') == NULL);
  cut_host(authority, out);
}

void
rs_url_show (const char *text, char *out, size_t size)
{
  parts p;
  cut(text, &p);
  if (!p.clear)
    snprintf(out, size, "%.*s%s", (int) (p.scheme.size < 20 ? p.scheme.size
                                                            : 0),
             p.scheme.size > 0 ? p.scheme.at : "", "://...");
  else {
    const char *const end = p.options.size > 0 ? p.options.at - 1
                                               : text + strlen(text);
    const char *const host = p.host.at[-1] == '[' ? p.host.at - 1 : p.host.at;
    snprintf(out, size, "%.*s://%.*s%s%.*s", (int) p.scheme.size, p.scheme.at,
             (int) p.user.size, p.has_user ? p.user.at : "",
             p.has_user ? "@" : "", (int) (end - host), host);
  }
  for (char *c = out; size > 0 && *c != '\0'; c++)
    if ((unsigned char) *c < 32 || *c == 127)
      *c = '?';
}

/* ----------------------------------------------------------------- reading */

static int
digit (char c)
{
  return !isxdigit((unsigned char) c) ? -1
       : isdigit((unsigned char) c) ? c - '0'
       : tolower((unsigned char) c) - 'a' + 10;
}

static void
wipe (char *text)
{
  if (text != NULL)
    explicit_bzero(text, strlen(text));
  free(text);
}

/* A copy of a piece with its escapes resolved, in the place of '*out'.  'what'
   names it in errors. */
static int
copy (const rs_url *u, piece p, const char *what, char **out, rs_error *err)
{
  char *const text = malloc(p.size + 1);
  size_t n = 0;
  if (text == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  for (size_t i = 0; i < p.size; i++) {
    char c = p.at[i];
    if (c == '%') {
      const int high = i + 2 < p.size ? digit(p.at[i + 1]) : -1;
      const int low = i + 2 < p.size ? digit(p.at[i + 2]) : -1;
      if (high < 0 || low < 0 || high + low == 0) {
        free(text);
        return rs_fail(err, RS_EINVAL, "%s: '%%' in the %s is not followed "
                                       "by two hexadecimal digits of a byte; "
                                       "a '%%' itself is %%25", u->shown,
                       what);
      }
      c = (char) (16 * high + low);
      i += 2;
    }
    text[n++] = c;
  }
  text[n] = '\0';
  wipe(*out);
  *out = text;
  return RS_OK;
}

static bool
is (piece p, const char *text)
{
  return p.size == strlen(text) && memcmp(p.at, text, p.size) == 0;
}

static unsigned
number (piece p)
{
  unsigned n = 0;
  for (size_t i = 0; i < p.size; i++)
    n = 10 * n + (unsigned) (p.at[i] - '0');
  return n;
}

/* A number of an option, at most 'most'. */
static int
read_number (const rs_url *u, piece name, piece value, unsigned least,
             unsigned most, unsigned *out, rs_error *err)
{
  if (!is_number(value) || number(value) < least || number(value) > most)
    return rs_fail(err, RS_EINVAL, "%s: %.*s has to be a number from %u to "
                                   "%u", u->shown, (int) name.size, name.at,
                   least, most);
  *out = number(value);
  return RS_OK;
}

static int
read_option (rs_url *u, piece name, piece value, rs_error *err)
{
  unsigned n;
  int status;
  const struct { const char *name; char **where; } files[] = {
    { "cacertfile", &u->ca }, { "certfile", &u->certificate },
    { "keyfile", &u->key }, { "passwordfile", &u->password_file },
    { "server_name_indication", &u->name },
  };
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
    if (is(name, files[i].name))
      return copy(u, value, files[i].name, files[i].where, err);
  if (is(name, "verify")) {
    u->verify = !is(value, "verify_none");
    return !u->verify || is(value, "verify_peer") ? RS_OK
         : rs_fail(err, RS_EINVAL, "%s: verify has to be verify_peer or "
                                   "verify_none", u->shown);
  }
  if (is(name, "heartbeat"))
    return read_number(u, name, value, 0, 3600, &u->heartbeat, err);
  if (is(name, "connection_timeout")) {
    status = read_number(u, name, value, 1, 3600000, &n, err);
    if (status == RS_OK)
      u->timeout = n * 1e-3;
    return status;
  }
  return rs_fail(err, RS_EINVAL, "%s: no option is named '%.*s'; there are "
                                 "cacertfile, certfile, keyfile, verify, "
                                 "server_name_indication, heartbeat, "
                                 "connection_timeout and passwordfile",
                 u->shown, (int) (name.size < 40 ? name.size : 40), name.at);
}

static int
read_options (rs_url *u, piece p, rs_error *err)
{
  int status = RS_OK;
  while (p.size > 0 && status == RS_OK) {
    const char *const end = find(p, '&');
    const piece one = end != NULL ? until(p, end) : p;
    const char *const equals = find(one, '=');
    if (one.size > 0)
      status = equals == NULL
             ? read_option(u, one, (piece) { one.at, 0 }, err)
             : read_option(u, until(one, equals), rest(one, equals + 1), err);
    p = end != NULL ? rest(p, end + 1) : (piece) { NULL, 0 };
  }
  return status;
}

/* Look for a password where the URL has none. */
static int
find_password (rs_url *u, rs_error *err)
{
  const char *password = getenv(PASSWORD);
  if (u->password != NULL || u->password_file != NULL)
    return RS_OK;
  if (password == NULL && strcmp(u->user, "guest") == 0)
    password = "guest";
  if (password == NULL)
    return rs_fail(err, RS_EINVAL, "%s: no password for the user '%.60s': "
                                   "give it in " PASSWORD ", or in the first "
                                   "line of a file, by '?passwordfile=FILE'",
                   u->shown, u->user);
  u->password = strdup(password);
  return u->password != NULL ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
}

static int
check (const rs_url *u, rs_error *err)
{
  if (u->host[0] == '\0')
    return rs_fail(err, RS_EINVAL, "%s: the host is missing", u->shown);
  if (strlen(u->vhost) > 255 || strlen(u->user) > 255
      || (u->password != NULL && strlen(u->password) >= RS_URL_PASSWORD))
    return rs_fail(err, RS_EINVAL, "%s: user, password or virtual host is too "
                                   "long", u->shown);
  if (!u->tls && (u->ca != NULL || u->certificate != NULL || u->key != NULL
                  || u->name != NULL || !u->verify))
    return rs_fail(err, RS_EINVAL, "%s: certificates are for amqps://",
                   u->shown);
  if (u->password != NULL && u->password_file != NULL)
    return rs_fail(err, RS_EINVAL, "%s: a password, and a passwordfile",
                   u->shown);
  if ((u->certificate == NULL) != (u->key == NULL))
    return rs_fail(err, RS_EINVAL, "%s: certfile and keyfile go together",
                   u->shown);
  return RS_OK;
}

static int
fill (rs_url *u, const char *text, rs_error *err)
{
  parts p;
  cut(text, &p);
  const bool tls = strncasecmp(text, "amqps://", 8) == 0;
  if (!tls && strncasecmp(text, "amqp://", 7) != 0)
    return rs_fail(err, RS_EINVAL, "%s: a broker's URL begins with amqp:// or "
                                   "amqps://", u->shown);
  if (!p.clear)
    return rs_fail(err, RS_EINVAL, "%s: this is no URL: it should be amqp[s]"
                                   "://user:password@host:port/vhost, with "
                                   "'/', '?', '#', '@' and '%%' in names and "
                                   "passwords as %%2F, %%3F, %%23, %%40 and "
                                   "%%25", u->shown);
  u->tls = tls;
  u->port = p.has_port ? number(p.port) : tls ? TLS_PORT : PLAIN_PORT;
  if (u->port == 0 || u->port > 65535)
    return rs_fail(err, RS_EINVAL, "%s: a port is from 1 to 65535", u->shown);
  if (!p.has_user || p.user.size == 0)
    p.user = (piece) { "guest", 5 };
  if (p.path.size == 0)
    p.path = (piece) { "/", 1 };
  int status = copy(u, p.host, "host", &u->host, err);
  if (status == RS_OK)
    status = copy(u, p.user, "user", &u->user, err);
  if (status == RS_OK && p.has_password)
    status = copy(u, p.password, "password", &u->password, err);
  if (status == RS_OK)
    status = copy(u, p.path, "virtual host", &u->vhost, err);
  if (status == RS_OK)
    status = read_options(u, p.options, err);
  if (status == RS_OK)
    status = find_password(u, err);
  return status == RS_OK ? check(u, err) : status;
}

int
rs_url_init (rs_url *u, const char *text, rs_error *err)
{
  memset(u, 0, sizeof *u);
  u->verify = true;
  u->heartbeat = HEARTBEAT;
  u->timeout = TIMEOUT * 1e-3;
  rs_url_show(text, u->shown, sizeof u->shown);
  const int status = fill(u, text, err);
  if (status != RS_OK)
    rs_url_fini(u);
  return status;
}

void
rs_url_fini (rs_url *u)
{
  wipe(u->password);
  free(u->user);
  free(u->host);
  free(u->vhost);
  free(u->password_file);
  free(u->ca);
  free(u->certificate);
  free(u->key);
  free(u->name);
  u->password = u->user = u->host = u->vhost = u->password_file = NULL;
  u->ca = u->certificate = u->key = u->name = NULL;
}

int
rs_url_password (const rs_url *u, char *out, rs_error *err)
{
  if (u->password_file == NULL) {
    snprintf(out, RS_URL_PASSWORD, "%s", u->password);
    return RS_OK;
  }
  FILE *const file = fopen(u->password_file, "re");
  if (file == NULL)
    return rs_fail(err, RS_EINVAL, "%s: cannot read the password in '%.150s': "
                                   "%s", u->shown, u->password_file,
                   strerror(errno));
  setvbuf(file, NULL, _IONBF, 0);  /* no copy of it is left behind */
  const bool got = fgets(out, RS_URL_PASSWORD, file) != NULL;
  fclose(file);
  if (got)
    out[strcspn(out, "\r\n")] = '\0';
  return got && out[0] != '\0' ? RS_OK
       : rs_fail(err, RS_EINVAL, "%s: no password in the first line of "
                                 "'%.150s'", u->shown, u->password_file);
}
