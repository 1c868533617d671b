/* SPDX-License-Identifier: MIT */
/*
 * serve.c - 'runspace --serve': work for a queue of a broker.
 *
 * SIGTERM and SIGINT end the program after the calls that run, and a second
 * one at once.  A thread of its own waits for them; the main thread waits for
 * the server.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* sigwait */
#endif
#include "program/serve.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/escape.h"
#include "runspace.h"

static const char usage[] =
  "usage: %s --serve URL --queue NAME [options]\n"
  "URL is amqp[s]://user@host/vhost; the password is that of the URL, of the\n"
  "file that '?passwordfile=' names, or RUNSPACE_BROKER_PASSWORD.  Options:\n"
  "  -j N            run N calls at a time; default, one for each CPU\n"
  "  --key FILE      run what is signed by the key in this file alone\n"
  "  --once          end after one call\n"
  "  --max-jobs N    end after N calls\n"
  "  --idle SECONDS  end when no call has come for so long\n";

static int
complain (const char *name, const char *what, const char *value)
{
  char plain[400];
  const size_t size = strlen(value) < 300 ? strlen(value) : 300;
  rs_escape(value, size, plain, sizeof plain);
  fprintf(stderr, "%s: %s '%s'\n", name, what, plain);
  fprintf(stderr, usage, name);
  return EXIT_FAILURE;
}

/* rs_server_options.log */
static void
put_line (void *ud, const char *line)
{
  char plain[1200];
  (void) ud;
  rs_escape(line, strlen(line), plain, sizeof plain);
  fprintf(stderr, "runspace: %s\n", plain);
}

/* Read a whole number from 1 on. */
static bool
read_number (const char *text, uint64_t most, uint64_t *out)
{
  char *end;
  if (text[0] == '\0' || text[strspn(text, "0123456789")] != '\0')
    return false;
  errno = 0;
  const unsigned long long n = strtoull(text, &end, 10);
  *out = n;
  return errno == 0 && n >= 1 && n <= most;
}

static bool
read_seconds (const char *text, double *out)
{
  char *end;
  *out = strtod(text, &end);
  return end != text && *end == '\0' && *out > 0 && *out < 1e9;
}

/* Take the password out of the argument, which others can see. */
static char *
take_url (char *argument)
{
  char *const url = strdup(argument);
  char *const at = strrchr(argument, '@');
  char *const start = strstr(argument, "://");
  char *const colon = start != NULL ? strchr(start + 3, ':') : NULL;
  if (at != NULL && colon != NULL && colon < at)
    memset(colon + 1, 'x', (size_t) (at - colon - 1));
  return url;
}

/* Read the arguments into 'o'; 0, or an exit status. */
static int
read_arguments (int argc, char **argv, rs_server_options *o)
{
  const char *const name = argv[0];
  for (int i = 1; i < argc; i++) {
    const char *const option = argv[i];
    uint64_t n = 0;
    if (strcmp(option, "--once") == 0) {
      o->max_jobs = 1;
      continue;
    }
    char *const value = strncmp(option, "-j", 2) == 0 && option[2] != '\0'
                      ? argv[i] + 2 : i + 1 < argc ? argv[++i] : NULL;
    const bool is_j = strncmp(option, "-j", 2) == 0;
    if (value == NULL)
      return complain(name, "an argument is missing behind", option);
    if (is_j && !read_number(value, 4096, &n))
      return complain(name, "'-j' needs an integer from 1 to 4096, not",
                      value);
    if (is_j)
      o->workers = (unsigned) n;
    else if (strcmp(option, "--serve") == 0)
      o->broker = take_url(value);
    else if (strcmp(option, "--queue") == 0)
      o->queue = value;
    else if (strcmp(option, "--key") == 0)
      o->key = value;
    else if (strcmp(option, "--max-jobs") == 0) {
      if (!read_number(value, INT64_MAX, &o->max_jobs))
        return complain(name, "'--max-jobs' needs a positive integer, not",
                        value);
    }
    else if (strcmp(option, "--idle") == 0) {
      if (!read_seconds(value, &o->idle))
        return complain(name, "'--idle' needs a positive number of seconds, "
                              "not", value);
    }
    else
      return complain(name, "unrecognized option", option);
  }
  return o->queue != NULL
       ? 0 : complain(name, "the name of a queue is needed:", "--queue");
}

/* Wait for signals: the first stops the server, the second ends the
   process. */
static void *
wait_for_signals (void *server)
{
  sigset_t set;
  int number;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigwait(&set, &number);
  put_line(NULL, "ending after the calls that run; again: at once");
  rs_server_stop(server);
  sigwait(&set, &number);
  put_line(NULL, "ended at once");
  _exit(128 + number);
}

static int
serve (const rs_server_options *options)
{
  rs_server *server;
  rs_error err;
  sigset_t set;
  pthread_t thread;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  if (options->key == NULL)
    put_line(NULL, "no key is given (--key FILE): whoever can write to the "
                   "queue runs code here, as this user");
  int status = rs_server_open(options, &server, &err);
  if (status == RS_OK) {
    if (pthread_create(&thread, NULL, wait_for_signals, server) == 0)
      pthread_detach(thread);
    status = rs_server_wait(server, RS_FOREVER, &err);
    rs_server_close(server);
  }
  if (status != RS_OK)
    put_line(NULL, err.text);
  return status == RS_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
rs_program_serve (int argc, char **argv)
{
  if (argc < 2 || strcmp(argv[1], "--serve") != 0)
    return -1;
  rs_server_options options = { .size = sizeof options, .log = put_line };
  const int status = read_arguments(argc, argv, &options);
  const int result = status == 0 ? serve(&options) : status;
  free((char *) (uintptr_t) options.broker);
  return result;
}
