/* SPDX-License-Identifier: MIT */
/*
 * lhandle.h - userdata that hold a reference to an object of the library.
 *
 * A handle is a userdata that holds an 'rs_handle'.  Its first field points to
 * the object, and is NULL when the handle is closed.  The second field is the
 * address of the type's name, which no userdata of another library holds
 * there.  To compare that address takes a tenth of the time that a look into
 * the metatable takes.
 *
 * Functions that the Lua part adds to the table of methods of a type are
 * methods of every handle of that type.
 */
#ifndef RS_LHANDLE_H
#define RS_LHANDLE_H

#include <stdint.h>

#include <lua.h>
#include <lauxlib.h>

#include "runspace.h"

/* Names of the types of handles.  The registry has the metatable of a type
   under its name, and under the address of its name; to find it by address
   takes a fifth of the time. */
extern const char rs_type_pool[], rs_type_job[], rs_type_batch[],
                  rs_type_initial_state[];

#define RS_POOL_TYPE rs_type_pool
#define RS_JOB_TYPE rs_type_job
#define RS_BATCH_TYPE rs_type_batch
#define RS_INITIAL_STATE_TYPE rs_type_initial_state

typedef struct rs_handle {
  void *object;           /* NULL: the handle is closed, or has none yet */
  const char *type;       /* RS_..._TYPE, compared by address */
  unsigned born : 29;     /* 'rs_forks' when the handle was made; constant */
  bool got : 1;           /* job: its results were taken */
  bool kept : 1;          /* job: its results were decoded and not taken yet;
                             the registry has them under the address of this
                             handle */
  bool special : 1;       /* pool: it has limits, or streams of its own */
} rs_handle;

/* Return 'n', or SIZE_MAX where a 'size_t' has too few bits for 'n'. */
static inline size_t
rs_clip_size (uint64_t n)
{
  return n < SIZE_MAX ? (size_t) n : SIZE_MAX;
}

/* Return the value of 'born' for a handle that is made now. */
static inline unsigned
rs_handle_born (void)
{
  return rs_forks() & 0x1fffffff;
}

/* Tell whether the handle was made before a fork(2), so that its object
   belongs to the parent process. */
static inline bool
rs_handle_foreign (const rs_handle *handle)
{
  return handle->born != rs_handle_born();
}

/*
 * [-0, +1, m]  Push a new handle of 'type', without an object, and with
 * 'values' user values.  Return the address at which the caller stores the
 * pointer to the object.
 */
void **rs_handle_new (lua_State *L, const char *type, int values);

/* [-0, +0, -]  Return the address of the pointer to the object in the handle
   at 'index'; NULL if the value there is no handle of 'type'. */
void **rs_handle_test (lua_State *L, int index, const char *type);

/* [-0, +0, v]  Return the object of the handle at argument 'arg', NULL if the
   handle is closed.  Raise if the argument is no handle of 'type', or if the
   object belongs to another process. */
void *rs_handle_get (lua_State *L, int arg, const char *type);

/* [-0, +0, v]  'rs_handle_get'; raise "<type> is closed" for NULL. */
void *rs_handle_check (lua_State *L, int arg, const char *type);

/* [-0, +1, v]  Push the table that the registry has under the address 'key'.
   Raise if a script that has the registry has put another value there. */
void rs_push_kept_table (lua_State *L, const void *key);

/* [-0, +0, v]  Raise since a script has taken away what the registry, or a
   handle, had. */
_Noreturn void rs_raise_replaced (lua_State *L);

/*
 * [-0, +1, m]  Make the metatable of 'type' from 'meta', make its table of
 * methods from 'methods', and push the table of methods.  The first upvalue of
 * all these functions is 'own', a light userdata.  The table of methods is the
 * '__index' too, unless 'meta' has one.  Each call makes new tables, so that a
 * call that failed for want of memory can be repeated.
 */
void rs_handle_type (lua_State *L, const char *type, void *own,
                     const luaL_Reg *meta, const luaL_Reg *methods);

/*
 * [-0, +1, m]  Push the metatable named 'type'; make it from 'meta' at the
 * first call.  The registry gets the metatable when it is filled.  With
 * 'luaL_newmetatable' the registry would get an empty one first, which would
 * stay empty when there is no memory for the functions.
 */
void rs_push_type (lua_State *L, const char *type, const luaL_Reg *meta);

/*
 * [-0, +0, v]  Raise a message that begins with the position of the code that
 * called into the module, however many functions of the module are between
 * that code and this call.  Where the message tells which value cannot travel,
 * the way out follows (lremedy.h).
 */
int rs_handle_error (lua_State *L, const char *format, ...);

/* [-0, +1, m]  Push that position, "scan.lua:12: ", or "" if it is unknown. */
void rs_handle_position (lua_State *L);

/* [-0, +0, v]  Raise 'text', behind the caller's position only where Lua's
   'error' with a level would find it: not if 'pcall(method, ...)' made the
   call. */
int rs_handle_error_near (lua_State *L, const char *text);

/* [-0, +0, v]  'rs_handle_error' with the text of 'err'. */
int rs_handle_raise (lua_State *L, const rs_error *err);

/* [-0, +1, m]  Push 'text' as 'rs_escape' has it, and return that; it is on
   the stack. */
const char *rs_handle_escape (lua_State *L, const char *text);

/* [-0, +1, m]  Push 'text' as it is quoted in a message: as 'rs_escape' has
   it, and cut to 40 bytes before that.  Return it. */
const char *rs_handle_clean (lua_State *L, const char *text, size_t size);

/* [-0, +?, m]  Return a value in a few words, on one line: "nil", "'abc'", "a
   table".  The strings that this makes stay on the stack. */
const char *rs_handle_describe (lua_State *L, int arg);

/*
 * [-0, +0, v]  Raise if there are more than 'most' arguments; further ones
 * that are nil are ignored.  'most' includes the object of a method; 'own' is
 * 1 for a method, so that the message does not count the object, and else 0.
 * 'usage' tells how the function is written: "job:wait([timeout])".
 */
void rs_handle_most (lua_State *L, int most, int own, const char *usage);

/*
 * [-0, +0, v]  Return the time at argument 'arg', in seconds.  A number that
 * is not negative is expected; no argument, nil and infinity mean RS_FOREVER.
 * 'verb' is the name of the calling function, for the message.
 */
double rs_handle_timeout (lua_State *L, int arg, const char *verb);

#endif
