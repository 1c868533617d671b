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
#include "value/message.h"
#include "runspace.h"

typedef enum rs_entry_kind {
  RS_ENTRY_PRELOAD,   /* 'open' */
  RS_ENTRY_LOADER,    /* 'message': a function or a source text */
  RS_ENTRY_VARIABLE,  /* 'message': a value */
  RS_ENTRY_MODULE,    /* only 'name' */
  RS_ENTRY_INIT       /* 'message': a function or a source text */
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
  bool warnings;         /* 'warn' writes from the start */
  bool inherited;        /* 'outer' holds while a state is seeded */
  rs_sandbox outer;      /* its names are owned */
  bool contained;        /* 'sandbox', not less strict than 'outer', holds
                            once a state is seeded */
  rs_sandbox sandbox;    /* its names are owned */
  char *path, *cpath;    /* owned, or NULL */
  rs_list entries;       /* rs_entry, owned */
  rs_entry *own;         /* the entry of the library's own module 'parallel';
                            NULL: the program has added another module of that
                            name */
};

/* The opener of the module 'parallel' in a runspace.  Defined by the Lua face,
   a floor above; the state only calls it. */
extern const lua_CFunction rs_own_module;

/* Take all entries out, the module 'parallel' too. */
void rs_initial_state_clear (rs_initial_state *is);

/* Make the initial state constant. */
void rs_initial_state_seal (rs_initial_state *is);

/* True when opening a state with 'is' may run code of scripts: then it can
   fail in one state and succeed in another. */
bool rs_initial_state_runs_scripts (const rs_initial_state *is);

/* True when opening a state with 'is' fails for want of memory only. */
bool rs_initial_state_is_sure (const rs_initial_state *is);

#endif
