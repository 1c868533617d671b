/* SPDX-License-Identifier: MIT */
/*
 * initial_state.c - what a runspace starts with.
 */
#include "initial_state.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

rs_initial_state *
rs_initial_state_new (void)
{
  rs_initial_state *const is = calloc(1, sizeof *is);
  if (is == NULL)
    return NULL;
  atomic_init(&is->refs, 1);
  is->libs = RS_LIB_ALL;
  rs_list_init(&is->entries);
  return is;
}

rs_initial_state *
rs_initial_state_ref (rs_initial_state *is)
{
  if (is != NULL)
    atomic_fetch_add_explicit(&is->refs, 1, memory_order_relaxed);
  return is;
}

static void
free_names (char **names)
{
  for (size_t i = 0; names != NULL && names[i] != NULL; i++)
    free(names[i]);
  free(names);
}

/* A copy of the array; NULL when out of memory. */
static char **
copy_names (const char *const *names)
{
  size_t n = 0;
  while (names[n] != NULL)
    n++;
  char **const copy = calloc(n + 1, sizeof *copy);
  for (size_t i = 0; copy != NULL && i < n; i++) {
    if ((copy[i] = strdup(names[i])) == NULL) {
      free_names(copy);
      return NULL;
    }
  }
  return copy;
}

static void
entry_free (rs_entry *entry)
{
  rs_message_unref(entry->message);
  free(entry);
}

void
rs_initial_state_unref (rs_initial_state *is)
{
  /* Release our reads and writes to the thread that frees. */
  if (is == NULL
      || atomic_fetch_sub_explicit(&is->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_list *link;
  while ((link = rs_list_shift(&is->entries)) != NULL)
    entry_free(RS_LIST_ENTRY(link, rs_entry, link));
  free_names((char **) (uintptr_t) is->sandbox.c_modules);
  free(is->path);
  free(is->cpath);
  free(is);
}

void
rs_initial_state_seal (rs_initial_state *is)
{
  atomic_store(&is->sealed, true);
}

/* Append an entry; owns 'message' in each case. */
static int
add (rs_initial_state *is, rs_entry_kind kind, const char *name,
     rs_message *message, rs_entry **out)
{
  if (atomic_load(&is->sealed) || name == NULL) {
    rs_message_unref(message);
    return RS_EINVAL;
  }
  const size_t length = strlen(name) + 1;
  rs_entry *const entry = calloc(1, sizeof *entry + length);
  if (entry == NULL) {
    rs_message_unref(message);
    return RS_ENOMEM;
  }
  entry->kind = kind;
  entry->message = message;
  memcpy(entry->name, name, length);
  rs_list_push(&is->entries, &entry->link);
  if (out != NULL)
    *out = entry;
  return RS_OK;
}

/* [-1, +0, -]  'add' with the value on top of the stack as message. */
static int
add_value (rs_initial_state *is, rs_entry_kind kind, const char *name,
           lua_State *L, rs_error *err)
{
  rs_message *message;
  int status = rs_encode(L, 1, &message, err);
  lua_pop(L, 1);
  if (status != RS_OK)
    return status;
  status = add(is, kind, name, message, NULL);
  return status == RS_OK ? RS_OK : rs_fail_plain(err, status);
}

int
rs_initial_state_set_libs (rs_initial_state *is, unsigned libs)
{
  if (atomic_load(&is->sealed) || (libs & ~(unsigned) RS_LIB_ALL) != 0)
    return RS_EINVAL;
  is->libs = libs;
  return RS_OK;
}

int
rs_initial_state_set_warnings (rs_initial_state *is, bool on)
{
  if (atomic_load(&is->sealed))
    return RS_EINVAL;
  is->warnings = on;
  return RS_OK;
}

int
rs_initial_state_set_sandbox (rs_initial_state *is, const rs_sandbox *sandbox)
{
  if (atomic_load(&is->sealed) || sandbox->files < RS_FILES_ALL
      || sandbox->files > RS_FILES_NONE
      || (sandbox->forbid & ~(unsigned) RS_FORBID_ALL) != 0)
    return RS_EINVAL;
  char **names = NULL;
  if (sandbox->c_modules != NULL
      && (names = copy_names(sandbox->c_modules)) == NULL)
    return RS_ENOMEM;
  free_names((char **) (uintptr_t) is->sandbox.c_modules);
  is->sandbox = *sandbox;
  is->sandbox.c_modules = (const char *const *) names;
  is->contained = true;
  return RS_OK;
}

static int
set_text (rs_initial_state *is, char **where, const char *text)
{
  if (atomic_load(&is->sealed))
    return RS_EINVAL;
  char *copy = NULL;
  if (text != NULL && (copy = strdup(text)) == NULL)
    return RS_ENOMEM;
  free(*where);
  *where = copy;
  return RS_OK;
}

int
rs_initial_state_set_path (rs_initial_state *is, const char *path)
{
  return set_text(is, &is->path, path);
}

int
rs_initial_state_set_cpath (rs_initial_state *is, const char *cpath)
{
  return set_text(is, &is->cpath, cpath);
}

int
rs_initial_state_add_preload (rs_initial_state *is, const char *name,
                              lua_CFunction open, unsigned flags)
{
  if (open == NULL || (flags & ~(unsigned) RS_PRELOAD_GLOBAL) != 0)
    return RS_EINVAL;
  rs_entry *entry;
  const int status = add(is, RS_ENTRY_PRELOAD, name, NULL, &entry);
  if (status != RS_OK)
    return status;
  entry->open = open;
  entry->flags = flags;
  return RS_OK;
}

int
rs_initial_state_add_loader (rs_initial_state *is, const char *name,
                             lua_State *L, rs_error *err)
{
  return add_value(is, RS_ENTRY_LOADER, name, L, err);
}

int
rs_initial_state_add_variable (rs_initial_state *is, const char *name,
                               lua_State *L, rs_error *err)
{
  return add_value(is, RS_ENTRY_VARIABLE, name, L, err);
}

int
rs_initial_state_add_module (rs_initial_state *is, const char *name)
{
  return add(is, RS_ENTRY_MODULE, name, NULL, NULL);
}

int
rs_initial_state_set_init (rs_initial_state *is, lua_State *L, rs_error *err)
{
  return add_value(is, RS_ENTRY_INIT, "init", L, err);
}
