/* SPDX-License-Identifier: MIT */
/*
 * session.c - one connection of librabbitmq, until all is declared.
 *
 *     dial --> (TLS) --> log in --> channels --> queues --> consumers
 *
 * A socket without TLS is opened here, since librabbitmq does not tell why it
 * could not.  One with TLS it has to open itself.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* explicit_bzero */
#endif
#include "broker/session.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

#include "base/clock.h"
#include "broker/amqp.h"
#include "broker/tls.h"

enum {
  FRAME = 131072,           /* bytes, at most */
  CHANNELS = 8,             /* more than are used */
  ANSWER = 10,              /* seconds that the broker has for each */
  FAREWELL = 1
};

/* ---------------------------------------------------------------- failures */

void
rs_session_fail_for (rs_session *s, const char *format, ...)
{
  char text[600];
  va_list ap;
  va_start(ap, format);
  vsnprintf(text, sizeof text, format, ap);
  va_end(ap);
  snprintf(s->text, sizeof s->text, "%s: %.590s", s->url->shown, text);
  for (char *c = s->text; *c != '\0'; c++)
    if ((unsigned char) *c < 32 || *c == 127)
      *c = '?';
}

void
rs_session_fail (rs_session *s, int status)
{
  char reason[300] = "";
  s->broken = true;
  if (s->url->tls && rs_tls_reason(s->url, reason, sizeof reason))
    s->refused = true;
  if (reason[0] != '\0')
    rs_session_fail_for(s, "%s", reason);
  else if (status == AMQP_STATUS_HEARTBEAT_TIMEOUT)
    rs_session_fail_for(s, "no heartbeat from the broker for %u s",
                        2 * s->url->heartbeat);
  else if (status == AMQP_STATUS_CONNECTION_CLOSED
           || status == AMQP_STATUS_SOCKET_ERROR
           || status == AMQP_STATUS_SOCKET_CLOSED
           || status == AMQP_STATUS_SSL_ERROR)
    rs_session_fail_for(s, "the connection was cut");
  else if (status == AMQP_STATUS_TIMEOUT)
    rs_session_fail_for(s, "the broker does not answer");
  else
    rs_session_fail_for(s, "%s", amqp_error_string2(status));
}

void
rs_session_fail_as_said (rs_session *s, const char *what, unsigned code,
                         amqp_bytes_t said)
{
  s->broken = true;
  rs_session_fail_for(s, "%s%.*s (%u)", what, (int) said.len,
                      (const char *) said.bytes, code);
}

/* ----------------------------------------------------------------- sockets */

/* Note the socket; -1: there is none any more. */
static bool
set_fd (rs_session *s, int fd)
{
  const int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  pthread_mutex_lock(&s->lock);
  if (s->fd >= 0)
    close(s->fd);
  s->fd = copy;
  pthread_mutex_unlock(&s->lock);
  if (fd >= 0 && copy < 0)
    rs_session_fail_for(s, "%s", strerror(errno));
  return fd < 0 || copy >= 0;
}

void
rs_session_cut (rs_session *s)
{
  pthread_mutex_lock(&s->lock);
  if (s->fd >= 0)
    shutdown(s->fd, SHUT_RDWR);
  pthread_mutex_unlock(&s->lock);
}

/* Wait until 'fd' is connected.  0, or an error number; EINTR: 'wake'. */
static int
await (int fd, int wake, double deadline)
{
  struct pollfd fds[2] = {
    { .fd = fd, .events = POLLOUT }, { .fd = wake, .events = POLLIN }
  };
  for (;;) {
    const double left = rs_remaining(deadline);
    const int n = poll(fds, 2, (int) (left * 1e3) + 1);
    if (n < 0 && errno != EINTR)
      return errno;
    if (n > 0 && fds[1].revents != 0)
      return EINTR;
    if (n > 0 && fds[0].revents != 0)
      break;
    if (left <= 0)
      return ETIMEDOUT;
  }
  int code = 0;
  socklen_t size = sizeof code;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 ? code
                                                                 : errno;
}

/* Connect to one address.  A descriptor, or -1 and an error number. */
static int
dial_address (const struct addrinfo *a, int wake, double deadline, int *code)
{
  const int one = 1;
  int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                  a->ai_protocol);
  if (fd >= 0 && fd <= STDERR_FILENO) {  /* standard files may be closed */
    const int higher = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    *code = errno;
    close(fd);
    errno = *code;
    fd = higher;
  }
  *code = errno;
  if (fd < 0)
    return -1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  *code = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0
        : errno != EINPROGRESS ? errno : await(fd, wake, deadline);
  if (*code == 0)
    return fd;
  close(fd);
  return -1;
}

static int
dial (rs_session *s, int wake, double deadline)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *all;
  char port[16];
  int fd = -1, code = 0;
  snprintf(port, sizeof port, "%u", s->url->port);
  const int found = getaddrinfo(s->url->host, port, &hints, &all);
  if (found != 0) {
    rs_session_fail_for(s, "no host '%.200s': %s", s->url->host,
                        found == EAI_SYSTEM ? strerror(errno)
                                            : gai_strerror(found));
    return -1;
  }
  for (const struct addrinfo *a = all; a != NULL && fd < 0 && code != EINTR;
       a = a->ai_next)
    fd = dial_address(a, wake, deadline, &code);
  freeaddrinfo(all);
  if (fd < 0)
    rs_session_fail_for(s, "no broker at %.200s:%u: %s", s->url->host,
                        s->url->port,
                        code == EINTR ? "given up" : strerror(code));
  return fd;
}

static struct timeval
interval (double seconds)
{
  return (struct timeval) {
    .tv_sec = (time_t) seconds,
    .tv_usec = (suseconds_t) ((seconds - (double) (time_t) seconds) * 1e6)
  };
}

static bool
connect_plain (rs_session *s, int wake, double deadline)
{
  amqp_socket_t *const socket = amqp_tcp_socket_new(s->state);
  const int fd = socket != NULL ? dial(s, wake, deadline) : -1;
  if (socket == NULL)
    rs_session_fail(s, AMQP_STATUS_NO_MEMORY);
  if (fd < 0)
    return false;
  amqp_tcp_socket_set_sockfd(socket, fd);
  return set_fd(s, fd);
}

static bool
connect_tls (rs_session *s, int wake, double deadline)
{
  char text[400];
  amqp_socket_t *const socket = rs_tls_new(s->state, s->url, text, sizeof text,
                                           &s->refused);
  if (socket == NULL) {
    rs_session_fail_for(s, "%s", text);
    return false;
  }
  const double left = rs_remaining(deadline);
  struct timeval t = interval(left);
  const int status = amqp_socket_open_noblock(socket, s->url->host,
                                              (int) s->url->port, &t);
  if (status == AMQP_STATUS_OK)
    return set_fd(s, amqp_get_sockfd(s->state));
  if (status == AMQP_STATUS_SSL_CONNECTION_FAILED
      || status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED)
    rs_session_fail(s, status);
  else {
    /* It does not tell why; the same without TLS does. */
    rs_session_fail_for(s, "no broker at %.200s:%u: %s", s->url->host,
                        s->url->port, amqp_error_string2(status));
    const int fd = status == AMQP_STATUS_TIMEOUT ? -1
                                                 : dial(s, wake, deadline);
    if (fd >= 0)
      close(fd);
  }
  return false;
}

/* ------------------------------------------------------------------- login */

static amqp_table_entry_t
entry (const char *key, amqp_field_value_t value)
{
  return (amqp_table_entry_t) { amqp_cstring_bytes(key), value };
}

static amqp_field_value_t
yes (void)
{
  return (amqp_field_value_t) { .kind = AMQP_FIELD_KIND_BOOLEAN,
                                .value.boolean = 1 };
}

/* Take a reply; 'what' was asked for. */
static bool
accept_reply (rs_session *s, amqp_rpc_reply_t reply, const char *what)
{
  if (reply.reply_type == AMQP_RESPONSE_NORMAL)
    return true;
  if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION) {
    rs_session_fail(s, reply.library_error);
    return false;
  }
  const unsigned id = reply.reply.id;
  amqp_bytes_t said = amqp_empty_bytes;
  unsigned code = 0;
  if (id == AMQP_CONNECTION_CLOSE_METHOD) {
    const amqp_connection_close_t *const m = reply.reply.decoded;
    said = m->reply_text;
    code = m->reply_code;
  }
  else if (id == AMQP_CHANNEL_CLOSE_METHOD) {
    const amqp_channel_close_t *const m = reply.reply.decoded;
    said = m->reply_text;
    code = m->reply_code;
  }
  rs_session_fail_as_said(s, what, code, said);
  s->refused = code == AMQP_ACCESS_REFUSED || code == AMQP_NOT_FOUND
               || code == AMQP_RESOURCE_LOCKED
               || code == AMQP_PRECONDITION_FAILED || code == AMQP_NOT_ALLOWED
               || code == AMQP_NOT_IMPLEMENTED;
  return false;
}

static bool
log_in (rs_session *s, const char *title)
{
  amqp_table_entry_t can[] = {
    entry("consumer_cancel_notify", yes()),
    entry("connection.blocked", yes()),
    entry("authentication_failure_close", yes()),
  };
  amqp_table_entry_t says[] = {
    entry("connection_name",
          (amqp_field_value_t) { .kind = AMQP_FIELD_KIND_UTF8,
                                 .value.bytes = amqp_cstring_bytes(title) }),
    entry("capabilities",
          (amqp_field_value_t) { .kind = AMQP_FIELD_KIND_TABLE,
                                 .value.table = { sizeof can / sizeof can[0],
                                                  can } }),
  };
  const amqp_table_t properties = { sizeof says / sizeof says[0], says };
  char password[RS_URL_PASSWORD];
  rs_error err;
  if (rs_url_password(s->url, password, &err) != RS_OK) {
    snprintf(s->text, sizeof s->text, "%.790s", err.text);
    s->refused = true;
    return false;
  }
  const amqp_rpc_reply_t reply = amqp_login_with_properties(
    s->state, s->url->vhost, CHANNELS, FRAME, (int) s->url->heartbeat,
    &properties, AMQP_SASL_METHOD_PLAIN, s->url->user, password);
  explicit_bzero(password, sizeof password);
  if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION
      && (reply.library_error == AMQP_STATUS_BAD_AMQP_DATA
          || reply.library_error == AMQP_STATUS_WRONG_METHOD
          || reply.library_error == AMQP_STATUS_INCOMPATIBLE_AMQP_VERSION)) {
    s->broken = true;
    rs_session_fail_for(s, "what answers at %.200s:%u is no broker of AMQP "
                           "0-9-1", s->url->host, s->url->port);
    return false;
  }
  if (accept_reply(s, reply, "the login failed: "))
    return true;
  /* What a broker says that wants a certificate is lost on the way, more often
     than not, since it ends the connection at once. */
  if (!s->refused && s->url->tls && s->url->certificate == NULL
      && reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
    rs_session_fail_for(s, "the connection was cut before the login; if the "
                           "broker wants a certificate, "
                           "'?certfile=FILE&keyfile=FILE' gives it");
  return false;
}

/* ------------------------------------------------------------ declarations */

static bool
took (rs_session *s, const char *what)
{
  return accept_reply(s, amqp_get_rpc_reply(s->state), what);
}

static bool
declare_shared (rs_session *s, const char *queue)
{
  amqp_table_entry_t most = entry("x-max-priority",
    (amqp_field_value_t) { .kind = AMQP_FIELD_KIND_I32,
                           .value.i32 = RS_AMQP_PRIORITIES });
  const amqp_table_t arguments = { 1, &most };
  amqp_queue_declare(s->state, RS_SESSION_CONSUME, amqp_cstring_bytes(queue),
                     0, 1, 0, 0, arguments);
  return took(s, "the queue cannot be had: ");
}

static bool
declare_exchange (rs_session *s, const char *exchange)
{
  amqp_exchange_declare(s->state, RS_SESSION_CONSUME,
                        amqp_cstring_bytes(exchange),
                        amqp_cstring_bytes("fanout"), 0, 1, 0, 0,
                        amqp_empty_table);
  return took(s, "the exchange cannot be had: ");
}

/* The broker may not know yet that an earlier connection of ours, which had
   the same queue, is gone: then it has it locked, and will let it go. */
static bool
declare_own (rs_session *s, const rs_session_plan *plan)
{
  const amqp_bytes_t own = amqp_cstring_bytes(plan->own);
  amqp_queue_declare(s->state, RS_SESSION_CONSUME, own, 0, 0, 1, 0,
                     amqp_empty_table);
  const amqp_rpc_reply_t reply = amqp_get_rpc_reply(s->state);
  if (!accept_reply(s, reply, "a queue for answers cannot be had: ")) {
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION
        && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD
        && ((const amqp_channel_close_t *) reply.reply.decoded)->reply_code
           == AMQP_RESOURCE_LOCKED)
      s->refused = false;
    return false;
  }
  if (plan->listens && plan->exchange != NULL) {
    amqp_queue_bind(s->state, RS_SESSION_CONSUME, own,
                    amqp_cstring_bytes(plan->exchange), amqp_empty_bytes,
                    amqp_empty_table);
    if (!took(s, "the exchange cannot be listened to: "))
      return false;
  }
  amqp_basic_consume(s->state, RS_SESSION_CONSUME, own,
                     amqp_cstring_bytes(RS_SESSION_OWN), 0, 1, 1,
                     amqp_empty_table);
  return took(s, "the queue for answers cannot be read: ");
}

static bool
consume_shared (rs_session *s, const rs_session_plan *plan)
{
  amqp_basic_qos(s->state, RS_SESSION_CONSUME, 0, (uint16_t) plan->prefetch,
                 0);
  if (!took(s, "the broker does not bound what it sends: "))
    return false;
  amqp_basic_consume(s->state, RS_SESSION_CONSUME,
                     amqp_cstring_bytes(plan->queue),
                     amqp_cstring_bytes(RS_SESSION_SHARED), 0, 0, 0,
                     amqp_empty_table);
  return took(s, "the queue cannot be read: ");
}

static bool
declare (rs_session *s, const rs_session_plan *plan)
{
  amqp_channel_open(s->state, RS_SESSION_CONSUME);
  if (!took(s, "no channel: "))
    return false;
  amqp_channel_open(s->state, RS_SESSION_PUBLISH);
  if (!took(s, "no channel: "))
    return false;
  amqp_confirm_select(s->state, RS_SESSION_PUBLISH);
  return took(s, "the broker does not confirm: ")
         && (plan->queue == NULL || declare_shared(s, plan->queue))
         && (plan->exchange == NULL || declare_exchange(s, plan->exchange))
         && (plan->own == NULL || declare_own(s, plan))
         && (plan->queue == NULL || plan->prefetch == 0
             || consume_shared(s, plan));
}

/* -------------------------------------------------------------- life cycle */

void
rs_session_init (rs_session *s, const rs_url *url)
{
  memset(s, 0, sizeof *s);
  s->url = url;
  s->fd = -1;
  pthread_mutex_init(&s->lock, NULL);
}

void
rs_session_fini (rs_session *s)
{
  pthread_mutex_destroy(&s->lock);
}

bool
rs_session_open (rs_session *s, const rs_session_plan *plan, int wake)
{
  const double deadline = rs_deadline(s->url->timeout);
  struct timeval handshake = interval(s->url->timeout);
  struct timeval answer = { .tv_sec = ANSWER };
  s->refused = s->broken = false;
  s->text[0] = '\0';
  s->state = amqp_new_connection();
  if (s->state == NULL) {
    rs_session_fail(s, AMQP_STATUS_NO_MEMORY);
    return false;
  }
  amqp_set_handshake_timeout(s->state, &handshake);
  amqp_set_rpc_timeout(s->state, &answer);
  const bool connected = s->url->tls ? connect_tls(s, wake, deadline)
                                     : connect_plain(s, wake, deadline);
  if (!connected)
    s->broken = true;
  if (connected && log_in(s, plan->title) && declare(s, plan))
    return true;
  rs_session_close(s);
  return false;
}

void
rs_session_close (rs_session *s)
{
  struct timeval farewell = { .tv_sec = FAREWELL };
  if (s->state == NULL)
    return;
  if (!s->broken) {
    amqp_set_rpc_timeout(s->state, &farewell);
    amqp_connection_close(s->state, AMQP_REPLY_SUCCESS);
  }
  set_fd(s, -1);
  amqp_destroy_connection(s->state);
  s->state = NULL;
}
