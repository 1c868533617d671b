/* SPDX-License-Identifier: MIT */
/*
 * wall.c - the outer part of the wall: the words of bwrap.
 *
 * Inside, the root is empty but for the system's programs and libraries, the
 * worker's program, and what the options name.  A path is mounted at its own
 * place, those that are shorter first, so that the most exact name counts.
 * What holds the mounts together, and the devices, can be read only: nothing
 * there takes memory that nobody counts.  So can /proc: its settings of the
 * machine belong to root, who is root inside, too, though without a
 * capability.
 *
 * The filter keeps root from starting programs, which RLIMIT_NPROC does not.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* dl_iterate_phdr */
#endif
#include "reach/wall.h"

#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "base/words.h"

/* Directories of the system: its programs, libraries, and Lua's modules. */
static const char *const system_paths[] = {
  "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
  "/nix/store", "/gnu/store"
};

/* Files of the system that programs need, where they are there. */
static const char *const system_files[] = {
  "/etc/ld.so.cache", "/etc/localtime"
};

/* A place inside. */
typedef struct place {
  const char *option;       /* of bwrap: constant */
  char *from, *to;          /* owned; 'from' may be NULL */
  enum { OWN, SYSTEM, READABLE, WRITABLE } rank;
                            /* of those at one place, the highest counts */
} place;

typedef struct places {
  place *list;
  size_t n, room;
  bool failed;              /* no memory */
} places;

static void
add (places *p, const char *option, const char *from, const char *to,
     unsigned rank)
{
  if (p->n == p->room) {
    const size_t room = p->room > 0 ? 2 * p->room : 32;
    place *const list = realloc(p->list, room * sizeof *list);
    if (list == NULL) {
      p->failed = true;
      return;
    }
    p->list = list;
    p->room = room;
  }
  place *const new = &p->list[p->n++];
  *new = (place) {
    .option = option, .from = from != NULL ? strdup(from) : NULL,
    .to = strdup(to), .rank = rank
  };
  p->failed |= new->to == NULL || (from != NULL && new->from == NULL);
}

static void
fini (places *p)
{
  for (size_t i = 0; i < p->n; i++) {
    free(p->list[i].from);
    free(p->list[i].to);
  }
  free(p->list);
}

/* Is the path below one of the system's directories? */
static bool
is_system (const char *path)
{
  for (size_t i = 0; i < sizeof system_paths / sizeof system_paths[0]; i++) {
    const size_t n = strlen(system_paths[i]);
    if (strncmp(path, system_paths[i], n) == 0 && path[n] == '/')
      return true;
  }
  return false;
}

static void
add_system (places *p)
{
  char target[PATH_MAX];
  for (size_t i = 0; i < sizeof system_paths / sizeof system_paths[0]; i++) {
    const char *const path = system_paths[i];
    struct stat st;
    if (lstat(path, &st) != 0)
      continue;
    const ssize_t n = S_ISLNK(st.st_mode)
                    ? readlink(path, target, sizeof target - 1) : -1;
    if (n >= 0) {
      target[n] = '\0';
      add(p, "--symlink", target, path, SYSTEM);
    }
    else if (S_ISDIR(st.st_mode))
      add(p, "--ro-bind", path, path, SYSTEM);
  }
  for (size_t i = 0; i < sizeof system_files / sizeof system_files[0]; i++)
    add(p, "--ro-bind-try", system_files[i], system_files[i], SYSTEM);
  add(p, "--proc", NULL, "/proc", OWN);
  add(p, "--dev", NULL, "/dev", OWN);
}

/* dl_iterate_phdr(3): a library of this program, which the worker will look
   for at the same place. */
static int
add_library (struct dl_phdr_info *info, size_t size, void *ud)
{
  (void) size;
  if (info->dlpi_name != NULL && info->dlpi_name[0] == '/'
      && !is_system(info->dlpi_name))
    add(ud, "--ro-bind-try", info->dlpi_name, info->dlpi_name, SYSTEM);
  return 0;
}

/* True for an absolute path without "." and "..". */
static bool
is_settled (const char *path)
{
  if (path[0] != '/' || strstr(path, "//") != NULL)
    return false;
  for (const char *s = path; (s = strchr(s, '/')) != NULL;) {
    s++;
    if (s[0] == '.' && (s[1] == '\0' || s[1] == '/'
                        || (s[1] == '.' && (s[2] == '\0' || s[2] == '/'))))
      return false;
  }
  return true;
}

/* Add the paths of an option.  One that is absolute keeps its name, even if
   that leads through links. */
static int
add_named (places *p, const char *const *paths, const char *name,
           const char *option, unsigned rank, rs_error *err)
{
  for (size_t i = 0; paths != NULL && paths[i] != NULL; i++) {
    char *const real = realpath(paths[i], NULL);
    struct stat st;
    if (real == NULL || stat(real, &st) != 0) {
      free(real);
      return rs_fail(err, RS_EFAILED, "%s: '%.1000s': %s", name, paths[i],
                     strerror(errno));
    }
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      free(real);
      return rs_fail(err, RS_EFAILED, "%s: '%.1000s' is a device, and devices "
                                      "do not pass the wall of \"strict\"",
                     name, paths[i]);
    }
    char *const to = strdup(is_settled(paths[i]) ? paths[i] : real);
    size_t n = to != NULL ? strlen(to) : 0;
    while (n > 1 && to[n - 1] == '/')
      to[--n] = '\0';
    if (to != NULL)
      add(p, option, real, to, rank);
    else
      p->failed = true;
    free(real);
    free(to);
  }
  return RS_OK;
}

/* qsort(3): shorter places first. */
static int
compare (const void *a, const void *b)
{
  const place *const x = a, *const y = b;
  const size_t n = strlen(x->to), m = strlen(y->to);
  return n != m ? (n > m) - (n < m)
                : (x->rank > y->rank) - (x->rank < y->rank);
}

/* True when a path of the system is inside of one that is named. */
static bool
is_named (const places *p, const place *system)
{
  if (system->rank != SYSTEM)
    return false;
  for (size_t i = 0; i < p->n; i++) {
    const char *const to = p->list[i].to;
    const size_t n = strcmp(to, "/") != 0 ? strlen(to) : 0;
    if (p->list[i].rank >= READABLE && strncmp(system->to, to, n) == 0
        && (system->to[n] == '/' || system->to[n] == '\0'))
      return true;
  }
  return false;
}

/* True when all that is inside may be changed. */
static bool
is_open (const places *p)
{
  bool open = false;
  for (size_t i = 0; i < p->n; i++)
    if (strcmp(p->list[i].to, "/") == 0)
      open = strcmp(p->list[i].option, "--bind") == 0;
  return open;
}

/* Make the words.  NULL: no memory. */
static char **
make_words (places *p, const char *bwrap, const char *program)
{
  static const char *const first[] = {
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net",
    "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent",
    "--new-session", "--cap-drop", "ALL"
  };
  static const char *const closed[] = { "/", "/proc", "/dev" };
  enum { FIRST = sizeof first / sizeof first[0], REST = 9 };
  const char **const words = calloc(1 + FIRST + 3 * p->n + REST + 1,
                                    sizeof *words);
  if (words == NULL)
    return NULL;
  size_t n = 0;
  words[n++] = bwrap;
  for (size_t i = 0; i < FIRST; i++)
    words[n++] = first[i];
  for (size_t i = 0; i < p->n; i++) {
    if (is_named(p, &p->list[i]))
      continue;
    words[n++] = p->list[i].option;
    if (p->list[i].from != NULL)
      words[n++] = p->list[i].from;
    words[n++] = p->list[i].to;
  }
  for (int i = is_open(p); i < 3; i++) {
    words[n++] = "--remount-ro";
    words[n++] = closed[i];
  }
  words[n++] = "--";
  words[n++] = program;
  words[n++] = "--worker";
  char **const copy = rs_words_copy(words);
  free(words);
  return copy;
}

int
rs_wall_words (const rs_pool_options *o, const char *bwrap,
               const char *program, bool serving, char ***out, rs_error *err)
{
  places p = { .list = NULL };
  add_system(&p);
  if (!is_system(program))
    add(&p, "--ro-bind", program, program, OWN);
  if (serving)
    dl_iterate_phdr(add_library, &p);
  int status = add_named(&p, o->readable, "readable", "--ro-bind", READABLE,
                         err);
  if (status == RS_OK)
    status = add_named(&p, o->writable, "writable", "--bind", WRITABLE,
                       err);
  char **words = NULL;
  if (status == RS_OK && !p.failed) {
    qsort(p.list, p.n, sizeof *p.list, compare);
    words = make_words(&p, bwrap, program);
  }
  fini(&p);
  if (status != RS_OK)
    return status;
  if (words == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  *out = words;
  return RS_OK;
}
