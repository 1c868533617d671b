/* SPDX-License-Identifier: MIT */
/*
 * launch.c - with what the children of a pool are started.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* environ */
#endif
#include "reach/launch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "base/words.h"
#include "reach/wall.h"

struct rs_launch {
  char *named;              /* owned: 'runspace' of the options, or NULL */
  char **words;             /* owned: those of bwrap; NULL: no wall */
  char **env;               /* owned; NULL: the variables of this process */
  double cpu_time;
};

/* ------------------------------------------------------------ the programs */

/* The worker's program where none is named. */
static const char *
find_worker (void)
{
  static const char installed[] = RS_BINDIR "/runspace";
  if (rs_process_serves())
    return "/proc/self/exe";
  return access(installed, X_OK) == 0 ? installed : "runspace";
}

/* Find a program as execvp(3) does: its path, which the caller frees, or
   NULL. */
static char *
find_in_path (const char *name)
{
  char path[PATH_MAX];
  const char *at = getenv("PATH");
  struct stat st;
  if (strchr(name, '/') != NULL)
    return realpath(name, NULL);
  while (at != NULL && *at != '\0') {
    const size_t n = strcspn(at, ":");
    const int size = snprintf(path, sizeof path, "%.*s/%s", (int) n, at, name);
    if (n > 0 && size < (int) sizeof path && access(path, X_OK) == 0
        && stat(path, &st) == 0 && S_ISREG(st.st_mode))
      return realpath(path, NULL);
    at += n + (at[n] == ':');
  }
  return NULL;
}

/* --------------------------------------------------------------- variables */

/* True when the list sets the variable, or takes it away: "NAME=value". */
static bool
is_changed (const char *const *changes, const char *variable)
{
  const size_t n = strcspn(variable, "=");
  for (size_t i = 0; changes != NULL && changes[i] != NULL; i++)
    if (strncmp(changes[i], variable, n) == 0
        && (changes[i][n] == '=' || changes[i][n] == '\0'))
      return true;
  return false;
}

/* Make the variables of the children: ours, or none with 'clean', and the
   changes.  NULL: no memory. */
static char **
make_env (const char *const *changes, bool clean)
{
  const char *const *const ours = (const char *const *) environ;
  const size_t most = rs_words_count(ours) + rs_words_count(changes) + 2;
  const char **const list = calloc(most, sizeof *list);
  size_t n = 0;
  if (list == NULL)
    return NULL;
  for (size_t i = 0; !clean && ours != NULL && ours[i] != NULL; i++)
    if (!is_changed(changes, ours[i]))
      list[n++] = ours[i];
  for (size_t i = 0; changes != NULL && changes[i] != NULL; i++)
    if (strchr(changes[i], '=') != NULL
        && !is_changed(changes + i + 1, changes[i]))
      list[n++] = changes[i];
#ifdef __SANITIZE_ADDRESS__
  if (clean)  /* it looks for leaks by a process that it starts */
    list[n++] = "ASAN_OPTIONS=detect_leaks=0";
#endif
  char **const copy = rs_words_copy(list);
  free(list);
  return copy;
}

/* ------------------------------------------------------------------ a pool */

static int
build_wall (rs_launch *l, const rs_pool_options *o, rs_error *err)
{
  char *const bwrap = find_in_path("bwrap");
  const char *const name = l->named != NULL ? l->named : find_worker();
  char *const program = bwrap != NULL ? find_in_path(name) : NULL;
  int status;
  if (bwrap == NULL)
    status = rs_fail(err, RS_EFAILED, "\"strict\" takes the program 'bwrap', "
                                      "which is not in PATH: install the "
                                      "package bubblewrap");
  else if (program == NULL)
    status = rs_fail(err, RS_EFAILED, "cannot start '%.150s' as a worker "
                                      "process: %s", name, strerror(ENOENT));
  else
    status = rs_wall_words(o, bwrap, program,
                           l->named == NULL && rs_process_serves(),
                           &l->words, err);
  free(bwrap);
  free(program);
  return status;
}

int
rs_launch_new (const rs_pool_options *o, rs_launch **out, rs_error *err)
{
  rs_launch *const l = calloc(1, sizeof *l);
  int status = l != NULL ? RS_OK : rs_fail_plain(err, RS_ENOMEM);
  if (status == RS_OK) {
    l->cpu_time = o->cpu_time;
    l->named = o->runspace != NULL ? strdup(o->runspace) : NULL;
    if (o->env != NULL || o->strict)
      l->env = make_env(o->env, o->strict);
    if ((l->named == NULL && o->runspace != NULL)
        || (l->env == NULL && (o->env != NULL || o->strict)))
      status = rs_fail_plain(err, RS_ENOMEM);
  }
  if (status == RS_OK && o->strict)
    status = build_wall(l, o, err);
  if (status == RS_OK)
    *out = l;
  else
    rs_launch_free(l);
  return status;
}

void
rs_launch_free (rs_launch *l)
{
  if (l == NULL)
    return;
  rs_words_free(l->words);
  rs_words_free(l->env);
  free(l->named);
  free(l);
}

bool
rs_launch_is_strict (const rs_launch *l)
{
  return l->words != NULL;
}

/* ----------------------------------------------------------------- a child */

/* Fail, since the program did not start. */
static int
fail_to_start (const rs_launch *l, int code, rs_error *err)
{
  const char *const name = l->words != NULL ? l->words[0] : l->named;
  if (name != NULL)
    return rs_fail(err, RS_EFAILED, "cannot start '%.150s' as a worker "
                                    "process: %s", name, strerror(code));
  return rs_fail(err, RS_EFAILED, "cannot start 'runspace' as a worker "
                                  "process: %s; it is neither in '%s' nor in "
                                  "PATH: give the option runspace = path",
                 strerror(code), RS_BINDIR);
}

static void
close_both (const int fds[2])
{
  for (int i = 0; i < 2; i++)
    if (fds[i] >= 0)
      close(fds[i]);
}

int
rs_launch_start (const rs_launch *l, rs_process *p, rs_errors *errors,
                 int ring, rs_error *err)
{
  static const char *const plain[] = { "runspace", "--worker", NULL };
  const char *const *const words = l->words != NULL
                                 ? (const char *const *) l->words : plain;
  const char *const path = l->words != NULL ? l->words[0]
                         : l->named != NULL ? l->named : find_worker();
  int link[2] = { -1, -1 }, pipe[2] = { -1, -1 };
  *p = (rs_process) RS_NO_PROCESS;
  p->inside = l->words != NULL;
  p->cpu_time = l->cpu_time;
  int code = rs_process_sockets(link);
  if (code == 0 && p->inside)
    code = rs_process_pipe(pipe);
  if (code != 0) {
    close_both(link);
    return rs_fail(err, RS_EFAILED, "cannot make a socket for a worker "
                                    "process: %s", strerror(code));
  }
  code = rs_process_spawn(p, path, words, (const char *const *) l->env,
                          (int [4]) { link[1], link[1], pipe[1], ring });
  close_both((int [2]) { link[1], pipe[1] });
  if (code != 0) {
    close_both((int [2]) { link[0], pipe[0] });
    return fail_to_start(l, code, err);
  }
  p->in = p->out = link[0];
  if (p->inside)
    rs_errors_begin(errors, pipe[0]);
  return RS_OK;
}
