/* SPDX-License-Identifier: MIT */
/*
 * names.h - what the marshaller knows of a state: the names of its modules and
 * of the objects in them, and its environment.
 *
 * Modules, C functions and classes are not copied: they travel by name, and
 * the receiver has its own.  A name is the name of a module in
 * 'package.loaded' and up to two fields inside it: "string", "format".
 */
#ifndef RS_NAMES_H
#define RS_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "value/wire.h"

/* ----------------------------------------------------------- environment */

/*
 * Decoded functions are bound to the environment of the job that runs.  Each
 * '_ENV' upvalue that was the globals of its sender is joined to the upvalue
 * of one closure that the state keeps; so one assignment gives all functions a
 * new environment.  In a state where 'rs_env_set' was never called (the
 * host's), the environment is its globals.
 */

/* [-1, +0, m]  Make the table on top the environment: '_ENV' of all decoded
   functions.  Cheap when it was called before. */
void rs_env_set (lua_State *L);

/* [-0, +1, -]  Push the environment that was set last, or the globals. */
void rs_env_push (lua_State *L);

/* [-0, +0, e]  Join '_ENV' of the chunk on top, its first upvalue, to the
   environment, also to those that are set later. */
void rs_env_join (lua_State *L);

/* [-0, +0, e]  Join upvalue 'i' of the function on top to the environment. */
void rs_env_join_upvalue (lua_State *L, int i);

/*
 * Globals that came with functions are given to the environment at once, but
 * for names that the environment or the globals have.  Or they are collected
 * in a table: there the field 1 is false if the functions may do more than
 * read globals, and all other keys are names.  The first value of a name
 * stays.
 */

/* Collect what this thread is given from now on, or no longer; forget what was
   given before. */
void rs_env_collect (bool collect);

/* [-2, +0, m]  Give the value on top under the name below it. */
void rs_env_give (lua_State *L, bool plain);

/* True when something was given since 'rs_env_collect'. */
bool rs_env_is_given (void);

/* [-0, +1, m]  Push the table of what was collected, or nil. */
void rs_env_push_given (lua_State *L);

/* [-1, +0, m]  Collect what the table on top has; 'rs_env_push_given' has
   pushed it before. */
void rs_env_give_all (lua_State *L);

/* ------------------------------------------------------- kept in a state */

/*
 * Each state in which values were encoded or decoded has one userdata in its
 * registry, with these user values.
 */
enum {
  RS_HOME_TRANSFER = 1,  /* the string "__transfer" */
  RS_HOME_NAME,          /* the string "__name" */
  RS_HOME_INDEX,         /* the string "__index" */
  RS_HOME_LOADED,        /* the table 'package.loaded' */
  RS_HOME_ENV,           /* the environment that was set last, or nil */
  RS_HOME_ANCHOR,        /* a function whose upvalue is the environment */
  RS_HOME_HOLDER,        /* the coroutine that has it as a variable */
  RS_HOME_REQUIRE,       /* the 'require' that the state had first, or nil */
  RS_HOME_VALUES = RS_HOME_REQUIRE
};

/* [-0, +1, m]  Push the userdata; make it first, if the state has none. */
void rs_home_push (lua_State *L);

/*
 * [-0, +1, -]  Push the userdata without raising; false, and nothing pushed,
 * when memory ran out.  Allocates only the first time in a state.
 */
bool rs_home_try_push (lua_State *L);

/* [-0, +0, -]  True when the value at 'index' is such a userdata.  A script
   can put anything in its place in the registry, and among its user values. */
bool rs_home_is (lua_State *L, int index);

/* [-1, +0, -]  Set the environment as 'rs_env_set' does, with the userdata at
   'home'.  Needs 2 stack slots. */
void rs_home_set_env (lua_State *L, int home);

/* [-0, +0, -]  Set the last environment again, if code that ran since has
   assigned to '_ENV', which all functions share.  False when a script has
   taken from the userdata what that needs.  Needs 4 stack slots. */
bool rs_home_restore_env (lua_State *L, int home);

/* The address of the environment that was set last, or NULL; the userdata is
   at 'home'. */
const void *rs_home_env (lua_State *L, int home);

/* ---------------------------------------------------------------- a name */

typedef struct rs_name {
  unsigned parts;                        /* 0: the object has no name */
  const char *part[RS_WIRE_NAME_PARTS];  /* lent */
  size_t size[RS_WIRE_NAME_PARTS];
} rs_name;

/*
 * The place where an encoder has found an object.  The addresses may be stale,
 * so each find is proved before it is used.
 */
typedef struct rs_known {
  const void *object;
  const void *module;   /* module that has it; NULL: the object has no name */
} rs_known;

typedef struct rs_names {
  rs_known *known;      /* hash by address */
  size_t room;          /* a power of two, or 0 */
  size_t count;
  const struct rs_names *fields;  /* tables that the state keeps, see 'look' */
  bool checked;         /* 'fields' is of this message's time */
  bool anew;            /* look again, even if no module is new */
} rs_names;

/* The kinds of objects that are looked for. */
enum {
  RS_NAMES_TABLE,       /* a module or a class */
  RS_NAMES_CFUNCTION
};

void rs_names_fini (rs_names *n);

/* Forget all places, keep the memory. */
void rs_names_clear (rs_names *n);

/*
 * True when the table at the address 'object' may have a name: it may be a
 * module, a table in the fields of one or in the fields of such a table, or a
 * class that was found before.  'rs_names_find' tells.  The state keeps the
 * addresses of those tables, and looks for them anew when there are new
 * modules, or with 'anew'.  'status' becomes RS_OK or RS_ENOMEM.  Needs 8
 * stack slots; never raises.
 */
bool rs_names_suspects (rs_names *n, lua_State *L, int home,
                        const void *object, int *status);

/* The slot of 'object', or the free slot where it belongs. */
static inline rs_known *
rs_known_slot (rs_known *known, size_t room, const void *object)
{
  const uint64_t hash = (uint64_t) (uintptr_t) object * 0x9e3779b97f4a7c15u;
  size_t i = (size_t) (hash >> 32) & (room - 1);
  while (known[i].object != NULL && known[i].object != object)
    i = (i + 1) & (room - 1);
  return &known[i];
}

/* True when 'rs_names_suspects' would say no, and nothing has to be looked for
   first: most tables have no name, and are asked here. */
static inline bool
rs_names_excludes (const rs_names *n, const void *object)
{
  if (!n->checked)
    return false;
  const rs_names *const f = n->fields;
  if (f->count > 0 && rs_known_slot(f->known, f->room, object)->object != NULL)
    return false;
  if (n->count == 0)
    return true;
  const rs_known *const slot = rs_known_slot(n->known, n->room, object);
  return slot->object == NULL || slot->module == NULL;
}

/*
 * [-0, +0, -]  Find the name of the object at 'index'.  Of several names, the
 * one with the fewest parts wins, then the shortest, then the first in the
 * alphabet.  The texts belong to the state and stay until Lua code runs.
 * RS_OK or RS_ENOMEM.  Needs 8 stack slots.
 */
int rs_names_find (rs_names *n, lua_State *L, int home, int index, int kind,
                   rs_name *out);

/*
 * [-0, +1, m]  Push the table that has this name in this state, or nil.  With
 * 'load', load its module if need be.  False if the module is not loaded.
 */
bool rs_name_try_push (lua_State *L, const rs_name *name, bool load);

/*
 * [-0, +1, e]  Push the object that has this name in this state; load its
 * module if need be.  'user' tells in the error text who needs it: "a
 * transferred value".
 */
void rs_name_push (lua_State *L, const rs_name *name, const char *user);

#endif
