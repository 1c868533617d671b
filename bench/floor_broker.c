/* SPDX-License-Identifier: MIT */
/*
 * floor_broker.c - jobs by a broker, in plain C with librabbitmq.
 *
 *     floor_broker URL [SAMPLES [JOBS]]
 *
 * A host publishes JOBS messages of 100 bytes to a durable queue with
 * priorities, persistent ones, 64 of which are under way at a time.  Two
 * workers, each a thread with a connection of its own, consume them, reply to
 * the host's own queue, and acknowledge.  Nothing is confirmed, nobody
 * connects again, and a thread blocks in its connection, which is all that it
 * waits for.
 *
 *     broker              us a job
 *     broker_transient    the same with messages that are not persistent
 */
#define _GNU_SOURCE  /* floor.h */
#include "floor.h"

#include <string.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { FLIGHT = 64, WORKERS = 2, SIZE = 100, CHANNEL = 1 };

static const char *url;

/* Wait here until all have consumed. */
static pthread_barrier_t begin;

static void
check (amqp_connection_state_t c, const char *what)
{
  const amqp_rpc_reply_t r = amqp_get_rpc_reply(c);
  if (r.reply_type != AMQP_RESPONSE_NORMAL)
    die(what);
}

static amqp_connection_state_t
open_connection (void)
{
  struct amqp_connection_info info;
  char *const copy = strdup(url);
  amqp_connection_state_t c = amqp_new_connection();
  amqp_socket_t *const socket = amqp_tcp_socket_new(c);
  if (copy == NULL || amqp_parse_url(copy, &info) != AMQP_STATUS_OK)
    die("a URL: amqp://user:password@host:port/");
  if (socket == NULL
      || amqp_socket_open(socket, info.host, info.port) != AMQP_STATUS_OK)
    die("no broker there");
  if (amqp_login(c, info.vhost[0] != '\0' ? info.vhost : "/", 0, 131072, 0,
                 AMQP_SASL_METHOD_PLAIN, info.user, info.password).reply_type
      != AMQP_RESPONSE_NORMAL)
    die("the login failed");
  free(copy);
  amqp_channel_open(c, CHANNEL);
  check(c, "no channel");
  return c;
}

static void
declare (amqp_connection_state_t c)
{
  amqp_table_entry_t most = {
    amqp_cstring_bytes("x-max-priority"),
    { .kind = AMQP_FIELD_KIND_I32, .value.i32 = 10 }
  };
  const amqp_table_t arguments = { 1, &most };
  amqp_queue_declare(c, CHANNEL, amqp_cstring_bytes("floor"), 0, 1, 0, 0,
                     arguments);
  check(c, "no queue");
}

static void
consume (amqp_connection_state_t c, const char *queue, int no_ack)
{
  amqp_basic_qos(c, CHANNEL, 0, FLIGHT / WORKERS, 0);
  check(c, "no prefetch");
  amqp_basic_consume(c, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes,
                     0, (amqp_boolean_t) no_ack, 0, amqp_empty_table);
  check(c, "no consumer");
}

static void
publish (amqp_connection_state_t c, const char *queue, int persistent,
         amqp_bytes_t body)
{
  amqp_basic_properties_t p;
  memset(&p, 0, sizeof p);
  p._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
  p.delivery_mode = persistent ? 2 : 1;
  if (amqp_basic_publish(c, CHANNEL, amqp_empty_bytes,
                         amqp_cstring_bytes(queue), 0, 0, &p, body)
      != AMQP_STATUS_OK)
    die("cannot publish");
}

static void
take (amqp_connection_state_t c, amqp_envelope_t *e)
{
  amqp_maybe_release_buffers(c);
  if (amqp_consume_message(c, e, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL)
    die("cannot consume");
}

/* A job of this first byte ends the worker. */
static void *
work (void *arg)
{
  (void) arg;
  amqp_connection_state_t c = open_connection();
  bool last = false;
  consume(c, "floor", 0);
  pthread_barrier_wait(&begin);
  while (!last) {
    amqp_envelope_t e;
    take(c, &e);
    last = ((const char *) e.message.body.bytes)[0] == 'E';
    if (!last)
      publish(c, "floor host", 0, e.message.body);
    if (amqp_basic_ack(c, CHANNEL, e.delivery_tag, 0) != AMQP_STATUS_OK)
      die("cannot acknowledge");
    amqp_destroy_envelope(&e);
    if (last)  /* what else it has goes to others */
      amqp_connection_close(c, AMQP_REPLY_SUCCESS);
  }
  amqp_destroy_connection(c);
  return NULL;
}

/* Microseconds a job. */
static double
sample (amqp_connection_state_t c, unsigned jobs, int persistent)
{
  static char bytes[SIZE];
  const amqp_bytes_t body = { sizeof bytes, bytes };
  const double since = now();
  unsigned sent = 0, done = 0;
  while (done < jobs) {
    amqp_envelope_t e;
    while (sent < jobs && sent - done < FLIGHT) {
      publish(c, "floor", persistent, body);
      sent++;
    }
    take(c, &e);
    amqp_destroy_envelope(&e);
    done++;
  }
  return (now() - since) / jobs * 1e6;
}

int
main (int argc, char **argv)
{
  pthread_t threads[WORKERS];
  const int samples = argc > 2 ? atoi(argv[2]) : 5;
  const unsigned jobs = argc > 3 ? (unsigned) atoi(argv[3]) : 10000;
  char end[] = "E";
  if (argc < 2)
    die("the URL of a broker");
  url = argv[1];
  amqp_connection_state_t c = open_connection();
  declare(c);
  amqp_queue_declare(c, CHANNEL, amqp_cstring_bytes("floor host"), 0, 0, 1, 0,
                     amqp_empty_table);
  check(c, "no own queue");
  consume(c, "floor host", 1);
  pthread_barrier_init(&begin, NULL, WORKERS + 1);
  for (int i = 0; i < WORKERS; i++)
    if (pthread_create(&threads[i], NULL, work, NULL) != 0)
      die("no thread");
  pthread_barrier_wait(&begin);
  sample(c, jobs / 10 + 1, 1);  /* warm */
  for (int i = 0; i < samples; i++) {
    report("broker", sample(c, jobs, 1), "us");
    report("broker_transient", sample(c, jobs, 0), "us");
  }
  /* One at a time, so that each worker gets one. */
  for (int i = 0; i < WORKERS; i++)
    publish(c, "floor", 0, (amqp_bytes_t) { 1, end });
  for (int i = 0; i < WORKERS; i++)
    pthread_join(threads[i], NULL);
  amqp_queue_delete(c, CHANNEL, amqp_cstring_bytes("floor"), 0, 0);
  amqp_connection_close(c, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(c);
  return 0;
}
