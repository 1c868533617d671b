/* SPDX-License-Identifier: MIT */
/*
 * initial_state.h - what a runspace starts with.
 *
 * A list of entries in the order of adding, and a few plain settings.  An
 * initial state is built by one thread; 'rs_initial_state_seal' makes it
 * constant, and from then on any thread may read it.
 */
#ifndef RS_INITIAL_STATE_H
#define RS_INITIAL_STATE_H

#include "base/list.h"
#include "value/marshal.h"
#include "runspace.h"

typedef enum rs_entry_kind {
  RS_ENTRY_PRELOAD,   /* 'open' */
  RS_ENTRY_LOADER,    /* 'message': a function or a chunk of source */
  RS_ENTRY_VARIABLE,  /* 'message': a value */
  RS_ENTRY_MODULE,    /* only 'name' */
  RS_ENTRY_INIT       /* 'message': a function or a chunk of source */
} rs_entry_kind;

typedef struct rs_entry {
  rs_list link;
  rs_entry_kind kind;
  unsigned flags;        /* RS_PRELOAD_ */
  lua_CFunction open;
  rs_message *message;   /* owned, or NULL */
  char name[];
} rs_entry;

struct rs_initial_state {
  _Atomic unsigned refs;
  _Atomic bool sealed;   /* set by the thread that opens a pool with it */
  unsigned libs;         /* RS_LIB_ */
  bool warnings;         /* 'warn' speaks */
  bool inherited;        /* a sandbox holds from the beginning: */
  rs_sandbox outer;      /* its names are owned */
  bool contained;        /* one holds at the end, and not less strictly: */
  rs_sandbox sandbox;    /* its names are owned */
  char *path, *cpath;    /* owned, or NULL */
  rs_list entries;       /* rs_entry, owned */
  rs_entry *own;         /* of them, the module 'parallel' as it is unless the
                            program has another one; or NULL */
};

/* The opener of the module 'parallel' in a runspace.  The Lua face, which is
   above, has it: nothing here knows what it does. */
extern const lua_CFunction rs_own_module;

/* No more changes. */
void rs_initial_state_seal (rs_initial_state *is);

/* Opening a state with it runs code of scripts, or may: it can fail in one
   state and not in another. */
bool rs_initial_state_runs_scripts (const rs_initial_state *is);

/* Opening a state with it fails for want of memory only. */
bool rs_initial_state_is_sure (const rs_initial_state *is);

#endif
