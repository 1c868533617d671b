/* SPDX-License-Identifier: MIT */
/*
 * names.h - what the marshaller knows of a state: the names of its modules
 * and of what they hold, and its environment.
 *
 * A module, a C function and a class are not copied: they travel by name,
 * and the receiver has its own.  A name is the name of a module in
 * 'package.loaded' and up to two fields inside it: "string", "format".
 */
#ifndef RS_NAMES_H
#define RS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

#include "value/wire.h"

/* ----------------------------------------------------------- environment */

/*
 * Functions are rebound to the environment of the job that runs: each
 * '_ENV' upvalue that was the globals of its sender is joined to the
 * upvalue of one closure that the state keeps, so that a new environment
 * for all of them is one assignment.  A state that never called these (the
 * host's) decodes to its globals.
 */

/* [-1, +0, m]  Let the environment table on top be the one that '_ENV' of
   decoded functions is.  Cheap when it was set before. */
void rs_env_set (lua_State *L);

/* [-0, +1, -]  Push the environment set last, or the globals. */
void rs_env_push (lua_State *L);

/* [-0, +0, e]  Join '_ENV' of the chunk on top, its first upvalue, to the
   environment, whatever it will be. */
void rs_env_join (lua_State *L);

/* [-0, +0, e]  Join upvalue 'i' of the function on top to the environment. */
void rs_env_join_upvalue (lua_State *L, int i);

/* ------------------------------------------------------- kept in a state */

/*
 * Each state that was ever encoded from or decoded to has one userdata in
 * its registry, whose user values are these.
 */
enum {
  RS_HOME_TRANSFER = 1,  /* the string "__transfer" */
  RS_HOME_NAME,          /* the string "__name" */
  RS_HOME_INDEX,         /* the string "__index" */
  RS_HOME_LOADED,        /* the table 'package.loaded' */
  RS_HOME_ENV,           /* the environment that was set last, or nil */
  RS_HOME_ANCHOR,        /* a function whose upvalue is the environment */
  RS_HOME_HOLDER,        /* the coroutine that has it as a variable */
  RS_HOME_REQUIRE,       /* the 'require' of the state's beginning, or nil */
  RS_HOME_VALUES = RS_HOME_REQUIRE
};

/* [-0, +1, m]  Push the userdata; make it first, if there is none. */
void rs_home_push (lua_State *L);

/*
 * [-0, +1, -]  The same without raising: false, and nothing pushed, when
 * memory ran out.  Allocates only the first time in a state.
 */
bool rs_home_try_push (lua_State *L);

/* [-1, +0, -]  'rs_env_set' for who has the userdata at 'home'.  Needs 2 stack
   slots. */
void rs_home_set_env (lua_State *L, int home);

/* [-0, +0, -]  Set the environment again that was set last, if code that ran
   since has assigned to '_ENV', which all functions share.  Needs 4 stack
   slots. */
void rs_home_restore_env (lua_State *L, int home);

/* Address of the environment of the userdata at 'home', or NULL. */
const void *rs_home_env (lua_State *L, int home);

/* ---------------------------------------------------------------- a name */

typedef struct rs_name {
  unsigned parts;                        /* 0: it has no name */
  const char *part[RS_WIRE_NAME_PARTS];  /* lent */
  size_t size[RS_WIRE_NAME_PARTS];
} rs_name;

/*
 * What an encoder remembers of names: where an object was found.  These are
 * addresses and may be stale, so each find is proved before it is used.
 */
typedef struct rs_known {
  const void *object;
  const void *module;   /* it is in this one; NULL: it has no name */
} rs_known;

typedef struct rs_names {
  rs_known *known;      /* hash by address */
  size_t room;          /* a power of two, or 0 */
  size_t count;
  const struct rs_names *fields;  /* what the state keeps, see 'look' */
  bool checked;         /* that is of this message's time, */
  bool anew;            /*   and shall be, also where no module is new */
} rs_names;

/* What to look for. */
enum {
  RS_NAMES_TABLE,       /* a module or a class */
  RS_NAMES_CFUNCTION
};

void rs_names_fini (rs_names *n);

/* Forget all, keep the memory. */
void rs_names_clear (rs_names *n);

/*
 * True when the table at the address 'object' may be a module, a table in the
 * fields of one, or in theirs, or a class that was found before: ask
 * 'rs_names_find'.  The state keeps the addresses of those tables; it looks
 * for them when there are modules that were not there the last time, or with
 * 'anew'.  'status' is RS_OK or RS_ENOMEM.  Needs 8 stack slots; never raises.
 */
bool rs_names_suspects (rs_names *n, lua_State *L, int home,
                        const void *object, int *status);

/*
 * [-0, +0, -]  Find the name of the object at 'index'.  Among several, one
 * with fewer parts wins, then the shorter, then the alphabetically first.
 * The texts belong to the state and are good until Lua code runs.
 * RS_OK or RS_ENOMEM.  Needs 8 stack slots.
 */
int rs_names_find (rs_names *n, lua_State *L, int home, int index, int kind,
                   rs_name *out);

/*
 * [-0, +1, m]  Push the table that 'name' is in this state, or nil if there is
 * none; load its module if need be and 'load'.  False if it is not loaded.
 */
bool rs_name_try_push (lua_State *L, const rs_name *name, bool load);

/*
 * [-0, +1, e]  Push what 'name' is in this state; load its module if need
 * be.  'user' is who needs it, for the message: "a transferred value".
 */
void rs_name_push (lua_State *L, const rs_name *name, const char *user);

#endif
