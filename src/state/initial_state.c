/* SPDX-License-Identifier: MIT */
/*
 * initial_state.c - what a runspace starts with.
 */
#include "state/initial_state.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "value/encoder.h"
#include "value/outbox.h"

#define OWN_MODULE "parallel"

static int add (rs_initial_state *is, rs_entry_kind kind, const char *name,
                rs_message *message, rs_entry **out);
static void entry_free (rs_entry *entry);

rs_initial_state *
rs_initial_state_new (void)
{
  rs_initial_state *const is = calloc(1, sizeof *is);
  if (is == NULL)
    return NULL;
  atomic_init(&is->refs, 1);
  is->libs = RS_LIB_ALL;
  rs_list_init(&is->entries);
  /* A process has one engine, so each runspace has the module 'parallel' of
     this engine. */
  if (add(is, RS_ENTRY_PRELOAD, OWN_MODULE, NULL, &is->own) != RS_OK) {
    free(is);
    return NULL;
  }
  is->own->open = rs_own_module;
  is->own->flags = RS_PRELOAD_SURE;
  return is;
}

rs_initial_state *
rs_initial_state_ref (rs_initial_state *is)
{
  if (is != NULL)
    atomic_fetch_add_explicit(&is->refs, 1, memory_order_relaxed);
  return is;
}

/* --------------------------------------------------------------- sandboxes */

/* Free the names of the sandbox. */
static void
fini_sandbox (rs_sandbox *sandbox)
{
  char **const names = (char **) (uintptr_t) sandbox->c_modules;
  for (size_t i = 0; names != NULL && names[i] != NULL; i++)
    free(names[i]);
  free(names);
  sandbox->c_modules = NULL;
}

/* May the C module 'name' be loaded in the sandbox? */
static bool
allows (const rs_sandbox *sandbox, const char *name)
{
  const char *const *names = sandbox->c_modules;
  if (!(sandbox->forbid & RS_FORBID_C_MODULES))
    return true;
  while (names != NULL && *names != NULL && strcmp(*names, name) != 0)
    names++;
  return names != NULL && *names != NULL;
}

/* Make '*out' forbid all that 'a' or 'b' forbids; its names are owned by the
   caller.  RS_OK or RS_ENOMEM. */
static int
combine (const rs_sandbox *a, const rs_sandbox *b, rs_sandbox *out)
{
  const char *const *const list =
    a->forbid & RS_FORBID_C_MODULES ? a->c_modules : b->c_modules;
  rs_sandbox both = {
    .files = a->files > b->files ? a->files : b->files,
    .forbid = a->forbid | b->forbid,
  };
  size_t n = 0;
  while (list != NULL && list[n] != NULL)
    n++;
  char **const names = n > 0 ? calloc(n + 1, sizeof *names) : NULL;
  both.c_modules = (const char *const *) names;
  if (n > 0 && names == NULL)
    return RS_ENOMEM;
  for (size_t i = 0, used = 0; i < n; i++) {
    if (!allows(a, list[i]) || !allows(b, list[i]))
      continue;
    if ((names[used++] = strdup(list[i])) == NULL) {
      fini_sandbox(&both);
      return RS_ENOMEM;
    }
  }
  *out = both;
  return RS_OK;
}

/* -------------------------------------------------------------- life cycle */

static void
entry_free (rs_entry *entry)
{
  rs_message_unref(entry->message);
  free(entry);
}

void
rs_initial_state_clear (rs_initial_state *is)
{
  rs_list *link;
  while ((link = rs_list_shift(&is->entries)) != NULL)
    entry_free(RS_LIST_ENTRY(link, rs_entry, link));
  is->own = NULL;
}

void
rs_initial_state_unref (rs_initial_state *is)
{
  /* Release our reads and writes to the thread that frees. */
  if (is == NULL
      || atomic_fetch_sub_explicit(&is->refs, 1, memory_order_acq_rel) != 1)
    return;
  rs_initial_state_clear(is);
  fini_sandbox(&is->outer);
  fini_sandbox(&is->sandbox);
  free(is->path);
  free(is->cpath);
  free(is);
}

void
rs_initial_state_seal (rs_initial_state *is)
{
  atomic_store(&is->sealed, true);
}

bool
rs_initial_state_runs_scripts (const rs_initial_state *is)
{
  for (const rs_list *link = is->entries.next; link != &is->entries;
       link = link->next)
    if (RS_LIST_ENTRY(link, rs_entry, link)->kind != RS_ENTRY_PRELOAD)
      return true;
  return false;
}

bool
rs_initial_state_is_sure (const rs_initial_state *is)
{
  for (const rs_list *link = is->entries.next; link != &is->entries;
       link = link->next) {
    const rs_entry *const e = RS_LIST_ENTRY(link, rs_entry, link);
    if (e->kind != RS_ENTRY_PRELOAD
        || (e->flags & (RS_PRELOAD_GLOBAL | RS_PRELOAD_SURE))
           == RS_PRELOAD_GLOBAL)
      return false;
  }
  return true;
}

/* Append an entry; takes over the reference 'message' in each case. */
static int
add (rs_initial_state *is, rs_entry_kind kind, const char *name,
     rs_message *message, rs_entry **out)
{
  if (is == NULL || atomic_load(&is->sealed) || name == NULL) {
    rs_message_unref(message);
    return RS_EINVAL;
  }
  const size_t length = strlen(name) + 1;
  rs_entry *const entry = calloc(1, sizeof *entry + length);
  if (entry == NULL) {
    rs_message_unref(message);
    return RS_ENOMEM;
  }
  if (is->own != NULL && strcmp(name, OWN_MODULE) == 0
      && (kind == RS_ENTRY_PRELOAD || kind == RS_ENTRY_LOADER)) {
    rs_list_remove(&is->own->link);  /* replaced by the program's entry */
    entry_free(is->own);
    is->own = NULL;
  }
  entry->kind = kind;
  entry->message = message;
  memcpy(entry->name, name, length);
  rs_list_push(&is->entries, &entry->link);
  if (out != NULL)
    *out = entry;
  return RS_OK;
}

/* [-0, +0, -]  Make a message of the value on top of the stack, with the
   globals that functions in it read. */
static int
encode (lua_State *L, rs_message **out, rs_error *err)
{
  rs_encoder e;
  if (rs_outbox_of(L) == NULL)
    return rs_fail_plain(err, RS_ENOMEM);
  rs_encoder_init(&e, 0);
  e.gives = true;
  int status = rs_encode_value(&e, L, lua_gettop(L), NULL);
  if (status != RS_OK)
    rs_fail(err, status, "%s", e.error);
  else if ((*out = rs_encoder_message(&e)) == NULL)
    status = rs_fail_plain(err, RS_ENOMEM);
  rs_encoder_fini(&e);
  return status;
}

/* [-1, +0, -]  Append an entry whose message has the value on top of the
   stack. */
static int
add_value (rs_initial_state *is, rs_entry_kind kind, const char *name,
           lua_State *L, rs_error *err)
{
  rs_message *message;
  int status = rs_check_values(L, 1, err);
  if (status != RS_OK)
    return status;
  status = is == NULL ? rs_fail_null(err, "is")
         : name == NULL ? rs_fail_null(err, "name")
         : atomic_load(&is->sealed)
           ? rs_fail(err, RS_EINVAL, "the initial state is constant since a "
                                     "pool has it: make a new one")
         : encode(L, &message, err);
  lua_pop(L, 1);
  if (status != RS_OK)
    return status;
  status = add(is, kind, name, message, NULL);
  return status == RS_OK ? RS_OK : rs_fail_plain(err, status);
}

int
rs_initial_state_set_libs (rs_initial_state *is, unsigned libs)
{
  if (is == NULL || atomic_load(&is->sealed)
      || (libs & ~(unsigned) RS_LIB_ALL) != 0)
    return RS_EINVAL;
  is->libs = libs;
  return RS_OK;
}

int
rs_initial_state_set_warnings (rs_initial_state *is, bool on)
{
  if (is == NULL || atomic_load(&is->sealed))
    return RS_EINVAL;
  is->warnings = on;
  return RS_OK;
}

int
rs_initial_state_set_sandbox (rs_initial_state *is, const rs_sandbox *sandbox)
{
  rs_sandbox both, room;
  if (is == NULL || atomic_load(&is->sealed)
      || (sandbox = rs_check_sandbox(sandbox, &room, NULL)) == NULL)
    return RS_EINVAL;
  const int status = combine(&is->outer, sandbox, &both);
  if (status != RS_OK)
    return status;
  fini_sandbox(&is->sandbox);
  is->sandbox = both;
  is->contained = true;
  return RS_OK;
}

int
rs_initial_state_inherit (rs_initial_state *is, lua_State *L)
{
  rs_sandbox given, outer, both;
  if (is == NULL || L == NULL || atomic_load(&is->sealed))
    return RS_EINVAL;
  if (!rs_sandbox_get(L, &given))
    return RS_OK;
  int status = combine(&given, &is->outer, &outer);
  if (status != RS_OK)
    return status;
  status = combine(&outer, &is->sandbox, &both);
  if (status != RS_OK) {
    fini_sandbox(&outer);
    return status;
  }
  fini_sandbox(&is->outer);
  fini_sandbox(&is->sandbox);
  is->outer = outer;
  is->sandbox = both;
  is->inherited = is->contained = true;
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
  return is != NULL ? set_text(is, &is->path, path) : RS_EINVAL;
}

int
rs_initial_state_set_cpath (rs_initial_state *is, const char *cpath)
{
  return is != NULL ? set_text(is, &is->cpath, cpath) : RS_EINVAL;
}

int
rs_initial_state_add_preload (rs_initial_state *is, const char *name,
                              lua_CFunction open, unsigned flags)
{
  const unsigned known = RS_PRELOAD_GLOBAL | RS_PRELOAD_SURE;
  if (open == NULL || (flags & ~known) != 0)
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
